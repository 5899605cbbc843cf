/* test_large.c - tensors of more than 2^31 numbers on a device, without their memory.

   Run with CUSHIM_DRY=2 CUSHIM_ARENA=1048576 (see cushim.h): tensors are addresses whose pages read as 0 until they are written, and of every
   grid a few blocks run, the first and the last among them. A case is written for any number of samples. It gets 2 of them on the CPU, and on
   the device so many that numbers pass 2^31; all but the first and the last sample are 0, and so are their gradients. Then the first and the
   last sample of the result, and all gradients, must be the CPU's: a product of sizes or an index that was cut to 32 bits leaves the last
   sample unwritten or wrong. Sums over all samples are theirs alone, as blocks that do not run leave 0. A name that begins with tf32, bf16 or fp16:
   on tensor cores. Every kernel of nn_cuda.h is launched by a case.
   NN_CASE=softmax: cases whose name contains that. */
#include "../../nn.h"
#include "../../nn_cuda.h"
#include "../test.h"

enum { MAX = 8, FOLD = 4 * 65535 };      /* samples: a multiple of the largest grid in y, so that its last block has the last sample */
const char *nn_device_kernel(int number);               /* cushim: the kernels that were launched, as NN__LAUNCH names them; NULL behind the last */
typedef struct world {
    nn_context *nn;
    int64_t samples, all, per;       /* all: samples on the device; numbers of a sample of the largest tensor */
    int count;
    nn_tensor *var[MAX];
    int shared[MAX];
    nn_layer *net;                   // of cases that have one
    nn_tensor *param;                // what the optimizer updates: the result is this, then
    nn_optimizer *opt;
    nn_ema *ema;
} world;
typedef struct large_case { const char *name; int64_t per; nn_tensor *(*run)(world *w); struct large_case *next; } large_case;
static large_case *cases, **last = &cases;
#define LARGE(name, per)                                                                                        \
    static nn_tensor *large_##name(world *w);                                                                   \
    static large_case case_##name = { #name, per, large_##name, NULL };                                         \
    __attribute__((constructor)) static void add_##name(void) { *last = &case_##name; last = &case_##name.next; } \
    static nn_tensor *large_##name(world *w)

static float number(int k, int64_t i) { return (float)((double)((unsigned)(i * 2654435761u + (unsigned)k * 40503u) >> 8 & 0xffff) / 32768.0 - 1.0) * 0.9f + 0.01f; }
static int64_t sample(const nn_tensor *t) { return nn_count(t) / nn_dim(t, 0); }
static nn_tensor *end_of(nn_tensor *t, int second)       /* the first or the last sample */
{
    int64_t n = nn_dim(t, 0);
    return second ? nn_slice(t, 0, n - 1, n, 1) : nn_slice(t, 0, 0, 1, 1);
}
static void set_ends(nn_tensor *t, int k)
{
    int64_t n = sample(t);
    float *v = malloc((size_t)(n + 1) * sizeof *v);
    for (int e = 0; e < 2; e++) {
        for (int64_t i = 0; i < n; i++) v[i] = number(k + 10 * e, i);
        nn_write(end_of(t, e), v);
    }
    free(v);
}
static nn_tensor *with(world *w, nn_shape s, int shared, int want)
{
    nn_tensor *t = nn_zeros(w->nn, s);
    int k = w->count++;
    if (shared) {
        int64_t n = nn_count(t);
        float *v = malloc((size_t)(n + 1) * sizeof *v);
        for (int64_t i = 0; i < n; i++) v[i] = number(k, i);
        nn_write(t, v);
        free(v);
    } else set_ends(t, k);
    w->shared[k] = shared;
    return w->var[k] = want ? nn_want_grad(t) : t;
}
#define X(...)     with(w, NN_SHAPE(w->samples, __VA_ARGS__), 0, 1)      /* one per sample */
#define ALL(...)   with(w, NN_SHAPE(__VA_ARGS__), 1, 1)                  /* the same for all */
#define FIXED(...) with(w, NN_SHAPE(__VA_ARGS__), 1, 0)                  /* without a gradient: its sum over all samples takes too long here */
#define DATA(...)  with(w, NN_SHAPE(w->samples, __VA_ARGS__), 0, 0)
static nn_tensor *indices(world *w, int64_t below, nn_shape s)           /* of every sample; all but the first and the last are 0 */
{
    nn_tensor *t = nn_cast(nn_zeros(w->nn, s), NN_I64);
    int64_t n = sample(t), *v = malloc((size_t)(n + 1) * sizeof *v);
    for (int e = 0; e < 2; e++) {
        for (int64_t i = 0; i < n; i++) v[i] = (i * 7 + 3 + e) % below;
        nn_write_as(end_of(t, e), NN_I64, v);
    }
    free(v);
    return t;
}
#define IDS(below, ...) indices(w, below, NN_SHAPE(__VA_ARGS__))
#define NONE(T) (&(T){ .reduction = NN_NONE })

/* ---- elementwise, copies ---- */
LARGE(exp, 512)             { return nn_exp(X(512)); }
LARGE(exp_odd, 511)         { return nn_exp(X(511)); }
LARGE(exp_strided, 512)     { return nn_exp(nn_transpose(X(16, 32), 1, 2)); }
LARGE(mul, 512)             { nn_tensor *a = X(512), *b = X(512); return nn_mul(a, b); }
LARGE(mul_row, 32)          { nn_tensor *a = X(32), *b = ALL(32); return nn_mul(a, b); }
LARGE(mul_column, 512)      { nn_tensor *a = X(512), *b = X(1); return nn_mul(a, b); }
LARGE(sub_outer, 512)       { nn_tensor *a = X(1, 32), *b = X(16, 1); return nn_sub(a, b); }
LARGE(where, 32)            { nn_tensor *a = X(32), *b = ALL(32); return nn_where(nn_gt(nn_detach(a), nn_scalar(w->nn, 0.1f)), a, b); }
LARGE(turn_across, 64)      { return nn_transpose(nn_contiguous(nn_transpose(X(64), 0, 1)), 0, 1); }
LARGE(turn, 512)            { return nn_contiguous(nn_transpose(X(16, 32), 1, 2)); }
LARGE(turn_indices, 512)    { return nn_cast(nn_contiguous(nn_transpose(IDS(512, w->samples, 16, 32), 1, 2)), NN_F32); }
LARGE(cast, 512)            { return nn_cast(nn_cast(X(512), NN_BF16), NN_F32); }
LARGE(cast_f64, 512)        { return nn_cast(nn_cast(X(512), NN_F64), NN_F32); }
LARGE(fill, 512)            { return nn_mul(X(512), nn_full(w->nn, NN_SHAPE(w->samples, 512), 1.5f)); }
LARGE(dropout, 512)         { return nn_dropout(X(512), 1e-10f); }
LARGE(expand, 512)          { return nn_mul_scalar(nn_expand(X(1), NN_SHAPE(-1, 512)), 2); }
LARGE(slice, 1024)          { return nn_mul_scalar(nn_slice(X(1024), 1, 3, 1023, 3), 2); }
LARGE(flip, 512)            { return nn_mul_scalar(nn_flip(X(512), NN_DIMS(1)), 2); }
LARGE(reshape, 512)         { return nn_mul_scalar(nn_reshape(nn_transpose(X(16, 32), 1, 2), NN_SHAPE(-1, 512)), 2); }
/* What a device makes of all numbers, PER of a sample: on the CPU number i of n, of the first sample and the last. */
enum { PER = 512 };
static nn_tensor *two_ends(world *w, double (*number)(int64_t i, int64_t n))
{
    float v[2 * PER];
    for (int64_t i = 0; i < 2 * PER; i++) v[i] = (float)number(i < PER ? i : PER * (w->all - 2) + i, PER * w->all);
    return nn_tensor_new(w->nn, NN_SHAPE(2, PER), v);
}
#define MADE(name, number, ...) LARGE(name, PER) { return w->samples == w->all ? nn_reshape(__VA_ARGS__, NN_SHAPE(-1, PER)) : two_ends(w, number); }
static void philox(uint64_t index, uint32_t *c)          /* of seed 0, the first step and its first op: Salmon et al. 2011 */
{
    uint32_t k0 = 0, k1 = 0;
    c[0] = (uint32_t)index; c[1] = (uint32_t)(index >> 32); c[2] = 0; c[3] = 1;
    for (int i = 0; i < 10; i++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
        c[0] = (uint32_t)(q >> 32) ^ c[1] ^ k0; c[1] = (uint32_t)q;
        c[2] = (uint32_t)(p >> 32) ^ c[3] ^ k1; c[3] = (uint32_t)p;
    }
}
static double uniform(int64_t i, int64_t n) { uint32_t c[4]; (void)n; philox((uint64_t)i / 4, c); return (c[i % 4] >> 8) / 16777216.0; }
static double from_1_to_3(int64_t i, int64_t n) { return 1 + 2 * uniform(i, n); }
static double normal(int64_t i, int64_t n)               /* Box & Muller */
{
    double radius = sqrt(-2 * log(1 - uniform(i & ~(int64_t)1, n))), angle = 6.28318530717958647692 * uniform(i | 1, n);
    return radius * (i & 1 ? sin(angle) : cos(angle));
}
static double stairs(int64_t i, int64_t n) { (void)n; return (double)i / PER; }
static double slope(int64_t i, int64_t n)  { return 1 + (double)i / (double)(n - 1); }
MADE(rand, from_1_to_3, nn_rand(w->nn, NN_SHAPE(PER * w->samples), 1, 3))
MADE(randn, normal, nn_randn(w->nn, NN_SHAPE(PER * w->samples), 0, 1))
MADE(arange, stairs, nn_arange(w->nn, 0, (float)w->samples, 1.0f / PER))
MADE(linspace, slope, nn_linspace(w->nn, 1, 2, PER * w->samples))
/* ---- reductions ---- */
LARGE(sum_lines, 512)       { return nn_sum(X(512), NN_DIMS(1), NULL); }
LARGE(sum_columns, 512)     { return nn_sum(X(32, 16), NN_DIMS(1), NULL); }
LARGE(sum_samples, 32)      { return nn_sum(X(32), NN_DIMS(0), NULL); }
LARGE(sum_all, 512)         { return nn_sum(X(512), NN_ALL, NULL); }
LARGE(max, 512)             { return nn_max(X(512), NN_DIMS(1), NULL); }
LARGE(var, 512)             { return nn_var(X(512), NN_DIMS(1), NULL); }
LARGE(logsumexp, 512)       { return nn_logsumexp(X(512), NN_DIMS(1), NULL); }
LARGE(norm, 512)            { return nn_norm(nn_add_scalar(X(512), 2), NN_DIMS(1), NULL); }
LARGE(argmax, 512)          { return nn_argmax(X(512), NN_DIMS(1), NULL); }
LARGE(cumsum, 512)          { return nn_cumsum(X(512), 1); }
LARGE(cumsum_columns, 512)  { return nn_cumsum(X(32, 16), 1); }
LARGE(softmax, 512)         { return nn_softmax(X(512), 1); }
LARGE(softmax_long, 4096)   { return nn_softmax(X(4096), 1); }
LARGE(log_softmax_columns, 1024) { return nn_log_softmax(X(32, 32), 1); }
/* ---- shapes ---- */
LARGE(concat, 512)          { nn_tensor *two[2]; two[0] = X(200); two[1] = X(312); return nn_concat(two, 2, 1); }
LARGE(concat_samples, 256)  { nn_tensor *two[2]; two[0] = X(256); two[1] = X(256); return nn_concat(two, 2, 0); }
LARGE(gather, 512)          { nn_tensor *x = X(512); return nn_gather(x, 1, IDS(512, w->samples, 512)); }
LARGE(scatter_add, 512)     { nn_tensor *x = X(512), *s = X(512); return nn_scatter_add(x, 1, IDS(512, w->samples, 512), s); }
LARGE(index_select, 512)    { nn_tensor *x = X(512); int64_t ids[2] = { 0, 0 }; ids[1] = w->samples - 1; return nn_index_select(x, 0, nn_from_as(w->nn, NN_I64, NN_SHAPE(2), ids)); }
LARGE(index_columns, 32)    { nn_tensor *x = X(32); return nn_index_select(x, 1, IDS(32, 32)); }
LARGE(embedding_table, 512) { nn_tensor *x = X(512); int64_t ids[2] = { 0, 0 }; ids[1] = w->samples - 1; return nn_embedding(nn_from_as(w->nn, NN_I64, NN_SHAPE(2), ids), x); }
LARGE(embedding, 512)       { nn_tensor *t = FIXED(5, 512); return nn_embedding(IDS(5, w->samples), t); }
LARGE(one_hot, 512)         { return nn_one_hot(IDS(512, w->samples), 512); }
LARGE(tril, 512)            { return nn_tril(X(16, 32), 3); }
LARGE(sort, 64)             { return nn_sort(X(64), 1, NULL, NULL); }
LARGE(sort_long, 1536)      { return nn_sort(X(1536), 1, NULL, NULL); }
LARGE(topk, 64)             { return nn_topk(X(64), 5, 1, NULL, NULL); }
LARGE(pad, 512)             { return nn_pad(X(15, 30), NN_SHAPE(1, 1, 0, 1), NULL); }
LARGE(pad_reflect, 512)     { return nn_pad(X(15, 30), NN_SHAPE(1, 1, 0, 1), &(nn_pad_desc){ .mode = NN_PAD_REFLECT }); }
/* ---- products ---- */
LARGE(matmul, 512)          { nn_tensor *a = X(32, 16), *b = X(16, 8); return nn_matmul(a, b); }
LARGE(matmul_rows, 64)      { nn_tensor *a = X(64), *b = FIXED(64, 20); return nn_matmul(a, b); }
LARGE(matmul_wide, 128)     { nn_tensor *a = X(4), *b = FIXED(4, 128); return nn_matmul(a, b); }
LARGE(matmul_shared, 512)   { nn_tensor *a = X(32, 16), *b = FIXED(16, 4); return nn_matmul(a, b); }
LARGE(linear, 64)           { nn_tensor *x = X(64), *v = FIXED(16, 64), *b = FIXED(16); return nn_linear(x, v, b, NULL); }
LARGE(linear_wide, 128)     { nn_tensor *x = X(4), *v = FIXED(128, 4); return nn_linear(x, v, NULL, NULL); }
LARGE(linear_table, 64)     { nn_tensor *x = FIXED(3, 64), *v = X(64); return nn_transpose(nn_linear(x, v, NULL, NULL), 0, 1); }
LARGE(linear_biases, 4)     { nn_tensor *x = FIXED(4, 2), *v = DATA(2), *b = X(1); return nn_transpose(nn_linear(x, v, nn_reshape(b, NN_SHAPE(-1)), NULL), 0, 1); }
LARGE(linear_bf16, 64)      { nn_tensor *x = X(64), *v = nn_quantize_new(FIXED(16, 64), NN_BF16, NULL, NULL); return nn_linear(x, v, NULL, NULL); }
static nn_tensor *quantized(world *w, nn_dtype dtype, int64_t in, int64_t group)
{
    nn_tensor *x = X(in), *scale = NULL, *v = nn_quantize_new(FIXED(16, in), dtype, &scale, &(nn_quantize_desc){ .group = group });
    return nn_linear(x, v, NULL, &(nn_linear_desc){ .scale = scale });
}
LARGE(linear_i8, 64)        { return quantized(w, NN_I8, 64, 0); }
LARGE(linear_i8_groups, 64) { return quantized(w, NN_I8, 64, 16); }
LARGE(linear_i4, 64)        { return quantized(w, NN_I4, 64, 0); }
LARGE(linear_i4_odd, 75)    { return quantized(w, NN_I4, 75, 16); }
static nn_tensor *words(world *w, int64_t n)             /* of eight numbers of 4 bits, each of two of a sample */
{
    nn_tensor *t = nn_cast(nn_zeros(w->nn, NN_SHAPE(w->samples, n)), NN_I32);
    int32_t *v = malloc((size_t)n * sizeof *v);
    for (int e = 0; e < 2; e++) {
        for (int64_t i = 0; i < n; i++) v[i] = (int32_t)((uint32_t)(i + 3 + e) * 2654435761u);
        nn_write_as(end_of(t, e), NN_I32, v);
    }
    free(v);
    return t;
}
LARGE(dequantize, 512)      { nn_tensor *v = words(w, 64); return nn_dequantize(v, DATA(16)); }
LARGE(linear_table_bf16, 64) { nn_tensor *x = FIXED(3, 64), *v = nn_quantize_new(DATA(64), NN_BF16, NULL, NULL); return nn_transpose(nn_linear(x, v, NULL, NULL), 0, 1); }
LARGE(linear_table_i4, 64)  { nn_tensor *x = FIXED(3, 64), *v = words(w, 8); return nn_transpose(nn_linear(x, v, NULL, &(nn_linear_desc){ .scale = DATA(2) }), 0, 1); }
LARGE(linear_rows_bf16, 4)   { nn_tensor *x = FIXED(20, 4), *v = nn_quantize_new(DATA(4), NN_BF16, NULL, NULL); return nn_transpose(nn_linear(x, v, NULL, NULL), 0, 1); }     /* each input is a quarter of the weights */
LARGE(tf32_matmul, 512)     { nn_tensor *a = X(32, 16), *b = X(16, 8); return nn_matmul(a, b); }
LARGE(bf16_matmul, 512)     { nn_tensor *a = X(32, 16), *b = X(16, 8); return nn_matmul(a, b); }
LARGE(fp16_matmul, 512)     { nn_tensor *a = X(32, 16), *b = X(16, 8); return nn_matmul(a, b); }
LARGE(tf32_linear, 64)      { nn_tensor *x = X(64), *v = FIXED(20, 64), *b = FIXED(20); return nn_linear(x, v, b, NULL); }
/* ---- images ---- */
LARGE(conv, 512)            { nn_tensor *x = X(1, 16, 16), *v = FIXED(2, 1, 3, 3), *b = FIXED(2); return nn_conv2d(x, v, b, &(nn_conv2d_desc){ .padding = 1 }); }
LARGE(conv_stride, 2048)    { nn_tensor *x = X(2, 32, 32), *v = FIXED(4, 2, 3, 3); return nn_conv2d(x, v, NULL, &(nn_conv2d_desc){ .padding = 1, .stride = 2 }); }
LARGE(conv_depthwise, 512)  { nn_tensor *x = X(2, 16, 16), *v = FIXED(2, 1, 3, 3); return nn_conv2d(x, v, NULL, &(nn_conv2d_desc){ .padding = 1, .groups = 2 }); }
LARGE(conv_1x1, 512)        { nn_tensor *x = X(2, 16, 16), *v = FIXED(2, 2, 1, 1); return nn_conv2d(x, v, NULL, NULL); }
LARGE(conv_transpose, 512)  { nn_tensor *x = X(2, 8, 8), *v = FIXED(2, 2, 2, 2); return nn_conv_transpose2d(x, v, NULL, &(nn_conv_transpose2d_desc){ .stride = 2 }); }
LARGE(conv_far, 4096)       { nn_tensor *x = X(1, 64, 64), *v = ALL(2, 1, 1, 1), *b = ALL(2); return nn_conv2d(x, v, b, &(nn_conv2d_desc){ .stride = 64 }); }
LARGE(conv_channels, 32)    { nn_tensor *x = FIXED(2, 1, 4, 4), *v = DATA(1, 3, 3), *b = X(1); return nn_transpose(nn_conv2d(x, v, nn_reshape(b, NN_SHAPE(-1)), &(nn_conv2d_desc){ .padding = 1 }), 0, 1); }
LARGE(maxpool, 512)         { return nn_maxpool2d(X(2, 16, 16), 2, NULL); }
LARGE(avgpool, 512)         { return nn_avgpool2d(X(2, 16, 16), 2, NULL); }
LARGE(upsample, 512)        { return nn_upsample(X(2, 8, 8), 16, 16, NULL); }
LARGE(upsample_bilinear, 512) { return nn_upsample(X(2, 8, 8), 16, 16, &(nn_upsample_desc){ .bilinear = 1 }); }
/* ---- norms, losses ---- */
LARGE(layernorm, 512)       { nn_tensor *x = X(512), *v = FIXED(512), *b = FIXED(512); return nn_layernorm(x, 1, v, b, NULL); }
LARGE(layernorm_sums, 32)   { nn_tensor *x = X(32), *v = ALL(32), *b = ALL(32); return nn_layernorm(x, 1, v, b, NULL); }
LARGE(layernorm_long, 2048) { nn_tensor *x = X(2048), *v = FIXED(2048), *b = FIXED(2048); return nn_layernorm(x, 1, v, b, NULL); }
LARGE(rmsnorm, 512)         { nn_tensor *x = X(512), *v = FIXED(512); return nn_rmsnorm(x, v, NULL); }
LARGE(add_layernorm, 512)   { nn_tensor *x = X(512), *r = X(512), *v = FIXED(512), *s, *y = nn_add_layernorm(x, r, 1, v, NULL, &s, NULL); return nn_mul(y, s); }
LARGE(groupnorm, 512)       { nn_tensor *x = X(8, 64), *v = FIXED(8), *b = FIXED(8); return nn_groupnorm(x, 2, v, b, NULL); }
LARGE(mse, 512)             { nn_tensor *a = X(512), *b = X(512); return nn_mse(a, b, NONE(nn_loss_desc)); }
LARGE(mse_sum, 512)         { nn_tensor *a = X(512), *b = X(512); return nn_mse(a, b, &(nn_loss_desc){ .reduction = NN_SUM }); }
LARGE(bce, 512)             { nn_tensor *a = X(512), *b = X(512); return nn_binary_cross_entropy(a, nn_detach(nn_sigmoid(b)), NONE(nn_loss_desc)); }
LARGE(cross_entropy, 512)   { nn_tensor *a = X(512); return nn_cross_entropy(a, IDS(512, w->samples), NONE(nn_loss_desc)); }
LARGE(cross_entropy_pixels, 512) { nn_tensor *a = X(8, 64); return nn_cross_entropy(a, IDS(8, w->samples, 64), NONE(nn_loss_desc)); }
LARGE(nll, 512)             { nn_tensor *a = X(512); return nn_nll(a, IDS(512, w->samples), NONE(nn_loss_desc)); }
LARGE(hinge, 512)           { nn_tensor *a = X(512); return nn_hinge(a, IDS(512, w->samples), NONE(nn_loss_desc)); }
LARGE(kl_div, 512)          { nn_tensor *a = X(512), *b = X(512); return nn_kl_div(a, b, NONE(nn_loss_desc)); }
/* ---- sequences ---- */
LARGE(attention, 128)       { nn_tensor *q = X(1, 8, 16), *k = X(1, 8, 16), *v = X(1, 8, 16); return nn_scaled_dot_product_attention(q, k, v, &(nn_attention_desc){ .causal = 1 }); }
LARGE(attention_dropped, 128) { nn_tensor *q = X(1, 8, 16), *k = X(1, 8, 16), *v = X(1, 8, 16); return nn_scaled_dot_product_attention(q, k, v, &(nn_attention_desc){ .causal = 1, .dropout = 1e-10f }); }
LARGE(attention_learned, 128) { nn_tensor *q = X(1, 8, 16), *k = X(1, 8, 16), *v = X(1, 8, 16), *m = X(1, 8, 8); return nn_scaled_dot_product_attention(q, k, v, &(nn_attention_desc){ .mask = m }); }
LARGE(attention_wide, 640)  { nn_tensor *q = X(1, 8, 80), *k = X(1, 8, 80), *v = X(1, 8, 80); return nn_scaled_dot_product_attention(q, k, v, NULL); }
LARGE(tf32_attention, 128)  { nn_tensor *q = X(1, 8, 16), *k = X(1, 8, 16), *v = X(1, 8, 16); return nn_scaled_dot_product_attention(q, k, v, &(nn_attention_desc){ .causal = 1 }); }
LARGE(bf16_attention, 128)  { nn_tensor *q = X(1, 8, 16), *k = X(1, 8, 16), *v = X(1, 8, 16); return nn_scaled_dot_product_attention(q, k, v, NULL); }
LARGE(tf32_attention_wide, 640) { nn_tensor *q = X(1, 8, 80), *k = X(1, 8, 80), *v = X(1, 8, 80); return nn_scaled_dot_product_attention(q, k, v, NULL); }
LARGE(decode, 640)          { nn_tensor *q = X(1, 1, 16), *k = X(1, 40, 16), *v = X(1, 40, 16); return nn_scaled_dot_product_attention(q, k, v, &(nn_attention_desc){ .causal = 1 }); }
LARGE(rope, 512)            { nn_tensor *x = X(2, 4, 64); return nn_rope(x, nn_rope_new(w->nn, 8, 64, 0), NULL); }

/* Weights are frozen: their gradients are sums over all samples. */
static nn_tensor *through(nn_layer *layer, nn_tensor *x) { nn_freeze(layer, 1); return nn_forward(layer, x); }
static nn_layer *net(world *w) { return w->net ? w->net : (w->net = nn_model_new(w->nn, NULL)); }
LARGE(rnn, 2048)            { return through(nn_rnn_new(net(w), NULL, 8, 64, NULL), X(32, 8)); }
LARGE(lstm, 2048)           { return through(nn_lstm_new(net(w), NULL, 8, 64, NULL), X(32, 8)); }
LARGE(lstm_states, 2048)
{
    nn_tensor *x = X(32, 8), *h = X(64), *c = X(64);
    nn_rnn_state first = { .h = nn_reshape(h, NN_SHAPE(1, -1, 64)), .c = nn_reshape(c, NN_SHAPE(1, -1, 64)) };
    nn_layer *l = nn_lstm_new(net(w), NULL, 8, 64, NULL);
    nn_freeze(l, 1);
    return nn_rnn_forward(l, x, &first);
}
LARGE(lstm_projected, 2048) { return through(nn_lstm_new(net(w), NULL, 8, 64, &(nn_lstm_desc){ .proj = 24 }), X(32, 8)); }
LARGE(gru_backwards, 2048)  { return through(nn_gru_new(net(w), NULL, 8, 64, &(nn_gru_desc){ .bidirectional = 1 }), X(32, 8)); }
LARGE(ctc, 2048)                                         /* four steps: a quarter of the grids is a step */
{
    nn_tensor *x = nn_transpose(X(4, 512), 0, 1), *steps = nn_cast(nn_full(w->nn, NN_SHAPE(w->samples), 4), NN_I64), *sizes = nn_cast(nn_full(w->nn, NN_SHAPE(w->samples), 2), NN_I64);
    return nn_ctc_loss(x, IDS(512, w->samples, 2), steps, sizes, &(nn_ctc_desc){ .reduction = NN_NONE, .blank = 511 });
}
/* ---- batch norm: of many channels; by statistics that stay; and by those of the batch, whose sums are chosen to be 0 or small, however many samples ---- */
LARGE(batchnorm_channels, 64)
{
    nn_tensor *x = nn_reshape(X(64), NN_SHAPE(1, -1, 64)), *v = nn_reshape(X(1), NN_SHAPE(-1)), *b = nn_reshape(X(1), NN_SHAPE(-1));
    return nn_reshape(nn_batchnorm(x, v, b, NULL, NULL, NULL), NN_SHAPE(-1, 64));
}
LARGE(batchnorm_frozen, 512) { return through(nn_batchnorm_new(net(w), NULL, 8, NULL), X(8, 64)); }
LARGE(batchnorm, 1024)
{
    nn_tensor *two[2], *y;
    two[0] = X(8, 64);
    two[1] = nn_neg(two[0]);
    y = nn_batchnorm(nn_concat(two, 2, 2), NULL, NULL, NULL, NULL, &(nn_batchnorm_desc){ .eps = 1e6f });
    return nn_sub(nn_slice(y, 2, 0, 64, 1), nn_slice(y, 2, 64, 128, 1));
}
/* ---- optimizers: a parameter of more than 2^31 numbers beside one of few, two steps; scaled: with loss scaling ---- */
static nn_tensor *updated(world *w)
{
    nn_tensor *few = nn_param_new(net(w), "few", NN_SHAPE(512));
    float v[512];
    for (int i = 0; i < 512; i++) v[i] = number(7, i);
    nn_write(few, v);
    w->param = nn_param_new(w->net, "many", NN_SHAPE(w->samples, 512));
    set_ends(w->param, 3);
    return nn_mul(X(512), nn_add(w->param, nn_detach(few)));
}
LARGE(sgd, 512)             { nn_tensor *y = updated(w); w->opt = nn_sgd_new(w->net, &(nn_sgd_desc){ .lr = 0.05f }); return y; }
LARGE(sgd_clipped, 512)     { nn_tensor *y = updated(w); w->opt = nn_sgd_new(w->net, &(nn_sgd_desc){ .lr = 0.5f, .momentum = 0.9f, .nesterov = 1, .clip_norm = 1 }); return y; }
LARGE(adamw, 512)           { nn_tensor *y = updated(w); w->opt = nn_adamw_new(w->net, &(nn_adamw_desc){ .lr = 0.05f }); return y; }
LARGE(adam_clipped, 512)    { nn_tensor *y = updated(w); w->opt = nn_adam_new(w->net, &(nn_adam_desc){ .lr = 0.05f, .amsgrad = 1, .clip_value = 0.1f }); return y; }
LARGE(scaled_sgd_clipped, 512) { nn_tensor *y = updated(w); w->opt = nn_sgd_new(w->net, &(nn_sgd_desc){ .lr = 0.5f, .momentum = 0.9f, .clip_norm = 1 }); return y; }
LARGE(scaled_adamw, 512)    { nn_tensor *y = updated(w); w->opt = nn_adamw_new(w->net, &(nn_adamw_desc){ .lr = 0.05f }); return y; }
LARGE(rmsprop, 512)         { nn_tensor *y = updated(w); w->opt = nn_rmsprop_new(w->net, &(nn_rmsprop_desc){ .lr = 0.01f, .momentum = 0.9f, .centered = 1 }); return y; }
LARGE(adagrad, 512)         { nn_tensor *y = updated(w); w->opt = nn_adagrad_new(w->net, &(nn_adagrad_desc){ .lr = 0.05f }); return y; }
LARGE(nadam, 512)           { nn_tensor *y = updated(w); w->opt = nn_nadam_new(w->net, &(nn_nadam_desc){ .lr = 0.01f }); return y; }
LARGE(lion, 512)            { nn_tensor *y = updated(w); w->opt = nn_lion_new(w->net, &(nn_lion_desc){ .lr = 0.01f }); return y; }

LARGE(averages, 512)        { nn_tensor *y = updated(w); w->opt = nn_sgd_new(w->net, &(nn_sgd_desc){ .lr = 0.05f }); w->ema = nn_ema_new(w->net, 0.7f); return y; }

/* ---- the comparison ---- */
typedef struct outcome { int64_t n; float *v; } outcome;
static outcome ends(nn_tensor *t, int shared)            /* all of it, or the first and the last sample */
{
    outcome o = { 0, NULL };
    if (!t) return o;
    if (shared || t->ndim == 0 || nn_count(t) < 2) {
        o.n = nn_count(t);
        o.v = malloc((size_t)(o.n + 1) * sizeof *o.v);
        nn_read(t, o.v);
        return o;
    }
    o.n = 2 * sample(t);
    o.v = malloc((size_t)(o.n + 1) * sizeof *o.v);
    nn_read(end_of(t, 0), o.v);
    nn_read(end_of(t, 1), o.v + o.n / 2);
    return o;
}
static int run(const large_case *k, int64_t samples, int64_t all, const nn_backend *backend, outcome *o)
{
    world w;
    nn_tensor *y, *dy;
    int i, ok;
    memset(&w, 0, sizeof w);
    w.nn = nn_new(&(nn_desc){ .threads = 1, .backend = backend, .loss_scale = strncmp(k->name, "scaled", 6) ? 0 : 1024 });
    w.samples = samples;
    w.all = all;
    w.per = k->per;
    nn_begin(w.nn, NN_TRAIN);
    y = k->run(&w);
    if (nn_ok(w.nn)) {
        o[MAX] = ends(y, 0);
        if (y->node && y->dtype == NN_F32) {
            dy = nn_zeros(w.nn, nn_shape_of(y));
            if (nn_count(y) == 1) nn_write(dy, (float[]){ 0.5f });
            else set_ends(dy, 5);
            nn_backward_with(y, &(nn_backward_desc){ .grad = dy });
        }
        for (i = 0; i < w.count; i++) o[i] = ends(nn_grad(w.var[i]), w.shared[i]);
        if (w.opt) {
            nn_step(w.opt); nn_step(w.opt);
            if (w.ema) { nn_ema_update(w.ema); nn_ema_swap(w.ema); }
            free(o[MAX].v);
            o[MAX] = ends(w.param, 0);
        }
    }
    ok = nn_ok(w.nn);
    if (!ok) printf("%s: %s\n", k->name, nn_error(w.nn));
    nn_free(w.nn);
    return ok;
}
static int64_t fell_back;
static int all_cases;
static const nn_backend *inner;
static int counted(void *self, const nn_call *c)
{
    int done = inner->run(self, c);
    if (!done) printf("%s %s ran on the CPU\n", c->op->name, c->pass == NN_BACKWARD ? "backward" : "forward");
    fell_back += !done;
    return done;
}
static int precision_of(const large_case *k)
{
    static const char *const name[] = { "", "tf32", "bf16", "fp16" };
    for (int p = NN_CUDA_TF32; p <= NN_CUDA_FP16; p++) if (!strncmp(k->name, name[p], 4)) return p;
    return NN_CUDA_FP32;
}
static void compare(const large_case *k)
{
    static const double tolerance[] = { 2e-5, 4e-3, 4e-2, 4e-3 };
    outcome cpu[MAX + 1], o[MAX + 1];
    int precision = precision_of(k);
    int64_t all = (((int64_t)1 << 31) / k->per / FOLD + 1) * FOLD;
    nn_backend device;
    inner = nn_cuda_with(0, &(nn_cuda_desc){ .precision = (nn_cuda_precision)precision });
    device = *inner;
    device.run = counted;
    memset(cpu, 0, sizeof cpu);
    memset(o, 0, sizeof o);
    CHECK(run(k, 2, all, NULL, cpu));
    CHECK(run(k, all, all, &device, o));
    for (int i = 0; i <= MAX; i++) {
        int64_t wrong = 0;
        double scale = 1e-3;
        CHECK(o[i].n == cpu[i].n);
        for (int64_t e = 0; e < cpu[i].n; e++) if (fabs(cpu[i].v[e]) > scale) scale = fabs(cpu[i].v[e]);
        for (int64_t e = 0; e < cpu[i].n && o[i].n == cpu[i].n; e++) if (!(fabs((double)o[i].v[e] - cpu[i].v[e]) <= tolerance[precision] * scale)) {
            if (!wrong++) printf("%s: %s %d: element %lld of the two samples is %.9g, on the CPU %.9g\n", k->name, i == MAX ? "result" : "gradient", i, (long long)e, o[i].v[e], cpu[i].v[e]);
        }
        CHECK(wrong == 0);
        free(cpu[i].v);
        free(o[i].v);
    }
}
TEST(more_than_2_to_the_31)
{
    const char *only = getenv("NN_CASE"), *dry = getenv("CUSHIM_DRY");
    if (!dry || atoi(dry) != 2) SKIP("runs with CUSHIM_DRY=2");
    for (large_case *k = cases; k; k = k->next) if (!only || strstr(k->name, only)) compare(k);
    CHECK(fell_back == 0);
    all_cases = !only;
}

/* ---- the kernels that no case launched ---- */
#define LETTERS "abcdefghijklmnopqrstuvwxyz_"
static int same_kernel(const char *launched, const char *name)       /* nn__k_map<F> and map; the pointers product, thin, enlarge[...] have names of theirs */
{
    launched += strspn(launched, "(");
    if (!strncmp(launched, "nn__k_", 6)) launched += 6;
    return strspn(launched, LETTERS) == strlen(name) && !strncmp(launched, name, strlen(name));
}
TEST(every_kernel_was_launched)
{
    size_t size;
    int kernels = 0;
    if (!all_cases) SKIP("cases were left out");
    char *text = slurp("nn_cuda.h", &size), *at = text;
    CHECK(text != NULL);
    while (at && (at = strstr(at, " __global__ void ")) != NULL && (at = strstr(at, "nn__k_")) != NULL) {
        char name[64] = "";
        const char *ran;
        size_t n = strspn(at + 6, LETTERS);
        memcpy(name, at + 6, n < sizeof name ? n : sizeof name - 1);
        kernels++;
        for (int i = 0; (ran = nn_device_kernel(i)) != NULL && !same_kernel(ran, name); i++) { }
        if (!ran) printf("%s: no case launches it\n", name);
        CHECK(ran != NULL);
    }
    printf("%d kernels\n", kernels);
    CHECK(kernels > 70);
    free(text);
}
