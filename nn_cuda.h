/* nn_cuda.h - nn.h on NVIDIA GPUs - public domain or MIT-0 (see the end of nn.h)

   Make one file, nn_cuda.cu, of two lines, and compile it with nvcc:

       #define NN_CUDA_IMPLEMENTATION
       #include "nn_cuda.h"

       nvcc -O3 -arch=native -c nn_cuda.cu
       cc -O2 program.c nn_cuda.o -lcudart_static -ldl -lrt -lpthread -lm

   The program stays C. It includes nn_cuda.h (declarations only) beside nn.h and asks for a device:

       nn_context *nn = nn_new(&(nn_desc){ .backend = nn_cuda_available() ? nn_cuda(0) : NULL });

   Nothing else changes: parameters, batches, gradients and the optimizer's states live on the device; only reading a number waits for it.
   All contexts on one device belong to one thread.

   Checked by simulation (tests/cuda: the same kernels on the CPU, and nvcc's PTX executed instruction by instruction), never run on a GPU.

   Map (search for the tag):
       >>api        what a program calls                            >>products   matmul, linear, quantised linear
       >>device     errors, memory, copies, streams, graphs         >>conv       convolutions, pooling, upsampling
       >>words      launch, shared memory, warps, tensor cores      >>norm       softmax, batch, layer, group and RMS norm
       >>maps       elementwise ops, copies, dropout, random        >>loss       losses
       >>reduce     sums and their kin, argmax, cumsum              >>embedding  rows of a table
       >>shape      concat, gather, sort, pad ...                   >>attention  attention, rotary positions
       >>optim      parameter updates                               >>rnn        RNN, LSTM, GRU, CTC
       >>run        from a call to its kernels
*/
#ifndef NN_CUDA_H
#define NN_CUDA_H
#include "nn.h"

// =============================================================================================
// >>api   What a program calls.
// =============================================================================================
#ifdef __cplusplus
extern "C" {
#endif
// How products, convolutions and attention multiply. Sums, states and parameters are 32-bit floats always.
typedef enum nn_cuda_precision {
    NN_CUDA_FP32,                    // fused multiply-adds of 32-bit floats
    NN_CUDA_TF32,                    // tensor cores, factors rounded to 10 bits
    NN_CUDA_BF16,                    // tensor cores, factors rounded to 7 bits
    NN_CUDA_FP16                     // tensor cores, factors rounded to 10 bits, range 6e-8 to 65504: train with nn_desc.loss_scale
} nn_cuda_precision;
typedef struct nn_cuda_desc {
    nn_cuda_precision precision;     // default NN_CUDA_FP32
    int own_products;                // 1: large matrix products are ours too; default: cuBLASLt's, if it is installed
    int eager;                       // 1: every call runs at once; default: calls of NN_EVAL that come again (a token, a batch) wait and run as one graph
} nn_cuda_desc;
const nn_backend *nn_cuda(int device);                                       // for nn_desc.backend; never NULL: without that device nn_new fails
const nn_backend *nn_cuda_with(int device, const nn_cuda_desc *desc);
const nn_backend *nn_cuda_default(void);                                     // nn_cuda(0) where there is a device, else NULL: the CPU, and a line on stderr
int         nn_cuda_available(void);                                         // number of usable devices; 0: no driver or no GPU
const char *nn_cuda_why(void);                                               // the last failure outside of a call, or why there is no device; "" if none
void        nn_cuda_report(const nn_backend *backend);                       // memory, launches, calls by op, those that ran on the CPU, to stdout;
                                                                             // with NN_CUDA_TIME=1 in the environment also the time that each op took
#ifdef __cplusplus
}
#endif
#endif // NN_CUDA_H

#ifdef NN_CUDA_IMPLEMENTATION
#ifndef NN_CUDA_IMPLEMENTED
#define NN_CUDA_IMPLEMENTED
#ifdef NN_IMPLEMENTATION
#error "nn_cuda.h: create nn.h's implementation in a C file of its own"
#endif
#ifdef NN_CUDA_EMU                   // tests: the kernels as C++ on the CPU
#  ifndef CUSHIM_H
#    error "nn_cuda.h: with NN_CUDA_EMU, include tests/cuda/cushim.h first (-include)"
#  endif
#else
#  define NN__SCRATCH_GAP 0          // tests: bytes between pieces of scratch memory, and who watches them
#  define NN__SCRATCH_IS(p, bytes, block) ((void)0)
#  include <cuda_runtime.h>
#  ifndef _WIN32
#    include <dlfcn.h>
#  endif
#endif
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// =============================================================================================
// >>device   A device: its streams, its memory, its first error. All calls are in the order of one stream, so memory that one call gives back
// can serve the next at once; batches travel on a second. A state is opened by the first context and closed by the last, which leaves nothing behind.
// =============================================================================================
enum { NN__CUDA_DEVICES = 16, NN__CUDA_PRECISIONS = 4, NN__CUDA_BLOCKS = 64, NN__CUDA_SCRATCHES = 16, NN__CUDA_STAGES = 2, NN__CUDA_LANDINGS = 8 };
#define NN__CUDA_STAGE_BYTES ((size_t)1 << 20)           // of pinned memory, twice
typedef struct nn__cuda_block { void *at; size_t bytes; int used; } nn__cuda_block;
typedef struct nn__landing { void *to; char *at; size_t bytes, room; int due; cudaEvent_t sent, taken; } nn__landing;  // where what was sent to `to` waits
typedef struct nn__fault { int op; int64_t index, size; } nn__fault;         // the first bad index that a kernel met; op 0: none
// Parameter updates that wait for each other (>>optim).
enum { NN__BATCH = 48 };
typedef struct nn__rates { double base, beta1, beta2, speed; float lr, weight_decay, shrink, decay1, rest1, decay2, rest2, eps, correct, lr_grad, clip_value;
                         int decays, clips, momentum, nesterov, first, centered, amsgrad, far1, op; } nn__rates;
typedef struct nn__part { float *p; const float *g; float *s[3], *count; int64_t n; unsigned block; int fours; } nn__part;
typedef struct nn__parts { int count; nn__part part[NN__BATCH]; } nn__parts;
// A step as a CUDA graph: what changes from step to step, the random stream and the rates of each batch of updates, is read from the device.
enum { NN__NOW_BATCHES = 64, NN__NOW_UPDATES = 4096 };
typedef struct nn__now { uint64_t seed, step; nn__rates rates[NN__NOW_BATCHES]; } nn__now;
typedef struct nn__list {
    cudaGraphExec_t exec;
    cudaGraph_t  graph;              // whose nodes name the kernels of `exec`
    cudaEvent_t  sent;               // `host` was read
    nn__now     *now, *host;         // on the device; pinned
    const void  *scratch;            // where the graph's scratch was
    nn_context  *fault_nn;
    int          updates, batches; short batch_of[NN__NOW_UPDATES];
} nn__list;
// What is computed between two times that the host writes or looks (>>run).
enum { NN__CHAIN_LEAST = 8, NN__CHAIN_MOST = 4096, NN__CHAINS = 4, NN__CHAIN_PATIENCE = 8, NN__LINK_NODES = 6 };
// A call; its kernels in the graph, more than NN__LINK_NODES: it has others; of them, those with new arguments.
typedef struct nn__link { nn_call c; double params[NN_MAX_PARAMS / sizeof(double)]; int nodes, next; cudaGraphNode_t node[NN__LINK_NODES]; } nn__link;
typedef struct nn__chain { nn__link *link; nn__list *list; int count, room; } nn__chain;
typedef struct nn__batch { const nn_op *op; nn_context *nn; const float *scale; unsigned blocks; nn__rates rates; nn__parts parts; } nn__batch;
typedef struct nn__cuda {
    nn_backend     backend;
    char           name[24], error[512];
    int            device, precision, users, failed;     // failed: this call; dead: the device's context is lost
    int            dead, arch, multiprocessors, sync;    // arch: 80 for sm_80. sync: NN_CUDA_SYNC=1, wait after every launch to find the guilty one
    int            own_products;
    size_t         shared_most;                          // bytes of shared memory that a block may have, if asked for
    cudaStream_t   stream, copying;                      // of calls; of what is sent beside them
    nn__landing    landing[NN__CUDA_LANDINGS];
    const nn_call *call; nn_context *nn;                 // what runs now, for messages; whose call was the last
    nn__cuda_block block[NN__CUDA_BLOCKS];               // memory that nn.h has or had
    int            blocks;
    nn__cuda_block scratch[NN__CUDA_SCRATCHES];          // the last is in use; those before it were too small and die after the call
    int            scratches;
    size_t         scratch_used, scratch_wanted;         // of the last; by this call
    char          *stage[NN__CUDA_STAGES];               // pinned
    cudaEvent_t    stage_free[NN__CUDA_STAGES];
    int            stage_next;
    nn__fault     *fault, *seen;                         // on the device; pinned, where it is read
    nn_context    *fault_nn;                             // whose call may have met one since the last look; NULL: none did
    nn__batch      batch;
    nn__list      *making;                               // the list that calls are written into; NULL: they run
    int            broken;                               // it cannot be finished
    nn__chain      chain[NN__CHAINS], now, *guess;       // earlier ones; the calls since the host last did something; the earlier one that began like it
    nn__link      *link;                                 // its kernels are captured or, in this graph, get new arguments
    cudaGraphExec_t patched;
    int            waits, next_chain, patience, eager;   // waits: the calls of `now` have not run. patience: with graphs that do not fit
    int64_t        launches, bytes, peak, uploads, downloads;
    int64_t        calls[NN_OP_COUNT][2], refused[NN_OP_COUNT][2], repeats;
    cudaEvent_t    clock[2];                             // NULL: time is not taken
    double         ms[NN_OP_COUNT][2];
} nn__cuda;
static nn__cuda nn__cuda_states[NN__CUDA_DEVICES][NN__CUDA_PRECISIONS];
static char nn__cuda_reason[512];

#define NN__CUDA_NAME(name, keep, f, df)                                       #name,
#define NN__CUDA_NAME2(name, keep, f, da, db)                                  #name,
#define NN__CUDA_NAMES_(name, kind, in, out, flags, keep, shape, plan, params) #name,
static const char *nn__cuda_op_name(int id)
{
    static const char *const name[NN_OP_COUNT] = { "your op", NN_UNARY_OPS(NN__CUDA_NAME) NN_UNARY1_OPS(NN__CUDA_NAME) NN_UNARY2_OPS(NN__CUDA_NAME) NN_BINARY_OPS(NN__CUDA_NAME2)
                                                   "where", NN_STRUCTURED_OPS(NN__CUDA_NAMES_) };
    return name[id];
}
static void nn__cuda_describe(const nn_call *c, char *text, size_t room)     // "matmul backward (3, 4) (4, 5)"
{
    int i, k, n = snprintf(text, room, "%s %s", c->op->name, c->pass == NN_FORWARD ? "forward" : "backward");
    for (i = 0; i < c->nin && n > 0 && (size_t)n + 24 < room; i++) {
        n += snprintf(text + n, room - (size_t)n, " (");
        for (k = 0; k < c->in[i].ndim && (size_t)n + 24 < room; k++) n += snprintf(text + n, room - (size_t)n, k ? ", %lld" : "%lld", (long long)c->in[i].shape[k]);
        n += snprintf(text + n, room - (size_t)n, ")");
    }
}
static int nn__cuda_check(nn__cuda *d, cudaError_t e, const char *what, int line)        // 1 if fine
{
    char call[256] = "";
    if (e == cudaSuccess) return 1;
    (void)cudaGetLastError();
    if (d->call) nn__cuda_describe(d->call, call, sizeof call);
    d->failed = 1;
    if (d->making) { d->broken = 1; return 0; }          // the same calls will run one by one, and fail again if they must
    if (!d->dead) snprintf(d->error, sizeof d->error, "%s: %s%s%s: %s (nn_cuda.h:%d)", d->name, call, call[0] ? ": " : "", what, cudaGetErrorString(e), line);
    snprintf(nn__cuda_reason, sizeof nn__cuda_reason, "%s", d->error);
    if (e != cudaErrorMemoryAllocation && e != cudaErrorInvalidConfiguration && e != cudaErrorInvalidValue) d->dead = 1;
    if (d->call || (d->dead && d->nn)) nn_fail(d->call ? d->call->nn : d->nn, "%s", d->error);
    return 0;
}
#define NN__CU(d, call) nn__cuda_check(d, call, #call, __LINE__)

static void nn__cuda_flush_now(nn__cuda *d);             // >>optim
static void nn__chain_end(nn__cuda *d);                  // >>run
static void nn__cuda_forget(void *self, void *list);
static int nn__cuda_ready(nn__cuda *d)                   // what waited comes first; 0: the device is lost
{
    cudaSetDevice(d->device);
    if (d->making) d->broken = 1;                        // nothing passes between host and device in a list
    else if (!d->dead) {
        if (d->now.count) nn__chain_end(d);
        if (d->batch.parts.count) nn__cuda_flush_now(d);
    }
    return !d->dead && !d->making;
}

// ---- memory: blocks that nn.h returned are kept for the next request ---------------------------------------------
static void nn__cuda_drop_blocks(nn__cuda *d)            // those that nobody uses go back to the driver
{
    int i, kept = 0;
    for (i = 0; i < d->blocks; i++) {
        if (d->block[i].used) { d->block[kept++] = d->block[i]; continue; }
        cudaFree(d->block[i].at);
        d->bytes -= (int64_t)d->block[i].bytes;
    }
    d->blocks = kept;
}
static void *nn__cuda_take(nn__cuda *d, size_t bytes)    // from the driver; NULL: there is no more
{
    void *p = NULL;
    cudaError_t e;
    if (d->making) { d->broken = d->failed = 1; return NULL; }
    e = cudaMalloc(&p, bytes);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        cudaStreamSynchronize(d->stream);
        nn__cuda_drop_blocks(d);
        e = cudaMalloc(&p, bytes);
    }
    if (!nn__cuda_check(d, e, "cudaMalloc", __LINE__)) return NULL;
    d->bytes += (int64_t)bytes;
    if (d->bytes > d->peak) d->peak = d->bytes;
    return p;
}
static void *nn__cuda_alloc(void *self, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    int i, best = -1;
    if (d->dead) return NULL;
    cudaSetDevice(d->device);
    for (i = 0; i < d->blocks; i++)
        if (!d->block[i].used && d->block[i].bytes >= bytes && d->block[i].bytes / 2 <= bytes && (best < 0 || d->block[i].bytes < d->block[best].bytes)) best = i;
    if (best < 0) {
        if (d->blocks == NN__CUDA_BLOCKS) nn__cuda_drop_blocks(d);
        if (d->blocks == NN__CUDA_BLOCKS) return NULL;
        d->block[d->blocks].at = nn__cuda_take(d, bytes);
        if (!d->block[d->blocks].at) return NULL;
        d->block[d->blocks].bytes = bytes;
        best = d->blocks++;
    }
    d->block[best].used = 1;
    return d->block[best].at;
}
static void nn__cuda_free(void *self, void *memory, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    if (d->batch.parts.count || d->now.count) nn__cuda_ready(d);
    for (int i = 0; i < NN__CUDA_LANDINGS; i++) if ((char *)d->landing[i].to >= (char *)memory && (char *)d->landing[i].to < (char *)memory + bytes) d->landing[i].to = NULL;
    for (int i = 0; memory && i < d->blocks; i++) if (d->block[i].at == memory) d->block[i].used = 0;
}

// Memory of this call alone, 256-byte aligned. NULL after an error: the handler then returns 1. What a call needs more than before is added
// as a block of its own; the next call finds one block for all.
static void *nn__cuda_scratch(nn__cuda *d, size_t bytes)
{
    nn__cuda_block *b = d->scratches ? &d->scratch[d->scratches - 1] : NULL;
    size_t room = (bytes + NN__SCRATCH_GAP + 255) & ~(size_t)255;
    void *p;
    if (!room) room = 256;
    d->scratch_wanted += room;
    if (!b || d->scratch_used + room > b->bytes) {
        size_t most = d->scratch_wanted < (size_t)1 << 20 ? (size_t)1 << 20 : d->scratch_wanted;
        if (d->scratches == NN__CUDA_SCRATCHES) { nn__cuda_check(d, cudaErrorMemoryAllocation, "too many pieces of scratch", __LINE__); return NULL; }
        b = &d->scratch[d->scratches];
        b->at = nn__cuda_take(d, most);
        if (!b->at) return NULL;
        b->bytes = most;
        d->scratches++;
        d->scratch_used = 0;
    }
    p = (char *)b->at + d->scratch_used;
    d->scratch_used += room;
    NN__SCRATCH_IS(p, bytes, b);
    return p;
}
static void nn__cuda_keep_scratch(nn__cuda *d, int kept) // the last `kept` blocks
{
    int i, drop = d->scratches - kept;
    if (drop <= 0 || d->making) return;
    cudaStreamSynchronize(d->stream);
    for (i = 0; i < drop; i++) { cudaFree(d->scratch[i].at); d->bytes -= (int64_t)d->scratch[i].bytes; }
    for (i = 0; i < kept; i++) d->scratch[i] = d->scratch[drop + i];
    d->scratches = kept;
}

// ---- copies ----------------------------------------------------------------------------------------------------------
// Through pinned memory, so that `from` is free at once and the copy runs beside the kernels.
static int nn__cuda_upload_on(nn__cuda *d, cudaStream_t stream, void *to, const void *from, size_t bytes)
{
    size_t at, n;
    d->uploads += (int64_t)bytes;
    for (at = 0; at < bytes; at += n) {
        int s = d->stage_next;
        n = bytes - at < NN__CUDA_STAGE_BYTES ? bytes - at : NN__CUDA_STAGE_BYTES;
        if (!NN__CU(d, cudaEventSynchronize(d->stage_free[s]))) return 0;
        memcpy(d->stage[s], (const char *)from + at, n);
        if (!NN__CU(d, cudaMemcpyAsync((char *)to + at, d->stage[s], n, cudaMemcpyHostToDevice, stream)) || !NN__CU(d, cudaEventRecord(d->stage_free[s], stream))) return 0;
        d->stage_next = (s + 1) % NN__CUDA_STAGES;
    }
    return 1;
}
static int nn__cuda_upload(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    return nn__cuda_ready(d) && nn__cuda_upload_on(d, d->stream, to, from, bytes);
}
// On the second stream into memory of its own, as soon as what was sent to the same place before has been taken from there; `arrive` copies it on
// in the order of calls. So a batch stays where it is, and a graph that reads it stays good.
static int nn__cuda_send(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__landing *p = d->landing, *end = p + NN__CUDA_LANDINGS;
    if (!bytes || d->dead || d->making) return 0;
    cudaSetDevice(d->device);
    while (p < end && p->to != to) p++;
    if (p == end) for (p = d->landing; p < end && p->to; p++) { }
    if (p == end) return 0;
    if (!p->sent && !NN__CU(d, cudaEventCreateWithFlags(&p->sent, cudaEventDisableTiming))) return 0;
    if (!p->taken && !NN__CU(d, cudaEventCreateWithFlags(&p->taken, cudaEventDisableTiming))) return 0;
    if (p->room < bytes) {
        if (p->at) { cudaFree(p->at); d->bytes -= (int64_t)p->room; }
        p->at = (char *)nn__cuda_take(d, bytes);
        p->room = p->at ? bytes : 0;
        if (!p->at) return 0;
    }
    p->to = to;
    p->bytes = bytes;
    return p->due = NN__CU(d, cudaStreamWaitEvent(d->copying, p->taken, 0)) && nn__cuda_upload_on(d, d->copying, p->at, from, bytes) && NN__CU(d, cudaEventRecord(p->sent, d->copying));
}
static int nn__cuda_arrive(void *self, void *to)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__landing *p = d->landing, *end = p + NN__CUDA_LANDINGS;
    while (p < end && (p->to != to || !p->due)) p++;
    if (p == end || !nn__cuda_ready(d)) return 0;
    p->due = 0;
    return NN__CU(d, cudaStreamWaitEvent(d->stream, p->sent, 0)) && NN__CU(d, cudaMemcpyAsync(to, p->at, p->bytes, cudaMemcpyDeviceToDevice, d->stream)) &&
           NN__CU(d, cudaEventRecord(p->taken, d->stream));
}
// What a kernel that reads indices gets. Waiting for the device looks whether one was bad.
static nn__fault *nn__cuda_may_fault(nn__cuda *d, const nn_call *c)
{
    if (d->making) d->making->fault_nn = c->nn;
    else d->fault_nn = c->nn;
    return d->fault;
}
static int nn__cuda_wait(nn__cuda *d)
{
    nn_context *nn = d->fault_nn;
    if (nn && !NN__CU(d, cudaMemcpyAsync(d->seen, d->fault, sizeof *d->seen, cudaMemcpyDeviceToHost, d->stream))) return 0;
    if (!NN__CU(d, cudaStreamSynchronize(d->stream))) return 0;
    d->fault_nn = NULL;
    if (!nn || !d->seen->op) return 1;
    nn_fail(nn, "%s: index %lld is out of range: there are %lld", nn__cuda_op_name(d->seen->op), (long long)d->seen->index, (long long)d->seen->size);
    NN__CU(d, cudaMemsetAsync(d->fault, 0, sizeof *d->fault, d->stream));
    return 1;
}
static int nn__cuda_download(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    if (!nn__cuda_ready(d)) return 0;
    d->downloads += (int64_t)bytes;
    return (!bytes || NN__CU(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream))) && nn__cuda_wait(d);
}
static int nn__cuda_copy(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    if (!nn__cuda_ready(d)) return 0;
    return !bytes || NN__CU(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->stream));
}
static void nn__copy_flat(nn__cuda *d, void *to, const void *from, size_t bytes)         // of handlers, and:
{
    if (d->patched) d->broken = 1;                     // only kernels get new arguments
    else if (bytes && to != from && !d->failed) NN__CU(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->stream));
}
static void nn__fill_zero(nn__cuda *d, void *to, size_t bytes)
{
    if (d->patched) d->broken = 1;
    else if (bytes && !d->failed) NN__CU(d, cudaMemsetAsync(to, 0, bytes, d->stream));
}
static int nn__cuda_sync(void *self)
{
    nn__cuda *d = (nn__cuda *)self;
    return nn__cuda_ready(d) && nn__cuda_wait(d);
}

// ---- opening and closing -------------------------------------------------------------------------------------------------
extern "C" int nn_cuda_available(void)
{
    int n = 0, driver = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return n;
    (void)cudaGetLastError();
    snprintf(nn__cuda_reason, sizeof nn__cuda_reason, "no CUDA device: %s", e == cudaSuccess ? "the driver knows none" :
             e == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && !driver ? "no NVIDIA driver" : cudaGetErrorString(e));
    return 0;
}
extern "C" const char *nn_cuda_why(void) { return nn__cuda_reason; }

static void nn__cuda_close_all(nn__cuda *d)
{
    int i;
    d->batch.parts.count = 0;
    d->batch.blocks = 0;
    for (i = 0; i < NN__CHAINS; i++) { nn__cuda_forget(d, d->chain[i].list); free(d->chain[i].link); }
    free(d->now.link);
    memset(d->chain, 0, sizeof d->chain);
    memset(&d->now, 0, sizeof d->now);
    d->waits = 0;
    if (d->stream) cudaStreamSynchronize(d->stream);
    for (i = 0; i < NN__CUDA_LANDINGS; i++) {
        nn__landing *p = &d->landing[i];
        if (p->at) { cudaFree(p->at); d->bytes -= (int64_t)p->room; }
        if (p->sent) cudaEventDestroy(p->sent);
        if (p->taken) cudaEventDestroy(p->taken);
    }
    memset(d->landing, 0, sizeof d->landing);
    nn__cuda_keep_scratch(d, 0);
    for (i = 0; i < d->blocks; i++) d->block[i].used = 0;
    nn__cuda_drop_blocks(d);
    for (i = 0; i < NN__CUDA_STAGES; i++) {
        if (d->stage[i]) cudaFreeHost(d->stage[i]);
        if (d->stage_free[i]) cudaEventDestroy(d->stage_free[i]);
        d->stage[i] = NULL;
        d->stage_free[i] = NULL;
    }
    for (i = 0; i < 2; i++) if (d->clock[i]) { cudaEventDestroy(d->clock[i]); d->clock[i] = NULL; }
    if (d->fault) cudaFree(d->fault);
    if (d->seen) cudaFreeHost(d->seen);
    d->fault = d->seen = NULL;
    d->fault_nn = NULL;
    if (d->stream) cudaStreamDestroy(d->stream);
    if (d->copying) cudaStreamDestroy(d->copying);
    d->stream = d->copying = NULL;
    (void)cudaGetLastError();
}
static int nn__cuda_start(nn__cuda *d)
{
    cudaDeviceProp p;
    const char *sync = getenv("NN_CUDA_SYNC"), *clock = getenv("NN_CUDA_TIME");
    int i;
    if (!NN__CU(d, cudaSetDevice(d->device)) || !NN__CU(d, cudaGetDeviceProperties(&p, d->device))) return 0;
    d->arch = 10 * p.major + p.minor;
    d->multiprocessors = p.multiProcessorCount;
    d->shared_most = p.sharedMemPerBlockOptin;
    d->sync = sync && sync[0] == '1';
    for (i = 0; i < 2 && clock && clock[0] == '1'; i++) if (!NN__CU(d, cudaEventCreateWithFlags(&d->clock[i], cudaEventDefault))) return 0;
    if (!NN__CU(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking)) || !NN__CU(d, cudaStreamCreateWithFlags(&d->copying, cudaStreamNonBlocking))) return 0;
    if (!NN__CU(d, cudaMalloc((void **)&d->fault, sizeof *d->fault)) || !NN__CU(d, cudaMallocHost((void **)&d->seen, sizeof *d->seen)) ||
        !NN__CU(d, cudaMemsetAsync(d->fault, 0, sizeof *d->fault, d->stream))) return 0;
    for (i = 0; i < NN__CUDA_STAGES; i++)
        if (!NN__CU(d, cudaMallocHost((void **)&d->stage[i], NN__CUDA_STAGE_BYTES)) || !NN__CU(d, cudaEventCreateWithFlags(&d->stage_free[i], cudaEventDisableTiming))) return 0;
    return 1;
}
static int nn__cuda_open(void *self, nn_context *nn)
{
    nn__cuda *d = (nn__cuda *)self;
    if (d->users) { d->users++; return 1; }
    d->dead = d->failed = 0;
    d->patience = NN__CHAIN_PATIENCE;
    d->error[0] = 0;
    if (nn_cuda_available() <= d->device) {
        nn_fail(nn, "%s: %s", d->name, nn__cuda_reason[0] ? nn__cuda_reason : "there is no such device");
        return 0;
    }
    if (!nn__cuda_start(d)) {
        nn_fail(nn, "%s", d->error);
        nn__cuda_close_all(d);
        return 0;
    }
    d->users = 1;
    return 1;
}
static void nn__cuda_close(void *self, nn_context *nn)
{
    nn__cuda *d = (nn__cuda *)self;
    if (d->nn == nn) d->nn = NULL;
    if (d->users && --d->users == 0) nn__cuda_close_all(d);
}

// =============================================================================================
// >>words   What kernels are written in. nvcc and the tests' host compiler both understand these.
//
//   NN__LAUNCH(d, kernel, grid, block, shared bytes, arguments...)      NN_SHARED(float, tile, [16][17])   NN_SHARED_DYN(float, buffer)
//   NN__BLOCKS(n, per)  blocks for n items     nn__warp_sum nn__warp_max nn__block_sum     NN__MMA_*  one tensor core product of a warp
// =============================================================================================
#define NN__FULL 0xffffffffu
#ifdef NN_CUDA_EMU
#define NN_UNROLL
#else
#define NN_UNROLL _Pragma("unroll")
#endif
#define NN__DEV  static __device__ __forceinline__
#ifndef NN_CUDA_EMU
#define NN_SHARED(T, name, dims)  __shared__ T name dims
#define NN_SHARED_DYN(T, name)    extern __shared__ __align__(16) unsigned char nn__shared_bytes[]; T *name = (T *)nn__shared_bytes
#define NN_KERNEL(k) ((void)0)
// mma.sync: d (16 x 8, f32) += a (16 x k) b (k x 8). Lane l, g = l / 4, t = l % 4; 16-bit numbers lie two to a register. d[0..1] is row g, columns
// 2t, 2t + 1, d[2..3] row g + 8. k = 16: a[0] is row g, columns 2t, 2t + 1, a[1] row g + 8, a[2] and a[3] the same 8 columns on; b[0] rows 2t,
// 2t + 1 of column g, b[1] 8 rows on. tf32, k = 8: a[0] is row g, column t, a[1] row g + 8, a[2] and a[3] 4 columns on; b[0] row t of column g, b[1] 4 rows on.
#define NN__MMA_4_2(shape, type, d, a, b) \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" \
                 : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3]) : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
#define NN__MMA_2_1(shape, type, d, a, b) \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};" \
                 : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3]) : "r"((a)[0]), "r"((a)[1]), "r"((b)[0]))
#define NN__MMA_F16_1688(d, a, b)   NN__MMA_2_1("m16n8k8", "f16", d, a, b)
#define NN__LDMATRIX_TRANS(r, row) do {               /* four 8 x 8 matrices of 16-bit numbers, turned; lane l gives row l */ \
    unsigned at_ = (unsigned)__cvta_generic_to_shared(row), *r_ = (unsigned *)(r); \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];" : "=r"(r_[0]), "=r"(r_[1]), "=r"(r_[2]), "=r"(r_[3]) : "r"(at_) : "memory"); } while (0)
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define NN__MMA_F16_16816(d, a, b)  NN__MMA_4_2("m16n8k16", "f16", d, a, b)
#define NN__MMA_BF16_16816(d, a, b) NN__MMA_4_2("m16n8k16", "bf16", d, a, b)
#define NN__MMA_TF32_1688(d, a, b)  NN__MMA_4_2("m16n8k8", "tf32", d, a, b)
#else                                // sm_75: f16 eight deep, no bf16, no tf32
#define NN__MMA_F16_16816(d, a, b)  do { unsigned b0_[1] = { (b)[0] }, b1_[1] = { (b)[1] }; NN__MMA_F16_1688(d, a, b0_); NN__MMA_F16_1688(d, (a) + 2, b1_); } while (0)
#define NN__MMA_BF16_16816(d, a, b) ((void)(d), (void)(a), (void)(b), __trap())
#define NN__MMA_TF32_1688(d, a, b)  NN__MMA_BF16_16816(d, a, b)
#endif
#endif
// A launch; or, while a graph gets new arguments, those of its next kernel. NN_KERNEL: the tests' compiler learns what nvcc registers.
template <class T> struct nn__just { typedef T type; };
template <class... P> static void nn__start(nn__cuda *d, void (*k)(P...), dim3 grid, dim3 block, size_t bytes, const typename nn__just<P>::type &... a)
{
    void *list[] = { (void *)&a... };
    if (!d->patched) { cudaLaunchKernel((const void *)k, grid, block, list, bytes, d->stream); return; }
    cudaKernelNodeParams p = { (void *)k, grid, block, (unsigned)bytes, list, NULL };
    if (d->link->next < d->link->nodes) cudaGraphExecKernelNodeSetParams(d->patched, d->link->node[d->link->next], &p);
}
#define NN__LAUNCH(d, k, grid, block, bytes, ...) \
    do { if (!(d)->failed) { NN_KERNEL(k); nn__start(d, k, grid, block, bytes, __VA_ARGS__); nn__cuda_launched(d, #k, __LINE__); } } while (0)
static unsigned nn__grid(int64_t n) { return n > 0x7fffffff ? 0xffffffffu : (unsigned)n; }       // too many blocks: the launch fails instead of running some
#define NN__BLOCKS(n, per) nn__grid((int64_t)(((n) + (per) - 1) / (per)))
// A kernel that wants more than 48 KB of dynamic shared memory says so before its launch; 0: this device has less.
#define NN__SHARED_ROOM(d, k, bytes) ((bytes) <= 49152 || ((bytes) <= (d)->shared_most && \
    NN__CU(d, cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))))

#if !defined(NN_CUDA_EMU) && CUDART_VERSION < 13000
#define cudaStreamGetCaptureInfo cudaStreamGetCaptureInfo_v3
#endif
static void nn__link_node(nn__cuda *d)                   // the kernel that was just captured
{
    cudaStreamCaptureStatus status;
    const cudaGraphNode_t *last = NULL;
    size_t count = 0;
    if (!NN__CU(d, cudaStreamGetCaptureInfo(d->stream, &status, NULL, NULL, &last, NULL, &count)) || count != 1 || d->link->nodes >= NN__LINK_NODES) d->link->nodes = NN__LINK_NODES + 1;
    else d->link->node[d->link->nodes++] = last[0];
}
static void nn__cuda_launched(nn__cuda *d, const char *kernel, int line)
{
    cudaError_t e = cudaGetLastError();
    if (!d->making) d->launches++;
    else if (d->patched) { if (d->link->next++ >= d->link->nodes) d->broken = 1; }
    else if (d->link && e == cudaSuccess) nn__link_node(d);
    if (e == cudaSuccess && d->sync && !d->making) e = cudaStreamSynchronize(d->stream);
    nn__cuda_check(d, e, kernel, line);
}

NN__DEV float nn__warp_sum(float v) { for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(NN__FULL, v, m); return v; }     // in every lane
NN__DEV float nn__warp_max(float v) { for (int m = 16; m; m >>= 1) v = fmaxf(v, __shfl_xor_sync(NN__FULL, v, m)); return v; }
NN__DEV float nn__block_sum(float v, float *warps)       // in every thread; of whole warps; warps: 32 floats of shared memory
{
    int lane = threadIdx.x & 31, w = (int)threadIdx.x >> 5, n = (int)blockDim.x >> 5;
    v = nn__warp_sum(v);
    if (lane == 0) warps[w] = v;
    __syncthreads();
    v = nn__warp_sum(lane < n ? warps[lane] : 0.0f);
    __syncthreads();                                     // the caller may use `warps` again
    return v;
}

// Where element i of up to six views of one shape is; the last dimension runs fastest. Broadcast dimensions have stride 0.
enum { NN__LAY_VIEWS = 6 };
typedef struct nn__lay { int64_t count; int ndim, small; int64_t size[NN_MAX_DIMS], stride[NN__LAY_VIEWS][NN_MAX_DIMS]; } nn__lay;     // small: count < 2^31
template <int K> NN__DEV void nn__offsets(const nn__lay &l, int64_t i, int64_t (&at)[K])
{
    for (int v = 0; v < K; v++) at[v] = 0;
    for (int k = l.ndim - 1; k >= 0; k--) {
        int64_t q = k == 0 ? 0 : l.small ? (int64_t)((unsigned)i / (unsigned)l.size[k]) : i / l.size[k], r = i - q * l.size[k];
        for (int v = 0; v < K; v++) at[v] += r * l.stride[v][k];
        i = q;
    }
}
// v as seen from a result of shape `like`: its strides are 0 where it is broadcast.
static nn_view nn__as_broadcast(const nn_view *v, const nn_view *like)
{
    nn_view r = *like;
    int i, lead = like->ndim - v->ndim;
    r.data = v->data;
    r.dtype = v->dtype;
    for (i = 0; i < like->ndim; i++) r.stride[i] = i < lead || (v->shape[i - lead] == 1 && like->shape[i] != 1) ? 0 : v->stride[i - lead];
    return r;
}
// Dimensions of size 1 go, neighbours that are one run in all views join.
static nn__lay nn__lay_of(int views, const nn_view *const *v)
{
    nn__lay l = {};
    int i, k, join;
    l.count = nn_view_count(v[0]);
    l.small = l.count < 0x7fffffff;
    for (i = 0; i < v[0]->ndim; i++) {
        if (v[0]->shape[i] == 1) continue;
        for (k = 0, join = l.ndim > 0; k < views && join; k++) join = l.stride[k][l.ndim - 1] == v[k]->stride[i] * v[0]->shape[i];
        if (join) l.size[l.ndim - 1] *= v[0]->shape[i];
        else l.size[l.ndim++] = v[0]->shape[i];
        for (k = 0; k < views; k++) l.stride[k][l.ndim - 1] = v[k]->stride[i];
    }
    return l;
}
// Can four neighbours be read and written at once? Every view has runs of whole, aligned groups of four 32-bit numbers, or repeats one number.
static int nn__lay_fours(const nn__lay *l, int views, const nn_view *const *v)
{
    int k, i, last = l->ndim - 1;
    if (last > 0 && l->size[last] % 4) return 0;
    for (k = 0; k < views; k++) {
        if (last < 0 || !v[k]->data) continue;
        if (l->stride[k][last] == 0) continue;
        if (l->stride[k][last] != 1 || ((uintptr_t)v[k]->data & 15)) return 0;
        for (i = 0; i < last; i++) if (l->stride[k][i] % 4) return 0;
    }
    return last >= 0;
}
static int nn__is_flat(const nn_view *v)                 // contiguous, as nn.h gives most things
{
    int64_t run = 1;
    for (int i = v->ndim - 1; i >= 0; i--) {
        if (v->shape[i] != 1 && v->stride[i] != run) return 0;
        run *= v->shape[i];
    }
    return 1;
}
static int nn__aligned(const void *a, const void *b, const void *c) { return (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) & 15) == 0; }

// =============================================================================================
// >>maps   Elementwise ops, stamped from nn.h's rows; copies, casts, fills; dropout and random numbers.
// A thread takes four neighbours where every operand allows it (nn__lay_fours), else one number. It reads all of its numbers before it
// writes, so a result may lie in the memory of an input.
// =============================================================================================
// The words of the rows are nn.h's own (>>words there), one lane wide: the same formulas, rounding apart, as on the CPU.
#define NN__INLINE    NN__DEV
#define NN__ONE_LANE  NN__DEV
#define NN__UNUSED
#define NN__CAT2(a, b) a##_##b
#define NN__CAT(a, b)  NN__CAT2(a, b)
#define NN__FN        static __device__ __forceinline__ void
#define NN__CUDA_ROW(name, keep, f, df) \
    struct nn__f_##name { enum { IN = 1, OUT = 1 }; NN__FN at(const float *in, float *out, float p, float q) { float x = in[0]; (void)p; (void)q; (void)x; out[0] = f; } }; \
    struct nn__d_##name { enum { IN = 3, OUT = 1 }; NN__FN at(const float *in, float *out, float p, float q) \
        { float x = in[0], y = in[1], dy = in[2]; (void)p; (void)q; (void)x; (void)y; (void)dy; out[0] = df; } };
#define NN__CUDA_ROW2(name, keep, f, da, db) \
    struct nn__f_##name { enum { IN = 2, OUT = 1 }; NN__FN at(const float *in, float *out, float p, float q) { float a = in[0], b = in[1]; (void)p; (void)q; out[0] = f; } }; \
    struct nn__d_##name { enum { IN = 4, OUT = 2 }; NN__FN at(const float *in, float *out, float p, float q) \
        { float a = in[0], b = in[1], y = in[2], dy = in[3]; (void)p; (void)q; (void)a; (void)b; (void)y; (void)dy; out[0] = da; out[1] = db; } };
// Functions for the sections below, which do without the short words.
#define NN__STAMP NN_UNARY_OPS(NN__CUDA_ROW) NN_UNARY1_OPS(NN__CUDA_ROW) NN_UNARY2_OPS(NN__CUDA_ROW) NN_BINARY_OPS(NN__CUDA_ROW2) \
    NN__DEV float nn__exp(float x) { return EXP(x); } NN__DEV float nn__log(float x) { return LOG(x); } NN__DEV float nn__pow(float x, float y) { return POW(x, y); } \
    NN__DEV float nn__sin(float x) { return SIN(x); } NN__DEV float nn__cos(float x) { return COS(x); } NN__DEV float nn__tanh(float x) { return TANH(x); } \
    NN__DEV float nn__sigmoid(float x) { return SIGMOID(x); } NN__DEV float nn__softplus(float x) { return SOFTPLUS(x); } NN__DEV float nn__log1p(float x) { return LOG1P(x); }
#define NN__VISIT    20
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    1
#define NN__PASS     gpu
#define NN__FMA(a, b, c) fmaf(a, b, c)
#ifdef __CUDACC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 177, 550    // rows do not read all of x, y, dy
#endif
#include NN_HEADER_FILENAME
#ifdef __CUDACC__
#pragma nv_diagnostic pop
#endif

typedef struct nn__operands { float *p[NN__LAY_VIEWS]; unsigned add; } nn__operands;
NN__DEV void nn__get4(float *v, const float *p, int64_t stride, int n)       // n of four numbers; the others become 0
{
    if (n == 4 && stride == 1) { float4 f = *(const float4 *)p; v[0] = f.x; v[1] = f.y; v[2] = f.z; v[3] = f.w; return; }
    for (int j = 0; j < 4; j++) v[j] = j < n ? p[j * stride] : 0.0f;
}
NN__DEV void nn__put4(float *p, const float *v, int64_t stride, int n)
{
    if (n == 4 && stride == 1) { *(float4 *)p = make_float4(v[0], v[1], v[2], v[3]); return; }
    for (int j = 0; j < 4; j++) if (j < n) p[j * stride] = v[j];
}
template <class F> static __global__ void __launch_bounds__(256) nn__k_map(nn__lay l, nn__operands o, float p, float q, int fours)
{
    enum { IN = F::IN, OUT = F::OUT };
    int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) * (fours ? 4 : 1), at[IN + OUT];
    float x[IN][4], y[OUT][4], in[IN], out[OUT];
    if (i >= l.count) return;
    int n = !fours ? 1 : l.count - i < 4 ? (int)(l.count - i) : 4, last = l.ndim ? l.ndim - 1 : 0;
    nn__offsets(l, i, at);
    NN_UNROLL for (int k = 0; k < IN; k++) {
        if (o.p[k]) nn__get4(x[k], o.p[k] + at[k], l.stride[k][last], n);
        else x[k][0] = x[k][1] = x[k][2] = x[k][3] = 0.0f;
    }
    NN_UNROLL for (int j = 0; j < 4; j++) {
        if (j >= n) break;
        NN_UNROLL for (int k = 0; k < IN; k++) in[k] = x[k][j];
        F::at(in, out, p, q);
        NN_UNROLL for (int k = 0; k < OUT; k++) y[k][j] = out[k];
    }
    NN_UNROLL for (int k = 0; k < OUT; k++) {
        float *to = o.p[IN + k] + at[IN + k], old[4];
        if (!o.p[IN + k]) continue;
        if (o.add >> k & 1) {
            nn__get4(old, to, l.stride[IN + k][last], n);
            NN_UNROLL for (int j = 0; j < 4; j++) if (j < n) y[k][j] = old[j] + y[k][j];
        }
        nn__put4(to, y[k], l.stride[IN + k][last], n);
    }
}
// v: inputs, then results, all of one shape; data NULL: not there, not wanted. add: bit k: result k is added to.
template <class F> static int nn__map(nn__cuda *d, const nn_view *const *v, unsigned add, float p, float q)
{
    const nn_view *w[NN__LAY_VIEWS];
    nn__operands o = {};
    nn__lay l;
    int k, there = 0, fours;
    o.add = add;
    for (k = 0; k < F::IN + F::OUT; k++) if (v[k]->data) there = k;
    for (k = 0; k < F::IN + F::OUT; k++) { w[k] = v[k]->data ? v[k] : v[there]; o.p[k] = (float *)v[k]->data; }
    if (there < F::IN || nn_view_count(v[there]) == 0) return 1;
    l = nn__lay_of(F::IN + F::OUT, w);
    fours = nn__lay_fours(&l, F::IN + F::OUT, w);
    NN__LAUNCH(d, nn__k_map<F>, dim3(NN__BLOCKS(l.count, fours ? 1024 : 256)), dim3(256), 0, l, o, p, q, fours);
    return 1;
}
template <class F> static int nn__cuda_unary(nn__cuda *d, const nn_call *c)      // forward: x, y; backward: x, y, dy, dx
{
    const nn__scalars *s = (const nn__scalars *)c->params;
    const nn_view *v[4] = { &c->in[0], &c->out[0], &c->dout[0], &c->din[0] };
    return nn__map<F>(d, v, F::IN == 1 ? 0 : c->add & 1, s->p, s->q);
}
static int nn__cuda_sum_to(nn__cuda *d, const nn_view *x, const nn_view *y, int add, float scale);     // >>reduce
static int nn__same_sizes_of(const nn_view *a, const nn_view *b) { return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape); }
// The gradient of input i of an elementwise op: where it is, or, of a broadcast input, at full size in scratch, to be summed at the end. 0: no memory.
static int nn__full_gradient(nn__cuda *d, const nn_call *c, int i, nn_view *g)
{
    *g = c->din[i];
    if (!g->data || nn__same_sizes_of(&c->din[i], &c->dout[0])) return 1;
    *g = c->dout[0];
    g->data = nn__cuda_scratch(d, (size_t)nn_view_count(g) * sizeof(float));
    return g->data != NULL;
}
static void nn__sum_gradient(nn__cuda *d, const nn_call *c, int i, const nn_view *g, float scale)
{
    nn_view to = nn__as_broadcast(&c->din[i], &c->dout[0]);
    if (c->din[i].data && !nn__same_sizes_of(&c->din[i], &c->dout[0])) nn__cuda_sum_to(d, g, &to, (int)(c->add >> i & 1), scale);
}
static unsigned nn__added_in_place(const nn_call *c)     // gradients that are added to where they are
{
    unsigned add = 0;
    for (int i = 0; i < c->nin; i++) if (nn__same_sizes_of(&c->din[i], &c->dout[0])) add |= (unsigned)c->add & 1u << i;
    return add;
}
template <class F> static int nn__cuda_binary(nn__cuda *d, const nn_call *c)
{
    nn_view b[3];
    const nn_view *v[4];
    int i;
    for (i = 0; i < c->nin; i++) { b[i] = nn__as_broadcast(&c->in[i], &c->out[0]); v[i] = &b[i]; }
    v[i] = &c->out[0];
    return nn__map<F>(d, v, 0, 0, 0);
}
// Operands of backward: the inputs, y, dy; then a gradient per input. That of a broadcast input is made at full size and summed; where it is
// dy itself, up to a sign, dy is summed.
template <class F> static int nn__cuda_binary_back(nn__cuda *d, const nn_call *c)
{
    nn_view b[2], g[2];
    const nn_view *v[6] = { &b[0], &b[1], &c->out[0], &c->dout[0], &g[0], &g[1] };
    int i, plain = c->op->id == NN_OP_add || c->op->id == NN_OP_sub;
    for (i = 0; i < 2; i++) {
        b[i] = nn__as_broadcast(&c->in[i], &c->out[0]);
        if (plain && !nn__same_sizes_of(&c->din[i], &c->dout[0])) { g[i] = c->dout[0]; g[i].data = NULL; }
        else if (!nn__full_gradient(d, c, i, &g[i])) return 1;
    }
    for (i = 0; i < 2 && plain; i++) nn__sum_gradient(d, c, i, &c->dout[0], c->op->id == NN_OP_sub && i == 1 ? -1.0f : 1.0f);      // first: the last gradient may be written over dy
    nn__map<F>(d, v, nn__added_in_place(c), 0, 0);
    for (i = 0; i < 2 && !plain; i++) nn__sum_gradient(d, c, i, &g[i], 1);
    return 1;
}
struct nn__f_where { enum { IN = 3, OUT = 1 }; NN__FN at(const float *in, float *out, float, float) { out[0] = in[0] != 0 ? in[1] : in[2]; } };
struct nn__d_where { enum { IN = 2, OUT = 3 }; NN__FN at(const float *in, float *out, float, float)      // condition, dy
    { out[0] = 0; out[1] = in[0] != 0 ? in[1] : 0; out[2] = in[0] != 0 ? 0 : in[1]; } };
static int nn__cuda_where_back(nn__cuda *d, const nn_call *c)
{
    nn_view cond = nn__as_broadcast(&c->in[0], &c->out[0]), g[3];
    const nn_view *v[5] = { &cond, &c->dout[0], &g[0], &g[1], &g[2] };
    for (int i = 0; i < 3; i++) if (!nn__full_gradient(d, c, i, &g[i])) return 1;
    nn__map<nn__d_where>(d, v, nn__added_in_place(c), 0, 0);
    for (int i = 0; i < 3; i++) nn__sum_gradient(d, c, i, &g[i], 1);
    return 1;
}

// ---- copies: numbers of 1, 2, 4 or 8 bytes, any strides ------------------------------------------------------------------
struct nn__f_same { enum { IN = 1, OUT = 1 }; NN__FN at(const float *in, float *out, float, float) { out[0] = in[0]; } };
template <class T> static __global__ void __launch_bounds__(256) nn__k_copy(nn__lay l, const T *x, T *y)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, at[2];
    if (i >= l.count) return;
    nn__offsets(l, i, at);
    y[at[1]] = x[at[0]];
}
// Turned: x's numbers lie side by side along dimension a, y's along b. A tile of 32 x 32 goes through shared memory.
typedef struct nn__turn { int64_t na, nb, ax, ay, bx, by, tiles; nn__lay rest; } nn__turn;       // sizes, strides in x and y; tiles of a matrix; the other dimensions
static __global__ void __launch_bounds__(256) nn__k_turn(nn__turn t, const float *x, float *y, int add)
{
    NN_SHARED(float, tile, [32][33]);
    const unsigned r = blockIdx.x / (unsigned)t.tiles, mine = blockIdx.x - r * (unsigned)t.tiles, across = (unsigned)((t.nb + 31) / 32);
    int64_t a0 = (int64_t)(mine / across) * 32, b0 = (int64_t)(mine % across) * 32, at[2];
    int tx = threadIdx.x & 31, ty = threadIdx.x >> 5;
    nn__offsets(t.rest, r, at);
    for (int k = ty; k < 32; k += 8) if (a0 + tx < t.na && b0 + k < t.nb) tile[k][tx] = x[at[0] + (a0 + tx) * t.ax + (b0 + k) * t.bx];
    __syncthreads();
    for (int k = ty; k < 32; k += 8) if (b0 + tx < t.nb && a0 + k < t.na) {
        float *to = y + at[1] + (a0 + k) * t.ay + (b0 + tx) * t.by;
        *to = add ? *to + tile[tx][k] : tile[tx][k];
    }
}
static int nn__turn_of(const nn__lay *l, nn__turn *t)    // 0: not a turned matrix, or too small to matter
{
    int a = -1, b = -1, k, n = 0;
    for (k = 0; k < l->ndim; k++) { if (l->stride[0][k] == 1) a = k; if (l->stride[1][k] == 1) b = k; }
    if (a < 0 || b < 0 || a == b || l->size[a] < 8 || l->size[b] < 8) return 0;
    t->na = l->size[a]; t->ax = l->stride[0][a]; t->ay = l->stride[1][a];
    t->nb = l->size[b]; t->bx = l->stride[0][b]; t->by = l->stride[1][b];
    memset(&t->rest, 0, sizeof t->rest);
    t->rest.small = (t->rest.count = l->count / (t->na * t->nb)) < 0x7fffffff;
    for (k = 0; k < l->ndim; k++) {
        if (k == a || k == b) continue;
        t->rest.size[n] = l->size[k];
        t->rest.stride[0][n] = l->stride[0][k];
        t->rest.stride[1][n++] = l->stride[1][k];
    }
    t->rest.ndim = n;
    t->tiles = ((t->na + 31) / 32) * ((t->nb + 31) / 32);
    return t->tiles < 0x7fffffff && t->tiles * t->rest.count < 0x7fffffff;
}
template <class T> static void nn__copy_as(nn__cuda *d, const nn__lay *l, const void *x, void *y)
{
    NN__LAUNCH(d, nn__k_copy<T>, dim3(NN__BLOCKS(l->count, 256)), dim3(256), 0, *l, (const T *)x, (T *)y);
}
static int nn__move(nn__cuda *d, const nn_view *to, const nn_view *from, int add)        // to = from, or, floats, to += from; one shape, one dtype
{
    const nn_view *v[2] = { from, to };
    int64_t n = nn_view_count(from);
    size_t bytes = nn_dtype_bytes((nn_dtype)from->dtype);
    nn__turn turn;
    nn__lay l;
    if (n == 0 || !to->data) return 1;
    if (!add && !d->link && nn__is_flat(to) && nn__is_flat(from)) {
        nn__copy_flat(d, to->data, from->data, (size_t)n * bytes);
        return 1;
    }
    l = nn__lay_of(2, v);
    if (bytes == 4 && nn__turn_of(&l, &turn)) {
        NN__LAUNCH(d, nn__k_turn, dim3((unsigned)(turn.tiles * turn.rest.count)), dim3(256), 0, turn, (const float *)from->data, (float *)to->data, add);
        return 1;
    }
    if (bytes == 4) return nn__map<nn__f_same>(d, v, add ? 1u : 0u, 0, 0);
    if (bytes == 8) nn__copy_as<uint64_t>(d, &l, from->data, to->data);
    if (bytes == 2) nn__copy_as<uint16_t>(d, &l, from->data, to->data);
    if (bytes == 1) nn__copy_as<uint8_t>(d, &l, from->data, to->data);
    return 1;
}
static int nn__cuda_copied(nn__cuda *d, const nn_call *c)     { return nn__move(d, &c->out[0], &c->in[0], 0); }
static int nn__cuda_accumulate(nn__cuda *d, const nn_call *c) { return nn__move(d, &c->out[0], &c->in[0], 1); }
static int nn__cuda_give_back(nn__cuda *d, const nn_call *c)  { return nn__move(d, &c->din[0], &c->dout[0], (int)(c->add & 1)); }

// Gradients of views: dy goes into the part of dx that the view showed.
static int nn__cuda_reshape_back(nn__cuda *d, const nn_call *c)
{
    nn_view to = c->din[0], from = c->dout[0];
    nn_view *plain = nn__is_flat(&to) ? &to : &from;     // dy always is contiguous
    const nn_view *like = plain == &to ? &from : &to;
    int64_t run = 1;
    plain->ndim = like->ndim;
    memcpy(plain->shape, like->shape, sizeof plain->shape);
    for (int i = like->ndim - 1; i >= 0; run *= like->shape[i--]) plain->stride[i] = run;
    return nn__move(d, &to, &from, (int)(c->add & 1));
}
static int nn__cuda_permute_back(nn__cuda *d, const nn_call *c)
{
    const nn_shape *p = (const nn_shape *)c->params;
    nn_view to = c->din[0];
    for (int i = 0; i < to.ndim; i++) {
        int64_t k = p->d[i] < 0 ? p->d[i] + to.ndim : p->d[i];
        to.shape[i] = c->din[0].shape[k];
        to.stride[i] = c->din[0].stride[k];
    }
    return nn__move(d, &to, &c->dout[0], (int)(c->add & 1));
}
static int nn__cuda_slice_back(nn__cuda *d, const nn_call *c)    // dx was zeroed, if it is new
{
    const nn__slice_params *p = (const nn__slice_params *)c->params;
    nn_view to = c->din[0];
    to.shape[p->dim] = p->count;
    to.data = (float *)to.data + p->start * to.stride[p->dim];
    to.stride[p->dim] *= p->step;
    return nn__move(d, &to, &c->dout[0], (int)(c->add & 1));
}
static int nn__cuda_expand_back(nn__cuda *d, const nn_call *c)
{
    nn_view to = nn__as_broadcast(&c->din[0], &c->dout[0]);
    return nn__cuda_sum_to(d, &c->dout[0], &to, (int)(c->add & 1), 1);
}
static int nn__cuda_flip_back(nn__cuda *d, const nn_call *c)
{
    nn_view to = c->din[0];
    int i, mask = *(const int *)c->params;
    for (i = 0; i < to.ndim; i++) {
        if (!(mask & 1 << i)) continue;
        if (to.data && to.shape[i] > 1) to.data = (float *)to.data + (to.shape[i] - 1) * to.stride[i];
        to.stride[i] = -to.stride[i];
    }
    return nn__move(d, &to, &c->dout[0], (int)(c->add & 1));
}

// ---- casts: by way of a float or, from integers, a 64-bit integer; integers saturate, NaN becomes 0 --------------------------
NN__DEV float nn__bf16_to(uint16_t h) { return __uint_as_float((uint32_t)h << 16); }
NN__DEV float nn__f16_to(uint16_t h)
{
    uint32_t e = h >> 10 & 31, m = h & 1023, s = (uint32_t)(h >> 15) << 31;
    if (e == 31) return __uint_as_float(s | 0x7F800000u | m << 13);
    if (e) return __uint_as_float(s | (e + 112) << 23 | m << 13);
    return __uint_as_float(s | __float_as_uint((float)m * 5.9604644775390625e-8f));
}
NN__DEV uint16_t nn__to_bf16(float f)                    // to nearest, ties to even
{
    uint32_t w = __float_as_uint(f);
    return (w & 0x7FFFFFFFu) > 0x7F800000u ? (uint16_t)(w >> 16 | 64) : (uint16_t)((w + 0x7FFFu + (w >> 16 & 1)) >> 16);
}
NN__DEV uint16_t nn__to_f16(float f)
{
    uint32_t w = __float_as_uint(f), sign = w >> 16 & 0x8000u, m, r, rest, half;
    int shift;
    w &= 0x7FFFFFFFu;
    if (w > 0x7F800000u) return (uint16_t)(sign | 0x7E00u);
    if (w >= 0x477FF000u) return (uint16_t)(sign | 0x7C00u);
    if (w < 0x33000000u) return (uint16_t)sign;
    m = (w & 0x7FFFFFu) | 0x800000u;
    shift = w >= 0x38800000u ? 13 : 126 - (int)(w >> 23);
    r = w >= 0x38800000u ? (w >> 13) - (112u << 10) : m >> shift;
    rest = m & ((1u << shift) - 1);
    half = 1u << (shift - 1);
    return (uint16_t)(sign | (r + (rest > half || (rest == half && (r & 1)))));
}
NN__DEV int64_t nn__get_int(int dtype, const void *p, int64_t i)         // of integers; floats are cut
{
    switch (dtype) {
    case NN_I8:   return ((const int8_t *)p)[i];
    case NN_U8:   return ((const uint8_t *)p)[i];
    case NN_BOOL: return ((const uint8_t *)p)[i] != 0;
    case NN_I32:  return ((const int32_t *)p)[i];
    case NN_I64:  return ((const int64_t *)p)[i];
    default:      return (int64_t)((const float *)p)[i];
    }
}
NN__DEV float nn__get_float(int dtype, const void *p, int64_t i)
{
    switch (dtype) {
    case NN_F32:  return ((const float *)p)[i];
    case NN_F16:  return nn__f16_to(((const uint16_t *)p)[i]);
    case NN_BF16: return nn__bf16_to(((const uint16_t *)p)[i]);
    default:      return (float)nn__get_int(dtype, p, i);
    }
}
NN__DEV int64_t nn__saturate(float f, int64_t least, int64_t most) { return f != f ? 0 : f <= (float)least ? least : f >= (float)most ? most : (int64_t)f; }
NN__DEV void nn__put_int(int dtype, void *p, int64_t i, int64_t v)
{
    switch (dtype) {
    case NN_I8:   ((int8_t *)p)[i] = (int8_t)(v < -128 ? -128 : v > 127 ? 127 : v); break;
    case NN_U8:   ((uint8_t *)p)[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); break;
    case NN_BOOL: ((uint8_t *)p)[i] = v != 0; break;
    case NN_I32:  ((int32_t *)p)[i] = (int32_t)(v < -2147483647 - 1 ? -2147483647 - 1 : v > 2147483647 ? 2147483647 : v); break;
    case NN_I64:  ((int64_t *)p)[i] = v; break;
    }
}
NN__DEV void nn__put_float(int dtype, void *p, int64_t i, float v)
{
    switch (dtype) {
    case NN_F32:  ((float *)p)[i] = v; break;
    case NN_F16:  ((uint16_t *)p)[i] = nn__to_f16(v); break;
    case NN_BF16: ((uint16_t *)p)[i] = nn__to_bf16(v); break;
    case NN_BOOL: ((uint8_t *)p)[i] = v != 0; break;
    case NN_I8:   ((int8_t *)p)[i] = (int8_t)nn__saturate(v, -128, 127); break;
    case NN_U8:   ((uint8_t *)p)[i] = (uint8_t)nn__saturate(v, 0, 255); break;
    case NN_I32:  ((int32_t *)p)[i] = (int32_t)nn__saturate(v, -2147483647 - 1, 2147483647); break;
    default:      ((int64_t *)p)[i] = nn__saturate(v, INT64_MIN, INT64_MAX); break;
    }
}
NN__DEV int nn__is_whole(int dtype) { return dtype == NN_I8 || dtype == NN_U8 || dtype == NN_I32 || dtype == NN_I64 || dtype == NN_BOOL; }
NN__DEV double nn__get_double(int dtype, const void *p, int64_t i)
{
    return dtype == NN_F64 ? ((const double *)p)[i] : nn__is_whole(dtype) ? (double)nn__get_int(dtype, p, i) : (double)nn__get_float(dtype, p, i);
}
NN__DEV void nn__put_double(int dtype, void *p, int64_t i, double v)
{
    if (dtype == NN_F64) ((double *)p)[i] = v;
    else if (!nn__is_whole(dtype)) nn__put_float(dtype, p, i, (float)v);
    else if (dtype == NN_BOOL) nn__put_int(dtype, p, i, v != 0);
    else nn__put_int(dtype, p, i, v != v ? 0 : v <= -9223372036854775808.0 ? INT64_MIN : v >= 9223372036854775807.0 ? INT64_MAX : (int64_t)v);
}
static __global__ void __launch_bounds__(256) nn__k_cast(nn__lay l, int from, const void *x, int to, void *y)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, at[2];
    if (i >= l.count) return;
    nn__offsets(l, i, at);
    if (from == NN_F64 || to == NN_F64) nn__put_double(to, y, at[1], nn__get_double(from, x, at[0]));
    else if (nn__is_whole(from) && nn__is_whole(to)) nn__put_int(to, y, at[1], nn__get_int(from, x, at[0]));
    else nn__put_float(to, y, at[1], nn__get_float(from, x, at[0]));
}
static int nn__cuda_cast(nn__cuda *d, const nn_call *c)
{
    const nn_view *from = &c->in[0], *to = &c->out[0], *v[2] = { from, to };
    nn__lay l = nn__lay_of(2, v);
    if (l.count) NN__LAUNCH(d, nn__k_cast, dim3(NN__BLOCKS(l.count, 256)), dim3(256), 0, l, from->dtype, (const void *)from->data, to->dtype, (void *)to->data);
    return 1;
}
static int nn__cuda_cast_back(nn__cuda *d, const nn_call *c) { return c->din[0].dtype == NN_F32 && nn__cuda_give_back(d, c); }       // gradients are of one type

// ---- fills, random numbers ------------------------------------------------------------------------------------------------
static __global__ void __launch_bounds__(256) nn__k_fill(nn__lay l, int dtype, void *y, float v, int64_t w)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, at[1];
    if (i >= l.count) return;
    nn__offsets(l, i, at);
    if (nn__is_whole(dtype)) nn__put_int(dtype, y, at[0], w);
    else nn__put_float(dtype, y, at[0], v);
}
static void nn__swap(int64_t &a, int64_t &b) { int64_t c = a; a = b; b = c; }
static int nn__cuda_fill(nn__cuda *d, const nn_call *c)
{
    nn_view y = c->out[0];
    const nn_view *v[1] = { &y };
    double value = *(const double *)c->params, cut = value != value ? 0 : value < -9.2e18 ? -9.2e18 : value > 9.2e18 ? 9.2e18 : value;
    for (int i = 1; i < y.ndim; i++) for (int k = i; k && y.stride[k] > y.stride[k - 1]; k--) { nn__swap(y.shape[k], y.shape[k - 1]); nn__swap(y.stride[k], y.stride[k - 1]); }
    nn__lay l = nn__lay_of(1, v);    // in the order of memory
    if (l.count == 0) return 1;
    if (value == 0 && !signbit(value) && nn__is_flat(v[0])) {
        nn__fill_zero(d, v[0]->data, (size_t)l.count * nn_dtype_bytes((nn_dtype)v[0]->dtype));
        return 1;
    }
    NN__LAUNCH(d, nn__k_fill, dim3(NN__BLOCKS(l.count, 256)), dim3(256), 0, l, v[0]->dtype, (void *)v[0]->data, (float)value, v[0]->dtype == NN_BOOL ? (int64_t)(value != 0) : (int64_t)cut);
    return 1;
}
// Philox4x32-10, as nn.h's >>random: the four numbers of block `index` of a stream.
typedef struct nn__stream { uint64_t seed, step, ordinal; const nn__now *now; } nn__stream;      // now: in a graph, seed and step are there
static thread_local const nn__now *nn__cuda_now;
NN__DEV void nn__philox(const nn__stream &s, uint64_t index, uint32_t *r)
{
    uint64_t seed = s.now ? s.now->seed : s.seed, step = s.now ? s.now->step : s.step;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32) ^ (uint32_t)(s.ordinal >> 32), c2 = (uint32_t)s.ordinal, c3 = (uint32_t)step;
    NN_UNROLL for (int i = 0; i < 10; i++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0; c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1; c3 = (uint32_t)p0;
    }
    r[0] = c0; r[1] = c1; r[2] = c2; r[3] = c3;
}
static nn__stream nn__stream_of(const nn_call *c) { nn__stream s; s.seed = c->seed; s.step = c->step; s.ordinal = c->ordinal; s.now = nn__cuda_now; return s; }
NN__DEV float nn__unit(uint32_t r) { return (float)(r >> 8) * (1.0f / 16777216.0f); }
static __global__ void __launch_bounds__(256) nn__k_random(nn__lay l, nn__stream s, nn__random_params p, int dtype, void *y)
{
    int64_t b = (int64_t)blockIdx.x * 256 + threadIdx.x, at[1];
    uint32_t r[4];
    float z[4];
    if (4 * b >= l.count) return;
    nn__philox(s, (uint64_t)b, r);
    for (int k = 0; k < 4; k++) z[k] = nn__unit(r[k]);
    for (int k = 0; k < 4 && p.kind != NN__UNIFORM; k += 2) {        // Box & Muller
        float radius = sqrtf(-2.0f * nn__log(1.0f - z[k])), angle = (float)(6.28318530717958647692 * (double)z[k + 1]);
        z[k] = radius * nn__cos(angle);
        z[k + 1] = radius * nn__sin(angle);
    }
    for (int k = 0; k < 4 && 4 * b + k < l.count; k++) {
        double v = p.kind == NN__UNIFORM ? p.a + (p.b - p.a) * (double)z[k] : p.a + p.b * (double)z[k];
        for (uint64_t again = 1; p.kind == NN__TRUNC_NORMAL && !(v >= p.low && v <= p.high) && again < 1000; again++) {      // rejection
            nn__philox(s, (uint64_t)(4 * b + k) | again << 40, r);
            v = p.a + p.b * (double)sqrtf(-2.0f * nn__log(1.0f - nn__unit(r[0]))) * (double)nn__cos((float)(6.28318530717958647692 * (double)nn__unit(r[1])));
        }
        if (p.kind == NN__TRUNC_NORMAL) v = v < p.low ? p.low : v > p.high ? p.high : v;
        nn__offsets(l, 4 * b + k, at);
        nn__put_float(dtype, y, at[0], (float)v);
    }
}
static int nn__cuda_random(nn__cuda *d, const nn_call *c)
{
    const nn_view *v[1] = { &c->out[0] };
    nn__lay l = nn__lay_of(1, v);
    if (l.count) NN__LAUNCH(d, nn__k_random, dim3(NN__BLOCKS((l.count + 3) / 4, 256)), dim3(256), 0, l, nn__stream_of(c), *(const nn__random_params *)c->params, v[0]->dtype, (void *)v[0]->data);
    return 1;
}
// Dropout: mask number m covers `run` neighbours; the numbers are drawn again in backward. Contiguous.
static __global__ void __launch_bounds__(256) nn__k_dropout(int64_t n, int64_t run, nn__stream s, uint64_t dropped, float scale, const float *x, float *y, int add, int fours)
{
    int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) * 4;
    uint32_t r[4];
    float v[4], old[4];
    if (i >= n) return;
    int m = n - i < 4 ? (int)(n - i) : 4;
    nn__get4(v, x + i, fours || m < 4, m);
    if (!fours && m == 4) for (int k = 0; k < 4; k++) v[k] = x[i + k];
    if (run == 1) nn__philox(s, (uint64_t)i / 4, r);
    for (int k = 0; k < 4; k++) {
        if (run != 1) {
            int64_t mask = (i + k) / run;
            uint32_t q[4];
            if (k == 0 || mask != (i + k - 1) / run) nn__philox(s, (uint64_t)mask / 4, q);
            else { r[k] = r[k - 1]; continue; }
            r[k] = mask % 4 == 0 ? q[0] : mask % 4 == 1 ? q[1] : mask % 4 == 2 ? q[2] : q[3];
        }
    }
    for (int k = 0; k < 4; k++) v[k] = r[k] >= dropped ? v[k] * scale : 0.0f;
    if (add) for (int k = 0; k < 4; k++) { old[k] = k < m ? y[i + k] : 0.0f; v[k] = old[k] + v[k]; }
    if (fours) nn__put4(y + i, v, 1, m);
    else for (int k = 0; k < m; k++) y[i + k] = v[k];
}
static int nn__dropped(nn__cuda *d, const nn_call *c, const nn_view *x, const nn_view *y, int add)
{
    const nn__dropout_params *p = (const nn__dropout_params *)c->params;
    int64_t n = nn_view_count(x);
    if (n && y->data) NN__LAUNCH(d, nn__k_dropout, dim3(NN__BLOCKS(n, 1024)), dim3(256), 0, n, p->run, nn__stream_of(c), (uint64_t)((double)p->p * 4294967296.0),
                                 p->p < 1 ? (float)(1.0 / (1.0 - (double)p->p)) : 0.0f, (const float *)x->data, (float *)y->data, add, nn__aligned(x->data, y->data, NULL));
    return 1;
}
static int nn__cuda_dropout(nn__cuda *d, const nn_call *c)      { return nn__dropped(d, c, &c->in[0], &c->out[0], 0); }
static int nn__cuda_dropout_back(nn__cuda *d, const nn_call *c) { return nn__dropped(d, c, &c->dout[0], &c->din[0], (int)(c->add & 1)); }
#define NN__CUDA_ROWS(name, keep, f, df)       NN__CUDA_ENTRY(name, nn__cuda_unary<nn__f_##name>, nn__cuda_unary<nn__d_##name>)
#define NN__CUDA_ROWS2(name, keep, f, da, db)  NN__CUDA_ENTRY(name, nn__cuda_binary<nn__f_##name>, nn__cuda_binary_back<nn__d_##name>)
#define NN__CUDA_MAPS(X) \
    NN_UNARY_OPS(NN__CUDA_ROWS) NN_UNARY1_OPS(NN__CUDA_ROWS) NN_UNARY2_OPS(NN__CUDA_ROWS) NN_BINARY_OPS(NN__CUDA_ROWS2) \
    X(where, nn__cuda_binary<nn__f_where>, nn__cuda_where_back) X(copy, nn__cuda_copied, NULL) X(cast, nn__cuda_cast, nn__cuda_cast_back) X(fill, nn__cuda_fill, NULL) \
    X(accumulate, nn__cuda_accumulate, NULL) X(contiguous, nn__cuda_copied, nn__cuda_give_back) X(reshape, NULL, nn__cuda_reshape_back) \
    X(permute, NULL, nn__cuda_permute_back) X(slice, NULL, nn__cuda_slice_back) X(expand, NULL, nn__cuda_expand_back) X(flip, NULL, nn__cuda_flip_back) \
    X(dropout, nn__cuda_dropout, nn__cuda_dropout_back) X(random, nn__cuda_random, NULL)

// =============================================================================================
// >>reduce   Sums and their kin over any dimensions; argmax, argmin; cumsum.
// A fold joins the numbers that belong to one result: f(acc, x, m, p) takes one more, m being a number per result. Where results are few,
// their terms are cut into pieces, which a second launch joins. Cuts and orders follow from shapes alone: the same bits every time.
// =============================================================================================
enum { NN__JOIN_ADD, NN__JOIN_MUL, NN__JOIN_MAX, NN__JOIN_MIN };
NN__DEV float nn__join(int how, float a, float b)        // a NaN stays
{
    switch (how) {
    case NN__JOIN_ADD: return a + b;
    case NN__JOIN_MUL: return a * b;
    case NN__JOIN_MAX: return b > a || b != b ? b : a;
    default:           return b < a || b != b ? b : a;
    }
}
#define NN__CUDA_FOLD(name, join, start, formula) \
    struct nn__fold_##name { enum { JOIN = join }; NN__DEV float first() { return start; } \
        NN__DEV float at(float acc, float x, float m, float p) { (void)acc; (void)x; (void)m; (void)p; return formula; } };
NN__CUDA_FOLD(sum,       NN__JOIN_ADD, 0.0f, acc + x)
NN__CUDA_FOLD(shifted,   NN__JOIN_ADD, 0.0f, acc + (x - m))
NN__CUDA_FOLD(square,    NN__JOIN_ADD, 0.0f, fmaf(x - m, x - m, acc))
NN__CUDA_FOLD(exp,       NN__JOIN_ADD, 0.0f, acc + nn__exp(x - m))
NN__CUDA_FOLD(equal,     NN__JOIN_ADD, 0.0f, acc + (x == m ? 1.0f : 0.0f))
NN__CUDA_FOLD(equal_abs, NN__JOIN_ADD, 0.0f, acc + (fabsf(x) == m ? 1.0f : 0.0f))
NN__CUDA_FOLD(zeros,     NN__JOIN_ADD, 0.0f, acc + (x == 0 ? 1.0f : 0.0f))
NN__CUDA_FOLD(norm0,     NN__JOIN_ADD, 0.0f, acc + (x == 0 ? 0.0f : 1.0f))
NN__CUDA_FOLD(norm1,     NN__JOIN_ADD, 0.0f, acc + fabsf(x))
NN__CUDA_FOLD(normp,     NN__JOIN_ADD, 0.0f, acc + nn__pow(fabsf(x), p))
NN__CUDA_FOLD(prod,      NN__JOIN_MUL, 1.0f, acc * x)
NN__CUDA_FOLD(nonzero,   NN__JOIN_MUL, 1.0f, acc * (x == 0 ? 1.0f : x))
NN__CUDA_FOLD(max,       NN__JOIN_MAX, -INFINITY, x > acc || x != x ? x : acc)
NN__CUDA_FOLD(min,       NN__JOIN_MIN, INFINITY, x < acc || x != x ? x : acc)
NN__CUDA_FOLD(max_abs,   NN__JOIN_MAX, 0.0f, fabsf(x) > acc || x != x ? fabsf(x) : acc)
NN__CUDA_FOLD(min_abs,   NN__JOIN_MIN, INFINITY, fabsf(x) < acc || x != x ? fabsf(x) : acc)

// What becomes of a fold's result: v, times s; s being a number, `other` one per result.
enum { NN__END_SCALE, NN__END_MEAN, NN__END_SQRT, NN__END_POW, NN__END_FINITE, NN__END_LOG, NN__END_SHARE };
typedef struct nn__end { int how, add; float s; const float *other; } nn__end;
NN__DEV void nn__finish(const nn__end &e, int64_t out, float v, float *to)
{
    switch (e.how) {
    case NN__END_MEAN:   v = e.other[out] + v / e.s; break;
    case NN__END_SQRT:   v = sqrtf(v * e.s); break;
    case NN__END_POW:    v = nn__pow(v, e.s); break;
    case NN__END_FINITE: v = v - v == 0 ? v : 0.0f; break;           // inf - inf would be NaN
    case NN__END_LOG:    v = e.other[out] + nn__log(v); break;
    case NN__END_SHARE:  v = e.other[out] / v; break;
    default:             v *= e.s; break;
    }
    *to = e.add ? *to + v : v;
}
// Kept dimensions (of x, of y) and reduced ones (of x), neighbours joined where they are one run.
typedef struct nn__walk { nn__lay kept, reduced; int64_t pieces, piece; int wide, fours; } nn__walk;
// Terms lie side by side: `team` threads (a warp or the block) share a result.
template <class F> static __global__ void __launch_bounds__(256, 4) nn__k_fold_lines(nn__walk w, int team, const float *x, const float *m, float p, nn__end e, float *y, float *part)
{
    NN_SHARED(float, warp, [8]);
    int lane = (int)threadIdx.x % team;
    int64_t out = (int64_t)blockIdx.x * (256 / team) + (int)threadIdx.x / team, at[2] = { 0, 0 }, o[1];
    int64_t i = (int64_t)blockIdx.y * w.piece, end = i + w.piece < w.reduced.count ? i + w.piece : w.reduced.count;
    int there = out < w.kept.count, run = w.fours ? 4 : 1;
    float acc = F::first(), mine = 0, v[4];
    if (there) {
        nn__offsets(w.kept, out, at);
        if (m) mine = m[out];
        for (i += lane * run; i < end; i += team * run) {
            int n = !w.fours ? 1 : end - i < 4 ? (int)(end - i) : 4;
            nn__offsets(w.reduced, i, o);
            const float *from = x + at[0] + o[0];
            if (n < 4) { for (int k = 0; k < n; k++) acc = F::at(acc, from[k], mine, p); continue; }
            nn__get4(v, from, 1, 4);
            NN_UNROLL for (int k = 0; k < 4; k++) acc = F::at(acc, v[k], mine, p);
        }
    }
    for (int k = 16; k; k >>= 1) acc = nn__join(F::JOIN, acc, __shfl_xor_sync(NN__FULL, acc, k));
    if (team > 32) {
        if ((threadIdx.x & 31) == 0) warp[threadIdx.x >> 5] = acc;
        __syncthreads();
        acc = warp[0];
        for (int k = 1; k < 8; k++) acc = nn__join(F::JOIN, acc, warp[k]);
    } else __syncwarp(NN__FULL);                        // m may be y: every lane has read it
    if (lane || !there) return;
    if (part) part[blockIdx.y * w.kept.count + out] = acc;
    else nn__finish(e, out, acc, y + at[1]);
}
// Results lie side by side: 32 of them, and 8 threads for each.
template <class F> static __global__ void __launch_bounds__(256) nn__k_fold_columns(nn__walk w, const float *x, const float *m, float p, nn__end e, float *y, float *part)
{
    NN_SHARED(float, rows, [8][32]);
    int tx = threadIdx.x & 31, ty = threadIdx.x >> 5;
    int64_t out = (int64_t)blockIdx.x * 32 + tx, at[2] = { 0, 0 }, o[1];
    int64_t i = (int64_t)blockIdx.y * w.piece, end = i + w.piece < w.reduced.count ? i + w.piece : w.reduced.count;
    int there = out < w.kept.count;
    float acc = F::first(), mine = 0;
    if (there) {
        nn__offsets(w.kept, out, at);
        if (m) mine = m[out];
        for (i += ty; i < end; i += 8) {
            nn__offsets(w.reduced, i, o);
            acc = F::at(acc, x[at[0] + o[0]], mine, p);
        }
    }
    rows[ty][tx] = acc;
    __syncthreads();
    if (ty || !there) return;
    for (int k = 1; k < 8; k++) acc = nn__join(F::JOIN, acc, rows[k][tx]);
    if (part) part[blockIdx.y * w.kept.count + out] = acc;
    else nn__finish(e, out, acc, y + at[1]);
}
static __global__ void __launch_bounds__(256) nn__k_join(nn__walk w, int join, const float *part, nn__end e, float *y)
{
    int64_t out = (int64_t)blockIdx.x * 256 + threadIdx.x, at[2];
    if (out >= w.kept.count) return;
    float acc = part[out];
    for (int64_t k = 1; k < w.pieces; k++) acc = nn__join(join, acc, part[k * w.kept.count + out]);
    nn__offsets(w.kept, out, at);
    nn__finish(e, out, acc, y + at[1]);
}
// y: shaped like x, with stride 0 in the reduced dimensions
static nn__walk nn__walk_over(const nn_view *x, const nn_view *y)
{
    nn_view kept = *x, to = *x, reduced = *x;
    const nn_view *v[2];
    nn__walk w = {};
    int64_t blocks;
    int i, last;
    kept.ndim = to.ndim = reduced.ndim = 0;
    for (i = 0; i < x->ndim; i++) {
        nn_view *r = y->stride[i] || x->shape[i] == 1 ? &kept : &reduced;
        r->shape[r->ndim] = x->shape[i];
        r->stride[r->ndim++] = x->stride[i];
        if (r == &kept) { to.shape[to.ndim] = x->shape[i]; to.stride[to.ndim++] = y->stride[i]; }
    }
    v[0] = &kept; v[1] = &to;
    w.kept = nn__lay_of(2, v);
    v[0] = &reduced;
    w.reduced = nn__lay_of(1, v);
    last = w.kept.ndim - 1;
    w.wide = last >= 0 && w.kept.stride[0][last] == 1 && w.kept.size[last] >= 4 && !(w.reduced.ndim && w.reduced.stride[0][w.reduced.ndim - 1] == 1 && w.reduced.size[w.reduced.ndim - 1] >= 4);
    w.fours = !w.wide && nn__lay_fours(&w.reduced, 1, v) && w.reduced.ndim && w.reduced.stride[0][w.reduced.ndim - 1] == 1 && !((uintptr_t)x->data & 15);
    for (i = 0; i <= last; i++) if (w.kept.stride[0][i] % 4) w.fours = 0;
    blocks = w.wide ? (w.kept.count + 31) / 32 : (w.kept.count + 7) / 8;         // enough of them for a large device, and enough work for each
    w.pieces = blocks ? 432 / blocks : 1;
    if (w.pieces > w.reduced.count / (w.wide ? 64 : 4096)) w.pieces = w.reduced.count / (w.wide ? 64 : 4096);
    if (w.pieces < 1) w.pieces = 1;
    w.piece = ((w.reduced.count + w.pieces - 1) / w.pieces + 3) & ~(int64_t)3;
    if (w.piece < 1) w.piece = 1;
    w.pieces = w.reduced.count ? (w.reduced.count + w.piece - 1) / w.piece : 1;
    return w;
}
template <class F> static int nn__fold(nn__cuda *d, const nn_view *x, const nn_view *y, float p, const float *m, nn__end e)
{
    nn__walk w = nn__walk_over(x, y);
    const float *from = (const float *)x->data;
    float *to = (float *)y->data, *part = NULL;
    int team = w.reduced.count > 1024 ? 256 : 32;
    if (w.kept.count == 0) return 1;
    if (w.pieces > 1 && !(part = (float *)nn__cuda_scratch(d, (size_t)(w.pieces * w.kept.count) * sizeof *part))) return 1;
    if (w.wide) NN__LAUNCH(d, nn__k_fold_columns<F>, dim3(NN__BLOCKS(w.kept.count, 32), (unsigned)w.pieces), dim3(256), 0, w, from, m, p, e, to, part);
    else NN__LAUNCH(d, nn__k_fold_lines<F>, dim3(NN__BLOCKS(w.kept.count, 256 / team), (unsigned)w.pieces), dim3(256), 0, w, team, from, m, p, e, to, part);
    if (part) NN__LAUNCH(d, nn__k_join, dim3(NN__BLOCKS(w.kept.count, 256)), dim3(256), 0, w, (int)F::JOIN, (const float *)part, e, to);
    return 1;
}
static nn__end nn__end_of(int how, float s, const float *other, int add) { nn__end e; e.how = how; e.s = s; e.other = other; e.add = add; return e; }
// y (+)= scale * sum of x over the dimensions where y, shaped like x, has stride 0
static int nn__cuda_sum_to(nn__cuda *d, const nn_view *x, const nn_view *y, int add, float scale)
{
    return nn__fold<nn__fold_sum>(d, x, y, 0, NULL, nn__end_of(NN__END_SCALE, scale, NULL, add));
}
// A result (or a gradient) of a reduction as seen from x: stride 0 where numbers were joined.
static nn_view nn__reduced(const nn_view *y, void *data, const nn_view *x, const nn__reduce_params *p)
{
    nn_view r = *x;
    int i, k = 0;
    r.data = data;
    for (i = 0; i < x->ndim; i++) {
        if (p->mask & 1u << i) { r.stride[i] = 0; k += p->keepdim; }
        else r.stride[i] = y->stride[k++];
    }
    return r;
}
static int64_t nn__terms(const nn_call *c)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    int64_t n = 1;
    for (int i = 0; i < c->in[0].ndim; i++) if (p->mask & 1u << i) n *= c->in[0].shape[i];
    return n;
}
static void nn__first_of(nn__cuda *d, const nn_view *x, const nn_view *to)       // the first of the numbers that belong to each result
{
    nn_view from = *x, y = *to;
    for (int i = 0; i < x->ndim; i++) if (to->stride[i] == 0) from.shape[i] = y.shape[i] = 1;
    if (nn_view_count(x)) nn__move(d, &y, &from, 0);
    else nn__fill_zero(d, y.data, (size_t)nn_view_count(&y) * sizeof(float));
}
static int nn__cuda_reduce(nn__cuda *d, const nn_call *c)
{
    const nn__reduce_params *q = (const nn__reduce_params *)c->params;
    const nn_view *x = &c->in[0];
    nn_view y = nn__reduced(&c->out[0], c->out[0].data, x, q), m = y;
    float p = (float)q->p, scale = (float)q->scale;
    nn__end plain = nn__end_of(NN__END_SCALE, 1, NULL, 0);
    int id = c->op->id, two = id == NN_OP_var || id == NN_OP_std || id == NN_OP_logsumexp;
    if (two) {                       // first the mean, or the maximum
        m.data = c->naux ? c->aux[0].data : NULL;
        if (!m.data) m.data = nn__cuda_scratch(d, (size_t)nn_view_count(&c->out[0]) * sizeof(float));
        if (!m.data) return 1;
    }
    switch (id) {
    case NN_OP_sum:  return nn__fold<nn__fold_sum>(d, x, &y, 0, NULL, nn__end_of(NN__END_SCALE, scale, NULL, 0));
    case NN_OP_max:  return nn__fold<nn__fold_max>(d, x, &y, 0, NULL, plain);
    case NN_OP_min:  return nn__fold<nn__fold_min>(d, x, &y, 0, NULL, plain);
    case NN_OP_prod: return nn__fold<nn__fold_prod>(d, x, &y, 0, NULL, plain);
    case NN_OP_var:
    case NN_OP_std:
        nn__first_of(d, x, &m);      // the mean is the first number plus the mean distance from it: of equal numbers it is exact, and their variance 0
        nn__fold<nn__fold_shifted>(d, x, &m, 0, (const float *)m.data, nn__end_of(NN__END_MEAN, (float)nn__terms(c), (const float *)m.data, 0));
        return nn__fold<nn__fold_square>(d, x, &y, 0, (const float *)m.data, nn__end_of(id == NN_OP_std ? NN__END_SQRT : NN__END_SCALE, scale, NULL, 0));
    case NN_OP_logsumexp:
        nn__fold<nn__fold_max>(d, x, &m, 0, NULL, nn__end_of(NN__END_FINITE, 1, NULL, 0));
        return nn__fold<nn__fold_exp>(d, x, &y, 0, (const float *)m.data, nn__end_of(NN__END_LOG, 1, (const float *)m.data, 0));
    default: break;
    }
    if (isinf(q->p)) return q->p > 0 ? nn__fold<nn__fold_max_abs>(d, x, &y, 0, NULL, plain) : nn__fold<nn__fold_min_abs>(d, x, &y, 0, NULL, plain);
    if (p == 0) return nn__fold<nn__fold_norm0>(d, x, &y, 0, NULL, plain);
    if (p == 1) return nn__fold<nn__fold_norm1>(d, x, &y, 0, NULL, plain);
    if (p == 2) return nn__fold<nn__fold_square>(d, x, &y, 0, NULL, nn__end_of(NN__END_SQRT, 1, NULL, 0));
    return nn__fold<nn__fold_normp>(d, x, &y, p, NULL, nn__end_of(NN__END_POW, 1 / p, NULL, 0));
}
// dx (+)= df(x, a, b), a and b being numbers per result
#ifdef __CUDACC__
#pragma nv_diagnostic push
#pragma nv_diag_suppress 550         // formulas do not read all of x, a, b
#endif
#define NN__CUDA_SLOPE(name, formula) \
    struct nn__slope_##name { enum { IN = 3, OUT = 1 }; NN__FN at(const float *in, float *out, float p, float) \
        { float x = in[0], a = in[1], b = in[2]; (void)x; (void)a; (void)b; (void)p; out[0] = formula; } };
NN__CUDA_SLOPE(sum,       b * p)
NN__CUDA_SLOPE(equal,     x == a ? b : 0.0f)
NN__CUDA_SLOPE(equal_abs, fabsf(x) == a ? (x > 0 ? b : x < 0 ? -b : 0.0f) : 0.0f)
NN__CUDA_SLOPE(prod,      x == 0 ? b : a / x)
NN__CUDA_SLOPE(var,       2.0f * b * (x - a) * p)
NN__CUDA_SLOPE(std,       b * (x - a) * p)
NN__CUDA_SLOPE(logsumexp, b * (x == a ? 1.0f : nn__exp(x - a)))
NN__CUDA_SLOPE(norm1,     x > 0 ? b : x < 0 ? -b : 0.0f * b)
NN__CUDA_SLOPE(norm2,     a == 0 ? 0.0f : b * (x / a))
NN__CUDA_SLOPE(normp,     a == 0 ? 0.0f : (x > 0 ? b : x < 0 ? -b : 0.0f) * (x == 0 ? 1.0f : nn__pow(fabsf(x) / a, p - 1.0f)))
#ifdef __CUDACC__
#pragma nv_diagnostic pop
#endif
struct nn__f_std_share { enum { IN = 2, OUT = 1 }; NN__FN at(const float *in, float *out, float, float) { out[0] = in[0] == 0 ? 0.0f : in[1] / in[0]; } };     // y, dy
struct nn__f_prod_share { enum { IN = 3, OUT = 2 }; NN__FN at(const float *in, float *out, float, float)     // product of what is not 0, zeros, dy
    { out[0] = in[1] == 0 ? in[2] * in[0] : 0.0f; out[1] = in[1] == 1 ? in[2] * in[0] : 0.0f; } };
template <class F> static int nn__slope(nn__cuda *d, const nn_call *c, void *a, void *b, float p)
{
    const nn__reduce_params *q = (const nn__reduce_params *)c->params;
    nn_view va = nn__reduced(&c->dout[0], a, &c->in[0], q), vb = nn__reduced(&c->dout[0], b, &c->in[0], q);
    const nn_view *v[4] = { &c->in[0], &va, &vb, &c->din[0] };
    return nn__map<F>(d, v, c->add & 1, p, 0);
}
static int nn__cuda_reduce_back(nn__cuda *d, const nn_call *c)
{
    const nn__reduce_params *q = (const nn__reduce_params *)c->params;
    size_t bytes = (size_t)nn_view_count(&c->dout[0]) * sizeof(float);
    void *y = c->out[0].data, *dy = c->dout[0].data, *share = NULL, *hole = NULL;
    nn_view to = nn__reduced(&c->dout[0], NULL, &c->in[0], q), flat = c->dout[0], other = flat, from = flat;
    const nn_view *v[5];
    nn__end one = nn__end_of(NN__END_SCALE, 1, NULL, 0), split = nn__end_of(NN__END_SHARE, 1, (const float *)dy, 0);
    int id = c->op->id, extreme = id == NN_OP_max || id == NN_OP_min, far = id == NN_OP_norm && isinf(q->p);
    float p = (float)q->p, scale = (float)q->scale;
    if (!c->din[0].data) return 1;
    if (extreme || far || id == NN_OP_prod || id == NN_OP_std) {
        share = nn__cuda_scratch(d, bytes);
        hole = id == NN_OP_prod ? nn__cuda_scratch(d, bytes) : share;
        if (!share || !hole) return 1;
        to.data = flat.data = share;
    }
    if (extreme || far) {            // equal ones share
        if (far) nn__fold<nn__fold_equal_abs>(d, &c->in[0], &to, 0, (const float *)y, split);
        else     nn__fold<nn__fold_equal>(d, &c->in[0], &to, 0, (const float *)y, split);
        return far ? nn__slope<nn__slope_equal_abs>(d, c, y, share, 0) : nn__slope<nn__slope_equal>(d, c, y, share, 0);
    }
    switch (id) {
    case NN_OP_sum: return nn__slope<nn__slope_sum>(d, c, NULL, dy, scale);
    case NN_OP_var: return nn__slope<nn__slope_var>(d, c, c->aux[0].data, dy, scale);
    case NN_OP_logsumexp: return nn__slope<nn__slope_logsumexp>(d, c, y, dy, 0);
    case NN_OP_std:
        from.data = y;
        v[0] = &from; v[1] = &c->dout[0]; v[2] = &flat;
        nn__map<nn__f_std_share>(d, v, 0, 0, 0);
        return nn__slope<nn__slope_std>(d, c, c->aux[0].data, share, scale);
    case NN_OP_prod:
        nn__fold<nn__fold_nonzero>(d, &c->in[0], &to, 0, NULL, one);
        to.data = other.data = hole;
        nn__fold<nn__fold_zeros>(d, &c->in[0], &to, 0, NULL, one);
        v[0] = &flat; v[1] = &other; v[2] = &c->dout[0]; v[3] = &flat; v[4] = &other;
        nn__map<nn__f_prod_share>(d, v, 0, 0, 0);
        return nn__slope<nn__slope_prod>(d, c, share, hole, 0);
    default: break;
    }
    if (p == 0) return nn__slope<nn__slope_sum>(d, c, NULL, dy, 0);
    if (p == 1) return nn__slope<nn__slope_norm1>(d, c, y, dy, p);
    return p == 2 ? nn__slope<nn__slope_norm2>(d, c, y, dy, p) : nn__slope<nn__slope_normp>(d, c, y, dy, p);
}

// ---- argmax, argmin: of numbers of any type as integers of the same order; the first of equals, a NaN before all -----------
NN__DEV int64_t nn__order_key(int dtype, const void *p, int64_t i, int *nan)
{
    *nan = 0;
    if (nn__is_whole(dtype)) return nn__get_int(dtype, p, i);
    float f = nn__get_float(dtype, p, i) + 0.0f;
    int32_t k = __float_as_int(f);
    if (f != f) { *nan = 1; return INT64_MAX; }
    return k < 0 ? (int64_t)(k ^ 0x7FFFFFFF) : (int64_t)k;
}
static __global__ void __launch_bounds__(256) nn__k_arg(nn__lay kept, nn__lay reduced, int dtype, const void *x, int least, int64_t *y)      // a warp per result
{
    int lane = threadIdx.x & 31, nan;
    int64_t out = (int64_t)blockIdx.x * 8 + (threadIdx.x >> 5), at[1], o[1], best = 0, key = INT64_MIN;
    if (out >= kept.count) return;
    nn__offsets(kept, out, at);
    for (int64_t i = lane; i < reduced.count; i += 32) {
        nn__offsets(reduced, i, o);
        int64_t k = nn__order_key(dtype, x, at[0] + o[0], &nan);
        if (least && !nan) k = ~k;
        if (i == lane || k > key) { key = k; best = i; }
    }
    for (int m = 16; m; m >>= 1) {
        int64_t k = __shfl_xor_sync(NN__FULL, (long long)key, m), b = __shfl_xor_sync(NN__FULL, (long long)best, m);
        if (k > key || (k == key && b < best)) { key = k; best = b; }        // lanes without numbers say 0 and the least key: all are equal then
    }
    if (lane == 0) y[out] = best;
}
static int nn__cuda_arg(nn__cuda *d, const nn_call *c)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    const nn_view *x = &c->in[0], *v[1];
    nn_view part[2];
    nn__lay kept, reduced;
    part[0] = part[1] = *x;
    part[0].ndim = part[1].ndim = 0;
    for (int i = 0; i < x->ndim; i++) {
        nn_view *r = &part[p->mask >> i & 1];
        r->shape[r->ndim] = x->shape[i];
        r->stride[r->ndim++] = x->stride[i];
    }
    v[0] = &part[0];
    kept = nn__lay_of(1, v);
    v[0] = &part[1];
    reduced = nn__lay_of(1, v);
    if (kept.count) NN__LAUNCH(d, nn__k_arg, dim3(NN__BLOCKS(kept.count, 8)), dim3(256), 0, kept, reduced, x->dtype, (const void *)x->data, c->op->id == NN_OP_argmin, (int64_t *)c->out[0].data);
    return 1;
}

// ---- cumsum: sums in double. A contiguous x is (outer, n, inner) ---------------------------------------------------------
typedef struct nn__three { int64_t outer, n, inner; } nn__three;
static nn__three nn__around(const nn_view *x, int dim)
{
    nn__three s;
    int i;
    s.outer = s.inner = 1;
    s.n = x->ndim ? x->shape[dim] : 1;
    for (i = 0; i < dim; i++) s.outer *= x->shape[i];
    for (i = dim + 1; i < x->ndim; i++) s.inner *= x->shape[i];
    return s;
}
static __global__ void __launch_bounds__(256) nn__k_cumsum_columns(nn__three s, const float *x, float *y, int back, int add)     // a thread per line
{
    int64_t line = (int64_t)blockIdx.x * 256 + threadIdx.x, base = line / s.inner * s.n * s.inner + line % s.inner;
    double sum = 0;
    if (line >= s.outer * s.inner) return;
    for (int64_t i = 0; i < s.n; i++) {
        int64_t at = base + (back ? s.n - 1 - i : i) * s.inner;
        sum += (double)x[at];
        y[at] = (float)(add ? (double)y[at] + sum : sum);
    }
}
static __global__ void __launch_bounds__(256) nn__k_cumsum_lines(nn__three s, const float *x, float *y, int back, int add)       // a warp per line
{
    int lane = threadIdx.x & 31;
    int64_t line = (int64_t)blockIdx.x * 8 + (threadIdx.x >> 5);
    double before = 0;
    if (line >= s.outer) return;
    for (int64_t i = 0; i < s.n; i += 32) {
        int64_t at = line * s.n + (back ? s.n - 1 - i - lane : i + lane);
        double v = i + lane < s.n ? (double)x[at] : 0.0;
        for (int m = 1; m < 32; m <<= 1) {
            double u = __shfl_up_sync(NN__FULL, v, m);
            if (lane >= m) v += u;
        }
        v += before;
        if (i + lane < s.n) y[at] = (float)(add ? (double)y[at] + v : v);
        before = __shfl_sync(NN__FULL, v, 31);
    }
}
static int nn__running_sum(nn__cuda *d, const nn_call *c, const nn_view *x, const nn_view *y, int back, int add)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    if (s.outer * s.n * s.inner == 0 || !y->data) return 1;
    if (s.inner == 1) NN__LAUNCH(d, nn__k_cumsum_lines, dim3(NN__BLOCKS(s.outer, 8)), dim3(256), 0, s, (const float *)x->data, (float *)y->data, back, add);
    else NN__LAUNCH(d, nn__k_cumsum_columns, dim3(NN__BLOCKS(s.outer * s.inner, 256)), dim3(256), 0, s, (const float *)x->data, (float *)y->data, back, add);
    return 1;
}
static int nn__cuda_cumsum(nn__cuda *d, const nn_call *c)      { return nn__running_sum(d, c, &c->in[0], &c->out[0], 0, 0); }
static int nn__cuda_cumsum_back(nn__cuda *d, const nn_call *c) { return nn__running_sum(d, c, &c->dout[0], &c->din[0], 1, (int)(c->add & 1)); }
#define NN__CUDA_REDUCE(X) \
    X(sum, nn__cuda_reduce, nn__cuda_reduce_back) X(max, nn__cuda_reduce, nn__cuda_reduce_back) X(min, nn__cuda_reduce, nn__cuda_reduce_back) \
    X(prod, nn__cuda_reduce, nn__cuda_reduce_back) X(var, nn__cuda_reduce, nn__cuda_reduce_back) X(std, nn__cuda_reduce, nn__cuda_reduce_back) \
    X(logsumexp, nn__cuda_reduce, nn__cuda_reduce_back) X(norm, nn__cuda_reduce, nn__cuda_reduce_back) \
    X(argmax, nn__cuda_arg, NULL) X(argmin, nn__cuda_arg, NULL) X(cumsum, nn__cuda_cumsum, nn__cuda_cumsum_back)

// =============================================================================================
// >>shape   Ops that move numbers. Kernels that meet a bad index skip it and note it; the next download or sync reports it.
// =============================================================================================
#define NN__EACH(l) int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; if (i >= (l).count) return      // one number a thread
NN__DEV void nn__bad_index(nn__fault *f, int op, int64_t index, int64_t size)
{
    if (atomicCAS(&f->op, 0, op) == 0) { f->index = index; f->size = size; }
}
NN__DEV int64_t nn__index_at(int dtype, const void *p, int64_t i) { return dtype == NN_I64 ? ((const int64_t *)p)[i] : (int64_t)((const int32_t *)p)[i]; }
// The kernels that move move bytes: a number of 1, 2, 4 or 8 of them.
NN__DEV void nn__move_one(int bytes, void *to, int64_t a, const void *from, int64_t b)
{
    if (bytes == 4)      ((uint32_t *)to)[a] = ((const uint32_t *)from)[b];
    else if (bytes == 8) ((uint64_t *)to)[a] = ((const uint64_t *)from)[b];
    else if (bytes == 2) ((uint16_t *)to)[a] = ((const uint16_t *)from)[b];
    else                 ((uint8_t *)to)[a] = ((const uint8_t *)from)[b];
}
NN__DEV void nn__clear_one(int bytes, void *to, int64_t a)
{
    if (bytes == 4)      ((uint32_t *)to)[a] = 0;
    else if (bytes == 8) ((uint64_t *)to)[a] = 0;
    else if (bytes == 2) ((uint16_t *)to)[a] = 0;
    else                 ((uint8_t *)to)[a] = 0;
}
static int nn__width(const nn_view *v) { return (int)nn_dtype_bytes((nn_dtype)v->dtype); }

static nn_view nn__concat_part(const nn_call *c, const nn_view *whole, int i)    // where input i lies
{
    nn_view part = *whole;
    int k, dim = *(const int *)c->params;
    int64_t at = 0;
    for (k = 0; k < i; k++) at += c->in[k].shape[dim];
    part.shape[dim] = c->in[i].shape[dim];
    if (nn_view_count(&part)) part.data = (char *)part.data + at * part.stride[dim] * nn__width(whole);
    return part;
}
static int nn__cuda_concat(nn__cuda *d, const nn_call *c)
{
    int i;
    for (i = 0; i < c->nin; i++) { nn_view part = nn__concat_part(c, &c->out[0], i); nn__move(d, &part, &c->in[i], 0); }
    return 1;
}
static int nn__cuda_concat_back(nn__cuda *d, const nn_call *c)
{
    int i;
    for (i = 0; i < c->nin; i++) {
        nn_view part = nn__concat_part(c, &c->dout[0], i);
        if (c->din[i].data) nn__move(d, &c->din[i], &part, (int)(c->add >> i & 1));
    }
    return 1;
}

// ---- gather, scatter_add: the elements of an index, each with a place in `part` and a line of `table` along dim ---------------
// Additions to one number of the table go in the order of the index. Only elements of one line can meet there: the first of those that name
// a number adds them all. Long lines have one thread each instead.
enum { NN__GETS, NN__ADDS };         // part = table[index], part += table[index]
typedef struct nn__by { nn__lay l; int64_t size, along, n, step[3]; int dtype, bytes, op; } nn__by;      // l: index, table (its line), part. step: along dim in all three
static __global__ void __launch_bounds__(256) nn__k_by_index(nn__by b, int how, const void *index, const void *table, void *part, nn__fault *f)
{
    int64_t at[3];
    NN__EACH(b.l);
    nn__offsets(b.l, i, at);
    int64_t k = nn__index_at(b.dtype, index, at[0]);
    int bad = k < 0 || k >= b.size;
    if (bad && f) nn__bad_index(f, b.op, k, b.size);
    if (how == NN__ADDS) { if (!bad) ((float *)part)[at[2]] += ((const float *)table)[at[1] + k * b.along]; }
    else if (bad) nn__clear_one(b.bytes, part, at[2]);
    else nn__move_one(b.bytes, part, at[2], table, at[1] + k * b.along);
}
NN__DEV void nn__add_one(int dtype, void *to, int64_t a, const void *from, int64_t b)
{
    if (dtype == NN_F32) ((float *)to)[a] += ((const float *)from)[b];
    else if (nn__is_whole(dtype)) nn__put_int(dtype, to, a, (int64_t)((uint64_t)nn__get_int(dtype, to, a) + (uint64_t)nn__get_int(dtype, from, b)));
    else nn__put_float(dtype, to, a, nn__get_float(dtype, to, a) + nn__get_float(dtype, from, b));
}
// l: without dim: lines. A thread per element of the index (owners), or per line.
static __global__ void __launch_bounds__(256) nn__k_table_adds(nn__by b, int owners, int numbers, const void *index, void *table, const void *part, nn__fault *f)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, at[3], first = owners ? i % b.n : 0, line = owners ? i / b.n : i;
    if (line >= b.l.count) return;
    nn__offsets(b.l, line, at);
    int64_t mine = owners ? nn__index_at(b.dtype, index, at[0] + first * b.step[0]) : 0;
    for (int64_t j = 0; j < first; j++) if (nn__index_at(b.dtype, index, at[0] + j * b.step[0]) == mine) return;
    for (int64_t j = first; j < b.n; j++) {
        int64_t k = nn__index_at(b.dtype, index, at[0] + j * b.step[0]);
        if (owners && k != mine) continue;
        if (k >= 0 && k < b.size) nn__add_one(numbers, table, at[1] + k * b.along, part, at[2] + j * b.step[2]);
        else if (f) nn__bad_index(f, b.op, k, b.size);
    }
}
static nn__by nn__by_of(const nn_call *c, const nn_view *table, const nn_view *part, int lines)
{
    int dim = *(const int *)c->params;
    nn_view index = c->in[1], others = index, mine = index;
    const nn_view *v[3];
    nn__by b = {};
    memcpy(others.stride, table->stride, sizeof others.stride);
    memcpy(mine.stride, part->stride, sizeof mine.stride);
    b.size = table->shape[dim]; b.along = table->stride[dim]; b.n = index.shape[dim];
    b.step[0] = index.stride[dim]; b.step[2] = part->stride[dim];
    others.stride[dim] = 0;
    if (lines) index.shape[dim] = others.shape[dim] = mine.shape[dim] = 1;
    v[0] = &index; v[1] = &others; v[2] = &mine;
    b.l = nn__lay_of(3, v);
    b.dtype = index.dtype; b.bytes = nn__width(table); b.op = c->op->id;
    return b;
}
static int nn__by_index(nn__cuda *d, const nn_call *c, int how, const nn_view *table, const nn_view *part, nn__fault *f)
{
    nn__by b = nn__by_of(c, table, part, 0);
    if (b.l.count) NN__LAUNCH(d, nn__k_by_index, dim3(NN__BLOCKS(b.l.count, 256)), dim3(256), 0, b, how, (const void *)c->in[1].data, (const void *)table->data, part->data, f);
    return 1;
}
static int nn__table_adds(nn__cuda *d, const nn_call *c, const nn_view *table, const nn_view *part, nn__fault *f)
{
    nn__by b = nn__by_of(c, table, part, 1);
    int owners = b.n <= 16384;
    if (b.l.count && b.n) NN__LAUNCH(d, nn__k_table_adds, dim3(NN__BLOCKS(owners ? b.l.count * b.n : b.l.count, 256)), dim3(256), 0,
                                     b, owners, table->dtype, (const void *)c->in[1].data, table->data, (const void *)part->data, f);
    return 1;
}
static int nn__cuda_gather(nn__cuda *d, const nn_call *c)      { return nn__by_index(d, c, NN__GETS, &c->in[0], &c->out[0], nn__cuda_may_fault(d, c)); }
static int nn__cuda_gather_back(nn__cuda *d, const nn_call *c) { return c->din[0].data ? nn__table_adds(d, c, &c->din[0], &c->dout[0], NULL) : 1; }
static int nn__cuda_scatter_add(nn__cuda *d, const nn_call *c)
{
    nn__move(d, &c->out[0], &c->in[0], 0);
    return nn__table_adds(d, c, &c->out[0], &c->in[2], nn__cuda_may_fault(d, c));
}
static int nn__cuda_scatter_add_back(nn__cuda *d, const nn_call *c)     // both gradients are added to
{
    if (c->din[0].data) nn__move(d, &c->din[0], &c->dout[0], 1);
    if (c->din[2].data) nn__by_index(d, c, NN__ADDS, &c->dout[0], &c->din[2], NULL);
    return 1;
}

// ---- one_hot, tril, triu, arange -----------------------------------------------------------------------------------------
static __global__ void __launch_bounds__(256) nn__k_one_hot(int64_t n, int64_t classes, int dtype, const void *index, float *y, int op, nn__fault *f)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= n * classes) return;
    int64_t k = nn__index_at(dtype, index, i / classes);
    y[i] = k == i % classes ? 1.0f : 0.0f;
    if (i % classes == 0 && (k < 0 || k >= classes)) nn__bad_index(f, op, k, classes);
}
static int nn__cuda_one_hot(nn__cuda *d, const nn_call *c)
{
    int64_t n = nn_view_count(&c->in[0]), classes = *(const int64_t *)c->params;
    nn__fault *f = nn__cuda_may_fault(d, c);
    if (n) NN__LAUNCH(d, nn__k_one_hot, dim3(NN__BLOCKS(n * classes, 256)), dim3(256), 0, n, classes, c->in[0].dtype, (const void *)c->in[0].data, (float *)c->out[0].data, c->op->id, f);
    return 1;
}
static __global__ void __launch_bounds__(256) nn__k_triangle(int64_t count, int64_t m, int64_t n, int64_t diagonal, int upper, int bytes, const void *x, void *y, int add)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    int64_t off = i % n - i / n % m;
    int in = upper ? off >= diagonal : off <= diagonal;
    if (add) { if (in) ((float *)y)[i] += ((const float *)x)[i]; }
    else if (in) nn__move_one(bytes, y, i, x, i);
    else nn__clear_one(bytes, y, i);
}
static int nn__triangle(nn__cuda *d, const nn_call *c, const nn_view *x, const nn_view *y, int add)
{
    int64_t n = nn_view_count(y);
    if (n && y->data) NN__LAUNCH(d, nn__k_triangle, dim3(NN__BLOCKS(n, 256)), dim3(256), 0, n, y->shape[y->ndim - 2], y->shape[y->ndim - 1], *(const int64_t *)c->params,
                                 c->op->id == NN_OP_triu, nn__width(y), (const void *)x->data, y->data, add);
    return 1;
}
static int nn__cuda_triangle(nn__cuda *d, const nn_call *c)      { return nn__triangle(d, c, &c->in[0], &c->out[0], 0); }
static int nn__cuda_triangle_back(nn__cuda *d, const nn_call *c) { return nn__triangle(d, c, &c->dout[0], &c->din[0], (int)(c->add & 1)); }
static __global__ void __launch_bounds__(256) nn__k_arange(nn__lay l, nn__range_params p, int dtype, void *y)
{
    int64_t at[1];
    NN__EACH(l);
    nn__offsets(l, i, at);
    double v = p.end == p.end && i >= l.count / 2 ? p.end - (double)(l.count - 1 - i) * p.step : p.start + (double)i * p.step;
    if (nn__is_whole(dtype)) nn__put_int(dtype, y, at[0], (int64_t)v);
    else nn__put_float(dtype, y, at[0], (float)v);
}
static int nn__cuda_arange(nn__cuda *d, const nn_call *c)
{
    const nn_view *v[1] = { &c->out[0] };
    nn__lay l = nn__lay_of(1, v);
    if (l.count) NN__LAUNCH(d, nn__k_arange, dim3(NN__BLOCKS(l.count, 256)), dim3(256), 0, l, *(const nn__range_params *)c->params, v[0]->dtype, v[0]->data);
    return 1;
}

// ---- sort, topk: pairs of key and index in a total order, so that equal numbers stay in theirs --------------------------------
// Runs of NN__SORT_RUN are sorted in shared memory (bitonic, Batcher 1968); then pairs of runs merge: a pair's place is its place in its own
// run plus the number of smaller pairs in the other, found by bisection. Of few that are wanted (keep) every run hands on only its first, which are
// sorted again, until there is one run.
enum { NN__SORT_RUN = 1024 };
typedef struct nn__pair { int64_t key, index; } nn__pair;
NN__DEV int nn__before(const nn__pair &a, const nn__pair &b) { return a.key < b.key || (a.key == b.key && a.index < b.index); }
static __global__ void __launch_bounds__(256) nn__k_sort_runs(nn__three s, int64_t count, int runs, int dtype, const void *x, int descending, const nn__pair *from, int keep, nn__pair *to)
{
    NN_SHARED(nn__pair, run, [NN__SORT_RUN]);
    int64_t line = blockIdx.x / runs, first = (int64_t)(blockIdx.x % runs) * NN__SORT_RUN, base = line / s.inner * s.n * s.inner + line % s.inner;
    int n = count - first < NN__SORT_RUN ? (int)(count - first) : NN__SORT_RUN, room = 1, nan;
    const nn__pair none = { INT64_MAX, INT64_MAX };
    while (room < n) room *= 2;
    for (int i = threadIdx.x; i < room; i += 256) {
        int64_t key = i < n && !from ? nn__order_key(dtype, x, base + (first + i) * s.inner, &nan) : 0;
        nn__pair p = { descending ? ~key : key, first + i };
        run[i] = i >= n ? none : from ? from[line * count + first + i] : p;
    }
    __syncthreads();
    for (int size = 2; size <= room; size *= 2) for (int gap = size / 2; gap; gap /= 2) {
        for (int i = threadIdx.x; i < room / 2; i += 256) {
            int a = 2 * i - (i & (gap - 1)), b = a + gap;
            nn__pair p = run[a], q = run[b];
            if (nn__before(q, p) == ((a & size) == 0)) { run[a] = q; run[b] = p; }
        }
        __syncthreads();
    }
    to += keep ? (int64_t)blockIdx.x * keep : line * count + first;
    for (int i = threadIdx.x; i < (keep ? keep : n); i += 256) to[i] = i < room ? run[i] : none;
}
static __global__ void __launch_bounds__(256) nn__k_sort_merge(int64_t count, int64_t n, int64_t width, const nn__pair *from, nn__pair *to)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= count) return;
    int64_t at = i % n, mine = at / width, base = i - at, low = (mine ^ 1) * width, start = low < n ? low : n, high = low + width < n ? low + width : n;
    nn__pair p = from[i];
    for (low = start; low < high;) {
        int64_t mid = low + (high - low) / 2;
        if (nn__before(from[base + mid], p)) low = mid + 1; else high = mid;
    }
    to[base + (mine & ~(int64_t)1) * width + at % width + (low - start)] = p;
}
static __global__ void __launch_bounds__(256) nn__k_sorted(nn__three s, int64_t k, int64_t pitch, int bytes, const nn__pair *order, const void *x, void *y, int64_t *index)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= s.outer * k * s.inner) return;
    int64_t outer = i / (k * s.inner), inner = i % s.inner, from = order[(outer * s.inner + inner) * pitch + i / s.inner % k].index;
    nn__move_one(bytes, y, i, x, (outer * s.n + from) * s.inner + inner);
    index[i] = from;
}
static int nn__cuda_sort(nn__cuda *d, const nn_call *c)
{
    const nn__sort_params *p = (const nn__sort_params *)c->params;
    nn__three s = nn__around(&c->in[0], p->dim);
    int64_t lines = s.outer * s.inner, width, total = s.outer * p->k * s.inner, runs = (s.n + NN__SORT_RUN - 1) / NN__SORT_RUN;
    int64_t keep = runs > 1 && p->k <= NN__SORT_RUN / 2 ? p->k : 0, pitch = keep ? keep : s.n, pairs = lines * (keep ? runs * keep : s.n);
    nn__pair *a, *b;
    if (total == 0) return 1;
    if (lines * runs > 0x7fffffff) return 0;
    a = (nn__pair *)nn__cuda_scratch(d, (size_t)pairs * sizeof *a);
    b = runs > 1 ? (nn__pair *)nn__cuda_scratch(d, (size_t)pairs * sizeof *b) : a;
    if (!a || !b) return 1;
    NN__LAUNCH(d, nn__k_sort_runs, dim3(nn__grid(lines * runs)), dim3(256), 0, s, s.n, (int)runs, c->in[0].dtype, (const void *)c->in[0].data, p->descending, (const nn__pair *)NULL, (int)keep, a);
    for (width = NN__SORT_RUN; keep ? runs > 1 : width < s.n; width *= 2) {
        nn__pair *other = a;
        int64_t fewer = (runs * keep + NN__SORT_RUN - 1) / NN__SORT_RUN;
        if (keep) NN__LAUNCH(d, nn__k_sort_runs, dim3(nn__grid(lines * fewer)), dim3(256), 0, s, runs * keep, (int)fewer, c->in[0].dtype, (const void *)NULL, 0, (const nn__pair *)a, (int)keep, b);
        else NN__LAUNCH(d, nn__k_sort_merge, dim3(NN__BLOCKS(lines * s.n, 256)), dim3(256), 0, lines * s.n, s.n, width, (const nn__pair *)a, b);
        runs = fewer;
        a = b;
        b = other;
    }
    NN__LAUNCH(d, nn__k_sorted, dim3(NN__BLOCKS(total, 256)), dim3(256), 0, s, p->k, pitch, nn__width(&c->in[0]), (const nn__pair *)a, (const void *)c->in[0].data, c->out[0].data, (int64_t *)c->out[1].data);
    return 1;
}
static __global__ void __launch_bounds__(256) nn__k_sort_back(nn__three s, int64_t k, const int64_t *index, const float *dy, float *dx)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= s.outer * k * s.inner) return;
    dx[(i / (k * s.inner) * s.n + index[i]) * s.inner + i % s.inner] += dy[i];      // an index names a number once
}
static int nn__cuda_sort_back(nn__cuda *d, const nn_call *c)
{
    const nn__sort_params *p = (const nn__sort_params *)c->params;
    nn__three s = nn__around(&c->in[0], p->dim);
    int64_t total = s.outer * p->k * s.inner;
    if (total && c->din[0].data) NN__LAUNCH(d, nn__k_sort_back, dim3(NN__BLOCKS(total, 256)), dim3(256), 0, s, p->k,
                                             (const int64_t *)c->out[1].data, (const float *)c->dout[0].data, (float *)c->din[0].data);
    return 1;
}

// ---- pad: position o of the result comes from o - left; outside: the value, mirrored without the edge, or the edge ------------
typedef struct nn__padding { int ndim, mode; int64_t count, n[NN_MAX_DIMS], m[NN_MAX_DIMS], left[NN_MAX_DIMS]; } nn__padding;      // sizes of x, of y
static __global__ void __launch_bounds__(256) nn__k_pad(nn__padding p, int bytes, uint64_t value, const void *x, void *y)
{
    int64_t from = 0, scale = 1;
    NN__EACH(p);
    int64_t at = i;
    for (int k = p.ndim - 1; k >= 0; k--) {
        int64_t o = at % p.m[k] - p.left[k], n = p.n[k];
        at /= p.m[k];
        if (o < 0 || o >= n) {
            if (p.mode == NN_PAD_CONSTANT) { from = -1; break; }
            o = p.mode == NN_PAD_REPLICATE ? (o < 0 ? 0 : n - 1) : o < 0 ? -o : 2 * (n - 1) - o;
        }
        from += o * scale;
        scale *= n;
    }
    if (from >= 0) nn__move_one(bytes, y, i, x, from);
    else if (bytes == 4) ((uint32_t *)y)[i] = (uint32_t)value;
    else if (bytes == 8) ((uint64_t *)y)[i] = value;
    else if (bytes == 2) ((uint16_t *)y)[i] = (uint16_t)value;
    else ((uint8_t *)y)[i] = (uint8_t)value;
}
// Position number j, in rising order, of those in a dimension that show i; -1: there are no more.
NN__DEV int64_t nn__pad_place(const nn__padding &p, int k, int64_t i, int64_t j)
{
    int64_t n = p.n[k], m = p.m[k], left = p.left[k], at = left + i, first = at, last = at;
    if (p.mode == NN_PAD_REPLICATE) {
        if (i == 0) first = 0;
        if (i == n - 1) last = m - 1;
        first = first < 0 ? 0 : first;
        last = last > m - 1 ? m - 1 : last;
        return first + j <= last ? first + j : -1;
    }
    for (int side = 0; side < 3; side++) {
        int64_t o = side == 0 ? left - i : side == 1 ? at : left + 2 * (n - 1) - i;
        int in = o >= 0 && o < m && (side == 1 || p.mode == NN_PAD_REFLECT) && (side != 0 || i > 0) && (side != 2 || i < n - 1);
        if (in && j-- == 0) return o;
    }
    return -1;
}
static __global__ void __launch_bounds__(256) nn__k_pad_back(nn__padding p, const float *dy, float *dx)      // a thread per number of x; count: of x
{
    int64_t at[NN_MAX_DIMS], j[NN_MAX_DIMS], o[NN_MAX_DIMS], rest;
    NN__EACH(p);
    float sum = dx[i];
    rest = i;
    NN_UNROLL for (int k = NN_MAX_DIMS - 1; k >= 0; k--) {
        at[k] = j[k] = o[k] = 0;
        if (k >= p.ndim) continue;
        at[k] = rest % p.n[k];
        rest /= p.n[k];
        o[k] = nn__pad_place(p, k, at[k], 0);
        if (o[k] < 0) return;                            // cut away
    }
    for (int more = 1; more;) {
        int64_t from = 0;
        NN_UNROLL for (int k = 0; k < NN_MAX_DIMS; k++) if (k < p.ndim) from = from * p.m[k] + o[k];
        sum += dy[from];
        more = 0;
        NN_UNROLL for (int k = NN_MAX_DIMS - 1; k >= 0; k--) {
            if (k >= p.ndim || more) continue;
            int64_t next = nn__pad_place(p, k, at[k], ++j[k]);
            more = next >= 0;
            if (!more) j[k] = 0;
            o[k] = more ? next : nn__pad_place(p, k, at[k], 0);
        }
    }
    dx[i] = sum;
}
static nn__padding nn__padding_of(const nn_call *c, int64_t count)
{
    const nn__pad_params *q = (const nn__pad_params *)c->params;
    nn__padding p = {};
    int k;
    p.ndim = c->in[0].ndim; p.mode = q->mode; p.count = count;
    for (k = 0; k < p.ndim; k++) { p.n[k] = c->in[0].shape[k]; p.left[k] = q->left[k]; p.m[k] = c->in[0].shape[k] + q->left[k] + q->right[k]; }
    return p;
}
static uint64_t nn__bits_of(int dtype, double v)         // the bytes of v as a number of that type
{
    uint64_t bits = 0;
    int64_t whole = v != v ? 0 : v < -9.2e18 ? INT64_MIN : v > 9.2e18 ? INT64_MAX : (int64_t)v;
    float f = (float)v;
    uint32_t w;
    memcpy(&w, &f, 4);
    switch (dtype) {
    case NN_F32:  return w;
    case NN_BF16: return v != v ? 0x7FC0u : ((uint64_t)w + 0x7FFFu + (w >> 16 & 1)) >> 16;
    case NN_F16:                     // by the rules of nn__to_f16
        if (v != v) return 0x7E00u;
        bits = w >> 16 & 0x8000u;
        f = fabsf(f);
        if (f >= 65520.0f) return bits | 0x7C00u;
        if (f < 6.103515625e-05f) return bits | (uint64_t)rintf(f * 16777216.0f);
        memcpy(&w, &f, 4);
        return bits | ((((uint64_t)w + 0xFFFu + (w >> 13 & 1)) >> 13) - (112u << 10));
    case NN_I8:   return (uint8_t)(whole < -128 ? -128 : whole > 127 ? 127 : whole);
    case NN_U8:   return (uint8_t)(whole < 0 ? 0 : whole > 255 ? 255 : whole);
    case NN_BOOL: return v != 0;
    case NN_I32:  return (uint32_t)(whole < INT32_MIN ? INT32_MIN : whole > INT32_MAX ? INT32_MAX : whole);
    default:      return (uint64_t)whole;
    }
}
static int nn__cuda_pad(nn__cuda *d, const nn_call *c)
{
    nn__padding p = nn__padding_of(c, nn_view_count(&c->out[0]));
    if (p.count) NN__LAUNCH(d, nn__k_pad, dim3(NN__BLOCKS(p.count, 256)), dim3(256), 0, p, nn__width(&c->in[0]), nn__bits_of(c->in[0].dtype, ((const nn__pad_params *)c->params)->value),
                            (const void *)c->in[0].data, c->out[0].data);
    return 1;
}
static int nn__cuda_pad_back(nn__cuda *d, const nn_call *c)
{
    nn__padding p = nn__padding_of(c, nn_view_count(&c->in[0]));
    if (p.count && c->din[0].data && nn_view_count(&c->dout[0]))
        NN__LAUNCH(d, nn__k_pad_back, dim3(NN__BLOCKS(p.count, 256)), dim3(256), 0, p, (const float *)c->dout[0].data, (float *)c->din[0].data);
    return 1;
}
#define NN__CUDA_SHAPE(X) \
    X(concat, nn__cuda_concat, nn__cuda_concat_back) X(gather, nn__cuda_gather, nn__cuda_gather_back) X(scatter_add, nn__cuda_scatter_add, nn__cuda_scatter_add_back) \
    X(one_hot, nn__cuda_one_hot, NULL) X(tril, nn__cuda_triangle, nn__cuda_triangle_back) \
    X(triu, nn__cuda_triangle, nn__cuda_triangle_back) X(sort, nn__cuda_sort, nn__cuda_sort_back) X(topk, nn__cuda_sort, nn__cuda_sort_back) \
    X(pad, nn__cuda_pad, nn__cuda_pad_back) X(arange, nn__cuda_arange, NULL)

// =============================================================================================
// >>optim   Parameter updates. nn.h asks for them parameter by parameter; calls of one kind that follow each other wait (nn__cuda_flush) and
// leave in one launch of up to NN__BATCH tensors. The order of operations is PyTorch's, as in nn.h; p, g and the states are flat memory.
// =============================================================================================
NN__DEV float nn__decayed(float p, float g, const nn__rates &u)      { return u.decays ? fmaf(u.weight_decay, p, g) : g; }
NN__DEV float nn__lerp(float a, float b, float w, int late)          { return late ? fmaf(w - 1.0f, b - a, b) : fmaf(w, b - a, a); }
#define NN__CUDA_UPDATE(name, states) struct nn__u_##name { enum { STATES = states }; NN__DEV float at(float p, float g, float *s, const nn__rates &u); }; \
    NN__DEV_OUT float nn__u_##name::at(float p, float g, float *s, const nn__rates &u)
#define NN__DEV_OUT __device__ __forceinline__
NN__CUDA_UPDATE(sgd, 1)
{
    g = nn__decayed(p, g, u);
    if (u.momentum) {
        s[0] = u.first ? g : fmaf(u.rest1, g, s[0] * u.decay1);
        g = u.nesterov ? fmaf(u.decay1, s[0], g) : s[0];
    }
    return fmaf(-u.lr, g, p);
}
NN__CUDA_UPDATE(rmsprop, 3)
{
    g = nn__decayed(p, g, u);
    float v = s[0] = s[0] * u.decay2 + u.rest2 * g * g;
    if (u.centered) {
        s[2] = nn__lerp(s[2], g, u.rest2, u.far1);
        v = v - s[2] * s[2];
    }
    v = sqrtf(v) + u.eps;
    if (!u.momentum) return p - u.lr * g / v;
    s[1] = s[1] * u.decay1 + g / v;
    return fmaf(-u.lr, s[1], p);
}
NN__CUDA_UPDATE(adagrad, 1)
{
    g = nn__decayed(p, g, u);
    s[0] = s[0] + g * g;
    return p - u.lr * g / (sqrtf(s[0]) + u.eps);
}
NN__CUDA_UPDATE(adam, 3)
{
    p = p * u.shrink;
    g = nn__decayed(p, g, u);
    s[0] = nn__lerp(s[0], g, u.rest1, u.far1);
    float v = s[1] = s[1] * u.decay2 + u.rest2 * g * g;
    if (u.amsgrad) v = s[2] = s[2] > v ? s[2] : v;
    return p - u.lr * s[0] / (sqrtf(v) / u.correct + u.eps);
}
NN__CUDA_UPDATE(nadam, 2)
{
    g = nn__decayed(p, g, u);
    s[0] = nn__lerp(s[0], g, u.rest1, u.far1);
    s[1] = s[1] * u.decay2 + u.rest2 * g * g;
    float d = sqrtf(s[1] / u.correct) + u.eps;
    p = p - u.lr_grad * g / d;
    return p - u.lr * s[0] / d;
}
NN__CUDA_UPDATE(lion, 1)
{
    float d = s[0] * u.decay1 + g * u.rest1;
    p = p * u.shrink;
    s[0] = fmaf(u.rest2, g, s[0] * u.decay2);
    return fmaf(-u.lr, d > 0 ? 1.0f : d < 0 ? -1.0f : d, p);
}
NN__CUDA_UPDATE(ema, 0) { (void)s; return fmaf(g, u.rest1, p * u.decay1); }
NN__CUDA_UPDATE(swap, 1) { (void)u; s[0] = p; return g; }            // states: what lies where g lies

// Blocks of 1024 numbers; those of tensor k begin at block[k].
NN__DEV int nn__tensor_of(const nn__parts &a)
{
    int k = 0;
    while (k + 1 < a.count && blockIdx.x >= a.part[k + 1].block) k++;
    return k;
}
NN__DEV void nn__flat_get(float *v, const float *p, int n, int fours)        // fours: they lie as 16 aligned bytes
{
    if (fours) { nn__get4(v, p, 1, n); return; }
    NN_UNROLL for (int j = 0; j < 4; j++) v[j] = j < n ? p[j] : 0.0f;
}
NN__DEV void nn__flat_put(float *p, const float *v, int n, int fours)
{
    if (fours) { nn__put4(p, v, 1, n); return; }
    NN_UNROLL for (int j = 0; j < 4; j++) if (j < n) p[j] = v[j];
}
// scale: what gradients are multiplied by, and whether none may be used. now: the rates instead of `own`; with loss scaling those of each tensor:
template <class F> static __global__ void __launch_bounds__(256) nn__k_update(nn__parts a, nn__rates own, const nn__rates *now, const float *scale)
{
    int at = nn__tensor_of(a);
    const nn__part &t = a.part[at];
    nn__rates u = own;
    int64_t i = ((int64_t)(blockIdx.x - t.block) * 256 + threadIdx.x) * 4;
    float p[4], g[4], s[3][4], mine[3], by = scale ? scale[0] : 1.0f;
    if (i >= t.n || (scale && scale[1] != 0.0f)) return;
    if (now) u = now[t.count ? at : 0];
    int n = t.n - i < 4 ? (int)(t.n - i) : 4;
    nn__flat_get(p, t.p + i, n, t.fours);
    nn__flat_get(g, t.g + i, n, t.fours);
    NN_UNROLL for (int k = 0; k < F::STATES; k++) { if (t.s[k]) nn__flat_get(s[k], t.s[k] + i, n, t.fours); else s[k][0] = s[k][1] = s[k][2] = s[k][3] = 0.0f; }
    NN_UNROLL for (int j = 0; j < 4; j++) {
        float x = g[j] * by;
        if (u.clips) x = x < -u.clip_value ? -u.clip_value : x > u.clip_value ? u.clip_value : x;
        for (int k = 0; k < F::STATES; k++) mine[k] = s[k][j];
        p[j] = F::at(p[j], x, mine, u);
        for (int k = 0; k < F::STATES; k++) s[k][j] = mine[k];
    }
    nn__flat_put(t.p + i, p, n, t.fours);
    NN_UNROLL for (int k = 0; k < F::STATES; k++) if (t.s[k]) nn__flat_put(t.s[k] + i, s[k], n, t.fours);
}
// Loss scaling: one more update of each tensor, and its rates then; or none.
static __global__ void __launch_bounds__(64) nn__k_count(nn__parts a, nn__rates own, const nn__rates *now, const float *scale, nn__rates *to)
{
    int k = (int)threadIdx.x;
    if (k >= a.count || scale[1] != 0.0f) return;
    nn__rates u = now ? *now : own;
    float *count = a.part[k].count;
    double product = (double)count[1];
    int64_t t = (int64_t)count[0] + 1;
    NN__UPDATE_AT(float, &u, u.op, t, u.base, u.beta1, u.beta2, u.speed, product);
    count[0] = (float)t;
    count[1] = (float)product;
    to[k] = u;
}
// Sums of squares of many tensors: a number per block, then one warp per tensor adds its blocks. loss[0] divides; NaN where a number is not finite.
static __global__ void __launch_bounds__(256) nn__k_square_sum(nn__parts a, float *part, const float *loss)
{
    NN_SHARED(float, warps, [32]);
    const nn__part &t = a.part[nn__tensor_of(a)];
    int64_t i = ((int64_t)(blockIdx.x - t.block) * 256 + threadIdx.x) * 4;
    float sum = 0, by = loss ? (float)(1.0 / (double)loss[0]) : 1.0f;
    float v[4];
    if (i < t.n) {
        nn__flat_get(v, t.p + i, t.n - i < 4 ? (int)(t.n - i) : 4, !((uintptr_t)t.p & 15));
        for (int j = 0; j < 4; j++) sum = fmaf(v[j] * by, v[j] * by, loss ? sum + (v[j] - v[j]) : sum);
    }
    sum = nn__block_sum(sum, warps);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}
static __global__ void nn__k_square_join(nn__parts a, unsigned blocks, const float *part)
{
    const nn__part &t = a.part[blockIdx.x];
    unsigned end = (int)blockIdx.x + 1 < a.count ? a.part[blockIdx.x + 1].block : blocks;
    float sum = 0;
    for (unsigned i = t.block + threadIdx.x; i < end; i += 32) sum += part[i];
    sum = nn__warp_sum(sum);
    if (threadIdx.x == 0) *t.s[0] = sum;
}
#define NN__CUDA_UPDATED(op, name) case NN_OP_##op: NN__LAUNCH(d, nn__k_update<nn__u_##name>, dim3(blocks), dim3(256), 0, b->parts, b->rates, now, b->scale); break;
static void nn__cuda_flush_now(nn__cuda *d)              // what waits is launched
{
    nn__batch *b = &d->batch;
    const nn_call *outer = d->call;
    nn_call c = {};
    unsigned blocks = b->blocks;
    const nn__rates *now = d->making && d->making->batches ? &d->making->now->rates[d->making->batches - 1] : NULL;
    float *part;
    c.op = b->op;
    c.nn = b->nn;
    d->call = &c;
    d->failed = 0;
    d->scratch_used = d->scratch_wanted = 0;
    if (b->op->id == NN_OP_ema_update || b->op->id == NN_OP_swap) now = NULL;        // nothing about them varies
    if (b->parts.part[0].count) {    // with loss scaling
        nn__rates *to = (nn__rates *)nn__cuda_scratch(d, NN__BATCH * sizeof *to);
        if (to) NN__LAUNCH(d, nn__k_count, dim3(1), dim3(64), 0, b->parts, b->rates, now, b->scale, to);
        now = to;
    }
    if (blocks) switch (b->op->id) {
    NN__CUDA_UPDATED(sgd_update, sgd) NN__CUDA_UPDATED(rmsprop_update, rmsprop) NN__CUDA_UPDATED(adagrad_update, adagrad) NN__CUDA_UPDATED(adam_update, adam)
    NN__CUDA_UPDATED(nadam_update, nadam) NN__CUDA_UPDATED(lion_update, lion) NN__CUDA_UPDATED(ema_update, ema) NN__CUDA_UPDATED(swap, swap)
    default: break;
    }
    if (b->op->id == NN_OP_square_sum) {
        part = (float *)nn__cuda_scratch(d, (blocks ? blocks : 1) * sizeof *part);
        if (part && blocks) NN__LAUNCH(d, nn__k_square_sum, dim3(blocks), dim3(256), 0, b->parts, part, b->scale);
        if (part) NN__LAUNCH(d, nn__k_square_join, dim3((unsigned)b->parts.count), dim3(32), 0, b->parts, blocks, (const float *)part);
    }
    b->parts.count = 0;
    b->blocks = 0;
    d->call = outer;
}
static int nn__cuda_batched(nn__cuda *d, const nn_call *c, const nn__rates *r, const float *scale, float *p, const float *g, float *const *s, int states, float *count)
{
    nn__batch *b = &d->batch;
    int64_t n = nn_view_count(&c->in[0]);
    nn__part *t;
    int k, again = 0;
    if (n > (int64_t)1 << 40) return 0;
    for (k = 0; k < b->parts.count; k++) if (b->parts.part[k].p == p) again = 1;         // one launch must not change a tensor twice
    if (b->parts.count && (again || b->parts.count == NN__BATCH || b->op != c->op || b->nn != c->nn || b->scale != scale || memcmp(&b->rates, r, sizeof *r)
                           || b->blocks > 0x3fffffff)) nn__cuda_flush_now(d);
    b->op = c->op; b->nn = c->nn; b->scale = scale; b->rates = *r;
    if (d->making && c->op->id >= NN_OP_sgd_update && c->op->id <= NN_OP_lion_update) {
        nn__list *l = d->making;
        if (b->parts.count == 0) l->batches++;
        if (l->batches > NN__NOW_BATCHES || l->updates == NN__NOW_UPDATES) { l->batches = 1; l->updates = 0; d->broken = 1; }
        l->batch_of[l->updates++] = (short)(l->batches - 1);
    }
    t = &b->parts.part[b->parts.count++];
    t->p = p; t->g = g; t->n = n; t->block = b->blocks; t->count = count;
    t->fours = nn__aligned(p, g, NULL);
    for (k = 0; k < 3; k++) { t->s[k] = k < states ? s[k] : NULL; if ((uintptr_t)t->s[k] & 15) t->fours = 0; }
    b->blocks += NN__BLOCKS(n, 1024);
    return 1;
}
static nn__rates nn__rates_of(const nn__update_params *u)
{
    nn__rates r = {};
    r.lr = (float)u->lr; r.weight_decay = (float)u->weight_decay; r.shrink = (float)u->shrink;
    r.decay1 = (float)u->decay1; r.rest1 = (float)u->rest1; r.decay2 = (float)u->decay2; r.rest2 = (float)u->rest2;
    r.eps = (float)u->eps; r.correct = (float)u->correct; r.lr_grad = (float)u->lr_grad; r.clip_value = (float)u->clip_value;
    r.decays = u->weight_decay != 0; r.clips = u->clip_value > 0; r.momentum = u->momentum; r.nesterov = u->nesterov;
    r.first = u->first; r.centered = u->centered; r.amsgrad = u->amsgrad; r.far1 = u->far1;
    r.base = u->lr; r.beta1 = u->decay1; r.beta2 = u->decay2; r.speed = u->speed; r.op = u->op;
    return r;
}
// ---- lists: calls are captured as a graph. Its pointers are those of the capture: nn.h forgets a list when memory has moved ----------
static void nn__cuda_forget(void *self, void *list)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__list *l = (nn__list *)list;
    if (!l) return;
    cudaStreamSynchronize(d->stream);
    if (l->exec) cudaGraphExecDestroy(l->exec);
    if (l->graph) cudaGraphDestroy(l->graph);
    if (l->sent) cudaEventDestroy(l->sent);
    if (l->now) { cudaFree(l->now); d->bytes -= (int64_t)sizeof *l->now; }
    if (l->host) cudaFreeHost(l->host);
    free(l);
}
static const void *nn__cuda_scratch_at(const nn__cuda *d) { return d->scratches ? d->scratch[d->scratches - 1].at : NULL; }
static int nn__cuda_record(void *self)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__list *l;
    if (!nn__cuda_ready(d)) return 0;
    nn__cuda_keep_scratch(d, d->scratches > 0);
    l = (nn__list *)calloc(1, sizeof *l);
    if (!l) return 0;
    d->call = NULL;
    l->now = (nn__now *)nn__cuda_take(d, sizeof *l->now);
    if (!l->now || !NN__CU(d, cudaMallocHost((void **)&l->host, sizeof *l->host)) || !NN__CU(d, cudaEventCreateWithFlags(&l->sent, cudaEventDisableTiming)) ||
        !NN__CU(d, cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal))) { nn__cuda_forget(d, l); return 0; }
    memset(l->host, 0, sizeof *l->host);
    l->scratch = nn__cuda_scratch_at(d);
    d->making = l;
    d->broken = 0;
    nn__cuda_now = l->now;
    return 1;
}
static void *nn__cuda_recorded(void *self)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__list *l = d->making;
    cudaError_t e;
    if (d->batch.parts.count) nn__cuda_flush_now(d);
    e = cudaStreamEndCapture(d->stream, &l->graph);
    d->making = NULL;
    nn__cuda_now = NULL;
    if (e == cudaSuccess && !d->broken) e = cudaGraphInstantiate(&l->exec, l->graph, 0);
    if (e != cudaSuccess) { (void)cudaGetLastError(); d->broken = 1; l->exec = NULL; }
    if (!d->broken) return l;
    nn__cuda_forget(d, l);
    return NULL;
}
static int nn__cuda_repeat(void *self, void *list, const nn_call *const *varying, int count)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__list *l = (nn__list *)list;
    nn__rates r;
    int i, update = 0, batch = -1;
    if (!nn__cuda_ready(d) || l->scratch != nn__cuda_scratch_at(d) || !NN__CU(d, cudaEventSynchronize(l->sent))) return 0;
    for (i = 0; i < count; i++) {
        const nn_call *c = varying[i];
        if (c->op->flags & NN_OP_RANDOM) { l->host->seed = c->seed; l->host->step = c->step; continue; }
        if (update == l->updates) return 0;
        r = nn__rates_of((const nn__update_params *)c->params);
        if (l->batch_of[update] != batch) l->host->rates[batch = l->batch_of[update]] = r;
        else if (memcmp(&l->host->rates[batch], &r, sizeof r)) return 0;         // rates that were equal are so no more
        update++;
    }
    d->failed = 0;
    d->repeats++;
    d->launches++;
    d->fault_nn = l->fault_nn ? l->fault_nn : d->fault_nn;
    if (count && (!NN__CU(d, cudaMemcpyAsync(l->now, l->host, sizeof *l->now, cudaMemcpyHostToDevice, d->stream)) || !NN__CU(d, cudaEventRecord(l->sent, d->stream)))) return 0;
    return update == l->updates && NN__CU(d, cudaGraphLaunch(l->exec, d->stream));
}
static int nn__cuda_update(nn__cuda *d, const nn_call *c)        // in: p, g, scale or NULL, up to three states, count
{
    nn__rates r = nn__rates_of((const nn__update_params *)c->params);
    float *s[3];
    int k;
    for (k = 0; k < 3; k++) s[k] = (float *)c->in[3 + k].data;
    return nn__cuda_batched(d, c, &r, (const float *)c->in[2].data, (float *)c->in[0].data, (const float *)c->in[1].data, s, 3, c->nin > 6 ? (float *)c->in[6].data : NULL);
}
static int nn__cuda_plain_update(nn__cuda *d, const nn_call *c)  // ema: p, g; swap: p, what changes places with it; square_sum: p -> a number
{
    int id = c->op->id;
    double decay = id == NN_OP_ema_update ? *(const double *)c->params : 0;
    float *s[1] = { (float *)(id == NN_OP_square_sum ? c->out[0].data : c->in[1].data) };
    nn__rates r = {};
    r.decay1 = (float)decay; r.rest1 = (float)(1 - decay);
    const float *other = c->nin > 1 ? (const float *)c->in[1].data : NULL;           // square_sum: what divides
    if (id == NN_OP_square_sum) return nn__cuda_batched(d, c, &r, other, (float *)c->in[0].data, NULL, s, 1, NULL);
    return nn__cuda_batched(d, c, &r, NULL, (float *)c->in[0].data, other, s, id != NN_OP_ema_update, NULL);
}
static __global__ void nn__k_clip_scale(int64_t n, nn__clip_params p, const float *x, float *y, float *s, float *count)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += 32) sum += (double)x[i];
    for (int m = 16; m; m >>= 1) sum += __shfl_xor_sync(NN__FULL, sum, m);
    if (threadIdx.x == 0) NN__CLIP_AT(float, &p, sum, y, s, count);
}
static int nn__cuda_clip_scale(nn__cuda *d, const nn_call *c)
{
    float *s = c->nin > 1 ? (float *)c->in[1].data : NULL, *count = s ? (float *)c->in[2].data : NULL;
    NN__LAUNCH(d, nn__k_clip_scale, dim3(1), dim3(32), 0, c->in[0].shape[0], *(const nn__clip_params *)c->params, (const float *)c->in[0].data, (float *)c->out[0].data, s, count);
    return 1;
}
#define NN__CUDA_OPTIM(X) \
    X(sgd_update, nn__cuda_update, NULL) X(rmsprop_update, nn__cuda_update, NULL) X(adagrad_update, nn__cuda_update, NULL) X(adam_update, nn__cuda_update, NULL) \
    X(nadam_update, nn__cuda_update, NULL) X(lion_update, nn__cuda_update, NULL) \
    X(ema_update, nn__cuda_plain_update, NULL) X(swap, nn__cuda_plain_update, NULL) X(square_sum, nn__cuda_plain_update, NULL) X(clip_scale, nn__cuda_clip_scale, NULL)

// =============================================================================================
// >>products   matmul, linear, linear_small.
//
// One tile of a product, y(i, j) = sum over p of a(i, p) b(p, j), is the work of one block, and its text serves matrices and convolutions alike:
// a factor is found through two tables, one of its rows (or columns), one of its terms. An index is a number of three digits (q, y, x); every
// digit has a stride in memory and a step in a grid, and where the place in the grid is outside, the factor is 0 (padding). So a matrix, the
// gather of a convolution, its spread and the correlation of its weights differ in numbers only, and nothing is unrolled into memory.
// Sums run in an order that follows from the shapes alone: long ones are cut into parts, which a second kernel adds up in order.
// =============================================================================================
enum { NN__SIDES = 4, NN__FAR = -(1 << 30) };
typedef struct nn__points {          // index -> offset and place
    int64_t count, ny, nx, sq, sy, sx, from;
    int py, px, y0, x0;
} nn__points;
typedef struct nn__factor {
    const float *at;
    nn__points   i, p;               // rows of y (columns of y, for b), terms
    int          h, w, four;         // the grid. four: along the lanes, neighbours come in aligned fours
} nn__factor;
typedef struct nn__side { nn__factor a, b; nn__points column; float *y; int64_t k; } nn__side;      // column: where column j of y is
typedef struct nn__product {
    nn__side side[NN__SIDES];        // products with the same rows, as the phases of a convolution with a stride
    int      sides, add, relu, four, parts;      // four: aligned fours of columns lie side by side in y
    int64_t  m, n, ys, per;          // n: the largest number of columns; ys: from row to row of y; per: terms in one part
    nn__lay  outer;                  // batch entries or groups: strides of a, b, y
    const float *bias;
    int64_t  bi, bj, bz;             // its strides: by row, by column (1 and 0 or 0 and 1), by batch entry
    float   *part;                   // (entry, side, part, m, n) if parts > 1
} nn__product;

NN__DEV int64_t nn__over(int64_t a, int64_t b) { return ((a | b) >> 32) ? a / b : (int64_t)((unsigned)a / (unsigned)b); }
NN__DEV int4 nn__point(const nn__points &s, int64_t i, int64_t end)          // offset (low, high), place; out of the grid from `end` on
{
    int64_t q, y, x, off;
    int4 r;
    if (i >= end) { r.x = r.y = r.w = 0; r.z = NN__FAR; return r; }
    q = s.nx > i ? 0 : nn__over(i, s.nx);
    x = i - q * s.nx;
    y = q;
    q = s.ny > y ? 0 : nn__over(y, s.ny);
    y -= q * s.ny;
    off = s.from + q * s.sq + y * s.sy + x * s.sx;
    r.x = (int)(unsigned)off; r.y = (int)(off >> 32);
    r.z = s.y0 + (int)y * s.py; r.w = s.x0 + (int)x * s.px;
    return r;
}
NN__DEV int64_t nn__offset(int4 p) { return (int64_t)((uint64_t)(unsigned)p.y << 32 | (unsigned)p.x); }

// Tensor cores take words: a number rounded to TF32, or two halves, neighbours in p. Then all of them work on the same tile.
enum { NN__ALONG_P, NN__ALONG_I };   // in which direction neighbouring lanes read a factor
#ifdef NN_CUDA_EMU
NN__DEV unsigned nn__tf32(float x) { unsigned u = __float_as_uint(x); return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u; }
NN__DEV unsigned nn__two_bf16(float a, float b) { return nn__to_bf16(a) | (unsigned)nn__to_bf16(b) << 16; }
NN__DEV unsigned nn__two_f16(float a, float b)  { return nn__to_f16(a) | (unsigned)nn__to_f16(b) << 16; }
NN__DEV float    nn__wide_f16(unsigned short h) { return nn__f16_to(h); }
#else
NN__DEV float    nn__wide_f16(unsigned short h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
NN__DEV unsigned nn__tf32(float x) { unsigned u; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(x)); return u; }
NN__DEV unsigned nn__two_bf16(float a, float b) { unsigned u; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(b), "f"(a)); return u; }
NN__DEV unsigned nn__two_f16(float a, float b)  { unsigned u; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(b), "f"(a)); return u; }
#else
NN__DEV unsigned nn__tf32(float x) { return __float_as_uint(x); }
NN__DEV unsigned nn__two_bf16(float, float) { return 0; }
NN__DEV unsigned nn__two_f16(float, float)  { return 0; }
#endif
#endif
template <int MMA> NN__DEV unsigned nn__word(float a, float b)
{
    return MMA == NN_CUDA_BF16 ? nn__two_bf16(a, b) : MMA == NN_CUDA_FP16 ? nn__two_f16(a, b) : MMA == NN_CUDA_TF32 ? nn__tf32(a) : __float_as_uint(a);
}
// A tile: B rows, B columns, P terms by 2 B threads. In shared memory a factor is ROWS lines of B words and some, one line a word in p. Words of
// lines 4 to 7 (of 8) are swapped so that neither the lanes' stores nor the fragments' loads meet in a bank.
template <int MMA, int B> struct nn__tile {
    enum { HALF = MMA >= NN_CUDA_BF16, P = MMA ? 16 : 8, ROWS = HALF ? 8 : P, LINE = B + (MMA ? 8 : 4), PASSES = P / 8, WORDS = ROWS * LINE };
    static __device__ __forceinline__ int at(int q, int i) { return q * LINE + (MMA && (q & 4) ? i ^ 20 : i); }
    static __device__ __forceinline__ int row(int i) { return (i & 3) * (B / 4 + 2) + (i >> 2); }      // in the table of rows: fours, or neighbours, meet in no bank
};

// Eight terms a pass, four numbers of them a thread: i and p of number s of pass e.
template <int MMA, int B, int ALONG>
NN__DEV void nn__tile_load(const nn__factor &f, const float *at, const int4 *rows, const int4 *terms, float (*r)[4])
{
    typedef nn__tile<MMA, B> T;
    const int t = (int)threadIdx.x;
    if (f.four) {
        NN_UNROLL for (int e = 0; e < T::PASSES; e++) {
            int i = ALONG == NN__ALONG_P ? t >> 1 : 4 * (t % (B / 4));
            int p = ALONG == NN__ALONG_P ? 4 * (t & 1) + 8 * e : T::HALF ? 2 * (t / (B / 4)) + e : t / (B / 4) + 8 * e;
            int4 a = rows[T::row(i)], b = terms[p];
            float4 v = make_float4(0, 0, 0, 0);
            if (a.z + b.z >= 0) v = *(const float4 *)(at + nn__offset(a) + nn__offset(b));
            r[e][0] = v.x; r[e][1] = v.y; r[e][2] = v.z; r[e][3] = v.w;
        }
        return;
    }
    NN_UNROLL for (int e = 0; e < T::PASSES; e++)
        NN_UNROLL for (int s = 0; s < 4; s++) {
            int i = ALONG == NN__ALONG_P ? (t >> 3) + s * (B / 4) : t % B;
            int p = ALONG == NN__ALONG_P ? (T::HALF ? 2 * (t & 7) + e : (t & 7) + 8 * e) : T::HALF ? 8 * e + 4 * (s >> 1) + 2 * (t / B) + (s & 1) : t / B + 2 * s + 8 * e;
            int4 a = rows[T::row(i)], b = terms[p];
            r[e][s] = (unsigned)(a.z + b.z) < (unsigned)f.h && (unsigned)(a.w + b.w) < (unsigned)f.w ? at[nn__offset(a) + nn__offset(b)] : 0.0f;
        }
}
template <int MMA, int B, int ALONG>
NN__DEV void nn__tile_store(int four, const float (*r)[4], unsigned *to)
{
    typedef nn__tile<MMA, B> T;
    const int t = (int)threadIdx.x, last = T::PASSES - 1;
    NN_UNROLL for (int e = 0; e < (T::HALF && (four ? ALONG == NN__ALONG_I : ALONG == NN__ALONG_P) ? 1 : T::PASSES); e++) {
        if (four && ALONG == NN__ALONG_I) {
            uint4 v;
            v.x = nn__word<MMA>(r[e][0], r[last][0]); v.y = nn__word<MMA>(r[e][1], r[last][1]);
            v.z = nn__word<MMA>(r[e][2], r[last][2]); v.w = nn__word<MMA>(r[e][3], r[last][3]);
            *(uint4 *)&to[T::at(t / (B / 4) + 8 * e, 4 * (t % (B / 4)))] = v;
        } else
            NN_UNROLL for (int s = 0; s < (T::HALF && (four || ALONG == NN__ALONG_I) ? 2 : 4); s++) {
                if (ALONG == NN__ALONG_P && four) {
                    if (T::HALF) to[T::at(2 * (t & 1) + s + 4 * e, t >> 1)] = nn__word<MMA>(r[e][2 * s & 3], r[e][(2 * s + 1) & 3]);
                    else         to[T::at(4 * (t & 1) + s + 8 * e, t >> 1)] = nn__word<MMA>(r[e][s], 0);
                } else if (ALONG == NN__ALONG_P) to[T::at((t & 7) + (T::HALF ? 0 : 8 * e), (t >> 3) + s * (B / 4))] = nn__word<MMA>(r[e][s], r[last][s]);
                else if (T::HALF) to[T::at(4 * e + 2 * s + t / B, t % B)] = nn__word<MMA>(r[e][2 * s & 3], r[e][(2 * s + 1) & 3]);
                else to[T::at(t / B + 2 * s + 8 * e, t % B)] = nn__word<MMA>(r[e][s], 0);
            }
    }
}

// What a thread owns of a tile. FFMA: RI fours of rows and RJ fours of columns, far apart. Tensor cores: a warp has B / 2 x 32 in fragments.
template <int MMA, int B> struct nn__own { enum { RI = MMA ? B / 32 : 2, RJ = MMA ? 4 : B / 64, SUMS = MMA ? 4 * RI * RJ : 16 * RI * RJ }; };
template <int MMA, int B>
NN__DEV void nn__tile_multiply(const unsigned *a, const unsigned *b, float *sum)
{
    typedef nn__tile<MMA, B> T;
    typedef nn__own<MMA, B> O;
    const int lane = (int)threadIdx.x & 31, warp = (int)threadIdx.x >> 5;
    if (MMA) {
        const int g = lane >> 2, t = lane & 3, i0 = warp / (B / 32) * (B / 2) + g, j0 = warp % (B / 32) * 32 + g;
        NN_UNROLL for (int step = 0; step < T::ROWS; step += 8) {
            unsigned fa[O::RI][4], fb[O::RJ][2];
            NN_UNROLL for (int u = 0; u < O::RI; u++) {
                fa[u][0] = a[T::at(step + t, i0 + 16 * u)];     fa[u][1] = a[T::at(step + t, i0 + 16 * u + 8)];
                fa[u][2] = a[T::at(step + t + 4, i0 + 16 * u)]; fa[u][3] = a[T::at(step + t + 4, i0 + 16 * u + 8)];
            }
            NN_UNROLL for (int v = 0; v < O::RJ; v++) { fb[v][0] = b[T::at(step + t, j0 + 8 * v)]; fb[v][1] = b[T::at(step + t + 4, j0 + 8 * v)]; }
            NN_UNROLL for (int u = 0; u < O::RI; u++)
                NN_UNROLL for (int v = 0; v < O::RJ; v++) {
                    float *d = sum + 4 * (u * O::RJ + v);
                    if (MMA == NN_CUDA_TF32) NN__MMA_TF32_1688(d, fa[u], fb[v]);
                    else if (MMA == NN_CUDA_BF16) NN__MMA_BF16_16816(d, fa[u], fb[v]);
                    else NN__MMA_F16_16816(d, fa[u], fb[v]);
                }
        }
        return;
    }
    const int ty = (warp >> 1) * 4 + lane / 8, tx = (warp & 1) * 8 + lane % 8;
    NN_UNROLL for (int q = 0; q < T::ROWS; q++) {
        __align__(16) float x[O::RI * 4], y[O::RJ * 4];
        NN_UNROLL for (int u = 0; u < O::RI; u++) *(float4 *)&x[4 * u] = *(const float4 *)&a[q * T::LINE + u * (B / O::RI) + 4 * ty];
        NN_UNROLL for (int v = 0; v < O::RJ; v++) *(float4 *)&y[4 * v] = *(const float4 *)&b[q * T::LINE + v * (B / O::RJ) + 4 * tx];
        NN_UNROLL for (int i = 0; i < 4 * O::RI; i++)
            NN_UNROLL for (int j = 0; j < 4 * O::RJ; j++) sum[i * 4 * O::RJ + j] = fmaf(x[i], y[j], sum[i * 4 * O::RJ + j]);
    }
}

// Where the results of one (entry, side, part) go: to their place, or into the parts.
typedef struct nn__target { float *y; const float *bias; int64_t ys, n; int add, relu, four; } nn__target;
NN__DEV nn__target nn__target_of(const nn__product &g, int64_t entry, int side, int64_t part, int64_t y_at)
{
    nn__target o;
    o.n = g.side[side].column.count;
    o.y = g.side[side].y + y_at; o.ys = g.ys; o.bias = g.bias ? g.bias + entry * g.bz : NULL; o.add = g.add; o.relu = g.relu; o.four = g.four;
    if (g.parts > 1) {
        o.y = g.part + ((entry * g.sides + side) * g.parts + part) * g.m * g.n;
        o.ys = g.n; o.bias = NULL; o.add = o.relu = 0; o.four = (g.n & 3) == 0;
    }
    return o;
}
NN__DEV int64_t nn__column_of(const nn__product &g, const nn__side &s, int64_t j) { return g.parts > 1 ? j : nn__offset(nn__point(s.column, j, s.column.count)); }
NN__DEV float nn__finish(const nn__product &g, const nn__target &o, int64_t i, int64_t j, float sum, float old)
{
    if (o.bias) sum += o.bias[i * g.bi + j * g.bj];
    if (o.relu) sum = sum < 0 ? 0 : sum;
    return o.add ? old + sum : sum;
}
// W results of a row, columns j, j + step ... of which `extra` is the bias
template <int W> NN__DEV void nn__column_bias(const nn__product &g, const nn__target &o, int64_t j, int step, float *extra)
{
    NN_UNROLL for (int s = 0; s < W; s++) extra[s] = o.bias && g.bj && j + s * step < o.n ? o.bias[j + s * step] : 0;
}
template <int W>
NN__DEV void nn__put(const nn__product &g, const nn__target &o, int64_t i, int64_t j, int step, const int64_t *column, int64_t first, const float *sum, const float *extra)
{
    if (i >= g.m) return;
    float *row = o.y + i * o.ys;
    __align__(16) float v[W];
    const float bias = o.bias && g.bi ? o.bias[i] : 0;
    NN_UNROLL for (int s = 0; s < W; s++) { v[s] = sum[s] + (extra[s] + bias); if (o.relu) v[s] = v[s] < 0 ? 0 : v[s]; }
    if (o.four && step == 1 && j + W <= o.n) {
        float *at = row + first;
        __align__(16) float old[W];
        if (o.add) {
            if (W == 4) *(float4 *)old = *(const float4 *)at; else *(float2 *)old = *(const float2 *)at;
            NN_UNROLL for (int s = 0; s < W; s++) v[s] = old[s] + v[s];
        }
        if (W == 4) *(float4 *)at = *(const float4 *)v; else *(float2 *)at = *(const float2 *)v;
        return;
    }
    NN_UNROLL for (int s = 0; s < W; s++) if (j + s * step < o.n) { float *at = row + column[s]; *at = o.add ? *at + v[s] : v[s]; }
}

template <int MMA, int B, int AA, int AB>
static __global__ void __launch_bounds__(2 * B, B == 64 ? 4 : MMA ? 1 : 2) nn__k_product(const nn__product g, unsigned tiles_m, unsigned tiles_n)
{
    typedef nn__tile<MMA, B> T;
    typedef nn__own<MMA, B> O;
    NN_SHARED(uint4, as, [2][T::WORDS / 4]);
    NN_SHARED(uint4, bs, [2][T::WORDS / 4]);
    NN_SHARED(int4, rows, [2][B + 8]);
    NN_SHARED(int4, terms, [2][2][T::P]);
    NN_SHARED(int64_t, column, [B]);
    const int t = (int)threadIdx.x;
    const unsigned block = blockIdx.x / tiles_m, z = block / tiles_n, tile_i = blockIdx.x - block * tiles_m, tile_j = block - z * tiles_n;
    const int64_t i0 = (int64_t)tile_i * B, j0 = (int64_t)tile_j * B;
    const unsigned part = z % (unsigned)g.parts, side = z / (unsigned)g.parts % (unsigned)g.sides;
    const int64_t entry = z / (unsigned)g.parts / (unsigned)g.sides;
    const nn__side &s = g.side[side];
    const int64_t p0 = part * g.per, end = min(s.k, p0 + g.per);
    const int count = (int)((max(end - p0, (int64_t)0) + T::P - 1) / T::P);
    int64_t at[2], to[3];
    if (j0 >= s.column.count) return;                    // a smaller side
    nn__offsets(g.outer, entry, at);
    const float *a = s.a.at + at[0], *b = s.b.at + at[1];
    float sum[O::SUMS], ra[T::PASSES][4], rb[T::PASSES][4];
    NN_UNROLL for (int i = 0; i < O::SUMS; i++) sum[i] = 0;

    // Without tensor cores a thread has four columns. Where they cannot be written at once, they are dealt out among the lanes.
    const int dealt = !MMA && !(g.parts > 1 ? (g.n & 3) == 0 : g.four) && !(AB == NN__ALONG_I && s.b.four), step = dealt ? 8 : 1;
    const int slot = t < B ? t : t - B, j = dealt ? (slot & ~31) + (slot & 31) / 4 + (slot & 3) * 8 : slot;
    if (t < B) { rows[0][T::row(t)] = nn__point(s.a.i, i0 + t, s.a.i.count); column[t] = nn__column_of(g, s, j0 + j); }
    else rows[1][T::row(slot)] = nn__point(s.b.i, j0 + j, s.b.i.count);
    if (t < 2 * T::P) for (int k = 0; k < 2; k++) {
        const int f = t / T::P, p = t % T::P;
        terms[k][f][p] = nn__point(f ? s.b.p : s.a.p, p0 + k * T::P + p, end);
    }
    __syncthreads();
    if (count) {
        nn__tile_load<MMA, B, AA>(s.a, a, rows[0], terms[0][0], ra);
        nn__tile_load<MMA, B, AB>(s.b, b, rows[1], terms[0][1], rb);
        nn__tile_store<MMA, B, AA>(s.a.four, ra, (unsigned *)as[0]);
        nn__tile_store<MMA, B, AB>(s.b.four, rb, (unsigned *)bs[0]);
    }
    __syncthreads();
    for (int k = 0; k < count; k++) {                    // the next tile is on its way while this one is multiplied
        const int now = k & 1, next = now ^ 1;
        if (k + 1 < count) {
            nn__tile_load<MMA, B, AA>(s.a, a, rows[0], terms[next][0], ra);
            nn__tile_load<MMA, B, AB>(s.b, b, rows[1], terms[next][1], rb);
        }
        nn__tile_multiply<MMA, B>((const unsigned *)as[now], (const unsigned *)bs[now], sum);
        if (k + 1 < count) {
            nn__tile_store<MMA, B, AA>(s.a.four, ra, (unsigned *)as[next]);
            nn__tile_store<MMA, B, AB>(s.b.four, rb, (unsigned *)bs[next]);
            if (t < 2 * T::P) {
                const int f = t / T::P, p = t % T::P;
                terms[now][f][p] = nn__point(f ? s.b.p : s.a.p, part * g.per + (int64_t)(k + 2) * T::P + p, min(s.k, (part + 1) * g.per));
            }
        }
        __syncthreads();
    }
    nn__offsets(g.outer, entry, to);
    const nn__target o = nn__target_of(g, entry, (int)side, part, to[2]);
    const int lane = t & 31, warp = t >> 5;
    if (MMA) {
        const int r = warp / (B / 32) * (B / 2) + (lane >> 2), c = warp % (B / 32) * 32 + 2 * (lane & 3);
        NN_UNROLL for (int v = 0; v < O::RJ; v++) {
            const int64_t first = column[c + 8 * v];
            float extra[2];
            nn__column_bias<2>(g, o, j0 + c + 8 * v, 1, extra);
            NN_UNROLL for (int u = 0; u < 2 * O::RI; u++)
                nn__put<2>(g, o, i0 + r + 8 * u, j0 + c + 8 * v, 1, column + c + 8 * v, first, sum + 4 * (u / 2 * O::RJ + v) + 2 * (u & 1), extra);
        }
        return;
    }
    const int ty = (warp >> 1) * 4 + lane / 8, tx = (warp & 1) * 8 + lane % 8;
    NN_UNROLL for (int v = 0; v < O::RJ; v++) {
        const int c = v * (B / O::RJ) + 4 * tx;
        const int64_t first = column[c], c0 = j0 + (dealt ? (c & ~31) + (c & 31) / 4 : c);
        float extra[4];
        nn__column_bias<4>(g, o, c0, step, extra);
        NN_UNROLL for (int i = 0; i < 4 * O::RI; i++)
            nn__put<4>(g, o, i0 + i / 4 * (B / O::RI) + 4 * ty + i % 4, c0, step, column + c, first, sum + i * 4 * O::RJ + 4 * v, extra);
    }
}
static __global__ void nn__k_parts(const nn__product g, int64_t count)       // y = the sum of its parts
{
    int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, j, i, z, at[3];
    float sum = 0;
    if (e >= count) return;
    z = nn__over(e, g.n); j = e - z * g.n;
    e = z; z = nn__over(e, g.m); i = e - z * g.m;
    const int side = (int)(z % g.sides);
    const int64_t entry = z / g.sides;
    const nn__side &s = g.side[side];
    if (j >= s.column.count) return;
    for (int p = 0; p < g.parts; p++) sum += g.part[((z * g.parts + p) * g.m + i) * g.n + j];
    nn__offsets(g.outer, entry, at);
    float *y = s.y + at[2] + i * g.ys + nn__offset(nn__point(s.column, j, s.column.count));
    nn__target o;
    o.bias = g.bias ? g.bias + entry * g.bz : NULL; o.relu = g.relu; o.add = g.add;
    *y = nn__finish(g, o, i, j, sum, g.add ? *y : 0);
}

// ---- thin products: few rows times a large matrix, whose every number is read once, as it is stored, 16 bytes a thread ----
// A unit of weights is a number; of NN_I4 a word of T terms. N units are 16 bytes.
template <int TYPE> struct nn__packing {
    enum { T = TYPE == NN_I4 ? 8 : 1, SIZE = TYPE == NN_I8 ? 1 : TYPE == NN_BF16 || TYPE == NN_F16 ? 2 : 4, BITS = 8 * SIZE / T, N = 16 / SIZE };
};
typedef struct nn__weights {
    const void  *at;
    const float *scale;              // of (term p, column j): [j sj + p / group sg]
    int64_t sj, sg, group;
    int     type, shift, bytes;      // group is 1 << shift, unless that is -1; bytes of a load
    int     x_four, scale_four;      // aligned fours of x along the terms, of scales along the columns
} nn__weights;
NN__DEV int64_t nn__group_of(const nn__weights &w, int64_t p) { return w.shift < 0 ? nn__over(p, w.group) : p >> w.shift; }
template <int TYPE> NN__DEV float nn__number(const unsigned *u, int e)       // number e of those that lie side by side
{
    enum { BITS = nn__packing<TYPE>::BITS, SIGN = 1 << ((BITS - 1) & 15) };
    const int bit = e * BITS % 32, place = bit % 16;
    const unsigned x = u[e * BITS / 32];
    if (TYPE == NN_F32) return __uint_as_float(x);
    if (TYPE == NN_BF16) return __uint_as_float(bit ? x & 0xffff0000u : x << 16);
    if (TYPE == NN_F16) return nn__wide_f16((unsigned short)(x >> bit));
    // the bits of q, its sign turned over, stay where they are as part of a float: 2^(23 - place) + (q + SIGN)
    const unsigned f = ((bit < 16 ? x : x >> 16) & (2u * SIGN - 1) << place) ^ (SIGN << place | (150u - place) << 23);
    return __uint_as_float(f) - (float)((1 << (23 - place)) + SIGN);
}
template <int TYPE> NN__DEV void nn__units(const nn__weights &w, int64_t i, int64_t step, int64_t count, unsigned *u)     // N of them, i, i + step ..; 0 from `count` on
{
    enum { SIZE = nn__packing<TYPE>::SIZE };
    const char *from = (const char *)w.at + i * SIZE;
    if (w.bytes == 16) { *(uint4 *)u = *(const uint4 *)from; return; }
    NN_UNROLL for (int k = 0; k < 4; k++) {
        u[k] = 0;
        if (SIZE < 4 && w.bytes == 4) { if (4 / SIZE * k < count) u[k] = *(const unsigned *)(from + 4 * k); }
        else NN_UNROLL for (int e = 4 / SIZE * k; e < 4 / SIZE * (k + 1); e++) if (e < count) {
            const char *at = from + e * step * SIZE;
            u[k] |= (SIZE == 4 ? *(const unsigned *)at : SIZE == 2 ? *(const unsigned short *)at : *(const unsigned char *)at) << (8 * SIZE * e & 31);
        }
    }
}
template <int N> NN__DEV void nn__floats(const float *from, int64_t step, int64_t count, int four, float *v)         // N of them; 0 from `count` on
{
    NN_UNROLL for (int e = 0; e < N; e += 4) {
        if (N % 4 == 0 && four && count >= e + 4) nn__get4(v + e, from + e, 1, 4);
        else NN_UNROLL for (int k = e; k < e + 4 && k < N; k++) v[k] = k < count ? from[k * step] : 0;
    }
}
// M rows at a time. TERMS: neighbours in p lie side by side, and a thread's 16 bytes are of one column; else neighbours in j. SLOTS threads share a
// column; a piece of terms has one scale.
template <int TYPE, int M, int TERMS> static __global__ void __launch_bounds__(256, TYPE == NN_I8 && !TERMS ? 1 : 2) nn__k_thin(const nn__product g, const nn__weights w, unsigned across, unsigned chunks)
{
    typedef nn__packing<TYPE> U;
    enum { WIDE = TERMS ? 1 : U::N, LONG = TERMS ? U::T * U::N : U::T, PIECE = LONG < 8 ? LONG : 8, SLOTS = TERMS ? 128 / LONG : 32, COLUMNS = 256 / SLOTS * WIDE };
    enum { PITCH = 160 / WIDE, SCALED = TYPE == NN_I8 || TYPE == NN_I4, STEP = SLOTS * LONG, BY = TERMS ? 1 : 4 };
    NN_SHARED(float, sums, [8][160]);                    // column x at x % WIDE * PITCH + x / WIDE: lanes meet in no bank
    const int t = (int)threadIdx.x, slot = TERMS ? t % SLOTS : t / 8, aside = TERMS ? t / SLOTS : t % 8;
    const unsigned block = blockIdx.x / across, z = block / chunks, part = z % (unsigned)g.parts;
    const int64_t j0 = (int64_t)(blockIdx.x - block * across) * COLUMNS, j = j0 + aside * WIDE, i0 = (int64_t)(block - z * chunks) * M, entry = z / (unsigned)g.parts;
    const nn__side &s = g.side[0];
    const int64_t n = s.column.count, end = min(s.k, (part + 1) * g.per), xp = s.a.p.sx;
    int64_t at[2], to[3];
    unsigned u[4], next[4];
    float sum[M][WIDE], by[BY];
    nn__offsets(g.outer, entry, at);
    const float *x = s.a.at + at[0] + i0 * s.a.i.sx;
    const int64_t first = at[1] + j * s.b.i.sx;
    NN_UNROLL for (int m = 0; m < M; m++) NN_UNROLL for (int c = 0; c < WIDE; c++) sum[m][c] = 0;
    int64_t p = part * g.per + slot * LONG;
    if (j >= n) p = end;
    if (p < end) nn__units<TYPE>(w, first + p / U::T * s.b.p.sx, TERMS ? 1 : s.b.i.sx, TERMS ? (end - p + U::T - 1) / U::T : n - j, next);
    for (; p < end; p += STEP) {
        const int64_t then = p + STEP;
        NN_UNROLL for (int k = 0; k < 4; k++) u[k] = next[k];
        if (then < end) nn__units<TYPE>(w, first + then / U::T * s.b.p.sx, TERMS ? 1 : s.b.i.sx, TERMS ? (end - then + U::T - 1) / U::T : n - j, next);
        NN_UNROLL for (int e = 0; e < LONG; e += PIECE) {
            float v[M][PIECE], f[PIECE];
            NN_UNROLL for (int m = 0; m < M; m++) nn__floats<PIECE>(x + m * s.a.i.sx + (p + e) * xp, xp, i0 + m < g.m ? end - p - e : 0, w.x_four, v[m]);
            const float *scale = SCALED ? w.scale + nn__group_of(w, p + e) * w.sg + j * w.sj : NULL;
            NN_UNROLL for (int c = 0; c < WIDE; c++) {
                if (SCALED && c % 4 == 0) nn__floats<BY>(scale + c * w.sj, w.sj, p + e < end ? n - j - c : 0, w.scale_four, by);
                NN_UNROLL for (int k = 0; k < PIECE; k++) f[k] = nn__number<TYPE>(u, c * U::T + e + k);
                if (SCALED && PIECE == 1) f[0] *= by[c % 4];
                NN_UNROLL for (int m = 0; m < M; m++) {
                    float dot = SCALED && PIECE > 1 ? 0 : sum[m][c];
                    NN_UNROLL for (int k = 0; k < PIECE; k++) dot = fmaf(v[m][k], f[k], dot);
                    sum[m][c] = SCALED && PIECE > 1 ? fmaf(by[c % 4], dot, sum[m][c]) : dot;
                }
            }
        }
    }
    nn__offsets(g.outer, entry, to);
    const nn__target o = nn__target_of(g, entry, 0, part, to[2]);
    NN_UNROLL for (int m = 0; m < M; m++) {
        NN_UNROLL for (int c = 0; c < WIDE; c++) {
            for (int k = TERMS ? SLOTS / 2 : 16; k >= (TERMS ? 1 : 8); k /= 2) sum[m][c] += __shfl_xor_sync(NN__FULL, sum[m][c], k);
            if (TERMS ? slot == 0 : (t & 31) < 8) sums[TERMS ? 0 : t / 32][c * PITCH + aside] = sum[m][c];
        }
        __syncthreads();
        if (t < COLUMNS && j0 + t < n && i0 + m < g.m) {
            float all = 0;
            for (int k = 0; k < (TERMS ? 1 : 8); k++) all += sums[k][t % WIDE * PITCH + t / WIDE];
            float *y = o.y + (i0 + m) * o.ys + nn__column_of(g, s, j0 + t);
            *y = nn__finish(g, o, i0 + m, j0 + t, all, o.add ? *y : 0);
        }
        __syncthreads();
    }
}
template <int TYPE> static __global__ void nn__k_enlarge(const nn__weights w, float *to, int64_t count, int64_t n, int64_t k, int columns)
{                                    // a unit to floats, in the same order: (k, n) if `columns` lie side by side, else (n, k)
    enum { T = nn__packing<TYPE>::T };
    int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, q = nn__over(e, columns ? n : (k + T - 1) / T), j = e - q * (columns ? n : (k + T - 1) / T);
    unsigned u[4];
    if (e >= count) return;
    if (!columns) { int64_t r = q; q = j; j = r; }
    const float scale = w.scale ? w.scale[j * w.sj + nn__group_of(w, T * q) * w.sg] : 1;
    nn__units<TYPE>(w, e, 1, 1, u);
    NN_UNROLL for (int s = 0; s < T; s++) if (T * q + s < k) to[columns ? (T * q + s) * n + j : j * k + T * q + s] = scale * nn__number<TYPE>(u, s);
}

// ---- products of few rows (a channel or two of a convolution): a thread a column ----
template <int R> static __global__ void __launch_bounds__(128) nn__k_few_rows(const nn__product g, unsigned across, unsigned chunks)
{
    const unsigned block = blockIdx.x / across, z = block / chunks, side = z % (unsigned)g.sides;
    const int64_t j = (int64_t)(blockIdx.x - block * across) * 128 + threadIdx.x, i0 = (int64_t)(block - z * chunks) * R, entry = z / (unsigned)g.sides;
    const nn__side &s = g.side[side];
    int64_t at[3], rows[R];
    float sum[R];
    if (j >= s.column.count) return;
    nn__offsets(g.outer, entry, at);
    const int4 c = nn__point(s.b.i, j, s.b.i.count);
    const float *b = s.b.at + at[1] + nn__offset(c) + s.b.p.from, *a = s.a.at + at[0] + s.a.p.from;
    NN_UNROLL for (int r = 0; r < R; r++) { rows[r] = s.a.i.from + min(i0 + r, g.m - 1) * s.a.i.sx; sum[r] = 0; }
    const int64_t outer = s.k ? s.k / (s.b.p.ny * s.b.p.nx) : 0;
    for (int64_t q = 0; q < outer; q++) for (int y = 0; y < (int)s.b.p.ny; y++) {
        const int py = c.z + s.b.p.y0 + y * s.b.p.py;
        if ((unsigned)py >= (unsigned)s.b.h) continue;
        for (int x = 0; x < (int)s.b.p.nx; x++) {
            const int px = c.w + s.b.p.x0 + x * s.b.p.px;
            if ((unsigned)px >= (unsigned)s.b.w) continue;
            const float v = b[q * s.b.p.sq + y * s.b.p.sy + x * s.b.p.sx];
            NN_UNROLL for (int r = 0; r < R; r++) sum[r] = fmaf(a[rows[r] + q * s.a.p.sq + y * s.a.p.sy + x * s.a.p.sx], v, sum[r]);
        }
    }
    const nn__target o = nn__target_of(g, entry, (int)side, 0, at[2]);
    float *to = o.y + nn__offset(nn__point(s.column, j, s.column.count));
    NN_UNROLL for (int r = 0; r < R; r++) if (i0 + r < g.m) { float *y = to + (i0 + r) * o.ys; *y = nn__finish(g, o, i0 + r, j, sum[r], o.add ? *y : 0); }
}
// ---- products of few results and many terms (weights of a depthwise convolution): a block has one row and up to nine columns ----
static __global__ void __launch_bounds__(256) nn__k_few_results(const nn__product g, unsigned across)
{
    NN_SHARED(int4, columns, [9]);
    NN_SHARED(float, warps, [32]);
    const int t = (int)threadIdx.x;
    unsigned block = blockIdx.x / across, z = block / (unsigned)g.m;
    const int64_t j0 = (int64_t)(blockIdx.x - block * across) * 9, i = block - z * (unsigned)g.m;
    const unsigned part = z % (unsigned)g.parts;
    const int64_t entry = z / (unsigned)g.parts;
    const nn__side &s = g.side[0];
    const int64_t p0 = part * g.per, end = min(s.k, p0 + g.per);
    int64_t at[3];
    float sum[9];
    nn__offsets(g.outer, entry, at);
    if (t < 9) columns[t] = nn__point(s.b.i, j0 + t, s.b.i.count);
    __syncthreads();
    const float *a = s.a.at + at[0] + nn__offset(nn__point(s.a.i, i, s.a.i.count)), *b = s.b.at + at[1];
    NN_UNROLL for (int k = 0; k < 9; k++) sum[k] = 0;
    for (int64_t p = p0 + t; p < end; p += 256) {
        const float v = a[nn__offset(nn__point(s.a.p, p, end))];
        const int4 q = nn__point(s.b.p, p, end);
        NN_UNROLL for (int k = 0; k < 9; k++) {
            const int4 c = columns[k];
            if ((unsigned)(c.z + q.z) < (unsigned)s.b.h && (unsigned)(c.w + q.w) < (unsigned)s.b.w) sum[k] = fmaf(v, b[nn__offset(c) + nn__offset(q)], sum[k]);
        }
    }
    const nn__target o = nn__target_of(g, entry, 0, part, at[2]);
    NN_UNROLL for (int k = 0; k < 9; k++) {
        const float all = nn__block_sum(sum[k], warps);
        if (t == 0 && j0 + k < s.column.count) {
            float *y = o.y + i * o.ys + nn__column_of(g, s, j0 + k);
            *y = nn__finish(g, o, i, j0 + k, all, o.add ? *y : 0);
        }
    }
}

// ---- from numbers to a launch ------------------------------------------------------------------------------------
static nn__points nn__digits(int64_t nq, int64_t ny, int64_t nx, int64_t sq, int64_t sy, int64_t sx)
{
    nn__points s = {};
    s.count = nq * ny * nx; s.ny = ny > 0 ? ny : 1; s.nx = nx > 0 ? nx : 1; s.sq = sq; s.sy = sy; s.sx = sx;
    return s;
}
static nn__points nn__line(int64_t count, int64_t stride) { return nn__digits(1, 1, count, 0, 0, stride); }     // an index of one digit
static void nn__join(nn__points *s)  // digits that run on are one; only where they have no place in a grid
{
    if (s->py | s->px) return;
    if (s->nx == 1) { s->nx = s->ny; s->sx = s->sy; s->ny = 1; }
    else if (s->ny == 1 || s->sy == s->nx * s->sx) { s->nx *= s->ny; s->ny = 1; }
    else return;
    s->sy = 0;
    if (s->nx == 1) s->sx = s->sq;
    else if (s->sq != s->nx * s->sx && s->count > s->nx) return;
    s->nx = s->count > 0 ? s->count : 1;
    s->sq = 0;
}
static int nn__quarter(const nn__points *s) { return ((s->sq | s->sy | s->sx | s->from) & 3) == 0; }
static int nn__along(nn__factor *f, int64_t outer)       // which way the lanes go, and whether in fours
{
    int way, flat;
    nn__join(&f->i);
    nn__join(&f->p);
    flat = !(f->i.py | f->i.px | f->p.py | f->p.px) && f->h == 1 && f->w == 1 && !((uintptr_t)f->at & 15) && !(outer & 3) && !((f->i.from | f->p.from) & 3);
    way = f->p.sx == 1 && f->p.nx > 1 ? NN__ALONG_P : f->i.sx == 1 || f->i.sx < f->p.sx ? NN__ALONG_I : NN__ALONG_P;
    if (way == NN__ALONG_P) f->four = flat && f->p.sx == 1 && !((f->p.nx | f->p.count | f->p.sq | f->p.sy) & 3) && nn__quarter(&f->i);
    else                    f->four = flat && f->i.sx == 1 && !((f->i.nx | f->i.count | f->i.sq | f->i.sy) & 3) && nn__quarter(&f->p);
    return way;
}
static int64_t nn__all_of(const nn__lay *l, int view)    // strides, or-ed: what all of them are multiples of
{
    int64_t s = 0;
    int k;
    for (k = 0; k < l->ndim; k++) s |= l->stride[view][k];
    return s;
}
typedef void (*nn__product_kernel)(const nn__product g, unsigned, unsigned);
#define NN__TILED(MMA, B) { { nn__k_product<MMA, B, 0, 0>, nn__k_product<MMA, B, 0, 1> }, { nn__k_product<MMA, B, 1, 0>, nn__k_product<MMA, B, 1, 1> } }
#define NN__TILES(MMA)    { NN__TILED(MMA, 64), NN__TILED(MMA, 128) }
static const nn__product_kernel nn__products[4][2][2][2] = { NN__TILES(NN_CUDA_FP32), NN__TILES(NN_CUDA_TF32), NN__TILES(NN_CUDA_BF16), NN__TILES(NN_CUDA_FP16) };

enum { NN__ENOUGH_BLOCKS = 192, NN__MOST_PARTS = 64 };   // fixed numbers, so that results do not depend on the device
static int64_t nn__ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int nn__cut_terms(nn__cuda *d, nn__product *g, int64_t blocks, int64_t k, int64_t least)      // 0 after an error
{
    int64_t parts = blocks >= NN__ENOUGH_BLOCKS / 2 ? 1 : nn__ceil(NN__ENOUGH_BLOCKS, blocks > 0 ? blocks : 1);
    if (parts > k / least) parts = k / least;
    if (parts > NN__MOST_PARTS) parts = NN__MOST_PARTS;
    if (parts < 1) parts = 1;
    g->per = (nn__ceil(k, parts) + 63) & ~(int64_t)63;
    if (g->per < 64) g->per = 64;
    parts = k ? nn__ceil(k, g->per) : 1;
    g->parts = (int)parts;
    if (parts == 1) return 1;
    g->part = (float *)nn__cuda_scratch(d, (size_t)(g->outer.count * g->sides * parts * g->m * g->n) * sizeof(float));
    return g->part != NULL;
}
static void nn__add_parts(nn__cuda *d, const nn__product *g)
{
    int64_t count = g->outer.count * g->sides * g->m * g->n;
    if (g->parts > 1) NN__LAUNCH(d, nn__k_parts, NN__BLOCKS(count, 256), 256, 0, *g, count);
}
static void nn__set_four(nn__product *g)
{
    int i;
    g->four = !(nn__all_of(&g->outer, 2) & 3) && !(g->ys & 3);
    for (i = 0; i < g->sides; i++) {
        nn__points *c = &g->side[i].column;
        nn__join(c);
        if (c->sx != 1 || ((c->nx | c->count | c->sq | c->sy | c->from) & 3) || ((uintptr_t)g->side[i].y & 15)) g->four = 0;
    }
}
static int nn__product_tiled(nn__cuda *d, nn__product *g)
{
    int i, mma = d->arch >= 80 ? d->precision : 0, large, aa = 0, ab = 0, way;
    int64_t k = 0, entries = g->outer.count * g->sides, b;
    unsigned tm, tn;
    for (i = 0; i < g->sides; i++) {
        way = nn__along(&g->side[i].a, nn__all_of(&g->outer, 0));
        if (!i) aa = way; else if (aa != way) { g->side[i].a.four = 0; }
        way = nn__along(&g->side[i].b, nn__all_of(&g->outer, 1));
        if (!i) ab = way; else if (ab != way) { g->side[i].b.four = 0; }
        if (g->side[i].k > k) k = g->side[i].k;
    }
    nn__set_four(g);
    large = g->m > 64 && g->n > 64 && nn__ceil(g->m, 128) * nn__ceil(g->n, 128) * entries >= NN__ENOUGH_BLOCKS / 2;
    b = large ? 128 : 64;
    tm = NN__BLOCKS(g->m, b); tn = NN__BLOCKS(g->n, b);
    if (!nn__cut_terms(d, g, (int64_t)tm * tn * entries, k, 256)) return 1;
    nn__product_kernel product = nn__products[mma][large][aa][ab];
    NN__LAUNCH(d, product, nn__grid((int64_t)tm * tn * entries * g->parts), (unsigned)(2 * b), 0, *g, tm, tn);
    nn__add_parts(d, g);
    return 1;
}
typedef void (*nn__thin_kernel)(const nn__product g, const nn__weights w, unsigned, unsigned);
#define NN__THIN(TYPE)    { { nn__k_thin<TYPE, 1, 0>, nn__k_thin<TYPE, 1, 1> }, { nn__k_thin<TYPE, 4, 0>, nn__k_thin<TYPE, 4, 1> } }
#define NN__OF_TYPE(type) ((type) == NN_F32 ? 0 : (type) == NN_BF16 ? 1 : (type) == NN_F16 ? 2 : (type) == NN_I8 ? 3 : 4)
static const nn__thin_kernel nn__thin[5][2][2] = { NN__THIN(NN_F32), NN__THIN(NN_BF16), NN__THIN(NN_F16), NN__THIN(NN_I8), NN__THIN(NN_I4) };
static int nn__product_thin(nn__cuda *d, nn__product *g, nn__weights w)      // factors of one digit each
{
    const nn__factor *a = &g->side[0].a, *b = &g->side[0].b;
    int64_t k = g->side[0].k, t = w.type == NN_I4 ? 8 : 1, size = w.type == NN_I8 ? 1 : w.type == NN_BF16 || w.type == NN_F16 ? 2 : 4, strides;
    int terms = b->p.sx == 1 && b->p.count > 1 && (w.shift < 0 ? w.group % 8 == 0 : w.shift > 2);
    unsigned across = NN__BLOCKS(g->n, terms ? 32 * t / size : 128 / size), chunks = g->m == 1 ? 1 : NN__BLOCKS(g->m, 4);
    strides = (int64_t)(uintptr_t)w.at | (nn__all_of(&g->outer, 1) | b->i.from | b->p.from | (terms ? b->i.sx | nn__ceil(k, t) : b->p.sx | g->n)) * size;
    w.bytes = !terms && b->i.sx != 1 ? (int)size : !(strides & 15) ? 16 : !(strides & 3) ? 4 : (int)size;
    w.x_four = a->p.sx == 1 && !((a->i.sx | nn__all_of(&g->outer, 0)) & 3) && !((uintptr_t)a->at & 15);
    w.scale_four = w.sj == 1 && !(w.sg & 3) && !((uintptr_t)w.scale & 15);
    if (!nn__cut_terms(d, g, (int64_t)across * chunks * g->outer.count, k, terms ? 1024 : 256)) return 1;
    nn__thin_kernel thin = nn__thin[NN__OF_TYPE(w.type)][g->m > 1][terms];
    NN__LAUNCH(d, thin, nn__grid((int64_t)across * chunks * g->outer.count * g->parts), 256, 0, *g, w, across, chunks);
    nn__add_parts(d, g);
    return 1;
}
// y (m, n) = a (m, k) b (k, n) in rows of strides; sums over `fold` more digits of the terms (batch entries that a broadcast factor had).
typedef struct nn__matrices {
    const float *a, *b;
    float   *y;
    int64_t  m, n, k, ai, ap, bp, bj, yi, yj;
    int64_t  fold[2], afold[2], bfold[2];                // 1 where there is none
    nn__lay  outer;
    const float *bias;                                   // of columns
    int      add, relu;
} nn__matrices;
// ---- cuBLASLt, opened at run time when the first large product is wanted; a product of the same sizes finds its plan again ----
#if defined(NN_CUDA_EMU) || defined(_WIN32)
static int nn__lt_multiply(nn__cuda *, const nn__matrices *) { return 0; }
#else
#ifndef NN__LT_LEAST
#define NN__LT_LEAST 1.3e8           // multiply-adds from which it is asked: 512 cubed
#endif
enum { NN__LT_PLANS = 64, NN__LT_BYTES = 32 << 20 };
typedef struct nn__lt_found { uint64_t algo[8]; size_t bytes; int status; float waves; int reserved[4]; } nn__lt_found;        // cublasLtMatmulHeuristicResult_t
typedef struct nn__lt_key { int64_t m, n, k, la, lb, ly, sa, sb, sy, count; int ta, tb, compute, epilogue; } nn__lt_key;
typedef struct nn__lt_plan { nn__lt_key key; void *desc, *a, *b, *y; nn__lt_found found; int usable; } nn__lt_plan;
#define NN__LT_CALLS(X) \
    X(int, Create, (void **handle)) X(int, Destroy, (void *handle)) \
    X(int, MatmulDescCreate, (void **desc, int compute, int type)) X(int, MatmulDescSetAttribute, (void *desc, int which, const void *value, size_t bytes)) \
    X(int, MatrixLayoutCreate, (void **layout, int type, uint64_t rows, uint64_t columns, int64_t ld)) \
    X(int, MatrixLayoutSetAttribute, (void *layout, int which, const void *value, size_t bytes)) \
    X(int, MatmulPreferenceCreate, (void **preference)) X(int, MatmulPreferenceDestroy, (void *preference)) \
    X(int, MatmulPreferenceSetAttribute, (void *preference, int which, const void *value, size_t bytes)) \
    X(int, MatmulAlgoGetHeuristic, (void *handle, void *desc, void *a, void *b, void *c, void *y, void *preference, int wanted, nn__lt_found *found, int *count)) \
    X(int, Matmul, (void *handle, void *desc, const void *alpha, const void *a, void *la, const void *b, void *lb, const void *beta, const void *c, void *lc, \
                    void *y, void *ly, const void *algo, void *room, size_t bytes, cudaStream_t stream))
#define NN__LT_MEMBER(type, name, arguments) type (*name) arguments;
static struct nn__lt { int state; void *handle[NN__CUDA_DEVICES]; NN__LT_CALLS(NN__LT_MEMBER) nn__lt_plan plan[NN__CUDA_DEVICES][NN__LT_PLANS]; int plans[NN__CUDA_DEVICES]; } nn__lt;
static int nn__lt_open(const nn__cuda *d)                // state: 0 not tried, 1 there, -1 not there
{
    static const char *const names[] = { "libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so" };
    void *library = NULL;
    size_t i;
    if (!nn__lt.state) {
        nn__lt.state = 1;
        for (i = 0; i < 3 && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
        if (!library) nn__lt.state = -1;
#define NN__LT_FIND(type, name, arguments) if (library && !(*(void **)&nn__lt.name = dlsym(library, "cublasLt" #name))) nn__lt.state = -1;
        NN__LT_CALLS(NN__LT_FIND)
#undef NN__LT_FIND
    }
    if (nn__lt.state < 0 || nn__lt.handle[d->device]) return nn__lt.state > 0;
    if (nn__lt.Create(&nn__lt.handle[d->device])) { nn__lt.handle[d->device] = NULL; nn__lt.state = -1; }
    return nn__lt.state > 0;
}
static void nn__lt_layout(void **to, int64_t rows, int64_t columns, int64_t ld, int64_t stride, int64_t count)
{
    int n = (int)count;
    if (nn__lt.MatrixLayoutCreate(to, 0, (uint64_t)rows, (uint64_t)columns, ld)) { *to = NULL; return; }
    nn__lt.MatrixLayoutSetAttribute(*to, 5, &n, sizeof n);
    nn__lt.MatrixLayoutSetAttribute(*to, 6, &stride, sizeof stride);
}
static nn__lt_plan *nn__lt_plan_of(const nn__cuda *d, const nn__lt_key *key)         // NULL: it has none
{
    nn__lt_plan *p = nn__lt.plan[d->device];
    size_t room = NN__LT_BYTES;
    unsigned aligned = 16;
    void *preference = NULL;
    int i, n = nn__lt.plans[d->device], count = 0;
    for (i = 0; i < n; i++) if (!memcmp(&p[i].key, key, sizeof *key)) return p[i].usable ? &p[i] : NULL;
    if (n == NN__LT_PLANS) return NULL;
    p += n;
    nn__lt.plans[d->device]++;
    memset(p, 0, sizeof *p);
    p->key = *key;
    // it thinks in columns: y' (n, m) = b' a'
    if (nn__lt.MatmulDescCreate(&p->desc, key->compute, 0)) return NULL;
    nn__lt.MatmulDescSetAttribute(p->desc, 3, &key->tb, sizeof key->tb);
    nn__lt.MatmulDescSetAttribute(p->desc, 4, &key->ta, sizeof key->ta);
    nn__lt.MatmulDescSetAttribute(p->desc, 7, &key->epilogue, sizeof key->epilogue);
    nn__lt_layout(&p->b, key->tb ? key->k : key->n, key->tb ? key->n : key->k, key->lb, key->sb, key->count);
    nn__lt_layout(&p->a, key->ta ? key->m : key->k, key->ta ? key->k : key->m, key->la, key->sa, key->count);
    nn__lt_layout(&p->y, key->n, key->m, key->ly, key->sy, key->count);
    if (!p->a || !p->b || !p->y || nn__lt.MatmulPreferenceCreate(&preference)) return NULL;
    nn__lt.MatmulPreferenceSetAttribute(preference, 1, &room, sizeof room);
    for (i = 5; i <= 8; i++) nn__lt.MatmulPreferenceSetAttribute(preference, i, &aligned, sizeof aligned);
    p->usable = !nn__lt.MatmulAlgoGetHeuristic(nn__lt.handle[d->device], p->desc, p->b, p->a, p->y, p->y, preference, 1, &p->found, &count) && count > 0 && !p->found.status;
    nn__lt.MatmulPreferenceDestroy(preference);
    return p->usable ? p : NULL;
}
static int nn__lt_multiply(nn__cuda *d, const nn__matrices *m)       // 1: launched
{
    static const int compute[4] = { 68, 77, 75, 74 };    // CUBLAS_COMPUTE_32F, its fast forms
    const float one = 1, beta = m->add ? 1.0f : 0.0f;
    nn__lt_key key;
    nn__lt_plan *p;
    void *room;
    if (d->own_products || (double)m->m * (double)m->n * (double)m->k < NN__LT_LEAST || m->yj != 1 || m->fold[0] != 1 || m->fold[1] != 1 || m->outer.ndim > 1 || m->outer.count > 65535) return 0;
    memset(&key, 0, sizeof key);
    key.m = m->m; key.n = m->n; key.k = m->k; key.count = m->outer.count; key.ly = m->yi;
    key.ta = m->ap != 1; key.la = key.ta ? m->ap : m->ai;
    key.tb = m->bj != 1; key.lb = key.tb ? m->bj : m->bp;
    if (m->outer.ndim) { key.sa = m->outer.stride[0][0]; key.sb = m->outer.stride[1][0]; key.sy = m->outer.stride[2][0]; }
    key.compute = compute[d->precision];
    key.epilogue = m->bias ? (m->relu ? 6 : 4) : m->relu ? 2 : 1;
    if ((key.ta && m->ai != 1) || (key.tb && m->bp != 1) || ((key.la | key.lb | key.ly | key.sa | key.sb | key.sy) & 3) ||
        key.la < (key.ta ? key.m : key.k) || key.lb < (key.tb ? key.k : key.n) || key.ly < key.n ||
        (((uintptr_t)m->a | (uintptr_t)m->b | (uintptr_t)m->y | (uintptr_t)m->bias) & 15)) return 0;
    if (!nn__lt_open(d) || !(p = nn__lt_plan_of(d, &key))) return 0;
    room = p->found.bytes ? nn__cuda_scratch(d, p->found.bytes) : NULL;
    if (p->found.bytes && !room) return 1;
    if (m->bias) nn__lt.MatmulDescSetAttribute(p->desc, 8, &m->bias, sizeof m->bias);
    if (d->patched) { d->broken = 1; return 1; }
    if (nn__lt.Matmul(nn__lt.handle[d->device], p->desc, &one, m->b, p->b, m->a, p->a, &beta, m->y, p->y, m->y, p->y, &p->found.algo, room, p->found.bytes, d->stream)) {
        p->usable = 0;
        return 0;
    }
    nn__cuda_launched(d, "cublasLtMatmul", __LINE__);
    return 1;
}
#endif
static nn__weights nn__weights_as(int type, const void *at)
{
    nn__weights w = {};
    w.type = type; w.at = at; w.shift = 62;              // one group
    return w;
}
static int nn__multiply(nn__cuda *d, nn__matrices m, const nn__weights *w)       // w: of small weights
{
    nn__product g = {};
    nn__side *s = &g.side[0];
    int swap = !w && m.yj != 1 && m.yi == 1;
    if (!m.m || !m.n || !m.outer.count) return 1;
    if (!swap && !w && m.n <= 8 && m.m > 8) swap = 1;    // thin the other way
    if (swap) {                      // y' = b' a'
        const float *f = m.a; m.a = m.b; m.b = f;
        int64_t t = m.m, i; m.m = m.n; m.n = t;
        t = m.ai; m.ai = m.bj; m.bj = t;
        t = m.ap; m.ap = m.bp; m.bp = t;
        t = m.yi; m.yi = m.yj; m.yj = t;
        for (i = 0; i < 2; i++) { t = m.afold[i]; m.afold[i] = m.bfold[i]; m.bfold[i] = t; }
        for (i = 0; i < m.outer.ndim; i++) { t = m.outer.stride[0][i]; m.outer.stride[0][i] = m.outer.stride[1][i]; m.outer.stride[1][i] = t; }
    }
    if (!w && (!swap || !m.bias) && nn__lt_multiply(d, &m)) return 1;
    s->a.at = m.a; s->b.at = m.b; s->y = m.y;
    s->a.h = s->a.w = s->b.h = s->b.w = 1;
    s->a.i = nn__line(m.m, m.ai); s->b.i = nn__line(m.n, m.bj); s->column = nn__line(m.n, m.yj);
    s->a.p = nn__digits(m.fold[1], m.fold[0], m.k, m.afold[1], m.afold[0], m.ap);
    s->b.p = nn__digits(m.fold[1], m.fold[0], m.k, m.bfold[1], m.bfold[0], m.bp);
    s->k = s->a.p.count;
    if (s->k == s->a.p.nx) { nn__join(&s->a.p); nn__join(&s->b.p); }
    g.sides = 1; g.parts = 1; g.add = m.add; g.relu = m.relu; g.m = m.m; g.n = m.n; g.ys = m.yi; g.outer = m.outer;
    g.bias = m.bias; g.bi = swap; g.bj = !swap;
    if (w) return nn__product_thin(d, &g, *w);
    nn__points pa = s->a.p, pb = s->b.p;
    nn__join(&pa); nn__join(&pb);
    if (m.m <= 8 && pa.nx == s->k && pb.nx == s->k && s->k) {
        s->a.p = pa; s->b.p = pb;
        return nn__product_thin(d, &g, nn__weights_as(NN_F32, m.b));
    }
    return nn__product_tiled(d, &g);
}

// ---- matmul ----
static int nn__is_f32(const nn_view *v) { return !v->data || v->dtype == NN_F32; }
static void nn__lay_add(nn__lay *l, int64_t size, int64_t a, int64_t b, int64_t y)       // one more dimension, the fastest
{
    int n = l->ndim - 1;
    l->count *= size;
    l->small = l->count < 0x7fffffff;
    if (size == 1) return;
    if (n >= 0 && l->stride[0][n] == a * size && l->stride[1][n] == b * size && l->stride[2][n] == y * size) l->size[n] *= size;
    else { n = l->ndim++; l->size[n] = size; }
    l->stride[0][n] = a; l->stride[1][n] = b; l->stride[2][n] = y;
}
static int64_t nn__batch_stride(const nn_view *v, const nn_view *like, int dim)          // of dimension dim of `like`; 0 where v is broadcast
{
    int e = dim - (like->ndim - v->ndim);
    return e < 0 || v->shape[e] == 1 ? 0 : v->stride[e];
}
// which: 0 y = a b, 1 da = dy b', 2 db = a' dy. Where the result was broadcast, the sum goes over the batch as well.
static int nn__matmul_part(nn__cuda *d, const nn_call *c, int which)
{
    const nn_view *like = &c->out[0], *a = which == 1 ? &c->dout[0] : &c->in[0], *b = which == 2 ? &c->dout[0] : &c->in[1];
    const nn_view *y = which ? &c->din[which - 1] : like;
    int64_t m = like->shape[like->ndim - 2], n = like->shape[like->ndim - 1], k = c->in[0].shape[c->in[0].ndim - 1];
    nn__matrices g = {};
    nn__lay rest;                    // folds: sizes and strides of a and b
    int i, dim;
    int64_t at[3], r;
    memset(&rest, 0, sizeof rest);
    g.outer.count = rest.count = g.fold[0] = g.fold[1] = 1;
    g.a = (const float *)a->data; g.b = (const float *)b->data; g.y = (float *)y->data;
    g.m = which == 2 ? k : m; g.n = which == 1 ? k : n; g.k = which == 1 ? n : which == 2 ? m : k;
    g.ai = a->stride[a->ndim - 2]; g.ap = a->stride[a->ndim - 1];
    g.bp = b->stride[b->ndim - 2]; g.bj = b->stride[b->ndim - 1];
    if (which == 2) { r = g.ai; g.ai = g.ap; g.ap = r; }
    if (which == 1) { r = g.bp; g.bp = g.bj; g.bj = r; }
    g.yi = y->stride[y->ndim - 2]; g.yj = y->stride[y->ndim - 1];
    g.add = which ? (int)(c->add >> (which - 1) & 1) : 0;
    for (dim = 0; dim < like->ndim - 2; dim++) {
        int e = dim - (like->ndim - y->ndim);
        int64_t size = like->shape[dim], sa = nn__batch_stride(a, like, dim), sb = nn__batch_stride(b, like, dim);
        if (e >= 0 && (y->shape[e] == size || !which)) nn__lay_add(&g.outer, size, sa, sb, y->stride[e]);
        else nn__lay_add(&rest, size, sa, sb, 0);
    }
    // rows of a that run on through the batch are more rows
    if (g.outer.ndim == 1 && g.outer.stride[1][0] == 0 && g.outer.stride[0][0] == g.m * g.ai && g.outer.stride[2][0] == g.m * g.yi && g.m) {
        g.m *= g.outer.count;
        memset(&g.outer, 0, sizeof g.outer);
        g.outer.count = 1;
    }
    for (i = 0; i < 2 && i < rest.ndim; i++) {           // the last dimensions are digits of the terms
        int e = rest.ndim - 1 - i;
        g.fold[i] = rest.size[e]; g.afold[i] = rest.stride[0][e]; g.bfold[i] = rest.stride[1][e];
    }
    if (!rest.count) g.k = 0;
    if (rest.ndim <= 2) return nn__multiply(d, g, NULL);
    for (r = 0; r < rest.count / (g.fold[0] * g.fold[1]); r++) {     // and those before them more launches
        nn__matrices one = g;
        int64_t left = r;
        at[0] = at[1] = 0;
        for (i = rest.ndim - 3; i >= 0; i--) { at[0] += left % rest.size[i] * rest.stride[0][i]; at[1] += left % rest.size[i] * rest.stride[1][i]; left /= rest.size[i]; }
        one.a += at[0]; one.b += at[1];
        one.add = g.add || r;
        if (!nn__multiply(d, one, NULL)) return 0;
    }
    return 1;
}
static int nn__cuda_matmul(nn__cuda *d, const nn_call *c) { return nn__is_f32(&c->out[0]) && nn__matmul_part(d, c, 0); }
static int nn__cuda_matmul_back(nn__cuda *d, const nn_call *c)
{
    int i;
    for (i = 0; i < 2; i++) if (c->din[i].data && !nn__is_f32(&c->din[i])) return 0;
    for (i = 0; i < 2; i++) if (c->din[i].data && !nn__matmul_part(d, c, i + 1)) return 0;
    return 1;
}

// ---- sums of columns and of channels: gradients of biases ----
// x (rows, n): 32 columns a block, 8 rows at a time. x (batch, n, inner): a channel a block.
static __global__ void __launch_bounds__(256) nn__k_column_sums(const float *x, int64_t rows, int64_t n, int64_t per, float *y, int add)
{
    NN_SHARED(float, sums, [8][33]);
    const int t = (int)threadIdx.x, lane = t & 31, w = t >> 5;
    const int64_t j = (int64_t)blockIdx.x * 32 + lane, first = blockIdx.y * per, end = min(rows, first + per);
    float sum = 0;
    if (j < n) for (int64_t i = first + w; i < end; i += 8) sum += x[i * n + j];
    sums[w][lane] = sum;
    __syncthreads();
    if (w || j >= n) return;
    for (int k = 1; k < 8; k++) sum += sums[k][lane];
    y += blockIdx.y * n + j;
    *y = add ? *y + sum : sum;
}
static __global__ void __launch_bounds__(256) nn__k_channel_sums(const float *x, int64_t batch, int64_t n, int64_t inner, int64_t per, float *y, int add)
{
    NN_SHARED(float, warps, [32]);
    const int64_t channel = blockIdx.x, first = blockIdx.y * per, end = min(batch * inner, first + per);
    float sum = 0;
    for (int64_t e = first + threadIdx.x; e < end; e += 256) { const int64_t b = nn__over(e, inner); sum += x[(b * n + channel) * inner + e - b * inner]; }
    sum = nn__block_sum(sum, warps);
    y += blockIdx.y * n + channel;
    if (threadIdx.x == 0) *y = add ? *y + sum : sum;
}
static int nn__sum_bias(nn__cuda *d, const float *x, int64_t batch, int64_t n, int64_t inner, float *y, int add)
{
    int64_t rows = batch * inner, blocks = inner == 1 ? nn__ceil(n, 32) : n, parts, per;
    float *to = y;
    if (!n) return 1;
    parts = blocks >= NN__ENOUGH_BLOCKS / 2 ? 1 : nn__ceil(NN__ENOUGH_BLOCKS, blocks);
    if (parts > nn__ceil(rows, inner == 1 ? 64 : 2048)) parts = nn__ceil(rows, inner == 1 ? 64 : 2048);
    if (parts < 1) parts = 1;
    per = nn__ceil(rows, parts);
    if (parts > 1 && !(to = (float *)nn__cuda_scratch(d, (size_t)(parts * n) * sizeof *to))) return 1;
    dim3 grid((unsigned)blocks, (unsigned)parts);
    if (inner == 1) NN__LAUNCH(d, nn__k_column_sums, grid, 256, 0, x, rows, n, per, to, parts == 1 && add);
    else            NN__LAUNCH(d, nn__k_channel_sums, grid, 256, 0, x, batch, n, inner, per, to, parts == 1 && add);
    if (parts > 1)  NN__LAUNCH(d, nn__k_column_sums, NN__BLOCKS(n, 32), 256, 0, (const float *)to, parts, n, parts, y, add);
    return 1;
}

// ---- linear ----
static int nn__cuda_forward(nn__cuda *d, int op, const nn_call *c);  // the op's own handler (>>run)
static int nn__by_columns(const nn_view *w) { return w->stride[0] == 1 && w->shape[0] > 1; }
static nn__matrices nn__linear_of(const nn_call *c, int which)       // 0 y = x w', 1 dx = dy w, 2 dw = dy' x
{
    const nn_view *w = which == 2 ? &c->din[1] : &c->in[1];
    int64_t n = c->in[1].shape[0], k = c->in[0].shape[c->in[0].ndim - 1], m = n ? nn_view_count(&c->out[0]) / n : 0;
    nn__matrices g = {};
    if (!n && k) m = nn_view_count(&c->in[0]) / k;
    g.outer.count = g.fold[0] = g.fold[1] = 1;
    if (which < 2) {
        g.a = (const float *)(which ? c->dout[0].data : c->in[0].data); g.b = (const float *)w->data; g.y = (float *)(which ? c->din[0].data : c->out[0].data);
        g.m = m; g.n = which ? k : n; g.k = which ? n : k;
        g.ai = g.k; g.ap = 1; g.bp = w->stride[!which]; g.bj = w->stride[which]; g.yi = g.n; g.yj = 1;
        g.add = which && (c->add & 1);
    } else {
        g.a = (const float *)c->dout[0].data; g.b = (const float *)c->in[0].data; g.y = (float *)w->data;
        g.m = n; g.n = k; g.k = m;
        g.ai = 1; g.ap = n; g.bp = k; g.bj = 1; g.yi = w->stride[0]; g.yj = w->stride[1];
        g.add = (int)(c->add >> 1 & 1);
    }
    return g;
}
static nn__weights nn__weights_of(const nn_view *v, const nn_view *scale, int64_t k)         // scale: (columns, groups)
{
    nn__weights w = nn__weights_as(v->dtype == NN_I32 ? NN_I4 : v->dtype, v->data);
    int64_t groups = scale->data && scale->ndim == v->ndim ? scale->shape[scale->ndim - 1] : 1;
    if (!scale->data) return w;
    w.scale = (const float *)scale->data;
    w.sj = scale->stride[scale->ndim - 2 + (scale->ndim < 2)];
    if (groups < 2) return w;
    w.sg = scale->stride[scale->ndim - 1];
    w.group = k / groups;
    if (w.type == NN_I4) for (w.group = 8; nn__ceil(k, w.group) > groups; w.group *= 2) { }
    while (w.shift >= 0 && (int64_t)1 << w.shift != w.group) w.shift--;
    return w;
}
static void nn__enlarge(nn__cuda *d, nn__weights w, float *to, int64_t count, int64_t n, int64_t k, int columns)
{
    static void (*const enlarge[])(const nn__weights, float *, int64_t, int64_t, int64_t, int) = { nn__k_enlarge<NN_BF16>, nn__k_enlarge<NN_F16>, nn__k_enlarge<NN_I8>, nn__k_enlarge<NN_I4> };
    if (count) NN__LAUNCH(d, enlarge[NN__OF_TYPE(w.type) - 1], NN__BLOCKS(count, 256), 256, 0, w, to, count, n, k, columns);
}
static int nn__dense_either_way(const nn_view *v) { return (v->stride[1] == 1 && v->stride[0] == v->shape[1]) || (v->stride[0] == 1 && v->stride[1] == v->shape[0]); }
static int nn__large_weights(nn__cuda *d, const nn_call *c, int which, nn__matrices *g)      // small weights as floats, in the same order; 0: they are not dense
{
    const nn_view *v = &c->in[1];
    int64_t n = v->shape[0], k = c->in[0].shape[c->in[0].ndim - 1];
    int columns = nn__by_columns(v);
    float *to = nn__dense_either_way(v) ? (float *)nn__cuda_scratch(d, (size_t)(n * k) * sizeof *to) : NULL;
    if (!nn__dense_either_way(v)) return 0;
    if (to) nn__enlarge(d, nn__weights_of(v, &c->in[3], k), to, nn_view_count(v), n, k, columns);
    g->b = to;
    *(which ? &g->bj : &g->bp) = columns ? n : 1;
    *(which ? &g->bp : &g->bj) = columns ? 1 : k;
    return 1;
}
enum { NN__THIN_ROWS = 16 };         // four passes over small weights of 2 bytes and less move no more than floats that are written and read once
static int nn__cuda_linear(nn__cuda *d, const nn_call *c)
{
    nn__matrices g = nn__linear_of(c, 0);
    nn__weights w = {};
    int then = *(const int *)c->params, small = c->op->id == NN_OP_linear_small, done;
    if (!nn__is_f32(&c->in[0])) return 0;
    g.bias = (const float *)c->in[2].data;
    g.relu = then == NN_OP_relu;
    if (small) w = nn__weights_of(&c->in[1], &c->in[3], g.k);
    if (small && g.m > NN__THIN_ROWS) {
        if (!nn__large_weights(d, c, 0, &g)) return 0;
        if (!g.b) return 1;
        small = 0;
    }
    done = nn__multiply(d, g, small ? &w : NULL);
    if (done && then && !g.relu) {                       // any other activation, in place
        nn_call f = *c;
        f.in[0] = f.out[0];
        f.nin = 1;
        done = nn__cuda_forward(d, then, &f);
    }
    return done;
}
static int nn__cuda_linear_back(nn__cuda *d, const nn_call *c)
{
    nn__matrices g = nn__linear_of(c, 1);
    if (!nn__is_f32(&c->in[0]) || !nn__is_f32(&c->dout[0])) return 0;
    if (c->din[0].data) {
        if (c->op->id == NN_OP_linear_small && !nn__large_weights(d, c, 1, &g)) return 0;
        if (c->op->id == NN_OP_linear_small && !g.b) return 1;
        if (!nn__multiply(d, g, NULL)) return 0;
    }
    if (c->din[1].data && !nn__multiply(d, nn__linear_of(c, 2), NULL)) return 0;
    if (c->din[2].data) return nn__sum_bias(d, (const float *)c->dout[0].data, g.m, g.k, 1, (float *)c->din[2].data, (int)(c->add >> 2 & 1));
    return 1;
}
static int nn__cuda_dequantize(nn__cuda *d, const nn_call *c)
{
    int64_t k = *(const int64_t *)c->params, n = k ? nn_view_count(&c->out[0]) / k : 0;
    nn__enlarge(d, nn__weights_of(&c->in[0], &c->in[1], k), (float *)c->out[0].data, nn_view_count(&c->in[0]), n, k, 0);
    return 1;
}
#define NN__CUDA_PRODUCTS(X) X(dequantize, nn__cuda_dequantize, NULL) X(matmul, nn__cuda_matmul, nn__cuda_matmul_back) X(linear, nn__cuda_linear, nn__cuda_linear_back) \
                             X(linear_small, nn__cuda_linear, nn__cuda_linear_back)

// =============================================================================================
// >>conv   Convolutions, pooling, upsampling.
//
// A convolution ties a map to an image (see >>ops in nn.h): conv2d gathers the map from the image, its dx spreads the map over the image, its dw
// correlates the two; conv_transpose2d the other way round. A spread is one gather of stride 1 for every phase of the stride. All are products:
//   gather     rows: channels out     columns: (sample, y, x)         terms: (channel in, ky, kx)
//   correlate  rows: map channels     columns: (channel, ky, kx)      terms: (sample, y, x)
// =============================================================================================
typedef struct nn__conv_size { int64_t batch, groups, o, c, kernel[2], map[2], image[2], stride[2], pad[2], dilation[2]; int transposed; } nn__conv_size;
static int nn__conv_of(const nn_call *c, nn__conv_size *v)           // 0: too large for places of 32 bits
{
    const nn__conv_params *p = (const nn__conv_params *)c->params;
    const nn_view *image, *map, *w = &c->in[1];
    int d, fits = 1;
    v->transposed = c->op->id == NN_OP_conv_transpose2d;
    image = v->transposed ? &c->out[0] : &c->in[0];
    map = v->transposed ? &c->in[0] : &c->out[0];
    v->batch = image->shape[0]; v->groups = p->groups; v->o = w->shape[0] / p->groups; v->c = w->shape[1];
    for (d = 0; d < 2; d++) {
        v->kernel[d] = w->shape[2 + d]; v->map[d] = map->shape[2 + d]; v->image[d] = image->shape[2 + d];
        v->stride[d] = p->stride[d]; v->dilation[d] = p->dilation[d];
        v->pad[d] = p->same ? p->dilation[d] * (v->kernel[d] - 1) / 2 : p->pad[d];
        fits = fits && v->image[d] < 1 << 28 && v->map[d] < 1 << 28 && v->pad[d] < 1 << 28 && v->kernel[d] * v->dilation[d] < 1 << 28 && v->map[d] * v->stride[d] < 1 << 29;
    }
    return fits;
}
// One dimension: result i lies at first + i pitch; its tap a, tap0 + a tap_step of the kernel, reads place i step + offset + a hop.
typedef struct nn__axis { int64_t count, first, pitch, step, offset, hop, taps, tap0, tap_step; } nn__axis;
static nn__axis nn__axis_of(const nn__conv_size *v, int d, int spread, int64_t phase)
{
    nn__axis a;
    int64_t k;
    a.count = v->map[d]; a.first = 0; a.pitch = 1; a.step = v->stride[d]; a.offset = -v->pad[d]; a.hop = v->dilation[d];
    a.taps = v->kernel[d]; a.tap0 = 0; a.tap_step = 1;
    if (!spread) return a;
    a.count = (v->image[d] - phase + v->stride[d] - 1) / v->stride[d];
    a.first = phase; a.pitch = v->stride[d]; a.step = 1;
    a.offset = a.hop = a.taps = 0;
    for (k = 0; k < v->kernel[d]; k++) {
        int64_t at = phase + v->pad[d] - k * v->dilation[d];
        if (at % v->stride[d]) continue;
        if (a.taps == 0) { a.tap0 = k; a.offset = at / v->stride[d]; }
        if (a.taps == 1) { a.tap_step = k - a.tap0; a.hop = at / v->stride[d] - a.offset; }
        a.taps++;
    }
    return a;
}
static void nn__places(nn__points *s, int64_t py, int64_t px, int64_t y0, int64_t x0) { s->py = (int)py; s->px = (int)px; s->y0 = (int)y0; s->x0 = (int)x0; }
static int nn__within(int i0, int64_t in, int ip, int p0, int64_t pn, int pp, int size)      // no index leads out of the grid in this direction
{
    int64_t a = (in - 1) * ip, b = (pn - 1) * pp, low = i0 + p0 + (a < 0 ? a : 0) + (b < 0 ? b : 0), high = i0 + p0 + (a > 0 ? a : 0) + (b > 0 ? b : 0);
    return low >= 0 && high < size;
}
static void nn__forget_places(nn__factor *f)             // where nothing is padding
{
    if (nn__within(f->i.y0, f->i.ny, f->i.py, f->p.y0, f->p.ny, f->p.py, f->h)) { f->i.py = f->p.py = f->i.y0 = f->p.y0 = 0; f->h = 1; }
    if (nn__within(f->i.x0, f->i.nx, f->i.px, f->p.x0, f->p.nx, f->p.px, f->w)) { f->i.px = f->p.px = f->i.x0 = f->p.x0 = 0; f->w = 1; }
}
static int nn__conv_gather(nn__cuda *d, const nn__conv_size *v, int spread, const float *from, const float *w, const float *bias, float *to, int add)
{
    const int64_t *in = spread ? v->map : v->image, *out = spread ? v->image : v->map, taps = v->kernel[0] * v->kernel[1];
    int64_t rows = spread ? v->c : v->o, channels = spread ? v->o : v->c, in_plane = in[0] * in[1], out_plane = out[0] * out[1];
    int64_t py = spread && v->stride[0] < out[0] ? v->stride[0] : 1, px = spread && v->stride[1] < out[1] ? v->stride[1] : 1, phase, phases;
    nn__product g = {};
    if (spread && v->stride[0] >= out[0]) py = out[0];
    if (spread && v->stride[1] >= out[1]) px = out[1];
    phases = py * px;
    g.add = add; g.parts = 1; g.m = rows; g.ys = out_plane; g.bias = bias; g.bi = 1; g.bz = rows;
    g.outer.count = 1;
    nn__lay_add(&g.outer, v->groups, v->o * v->c * taps, channels * in_plane, rows * out_plane);
    for (phase = 0; phase < phases; phase++) {
        nn__side *s = &g.side[g.sides++];
        nn__axis y = nn__axis_of(v, 0, spread, phase / px), x = nn__axis_of(v, 1, spread, phase % px);
        memset(s, 0, sizeof *s);
        s->k = channels * y.taps * x.taps;
        s->a.at = w; s->b.at = from; s->y = to;
        s->a.h = s->a.w = 1; s->b.h = (int)in[0]; s->b.w = (int)in[1];
        s->a.i = nn__line(rows, spread ? taps : v->c * taps);
        s->a.p = nn__digits(channels, y.taps, x.taps, spread ? v->c * taps : taps, y.tap_step * v->kernel[1], x.tap_step);
        s->a.p.from = y.tap0 * v->kernel[1] + x.tap0;
        s->b.i = nn__digits(v->batch, y.count, x.count, v->groups * channels * in_plane, y.step * in[1], x.step);
        s->b.i.from = y.offset * in[1] + x.offset;
        nn__places(&s->b.i, y.step, x.step, y.offset, x.offset);
        s->b.p = nn__digits(channels, y.taps, x.taps, in_plane, y.hop * in[1], x.hop);
        nn__places(&s->b.p, y.hop, x.hop, 0, 0);
        s->column = nn__digits(v->batch, y.count, x.count, v->groups * rows * out_plane, y.pitch * out[1], x.pitch);
        s->column.from = y.first * out[1] + x.first;
        nn__forget_places(&s->b);
        if (s->column.count > g.n) g.n = s->column.count;
        if (g.sides < NN__SIDES && phase + 1 < phases) continue;
        if (g.m && g.n && (rows <= 4 || (v->groups > 1 && rows <= 16))) {
            unsigned across = NN__BLOCKS(g.n, 128), chunks = rows == 1 ? 1 : NN__BLOCKS(rows, 4), blocks = nn__grid((int64_t)across * chunks * g.outer.count * g.sides);
            if (rows == 1) NN__LAUNCH(d, nn__k_few_rows<1>, blocks, 128, 0, g, across, chunks);
            else           NN__LAUNCH(d, nn__k_few_rows<4>, blocks, 128, 0, g, across, chunks);
        } else if (g.m && g.n) nn__product_tiled(d, &g);
        g.sides = 0; g.n = 0; g.parts = 1;
    }
    return 1;
}
static int nn__conv_correlate(nn__cuda *d, const nn__conv_size *v, const float *map, const float *image, float *dw, int add)
{
    int64_t taps = v->kernel[0] * v->kernel[1], map_plane = v->map[0] * v->map[1], plane = v->image[0] * v->image[1];
    nn__product g = {};
    nn__side *s = &g.side[0];
    g.sides = g.parts = 1; g.add = add; g.m = v->o; g.n = g.ys = v->c * taps;
    g.outer.count = 1;
    nn__lay_add(&g.outer, v->groups, v->o * map_plane, v->c * plane, v->o * v->c * taps);
    s->a.at = map; s->b.at = image; s->y = dw;
    s->k = v->batch * map_plane;
    s->a.h = s->a.w = 1; s->b.h = (int)v->image[0]; s->b.w = (int)v->image[1];
    s->a.i = nn__line(v->o, map_plane);
    s->a.p = nn__digits(v->batch, v->map[0], v->map[1], v->groups * v->o * map_plane, v->map[1], 1);
    s->b.i = nn__digits(v->c, v->kernel[0], v->kernel[1], plane, v->dilation[0] * v->image[1], v->dilation[1]);
    nn__places(&s->b.i, v->dilation[0], v->dilation[1], 0, 0);
    s->b.p = nn__digits(v->batch, v->map[0], v->map[1], v->groups * v->c * plane, v->stride[0] * v->image[1], v->stride[1]);
    s->b.p.from = -v->pad[0] * v->image[1] - v->pad[1];
    nn__places(&s->b.p, v->stride[0], v->stride[1], -v->pad[0], -v->pad[1]);
    s->column = nn__line(g.n, 1);
    nn__forget_places(&s->b);
    if (!g.m || !g.n) return 1;
    if (v->o * nn__ceil(g.n, 9) > 16) return nn__product_tiled(d, &g);
    unsigned across = NN__BLOCKS(g.n, 9);
    if (!nn__cut_terms(d, &g, across * g.m * g.outer.count, s->k, 2048)) return 1;
    NN__LAUNCH(d, nn__k_few_results, nn__grid(across * g.m * g.outer.count * g.parts), 256, 0, g, across);
    nn__add_parts(d, &g);
    return 1;
}
static int nn__cuda_conv(nn__cuda *d, const nn_call *c)
{
    nn__conv_size v;
    if (!nn__is_f32(&c->in[0]) || !nn__conv_of(c, &v)) return 0;
    return nn__conv_gather(d, &v, v.transposed, (const float *)c->in[0].data, (const float *)c->in[1].data, (const float *)c->in[2].data, (float *)c->out[0].data, 0);
}
static int nn__cuda_conv_back(nn__cuda *d, const nn_call *c)
{
    nn__conv_size v;
    const nn_view *dy = &c->dout[0];
    const float *x = (const float *)c->in[0].data, *w = (const float *)c->in[1].data, *g = (const float *)dy->data;
    if (!nn__is_f32(&c->in[0]) || !nn__is_f32(dy) || !nn__conv_of(c, &v)) return 0;
    if (c->din[0].data) nn__conv_gather(d, &v, !v.transposed, g, w, NULL, (float *)c->din[0].data, (int)(c->add & 1));
    if (c->din[1].data) nn__conv_correlate(d, &v, v.transposed ? x : g, v.transposed ? g : x, (float *)c->din[1].data, (int)(c->add >> 1 & 1));
    if (c->din[2].data) nn__sum_bias(d, g, dy->shape[0], dy->shape[1], dy->shape[2] * dy->shape[3], (float *)c->din[2].data, (int)(c->add >> 2 & 1));
    return 1;
}

// ---- pooling: a thread a result; backward, a thread a pixel, which looks at the windows it lies in, in order -------------------
typedef struct nn__pool { int64_t count; int n[2], m[2], kernel[2], stride[2], pad[2], dilation[2], adaptive, exclude_pad, pairs; } nn__pool;     // count results or pixels
typedef struct nn__span { int begin, end, full; } nn__span;
NN__DEV nn__span nn__span_of(const nn__pool &p, int d, int i)        // window i in direction d (nn__pool_window of nn.h)
{
    nn__span w;
    if (p.adaptive) {
        w.begin = (int)nn__over((int64_t)i * p.n[d], p.m[d]);
        w.end = (int)nn__over((int64_t)(i + 1) * p.n[d] + p.m[d] - 1, p.m[d]);
        w.full = w.end - w.begin;
        return w;
    }
    w.begin = i * p.stride[d] - p.pad[d];
    w.end = w.begin + (p.kernel[d] - 1) * p.dilation[d] + 1;
    w.full = min(w.end, p.n[d] + p.pad[d]) - w.begin;
    w.end = min(w.end, p.n[d]);
    if (w.begin < 0) w.begin += (-w.begin + p.dilation[d] - 1) / p.dilation[d] * p.dilation[d];
    return w;
}
NN__DEV nn__span nn__windows_of(const nn__pool &p, int d, int at)    // the windows, first to end, that may hold pixel `at`
{
    nn__span w;
    if (p.adaptive) {
        w.begin = (int)nn__over((int64_t)at * p.m[d], p.n[d]);
        w.end = (int)nn__over((int64_t)(at + 1) * p.m[d] + p.n[d] - 1, p.n[d]);
    } else {
        const int from = at + p.pad[d] - (p.kernel[d] - 1) * p.dilation[d];
        w.begin = from <= 0 ? 0 : (from + p.stride[d] - 1) / p.stride[d];
        w.end = (at + p.pad[d]) / p.stride[d] + 1;
    }
    w.end = min(w.end, p.m[d]);
    w.full = 0;
    return w;
}
NN__DEV float nn__share_of(const nn__pool &p, nn__span y, nn__span x)
{
    const float n = p.exclude_pad ? (float)max(0, y.end - y.begin) * (float)max(0, x.end - x.begin) : (float)y.full * (float)x.full;
    return n > 0 ? n : 0;
}
NN__DEV int64_t nn__pixel(int64_t e, const int *size, int *y, int *x)        // plane, row, column of number e
{
    const int64_t r = nn__over(e, size[1]), plane = nn__over(r, size[0]);
    *x = (int)(e - r * size[1]);
    *y = (int)(r - plane * size[0]);
    return plane;
}
static __global__ void nn__k_maxpool(const nn__pool p, const float *x, float *y, int *at)
{
    const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int oy, ox, place = -1;
    float best = -INFINITY;
    if (e >= p.count) return;
    x += nn__pixel(e, p.m, &oy, &ox) * p.n[0] * p.n[1];
    const nn__span wy = nn__span_of(p, 0, oy), wx = nn__span_of(p, 1, ox);
    const int sy = p.adaptive ? 1 : p.dilation[0], sx = p.adaptive ? 1 : p.dilation[1];
    if (p.pairs) for (int i = wy.begin; i < wy.end; i++) {           // windows of two columns, side by side, aligned
        const float2 v = *(const float2 *)(x + (int64_t)i * p.n[1] + wx.begin);
        if (place < 0 || v.x > best || v.x != v.x) { best = v.x; place = i * p.n[1] + wx.begin; }
        if (v.y > best || v.y != v.y) { best = v.y; place = i * p.n[1] + wx.begin + 1; }
    }
    else for (int i = wy.begin; i < wy.end; i += sy) for (int j = wx.begin; j < wx.end; j += sx) {
        const float v = x[(int64_t)i * p.n[1] + j];
        if (place < 0 || v > best || v != v) { best = v; place = i * p.n[1] + j; }
    }
    y[e] = best;
    if (at) at[e] = place;
}
static __global__ void nn__k_maxpool_back(const nn__pool p, const float *dy, const int *at, float *dx, int add)
{
    const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int y, x;
    if (e >= p.count) return;
    const int64_t plane = nn__pixel(e, p.n, &y, &x) * p.m[0] * p.m[1];
    const nn__span wy = nn__windows_of(p, 0, y), wx = nn__windows_of(p, 1, x);
    const int place = y * p.n[1] + x;
    float sum = add ? dx[e] : 0;
    for (int i = wy.begin; i < wy.end; i++) for (int j = wx.begin; j < wx.end; j++) {
        const int64_t k = plane + (int64_t)i * p.m[1] + j;
        if (at[k] == place) sum += dy[k];
    }
    dx[e] = sum;
}
static __global__ void nn__k_avgpool(const nn__pool p, const float *x, float *y)
{
    const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int oy, ox;
    float sum = 0;
    if (e >= p.count) return;
    x += nn__pixel(e, p.m, &oy, &ox) * p.n[0] * p.n[1];
    const nn__span wy = nn__span_of(p, 0, oy), wx = nn__span_of(p, 1, ox);
    if (p.pairs) for (int i = wy.begin; i < wy.end; i++) { const float2 v = *(const float2 *)(x + (int64_t)i * p.n[1] + wx.begin); sum += v.x; sum += v.y; }
    else for (int i = wy.begin; i < wy.end; i++) for (int j = wx.begin; j < wx.end; j++) sum += x[(int64_t)i * p.n[1] + j];
    const float n = nn__share_of(p, wy, wx);
    y[e] = n > 0 ? sum / n : 0;
}
static __global__ void nn__k_avgpool_back(const nn__pool p, const float *dy, float *dx, int add)
{
    const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int y, x;
    if (e >= p.count) return;
    const int64_t plane = nn__pixel(e, p.n, &y, &x) * p.m[0] * p.m[1];
    const nn__span wy = nn__windows_of(p, 0, y), wx = nn__windows_of(p, 1, x);
    float sum = 0;
    for (int i = wy.begin; i < wy.end; i++) {
        const nn__span sy = nn__span_of(p, 0, i);
        for (int j = wx.begin; j < wx.end; j++) {
            const float n = nn__share_of(p, sy, nn__span_of(p, 1, j));
            if (n > 0) sum += dy[plane + (int64_t)i * p.m[1] + j] / n;
        }
    }
    dx[e] = add ? dx[e] + sum : sum;
}
static int nn__pool_of(const nn_call *c, nn__pool *p)
{
    const nn__pool_params *q = (const nn__pool_params *)c->params;
    int d, fits = nn__is_f32(&c->in[0]);
    memset(p, 0, sizeof *p);
    for (d = 0; d < 2; d++) {
        int64_t n = c->in[0].shape[2 + d], m = c->out[0].shape[2 + d];
        fits = fits && n < 1 << 29 && m < 1 << 29 && q->stride[d] < 1 << 29 && m * q->stride[d] < 1 << 30 && q->kernel[d] < 1 << 29 && q->kernel[d] * q->dilation[d] < 1 << 29;
        p->n[d] = (int)n; p->m[d] = (int)m; p->kernel[d] = (int)q->kernel[d]; p->stride[d] = (int)q->stride[d];
        p->pad[d] = (int)q->pad[d]; p->dilation[d] = (int)q->dilation[d];
    }
    p->adaptive = q->adaptive; p->exclude_pad = q->exclude_pad;
    p->pairs = !p->adaptive && p->kernel[1] == 2 && p->stride[1] == 2 && !p->pad[1] && p->dilation[0] == 1 && p->dilation[1] == 1 && 2 * p->m[1] <= p->n[1] &&
               !(p->n[1] & 1) && !((uintptr_t)c->in[0].data & 7);
    p->count = nn_view_count(c->pass == NN_FORWARD ? &c->out[0] : &c->in[0]);
    return fits;
}
static int nn__cuda_pool(nn__cuda *d, const nn_call *c)
{
    nn__pool p;
    const float *x = (const float *)c->in[0].data;
    float *y = (float *)c->out[0].data;
    if (!nn__pool_of(c, &p)) return 0;
    if (!p.count) return 1;
    if (c->op->id == NN_OP_avgpool2d) NN__LAUNCH(d, nn__k_avgpool, NN__BLOCKS(p.count, 256), 256, 0, p, x, y);
    else                              NN__LAUNCH(d, nn__k_maxpool, NN__BLOCKS(p.count, 256), 256, 0, p, x, y, (int *)c->aux[0].data);
    return 1;
}
static int nn__cuda_pool_back(nn__cuda *d, const nn_call *c)
{
    nn__pool p;
    const float *dy = (const float *)c->dout[0].data;
    float *dx = (float *)c->din[0].data;
    int add = (int)(c->add & 1);
    if (!nn__pool_of(c, &p)) return 0;
    if (!p.count || !dx) return 1;
    if (c->op->id == NN_OP_avgpool2d) NN__LAUNCH(d, nn__k_avgpool_back, NN__BLOCKS(p.count, 256), 256, 0, p, dy, dx, add);
    else                              NN__LAUNCH(d, nn__k_maxpool_back, NN__BLOCKS(p.count, 256), 256, 0, p, dy, (const int *)c->aux[0].data, dx, add);
    return 1;
}

// ---- upsample: places are fractions of integers, so that no double is needed -------------------------------------------------
typedef struct nn__resize { int64_t count; int n[2], m[2], bilinear, align; } nn__resize;
typedef struct nn__between2 { int a, b; float share; } nn__between2; // (1 - share) x(a) + share x(b)
NN__DEV nn__between2 nn__between_of(const nn__resize &p, int d, int i)
{
    nn__between2 r;
    const int64_t n = p.n[d], m = p.m[d];
    int64_t top = p.align ? i * (n - 1) : (2 * (int64_t)i + 1) * n - m, low = p.align ? m - 1 : 2 * m;
    r.share = 0;
    if (!p.bilinear) { r.a = r.b = (int)nn__over(i * n, m); return r; }
    if (low < 1) { top = 0; low = 1; }
    if (top < 0) top = 0;
    const int64_t q = nn__over(top, low);
    r.a = (int)min(q, n - 1);
    r.b = (int)min(q + 1, n - 1);
    r.share = (float)(top - q * low) / (float)low;
    return r;
}
// Results that may read pixel `at`: their places lie in at - 1 .. at + 1.
NN__DEV void nn__readers(const nn__resize &p, int d, int at, int *first, int *end)
{
    const int64_t n = p.n[d], m = p.m[d];
    int64_t a, b;
    if (!p.bilinear) { a = nn__over(at * m, n); b = nn__over((at + 1) * m + n - 1, n) + 1; }
    else if (p.align) { a = n > 1 ? nn__over(max(at - 1, 0) * (m - 1), n - 1) : 0; b = n > 1 ? nn__over((at + 1) * (m - 1), n - 1) + 2 : m; }
    else { a = nn__over(max(2 * (int64_t)at - 1, (int64_t)0) * m, 2 * n) - 1; b = nn__over((2 * (int64_t)at + 3) * m, 2 * n) + 2; }
    if (at == 0) a = 0;
    if (at == n - 1) b = m;
    *first = (int)max(a, (int64_t)0);
    *end = (int)min(b, m);
}
static __global__ void nn__k_upsample(const nn__resize p, const float *x, float *y)
{
    const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int oy, ox;
    if (e >= p.count) return;
    x += nn__pixel(e, p.m, &oy, &ox) * p.n[0] * p.n[1];
    const nn__between2 r = nn__between_of(p, 0, oy), c = nn__between_of(p, 1, ox);
    const float *a = x + (int64_t)r.a * p.n[1], *b = x + (int64_t)r.b * p.n[1];
    y[e] = p.bilinear ? (1 - r.share) * ((1 - c.share) * a[c.a] + c.share * a[c.b]) + r.share * ((1 - c.share) * b[c.a] + c.share * b[c.b]) : a[c.a];
}
static __global__ void nn__k_upsample_back(const nn__resize p, const float *dy, float *dx, int add)
{
    const int64_t e = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int y, x, y0, y1, x0, x1;
    float sum = 0;
    if (e >= p.count) return;
    dy += nn__pixel(e, p.n, &y, &x) * p.m[0] * p.m[1];
    nn__readers(p, 0, y, &y0, &y1);
    nn__readers(p, 1, x, &x0, &x1);
    for (int i = y0; i < y1; i++) {
        const nn__between2 r = nn__between_of(p, 0, i);
        const float u = (r.a == y ? 1 - r.share : 0) + (r.b == y && p.bilinear ? r.share : 0);
        if (r.a != y && r.b != y) continue;
        for (int j = x0; j < x1; j++) {
            const nn__between2 c = nn__between_of(p, 1, j);
            if (c.a == x || c.b == x) sum += u * ((c.a == x ? 1 - c.share : 0) + (c.b == x && p.bilinear ? c.share : 0)) * dy[(int64_t)i * p.m[1] + j];
        }
    }
    dx[e] = add ? dx[e] + sum : sum;
}
static int nn__resize_of(const nn_call *c, nn__resize *r)
{
    const nn__upsample_params *q = (const nn__upsample_params *)c->params;
    int d, fits = nn__is_f32(&c->in[0]);
    memset(r, 0, sizeof *r);
    for (d = 0; d < 2; d++) {
        r->n[d] = (int)c->in[0].shape[2 + d]; r->m[d] = (int)c->out[0].shape[2 + d];
        fits = fits && c->in[0].shape[2 + d] < 1 << 30 && c->out[0].shape[2 + d] < 1 << 30;
    }
    r->bilinear = q->bilinear; r->align = q->align_corners;
    r->count = nn_view_count(c->pass == NN_FORWARD ? &c->out[0] : &c->in[0]);
    return fits;
}
static int nn__cuda_upsample(nn__cuda *d, const nn_call *c)
{
    nn__resize r;
    if (!nn__resize_of(c, &r)) return 0;
    if (r.count) NN__LAUNCH(d, nn__k_upsample, NN__BLOCKS(r.count, 256), 256, 0, r, (const float *)c->in[0].data, (float *)c->out[0].data);
    return 1;
}
static int nn__cuda_upsample_back(nn__cuda *d, const nn_call *c)
{
    nn__resize r;
    if (!nn__resize_of(c, &r)) return 0;
    if (r.count && c->din[0].data)
        NN__LAUNCH(d, nn__k_upsample_back, NN__BLOCKS(r.count, 256), 256, 0, r, (const float *)c->dout[0].data, (float *)c->din[0].data, (int)(c->add & 1));
    return 1;
}
#define NN__CUDA_CONV(X) X(conv2d, nn__cuda_conv, nn__cuda_conv_back) X(conv_transpose2d, nn__cuda_conv, nn__cuda_conv_back) \
                         X(maxpool2d, nn__cuda_pool, nn__cuda_pool_back) X(avgpool2d, nn__cuda_pool, nn__cuda_pool_back) \
                         X(upsample, nn__cuda_upsample, nn__cuda_upsample_back)

// =============================================================================================
// >>norm   Softmax, log-softmax; layer, RMS, batch and group norm.
// =============================================================================================
typedef struct nn__index { const void *data; int dtype; } nn__index;         // classes, rows of a table, lengths: i64 or i32
static nn__index nn__index_of(const nn_view *v) { nn__index r; r.data = v->data; r.dtype = v->dtype; return r; }
NN__DEV int64_t nn__index_at(const nn__index &t, int64_t i) { return nn__index_at(t.dtype, t.data, i); }

// ---- lines: numbers along a dimension, that a team of threads goes through four at a time ------------------------
// Where the numbers of a line lie side by side, its team is a warp, or a block if it is long or there are few. Other lines lie side by
// side themselves: a block of 32 x 8 threads takes 32 of them, and a team is the 8 threads of a column. Number i of line k is at
//     k / inner * outer + k % inner + i * step,     or, with a run:     ... + i / run * jump + i % run        (a channel of a batch)
typedef struct nn__lines { int64_t count, inner, outer, n, step, jump, run; } nn__lines;
typedef struct nn__team { int64_t line, at, n; int id, size, cols; float (*part)[33]; } nn__team;        // n: 0 for a team that has no line
typedef struct nn__quad { float v[4]; } nn__quad;
#define NN__EACH_QUAD(i, t, n) for (int64_t i = 4 * (int64_t)(t).id; i < (n); i += 4 * (int64_t)(t).size)
NN__DEV nn__team nn__team_of(const nn__lines &l)
{
    nn__team t;
    t.cols = l.step != 1;
    t.line = t.cols ? (int64_t)blockIdx.x * 32 + threadIdx.x : (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    t.id = t.cols ? threadIdx.y : threadIdx.x;
    t.size = t.cols ? blockDim.y : blockDim.x;
    t.n = t.line < l.count ? l.n : 0;
    t.at = t.line / l.inner * l.outer + t.line % l.inner;
    return t;
}
#define NN__TEAM(t, l) NN_SHARED(float, nn__team_part, [8][33]); nn__team t = nn__team_of(l); t.part = nn__team_part
NN__DEV int64_t nn__line_at(const nn__lines &l, const nn__team &t, int64_t i)
{
    if (!l.run) return t.at + i * l.step;
    return l.n < 0x7fffffff ? t.at + (int64_t)((unsigned)i / (unsigned)l.run) * l.jump + (unsigned)i % (unsigned)l.run : t.at + i / l.run * l.jump + i % l.run;
}
NN__DEV int nn__is_quad(const void *p) { return ((uintptr_t)p & 15) == 0; }
NN__DEV nn__quad nn__quad_of(float a) { nn__quad q; for (int k = 0; k < 4; k++) q.v[k] = a; return q; }
NN__DEV nn__quad nn__sum4(nn__quad a, const nn__quad &b) { for (int k = 0; k < 4; k++) a.v[k] += b.v[k]; return a; }
NN__DEV nn__quad nn__load_quad(const float *p)
{
    float4 f = *(const float4 *)p;
    nn__quad q;
    q.v[0] = f.x; q.v[1] = f.y; q.v[2] = f.z; q.v[3] = f.w;
    return q;
}
NN__DEV void nn__store_quad(float *p, const nn__quad &q) { *(float4 *)p = make_float4(q.v[0], q.v[1], q.v[2], q.v[3]); }
// Numbers i .. i + 3 of n side by side; those behind the end are `none`.
NN__DEV nn__quad nn__near4(const float *p, int64_t i, int64_t n, float none)
{
    nn__quad q;
    if (i + 4 <= n && nn__is_quad(p + i)) return nn__load_quad(p + i);
    for (int k = 0; k < 4; k++) q.v[k] = i + k < n ? p[i + k] : none;
    return q;
}
NN__DEV void nn__near4_put(float *p, int64_t i, int64_t n, nn__quad q, int add)
{
    if (add) q = nn__sum4(nn__near4(p, i, n, 0), q);
    if (i + 4 <= n && nn__is_quad(p + i)) { nn__store_quad(p + i, q); return; }
    for (int k = 0; k < 4; k++) if (i + k < n) p[i + k] = q.v[k];
}
// The same for a line; numbers from `end` on are `none`.
NN__DEV nn__quad nn__get4(const nn__lines &l, const nn__team &t, const float *p, int64_t i, int64_t end, float none)
{
    nn__quad q;
    if (l.step == 1 && l.run % 4 == 0) {
        int64_t at = nn__line_at(l, t, i);
        if (i + 4 <= end && nn__is_quad(p + at)) return nn__load_quad(p + at);
    }
    for (int k = 0; k < 4; k++) q.v[k] = i + k < end ? p[nn__line_at(l, t, i + k)] : none;
    return q;
}
NN__DEV void nn__put4(const nn__lines &l, const nn__team &t, float *p, int64_t i, nn__quad q, int add)
{
    if (add) q = nn__sum4(nn__get4(l, t, p, i, t.n, 0), q);
    if (l.step == 1 && l.run % 4 == 0) {
        int64_t at = nn__line_at(l, t, i);
        if (i + 4 <= t.n && nn__is_quad(p + at)) { nn__store_quad(p + at, q); return; }
    }
    for (int k = 0; k < 4; k++) if (i + k < t.n) p[nn__line_at(l, t, i + k)] = q.v[k];
}
// The sum or the maximum over a team, in every thread of it. All threads of the block take part.
NN__DEV float nn__team_join(const nn__team &t, float v, int most)
{
    float (*part)[33] = t.part;
    int w = t.cols ? threadIdx.y : threadIdx.x >> 5, lane = threadIdx.x & 31, column = t.cols ? lane : 0;
    if (!t.cols) {
        v = most ? nn__warp_max(v) : nn__warp_sum(v);
        if (blockDim.x == 32) return v;
    }
    if (t.cols || lane == 0) part[w][column] = v;
    __syncthreads();
    v = part[0][column];
    for (int k = 1; k < 8; k++) v = most ? fmaxf(v, part[k][column]) : v + part[k][column];
    __syncthreads();
    return v;
}
NN__DEV float nn__team_sum(const nn__team &t, float v) { return nn__team_join(t, v, 0); }
NN__DEV float nn__team_max(const nn__team &t, float v) { return nn__team_join(t, v, 1); }
// A running maximum and the sum of e^(x - maximum); -infinity of both so far: 0.
NN__DEV void nn__soft_add(const nn__quad &q, float *m, float *s)
{
    float top = fmaxf(fmaxf(q.v[0], q.v[1]), fmaxf(q.v[2], q.v[3])), safe;
    if (top > *m) { *s *= expf(*m - top); *m = top; }
    safe = *m == -INFINITY ? 0.0f : *m;
    for (int k = 0; k < 4; k++) *s += expf(q.v[k] - safe);
}
NN__DEV void nn__soft_join(const nn__team &t, float *m, float *s)
{
    float top = nn__team_max(t, *m);
    *s = nn__team_sum(t, *m == -INFINITY ? *s : *s * expf(*m - top));
    *m = top;
}

// n numbers with `inner` numbers between neighbours, `outer` such groups.
static nn__lines nn__lines_of(int64_t outer, int64_t n, int64_t inner)
{
    nn__lines l;
    l.count = outer * inner; l.inner = inner > 0 ? inner : 1; l.outer = n * inner; l.n = n; l.step = inner; l.jump = l.run = 0;
    return l;
}
static nn__lines nn__lines_around(const nn_view *x, int dim)
{
    int64_t outer = 1, inner = 1;
    int i;
    for (i = 0; i < dim; i++) outer *= x->shape[i];
    for (i = dim + 1; i < x->ndim; i++) inner *= x->shape[i];
    return nn__lines_of(outer, x->ndim ? x->shape[dim] : 1, inner);
}
static int nn__lines_long(const nn__lines *l)            // a block for each line
{
    int64_t room = l->count;
    return l->n > 4096 || (l->n > 256 && room < 512);
}
static dim3 nn__lines_grid(const nn__lines *l) { return dim3(l->step != 1 ? NN__BLOCKS(l->count, 32) : nn__lines_long(l) ? (unsigned)l->count : NN__BLOCKS(l->count, 4)); }
static dim3 nn__lines_block(const nn__lines *l) { return l->step != 1 ? dim3(32, 8) : nn__lines_long(l) ? dim3(256) : dim3(32, 4); }
#define NN__LAUNCH_LINES(d, k, l, ...) \
    do { if ((l).count) NN__LAUNCH(d, k, nn__lines_grid(&(l)), nn__lines_block(&(l)), 0, __VA_ARGS__); } while (0)

// ---- softmax:   y = e^(x - m) / s      log_softmax:   y = x - m - log s      backward:   y (dy - sum y dy),   dy - e^y sum dy -----
static __global__ void __launch_bounds__(256) nn__k_softmax(nn__lines l, const float *x, float *y, int logs)
{
    NN__TEAM(t, l);
    float m = -INFINITY, s = 0, by;
    NN__EACH_QUAD(i, t, t.n) nn__soft_add(nn__get4(l, t, x, i, t.n, -INFINITY), &m, &s);
    nn__soft_join(t, &m, &s);
    by = logs ? logf(s) : 1.0f / s;
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad q = nn__get4(l, t, x, i, t.n, 0);
        for (int k = 0; k < 4; k++) q.v[k] = logs ? q.v[k] - m - by : expf(q.v[k] - m) * by;
        nn__put4(l, t, y, i, q, 0);
    }
}
static __global__ void __launch_bounds__(256) nn__k_softmax_back(nn__lines l, const float *y, const float *dy, float *dx, int logs, int add)
{
    NN__TEAM(t, l);
    float s = 0;
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad g = nn__get4(l, t, dy, i, t.n, 0), q = logs ? nn__quad_of(1) : nn__get4(l, t, y, i, t.n, 0);
        for (int k = 0; k < 4; k++) s += g.v[k] * q.v[k];
    }
    s = nn__team_sum(t, s);
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad g = nn__get4(l, t, dy, i, t.n, 0), q = nn__get4(l, t, y, i, t.n, 0);
        for (int k = 0; k < 4; k++) g.v[k] = logs ? g.v[k] - expf(q.v[k]) * s : q.v[k] * (g.v[k] - s);
        nn__put4(l, t, dx, i, g, add);
    }
}
static int nn__cuda_softmax(nn__cuda *d, const nn_call *c)
{
    nn__lines l = nn__lines_around(&c->in[0], *(const int *)c->params);
    NN__LAUNCH_LINES(d, nn__k_softmax, l, l, (const float *)c->in[0].data, (float *)c->out[0].data, (int)(c->op->id == NN_OP_log_softmax));
    return 1;
}
static int nn__cuda_softmax_back(nn__cuda *d, const nn_call *c)
{
    nn__lines l = nn__lines_around(&c->out[0], *(const int *)c->params);
    if (c->din[0].data) NN__LAUNCH_LINES(d, nn__k_softmax_back, l, l, (const float *)c->out[0].data, (const float *)c->dout[0].data, (float *)c->din[0].data,
                                         (int)(c->op->id == NN_OP_log_softmax), (int)(c->add & 1));
    return 1;
}

static __global__ void __launch_bounds__(256) nn__k_give(nn__lines l, const float *x, float *y, int add)       // y (+)= x
{
    NN__TEAM(t, l);
    NN__EACH_QUAD(i, t, t.n) nn__put4(l, t, y, i, nn__get4(l, t, x, i, t.n, 0), add);
}

// ---- norms: formulas as at nn.h's.   x is (B, C, S): n numbers share mean and rstd.   y = w h + b,  h = (x - mean) rstd -----------
typedef struct nn__norm_dims { int64_t b, c, s, groups, n; } nn__norm_dims;
static nn__norm_dims nn__norm_dims_of(const nn_call *c)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const nn_view *x = &c->in[0];
    nn__norm_dims z;
    int i;
    z.b = z.c = z.s = 1;
    if (p->dims) {
        for (i = 0; i < x->ndim; i++) if (i < x->ndim - p->dims) z.b *= x->shape[i]; else z.c *= x->shape[i];
    } else {
        z.b = x->shape[0];
        z.c = x->shape[1];
        for (i = 2; i < x->ndim; i++) z.s *= x->shape[i];
    }
    z.groups = p->groups ? p->groups : 1;
    z.n = p->groups ? z.c / z.groups * z.s : z.b * z.s;
    return z;
}
// Weights of numbers i .. i + 3 of a row whose first channel is `first`; 1 or 0 where there are none.
NN__DEV nn__quad nn__norm_weights(const float *w, int64_t first, int64_t s, int64_t i, int64_t n, float none)
{
    nn__quad q;
    if (!w) return nn__quad_of(none);
    if (s == 1) return nn__near4(w + first, i, n, none);
    for (int k = 0; k < 4; k++) q.v[k] = i + k < n ? w[first + (n < 0x7fffffff ? (int64_t)((unsigned)(i + k) / (unsigned)s) : (i + k) / s)] : none;
    return q;
}
// s is normed: x + r, each thread reading back what it wrote; without r, x itself
static __global__ void __launch_bounds__(256) nn__k_norm(nn__lines l, nn__norm_dims z, const float *x, const float *r, const float *w, const float *b, float *s, float *y,
                                                         float *means, float *rstds, float eps, int center)
{
    NN__TEAM(t, l);
    int64_t first = t.line % z.groups * (z.c / z.groups);
    float mean = 0, var = 0, rstd, count = z.n > 0 ? (float)z.n : 1.0f;
    NN__EACH_QUAD(i, t, center || r ? t.n : 0) {
        nn__quad q = nn__get4(l, t, x, i, t.n, 0);
        if (r) nn__put4(l, t, s, i, q = nn__sum4(q, nn__get4(l, t, r, i, t.n, 0)), 0);
        mean += (q.v[0] + q.v[1]) + (q.v[2] + q.v[3]);
    }
    mean = center ? nn__team_sum(t, mean) / count : 0;
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad q = nn__get4(l, t, s, i, t.n, mean);
        for (int k = 0; k < 4; k++) var += (q.v[k] - mean) * (q.v[k] - mean);
    }
    rstd = 1.0f / sqrtf(nn__team_sum(t, var) / count + eps);
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad q = nn__get4(l, t, s, i, t.n, 0), scale = nn__norm_weights(w, first, z.s, i, t.n, 1), shift = nn__norm_weights(b, first, z.s, i, t.n, 0);
        for (int k = 0; k < 4; k++) q.v[k] = (q.v[k] - mean) * (rstd * scale.v[k]) + shift.v[k];
        nn__put4(l, t, y, i, q, 0);
    }
    if (means && t.id == 0 && t.line < l.count) { means[t.line] = mean; rstds[t.line] = rstd; }
}
// ds (may be NULL): what else the gradient gets; dr: the same once more, may lie where ds does. dx or dr may be NULL; bits 0 and 3 of add are theirs.
static __global__ void __launch_bounds__(256) nn__k_norm_dx(nn__lines l, nn__norm_dims z, const float *x, const float *w, const float *dy, const float *ds, const float *means,
                                                            const float *rstds, float *dx, float *dr, int center, unsigned add)
{
    NN__TEAM(t, l);
    int64_t first = t.line % z.groups * (z.c / z.groups);
    float mean = t.n ? means[t.line] : 0, rstd = t.n ? rstds[t.line] : 0, sum = 0, dot = 0, count = z.n > 0 ? (float)z.n : 1.0f, p, q;
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad v = nn__get4(l, t, x, i, t.n, mean), g = nn__get4(l, t, dy, i, t.n, 0), scale = nn__norm_weights(w, first, z.s, i, t.n, 1);
        for (int k = 0; k < 4; k++) { float e = g.v[k] * scale.v[k]; sum += e; dot += e * (v.v[k] - mean); }
    }
    dot = nn__team_sum(t, dot);
    p = -(rstd * dot / count * rstd * rstd);
    q = center ? -(rstd * nn__team_sum(t, sum) / count) : 0.0f;
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad v = nn__get4(l, t, x, i, t.n, 0), g = nn__get4(l, t, dy, i, t.n, 0), scale = nn__norm_weights(w, first, z.s, i, t.n, 1);
        for (int k = 0; k < 4; k++) v.v[k] = (v.v[k] - mean) * p + (g.v[k] * (rstd * scale.v[k]) + q);
        if (ds) v = nn__sum4(v, nn__get4(l, t, ds, i, t.n, 0));
        if (dx) nn__put4(l, t, dx, i, v, (int)(add & 1));
        if (dr) nn__put4(l, t, dr, i, v, (int)(add >> 3 & 1));
    }
}
// Sums over channels, in two stages: a block takes numbers from blockIdx.y * per on of its channels, then a thread adds the chunks of a channel.
typedef struct nn__chunks { int64_t count, per; } nn__chunks;
static nn__lines nn__channel_lines(const nn__norm_dims *z)
{
    nn__lines l = nn__lines_of(1, z->b, z->c);
    if (z->s == 1) return l;
    l.count = z->c; l.inner = 1; l.outer = z->s; l.n = z->b * z->s; l.step = 1; l.jump = z->c * z->s; l.run = z->s;
    return l;
}
static nn__chunks nn__chunks_of(const nn__lines *l)
{
    int64_t least = l->step == 1 ? 4096 : 128;
    nn__chunks k;
    k.count = l->n / least < 1 ? 1 : l->n / least > 64 ? 64 : l->n / least;
    k.per = ((l->n + k.count - 1) / k.count + 3) / 4 * 4;
    return k;
}
#define NN__LAUNCH_CHUNKS(d, k, l, chunks, ...) \
    do { dim3 nn__g = nn__lines_grid(&(l)); nn__g.y = (unsigned)(chunks).count; \
         if ((l).count) NN__LAUNCH(d, k, nn__g, nn__lines_block(&(l)), 0, l, (chunks).per, __VA_ARGS__); } while (0)
// part[chunk][0][channel]: sum dy h, part[chunk][1][channel]: sum dy. Statistics belong to a group of a sample, or (groups 0) to the channel.
static __global__ void __launch_bounds__(256) nn__k_norm_sums(nn__lines l, int64_t per, nn__norm_dims z, const float *x, const float *dy, const float *means, const float *rstds, float *part)
{
    NN__TEAM(t, l);
    int64_t from = per * blockIdx.y, end = from + per < t.n ? from + per : t.n, mine = z.groups && t.n ? t.line / (z.c / z.groups) : t.line;
    float dot = 0, sum = 0;
    NN__EACH_QUAD(j, t, end - from) {
        int64_t i = from + j;
        nn__quad v = x ? nn__get4(l, t, x, i, end, 0) : nn__quad_of(0), g = nn__get4(l, t, dy, i, end, 0);
        for (int k = 0; k < 4; k++) if (i + k < end) {
            int64_t at = z.groups ? (z.s == 1 ? i + k : (i + k) / z.s) * z.groups + mine : mine;
            if (x) dot += g.v[k] * ((v.v[k] - means[at]) * rstds[at]);
            sum += g.v[k];
        }
    }
    dot = nn__team_sum(t, dot);
    sum = nn__team_sum(t, sum);
    if (t.id == 0 && t.line < l.count) { float *to = part + (int64_t)blockIdx.y * 2 * l.count + t.line; to[0] = dot; to[l.count] = sum; }
}
// dw, db; for batch norm also what dx is made of, at coef: mean, factor of x - mean, shift, factor of dy.
static __global__ void nn__k_norm_give(int64_t channels, int64_t chunks, const float *part, float *dw, float *db, int add_w, int add_b, float *coef, const float *w,
                                       const float *means, const float *rstds, float count, int batch)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, k;
    float dot = 0, sum = 0;
    if (i >= channels) return;
    for (k = 0; k < chunks; k++) { dot += part[2 * k * channels + i]; sum += part[(2 * k + 1) * channels + i]; }
    if (dw) dw[i] = add_w ? dw[i] + dot : dot;
    if (db) db[i] = add_b ? db[i] + sum : sum;
    if (!coef) return;
    float scale = w ? w[i] : 1.0f, rstd = rstds[i];
    coef[i] = means[i];
    coef[channels + i] = batch ? -(rstd * rstd * (scale * dot) / count) : 0.0f;
    coef[2 * channels + i] = batch ? -(rstd * (scale * sum) / count) : 0.0f;
    coef[3 * channels + i] = rstd * scale;
}
static float *nn__norm_x(const nn_call *c) { return (float *)(c->nout > 1 ? c->out[0].data : c->in[0].data); }      // what is normed
static int nn__centers(const nn_call *c)   { return c->op->id != NN_OP_rmsnorm && c->op->id != NN_OP_add_rmsnorm; }
static int nn__cuda_norm(nn__cuda *d, const nn_call *c)
{
    nn__norm_dims z = nn__norm_dims_of(c);
    nn__lines l = nn__lines_of(z.b * z.groups, z.n, 1);
    NN__LAUNCH_LINES(d, nn__k_norm, l, l, z, (const float *)c->in[0].data, (const float *)(c->nout > 1 ? c->in[3].data : NULL), (const float *)c->in[1].data,
                     (const float *)(c->nin > 2 ? c->in[2].data : NULL), nn__norm_x(c), (float *)c->out[c->nout - 1].data,
                     (float *)c->aux[0].data, (float *)c->aux[1].data, ((const nn__norm_params *)c->params)->eps, nn__centers(c));
    return 1;
}
// db, and with x, mean, rstd: dw; with coef: that. z->groups 0: statistics belong to channels.
static void nn__channel_sums(nn__cuda *d, const nn__norm_dims *z, const float *x, const float *dy, const float *means, const float *rstds, float *dw, float *db, int add_w, int add_b,
                             float *coef, const float *w, int batch)
{
    nn__lines l = nn__channel_lines(z);
    nn__chunks k = nn__chunks_of(&l);
    float *part;
    if (!l.count || (!dw && !db && !coef)) return;
    part = (float *)nn__cuda_scratch(d, (size_t)(2 * k.count * l.count) * sizeof *part);
    if (!part) return;
    NN__LAUNCH_CHUNKS(d, nn__k_norm_sums, l, k, *z, x, dy, means, rstds, part);
    NN__LAUNCH(d, nn__k_norm_give, NN__BLOCKS(l.count, 128), 128, 0, l.count, k.count, (const float *)part, dw, db, add_w, add_b, coef, w, means, rstds,
               z->n > 0 ? (float)z->n : 1.0f, batch);
}
static void nn__norm_parameters(nn__cuda *d, const nn_call *c, nn__norm_dims z, float *coef)
{
    if (c->op->id == NN_OP_batchnorm) z.groups = 0;
    nn__channel_sums(d, &z, nn__norm_x(c), (const float *)c->dout[c->nout - 1].data, (const float *)c->aux[0].data, (const float *)c->aux[1].data, (float *)c->din[1].data,
                     (float *)(c->nin > 2 ? c->din[2].data : NULL), (int)(c->add >> 1 & 1), (int)(c->add >> 2 & 1), coef, (const float *)c->in[1].data,
                     ((const nn__norm_params *)c->params)->batch);
}
static int nn__cuda_norm_back(nn__cuda *d, const nn_call *c)
{
    nn__norm_dims z = nn__norm_dims_of(c);
    nn__lines l = nn__lines_of(z.b * z.groups, z.n, 1);
    int adds = c->nout > 1;
    float *dx = (float *)c->din[0].data, *dr = (float *)(adds ? c->din[3].data : NULL);
    if (dx || dr) NN__LAUNCH_LINES(d, nn__k_norm_dx, l, l, z, nn__norm_x(c), (const float *)c->in[1].data, (const float *)c->dout[c->nout - 1].data,
                                   (const float *)(adds ? c->dout[0].data : NULL), (const float *)c->aux[0].data, (const float *)c->aux[1].data, dx, dr, nn__centers(c), c->add);
    nn__norm_parameters(d, c, z, NULL);
    return 1;
}

// ---- batch norm: chunks of every channel, joined as in Chan, Golub & LeVeque 1979; then one pass over x ---------------------------
static __global__ void __launch_bounds__(256) nn__k_batch_stats(nn__lines l, int64_t per, const float *x, float *part)      // part[chunk][0]: mean, [1]: squared distances
{
    NN__TEAM(t, l);
    int64_t from = per * blockIdx.y, end = from + per < t.n ? from + per : t.n;
    float mean = 0, squares = 0;
    NN__EACH_QUAD(j, t, end - from) { nn__quad q = nn__get4(l, t, x, from + j, end, 0); mean += (q.v[0] + q.v[1]) + (q.v[2] + q.v[3]); }
    mean = nn__team_sum(t, mean) / (float)(end > from ? end - from : 1);
    NN__EACH_QUAD(j, t, end - from) {
        nn__quad q = nn__get4(l, t, x, from + j, end, mean);
        for (int k = 0; k < 4; k++) squares += (q.v[k] - mean) * (q.v[k] - mean);
    }
    squares = nn__team_sum(t, squares);
    if (t.id == 0 && t.line < l.count) { float *to = part + (int64_t)blockIdx.y * 2 * l.count + t.line; to[0] = mean; to[l.count] = squares; }
}
typedef struct nn__batch_norm {
    int64_t channels, n, chunks, per;
    const float *part, *w, *bias;        // part NULL: use the running statistics
    float *running_mean, *running_var, *mean, *rstd, *coef;
    int64_t *tracked;
    float eps, momentum;
} nn__batch_norm;
static __global__ void nn__k_batch_finish(nn__batch_norm b)
{
    int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, k, n = 0;
    float mean = 0, var = 0, rstd;
    if (i == 0 && b.tracked) ++*b.tracked;
    if (i >= b.channels) return;
    for (k = 0; b.part && k < b.chunks; k++) {
        int64_t more = b.n - k * b.per < b.per ? b.n - k * b.per : b.per;
        float delta = b.part[2 * k * b.channels + i] - mean, share;
        if (more <= 0) break;
        share = (float)more / (float)(n + more);
        var += b.part[(2 * k + 1) * b.channels + i] + delta * delta * (float)n * share;
        mean += delta * share;
        n += more;
    }
    var /= n > 0 ? (float)n : 1.0f;
    if (!b.part) { mean = b.running_mean[i]; var = b.running_var[i]; }
    else if (b.running_mean && n > 0) {                  // unbiased, as PyTorch
        b.running_mean[i] = (1 - b.momentum) * b.running_mean[i] + b.momentum * mean;
        b.running_var[i] = (1 - b.momentum) * b.running_var[i] + b.momentum * (var * ((float)n / (float)(n - 1)));
    }
    rstd = 1.0f / sqrtf(var + b.eps);
    if (b.mean) { b.mean[i] = mean; b.rstd[i] = rstd; }
    b.coef[i] = mean;
    b.coef[b.channels + i] = b.w ? rstd * b.w[i] : rstd;
    b.coef[2 * b.channels + i] = b.bias ? b.bias[i] : 0.0f;
}
// y (+)= (x - mean) coef1 + coef2 + dy coef3.   A line is a channel of a sample, or (s 1) a sample.
static __global__ void __launch_bounds__(256) nn__k_batch_apply(nn__lines l, int64_t channels, int64_t s, const float *x, const float *dy, const float *coef, float *y, int add)
{
    NN__TEAM(t, l);
    int64_t fixed = s == 1 ? 0 : t.line % channels;
    nn__quad q[4];
    NN_UNROLL for (int k = 0; k < 4; k++) q[k] = nn__quad_of(s != 1 && t.n && (k < 3 || dy) ? coef[k * channels + fixed] : 0.0f);
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad v = nn__get4(l, t, x, i, t.n, 0), g = dy ? nn__get4(l, t, dy, i, t.n, 0) : nn__quad_of(0);
        NN_UNROLL for (int k = 0; k < 4; k++) if (s == 1 && (k < 3 || dy)) q[k] = nn__near4(coef + k * channels, i, channels, 0);
        for (int k = 0; k < 4; k++) v.v[k] = (v.v[k] - q[0].v[k]) * q[1].v[k] + (g.v[k] * q[3].v[k] + q[2].v[k]);
        nn__put4(l, t, y, i, v, add);
    }
}
static void nn__batch_apply(nn__cuda *d, const nn__norm_dims *z, const void *x, const void *dy, const float *coef, void *y, int add)
{
    nn__lines l = nn__lines_of(z->s == 1 ? z->b : z->b * z->c, z->s == 1 ? z->c : z->s, 1);
    NN__LAUNCH_LINES(d, nn__k_batch_apply, l, l, z->c, z->s, (const float *)x, (const float *)dy, coef, (float *)y, add);
}
static int nn__cuda_batchnorm(nn__cuda *d, const nn_call *c)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    nn__norm_dims z = nn__norm_dims_of(c);
    nn__lines l = nn__channel_lines(&z);
    nn__chunks k = nn__chunks_of(&l);
    nn__batch_norm b;
    float *part = NULL;
    b.channels = z.c; b.n = z.n; b.chunks = k.count; b.per = k.per;
    b.coef = (float *)nn__cuda_scratch(d, (size_t)(3 * z.c) * sizeof(float));
    if (p->batch) part = (float *)nn__cuda_scratch(d, (size_t)(2 * k.count * z.c) * sizeof(float));
    if (!b.coef || (p->batch && !part)) return 1;
    if (p->batch) NN__LAUNCH_CHUNKS(d, nn__k_batch_stats, l, k, (const float *)c->in[0].data, part);
    b.part = part; b.w = (const float *)c->in[1].data; b.bias = (const float *)c->in[2].data;
    b.running_mean = (float *)c->in[3].data; b.running_var = (float *)c->in[4].data; b.tracked = (int64_t *)c->in[5].data;
    b.mean = (float *)c->aux[0].data; b.rstd = (float *)c->aux[1].data;
    b.eps = p->eps; b.momentum = p->momentum;
    NN__LAUNCH(d, nn__k_batch_finish, NN__BLOCKS(z.c + 1, 128), 128, 0, b);
    nn__batch_apply(d, &z, c->in[0].data, NULL, b.coef, c->out[0].data, 0);
    return 1;
}
static int nn__cuda_batchnorm_back(nn__cuda *d, const nn_call *c)
{
    nn__norm_dims z = nn__norm_dims_of(c);
    float *coef = c->din[0].data ? (float *)nn__cuda_scratch(d, (size_t)(4 * z.c) * sizeof *coef) : NULL;
    if (c->din[0].data && !coef) return 1;
    nn__norm_parameters(d, c, z, coef);
    if (coef) nn__batch_apply(d, &z, c->in[0].data, c->dout[0].data, coef, c->din[0].data, (int)(c->add & 1));
    return 1;
}
#define NN__CUDA_NORM(X) \
    X(softmax, nn__cuda_softmax, nn__cuda_softmax_back) X(log_softmax, nn__cuda_softmax, nn__cuda_softmax_back) \
    X(layernorm, nn__cuda_norm, nn__cuda_norm_back) X(groupnorm, nn__cuda_norm, nn__cuda_norm_back) X(rmsnorm, nn__cuda_norm, nn__cuda_norm_back) \
    X(add_layernorm, nn__cuda_norm, nn__cuda_norm_back) X(add_rmsnorm, nn__cuda_norm, nn__cuda_norm_back) \
    X(batchnorm, nn__cuda_batchnorm, nn__cuda_batchnorm_back)

// =============================================================================================
// >>loss   Losses. Rows or chunks first, each a number; then one block adds those and divides.
// =============================================================================================
enum { NN__CUDA_LOSS_CHUNK = 4096 };
// One block: out = sum of x / divisor, x being chunks of losses; weights: their sums, which are the divisor of a mean. `kept`: the divisor, for backward.
static __global__ void __launch_bounds__(256) nn__k_loss_total(int64_t n, const float *x, const float *weights, float divisor, float *out, float *kept)
{
    NN_SHARED(float, warps, [32]);
    float sum = 0, by = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) { sum += x[i]; if (weights) by += weights[i]; }
    sum = nn__block_sum(sum, warps);
    if (weights) divisor = nn__block_sum(by, warps);
    if (threadIdx.x) return;
    if (out) *out = sum / divisor;
    if (kept) *kept = divisor;
}
static __global__ void __launch_bounds__(256) nn__k_loss_chunks(int64_t n, const float *x, float *part)      // sums of 4096 neighbours, of up to two arrays of n
{
    NN_SHARED(float, warps, [32]);
    int64_t from = (int64_t)blockIdx.x * NN__CUDA_LOSS_CHUNK, end = from + NN__CUDA_LOSS_CHUNK < n ? from + NN__CUDA_LOSS_CHUNK : n;
    float sum = 0;
    for (int64_t i = from + threadIdx.x; i < end; i += blockDim.x) sum += x[blockIdx.y * n + i];
    sum = nn__block_sum(sum, warps);
    if (threadIdx.x == 0) part[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = sum;
}
static void nn__loss_total(nn__cuda *d, int64_t n, float *x, int weighted, float divisor, void *out, void *kept)     // weights: n numbers behind x
{
    const float *from = x;
    if (n > 4 * NN__CUDA_LOSS_CHUNK) {
        int64_t chunks = (n + NN__CUDA_LOSS_CHUNK - 1) / NN__CUDA_LOSS_CHUNK;
        float *part = (float *)nn__cuda_scratch(d, (size_t)(2 * chunks) * sizeof *part);
        if (!part) return;
        NN__LAUNCH(d, nn__k_loss_chunks, dim3((unsigned)chunks, weighted ? 2 : 1), 256, 0, n, from, part);
        from = part;
        n = chunks;
    }
    NN__LAUNCH(d, nn__k_loss_total, 1, 256, 0, n, from, weighted ? from + n : (const float *)NULL, divisor, (float *)out, (float *)kept);
}

// ---- losses of single elements: the formulas of nn.h's table NN__PAIR_LOSSES --------------------------------------------------
NN__DEV float nn__sign_of(float v)         { return v > 0 ? 1.0f : v < 0 ? -1.0f : v; }
NN__DEV float nn__within(float v, float p) { return v < -p ? -p : v > p ? p : v; }
NN__DEV float nn__bce(float x, float yes, float no)
{
    float rest = log1pf(expf(-fabsf(x)));
    return yes * ((x < 0 ? -x : 0.0f) + rest) + no * ((x > 0 ? x : 0.0f) + rest);
}
NN__DEV float nn__sigmoid_of(float x) { return 1.0f / (1.0f + expf(-x)); }
NN__DEV float nn__pair_loss(int op, float x, float t, float w, float q, float p)
{
    float e = x - t, a = fabsf(e);
    switch (op) {
    case NN_OP_mse:       return e * e;
    case NN_OP_l1:        return a;
    case NN_OP_huber:     return a < p ? 0.5f * e * e : p * (a - 0.5f * p);
    case NN_OP_smooth_l1: return a < p ? 0.5f * e * e / p : a - 0.5f * p;
    case NN_OP_hinge:     return p - t * x < 0 ? 0.0f : p - t * x;
    default:              return w * nn__bce(x, q * t, 1 - t);
    }
}
NN__DEV float nn__pair_slope(int op, int side, float x, float t, float w, float q, float p)      // dl/dx, dl/dt
{
    float e = side ? t - x : x - t;
    switch (op) {
    case NN_OP_mse:       return 2 * e;
    case NN_OP_l1:        return nn__sign_of(e);
    case NN_OP_huber:     return nn__within(e, p);
    case NN_OP_smooth_l1: return fabsf(e) < p ? e / p : nn__sign_of(e);
    case NN_OP_hinge:     return p - t * x > 0 ? (side ? -x : -t) : 0.0f;
    default:              return side ? w * nn__bce(x, q, -1) : w * ((1 - t) * nn__sigmoid_of(x) - q * t * nn__sigmoid_of(-x));
    }
}
typedef struct nn__pairs { const float *x, *t, *w, *q; int64_t n; float p; int op, none; } nn__pairs;
NN__DEV nn__quad nn__pairs_get(const float *p, int64_t i, int64_t n) { return p ? nn__near4(p, i, n, 0) : nn__quad_of(1); }
static __global__ void __launch_bounds__(256) nn__k_pair_loss(nn__pairs o, float *y)        // y: of elements, or of chunks
{
    NN_SHARED(float, warps, [32]);
    int64_t from = (int64_t)blockIdx.x * NN__CUDA_LOSS_CHUNK, end = from + NN__CUDA_LOSS_CHUNK < o.n ? from + NN__CUDA_LOSS_CHUNK : o.n;
    float sum = 0;
    for (int64_t i = from + 4 * threadIdx.x; i < end; i += 4 * blockDim.x) {
        nn__quad x = nn__near4(o.x, i, end, 0), t = nn__near4(o.t, i, end, 0), w = nn__pairs_get(o.w, i, end), q = nn__pairs_get(o.q, i, end);
        for (int k = 0; k < 4; k++) { x.v[k] = nn__pair_loss(o.op, x.v[k], t.v[k], w.v[k], q.v[k], o.p); if (i + k < end) sum += x.v[k]; }
        if (o.none) nn__near4_put(y, i, end, x, 0);
    }
    if (o.none) return;
    sum = nn__block_sum(sum, warps);
    if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
static __global__ void __launch_bounds__(256) nn__k_pair_loss_back(nn__pairs o, const float *dy, float divisor, float *dx, float *dt, int add_x, int add_t)
{
    int64_t i = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= o.n) return;
    nn__quad x = nn__near4(o.x, i, o.n, 0), t = nn__near4(o.t, i, o.n, 0), w = nn__pairs_get(o.w, i, o.n), q = nn__pairs_get(o.q, i, o.n);
    nn__quad g = o.none ? nn__near4(dy, i, o.n, 0) : nn__quad_of(dy[0] / divisor), a, b;
    for (int k = 0; k < 4; k++) a.v[k] = g.v[k] * nn__pair_slope(o.op, 0, x.v[k], t.v[k], w.v[k], q.v[k], o.p);
    if (dx) nn__near4_put(dx, i, o.n, a, add_x);
    if (!dt) return;
    for (int k = 0; k < 4; k++) b.v[k] = g.v[k] * nn__pair_slope(o.op, 1, x.v[k], t.v[k], w.v[k], q.v[k], o.p);
    nn__near4_put(dt, i, o.n, b, add_t);
}
static nn__pairs nn__pairs_of(const nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__pairs o;
    o.x = (const float *)c->in[0].data; o.t = (const float *)c->in[1].data;
    o.w = (const float *)(c->nin > 2 ? c->in[2].data : NULL); o.q = (const float *)(c->nin > 3 ? c->in[3].data : NULL);
    o.n = nn_view_count(&c->in[0]); o.p = (float)p->p; o.op = c->op->id; o.none = p->reduction == NN_NONE;
    return o;
}
static int nn__cuda_pair_loss(nn__cuda *d, const nn_call *c)
{
    nn__pairs o = nn__pairs_of(c);
    int64_t chunks = (o.n + NN__CUDA_LOSS_CHUNK - 1) / NN__CUDA_LOSS_CHUNK;
    float *y = (float *)(o.none ? c->out[0].data : nn__cuda_scratch(d, (size_t)chunks * sizeof *y));
    if (!y) return 1;
    if (chunks) NN__LAUNCH(d, nn__k_pair_loss, (unsigned)chunks, 256, 0, o, y);
    if (!o.none) nn__loss_total(d, chunks, y, 0, ((const nn__loss_params *)c->params)->reduction == NN_MEAN ? (float)o.n : 1.0f, c->out[0].data, NULL);
    return 1;
}
static int nn__cuda_pair_loss_back(nn__cuda *d, const nn_call *c)
{
    nn__pairs o = nn__pairs_of(c);
    if (o.n && (c->din[0].data || c->din[1].data))
        NN__LAUNCH(d, nn__k_pair_loss_back, NN__BLOCKS(o.n, 1024), 256, 0, o, (const float *)c->dout[0].data, ((const nn__loss_params *)c->params)->reduction == NN_MEAN ? (float)o.n : 1.0f,
                   (float *)c->din[0].data, (float *)c->din[1].data, (int)(c->add & 1), (int)(c->add >> 1 & 1));
    return 1;
}

// ---- cross_entropy:   l = sum of w_c t_c (ls - (x_c - m)),   m = max x, ls = log sum e^(x - m);   dx_c = W p_c - w_c t_c,  W = sum of w_c t_c
typedef struct nn__classes {
    nn__lines l;                     // a line: the classes of a row
    const float *x, *t, *w;          // t: probabilities, or NULL
    nn__index target;                // classes
    int64_t ignore;
    int     op;
    float keep, spread;              // 1 - e, e / C
    float *m, *ls;                   // kept, or NULL
} nn__classes;
static nn__lines nn__class_lines(const nn_view *x) { return nn__lines_around(x, x->ndim > 1); }
static nn__classes nn__classes_of(const nn_call *c, const nn_view *x)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    const nn_view *t = &c->in[1];
    nn__classes o;
    int is_class = t->dtype == NN_I32 || t->dtype == NN_I64;
    o.l = nn__class_lines(x);
    o.x = (const float *)c->in[0].data; o.t = is_class ? NULL : (const float *)t->data; o.w = (const float *)(c->nin > 2 ? c->in[2].data : NULL);
    o.target = nn__index_of(t);
    o.ignore = p->ignore; o.op = c->op->id;
    o.keep = (float)(1 - p->smoothing); o.spread = (float)(p->smoothing / (double)o.l.n);
    o.m = (float *)(c->naux > 1 ? c->aux[0].data : NULL); o.ls = o.m ? o.m + o.l.count : NULL;
    return o;
}
NN__DEV int64_t nn__class_here(const nn__classes &o, int64_t row)  // -1: it counts for nothing
{
    int64_t k = nn__index_at(o.target, row);
    return k == o.ignore || k < 0 || k >= o.l.n ? -1 : k;
}
NN__DEV nn__quad nn__class_weights(const nn__classes &o, int64_t i) { return o.w ? nn__near4(o.w, i, o.l.n, 0) : nn__quad_of(1); }
// losses[row], and behind them the weights of the rows (classes) that a mean divides by.
static __global__ void __launch_bounds__(256) nn__k_cross_entropy(nn__classes o, float *losses, float *weights, nn__fault *bad)
{
    NN__TEAM(t, o.l);
    int64_t k = o.t || !t.n ? 0 : nn__class_here(o, t.line);
    float m = -INFINITY, s = 0, loss = 0, ls, share = o.t ? o.keep : 0.0f;
    NN__EACH_QUAD(i, t, t.n) nn__soft_add(nn__get4(o.l, t, o.x, i, t.n, -INFINITY), &m, &s);
    nn__soft_join(t, &m, &s);
    ls = logf(s);
    if (o.t || o.spread != 0) {
        NN__EACH_QUAD(i, t, t.n) {
            nn__quad x = nn__get4(o.l, t, o.x, i, t.n, 0), p = o.t ? nn__get4(o.l, t, o.t, i, t.n, 0) : nn__quad_of(0), w = nn__class_weights(o, i);
            for (int j = 0; j < 4; j++) if (i + j < t.n) loss += w.v[j] * (share * p.v[j] + o.spread) * (ls - (x.v[j] - m));
        }
        loss = nn__team_sum(t, loss);
    }
    if (t.id || t.line >= o.l.count) return;
    if (!o.t && k >= 0) loss += o.keep * (o.w ? o.w[k] : 1.0f) * (ls - (o.x[t.at + k * o.l.step] - m));
    losses[t.line] = k < 0 ? 0.0f : loss;
    if (weights) weights[t.line] = k < 0 ? 0.0f : o.w && !o.t ? o.w[k] : 1.0f;
    if (o.m) { o.m[t.line] = m; o.ls[t.line] = ls; }
    if (k < 0 && nn__index_at(o.target, t.line) != o.ignore) nn__bad_index(bad, o.op, nn__index_at(o.target, t.line), o.l.n);
}
static __global__ void __launch_bounds__(256) nn__k_cross_entropy_back(nn__classes o, const float *dy, const float *divisor, float *dx, float *dt, int add_x, int add_t)
{
    NN__TEAM(t, o.l);
    int64_t k = o.t || !t.n ? 0 : nn__class_here(o, t.line);
    float g = !t.n ? 0.0f : divisor ? dy[0] / *divisor : dy[t.line], m = t.n ? o.m[t.line] : 0.0f, ls = t.n ? o.ls[t.line] : 0.0f, mass = 0, share = o.t ? o.keep : 0.0f;
    float one = !o.t && k >= 0 ? o.keep * (o.w && t.n ? o.w[k] : 1.0f) : 0.0f;
    if (o.t || (o.w && o.spread != 0)) {
        NN__EACH_QUAD(i, t, t.n) {
            nn__quad p = o.t ? nn__get4(o.l, t, o.t, i, t.n, 0) : nn__quad_of(0), w = nn__class_weights(o, i);
            for (int j = 0; j < 4; j++) if (i + j < t.n) mass += w.v[j] * (share * p.v[j] + o.spread);
        }
        mass = nn__team_sum(t, mass);
    } else mass = o.spread * (float)o.l.n;
    mass += one;
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad x = nn__get4(o.l, t, o.x, i, t.n, 0), p = o.t ? nn__get4(o.l, t, o.t, i, t.n, 0) : nn__quad_of(0), w = nn__class_weights(o, i), a, b;
        for (int j = 0; j < 4; j++) {
            a.v[j] = k < 0 ? 0.0f : g * (mass * expf((x.v[j] - m) - ls) - w.v[j] * (share * p.v[j] + o.spread) - (i + j == k ? one : 0.0f));
            b.v[j] = g * w.v[j] * share * (ls - (x.v[j] - m));
        }
        if (dx) nn__put4(o.l, t, dx, i, a, add_x);
        if (o.t && dt) nn__put4(o.l, t, dt, i, b, add_t);
    }
}
static __global__ void nn__k_nll(nn__classes o, float *losses, float *weights, nn__fault *bad)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, k;
    if (row >= o.l.count) return;
    k = nn__class_here(o, row);
    losses[row] = k < 0 ? 0.0f : -(o.w ? o.w[k] : 1.0f) * o.x[row / o.l.inner * o.l.outer + row % o.l.inner + k * o.l.step];
    if (weights) weights[row] = k < 0 ? 0.0f : o.w ? o.w[k] : 1.0f;
    if (k < 0 && nn__index_at(o.target, row) != o.ignore) nn__bad_index(bad, o.op, nn__index_at(o.target, row), o.l.n);
}
static int nn__cuda_class_loss(nn__cuda *d, const nn_call *c)       // cross_entropy, nll
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__classes o = nn__classes_of(c, &c->in[0]);
    int none = p->reduction == NN_NONE, weighted = !o.t && p->reduction == NN_MEAN;
    float *losses = (float *)(none ? c->out[0].data : nn__cuda_scratch(d, (size_t)(2 * o.l.count) * sizeof *losses)), *weights = weighted ? losses + o.l.count : NULL;
    if (!losses && o.l.count) return 1;
    if (c->op->id != NN_OP_nll) NN__LAUNCH_LINES(d, nn__k_cross_entropy, o.l, o, losses, weights, nn__cuda_may_fault(d, c));
    else if (o.l.count) NN__LAUNCH(d, nn__k_nll, NN__BLOCKS(o.l.count, 128), 128, 0, o, losses, weights, nn__cuda_may_fault(d, c));
    nn__loss_total(d, none ? 0 : o.l.count, losses, weighted, p->reduction == NN_MEAN ? (float)o.l.count : 1.0f, none ? NULL : c->out[0].data, c->aux[c->naux - 1].data);
    return 1;
}
static int nn__cuda_cross_entropy_back(nn__cuda *d, const nn_call *c)
{
    nn__classes o = nn__classes_of(c, &c->in[0]);
    int none = ((const nn__loss_params *)c->params)->reduction == NN_NONE;
    NN__LAUNCH_LINES(d, nn__k_cross_entropy_back, o.l, o, (const float *)c->dout[0].data, (const float *)(none ? NULL : c->aux[1].data), (float *)c->din[0].data, (float *)c->din[1].data,
                     (int)(c->add & 1), (int)(c->add >> 1 & 1));
    return 1;
}

// ---- nll:   l = -w_k x_k       multi_margin:   l = sum over c != k of max(0, margin - x_k + x_c) / C ------------------------------
static __global__ void nn__k_nll_back(nn__classes o, const float *dy, const float *divisor, float *dx)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, k = row < o.l.count ? nn__class_here(o, row) : -1;
    if (k >= 0) dx[row / o.l.inner * o.l.outer + row % o.l.inner + k * o.l.step] -= (o.w ? o.w[k] : 1.0f) * (divisor ? dy[0] / *divisor : dy[row]);
}
static int nn__cuda_nll_back(nn__cuda *d, const nn_call *c)
{
    nn__classes o = nn__classes_of(c, &c->din[0]);
    int none = ((const nn__loss_params *)c->params)->reduction == NN_NONE;
    if (c->din[0].data && o.l.count)
        NN__LAUNCH(d, nn__k_nll_back, NN__BLOCKS(o.l.count, 128), 128, 0, o, (const float *)c->dout[0].data, (const float *)(none ? NULL : c->aux[0].data), (float *)c->din[0].data);
    return 1;
}
// Forward: y is not NULL. Backward adds.
static __global__ void __launch_bounds__(256) nn__k_multi_margin(nn__classes o, float margin, float *y, const float *dy, float divisor, float *dx, nn__fault *bad)
{
    NN__TEAM(t, o.l);
    int64_t k = t.n ? nn__class_here(o, t.line) : -1;
    float sum = 0, active = 0, right = k >= 0 ? margin - o.x[t.at + k * o.l.step] : 0.0f, g = y || !t.n ? 0.0f : (divisor > 0 ? dy[0] / divisor : dy[t.line]) / (float)o.l.n;
    NN__EACH_QUAD(i, t, k >= 0 ? t.n : 0) {
        nn__quad x = nn__get4(o.l, t, o.x, i, t.n, 0), e;
        for (int j = 0; j < 4; j++) {
            float z = right + x.v[j];
            int over = i + j != k && i + j < t.n && !(z <= 0);
            if (over) { sum += z; active += 1; }
            e.v[j] = over ? g : 0.0f;
        }
        if (!y) nn__put4(o.l, t, dx, i, e, 1);
    }
    sum = nn__team_sum(t, sum);                          // and barriers: dx_k was added 0 above
    active = nn__team_sum(t, active);
    if (!y) __syncwarp(NN__FULL);                        // where a line has one warp, without barriers
    if (t.id || t.line >= o.l.count) return;
    if (y) {
        y[t.line] = sum / (float)o.l.n;
        if (k < 0) nn__bad_index(bad, o.op, nn__index_at(o.target, t.line), o.l.n);
    } else if (k >= 0) dx[t.at + k * o.l.step] -= g * active;
}
static int nn__cuda_multi_margin(nn__cuda *d, const nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__classes o = nn__classes_of(c, &c->in[0]);
    int none = p->reduction == NN_NONE, back = c->pass == NN_BACKWARD;
    float *y = back ? NULL : (float *)(none ? c->out[0].data : nn__cuda_scratch(d, (size_t)o.l.count * sizeof *y));
    o.ignore = INT64_MIN;
    if (back ? !c->din[0].data : !y && o.l.count) return 1;
    NN__LAUNCH_LINES(d, nn__k_multi_margin, o.l, o, (float)p->p, y, (const float *)(back ? c->dout[0].data : NULL), none ? 0.0f : p->reduction == NN_MEAN ? (float)o.l.count : 1.0f,
                     (float *)(back ? c->din[0].data : NULL), nn__cuda_may_fault(d, c));
    if (!back && !none) nn__loss_total(d, o.l.count, y, 0, p->reduction == NN_MEAN ? (float)o.l.count : 1.0f, c->out[0].data, NULL);
    return 1;
}

// ---- kl_div:   l = T^2 sum of q (log q - log p),  p = softmax(x / T), q = softmax(t / T) -------------------------------------------
typedef struct nn__kl { const float *x, *t; float *aux; float by, temperature; int none; } nn__kl;   // aux: of a row m and log sum of x / T, then of t / T
static __global__ void __launch_bounds__(256) nn__k_kl_div(nn__lines l, nn__kl o, float *y)      // y: of elements, or of rows
{
    NN__TEAM(t, l);
    float m[2], s[2], sum = 0;
    NN_UNROLL for (int side = 0; side < 2; side++) {
        m[side] = -INFINITY; s[side] = 0;
        NN__EACH_QUAD(i, t, t.n) {
            nn__quad q = nn__get4(l, t, side ? o.t : o.x, i, t.n, -INFINITY);
            for (int k = 0; k < 4; k++) q.v[k] *= o.by;
            nn__soft_add(q, &m[side], &s[side]);
        }
        nn__soft_join(t, &m[side], &s[side]);
        s[side] = logf(s[side]);
        if (o.aux && t.id == 0 && t.line < l.count) { o.aux[4 * t.line + 2 * side] = m[side]; o.aux[4 * t.line + 2 * side + 1] = s[side]; }
    }
    NN__EACH_QUAD(i, t, t.n) {
        nn__quad x = nn__get4(l, t, o.x, i, t.n, 0), q = nn__get4(l, t, o.t, i, t.n, 0);
        for (int k = 0; k < 4; k++) {
            float log_p = x.v[k] * o.by - m[0] - s[0], log_q = q.v[k] * o.by - m[1] - s[1];
            q.v[k] = o.temperature * o.temperature * (expf(log_q) * (log_q - log_p));
            if (i + k < t.n) sum += q.v[k];
        }
        if (o.none) nn__put4(l, t, y, i, q, 0);
    }
    sum = nn__team_sum(t, sum);
    if (!o.none && t.id == 0 && t.line < l.count) y[t.line] = sum;
}
static __global__ void __launch_bounds__(256) nn__k_kl_div_back(nn__lines l, nn__kl o, const float *dy, float divisor, float *dx, float *dt, int add_x, int add_t)
{
    NN__TEAM(t, l);
    float a[4], mass = 0, slope = 0, g = o.none ? 0.0f : dy[0] / divisor;
    for (int k = 0; k < 4; k++) a[k] = t.n ? o.aux[4 * t.line + k] : 0.0f;
    for (int pass = 0; pass < 2; pass++) {               // first the sums over the row, then the gradients
        NN__EACH_QUAD(i, t, t.n) {
            nn__quad x = nn__get4(l, t, o.x, i, t.n, 0), q = nn__get4(l, t, o.t, i, t.n, 0), e = o.none ? nn__get4(l, t, dy, i, t.n, 0) : nn__quad_of(g);
            for (int k = 0; k < 4; k++) {
                float log_p = x.v[k] * o.by - a[0] - a[1], log_q = q.v[k] * o.by - a[2] - a[3], r = log_q - log_p + 1, w = expf(log_q);
                if (pass == 0) { if (i + k < t.n) { mass += w * e.v[k]; slope += w * e.v[k] * r; } }
                else { x.v[k] = (expf(log_p) * mass - w * e.v[k]) * o.temperature; q.v[k] = w * (e.v[k] * r - slope) * o.temperature; }
            }
            if (pass && dx) nn__put4(l, t, dx, i, x, add_x);
            if (pass && dt) nn__put4(l, t, dt, i, q, add_t);
        }
        if (pass == 0) { mass = nn__team_sum(t, mass); slope = nn__team_sum(t, slope); }
    }
}
static int nn__cuda_kl_div(nn__cuda *d, const nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    const nn_view *x = &c->in[0];
    int64_t n = x->ndim ? x->shape[x->ndim - 1] : 1, rows = 1;
    int i, back = c->pass == NN_BACKWARD;
    nn__lines l;
    nn__kl o;
    float *y, divisor;
    for (i = 0; i + 1 < x->ndim; i++) rows *= x->shape[i];
    l = nn__lines_of(rows, n, 1);
    divisor = p->reduction == NN_MEAN ? (float)rows : 1.0f;
    o.x = (const float *)x->data; o.t = (const float *)c->in[1].data; o.aux = (float *)c->aux[0].data;
    o.by = (float)(1 / p->p); o.temperature = (float)p->p; o.none = p->reduction == NN_NONE;
    if (back) {
        NN__LAUNCH_LINES(d, nn__k_kl_div_back, l, l, o, (const float *)c->dout[0].data, divisor, (float *)c->din[0].data, (float *)c->din[1].data, (int)(c->add & 1), (int)(c->add >> 1 & 1));
        return 1;
    }
    y = (float *)(o.none ? c->out[0].data : nn__cuda_scratch(d, (size_t)rows * sizeof *y));
    if (!y && rows) return 1;
    NN__LAUNCH_LINES(d, nn__k_kl_div, l, l, o, y);
    if (!o.none) nn__loss_total(d, rows, y, 0, divisor, c->out[0].data, NULL);
    return 1;
}
#define NN__CUDA_LOSS(X) \
    X(mse, nn__cuda_pair_loss, nn__cuda_pair_loss_back) X(l1, nn__cuda_pair_loss, nn__cuda_pair_loss_back) X(huber, nn__cuda_pair_loss, nn__cuda_pair_loss_back) \
    X(smooth_l1, nn__cuda_pair_loss, nn__cuda_pair_loss_back) X(hinge, nn__cuda_pair_loss, nn__cuda_pair_loss_back) \
    X(binary_cross_entropy, nn__cuda_pair_loss, nn__cuda_pair_loss_back) X(cross_entropy, nn__cuda_class_loss, nn__cuda_cross_entropy_back) \
    X(nll, nn__cuda_class_loss, nn__cuda_nll_back) X(multi_margin, nn__cuda_multi_margin, nn__cuda_multi_margin) X(kl_div, nn__cuda_kl_div, nn__cuda_kl_div)

// =============================================================================================
// >>embedding   Rows of a table:   y[k] = x[index[k]]      dx[index[k]] += dy[k],  one writer for each row, in the order of k
// =============================================================================================
typedef struct nn__rows { int64_t outer, count, n, inner; nn__index index; int op; } nn__rows;       // x (outer, count, inner), y (outer, n, inner)
static nn__rows nn__rows_of(const nn_call *c, const nn_view *x)
{
    nn__rows r;
    int i, dim = c->op->id == NN_OP_embedding ? 0 : *(const int *)c->params;
    r.outer = r.inner = 1;
    for (i = 0; i < dim; i++) r.outer *= x->shape[i];
    for (i = dim + 1; i < x->ndim; i++) r.inner *= x->shape[i];
    r.count = x->ndim ? x->shape[dim] : 1;
    r.n = nn_view_count(&c->in[1]);
    r.index = nn__index_of(&c->in[1]);
    r.op = c->op->id;
    return r;
}
// U: as many bytes as fit: r.inner counts them. A warp takes 128 of a row.
template <class U> static __global__ void __launch_bounds__(128) nn__k_rows(nn__rows r, const U *x, U *y, nn__fault *bad)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, k;
    U zero;
    if (row >= r.outer * r.n) return;
    k = nn__index_at(r.index, row % r.n);
    memset(&zero, 0, sizeof zero);
    if ((k < 0 || k >= r.count) && threadIdx.x == 0 && blockIdx.y == 0) nn__bad_index(bad, r.op, k, r.count);
    for (int64_t i = (int64_t)blockIdx.y * 128 + threadIdx.x, end = i - threadIdx.x + 128 < r.inner ? i - threadIdx.x + 128 : r.inner; i < end; i += 32)
        y[row * r.inner + i] = k < 0 || k >= r.count ? zero : x[(row / r.n * r.count + k) * r.inner + i];
}
template <class U> static int nn__rows_as(nn__cuda *d, const nn_call *c, nn__rows r, size_t bytes)
{
    dim3 grid(NN__BLOCKS(r.outer * r.n, 4), NN__BLOCKS(bytes / sizeof(U), 128));
    if (grid.y > 65535) return 0;
    r.inner = (int64_t)(bytes / sizeof(U));
    NN__LAUNCH(d, nn__k_rows<U>, grid, dim3(32, 4), 0, r, (const U *)c->in[0].data, (U *)c->out[0].data, nn__cuda_may_fault(d, c));
    return 1;
}
static int nn__cuda_rows(nn__cuda *d, const nn_call *c)
{
    nn__rows r = nn__rows_of(c, &c->in[0]);
    size_t bytes = (size_t)r.inner * nn_dtype_bytes((nn_dtype)c->in[0].dtype), all = bytes | (size_t)(uintptr_t)c->in[0].data | (size_t)(uintptr_t)c->out[0].data;
    if (!r.outer || !r.n || !bytes) return 1;
    return all % 16 == 0 ? nn__rows_as<uint4>(d, c, r, bytes) : all % 4 == 0 ? nn__rows_as<unsigned>(d, c, r, bytes) : nn__rows_as<unsigned char>(d, c, r, bytes);
}
// Backward takes NN__SORT numbers of the index at a time, in order: each finds its place among them (those before it that are not larger,
// those behind it that are smaller), so equal ones stand together in their old order, and a warp adds up a run of them.
enum { NN__SORT = 8192 };
static __global__ void __launch_bounds__(256) nn__k_rows_sort(nn__index index, int64_t from, int n, int64_t count, int *key, int *place)
{
    NN_SHARED(int, keys, [1024]);
    int i = blockIdx.x * blockDim.x + threadIdx.x, mine = 0, at = 0;
    if (i < n) { int64_t k = nn__index_at(index, from + i); mine = k < 0 || k >= count ? -1 : (int)k; }
    for (int first = 0; first < n; first += 1024) {
        __syncthreads();
        for (int j = threadIdx.x; j < 1024; j += blockDim.x) {
            int64_t k = first + j < n ? nn__index_at(index, from + first + j) : 0;
            keys[j] = k < 0 || k >= count ? -1 : (int)k;
        }
        __syncthreads();
        for (int j = 0; j < 1024 && first + j < n; j++) at += keys[j] < mine || (keys[j] == mine && first + j < i);
    }
    if (i < n) { key[at] = mine; place[at] = i; }
}
static __global__ void __launch_bounds__(128) nn__k_rows_add(nn__rows r, int64_t from, int n, const int *key, const int *place, const float *dy, float *dx)
{
    int at = blockIdx.x * blockDim.y + threadIdx.y;
    int64_t column = 4 * ((int64_t)blockIdx.y * 32 + threadIdx.x);
    if (at >= n || key[at] < 0 || (at && key[at - 1] == key[at]) || column >= r.inner) return;
    for (int64_t outer = blockIdx.z; outer < r.outer; outer += gridDim.z) {
        float *to = dx + (outer * r.count + key[at]) * r.inner;
        nn__quad sum = nn__near4(to, column, r.inner, 0);
        for (int j = at; j < n && key[j] == key[at]; j++) {
            nn__quad q = nn__near4(dy + (outer * r.n + from + place[j]) * r.inner, column, r.inner, 0);
            for (int k = 0; k < 4; k++) sum.v[k] += q.v[k];
        }
        nn__near4_put(to, column, r.inner, sum, 0);
    }
}
static int nn__cuda_rows_back(nn__cuda *d, const nn_call *c)
{
    nn__rows r = nn__rows_of(c, &c->din[0]);
    int64_t from, most = r.n < NN__SORT ? r.n : (int64_t)NN__SORT;
    int *key, *place;
    if (!c->din[0].data || !r.outer || !r.n || !r.inner) return 1;
    if (r.count > 0x7fffffff || NN__BLOCKS(r.inner, 128) > 65535) return 0;
    key = (int *)nn__cuda_scratch(d, (size_t)most * sizeof *key);
    place = (int *)nn__cuda_scratch(d, (size_t)most * sizeof *place);
    if (!key || !place) return 1;
    for (from = 0; from < r.n; from += NN__SORT) {
        int n = (int)(r.n - from < most ? r.n - from : most);
        NN__LAUNCH(d, nn__k_rows_sort, NN__BLOCKS(n, 256), 256, 0, r.index, from, n, r.count, key, place);
        NN__LAUNCH(d, nn__k_rows_add, dim3(NN__BLOCKS(n, 4), NN__BLOCKS(r.inner, 128), r.outer < 65535 ? (unsigned)r.outer : 65535), dim3(32, 4), 0, r, from, n, (const int *)key, (const int *)place,
                   (const float *)c->dout[0].data, (float *)c->din[0].data);
    }
    return 1;
}
#define NN__CUDA_EMBEDDING(X) X(embedding, nn__cuda_rows, nn__cuda_rows_back) X(index_select, nn__cuda_rows, nn__cuda_rows_back)

// =============================================================================================
// >>attention   Attention, rotary positions.
// =============================================================================================
// ---- attention:   S = scale Q K^T + bias      P = softmax(S)      Y = P V        (formulas, L and D: at nn.h's) ---------------------
// As in nn.h the heads that share keys are rows of one unit: row r is head r % group, time r / group. A block keeps a tile of rows and
// walks over tiles of columns; S is never in memory. A thread has 4 rows and every 16th column of S, and 4 columns of every 64 of the result.
// Rows of more numbers than a tile holds are taken in chunks, and a block (blockIdx.z) makes one chunk of the result.
enum { NN__ATT_HEADS, NN__ATT_LAST, NN__ATT_PACKED, NN__ATT_CACHED };        // layouts, as in nn.h
enum { NN__ATT_MASK = 3, NN__ATT_LENGTHS, NN__ATT_ALIBI };
typedef struct nn__heads { float *data; int64_t b, h, t, e; } nn__heads;     // strides of the batch, heads, time, and numbers of a head
typedef struct nn__att {
    nn__heads q, k, v, y;
    int64_t b, h, hk, group, tq, tk, d, dv, rows, blocks;    // blocks: of 32 rows, for the random stream
    nn__index lengths;
    const void *mask;
    const float *slopes;
    int64_t mask_step[4], lengths_step, slopes_step;
    float *kept;                     // L of every row, or NULL
    nn__stream stream;
    uint64_t dropped;
    float scale, survives;           // survives: what a number that is not dropped is multiplied by; 0 and dropped 0: no dropout
    int causal, mask_bytes, drop;
} nn__att;
NN__DEV float *nn__head_at(const nn__heads &x, int64_t b, int64_t head, int64_t t) { return x.data + b * x.b + head * x.h + t * x.t; }
NN__DEV float *nn__unit_at(const nn__att &a, const nn__heads &x, int64_t unit, int64_t r, int keys)        // a row, or a key
{
    int64_t b = unit / a.hk, g = unit % a.hk;
    return keys ? nn__head_at(x, b, g, r) : nn__head_at(x, b, g * a.group + (int)r % (int)a.group, (int)r / (int)a.group);
}
NN__DEV int nn__att_length(const nn__att &a, int64_t unit)
{
    int64_t n = a.lengths.data ? nn__index_at(a.lengths, unit / a.hk * a.lengths_step) : a.tk;
    return (int)(n < 0 ? 0 : n < a.tk ? n : a.tk);
}
typedef struct nn__att_row { int limit, time; const char *mask; float slope; } nn__att_row;      // what a row sees: keys below the limit
NN__DEV nn__att_row nn__att_row_of(const nn__att &a, int64_t unit, int r, int length)
{
    nn__att_row o;
    int64_t b = unit / a.hk, head = unit % a.hk * a.group + r % (int)a.group;
    int last;
    o.time = r / (int)a.group;
    last = o.time + (int)(a.tk - a.tq) + 1;
    o.limit = r >= a.rows ? 0 : !a.causal ? length : last < 0 ? 0 : last < length ? last : length;
    o.mask = a.mask ? (const char *)a.mask + (b * a.mask_step[0] + head * a.mask_step[1] + o.time * a.mask_step[2]) * a.mask_bytes : NULL;
    o.slope = a.slopes && r < a.rows ? a.slopes[head * a.slopes_step] : 0.0f;
    return o;
}
NN__DEV float nn__att_score(const nn__att &a, const nn__att_row &o, int key, float s)    // -infinity: hidden
{
    float more = 0;
    if (key >= o.limit) return -INFINITY;
    if (a.mask_bytes == 1) { if (!o.mask[key * a.mask_step[3]]) return -INFINITY; }
    else if (a.mask_bytes) more = *(const float *)(const void *)(o.mask + key * a.mask_step[3] * 4);
    if (a.slopes) more -= o.slope * fabsf((float)(key - o.time - (int)(a.tk - a.tq)));
    return more == -INFINITY ? more : s + more;
}
NN__DEV void nn__att_keep4(const nn__att &a, int64_t unit, int key, int row, float *keep)      // what 4 rows from a multiple of 4 on are multiplied by
{
    uint32_t r[4];
    nn__philox(a.stream, (uint64_t)(((unit * a.tk + key) * a.blocks * 32 + row) / 4), r);
    for (int k = 0; k < 4; k++) keep[k] = r[k] >= a.dropped ? a.survives : 0.0f;
}
NN__DEV float nn__att_keep(const nn__att &a, int64_t unit, int key, int row)
{
    float k[4];
    nn__att_keep4(a, unit, key, row & ~3, k);
    return row & 2 ? row & 1 ? k[3] : k[2] : row & 1 ? k[1] : k[0];
}
// The columns that a tile of rows of attention's backward walks over: side 0 keys, side 1 the queries that may see these keys.
NN__DEV void nn__att_reach(const nn__att &a, int64_t unit, int side, int64_t first, int rows, int step, int length, int *column, int *end)
{
    int64_t since = first - (a.tk - a.tq);
    *column = side && a.causal && since > 0 ? (int)(since * a.group / step * step) : 0;
    if (side) *end = first < length ? (int)a.rows : 0;
    else *end = nn__att_row_of(a, unit, (int)(first + rows < a.rows ? first + rows : a.rows) - 1, length).limit;
}
// n rows (or keys) from `first` on, numbers from .. from + CH - 1 of their d, to shared memory; zeros where there are none.
template <int CH> NN__DEV void nn__att_tile(const nn__att &a, const nn__heads &x, int64_t unit, int keys, int64_t first, int64_t last, int n, int64_t from, int64_t d, float scale, float *to)
{
    for (int i = threadIdx.x; i < n * (CH / 4); i += blockDim.x) {
        int r = i / (CH / 4), e = i % (CH / 4) * 4;
        nn__quad q = nn__quad_of(0);
        if (first + r < last && from + e < d) {
            const float *p = nn__unit_at(a, x, unit, first + r, keys);
            if (x.e == 1) q = nn__near4(p, from + e, d, 0);
            else for (int k = 0; k < 4; k++) if (from + e + k < d) q.v[k] = p[(from + e + k) * x.e];
        }
        for (int k = 0; k < 4; k++) q.v[k] *= scale;
        nn__store_quad(to + r * (CH + 4) + e, q);
    }
}
// s (4 rows, every 16th of 16 * RN columns) += x y^T over n numbers, and acc (4 rows, 4 of every 64 columns) += p b over BN rows of b
template <int CH, int RN> NN__DEV void nn__tile_dot(float (&s)[4][RN], const float *x, const float *y, int n)
{
    for (int e = 0; e < n; e += 4) {
        nn__quad u[4], v[RN];
        NN_UNROLL for (int i = 0; i < 4; i++) u[i] = nn__load_quad(x + i * (CH + 4) + e);
        NN_UNROLL for (int j = 0; j < RN; j++) v[j] = nn__load_quad(y + 16 * j * (CH + 4) + e);
        NN_UNROLL for (int i = 0; i < 4; i++) NN_UNROLL for (int j = 0; j < RN; j++) NN_UNROLL for (int k = 0; k < 4; k++) s[i][j] += u[i].v[k] * v[j].v[k];
    }
}
template <int CH, int BN> NN__DEV void nn__tile_mix(float (&acc)[4][CH / 16], const float *p, const float *b)
{
    for (int j = 0; j < BN; j += 4) {
        nn__quad u[4];
        NN_UNROLL for (int i = 0; i < 4; i++) u[i] = nn__load_quad(p + i * (BN + 4) + j);
        NN_UNROLL for (int k = 0; k < 4; k++) NN_UNROLL for (int c = 0; c < CH / 64; c++) {
            nn__quad v = nn__load_quad(b + (j + k) * (CH + 4) + 64 * c);
            NN_UNROLL for (int i = 0; i < 4; i++) NN_UNROLL for (int e = 0; e < 4; e++) acc[i][4 * c + e] += u[i].v[k] * v.v[e];
        }
    }
}
template <int CH> NN__DEV void nn__att_give(const nn__att &a, const nn__heads &x, int64_t unit, int keys, int64_t first, int64_t last, int64_t d, float (&acc)[4][CH / 16],
                                            const float *scale, int add)
{
    for (int i = 0; i < 4; i++) {
        int64_t r = first + 4 * (threadIdx.x >> 4) + i, at = (int64_t)blockIdx.z * CH + 4 * (threadIdx.x & 15);
        if (r >= last) continue;
        float *p = nn__unit_at(a, x, unit, r, keys);
        NN_UNROLL for (int c = 0; c < CH / 64; c++, at += 64) {
            nn__quad q;
            NN_UNROLL for (int k = 0; k < 4; k++) q.v[k] = acc[i][4 * c + k] * scale[i];
            if (at < d) nn__near4_put(p, at, d, q, add); // results and gradients are rows, whatever q, k and v are
        }
    }
}
#define NN__OVER_16(v, join) for (int o_ = 8; o_; o_ >>= 1) { float other = __shfl_xor_sync(NN__FULL, v, o_); v = join; }
template <int CH, int BN> static __global__ void __launch_bounds__(256, 1) nn__k_attend(nn__att a, int64_t row_blocks)
{
    enum { BM = 64, LD = CH + 4, LP = BN + 4, RN = BN / 16 };
    NN_SHARED_DYN(float, shared);
    float *qs = shared, *ks = qs + BM * LD, *ps = ks + BN * LD;
    int tx = threadIdx.x & 15, top = 4 * (threadIdx.x >> 4), length, seen, row;
    int64_t unit = blockIdx.x / row_blocks, first = (row_blocks - 1 - blockIdx.x % row_blocks) * BM;      // the longest first
    float m[4], l[4], o[4][CH / 16] = {{0}}, by[4];
    nn__att_row info[4];
    length = nn__att_length(a, unit);
    row = (int)(first + BM < a.rows ? first + BM : a.rows) - 1;
    seen = nn__att_row_of(a, unit, row, length).limit;
    for (int i = 0; i < 4; i++) { m[i] = -INFINITY; l[i] = 0; info[i] = nn__att_row_of(a, unit, (int)first + top + i, length); }
    for (int key = 0; key < seen; key += BN) {
        float s[4][RN] = {{0}};
        for (int64_t e = 0; e < a.d; e += CH) {
            __syncthreads();
            if (key == 0 || a.d > CH) nn__att_tile<CH>(a, a.q, unit, 0, first, a.rows, BM, e, a.d, a.scale, qs);
            nn__att_tile<CH>(a, a.k, unit, 1, key, seen, BN, e, a.d, 1, ks);
            __syncthreads();
            nn__tile_dot<CH, RN>(s, qs + top * LD, ks + tx * LD, (int)(a.d - e < CH ? a.d - e : CH));
        }
        NN_UNROLL for (int i = 0; i < 4; i++) {
            float most = m[i], sum = 0, f, safe;
            NN_UNROLL for (int j = 0; j < RN; j++) { s[i][j] = nn__att_score(a, info[i], key + tx + 16 * j, s[i][j]); most = fmaxf(most, s[i][j]); }
            NN__OVER_16(most, fmaxf(most, other))
            safe = most == -INFINITY ? 0.0f : most;
            f = __expf(m[i] - safe);
            NN_UNROLL for (int j = 0; j < RN; j++) { s[i][j] = __expf(s[i][j] - safe); sum += s[i][j]; }
            NN__OVER_16(sum, sum + other)
            l[i] = l[i] * f + sum;
            m[i] = most;
            NN_UNROLL for (int e = 0; e < CH / 16; e++) o[i][e] *= f;
        }
        NN_UNROLL for (int j = 0; j < RN; j++) {
            float keep[4] = { 1, 1, 1, 1 };
            if (a.drop) nn__att_keep4(a, unit, key + tx + 16 * j, (int)first + top, keep);
            NN_UNROLL for (int i = 0; i < 4; i++) ps[(top + i) * LP + tx + 16 * j] = s[i][j] * keep[i];
        }
        __syncthreads();
        nn__att_tile<CH>(a, a.v, unit, 1, key, seen, BN, (int64_t)blockIdx.z * CH, a.dv, 1, ks);
        __syncthreads();
        nn__tile_mix<CH, BN>(o, ps + top * LP, ks + 4 * tx);
    }
    for (int i = 0; i < 4; i++) {
        by[i] = l[i] == 0 ? 0.0f : 1.0f / l[i];
        if (a.kept && tx == 0 && blockIdx.z == 0 && first + top + i < a.rows) a.kept[unit * a.rows + first + top + i] = l[i] == 0 ? INFINITY : m[i] + logf(l[i]);
    }
    nn__att_give<CH>(a, a.y, unit, 0, first, a.rows, a.dv, o, by, 0);
}
// Backward. Side 0: rows are queries, columns keys: dQ = scale dS K. Side 1: rows are keys, columns queries: dK = dS^T Q, dV = P^T dY.
typedef struct nn__att_back { nn__heads dy, dq, dk, dv; const float *delta; int add_q, add_k, add_v; } nn__att_back;
static __global__ void __launch_bounds__(128) nn__k_att_delta(nn__att a, nn__heads dy, float *delta)       // D = sum of dy y
{
    int64_t i = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    float sum = 0;
    if (i >= a.b * a.hk * a.rows) return;
    const float *y = nn__unit_at(a, a.y, i / a.rows, i % a.rows, 0), *g = nn__unit_at(a, dy, i / a.rows, i % a.rows, 0);
    for (int64_t e = threadIdx.x; e < a.dv; e += 32) sum += y[e * a.y.e] * g[e * dy.e];
    sum = nn__warp_sum(sum);
    if (threadIdx.x == 0) delta[i] = sum;
}
template <int CH, int BM, int BN, int SIDE> static __global__ void __launch_bounds__(BM * 4, 1) nn__k_attend_back(nn__att a, nn__att_back g, int64_t row_blocks)
{
    enum { LD = CH + 4, LP = BN + 4, RN = BN / 16 };
    NN_SHARED_DYN(float, shared);
    float *a1 = shared, *a2 = a1 + BM * LD, *b1 = a2 + BM * LD, *b2 = b1 + BN * LD, *ps = b2 + BN * LD;
    int tx = threadIdx.x & 15, top = 4 * (threadIdx.x >> 4), length, column, end, many = a.d > CH || a.dv > CH;
    int64_t unit = blockIdx.x / row_blocks, first = blockIdx.x % row_blocks * BM, rows = SIDE ? a.tk : a.rows;
    float one[4][CH / 16] = {{0}}, two[4][CH / 16] = {{0}}, scale[4];        // dQ or dK; dV
    const nn__heads &x1 = SIDE ? a.k : a.q, &x2 = SIDE ? a.v : g.dy, &y1 = SIDE ? a.q : a.k, &y2 = SIDE ? g.dy : a.v;
    float s1 = SIDE ? 1.0f : a.scale, t1 = SIDE ? a.scale : 1.0f;            // Q comes scaled
    length = nn__att_length(a, unit);
    nn__att_reach(a, unit, SIDE, first, BM, BN, length, &column, &end);
    for (int fresh = 1; column < end; column += BN, fresh = 0) {
        float s[4][RN] = {{0}}, dp[4][RN] = {{0}};
        for (int64_t e = 0; e < a.d || e < a.dv; e += CH) {
            __syncthreads();
            if (fresh || many) {
                nn__att_tile<CH>(a, x1, unit, SIDE, first, rows, BM, e, a.d, s1, a1);
                nn__att_tile<CH>(a, x2, unit, SIDE, first, rows, BM, e, a.dv, 1, a2);
            }
            nn__att_tile<CH>(a, y1, unit, !SIDE, column, end, BN, e, a.d, t1, b1);
            nn__att_tile<CH>(a, y2, unit, !SIDE, column, end, BN, e, a.dv, 1, b2);
            __syncthreads();
            nn__tile_dot<CH, RN>(s, a1 + top * LD, b1 + tx * LD, (int)(a.d - e < CH ? a.d - e : CH));
            nn__tile_dot<CH, RN>(dp, a2 + top * LD, b2 + tx * LD, (int)(a.dv - e < CH ? a.dv - e : CH));
        }
        NN_UNROLL for (int j = 0; j < RN; j++) {
            int other = column + tx + 16 * j;
            float keep[4] = { 1, 1, 1, 1 };
            if (a.drop && !SIDE) nn__att_keep4(a, unit, other, (int)first + top, keep);
            NN_UNROLL for (int i = 0; i < 4; i++) {
                int mine = (int)first + top + i, row = SIDE ? other : mine, key = SIDE ? mine : other, there = row < a.rows && key < a.tk;
                nn__att_row info = nn__att_row_of(a, unit, row, length);
                float p = there ? __expf(nn__att_score(a, info, key, s[i][j]) - a.kept[unit * a.rows + row]) : 0.0f;
                if (a.drop && SIDE) keep[i] = nn__att_keep(a, unit, key, row);
                dp[i][j] = there ? p * (dp[i][j] * keep[i] - g.delta[unit * a.rows + row]) : 0.0f;
                s[i][j] = p * keep[i];
            }
        }
        if (many) {                                      // the chunk that this block makes
            __syncthreads();
            nn__att_tile<CH>(a, y1, unit, !SIDE, column, end, BN, (int64_t)blockIdx.z * CH, a.d, t1, b1);
            nn__att_tile<CH>(a, y2, unit, !SIDE, column, end, BN, (int64_t)blockIdx.z * CH, a.dv, 1, b2);
            __syncthreads();
        }
        for (int pass = !SIDE; pass < 2; pass++) {       // P, then dS; only the 16 threads of a row read what they wrote
            __syncwarp(NN__FULL);
            NN_UNROLL for (int i = 0; i < 4; i++) NN_UNROLL for (int j = 0; j < RN; j++) ps[(top + i) * LP + tx + 16 * j] = pass ? dp[i][j] : s[i][j];
            __syncwarp(NN__FULL);
            if (pass) nn__tile_mix<CH, BN>(one, ps + top * LP, b1 + 4 * tx);
            else      nn__tile_mix<CH, BN>(two, ps + top * LP, b2 + 4 * tx);
        }
    }
    for (int i = 0; i < 4; i++) scale[i] = SIDE ? 1.0f : a.scale;
    if (SIDE ? g.dk.data != NULL : g.dq.data != NULL) nn__att_give<CH>(a, SIDE ? g.dk : g.dq, unit, SIDE, first, rows, a.d, one, scale, SIDE ? g.add_k : g.add_q);
    if (SIDE && g.dv.data) nn__att_give<CH>(a, g.dv, unit, SIDE, first, rows, a.dv, two, scale, g.add_v);
}

// The gradient of a learned mask: dS / scale of tiles of 64 queries and 64 keys, summed in one order over what shares a number. A block owns a tile
// of the mask; where the mask has few, blockIdx.y is a part of the terms, and the parts are joined by their number.
typedef struct nn__att_mask { nn__heads dy; const float *delta; float *to; int64_t size[4], step[4], part_step; int add; } nn__att_mask;
NN__DEV nn__heads nn__head_of(nn__heads x, int64_t b, int64_t head) { x.data = nn__head_at(x, b, head, 0); return x; }
static __global__ void __launch_bounds__(256, 2) nn__k_attend_mask(nn__att a, nn__att_mask g)
{
    enum { CH = 64, LD = CH + 4, RN = 4 };
    NN_SHARED(float, x, [64 * LD]);
    NN_SHARED(float, y, [64 * LD]);
    int tx = threadIdx.x & 15, top = 4 * (threadIdx.x >> 4), rows, columns;
    int64_t tiles[4] = { a.b, a.h, (a.tq + 63) / 64, (a.tk + 63) / 64 }, tile[4], n = blockIdx.x, terms = 1;
    float sum[4][RN] = {{0}};
    NN_UNROLL for (int k = 3; k >= 0; k--) {             // its own tile; `tiles`: those that share it
        int64_t own = g.size[k] == 1 ? 1 : tiles[k];
        tile[k] = n % own; n /= own;
        if (g.size[k] != 1) tiles[k] = 1;
        terms *= tiles[k];
    }
    for (int64_t i = terms * blockIdx.y / gridDim.y; i < terms * (blockIdx.y + 1) / gridDim.y; i++) {
        int64_t left = i / tiles[3], key = (tile[3] + i % tiles[3]) * 64, time = (tile[2] + left % tiles[2]) * 64;
        left /= tiles[2];
        int64_t head = tile[1] + left % tiles[1], b = tile[0] + left / tiles[1], unit = b * a.hk + head / a.group, row = head % a.group;
        int length = nn__att_length(a, unit), last = (int)(time + 64 < a.tq ? time + 64 : a.tq) - 1;
        int64_t seen = nn__att_row_of(a, unit, last * (int)a.group, length).limit;
        float s[4][RN] = {{0}}, dp[4][RN] = {{0}};
        if (key >= seen) continue;
        NN_UNROLL for (int pass = 0; pass < 2; pass++) {
            int64_t d = pass ? a.dv : a.d;
            nn__heads u = nn__head_of(pass ? g.dy : a.q, b, head), v = nn__head_of(pass ? a.v : a.k, b, head / a.group);
            for (int64_t e = 0; e < d; e += CH) {        // of one head the rows lie as keys do
                __syncthreads();
                nn__att_tile<CH>(a, u, 0, 1, time, a.tq, 64, e, d, pass ? 1.0f : a.scale, x);
                nn__att_tile<CH>(a, v, 0, 1, key, seen, 64, e, d, 1, y);
                __syncthreads();
                if (pass) nn__tile_dot<CH, RN>(dp, x + top * LD, y + tx * LD, (int)(d - e < 64 ? d - e : 64));
                else      nn__tile_dot<CH, RN>(s, x + top * LD, y + tx * LD, (int)(d - e < 64 ? d - e : 64));
            }
        }
        NN_UNROLL for (int k = 0; k < 4; k++) {
            int64_t t = time + top + k, r = t < a.tq ? t * a.group + row : a.rows;
            nn__att_row info = nn__att_row_of(a, unit, (int)r, length);
            float kept = r < a.rows ? a.kept[unit * a.rows + r] : INFINITY, delta = r < a.rows ? g.delta[unit * a.rows + r] : 0.0f;
            NN_UNROLL for (int j = 0; j < RN; j++) {
                int at = (int)key + tx + 16 * j;
                float p = __expf(nn__att_score(a, info, at, s[k][j]) - kept), keep = a.drop ? nn__att_keep(a, unit, at, (int)r) : 1.0f;
                sum[k][j] += p * (dp[k][j] * keep - delta);
            }
        }
    }
    __syncthreads();
    NN_UNROLL for (int k = 0; k < 4; k++) NN_UNROLL for (int j = 0; j < RN; j++) x[(top + k) * LD + tx + 16 * j] = sum[k][j];
    __syncthreads();
    rows = g.size[2] == 1 ? 1 : a.tq - tile[2] * 64 < 64 ? (int)(a.tq - tile[2] * 64) : 64;
    columns = g.size[3] == 1 ? 1 : a.tk - tile[3] * 64 < 64 ? (int)(a.tk - tile[3] * 64) : 64;
    if (g.size[3] == 1) {
        if (threadIdx.x < 64) for (int j = 1; j < 64; j++) x[threadIdx.x * LD] += x[threadIdx.x * LD + j];
        __syncthreads();
    }
    if (g.size[2] == 1) {
        if ((int)threadIdx.x < columns) for (int r = 1; r < 64; r++) x[threadIdx.x] += x[r * LD + threadIdx.x];      // which this thread writes below
    }
    int64_t at = blockIdx.y * g.part_step + tile[0] * g.step[0] + tile[1] * g.step[1] + tile[2] * 64 * g.step[2] + tile[3] * 64 * g.step[3];
    for (int i = threadIdx.x; i < rows * 64; i += 256) if (i % 64 < columns) {
        float *to = g.to + at + i / 64 * g.step[2] + i % 64 * g.step[3], v = x[i / 64 * LD + i % 64];
        *to = g.add ? *to + v : v;
    }
}

// ---- the same on tensor cores: TF32 words are numbers, BF16 words two neighbours; sizes up to 128. A warp has 16 rows; lane 4 g + t has rows
// g and g + 8 and columns 2 t, 2 t + 1 of every 8, and what it has of P is, as it stands, the left factor of the next product.
template <int MMA> NN__DEV void nn__att_mma(float (&y)[4], const unsigned *a, const unsigned *b) { if (MMA == NN_CUDA_TF32) NN__MMA_TF32_1688(y, a, b); else NN__MMA_BF16_16816(y, a, b); }
template <int D, int MMA> struct nn__mma_tile { enum { HALF = MMA != NN_CUDA_TF32, LINE = (HALF ? D / 2 : D) + 4, STEPS = (HALF ? D / 2 : D) / 8 }; };
template <int D, int MMA> NN__DEV void nn__att_words(const nn__att &a, const nn__heads &x, int64_t unit, int keys, int64_t first, int64_t last, int n, int64_t d, float scale, unsigned *to)
{
    typedef nn__mma_tile<D, MMA> T;
    for (int i = threadIdx.x; i < n * (D / 4); i += blockDim.x) {
        int r = i / (D / 4), e = i % (D / 4) * 4;
        nn__quad q = nn__quad_of(0);
        if (first + r < last && e < d) {
            const float *p = nn__unit_at(a, x, unit, first + r, keys);
            if (x.e == 1) q = nn__near4(p, e, d, 0);
            else for (int k = 0; k < 4; k++) if (e + k < d) q.v[k] = p[(e + k) * x.e];
        }
        for (int k = 0; k < 4; k++) q.v[k] *= scale;
        if (T::HALF) *(uint2 *)(to + r * T::LINE + e / 2) = make_uint2(nn__word<MMA>(q.v[0], q.v[1]), nn__word<MMA>(q.v[2], q.v[3]));
        else *(uint4 *)(to + r * T::LINE + e) = make_uint4(nn__word<MMA>(q.v[0], 0), nn__word<MMA>(q.v[1], 0), nn__word<MMA>(q.v[2], 0), nn__word<MMA>(q.v[3], 0));
    }
}
// s (16 rows of the warp, 8 * N columns) += x y^T;   acc (16 rows, D columns) += p b, p of 8 * N columns as s is
template <int D, int MMA, int N> NN__DEV void nn__mma_dot(float (&s)[N][4], const unsigned *x, const unsigned *y)
{
    enum { LINE = nn__mma_tile<D, MMA>::LINE };
    int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
    NN_UNROLL for (int k = 0; k < nn__mma_tile<D, MMA>::STEPS; k++) {
        const unsigned *p = x + g * LINE + 8 * k + t, *q = y + g * LINE + 8 * k + t;
        unsigned u[4] = { p[0], p[8 * LINE], p[4], p[8 * LINE + 4] };
        NN_UNROLL for (int j = 0; j < N; j++) { unsigned v[2] = { q[8 * j * LINE], q[8 * j * LINE + 4] }; nn__att_mma<MMA>(s[j], u, v); }
    }
}
template <int D, int MMA, int N> NN__DEV void nn__mma_mix(float (&acc)[D / 8][4], const float (&p)[N][4], const unsigned *b)
{
    enum { LINE = nn__mma_tile<D, MMA>::LINE };
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    if (nn__mma_tile<D, MMA>::HALF) {
        NN_UNROLL for (int j = 0; j < N; j += 2) {
            unsigned u[4] = { nn__word<MMA>(p[j][0], p[j][1]), nn__word<MMA>(p[j][2], p[j][3]), nn__word<MMA>(p[j + 1][0], p[j + 1][1]), nn__word<MMA>(p[j + 1][2], p[j + 1][3]) };
            NN_UNROLL for (int c = 0; c < D / 8; c += 2) {
                unsigned v[4];
                NN__LDMATRIX_TRANS(v, b + (8 * j + (lane & 15)) * LINE + 4 * (c + (lane >> 4)));
                nn__att_mma<MMA>(acc[c], u, v);
                nn__att_mma<MMA>(acc[c + 1], u, v + 2);
            }
        }
    } else NN_UNROLL for (int j = 0; j < N; j++) {      // term t of a product is column 2 t, term t + 4 column 2 t + 1
        unsigned u[4] = { nn__word<MMA>(p[j][0], 0), nn__word<MMA>(p[j][2], 0), nn__word<MMA>(p[j][1], 0), nn__word<MMA>(p[j][3], 0) };
        const unsigned *q = b + (8 * j + 2 * t) * LINE + g;
        NN_UNROLL for (int c = 0; c < D / 8; c++) { unsigned v[2] = { q[8 * c], q[LINE + 8 * c] }; nn__att_mma<MMA>(acc[c], u, v); }
    }
}
template <int D> NN__DEV void nn__mma_give(const nn__att &a, const nn__heads &x, int64_t unit, int keys, int64_t first, int64_t last, int64_t d, const float (&acc)[D / 8][4],
                                           float low, float high, int add)
{
    int t = threadIdx.x & 3;
    NN_UNROLL for (int i = 0; i < 2; i++) {
        int64_t r = first + 8 * i;
        if (r >= last) continue;
        float *p = nn__unit_at(a, x, unit, r, keys);
        NN_UNROLL for (int c = 0; c < D / 8; c++) {
            int e = 8 * c + 2 * t;
            float u = acc[c][2 * i] * (i ? high : low), v = acc[c][2 * i + 1] * (i ? high : low);
            if (e + 1 < d && x.e == 1 && ((uintptr_t)(p + e) & 7) == 0) {
                float2 *to = (float2 *)(p + e);
                if (add) { float2 old = *to; u += old.x; v += old.y; }
                *to = make_float2(u, v);
                continue;
            }
            if (e < d) p[e * x.e] = add ? p[e * x.e] + u : u;
            if (e + 1 < d) p[(e + 1) * x.e] = add ? p[(e + 1) * x.e] + v : v;
        }
    }
}
#define NN__OVER_4(v, join) for (int o_ = 1; o_ < 4; o_ *= 2) { float other = __shfl_xor_sync(NN__FULL, v, o_); v = join; }
template <int D, int MMA, int BN> static __global__ void __launch_bounds__(128, 1) nn__k_attend_mma(nn__att a, int64_t row_blocks)
{
    enum { LINE = nn__mma_tile<D, MMA>::LINE, N = BN / 8 };
    NN_SHARED_DYN(unsigned, shared);
    unsigned *qs = shared, *ks = qs + 64 * LINE, *vs = ks + BN * LINE;
    int length, seen, warp = threadIdx.x >> 5, t = threadIdx.x & 3;
    int64_t unit = blockIdx.x / row_blocks, first = (row_blocks - 1 - blockIdx.x % row_blocks) * 64, mine = first + 16 * warp + ((threadIdx.x & 31) >> 2);
    float m[2], l[2], o[D / 8][4] = {{0}};
    nn__att_row info[2];
    length = nn__att_length(a, unit);
    seen = nn__att_row_of(a, unit, (int)(first + 64 < a.rows ? first + 64 : a.rows) - 1, length).limit;
    NN_UNROLL for (int i = 0; i < 2; i++) { m[i] = -INFINITY; l[i] = 0; info[i] = nn__att_row_of(a, unit, (int)mine + 8 * i, length); }
    nn__att_words<D, MMA>(a, a.q, unit, 0, first, a.rows, 64, a.d, a.scale, qs);
    for (int key = 0; key < seen; key += BN) {
        float s[N][4] = {{0}};
        __syncthreads();
        nn__att_words<D, MMA>(a, a.k, unit, 1, key, seen, BN, a.d, 1, ks);
        nn__att_words<D, MMA>(a, a.v, unit, 1, key, seen, BN, a.dv, 1, vs);
        __syncthreads();
        nn__mma_dot<D, MMA, N>(s, qs + 16 * warp * LINE, ks);
        NN_UNROLL for (int i = 0; i < 2; i++) {
            float most = m[i], sum = 0, f, safe;
            NN_UNROLL for (int j = 0; j < N; j++) NN_UNROLL for (int e = 2 * i; e < 2 * i + 2; e++) {
                s[j][e] = nn__att_score(a, info[i], key + 8 * j + 2 * t + (e & 1), s[j][e]);
                most = fmaxf(most, s[j][e]);
            }
            NN__OVER_4(most, fmaxf(most, other))
            safe = most == -INFINITY ? 0.0f : most;
            f = __expf(m[i] - safe);
            NN_UNROLL for (int j = 0; j < N; j++) NN_UNROLL for (int e = 2 * i; e < 2 * i + 2; e++) {
                s[j][e] = __expf(s[j][e] - safe);
                sum += s[j][e];
                if (a.drop) s[j][e] *= nn__att_keep(a, unit, key + 8 * j + 2 * t + (e & 1), (int)mine + 8 * i);
            }
            NN__OVER_4(sum, sum + other)
            l[i] = l[i] * f + sum;
            m[i] = most;
            NN_UNROLL for (int c = 0; c < D / 8; c++) { o[c][2 * i] *= f; o[c][2 * i + 1] *= f; }
        }
        nn__mma_mix<D, MMA, N>(o, s, vs);
    }
    NN_UNROLL for (int i = 0; i < 2; i++)
        if (a.kept && t == 0 && mine + 8 * i < a.rows) a.kept[unit * a.rows + mine + 8 * i] = l[i] == 0 ? INFINITY : m[i] + logf(l[i]);
    nn__mma_give<D>(a, a.y, unit, 0, mine, a.rows, a.dv, o, l[0] == 0 ? 0.0f : 1.0f / l[0], l[1] == 0 ? 0.0f : 1.0f / l[1], 0);
}
template <int D, int MMA, int WARPS, int SIDE> static __global__ void __launch_bounds__(32 * WARPS, 1) nn__k_attend_mma_back(nn__att a, nn__att_back g, int64_t row_blocks)
{
    enum { LINE = nn__mma_tile<D, MMA>::LINE, BM = 16 * WARPS, BN = 32, N = BN / 8 };
    NN_SHARED_DYN(unsigned, shared);
    unsigned *a1 = shared, *a2 = a1 + BM * LINE, *b1 = a2 + BM * LINE, *b2 = b1 + BN * LINE;
    int length, column, end, warp = threadIdx.x >> 5, t = threadIdx.x & 3;
    int64_t unit = blockIdx.x / row_blocks, first = blockIdx.x % row_blocks * BM, mine = first + 16 * warp + ((threadIdx.x & 31) >> 2), rows = SIDE ? a.tk : a.rows;
    float one[D / 8][4] = {{0}}, two[D / 8][4] = {{0}}, kept[2], delta[2];
    nn__att_row info[2];
    length = nn__att_length(a, unit);
    nn__att_reach(a, unit, SIDE, first, BM, BN, length, &column, &end);
    NN_UNROLL for (int i = 0; i < 2; i++) {
        int there = !SIDE && mine + 8 * i < rows;
        info[i] = nn__att_row_of(a, unit, there ? (int)mine + 8 * i : (int)a.rows, length);
        kept[i] = there ? a.kept[unit * a.rows + mine + 8 * i] : INFINITY;
        delta[i] = there ? g.delta[unit * a.rows + mine + 8 * i] : 0.0f;
    }
    nn__att_words<D, MMA>(a, SIDE ? a.k : a.q, unit, SIDE, first, rows, BM, a.d, SIDE ? 1.0f : a.scale, a1);
    nn__att_words<D, MMA>(a, SIDE ? a.v : g.dy, unit, SIDE, first, rows, BM, a.dv, 1, a2);
    for (; column < end; column += BN) {
        float s[N][4] = {{0}}, dp[N][4] = {{0}};
        __syncthreads();
        nn__att_words<D, MMA>(a, SIDE ? a.q : a.k, unit, !SIDE, column, end, BN, a.d, SIDE ? a.scale : 1.0f, b1);
        nn__att_words<D, MMA>(a, SIDE ? g.dy : a.v, unit, !SIDE, column, end, BN, a.dv, 1, b2);
        __syncthreads();
        nn__mma_dot<D, MMA, N>(s, a1 + 16 * warp * LINE, b1);
        nn__mma_dot<D, MMA, N>(dp, a2 + 16 * warp * LINE, b2);
        NN_UNROLL for (int j = 0; j < N; j++) NN_UNROLL for (int e = 0; e < 2; e++) {
            int at = column + 8 * j + 2 * t + e;
            if (SIDE) {
                int there = at < a.rows;
                info[0] = info[1] = nn__att_row_of(a, unit, there ? at : (int)a.rows, length);
                kept[0] = kept[1] = there ? a.kept[unit * a.rows + at] : INFINITY;
                delta[0] = delta[1] = there ? g.delta[unit * a.rows + at] : 0.0f;
            }
            NN_UNROLL for (int i = 0; i < 2; i++) {
                int key = SIDE ? (int)mine + 8 * i : at, row = SIDE ? at : (int)mine + 8 * i;
                float p = __expf(nn__att_score(a, info[i], key, s[j][2 * i + e]) - kept[i]), keep = a.drop ? nn__att_keep(a, unit, key, row) : 1.0f;
                dp[j][2 * i + e] = p * (dp[j][2 * i + e] * keep - delta[i]);
                s[j][2 * i + e] = p * keep;
            }
        }
        nn__mma_mix<D, MMA, N>(one, dp, b1);
        if (SIDE) nn__mma_mix<D, MMA, N>(two, s, b2);
    }
    if (SIDE && g.dk.data)  nn__mma_give<D>(a, g.dk, unit, 1, mine, rows, a.d, one, 1, 1, g.add_k);
    if (!SIDE && g.dq.data) nn__mma_give<D>(a, g.dq, unit, 0, mine, rows, a.d, one, a.scale, a.scale, g.add_q);
    if (SIDE && g.dv.data)  nn__mma_give<D>(a, g.dv, unit, 1, mine, rows, a.dv, two, 1, 1, g.add_v);
}

// ---- decoding: few rows against many keys. Blocks share the keys of a unit; a group of `lanes` threads takes a key; then the parts join.
enum { NN__DECODE_ROWS = 8 };
static __global__ void __launch_bounds__(128) nn__k_decode(nn__att a, int splits, int lanes, float *part)       // part[unit][split][row]: m, l, then dv numbers
{
    NN_SHARED(float, best, [16][2]);
    NN_SHARED(float, sums, [16][132]);
    int64_t unit = blockIdx.x / splits;
    int split = blockIdx.x % splits, length = nn__att_length(a, unit), per = (int)((a.tk + splits - 1) / splits), groups = 128 / lanes;
    int mine = threadIdx.x / lanes, e = threadIdx.x % lanes * 4, end = (split + 1) * per < length ? (split + 1) * per : length, steps = (end - split * per + groups - 1) / groups;
    nn__att_row info[NN__DECODE_ROWS];
    nn__quad q[NN__DECODE_ROWS], o[NN__DECODE_ROWS];
    float m[NN__DECODE_ROWS], l[NN__DECODE_ROWS];
    NN_UNROLL for (int r = 0; r < NN__DECODE_ROWS; r++) {
        info[r] = nn__att_row_of(a, unit, r, length);
        q[r] = o[r] = nn__quad_of(0);
        m[r] = -INFINITY; l[r] = 0;
        if (r < a.rows) for (int k = 0; k < 4; k++) if (e + k < a.d) q[r].v[k] = nn__unit_at(a, a.q, unit, r, 0)[(e + k) * a.q.e] * a.scale;
    }
    for (int step = 0; step < steps; step++) {
        int key = split * per + step * groups + mine, there = key < end;
        nn__quad kq = nn__quad_of(0), vq = nn__quad_of(0);
        if (there) {
            const float *kp = nn__unit_at(a, a.k, unit, key, 1), *vp = nn__unit_at(a, a.v, unit, key, 1);
            if (a.k.e == 1) { if (e < a.d) kq = nn__near4(kp, e, a.d, 0); } else for (int k = 0; k < 4; k++) if (e + k < a.d) kq.v[k] = kp[(e + k) * a.k.e];
            if (a.v.e == 1) { if (e < a.dv) vq = nn__near4(vp, e, a.dv, 0); } else for (int k = 0; k < 4; k++) if (e + k < a.dv) vq.v[k] = vp[(e + k) * a.v.e];
        }
        NN_UNROLL for (int r = 0; r < NN__DECODE_ROWS; r++) if (r < a.rows) {
            float s = (q[r].v[0] * kq.v[0] + q[r].v[1] * kq.v[1]) + (q[r].v[2] * kq.v[2] + q[r].v[3] * kq.v[3]), top, safe, f, p;
            for (int w = lanes / 2; w; w >>= 1) s += __shfl_xor_sync(NN__FULL, s, w);
            s = there ? nn__att_score(a, info[r], key, s) : -INFINITY;
            top = fmaxf(m[r], s);
            safe = top == -INFINITY ? 0.0f : top;
            f = __expf(m[r] - safe); p = __expf(s - safe);
            m[r] = top;
            l[r] = l[r] * f + p;
            for (int k = 0; k < 4; k++) o[r].v[k] = o[r].v[k] * f + p * vq.v[k];
        }
    }
    NN_UNROLL for (int r = 0; r < NN__DECODE_ROWS; r++) if (r < a.rows) {
        float top = -INFINITY, sum = 0, *to = part + ((unit * splits + split) * a.rows + r) * (a.dv + 2);
        __syncthreads();
        if (e == 0) { best[mine][0] = m[r]; best[mine][1] = l[r]; }
        nn__store_quad(&sums[mine][e], o[r]);
        __syncthreads();
        for (int k = 0; k < groups; k++) top = fmaxf(top, best[k][0]);
        for (int i = threadIdx.x; i < a.dv + 1; i += 128) {
            sum = 0;
            for (int k = 0; k < groups; k++) if (best[k][0] != -INFINITY) sum += __expf(best[k][0] - top) * (i < a.dv ? sums[k][i] : best[k][1]);
            to[i < a.dv ? i + 2 : 1] = sum;
        }
        if (threadIdx.x == 0) to[0] = top;
    }
}
static __global__ void __launch_bounds__(128) nn__k_decode_join(nn__att a, int splits, const float *part)
{
    int64_t unit = blockIdx.x / a.rows;
    int r = (int)(blockIdx.x % a.rows);
    float top = -INFINITY, l = 0, *y = nn__unit_at(a, a.y, unit, r, 0);
    part += (unit * splits * a.rows + r) * (a.dv + 2);
    for (int s = 0; s < splits; s++) top = fmaxf(top, part[s * a.rows * (a.dv + 2)]);
    for (int s = 0; s < splits; s++) { const float *p = part + s * a.rows * (a.dv + 2); if (p[0] != -INFINITY) l += __expf(p[0] - top) * p[1]; }
    for (int64_t i = threadIdx.x; i < a.dv; i += 128) {
        float sum = 0;
        for (int s = 0; s < splits; s++) { const float *p = part + s * a.rows * (a.dv + 2); if (p[0] != -INFINITY) sum += __expf(p[0] - top) * p[2 + i]; }
        y[i * a.y.e] = l == 0 ? 0.0f : sum / l;
    }
    if (a.kept && threadIdx.x == 0) a.kept[unit * a.rows + r] = l == 0 ? INFINITY : top + logf(l);
}

// ---- from a call to the kernels ----------------------------------------------------------------------------------------------------
static nn__heads nn__heads_of(const nn__att *a, int layout, const nn_view *list, int which)      // which: 0 q, 1 k, 2 v, 3 the result (list[0])
{
    const nn_view *v = which == 3 || layout == NN__ATT_PACKED ? &list[0] : &list[which];
    nn__heads r;
    r.data = (float *)v->data;
    r.b = v->stride[0];
    if (v->ndim == 4) { r.h = v->stride[1]; r.t = v->stride[2]; r.e = v->stride[3]; return r; }
    r.t = v->stride[1]; r.e = v->stride[2];
    r.h = (which < 2 ? a->d : a->dv) * r.e;
    if (layout == NN__ATT_PACKED && r.data && (which == 1 || which == 2)) r.data += r.h * (which == 1 ? a->h : a->h + a->hk);
    return r;
}
static nn__att nn__att_of(const nn_call *c)
{
    const nn__attention_params *p = (const nn__attention_params *)c->params;
    const nn_view *q = &c->in[0], *k = &c->in[1], *v = &c->in[2], *mask = &c->in[NN__ATT_MASK], *lengths = &c->in[NN__ATT_LENGTHS], *slopes = &c->in[NN__ATT_ALIBI];
    nn__att a = {};
    int i;
    a.b = q->shape[0];
    if (p->layout == NN__ATT_HEADS) { a.h = q->shape[1]; a.hk = k->shape[1]; a.tq = q->shape[2]; a.tk = k->shape[2]; a.d = q->shape[3]; a.dv = v->shape[3]; }
    else {
        a.h = p->heads; a.hk = p->kv_heads;
        a.tq = a.tk = q->shape[1];
        if (p->layout == NN__ATT_PACKED) a.d = a.dv = q->shape[2] / (a.h + 2 * a.hk);
        else if (p->layout == NN__ATT_CACHED) { a.tk = k->shape[2]; a.d = k->shape[3]; a.dv = v->shape[3]; }
        else { a.tk = k->shape[1]; a.d = q->shape[2] / a.h; a.dv = v->shape[2] / a.hk; }
    }
    a.group = a.hk ? a.h / a.hk : 1;
    a.rows = a.group * a.tq;
    a.blocks = (a.rows + 31) / 32;
    a.q = nn__heads_of(&a, p->layout, c->in, 0); a.k = nn__heads_of(&a, p->layout, c->in, 1); a.v = nn__heads_of(&a, p->layout, c->in, 2);
    a.y = nn__heads_of(&a, p->layout, c->out, 3);
    a.scale = p->scale != 0 ? p->scale : (float)(1.0 / sqrt((double)(a.d > 1 ? a.d : 1)));
    a.causal = p->causal;
    a.kept = (float *)c->aux[0].data;
    a.mask = mask->data;
    a.mask_bytes = !mask->data ? 0 : mask->dtype == NN_BOOL || mask->dtype == NN_U8 ? 1 : 4;
    for (i = 0; mask->data && i < mask->ndim; i++) if (mask->shape[i] != 1) a.mask_step[4 - mask->ndim + i] = mask->stride[i];
    a.lengths = nn__index_of(lengths); a.lengths_step = lengths->stride[0];
    a.slopes = (const float *)slopes->data; a.slopes_step = slopes->stride[0];
    a.drop = p->dropout > 0;
    a.stream = nn__stream_of(c);
    a.dropped = (uint64_t)((double)p->dropout * 4294967296.0);
    a.survives = p->dropout < 1 ? (float)(1.0 / (1.0 - (double)p->dropout)) : 0.0f;
    return a;
}
static int nn__att_fits(const nn__att *a) { return a->rows < 0x7fffff00 && a->tk < 0x7fffff00 && a->b * a->hk * ((a->rows + a->tk) / 32 + 2) < 0x7fffffff; }
#define NN__LAUNCH_ATT(d, kernel, units, per, chunks, threads, bytes, ...) \
    do { if (!NN__SHARED_ROOM(d, kernel, bytes)) return 0; NN__LAUNCH(d, kernel, dim3(nn__grid((units) * (per)), 1, (unsigned)(chunks)), threads, bytes, __VA_ARGS__, per); } while (0)
// Which tensor core product, or 0; of a single key P is 1, exactly. FP16 would overflow where BF16 does not: TF32 has its digits.
static int nn__att_cores(const nn__cuda *d, const nn__att *a)
{
    return d->arch < 80 || a->d > 128 || a->dv > 128 || a->tk < 2 ? 0 : d->precision == NN_CUDA_FP16 ? (int)NN_CUDA_TF32 : d->precision;
}
template <int D, int MMA, int WARPS> static int nn__attend_cores(nn__cuda *d, const nn__att &a, const nn__att_back &g, int want_q, int want_k)
{
    enum { BM = 16 * WARPS };
    size_t bytes = (2 * BM + 64) * nn__mma_tile<D, MMA>::LINE * sizeof(float);
    int64_t units = a.b * a.hk;
    if (want_q) NN__LAUNCH_ATT(d, (nn__k_attend_mma_back<D, MMA, WARPS, 0>), units, (a.rows + BM - 1) / BM, 1, 32 * WARPS, bytes, a, g);
    if (want_k) NN__LAUNCH_ATT(d, (nn__k_attend_mma_back<D, MMA, WARPS, 1>), units, (a.tk + BM - 1) / BM, 1, 32 * WARPS, bytes, a, g);
    return 1;
}
static int nn__cuda_attention(nn__cuda *d, const nn_call *c)
{
    nn__att a = nn__att_of(c);
    int64_t units = a.b * a.hk, blocks = (a.rows + 63) / 64;
    int mma = nn__att_cores(d, &a), small = a.d <= 64 && a.dv <= 64;
    if (!units || !a.rows) return 1;
    if (!nn__att_fits(&a)) return 0;
    if (a.rows <= NN__DECODE_ROWS && a.d <= 128 && a.dv <= 128 && !a.drop && a.tk >= 32) {
        int64_t wide = a.d > a.dv ? a.d : a.dv, most = 1024 / units > 1 ? 1024 / units : 1, splits = (a.tk + 127) / 128;
        float *part;
        if (splits > most) splits = most;
        part = (float *)nn__cuda_scratch(d, (size_t)(units * splits * a.rows * (a.dv + 2)) * sizeof *part);
        if (!part) return 1;
        NN__LAUNCH(d, nn__k_decode, nn__grid(units * splits), 128, 0, a, (int)splits, wide <= 32 ? 8 : wide <= 64 ? 16 : 32, part);
        NN__LAUNCH(d, nn__k_decode_join, nn__grid(units * a.rows), 128, 0, a, (int)splits, (const float *)part);
        return 1;
    }
    if (mma == NN_CUDA_BF16 && small)    NN__LAUNCH_ATT(d, (nn__k_attend_mma<64, NN_CUDA_BF16, 64>), units, blocks, 1, 128, 3 * 64 * 36 * sizeof(float), a);
    else if (mma == NN_CUDA_BF16)        NN__LAUNCH_ATT(d, (nn__k_attend_mma<128, NN_CUDA_BF16, 64>), units, blocks, 1, 128, 3 * 64 * 68 * sizeof(float), a);
    else if (mma == NN_CUDA_TF32 && small) NN__LAUNCH_ATT(d, (nn__k_attend_mma<64, NN_CUDA_TF32, 64>), units, blocks, 1, 128, 3 * 64 * 68 * sizeof(float), a);
    else if (mma == NN_CUDA_TF32)        NN__LAUNCH_ATT(d, (nn__k_attend_mma<128, NN_CUDA_TF32, 32>), units, blocks, 1, 128, 128 * 132 * sizeof(float), a);
    else if (small) NN__LAUNCH_ATT(d, (nn__k_attend<64, 64>), units, blocks, 1, 256, (64 * 68 + 64 * 68 + 64 * 68) * sizeof(float), a);
    else NN__LAUNCH_ATT(d, (nn__k_attend<128, 32>), units, blocks, (a.dv + 127) / 128, 256, (64 * 132 + 32 * 132 + 64 * 36) * sizeof(float), a);
    return 1;
}
// Numbers of a mask that many share: `parts` sums of each, [part][what the mask has], then one of those.
static int nn__attend_mask(nn__cuda *d, const nn_call *c, const nn__att &a, const nn__heads &dy, const float *delta)
{
    nn_view m = c->din[NN__ATT_MASK], part = m;
    int64_t tiles[4] = { a.b, a.h, (a.tq + 63) / 64, (a.tk + 63) / 64 }, blocks = 1, terms = 1, parts, n = nn_view_count(&m), run = 1;
    nn__att_mask g;
    int k, add = (int)(c->add >> NN__ATT_MASK & 1);
    if (!n) return 1;
    for (k = 0; k < 4; k++) {
        g.size[k] = k + m.ndim < 4 ? 1 : m.shape[k + m.ndim - 4];
        g.step[k] = g.size[k] == 1 ? 0 : m.stride[k + m.ndim - 4];
        *(g.size[k] == 1 ? &terms : &blocks) *= tiles[k];
    }
    parts = terms < 512 / blocks ? terms : 512 / blocks;
    g.dy = dy; g.delta = delta; g.to = (float *)m.data; g.part_step = 0; g.add = add;
    if (blocks > 0x7ffffffe) return 0;
    if (parts > 1) {
        if (!(g.to = (float *)nn__cuda_scratch(d, (size_t)(parts * n) * sizeof *g.to))) return 1;
        part.data = g.to; part.ndim = 5; part.shape[0] = parts; part.stride[0] = g.part_step = n;
        m.ndim = 5; m.shape[0] = parts; m.stride[0] = 0;
        for (k = 3; k >= 0; k--) {                       // a dimension of one number has any stride but 0
            part.shape[k + 1] = m.shape[k + 1] = g.size[k];
            m.stride[k + 1] = g.size[k] == 1 ? 1 : g.step[k];
            part.stride[k + 1] = g.step[k] = run;
            run *= g.size[k];
        }
        g.add = 0;
    }
    NN__LAUNCH(d, nn__k_attend_mask, dim3((unsigned)blocks, (unsigned)(parts > 1 ? parts : 1)), 256, 0, a, g);
    return parts > 1 ? nn__cuda_sum_to(d, &part, &m, add, 1) : 1;
}
static int nn__cuda_attention_back(nn__cuda *d, const nn_call *c)
{
    nn__att a = nn__att_of(c);
    int layout = ((const nn__attention_params *)c->params)->layout, packed = layout == NN__ATT_PACKED, want_q, want_k, mma = nn__att_cores(d, &a), small = a.d <= 64 && a.dv <= 64;
    int64_t units = a.b * a.hk, all = units * a.rows, chunks = ((a.d > a.dv ? a.d : a.dv) + 127) / 128;
    nn__att_back g;
    float *delta;
    if (!nn__att_fits(&a)) return 0;
    g.dy = nn__heads_of(&a, layout, c->dout, 3);
    g.dq = nn__heads_of(&a, layout, c->din, 0); g.dk = nn__heads_of(&a, layout, c->din, 1); g.dv = nn__heads_of(&a, layout, c->din, 2);
    g.add_q = (int)(c->add & 1); g.add_k = packed ? g.add_q : (int)(c->add >> 1 & 1); g.add_v = packed ? g.add_q : (int)(c->add >> 2 & 1);
    want_q = units && g.dq.data && a.rows; want_k = units && (g.dk.data || g.dv.data) && a.tk;
    if (!want_q && !want_k && !c->din[NN__ATT_MASK].data) return 1;
    delta = (float *)nn__cuda_scratch(d, (size_t)all * sizeof *delta);
    if (!delta) return 1;
    g.delta = delta;
    if (all) NN__LAUNCH(d, nn__k_att_delta, NN__BLOCKS(all, 4), dim3(32, 4), 0, a, g.dy, delta);
    if (c->din[NN__ATT_MASK].data && !nn__attend_mask(d, c, a, g.dy, delta)) return 0;
    if (mma == NN_CUDA_BF16)      return small ? nn__attend_cores<64, NN_CUDA_BF16, 4>(d, a, g, want_q, want_k) : nn__attend_cores<128, NN_CUDA_BF16, 4>(d, a, g, want_q, want_k);
    else if (mma == NN_CUDA_TF32) return small ? nn__attend_cores<64, NN_CUDA_TF32, 4>(d, a, g, want_q, want_k) : nn__attend_cores<128, NN_CUDA_TF32, 2>(d, a, g, want_q, want_k);
    if (small) {
        size_t bytes = (2 * 64 * 68 + 2 * 32 * 68 + 64 * 36) * sizeof(float);
        if (want_q) NN__LAUNCH_ATT(d, (nn__k_attend_back<64, 64, 32, 0>), units, (a.rows + 63) / 64, 1, 256, bytes, a, g);
        if (want_k) NN__LAUNCH_ATT(d, (nn__k_attend_back<64, 64, 32, 1>), units, (a.tk + 63) / 64, 1, 256, bytes, a, g);
    } else {
        size_t bytes = (2 * 32 * 132 + 2 * 16 * 132 + 32 * 20) * sizeof(float);
        if (want_q) NN__LAUNCH_ATT(d, (nn__k_attend_back<128, 32, 16, 0>), units, (a.rows + 31) / 32, chunks, 128, bytes, a, g);
        if (want_k) NN__LAUNCH_ATT(d, (nn__k_attend_back<128, 32, 16, 1>), units, (a.tk + 31) / 32, chunks, 128, bytes, a, g);
    }
    return 1;
}

// ---- rope:   (a, b) -> (a cos - b sin, b cos + a sin) by the angles of the row's position; sign -1 turns back -----------------------
typedef struct nn__rope { int64_t rows, d, half, inner, time, start, heads, turned; int interleaved; } nn__rope;      // the first `turned` of `heads` heads turn; 0: all
static __global__ void __launch_bounds__(128) nn__k_rope(nn__rope o, const float *x, const float *table, float sign, float *y, int add)
{
    int64_t r = (int64_t)blockIdx.x * blockDim.y + threadIdx.y, half = o.turned && r % o.heads >= o.turned ? 0 : o.half, rest = 2 * half;
    if (r >= o.rows) return;
    x += r * o.d; y += r * o.d;
    table += (o.start + r / o.inner % o.time) * 2 * o.half;
    for (int64_t i = 4 * threadIdx.x; i < half; i += 128) {
        nn__quad c = nn__near4(table, i, half, 0), s = nn__near4(table + half, i, half, 0);
        nn__quad a = o.interleaved ? nn__near4(x, 2 * i, rest, 0) : nn__near4(x, i, half, 0), b = o.interleaved ? nn__near4(x, 2 * i + 4, rest, 0) : nn__near4(x + half, i, half, 0);
        if (o.interleaved) {                             // pairs lie side by side
            nn__quad u = a, v = b;
            a.v[1] = u.v[2]; a.v[2] = v.v[0]; a.v[3] = v.v[2];
            b.v[0] = u.v[1]; b.v[1] = u.v[3]; b.v[2] = v.v[1];
        }
        for (int k = 0; k < 4; k++) {
            float u = a.v[k], v = b.v[k], sn = s.v[k] * sign;
            a.v[k] = u * c.v[k] - v * sn;
            b.v[k] = v * c.v[k] + u * sn;
        }
        if (o.interleaved) {
            nn__quad u = a, v = b;
            a.v[1] = v.v[0]; a.v[2] = u.v[1]; a.v[3] = v.v[1];
            b.v[0] = u.v[2]; b.v[1] = v.v[2]; b.v[2] = u.v[3];
            nn__near4_put(y, 2 * i, rest, a, add);
            if (2 * i + 4 < rest) nn__near4_put(y, 2 * i + 4, rest, b, add);
        } else { nn__near4_put(y, i, half, a, add); nn__near4_put(y + half, i, half, b, add); }
    }
    for (int64_t i = 4 * threadIdx.x; i < o.d - rest; i += 128) nn__near4_put(y + rest, i, o.d - rest, nn__near4(x + rest, i, o.d - rest, 0), add);
}
static int nn__cuda_rope(nn__cuda *d, const nn_call *c)
{
    const nn__rope_params *p = (const nn__rope_params *)c->params;
    const nn_view *x = &c->in[0], *table = &c->in[1];
    int back = c->pass == NN_BACKWARD, i;
    nn__rope o;
    o.d = x->shape[x->ndim - 1]; o.half = table->shape[1] / 2; o.heads = x->shape[x->ndim - 2]; o.time = x->shape[p->time_dim]; o.start = p->start;
    o.interleaved = p->interleaved; o.turned = p->heads > 0 ? p->heads : 0;
    for (o.rows = 1, i = 0; i + 1 < x->ndim; i++) o.rows *= x->shape[i];
    for (o.inner = 1, i = p->time_dim + 1; i < x->ndim - 1; i++) o.inner *= x->shape[i];
    if ((back && !c->din[0].data) || !o.rows || !o.d) return 1;
    NN__LAUNCH(d, nn__k_rope, NN__BLOCKS(o.rows, 4), dim3(32, 4), 0, o, (const float *)(back ? c->dout[0].data : x->data), (const float *)table->data, back ? -1.0f : 1.0f,
               (float *)(back ? c->din[0].data : c->out[0].data), (int)(back && (c->add & 1)));
    return 1;
}
#define NN__CUDA_ATTENTION(X) \
    X(attention, nn__cuda_attention, nn__cuda_attention_back) X(attention_dropout, nn__cuda_attention, nn__cuda_attention_back) X(rope, nn__cuda_rope, nn__cuda_rope)

// =============================================================================================
// >>rnn   RNN, LSTM, GRU; CTC.
// =============================================================================================
// ---- recurrent nets: formulas as at nn.h's. The input's product is done before; a step is one launch, its product and its gates fused ------
// Blocks are tiles of 32 samples x 16 units with all their gates. h is in two buffers, since a step reads all of the one before.
enum { NN__RNN_GX, NN__RNN_W, NN__RNN_B, NN__RNN_H0, NN__RNN_C0, NN__RNN_LENGTHS, NN__RNN_WR, NN__RNN_TANH = 0, NN__RNN_RELU, NN__RNN_LSTM, NN__RNN_GRU };
typedef struct nn__rnn {
    int     kind, reverse, projected, has_lengths;
    int64_t gates, saved, batch, time, hidden, out, width, sb, st;       // as in nn.h: the row of sample b, step t is b sb + t st
    nn__index lengths;
    nn__fault *fault;
    const float *gx, *w, *bias, *c0, *wr;
    int64_t ws[2], wrs[2];           // strides of W (width, out) and W_hr (out, hidden)
    float  *y, *save, *before, *save_c, *c;          // forward: results, what is kept (or NULL), the running c
    const float *dy;                 // backward
    float  *dx, *da, *carry, *dc, *dh0, *dhp, *dh_all, *m_all;       // carry: what of dh does not go through W; dhp: dh of this step; *_all: for dW_hr
    int     add_x, add_h0;
} nn__rnn;
NN__DEV int64_t nn__rnn_length(const nn__rnn &o, int64_t b)
{
    int64_t n = o.has_lengths ? nn__index_at(o.lengths, b) : o.time;
    return n < 0 ? 0 : n < o.time ? n : o.time;
}
NN__DEV int64_t nn__rnn_row(const nn__rnn &o, int64_t b, int64_t length, int64_t step) { return b * o.sb + (o.reverse ? length - 1 - step : step) * o.st; }
// acc[i][g] += sum over k < K of A[sample i][k] W(g * units + unit, k). A's row of sample b is a + row * lda: b, or of step `step`, if it is there.
template <int G> NN__DEV void nn__rnn_product(const nn__rnn &o, float (*tiles)[36], float (&acc)[2][G], const float *a, int64_t lda, int gather, int64_t step,
                                              const float *w, int64_t wn, int64_t wk, int64_t K, int64_t units)
{
    float (*as)[36] = tiles, (*ws)[36] = tiles + 32;
    int64_t b0 = (int64_t)blockIdx.y * 32, j0 = (int64_t)blockIdx.x * 16;
    int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
    for (int64_t k0 = 0; k0 < K; k0 += 32) {
        for (int i = threadIdx.x; i < 32 * 32; i += 256) {
            int64_t b = b0 + i / 32, k = k0 + i % 32, row = b;
            int there = b < o.batch && k < K;
            if (gather && there) { int64_t n = nn__rnn_length(o, b); there = step < n; row = nn__rnn_row(o, b, n, step); }
            as[i / 32][i % 32] = there ? a[row * lda + k] : 0.0f;
        }
        for (int i = threadIdx.x; i < 16 * G * 32; i += 256) {           // neighbours in memory to neighbouring threads
            int r = wk == 1 ? i / 32 : i % (16 * G), e = wk == 1 ? i % 32 : i / (16 * G);
            int64_t j = j0 + r % 16, k = k0 + e;
            ws[r][e] = j < units && k < K ? w[(r / 16 * units + j) * wn + k * wk] : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < 32; k += 4) {
            nn__quad u[2], v[G];
            NN_UNROLL for (int i = 0; i < 2; i++) u[i] = nn__load_quad(&as[2 * ty + i][k]);
            NN_UNROLL for (int g = 0; g < G; g++) v[g] = nn__load_quad(&ws[16 * g + tx][k]);
            NN_UNROLL for (int i = 0; i < 2; i++) NN_UNROLL for (int g = 0; g < G; g++) NN_UNROLL for (int e = 0; e < 4; e++) acc[i][g] += u[i].v[e] * v[g].v[e];
        }
        __syncthreads();
    }
}
// One step: h before it (batch, out) to h after it. With a projection o tanh(c) goes to `m` instead, and nn__k_rnn_project makes h of it.
template <int G> static __global__ void __launch_bounds__(256) nn__k_rnn_step(nn__rnn o, int64_t step, const float *h, float *next, float *m)
{
    NN_SHARED(float, tiles, [32 + 16 * G][36]);
    float acc[2][G] = {{0}};
    int64_t j = (int64_t)blockIdx.x * 16 + (threadIdx.x & 15), H = o.hidden;
    nn__rnn_product<G>(o, tiles, acc, h, o.out, 0, 0, o.w, o.ws[0], o.ws[1], o.out, H);
    NN_UNROLL for (int i = 0; i < 2; i++) {
        int64_t b = (int64_t)blockIdx.y * 32 + 2 * (threadIdx.x >> 4) + i, n, row;
        float a[4] = { 0, 0, 0, 0 }, old, value;
        if (b >= o.batch || j >= H) continue;
        n = nn__rnn_length(o, b);
        if (o.has_lengths && step == 0 && j == 0 && n != nn__index_at(o.lengths, b)) nn__bad_index(o.fault, NN_OP_rnn, nn__index_at(o.lengths, b), o.time + 1);
        row = nn__rnn_row(o, b, n, step);
        old = o.projected ? 0.0f : h[b * o.out + j];
        if (step >= n) { if (o.projected) m[b * H + j] = 0; else next[b * H + j] = old; continue; }
        NN_UNROLL for (int g = 0; g < G; g++) a[g] = acc[i][g] + (o.bias ? o.bias[g * H + j] : 0.0f) + (G == 3 && g == 2 ? 0.0f : o.gx[row * o.width + g * H + j]);
        if (G == 4) {
            float c = o.c[b * H + j];
            a[0] = nn__sigmoid_of(a[0]); a[1] = nn__sigmoid_of(a[1]); a[2] = tanhf(a[2]); a[3] = nn__sigmoid_of(a[3]);
            c = a[1] * c + a[0] * a[2];
            o.c[b * H + j] = c;
            if (o.save) o.save_c[row * H + j] = c;
            value = a[3] * tanhf(c);
        } else if (G == 3) {
            float q = a[2];
            a[0] = nn__sigmoid_of(a[0]); a[1] = nn__sigmoid_of(a[1]); a[2] = tanhf(a[0] * q + o.gx[row * o.width + 2 * H + j]);
            a[3] = q;
            value = a[1] * (old - a[2]) + a[2];
        } else value = a[0] = o.kind == NN__RNN_RELU ? (a[0] < 0 ? 0.0f : a[0]) : tanhf(a[0]);
        for (int64_t g = 0; o.save && g < o.saved; g++) o.save[(row * o.saved + g) * H + j] = g == 0 ? a[0] : g == 1 ? a[1] : g == 2 ? a[2] : a[3];
        if (o.projected) { m[b * H + j] = value; continue; }
        if (o.before) o.before[row * H + j] = old;
        next[b * H + j] = o.y[row * H + j] = value;
    }
}
static __global__ void __launch_bounds__(256) nn__k_rnn_project(nn__rnn o, int64_t step, const float *h, float *next, const float *m)
{
    NN_SHARED(float, tiles, [48][36]);
    float acc[2][1] = {{0}};
    int64_t p = (int64_t)blockIdx.x * 16 + (threadIdx.x & 15);
    nn__rnn_product<1>(o, tiles, acc, m, o.hidden, 0, 0, o.wr, o.wrs[0], o.wrs[1], o.hidden, o.out);
    for (int i = 0; i < 2; i++) {
        int64_t b = (int64_t)blockIdx.y * 32 + 2 * (threadIdx.x >> 4) + i, n, row;
        if (b >= o.batch || p >= o.out) continue;
        n = nn__rnn_length(o, b);
        row = nn__rnn_row(o, b, n, step);
        next[b * o.out + p] = step < n ? acc[i][0] : h[b * o.out + p];
        if (step >= n) continue;
        o.y[row * o.out + p] = acc[i][0];
        if (o.before) o.before[row * o.out + p] = h[b * o.out + p];
    }
}
// Backward of the cell of unit j: d is dh (of o tanh(c), if projected); da, and what of dh and dc goes on to the step before.
NN__DEV void nn__rnn_cell_back(const nn__rnn &o, int64_t b, int64_t j, int64_t n, int64_t step, float d)
{
    int64_t H = o.hidden, row = nn__rnn_row(o, b, n, step);
    const float *s = o.save + row * o.saved * H + j;
    float a[4] = { 0, 0, 0, 0 }, third = 0, left = 0;    // third: the GRU's third gate as x sees it
    if (o.kind == NN__RNN_LSTM) {
        float i = s[0], f = s[H], g = s[2 * H], og = s[3 * H], t = tanhf(o.save_c[row * H + j]), dc = o.dc[b * H + j] + d * og * (1 - t * t);
        float before = step ? o.save_c[nn__rnn_row(o, b, n, step - 1) * H + j] : o.c0 ? o.c0[b * H + j] : 0.0f;
        a[0] = dc * g * i * (1 - i); a[1] = dc * before * f * (1 - f); a[2] = dc * i * (1 - g * g); a[3] = d * t * og * (1 - og);
        o.dc[b * H + j] = dc * f;
        if (o.m_all) o.m_all[row * H + j] = og * t;
    } else if (o.kind == NN__RNN_GRU) {
        float r = s[0], z = s[H], u = s[2 * H], q = s[3 * H];
        third = d * (1 - z) * (1 - u * u);
        a[0] = third * q * r * (1 - r); a[1] = d * (o.before[row * H + j] - u) * z * (1 - z); a[2] = third * r;
        left = d * z;
    } else a[0] = o.kind == NN__RNN_RELU ? (s[0] <= 0 ? 0.0f : d) : d * (1 - s[0] * s[0]);
    if (!o.projected) o.carry[b * H + j] = left;
    NN_UNROLL for (int g = 0; g < 4; g++) if (g < o.gates) {
        int64_t at = row * o.width + g * H + j;
        float v = o.kind == NN__RNN_GRU && g == 2 ? third : a[g];
        o.da[at] = a[g];
        if (o.dx && o.dx != o.da) o.dx[at] = o.add_x ? o.dx[at] + v : v;
    }
}
// dh of step `step` = what was left + da of the step behind it W + dy; then the cell, or with a projection dh alone. step -1: dh0.
static __global__ void __launch_bounds__(256) nn__k_rnn_back(nn__rnn o, int64_t step)
{
    NN_SHARED(float, tiles, [48][36]);
    float acc[2][1] = {{0}};
    int64_t p = (int64_t)blockIdx.x * 16 + (threadIdx.x & 15);
    nn__rnn_product<1>(o, tiles, acc, o.da, o.width, 1, step + 1, o.w, o.ws[1], o.ws[0], o.width, o.out);
    for (int i = 0; i < 2; i++) {
        int64_t b = (int64_t)blockIdx.y * 32 + 2 * (threadIdx.x >> 4) + i, n, at = b * o.out + p;
        float d;
        if (b >= o.batch || p >= o.out) continue;
        n = nn__rnn_length(o, b);
        d = acc[i][0] + o.carry[at];
        if (step < 0) { if (o.dh0) o.dh0[at] = o.add_h0 ? o.dh0[at] + d : d; continue; }
        if (step >= n) { if (o.projected) o.dhp[at] = 0; continue; }
        int64_t row = nn__rnn_row(o, b, n, step);
        d += o.dy[row * o.out + p];
        if (!o.projected) { nn__rnn_cell_back(o, b, p, n, step, d); continue; }
        o.carry[at] = 0;
        o.dhp[at] = o.dh_all[row * o.out + p] = d;
    }
}
static __global__ void __launch_bounds__(256) nn__k_rnn_project_back(nn__rnn o, int64_t step)        // d(o tanh c) = dh W_hr, then the cell
{
    NN_SHARED(float, tiles, [48][36]);
    float acc[2][1] = {{0}};
    int64_t j = (int64_t)blockIdx.x * 16 + (threadIdx.x & 15);
    nn__rnn_product<1>(o, tiles, acc, o.dhp, o.out, 0, 0, o.wr, o.wrs[1], o.wrs[0], o.out, o.hidden);
    for (int i = 0; i < 2; i++) {
        int64_t b = (int64_t)blockIdx.y * 32 + 2 * (threadIdx.x >> 4) + i, n;
        if (b >= o.batch || j >= o.hidden) continue;
        n = nn__rnn_length(o, b);
        if (step < n) nn__rnn_cell_back(o, b, j, n, step, acc[i][0]);
    }
}
static void nn__outer_sum(nn__cuda *d, int64_t rows, const float *a, const float *b, const nn_view *y, int add)      // y (n, k) (+)= sum over rows of a (rows, n)^T b (rows, k)
{
    nn__matrices g = {};
    g.outer.count = g.fold[0] = g.fold[1] = 1;
    g.a = a; g.b = b; g.y = (float *)y->data;
    g.m = y->shape[0]; g.n = y->shape[1]; g.k = rows;
    g.ai = 1; g.ap = g.m; g.bp = g.n; g.bj = 1; g.yi = y->stride[0]; g.yj = y->stride[1];
    g.add = add;
    if (!nn__multiply(d, g, NULL)) nn__cuda_check(d, cudaErrorInvalidValue, "a product that is too large", __LINE__);
}
static nn__rnn nn__rnn_of(const nn_call *c)
{
    const nn__rnn_params *p = (const nn__rnn_params *)c->params;
    const nn_view *x = &c->in[NN__RNN_GX], *w = &c->in[NN__RNN_W], *wr = &c->in[NN__RNN_WR];
    nn__rnn o = {};
    o.kind = p->kind; o.reverse = p->reverse; o.projected = wr->ndim != 0;
    o.gates = p->kind == NN__RNN_LSTM ? 4 : p->kind == NN__RNN_GRU ? 3 : 1;
    o.saved = p->kind <= NN__RNN_RELU ? 1 : 4;
    o.batch = x->shape[p->time_first]; o.time = x->shape[!p->time_first];
    o.sb = p->time_first ? 1 : o.time; o.st = p->time_first ? o.batch : 1;
    o.width = w->shape[0]; o.hidden = o.width / o.gates; o.out = w->shape[1];
    o.has_lengths = c->in[NN__RNN_LENGTHS].ndim != 0; o.lengths = nn__index_of(&c->in[NN__RNN_LENGTHS]);
    o.gx = (const float *)x->data; o.w = (const float *)w->data; o.bias = (const float *)c->in[NN__RNN_B].data; o.c0 = (const float *)c->in[NN__RNN_C0].data; o.wr = (const float *)wr->data;
    o.ws[0] = w->stride[0]; o.ws[1] = w->stride[1]; o.wrs[0] = wr->stride[0]; o.wrs[1] = wr->stride[1];
    o.save = (float *)c->aux[0].data; o.before = o.save ? (float *)c->aux[1].data : NULL; o.save_c = (float *)c->aux[2].data;
    return o;
}
static void nn__rnn_zero(nn__cuda *d, void *p, int64_t n) { if (p && n > 0) nn__fill_zero(d, p, (size_t)n * sizeof(float)); }
static void nn__rnn_start(nn__cuda *d, void *to, const void *from, int64_t n)        // from NULL: zeros
{
    if (!from) nn__rnn_zero(d, to, n);
    else if (to && n > 0) nn__copy_flat(d, to, from, (size_t)n * sizeof(float));
}
static int nn__cuda_rnn(nn__cuda *d, const nn_call *c)
{
    nn__rnn o = nn__rnn_of(c);
    int64_t rows = o.batch * o.time, bytes = o.batch * o.out * (int64_t)sizeof(float), step;
    dim3 grid(NN__BLOCKS(o.hidden, 16), NN__BLOCKS(o.batch, 32)), grid_out(NN__BLOCKS(o.out, 16), grid.y);
    float *buffer[2], *m = NULL, *last = (float *)c->out[1].data;
    const float *h;
    o.fault = nn__cuda_may_fault(d, c);
    o.y = (float *)c->out[0].data; o.c = (float *)c->out[2].data;
    if (grid.y > 65535) return 0;
    if (o.kind == NN__RNN_LSTM) nn__rnn_start(d, o.c, o.c0, o.batch * o.hidden);
    if (o.has_lengths) { nn__rnn_zero(d, o.y, rows * o.out); nn__rnn_zero(d, o.before, rows * o.out); }
    buffer[0] = (float *)nn__cuda_scratch(d, (size_t)bytes);
    buffer[1] = (float *)nn__cuda_scratch(d, (size_t)bytes);
    if (o.projected) m = (float *)nn__cuda_scratch(d, (size_t)(o.batch * o.hidden) * sizeof *m);
    if (!buffer[0] || !buffer[1] || (o.projected && !m)) return 1;
    h = (const float *)c->in[NN__RNN_H0].data;
    if (!h || o.time == 0) { nn__rnn_start(d, o.time ? buffer[1] : last, h, o.batch * o.out); h = buffer[1]; }
    for (step = 0; step < o.time && o.batch && o.hidden && o.out; step++) {
        float *next = step == o.time - 1 ? last : buffer[step & 1];
        if (o.gates == 4)      NN__LAUNCH(d, nn__k_rnn_step<4>, grid, 256, 0, o, step, h, next, m);
        else if (o.gates == 3) NN__LAUNCH(d, nn__k_rnn_step<3>, grid, 256, 0, o, step, h, next, m);
        else                   NN__LAUNCH(d, nn__k_rnn_step<1>, grid, 256, 0, o, step, h, next, m);
        if (o.projected) NN__LAUNCH(d, nn__k_rnn_project, grid_out, 256, 0, o, step, h, next, (const float *)m);
        h = next;
    }
    return 1;
}
static int nn__cuda_rnn_back(nn__cuda *d, const nn_call *c)
{
    nn__rnn o = nn__rnn_of(c);
    nn__norm_dims none;
    int64_t rows = o.batch * o.time, step;
    dim3 grid(NN__BLOCKS(o.out, 16), NN__BLOCKS(o.batch, 32)), grid_hidden(NN__BLOCKS(o.hidden, 16), grid.y);
    float *db = (float *)c->din[NN__RNN_B].data;
    if (grid.y > 65535) return 0;
    o.dy = (const float *)c->dout[0].data;
    o.dx = (float *)c->din[NN__RNN_GX].data; o.add_x = (int)(c->add & 1);
    o.dh0 = (float *)c->din[NN__RNN_H0].data; o.add_h0 = (int)(c->add >> NN__RNN_H0 & 1);
    o.da = o.kind == NN__RNN_GRU || !o.dx || o.add_x ? (float *)nn__cuda_scratch(d, (size_t)(rows * o.width) * sizeof(float)) : o.dx;
    o.carry = (float *)nn__cuda_scratch(d, (size_t)(o.batch * o.out) * sizeof(float));
    o.dc = (float *)nn__cuda_scratch(d, (size_t)(o.batch * o.hidden) * sizeof(float));
    if (o.projected) {
        o.dhp = (float *)nn__cuda_scratch(d, (size_t)(o.batch * o.out) * sizeof(float));
        o.dh_all = (float *)nn__cuda_scratch(d, (size_t)(rows * o.out) * sizeof(float));
        o.m_all = (float *)nn__cuda_scratch(d, (size_t)(rows * o.hidden) * sizeof(float));
    }
    if (d->failed) return 1;
    nn__rnn_start(d, o.carry, c->dout[1].data, o.batch * o.out);
    if (o.kind == NN__RNN_LSTM) nn__rnn_start(d, o.dc, c->dout[2].data, o.batch * o.hidden);
    if (o.has_lengths) {                                 // steps that are not there
        nn__rnn_zero(d, o.da, rows * o.width);
        if (o.dx != o.da && !o.add_x) nn__rnn_zero(d, o.dx, rows * o.width);
        nn__rnn_zero(d, o.dh_all, rows * o.out);
        nn__rnn_zero(d, o.m_all, rows * o.hidden);
    }
    for (step = o.time - 1; step >= -1 && o.batch && o.out; step--) {
        if (step < 0 && !o.dh0) break;
        NN__LAUNCH(d, nn__k_rnn_back, grid, 256, 0, o, step);
        if (o.projected && step >= 0 && o.hidden) NN__LAUNCH(d, nn__k_rnn_project_back, grid_hidden, 256, 0, o, step);
    }
    if (c->din[NN__RNN_C0].data && o.batch * o.hidden > 0) {
        nn__lines l = nn__lines_of(1, o.batch * o.hidden, 1);
        NN__LAUNCH_LINES(d, nn__k_give, l, l, (const float *)o.dc, (float *)c->din[NN__RNN_C0].data, (int)(c->add >> NN__RNN_C0 & 1));
    }
    if (c->din[NN__RNN_W].data)  nn__outer_sum(d, rows, o.da, o.before, &c->din[NN__RNN_W], (int)(c->add >> NN__RNN_W & 1));
    if (c->din[NN__RNN_WR].data) nn__outer_sum(d, rows, o.dh_all, o.m_all, &c->din[NN__RNN_WR], (int)(c->add >> NN__RNN_WR & 1));
    if (db && o.width) {
        memset(&none, 0, sizeof none);
        none.b = rows; none.c = o.width; none.s = 1;
        nn__channel_sums(d, &none, NULL, o.da, NULL, NULL, NULL, db, 0, (int)(c->add >> NN__RNN_B & 1), NULL, NULL, 0);
    }
    return 1;
}

// ---- ctc_loss: formulas as at nn.h's. A block takes a sample through time; states are its threads' ------------------------------------
enum { NN__CTC_X, NN__CTC_TARGET, NN__CTC_STEPS, NN__CTC_SIZES };
typedef struct nn__ctc {
    const float *x;
    nn__index target, steps, sizes;
    int64_t time, batch, classes, blank, row, most, all;     // row: of alpha; most: targets of a sample; all: of all of them
    int flat, reduction, zero_infinity;                      // flat: targets one behind the other
} nn__ctc;
typedef struct nn__ctc_sample { int64_t b, steps, size, first, states; int bad; } nn__ctc_sample;
NN__DEV int64_t nn__ctc_class(const nn__ctc &o, const nn__ctc_sample &s, int64_t state) { return state & 1 ? nn__index_at(o.target, s.first + state / 2) : o.blank; }
NN__DEV nn__ctc_sample nn__ctc_open(const nn__ctc &o, int64_t b, float *warps)
{
    nn__ctc_sample s;
    float wrong = 0;
    s.b = b;
    s.steps = nn__index_at(o.steps, b); s.size = nn__index_at(o.sizes, b);
    s.first = o.flat ? 0 : b * o.most;
    for (int64_t i = 0; o.flat && i < b; i++) s.first += nn__index_at(o.sizes, i);
    s.bad = s.steps < 0 || s.steps > o.time || s.size < 0 || s.first < 0 || s.first + s.size > o.all || s.size > o.most;
    for (int64_t i = threadIdx.x; !s.bad && i < s.size; i += blockDim.x) {
        int64_t k = nn__index_at(o.target, s.first + i);
        if (k < 0 || k >= o.classes || k == o.blank) wrong = 1;
    }
    if (nn__block_sum(wrong, warps) > 0) s.bad = 1;
    if (s.bad) s.steps = s.size = 0;
    s.states = 2 * s.size + 1;
    return s;
}
NN__DEV float nn__log_sum3(float a, float b, float c)
{
    float m = fmaxf(fmaxf(a, b), c);
    return m == -INFINITY ? m : m + logf(expf(a - m) + expf(b - m) + expf(c - m));
}
NN__DEV float nn__ctc_over(const nn__ctc &o, const nn__ctc_sample &s, int64_t state)        // may paths go from state - 2 to it: 0, or -infinity
{
    return state >= 3 && (state & 1) && state < s.states && nn__ctc_class(o, s, state) != nn__ctc_class(o, s, state - 2) ? 0.0f : -INFINITY;
}
static __global__ void __launch_bounds__(128) nn__k_ctc(nn__ctc o, float *alpha, int kept, float *l, float *losses, nn__fault *bad)      // kept: a row of alpha for each step, else two
{
    NN_SHARED(float, warps, [32]);
    int64_t b = blockIdx.x, rows = kept ? o.time : 2;
    nn__ctc_sample s = nn__ctc_open(o, b, warps);
    float v;
    alpha += b * rows * o.row;
    for (int64_t t = 0; t < s.steps; t++) {
        float *to = alpha + (kept ? t : t & 1) * o.row;
        const float *from = alpha + (kept ? t - 1 : (t - 1) & 1) * o.row, *x = o.x + (t * o.batch + b) * o.classes;
        for (int64_t i = threadIdx.x; i < o.row; i += blockDim.x) {
            float a = -INFINITY;
            if (i < s.states && t == 0) a = i < 2 ? x[nn__ctc_class(o, s, i)] : -INFINITY;
            else if (i < s.states) {
                float over = nn__ctc_over(o, s, i);
                a = x[nn__ctc_class(o, s, i)] + nn__log_sum3(from[i], i > 0 ? from[i - 1] : -INFINITY, over == 0 ? from[i - 2] : -INFINITY);
            }
            to[i] = a;
        }
        __syncthreads();
    }
    if (threadIdx.x) return;
    if (s.bad) nn__bad_index(bad, NN_OP_ctc_loss, nn__index_at(o.steps, b), o.time + 1);
    if (s.steps == 0) v = s.size ? INFINITY : 0.0f;
    else {
        const float *last = alpha + (kept ? s.steps - 1 : (s.steps - 1) & 1) * o.row;
        v = -nn__log_sum3(last[s.states - 1], s.states > 1 ? last[s.states - 2] : -INFINITY, -INFINITY);
    }
    if (l) l[b] = v;
    if (o.zero_infinity && v == INFINITY) v = 0;
    losses[b] = o.reduction == NN_MEAN ? v / (float)(s.size > 1 ? s.size : 1) : v;
}
// e(t, s) = e^(alpha + beta + l), in rows like alpha's. z: two rows of x + beta for each sample.
static __global__ void __launch_bounds__(128) nn__k_ctc_beta(nn__ctc o, const float *alpha, const float *l, float *z, float *e)
{
    NN_SHARED(float, warps, [32]);
    int64_t b = blockIdx.x;
    nn__ctc_sample s = nn__ctc_open(o, b, warps);
    alpha += b * o.time * o.row; e += b * o.time * o.row; z += b * 2 * o.row;
    for (int64_t t = s.steps - 1; t >= 0; t--) {
        const float *after = z + ((t + 1) & 1) * o.row, *x = o.x + (t * o.batch + b) * o.classes;
        for (int64_t i = threadIdx.x; i < s.states; i += blockDim.x) {
            float beta = i >= s.states - 2 ? 0.0f : -INFINITY;
            if (t < s.steps - 1) beta = nn__log_sum3(after[i], i + 1 < s.states ? after[i + 1] : -INFINITY, nn__ctc_over(o, s, i + 2) == 0 ? after[i + 2] : -INFINITY);
            e[t * o.row + i] = expf(alpha[t * o.row + i] + beta + l[b]);
            z[(t & 1) * o.row + i] = x[nn__ctc_class(o, s, i)] + beta;
        }
        __syncthreads();
    }
}
// One step of one sample: a class takes from all its states, the first of which does it; the blank's are added by the block.
static __global__ void __launch_bounds__(128) nn__k_ctc_give(nn__ctc o, const float *l, const float *e, const float *dy, float *dx, int add)
{
    NN_SHARED(float, warps, [32]);
    int64_t b = blockIdx.x % o.batch, t = blockIdx.x / o.batch;
    nn__ctc_sample s = nn__ctc_open(o, b, warps);
    float g = dy[o.reduction == NN_NONE ? b : 0], blank = 0;
    int there = t < s.steps && !(o.zero_infinity && l[b] == INFINITY);
    if (o.reduction == NN_MEAN) g /= (float)(s.size > 1 ? s.size : 1) * (float)o.batch;
    dx += (t * o.batch + b) * o.classes;
    e += (b * o.time + t) * o.row;
    for (int64_t i = threadIdx.x; !add && i < o.classes; i += blockDim.x) dx[i] = 0;
    for (int64_t i = 2 * (int64_t)threadIdx.x; there && i < s.states; i += 2 * blockDim.x) blank += e[i];
    blank = nn__block_sum(blank, warps);                 // and barriers: dx is 0
    if (!there) return;
    if (threadIdx.x == 0) dx[o.blank] -= g * blank;
    for (int64_t i = threadIdx.x; i < s.size; i += blockDim.x) {
        int64_t k = nn__index_at(o.target, s.first + i), j;
        float sum = 0;
        for (j = 0; j < i && nn__index_at(o.target, s.first + j) != k; j++) { }
        if (j < i) continue;
        for (; j < s.size; j++) if (nn__index_at(o.target, s.first + j) == k) sum += e[2 * j + 1];
        dx[k] -= g * sum;
    }
}
static nn__ctc nn__ctc_of(const nn_call *c)
{
    const nn__ctc_params *p = (const nn__ctc_params *)c->params;
    const nn_view *x = &c->in[NN__CTC_X], *v = &c->in[NN__CTC_TARGET];
    nn__ctc o;
    o.x = (const float *)x->data;
    o.target = nn__index_of(v); o.steps = nn__index_of(&c->in[NN__CTC_STEPS]); o.sizes = nn__index_of(&c->in[NN__CTC_SIZES]);
    o.time = x->shape[0]; o.batch = x->shape[1]; o.classes = x->shape[2]; o.blank = p->blank;
    o.most = v->shape[v->ndim - 1]; o.all = nn_view_count(v); o.flat = v->ndim == 1;
    o.row = (2 * o.most + 1 + 15) / 16 * 16 + 32;
    o.reduction = p->reduction; o.zero_infinity = p->zero_infinity;
    return o;
}
static int nn__cuda_ctc(nn__cuda *d, const nn_call *c)
{
    nn__ctc o = nn__ctc_of(c);
    int kept = c->aux[0].data != NULL, none = o.reduction == NN_NONE;
    float *alpha = (float *)(kept ? c->aux[0].data : nn__cuda_scratch(d, (size_t)(o.batch * 2 * o.row) * sizeof *alpha));
    float *losses = (float *)(none ? c->out[0].data : nn__cuda_scratch(d, (size_t)o.batch * sizeof *losses));
    if ((!alpha || !losses) && o.batch) return 1;
    if (o.batch) NN__LAUNCH(d, nn__k_ctc, (unsigned)o.batch, 128, 0, o, alpha, kept, (float *)c->aux[1].data, losses, nn__cuda_may_fault(d, c));
    if (!none) nn__loss_total(d, o.batch, losses, 0, o.reduction == NN_MEAN ? (float)o.batch : 1.0f, c->out[0].data, NULL);
    return 1;
}
static int nn__cuda_ctc_back(nn__cuda *d, const nn_call *c)
{
    nn__ctc o = nn__ctc_of(c);
    float *dx = (float *)c->din[NN__CTC_X].data, *z, *e;
    const float *l = (const float *)c->aux[1].data;
    if (!dx || !o.batch || !o.time || !o.classes) return 1;
    z = (float *)nn__cuda_scratch(d, (size_t)(o.batch * 2 * o.row) * sizeof *z);
    e = (float *)nn__cuda_scratch(d, (size_t)(o.batch * o.time * o.row) * sizeof *e);
    if (!z || !e) return 1;
    NN__LAUNCH(d, nn__k_ctc_beta, (unsigned)o.batch, 128, 0, o, (const float *)c->aux[0].data, l, z, e);
    NN__LAUNCH(d, nn__k_ctc_give, nn__grid(o.batch * o.time), 128, 0, o, l, (const float *)e, (const float *)c->dout[0].data, dx, (int)(c->add & 1));
    return 1;
}
#define NN__CUDA_RNN(X) X(rnn, nn__cuda_rnn, nn__cuda_rnn_back) X(ctc_loss, nn__cuda_ctc, nn__cuda_ctc_back)

// =============================================================================================
// >>run   From a call to its kernels: every section lists X(op, forward, backward); NULL: there is none.
// A handler launches the work and returns 1, or returns 0 without a trace: then nn.h runs the call on the CPU and counts it.
// =============================================================================================
#define NN__CUDA_OPS(X) NN__CUDA_MAPS(X) NN__CUDA_REDUCE(X) NN__CUDA_SHAPE(X) NN__CUDA_OPTIM(X) NN__CUDA_PRODUCTS(X) NN__CUDA_CONV(X) NN__CUDA_NORM(X) \
                        NN__CUDA_LOSS(X) NN__CUDA_EMBEDDING(X) NN__CUDA_ATTENTION(X) NN__CUDA_RNN(X)
typedef int (*nn__cuda_handler)(nn__cuda *d, const nn_call *c);
static nn__cuda_handler nn__cuda_table[NN_OP_COUNT][2];
#define NN__CUDA_ENTRY(name, forward, backward) nn__cuda_table[NN_OP_##name][0] = forward; nn__cuda_table[NN_OP_##name][1] = backward;
static int nn__cuda_forward(nn__cuda *d, int op, const nn_call *c) { return nn__cuda_table[op][0] && nn__cuda_table[op][0](d, c); }
static void nn__cuda_fill_table(void) { NN__CUDA_OPS(NN__CUDA_ENTRY) }

static int nn__cuda_double(const nn_call *c)             // 64-bit floats are moved, not computed with
{
    int i;
    if (c->op->id == NN_OP_cast || c->op->id == NN_OP_copy) return 0;
    for (i = 0; i < c->nin; i++)  if (c->in[i].data && c->in[i].dtype == NN_F64) return 1;
    for (i = 0; i < c->nout; i++) if (c->out[i].dtype == NN_F64) return 1;
    return c->pass == NN_BACKWARD && c->nin && c->din[0].data && c->din[0].dtype == NN_F64;
}
static int nn__cuda_run_now(nn__cuda *d, const nn_call *c, nn__cuda_handler handler)
{
    int done;
    if (d->dead) { nn_fail(c->nn, "%s", d->error); return 1; }
    if (d->batch.parts.count && d->batch.op != c->op) nn__cuda_flush_now(d);
    cudaSetDevice(d->device);
    nn__cuda_keep_scratch(d, d->scratches > 0);
    d->call = c;
    d->nn = c->nn;
    d->failed = 0;
    d->scratch_used = d->scratch_wanted = 0;
    if (d->clock[1] && !d->making) NN__CU(d, cudaEventRecord(d->clock[0], d->stream));
    done = handler(d, c);
    if (d->clock[1] && !d->making && !d->failed) {
        float ms = 0;
        if (d->batch.parts.count) nn__cuda_flush_now(d);
        if (NN__CU(d, cudaEventRecord(d->clock[1], d->stream)) && NN__CU(d, cudaEventSynchronize(d->clock[1])) && NN__CU(d, cudaEventElapsedTime(&ms, d->clock[0], d->clock[1])))
            d->ms[c->op->id][c->pass] += (double)ms;
    }
    d->call = NULL;
    if (d->making && !done) d->broken = done = 1;
    if (d->failed) return 1;                             // nn_fail was called
    (done ? d->calls : d->refused)[c->op->id][c->pass]++;
    return done;
}

// ---- chains: what is computed between two times that the host writes or looks. One of NN_EVAL that comes again, for the next token or batch, is
// written down as a graph. From then on its calls only wait; when the host wants something they run as one. Calls that differ a little, in their
// place in a cache and its length, have their kernels' arguments replaced first.
static nn__cuda_handler nn__handler_of(const nn_call *c) { return nn__cuda_double(c) ? NULL : nn__cuda_table[c->op->id][c->pass == NN_BACKWARD]; }
static int nn__chain_alike(const nn__link *a, const nn__link *l)     // 0: another call; 1: alike; 2: the same
{
    const nn_call *c = &a->c, *b = &l->c;
    int i, k, same;
    if (c->op != b->op || c->nn != b->nn || c->add != b->add || c->nin != b->nin || c->nout != b->nout || c->naux != b->naux || !c->params != !b->params) return 0;
    same = !b->params || !memcmp(a->params, l->params, b->op->params_bytes);
    for (k = 0; k < 3; k++) {
        const nn_view *u = k == 0 ? c->in : k == 1 ? c->out : c->aux, *v = k == 0 ? b->in : k == 1 ? b->out : b->aux;
        for (i = 0; i < (k == 0 ? b->nin : k == 1 ? b->nout : b->naux); i++) {
            size_t bytes = (size_t)v[i].ndim * sizeof v[i].shape[0];
            if (!u[i].data != !v[i].data || u[i].ndim != v[i].ndim || u[i].dtype != v[i].dtype || (k && memcmp(u[i].shape, v[i].shape, bytes))) return 0;
            same &= u[i].data == v[i].data && !memcmp(u[i].shape, v[i].shape, bytes) && !memcmp(u[i].stride, v[i].stride, bytes);
        }
    }
    return 1 + same;
}
static nn__chain *nn__chain_guess(nn__cuda *d)           // an earlier one that began like this one
{
    const nn__chain *n = &d->now;
    int i, k;
    for (i = 0; i < NN__CHAINS; i++) {
        for (k = 0; k < n->count && k < d->chain[i].count && nn__chain_alike(&d->chain[i].link[k], &n->link[k]); k++) { }
        if (k && k == n->count) return &d->chain[i];
    }
    return NULL;
}
static void nn__link_run(nn__cuda *d, nn__link *l)
{
    if (l->c.params) l->c.params = l->params;
    if (!nn__cuda_run_now(d, &l->c, nn__handler_of(&l->c))) nn_fail(l->c.nn, "%s: %s cannot run with these shapes", d->name, l->c.op->name);
}
static void nn__chain_run(nn__cuda *d, int count)        // what waits runs one by one
{
    int i;
    d->waits = 0;
    for (i = 0; i < count; i++) nn__link_run(d, &d->now.link[i]);
}
static void nn__chain_record(nn__cuda *d, nn__chain *a)  // it has run; now as a graph
{
    int i;
    if (!nn__cuda_record(d)) return;
    for (i = 0; i < a->count; i++) {
        d->link = &a->link[i];
        d->link->nodes = 0;
        nn__link_run(d, d->link);
    }
    d->link = NULL;
    a->list = (nn__list *)nn__cuda_recorded(d);
    if (!a->list) d->patience--;
}
static int nn__chain_repeat(nn__cuda *d, nn__chain *a, int count)    // 0: it does not fit; nothing ran
{
    nn__link *l = a->link, *now = d->now.link;
    int i, differ = 0;
    if (count != a->count || a->list->scratch != nn__cuda_scratch_at(d)) return 0;
    for (i = 0; i < count; i++) differ += nn__chain_alike(&l[i], &now[i]) != 2;
    if (2 * differ > count) return 0;
    d->making = a->list; d->patched = a->list->exec; d->broken = 0;      // nothing is allocated
    for (i = 0; i < count && differ && !d->broken; i++) if (nn__chain_alike(&l[i], &now[i]) != 2) {
        d->link = &l[i];
        l[i].c = now[i].c;
        memcpy(l[i].params, now[i].params, sizeof l[i].params);
        l[i].next = 0;
        if (l[i].nodes) nn__link_run(d, &l[i]);
        if (!l[i].nodes || l[i].next != l[i].nodes) d->broken = 1;
    }
    d->making = NULL; d->link = NULL; d->patched = NULL;
    return !d->broken && nn__cuda_repeat(d, a->list, NULL, 0);
}
static void nn__chain_end(nn__cuda *d)
{
    nn__chain *n = &d->now, *a = d->guess, was;
    int count = n->count;
    n->count = 0;                                        // what follows asks for the device
    d->guess = NULL;
    if (d->waits) {
        d->waits = 0;
        if (nn__chain_repeat(d, a, count)) { d->patience = NN__CHAIN_PATIENCE; return; }
        d->patience--;
        nn__chain_run(d, count);
    }
    if (count < NN__CHAIN_LEAST || d->patience <= 0 || d->dead) return;
    if (!a || a->count != count) { a = &d->chain[d->next_chain++ % NN__CHAINS]; a->count = 0; }
    nn__cuda_forget(d, a->list);
    was = *a; *a = *n; *n = was;                         // that memory serves the next
    n->count = 0; n->list = NULL;
    a->count = count;
    if (was.count == count) nn__chain_record(d, a);
}
static int nn__chain_takes(nn__cuda *d, const nn_call *c)            // 1: the call waits; 0: it runs now
{
    nn__chain *n = &d->now;
    nn__link *l;
    int fits = c->mode == NN_EVAL && c->pass == NN_FORWARD && !(c->op->flags & (NN_OP_RANDOM | NN_OP_MUTATES)) && c->op->params_bytes <= NN_MAX_PARAMS && !d->clock[1] && !d->sync && !d->eager;
    if (d->making) return 0;
    if (fits && n->count < NN__CHAIN_MOST && n->count == n->room && (l = (nn__link *)realloc(n->link, 2 * (size_t)(n->room + 32) * sizeof *l))) {
        n->link = l;
        n->room = 2 * (n->room + 32);
    }
    if (!fits || n->count == n->room || !nn__handler_of(c)) { if (n->count) nn__chain_end(d); return 0; }
    l = &n->link[n->count++];
    l->c = *c;
    if (c->params) memcpy(l->params, c->params, c->op->params_bytes);
    if (n->count > 1 && (!d->guess || (n->count <= d->guess->count && nn__chain_alike(&d->guess->link[n->count - 1], l)))) return d->waits;
    d->guess = nn__chain_guess(d);
    if (n->count == 1) {
        d->waits = d->guess && d->guess->list;
        if (d->waits && d->batch.parts.count) nn__cuda_flush_now(d);
    }
    else if (d->waits && !(d->guess && d->guess->list)) nn__chain_run(d, n->count - 1);
    return d->waits;
}
static int nn__cuda_run(void *self, const nn_call *c)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__cuda_handler handler = nn__handler_of(c);
    if (d->dead) { nn_fail(c->nn, "%s", d->error); return 1; }
    if (d->making && (d->broken || !handler)) { d->broken = 1; return 1; }
    if (nn__chain_takes(d, c)) return 1;
    if (handler) return nn__cuda_run_now(d, c, handler);
    d->refused[c->op->id][c->pass]++;
    return 0;
}
extern "C" const nn_backend *nn_cuda_with(int device, const nn_cuda_desc *desc)
{
    int known = device >= 0 && device < NN__CUDA_DEVICES, precision = desc ? (int)desc->precision : 0;
    nn__cuda *d = &nn__cuda_states[known ? device : NN__CUDA_DEVICES - 1][precision & 3];
    d->own_products = desc && desc->own_products;
    d->eager = desc && desc->eager;
    if (d->backend.self) return &d->backend;
    nn__cuda_fill_table();
    d->device = known ? device : 0x7fffffff;
    d->precision = precision & 3;
    snprintf(d->name, sizeof d->name, "cuda:%d", device);
    d->backend.version = NN_BACKEND_VERSION;
    d->backend.name = d->name;
    d->backend.open = nn__cuda_open; d->backend.close = nn__cuda_close; d->backend.alloc = nn__cuda_alloc; d->backend.free = nn__cuda_free;
    d->backend.upload = nn__cuda_upload; d->backend.download = nn__cuda_download; d->backend.copy = nn__cuda_copy;
    d->backend.run = nn__cuda_run; d->backend.sync = nn__cuda_sync;
    d->backend.record = nn__cuda_record; d->backend.recorded = nn__cuda_recorded; d->backend.repeat = nn__cuda_repeat; d->backend.forget = nn__cuda_forget;
    d->backend.send = nn__cuda_send; d->backend.arrive = nn__cuda_arrive;
    d->backend.self = d;
    return &d->backend;
}
extern "C" const nn_backend *nn_cuda(int device) { return nn_cuda_with(device, NULL); }
extern "C" const nn_backend *nn_cuda_default(void)
{
    static int said;
    if (nn_cuda_available()) return nn_cuda(0);
    if (!said++) fprintf(stderr, "nn_cuda.h: %s; running on the CPU\n", nn__cuda_reason);
    return NULL;
}

extern "C" void nn_cuda_report(const nn_backend *backend)
{
    const nn__cuda *d = backend ? (const nn__cuda *)backend->self : NULL;
    int i, k;
    if (!d || backend->run != nn__cuda_run) return;
    printf("%s: sm_%d, %d multiprocessors; %lld launches, %lld repeated steps; %.1f MB now, %.1f MB at most; %.1f MB up, %.1f MB down\n", d->name, d->arch, d->multiprocessors,
           (long long)d->launches, (long long)d->repeats, (double)d->bytes * 1e-6, (double)d->peak * 1e-6, (double)d->uploads * 1e-6, (double)d->downloads * 1e-6);
    for (i = 0; i < NN_OP_COUNT; i++) for (k = 0; k < 2; k++) {
        if (!d->calls[i][k] && !d->refused[i][k]) continue;
        printf("  %-22s %-8s %8lld calls", nn__cuda_op_name(i), k ? "backward" : "forward", (long long)(d->calls[i][k] + d->refused[i][k]));
        if (d->clock[1]) printf(" %11.3f ms", d->ms[i][k]);
        if (d->refused[i][k]) printf(", %lld of them on the CPU", (long long)d->refused[i][k]);
        printf("\n");
    }
}
#endif // NN_CUDA_IMPLEMENTED
#endif // NN_CUDA_IMPLEMENTATION
