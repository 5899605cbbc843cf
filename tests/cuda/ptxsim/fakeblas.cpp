/* fakeblas.cpp - the few cuBLAS / cuBLASLt calls a small neural net library makes, on the CPU, for ptxsim.
 * Column-major, fp32/bf16/fp16 storage, double accumulation; ranges are checked; work runs on the stream, late. */
#include <cublasLt.h>
#include <cublas_v2.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <vector>
extern "C" {
int ptxsim_enqueue(cudaStream_t, void (*)(void *), void *);
int ptxsim_range(const void *, size_t, int, const char *);
}
static size_t esz(int t) { return t == CUDA_R_32F ? 4 : t == CUDA_R_16BF || t == CUDA_R_16F ? 2 : t == CUDA_R_64F ? 8 : 0; }
static double ld(const void *p, size_t i, int t) {
    if (t == CUDA_R_32F) return ((const float *)p)[i];
    if (t == CUDA_R_64F) return ((const double *)p)[i];
    uint16_t h = ((const uint16_t *)p)[i];
    if (t == CUDA_R_16BF) {
        uint32_t u = (uint32_t)h << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
    _Float16 q;
    memcpy(&q, &h, 2);
    return (double)q;
}
static void st(void *p, size_t i, int t, double v) {
    if (t == CUDA_R_32F) ((float *)p)[i] = (float)v;
    else if (t == CUDA_R_64F) ((double *)p)[i] = v;
    else if (t == CUDA_R_16BF) {
        float f = (float)v;
        uint32_t u;
        memcpy(&u, &f, 4);
        ((uint16_t *)p)[i] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    } else {
        _Float16 q = (_Float16)v;
        memcpy((uint16_t *)p + i, &q, 2);
    }
}
struct Job {
    int ta, tb, m, n, k, at, bt, ct, dt;
    const void *a, *b, *c;
    void *d;
    int64_t lda, ldb, ldc, ldd, sa, sb, sc, sd;
    int batch;
    double alpha, beta;
    int epi;
    const void *bias;
    int biast;
    void *aux;
    int64_t auxld;
    bool tf32;
};
static double gelu(double x) { return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }
static double dgelu(double x) {
    double u = 0.7978845608028654 * (x + 0.044715 * x * x * x), t = tanh(u);
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x);
}
static double r32(double v, bool on) {
    if (!on) return v;
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, 4);
    u = (u + 0x1000) & 0xffffe000u;
    memcpy(&f, &u, 4);
    return f;
}
static struct Said {
    long products;
    ~Said() { if (products) printf("fakeblas: %ld products\n", products); }
} said;
static void run(void *arg) {
    Job *j = (Job *)arg;
    said.products++;
    int64_t ar = j->ta ? j->k : j->m, ac = j->ta ? j->m : j->k, br = j->tb ? j->n : j->k, bc = j->tb ? j->k : j->n;
    std::vector<double> A((size_t)j->m * j->k), B((size_t)j->k * j->n);
    for (int q = 0; q < j->batch; q++) {
        const char *a = (const char *)j->a + q * j->sa * (int64_t)esz(j->at), *b = (const char *)j->b + q * j->sb * (int64_t)esz(j->bt),
                   *c = (const char *)j->c + q * j->sc * (int64_t)esz(j->ct);
        char *d = (char *)j->d + q * j->sd * (int64_t)esz(j->dt);
        for (int64_t x = 0; x < ac; x++)
            if (ptxsim_range(a + x * j->lda * (int64_t)esz(j->at), (size_t)ar * esz(j->at), 0, "gemm A")) {
                delete j;
                return;
            }
        for (int64_t x = 0; x < bc; x++)
            if (ptxsim_range(b + x * j->ldb * (int64_t)esz(j->bt), (size_t)br * esz(j->bt), 0, "gemm B")) {
                delete j;
                return;
            }
        for (int64_t x = 0; x < j->n; x++) {
            if (j->beta != 0 && ptxsim_range(c + x * j->ldc * (int64_t)esz(j->ct), (size_t)j->m * esz(j->ct), 0, "gemm C")) {
                delete j;
                return;
            }
            if (ptxsim_range(d + x * j->ldd * (int64_t)esz(j->dt), (size_t)j->m * esz(j->dt), 1, "gemm D")) {
                delete j;
                return;
            }
        }
        for (int i = 0; i < j->m; i++)
            for (int k = 0; k < j->k; k++)
                A[(size_t)i * j->k + k] = r32(ld(a, j->ta ? (size_t)(k + i * j->lda) : (size_t)(i + k * j->lda), j->at), j->tf32);
        for (int n = 0; n < j->n; n++)
            for (int k = 0; k < j->k; k++)
                B[(size_t)n * j->k + k] = r32(ld(b, j->tb ? (size_t)(n + k * j->ldb) : (size_t)(k + n * j->ldb), j->bt), j->tf32);
        for (int n = 0; n < j->n; n++)
            for (int i = 0; i < j->m; i++) {
                double s = 0;
                const double *x = &A[(size_t)i * j->k], *y = &B[(size_t)n * j->k];
                for (int k = 0; k < j->k; k++) s += x[k] * y[k];
                s *= j->alpha;
                if (j->beta != 0) s += j->beta * ld(c, (size_t)(i + n * j->ldc), j->ct);
                if (j->bias && (j->epi & CUBLASLT_EPILOGUE_BIAS) && j->epi != CUBLASLT_EPILOGUE_BGRADA &&
                    j->epi != CUBLASLT_EPILOGUE_BGRADB)
                    s += ld(j->bias, (size_t)i, j->biast);
                switch (j->epi) {
                    case CUBLASLT_EPILOGUE_RELU:
                    case CUBLASLT_EPILOGUE_RELU_BIAS:
                        if (!(s > 0)) s = 0;
                        break;
                    case CUBLASLT_EPILOGUE_GELU_AUX:
                    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
                        st(j->aux, (size_t)(i + n * j->auxld), j->dt, s);
                        s = gelu(s);
                        break;
                    case CUBLASLT_EPILOGUE_GELU:
                    case CUBLASLT_EPILOGUE_GELU_BIAS: s = gelu(s); break;
                    case CUBLASLT_EPILOGUE_DGELU: s *= dgelu(ld(j->aux, (size_t)(i + n * j->auxld), j->dt)); break;
                    case CUBLASLT_EPILOGUE_DEFAULT:
                    case CUBLASLT_EPILOGUE_BIAS: break;
                    default:
                        if (!i && !n) fprintf(stderr, "fakeblas: epilogue %d not known\n", j->epi);
                }
                st(d, (size_t)(i + n * j->ldd), j->dt, s);
            }
        if (j->aux && (j->epi == CUBLASLT_EPILOGUE_GELU_AUX || j->epi == CUBLASLT_EPILOGUE_GELU_AUX_BIAS))
            for (int n = 0; n < j->n; n++)
                ptxsim_range((char *)j->aux + n * j->auxld * (int64_t)esz(j->dt), (size_t)j->m * esz(j->dt), 1, "gemm aux");
    }
    delete j;
}
static Job base(void) {
    Job j;
    memset(&j, 0, sizeof j);
    j.batch = 1;
    j.epi = CUBLASLT_EPILOGUE_DEFAULT;
    j.alpha = 1;
    return j;
}
static cublasStatus_t go(const Job &j, cudaStream_t s) {
    return ptxsim_enqueue(s, run, new Job(j)) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}
struct cublasContext {
    cudaStream_t s;
    int math;
};
extern "C" {
cublasStatus_t cublasCreate_v2(cublasHandle_t *h) {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
    *h = new cublasContext();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t h) {
    delete h;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t h, cudaStream_t s) {
    h->s = s;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t h, cublasMath_t m) {
    h->math = m;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *p, size_t n) {
    return n && ptxsim_range(p, n, 1, "workspace") ? CUBLAS_STATUS_INVALID_VALUE : CUBLAS_STATUS_SUCCESS;
}
const char *cublasGetStatusString(cublasStatus_t s) { return s ? "cuBLAS error" : "success"; }
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *al,
                                          const void *a, cudaDataType at, int lda, long long sa, const void *b, cudaDataType bt, int ldb,
                                          long long sb, const void *be, void *c, cudaDataType ct, int ldc, long long sc, int batch,
                                          cublasComputeType_t cp, cublasGemmAlgo_t) {
    Job j = base();
    j.ta = ta != CUBLAS_OP_N;
    j.tb = tb != CUBLAS_OP_N;
    j.m = m;
    j.n = n;
    j.k = k;
    j.a = a;
    j.b = b;
    j.c = j.d = c;
    j.at = at;
    j.bt = bt;
    j.ct = j.dt = ct;
    j.lda = lda;
    j.ldb = ldb;
    j.ldc = j.ldd = ldc;
    j.sa = sa;
    j.sb = sb;
    j.sc = j.sd = sc;
    j.batch = batch;
    j.alpha = *(const float *)al;
    j.beta = *(const float *)be;
    j.tf32 = cp == CUBLAS_COMPUTE_32F_FAST_TF32;
    if (lda < (j.ta ? k : m) || ldb < (j.tb ? n : k) || ldc < m) return CUBLAS_STATUS_INVALID_VALUE;
    return go(j, h->s);
}
cublasStatus_t cublasGemmEx(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const void *al,
                            const void *a, cudaDataType at, int lda, const void *b, cudaDataType bt, int ldb, const void *be, void *c,
                            cudaDataType ct, int ldc, cublasComputeType_t cp, cublasGemmAlgo_t g) {
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, al, a, at, lda, 0, b, bt, ldb, 0, be, c, ct, ldc, 0, 1, cp, g);
}
cublasStatus_t cublasSgemm_v2(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const float *al,
                              const float *a, int lda, const float *b, int ldb, const float *be, float *c, int ldc) {
    return cublasGemmEx(h, ta, tb, m, n, k, al, a, CUDA_R_32F, lda, b, CUDA_R_32F, ldb, be, c, CUDA_R_32F, ldc,
                        h->math == CUBLAS_TF32_TENSOR_OP_MATH ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
}
cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t h, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k, const float *al,
                                         const float *a, int lda, long long sa, const float *b, int ldb, long long sb, const float *be,
                                         float *c, int ldc, long long sc, int batch) {
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, al, a, CUDA_R_32F, lda, sa, b, CUDA_R_32F, ldb, sb, be, c, CUDA_R_32F, ldc, sc,
                                      batch, h->math == CUBLAS_TF32_TENSOR_OP_MATH ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                                      CUBLAS_GEMM_DEFAULT);
}
/* cuBLASLt: own objects behind the opaque handles */
struct Desc {
    int ta, tb, epi, biast, comp;
    const void *bias;
    void *aux;
    int64_t auxld;
};
struct Lay {
    int t;
    uint64_t r, c;
    int64_t ld;
    int batch;
    int64_t stride;
};
cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) {
    *h = (cublasLtHandle_t) new int(0);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) {
    delete (int *)h;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *d, cublasComputeType_t c, cudaDataType_t) {
    Desc *x = new Desc();
    x->epi = CUBLASLT_EPILOGUE_DEFAULT;
    x->biast = -1;
    x->comp = c;
    *d = (cublasLtMatmulDesc_t)x;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
    delete (Desc *)d;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d_, cublasLtMatmulDescAttributes_t a, const void *b, size_t n) {
    Desc *d = (Desc *)d_;
    switch (a) {
        case CUBLASLT_MATMUL_DESC_TRANSA: d->ta = *(const int *)b != CUBLAS_OP_N; break;
        case CUBLASLT_MATMUL_DESC_TRANSB: d->tb = *(const int *)b != CUBLAS_OP_N; break;
        case CUBLASLT_MATMUL_DESC_EPILOGUE: d->epi = *(const int *)b; break;
        case CUBLASLT_MATMUL_DESC_BIAS_POINTER: memcpy(&d->bias, b, 8); break;
        case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: d->biast = *(const int *)b; break;
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER: memcpy(&d->aux, b, 8); break;
        case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD: memcpy(&d->auxld, b, 8); break;
        default: break;
    }
    (void)n;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *l, cudaDataType t, uint64_t r, uint64_t c, int64_t ld) {
    Lay *x = new Lay();
    x->t = t;
    x->r = r;
    x->c = c;
    x->ld = ld;
    x->batch = 1;
    *l = (cublasLtMatrixLayout_t)x;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
    delete (Lay *)l;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t a, const void *b, size_t) {
    Lay *x = (Lay *)l;
    if (a == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT) x->batch = *(const int *)b;
    if (a == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET) x->stride = *(const int64_t *)b;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *p) {
    *p = (cublasLtMatmulPreference_t) new int(0);
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
    delete (int *)p;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t, const void *,
                                                    size_t) {
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, int,
                                              cublasLtMatmulHeuristicResult_t *r, int *n) {
    memset(r, 0, sizeof *r);
    *n = 1;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t d_, const void *al, const void *a, cublasLtMatrixLayout_t la_,
                              const void *b, cublasLtMatrixLayout_t lb_, const void *be, const void *c, cublasLtMatrixLayout_t lc_,
                              void *dd, cublasLtMatrixLayout_t ld_, const cublasLtMatmulAlgo_t *, void *ws, size_t wn, cudaStream_t s) {
    Desc *d = (Desc *)d_;
    Lay *A = (Lay *)la_, *B = (Lay *)lb_, *C = (Lay *)lc_, *D = (Lay *)ld_;
    Job j = base();
    j.ta = d->ta;
    j.tb = d->tb;
    j.m = (int)D->r;
    j.n = (int)D->c;
    j.k = (int)(d->ta ? A->r : A->c);
    if ((d->tb ? B->c : B->r) != (uint64_t)j.k || (d->ta ? A->c : A->r) != D->r || (d->tb ? B->r : B->c) != D->c)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)dd) & 3) return CUBLAS_STATUS_INVALID_VALUE;
    if (wn && ptxsim_range(ws, wn, 1, "workspace")) return CUBLAS_STATUS_INVALID_VALUE;
    j.a = a;
    j.b = b;
    j.c = c;
    j.d = dd;
    j.at = A->t;
    j.bt = B->t;
    j.ct = C->t;
    j.dt = D->t;
    j.lda = A->ld;
    j.ldb = B->ld;
    j.ldc = C->ld;
    j.ldd = D->ld;
    j.sa = A->stride;
    j.sb = B->stride;
    j.sc = C->stride;
    j.sd = D->stride;
    j.batch = D->batch;
    j.alpha = *(const float *)al;
    j.beta = *(const float *)be;
    j.epi = d->epi;
    j.bias = d->bias;
    j.biast = d->biast < 0 ? D->t : d->biast;
    j.aux = d->aux;
    j.auxld = d->auxld;
    j.tf32 = d->comp == CUBLAS_COMPUTE_32F_FAST_TF32;
    return go(j, s);
}
}
