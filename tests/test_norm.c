/* test_norm.c - normalisation and dropout: values against plain loops, statistics, masks, the same bits on every table, errors */
#define _DEFAULT_SOURCE
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include "fake_device.h"

static nn_context *quiet(nn_desc d) { d.on_error = test_quiet; return nn_new(&d); }
static void fails(nn_context *nn, const char *part)      /* the last call has failed, saying so */
{
    CHECK(!nn_ok(nn));
    CHECK_TEXT(nn_error(nn), part);
    nn_clear(nn);
}
static nn_tensor *vector(nn_context *nn, int64_t n, float first, float step)
{
    nn_tensor *t = nn_tensor_new(nn, NN_SHAPE(n), NULL);
    float v[256];
    for (int64_t i = 0; i < n; i++) v[i] = first + step * (float)i;
    nn_write(t, v);
    return t;
}

/* ---- batchnorm ---- */
static void naive_stats(const float *x, int64_t b, int64_t c, int64_t s, int64_t channel, double *mean, double *var)
{
    *mean = *var = 0;
    for (int64_t i = 0; i < b; i++) for (int64_t j = 0; j < s; j++) *mean += x[(i * c + channel) * s + j];
    *mean /= (double)(b * s);
    for (int64_t i = 0; i < b; i++) for (int64_t j = 0; j < s; j++) *var += pow(x[(i * c + channel) * s + j] - *mean, 2);
    *var /= (double)(b * s);
}

static void batchnorm_in_both_modes(nn_context *nn, int64_t b, int64_t c, int64_t s, double offset)
{
    static float x[1 << 16], y[1 << 16], m[64], v[64];
    int64_t n = b * c * s;
    nn_tensor *w = vector(nn, c, 0.5f, 0.1f), *bias = vector(nn, c, -0.2f, 0.05f), *mean = vector(nn, c, 0.3f, 0.01f), *var = vector(nn, c, 1.5f, 0.02f), *t;
    for (int64_t i = 0; i < n; i++) x[i] = (float)(offset + 2 * nn__uniform_at(3, 1, 0, (uint64_t)i));
    nn_begin(nn, NN_TRAIN);
    t = nn_from(nn, s > 1 ? NN_SHAPE(b, c, s) : NN_SHAPE(b, c), x);
    CHECK(nn_read(nn_batchnorm(t, w, bias, mean, var, &(nn_batchnorm_desc){ .momentum = 0.25f }), y));
    CHECK(nn_read(mean, m) && nn_read(var, v));
    for (int64_t i = 0; i < c; i++) {
        double mu, sigma2, count = (double)(b * s);
        naive_stats(x, b, c, s, i, &mu, &sigma2);
        CHECK_NEAR(m[i], 0.75 * (0.3 + 0.01 * (double)i) + 0.25 * mu, 1e-6 * (1 + fabs(offset)));
        CHECK_NEAR(v[i], 0.75 * (1.5 + 0.02 * (double)i) + 0.25 * sigma2 * count / (count - 1), 1e-5 + 1e-7 * fabs(offset));
        for (int64_t j = 0; j < b; j++) for (int64_t k = 0; k < s; k++) {
            int64_t at = (j * c + i) * s + k;
            CHECK_NEAR(y[at], (x[at] - mu) / sqrt(sigma2 + 1e-5) * (0.5 + 0.1 * (double)i) - 0.2 + 0.05 * (double)i, 1e-5 + 1e-6 * fabs(offset));
        }
    }
    nn_begin(nn, NN_EVAL);           /* the running averages are used and stay */
    t = nn_from(nn, s > 1 ? NN_SHAPE(b, c, s) : NN_SHAPE(b, c), x);
    CHECK(nn_read(nn_batchnorm(t, w, bias, mean, var, NULL), y));
    for (int64_t at = 0; at < n; at++) {
        int64_t i = at / s % c;
        CHECK_NEAR(y[at], (x[at] - m[i]) / sqrt(v[i] + 1e-5) * (0.5 + 0.1 * (double)i) - 0.2 + 0.05 * (double)i, 1e-5 + 1e-6 * fabs(offset));
    }
    float again[64];
    CHECK(nn_read(mean, again) && !memcmp(again, m, (size_t)c * sizeof(float)));
    CHECK(nn_read(var, again) && !memcmp(again, v, (size_t)c * sizeof(float)));
    CHECK(nn_ok(nn));
}
TEST(batchnorm_values)
{
    for (int i = 0; test_isa(i); i++) {
        nn_context *nn = quiet((nn_desc){ .isa = test_isa(i), .threads = 2 });
        batchnorm_in_both_modes(nn, 4, 3, 35, 0);
        batchnorm_in_both_modes(nn, 1, 3, 2, 0);
        batchnorm_in_both_modes(nn, 2, 1, 5000, 0);
        batchnorm_in_both_modes(nn, 300, 37, 1, 0);
        batchnorm_in_both_modes(nn, 5, 64, 1, 0);
        batchnorm_in_both_modes(nn, 9, 2, 400, 1000);    /* sum x^2 - mean^2 would be wrong here */
        nn_free(nn);
    }
}

/* In training ReLU is a part of the op. Its bits are those of two ops: result, running averages, and all gradients, also on top of others. */
static int64_t batchnorm_then_relu(int apart, nn_shape shape, int affine, int frozen, float *to)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 5 });
    int64_t c = shape.d[1], n = 0;
    nn_tensor *w = affine ? nn_want_grad(vector(nn, c, 0.5f, 0.1f)) : NULL, *b = affine > 1 ? nn_want_grad(vector(nn, c, -0.4f, 0.05f)) : NULL;
    nn_tensor *mean = vector(nn, c, 0.3f, 0.01f), *var = vector(nn, c, 1.5f, 0.02f), *x, *y, *list[6];
    nn_batchnorm_desc d = { .activation = apart ? NULL : nn_relu };
    if (frozen) mean->flags |= NN__T_FROZEN;
    nn_begin(nn, NN_TRAIN);
    x = nn_want_grad(nn_randn(nn, shape, 0.3f, 2));
    y = nn_batchnorm(x, w, b, mean, var, &d);
    if (apart) y = nn_relu(y);
    else CHECK(y->node && !strcmp(y->node->op->name, "batchnorm"));
    nn_backward(nn_sum(nn_add(nn_mul(y, nn_randn(nn, shape, 0, 1)), nn_square(x)), NN_ALL, NULL));
    list[0] = y; list[1] = nn_grad(x); list[2] = w ? nn_grad(w) : NULL; list[3] = b ? nn_grad(b) : NULL; list[4] = mean; list[5] = var;
    for (int i = 0; i < 6; i++) if (list[i]) { CHECK(nn_read(list[i], to + n)); n += nn_count(list[i]); }
    CHECK(nn_ok(nn));
    nn_free(nn);
    return n;
}
TEST(batchnorm_with_relu_is_both_ops)
{
    static const nn_shape shapes[] = { { 3, { 7, 33, 71 } }, { 2, { 40, 133 } }, { 4, { 3, 70, 9, 5 } }, { 3, { 2, 3, 5003 } } };
    static float a[1 << 17], b[1 << 17];
    for (int i = 0; i < 4; i++) for (int affine = 0; affine < 3; affine++) for (int frozen = 0; frozen < 2; frozen++) {
        int64_t n = batchnorm_then_relu(0, shapes[i], affine, frozen, a);
        CHECK(n == batchnorm_then_relu(1, shapes[i], affine, frozen, b) && !memcmp(a, b, (size_t)n * sizeof *a));
    }
}
TEST(batchnorm_frozen_or_nested_in_eval_keeps_its_statistics)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    float x[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, y[12], m[2];
    nn_tensor *mean = vector(nn, 2, 0, 0), *var = vector(nn, 2, 1, 0);
    nn_begin(nn, NN_TRAIN);
    nn_freeze_param(var, 1);
    CHECK(nn_read(nn_batchnorm(nn_from(nn, NN_SHAPE(3, 2, 2), x), NULL, NULL, mean, var, &(nn_batchnorm_desc){ .eps = (float)NN_ZERO }), y));
    for (int i = 0; i < 12; i++) CHECK(y[i] == x[i]);
    nn_freeze_param(var, 0);
    nn_push(nn, NN_EVAL);
    nn_batchnorm(nn_from(nn, NN_SHAPE(3, 2, 2), x), NULL, NULL, mean, var, NULL);
    nn_pop(nn);
    CHECK(nn_read(mean, m) && m[0] == 0 && m[1] == 0);
    nn_batchnorm(nn_from(nn, NN_SHAPE(3, 2, 2), x), NULL, NULL, mean, var, NULL);
    CHECK(nn_read(mean, m));
    CHECK_NEAR(m[0], 0.1 * 5.5, 1e-6);
    CHECK_NEAR(m[1], 0.1 * 7.5, 1e-6);
    nn_batchnorm(nn_from(nn, NN_SHAPE(3, 2, 2), x), NULL, NULL, mean, var, &(nn_batchnorm_desc){ .momentum = 1 });
    CHECK(nn_read(mean, m));
    CHECK_NEAR(m[0], 5.5, 1e-6);
    nn_batchnorm(nn_from(nn, NN_SHAPE(0, 2, 2), NULL), NULL, NULL, mean, var, NULL);             /* an empty batch teaches nothing */
    nn_batchnorm(nn_from(nn, NN_SHAPE(3, 2, 2), x), NULL, NULL, mean, var, &(nn_batchnorm_desc){ .momentum = (float)NN_ZERO });
    CHECK(nn_read(mean, m));
    CHECK_NEAR(m[0], 5.5, 1e-6);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* Statistics may move on between a forward and its backward: the node remembers its own. */
TEST(batchnorm_twice_in_a_step)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    float a[6] = { 1, 2, 3, 4, 5, 9 }, g1[6], g2[6], weight[6] = { 1, 0, 2, 0, 1, 3 };
    nn_tensor *mean = vector(nn, 1, 0, 0), *var = vector(nn, 1, 1, 0), *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(6, 1), a)), *y;
    for (int again = 0; again < 2; again++) {
        nn_begin(nn, NN_TRAIN);
        x->flags &= ~(unsigned)NN__T_GRAD_SET;
        y = nn_batchnorm(x, NULL, NULL, mean, var, NULL);
        if (again) nn_batchnorm(nn_from(nn, NN_SHAPE(6, 1), weight), NULL, NULL, mean, var, NULL);
        nn_backward(nn_sum(nn_mul(y, nn_from(nn, NN_SHAPE(6, 1), weight)), NN_ALL, NULL));
        CHECK(nn_read(nn_grad(x), again ? g2 : g1));
    }
    for (int i = 0; i < 6; i++) CHECK_NEAR(g1[i], g2[i], 0);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* many rows: dw and db are added up in parts */
TEST(layernorm_of_many_rows)
{
    enum { B = 500, N = 61 };
    static float x[B * N], dy[B * N], y[B * N], dx[B * N], dw[N], db[N];
    for (int i = 0; test_isa(i); i++) {
        nn_context *nn = quiet((nn_desc){ .isa = test_isa(i), .threads = 2 });
        double sw[N] = { 0 }, sb[N] = { 0 };
        nn_begin(nn, NN_TRAIN);
        for (int k = 0; k < B * N; k++) {
            x[k] = (float)(3 * nn__uniform_at(3, 1, 0, (uint64_t)k));
            dy[k] = (float)nn__uniform_at(3, 2, 0, (uint64_t)k) - 0.4f;
        }
        nn_tensor *t = nn_want_grad(nn_from(nn, NN_SHAPE(B, N), x)), *w = nn_want_grad(nn_full(nn, NN_SHAPE(N), 1.5)), *b = nn_want_grad(nn_zeros(nn, NN_SHAPE(N)));
        nn_tensor *r = nn_layernorm(t, 1, w, b, NULL);
        nn_backward_with(r, &(nn_backward_desc){ .grad = nn_from(nn, NN_SHAPE(B, N), dy) });
        CHECK(nn_read(r, y) && nn_read(nn_grad(t), dx) && nn_read(nn_grad(w), dw) && nn_read(nn_grad(b), db));
        for (int k = 0; k < B; k++) {
            double mean = 0, var = 0, g = 0, gh = 0;
            for (int j = 0; j < N; j++) mean += (double)x[k * N + j] / N;
            for (int j = 0; j < N; j++) var += pow(x[k * N + j] - mean, 2) / N;
            double rstd = 1 / sqrt(var + 1e-5);
            for (int j = 0; j < N; j++) {
                double h = (x[k * N + j] - mean) * rstd;
                CHECK_NEAR(y[k * N + j], 1.5 * h, 1e-5);
                sw[j] += dy[k * N + j] * h;
                sb[j] += dy[k * N + j];
                g += 1.5 * dy[k * N + j] / N;
                gh += 1.5 * dy[k * N + j] * h / N;
            }
            for (int j = 0; j < N; j++) CHECK_NEAR(dx[k * N + j], rstd * (1.5 * dy[k * N + j] - g - (x[k * N + j] - mean) * rstd * gh), 1e-5);
        }
        for (int j = 0; j < N; j++) { CHECK_NEAR(dw[j], sw[j], 1e-3); CHECK_NEAR(db[j], sb[j], 1e-3); }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

/* ---- a norm behind a residual connection: the same bits as nn_add and the norm, in all results and gradients ---- */
typedef struct joined { float y[9000], s[9000], dx[9000], dr[9000], dw[3000], db[3000]; } joined;
static void join(joined *to, const char *isa, int threads, int rms, int used, int64_t rows, int64_t n, int fused)  /* used: bit 0: y, bit 1: s */
{
    nn_context *nn = quiet((nn_desc){ .isa = isa, .threads = threads, .seed = 8 });
    nn_tensor *x, *r, *w, *b, *s, *y, *z;
    nn_layernorm_desc d = { .eps = 0.25f };
    memset(to, 0, sizeof *to);
    nn_begin(nn, NN_TRAIN);
    x = nn_want_grad(nn_randn(nn, NN_SHAPE(rows, n), 0.3f, 2));
    r = nn_want_grad(nn_randn(nn, NN_SHAPE(rows, n), -0.1f, 1));
    w = nn_want_grad(nn_randn(nn, NN_SHAPE(n), 1, 0.3f));
    b = nn_want_grad(nn_randn(nn, NN_SHAPE(n), 0, 0.3f));
    if (fused) y = rms ? nn_add_rmsnorm(x, r, w, &s, &d) : nn_add_layernorm(x, r, 1, w, b, &s, &d);
    else { s = nn_add(x, r); y = rms ? nn_rmsnorm(s, w, &d) : nn_layernorm(s, 1, w, b, &d); }
    z = used == 1 ? y : used == 2 ? s : nn_mul(s, y);
    nn_backward_with(z, &(nn_backward_desc){ .grad = nn_randn(nn, nn_shape_of(z), 0, 1) });
    CHECK(nn_read(y, to->y) && nn_read(s, to->s) && nn_read(nn_grad(x), to->dx) && nn_read(nn_grad(r), to->dr));
    if ((used & 1) && nn_grad(w)) nn_read(nn_grad(w), to->dw);
    if ((used & 1) && nn_grad(b)) nn_read(nn_grad(b), to->db);
    CHECK(nn_ok(nn));
    nn_free(nn);
}
TEST(a_sum_and_its_norm_have_the_bits_of_two_ops)
{
    static const int64_t sizes[][2] = { { 1, 1 }, { 3, 7 }, { 1, 2999 }, { 4, 64 }, { 129, 65 } };
    static joined one, two;
    for (int i = 0; test_isa(i); i++) {
        for (int k = 0; k < 2 * 3 * 5 * 2; k++) {
            const int64_t *size = sizes[k / 6 % 5];
            join(&one, test_isa(i), 1 + k / 30, k % 2, 1 + k / 2 % 3, size[0], size[1], 1);
            join(&two, test_isa(i), 1 + k / 30, k % 2, 1 + k / 2 % 3, size[0], size[1], 0);
            CHECK(!memcmp(&one, &two, sizeof one));
        }
    }
}
static int count_of(const nn_context *nn, int op)        /* on the tape */
{
    int n = 0;
    for (const nn_node *d = nn->tape; d; d = d->prev) n += d->op->id == op;
    return n;
}
TEST(a_norm_layer_takes_a_residual)
{
    nn_context *nn = quiet((nn_desc){ .seed = 3 });
    nn_layer *net = nn_model_new(nn, NULL), *norm[4];
    float y[2][24], s[2][24], sum[24];
    norm[0] = nn_layernorm_new(net, "a", NN_SHAPE(4), &(nn_layernorm_desc){ .activation = nn_tanh });
    norm[1] = nn_rmsnorm_new(net, "b", 4, NULL);
    norm[2] = nn_batchnorm_new(net, "c", 3, NULL);       /* no norm of rows: nn_add before it */
    norm[3] = nn_layernorm_new(net, "d", NN_SHAPE(4), NULL);
    nn_checkpoint_layer(norm[3], 1);
    for (int i = 0; i < 4; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(2, 3, 4), 0, 1), *r = nn_randn(nn, NN_SHAPE(2, 3, 4), 0, 1), *row = nn_slice(r, 0, 0, 1, 1), *t = NULL;
        CHECK(nn_read(nn_forward(norm[i], nn_add(x, r)), y[0]) && nn_read(nn_add(x, r), s[0]));
        CHECK(nn_read(nn_add_norm_forward(norm[i], x, r, &t), y[1]) && nn_read(t, s[1]));
        CHECK(!memcmp(y[0], y[1], sizeof y[0]) && !memcmp(s[0], s[1], sizeof s[0]));
        CHECK(count_of(nn, NN_OP_add_layernorm) == (i == 0) && count_of(nn, NN_OP_add_rmsnorm) == (i == 1));
        CHECK(nn_read(nn_add_norm_forward(norm[i], x, r, NULL), y[1]) && !memcmp(y[0], y[1], sizeof y[0]));
        CHECK(nn_read(nn_forward(norm[i], nn_add(x, row)), y[0]) && nn_read(nn_add_norm_forward(norm[i], x, row, &t), y[1]) && nn_read(nn_add(x, row), s[0]) && nn_read(t, sum));
        CHECK(!memcmp(y[0], y[1], sizeof y[0]) && !memcmp(s[0], sum, sizeof sum));
        CHECK(nn_read(nn_forward(norm[i], x), y[0]) && nn_read(nn_add_norm_forward(norm[i], x, NULL, &t), y[1]) && t == x);
        CHECK(!memcmp(y[0], y[1], sizeof y[0]));
        CHECK(nn_ok(nn));
    }
    nn_tensor *x = nn_zeros(nn, NN_SHAPE(2, 5)), *t = NULL;
    nn_add_norm_forward(norm[0], x, x, &t);               fails(nn, "LayerNorm");
    CHECK(nn__dead(nn_add_norm_forward(NULL, x, x, &t)) && nn__dead(nn_add_norm_forward(norm[0], NULL, x, &t)));
    nn_free(nn);
}
TEST(transformers_norm_what_they_add)
{
    for (int k = 0; k < 8; k++) {
        int first = k & 1, rms = k >> 1 & 1, decoder = k >> 2, norm = rms ? NN_OP_rmsnorm : NN_OP_layernorm, add_norm = rms ? NN_OP_add_rmsnorm : NN_OP_add_layernorm;
        nn_context *nn = quiet((nn_desc){ 0 });
        nn_layer *net = nn_model_new(nn, NULL);
        nn_transformer_desc d = { .hidden = 8, .norm_first = first, .rmsnorm = rms };
        nn_layer *l = decoder ? nn_transformer_decoder_layer_new(net, NULL, 4, 2, &d) : nn_transformer_encoder_layer_new(net, NULL, 4, 2, &d);
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(2, 3, 4), 0, 1);
        if (decoder) nn_transformer_decoder_layer_forward(l, x, x, NULL, NULL); else nn_transformer_encoder_layer_forward(l, x, NULL);
        CHECK(count_of(nn, add_norm) == 2 + decoder - first && count_of(nn, norm) == first && count_of(nn, NN_OP_add) == first);
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}
/* What backward finds of results that nobody used: nothing for the first one of an op that says so, else zeros. */
static int seen[2];
static int two_like(nn_call *c) { c->out[0] = c->out[1] = c->in[0]; c->out[0].data = c->out[1].data = NULL; return 1; }
static void two_forward(const nn_call *c, const nn_task *t) { (void)t; for (int i = 0; i < 2; i++) memcpy(c->out[i].data, c->in[0].data, 3 * sizeof(float)); }
static void two_backward(const nn_call *c, const nn_task *t)
{
    float *dx = c->din[0].data;
    (void)t;
    for (int i = 0; i < 2; i++) {
        const float *dy = c->dout[i].data;
        seen[i] = !dy ? 0 : dy[0] == 0 ? 1 : 2;
        for (int j = 0; dy && j < 3; j++) dx[j] += dy[j];
    }
}
TEST(gradients_of_results_that_nobody_used)
{
    for (int k = 0; k < 4; k++) {
        int spare = k & 1, used = k >> 1;
        nn_op op = { .name = "two", .inputs = 1, .outputs = 2, .flags = spare ? NN_OP_SPARE : 0, .shape = two_like, .forward = two_forward, .backward = two_backward };
        nn_context *nn = quiet((nn_desc){ 0 });
        float dx[3];
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_want_grad(nn_ones(nn, NN_SHAPE(3))), *out[NN_MAX_OUTPUTS];
        nn_apply_n(nn, &op, &x, 1, NULL, out);
        nn_backward(nn_sum(out[used], NN_ALL, NULL));
        CHECK(seen[used] == 2 && seen[!used] == (used && spare ? 0 : 1));
        CHECK(nn_read(nn_grad(x), dx) && dx[0] == 1 && dx[2] == 1);
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

TEST(norm_errors)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_tensor *w4 = vector(nn, 4, 1, 0), *w5 = vector(nn, 5, 1, 0), *v4 = vector(nn, 4, 1, 0), *x, *y, *i64, *wide;
    nn_begin(nn, NN_TRAIN);
    x = nn_zeros(nn, NN_SHAPE(3, 4, 2));
    i64 = nn_from_as(nn, NN_I64, NN_SHAPE(4), (int64_t[]){ 1, 2, 3, 4 });
    wide = nn_zeros(nn, NN_SHAPE(8));
    nn_batchnorm(nn_zeros(nn, NN_SHAPE(1, 4)), w4, w4, v4, v4, NULL);              fails(nn, "more than one value per channel");
    nn_batchnorm(nn_zeros(nn, NN_SHAPE(1, 4, 1, 1)), NULL, NULL, NULL, NULL, NULL); fails(nn, "more than one value per channel");
    nn_batchnorm(x, w5, NULL, NULL, NULL, NULL);                                   fails(nn, "weight (5) does not fit the 4 channels");
    nn_batchnorm(x, NULL, NULL, w5, w5, NULL);                                     fails(nn, "mean (5)");
    nn_batchnorm(x, NULL, NULL, w4, NULL, NULL);                                   fails(nn, "both or none");
    nn_batchnorm(x, NULL, NULL, nn_slice(wide, 0, 0, 8, 2), v4, NULL);             fails(nn, "contiguous");
    nn_batchnorm(x, i64, NULL, NULL, NULL, NULL);                                  fails(nn, "i64");
    nn_batchnorm(i64, NULL, NULL, NULL, NULL, NULL);                               fails(nn, "i64");
    nn_batchnorm(w4, NULL, NULL, NULL, NULL, NULL);                                fails(nn, "(B, C, ...)");
    nn_batchnorm(x, NULL, NULL, NULL, NULL, &(nn_batchnorm_desc){ .eps = -1 });    fails(nn, "eps");
    nn_batchnorm(x, NULL, NULL, NULL, NULL, &(nn_batchnorm_desc){ .momentum = 2 }); fails(nn, "momentum");
    nn_layernorm(x, 0, NULL, NULL, NULL);                                          fails(nn, "last 0 dimensions");
    nn_layernorm(x, 4, NULL, NULL, NULL);                                          fails(nn, "last 4 dimensions");
    nn_layernorm(x, 1, w4, NULL, NULL);                                            fails(nn, "weight (4) does not fit");
    nn_layernorm(x, 2, NULL, w4, NULL);                                            fails(nn, "bias (4)");
    nn_layernorm(x, 1, NULL, NULL, &(nn_layernorm_desc){ .eps = (float)NAN });     fails(nn, "eps");
    nn_groupnorm(x, 3, NULL, NULL, NULL);                                          fails(nn, "3 groups do not divide");
    nn_groupnorm(x, 0, NULL, NULL, NULL);                                          fails(nn, "0 groups");
    nn_groupnorm(x, -2, NULL, NULL, NULL);                                         fails(nn, "-2 groups");
    nn_groupnorm(w4, 1, NULL, NULL, NULL);                                         fails(nn, "(B, C, ...)");
    nn_instancenorm(nn_zeros(nn, NN_SHAPE(2, 3, 1, 1)), NULL, NULL, NULL);         fails(nn, "more than one value");
    nn_instancenorm(nn_zeros(nn, NN_SHAPE(2, 3)), NULL, NULL, NULL);               fails(nn, "(B, C, L)");
    nn_rmsnorm(x, w4, NULL);                                                       fails(nn, "weight (4)");
    nn_rmsnorm(nn_scalar(nn, 1), NULL, NULL);                                      fails(nn, "rmsnorm");
    nn_add_layernorm(x, w4, 1, NULL, NULL, NULL, NULL);                            fails(nn, "add_layernorm: x (3, 4, 2) and r (4) differ");
    nn_add_layernorm(x, NULL, 1, NULL, NULL, NULL, NULL);                          fails(nn, "differ");
    nn_add_layernorm(x, x, 1, w4, NULL, &y, NULL);                                 fails(nn, "weight (4) does not fit");
    CHECK(nn__dead(y));
    nn_add_layernorm(x, x, 1, NULL, w4, NULL, NULL);                               fails(nn, "bias (4)");
    nn_add_layernorm(x, x, 4, NULL, NULL, NULL, NULL);                             fails(nn, "last 4 dimensions");
    nn_add_rmsnorm(x, x, w4, &y, NULL);                                            fails(nn, "add_rmsnorm: weight (4)");
    nn_add_rmsnorm(x, x, NULL, NULL, &(nn_rmsnorm_desc){ .eps = -1 });             fails(nn, "add_rmsnorm: eps");
    y = x;
    CHECK(nn__dead(nn_add_layernorm(NULL, x, 1, NULL, NULL, &y, NULL)) && nn__dead(y) && nn__dead(nn_add_rmsnorm(NULL, x, NULL, NULL, NULL)));
    nn_dropout(x, -0.1f);                                                          fails(nn, "not in 0..1");
    nn_dropout(x, 1.1f);                                                           fails(nn, "not in 0..1");
    nn_dropout(x, (float)NAN);                                                     fails(nn, "not in 0..1");
    nn_dropout2d(w4, 0.5f);                                                        fails(nn, "(B, C, ...)");
    CHECK(nn__dead(nn_batchnorm(NULL, NULL, NULL, NULL, NULL, NULL)) && nn__dead(nn_layernorm(NULL, 1, NULL, NULL, NULL)));
    CHECK(nn__dead(nn_groupnorm(NULL, 1, NULL, NULL, NULL)) && nn__dead(nn_rmsnorm(NULL, NULL, NULL)) && nn__dead(nn_dropout(NULL, 0.5f)));
    nn_begin(nn, NN_EVAL);           /* single values are fine with running statistics */
    CHECK(nn_count(nn_batchnorm(nn_zeros(nn, NN_SHAPE(1, 4)), NULL, NULL, w4, v4, NULL)) == 4);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(nan_stays_in_its_row)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    float x[3 * 20], y[3 * 20];
    for (int i = 0; i < 60; i++) x[i] = (float)(i % 7);
    x[25] = NAN;
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(nn_layernorm(nn_from(nn, NN_SHAPE(3, 20), x), 1, NULL, NULL, NULL), y));
    for (int i = 0; i < 60; i++) CHECK(isnan(y[i]) == (i / 20 == 1));
    x[25] = INFINITY;
    CHECK(nn_read(nn_rmsnorm(nn_from(nn, NN_SHAPE(3, 20), x), NULL, NULL), y));
    for (int i = 0; i < 60; i++) if (i / 20 != 1) CHECK(isfinite(y[i]));
    CHECK(nn_read(nn_batchnorm(nn_from(nn, NN_SHAPE(3, 20), x), NULL, NULL, NULL, NULL, NULL), y));
    for (int i = 0; i < 60; i++) if (i % 20 != 5) CHECK(isfinite(y[i]));
    nn_free(nn);
}

/* ---- the same bits for any table of a class and any number of threads ---- */
enum { BITS = 1 << 15 };
typedef nn_tensor *(*norm_fn)(nn_tensor *x, nn_tensor *w, nn_tensor *b);
static nn_tensor *bn(nn_tensor *x, nn_tensor *w, nn_tensor *b) { return nn_batchnorm(x, w, b, NULL, NULL, NULL); }
static nn_tensor *bn_relu(nn_tensor *x, nn_tensor *w, nn_tensor *b) { return nn_batchnorm(x, w, b, NULL, NULL, &(nn_batchnorm_desc){ .activation = nn_relu }); }
static nn_tensor *ln(nn_tensor *x, nn_tensor *w, nn_tensor *b) { return nn_layernorm(nn_reshape(x, NN_SHAPE(-1, nn_count(w))), 1, w, b, NULL); }
static nn_tensor *gn(nn_tensor *x, nn_tensor *w, nn_tensor *b) { return nn_groupnorm(x, nn_count(w) % 2 ? 1 : 2, w, b, NULL); }
static nn_tensor *in(nn_tensor *x, nn_tensor *w, nn_tensor *b) { return nn_instancenorm(x, w, b, NULL); }
static nn_tensor *rms(nn_tensor *x, nn_tensor *w, nn_tensor *b) { return nn_add(nn_rmsnorm(nn_reshape(x, NN_SHAPE(-1, nn_count(w))), w, NULL), b); }
static nn_tensor *add_ln(nn_tensor *x, nn_tensor *w, nn_tensor *b) { nn_tensor *s, *y = nn_add_layernorm(x, nn_sin(x), 1, w, b, &s, NULL); return nn_mul(y, s); }
static nn_tensor *add_rms(nn_tensor *x, nn_tensor *w, nn_tensor *b) { (void)b; return nn_add_rmsnorm(x, nn_sin(x), w, NULL, NULL); }
static nn_tensor *drop(nn_tensor *x, nn_tensor *w, nn_tensor *b) { (void)w; (void)b; return nn_dropout2d(nn_dropout(x, 0.3f), 0.2f); }
static uint64_t bits_of(norm_fn f, const char *isa, int threads, nn_shape shape)
{
    static float numbers[BITS];
    nn_context *nn = nn_new(&(nn_desc){ .isa = isa, .threads = threads, .seed = 4 });
    nn_tensor *x, *w, *b, *y, *list[4];
    uint64_t h = 1;
    nn_begin(nn, NN_TRAIN);
    x = nn_want_grad(nn_randn(nn, shape, 0.3f, 2));
    w = nn_want_grad(nn_randn(nn, NN_SHAPE(shape.d[1]), 1, 0.3f));
    b = nn_want_grad(nn_randn(nn, NN_SHAPE(shape.d[1]), 0, 0.3f));
    y = f(x, w, b);
    nn_backward_with(y, &(nn_backward_desc){ .grad = nn_randn(nn, nn_shape_of(y), 0, 1) });
    list[0] = y; list[1] = nn_grad(x); list[2] = nn_grad(w); list[3] = nn_grad(b);
    for (int i = 0; i < 4; i++) {
        if (!list[i]) continue;
        int64_t n = nn_count(list[i]);
        CHECK(n <= BITS && nn_read(list[i], numbers));
        for (int64_t j = 0; j < n * 4; j++) h = (h ^ ((unsigned char *)numbers)[j]) * 0x100000001B3u;
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
    return h;
}
TEST(same_bits_everywhere)
{
    static const struct { norm_fn f; nn_shape shape; } cases[] = {
        { bn, { 3, { 7, 33, 71 } } }, { bn, { 2, { 140, 133 } } }, { bn, { 4, { 2, 2, 61, 67 } } }, { bn_relu, { 3, { 7, 33, 71 } } }, { bn_relu, { 2, { 140, 133 } } },
        { ln, { 2, { 131, 77 } } }, { ln, { 2, { 3, 5003 } } }, { ln, { 2, { 400, 77 } } },
        { gn, { 3, { 5, 22, 45 } } }, { gn, { 2, { 33, 150 } } }, { in, { 3, { 3, 9, 301 } } }, { rms, { 2, { 65, 211 } } },
        { add_ln, { 2, { 131, 77 } } }, { add_ln, { 2, { 400, 77 } } }, { add_rms, { 2, { 65, 211 } } }, { drop, { 3, { 9, 21, 13 } } } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint64_t first[2] = { 0, 0 };
        for (int i = 0; test_isa(i); i++) {
            int class_f = strcmp(test_isa(i), "scalar") != 0;
#ifdef NN_DETERMINISTIC
            class_f = 0;
#endif
            for (int threads = 1; threads <= 3; threads++) {
                uint64_t h = bits_of(cases[k].f, test_isa(i), threads, cases[k].shape);
                if (!first[class_f]) first[class_f] = h;
                if (h != first[class_f]) printf("case %d on %s with %d threads\n", (int)k, test_isa(i), threads);
                CHECK(h == first[class_f]);
            }
        }
        if (cases[k].f == drop) CHECK(first[0] == first[1] || !first[1]);            /* nothing is summed: one class */
    }
}

/* ---- dropout ---- */
TEST(dropout_statistics)
{
    enum { N = 200000 };
    static float v[N], g[N];
    nn_context *nn = quiet((nn_desc){ .seed = 9 });
    for (int k = 1; k < 10; k += 4) {
        float p = 0.1f * (float)k;
        int64_t kept = 0, pairs = 0;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_want_grad(nn_ones(nn, NN_SHAPE(N))), *y = nn_dropout(x, p);
        nn_backward(nn_sum(y, NN_ALL, NULL));
        CHECK(nn_read(y, v) && nn_read(nn_grad(x), g));
        for (int i = 0; i < N; i++) {
            CHECK(v[i] == g[i]);                         /* the same mask in backward */
            CHECK(v[i] == 0 || fabsf(v[i] * (1 - p) - 1) < 1e-6f);
            kept += v[i] != 0;
            pairs += i && v[i] != 0 && v[i - 1] != 0;
        }
        CHECK_NEAR((double)kept / N, 1 - (double)p, 5 * sqrt((double)p * (1 - (double)p) / N));
        CHECK_NEAR((double)pairs / N, (1 - (double)p) * (1 - (double)p), 0.01);      /* neighbours are independent */
    }
    nn_free(nn);
}

static void mask(nn_context *nn, float *to) { CHECK(nn_read(nn_dropout(nn_ones(nn, NN_SHAPE(64)), 0.5f), to)); }
TEST(dropout_masks_follow_seed_step_and_place)
{
    float a[64], b[64], c[64], d[64];
    nn_context *nn = quiet((nn_desc){ .seed = 5, .threads = 1 });
    nn_begin(nn, NN_TRAIN); mask(nn, a); mask(nn, b);
    nn_begin(nn, NN_TRAIN); mask(nn, c);
    CHECK(memcmp(a, b, sizeof a) && memcmp(a, c, sizeof a));
    nn_seed(nn, 5);
    nn_begin(nn, NN_TRAIN); mask(nn, d);
    CHECK(!memcmp(a, d, sizeof a));
    nn_free(nn);
    nn = quiet((nn_desc){ .seed = 6 });
    nn_begin(nn, NN_TRAIN); mask(nn, d);
    CHECK(memcmp(a, d, sizeof a));
    nn_free(nn);
}

TEST(dropout_corners)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    float v[24];
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_ones(nn, NN_SHAPE(2, 3, 4));
    CHECK(nn_dropout(x, 0.5f) == x && nn_dropout2d(x, 0.5f) == x);
    nn_begin(nn, NN_TRAIN);
    x = nn_full(nn, NN_SHAPE(2, 3, 4), 3);
    CHECK(nn_dropout(x, 0) == x);
    CHECK(nn_read(nn_dropout(x, 1), v));
    for (int i = 0; i < 24; i++) CHECK(v[i] == 0);
    CHECK(nn_read(nn_dropout2d(x, 0.5f), v));
    for (int i = 0; i < 24; i++) CHECK(v[i] == v[i / 4 * 4] && (v[i] == 0 || v[i] == 6));          /* whole channels */
    CHECK(nn_count(nn_dropout(nn_zeros(nn, NN_SHAPE(0, 3)), 0.5f)) == 0);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* ---- a device that the host cannot see: running statistics live there and are moved there ---- */
TEST(batchnorm_on_a_device)
{
    float a[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, m[2], v[2], g[12];
    for (int refuse = 0; refuse < 2; refuse++) {
        fake_device d;
        if (!fake_open(&d)) SKIP("no mmap");
        d.refuse_all = refuse;
        nn_context *nn = nn_new(&(nn_desc){ .backend = &d.backend });
        nn_tensor *mean = nn_tensor_new(nn, NN_SHAPE(2), NULL), *var = nn_tensor_new(nn, NN_SHAPE(2), NULL), *x, *y;
        nn_begin(nn, NN_TRAIN);
        x = nn_want_grad(nn_from(nn, NN_SHAPE(3, 2, 2), a));
        y = nn_dropout(nn_batchnorm(x, NULL, NULL, mean, var, NULL), 0.25f);
        nn_backward(nn_sum(nn_mul(y, y), NN_ALL, NULL));
        CHECK(nn_read(mean, m) && nn_read(var, v) && nn_read(nn_grad(x), g));
        CHECK_NEAR(m[0], 0.55, 1e-6);
        CHECK_NEAR(v[1], 0.1 * 13.1, 1e-5);              /* 7.5: deviations -4.5 -3.5 -.5 .5 3.5 4.5: 65.5 / 5 */
        CHECK(nn_ok(nn));
        nn_free(nn);
        fake_close(&d);
    }
}

TEST(an_activation_follows)
{
    nn_context *nn = quiet((nn_desc){ .seed = 4 });
    nn_tensor *w = vector(nn, 4, 0.5f, 0.25f), *b = vector(nn, 4, -0.2f, 0.1f);
    float y[2][24], dx[2][24];
    for (int norm = 0; norm < 7; norm++) {
        for (int own = 0; own < 2; own++) {
            nn_norm_layer_desc d = { .activation = own ? nn_relu : NULL };
            nn->random_step = 7;
            nn_begin(nn, NN_TRAIN);
            nn_tensor *x = nn_want_grad(nn_randn(nn, NN_SHAPE(6, 4), 0, 1)), *z = norm == 3 ? nn_want_grad(nn_reshape(x, NN_SHAPE(2, 4, 3))) : x, *t;
            t = norm == 0 ? nn_batchnorm(z, w, b, NULL, NULL, &d) : norm == 1 ? nn_layernorm(z, 1, w, b, &d) : norm == 2 ? nn_groupnorm(z, 2, w, b, &d)
              : norm == 3 ? nn_instancenorm(z, w, b, &d) : norm == 4 ? nn_rmsnorm(z, w, &d) : norm == 5 ? nn_add_layernorm(z, x, 1, w, b, NULL, &d) : nn_add_rmsnorm(z, x, w, NULL, &d);
            if (!own) t = nn_relu(t);
            nn_backward(nn_sum(nn_square(t), NN_ALL, NULL));
            CHECK(nn_read(t, y[own]) && nn_read(nn_grad(x), dx[own]));
        }
        CHECK(!memcmp(y[0], y[1], sizeof y[0]) && !memcmp(dx[0], dx[1], sizeof dx[0]));
    }
    nn_free(nn);
}
