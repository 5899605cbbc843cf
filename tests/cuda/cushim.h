/* cushim.h - run CUDA C kernels on the CPU, for tests only.
 *
 * Compile the SAME source that nvcc compiles with g++/clang++ -x c++ -DNN_CUDA_EMU and include this
 * file instead of <cuda_runtime.h>.  Every CUDA thread is a fiber; blocks run one after another or on
 * several OS threads.  Streams are queues that run as LATE as the API allows, so that a missing
 * synchronisation shows.  Device memory is a separate arena that the host cannot touch between calls.
 *
 * Environment:
 *   CUSHIM_ORDER   fwd | rev | rand   order in which threads of a block (and blocks) run (default fwd)
 *   CUSHIM_SEED    seed for rand
 *   CUSHIM_WORKERS OS threads that run blocks (default 1)
 *   CUSHIM_EAGER   1: run each operation at once (no lazy streams)
 *   CUSHIM_NODEV   1: behave like a machine without a GPU
 *   CUSHIM_ARENA   MiB of device addresses (default 4096)
 *   CUSHIM_DRY     1: kernels are not run, large copies and fills not done: only what the host does counts, at any size;
 *                  2: of a grid of more than 64 blocks those beside the borders of its quarters run, memory is 0 until it is
 *                  written, large copies move what was written: index arithmetic at any size (test_large.c)
 *   CUSHIM_SMS     multiprocessors that the device says it has (default 4)
 *   CUSHIM_STATS   1: print launches, blocks and threads at exit
 * Sanitizers: -fsanitize=address (device redzones, shared-memory redzones, fiber stacks annotated),
 *             -fsanitize=thread  (each CUDA thread is a TSan fiber: finds races inside and between blocks),
 *             -fsanitize=undefined (alignment of float4 accesses, shifts, overflow).
 */
#ifndef CUSHIM_H
#define CUSHIM_H
#if !defined(__cplusplus)
#error "cushim.h: compile as C++ (nvcc does the same with .cu files)"
#endif
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>
#if defined(__GNUC__) && !defined(__clang__)             /* half of the time of a test is spent here, also where the kernels are not optimised */
#pragma GCC push_options
#pragma GCC optimize("O2")
#endif

#if defined(__SANITIZE_ADDRESS__)
#define CUSHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUSHIM_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define CUSHIM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CUSHIM_TSAN 1
#endif
#endif
#ifdef CUSHIM_ASAN
#include <sanitizer/asan_interface.h>
extern "C" void __sanitizer_start_switch_fiber(void **, const void *, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void *, const void **, size_t *);
#endif
#ifdef CUSHIM_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void *);
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
}
#define CUSHIM_ACQ(p) __tsan_acquire((void *)(p))
#define CUSHIM_REL(p) __tsan_release((void *)(p))
#else
#define CUSHIM_ACQ(p) ((void)(p))
#define CUSHIM_REL(p) ((void)(p))
#endif
#define CUSHIM_NOSAN __attribute__((no_sanitize_thread, noinline, unused))

/* ---------- vector types ---------- */
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
#define CUSHIM_VEC(T, N, AL2, AL4)                                             \
    struct alignas(AL2) N##2 { T x, y; };                                      \
    struct alignas(AL4) N##4 { T x, y, z, w; };                                \
    static inline N##2 make_##N##2(T a, T b) { N##2 r = { a, b }; return r; }  \
    static inline N##4 make_##N##4(T a, T b, T c, T d) { N##4 r = { a, b, c, d }; return r; }
CUSHIM_VEC(float, float, 8, 16)
CUSHIM_VEC(int, int, 8, 16)
CUSHIM_VEC(unsigned, uint, 8, 16)
CUSHIM_VEC(unsigned short, ushort, 4, 8)
CUSHIM_VEC(signed char, char, 2, 4)
CUSHIM_VEC(unsigned char, uchar, 2, 4)
CUSHIM_VEC(long long, longlong, 16, 16)
CUSHIM_VEC(double, double, 16, 16)

/* ---------- language ---------- */
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local /* works; NN_SHARED below is checked better */

/* ---------- fibers ---------- */
#if defined(__x86_64__)
extern "C" void cushim_swap(void **save, void *to);
asm(".text\n.weak cushim_swap\n.type cushim_swap,@function\ncushim_swap:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n.size cushim_swap,.-cushim_swap\n");
#else
#include <ucontext.h>
#define CUSHIM_UCONTEXT 1
#endif

namespace cushim {

struct Block;
struct Warp;
struct Thread {
    uint3 tid;
    int linear, lane;
    Warp *warp;
    Block *blk;
    int state; /* 0 ready, 1 at barrier, 2 in a warp operation, 3 wants shared memory, 4 done */
    int line;
    void *sp;
    char *stack;
    void *tsan;
    void *fake;
#ifdef CUSHIM_UCONTEXT
    ucontext_t uc;
#endif
};
struct Meet {
    unsigned mask, arrived;
    int gen, line, kind;
    uint64_t val[2][32];
}; /* one per lane mask in use */
struct Warp {
    Thread *t[32];
    int n;
    unsigned alive;
    Meet meet[32];
    int nmeet;
    char tag;
};
struct Smem {
    const void *key;
    char *p;
    size_t n;
};
/* What nvcc's code tells the runtime of a kernel. Arguments lie in one block, each as its type is aligned, and are passed from there: through
   templates by value, GCC loses those that are aligned to more than 16 bytes. */
struct Kernel {
    const char *name;
    size_t bytes;                                        /* of all arguments */
    virtual bool good(void **args) = 0;                  /* pointers are device memory */
    virtual char *copy(void **args) = 0;                 /* free() it */
    virtual void run(char *args) = 0;
    virtual ~Kernel() {}
};
struct Grid {
    Kernel *kernel;
    dim3 g, b;
    size_t dyn;
    char *args;
    long next;
    char tag;
    size_t stat;
};
struct Block {
    Grid *grid;
    uint3 bid;
    int n, alive, arrived, gen, line;
    Thread *th;
    Warp *w;
    int nw;
    Smem sm[32];
    int nsm;
    const void *want_key;
    size_t want_n;
    char *dyn;
    char bartag[2], schedtag;
    int any[2];
    void *sched_sp;
    void *sched_tsan;
    void *sched_fake;
    const void *sst;
    size_t ssz;
#ifdef CUSHIM_UCONTEXT
    ucontext_t sched_uc;
#endif
};
enum { STACK = 64 * 1024 };

extern thread_local Thread *cur;
/* Under TSan a fiber takes a tenth of a millisecond to make, so fibers run one CUDA thread after the other. Thread i of one block and thread i of
   the next have different ones, as what one fiber does is in order. */
struct Fiber { char *stack; void *sp, *tsan; };
enum { FIBERS = 1024 + 64 };
struct Worker {
    char *stacks[1024];
    Fiber fiber[FIBERS];
    long turn;
    Thread *th;
    Warp *w;
    std::vector<std::pair<char *, size_t>> *junk;
};

static inline const char *env(const char *k, const char *d) {
    const char *v = getenv(k);
    return v && *v ? v : d;
}
struct Conf {
    int order, workers, eager, nodev, stats, dry, sms;
    uint64_t seed;
    size_t arena;
};
Conf &conf();

[[noreturn]] CUSHIM_NOSAN static void die(const char *what, int line) {
    Thread *t = cur;
    fflush(stdout);
    if (t)
        fprintf(stderr, "cushim: %s\n  kernel %s block (%u,%u,%u) thread (%u,%u,%u) line %d\n", what, t->blk->grid->kernel->name, t->blk->bid.x,
                t->blk->bid.y, t->blk->bid.z, t->tid.x, t->tid.y, t->tid.z, line);
    else fprintf(stderr, "cushim: %s (line %d)\n", what, line);
    abort();
}

/* thread -> scheduler */
CUSHIM_NOSAN static void yield_(void) {
    Thread *t = cur;
    Block *b = t->blk;
#ifdef CUSHIM_ASAN
    __sanitizer_start_switch_fiber(t->state == 4 ? 0 : &t->fake, b->sst, b->ssz);
#endif
#ifdef CUSHIM_TSAN
    __tsan_switch_to_fiber(b->sched_tsan, 1);
#endif
#ifdef CUSHIM_UCONTEXT
    swapcontext(&t->uc, &b->sched_uc);
#else
    cushim_swap(&t->sp, b->sched_sp);
#endif
#ifdef CUSHIM_ASAN
    __sanitizer_finish_switch_fiber(t->fake, 0, 0);
#endif
}
CUSHIM_NOSAN static void thread_main(void) {
#ifdef CUSHIM_ASAN
    __sanitizer_finish_switch_fiber(0, &cur->blk->sst, &cur->blk->ssz);
#endif
#ifdef CUSHIM_TSAN
    for (;;) {
        CUSHIM_ACQ(&cur->blk->schedtag);
        cur->blk->grid->kernel->run(cur->blk->grid->args);
        CUSHIM_REL(&cur->blk->grid->tag);
        cur->state = 4;
        yield_();
    }
#else
    cur->blk->grid->kernel->run(cur->blk->grid->args);
    cur->state = 4;
    yield_();
    abort();
#endif
}
/* scheduler -> thread */
CUSHIM_NOSAN static void resume(Block *b, Thread *t) {
    cur = t;
#ifdef CUSHIM_ASAN
    __sanitizer_start_switch_fiber(&b->sched_fake, t->stack, STACK);
#endif
#ifdef CUSHIM_TSAN
    __tsan_switch_to_fiber(t->tsan, 1);
#endif
#ifdef CUSHIM_UCONTEXT
    swapcontext(&b->sched_uc, &t->uc);
#else
    cushim_swap(&b->sched_sp, t->sp);
#endif
#ifdef CUSHIM_ASAN
    __sanitizer_finish_switch_fiber(b->sched_fake, 0, 0);
#endif
    cur = 0;
}
CUSHIM_NOSAN static void fiber_init(Thread *t) {
#ifdef CUSHIM_ASAN
    __asan_unpoison_memory_region(t->stack, STACK);
#endif
#ifdef CUSHIM_UCONTEXT
    getcontext(&t->uc);
    t->uc.uc_stack.ss_sp = t->stack;
    t->uc.uc_stack.ss_size = STACK;
    t->uc.uc_link = 0;
    makecontext(&t->uc, thread_main, 0);
#else
    void **s = (void **)(t->stack + STACK - 64);
    *--s = 0;
    *--s = (void *)thread_main;
    for (int i = 0; i < 6; i++) *--s = 0;
    t->sp = s;
#endif
}

/* ---------- block-wide barrier ---------- */
CUSHIM_NOSAN static void bar_release(Block *b) {
    b->arrived = 0;
    b->gen++;
    b->any[b->gen & 1] = 0;
    for (int i = 0; i < b->n; i++)
        if (b->th[i].state == 1) b->th[i].state = 0;
}
CUSHIM_NOSAN static void syncthreads(int line) {
    Thread *t = cur;
    Block *b = t->blk;
    if (b->alive != b->n) die("__syncthreads reached after some threads of the block returned", line);
    if (b->arrived && b->line != line) die("__syncthreads: threads of one block wait at different lines", line);
    b->line = line;
    t->line = line;
    int g = b->gen & 1;
    (void)g;
    CUSHIM_REL(&b->bartag[g]);
    if (++b->arrived == b->alive) bar_release(b);
    else {
        t->state = 1;
        yield_();
    }
    CUSHIM_ACQ(&b->bartag[g]);
}

CUSHIM_NOSAN static int syncthreads_or(int p, int line) {
    int g = cur->blk->gen & 1;
    if (p) cur->blk->any[g] = 1;
    syncthreads(line);
    return cur->blk->any[g];
}

/* ---------- warp-wide operations ---------- */
CUSHIM_NOSAN static const uint64_t *meet(unsigned mask, uint64_t v, int kind, int line) {
    Thread *t = cur;
    Warp *w = t->warp;
    Meet *m = 0;
    if (!(mask >> t->lane & 1)) die("warp operation: the calling lane is not in its mask", line);
    if (mask & ~((w->n == 32) ? ~0u : ((1u << w->n) - 1))) die("warp operation: mask names lanes the warp does not have", line);
    if (mask & ~w->alive) die("warp operation: a lane of the mask has returned", line);
    for (int i = 0; i < w->nmeet; i++)
        if (w->meet[i].mask == mask) m = &w->meet[i];
    if (!m) {
        if (w->nmeet == 32) die("warp operation: too many different masks", line);
        m = &w->meet[w->nmeet++];
        m->mask = mask;
        m->arrived = 0;
        m->gen = m->line = m->kind = 0;
    } /* no memset: TSan would see it */
    if (m->arrived && (m->line != line || m->kind != kind)) die("warp operation: lanes of one mask are at different operations", line);
    m->line = line;
    m->kind = kind;
    t->line = line;
    int g = m->gen & 1;
    m->val[g][t->lane] = v;
    m->arrived |= 1u << t->lane;
    if (m->arrived == mask) {
        m->arrived = 0;
        m->gen++;
        for (int i = 0; i < w->n; i++)
            if (w->t[i]->state == 2 && (mask >> i & 1)) w->t[i]->state = 0;
    } else {
        t->state = 2;
        yield_();
    }
    return m->val[g];
}
template <class T> CUSHIM_NOSAN static T shfl(unsigned mask, T v, int mode, int line, int arg, int width = 32) {
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    int lane = cur->lane, base = lane & ~(width - 1), src = lane;
    const uint64_t *r = meet(mask, u, 16 + mode, line);
    switch (mode) {
        case 0: src = base + (arg & (width - 1)); break;
        case 1:
            src = lane - arg;
            if (src < base) src = lane;
            break;
        case 2:
            src = lane + arg;
            if (src >= base + width) src = lane;
            break;
        case 3:
            src = lane ^ arg;
            if (src >= base + width) src = lane;
            break;
    }
    if (!(mask >> src & 1)) die("shuffle reads a lane that is not in the mask", line);
    T o;
    memcpy(&o, &r[src], sizeof o);
    return o;
}
CUSHIM_NOSAN static unsigned ballot(unsigned mask, int p, int line) {
    const uint64_t *r = meet(mask, p != 0, 32, line);
    unsigned o = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) o |= (unsigned)r[i] << i;
    return o;
}
CUSHIM_NOSAN static void syncwarp(int line, unsigned mask = 0xffffffffu) {
    char *tag = &cur->warp->tag;
    CUSHIM_REL(tag);
    meet(mask, 0, 33, line);
    CUSHIM_ACQ(tag);
    (void)tag;
}

/* ---------- shared memory: one allocation per variable and block, poisoned with NaN ---------- */
CUSHIM_NOSAN static void *smem(const void *key, size_t n, int line) {
    Thread *t = cur;
    Block *b = t->blk;
    for (int i = 0; i < b->nsm; i++)
        if (b->sm[i].key == key) {
            CUSHIM_ACQ(&b->schedtag);
            return b->sm[i].p;
        }
    if (b->nsm == 32) die("more than 32 shared variables", line);
    b->want_key = key;
    b->want_n = n;
    t->line = line;
    t->state = 3;
    yield_();
    CUSHIM_ACQ(&b->schedtag);
    return b->sm[b->nsm - 1].p;
}
CUSHIM_NOSAN static void *dynsmem(int line) {
    Block *b = cur->blk;
    if (!b->grid->dyn) die("kernel uses dynamic shared memory but was launched with 0 bytes", line);
    CUSHIM_ACQ(&b->schedtag);
    return b->dyn;
}

static inline uint64_t rnd(uint64_t *s) {
    uint64_t z = (*s += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

void run_grid(Grid *g);

/* ---------- streams, events, graphs: queues that run late ---------- */
struct Event { long want, done; };
/* What a launch may touch in the blocks that were named with nn_device_block (tests/cuda/guard.h); NULL: everything. */
struct Guard { std::vector<std::pair<char *, size_t> > range; };
struct Op { int kind; std::function<void()> fn; Event *ev; long ver, seq; std::shared_ptr<Guard> guard; bool kernel; };   /* kind 0 run, 1 record, 2 wait */
struct Graph;
struct Stream { std::deque<Op> q; bool legacy, blocking, capturing; Graph *cap; int id; };   /* id: 0 legacy, then 1, 2 .. of those that are there */
struct Node { Graph *graph; size_t at; };
struct Graph { std::vector<Op> ops; std::vector<Node *> nodes; long number; };
struct Dev {
    std::vector<Stream *> st;
    Stream *null;
    long seq;
    char *arena;
    size_t cap, top;
    int depth;                                          /* > 0: the arena is open */
    std::map<char *, size_t> live, pinned;
    std::map<const void *, size_t> maxdyn;
    int err;
    long launches, blocks, threads, handles, host, count[4], fail[4];    /* host: see cushim_calloc; allocations, launches, copies, handles */
    std::map<char *, size_t> guarded;
    std::shared_ptr<Guard> guard, guard_now;
    std::vector<std::pair<char *, size_t> > fills;
    std::map<const void *, Kernel *> kernels;
    std::set<Node *> nodes;                             /* of graphs that are there */
    long graphs;
    bool hurry, tracing;                                /* nn_device_hurry, nn_device_trace */
    std::string trace;
};
Dev &dev();
bool step(Stream *want);
} // namespace cushim

/* ---------- the runtime's names ---------- */
#define CUDART_VERSION 13000
typedef int cudaError_t;
enum {
    cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevicePointer = 17,
    cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100, cudaErrorInvalidDevice = 101, cudaErrorNotReady = 600, cudaErrorIllegalAddress = 700, cudaErrorInvalidDeviceFunction = 98,
    cudaErrorLaunchOutOfResources = 701, cudaErrorLaunchFailure = 719, cudaErrorStreamCaptureUnsupported = 900, cudaErrorUnknown = 999
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8, cudaFuncAttributePreferredSharedMemoryCarveout = 9 };
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1, cudaDevAttrMaxSharedMemoryPerBlock = 8, cudaDevAttrWarpSize = 10, cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97, cudaDevAttrMemoryPoolsSupported = 115
};
enum cudaMemPoolAttr { cudaMemPoolReuseFollowEventDependencies = 1, cudaMemPoolAttrReleaseThreshold = 4 };
typedef cushim::Stream *cudaStream_t;
typedef cushim::Event *cudaEvent_t;
typedef struct cushim_pool *cudaMemPool_t;
struct cushim_exec { std::vector<cushim::Op> ops; long number; };           /* number: of the graph that it was made from */
typedef cushim::Node *cudaGraphNode_t;
typedef struct cushim_edge *cudaGraphEdgeData;
typedef cushim::Graph *cudaGraph_t;
typedef cushim_exec *cudaGraphExec_t;
struct cudaKernelNodeParams { void *func; dim3 grid, block; unsigned sharedMemBytes; void **kernelParams, **extra; };     /* gridDim, blockDim: macros here */
struct cudaGraphExecUpdateResultInfo { int result; };
struct cudaFuncAttributes { size_t sharedSizeBytes, constSizeBytes, localSizeBytes; int maxThreadsPerBlock, numRegs; };
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, maxThreadsPerMultiProcessor, l2CacheSize, regsPerBlock;
};

namespace cushim {
static inline cudaError_t seterr(int e) { if (e) dev().err = e; return e; }
static inline bool within(const std::map<char *, size_t> &m, const void *p, size_t n)
{
    auto it = m.upper_bound((char *)p);
    if (it == m.begin()) return false;
    --it;
    return (char *)p + n <= it->first + it->second;
}
static inline bool isdev(const void *p, size_t n) { return within(dev().live, p, n); }
static inline Stream *S(cudaStream_t s) { return s ? s : dev().null; }
static inline void arena_protect(bool open) { Dev &d = dev(); if (!conf().dry && mprotect(d.arena, d.cap, open ? PROT_READ | PROT_WRITE : PROT_NONE)) die("mprotect", 0); }
static inline void arena_open(bool o)                    /* nests, so that a whole queue runs with one change of rights */
{
    Dev &d = dev();
    if (o ? d.depth++ == 0 : --d.depth == 0) arena_protect(o);
}
static inline bool planned_failure(int kind) { Dev &d = dev(); return ++d.count[kind] == d.fail[kind]; }
static inline bool capturing(void) { for (Stream *s : dev().st) if (s->capturing) return true; return false; }
static inline void note(Stream *s, char what) { Dev &d = dev(); if (d.tracing && !s->capturing) { d.trace += (char)('0' + s->id); d.trace += what; } }
static inline int enqueue(Stream *s, Op o)
{
    Dev &d = dev();
    if (o.kind == 0) {
        o.guard = d.guard;
        if (d.fills.size()) {
            std::vector<std::pair<char *, size_t> > fills;
            fills.swap(d.fills);
            Op f;
            f.kind = 0; f.ev = 0; f.ver = 0; f.kernel = false;
            f.fn = [fills]() { for (auto &r : fills) memset(r.first, 0xff, r.second); };
            enqueue(s, f);
        }
    }
    if (s->capturing) { s->cap->ops.push_back(o); return 0; }
    o.seq = d.seq++;
    s->q.push_back(o);
    if (d.hurry && s->id > 1) {                          /* what waits for nothing runs at once */
        arena_open(true);
        while (!s->q.empty() && !(s->q.front().kind == 2 && s->q.front().ev->done < s->q.front().ver) && step(s)) {}
        arena_open(false);
    }
    if (conf().eager) { arena_open(true); while (!s->q.empty() && step(s)) {} arena_open(false); }
    return 0;
}
static inline void forget(void *p, size_t n)             /* the pages go back: they read as 0 */
{
    uintptr_t from = ((uintptr_t)p + 4095) & ~(uintptr_t)4095, to = ((uintptr_t)p + n) & ~(uintptr_t)4095;
    if (from >= to) { memset(p, 0, n); return; }
    memset(p, 0, from - (uintptr_t)p);
    memset((void *)to, 0, (uintptr_t)p + n - to);
    madvise((void *)from, to - from, MADV_DONTNEED);
}
static inline void copy_written(char *to, const char *from, size_t n)     /* pages that were never touched are 0 */
{
    static unsigned char there[1 << 14];
    const char *at = (const char *)((uintptr_t)from & ~(uintptr_t)4095);
    forget(to, n);
    for (; at < from + n; at += sizeof there * 4096) {
        size_t pages = ((size_t)(from + n - at) + 4095) / 4096;
        if (pages > sizeof there) pages = sizeof there;
        if (mincore((void *)at, pages * 4096, there)) die("mincore", 0);
        for (size_t p = 0; p < pages; p++) {
            const char *b = at + p * 4096, *e = b + 4096;
            if (b < from) b = from;
            if (e > from + n) e = from + n;
            if (there[p] & 1) memcpy(to + (b - from), b, (size_t)(e - b));
        }
    }
}
static inline int run_op(Stream *s, std::function<void()> f) { Op o; o.kind = 0; o.fn = f; o.ev = 0; o.ver = 0; o.kernel = false; return enqueue(s, o); }
static inline int finish(Stream *s)
{
    if (s->capturing) return seterr(cudaErrorStreamCaptureUnsupported);
    note(s, 'Y');
    arena_open(true);
    while (!s->q.empty()) if (!step(s)) die("stream waits for an event that is never recorded", 0);
    arena_open(false);
    return 0;
}

template <int... I> struct seq {};
template <int N, int... I> struct mkseq : mkseq<N - 1, N - 1, I...> {};
template <int... I> struct mkseq<0, I...> { typedef seq<I...> type; };
/* a pointer argument must point into device memory (or be null; a 0-d or empty view may stand right behind a block) */
template <class T> static inline bool okarg(const T &) { return true; }
template <class T> static inline bool okarg(T *const &p) { return !p || isdev((const void *)p, 0); }

template <class... P> struct KernelOf : Kernel {
    enum { N = sizeof...(P) };
    typedef typename mkseq<N>::type All;
    void (*k)(P...);
    size_t at[N + 1], align;
    KernelOf(const char *n, void (*f)(P...)) : k(f), align(16)
    {
        size_t size[] = { sizeof(P)..., 0 }, to[] = { alignof(P)..., 1 }, i = 0;
        for (name = n, bytes = 0; i <= N; bytes += size[i++]) {
            if (to[i] > align) align = to[i];
            at[i] = bytes = (bytes + to[i] - 1) / to[i] * to[i];
        }
    }
    template <int... I> bool good_(void **args, seq<I...>) { bool ok[] = { okarg(*(P *)args[I])..., true }; for (bool b : ok) if (!b) return false; return true; }
    template <int... I> void run_(char *args, seq<I...>) { k(*(P *)(args + at[I])...); }
    bool good(void **args) { return good_(args, All()); }
    char *copy(void **args)
    {
        size_t size[] = { sizeof(P)..., 0 };
        void *p = 0;
        if (posix_memalign(&p, align, bytes + 1)) abort();
        for (size_t i = 0; i < N; i++) memcpy((char *)p + at[i], args[i], size[i]);
        return (char *)p;
    }
    void run(char *args) { run_(args, All()); }
};
template <class... P> static inline void know(const char *name, void (*k)(P...)) { Kernel *&to = dev().kernels[(const void *)k]; if (!to) to = new KernelOf<P...>(name, k); }

/* A launch as something that a stream or a graph does; arguments are copied now, as on a GPU. */
static inline int kernel_op(Op *o, const void *f, dim3 g, dim3 b, void **args, size_t dyn)
{
    Dev &d = dev();
    auto known = d.kernels.find(f);
    size_t n = (size_t)b.x * b.y * b.z;
    auto md = d.maxdyn.find(f);
    size_t lim = md == d.maxdyn.end() ? 49152 : md->second;
    if (conf().nodev) return seterr(cudaErrorNoDevice);
    if (known == d.kernels.end()) return seterr(cudaErrorInvalidDeviceFunction);
    Kernel *k = known->second;
    if (k->bytes > 4096) { fprintf(stderr, "cushim: kernel %s takes %zu bytes of arguments\n", k->name, k->bytes); return seterr(cudaErrorInvalidValue); }
    if (!n || n > 1024 || b.z > 64 || !g.x || !g.y || !g.z || g.x > 2147483647u || g.y > 65535 || g.z > 65535 || dyn > lim)
        return seterr(cudaErrorInvalidConfiguration);
    if (!k->good(args)) {
        fprintf(stderr, "cushim: kernel %s was given a pointer that is not device memory\n", k->name);
        return seterr(cudaErrorInvalidDevicePointer);
    }
    std::shared_ptr<char> copy(k->copy(args), free);
    o->kind = 0; o->ev = 0; o->ver = 0; o->kernel = true;
    o->fn = [=]() {
        Grid gr;
        gr.kernel = k; gr.g = g; gr.b = b; gr.dyn = dyn; gr.args = copy.get(); gr.next = 0; gr.tag = 0; gr.stat = 0;
        run_grid(&gr);
    };
    return 0;
}
} // namespace cushim

/* Before a kernel's first launch: what nvcc does when the program starts. */
#define NN_KERNEL(k) cushim::know(#k, k)
/* Shared memory: NN_SHARED(float, tile, [32][33]);  with nvcc: __shared__ float tile[32][33]; */
#define NN_SHARED(T, name, dims)              \
    static const char name##_key_ = 0;        \
    typedef T name##_t_ dims;                 \
    name##_t_ &name = *(name##_t_ *)cushim::smem(&name##_key_, sizeof(name##_t_), __LINE__)
#define NN_SHARED_DYN(T, name) T *name = (T *)cushim::dynsmem(__LINE__)

#define threadIdx (cushim::cur->tid)
#define blockIdx  (cushim::cur->blk->bid)
#define blockDim  (cushim::cur->blk->grid->b)
#define gridDim   (cushim::cur->blk->grid->g)
static const int warpSize = 32;
#define CUSHIM_WIDTH(a, n, ...) n
#define __syncthreads()               cushim::syncthreads(__LINE__)
#define __syncthreads_or(p)           cushim::syncthreads_or(p, __LINE__)
#define __shfl_sync(m, v, ...)        cushim::shfl(m, v, 0, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(m, v, ...)     cushim::shfl(m, v, 1, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(m, v, ...)   cushim::shfl(m, v, 2, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(m, v, ...)    cushim::shfl(m, v, 3, __LINE__, __VA_ARGS__)
#define __ballot_sync(m, p)           cushim::ballot(m, p, __LINE__)
#define __any_sync(m, p)              (cushim::ballot(m, p, __LINE__) != 0)
#define __all_sync(m, p)              (cushim::ballot(m, p, __LINE__) == (unsigned)(m))
#define __syncwarp(...)               cushim::syncwarp(__LINE__, ##__VA_ARGS__)
#define __activemask()                cushim::die("__activemask says nothing: name the lanes", __LINE__)
#define __threadfence()               __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __threadfence_block()         __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __ldg(p)                      (*(p))
#define __ldcg(p)                     (*(p))
#define __ldcs(p)                     (*(p))
#define __stcs(p, v)                  (*(p) = (v))
#define __stcg(p, v)                  (*(p) = (v))
#define __trap()                      cushim::die("__trap", __LINE__)
#define __nanosleep(n)                ((void)(n))

/* ---------- intrinsics ---------- */
/* glibc declares functions with some of these names */
#define __expf(x)   expf(x)
#define __exp10f(x) exp10f(x)
#define __logf(x)   logf(x)
#define __log2f(x)  log2f(x)
#define __sinf(x)   sinf(x)
#define __cosf(x)   cosf(x)
#define __powf(x, y) powf(x, y)
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
static inline float __fsub_rn(float a, float b) { volatile float r = a - b; return r; }
static inline float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { volatile double r = a + b; return r; }
static inline double __dmul_rn(double a, double b) { volatile double r = a * b; return r; }
static inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline int __float2int_rn(float x) { return (int)lrintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
#define CUSHIM_BITS(name, A, B) static inline B name(A a) { B b; memcpy(&b, &a, sizeof b); return b; }
CUSHIM_BITS(__float_as_uint, float, unsigned)
CUSHIM_BITS(__uint_as_float, unsigned, float)
CUSHIM_BITS(__float_as_int, float, int)
CUSHIM_BITS(__int_as_float, int, float)
CUSHIM_BITS(__double_as_longlong, double, long long)
CUSHIM_BITS(__longlong_as_double, long long, double)
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) { unsigned r = 0; for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i); return r; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) { n &= 31; return n ? hi << n | lo >> (32 - n) : hi; }
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) { n &= 31; return n ? lo >> n | hi << (32 - n) : lo; }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s)
{
    uint64_t w = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(w >> ((s >> (4 * i) & 7) * 8) & 255) << (8 * i);
    return r;
}
static inline int __dp4a(int a, int b, int c) { for (int i = 0; i < 4; i++) c += (int)(int8_t)(a >> (8 * i)) * (int)(int8_t)(b >> (8 * i)); return c; }
#define CUSHIM_MINMAX(T)                                    \
    static inline T min(T a, T b) { return a < b ? a : b; } \
    static inline T max(T a, T b) { return a > b ? a : b; }
CUSHIM_MINMAX(int) CUSHIM_MINMAX(unsigned) CUSHIM_MINMAX(long) CUSHIM_MINMAX(unsigned long) CUSHIM_MINMAX(long long) CUSHIM_MINMAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

/* ---------- atomics (real ones: blocks may run on several OS threads) ---------- */
template <class T> static inline T atomicAdd(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
template <class T> static inline T atomicSub(T *p, T v) { return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED); }
template <class T> static inline T atomicOr(T *p, T v)  { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); }
template <class T> static inline T atomicAnd(T *p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); }
static inline float atomicAdd(float *p, float v)
{
    unsigned *u = (unsigned *)p, o = __atomic_load_n(u, __ATOMIC_RELAXED), n;
    do n = __float_as_uint(__uint_as_float(o) + v); while (!__atomic_compare_exchange_n(u, &o, n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return __uint_as_float(o);
}
template <class T> static inline T atomicMax(T *p, T v)
{
    T o = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (o < v && !__atomic_compare_exchange_n(p, &o, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return o;
}
template <class T> static inline T atomicMin(T *p, T v)
{
    T o = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (v < o && !__atomic_compare_exchange_n(p, &o, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return o;
}
template <class T> static inline T atomicCAS(T *p, T c, T v) { __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); return c; }
template <class T> static inline T atomicExch(T *p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }

/* ---------- tensor cores: PTX's fragment layouts, computed by the lanes together ----------
   mma.sync.aligned.m16n8kK.row.col.f32.T.T.f32: d (4 floats) += a (16 x K) b (K x 8). A lane holds rows lane/4 and lane/4 + 8. */
namespace cushim {
#define CUSHIM_BARE __attribute__((no_sanitize_address, no_sanitize_undefined, no_sanitize_thread))       /* arithmetic of the simulator's own */
CUSHIM_BARE static inline float as_float(uint32_t w) { float f; memcpy(&f, &w, 4); return f; }
CUSHIM_BARE static inline float half_to_float(uint32_t h)
{
    uint32_t s = (h & 0x8000u) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return as_float(s | 0x7f800000u | m << 13);
    if (!e) { float f = (float)m * 5.9604644775390625e-8f; return s ? -f : f; }
    return as_float(s | (e + 112) << 23 | m << 13);
}
enum { BF16, F16, TF32 };
CUSHIM_BARE static inline float part(uint32_t w, int hi, int type)
{
    return type == BF16 ? as_float(hi ? w & 0xffff0000u : w << 16) : type == F16 ? half_to_float(hi ? w >> 16 : w & 0xffffu) : as_float(w & 0xffffe000u);
}
/* the lanes show each other two registers at a time */
CUSHIM_NOSAN static void exchange(uint32_t to[2][32], const uint32_t *registers, int kind, int line)
{
    const uint64_t *r = meet(~0u, registers[0] | (uint64_t)registers[1] << 32, kind, line);
    for (int q = 0; q < 32; q++) { to[0][q] = (uint32_t)r[q]; to[1][q] = (uint32_t)(r[q] >> 32); }
}
CUSHIM_BARE static void mma(float d[4], const uint32_t *a, const uint32_t *b, int type, int K, int line)
{
    int per = type == TF32 ? 1 : 2;
    uint32_t A[4][32], B[2][32];                                                         /* both forms have 4 and 2 registers */
    exchange(A, a, 40, line);
    exchange(A + 2, a + 2, 41, line);
    exchange(B, b, 42, line);
    int g = cur->lane >> 2, t = cur->lane & 3, half = 4 * per;                           /* half: columns that one register of a row spans */
    for (int i = 0; i < 4; i++) {
        int row = g + (i >> 1) * 8, col = t * 2 + (i & 1);
        double s = 0;
        for (int k = 0; k < K; k++) {
            int in = k % half, block = k / half;
            s += (double)part(A[(row >> 3) + block * 2][(row & 7) * 4 + in / per], in % per, type) * part(B[block][col * 4 + in / per], in % per, type);
        }
        d[i] = (float)(d[i] + s);
    }
}
static uint32_t two(const uint64_t *m, int a, int b) { return (uint32_t)((const uint16_t *)m[b])[a] | (uint32_t)((const uint16_t *)m[b + 1])[a] << 16; }    /* sanitizers see these reads */
/* ldmatrix: lane l names row l of four 8x8 matrices (16 bytes each); every lane gets two numbers of each, turned */
CUSHIM_NOSAN static void ldmatrix_trans(uint32_t *r, const void *row, int line)
{
    const uint64_t *p = meet(~0u, (uint64_t)(uintptr_t)row, 48, line);
    uint64_t rows[32];
    for (int q = 0; q < 32; q++) rows[q] = p[q];
    int lane = cur->lane;
    if ((uintptr_t)row & 15) die("ldmatrix: a row is not aligned to 16 bytes", line);
    for (int i = 0; i < 4; i++) r[i] = two(rows + 8 * i, lane / 4, lane % 4 * 2);
}
} // namespace cushim
#define NN__MMA_BF16_16816(d, a, b) cushim::mma(d, a, b, cushim::BF16, 16, __LINE__)
#define NN__MMA_F16_16816(d, a, b)  cushim::mma(d, a, b, cushim::F16, 16, __LINE__)
#define NN__MMA_TF32_1688(d, a, b)  cushim::mma(d, a, b, cushim::TF32, 8, __LINE__)
#define NN__LDMATRIX_TRANS(r, row)  cushim::ldmatrix_trans(r, row, __LINE__)

/* ---------- host API ---------- */
static inline const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
        case cudaSuccess: return "no error";
        case cudaErrorInvalidValue: return "invalid argument";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInvalidConfiguration: return "invalid configuration argument";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorNotReady: return "device not ready";
        case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
        case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
        case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
        default: return "unknown error";
    }
}
static inline const char *cudaGetErrorName(cudaError_t e) { return e ? "cudaError" : "cudaSuccess"; }
static inline cudaError_t cudaGetDeviceCount(int *n) { if (cushim::conf().nodev) return cudaErrorNoDevice; *n = 1; return 0; }
static inline cudaError_t cudaSetDevice(int i) { return cushim::conf().nodev ? cudaErrorNoDevice : i ? cudaErrorInvalidDevice : 0; }
static inline cudaError_t cudaGetDevice(int *i) { *i = 0; return cushim::conf().nodev ? cudaErrorNoDevice : 0; }
static inline cudaError_t cudaDriverGetVersion(int *v) { *v = cushim::conf().nodev ? 0 : 13000; return 0; }
static inline cudaError_t cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i)
{
    if (cushim::conf().nodev) return cudaErrorNoDevice;
    if (i) return cushim::seterr(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "cushim");
    p->totalGlobalMem = cushim::conf().arena;
    p->sharedMemPerBlock = 49152;
    p->sharedMemPerBlockOptin = 232448;
    p->sharedMemPerMultiprocessor = 233472;
    p->major = 9;
    p->multiProcessorCount = cushim::conf().sms;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsPerMultiProcessor = 2048;
    p->l2CacheSize = 1 << 20;
    p->regsPerBlock = 65536;
    return 0;
}
static inline cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int)
{
    *v = a == cudaDevAttrMultiProcessorCount ? cushim::conf().sms : a == cudaDevAttrComputeCapabilityMajor ? 9 : a == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 232448
       : a == cudaDevAttrMaxSharedMemoryPerBlock ? 49152 : a == cudaDevAttrWarpSize ? 32 : a == cudaDevAttrMaxThreadsPerBlock ? 1024 : a == cudaDevAttrMemoryPoolsSupported ? 1 : 0;
    return cushim::conf().nodev ? cudaErrorNoDevice : 0;
}
static inline cudaError_t cudaGetLastError(void) { int e = cushim::dev().err; cushim::dev().err = 0; return e; }
static inline cudaError_t cudaPeekAtLastError(void) { return cushim::dev().err; }
/* Pieces of scratch memory lie apart; a guarded call may touch the pieces it asked for, and nothing beside them. */
#define NN__SCRATCH_GAP 256
#define NN__SCRATCH_IS(p, n, block) cushim_scratch(p, n, (block)->at, (block)->bytes)
void cushim_scratch(void *p, size_t n, void *block, size_t room);
cudaError_t cushim_malloc(void **p, size_t n);
cudaError_t cushim_free(void *p);
static inline cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **args, size_t dyn, cudaStream_t s)
{
    using namespace cushim;
    Op o;
    int e = kernel_op(&o, f, g, b, args, dyn);
    if (e) return e;
    if (planned_failure(1)) return seterr(cudaErrorLaunchOutOfResources);
    note(S(s), 'K');
    if (conf().dry == 1) { dev().launches++; return 0; }
    return enqueue(S(s), o);
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t s) { return cushim::finish(cushim::S(s)); }
static inline cudaError_t cudaDeviceSynchronize(void)
{
    for (size_t i = 0; i < cushim::dev().st.size(); i++) { int e = cushim::finish(cushim::dev().st[i]); if (e) return e; }
    return 0;
}
static inline cudaError_t cudaDeviceReset(void) { return cudaDeviceSynchronize(); }
static inline cudaError_t cudaMemGetInfo(size_t *f, size_t *t) { *t = cushim::dev().cap; *f = cushim::dev().cap - cushim::dev().top; return 0; }
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t n) { return cushim_malloc((void **)p, n); }
template <class T> static inline cudaError_t cudaMallocAsync(T **p, size_t n, cudaStream_t) { return cushim_malloc((void **)p, n); }
static inline cudaError_t cudaFree(void *p)
{
    int e = cudaDeviceSynchronize();
    return e ? e : cushim_free(p);
}
static inline cudaError_t cudaFreeAsync(void *p, cudaStream_t s)
{
    if (!cushim::isdev(p, 1)) return cushim::seterr(cudaErrorInvalidValue);
    return cushim::run_op(cushim::S(s), [=]() { cushim_free(p); });
}
static inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int) { *p = 0; return 0; }
static inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *) { return 0; }
static inline cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return 0; }
/* pinned memory: the only host memory that a copy reads or writes late */
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t n)
{
    if (cushim::conf().nodev) return cudaErrorNoDevice;
    if (cushim::planned_failure(0) || !(*p = (T *)malloc(n ? n : 1))) return cushim::seterr(cudaErrorMemoryAllocation);
    cushim::dev().pinned[(char *)*p] = n;
    return 0;
}
template <class T> static inline cudaError_t cudaHostAlloc(T **p, size_t n, unsigned) { return cudaMallocHost(p, n); }
static inline cudaError_t cudaFreeHost(void *p)
{
    if (!p) return 0;
    if (!cushim::dev().pinned.erase((char *)p)) return cushim::seterr(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    free(p);
    return 0;
}
static inline cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind k, cudaStream_t st)
{
    using namespace cushim;
    bool dd = isdev(d, n), sd = isdev(s, n);
    if (!n) return 0;
    if (k == cudaMemcpyDefault) k = dd ? sd ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice : sd ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
    if (dd != (k == cudaMemcpyHostToDevice || k == cudaMemcpyDeviceToDevice) || sd != (k == cudaMemcpyDeviceToHost || k == cudaMemcpyDeviceToDevice)) {
        fprintf(stderr, "cushim: cudaMemcpy of %zu bytes: a pointer is on the wrong side or out of bounds\n", n);
        return seterr(cudaErrorInvalidValue);
    }
    if (planned_failure(2)) return seterr(cudaErrorUnknown);
    note(S(st), k == cudaMemcpyHostToDevice ? 'U' : k == cudaMemcpyDeviceToHost ? 'D' : 'C');
    if (conf().dry && n > 1 << 26) {
        return conf().dry == 1 || k != cudaMemcpyDeviceToDevice ? 0 : run_op(S(st), [=]() { copy_written((char *)d, (const char *)s, n); });
    }
    if (k == cudaMemcpyHostToDevice && !within(dev().pinned, s, n)) {   /* pageable memory is read before the call returns */
        std::vector<char> now((const char *)s, (const char *)s + n);
        return run_op(S(st), [d, now]() { memcpy(d, now.data(), now.size()); });
    }
    int e = run_op(S(st), [=]() { memmove(d, s, n); });
    return !e && k == cudaMemcpyDeviceToHost && !within(dev().pinned, d, n) ? finish(S(st)) : e;
}
static inline cudaError_t cudaMemcpy(void *d, const void *s, size_t n, cudaMemcpyKind k) { int e = cudaMemcpyAsync(d, s, n, k, 0); return e ? e : cudaStreamSynchronize(0); }
static inline cudaError_t cudaMemcpy2DAsync(void *d, size_t dp, const void *s, size_t sp, size_t w, size_t h, cudaMemcpyKind k, cudaStream_t st)
{
    for (size_t i = 0; i < h; i++) { int e = cudaMemcpyAsync((char *)d + i * dp, (const char *)s + i * sp, w, k, st); if (e) return e; }
    return 0;
}
static inline cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t st)
{
    if (!n) return 0;
    if (!cushim::isdev(d, n)) return cushim::seterr(cudaErrorInvalidValue);
    if (cushim::planned_failure(2)) return cushim::seterr(cudaErrorUnknown);
    if (cushim::conf().dry && n > 1 << 26) return v || cushim::conf().dry == 1 ? 0 : cushim::run_op(cushim::S(st), [=]() { cushim::forget(d, n); });
    return cushim::run_op(cushim::S(st), [=]() { memset(d, v, n); });
}
static inline cudaError_t cudaMemset(void *d, int v, size_t n) { return cudaMemsetAsync(d, v, n, 0); }
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f)
{
    if (cushim::conf().nodev) return cudaErrorNoDevice;
    if (cushim::planned_failure(3)) return cushim::seterr(cudaErrorMemoryAllocation);
    *s = new cushim::Stream();
    (*s)->blocking = !(f & 1);
    (*s)->id = (int)cushim::dev().st.size();
    cushim::dev().handles++;
    cushim::dev().st.push_back(*s);
    return 0;
}
static inline cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, 0); }
static inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int) { return cudaStreamCreateWithFlags(s, f); }
static inline cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    cushim::finish(s);
    auto &v = cushim::dev().st;
    for (size_t i = 0; i < v.size(); i++) if (v[i] == s) { v.erase(v.begin() + (long)i); break; }
    cushim::dev().handles--;
    delete s->cap;
    delete s;
    return 0;
}
static inline cudaError_t cudaStreamQuery(cudaStream_t s) { return cushim::S(s)->q.empty() ? 0 : cudaErrorNotReady; }
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    if (cushim::conf().nodev) return cudaErrorNoDevice;
    if (cushim::planned_failure(3)) return cushim::seterr(cudaErrorMemoryAllocation);
    *e = new cushim::Event();
    cushim::dev().handles++;
    return 0;
}
static inline cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) { cudaDeviceSynchronize(); cushim::dev().handles--; delete e; return 0; }
static inline cudaError_t cushim_event(cudaStream_t s, int kind, cudaEvent_t e, long ver) { cushim::Op o; o.kind = kind; o.ev = e; o.ver = ver; o.seq = 0; o.kernel = false; cushim::note(cushim::S(s), kind == 1 ? 'R' : 'W'); return cushim::enqueue(cushim::S(s), o); }
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return cushim_event(s, 1, e, ++e->want); }
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) { return cushim_event(s, 2, e, e->want); }
static inline cudaError_t cudaEventQuery(cudaEvent_t e) { return e->done >= e->want ? 0 : cudaErrorNotReady; }
static inline cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    cushim::arena_open(true);
    while (e->done < e->want) {
        bool any = false;
        for (size_t i = 0; i < cushim::dev().st.size() && !any; i++) any = !cushim::dev().st[i]->q.empty() && cushim::step(cushim::dev().st[i]);
        if (!any) cushim::die("event never recorded", 0);
    }
    cushim::arena_open(false);
    return 0;
}
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t) { *ms = 1; return 0; }
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (!s || s->capturing) return cushim::seterr(cudaErrorStreamCaptureUnsupported);
    if (cushim::planned_failure(3)) return cushim::seterr(cudaErrorMemoryAllocation);
    s->capturing = true;
    s->cap = new cushim::Graph();
    s->cap->number = ++cushim::dev().graphs;
    return 0;
}
static inline cudaError_t cudaGraphDestroy(cudaGraph_t g);
static inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    if (!s->capturing) return cushim::seterr(cudaErrorStreamCaptureUnsupported);
    *g = s->cap;
    cushim::dev().handles++;
    s->cap = 0;
    s->capturing = false;
    if (!cushim::planned_failure(3)) return 0;           /* else it ends all the same */
    cudaGraphDestroy(*g);
    *g = 0;
    return cushim::seterr(cudaErrorMemoryAllocation);
}
static inline cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *st) { *st = cushim::S(s)->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone; return 0; }
static inline cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, cudaStreamCaptureStatus *st, unsigned long long *, cudaGraph_t *, const cudaGraphNode_t **last, const cudaGraphEdgeData **, size_t *n)
{
    cudaStreamIsCapturing(s, st);
    if (!s->capturing) return cushim::seterr(cudaErrorStreamCaptureUnsupported);
    cushim::Graph *g = s->cap;
    while (g->nodes.size() < g->ops.size()) {
        g->nodes.push_back(new cushim::Node{ g, g->nodes.size() });
        cushim::dev().nodes.insert(g->nodes.back());
    }
    *n = !g->nodes.empty();
    *last = *n ? &g->nodes.back() : 0;
    return 0;
}
static inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long)
{
    if (cushim::planned_failure(3)) return cushim::seterr(cudaErrorMemoryAllocation);
    *x = new cushim_exec{ g->ops, g->number };
    cushim::dev().handles++;
    return 0;
}
/* The node is that of the graph, which must be there, that x was made from. */
static inline cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t x, cudaGraphNode_t node, const cudaKernelNodeParams *p)
{
    using namespace cushim;
    Op o;
    if (!dev().nodes.count(node) || node->graph->number != x->number) { fprintf(stderr, "cushim: the node of another graph, or of one that is no more\n"); return seterr(cudaErrorInvalidValue); }
    if (!x->ops[node->at].kernel) return seterr(cudaErrorInvalidValue);
    int e = kernel_op(&o, p->func, p->grid, p->block, p->kernelParams, p->sharedMemBytes);
    if (e) return e;
    o.guard = dev().guard;
    x->ops[node->at] = o;
    return 0;
}
static inline cudaError_t cudaGraphExecUpdate(cudaGraphExec_t x, cudaGraph_t g, cudaGraphExecUpdateResultInfo *)
{
    if (x->ops.size() != g->ops.size()) return cushim::seterr(cudaErrorInvalidValue);
    x->ops = g->ops;
    return 0;
}
static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    using namespace cushim;
    Dev &d = dev();
    if (planned_failure(1)) return seterr(cudaErrorLaunchOutOfResources);
    note(S(s), 'G');
    for (auto o : x->ops) { o.seq = d.seq++; S(s)->q.push_back(o); }        /* with the guards of the time when it was captured */
    return 0;
}
static inline cudaError_t cudaGraphGetNodes(cudaGraph_t g, void *, size_t *n) { *n = g->ops.size(); return 0; }
static inline cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    cushim::dev().handles--;
    for (auto n : g->nodes) { cushim::dev().nodes.erase(n); delete n; }
    delete g;
    return 0;
}
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { cudaDeviceSynchronize(); cushim::dev().handles--; delete g; return 0; }
template <class... P> static inline cudaError_t cudaFuncSetAttribute(void (*k)(P...), int attr, int v)
{
    if (attr == cudaFuncAttributePreferredSharedMemoryCarveout) return 0;
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || v > 232448) return cushim::seterr(cudaErrorInvalidValue);
    cushim::dev().maxdyn[(const void *)k] = (size_t)v;
    return 0;
}
template <class F> static inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, F) { memset(a, 0, sizeof *a); a->maxThreadsPerBlock = 1024; return 0; }
template <class F> static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, F, int, size_t) { *n = 2; return 0; }

/* ---------- what tests ask for: see tests/cuda/guard.h ---------- */
extern "C" {
void nn_device_block(void *p, size_t n, int there);
void nn_device_guard(void *const *p, const size_t *n, int count);
void nn_device_fill(void *p, size_t n);
void nn_device_fail(int kind, long n);
long nn_device_count(int kind);
long nn_device_live(void);
const char *nn_device_kernel(int number);
void nn_device_hurry(int on);
const char *nn_device_trace(int on);
}

#ifndef CUSHIM_DECLARATIONS
namespace cushim {
thread_local Thread *cur;
Conf &conf()
{
    static Conf c;
    static bool init;
    if (!init) {
        const char *o = env("CUSHIM_ORDER", "fwd");
        c.order = !strcmp(o, "rev") ? 1 : !strcmp(o, "rand") ? 2 : 0;
        c.workers = atoi(env("CUSHIM_WORKERS", "1"));
        c.eager = atoi(env("CUSHIM_EAGER", "0"));
        c.nodev = atoi(env("CUSHIM_NODEV", "0"));
        c.dry = atoi(env("CUSHIM_DRY", "0"));
        c.sms = atoi(env("CUSHIM_SMS", "4"));
        c.stats = atoi(env("CUSHIM_STATS", "0"));
        c.seed = strtoull(env("CUSHIM_SEED", "1"), 0, 10);
        c.arena = (size_t)atol(env("CUSHIM_ARENA", "4096")) << 20;
        init = true;
    }
    return c;
}
static void stats_at_exit() { Dev &d = dev(); fprintf(stderr, "cushim: %ld launches, %ld blocks, %ld threads, %ld things live\n", d.launches, d.blocks, d.threads, nn_device_live()); }
Dev &dev()
{
    static Dev *d;
    if (!d) {
        d = new Dev();
        d->null = new Stream();
        d->null->legacy = true;
        d->null->blocking = true;
        d->st.push_back(d->null);
        d->cap = conf().arena;
        d->arena = (char *)mmap(0, d->cap, conf().dry ? PROT_READ | PROT_WRITE : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (conf().dry) madvise(d->arena, d->cap, MADV_NOHUGEPAGE);         /* few pages are touched, far from each other */
        if (conf().stats) atexit(stats_at_exit);
    }
    return *d;
}
/* Before a launch with a guard, AddressSanitizer learns what it may touch: the ranges of the guard, and every block that is not guarded.
   Without it what lies beside the ranges is NaN while the launch runs, and must be NaN after it. */
static void apply_guard(const std::shared_ptr<Guard> &g)
{
#ifdef CUSHIM_ASAN
    Dev &d = dev();
    if (g == d.guard_now) return;
    for (auto &b : d.guarded) if (g) __asan_poison_memory_region(b.first, b.second); else __asan_unpoison_memory_region(b.first, b.second);
    if (g) for (auto &r : g->range) __asan_unpoison_memory_region(r.first, r.second);
    d.guard_now = g;
#else
    (void)g;
#endif
}
static void run_guarded(Op &o)
{
#if defined(CUSHIM_ASAN) || defined(CUSHIM_TSAN)
    apply_guard(o.guard);
    o.fn();
#else
    enum { FENCE = 512 };
    struct Side { char *at; std::vector<char> was; };
    std::vector<Side> sides;
    std::map<char *, char *> ranges;                     /* begin, end */
    if (o.guard && !conf().dry) for (auto &r : o.guard->range) { char *&end = ranges[r.first]; if (end < r.first + r.second) end = r.first + r.second; }
    auto fence = [&](char *from, char *to) { if (from < to) { sides.push_back(Side{ from, std::vector<char>(from, to) }); memset(from, 0xff, (size_t)(to - from)); } };
    for (auto &b : dev().guarded) {
        char *last = NULL, *top = b.first + b.second;    /* the end of the ranges so far, and of the block */
        for (auto r = ranges.lower_bound(b.first); r != ranges.end() && r->first < top; ++r) {
            char *from = r->first - b.first > FENCE ? r->first - FENCE : b.first;
            if (last) {
                char *to = last + FENCE < r->first ? last + FENCE : r->first;
                fence(last, to);
                if (from < to) from = to;
            }
            fence(from, r->first);
            if (!last || last < r->second) last = r->second;
        }
        if (last) fence(last, top - last > FENCE ? last + FENCE : top);
    }
    o.fn();
    for (auto &s : sides) {
        for (size_t i = 0; i < s.was.size(); i++) if ((unsigned char)s.at[i] != 0xff) die("a launch wrote beside the tensors of its call", 0);
        memcpy(s.at, s.was.data(), s.was.size());
    }
#endif
}
/* Run one operation that helps s to make progress; ops of other streams run only when needed (as late as allowed). */
bool step(Stream *s)
{
    Dev &d = dev();
    if (s->q.empty()) return false;
    Op &o = s->q.front();
    for (Stream *x : d.st)                               /* the legacy stream orders itself with all blocking streams */
        if (x != s && !x->q.empty() && x->q.front().seq < o.seq && ((s->legacy && x->blocking) || (x->legacy && s->blocking))) return step(x);
    if (o.kind == 2 && o.ev->done < o.ver) {
        for (Stream *x : d.st) if (x != s) for (Op &p : x->q) if (p.kind == 1 && p.ev == o.ev) return step(x);
        return false;
    }
    Op run = o;
    s->q.pop_front();
    if (run.kind == 0) run_guarded(run);
    if (run.kind == 1) { if (run.ev->done < run.ver) run.ev->done = run.ver; else run.ev->done++; }
    return true;
}
#ifdef CUSHIM_TSAN
enum { KEEP = 1 };
#else
enum { KEEP = 0 };
#endif
CUSHIM_NOSAN static void run_block(Grid *g, long bi, Worker *wk, uint64_t *rs) {
    Block *b = new Block();
    int n = (int)(g->b.x * g->b.y * g->b.z), nw = (n + 31) / 32, i;
    b->grid = g;
    b->n = b->alive = n;
    b->nw = nw;
    b->th = wk->th;
    b->w = wk->w;
    b->bid.x = (unsigned)(bi % g->g.x);
    b->bid.y = (unsigned)(bi / g->g.x % g->g.y);
    b->bid.z = (unsigned)(bi / g->g.x / g->g.y);
    auto alloc = [&](size_t sz) {
        char *p = (char *)aligned_alloc(256, (sz + 255) / 256 * 256);
#ifdef CUSHIM_ASAN
        free(p);
        {
            void *v_ = 0;
            if (posix_memalign(&v_, 16, sz)) abort();
            p = (char *)v_;
        } /* exact size: redzone right behind */
#endif
        memset(p, 0xff, sz);
        if (KEEP) wk->junk->push_back(std::make_pair(p, sz));
        return p;
    };
    if (g->dyn) b->dyn = alloc(g->dyn);
#ifdef CUSHIM_TSAN
    b->sched_tsan = __tsan_get_current_fiber();
#endif
    for (i = 0; i < nw; i++) {
        b->w[i].n = 0;
        b->w[i].alive = 0;
        b->w[i].nmeet = 0;
    }
    for (i = 0; i < n; i++) {
        Thread *t = &b->th[i];
        Warp *w = &b->w[i / 32];
        t->tid.x = (unsigned)i % g->b.x;
        t->tid.y = (unsigned)i / g->b.x % g->b.y;
        t->tid.z = (unsigned)i / g->b.x / g->b.y;
        t->linear = i;
        t->lane = i & 31;
        t->warp = w;
        t->blk = b;
        t->state = 0;
        t->line = 0;
        t->fake = 0;
        w->t[w->n++] = t;
        w->alive |= 1u << t->lane;
#ifdef CUSHIM_TSAN
        Fiber *f = &wk->fiber[(i + wk->turn) % (n + 64)];
        if (!f->stack) {
            t->stack = f->stack = (char *)mmap(0, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            fiber_init(t);
            f->sp = t->sp;
            f->tsan = __tsan_create_fiber(0);
        }
        t->stack = f->stack;
        t->sp = f->sp;
        t->tsan = f->tsan;
        continue;
#endif
        if (!wk->stacks[i])
            wk->stacks[i] = (char *)mmap(0, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        t->stack = wk->stacks[i];
    }
    CUSHIM_REL(&b->schedtag);
    for (i = 0; i < n && !KEEP; i++) fiber_init(&b->th[i]);
    static thread_local int ord[1024];
    for (i = 0; i < n; i++) ord[i] = conf().order == 1 ? n - 1 - i : i;
    while (b->alive) {
        bool any = false;
        if (conf().order == 2)
            for (i = n - 1; i > 0; i--) {
                int j = (int)(rnd(rs) % (uint64_t)(i + 1)), x = ord[i];
                ord[i] = ord[j];
                ord[j] = x;
            }
        for (i = 0; i < n; i++) {
            Thread *t = &b->th[ord[i]];
            while (t->state == 0) {
                any = true;
                resume(b, t);
                if (t->state == 3) { /* the scheduler allocates shared memory, so no thread is ordered by it */
                    int have = 0;
                    for (int k = 0; k < b->nsm; k++)
                        if (b->sm[k].key == b->want_key) have = 1;
                    if (!have) {
                        Smem s;
                        s.key = b->want_key;
                        s.n = b->want_n;
                        s.p = alloc(b->want_n);
                        size_t tot = s.n;
                        for (int k = 0; k < b->nsm; k++) tot += b->sm[k].n;
                        b->sm[b->nsm++] = s;
                        if (tot > 49152) {
                            cur = t;
                            die("more than 48 KiB of static shared memory", t->line);
                        }
                    }
                    CUSHIM_REL(&b->schedtag);
                    t->state = 0;
                }
                if (t->state == 4) {
                    b->alive--;
                    t->warp->alive &= ~(1u << t->lane);
#ifdef CUSHIM_TSAN
                    wk->fiber[(t->linear + wk->turn) % (n + 64)].sp = t->sp;
#endif
                    if (b->arrived) {
                        cur = t;
                        die("a thread returned while others of its block wait in __syncthreads", b->line);
                    }
                    for (int k = 0; k < t->warp->nmeet; k++)
                        if (t->warp->meet[k].arrived && (t->warp->meet[k].mask >> t->lane & 1)) {
                            cur = t;
                            die("a thread returned while lanes of its warp wait for it", t->warp->meet[k].line);
                        }
                }
            }
        }
        if (!any && b->alive) {
            for (i = 0; i < n; i++)
                if (b->th[i].state && b->th[i].state != 4) {
                    cur = &b->th[i];
                    die("deadlock: no thread of the block can go on", cur->line);
                }
        }
    }
    if (!KEEP) {
        for (i = 0; i < b->nsm; i++) free(b->sm[i].p);
        free(b->dyn);
    } else wk->junk->push_back(std::make_pair((char *)b, (size_t)0));
    if (!KEEP) delete b;
    wk->turn += 29;
}
struct Job {
    Grid *g;
    long total;
    int id;
};
CUSHIM_NOSAN static void *worker(void *arg) {
    static thread_local Worker *wk;
    Job *j = (Job *)arg;
    uint64_t rs = conf().seed * 7919 + (uint64_t)j->id;
    if (!wk) {
        wk = new Worker();
        wk->th = new Thread[1024]();
        wk->w = new Warp[32]();
        wk->junk = new std::vector<std::pair<char *, size_t>>();
    }
    for (;;) {
        long i = __atomic_fetch_add(&j->g->next, 1, __ATOMIC_RELAXED);
        if (i >= j->total) break;
        if (conf().dry && j->total > 64) {               /* those on both sides of each quarter of the grid */
            static const signed char near[] = { 0, 1, 2, 3, 4, 5, 6, 7, -8, -7, -6, -5, -4, -3, -2, -1 };
            if (i >= 4 * 16) break;
            i = (j->total * (i / 16) / 4 + near[i % 16] + j->total) % j->total;
        }
        run_block(j->g, conf().order ? j->total - 1 - i : i, wk, &rs);
    }
    if (KEEP) {
        CUSHIM_ACQ(&j->g->tag);
        for (auto &p : *wk->junk) {
            if (p.second) free(p.first);
            else delete (Block *)p.first;
        }
        wk->junk->clear();
    }
    return 0;
}
CUSHIM_NOSAN void run_grid(Grid *g) {
    long total = (long)g->g.x * g->g.y * g->g.z;
    int W = conf().workers;
    Dev &d = dev();
    d.launches++;
    d.blocks += total;
    d.threads += total * (long)(g->b.x * g->b.y * g->b.z);
    if (W < 2 || total < 2) {
        Job j = {g, total, 0};
        worker(&j);
    } else {
        if (W > 64) W = 64;
        pthread_t th[64];
        Job js[64];
        for (int i = 0; i < W; i++) {
            js[i].g = g;
            js[i].total = total;
            js[i].id = i;
            pthread_create(&th[i], 0, worker, &js[i]);
        }
        for (int i = 0; i < W; i++) pthread_join(th[i], 0);
    }
    CUSHIM_ACQ(&g->tag);
}
} // namespace cushim

cudaError_t cushim_malloc(void **p, size_t n)
{
    using namespace cushim;
    Dev &d = dev();
    size_t need = (n + 511) / 256 * 256;                 /* 256-byte aligned, at least 256 bytes of redzone behind */
    if (conf().nodev) return seterr(cudaErrorNoDevice);
    if (capturing()) return seterr(cudaErrorStreamCaptureUnsupported);
    if (planned_failure(0)) return seterr(cudaErrorMemoryAllocation);
    if (d.live.empty()) d.top = 0;                       /* else addresses are never used again: use after free shows */
    if (d.top + need > d.cap) return seterr(cudaErrorMemoryAllocation);
    char *q = d.arena + d.top;
    d.top += need;
#ifdef CUSHIM_ASAN
    __asan_unpoison_memory_region(q, need);
#endif
    if (!conf().dry) {
        arena_open(true);
        memset(q, 0xff, need);
        arena_open(false);
    }
#ifdef CUSHIM_ASAN
    __asan_poison_memory_region(q, need);
    __asan_unpoison_memory_region(q, n);
#endif
    d.live[q] = n;
    *p = q;
    return 0;
}
void cushim_scratch(void *p, size_t n, void *block, size_t room)
{
    cushim::Dev &d = cushim::dev();
    d.guarded[(char *)block] = room;
    if (d.guard) d.guard->range.push_back(std::make_pair((char *)p, n));
}
cudaError_t cushim_free(void *p)
{
    using namespace cushim;
    Dev &d = dev();
    if (!p) return 0;
    auto it = d.live.find((char *)p);
    if (it == d.live.end()) return seterr(cudaErrorInvalidValue);
    if (d.guarded.count((char *)p)) { apply_guard(std::shared_ptr<Guard>()); d.guarded.erase((char *)p); }
    size_t n = it->second, need = (n + 511) / 256 * 256;
    (void)need;
#ifndef CUSHIM_ASAN
    if (conf().dry) {
        arena_open(true);
        forget(p, need);
        arena_open(false);
        d.live.erase(it);
        return 0;
    }
    arena_open(true);
    for (size_t i = n; i < need; i++) if ((unsigned char)((char *)p)[i] != 0xff) die("write behind a device allocation (found at cudaFree)", 0);
    memset(p, 0xff, n);
    arena_open(false);
#else
    __asan_poison_memory_region(p, n);
#endif
    d.live.erase(it);
    return 0;
}
extern "C" {
void nn_device_block(void *p, size_t n, int there)
{
    cushim::Dev &d = cushim::dev();
    if (there) { d.guarded[(char *)p] = n; return; }
    cudaDeviceSynchronize();
    cushim::apply_guard(std::shared_ptr<cushim::Guard>());
    d.guarded.erase((char *)p);
}
void nn_device_guard(void *const *p, const size_t *n, int count)
{
    cushim::Dev &d = cushim::dev();
    d.fills.clear();
    d.guard.reset();
    if (count < 0) return;
    d.guard = std::make_shared<cushim::Guard>();
    for (int i = 0; i < count; i++) d.guard->range.push_back(std::make_pair((char *)p[i], n[i]));
}
void nn_device_fill(void *p, size_t n) { cushim::dev().fills.push_back(std::make_pair((char *)p, n)); }
void nn_device_fail(int kind, long n) { cushim::Dev &d = cushim::dev(); for (int i = 0; i < 4; i++) d.count[i] = d.fail[i] = 0; if (kind >= 0) d.fail[kind] = n; d.err = 0; }
long nn_device_count(int kind) { return cushim::dev().count[kind]; }
/* Streams behind the first run as early as they may instead of as late. */
void nn_device_hurry(int on) { cushim::dev().hurry = on != 0; }
/* What the host asked for since nn_device_trace(1): pairs of a stream and K kernel, U upload, D download, C copy, R record, W wait, G graph, Y the host waits. */
const char *nn_device_trace(int on)
{
    cushim::Dev &d = cushim::dev();
    if (on) d.trace.clear();
    d.tracing = on != 0;
    return d.trace.c_str();
}
long nn_device_live(void) { cushim::Dev &d = cushim::dev(); return (long)d.live.size() + (long)d.pinned.size() + d.handles + d.host; }
/* The kernels that were launched until now, by number; NULL behind the last. */
const char *nn_device_kernel(int number)
{
    for (auto &k : cushim::dev().kernels) if (number-- == 0) return k.second->name;
    return NULL;
}
void *cushim_calloc(size_t n, size_t size) { void *p = calloc(n, size); cushim::dev().host += p != NULL; return p; }
void *cushim_realloc(void *p, size_t n) { void *q = realloc(p, n); cushim::dev().host += q && !p; return q; }
void cushim_release(void *p) { cushim::dev().host -= p != NULL; free(p); }
}
#endif /* CUSHIM_DECLARATIONS */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC pop_options
#endif
/* Host memory that the text behind this takes counts as live, too: LeakSanitizer does not know the stacks of fibers. */
extern "C" {
void *cushim_calloc(size_t n, size_t size);
void *cushim_realloc(void *p, size_t n);
void cushim_release(void *p);
}
#define calloc(n, size) cushim_calloc(n, size)
#define realloc(p, n)   cushim_realloc(p, n)
#define free(p)         cushim_release(p)
#endif
