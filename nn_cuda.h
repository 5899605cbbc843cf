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
#    error "nn_cuda.h: with NN_CUDA_EMU, include tests/cuda/cushim.h first"
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
enum { NN__CUDA_DEVICES = 16, NN__CUDA_PRECISIONS = 4, NN__CUDA_BLOCKS = 64, NN__CUDA_SCRATCHES = 16, NN__CUDA_STAGES = 2, NN__CUDA_NAMES = 512 };
#define NN__CUDA_STAGE_BYTES ((size_t)1 << 20)           // of pinned memory, twice
typedef struct nn__cuda_block { void *at; size_t bytes; int used; } nn__cuda_block;
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
    int64_t        launches, bytes, peak, uploads, downloads;
    int64_t        calls[NN_OP_COUNT][2], refused[NN_OP_COUNT][2];
} nn__cuda;
static nn__cuda nn__cuda_states[NN__CUDA_DEVICES][NN__CUDA_PRECISIONS];
static char nn__cuda_reason[512];

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
    if (d->dead) return 0;
    cudaSetDevice(d->device);
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
static int nn__cuda_download(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    if (d->dead) return 0;
    cudaSetDevice(d->device);
    d->downloads += (int64_t)bytes;
    return (!bytes || NN__CU(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->stream))) && NN__CU(d, cudaStreamSynchronize(d->stream));
}
static int nn__cuda_copy(void *self, void *to, const void *from, size_t bytes)
{
    nn__cuda *d = (nn__cuda *)self;
    if (d->dead) return 0;
    cudaSetDevice(d->device);
    return !bytes || NN__CU(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->stream));
}
static int nn__cuda_sync(void *self)
{
    nn__cuda *d = (nn__cuda *)self;
    return !d->dead && NN__CU(d, cudaStreamSynchronize(d->stream));
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
    for (i = 0; i < NN__CUDA_STAGES; i++)
        if (!NN__CU(d, cudaMallocHost(&d->stage[i], NN__CUDA_STAGE_BYTES)) || !NN__CU(d, cudaEventCreateWithFlags(&d->stage_free[i], cudaEventDisableTiming))) return 0;
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
#define NN__DEV  static __device__ __forceinline__
#ifndef NN_CUDA_EMU
#define NN_SHARED(T, name, dims)  __shared__ T name dims
#define NN_SHARED_DYN(T, name)    extern __shared__ __align__(16) unsigned char nn__shared_bytes[]; T *name = (T *)nn__shared_bytes
#define NN__START(k, grid, block, bytes, stream, ...) (k)<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__)
// mma.sync m16n8k16: d (16 x 8, f32) += a (16 x 16) b (16 x 8). Lane l, g = l / 4, t = l % 4: d[0..1] is row g, columns 2t, 2t + 1, d[2..3] row
// g + 8; a[0] row g, columns 2t, 2t + 1, a[1] row g + 8, a[2] and a[3] the same 8 columns on; b[0] rows 2t, 2t + 1 of column g, b[1] 8 rows on.
#define NN__MMA_16816(type, d, a, b) \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" \
                 : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3]) : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
#define NN__MMA_F16_16816(d, a, b)  NN__MMA_16816("f16", d, a, b)
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800      // sm_75 multiplies f16 only
#define NN__MMA_BF16_16816(d, a, b) NN__MMA_16816("bf16", d, a, b)
#define NN__MMA_TF32_1688(d, a, b) \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};" \
                 : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3]) : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
#else
#define NN__MMA_BF16_16816(d, a, b) ((void)(a), (void)(b), __trap())
#define NN__MMA_TF32_1688(d, a, b)  ((void)(a), (void)(b), __trap())
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
#pragma unroll
    for (int k = 0; k < IN; k++) {
        if (o.p[k]) nn__get4(x[k], o.p[k] + at[k], l.stride[k][last], n);
        else x[k][0] = x[k][1] = x[k][2] = x[k][3] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (j >= n) break;
#pragma unroll
        for (int k = 0; k < IN; k++) in[k] = x[k][j];
        F::at(in, out, p, q);
#pragma unroll
        for (int k = 0; k < OUT; k++) y[k][j] = out[k];
    }
#pragma unroll
    for (int k = 0; k < OUT; k++) {
        float *to = o.p[IN + k] + at[IN + k], old[4];
        if (!o.p[IN + k]) continue;
        if (o.add >> k & 1) {
            nn__get4(old, to, l.stride[IN + k][last], n);
#pragma unroll
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
#pragma unroll
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
// =============================================================================================
static int nn__cuda_sum_to(nn__cuda *d, const nn_view *x, const nn_view *y, int add, float scale) { (void)d; (void)x; (void)y; (void)add; (void)scale; return 0; }
#define NN__CUDA_REDUCE(X)

// =============================================================================================
// >>shape   Ops that move numbers.
// =============================================================================================
#define NN__CUDA_SHAPE(X)

// =============================================================================================
// >>optim   Parameter updates.
// =============================================================================================
#define NN__CUDA_OPTIM(X)

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

static int nn__cuda_run(void *self, const nn_call *c)
{
    nn__cuda *d = (nn__cuda *)self;
    nn__cuda_handler handler = nn__cuda_table[c->op->id][c->pass == NN_BACKWARD];
    int done;
    if (d->dead) { nn_fail(c->nn, "%s", d->error); return 1; }
    if (!handler) { d->refused[c->op->id][c->pass]++; return 0; }
    cudaSetDevice(d->device);
    nn__cuda_keep_scratch(d, d->scratches > 1);
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
