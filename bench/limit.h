/* limit.h - The limit that benchmarks are compared with: how many fused multiply-adds a second the cores do from registers.

   nnb_fma_peak(threads) returns GFLOP/s, the best of five runs of 10 ms; 0 where no probe is written for the processor.
   24 independent sums hide the latency of 4 to 5 cycles at two a cycle.                                              */
#include <pthread.h>
#include "measure.h"

static volatile float nnb_sink;

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define NNB_PROBE(name, isa, V, SET1, FMA, ADD, FIRST, SUMS, LANES)                        \
    __attribute__((target(isa))) static double name(long times)                           \
    {                                                                                      \
        V c[SUMS], a = SET1(0.999999f), b = SET1(1e-7f);                                   \
        _Pragma("GCC unroll 24") for (int i = 0; i < SUMS; i++) c[i] = SET1((float)i);     \
        for (long k = 0; k < times; k++) {                                                 \
            _Pragma("GCC unroll 24") for (int i = 0; i < SUMS; i++) c[i] = FMA(c[i], a, b);\
            __asm__ volatile("");                                                          \
        }                                                                                  \
        _Pragma("GCC unroll 24") for (int i = 1; i < SUMS; i++) c[0] = ADD(c[0], c[i]);    \
        nnb_sink = FIRST(c[0]);                                                            \
        return (double)times * SUMS * LANES * 2;                                           \
    }
NNB_PROBE(nnb_probe_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_cvtss_f32, 12, 8)
NNB_PROBE(nnb_probe_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_cvtss_f32, 24, 16)
static double nnb_probe(long times)
{
    if (__builtin_cpu_supports("avx512f")) return nnb_probe_avx512(times);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return nnb_probe_avx2(times);
    return 0;
}
#elif defined(__aarch64__) && defined(__GNUC__)
#include <arm_neon.h>
static double nnb_probe(long times)
{
    float32x4_t c[24], a = vdupq_n_f32(0.999999f), b = vdupq_n_f32(1e-7f);
    _Pragma("GCC unroll 24") for (int i = 0; i < 24; i++) c[i] = vdupq_n_f32((float)i);
    for (long k = 0; k < times; k++) {
        _Pragma("GCC unroll 24") for (int i = 0; i < 24; i++) c[i] = vfmaq_f32(b, c[i], a);
        __asm__ volatile("");
    }
    _Pragma("GCC unroll 24") for (int i = 1; i < 24; i++) c[0] = vaddq_f32(c[0], c[i]);
    nnb_sink = vgetq_lane_f32(c[0], 0);
    return (double)times * 24 * 4 * 2;
}
#else
static double nnb_probe(long times) { (void)times; return 0; }
#endif

typedef struct nnb_prober { pthread_t thread; int *waiting; long times; double begin, end, flops; } nnb_prober;
static void *nnb_prober_run(void *arg)
{
    nnb_prober *p = arg;
    nnb_probe(p->times / 8);
    __atomic_fetch_sub(p->waiting, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(p->waiting, __ATOMIC_SEQ_CST) > 0) {}
    p->begin = nnb_now();
    p->flops = nnb_probe(p->times);
    p->end = nnb_now();
    return NULL;
}

static double nnb_fma_peak(int threads)
{
    nnb_prober p[16];
    double best = 0, begin = nnb_now();
    if (nnb_probe(1000) == 0 || threads > 16) return 0;
    nnb_probe(100000);
    long times = (long)(100000 * 0.010 / (nnb_now() - begin)) + 1;
    for (int run = 0; run < 5; run++) {
        int waiting = threads;
        double first, last, flops = 0;
        for (int i = 0; i < threads; i++) {
            p[i].waiting = &waiting;
            p[i].times = times;
            if (i) pthread_create(&p[i].thread, NULL, nnb_prober_run, &p[i]);
        }
        nnb_prober_run(&p[0]);
        for (int i = 1; i < threads; i++) pthread_join(p[i].thread, NULL);
        first = p[0].begin;
        last = p[0].end;
        for (int i = 0; i < threads; i++) {
            flops += p[i].flops;
            if (p[i].begin < first) first = p[i].begin;
            if (p[i].end > last) last = p[i].end;
        }
        if (flops / (last - first) > best) best = flops / (last - first);
    }
    return best / 1e9;
}
