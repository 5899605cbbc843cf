/* test_attention.c - attention against a naive oracle; the same bits for threads, tables, batches, and for decoding with a cache; memory; NaN;
   the layers made of it */
#define NN_IMPLEMENTATION
#define NN_DOUBLE
#include "../nn.h"
#include "test.h"

typedef nn_attention_desc AD;

static const nn__table *usable(size_t i)
{
    const nn__table *t = &nn__tables[i].table;
    return t->dtype == NN_F32 && (nn__cpu_features() & nn__tables[i].needs) == nn__tables[i].needs ? t : NULL;
}
enum { TABLES = (int)(sizeof nn__tables / sizeof *nn__tables) };

static uint32_t state;
static float number(void) { state = state * 1664525u + 1013904223u; return (float)(state >> 8) / 8388608.0f - 1; }
static nn_tensor *numbers(nn_context *nn, nn_shape s)
{
    nn_tensor *t = nn_tensor_new(nn, s, NULL);
    int64_t n = nn_count(t);
    for (int64_t i = 0; i < n; i++) nn_data(t)[i] = number();
    return t;
}

/* One head in double, by the definition. k, v: tk keys of `rs` numbers apart. mask: (tq, tk), added, or NULL. */
static void naive(int tq, int tk, int d, int e, const float *q, const float *k, const float *v, const float *mask, int causal, double *y)
{
    double *p = malloc((size_t)(tk + 1) * sizeof *p);
    for (int i = 0; i < tq; i++) {
        double top = -INFINITY, sum = 0;
        for (int j = 0; j < tk; j++) {
            p[j] = 0;
            for (int c = 0; c < d; c++) p[j] += (double)q[i * d + c] * (double)k[j * d + c];
            p[j] = p[j] / sqrt(d) + (mask ? (double)mask[i * tk + j] : 0);
            if (causal && j > i + tk - tq) p[j] = -INFINITY;
            if (p[j] > top) top = p[j];
        }
        for (int j = 0; j < tk; j++) sum += p[j] = p[j] > -INFINITY ? exp(p[j] - top) : 0;
        for (int c = 0; c < e; c++) {
            y[i * e + c] = 0;
            for (int j = 0; j < tk && sum > 0; j++) y[i * e + c] += p[j] / sum * (double)v[j * e + c];
        }
    }
    free(p);
}
TEST(against_the_definition)
{
    static const int sizes[][4] = { { 1, 1, 1, 1 }, { 1, 70, 5, 3 }, { 33, 65, 16, 16 }, { 64, 64, 32, 32 }, { 130, 130, 8, 24 }, { 100, 300, 64, 64 }, { 31, 7, 2, 2 } };
    for (int i = 0; i < TABLES; i++) for (size_t s = 0; usable((size_t)i) && s < sizeof sizes / sizeof *sizes; s++) for (int how = 0; how < 4; how++) {
        int tq = sizes[s][0], tk = sizes[s][1], d = sizes[s][2], e = sizes[s][3], causal = how & 1;
        nn_context *nn = nn_new(&(nn_desc){ .isa = usable((size_t)i)->isa, .threads = 2 });
        state = 5;
        nn_tensor *q = numbers(nn, NN_SHAPE(2, 3, tq, d)), *k = numbers(nn, NN_SHAPE(2, 3, tk, d)), *v = numbers(nn, NN_SHAPE(2, 3, tk, e)), *m = numbers(nn, NN_SHAPE(tq, tk)), *y;
        for (int64_t j = 0; j < nn_count(q); j++) nn_data(q)[j] *= 4;
        for (int64_t j = 0; j < nn_count(m); j += 3) nn_data(m)[j] = -(float)INFINITY;
        nn_begin(nn, NN_EVAL);
        y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .causal = causal, .mask = how & 2 ? m : NULL });
        double *want = malloc((size_t)(tq * e) * sizeof *want), worst = 0;
        for (int h = 0; h < 6; h++) {
            naive(tq, tk, d, e, nn_data(q) + h * tq * d, nn_data(k) + h * tk * d, nn_data(v) + h * tk * e, how & 2 ? nn_data(m) : NULL, causal, want);
            for (int j = 0; j < tq * e; j++) worst = fmax(worst, fabs(want[j] - (double)nn_data(y)[h * tq * e + j]));
        }
        free(want);
        if (!(worst < 3e-6)) printf("%s %dx%dx%dx%d how %d: %g\n", nn_isa(nn), tq, tk, d, e, how, worst);
        CHECK(worst < 3e-6);
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

/* Forward and backward bits of one case, for every table and 1, 2, 3, 8 threads. */
static uint64_t hash(uint64_t h, const nn_tensor *t)
{
    int64_t n = nn_count(t);
    float *v = malloc((size_t)(n + 1) * sizeof *v);
    if (!nn_read(t, v)) v[0] = NAN;
    for (int64_t i = 0; i < n; i++) { uint32_t b; memcpy(&b, v + i, 4); h = (h ^ b) * 0x100000001B3u; }
    free(v);
    return h;
}
static uint64_t bits_of(nn_context *nn, int which)
{
    state = 9;
    nn_tensor *q = numbers(nn, NN_SHAPE(2, 6, 75, 20)), *k = numbers(nn, NN_SHAPE(2, 3, 150, 20)), *v = numbers(nn, NN_SHAPE(2, 3, 150, 33)), *x = numbers(nn, NN_SHAPE(9, 70, 96)), *y;
    uint64_t h = 1;
    nn_begin(nn, NN_TRAIN);
    nn_want_grad(q); nn_want_grad(k); nn_want_grad(v); nn_want_grad(x);
    if (which == 0)      y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .causal = 1 });
    else if (which == 1) y = nn_attention(x, NULL, NULL, &(AD){ .heads = 2, .causal = 1, .dropout = 0.1f });
    else                 y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .dropout = 0.3f, .alibi = nn_ones(nn, NN_SHAPE(6)) });
    h = hash(h, y);
    nn_backward(nn_sum(nn_mul(y, y), NN_ALL, NULL));
    if (which == 1) h = hash(h, nn_grad(x));
    else { h = hash(h, nn_grad(q)); h = hash(h, nn_grad(k)); h = hash(h, nn_grad(v)); }
    return nn_ok(nn) ? h : 0;
}
TEST(same_bits)
{
    static const int threads[] = { 1, 2, 3, 8 };
    for (int which = 0; which < 3; which++) {
        uint64_t first[2] = { 0, 0 };
        for (int i = 0; i < TABLES; i++) for (int t = 0; usable((size_t)i) && t < 4; t++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = usable((size_t)i)->isa, .threads = threads[t] });
            int class_f = 0;
#ifndef NN_DETERMINISTIC
            class_f = strcmp(nn_isa(nn), "scalar") != 0;
#endif
            uint64_t h = bits_of(nn, which);
            CHECK(h != 0);
            if (!first[class_f]) first[class_f] = h;
            if (h != first[class_f]) printf("case %d: %s with %d threads differs\n", which, nn_isa(nn), threads[t]);
            CHECK(h == first[class_f]);
            nn_free(nn);
        }
    }
}

/* A query's result has the same bits whatever is computed with it. */
TEST(decoding_has_the_bits_of_one_pass)
{
    enum { T = 150, D = 24 };
    for (int i = 0; i < TABLES; i++) if (usable((size_t)i)) for (int kv = 1; kv <= 4; kv *= 2) {
        nn_context *nn = nn_new(&(nn_desc){ .isa = usable((size_t)i)->isa });
        state = 3;
        nn_tensor *q = numbers(nn, NN_SHAPE(2, 4, T, D)), *k = numbers(nn, NN_SHAPE(2, kv, T, D)), *v = numbers(nn, NN_SHAPE(2, kv, T, D)), *all, *one;
        static float a[2 * 4 * T * D], b[2 * 4 * T * D];
        int differ = 0;
        for (int j = 0; j < 2 * 4 * T * D; j += 7) nn_data(q)[j] *= 30;            /* the largest score wanders */
        nn_begin(nn, NN_EVAL);
        all = nn_scaled_dot_product_attention(q, k, v, &(AD){ .causal = 1 });
        for (int size = 1; size <= 37; size = size == 1 ? 2 : size + 35) for (int t = 0; t + size <= T; t += size) {
            int64_t end = t + size;
            one = nn_scaled_dot_product_attention(nn_slice(q, 2, t, end, 1), nn_slice(k, 2, 0, end, 1), nn_slice(v, 2, 0, end, 1), &(AD){ .causal = 1 });
            CHECK(nn_read(one, a) && nn_read(nn_slice(all, 2, t, end, 1), b));
            differ += memcmp(a, b, (size_t)(8 * size * D) * sizeof *a) != 0;
        }
        CHECK(differ == 0);
        one = nn_scaled_dot_product_attention(nn_slice(q, 0, 1, 2, 1), nn_slice(k, 0, 1, 2, 1), nn_slice(v, 0, 1, 2, 1), &(AD){ .causal = 1 });     /* alone in its batch */
        CHECK(nn_read(one, a) && nn_read(nn_slice(all, 0, 1, 2, 1), b) && !memcmp(a, b, sizeof a / 2));
        /* padding hidden by lengths, or by a mask, is as if it were not there */
        int64_t lengths[] = { 77, 77 };
        unsigned char seen[T];
        for (int j = 0; j < T; j++) seen[j] = j < 77;
        one = nn_scaled_dot_product_attention(q, nn_slice(k, 2, 0, 77, 1), nn_slice(v, 2, 0, 77, 1), NULL);
        CHECK(nn_read(one, a));
        CHECK(nn_read(nn_scaled_dot_product_attention(q, k, v, &(AD){ .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(2), lengths) }), b) && !memcmp(a, b, sizeof a));
        CHECK(nn_read(nn_scaled_dot_product_attention(q, k, v, &(AD){ .mask = nn_from_as(nn, NN_BOOL, NN_SHAPE(T), seen) }), b) && !memcmp(a, b, sizeof a));
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

TEST(layouts_have_the_same_bits)
{
    nn_context *nn = nn_new(NULL);
    nn_tensor *x = numbers(nn, NN_SHAPE(2, 40, 3 * 32)), *p[3], *h[3], *a, *b, *c;
    nn_begin(nn, NN_EVAL);
    nn_chunk(x, 3, 2, p);
    for (int i = 0; i < 3; i++) h[i] = nn_transpose(nn_reshape(nn_contiguous(p[i]), NN_SHAPE(2, 40, 4, 8)), 1, 2);
    a = nn_attention(x, NULL, NULL, &(AD){ .heads = 4, .causal = 1 });
    b = nn_attention(p[0], p[1], p[2], &(AD){ .heads = 4, .causal = 1 });
    c = nn_reshape(nn_contiguous(nn_transpose(nn_scaled_dot_product_attention(h[0], h[1], h[2], &(AD){ .causal = 1 }), 1, 2)), NN_SHAPE(2, 40, 32));
    CHECK(!memcmp(nn_data(a), nn_data(b), (size_t)nn_count(a) * sizeof(float)));
    CHECK(!memcmp(nn_data(a), nn_data(c), (size_t)nn_count(a) * sizeof(float)));
    nn_free(nn);
}

TEST(rows_that_see_nothing)          /* 0, and so are their gradients */
{
    nn_context *nn = nn_new(NULL);
    nn_tensor *q = nn_want_grad(numbers(nn, NN_SHAPE(1, 1, 3, 4))), *k = numbers(nn, NN_SHAPE(1, 1, 2, 4)), *v = numbers(nn, NN_SHAPE(1, 1, 2, 4)), *y;
    unsigned char seen[] = { 1, 1, 0, 0, 0, 1 };
    float minus[] = { 0, 0, -(float)INFINITY, -(float)INFINITY, -(float)INFINITY, 0 };
    for (int how = 0; how < 2; how++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *mask = how ? nn_from(nn, NN_SHAPE(3, 2), minus) : nn_from_as(nn, NN_BOOL, NN_SHAPE(3, 2), seen);
        y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .mask = mask });
        nn_backward(nn_sum(nn_mul(y, y), NN_ALL, NULL));
        for (int i = 0; i < 4; i++) CHECK(nn_data(y)[4 + i] == 0 && nn_data(nn_grad(q))[4 + i] == 0 && nn_data(y)[i] != 0);
        q->flags &= ~(unsigned)NN__T_GRAD_SET;
    }
    int64_t none[] = { 0 };
    y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(1), none) });
    for (int i = 0; i < 12; i++) CHECK(nn_data(y)[i] == 0);
    nn_free(nn);
}

TEST(not_a_number_stays_in_its_row)
{
    nn_context *nn = nn_new(NULL);
    nn_tensor *q = numbers(nn, NN_SHAPE(1, 1, 40, 4)), *k = numbers(nn, NN_SHAPE(1, 1, 40, 4)), *v = numbers(nn, NN_SHAPE(1, 1, 40, 4)), *y;
    nn_data(q)[4 * 7] = NAN;
    nn_data(q)[4 * 9] = INFINITY;
    nn_begin(nn, NN_EVAL);
    y = nn_scaled_dot_product_attention(q, k, v, NULL);
    for (int i = 0; i < 40; i++) CHECK(isnan(nn_data(y)[4 * i]) == (i == 7 || i == 9));
    nn_data(q)[4 * 7] = nn_data(q)[4 * 9] = 1;
    nn_data(k)[4 * 20] = NAN;        /* a key: all rows that see it */
    y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .causal = 1 });
    for (int i = 0; i < 40; i++) CHECK(isnan(nn_data(y)[4 * i]) == (i >= 20));
    nn_data(k)[4 * 20] = 1000; nn_data(q)[4 * 30] = 1000;     /* large scores do not overflow */
    y = nn_scaled_dot_product_attention(q, k, v, NULL);
    for (int i = 0; i < 40; i++) CHECK(isfinite(nn_data(y)[4 * i]));
    nn_free(nn);
}

/* T = 4096: the matrix would be 64 MB. */
TEST(memory_grows_with_t)
{
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        int64_t t = i ? 4096 : 2048;
        nn_context *nn = nn_new(&(nn_desc){ .measure = 1, .threads = 2 });
        nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(1, t, 3 * 64), NULL);
        nn_want_grad(x);
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_sum(nn_attention(x, NULL, NULL, &(AD){ .causal = 1 }), NN_ALL, NULL));
        bytes[i] = nn_bytes_needed(nn);
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
    printf("T = 2048: %.2f MB, T = 4096: %.2f MB\n", (double)bytes[0] / 1e6, (double)bytes[1] / 1e6);
    CHECK(bytes[1] < 12000000);
    CHECK((double)bytes[1] < 2.05 * (double)bytes[0]);
    nn_context *nn = nn_new(&(nn_desc){ .memory = malloc(bytes[1] + 64), .bytes = bytes[1] + 64, .threads = 2 });
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(1, 4096, 3 * 64), NULL));
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_attention(x, NULL, NULL, &(AD){ .causal = 1 }), NN_ALL, NULL));
    CHECK(nn_ok(nn) && nn_grad(x));
    void *memory = nn->desc.memory;
    nn_free(nn);
    free(memory);
}

static int fails_with(nn_context *nn, const char *part)
{
    int found = !nn_ok(nn) && strstr(nn_error(nn), part) != NULL;
    if (!found) printf("expected \"%s\", got \"%s\"\n", part, nn_error(nn));
    nn_clear(nn);
    return found;
}
TEST(errors_of_attention)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_tensor *q = nn_tensor_new(nn, NN_SHAPE(2, 4, 5, 8), NULL), *k = nn_tensor_new(nn, NN_SHAPE(2, 3, 6, 8), NULL), *x = nn_tensor_new(nn, NN_SHAPE(2, 5, 24), NULL);
    nn_begin(nn, NN_TRAIN);
    nn_scaled_dot_product_attention(q, k, k, NULL);
    CHECK(fails_with(nn, "heads of k must divide"));
    nn_scaled_dot_product_attention(q, x, x, NULL);
    CHECK(fails_with(nn, "each must be (B, heads, T, D)"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .mask = nn_zeros(nn, NN_SHAPE(5, 4)) });
    CHECK(fails_with(nn, "does not broadcast"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .mask = nn_from_as(nn, NN_I32, NN_SHAPE(1), (int32_t[]){ 1 }) });
    CHECK(fails_with(nn, "the mask is i32"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .mask = nn_want_grad(nn_zeros(nn, NN_SHAPE(5))) });
    CHECK(fails_with(nn, "no gradient"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .lengths = nn_zeros(nn, NN_SHAPE(2)) });
    CHECK(fails_with(nn, "lengths must be"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .dropout = 1.5f });
    CHECK(fails_with(nn, "not in 0..1"));
    nn_attention(x, NULL, NULL, &(AD){ .heads = 5 });
    CHECK(fails_with(nn, "do not divide"));
    nn_attention(x, x, NULL, &(AD){ .heads = 5 });
    CHECK(fails_with(nn, "NULL"));
    nn_free(nn);
}
