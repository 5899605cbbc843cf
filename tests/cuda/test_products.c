/* test_products.c - products and convolutions of nn_cuda.h at sizes that the op table's cases do not have: large tiles, tiles and one more,
   sums in parts, thin factors, batches that are folded, phases of strides, every precision. Beside the CPU; built and run as test_cuda.c.
   NN_ROW=n runs one row; NN_PRECISION=0..3 one precision. */
#include "../../nn.h"
#include "../../nn_cuda.h"
#include "../test.h"

enum { MATMUL, LINEAR, SMALL, CONV, TRANSPOSED };
typedef struct row {
    int op, size[8];                 /* matmul: batch, m, n, k; linear: m, n, k; conv: B, C, H, W, O, K, KW, groups */
    int a, b;                        /* matmul: 1 turned, 2 broadcast; linear: activation; conv: stride, padding */
    int c;                           /* linear_small: dtype, group; conv: dilation */
    int precisions;                  /* how many of the four */
} row;
static const row rows[] = {
    { MATMUL, { 1, 1, 1, 1 }, 0, 0, 0, 4 },       { MATMUL, { 1, 64, 64, 16 }, 0, 0, 0, 4 },   { MATMUL, { 1, 65, 67, 33 }, 0, 0, 0, 4 },
    { MATMUL, { 1, 65, 67, 33 }, 1, 0, 0, 4 },    { MATMUL, { 1, 65, 67, 33 }, 0, 1, 0, 4 },   { MATMUL, { 1, 65, 67, 33 }, 1, 1, 0, 4 },
    { MATMUL, { 1, 68, 72, 36 }, 0, 0, 0, 4 },    { MATMUL, { 1, 68, 72, 36 }, 1, 0, 0, 4 },   { MATMUL, { 1, 68, 72, 36 }, 0, 1, 0, 4 },
    { MATMUL, { 1, 68, 72, 36 }, 1, 1, 0, 4 },    { MATMUL, { 1, 20, 24, 1500 }, 0, 0, 0, 4 }, { MATMUL, { 1, 21, 23, 1501 }, 1, 1, 0, 2 },
    { MATMUL, { 3, 9, 30, 40 }, 2, 0, 0, 2 },     { MATMUL, { 3, 9, 30, 40 }, 0, 2, 0, 2 },    { MATMUL, { 3, 9, 30, 40 }, 1, 2, 0, 1 },
    { MATMUL, { 3, 9, 30, 40 }, 2, 1, 0, 1 },     { MATMUL, { 24, 130, 132, 12 }, 0, 0, 0, 4 }, { MATMUL, { 24, 129, 131, 9 }, 1, 1, 0, 1 },
    { MATMUL, { 1, 3, 130, 70 }, 0, 0, 0, 1 },    { MATMUL, { 1, 130, 5, 72 }, 0, 0, 0, 1 },   { MATMUL, { 2, 8, 33, 600 }, 0, 1, 0, 1 },
    { LINEAR, { 1, 100, 65 }, 0, 0, 0, 1 },       { LINEAR, { 5, 36, 1400 }, 0, 0, 0, 1 },     { LINEAR, { 70, 66, 65 }, 2, 0, 0, 4 },
    { LINEAR, { 9, 1, 33 }, 2, 0, 0, 1 },         { LINEAR, { 1300, 12, 20 }, 0, 0, 0, 2 },    { LINEAR, { 2, 300, 1 }, 1, 0, 0, 1 },
    { SMALL, { 1, 100, 64 }, 0, NN_BF16, 0, 1 },  { SMALL, { 3, 40, 1040 }, 0, NN_F16, 0, 1 }, { SMALL, { 8, 36, 64 }, 0, NN_I8, 16, 1 },
    { SMALL, { 1, 37, 77 }, 0, NN_I4, 16, 1 },   { SMALL, { 20, 37, 66 }, 0, NN_I4, 8, 2 },   { SMALL, { 20, 37, 66 }, 0, NN_I8, 33, 2 },   { SMALL, { 1, 33, 96 }, 1, NN_I8, 0, 1 },
    { CONV, { 2, 3, 9, 8, 17, 3, 3, 1 }, 1, 1, 1, 4 },   { CONV, { 3, 8, 8, 8, 20, 1, 1, 1 }, 1, 0, 1, 4 },  { CONV, { 2, 8, 9, 7, 20, 1, 1, 1 }, 2, 0, 1, 2 },
    { CONV, { 1, 70, 6, 6, 66, 3, 3, 1 }, 1, 0, 1, 4 },  { CONV, { 2, 6, 13, 11, 12, 3, 5, 2 }, 2, 1, 1, 2 }, { CONV, { 2, 5, 12, 11, 5, 3, 3, 5 }, 1, 1, 1, 1 },
    { CONV, { 2, 4, 12, 11, 8, 5, 5, 4 }, 2, 2, 1, 1 },  { CONV, { 1, 2, 14, 15, 3, 3, 3, 1 }, 3, 2, 2, 2 },  { CONV, { 2, 9, 5, 5, 1, 3, 3, 1 }, 1, 1, 1, 1 },
    { CONV, { 1, 1, 90, 91, 2, 3, 3, 1 }, 1, 1, 1, 1 },  { CONV, { 40, 66, 16, 17, 65, 1, 1, 1 }, 1, 0, 1, 1 },
    { TRANSPOSED, { 2, 5, 6, 7, 9, 3, 3, 1 }, 2, 1, 1, 4 },   { TRANSPOSED, { 1, 20, 5, 5, 18, 4, 4, 1 }, 2, 1, 1, 2 },  { TRANSPOSED, { 2, 6, 5, 4, 6, 3, 3, 3 }, 3, 0, 2, 1 },
    { TRANSPOSED, { 1, 6, 5, 4, 6, 2, 2, 6 }, 2, 0, 1, 1 },
    { MATMUL, { 1, 20, 24, 520 }, 0, 0, 0, 2 },   { MATMUL, { 1, 3, 36, 520 }, 0, 0, 0, 1 },   { LINEAR, { 3, 36, 2100 }, 0, 0, 0, 1 },         /* sums in two parts */
    { CONV, { 2, 2, 47, 47, 2, 3, 3, 2 }, 1, 1, 1, 1 },  { SMALL, { 2, 40, 128 }, 0, NN_I8, 32, 1 },
    { LINEAR, { 70, 66, 65 }, 1, 0, 0, 1 },       { TRANSPOSED, { 1, 600, 3, 4, 20, 3, 3, 1 }, 2, 1, 1, 1 },
    { CONV, { 2, 58, 4, 4, 20, 3, 3, 1 }, 1, 1, 1, 1 },   { MATMUL, { 1, 36, 3, 520 }, 1, 1, 0, 1 },   { MATMUL, { 1, 36, 3, 2100 }, 0, 0, 0, 1 },         /* two parts, turned */
};
enum { PRODUCTS = sizeof rows / sizeof *rows };

/* counts what the device leaves to the CPU */
static const nn_backend *inner;
static int64_t fell[2];
static int counted_run(void *self, const nn_call *c)
{
    int done = inner->run(self, c), mine = c->op->id == NN_OP_matmul || c->op->id == NN_OP_linear || c->op->id == NN_OP_linear_small || c->op->id == NN_OP_conv2d || c->op->id == NN_OP_conv_transpose2d;
    if (mine) fell[!done]++;
    return done;
}
static uint32_t state;
static float number(void) { state = state * 1664525u + 1013904223u; return (float)(int)(state >> 8 & 0xffff) / 32768.0f - 1; }
static nn_tensor *fresh(nn_context *nn, int ndim, const int64_t *d, int want)
{
    nn_shape s;
    int64_t n = 1;
    memset(&s, 0, sizeof s);
    s.ndim = ndim;
    for (int i = 0; i < ndim; i++) { s.d[i] = d[i]; n *= d[i]; }
    float *v = malloc((size_t)(n + 1) * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = number();
    nn_tensor *t = nn_tensor_new(nn, s, v);
    free(v);
    return want ? nn_want_grad(t) : t;
}
#define NEW(want, ...) fresh(nn, (int)(sizeof (int64_t[]){ __VA_ARGS__ } / sizeof(int64_t)), (int64_t[]){ __VA_ARGS__ }, want)
typedef struct outcome { float *v[4]; int64_t n[4]; } outcome;
static float *numbers_of(nn_tensor *t, int64_t *n)
{
    *n = t ? nn_count(t) : 0;
    float *v = malloc((size_t)(*n + 1) * sizeof *v);
    if (t) nn_read(t, v);
    return v;
}
static void run_row(nn_context *nn, const row *r, outcome *o)
{
    const int *s = r->size;
    nn_tensor *x, *w, *b = NULL, *y, *g;
    state = 1;
    nn_begin(nn, NN_TRAIN);
    if (r->op == MATMUL) {
        int64_t ba = r->a & 2 ? 1 : s[0], bb = r->b & 2 ? 1 : s[0];
        x = r->a & 1 ? NEW(1, ba, s[3], s[1]) : NEW(1, ba, s[1], s[3]);
        w = r->b & 1 ? NEW(1, bb, s[2], s[3]) : NEW(1, bb, s[3], s[2]);
        y = nn_matmul(r->a & 1 ? nn_transpose(x, 1, 2) : x, r->b & 1 ? nn_transpose(w, 1, 2) : w);
    } else if (r->op == LINEAR || r->op == SMALL) {
        nn_linear_desc d;
        nn_tensor *own, *scale = NULL;
        memset(&d, 0, sizeof d);
        d.activation = r->a == 1 ? nn_relu : r->a == 2 ? nn_tanh : NULL;
        x = NEW(1, s[0], s[2]); w = NEW(r->op == LINEAR, s[1], s[2]); b = NEW(1, s[1]);
        own = w;
        if (r->op == SMALL) {
            own = nn_quantize_new(w, (nn_dtype)r->b, r->b == NN_I8 || r->b == NN_I4 ? &scale : NULL, &(nn_quantize_desc){ .group = r->c });
            d.scale = scale;
        }
        if (r->a) {                                      /* the activation is part of the call where nothing is learned */
            nn_push(nn, NN_EVAL);
            y = nn_linear(x, own, b, &d);
            nn_pop(nn);
            o->v[3] = numbers_of(y, &o->n[3]);
        }
        y = nn_linear(x, own, b, &d);
    } else {
        nn_conv2d_desc d;
        memset(&d, 0, sizeof d);
        d.stride = r->a; d.padding = r->b ? r->b : NN_ZERO; d.dilation = r->c; d.groups = s[7];
        x = NEW(1, s[0], s[1], s[2], s[3]);
        if (r->op == CONV) w = NEW(1, s[4], s[1] / s[7], s[5], s[6]); else w = NEW(1, s[1], s[4] / s[7], s[5], s[6]);
        b = NEW(1, s[4]);
        y = r->op == CONV ? nn_conv2d(x, w, b, &d) : nn_conv_transpose2d(x, w, b, &d);
    }
    nn_shape shape = nn_shape_of(y);
    g = fresh(nn, shape.ndim, shape.d, 0);
    o->v[0] = numbers_of(y, &o->n[0]);
    y = nn_sum(nn_mul(y, g), NN_ALL, NULL);
    nn_backward_with(y, &(nn_backward_desc){ .retain = 1 });
    nn_backward(y);                                      // gradients are assigned, then added to
    o->v[1] = numbers_of(nn_grad(x), &o->n[1]);
    o->v[2] = numbers_of(r->op == SMALL ? NULL : nn_grad(w), &o->n[2]);
    if (b && !o->v[3]) o->v[3] = numbers_of(nn_grad(b), &o->n[3]);
}
TEST(products)
{
    static const double tolerance[4] = { 1e-5, 2e-3, 1.5e-2, 2e-3 };
    const char *only = getenv("NN_ROW"), *precision = getenv("NN_PRECISION");
    if (!nn_cuda_available()) SKIP(nn_cuda_why());
    for (int i = 0; i < PRODUCTS; i++) {
        outcome cpu, o;
        if (only && atoi(only) != i) continue;
        memset(&cpu, 0, sizeof cpu);
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .winograd = NN_ZERO });
        run_row(nn, &rows[i], &cpu);
        CHECK(nn_ok(nn));
        nn_free(nn);
        for (int p = 0; p < rows[i].precisions; p++) {
            static nn_backend counted[4];
            if (precision && atoi(precision) != p) continue;
            memset(&o, 0, sizeof o);
            inner = nn_cuda_with(0, &(nn_cuda_desc){ .precision = (nn_cuda_precision)p });
            counted[p] = *inner;
            counted[p].run = counted_run;
            nn = nn_new(&(nn_desc){ .threads = 1, .backend = &counted[p] });
            run_row(nn, &rows[i], &o);
            CHECK(nn_ok(nn));
            for (int k = 0; k < 4; k++) {
                double scale = 0, worst = 0, far = tolerance[p] * (rows[i].op == LINEAR && rows[i].a ? 8 : 1);        /* an activation was given larger numbers */
                int64_t at = 0;
                CHECK(o.n[k] == cpu.n[k]);
                for (int64_t e = 0; e < cpu.n[k]; e++) if (fabs(cpu.v[k][e]) > scale) scale = fabs(cpu.v[k][e]);
                for (int64_t e = 0; e < cpu.n[k]; e++) {
                    double diff = fabs((double)cpu.v[k][e] - o.v[k][e]);
                    if (!(diff <= worst)) { worst = diff; at = e; }
                    if (diff != diff) break;
                }
                if (!(worst <= far * (scale + 1e-3)))
                    printf("row %d, precision %d: %s: element %lld of %lld: %.9g, on the CPU %.9g\n", i, p, k == 0 ? "y" : k == 1 ? "dx" : k == 2 ? "dw" : "db or eval",
                           (long long)at, (long long)cpu.n[k], o.v[k][at], cpu.v[k][at]);
                CHECK(worst <= far * (scale + 1e-3));
                free(o.v[k]);
            }
            nn_free(nn);
        }
        for (int k = 0; k < 4; k++) free(cpu.v[k]);
    }
    CHECK(fell[1] == 0);
    printf("%lld calls on the device, %lld left to the CPU\n", (long long)fell[0], (long long)fell[1]);
}
