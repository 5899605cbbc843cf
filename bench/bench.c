/* bench.c - How fast is nn.h on this machine? Products, training steps and predictions of known nets, as a program would write them.

   Build:  cc -O2 -I. bench/bench.c -o bench -lm -lpthread                  (make bench builds and runs it, 2 to 3 minutes)
   Run:    ./bench [-t 1,2] [-s scale] [-p 1] [name ...]
           rows whose name starts with a name; scale: multiplies the time of every row; -p 1: nn_profile's table after every row (a plan's calls), -p 2: every call
           ./bench -t 1 -                            a worker for peers.py: reads lines "workload seconds", answers rows, then "."
   Prints: peer, workload, threads, metric, value; tab-separated, as every program in bench/ does. Values are medians.
           limit   the multiply-adds that the cores do from registers, measured before and after the rows
           gemm_*  GFLOP/s of one product: NN is nn_matmul(a, b), NT nn_linear(x, w), TN nn_matmul of a transposed view. Operands live
                   long, the result is a new tensor each time; nn_begin, shape checks and packing are part of it, nothing is pre-packed
           *_train samples/s (n5b, n6: tokens/s) of a step: forward, loss, backward, SGD with momentum (recurrent nets: Adam, GPT: AdamW; the batch
                   is there already), by nn_step_plan_run as in nn_fit; fused: so many weights are updated inside the product of their gradient
           *_eager the same by nn_forward and nn_backward_with
           *_epoch seconds of 938 steps with a shuffling loader, the loss read every step
           *_infer us of one forward pass (nn_run of a plan, with 2 threads .parallel); *_prefill the same of a whole context of a GPT,
                   *_decode us of one more token, behind half a context in the cache (nn_step_plan)
           eager_* ns of one nn_add of 4 numbers; with _tape it is recorded
           planned_add4    ns of one of 1000 such adds in a step that is repeated                                                      */
#define NN_IMPLEMENTATION
#include "../nn.h"
#include "limit.h"

/* ---- nets: the same as in bench_torch.py, bench_jax.py, bench_tf.py ---- */
typedef struct Block { nn_layer *conv1, *bn1, *conv2, *bn2, *down, *down_bn; } Block;
typedef struct Gpt { nn_layer *ln1, *qkv, *proj, *ln2, *fc, *fp; int heads; nn_kv_cache *cache; } Gpt;
typedef struct Bench {
    nn_context *nn;
    nn_layer *net;
    nn_optimizer *opt;
    nn_tensor *x, *y, *a, *b;
    nn_loader *loader;
    float *data;
    int64_t *labels;
    Block blocks[8];
    Gpt gpt[6];
    nn_layer *tokens, *positions, *norm, *layer[6];
    int layers;
    int64_t context, at;             /* position of the first token */
    double forward, first;           /* multiply-adds times 2 of one sample: all layers; the first, which has no input gradient */
    nn_step_plan *steps;                                 /* training */
    nn_plan *plan;                                       /* inference */
    void *workspace;
    void *input;
    float *output;
} Bench;

static void count(Bench *b, double flops)
{
    if (b->forward == 0) b->first = flops;
    b->forward += flops;
}
static void linear(Bench *b, int64_t in, int64_t out, nn_fn activation)
{
    nn_linear_new(b->net, NULL, in, out, &(nn_linear_desc){ .activation = activation });
    count(b, 2.0 * (double)(in * out));
}
/* side: of the output */
static nn_layer *conv(Bench *b, nn_layer *parent, int64_t in, int64_t out, int kernel, nn_conv2d_desc desc, int64_t side)
{
    int64_t groups = desc.groups ? desc.groups : 1;
    count(b, 2.0 * (double)(in / groups * out * kernel * kernel * side * side));
    return nn_conv2d_new(parent, NULL, in, out, kernel, &desc);
}

static void mlp1(Bench *b) { linear(b, 784, 128, nn_relu); linear(b, 128, 10, NULL); }
static void mlp2(Bench *b) { linear(b, 784, 128, nn_relu); linear(b, 128, 64, nn_relu); linear(b, 64, 10, NULL); }
static void xor_net(Bench *b) { linear(b, 2, 8, nn_tanh); linear(b, 8, 1, nn_sigmoid); }
static void cnn3(Bench *b)
{
    conv(b, b->net, 3, 32, 3, (nn_conv2d_desc){ .padding = 1, .activation = nn_relu }, 32);
    nn_maxpool2d_new(b->net, 2, NULL);
    conv(b, b->net, 32, 64, 3, (nn_conv2d_desc){ .padding = 1, .activation = nn_relu }, 16);
    nn_maxpool2d_new(b->net, 2, NULL);
    nn_flatten_new(b->net);
    linear(b, 64 * 8 * 8, 128, nn_relu);
    linear(b, 128, 10, NULL);
}
static void lenet(Bench *b)
{
    conv(b, b->net, 3, 6, 5, (nn_conv2d_desc){ .activation = nn_relu }, 28);
    nn_maxpool2d_new(b->net, 2, NULL);
    conv(b, b->net, 6, 16, 5, (nn_conv2d_desc){ .activation = nn_relu }, 10);
    nn_maxpool2d_new(b->net, 2, NULL);
    nn_flatten_new(b->net);
    linear(b, 400, 120, nn_relu);
    linear(b, 120, 84, nn_relu);
    linear(b, 84, 10, NULL);
}

static nn_tensor *block_forward(void *self, nn_tensor *x)                        /* (B, C, H, W) */
{
    Block *b = self;
    nn_tensor *y = nn_forward(b->bn1, nn_forward(b->conv1, x));
    y = nn_forward(b->bn2, nn_forward(b->conv2, y));
    if (b->down) x = nn_forward(b->down_bn, nn_forward(b->down, x));
    return nn_relu(nn_add(y, x));
}
static void block(Bench *b, Block *k, int64_t in, int64_t out, int stride, int64_t side)
{
    nn_layer *l = nn_layer_new(b->net, NULL, &(nn_layer_desc){ .forward = block_forward, .self = k, .release = 1 });
    k->conv1 = conv(b, l, in, out, 3, (nn_conv2d_desc){ .stride = stride, .padding = 1, .no_bias = 1 }, side);
    k->bn1   = nn_batchnorm_new(l, NULL, out, &(nn_batchnorm_desc){ .activation = nn_relu });
    k->conv2 = conv(b, l, out, out, 3, (nn_conv2d_desc){ .padding = 1, .no_bias = 1 }, side);
    k->bn2   = nn_batchnorm_new(l, NULL, out, NULL);
    if (in == out && stride == 1) return;
    k->down    = conv(b, l, in, out, 1, (nn_conv2d_desc){ .stride = stride, .no_bias = 1 }, side);
    k->down_bn = nn_batchnorm_new(l, NULL, out, NULL);
}
static void resnet18(Bench *b, int64_t side, int64_t classes)                    /* side: after the stem */
{
    int64_t in = 64;
    if (classes == 10) conv(b, b->net, 3, 64, 3, (nn_conv2d_desc){ .padding = 1, .no_bias = 1 }, side);
    else               conv(b, b->net, 3, 64, 7, (nn_conv2d_desc){ .stride = 2, .padding = 3, .no_bias = 1 }, 2 * side);
    nn_batchnorm_new(b->net, NULL, 64, &(nn_batchnorm_desc){ .activation = nn_relu });
    if (classes != 10) nn_maxpool2d_new(b->net, 3, &(nn_maxpool2d_desc){ .stride = 2, .padding = 1 });
    for (int stage = 0; stage < 4; stage++) {
        int64_t out = (int64_t)64 << stage;
        block(b, &b->blocks[2 * stage], in, out, stage ? 2 : 1, side >> stage);
        block(b, &b->blocks[2 * stage + 1], out, out, 1, side >> stage);
        in = out;
    }
    nn_fn_new(b->net, nn_global_avgpool);
    linear(b, 512, classes, NULL);
}
static void resnet18_cifar(Bench *b) { resnet18(b, 32, 10); }
static void resnet18_224(Bench *b)   { resnet18(b, 56, 1000); }
static void separable(Bench *b)                                                  /* MobileNet's block, 64 -> 128 channels */
{
    conv(b, b->net, 64, 64, 3, (nn_conv2d_desc){ .padding = 1, .groups = 64, .no_bias = 1 }, 32);
    nn_batchnorm_new(b->net, NULL, 64, &(nn_batchnorm_desc){ .activation = nn_relu });
    conv(b, b->net, 64, 128, 1, (nn_conv2d_desc){ .no_bias = 1 }, 32);
    nn_batchnorm_new(b->net, NULL, 128, &(nn_batchnorm_desc){ .activation = nn_relu });
}

/* nanoGPT's decoder: norms first, GELU, learned positions, the embedding is also the last layer */
static nn_tensor *gpt_block(void *self, nn_tensor *x)                            /* (B, T, C) */
{
    Gpt *g = self;
    nn_tensor *y = nn_attention(nn_forward(g->qkv, nn_forward(g->ln1, x)), NULL, NULL, &(nn_attention_desc){ .heads = g->heads, .causal = 1, .cache = g->cache });
    y = nn_add_norm_forward(g->ln2, x, nn_forward(g->proj, y), &x);
    return nn_add(x, nn_forward(g->fp, nn_forward(g->fc, y)));
}
static nn_tensor *gpt_forward(void *self, nn_tensor *tokens)
{
    Bench *b = self;
    nn_tensor *x = nn_add(nn_forward(b->tokens, tokens), nn_slice(nn_param(b->positions, "weight"), 0, b->at, b->at + nn_dim(tokens, 1), 1));
    for (int i = 0; i < b->layers; i++) x = nn_forward(b->layer[i], x);
    return nn_linear(nn_forward(b->norm, x), nn_param(b->tokens, "weight"), NULL, NULL);
}
static void gpt(Bench *b, int layers, int heads, int64_t width, int64_t context)
{
    nn_layer *net = nn_layer_new(b->net, NULL, &(nn_layer_desc){ .forward = gpt_forward, .self = b, .release = 1 });
    b->layers = layers;
    b->context = context;
    b->tokens = nn_embedding_new(net, "wte", 65, width);
    b->positions = nn_embedding_new(net, "wpe", context, width);
    for (int i = 0; i < layers; i++) {
        Gpt *g = &b->gpt[i];
        nn_layer *l = b->layer[i] = nn_layer_new(net, NULL, &(nn_layer_desc){ .forward = gpt_block, .self = g, .release = 1 });
        g->heads = heads;
        g->ln1  = nn_layernorm_new(l, "ln_1", NN_SHAPE(width), NULL);
        g->qkv  = nn_linear_new(l, "c_attn", width, 3 * width, NULL);
        g->proj = nn_linear_new(l, "c_proj", width, width, NULL);
        g->ln2  = nn_layernorm_new(l, "ln_2", NN_SHAPE(width), NULL);
        g->fc   = nn_linear_new(l, "c_fc", width, 4 * width, &(nn_linear_desc){ .activation = nn_gelu });
        g->fp   = nn_linear_new(l, "c_out", 4 * width, width, NULL);
    }
    b->norm = nn_layernorm_new(net, "ln_f", NN_SHAPE(width), NULL);
    b->first = 0;                    /* of a token: weights, and half of the scores */
    b->forward = (double)layers * (24.0 * (double)(width * width) + 2.0 * (double)(width * context)) + 130.0 * (double)width;
}
static void gpt_small(Bench *b) { gpt(b, 4, 4, 128, 64); }
static void gpt_large(Bench *b) { gpt(b, 6, 6, 384, 256); }
static void lstm(Bench *b)                                                       /* 32 steps of 10 numbers, a class of two */
{
    nn_lstm_new(b->net, NULL, 10, 128, &(nn_lstm_desc){ .last = 1 });
    count(b, 2.0 * 32 * 512 * 10);
    count(b, 2.0 * 32 * 512 * 128);
    linear(b, 128, 2, NULL);
}
static void char_lstm(Bench *b)                                                  /* 64 characters, after each the next */
{
    nn_embedding_new(b->net, NULL, 65, 256);
    nn_lstm_new(b->net, NULL, 256, 256, &(nn_lstm_desc){ .layers = 2 });
    for (int i = 0; i < 4; i++) count(b, 2.0 * 64 * 1024 * 256);
    b->first = 0;
    nn_linear_new(b->net, NULL, 256, 65, NULL);
    count(b, 2.0 * 64 * 256 * 65);
}

/* ---- one step of each kind ---- */
static nn_tensor *ce(Bench *b, nn_tensor *scores)  { return nn_cross_entropy(scores, b->y, NULL); }
static nn_tensor *ce_tokens(Bench *b, nn_tensor *scores) { return nn_token_cross_entropy(scores, b->y, NULL); }
static nn_tensor *mse(Bench *b, nn_tensor *scores) { return nn_mse(scores, b->y, NULL); }
static nn_tensor *sum(Bench *b, nn_tensor *scores) { (void)b; return nn_sum(scores, NN_ALL, NULL); }

typedef struct Row Row;
struct Row {
    const char *name;
    void (*net)(Bench *b);
    nn_tensor *(*loss)(Bench *b, nn_tensor *scores);     /* NULL: inference */
    int64_t batch;
    nn_shape sample;
    void (*step)(Bench *b, const Row *r);
    const char *metric;
    double scale;                                        /* value = scale / seconds ("per second" metrics), or seconds * scale */
    double budget;                                       /* seconds */
    int64_t m, n, k;                                     /* products */
    int ta, tb;
};

static nn_tensor *step_loss(nn_tensor *scores, nn_tensor *y, const nn_loss_desc *desc)        /* of classes, of tokens; nn_mse, or a sum */
{
    if (y->ndim == 2 && y->dtype == NN_I64) return nn_token_cross_entropy(scores, y, desc);
    return y->dtype == NN_I64 ? nn_cross_entropy(scores, y, desc) : nn_count(y) > 1 ? nn_mse(scores, y, desc) : nn_sum(scores, NN_ALL, NULL);
}
static void train(Bench *b, const Row *r)
{
    (void)r;
    nn_step_plan_run(b->steps, b->x, b->y);
}
static void train_eagerly(Bench *b, const Row *r)
{
    nn_begin(b->nn, NN_TRAIN);
    nn_backward_with(r->loss(b, nn_forward(b->net, b->x)), &(nn_backward_desc){ .step = b->opt });
}
static void infer(Bench *b, const Row *r)
{
    (void)r;
    if (!nn_run(b->plan, b->workspace, b->input, b->output)) abort();
}
static void decode(Bench *b, const Row *r)
{
    (void)r;
    for (int i = 0; i < b->layers; i++) nn_kv_cache_truncate(b->gpt[i].cache, b->context / 2);
    nn_step_plan_run(b->steps, b->x, NULL);
}
static void epoch(Bench *b, const Row *r)
{
    nn_batch batch;
    (void)r;
    while (nn_loader_next(b->loader, &batch)) {
        nn_begin(b->nn, NN_TRAIN);
        nn_tensor *loss = nn_cross_entropy(nn_forward(b->net, batch.x), batch.y, NULL);
        nn_backward_with(loss, &(nn_backward_desc){ .step = b->opt });
        nn_item(loss);
    }
}
static void product(Bench *b, const Row *r)
{
    nn_begin(b->nn, NN_EVAL);
    if (r->tb)      nn_linear(b->a, b->b, NULL, NULL);
    else if (r->ta) nn_matmul(nn_transpose(b->a, 0, 1), b->b);
    else            nn_matmul(b->a, b->b);
}
enum { ADDS = 1000 };
static nn_tensor *add_step(void *user, nn_tensor *x, nn_tensor *y)
{
    nn_tensor *sum = x;
    (void)user;
    for (int i = 0; i < ADDS; i++) sum = nn_add(sum, y);
    return sum;
}
static void planned_adds(Bench *b, const Row *r) { (void)r; nn_step_plan_run(b->steps, b->a, b->b); }
static void adds(Bench *b, const Row *r)
{
    nn_begin(b->nn, r->k ? NN_TRAIN : NN_EVAL);
    for (int i = 0; i < ADDS; i++) nn_add(b->a, b->b);
}

/* ---- the rows ---- */
#define TRAIN(name, net, loss, batch, budget, ...) { name, net, loss, batch, NN_SHAPE(__VA_ARGS__), train, "samples_per_s", batch, budget, 0, 0, 0, 0, 0 },
#define EAGERLY(name, net, loss, batch, budget, ...) { name, net, loss, batch, NN_SHAPE(__VA_ARGS__), train_eagerly, "samples_per_s", batch, budget, 0, 0, 0, 0, 0 },
#define INFER(name, net, batch, budget, ...)       { name, net, NULL, batch, NN_SHAPE(__VA_ARGS__), infer, "us", 1e6, budget, 0, 0, 0, 0, 0 },
#define GPT(name, net, context, budget) \
    { name "_b12_train", net, ce_tokens, 12 * context, NN_SHAPE(context), train, "tokens_per_s", 12 * context, 3 * budget, 0, 0, 0, 0, 0 }, \
    { name "_b12_eager", net, ce_tokens, 12 * context, NN_SHAPE(context), train_eagerly, "tokens_per_s", 12 * context, 2 * budget, 0, 0, 0, 0, 0 }, \
    { name "_prefill", net, NULL, context, NN_SHAPE(context), infer, "us", 1e6, budget, 0, 0, 0, 0, 0 }, \
    { name "_decode", net, NULL, 1, NN_SHAPE(1), decode, "us", 1e6, budget, 0, 0, 0, 0, 0 },
#define GEMM(form, m, n, k)  { "gemm_" #form "_" #m "x" #n "x" #k, NULL, NULL, 0, { 0, { 0 } }, product, "GFLOPS", 2e-9 * m * n * k, 0.15, m, n, k, #form[0] == 'T', #form[1] == 'T' },
#define EAGER(name, tape)    { name, NULL, NULL, 0, { 0, { 0 } }, adds, "ns", 1e9 / ADDS, 0.5, 1, 4, tape, 0, 0 },
static int rows(Row *to)
{
    const Row list[] = {
        TRAIN("n1_mlp784-128-10_b64_train", mlp1, ce, 64, 1, 784)
        { "n1_mlp784-128-10_epoch938", mlp1, ce, 64, NN_SHAPE(784), epoch, "seconds", 1, 1, 0, 0, 0, 0, 0 },
        TRAIN("n2_mlp784-128-64-10_b64_train", mlp2, ce, 64, 1, 784)
        TRAIN("n2x_xor2-8-1_b4_train", xor_net, mse, 4, 1, 2)
        EAGERLY("n1_mlp784-128-10_b64_eager", mlp1, ce, 64, 1, 784)
        EAGERLY("n2_mlp784-128-64-10_b64_eager", mlp2, ce, 64, 1, 784)
        EAGERLY("n2x_xor2-8-1_b4_eager", xor_net, mse, 4, 1, 2)
        TRAIN("n3_cnn32-64_b64_train", cnn3, ce, 64, 2, 3, 32, 32)
        TRAIN("n4_lenet_b64_train", lenet, ce, 64, 1, 3, 32, 32)
        TRAIN("n5a_lstm128_s32_b32_train", lstm, ce, 32, 1, 32, 10)
        { "n5b_charlstm256x2_s64_b32_train", char_lstm, ce_tokens, 32, NN_SHAPE(64), train, "tokens_per_s", 32 * 64, 2, 0, 0, 0, 0, 0 },
        TRAIN("n7a_resnet18_cifar_b32_train", resnet18_cifar, ce, 32, 3, 3, 32, 32)
        TRAIN("n7c_dwsep64-128_32x32_b32_train", separable, sum, 32, 1, 64, 32, 32)
        GPT("n6a_gpt_L4_d128_c64", gpt_small, 64, 1)
        GPT("n6b_gpt_L6_d384_c256", gpt_large, 256, 1.2)
        INFER("n1_mlp784-128-10_b1_infer", mlp1, 1, 1, 784)
        INFER("n1_mlp784-128-10_b64_infer", mlp1, 64, 1, 784)
        INFER("n2_mlp784-128-64-10_b1_infer", mlp2, 1, 1, 784)
        INFER("n2_mlp784-128-64-10_b64_infer", mlp2, 64, 1, 784)
        INFER("n3_cnn32-64_b1_infer", cnn3, 1, 1, 3, 32, 32)
        INFER("n3_cnn32-64_b64_infer", cnn3, 64, 2, 3, 32, 32)
        INFER("n4_lenet_b1_infer", lenet, 1, 1, 3, 32, 32)
        INFER("n4_lenet_b64_infer", lenet, 64, 1, 3, 32, 32)
        INFER("n5a_lstm128_s32_b1_infer", lstm, 1, 1, 32, 10)
        INFER("n5a_lstm128_s32_b32_infer", lstm, 32, 1, 32, 10)
        INFER("n7a_resnet18_cifar_b1_infer", resnet18_cifar, 1, 2, 3, 32, 32)
        INFER("n7b_resnet18_224_b1_infer", resnet18_224, 1, 2, 3, 224, 224)
        INFER("n7c_dwsep64-128_32x32_b1_infer", separable, 1, 1, 64, 32, 32)
        EAGER("eager_add4", 0)
        EAGER("eager_add4_tape", 1)
        { "planned_add4", NULL, NULL, 0, { 0, { 0 } }, planned_adds, "ns", 1e9 / ADDS, 0.5, 1, 4, 0, 0, 0 },
        GEMM(NN, 64, 64, 64) GEMM(NN, 128, 128, 128) GEMM(NN, 256, 256, 256) GEMM(NN, 512, 512, 512) GEMM(NN, 1024, 1024, 1024)
        GEMM(NN, 2048, 2048, 2048) GEMM(NT, 256, 256, 256) GEMM(TN, 256, 256, 256) GEMM(NT, 1024, 1024, 1024) GEMM(TN, 1024, 1024, 1024)
        GEMM(NT, 64, 128, 784) GEMM(NN, 64, 784, 128) GEMM(TN, 128, 784, 64)      /* layers of MLPs: forward, dx, dw */
        GEMM(NT, 64, 10, 128) GEMM(NN, 64, 128, 10) GEMM(TN, 10, 128, 64)
        GEMM(NT, 256, 512, 784) GEMM(NN, 256, 784, 512) GEMM(TN, 512, 784, 256)
        GEMM(NT, 1, 128, 784) GEMM(NT, 1, 10, 128)
        GEMM(NN, 6, 784, 75) GEMM(NN, 16, 100, 150) GEMM(NN, 32, 1024, 27) GEMM(NN, 64, 256, 288) GEMM(NN, 64, 1024, 576) /* convolutions */
        GEMM(NN, 128, 256, 1152) GEMM(NN, 256, 64, 2304) GEMM(NN, 512, 16, 4608) GEMM(NN, 64, 12544, 147)
        GEMM(NN, 128, 784, 64) GEMM(NN, 512, 196, 512)
        GEMM(NN, 256, 768, 768) GEMM(NT, 256, 768, 768) GEMM(TN, 768, 768, 256)   /* transformers */
        GEMM(NN, 256, 3072, 768) GEMM(NT, 256, 3072, 768) GEMM(TN, 3072, 768, 256)
        GEMM(NN, 256, 768, 3072) GEMM(NT, 256, 768, 3072) GEMM(TN, 768, 3072, 256)
        GEMM(NT, 256, 256, 64) GEMM(NN, 256, 64, 256) GEMM(NT, 64, 64, 32)
        GEMM(NT, 32, 512, 128) GEMM(NT, 32, 1024, 256)                            /* LSTM cells */
        GEMM(NT, 1, 4096, 4096) GEMM(NN, 1, 4096, 4096) GEMM(NT, 1, 768, 768) GEMM(NT, 1, 3072, 768) GEMM(NT, 1, 1000, 512)
    };
    memcpy(to, list, sizeof list);
    return (int)(sizeof list / sizeof *list);
}

/* ---- set up, measure, report ---- */
static nn_tensor *random_tensor(nn_context *nn, nn_shape s)
{
    int64_t n = 1;
    for (int i = 0; i < s.ndim; i++) n *= s.d[i];
    float *data = nnb_numbers(n);
    nn_tensor *t = nn_tensor_new(nn, s, data);
    free(data);
    return t;
}

static void make_gpt(Bench *b, const Row *r)             /* tokens come in, not numbers */
{
    enum { MOST = 12 * 256 };
    int64_t tokens[MOST], n = r->step == decode ? b->context / 2 : r->batch;
    for (int i = 0; i < MOST; i++) tokens[i] = i * 7 % 65;
    b->x = nn_tensor_new_as(b->nn, NN_I64, NN_SHAPE(n / b->context + (n < b->context), r->step == decode ? n : b->context), tokens);
    b->y = nn_tensor_new_as(b->nn, NN_I64, nn_shape_of(b->x), tokens);
    if (r->loss) {
        b->opt = nn_adamw_new(b->net, &(nn_adamw_desc){ .lr = 0.001f, .weight_decay = 0.01f });
        b->steps = nn_step_plan_new(b->net, &(nn_step_plan_desc){ .loss = step_loss, .optimizer = b->opt });
        return;
    }
    if (r->step == decode) {
        for (int i = 0; i < b->layers; i++) b->gpt[i].cache = nn_kv_cache_new(b->nn, 1, b->gpt[i].heads, b->context, nn_dim(nn_param(b->tokens, "weight"), 1) / b->gpt[i].heads, 0);
        nn_begin(b->nn, NN_EVAL);
        nn_forward(b->net, b->x);
        b->at = b->context / 2;
        b->x = nn_tensor_new_as(b->nn, NN_I64, NN_SHAPE(1, 1), tokens);
        b->steps = nn_step_plan_new(b->net, &(nn_step_plan_desc){ .eval = 1 });
        for (int i = 0; i < 4; i++, b->at++) nn_step_plan_run(b->steps, b->x, NULL);     /* then it is known what goes with the position */
        if (nn_step_plan_why(b->steps)) { fprintf(stderr, "%s: %s\n", r->name, nn_step_plan_why(b->steps)); exit(1); }
        return;
    }
    b->plan = nn_plan_new(b->net, nn_shape_of(b->x), &(nn_plan_desc){ .dtype = NN_I64, .parallel = nn_threads(b->nn) > 1 });
    if (!b->plan) { fprintf(stderr, "%s: %s\n", r->name, nn_error(b->nn)); exit(1); }
    b->workspace = malloc(nn_plan_bytes(b->plan) + 1);
    b->input = malloc((size_t)r->batch * sizeof *tokens);
    memcpy(b->input, tokens, (size_t)r->batch * sizeof *tokens);
    b->output = nnb_numbers(r->batch * 65);
}

static void make_net(Bench *b, const Row *r)
{
    nn_shape s = { r->sample.ndim + 1, { r->batch } };
    int64_t labels[2048], images = 60000, classes = r->net == lstm ? 2 : 10;
    memcpy(s.d + 1, r->sample.d, (size_t)r->sample.ndim * sizeof *s.d);
    for (int i = 0; i < 2048; i++) labels[i] = i * 7 % classes;
    b->net = nn_model_new(b->nn, NULL);
    r->net(b);
    if (b->context) { make_gpt(b, r); return; }
    b->x = r->loss == ce_tokens ? nn_tensor_new_as(b->nn, NN_I64, s, labels) : random_tensor(b->nn, s);
    if (!r->loss) {
        b->plan = nn_plan_new(b->net, s, &(nn_plan_desc){ .parallel = nn_threads(b->nn) > 1 });
        if (!b->plan) { fprintf(stderr, "%s: %s\n", r->name, nn_error(b->nn)); exit(1); }
        b->workspace = malloc(nn_plan_bytes(b->plan) + 1);
        b->input = nnb_numbers(nn_count(b->x));
        nn_shape y = nn_plan_output(b->plan);
        int64_t n = 1;
        for (int i = 0; i < y.ndim; i++) n *= y.d[i];
        b->output = nnb_numbers(n);
        return;
    }
    b->y = r->loss == mse ? random_tensor(b->nn, NN_SHAPE(r->batch, 1)) : r->loss == sum ? nn_tensor_new(b->nn, NN_SHAPE(1), NULL) :
           nn_tensor_new_as(b->nn, NN_I64, r->loss == ce_tokens ? s : NN_SHAPE(r->batch), labels);
    if (r->net == lstm || r->net == char_lstm) b->opt = nn_adam_new(b->net, NULL);
    else b->opt = nn_sgd_new(b->net, &(nn_sgd_desc){ .lr = r->loss == sum ? 1e-9f : 0.01f, .momentum = 0.9f });
    b->steps = nn_step_plan_new(b->net, &(nn_step_plan_desc){ .loss = step_loss, .optimizer = b->opt });
    if (r->step != epoch) return;
    b->data = nnb_numbers(images * 784);
    b->labels = malloc((size_t)images * sizeof *b->labels);
    for (int64_t i = 0; i < images; i++) b->labels[i] = i * 7 % 10;
    nn_dataset *all = nn_dataset_new(b->nn, &(nn_dataset_desc){ .count = images, .x_shape = r->sample, .classes = 10, .x = b->data, .labels = b->labels });
    b->loader = nn_loader_new(all, &(nn_loader_desc){ .batch = 64, .shuffle = 1, .no_prefetch = nn_threads(b->nn) == 1 });
}

static void make(Bench *b, const Row *r, int threads)
{
    memset(b, 0, sizeof *b);
    b->nn = nn_new(&(nn_desc){ .threads = threads, .seed = 1 });
    if (r->net) { make_net(b, r); return; }
    b->a = random_tensor(b->nn, r->ta ? NN_SHAPE(r->k, r->m) : r->m == 1 && !r->ta && !r->tb && r->n == 4 ? NN_SHAPE(4) : NN_SHAPE(r->m, r->k));
    b->b = random_tensor(b->nn, r->tb ? NN_SHAPE(r->n, r->k) : r->m == 1 && !r->ta && !r->tb && r->n == 4 ? NN_SHAPE(4) : NN_SHAPE(r->k, r->n));
    if (r->step == adds && r->k) nn_want_grad(b->a);
    if (r->step == planned_adds) b->steps = nn_step_plan_new(nn_model_new(b->nn, NULL), &(nn_step_plan_desc){ .step = add_step });
}
static void unmake(Bench *b)
{
    nn_plan_free(b->plan);
    nn_step_plan_free(b->steps);
    free(b->workspace);
    free(b->input);
    free(b->output);
    nn_free(b->nn);
    free(b->data);
    free(b->labels);
    memset(b, 0, sizeof *b);
}

typedef struct Run { Bench *bench; const Row *row; } Run;
static void run_step(void *arg) { Run *run = arg; run->row->step(run->bench, run->row); }

static int fused(const Bench *b)                         /* from the inside: how many of the calls that are repeated are such updates */
{
    int n = 0;
    for (int i = 0; i < nn_step_plan_calls(b->steps); i++) n += b->steps->trace.call[i].c.op->id == NN_OP_linear_update;
    return n;
}
static void measure(Bench *b, const Row *r, int threads, double budget, int warm)
{
    Run run = { b, r };
    int per_second = r->step == train || r->step == train_eagerly || r->step == product;
    double s = nnb_median(run_step, &run, budget, warm), flops = (double)r->batch * (r->loss ? 3 * b->forward - b->first : b->forward);
    if (!nn_ok(b->nn)) { fprintf(stderr, "%s: %s\n", r->name, nn_error(b->nn)); return; }
    nnb_report("nn.h", r->name, threads, r->metric, per_second ? r->scale / s : r->scale * s);
    if (r->step == train) nnb_report("nn.h", r->name, threads, "fused", (double)fused(b));
    if (r->net && r->step != epoch) nnb_report("nn.h", r->name, threads, "GFLOPS", flops / s / 1e9);
}
static void limit(int threads) { nnb_report("limit", "fma", threads, "GFLOPS", nnb_fma_peak(threads)); }

enum { MAX_ROWS = 128 };
static Row row[MAX_ROWS];

static int row_count, worker_threads;

static void answer(const char *workload, double seconds) /* nets stay between requests */
{
    static Bench made[MAX_ROWS];
    if (!strcmp(workload, "fma")) limit(worker_threads);
    for (int i = 0; i < row_count; i++) {
        if (strcmp(row[i].name, workload)) continue;
        int fresh = !made[i].nn;
        if (fresh) make(&made[i], &row[i], worker_threads);
        measure(&made[i], &row[i], worker_threads, seconds, row[i].step == epoch ? 0 : 1 + fresh);
    }
}

static int wanted(const char *name, int argc, char **argv)
{
    if (argc == 0) return 1;
    for (int i = 0; i < argc; i++) if (!strncmp(name, argv[i], strlen(argv[i]))) return 1;
    return 0;
}

int main(int argc, char **argv)
{
    const char *threads = "1,2";
    double scale = 1;
    int at = 1, profile = 0;
    row_count = rows(row);
    for (; at + 1 < argc && argv[at][0] == '-' && argv[at][1]; at += 2) {
        if (!strcmp(argv[at], "-t")) threads = argv[at + 1];
        else if (!strcmp(argv[at], "-s")) scale = atof(argv[at + 1]);
        else if (!strcmp(argv[at], "-p")) profile = atoi(argv[at + 1]);
        else { fprintf(stderr, "usage: see the head of bench.c\n"); return 1; }
    }
    if (at < argc && !strcmp(argv[at], "-")) { worker_threads = atoi(threads); nnb_serve(answer); return 0; }
    for (int last = 0; last < 2; last++) {
        for (const char *t = threads; t; t = strchr(t, ',') ? strchr(t, ',') + 1 : NULL) limit(atoi(t));
        for (int i = 0; i < row_count && !last; i++) {
            if (!wanted(row[i].name, argc - at, argv + at)) continue;
            for (const char *t = threads; t; t = strchr(t, ',') ? strchr(t, ',') + 1 : NULL) {
                Bench b;
                make(&b, &row[i], atoi(t));
                if (profile) nn_profile(b.nn, 1);
                measure(&b, &row[i], atoi(t), scale * row[i].budget, row[i].step == epoch ? 0 : 2);
                if (profile && b.plan) nn_plan_print(b.plan);        /* its runs are no part of nn_profile */
                else if (profile > 1 && b.steps) nn_step_plan_print(b.steps);
                else if (profile) nn_profile_print(b.nn);
                unmake(&b);
            }
        }
    }
    return 0;
}
