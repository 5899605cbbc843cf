/* test_golden.c - parity with PyTorch: replays what tests/record_golden.py recorded into the files tests/golden/NAME.bin (the format is described there).

   Every record is run on the default kernels and then on every other kernel table of this machine. Arguments:  [part of "op label"]  runs only those,
   and  -v  lists every record with its error. NN_GOLDEN is the folder, default tests/golden or golden.
   A difference fails if it exceeds  tolerance * scale,  see the groups below. */
#define NN_DOUBLE
#include "library.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- groups and their tolerances -----------------------------------------------------------------------
   scale of an error: the largest finite magnitude in the expected tensor, at least `floor`; each = 1: of the element itself, at least `floor`. */
typedef struct group { const char *name; double forward, backward, floor; int each; const char *why; int run, failed; double worst; } group;
enum { ELEMENTWISE, SATURATING, BINARY, REDUCE, LINEAR, SHAPE, CONV, POOL, NORM, SOFTMAX, LOSS, ATTENTION, LAYER, RNN, INIT, OPTIM, EMA, SCHEDULE, CURVE, GROUPS };
static group groups[GROUPS] = {
    { "elementwise",  1e-5, 1e-5, 1e-3, 1, "each element against itself", 0, 0, 0 },
    { "saturating",   1e-5, 1e-5, 0.1,  1, "tanh, sigmoid, gelu: 1 - y^2 and 1 + erf(x) cancel, in PyTorch's float32 too", 0, 0, 0 },
    { "binary",       1e-5, 1e-5, 1e-3, 1, "each element against itself", 0, 0, 0 },
    { "reduce",       1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "linear",       1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "shape",        1e-6, 1e-6, 1e-2, 0, "numbers are only moved; sums of a few in backward", 0, 0, 0 },
    { "conv",         1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "pool, resize", 1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "norm",         1e-5, 1e-5, 0.1,  0, "", 0, 0, 0 },
    { "softmax",      1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "loss",         1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "attention",    1e-5, 1e-5, 1e-2, 0, "", 0, 0, 0 },
    { "layer",        1e-5, 1e-5, 0.1,  0, "", 0, 0, 0 },
    { "recurrent",    1e-5, 1e-5, 0.1,  0, "", 0, 0, 0 },
    { "initialiser",  0,    0,    0,    0, "bounds, and mean and deviation within 7 standard errors", 0, 0, 0 },
    { "optimizer",    1e-5, 1e-5, 1e-2, 0, "100 steps", 0, 0, 0 },
    { "average",      1e-5, 1e-5, 1e-2, 0, "50 steps", 0, 0, 0 },
    { "schedule",     1e-5, 1e-5, 1e-7, 1, "each learning rate against itself", 0, 0, 0 },
    { "curve",        1e-5, 1e-5, 1e-2, 0, "200 steps", 0, 0, 0 },
};

/* ---- records ------------------------------------------------------------------------------------------- */
enum { MAX_OPTIONS = 24, MAX_IN = 32, MAX_OUT = 8, NAME = 256 };
typedef struct numbers { char name[NAME]; int integer, ndim, want; int64_t d[NN_MAX_DIMS], n; float *f; int64_t *i; } numbers;
typedef struct option { char name[64]; int kind, i; float f; char s[64]; } option;
typedef struct record {
    char op[NAME], label[NAME];
    option option[MAX_OPTIONS];
    numbers in[MAX_IN], out[MAX_OUT], dy, grad[MAX_IN];
    int options, ins, outs, grads, grad_of[MAX_IN];
    nn_context *nn;                  /* of this run */
    nn_tensor *leaf[MAX_IN];         /* whose gradients are compared */
    nn_tensor *x[MAX_IN];            /* what the op gets */
    nn_tensor *y[MAX_OUT];
    char message[400];               /* what is wrong with this record, or "" */
    double worst;
} record;
typedef nn_tensor *(*replay)(record *r);

typedef struct reader { const unsigned char *p, *end; int bad; } reader;
static const unsigned char *take(reader *s, size_t n)
{
    static const unsigned char none[8];
    const unsigned char *p = s->p;
    if ((size_t)(s->end - p) < n) { s->bad = 1; return n <= sizeof none ? none : NULL; }
    s->p += n;
    return p;
}
static unsigned u8(reader *s)  { return *take(s, 1); }
static unsigned u16(reader *s) { const unsigned char *p = take(s, 2); return p[0] | (unsigned)p[1] << 8; }
static uint32_t u32(reader *s) { const unsigned char *p = take(s, 4); return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static float real(reader *s)   { uint32_t w = u32(s); float f; memcpy(&f, &w, 4); return f; }
static void text(reader *s, char *to, size_t room, size_t n)
{
    const unsigned char *p = take(s, n);
    if (!p || n >= room) { s->bad = 1; n = 0; }
    if (n) memcpy(to, p, n);
    to[n] = 0;
}

/* the hash of record_golden.py: lowbias32 of (seed, i) */
static uint32_t hashed(uint32_t seed, uint32_t i)
{
    uint32_t h = i * 0x9E3779B9u + seed;
    h ^= h >> 16; h *= 0x7FEB352Du;
    h ^= h >> 15; h *= 0x846CA68Bu;
    return h ^ h >> 16;
}

static void read_numbers(reader *s, numbers *t)
{
    int i, storage;
    t->integer = (int)u8(s);
    t->ndim = (int)u8(s);
    t->n = 1;
    if (t->ndim == 255) return;
    if (t->ndim > NN_MAX_DIMS) { s->bad = 1; t->ndim = 0; }
    for (i = 0; i < t->ndim; i++) {
        t->d[i] = u16(s);
        t->n *= t->d[i];
        if (t->n > 1 << 20) { s->bad = 1; t->n = 0; }
    }
    storage = (int)u8(s);
    t->f = (float *)malloc((size_t)(t->n + 1) * sizeof *t->f);
    t->i = (int64_t *)malloc((size_t)(t->n + 1) * sizeof *t->i);
    if (storage == 1) {
        int32_t low = (int32_t)u32(s);
        uint32_t range = u32(s), seed = u32(s);
        for (i = 0; i < t->n; i++) {
            t->i[i] = low + (int64_t)(hashed(seed, (uint32_t)i) % (range ? range : 1));
            t->f[i] = t->integer ? (float)t->i[i] : (float)t->i[i] / 65536.0f;
        }
    } else {
        for (i = 0; i < t->n && !s->bad; i++) {
            if (t->integer) { t->i[i] = (int32_t)u32(s); t->f[i] = (float)t->i[i]; }
            else t->f[i] = real(s);
        }
    }
}

static int read_record(reader *s, record *r)
{
    int k;
    memset(r, 0, sizeof *r);
    text(s, r->op, NAME, u8(s));
    text(s, r->label, NAME, u8(s));
    r->options = (int)u8(s);
    if (r->options > MAX_OPTIONS) return 0;
    for (k = 0; k < r->options; k++) {
        option *o = &r->option[k];
        text(s, o->name, sizeof o->name, u8(s));
        o->kind = (int)u8(s);
        if (o->kind == 0) { o->i = (int)u32(s); o->f = (float)o->i; }
        else if (o->kind == 1) { o->f = real(s); o->i = (int)o->f; }
        else text(s, o->s, sizeof o->s, u16(s));
    }
    if ((r->ins = (int)u8(s)) > MAX_IN) return 0;
    for (k = 0; k < r->ins; k++) {
        numbers *t = &r->in[k];
        char name[NAME];
        int want;
        text(s, name, NAME, u8(s));
        want = (int)u8(s);
        read_numbers(s, t);
        memcpy(t->name, name, NAME);
        t->want = want;
    }
    if ((r->outs = (int)u8(s)) > MAX_OUT) return 0;
    for (k = 0; k < r->outs; k++) read_numbers(s, &r->out[k]);
    read_numbers(s, &r->dy);
    if ((r->grads = (int)u8(s)) > MAX_IN) return 0;
    for (k = 0; k < r->grads; k++) { r->grad_of[k] = (int)u8(s); read_numbers(s, &r->grad[k]); if (r->grad_of[k] >= r->ins) return 0; }
    return !s->bad;
}
static void free_numbers(numbers *t) { free(t->f); free(t->i); t->f = NULL; t->i = NULL; }
static void free_record(record *r)
{
    int k;
    for (k = 0; k < MAX_IN; k++) { free_numbers(&r->in[k]); free_numbers(&r->grad[k]); }
    for (k = 0; k < MAX_OUT; k++) free_numbers(&r->out[k]);
    free_numbers(&r->dy);
}

static const option *find(const record *r, const char *name)
{
    for (int k = 0; k < r->options; k++) if (!strcmp(r->option[k].name, name)) return &r->option[k];
    return NULL;
}
static int         I(const record *r, const char *name) { const option *o = find(r, name); return o ? o->i : 0; }
static float       R_(const record *r, const char *name) { const option *o = find(r, name); return o ? o->f : 0; }
static const char *S(const record *r, const char *name) { const option *o = find(r, name); return o ? o->s : ""; }
static nn_shape    D(const record *r, const char *prefix)   /* n_d, d0, d1 ... */
{
    nn_shape s = NN_SCALAR;
    char name[64];
    snprintf(name, sizeof name, "n_%s", prefix);
    s.ndim = I(r, name);
    for (int k = 0; k < s.ndim && k < NN_MAX_DIMS; k++) { snprintf(name, sizeof name, "%s%d", prefix, k); s.d[k] = I(r, name); }
    return s;
}
static nn_tensor *T(const record *r, const char *name)   /* an input that may be missing */
{
    for (int k = 0; k < r->ins; k++) if (!strcmp(r->in[k].name, name)) return r->x[k];
    return NULL;
}
static nn_shape shape_of(const numbers *t) { nn_shape s = NN_SCALAR; s.ndim = t->ndim; memcpy(s.d, t->d, sizeof s.d); return s; }
static nn_fn function(const char *name)
{
    static const struct { const char *name; nn_fn fn; } list[] = { { "relu", nn_relu }, { "tanh", nn_tanh }, { "gelu", nn_gelu }, { "sigmoid", nn_sigmoid } };
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) if (!strcmp(list[k].name, name)) return list[k].fn;
    return NULL;
}

static nn_tensor *make_input(record *r, const numbers *t);

/* ---- comparing -------------------------------------------------------------------------------------------- */
static void wrong(record *r, const char *format, ...)
{
    va_list a;
    if (r->message[0]) return;
    va_start(a, format);
    vsnprintf(r->message, sizeof r->message, format, a);
    va_end(a);
}

static void compare_values(record *r, const group *g, const char *what, const float *got, const float *want, int64_t n, double tolerance)
{
    double all = g->floor, worst = 0, loose = find(r, "loose") ? (double)R_(r, "loose") : 1;
    int64_t i, at = -1;
    for (i = 0; i < n; i++) if (isfinite(want[i]) && fabs((double)want[i]) > all) all = fabs((double)want[i]);
    for (i = 0; i < n; i++) {
        double e = (double)want[i], d, scale = !g->each ? all : fabs(e) > g->floor ? fabs(e) : g->floor;
        if (got[i] == want[i] || (isnan(got[i]) && isnan(want[i]))) continue;
        d = isfinite(want[i]) && isfinite(got[i]) ? fabs((double)got[i] - e) / scale / loose : INFINITY;
        if (d > worst) { worst = d; at = i; }
    }
    if (worst > r->worst) r->worst = worst;
    if (worst > tolerance) wrong(r, "%s[%d] is %.9g, PyTorch has %.9g (error %.1e, allowed %.1e)", what, (int)at, (double)got[at], (double)want[at], worst, tolerance);
}

static void compare(record *r, const group *g, const char *what, nn_tensor *t, const numbers *want, double tolerance)
{
    float *got;
    int same, floating;
    if (!nn_ok(r->nn)) { wrong(r, "%s", nn_error(r->nn)); return; }
    if (!t) { wrong(r, "%s is not there", what); return; }
    same = t->ndim == want->ndim;
    for (int k = 0; same && k < t->ndim; k++) same = t->shape[k] == want->d[k];
    if (!same) {
        char a[100] = "", b[100] = "";
        for (int k = 0; k < t->ndim; k++) snprintf(a + strlen(a), sizeof a - strlen(a), "%d ", (int)t->shape[k]);
        for (int k = 0; k < want->ndim; k++) snprintf(b + strlen(b), sizeof b - strlen(b), "%d ", (int)want->d[k]);
        wrong(r, "%s has shape (%s), in PyTorch (%s)", what, a, b);
        return;
    }
    floating = t->dtype == NN_F32 || t->dtype == NN_F16 || t->dtype == NN_BF16 || t->dtype == NN_F64;
    if (floating == want->integer) { wrong(r, "%s is %s", what, nn_dtype_name((nn_dtype)t->dtype)); return; }
    got = (float *)malloc((size_t)(want->n + 1) * sizeof *got);
    if (!nn_read(t, got)) wrong(r, "%s cannot be read: %s", what, nn_error(r->nn));
    else compare_values(r, g, what, got, want->f, want->n, want->integer ? 0 : tolerance);
    free(got);
}

/* ---- ops: one function each --------------------------------------------------------------------------------- */
#define X(k) (r->x[k])
#define OP(name) static nn_tensor *op_##name(record *r)
#define NN__X(name, keep, y, dx) OP(name) { return nn_##name(X(0)); }
NN_UNARY_OPS(NN__X)
#undef NN__X
#define NN__X(name, keep, y, dx) OP(name) { return nn_##name(X(0), R_(r, "p")); }
NN_UNARY1_OPS(NN__X)
#undef NN__X
#define NN__X(name, keep, y, dx) OP(name) { return nn_##name(X(0), R_(r, "p"), R_(r, "q")); }
NN_UNARY2_OPS(NN__X)
#undef NN__X
#define NN__X(name, keep, y, da, db) OP(name) { return nn_##name(X(0), X(1)); }
NN_BINARY_OPS(NN__X)
#undef NN__X
OP(where) { return nn_where(X(0), X(1), X(2)); }

static nn_reduce_desc reduce_desc(const record *r)
{
    nn_reduce_desc d;
    memset(&d, 0, sizeof d);
    d.keepdim = I(r, "keepdim"); d.population = I(r, "population"); d.p = R_(r, "p");
    return d;
}
#define REDUCE(name) OP(name) { nn_reduce_desc d = reduce_desc(r); return nn_##name(X(0), D(r, "dim"), &d); }
REDUCE(sum) REDUCE(mean) REDUCE(max) REDUCE(min) REDUCE(prod) REDUCE(var) REDUCE(std) REDUCE(logsumexp) REDUCE(norm) REDUCE(argmax) REDUCE(argmin)
OP(cumsum)      { return nn_cumsum(X(0), I(r, "dim")); }
OP(softmax)     { return nn_softmax(X(0), I(r, "dim")); }
OP(log_softmax) { return nn_log_softmax(X(0), I(r, "dim")); }

OP(matmul)      { return nn_matmul(X(0), X(1)); }
OP(linear)      { nn_linear_desc d; memset(&d, 0, sizeof d); d.activation = function(S(r, "activation")); return nn_linear(X(0), X(1), T(r, "b"), &d); }

OP(reshape)     { return nn_reshape(X(0), D(r, "d")); }
OP(flatten)     { return nn_flatten(X(0), I(r, "dim")); }
OP(squeeze)     { return nn_squeeze(X(0), I(r, "dim")); }
OP(unsqueeze)   { return nn_unsqueeze(X(0), I(r, "dim")); }
OP(permute)     { return nn_permute(X(0), D(r, "d")); }
OP(transpose)   { return nn_transpose(X(0), I(r, "dim0"), I(r, "dim1")); }
OP(expand)      { return nn_expand(X(0), D(r, "d")); }
OP(slice)       { return nn_slice(X(0), I(r, "dim"), I(r, "start"), I(r, "end"), I(r, "step")); }
OP(select)      { return nn_select(X(0), I(r, "dim"), I(r, "index")); }
OP(contiguous)  { return nn_contiguous(X(0)); }
OP(cast)        { for (int k = 0; k < NN_DTYPE_COUNT; k++) if (!strcmp(nn_dtype_name((nn_dtype)k), S(r, "dtype"))) return nn_cast(X(0), (nn_dtype)k); return NULL; }
OP(concat)      { return nn_concat(r->x, r->ins, I(r, "dim")); }
OP(stack)       { return nn_stack(r->x, r->ins, I(r, "dim")); }
static nn_tensor *reversed(nn_tensor **parts, int n, int dim)
{
    nn_tensor *y[8] = { NULL };
    for (int k = 0; k < n; k++) y[k] = parts[n - 1 - k];
    return nn_concat(y, n, dim);
}
OP(split)       { nn_tensor *y[8] = { NULL }; nn_shape s = D(r, "d"); nn_split(X(0), s, I(r, "dim"), y); return reversed(y, s.ndim, I(r, "dim")); }
OP(chunk)       { nn_tensor *y[8] = { NULL }; nn_chunk(X(0), I(r, "parts"), I(r, "dim"), y); return reversed(y, I(r, "parts"), I(r, "dim")); }
OP(repeat)      { return nn_repeat(X(0), D(r, "d")); }
OP(flip)        { return nn_flip(X(0), D(r, "d")); }
OP(gather)      { return nn_gather(X(0), I(r, "dim"), X(1)); }
OP(index_select){ return nn_index_select(X(0), I(r, "dim"), X(1)); }
OP(scatter_add) { return nn_scatter_add(X(0), I(r, "dim"), X(1), X(2)); }
OP(one_hot)     { return nn_one_hot(X(0), I(r, "classes")); }
OP(tril)        { return nn_tril(X(0), I(r, "diagonal")); }
OP(triu)        { return nn_triu(X(0), I(r, "diagonal")); }
OP(sort)        { nn_sort_desc d; memset(&d, 0, sizeof d); d.descending = I(r, "descending"); return nn_sort(X(0), I(r, "dim"), &r->y[1], &d); }
OP(topk)        { nn_topk_desc d; memset(&d, 0, sizeof d); d.smallest = I(r, "smallest"); return nn_topk(X(0), I(r, "k"), I(r, "dim"), &r->y[1], &d); }
OP(pad)         { nn_pad_desc d; memset(&d, 0, sizeof d); d.mode = (nn_pad_mode)I(r, "mode"); d.value = R_(r, "value"); return nn_pad(X(0), D(r, "d"), &d); }
OP(arange)      { return nn_arange(r->nn, R_(r, "start"), R_(r, "end"), R_(r, "step")); }
OP(linspace)    { return nn_linspace(r->nn, R_(r, "start"), R_(r, "end"), I(r, "n")); }
OP(eye)         { return nn_eye(r->nn, I(r, "n")); }
OP(full)        { return nn_full(r->nn, shape_of(&r->out[0]), R_(r, "value")); }
OP(embedding)   { return nn_embedding(X(0), X(1)); }

static nn_conv_desc conv_desc(const record *r)
{
    nn_conv_desc d;
    memset(&d, 0, sizeof d);
    d.stride = I(r, "stride");     d.stride_w = I(r, "stride_w");
    d.padding = I(r, "padding");   d.padding_w = I(r, "padding_w");
    d.dilation = I(r, "dilation"); d.dilation_w = I(r, "dilation_w");
    d.output_padding = I(r, "output_padding"); d.output_padding_w = I(r, "output_padding_w");
    d.same = I(r, "same"); d.groups = I(r, "groups"); d.kernel_w = I(r, "kernel_w"); d.no_bias = I(r, "no_bias");
    d.activation = function(S(r, "activation"));
    return d;
}
#define CONV(name) OP(name) { nn_conv_desc d = conv_desc(r); return nn_##name(X(0), X(1), T(r, "b"), &d); }
CONV(conv1d) CONV(conv2d) CONV(conv_transpose1d) CONV(conv_transpose2d)

static nn_pool_desc pool_desc(const record *r)
{
    nn_pool_desc d;
    memset(&d, 0, sizeof d);
    d.stride = I(r, "stride");     d.stride_w = I(r, "stride_w");
    d.padding = I(r, "padding");   d.padding_w = I(r, "padding_w");
    d.dilation = I(r, "dilation"); d.dilation_w = I(r, "dilation_w");
    d.kernel_w = I(r, "kernel_w"); d.ceil_mode = I(r, "ceil_mode"); d.exclude_pad = I(r, "exclude_pad");
    return d;
}
#define POOLING(name) OP(name) { nn_pool_desc d = pool_desc(r); return nn_##name(X(0), I(r, "kernel"), &d); }
POOLING(maxpool1d) POOLING(maxpool2d) POOLING(avgpool1d) POOLING(avgpool2d)
OP(adaptive_maxpool1d) { return nn_adaptive_maxpool1d(X(0), I(r, "length")); }
OP(adaptive_avgpool1d) { return nn_adaptive_avgpool1d(X(0), I(r, "length")); }
OP(adaptive_maxpool2d) { return nn_adaptive_maxpool2d(X(0), I(r, "height"), I(r, "width")); }
OP(adaptive_avgpool2d) { return nn_adaptive_avgpool2d(X(0), I(r, "height"), I(r, "width")); }
OP(global_maxpool)     { return nn_global_maxpool(X(0)); }
OP(global_avgpool)     { return nn_global_avgpool(X(0)); }
static nn_upsample_desc upsample_desc(const record *r)
{
    nn_upsample_desc d;
    memset(&d, 0, sizeof d);
    d.bilinear = I(r, "bilinear"); d.align_corners = I(r, "align_corners");
    return d;
}
OP(upsample)           { nn_upsample_desc d = upsample_desc(r); return nn_upsample(X(0), I(r, "height"), I(r, "width"), &d); }

static nn_norm_layer_desc norm_desc(const record *r)
{
    nn_norm_layer_desc d;
    memset(&d, 0, sizeof d);
    d.eps = R_(r, "eps"); d.momentum = R_(r, "momentum"); d.no_affine = I(r, "no_affine"); d.affine = I(r, "affine"); d.no_stats = I(r, "no_stats");
    return d;
}
OP(batchnorm)
{
    nn_norm_layer_desc d = norm_desc(r);
    nn_tensor *y = nn_batchnorm(X(0), T(r, "w"), T(r, "b"), T(r, "mean"), T(r, "var"), &d);
    r->y[1] = T(r, "mean"); r->y[2] = T(r, "var");
    return y;
}
OP(layernorm)    { nn_norm_layer_desc d = norm_desc(r); return nn_layernorm(X(0), I(r, "dims"), T(r, "w"), T(r, "b"), &d); }
OP(groupnorm)    { nn_norm_layer_desc d = norm_desc(r); return nn_groupnorm(X(0), I(r, "groups"), T(r, "w"), T(r, "b"), &d); }
OP(instancenorm) { nn_norm_layer_desc d = norm_desc(r); return nn_instancenorm(X(0), T(r, "w"), T(r, "b"), &d); }
OP(rmsnorm)      { nn_norm_layer_desc d = norm_desc(r); return nn_rmsnorm(X(0), T(r, "w"), &d); }
OP(dropout)      { return nn_dropout(X(0), R_(r, "p")); }
OP(dropout2d)    { return nn_dropout2d(X(0), R_(r, "p")); }

static nn_loss_desc loss_desc(const record *r)
{
    nn_loss_desc d;
    memset(&d, 0, sizeof d);
    d.reduction = (nn_reduction)I(r, "reduction");
    d.weight = T(r, "weight"); d.pos_weight = T(r, "pos_weight");
    d.label_smoothing = R_(r, "label_smoothing"); d.ignore_index = I(r, "ignore_index"); d.temperature = R_(r, "temperature");
    d.margin = R_(r, "margin"); d.delta = R_(r, "delta"); d.p = R_(r, "p");
    return d;
}
#define LOSS2(name) OP(name) { nn_loss_desc d = loss_desc(r); return nn_##name(X(0), X(1), &d); }
#define LOSS3(name) OP(name) { nn_loss_desc d = loss_desc(r); return nn_##name(X(0), X(1), X(2), &d); }
LOSS2(cross_entropy) LOSS2(nll) LOSS2(binary_cross_entropy) LOSS2(mse) LOSS2(l1) LOSS2(huber) LOSS2(smooth_l1) LOSS2(kl_div) LOSS2(hinge) LOSS2(info_nce)
LOSS3(cosine_embedding) LOSS3(triplet_margin)

/* ---- layers ---------------------------------------------------------------------------------------------------- */
static nn_layer *build_net(nn_layer *m, const char *kind)
{
    nn_conv_desc pad;
    memset(&pad, 0, sizeof pad);
    pad.padding = 1;
    if (!strcmp(kind, "mlp")) {
        nn_linear_new(m, "fc1", 4, 6, NULL); nn_fn_new(m, nn_tanh); nn_linear_new(m, "fc2", 6, 3, NULL);
    } else if (!strcmp(kind, "nested")) {
        nn_layer *g = nn_group_new(m, "body");
        nn_linear_new(g, NULL, 4, 4, NULL); nn_fn_new(g, nn_relu); nn_linear_new(g, NULL, 4, 4, NULL);
        nn_linear_new(m, "head", 4, 2, NULL);
    } else if (!strcmp(kind, "residual")) {
        nn_layer *g = nn_residual_new(m, "block");
        nn_linear_new(g, "fc1", 4, 6, NULL); nn_fn_new(g, nn_relu); nn_linear_new(g, "fc2", 6, 4, NULL);
        nn_linear_new(m, "out", 4, 2, NULL);
    } else {
        nn_conv2d_new(m, "conv1", 1, 3, 3, &pad); nn_batchnorm_new(m, "bn1", 3, NULL); nn_fn_new(m, nn_relu); nn_maxpool2d_new(m, 2, NULL);
        nn_conv2d_new(m, "conv2", 3, 4, 3, NULL); nn_fn_new(m, nn_relu); nn_flatten_new(m); nn_linear_new(m, "fc", 16, 3, NULL);
    }
    return m;
}

static nn_layer *build_layer(record *r, const char *kind)
{
    nn_layer *m = nn_model_new(r->nn, NULL);
    nn_conv_desc c = conv_desc(r);
    nn_pool_desc p = pool_desc(r);
    nn_norm_layer_desc n = norm_desc(r);
    nn_upsample_desc u = upsample_desc(r);
    nn_linear_desc l;
    int64_t in = I(r, "in"), out = I(r, "out");
    int k = I(r, "kernel"), channels = I(r, "channels");
    memset(&l, 0, sizeof l);
    l.no_bias = I(r, "no_bias");
#define IS(name) if (!strcmp(kind, name)) return
    IS("net") build_net(m, S(r, "net"));
    IS("linear") nn_linear_new(m, "l", in, out, &l);
    IS("conv1d") nn_conv1d_new(m, "l", in, out, k, &c);
    IS("conv2d") nn_conv2d_new(m, "l", in, out, k, &c);
    IS("conv_transpose1d") nn_conv_transpose1d_new(m, "l", in, out, k, &c);
    IS("conv_transpose2d") nn_conv_transpose2d_new(m, "l", in, out, k, &c);
    IS("batchnorm") nn_batchnorm_new(m, "l", channels, &n);
    IS("layernorm") nn_layernorm_new(m, "l", D(r, "d"), &n);
    IS("groupnorm") nn_groupnorm_new(m, "l", I(r, "groups"), channels, &n);
    IS("instancenorm") nn_instancenorm_new(m, "l", channels, &n);
    IS("rmsnorm") nn_rmsnorm_new(m, "l", channels, &n);
    IS("embedding") nn_embedding_new(m, "l", in, out);
    IS("maxpool1d") nn_maxpool1d_new(m, k, &p);
    IS("maxpool2d") nn_maxpool2d_new(m, k, &p);
    IS("avgpool1d") nn_avgpool1d_new(m, k, &p);
    IS("avgpool2d") nn_avgpool2d_new(m, k, &p);
    IS("adaptive_avgpool2d") nn_adaptive_avgpool2d_new(m, I(r, "height"), I(r, "width"));
    IS("upsample") nn_upsample_new(m, I(r, "scale"), &u);
    IS("dropout") nn_dropout_new(m, R_(r, "p"));
    IS("dropout2d") nn_dropout2d_new(m, R_(r, "p"));
    IS("flatten") nn_flatten_new(m);
    IS("softmax") nn_softmax_new(m, I(r, "dim"));
    IS("leaky_relu") nn_leaky_relu_new(m, R_(r, "slope"));
#undef IS
    wrong(r, "unknown layer");
    return m;
}

/* Gives the parameters below a layer the numbers of the inputs with their names; from: the first input that is a parameter. */
static void set_params(record *r, nn_layer *l, int from)
{
    for (int k = from; k < r->ins; k++) {
        nn_tensor *p = nn_param(l, r->in[k].name);
        int same;
        if (!p) { wrong(r, "there is no parameter \"%s\"", r->in[k].name); return; }
        same = p->ndim == r->in[k].ndim;
        for (int i = 0; same && i < p->ndim; i++) same = p->shape[i] == r->in[k].d[i];
        if (!same) { wrong(r, "parameter \"%s\" has another shape", r->in[k].name); return; }
        if (r->in[k].integer) nn_write_as(p, NN_I64, r->in[k].i); else nn_write(p, r->in[k].f);
        r->leaf[k] = p;
    }
}

static nn_tensor *op_layer(record *r)
{
    nn_layer *l = build_layer(r, r->op + 6);
    nn_tensor *y;
    int n = 1, params = nn_params(l, NULL, 0), buffers = nn_buffers(l, NULL, 0);
    if (params + buffers != I(r, "count") || buffers != I(r, "buffers"))
        wrong(r, "%d parameters and %d buffers, PyTorch has %d and %d", params, buffers, I(r, "count") - I(r, "buffers"), I(r, "buffers"));
    set_params(r, l, 1);
    if (r->message[0]) return X(0);
    y = nn_forward(l, X(0));
    for (int k = 1; k < r->ins && n < MAX_OUT; k++) {
        const char *dot = strrchr(r->in[k].name, '.'), *name = dot ? dot + 1 : r->in[k].name;
        if (!strncmp(name, "running_", 8) || !strcmp(name, "num_batches_tracked")) r->y[n++] = r->leaf[k];
    }
    return y;
}

/* ---- recurrent nets: y, h and c one after the other ------------------------------------------------------------- */
static nn_tensor *op_rnn(record *r)
{
    nn_layer *m = nn_model_new(r->nn, NULL), *l = NULL;
    nn_rnn_desc d;
    nn_rnn_state s;
    nn_tensor *part[3];
    int64_t in = I(r, "in"), hidden = I(r, "hidden");
    int n = 0, cell = strstr(r->op, "_cell") != NULL;
    memset(&d, 0, sizeof d);
    memset(&s, 0, sizeof s);
    d.layers = cell ? 0 : I(r, "layers"); d.bidirectional = I(r, "bidirectional"); d.time_first = I(r, "time_first"); d.no_bias = I(r, "no_bias"); d.relu = I(r, "relu"); d.proj = I(r, "proj");
#define IS(name) if (!strcmp(r->op, "rnn_" #name)) l = nn_##name##_new(m, "l", in, hidden, &d)
    IS(rnn); IS(lstm); IS(gru); IS(rnn_cell); IS(lstm_cell); IS(gru_cell);
#undef IS
    if (nn_params(l, NULL, 0) != r->ins - I(r, "first")) { wrong(r, "%d parameters, PyTorch has %d", nn_params(l, NULL, 0), r->ins - I(r, "first")); return X(0); }
    set_params(r, m, I(r, "first"));
    s.h = T(r, "h"); s.c = T(r, "c"); s.lengths = T(r, "lengths");
    part[n++] = nn_rnn_forward(l, X(0), &s);
    if (!cell) part[n++] = s.h;
    if (s.c) part[n++] = s.c;
    for (int k = 0; k < n; k++) part[k] = nn_flatten(part[k], 0);
    return nn_concat(part, n, 0);
}
OP(ctc_loss)
{
    nn_ctc_desc d;
    memset(&d, 0, sizeof d);
    d.reduction = (nn_reduction)I(r, "reduction"); d.blank = I(r, "blank"); d.zero_infinity = I(r, "zero_infinity");
    return nn_ctc_loss(nn_log_softmax(X(0), 2), X(1), X(2), X(3), &d);
}

/* ---- initialisers ------------------------------------------------------------------------------------------------ */
/* ---- attention ------------------------------------------------------------------------------------------------- */
static const numbers *numbers_called(const record *r, const char *name)
{
    for (int k = 0; k < r->ins; k++) if (!strcmp(r->in[k].name, name)) return &r->in[k];
    return NULL;
}
/* Integers are truth values. (B, T) of keys: (B, 1, 1, T). */
static nn_tensor *mask_of(record *r, const char *name)
{
    const numbers *t = numbers_called(r, name);
    nn_tensor *m;
    unsigned char *v;
    if (!t) return NULL;
    if (!t->integer) return t->want ? T(r, name) : nn_from(r->nn, shape_of(t), t->f);
    v = (unsigned char *)malloc((size_t)t->n + 1);
    for (int64_t i = 0; i < t->n; i++) v[i] = t->i[i] != 0;
    m = nn_from_as(r->nn, NN_BOOL, shape_of(t), v);
    free(v);
    return strcmp(name, "keys") ? m : nn_unsqueeze(nn_unsqueeze(m, 1), 1);
}
static nn_attention_desc attention_desc(record *r)
{
    nn_attention_desc d;
    memset(&d, 0, sizeof d);
    d.causal = I(r, "causal"); d.scale = R_(r, "scale"); d.heads = I(r, "heads"); d.kv_heads = I(r, "kv_heads");
    d.mask = numbers_called(r, "keys") ? mask_of(r, "keys") : mask_of(r, "mask");
    d.lengths = T(r, "lengths"); d.alibi = T(r, "alibi");
    return d;
}
OP(attention)        { nn_attention_desc d = attention_desc(r); return nn_scaled_dot_product_attention(X(0), X(1), X(2), &d); }
OP(attention_packed) { nn_attention_desc d = attention_desc(r); return nn_attention(X(0), NULL, NULL, &d); }
OP(sinusoidal)       { return nn_sinusoidal_new(r->nn, I(r, "n"), I(r, "d")); }
OP(alibi)            { return nn_alibi_slopes_new(r->nn, I(r, "heads")); }
OP(rope)
{
    nn_rope_desc d;
    memset(&d, 0, sizeof d);
    d.interleaved = I(r, "interleaved"); d.start = I(r, "start"); d.time_dim = I(r, "time") - r->in[0].ndim;
    return nn_rope(X(0), nn_rope_new(r->nn, 16, r->in[0].d[r->in[0].ndim - 1], R_(r, "base")), &d);
}
static nn_tensor *op_attn(record *r)                     /* layers; inputs before `data` are no parameters */
{
    nn_layer *m = nn_model_new(r->nn, NULL), *l = m;
    nn_attention_desc d = attention_desc(r), self;
    const char *kind = r->op + 5;
    nn_transformer_desc t;
    nn_tensor *rope = I(r, "rope") ? nn_rope_new(r->nn, 8, I(r, "embed") / I(r, "heads"), 0) : NULL;
    memset(&t, 0, sizeof t);
    memset(&self, 0, sizeof self);
    t.hidden = I(r, "hidden"); t.norm_first = I(r, "norm_first"); t.activation = function(S(r, "activation")); t.no_bias = I(r, "no_bias"); t.eps = R_(r, "eps");
    t.kv_heads = I(r, "kv_heads"); t.rmsnorm = I(r, "rmsnorm"); t.gated = I(r, "gated"); t.rope = rope; t.rope_interleaved = 1;
    for (int k = 1; k < I(r, "data"); k++) r->x[k] = r->leaf[k] = make_input(r, &r->in[k]);
    if (!strcmp(kind, "mha")) {
        nn_multihead_attention_desc a;
        memset(&a, 0, sizeof a);
        a.no_bias = I(r, "no_bias"); a.kdim = I(r, "kdim"); a.vdim = I(r, "vdim");
        l = nn_multihead_attention_new(m, "l", I(r, "embed"), I(r, "heads"), &a);
    } else if (!strcmp(kind, "encoder")) l = nn_transformer_encoder_layer_new(m, "l", I(r, "embed"), I(r, "heads"), &t);
    else l = nn_transformer_decoder_layer_new(m, "l", I(r, "embed"), I(r, "heads"), &t);
    if (nn_params(l, NULL, 0) != I(r, "count")) wrong(r, "%d parameters, PyTorch has %d", nn_params(l, NULL, 0), I(r, "count"));
    set_params(r, l, I(r, "data"));
    if (r->message[0]) return X(0);
    if (!strcmp(kind, "mha"))     return nn_multihead_attention_forward(l, X(0), T(r, "k"), T(r, "v"), &d);
    if (!strcmp(kind, "encoder")) return nn_transformer_encoder_layer_forward(l, X(0), &d);
    self.causal = d.causal;
    d.causal = 0;
    return nn_transformer_decoder_layer_forward(l, X(0), T(r, "memory"), &self, &d);
}

static void check_orthogonal(record *r, const float *w, int64_t rows, int64_t columns, double gain)
{
    int64_t small = rows < columns ? rows : columns, large = rows < columns ? columns : rows;
    for (int64_t a = 0; a < small; a++)
        for (int64_t b = 0; b < small; b++) {
            double s = 0;
            for (int64_t k = 0; k < large; k++) s += rows < columns ? (double)w[a * columns + k] * (double)w[b * columns + k] : (double)w[k * columns + a] * (double)w[k * columns + b];
            if (fabs(s - (a == b) * gain * gain) > 1e-5 * gain * gain) { wrong(r, "product of rows %d and %d is %g", (int)a, (int)b, s); return; }
        }
}

static nn_tensor *op_init(record *r)
{
    const char *kind = r->op + 5;
    nn_tensor *w;
    float *v;
    double n, mean = 0, std = 0, low = INFINITY, high = -INFINITY, deviation;
    const float *want = r->out[0].f;
    const int64_t *d = r->out[1].i;
    nn_shape shape = NN_SCALAR;
    shape.ndim = (int)r->out[1].n;
    for (int k = 0; k < shape.ndim; k++) shape.d[k] = d[k];
    if (!strncmp(kind, "layer_", 6)) w = nn_param(build_layer(r, kind + 6), S(r, "param"));
    else {
        w = nn_param_new(nn_model_new(r->nn, NULL), "w", shape);
        if      (!strcmp(kind, "constant"))        nn_init_constant(w, R_(r, "value"));
        else if (!strcmp(kind, "uniform"))         nn_init_uniform(w, R_(r, "low"), R_(r, "high"));
        else if (!strcmp(kind, "normal"))          nn_init_normal(w, R_(r, "mean"), R_(r, "std"));
        else if (!strcmp(kind, "trunc_normal"))    nn_init_trunc_normal(w, R_(r, "mean"), R_(r, "std"), R_(r, "low"), R_(r, "high"));
        else if (!strcmp(kind, "xavier_uniform"))  nn_init_xavier_uniform(w, R_(r, "gain"));
        else if (!strcmp(kind, "xavier_normal"))   nn_init_xavier_normal(w, R_(r, "gain"));
        else if (!strcmp(kind, "kaiming_uniform")) nn_init_kaiming_uniform(w, R_(r, "slope"));
        else if (!strcmp(kind, "kaiming_normal"))  nn_init_kaiming_normal(w, R_(r, "slope"));
        else if (!strcmp(kind, "orthogonal"))      nn_init_orthogonal(w, R_(r, "gain"));
        else wrong(r, "unknown initialiser");
    }
    if (!nn_ok(r->nn) || !w) { wrong(r, "%s", w ? nn_error(r->nn) : "no such parameter"); return NULL; }
    for (int k = 0; k < shape.ndim; k++) if (w->ndim != shape.ndim || w->shape[k] != shape.d[k]) { wrong(r, "another shape"); return NULL; }
    n = (double)nn_count(w);
    v = (float *)malloc((size_t)nn_count(w) * sizeof *v);
    nn_read(w, v);
    for (int64_t i = 0; i < nn_count(w); i++) { double x = (double)v[i]; mean += x / n; if (x < low) low = x; if (x > high) high = x; }
    for (int64_t i = 0; i < nn_count(w); i++) std += ((double)v[i] - mean) * ((double)v[i] - mean) / n;
    std = sqrt(std);
    deviation = 7 * (double)want[1] / sqrt(n);
    if (fabs(mean - (double)want[0]) > deviation + 1e-6) wrong(r, "mean is %.5g, PyTorch has %.5g", mean, (double)want[0]);
    if (fabs(std - (double)want[1]) > deviation + 1e-6) wrong(r, "standard deviation is %.5g, PyTorch has %.5g", std, (double)want[1]);
    if (!isnan(want[2])) {
        double width = (double)want[3] - (double)want[2], slack = 1e-6 * (fabs((double)want[2]) + fabs((double)want[3])), reach = 20 * width / n;
        if (low < (double)want[2] - slack || high > (double)want[3] + slack) wrong(r, "numbers in %.6g .. %.6g, PyTorch's in %.6g .. %.6g", low, high, (double)want[2], (double)want[3]);
        if (strcmp(kind, "trunc_normal") && (low > (double)want[2] + reach || high < (double)want[3] - reach))
            wrong(r, "numbers only in %.6g .. %.6g, PyTorch's in %.6g .. %.6g", low, high, (double)want[2], (double)want[3]);
    }
    if (!strcmp(kind, "orthogonal")) check_orthogonal(r, v, shape.d[0], nn_count(w) / shape.d[0], (double)R_(r, "gain"));
    free(v);
    return NULL;
}

static void quiet(void *user, const char *message) { (void)user; (void)message; }
/* ---- trajectories -------------------------------------------------------------------------------------------------- */
static nn_optimizer *new_optimizer(record *r, nn_layer *net, const char *kind)
{
    nn_optimizer_desc d;
    memset(&d, 0, sizeof d);
    d.lr = R_(r, "lr"); d.momentum = R_(r, "momentum"); d.dampening = R_(r, "dampening"); d.nesterov = I(r, "nesterov");
    d.beta1 = R_(r, "beta1"); d.beta2 = R_(r, "beta2"); d.alpha = R_(r, "alpha"); d.eps = R_(r, "eps"); d.weight_decay = R_(r, "weight_decay");
    d.momentum_decay = R_(r, "momentum_decay"); d.lr_decay = R_(r, "lr_decay"); d.centered = I(r, "centered"); d.amsgrad = I(r, "amsgrad");
    d.clip_norm = R_(r, "clip_norm"); d.clip_value = R_(r, "clip_value");
    if (!strcmp(kind, "sgd"))     return nn_sgd_new(net, &d);
    if (!strcmp(kind, "rmsprop")) return nn_rmsprop_new(net, &d);
    if (!strcmp(kind, "adagrad")) return nn_adagrad_new(net, &d);
    if (!strcmp(kind, "adam"))    return nn_adam_new(net, &d);
    if (!strcmp(kind, "adamw"))   return nn_adamw_new(net, &d);
    if (!strcmp(kind, "nadam"))   return nn_nadam_new(net, &d);
    if (!strcmp(kind, "lion"))    return nn_lion_new(net, &d);
    wrong(r, "unknown optimizer");
    return NULL;
}

/* all parameters of the record, one after the other, in the order of the inputs */
static void append_params(const record *r, float *to)
{
    for (int k = 0; k < r->ins; k++) if (r->leaf[k]) { nn_read(r->leaf[k], to); to += r->in[k].n; }
}

/* 24 samples in three batches of 8 through a small net, mean squared error; then PyTorch's losses and parameters every 10 steps */
static nn_tensor *train_small(record *r, nn_layer *net, nn_optimizer *opt, nn_ema *ema, float *losses, float *params, int steps, int each)
{
    const int64_t batch = 8, in = r->in[0].d[1], out = r->in[1].d[1];
    for (int s = 0; s < steps && nn_ok(r->nn); s++) {
        int64_t first = s % (r->in[0].d[0] / batch) * batch;
        nn_tensor *loss;
        nn_begin(r->nn, NN_TRAIN);
        loss = nn_mse(nn_forward(net, nn_from(r->nn, NN_SHAPE(batch, in), r->in[0].f + first * in)), nn_from(r->nn, NN_SHAPE(batch, out), r->in[1].f + first * out), NULL);
        if (losses) losses[s] = (float)nn_item(loss);
        nn_backward(loss);
        nn_step(opt);
        if (ema) { nn_ema_update(ema); nn_ema_swap(ema); }
        if ((s + 1) % 10 == 0) append_params(r, params + (s + 1) / 10 * each - each);
        if (ema) nn_ema_swap(ema);
    }
    return NULL;
}

static nn_layer *small_net(record *r)
{
    nn_layer *net = nn_model_new(r->nn, NULL);
    nn_linear_new(net, "fc1", 4, 5, NULL); nn_fn_new(net, nn_tanh); nn_linear_new(net, "fc2", 5, 3, NULL);
    set_params(r, net, 2);
    return net;
}

static nn_tensor *op_optim(record *r)
{
    nn_layer *net = small_net(r);
    nn_optimizer *opt = new_optimizer(r, net, r->op + 6);
    int steps = (int)r->out[0].n, each = (int)r->out[1].d[1];
    float *losses = (float *)calloc((size_t)steps, sizeof *losses), *params = (float *)calloc((size_t)r->out[1].n, sizeof *params);
    if (find(r, "group_lr")) {
        nn_optimizer_desc d;
        memset(&d, 0, sizeof d);
        d.lr = R_(r, "group_lr"); d.match = ".bias";
        nn_optimizer_add(opt, net, &d);
    }
    if (!r->message[0]) {
        train_small(r, net, opt, NULL, losses, params, steps, each);
        if (!nn_ok(r->nn)) wrong(r, "%s", nn_error(r->nn));
        compare_values(r, &groups[OPTIM], "params", params, r->out[1].f, r->out[1].n, groups[OPTIM].forward);
        compare_values(r, &groups[OPTIM], "loss", losses, r->out[0].f, steps, groups[OPTIM].forward);
    }
    free(losses);
    free(params);
    return NULL;
}

/* torch.amp.GradScaler: the loss of step s is multiplied by factor[s]; its scale after every step, too */
static nn_tensor *op_scaler(record *r)
{
    nn_context *shared = r->nn;
    nn_desc d;
    nn_layer *net;
    nn_optimizer *opt;
    int steps = (int)r->out[0].n, each = (int)r->out[1].d[1], set = r->ins - 1;
    float *losses = (float *)calloc((size_t)steps, sizeof *losses), *params = (float *)calloc((size_t)r->out[1].n, sizeof *params), *scales = (float *)calloc((size_t)steps, sizeof *scales);
    memset(&d, 0, sizeof d);
    d.isa = nn_isa(shared); d.threads = 1; d.on_error = quiet;
    d.loss_scale = R_(r, "loss_scale"); d.growth_factor = R_(r, "growth_factor"); d.backoff_factor = R_(r, "backoff_factor"); d.growth_interval = I(r, "growth_interval");
    r->nn = nn_new(&d);
    r->ins = set;                    /* the last input is no parameter */
    net = small_net(r);
    opt = new_optimizer(r, net, r->op + 7);
    for (int s = 0; s < steps && nn_ok(r->nn); s++) {
        int64_t first = s % 3 * 8;
        nn_tensor *loss;
        nn_begin(r->nn, NN_TRAIN);
        loss = nn_mse(nn_forward(net, nn_from(r->nn, NN_SHAPE(8, 4), r->in[0].f + first * 4)), nn_from(r->nn, NN_SHAPE(8, 3), r->in[1].f + first * 3), NULL);
        losses[s] = (float)nn_item(loss);
        nn_backward(nn_mul_scalar(loss, r->in[set].f[s]));
        nn_step(opt);
        scales[s] = nn_loss_scale(r->nn);
        if ((s + 1) % 10 == 0) append_params(r, params + (s + 1) / 10 * each - each);
    }
    if (!nn_ok(r->nn)) wrong(r, "%s", nn_error(r->nn));
    if (!r->message[0]) {
        compare_values(r, &groups[OPTIM], "scale", scales, r->out[2].f, steps, 0);
        compare_values(r, &groups[OPTIM], "params", params, r->out[1].f, r->out[1].n, groups[OPTIM].forward);
        compare_values(r, &groups[OPTIM], "loss", losses, r->out[0].f, steps, groups[OPTIM].forward);
    }
    nn_free(r->nn);
    r->nn = shared;
    r->ins = set + 1;
    free(losses);
    free(params);
    free(scales);
    return NULL;
}

static nn_tensor *op_ema(record *r)
{
    nn_layer *net = small_net(r);
    nn_optimizer_desc d;
    nn_optimizer *opt;
    nn_ema *ema;
    float *params = (float *)calloc((size_t)r->out[0].n, sizeof *params);
    memset(&d, 0, sizeof d);
    d.lr = 0.1f;
    opt = nn_sgd_new(net, &d);
    ema = nn_ema_new(net, R_(r, "decay"));
    if (!r->message[0]) {
        train_small(r, net, opt, ema, NULL, params, (int)r->out[0].d[0] * 10, (int)r->out[0].d[1]);
        if (!nn_ok(r->nn)) wrong(r, "%s", nn_error(r->nn));
        compare_values(r, &groups[EMA], "average", params, r->out[0].f, r->out[0].n, groups[EMA].forward);
    }
    free(params);
    return NULL;
}

static nn_tensor *op_lr(record *r)
{
    const char *kind = r->op + 3;
    nn_layer *net = nn_model_new(r->nn, NULL);
    nn_optimizer_desc od;
    nn_schedule_desc d;
    nn_optimizer *opt;
    nn_schedule *s = NULL;
    nn_shape m = D(r, "d");
    int milestones[NN_MAX_DIMS], n = (int)r->out[0].n;
    float *lr = (float *)calloc((size_t)n, sizeof *lr);
    nn_linear_new(net, "fc", 1, 1, NULL);
    memset(&od, 0, sizeof od);
    memset(&d, 0, sizeof d);
    od.lr = R_(r, "lr");
    opt = nn_sgd_new(net, &od);
    for (int k = 0; k < m.ndim; k++) milestones[k] = (int)m.d[k];
    d.milestones = milestones; d.milestone_count = m.ndim;
    d.step_size = I(r, "step_size"); d.gamma = R_(r, "gamma"); d.total = I(r, "total"); d.power = R_(r, "power"); d.min_lr = R_(r, "min_lr");
    d.period = I(r, "period"); d.period_mult = I(r, "period_mult"); d.start_factor = R_(r, "start_factor"); d.end_factor = R_(r, "end_factor");
    d.max_lr = R_(r, "max_lr"); d.rise = R_(r, "rise"); d.div = R_(r, "div"); d.final_div = R_(r, "final_div");
    d.warmup = I(r, "warmup");
    d.factor = R_(r, "factor"); d.patience = I(r, "patience"); d.cooldown = I(r, "cooldown"); d.threshold = R_(r, "threshold"); d.maximize = I(r, "maximize");
    if      (!strcmp(kind, "step"))          s = nn_step_lr_new(opt, &d);
    else if (!strcmp(kind, "multi_step"))    s = nn_multi_step_lr_new(opt, &d);
    else if (!strcmp(kind, "exponential"))   s = nn_exponential_lr_new(opt, &d);
    else if (!strcmp(kind, "polynomial"))    s = nn_polynomial_lr_new(opt, &d);
    else if (!strcmp(kind, "linear"))        s = nn_linear_lr_new(opt, &d);
    else if (!strcmp(kind, "cosine"))        s = nn_cosine_lr_new(opt, &d);
    else if (!strcmp(kind, "warm_restarts")) s = nn_warm_restarts_lr_new(opt, &d);
    else if (!strcmp(kind, "one_cycle"))     s = nn_one_cycle_lr_new(opt, &d);
    else if (!strcmp(kind, "plateau"))       s = nn_plateau_lr_new(opt, &d);
    if (!s) wrong(r, "no schedule: %s", nn_error(r->nn));
    for (int k = 0; k < n; k++) {
        lr[k] = nn_lr(opt);
        if (r->ins && k < n - 1) nn_schedule_metric(s, (double)r->in[0].f[k]);
        nn_schedule_advance(s);
    }
    if (!nn_ok(r->nn)) wrong(r, "%s", nn_error(r->nn));
    compare_values(r, &groups[SCHEDULE], "lr", lr, r->out[0].f, n, groups[SCHEDULE].forward);
    free(lr);
    return NULL;
}

/* ---- curves: the 8x8 digits that lie in examples/data ------------------------------------------------------------------ */
static unsigned char *digits, *digit_labels;
static unsigned char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    unsigned char *p = NULL;
    long n;
    if (!f) return NULL;
    if (!fseek(f, 0, SEEK_END) && (n = ftell(f)) >= 0 && !fseek(f, 0, SEEK_SET) && (p = (unsigned char *)malloc((size_t)n + 1)) != NULL) {
        *bytes = fread(p, 1, (size_t)n, f);
        if (*bytes != (size_t)n) { free(p); p = NULL; }
    }
    fclose(f);
    return p;
}
static unsigned char *read_data(const char *name, size_t want)
{
    static const char *const folders[] = { "examples/data", "../examples/data" };
    char path[400];
    size_t n;
    for (int k = 0; k < 2; k++) {
        unsigned char *p;
        snprintf(path, sizeof path, "%s/%s", folders[k], name);
        p = read_file(path, &n);
        if (p && n >= want) return p;
        free(p);
    }
    return NULL;
}

static nn_layer *curve_net(nn_context *nn, int lenet)   /* 5: tanh and means (LeCun et al. 1998); 1: relu and maxima; 0: a perceptron */
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_conv_desc pad;
    memset(&pad, 0, sizeof pad);
    pad.padding = 2;
    if (lenet) {
        nn_fn act = lenet == 5 ? nn_tanh : nn_relu;
        nn_conv2d_new(net, "conv1", 1, 6, 5, &pad); nn_fn_new(net, act);
        if (lenet == 5) nn_avgpool2d_new(net, 2, NULL); else nn_maxpool2d_new(net, 2, NULL);
        nn_conv2d_new(net, "conv2", 6, 16, 5, NULL); nn_fn_new(net, act);
        if (lenet == 5) nn_avgpool2d_new(net, 2, NULL); else nn_maxpool2d_new(net, 2, NULL);
        nn_flatten_new(net);
        nn_linear_new(net, "fc1", 400, 120, NULL); nn_fn_new(net, act);
        nn_linear_new(net, "fc2", 120, 84, NULL); nn_fn_new(net, act);
        nn_linear_new(net, "fc3", 84, 10, NULL);
    } else {
        nn_linear_new(net, "fc1", 64, 64, NULL); nn_fn_new(net, nn_relu);
        nn_linear_new(net, "fc2", 64, 10, NULL);
    }
    return net;
}

static nn_tensor *op_curve(record *r)
{
    enum { SAMPLES = 1437, PIXELS = 64 };
    int lenet = !strcmp(r->op, "curve_lenet") ? 1 : !strcmp(r->op, "curve_lenet5") ? 5 : 0, batch = I(r, "batch"), steps = I(r, "steps");
    nn_layer *net;
    nn_optimizer *opt;
    float *losses;
    if (!digits) digits = read_data("digits-images-idx3-ubyte", 16 + SAMPLES * PIXELS);
    if (!digit_labels) digit_labels = read_data("digits-labels-idx1-ubyte", 8 + SAMPLES);
    if (!digits || !digit_labels) { wrong(r, "examples/data is not found"); return NULL; }
    net = curve_net(r->nn, lenet);
    set_params(r, net, 0);
    opt = new_optimizer(r, net, S(r, "optimizer"));
    losses = (float *)calloc((size_t)steps, sizeof *losses);
    for (int s = 0; s < steps && nn_ok(r->nn) && !r->message[0]; s++) {
        float x[32 * PIXELS];
        int64_t y[32];
        nn_tensor *in, *loss;
        nn_upsample_desc linear;
        memset(&linear, 0, sizeof linear);
        linear.bilinear = 1;
        for (int b = 0; b < batch; b++) {
            int i = (b + s * batch) % SAMPLES;
            for (int k = 0; k < PIXELS; k++) x[b * PIXELS + k] = (float)digits[16 + i * PIXELS + k] / 16.0f;
            y[b] = digit_labels[8 + i];
        }
        nn_begin(r->nn, NN_TRAIN);
        in = nn_from(r->nn, lenet ? NN_SHAPE(batch, 1, 8, 8) : NN_SHAPE(batch, PIXELS), x);
        if (lenet) in = nn_upsample(in, 28, 28, &linear);
        loss = nn_cross_entropy(nn_forward(net, in), nn_from_as(r->nn, NN_I64, NN_SHAPE(batch), y), NULL);
        losses[s] = (float)nn_item(loss);
        nn_backward(loss);
        nn_step(opt);
    }
    if (!nn_ok(r->nn)) wrong(r, "%s", nn_error(r->nn));
    if (!r->message[0]) compare_values(r, &groups[CURVE], "loss", losses, r->out[0].f, steps, groups[CURVE].forward);
    free(losses);
    return NULL;
}

/* ---- the table ------------------------------------------------------------------------------------------------------------ */
#define NN__X(name, keep, y, dx) { #name, op_##name, ELEMENTWISE, 0 },
#define NN__X2(name, keep, y, da, db) { #name, op_##name, BINARY, 0 },
static const struct row { const char *op; replay run; int group, prefix; } rows[] = {   /* prefix: "layer_" stands for all that begin so */
    NN_UNARY_OPS(NN__X) NN_UNARY1_OPS(NN__X) NN_UNARY2_OPS(NN__X) NN_BINARY_OPS(NN__X2)
#undef NN__X
#undef NN__X2
#define ROW(name, group) { #name, op_##name, group, 0 }
    ROW(where, BINARY),
    ROW(sum, REDUCE), ROW(mean, REDUCE), ROW(max, REDUCE), ROW(min, REDUCE), ROW(prod, REDUCE), ROW(var, REDUCE), ROW(std, REDUCE), ROW(logsumexp, REDUCE), ROW(norm, REDUCE), ROW(argmax, REDUCE),
    ROW(argmin, REDUCE), ROW(cumsum, REDUCE), ROW(softmax, SOFTMAX), ROW(log_softmax, SOFTMAX),
    ROW(matmul, LINEAR), ROW(linear, LINEAR),
    ROW(reshape, SHAPE), ROW(flatten, SHAPE), ROW(squeeze, SHAPE), ROW(unsqueeze, SHAPE), ROW(permute, SHAPE), ROW(transpose, SHAPE), ROW(expand, SHAPE), ROW(slice, SHAPE), ROW(select, SHAPE),
    ROW(contiguous, SHAPE), ROW(cast, SHAPE), ROW(concat, SHAPE), ROW(stack, SHAPE), ROW(split, SHAPE), ROW(chunk, SHAPE), ROW(repeat, SHAPE), ROW(flip, SHAPE), ROW(gather, SHAPE), ROW(index_select, SHAPE),
    ROW(scatter_add, SHAPE), ROW(one_hot, SHAPE), ROW(tril, SHAPE), ROW(triu, SHAPE), ROW(sort, SHAPE), ROW(topk, SHAPE), ROW(pad, SHAPE), ROW(arange, SHAPE), ROW(linspace, SHAPE), ROW(eye, SHAPE),
    ROW(full, SHAPE), ROW(embedding, SHAPE),
    ROW(conv1d, CONV), ROW(conv2d, CONV), ROW(conv_transpose1d, CONV), ROW(conv_transpose2d, CONV),
    ROW(maxpool1d, POOL), ROW(maxpool2d, POOL), ROW(avgpool1d, POOL), ROW(avgpool2d, POOL), ROW(adaptive_maxpool1d, POOL), ROW(adaptive_maxpool2d, POOL), ROW(adaptive_avgpool1d, POOL),
    ROW(adaptive_avgpool2d, POOL), ROW(global_maxpool, POOL), ROW(global_avgpool, POOL), ROW(upsample, POOL),
    ROW(batchnorm, NORM), ROW(layernorm, NORM), ROW(groupnorm, NORM), ROW(instancenorm, NORM), ROW(rmsnorm, NORM), ROW(dropout, NORM), ROW(dropout2d, NORM),
    ROW(cross_entropy, LOSS), ROW(nll, LOSS), ROW(binary_cross_entropy, LOSS), ROW(mse, LOSS), ROW(l1, LOSS), ROW(huber, LOSS), ROW(smooth_l1, LOSS), ROW(kl_div, LOSS), ROW(hinge, LOSS),
    ROW(cosine_embedding, LOSS), ROW(triplet_margin, LOSS), ROW(info_nce, LOSS),
    ROW(attention, ATTENTION), ROW(attention_packed, ATTENTION), ROW(rope, ATTENTION), ROW(sinusoidal, ATTENTION), ROW(alibi, ATTENTION), { "attn_", op_attn, LAYER, 1 },
    ROW(ctc_loss, RNN), { "layer_", op_layer, LAYER, 1 }, { "rnn_", op_rnn, RNN, 1 }, { "init_", op_init, INIT, 1 }, { "optim_", op_optim, OPTIM, 1 }, { "scaler_", op_scaler, OPTIM, 1 }, { "ema", op_ema, EMA, 1 }, { "lr_", op_lr, SCHEDULE, 1 }, { "curve_", op_curve, CURVE, 1 },
};
static const struct row *row_of(const record *r)
{
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        if (rows[k].prefix ? !strncmp(rows[k].op, r->op, strlen(rows[k].op)) : !strcmp(rows[k].op, r->op)) return &rows[k];
    return NULL;
}

static int group_of(const struct row *row)
{
    static const char *const saturating[] = { "tanh", "sigmoid", "gelu", "gelu_tanh" };
    for (size_t k = 0; k < sizeof saturating / sizeof *saturating; k++) if (!strcmp(row->op, saturating[k])) return SATURATING;
    return row->group;
}

/* ---- running one record ------------------------------------------------------------------------------------------------------ */
static nn_tensor *make_input(record *r, const numbers *t)
{
    nn_tensor *x;
    if (t->integer && I(r, "i32")) {
        int32_t *v = (int32_t *)malloc((size_t)(t->n + 1) * sizeof *v);
        for (int64_t i = 0; i < t->n; i++) v[i] = (int32_t)t->i[i];
        x = nn_from_as(r->nn, NN_I32, shape_of(t), v);
        free(v);
        return x;
    }
    x = t->integer ? nn_from_as(r->nn, NN_I64, shape_of(t), t->i) : nn_from(r->nn, shape_of(t), t->f);
    return t->want ? nn_want_grad(x) : x;
}

static void run_record(record *r, nn_context *nn, const struct row *row)
{
    group *g = &groups[group_of(row)];
    int layer = group_of(row) == LAYER, whole = group_of(row) >= INIT;
    char what[40];
    r->nn = nn;
    r->message[0] = 0;
    r->worst = 0;
    memset(r->leaf, 0, sizeof r->leaf);
    memset(r->x, 0, sizeof r->x);
    memset(r->y, 0, sizeof r->y);
    nn_begin(nn, I(r, "eval") ? NN_EVAL : NN_TRAIN);
    if (whole) { row->run(r); return; }
    for (int k = 0; k < (layer ? 1 : r->ins); k++) {
        r->leaf[k] = make_input(r, &r->in[k]);
        r->x[k] = I(r, "transposed") >> k & 1 ? nn_transpose(r->leaf[k], -2, -1) : r->leaf[k];
    }
    r->y[0] = row->run(r);
    if (r->y[0] == r->leaf[0] && r->dy.ndim != 255) r->y[0] = nn_mul_scalar(r->y[0], 1.0f);      /* some ops return x itself: contiguous, dropout with p = 0 */
    for (int k = 0; k < r->outs; k++) { snprintf(what, sizeof what, "y%d", k); compare(r, g, what, r->y[k], &r->out[k], g->forward); }
    if (r->dy.ndim != 255 && !r->message[0]) {
        nn_backward_desc d;
        memset(&d, 0, sizeof d);
        d.grad = nn_from(nn, shape_of(&r->dy), r->dy.f);
        nn_backward_with(r->y[0], &d);
        if (!nn_ok(nn)) wrong(r, "backward: %s", nn_error(nn));
        for (int k = 0; k < r->grads; k++) {
            numbers *in = &r->in[r->grad_of[k]];
            snprintf(what, sizeof what, "d%s", in->name);
            compare(r, g, what, nn_grad(r->leaf[r->grad_of[k]]), &r->grad[k], g->backward);
        }
    }
}

static nn_context *new_context(const char *isa)
{
    nn_desc d;
    memset(&d, 0, sizeof d);
    d.isa = isa; d.threads = 1; d.on_error = quiet; d.seed = 1;
    return nn_new(&d);
}

static int total_run, total_failed;                      /* records */
static int run_on(record *r, const struct row *row, nn_context **shared, const char *isa, int verbose, int count)
{
    group *g = &groups[group_of(row)];
    nn_context *nn = group_of(row) >= LAYER ? new_context(isa) : *shared;
    run_record(r, nn, row);
    if (verbose || r->message[0]) printf("%s %s (%s)%s%s%s", r->message[0] ? "FAILED" : "ok", r->op, r->label, isa ? " on " : "", isa ? isa : "", r->message[0] ? ": " : "");
    if (r->message[0]) printf("%s\n", r->message);
    else if (verbose) printf(": %.1e\n", r->worst);
    if (!r->message[0] && r->worst > g->worst) g->worst = r->worst;
    if (count) { g->run++; total_run++; }
    if (nn != *shared) nn_free(nn);
    else if (!nn_ok(nn)) { nn_free(nn); *shared = new_context(isa); }
    return !r->message[0];
}

static int run_file(const char *folder, const char *theme, const char *filter, int verbose, const char *const *tables, int n)
{
    char path[400];
    size_t bytes = 0;
    unsigned char *data;
    nn_context *nn[8];
    reader s;
    snprintf(path, sizeof path, "%s/%s.bin", folder, theme);
    data = read_file(path, &bytes);
    if (!data || bytes < 8 || memcmp(data, "NNGOLD1\n", 8)) { printf("FAILED: %s cannot be read\n", path); free(data); return 0; }
    s.p = data + 8; s.end = data + bytes; s.bad = 0;
    for (int k = 0; k < n; k++) nn[k] = new_context(tables[k]);
    while (s.p < s.end) {
        static record r;
        const struct row *row;
        char name[2 * NAME + 2];
        if (!read_record(&s, &r)) { printf("FAILED: %s is damaged at byte %ld\n", path, (long)(s.p - data)); free_record(&r); total_failed++; break; }
        snprintf(name, sizeof name, "%s %s", r.op, r.label);
        row = row_of(&r);
        if (!filter || strstr(name, filter)) {
            if (!row) { printf("FAILED %s: not in the table of this program\n", name); total_failed++; }
            else {
                int failed = 0;      /* the expensive curves and the numbers of initialisers, which are the same anyway: on one table */
                for (int k = 0; k < (group_of(row) == CURVE || group_of(row) == INIT ? 1 : n); k++) failed |= !run_on(&r, row, &nn[k], tables[k], verbose, k == 0);
                groups[group_of(row)].failed += failed;
                total_failed += failed;
            }
        }
        free_record(&r);
    }
    for (int k = 0; k < n; k++) nn_free(nn[k]);
    free(data);
    return 1;
}

int main(int argc, char **argv)
{
    static const char *const themes[] = { "elementwise", "reductions", "linear_algebra", "shape_ops", "conv_ops", "norm_ops", "losses", "layers", "recurrent", "attention", "initialisers", "optimizers", "curves" };
    static const char *const isas[] = { "scalar", "fma", "avx2", "avx512", "neon" };
    const char *tables[8] = { NULL }, *folder = getenv("NN_GOLDEN"), *filter = NULL;
    int n = 1, verbose = 0, enough;
    for (int k = 1; k < argc; k++) if (!strcmp(argv[k], "-v")) verbose = 1; else filter = argv[k];
    if (!folder) {
        FILE *f = fopen("tests/golden/elementwise.bin", "rb");
        folder = f ? "tests/golden" : "golden";
        if (f) fclose(f);
    }
    nn_context *best = new_context(NULL);
    for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {      /* the tables that this machine has, besides the default one */
        nn_context *c = new_context(isas[k]);
        if (nn_ok(c) && !strcmp(nn_isa(c), isas[k]) && strcmp(nn_isa(best), isas[k])) tables[n++] = isas[k];
        nn_free(c);
    }
    printf("kernels: %s", nn_isa(best));
    for (int k = 1; k < n; k++) printf(", %s", tables[k]);
    printf("\n");
    nn_free(best);
    for (size_t k = 0; k < sizeof themes / sizeof *themes; k++) if (!run_file(folder, themes[k], filter, verbose, tables, n)) total_failed++;
    printf("%-14s %6s %7s %11s %9s\n", "group", "cases", "failed", "worst error", "allowed");
    for (int k = 0; k < GROUPS; k++)
        if (groups[k].run) printf("%-14s %6d %7d %11.1e %9.0e  %s\n", groups[k].name, groups[k].run, groups[k].failed, groups[k].worst, groups[k].forward > groups[k].backward ? groups[k].forward : groups[k].backward, groups[k].why);
    enough = filter || total_run >= 1500;
    if (!enough) printf("FAILED: only %d cases were run, there must be 1500\n", total_run);
    free(digits);
    free(digit_labels);
    printf("%d passed, %d failed, 0 skipped\n", total_run - total_failed > 0 ? total_run - total_failed : 0, total_failed + !enough);
    return total_failed || !enough;
}
