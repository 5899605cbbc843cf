/* gpt.c - Demonstrates a GPT on characters (Radford et al. 2019), in the small setting that nanoGPT (Karpathy) recommends for a CPU.

   4 layers, 4 heads, 128 numbers a position, a context of 64, batches of 12; one weight for the first and the last layer. The peak learning rate
   is twice nanoGPT's: with its 0.001 the loss ends at 1.89 to 1.91 here, at 1.90 to 1.92 in PyTorch. Sampling has a cache: a character costs one position.
   Data:     a text:  ./gpt [--steps N] [--rate R] [--save FILE] [--sample N] text.txt;  without: rhymes. Training goes on where it ended if FILE is there
   Build:    cc -O2 examples/gpt.c -o gpt -lm -lpthread
   Expect:   tiny Shakespeare, 2000 steps (a minute): a validation loss of 1.81, then text with names and line ends where they belong
   Run in CI: --steps 60 --sample 80
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { LAYERS = 4, HEADS = 4, WIDTH = 128, CONTEXT = 64, BATCH = 12, WARMUP = 100, MOST = 1 << 24 };
typedef struct Gpt {
    nn_layer *net, *tokens, *positions, *block[LAYERS], *norm, *head;
    nn_kv_cache *cache[LAYERS];      /* of sampling */
    int sampling;
} Gpt;

static nn_tensor *forward(void *self, nn_tensor *x)      /* (B, T) -> (B, T, characters) */
{
    Gpt *g = self;
    int64_t at = g->sampling ? nn_kv_cache_length(g->cache[0]) : 0;
    x = nn_add(nn_forward(g->tokens, x), nn_slice(nn_param(g->positions, "weight"), 0, at, at + nn_dim(x, 1), 1));
    for (int i = 0; i < LAYERS; i++) x = nn_transformer_encoder_layer_forward(g->block[i], x, &(nn_attention_desc){ .cache = g->sampling ? g->cache[i] : NULL });
    return nn_forward(g->head, nn_forward(g->norm, x));
}
static void build(Gpt *g, nn_context *nn, int characters)
{
    g->net = nn_model_new(nn, &(nn_model_desc){ .forward = forward, .self = g, .release = 1 });
    g->tokens = nn_embedding_new(g->net, "tokens", characters, WIDTH);
    g->positions = nn_embedding_new(g->net, "positions", CONTEXT, WIDTH);
    nn_layer *blocks = nn_group_new(g->net, "blocks");
    for (int i = 0; i < LAYERS; i++) {
        g->block[i] = nn_transformer_encoder_layer_new(blocks, NULL, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 4 * WIDTH, .activation = nn_gelu, .norm_first = 1, .causal = 1, .no_bias = 1 });
        g->cache[i] = nn_kv_cache_new(nn, 1, HEADS, CONTEXT, WIDTH / HEADS, 0);
    }
    g->norm = nn_layernorm_new(g->net, "norm", NN_SHAPE(WIDTH), &(nn_layernorm_desc){ .no_bias = 1 });
    g->head = nn_tied_linear_new(g->net, g->tokens);
    nn_tensor *p[64];
    for (int i = 0, n = nn_params(g->net, p, 64); i < n; i++) {  /* GPT-2's start: small, and smaller what is added to the stream through the blocks */
        char name[64];
        nn_name(p[i], NULL, name, sizeof name);
        if (p[i]->ndim > 1) nn_init_normal(p[i], 0, strstr(name, "out_proj") || strstr(name, "linear2") ? 0.02f / sqrtf(2 * LAYERS) : 0.02f);
    }
}

/* ---- the text, as indices of characters ---- */
typedef struct Text { int64_t *index, count, train; int characters; char of[256]; } Text;     /* the first `train` are for training */
static Text read_text(const char *path)
{
    static const char *const rhymes[] = { "The cat sat on the mat.\n", "The rat ran from the cat.\n", "The cat ate the rat,\n", "and that was that.\n" };
    Text t = { malloc(MOST * sizeof *t.index), 0, 0, 0, { 0 } };
    int at[256], used[256] = { 0 }, c;
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (path && !f) { fprintf(stderr, "%s cannot be read\n", path); exit(1); }
    while (f && t.count < MOST && (c = getc(f)) != EOF) t.index[t.count++] = c;
    if (f) fclose(f);
    for (int i = 0; !path && i < 2000; i++) for (const char *p = rhymes[(i * 7 + i / 3) % 4]; *p; p++) t.index[t.count++] = *p;
    for (int64_t i = 0; i < t.count; i++) used[t.index[i]] = 1;
    for (int i = 0; i < 256; i++) if (used[i]) { at[i] = t.characters; t.of[t.characters++] = (char)i; }
    for (int64_t i = 0; i < t.count; i++) t.index[i] = at[t.index[i]];
    t.train = t.count / 10 * 9;
    if (t.count - t.train <= CONTEXT) { fprintf(stderr, "the text is too short\n"); exit(1); }
    return t;
}

/* The mean loss of a batch of pieces that begin anywhere between `from` and `to`; which ones follows from `number`. */
static nn_tensor *loss_of(Gpt *g, const Text *t, int64_t from, int64_t to, uint64_t number)
{
    int64_t x[BATCH * CONTEXT], y[BATCH * CONTEXT];
    nn_context *nn = nn_context_of(g->net);
    for (int b = 0; b < BATCH; b++) {
        uint64_t h = (number * BATCH + (uint64_t)b + 1) * 0x9E3779B97F4A7C15u;
        const int64_t *piece = t->index + from + (int64_t)((h ^ h >> 29) * 0xBF58476D1CE4E5B9u >> 33) % (to - from - CONTEXT);
        memcpy(x + b * CONTEXT, piece, CONTEXT * sizeof *x);
        memcpy(y + b * CONTEXT, piece + 1, CONTEXT * sizeof *y);
    }
    nn_tensor *scores = nn_forward(g->net, nn_from_as(nn, NN_I64, NN_SHAPE(BATCH, CONTEXT), x));
    return nn_cross_entropy(nn_reshape(scores, NN_SHAPE(-1, t->characters)), nn_from_as(nn, NN_I64, NN_SHAPE(BATCH * CONTEXT), y), NULL);
}
static double validate(Gpt *g, const Text *t)
{
    double sum = 0;
    for (uint64_t i = 0; i < 100; i++) {
        nn_begin(nn_context_of(g->net), NN_EVAL);
        sum += nn_item(loss_of(g, t, t->train, t->count, 1000000 + i));
    }
    return sum / 100;
}

static void sample(Gpt *g, const Text *t, int count)
{
    int64_t text[CONTEXT] = { 0 }, n = 1, made;          /* what the model sees */
    nn_generate_desc d = { .model = g->net, .cache = g->cache, .caches = LAYERS, .vocabulary = t->characters, .context = CONTEXT, .sample = &(nn_sample_desc){ .temperature = 0.8f } };
    g->sampling = 1;
    for (; count > 0; count -= (int)made) {
        made = nn_generate(nn_context_of(g->net), text, n, text + n, count < CONTEXT - n ? count : CONTEXT - n, &d);
        if (made < 1) break;
        for (int64_t i = n; i < n + made; i++) putchar(t->of[text[i]]);
        if ((n += made) < CONTEXT) continue;
        memmove(text, text + CONTEXT / 2, CONTEXT / 2 * sizeof *text);   /* it is full: go on with its second half */
        n = CONTEXT / 2;
    }
    g->sampling = 0;
}

int main(int argc, char **argv)
{
    const char *path = NULL, *save = NULL;
    int steps = 2000, characters = 500;
    double rate = 2e-3;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--steps") && i + 1 < argc) steps = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--rate") && i + 1 < argc) rate = atof(argv[++i]);
        else if (!strcmp(argv[i], "--save") && i + 1 < argc) save = argv[++i];
        else if (!strcmp(argv[i], "--sample") && i + 1 < argc) characters = atoi(argv[++i]);
        else path = argv[i];
    }
    Text text = read_text(path);
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    Gpt g = { 0 };
    build(&g, nn, text.characters);
    nn_optimizer *opt = nn_adamw_new(g.net, &(nn_adamw_desc){ .lr = (float)rate, .beta2 = 0.99f, .weight_decay = 0.1f, .clip_norm = 1 });
    static const char *const norms[] = { "norm1.weight", "norm2.weight", "norm.weight" };        /* only matrices decay */
    for (int i = 0; i < 3; i++) nn_optimizer_add(opt, g.net, &(nn_optimizer_desc){ .match = norms[i], .weight_decay = NN_ZERO });
    FILE *old = save ? fopen(save, "rb") : NULL;
    if (old && (fclose(old), !nn_resume(g.net, save, &(nn_save_desc){ .optimizer = opt }))) return 1;
    printf("%lld characters of %d kinds, %lld parameters, step %lld\n", (long long)text.count, text.characters, (long long)nn_param_count(g.net), (long long)nn_steps(opt));
    for (int64_t i = nn_steps(opt); i < steps && nn_ok(nn); i++) {
        double done = (double)(i - WARMUP) / (steps - WARMUP);     /* up in a line, then down to a tenth as half a cosine */
        nn_set_lr(opt, (float)(rate * (i < WARMUP ? (double)(i + 1) / (WARMUP + 1) : 0.55 + 0.45 * cos(3.14159265 * done))));
        nn_begin(nn, NN_TRAIN);
        nn_tensor *loss = loss_of(&g, &text, 0, text.train, (uint64_t)i);
        nn_backward_with(loss, &(nn_backward_desc){ .step = opt });
        if ((i + 1) % 250 == 0) printf("step %lld  validation loss %.3f\n", (long long)i + 1, validate(&g, &text));
    }
    sample(&g, &text, characters);
    if (save && !nn_save(g.net, save, &(nn_save_desc){ .optimizer = opt })) return 1;
    printf("\nvalidation loss %.3f\n", validate(&g, &text));
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
