// dnnl_shim.cpp - oneDNN's matmul primitive, made once per shape, behind nnbench_sgemm (gemm.c).
// Build: c++ -O2 -fopenmp -shared -fPIC dnnl_shim.cpp -o libdnnl_shim.so -ldnnl
#include <dnnl.hpp>
#include <map>
#include <omp.h>
#include <tuple>
using namespace dnnl;

struct Product { matmul run; memory a, b, c; };
static engine &cpu() { static engine e(engine::kind::cpu, 0); return e; }
static memory::desc view(long rows, long columns, bool transposed)
{
    return memory::desc({rows, columns}, memory::data_type::f32, transposed ? memory::dims{1, rows} : memory::dims{columns, 1});
}

extern "C" void nnbench_set_threads(int n) { omp_set_num_threads(n); }
extern "C" int nnbench_sgemm(int ta, int tb, long m, long n, long k, const float *A, const float *B, float *C)
{
    static std::map<std::tuple<int, int, long, long, long>, Product> made;
    static stream order(cpu());
    auto key = std::make_tuple(ta, tb, m, n, k);
    auto it = made.find(key);
    if (it == made.end()) {
        memory::desc a = view(m, k, ta), b = view(k, n, tb), c = view(m, n, false);
#if DNNL_VERSION_MAJOR >= 3
        matmul::primitive_desc plan(cpu(), a, b, c);
#else
        matmul::primitive_desc plan(matmul::desc(a, b, c), cpu());
#endif
        it = made.emplace(key, Product{matmul(plan), memory(a, cpu(), nullptr), memory(b, cpu(), nullptr), memory(c, cpu(), nullptr)}).first;
    }
    Product &p = it->second;
    p.a.set_data_handle((void *)A);
    p.b.set_data_handle((void *)B);
    p.c.set_data_handle(C);
    p.run.execute(order, {{DNNL_ARG_SRC, p.a}, {DNNL_ARG_WEIGHTS, p.b}, {DNNL_ARG_DST, p.c}});
    order.wait();
    return 0;
}
