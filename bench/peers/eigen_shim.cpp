// eigen_shim.cpp - Eigen's product behind nnbench_sgemm (gemm.c).
// Build: c++ -O3 -march=native -DNDEBUG -fopenmp -shared -fPIC -I/usr/include/eigen3 eigen_shim.cpp -o libeigen_shim.so
#include <Eigen/Dense>
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using In = Eigen::Map<const Matrix>;

extern "C" void nnbench_set_threads(int n) { Eigen::setNbThreads(n); }
extern "C" int nnbench_sgemm(int ta, int tb, long m, long n, long k, const float *A, const float *B, float *C)
{
    Eigen::Map<Matrix> c(C, m, n);
    if (ta && tb) return 1;
    if (ta)      c.noalias() = In(A, k, m).transpose() * In(B, k, n);
    else if (tb) c.noalias() = In(A, m, k) * In(B, n, k).transpose();
    else         c.noalias() = In(A, m, k) * In(B, k, n);
    return 0;
}
