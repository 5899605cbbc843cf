/* cases.h - a case builds a result from variables:   CASE(mul, broadcast) { nn_tensor *a = var(f, 3, 1), *b = var(f, 4); return nn_mul(a, b); }

   The cases of all ops register themselves; test_ops.c checks their gradients and every CPU table, cuda/test_cuda.c runs them on a device.
   The elementwise ones come from the rows themselves, the others are in cases_*.h. Needs the implementation of nn.h. */
enum { MAX_VARS = 8, MAX_NUMBERS = 4096 };
typedef struct fixture {             /* what a case gets: it makes its variables anew in every run, with the same numbers */
    nn_context *nn;
    int vars;
    nn_tensor *var[MAX_VARS];
    double *value[MAX_VARS];         /* owned; made in the first run */
    int64_t count[MAX_VARS];
    uint64_t seed;
    int offset;                      /* 1: every variable is a view that begins one number behind the start of its storage */
    int twice;                       /* 1: the tape is walked twice: gradients are assigned, then added to */
} fixture;
typedef nn_tensor *(*case_fn)(fixture *f);
typedef struct op_case { int op; const char *name, *label; case_fn run; int grad; struct op_case *next; } op_case;
static op_case *first_case, **last_case = &first_case;
static void add_case(op_case *c) { *last_case = c; last_case = &c->next; }

#define CASE_(op, label, grad)                                                               \
    static nn_tensor *case_##op##_##label(fixture *f);                                       \
    static op_case the_case_##op##_##label = { NN_OP_##op, #op, #label, case_##op##_##label, grad, NULL }; \
    __attribute__((constructor)) static void register_##op##_##label(void) { add_case(&the_case_##op##_##label); } \
    static nn_tensor *case_##op##_##label(fixture *f)
#define CASE(op, label)         CASE_(op, label, 1)
#define CASE_NO_GRAD(op, label) CASE_(op, label, 0)      /* values only: comparisons, argmax, sort indices */

/* A variable with numbers in [low, high), the same in every run of the case. */
static nn_tensor *make_var(fixture *f, double low, double high, nn_shape shape)
{
    int k = f->vars++;
    int64_t n = 1;
    nn_tensor *t;
    for (int i = 0; i < shape.ndim; i++) n *= shape.d[i];
    if (k >= MAX_VARS || n > MAX_NUMBERS) { nn_fail(f->nn, "the case has too many or too large variables"); return nn_zeros(f->nn, shape); }
    n += f->offset;
    if (!f->value[k]) {
        f->value[k] = malloc((size_t)(n + 1) * sizeof(double));
        f->count[k] = n;
        for (int64_t i = 0; i < n; i++)    /* floats, so that all tables start from the same numbers */
            f->value[k][i] = (float)(low + (high - low) * nn__uniform_at(f->seed, 7, (uint64_t)k, (uint64_t)i));
    }
    t = f->offset ? nn__alloc_tensor(f->nn, 0, f->nn->desc.dtype, 1, &n) : nn__alloc_tensor(f->nn, 0, f->nn->desc.dtype, shape.ndim, shape.d);
    nn_write_as(t, NN_F64, f->value[k]);
    f->var[k] = nn_want_grad(t);
    return f->offset ? nn_reshape(nn_slice(t, 0, 1, n, 1), shape) : t;
}
#define var(f, ...)               make_var(f, -1.5, 1.5, NN_SHAPE(__VA_ARGS__))
#define var_in(f, low, high, ...) make_var(f, low, high, NN_SHAPE(__VA_ARGS__))
#define var_scalar(f)             make_var(f, -1.5, 1.5, NN_SCALAR)
/* indices (i64), not a variable */
#define ints(f, shape, ...)       nn_from_as((f)->nn, NN_I64, shape, (int64_t[]){ __VA_ARGS__ })

/* ---- the elementwise rows: three cases each, from the tables themselves ---- */
typedef struct range { const char *name; double low, high; } range;
static const range ranges[] = { { "sqrt", 0.2, 3 }, { "rsqrt", 0.3, 3 }, { "reciprocal", 0.3, 3 }, { "log", 0.2, 4 }, { "log1p", -0.6, 3 }, { "pow_scalar", 0.2, 3 }, { "pow", 0.2, 3 },
                                { "div", 0.5, 3 }, { "floor", -3, 3 }, { "hardsigmoid", -5, 5 }, { "hardswish", -5, 5 }, { "relu6", -3, 9 } };
static range range_of(const char *name)
{
    range r = { name, -2.5, 2.5 };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) if (!strcmp(ranges[i].name, name)) r = ranges[i];
    return r;
}
#define NN__X(op, keep, y, dx) \
    CASE(op, flat)     { range r = range_of(#op); return nn_##op(var_in(f, r.low, r.high, 37)); } \
    CASE(op, strided)  { range r = range_of(#op); return nn_##op(nn_slice(nn_transpose(var_in(f, r.low, r.high, 5, 7), 0, 1), 0, 1, 6, 2)); } \
    CASE(op, empty)    { return nn_##op(var(f, 3, 0)); }
NN_UNARY_OPS(NN__X)
#undef NN__X
#define NN__X(op, keep, y, dx) \
    CASE(op, flat)     { range r = range_of(#op); return nn_##op(var_in(f, r.low, r.high, 37), 0.7f); } \
    CASE(op, strided)  { range r = range_of(#op); return nn_##op(nn_transpose(var_in(f, r.low, r.high, 5, 7), 0, 1), 1.3f); }
NN_UNARY1_OPS(NN__X)
#undef NN__X
#define NN__X(op, keep, y, dx) \
    CASE(op, flat)     { return nn_##op(var(f, 37), -0.7f, 0.6f); } \
    CASE(op, strided)  { return nn_##op(nn_transpose(var(f, 5, 7), 0, 1), -0.5f, 1.1f); }
NN_UNARY2_OPS(NN__X)
#undef NN__X
#define NN__X(op, keep, y, da, db) \
    CASE(op, same)     { range r = range_of(#op); nn_tensor *a = var_in(f, r.low, r.high, 4, 9), *b = var_in(f, r.low, r.high, 4, 9); return nn_##op(a, b); } \
    CASE(op, row)      { range r = range_of(#op); nn_tensor *a = var_in(f, r.low, r.high, 5, 19), *b = var_in(f, r.low, r.high, 19); return nn_##op(a, b); } \
    CASE(op, outer)    { range r = range_of(#op); nn_tensor *a = var_in(f, r.low, r.high, 6, 1), *b = var_in(f, r.low, r.high, 3, 1, 7); return nn_##op(a, b); } \
    CASE(op, scalar)   { range r = range_of(#op); nn_tensor *a = make_var(f, r.low, r.high, NN_SCALAR), *b = var_in(f, r.low, r.high, 2, 3); return nn_##op(a, b); } \
    CASE(op, strided)  { range r = range_of(#op); nn_tensor *a = var_in(f, r.low, r.high, 5, 4), *b = var_in(f, r.low, r.high, 4, 5); return nn_##op(nn_transpose(a, 0, 1), b); } \
    CASE(op, itself)   { range r = range_of(#op); nn_tensor *a = var_in(f, r.low, r.high, 5, 4); return nn_##op(a, nn_mul_scalar(a, 0.5f)); } \
    CASE(op, empty)    { nn_tensor *a = var(f, 0, 4), *b = var(f, 4); return nn_##op(a, b); }
NN_BINARY_OPS(NN__X)
#undef NN__X
CASE(mul, square)      { nn_tensor *a = var(f, 5, 4); return nn_mul(a, a); }
CASE(add, twice)       { nn_tensor *a = var(f, 5, 4); return nn_add(nn_add(a, a), nn_mul(a, nn_transpose(nn_transpose(a, 0, 1), 0, 1))); }
CASE(where, mask)      { nn_tensor *a = var(f, 4, 5), *b = var(f, 5); return nn_where(nn_gt(nn_detach(a), nn_scalar(f->nn, 0)), a, b); }
CASE(where, scalars)   { nn_tensor *a = var_scalar(f), *b = var(f, 3, 4); return nn_where(nn_lt(nn_detach(b), nn_scalar(f->nn, 0.3f)), a, b); }

#include "cases_core.h"
#if __has_include("cases_reduce.h")
#include "cases_reduce.h"
#endif
#if __has_include("cases_shape.h")
#include "cases_shape.h"
#endif
#if __has_include("cases_conv.h")
#include "cases_conv.h"
#endif
#if __has_include("cases_norm.h")
#include "cases_norm.h"
#endif
#if __has_include("cases_loss.h")
#include "cases_loss.h"
#endif
#if __has_include("cases_attention.h")
#include "cases_attention.h"
#endif
#if __has_include("cases_rnn.h")
#include "cases_rnn.h"
#endif

/* One run in a training step. Returns the weighted sum; results and gradients in double, if asked for. */
typedef struct outcome { int64_t n; double *y, *dx[MAX_VARS]; int wanted[MAX_VARS]; } outcome;
static double weight(uint64_t i) { return 0.5 + nn__uniform_at(99, 3, 0, i); }
static double run_case(const op_case *k, fixture *f, outcome *o)
{
    nn_tensor *y, *w;
    double sum = 0, *v;
    int64_t n;
    nn_begin(f->nn, NN_TRAIN);
    f->nn->random_step = 5;          /* random ops draw the same numbers in every run */
    f->vars = 0;
    y = k->run(f);
    if (!nn_ok(f->nn)) return NAN;
    n = nn_count(y);
    v = malloc((size_t)(n + 1) * sizeof *v);
    if (!nn_read_as(y, NN_F64, v)) nn_fail(f->nn, "unreadable");
    for (int64_t i = 0; i < n; i++) sum += v[i] * weight((uint64_t)i);
    if (o) {
        o->n = n;
        o->y = v;
        if (k->grad && y->node) {
            double *g = malloc((size_t)(n + 1) * sizeof *g);
            for (int64_t i = 0; i < n; i++) g[i] = (float)weight((uint64_t)i);
            w = nn__alloc_tensor(f->nn, 0, f->nn->desc.dtype, y->ndim, y->shape);
            nn_write_as(w, NN_F64, g);
            free(g);
            if (f->twice) nn_backward_with(y, &(nn_backward_desc){ .grad = w, .retain = 1 });
            nn_backward_with(y, &(nn_backward_desc){ .grad = w });
        }
        for (int i = 0; i < f->vars; i++) {
            o->dx[i] = calloc((size_t)f->count[i] + 1, sizeof(double));
            o->wanted[i] = k->grad && nn_grad(f->var[i]);
            if (o->wanted[i]) nn_read_as(nn_grad(f->var[i]), NN_F64, o->dx[i]);
        }
    } else free(v);
    return sum;
}
static void free_outcome(outcome *o) { free(o->y); for (int i = 0; i < MAX_VARS; i++) free(o->dx[i]); memset(o, 0, sizeof *o); }
