/* profile.c - every kernel at sizes as networks have them, for what the executor of PTX counts (PTXSIM_TABLE, see sass.py): sectors, bank
   conflicts, the width of accesses, dynamic shared memory. Prints for every op the bytes that its launches asked the memory for, and the
   fewest there could be (traffic.h). NN_CASE=conv: cases whose name contains that. */
#include "../../nn.h"
#include "../../nn_cuda.h"
#include "traffic.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double nn_device_bytes(int once);                        /* ptxsim: asked for until now; 1: every sector of 32 bytes once a launch */
long nn_device_count(int kind);

static const nn_backend *inner;
static nn_context *nn;
static struct { const char *name; double calls, launches, least, touched, asked; } ops[NN_OP_COUNT][2];
static int counted_run(void *self, const nn_call *c)
{
    double touched, asked;
    long launches = nn_device_count(1);
    int back = c->pass == NN_BACKWARD, done;
    inner->sync(self);
    touched = nn_device_bytes(1);
    asked = nn_device_bytes(0);
    done = inner->run(self, c);
    inner->sync(self);                                   /* updates that wait belong to the call that made them go */
    ops[c->op->id][back].name = c->op->name;
    ops[c->op->id][back].calls++;
    ops[c->op->id][back].launches += (double)(nn_device_count(1) - launches);
    ops[c->op->id][back].least += traffic_of(c);
    ops[c->op->id][back].touched += nn_device_bytes(1) - touched;
    ops[c->op->id][back].asked += nn_device_bytes(0) - asked;
    if (!done) printf("%s ran on the CPU\n", c->op->name);
    return done;
}
static nn_tensor *of_shape(nn_shape s, int want)
{
    int64_t n = 1;
    for (int i = 0; i < s.ndim; i++) n *= s.d[i];
    float *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = (float)((double)((unsigned)(i * 2654435761u) >> 8 & 0xffff) / 32768.0 - 1.0);
    nn_tensor *t = nn_tensor_new(nn, s, v);
    free(v);
    return want ? nn_want_grad(t) : t;
}
static nn_tensor *ids(nn_shape s, int64_t below)
{
    int64_t n = 1;
    for (int i = 0; i < s.ndim; i++) n *= s.d[i];
    int64_t *v = malloc((size_t)n * sizeof *v);
    for (int64_t i = 0; i < n; i++) v[i] = (i * 7 + i / 3) % below;
    nn_tensor *t = nn_tensor_new_as(nn, NN_I64, s, v);
    free(v);
    return t;
}
#define X(...)     of_shape(NN_SHAPE(__VA_ARGS__), 1)
#define FIXED(...) of_shape(NN_SHAPE(__VA_ARGS__), 0)
#define IDS(below, ...) ids(NN_SHAPE(__VA_ARGS__), below)
typedef struct profile_case { const char *name; int precision; nn_tensor *(*run)(void); struct profile_case *next; } profile_case;
static profile_case *cases, **last_case = &cases;
#define PROFILE_(name, label, precision)                                                                     \
    static nn_tensor *profile_##label(void);                                                                 \
    static profile_case case_##label = { #name, precision, profile_##label, NULL };                          \
    __attribute__((constructor)) static void add_##label(void) { *last_case = &case_##label; last_case = &case_##label.next; } \
    static nn_tensor *profile_##label(void)
#define PROFILE(name) PROFILE_(name, name, 0)
#define ON_TENSOR_CORES(name) static nn_tensor *cores_##name(void); \
    PROFILE_(name, name##_fp32, 0) { return cores_##name(); } PROFILE_(name, name##_tf32, 1) { return cores_##name(); } \
    PROFILE_(name, name##_bf16, 2) { return cores_##name(); } static nn_tensor *cores_##name(void)
#define WITH(T, ...) (&(T){ __VA_ARGS__ })

PROFILE(exp)                { return nn_exp(X(128, 512)); }
PROFILE(gelu)               { return nn_gelu(X(128, 512)); }
PROFILE(mul)                { return nn_mul(X(128, 512), X(128, 512)); }
PROFILE(mul_row)            { return nn_mul(X(128, 512), X(512)); }
PROFILE(add_channel)        { return nn_add(X(8, 16, 256), X(16, 1)); }
PROFILE(where)              { nn_tensor *a = X(128, 512); return nn_where(nn_gt(nn_detach(a), nn_scalar(nn, 0)), a, X(128, 512)); }
PROFILE(turn)               { return nn_contiguous(nn_transpose(X(128, 512), 0, 1)); }
PROFILE(heads)              { return nn_contiguous(nn_transpose(X(2, 64, 8, 64), 1, 2)); }
PROFILE(cast)               { return nn_cast(nn_cast(X(128, 512), NN_BF16), NN_F32); }
PROFILE(copies)             { return nn_cast(nn_contiguous(nn_transpose(nn_cast(FIXED(128, 256), NN_BF16), 0, 1)), NN_F32); }
PROFILE(fill)               { return nn_mul(X(128, 512), nn_full(nn, NN_SHAPE(128, 512), 1.5f)); }
PROFILE(dropout)            { return nn_dropout(X(128, 512), 0.1f); }
PROFILE(random)             { nn_tensor *t = FIXED(128, 512); nn_init_normal(t, 0, 1); return nn_mul(X(128, 512), t); }
PROFILE(slice)              { return nn_mul_scalar(nn_slice(X(128, 512), 1, 0, 512, 2), 2); }
PROFILE(sum_lines)          { return nn_sum(X(512, 256), NN_DIMS(1), NULL); }
PROFILE(sum_columns)        { return nn_sum(X(512, 256), NN_DIMS(0), NULL); }
PROFILE(sum_all)            { return nn_sum(X(512, 256), NN_ALL, NULL); }
PROFILE(max)                { return nn_max(X(512, 256), NN_DIMS(1), NULL); }
PROFILE(var)                { return nn_var(X(512, 256), NN_DIMS(1), NULL); }
PROFILE(logsumexp)          { return nn_logsumexp(X(512, 256), NN_DIMS(1), NULL); }
PROFILE(argmax)             { return nn_argmax(X(512, 256), NN_DIMS(1), NULL); }
PROFILE(cumsum)             { return nn_cumsum(X(256, 256), 1); }
PROFILE(cumsum_columns)     { return nn_cumsum(X(64, 1024), 0); }
PROFILE(softmax)            { return nn_softmax(X(256, 512), 1); }
PROFILE(softmax_long)       { return nn_softmax(X(16, 8192), 1); }
PROFILE(softmax_columns)    { return nn_softmax(X(4, 64, 256), 1); }
PROFILE(log_softmax)        { return nn_log_softmax(X(256, 512), 1); }
PROFILE(concat)             { nn_tensor *two[2]; two[0] = X(128, 256); two[1] = X(128, 128); return nn_concat(two, 2, 1); }
PROFILE(gather)             { nn_tensor *x = X(128, 512); return nn_gather(x, 1, IDS(512, 128, 512)); }
PROFILE(scatter_add)        { nn_tensor *x = X(64, 128); return nn_scatter_add(x, 1, IDS(128, 64, 128), X(64, 128)); }
PROFILE(index_select)       { nn_tensor *x = X(128, 512); return nn_index_select(x, 0, IDS(128, 256)); }
PROFILE(embedding)          { nn_tensor *x = X(300, 256); return nn_embedding(IDS(300, 512), x); }
PROFILE(one_hot)            { return nn_one_hot(IDS(256, 256), 256); }
PROFILE(tril)               { return nn_tril(X(4, 128, 128), 0); }
PROFILE(sort)               { return nn_sort(X(16, 1024), 1, NULL, NULL); }
PROFILE(sort_long)          { return nn_sort(X(2, 4096), 1, NULL, NULL); }
PROFILE(topk)               { return nn_topk(X(16, 1024), 8, 1, NULL, NULL); }
PROFILE(pad)                { return nn_pad(X(16, 30, 64), NN_SHAPE(0, 0, 1, 1), NULL); }
PROFILE(arange)             { return nn_arange(nn, 0, 65536, 1); }
ON_TENSOR_CORES(linear)     { return nn_linear(X(256, 256), X(256, 256), X(256), NULL); }
ON_TENSOR_CORES(linear_large) { return nn_linear(X(1024, 64), X(2048, 64), NULL, NULL); }
ON_TENSOR_CORES(matmul)     { return nn_matmul(X(2, 128, 128), X(2, 128, 128)); }
PROFILE(matmul_small)       { return nn_matmul(X(512, 8, 16), X(512, 16, 8)); }
PROFILE(linear_one)         { return nn_linear(X(1, 512), X(512, 512), X(512), NULL); }
PROFILE(linear_four)        { return nn_linear(X(4, 512), X(256, 512), NULL, NULL); }
PROFILE(linear_few)         { return nn_linear(X(512, 256), X(4, 256), NULL, NULL); }
PROFILE(columns_one)        { return nn_matmul(X(1, 512), X(512, 512)); }
PROFILE(weights_bf16)       { return nn_linear(X(1, 512), nn_quantize_new(FIXED(512, 512), NN_BF16, NULL, NULL), NULL, NULL); }
PROFILE(weights_f16)        { return nn_linear(X(64, 256), nn_quantize_new(FIXED(256, 256), NN_F16, NULL, NULL), NULL, NULL); }
PROFILE(weights_i8)         { nn_tensor *s = NULL, *w = nn_quantize_new(FIXED(512, 512), NN_I8, &s, NULL); return nn_linear(X(4, 512), w, NULL, WITH(nn_linear_desc, .scale = s)); }
/* a row of 768 by 1,024 outputs, as a layer holds its weight, or an embedding */
static nn_tensor *one_row(nn_dtype type, int64_t group, int tied)
{
    nn_layer *net = nn_model_new(nn, NULL), *l;
    nn_weights_as(nn, type, WITH(nn_quantize_desc, .group = group));
    l = tied ? nn_tied_linear_new(net, nn_embedding_new(net, NULL, 1024, 768)) : nn_linear_new(net, NULL, 768, 1024, NULL);
    nn_freeze(net, 1);
    return nn_forward(l, FIXED(1, 768));
}
PROFILE(row_f32)    { return one_row(NN_F32, 0, 0); }    PROFILE(row_tied_f32)  { return one_row(NN_F32, 0, 1); }
PROFILE(row_bf16)   { return one_row(NN_BF16, 0, 0); }   PROFILE(row_tied_bf16) { return one_row(NN_BF16, 0, 1); }
PROFILE(row_i8)     { return one_row(NN_I8, 0, 0); }     PROFILE(row_tied_i8)   { return one_row(NN_I8, 0, 1); }
PROFILE(row_i8_32)  { return one_row(NN_I8, 32, 0); }    PROFILE(row_tied_i8_32) { return one_row(NN_I8, 32, 1); }
PROFILE(row_i4)     { return one_row(NN_I4, 0, 0); }     PROFILE(row_tied_i4)   { return one_row(NN_I4, 0, 1); }
ON_TENSOR_CORES(conv)       { return nn_conv2d(X(4, 32, 16, 16), X(64, 32, 3, 3), X(64), WITH(nn_conv2d_desc, .padding = 1)); }
ON_TENSOR_CORES(conv_1x1)   { return nn_conv2d(X(4, 64, 16, 16), X(64, 64, 1, 1), NULL, NULL); }
PROFILE(conv_depthwise)     { return nn_conv2d(X(4, 32, 32, 32), X(32, 1, 3, 3), NULL, WITH(nn_conv2d_desc, .padding = 1, .groups = 32)); }
PROFILE(conv_first)         { return nn_conv2d(FIXED(4, 3, 32, 32), X(32, 3, 3, 3), X(32), WITH(nn_conv2d_desc, .padding = 1)); }
PROFILE(conv_transpose)     { return nn_conv_transpose2d(X(4, 32, 8, 8), X(32, 32, 2, 2), NULL, WITH(nn_conv_transpose2d_desc, .stride = 2)); }
PROFILE(maxpool)            { return nn_maxpool2d(X(8, 16, 32, 32), 2, NULL); }
PROFILE(avgpool)            { return nn_avgpool2d(X(8, 16, 32, 32), 2, NULL); }
PROFILE(upsample)           { return nn_upsample(X(8, 16, 16, 16), 32, 32, NULL); }
PROFILE(batchnorm)          { return nn_batchnorm(X(8, 16, 32, 32), X(16), X(16), NULL, NULL, NULL); }
PROFILE(layernorm)          { return nn_layernorm(X(256, 768), 1, X(768), X(768), NULL); }
PROFILE(layernorm_long)     { return nn_layernorm(X(16, 8192), 1, X(8192), X(8192), NULL); }
PROFILE(rmsnorm)            { return nn_rmsnorm(X(256, 768), X(768), NULL); }
PROFILE(add_layernorm)      { nn_tensor *s, *y = nn_add_layernorm(X(256, 768), X(256, 768), 1, X(768), X(768), &s, NULL); return nn_mul(y, s); }
PROFILE(add_rmsnorm)        { return nn_add_rmsnorm(X(256, 768), X(256, 768), X(768), NULL, NULL); }
PROFILE(groupnorm)          { return nn_groupnorm(X(8, 32, 16, 16), 8, X(32), X(32), NULL); }
PROFILE(mse)                { return nn_mse(X(256, 256), X(256, 256), NULL); }
PROFILE(bce)                { return nn_binary_cross_entropy(X(256, 256), nn_detach(nn_sigmoid(FIXED(256, 256))), NULL); }
PROFILE(cross_entropy)      { return nn_cross_entropy(X(128, 1024), IDS(1024, 128), NULL); }
PROFILE(cross_entropy_long) { return nn_cross_entropy(X(8, 16384), IDS(1000, 8), NULL); }
PROFILE(nll)                { return nn_nll(X(128, 1024), IDS(1024, 128), NULL); }
PROFILE(nll_many)           { return nn_nll(X(20000, 4), IDS(4, 20000), NULL); }
PROFILE(hinge)              { return nn_hinge(X(128, 512), IDS(512, 128), NULL); }
PROFILE(kl_div)             { return nn_kl_div(X(128, 512), X(128, 512), NULL); }
ON_TENSOR_CORES(attention)  { return nn_scaled_dot_product_attention(X(1, 2, 128, 64), X(1, 2, 128, 64), X(1, 2, 128, 64), WITH(nn_attention_desc, .causal = 1)); }
ON_TENSOR_CORES(attention_128) { return nn_scaled_dot_product_attention(X(1, 1, 64, 128), X(1, 1, 64, 128), X(1, 1, 64, 128), WITH(nn_attention_desc, .causal = 1)); }
PROFILE(attention_mask)     { return nn_scaled_dot_product_attention(X(1, 2, 64, 64), X(1, 2, 64, 64), X(1, 2, 64, 64), WITH(nn_attention_desc, .mask = X(64, 64))); }
PROFILE(decode)             { return nn_scaled_dot_product_attention(X(1, 8, 1, 64), X(1, 8, 512, 64), X(1, 8, 512, 64), NULL); }
PROFILE(rope)               { return nn_rope(X(2, 8, 64, 64), nn_rope_new(nn, 64, 64, 0), NULL); }
PROFILE(lstm)               { return nn_forward(nn_lstm_new(nn_model_new(nn, NULL), NULL, 64, 64, NULL), X(16, 4, 64)); }
PROFILE(lstm_projected)     { return nn_forward(nn_lstm_new(nn_model_new(nn, NULL), NULL, 64, 64, WITH(nn_lstm_desc, .proj = 32)), X(16, 3, 64)); }
PROFILE(gru)                { return nn_forward(nn_gru_new(nn_model_new(nn, NULL), NULL, 64, 64, NULL), X(16, 4, 64)); }
static nn_tensor *many(int64_t v) { int64_t n[8]; for (int i = 0; i < 8; i++) n[i] = v; return nn_tensor_new_as(nn, NN_I64, NN_SHAPE(8), n); }
PROFILE(ctc)                { return nn_ctc_loss(nn_log_softmax(X(32, 8, 64), 2), IDS(60, 8, 10), many(32), many(10), WITH(nn_ctc_desc, .blank = 63)); }
static nn_tensor *steps(int which)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_optimizer *o;
    nn_linear_new(net, NULL, 256, 256, NULL);
    switch (which) {
    case 0: o = nn_adamw_new(net, WITH(nn_adamw_desc, .clip_norm = 1)); break;
    case 1: o = nn_sgd_new(net, WITH(nn_sgd_desc, .momentum = 0.9f)); break;
    case 2: o = nn_rmsprop_new(net, NULL); break;
    case 3: o = nn_adagrad_new(net, NULL); break;
    case 4: o = nn_nadam_new(net, NULL); break;
    default: o = nn_lion_new(net, NULL); break;
    }
    nn_backward(nn_mean(nn_forward(net, FIXED(64, 256)), NN_ALL, NULL));
    nn_step(o);
    if (!which) {
        nn_ema *ema = nn_ema_new(net, 0.9f);
        nn_ema_update(ema);
        nn_ema_swap(ema);
    }
    return NULL;
}
PROFILE(adamw) { return steps(0); } PROFILE(sgd) { return steps(1); } PROFILE(rmsprop) { return steps(2); } PROFILE(adagrad) { return steps(3); }
PROFILE(scaled_nadam) { return steps(4); } PROFILE(nadam) { return steps(4); } PROFILE(lion) { return steps(5); }

int main(void)
{
    static nn_backend counted;
    const char *only = getenv("NN_CASE");
    int failed = 0;
    for (profile_case *k = cases; k; k = k->next) {
        nn_tensor *y;
        if (only && !strstr(k->name, only)) continue;
        inner = nn_cuda_with(0, &(nn_cuda_desc){ .precision = (nn_cuda_precision)k->precision, .own_products = 1 });
        counted = *inner;
        counted.run = counted_run;
        nn = nn_new(&(nn_desc){ .backend = &counted, .threads = 1, .loss_scale = strncmp(k->name, "scaled", 6) ? 0 : 65536 });
        nn_begin(nn, NN_TRAIN);
        y = k->run();
        if (nn_ok(nn) && y && y->node && y->dtype == NN_F32) nn_backward_with(y, &(nn_backward_desc){ .grad = of_shape(nn_shape_of(y), 0) });
        if (!nn_ok(nn)) { printf("%s: %s\n", k->name, nn_error(nn)); failed = 1; }
        nn_free(nn);
    }
    printf("what launches touch: sectors, each once a launch, per byte that the call must read or write; asked: bytes, however often (caches serve the rest)\n");
    printf("%-22s %-8s %6s %9s %12s %9s %9s\n", "op", "pass", "calls", "launches", "least KB", "touched", "asked");
    for (int op = 0; op < NN_OP_COUNT; op++) for (int back = 0; back < 2; back++)
        if (ops[op][back].calls > 0 && ops[op][back].launches > 0 && ops[op][back].least > 0)
            printf("%-22s %-8s %6.0f %9.0f %12.1f %9.2f %9.2f\n", ops[op][back].name, back ? "backward" : "forward", ops[op][back].calls, ops[op][back].launches,
                   ops[op][back].least / 1024, ops[op][back].touched / ops[op][back].least, ops[op][back].asked / ops[op][back].least);
    return failed;
}
