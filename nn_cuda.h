/* nn_cuda.h - nn.h on NVIDIA GPUs - public domain or MIT-0 (see the end of nn.h)

   Make one file, nn_cuda.cu, of two lines, and compile it with nvcc:

       #define NN_CUDA_IMPLEMENTATION
       #include "nn_cuda.h"

       nvcc -O3 -arch=native -c nn_cuda.cu
       cc -O2 program.c nn_cuda.o -lcudart_static -ldl -lrt -lpthread -lm

   The program stays C. It includes nn_cuda.h (declarations only) beside nn.h and asks for a device:

       nn_context *nn = nn_new(&(nn_desc){ .backend = nn_cuda_available() ? nn_cuda(0) : NULL });

   Nothing else changes: parameters, batches, gradients and the optimizer's states live on the device; only reading a number waits for it.

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
    NN_CUDA_FP16                     // tensor cores, factors rounded to 10 bits, range up to 65504
} nn_cuda_precision;
typedef struct nn_cuda_desc {
    nn_cuda_precision precision;     // default NN_CUDA_FP32
} nn_cuda_desc;
const nn_backend *nn_cuda(int device);                                       // for nn_desc.backend; never NULL: without that device nn_new fails
const nn_backend *nn_cuda_with(int device, const nn_cuda_desc *desc);
int         nn_cuda_available(void);                                         // number of usable devices; 0: no driver or no GPU
const char *nn_cuda_why(void);                                               // the last failure outside of a call, or why there is no device; "" if none
void        nn_cuda_report(const nn_backend *backend);                       // memory, launches, calls by op and fallbacks, to stdout
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
#  include <cuda_runtime.h>
#endif
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// =============================================================================================
// >>device   A device: its stream, its memory, its first error. Everything is in the order of one stream, so memory that one call gives
// back can serve the next at once. A state is opened by the first context and closed by the last, which leaves nothing behind.
// =============================================================================================
enum { NN__CUDA_DEVICES = 16, NN__CUDA_PRECISIONS = 4, NN__CUDA_BLOCKS = 64, NN__CUDA_SCRATCHES = 16, NN__CUDA_STAGES = 2 };
#define NN__CUDA_STAGE_BYTES ((size_t)1 << 20)           // of pinned memory, twice
typedef struct nn__cuda_block { void *at; size_t bytes; int used; } nn__cuda_block;
typedef struct nn__fault { int op; int64_t index, size; } nn__fault;         // the first bad index that a kernel met; op 0: none
// Parameter updates that wait for each other (>>optim).
enum { NN__BATCH = 48 };
typedef struct nn__rates { float lr, weight_decay, shrink, decay1, rest1, decay2, rest2, eps, correct, lr_grad, clip_value; int decays, clips, momentum, nesterov, first, centered, amsgrad, far1; } nn__rates;
typedef struct nn__part { float *p; const float *g; float *s[3]; int64_t n; unsigned block; int fours; } nn__part;
typedef struct nn__parts { int count; nn__part part[NN__BATCH]; } nn__parts;
typedef struct nn__batch { const nn_op *op; nn_context *nn; const float *scale; unsigned blocks; nn__rates rates; nn__parts parts; } nn__batch;
typedef struct nn__cuda {
    nn_backend     backend;
    char           name[24], error[512];
    int            device, precision, users, failed;     // failed: this call; dead: the device's context is lost
    int            dead, arch, multiprocessors, sync;    // arch: 80 for sm_80. sync: NN_CUDA_SYNC=1, wait after every launch to find the guilty one
    size_t         shared_most;                          // bytes of shared memory that a block may have, if asked for
    cudaStream_t   stream;
    const nn_call *call;                                 // what runs now, for messages
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
    int64_t        launches, bytes, peak, uploads, downloads;
    int64_t        calls[NN_OP_COUNT][2], refused[NN_OP_COUNT][2];
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
    if (!d->error[0]) snprintf(d->error, sizeof d->error, "%s: %s%s%s: %s (nn_cuda.h:%d)", d->name, call, call[0] ? ": " : "", what, cudaGetErrorString(e), line);
    snprintf(nn__cuda_reason, sizeof nn__cuda_reason, "%s", d->error);
    if (e != cudaErrorMemoryAllocation && e != cudaErrorInvalidConfiguration && e != cudaErrorInvalidValue) d->dead = 1;
    if (d->call) nn_fail(d->call->nn, "%s", d->error);
    return 0;
}
#define NN__CU(d, call) nn__cuda_check(d, call, #call, __LINE__)

static void nn__cuda_flush_now(nn__cuda *d);             // >>optim
static int nn__cuda_ready(nn__cuda *d)                   // what waited comes first; 0: the device is lost
{
    cudaSetDevice(d->device);
    if (d->batch.parts.count && !d->dead) nn__cuda_flush_now(d);
    return !d->dead;
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
    cudaError_t e = cudaMalloc(&p, bytes);
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
    int i;
    (void)bytes;
    if (d->batch.parts.count) nn__cuda_ready(d);
    for (i = 0; memory && i < d->blocks; i++) if (d->block[i].at == memory) d->block[i].used = 0;
}

// Memory of this call alone, 256-byte aligned. NULL after an error: the handler then returns 1. What a call needs more than before is added
// as a block of its own; the next call finds one block for all.
static void *nn__cuda_scratch(nn__cuda *d, size_t bytes)
{
    nn__cuda_block *b = d->scratches ? &d->scratch[d->scratches - 1] : NULL;
    void *p;
    bytes = (bytes + 255) & ~(size_t)255;
    if (!bytes) bytes = 256;
    d->scratch_wanted += bytes;
    if (!b || d->scratch_used + bytes > b->bytes) {
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
    d->scratch_used += bytes;
    return p;
}
static void nn__cuda_keep_scratch(nn__cuda *d, int kept) // the last `kept` blocks
{
    int i, drop = d->scratches - kept;
    if (drop <= 0) return;
    cudaStreamSynchronize(d->stream);
    for (i = 0; i < drop; i++) { cudaFree(d->scratch[i].at); d->bytes -= (int64_t)d->scratch[i].bytes; }
    for (i = 0; i < kept; i++) d->scratch[i] = d->scratch[drop + i];
    d->scratches = kept;
}

// ---- copies ----------------------------------------------------------------------------------------------------------
// Through pinned memory, so that `from` is free at once and the copy runs beside the kernels.
static int nn__cuda_upload(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    size_t at, n;
    if (!nn__cuda_ready(d)) return 0;
    d->uploads += (int64_t)bytes;
    for (at = 0; at < bytes; at += n) {
        int s = d->stage_next;
        n = bytes - at < NN__CUDA_STAGE_BYTES ? bytes - at : NN__CUDA_STAGE_BYTES;
        if (!NN__CU(d, cudaEventSynchronize(d->stage_free[s]))) return 0;
        memcpy(d->stage[s], (const char *)from + at, n);
        if (!NN__CU(d, cudaMemcpyAsync((char *)to + at, d->stage[s], n, cudaMemcpyHostToDevice, d->stream))) return 0;
        if (!NN__CU(d, cudaEventRecord(d->stage_free[s], d->stream))) return 0;
        d->stage_next = (s + 1) % NN__CUDA_STAGES;
    }
    return 1;
}
// What a kernel that reads indices gets. Waiting for the device looks whether one was bad.
static nn__fault *nn__cuda_may_fault(nn__cuda *d, const nn_call *c)
{
    d->fault_nn = c->nn;
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
static int nn__cuda_sync(void *self)
{
    nn__cuda *d = (nn__cuda *)self;
    return nn__cuda_ready(d) && nn__cuda_wait(d);
}

// ---- opening and closing -------------------------------------------------------------------------------------------------
extern "C" int nn_cuda_available(void)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n > 0) return n;
    (void)cudaGetLastError();
    snprintf(nn__cuda_reason, sizeof nn__cuda_reason, "no CUDA device: %s", e == cudaSuccess ? "the driver knows none" : cudaGetErrorString(e));
    return 0;
}
extern "C" const char *nn_cuda_why(void) { return nn__cuda_reason; }

static void nn__cuda_close_all(nn__cuda *d)
{
    int i;
    d->batch.parts.count = 0;
    d->batch.blocks = 0;
    if (d->stream) cudaStreamSynchronize(d->stream);
    nn__cuda_keep_scratch(d, 0);
    for (i = 0; i < d->blocks; i++) d->block[i].used = 0;
    nn__cuda_drop_blocks(d);
    for (i = 0; i < NN__CUDA_STAGES; i++) {
        if (d->stage[i]) cudaFreeHost(d->stage[i]);
        if (d->stage_free[i]) cudaEventDestroy(d->stage_free[i]);
        d->stage[i] = NULL;
        d->stage_free[i] = NULL;
    }
    if (d->fault) cudaFree(d->fault);
    if (d->seen) cudaFreeHost(d->seen);
    d->fault = d->seen = NULL;
    d->fault_nn = NULL;
    if (d->stream) cudaStreamDestroy(d->stream);
    d->stream = NULL;
    (void)cudaGetLastError();
}
static int nn__cuda_start(nn__cuda *d)
{
    cudaDeviceProp p;
    const char *sync = getenv("NN_CUDA_SYNC");
    int i;
    if (!NN__CU(d, cudaSetDevice(d->device)) || !NN__CU(d, cudaGetDeviceProperties(&p, d->device))) return 0;
    d->arch = 10 * p.major + p.minor;
    d->multiprocessors = p.multiProcessorCount;
    d->shared_most = p.sharedMemPerBlockOptin;
    d->sync = sync && sync[0] == '1';
    if (!NN__CU(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking))) return 0;
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
    (void)nn;
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
#define NN__UNROLL
#else
#define NN__UNROLL _Pragma("unroll")
#endif
#define NN__DEV  static __device__ __forceinline__
#ifndef NN_CUDA_EMU
#define NN_SHARED(T, name, dims)  __shared__ T name dims
#define NN_SHARED_DYN(T, name)    extern __shared__ __align__(16) unsigned char nn__shared_bytes[]; T *name = (T *)nn__shared_bytes
#define NN__START(k, grid, block, bytes, stream, ...) (k)<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__)
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
#define NN__LDMATRIX_(r, row, count, turned) do { \
    unsigned at_ = (unsigned)__cvta_generic_to_shared(row), *r_ = (unsigned *)(r); \
    if ((count) == 4)      asm volatile("ldmatrix.sync.aligned.m8n8.x4" turned ".shared.b16 {%0,%1,%2,%3},[%4];" : "=r"(r_[0]), "=r"(r_[1]), "=r"(r_[2]), "=r"(r_[3]) : "r"(at_) : "memory"); \
    else if ((count) == 2) asm volatile("ldmatrix.sync.aligned.m8n8.x2" turned ".shared.b16 {%0,%1},[%2];" : "=r"(r_[0]), "=r"(r_[1]) : "r"(at_) : "memory"); \
    else                   asm volatile("ldmatrix.sync.aligned.m8n8.x1" turned ".shared.b16 {%0},[%1];" : "=r"(r_[0]) : "r"(at_) : "memory"); } while (0)
#define NN__LDMATRIX(r, row, count)       NN__LDMATRIX_(r, row, count, "")           // count 8 x 8 matrices of 16-bit numbers; lane l gives row l
#define NN__LDMATRIX_TRANS(r, row, count) NN__LDMATRIX_(r, row, count, ".trans")
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
#define NN__MMA_F16_16816(d, a, b)  NN__MMA_4_2("m16n8k16", "f16", d, a, b)
#define NN__MMA_BF16_16816(d, a, b) NN__MMA_4_2("m16n8k16", "bf16", d, a, b)
#define NN__MMA_BF16_1688(d, a, b)  NN__MMA_2_1("m16n8k8", "bf16", d, a, b)
#define NN__MMA_TF32_1688(d, a, b)  NN__MMA_4_2("m16n8k8", "tf32", d, a, b)
#define NN__MMA_TF32_1684(d, a, b)  NN__MMA_2_1("m16n8k4", "tf32", d, a, b)
// To shared memory without passing through registers: 4, 8 or 16 aligned bytes; of which `have` are there, the rest becomes 0.
#define NN__CP_ASYNC_PART(to, from, bytes, have) \
    asm volatile("cp.async.ca.shared.global [%0],[%1],%2,%3;" :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "n"(bytes), "r"((int)(have)) : "memory")
#define NN__CP_ASYNC(to, from, bytes) NN__CP_ASYNC_PART(to, from, bytes, bytes)
#define NN__CP_ASYNC_COMMIT()         asm volatile("cp.async.commit_group;" ::: "memory")
#define NN__CP_ASYNC_WAIT(groups)     asm volatile("cp.async.wait_group %0;" :: "n"(groups) : "memory")
#define NN__CP_ASYNC_WAIT_ALL()       asm volatile("cp.async.wait_all;" ::: "memory")
#else                                // sm_75: f16 eight deep, no bf16, no tf32; copies pass through registers
#define NN__MMA_F16_16816(d, a, b)  do { unsigned b0_[1] = { (b)[0] }, b1_[1] = { (b)[1] }; NN__MMA_F16_1688(d, a, b0_); NN__MMA_F16_1688(d, (a) + 2, b1_); } while (0)
#define NN__MMA_BF16_16816(d, a, b) ((void)(d), (void)(a), (void)(b), __trap())
#define NN__MMA_BF16_1688(d, a, b)  NN__MMA_BF16_16816(d, a, b)
#define NN__MMA_TF32_1688(d, a, b)  NN__MMA_BF16_16816(d, a, b)
#define NN__MMA_TF32_1684(d, a, b)  NN__MMA_BF16_16816(d, a, b)
#define NN__CP_ASYNC_PART(to, from, bytes, have) \
    do { for (int k_ = 0; k_ < (bytes) / 4; k_++) ((float *)(to))[k_] = 4 * k_ < (have) ? ((const float *)(from))[k_] : 0.0f; } while (0)
#define NN__CP_ASYNC(to, from, bytes) NN__CP_ASYNC_PART(to, from, bytes, bytes)
#define NN__CP_ASYNC_COMMIT()         ((void)0)
#define NN__CP_ASYNC_WAIT(groups)     ((void)0)
#define NN__CP_ASYNC_WAIT_ALL()       ((void)0)
#endif
#else
#define NN__START(k, grid, block, bytes, stream, ...) NN_LAUNCH(k, grid, block, bytes, stream, __VA_ARGS__)
#endif
#define NN__LAUNCH(d, k, grid, block, bytes, ...) \
    do { if (!(d)->failed) { NN__START(k, grid, block, bytes, (d)->stream, __VA_ARGS__); nn__cuda_launched(d, #k, __LINE__); } } while (0)
#define NN__BLOCKS(n, per) ((unsigned)(((n) + (per) - 1) / (per)))
// A kernel that wants more than 48 KB of dynamic shared memory says so before its launch; 0: this device has less.
#define NN__SHARED_ROOM(d, k, bytes) ((bytes) <= 49152 || ((bytes) <= (d)->shared_most && \
    NN__CU(d, cudaFuncSetAttribute(k, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)))))

static void nn__cuda_launched(nn__cuda *d, const char *kernel, int line)
{
    cudaError_t e = cudaGetLastError();
    d->launches++;
    if (e == cudaSuccess && d->sync) e = cudaStreamSynchronize(d->stream);
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
    nn__lay l;
    int i, k, join;
    memset(&l, 0, sizeof l);
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
    int i;
    int64_t run = 1;
    for (i = v->ndim - 1; i >= 0; i--) {
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
NN__UNROLL
    for (int k = 0; k < IN; k++) {
        if (o.p[k]) nn__get4(x[k], o.p[k] + at[k], l.stride[k][last], n);
        else x[k][0] = x[k][1] = x[k][2] = x[k][3] = 0.0f;
    }
NN__UNROLL
    for (int j = 0; j < 4; j++) {
        if (j >= n) break;
NN__UNROLL
        for (int k = 0; k < IN; k++) in[k] = x[k][j];
        F::at(in, out, p, q);
NN__UNROLL
        for (int k = 0; k < OUT; k++) y[k][j] = out[k];
    }
NN__UNROLL
    for (int k = 0; k < OUT; k++) {
        float *to = o.p[IN + k] + at[IN + k], old[4];
        if (!o.p[IN + k]) continue;
        if (o.add >> k & 1) {
            nn__get4(old, to, l.stride[IN + k][last], n);
NN__UNROLL
            for (int j = 0; j < 4; j++) if (j < n) y[k][j] = old[j] + y[k][j];
        }
        nn__put4(to, y[k], l.stride[IN + k][last], n);
    }
}
// v: inputs, then results, all of one shape; data NULL: not there, not wanted. add: bit k: result k is added to.
template <class F> static int nn__map(nn__cuda *d, const nn_view *const *v, unsigned add, float p, float q)
{
    const nn_view *w[NN__LAY_VIEWS];
    nn__operands o;
    nn__lay l;
    int k, there = 0, fours;
    memset(&o, 0, sizeof o);
    o.add = add;
    for (k = 0; k < F::IN + F::OUT; k++) if (v[k]->data) there = k;
    for (k = 0; k < F::IN + F::OUT; k++) { w[k] = v[k]->data ? v[k] : v[there]; o.p[k] = (float *)v[k]->data; }
    if (there < F::IN || nn_view_count(v[there]) == 0) return 1;
    l = nn__lay_of(F::IN + F::OUT, w);
    fours = nn__lay_fours(&l, F::IN + F::OUT, w);
    NN__LAUNCH(d, nn__k_map<F>, dim3(NN__BLOCKS(l.count, fours ? 1024 : 256)), dim3(256), 0, l, o, p, q, fours);
    return 1;
}
template <class F> static int nn__cuda_unary(nn__cuda *d, const nn_call *c)
{
    const nn__scalars *s = (const nn__scalars *)c->params;
    const nn_view *v[4];
    v[0] = &c->in[0]; v[1] = &c->out[0];
    return nn__map<F>(d, v, 0, s->p, s->q);
}
template <class F> static int nn__cuda_unary_back(nn__cuda *d, const nn_call *c)
{
    const nn__scalars *s = (const nn__scalars *)c->params;
    const nn_view *v[4];
    v[0] = &c->in[0]; v[1] = &c->out[0]; v[2] = &c->dout[0]; v[3] = &c->din[0];
    return nn__map<F>(d, v, c->add & 1, s->p, s->q);
}
static int nn__cuda_sum_to(nn__cuda *d, const nn_view *x, const nn_view *y, int add, float scale);     // >>reduce
static int nn__same_sizes_of(const nn_view *a, const nn_view *b)
{
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
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
    const nn_view *v[6];
    int i, plain[2] = { 0, 0 }, id = c->op->id;
    for (i = 0; i < 2; i++) {
        b[i] = nn__as_broadcast(&c->in[i], &c->out[0]);
        g[i] = c->din[i];
        v[i] = &b[i];
        v[4 + i] = &g[i];
        if (!g[i].data || nn__same_sizes_of(&c->din[i], &c->dout[0])) continue;
        plain[i] = id == NN_OP_add || id == NN_OP_sub;
        g[i] = c->dout[0];
        g[i].data = plain[i] ? NULL : nn__cuda_scratch(d, (size_t)nn_view_count(&c->dout[0]) * sizeof(float));
        if (!plain[i] && !g[i].data) return 1;
    }
    v[2] = &c->out[0]; v[3] = &c->dout[0];
    nn__map<F>(d, v, (nn__same_sizes_of(&c->din[0], &c->dout[0]) ? c->add & 1 : 0) | (nn__same_sizes_of(&c->din[1], &c->dout[0]) ? c->add & 2 : 0), 0, 0);
    for (i = 0; i < 2; i++) {
        nn_view to;
        if (!c->din[i].data || nn__same_sizes_of(&c->din[i], &c->dout[0])) continue;
        to = nn__as_broadcast(&c->din[i], &c->dout[0]);
        if (plain[i]) nn__cuda_sum_to(d, &c->dout[0], &to, (int)(c->add >> i & 1), id == NN_OP_sub && i == 1 ? -1.0f : 1.0f);
        else nn__cuda_sum_to(d, &g[i], &to, (int)(c->add >> i & 1), 1);
    }
    return 1;
}
struct nn__f_where { enum { IN = 3, OUT = 1 }; NN__FN at(const float *in, float *out, float, float) { out[0] = in[0] != 0 ? in[1] : in[2]; } };
struct nn__d_where { enum { IN = 2, OUT = 3 }; NN__FN at(const float *in, float *out, float, float)      // condition, dy
    { out[0] = 0; out[1] = in[0] != 0 ? in[1] : 0; out[2] = in[0] != 0 ? 0 : in[1]; } };
static int nn__cuda_where_back(nn__cuda *d, const nn_call *c)
{
    nn_view cond = nn__as_broadcast(&c->in[0], &c->out[0]), g[3];
    const nn_view *v[5];
    unsigned add = 0;
    int i;
    v[0] = &cond; v[1] = &c->dout[0];
    for (i = 0; i < 3; i++) {
        g[i] = c->din[i];
        v[2 + i] = &g[i];
        if (!g[i].data) continue;
        if (nn__same_sizes_of(&g[i], &c->dout[0])) { add |= c->add & 1u << i; continue; }
        g[i] = c->dout[0];
        g[i].data = nn__cuda_scratch(d, (size_t)nn_view_count(&c->dout[0]) * sizeof(float));
        if (!g[i].data) return 1;
    }
    nn__map<nn__d_where>(d, v, add, 0, 0);
    for (i = 0; i < 3; i++) {
        nn_view to = nn__as_broadcast(&c->din[i], &c->dout[0]);
        if (c->din[i].data && !nn__same_sizes_of(&c->din[i], &c->dout[0])) nn__cuda_sum_to(d, &g[i], &to, (int)(c->add >> i & 1), 1);
    }
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
typedef struct nn__turn { int64_t na, nb, ax, ay, bx, by; nn__lay rest; } nn__turn;      // sizes, strides in x and y; the other dimensions
static __global__ void __launch_bounds__(256) nn__k_turn(nn__turn t, const float *x, float *y, int add)
{
    NN_SHARED(float, tile, [32][33]);
    int64_t tiles = (t.nb + 31) / 32, a0 = (int64_t)(blockIdx.x / tiles) * 32, b0 = (int64_t)(blockIdx.x % tiles) * 32, at[2];
    int tx = threadIdx.x & 31, ty = threadIdx.x >> 5;
    for (int64_t r = blockIdx.y; r < t.rest.count; r += gridDim.y) {
        nn__offsets(t.rest, r, at);
        for (int k = ty; k < 32; k += 8) if (a0 + tx < t.na && b0 + k < t.nb) tile[k][tx] = x[at[0] + (a0 + tx) * t.ax + (b0 + k) * t.bx];
        __syncthreads();
        for (int k = ty; k < 32; k += 8) if (b0 + tx < t.nb && a0 + k < t.na) {
            float *to = y + at[1] + (a0 + k) * t.ay + (b0 + tx) * t.by;
            *to = add ? *to + tile[tx][k] : tile[tx][k];
        }
        __syncthreads();
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
    t->rest.count = l->count / (t->na * t->nb);
    t->rest.small = t->rest.count < 0x7fffffff;
    for (k = 0; k < l->ndim; k++) {
        if (k == a || k == b) continue;
        t->rest.size[n] = l->size[k];
        t->rest.stride[0][n] = l->stride[0][k];
        t->rest.stride[1][n++] = l->stride[1][k];
    }
    t->rest.ndim = n;
    return ((t->na + 31) / 32) * ((t->nb + 31) / 32) < 0x7fffffff;
}
template <class T> static void nn__copy_as(nn__cuda *d, const nn__lay *l, const void *x, void *y)
{
    NN__LAUNCH(d, nn__k_copy<T>, dim3(NN__BLOCKS(l->count, 256)), dim3(256), 0, *l, (const T *)x, (T *)y);
}
static int nn__move(nn__cuda *d, const nn_view *to, const nn_view *from, int add)        // to = from, or, floats, to += from; one shape, one dtype
{
    const nn_view *v[2];
    int64_t n = nn_view_count(from);
    size_t bytes = nn_dtype_bytes((nn_dtype)from->dtype);
    nn__turn turn;
    nn__lay l;
    if (n == 0 || !to->data) return 1;
    if (!add && nn__is_flat(to) && nn__is_flat(from)) {
        if (to->data != from->data) NN__CU(d, cudaMemcpyAsync(to->data, from->data, (size_t)n * bytes, cudaMemcpyDeviceToDevice, d->stream));
        return 1;
    }
    v[0] = from; v[1] = to;
    l = nn__lay_of(2, v);
    if (bytes == 4 && nn__turn_of(&l, &turn)) {
        int64_t tiles = ((turn.na + 31) / 32) * ((turn.nb + 31) / 32);
        NN__LAUNCH(d, nn__k_turn, dim3((unsigned)tiles, (unsigned)(turn.rest.count < 65535 ? turn.rest.count : 65535)), dim3(256), 0, turn, (const float *)from->data, (float *)to->data, add);
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
    int i;
    plain->ndim = like->ndim;
    memcpy(plain->shape, like->shape, sizeof plain->shape);
    for (i = like->ndim - 1; i >= 0; run *= like->shape[i--]) plain->stride[i] = run;
    return nn__move(d, &to, &from, (int)(c->add & 1));
}
static int nn__cuda_permute_back(nn__cuda *d, const nn_call *c)
{
    const nn_shape *p = (const nn_shape *)c->params;
    nn_view to = c->din[0];
    int i;
    for (i = 0; i < to.ndim; i++) {
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
NN__DEV int64_t nn__saturate(float f, int64_t least, int64_t most)
{
    return f != f ? 0 : f <= (float)least ? least : f >= (float)most ? most : (int64_t)f;
}
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
static __global__ void __launch_bounds__(256) nn__k_cast(nn__lay l, int from, const void *x, int to, void *y, int add)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, at[2];
    if (i >= l.count) return;
    nn__offsets(l, i, at);
    if (add) nn__put_float(to, y, at[1], nn__get_float(to, y, at[1]) + nn__get_float(from, x, at[0]));
    else if (nn__is_whole(from) && nn__is_whole(to)) nn__put_int(to, y, at[1], nn__get_int(from, x, at[0]));
    else nn__put_float(to, y, at[1], nn__get_float(from, x, at[0]));
}
static int nn__cast_view(nn__cuda *d, const nn_view *to, const nn_view *from, int add)
{
    const nn_view *v[2];
    nn__lay l;
    v[0] = from; v[1] = to;
    l = nn__lay_of(2, v);
    if (l.count && to->data) NN__LAUNCH(d, nn__k_cast, dim3(NN__BLOCKS(l.count, 256)), dim3(256), 0, l, from->dtype, (const void *)from->data, to->dtype, (void *)to->data, add);
    return 1;
}
static int nn__cuda_cast(nn__cuda *d, const nn_call *c)      { return nn__cast_view(d, &c->out[0], &c->in[0], 0); }
static int nn__cuda_cast_back(nn__cuda *d, const nn_call *c) { return nn__cast_view(d, &c->din[0], &c->dout[0], (int)(c->add & 1)); }

// ---- fills, random numbers ------------------------------------------------------------------------------------------------
static __global__ void __launch_bounds__(256) nn__k_fill(nn__lay l, int dtype, void *y, float v, int64_t w)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, at[1];
    if (i >= l.count) return;
    nn__offsets(l, i, at);
    if (nn__is_whole(dtype)) nn__put_int(dtype, y, at[0], w);
    else nn__put_float(dtype, y, at[0], v);
}
static int nn__cuda_fill(nn__cuda *d, const nn_call *c)
{
    const nn_view *v[1];
    double value = *(const double *)c->params, cut = value != value ? 0 : value < -9.2e18 ? -9.2e18 : value > 9.2e18 ? 9.2e18 : value;
    nn__lay l;
    v[0] = &c->out[0];
    l = nn__lay_of(1, v);
    if (l.count == 0) return 1;
    if (value == 0 && !signbit(value) && nn__is_flat(v[0])) {
        NN__CU(d, cudaMemsetAsync(v[0]->data, 0, (size_t)l.count * nn_dtype_bytes((nn_dtype)v[0]->dtype), d->stream));
        return 1;
    }
    NN__LAUNCH(d, nn__k_fill, dim3(NN__BLOCKS(l.count, 256)), dim3(256), 0, l, v[0]->dtype, (void *)v[0]->data, (float)value, v[0]->dtype == NN_BOOL ? (int64_t)(value != 0) : (int64_t)cut);
    return 1;
}
// Philox4x32-10, as nn.h's >>random: the four numbers of block `index` of a stream.
typedef struct nn__stream { uint64_t seed, step, ordinal; } nn__stream;
NN__DEV void nn__philox(const nn__stream &s, uint64_t index, uint32_t *r)
{
    uint32_t k0 = (uint32_t)s.seed, k1 = (uint32_t)(s.seed >> 32);
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32) ^ (uint32_t)(s.ordinal >> 32), c2 = (uint32_t)s.ordinal, c3 = (uint32_t)s.step;
NN__UNROLL
    for (int i = 0; i < 10; i++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
    }
    r[0] = c0; r[1] = c1; r[2] = c2; r[3] = c3;
}
static nn__stream nn__stream_of(const nn_call *c) { nn__stream s; s.seed = c->seed; s.step = c->step; s.ordinal = c->ordinal; return s; }
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
    const nn_view *v[1];
    nn__lay l;
    v[0] = &c->out[0];
    l = nn__lay_of(1, v);
    if (l.count) NN__LAUNCH(d, nn__k_random, dim3(NN__BLOCKS((l.count + 3) / 4, 256)), dim3(256), 0, l, nn__stream_of(c), *(const nn__random_params *)c->params, v[0]->dtype, (void *)v[0]->data);
    return 1;
}
// Dropout: mask number m covers `run` neighbours; the numbers are drawn again in backward. Contiguous.
static __global__ void __launch_bounds__(256) nn__k_dropout(int64_t n, int64_t run, nn__stream s, const uint64_t *step, uint64_t dropped, float scale, const float *x, float *y, int add, int fours)
{
    int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) * 4;
    uint32_t r[4];
    float v[4], old[4];
    if (i >= n) return;
    int m = n - i < 4 ? (int)(n - i) : 4;
    if (step) s.step = *step;
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
    if (n && y->data) NN__LAUNCH(d, nn__k_dropout, dim3(NN__BLOCKS(n, 1024)), dim3(256), 0, n, p->run, nn__stream_of(c), (const uint64_t *)NULL, (uint64_t)((double)p->p * 4294967296.0),
                                 p->p < 1 ? (float)(1.0 / (1.0 - (double)p->p)) : 0.0f, (const float *)x->data, (float *)y->data, add, nn__aligned(x->data, y->data, NULL));
    return 1;
}
static int nn__cuda_dropout(nn__cuda *d, const nn_call *c)      { return nn__dropped(d, c, &c->in[0], &c->out[0], 0); }
static int nn__cuda_dropout_back(nn__cuda *d, const nn_call *c) { return nn__dropped(d, c, &c->dout[0], &c->din[0], (int)(c->add & 1)); }
#define NN__CUDA_ROWS(name, keep, f, df)       NN__CUDA_ENTRY(name, nn__cuda_unary<nn__f_##name>, nn__cuda_unary_back<nn__d_##name>)
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
enum { NN__END_SCALE, NN__END_SQRT, NN__END_POW, NN__END_FINITE, NN__END_LOG, NN__END_SHARE };
typedef struct nn__end { int how, add; float s; const float *other; } nn__end;
NN__DEV void nn__finish(const nn__end &e, int64_t out, float v, float *to)
{
    switch (e.how) {
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
template <class F> static __global__ void __launch_bounds__(256) nn__k_fold_lines(nn__walk w, int team, const float *x, const float *m, float p, nn__end e, float *y, float *part)
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
            nn__get4(v, x + at[0] + o[0], 1, n);
            acc = F::at(acc, v[0], mine, p);
NN__UNROLL
            for (int k = 1; k < 4; k++) if (k < n) acc = F::at(acc, v[k], mine, p);
        }
    }
    for (int k = 16; k; k >>= 1) acc = nn__join(F::JOIN, acc, __shfl_xor_sync(NN__FULL, acc, k));
    if (team > 32) {
        if ((threadIdx.x & 31) == 0) warp[threadIdx.x >> 5] = acc;
        __syncthreads();
        acc = warp[0];
        for (int k = 1; k < 8; k++) acc = nn__join(F::JOIN, acc, warp[k]);
    }
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
    nn__walk w;
    int64_t blocks;
    int i, last;
    kept.ndim = to.ndim = reduced.ndim = 0;
    for (i = 0; i < x->ndim; i++) {
        nn_view *r = y->stride[i] || x->shape[i] == 1 ? &kept : &reduced;
        r->shape[r->ndim] = x->shape[i];
        r->stride[r->ndim++] = x->stride[i];
        if (r == &kept) { to.shape[to.ndim] = x->shape[i]; to.stride[to.ndim++] = y->stride[i]; }
    }
    memset(&w, 0, sizeof w);
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
    int i;
    for (i = 0; i < c->in[0].ndim; i++) if (p->mask & 1u << i) n *= c->in[0].shape[i];
    return n;
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
        nn__fold<nn__fold_sum>(d, x, &m, 0, NULL, nn__end_of(NN__END_SCALE, 1.0f / (float)nn__terms(c), NULL, 0));
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
struct nn__f_std_share { enum { IN = 2, OUT = 1 }; NN__FN at(const float *in, float *out, float, float) { out[0] = in[0] == 0 ? 0.0f : in[1] / in[0]; } };     // y, dy
struct nn__f_prod_share { enum { IN = 3, OUT = 2 }; NN__FN at(const float *in, float *out, float, float)     // product of what is not 0, zeros, dy
    { out[0] = in[1] == 0 ? in[2] * in[0] : 0.0f; out[1] = in[1] == 1 ? in[2] * in[0] : 0.0f; } };
template <class F> static int nn__slope(nn__cuda *d, const nn_call *c, void *a, void *b, float p)
{
    const nn__reduce_params *q = (const nn__reduce_params *)c->params;
    nn_view va = nn__reduced(&c->dout[0], a, &c->in[0], q), vb = nn__reduced(&c->dout[0], b, &c->in[0], q);
    const nn_view *v[4];
    v[0] = &c->in[0]; v[1] = &va; v[2] = &vb; v[3] = &c->din[0];
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
        int theirs = (lane ^ m) < reduced.count;
        if (theirs && (k > key || (k == key && b < best))) { key = k; best = b; }
    }
    if (lane == 0) y[out] = best;
}
static int nn__cuda_arg(nn__cuda *d, const nn_call *c)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    const nn_view *x = &c->in[0], *v[1];
    nn_view part[2];
    nn__lay kept, reduced;
    int i;
    part[0] = part[1] = *x;
    part[0].ndim = part[1].ndim = 0;
    for (i = 0; i < x->ndim; i++) {
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
    nn__by b;
    memset(&b, 0, sizeof b);
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

// ---- index_select: y[k] = x[index[k]] along dim; the first position that names a row of dx adds all of them, in their order -------
static __global__ void __launch_bounds__(256) nn__k_select(nn__three s, int64_t n, int dtype, const void *index, int bytes, const void *x, void *y, int op, nn__fault *f)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= s.outer * n * s.inner) return;
    int64_t row = i / s.inner, k = nn__index_at(dtype, index, row % n);
    if (k >= 0 && k < s.n) { nn__move_one(bytes, y, i, x, (row / n * s.n + k) * s.inner + i % s.inner); return; }
    nn__clear_one(bytes, y, i);
    nn__bad_index(f, op, k, s.n);
}
static __global__ void __launch_bounds__(128) nn__k_select_back(nn__three s, int64_t n, int dtype, const void *index, const float *dy, float *dx)
{
    NN_SHARED(int, seen, [1]);
    int64_t i = blockIdx.x, k = nn__index_at(dtype, index, i), outer = blockIdx.y;
    if (k < 0 || k >= s.n) return;
    if (threadIdx.x == 0) seen[0] = 0;
    __syncthreads();
    for (int64_t j = threadIdx.x; j < i; j += 128) if (nn__index_at(dtype, index, j) == k) atomicExch(&seen[0], 1);
    __syncthreads();
    if (seen[0]) return;
    for (int64_t col = threadIdx.x; col < s.inner; col += 128) {
        float *to = dx + (outer * s.n + k) * s.inner + col, sum = *to;
        for (int64_t j = i; j < n; j++) if (nn__index_at(dtype, index, j) == k) sum += dy[(outer * n + j) * s.inner + col];
        *to = sum;
    }
}
static int nn__cuda_select(nn__cuda *d, const nn_call *c)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    int64_t n = nn_view_count(&c->in[1]);
    nn__fault *f = nn__cuda_may_fault(d, c);
    if (s.outer * n * s.inner == 0) return 1;
    NN__LAUNCH(d, nn__k_select, dim3(NN__BLOCKS(s.outer * n * s.inner, 256)), dim3(256), 0, s, n, c->in[1].dtype, (const void *)c->in[1].data, nn__width(&c->in[0]),
               (const void *)c->in[0].data, c->out[0].data, c->op->id, f);
    return 1;
}
static int nn__cuda_select_back(nn__cuda *d, const nn_call *c)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    int64_t n = nn_view_count(&c->in[1]);
    if (s.outer > 65535) return 0;
    if (c->din[0].data && s.outer * n * s.inner > 0) NN__LAUNCH(d, nn__k_select_back, dim3((unsigned)n, (unsigned)s.outer), dim3(128), 0, s, n, c->in[1].dtype,
                                                            (const void *)c->in[1].data, (const float *)c->dout[0].data, (float *)c->din[0].data);
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
    const nn_view *v[1];
    nn__lay l;
    v[0] = &c->out[0];
    l = nn__lay_of(1, v);
    if (l.count) NN__LAUNCH(d, nn__k_arange, dim3(NN__BLOCKS(l.count, 256)), dim3(256), 0, l, *(const nn__range_params *)c->params, v[0]->dtype, v[0]->data);
    return 1;
}

// ---- sort, topk: pairs of key and index in a total order, so that equal numbers stay in theirs --------------------------------
// Runs of NN__SORT_RUN are sorted in shared memory (bitonic, Batcher 1968); then pairs of runs merge: a pair's place is its place in its own
// run plus the number of smaller pairs in the other, found by bisection.
enum { NN__SORT_RUN = 1024 };
typedef struct nn__pair { int64_t key, index; } nn__pair;
NN__DEV int nn__before(const nn__pair &a, const nn__pair &b) { return a.key < b.key || (a.key == b.key && a.index < b.index); }
static __global__ void __launch_bounds__(256) nn__k_sort_runs(nn__three s, int runs, int dtype, const void *x, int descending, nn__pair *to)
{
    NN_SHARED(nn__pair, run, [NN__SORT_RUN]);
    int64_t line = blockIdx.x / runs, first = (int64_t)(blockIdx.x % runs) * NN__SORT_RUN, base = line / s.inner * s.n * s.inner + line % s.inner;
    int n = s.n - first < NN__SORT_RUN ? (int)(s.n - first) : NN__SORT_RUN, room = 1, nan;
    while (room < n) room *= 2;
    for (int i = threadIdx.x; i < room; i += 256) {
        int64_t key = i < n ? nn__order_key(dtype, x, base + (first + i) * s.inner, &nan) : 0;
        run[i].key = i < n ? (descending ? ~key : key) : INT64_MAX;
        run[i].index = i < n ? first + i : INT64_MAX;
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
    for (int i = threadIdx.x; i < n; i += 256) to[line * s.n + first + i] = run[i];
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
static __global__ void __launch_bounds__(256) nn__k_sorted(nn__three s, int64_t k, int bytes, const nn__pair *order, const void *x, void *y, int64_t *index)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= s.outer * k * s.inner) return;
    int64_t outer = i / (k * s.inner), inner = i % s.inner, from = order[(outer * s.inner + inner) * s.n + i / s.inner % k].index;
    nn__move_one(bytes, y, i, x, (outer * s.n + from) * s.inner + inner);
    index[i] = from;
}
static int nn__cuda_sort(nn__cuda *d, const nn_call *c)
{
    const nn__sort_params *p = (const nn__sort_params *)c->params;
    nn__three s = nn__around(&c->in[0], p->dim);
    int64_t lines = s.outer * s.inner, width, total = s.outer * p->k * s.inner, runs = (s.n + NN__SORT_RUN - 1) / NN__SORT_RUN;
    nn__pair *a, *b;
    if (total == 0) return 1;
    if (lines * runs > 0x7fffffff) return 0;
    a = (nn__pair *)nn__cuda_scratch(d, (size_t)(lines * s.n) * sizeof *a);
    b = runs > 1 ? (nn__pair *)nn__cuda_scratch(d, (size_t)(lines * s.n) * sizeof *b) : a;
    if (!a || !b) return 1;
    NN__LAUNCH(d, nn__k_sort_runs, dim3((unsigned)(lines * runs)), dim3(256), 0, s, (int)runs, c->in[0].dtype, (const void *)c->in[0].data, p->descending, a);
    for (width = NN__SORT_RUN; width < s.n; width *= 2) {
        nn__pair *other = a;
        NN__LAUNCH(d, nn__k_sort_merge, dim3(NN__BLOCKS(lines * s.n, 256)), dim3(256), 0, lines * s.n, s.n, width, (const nn__pair *)a, b);
        a = b;
        b = other;
    }
    NN__LAUNCH(d, nn__k_sorted, dim3(NN__BLOCKS(total, 256)), dim3(256), 0, s, p->k, nn__width(&c->in[0]), (const nn__pair *)a, (const void *)c->in[0].data, c->out[0].data, (int64_t *)c->out[1].data);
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
    if (total && c->din[0].data) NN__LAUNCH(d, nn__k_sort_back, dim3(NN__BLOCKS(total, 256)), dim3(256), 0, s, p->k, (const int64_t *)c->out[1].data, (const float *)c->dout[0].data, (float *)c->din[0].data);
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
NN__UNROLL
    for (int k = NN_MAX_DIMS - 1; k >= 0; k--) {
        at[k] = j[k] = o[k] = 0;
        if (k >= p.ndim) continue;
        at[k] = rest % p.n[k];
        rest /= p.n[k];
        o[k] = nn__pad_place(p, k, at[k], 0);
        if (o[k] < 0) return;                            // cut away
    }
    for (int more = 1; more;) {
        int64_t from = 0;
NN__UNROLL
        for (int k = 0; k < NN_MAX_DIMS; k++) if (k < p.ndim) from = from * p.m[k] + o[k];
        sum += dy[from];
        more = 0;
NN__UNROLL
        for (int k = NN_MAX_DIMS - 1; k >= 0; k--) {
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
    nn__padding p;
    int k;
    memset(&p, 0, sizeof p);
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
    X(index_select, nn__cuda_select, nn__cuda_select_back) X(one_hot, nn__cuda_one_hot, NULL) X(tril, nn__cuda_triangle, nn__cuda_triangle_back) \
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
template <class F> static __global__ void __launch_bounds__(256) nn__k_update(nn__parts a, nn__rates own, const nn__rates *now, const float *scale)
{
    const nn__part &t = a.part[nn__tensor_of(a)];
    nn__rates u = own;
    int64_t i = ((int64_t)(blockIdx.x - t.block) * 256 + threadIdx.x) * 4;
    float p[4], g[4], s[3][4], mine[3], by = scale ? *scale : 1.0f;
    if (i >= t.n) return;
    if (now) u = *now;
    int n = t.n - i < 4 ? (int)(t.n - i) : 4, run = t.fours || n < 4;
    if (!run) {                      // four numbers that do not lie as 16 aligned bytes
NN__UNROLL
        for (int j = 0; j < 4; j++) {
            p[j] = t.p[i + j];
            g[j] = t.g[i + j];
            for (int k = 0; k < F::STATES; k++) s[k][j] = t.s[k] ? t.s[k][i + j] : 0.0f;
        }
    } else {
        nn__get4(p, t.p + i, 1, n);
        nn__get4(g, t.g + i, 1, n);
NN__UNROLL
        for (int k = 0; k < F::STATES; k++) { if (t.s[k]) nn__get4(s[k], t.s[k] + i, 1, n); else s[k][0] = s[k][1] = s[k][2] = s[k][3] = 0.0f; }
    }
NN__UNROLL
    for (int j = 0; j < 4; j++) {
        float x = g[j] * by;
        if (u.clips) x = x < -u.clip_value ? -u.clip_value : x > u.clip_value ? u.clip_value : x;
        for (int k = 0; k < F::STATES; k++) mine[k] = s[k][j];
        p[j] = F::at(p[j], x, mine, u);
        for (int k = 0; k < F::STATES; k++) s[k][j] = mine[k];
    }
    if (run) {
        nn__put4(t.p + i, p, 1, n);
NN__UNROLL
        for (int k = 0; k < F::STATES; k++) if (t.s[k]) nn__put4(t.s[k] + i, s[k], 1, n);
    } else {
NN__UNROLL
        for (int j = 0; j < 4; j++) {
            t.p[i + j] = p[j];
            for (int k = 0; k < F::STATES; k++) if (t.s[k]) t.s[k][i + j] = s[k][j];
        }
    }
}
// Sums of squares of many tensors: a number per block, then one warp per tensor adds its blocks.
static __global__ void __launch_bounds__(256) nn__k_square_sum(nn__parts a, float *part)
{
    NN_SHARED(float, warps, [32]);
    const nn__part &t = a.part[nn__tensor_of(a)];
    int64_t i = ((int64_t)(blockIdx.x - t.block) * 256 + threadIdx.x) * 4;
    float sum = 0;
    for (int j = 0; j < 4; j++) if (i + j < t.n) sum = fmaf(t.p[i + j], t.p[i + j], sum);
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
#define NN__CUDA_UPDATED(id, name) case id: NN__LAUNCH(d, nn__k_update<nn__u_##name>, dim3(blocks), dim3(256), 0, b->parts, b->rates, (const nn__rates *)NULL, b->scale); break;
static void nn__cuda_flush_now(nn__cuda *d)              // what waits is launched
{
    nn__batch *b = &d->batch;
    const nn_call *outer = d->call;
    nn_call c;
    unsigned blocks = b->blocks;
    float *part;
    memset(&c, 0, sizeof c);
    c.op = b->op;
    c.nn = b->nn;
    d->call = &c;
    d->failed = 0;
    d->scratch_used = d->scratch_wanted = 0;
    if (blocks) switch (b->op->id) {
    NN__CUDA_UPDATED(NN_OP_sgd_update, sgd)
    NN__CUDA_UPDATED(NN_OP_rmsprop_update, rmsprop)
    NN__CUDA_UPDATED(NN_OP_adagrad_update, adagrad)
    NN__CUDA_UPDATED(NN_OP_adam_update, adam)
    NN__CUDA_UPDATED(NN_OP_nadam_update, nadam)
    NN__CUDA_UPDATED(NN_OP_lion_update, lion)
    NN__CUDA_UPDATED(NN_OP_ema_update, ema)
    NN__CUDA_UPDATED(NN_OP_swap, swap)
    default: break;
    }
    if (b->op->id == NN_OP_square_sum) {
        part = (float *)nn__cuda_scratch(d, (blocks ? blocks : 1) * sizeof *part);
        if (part && blocks) NN__LAUNCH(d, nn__k_square_sum, dim3(blocks), dim3(256), 0, b->parts, part);
        if (part) NN__LAUNCH(d, nn__k_square_join, dim3((unsigned)b->parts.count), dim3(32), 0, b->parts, blocks, (const float *)part);
    }
    b->parts.count = 0;
    b->blocks = 0;
    d->call = outer;
}
static int nn__cuda_batched(nn__cuda *d, const nn_call *c, const nn__rates *r, const float *scale, float *p, const float *g, float *const *s, int states)
{
    nn__batch *b = &d->batch;
    int64_t n = nn_view_count(&c->in[0]);
    nn__part *t;
    int k;
    if (n > (int64_t)1 << 40) return 0;
    if (b->parts.count && (b->parts.count == NN__BATCH || b->op != c->op || b->nn != c->nn || b->scale != scale || memcmp(&b->rates, r, sizeof *r) || b->blocks > 0x3fffffff)) nn__cuda_flush_now(d);
    b->op = c->op; b->nn = c->nn; b->scale = scale; b->rates = *r;
    t = &b->parts.part[b->parts.count++];
    t->p = p; t->g = g; t->n = n; t->block = b->blocks;
    t->fours = nn__aligned(p, g, NULL);
    for (k = 0; k < 3; k++) { t->s[k] = k < states ? s[k] : NULL; if ((uintptr_t)t->s[k] & 15) t->fours = 0; }
    b->blocks += NN__BLOCKS(n, 1024);
    return 1;
}
static nn__rates nn__rates_of(const nn__update_params *u)
{
    nn__rates r;
    memset(&r, 0, sizeof r);
    r.lr = (float)u->lr; r.weight_decay = (float)u->weight_decay; r.shrink = (float)u->shrink;
    r.decay1 = (float)u->decay1; r.rest1 = (float)u->rest1; r.decay2 = (float)u->decay2; r.rest2 = (float)u->rest2;
    r.eps = (float)u->eps; r.correct = (float)u->correct; r.lr_grad = (float)u->lr_grad; r.clip_value = (float)u->clip_value;
    r.decays = u->weight_decay != 0; r.clips = u->clip_value > 0; r.momentum = u->momentum; r.nesterov = u->nesterov;
    r.first = u->first; r.centered = u->centered; r.amsgrad = u->amsgrad; r.far1 = u->far1;
    return r;
}
static int nn__cuda_update(nn__cuda *d, const nn_call *c)        // in: p, g, scale or NULL, up to three states
{
    nn__rates r = nn__rates_of((const nn__update_params *)c->params);
    float *s[3];
    int k;
    for (k = 0; k < 3; k++) s[k] = (float *)c->in[3 + k].data;
    return nn__cuda_batched(d, c, &r, (const float *)c->in[2].data, (float *)c->in[0].data, (const float *)c->in[1].data, s, 3);
}
static int nn__cuda_ema(nn__cuda *d, const nn_call *c)
{
    double decay = *(const double *)c->params;
    nn__rates r;
    memset(&r, 0, sizeof r);
    r.decay1 = (float)decay; r.rest1 = (float)(1 - decay);
    return nn__cuda_batched(d, c, &r, NULL, (float *)c->in[0].data, (const float *)c->in[1].data, NULL, 0);
}
static int nn__cuda_swap(nn__cuda *d, const nn_call *c)
{
    nn__rates r;
    float *s[1];
    memset(&r, 0, sizeof r);
    s[0] = (float *)c->in[1].data;
    return nn__cuda_batched(d, c, &r, NULL, (float *)c->in[0].data, (const float *)c->in[1].data, s, 1);
}
static int nn__cuda_square_sum(nn__cuda *d, const nn_call *c)
{
    nn__rates r;
    float *s[1];
    memset(&r, 0, sizeof r);
    s[0] = (float *)c->out[0].data;
    return nn__cuda_batched(d, c, &r, NULL, (float *)c->in[0].data, NULL, s, 1);
}
static __global__ void nn__k_clip_scale(int64_t n, double most, const float *x, float *y)
{
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += 32) sum += (double)x[i];
    for (int m = 16; m; m >>= 1) sum += __shfl_xor_sync(NN__FULL, sum, m);
    if (threadIdx.x) return;
    y[0] = (float)sqrt(sum);
    double scale = most > 0 ? most / ((double)y[0] + 1e-6) : 1.0;
    y[1] = (float)(scale > 1 ? 1.0 : scale);
}
static int nn__cuda_clip_scale(nn__cuda *d, const nn_call *c)
{
    NN__LAUNCH(d, nn__k_clip_scale, dim3(1), dim3(32), 0, c->in[0].shape[0], *(const double *)c->params, (const float *)c->in[0].data, (float *)c->out[0].data);
    return 1;
}
// dW = dY^T X by linear's own backward, then the update. in: W, X, dY, states
static int nn__cuda_linear_update(nn__cuda *d, const nn_call *c);
#define NN__CUDA_OPTIM(X) \
    X(sgd_update, nn__cuda_update, NULL) X(rmsprop_update, nn__cuda_update, NULL) X(adagrad_update, nn__cuda_update, NULL) X(adam_update, nn__cuda_update, NULL) \
    X(nadam_update, nn__cuda_update, NULL) X(lion_update, nn__cuda_update, NULL) X(linear_update, nn__cuda_linear_update, NULL) \
    X(ema_update, nn__cuda_ema, NULL) X(swap, nn__cuda_swap, NULL) X(square_sum, nn__cuda_square_sum, NULL) X(clip_scale, nn__cuda_clip_scale, NULL)

// =============================================================================================
// >>products   matmul, linear, linear_small.
// =============================================================================================
#define NN__CUDA_PRODUCTS(X)

// =============================================================================================
// >>conv   Convolutions, pooling, upsampling.
// =============================================================================================
#define NN__CUDA_CONV(X)

// =============================================================================================
// >>norm   Softmax, log-softmax; layer, RMS, batch and group norm.
// =============================================================================================
#define NN__CUDA_NORM(X)

// =============================================================================================
// >>loss   Losses.
// =============================================================================================
#define NN__CUDA_LOSS(X)

// =============================================================================================
// >>embedding   Rows of a table.
// =============================================================================================
#define NN__CUDA_EMBEDDING(X)

// =============================================================================================
// >>attention   Attention, rotary positions.
// =============================================================================================
#define NN__CUDA_ATTENTION(X)

// =============================================================================================
// >>rnn   RNN, LSTM, GRU; CTC.
// =============================================================================================
#define NN__CUDA_RNN(X)

// =============================================================================================
// >>run   From a call to its kernels: every section lists X(op, forward, backward); NULL: there is none.
// A handler launches the work and returns 1, or returns 0 without a trace: then nn.h runs the call on the CPU and counts it.
// =============================================================================================
#define NN__CUDA_OPS(X) NN__CUDA_MAPS(X) NN__CUDA_REDUCE(X) NN__CUDA_SHAPE(X) NN__CUDA_OPTIM(X) NN__CUDA_PRODUCTS(X) NN__CUDA_CONV(X) NN__CUDA_NORM(X) \
                        NN__CUDA_LOSS(X) NN__CUDA_EMBEDDING(X) NN__CUDA_ATTENTION(X) NN__CUDA_RNN(X)
typedef int (*nn__cuda_handler)(nn__cuda *d, const nn_call *c);
static nn__cuda_handler nn__cuda_table[NN_OP_COUNT][2];
#define NN__CUDA_ENTRY(name, forward, backward) nn__cuda_table[NN_OP_##name][0] = forward; nn__cuda_table[NN_OP_##name][1] = backward;
static void nn__cuda_fill_table(void) { NN__CUDA_OPS(NN__CUDA_ENTRY) }

static int nn__cuda_linear_update(nn__cuda *d, const nn_call *c)
{
    static const nn_op linear = { "linear", 3, 1, NN_OP_STRIDED | NN_OP_ASSIGNS, 0, NULL, NULL, NULL, NULL, NN_OP_linear, sizeof(int) };
    const nn__update_params *u = (const nn__update_params *)c->params;
    nn__rates r = nn__rates_of(u);
    nn_call g = *c;
    nn_op update = *c->op;
    float *s[3], *dw = (float *)nn__cuda_scratch(d, (size_t)nn_view_count(&c->in[0]) * sizeof *dw);
    int none = 0, k;
    if (!dw) return 1;
    if (!nn__cuda_table[NN_OP_linear][1]) return 0;
    g.op = &linear; g.params = &none; g.pass = NN_BACKWARD; g.nin = 3; g.nout = 1; g.naux = 0; g.add = 0;
    g.in[0] = c->in[1]; g.in[1] = c->in[0];
    memset(&g.in[2], 0, sizeof g.in[2]);
    memset(g.din, 0, sizeof g.din);
    g.din[1] = c->in[0];
    g.din[1].data = dw;
    g.dout[0] = g.out[0] = c->in[2];
    g.out[0].data = NULL;
    if (!nn__cuda_table[NN_OP_linear][1](d, &g)) return 0;
    if (d->failed) return 1;
    for (k = 0; k < 3; k++) s[k] = (float *)c->in[3 + k].data;
    update.id = u->op;
    g.op = &update; g.in[0] = c->in[0];
    nn__cuda_batched(d, &g, &r, NULL, (float *)c->in[0].data, dw, s, 3);
    d->call = c;
    nn__cuda_flush_now(d);
    return 1;
}
static int nn__cuda_double(const nn_call *c)             // there are no kernels for 64-bit floats
{
    int i;
    for (i = 0; i < c->nin; i++)  if (c->in[i].data && c->in[i].dtype == NN_F64) return 1;
    for (i = 0; i < c->nout; i++) if (c->out[i].dtype == NN_F64) return 1;
    return c->pass == NN_BACKWARD && c->nin && c->din[0].data && c->din[0].dtype == NN_F64;
}
static int nn__cuda_run(void *self, const nn_call *c)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__cuda_handler handler = nn__cuda_table[c->op->id][c->pass == NN_BACKWARD];
    int done;
    if (d->dead) { nn_fail(c->nn, "%s", d->error); return 1; }
    if (!handler || nn__cuda_double(c)) { d->refused[c->op->id][c->pass]++; return 0; }
    if (d->batch.parts.count && d->batch.op != c->op) nn__cuda_flush_now(d);
    cudaSetDevice(d->device);
    nn__cuda_keep_scratch(d, d->scratches > 0);
    d->call = c;
    d->failed = 0;
    d->scratch_used = d->scratch_wanted = 0;
    done = handler(d, c);
    d->call = NULL;
    if (d->failed) return 1;                             // nn_fail was called
    (done ? d->calls : d->refused)[c->op->id][c->pass]++;
    return done;
}

extern "C" const nn_backend *nn_cuda_with(int device, const nn_cuda_desc *desc)
{
    int known = device >= 0 && device < NN__CUDA_DEVICES, precision = desc ? (int)desc->precision : 0;
    nn__cuda *d = &nn__cuda_states[known ? device : NN__CUDA_DEVICES - 1][precision & 3];
    if (d->backend.self) return &d->backend;
    nn__cuda_fill_table();
    d->device = known ? device : 0x7fffffff;
    d->precision = precision & 3;
    snprintf(d->name, sizeof d->name, "cuda:%d", device);
    d->backend.version = NN_BACKEND_VERSION;
    d->backend.name = d->name;
    d->backend.alloc = nn__cuda_alloc;
    d->backend.free = nn__cuda_free;
    d->backend.upload = nn__cuda_upload;
    d->backend.download = nn__cuda_download;
    d->backend.copy = nn__cuda_copy;
    d->backend.run = nn__cuda_run;
    d->backend.sync = nn__cuda_sync;
    d->backend.open = nn__cuda_open;
    d->backend.close = nn__cuda_close;
    d->backend.self = d;
    return &d->backend;
}
extern "C" const nn_backend *nn_cuda(int device) { return nn_cuda_with(device, NULL); }

extern "C" void nn_cuda_report(const nn_backend *backend)
{
    const nn__cuda *d = (const nn__cuda *)backend->self;
    int i, k;
    printf("%s: sm_%d, %d multiprocessors; %lld launches; %.1f MB now, %.1f MB at most; up %.1f MB, down %.1f MB\n", d->name, d->arch, d->multiprocessors,
           (long long)d->launches, (double)d->bytes * 1e-6, (double)d->peak * 1e-6, (double)d->uploads * 1e-6, (double)d->downloads * 1e-6);
    for (i = 0; i < NN_OP_COUNT; i++) for (k = 0; k < 2; k++)
        if (d->refused[i][k]) printf("  op %d %s: %lld calls on the CPU\n", i, k ? "backward" : "forward", (long long)d->refused[i][k]);
}
#endif // NN_CUDA_IMPLEMENTED
#endif // NN_CUDA_IMPLEMENTATION
