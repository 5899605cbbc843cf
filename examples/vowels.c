/* vowels.c - Demonstrates sequences of several lengths: who of nine men says two Japanese vowels? An LSTM in both directions, a loop of its own.

   Data:     Japanese Vowels (Kudo, Toyama, Shimbo 1999; UCI), 270 + 370 utterances of 7 to 29 frames of 12 numbers:
             ./vowels [--epochs N] [FOLDER]       FOLDER has japanese_vowels_train.txt and _test.txt, an empty line after each utterance
   Build:    cc -O2 examples/vowels.c -o vowels -lm -lpthread
   Expect:   97 % of the test utterances after 1 second (the authors had 94.1 %)
             Without the data it says so and ends well.
   Run in CI: ../shared/data/sequence
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { FRAMES = 29, NUMBERS = 12, SPEAKERS = 9, MOST = 370, BATCH = 30 };
typedef struct Set { float x[MOST][FRAMES][NUMBERS]; int64_t length[MOST], speaker[MOST]; int count; } Set;

/* per_speaker: utterances of each, one speaker after the other */
static int load(Set *s, const char *folder, const char *part, const int *per_speaker)
{
    char path[512], line[512];
    snprintf(path, sizeof path, "%s/japanese_vowels_%s.txt", folder, part);
    FILE *f = fopen(path, "r");
    int t = 0, speaker = 0, left = per_speaker[0];
    if (!f) return 0;
    while (fgets(line, sizeof line, f) && s->count < MOST) {
        char *at = line;
        if (strlen(line) > 2 && t < FRAMES) {
            for (int i = 0; i < NUMBERS; i++) s->x[s->count][t][i] = strtof(at, &at);
            t++;
        } else if (t > 0) {
            while (left == 0 && speaker < SPEAKERS - 1) left = per_speaker[++speaker];
            left--;
            s->speaker[s->count] = speaker;
            s->length[s->count++] = t;
            t = 0;
        }
    }
    fclose(f);
    return s->count > 0;
}

typedef struct Net { nn_layer *root, *lstm, *out; } Net;
static nn_tensor *scores(const Net *n, const Set *s, const int *index, int count)        /* (count, SPEAKERS) */
{
    static float x[MOST][FRAMES][NUMBERS];
    nn_context *nn = nn_context_of(n->root);
    int64_t lengths[MOST];
    for (int i = 0; i < count; i++) {
        memcpy(x[i], s->x[index[i]], sizeof x[i]);
        lengths[i] = s->length[index[i]];
    }
    nn_rnn_state state = { .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(count), lengths) };
    nn_tensor *in = nn_from(nn, NN_SHAPE(count, FRAMES, NUMBERS), &x[0][0][0]);
    if (nn_get_mode(nn) == NN_TRAIN) in = nn_add(in, nn_randn(nn, nn_shape_of(in), 0, 0.2f));    /* every time a little different */
    nn_tensor *h = nn_rnn_forward(n->lstm, in, &state);                                  /* .last: after each one's last frame, and before its first */
    return nn_forward(n->out, nn_dropout(h, 0.5f));
}

int main(int argc, char **argv)
{
    static const int train_counts[SPEAKERS] = { 30, 30, 30, 30, 30, 30, 30, 30, 30 }, test_counts[SPEAKERS] = { 31, 35, 88, 44, 29, 24, 40, 50, 29 };
    static Set train, test;
    const char *folder = ".";
    int epochs = 80, order[MOST];
    for (int i = 1; i < argc; i++) if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]); else folder = argv[i];
    if (!load(&train, folder, "train", train_counts) || !load(&test, folder, "test", test_counts)) { printf("no Japanese Vowels in %s: nothing to do\n", folder); return 0; }
    printf("%d utterances to learn from, %d to test\n", train.count, test.count);

    nn_context *nn = nn_new(&(nn_desc){ .seed = 3 });
    Net n;
    n.root = nn_model_new(nn, NULL);
    n.lstm = nn_lstm_new(n.root, "lstm", NUMBERS, 48, &(nn_lstm_desc){ .bidirectional = 1, .last = 1 });
    n.out  = nn_linear_new(n.root, "out", 2 * 48, SPEAKERS, NULL);
    nn_optimizer *opt = nn_adamw_new(n.root, &(nn_adamw_desc){ .lr = 0.008f, .clip_norm = 1 });
    nn_schedule *schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = epochs });
    for (int i = 0; i < MOST; i++) order[i] = i;
    unsigned random = 1;
    for (int epoch = 1; epoch <= epochs; epoch++) {
        double sum = 0;
        for (int i = train.count - 1; i > 0; i--) {                                      /* shuffle (Fisher & Yates) */
            random = random * 1664525u + 1013904223u;
            int j = (int)((random >> 8) % (unsigned)(i + 1)), k = order[i];
            order[i] = order[j]; order[j] = k;
        }
        for (int at = 0; at < train.count; at += BATCH) {
            int64_t labels[BATCH];
            int count = train.count - at < BATCH ? train.count - at : BATCH;
            for (int i = 0; i < count; i++) labels[i] = train.speaker[order[at + i]];
            nn_begin(nn, NN_TRAIN);
            nn_tensor *loss = nn_cross_entropy(scores(&n, &train, order + at, count), nn_from_as(nn, NN_I64, NN_SHAPE(count), labels), NULL);
            nn_backward(loss);
            nn_step(opt);
            sum += nn_item(loss) * count;
        }
        nn_schedule_advance(schedule);
        if (epoch % 10 == 0 || epoch == epochs) printf("epoch %d  loss %.4f\n", epoch, sum / train.count);
    }
    for (int i = 0; i < MOST; i++) order[i] = i;
    nn_begin(nn, NN_EVAL);
    nn_tensor *labels = nn_from_as(nn, NN_I64, NN_SHAPE(test.count), test.speaker);
    printf("test accuracy %.2f%%\n", 100 * nn_accuracy(scores(&n, &test, order, test.count), labels));
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
