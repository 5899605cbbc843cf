/* selftest.cu - exercises what the demo does not: cp.async, ldmatrix, mma f16/bf16/tf32, __constant__, printf, redux, votes, 64-bit and integer ops.
 * nvcc -cudart shared -gencode arch=compute_80,code=compute_80 selftest.cu;  -DNOWAIT leaves out the cp.async wait (must be reported) */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
__constant__ float c_scale[4] = {1, 2, 3, 4};
__device__ int d_count;
/* 16x8 tile, K=32: A[16][K], B[8][K] 16-bit, rows staged by cp.async, fragments by ldmatrix */
template <bool BF> __global__ void k16(const uint16_t *A, const uint16_t *B, float *C) {
    __shared__ __align__(16) uint16_t sa[16][40], sb[8][40];
    int t = threadIdx.x;
    for (int i = t; i < 16 * 4; i += 32) {
        unsigned d = (unsigned)__cvta_generic_to_shared(&sa[i / 4][i % 4 * 8]);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(d), "l"(A + i / 4 * 32 + i % 4 * 8));
    }
    asm volatile("cp.async.commit_group;");
    for (int i = t; i < 8 * 4; i += 32) {
        unsigned d = (unsigned)__cvta_generic_to_shared(&sb[i / 4][i % 4 * 8]);
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(d), "l"(B + i / 4 * 32 + i % 4 * 8));
    }
    asm volatile("cp.async.commit_group;");
#ifndef NOWAIT
    asm volatile("cp.async.wait_group 1;");
    asm volatile("cp.async.wait_all;");
#endif
    __syncthreads();
    float d[4] = {0, 0, 0, 0};
    for (int k = 0; k < 32; k += 16) {
        uint32_t a[4], b[2];
        unsigned pa = (unsigned)__cvta_generic_to_shared(&sa[(t & 7) + (t >> 3 & 1) * 8][k + (t >> 4) * 8]),
                 pb = (unsigned)__cvta_generic_to_shared(&sb[t & 7][k + (t >> 3 & 1) * 8]);
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                     : "r"(pa));
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(b[0]), "=r"(b[1]) : "r"(pb));
        if (BF)
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
        else
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    for (int i = 0; i < 4; i++) C[((t >> 2) + (i >> 1) * 8) * 8 + (t & 3) * 2 + (i & 1)] = d[i];
}
__global__ void ktf(const float *A, const float *B, float *C) { /* A[16][8], B[8][8] as B[n][k] */
    int t = threadIdx.x, g = t >> 2, l = t & 3;
    uint32_t a[4], b[2];
    float d[4] = {0, 0, 0, 0};
    float x[4] = {A[g * 8 + l], A[(g + 8) * 8 + l], A[g * 8 + l + 4], A[(g + 8) * 8 + l + 4]}, y[2] = {B[g * 8 + l], B[g * 8 + l + 4]};
    for (int i = 0; i < 4; i++) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(a[i]) : "f"(x[i]));
    for (int i = 0; i < 2; i++) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(b[i]) : "f"(y[i]));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    for (int i = 0; i < 4; i++) C[(g + (i >> 1) * 8) * 8 + l * 2 + (i & 1)] = d[i];
}
__global__ void kmisc(const int *x, long long *o, float *f) {
    int t = threadIdx.x, v = x[t];
    unsigned m = __ballot_sync(~0u, v & 1);
    o[t] = (long long)v * 1000003 + __popc(m) + __clz(v | 1) + (v / 7) - (v % 5) + __reduce_add_sync(~0u, v) +
           (__any_sync(~0u, v == 5) ? 1 : 0) + __shfl_up_sync(~0u, v, 1) + __shfl_sync(~0u, v, t ^ 3, 8);
    f[t] = c_scale[t & 3] * floorf(v * 0.3f) + (float)(v >> 1) + __half2float(__float2half_rn(v * 0.1f)) +
           __bfloat162float(__float2bfloat16_rn(v * 0.1f)) + fminf(sqrtf((float)abs(v)), 3.f);
    atomicAdd(&d_count, 1);
    if (t == 3) printf("device says %d %.2f %s\n", v, 2.5, "ok");
}
static int bad;
static void ck(const char *n, double e, double tol) {
    if (!(e <= tol)) bad++;
    printf("%s %s %.3g\n", e <= tol ? "ok  " : "FAIL", n, e);
}
int main() {
    uint16_t A[16 * 32], B[8 * 32];
    float *fa = new float[512], *fb = new float[256], C[128], *dc;
    uint16_t *da, *db;
    cudaMalloc((void **)&da, sizeof A);
    cudaMalloc((void **)&db, sizeof B);
    cudaMalloc((void **)&dc, sizeof C);
    for (int p = 0; p < 2; p++) {
        for (int i = 0; i < 512; i++) {
            float v = sinf(i * 1.7f);
            if (p) {
                __nv_bfloat16 h = __float2bfloat16(v);
                memcpy(&A[i], &h, 2);
                fa[i] = __bfloat162float(h);
            } else {
                __half h = __float2half(v);
                memcpy(&A[i], &h, 2);
                fa[i] = __half2float(h);
            }
        }
        for (int i = 0; i < 256; i++) {
            float v = cosf(i * 0.9f);
            if (p) {
                __nv_bfloat16 h = __float2bfloat16(v);
                memcpy(&B[i], &h, 2);
                fb[i] = __bfloat162float(h);
            } else {
                __half h = __float2half(v);
                memcpy(&B[i], &h, 2);
                fb[i] = __half2float(h);
            }
        }
        cudaMemcpy(da, A, sizeof A, cudaMemcpyHostToDevice);
        cudaMemcpy(db, B, sizeof B, cudaMemcpyHostToDevice);
        if (p) k16<true><<<1, 32>>>(da, db, dc);
        else k16<false><<<1, 32>>>(da, db, dc);
        cudaMemcpy(C, dc, sizeof C, cudaMemcpyDeviceToHost);
        double e = 0;
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) {
                double s = 0;
                for (int k = 0; k < 32; k++) s += (double)fa[i * 32 + k] * fb[j * 32 + k];
                e = fmax(e, fabs(s - C[i * 8 + j]));
            }
        ck(p ? "cp.async ldmatrix mma bf16" : "cp.async ldmatrix mma f16", e, 1e-5);
    }
    float *ta, *tb;
    cudaMalloc((void **)&ta, 512);
    cudaMalloc((void **)&tb, 256);
    for (int i = 0; i < 128; i++) fa[i] = sinf(i * .37f);
    for (int i = 0; i < 64; i++) fb[i] = cosf(i * .61f);
    cudaMemcpy(ta, fa, 512, cudaMemcpyHostToDevice);
    cudaMemcpy(tb, fb, 256, cudaMemcpyHostToDevice);
    ktf<<<1, 32>>>(ta, tb, dc);
    cudaMemcpy(C, dc, sizeof C, cudaMemcpyDeviceToHost);
    double e = 0;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double s = 0;
            for (int k = 0; k < 8; k++) s += (double)fa[i * 8 + k] * fb[j * 8 + k];
            e = fmax(e, fabs(s - C[i * 8 + j]));
        }
    ck("mma tf32 (rounding seen)", e, 3e-3);
    ck("mma tf32 is not fp32", e > 1e-6 ? 0 : 1, 0.5);
    int x[32], *dx;
    long long o[32], *dO;
    float f[32], *df;
    for (int i = 0; i < 32; i++) x[i] = i * 37 % 101 - 20;
    cudaMalloc((void **)&dx, 128);
    cudaMalloc((void **)&dO, 256);
    cudaMalloc((void **)&df, 128);
    cudaMemcpy(dx, x, 128, cudaMemcpyHostToDevice);
    kmisc<<<1, 32>>>(dx, dO, df);
    cudaMemcpy(o, dO, 256, cudaMemcpyDeviceToHost);
    cudaMemcpy(f, df, 128, cudaMemcpyDeviceToHost);
    int odd = 0, sum = 0, any = 0, bi = 0;
    for (int i = 0; i < 32; i++) {
        odd += x[i] & 1;
        sum += x[i];
        any |= x[i] == 5;
    }
    double ef = 0;
    float cs[4] = {1, 2, 3, 4};
    for (int i = 0; i < 32; i++) {
        int v = x[i];
        long long w = (long long)v * 1000003 + odd + ((v | 1) < 0 ? 0 : __builtin_clz(v | 1)) + v / 7 - v % 5 + sum + any +
                      (i ? x[i - 1] : x[0]) + x[(i & ~7) + ((i ^ 3) & 7)];
        bi += w != o[i];
        float r = cs[i & 3] * floorf(v * 0.3f) + (float)(v >> 1) + __half2float(__float2half(v * .1f)) +
                  __bfloat162float(__float2bfloat16(v * .1f)) + fminf(sqrtf((float)abs(v)), 3.f);
        ef = fmax(ef, fabs(r - f[i]));
    }
    ck("integers, votes, shuffles", bi, 0);
    ck("floats, conversions, __constant__", ef, 1e-5);
    printf("%d failed\n", bad);
    return bad;
}
