/* cuda.c - what a training step asks of a GPU, counted without one: launches, bytes, multiply-adds, and the time that the roofline allows.

   The program is linked with nn_cuda.h on the host shim (tests/cuda/cushim.h) and run with CUSHIM_DRY=1: every call is dispatched at full size and
   its launches are counted, but no kernel runs and no memory is touched. A PREDICTION, never a measurement: bytes are what each call must read and
   write once, kernels are taken to reach the ceilings below, nothing overlaps. See make cuda-report. */
#include "../nn.h"
#include "../nn_cuda.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

long nn_device_count(int kind);
void nn_device_fail(int kind, long n);

/* What one GPU sustains: copies (bytes/s), tensor cores in BF16 and FFMA in FP32 (flop/s), and seconds a launch costs in a replayed graph. */
static const struct { const char *name; double copy, bf16, fp32, launch; } gpus[] = {
    { "A100 80GB", 1.7e12, 200e12, 15e12, 1.5e-6 },      /* 83 %, 64 %, 77 % of its data sheet */
    { "H100 SXM",  3.0e12, 600e12, 50e12, 1.5e-6 },      /* a copy of 3.0 TB/s and a product of 798 TFLOP/s were measured on one */
};
typedef struct count { double launches, bytes, flops, seconds[2]; } count;
static count ops[NN_OP_COUNT][2];
static const char *names[NN_OP_COUNT];
static const nn_backend *inner;
static int tensor_cores, picked;     /* picked: a table of embeddings is not read whole */

static double numbers(const nn_view *v) { return v->data ? (double)nn_view_count(v) : 0; }
static double bytes_of(const nn_view *v) { return numbers(v) * (double)nn_dtype_bytes((nn_dtype)v->dtype); }
static double flops_of(const nn_call *c)                 /* of products; all else is a matter of bytes */
{
    const nn_view *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    const nn_view *out = c->pass == NN_BACKWARD ? &c->dout[0] : y;
    double one = 0, times = c->pass == NN_FORWARD ? 1 : (c->din[0].data != NULL) + (c->nin > 1 && c->din[1].data != NULL);
    double n = (double)nn_view_count(out);
    switch (c->op->id) {
    case NN_OP_matmul: one = 2 * n * (double)x->shape[x->ndim - 1]; break;
    case NN_OP_linear: case NN_OP_linear_small: one = 2 * n * (double)x->shape[x->ndim - 1]; break;
    case NN_OP_conv2d: one = 2 * n * (double)(w->shape[1] * w->shape[2] * w->shape[3]); break;
    case NN_OP_conv_transpose2d: one = 2 * (double)nn_view_count(x) * (double)(w->shape[1] * w->shape[2] * w->shape[3]); break;
    case NN_OP_attention: case NN_OP_attention_dropout:  /* causal: half of T x T; backward recomputes the scores: 2.5 times */
        one = 2 * n * (double)x->shape[1];
        times = c->pass == NN_FORWARD ? 1 : 2.5;
        break;
    default: return 0;
    }
    return one * times;
}
static int counted_run(void *self, const nn_call *c)
{
    count *k = &ops[c->op->id][c->pass == NN_BACKWARD];
    double bytes = 0, flops = flops_of(c);
    long before = nn_device_count(1), copies = nn_device_count(2);
    int i, done = inner->run(self, c);
    for (i = 0; i < c->nin; i++)  bytes += c->op->id == NN_OP_embedding && picked && !i ? 0 : bytes_of(&c->in[i]);
    for (i = 0; i < c->naux; i++) bytes += bytes_of(&c->aux[i]);
    for (i = 0; i < c->nout; i++) bytes += bytes_of(&c->out[i]) + (c->pass == NN_BACKWARD ? bytes_of(&c->dout[i]) : 0);
    if (c->pass == NN_BACKWARD) for (i = 0; i < c->nin; i++) bytes += bytes_of(&c->din[i]) * (c->add >> i & 1 ? 2 : 1);
    if ((c->op->flags & NN_OP_VIEW) && nn_device_count(1) == before && nn_device_count(2) == copies) bytes = 0;      /* a view's gradient is there already */
    names[c->op->id] = c->op->name;
    k->launches += (double)(nn_device_count(1) - before);
    k->bytes += bytes;
    k->flops += flops;
    for (i = 0; i < 2; i++) k->seconds[i] += fmax(bytes / gpus[i].copy, flops / (tensor_cores ? gpus[i].bf16 : gpus[i].fp32));
    return done;
}

enum { LAYERS = 12, WIDTH = 768, HEADS = 12, CONTEXT = 1024, TOKENS = 50257 };
typedef struct net { nn_layer *root, *tokens, *positions, *block[LAYERS], *norm, *head; nn_kv_cache *cache[LAYERS]; int layers; } net;
static nn_tensor *gpt2(void *self, nn_tensor *x)
{
    net *g = self;
    int64_t at = g->cache[0] ? nn_kv_cache_length(g->cache[0]) : 0;
    x = nn_add(nn_forward(g->tokens, x), nn_slice(nn_param(g->positions, "weight"), 0, at, at + nn_dim(x, 1), 1));
    for (int i = 0; i < g->layers; i++) x = nn_transformer_encoder_layer_forward(g->block[i], x, &(nn_attention_desc){ .cache = g->cache[i] });
    return nn_reshape(nn_forward(g->head, nn_forward(g->norm, x)), NN_SHAPE(-1, TOKENS));
}
static void build_gpt2(net *g, nn_context *nn, int layers, nn_dtype weights)
{
    g->layers = layers;
    g->root = nn_model_new(nn, &(nn_model_desc){ .forward = gpt2, .self = g });
    g->positions = nn_embedding_new(g->root, "wpe", CONTEXT, WIDTH);
    nn_weights_as(nn, weights, NULL);
    g->tokens = nn_embedding_new(g->root, "wte", TOKENS, WIDTH);
    for (int i = 0; i < layers; i++) {
        char name[16];
        snprintf(name, sizeof name, "h%d", i);
        g->block[i] = nn_transformer_encoder_layer_new(g->root, name, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 4 * WIDTH, .activation = nn_gelu, .norm_first = 1, .causal = 1 });
    }
    g->norm = nn_layernorm_new(g->root, "ln_f", NN_SHAPE(WIDTH), NULL);
    g->head = nn_tied_linear_new(g->root, g->tokens);
}
static void build_lenet(net *g, nn_context *nn)
{
    nn_layer *net = g->root = nn_model_new(nn, NULL);
    nn_conv2d_new(net, "conv1", 1, 16, 5, &(nn_conv2d_desc){ .padding = 2 });
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_conv2d_new(net, "conv2", 16, 32, 5, &(nn_conv2d_desc){ .padding = 2 });
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", 32 * 7 * 7, 128, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "fc2", 128, 10, NULL);
}

/* Counts the third step of a model. */
static count step_of(int lenet, int layers, int batch, int print)
{
    static nn_backend counted;
    count all = { 0, 0, 0, { 0, 0 } };
    net g = { .layers = 0 };
    inner = nn_cuda_with(0, &(nn_cuda_desc){ .precision = tensor_cores ? NN_CUDA_BF16 : NN_CUDA_FP32 });
    counted = *inner;
    counted.run = counted_run;
    nn_context *nn = nn_new(&(nn_desc){ .backend = &counted, .threads = 1 });
    if (lenet) build_lenet(&g, nn); else build_gpt2(&g, nn, layers, NN_F32);
    nn_optimizer *opt = nn_adamw_new(g.root, &(nn_adamw_desc){ .clip_norm = 1 });
    int64_t n = lenet ? batch : (int64_t)batch * CONTEXT, *ids = calloc((size_t)n, sizeof *ids);
    nn_tensor *x = lenet ? nn_tensor_new(nn, NN_SHAPE(batch, 1, 28, 28), NULL) : nn_tensor_new_as(nn, NN_I64, NN_SHAPE(batch, CONTEXT), ids), *y = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(n), ids);
    double launches = 0;
    for (int i = 0; i < 3 && nn_ok(nn); i++) {
        memset(ops, 0, sizeof ops);
        nn_device_fail(-1, 0);
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_cross_entropy(nn_forward(g.root, x), y, NULL));
        nn_step(opt);
        counted.sync(counted.self);
        launches = (double)nn_device_count(1);           /* updates wait for each other and are launched last */
    }
    if (!nn_ok(nn)) { printf("%s\n", nn_error(nn)); exit(1); }
    for (int op = 0; op < NN_OP_COUNT; op++) for (int back = 0; back < 2; back++) {
        const count *k = &ops[op][back];
        if (k->bytes == 0 && k->launches == 0) continue;
        if (print) printf("  %-18s %-8s %6.0f launches %10.1f MB %10.1f GFLOP %9.1f us %9.1f us\n", names[op], back ? "backward" : "forward", k->launches, k->bytes * 1e-6, k->flops * 1e-9, k->seconds[0] * 1e6, k->seconds[1] * 1e6);
        all.bytes += k->bytes; all.flops += k->flops;
        for (int i = 0; i < 2; i++) all.seconds[i] += k->seconds[i];
    }
    all.launches = launches;
    for (int i = 0; i < 2; i++) all.seconds[i] += launches * gpus[i].launch;
    nn_free(nn);
    free(ids);
    return all;
}

/* Counts a token that is decoded behind CONTEXT / 2 others, its weights held as `type`. */
static void decode_of(nn_dtype type)
{
    static nn_backend counted;
    static int64_t ids[CONTEXT];
    double bytes = 0, seconds[2] = { 0, 0 }, launches;
    net g = { .layers = 0 };
    counted = *(inner = nn_cuda_with(0, &(nn_cuda_desc){ .precision = NN_CUDA_FP32 }));
    counted.run = counted_run;
    nn_context *nn = nn_new(&(nn_desc){ .backend = &counted, .threads = 1 });
    build_gpt2(&g, nn, LAYERS, type);
    for (int i = 0; i < LAYERS; i++) g.cache[i] = nn_kv_cache_new(nn, 1, HEADS, CONTEXT, WIDTH / HEADS, 0);
    picked = 1;
    for (int i = 0; i < 2; i++) {
        memset(ops, 0, sizeof ops);
        nn_device_fail(-1, 0);
        nn_begin(nn, NN_EVAL);
        nn_forward(g.root, nn_tensor_new_as(nn, NN_I64, NN_SHAPE(1, i ? 1 : CONTEXT / 2), ids));
    }
    picked = 0;
    launches = (double)nn_device_count(1);
    if (!nn_ok(nn)) { printf("%s\n", nn_error(nn)); exit(1); }
    for (int op = 0; op < NN_OP_COUNT; op++) {
        bytes += ops[op][0].bytes;
        for (int i = 0; i < 2; i++) seconds[i] += ops[op][0].seconds[i];
    }
    for (int i = 0; i < 2; i++) seconds[i] += launches * gpus[i].launch;
    printf("  %-5s %4.0f launches %8.1f MB %8.0f tokens/s on A100 %8.0f on H100\n", nn_dtype_name(type), launches, bytes * 1e-6, 1 / seconds[0], 1 / seconds[1]);
    nn_free(nn);
}

int main(void)
{
    count a, b;
    printf("PREDICTED, never measured: the launches of nn_cuda.h at full size, and the time at the roofline (copies %.1f and %.1f TB/s, tensor cores %.0f and %.0f,\n"
           "FP32 %.0f and %.0f TFLOP/s, %.1f us a launch in a graph) of an %s and an %s. Numbers are stored as 32-bit floats.\n"
           "Large products are cuBLASLt's, as mma.sync alone does not reach an H100's ceiling.\n", gpus[0].copy * 1e-12, gpus[1].copy * 1e-12, gpus[0].bf16 * 1e-12,
           gpus[1].bf16 * 1e-12, gpus[0].fp32 * 1e-12, gpus[1].fp32 * 1e-12, gpus[0].launch * 1e6, gpus[0].name, gpus[1].name);
    a = step_of(1, 0, 32, 1);
    printf("LeNet, batch 32, FP32, AdamW with clipping: %.0f launches, %.1f us on A100, %.1f us on H100\n", a.launches, a.seconds[0] * 1e6, a.seconds[1] * 1e6);
    tensor_cores = 1;
    a = step_of(0, 1, 8, 0);
    b = step_of(0, 2, 8, 0);
    printf("a GPT-2 block (768 wide, 12 heads, 8 x 1024 tokens, BF16 products), forward, backward and update: %.0f launches, %.0f MB, %.0f us on A100, %.0f us on H100\n", b.launches - a.launches,
           (b.bytes - a.bytes) * 1e-6, (b.seconds[0] - a.seconds[0]) * 1e6, (b.seconds[1] - a.seconds[1]) * 1e6);
    a = step_of(0, LAYERS, 8, 1);
    printf("GPT-2 124M, 8 x 1024 tokens, BF16 products, AdamW: %.0f launches, %.1f GB, %.1f TFLOP, %.1f ms on A100, %.1f ms on H100\n", a.launches, a.bytes * 1e-9, a.flops * 1e-12, a.seconds[0] * 1e3, a.seconds[1] * 1e3);
    printf("tokens/s a GPU:  nn.h, PREDICTED at the roofline       %7.0f on A100   %7.0f on H100\n", 8.0 * CONTEXT / a.seconds[0], 8.0 * CONTEXT / a.seconds[1]);
    printf("                 llm.c, reported by its authors         218000 on A100    460000 on H100\n");
    printf("                 PyTorch, reported (compile, bf16, flash) 142000 on A100\n");
    tensor_cores = 0;
    printf("GPT-2 124M, one token behind %d others, a cache of 32-bit floats, the head tied to the embedding; by how weights are held (i4: groups of 32), PREDICTED at the roofline:\n", CONTEXT / 2);
    for (int i = 0; i < 4; i++) decode_of(((const nn_dtype[]){ NN_F32, NN_BF16, NN_I8, NN_I4 })[i]);
    return 0;
}
