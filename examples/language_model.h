/* language_model.h - what gpt2.c and llama.c share: decoding with caches of keys and values, fine-tuning with low-rank adapters (Hu et al. 2021).

   Arguments of both programs, after the files of the model:
       -i "7 23 4"   the prompt as token numbers; then no tokenizer is needed, and the result is numbers
       -n tokens     how many to make; default 64                  -t temperature   default: always the likeliest token; 0.8 is a good one
       -w type       bf16, f16 or int8: weights in so few bytes, in memory, too
       -f text.txt   fine-tunes on that text for one epoch: only adapters learn; they are saved as adapter.safetensors. Prompts come after it
       -a file       uses adapters that -f has saved               -l   prints the scores after the prompt
       anything else is a prompt; several go on at the same time                                       */
#ifndef LANGUAGE_MODEL_H
#define LANGUAGE_MODEL_H
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { LM_LAYERS = 128, LM_PROMPT = 4096, LM_WINDOW = 64, LM_ROWS = 8 };
typedef struct LanguageModel {
    int          layers;
    int64_t      vocabulary, positions, kv_heads, head;      /* head: numbers of a head */
    int          begin;              /* 1: a text begins with a token of its own */
    int          adapted;            /* 1: it has adapters */
    int64_t      rows, made_for;     /* texts at a time; how many the caches are made for */
    const int64_t *hidden;           /* tokens at the left of each text that are none, or NULL */
    int          cached, last;       /* 1: nn_forward goes on behind what the caches have; 1: only the last position gets logits */
    nn_layer    *net;                /* i64 (B, T) -> logits (B, T, vocabulary) */
    nn_kv_cache *cache[LM_LAYERS];
} LanguageModel;

static int64_t lm_start(const LanguageModel *m)          /* position of the first token that nn_forward gets */
{
    return m->cached ? nn_kv_cache_length(m->cache[0]) : 0;
}

static void lm_rewind(LanguageModel *m, int64_t length)  /* the caches keep only the first `length` positions; makes them if there are none */
{
    for (int i = 0; i < m->layers; i++) {
        if (!m->cache[i] || m->made_for != m->rows) m->cache[i] = nn_kv_cache_new(nn_context_of(m->net), m->rows ? m->rows : 1, m->kv_heads, m->positions, m->head, 0);
        nn_kv_cache_truncate(m->cache[i], length);
    }
    m->made_for = m->rows;
}

/* Shorter texts begin with tokens that are none: nobody looks at them, positions count behind them. */
static nn_tensor *lm_hidden(LanguageModel *m, int dims)  /* (B, 1), (B, 1, 1, 1) */
{
    nn_tensor *t = nn_cast(nn_from_as(nn_context_of(m->net), NN_I64, NN_SHAPE(m->rows), m->hidden), NN_F32);
    while (t->ndim < dims) t = nn_unsqueeze(t, 1);
    return t;
}
static nn_tensor *lm_mask(LanguageModel *m, int64_t keys)        /* for attention: NULL, or bool (B, 1, 1, keys) */
{
    return m->hidden ? nn_cast(nn_ge(nn_arange(nn_context_of(m->net), 0, (float)keys, 1), lm_hidden(m, 4)), NN_BOOL) : NULL;
}
static inline nn_tensor *lm_positions(LanguageModel *m, int64_t t)      /* i64 (T), or (B, T) */
{
    nn_context *nn = nn_context_of(m->net);
    nn_tensor *at = nn_arange(nn, (float)lm_start(m), (float)(lm_start(m) + t), 1);
    return nn_cast(m->hidden ? nn_maximum(nn_sub(at, lm_hidden(m, 2)), nn_scalar(nn, 0)) : at, NN_I64);
}

static int lm_step(void *self, const nn_generate_step *s)        /* the scores of the next token; computes what is new */
{
    LanguageModel *m = self;
    nn_context *nn = nn_context_of(m->net);
    int ok;
    m->rows = s->batch;
    lm_rewind(m, s->length - s->fresh);
    nn_begin(nn, NN_EVAL);
    m->cached = m->last = 1;
    m->hidden = s->hidden;
    nn_tensor *ids = s->batch == 1 ? nn_from_as(nn, NN_I64, NN_SHAPE(1, s->fresh), s->tokens + s->length - s->fresh)
                                   : nn_slice(nn_from_as(nn, NN_I64, NN_SHAPE(s->batch, s->pitch), s->tokens), 1, s->length - s->fresh, s->length, 1);
    ok = nn_read(nn_forward(m->net, ids), s->logits);
    m->cached = m->last = 0;
    m->hidden = NULL;
    return ok;
}

static int64_t lm_generate(LanguageModel *m, nn_tokenizer *tokenizer, const int64_t *prompt, int64_t count, int64_t *tokens, int64_t more, float temperature,
                           int (*show)(void *user, int64_t token, const char *text, size_t bytes))       /* how many tokens, -1 after an error */
{
    int64_t end = tokenizer ? nn_token_end(tokenizer) : -1;
    nn_sample_desc sample = { .greedy = !(temperature > 0), .temperature = temperature, .top_p = 0.95f };
    int64_t n;
    m->rows = 1;
    lm_rewind(m, 0);
    m->cached = m->last = 1;
    n = nn_generate(nn_context_of(m->net), prompt, count, tokens, more, &(nn_generate_desc){
        .model = m->net, .cache = m->cache, .caches = m->layers, .tokenizer = tokenizer, .vocabulary = m->vocabulary, .context = m->positions, .sample = &sample,
        .stop = &end, .stop_count = end >= 0, .on_text = tokenizer ? show : NULL });
    m->cached = m->last = 0;
    return n;
}
static int lm_generate_batch(LanguageModel *m, nn_tokenizer *tokenizer, const int64_t *prompts, const int64_t *counts, int64_t rows, int64_t *tokens, int64_t *made, int64_t more,
                             float temperature)      /* prompts (rows, LM_PROMPT); tokens (rows, more) */
{
    int64_t end = tokenizer ? nn_token_end(tokenizer) : -1;
    nn_sample_desc sample = { .greedy = !(temperature > 0), .temperature = temperature, .top_p = 0.95f };
    return nn_generate_batch(nn_context_of(m->net), prompts, counts, rows, LM_PROMPT, tokens, made, more, &(nn_generate_desc){
        .step = lm_step, .self = m, .vocabulary = m->vocabulary, .context = m->positions, .sample = &sample, .stop = &end, .stop_count = end >= 0 });
}

static nn_dtype lm_weights(int argc, char **argv)        /* what -w says */
{
    for (int i = 2; i + 1 < argc; i++) if (!strcmp(argv[i], "-w")) return argv[i + 1][0] == 'b' ? NN_BF16 : argv[i + 1][0] == 'f' ? NN_F16 : NN_I8;
    return NN_F32;
}

static void lm_adapt(LanguageModel *m)                   /* from now on only adapters learn: some hundredth of a model's numbers */
{
    if (!m->adapted) m->adapted = nn_lora_new(m->net, &(nn_lora_desc){ .rank = 8, .alpha = 16 });
}

static int lm_tune(LanguageModel *m, const char *text, nn_tokenizer *tokenizer)
{
    nn_context *nn = nn_context_of(m->net);
    int64_t room = 1 << 20, count;
    char *bytes = malloc((size_t)room);
    int64_t *tokens = malloc((size_t)room * sizeof *tokens);
    FILE *f = fopen(text, "rb");
    size_t n = f && bytes ? fread(bytes, 1, (size_t)room, f) : 0;
    if (f) fclose(f);
    count = tokenizer && tokens ? nn_encode(tokenizer, bytes, n, tokens, room, NULL) : 0;
    if (count <= LM_WINDOW) { nn_fail(nn, "%s: a tokenizer and a text of more than %d tokens are needed", text, LM_WINDOW); free(bytes); free(tokens); return 0; }
    lm_adapt(m);
    nn_fit(m->net, &(nn_fit_desc){
        .train = nn_loader_new(nn_tokens_new(nn, LM_WINDOW, &(nn_tokens_desc){ .tokens = tokens, .count = count }), &(nn_loader_desc){ .batch = 4, .shuffle = 1 }),
        .loss = nn_token_cross_entropy, .optimizer = nn_adamw_new(m->net, &(nn_adamw_desc){ .lr = 3e-4f, .clip_norm = 1 }) });
    free(bytes);
    free(tokens);
    return nn_save(m->net, "adapter.safetensors", &(nn_save_desc){ .trainable = 1 });
}

static int lm_exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

static int lm_show(void *user, int64_t token, const char *text, size_t bytes)
{
    (void)user; (void)token;
    fwrite(text, 1, bytes, stdout);
    fflush(stdout);
    return 1;
}

/* Of a folder: tokenizer.json, or vocab.json and merges.txt; of llama2.c's .bin: tokenizer.bin beside it. NULL if there is none. */
static nn_tokenizer *lm_tokenizer(nn_context *nn, const char *path)
{
    char file[512], merges[512];
    const char *end = strrchr(path, '/');
    int bin = strstr(path, ".bin") != NULL;
    snprintf(file, sizeof file, "%.*s%s", !bin ? 480 : end ? (int)(end + 1 - path) : 0, path, bin ? "tokenizer.bin" : "/tokenizer.json");
    if (lm_exists(file)) return bin ? nn_llama_tokenizer_load(nn, file, NULL) : nn_tokenizer_load(nn, file);
    snprintf(file, sizeof file, "%s/vocab.json", path);
    snprintf(merges, sizeof merges, "%s/merges.txt", path);
    return lm_exists(file) ? nn_bpe_tokenizer_load(nn, file, merges, NULL) : NULL;
}

static int lm_main(LanguageModel *m, int argc, char **argv)      /* of a loaded model; argv[1] is where it came from; returns what main returns */
{
    static int64_t prompts[LM_ROWS][LM_PROMPT], tokens[LM_ROWS * LM_PROMPT];
    nn_context *nn = nn_context_of(m->net);
    int64_t counts[LM_ROWS], made[LM_ROWS], rows = 0, longest = 0, more = 64;
    float temperature = 0;
    int scores = 0, numbers = 0;
    for (int i = 2; i < argc; i++) numbers |= !strcmp(argv[i], "-i");
    nn_tokenizer *tokenizer = numbers ? NULL : lm_tokenizer(nn, argv[1]);
    for (int i = 2; i < argc && nn_ok(nn); i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        int64_t count = 0, *prompt = prompts[rows % LM_ROWS];
        if (!strcmp(argv[i], "-l")) { scores = 1; continue; }
        if (argv[i][0] != '-') count = tokenizer ? nn_encode(tokenizer, argv[i], strlen(argv[i]), prompt, LM_PROMPT, &(nn_encode_desc){ .begin = m->begin }) : 0;
        else {
            if (argv[i][1] == 'n') more = atoi(value);
            if (argv[i][1] == 't') temperature = (float)atof(value);
            if (argv[i][1] == 'f') lm_tune(m, value, tokenizer);
            if (argv[i][1] == 'a') { lm_adapt(m); nn_load(m->net, value, &(nn_load_desc){ .trainable = 1 }); }
            if (argv[i++][1] != 'i') continue;
            for (char *end; count < LM_PROMPT && (prompt[count] = strtoll(value, &end, 10), end != value); value = end) count++;
        }
        if (nn_ok(nn) && (count < 1 || count > LM_PROMPT || rows == LM_ROWS)) nn_fail(nn, "prompt %d is empty, too long, or one too many", (int)rows + 1);
        if (count > longest) longest = count;
        if (rows < LM_ROWS) counts[rows++] = count;
    }
    printf("%lld parameters\n", (long long)nn_param_count(m->net));
    if (nn_ok(nn) && !rows) nn_fail(nn, "a prompt is missing: -i \"1 2 3\", or a text where there is a tokenizer");
    if (more > m->positions - longest) more = m->positions - longest;
    if (more > LM_PROMPT) more = LM_PROMPT;
    if (nn_ok(nn) && scores) { nn_begin(nn, NN_EVAL); m->last = 1; nn_print(nn_forward(m->net, nn_from_as(nn, NN_I64, NN_SHAPE(1, counts[0]), prompts[0]))); m->last = 0; }
    if (nn_ok(nn) && rows == 1) made[0] = lm_generate(m, tokenizer, prompts[0], counts[0], tokens, more, temperature, lm_show);
    else if (nn_ok(nn)) lm_generate_batch(m, tokenizer, prompts[0], counts, rows, tokens, made, more, temperature);
    for (int64_t r = 0; r < rows && nn_ok(nn); r++) {
        static char text[1 << 16];
        if (tokenizer && rows > 1) { nn_decode(tokenizer, tokens + r * more, made[r], text, sizeof text, NULL); fputs(text, stdout); }
        for (int64_t i = 0; !tokenizer && i < made[r]; i++) printf("%lld ", (long long)tokens[r * more + i]);
        puts("");
    }
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
#endif
