/* test_plan.c - plans against nn_forward: bits, batches, folding, memory, threads, refusals; how much scratch calls take */
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include <pthread.h>
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#define ONLY_WRITES
long syscall(long number, ...);         /* -std=c11 hides it */
#endif

static nn_context *quiet(void) { return nn_new(&(nn_desc){ .seed = 5, .threads = 1, .on_error = test_quiet }); }
static void fill(float *x, int64_t n) { for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 37 % 61) / 30 - 1; }

static nn_tensor *branches(void *self, nn_tensor *x)     /* residual, slices, concat, a constant, softmax; a dead end */
{
    nn_layer **l = self;
    nn_tensor *a = nn_forward(l[0], x), *b = nn_forward(l[1], nn_tanh(x)), *part[2];
    float two[6] = { 1, 2, 3, 4, 5, 6 };
    nn_exp(b);
    part[0] = nn_slice(a, 1, 2, 5, 1);
    part[1] = nn_mul(nn_add(a, b), nn_from(x->nn, NN_SHAPE(6), two));
    return nn_softmax(nn_concat(part, 2, 1), 1);
}
static nn_layer *make(nn_context *nn, int which, nn_shape *shape, nn_layer **own)
{
    nn_layer *net = nn_model_new(nn, which == 3 ? &(nn_model_desc){ .forward = branches, .self = own } : NULL);
    if (which == 0) {                /* an MLP */
        *shape = NN_SHAPE(7, 11);
        nn_linear_new(net, NULL, 11, 33, NULL);
        nn_batchnorm_new(net, NULL, 33, NULL);
        nn_fn_new(net, nn_relu);
        nn_dropout_new(net, 0.5f);
        nn_linear_new(net, NULL, 33, 5, &(nn_linear_desc){ .activation = nn_sigmoid });
    }
    if (which == 1) {                /* convolutions, batch norm with and without activation, pooling */
        *shape = NN_SHAPE(5, 3, 12, 10);
        nn_conv2d_new(net, NULL, 3, 8, 3, &(nn_conv2d_desc){ .padding = 1, .no_bias = 1 });
        nn_batchnorm_new(net, NULL, 8, &(nn_batchnorm_desc){ .activation = nn_relu });
        nn_maxpool2d_new(net, 2, NULL);
        nn_conv2d_new(net, NULL, 8, 8, 3, &(nn_conv2d_desc){ .padding = 1, .groups = 8 });
        nn_batchnorm_new(net, NULL, 8, NULL);
        nn_fn_new(net, nn_relu6);
        nn_conv2d_new(net, NULL, 8, 12, 1, NULL);
        nn_fn_new(net, nn_global_avgpool);
        nn_linear_new(net, NULL, 12, 4, NULL);
    }
    if (which == 2) {                /* norms, a row of layers that only changes shape at its end */
        *shape = NN_SHAPE(4, 6, 8);
        nn_layernorm_new(net, NULL, NN_SHAPE(8), NULL);
        nn_fn_new(net, nn_gelu);
        nn_linear_new(net, NULL, 8, 6, NULL);
        nn_flatten_new(net);
    }
    if (which == 3) {
        *shape = NN_SHAPE(3, 6);
        own[0] = nn_linear_new(net, "a", 6, 6, NULL);
        own[1] = nn_linear_new(net, "b", 6, 6, NULL);
    }
    if (which == 4) { *shape = NN_SHAPE(3, 4); nn_flatten_new(net); }                  /* nothing to do */
    return net;
}
static void warm(nn_context *nn, nn_layer *net, nn_shape shape)                          /* running statistics that are not 0 and 1 */
{
    for (int i = 0; i < 3; i++) { nn_begin(nn, NN_TRAIN); nn_forward(net, nn_randn(nn, shape, 0.3f, 2)); }
}

TEST(equals_forward)
{
    static float x[4096], y[2][4096];
    for (int which = 0; which < 5; which++) for (int fold = 0; fold < 2; fold++) {
        nn_context *nn = quiet();
        nn_layer *own[2];
        nn_shape shape;
        nn_layer *net = make(nn, which, &shape, own);
        warm(nn, net, shape);
        nn_plan *p = nn_plan_new(net, shape, &(nn_plan_desc){ .no_fold = !fold });
        CHECK(p != NULL && nn_ok(nn));
        if (!p) { puts(nn_error(nn)); nn_free(nn); continue; }
        CHECK(nn_plan_any_batch(p));
        int64_t per = 1, out = 1;
        for (int i = 1; i < shape.ndim; i++) per *= shape.d[i];
        for (int i = 1; i < nn_plan_output(p).ndim; i++) out *= nn_plan_output(p).d[i];
        size_t bytes = nn_plan_bytes(p);
        char *raw = malloc(bytes + 3);
        memset(raw, 0xFF, bytes + 3);                    /* unaligned, not initialised */
        fill(x, shape.d[0] * per);
        for (int64_t b = 1; b <= shape.d[0]; b++) {
            nn_shape s = shape;
            s.d[0] = b;
            nn_begin(nn, NN_EVAL);
            nn_tensor *t = nn_forward(net, nn_from(nn, s, x));
            CHECK(nn_count(t) == b * out && nn_read(t, y[0]));
            CHECK(nn_run_batch(p, raw + 3, b, x, y[1]));
            for (int64_t i = 0; i < b * out; i++) {
                if (fold) CHECK_NEAR(y[1][i], y[0][i], 1e-6 * (1 + fabsf(y[0][i])));
                else CHECK(!memcmp(&y[0][i], &y[1][i], sizeof(float)));
            }
        }
        CHECK(nn_run(p, raw, x, y[0]) && !nn_run_batch(p, raw, shape.d[0] + 1, x, y[0]) && !nn_run_batch(p, raw, -1, x, y[0]) && nn_run_batch(p, raw, 0, x, y[0]));
        free(raw);
        nn_plan_free(p);
        nn_free(nn);
    }
}

TEST(weights_in_fewer_bytes)         /* embeddings, chains of layers, attention: the bits of nn_forward, for every batch */
{
    static const struct { nn_dtype type; int group; } as[] = { { NN_BF16, 0 }, { NN_I8, 0 }, { NN_I4, 8 }, { NN_I4, 32 } };
    static char file[1 << 16];
    static float x[5 * 6 * 20], y[2][5 * 6 * 9];
    for (int i = 0; i < 4; i++) {
        nn_context *nn = quiet();
        nn_layer *net[2];
        size_t bytes;
        for (int k = 0; k < 2; k++) {                    /* the second has the numbers of the first, in fewer bytes */
            if (k) nn_weights_as(nn, as[i].type, as[i].group ? &(nn_quantize_desc){ .group = as[i].group } : NULL);
            net[k] = nn_model_new(nn, NULL);
            nn_linear_new(net[k], NULL, 20, 36, &(nn_linear_desc){ .activation = nn_gelu });
            nn_transformer_encoder_layer_new(net[k], NULL, 36, 2, &(nn_transformer_desc){ .hidden = 44, .norm_first = 1 });
            nn_linear_new(net[k], NULL, 36, 9, &(nn_linear_desc){ .transposed = 1 });
        }
        nn_weights_as(nn, NN_F32, NULL);
        CHECK(nn_save_memory(net[0], file, sizeof file, &bytes, NULL) && nn_load_memory(net[1], file, bytes, NULL));
        nn_plan *p = nn_plan_new(net[1], NN_SHAPE(5, 6, 20), NULL);
        CHECK(p != NULL && nn_ok(nn));
        if (!p) { puts(nn_error(nn)); nn_free(nn); continue; }
        char *raw = malloc(nn_plan_bytes(p));
        fill(x, 5 * 6 * 20);
        for (int64_t b = 1; b <= 5; b++) {
            nn_begin(nn, NN_EVAL);
            CHECK(nn_read(nn_forward(net[1], nn_from(nn, NN_SHAPE(b, 6, 20), x)), y[0]) && nn_run_batch(p, raw, b, x, y[1]));
            CHECK(!memcmp(y[0], y[1], (size_t)b * 6 * 9 * sizeof(float)));
            CHECK(nn_read(nn_forward(net[0], nn_from(nn, NN_SHAPE(b, 6, 20), x)), y[1]) && memcmp(y[0], y[1], (size_t)b * 6 * 9 * sizeof(float)));     /* they were rounded */
        }
        free(raw);
        nn_plan_free(p);
        nn_free(nn);
    }
}
TEST(packed_weights)                 /* of every kind of convolution: the bits of nn_forward for every batch, and no second copy of the weights */
{
    static const struct { int c, o, kernel, side, groups, stride, transposed; } list[] = {
        { 32, 48, 3, 8, 1, 1, 0 }, { 20, 70, 3, 9, 1, 2, 0 }, { 40, 33, 1, 6, 1, 1, 0 }, { 64, 130, 3, 4, 1, 1, 0 }, { 32, 64, 3, 6, 2, 1, 0 }, { 8, 8, 3, 9, 8, 1, 0 },
        { 3, 6, 5, 12, 1, 1, 0 }, { 18, 20, 3, 16, 1, 1, 0 }, { 20, 24, 4, 5, 1, 2, 1 }, { 24, 40, 3, 8, 1, 1, 1 }, { 80, 96, 3, 16, 1, 1, 0 },
    };
    static float x[200000], y[2][200000];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) for (int batch = 1; batch < 4; batch += 2) {
        nn_context *nn = quiet();
        nn_layer *net = nn_model_new(nn, NULL);
        nn_conv2d_desc d = { .stride = list[i].stride, .padding = list[i].kernel / 2, .groups = list[i].groups };
        if (list[i].transposed) nn_conv_transpose2d_new(net, NULL, list[i].c, list[i].o, list[i].kernel, &d);
        else                    nn_conv2d_new(net, NULL, list[i].c, list[i].o, list[i].kernel, &d);
        nn_shape s = NN_SHAPE(batch, list[i].c, list[i].side, list[i].side);
        nn_plan *p = nn_plan_new(net, s, NULL);
        CHECK(p != NULL);
        if (!p) { puts(nn_error(nn)); nn_free(nn); continue; }
        void *work = malloc(nn_plan_bytes(p) + 1);
        fill(x, batch * list[i].c * list[i].side * list[i].side);
        for (s.d[0] = 1; s.d[0] <= batch; s.d[0]++) {
            nn_begin(nn, NN_EVAL);
            nn_tensor *t = nn_forward(net, nn_from(nn, s, x));
            CHECK(nn_count(t) <= 200000 && nn_read(t, y[0]));
            CHECK(nn_run_batch(p, work, s.d[0], x, y[1]));
            CHECK(!memcmp(y[0], y[1], (size_t)nn_count(t) * sizeof(float)));
        }
        if (list[i].c == 20 && list[i].stride == 2 && !list[i].transposed) CHECK(p->constant_bytes < 2 * 9 * 20 * 70 * sizeof(float));
        free(work);
        nn_plan_free(p);
        nn_free(nn);
    }
}

/* Sums of branches: which become a part of the convolution or layer that makes a term, and that all have the bits of nn_forward. */
enum { LATER, TURNED, FIRST, INPUT, ITSELF, RELU_FIRST, READ_AGAIN, ROW, KEPT, OWN, SUMS };
typedef struct { nn_layer *a, *b; int kind; nn_fn then; } branched;
static nn_tensor *sum_of_branches(void *self, nn_tensor *x)
{
    branched *n = self;
    nn_tensor *a, *b, *y;
    if (n->kind == OWN) x = nn_tanh(x);
    a = nn_forward(n->a, x);
    if (n->kind == RELU_FIRST) { b = nn_forward(n->b, x); return nn_add(a, nn_relu(b)); }
    if (n->kind == FIRST)      { b = nn_tanh(x); y = nn_add(a, b); }                        /* b is made after a: nothing can be done */
    else if (n->kind == INPUT || n->kind == OWN) y = nn_add(x, a);              /* OWN: not in the place of x, which is still read */
    else if (n->kind == ITSELF) y = nn_add(a, a);
    else if (n->kind == ROW)    y = nn_add(a, nn_slice(x, 0, 0, 1, 1));                     /* broadcast, but for a batch of 1 */
    else {
        b = nn_forward(n->b, x);
        y = n->kind == TURNED ? nn_add(b, a) : nn_add(a, b);
        if (n->kind == READ_AGAIN) return nn_mul(y, b);
        if (n->kind == KEPT) return nn_mul(nn_relu(y), a);                                  /* what is added may be read again */
    }
    return n->then ? n->then(y) : y;
}
static void sums(const char *isa, int threads, int kind, nn_shape s, nn_layer *(*make_one)(nn_layer *net, const void *of), const void *of, nn_fn then, int calls)
{
    enum { ROOM = 120000 };
    static float x[ROOM], y[2][ROOM];
    nn_context *nn = nn_new(&(nn_desc){ .isa = isa, .threads = threads, .seed = 3, .on_error = test_quiet });
    branched self = { NULL, NULL, kind, then };
    nn_layer *net = nn_model_new(nn, &(nn_model_desc){ .forward = sum_of_branches, .self = &self });
    int64_t batch = s.d[0], per = 1;
    self.a = make_one(net, of);
    self.b = make_one(net, of);
    for (int i = 1; i < s.ndim; i++) per *= s.d[i];
    nn_plan *p = nn_plan_new(net, s, &(nn_plan_desc){ .parallel = threads > 1 });
    CHECK(p != NULL && batch * per <= ROOM);
    if (!p) { puts(nn_error(nn)); nn_free(nn); return; }
    CHECK(p->calls == calls);
    if (p->calls != calls) printf("%d calls, not %d: kind %d\n", p->calls, calls, kind);
    void *work = malloc(nn_plan_bytes(p) + 1);
    fill(x, batch * per);
    for (s.d[0] = nn_plan_any_batch(p) ? 1 : batch; s.d[0] <= batch; s.d[0]++) {
        nn_begin(nn, NN_EVAL);
        nn_tensor *t = nn_forward(net, nn_from(nn, s, x));
        CHECK(nn_count(t) <= ROOM && nn_read(t, y[0]) && nn_run_batch(p, work, s.d[0], x, y[1]));
        CHECK(!memcmp(y[0], y[1], (size_t)nn_count(t) * sizeof(float)));
    }
    free(work);
    nn_plan_free(p);
    nn_free(nn);
}
typedef struct { int c, o, kernel, high, wide, groups, stride, batch; } a_conv;
static nn_layer *one_conv(nn_layer *net, const void *of)
{
    const a_conv *v = of;
    return nn_conv2d_new(net, NULL, v->c, v->o, v->kernel, &(nn_conv2d_desc){ .stride = v->stride, .padding = v->kernel / 2, .groups = v->groups });
}
TEST(sums_in_convolutions)           /* every kernel: Winograd with both tiles and lines that are cut, channels in lanes, strips of few channels, 1x1, packed panels */
{
    static const a_conv list[] = {
        { 32, 48, 3, 14, 14, 1, 1, 2 }, { 16, 19, 3, 13, 70, 1, 1, 2 }, { 64, 64, 3, 7, 7, 1, 1, 3 }, { 32, 64, 3, 6, 6, 2, 1, 3 }, { 20, 70, 3, 9, 11, 1, 2, 2 }, { 17, 40, 5, 8, 8, 1, 1, 3 },
        { 3, 6, 5, 12, 10, 1, 1, 2 }, { 3, 8, 3, 16, 16, 1, 1, 2 }, { 8, 8, 3, 20, 32, 8, 1, 2 }, { 4, 12, 3, 9, 7, 4, 2, 2 }, { 40, 33, 1, 6, 7, 1, 1, 2 }, { 24, 40, 1, 17, 19, 2, 1, 1 },
        { 24, 33, 1, 9, 9, 1, 2, 2 }, { 2, 3, 9, 20, 21, 1, 2, 1 }, { 30, 40, 7, 20, 30, 1, 2, 1 }, { 100, 17, 3, 14, 14, 1, 3, 1 }, { 3, 12, 3, 1, 384, 1, 1, 2 },
    };
    for (int k = 0; test_isa(k); k++) for (size_t i = 0; i < sizeof list / sizeof *list; i++) for (int threads = 1; threads < 4; threads += 2) {
        nn_shape s = NN_SHAPE(list[i].batch, list[i].c, list[i].high, list[i].wide);
        if (threads > 1 && list[i].c * list[i].kernel < 40) continue;
        sums(test_isa(k), threads, threads > 1 ? TURNED : LATER, s, one_conv, &list[i], nn_relu, 2);
        sums(test_isa(k), threads, LATER, s, one_conv, &list[i], i % 2 ? nn_tanh : NULL, i % 2 ? 3 : 2);
        sums(test_isa(k), threads, KEPT, s, one_conv, &list[i], NULL, 3);
    }
}
static nn_layer *one_linear(nn_layer *net, const void *of) { return nn_linear_new(net, NULL, *(const int *)of, *(const int *)of, NULL); }
static nn_layer *one_small(nn_layer *net, const void *of)
{
    nn_layer *l;
    nn_weights_as(net->nn, NN_I4, &(nn_quantize_desc){ .group = 8 });
    l = one_linear(net, of);
    nn_weights_as(net->nn, NN_F32, NULL);
    return l;
}
TEST(sums_in_linear_layers)          /* of few and of many numbers, in tiles and in dot products; weights of 4 bits; and all the sums that stay by themselves */
{
    static const struct { int n, batch, rows; } list[] = { { 6, 3, 1 }, { 10, 64, 1 }, { 70, 5, 3 }, { 300, 1, 1 }, { 130, 40, 1 } };
    static const a_conv same = { 18, 18, 3, 40, 40, 1, 1, 3 };                       /* several blocks of an image */
    static const int calls[SUMS] = { 2, 2, 4, 1, 3, 3, 4, 3, 3, 2 };
    for (int k = 0; test_isa(k); k++) for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        nn_shape s = list[i].rows > 1 ? NN_SHAPE(list[i].batch, list[i].rows, list[i].n) : NN_SHAPE(list[i].batch, list[i].n);
        sums(test_isa(k), 1, LATER, s, one_linear, &list[i].n, nn_gelu, 2);
        sums(test_isa(k), 2, TURNED, s, one_linear, &list[i].n, NULL, 2);
        sums(test_isa(k), 1, INPUT, s, one_small, &list[i].n, nn_relu, 1);
    }
    for (int kind = 0; kind < SUMS; kind++) {
        sums(NULL, 1, kind, NN_SHAPE(5, 70), one_linear, &list[2].n, nn_relu, calls[kind]);
        sums(NULL, 1, kind, NN_SHAPE(3, 18, 40, 40), one_conv, &same, nn_relu, calls[kind]);
    }
}

static int64_t steps_of(const nn_plan *p) { return p->calls; }
TEST(slices)                         /* the first calls run on a few samples at a time: the bits of nn_forward for every batch, with any threads, and less memory */
{
    enum { B = 23, IN = 3 * 32 * 32 };
    static float x[B * IN], y[2][B * 10];
    fill(x, B * IN);
    for (int threads = 1; threads < 4; threads++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 5, .threads = threads, .on_error = test_quiet });
        nn_layer *net = nn_model_new(nn, NULL);
        nn_conv2d_new(net, NULL, 3, 16, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_relu });
        nn_maxpool2d_new(net, 2, NULL);
        nn_conv2d_new(net, NULL, 16, 32, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_tanh });
        nn_fn_new(net, nn_relu);
        nn_maxpool2d_new(net, 2, NULL);
        nn_conv2d_new(net, NULL, 32, 8, 1, &(nn_conv2d_desc){ .activation = nn_relu });
        nn_flatten_new(net);
        nn_linear_new(net, NULL, 8 * 8 * 8, 10, &(nn_linear_desc){ .activation = nn_sigmoid });
        nn_plan *p = nn_plan_new(net, NN_SHAPE(B, 3, 32, 32), &(nn_plan_desc){ .parallel = 1 });
        CHECK(p != NULL);
        if (!p) { puts(nn_error(nn)); nn_free(nn); continue; }
        CHECK(p->slice_calls == 6 && p->slice > 1 && p->slice < B);
        CHECK(steps_of(p) == 8);                         /* the first and the last ReLU are no steps of their own; tanh is */
        CHECK(p->temp_bytes + p->scratch_bytes < (1 + (size_t)threads) << 20);               /* a result of the first convolution takes 1.5 MB */
        char *work = malloc(nn_plan_bytes(p));
        for (int64_t b = B; b > 0; b -= 11) {
            memset(work, 0xFF, nn_plan_bytes(p));
            nn_begin(nn, NN_EVAL);
            CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(b, 3, 32, 32), x)), y[0]));
            CHECK(nn_run_batch(p, work, b, x, y[1]));
            CHECK(!memcmp(y[0], y[1], (size_t)b * 10 * sizeof(float)));
        }
        free(work);
        nn_plan_free(p);
        nn_free(nn);
    }
}

static nn_tensor *half_constant(void *self, nn_tensor *x)            /* (B, 6) */
{
    nn_layer **l = self;
    nn_context *nn = nn_context_of(l[0]);
    nn_tensor *w = nn_param(l[0], "weight"), *table = nn_softmax(nn_mul_scalar(w, 3), 1), *b = nn_exp(nn_mean(table, NN_DIMS(1), NULL)), *y;      /* four calls */
    nn_tensor *grows = nn_add_scalar(nn_zeros(nn, NN_SHAPE(nn_dim(x, 0), 6)), 0.5f), *parts = nn_zeros(nn, NN_SHAPE(2, 6));                       /* as large as the batch; in part x */
    nn_copy(nn_slice(parts, 0, 1, 2, 1), nn_slice(x, 0, 0, 1, 1));
    y = nn_linear(nn_add(x, grows), nn_add(table, nn_transpose(w, 0, 1)), b, NULL);                                                               /* one more */
    return nn_add(nn_mul(y, nn_sum(parts, NN_ALL, NULL)), nn_forward(l[1], x));
}
TEST(constants)                      /* what follows from weights alone is computed once; what follows from x, its size, or buffers that are written is not */
{
    static float x[4 * 6], y[2][4 * 6];
    nn_context *nn = quiet();
    nn_layer *own[2], *net = nn_model_new(nn, &(nn_model_desc){ .forward = half_constant, .self = own });
    own[0] = nn_linear_new(net, "a", 6, 6, NULL);
    own[1] = nn_linear_new(net, "b", 6, 6, NULL);
    fill(x, 4 * 6);
    nn_plan *p = nn_plan_new(net, NN_SHAPE(4, 6), NULL);
    CHECK(p && nn_plan_any_batch(p));
    if (!p) { puts(nn_error(nn)); nn_free(nn); return; }
    char *work = malloc(nn_plan_bytes(p) + 1);
    for (int64_t b = 4; b > 0; b--) {
        memset(work, 0xFF, nn_plan_bytes(p));
        nn_begin(nn, NN_EVAL);
        CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(b, 6), x)), y[0]) && nn_run_batch(p, work, b, x, y[1]));
        CHECK(!memcmp(y[0], y[1], (size_t)b * 6 * sizeof(float)));
    }
    for (int i = 0; i < p->calls; i++) {
        int id = p->call[i].op->id;
        CHECK(id != NN_OP_softmax && id != NN_OP_exp && id != NN_OP_mul_scalar);
    }
    printf("%d calls are left\n", p->calls);
    CHECK(nn_ok(nn));
    free(work);
    nn_plan_free(p);
    nn_free(nn);
}

static nn_tensor *twice_read(void *self, nn_tensor *x)   /* the convolution's result is needed as it is, too, in part */
{
    nn_layer **l = self;
    nn_tensor *y = nn_forward(l[0], x);
    return nn_add(nn_relu(y), nn_slice(nn_forward(l[0], x), 1, 0, 2, 1));
}
static nn_tensor *part_read(void *self, nn_tensor *x)
{
    nn_layer **l = self;
    nn_tensor *y = nn_forward(l[0], x), *z = nn_forward(l[1], y);
    return nn_add(nn_slice(nn_relu(y), 1, 0, 1, 1), nn_add(nn_slice(y, 1, 1, 2, 1), nn_slice(z, 1, 1, 2, 1)));
}
/* What the first calls make of parameters alone belongs to no sample: they do not run in slices. */
static nn_tensor *scaled_forward(void *self, nn_tensor *x) { return nn_relu(nn_mul(nn_tanh(x), nn_exp(nn_param(*(nn_layer **)self, "s.bias")))); }
TEST(what_belongs_to_no_sample)
{
    enum { SAMPLES = 64, ROW = 8192 };
    static float x[SAMPLES * ROW], a[SAMPLES * ROW], b[SAMPLES * ROW];
    nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 1 });
    nn_layer *net;
    net = nn_model_new(nn, &(nn_model_desc){ .forward = scaled_forward, .self = &net });
    nn_linear_new(net, "s", 1, ROW, NULL);
    for (int i = 0; i < SAMPLES * ROW; i++) x[i] = (float)(i * 37 % 101) / 50 - 1;
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(SAMPLES, ROW), x)), a));
    nn_plan *p = nn_plan_new(net, NN_SHAPE(SAMPLES, ROW), NULL);
    void *workspace = malloc(nn_plan_bytes(p));
    for (int64_t batch = SAMPLES; batch > 0; batch /= 3) {
        memset(b, 0, sizeof b);
        CHECK(nn_run_batch(p, workspace, batch, x, b) && !memcmp(a, b, (size_t)batch * ROW * sizeof *a));
    }
    free(workspace);
    nn_plan_free(p);
    nn_free(nn);
}

TEST(results_with_other_readers)     /* are not changed by what one of them does */
{
    static float x[2 * 2 * 9 * 9], y[2][2 * 2 * 9 * 9];
    fill(x, 2 * 2 * 9 * 9);
    for (int which = 0; which < 2; which++) {
        nn_context *nn = quiet();
        nn_layer *own[2], *net = nn_model_new(nn, &(nn_model_desc){ .forward = which ? part_read : twice_read, .self = own });
        own[0] = nn_conv2d_new(net, "a", 2, 2, 3, &(nn_conv2d_desc){ .padding = 1 });
        own[1] = nn_batchnorm_new(net, "b", 2, NULL);
        warm(nn, net, NN_SHAPE(2, 2, 9, 9));
        nn_plan *p = nn_plan_new(net, NN_SHAPE(2, 2, 9, 9), NULL);
        CHECK(p != NULL);
        if (!p) { puts(nn_error(nn)); nn_free(nn); continue; }
        void *work = malloc(nn_plan_bytes(p) + 1);
        nn_begin(nn, NN_EVAL);
        nn_tensor *t = nn_forward(net, nn_from(nn, NN_SHAPE(2, 2, 9, 9), x));
        CHECK(nn_read(t, y[0]) && nn_run(p, work, x, y[1]));
        CHECK(!memcmp(y[0], y[1], (size_t)nn_count(t) * sizeof(float)));
        free(work);
        nn_plan_free(p);
        nn_free(nn);
    }
}

TEST(a_snapshot)                     /* training goes on, the plan does not see it; a plan can be made inside a step */
{
    float x[77], y[2][35];
    nn_context *nn = quiet();
    nn_shape shape;
    nn_layer *net = make(nn, 0, &shape, NULL);
    nn_optimizer *opt = nn_sgd_new(net, NULL);
    fill(x, 77);
    nn_begin(nn, NN_TRAIN);
    nn_tensor *loss = nn_mean(nn_square(nn_forward(net, nn_from(nn, shape, x))), NN_ALL, NULL);
    nn_plan *p = nn_plan_new(net, shape, NULL);
    char *w = malloc(nn_plan_bytes(p));
    CHECK(nn_run(p, w, x, y[0]));
    nn_backward(loss);
    nn_step(opt);
    CHECK(nn_ok(nn) && nn_run(p, w, x, y[1]));
    CHECK(!memcmp(y[0], y[1], sizeof y[0]));
    nn_plan *q = nn_plan_new(net, shape, NULL);
    CHECK(nn_plan_bytes(q) == nn_plan_bytes(p) && nn_run(q, w, x, y[1]) && memcmp(y[0], y[1], sizeof y[0]));
    free(w);
    nn_plan_free(p);
    nn_plan_free(q);
    nn_free(nn);
}

static nn_tensor *draws(nn_tensor *x)  { return nn_add(x, nn_randn(x->nn, NN_SHAPE(4), 0, 1)); }
static nn_tensor *looks(nn_tensor *x)  { float v = nn_item(nn_sum(x, NN_ALL, NULL)); return v > 0 ? nn_relu(x) : x; }
static nn_tensor *pairs(nn_tensor *x)  { return nn_matmul(nn_transpose(x, 0, 1), x); }     /* its result has no batch */
TEST(what_has_no_plan)
{
    nn_fn bad[] = { draws, looks };
    const char *why[] = { "random", "by itself" };
    for (int i = 0; i < 2; i++) {
        nn_context *nn = quiet();
        nn_layer *net = nn_model_new(nn, NULL);
        nn_fn_new(net, bad[i]);
        CHECK(!nn_plan_new(net, NN_SHAPE(3, 4), NULL) && !nn_ok(nn));
        CHECK_TEXT(nn_error(nn), why[i]);
        nn_free(nn);
    }
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    float x[12], y[2][16];
    fill(x, 12);
    nn_fn_new(net, pairs);
    CHECK(!nn_plan_new(net, NN_SHAPE(0, 4), NULL) && !nn_ok(nn));
    nn_clear(nn);
    CHECK(!nn_plan_new(NULL, NN_SHAPE(3, 4), NULL) && nn_plan_bytes(NULL) == 0 && !nn_run(NULL, y, x, y[0]));
    nn_plan *p = nn_plan_new(net, NN_SHAPE(1, 4), NULL);
    CHECK(p && !nn_plan_any_batch(p));
    char *w = malloc(nn_plan_bytes(p) + 1);
    CHECK(nn_run(p, w, x, y[0]));
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(pairs(nn_from(nn, NN_SHAPE(1, 4), x)), y[1]) && !memcmp(y[0], y[1], sizeof y[0]));
    free(w);
    nn_plan_free(p);
    nn_free(nn);
}

TEST(threads_of_the_context)
{
    static float x[64 * 784], y[2][640];
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1, .threads = 3 });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, NULL, 784, 128, &(nn_linear_desc){ .activation = nn_relu });
    nn_linear_new(net, NULL, 128, 10, NULL);
    fill(x, 64 * 784);
    for (int i = 0; i < 2; i++) {
        nn_plan *p = nn_plan_new(net, NN_SHAPE(64, 784), &(nn_plan_desc){ .parallel = i });
        char *w = malloc(nn_plan_bytes(p));
        for (int k = 0; k < 3; k++) CHECK(nn_run(p, w, x, y[i]));
        free(w);
        nn_plan_free(p);
    }
    CHECK(!memcmp(y[0], y[1], sizeof y[0]));
    nn_free(nn);
}

static int allocations;
static void *counting(void *user, size_t bytes) { (void)user; allocations++; return malloc(bytes); }
static void releasing(void *user, void *p) { (void)user; allocations--; free(p); }
TEST(a_run_allocates_nothing_and_a_plan_frees_all)
{
    static float x[5 * 360], y[20];
    nn_context *nn = nn_new(&(nn_desc){ .malloc = counting, .free = releasing, .threads = 1 });
    nn_shape shape;
    nn_layer *net = make(nn, 1, &shape, NULL);
    nn_begin(nn, NN_EVAL);
    nn_plan *p = nn_plan_new(net, shape, NULL);
    char *w = malloc(nn_plan_bytes(p));
    int before = allocations;
    for (int i = 0; i < 5; i++) CHECK(nn_run(p, w, x, y));
    CHECK(allocations == before);
    nn_plan *q = nn_plan_new(net, shape, NULL);
    before = allocations;
    nn_plan_free(q);
    CHECK(allocations == before - 1);
    nn_plan_free(p);
    nn_free(nn);
    CHECK(allocations == 0);
    free(w);
}

/* Temporaries share memory: of a row of equal layers only two live at a time, and elementwise ones lie in place. */
TEST(temporaries_share_memory)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    for (int i = 0; i < 10; i++) { nn_linear_new(net, NULL, 64, 64, NULL); nn_fn_new(net, nn_tanh); }
    nn_plan *p = nn_plan_new(net, NN_SHAPE(32, 64), NULL);
    CHECK(p && nn_plan_bytes(p) < 3 * 32 * 64 * sizeof(float) + 32768);
    nn_plan_print(p);
    nn_plan_free(p);
    nn_free(nn);
}

/* Temporaries take no more than where every result has its own place, the largest first (TensorFlow Lite's greedy by size, the smallest gap that fits),
   nor than where places are given call after call, the smallest free block that fits, in place if an input dies (ggml-alloc). */
typedef struct Place { int64_t at, size; int first, last; } Place;
static int64_t greedy_by_size(const nn__storage *s, int n)
{
    Place p[256];
    int64_t total = 0;
    char done[256] = { 0 };
    for (int placed = 0;; placed++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!done[i] && s[i].base == NN__PLAN_TEMP && (best < 0 || s[i].high - s[i].low > s[best].high - s[best].low)) best = i;
        if (best < 0) return total;
        done[best] = 1;
        Place q = { -1, nn__storage_bytes_of(&s[best]), s[best].first, s[best].last };
        int64_t end = 0, gap = INT64_MAX;
        for (int i = 0; i < placed; i++) {                           /* p is in order of places */
            if (p[i].last < q.first || q.last < p[i].first) continue;
            if (p[i].at - end >= q.size && p[i].at - end < gap) { gap = p[i].at - end; q.at = end; }
            if (p[i].at + p[i].size > end) end = p[i].at + p[i].size;
        }
        if (q.at < 0) q.at = end;
        int i = placed;
        for (; i > 0 && p[i - 1].at > q.at; i--) p[i] = p[i - 1];
        p[i] = q;
        if (q.at + q.size > total) total = q.at + q.size;
    }
}
static int64_t call_by_call(const nn__recording *r, const nn__storage *s, int n)
{
    Place block[256] = { { 0, INT64_MAX / 2, 0, 0 } };               /* free memory, in order of places; the last block has no end */
    int64_t at[256], size[256], total = 0;
    int blocks = 1;
    for (int i = 0; i < n; i++) { at[i] = -1; size[i] = nn__storage_bytes_of(&s[i]); }
    for (int c = 0; c < r->calls; c++) {
        const nn__recorded *k = &r->call[c];
        if (!k->op) continue;
        for (int j = k->nin; j < k->nin + k->nout; j++) {
            int o = nn__view_empty(&k->v[j]) ? -1 : nn__storage_of(s, n, &k->v[j]), best = blocks - 1;
            if (o < 0 || s[o].base != NN__PLAN_TEMP || at[o] >= 0) continue;
            for (int in = 0; (k->op->flags & NN_OP_IN_PLACE) && in < k->nin && at[o] < 0; in++) {
                int x = nn__view_empty(&k->v[in]) ? -1 : nn__storage_of(s, n, &k->v[in]);
                if (x >= 0 && s[x].base == NN__PLAN_TEMP && s[x].last == c && size[x] == size[o] && at[x] >= 0) { at[o] = at[x]; at[x] = -1; }
            }
            if (at[o] >= 0) continue;
            for (int b = 0; b < blocks - 1; b++) if (block[b].size >= size[o] && block[b].size < block[best].size) best = b;
            at[o] = block[best].at;
            block[best].at += size[o];
            block[best].size -= size[o];
            if (at[o] + size[o] > total) total = at[o] + size[o];
            if (!block[best].size) { memmove(block + best, block + best + 1, (size_t)(--blocks - best) * sizeof *block); }
        }
        for (int x = 0; x < n; x++) {
            int b = 0;
            if (s[x].base != NN__PLAN_TEMP || s[x].last != c || at[x] < 0) continue;
            while (b < blocks && block[b].at < at[x]) b++;
            memmove(block + b + 1, block + b, (size_t)(blocks++ - b) * sizeof *block);
            block[b].at = at[x]; block[b].size = size[x];
            at[x] = -1;
            if (b + 1 < blocks && block[b].at + block[b].size == block[b + 1].at) { block[b].size += block[b + 1].size; memmove(block + b + 1, block + b + 2, (size_t)(--blocks - b - 1) * sizeof *block); }
            if (b > 0 && block[b - 1].at + block[b - 1].size == block[b].at) { block[b - 1].size += block[b].size; memmove(block + b, block + b + 1, (size_t)(--blocks - b) * sizeof *block); }
        }
    }
    return total;
}
static nn_tensor *skips(void *self, nn_tensor *x)                    /* a small U-Net: what is on the left is needed on the right */
{
    nn_layer **l = self;
    nn_tensor *a = nn_forward(l[0], x), *b = nn_forward(l[1], nn_maxpool2d(a, 2, NULL)), *c = nn_forward(l[2], nn_maxpool2d(b, 2, NULL));
    nn_tensor *wide[2] = { b, nn_upsample(c, nn_dim(b, 2), nn_dim(b, 3), NULL) }, *last[2] = { a, NULL };
    last[1] = nn_upsample(nn_tanh(nn_forward(l[3], nn_concat(wide, 2, 1))), nn_dim(a, 2), nn_dim(a, 3), NULL);
    return nn_forward(l[4], nn_concat(last, 2, 1));
}
static nn_tensor *residual(void *self, nn_tensor *x)
{
    nn_layer **l = self;
    for (int i = 0; i < 6; i += 2) x = nn_relu(nn_add(i ? x : nn_forward(l[6], x), nn_forward(l[i + 1], nn_relu(nn_forward(l[i], i ? x : nn_forward(l[6], x))))));
    return x;
}
static nn_layer *larger(nn_context *nn, int which, nn_shape *shape, nn_layer **own)
{
    if (which < 4) return make(nn, which, shape, own);
    nn_layer *net = nn_model_new(nn, which == 4 || which == 5 ? &(nn_model_desc){ .forward = which == 4 ? skips : residual, .self = own } : NULL);
    if (which == 4) {
        static const int in[5] = { 3, 8, 16, 48, 24 }, out[5] = { 8, 16, 32, 16, 4 };
        *shape = NN_SHAPE(3, 3, 16, 12);
        for (int i = 0; i < 5; i++) own[i] = nn_conv2d_new(net, NULL, in[i], out[i], 3, &(nn_conv2d_desc){ .padding = 1, .activation = i < 3 ? nn_relu : NULL });
    }
    if (which == 5) {
        *shape = NN_SHAPE(3, 3, 14, 14);
        for (int i = 0; i < 7; i++) own[i] = nn_conv2d_new(net, NULL, i < 6 ? 12 : 3, 12, 3, &(nn_conv2d_desc){ .padding = 1 });
    }
    if (which == 6) {
        *shape = NN_SHAPE(3, 17, 24);
        for (int i = 0; i < 3; i++) nn_transformer_encoder_layer_new(net, NULL, 24, 3, &(nn_transformer_desc){ .hidden = 96, .norm_first = i > 0 });
    }
    if (which == 7) {
        *shape = NN_SHAPE(4, 15, 11);
        nn_lstm_new(net, NULL, 11, 20, &(nn_lstm_desc){ .layers = 2, .bidirectional = 1 });
        nn_gru_new(net, NULL, 40, 16, NULL);
        nn_linear_new(net, NULL, 16, 5, NULL);
    }
    if (which == 8) {                /* layers of very different widths */
        static const int width[] = { 30, 400, 10, 70, 300, 300, 20, 500, 40, 90, 7 };
        *shape = NN_SHAPE(6, 30);
        for (int i = 0; i < 10; i++) { nn_linear_new(net, NULL, width[i], width[i + 1], NULL); nn_layernorm_new(net, NULL, NN_SHAPE(width[i + 1]), NULL); nn_fn_new(net, i % 2 ? nn_tanh : nn_gelu); }
    }
    return net;
}
TEST(memory_beside_other_allocators)
{
    for (int which = 0; which < 9; which++) {
        nn_context *nn = quiet();
        nn_layer *own[8];
        nn_shape shape;
        nn_layer *net = larger(nn, which, &shape, own);
        nn_plan *p = nn_plan_new(net, shape, &(nn_plan_desc){ .no_fold = 1 });
        CHECK(p != NULL);
        if (!p) { puts(nn_error(nn)); nn_free(nn); continue; }
        nn__aside aside = nn__aside_begin(nn);
        nn__recording r;
        nn__buffers buffers;
        static nn__storage s[256];
        CHECK(nn__buffers_save(&buffers, net));
        nn__record_net(&r, net, &buffers, shape, NN_F32);
        nn__drop_constant(&r, &r);
        for (int j = 1; j < r.calls; j++) { nn__fuse_sum(&r, &r, j); nn__fuse(&r, &r, j); }
        nn__drop_dead(&r, &r);
        int n = nn__find_storages(&r, s), live = 0;
        for (int i = 0; i < r.calls; i++) live += r.call[i].op != NULL;
        int64_t greedy = greedy_by_size(s, n), inorder = call_by_call(&r, s, n), ours = (int64_t)(p->temp_bytes + p->slice_bytes);
        CHECK(n < 256 && live == p->calls && greedy >= 0 && inorder >= 0);
        printf("net %d: %lld bytes of temporaries; greedy by size %lld, call by call %lld\n", which, (long long)ours, (long long)greedy, (long long)inorder);
        CHECK(ours <= greedy && ours <= inorder);
        if (which == 5) CHECK(ours < greedy);                /* sums lie where their terms do, and those in the caller's memory */
        nn__raw_free(nn, buffers.values);
        nn__raw_free(nn, buffers.t);
        nn__raw_free(nn, r.call);
        nn__aside_end(nn, &aside);
        nn_plan_free(p);
        nn_free(nn);
    }
}

/* A run makes no system call: the kernel would end the process. */
TEST(a_run_asks_nothing_of_the_system)
{
#ifdef ONLY_WRITES
    static float x[5 * 3 * 12 * 10], y[4096];
    for (int which = 0; which < 3; which++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 2 });
        nn_layer *own[2];
        nn_shape shape;
        nn_layer *net = make(nn, which, &shape, own);
        nn_plan *p = nn_plan_new(net, shape, NULL);
        void *work = malloc(nn_plan_bytes(p) + 1);
        int status = 0;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) syscall(SYS_exit, 2);          /* from here on read, write and exit are all it may do */
            int ok = 1;
            for (int i = 0; i < 3; i++) ok &= nn_run_batch(p, work, 1 + i, x, y);
            syscall(SYS_exit, !ok);
        }
        CHECK(child > 0 && waitpid(child, &status, 0) == child);
        free(work);
        nn_plan_free(p);
        nn_free(nn);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 2) SKIP("this system has no seccomp");
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
#else
    SKIP("Linux only, without sanitizers");
#endif
}

static char printed[1 << 14];
static void keep_text(void *user, const char *text) { (void)user; strncat(printed, text, sizeof printed - strlen(printed) - 1); }
TEST(a_plan_is_printed)              /* a line for every call: op, shape, bytes, multiply-adds, time, speed; their sums below */
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .log = keep_text });
    nn_layer *net = nn_model_new(nn, NULL);
    char op[32], shape[64];
    int step, steps = 0;
    long long bytes, work, constants;
    double macs, us, speed, total;
    nn_conv2d_new(net, NULL, 3, 8, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_linear_new(net, NULL, 8 * 5 * 4, 10, NULL);
    nn_plan *p = nn_plan_new(net, NN_SHAPE(4, 3, 10, 8), NULL);
    printed[0] = 0;
    nn_plan_print(p);
    char *at = strchr(printed, '\n');
    CHECK_TEXT(printed, "bytes    mult-adds         us  GFLOP/s");
    static const struct { const char *op, *shape; int bytes, macs; } want[] = { { "conv2d", "(4, 8, 10, 8)", 10240, 69120 }, { "maxpool2d", "(4, 8, 5, 4)", 2560, 0 }, { "linear", "(4, 10)", 160, 6400 } };
    for (int i = 0; i < 3; i++, at = at ? strchr(at + 1, '\n') : NULL) {
        CHECK(at && sscanf(at, " %d %31s forward %63[^)] ) %lld %lf %lf %lf", &step, op, shape, &bytes, &macs, &us, &speed) == 7);
        CHECK(step == i && !strcmp(op, want[i].op) && !strncmp(shape, want[i].shape, strlen(shape)) && bytes == want[i].bytes && macs == want[i].macs);
        CHECK(us >= 0 && us < 1e5 && (macs > 0 || speed == 0) && (us == 0 || fabs(speed - 2e-3 * macs / us) <= 0.06 + 0.2 * speed));       /* figures are rounded */
    }
    CHECK(at && sscanf(at, " %d calls, %lf multiply-adds, %lf us, workspace %lld", &steps, &macs, &total, &work) == 4);
    CHECK(steps == 3 && macs == 69120 + 6400 && work == (long long)nn_plan_bytes(p));
    at = strstr(printed, "constants ");
    CHECK(at && sscanf(at, "constants %lld", &constants) == 1 && constants >= (long long)(8 * 160 + 10 * 8) * 4);
    nn_plan_free(p);
    nn_free(nn);
}

/* ---- multiply-adds: what nn_profile, nn_plan_print and nn_step_plan_print count is the formula's ---- */
typedef struct Work { nn_layer *net, *rnn; nn_tensor *p[3], *one; struct Case const *c; } Work;
typedef struct Case { const char *what, *op; nn_tensor *(*f)(Work *w, nn_tensor *x); nn_shape x; double forward, backward; } Case;
static nn_tensor *param(Work *w, int i, nn_shape shape)
{
    char name[2] = { (char)('a' + i), 0 };
    if (!w->p[i]) w->p[i] = nn_param_new(w->net, name, shape);
    return w->p[i];
}
static nn_tensor *lengths_of(nn_tensor *x, int64_t first) { int64_t n[3] = { first, 2, 0 }; return nn_from_as(x->nn, NN_I64, NN_SHAPE(nn_dim(x, 0)), n); }
static nn_tensor *by_heads(nn_tensor *x)  { return nn_permute(nn_reshape(x, NN_SHAPE(nn_dim(x, 0), nn_dim(x, 1), 2, 4)), NN_DIMS(0, 2, 1, 3)); }
static nn_tensor *heads(nn_tensor *q, nn_tensor *k, const nn_attention_desc *d) { return nn_scaled_dot_product_attention(by_heads(q), by_heads(k), by_heads(k), d); }
static nn_tensor *rnn(Work *w, nn_tensor *x, int kind, nn_rnn_state *state)
{
    if (!w->rnn) w->rnn = (kind == 0 ? nn_rnn_new : kind == 1 ? nn_gru_new : nn_lstm_new)(w->net, "rnn", 5, 7, &(nn_rnn_desc){ .proj = kind == 3 ? 3 : 0 });
    return nn_rnn_forward(w->rnn, x, state);
}
static nn_tensor *bf16(nn_context *nn, int64_t n, int64_t k) { return nn_cast(nn_zeros(nn, NN_SHAPE(n, k)), NN_BF16); }
#define CASE(name) static nn_tensor *case_##name(Work *w, nn_tensor *x)
CASE(matmul)      { return nn_matmul(x, param(w, 0, NN_SHAPE(5, 6))); }
CASE(batched)     { (void)w; return nn_matmul(x, nn_permute(x, NN_DIMS(0, 2, 1))); }
CASE(vector)      { return nn_matmul(x, param(w, 0, NN_SHAPE(5))); }
CASE(linear)      { return nn_linear(x, param(w, 0, NN_SHAPE(7, 5)), param(w, 1, NN_SHAPE(7)), NULL); }
CASE(activated)   { return nn_linear(x, param(w, 0, NN_SHAPE(7, 5)), NULL, &(nn_linear_desc){ .activation = nn_relu }); }
CASE(only_weight) { return nn_linear(nn_detach(x), param(w, 0, NN_SHAPE(7, 5)), NULL, NULL); }
CASE(only_bias)   { return nn_linear(nn_detach(x), nn_detach(param(w, 0, NN_SHAPE(7, 5))), param(w, 1, NN_SHAPE(7)), NULL); }
CASE(small)       { (void)w; return nn_linear(x, bf16(x->nn, 7, 5), NULL, NULL); }
CASE(conv)        { return nn_conv2d(x, param(w, 0, NN_SHAPE(4, 3, 3, 3)), param(w, 1, NN_SHAPE(4)), &(nn_conv2d_desc){ .padding = 1 }); }
CASE(winograd)    { return nn_conv2d(x, param(w, 0, NN_SHAPE(32, 16, 3, 3)), NULL, &(nn_conv2d_desc){ .padding = 1 }); }
CASE(strided)     { return nn_conv2d(x, param(w, 0, NN_SHAPE(6, 3, 5, 5)), NULL, &(nn_conv2d_desc){ .stride = 2 }); }
CASE(depthwise)   { return nn_conv2d(x, param(w, 0, NN_SHAPE(6, 1, 3, 3)), NULL, &(nn_conv2d_desc){ .groups = 3 }); }
CASE(conv1d)      { return nn_conv1d(x, param(w, 0, NN_SHAPE(4, 3, 3)), NULL, NULL); }
CASE(transposed)  { return nn_conv_transpose2d(x, param(w, 0, NN_SHAPE(3, 4, 3, 3)), NULL, &(nn_conv_transpose2d_desc){ .stride = 2 }); }
CASE(transposed_groups) { return nn_conv_transpose2d(x, param(w, 0, NN_SHAPE(4, 3, 2, 2)), NULL, &(nn_conv_transpose2d_desc){ .groups = 2 }); }
CASE(attention)   { (void)w; return heads(x, x, NULL); }
CASE(causal)      { (void)w; return heads(x, x, &(nn_attention_desc){ .causal = 1 }); }
CASE(tail)        { (void)w; return heads(nn_slice(x, 1, 3, 5, 1), x, &(nn_attention_desc){ .causal = 1 }); }          /* the last two queries */
CASE(lengths)     { (void)w; return heads(x, x, &(nn_attention_desc){ .lengths = lengths_of(x, 5) }); }
CASE(both)        { (void)w; return heads(x, x, &(nn_attention_desc){ .lengths = lengths_of(x, 5), .causal = 1 }); }
CASE(packed)      { (void)w; return nn_attention(x, NULL, NULL, &(nn_attention_desc){ .heads = 4, .kv_heads = 2, .causal = 1 }); }
CASE(only_values) { (void)w; return nn_scaled_dot_product_attention(by_heads(nn_detach(x)), by_heads(nn_detach(x)), by_heads(x), NULL); }
CASE(only_query)  { (void)w; return nn_scaled_dot_product_attention(by_heads(x), by_heads(nn_detach(x)), by_heads(nn_detach(x)), NULL); }
CASE(only_mask)   { x = nn_detach(x); return heads(x, x, &(nn_attention_desc){ .mask = param(w, 0, NN_SHAPE(5, 5)) }); }
CASE(dropped)     { (void)w; return heads(x, x, &(nn_attention_desc){ .dropout = 0.5f }); }
CASE(rnn)         { return rnn(w, x, 0, &(nn_rnn_state){ 0 }); }
CASE(gru)         { return rnn(w, x, 1, &(nn_rnn_state){ 0 }); }
CASE(lstm)        { return rnn(w, x, 2, &(nn_rnn_state){ 0 }); }
CASE(projected)   { return rnn(w, x, 3, &(nn_rnn_state){ 0 }); }
CASE(rnn_lengths) { return rnn(w, x, 1, &(nn_rnn_state){ .lengths = lengths_of(x, 6) }); }
static const Case cases[] = {        /* pairs of attention: 3 samples, 2 heads, sizes of 4 */
    { "matmul",            "matmul",       case_matmul,      { 3, { 3, 4, 5 } },     3 * 4 * 6 * 5,        2 * 3 * 4 * 6 * 5 },
    { "batched",           "matmul",       case_batched,     { 3, { 3, 4, 5 } },     3 * 4 * 4 * 5,        2 * 3 * 4 * 4 * 5 },
    { "vector",            "matmul",       case_vector,      { 2, { 3, 5 } },        3 * 5,                2 * 3 * 5 },
    { "linear",            "linear",       case_linear,      { 3, { 3, 2, 5 } },     3 * 2 * 7 * 5,        2 * 3 * 2 * 7 * 5 },
    { "activated",         "linear",       case_activated,   { 2, { 3, 5 } },        3 * 7 * 5,            2 * 3 * 7 * 5 },
    { "only weight",       "linear",       case_only_weight, { 2, { 3, 5 } },        3 * 7 * 5,            3 * 7 * 5 },
    { "only bias",         "linear",       case_only_bias,   { 2, { 3, 5 } },        3 * 7 * 5,            0 },
    { "small",             "linear_small", case_small,       { 2, { 3, 5 } },        3 * 7 * 5,            3 * 7 * 5 },
    { "conv",              "conv2d",       case_conv,        { 4, { 2, 3, 8, 6 } },  2 * 4 * 48 * 27,      2 * 2 * 4 * 48 * 27 },
    { "winograd",          "conv2d",       case_winograd,    { 4, { 2, 16, 8, 8 } }, 2 * 32 * 64 * 144,    2 * 2 * 32 * 64 * 144 },
    { "strided",           "conv2d",       case_strided,     { 4, { 2, 3, 9, 7 } },  2 * 6 * 6 * 75,       2 * 2 * 6 * 6 * 75 },
    { "depthwise",         "conv2d",       case_depthwise,   { 4, { 2, 3, 5, 5 } },  2 * 6 * 9 * 9,        2 * 2 * 6 * 9 * 9 },
    { "conv1d",            "conv2d",       case_conv1d,      { 3, { 2, 3, 8 } },     2 * 4 * 6 * 9,        2 * 2 * 4 * 6 * 9 },
    { "transposed",        "conv_transpose2d", case_transposed, { 4, { 2, 3, 5, 5 } }, 2 * 3 * 25 * 36,    2 * 2 * 3 * 25 * 36 },
    { "transposed groups", "conv_transpose2d", case_transposed_groups, { 4, { 2, 4, 5, 5 } }, 2 * 4 * 25 * 12, 2 * 2 * 4 * 25 * 12 },
    { "attention",         "attention",    case_attention,   { 3, { 3, 5, 8 } },     6 * 25 * 8,           6 * 25 * 20 },
    { "causal",            "attention",    case_causal,      { 3, { 3, 5, 8 } },     6 * 15 * 8,           6 * 15 * 20 },
    { "tail",              "attention",    case_tail,        { 3, { 3, 5, 8 } },     6 * 9 * 8,            6 * 9 * 20 },
    { "lengths",           "attention",    case_lengths,     { 3, { 3, 5, 8 } },     2 * (25 + 10) * 8,    2 * (25 + 10) * 20 },
    { "both",              "attention",    case_both,        { 3, { 3, 5, 8 } },     2 * (15 + 9) * 8,     2 * (15 + 9) * 20 },
    { "packed",            "attention",    case_packed,      { 3, { 3, 5, 16 } },    12 * 15 * 4,          12 * 15 * 10 },
    { "only values",       "attention",    case_only_values, { 3, { 3, 5, 8 } },     6 * 25 * 8,           6 * 25 * 8 },
    { "only query",        "attention",    case_only_query,  { 3, { 3, 5, 8 } },     6 * 25 * 8,           6 * 25 * 12 },
    { "only mask",         "attention",    case_only_mask,   { 3, { 3, 5, 8 } },     6 * 25 * 8,           6 * 25 * 8 },
    { "dropped",           "attention_dropout", case_dropped, { 3, { 3, 5, 8 } },    6 * 25 * 8,           6 * 25 * 20 },
    { "rnn",               "rnn",          case_rnn,         { 3, { 3, 6, 5 } },     3 * 6 * 7 * 7,        2 * 3 * 6 * 7 * 7 },
    { "gru",               "rnn",          case_gru,         { 3, { 3, 6, 5 } },     3 * 6 * 21 * 7,       2 * 3 * 6 * 21 * 7 },
    { "lstm",              "rnn",          case_lstm,        { 3, { 3, 6, 5 } },     3 * 6 * 28 * 7,       2 * 3 * 6 * 28 * 7 },
    { "projected",         "rnn",          case_projected,   { 3, { 3, 6, 5 } },     3 * 6 * (28 * 3 + 7 * 3), 2 * 3 * 6 * (28 * 3 + 7 * 3) },
    { "rnn lengths",       "rnn",          case_rnn_lengths, { 3, { 3, 6, 5 } },     8 * 21 * 7,           2 * 8 * 21 * 7 } };

static nn_tensor *case_forward(void *self, nn_tensor *x)     /* a parameter in front: gradients go through, unless a case stops them */
{
    Work *w = self;
    if (!w->one) w->one = nn_param_new(w->net, "one", NN_SHAPE(1));
    return w->c->f(w, nn_mul(x, w->one));
}
static nn_tensor *case_step(void *self, nn_tensor *x, nn_tensor *y)
{
    nn_tensor *loss = nn_sum(case_forward(self, x), NN_ALL, NULL);
    (void)y;
    nn_backward(loss);
    nn_zero_grad(((Work *)self)->net);
    return loss;
}
/* Sums over the lines of what was printed, for an op (NULL: all) and a pass. */
static double printed_macs(const char *op, const char *pass)
{
    double sum = 0, bytes, macs;
    char name[32], direction[16];
    for (const char *at = strchr(printed, '\n'); at; at = strchr(at + 1, '\n')) {
        const char *sizes = strchr(at, ')');
        if (sscanf(at, " %*d %31s %15s", name, direction) != 2 || (strcmp(direction, "forward") && strcmp(direction, "backward")) || !sizes) continue;
        if (sscanf(sizes, ") %lf %lf", &bytes, &macs) == 2 && (!op || !strcmp(op, name)) && !strcmp(direction, pass)) sum += macs;
    }
    return sum;
}
static double profiled_macs(const nn_context *nn, const char *op, nn_pass pass)
{
    for (int i = 0; i < NN_OP_COUNT; i++) if (nn->profile->time[i][pass].op && !strcmp(nn->profile->time[i][pass].op->name, op)) return nn->profile->time[i][pass].macs;
    return 0;
}
static void count_case(const Case *c)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .log = keep_text });
    Work w = { .c = c };
    w.net = nn_model_new(nn, &(nn_model_desc){ .forward = case_forward, .self = &w });
    nn_tensor *x = nn_tensor_new(nn, c->x, NULL);
    double got[5];
    nn_profile(nn, 1);
    nn_begin(nn, NN_TRAIN);
    case_step(&w, x, NULL);
    nn_profile(nn, 0);
    got[0] = profiled_macs(nn, c->op, NN_FORWARD);
    got[1] = profiled_macs(nn, c->op, NN_BACKWARD);
    nn_step_plan *steps = nn_step_plan_new(w.net, &(nn_step_plan_desc){ .step = case_step, .user = &w });
    for (int i = 0; i < 6; i++) nn_step_plan_run(steps, x, NULL);
    printed[0] = 0;
    nn_step_plan_print(steps);
    int repeated = !nn_step_plan_why(steps);
    got[2] = repeated ? printed_macs(c->op, "forward") : c->forward;
    got[3] = repeated ? printed_macs(c->op, "backward") : c->backward;
    nn_step_plan_free(steps);
    nn_begin(nn, NN_EVAL);
    nn_plan *p = nn_plan_new(w.net, c->x, NULL);
    printed[0] = 0;
    nn_plan_print(p);
    got[4] = printed_macs(strcmp(c->op, "attention_dropout") ? c->op : "attention", "forward");
    nn_plan_free(p);
    int right = nn_ok(nn) && got[0] == c->forward && got[2] == c->forward && got[4] == c->forward && got[1] == c->backward && got[3] == c->backward;
    if (!right) printf("%s: %.0f %.0f, not %.0f; %.0f %.0f, not %.0f %s\n", c->what, got[0], got[4], c->forward, got[1], got[3], c->backward, nn_error(nn));
    CHECK(right && (repeated || strstr(c->what, "lengths") || !strcmp(c->what, "both") || !strcmp(c->what, "small")));
    nn_free(nn);
}
TEST(multiply_adds_are_the_formulas) { for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) count_case(&cases[i]); }

/* A new op with products is noticed: every structured op has a case above, or none to count. */
TEST(every_op_with_products_is_counted)
{
    static const char without[] = " copy cast fill accumulate contiguous reshape permute slice expand sum max min prod var std logsumexp norm argmax argmin cumsum softmax log_softmax "
        "dequantize flip concat gather scatter_add index_select embedding one_hot tril triu sort topk pad arange maxpool2d avgpool2d upsample batchnorm layernorm groupnorm rmsnorm "
        "add_layernorm add_rmsnorm dropout mse l1 huber smooth_l1 hinge binary_cross_entropy cross_entropy nll multi_margin kl_div rope ctc_loss sgd_update rmsprop_update adagrad_update "
        "adam_update nadam_update lion_update ema_update swap square_sum clip_scale random linear_update ";      /* the last: test below */
    for (int id = NN_OP_where + 1; id < NN_OP_COUNT; id++) {
        char name[40];
        int counted = 0;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) counted |= !strcmp(cases[i].op, nn__ops[id].name);
        snprintf(name, sizeof name, " %s ", nn__ops[id].name);
        if (counted == (strstr(without, name) != NULL)) printf("%s: has it products?\n", nn__ops[id].name);
        CHECK(counted != (strstr(without, name) != NULL));
    }
}

/* ---- nn_step_plan_print ---- */
enum { STEPS = 9 };
static nn_tensor *trained_layers(nn_context *nn, nn_layer **net)     /* everything that a step changes: parameters, states, statistics, masks */
{
    *net = nn_model_new(nn, NULL);
    nn_linear_new(*net, NULL, 5, 7, NULL);
    nn_batchnorm_new(*net, NULL, 7, NULL);
    nn_fn_new(*net, nn_relu);
    nn_dropout_new(*net, 0.5f);
    nn_linear_new(*net, NULL, 7, 3, NULL);
    float x[20];
    fill(x, 20);
    return nn_tensor_new(nn, NN_SHAPE(4, 5), x);
}
static void train_printed(int print, float *losses, float *weights, double *macs)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 2, .log = keep_text, .seed = 3 });
    nn_layer *net;
    nn_tensor *x = trained_layers(nn, &net), *y = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(4), (int64_t[]){ 0, 2, 1, 1 });
    nn_step_plan *p = nn_step_plan_new(net, &(nn_step_plan_desc){ .loss = nn_cross_entropy, .optimizer = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.01f }) });
    for (int i = 0; i < STEPS; i++) {
        losses[i] = (float)nn_item(nn_step_plan_run(p, x, y));
        if (!print) continue;
        printed[0] = 0;
        nn_profile(nn, 1);
        nn_step_plan_print(p);
        nn_profile(nn, 0);
        CHECK(!nn->profile->time[NN_OP_linear][NN_FORWARD].calls);    /* its runs are no part of the profile */
        if (nn_step_plan_why(p)) CHECK_TEXT(printed, "the step is not repeated: ");
    }
    if (print) {
        int calls = 0, listed;
        double sum = 0, us;
        CHECK(nn_step_plan_why(p) == NULL);
        CHECK_TEXT(printed, "linear_update         forward  (7, 5)                          140          140");
        CHECK_TEXT(printed, "linear                backward (4, 7)");
        CHECK_TEXT(printed, "adam_update           forward");
        CHECK_TEXT(printed, "batchnorm             backward");
        for (const char *at = printed; (at = strchr(at, '\n')) != NULL; at++) calls++;
        const char *last = strstr(printed, "calls, ");
        while (last && last > printed && last[-1] != '\n') last--;
        CHECK(last && sscanf(last, "%d calls, %lf multiply-adds, %lf us, memory", &listed, &sum, &us) == 3 && listed == nn_step_plan_calls(p) && calls == listed + 2);
        CHECK(sum == printed_macs(NULL, "forward") + printed_macs(NULL, "backward"));
        *macs = sum;
    }
    CHECK(nn_ok(nn) && nn_read(nn_param(net, "0.weight"), weights) && nn_read(nn_param(net, "1.running_var"), weights + 35));
    nn_step_plan_free(p);
    nn_free(nn);
}
TEST(a_step_is_printed)              /* and nothing else happens */
{
    float losses[2][STEPS], weights[2][42];
    double macs = 0;
    for (int print = 0; print < 2; print++) train_printed(print, losses[print], weights[print], &macs);
    CHECK(!memcmp(losses[0], losses[1], sizeof losses[0]) && !memcmp(weights[0], weights[1], sizeof weights[0]));
    CHECK(macs == 4 * (35 + 21) + 4 * 21 + 4 * (21 + 35));           /* forward; dX of the last layer; dW of both, inside of their updates */
    nn_step_plan_print(NULL);
}

static nn_tensor *cached(void *self, nn_tensor *x) { return nn_attention(x, x, x, &(nn_attention_desc){ .causal = 1, .heads = 2, .cache = self }); }
TEST(a_decoding_step_is_printed)     /* with the length that the cache has now */
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .log = keep_text });
    nn_kv_cache *cache = nn_kv_cache_new(nn, 3, 2, 20, 4, 0);
    nn_layer *net = nn_model_new(nn, &(nn_model_desc){ .forward = cached, .self = cache });
    nn_tensor *x = nn_ones(nn, NN_SHAPE(3, 1, 8)), *y;
    float a[24], b[24];
    x = nn_tensor_new(nn, NN_SHAPE(3, 1, 8), nn_data(x));
    nn_step_plan *p = nn_step_plan_new(net, &(nn_step_plan_desc){ .eval = 1 });
    for (int i = 1; i <= 12; i++) {
        y = nn_step_plan_run(p, x, NULL);
        CHECK(nn_read(y, a) && fabsf(a[0] - 1) < 1e-6f);             /* all values are 1: nothing of the cache was overwritten */
        printed[0] = 0;
        nn_step_plan_print(p);
        CHECK(nn_read(y, b) && !memcmp(a, b, sizeof a) && nn_kv_cache_length(cache) == i);
        if (i > 6) CHECK(!nn_step_plan_why(p) && printed_macs("attention", "forward") == 3 * 2 * i * 8);
    }
    CHECK(nn_ok(nn));
    nn_step_plan_free(p);
    nn_free(nn);
}

/* Scratch that a task has for itself is at most 1 MB, whatever the sizes. Sorting apart (32 bytes for a number of a line). */
static size_t task_most;
static int watch(void *self, const nn_call *c)
{
    int done = nn__cpu_run(self, c);
    if (c->task_bytes > task_most) task_most = c->task_bytes;
    return done;
}
static void backward_from(nn_tensor *y) { nn_backward_with(y, &(nn_backward_desc){ .grad = nn_zeros(y->nn, nn_shape_of(y)) }); }
static nn_tensor *zeros_of(nn_context *nn, nn_shape s) { return nn_want_grad(nn_zeros(nn, s)); }
TEST(scratch_of_a_task)
{
    static const int channels[] = { 1, 3, 16, 17, 64, 100, 512 }, sides[] = { 1, 4, 6, 14, 28, 56 }, kernels[] = { 1, 3, 5, 7 }, batches[] = { 1, 3, 64 };
    static const int sizes[] = { 1, 10, 100, 512, 2048, 12544 };
    nn_context *nn = nn_new(&(nn_desc){ .measure = 1, .threads = 2 });
    nn->cpu.run = watch;
    for (int v = 0; v < 7 * 7 * 6 * 4 * 3; v++) for (int stride = 1; stride < 4; stride++) for (int kind = 0; kind < 3; kind++) {     /* plain, depthwise, transposed */
        int c = channels[v % 7], o = channels[v / 7 % 7], side = sides[v / 49 % 6], k = kernels[v / 294 % 4], b = batches[v / 1176];
        nn_conv_desc d = { .stride = stride, .padding = k / 2, .groups = kind == 1 ? c : 1 };
        if (kind == 1 && o != 16) continue;
        task_most = 0;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = zeros_of(nn, NN_SHAPE(b, c, side, side));
        if (kind == 2) backward_from(nn_conv_transpose2d(x, zeros_of(nn, NN_SHAPE(c, o, k, k)), NULL, &d));
        else backward_from(nn_conv2d(x, zeros_of(nn, kind ? NN_SHAPE(c, 1, k, k) : NN_SHAPE(o, c, k, k)), NULL, &d));
        if (task_most > 1 << 20) printf("convolution: batch %d, %d -> %d, side %d, kernel %d, stride %d, kind %d: %d bytes\n", b, c, o, side, k, stride, kind, (int)task_most);
        CHECK(nn_ok(nn) && task_most <= 1 << 20);
    }
    for (int v = 0; v < 6 * 6 * 6 * 3; v++) {
        int m = sizes[v % 6], n = sizes[v / 6 % 6], k = sizes[v / 36 % 6], form = v / 216;
        task_most = 0;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *a = zeros_of(nn, form == 1 ? NN_SHAPE(k, m) : form == 2 ? NN_SHAPE(m, k, 2) : NN_SHAPE(m, k)), *w = zeros_of(nn, NN_SHAPE(n, k));
        if (form == 0) backward_from(nn_linear(a, w, NULL, NULL));
        else backward_from(nn_matmul(form == 1 ? nn_transpose(a, 0, 1) : nn_squeeze(nn_slice(a, 2, 0, 1, 1), 2), nn_transpose(w, 0, 1)));
        if (task_most > 1 << 20) printf("product %d x %d x %d, form %d: %d bytes\n", m, n, k, form, (int)task_most);
        CHECK(nn_ok(nn) && task_most <= 1 << 20);
    }
    for (int v = 0; v < 12; v++) {
        int d = 32 << v % 4, t = v / 4 ? 3000 : 7;
        task_most = 0;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *q = zeros_of(nn, NN_SHAPE(2, t, 4 * d)), *h = zeros_of(nn, NN_SHAPE(3, 5, 64 << v % 4));
        backward_from(nn_attention(q, q, q, &(nn_attention_desc){ .heads = 4, .causal = v & 1 }));
        nn_layer *net = nn_model_new(nn, NULL);
        backward_from(nn_forward(v < 4 ? nn_lstm_new(net, NULL, 64 << v % 4, 64 << v % 4, NULL) : nn_gru_new(net, NULL, 64 << v % 4, 64 << v % 4, NULL), v < 8 ? h : zeros_of(nn, NN_SHAPE(200, 5, 64 << v % 4))));
        backward_from(nn_maxpool2d(zeros_of(nn, NN_SHAPE(2, 3, 50, 1000)), 3, &(nn_maxpool2d_desc){ .stride = 1 + v % 3 }));
        if (task_most > 1 << 20) printf("attention, recurrent nets, pooling %d: %d bytes\n", v, (int)task_most);
        CHECK(nn_ok(nn) && task_most <= 1 << 20);
    }
    if (!nn_ok(nn)) puts(nn_error(nn));
    nn_free(nn);
}

typedef struct worker { const nn_plan *p; const float *x; float y[20]; int ok; } worker;
static void *run_many(void *arg)
{
    worker *w = arg;
    char *memory = malloc(nn_plan_bytes(w->p));
    w->ok = 1;
    for (int i = 0; i < 50; i++) w->ok &= nn_run(w->p, memory, w->x, w->y);
    free(memory);
    return NULL;
}
TEST(eight_threads_share_a_plan_while_its_net_trains)
{
    static float x[5 * 360];
    nn_context *nn = quiet();
    nn_shape shape;
    nn_layer *net = make(nn, 1, &shape, NULL);
    nn_optimizer *opt = nn_sgd_new(net, NULL);
    worker w[8];
    pthread_t thread[8];
    float y[20];
    fill(x, 5 * 360);
    nn_plan *p = nn_plan_new(net, shape, NULL);
    char *memory = malloc(nn_plan_bytes(p));
    CHECK(nn_run(p, memory, x, y));
    for (int i = 0; i < 8; i++) { w[i].p = p; w[i].x = x; pthread_create(&thread[i], NULL, run_many, &w[i]); }
    for (int i = 0; i < 5; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_mean(nn_square(nn_forward(net, nn_from(nn, shape, x))), NN_ALL, NULL));
        nn_step(opt);
    }
    for (int i = 0; i < 8; i++) { pthread_join(thread[i], NULL); CHECK(w[i].ok && !memcmp(w[i].y, y, sizeof y)); }
    free(memory);
    nn_plan_free(p);
    nn_free(nn);
}

/* A state in buffers of the net: it goes on in the workspace; two workspaces are two streams; the net's buffers stay as they are. */
typedef struct Stream { nn_layer *lstm; nn_tensor *h, *c, *sum; } Stream;
static nn_tensor *stream(void *self, nn_tensor *x)                  /* (2, 1, 3) -> (2, 1, 5), plus the running sum of all outputs */
{
    Stream *s = self;
    nn_rnn_state state = { .h = s->h, .c = s->c };
    nn_tensor *y = nn_rnn_forward(s->lstm, x, &state);
    nn_copy(s->h, state.h);
    nn_copy(s->c, state.c);
    nn_copy(s->sum, nn_add(s->sum, y));
    return nn_add(y, s->sum);
}
TEST(a_stateful_plan)
{
    enum { T = 6 };
    Stream s;
    float x[2][T][6], y[2][T][10], expect[2][T][10], start[10], after[10];
    nn_context *nn = nn_new(&(nn_desc){ .seed = 4 });
    nn_layer *net = nn_layer_new(nn_model_new(nn, NULL), "stream", &(nn_layer_desc){ .forward = stream, .self = &s });
    s.lstm = nn_lstm_new(net, "lstm", 3, 5, NULL);
    s.h = nn_buffer_new(net, "h", NN_SHAPE(1, 2, 5));
    s.c = nn_buffer_new(net, "c", NN_SHAPE(1, 2, 5));
    s.sum = nn_buffer_new(net, "sum", NN_SHAPE(2, 1, 5));
    for (int i = 0; i < 10; i++) start[i] = 0.1f * (float)i;
    nn_write(s.sum, start);
    fill(x[0][0], sizeof x / sizeof(float));
    nn_plan *plan = nn_plan_new(net, NN_SHAPE(2, 1, 3), NULL);
    CHECK(plan && nn_ok(nn) && !nn_plan_any_batch(plan));
    CHECK(nn_read(s.sum, after) && !memcmp(start, after, sizeof start));
    void *work[2] = { malloc(nn_plan_bytes(plan)), malloc(nn_plan_bytes(plan)) };
    for (int again = 0; again < 2; again++) {
        for (int k = 0; k < 2; k++) { if (!again) memset(work[k], 255, nn_plan_bytes(plan)); nn_plan_reset(plan, work[k]); }
        for (int t = 0; t < T; t++) for (int k = 0; k < 2; k++) CHECK(nn_run(plan, work[k], x[k][t], y[k][t]));
        for (int k = 0; k < 2 && !again; k++) {
            nn_write(s.sum, start);
            nn_copy(s.h, nn_zeros(nn, NN_SHAPE(1, 2, 5)));
            nn_copy(s.c, nn_zeros(nn, NN_SHAPE(1, 2, 5)));
            for (int t = 0; t < T; t++) { nn_begin(nn, NN_EVAL); CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(2, 1, 3), x[k][t])), expect[k][t])); }
        }
        CHECK(!memcmp(y, expect, sizeof y));
    }
    CHECK(memcmp(y[0][0], y[0][T - 1], sizeof y[0][0]) && nn_ok(nn));
    nn_plan_print(plan);
    for (int k = 0; k < 2; k++) free(work[k]);
    nn_plan_free(plan);
    nn_free(nn);
}

TEST(integers_go_in)                 /* token numbers into an embedding */
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    int64_t x[6] = { 3, 0, 9, 9, 1, 2 };
    float y[2][24];
    nn_embedding_new(net, NULL, 10, 4);
    nn_plan *p = nn_plan_new(net, NN_SHAPE(2, 3), &(nn_plan_desc){ .dtype = NN_I64 });
    CHECK(p != NULL);
    char *w = malloc(nn_plan_bytes(p) + 1);
    CHECK(nn_run(p, w, x, y[0]));
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(nn_forward(net, nn_from_as(nn, NN_I64, NN_SHAPE(2, 3), x)), y[1]) && !memcmp(y[0], y[1], sizeof y[0]));
    free(w);
    nn_plan_free(p);
    nn_free(nn);
}

