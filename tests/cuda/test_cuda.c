/* test_cuda.c - nn_cuda.h beside the CPU: every case of the op table, whole programs, faults.

   One source, three ways to run it (tests/check_cuda.sh, check_ptx.sh): the kernels as C++ on the CPU (cushim.h, with or without sanitizers), nvcc's PTX
   executed by ptxsim in place of libcudart, and on a GPU. The first two know nn_device_*: for every call they are told what it may touch
   and which results it must write in full, and they can fail on demand.
   Environment: NN_CASE=conv2d,rnn cases of these ops;  NN_PRECISION=0..3 the cases on tensor cores (nn_cuda_precision);  NN_OFFSET=0, 1 one alignment only;
   NN_STEPS=10 fewer steps of whole programs. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE                                      /* dup, fileno, setenv */
#endif
#include <stdlib.h>
static long host_blocks;                                 /* that nn.h took and has not returned */
void *counted_malloc(size_t n);                          /* in place of malloc and free: see nn_counted.o in the Makefile */
void counted_free(void *p);
void *counted_malloc(size_t n) { void *p = malloc(n); if (p) __atomic_fetch_add(&host_blocks, 1, __ATOMIC_RELAXED); return p; }
void counted_free(void *p) { if (p) __atomic_fetch_sub(&host_blocks, 1, __ATOMIC_RELAXED); free(p); }
#define NN_MALLOC counted_malloc
#define NN_FREE   counted_free
#define TEST_INSIDE
#include "../library.h"
#include "../../nn_cuda.h"
#include <unistd.h>
#include "../test.h"
#include "../cases.h"
#include "cases_seq.h"

/* ---- what the simulators offer; NULL on a GPU ---- */
#define WEAK __attribute__((weak))
WEAK void nn_device_block(void *p, size_t n, int there);                    /* memory of tensors: only what a guard names may be touched */
WEAK void nn_device_guard(void *const *p, const size_t *n, int count);      /* -1: everything again */
WEAK void nn_device_fill(void *p, size_t n);                                /* with NaN, before the next launch */
WEAK void nn_device_fail(int kind, long n);                                 /* the n-th allocation, launch, copy, handle (stream, event, graph) from now on; -1: none */
enum { ALLOCATIONS, LAUNCHES, COPIES, HANDLES, FAULTS };
WEAK long nn_device_count(int kind);                                        /* of them since then */
WEAK void nn_device_hurry(int on);                                          /* cushim: streams behind the first run as early as they may, not as late */
WEAK const char *nn_device_trace(int on);                                   /* cushim: what the host asked for, see there */
WEAK long nn_device_live(void);                                             /* allocations, streams, events, graphs; cushim: and nn_cuda.h's own of the host */

/* Is all memory back, of the device and of the host? Asked when no context is open. */
static int nothing_is_left(void)
{
    long device = nn_device_live ? nn_device_live() : 0;
    if (device || host_blocks) printf("%ld things of the device and %ld blocks of the host are left\n", device, host_blocks);
    return !device && !host_blocks;
}

/* ---- a backend around nn_cuda's that tells the simulator what a call may touch ---- */
typedef struct guarded { nn_backend backend; const nn_backend *inner; } guarded;
static int64_t fell_back[NN_OP_COUNT][2], ran[NN_OP_COUNT][2];
static int all_cases;                                    /* 1: every_case left nothing out */
enum { EXTENTS = 1024 };
typedef struct extents { void *at[EXTENTS]; size_t bytes[EXTENTS]; int count; } extents;
static extents extent, waiting;                          /* of this call; of updates that wait for a launch they share */

static void *guarded_alloc(void *self, size_t bytes)
{
    guarded *g = self;
    void *p = g->inner->alloc(g->inner->self, bytes);
    if (p && nn_device_block) nn_device_block(p, bytes, 1);
    return p;
}
static void guarded_free(void *self, void *p, size_t bytes)
{
    guarded *g = self;
    if (p && nn_device_block) nn_device_block(p, bytes, 0);
    g->inner->free(g->inner->self, p, bytes);
}
/* Updates that wait are launched before anything passes to or from the device: with their own guard. */
static guarded *settled(void *self)
{
    guarded *g = self;
    if (nn_device_guard && waiting.count) {
        nn_device_guard(waiting.at, waiting.bytes, waiting.count);
        g->inner->sync(g->inner->self);
        nn_device_guard(NULL, NULL, -1);
        waiting.count = 0;
    }
    return g;
}
static int guarded_upload(void *self, void *to, const void *from, size_t n)   { guarded *g = settled(self); return g->inner->upload(g->inner->self, to, from, n); }
static int guarded_download(void *self, void *to, const void *from, size_t n) { guarded *g = settled(self); return g->inner->download(g->inner->self, to, from, n); }
static int guarded_copy(void *self, void *to, const void *from, size_t n)     { guarded *g = settled(self); return g->inner->copy(g->inner->self, to, from, n); }
static int guarded_sync(void *self)                  { guarded *g = settled(self); return g->inner->sync(g->inner->self); }
static int guarded_open(void *self, nn_context *nn)  { guarded *g = self; return !g->inner->open || g->inner->open(g->inner->self, nn); }
static void guarded_close(void *self, nn_context *nn) { guarded *g = self; if (g->inner->close) g->inner->close(g->inner->self, nn); }

static int add_extent(const nn_view *v)              /* its number, or -1 */
{
    int64_t low = 0, high = 0;
    size_t size = nn_dtype_bytes((nn_dtype)v->dtype);
    if (!v->data || nn_view_count(v) == 0 || extent.count == EXTENTS) return -1;
    for (int i = 0; i < v->ndim; i++) if (v->stride[i] < 0) low += v->stride[i] * (v->shape[i] - 1); else high += v->stride[i] * (v->shape[i] - 1);
    extent.at[extent.count] = (char *)v->data + low * (int64_t)size;
    extent.bytes[extent.count] = (size_t)(high - low + 1) * size;
    return extent.count++;
}
/* A result that the call assigns holds NaN before, unless it shares memory with anything else of the call or has gaps. */
static void must_write(const nn_view *v, int number)
{
    if (number < 0 || (size_t)nn_view_count(v) * nn_dtype_bytes((nn_dtype)v->dtype) != extent.bytes[number]) return;
    for (int i = 0; i < extent.count; i++)
        if (i != number && (char *)extent.at[i] < (char *)extent.at[number] + extent.bytes[number] && (char *)extent.at[number] < (char *)extent.at[i] + extent.bytes[i]) return;
    nn_device_fill(extent.at[number], extent.bytes[number]);
}
static int in_double(const nn_call *c)                   /* such calls, of tests and of nn_item, run on the CPU and do not count */
{
    if (c->op->id == NN_OP_cast) return 0;               /* which a device can do */
    for (int i = 0; i < c->nin; i++) if (c->in[i].data && c->in[i].dtype == NN_F64) return 1;
    for (int i = 0; i < c->nout; i++) if (c->out[i].dtype == NN_F64) return 1;
    return c->pass == NN_BACKWARD && c->nin && c->din[0].data && c->din[0].dtype == NN_F64;
}
static int guarded_run(void *self, const nn_call *c)
{
    guarded *g = self;
    if (in_double(c)) return 0;
    int numbers[NN_MAX_INPUTS + NN_MAX_OUTPUTS + NN_MAX_AUX], done, back = c->pass == NN_BACKWARD;
    if (nn_device_guard) {
        int k = 0;
        extent.count = 0;
        for (int i = 0; i < c->nin; i++) add_extent(&c->in[i]);
        for (int i = 0; i < c->nout; i++) numbers[k++] = add_extent(&c->out[i]);
        for (int i = 0; i < c->naux; i++) numbers[k++] = add_extent(&c->aux[i]);
        if (back) {
            for (int i = 0; i < c->nout; i++) add_extent(&c->dout[i]);
            k = 0;
            for (int i = 0; i < c->nin; i++) numbers[k++] = add_extent(&c->din[i]);
        }
        k = 0;
        if (back) for (int i = 0; i < c->nin; i++, k++) { if (!(c->add >> i & 1) && (c->op->flags & NN_OP_ASSIGNS)) must_write(&c->din[i], numbers[k]); }
        else if (c->op->id != NN_OP_accumulate) {        /* which adds to its result */
            for (int i = 0; i < c->nout; i++) must_write(&c->out[i], numbers[k++]);
            for (int i = 0; i < c->naux; i++) must_write(&c->aux[i], numbers[k++]);
        }
        for (int i = 0; i < waiting.count && extent.count < EXTENTS; i++) {
            extent.at[extent.count] = waiting.at[i];
            extent.bytes[extent.count++] = waiting.bytes[i];
        }
        nn_device_guard(extent.at, extent.bytes, extent.count);
        waiting.count = 0;
        if ((c->op->flags & NN_OP_MUTATES) || c->op->id == NN_OP_square_sum) waiting = extent;
    }
    done = g->inner->run(g->inner->self, c);
    if (nn_device_guard) nn_device_guard(NULL, NULL, -1);
    (done ? ran : fell_back)[c->op->id][back]++;
    return done;
}
static const nn_backend *guarded_cuda(int precision)
{
    static guarded all[4];
    guarded *g = &all[precision];
    g->inner = nn_cuda_with(0, &(nn_cuda_desc){ .precision = (nn_cuda_precision)precision, .eager = 1 });
    g->backend = (nn_backend){ .version = NN_BACKEND_VERSION, .name = "cuda, guarded", .self = g, .alloc = guarded_alloc, .free = guarded_free, .upload = guarded_upload,
                               .download = guarded_download, .copy = guarded_copy, .run = guarded_run, .sync = guarded_sync, .open = guarded_open, .close = guarded_close };
    return &g->backend;
}
#define NEEDS_DEVICE do { if (!nn_cuda_available()) SKIP(nn_cuda_why()); } while (0)
#define NEEDS_SIMULATOR do { NEEDS_DEVICE; if (!nn_device_fail) SKIP("needs a simulated device"); } while (0)

/* ---- every case of the op table ---- */
/* How far a result may be from the CPU's, relative to the largest number of the result. */
static double tolerance_of(const char *op, int precision)
{
    static const struct { const char *op; double fp32; } rows[] = { { "prod", 2e-5 }, { "var", 2e-5 }, { "std", 2e-5 }, { "rnn", 2e-5 }, { "ctc_loss", 5e-5 }, { "groupnorm", 2e-5 }, { "layernorm", 2e-5 }, { "batchnorm", 2e-5 }, { "pow", 2e-5 } };
    static const double coarse[] = { 0, 4e-3, 4e-2, 4e-3 };              /* TF32, BF16, FP16: 2^-11, 2^-8, 2^-11 a factor, and sums of a few */
    double t = 1e-5;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) if (!strcmp(rows[i].op, op)) t = rows[i].fp32;
    return precision && (strstr("matmul linear linear_small conv2d conv_transpose2d attention attention_dropout rnn", op)) ? coarse[precision] : t;
}
static int differ(double a, double b, double scale, double tolerance) { return !(fabs(a - b) <= tolerance * (scale + 1e-3)) && a != b && !(isnan(a) && isnan(b)); }
static int same(const op_case *k, const char *how, const char *what, int v, int64_t n, const double *a, const double *b, double tolerance)
{
    double scale = 0;
    for (int64_t i = 0; i < n; i++) if (isfinite(b[i]) && fabs(b[i]) > scale) scale = fabs(b[i]);
    for (int64_t i = 0; i < n; i++) if (differ(a[i], b[i], scale, tolerance)) {
        printf("%s/%s%s: %s %d, element %lld of %lld: %.9g, on the CPU %.9g\n", k->name, k->label, how, what, v, (long long)i, (long long)n, a[i], b[i]);
        return 0;
    }
    return 1;
}
static int check_case(const op_case *k, int offset, int precision)
{
    const char *how = offset ? " (unaligned)" : "";
    fixture f;
    outcome cpu, o;
    int ok = 1;
    memset(&f, 0, sizeof f); memset(&cpu, 0, sizeof cpu); memset(&o, 0, sizeof o);
    f.seed = 1;
    f.offset = offset;
    f.twice = !offset;
    f.nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet });
    run_case(k, &f, &cpu);
    if (!nn_ok(f.nn)) {
        ok = !strstr(nn_error(f.nn), "too large variables");     /* else it needs double: test_ops.c runs it */
        if (!ok) printf("%s/%s: %s\n", k->name, k->label, nn_error(f.nn));
        nn_free(f.nn);
        for (int i = 0; i < MAX_VARS; i++) free(f.value[i]);
        return ok;
    }
    nn_free(f.nn);
    f.nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .backend = guarded_cuda(precision) });
    run_case(k, &f, &o);
    if (!nn_ok(f.nn)) { printf("%s/%s%s: %s\n", k->name, k->label, how, nn_error(f.nn)); ok = 0; }
    else if (o.n != cpu.n) { printf("%s/%s%s: another shape than on the CPU\n", k->name, k->label, how); ok = 0; }
    else {
        double tolerance = tolerance_of(k->name, precision);
        ok = same(k, how, "result", 0, o.n, o.y, cpu.y, tolerance);
        for (int v = 0; v < f.vars; v++)
            if (o.wanted[v] != cpu.wanted[v]) { printf("%s/%s%s: the gradient of variable %d is missing\n", k->name, k->label, how, v); ok = 0; }
            else ok &= same(k, how, "gradient", v, f.count[v], o.dx[v], cpu.dx[v], tolerance);
    }
    nn_free(f.nn);
    free_outcome(&o);
    free_outcome(&cpu);
    for (int i = 0; i < MAX_VARS; i++) free(f.value[i]);
    return ok;
}
static int is_named(const char *name, const char *list)  /* list: parts of names, with commas */
{
    for (size_t n; list[0]; list += n + (list[n] == ',')) {
        char part[64] = "";
        n = strcspn(list, ",");
        if (n && n < sizeof part && strstr(name, memcpy(part, list, n))) return 1;
    }
    return 0;
}
TEST(every_case)
{
    const char *only = getenv("NN_CASE"), *offset = getenv("NN_OFFSET"), *precision = getenv("NN_PRECISION");
    int cases = 0, p = precision ? atoi(precision) & 3 : 0;
    NEEDS_DEVICE;
    for (op_case *k = first_case; k; k = k->next) {
        if ((only && !is_named(k->name, only)) || (p && tolerance_of(k->name, p) < 1e-3)) continue;     /* the other ops have one precision */
        for (int o = 0; o < 2; o++) if (!offset || atoi(offset) == o) { cases++; CHECK(check_case(k, o, p)); }
    }
    all_cases = !only && !p;
    printf("%d cases\n", cases);
    CHECK(cases > 0);
}

/* ---- whole programs ---- */
typedef struct program {
    nn_layer *net, *part[8];
    int which;
} program;
enum { MLP, LENET, LSTM, GPT, PROGRAMS, STEPS = 20, WIDTH = 32, TOKENS = 17, CONTEXT = 8 };
static const char *const program_names[] = { "MLP", "LeNet", "LSTM", "GPT" };

static nn_tensor *program_forward(void *self, nn_tensor *x)
{
    program *p = self;
    if (p->which == LSTM) {
        x = nn_forward(p->part[1], nn_forward(p->part[0], x));
        return nn_reshape(nn_forward(p->part[2], x), NN_SHAPE(-1, TOKENS));
    }
    x = nn_add(nn_forward(p->part[0], x), nn_slice(nn_param(p->part[1], "weight"), 0, 0, nn_dim(x, 1), 1));
    x = nn_forward(p->part[3], nn_forward(p->part[2], x));
    return nn_reshape(nn_forward(p->part[5], nn_forward(p->part[4], x)), NN_SHAPE(-1, TOKENS));
}
static void program_build(program *p, nn_context *nn, int which)
{
    nn_layer *net;
    memset(p, 0, sizeof *p);
    p->which = which;
    net = p->net = which < LSTM ? nn_model_new(nn, NULL) : nn_model_new(nn, &(nn_model_desc){ .forward = program_forward, .self = p });
    if (which == MLP) {
        nn_linear_new(net, NULL, 19, 48, &(nn_linear_desc){ .activation = nn_tanh });
        nn_batchnorm_new(net, NULL, 48, NULL);
        nn_linear_new(net, NULL, 48, 33, &(nn_linear_desc){ .activation = nn_gelu });
        nn_dropout_new(net, 0.2f);
        nn_linear_new(net, NULL, 33, 10, NULL);
    }
    if (which == LENET) {
        nn_conv2d_new(net, NULL, 1, 6, 5, &(nn_conv2d_desc){ .padding = 2 });
        nn_fn_new(net, nn_relu);
        nn_maxpool2d_new(net, 2, NULL);
        nn_conv2d_new(net, NULL, 6, 9, 3, NULL);
        nn_fn_new(net, nn_relu);
        nn_avgpool2d_new(net, 2, NULL);
        nn_flatten_new(net);
        nn_linear_new(net, NULL, 9 * 2 * 2, 30, NULL);
        nn_fn_new(net, nn_relu);
        nn_linear_new(net, NULL, 30, 10, NULL);
    }
    if (which == LSTM) {
        p->part[0] = nn_embedding_new(net, "embedding", TOKENS, 12);
        p->part[1] = nn_lstm_new(net, "lstm", 12, 20, &(nn_lstm_desc){ .layers = 2 });
        p->part[2] = nn_linear_new(net, "out", 20, TOKENS, NULL);
    }
    if (which == GPT) {
        nn_transformer_desc d = { .hidden = 4 * WIDTH, .activation = nn_gelu, .norm_first = 1, .causal = 1 };
        p->part[0] = nn_embedding_new(net, "tokens", TOKENS, WIDTH);
        p->part[1] = nn_embedding_new(net, "positions", CONTEXT, WIDTH);
        p->part[2] = nn_transformer_encoder_layer_new(net, "block0", WIDTH, 2, &d);
        p->part[3] = nn_transformer_encoder_layer_new(net, "block1", WIDTH, 2, &d);
        p->part[4] = nn_layernorm_new(net, "norm", NN_SHAPE(WIDTH), NULL);
        p->part[5] = nn_tied_linear_new(net, p->part[0]);
        nn_init_normal(nn_param(p->part[0], "weight"), 0, 0.02f);
        nn_init_normal(nn_param(p->part[1], "weight"), 0, 0.02f);
    }
}
static void program_batch(int which, nn_context *nn, nn_tensor **x, nn_tensor **y)
{
    int64_t tokens[6 * CONTEXT], next[64], batch = which == MLP ? 17 : which == LENET ? 5 : 3;
    static float v[5 * 144];
    for (int i = 0; i < 5 * 144; i++) v[i] = (float)((i * 37 + i / 7 * 11) % 61) / 30 - 1;
    if (which == MLP) *x = nn_tensor_new(nn, NN_SHAPE(batch, 19), v);
    if (which == LENET) *x = nn_tensor_new(nn, NN_SHAPE(batch, 1, 12, 12), v);
    if (which >= LSTM) {
        for (int i = 0; i < batch * CONTEXT; i++) { tokens[i] = (i * 7 + i / 5) % TOKENS; next[i] = ((i + 1) * 7 + (i + 1) / 5) % TOKENS; }
        *x = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(batch, CONTEXT), tokens);
        *y = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(batch * CONTEXT), next);
        return;
    }
    for (int i = 0; i < batch; i++) next[i] = (i * 3 + i / 4) % 10;
    *y = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(batch), next);
}
enum { EAGER, REPEATED };
static nn_optimizer *optimizer_for(nn_layer *net, int which)
{
    switch (which) {
    case 0: return nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.003f, .clip_norm = 1 });
    case 1: return nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.05f });
    case 2: return nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.05f, .momentum = 0.9f, .nesterov = 1, .weight_decay = 1e-3f, .clip_value = 0.02f });
    case 3: return nn_adam_new(net, &(nn_adam_desc){ .lr = 0.003f, .amsgrad = 1 });
    case 4: return nn_rmsprop_new(net, &(nn_rmsprop_desc){ .lr = 0.003f });
    case 5: return nn_adagrad_new(net, &(nn_adagrad_desc){ .lr = 0.01f });
    case 6: return nn_nadam_new(net, &(nn_nadam_desc){ .lr = 0.003f });
    case 7: return nn_lion_new(net, &(nn_lion_desc){ .lr = 0.01f });
    default: return nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.5f, .clip_norm = 0.1f });
    }
}
enum { OPTIMIZERS = 8, CLIPPED = 8 };
static long halfway;                                     /* launches before the second half of the steps */
/* Trains; 1 if nothing failed. */
static int train(nn_context *nn, int which, int how, int optimizer, int steps, float *losses)
{
    program p;
    nn_tensor *x = NULL, *y = NULL, *loss = NULL;
    int i, ok;
    program_build(&p, nn, which);
    program_batch(which, nn, &x, &y);
    nn_optimizer *opt = optimizer_for(p.net, optimizer);
    nn_schedule *schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = 25, .per_step = 1 });
    nn_step_plan *plan = how == REPEATED ? nn_step_plan_new(p.net, &(nn_step_plan_desc){ .loss = nn_cross_entropy, .optimizer = opt }) : NULL;
    for (i = 0; i < steps; i++) {
        if (i == steps / 2 && nn_device_count) halfway = nn_device_count(LAUNCHES);
        if (plan) loss = nn_step_plan_run(plan, x, y);
        else {
            nn_begin(nn, NN_TRAIN);
            loss = nn_cross_entropy(nn_forward(p.net, x), y, NULL);
            nn_backward(loss);
            nn_step(opt);
        }
        losses[i] = (float)nn_item(loss);
        nn_schedule_advance(schedule);
    }
    ok = nn_ok(nn);
    if (plan && nn_step_plan_why(plan)) { printf("%s: a step is not repeated: %s\n", program_names[which], nn_step_plan_why(plan)); ok = 0; }
    nn_step_plan_free(plan);
    return ok;
}
static int follows(const char *name, int steps, const float *cpu, const float *cuda, double tolerance)
{
    for (int i = 0; i < steps; i++) if (!(fabs(cpu[i] - cuda[i]) <= tolerance * (fabs(cpu[i]) + 0.1))) {
        printf("%s: step %d: loss %.7g, on the CPU %.7g\n", name, i, cuda[i], cpu[i]);
        return 0;
    }
    return 1;
}
static void whole_program(int which)
{
    static const double tolerance[4] = { 1e-4, 1e-2, 5e-2, 1e-2 };       /* of a loss after 20 steps: FP32, TF32, BF16, FP16 */
    float cpu[STEPS], cuda[STEPS];
    const char *fewer = getenv("NN_STEPS");
    int steps = fewer && atoi(fewer) < STEPS ? atoi(fewer) : STEPS;
    NEEDS_DEVICE;
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3 });
    CHECK(train(nn, which, EAGER, 0, STEPS, cpu));
    nn_free(nn);
    CHECK(cpu[STEPS - 1] < 0.98f * cpu[0]);
    for (int precision = 0; precision < 4; precision++) {
        nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = guarded_cuda(precision) });
        CHECK(train(nn, which, EAGER, 0, steps, cuda));
        CHECK(follows(program_names[which], steps, cpu, cuda, tolerance[precision]));
        nn_free(nn);
    }
    float again[STEPS];
    nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = nn_cuda(0) });
    CHECK(train(nn, which, REPEATED, 0, steps, again));
    CHECK(!nn_device_count || nn_device_count(LAUNCHES) - halfway == 2 * (steps / 2));   /* a repeated step is one launch, its loss as a double another */
    nn_free(nn);
    nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = nn_cuda(0) });
    CHECK(train(nn, which, EAGER, 0, steps, cuda));
    nn_free(nn);
    CHECK(memcmp(again, cuda, (size_t)steps * sizeof *cuda) == 0);                        /* and has the bits of an eager one */
}
TEST(mlp)   { whole_program(MLP); }
TEST(lenet) { whole_program(LENET); }
TEST(lstm)  { whole_program(LSTM); }
TEST(gpt)   { whole_program(GPT); }
TEST(optimizers)
{
    float cpu[5], cuda[5];
    NEEDS_DEVICE;
    for (int o = 1; o < OPTIMIZERS; o++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3 });
        CHECK(train(nn, MLP, EAGER, o, 5, cpu));
        nn_free(nn);
        nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = guarded_cuda(0) });
        CHECK(train(nn, MLP, EAGER, o, 5, cuda));
        CHECK(follows("optimizers", 5, cpu, cuda, 1e-4));
        nn_free(nn);
    }
}
TEST(norm_of_many_tensors)
{
    float cpu[5], cuda[5];
    NEEDS_DEVICE;
    for (int device = 0; device < 2; device++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = device ? guarded_cuda(0) : NULL });
        CHECK(train(nn, GPT, EAGER, CLIPPED, 5, device ? cuda : cpu));
        nn_free(nn);
    }
    CHECK(follows("a norm of many tensors", 5, cpu, cuda, 1e-4));
}
/* ---- loss scaling: steps whose loss is infinite or NaN are skipped, on the device as on the CPU ---- */
typedef struct scaled { nn_context *nn; program p; nn_optimizer *opt; nn_tensor *factor; int leaves_out; } scaled;
static nn_tensor *scaled_step(void *user, nn_tensor *x, nn_tensor *y)
{
    scaled *s = user;
    nn_tensor *loss = nn_cross_entropy(nn_forward(s->p.net, x), y, NULL);
    nn_backward(nn_mul(loss, s->factor));
    if (s->leaves_out) nn_zero_grad(s->p.net);
    else nn_step(s->opt);
    return loss;
}
static nn_tensor *first_param(nn_layer *net)
{
    nn_tensor *list[64] = { NULL };
    nn_params(net, list, 64);
    return list[0];
}
enum { SPOILT = 12 };
static const float spoilt[SPOILT] = { [0] = INFINITY, [1] = NAN, [5] = -INFINITY };
/* 1 if nothing failed; weights: those of the first layer */
static int train_scaled(nn_context *nn, int which, int optimizer, int how, float times, float *losses, float *weights, int64_t *updates)
{
    scaled s = { .nn = nn };
    nn_tensor *x, *y, *loss;
    program_build(&s.p, nn, which);
    program_batch(which, nn, &x, &y);
    s.opt = optimizer < 0 ? nn_adam_new(s.p.net, &(nn_adam_desc){ .lr = 0.003f, .eps = 1e-16f }) : optimizer_for(s.p.net, optimizer);
    s.factor = nn_tensor_new(nn, NN_SCALAR, NULL);
    int scaling = nn_loss_scale(nn) != 1;
    nn_step_plan *plan = how == REPEATED ? nn_step_plan_new(s.p.net, &(nn_step_plan_desc){ .step = scaled_step, .user = &s }) : NULL;
    for (int i = 0; i < SPOILT; i++) {
        float factor = times != 1 || spoilt[i] == 0 ? times : spoilt[i];
        nn_write(s.factor, &factor);
        s.leaves_out = !scaling && !isfinite(factor);
        if (plan) loss = nn_step_plan_run(plan, x, y);
        else {
            nn_begin(nn, NN_TRAIN);
            loss = scaled_step(&s, x, y);
        }
        losses[i] = (float)nn_item(loss);
    }
    *updates = nn_steps(s.opt);
    nn_read(first_param(s.p.net), weights);
    int ok = nn_ok(nn);
    if (plan && nn_step_plan_why(plan)) { printf("%s: a step is not repeated: %s\n", program_names[which], nn_step_plan_why(plan)); ok = 0; }
    nn_step_plan_free(plan);
    return ok;
}
TEST(loss_scaling)
{
    static float weights[3][19 * 48];
    float cpu[SPOILT], cuda[SPOILT], again[SPOILT], plain[SPOILT];
    int64_t updates;
    NEEDS_DEVICE;
    for (int o = 0; o <= CLIPPED; o++) {
        nn_desc d = { .threads = 1, .seed = 3, .loss_scale = 4096, .growth_interval = 2 };
        nn_context *nn = nn_new(&d);
        CHECK(train_scaled(nn, MLP, o, EAGER, 1, cpu, weights[0], &updates) && updates == SPOILT - 3);
        CHECK(nn_loss_scale(nn) == 4096.0f / 2 / 2 * 2 / 2 * 8);
        nn_free(nn);
        d.backend = guarded_cuda(0);
        nn = nn_new(&d);
        CHECK(train_scaled(nn, MLP, o, EAGER, 1, cuda, weights[1], &updates) && updates == SPOILT - 3);
        CHECK(nn_loss_scale(nn) == 4096.0f / 2 / 2 * 2 / 2 * 8);
        CHECK(follows("loss scaling", SPOILT, cpu, cuda, 1e-4));
        nn_free(nn);
        d.backend = nn_cuda(0);
        nn = nn_new(&d);                                 /* as graphs */
        CHECK(train_scaled(nn, MLP, o, REPEATED, 1, again, weights[2], &updates) && updates == SPOILT - 3);
        CHECK(!memcmp(again, cuda, sizeof again) && !memcmp(weights[1], weights[2], sizeof weights[1]));
        nn_free(nn);
        d.loss_scale = 0;
        nn = nn_new(&d);                                 /* without: the same bits as where the host leaves those steps out */
        CHECK(train_scaled(nn, MLP, o, EAGER, 1, plain, weights[2], &updates) && updates == SPOILT - 3);
        CHECK(!memcmp(plain, cuda, sizeof plain) && !memcmp(weights[1], weights[2], sizeof weights[1]));
        nn_free(nn);
    }
}
TEST(tiny_gradients_in_fp16)                             /* below 6e-8 they are 0 as 16-bit floats */
{
    static float first[19 * 48], weights[19 * 48], gpt[TOKENS * WIDTH];
    float cpu[SPOILT], without[SPOILT], with[SPOILT];
    int64_t updates;
    NEEDS_DEVICE;
    nn_desc d = { .threads = 1, .seed = 3 };
    nn_context *nn = nn_new(&d);
    program p;
    program_build(&p, nn, MLP);
    nn_read(first_param(p.net), first);
    nn_free(nn);
    nn = nn_new(&d);
    CHECK(train_scaled(nn, MLP, -1, EAGER, 1e-6f, cpu, weights, &updates));
    nn_free(nn);
    d.backend = guarded_cuda(NN_CUDA_FP16);
    nn = nn_new(&d);
    CHECK(train_scaled(nn, MLP, -1, EAGER, 1e-6f, without, weights, &updates) && updates == SPOILT);
    CHECK(!memcmp(first, weights, sizeof first));        /* the first layer learns nothing */
    nn_free(nn);
    d.loss_scale = 65536;
    nn = nn_new(&d);
    CHECK(train_scaled(nn, MLP, -1, EAGER, 1e-6f, with, weights, &updates) && updates == SPOILT);
    CHECK(nn_loss_scale(nn) == 65536 && memcmp(first, weights, sizeof first));
    CHECK(follows("with a loss scale", SPOILT, cpu, with, 1e-2));
    CHECK(fabsf(without[SPOILT - 1] - cpu[SPOILT - 1]) > 4 * fabsf(with[SPOILT - 1] - cpu[SPOILT - 1]));
    nn_free(nn);
    d.loss_scale = 0x1p28f;                              /* too large: products overflow until it has found its size */
    for (int how = EAGER; how <= REPEATED; how++) {
        d.backend = nn_cuda_with(0, &(nn_cuda_desc){ .precision = NN_CUDA_FP16 });
        nn = nn_new(&d);
        CHECK(train_scaled(nn, GPT, 0, how, 1 + 1e-6f, how ? without : with, gpt, &updates));
        CHECK(updates > 0 && updates < SPOILT && nn_loss_scale(nn) == ldexpf(1, 28 - (SPOILT - (int)updates)));
        CHECK(with[SPOILT - 1] < with[0] && (!how || !memcmp(with, without, sizeof with)));
        nn_free(nn);
    }
}
TEST(loss_scaling_waits_for_nobody)
{
    NEEDS_SIMULATOR;
    if (!nn_device_trace) SKIP("needs a trace");
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = nn_cuda(0), .loss_scale = 65536 });
    scaled s = { .nn = nn };
    nn_tensor *x, *y;
    float one = 1;
    program_build(&s.p, nn, MLP);
    program_batch(MLP, nn, &x, &y);
    s.opt = optimizer_for(s.p.net, 0);
    s.factor = nn_tensor_new(nn, NN_SCALAR, &one);
    nn_begin(nn, NN_TRAIN);
    scaled_step(&s, x, y);
    nn_device_trace(1);
    for (int i = 0; i < 3; i++) {
        nn_begin(nn, NN_TRAIN);
        scaled_step(&s, x, y);
    }
    const char *t = nn_device_trace(0);
    CHECK(t[0] && !strchr(t, 'Y'));
    CHECK(nn_steps(s.opt) == 4 && nn_ok(nn));
    nn_free(nn);
}
TEST(norm_of_odd_tensors)                                /* every number counts, those at the end of a tensor, too */
{
    static const int64_t sizes[] = { 1, 2, 3, 5, 7, 1024, 1025, 1027 };
    enum { SIZES = sizeof sizes / sizeof *sizes };
    NEEDS_DEVICE;
    for (int n = 0; n < SIZES; n++) {
        float v[2][1027];
        for (int device = 0; device < 2; device++) {
            nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .backend = device ? guarded_cuda(0) : NULL });
            nn_layer *net = nn_model_new(nn, NULL);
            nn_tensor *p = nn_param_new(net, "p", NN_SHAPE(sizes[n])), *few = nn_param_new(net, "few", NN_SHAPE(3));
            float x[1027];
            for (int64_t i = 0; i < sizes[n]; i++) x[i] = i + 4 >= sizes[n] ? 9.0f + (float)(i % 4) : 0.001f * (float)(i % 7);
            nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 1, .clip_norm = 1 });
            nn_begin(nn, NN_TRAIN);
            nn_backward(nn_add(nn_sum(nn_mul(p, nn_tensor_new(nn, NN_SHAPE(sizes[n]), x)), NN_ALL, NULL), nn_sum(few, NN_ALL, NULL)));
            nn_step(opt);
            CHECK(nn_read(p, v[device]) && nn_ok(nn));
            nn_free(nn);
        }
        for (int64_t i = 0; i < sizes[n]; i++) CHECK(fabsf(v[0][i] - v[1][i]) <= 1e-5f);
    }
}
TEST(updates_of_numbers_anywhere)                        /* parameters, gradients and states that do not begin at 16 bytes */
{
    enum { N = 11, TENSORS = 5 };
    static const int ops[] = { NN_OP_adam_update, NN_OP_sgd_update };
    NEEDS_DEVICE;
    for (int which = 0; which < 2; which++) for (int first = 0; first < 2; first++) {
        float v[2][TENSORS][N], x[N];
        for (int device = 0; device < 2; device++) {
            nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .backend = device ? guarded_cuda(0) : NULL });
            nn__update_params u = { .lr = 0.1, .lr_grad = 0.1, .decay1 = 0.9, .rest1 = 0.1, .decay2 = 0.99, .rest2 = 0.01, .eps = 1e-6, .correct = 0.5, .shrink = 0.99, .amsgrad = 1, .momentum = 1, .op = ops[which] };
            nn_tensor *t[TENSORS];
            nn_call c;
            nn_begin(nn, NN_TRAIN);
            for (int k = 0; k < TENSORS; k++) {
                for (int i = 0; i < N; i++) x[i] = 0.1f * (float)((i * 7 + k * 5) % 13) + (k == 4 ? 0.3f : 0.05f);
                t[k] = nn_tensor_new(nn, NN_SHAPE(N), x);
            }
            nn__begin_call(&c, nn, ops[which], &u);
            c.nin = 3 + NN__MAX_STATES;
            for (int k = 0; k < c.nin; k++) c.in[k] = nn__view_of(k == 2 ? NULL : nn_slice(t[k < 2 ? k : k - 1], 0, first, N - 2 + first, 1));
            nn__run(nn, &c);
            for (int k = 0; k < TENSORS; k++) nn_read(t[k], v[device][k]);
            CHECK(nn_ok(nn) && nn_fallbacks(nn) == 0);
            nn_free(nn);
            for (int k = 0; device && k < TENSORS; k++) for (int i = 0; i < N; i++) CHECK(fabsf(v[0][k][i] - v[1][k][i]) <= 1e-6f);
        }
    }
}
/* An index that is just too large, and -1, are errors with the op's name; the last one is not. */
static void with_index(nn_context *nn, int which, int64_t k)
{
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_want_grad(nn_full(nn, NN_SHAPE(4, 5), 0.5f)), *one = nn_from_as(nn, NN_I64, NN_SHAPE(1, 1), &k), *y = NULL;
    nn_tensor *four = nn_concat((nn_tensor *[]){ nn_reshape(one, NN_SHAPE(1)), nn_from_as(nn, NN_I64, NN_SHAPE(3), (int64_t[]){ 0, 1, 2 }) }, 2, 0);
    switch (which) {
    case 0: y = nn_gather(x, 1, one); break;
    case 1: y = nn_scatter_add(x, 1, one, nn_full(nn, NN_SHAPE(1, 1), 1)); break;
    case 2: y = nn_index_select(x, 1, nn_reshape(one, NN_SHAPE(1))); break;
    case 3: y = nn_embedding(nn_reshape(one, NN_SHAPE(1)), nn_transpose(x, 0, 1)); break;
    case 4: y = nn_one_hot(one, 5); break;
    case 5: y = nn_cross_entropy(x, four, NULL); break;
    case 6: y = nn_nll(x, four, NULL); break;
    case 7: y = nn_hinge(x, four, NULL); break;
    case 8: {                                            /* lengths of an RNN of 4 steps */
        nn_rnn_state s = { .lengths = nn_reshape(one, NN_SHAPE(1)) };
        y = nn_rnn_forward(nn_lstm_new(nn_model_new(nn, NULL), NULL, 5, 3, NULL), nn_reshape(x, NN_SHAPE(1, 4, 5)), &s);
        break;
    }
    default: {                                           /* ctc_loss: steps, sizes of a table and of a list, the second of those, classes */
        nn_tensor *p = nn_reshape(x, NN_SHAPE(4, 1, 5)), *t = nn_from_as(nn, NN_I64, NN_SHAPE(1, 4), (int64_t[]){ 1, 2, 3, 4 }), *size = nn_reshape(one, NN_SHAPE(1)), *all = nn_from_as(nn, NN_I64, NN_SHAPE(1), (int64_t[]){ 4 });
        if (which == 9) y = nn_ctc_loss(p, t, size, nn_from_as(nn, NN_I64, NN_SHAPE(1), (int64_t[]){ 1 }), NULL);
        if (which == 10) y = nn_ctc_loss(p, t, all, size, NULL);
        if (which == 11) y = nn_ctc_loss(p, nn_reshape(t, NN_SHAPE(4)), all, size, NULL);
        if (which == 12) y = nn_ctc_loss(nn_expand(p, NN_SHAPE(4, 2, 5)), nn_concat((nn_tensor *[]){ t, t }, 2, 0), nn_concat((nn_tensor *[]){ all, all }, 2, 0), nn_concat((nn_tensor *[]){ size, all }, 2, 0), NULL);
        if (which == 13) y = nn_ctc_loss(nn_expand(p, NN_SHAPE(4, 2, 5)), nn_from_as(nn, NN_I64, NN_SHAPE(5), (int64_t[]){ 1, 2, 3, 4, 1 }), nn_concat((nn_tensor *[]){ all, all }, 2, 0),
                                         nn_concat((nn_tensor *[]){ size, nn_from_as(nn, NN_I64, NN_SHAPE(1), (int64_t[]){ k < 0 ? 3 : 1 }) }, 2, 0), NULL);
        if (which == 14) y = nn_ctc_loss(p, nn_reshape(one, NN_SHAPE(1, 1)), all, nn_from_as(nn, NN_I64, NN_SHAPE(1), (int64_t[]){ 1 }), NULL);
    }
    }
    if (y && y->node) nn_backward(nn_sum(y, NN_ALL, NULL));          /* which may run before the fault is known */
    if (y) nn_item(nn_sum(nn_cast(y, NN_F32), NN_ALL, NULL));
}
TEST(indices_out_of_range)
{
    static const char *const name[] = { "gather: ", "scatter_add: ", "index_select: ", "embedding: ", "one_hot: ", "cross_entropy: ", "nll: ", "multi_margin: ", "rnn: " };
    NEEDS_DEVICE;
    for (int device = 0; device < 2; device++) for (int which = 0; which < 15; which++) for (int64_t k = 4; k > -2; k = k == 4 ? 5 : k == 5 ? -1 : -2) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .backend = device ? guarded_cuda(0) : NULL });
        with_index(nn, which, k);
        if (nn_ok(nn) != (k == 4)) printf("op %d, index %d: %s\n", which, (int)k, nn_error(nn));
        CHECK(nn_ok(nn) == (k == 4));
        if (!nn_ok(nn)) CHECK_TEXT(nn_error(nn), which < 9 ? name[which] : "ctc_loss: ");
        nn_free(nn);
    }
}
TEST(the_same_bits_again)                                /* no order of blocks or threads may show */
{
    float first[STEPS], again[STEPS];
    NEEDS_DEVICE;
    for (int i = 0; i < 2; i++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = nn_cuda(0) });
        CHECK(train(nn, GPT, EAGER, 0, 5, i ? again : first));
        nn_free(nn);
    }
    CHECK(memcmp(first, again, 5 * sizeof *first) == 0);
    unsigned h = 2166136261u;
    for (size_t i = 0; i < 5 * sizeof *first; i++) h = (h ^ ((unsigned char *)first)[i]) * 16777619u;
    printf("bits of a GPT's losses: %08x\n", h);         /* check_cuda.sh compares orders */
}

/* ---- the next batch travels beside the step ---- */
enum { ROWS = 44, WIDE = 9, EPOCHS = 3 };
static long taken_at[EPOCHS + 1];                        /* allocations at the end of an epoch */
static void note_loss(void *user, nn_progress *p)
{
    float **to = user;
    if (p->step) *(*to)++ = (float)p->loss;
    if (nn_device_count) taken_at[p->epoch] = nn_device_count(ALLOCATIONS);
}
static int fit(const nn_backend *backend, float *losses)
{
    static float xs[ROWS * WIDE];
    int64_t labels[ROWS];
    for (int i = 0; i < ROWS * WIDE; i++) xs[i] = (float)((i * 37 + i / 7 * 11) % 61) / 30 - 1;
    for (int i = 0; i < ROWS; i++) labels[i] = i * 5 % 7;
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .on_error = test_quiet, .backend = backend });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "a", WIDE, 30, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "b", 30, 7, NULL);
    nn_dataset *data = nn_dataset_new(nn, &(nn_dataset_desc){ .x = xs, .x_shape = NN_SHAPE(WIDE), .labels = labels, .classes = 7, .count = ROWS });
    int ok = nn_fit(net, &(nn_fit_desc){ .train = nn_loader_new(data, &(nn_loader_desc){ .batch = 8, .shuffle = 1 }), .loss = nn_cross_entropy,
                                         .optimizer = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.01f }), .epochs = EPOCHS, .quiet = 1, .on_step = note_loss, .user = &losses });
    ok = ok && nn_ok(nn);
    nn_free(nn);
    return ok;
}
TEST(the_next_batch_travels_beside_the_step)
{
    enum { BATCHES = EPOCHS * ((ROWS + 7) / 8) };
    float cpu[BATCHES + 1], late[BATCHES + 1], early[BATCHES + 1], plain[BATCHES + 1];
    NEEDS_DEVICE;
    CHECK(fit(NULL, cpu));
    if (nn_device_trace) nn_device_trace(1);
    CHECK(fit(nn_cuda(0), late));
    if (nn_device_trace) {
        const char *t = nn_device_trace(0);
        int beside = 0, busy = 0;
        for (; t[0]; t += 2) {                           /* sent while the first stream has kernels or a graph that nobody has waited for */
            if (t[0] == '1' && (t[1] == 'K' || t[1] == 'G')) busy = 1;
            if (t[0] == '1' && t[1] == 'Y') busy = 0;
            if (t[0] == '2' && t[1] == 'U') { CHECK(busy); beside++; }
        }
        CHECK(beside == 2 * (BATCHES - EPOCHS));         /* x and y of all batches but the first of an epoch */
    }
    if (nn_device_hurry) nn_device_hurry(1);
    CHECK(fit(nn_cuda(0), early));
    if (nn_device_hurry) nn_device_hurry(0);
    nn_backend without = *nn_cuda(0);
    without.send = NULL;
    CHECK(fit(&without, plain));
    CHECK(taken_at[EPOCHS] == taken_at[EPOCHS - 1]);     /* steps as graphs, batches sent ahead, the smaller last batch: nothing is allocated any more */
    CHECK(follows("nn_fit", BATCHES, cpu, late, 1e-4));
    CHECK(memcmp(late, plain, BATCHES * sizeof *late) == 0);
    CHECK(memcmp(early, plain, BATCHES * sizeof *late) == 0);
    CHECK(nothing_is_left());
}

/* ---- the best of long lines: runs hand on their first ---- */
TEST(topk_of_long_lines)
{
    enum { N = 5000, LINES = 3 };
    static float x[LINES * N], v[2][LINES * 600];
    static int64_t at[2][LINES * 600];
    static const int64_t ks[] = { 1, 7, 512, 600 };
    NEEDS_DEVICE;
    for (int i = 0; i < LINES * N; i++) x[i] = (float)((i * 7919 + i / 11 * 31) % 97) / 8 - 5;         /* many equal ones: the first come first */
    x[77] = x[2 * N - 1] = NAN;
    for (int dim = 0; dim < 2; dim++) for (size_t k = 0; k < 4; k++) for (int smallest = 0; smallest < 2; smallest++) {
        for (int on = 0; on < 2; on++) {
            nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .backend = on ? guarded_cuda(0) : NULL });
            nn_tensor *t = nn_tensor_new(nn, dim ? NN_SHAPE(LINES, N) : NN_SHAPE(N, LINES), x), *index = NULL;
            nn_read(nn_topk(t, ks[k], dim, &index, &(nn_topk_desc){ .smallest = smallest }), v[on]);
            nn_read_as(index, NN_I64, at[on]);
            CHECK(nn_ok(nn) && nn_fallbacks(nn) == 0);
            nn_free(nn);
        }
        CHECK(memcmp(v[0], v[1], (size_t)(LINES * ks[k]) * sizeof **v) == 0 && memcmp(at[0], at[1], (size_t)(LINES * ks[k]) * sizeof **at) == 0);
    }
}

/* ---- a text, token by token: every token is the same calls, which run as a graph ---- */
enum { DECODED = 140, PROMPT = 3, BLOCKS = 2 };
typedef struct writer { nn_layer *net, *tokens, *block[BLOCKS], *norm; nn_tensor *positions; nn_kv_cache *cache[BLOCKS]; } writer;
static void writer_build(writer *w, nn_context *nn)
{
    nn_transformer_desc d = { .hidden = 2 * WIDTH, .activation = nn_gelu, .norm_first = 1, .causal = 1 };
    w->net = nn_model_new(nn, NULL);
    w->tokens = nn_embedding_new(w->net, "tokens", TOKENS, WIDTH);
    for (int i = 0; i < BLOCKS; i++) {
        w->block[i] = nn_transformer_encoder_layer_new(w->net, i ? "block1" : "block0", WIDTH, 2, &d);
        w->cache[i] = nn_kv_cache_new(nn, 1, 2, DECODED + PROMPT, WIDTH / 2, 0);
    }
    w->norm = nn_layernorm_new(w->net, "norm", NN_SHAPE(WIDTH), NULL);
    w->positions = nn_sinusoidal_new(nn, DECODED + PROMPT, WIDTH);
}
/* Greedy: tokens and their scores; how many of the device's launches a token took at the end, and allocations then. */
static int writer_run(const nn_backend *backend, int64_t *tokens, float *scores, long *launches, long *allocations)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 5, .backend = backend });
    writer w;
    long before = 0, taken = 0;
    writer_build(&w, nn);
    for (int i = 0; i < PROMPT; i++) tokens[i] = i + 1;
    for (int at = 0, n = PROMPT; n < DECODED; at = n++) {
        float *row = scores + n * TOKENS;
        nn_begin(nn, NN_EVAL);
        nn_tensor *x = nn_add(nn_forward(w.tokens, nn_from_as(nn, NN_I64, NN_SHAPE(1, n - at), tokens + at)), nn_slice(w.positions, 0, at, n, 1));
        for (int i = 0; i < BLOCKS; i++) x = nn_transformer_encoder_layer_forward(w.block[i], x, &(nn_attention_desc){ .cache = w.cache[i] });
        x = nn_linear(nn_forward(w.norm, nn_select(nn_select(x, 1, n - at - 1), 0, 0)), nn_param(w.tokens, "weight"), NULL, NULL);
        nn_read(x, row);
        tokens[n] = 0;
        for (int k = 1; k < TOKENS; k++) if (row[k] > row[tokens[n]]) tokens[n] = k;
        if (nn_device_count && n == DECODED - 21) { before = nn_device_count(LAUNCHES); taken = nn_device_count(ALLOCATIONS); }
    }
    if (nn_device_count) { *launches = (nn_device_count(LAUNCHES) - before) / 20; *allocations = nn_device_count(ALLOCATIONS) - taken; }
    int ok = nn_ok(nn);
    if (backend) CHECK(nn_fallbacks(nn) == 0);
    nn_free(nn);
    return ok;
}
TEST(a_token_is_a_graph)
{
    static int64_t cpu[DECODED], eager[DECODED], graph[DECODED];
    static float x[DECODED * TOKENS], y[DECODED * TOKENS], z[DECODED * TOKENS];
    long one = 0, many = 0, taken = 0;
    NEEDS_DEVICE;
    CHECK(writer_run(NULL, cpu, x, &one, &taken));
    CHECK(writer_run(nn_cuda_with(0, &(nn_cuda_desc){ .eager = 1 }), eager, y, &many, &taken));
    for (int hurry = 0; hurry < 2; hurry++) {
        if (nn_device_hurry) nn_device_hurry(hurry);
        if (nn_device_fail) nn_device_fail(-1, 0);
        CHECK(writer_run(nn_cuda(0), graph, z, &one, &taken));
        CHECK(memcmp(eager, graph, sizeof eager) == 0 && memcmp(y, z, sizeof y) == 0);
        CHECK(nothing_is_left());
        if (nn_device_count) { printf("launches of a token: %ld, eager %ld\n", one, many); CHECK(one == 1 && many > 20 && taken == 0); }
    }
    if (nn_device_hurry) nn_device_hurry(0);
    CHECK(memcmp(cpu, eager, sizeof cpu) == 0);
    for (int i = PROMPT * TOKENS; i < DECODED * TOKENS; i++) CHECK(fabsf(x[i] - y[i]) <= 1e-4f);
}
TEST(planned_faults_in_a_text)
{
    static int64_t tokens[DECODED];
    static float x[DECODED * TOKENS];
    long none = 0, taken = 0;
    NEEDS_SIMULATOR;
    (void)none; (void)taken;
    for (int kind = 0; kind < FAULTS; kind++) for (long n = 1, reached = 1; reached; n += n / 2 + 1) {
        nn_device_fail(kind, n);
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .backend = nn_cuda(0) });
        writer w;
        int ok;
        if (nn_ok(nn)) writer_build(&w, nn);
        for (int t = 0; t < 6 && nn_ok(nn); t++) {
            nn_begin(nn, NN_EVAL);
            tokens[0] = t;
            nn_tensor *y = nn_forward(w.tokens, nn_from_as(nn, NN_I64, NN_SHAPE(1, 1), tokens));
            for (int i = 0; i < BLOCKS; i++) y = nn_transformer_encoder_layer_forward(w.block[i], y, &(nn_attention_desc){ .cache = w.cache[i] });
            nn_read(nn_forward(w.norm, y), x);
        }
        ok = nn_ok(nn);
        reached = nn_device_count(kind) >= n;
        CHECK(ok || (reached && nn_error(nn)[0]));
        nn_free(nn);
        nn_device_fail(-1, 0);
        CHECK(nothing_is_left());
    }
}

/* ---- weight averages; a run that begins on one device and ends on the other ---- */
TEST(averages_of_weights)
{
    static float v[2][3][19 * 48];
    NEEDS_DEVICE;
    for (int device = 0; device < 2; device++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = device ? guarded_cuda(0) : NULL });
        program p;
        nn_tensor *x, *y;
        program_build(&p, nn, MLP);
        program_batch(MLP, nn, &x, &y);
        nn_optimizer *opt = optimizer_for(p.net, 0);
        nn_ema *ema = nn_ema_new(p.net, 0.8f);
        for (int i = 0; i < 5; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_backward(nn_cross_entropy(nn_forward(p.net, x), y, NULL));
            nn_step(opt);
            nn_ema_update(ema);
        }
        for (int k = 0; k < 3; k++) {                    /* weights, their averages, weights */
            nn_read(first_param(p.net), v[device][k]);
            nn_ema_swap(ema);
        }
        CHECK(nn_ok(nn) && nn_fallbacks(nn) == 0);
        nn_free(nn);
    }
    CHECK(memcmp(v[1][0], v[1][2], sizeof v[1][0]) == 0 && memcmp(v[1][0], v[1][1], sizeof v[1][0]) != 0);
    for (int k = 0; k < 2; k++) for (int i = 0; i < 19 * 48; i++) CHECK(fabsf(v[0][k][i] - v[1][k][i]) <= 1e-5f);
}
TEST(a_checkpoint_is_for_every_device)
{
    enum { HALF = 4 };
    float losses[3][2 * HALF];
    char path[512];
    NEEDS_DEVICE;
    snprintf(path, sizeof path, "%s/nn_cuda_%ld.safetensors", getenv("NN_TEST_DIR") ? getenv("NN_TEST_DIR") : "/tmp", (long)getpid());
    for (int way = 0; way < 3; way++) for (int half = 0; half < 2; half++) {         /* the CPU alone; to the device; from it */
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = way && (way == 1) == half ? nn_cuda(0) : NULL });
        program p;
        nn_tensor *x, *y;
        program_build(&p, nn, LENET);
        program_batch(LENET, nn, &x, &y);
        nn_save_desc d = { .optimizer = optimizer_for(p.net, 0) };
        if (half) CHECK(nn_resume(p.net, path, &d));
        for (int i = 0; i < HALF; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *loss = nn_cross_entropy(nn_forward(p.net, x), y, NULL);
            nn_backward(loss);
            nn_step(d.optimizer);
            losses[way][half * HALF + i] = (float)nn_item(loss);
        }
        if (!half) CHECK(nn_save(p.net, path, &d));
        CHECK(nn_ok(nn) && nn_steps(d.optimizer) == (half + 1) * HALF);
        nn_free(nn);
    }
    remove(path);
    for (int way = 1; way < 3; way++) CHECK(follows("a checkpoint", 2 * HALF, losses[0], losses[way], 1e-4));
}

/* ---- what is said: the report, and errors ---- */
static char *report_of(const nn_backend *b, char *text, size_t room)
{
    FILE *f = tmpfile();
    int out = dup(1);
    size_t n = 0;
    fflush(stdout);
    if (f && out >= 0 && dup2(fileno(f), 1) >= 0) {
        nn_cuda_report(b);
        fflush(stdout);
        dup2(out, 1);
        rewind(f);
        n = fread(text, 1, room - 1, f);
    }
    text[n] = 0;
    if (f) fclose(f);
    if (out >= 0) close(out);
    return text;
}
static long said(const char *report, const char *op, const char *pass, const char **rest)      /* its number of calls, and what follows */
{
    char start[64];
    long calls = 0;
    snprintf(start, sizeof start, "  %-22s %-8s ", op, pass);
    const char *line = strstr(report, start);
    *rest = "";
    if (line) calls = strtol(line + strlen(start), (char **)rest, 10);
    return calls;
}
TEST(the_report)
{
    static char before[1 << 15], after[1 << 15];
    const char *rest;
    float x[20] = { 1, 2, 3 }, y[20];
    double mb, most, up, down;
    long long launches, repeats;
    int arch, many;
    NEEDS_DEVICE;
    for (int timed = 0; timed < 2; timed++) {
        if (timed) setenv("NN_CUDA_TIME", "1", 1);
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .backend = nn_cuda(0) });
        unsetenv("NN_CUDA_TIME");
        report_of(nn_cuda(0), before, sizeof before);
        nn_begin(nn, NN_TRAIN);
        nn_tensor *a = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(4, 5), x)), *wide;
        nn_backward(nn_sum(nn_softmax(a, 1), NN_ALL, NULL));
        wide = nn_cast(nn_detach(a), NN_F64);
        nn_read(nn_cast(nn_flip(nn_tril(wide, 0), NN_DIMS(1)), NN_F32), y);          /* of 64-bit floats, by the CPU */
        CHECK(nn_ok(nn) && y[4] == 1 && nn_fallbacks(nn) == 1);
        report_of(nn_cuda(0), after, sizeof after);
        CHECK(sscanf(after, "cuda:0: sm_%d, %d multiprocessors; %lld launches, %lld repeated steps; %lf MB now, %lf MB at most; %lf MB up, %lf MB down", &arch, &many, &launches, &repeats, &mb, &most, &up, &down) == 8);
        CHECK(arch >= 75 && many > 0 && launches > 0 && mb > 0 && most >= mb);
        for (int back = 0; back < 2; back++) {
            long calls = said(before, "softmax", back ? "backward" : "forward", &rest);
            CHECK(said(after, "softmax", back ? "backward" : "forward", &rest) == calls + 1);
            CHECK(strncmp(rest, " calls", 6) == 0 && strchr(rest, '\n'));
            if (timed && strlen(rest) > 6) {
                char *end;
                CHECK(strtod(rest + 6, &end) > 0 && strncmp(end, " ms", 3) == 0);
            } else CHECK(rest[6] == '\n');
        }
        said(after, "tril", "forward", &rest);
        CHECK_TEXT(rest, " of them on the CPU");
        CHECK(strstr(rest, " of them on the CPU") < strchr(rest, '\n'));
        nn_free(nn);
    }
    CHECK(report_of(NULL, before, sizeof before)[0] == 0);
}
TEST(errors_name_the_call)                               /* device, op, pass, shapes, what failed and where; of copies the last two */
{
    static const struct { const char *text[3]; } parts[5] = {
        { { "cuda:0: softmax forward (5, 7): ", "nn__k_softmax: ", "nn_cuda.h:" } }, { { "cuda:0: matmul backward (3, 4) (4, 6): ", "thin: ", "nn_cuda.h:" } },
        { { "cuda:0: ", "cudaMemcpyAsync", "nn_cuda.h:" } }, { { "cuda:0: ", "cudaMalloc: ", "nn_cuda.h:" } }, { { "cuda:0: softmax forward (5, 7): ", "nn__k_softmax: ", "nn_cuda.h:" } } };
    NEEDS_SIMULATOR;
    for (int which = 0; which < 5; which++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .backend = nn_cuda(0) });
        float v[42] = { 0 };
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(5, 7), v)), *a = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(3, 4), v)), *b = nn_tensor_new(nn, NN_SHAPE(4, 6), v), *y, *g = nn_tensor_new(nn, NN_SHAPE(3, 6), v);
        y = nn_matmul(a, b);
        if (which >= 3) {                                /* no memory: the device is well, and its next error is told as it is */
            nn_tensor_new(nn, NN_SHAPE((int64_t)1 << 40), NULL);
            CHECK(!nn_ok(nn));
            nn_clear(nn);
        }
        nn_device_fail(which == 2 ? COPIES : LAUNCHES, 1);
        if (which == 0 || which == 4) nn_softmax(x, 1);
        if (which == 1) nn_backward_with(y, &(nn_backward_desc){ .grad = g });
        if (which == 2) nn_read(x, v);
        CHECK(nn_ok(nn) == (which == 3));
        for (int i = 0; i < 3; i++) CHECK_TEXT(which == 3 ? nn_cuda_why() : nn_error(nn), parts[which].text[i]);
        nn_free(nn);
        nn_device_fail(-1, 0);
        CHECK(nothing_is_left());
    }
}
TEST(waiting_after_every_launch)                         /* NN_CUDA_SYNC=1: the same bits, and the guilty launch is the one that is named */
{
    float losses[2][3];
    NEEDS_DEVICE;
    for (int sync = 0; sync < 2; sync++) {
        if (sync) setenv("NN_CUDA_SYNC", "1", 1);
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = nn_cuda(0) });
        unsetenv("NN_CUDA_SYNC");
        if (nn_device_trace) nn_device_trace(1);
        CHECK(train(nn, MLP, EAGER, 0, 3, losses[sync]));
        if (nn_device_trace) {
            const char *t = nn_device_trace(0);
            long alone = 0, kernels = 0;
            for (; t[0]; t += 2) if (t[1] == 'K') { kernels++; alone += t[2] && t[3] == 'Y'; }
            CHECK(kernels > 0 && (sync ? alone == kernels : alone < kernels));
        }
        nn_free(nn);
    }
    CHECK(memcmp(losses[0], losses[1], sizeof losses[0]) == 0);
}

/* ---- memory, faults, no device ---- */
TEST(steady_state_takes_no_memory)
{
    NEEDS_SIMULATOR;
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .backend = nn_cuda(0) });
    program p;
    nn_tensor *x, *y;
    long before = 0;
    program_build(&p, nn, GPT);
    program_batch(GPT, nn, &x, &y);
    nn_optimizer *opt = nn_adamw_new(p.net, NULL);
    nn_device_fail(-1, 0);
    for (int i = 0; i < 6; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_cross_entropy(nn_forward(p.net, x), y, NULL));
        nn_step(opt);
        if (i == 2) before = nn_device_count(ALLOCATIONS);
    }
    CHECK(nn_ok(nn) && nn_device_count(ALLOCATIONS) == before);
    nn_free(nn);
    CHECK(nothing_is_left());
}
TEST(planned_faults)                                     /* an error in the context, nothing left behind, and the program goes on */
{
    float losses[4];
    NEEDS_SIMULATOR;
    for (int kind = 0; kind < FAULTS; kind++) for (long n = 1, reached = 1; reached; n++) {
        CHECK(nothing_is_left());
        nn_device_fail(kind, n);
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .on_error = test_quiet, .backend = nn_cuda(0) });
        int ok = train(nn, MLP, EAGER, 0, 2, losses);
        reached = nn_device_count(kind) >= n;
        CHECK(ok == nn_ok(nn));
        if (reached && ok && kind != ALLOCATIONS) printf("fault %d of kind %d went unnoticed\n", (int)n, kind);
        CHECK(!reached || !ok || kind == ALLOCATIONS);   /* one that fails may be tried again at the size that is needed */
        CHECK(reached || ok);
        CHECK(ok || nn_error(nn)[0]);
        nn_free(nn);
        nn_device_fail(-1, 0);
        CHECK(nothing_is_left());
        if (!ok) {
            nn = nn_new(&(nn_desc){ .threads = 1, .seed = 3, .backend = n % 2 ? nn_cuda(0) : NULL });        /* on the device again, or on the CPU */
            CHECK(train(nn, MLP, EAGER, 0, 1, losses));
            nn_free(nn);
        }
    }
}
TEST(planned_faults_in_repeated_steps)                   /* those that are noticed are errors; the others change no bit */
{
    enum { BATCHES = EPOCHS * ((ROWS + 7) / 8) };
    float right[BATCHES + 1], losses[BATCHES + 1];
    NEEDS_SIMULATOR;
    CHECK(fit(nn_cuda(0), right));
    for (int kind = 0; kind < FAULTS; kind++) for (long n = 1, reached = 1; reached; n += n / 4 + 1) {
        nn_device_fail(kind, n);
        int ok = fit(nn_cuda(0), losses);
        reached = nn_device_count(kind) >= n;
        nn_device_fail(-1, 0);
        CHECK(reached || ok);
        CHECK(!ok || memcmp(losses, right, BATCHES * sizeof *right) == 0);
        CHECK(nothing_is_left());
    }
    CHECK(fit(nn_cuda(0), losses) && memcmp(losses, right, BATCHES * sizeof *right) == 0);
}
TEST(no_device)                                          /* a reason, a context that says so, and a CPU that works */
{
    float losses[2];
    if (nn_cuda_available()) SKIP("there is a device");
    CHECK_TEXT(nn_cuda_why(), "no CUDA device");
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .backend = nn_cuda(0) });
    CHECK(!nn_ok(nn));
    CHECK_TEXT(nn_error(nn), "no CUDA device");
    nn_free(nn);
    nn = nn_new(&(nn_desc){ .threads = 1, .backend = nn_cuda_available() ? nn_cuda(0) : NULL });
    CHECK(train(nn, MLP, EAGER, 0, 2, losses));
    nn_free(nn);
}
TEST(wrong_device_number)
{
    NEEDS_DEVICE;
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .backend = nn_cuda(99) });
    CHECK(!nn_ok(nn) && nn_error(nn)[0]);
    nn_free(nn);
}
TEST(no_call_falls_back)                                 /* of all that ran before */
{
    NEEDS_DEVICE;
    for (int op = 1; op < NN_OP_COUNT; op++) for (int back = 0; back < 2; back++)
        if (fell_back[op][back]) { printf("%s %s: %lld of %lld calls ran on the CPU\n", nn__ops[op].name, back ? "backward" : "forward", (long long)fell_back[op][back], (long long)(fell_back[op][back] + ran[op][back])); CHECK(!fell_back[op][back]); }
}
/* Ops of nn.h, and gradients, that no call asked of the device; ran[op][1]: backward. */
static int holes(int64_t (*ran)[2], int quiet)
{
    int n = 0;
    for (int op = 1; op < NN_OP_COUNT; op++) for (int back = 0; back < 2; back++) {
        const nn_op *o = &nn__ops[op];
        if (back ? o->flags & NN_OP_NO_GRAD : (o->flags & NN_OP_VIEW) || op == NN_OP_linear_update) continue;     /* linear_update: nn.h asks for its gradient, then adam_update ... */
        if (ran[op][back]) continue;
        if (!quiet) printf("%s %s never ran on the device\n", o->name, back ? "backward" : "forward");
        n++;
    }
    return n;
}
TEST(every_op_ran)                                       /* no hole in the table: each op, and its gradient, was asked of the device by a test before */
{
    int planted = 0;
    NEEDS_DEVICE;
    if (!all_cases || !ran[NN_OP_lion_update][0]) SKIP("the other tests were left out");
    CHECK(holes(ran, 0) == 0);
    for (int op = 1; op < NN_OP_COUNT; op++) for (int back = 0; back < 2; back++) {      /* and one would be seen */
        int64_t calls = ran[op][back];
        ran[op][back] = 0;
        planted += holes(ran, 1);
        ran[op][back] = calls;
    }
    printf("%d ops and gradients\n", planted);
    CHECK(planted > NN_OP_COUNT);
}
