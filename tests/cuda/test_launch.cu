/* test_launch.cu - what nn_cuda.h asks of launches and graphs, of cushim.h and of ptxsim alike: arguments of every alignment arrive, as they are at
   the call; a kernel of a graph gets new ones through its node, as long as the graph that it was captured in is there. */
#include "launch.h"
#include <stdint.h>
#include <stdio.h>
#include <string.h>
enum { N = 40 };
template <int ALIGN> struct alignas(ALIGN) wide { double a; float b[23]; const float *c; };
struct list { int count; const float *at[N]; };
template <int ALIGN> static __global__ void sums(list l, wide<ALIGN> w, char few, const float *none, const float *one, float *y)
{
    int i = (int)threadIdx.x;
    if (i < l.count) y[i] = *l.at[i] + (float)w.a + w.b[22] + w.c[1] + (float)few + one[0] + (none ? 1000.0f : 0.0f);
}
static __global__ void add(float *y, float v) { y[threadIdx.x] += v; }
static __global__ void times(float v, float *y) { y[threadIdx.x] *= v; }

static int failed;
static void check(int ok, const char *what, int line) { if (!ok) { failed++; printf("line %d: %s\n", line, what); } }
#define CHECK(x) check((x), #x, __LINE__)
#define FINE(x)  check((x) == cudaSuccess, #x, __LINE__)
static float *x, *y, host[N];
static void down(void) { FINE(cudaMemcpy(host, y, sizeof host, cudaMemcpyDeviceToHost)); }
template <int ALIGN> static void aligned(void)
{
    list l = { N, { NULL } };
    wide<ALIGN> w = { 100, { 0 }, x + 2 };
    w.b[22] = 1000;
    for (int i = 0; i < N; i++) l.at[i] = x + i;
    LAUNCH(0, sums<ALIGN>, dim3(1), dim3(64), l, w, 7, NULL, x + 5, y);
    memset((void *)&w, 0, sizeof w);
    memset((void *)&l, 0, sizeof l);
    down();
    for (int i = 0; i < N; i++) if (host[i] != (float)i + 100 + 1000 + 3 + 7 + 5) { printf("aligned to %d: number %d is %g\n", ALIGN, i, host[i]); failed++; break; }
}
static cudaGraphNode_t last(cudaStream_t s)
{
    cudaStreamCaptureStatus status;
    const cudaGraphNode_t *node = NULL;
    size_t n = 0;
    FINE(cudaStreamGetCaptureInfo(s, &status, NULL, NULL, &node, NULL, &n));
    return n == 1 ? node[0] : NULL;
}
static int is(cudaGraphExec_t exec, cudaStream_t s, float v)      /* what a graph makes of 1 */
{
    float ones[N];
    for (int i = 0; i < N; i++) ones[i] = 1;
    FINE(cudaMemcpy(y, ones, sizeof ones, cudaMemcpyHostToDevice));
    FINE(cudaGraphLaunch(exec, s));
    FINE(cudaStreamSynchronize(s));
    down();
    return host[0] == v && host[N - 1] == v;
}
int main(void)
{
    for (int i = 0; i < N; i++) host[i] = (float)i;
    FINE(cudaMalloc((void **)&x, sizeof host));
    FINE(cudaMalloc((void **)&y, sizeof host));
    FINE(cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice));
    aligned<8>(); aligned<16>(); aligned<32>(); aligned<64>(); aligned<128>();

    cudaStream_t s;
    cudaGraph_t graph[2];
    cudaGraphExec_t exec[2];
    cudaGraphNode_t a[2], b[2];
    FINE(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    for (int i = 0; i < 2; i++) {
        FINE(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
        LAUNCH(s, add, dim3(1), dim3(N), y, 2);
        a[i] = last(s);
        LAUNCH(s, times, dim3(1), dim3(N), 10, y);
        b[i] = last(s);
        FINE(cudaStreamEndCapture(s, &graph[i]));
        FINE(cudaGraphInstantiate(&exec[i], graph[i], 0));
        CHECK(a[i] && b[i] && a[i] != b[i]);
    }
    CHECK(is(exec[0], s, 30));
    float v = 4;
    FINE(CHANGE(exec[0], a[0], add, dim3(1), dim3(N), y, v));
    v = 1000;
    CHECK(is(exec[0], s, 50) && is(exec[0], s, 50));
    FINE(CHANGE(exec[0], b[0], times, dim3(1), dim3(N), 3, y));
    CHECK(is(exec[0], s, 15) && is(exec[1], s, 30));
    FINE(CHANGE(exec[0], a[0], times, dim3(1), dim3(N), 7, y));          /* another kernel */
    CHECK(is(exec[0], s, 21));
    CHECK(CHANGE(exec[0], a[1], add, dim3(1), dim3(N), y, 9) != cudaSuccess);              /* another graph's */
    FINE(cudaGraphDestroy(graph[1]));
    CHECK(CHANGE(exec[1], a[1], add, dim3(1), dim3(N), y, 9) != cudaSuccess);              /* of a graph that is no more */
    CHECK(CHANGE(exec[0], b[0], times, dim3(1), dim3(2048), 3, y) != cudaSuccess);
    CHECK(cudaGetLastError() != cudaSuccess);
    CHECK(is(exec[0], s, 21) && is(exec[1], s, 30));
    FINE(cudaGraphExecDestroy(exec[0]));
    FINE(cudaGraphExecDestroy(exec[1]));
    FINE(cudaGraphDestroy(graph[0]));
    FINE(cudaStreamDestroy(s));
    FINE(cudaFree(x));
    FINE(cudaFree(y));
    CHECK(cudaGetLastError() == cudaSuccess);
    printf("%d passed, %d failed\n", failed == 0, failed);
    return failed != 0;
}
