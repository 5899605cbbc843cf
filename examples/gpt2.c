/* gpt2.c - Demonstrates a pretrained language model, GPT-2 (Radford et al. 2019): its layers under the names of Hugging Face's files, and decoding.

   Data:     a folder with config.json, model.safetensors and, for text, vocab.json and merges.txt, for example from
             https://huggingface.co/openai-community/gpt2; any size of it
   Build:    cc -O2 examples/gpt2.c -o gpt2 -lm -lpthread
   Run:      ./gpt2 folder [options] "In a shocking finding, scientists"              the options are those of language_model.h
   Expect:   how many parameters it has, and how the text goes on
   Run in CI: tests/golden/gpt2 -n 8 -i "7 23 4 42 11"
   Level:    ***                                                                                  */
#include "language_model.h"

typedef struct GPT2Block { nn_layer *ln_1, *c_attn, *attn_proj, *ln_2, *c_fc, *mlp_proj; } GPT2Block;
typedef struct GPT2 {
    LanguageModel lm;
    int64_t   width;
    nn_layer *wte, *wpe, *ln_f, *head;
    GPT2Block block[LM_LAYERS];
} GPT2;

static nn_tensor *gpt2_forward(void *self, nn_tensor *ids)                       /* i64 (B, T) -> logits (B, T, V) */
{
    GPT2 *g = self;
    int64_t start = lm_start(&g->lm), t = nn_dim(ids, 1);
    nn_tensor *x = nn_add(nn_forward(g->wte, ids), nn_forward(g->wpe, lm_positions(&g->lm, t))), *mask = lm_mask(&g->lm, start + t);
    for (int i = 0; i < g->lm.layers; i++) {
        GPT2Block *b = &g->block[i];
        nn_tensor *qkv = nn_forward(b->c_attn, nn_forward(b->ln_1, x));
        nn_tensor *y = nn_attention(qkv, NULL, NULL, &(nn_attention_desc){ .causal = 1, .heads = (int)g->lm.kv_heads, .cache = g->lm.cached ? g->lm.cache[i] : NULL, .mask = mask });
        y = nn_add_norm_forward(b->ln_2, x, nn_forward(b->attn_proj, y), &x);                    /* x + what attention gives, and its norm */
        x = nn_add(x, nn_forward(b->mlp_proj, nn_forward(b->c_fc, y)));
    }
    if (g->lm.last) x = nn_slice(x, 1, t - 1, t, 1);
    return nn_forward(g->head, nn_forward(g->ln_f, x));
}

static void gpt2_build(nn_context *nn, GPT2 *g, float eps)
{
    nn_layernorm_desc norm = { .eps = eps };
    nn_linear_desc linear = { .transposed = 1 }, gelu = { .transposed = 1, .activation = nn_gelu_tanh };
    int64_t c = g->width;
    g->lm.net = nn_model_new(nn, &(nn_model_desc){ .forward = gpt2_forward, .self = g, .release = 1 });
    g->wte = nn_embedding_new(g->lm.net, "wte", g->lm.vocabulary, c);
    g->wpe = nn_embedding_new(g->lm.net, "wpe", g->lm.positions, c);
    g->head = nn_tied_linear_new(g->lm.net, g->wte);                              /* the embedding gives the logits, too */
    nn_layer *h = nn_group_new(g->lm.net, "h");
    for (int i = 0; i < g->lm.layers; i++) {
        GPT2Block *b = &g->block[i];
        nn_layer *l = nn_group_new(h, NULL), *attn, *mlp;
        b->ln_1      = nn_layernorm_new(l, "ln_1", NN_SHAPE(c), &norm);
        b->c_attn    = nn_linear_new(attn = nn_group_new(l, "attn"), "c_attn", c, 3 * c, &linear);
        b->attn_proj = nn_linear_new(attn, "c_proj", c, c, &linear);
        b->ln_2      = nn_layernorm_new(l, "ln_2", NN_SHAPE(c), &norm);
        b->c_fc      = nn_linear_new(mlp = nn_group_new(l, "mlp"), "c_fc", c, 4 * c, &gelu);
        b->mlp_proj  = nn_linear_new(mlp, "c_proj", 4 * c, c, &linear);
    }
    g->ln_f = nn_layernorm_new(g->lm.net, "ln_f", NN_SHAPE(c), &norm);
}

/* 1 = ok. The file may have more than this net: masks of the attention, a copy of wte. */
static int gpt2_load(nn_context *nn, GPT2 *g, const char *folder)
{
    char config[512], weights[512];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    memset(g, 0, sizeof *g);
    g->width         = (int64_t)nn_json_number(nn, config, "n_embd", 768);
    g->lm.positions  = (int64_t)nn_json_number(nn, config, "n_positions", 1024);
    g->lm.vocabulary = (int64_t)nn_json_number(nn, config, "vocab_size", 50257);
    g->lm.layers     = (int)nn_json_number(nn, config, "n_layer", 12);
    g->lm.kv_heads   = (int64_t)nn_json_number(nn, config, "n_head", 12);
    if (g->lm.layers < 1 || g->lm.layers > LM_LAYERS) nn_fail(nn, "%s: %d layers, 1 to %d are possible", config, g->lm.layers, LM_LAYERS);
    if (g->lm.kv_heads < 1) nn_fail(nn, "%s: %lld heads", config, (long long)g->lm.kv_heads);
    if (!nn_ok(nn)) return 0;
    g->lm.head = g->width / g->lm.kv_heads;
    nn_init_skip(nn, 1);             /* nn_load brings all numbers */
    gpt2_build(nn, g, (float)nn_json_number(nn, config, "layer_norm_epsilon", 1e-5));
    nn_init_skip(nn, 0);
    nn_rename rename = { "transformer.", "" };
    return nn_load(g->lm.net, weights, &(nn_load_desc){ .rename = &rename, .rename_count = 1, .allow_unexpected = 1 });
}

int main(int argc, char **argv)
{
    static GPT2 g;
    if (argc < 2) { puts("gpt2 folder [options] [prompt]: see language_model.h"); return 1; }
    nn_context *nn = nn_new(NULL);
    nn_weights_as(nn, lm_weights(argc, argv), NULL);
    if (!gpt2_load(nn, &g, argv[1])) return 1;
    return lm_main(&g.lm, argc, argv);
}
