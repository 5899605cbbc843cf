/* test_train.c - nn_fit, nn_evaluate, nn_predict: that they do what the written-out loop does, and what happens when things go wrong. */
#define _DEFAULT_SOURCE                                  /* mmap, in fake_device.h */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include "fake_device.h"
#include <dirent.h>

enum { N = 90, INPUTS = 4, CLASSES = 3 };
static float blob_x[N * INPUTS], blob_y[N];
static int64_t blob_label[N];

/* three clouds that overlap a little; the same numbers in every test */
static void make_blobs(void)
{
    uint32_t s = 1;
    for (int i = 0; i < N; i++) {
        blob_label[i] = i % CLASSES;
        for (int j = 0; j < INPUTS; j++) {
            float r = 0;
            for (int k = 0; k < 4; k++) { s = s * 1664525u + 1013904223u; r += (float)(s >> 8) / 16777216.0f - 0.5f; }
            blob_x[i * INPUTS + j] = r + (j == i % CLASSES ? 1.5f : 0);
        }
        blob_y[i] = blob_x[i * INPUTS] - 2 * blob_x[i * INPUTS + 1];
    }
}

static nn_context *fresh(void) { nn_desc d = { 0 }; make_blobs(); d.threads = 1; d.seed = 3; d.on_error = test_quiet; return nn_new(&d); }
static nn_dataset *blobs(nn_context *nn, int64_t first, int64_t count, int kind)    /* 0 classes, 1 numbers, 2 nothing */
{
    nn_dataset_desc d = { 0 };
    d.count = count;
    d.x_shape = NN_SHAPE(INPUTS);
    d.y_shape = NN_SHAPE(1);
    d.x = blob_x + first * INPUTS;
    if (kind == 0) { d.labels = blob_label + first; d.classes = CLASSES; d.y_shape = NN_SCALAR; }
    if (kind == 1) d.y = blob_y + first;
    return nn_dataset_new(nn, &d);
}
static nn_loader *loader(nn_dataset *data, int64_t batch, int shuffle) { nn_loader_desc d = { 0 }; d.batch = batch; d.shuffle = shuffle; return nn_loader_new(data, &d); }
static nn_layer *mlp(nn_context *nn, int64_t out, float dropout)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc1", INPUTS, 16, NULL);
    nn_fn_new(net, nn_tanh);
    if (dropout > 0) nn_dropout_new(net, dropout);
    nn_linear_new(net, "fc2", 16, out, NULL);
    return net;
}
static nn_optimizer *adam(nn_layer *net) { nn_adam_desc d = { 0 }; d.lr = 0.02f; return nn_adam_new(net, &d); }
static int weights(nn_layer *net, float *to)
{
    nn_tensor *list[16];
    int n = nn_params(net, list, 16), at = 0;
    for (int i = 0; i < n; i++) { nn_read(list[i], to + at); at += (int)nn_count(list[i]); }
    return at;
}
static char *path_of(const char *name)
{
    static char path[4][600];
    static int next;
    const char *base = getenv("NN_TEST_DIR");
    char *p = path[next++ & 3];
    snprintf(p, 600, "%s/nn_%s", base ? base : "/tmp", name);
    return p;
}
static char *empty_folder(const char *name)
{
    char *path = path_of(name), file[1024];
    DIR *dir = opendir(path);
    struct dirent *e;
    while (dir && (e = readdir(dir))) { snprintf(file, sizeof file, "%s/%s", path, e->d_name); remove(file); }
    if (dir) closedir(dir);
    return path;
}

/* -- what the log callback and the callbacks of nn_fit see -- */
static struct { int lines, epochs, steps, stop_after; char text[8192]; double loss[64], validation[64], lr[64]; int64_t allocations[64]; float best[1024]; } seen;
static void on_log(void *user, const char *text)
{
    (void)user;
    for (const char *p = text; *p; p++) seen.lines += *p == '\n';
    if (strlen(seen.text) + strlen(text) < sizeof seen.text) strcat(seen.text, text);
}
static void on_step(void *user, nn_progress *p) { (void)user; (void)p; seen.steps++; }
static void on_epoch(void *user, nn_progress *p)
{
    if (p->events) nn_events_text(p->events, "note", p->epoch, "hello");
    (void)user;
    seen.loss[seen.epochs] = p->loss;
    seen.validation[seen.epochs] = p->validation_loss;
    seen.lr[seen.epochs] = p->lr;
    seen.allocations[seen.epochs] = nn_context_of(p->model)->allocations;
    if (p->epoch == 1) weights(p->model, seen.best);
    if (++seen.epochs == seen.stop_after) p->stop = 1;
}
static nn_fit_desc fit_desc(nn_loader *train, nn_loader *validation, nn_loss loss, nn_optimizer *opt, int epochs)
{
    nn_fit_desc d = { 0 };
    d.train = train; d.validation = validation; d.loss = loss; d.optimizer = opt; d.epochs = epochs;
    d.on_epoch = on_epoch; d.on_step = on_step;
    d.quiet = 1;
    memset(&seen, 0, sizeof seen);
    return d;
}

TEST(fit_is_the_written_out_loop)
{
    float a[1024], b[1024];
    for (int twice = 0; twice < 2; twice++) {
        nn_context *nn = fresh();
        nn_layer *net = mlp(nn, CLASSES, 0.2f);
        nn_optimizer *opt = adam(net);
        nn_loader *train = loader(blobs(nn, 0, 70, 0), 16, 1);
        if (twice == 0) {
            for (int epoch = 0; epoch < 4; epoch++) {
                nn_batch batch;
                while (nn_loader_next(train, &batch)) {
                    nn_begin(nn, NN_TRAIN);
                    nn_backward(nn_cross_entropy(nn_forward(net, batch.x), batch.y, NULL));
                    nn_step(opt);
                }
            }
            weights(net, a);
        } else {
            nn_fit_desc d = fit_desc(train, loader(blobs(nn, 70, 20, 0), 8, 0), nn_cross_entropy, opt, 4);
            CHECK(nn_fit(net, &d));
            int n = weights(net, b);
            CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
            CHECK(seen.epochs == 4 && seen.steps == 4 * 5);
            CHECK(seen.loss[3] < seen.loss[0] && seen.validation[3] < seen.validation[0]);
        }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

TEST(learns_and_reports)
{
    nn_desc cd = { 0 };
    make_blobs();
    cd.threads = 2; cd.seed = 1; cd.log = on_log;
    nn_context *nn = nn_new(&cd);
    nn_layer *net = mlp(nn, CLASSES, 0);
    nn_optimizer *opt = adam(net);
    nn_dataset *rest = blobs(nn, 60, 30, 0);
    nn_loader *test = loader(rest, 7, 0);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), test, nn_cross_entropy, opt, 30);
    d.quiet = 0;
    CHECK(nn_fit(net, &d));
    CHECK(seen.lines == 30 && !strchr(seen.text, '\r') && !strchr(seen.text, '\033'));
    CHECK_TEXT(seen.text, "epoch 30/30");
    CHECK_TEXT(seen.text, "validation accuracy");
    static nn_report r;
    CHECK(nn_evaluate(net, test, nn_cross_entropy, NULL, &r));
    CHECK(r.count == 30 && r.classes == 3 && r.accuracy > 0.9 && r.auc > 0.95);
    CHECK_NEAR(r.loss, seen.validation[29], 1e-6);
    float y[30 * CLASSES], all[30 * CLASSES];
    CHECK(nn_predict(net, test, y));
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(30, INPUTS), blob_x + 60 * INPUTS)), all));
    CHECK(memcmp(y, all, sizeof y) == 0);
    int right = 0;
    for (int i = 0; i < 30; i++) right += nn__argmax(all + i * CLASSES, CLASSES) == blob_label[60 + i];
    CHECK_NEAR(r.accuracy, right / 30.0, 1e-12);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(accumulating_equals_a_bigger_batch)
{
    for (int sum = 0; sum < 2; sum++) {
        float w[2][1024] = { { 0 } };
        int n = 0;
        for (int k = 0; k < 2; k++) {
            nn_context *nn = fresh();
            nn_layer *net = mlp(nn, CLASSES, 0);
            nn_sgd_desc sd = { 0 };
            nn_loss_desc ld = { 0 };
            sd.lr = sum ? 0.01f : 0.5f;
            if (sum) ld.reduction = NN_SUM;
            nn_optimizer *opt = nn_sgd_new(net, &sd);
            nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 85, 0), k ? 8 : 32, 0), NULL, nn_cross_entropy, opt, 3);   /* 85 = 32 + 32 + 21; 21 = 8 + 8 + 5 */
            d.accumulate = k ? 4 : 1;
            d.loss_desc = &ld;
            CHECK(nn_fit(net, &d));
            CHECK(nn_steps(opt) == 9);
            n = weights(net, w[k]);
            nn_free(nn);
        }
        for (int i = 0; i < n; i++) CHECK_NEAR(w[0][i], w[1][i], 2e-6);
    }
}

TEST(early_stopping_restores_the_best)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    int64_t wrong[30];
    for (int i = 0; i < 30; i++) wrong[i] = (blob_label[i] + 1) % CLASSES;      /* the better the fit, the worse the validation */
    nn_dataset_desc dd = { 0 };
    dd.count = 30; dd.x_shape = NN_SHAPE(INPUTS); dd.classes = CLASSES; dd.x = blob_x; dd.labels = wrong;
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), loader(nn_dataset_new(nn, &dd), 30, 0), nn_cross_entropy, adam(net), 50);
    d.patience = 3;
    CHECK(nn_fit(net, &d));
    CHECK(seen.epochs == 4);
    float w[1024];
    int n = weights(net, w);
    CHECK(memcmp(w, seen.best, (size_t)n * sizeof *w) == 0);
    CHECK(nn_fit(net, &d));                              /* again: nothing is remembered of the first run */
    CHECK(seen.epochs > 4);
    nn_free(nn);
}

/* One straight run against one that is stopped after two epochs and continued in a new process (here: a new context). */
static int run_with_checkpoint(const char *file, int stop_after, int patience, float *w, double *last_loss)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0.3f);
    nn_optimizer *opt = adam(net);
    nn_schedule_desc sd = { 0 };
    sd.total = 40; sd.per_step = 1;
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 70, 0), 16, 1), loader(blobs(nn, 70, 20, 0), 8, 0), nn_cross_entropy, opt, 6);
    d.schedule = nn_cosine_lr_new(opt, &sd);
    d.ema = nn_ema_new(net, 0.9f);
    d.patience = patience;
    d.checkpoint = file;
    d.accumulate = 2;
    seen.stop_after = stop_after;
    CHECK(nn_fit(net, &d));
    CHECK(nn_ok(nn));
    *last_loss = seen.epochs ? seen.loss[seen.epochs - 1] : 0;
    int n = weights(net, w);
    nn_ema_swap(d.ema);
    n += weights(net, w + n);
    nn_free(nn);
    return n;
}
TEST(resume_is_exact)
{
    for (int patience = 0; patience < 3; patience += 2) {
        float a[2048], b[2048];
        double la, lb;
        char *file = path_of("resume.safetensors");
        remove(file);
        int n = run_with_checkpoint(file, 0, patience, a, &la);
        CHECK(seen.epochs == 6 || patience);
        int epochs = seen.epochs;
        remove(file);
        run_with_checkpoint(file, 2, patience, b, &lb);
        CHECK(seen.epochs == 2);
        CHECK(run_with_checkpoint(file, 0, patience, b, &lb) == n);
        CHECK(seen.epochs == epochs - 2);
        CHECK(la == lb);
        CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        run_with_checkpoint(file, 0, patience, b, &lb);  /* nothing is left to do; the result is the same */
        CHECK(seen.epochs == 0);
        CHECK(memcmp(a, b, (size_t)n * sizeof *a) == 0);
        remove(file);
    }
}

TEST(a_broken_checkpoint_is_an_error)
{
    char *file = path_of("broken.safetensors");
    FILE *f = fopen(file, "wb");
    fputs("not a checkpoint", f);
    fclose(f);
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), NULL, nn_cross_entropy, adam(net), 2);
    d.checkpoint = file;
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "broken.safetensors");
    nn_clear(nn);
    d.checkpoint = "/no/such/folder/x.safetensors";
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "/no/such/folder");
    remove(file);
    nn_free(nn);
}

TEST(nan_is_traced_to_its_op)
{
    nn_context *nn = fresh();
    nn_layer *net = nn_model_new(nn, NULL);
    float before[1024], after[1024];
    nn_linear_new(net, "fc1", INPUTS, 8, NULL);
    nn_layer *inner = nn_group_new(net, "inner");
    nn_fn_new(inner, nn_log);                            /* of negative numbers */
    nn_linear_new(inner, "fc2", 8, CLASSES, NULL);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), NULL, nn_cross_entropy, adam(net), 2);
    int n = weights(net, before);
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "NaN in epoch 1, batch 1");
    CHECK_TEXT(nn_error(nn), "result of log in layer \"inner.0\"");
    nn_clear(nn);
    weights(net, after);
    CHECK(memcmp(before, after, (size_t)n * sizeof *before) == 0);
    CHECK(seen.steps == 0 && nn_steps(d.optimizer) == 0);
    nn_free(nn);
}

TEST(bad_data_and_bad_updates_are_told_apart)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, 1, 0);
    nn_loader *train = loader(blobs(nn, 0, 60, 1), 10, 0);
    nn_fit_desc d = fit_desc(train, NULL, nn_mse, adam(net), 2);
    blob_x[25 * INPUTS] = NAN;
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "epoch 1, batch 3: x of the batch");
    nn_clear(nn);
    blob_x[25 * INPUTS] = 1;
    blob_y[5] = INFINITY;
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "batch 1: y of the batch");
    nn_clear(nn);
    blob_y[5] = 1;
    nn_sgd_desc sd = { 0 };
    sd.lr = 1e38f;
    d.optimizer = nn_sgd_new(net, &sd);
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "batch 2");
    nn_free(nn);
    nn = fresh();                                        /* one batch per epoch: no later loss shows it */
    net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc", INPUTS, 1, NULL);
    sd.lr = 3e38f;
    d = fit_desc(loader(blobs(nn, 0, 60, 1), 60, 0), NULL, nn_mse, nn_sgd_new(net, &sd), 2);
    for (int i = 0; i < N; i++) blob_y[i] *= 100;
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "after epoch 1");
    CHECK_TEXT(nn_error(nn), "fc.");
    nn_free(nn);
}

static nn_tensor *steep(nn_tensor *x) { return nn_sum(nn_mul_scalar(nn_sqrt(nn_mul_scalar(x, 0)), 0), NN_DIMS(1), &(nn_sum_desc){ .keepdim = 1 }); }   /* 0, with slope 0 * inf */
/* A weight that is broken meanwhile; a loss of one's own that makes a NaN; data that hold one. */
static void break_a_weight(void *user, nn_progress *p)
{
    float w[CLASSES] = { 0, NAN, 0 };
    (void)user;
    if (p->step == 2) nn_write(nn_param(p->model, "fc2.bias"), w);
}
static nn_tensor *log_of_mse(nn_tensor *x, nn_tensor *y, const nn_loss_desc *desc) { return nn_log(nn_sub(nn_mse(x, y, desc), nn_add_scalar(nn_mse(x, y, desc), 1))); }
TEST(nan_is_traced_to_weights_the_loss_and_data)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0), *line = mlp(nn, 1, 0);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), NULL, nn_cross_entropy, adam(net), 2);
    d.on_step = break_a_weight;
    CHECK(!nn_fit(net, &d));
    CHECK_ERROR(nn, "the loss is NaN in epoch 1, batch 3: fc2.bias has values that are not finite since the last update");
    d = fit_desc(loader(blobs(nn, 0, 60, 1), 10, 1), NULL, log_of_mse, adam(line), 2);
    CHECK(!nn_fit(line, &d));
    CHECK_ERROR(nn, "batch 1: first seen in the result of log in the loss");
    line = nn_model_new(nn, NULL);
    nn_linear_new(line, NULL, INPUTS, 1, NULL);
    d.loss = nn_mse;
    d.optimizer = adam(line);
    for (int i = 0; i < 2; i++) {
        float *where = i ? &blob_y[7] : &blob_x[7], was = *where;
        *where = INFINITY;
        CHECK(!nn_fit(line, &d));
        CHECK_ERROR(nn, i ? "y of the batch has values that are not finite" : "x of the batch has values that are not finite");
        *where = was;
    }
    nn_free(nn);
}

TEST(clipping_catches_gradients_that_are_not_finite)
{
    nn_context *nn = fresh();
    nn_layer *net = nn_model_new(nn, NULL);
    float before[64], after[64];
    nn_linear_new(net, "fc", INPUTS, 3, NULL);
    nn_fn_new(net, steep);
    nn_adam_desc ad = { 0 };
    ad.clip_norm = 1;
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 1), 20, 0), NULL, nn_mse, nn_adam_new(net, &ad), 2);
    int n = weights(net, before);
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "a gradient is not finite in epoch 1, batch 1");
    nn_clear(nn);
    weights(net, after);
    CHECK(memcmp(before, after, (size_t)n * sizeof *before) == 0);
    nn_free(nn);
}

/* Loss scaling in nn_fit: repeated steps or not, clipping, several batches per update, a checkpoint in the middle; all with the bits of no scaling,
   since nothing overflows but where the last layer (3) multiplies by 1024. */
static nn_tensor *large(nn_tensor *x) { return nn_mul_scalar(x, 1024); }
static int scaled_fit(const char *file, int scaling, int how, int stop_after, float *w, double *loss, float *scale)
{
    make_blobs();
    nn_context *nn = nn_new(&(nn_desc){ .seed = 7, .threads = 1, .log = on_log, .on_error = test_quiet, .loss_scale = scaling ? 0x1p118f : 0, .growth_interval = 7 });
    nn_layer *net = mlp(nn, CLASSES, 0.2f);
    if (how == 3) nn_fn_new(net, large);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 70, 0), 16, 1), NULL, nn_cross_entropy, nn_adam_new(net, &(nn_adam_desc){ .lr = 0.01f, .clip_norm = how ? 0.5f : 0 }), 6);
    d.accumulate = how == 1 ? 2 : 0;
    d.repeat = how == 2 ? NN_ZERO : 0;
    d.checkpoint = file;
    seen.stop_after = stop_after;
    CHECK(nn_fit(net, &d));
    CHECK(nn_steps(d.optimizer) == (scaling && how == 3 ? nn_steps(d.optimizer) : (how == 1 ? 3 : 5) * (stop_after ? stop_after : 6)));
    for (int i = 0; i < seen.epochs; i++) *loss = seen.loss[i];
    *scale = nn_loss_scale(nn);
    int n = weights(net, w);
    nn_free(nn);
    return n;
}
TEST(fit_with_loss_scaling)
{
    float a[1024], b[1024], scale, again;
    double la, lb;
    char *file = path_of("scaled.safetensors");
    for (int how = 0; how < 4; how++) {
        int n = scaled_fit(NULL, 0, how, 0, a, &la, &scale), same;
        CHECK(scale == 1);
        CHECK(scaled_fit(NULL, 1, how, 0, b, &lb, &scale) == n);
        same = !memcmp(a, b, (size_t)n * sizeof *a);
        CHECK(same == (how < 3) && scale > 0x1p100f);    /* how 3: steps were skipped */
        remove(file);
        scaled_fit(file, 1, how, 2, a, &la, &again);
        scaled_fit(file, 1, how, 0, a, &la, &again);
        CHECK(!memcmp(a, b, (size_t)n * sizeof *a) && la == lb && again == scale);
        remove(file);
        scaled_fit(file, 0, how, 2, a, &la, &again);     /* begun without it */
        scaled_fit(file, 1, how, 0, a, &la, &again);
        CHECK(how == 3 || (!memcmp(a, b, (size_t)n * sizeof *a) && la == lb));
        remove(file);
    }
}
TEST(an_epoch_without_a_finite_gradient)
{
    make_blobs();
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .loss_scale = 65536 });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc", INPUTS, 3, NULL);
    nn_fn_new(net, steep);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 1), 20, 0), NULL, nn_mse, nn_adam_new(net, &(nn_adam_desc){ .clip_norm = 1 }), 2);
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "in every step of epoch 1 a gradient was not finite: no parameter was updated, and the loss scale fell to 8192");
    nn_free(nn);
}

/* Averages that are not this model's as it is; a checkpoint whose numbers cannot be. */
TEST(averages_and_epochs_that_cannot_be)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0), *small = nn_model_new(nn, NULL);
    char *file = path_of("epoch.safetensors"), *bytes, *at;
    size_t n;
    nn_linear_new(small, "fc", INPUTS, CLASSES, NULL);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), NULL, nn_cross_entropy, adam(net), 1);
    d.ema = nn_ema_new(net, 0.9f);
    nn_ema_swap(d.ema);
    CHECK(!nn_fit(net, &d));
    CHECK_ERROR(nn, "call nn_ema_swap first");
    nn_ema_swap(d.ema);
    nn_fit_desc other = fit_desc(d.train, NULL, nn_cross_entropy, adam(small), 1);
    other.ema = d.ema;
    CHECK(!nn_fit(small, &other));
    CHECK_ERROR(nn, "the averages are those of another model");
    d.ema = NULL;
    remove(file);
    d.checkpoint = file;
    CHECK(nn_fit(net, &d));
    bytes = slurp(file, &n);
    at = bytes ? strstr(bytes + 8, "trainer.state") : NULL;          /* its first number, the epochs that are done, becomes NaN */
    CHECK(at && strstr(at, "data_offsets"));
    if (at && strstr(at, "data_offsets")) {
        int64_t head = 0;
        memcpy(&head, bytes, 8);
        memset(bytes + 8 + head + strtol(strpbrk(strstr(at, "data_offsets"), "0123456789"), NULL, 10), 0xFF, 8);
        FILE *f = fopen(file, "wb");
        fwrite(bytes, 1, n, f);
        fclose(f);
        CHECK(!nn_fit(net, &d));
        CHECK_ERROR(nn, "holds an impossible epoch");
    }
    free(bytes);
    remove(file);
    nn_free(nn);
}

/* (B, C, T) scores and a class for each place: the report is that of rows (B T, C). */
static nn_tensor *classes_first(nn_tensor *x) { return nn_permute(x, NN_SHAPE(0, 2, 1)); }
TEST(scores_of_every_place)
{
    int64_t tokens[41];
    nn_report r[2];
    nn_context *nn = fresh();
    for (int i = 0; i < 41; i++) tokens[i] = i * i % 5;
    nn_loader *l = loader(nn_tokens_new(nn, 8, &(nn_tokens_desc){ .tokens = tokens, .count = 41 }), 2, 0);
    nn_layer *net = nn_model_new(nn, NULL), *turned = nn_model_new(nn, NULL);
    nn_embedding_new(net, "e", 5, 5);
    nn_embedding_new(turned, "e", 5, 5);
    nn_fn_new(turned, classes_first);
    nn_copy(nn_param(turned, "e.weight"), nn_param(net, "e.weight"));
    CHECK(nn_evaluate(turned, l, nn_cross_entropy, NULL, &r[0]) && r[0].count == 40 && r[0].classes == 5);
    float scores[40 * 5], table[25];
    int64_t labels[40];
    nn_read(nn_param(net, "e.weight"), table);
    for (int i = 0; i < 40; i++) { memcpy(scores + 5 * i, table + 5 * tokens[i], 5 * sizeof *table); labels[i] = tokens[i + 1]; }
    nn_report_classes(&r[1], 40, 5, scores, labels);
    CHECK(r[0].accuracy == r[1].accuracy && !memcmp(r[0].confusion, r[1].confusion, sizeof r[0].confusion) && r[0].macro_f1 == r[1].macro_f1);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(evaluation_leaves_the_step_alone)
{
    float g[2][1024] = { { 0 } };
    int n = 0;
    for (int k = 0; k < 2; k++) {
        nn_context *nn = fresh();
        nn_layer *net = mlp(nn, CLASSES, 0.5f);
        nn_loader *test = loader(blobs(nn, 0, 60, 0), 7, 0);
        static nn_report r;
        nn_tensor *list[16], *loss, *x;
        float y[60 * CLASSES];
        nn_begin(nn, NN_TRAIN);
        x = nn_from(nn, NN_SHAPE(20, INPUTS), blob_x);
        loss = nn_sum(nn_square(nn_forward(net, x)), NN_ALL, NULL);
        int tensors = nn->tensors;
        size_t used = nn->step_arena.used;
        if (k) {
            CHECK(nn_evaluate(net, test, nn_cross_entropy, NULL, &r) && r.count == 60);
            CHECK(nn_predict(net, test, y));
            CHECK(nn->tensors == tensors && nn->step_arena.used == used && nn_get_mode(nn) == NN_TRAIN);
        }
        loss = nn_add(loss, nn_sum(nn_forward(net, x), NN_ALL, NULL));           /* dropout must draw the same */
        nn_backward(loss);
        int params = nn_params(net, list, 16);
        for (int i = n = 0; i < params; i++) { nn_read(nn_grad(list[i]), g[k] + n); n += (int)nn_count(list[i]); }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
    CHECK(memcmp(g[0], g[1], (size_t)n * sizeof **g) == 0);
}

TEST(regression_and_no_target)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, 1, 0);
    static nn_report r;
    nn_loader *all = loader(blobs(nn, 0, N, 1), 16, 0);
    nn_fit_desc d = fit_desc(all, NULL, nn_mse, adam(net), 60);
    CHECK(nn_fit(net, &d));
    CHECK(nn_evaluate(net, all, nn_mse, NULL, &r));
    CHECK(r.count == N && r.r2 > 0.9 && isnan(r.accuracy));
    CHECK_NEAR(r.mse, r.loss, 1e-6);
    CHECK(nn_evaluate(net, all, NULL, NULL, &r) && isnan(r.loss) && r.r2 > 0.9);
    CHECK(nn_evaluate(net, all, nn_mse, NULL, NULL));
    nn_layer *coder = mlp(nn, INPUTS, 0);                /* without y, x is the target */
    d = fit_desc(loader(blobs(nn, 0, N, 2), 16, 1), NULL, nn_mse, adam(coder), 30);
    CHECK(nn_fit(coder, &d));
    CHECK(seen.loss[29] < 0.3 * seen.loss[0]);
    CHECK(nn_evaluate(coder, loader(blobs(nn, 0, N, 2), 16, 0), nn_mse, NULL, &r) && r.mse < 0.2);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(one_logit_is_a_binary_classifier)
{
    nn_context *nn = fresh();
    nn_layer *net = nn_model_new(nn, NULL);
    static nn_report r;
    float w[INPUTS] = { -1, 1, 0, 0 }, zero = 0;
    int64_t label[N];
    nn_linear_new(net, "fc", INPUTS, 1, NULL);
    nn_write(nn_param(net, "fc.weight"), w);
    nn_write(nn_param(net, "fc.bias"), &zero);
    int n = 0;
    for (int i = 0; i < N; i++) if (blob_label[i] < 2) { memmove(blob_x + n * INPUTS, blob_x + i * INPUTS, INPUTS * sizeof(float)); label[n++] = blob_label[i]; }
    nn_dataset_desc d = { 0 };
    d.count = n; d.x_shape = NN_SHAPE(INPUTS); d.x = blob_x; d.labels = label; d.classes = 2;
    CHECK(nn_evaluate(net, loader(nn_dataset_new(nn, &d), 16, 0), NULL, NULL, &r));
    CHECK(r.classes == 2 && r.count == n && r.accuracy > 0.9 && r.auc > 0.95);
    nn_free(nn);
}

typedef struct { nn_layer *net; int calls; } own;
static nn_tensor *own_step(void *self, const nn_batch *b)
{
    own *o = self;
    o->calls++;
    nn_tensor *y = nn_forward(o->net, b->x);
    return nn_add(nn_cross_entropy(y, b->y, NULL), nn_mul_scalar(nn_mean(nn_square(y), NN_ALL, NULL), 0.01f));
}
TEST(a_model_with_its_own_loss)
{
    nn_context *nn = fresh();
    own o = { NULL, 0 };
    nn_model_desc md = { 0 };
    md.step = own_step; md.self = &o;
    o.net = nn_model_new(nn, &md);
    nn_linear_new(o.net, "fc", INPUTS, CLASSES, NULL);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 20, 1), loader(blobs(nn, 60, 30, 0), 30, 0), NULL, adam(o.net), 10);
    CHECK(nn_fit(o.net, &d));
    CHECK(o.calls == 10 * (3 + 1));
    CHECK(seen.validation[9] < seen.validation[0]);
    nn_free(nn);
}

TEST(schedules)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    nn_optimizer *opt = adam(net);
    nn_schedule_desc sd = { 0 };
    sd.step_size = 2; sd.gamma = 0.5f;
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 20, 1), NULL, nn_cross_entropy, opt, 4);
    d.schedule = nn_step_lr_new(opt, &sd);
    CHECK(nn_fit(net, &d));
    CHECK_NEAR(seen.lr[0], 0.02, 1e-8);
    CHECK_NEAR(seen.lr[1], 0.02, 1e-8);
    CHECK_NEAR(seen.lr[2], 0.01, 1e-8);
    nn_free(nn);
    nn = fresh();
    net = mlp(nn, CLASSES, 0);
    opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 1e-12f });   /* hardly any progress: a plateau */
    memset(&sd, 0, sizeof sd);
    sd.patience = 1; sd.factor = 0.1f;
    d = fit_desc(loader(blobs(nn, 0, 60, 0), 20, 1), loader(blobs(nn, 60, 30, 0), 30, 0), nn_cross_entropy, opt, 4);
    d.schedule = nn_plateau_lr_new(opt, &sd);
    nn_set_lr(opt, 1e-5f);
    CHECK(nn_fit(net, &d));
    CHECK_NEAR(seen.lr[2], 1e-5, 1e-10);                 /* epoch 1 is the best, 2 and 3 are hardly better: more than the patience */
    CHECK_NEAR(seen.lr[3], 1e-6, 1e-10);
    nn_free(nn);
}

TEST(averages_are_validated)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    static nn_report r;
    nn_loader *test = loader(blobs(nn, 60, 30, 0), 30, 0);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), test, nn_cross_entropy, adam(net), 3);
    d.ema = nn_ema_new(net, 0.95f);
    CHECK(nn_fit(net, &d));
    nn_ema_swap(d.ema);
    CHECK(nn_evaluate(net, test, nn_cross_entropy, NULL, &r));
    CHECK_NEAR(r.loss, seen.validation[2], 1e-9);
    nn_ema_swap(d.ema);
    CHECK(nn_evaluate(net, test, nn_cross_entropy, NULL, &r));
    CHECK(fabs(r.loss - seen.validation[2]) > 1e-4);
    nn_free(nn);
}

TEST(no_allocations_in_steady_state)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0.1f);
    nn_optimizer *opt = adam(net);
    char *file = path_of("steady.safetensors");
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 70, 0), 16, 1), loader(blobs(nn, 70, 20, 0), 8, 0), nn_cross_entropy, opt, 8);
    remove(file);
    d.log_dir = empty_folder("steady");
    d.checkpoint = file;
    d.patience = 100;
    d.ema = nn_ema_new(net, 0.9f);
    CHECK(nn_fit(net, &d));
    CHECK(seen.epochs == 8 && seen.allocations[7] == seen.allocations[2]);
    remove(file);
    nn_free(nn);
}

TEST(log_dir)
{
    char *dir = empty_folder("logs"), *file = path_of("logs.safetensors"), name[900], line[256];
    remove(file);
    for (int run = 0; run < 2; run++) {
        nn_context *nn = fresh();
        nn_layer *net = mlp(nn, CLASSES, 0);
        nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 20, 1), loader(blobs(nn, 60, 30, 0), 30, 0), nn_cross_entropy, adam(net), run ? 5 : 3);
        d.log_dir = dir;
        d.checkpoint = file;
        CHECK(nn_fit(net, &d));
        nn_free(nn);
    }
    snprintf(name, sizeof name, "%s/history.csv", dir);
    FILE *f = fopen(name, "r");
    CHECK(f && fgets(line, sizeof line, f) && !strcmp(line, nn__history_head));
    int epoch = 0, e;
    double v[6];
    while (f && fgets(line, sizeof line, f)) {
        CHECK(sscanf(line, "%d,%lf,%lf,%lf,%lf,%lf,%lf", &e, v, v + 1, v + 2, v + 3, v + 4, v + 5) == 7);
        CHECK(e == ++epoch && v[0] > 0 && v[1] <= 1 && v[2] > 0 && v[4] > 0);
    }
    CHECK(epoch == 5);                                   /* the second run went on with 4 and 5 */
    if (f) fclose(f);
    remove(file);
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 20, 1), NULL, nn_cross_entropy, adam(net), 1);
    d.log_dir = "/proc/no/such";
    CHECK(!nn_fit(net, &d));
    CHECK_TEXT(nn_error(nn), "/proc/no/such");
    nn_free(nn);
}

static void stop_at_three(void *user, nn_progress *p) { (void)user; if (++seen.steps == 3) p->stop = 1; }
TEST(callbacks_can_stop)
{
    nn_context *nn = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    nn_optimizer *opt = adam(net);
    nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 10, 1), NULL, nn_cross_entropy, opt, 9);
    d.on_step = stop_at_three;
    CHECK(nn_fit(net, &d));
    CHECK(nn_steps(opt) == 3 && seen.epochs == 0);
    d = fit_desc(d.train, NULL, nn_cross_entropy, opt, 9);
    seen.stop_after = 2;
    CHECK(nn_fit(net, &d) && seen.epochs == 2 && nn_steps(opt) == 3 + 12);
    nn_free(nn);
}

TEST(mistakes_are_errors)
{
    nn_context *nn = fresh(), *other = fresh();
    nn_layer *net = mlp(nn, CLASSES, 0);
    nn_optimizer *opt = adam(net);
    nn_loader *train = loader(blobs(nn, 0, 60, 0), 10, 1);
    float y[600];
    static nn_report r;
    nn_fit_desc d = fit_desc(NULL, NULL, nn_cross_entropy, opt, 1);
    CHECK(!nn_fit(net, NULL) && !nn_ok(nn));                                     nn_clear(nn);
    CHECK(!nn_fit(net, &d) && strstr(nn_error(nn), "no training loader"));      nn_clear(nn);
    d.train = train; d.optimizer = NULL;
    CHECK(!nn_fit(net, &d) && strstr(nn_error(nn), "no optimizer"));            nn_clear(nn);
    d.optimizer = opt; d.loss = NULL;
    CHECK(!nn_fit(net, &d) && strstr(nn_error(nn), "no loss"));                 nn_clear(nn);
    d.loss = nn_cross_entropy;
    nn_loss_desc none = { 0 };
    none.reduction = NN_NONE;
    d.loss_desc = &none;
    CHECK(!nn_fit(net, &d) && strstr(nn_error(nn), "it must be one number"));   nn_clear(nn);
    d.loss_desc = NULL;
    d.optimizer = adam(mlp(other, CLASSES, 0));
    CHECK(!nn_fit(net, &d) && strstr(nn_error(nn), "another context"));         nn_clear(nn);
    CHECK(!nn_fit(NULL, &d) && !nn_evaluate(NULL, train, NULL, NULL, &r) && !nn_predict(NULL, train, y));
    CHECK(!nn_evaluate(net, NULL, NULL, NULL, &r));                              nn_clear(nn);
    CHECK(!nn_predict(net, train, y) && strstr(nn_error(nn), "shuffles"));      nn_clear(nn);
    nn_loader *numbers = loader(blobs(nn, 0, 60, 1), 10, 0);
    CHECK(!nn_evaluate(net, numbers, NULL, NULL, &r) && strstr(nn_error(nn), "do not fit"));    nn_clear(nn);
    d.optimizer = opt;
    d.loss = nn_mse;                                     /* with classes: wrong dtype, told by the loss */
    CHECK(!nn_fit(net, &d));                                                     nn_clear(nn);
    d.loss = nn_cross_entropy;
    CHECK(nn_fit(net, &d));                              /* and the context is usable after all that */
    nn_free(nn);
    nn_free(other);
}

static int run_in(nn_context *nn)
{
    nn_layer *net = mlp(nn, CLASSES, 0.2f);
    nn_loader_desc ld = { 0 };
    static nn_report r;
    ld.batch = 16; ld.no_prefetch = 1;
    nn_fit_desc d = fit_desc(nn_loader_new(blobs(nn, 0, 60, 0), &ld), nn_loader_new(blobs(nn, 60, 30, 0), &ld), nn_cross_entropy, adam(net), 3);
    char *file = path_of("memory.safetensors");
    d.patience = 2;
    d.accumulate = 2;
    d.log_dir = empty_folder("memory");
    d.checkpoint = file;
    remove(file);
    return nn_fit(net, &d) && nn_evaluate(net, d.validation, nn_cross_entropy, NULL, &r);
}
TEST(measured_memory_is_enough)
{
    nn_desc d = { 0 };
    make_blobs();
    d.threads = 1; d.measure = 1;
    nn_context *nn = nn_new(&d);
    CHECK(run_in(nn));
    size_t bytes = nn_bytes_needed(nn);
    nn_free(nn);
    d.measure = 0;
    d.bytes = bytes + 64;
    d.memory = malloc(d.bytes);
    nn = nn_new(&d);
    CHECK(run_in(nn));
    nn_free(nn);
    free(d.memory);
}

TEST(trains_on_a_device)
{
    float w[2][1024] = { { 0 } };
    static nn_report r[2];
    int n = 0;
    for (int k = 0; k < 2; k++) {
        fake_device dev;
        nn_desc cd = { 0 };
        make_blobs();
        cd.threads = 1; cd.seed = 3;
        if (!fake_open(&dev)) SKIP("no mmap");
        if (k) cd.backend = &dev.backend;
        nn_context *nn = nn_new(&cd);
        nn_layer *net = mlp(nn, CLASSES, 0.2f);
        nn_loader *test = loader(blobs(nn, 60, 30, 0), 8, 0);
        nn_fit_desc d = fit_desc(loader(blobs(nn, 0, 60, 0), 16, 1), test, nn_cross_entropy, adam(net), 4);
        char *file = path_of("device.safetensors");
        d.patience = 3;
        d.ema = nn_ema_new(net, 0.9f);
        d.log_dir = empty_folder("device");
        d.checkpoint = file;
        remove(file);
        CHECK(nn_fit(net, &d));
        CHECK(nn_evaluate(net, test, nn_cross_entropy, NULL, &r[k]));
        n = weights(net, w[k]);
        CHECK(nn_ok(nn));
        nn_free(nn);
        fake_close(&dev);
        remove(file);
    }
    CHECK(memcmp(w[0], w[1], (size_t)n * sizeof **w) == 0);
    CHECK(r[0].loss == r[1].loss && r[0].accuracy == r[1].accuracy);
}
