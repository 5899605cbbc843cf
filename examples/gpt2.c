/* gpt2.c - Demonstrates a pretrained language model, GPT-2 (Radford et al. 2019): its layers under the names of Hugging Face's files, and decoding.

   Data:     a folder with config.json and model.safetensors, for example from https://huggingface.co/openai-community/gpt2; any size of it
   Build:    cc -O2 examples/gpt2.c -o gpt2 -lm -lpthread
   Run:      ./gpt2 folder [-n how many tokens] [-l] -i "token numbers"            -l: prints the scores of every token after the prompt
   Expect:   the numbers of the tokens that go on from there, and how many it makes in a second
   Run in CI: tests/golden/gpt2 -n 8 -i "7 23 4 42 11"
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { GPT2_LAYERS = 64 };
typedef struct GPT2Block { nn_layer *ln_1, *c_attn, *attn_proj, *ln_2, *c_fc, *mlp_proj; nn_kv_cache *cache; } GPT2Block;
typedef struct GPT2 {
    int       layers, heads;
    int64_t   width, positions, vocabulary;
    int       cached, last;          /* 1: earlier calls count (NN_EVAL); 1: only the last position gets logits */
    nn_layer *net, *wte, *wpe, *ln_f;
    GPT2Block block[GPT2_LAYERS];
} GPT2;

static nn_tensor *gpt2_forward(void *self, nn_tensor *ids)                       /* i64 (B, T) -> logits (B, T, V) */
{
    GPT2 *g = self;
    int64_t start = g->cached ? nn_kv_cache_length(g->block[0].cache) : 0, t = nn_dim(ids, 1);
    nn_tensor *x = nn_add(nn_forward(g->wte, ids), nn_slice(nn_param(g->wpe, "weight"), 0, start, start + t, 1));
    for (int i = 0; i < g->layers; i++) {
        GPT2Block *b = &g->block[i];
        nn_tensor *qkv = nn_forward(b->c_attn, nn_forward(b->ln_1, x));
        nn_tensor *y = nn_attention(qkv, NULL, NULL, &(nn_attention_desc){ .causal = 1, .heads = g->heads, .cache = g->cached ? b->cache : NULL });
        x = nn_add(x, nn_forward(b->attn_proj, y));
        x = nn_add(x, nn_forward(b->mlp_proj, nn_forward(b->c_fc, nn_forward(b->ln_2, x))));
    }
    if (g->last) x = nn_slice(x, 1, t - 1, t, 1);
    return nn_linear(nn_forward(g->ln_f, x), nn_param(g->wte, "weight"), NULL, NULL);      /* the embedding gives the logits, too */
}

static void gpt2_build(nn_context *nn, GPT2 *g, float eps)
{
    nn_layernorm_desc norm = { .eps = eps };
    nn_linear_desc linear = { .transposed = 1 }, gelu = { .transposed = 1, .activation = nn_gelu_tanh };
    int64_t c = g->width;
    g->net = nn_model_new(nn, &(nn_model_desc){ .forward = gpt2_forward, .self = g, .release = 1 });
    g->wte = nn_embedding_new(g->net, "wte", g->vocabulary, c);
    g->wpe = nn_embedding_new(g->net, "wpe", g->positions, c);
    nn_layer *h = nn_group_new(g->net, "h");
    for (int i = 0; i < g->layers; i++) {
        GPT2Block *b = &g->block[i];
        nn_layer *l = nn_group_new(h, NULL), *attn, *mlp;
        b->ln_1      = nn_layernorm_new(l, "ln_1", NN_SHAPE(c), &norm);
        b->c_attn    = nn_linear_new(attn = nn_group_new(l, "attn"), "c_attn", c, 3 * c, &linear);
        b->attn_proj = nn_linear_new(attn, "c_proj", c, c, &linear);
        b->ln_2      = nn_layernorm_new(l, "ln_2", NN_SHAPE(c), &norm);
        b->c_fc      = nn_linear_new(mlp = nn_group_new(l, "mlp"), "c_fc", c, 4 * c, &gelu);
        b->mlp_proj  = nn_linear_new(mlp, "c_proj", 4 * c, c, &linear);
    }
    g->ln_f = nn_layernorm_new(g->net, "ln_f", NN_SHAPE(c), &norm);
}

static double gpt2_number(nn_context *nn, const char *config, const char *key, double otherwise)
{
    char text[64];
    return nn_json_text(nn, config, key, text, sizeof text) ? atof(text) : otherwise;
}

/* 1 = ok. The file may have more than this net: masks of the attention, a copy of wte. */
static int gpt2_load(nn_context *nn, GPT2 *g, const char *folder)
{
    char config[512], weights[512];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    memset(g, 0, sizeof *g);
    g->width      = (int64_t)gpt2_number(nn, config, "n_embd", 768);
    g->positions  = (int64_t)gpt2_number(nn, config, "n_positions", 1024);
    g->vocabulary = (int64_t)gpt2_number(nn, config, "vocab_size", 50257);
    g->layers     = (int)gpt2_number(nn, config, "n_layer", 12);
    g->heads      = (int)gpt2_number(nn, config, "n_head", 12);
    if (g->layers < 1 || g->layers > GPT2_LAYERS) nn_fail(nn, "%s: %d layers, 1 to %d are possible", config, g->layers, GPT2_LAYERS);
    if (!nn_ok(nn)) return 0;
    gpt2_build(nn, g, (float)gpt2_number(nn, config, "layer_norm_epsilon", 1e-5));
    nn_rename rename = { "transformer.", "" };
    return nn_load(g->net, weights, &(nn_load_desc){ .rename = &rename, .rename_count = 1, .allow_unexpected = 1 });
}

/* From now on nn_forward goes on from where it stands; nn_kv_cache_truncate takes it back. */
static void gpt2_cache(nn_context *nn, GPT2 *g, int64_t capacity)
{
    for (int i = 0; i < g->layers; i++) g->block[i].cache = nn_kv_cache_new(nn, 1, capacity, g->width, 0);
    g->cached = 1;
}

int main(int argc, char **argv)
{
    static GPT2 g;
    int64_t ids[4096], n = 0, more = 32, fresh;
    int logits = 0;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "-n") && i + 1 < argc) more = atoi(argv[++i]);
        else if (!strcmp(argv[i], "-l")) logits = 1;
        else if (!strcmp(argv[i], "-i") && i + 1 < argc)
            for (char *p = argv[++i], *end; n < 1024 && (ids[n] = strtoll(p, &end, 10), end != p); p = end) n++;
    }
    if (argc < 2 || n == 0) { printf("gpt2 folder [-n tokens] [-l] -i \"token numbers\"\n"); return 1; }
    nn_context *nn = nn_new(NULL);
    if (!gpt2_load(nn, &g, argv[1])) return 1;
    printf("%lld parameters\n", (long long)nn_param_count(g.net));
    if (more > g.positions - n) more = g.positions - n;
    if (more > 3072) more = 3072;
    gpt2_cache(nn, &g, g.positions);
    g.last = 1;
    fresh = n;
    for (int64_t i = 0; i < more && nn_ok(nn); i++, fresh = 1) {
        nn_begin(nn, NN_EVAL);
        nn_tensor *scores = nn_forward(g.net, nn_from_as(nn, NN_I64, NN_SHAPE(1, fresh), ids + n - fresh));
        if (logits && i == 0) nn_print(scores);
        if (!nn_read_as(nn_argmax(scores, NN_DIMS(2), NULL), NN_I64, &ids[n])) break;
        printf("%lld ", (long long)ids[n++]);
        fflush(stdout);
    }
    puts("");
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
