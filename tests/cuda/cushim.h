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
 *   CUSHIM_OOM     n: the n-th device allocation fails
 *   CUSHIM_ARENA   MiB of device memory (default 256)
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
#include <tuple>
#include <vector>

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
#define CUSHIM_VEC(T, N, AL2, AL4)                                                                                                         \
    struct alignas(AL2) N##2 {                                                                                                             \
        T x, y;                                                                                                                            \
    };                                                                                                                                     \
    struct alignas(AL4) N##4 {                                                                                                             \
        T x, y, z, w;                                                                                                                      \
    };                                                                                                                                     \
    static inline N##2 make_##N##2(T a, T b) {                                                                                             \
        N##2 r = {a, b};                                                                                                                   \
        return r;                                                                                                                          \
    }                                                                                                                                      \
    static inline N##4 make_##N##4(T a, T b, T c, T d) {                                                                                   \
        N##4 r = {a, b, c, d};                                                                                                             \
        return r;                                                                                                                          \
    }
CUSHIM_VEC(float, float, 8, 16)
CUSHIM_VEC(int, int, 8, 16)
CUSHIM_VEC(unsigned, uint, 8, 16)
CUSHIM_VEC(unsigned short, ushort, 4, 8)

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
    int bargen;
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
struct Grid {
    const char *name;
    dim3 g, b;
    size_t dyn;
    std::function<void()> *body;
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
    void *sched_sp;
    void *sched_tsan;
    void *sched_fake;
    const void *sst;
    size_t ssz;
#ifdef CUSHIM_UCONTEXT
    ucontext_t sched_uc;
#endif
};
#ifdef CUSHIM_TSAN
enum { STACK = 64 * 1024 };
#else
enum { STACK = 256 * 1024 };
#endif

extern thread_local Thread *cur;
struct Worker {
    char *stacks[1024];
    Thread *th;
    Warp *w;
    std::vector<std::pair<char *, size_t>> *junk;
};

static inline const char *env(const char *k, const char *d) {
    const char *v = getenv(k);
    return v && *v ? v : d;
}
struct Conf {
    int order, workers, eager, nodev, stats, warnsz;
    long oom;
    uint64_t seed;
    size_t arena;
};
Conf &conf();

[[noreturn]] CUSHIM_NOSAN static void die(const char *what, int line) {
    Thread *t = cur;
    fflush(stdout);
    if (t)
        fprintf(stderr, "cushim: %s\n  kernel %s block (%u,%u,%u) thread (%u,%u,%u) line %d\n", what, t->blk->grid->name, t->blk->bid.x,
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
    (*cur->blk->grid->body)();
    CUSHIM_REL(&cur->blk->grid->tag);
    cur->state = 4;
    yield_();
    abort();
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
#ifdef CUSHIM_TSAN
    t->tsan = __tsan_create_fiber(0);
#endif
}

/* ---------- block-wide barrier ---------- */
CUSHIM_NOSAN static void bar_release(Block *b) {
    b->arrived = 0;
    b->gen++;
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
template <class T> CUSHIM_NOSAN static T shfl(unsigned mask, T v, int mode, int arg, int width, int line) {
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
CUSHIM_NOSAN static void syncwarp(unsigned mask, int line) {
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
struct Event {
    long want, done;
};
struct Op {
    int kind;
    std::function<void()> fn;
    Event *ev;
    long ver, seq;
}; /* kind 0 run, 1 record, 2 wait */
struct Stream {
    std::deque<Op> q;
    bool legacy, blocking, capturing;
    std::vector<Op> *cap;
};
struct Dev {
    std::vector<Stream *> st;
    Stream *null;
    long seq;
    char *arena;
    size_t cap, top, granted;
    long nalloc;
    bool open;
    std::map<char *, size_t> live, freed;
    std::map<const void *, size_t> maxdyn;
    int err;
    uint64_t rs;
    long launches, blocks, threads;
};
Dev &dev();
bool step(Stream *want);
} // namespace cushim

/* ---------- runtime API subset ---------- */
typedef int cudaError_t;
enum {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevicePointer = 17,
    cudaErrorNoDevice = 100,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorNotReady = 600
};
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaEventDefault = 0 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
typedef cushim::Stream *cudaStream_t;
typedef cushim::Event *cudaEvent_t;
struct cushim_graph {
    std::vector<cushim::Op> ops;
};
typedef cushim_graph *cudaGraph_t;
typedef cushim_graph *cudaGraphExec_t;
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount, warpSize;
};

namespace cushim {
static inline cudaError_t seterr(int e) {
    if (e) dev().err = e;
    return e;
}
static inline bool isdev(const void *p, size_t n) {
    Dev &d = dev();
    char *c = (char *)p;
    auto it = d.live.upper_bound(c);
    if (it == d.live.begin()) return false;
    --it;
    return c + n <= it->first + it->second;
}
static inline Stream *S(cudaStream_t s) { return s ? s : dev().null; }
static inline void arena_open(bool o) {
    Dev &d = dev();
    if (o != d.open) {
        mprotect(d.arena, d.cap, o ? PROT_READ | PROT_WRITE : PROT_NONE);
        d.open = o;
    }
}
static inline int enqueue(Stream *s, Op o) {
    Dev &d = dev();
    if (s->capturing) {
        s->cap->push_back(o);
        return 0;
    }
    o.seq = d.seq++;
    s->q.push_back(o);
    if (conf().eager)
        while (!s->q.empty() && step(s)) {}
    return 0;
}
static inline int run_op(Stream *s, std::function<void()> f) {
    Op o;
    o.kind = 0;
    o.fn = f;
    o.ev = 0;
    o.ver = 0;
    return enqueue(s, o);
}
static inline int finish(Stream *s) {
    if (s->capturing) return seterr(cudaErrorStreamCaptureUnsupported);
    while (!s->q.empty())
        if (!step(s)) die("stream waits for an event that is never recorded", 0);
    return 0;
}

template <int... I> struct seq {};
template <int N, int... I> struct mkseq : mkseq<N - 1, N - 1, I...> {};
template <int... I> struct mkseq<0, I...> { typedef seq<I...> type; };
template <class F, class T, int... I> static inline void apply(F f, T &t, seq<I...>) { f(std::get<I>(t)...); }

/* a pointer argument must point into device memory (or be null) */
template <class T> static inline bool okarg(const T &) { return true; }
template <class T> static inline bool okarg(T *const &p) { return !p || isdev((const void *)p, 1); }
static inline bool okargs() { return true; }
template <class T, class... R> static inline bool okargs(const T &a, const R &...r) { return okarg(a) && okargs(r...); }

template <class... P, class... A>
static int launch(const char *name, void (*k)(P...), dim3 g, dim3 b, size_t dyn, cudaStream_t st, A... a) {
    Dev &d = dev();
    size_t n = (size_t)b.x * b.y * b.z;
    auto md = d.maxdyn.find((const void *)k);
    size_t lim = md == d.maxdyn.end() ? 49152 : md->second;
    if (conf().nodev) return seterr(cudaErrorNoDevice);
    if (!n || n > 1024 || b.z > 64 || !g.x || !g.y || !g.z || g.x > 2147483647u || g.y > 65535 || g.z > 65535 || dyn > lim)
        return seterr(cudaErrorInvalidConfiguration);
    if (!okargs(a...)) {
        fprintf(stderr, "cushim: kernel %s was given a pointer that is not device memory\n", name);
        return seterr(cudaErrorInvalidDevicePointer);
    }
    std::tuple<P...> args(a...); /* arguments are evaluated and copied now, as on a GPU */
    return run_op(S(st), [=]() {
        std::tuple<P...> t = args;
        std::function<void()> body = [&]() {
            std::tuple<P...> mine = t;
            apply(k, mine, typename mkseq<sizeof...(P)>::type());
        };
        Grid gr;
        gr.name = name;
        gr.g = g;
        gr.b = b;
        gr.dyn = dyn;
        gr.body = &body;
        gr.next = 0;
        gr.tag = 0;
        gr.stat = 0;
        run_grid(&gr);
    });
}
} // namespace cushim

/* The launch macro: with nvcc it is k<<<...>>>(...). */
#define NN_LAUNCH(k, grid, block, smem, stream, ...) (cushim::launch(#k, k, (grid), (block), (smem), (stream), __VA_ARGS__))
/* Shared memory: NN_SHARED(float, tile, [32][33]);  with nvcc: __shared__ float tile[32][33]; */
#define NN_SHARED(T, name, dims)                                                                                                           \
    static const char name##_key_ = 0;                                                                                                     \
    typedef T name##_t_ dims;                                                                                                              \
    name##_t_ &name = *(name##_t_ *)cushim::smem(&name##_key_, sizeof(name##_t_), __LINE__)
#define NN_SHARED_DYN(T, name) T *name = (T *)cushim::dynsmem(__LINE__)

#define threadIdx (cushim::cur->tid)
#define blockIdx (cushim::cur->blk->bid)
#define blockDim (cushim::cur->blk->grid->b)
#define gridDim (cushim::cur->blk->grid->g)
static const int warpSize = 32;
#define __syncthreads() cushim::syncthreads(__LINE__)
#define __shfl_sync(m, v, a) cushim::shfl(m, v, 0, a, 32, __LINE__)
#define __shfl_up_sync(m, v, a) cushim::shfl(m, v, 1, a, 32, __LINE__)
#define __shfl_down_sync(m, v, a) cushim::shfl(m, v, 2, a, 32, __LINE__)
#define __shfl_xor_sync(m, v, a) cushim::shfl(m, v, 3, a, 32, __LINE__)
#define __ballot_sync(m, p) cushim::ballot(m, p, __LINE__)
#define __any_sync(m, p) (cushim::ballot(m, p, __LINE__) != 0)
#define __all_sync(m, p) (cushim::ballot(m, p, __LINE__) == (unsigned)(m))
#define __syncwarp(...) cushim::syncwarp(0xffffffffu, __LINE__)
#define __threadfence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __threadfence_block() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __ldg(p) (*(p))

/* ---------- intrinsics ---------- */
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define __expf(x) expf(x) /* glibc declares functions of these names */
#define __logf(x) logf(x)
static inline float __fdividef(float a, float b) { return a / b; }
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline int __float_as_int(float f) {
    int u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float __int_as_float(int u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

/* ---------- atomics (real ones: blocks may run on several OS threads) ---------- */
template <class T> static inline T atomicAdd(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
static inline float atomicAdd(float *p, float v) {
    unsigned *u = (unsigned *)p, o = __atomic_load_n(u, __ATOMIC_RELAXED), n;
    float f;
    do {
        f = __uint_as_float(o) + v;
        n = __float_as_uint(f);
    } while (!__atomic_compare_exchange_n(u, &o, n, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return __uint_as_float(o);
}
static inline int atomicMax(int *p, int v) {
    int o = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (o < v && !__atomic_compare_exchange_n(p, &o, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return o;
}
template <class T> static inline T atomicCAS(T *p, T c, T v) {
    __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return c;
}
template <class T> static inline T atomicExch(T *p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }

/* ---------- tensor core: the PTX fragment layouts, computed by the lanes together ---------- */
namespace cushim {
static inline float bf(uint32_t w, int hi) { return __uint_as_float(hi ? w & 0xffff0000u : w << 16); }
/* mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 */
CUSHIM_NOSAN static void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], int line) {
    uint64_t A[2][32], B[32];
    for (int i = 0; i < 2; i++) {
        const uint64_t *r = meet(~0u, (uint64_t)a[2 * i] | (uint64_t)a[2 * i + 1] << 32, 40 + i, line);
        for (int q = 0; q < 32; q++) A[i][q] = r[q];
    }
    {
        const uint64_t *r = meet(~0u, (uint64_t)b[0] | (uint64_t)b[1] << 32, 42, line);
        for (int q = 0; q < 32; q++) B[q] = r[q];
    }
    int g = cur->lane >> 2, t = cur->lane & 3;
    for (int i = 0; i < 4; i++) {
        int row = g + (i >> 1) * 8, col = t * 2 + (i & 1);
        double s = 0;
        for (int k = 0; k < 16; k++) {
            int la = (row & 7) * 4 + (k & 7) / 2, ra = (row >> 3) + (k >> 3) * 2; /* a0:(g,k<8) a1:(g+8,k<8) a2:(g,k>=8) a3 */
            int lb = col * 4 + (k & 7) / 2, rb = k >> 3;
            s += (double)bf((uint32_t)(A[ra >> 1][la] >> (ra & 1) * 32), k & 1) * bf((uint32_t)(B[lb] >> rb * 32), k & 1);
        }
        d[i] = (float)(d[i] + s);
    }
}
} // namespace cushim
#define NN_MMA_BF16_16816(d, a, b) cushim::mma_bf16(d, a, b, __LINE__)

/* ---------- host API ---------- */
static inline const char *cudaGetErrorString(cudaError_t e) {
    return e == 0     ? "no error"
           : e == 100 ? "no CUDA-capable device is detected"
           : e == 2   ? "out of memory"
           : e == 9   ? "invalid configuration argument"
           : e == 900 ? "operation not permitted when stream is capturing"
                      : "error";
}
static inline cudaError_t cudaGetDeviceCount(int *n) {
    *n = cushim::conf().nodev ? 0 : 1;
    return cushim::conf().nodev ? cudaErrorNoDevice : 0;
}
static inline cudaError_t cudaSetDevice(int i) { return cushim::conf().nodev ? cudaErrorNoDevice : i ? 101 : 0; }
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "cushim");
    p->totalGlobalMem = cushim::conf().arena;
    p->sharedMemPerBlock = 49152;
    p->sharedMemPerBlockOptin = 232448;
    p->major = 9;
    p->multiProcessorCount = 4;
    p->warpSize = 32;
    return 0;
}
static inline cudaError_t cudaGetLastError(void) {
    int e = cushim::dev().err;
    cushim::dev().err = 0;
    return e;
}
static inline cudaError_t cudaPeekAtLastError(void) { return cushim::dev().err; }
cudaError_t cushim_malloc(void **p, size_t n);
cudaError_t cushim_free(void *p);
template <class T> static inline cudaError_t cudaMalloc(T **p, size_t n) { return cushim_malloc((void **)p, n); }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t s) { return cushim::finish(cushim::S(s)); }
static inline cudaError_t cudaDeviceSynchronize(void) {
    for (cushim::Stream *s : cushim::dev().st) {
        int e = cushim::finish(s);
        if (e) return e;
    }
    return 0;
}
static inline cudaError_t cudaFree(void *p) {
    cudaDeviceSynchronize();
    return cushim_free(p);
}
template <class T> static inline cudaError_t cudaMallocHost(T **p, size_t n) {
    *p = (T *)malloc(n);
    return *p ? 0 : 2;
}
static inline cudaError_t cudaFreeHost(void *p) {
    free(p);
    return 0;
}
static inline cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind k, cudaStream_t st) {
    bool dd = cushim::isdev(d, n), sd = cushim::isdev(s, n);
    if (k == cudaMemcpyHostToDevice && (!dd || sd)) return cushim::seterr(cudaErrorInvalidValue);
    if (k == cudaMemcpyDeviceToHost && (dd || !sd)) return cushim::seterr(cudaErrorInvalidValue);
    if (k == cudaMemcpyDeviceToDevice && (!dd || !sd)) return cushim::seterr(cudaErrorInvalidValue);
    return cushim::run_op(cushim::S(st), [=]() { memmove(d, s, n); });
}
static inline cudaError_t cudaMemcpy(void *d, const void *s, size_t n, cudaMemcpyKind k) {
    int e = cudaMemcpyAsync(d, s, n, k, 0);
    return e ? e : cudaStreamSynchronize(0);
}
static inline cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t st) {
    if (!cushim::isdev(d, n)) return cushim::seterr(cudaErrorInvalidValue);
    return cushim::run_op(cushim::S(st), [=]() { memset(d, v, n); });
}
static inline cudaError_t cudaMemset(void *d, int v, size_t n) { return cudaMemsetAsync(d, v, n, 0); }
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) {
    *s = new cushim::Stream();
    (*s)->blocking = !(f & 1);
    cushim::dev().st.push_back(*s);
    return 0;
}
static inline cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, 0); }
static inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
    cushim::finish(s);
    auto &v = cushim::dev().st;
    for (size_t i = 0; i < v.size(); i++)
        if (v[i] == s) v.erase(v.begin() + (long)i--);
    delete s;
    return 0;
}
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    *e = new cushim::Event();
    return 0;
}
static inline cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
static inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
    cudaDeviceSynchronize();
    delete e;
    return 0;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    cushim::Op o;
    o.kind = 1;
    o.ev = e;
    o.ver = ++e->want;
    return cushim::enqueue(cushim::S(s), o);
}
static inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    cushim::Op o;
    o.kind = 2;
    o.ev = e;
    o.ver = e->want;
    return cushim::enqueue(cushim::S(s), o);
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    while (e->done < e->want) {
        bool any = false;
        for (cushim::Stream *s : cushim::dev().st)
            if (!s->q.empty() && cushim::step(s)) {
                any = true;
                break;
            }
        if (!any) cushim::die("event never recorded", 0);
    }
    return 0;
}
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t) {
    *ms = 1;
    return 0;
}
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (!s) return cushim::seterr(cudaErrorStreamCaptureUnsupported);
    cushim::finish(s);
    s->capturing = true;
    s->cap = new std::vector<cushim::Op>();
    return 0;
}
static inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    *g = new cushim_graph();
    (*g)->ops = *s->cap;
    delete s->cap;
    s->cap = 0;
    s->capturing = false;
    return 0;
}
static inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    *x = new cushim_graph(*g);
    return 0;
}
static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    for (auto &o : x->ops) cushim::enqueue(cushim::S(s), o);
    return 0;
}
static inline cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return 0;
}
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
    cudaDeviceSynchronize();
    delete g;
    return 0;
}
template <class... P> static inline cudaError_t cudaFuncSetAttribute(void (*k)(P...), int attr, int v) {
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize || v > 232448) return cushim::seterr(cudaErrorInvalidValue);
    cushim::dev().maxdyn[(const void *)k] = (size_t)v;
    return 0;
}

#ifdef CUSHIM_IMPLEMENTATION
namespace cushim {
thread_local Thread *cur;
Conf &conf() {
    static Conf c;
    static bool init;
    if (!init) {
        const char *o = env("CUSHIM_ORDER", "fwd");
        c.order = !strcmp(o, "rev") ? 1 : !strcmp(o, "rand") ? 2 : 0;
        c.workers = atoi(env("CUSHIM_WORKERS", "1"));
        c.eager = atoi(env("CUSHIM_EAGER", "0"));
        c.nodev = atoi(env("CUSHIM_NODEV", "0"));
        c.stats = atoi(env("CUSHIM_STATS", "0"));
        c.oom = atol(env("CUSHIM_OOM", "0"));
        c.seed = strtoull(env("CUSHIM_SEED", "1"), 0, 10);
        c.arena = (size_t)atol(env("CUSHIM_ARENA", "256")) << 20;
        init = true;
    }
    return c;
}
static void stats_at_exit() {
    Dev &d = dev();
    fprintf(stderr, "cushim: %ld launches, %ld blocks, %ld threads, %zu bytes live on the device\n", d.launches, d.blocks, d.threads,
            d.granted);
}
Dev &dev() {
    static Dev *d;
    if (!d) {
        d = new Dev();
        d->null = new Stream();
        d->null->legacy = true;
        d->null->blocking = true;
        d->st.push_back(d->null);
        d->cap = conf().arena;
        d->rs = conf().seed;
        d->arena = (char *)mmap(0, d->cap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (conf().stats) atexit(stats_at_exit);
    }
    return *d;
}
/* Run one operation that helps `want` to make progress; ops of other streams run only when needed (as late as allowed). */
bool step(Stream *s) {
    Dev &d = dev();
    if (s->q.empty()) return false;
    Op &o = s->q.front();
    for (Stream *x : d.st) /* the legacy stream orders itself with all blocking streams */
        if (x != s && !x->q.empty() && x->q.front().seq < o.seq && ((s->legacy && x->blocking) || (x->legacy && s->blocking)))
            return step(x);
    if (o.kind == 2 && o.ev->done < o.ver) {
        for (Stream *x : d.st)
            if (x != s)
                for (Op &p : x->q)
                    if (p.kind == 1 && p.ev == o.ev) return step(x);
        return false;
    }
    Op run = o;
    s->q.pop_front();
    if (run.kind == 0) {
        arena_open(true);
        run.fn();
        arena_open(false);
    }
    if (run.kind == 1) {
        if (run.ev->done < run.ver) run.ev->done = run.ver;
        else run.ev->done++;
    }
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
#ifdef CUSHIM_TSAN /* a fresh stack for each thread: TSan forgets the accesses of the one before */
        if (wk->stacks[i]) {
            munmap(wk->stacks[i], STACK);
            wk->stacks[i] = 0;
        }
#endif
        if (!wk->stacks[i])
            wk->stacks[i] = (char *)mmap(0, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        t->stack = wk->stacks[i];
    }
    CUSHIM_REL(&b->schedtag);
    for (i = 0; i < n; i++) fiber_init(&b->th[i]);
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
                    __tsan_destroy_fiber(t->tsan);
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
cudaError_t cushim_malloc(void **p, size_t n) {
    using namespace cushim;
    Dev &d = dev();
    if (conf().nodev) return seterr(cudaErrorNoDevice);
    for (Stream *s : d.st)
        if (s->capturing) return seterr(cudaErrorStreamCaptureUnsupported);
    if (++d.nalloc == conf().oom) return seterr(cudaErrorMemoryAllocation);
    size_t need = (n + 511) / 256 * 256; /* 256-byte aligned, at least 256 bytes of redzone behind */
    if (d.top + need > d.cap) return seterr(cudaErrorMemoryAllocation);
    char *q = d.arena + d.top;
    d.top += need; /* addresses are never reused: use after free shows */
    arena_open(true);
    memset(q, 0xff, need);
    arena_open(false);
#ifdef CUSHIM_ASAN
    __asan_poison_memory_region(q, need);
    __asan_unpoison_memory_region(q, n);
#endif
    d.live[q] = n;
    d.granted += n;
    *p = q;
    return 0;
}
cudaError_t cushim_free(void *p) {
    using namespace cushim;
    Dev &d = dev();
    if (!p) return 0;
    auto it = d.live.find((char *)p);
    if (it == d.live.end()) return seterr(cudaErrorInvalidValue);
    size_t n = it->second, need = (n + 511) / 256 * 256;
#ifndef CUSHIM_ASAN
    arena_open(true);
    for (size_t i = n; i < need; i++)
        if ((unsigned char)((char *)p)[i] != 0xff) die("write behind a device allocation (found at cudaFree)", 0);
    memset(p, 0xff, n);
    arena_open(false);
#else
    (void)need;
    __asan_poison_memory_region(p, n);
#endif
    d.granted -= n;
    d.live.erase(it);
    return 0;
}
#endif /* CUSHIM_IMPLEMENTATION */
#endif
