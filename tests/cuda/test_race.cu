/* test_race.cu - does ThreadSanitizer see the races of CUDA threads through cushim.h? RACE=0..7 as environment: 0, 2, 4 and 6 have none. */
#include "launch.h"
#include <stdlib.h>
static __global__ void race_tile(const float *x, float *y, int barrier)                          /* reads what a neighbour wrote */
{
    NN_SHARED(float, tile, [64]);
    tile[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = tile[63 - threadIdx.x];
}
static __global__ void race_again(const float *x, float *y, int barrier)                         /* the next tile comes before the last was read */
{
    NN_SHARED(float, tile, [64]);
    float sum = 0;
    for (int i = 0; i < 3; i++) {
        tile[threadIdx.x] = x[threadIdx.x] + (float)i;
        __syncthreads();
        sum += tile[63 - threadIdx.x];
        if (barrier) __syncthreads();
    }
    y[blockIdx.x * 64 + threadIdx.x] = sum;
}
static __global__ void race_blocks(float *y, int apart) { y[apart ? blockIdx.x * 64 + threadIdx.x : threadIdx.x] = (float)blockIdx.x; }      /* two blocks write one number */
static __global__ void race_warp(float *y, int barrier)                                          /* lanes of a warp through memory */
{
    y[threadIdx.x] = 1;
    if (barrier) __syncwarp(0xffffffffu);
    y[64 + threadIdx.x] = y[threadIdx.x ^ 1];
}
int main(void)
{
    int which = atoi(getenv("RACE") ? getenv("RACE") : "0"), clean = !(which & 1);
    float *x, *y, host[256] = { 0 };
    cudaMalloc(&x, sizeof host);
    cudaMalloc(&y, 2 * sizeof host);
    cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice);
    if (which / 2 == 0) LAUNCH(0, race_tile, dim3(4), dim3(64), (const float *)x, y, clean);
    if (which / 2 == 1) LAUNCH(0, race_again, dim3(4), dim3(64), (const float *)x, y, clean);
    if (which / 2 == 2) LAUNCH(0, race_blocks, dim3(4), dim3(64), y, clean);
    if (which / 2 == 3) LAUNCH(0, race_warp, dim3(1), dim3(32), y, clean);
    cudaDeviceSynchronize();
    cudaFree(x);
    cudaFree(y);
    return 0;
}
