// Time and bandwidth of the ops that only move numbers, at the sizes of common nets, through nn_call as every op is run.
//
//     cc -O2 -I. bench/ops.c -o ops -lm -lpthread && ./ops [threads] [words that the name contains ...]
//
// A line: forward and backward in microseconds and in GB/s of what they must read and write. Compare with the bandwidth of L2, L3
// or memory, whichever the operands fit into. The last lines are fork + join: an empty call of two tasks per thread.
#define NN_IMPLEMENTATION
#include "nn.h"

enum { ROUNDS = 5 };
static nn_context *nn;
static int words;
static char **word;

static double now(void) { return nn__seconds(); }

static int wanted(const char *name)
{
    int i;
    for (i = 0; i < words; i++) if (strstr(name, word[i])) return 1;
    return words == 0;
}

static double bytes_of(const nn_view *v) { return v->data ? (double)nn_view_count(v) * (double)nn_dtype_bytes((nn_dtype)v->dtype) : 0; }

static void make(nn_view *v, int scale)                  // numbers in -1 .. 1, classes in 0 .. scale - 1
{
    int64_t n = nn_view_count(v), i;
    v->data = malloc((size_t)n * nn_dtype_bytes((nn_dtype)v->dtype) + 64);
    if (!v->data) exit(1);
    for (i = 0; i < n; i++) {
        double u = nn__uniform_at(1, 2, 3, (uint64_t)i);
        if (v->dtype == NN_I64) ((int64_t *)v->data)[i] = (int64_t)(u * scale);
        else if (v->dtype == NN_I32) ((int32_t *)v->data)[i] = (int32_t)(u * scale);
        else ((float *)v->data)[i] = (float)(2 * u - 1);
    }
}

static nn_view view(int dtype, int ndim, int64_t a, int64_t b, int64_t c, int64_t d)
{
    nn_view v;
    int64_t shape[4];
    shape[0] = a; shape[1] = b; shape[2] = c; shape[3] = d;
    memset(&v, 0, sizeof v);
    nn__set_shape(&v, dtype, ndim, shape);
    return v;
}

static double time_of(nn_call *c)                        // median seconds of one call
{
    double t[ROUNDS];
    int64_t repeat = 1, i;
    int r, k;
    for (;;) {
        double start = now();
        for (i = 0; i < repeat; i++) { c->phases = 1; c->tasks[0] = 1; c->shared_bytes = c->task_bytes = 0; nn__run(nn, c); }
        if (now() - start > 2e-3) break;
        repeat *= 2;
    }
    for (r = 0; r < ROUNDS; r++) {
        double start = now(), s;
        for (i = 0; i < repeat; i++) { c->phases = 1; c->tasks[0] = 1; c->shared_bytes = c->task_bytes = 0; nn__run(nn, c); }
        s = (now() - start) / (double)repeat;
        for (k = r; k > 0 && t[k - 1] > s; k--) t[k] = t[k - 1];
        t[k] = s;
    }
    return t[ROUNDS / 2];
}

// in[i].dtype < 0: not there. scale: number of classes.
static void bench(const char *name, int op, const void *params, int nin, const nn_view *in, int scale, int back)
{
    nn_call c;
    double seconds, bytes = 0;
    int i;
    if (!wanted(name)) return;
    nn_begin(nn, NN_TRAIN);
    nn__begin_call(&c, nn, op, params);
    c.nin = nin;
    c.nout = c.op->outputs;
    for (i = 0; i < c.nout; i++) c.out[i] = nn__no_view;
    for (i = 0; i < nin; i++) {
        c.in[i] = in[i];
        if (in[i].dtype >= 0) make(&c.in[i], scale);
        else c.in[i] = nn__no_view;
    }
    if (!(c.op->flags & NN_OP_MUTATES) || op == NN_OP_batchnorm) {
        if (c.op->shape) { if (!c.op->shape(&c)) { printf("%s: %s\n", name, nn_error(nn)); exit(1); } }
        else nn__like(&c.out[0], &c.in[0]);
        for (i = 0; i < c.nout; i++) make(&c.out[i], 1);
        for (i = 0; i < c.naux; i++) make(&c.aux[i], 1);
    } else c.nout = 0;
    for (i = 0; i < nin; i++) bytes += bytes_of(&c.in[i]) * (c.nout == 0 && i != 1 ? 2 : 1);
    for (i = 0; i < c.nout; i++) bytes += bytes_of(&c.out[i]);
    for (i = 0; i < c.naux; i++) bytes += bytes_of(&c.aux[i]);
    seconds = time_of(&c);
    printf("%-34s %10.2f us %7.1f GB/s", name, seconds * 1e6, bytes / seconds * 1e-9);
    if (back) {
        c.pass = NN_BACKWARD;
        bytes = 0;
        for (i = 0; i < nin; i++) {
            c.din[i] = c.in[i];
            if (!c.in[i].data || c.in[i].dtype != NN_F32 || (op == NN_OP_batchnorm && i > 2)) c.din[i].data = NULL;
            else { make(&c.din[i], 1); bytes += bytes_of(&c.din[i]); }
            if (!nn__op_keeps(c.op, NN_KEEP_IN(i))) c.in[i].data = NULL;
            bytes += bytes_of(&c.in[i]);
        }
        for (i = 0; i < c.nout; i++) {
            c.dout[i] = c.out[i];
            make(&c.dout[i], 1);
            if (!nn__op_keeps(c.op, NN_KEEP_OUT(i))) c.out[i].data = NULL;
            bytes += bytes_of(&c.out[i]) + bytes_of(&c.dout[i]);
        }
        for (i = 0; i < c.naux; i++) bytes += bytes_of(&c.aux[i]);
        seconds = time_of(&c);
        printf(" | %10.2f us %7.1f GB/s", seconds * 1e6, bytes / seconds * 1e-9);
        if (op != NN_OP_batchnorm) {
            c.add = ~0u;
            seconds = time_of(&c);
            printf(" | add %8.2f us", seconds * 1e6);
        }
    }
    printf("\n");
    fflush(stdout);
    for (i = 0; i < nin; i++) { free(c.in[i].data); if (back) free(c.din[i].data); }      // what backward does not keep leaks: a benchmark
    for (i = 0; i < c.nout; i++) free(c.out[i].data);
}
static void bench1(const char *name, int op, const void *params, nn_view x) { bench(name, op, params, 1, &x, 1, 1); }

static void nothing(const nn_call *c, const nn_task *t) { (void)c; (void)t; }
static void two_each(nn_call *c) { c->tasks[0] = 2 * nn_threads(c->nn); c->cost = 1 << 20; }
static void bench_fork(void)
{
    static nn_op op;
    nn_call c;
    if (!wanted("fork")) return;
    op.name = "fork"; op.plan = two_each; op.forward = nothing;
    nn__begin_call(&c, nn, 0, NULL);
    c.op = &op;
    printf("%-34s %10.2f us\n", "fork + join", time_of(&c) * 1e6);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int64_t a, b, c, d; } size[] = {
        { "64x128", 64, 128, 1, 1 }, { "64x10", 64, 10, 1, 1 }, { "64x32x32x32", 64, 32, 32, 32 }, { "32x64x32x32", 32, 64, 32, 32 },
        { "32x512x4x4", 32, 512, 4, 4 }, { "768x384", 768, 384, 1, 1 }, { "3072x1536", 3072, 1536, 1, 1 } };
    nn_desc desc;
    nn_view v[6], none;
    char name[100];
    int i, k;
    memset(&desc, 0, sizeof desc);
    desc.threads = argc > 1 ? atoi(argv[1]) : 1;
    words = argc > 2 ? argc - 2 : 0;
    word = argv + 2;
    nn = nn_new(&desc);
    printf("%s, %d threads\n%-34s %25s | %25s\n", nn_isa(nn), nn_threads(nn), "", "forward", "backward");
    memset(&none, 0, sizeof none);
    none.dtype = -1;
    for (i = 0; i < (int)(sizeof size / sizeof *size); i++) {
        int dims = size[i].c > 1 ? 4 : 2, dim = 1;
        nn_view x = view(NN_F32, dims, size[i].a, size[i].b, size[i].c, size[i].d);
        nn_view channel = view(NN_F32, 1, size[i].b, 1, 1, 1);
        nn__scalars s = { 0, 0 };
        nn__norm_params norm = { 0, 0, 1, 1e-5f, 0.1f };
        nn__dropout_params drop = { 0.5f, 1 };
        nn__loss_params loss;
        nn__reduce_params rows;
        nn__update_params u;
        double fill = 1;
        memset(&loss, 0, sizeof loss);
        memset(&rows, 0, sizeof rows);
        memset(&u, 0, sizeof u);
        loss.ignore = -100;
        u.lr = 1e-3; u.decay1 = 0.9; u.rest1 = 0.1; u.decay2 = 0.999; u.rest2 = 0.001; u.eps = 1e-8; u.correct = 1; u.shrink = 1;
#define NAME(what) (sprintf(name, "%s %s", what, size[i].name), name)
        bench1(NAME("relu"), NN_OP_relu, &s, x);
        bench1(NAME("gelu_tanh"), NN_OP_gelu_tanh, &s, x);
        v[0] = v[1] = x;
        bench(NAME("add"), NN_OP_add, NULL, 2, v, 1, 1);
        v[1] = channel;
        if (dims == 4) v[1] = view(NN_F32, 3, size[i].b, 1, 1, 1);
        bench(NAME("add bias"), NN_OP_add, NULL, 2, v, 1, 1);
        bench1(NAME("softmax"), NN_OP_softmax, &dim, x);
        bench1(NAME("log_softmax"), NN_OP_log_softmax, &dim, x);
        v[1] = view(NN_I64, 1, size[i].a, 1, 1, 1); v[2] = none;
        if (dims == 2) bench(NAME("cross_entropy"), NN_OP_cross_entropy, &loss, 3, v, (int)size[i].b, 1);
        v[1] = v[2] = channel; v[3] = v[4] = channel; v[5] = none;
        bench(NAME("batchnorm"), NN_OP_batchnorm, &norm, 6, v, 1, 1);
        norm.dims = 1; norm.groups = 1;
        if (dims == 2) bench(NAME("layernorm"), NN_OP_layernorm, &norm, 3, v, 1, 1);
        if (dims == 2) bench(NAME("rmsnorm"), NN_OP_rmsnorm, &norm, 2, v, 1, 1);
        v[3] = x;
        if (dims == 2) bench(NAME("add_layernorm"), NN_OP_add_layernorm, &norm, 4, v, 1, 1);
        bench1(NAME("dropout"), NN_OP_dropout, &drop, x);
        rows.mask = 1; rows.scale = 1;
        if (dims == 4) rows.mask = 13;
        bench1(NAME("sum to channels"), NN_OP_sum, &rows, x);
        if (dims == 4) {
            nn__pool_params pool;
            memset(&pool, 0, sizeof pool);
            pool.name = "pool";
            for (k = 0; k < 2; k++) { pool.kernel[k] = pool.stride[k] = 2; pool.dilation[k] = 1; }
            bench1(NAME("maxpool 2"), NN_OP_maxpool2d, &pool, x);
            bench1(NAME("avgpool 2"), NN_OP_avgpool2d, &pool, x);
            for (k = 0; k < 2; k++) { pool.kernel[k] = 3; pool.pad[k] = 1; }
            bench1(NAME("maxpool 3/2"), NN_OP_maxpool2d, &pool, x);
            for (k = 0; k < 2; k++) { pool.kernel[k] = 5; pool.stride[k] = 1; pool.pad[k] = 2; }
            if (size[i].c == 4) bench1(NAME("avgpool 5"), NN_OP_avgpool2d, &pool, x);
            rows.mask = 12;
            bench1(NAME("global mean"), NN_OP_sum, &rows, x);
        } else {
            int zero = 0;
            v[0] = x; v[1] = view(NN_I64, 1, 4 * size[i].a, 1, 1, 1);
            bench(NAME("embedding"), NN_OP_embedding, &zero, 2, v, (int)size[i].a, 1);
            v[0] = v[1] = x; v[2] = none; v[3] = v[4] = x; v[5] = none;
            bench(NAME("adam"), NN_OP_adam_update, &u, 6, v, 1, 0);
            u.momentum = 1;
            v[4] = none;
            bench(NAME("sgd momentum"), NN_OP_sgd_update, &u, 6, v, 1, 0);
            u.momentum = 0;
            v[3] = none;
            bench(NAME("sgd"), NN_OP_sgd_update, &u, 6, v, 1, 0);
        }
        {
            nn_call c;
            nn_view w = x;
            if (!wanted(NAME("fill"))) continue;
            make(&w, 1);
            nn__begin_call(&c, nn, NN_OP_fill, &fill);
            c.nout = 1;
            c.out[0] = w;
            fill = time_of(&c);
            printf("%-34s %10.2f us %7.1f GB/s\n", name, fill * 1e6, bytes_of(&w) / fill * 1e-9);
            free(w.data);
        }
    }
    bench_fork();
    nn_free(nn);
    return 0;
}
