/* names.c - Demonstrates a neural language model (Bengio et al. 2003) on letters: it reads a list of names and makes up new ones.

   The last 8 letters become vectors, side by side; a hidden layer, and scores of the next letter, or of the end. Such a window and its next letter
   are a sample like any other: nn_fit trains, nn_evaluate tests.
   Data:     8,403 English first names (examples/data), or a list of yours, one name a line:  ./names [--epochs N] [file]
             32,033 names from the US Social Security Administration: names.txt of https://github.com/karpathy/makemore
   Build:    cc -O2 examples/names.c -o names -lm -lpthread
   Expect:   a validation loss of at most 1.95 per letter after 5 seconds (names.txt: 1.98 after 15), and 40 names of which most are new
   Run in CI: --epochs 1
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { WINDOW = 8, LETTERS = 27, VECTOR = 24, HIDDEN = 256, BATCH = 64, LONGEST = 31, MOST_NAMES = 50000, MADE = 40 };       /* letter 0: before the first, behind the last */
typedef struct Net { nn_layer *root, *letters, *hidden, *out; } Net;
typedef struct Windows { float *x; int64_t *next, count; } Windows;
static char names[MOST_NAMES][LONGEST + 1];

static nn_tensor *forward(void *self, nn_tensor *x)                              /* (B, WINDOW) numbers of letters, as datasets have floats */
{
    Net *n = self;
    x = nn_flatten(nn_forward(n->letters, nn_cast(x, NN_I64)), 1);               /* (B, WINDOW * VECTOR) */
    x = nn_dropout(nn_tanh(nn_forward(n->hidden, x)), 0.2f);
    return nn_forward(n->out, x);                                                /* (B, LETTERS) */
}

static int read_names(const char *path)                                          /* a to z only, without regard to case; how many */
{
    FILE *f = fopen(path, "r");
    int count = 0, length = 0, c;
    if (!f) return 0;
    do {
        c = getc(f);
        if (c >= 'A' && c <= 'Z') c += 'a' - 'A';
        if (c >= 'a' && c <= 'z') { if (length < LONGEST) names[count][length++] = (char)c; }
        else if ((c == '\n' || c == EOF) && length) { count++; length = 0; }
    } while (c != EOF && count < MOST_NAMES);
    fclose(f);
    return count;
}

/* All windows of the names whose turn it is: every tenth is for validation. */
static Windows windows_of(int count, int validation)
{
    Windows w = { NULL, NULL, 0 };
    int64_t most = 0;
    for (int i = 0; i < count; i++) most += (int64_t)strlen(names[i]) + 1;
    w.x = malloc((size_t)(most * WINDOW) * sizeof *w.x);
    w.next = malloc((size_t)most * sizeof *w.next);
    if (!w.x || !w.next) exit(1);
    for (int i = 0; i < count; i++) {
        int length = (int)strlen(names[i]);
        for (int at = 0; (i % 10 == 9) == validation && at <= length; at++, w.count++) {
            for (int k = 0; k < WINDOW; k++) w.x[w.count * WINDOW + k] = at + k < WINDOW ? 0 : (float)(names[i][at + k - WINDOW] - 'a' + 1);
            w.next[w.count] = at < length ? names[i][at] - 'a' + 1 : 0;
        }
    }
    return w;
}

static nn_dataset *dataset_of(nn_context *nn, const Windows *w)
{
    return nn_dataset_new(nn, &(nn_dataset_desc){ .count = w->count, .x_shape = NN_SHAPE(WINDOW), .classes = LETTERS, .x = w->x, .labels = w->next });
}

/* Many names at once, a letter of each at a time. */
static void make_up(Net *n, int count)
{
    nn_context *nn = nn_context_of(n->root);
    char name[MADE][LONGEST + 1] = { "" };
    float x[MADE][WINDOW] = { { 0 } };
    int64_t next[MADE];
    int ended[MADE] = { 0 }, fresh = 0;
    for (int at = 0; at < LONGEST; at++) {
        nn_begin(nn, NN_EVAL);
        if (!nn_sample(nn_forward(n->root, nn_from(nn, NN_SHAPE(MADE, WINDOW), &x[0][0])), NULL, 0, NULL, next)) return;
        for (int i = 0; i < MADE; i++) {
            ended[i] |= next[i] == 0;
            if (!ended[i]) name[i][at] = (char)('a' + next[i] - 1);
            memmove(x[i], x[i] + 1, (WINDOW - 1) * sizeof x[i][0]);
            x[i][WINDOW - 1] = (float)next[i];
        }
    }
    for (int i = 0; i < MADE; i++) {
        int known = 0;
        for (int k = 0; k < count && !known; k++) known = !strcmp(name[i], names[k]);
        printf("%s%s%s", name[i], known ? "*" : "", i % 8 == 7 ? "\n" : "  ");
        fresh += !known;
    }
    printf("%d of %d are new, the others (*) are on the list\n", fresh, MADE);
}

int main(int argc, char **argv)
{
    const char *path = "examples/data/names_en.txt";
    int epochs = 20;
    for (int i = 1; i < argc; i++) if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]); else path = argv[i];
    int count = read_names(path);
    if (count < 20) { fprintf(stderr, "%s has no list of names\n", path); return 1; }

    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    Windows train = windows_of(count, 0), validation = windows_of(count, 1);
    nn_loader *batches = nn_loader_new(dataset_of(nn, &train), &(nn_loader_desc){ .batch = BATCH, .shuffle = 1 });
    nn_loader *tests = nn_loader_new(dataset_of(nn, &validation), &(nn_loader_desc){ .batch = 1000 });
    Net n;
    n.root = nn_model_new(nn, &(nn_model_desc){ .forward = forward, .self = &n, .release = 1 });
    n.letters = nn_embedding_new(n.root, "letters", LETTERS, VECTOR);
    n.hidden = nn_linear_new(n.root, "hidden", WINDOW * VECTOR, HIDDEN, NULL);
    n.out = nn_linear_new(n.root, "out", HIDDEN, LETTERS, NULL);
    printf("%d names, %lld letters to learn from, %lld to test, %lld parameters\n", count, (long long)train.count, (long long)validation.count, (long long)nn_param_count(n.root));

    nn_optimizer *opt = nn_adamw_new(n.root, &(nn_adamw_desc){ .lr = 0.002f, .weight_decay = 0.01f });
    nn_fit(n.root, &(nn_fit_desc){
        .train = batches, .validation = tests, .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs, .repeat = 1,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .per_step = 1, .total = epochs * (int)nn_loader_batches(batches) }) });
    nn_report report;
    if (!nn_evaluate(n.root, tests, nn_cross_entropy, NULL, &report)) return 1;
    make_up(&n, count);
    printf("validation loss %.3f per letter: as good as a choice of %.1f letters\n", report.loss, exp(report.loss));
    int ok = nn_ok(nn);
    nn_free(nn);
    free(train.x); free(train.next); free(validation.x); free(validation.next);
    return !ok;
}
