/* seq2seq.c - Demonstrates an encoder and a decoder (Vaswani et al. 2017) that write out numbers: 417 -> four hundred seventeen.

   The encoder reads digits. The decoder writes letters, each from all digits and the letters before it. While it learns it is given the right letters
   before it; then it writes by itself, a hundred texts at once, and keys and values of what is written stay in a cache.
   Data:     made here: numbers below a million. One in seven of those above 99 is never trained on; the tests are of these
   Build:    cc -O2 examples/seq2seq.c -o seq2seq -lm -lpthread
   Run:      ./seq2seq [--steps N] [number ...]
   Expect:   at least 99 % of 1,000 numbers without any wrong letter after 1000 steps (a minute), then the numbers asked for
   Run in CI: --steps 40 417
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { LAYERS = 2, HEADS = 4, WIDTH = 64, BATCH = 100, DIGITS = 6, LETTERS = 66, MOST = 1000000, SYMBOLS = 29, END = 0, BEGIN = 1 };     /* then space, a to z */
typedef struct Net {
    nn_layer *root, *digits, *letters, *encoder[LAYERS], *decoder[LAYERS], *out;
    nn_tensor *positions, *memory, *lengths;             /* memory (BATCH, DIGITS, WIDTH): what the encoder makes of the digits; lengths (BATCH) of the numbers */
    nn_kv_cache *cache[LAYERS], *across[LAYERS];         /* of writing */
} Net;

static void build(Net *n, nn_context *nn)
{
    n->root = nn_model_new(nn, NULL);
    n->positions = nn_sinusoidal_new(nn, LETTERS, WIDTH);
    n->digits = nn_embedding_new(n->root, "digits", 10, WIDTH);
    n->letters = nn_embedding_new(n->root, "letters", SYMBOLS, WIDTH);
    nn_layer *encoder = nn_group_new(n->root, "encoder"), *decoder = nn_group_new(n->root, "decoder");
    for (int i = 0; i < LAYERS; i++) {
        n->encoder[i] = nn_transformer_encoder_layer_new(encoder, NULL, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 4 * WIDTH });
        n->decoder[i] = nn_transformer_decoder_layer_new(decoder, NULL, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 4 * WIDTH, .causal = 1 });
        n->cache[i] = nn_kv_cache_new(nn, BATCH, HEADS, LETTERS, WIDTH / HEADS, 0);
        n->across[i] = nn_kv_cache_new(nn, BATCH, HEADS, DIGITS, WIDTH / HEADS, 0);
    }
    n->out = nn_linear_new(n->root, "out", WIDTH, SYMBOLS, NULL);
}

static void encode(Net *n, const int *numbers)
{
    int64_t digits[BATCH][DIGITS] = { { 0 } }, lengths[BATCH];
    nn_context *nn = nn_context_of(n->root);
    for (int b = 0; b < BATCH; b++) {
        char text[16];
        lengths[b] = sprintf(text, "%d", numbers[b]);
        for (int i = 0; i < lengths[b]; i++) digits[b][i] = text[i] - '0';
    }
    n->lengths = nn_from_as(nn, NN_I64, NN_SHAPE(BATCH), lengths);                       /* what is behind them, nobody looks at */
    nn_tensor *x = nn_add(nn_forward(n->digits, nn_from_as(nn, NN_I64, NN_SHAPE(BATCH, DIGITS), digits)), nn_slice(n->positions, 0, 0, DIGITS, 1));
    for (int i = 0; i < LAYERS; i++) x = nn_transformer_encoder_layer_forward(n->encoder[i], x, &(nn_attention_desc){ .lengths = n->lengths });
    n->memory = x;
}
static nn_tensor *decode(Net *n, nn_tensor *x, int cached)                               /* letters (B, T) -> scores of the next ones (B, T, SYMBOLS) */
{
    int64_t at = cached ? nn_kv_cache_length(n->cache[0]) : 0;
    x = nn_add(nn_forward(n->letters, x), nn_slice(n->positions, 0, at, at + nn_dim(x, 1), 1));
    for (int i = 0; i < LAYERS; i++)
        x = nn_transformer_decoder_layer_forward(n->decoder[i], x, n->memory, &(nn_attention_desc){ .cache = cached ? n->cache[i] : NULL },
                                                 &(nn_attention_desc){ .lengths = n->lengths, .cache = cached ? n->across[i] : NULL });
    return nn_forward(n->out, x);
}

static int spell(char *to, int n)                        /* how many letters it is */
{
    static const char *const words[] = { "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety" };
    int unit = n >= 1000 ? 1000 : n >= 100 ? 100 : n >= 20 ? 10 : 1;
    int length = unit < 100 ? sprintf(to, "%s", words[n < 20 ? n : 18 + n / 10]) : spell(to, n / unit);
    if (unit >= 100) length += sprintf(to + length, unit == 100 ? " hundred" : " thousand");
    if (n % unit) { to[length++] = ' '; length += spell(to + length, n % unit); }
    return length;
}
static void draw(int *numbers, unsigned *random, int test)               /* BATCH of them, with few digits as often as with many; tests: just any */
{
    for (int b = 0; b < BATCH; ) {
        unsigned size = *random = *random * 1664525u + 1013904223u, at = *random = size * 1664525u + 1013904223u;
        int n = numbers[b] = (int)((at >> 8) / 16777216.0 * pow(10, test ? DIGITS : 1 + (size >> 16) % DIGITS));
        if ((n > 99 && n % 7 == 3) == test) b++;
    }
}

static nn_tensor *loss_of(Net *n, const int *numbers)
{
    int64_t before[BATCH][LETTERS], next[BATCH][LETTERS], longest = 0;
    nn_context *nn = nn_context_of(n->root);
    for (int b = 0; b < BATCH; b++) {
        char text[LETTERS + 1];
        int length = spell(text, numbers[b]);
        longest = length >= longest ? length + 1 : longest;
        for (int i = 0; i < LETTERS; i++) {
            next[b][i] = i > length ? NN_IGNORE : i == length ? END : text[i] == ' ' ? 2 : text[i] - 'a' + 3;
            before[b][i] = i == 0 ? BEGIN : i > length ? END : next[b][i - 1];
        }
    }
    encode(n, numbers);
    nn_tensor *scores = decode(n, nn_slice(nn_from_as(nn, NN_I64, NN_SHAPE(BATCH, LETTERS), before), 1, 0, longest, 1), 0);
    return nn_token_cross_entropy(scores, nn_slice(nn_from_as(nn, NN_I64, NN_SHAPE(BATCH, LETTERS), next), 1, 0, longest, 1), NULL);
}

static int write_out(Net *n, const int *numbers, int show)               /* the likeliest letter after the other; how many texts are right */
{
    char text[BATCH][LETTERS + 1] = { "" }, want[LETTERS + 1];
    int64_t next[BATCH];
    int right = 0;
    nn_context *nn = nn_context_of(n->root);
    for (int b = 0; b < BATCH; b++) next[b] = BEGIN;
    for (int i = 0; i < LAYERS; i++) nn_kv_cache_truncate(n->cache[i], 0), nn_kv_cache_truncate(n->across[i], 0);
    nn_begin(nn, NN_EVAL);
    encode(n, numbers);
    for (int t = 0; t < LETTERS; t++) {
        n->memory = nn_keep(n->memory), n->lengths = nn_keep(n->lengths);
        nn_begin(nn, NN_EVAL);
        nn_tensor *scores = decode(n, nn_from_as(nn, NN_I64, NN_SHAPE(BATCH, 1), next), 1);
        if (!nn_read_as(nn_argmax(scores, NN_DIMS(2), NULL), NN_I64, next)) return 0;
        for (int b = 0; b < BATCH; b++) text[b][t] = next[b] > 2 ? (char)('a' + next[b] - 3) : next[b] == 2 ? ' ' : '\0';        /* what is behind END does not matter */
    }
    for (int b = 0; b < BATCH; b++) {
        spell(want, numbers[b]);
        right += !strcmp(text[b], want);
        if (b < show) printf("%6d  %s\n", numbers[b], text[b]);
    }
    return right;
}

int main(int argc, char **argv)
{
    int steps = 1000, numbers[BATCH], asked[BATCH] = { 0 }, count = 0, right = 0;
    unsigned random = 1, random_test = 2;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--steps") && i + 1 < argc) steps = atoi(argv[++i]);
        else if (count < BATCH && atoi(argv[i]) >= 0 && atoi(argv[i]) < MOST) asked[count++] = atoi(argv[i]);
    }
    Net n;
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    build(&n, nn);
    nn_optimizer *opt = nn_adamw_new(n.root, &(nn_adamw_desc){ .lr = 0.003f, .clip_norm = 1 });
    nn_schedule *schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = steps, .warmup = 50 });
    printf("%lld parameters\n", (long long)nn_param_count(n.root));
    for (int step = 1; step <= steps && nn_ok(nn); step++) {
        draw(numbers, &random, 0);
        nn_begin(nn, NN_TRAIN);
        nn_tensor *loss = loss_of(&n, numbers);
        nn_backward_with(loss, &(nn_backward_desc){ .step = opt });
        nn_schedule_advance(schedule);
        if (step % 100 == 0 || step == steps) printf("step %d  loss %.5f\n", step, nn_item(loss));
    }
    for (int i = 0; i < 10 && nn_ok(nn); i++) { draw(numbers, &random_test, 1); right += write_out(&n, numbers, i ? 0 : 5); }
    printf("%.1f %% of 1000 numbers that it had never seen are right\n", right / 10.0);
    if (count) write_out(&n, asked, count);
    if (nn_ok(nn)) nn_free(nn), nn = NULL;
    return nn != NULL;
}
