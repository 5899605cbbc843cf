/* char_rnn.c - Demonstrates a language model of characters: an LSTM reads a text in parallel streams, its state is carried from step to
   step (truncated back-propagation through time), then it writes by itself, one character at a time.

   Data:     any text file, best of a megabyte or more:  ./char_rnn [--steps N] [--hidden H] FILE      e.g. Shakespeare's plays from gutenberg.org
   Build:    cc -O2 examples/char_rnn.c -o char_rnn -lm -lpthread
   Expect:   the loss in bits per character: 2.14 after 1000 steps (one or two minutes) on 1 MB of plays. Then 400 characters of its own
   Run in CI: --steps 20 --hidden 64 nn.h
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { STREAMS = 32, STEPS = 64 };
typedef struct Net { nn_layer *root, *embedding, *lstm, *out; } Net;

/* characters (B, T) -> scores of the next ones (B, T, classes) */
static nn_tensor *forward(const Net *n, nn_tensor *x, nn_rnn_state *state)
{
    return nn_forward(n->out, nn_rnn_forward(n->lstm, nn_forward(n->embedding, x), state));
}

static char *read_text(const char *path, int64_t *bytes)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    char *text = NULL;
    long n;
    if (f && !fseek(f, 0, SEEK_END) && (n = ftell(f)) > 0 && !fseek(f, 0, SEEK_SET) && (text = malloc((size_t)n))) *bytes = (int64_t)fread(text, 1, (size_t)n, f);
    if (f) fclose(f);
    return text;
}

/* One character drawn from softmax(scores / temperature). */
static int draw(nn_tensor *scores, float temperature, int classes)
{
    static unsigned random = 1;
    float p[256];
    nn_read(nn_softmax(nn_mul_scalar(scores, 1 / temperature), -1), p);
    random = random * 1664525u + 1013904223u;
    float at = (float)(random >> 8) / 16777216.0f;
    int k = 0;
    while (k < classes - 1 && (at -= p[k]) > 0) k++;
    return k;
}

int main(int argc, char **argv)
{
    const char *path = NULL;
    int steps = 1000, classes = 0, hidden = 256;
    int64_t bytes = 0, class_of[256], x[STREAMS * STEPS], y[STREAMS * STEPS];
    char letter[256];
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--steps") && i + 1 < argc) steps = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--hidden") && i + 1 < argc) hidden = atoi(argv[++i]);
        else path = argv[i];
    }
    char *text = read_text(path, &bytes);
    if (!text || bytes < STREAMS * (STEPS + 1)) { printf("no text of at least %d bytes: nothing to do\n", STREAMS * (STEPS + 1)); free(text); return 0; }
    for (int i = 0; i < 256; i++) class_of[i] = -1;
    for (int64_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if (class_of[c] < 0) { letter[classes] = (char)c; class_of[c] = classes++; }
    }

    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    Net n;
    n.root = nn_model_new(nn, NULL);
    n.embedding = nn_embedding_new(n.root, "embedding", classes, hidden);
    n.lstm = nn_lstm_new(n.root, "lstm", hidden, hidden, &(nn_lstm_desc){ .layers = 2 });
    n.out  = nn_linear_new(n.root, "out", hidden, classes, NULL);
    printf("%lld characters, %d different ones, %lld parameters\n", (long long)bytes, classes, (long long)nn_param_count(n.root));
    nn_optimizer *opt = nn_adam_new(n.root, &(nn_adam_desc){ .lr = 0.002f, .clip_norm = 1 });
    nn_schedule *schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = steps });

    /* Stream b reads its own part of the text from beginning to end; what it has read before is in the state. */
    int64_t part = bytes / STREAMS, at = 0;
    nn_rnn_state state = { 0 };
    double sum = 0;
    for (int step = 1; step <= steps && nn_ok(nn); step++) {
        if (at + STEPS + 1 > part) { at = 0; state = (nn_rnn_state){ 0 }; }
        for (int b = 0; b < STREAMS; b++) for (int t = 0; t < STEPS; t++) {
            const char *c = text + b * part + at + t;
            x[b * STEPS + t] = class_of[(unsigned char)c[0]];
            y[b * STEPS + t] = class_of[(unsigned char)c[1]];
        }
        nn_begin(nn, NN_TRAIN);
        nn_tensor *scores = forward(&n, nn_from_as(nn, NN_I64, NN_SHAPE(STREAMS, STEPS), x), &state);
        nn_tensor *loss = nn_cross_entropy(nn_reshape(scores, NN_SHAPE(-1, classes)), nn_from_as(nn, NN_I64, NN_SHAPE(STREAMS * STEPS), y), NULL);
        nn_backward(loss);
        nn_step(opt);
        nn_schedule_advance(schedule);
        nn_rnn_keep(&state);                             /* outlives the next nn_begin; gradients end here */
        sum += nn_item(loss) / log(2.0);
        at += STEPS;
        if (step % 100 == 0 || step == steps) { printf("step %5d  %.3f bits per character\n", step, sum / (step % 100 ? step % 100 : 100)); sum = 0; }
    }

    int64_t next = class_of['\n'] < 0 ? 0 : class_of['\n'];
    memset(&state, 0, sizeof state);
    for (int i = 0; i < 400 && nn_ok(nn); i++) {
        nn_begin(nn, NN_EVAL);
        next = draw(forward(&n, nn_from_as(nn, NN_I64, NN_SHAPE(1, 1), &next), &state), 0.8f, classes);
        nn_rnn_keep(&state);
        putchar(letter[next]);
    }
    printf("\n");
    int ok = nn_ok(nn);
    nn_free(nn);
    free(text);
    return !ok;
}
