/* test_shape.c - values of the ops that move numbers, on several types, and their errors */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

static nn_context *begin(nn_mode mode)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 2, .on_error = test_quiet });
    nn_begin(nn, mode);
    return nn;
}
/* Does x, of any type, hold these numbers in this shape? */
static int holds_(const nn_tensor *x, nn_shape shape, const double *want, int n)
{
    double got[256];
    int same = x->ndim == shape.ndim && nn_count(x) == n && n <= 256 && nn_read_as(x, NN_F64, got);
    for (int d = 0; d < shape.ndim; d++) same = same && x->shape[d] == shape.d[d];
    for (int i = 0; same && i < n; i++) same = got[i] == want[i] || (isnan(got[i]) && isnan(want[i]));
    if (!same) nn_print(x);
    return same;
}
#define HOLDS(x, shape, ...) holds_(x, shape, (double[]){ __VA_ARGS__ }, (int)(sizeof (double[]){ __VA_ARGS__ } / sizeof(double)))
#define I64(shape, ...)      nn_from_as(nn, NN_I64, shape, (int64_t[]){ __VA_ARGS__ })
#define F32(shape, ...)      nn_from(nn, shape, (float[]){ __VA_ARGS__ })
#define FAILS(call, text)    do { call; CHECK(!nn_ok(nn)); CHECK_TEXT(nn_error(nn), text); nn_clear(nn); } while (0)
/* 1 2 3 ... of any type */
static nn_tensor *count_up(nn_context *nn, nn_dtype dtype, nn_shape shape)
{
    double v[256];
    for (int i = 0; i < 256; i++) v[i] = i + 1;
    return nn_cast(nn_from_as(nn, NN_F64, shape, v), dtype);
}
static const nn_dtype types[] = { NN_F32, NN_F16, NN_BF16, NN_I8, NN_U8, NN_I32, NN_I64, NN_F64 };

TEST(every_type_moves)
{
    nn_context *nn = begin(NN_EVAL);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        nn_tensor *x = count_up(nn, types[k], NN_SHAPE(2, 3)), *xs[2] = { x, nn_flip(x, NN_DIMS(1)) }, *i;
        CHECK(HOLDS(xs[1], NN_SHAPE(2, 3), 3, 2, 1, 6, 5, 4));
        CHECK(HOLDS(nn_concat(xs, 2, 1), NN_SHAPE(2, 6), 1, 2, 3, 3, 2, 1, 4, 5, 6, 6, 5, 4));
        CHECK(HOLDS(nn_concat(xs, 2, 0), NN_SHAPE(4, 3), 1, 2, 3, 4, 5, 6, 3, 2, 1, 6, 5, 4));
        CHECK(HOLDS(nn_stack(xs, 2, -1), NN_SHAPE(2, 3, 2), 1, 3, 2, 2, 3, 1, 4, 6, 5, 5, 6, 4));
        CHECK(HOLDS(nn_repeat(x, NN_SHAPE(2, 1, 2)), NN_SHAPE(2, 2, 6), 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6));
        CHECK(HOLDS(nn_gather(x, 1, I64(NN_SHAPE(2, 2), 2, 0, 1, 1)), NN_SHAPE(2, 2), 3, 1, 5, 5));
        CHECK(HOLDS(nn_index_select(x, 1, I64(NN_SHAPE(2), 2, 1)), NN_SHAPE(2, 2), 3, 2, 6, 5));
        CHECK(HOLDS(nn_index_select(nn_transpose(x, 0, 1), 0, I64(NN_SHAPE(1), 2)), NN_SHAPE(1, 2), 3, 6));
        CHECK(HOLDS(nn_scatter_add(x, 0, I64(NN_SHAPE(2, 2), 1, 0, 1, 1), xs[1]), NN_SHAPE(2, 3), 1, 4, 3, 13, 10, 6));
        CHECK(HOLDS(nn_tril(x, 0), NN_SHAPE(2, 3), 1, 0, 0, 4, 5, 0));
        CHECK(HOLDS(nn_triu(x, 1), NN_SHAPE(2, 3), 0, 2, 3, 0, 0, 6));
        CHECK(HOLDS(nn_sort(xs[1], 1, &i, NULL), NN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6));
        CHECK(HOLDS(i, NN_SHAPE(2, 3), 2, 1, 0, 2, 1, 0) && i->dtype == NN_I64);
        CHECK(HOLDS(nn_topk(x, 2, -1, &i, NULL), NN_SHAPE(2, 2), 3, 2, 6, 5));
        CHECK(HOLDS(i, NN_SHAPE(2, 2), 2, 1, 2, 1));
        CHECK(HOLDS(nn_pad(x, NN_SHAPE(1, 0, 0, 1), &(nn_pad_desc){ .value = 7 }), NN_SHAPE(3, 4), 7, 1, 2, 3, 7, 4, 5, 6, 7, 7, 7, 7));
        CHECK(HOLDS(nn_select(x, 1, -1), NN_SHAPE(2), 3, 6));
        CHECK(nn_ok(nn) && nn_concat(xs, 2, 0)->dtype == (int)types[k]);
    }
    nn_free(nn);
}

TEST(large_integers_stay_exact)
{
    nn_context *nn = begin(NN_EVAL);
    int64_t a[] = { 9007199254740993, -9007199254740995, 9007199254740992 }, b[3];
    nn_tensor *x = nn_from_as(nn, NN_I64, NN_SHAPE(3), a);
    nn_read_as(nn_sort(x, 0, NULL, NULL), NN_I64, b);
    CHECK(b[0] == a[1] && b[1] == a[2] && b[2] == a[0]);
    nn_read_as(nn_scatter_add(x, 0, I64(NN_SHAPE(1), 0), I64(NN_SHAPE(1), 2)), NN_I64, b);
    CHECK(b[0] == a[0] + 2 && b[1] == a[1]);
    nn_free(nn);
}

TEST(sort_is_stable_and_puts_nan_last)
{
    nn_context *nn = begin(NN_EVAL);
    nn_tensor *i, *x = F32(NN_SHAPE(6), 2, NAN, -INFINITY, 2, NAN, -1);
    CHECK(HOLDS(nn_sort(x, 0, &i, NULL), NN_SHAPE(6), -INFINITY, -1, 2, 2, NAN, NAN));
    CHECK(HOLDS(i, NN_SHAPE(6), 2, 5, 0, 3, 1, 4));
    CHECK(HOLDS(nn_sort(x, 0, &i, &(nn_sort_desc){ .descending = 1 }), NN_SHAPE(6), NAN, NAN, 2, 2, -1, -INFINITY));
    CHECK(HOLDS(i, NN_SHAPE(6), 1, 4, 0, 3, 5, 2));
    CHECK(HOLDS(nn_topk(x, 3, 0, &i, &(nn_topk_desc){ .smallest = 1 }), NN_SHAPE(3), -INFINITY, -1, 2));
    CHECK(HOLDS(nn_sort(F32(NN_SHAPE(3), 0.0f, -0.0f, -1), 0, &i, NULL), NN_SHAPE(3), -1, 0, 0));
    CHECK(HOLDS(i, NN_SHAPE(3), 2, 0, 1));
    nn_free(nn);
}

TEST(sort_long)
{
    enum { N = 5000 };
    static float v[N], s[N], top[100];
    static int64_t at[N];
    nn_context *nn = begin(NN_EVAL);
    nn_tensor *i, *x = nn_floor(nn_rand(nn, NN_SHAPE(N), -300, 300));
    nn_read(x, v);
    nn_read(nn_sort(x, 0, &i, NULL), s);
    nn_read_as(i, NN_I64, at);
    for (int k = 0; k < N; k++) {
        CHECK(s[k] == v[at[k]]);
        if (k) CHECK(s[k - 1] < s[k] || (s[k - 1] == s[k] && at[k - 1] < at[k]));
    }
    for (int n = 1; n <= 100; n += 33) {  /* by insertion and by sorting */
        nn_read(nn_topk(x, n, 0, NULL, NULL), top);
        for (int k = 0; k < n; k++) CHECK(top[k] == s[N - 1 - k]);
    }
    nn_free(nn);
}

TEST(pad_modes)
{
    nn_context *nn = begin(NN_EVAL);
    nn_tensor *x = F32(NN_SHAPE(4), 1, 2, 3, 4), *m = F32(NN_SHAPE(2, 2), 1, 2, 3, 4);
    CHECK(HOLDS(nn_pad(x, NN_SHAPE(2, 1), NULL), NN_SHAPE(7), 0, 0, 1, 2, 3, 4, 0));
    CHECK(HOLDS(nn_pad(x, NN_SHAPE(-1, 2), NULL), NN_SHAPE(5), 2, 3, 4, 0, 0));
    CHECK(HOLDS(nn_pad(x, NN_SHAPE(-1, -2), NULL), NN_SHAPE(1), 2));
    CHECK(HOLDS(nn_pad(x, NN_SHAPE(3, 3), &(nn_pad_desc){ .mode = NN_PAD_REFLECT }), NN_SHAPE(10), 4, 3, 2, 1, 2, 3, 4, 3, 2, 1));
    CHECK(HOLDS(nn_pad(x, NN_SHAPE(-2, 3), &(nn_pad_desc){ .mode = NN_PAD_REFLECT }), NN_SHAPE(5), 3, 4, 3, 2, 1));
    CHECK(HOLDS(nn_pad(x, NN_SHAPE(6, 1), &(nn_pad_desc){ .mode = NN_PAD_REPLICATE }), NN_SHAPE(11), 1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 4));
    CHECK(HOLDS(nn_pad(m, NN_SHAPE(1, 1, 1, 1), &(nn_pad_desc){ .mode = NN_PAD_REFLECT }), NN_SHAPE(4, 4), 4, 3, 4, 3, 2, 1, 2, 1, 4, 3, 4, 3, 2, 1, 2, 1));
    CHECK(HOLDS(nn_pad(m, NN_SHAPE(0, 0, 1, 0), &(nn_pad_desc){ .mode = NN_PAD_REPLICATE }), NN_SHAPE(3, 2), 1, 2, 1, 2, 3, 4));
    CHECK(nn_ok(nn));
    FAILS(nn_pad(x, NN_SHAPE(4, 0), &(nn_pad_desc){ .mode = NN_PAD_REFLECT }), "pad: 4 and 0 do not fit dimension 0 of (4)");
    FAILS(nn_pad(x, NN_SHAPE(-3, -2), NULL), "pad: -3 and -2");
    FAILS(nn_pad(x, NN_SHAPE(1), NULL), "pad: amounts (1)");
    FAILS(nn_pad(x, NN_SHAPE(1, 1, 1, 1), NULL), "pad: amounts");
    FAILS(nn_pad(x, NN_SHAPE(INT64_MAX, 1), NULL), "pad: ");
    nn_free(nn);
}

TEST(makers)
{
    nn_context *nn = begin(NN_EVAL);
    float v[11];
    CHECK(HOLDS(nn_arange(nn, 1, 8, 2), NN_SHAPE(4), 1, 3, 5, 7));
    CHECK(HOLDS(nn_arange(nn, 2, -1, -1.5f), NN_SHAPE(2), 2, 0.5));
    CHECK(nn_count(nn_arange(nn, 0, 1, 0.1f)) == 10 && nn_count(nn_arange(nn, 3, 3, 1)) == 0);
    CHECK(HOLDS(nn_linspace(nn, -1, 1, 5), NN_SHAPE(5), -1, -0.5, 0, 0.5, 1));
    CHECK(HOLDS(nn_linspace(nn, 3, 8, 1), NN_SHAPE(1), 3) && nn_count(nn_linspace(nn, 3, 8, 0)) == 0);
    nn_read(nn_linspace(nn, 0, 0.7f, 11), v);
    CHECK(v[0] == 0 && v[10] == 0.7f);
    CHECK(HOLDS(nn_eye(nn, 2), NN_SHAPE(2, 2), 1, 0, 0, 1) && nn_count(nn_eye(nn, 0)) == 0);
    CHECK(HOLDS(nn_one_hot(I64(NN_SHAPE(1, 2), 2, 0), 3), NN_SHAPE(1, 2, 3), 0, 0, 1, 1, 0, 0));
    CHECK(nn_ok(nn));
    FAILS(nn_arange(nn, 0, 1, 0), "arange: no way from 0 to 1 in steps of 0");
    FAILS(nn_arange(nn, 0, 1, -1), "arange: no way");
    FAILS(nn_arange(nn, NAN, 1, 1), "arange: no way");
    FAILS(nn_linspace(nn, 0, 1, -1), "impossible shape (-1)");
    FAILS(nn_eye(nn, -1), "impossible shape");
    FAILS(nn_from_as(nn, (nn_dtype)77, NN_SHAPE(1), NULL), "no numbers of type ?");
    FAILS(nn_cast(nn_zeros(nn, NN_SHAPE(2)), NN_I4), "no numbers of type i4");
    FAILS(nn_eye(nn, (int64_t)1 << 40), "impossible shape");
    CHECK(nn_count(nn_eye(NULL, 3)) == 0 && nn_count(nn_arange(NULL, 0, 1, 1)) == 0 && nn_count(nn_linspace(NULL, 0, 1, 3)) == 0);
    nn_free(nn);
}

TEST(embedding)
{
    nn_context *nn = begin(NN_TRAIN);
    nn_tensor *w = nn_want_grad(F32(NN_SHAPE(3, 2), 1, 2, 3, 4, 5, 6));
    nn_tensor *y = nn_embedding(nn_from_as(nn, NN_I32, NN_SHAPE(2, 2), (int32_t[]){ 2, 0, 2, 2 }), w);
    CHECK(HOLDS(y, NN_SHAPE(2, 2, 2), 5, 6, 1, 2, 5, 6, 5, 6));
    nn_backward(nn_sum(y, NN_ALL, NULL));
    CHECK(HOLDS(nn_grad(w), NN_SHAPE(3, 2), 1, 1, 0, 0, 3, 3));
    FAILS(nn_embedding(I64(NN_SHAPE(2), 1, 3), w), "embedding: index 3 is out of range: there are 3");
    FAILS(nn_embedding(I64(NN_SHAPE(1), -1), w), "embedding: index -1 is out of range");
    FAILS(nn_embedding(I64(NN_SHAPE(1), INT64_MIN), w), "embedding: index -9223372036854775808");
    FAILS(nn_embedding(F32(NN_SHAPE(1), 0), w), "embedding: the index is f32, not i32 or i64");
    FAILS(nn_embedding(I64(NN_SHAPE(1), 0), nn_select(w, 0, 0)), "embedding: w is (2)");
    FAILS(nn_embedding(NULL, w), "embedding: the tensor is NULL");
    FAILS(nn_embedding(I64(NN_SHAPE(1), 0), NULL), "embedding: the tensor is NULL");
    nn_free(nn);
}

TEST(deterministic_backward)
{
    static float g[3][1000 * 7];
    static int64_t at[4000];
    for (int i = 0; i < 4000; i++) at[i] = (int64_t)i * i % 997;
    for (int threads = 1; threads <= 3; threads++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = threads });
        nn_begin(nn, NN_TRAIN);
        nn_tensor *w = nn_want_grad(nn_rand(nn, NN_SHAPE(1000, 7), -1, 1)), *y = nn_embedding(nn_from_as(nn, NN_I64, NN_SHAPE(4000), at), w);
        nn_backward(nn_sum(nn_mul(y, nn_rand(nn, NN_SHAPE(4000, 7), -1, 1)), NN_ALL, NULL));
        nn_read(nn_grad(w), g[threads - 1]);
        nn_free(nn);
    }
    CHECK(!memcmp(g[0], g[1], sizeof g[0]) && !memcmp(g[0], g[2], sizeof g[0]));
}

TEST(bad_indices)
{
    nn_context *nn = begin(NN_EVAL);
    nn_tensor *x = F32(NN_SHAPE(2, 2), 1, 2, 3, 4);
    FAILS(nn_gather(x, 0, I64(NN_SHAPE(1, 2), 0, 2)), "gather: index 2 is out of range: there are 2");
    FAILS(nn_gather(x, 1, I64(NN_SHAPE(1, 1), -1)), "gather: index -1");
    FAILS(nn_gather(x, 1, I64(NN_SHAPE(3, 1), 0, 0, 0)), "gather: index (3, 1) does not fit x (2, 2) along dimension 1");
    FAILS(nn_gather(x, 2, I64(NN_SHAPE(1, 1), 0)), "gather: dimension 2");
    FAILS(nn_gather(x, 0, x), "gather: the index is f32");
    FAILS(nn_gather(x, 0, NULL), "gather: the tensor is NULL");
    FAILS(nn_index_select(x, 1, I64(NN_SHAPE(1), 5)), "index_select: index 5 is out of range");
    FAILS(nn_index_select(x, 1, I64(NN_SHAPE(1, 1), 0)), "index_select: the index has 2 dimensions");
    FAILS(nn_scatter_add(x, 0, I64(NN_SHAPE(1, 1), 9), x), "scatter_add: index 9 is out of range");
    FAILS(nn_scatter_add(x, 0, I64(NN_SHAPE(1, 1), 0), I64(NN_SHAPE(1, 1), 0)), "scatter_add: x is f32, source is i64");
    FAILS(nn_scatter_add(x, 0, I64(NN_SHAPE(3, 1), 0, 0, 0), x), "scatter_add: index (3, 1) does not fit");
    FAILS(nn_one_hot(I64(NN_SHAPE(1), 3), 3), "one_hot: index 3 is out of range");
    FAILS(nn_one_hot(I64(NN_SHAPE(1), 0), 0), "one_hot: 0 classes");
    FAILS(nn_one_hot(I64(NN_SHAPE(1), 0), INT64_MAX), "impossible shape");
    nn_free(nn);
}

TEST(bad_shapes)
{
    nn_context *nn = begin(NN_EVAL);
    nn_tensor *x = F32(NN_SHAPE(2, 3), 1, 2, 3, 4, 5, 6), *xs[3] = { x, x, NULL }, *ys[3];
    FAILS(nn_select(x, 1, 3), "select: index 3 of dimension 1 of (2, 3)");
    FAILS(nn_select(x, 1, -4), "select: index -4");
    FAILS(nn_split(x, NN_SHAPE(1, 1), 1, ys), "split: sizes (1, 1) do not add up to dimension 1 of (2, 3)");
    CHECK(nn_count(ys[0]) == 0 && nn_count(ys[1]) == 0);
    FAILS(nn_split(x, NN_SHAPE(4, -1), 1, ys), "split: ");
    FAILS(nn_split(x, NN_SHAPE(INT64_MAX, INT64_MAX, 5), 1, ys), "split: ");
    FAILS(nn_chunk(x, 2, 1, ys), "chunk: dimension 1 of (2, 3) does not divide into 2 equal parts");
    FAILS(nn_chunk(x, 0, 1, ys), "chunk: ");
    nn_split(x, NN_SHAPE(1, 2), 1, ys);
    CHECK(HOLDS(ys[0], NN_SHAPE(2, 1), 1, 4) && HOLDS(ys[1], NN_SHAPE(2, 2), 2, 3, 5, 6));
    nn_chunk(x, 3, 1, ys);
    CHECK(HOLDS(ys[2], NN_SHAPE(2, 1), 3, 6));
    FAILS(nn_concat(xs, 3, 0), "concat: the tensor is NULL");
    xs[2] = nn_transpose(x, 0, 1);
    FAILS(nn_concat(xs, 3, 0), "concat: (2, 3) and (3, 2) differ");
    FAILS(nn_concat(xs, 2, 2), "concat: dimension 2");
    xs[2] = nn_cast(x, NN_I32);
    FAILS(nn_concat(xs, 3, 0), "concat: f32 and i32");
    xs[2] = nn_select(x, 0, 0);
    FAILS(nn_stack(xs, 3, 0), "stack: shapes differ: (2, 3) and (3)");
    FAILS(nn_stack(xs, 2, 4), "stack: dimension 4");
    CHECK(nn_count(nn_concat(NULL, 0, 0)) == 0 && nn_count(nn_stack(NULL, 2, 0)) == 0);
    xs[0] = NULL;
    CHECK(nn_count(nn_concat(xs, 1, 0)) == 0);
    FAILS(nn_repeat(x, NN_SHAPE(2)), "repeat: (2, 3) cannot be repeated (2) times");
    FAILS(nn_repeat(x, NN_SHAPE(-1, 1)), "repeat: ");
    FAILS(nn_repeat(x, NN_SHAPE(INT64_MAX / 2, INT64_MAX / 4)), "repeat: ");
    FAILS(nn_flip(x, NN_DIMS(0, 0)), "flip: dimension 0 is given twice");
    FAILS(nn_tril(nn_select(x, 0, 0), 0), "tril: (3) is not a matrix");
    FAILS(nn_topk(x, 4, 1, ys, NULL), "topk: k is 4 for dimension 1 of (2, 3)");
    CHECK(nn_count(ys[0]) == 0);
    FAILS(nn_topk(x, -1, 1, ys, NULL), "topk: k is -1");
    FAILS(nn_sort(x, 2, ys, NULL), "sort: dimension 2");
    CHECK(nn_count(nn_select(NULL, 0, 0)) == 0 && nn_count(nn_flip(NULL, NN_ALL)) == 0 && nn_count(nn_sort(NULL, 0, NULL, NULL)) == 0);
    CHECK(nn_count(nn_pad(NULL, NN_SHAPE(1, 1), NULL)) == 0 && nn_count(nn_repeat(NULL, NN_SHAPE(1))) == 0 && nn_count(nn_tril(NULL, 0)) == 0);
    FAILS(nn_add(x, NULL), "add: the tensor is NULL");
    FAILS(nn_mul(NULL, x), "mul: the tensor is NULL");
    FAILS(nn_where(x, NULL, x), "where: the tensor is NULL");
    FAILS(nn_where(NULL, x, x), "where: the tensor is NULL");
    nn_free(nn);
}

/* After the largest step no memory is asked for. */
TEST(no_allocations_after_the_first_steps)
{
    nn_context *nn = nn_new(NULL);
    int64_t before = 0;
    for (int i = 0; i < 5; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_want_grad(nn_rand(nn, NN_SHAPE(30, 40), -1, 1)), *xs[20], *at;
        for (int k = 0; k < 20; k++) xs[k] = nn_slice(x, 0, k, k + 3, 1);
        nn_tensor *y = nn_pad(nn_sort(nn_concat(xs, 20, 0), 0, &at, NULL), NN_SHAPE(1, 2, 3, 4), NULL);
        nn_backward(nn_sum(nn_softmax(nn_index_select(y, 0, I64(NN_SHAPE(3), 1, 5, 9)), 1), NN_ALL, NULL));
        if (i == 2) before = nn_allocations(nn);
    }
    CHECK(nn_ok(nn) && nn_allocations(nn) == before);
    nn_free(nn);
}
