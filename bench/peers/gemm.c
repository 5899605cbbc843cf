/* gemm.c - A worker (measure.h) for products of a BLAS, or of anything behind nnbench_sgemm.

   Build:  cc -O2 gemm.c -o gemm -ldl
   Run:    ./gemm PEER KIND LIBRARY THREADS      the library learns its threads from the environment, which peers.py sets
           cblas   a library with cblas_sgemm or scipy_cblas_sgemm (OpenBLAS, MKL, BLIS)
           dnnl    a library with dnnl_sgemm (oneDNN)
           shim    a library with  int nnbench_sgemm(int ta, int tb, long m, long n, long k, const float *A, const float *B, float *C)
                   0: done; else it does not do such shapes. Optional: void nnbench_set_threads(int n)
   Row-major C (M, N) = op(A) op(B), into memory that is there already: more than bench.c asks of nn.h, whose result is a new tensor.
   Every library is checked against a plain sum.                                                                                  */
#include <dlfcn.h>
#include <math.h>
#include "../measure.h"

typedef void (*cblas_fn)(int, int, int, int, int, int, float, const float *, int, const float *, int, float, float *, int);
typedef int  (*dnnl_fn)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t, float, float *, int64_t);
typedef int  (*shim_fn)(int, int, long, long, long, const float *, const float *, float *);

static const char *peer;
static int threads;
static cblas_fn cblas;
static dnnl_fn dnnl;
static shim_fn shim;

typedef struct Product { int ta, tb; long m, n, k; float *a, *b, *c; int refused; } Product;

static void multiply(void *arg)
{
    Product *p = arg;
    long lda = p->ta ? p->m : p->k, ldb = p->tb ? p->k : p->n;
    if (cblas) cblas(101, p->ta ? 112 : 111, p->tb ? 112 : 111, (int)p->m, (int)p->n, (int)p->k, 1, p->a, (int)lda, p->b, (int)ldb, 0, p->c, (int)p->n);
    else if (dnnl) p->refused = dnnl(p->ta ? 'T' : 'N', p->tb ? 'T' : 'N', p->m, p->n, p->k, 1, p->a, lda, p->b, ldb, 0, p->c, p->n);
    else p->refused = shim(p->ta, p->tb, p->m, p->n, p->k, p->a, p->b, p->c);
}

static int right(const Product *p)
{
    for (long q = 0; q < 64; q++) {
        long i = q ? q * 7919 % p->m : p->m - 1, j = q ? q * 104729 % p->n : p->n - 1;
        double s = 0;
        for (long z = 0; z < p->k; z++) s += (double)p->a[p->ta ? z * p->m + i : i * p->k + z] * p->b[p->tb ? j * p->k + z : z * p->n + j];
        if (!(fabs(s - p->c[i * p->n + j]) <= 1e-4 * fabs(s))) return 0;
    }
    return 1;
}

static void answer(const char *workload, double seconds)
{
    Product p = { 0 };
    char a, b;
    if (sscanf(workload, "gemm_%c%c_%ldx%ldx%ld", &a, &b, &p.m, &p.n, &p.k) != 5) return;
    p.ta = a == 'T';
    p.tb = b == 'T';
    p.a = nnb_numbers(p.m * p.k);
    p.b = nnb_numbers(p.k * p.n);
    p.c = nnb_numbers(p.m * p.n);
    multiply(&p);
    if (!p.refused && !right(&p)) fprintf(stderr, "%s: %s: wrong result, not measured\n", peer, workload);
    else if (!p.refused) nnb_report(peer, workload, threads, "GFLOPS", 2e-9 * (double)p.m * (double)p.n * (double)p.k / nnb_median(multiply, &p, seconds, 2));
    free(p.a);
    free(p.b);
    free(p.c);
}

int main(int argc, char **argv)
{
    if (argc != 5) { fprintf(stderr, "usage: gemm PEER cblas|dnnl|shim LIBRARY THREADS\n"); return 1; }
    void *library = dlopen(argv[3], RTLD_NOW | RTLD_LOCAL);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    peer = argv[1];
    threads = atoi(argv[4]);
    if (!strcmp(argv[2], "cblas")) {
        cblas = (cblas_fn)dlsym(library, "cblas_sgemm");
        if (!cblas) cblas = (cblas_fn)dlsym(library, "scipy_cblas_sgemm");
    } else if (!strcmp(argv[2], "dnnl")) dnnl = (dnnl_fn)dlsym(library, "dnnl_sgemm");
    else shim = (shim_fn)dlsym(library, "nnbench_sgemm");
    if (!cblas && !dnnl && !shim) { fprintf(stderr, "%s: no %s in it\n", argv[3], argv[2]); return 1; }
    void (*set_threads)(int) = (void (*)(int))dlsym(library, "nnbench_set_threads");
    if (set_threads) set_threads(threads);
    nnb_serve(answer);
    return 0;
}
