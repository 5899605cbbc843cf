/* tokens.c - Demonstrates tokenizers and generation: trains a BPE vocabulary on a text, shows how short the text becomes, and lets a
   model of token pairs (how often does b follow a?) write.

   Build:    cc -O2 examples/tokens.c -o tokens -lm -lpthread
   Run:      ./tokens [text [size of the vocabulary]]        default: nn.h itself, 1000 tokens
   Expect:   a few of the longest tokens, bytes per token, "round trip: ok", and some lines that look like the text from afar
   Run in CI: nn.h 600
   Level:    *                                                                                    */
#define NN_IMPLEMENTATION
#include "../nn.h"

static char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    long n;
    *bytes = 0;
    if (!f) return NULL;
    if (!fseek(f, 0, SEEK_END) && (n = ftell(f)) > 0 && !fseek(f, 0, SEEK_SET) && (text = malloc((size_t)n)) != NULL) *bytes = fread(text, 1, (size_t)n, f);
    fclose(f);
    return text;
}

/* The model: logits are the logarithms of counts. A net would stand here: nn_forward of the last tokens, its last row read into s->logits. */
typedef struct { const float *count; } Pairs;
static int step(void *self, const nn_generate_step *s)
{
    const Pairs *m = self;
    int64_t i, last = s->tokens[s->length - 1];
    for (i = 0; i < s->vocabulary; i++) s->logits[i] = logf(m->count[last * s->vocabulary + i] + 1e-4f);
    return 1;
}

static int show(void *user, int64_t token, const char *text, size_t bytes)
{
    (void)user; (void)token;
    fwrite(text, 1, bytes, stdout);
    return 1;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "nn.h";
    size_t bytes, length;
    char *text = read_file(path, &bytes), *back;
    nn_context *nn = nn_new(NULL);
    nn_tokenizer *t;
    int64_t *tokens, count, vocabulary, i, out[120];
    float *pairs;
    Pairs model;
    if (!text) { fprintf(stderr, "cannot read %s\n", path); return 1; }
    t = nn_bpe_tokenizer_new(nn, text, bytes, argc > 2 ? atoll(argv[2]) : 1000, NULL);
    vocabulary = nn_token_count(t);
    tokens = malloc((bytes + 1) * sizeof *tokens);
    back = malloc(bytes + 1);
    pairs = calloc((size_t)(vocabulary * vocabulary) + 1, sizeof *pairs);
    count = nn_encode(t, text, bytes, tokens, (int64_t)bytes, NULL);
    if (count < 2 || !back || !pairs) { fprintf(stderr, "%s\n", nn_error(nn)); return 1; }
    printf("%s: %llu bytes, %lld tokens of a vocabulary of %lld: %.2f bytes per token\nlong tokens:", path, (unsigned long long)bytes, (long long)count,
           (long long)vocabulary, (double)bytes / (double)count);
    for (i = 256; i < vocabulary; i++) {
        const char *s = nn_token_text(t, i, &length);
        if (length > 8) printf(" \"%.*s\"", (int)length, s);
    }
    printf("\nround trip: %s\n\n", nn_decode(t, tokens, count, back, bytes + 1, NULL) == bytes && !memcmp(back, text, bytes) ? "ok" : "WRONG");
    for (i = 0; i + 1 < count; i++) pairs[tokens[i] * vocabulary + tokens[i + 1]]++;
    model.count = pairs;
    if (nn_generate(nn, tokens, 1, out, 120, &(nn_generate_desc){ .step = step, .self = &model, .tokenizer = t, .on_text = show,
                    .sample = &(nn_sample_desc){ .temperature = 0.8f, .top_p = 0.95f } }) < 0) return 1;
    printf("\n");
    nn_free(nn);
    free(text); free(tokens); free(back); free(pairs);
    return 0;
}
