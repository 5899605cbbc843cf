/* spam.c - Demonstrates text classification: is this message spam? Messages of different lengths in one batch, padded; what is padding is masked out.

   A message is what the embeddings of its tokens (BPE, its vocabulary learnt here) are on average and at most: their order does not matter.
   Data:     SMS Spam Collection (Almeida, Hidalgo 2011; CC BY 4.0): 5,574 messages, one a line, "ham" or "spam", a tab, the text.
             From archive.ics.uci.edu, data set 228:   ./spam [--epochs N] [--gru] FILE
   Build:    cc -O2 examples/spam.c -o spam -lm -lpthread
   Expect:   the spam of the test part that was taken for ham, then "F1 of spam: 0.94" after half a second; --gru, which reads in order, is hardly better
             Without the data it says so and ends well.
   Run in CI: ../shared/data/text/sms_spam_5430.tsv
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { MOST = 6000, TOKENS = 1 << 20, VOCABULARY = 2000, CHANNELS = 64, PAD = 0 };      /* token 0 is the byte 0: in no message */
typedef struct Messages { char *text[MOST]; int64_t label[MOST], count; } Messages;

/* The file in memory, cut into messages; one that was there before is left out, or the test would ask what was learnt by heart. */
static char *load(Messages *m, const char *path, size_t *bytes)
{
    FILE *f = path ? fopen(path, "rb") : NULL;
    char *all = NULL, *line, *end;
    long n;
    if (f && !fseek(f, 0, SEEK_END) && (n = ftell(f)) > 0 && !fseek(f, 0, SEEK_SET) && (all = calloc((size_t)n + 1, 1)) != NULL)
        *bytes = fread(all, 1, (size_t)n, f);
    if (f) fclose(f);
    for (line = all; line && *line && m->count < MOST; line = end) {
        end = line + strcspn(line, "\r\n");
        while (*end == '\r' || *end == '\n') *end++ = 0;
        char *tab = strchr(line, '\t');
        if (!tab) continue;
        int64_t i = 0;
        while (i < m->count && strcmp(m->text[i], tab + 1)) i++;
        if (i < m->count) continue;
        m->label[m->count] = !strncmp(line, "spam", 4);
        m->text[m->count++] = tab + 1;
    }
    return all;
}

typedef struct Net { nn_layer *embedding, *gru, *out; } Net;

/* tokens (B, T), padded with PAD -> scores (B, 2) */
static nn_tensor *forward(void *self, nn_tensor *x)
{
    const Net *n = self;
    nn_tensor *e = nn_dropout(nn_forward(n->embedding, x), 0.3f);                       /* (B, T, C) */
    nn_tensor *mask = nn_ne(nn_cast(x, NN_F32), nn_scalar(x->nn, PAD));
    nn_tensor *lengths = nn_sum(mask, NN_DIMS(1), &(nn_sum_desc){ .keepdim = 1 });      /* (B, 1) */
    if (n->gru) {
        nn_rnn_state state = { .lengths = nn_cast(nn_squeeze(lengths, 1), NN_I64) };
        return nn_forward(n->out, nn_rnn_forward(n->gru, e, &state));
    }
    mask = nn_unsqueeze(mask, -1);
    nn_tensor *mean = nn_div(nn_sum(nn_mul(e, mask), NN_DIMS(1), NULL), nn_clamp(lengths, 1, INFINITY));
    nn_tensor *most = nn_max(nn_where(mask, e, nn_scalar(x->nn, -10)), NN_DIMS(1), NULL), *pooled[] = { mean, most };
    return nn_forward(n->out, nn_concat(pooled, 2, 1));
}

int main(int argc, char **argv)
{
    static Messages m;
    static int64_t tokens[TOKENS], start[MOST + 1], order[2][MOST], counts[2];
    static float scores[2 * MOST];
    const char *path = NULL;
    int epochs = 8, gru = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--gru")) gru = 1;
        else path = argv[i];
    }
    size_t bytes = 0;
    char *all = load(&m, path, &bytes), *learn = malloc(bytes + 1), *to = learn;
    if (m.count < 100 || !learn) { printf("no messages: nothing to do\n"); free(learn); free(all); return 0; }
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    for (int64_t i = 0; i < m.count; i++) { int part = i % 5 == 4; order[part][counts[part]++] = i; }   /* every fifth message is for the test */

    for (int64_t i = 0; i < counts[0]; i++) to += sprintf(to, "%s\n", m.text[order[0][i]]);
    nn_tokenizer *t = nn_bpe_tokenizer_new(nn, learn, (size_t)(to - learn), VOCABULARY, NULL);
    for (int64_t i = 0; i < m.count; i++) {
        start[i + 1] = start[i] + nn_encode(t, m.text[i], strlen(m.text[i]), tokens + start[i], TOKENS - start[i], NULL);
        if (!nn_ok(nn) || start[i + 1] > TOKENS) return 1;
    }
    nn_dataset *texts = nn_texts_new(nn, start, m.count, &(nn_tokens_desc){
        .tokens = tokens, .count = start[m.count], .pad = PAD, .labels = m.label, .classes = 2 });
    nn_dataset *train = nn_subset_new(texts, order[0], counts[0]), *test = nn_subset_new(texts, order[1], counts[1]);
    printf("%lld messages to learn from, %lld to test, %.1f tokens each\n", (long long)counts[0], (long long)counts[1],
           (double)start[m.count] / (double)m.count);

    Net n = { 0 };
    nn_layer *net = nn_model_new(nn, &(nn_model_desc){ .forward = forward, .self = &n });
    n.embedding = nn_embedding_new(net, "embedding", nn_token_count(t), CHANNELS);
    if (gru) n.gru = nn_gru_new(net, "gru", CHANNELS, CHANNELS, &(nn_gru_desc){ .bidirectional = 1, .last = 1 });
    n.out = nn_linear_new(net, "out", 2 * CHANNELS, 2, NULL);
    nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.003f, .clip_norm = 1 });
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1 }), .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = epochs }) });

    nn_loader *loader = nn_loader_new(test, &(nn_loader_desc){ .batch = 64 });
    nn_report report;
    if (!nn_evaluate(net, loader, nn_cross_entropy, NULL, &report) || !nn_predict(net, loader, scores)) return 1;
    printf("spam that was taken for ham:\n");
    for (int64_t i = 0; i < counts[1]; i++)
        if (m.label[order[1][i]] && scores[2 * i] > scores[2 * i + 1]) printf("    %.100s\n", m.text[order[1][i]]);
    printf("accuracy %.2f%%  precision %.3f  recall %.3f\nF1 of spam: %.3f\n", 100 * report.accuracy, report.precision[1], report.recall[1], report.f1[1]);
    int ok = nn_ok(nn) && report.f1[1] > 0.9;
    nn_free(nn);
    free(learn);
    free(all);
    return !ok;
}
