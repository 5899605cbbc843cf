/* test_losses.c - values of the losses against naive formulas in double, extreme inputs, errors, equal bits.  (Gradients: cases_loss.h) */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

#define LOSS(...) (&(nn_loss_desc){ __VA_ARGS__ })
static nn_context *quiet(void) { return nn_new(&(nn_desc){ .threads = 2, .on_error = test_quiet }); }
static double rnd(int stream, int64_t i)                 /* -2 .. 2, floats */
{
    uint64_t x = ((uint64_t)stream << 32 | (uint64_t)i) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
    return (float)(4 * ldexp((double)((x ^ x >> 32) >> 11), -53) - 2);
}
static nn_tensor *numbers(nn_context *nn, int stream, nn_shape shape, double *v)
{
    nn_tensor *t = nn_zeros(nn, shape);
    for (int64_t i = 0; i < nn_count(t); i++) v[i] = rnd(stream, i);
    nn_write_as(t, NN_F64, v);
    return t;
}

/* PyTorch's cross_entropy, as its documentation writes it: x (b, c, s) */
static double log_softmax(const double *x, int64_t classes, int64_t stride, int64_t k)
{
    double m = -INFINITY, s = 0;
    for (int64_t c = 0; c < classes; c++) if (x[c * stride] > m) m = x[c * stride];
    for (int64_t c = 0; c < classes; c++) s += exp(x[c * stride] - m);
    return x[k * stride] - m - log(s);
}
static double naive_cross_entropy(const double *x, const int64_t *y, const double *prob, const double *w, double e, int64_t ignore, nn_reduction r,
                                  int64_t batch, int64_t classes, int64_t inner, double *none)
{
    double sum = 0, total = 0;
    for (int64_t b = 0; b < batch; b++) for (int64_t s = 0; s < inner; s++) {
        const double *row = x + b * classes * inner + s;
        int64_t i = b * inner + s;
        double l = 0, smooth = 0;
        if (prob) {
            for (int64_t c = 0; c < classes; c++)
                l -= (w ? w[c] : 1) * ((1 - e) * prob[(b * classes + c) * inner + s] + e / (double)classes) * log_softmax(row, classes, inner, c);
            total += 1;
        } else if (y[i] != ignore) {
            l = -(w ? w[y[i]] : 1) * log_softmax(row, classes, inner, y[i]);
            for (int64_t c = 0; c < classes; c++) smooth -= (w ? w[c] : 1) * log_softmax(row, classes, inner, c);
            l = (1 - e) * l + e / (double)classes * smooth;
            total += w ? w[y[i]] : 1;
        }
        none[i] = l;
        sum += l;
    }
    return r == NN_MEAN ? sum / total : sum;
}

TEST(cross_entropy_values)
{
    static const int64_t sizes[][3] = { { 4, 5, 1 }, { 3, 33, 1 }, { 1, 1000, 1 }, { 2, 3, 7 }, { 2, 4, 70 }, { 3, 1, 5 }, { 70, 3, 1 } };
    nn_context *nn = quiet();
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
    for (int option = 0; option < 48; option++) {
        static double x[4096], p[4096], w[4096], none[4096], got[4096];
        static int64_t y[4096];
        int64_t b = sizes[k][0], c = sizes[k][1], s = sizes[k][2];
        int soft = option & 1, weighted = option >> 1 & 1, r = option >> 3 & 1 ? NN_SUM : option >> 4 ? NN_NONE : NN_MEAN;
        double e = option >> 2 & 1 ? (float)0.1 : 0, want;
        nn_tensor *tx, *tp, *tw, *ty, *l;
        if (e != 0) e = 0.1;
        nn_begin(nn, NN_TRAIN);
        tx = numbers(nn, 1, NN_SHAPE(b, c, s), x);
        tp = numbers(nn, 2, NN_SHAPE(b, c, s), p);
        tw = numbers(nn, 3, NN_SHAPE(c), w);
        for (int64_t i = 0; i < b * s; i++) y[i] = (int64_t)(i * 7 + i / 3) % c;
        if (!soft && b * s > 3) y[2] = -100;
        ty = nn_from_as(nn, NN_I64, NN_SHAPE(b, s), y);
        if (s == 1) { tx = nn_squeeze(tx, 2); tp = nn_squeeze(tp, 2); ty = nn_squeeze(ty, 1); }
        want = naive_cross_entropy(x, y, soft ? p : NULL, weighted ? w : NULL, e, -100, (nn_reduction)r, b, c, s, none);
        l = nn_cross_entropy(tx, soft ? tp : ty, LOSS(.reduction = (nn_reduction)r, .weight = weighted ? tw : NULL, .label_smoothing = (float)e));
        nn_read_as(l, NN_F64, got);
        if (r != NN_NONE) CHECK_NEAR(got[0], want, 2e-5 * (fabs(want) + 1));
        else {
            CHECK(nn_count(l) == b * s && l->ndim == (s == 1 ? 1 : 2));
            for (int64_t i = 0; i < b * s; i++) CHECK_NEAR(got[i], none[i], 2e-5 * (fabs(none[i]) + 1));
        }
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(cross_entropy_extremes)
{
    nn_context *nn = quiet();
    float big[] = { 1e30f, -1e30f, 0, 3e38f, -3e38f, 1 }, g[6], v;
    int64_t y[] = { 0, 0 }, none[] = { -100, -100 };
    nn_tensor *x, *l;
    nn_begin(nn, NN_TRAIN);
    x = nn_want_grad(nn_from(nn, NN_SHAPE(2, 3), big));
    l = nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(2), y), NULL);
    CHECK_NEAR(nn_item(l), 0, 0);
    nn_backward(l);
    nn_read(nn_grad(x), g);
    for (int i = 0; i < 6; i++) CHECK_NEAR(g[i], 0, 0);

    nn_begin(nn, NN_TRAIN);          /* everything ignored: the mean is 0 / 0, the gradient 0 */
    x = nn_want_grad(nn_ones(nn, NN_SHAPE(2, 3)));
    l = nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(2), none), NULL);
    CHECK(isnan(nn_item(l)));
    nn_backward(l);
    nn_read(nn_grad(x), g);
    for (int i = 0; i < 6; i++) CHECK_NEAR(g[i], 0, 0);
    CHECK(isnan(nn_item(nn_nll(x, nn_from_as(nn, NN_I64, NN_SHAPE(2), none), NULL))));
    CHECK_NEAR(nn_item(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(2), none), LOSS(.reduction = NN_SUM))), 0, 0);

    nn_begin(nn, NN_EVAL);           /* nothing at all */
    x = nn_zeros(nn, NN_SHAPE(0, 3));
    CHECK(isnan(nn_item(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(0), NULL), NULL))));
    CHECK(isnan(nn_item(nn_cross_entropy(x, x, NULL))));
    CHECK(isnan(nn_item(nn_mse(x, x, NULL))));
    CHECK(isnan(nn_item(nn_kl_div(x, x, NULL))));
    CHECK_NEAR(nn_item(nn_mse(x, x, LOSS(.reduction = NN_SUM))), 0, 0);
    CHECK(isnan(nn_item(nn_binary_cross_entropy(x, x, NULL))));

    nn_begin(nn, NN_EVAL);           /* NaN and infinity go through */
    v = NAN;
    big[1] = v;
    x = nn_from(nn, NN_SHAPE(2, 3), big);
    CHECK(isnan(nn_item(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(2), y), NULL))));
    big[0] = big[1] = big[2] = -INFINITY;
    x = nn_from(nn, NN_SHAPE(1, 3), big);
    CHECK(isnan(nn_item(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(1), y), NULL))));
    big[0] = 1;
    x = nn_from(nn, NN_SHAPE(1, 3), big);
    CHECK_NEAR(nn_item(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(1), y), NULL)), 0, 0);
    y[0] = 2;
    CHECK_NEAR(nn_item(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(1), y), NULL)), INFINITY, 0);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* A binary cross-entropy must be right where sigmoid is 0 or 1 in float. */
TEST(binary_cross_entropy_values)
{
    static const float logit[] = { -200, -90, -20, -1, 0, 1, 20, 90, 200 };
    nn_context *nn = quiet();
    float g[9], l[9];
    for (int target = 0; target <= 1; target++) {
        nn_tensor *x, *t, *y;
        nn_begin(nn, NN_TRAIN);
        x = nn_want_grad(nn_from(nn, NN_SHAPE(9), logit));
        t = nn_full(nn, NN_SHAPE(9), (float)target);
        y = nn_binary_cross_entropy(x, t, LOSS(.reduction = NN_NONE));
        nn_read(y, l);
        nn_backward(nn_sum(y, NN_ALL, NULL));
        nn_read(nn_grad(x), g);
        for (int i = 0; i < 9; i++) {
            double z = target ? -(double)logit[i] : (double)logit[i], want = z > 0 ? z + log1p(exp(-z)) : log1p(exp(z)), slope = 1 / (1 + exp(-z));
            CHECK_NEAR(l[i], want, 2e-6 * want + 1e-38);
            CHECK_NEAR(g[i], target ? -slope : slope, 2e-6 * slope + 1e-38);
        }
    }
    {                                /* weight and pos_weight */
        double x[20], t[20], w[20], q[20], want = 0;
        nn_begin(nn, NN_EVAL);
        nn_tensor *tx = numbers(nn, 1, NN_SHAPE(4, 5), x), *tt = nn_sigmoid(numbers(nn, 2, NN_SHAPE(4, 5), t)), *tw = numbers(nn, 3, NN_SHAPE(5), w), *tq = numbers(nn, 4, NN_SHAPE(4, 1), q);
        for (int i = 0; i < 20; i++) {
            double p = 1 / (1 + exp(-x[i])), y = 1 / (1 + exp(-t[i]));
            want -= w[i % 5] * (q[i / 5] * y * log(p) + (1 - y) * log(1 - p)) / 20;
        }
        CHECK_NEAR(nn_item(nn_binary_cross_entropy(tx, tt, LOSS(.weight = tw, .pos_weight = tq))), want, 1e-5);
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(element_losses)
{
    nn_context *nn = quiet();
    static double x[10007], t[10007];
    int64_t n = 10007, classes[] = { 0, 2 };
    double s[5] = { 0 }, margin = 0;
    nn_begin(nn, NN_EVAL);
    nn_tensor *tx = numbers(nn, 1, NN_SHAPE(n), x), *tt = numbers(nn, 2, NN_SHAPE(n), t);
    for (int i = 0; i < n; i++) {
        double d = fabs(x[i] - t[i]);
        s[0] += d * d;
        s[1] += d;
        s[2] += d < 0.5 ? 0.5 * d * d : 0.5 * (d - 0.25);
        s[3] += d < 0.5 ? 0.5 * d * d / 0.5 : d - 0.25;
        s[4] += fmax(0, 1 - x[i] * t[i]);
    }
    CHECK_NEAR(nn_item(nn_mse(tx, tt, NULL)) / (s[0] / (double)n), 1, 1e-6);
    CHECK_NEAR(nn_item(nn_mse(tx, tt, LOSS(.reduction = NN_SUM))) / s[0], 1, 1e-6);
    CHECK_NEAR(nn_item(nn_l1(tx, tt, NULL)) / (s[1] / (double)n), 1, 1e-6);
    CHECK_NEAR(nn_item(nn_huber(tx, tt, LOSS(.delta = 0.5f))) / (s[2] / (double)n), 1, 1e-6);
    CHECK_NEAR(nn_item(nn_smooth_l1(tx, tt, LOSS(.delta = 0.5f))) / (s[3] / (double)n), 1, 1e-6);
    CHECK_NEAR(nn_item(nn_smooth_l1(tx, tt, LOSS(.delta = NN_ZERO))) / (s[1] / (double)n), 1, 1e-6);
    CHECK_NEAR(nn_item(nn_hinge(tx, tt, NULL)) / (s[4] / (double)n), 1, 1e-6);
    tx = numbers(nn, 1, NN_SHAPE(2, 3), x);
    for (int i = 0; i < 2; i++) for (int c = 0; c < 3; c++) if (c != classes[i]) margin += fmax(0, 0.7 - x[3 * i + classes[i]] + x[3 * i + c]) / 3 / 2;
    CHECK_NEAR(nn_item(nn_hinge(tx, nn_from_as(nn, NN_I64, NN_SHAPE(2), classes), LOSS(.margin = 0.7f))), margin, 1e-6);
    CHECK_NEAR(nn_item(nn_nll(tx, nn_from_as(nn, NN_I64, NN_SHAPE(2), classes), NULL)), -(x[0] + x[5]) / 2, 1e-6);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(row_losses)
{
    nn_context *nn = quiet();
    double a[12], b[12], c[12], want = 0, T = 2.5;
    float none[12];
    nn_begin(nn, NN_EVAL);
    nn_tensor *ta = numbers(nn, 1, NN_SHAPE(3, 4), a), *tb = numbers(nn, 2, NN_SHAPE(3, 4), b), *tc = numbers(nn, 3, NN_SHAPE(3, 4), c);
    for (int r = 0; r < 3; r++) for (int i = 0; i < 4; i++) {
        double x[4], t[4], q;
        for (int j = 0; j < 4; j++) { x[j] = a[4 * r + j] / T; t[j] = b[4 * r + j] / T; }
        q = log_softmax(t, 4, 1, i);
        want += T * T * exp(q) * (q - log_softmax(x, 4, 1, i));
    }
    CHECK_NEAR(nn_item(nn_kl_div(ta, tb, LOSS(.temperature = 2.5f))), want / 3, 1e-5);
    CHECK_NEAR(nn_item(nn_kl_div(ta, tb, LOSS(.temperature = 2.5f, .reduction = NN_SUM))), want, 1e-5);
    CHECK_NEAR(nn_item(nn_sum(nn_kl_div(ta, tb, LOSS(.temperature = 2.5f, .reduction = NN_NONE)), NN_ALL, NULL)), want, 1e-5);
    CHECK_NEAR(nn_item(nn_kl_div(ta, ta, NULL)), 0, 1e-7);

    int64_t pair[] = { 1, -1, -1 };
    want = 0;
    for (int r = 0; r < 3; r++) {
        double ab = 0, aa = 1e-12, bb = 1e-12, cosine;
        for (int j = 0; j < 4; j++) { ab += a[4 * r + j] * b[4 * r + j]; aa += a[4 * r + j] * a[4 * r + j]; bb += b[4 * r + j] * b[4 * r + j]; }
        cosine = ab / sqrt(aa * bb);
        want += (pair[r] == 1 ? 1 - cosine : fmax(0, cosine + 0.5)) / 3;
    }
    CHECK_NEAR(nn_item(nn_cosine_embedding(ta, tb, nn_from_as(nn, NN_I64, NN_SHAPE(3), pair), LOSS(.margin = -0.5f))), want, 1e-6);

    for (int p = 1; p <= 3; p++) {
        want = 0;
        for (int r = 0; r < 3; r++) {
            double d = 0, e = 0;
            for (int j = 0; j < 4; j++) { d += pow(fabs(a[4 * r + j] - b[4 * r + j] + 1e-6), p); e += pow(fabs(a[4 * r + j] - c[4 * r + j] + 1e-6), p); }
            want += fmax(0, pow(d, 1.0 / p) - pow(e, 1.0 / p) + 0.8) / 3;
        }
        CHECK_NEAR(nn_item(nn_triplet_margin(ta, tb, tc, LOSS(.p = (float)p, .margin = 0.8f))), want, 1e-5);
    }

    want = 0;
    for (int r = 0; r < 3; r++) {
        double row[3];
        for (int k = 0; k < 3; k++) {
            double ab = 0, aa = 0, bb = 0;
            for (int j = 0; j < 4; j++) { ab += a[4 * r + j] * b[4 * k + j]; aa += a[4 * r + j] * a[4 * r + j]; bb += b[4 * k + j] * b[4 * k + j]; }
            row[k] = ab / sqrt(aa * bb) / 0.07;
        }
        want -= log_softmax(row, 3, 1, r) / 3;
    }
    CHECK_NEAR(nn_item(nn_info_nce(ta, tb, NULL)) / want, 1, 1e-5);
    nn_read(nn_info_nce(nn_zeros(nn, NN_SHAPE(3, 4)), tb, LOSS(.reduction = NN_NONE)), none);
    CHECK_NEAR(none[0], log(3), 1e-6);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* Every mistake gives an inert result and a message that names the rule. */
static nn_context *fresh(nn_context *nn) { nn_clear(nn); nn_begin(nn, NN_TRAIN); return nn; }
#define FAILS(expression, text) do { fresh(nn); x = nn_want_grad(nn_ones(nn, NN_SHAPE(4, 3))); (void)(expression); CHECK(!nn_ok(nn)); CHECK_TEXT(nn_error(nn), text); } while (0)
TEST(mistakes)
{
    nn_context *nn = quiet();
    nn_tensor *x;
    int64_t far[] = { 0, 1, 3, 2 }, negative[] = { 0, -1, 1, 2 }, huge[] = { 0, 1, INT64_MAX, INT64_MIN };
    int32_t i32[] = { 0, 1, 2, INT32_MIN };
    int classes = NN_I64;
    FAILS(nn_mse(x, nn_ones(nn, NN_SHAPE(4, 1)), NULL), "mse: shapes must be equal: (4, 3) and (4, 1)");
    FAILS(nn_l1(x, nn_ones(nn, NN_SHAPE(3)), NULL), "shapes must be equal");
    FAILS(nn_binary_cross_entropy(x, nn_ones(nn, NN_SHAPE(4)), NULL), "shapes must be equal");
    FAILS(nn_binary_cross_entropy(x, x, LOSS(.weight = nn_ones(nn, NN_SHAPE(4)))), "expand");
    FAILS(nn_binary_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(4, 3), NULL), NULL), "is i64");
    FAILS(nn_kl_div(x, nn_ones(nn, NN_SHAPE(3, 4)), NULL), "shapes must be equal");
    FAILS(nn_kl_div(x, x, LOSS(.temperature = -1)), "temperature");
    FAILS(nn_mse(x, x, LOSS(.delta = 1)), "mse: the option .delta does not apply");
    FAILS(nn_huber(x, x, LOSS(.weight = x)), ".weight does not apply");
    FAILS(nn_mse(x, x, LOSS(.reduction = (nn_reduction)7)), "reduction 7");
    FAILS(nn_mse(NULL, x, NULL) ? nn_mse(x, NULL, NULL) : x, "NULL");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), far), NULL), "target 3 of row 2 is not a class 0..2");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), negative), NULL), "target -1 of row 1");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), huge), LOSS(.label_smoothing = 0.1f, .weight = nn_ones(nn, NN_SHAPE(3)))), "target 9223372036854775807");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_I32, NN_SHAPE(4), i32), LOSS(.reduction = NN_NONE)), "target -2147483648");
    FAILS(nn_cross_entropy(nn_ones(nn, NN_SHAPE(2, 3, 2)), nn_from_as(nn, NN_I64, NN_SHAPE(2, 2), far), NULL), "target 3 of row 2");
    FAILS(nn_nll(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), far), NULL), "nll: target 3");
    FAILS(nn_hinge(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), negative), NULL), "target -1");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, (nn_dtype)classes, NN_SHAPE(4, 1), far), NULL), "classes must be (4)");
    FAILS(nn_cross_entropy(x, nn_ones(nn, NN_SHAPE(4)), NULL), "does not fit");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_U8, NN_SHAPE(4), NULL), NULL), "the target is u8");
    FAILS(nn_cross_entropy(nn_from_as(nn, NN_I64, NN_SHAPE(4, 3), NULL), nn_from_as(nn, NN_I64, NN_SHAPE(4), NULL), NULL), "must be f32");
    FAILS(nn_cross_entropy(nn_scalar(nn, 1), nn_from_as(nn, NN_I64, NN_SCALAR, NULL), NULL), "(B, C, ...)");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), NULL), LOSS(.weight = nn_ones(nn, NN_SHAPE(4)))), "one number for each of 3 classes");
    FAILS(nn_cross_entropy(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), NULL), LOSS(.label_smoothing = 1.5f)), "label_smoothing");
    FAILS(nn_cross_entropy(x, x, LOSS(.ignore_index = 1)), "ignore_index does not apply");
    FAILS(nn_nll(x, x, NULL), "classes are i32 or i64");
    FAILS(nn_nll(x, nn_from_as(nn, NN_I64, NN_SHAPE(4), NULL), LOSS(.label_smoothing = 0.1f)), "does not apply");
    FAILS(nn_cosine_embedding(x, x, nn_ones(nn, NN_SHAPE(4, 1)), NULL), "does not fit");
    FAILS(nn_cosine_embedding(x, nn_ones(nn, NN_SHAPE(1, 3)), nn_ones(nn, NN_SHAPE(4)), NULL), "shapes must be equal");
    FAILS(nn_triplet_margin(x, x, nn_ones(nn, NN_SHAPE(1, 3)), NULL), "shapes must be equal");
    FAILS(nn_triplet_margin(x, x, x, LOSS(.p = -1)), "p -1");
    FAILS(nn_info_nce(x, nn_ones(nn, NN_SHAPE(3, 3)), NULL), "shapes must be equal");
    FAILS(nn_info_nce(nn_ones(nn, NN_SHAPE(2, 2, 2)), nn_ones(nn, NN_SHAPE(2, 2, 2)), NULL), "(B, C)");
    nn_free(nn);
}

TEST(targets_get_no_gradient_unasked)
{
    nn_context *nn = quiet();
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_want_grad(nn_ones(nn, NN_SHAPE(2, 3))), *t = nn_zeros(nn, NN_SHAPE(2, 3));
    nn_backward(nn_mse(x, t, NULL));
    CHECK(nn_grad(x) && !nn_grad(t));
    nn_free(nn);
}

/* Class F: the same bits on every table that fuses, and with any number of threads. */
TEST(equal_bits)
{
    static const char *const isa[] = { "fma", "avx2", "avx512", "neon" };
    static float first[8][3000], now[3000];
    int seen = 0;
    for (int k = 0; k < 8; k++) {
        static double x[6200], t[6200];
        nn_context *nn = nn_new(&(nn_desc){ .isa = isa[k / 2], .threads = 1 + 3 * (k % 2), .on_error = test_quiet });
        int n = 0;
        if (!nn_ok(nn)) { nn_free(nn); continue; }
        nn_begin(nn, NN_TRAIN);
        nn_tensor *a = nn_want_grad(numbers(nn, 1, NN_SHAPE(2, 1033), x)), *b = numbers(nn, 2, NN_SHAPE(2, 1033), t), *l[8];
        int64_t y[] = { 1030, 7 };
        l[0] = nn_mse(a, b, NULL);
        l[1] = nn_binary_cross_entropy(a, b, NULL);
        l[2] = nn_huber(a, b, NULL);
        l[3] = nn_cross_entropy(a, nn_from_as(nn, NN_I64, NN_SHAPE(2), y), LOSS(.label_smoothing = 0.1f));
        l[4] = nn_cross_entropy(a, b, NULL);
        l[5] = nn_kl_div(a, b, LOSS(.temperature = 3));
        l[6] = nn_cross_entropy(nn_reshape(a, NN_SHAPE(2, 1, 1033)), nn_reshape(b, NN_SHAPE(2, 1, 1033)), NULL);
        l[7] = nn_smooth_l1(a, b, LOSS(.reduction = NN_SUM));
        for (int i = 0; i < 8; i++) nn_read(l[i], &now[n++]);
        for (int i = 1; i < 8; i++) l[0] = nn_add(l[0], l[i]);
        nn_backward(l[0]);
        nn_read(nn_grad(a), now + n);
        n += 2066;
        CHECK(nn_ok(nn));
        if (!seen++) memcpy(first[0], now, sizeof now);
        CHECK(!memcmp(first[0], now, (size_t)n * sizeof *now));
        nn_free(nn);
    }
    if (!seen) SKIP("no fused kernels on this machine");
}
