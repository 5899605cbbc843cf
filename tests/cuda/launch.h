/* launch.h - a launch for small tests; nn_cuda.h has its own, nn__start. */
#ifndef NN_KERNEL
#define NN_KERNEL(k) ((void)0)
#endif
template <class T> struct just { typedef T type; };
template <class... P> static void launch(cudaStream_t stream, void (*k)(P...), dim3 grid, dim3 block, const typename just<P>::type &... a)
{
    void *list[] = { (void *)&a... };
    cudaLaunchKernel((const void *)k, grid, block, list, 0, stream);
}
template <class... P> static cudaError_t change(cudaGraphExec_t graph, cudaGraphNode_t node, void (*k)(P...), dim3 grid, dim3 block, const typename just<P>::type &... a)
{
    void *list[] = { (void *)&a... };
    cudaKernelNodeParams p = { (void *)k, grid, block, 0, list, NULL };
    return cudaGraphExecKernelNodeSetParams(graph, node, &p);
}
#define LAUNCH(stream, k, ...)       (NN_KERNEL(k), launch(stream, k, __VA_ARGS__))
#define CHANGE(graph, node, k, ...)  (NN_KERNEL(k), change(graph, node, k, __VA_ARGS__))
