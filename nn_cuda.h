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
// =============================================================================================
#define NN__CUDA_MAPS(X)

// =============================================================================================
// >>reduce   Sums and their kin over any dimensions; argmax, argmin; cumsum.
// =============================================================================================
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
