/* measure.h - What all the C programs in bench/ share: the clock, the median of a step, a row of output, the loop of a worker.

   A worker is a program that peers.py starts once per thread count and asks in turns: it reads lines "workload seconds", measures
   the workload for about so long, writes rows (peer, workload, threads, metric, value; tab-separated), then a line with a dot.
   What it does not know it answers with the dot alone. C and C++.                                                            */
#ifndef NNB_MEASURE_H
#define NNB_MEASURE_H
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double nnb_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int nnb_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a step, after at least `warm` untimed ones and as many as fit into a twentieth of the budget.
   Short steps are timed in groups of 20 us and more, since the clock is not free. */
static double nnb_median(void (*step)(void *arg), void *arg, double budget, int warm)
{
    enum { MOST = 20000 };
    static double t[MOST];
    int n = 0, group = 1;
    double start, end = nnb_now() + budget / 20, now, took = 0;
    while (warm-- > 0 || nnb_now() < end) { start = nnb_now(); step(arg); took = nnb_now() - start; }
    if (took < 20e-6) group = (int)(20e-6 / (took + 1e-8)) + 1;
    end = nnb_now() + budget;
    do {
        start = nnb_now();
        for (int i = 0; i < group; i++) step(arg);
        now = nnb_now();
        t[n++] = (now - start) / group;
    } while (n < MOST && now < end);
    qsort(t, (size_t)n, sizeof *t, nnb_by_value);
    return t[n / 2];
}

static void nnb_report(const char *peer, const char *workload, int threads, const char *metric, double value)
{
    printf("%s\t%s\t%d\t%s\t%.5g\n", peer, workload, threads, metric, value);
    fflush(stdout);
}

static void nnb_serve(void (*answer)(const char *workload, double seconds))
{
    char workload[128];
    double seconds;
    while (scanf("%127s %lf", workload, &seconds) == 2) {
        answer(workload, seconds);
        printf(".\n");
        fflush(stdout);
    }
}

static float *nnb_numbers(int64_t n)                     /* 0..1, 64-byte aligned; free() them */
{
    float *x = (float *)aligned_alloc(64, ((size_t)n * sizeof *x + 127) & ~(size_t)63);
    uint32_t r = 12345;
    for (int64_t i = 0; i < n; i++) { r = r * 1664525u + 1013904223u; x[i] = (float)(r >> 8) / 16777216.0f; }
    return x;
}
#endif
