/* test_attention.c - attention against a naive oracle; the same bits for threads, tables, batches, and for decoding with a cache; memory; NaN;
   the layers made of it */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

typedef nn_attention_desc AD;

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
    for (int i = 0; test_isa(i); i++) for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) for (int how = 0; how < 4; how++) {
        int tq = sizes[s][0], tk = sizes[s][1], d = sizes[s][2], e = sizes[s][3], causal = how & 1;
        nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = 2 });
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
    nn_tensor *q = numbers(nn, NN_SHAPE(2, 6, 75, 20)), *k = numbers(nn, NN_SHAPE(2, 3, 150, 20)), *v = numbers(nn, NN_SHAPE(2, 3, 150, 33)), *x = numbers(nn, NN_SHAPE(9, 70, 96)), *bias = NULL, *y;
    uint64_t h = 1;
    nn_begin(nn, NN_TRAIN);
    nn_want_grad(q); nn_want_grad(k); nn_want_grad(v); nn_want_grad(x);
    if (which == 0)      y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .causal = 1 });
    else if (which == 1) y = nn_attention(x, NULL, NULL, &(AD){ .heads = 2, .causal = 1, .dropout = 0.1f });
    else if (which == 2) y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .dropout = 0.3f, .alibi = nn_ones(nn, NN_SHAPE(6)) });
    else                 y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .causal = 1, .mask = bias = nn_want_grad(numbers(nn, NN_SHAPE(6, 75, 150))) });
    h = hash(h, y);
    nn_backward(nn_sum(nn_mul(y, y), NN_ALL, NULL));
    if (which == 1) h = hash(h, nn_grad(x));
    else { h = hash(h, nn_grad(q)); h = hash(h, nn_grad(k)); h = hash(h, nn_grad(v)); }
    if (bias) h = hash(h, nn_grad(bias));
    return nn_ok(nn) ? h : 0;
}
TEST(same_bits)
{
    static const int threads[] = { 1, 2, 3, 8 };
    for (int which = 0; which < 4; which++) {
        uint64_t first[2] = { 0, 0 };
        for (int i = 0; test_isa(i); i++) for (int t = 0; t < 4; t++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = threads[t] });
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
    for (int i = 0; test_isa(i); i++) for (int kv = 1; kv <= 4; kv *= 2) {
        nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i) });
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
    nn_tensor *numbers_of_q = numbers(nn, NN_SHAPE(1, 1, 3, 4)), *k = numbers(nn, NN_SHAPE(1, 1, 2, 4)), *v = numbers(nn, NN_SHAPE(1, 1, 2, 4)), *q, *y;
    unsigned char seen[] = { 1, 1, 0, 0, 0, 1 };
    float minus[] = { 0, 0, -(float)INFINITY, -(float)INFINITY, -(float)INFINITY, 0 };
    for (int how = 0; how < 2; how++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *mask = how ? nn_from(nn, NN_SHAPE(3, 2), minus) : nn_from_as(nn, NN_BOOL, NN_SHAPE(3, 2), seen);
        q = nn_want_grad(nn_detach(numbers_of_q));
        y = nn_scaled_dot_product_attention(q, k, v, &(AD){ .mask = mask });
        nn_backward(nn_sum(nn_mul(y, y), NN_ALL, NULL));
        for (int i = 0; i < 4; i++) CHECK(nn_data(y)[4 + i] == 0 && nn_data(nn_grad(q))[4 + i] == 0 && nn_data(y)[i] != 0);
    }
    int64_t none[] = { 0 };
    y = nn_scaled_dot_product_attention(numbers_of_q, k, v, &(AD){ .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(1), none) });
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
    void *memory = malloc(bytes[1] + 64);
    nn_context *nn = nn_new(&(nn_desc){ .memory = memory, .bytes = bytes[1] + 64, .threads = 2 });
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(1, 4096, 3 * 64), NULL));
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_attention(x, NULL, NULL, &(AD){ .causal = 1 }), NN_ALL, NULL));
    CHECK(nn_ok(nn) && nn_grad(x));
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
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .alibi = nn_want_grad(nn_zeros(nn, NN_SHAPE(4))) });
    CHECK(fails_with(nn, "no gradient"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .lengths = nn_zeros(nn, NN_SHAPE(2)) });
    CHECK(fails_with(nn, "lengths must be"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .dropout = 1.5f });
    CHECK(fails_with(nn, "not in 0..1"));
    nn_attention(x, NULL, NULL, &(AD){ .heads = 5 });
    CHECK(fails_with(nn, "do not divide"));
    nn_attention(x, x, NULL, &(AD){ .heads = 5 });
    CHECK(fails_with(nn, "NULL"));
    nn_attention(q, NULL, NULL, &(AD){ .heads = 4 });
    CHECK(fails_with(nn, "(2, 4, 5, 8)"));
    nn_attention(x, nn_zeros(nn, NN_SHAPE(2, 6, 24)), nn_zeros(nn, NN_SHAPE(2, 7, 24)), &(AD){ .heads = 4 });
    CHECK(fails_with(nn, "k and v must have the same times"));
    nn_attention(x, nn_zeros(nn, NN_SHAPE(2, 6, 20)), nn_zeros(nn, NN_SHAPE(2, 6, 20)), &(AD){ .heads = 4 });
    CHECK(fails_with(nn, "k the last size kv_heads * D"));
    nn_scaled_dot_product_attention(q, q, q, &(AD){ .alibi = nn_zeros(nn, NN_SHAPE(3)) });
    CHECK(fails_with(nn, "alibi slopes must be (4), not (3)"));
    nn_rope(q, nn_zeros(nn, NN_SHAPE(9, 10)), NULL);
    CHECK(fails_with(nn, "rope: x (2, 4, 5, 8) does not fit the table (9, 10)"));
    nn_rope(q, nn_zeros(nn, NN_SHAPE(9, 7)), NULL);
    CHECK(fails_with(nn, "does not fit the table (9, 7)"));
    nn_free(nn);
}

/* ---- layers ---- */
static void randomize(nn_layer *net)
{
    nn_tensor *list[64];
    int n = nn_params(net, list, 64);
    for (int i = 0; i < n; i++) if (list[i]->ndim == 1) nn_init_uniform(list[i], -0.5f, 0.5f);
}
/* Self attention of every kind, fed whole, in pieces, and one by one with a cache: the same bits. */
TEST(a_cache_gives_the_bits_of_one_pass)
{
    enum { B = 2, T = 70, E = 24, H = 4 };
    for (int kind = 0; kind < 5; kind++) {
        nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
        nn_layer *net = nn_model_new(nn, NULL), *l;
        nn_multihead_attention_desc d = { .causal = 1, .kv_heads = kind == 1 ? 2 : kind == 2 ? 1 : 0, .rope_interleaved = kind == 3 };
        if (kind >= 2) d.rope = nn_rope_new(nn, T, E / H, 0);
        if (kind == 4) { d.rope = NULL; d.alibi = nn_alibi_slopes_new(nn, H); }
        l = nn_multihead_attention_new(net, "attn", E, H, &d);
        randomize(net);
        state = 1;
        nn_tensor *x = numbers(nn, NN_SHAPE(B, T, E));
        nn_kv_cache *cache = nn_kv_cache_new(nn, B, kind == 1 ? 2 : kind == 2 ? 1 : H, T, E / H, 0);
        static float a[B * T * E], b[B * T * E];
        for (int piece = 1; piece <= 33; piece += 16) {
            int differ = 0;
            nn_kv_cache_truncate(cache, 0);
            for (int t = 0; t + piece <= T; t += piece) {
                nn_begin(nn, NN_EVAL);
                CHECK(nn_read(nn_slice(nn_forward(l, x), 1, t, t + piece, 1), a));
                CHECK(nn_read(nn_multihead_attention_forward(l, nn_contiguous(nn_slice(x, 1, t, t + piece, 1)), NULL, NULL, &(AD){ .cache = cache }), b));
                differ += memcmp(a, b, (size_t)(B * piece * E) * sizeof *a) != 0;
            }
            if (differ) printf("kind %d, pieces of %d: %d differ\n", kind, piece, differ);
            CHECK(differ == 0);
        }
        CHECK(nn_kv_cache_capacity(cache) == T && nn_kv_cache_length(cache) == T / 33 * 33);
        nn_begin(nn, NN_EVAL);
        nn_multihead_attention_forward(l, nn_contiguous(nn_slice(x, 1, 0, 5, 1)), NULL, NULL, &(AD){ .cache = cache });
        CHECK(fails_with(nn, kind == 2 || kind == 3 ? "rope: 5 positions" : "the cache is full: 5 more positions behind 66 of 70"));
        CHECK(nn_kv_cache_length(cache) == 66);
        nn_begin(nn, NN_TRAIN);
        nn_multihead_attention_forward(l, nn_contiguous(nn_slice(x, 1, 0, 2, 1)), NULL, NULL, &(AD){ .cache = cache });
        CHECK(fails_with(nn, "no gradient goes through a cache"));
        nn_begin(nn, NN_EVAL);
        nn_multihead_attention_forward(l, nn_contiguous(nn_slice(x, 1, 0, 2, 1)), x, x, &(AD){ .cache = cache });
        CHECK(fails_with(nn, "truncate it to 0"));
        nn_kv_cache_truncate(cache, 99);
        CHECK(fails_with(nn, "nn_kv_cache_truncate"));
        cache = nn_kv_cache_new(nn, B, H, T, E / H + 1, 0);          /* of other heads */
        nn_multihead_attention_forward(l, nn_contiguous(nn_slice(x, 1, 0, 2, 1)), NULL, NULL, &(AD){ .cache = cache });
        CHECK(fails_with(nn, "does not fit the cache") && nn_kv_cache_length(cache) == 0);
        nn_rope_new(nn, T, 3, 0);
        CHECK(fails_with(nn, "nn_rope_new: 70 positions, size 3: the size must be even"));
        nn_free(nn);
    }
}

static int has(nn_layer *net, const char *name) { int found = nn_param(net, name) != NULL; if (!found) printf("no %s\n", name); return found; }
TEST(names_are_those_of_pytorch)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL), *e, *d;
    e = nn_transformer_encoder_layer_new(net, "enc", 8, 2, &(nn_transformer_desc){ .hidden = 12 });
    d = nn_transformer_decoder_layer_new(net, "dec", 8, 2, &(nn_transformer_desc){ .hidden = 12, .gated = 1 });
    nn_multihead_attention_new(net, "mha", 8, 2, &(nn_multihead_attention_desc){ .kdim = 5 });
    CHECK(has(net, "enc.self_attn.in_proj_weight") && has(net, "enc.self_attn.in_proj_bias") && has(net, "enc.self_attn.out_proj.weight") && has(net, "enc.self_attn.out_proj.bias"));
    CHECK(has(net, "enc.linear1.weight") && has(net, "enc.linear2.bias") && has(net, "enc.norm1.weight") && has(net, "enc.norm2.bias") && !nn_param(net, "enc.norm3.bias"));
    CHECK(has(net, "dec.multihead_attn.in_proj_weight") && has(net, "dec.norm3.weight") && has(net, "dec.linear3.weight"));
    CHECK(has(net, "mha.q_proj_weight") && has(net, "mha.k_proj_weight") && has(net, "mha.v_proj_weight") && !nn_param(net, "mha.in_proj_weight"));
    CHECK(nn_dim(nn_param(net, "mha.k_proj_weight"), 1) == 5);
    CHECK(nn_param_count(e) == 4 * 64 + 32 + 8 * 12 * 2 + 20 + 32);
    nn_begin(nn, NN_EVAL);
    nn_forward(d, nn_zeros(nn, NN_SHAPE(1, 2, 8)));
    CHECK(fails_with(nn, "needs a memory"));
    nn_transformer_encoder_layer_forward(d, nn_zeros(nn, NN_SHAPE(1, 2, 8)), NULL);
    CHECK(fails_with(nn, "the layer is a TransformerDecoderLayer"));
    nn_forward(e, nn_zeros(nn, NN_SHAPE(1, 2, 7)));
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    nn_multihead_attention_new(net, "bad", 8, 3, NULL);
    CHECK(fails_with(nn, "do not divide"));
    CHECK(!nn_child(net, "bad"));
    nn_free(nn);
}

/* The embedding's weight is the last layer's too: one parameter, one gradient, one tensor in a file. */
typedef struct Tied { nn_layer *net, *emb, *out; } Tied;
static nn_tensor *tied_forward(void *self, nn_tensor *x) { Tied *t = self; return nn_forward(t->out, nn_forward(t->emb, x)); }
TEST(a_tied_embedding_is_one_parameter)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    Tied t;
    t.net = nn_model_new(nn, NULL);
    CHECK(nn_params(nn_tied_linear_new(t.net, nn_layernorm_new(t.net, NULL, NN_SHAPE(3), NULL)), NULL, 0) == 0);
    CHECK_ERROR(nn, "nn_tied_linear_new: the other layer has no weight of two dimensions");
    t.net = nn_model_new(nn, &(nn_model_desc){ .forward = tied_forward, .self = &t });
    t.emb = nn_embedding_new(t.net, "wte", 5, 3);
    t.out = nn_tied_linear_new(t.net, t.emb);
    nn_tensor *list[4], *w = nn_param(t.net, "wte.weight");
    CHECK(nn_params(t.net, list, 4) == 1);
    size_t bytes = 0;
    CHECK(nn_save_memory(t.net, NULL, 0, &bytes, NULL) && bytes < 15 * 4 + 200);
    nn_begin(nn, NN_TRAIN);
    int64_t index[] = { 1, 4, 1 };
    nn_tensor *y = nn_forward(t.net, nn_from_as(nn, NN_I64, NN_SHAPE(3), index));
    nn_backward(nn_sum(y, NN_ALL, NULL));
    for (int i = 0; i < 5; i++) for (int c = 0; c < 3; c++) {     /* d sum / dw: the rows picked, and once more the sum of all rows for each pick */
        float want = 0, total = 0;
        for (int r = 0; r < 5; r++) total += nn_data(w)[r * 3 + c];
        for (int k = 0; k < 3; k++) want += nn_data(w)[index[k] * 3 + c] + (index[k] == i ? total : 0);
        CHECK_NEAR(nn_data(nn_grad(w))[i * 3 + c], want, 1e-5);
    }
    nn_free(nn);
}

/* ---- nn_checkpoint ---- */
typedef struct Deep { nn_layer *net, *block[8]; int checkpoint; } Deep;
static nn_tensor *deep_forward(void *self, nn_tensor *x)
{
    Deep *d = self;
    for (int i = 0; i < 8; i++) x = nn_forward(d->block[i], x);
    return x;
}
static void deep(Deep *d, nn_context *nn, int checkpoint)
{
    d->net = nn_model_new(nn, &(nn_model_desc){ .forward = deep_forward, .self = d });
    for (int i = 0; i < 8; i++) {
        d->block[i] = nn_transformer_encoder_layer_new(d->net, NULL, 16, 2, &(nn_transformer_desc){ .hidden = 64, .dropout = 0.1f, .norm_first = i & 1, .activation = nn_gelu, .causal = 1 });
        nn_checkpoint_layer(d->block[i], checkpoint);
    }
}
static uint64_t train_deep(int checkpoint, int how, size_t *bytes)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 4, .threads = 1 });
    Deep d;
    uint64_t h = 1;
    nn_tensor *list[128];
    deep(&d, nn, checkpoint);
    nn_optimizer *opt = nn_adamw_new(d.net, &(nn_adamw_desc){ .lr = 0.01f, .clip_norm = how == 2 ? 1.0f : 0.0f });
    state = 8;
    nn_tensor *x = numbers(nn, NN_SHAPE(4, 64, 16));
    for (int i = 0; i < 3; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *leaf = how == 1 ? nn_want_grad(nn_detach(x)) : x;
        nn_tensor *y = nn_forward(d.net, leaf), *loss = nn_mean(nn_mul(y, nn_slice(y, 2, 0, 16, 1)), NN_ALL, NULL);
        nn_backward_with(loss, &(nn_backward_desc){ .step = opt });
        h = hash(h, loss);
        if (how == 1) h = hash(h, nn_grad(leaf));
    }
    int n = nn_params(d.net, list, 128);
    for (int i = 0; i < n; i++) h = hash(h, list[i]);
    *bytes = nn_bytes_needed(nn);
    CHECK(nn_ok(nn));
    nn_free(nn);
    return h;
}
TEST(checkpoints_change_memory_and_not_a_bit)
{
    for (int how = 0; how < 3; how++) {
        size_t all, less;
        uint64_t a = train_deep(0, how, &all), b = train_deep(1, how, &less);
        printf("8 blocks: %.2f MB, with checkpoints %.2f MB\n", (double)all / 1e6, (double)less / 1e6);
        CHECK(a == b);
        CHECK((double)less < 0.6 * (double)all);
    }
}

/* Attention to another sequence keeps its keys and values: the same bits, whether the memory is read in every step or in the first only. */
TEST(a_cache_of_another_sequence)
{
    enum { B = 2, T = 9, M = 70, E = 24, H = 4 };
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL), *l = nn_transformer_decoder_layer_new(net, "dec", E, H, &(nn_transformer_desc){ .hidden = 32, .causal = 1 });
    nn_kv_cache *self = nn_kv_cache_new(nn, B, H, T, E / H, 0), *cross = nn_kv_cache_new(nn, B, H, M, E / H, 0);
    static float a[B * T * E], b[B * T * E];
    static int64_t lengths[B] = { M, 33 };
    randomize(net);
    nn_tensor *x = numbers(nn, NN_SHAPE(B, T, E)), *memory = numbers(nn, NN_SHAPE(B, M, E)), *other;
    for (int round = 0; round < 2; round++) {
        nn_kv_cache_truncate(self, 0);
        nn_kv_cache_truncate(cross, 0);
        for (int t = 0; t < T; t++) {
            nn_begin(nn, NN_EVAL);
            nn_tensor *n = nn_from_as(nn, NN_I64, NN_SHAPE(B), lengths), *m = round ? nn_mul_scalar(memory, 2) : memory;
            CHECK(nn_read(nn_slice(nn_transformer_decoder_layer_forward(l, x, m, NULL, &(AD){ .lengths = n }), 1, t, t + 1, 1), a));
            if (t) m = nn_full(nn, NN_SHAPE(B, M, E), NAN);          /* not read any more */
            CHECK(nn_read(nn_transformer_decoder_layer_forward(l, nn_slice(x, 1, t, t + 1, 1), m, &(AD){ .cache = self }, &(AD){ .cache = cross, .lengths = n }), b));
            CHECK(!memcmp(a, b, (size_t)(B * E) * sizeof *a));
        }
        CHECK(nn_kv_cache_length(cross) == M && nn_ok(nn));
    }
    nn_begin(nn, NN_EVAL);
    other = numbers(nn, NN_SHAPE(B, M - 1, E));
    nn_transformer_decoder_layer_forward(l, nn_slice(x, 1, 0, 1, 1), other, NULL, &(AD){ .cache = cross });
    CHECK(fails_with(nn, "truncate it to 0"));
    nn_begin(nn, NN_TRAIN);
    nn_transformer_decoder_layer_forward(l, nn_slice(x, 1, 0, 1, 1), nn_want_grad(memory), NULL, &(AD){ .cache = cross });
    CHECK(fails_with(nn, "no gradient goes through a cache"));
    nn_free(nn);
}
