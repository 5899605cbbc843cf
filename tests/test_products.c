/* test_products.c - matrix products against plain sums in double, for every table: all forms (transposed, strided, narrow, one row, long),
   the same bits within a class, whatever the batch and the number of threads */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

static int fused(const char *isa)
{
#ifdef NN_DETERMINISTIC
    return isa != NULL;
#else
    return strcmp(isa, "scalar") != 0;
#endif
}

/* Every sum is a chain of k multiply-adds, or 16 of fewer:  |error| <= k u sum |a b|, u = 2^-24. b: NULL, or what sums start from. */
static int close_enough(const nn_tensor *x, const nn_tensor *w, const nn_tensor *bias, const float *y, int64_t m, int64_t n, int64_t k)
{
    const float *xd = x->data, *wd = w->data, *b = bias ? bias->data : NULL;
    for (int64_t q = 0; q < (m * n < 6000 ? m * n : 6000); q++) {
        int64_t e = m * n < 6000 ? q : q < 64 ? m * n - 1 - q : q * 7919 % (m * n), i = e / n, j = e % n;
        double s = b ? b[j] : 0, bound = fabs(s);
        for (int64_t p = 0; p < k; p++) {
            double term = (double)xd[i * x->stride[0] + p * x->stride[1]] * wd[p * w->stride[0] + j * w->stride[1]];
            s += term;
            bound += fabs(term);
        }
        if (!(fabs(s - y[e]) <= (double)(k + 1) * ldexp(bound, -24))) { printf("(%d, %d) of %d x %d x %d: %g, not %g\n", (int)i, (int)j, (int)m, (int)n, (int)k, y[e], s); return 0; }
    }
    return 1;
}
static uint64_t bits_of(const float *y, int64_t n)
{
    uint64_t h = 1469598103934665603u;
    for (int64_t i = 0; i < n; i++) { uint32_t b; memcpy(&b, y + i, 4); h = (h ^ b) * 1099511628211u; }
    return h;
}

typedef struct Shape { int64_t m, n, k; } Shape;
static const Shape shapes[] = { { 1, 1, 1 }, { 1, 7, 3 }, { 1, 33, 77 }, { 1, 64, 96 }, { 1, 130, 600 }, { 2, 70, 33 }, { 3, 70, 33 }, { 5, 37, 61 }, { 8, 96, 48 }, { 13, 10, 5 },
    { 16, 1, 20 }, { 33, 3, 17 }, { 64, 10, 40 }, { 70, 12, 19 }, { 40, 40, 15 }, { 64, 64, 32 }, { 31, 65, 130 }, { 130, 48, 257 }, { 28, 40, 1100 }, { 129, 1024, 300 }, { 24, 33, 1024 },
    { 1, 70, 784 }, { 2, 9, 512 }, { 3, 6, 515 }, { 4, 5, 1030 }, { 5, 4, 777 }, { 20, 1, 600 }, { 1, 1, 512 }, { 13, 11, 1500 },
    { 7, 40, 384 }, { 1, 10, 128 }, { 40, 10, 130 }, { 36, 12, 64 }, { 9, 31, 65 }, { 3, 32, 100 },     /* these two rows: dot products where B is transposed; of few outputs */
    { 16, 130, 128 }, { 32, 200, 301 }, { 48, 129, 383 } };                                             /* so few rows that Y is sooner turned than B */

/* form: bit 0 A transposed, bit 1 B transposed, bit 2 every other column of A, bit 3 with a bias (nn_linear), bit 4 columns of A 8 KB apart */
static uint64_t product(nn_context *nn, Shape s, int form, float *y, int check)
{
    nn_begin(nn, NN_EVAL);
    nn_tensor *a = nn_randn(nn, form & 1 ? NN_SHAPE(s.k, s.m) : form & 4 ? NN_SHAPE(s.m, 2 * s.k) : NN_SHAPE(s.m, s.k), 0, 1);
    nn_tensor *b = nn_randn(nn, form & 2 ? NN_SHAPE(s.n, s.k) : NN_SHAPE(s.k, s.n), 0, 1), *bias = form & 8 ? nn_randn(nn, NN_SHAPE(s.n), 0, 1) : NULL;
    if (form & 16) a = nn_slice(nn_randn(nn, NN_SHAPE(s.k, 2048), 0, 1), 1, 3, 3 + s.m, 1);
    if (form & 17) a = nn_transpose(a, 0, 1);
    if (form & 4) a = nn_slice(a, 1, 0, 2 * s.k, 2);
    if (form & 2) b = nn_transpose(b, 0, 1);
    CHECK(nn_read(form & 8 ? nn_linear(a, nn_transpose(b, 0, 1), bias, NULL) : nn_matmul(a, b), y));
    if (check) CHECK(close_enough(a, b, bias, y, s.m, s.n, s.k));
    CHECK(nn_ok(nn));
    return bits_of(y, s.m * s.n);
}
static void same_everywhere(size_t count, const Shape *shapes, size_t form_count, const int *forms)
{
    static float y[132 * 1024];
    for (size_t q = 0; q < count; q++)
        for (size_t f = 0; f < form_count; f++) {
            uint64_t first[2] = { 0, 0 };
            for (int i = 0; test_isa(i); i++) {
                nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = 1 + (i & 1), .seed = q + 1 });
                uint64_t *expected = &first[fused(test_isa(i))], h = product(nn, shapes[q], forms[f], y, !*expected);     /* the first of each class against double */
                nn_free(nn);
                if (!*expected) *expected = h;
                if (h != *expected) printf("form %d of %d x %d x %d: other bits on %s\n", forms[f], (int)shapes[q].m, (int)shapes[q].n, (int)shapes[q].k, test_isa(i));
                CHECK(h == *expected);
            }
        }
}

TEST(products_are_right_and_the_same_bits_everywhere)
{
    static const int forms[] = { 0, 1, 2, 3, 4, 8, 10 };
    same_everywhere(sizeof shapes / sizeof *shapes, shapes, sizeof forms / sizeof *forms, forms);
}
/* Panels of A: rows of a whole vector more than the last tile has, or fewer; one slice and two. */
TEST(columns_far_apart_are_packed)
{
    static const Shape packed[] = { { 56, 1024, 512 }, { 61, 1057, 600 }, { 71, 1030, 1031 }, { 128, 1024, 1025 } };
    static const int forms[] = { 16, 18 };
    same_everywhere(sizeof packed / sizeof *packed, packed, sizeof forms / sizeof *forms, forms);
}

/* A row alone, and among others, of every width of a task. */
TEST(a_row_does_not_see_the_others)
{
    static float all[70 * 200], few[70 * 200];
    static const int64_t widths[] = { 1, 5, 12, 13, 33, 100, 200 }, counts[] = { 1, 2, 3, 9, 40 };
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3 });
    for (int w = 0; w < 7; w++)
        for (int form = 0; form < 4; form++) {
            int64_t n = widths[w], k = form < 2 ? 77 : 530;
            nn_begin(nn, NN_EVAL);
            nn_tensor *x = nn_randn(nn, NN_SHAPE(70, k), 0, 1), *v = form & 1 ? nn_randn(nn, NN_SHAPE(n, k), 0, 1) : nn_transpose(nn_randn(nn, NN_SHAPE(k, n), 0, 1), 0, 1);
            nn_tensor *b = nn_randn(nn, NN_SHAPE(n), 0, 1);
            CHECK(nn_read(nn_linear(x, v, b, NULL), all));
            for (int c = 0; c < 5; c++) {
                CHECK(nn_read(nn_linear(nn_slice(x, 0, 7, 7 + counts[c], 1), v, b, NULL), few));
                CHECK(!memcmp(few, all + 7 * n, (size_t)(counts[c] * n) * sizeof *few));
            }
        }
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* Weights of fewer bytes give the bits of the same weights as numbers, in every layout, for every number of rows. */
static void small_weights(nn_context *nn, nn_dtype dtype, int64_t out, int64_t in, int64_t group)
{
    static float y[70 * 300], z[70 * 300];
    nn_begin(nn, NN_EVAL);
    nn_tensor *scale = NULL, *full = nn_randn(nn, NN_SHAPE(out, in), 0, 1), *w = nn_quantize_new(full, dtype, dtype == NN_I8 || dtype == NN_I4 ? &scale : NULL, &(nn_quantize_desc){ .group = group });
    nn_tensor *b = nn_randn(nn, NN_SHAPE(out), 0, 1), *v = nn_dequantize(w, scale), *forms[2] = { w, nn_contiguous(w) };
    nn_read(nn_reshape(nn_max(nn_abs(nn_sub(v, full)), NN_ALL, NULL), NN_SHAPE(1)), y);
    CHECK(y[0] <= (dtype == NN_I4 ? 0.6f : dtype == NN_I8 ? 0.025f : dtype == NN_BF16 ? 0.016f : 0.002f));        /* half a step of the largest */
    for (int m = 1; m < 70; m = m < 3 ? m + 1 : m * 3)
        for (int f = 0; f < 2; f++) {
            nn_tensor *x = nn_randn(nn, NN_SHAPE(m, in), 0, 1);
            CHECK(nn_read(nn_linear(x, forms[f], b, &(nn_linear_desc){ .scale = scale }), y));
            CHECK(nn_read(nn_linear(x, v, b, NULL), z));
            CHECK(!memcmp(y, z, (size_t)(m * out) * sizeof *y));
        }
    nn_begin(nn, NN_TRAIN);                              /* x has a gradient */
    v = nn_dequantize(w, scale);
    nn_tensor *x = nn_randn(nn, NN_SHAPE(9, in), 0, 1), *dy = nn_randn(nn, NN_SHAPE(9, out), 0, 1);
    nn_want_grad(x);
    nn_backward(nn_sum(nn_mul(nn_linear(x, w, NULL, &(nn_linear_desc){ .scale = scale }), dy), NN_ALL, NULL));
    CHECK(nn_read(nn_grad(x), y));
    CHECK(nn_read(nn_matmul(dy, v), z));
    CHECK(!memcmp(y, z, (size_t)(9 * in) * sizeof *y));
    CHECK(nn_ok(nn));
    nn_clear(nn);
}
TEST(small_weights_give_the_bits_of_expanded_ones)
{
    for (int i = 0; test_isa(i); i++) {
        nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = 2, .seed = 5 });
        small_weights(nn, NN_BF16, 70, 37, 0);
        small_weights(nn, NN_F16, 300, 64, 0);
        small_weights(nn, NN_F16, 3, 5, 0);
        small_weights(nn, NN_I8, 70, 37, 0);
        small_weights(nn, NN_I8, 128, 96, 16);
        small_weights(nn, NN_I8, 33, 60, 12);
        small_weights(nn, NN_I8, 66, 200, 100);          /* a vector of terms with two scales */
        small_weights(nn, NN_I4, 70, 37, 0);             /* a short group, a word that is not full */
        small_weights(nn, NN_I4, 128, 96, 16);
        small_weights(nn, NN_I4, 150, 300, 8);
        small_weights(nn, NN_I4, 3, 5, 64);
        nn_free(nn);
    }
}
TEST(small_weights_that_do_not_fit_are_errors)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 5, .on_error = test_quiet });
    nn_begin(nn, NN_EVAL);
    nn_tensor *scale, *full = nn_randn(nn, NN_SHAPE(6, 8), 0, 1), *x = nn_randn(nn, NN_SHAPE(2, 8), 0, 1), *w = nn_quantize_new(full, NN_I8, &scale, NULL);
    nn_linear(x, w, NULL, NULL);                         /* without its scale */
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    nn_linear(x, full, NULL, &(nn_linear_desc){ .scale = scale });
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    nn_quantize_new(full, NN_I8, &scale, &(nn_quantize_desc){ .group = 3 });
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    nn_quantize_new(full, NN_I32, &scale, NULL);
    CHECK(!nn_ok(nn));
    nn_free(nn);
}

/* Weights of 4 bits: words and scales as nn_quantize_new says, and what a product makes of them, by an oracle in double. */
static double error_of(const float *w, int64_t n, double s)          /* nearest of -8 .. 7 */
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double q = s != 0 ? fmin(7, fmax(-8, floor(w[i] / s + 0.5))) : 0, e = w[i] - q * s;
        sum += e * e;
    }
    return sum;
}
static void four_bits(nn_context *nn, int64_t out, int64_t in, int64_t group, int special)
{
    static float w[40 * 200], d[40 * 200], s[40 * 25], x[3 * 200], y[3 * 40];
    static int32_t words[40 * 25];
    int64_t size = group ? group : 32, groups = (in + size - 1) / size, row = (in + 7) / 8;
    double mine = 0, ggml = 0, seven = 0;
    nn_begin(nn, NN_EVAL);
    nn_tensor *full = nn_randn(nn, NN_SHAPE(out, in), 0, 1), *scale, *q;
    CHECK(nn_read(full, w) && nn_read(nn_randn(nn, NN_SHAPE(3, in), 0, 1), x));
    if (special) {                                       /* groups of zeros, of hardly more, with NaN, with inf; one of equal numbers */
        for (int64_t i = 0; i < 8; i++) { w[i] = 0; w[in + i] = 1e-39f; w[4 * in + i] = -3; }
        w[2 * in + 1] = NAN; w[3 * in + 2] = -INFINITY;
    }
    q = nn_quantize_new(nn_from(nn, NN_SHAPE(out, in), w), NN_I4, &scale, group ? &(nn_quantize_desc){ .group = group } : NULL);
    CHECK(q->dtype == NN_I32 && nn_dim(q, 0) == out && nn_dim(q, 1) == row && nn_dim(scale, 0) == out && nn_dim(scale, 1) == groups);
    CHECK(nn_read_as(q, NN_I32, words) && nn_read(scale, s) && nn_read(nn_dequantize(q, scale), d));
    for (int64_t o = 0; o < out; o++) for (int64_t g = 0; g < groups; g++) {
        const float *v = w + o * in + g * size;
        int64_t n = g + 1 < groups ? size : in - g * size;
        double by = s[o * groups + g], most = 0, sum = 0;
        int bad = 0;
        for (int64_t i = 0; i < n; i++) { bad |= !isfinite(v[i]); if (fabs(v[i]) > fabs(most)) most = v[i]; }
        for (int64_t i = 0; i < n; i++) {
            int64_t at = g * size + i;
            int code = (int)((uint32_t)words[o * row + at / 8] >> 4 * (at % 8) & 15);
            if (code > 7) code -= 16;
            if (bad) { CHECK(isnan(d[o * in + at])); continue; }
            CHECK(d[o * in + at] == (float)(code * by));                       /* a product of 4 bits and 24 is rounded once */
            CHECK(fabs(v[i] - code * by) <= fabs(by) * (code == 7 || code == -8 ? 1.7501 : 0.5001) + (by == 0 ? 1e-38 : 0));
            sum += (v[i] - code * by) * (v[i] - code * by);
        }
        CHECK(isnan(by) == bad);
        if (bad) continue;
        CHECK((fabs(most) < 1e-37) == (by == 0));
        CHECK(sum <= error_of(v, n, most / -8) * 1.0001 + 1e-30);              /* as good as the fixed rules, in every group */
        CHECK(sum <= error_of(v, n, fabs(most) / 7) * 1.0001 + 1e-30 || most > 0);
        mine += sum; ggml += error_of(v, n, most / -8); seven += error_of(v, n, fabs(most) / 7);
    }
    for (int64_t o = 0; in % 8 && o < out; o++) CHECK((uint32_t)words[o * row + row - 1] >> 4 * (in % 8) == 0);
    if (out * in > 4000 && !special) CHECK(mine < 0.93 * ggml && mine < 0.75 * seven);
    if (special) return;
    for (int rows = 1; rows < 4; rows += 2) {
        CHECK(nn_read(nn_linear(nn_from(nn, NN_SHAPE(rows, in), x), q, NULL, &(nn_linear_desc){ .scale = scale }), y));
        for (int r = 0; r < rows; r++) for (int64_t o = 0; o < out; o++) {
            double want = 0, size_of = 0;
            for (int64_t i = 0; i < in; i++) { double t = (double)x[r * in + i] * d[o * in + i]; want += t; size_of += fabs(t); }
            CHECK(fabs(y[r * out + o] - want) <= 1e-6 * size_of);
        }
    }
}
TEST(weights_of_four_bits)
{
    for (int i = 0; test_isa(i); i++) {
        nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = 2, .seed = 7 });
        four_bits(nn, 40, 200, 0, 0);
        four_bits(nn, 40, 200, 128, 0);
        four_bits(nn, 7, 37, 16, 0);
        four_bits(nn, 1, 1, 8, 0);
        four_bits(nn, 6, 45, 8, 1);
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}
/* Numbers that can be followed by hand. Row 0 is exact with scale 1/2 (-4 is -8 halves); row 1 with 1/4, its last group with 1. */
TEST(words_by_hand)
{
    static const float w[2][10] = { { -4, -3.5f, 0, 0.5f, 1, 3.5f, 2, -0.5f, 0, 0 }, { 0.25f, -2, 1.75f, 0, -0.25f, 0.5f, -1, 1, -8, 7 } };
    static const uint32_t word[2][2] = { { 0xF4721098u, 0 }, { 0x4C2F0781u, 0x78u } };         /* number 0 in the lowest bits */
    static const float by[2][2] = { { 0.5f, 0 }, { 0.25f, 1 } };
    int32_t words[4];
    float s[4], d[20], y[2];
    nn_context *nn = nn_new(NULL);
    nn_begin(nn, NN_EVAL);
    nn_tensor *scale, *q = nn_quantize_new(nn_from(nn, NN_SHAPE(2, 10), w[0]), NN_I4, &scale, &(nn_quantize_desc){ .group = 8 });
    CHECK(nn_read_as(q, NN_I32, words) && nn_read(scale, s) && !memcmp(words, word, sizeof words) && !memcmp(s, by, sizeof s));
    CHECK(nn_read(nn_dequantize(q, scale), d));
    for (int i = 0; i < 20; i++) CHECK(d[i] == w[i / 10][i % 10]);
    CHECK(nn_read(nn_linear(nn_from(nn, NN_SHAPE(1, 10), (float[10]){ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }), q, NULL, &(nn_linear_desc){ .scale = scale }), y));
    CHECK(y[0] == 27 && y[1] == 2.25f);      /* -4 - 7 + 2 + 5 + 21 + 14 - 4; 0.25 - 4 + 5.25 - 1.25 + 3 - 7 + 8 - 72 + 70 */
    CHECK(nn_ok(nn));
    nn_free(nn);
}
TEST(weights_of_four_bits_that_do_not_fit_are_errors)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 5, .on_error = test_quiet });
    nn_begin(nn, NN_EVAL);
    nn_tensor *scale, *other, *none, *full = nn_randn(nn, NN_SHAPE(6, 45), 0, 1), *w = nn_quantize_new(full, NN_I4, &scale, NULL);
    nn_quantize_new(nn_randn(nn, NN_SHAPE(6, 200), 0, 1), NN_I4, &other, NULL);
    for (int k = 0; k < 12; k++) {
        CHECK(nn_ok(nn));
        if (k < 3) nn_quantize_new(full, NN_I4, &none, &(nn_quantize_desc){ .group = k == 0 ? 4 : k == 1 ? 48 : -8 });
        if (k == 3) nn_quantize_new(full, NN_I4, NULL, NULL);
        if (k == 4) nn_linear(nn_zeros(nn, NN_SHAPE(2, 45)), w, NULL, NULL);                                  /* without its scale */
        if (k == 5) nn_linear(nn_zeros(nn, NN_SHAPE(2, 46)), w, NULL, &(nn_linear_desc){ .scale = scale });   /* the same number of words */
        if (k == 6) nn_linear(nn_zeros(nn, NN_SHAPE(2, 45)), w, NULL, &(nn_linear_desc){ .scale = other });
        if (k == 7) nn_dequantize(w, NULL);
        if (k == 8) nn_dequantize(full, scale);
        if (k == 9) nn_cast(full, NN_I4);
        if (k == 10) nn_from_as(nn, NN_I4, NN_SHAPE(2, 2), (int32_t[4]){ 0 });
        if (k == 11) {
            nn_begin(nn, NN_TRAIN);
            nn_want_grad(scale);
            nn_linear(nn_zeros(nn, NN_SHAPE(2, 45)), w, NULL, &(nn_linear_desc){ .scale = scale });
            CHECK_TEXT(nn_error(nn), "no gradient");
        }
        CHECK(!nn_ok(nn));
        nn_clear(nn);
    }
    nn_free(nn);
}

/* An activation inside nn_linear gives the bits of the function called on its result, narrow or wide; with a gradient, too. */
TEST(an_activation_is_part_of_the_product)
{
    static const nn_fn functions[] = { nn_relu, nn_gelu, nn_silu, nn_tanh, nn_sigmoid, nn_exp };
    static float y[300 * 80], z[300 * 80];
    nn_context *nn = nn_new(&(nn_desc){ .threads = 2, .seed = 3 });
    for (int mode = 0; mode < 2; mode++)
        for (int q = 0; q < 5; q++) {
            static const int64_t m[] = { 1, 300, 64, 40, 7 }, n[] = { 70, 80, 10, 1, 5 }, k[] = { 30, 90, 20, 33, 600 };
            nn_begin(nn, mode ? NN_TRAIN : NN_EVAL);
            nn_tensor *x = nn_randn(nn, NN_SHAPE(m[q], k[q]), 0, 1), *w = nn_randn(nn, NN_SHAPE(n[q], k[q]), 0, 0.1f), *b = nn_randn(nn, NN_SHAPE(n[q]), 0, 1);
            if (mode) nn_want_grad(w);
            for (int f = 0; f < 6; f++) {
                CHECK(nn_read(nn_linear(x, w, b, &(nn_linear_desc){ .activation = functions[f] }), y));
                CHECK(nn_read(functions[f](nn_linear(x, w, b, NULL)), z));
                CHECK(!memcmp(y, z, (size_t)(m[q] * n[q]) * sizeof *y));
            }
        }
    CHECK(nn_ok(nn));
    nn_free(nn);
}
