/* nn.h - v0.1.0 - neural networks in one C99 file - public domain or MIT-0 (see the end of this file)

   Do this:
       #define NN_IMPLEMENTATION
   before you include this file in *one* C or C++ file to create the implementation, and link with -lm -lpthread:

       cc -O2 xor.c -o xor -lm -lpthread

   A complete program (this compiles; the tests run it):

       #define NN_IMPLEMENTATION
       #include "nn.h"

       int main(void)
       {
           float in[] = { 0,0, 0,1, 1,0, 1,1 }, out[] = { 0, 1, 1, 0 };
           nn_context *nn = nn_new(NULL);
           nn_layer *net = nn_model_new(nn, NULL);
           nn_linear_new(net, "fc1", 2, 8, NULL);
           nn_fn_new(net, nn_tanh);
           nn_linear_new(net, "fc2", 8, 1, NULL);
           nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.05f });
           nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(4, 2), in), *y = nn_tensor_new(nn, NN_SHAPE(4, 1), out);
           for (int i = 0; i < 500; i++) {
               nn_begin(nn, NN_TRAIN);                                                  // a step starts: old results die
               nn_backward(nn_binary_cross_entropy(nn_forward(net, x), y, NULL));      // from logits
               nn_step(opt);                                                            // parameters move, gradients clear
           }
           nn_begin(nn, NN_EVAL);
           nn_print(nn_sigmoid(nn_forward(net, x)));
           nn_free(nn);
           return 0;
       }

   The ideas, once:
   - A CONTEXT owns everything: memory, threads, random state, the tape, the first error. There are no globals.
   - A TENSOR is n-dimensional, outermost dimension first, with strides. What `_new` and `_load` return lives until nn_free(nn);
     everything else (results of ops, nn_from) lives until the next nn_begin. There is no other free.
   - An OP runs at once and, in an NN_TRAIN step, is recorded on the tape if a gradient may be wanted. nn_backward walks the tape.
   - Nothing fails visibly in the middle of a formula: after an error, ops return an inert tensor, and nn_ok(nn) / nn_error(nn) tell.
     By default the first error is printed to stderr once. Calls that meet the world (files) return 1 for ok and 0 for not.
   - Options go into a zeroed struct by pointer; NULL means all defaults. Where zero itself is a choice but not the default, write NN_ZERO.

   nn.h DOES NOT: parse Python, download models, differentiate twice, promote dtypes silently, abort, exit, or trust a file.
   It does not promise equal bits under -ffast-math, on x87, or on a GPU.

   Map (search for the tag):
       >>config     every NN_* macro that you may define          >>graph      recording ops, backward
       >>api        the reference: types and prototypes           >>backend    who runs the numbers
       >>platform   compilers, threads, atomics                   >>layers     layers, parameters, initialisers
       >>cpu        which instruction set to use                  >>optim      optimizers, schedules
       >>errors     the first error sticks                        >>data       datasets, transforms, loaders
       >>memory     two stacks: long-lived and step               >>metrics    accuracy, F1, AUC, confusion matrix
       >>random     counter-based numbers                         >>monitor    TensorBoard, SVG, PNG, CSV
       >>threads    a pool behind a parallel-for                  >>files      safetensors, checkpoints
       >>tensor     shapes, strides, views, printing              >>train      fit, evaluate, predict
       >>plan       a forward pass as a fixed program             >>step       a training step as a fixed program
       >>passes     how one kernel text becomes many              >>ops        every op: formula, shape, forward, backward
       >>words      the vocabulary that kernels are written in

   Reading route for students: >>tensor, >>graph, then any op in >>ops, then >>optim.
   Dimension letters: B batch, C channels, H W image, K kernel, T time, M N K of a matrix product. d + name is a gradient: dx, dw.
*/

/* The file is visited several times: this part once, the kernel text at the end once per instruction set (>>passes). */
#ifndef NN__VISIT
#ifndef NN_H
#define NN_H

// =============================================================================================
// >>config   Macros that you may define before including this file. None of them changes a public struct or signature.
// =============================================================================================
//   NN_IMPLEMENTATION      create the implementation here (in one file)
//   NN_STATIC              make every function static (the implementation must be in the same file)
//   NN_HEADER_FILENAME     the name of this file, if you renamed it: "my_nn.h"; quotes included
//   NN_MALLOC NN_FREE      replace malloc and free for contexts that have no allocator in their desc; both or none
//   NN_NO_STDIO            no FILE, no printf: files only from and to memory, nn_print prints through the log callback
//   NN_NO_THREADS          everything runs in the calling thread
//   NN_NO_SIMD             only the plain C kernels
//   NN_NO_AVX512 NN_NO_AVX2   leave these kernels out (a smaller program)
//   NN_DETERMINISTIC       no fused multiply-add anywhere: same bits on every target with FLT_EVAL_METHOD == 0
//   NN_DOUBLE              also stamp the kernels in double precision: nn_desc.dtype = NN_F64 (gradient checks)
#ifndef NN_HEADER_FILENAME
#define NN_HEADER_FILENAME "nn.h"
#endif
#if defined(NN_MALLOC) != defined(NN_FREE)
#error "nn.h: define both of NN_MALLOC and NN_FREE, or none"
#endif

#ifdef NN_STATIC
#  if defined(__GNUC__)
#    define NN_API static __attribute__((unused))
#  else
#    define NN_API static
#  endif
#else
#  define NN_API extern
#endif

// =============================================================================================
// >>api   The reference, in the order in which a program calls things.
// =============================================================================================
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NN_VERSION_MAJOR 0
#define NN_VERSION_MINOR 1
#define NN_VERSION_PATCH 0
#define NN_VERSION       "0.1.0"
NN_API const char *nn_version(void);                     // the version of the implementation that was linked

// ---- types and limits ---------------------------------------------------------------------------
enum { NN_MAX_DIMS = 8, NN_MAX_INPUTS = 8, NN_MAX_OUTPUTS = 4, NN_MAX_AUX = 3, NN_MAX_PHASES = 16, NN_MAX_PARAMS = 128 };

// "zero, and I mean it", for an option whose zero means the default: .ignore_index = NN_ZERO, .padding_w = NN_ZERO
#define NN_ZERO (-2147483647 - 1)

typedef enum nn_dtype { NN_F32, NN_F16, NN_BF16, NN_I8, NN_U8, NN_I32, NN_I64, NN_BOOL, NN_F64, NN_DTYPE_COUNT } nn_dtype;
typedef enum nn_mode  { NN_EVAL, NN_TRAIN } nn_mode;     // NN_TRAIN: record a tape, dropout drops, batch norm learns its statistics

typedef struct nn_context   nn_context;
typedef struct nn_tensor    nn_tensor;
typedef struct nn_layer     nn_layer;
typedef struct nn_optimizer nn_optimizer;
typedef struct nn_schedule  nn_schedule;
typedef struct nn_dataset   nn_dataset;
typedef struct nn_loader    nn_loader;
typedef struct nn_backend   nn_backend;
typedef struct nn_op        nn_op;
typedef struct nn_node      nn_node;
typedef struct nn_call      nn_call;

// A shape, or a list of dimensions. NN_SHAPE(32, 3, 28, 28); NN_DIMS(0, -1); NN_SCALAR is the 0-d shape; NN_ALL all dimensions.
typedef struct nn_shape { int ndim; int64_t d[NN_MAX_DIMS]; } nn_shape;
#define NN__COUNT(...)  NN__COUNT_(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define NN__COUNT_(a, b, c, d, e, f, g, h, n, ...) n
#ifdef __cplusplus
#  define NN_SHAPE(...) (nn_shape{ NN__COUNT(__VA_ARGS__), { __VA_ARGS__ } })
#  define NN_SCALAR     (nn_shape{ 0, { 0 } })
#else
#  define NN_SHAPE(...) ((nn_shape){ NN__COUNT(__VA_ARGS__), { __VA_ARGS__ } })
#  define NN_SCALAR     ((nn_shape){ 0, { 0 } })
#endif
#define NN_DIMS NN_SHAPE
#define NN_ALL  NN_SCALAR

// Read the fields; write them only through functions.
struct nn_tensor {
    nn_context *nn;                  // owner
    void       *data;                // element 0; device memory under a device backend; NULL after an error
    int64_t     shape[NN_MAX_DIMS];  // outermost first
    int64_t     stride[NN_MAX_DIMS]; // in elements
    nn_tensor  *grad;                // gradient, or NULL while there is none
    nn_tensor  *base;                // the tensor that owns the storage (itself if not a view)
    nn_node    *node;                // the op that made it, or NULL
    const char *name;                // local name of a parameter, else NULL
    nn_layer   *layer;               // layer of a parameter or buffer, else NULL
    int         ndim;
    int         dtype;               // nn_dtype
    unsigned    flags;               // NN__T_* of the implementation
    unsigned    step;                // step in which it was made; 0 = lives until nn_free
    unsigned    version;             // counts writes to the storage (kept in base)
    int         output;              // which output of node it is
    size_t      place;               // of the storage in this step's memory (kept in base)
};

// ---- errors -------------------------------------------------------------------------------------
NN_API int         nn_ok(const nn_context *nn);          // 1 while nothing has failed (0 for NULL)
NN_API const char *nn_error(nn_context *nn);             // the first error: op, shapes and the rule that broke; "" if none
NN_API void        nn_clear(nn_context *nn);             // forget the error and go on
NN_API void        nn_fail(nn_context *nn, const char *format, ...);   // report an error of your own (printf format)

// ---- context and memory -------------------------------------------------------------------------
typedef struct nn_desc {
    void    *memory;                 // use only this buffer, never the heap ...
    size_t   bytes;                  // ... of that many bytes
    int      measure;                // 1: compute shapes and bytes only, no values; then nn_bytes_needed tells
    void  *(*malloc)(void *user, size_t bytes);          // allocator hooks: both or none
    void   (*free)(void *user, void *memory);
    int      threads;                // default 0: as many as there are cores. 1: none besides the caller
    void   (*parallel_for)(void *user, int64_t tasks, void (*task)(void *arg, int64_t index), void *arg); // your job system; must
                                     // run task(arg, 0..tasks-1) in any order on any threads and return when all are done
    void   (*on_error)(void *user, const char *message); // called inside the guilty call; default prints the first error to stderr
    void   (*log)(void *user, const char *text);         // where nn_print, nn_summary, nn_fit write; default stdout
    void    *user;                   // handed to the five hooks above
    uint64_t seed;                   // default 0
    const nn_backend *backend;       // default NULL: the CPU. nn_cuda(0) with nn_cuda.h
    const char *isa;                 // CPU kernels: "scalar", "avx2", "avx512", "neon", "rvv", "wasm"; default: environment NN_ISA, else the best
    nn_dtype dtype;                  // type of parameters and results: NN_F32, or NN_F64 (needs NN_DOUBLE; for gradient checks)
    int      exact;                  // 1: no Winograd: convolutions round as a direct sum does: less than half the error, twice the time
} nn_desc;
NN_API nn_context *nn_new(const nn_desc *desc);          // NULL only if not even the context could be allocated (nn_ok(NULL) is 0)
NN_API void        nn_free(nn_context *nn);              // frees everything that the context owns
NN_API size_t      nn_bytes_needed(const nn_context *nn);// bytes that nn_desc.memory must have for all that was done so far
NN_API int         nn_reserve(nn_context *nn, size_t step_bytes);  // get the memory of a step ahead of it
NN_API const char *nn_isa(const nn_context *nn);         // name of the kernels in use
NN_API int         nn_threads(const nn_context *nn);     // threads in use, the caller included
NN_API void        nn_seed(nn_context *nn, uint64_t seed);

NN_API void        nn_profile(nn_context *nn, int on);   // 1: from now on, measure the time of every op, from zero; 0: stop. Costs nothing when off
NN_API void        nn_profile_print(nn_context *nn);     // a table by time: op, pass, calls, time, GFLOP/s of products and convolutions, GB/s

// ---- steps --------------------------------------------------------------------------------------
NN_API void nn_begin(nn_context *nn, nn_mode mode);      // starts a step: results of the last one die; sets the mode
NN_API void nn_push(nn_context *nn, nn_mode mode);       // a nested part in another mode (gradient-free: NN_EVAL) ...
NN_API void nn_pop(nn_context *nn);                      // ... ends; results stay alive until the next nn_begin
NN_API nn_mode nn_get_mode(const nn_context *nn);
NN_API nn_tensor *nn_keep(nn_tensor *x);                 // copy without history that survives the next nn_begin, and only that one

// ---- tensors: make, view, read, print -----------------------------------------------------------
NN_API nn_tensor *nn_tensor_new(nn_context *nn, nn_shape shape, const float *data);                 // data NULL: zeros
NN_API nn_tensor *nn_tensor_new_as(nn_context *nn, nn_dtype dtype, nn_shape shape, const void *data); // data of that dtype
NN_API nn_tensor *nn_from(nn_context *nn, nn_shape shape, const float *data);                       // a copy that lives for this step
NN_API nn_tensor *nn_from_as(nn_context *nn, nn_dtype dtype, nn_shape shape, const void *data);
NN_API nn_tensor *nn_full(nn_context *nn, nn_shape shape, float value);                             // this and the next: for this step
NN_API nn_tensor *nn_zeros(nn_context *nn, nn_shape shape);
NN_API nn_tensor *nn_ones(nn_context *nn, nn_shape shape);
NN_API nn_tensor *nn_scalar(nn_context *nn, float value);                                           // 0-d
NN_API nn_tensor *nn_arange(nn_context *nn, float start, float end, float step);                    // end excluded
NN_API nn_tensor *nn_linspace(nn_context *nn, float start, float end, int64_t n);                   // end included
NN_API nn_tensor *nn_eye(nn_context *nn, int64_t n);
NN_API nn_tensor *nn_rand(nn_context *nn, nn_shape shape, float low, float high);                   // uniform
NN_API nn_tensor *nn_randn(nn_context *nn, nn_shape shape, float mean, float std);                  // normal
NN_API nn_shape   nn_shape_of(const nn_tensor *x);
NN_API int64_t    nn_count(const nn_tensor *x);          // number of elements
NN_API int64_t    nn_dim(const nn_tensor *x, int dim);   // size of a dimension; negative counts from the end
NN_API float     *nn_data(nn_tensor *x);                 // contiguous f32 in host memory, else an error and NULL
NN_API double     nn_item(const nn_tensor *x);           // the value of a 1-element tensor (NaN after an error)
NN_API int        nn_read(const nn_tensor *x, float *to);                       // all elements, logical order, any dtype, any device
NN_API int        nn_read_as(const nn_tensor *x, nn_dtype dtype, void *to);
NN_API int        nn_write(nn_tensor *x, const float *from);
NN_API int        nn_write_as(nn_tensor *x, nn_dtype dtype, const void *from);
NN_API int        nn_copy(nn_tensor *to, const nn_tensor *from);                // values into existing storage; no gradient
NN_API void       nn_print(const nn_tensor *x);          // like NumPy; long tensors are abbreviated
NN_API size_t     nn_dtype_bytes(nn_dtype dtype);
NN_API const char *nn_dtype_name(nn_dtype dtype);        // "f32", "i64", ...

// ---- gradients ----------------------------------------------------------------------------------
typedef struct nn_backward_desc {
    nn_tensor *grad;                 // gradient of y; default 1 (y must then have one element)
    int        retain;               // 1: this tape may be walked again
    struct nn_optimizer *step;       // does nn_step(step) as well, each parameter as soon as its gradient is complete: the same bits, but gradients are
                                     // used while they are in the cache and give their memory back at once. After it they are gone.
                                     // (With clip_norm, which needs all gradients, it is just nn_backward, then nn_step)
} nn_backward_desc;
NN_API void       nn_backward(nn_tensor *y);             // adds dy/dp into the gradient of every parameter p that y depends on
NN_API void       nn_backward_with(nn_tensor *y, const nn_backward_desc *desc);
NN_API nn_tensor *nn_grad(nn_tensor *x);                 // gradient of a parameter, or of a tensor given to nn_want_grad; NULL if none
NN_API nn_tensor *nn_want_grad(nn_tensor *x);            // keep the gradient of x (call it before x is used); returns x
NN_API nn_tensor *nn_detach(nn_tensor *x);               // the same values, without history
NN_API void       nn_zero_grad(nn_layer *layer);         // nn_step does it; for those who need it alone

typedef nn_tensor *(*nn_fn)(nn_tensor *x);                                      // any op of one tensor: nn_relu, nn_tanh, yours
typedef nn_tensor *(*nn_loss_of)(void *user);                                   // computes a scalar, in the current step
typedef struct nn_gradcheck_desc {
    double eps;                      // step of the difference; default 1e-2 (f32), 1e-6 (NN_F64)
    double tolerance;                // relative to the largest gradient; default 2e-2 (f32), 1e-6 (NN_F64)
    int    samples;                  // elements tried per tensor; default 32; all if the tensor has fewer
} nn_gradcheck_desc;
// Compares the gradient of loss(user) w.r.t. each of the n long-lived tensors (parameters, or nn_want_grad) with finite differences.
// 1 if all agree; else 0, and nn_error names the worst element. Starts steps of its own.
NN_API int nn_gradcheck(nn_context *nn, nn_loss_of loss, void *user, nn_tensor *const *x, int n, const nn_gradcheck_desc *desc);

// ---- elementwise ops: one row is the whole op ------------------------------------------------------
// From these rows come the prototypes below, the op ids, names, kernels for every instruction set and for double, and the gradient checks.
// The words (C, SEL, EXP ...) are explained in >>words. keep: what backward needs, X the input, Y the output.
//        name         keep   y = f(x)                                     dx = df(x, y, dy)
#define NN_UNARY_OPS(NN__X) \
    NN__X( neg,        0,     -x,                                          -dy                                                     ) \
    NN__X( abs,        X,     ABS(x),                                      SEL(x > C(0), dy, SEL(x < C(0), -dy, C(0) * dy))        ) \
    NN__X( sign,       0,     SEL(x > C(0), C(1), SEL(x < C(0), C(-1), x)), C(0) * dy                                              ) \
    NN__X( square,     X,     x * x,                                       C(2) * x * dy                                           ) \
    NN__X( sqrt,       Y,     SQRT(x),                                     C(0.5) * dy / y                                         ) \
    NN__X( rsqrt,      Y,     C(1) / SQRT(x),                              C(-0.5) * dy * y * y * y                                ) \
    NN__X( reciprocal, Y,     C(1) / x,                                    -dy * y * y                                             ) \
    NN__X( exp,        Y,     EXP(x),                                      dy * y                                                  ) \
    NN__X( log,        X,     LOG(x),                                      dy / x                                                  ) \
    NN__X( log1p,      X,     LOG1P(x),                                    dy / (C(1) + x)                                         ) \
    NN__X( sin,        X,     SIN(x),                                      dy * COS(x)                                             ) \
    NN__X( cos,        X,     COS(x),                                      -dy * SIN(x)                                            ) \
    NN__X( tanh,       Y,     TANH(x),                                     dy * (C(1) - y * y)                                     ) \
    NN__X( sigmoid,    Y,     SIGMOID(x),                                  dy * y * (C(1) - y)                                     ) \
    NN__X( relu,       Y,     SEL(x < C(0), C(0), x),                      SEL(y <= C(0), C(0), dy)                                ) \
    NN__X( relu6,      Y,     SEL(x < C(0), C(0), SEL(x > C(6), C(6), x)), SEL(y <= C(0), C(0), SEL(y >= C(6), C(0), dy))          ) \
    NN__X( selu,       X,     SEL(x > C(0), C(1.0507009873554804934) * x, C(1.7580993408473768599) * EXPM1(x)),                      \
                              SEL(x <= C(0), C(1.7580993408473768599) * EXP(x) * dy, C(1.0507009873554804934) * dy)                ) \
    NN__X( gelu,       X,     C(0.5) * x * (C(1) + ERF(x * C(0.70710678118654752440))),                                              \
                              dy * (C(0.5) * (C(1) + ERF(x * C(0.70710678118654752440))) + x * C(0.39894228040143267794) * EXP(C(-0.5) * x * x)) ) \
    NN__X( gelu_tanh,  X,     C(0.5) * x * (C(1) + TANH(C(0.79788456080286535588) * (x + C(0.044715) * x * x * x))),                 \
                              dy * GELU_TANH_GRAD(x)                                                                               ) \
    NN__X( silu,       X,     x * SIGMOID(x),                              dy * SIGMOID(x) * (C(1) + x * (C(1) - SIGMOID(x)))      ) \
    NN__X( mish,       X,     x * TANH(SOFTPLUS(x)),                       dy * MISH_GRAD(x)                                       ) \
    NN__X( logsigmoid, X,     -SOFTPLUS(-x),                               dy * SIGMOID(-x)                                        ) \
    NN__X( softsign,   X,     x / (C(1) + ABS(x)),                         dy / ((C(1) + ABS(x)) * (C(1) + ABS(x)))                ) \
    NN__X( hardsigmoid, X,    SEL(x < C(-3), C(0), SEL(x > C(3), C(1), x * C(0.16666666666666666667) + C(0.5))),                     \
                              SEL(x > C(-3), SEL(x < C(3), dy * C(0.16666666666666666667), C(0)), C(0))                            ) \
    NN__X( hardswish,  X,     SEL(x < C(-3), C(0), SEL(x > C(3), x, x * (x + C(3)) * C(0.16666666666666666667))),                    \
                              SEL(x <= C(-3), C(0), SEL(x >= C(3), dy, dy * (x * C(0.33333333333333333333) + C(0.5))))             ) \
    NN__X( floor,      0,     FLOOR(x),                                    C(0) * dy                                               ) \
    NN__X( ceil,       0,     -FLOOR(-x),                                  C(0) * dy                                               ) \
    NN__X( round,      0,     ROUND(x),                                    C(0) * dy                                               ) \
    NN__X( erf,        X,     ERF(x),                                      dy * C(1.1283791670955125739) * EXP(-x * x)             )
// with one scalar p:
#define NN_UNARY1_OPS(NN__X) \
    NN__X( add_scalar, 0,     x + p,                                       dy                                                      ) \
    NN__X( mul_scalar, 0,     x * p,                                       dy * p                                                  ) \
    NN__X( pow_scalar, X,     POW(x, p),                                   dy * p * POW(x, p - C(1))                               ) \
    NN__X( leaky_relu, X,     SEL(x > C(0), x, p * x),                     SEL(x > C(0), dy, p * dy)                               ) \
    NN__X( elu,        X,     SEL(x > C(0), x, p * EXPM1(x)),              SEL(x <= C(0), p * EXP(x) * dy, dy)                     ) \
    NN__X( celu,       X,     SEL(x > C(0), x, p * EXPM1(x / p)),          SEL(x <= C(0), EXP(x / p) * dy, dy)                     ) \
    NN__X( softplus,   X,     SOFTPLUS(x * p) / p,                         dy * SIGMOID(x * p)                                     )
// with two scalars p and q; clamp passes the gradient at the bounds themselves (as PyTorch with one bound), hardtanh does not:
#define NN_UNARY2_OPS(NN__X) \
    NN__X( clamp,      X,     SEL(x < p, p, SEL(x > q, q, x)),             SEL(x >= p, SEL(x <= q, dy, C(0)), C(0))                ) \
    NN__X( hardtanh,   X,     SEL(x < p, p, SEL(x > q, q, x)),             SEL(x <= p, C(0), SEL(x >= q, C(0), dy))                )
// of two tensors, with NumPy broadcasting:
//        name         keep   y = f(a, b)                                  da, db = df(a, b, y, dy)
#define NN_BINARY_OPS(NN__X) \
    NN__X( add,        0,     a + b,                                       dy,                              dy                     ) \
    NN__X( sub,        0,     a - b,                                       dy,                              -dy                    ) \
    NN__X( mul,        A | B, a * b,                                       dy * b,                          dy * a                 ) \
    NN__X( div,        B | Y, a / b,                                       dy / b,                          -dy * y / b            ) \
    NN__X( pow,        A | B | Y, POW(a, b),                               SEL(b == C(0), C(0), dy * b * POW(a, b - C(1))),          \
                              SEL(a == C(0), SEL(b >= C(0), C(0), dy * y * LOG(a)), dy * y * LOG(a))                               ) \
    NN__X( maximum,    A | B, SEL(a > b, a, SEL(a == a, b, a)),            SEL(a < b, C(0), SEL(a == b, C(0.5) * dy, dy)),           \
                                                                           SEL(b < a, C(0), SEL(a == b, C(0.5) * dy, dy))          ) \
    NN__X( minimum,    A | B, SEL(a < b, a, SEL(a == a, b, a)),            SEL(a > b, C(0), SEL(a == b, C(0.5) * dy, dy)),           \
                                                                           SEL(b > a, C(0), SEL(a == b, C(0.5) * dy, dy))          ) \
    NN__X( eq,         0,     SEL(a == b, C(1), C(0)),                     C(0) * dy,                       C(0) * dy              ) \
    NN__X( ne,         0,     SEL(a == b, C(0), C(1)),                     C(0) * dy,                       C(0) * dy              ) \
    NN__X( lt,         0,     SEL(a < b, C(1), C(0)),                      C(0) * dy,                       C(0) * dy              ) \
    NN__X( le,         0,     SEL(a <= b, C(1), C(0)),                     C(0) * dy,                       C(0) * dy              ) \
    NN__X( gt,         0,     SEL(a > b, C(1), C(0)),                      C(0) * dy,                       C(0) * dy              ) \
    NN__X( ge,         0,     SEL(a >= b, C(1), C(0)),                     C(0) * dy,                       C(0) * dy              )

#define NN__X(name, keep, f, df) NN_API nn_tensor *nn_##name(nn_tensor *x);
NN_UNARY_OPS(NN__X)                                      // nn_tensor *nn_relu(nn_tensor *x); ...
#undef NN__X
#define NN__X(name, keep, f, df) NN_API nn_tensor *nn_##name(nn_tensor *x, float p);
NN_UNARY1_OPS(NN__X)                                     // nn_tensor *nn_leaky_relu(nn_tensor *x, float p); ...
#undef NN__X
#define NN__X(name, keep, f, df) NN_API nn_tensor *nn_##name(nn_tensor *x, float p, float q);
NN_UNARY2_OPS(NN__X)                                     // nn_tensor *nn_clamp(nn_tensor *x, float p, float q); ...
#undef NN__X
#define NN__X(name, keep, f, da, db) NN_API nn_tensor *nn_##name(nn_tensor *a, nn_tensor *b);
NN_BINARY_OPS(NN__X)                                     // nn_tensor *nn_add(nn_tensor *a, nn_tensor *b); comparisons give 1.0 or 0.0
#undef NN__X
NN_API nn_tensor *nn_where(nn_tensor *condition, nn_tensor *a, nn_tensor *b);   // condition != 0 ? a : b, broadcast; no gradient to condition

// ---- reductions -----------------------------------------------------------------------------------
typedef struct nn_reduce_desc {
    int   keepdim;                   // 1: reduced dimensions stay, with size 1
    int   population;                // var, std: 1 divides by n; default n - 1, as PyTorch
    float p;                         // norm: the order; default 2
} nn_reduce_desc;
typedef nn_reduce_desc nn_sum_desc, nn_mean_desc, nn_max_desc, nn_min_desc, nn_prod_desc, nn_var_desc, nn_std_desc, nn_logsumexp_desc,
        nn_norm_desc, nn_argmax_desc, nn_argmin_desc;
NN_API nn_tensor *nn_sum      (nn_tensor *x, nn_shape dims, const nn_sum_desc *desc);        // nn_sum(x, NN_ALL, NULL); nn_sum(x, NN_DIMS(0, 2), NULL)
NN_API nn_tensor *nn_mean     (nn_tensor *x, nn_shape dims, const nn_mean_desc *desc);
NN_API nn_tensor *nn_max      (nn_tensor *x, nn_shape dims, const nn_max_desc *desc);        // gradient shared by equal maxima (torch.amax)
NN_API nn_tensor *nn_min      (nn_tensor *x, nn_shape dims, const nn_min_desc *desc);
NN_API nn_tensor *nn_prod     (nn_tensor *x, nn_shape dims, const nn_prod_desc *desc);
NN_API nn_tensor *nn_var      (nn_tensor *x, nn_shape dims, const nn_var_desc *desc);
NN_API nn_tensor *nn_std      (nn_tensor *x, nn_shape dims, const nn_std_desc *desc);
NN_API nn_tensor *nn_logsumexp(nn_tensor *x, nn_shape dims, const nn_logsumexp_desc *desc);
NN_API nn_tensor *nn_norm     (nn_tensor *x, nn_shape dims, const nn_norm_desc *desc);       // (sum |x|^p)^(1/p)
NN_API nn_tensor *nn_argmax   (nn_tensor *x, nn_shape dims, const nn_argmax_desc *desc);     // i64; index into the reduced dims, flattened; first of equals
NN_API nn_tensor *nn_argmin   (nn_tensor *x, nn_shape dims, const nn_argmin_desc *desc);
NN_API nn_tensor *nn_cumsum   (nn_tensor *x, int dim);                                       // y_i = x_0 + ... + x_i

// ---- linear algebra -------------------------------------------------------------------------------
typedef struct nn_linear_desc {
    int   no_bias;                   // nn_linear_new: 1 leaves the bias out
    nn_fn activation;                // e.g. nn_relu; default none
} nn_linear_desc;
NN_API nn_tensor *nn_matmul(nn_tensor *a, nn_tensor *b);                         // (..., M, K) x (..., K, N) -> (..., M, N); 1-d as in NumPy
NN_API nn_tensor *nn_linear(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_linear_desc *desc); // (..., I), w (O, I), b (O) or NULL -> (..., O)

// ---- shape ----------------------------------------------------------------------------------------
NN_API nn_tensor *nn_reshape   (nn_tensor *x, nn_shape shape);                   // one size may be -1; a view if x is contiguous
NN_API nn_tensor *nn_flatten   (nn_tensor *x, int start_dim);                    // dims start_dim.. become one
NN_API nn_tensor *nn_squeeze   (nn_tensor *x, int dim);                          // removes a dimension of size 1
NN_API nn_tensor *nn_unsqueeze (nn_tensor *x, int dim);                          // inserts one
NN_API nn_tensor *nn_permute   (nn_tensor *x, nn_shape dims);                    // a view; output dim i is input dim dims[i]
NN_API nn_tensor *nn_transpose (nn_tensor *x, int dim0, int dim1);               // a view
NN_API nn_tensor *nn_expand    (nn_tensor *x, nn_shape shape);                   // a view; sizes 1 grow by stride 0; -1 keeps a size
NN_API nn_tensor *nn_slice     (nn_tensor *x, int dim, int64_t start, int64_t end, int64_t step); // x[start:end:step], a view; step >= 1
NN_API nn_tensor *nn_select    (nn_tensor *x, int dim, int64_t index);           // x[index], a view; the dimension goes
NN_API nn_tensor *nn_contiguous(nn_tensor *x);                                   // itself if it already is
NN_API nn_tensor *nn_cast      (nn_tensor *x, nn_dtype dtype);                   // gradient passes between floating types
NN_API nn_tensor *nn_concat    (nn_tensor *const *xs, int n, int dim);
NN_API nn_tensor *nn_stack     (nn_tensor *const *xs, int n, int dim);           // joins along a new dimension
NN_API void       nn_split     (nn_tensor *x, nn_shape sizes, int dim, nn_tensor **ys);   // views of the given sizes
NN_API void       nn_chunk     (nn_tensor *x, int parts, int dim, nn_tensor **ys);        // equal views
NN_API nn_tensor *nn_repeat    (nn_tensor *x, nn_shape times);                   // tiles, as torch.Tensor.repeat
NN_API nn_tensor *nn_flip      (nn_tensor *x, nn_shape dims);
NN_API nn_tensor *nn_gather    (nn_tensor *x, int dim, nn_tensor *index);        // y[i][j] = x[index[i][j]][j] for dim 0; index i32 or i64
NN_API nn_tensor *nn_index_select(nn_tensor *x, int dim, nn_tensor *index);      // rows by a 1-d index
NN_API nn_tensor *nn_scatter_add(nn_tensor *x, int dim, nn_tensor *index, nn_tensor *source);   // copy of x with source added at index
NN_API nn_tensor *nn_one_hot   (nn_tensor *index, int64_t classes);              // (..., classes), f32
NN_API nn_tensor *nn_tril      (nn_tensor *x, int64_t diagonal);                 // zero above the diagonal
NN_API nn_tensor *nn_triu      (nn_tensor *x, int64_t diagonal);
typedef struct nn_sort_desc { int descending; int smallest; } nn_sort_desc;      // sort: descending; topk: smallest
typedef nn_sort_desc nn_topk_desc;
NN_API nn_tensor *nn_sort      (nn_tensor *x, int dim, nn_tensor **indices, const nn_sort_desc *desc);            // stable; indices i64, may be NULL
NN_API nn_tensor *nn_topk      (nn_tensor *x, int64_t k, int dim, nn_tensor **indices, const nn_topk_desc *desc); // in order
typedef enum nn_pad_mode { NN_PAD_CONSTANT, NN_PAD_REFLECT, NN_PAD_REPLICATE } nn_pad_mode;
typedef struct nn_pad_desc { nn_pad_mode mode; float value; } nn_pad_desc;
NN_API nn_tensor *nn_pad       (nn_tensor *x, nn_shape amounts, const nn_pad_desc *desc); // last dim first: NN_SHAPE(left, right, top, bottom)

// ---- convolution, pooling, upsampling ---------------------------------------------------------------
// Images are (B, C, H, W), signals (B, C, L). The _w fields set the width apart from the height; 0 means "as the height" (NN_ZERO: zero).
typedef struct nn_conv_desc {
    int stride, stride_w;            // default 1
    int padding, padding_w;          // default 0
    int dilation, dilation_w;        // default 1
    int same;                        // 1: pads so that the output has the size of the input (stride 1); the extra one goes to the end
    int groups;                      // default 1; groups = channels: depthwise
    int kernel_w;                    // _new only; default: square
    int no_bias;                     // _new only
    int output_padding, output_padding_w;   // transposed only; default 0
    nn_fn activation;                // default none
} nn_conv_desc;
typedef nn_conv_desc nn_conv1d_desc, nn_conv2d_desc, nn_conv_transpose1d_desc, nn_conv_transpose2d_desc;
NN_API nn_tensor *nn_conv1d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv1d_desc *desc);   // w (O, C/groups, K), b (O) or NULL
NN_API nn_tensor *nn_conv2d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv2d_desc *desc);   // w (O, C/groups, KH, KW)
NN_API nn_tensor *nn_conv_transpose1d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_transpose1d_desc *desc); // w (C, O/groups, K)
NN_API nn_tensor *nn_conv_transpose2d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_transpose2d_desc *desc);
typedef struct nn_pool_desc {
    int stride, stride_w;            // default: the kernel size
    int padding, padding_w;          // default 0; at most half of the kernel
    int dilation, dilation_w;        // max only; default 1
    int kernel_w;                    // default: square
    int ceil_mode;                   // 1: windows may start in the padding's last part, as in PyTorch
    int exclude_pad;                 // average only: 1 divides by the number of real pixels (PyTorch's count_include_pad=False)
} nn_pool_desc;
typedef nn_pool_desc nn_maxpool1d_desc, nn_maxpool2d_desc, nn_avgpool1d_desc, nn_avgpool2d_desc;
NN_API nn_tensor *nn_maxpool1d(nn_tensor *x, int kernel, const nn_maxpool1d_desc *desc);
NN_API nn_tensor *nn_maxpool2d(nn_tensor *x, int kernel, const nn_maxpool2d_desc *desc);
NN_API nn_tensor *nn_avgpool1d(nn_tensor *x, int kernel, const nn_avgpool1d_desc *desc);
NN_API nn_tensor *nn_avgpool2d(nn_tensor *x, int kernel, const nn_avgpool2d_desc *desc);
NN_API nn_tensor *nn_adaptive_maxpool1d(nn_tensor *x, int64_t length);
NN_API nn_tensor *nn_adaptive_maxpool2d(nn_tensor *x, int64_t height, int64_t width);
NN_API nn_tensor *nn_adaptive_avgpool1d(nn_tensor *x, int64_t length);
NN_API nn_tensor *nn_adaptive_avgpool2d(nn_tensor *x, int64_t height, int64_t width);
NN_API nn_tensor *nn_global_maxpool(nn_tensor *x);                               // (B, C, ...) -> (B, C)
NN_API nn_tensor *nn_global_avgpool(nn_tensor *x);
typedef struct nn_upsample_desc { int bilinear; int align_corners; } nn_upsample_desc;   // default: nearest
NN_API nn_tensor *nn_upsample(nn_tensor *x, int64_t height, int64_t width, const nn_upsample_desc *desc); // to that size; (B, C, L): height is 1

// ---- normalisation, dropout, embedding, softmax -------------------------------------------------------
typedef struct nn_norm_layer_desc {
    float eps;                       // default 1e-5
    float momentum;                  // batch norm: share of the new statistics; default 0.1
    int   no_affine;                 // _new only: no weight and bias
    int   no_bias;                   // _new only: weight, but no bias
    int   affine;                    // instance norm, _new only: 1 adds weight and bias, which it does not have by default, as in PyTorch
    int   no_stats;                  // batch norm, _new only: always normalise by the batch
    nn_fn activation;                // default none
} nn_norm_layer_desc;
typedef nn_norm_layer_desc nn_batchnorm_desc, nn_layernorm_desc, nn_groupnorm_desc, nn_instancenorm_desc, nn_rmsnorm_desc;
NN_API nn_tensor *nn_batchnorm(nn_tensor *x, nn_tensor *w, nn_tensor *b, nn_tensor *mean, nn_tensor *var, const nn_batchnorm_desc *desc);
                                     // (B, C, ...); w b mean var are (C), each pair may be NULL. NN_TRAIN normalises by the batch and moves mean and var,
                                     // running averages, towards it; NN_EVAL and frozen statistics normalise by mean and var
NN_API nn_tensor *nn_layernorm(nn_tensor *x, int dims, nn_tensor *w, nn_tensor *b, const nn_layernorm_desc *desc);   // over the last dims dimensions
NN_API nn_tensor *nn_groupnorm(nn_tensor *x, int groups, nn_tensor *w, nn_tensor *b, const nn_groupnorm_desc *desc); // (B, C, ...), w b (C)
NN_API nn_tensor *nn_instancenorm(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_instancenorm_desc *desc);
NN_API nn_tensor *nn_rmsnorm(nn_tensor *x, nn_tensor *w, const nn_rmsnorm_desc *desc);        // over the last dimension: x / sqrt(mean(x^2) + eps) * w
NN_API nn_tensor *nn_dropout(nn_tensor *x, float p);                             // NN_TRAIN: zero with probability p, else x / (1 - p)
NN_API nn_tensor *nn_dropout2d(nn_tensor *x, float p);                           // whole channels of (B, C, ...)
NN_API nn_tensor *nn_embedding(nn_tensor *index, nn_tensor *w);                  // i32/i64 (...), w (V, C) -> (..., C)
NN_API nn_tensor *nn_softmax(nn_tensor *x, int dim);
NN_API nn_tensor *nn_log_softmax(nn_tensor *x, int dim);

// ---- losses: (prediction, target, options) -------------------------------------------------------------
// As in torch.nn.functional. Shapes never broadcast, and an option that a loss does not have is an error. In a float option NN_ZERO means 0.
typedef enum nn_reduction { NN_MEAN, NN_SUM, NN_NONE } nn_reduction;
typedef struct nn_loss_desc {
    nn_reduction reduction;
    nn_tensor *weight;               // cross_entropy, nll: (C); binary_cross_entropy: broadcast to the prediction. Constants: no gradient
    nn_tensor *pos_weight;           // binary_cross_entropy: weight of positives, broadcast likewise
    float label_smoothing;           // cross_entropy: 0..1
    int   ignore_index;              // cross_entropy, nll: default -100; NN_ZERO to ignore class 0
    float temperature;               // kl_div: default 1; info_nce: default 0.07
    float margin;                    // hinge, triplet_margin: default 1; cosine_embedding: default 0
    float delta;                     // huber, smooth_l1 (there called beta): default 1
    float p;                         // triplet_margin: norm; default 2
} nn_loss_desc;
typedef nn_tensor *(*nn_loss)(nn_tensor *prediction, nn_tensor *target, const nn_loss_desc *desc);
NN_API nn_tensor *nn_cross_entropy       (nn_tensor *logits, nn_tensor *target, const nn_loss_desc *desc); // (B, C, ...); i32/i64 (B, ...) or probabilities (B, C, ...)
NN_API nn_tensor *nn_nll                 (nn_tensor *log_p,  nn_tensor *target, const nn_loss_desc *desc); // (B, C, ...), i32/i64 (B, ...)
NN_API nn_tensor *nn_binary_cross_entropy(nn_tensor *logits, nn_tensor *target, const nn_loss_desc *desc); // from logits
NN_API nn_tensor *nn_mse                 (nn_tensor *x,      nn_tensor *target, const nn_loss_desc *desc);
NN_API nn_tensor *nn_l1                  (nn_tensor *x,      nn_tensor *target, const nn_loss_desc *desc);
NN_API nn_tensor *nn_huber               (nn_tensor *x,      nn_tensor *target, const nn_loss_desc *desc);
NN_API nn_tensor *nn_smooth_l1           (nn_tensor *x,      nn_tensor *target, const nn_loss_desc *desc);
NN_API nn_tensor *nn_kl_div              (nn_tensor *logits, nn_tensor *target_logits, const nn_loss_desc *desc); // T^2 KL(softmax(t/T) || softmax(x/T)) over the last dim; mean over rows
NN_API nn_tensor *nn_hinge               (nn_tensor *x,      nn_tensor *target, const nn_loss_desc *desc); // targets -1/1: max(0, m - t x); integer (B): multi-class margin
NN_API nn_tensor *nn_cosine_embedding    (nn_tensor *a, nn_tensor *b, nn_tensor *target, const nn_loss_desc *desc);      // (B, C), (B, C), -1/1 (B)
NN_API nn_tensor *nn_triplet_margin      (nn_tensor *anchor, nn_tensor *positive, nn_tensor *negative, const nn_loss_desc *desc); // (B, C) each
NN_API nn_tensor *nn_info_nce            (nn_tensor *a, nn_tensor *b, const nn_loss_desc *desc);           // (B, C) each: row i of a belongs to row i of b

// ---- layers ---------------------------------------------------------------------------------------
// The first argument is the parent; the name becomes part of the parameter names ("conv1.weight"), NULL gives the child's index.
typedef struct nn_batch nn_batch;
typedef struct nn_model_desc {
    nn_tensor *(*forward)(void *self, nn_tensor *x);         // default: the children in order
    nn_tensor *(*step)(void *self, const nn_batch *batch);   // nn_fit: your own loss from a batch, when one-in-one-out is not enough
    void *self;                                              // handed to both
    int   release;                                           // 1: forward leaves no tensor anywhere but in its result: what it made needs less memory
} nn_model_desc;
typedef nn_model_desc nn_layer_desc;
NN_API nn_layer *nn_model_new     (nn_context *nn, const nn_model_desc *desc);                        // a root
NN_API nn_layer *nn_group_new     (nn_layer *parent, const char *name);                               // names a subtree; runs its children in order
NN_API nn_layer *nn_residual_new  (nn_layer *parent, const char *name);                               // x + children(x)
NN_API nn_layer *nn_layer_new     (nn_layer *parent, const char *name, const nn_layer_desc *desc);    // your own: .forward, .self
NN_API nn_layer *nn_fn_new        (nn_layer *parent, nn_fn fn);                                       // nn_fn_new(net, nn_relu)
NN_API nn_layer *nn_linear_new    (nn_layer *parent, const char *name, int64_t in, int64_t out, const nn_linear_desc *desc);
NN_API nn_layer *nn_conv1d_new    (nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv1d_desc *desc);
NN_API nn_layer *nn_conv2d_new    (nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv2d_desc *desc);
NN_API nn_layer *nn_conv_transpose1d_new(nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv_transpose1d_desc *desc);
NN_API nn_layer *nn_conv_transpose2d_new(nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv_transpose2d_desc *desc);
NN_API nn_layer *nn_batchnorm_new (nn_layer *parent, const char *name, int64_t channels, const nn_batchnorm_desc *desc);
NN_API nn_layer *nn_layernorm_new (nn_layer *parent, const char *name, nn_shape shape, const nn_layernorm_desc *desc);
NN_API nn_layer *nn_groupnorm_new (nn_layer *parent, const char *name, int groups, int64_t channels, const nn_groupnorm_desc *desc);
NN_API nn_layer *nn_instancenorm_new(nn_layer *parent, const char *name, int64_t channels, const nn_instancenorm_desc *desc);
NN_API nn_layer *nn_rmsnorm_new   (nn_layer *parent, const char *name, int64_t channels, const nn_rmsnorm_desc *desc);
NN_API nn_layer *nn_embedding_new (nn_layer *parent, const char *name, int64_t count, int64_t channels);
NN_API nn_layer *nn_maxpool1d_new (nn_layer *parent, int kernel, const nn_maxpool1d_desc *desc);
NN_API nn_layer *nn_maxpool2d_new (nn_layer *parent, int kernel, const nn_maxpool2d_desc *desc);
NN_API nn_layer *nn_avgpool1d_new (nn_layer *parent, int kernel, const nn_avgpool1d_desc *desc);
NN_API nn_layer *nn_avgpool2d_new (nn_layer *parent, int kernel, const nn_avgpool2d_desc *desc);
NN_API nn_layer *nn_adaptive_avgpool2d_new(nn_layer *parent, int64_t height, int64_t width);
NN_API nn_layer *nn_upsample_new  (nn_layer *parent, int scale, const nn_upsample_desc *desc);
NN_API nn_layer *nn_dropout_new   (nn_layer *parent, float p);
NN_API nn_layer *nn_dropout2d_new (nn_layer *parent, float p);
NN_API nn_layer *nn_flatten_new   (nn_layer *parent);                                                 // (B, ...) -> (B, N)
NN_API nn_layer *nn_softmax_new   (nn_layer *parent, int dim);
NN_API nn_layer *nn_leaky_relu_new(nn_layer *parent, float slope);

NN_API nn_tensor *nn_forward(nn_layer *layer, nn_tensor *x);
NN_API nn_tensor *nn_param_new (nn_layer *layer, const char *name, nn_shape shape);                   // a parameter of your own layer; zeros
NN_API nn_tensor *nn_buffer_new(nn_layer *layer, const char *name, nn_shape shape);                   // saved with the model, no gradient; zeros
NN_API nn_tensor *nn_param(nn_layer *layer, const char *path);                                        // parameter or buffer "fc1.weight"; NULL if none
NN_API int64_t    nn_param_count(nn_layer *layer);                                                    // numbers in all parameters of the subtree
NN_API int        nn_params(nn_layer *layer, nn_tensor **list, int max);                              // the parameters of the subtree; returns how many there are
NN_API int        nn_buffers(nn_layer *layer, nn_tensor **list, int max);
NN_API size_t     nn_name(const nn_tensor *param, const nn_layer *below, char *to, size_t bytes);     // full name; below NULL: from the root; returns its length
NN_API nn_layer  *nn_child(nn_layer *layer, const char *path);                                        // "h.0.attn"; NULL if none
NN_API void       nn_freeze(nn_layer *layer, int on);                                                 // no gradients, no updates, norm statistics kept
NN_API void       nn_freeze_param(nn_tensor *param, int on);
NN_API void       nn_summary(nn_layer *layer, nn_shape input);                                        // a table: layer, output shape, parameters
NN_API nn_context *nn_context_of(const nn_layer *layer);

// Initialisers, in place. Layers start with PyTorch's defaults.
NN_API void nn_init_constant       (nn_tensor *w, float value);
NN_API void nn_init_uniform        (nn_tensor *w, float low, float high);
NN_API void nn_init_normal         (nn_tensor *w, float mean, float std);
NN_API void nn_init_trunc_normal   (nn_tensor *w, float mean, float std, float low, float high);
NN_API void nn_init_xavier_uniform (nn_tensor *w, float gain);                                        // Glorot & Bengio 2010
NN_API void nn_init_xavier_normal  (nn_tensor *w, float gain);
NN_API void nn_init_kaiming_uniform(nn_tensor *w, float slope);                                       // He et al. 2015; slope 0: ReLU; fan-in
NN_API void nn_init_kaiming_normal (nn_tensor *w, float slope);
NN_API void nn_init_orthogonal     (nn_tensor *w, float gain);                                        // Saxe et al. 2013

// ---- optimizers -----------------------------------------------------------------------------------
// One struct for all; each constructor says which fields it reads. An option that the optimizer does not have is an error. NN_ZERO means 0.
// All read lr, weight_decay, clip_norm and clip_value. Formulas and their order are PyTorch's (foreach=False); options count as written: 0.9f is 0.9.
typedef struct nn_optimizer_desc {
    float lr;                        // default: sgd 0.01, rmsprop 0.01, adagrad 0.01, adam/adamw 0.001, nadam 0.002, lion 0.0001
    float momentum;                  // sgd, rmsprop; default 0
    float dampening;                 // sgd; default 0
    int   nesterov;                  // sgd
    float beta1, beta2;              // adam, adamw, nadam: default 0.9, 0.999; lion: 0.9, 0.99
    float alpha;                     // rmsprop; default 0.99
    float eps;                       // default 1e-8 (adagrad 1e-10)
    float weight_decay;              // default 0 (adamw 0.01); L2 in the gradient, decoupled in adamw and lion
    float momentum_decay;            // nadam; default 0.004
    float lr_decay;                  // adagrad; default 0
    int   centered;                  // rmsprop
    int   amsgrad;                   // adam, adamw
    float clip_norm;                 // > 0: scale all gradients so that their joint 2-norm is at most this (torch.nn.utils.clip_grad_norm_)
    float clip_value;                // > 0: clamp every gradient element to +- this, after clip_norm
    const char *match;               // nn_optimizer_add: only parameters whose full name ends in this (".bias")
} nn_optimizer_desc;
typedef nn_optimizer_desc nn_sgd_desc, nn_rmsprop_desc, nn_adagrad_desc, nn_adam_desc, nn_adamw_desc, nn_nadam_desc, nn_lion_desc;
NN_API nn_optimizer *nn_sgd_new    (nn_layer *layer, const nn_sgd_desc *desc);       // lr momentum dampening nesterov weight_decay
NN_API nn_optimizer *nn_rmsprop_new(nn_layer *layer, const nn_rmsprop_desc *desc);   // lr alpha eps momentum centered weight_decay
NN_API nn_optimizer *nn_adagrad_new(nn_layer *layer, const nn_adagrad_desc *desc);   // lr lr_decay eps weight_decay
NN_API nn_optimizer *nn_adam_new   (nn_layer *layer, const nn_adam_desc *desc);      // lr beta1 beta2 eps weight_decay amsgrad
NN_API nn_optimizer *nn_adamw_new  (nn_layer *layer, const nn_adamw_desc *desc);     // Loshchilov & Hutter 2019
NN_API nn_optimizer *nn_nadam_new  (nn_layer *layer, const nn_nadam_desc *desc);     // Dozat 2016
NN_API nn_optimizer *nn_lion_new   (nn_layer *layer, const nn_lion_desc *desc);      // Chen et al. 2023
NN_API void  nn_optimizer_add(nn_optimizer *opt, nn_layer *layer, const nn_optimizer_desc *desc);  // a parameter group: non-zero fields override
                                     // those of the constructor; parameters that the optimizer already has move to the group
NN_API void  nn_step(nn_optimizer *opt);                 // clip, update, clear the gradients; does nothing after an error.
                                     // Frozen parameters and those without gradient stay as they are
NN_API float nn_lr(const nn_optimizer *opt);
NN_API void  nn_set_lr(nn_optimizer *opt, float lr);     // of the first group; others keep their ratio
NN_API float nn_grad_norm(nn_optimizer *opt);            // joint 2-norm of the gradients as they are now
NN_API int64_t nn_steps(const nn_optimizer *opt);        // updates so far

typedef struct nn_ema nn_ema;                            // weight average: shadow = decay * shadow + (1 - decay) * parameter
NN_API nn_ema *nn_ema_new(nn_layer *layer, float decay);
NN_API void    nn_ema_update(nn_ema *ema);               // after nn_step
NN_API void    nn_ema_swap(nn_ema *ema);                 // exchange parameters and averages; call again to go back

// Schedules change the learning rate of an optimizer; names and formulas are those of torch.optim.lr_scheduler.
typedef struct nn_schedule_desc {
    int   per_step;                  // nn_fit: advance after every step instead of every epoch
    int   step_size;                 // step_lr: epochs between drops
    float gamma;                     // step_lr, multi_step_lr, exponential_lr: factor; default 0.1 (exponential: 0.95)
    const int *milestones; int milestone_count;   // multi_step_lr
    int   total;                     // polynomial_lr, linear_lr (default 5), one_cycle_lr, cosine_lr: number of advances
    float power;                     // polynomial_lr; default 1
    float min_lr;                    // cosine_lr, warm_restarts_lr, plateau_lr; default 0
    int   period, period_mult;       // warm_restarts_lr: T_0, T_mult; default 10, 1
    float start_factor, end_factor;  // linear_lr; default 1/3, 1
    float max_lr;                    // one_cycle_lr
    float rise;                      // one_cycle_lr: share of the steps that rise; default 0.3
    float div, final_div;            // one_cycle_lr: default 25, 1e4
    float factor; int patience, cooldown; float threshold; int maximize;   // plateau_lr: default 0.1, 10, 0, 1e-4, minimize
    int   warmup;                    // any: before the schedule begins, advance i of these gives (i + 1) / (warmup + 1) of its first rate; default 0
} nn_schedule_desc;
NN_API nn_schedule *nn_step_lr_new         (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API nn_schedule *nn_multi_step_lr_new   (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API nn_schedule *nn_exponential_lr_new  (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API nn_schedule *nn_polynomial_lr_new   (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API nn_schedule *nn_linear_lr_new       (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API nn_schedule *nn_cosine_lr_new       (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API nn_schedule *nn_warm_restarts_lr_new(nn_optimizer *opt, const nn_schedule_desc *desc);         // Loshchilov & Hutter 2017
NN_API nn_schedule *nn_one_cycle_lr_new    (nn_optimizer *opt, const nn_schedule_desc *desc);         // Smith & Topin 2019; cosine annealing; the momentum stays
NN_API nn_schedule *nn_plateau_lr_new      (nn_optimizer *opt, const nn_schedule_desc *desc);
NN_API void         nn_schedule_advance    (nn_schedule *schedule);                                   // PyTorch's scheduler.step(); nothing for plateau_lr
NN_API void         nn_schedule_metric     (nn_schedule *schedule, double value);                     // scheduler.step(value) of plateau_lr; nothing for others

// ---- data -----------------------------------------------------------------------------------------
// A dataset gives samples by index: x of one shape, and y: a class (i64), or numbers (f32), or nothing.
typedef struct nn_dataset_desc {
    int64_t  count;                  // samples
    nn_shape x_shape;                // of one sample, e.g. NN_SHAPE(1, 28, 28)
    nn_shape y_shape;                // of one target; NN_SCALAR for one number or class
    int64_t  classes;                // > 0: targets are classes 0..classes-1
    const float   *x;                // arrays: count * x_shape numbers; not copied, must stay valid
    const float   *y;                // numbers
    const int64_t *labels;           // or classes
    int (*get)(void *self, int64_t index, float *x, float *y, int64_t *label);   // or a callback: fills x and one of y, label; 1 = ok
    void *self;                      // handed to it. Called from a loader's thread, never from two at once
} nn_dataset_desc;
NN_API nn_dataset *nn_dataset_new(nn_context *nn, const nn_dataset_desc *desc);
NN_API nn_dataset *nn_idx_load(nn_context *nn, const char *images, const char *labels);               // MNIST's format, plain or .gz; bytes become 0..1; (N, H, W): x (1, H, W)
NN_API nn_dataset *nn_cifar_load(nn_context *nn, const char *const *files, int count);                // CIFAR-10 binary, plain or .gz; x (3, 32, 32) in 0..1
typedef struct nn_csv_desc {
    int         no_header;           // 1: the first line is data already
    const char *target;              // name of the target column; default: the last column
    int         target_column;       // or its number from 1; -1: there is none
    int         regression;          // 1: the target is a number, y (B, 1); default: a class (words in order of appearance, or whole numbers, sorted)
    char        separator;           // default ','
    int         skip_lines;          // lines to ignore at the top
    const char *const *ignore; int ignore_count;   // columns to leave out, by name; without a header they are called "1", "2", ...
    int         missing_as_mean;     // 1: missing values (empty, ?, NA, NaN, null) become the column's mean; default: an error with the line number
} nn_csv_desc;
NN_API nn_dataset *nn_csv_load(nn_context *nn, const char *path, const nn_csv_desc *desc);            // words in feature columns become numbers by order
NN_API nn_dataset *nn_csv_parse(nn_context *nn, const char *text, size_t bytes, const nn_csv_desc *desc);
NN_API nn_dataset *nn_idx_parse(nn_context *nn, const void *images, size_t image_bytes, const void *labels, size_t label_bytes);
NN_API nn_dataset *nn_cifar_parse(nn_context *nn, const void *bytes, size_t count);
typedef struct nn_folder_desc {      // class_name/picture.png ...; decoding is stb_image's, which you include
    unsigned char *(*load)(const char *path, int *width, int *height, int *channels, int want);       // stbi_load
    void (*free)(void *pixels);                                                                       // stbi_image_free
    int channels;                    // 1 or 3; default 3
    int height, width;               // all pictures are resized to this; default: the size of the first
} nn_folder_desc;
NN_API nn_dataset *nn_folder_load(nn_context *nn, const char *path, const nn_folder_desc *desc);      // classes in alphabetical order
NN_API int64_t     nn_dataset_count(const nn_dataset *data);
NN_API int64_t     nn_dataset_classes(const nn_dataset *data);
NN_API const char *nn_dataset_class(const nn_dataset *data, int64_t label);                           // name of a class, or NULL
NN_API nn_shape    nn_dataset_shape(const nn_dataset *data);                                          // of one x
NN_API int         nn_dataset_get(nn_dataset *data, int64_t index, float *x, float *y, int64_t *label); // any may be NULL
NN_API nn_dataset *nn_subset_new(nn_dataset *data, const int64_t *indices, int64_t count);
NN_API void        nn_split_data(nn_dataset *data, double share, nn_dataset **first, nn_dataset **second); // shuffled by the context's seed, stratified by class

typedef struct nn_scaler nn_scaler;                      // x -> (x - mean) / std per feature (of pictures per channel); "scaler.mean", "scaler.std"
NN_API nn_scaler *nn_scaler_new(nn_layer *model, nn_dataset *train);   // fitted on train; a child of the model: saved with it, and run first
NN_API nn_scaler *nn_scaler_unfitted_new(nn_layer *model, nn_shape x_shape);   // to load into: changes nothing until nn_load brings the numbers
NN_API nn_tensor *nn_scale(nn_scaler *scaler, nn_tensor *x);           // for models with a .forward of their own: call it first there

// Augmentation: applied by the loader to each training sample, in this order, the same for the same seed whatever the threads.
typedef struct nn_augment_desc {
    int   crop_padding;              // random crop of the same size after padding by this many zeros on each side
    float flip;                      // probability of a horizontal flip
    float rotate;                    // +- degrees
    float scale, shear, translate;   // affine: +- share, +- degrees, +- share of the size
    int   cutout;                    // side of a square set to zero (DeVries & Taylor 2017)
    float noise;                     // standard deviation of added normal noise
    float mixup;                     // alpha of mixup (Zhang et al. 2018): batch.y becomes probabilities
    const float *mean, *std;         // normalise channels first: (x - mean) / std; one number per channel
} nn_augment_desc;
typedef struct nn_loader_desc {
    int64_t batch;                   // default 32
    int     shuffle;
    int     drop_last;               // 1: leave out an incomplete last batch
    const float *weights;            // count sampling weights: draws with replacement, for imbalance
    int     balance;                 // 1: weights that make classes equally frequent
    int     no_prefetch;             // 1: load in the calling thread
    const nn_augment_desc *augment;
} nn_loader_desc;
struct nn_batch { nn_tensor *x, *y; int64_t count, index; };   // x (B, ...); y i64 (B) or f32 (B, ...); live until the next delivery
NN_API nn_loader *nn_loader_new(nn_dataset *data, const nn_loader_desc *desc);
NN_API int        nn_loader_next(nn_loader *loader, nn_batch *batch);  // 0 at the end of an epoch (the next call starts another) or after an error
NN_API int64_t    nn_loader_batches(const nn_loader *loader);          // per epoch
NN_API void       nn_loader_rewind(nn_loader *loader);                 // give up this epoch

// ---- metrics and training ---------------------------------------------------------------------------
enum { NN_MAX_CLASSES = 64 };
typedef struct nn_report {           // what nn_evaluate found; fields that do not apply are NaN
    int64_t count, classes;
    double  loss, accuracy, top5;
    double  precision[NN_MAX_CLASSES], recall[NN_MAX_CLASSES], f1[NN_MAX_CLASSES]; int64_t support[NN_MAX_CLASSES];   // per class
    double  macro_precision, macro_recall, macro_f1, micro_f1, weighted_f1;
    double  auc;                     // area under the ROC curve; two classes: of class 1; more: macro, one against the rest
    double  mse, mae, r2;            // regression
    int64_t confusion[NN_MAX_CLASSES][NN_MAX_CLASSES];   // [true][predicted]
    char    names[NN_MAX_CLASSES][16];
} nn_report;
NN_API void nn_report_classes(nn_report *report, int64_t count, int64_t classes, const float *scores, const int64_t *labels); // scores (count, classes)
NN_API void nn_report_values(nn_report *report, int64_t count, int64_t width, const float *predicted, const float *target);
NN_API void nn_report_print(nn_context *nn, const nn_report *report);
NN_API double nn_accuracy(nn_tensor *scores, nn_tensor *labels);                                      // of one batch: (B, C), (B)
NN_API double nn_auc(int64_t count, const float *score, const int64_t *label);                        // labels 0 or 1

typedef struct nn_events nn_events;  // a TensorBoard event file
typedef struct nn_progress {         // what callbacks see
    nn_layer *model; nn_optimizer *optimizer;
    int epoch, epochs; int64_t step, steps;      // epoch from 1; step within the epoch, from 1; step 0: the epoch has ended
    double loss, accuracy, validation_loss, validation_accuracy, lr, seconds;   // NaN where there is none
    nn_events *events;               // the file in log_dir, for things of your own; NULL without log_dir
    int stop;                        // set it to 1 to end training
} nn_progress;
typedef struct nn_fit_desc {
    nn_loader    *train;
    nn_loader    *validation;        // may be NULL
    nn_loss       loss;              // of output and y; without y, of output and x (autoencoders). Not read if the model has a .step
    const nn_loss_desc *loss_desc;
    nn_optimizer *optimizer;
    nn_schedule  *schedule;          // may be NULL
    nn_ema       *ema;               // may be NULL: updated every step, used for validation
    int           epochs;            // default 1
    int           accumulate;        // batches per update, weighted like one large batch; default 1
    int           patience;          // > 0: stop after so many epochs without a better validation loss (training loss without
                                     // .validation), and end with the weights of the best epoch (with .ema: their averages)
    int           repeat;            // steps as a fixed program (nn_step_plan): default: where model and loss consist of nn.h's own layers and functions;
                                     // 1: with callbacks of yours too, which must do the same ops in every step; NN_ZERO: never
    int           quiet;             // 1: no progress lines
    const char   *log_dir;           // TensorBoard event files and history.csv go here; made if it is not there
    const char   *checkpoint;        // a file written after every epoch; if it exists, training resumes from it, bit for bit
    void        (*on_step)(void *user, nn_progress *progress);
    void        (*on_epoch)(void *user, nn_progress *progress);
    void         *user;
} nn_fit_desc;
NN_API int nn_fit(nn_layer *model, const nn_fit_desc *desc);                        // 1 = ok. Stops at NaN or infinity and names the layer and op
NN_API int nn_evaluate(nn_layer *model, nn_loader *data, nn_loss loss, const nn_loss_desc *loss_desc, nn_report *report);
                                     // one pass over data; loss and report may be NULL; i64 targets make a classifier. In the middle of a step, too
NN_API int nn_predict(nn_layer *model, nn_loader *data, float *outputs);            // all outputs in order: count times those of one sample

// ---- plans: a net as a fixed program ------------------------------------------------------------------------
// For games, audio callbacks, servers: the forward pass recorded once in evaluation mode, its memory laid out once, batch norm folded into
// the layer before it. The plan holds copies of the weights and never changes: any number of threads may run it at once, each with a workspace
// of its own. A run allocates nothing, locks nothing, makes no system call. Free plans before their context.
typedef struct nn_plan nn_plan;
typedef struct nn_plan_desc {
    nn_dtype dtype;                  // of the input; default NN_F32
    int      no_fold;                // 1: batch norm is not folded: the same bits as nn_forward; else results differ by rounding
    int      parallel;               // 1: a run uses the threads of the net's context: one run at a time, and not while the context computes
} nn_plan_desc;
NN_API nn_plan *nn_plan_new(nn_layer *net, nn_shape input, const nn_plan_desc *desc);      // input: (B, ...), the largest batch; NULL after an error.
                                     // Works in the middle of a step. A net that draws random numbers or reads values in its forward has no plan
NN_API size_t   nn_plan_bytes(const nn_plan *plan);      // of a workspace; any alignment, need not be initialised, may move between runs
NN_API nn_shape nn_plan_output(const nn_plan *plan);     // for the largest batch
NN_API int      nn_plan_any_batch(const nn_plan *plan);  // 1: smaller batches run too
NN_API int      nn_run(const nn_plan *plan, void *workspace, const void *input, float *output);          // the whole batch; 1 = done
NN_API int      nn_run_batch(const nn_plan *plan, void *workspace, int64_t batch, const void *input, float *output);   // the first `batch` samples
NN_API void     nn_plan_print(const nn_plan *plan);      // every step: shapes, bytes, multiply-adds, time of one run, GFLOP/s
NN_API void     nn_plan_free(nn_plan *plan);

// ---- training steps as fixed programs -------------------------------------------------------------------------
// A step is forward, loss, backward, update. nn_step_plan_run does one in every call: the first as always, while its calls of kernels are recorded;
// as soon as two steps made the same calls, from then on these are repeated: no tape, no tensors, no allocation, every number at a fixed place.
// The bits are those of nn_begin, nn_forward, nn_backward_with(.step); parameters, optimizer states and running statistics stay where they are, and
// learning rates, the count of steps and random numbers go on. What cannot be repeated runs as always: batches of another shape, steps whose
// calls change, that read or write numbers by themselves (nn_item, nn_from), contexts in a caller's buffer (nn_desc.memory) or on a device.
// It writes the model: one run at a time, in the thread that uses the context; runs use the context's threads. nn_freeze, nn_optimizer_add and
// new layers are noticed, and recorded anew. nn_fit does all this by itself.
typedef struct nn_step_plan nn_step_plan;
typedef struct nn_step_plan_desc {
    nn_loss       loss;              // of output and y; without y, of output and x
    const nn_loss_desc *loss_desc;
    nn_optimizer *optimizer;
    nn_tensor  *(*step)(void *user, nn_tensor *x, nn_tensor *y);     // or the whole step in your words, without nn_begin; returns the loss.
    void         *user;              // It is not called any more once it is repeated: it must do the same ops every time
} nn_step_plan_desc;
NN_API nn_step_plan *nn_step_plan_new(nn_layer *model, const nn_step_plan_desc *desc);     // NULL after an error. Free it before its context
NN_API nn_tensor  *nn_step_plan_run(nn_step_plan *plan, nn_tensor *x, nn_tensor *y);       // begins a step; x, y outlive nn_begin (nn_tensor_new, a loader's,
                                     // nn_keep); y may be NULL. Returns the loss, alive until the next nn_begin
NN_API const char *nn_step_plan_why(const nn_step_plan *plan);       // why steps are not repeated (yet); NULL: they are
NN_API int         nn_step_plan_calls(const nn_step_plan *plan);     // kernels called in a step that is repeated, else 0
NN_API size_t      nn_step_plan_bytes(const nn_step_plan *plan);     // of this step's memory that it uses
NN_API void        nn_step_plan_free(nn_step_plan *plan);

// ---- monitoring -------------------------------------------------------------------------------------
NN_API nn_events *nn_events_new(nn_context *nn, const char *dir);
NN_API int nn_events_scalar(nn_events *events, const char *tag, int64_t step, double value);
NN_API int nn_events_histogram(nn_events *events, const char *tag, int64_t step, const float *values, int64_t count);
NN_API int nn_events_image(nn_events *events, const char *tag, int64_t step, const nn_tensor *image);  // (C, H, W), C 1 or 3, 0..1
NN_API int nn_events_text(nn_events *events, const char *tag, int64_t step, const char *text);
NN_API int nn_png_save(const nn_tensor *image, const char *path);                   // (C, H, W) or (H, W), 0..1
NN_API int nn_png_sheet(const nn_tensor *images, int columns, const char *path);    // (B, C, H, W): a contact sheet; small pictures are enlarged,
                                     // those that leave 0..1 (filters) scaled to their own range; C not 1 or 3: every channel is a picture
typedef struct nn_series { const char *name; const double *y; int64_t count; } nn_series;
NN_API int nn_svg_plot(nn_context *nn, const char *path, const char *title, const nn_series *series, int count);   // lines over 0..count-1
NN_API int nn_svg_confusion(nn_context *nn, const char *path, const nn_report *report);
NN_API size_t nn_sparkline(const double *y, int64_t count, int width, char *to, size_t bytes);         // UTF-8 bars

// ---- save and load ------------------------------------------------------------------------------------
typedef struct nn_rename { const char *from, *to; } nn_rename;   // prefix in the file -> prefix in the model
typedef struct nn_load_desc {
    const char *skip;                // names in the model with this prefix are left as they are
    const nn_rename *rename; int rename_count;
    int   not_strict;                // 1: missing and unexpected tensors are allowed; mis-shaped ones never are
    char *report; size_t report_bytes;   // gets the lists of missing, unexpected and mis-shaped names
} nn_load_desc;
typedef struct nn_save_desc {
    nn_optimizer *optimizer;         // also its state, step and learning rate ...
    nn_schedule  *schedule;
    nn_loader    *loader;            // ... and where the loader stands ...
    nn_ema       *ema;               // ... and the weight averages: a checkpoint
    nn_dtype      dtype;             // NN_F16, NN_BF16: store parameters smaller; default as they are
} nn_save_desc;
NN_API int nn_save(nn_layer *layer, const char *path, const nn_save_desc *desc);    // safetensors; written beside, flushed, renamed
NN_API int nn_load(nn_layer *layer, const char *path, const nn_load_desc *desc);    // parameters and buffers; all or nothing
NN_API int nn_save_memory(nn_layer *layer, void *to, size_t bytes, size_t *written, const nn_save_desc *desc);   // to NULL: only counts
NN_API int nn_load_memory(nn_layer *layer, const void *from, size_t bytes, const nn_load_desc *desc);
NN_API int nn_resume(nn_layer *layer, const char *path, const nn_save_desc *desc);  // a checkpoint, exactly

// ---- ops of your own, and backends ----------------------------------------------------------------------
// Numbers are reached only through a call: which op, on which memory. Kernels see calls, never tensors.
typedef struct nn_view {             // memory with a shape
    void   *data;                    // NULL: not there (an input that backward does not keep, a gradient nobody wants)
    int64_t shape[NN_MAX_DIMS], stride[NN_MAX_DIMS];
    int     ndim, dtype;
} nn_view;
typedef enum nn_pass { NN_FORWARD, NN_BACKWARD } nn_pass;
struct nn_call {
    const nn_op *op;
    const void  *params;             // what nn_apply was given
    nn_context  *nn;                 // for nn_fail only
    nn_pass      pass;
    int          nin, nout, naux;
    int          mode;               // nn_mode when it was recorded
    unsigned     add;                // backward: bit i set: add to din[i]; clear: assign it
    nn_view      in[NN_MAX_INPUTS], out[NN_MAX_OUTPUTS], aux[NN_MAX_AUX];     // aux: results that only backward reads
    nn_view      din[NN_MAX_INPUTS], dout[NN_MAX_OUTPUTS];                    // backward: gradients of inputs and outputs
    uint64_t     seed, step, ordinal;    // random ops: the stream of this op in this step (>>random)
    int          phases;             // filled by op->plan: how the work is cut. Numbers of tasks follow from shapes only
    int64_t      tasks[NN_MAX_PHASES];
    int64_t      cost;               // how much work it is, in numbers moved (some 8 multiply-adds each); 0: all of in, out ... A small call is not spread
    size_t       shared_bytes, task_bytes;   // scratch wanted: for all tasks together, for each running task
    void        *shared;             // the scratch, 64-byte aligned
};
typedef struct nn_task { int phase; int64_t index, count; void *scratch; } nn_task;
typedef void (*nn_exec)(const nn_call *c, const nn_task *t);
enum {                               // nn_op.flags
    NN_OP_STRIDED   = 1,             // takes inputs of any strides (else they are made contiguous)
    NN_OP_ASSIGNS   = 2,             // backward looks at c->add (else din is zeroed first and backward always adds)
    NN_OP_NO_GRAD   = 4,             // has no gradient
    NN_OP_RANDOM    = 8,             // reads seed and ordinal
    NN_OP_ANY_DTYPE = 16,            // checks the dtypes of its inputs itself (else all must be the context's dtype)
    NN_OP_MUTATES   = 32,            // writes into inputs (optimizers, running statistics)
    NN_OP_VIEW      = 64,            // its result is a view of input 0: shape() sets data and strides; forward is never called
    NN_OP_ALL_INPUTS = 128,          // no input may be NULL (else those after the first may)
    NN_OP_IN_PLACE  = 256,           // elementwise: forward may find out[0] in the memory of in[0], backward its last din in that of dout[0]
    NN_OP_SPLIT     = 512            // backward runs twice: for input 0, then for the parameters, so that their scratch and gradients share memory
};
#define NN_KEEP_IN(i)  (1u << (i))
#define NN_KEEP_OUT(i) (1u << (8 + (i)))
#define NN_KEEP_NONE   (1u << 31)
struct nn_op {                       // static const nn_op softsign = { .name = "softsign", .inputs = 1, .forward = f, .backward = g };
    const char *name;
    int         inputs;              // number of tensors; -1: any
    int         outputs;             // default 1
    unsigned    flags;
    unsigned    keep;                // NN_KEEP_*: what backward reads; default all
    int       (*shape)(nn_call *c);  // fills shape and dtype of out[] and aux[]; 0 after nn_fail; default: out[0] like in[0]
    void      (*plan)(nn_call *c);   // fills phases, tasks, scratch; default: one task
    nn_exec     forward, backward;   // backward NULL: no gradient
    int         id;                  // built-in ops: NN_OP_*; yours: 0
    size_t      params_bytes;        // copied from nn_apply's params onto the tape
};
NN_API nn_tensor *nn_apply(const nn_op *op, nn_tensor *const *inputs, const void *params);            // first output
NN_API nn_tensor *nn_apply_n(nn_context *nn, const nn_op *op, nn_tensor *const *inputs, int count, const void *params, nn_tensor **outputs);
NN_API int64_t    nn_view_count(const nn_view *v);

// ---- every structured op: one row here, one block in >>ops -----------------------------------------------
// The elementwise rows above are ops too. From all rows come the ids (NN_OP_relu, NN_OP_matmul ...), the table of ops and the tables of kernels.
// kind: where its kernels are stamped (>>passes): SIMD once per instruction set, PLAIN once; _FORWARD: no gradient; VIEW: only a gradient.
//        name          kind           in out  flags                                 keep             shape rule           plan                  parameters
#define NN_OPS_CORE(NN__X) \
    NN__X( copy,        PLAIN_FORWARD,  1, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED,       NN_KEEP_NONE,    nn__same_shape,      nn__one_task,         nn__no_params ) \
    NN__X( cast,        PLAIN,          1, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED | NN_OP_ASSIGNS, NN_KEEP_NONE, nn__cast_shape, nn__one_task,       nn__int       ) \
    NN__X( fill,        PLAIN_FORWARD,  0, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED,       NN_KEEP_NONE,    nn__same_shape,      nn__each_plan,        double        ) \
    NN__X( accumulate,  SIMD_FORWARD,   1, 1, NN_OP_STRIDED,                         NN_KEEP_NONE,    nn__same_shape,      nn__each_plan,        nn__no_params ) \
    NN__X( contiguous,  SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_NONE,    nn__same_shape,      nn__each_plan,        nn__no_params )
#define NN_OPS_VIEW(NN__X) \
    NN__X( reshape,     VIEW,           1, 1, NN_OP_VIEW | NN_OP_STRIDED | NN_OP_ANY_DTYPE | NN_OP_ASSIGNS, NN_KEEP_NONE, nn__reshape_shape, nn__each_plan, nn_shape ) \
    NN__X( permute,     VIEW,           1, 1, NN_OP_VIEW | NN_OP_STRIDED | NN_OP_ANY_DTYPE | NN_OP_ASSIGNS, NN_KEEP_NONE, nn__permute_shape, nn__each_plan, nn_shape ) \
    NN__X( slice,       VIEW,           1, 1, NN_OP_VIEW | NN_OP_STRIDED | NN_OP_ANY_DTYPE, NN_KEEP_NONE, nn__slice_shape, nn__each_plan,        nn__slice_params ) \
    NN__X( expand,      VIEW,           1, 1, NN_OP_VIEW | NN_OP_STRIDED | NN_OP_ANY_DTYPE | NN_OP_ASSIGNS, NN_KEEP_NONE, nn__expand_shape, nn__sum_plan, nn_shape )
#define NN_OPS_REDUCE(NN__X) \
    NN__X( sum,         SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_NONE,    nn__reduce_shape,    nn__reduce_plan,      nn__reduce_params ) \
    NN__X( max,         SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_OUT(0), nn__reduce_shape, nn__reduce_plan, nn__reduce_params ) \
    NN__X( min,         SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_OUT(0), nn__reduce_shape, nn__reduce_plan, nn__reduce_params ) \
    NN__X( prod,        SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0),   nn__reduce_shape,    nn__reduce_plan,      nn__reduce_params ) \
    NN__X( var,         SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0),   nn__reduce_shape,    nn__reduce_plan,      nn__reduce_params ) \
    NN__X( std,         SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_OUT(0), nn__reduce_shape, nn__reduce_plan, nn__reduce_params ) \
    NN__X( logsumexp,   SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_OUT(0), nn__reduce_shape, nn__reduce_plan, nn__reduce_params ) \
    NN__X( norm,        SIMD,           1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_OUT(0), nn__reduce_shape, nn__reduce_plan, nn__reduce_params ) \
    NN__X( argmax,      PLAIN_FORWARD,  1, 1, NN_OP_STRIDED | NN_OP_ANY_DTYPE,       NN_KEEP_NONE,    nn__reduce_shape,    nn__sum_plan,         nn__reduce_params ) \
    NN__X( argmin,      PLAIN_FORWARD,  1, 1, NN_OP_STRIDED | NN_OP_ANY_DTYPE,       NN_KEEP_NONE,    nn__reduce_shape,    nn__sum_plan,         nn__reduce_params ) \
    NN__X( cumsum,      PLAIN,          1, 1, NN_OP_ASSIGNS,                         NN_KEEP_NONE,    nn__same_shape,      nn__lines_plan,       nn__int       ) \
    NN__X( softmax,     SIMD,           1, 1, NN_OP_ASSIGNS,                         NN_KEEP_OUT(0),  nn__same_shape,      nn__lines_plan,       nn__int       ) \
    NN__X( log_softmax, SIMD,           1, 1, NN_OP_ASSIGNS,                         NN_KEEP_OUT(0),  nn__same_shape,      nn__lines_plan,       nn__int       )
#define NN_OPS_LINEAR(NN__X) \
    NN__X( matmul,      SIMD,           2, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__matmul_shape, nn__matmul_plan, nn__no_params ) \
    NN__X( linear,      SIMD,           3, 1, NN_OP_STRIDED | NN_OP_ASSIGNS,         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__linear_shape, nn__linear_plan, nn__no_params )
#define NN_OPS_SHAPE(NN__X) \
    NN__X( flip,        VIEW,           1, 1, NN_OP_VIEW | NN_OP_STRIDED | NN_OP_ANY_DTYPE | NN_OP_ASSIGNS, NN_KEEP_NONE, nn__flip_shape, nn__each_plan, nn__int ) \
    NN__X( concat,      PLAIN,         -1, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED | NN_OP_ASSIGNS, NN_KEEP_NONE, nn__concat_shape, nn__each_plan, nn__int ) \
    NN__X( gather,      PLAIN,          2, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED,       NN_KEEP_IN(1),   nn__gather_shape,    nn__gather_plan,      nn__int       ) \
    NN__X( scatter_add, PLAIN,          3, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED,       NN_KEEP_IN(1),   nn__gather_shape,    nn__scatter_plan,     nn__int       ) \
    NN__X( index_select, SIMD,          2, 1, NN_OP_ANY_DTYPE,                       NN_KEEP_IN(1),   nn__select_shape,    nn__select_plan,      nn__int       ) \
    NN__X( embedding,   SIMD,           2, 1, NN_OP_ANY_DTYPE,                       NN_KEEP_IN(1),   nn__embedding_shape, nn__select_plan,      nn__int       ) \
    NN__X( one_hot,     PLAIN_FORWARD,  1, 1, NN_OP_ANY_DTYPE,                       NN_KEEP_NONE,    nn__one_hot_shape,   nn__one_task,         int64_t       ) \
    NN__X( tril,        PLAIN,          1, 1, NN_OP_ANY_DTYPE | NN_OP_ASSIGNS,       NN_KEEP_NONE,    nn__triangle_shape,  nn__each_plan,        int64_t       ) \
    NN__X( triu,        PLAIN,          1, 1, NN_OP_ANY_DTYPE | NN_OP_ASSIGNS,       NN_KEEP_NONE,    nn__triangle_shape,  nn__each_plan,        int64_t       ) \
    NN__X( sort,        PLAIN,          1, 2, NN_OP_ANY_DTYPE,                       NN_KEEP_OUT(1),  nn__sort_shape,      nn__sort_plan,        nn__sort_params ) \
    NN__X( topk,        PLAIN,          1, 2, NN_OP_ANY_DTYPE,                       NN_KEEP_OUT(1),  nn__sort_shape,      nn__sort_plan,        nn__sort_params ) \
    NN__X( pad,         PLAIN,          1, 1, NN_OP_ANY_DTYPE,                       NN_KEEP_NONE,    nn__pad_shape,       nn__pad_plan,         nn__pad_params ) \
    NN__X( arange,      PLAIN_FORWARD,  0, 1, NN_OP_ANY_DTYPE | NN_OP_STRIDED,       NN_KEEP_NONE,    nn__same_shape,      nn__one_task,         nn__range_params )
#define NN_OPS_CONV(NN__X) \
    NN__X( conv2d,      SIMD,           3, 1, NN_OP_ASSIGNS | NN_OP_SPLIT,           NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__conv_shape, nn__conv_plan,     nn__conv_params ) \
    NN__X( conv_transpose2d, SIMD,      3, 1, NN_OP_ASSIGNS | NN_OP_SPLIT,           NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__conv_shape, nn__conv_plan,     nn__conv_params ) \
    NN__X( maxpool2d,   SIMD,           1, 1, NN_OP_ASSIGNS,                         NN_KEEP_NONE,    nn__pool_shape,      nn__pool_plan,        nn__pool_params ) \
    NN__X( avgpool2d,   SIMD,           1, 1, NN_OP_ASSIGNS,                         NN_KEEP_NONE,    nn__pool_shape,      nn__pool_plan,        nn__pool_params ) \
    NN__X( upsample,    PLAIN,          1, 1, NN_OP_ASSIGNS,                         NN_KEEP_NONE,    nn__upsample_shape,  nn__upsample_plan,    nn__upsample_params )
#define NN_OPS_NORM(NN__X) \
    NN__X( batchnorm,   SIMD,           6, 1, NN_OP_ASSIGNS | NN_OP_MUTATES | NN_OP_ANY_DTYPE, NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__batchnorm_shape, nn__batchnorm_plan, nn__norm_params ) \
    NN__X( layernorm,   SIMD,           3, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__layernorm_shape, nn__norm_plan,   nn__norm_params ) \
    NN__X( groupnorm,   SIMD,           3, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__groupnorm_shape, nn__norm_plan,   nn__norm_params ) \
    NN__X( rmsnorm,     SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__layernorm_shape, nn__norm_plan,   nn__norm_params ) \
    NN__X( dropout,     SIMD,           1, 1, NN_OP_ASSIGNS | NN_OP_RANDOM,          NN_KEEP_NONE,    nn__same_shape,      nn__dropout_plan,     nn__dropout_params )
#define NN_OPS_LOSS(NN__X) \
    NN__X( mse,         SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__pair_loss_shape, nn__pair_loss_plan, nn__loss_params ) \
    NN__X( l1,          SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__pair_loss_shape, nn__pair_loss_plan, nn__loss_params ) \
    NN__X( huber,       SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__pair_loss_shape, nn__pair_loss_plan, nn__loss_params ) \
    NN__X( smooth_l1,   SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__pair_loss_shape, nn__pair_loss_plan, nn__loss_params ) \
    NN__X( hinge,       SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__pair_loss_shape, nn__pair_loss_plan, nn__loss_params ) \
    NN__X( binary_cross_entropy, SIMD,  4, 1, NN_OP_ASSIGNS,  NN_KEEP_IN(0) | NN_KEEP_IN(1) | NN_KEEP_IN(2) | NN_KEEP_IN(3), nn__pair_loss_shape, nn__pair_loss_plan, nn__loss_params ) \
    NN__X( cross_entropy, SIMD,         3, 1, NN_OP_ANY_DTYPE | NN_OP_ASSIGNS,       NN_KEEP_IN(0) | NN_KEEP_IN(1) | NN_KEEP_IN(2), nn__cross_entropy_shape, nn__cross_entropy_plan, nn__loss_params ) \
    NN__X( nll,         PLAIN,          3, 1, NN_OP_ANY_DTYPE,                       NN_KEEP_IN(1) | NN_KEEP_IN(2), nn__nll_shape,       nn__one_task,       nn__loss_params ) \
    NN__X( multi_margin, PLAIN,         2, 1, NN_OP_ANY_DTYPE,                       NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__multi_margin_shape, nn__one_task,    nn__loss_params ) \
    NN__X( kl_div,      SIMD,           2, 1, NN_OP_ASSIGNS,                         NN_KEEP_IN(0) | NN_KEEP_IN(1), nn__kl_div_shape,    nn__kl_div_plan,    nn__loss_params )
#define NN_OPS_OPTIM(NN__X) \
    NN__X( sgd_update,     SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      nn__update_params ) \
    NN__X( rmsprop_update, SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      nn__update_params ) \
    NN__X( adagrad_update, SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      nn__update_params ) \
    NN__X( adam_update,    SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      nn__update_params ) \
    NN__X( nadam_update,   SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      nn__update_params ) \
    NN__X( lion_update,    SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      nn__update_params ) \
    NN__X( linear_update,  SIMD_FORWARD, 6, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__linear_update_plan, nn__update_params ) \
    NN__X( ema_update,     SIMD_FORWARD, 2, 0, NN_OP_MUTATES | NN_OP_STRIDED,        NN_KEEP_NONE,    nn__same_shape,      nn__update_plan,      double        ) \
    NN__X( swap,           PLAIN_FORWARD, 2, 0, NN_OP_MUTATES | NN_OP_STRIDED,       NN_KEEP_NONE,    nn__same_shape,      nn__one_task,         nn__no_params ) \
    NN__X( square_sum,     SIMD_FORWARD, 1, 1, NN_OP_STRIDED,                        NN_KEEP_NONE,    nn__same_shape,      nn__square_sum_plan,  nn__no_params ) \
    NN__X( clip_scale,     PLAIN_FORWARD, 1, 1, 0,                                   NN_KEEP_NONE,    nn__same_shape,      nn__one_task,         double        )
#define NN_OPS_RANDOM(NN__X) \
    NN__X( random,      PLAIN_FORWARD,  0, 1, NN_OP_RANDOM | NN_OP_STRIDED,          NN_KEEP_NONE,    nn__same_shape,      nn__one_task,         nn__random_params )
#define NN_STRUCTURED_OPS(NN__X) NN_OPS_CORE(NN__X) NN_OPS_VIEW(NN__X) NN_OPS_REDUCE(NN__X) NN_OPS_LINEAR(NN__X) NN_OPS_SHAPE(NN__X) \
                                 NN_OPS_CONV(NN__X) NN_OPS_NORM(NN__X) NN_OPS_LOSS(NN__X) NN_OPS_OPTIM(NN__X) NN_OPS_RANDOM(NN__X)
#define NN__ROW_ID(name, keep, f, df)                NN_OP_##name,
#define NN__ROW_ID2(name, keep, f, da, db)           NN_OP_##name,
#define NN__ROW_IDS(name, kind, in, out, flags, keep, shape, plan, params) NN_OP_##name,
enum { NN_OP_none, NN_UNARY_OPS(NN__ROW_ID) NN_UNARY1_OPS(NN__ROW_ID) NN_UNARY2_OPS(NN__ROW_ID) NN_BINARY_OPS(NN__ROW_ID2) NN_OP_where,
       NN_STRUCTURED_OPS(NN__ROW_IDS) NN_OP_COUNT };

enum { NN_BACKEND_VERSION = 1 };
// A device. Life cycle: nn_new keeps the pointer; memory is taken in large blocks; run is called for every op; nn_free releases the blocks.
// All work is in order; only download and sync wait for it. Functions return 1 for ok.
struct nn_backend {
    int         version;             // NN_BACKEND_VERSION
    const char *name;                // "cpu", "cuda:0"
    void       *self;
    void     *(*alloc)   (void *self, size_t bytes);
    void      (*free)    (void *self, void *memory, size_t bytes);
    int       (*upload)  (void *self, void *to, const void *from, size_t bytes);      // host to device; `from` may be reused on return
    int       (*download)(void *self, void *to, const void *from, size_t bytes);      // device to host; waits
    int       (*copy)    (void *self, void *to, const void *from, size_t bytes);      // device to device
    int       (*run)     (void *self, const nn_call *c);                              // 0: unsupported -> downloaded, run on the CPU, uploaded, counted
    int       (*sync)    (void *self);
};
NN_API int64_t nn_fallbacks(const nn_context *nn);       // calls that the backend could not run itself
NN_API int     nn_run_on_cpu(const nn_call *c);          // runs a call whose pointers are host memory, with the context's CPU kernels

#ifdef __cplusplus
}
#endif

// C++: every function whose last argument is a desc also takes it by reference: nn_conv2d(x, w, b, { .stride = 2 }) in C++20.
#ifdef __cplusplus
#define NN__REF(type, name, arguments, passed) static inline type name arguments { return name passed; }
NN__REF(nn_context *, nn_new, (const nn_desc &desc), (&desc))
NN__REF(void, nn_backward_with, (nn_tensor *y, const nn_backward_desc &desc), (y, &desc))
NN__REF(int, nn_gradcheck, (nn_context *nn, nn_loss_of loss, void *user, nn_tensor *const *x, int n, const nn_gradcheck_desc &desc), (nn, loss, user, x, n, &desc))
NN__REF(nn_tensor *, nn_sum, (nn_tensor *x, nn_shape dims, const nn_sum_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_mean, (nn_tensor *x, nn_shape dims, const nn_mean_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_max, (nn_tensor *x, nn_shape dims, const nn_max_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_min, (nn_tensor *x, nn_shape dims, const nn_min_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_prod, (nn_tensor *x, nn_shape dims, const nn_prod_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_var, (nn_tensor *x, nn_shape dims, const nn_var_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_std, (nn_tensor *x, nn_shape dims, const nn_std_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_logsumexp, (nn_tensor *x, nn_shape dims, const nn_logsumexp_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_norm, (nn_tensor *x, nn_shape dims, const nn_norm_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_argmax, (nn_tensor *x, nn_shape dims, const nn_argmax_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_argmin, (nn_tensor *x, nn_shape dims, const nn_argmin_desc &desc), (x, dims, &desc))
NN__REF(nn_tensor *, nn_linear, (nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_linear_desc &desc), (x, w, b, &desc))
NN__REF(nn_tensor *, nn_sort, (nn_tensor *x, int dim, nn_tensor **indices, const nn_sort_desc &desc), (x, dim, indices, &desc))
NN__REF(nn_tensor *, nn_topk, (nn_tensor *x, int64_t k, int dim, nn_tensor **indices, const nn_topk_desc &desc), (x, k, dim, indices, &desc))
NN__REF(nn_tensor *, nn_pad, (nn_tensor *x, nn_shape amounts, const nn_pad_desc &desc), (x, amounts, &desc))
NN__REF(nn_tensor *, nn_conv1d, (nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv1d_desc &desc), (x, w, b, &desc))
NN__REF(nn_tensor *, nn_conv2d, (nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv2d_desc &desc), (x, w, b, &desc))
NN__REF(nn_tensor *, nn_conv_transpose1d, (nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_transpose1d_desc &desc), (x, w, b, &desc))
NN__REF(nn_tensor *, nn_conv_transpose2d, (nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_transpose2d_desc &desc), (x, w, b, &desc))
NN__REF(nn_tensor *, nn_maxpool1d, (nn_tensor *x, int kernel, const nn_maxpool1d_desc &desc), (x, kernel, &desc))
NN__REF(nn_tensor *, nn_maxpool2d, (nn_tensor *x, int kernel, const nn_maxpool2d_desc &desc), (x, kernel, &desc))
NN__REF(nn_tensor *, nn_avgpool1d, (nn_tensor *x, int kernel, const nn_avgpool1d_desc &desc), (x, kernel, &desc))
NN__REF(nn_tensor *, nn_avgpool2d, (nn_tensor *x, int kernel, const nn_avgpool2d_desc &desc), (x, kernel, &desc))
NN__REF(nn_tensor *, nn_upsample, (nn_tensor *x, int64_t height, int64_t width, const nn_upsample_desc &desc), (x, height, width, &desc))
NN__REF(nn_tensor *, nn_batchnorm, (nn_tensor *x, nn_tensor *w, nn_tensor *b, nn_tensor *mean, nn_tensor *var, const nn_batchnorm_desc &desc), (x, w, b, mean, var, &desc))
NN__REF(nn_tensor *, nn_layernorm, (nn_tensor *x, int dims, nn_tensor *w, nn_tensor *b, const nn_layernorm_desc &desc), (x, dims, w, b, &desc))
NN__REF(nn_tensor *, nn_groupnorm, (nn_tensor *x, int groups, nn_tensor *w, nn_tensor *b, const nn_groupnorm_desc &desc), (x, groups, w, b, &desc))
NN__REF(nn_tensor *, nn_instancenorm, (nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_instancenorm_desc &desc), (x, w, b, &desc))
NN__REF(nn_tensor *, nn_rmsnorm, (nn_tensor *x, nn_tensor *w, const nn_rmsnorm_desc &desc), (x, w, &desc))
NN__REF(nn_tensor *, nn_cross_entropy, (nn_tensor *logits, nn_tensor *target, const nn_loss_desc &desc), (logits, target, &desc))
NN__REF(nn_tensor *, nn_nll, (nn_tensor *log_p, nn_tensor *target, const nn_loss_desc &desc), (log_p, target, &desc))
NN__REF(nn_tensor *, nn_binary_cross_entropy, (nn_tensor *logits, nn_tensor *target, const nn_loss_desc &desc), (logits, target, &desc))
NN__REF(nn_tensor *, nn_mse, (nn_tensor *x, nn_tensor *target, const nn_loss_desc &desc), (x, target, &desc))
NN__REF(nn_tensor *, nn_l1, (nn_tensor *x, nn_tensor *target, const nn_loss_desc &desc), (x, target, &desc))
NN__REF(nn_tensor *, nn_huber, (nn_tensor *x, nn_tensor *target, const nn_loss_desc &desc), (x, target, &desc))
NN__REF(nn_tensor *, nn_smooth_l1, (nn_tensor *x, nn_tensor *target, const nn_loss_desc &desc), (x, target, &desc))
NN__REF(nn_tensor *, nn_kl_div, (nn_tensor *logits, nn_tensor *target_logits, const nn_loss_desc &desc), (logits, target_logits, &desc))
NN__REF(nn_tensor *, nn_hinge, (nn_tensor *x, nn_tensor *target, const nn_loss_desc &desc), (x, target, &desc))
NN__REF(nn_tensor *, nn_cosine_embedding, (nn_tensor *a, nn_tensor *b, nn_tensor *target, const nn_loss_desc &desc), (a, b, target, &desc))
NN__REF(nn_tensor *, nn_triplet_margin, (nn_tensor *anchor, nn_tensor *positive, nn_tensor *negative, const nn_loss_desc &desc), (anchor, positive, negative, &desc))
NN__REF(nn_tensor *, nn_info_nce, (nn_tensor *a, nn_tensor *b, const nn_loss_desc &desc), (a, b, &desc))
NN__REF(nn_layer *, nn_model_new, (nn_context *nn, const nn_model_desc &desc), (nn, &desc))
NN__REF(nn_layer *, nn_layer_new, (nn_layer *parent, const char *name, const nn_layer_desc &desc), (parent, name, &desc))
NN__REF(nn_layer *, nn_linear_new, (nn_layer *parent, const char *name, int64_t in, int64_t out, const nn_linear_desc &desc), (parent, name, in, out, &desc))
NN__REF(nn_layer *, nn_conv1d_new, (nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv1d_desc &desc), (parent, name, in, out, kernel, &desc))
NN__REF(nn_layer *, nn_conv2d_new, (nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv2d_desc &desc), (parent, name, in, out, kernel, &desc))
NN__REF(nn_layer *, nn_conv_transpose1d_new, (nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv_transpose1d_desc &desc), (parent, name, in, out, kernel, &desc))
NN__REF(nn_layer *, nn_conv_transpose2d_new, (nn_layer *parent, const char *name, int64_t in, int64_t out, int kernel, const nn_conv_transpose2d_desc &desc), (parent, name, in, out, kernel, &desc))
NN__REF(nn_layer *, nn_batchnorm_new, (nn_layer *parent, const char *name, int64_t channels, const nn_batchnorm_desc &desc), (parent, name, channels, &desc))
NN__REF(nn_layer *, nn_layernorm_new, (nn_layer *parent, const char *name, nn_shape shape, const nn_layernorm_desc &desc), (parent, name, shape, &desc))
NN__REF(nn_layer *, nn_groupnorm_new, (nn_layer *parent, const char *name, int groups, int64_t channels, const nn_groupnorm_desc &desc), (parent, name, groups, channels, &desc))
NN__REF(nn_layer *, nn_instancenorm_new, (nn_layer *parent, const char *name, int64_t channels, const nn_instancenorm_desc &desc), (parent, name, channels, &desc))
NN__REF(nn_layer *, nn_rmsnorm_new, (nn_layer *parent, const char *name, int64_t channels, const nn_rmsnorm_desc &desc), (parent, name, channels, &desc))
NN__REF(nn_layer *, nn_maxpool1d_new, (nn_layer *parent, int kernel, const nn_maxpool1d_desc &desc), (parent, kernel, &desc))
NN__REF(nn_layer *, nn_maxpool2d_new, (nn_layer *parent, int kernel, const nn_maxpool2d_desc &desc), (parent, kernel, &desc))
NN__REF(nn_layer *, nn_avgpool1d_new, (nn_layer *parent, int kernel, const nn_avgpool1d_desc &desc), (parent, kernel, &desc))
NN__REF(nn_layer *, nn_avgpool2d_new, (nn_layer *parent, int kernel, const nn_avgpool2d_desc &desc), (parent, kernel, &desc))
NN__REF(nn_layer *, nn_upsample_new, (nn_layer *parent, int scale, const nn_upsample_desc &desc), (parent, scale, &desc))
NN__REF(nn_optimizer *, nn_sgd_new, (nn_layer *layer, const nn_sgd_desc &desc), (layer, &desc))
NN__REF(nn_optimizer *, nn_rmsprop_new, (nn_layer *layer, const nn_rmsprop_desc &desc), (layer, &desc))
NN__REF(nn_optimizer *, nn_adagrad_new, (nn_layer *layer, const nn_adagrad_desc &desc), (layer, &desc))
NN__REF(nn_optimizer *, nn_adam_new, (nn_layer *layer, const nn_adam_desc &desc), (layer, &desc))
NN__REF(nn_optimizer *, nn_adamw_new, (nn_layer *layer, const nn_adamw_desc &desc), (layer, &desc))
NN__REF(nn_optimizer *, nn_nadam_new, (nn_layer *layer, const nn_nadam_desc &desc), (layer, &desc))
NN__REF(nn_optimizer *, nn_lion_new, (nn_layer *layer, const nn_lion_desc &desc), (layer, &desc))
NN__REF(void, nn_optimizer_add, (nn_optimizer *opt, nn_layer *layer, const nn_optimizer_desc &desc), (opt, layer, &desc))
NN__REF(nn_schedule *, nn_step_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_multi_step_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_exponential_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_polynomial_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_linear_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_cosine_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_warm_restarts_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_one_cycle_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_schedule *, nn_plateau_lr_new, (nn_optimizer *opt, const nn_schedule_desc &desc), (opt, &desc))
NN__REF(nn_dataset *, nn_dataset_new, (nn_context *nn, const nn_dataset_desc &desc), (nn, &desc))
NN__REF(nn_dataset *, nn_csv_load, (nn_context *nn, const char *path, const nn_csv_desc &desc), (nn, path, &desc))
NN__REF(nn_dataset *, nn_csv_parse, (nn_context *nn, const char *text, size_t bytes, const nn_csv_desc &desc), (nn, text, bytes, &desc))
NN__REF(nn_dataset *, nn_folder_load, (nn_context *nn, const char *path, const nn_folder_desc &desc), (nn, path, &desc))
NN__REF(nn_loader *, nn_loader_new, (nn_dataset *data, const nn_loader_desc &desc), (data, &desc))
NN__REF(nn_plan *, nn_plan_new, (nn_layer *net, nn_shape input, const nn_plan_desc &desc), (net, input, &desc))
NN__REF(nn_step_plan *, nn_step_plan_new, (nn_layer *model, const nn_step_plan_desc &desc), (model, &desc))
NN__REF(int, nn_fit, (nn_layer *model, const nn_fit_desc &desc), (model, &desc))
NN__REF(int, nn_save, (nn_layer *layer, const char *path, const nn_save_desc &desc), (layer, path, &desc))
NN__REF(int, nn_load, (nn_layer *layer, const char *path, const nn_load_desc &desc), (layer, path, &desc))
NN__REF(int, nn_save_memory, (nn_layer *layer, void *to, size_t bytes, size_t *written, const nn_save_desc &desc), (layer, to, bytes, written, &desc))
NN__REF(int, nn_load_memory, (nn_layer *layer, const void *from, size_t bytes, const nn_load_desc &desc), (layer, from, bytes, &desc))
NN__REF(int, nn_resume, (nn_layer *layer, const char *path, const nn_save_desc &desc), (layer, path, &desc))
#undef NN__REF
#endif
#endif // NN_H
// =============================================================================================
// Stop here if you only use the library. Below is the implementation.
// =============================================================================================
#if defined(NN_IMPLEMENTATION) && !defined(NN__IMPLEMENTED)
#define NN__IMPLEMENTED

// =============================================================================================
// >>platform   Compilers, operating systems, atomics: this, >>cpu, >>passes and >>words are the sections that contain #if.
// =============================================================================================
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#if defined(_WIN32)
#  ifndef WIN32_LEAN_AND_MEAN
#  define WIN32_LEAN_AND_MEAN
#  endif
#  ifndef NOMINMAX
#  define NOMINMAX
#  endif
#  include <windows.h>
#  include <io.h>
#  include <direct.h>
#else
#  include <sys/stat.h>
#  include <sys/time.h>
#  include <dirent.h>
#  include <unistd.h>
#  include <time.h>
#endif
#if !defined(NN_NO_THREADS) && !defined(_WIN32)
#  include <pthread.h>
#endif
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && !defined(__TINYC__)
#  include <cpuid.h>
#  include <immintrin.h>
#elif defined(__aarch64__) && defined(__GNUC__)
#  include <arm_neon.h>
#elif defined(__wasm_simd128__)
#  include <wasm_simd128.h>
#endif

#if defined(__GNUC__) && !defined(__TINYC__)             // GCC and Clang
#  define NN__INLINE    static inline __attribute__((always_inline, unused))
#  define NN__UNUSED    __attribute__((unused))
#  define NN__PRINTF(f, a) __attribute__((format(printf, f, a)))
#  define NN__LIKELY(x) __builtin_expect(!!(x), 1)
#else
#  define NN__INLINE    static inline
#  define NN__UNUSED
#  define NN__PRINTF(f, a)
#  define NN__LIKELY(x) (x)
#endif
#define NN__PRAGMA(x)   _Pragma(#x)
#if defined(__clang__)
#  define NN__UNROLL    NN__PRAGMA(clang loop unroll(full))
#elif defined(__GNUC__) && !defined(__CUDACC__)
#  define NN__UNROLL    NN__PRAGMA(GCC unroll 32)
#else
#  define NN__UNROLL
#endif
#if defined(__clang__)                                   // lanes of a, then b, in the order of `list`; VI: an integer vector like them
#  define NN__SHUFFLE(VI, a, b, list) return __builtin_shufflevector(a, b, list)
#elif defined(__GNUC__)
#  define NN__SHUFFLE(VI, a, b, list) VI order = { list }; return __builtin_shuffle(a, b, order)
#endif
#define NN__CAT2(a, b)  a##_##b
#define NN__CAT(a, b)   NN__CAT2(a, b)
#define NN__STR2(x)     #x
#define NN__STR(x)      NN__STR2(x)

#if defined(__clang__)
#  define NN__TARGET_BEGIN(t) NN__PRAGMA(clang attribute push(__attribute__((target(t))), apply_to = function))
#  define NN__TARGET_END      NN__PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#  define NN__TARGET_BEGIN(t) NN__PRAGMA(GCC push_options) NN__PRAGMA(GCC target(t))
#  define NN__TARGET_END      NN__PRAGMA(GCC pop_options)
#endif

// The compiler must not fuse a * b + c on its own: which products it fuses differs from compiler to compiler (design 5.6 d).
#if defined(__clang__)
#  define NN__FLOAT_BEGIN     NN__PRAGMA(STDC FP_CONTRACT OFF)
#  define NN__FLOAT_END       NN__PRAGMA(STDC FP_CONTRACT DEFAULT)
#elif defined(__GNUC__) && !defined(__TINYC__)
#  define NN__FLOAT_BEGIN     NN__PRAGMA(GCC push_options) NN__PRAGMA(GCC optimize("fp-contract=off"))
#  define NN__FLOAT_END       NN__PRAGMA(GCC pop_options)
#elif defined(_MSC_VER)
#  define NN__FLOAT_BEGIN     __pragma(fp_contract(off))
#  define NN__FLOAT_END       __pragma(fp_contract(on))
#else
#  define NN__FLOAT_BEGIN
#  define NN__FLOAT_END
#endif

// Text that gains nothing from -O2 but takes long to compile with it: what runs once per file or epoch, rows of elementwise formulas
// (straight lines already), plain C where the processor has a better table.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__TINYC__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#  define NN__SIMPLE_BEGIN    NN__PRAGMA(GCC push_options) NN__PRAGMA(GCC optimize("O1"))
#  define NN__SIMPLE_END      NN__PRAGMA(GCC pop_options)
#else
#  define NN__SIMPLE_BEGIN
#  define NN__SIMPLE_END
#endif

#if defined(NN_NO_THREADS) || (!defined(__GNUC__) && !defined(_MSC_VER)) || defined(__TINYC__)
#  define NN__HAVE_THREADS 0
#else
#  define NN__HAVE_THREADS 1
#endif
// Sequentially consistent: who posts work and who falls asleep must agree on what came first (>>threads). add, exchange and swap
// return what was there.
#if !NN__HAVE_THREADS
typedef int nn__atomic;
static int  nn__atomic_add(nn__atomic *a, int v)                { int old = *a; *a += v; return old; }
static int  nn__atomic_exchange(nn__atomic *a, int v)           { int old = *a; *a = v; return old; }
static int  nn__atomic_swap(nn__atomic *a, int from, int to)    { int old = *a; if (old == from) *a = to; return old; }     // if it is `from`
static int  nn__atomic_load(nn__atomic *a)                      { return *a; }
static void nn__atomic_store(nn__atomic *a, int v)              { *a = v; }
#elif defined(_MSC_VER) && !defined(__clang__)
typedef volatile long nn__atomic;
static int  nn__atomic_add(nn__atomic *a, int v)                { return (int)_InterlockedExchangeAdd(a, v); }
static int  nn__atomic_exchange(nn__atomic *a, int v)           { return (int)_InterlockedExchange(a, v); }
static int  nn__atomic_swap(nn__atomic *a, int from, int to)    { return (int)_InterlockedCompareExchange(a, to, from); }
static int  nn__atomic_load(nn__atomic *a)                      { int v = (int)*a; MemoryBarrier(); return v; }
static void nn__atomic_store(nn__atomic *a, int v)              { _InterlockedExchange(a, v); }
#else
typedef int nn__atomic;
static int  nn__atomic_add(nn__atomic *a, int v)                { return __atomic_fetch_add(a, v, __ATOMIC_SEQ_CST); }
static int  nn__atomic_exchange(nn__atomic *a, int v)           { return __atomic_exchange_n(a, v, __ATOMIC_SEQ_CST); }
static int  nn__atomic_swap(nn__atomic *a, int from, int to)
{
    __atomic_compare_exchange_n(a, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return from;
}
static int  nn__atomic_load(nn__atomic *a)                      { return __atomic_load_n(a, __ATOMIC_SEQ_CST); }
static void nn__atomic_store(nn__atomic *a, int v)              { __atomic_store_n(a, v, __ATOMIC_SEQ_CST); }
#endif

// Some dozen cycles of nothing in a loop that waits for memory: the other thread of the core may have them.
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && !defined(__TINYC__)
static void nn__pause(void)              { __builtin_ia32_pause(); }
#elif (defined(__aarch64__) || (defined(__ARM_ARCH) && __ARM_ARCH >= 7)) && defined(__GNUC__) && !defined(__TINYC__)
static void nn__pause(void)              { __asm__ volatile("isb" : : : "memory"); }    // yield does nothing where a core has one thread
#elif defined(_MSC_VER) && NN__HAVE_THREADS
static void nn__pause(void)              { YieldProcessor(); }
#else
static void nn__pause(void)              { }
#endif

#if !NN__HAVE_THREADS
typedef int nn__thread; typedef int nn__mutex; typedef int nn__cond;
static void nn__mutex_init(nn__mutex *m) { *m = 0; }
static void nn__mutex_free(nn__mutex *m) { (void)m; }
static void nn__lock(nn__mutex *m)       { (void)m; }
static void nn__unlock(nn__mutex *m)     { (void)m; }
static void nn__cond_init(nn__cond *c)   { *c = 0; }
static void nn__cond_free(nn__cond *c)   { (void)c; }
static void nn__wait(nn__cond *c, nn__mutex *m) { (void)c; (void)m; }
static void nn__wake(nn__cond *c)        { (void)c; }
static int  nn__cores(void)              { return 1; }
static void nn__yield(void)              { }
static int  nn__thread_start(nn__thread *t, void (*run)(void *), void *arg) { (void)t; (void)run; (void)arg; return 0; }
static void nn__thread_join(nn__thread *t) { (void)t; }
#elif defined(_WIN32)
typedef struct nn__thread { HANDLE handle; void (*run)(void *); void *arg; } nn__thread;
typedef CRITICAL_SECTION nn__mutex;
typedef CONDITION_VARIABLE nn__cond;
static void nn__mutex_init(nn__mutex *m) { InitializeCriticalSection(m); }
static void nn__mutex_free(nn__mutex *m) { DeleteCriticalSection(m); }
static void nn__lock(nn__mutex *m)       { EnterCriticalSection(m); }
static void nn__unlock(nn__mutex *m)     { LeaveCriticalSection(m); }
static void nn__cond_init(nn__cond *c)   { InitializeConditionVariable(c); }
static void nn__cond_free(nn__cond *c)   { (void)c; }
static void nn__wait(nn__cond *c, nn__mutex *m) { SleepConditionVariableCS(c, m, INFINITE); }
static void nn__wake(nn__cond *c)        { WakeAllConditionVariable(c); }
static int  nn__cores(void)              { SYSTEM_INFO i; GetSystemInfo(&i); return (int)i.dwNumberOfProcessors; }
static void nn__yield(void)              { SwitchToThread(); }
static DWORD WINAPI nn__thread_main(LPVOID p) { nn__thread *t = (nn__thread *)p; t->run(t->arg); return 0; }
static int  nn__thread_start(nn__thread *t, void (*run)(void *), void *arg)
{
    t->run = run;
    t->arg = arg;
    t->handle = CreateThread(NULL, 1 << 20, nn__thread_main, t, 0, NULL);
    return t->handle != NULL;
}
static void nn__thread_join(nn__thread *t) { WaitForSingleObject(t->handle, INFINITE); CloseHandle(t->handle); }
#else
#include <sched.h>
typedef struct nn__thread { pthread_t handle; void (*run)(void *); void *arg; } nn__thread;
typedef pthread_mutex_t nn__mutex;
typedef pthread_cond_t nn__cond;
static void nn__mutex_init(nn__mutex *m) { pthread_mutex_init(m, NULL); }
static void nn__mutex_free(nn__mutex *m) { pthread_mutex_destroy(m); }
static void nn__lock(nn__mutex *m)       { pthread_mutex_lock(m); }
static void nn__unlock(nn__mutex *m)     { pthread_mutex_unlock(m); }
static void nn__cond_init(nn__cond *c)   { pthread_cond_init(c, NULL); }
static void nn__cond_free(nn__cond *c)   { pthread_cond_destroy(c); }
static void nn__wait(nn__cond *c, nn__mutex *m) { pthread_cond_wait(c, m); }
static void nn__wake(nn__cond *c)        { pthread_cond_broadcast(c); }
static int  nn__cores(void)
{
#ifdef _SC_NPROCESSORS_ONLN
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < 1024 ? (int)n : 1;
#else
    return 1;
#endif
}
static void nn__yield(void)              { sched_yield(); }
static void *nn__thread_main(void *p)    { nn__thread *t = (nn__thread *)p; t->run(t->arg); return NULL; }
static int  nn__thread_start(nn__thread *t, void (*run)(void *), void *arg)
{
    pthread_attr_t attr;
    int ok;
    t->run = run;
    t->arg = arg;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, (size_t)1 << 20);  // musl's default of 128 KiB is too small for packing buffers
    ok = pthread_create(&t->handle, &attr, nn__thread_main, t) == 0;
    pthread_attr_destroy(&attr);
    return ok;
}
static void nn__thread_join(nn__thread *t) { pthread_join(t->handle, NULL); }
#endif

NN__UNUSED static double nn__seconds(void)                          // a clock for progress lines, nn_profile and how long to wait; never for what is computed
{
#if defined(_WIN32)
    LARGE_INTEGER f, c;
    QueryPerformanceFrequency(&f);
    QueryPerformanceCounter(&c);
    return (double)c.QuadPart / (double)f.QuadPart;
#else
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
#endif
}

NN__UNUSED static double nn__wall_seconds(void)                     // since 1970: for file names and event files
{
#if defined(_WIN32)
    FILETIME t;
    GetSystemTimeAsFileTime(&t);
    return (double)((uint64_t)t.dwHighDateTime << 32 | t.dwLowDateTime) * 1e-7 - 11644473600.0;
#else
    struct timeval t;
    gettimeofday(&t, NULL);
    return (double)t.tv_sec + 1e-6 * (double)t.tv_usec;
#endif
}

// Tasks compute with round-to-nearest and without flush-to-zero, whatever the host program has set (audio hosts do set it).
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && defined(__SSE__) && !defined(__TINYC__)
typedef unsigned nn__fpenv;
static nn__fpenv nn__fp_enter(void)       { unsigned old = _mm_getcsr(); if (old & 0xE040u) _mm_setcsr(old & ~0xE040u); return old; }
static void      nn__fp_leave(nn__fpenv e) { if (e & 0xE040u) _mm_setcsr(e); }
#elif defined(__aarch64__) && defined(__GNUC__)
typedef uint64_t nn__fpenv;
static nn__fpenv nn__fp_enter(void)
{
    uint64_t old, none = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    if (old) __asm__ volatile("msr fpcr, %0" : : "r"(none));
    return old;
}
static void nn__fp_leave(nn__fpenv e) { if (e) __asm__ volatile("msr fpcr, %0" : : "r"(e)); }
#else
typedef int nn__fpenv;
static nn__fpenv nn__fp_enter(void)        { return 0; }
static void      nn__fp_leave(nn__fpenv e) { (void)e; }
#endif

// ---- files: what >>files needs of the system. They return 0 (or NULL, -1) for failure and nn__file_reason() says why. ----
#ifdef NN_NO_STDIO
typedef struct nn__file { int none; } nn__file;
static nn__file *nn__file_open(const char *path, int how)               { (void)path; (void)how; return NULL; }
static int64_t   nn__file_size(nn__file *f)                             { (void)f; return -1; }
static int       nn__file_seek(nn__file *f, uint64_t at)                { (void)f; (void)at; return 0; }
static size_t    nn__file_read(nn__file *f, void *to, size_t n)         { (void)f; (void)to; (void)n; return 0; }
static int       nn__file_write(nn__file *f, const void *from, size_t n) { (void)f; (void)from; (void)n; return 0; }
static int       nn__file_flush(nn__file *f)                            { (void)f; return 0; }
static int       nn__file_close(nn__file *f, int flush)                 { (void)f; (void)flush; return 0; }
static void      nn__make_folders(const char *path)                     { (void)path; }
static int nn__is_terminal(void)                                  { return 0; }
static void nn__flush_terminal(void)                               { }
static int       nn__file_replace(const char *from, const char *to)     { (void)from; (void)to; return 0; }
static void      nn__file_remove(const char *path)                      { (void)path; }
static int       nn__file_special(const char *path)                     { (void)path; return 0; }
static const char *nn__file_reason(void)                                { return "built with NN_NO_STDIO"; }
#else
typedef FILE nn__file;
static nn__file *nn__file_open(const char *path, int how)               // 0 read, 1 write, 2 append
{
    return path ? fopen(path, how == 0 ? "rb" : how == 1 ? "wb" : "ab") : NULL;
}
static size_t    nn__file_read(nn__file *f, void *to, size_t n)         { return fread(to, 1, n, f); }
static int       nn__file_write(nn__file *f, const void *from, size_t n) { return fwrite(from, 1, n, f) == n; }
static int       nn__file_flush(nn__file *f)                            { return fflush(f) == 0; }
static void      nn__file_remove(const char *path)                      { remove(path); }
static void nn__flush_terminal(void)                               { fflush(stdout); }
static const char *nn__file_reason(void)                                { return errno ? strerror(errno) : "unknown reason"; }
#if defined(_WIN32)
static int nn__file_seek(nn__file *f, uint64_t at)                      { return _fseeki64(f, (int64_t)at, SEEK_SET) == 0; }
static int64_t nn__file_size(nn__file *f)                               { return _fseeki64(f, 0, SEEK_END) ? -1 : _ftelli64(f); }
static int nn__file_replace(const char *from, const char *to)           { return MoveFileExA(from, to, MOVEFILE_REPLACE_EXISTING) != 0; }
static int nn__file_special(const char *path)                           // a folder or a device: neither read nor replaced
{
    DWORD a = GetFileAttributesA(path);
    return a != INVALID_FILE_ATTRIBUTES && (a & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_DEVICE)) != 0;
}
static int nn__file_sync(nn__file *f)                                   { return _commit(_fileno(f)) == 0; }
static int nn__is_terminal(void)                                        { return _isatty(1); }
static void nn__make_folder(const char *path)                           { (void)_mkdir(path); }
#else
#  if defined(__STRICT_ANSI__) && !defined(__cplusplus)
extern int (fileno)(FILE *);         // -std=c99 hides these two
extern int (fsync)(int);
#  endif
static int nn__file_seek(nn__file *f, uint64_t at)                      { return at <= LONG_MAX && fseek(f, (long)at, SEEK_SET) == 0; }
static int64_t nn__file_size(nn__file *f)                               { return fseek(f, 0, SEEK_END) ? -1 : (int64_t)ftell(f); }
static int nn__file_replace(const char *from, const char *to)           { return rename(from, to) == 0; }
static int nn__file_special(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && !S_ISREG(s.st_mode);
}
static int nn__file_sync(nn__file *f)                                   { return fsync(fileno(f)) == 0 || errno == EINVAL; }   // EINVAL: cannot be synced
static int nn__is_terminal(void)                                        { return isatty(1); }
static void nn__make_folder(const char *path)                           { (void)mkdir(path, 0777); }
#endif
static void nn__make_folders(const char *path)                          // and those above; failure shows when a file is opened there
{
    char part[1024];
    size_t i;
    for (i = 0; path && path[i] && i + 1 < sizeof part; i++) {
        part[i] = path[i];
        part[i + 1] = 0;
        if (path[i + 1] == '/' || path[i + 1] == '\\' || !path[i + 1]) nn__make_folder(part);
    }
}
static int nn__file_close(nn__file *f, int flush)                       // flush: not before the bytes are on the disk
{
    int ok = !flush || (fflush(f) == 0 && nn__file_sync(f)), reason = errno;
    if (fclose(f)) return 0;
    if (!ok) errno = reason;
    return ok;
}
#endif

// Reading files and folders whole: all that data sets need of the system.
enum { NN__PATH_NONE, NN__PATH_FILE, NN__PATH_FOLDER };
#if defined(NN_NO_STDIO)
#define NN__HAVE_FILES 0
typedef int nn__dir;
static int    nn__path_kind(const char *path, uint64_t *size)            { (void)path; *size = 0; return NN__PATH_NONE; }
static size_t nn__read_front(const char *path, void *to, size_t bytes)   { (void)path; (void)to; (void)bytes; return 0; }
static int    nn__dir_open(nn__dir *d, const char *path)                 { (void)path; *d = 0; return 0; }
static const char *nn__dir_next(nn__dir *d)                              { (void)d; return NULL; }
static void   nn__dir_close(nn__dir *d)                                  { (void)d; }
#else
#define NN__HAVE_FILES 1
static size_t nn__read_front(const char *path, void *to, size_t bytes)   // the first bytes of a file; returns how many there were
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(to, 1, bytes, f) : 0;
    if (f) fclose(f);
    return n;
}
#if defined(_WIN32)
typedef struct nn__dir { HANDLE handle; WIN32_FIND_DATAA entry; int first; } nn__dir;
static int nn__path_kind(const char *path, uint64_t *size)
{
    WIN32_FILE_ATTRIBUTE_DATA a;
    *size = 0;
    if (!GetFileAttributesExA(path, GetFileExInfoStandard, &a)) return NN__PATH_NONE;
    *size = ((uint64_t)a.nFileSizeHigh << 32) | a.nFileSizeLow;
    return a.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY ? NN__PATH_FOLDER : NN__PATH_FILE;
}
static int nn__dir_open(nn__dir *d, const char *path)
{
    char pattern[1024];
    if (snprintf(pattern, sizeof pattern, "%s\\*", path) >= (int)sizeof pattern) return 0;
    d->handle = FindFirstFileA(pattern, &d->entry);
    d->first = 1;
    return d->handle != INVALID_HANDLE_VALUE;
}
static const char *nn__dir_next(nn__dir *d)
{
    int ok = d->first || FindNextFileA(d->handle, &d->entry);
    d->first = 0;
    return ok ? d->entry.cFileName : NULL;
}
static void nn__dir_close(nn__dir *d) { FindClose(d->handle); }
#else
typedef struct nn__dir { DIR *handle; } nn__dir;
static int nn__path_kind(const char *path, uint64_t *size)
{
    struct stat s;
    *size = 0;
    if (stat(path, &s)) return NN__PATH_NONE;
    if (S_ISDIR(s.st_mode)) return NN__PATH_FOLDER;
    if (!S_ISREG(s.st_mode)) return NN__PATH_NONE;
    *size = (uint64_t)s.st_size;
    return NN__PATH_FILE;
}
static int nn__dir_open(nn__dir *d, const char *path) { d->handle = opendir(path); return d->handle != NULL; }
static const char *nn__dir_next(nn__dir *d)           { struct dirent *e = readdir(d->handle); return e ? e->d_name : NULL; }
static void nn__dir_close(nn__dir *d)                 { closedir(d->handle); }
#endif
#endif

// =============================================================================================
// The context, and what the sections below share.
// =============================================================================================
enum { NN__T_PARAM = 1, NN__T_BUFFER = 2, NN__T_FROZEN = 4, NN__T_WANT_GRAD = 8, NN__T_NEEDS_GRAD = 16, NN__T_GRAD_SET = 32,
       NN__T_INERT = 64, NN__T_GRAD_OWNED = 128, NN__T_GRAD = 256,
       NN__T_PRIVATE = 512,              // nobody but nn.h can read it
       NN__T_KEPT = 1024,                // backward will read the storage
       NN__T_RELEASED = 2048,            // its numbers are gone
       NN__T_PINNED = 4096 };            // a gradient that the user has asked for: it may not move
enum { NN__MAX_SLOTS = 64, NN__ALIGN = 64, NN__SLAB = 16, NN__MAX_BLOCKS = 24, NN__MODES = 32, NN__OWN_OPS = 16 };

struct nn_node {                     // one op on the tape
    const nn_op *op;
    nn_node    *prev;                // the tape is a list from the newest to the oldest
    void       *params;
    nn_tensor **in, **out, **aux;    // arrays of the sizes below
    unsigned   *versions;            // of the storage of each input and output when it was recorded
    int         nin, nout, naux;
    unsigned    need;                // bit i: input i wants a gradient
    int         consumed, mode;
    uint64_t    ordinal, step;
    nn_layer   *layer;               // where it was made, for messages
};

typedef struct nn__block { char *at; size_t bytes, used; } nn__block;
typedef struct nn__arena {           // a bump allocator over blocks that never move
    nn_context *nn;
    int         device;              // blocks come from the backend
    int         top;                 // grows down from the end of the caller's buffer
    nn__block   block[NN__MAX_BLOCKS];
    int         blocks, current;
    size_t      used, peak;
} nn__arena;
typedef struct nn__chunk { struct nn__chunk *next; size_t bytes; } nn__chunk;        // room for nodes
typedef struct nn__mark { int current[2], tensors; size_t block_used[2], used[2]; size_t hi, node_left; char *node_at; nn__chunk *chunk; nn_node *tape; } nn__mark;
typedef struct nn__free_entry { char *at; size_t place, bytes; } nn__free_entry;
typedef struct nn__slab { struct nn__slab *next; nn_tensor t[NN__SLAB]; } nn__slab;
typedef struct nn__leaf_grad { struct nn__leaf_grad *next; nn_tensor *t; } nn__leaf_grad;
typedef struct nn__kept { struct nn__kept *next; nn_tensor *t; void *memory; size_t bytes; unsigned step; } nn__kept;
typedef struct nn__extra { const char *prefix; const nn_tensor *named; nn_tensor *t; } nn__extra;    // a tensor called prefix + name of `named`
typedef struct nn__trainer nn__trainer;                  // >>train
typedef struct nn__recording nn__recording;                    // >>plan
typedef struct nn__trace nn__trace;                      // >>step
typedef struct nn__cleanup { struct nn__cleanup *next; void (*run)(void *); void *arg; } nn__cleanup;
typedef struct nn__pool nn__pool;
typedef struct nn__profile nn__profile;                  // >>backend
typedef struct nn__table {           // the kernels of one instruction set
    const char *isa;
    int         lanes;
    nn_dtype    dtype;
    const nn_exec *forward, *backward;   // by op id
} nn__table;

struct nn_context {
    nn_desc     desc;
    nn_backend  cpu;
    const nn_backend *backend;
    const nn__table  *table;
    nn__pool   *pool;
    int         threads;
    nn__atomic  slot[NN__MAX_SLOTS];
    // memory
    nn__arena   life, step_arena;    // host: long-lived things; this step's nodes and (on the CPU) numbers
    nn__arena   device_life, device_step;
    nn__arena  *data_life, *data_step;   // where numbers live: the two above, or their device twins
    char       *buffer;              // the caller's memory: life grows from lo, steps from hi down
    size_t      buffer_bytes, lo, hi, peak;
    size_t      step_extra;          // so much more does this step use than if it were not repeated (modulo 2^n; it may be less): not in a buffer
    int         out_of_memory, measuring;
    int64_t     allocations;         // calls to the allocator so far
    nn__slab   *slabs, *slab;        // tensors of a step, reused every step
    int         tensors;
    nn__kept   *kept, *kept_free;
    nn__free_entry *free_list;       // numbers that backward has finished with
    int         free_count, free_room;
    int         hold;                // 1: nothing is released before the step ends
    nn_tensor  *reuse;               // nobody reads this tensor again: the next op may put its result there
    nn__chunk  *chunks, *chunk;      // room for the nodes of a step
    char       *node_at, *small_at;  // the rest of `chunk`; room for small things that live until nn_free
    size_t      node_left, small_left;
    nn__leaf_grad *leaf_grads;       // of what lives until nn_free
    int         leaf_grads_live;     // some have numbers in this step
    nn__cleanup *cleanups;
    // errors
    int         failed, reported;
    char        error[512];
    nn_tensor   inert;
    // steps
    nn_node    *tape;
    unsigned    step;
    nn_mode     mode, modes[NN__MODES];
    int         depth;
    uint64_t    seed, random_step, ordinal, inits;
    int64_t     fallbacks;
    nn_layer   *scope;               // the layer that is running, for messages
    nn_layer   *roots;
    nn__trainer *trainers;           // what nn_fit keeps, one per model
    nn__profile *profile;            // NULL: ops are not measured
    const nn__extra *extra;          // saved into and restored from a checkpoint besides what it is asked for; optional in the file.
    int         extras;              // Set by nn_fit around nn_save and nn_resume only
    int64_t     loaders;             // made so far
    nn__recording *record;              // calls are kept for a plan
    nn__trace  *trace;               // calls are kept for a plan of steps (>>step)
    unsigned    changes;             // of layers, optimizers, frozen parameters: a step that was recorded before may not be the same any more
};

static int64_t nn__min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t nn__max(int64_t a, int64_t b) { return a > b ? a : b; }
static size_t  nn__round_up(size_t n)        { return (n + (NN__ALIGN - 1)) & ~(size_t)(NN__ALIGN - 1); }
static const nn_op *nn__op(int id);
static const nn__table *nn__find_table(const char *isa, nn_dtype dtype);
static void nn__record_call(nn_context *nn, const nn_call *c);
static void nn__record_refuse(nn_context *nn, const char *why);
static void nn__trace_refuse(nn_context *nn, const char *why);
static void nn__trace_storage(nn_context *nn, const char *at, size_t bytes, const char *from);
static void nn__trace_call(nn_context *nn, const nn_call *c);
static const char *nn__layer_name(const nn_layer *layer, char *to, size_t bytes);
static void nn__log(nn_context *nn, const char *format, ...) NN__PRINTF(2, 3);

// =============================================================================================
// >>errors   The first error sticks; everything after it is inert until nn_clear.
// =============================================================================================
NN_API const char *nn_version(void)      { return NN_VERSION; }
NN_API int  nn_ok(const nn_context *nn)  { return nn && !nn->failed; }
NN_API void nn_clear(nn_context *nn)
{
    if (!nn) return;
    nn->failed = nn->reported = nn->out_of_memory = 0;
    nn->measuring = nn->desc.measure;
    nn->error[0] = 0;
}

static void nn__oom_message(nn_context *nn)
{
    if (nn->buffer) snprintf(nn->error, sizeof nn->error, "out of memory: the buffer has %llu bytes, %llu are needed",
                             (unsigned long long)nn->desc.bytes, (unsigned long long)nn->peak);
}

NN_API const char *nn_error(nn_context *nn)
{
    if (!nn) return "out of memory: no context";
    if (nn->out_of_memory) nn__oom_message(nn);
    return nn->error;
}

static void nn__raise(nn_context *nn)
{
    nn->failed = 1;
    if (nn->desc.on_error) nn->desc.on_error(nn->desc.user, nn->error);
#ifndef NN_NO_STDIO
    else if (!nn->reported) fprintf(stderr, "nn.h: %s\n", nn->error);
#endif
    nn->reported = 1;
}

NN_API void nn_fail(nn_context *nn, const char *format, ...)
{
    va_list list;
    size_t n = 0;
    char name[128];
    if (!nn || nn->failed) return;
    if (nn->scope && nn__layer_name(nn->scope, name, sizeof name)[0]) n = (size_t)snprintf(nn->error, sizeof nn->error, "%s: ", name);
    va_start(list, format);
    vsnprintf(nn->error + n, sizeof nn->error - n, format, list);
    va_end(list);
    nn__raise(nn);
}

// =============================================================================================
// >>memory   Two stacks. The life stack only grows (parameters, gradients, optimizer state, tensor heads). The step stack
// is rewound by every nn_begin (nodes, activations, scratch). With a caller's buffer both grow towards each other in it:
//
//     buffer  [ context | life -->                        <-- step ]
//
// Without one, each stack is a chain of heap blocks; blocks never move within a step, and a chain of several is replaced by one
// block of the same total size at the next rewind, so that the allocator is not called any more once the largest step was seen.
// Everything is rounded up to 64 bytes, so that sizes add up in any order: nn_bytes_needed is exact.
// =============================================================================================
static void *nn__raw_alloc(nn_context *nn, size_t bytes)
{
    nn->allocations++;
    if (nn->desc.malloc) return nn->desc.malloc(nn->desc.user, bytes);
#ifdef NN_MALLOC
    return NN_MALLOC(bytes);
#else
    return malloc(bytes);
#endif
}

static void nn__raw_free(nn_context *nn, void *memory)
{
    if (!memory) return;
    if (nn->desc.free) { nn->desc.free(nn->desc.user, memory); return; }
#ifdef NN_FREE
    NN_FREE(memory);
#else
    free(memory);
#endif
}

// a * b, or SIZE_MAX / 2 when it does not fit: such a request always fails (more than that, and GCC warns where it is inlined)
static size_t nn__mul_size(size_t a, size_t b) { return b && a > SIZE_MAX / 2 / b ? SIZE_MAX / 2 : a * b; }

static void nn__oom(nn_context *nn, size_t bytes)
{
    if (nn->out_of_memory || nn->failed) { nn->measuring = 1; return; }
    nn->out_of_memory = nn->buffer != NULL;
    nn->measuring = 1;
    snprintf(nn->error, sizeof nn->error, "out of memory: an allocation of %llu bytes failed", (unsigned long long)bytes);
    if (nn->buffer) nn__oom_message(nn);
    nn__raise(nn);
}

static int nn__arena_grow(nn__arena *a, size_t bytes)    // a new block of at least that size
{
    nn_context *nn = a->nn;
    nn__block *b;
    size_t want = a->blocks ? a->block[a->blocks - 1].bytes : 16384;
    if (a->blocks == NN__MAX_BLOCKS || bytes > SIZE_MAX / 4) return 0;
    want = want < ((size_t)1 << 27) ? want * 2 : want + want / 2;
    if (want < bytes) want = bytes;
    b = &a->block[a->blocks];
    for (;;) {
        if (a->device) b->at = (char *)nn->backend->alloc(nn->backend->self, want);
        else {                       // the allocator's pointer is kept in front of the aligned block
            char *raw = (char *)nn__raw_alloc(nn, want + 2 * NN__ALIGN);
            b->at = raw ? (char *)(((uintptr_t)raw + 2 * NN__ALIGN - 1) & ~(uintptr_t)(NN__ALIGN - 1)) : NULL;
            if (raw) memcpy(b->at - sizeof raw, &raw, sizeof raw);
        }
        if (b->at || want == bytes) break;
        want = bytes;                // doubling was a luxury
    }
    if (!b->at) return 0;
    b->bytes = want;
    b->used = 0;
    a->blocks++;
    return 1;
}

static void nn__arena_free(nn__arena *a)
{
    while (a->blocks) {
        nn__block *b = &a->block[--a->blocks];
        if (a->device) a->nn->backend->free(a->nn->backend->self, b->at, b->bytes);
        else {
            char *raw;
            memcpy(&raw, b->at - sizeof raw, sizeof raw);
            nn__raw_free(a->nn, raw);
        }
    }
    a->current = 0;
}

static void nn__count_peak(nn_context *nn)
{
    size_t all = nn__round_up(sizeof *nn) + nn->life.used + nn->step_arena.used - nn->step_extra;
    if (nn->data_life != &nn->life) all += nn->device_life.used + nn->device_step.used;
    if (all > nn->peak) nn->peak = all;
}

// Memory from an arena, or NULL after reporting. Uninitialised. `numbers`: may be left out while measuring.
static void *nn__arena_alloc(nn__arena *a, size_t bytes, int numbers)
{
    nn_context *nn = a->nn;
    char *at = NULL;
    if (bytes > SIZE_MAX / 4) { nn__oom(nn, bytes); return NULL; }
    bytes = nn__round_up(bytes ? bytes : 1);
    a->used += bytes;
    if (a->used > a->peak) a->peak = a->used;
    nn__count_peak(nn);
    if (nn->measuring && numbers) return NULL;
    if (nn->buffer && !a->device) {
        if (nn->hi - nn->lo >= bytes) {
            at = a->top ? nn->buffer + (nn->hi -= bytes) : nn->buffer + nn->lo;
            if (!a->top) nn->lo += bytes;
        }
    } else {
        while (a->current < a->blocks && a->block[a->current].bytes - a->block[a->current].used < bytes) a->current++;
        if (a->current == a->blocks && !nn__arena_grow(a, bytes)) a->current = a->blocks ? a->blocks - 1 : 0;
        else {
            at = a->block[a->current].at + a->block[a->current].used;
            a->block[a->current].used += bytes;
        }
    }
    if (!at) nn__oom(nn, bytes);
    return at;
}

// Zeroed host memory that lives until nn_free. Small things lie side by side: most are heads of tensors and names.
static void *nn__life(nn_context *nn, size_t bytes)
{
    enum { SMALL = 256, CHUNK = 1024 };
    char *p;
    if (bytes <= SMALL) {
        bytes = (bytes + 15) & ~(size_t)15;
        if (nn->small_left < bytes) {
            nn->small_at = (char *)nn__arena_alloc(&nn->life, CHUNK, 0);
            nn->small_left = CHUNK;  // without memory, too: what is needed in all is still counted
        }
        nn->small_left -= bytes;
        p = nn->small_at;
        if (!p) return NULL;
        nn->small_at += bytes;
    } else p = (char *)nn__arena_alloc(&nn->life, bytes, 0);
    if (p && bytes <= SIZE_MAX / 4) memset(p, 0, bytes); // larger is refused above; GCC 12 cannot see that and warns
    return p;
}

static void *nn__host_step(nn_context *nn, size_t bytes) { return nn__arena_alloc(&nn->step_arena, bytes, 0); }

static void *nn__node_room(nn_context *nn, size_t bytes) // for this step; chunks are reused every step, as the slabs of heads are
{
    enum { CHUNK = 2048 };
    nn__chunk *next;
    char *at;
    bytes = (bytes + 15) & ~(size_t)15;
    if (nn->node_left >= bytes && !nn->node_at) { nn->node_left -= bytes; return NULL; }        // no memory: only counts
    while (nn->node_left < bytes) {
        next = nn->chunk ? nn->chunk->next : nn->chunks;
        if (!next || next->bytes < bytes) {
            size_t size = bytes > CHUNK - sizeof *next ? bytes : CHUNK - sizeof *next;
            nn__chunk *more = (nn__chunk *)nn__life(nn, sizeof *more + size);
            if (!more) { nn->node_at = NULL; nn->node_left = size - bytes; return NULL; }
            more->next = next;
            more->bytes = size;
            if (nn->chunk) nn->chunk->next = more; else nn->chunks = more;
            next = more;
        }
        nn->chunk = next;
        nn->node_at = (char *)(next + 1);
        nn->node_left = next->bytes;
    }
    at = nn->node_at;
    nn->node_at += bytes;
    nn->node_left -= bytes;
    return at;
}

static char *nn__copy_string(nn_context *nn, const char *s)
{
    size_t n = s ? strlen(s) + 1 : 0;
    char *p = s ? (char *)nn__life(nn, n) : NULL;
    if (p) memcpy(p, s, n);
    return p;
}

// Numbers of this step come from a freed piece that fits best, else from the stack. A piece is known by its place in the stack, so that
// measuring, where there are no addresses, takes and joins the same pieces. A stack in a caller's buffer grows down: later places,
// lower addresses.
static int nn__steps_grow_down(const nn_context *nn) { return nn->buffer && nn->data_step == &nn->step_arena; }

static int nn__take_below(nn_context *nn, size_t bytes, size_t limit, size_t *place, char **at)     // bytes: rounded up
{
    nn__free_entry *f;
    int i, best = -1;
    for (i = 0; i < nn->free_count; i++)
        if (nn->free_list[i].bytes >= bytes && nn->free_list[i].place < limit && (best < 0 || nn->free_list[i].bytes < nn->free_list[best].bytes)) best = i;
    if (best < 0) return 0;
    f = &nn->free_list[best];        // take its front; the rest stays free
    *place = f->place;
    *at = NULL;
    f->place += bytes;
    f->bytes -= bytes;
    if (f->at && nn__steps_grow_down(nn)) *at = f->at + f->bytes;
    else if (f->at) { *at = f->at; f->at += bytes; }
    if (!f->bytes) *f = nn->free_list[--nn->free_count];
    if (nn->measuring) *at = NULL;
    return 1;
}

static int nn__pop(nn_context *nn, char *at, size_t place, size_t bytes)             // a piece at the top goes back to the stack
{
    nn__arena *a = nn->data_step;
    if (place + bytes != a->used) return 0;
    if (at && nn__steps_grow_down(nn)) nn->hi += bytes;
    else if (at) {
        nn__block *b = &a->block[a->current];
        if (at + bytes != b->at + b->used) return 0;
        b->used -= bytes;
    }
    a->used -= bytes;
    return 1;
}

static int nn__take_free(nn_context *nn, size_t bytes, size_t *place, char **at) { return nn__take_below(nn, bytes, SIZE_MAX, place, at); }

static void nn__step_free(nn_context *nn, void *memory, size_t place, size_t bytes)  // numbers that nobody reads again in this step
{
    char *at = (char *)memory;
    int i, down = nn__steps_grow_down(nn);
    bytes = nn__round_up(bytes ? bytes : 1);
    if (!at && !nn->measuring) return;
    for (i = 0; i < nn->free_count;) {                   // join neighbours; blocks of the heap are none
        nn__free_entry *f = &nn->free_list[i];
        int before = f->place + f->bytes == place && (nn->measuring || (down ? at + bytes == f->at : f->at + f->bytes == at));
        int behind = place + bytes == f->place && (nn->measuring || (down ? f->at + f->bytes == at : at + bytes == f->at));
        if (!before && !behind) { i++; continue; }
        if (before) place = f->place;
        if (before != down) at = f->at;
        bytes += f->bytes;
        *f = nn->free_list[--nn->free_count];
        i = 0;
    }
    if (nn__pop(nn, at, place, bytes)) return;
    if (nn->free_count == nn->free_room) return;         // then it stays unused until the step ends
    nn->free_list[nn->free_count].at = at;
    nn->free_list[nn->free_count].place = place;
    nn->free_list[nn->free_count++].bytes = bytes;
}

// Gradients of parameters stay until the step ends, above what is freed meanwhile. Before the stack grows although much is free, only
// in pieces, gradients move down: into a free piece that holds them, else over the one just before them. At most 8 times as much is
// copied as was asked for.
static size_t nn__storage_bytes(const nn_tensor *t);
static nn_tensor *nn__next_gradient(nn_context *nn, size_t place)                    // the lowest that is not below `place`
{
    nn_tensor *best = NULL, *g;
    nn__leaf_grad *e;
    nn_node *d;
    int i;
    for (e = nn->leaf_grads; e; e = e->next) {
        g = e->t->grad;
        if (g->step == nn->step && g->place >= place && (!best || g->place < best->place)) best = g;
    }
    for (d = nn->tape; d; d = d->prev) for (i = 0; i < d->nout; i++) {
        g = d->out[i]->grad;
        if (g && g->place >= place && (!best || g->place < best->place)) best = g;
    }
    return best;
}

static size_t nn__move_down(nn_context *nn, nn_tensor *g)          // bytes moved
{
    size_t bytes = nn__round_up(nn__storage_bytes(g)), from = g->place, gap = bytes, place;
    char *at, *old = (char *)g->data;
    int i, down = nn__steps_grow_down(nn);
    if (!nn__take_below(nn, bytes, from, &place, &at)) {
        for (i = 0; i < nn->free_count && nn->free_list[i].place + nn->free_list[i].bytes != from; i++) { }
        if (i == nn->free_count || nn->data_step != &nn->step_arena) return 0;
        place = nn->free_list[i].place;
        gap = nn->free_list[i].bytes;
        at = nn->measuring ? NULL : down ? old + gap : old - gap;
        if (!nn->measuring && (down ? nn->free_list[i].at != old + bytes : nn->free_list[i].at != at)) return 0;           // another block of the heap
        nn->free_list[i] = nn->free_list[--nn->free_count];
        if (!down && old) old += bytes - gap;            // what becomes free: gap bytes at the other end
        from += bytes - gap;
    }
    if (at && !nn->backend->copy(nn->backend->self, at, g->data, bytes)) nn_fail(nn, "%s: copy failed", nn->backend->name);
    if (nn->trace && at) nn__trace_storage(nn, at, bytes, (const char *)g->data);
    g->data = at;
    g->place = place;
    nn__step_free(nn, old, from, gap);
    return bytes;
}

static void nn__compact_gradients(nn_context *nn, size_t bytes)
{
    size_t loose = 0, moved = 0, place;
    nn_tensor *g;
    int i;
    for (i = 0; i < nn->free_count; i++) loose += nn->free_list[i].bytes;
    if (loose < bytes / 4) return;
    for (g = nn__next_gradient(nn, 0); g; g = nn__next_gradient(nn, place)) {
        place = g->place + 1;
        if (!(g->flags & NN__T_PINNED) && moved + nn__storage_bytes(g) <= 8 * bytes) moved += nn__move_down(nn, g);
    }
}

static void *nn__step_data(nn_context *nn, size_t bytes, size_t *place)
{
    char *at;
    if (bytes > SIZE_MAX / 4) { nn__oom(nn, bytes); return NULL; }
    bytes = nn__round_up(bytes ? bytes : 1);
    if (!nn__take_free(nn, bytes, place, &at)) {
        if (nn->leaf_grads_live) nn__compact_gradients(nn, bytes);
        if (!nn__take_free(nn, bytes, place, &at)) {
            *place = nn->data_step->used;
            at = (char *)nn__arena_alloc(nn->data_step, bytes, 1);
        }
    }
    if (nn->trace && at) nn__trace_storage(nn, at, bytes, NULL);
    return at;
}

static void nn__forget_free(nn_context *nn)              // free pieces beyond the top of the stack are part of it again
{
    int i, down = nn__steps_grow_down(nn);
    size_t top = nn->data_step->used;
    for (i = 0; i < nn->free_count;) {
        nn__free_entry *f = &nn->free_list[i];
        if (f->place >= top) { *f = nn->free_list[--nn->free_count]; continue; }
        if (f->place + f->bytes > top) {
            if (f->at && down) f->at += f->place + f->bytes - top;
            f->bytes = top - f->place;
        }
        i++;
    }
}

static nn__mark nn__get_mark(nn_context *nn)
{
    nn__mark m;
    nn__arena *a[2];
    int i;
    a[0] = &nn->step_arena; a[1] = &nn->device_step;
    for (i = 0; i < 2; i++) {
        m.current[i] = a[i]->current;
        m.block_used[i] = a[i]->current < a[i]->blocks ? a[i]->block[a[i]->current].used : 0;
        m.used[i] = a[i]->used;
    }
    m.hi = nn->hi; m.tape = nn->tape; m.tensors = nn->tensors; m.node_at = nn->node_at; m.node_left = nn->node_left; m.chunk = nn->chunk;
    return m;
}

static void nn__rewind_memory(nn_context *nn, const nn__mark *m)    // memory only; tensor heads stay
{
    nn__arena *a[2];
    int i, j;
    a[0] = &nn->step_arena; a[1] = &nn->device_step;
    for (i = 0; i < 2; i++) {
        for (j = m->current[i] + 1; j < a[i]->blocks; j++) a[i]->block[j].used = 0;
        if (m->current[i] < a[i]->blocks) a[i]->block[m->current[i]].used = m->block_used[i];
        a[i]->current = m->current[i];
        a[i]->used = m->used[i];
    }
    nn->hi = m->hi;
    nn->node_at = m->node_at;
    nn->chunk = m->chunk;
    nn->node_left = m->node_left;
    nn__forget_free(nn);
}

static void nn__rewind_heads(nn_context *nn, int tensors)
{
    int i;
    nn->tensors = tensors;
    nn->slab = tensors ? nn->slabs : NULL;
    for (i = NN__SLAB; i < tensors; i += NN__SLAB) nn->slab = nn->slab->next;
}

static void nn__rewind(nn_context *nn, const nn__mark *m)           // to a mark taken in this step
{
    nn__rewind_memory(nn, m);
    nn->tape = m->tape;
    nn__rewind_heads(nn, m->tensors);
}

static void nn__arena_rewind(nn__arena *a)               // empty it; several blocks become one
{
    int i;
    size_t total = 0;
    a->used = 0;
    a->current = 0;
    for (i = 0; i < a->blocks; i++) { total += a->block[i].bytes; a->block[i].used = 0; }
    if (a->blocks > 1) {
        nn__arena_free(a);
        if (a->peak > total / 2) total = a->peak + a->peak / 16;
        if (!nn__arena_grow(a, nn__round_up(total < a->peak ? a->peak : total))) a->blocks = 0;   // it will be tried again in pieces
    }
}

NN_API int nn_reserve(nn_context *nn, size_t step_bytes)
{
    if (!nn_ok(nn)) return 0;
    if (nn->buffer && nn->data_step == &nn->step_arena) return nn->hi - nn->lo >= step_bytes;
    if (nn->data_step->used) return 0;
    nn__arena_free(nn->data_step);
    if (nn__arena_grow(nn->data_step, nn__round_up(step_bytes))) return 1;
    nn__oom(nn, step_bytes);
    return 0;
}

NN_API size_t nn_bytes_needed(const nn_context *nn) { return nn ? nn->peak : 0; }

static void nn__on_free(nn_context *nn, void (*run)(void *), void *arg)   // called by nn_free, newest first
{
    nn__cleanup *c = (nn__cleanup *)nn__life(nn, sizeof *c);
    if (!c) return;
    c->run = run; c->arg = arg; c->next = nn->cleanups;
    nn->cleanups = c;
}

// =============================================================================================
// >>random   Philox4x32-10 (Salmon et al. 2011): random numbers are a function of (seed, step, ordinal, index), not of what was
// drawn before. So masks and shuffles do not depend on threads, and resuming needs only seed and step.
// =============================================================================================
enum { NN__DOMAIN_OP = 0, NN__DOMAIN_INIT = 1, NN__DOMAIN_SHUFFLE = 2, NN__DOMAIN_AUGMENT = 3, NN__DOMAIN_SPLIT = 4 };

static void nn__philox(uint64_t seed, uint64_t step, uint64_t ordinal, uint64_t index, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32) ^ (uint32_t)(ordinal >> 32), c2 = (uint32_t)ordinal, c3 = (uint32_t)step;
    int i;
    for (i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

static uint64_t nn__ordinal(int domain, uint64_t n) { return ((uint64_t)(unsigned)domain << 48) | (n & 0xFFFFFFFFFFFFu); }

NN__UNUSED static double nn__uniform_at(uint64_t seed, uint64_t step, uint64_t ordinal, uint64_t i)   // number i of a stream, in [0, 1)
{
    uint32_t r[4];
    nn__philox(seed, step, ordinal, i / 4, r);
    return (double)(r[i % 4] >> 8) * (1.0 / 16777216.0);
}

NN__UNUSED static void nn__shuffle(int64_t *list, int64_t n, uint64_t seed, uint64_t step, uint64_t ordinal)   // Fisher-Yates
{
    int64_t i;
    for (i = n - 1; i > 0; i--) {
        uint32_t r[4];
        uint64_t wide;
        int64_t j, t;
        nn__philox(seed, step, ordinal, (uint64_t)i, r);
        wide = ((uint64_t)r[0] << 32) | r[1];
        j = (int64_t)(wide % (uint64_t)(i + 1));
        t = list[i]; list[i] = list[j]; list[j] = t;
    }
}

NN_API void nn_seed(nn_context *nn, uint64_t seed)
{
    if (!nn) return;
    nn->seed = seed;
    nn->random_step = nn->ordinal = 0;
}

// =============================================================================================
// >>threads   A parallel-for. Which thread runs which task is free: tasks depend on shapes only, never on the thread count.
// =============================================================================================
// The caller is worker 0. Every worker has a range of the tasks, the same one whenever a call has as many tasks, so what it touched
// in the last step still is in its cache; when it is through it helps the others. Tasks are taken by counting up, without a lock.
// `gate` is one word, the number of the job | open | how many workers are inside: a worker goes in while the gate is open, and the
// caller, who found no more tasks, closes it and waits for those inside only. So nobody waits for a worker that is asleep or late.
// A worker that finds nothing to do spins for a while, as waking a sleeper takes 50 us, then it sleeps.
enum { NN__GATE_OPEN = 256, NN__GATE_JOB = 512, NN__GATE_JOBS = 1 << 21, NN__APART = 128 };      // bytes: cache lines are fetched in pairs
typedef struct nn__worker {          // by itself in its cache lines
    nn__pool  *pool;
    nn__thread thread;
    int        index;
    char       apart1[NN__APART];
    nn__atomic next;                 // tasks next .. end - 1 of this worker's range are left
    int        end;
    char       apart2[NN__APART];
} nn__worker;
struct nn__pool {
    nn__worker *worker;
    int         threads, started;    // besides the caller
    int         spin, alone;         // microseconds that a worker spins for a job, and before it offers its core to others
    nn__mutex   mutex;
    nn__cond    work;
    void      (*task)(void *arg, int64_t index, int worker);
    void       *arg;
    int64_t     first;               // of the tasks of this job
    int         ranges;              // of workers 0 .. ranges - 1
    char        apart1[NN__APART];
    nn__atomic  gate;
    char        apart2[NN__APART];
    nn__atomic  sleepers, stop;
};

static void nn__pool_work(nn__pool *p, int worker)
{
    int k;
    for (k = 0; k < p->ranges; k++) {
        nn__worker *w = &p->worker[(worker + k) % p->ranges];
        for (;;) {
            int i = nn__atomic_load(&w->next) < w->end ? nn__atomic_add(&w->next, 1) : w->end;
            if (i >= w->end) break;
            p->task(p->arg, p->first + i, worker);
        }
    }
}

// 1: there is a job newer than `seen`. 0: nothing came for a while.
static int nn__pool_spin(nn__pool *p, int seen)
{
    double start = nn__seconds(), now = start;
    int i;
    while (now >= start && (now - start) * 1e6 < p->spin) {
        for (i = 0; i < 32; i++) {
            if (nn__atomic_load(&p->gate) / NN__GATE_JOB != seen || nn__atomic_load(&p->stop)) return 1;
            nn__pause();
        }
        if ((now - start) * 1e6 >= p->alone) nn__yield();
        now = nn__seconds();
    }
    return 0;
}

static void nn__pool_sleep(nn__pool *p, int seen)
{
    nn__lock(&p->mutex);
    nn__atomic_add(&p->sleepers, 1);
    while (nn__atomic_load(&p->gate) / NN__GATE_JOB == seen && !nn__atomic_load(&p->stop)) nn__wait(&p->work, &p->mutex);
    nn__atomic_add(&p->sleepers, -1);
    nn__unlock(&p->mutex);
}

static void nn__pool_main(void *arg)
{
    nn__worker *w = (nn__worker *)arg;
    nn__pool *p = w->pool;
    int seen = -1, gate;
    while (!nn__atomic_load(&p->stop)) {
        gate = nn__atomic_load(&p->gate);
        if (gate / NN__GATE_JOB == seen) {
            if (!nn__pool_spin(p, seen)) nn__pool_sleep(p, seen);
            continue;
        }
        if (gate & NN__GATE_OPEN) {
            if (nn__atomic_swap(&p->gate, gate, gate + 1) != gate) continue;
            if (w->index < p->ranges) nn__pool_work(p, w->index);
            nn__atomic_add(&p->gate, -1);
        }
        seen = gate / NN__GATE_JOB;
    }
}

static void nn__pool_wake(nn__pool *p)
{
    if (!nn__atomic_load(&p->sleepers)) return;
    nn__lock(&p->mutex);
    nn__wake(&p->work);
    nn__unlock(&p->mutex);
}

static void nn__pool_free(void *arg)
{
    nn__pool *p = (nn__pool *)arg;
    int i;
    nn__atomic_store(&p->stop, 1);
    nn__pool_wake(p);
    for (i = 0; i < p->started; i++) nn__thread_join(&p->worker[i + 1].thread);
    nn__cond_free(&p->work);
    nn__mutex_free(&p->mutex);
}

static nn__pool *nn__pool_new(nn_context *nn, int threads)
{
    nn__pool *p = (nn__pool *)nn__life(nn, sizeof *p);
    nn__worker *w = p ? (nn__worker *)nn__life(nn, (size_t)threads * sizeof *w) : NULL;
    int i;
    if (!w) return NULL;
    memset(p, 0, sizeof *p);
    memset(w, 0, (size_t)threads * sizeof *w);
    for (i = 0; i < threads; i++) { w[i].pool = p; w[i].index = i; }
    p->worker = w;
    p->threads = threads - 1;
    p->alone = threads > nn__cores() ? 0 : 20;           // threads without a core of their own spin in each other's time
    p->spin = p->alone ? 100 : 10;
    nn__mutex_init(&p->mutex);
    nn__cond_init(&p->work);
    nn__on_free(nn, nn__pool_free, p);
    return p;
}

static void nn__pool_start(nn__pool *p, int threads)     // no thread is started before it is needed
{
    while (p->started < threads && p->started < p->threads) {
        nn__worker *w = &p->worker[p->started + 1];
        if (!nn__thread_start(&w->thread, nn__pool_main, w)) p->threads = p->started;
        else p->started++;
    }
}

static void nn__pool_run(nn__pool *p, int64_t first, int tasks, void (*task)(void *, int64_t, int), void *arg)
{
    int job = (nn__atomic_load(&p->gate) / NN__GATE_JOB + 1) % NN__GATE_JOBS, i, turns = 0;
    nn__pool_start(p, tasks - 1);
    p->task = task; p->arg = arg; p->first = first;      // the gate is closed and nobody is inside
    p->ranges = (int)nn__min(p->started + 1, tasks);
    for (i = 0; i < p->ranges; i++) {
        nn__atomic_store(&p->worker[i].next, (int)((int64_t)tasks * i / p->ranges));
        p->worker[i].end = (int)((int64_t)tasks * (i + 1) / p->ranges);
    }
    nn__atomic_store(&p->gate, job * NN__GATE_JOB + NN__GATE_OPEN);
    nn__pool_wake(p);
    nn__pool_work(p, 0);
    nn__atomic_add(&p->gate, -NN__GATE_OPEN);
    while (nn__atomic_load(&p->gate) % NN__GATE_JOB) if (++turns < (p->alone ? 4096 : 64)) nn__pause(); else nn__yield();
}

// task(arg, i, worker) for i in 0 .. tasks - 1; worker < nn->threads, and no two tasks run as the same worker at the same time.
static void nn__parallel(nn_context *nn, int64_t tasks, void (*task)(void *, int64_t, int), void *arg)
{
    int64_t i, most = (int64_t)1 << 28;
    if (tasks < 2 || !nn->pool || !nn->pool->threads) { for (i = 0; i < tasks; i++) task(arg, i, 0); return; }
    for (i = 0; i < tasks; i += most) nn__pool_run(nn->pool, i, (int)nn__min(tasks - i, most), task, arg);
}

NN_API int nn_threads(const nn_context *nn) { return nn ? nn->threads : 0; }

// =============================================================================================
// >>cpu   What this processor can do: cpuid and xgetbv, not __builtin_cpu_supports, which does not link in every shared object.
// =============================================================================================
enum { NN__HAS_FMA = 1, NN__HAS_AVX2 = 2, NN__HAS_AVX512 = 4, NN__HAS_NEON = 8 };
static int nn__cpu_features(void)
{
    int has = 0;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__)
    unsigned a, b, c, d, lo, hi;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0;              // OSXSAVE
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    if ((lo & 6) != 6) return 0;                                                     // the system saves ymm registers
    if (c & (1u << 12)) has |= NN__HAS_FMA;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return has;
    if ((b & (1u << 5)) && (has & NN__HAS_FMA)) has |= NN__HAS_AVX2;
    if ((lo & 0xE6) == 0xE6 && (b & (1u << 16)) && (b & (1u << 17)) && (b & (1u << 30)) && (b & (1u << 31))) has |= NN__HAS_AVX512; // F DQ BW VL
#elif defined(__aarch64__) && defined(__GNUC__)
    has = NN__HAS_NEON | NN__HAS_FMA;
#endif
    return has;
}

NN_API const char *nn_isa(const nn_context *nn) { return nn && nn->table ? nn->table->isa : ""; }

// =============================================================================================
// >>tensor   Shapes, strides, views; making, reading, printing.
// A tensor head is small and lives in a slab that is reused every step; its numbers live in the data arena.
// =============================================================================================
static const struct { const char *name; size_t bytes; } nn__dtypes[NN_DTYPE_COUNT] = {
    { "f32", 4 }, { "f16", 2 }, { "bf16", 2 }, { "i8", 1 }, { "u8", 1 }, { "i32", 4 }, { "i64", 8 }, { "bool", 1 }, { "f64", 8 } };
NN_API size_t      nn_dtype_bytes(nn_dtype d) { return (unsigned)d < NN_DTYPE_COUNT ? nn__dtypes[d].bytes : 0; }
NN_API const char *nn_dtype_name(nn_dtype d)  { return (unsigned)d < NN_DTYPE_COUNT ? nn__dtypes[d].name : "?"; }

// "(32, 10)"
typedef struct nn__text { char s[112]; } nn__text;
static nn__text nn__dims_text(int ndim, const int64_t *d)
{
    nn__text t;
    size_t n = 1;
    int i;
    t.s[0] = '(';
    for (i = 0; i < ndim && n < sizeof t.s - 24; i++)
        n += (size_t)snprintf(t.s + n, sizeof t.s - n, i ? ", %lld" : "%lld", (long long)d[i]);
    snprintf(t.s + n, sizeof t.s - n, ")");
    return t;
}
static nn__text nn__shape_text(const nn_view *v)    { return nn__dims_text(v->ndim, v->shape); }
#define NN__SHAPE_OF(v) (nn__shape_text(v).s)            // for messages: lives to the end of the full expression

NN_API int64_t nn_view_count(const nn_view *v)
{
    int64_t n = 1;
    int i;
    for (i = 0; i < v->ndim; i++) n *= v->shape[i];
    return n;
}

// Number of elements, or -1 if a size is negative or the bytes would not fit.
static int64_t nn__checked_count(int ndim, const int64_t *d, size_t element)
{
    int64_t n = 1;
    int i, zero = 0;
    if (ndim < 0 || ndim > NN_MAX_DIMS) return -1;
    for (i = 0; i < ndim; i++) {
        if (d[i] < 0) return -1;
        if (d[i] == 0) zero = 1;
        else if (n > INT64_MAX / 16 / d[i]) return -1;
        else n *= d[i];
    }
    if (zero) return 0;
    return (uint64_t)n > SIZE_MAX / 8 / element ? -1 : n;
}

static void nn__row_major(int ndim, const int64_t *shape, int64_t *stride)
{
    uint64_t s = 1;                  // unsigned: impossible shapes get here before they are refused, and may wrap
    int i;
    for (i = ndim - 1; i >= 0; i--) { stride[i] = (int64_t)s; s *= shape[i] > 1 ? (uint64_t)shape[i] : 1; }
}

static int nn__is_contiguous(int ndim, const int64_t *shape, const int64_t *stride)
{
    int64_t s = 1;
    int i;
    for (i = 0; i < ndim; i++) if (shape[i] == 0) return 1;
    for (i = ndim - 1; i >= 0; i--) {
        if (shape[i] != 1 && stride[i] != s) return 0;
        s *= shape[i];
    }
    return 1;
}
static int nn__contiguous_view(const nn_view *v)    { return nn__is_contiguous(v->ndim, v->shape, v->stride); }
static int nn__contiguous_tensor(const nn_tensor *t) { return nn__is_contiguous(t->ndim, t->shape, t->stride); }

static void nn__set_shape(nn_view *v, int dtype, int ndim, const int64_t *shape)    // a contiguous result, for shape rules
{
    v->ndim = ndim;
    v->dtype = dtype;
    if (ndim > 0) memcpy(v->shape, shape, (size_t)ndim * sizeof *shape);
    nn__row_major(ndim, v->shape, v->stride);
}
static void nn__like(nn_view *v, const nn_view *x)  { nn__set_shape(v, x->dtype, x->ndim, x->shape); }

static nn_view nn__view_of(const nn_tensor *t)
{
    nn_view v;
    if (!t) { memset(&v, 0, sizeof v); return v; }
    v.data = t->data;
    v.ndim = t->ndim;
    v.dtype = t->dtype;
    memcpy(v.shape, t->shape, sizeof v.shape);
    memcpy(v.stride, t->stride, sizeof v.stride);
    return v;
}
static void nn__view_into(nn_view *v, const nn_tensor *t)            // the same; of shape and strides only what there is
{
    int i;
    v->data = t->data;
    v->ndim = t->ndim;
    v->dtype = t->dtype;
    for (i = 0; i < t->ndim; i++) { v->shape[i] = t->shape[i]; v->stride[i] = t->stride[i]; }
}

// 0 <= result < ndim, or -1 after an error. Negative dims count from the end.
static int nn__dim_index(nn_context *nn, const char *op, int dim, int ndim)
{
    int d = dim < 0 ? dim + ndim : dim;
    if (d >= 0 && d < ndim) return d;
    nn_fail(nn, "%s: dimension %d of a tensor with %d dimensions", op, dim, ndim);
    return -1;
}

static nn_tensor *nn__inert(nn_context *nn)              // what ops return after an error: shape (0), no data
{
    static nn_tensor none = { NULL, NULL, { 0 }, { 0 }, NULL, NULL, NULL, NULL, NULL, 1, 0, NN__T_INERT, 0, 0, 0, 0 };    // only ever read
    return nn ? &nn->inert : &none;
}
static int nn__dead(const nn_tensor *t) { return !t || (t->flags & NN__T_INERT) || !t->nn; }

// Is t a live tensor of nn? Reports why not.
static int nn__check(nn_context *nn, const nn_tensor *t, const char *op)
{
    if (!nn || nn->failed) return 0;
    if (!t) { nn_fail(nn, "%s: the tensor is NULL", op); return 0; }
    if (nn__dead(t)) return 0;
    if (t->nn != nn) { nn_fail(nn, "%s: the tensor belongs to another context", op); return 0; }
    if (t->step && t->step != nn->step) { nn_fail(nn, "%s: the tensor died at the last nn_begin (see nn_keep)", op); return 0; }
    return 1;
}

static nn_tensor *nn__new_head(nn_context *nn, int life)
{
    nn_tensor *t;
    if (life) t = (nn_tensor *)nn__life(nn, sizeof *t);
    else {
        int i = nn->tensors % NN__SLAB;
        if (i == 0) {
            nn__slab *next = nn->slab ? nn->slab->next : nn->slabs;
            if (!next) {
                next = (nn__slab *)nn__life(nn, sizeof *next);
                if (!next) return NULL;
                if (nn->slab) nn->slab->next = next; else nn->slabs = next;
            }
            nn->slab = next;
        }
        t = &nn->slab->t[i];
        nn->tensors++;
        for (i = 0; i < NN_MAX_DIMS; i++) t->shape[i] = t->stride[i] = 0;            // field by field: sooner done than a memset
        t->data = NULL; t->grad = NULL; t->node = NULL; t->name = NULL; t->layer = NULL;
        t->ndim = t->dtype = t->output = 0;
        t->flags = t->version = 0;
        t->place = 0;
    }
    if (!t) return NULL;
    t->nn = nn;
    t->base = t;
    t->step = life ? 0 : nn->step;
    return t;
}

// A tensor with uninitialised numbers, for this step or for life; the inert tensor after an error.
static nn_tensor *nn__alloc_tensor(nn_context *nn, int life, nn_dtype dtype, int ndim, const int64_t *shape)
{
    int64_t n = nn__checked_count(ndim, shape, 8);
    size_t bytes;
    nn_tensor *t;
    if (!nn || nn->failed) { if (!nn || !nn->out_of_memory) return nn__inert(nn); }
    if (n < 0) { nn_fail(nn, "tensor: impossible shape %s", nn__dims_text(ndim, shape).s); return nn__inert(nn); }
    t = nn__new_head(nn, life);
    if (!t) return nn__inert(nn);
    t->dtype = (int)dtype;
    t->ndim = ndim;
    if (ndim > 0) memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    nn__row_major(ndim, t->shape, t->stride);
    bytes = (size_t)n * nn_dtype_bytes(dtype);
    t->data = life ? nn__arena_alloc(nn->data_life, bytes, 1) : nn__step_data(nn, bytes, &t->place);
    return t->data || nn->measuring ? t : nn__inert(nn);
}

static int nn__same_numbers(int n, const int64_t *a, const int64_t *b)          // a few: a call of memcmp takes longer
{
    int i;
    for (i = 0; i < n; i++) if (a[i] != b[i]) return 0;
    return 1;
}
static int nn__same_sizes(int m, const int64_t *a, int n, const int64_t *b) { return m == n && nn__same_numbers(n, a, b); }

static nn_shape nn__shape2(int64_t a, int64_t b)
{
    nn_shape s;
    memset(&s, 0, sizeof s);
    s.ndim = 2; s.d[0] = a; s.d[1] = b;
    return s;
}
static nn_shape nn__shape1(int64_t a) { nn_shape s = nn__shape2(a, 1); s.ndim = 1; return s; }

NN_API nn_shape nn_shape_of(const nn_tensor *x)
{
    nn_shape s;
    memset(&s, 0, sizeof s);
    if (!x) return s;
    s.ndim = x->ndim;
    memcpy(s.d, x->shape, sizeof s.d);
    return s;
}

NN_API int64_t nn_count(const nn_tensor *x)
{
    int64_t n = 1;
    int i;
    if (!x) return 0;
    for (i = 0; i < x->ndim; i++) n *= x->shape[i];
    return n;
}

NN_API int64_t nn_dim(const nn_tensor *x, int dim)
{
    int d = x ? nn__dim_index(x->nn, "nn_dim", dim, x->ndim) : -1;
    return d < 0 ? 0 : x->shape[d];
}

// ---- running single ops on existing memory, without history ------------------------------------------
static void nn__run(nn_context *nn, nn_call *c);         // >>backend
static void nn__begin_call(nn_call *c, nn_context *nn, int op, const void *params);

static void nn__copy_view(nn_context *nn, nn_view to, nn_view from)                 // same shape; same dtype: strided copy; else cast
{
    nn_call c;
    nn__begin_call(&c, nn, to.dtype == from.dtype ? NN_OP_copy : NN_OP_cast, NULL);
    c.nin = c.nout = 1;
    c.in[0] = from;
    c.out[0] = to;
    nn__run(nn, &c);
}

static void nn__fill_view(nn_context *nn, nn_view to, double value)
{
    nn_call c;
    nn__begin_call(&c, nn, NN_OP_fill, &value);
    c.nout = 1;
    c.out[0] = to;
    nn__run(nn, &c);
}

static nn_tensor *nn__upload(nn_context *nn, nn_tensor *t, const void *data)        // contiguous, its own dtype; NULL: zeros
{
    size_t bytes = (size_t)nn_count(t) * nn_dtype_bytes((nn_dtype)t->dtype);
    if (nn__dead(t) || !t->data || !bytes) return t;
    if (!data) nn__fill_view(nn, nn__view_of(t), 0.0);
    else {
        nn__trace_refuse(nn, "it takes numbers from the host");
        if (!nn->backend->upload(nn->backend->self, t->data, data, bytes)) nn_fail(nn, "%s: upload failed", nn->backend->name);
    }
    return t;
}

// data of type `dtype`, into a tensor of the context's own real type where dtype is NN_F32
static nn_tensor *nn__make(nn_context *nn, int life, nn_dtype dtype, nn_shape shape, const void *data)
{
    nn_dtype real = nn && dtype == NN_F32 ? nn->desc.dtype : dtype;
    nn_tensor *t, *f;
    nn__mark m;
    if (!nn_ok(nn)) return nn__inert(nn);
    t = nn__alloc_tensor(nn, life, real, shape.ndim, shape.d);
    if (real == dtype || !data) return nn__upload(nn, t, data);
    m = nn__get_mark(nn);                                // an f64 context made from f32 numbers
    f = nn__upload(nn, nn__alloc_tensor(nn, 0, dtype, shape.ndim, shape.d), data);
    if (!nn__dead(f) && !nn__dead(t)) nn__copy_view(nn, nn__view_of(t), nn__view_of(f));
    nn__rewind(nn, &m);
    return t;
}

NN_API nn_tensor *nn_tensor_new(nn_context *nn, nn_shape shape, const float *data)                  { return nn__make(nn, 1, NN_F32, shape, data); }
NN_API nn_tensor *nn_tensor_new_as(nn_context *nn, nn_dtype dtype, nn_shape shape, const void *data) { return nn__make(nn, 1, dtype, shape, data); }
NN_API nn_tensor *nn_from(nn_context *nn, nn_shape shape, const float *data)                        { return nn__make(nn, 0, NN_F32, shape, data); }
NN_API nn_tensor *nn_from_as(nn_context *nn, nn_dtype dtype, nn_shape shape, const void *data)      { return nn__make(nn, 0, dtype, shape, data); }
NN_API nn_tensor *nn_full(nn_context *nn, nn_shape shape, float value)
{
    nn_tensor *t = nn_ok(nn) ? nn__alloc_tensor(nn, 0, nn->desc.dtype, shape.ndim, shape.d) : nn__inert(nn);
    if (!nn__dead(t)) nn__fill_view(nn, nn__view_of(t), value);
    return t;
}
NN_API nn_tensor *nn_zeros(nn_context *nn, nn_shape shape)    { return nn_full(nn, shape, 0.0f); }
NN_API nn_tensor *nn_ones(nn_context *nn, nn_shape shape)     { return nn_full(nn, shape, 1.0f); }
NN_API nn_tensor *nn_scalar(nn_context *nn, float value)
{
    nn_shape s;
    memset(&s, 0, sizeof s);
    return nn_full(nn, s, value);
}

NN_API float *nn_data(nn_tensor *x)
{
    if (!x || !nn__check(x->nn, x, "nn_data")) return NULL;
    if (x->nn->backend != &x->nn->cpu)  { nn_fail(x->nn, "nn_data: the tensor is on %s; use nn_read", x->nn->backend->name); return NULL; }
    if (x->dtype != NN_F32)             { nn_fail(x->nn, "nn_data: the tensor is %s, not f32; use nn_read", nn_dtype_name((nn_dtype)x->dtype)); return NULL; }
    if (!nn__contiguous_tensor(x))      { nn_fail(x->nn, "nn_data: the tensor is not contiguous; use nn_contiguous or nn_read"); return NULL; }
    x->base->version++;              // the caller may write
    nn__record_refuse(x->nn, "it reads or writes numbers by itself");
    return (float *)x->data;
}

NN_API int nn_read_as(const nn_tensor *x, nn_dtype dtype, void *to)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_view v;
    nn__mark m;
    int ok;
    if (!nn__check(nn, x, "nn_read") || !x->data || nn->measuring) return 0;
    nn__record_refuse(nn, "it reads or writes numbers by itself");
    m = nn__get_mark(nn);
    v = nn__view_of(x);
    if (x->dtype != (int)dtype || !nn__contiguous_view(&v)) {
        nn_tensor *t = nn__alloc_tensor(nn, 0, dtype, x->ndim, x->shape);
        if (nn__dead(t)) return 0;
        nn__copy_view(nn, nn__view_of(t), v);
        v = nn__view_of(t);
    }
    ok = nn_ok(nn) && nn->backend->download(nn->backend->self, to, v.data, (size_t)nn_count(x) * nn_dtype_bytes(dtype));
    if (!ok) nn_fail(nn, "%s: download failed", nn->backend->name);
    nn__rewind(nn, &m);
    return ok;
}
NN_API int nn_read(const nn_tensor *x, float *to) { return nn_read_as(x, NN_F32, to); }

NN_API int nn_write_as(nn_tensor *x, nn_dtype dtype, const void *from)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_tensor *t;
    nn__mark m;
    if (!nn__check(nn, x, "nn_write")) return 0;
    x->base->version++;
    if (x->dtype == (int)dtype && nn__contiguous_tensor(x)) { nn__upload(nn, x, from); return nn_ok(nn); }
    m = nn__get_mark(nn);
    t = nn__upload(nn, nn__alloc_tensor(nn, 0, dtype, x->ndim, x->shape), from);
    if (!nn__dead(t)) nn__copy_view(nn, nn__view_of(x), nn__view_of(t));
    nn__rewind(nn, &m);
    return nn_ok(nn);
}
NN_API int nn_write(nn_tensor *x, const float *from) { return nn_write_as(x, NN_F32, from); }

NN_API int nn_copy(nn_tensor *to, const nn_tensor *from)
{
    nn_context *nn = to ? to->nn : NULL;
    if (!nn__check(nn, to, "nn_copy") || !nn__check(nn, from, "nn_copy")) return 0;
    if (!nn__same_sizes(to->ndim, to->shape, from->ndim, from->shape)) {
        nn_fail(nn, "nn_copy: shapes differ: %s and %s", nn__dims_text(to->ndim, to->shape).s, nn__dims_text(from->ndim, from->shape).s);
        return 0;
    }
    to->base->version++;
    nn__copy_view(nn, nn__view_of(to), nn__view_of(from));
    return nn_ok(nn);
}

NN_API double nn_item(const nn_tensor *x)
{
    double v = NAN;
    if (!x || !x->nn) return v;
    if (nn__check(x->nn, x, "nn_item") && nn_count(x) != 1)
        nn_fail(x->nn, "nn_item: the tensor has %lld elements: %s", (long long)nn_count(x), nn__dims_text(x->ndim, x->shape).s);
    if (!nn_read_as(x, NN_F64, &v)) return NAN;
    return v;
}

static void nn__log_text(nn_context *nn, const char *text)
{
    if (nn && nn->desc.log) nn->desc.log(nn->desc.user, text);
#ifndef NN_NO_STDIO
    else {
        fputs(text, stdout);
        fflush(stdout);              // progress lines are wanted now, in a pipe too
    }
#endif
}

static void nn__log(nn_context *nn, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    nn__log_text(nn, text);
}

static size_t nn__print_part(const nn_tensor *x, const double *v, int dim, int64_t *at, char *to, size_t room, int integer)
{
    size_t n = 0;
    int64_t i, count = dim < x->ndim ? x->shape[dim] : 0;
    if (room < 64) return 0;
    if (dim == x->ndim) return (size_t)snprintf(to, room, integer ? "%.0f" : "%.4g", v[(*at)++]);
    n += (size_t)snprintf(to, room, "[");
    for (i = 0; i < count; i++) {
        if (count > 12 && i == 4) {  // the middle of a long row is left out
            int64_t skip = count - 8;
            int d;
            for (d = dim + 1; d < x->ndim; d++) skip *= x->shape[d];
            *at += skip;
            i = count - 4;
            n += (size_t)snprintf(to + n, room - n, "... ");
        }
        n += nn__print_part(x, v, dim + 1, at, to + n, room - n, integer);
        if (i + 1 < count && n + 32 < room) {
            if (dim + 1 < x->ndim) n += (size_t)snprintf(to + n, room - n, ",\n%*s", dim + 1, "");
            else n += (size_t)snprintf(to + n, room - n, " ");
        }
        if (n + 64 > room) break;
    }
    n += (size_t)snprintf(to + n, room - n, "]");
    return n;
}

NN_API void nn_print(const nn_tensor *x)
{
    nn_context *nn = x ? x->nn : NULL;
    double *v;
    char *text;
    size_t room = 65536;
    int64_t at = 0;
    nn__mark m;
    if (!nn__check(nn, x, "nn_print")) { nn__log(nn, "(no tensor)\n"); return; }
    m = nn__get_mark(nn);
    v = (double *)nn__host_step(nn, nn__mul_size((size_t)nn_count(x), sizeof *v));
    text = (char *)nn__host_step(nn, room);
    if (v && text && nn_read_as(x, NN_F64, v)) {
        size_t n = nn__print_part(x, v, 0, &at, text, room - 64, x->dtype != NN_F32 && x->dtype != NN_F64 && x->dtype != NN_F16 && x->dtype != NN_BF16);
        snprintf(text + n, room - n, "  %s %s\n", nn_dtype_name((nn_dtype)x->dtype), nn__dims_text(x->ndim, x->shape).s);
        nn__log_text(nn, text);
    }
    nn__rewind_memory(nn, &m);
}

// =============================================================================================
// >>backend   Who runs the numbers. nn__run is the only door: eager ops, backward, optimizers, fills and copies pass through it.
// =============================================================================================
static void nn__begin_call(nn_call *c, nn_context *nn, int op, const void *params)  // views are not cleared: set what you count
{
    c->op = nn__op(op);
    c->params = params;
    c->nn = nn;
    c->pass = NN_FORWARD;
    c->nin = c->nout = c->naux = 0;
    c->mode = (int)nn->mode;
    c->add = 0;
    c->seed = nn->seed;
    c->step = nn->random_step;
    c->ordinal = 0;
    c->phases = 1;
    c->tasks[0] = 1;
    c->cost = 0;
    c->shared_bytes = c->task_bytes = 0;
    c->shared = NULL;
}

// Plans: how many tasks for n independent items of `cost` multiply-adds each. Depends on shapes only.
static int64_t nn__task_count(int64_t n, int64_t cost)
{
    int64_t per = nn__max(1, 32768 / nn__max(1, cost)), tasks = (n + per - 1) / per;
    return nn__max(1, nn__min(tasks, NN__MAX_SLOTS));
}
static int64_t nn__share_of(int64_t n, int64_t i, int64_t count) { return i == 0 ? 0 : i == count ? n : n / count * i + nn__min(i, n % count); }
static int64_t nn__task_begin(int64_t n, const nn_task *t) { return nn__share_of(n, t->index, t->count); }
static int64_t nn__task_end(int64_t n, const nn_task *t)   { return nn__share_of(n, t->index + 1, t->count); }

// The same for items that belong together in units.
static int64_t nn__unit_begin(int64_t n, int64_t unit, const nn_task *t) { return nn__min(n, nn__task_begin((n + unit - 1) / unit, t) * unit); }
static int64_t nn__unit_end(int64_t n, int64_t unit, const nn_task *t)   { return nn__min(n, nn__task_end((n + unit - 1) / unit, t) * unit); }

typedef struct nn__job { const nn_call *c; nn_exec exec; int phase, slots; char *scratch; } nn__job;
static void nn__run_task(void *arg, int64_t index, int slot)         // two tasks at a time never have the same slot
{
    nn__job *j = (nn__job *)arg;
    nn_task t;
    nn__fpenv env = nn__fp_enter();
    t.phase = j->phase;
    t.index = index;
    t.count = j->c->tasks[j->phase];
    t.scratch = j->c->task_bytes ? j->scratch + (size_t)slot * nn__round_up(j->c->task_bytes) : NULL;
    j->exec(j->c, &t);
    nn__fp_leave(env);
}
static void nn__run_task_somewhere(void *arg, int64_t index)         // in a thread of the caller's: any free slot will do, as many run as there are
{
    nn__job *j = (nn__job *)arg;
    nn_context *nn = j->c->nn;
    int slot = 0;
    if (j->c->task_bytes) while (nn__atomic_exchange(&nn->slot[slot], 1)) if (++slot == j->slots) { slot = 0; nn__yield(); }
    nn__run_task(arg, index, slot);
    if (j->c->task_bytes) nn__atomic_store(&nn->slot[slot], 0);
}

// Work that is done sooner than a second core hears of it stays on this one. In elements read or written, unless the plan knows better.
enum { NN__SERIAL_COST = 32768 };
static int nn__is_small(const nn_call *c)
{
    int64_t cost = c->cost;
    int i, k;
    const nn_view *const list[5] = { c->in, c->out, c->aux, c->din, c->dout };
    const int count[5] = { c->nin, c->nout, c->naux, c->pass == NN_BACKWARD ? c->nin : 0, c->pass == NN_BACKWARD ? c->nout : 0 };
    for (k = 0; k < 5 && !c->cost; k++) for (i = 0; i < count[k] && cost < NN__SERIAL_COST; i++) if (list[k][i].data) cost += nn_view_count(&list[k][i]);
    return cost < NN__SERIAL_COST;
}
// All phases in this thread.
static void nn__run_alone(const nn_call *c, nn_exec exec, char *scratch)
{
    nn_task t;
    t.scratch = scratch;
    for (t.phase = 0; t.phase < c->phases; t.phase++)
        for (t.count = c->tasks[t.phase], t.index = 0; t.index < t.count; t.index++) exec(c, &t);
}
static void nn__run_phase(nn_context *nn, nn__job *j)
{
    int64_t tasks = j->c->tasks[j->phase];
    if (tasks < 2)                   { if (tasks) nn__run_task(j, 0, 0); }
    else if (nn->desc.parallel_for)  nn->desc.parallel_for(nn->desc.user, tasks, nn__run_task_somewhere, j);
    else                             nn__parallel(nn, tasks, nn__run_task, j);
}

static int nn__cpu_run(void *self, const nn_call *call)
{
    nn_context *nn = (nn_context *)self;
    nn_call *c = (nn_call *)(uintptr_t)call;             // the plan is ours to fill
    nn__mark m;
    nn__job j;
    int64_t most = 1;
    size_t bytes, place = 0;
    char *free_at;
    int i, freed, alone;
    if (c->op->plan) c->op->plan(c);
    if (c->op->id) j.exec = c->pass == NN_FORWARD ? nn->table->forward[c->op->id] : nn->table->backward[c->op->id];
    else           j.exec = c->pass == NN_FORWARD ? c->op->forward : c->op->backward;
    if (!j.exec) return 0;
    j.c = c;
    for (i = 0; i < c->phases; i++) most = nn__max(most, c->tasks[i]);
    alone = nn->threads == 1 || most < 2 || nn__is_small(c);
    j.slots = alone ? 1 : (int)nn__min(nn->threads, most);
    bytes = nn__round_up(c->shared_bytes) + (size_t)j.slots * nn__round_up(c->task_bytes);
    j.scratch = NULL;
    freed = bytes && nn->data_step == &nn->step_arena && nn__take_free(nn, bytes, &place, &j.scratch);
    if (bytes && !freed) m = nn__get_mark(nn);
    if (bytes && !freed) j.scratch = (char *)nn__arena_alloc(&nn->step_arena, bytes, 1);
    free_at = j.scratch;
    if (!nn->measuring && (j.scratch || !bytes)) {
        c->shared = j.scratch;
        if (j.scratch) j.scratch += nn__round_up(c->shared_bytes);
        if (alone) {
            nn__fpenv env = nn__fp_enter();
            nn__run_alone(c, j.exec, j.scratch);
            nn__fp_leave(env);
        }
        else for (j.phase = 0; j.phase < c->phases; j.phase++) nn__run_phase(nn, &j);
    }
    if (freed) nn__step_free(nn, free_at, place, bytes);
    else if (bytes) nn__rewind_memory(nn, &m);
    return 1;
}

NN_API int nn_run_on_cpu(const nn_call *c) { return nn__cpu_run(c->nn, c); }

// First and one past the last byte of a view.
static void nn__view_extent(const nn_view *v, const char **low, const char **high)
{
    int64_t e = (int64_t)nn_dtype_bytes((nn_dtype)v->dtype), below = 0, above = e;
    int i;
    for (i = 0; i < v->ndim; i++) {
        int64_t span = (v->shape[i] - 1) * v->stride[i] * e;
        if (span < 0) below += span; else above += span;
    }
    *low = (const char *)v->data + below;
    *high = (const char *)v->data + above;
}

// A call that the device cannot run: its memory is brought here, the CPU runs it, what it wrote goes back.
typedef struct nn__staged { nn_view *v; void *device; char *host; const char *low; size_t bytes; int write; } nn__staged;   // low: first byte there
static void nn__stage(nn_context *nn, nn__staged *s, nn_view *v, int write)
{
    const char *high;
    s->v = v; s->device = v->data; s->host = NULL; s->write = write;
    if (!v->data || nn_view_count(v) == 0) return;
    nn__view_extent(v, &s->low, &high);
    s->bytes = (size_t)(high - s->low);
    s->host = (char *)nn__host_step(nn, s->bytes);
    if (!s->host) return;
    if (!nn->backend->download(nn->backend->self, s->host, s->low, s->bytes)) nn_fail(nn, "%s: download failed", nn->backend->name);
    v->data = s->host + ((const char *)s->device - s->low);
}

static void nn__run_staged(nn_context *nn, nn_call *c)
{
    nn__staged s[2 * NN_MAX_INPUTS + 2 * NN_MAX_OUTPUTS + NN_MAX_AUX];
    nn__mark m = nn__get_mark(nn);
    int i, n = 0, back = c->pass == NN_BACKWARD, mutates = (c->op->flags & NN_OP_MUTATES) != 0;
    nn->fallbacks++;
    for (i = 0; i < c->nin; i++)          nn__stage(nn, &s[n++], &c->in[i], mutates);
    for (i = 0; i < c->nout; i++)         nn__stage(nn, &s[n++], &c->out[i], !back);
    for (i = 0; i < c->naux; i++)         nn__stage(nn, &s[n++], &c->aux[i], !back);
    for (i = 0; back && i < c->nin; i++)  nn__stage(nn, &s[n++], &c->din[i], 1);
    for (i = 0; back && i < c->nout; i++) nn__stage(nn, &s[n++], &c->dout[i], 0);
    if (nn_ok(nn) && !nn__cpu_run(nn, c)) nn_fail(nn, "%s: this op has no %s", c->op->name, back ? "backward" : "forward");
    for (i = 0; i < n; i++) {
        if (s[i].host && s[i].write && nn_ok(nn) && !nn->backend->upload(nn->backend->self, (char *)(uintptr_t)s[i].low, s[i].host, s[i].bytes))
            nn_fail(nn, "%s: upload failed", nn->backend->name);
        s[i].v->data = s[i].device;
    }
    nn__rewind_memory(nn, &m);
}

static void nn__run_unmeasured(nn_context *nn, nn_call *c)
{
    if (nn->failed && !nn->out_of_memory) return;
    if (nn->measuring && nn->backend != &nn->cpu) return;
    if (nn->record) nn__record_call(nn, c);
    if (nn->trace) nn__trace_call(nn, c);
    if (nn->backend->run(nn->backend->self, c)) return;
    if (nn->backend != &nn->cpu) nn__run_staged(nn, c);
    else nn_fail(nn, "%s: this op has no %s", c->op->name, c->pass == NN_FORWARD ? "forward" : "backward");
}

// ---- nn_profile: how long each op takes --------------------------------------------------------------------
typedef struct nn__op_time { const nn_op *op; int64_t calls; double seconds, flops, bytes; } nn__op_time;
struct nn__profile {
    double      started, seconds;    // since nn_profile(nn, 1), and until nn_profile(nn, 0)
    int         on;
    nn__op_time time[NN_OP_COUNT + NN__OWN_OPS][2];      // your own ops in the order of their first call, by pass; the last counts the rest
};

static double nn__view_bytes(const nn_view *v)           // what is repeated (stride 0) is one number
{
    double n = (double)nn_dtype_bytes((nn_dtype)v->dtype);
    int i;
    for (i = 0; i < v->ndim; i++) if (v->stride[i]) n *= (double)v->shape[i];
    return v->data ? n : 0;
}
static double nn__call_bytes(const nn_call *c)           // every view once
{
    double n = 0;
    int i, back = c->pass == NN_BACKWARD;
    for (i = 0; i < c->nin; i++)  n += nn__view_bytes(&c->in[i])  + (back ? nn__view_bytes(&c->din[i]) : 0);
    for (i = 0; i < c->nout; i++) n += nn__view_bytes(&c->out[i]) + (back ? nn__view_bytes(&c->dout[i]) : 0);
    for (i = 0; i < c->naux; i++) n += nn__view_bytes(&c->aux[i]);
    return n;
}
static double nn__call_flops(const nn_call *c)           // two per multiply-add of the formula; 0 where there is none to count
{
    const nn_view *x = &c->in[0], *w = &c->in[1], *y = &c->out[0];
    double n;
    switch (c->op->id) {
    case NN_OP_matmul:
    case NN_OP_linear: n = x->ndim ? (double)nn_view_count(y) * (double)x->shape[x->ndim - 1] : 0; break;
    case NN_OP_conv2d:           n = (double)nn_view_count(y) * (double)nn_view_count(w) / (double)nn__max(1, w->shape[0]); break;
    case NN_OP_conv_transpose2d: n = (double)nn_view_count(x) * (double)nn_view_count(w) / (double)nn__max(1, w->shape[0]); break;
    default: return 0;
    }
    return 2 * n * (c->pass == NN_FORWARD ? 1 : (c->din[0].data != NULL) + (c->din[1].data != NULL));
}

static void nn__run_measured(nn_context *nn, nn_call *c)
{
    nn__profile *p = nn->profile;
    int at = c->op->id ? c->op->id : NN_OP_COUNT, last = NN_OP_COUNT + NN__OWN_OPS - 1;
    double start = nn__seconds();
    nn__op_time *t;
    nn__run_unmeasured(nn, c);
    nn->backend->sync(nn->backend->self);
    while (at >= NN_OP_COUNT && at < last && p->time[at][c->pass].op && p->time[at][c->pass].op != c->op) at++;
    t = &p->time[at][c->pass];
    t->op = c->op;
    t->calls++;
    t->seconds += nn__seconds() - start;
    t->flops += nn__call_flops(c);
    t->bytes += nn__call_bytes(c);
}
static void nn__run(nn_context *nn, nn_call *c)
{
    if (nn->profile && nn->profile->on && !nn->measuring) nn__run_measured(nn, c);
    else nn__run_unmeasured(nn, c);
}

NN_API void nn_profile(nn_context *nn, int on)
{
    nn__profile *p;
    if (!nn) return;
    if (!nn->profile && on) nn->profile = (nn__profile *)nn__life(nn, sizeof *nn->profile);
    p = nn->profile;
    if (!p) return;
    if (on) {
        memset(p, 0, sizeof *p);
        p->started = nn__seconds();
    } else if (p->on) p->seconds = nn__seconds() - p->started;
    p->on = on != 0;
}

NN_API void nn_profile_print(nn_context *nn)
{
    nn__profile *p = nn ? nn->profile : NULL;
    nn__op_time *all = p ? &p->time[0][0] : NULL;
    double total = 0, elapsed;
    char shown[2 * (NN_OP_COUNT + NN__OWN_OPS)], flops[16], bytes[16];
    int i, best, count = (int)sizeof shown;
    if (!p) return;
    elapsed = p->on ? nn__seconds() - p->started : p->seconds;
    memset(shown, 0, sizeof shown);
    for (i = 0; i < count; i++) total += all[i].seconds;
    nn__log(nn, "%-22s %-8s %9s %11s %6s %11s %9s %8s\n", "op", "pass", "calls", "ms", "%", "us a call", "GFLOP/s", "GB/s");
    for (;;) {
        for (best = -1, i = 0; i < count; i++)
            if (all[i].calls && !shown[i] && (best < 0 || all[i].seconds > all[best].seconds)) best = i;
        if (best < 0) break;
        shown[best] = 1;
        flops[0] = bytes[0] = 0;
        if (all[best].flops > 0 && all[best].seconds > 0) snprintf(flops, sizeof flops, "%.1f", all[best].flops / all[best].seconds * 1e-9);
        if (all[best].bytes > 0 && all[best].seconds > 0) snprintf(bytes, sizeof bytes, "%.1f", all[best].bytes / all[best].seconds * 1e-9);
        nn__log(nn, "%-22s %-8s %9lld %11.3f %6.1f %11.2f %9s %8s\n", all[best].op->name, best % 2 ? "backward" : "forward", (long long)all[best].calls,
                1e3 * all[best].seconds, total > 0 ? 100 * all[best].seconds / total : 0.0, 1e6 * all[best].seconds / (double)all[best].calls, flops, bytes);
    }
    nn__log(nn, "%.3f ms in ops, %.3f ms in all\n", 1e3 * total, 1e3 * elapsed);
}

NN_API int64_t nn_fallbacks(const nn_context *nn) { return nn ? nn->fallbacks : 0; }

static void *nn__cpu_alloc(void *self, size_t bytes)                 { return nn__raw_alloc((nn_context *)self, bytes); }
static void  nn__cpu_free(void *self, void *memory, size_t bytes)    { (void)bytes; nn__raw_free((nn_context *)self, memory); }
static int   nn__cpu_copy(void *self, void *to, const void *from, size_t bytes) { (void)self; memmove(to, from, bytes); return 1; }
static int   nn__cpu_sync(void *self)                                { (void)self; return 1; }

static void nn__arena_init(nn__arena *a, nn_context *nn, int device, int top) { a->nn = nn; a->device = device; a->top = top; }

NN_API nn_context *nn_new(const nn_desc *desc)
{
    nn_desc d;
    nn_context *nn;
    char *at;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (d.memory) {
        at = (char *)(((uintptr_t)d.memory + NN__ALIGN - 1) & ~(uintptr_t)(NN__ALIGN - 1));
        if (d.bytes < (size_t)(at - (char *)d.memory) + nn__round_up(sizeof *nn)) return NULL;
    } else if (d.malloc) at = (char *)d.malloc(d.user, sizeof *nn);
#ifdef NN_MALLOC
    else at = (char *)NN_MALLOC(sizeof *nn);
#else
    else at = (char *)malloc(sizeof *nn);
#endif
    if (!at) return NULL;
    nn = (nn_context *)(void *)at;
    memset(nn, 0, sizeof *nn);
    nn->desc = d;
    nn->allocations = d.memory ? 0 : 1;
    nn->seed = d.seed;
    nn->step = 1;
    nn->measuring = d.measure;
    nn->inert.nn = nn;
    nn->inert.base = &nn->inert;
    nn->inert.flags = NN__T_INERT;
    nn->inert.ndim = 1;
    nn->inert.stride[0] = 1;
    nn->cpu.version = NN_BACKEND_VERSION;
    nn->cpu.name = "cpu";
    nn->cpu.self = nn;
    nn->cpu.alloc = nn__cpu_alloc;
    nn->cpu.free = nn__cpu_free;
    nn->cpu.upload = nn->cpu.download = nn->cpu.copy = nn__cpu_copy;
    nn->cpu.run = nn__cpu_run;
    nn->cpu.sync = nn__cpu_sync;
    nn->backend = d.backend ? d.backend : &nn->cpu;
    if (d.memory) {
        nn->buffer = at;
        nn->buffer_bytes = (d.bytes - (size_t)(at - (char *)d.memory)) & ~(size_t)(NN__ALIGN - 1);
        nn->lo = nn__round_up(sizeof *nn);
        nn->hi = nn->buffer_bytes;
    }
    nn__arena_init(&nn->life, nn, 0, 0);
    nn__arena_init(&nn->step_arena, nn, 0, 1);
    nn__arena_init(&nn->device_life, nn, 1, 0);
    nn__arena_init(&nn->device_step, nn, 1, 1);
    nn->data_life = d.backend ? &nn->device_life : &nn->life;
    nn->data_step = d.backend ? &nn->device_step : &nn->step_arena;
    nn__count_peak(nn);
    if (nn->backend->version != NN_BACKEND_VERSION) {
        nn_fail(nn, "%s: backend version %d, this nn.h wants %d", nn->backend->name, nn->backend->version, NN_BACKEND_VERSION);
        nn->backend = &nn->cpu;
    }
    nn->free_room = 32;
    nn->free_list = (nn__free_entry *)nn__life(nn, (size_t)nn->free_room * sizeof *nn->free_list);
    if (!nn->free_list) nn->free_room = 0;
    nn->threads = d.threads > 0 ? d.threads : nn__cores();
    if (nn->threads > NN__MAX_SLOTS) nn->threads = NN__MAX_SLOTS;
    if (!NN__HAVE_THREADS && !d.parallel_for) nn->threads = 1;
    if (nn->threads > 1 && !d.parallel_for) nn->pool = nn__pool_new(nn, nn->threads);
    nn->table = nn__find_table(d.isa, d.dtype);
    if (!nn->table) {
        nn_fail(nn, "nn_new: no kernels \"%s\" for %s on this machine", d.isa ? d.isa : "", nn_dtype_name(d.dtype));
        nn->table = nn__find_table("scalar", NN_F32);
        nn->desc.dtype = NN_F32;
    }
    return nn;
}

NN_API void nn_free(nn_context *nn)
{
    nn_desc d;
    if (!nn) return;
    while (nn->cleanups) {
        nn__cleanup *c = nn->cleanups;
        nn->cleanups = c->next;
        c->run(c->arg);
    }
    nn__arena_free(&nn->device_step);
    nn__arena_free(&nn->device_life);
    nn__arena_free(&nn->step_arena);
    nn__arena_free(&nn->life);
    if (nn->buffer) return;
    d = nn->desc;
    if (d.free) d.free(d.user, nn);
#ifdef NN_FREE
    else NN_FREE(nn);
#else
    else free(nn);
#endif
}

// ---- steps --------------------------------------------------------------------------------------
static void nn__save_leaf_grads(nn_context *nn)          // those that no optimizer has used yet outlive the step
{
    nn__leaf_grad *e;
    for (e = nn->leaf_grads; e; e = e->next) {
        nn_tensor *g = e->t->grad;
        nn_view from;
        if (g->step != nn->step || !(e->t->flags & NN__T_GRAD_SET)) continue;
        from = nn__view_of(g);
        if (nn->failed) { e->t->flags &= ~(unsigned)NN__T_GRAD_SET; continue; }      // whether it is complete is not known
        g->data = nn__arena_alloc(nn->data_life, (size_t)nn_count(g) * nn_dtype_bytes(nn->desc.dtype), 1);
        g->step = 0;
        if (g->data || nn->measuring) nn__copy_view(nn, nn__view_of(g), from);
    }
}

NN_API void nn_begin(nn_context *nn, nn_mode mode)
{
    nn__kept **k;
    if (!nn) return;
    nn__trace_refuse(nn, "it begins a step of its own");
    nn__save_leaf_grads(nn);
    nn->step += nn->step == UINT_MAX ? 2 : 1;            // 0 means "for life"
    nn->mode = mode;
    nn->depth = 0;
    nn->tape = NULL;
    nn->ordinal = 0;
    if (mode == NN_TRAIN) nn->random_step++;
    nn->free_count = 0;
    nn->step_extra = 0;
    nn->leaf_grads_live = 0;
    nn->node_left = 0;
    nn->chunk = NULL;
    if (!nn->failed) nn->measuring = nn->desc.measure;
    nn->hi = nn->buffer ? nn->buffer_bytes : 0;
    nn__arena_rewind(&nn->step_arena);
    if (nn->data_step != &nn->step_arena) nn__arena_rewind(nn->data_step);
    nn__rewind_heads(nn, 0);
    for (k = &nn->kept; *k;) {                           // what nn_keep carried over twice is free now
        nn__kept *e = *k;
        if (nn->step - e->step > 1) { *k = e->next; e->next = nn->kept_free; nn->kept_free = e; }
        else { e->t->step = nn->step; k = &e->next; }
    }
}

NN_API void nn_push(nn_context *nn, nn_mode mode)
{
    if (!nn) return;
    if (nn->depth == NN__MODES) { nn_fail(nn, "nn_push: nested more than %d deep", NN__MODES); return; }
    nn->modes[nn->depth++] = nn->mode;
    nn->mode = mode;
}

NN_API void nn_pop(nn_context *nn)
{
    if (!nn) return;
    if (nn->depth == 0) { nn_fail(nn, "nn_pop: there was no nn_push in this step"); return; }
    nn->mode = nn->modes[--nn->depth];
}

NN_API nn_mode nn_get_mode(const nn_context *nn) { return nn ? nn->mode : NN_EVAL; }

NN_API nn_tensor *nn_keep(nn_tensor *x)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__kept *e, **k;
    size_t bytes;
    nn_tensor *t;
    void *memory;
    if (!nn__check(nn, x, "nn_keep")) return nn__inert(nn);
    bytes = nn__round_up((size_t)nn_count(x) * nn_dtype_bytes((nn_dtype)x->dtype));
    for (k = &nn->kept_free; *k && (*k)->bytes < bytes; k = &(*k)->next) { }
    if (*k) { e = *k; *k = e->next; }
    else {
        e = (nn__kept *)nn__life(nn, sizeof *e);
        if (e) e->t = nn__new_head(nn, 1);
        if (!e || !e->t) return nn__inert(nn);
        e->bytes = bytes;
        e->memory = nn__arena_alloc(nn->data_life, bytes, 1);
        if (!e->memory && !nn->measuring) return nn__inert(nn);
    }
    t = e->t; memory = e->memory;
    memset(t, 0, sizeof *t);
    t->nn = nn; t->base = t; t->dtype = x->dtype; t->ndim = x->ndim; t->data = memory;
    t->step = e->step = nn->step;
    memcpy(t->shape, x->shape, sizeof t->shape);
    nn__row_major(t->ndim, t->shape, t->stride);
    e->next = nn->kept;
    nn->kept = e;
    nn__copy_view(nn, nn__view_of(t), nn__view_of(x));
    return t;
}

// =============================================================================================
// >>graph   Recording ops and walking the tape backwards.
//
// nn_apply runs an op at once. If a gradient may be wanted it also leaves a node: op, parameters, inputs, outputs. The nodes form a
// list from the newest to the oldest, which is a topological order, so nn_backward is one walk over it: for every node whose output
// has a gradient dy, call the op's backward, which assigns or adds dx to the gradient of each input that wants one (chain rule).
// The first writer of a gradient assigns, later ones add (c->add): no pass is spent on zeroing. A gradient of an intermediate result
// is freed as soon as the node that made the result has used it.
// =============================================================================================
static int nn__wants(const nn_tensor *t)                 // may a gradient flow into t?
{
    if (!t) return 0;
    if (t->flags & NN__T_PARAM) return !(t->flags & NN__T_FROZEN);
    return (t->flags & (NN__T_WANT_GRAD | NN__T_NEEDS_GRAD)) != 0;
}

static int nn__has_backward(nn_context *nn, const nn_op *op)
{
    if (op->flags & NN_OP_NO_GRAD) return 0;
    return op->id ? nn->table->backward[op->id] != NULL : op->backward != NULL;
}

static void nn__inert_outputs(nn_context *nn, int n, nn_tensor **out)
{
    int i;
    for (i = 0; i < n; i++) out[i] = nn__inert(nn);
}

static const nn_view nn__no_view = { NULL, { 0 }, { 0 }, 0, 0 };

// Checks inputs, makes them contiguous where the op needs that, fills the call's inputs.
static int nn__prepare_inputs(nn_context *nn, const nn_op *op, nn_tensor **in, int n, nn_call *c)
{
    int i;
    for (i = 0; i < n; i++) {
        if (!in[i] && (i == 0 || (op->flags & NN_OP_ALL_INPUTS))) { nn_fail(nn, "%s: input %d is NULL", op->name, i); return 0; }
        if (!in[i]) { c->in[i] = nn__no_view; continue; }
        if (!nn__check(nn, in[i], op->name)) return 0;
        if (!(op->flags & NN_OP_ANY_DTYPE) && in[i]->dtype != (int)nn->desc.dtype) {
            nn_fail(nn, "%s: input %d is %s, not %s (see nn_cast)", op->name, i, nn_dtype_name((nn_dtype)in[i]->dtype), nn_dtype_name(nn->desc.dtype));
            return 0;
        }
        if (!(op->flags & NN_OP_STRIDED) && !nn__contiguous_tensor(in[i])) {
            in[i] = nn_contiguous(in[i]);
            if (nn__dead(in[i])) return 0;
        }
        nn__view_into(&c->in[i], in[i]);
    }
    return 1;
}

// Heads and memory for results. A view op has already put its data pointer and strides into the call.
static nn_tensor *nn__result(nn_context *nn, nn_view *v, nn_tensor *view_of)
{
    nn_tensor *t;
    if (!view_of) {
        t = nn__alloc_tensor(nn, 0, (nn_dtype)v->dtype, v->ndim, v->shape);
        if (!nn__dead(t)) nn__view_into(v, t);
        return t;
    }
    t = nn__new_head(nn, 0);
    if (!t) return nn__inert(nn);
    t->data = v->data; t->ndim = v->ndim; t->dtype = v->dtype;
    memcpy(t->shape, v->shape, sizeof t->shape);
    memcpy(t->stride, v->stride, sizeof t->stride);
    t->base = view_of->base;
    return t;
}

static int nn__op_keeps(const nn_op *op, unsigned what) { return !op->keep || (op->keep & what); }

// An elementwise op may put its result where its input was, if only nn.h can see the input and nobody reads it again (nn->reuse).
static int nn__overwrites(nn_context *nn, const nn_op *op, const nn_tensor *x, const nn_view *y)
{
    return x && nn__same_sizes(y->ndim, y->shape, x->ndim, x->shape) && x == nn->reuse && !nn->hold && (op->flags & NN_OP_IN_PLACE) && x->base == x && x->step == nn->step && nn__contiguous_tensor(x)
        && !(x->flags & (NN__T_KEPT | NN__T_RELEASED | NN__T_WANT_GRAD)) && !nn__op_keeps(op, NN_KEEP_IN(0));
}

static nn_tensor *nn__take_storage(nn_context *nn, nn_tensor *x, nn_view *v)
{
    nn_tensor *t = nn__result(nn, v, x);
    if (nn__dead(t)) return t;
    t->base = t;
    t->data = v->data = x->data;
    t->place = x->place;
    x->data = NULL;
    x->flags |= NN__T_RELEASED;
    return t;
}

static void nn__record(nn_context *nn, const nn_call *c, nn_tensor **in, nn_tensor **out, nn_tensor **aux, unsigned need)
{
    int i, n = c->nin + c->nout + c->naux;
    size_t bytes = c->params ? c->op->params_bytes : 0;
    char *m = (char *)nn__node_room(nn, sizeof(nn_node) + (size_t)n * sizeof(nn_tensor *) + nn__round_up(bytes) + (size_t)(c->nin + c->nout) * sizeof(unsigned));
    nn_node *node = (nn_node *)(void *)m;
    if (!m) return;
    memset(node, 0, sizeof *node);
    m += sizeof *node;
    node->in = (nn_tensor **)(void *)m;   node->out = node->in + c->nin;   node->aux = node->out + c->nout;
    m += (size_t)n * sizeof(nn_tensor *);
    node->params = bytes ? m : NULL;
    if (bytes) memcpy(m, c->params, bytes);
    node->versions = (unsigned *)(void *)(m + nn__round_up(bytes));
    for (i = 0; i < c->nin; i++)  { node->in[i] = in[i];   node->versions[i] = in[i] ? in[i]->base->version : 0; }
    for (i = 0; i < c->nout; i++) { node->out[i] = out[i]; node->versions[c->nin + i] = out[i]->base->version; }
    for (i = 0; i < c->naux; i++) { node->aux[i] = aux[i]; aux[i]->flags |= NN__T_PRIVATE | NN__T_KEPT; }
    for (i = 0; i < c->nin; i++)  if (in[i] && nn__op_keeps(c->op, NN_KEEP_IN(i))) in[i]->base->flags |= NN__T_KEPT;
    for (i = 0; i < c->nout; i++) if (nn__op_keeps(c->op, NN_KEEP_OUT(i))) out[i]->base->flags |= NN__T_KEPT;
    node->op = c->op;
    node->nin = c->nin; node->nout = c->nout; node->naux = c->naux;
    node->need = need;
    node->mode = c->mode;
    node->ordinal = c->ordinal;
    node->step = nn->random_step;
    node->layer = nn->scope;
    node->prev = nn->tape;
    nn->tape = node;
    for (i = 0; i < c->nout; i++) {
        out[i]->node = node;
        out[i]->output = i;
        out[i]->flags |= NN__T_NEEDS_GRAD;
    }
}

NN_API nn_tensor *nn_apply_n(nn_context *nn, const nn_op *op, nn_tensor *const *inputs, int count, const void *params, nn_tensor **outputs)
{
    nn_call c;
    nn_tensor *in[NN_MAX_INPUTS], *own[NN_MAX_OUTPUTS], *aux[NN_MAX_AUX], **out = outputs ? outputs : own;
    unsigned need = 0;
    int i, record, overwrites, nout = op->outputs > 0 ? op->outputs : 1;
    for (i = 0; !nn && i < count; i++) if (inputs[i]) nn = inputs[i]->nn;
    nn__inert_outputs(nn, nout, out);
    if (!nn || (nn->failed && !nn->out_of_memory)) return out[0];
    if (count > NN_MAX_INPUTS) { nn_fail(nn, "%s: more than %d inputs", op->name, NN_MAX_INPUTS); return out[0]; }
    for (i = 0; i < count; i++) in[i] = inputs[i];
    nn__begin_call(&c, nn, op->id, params);
    c.op = op;
    c.nin = count;
    c.nout = nout;
    if (!nn__prepare_inputs(nn, op, in, count, &c)) return out[0];
    for (i = 0; i < nout; i++) { c.out[i].data = NULL; c.out[i].ndim = c.out[i].dtype = 0; }
    if (op->shape) { if (!op->shape(&c)) return out[0]; }
    else nn__like(&c.out[0], &c.in[0]);
    for (i = 0; i < count; i++) if (nn__wants(in[i])) need |= 1u << i;
    record = nn->mode == NN_TRAIN && need && nn__has_backward(nn, op);
    if (op->flags & NN_OP_RANDOM) c.ordinal = nn__ordinal(NN__DOMAIN_OP, nn->ordinal++);
    overwrites = nn__overwrites(nn, op, count ? in[0] : NULL, &c.out[0]);
    nn->reuse = NULL;
    for (i = 0; i < nout; i++) {
        out[i] = overwrites ? nn__take_storage(nn, in[0], &c.out[0]) : nn__result(nn, &c.out[i], (op->flags & NN_OP_VIEW) ? in[0] : NULL);
        if (nn__dead(out[i])) { nn__inert_outputs(nn, nout, out); return out[0]; }
    }
    for (i = 0; i < c.naux; i++) {   // only backward reads them
        c.aux[i].data = NULL;
        aux[i] = record ? nn__result(nn, &c.aux[i], NULL) : NULL;
        if (record && nn__dead(aux[i])) { nn__inert_outputs(nn, nout, out); return out[0]; }
    }
    if (!(op->flags & NN_OP_VIEW)) nn__run(nn, &c);
    if (record) nn__record(nn, &c, in, out, aux, need);
    return out[0];
}

NN_API nn_tensor *nn_apply(const nn_op *op, nn_tensor *const *inputs, const void *params)
{
    return nn_apply_n(NULL, op, inputs, op->inputs, params, NULL);
}

static nn_tensor *nn__apply1(int op, nn_tensor *x, const void *params)                  { return nn_apply_n(NULL, nn__op(op), &x, 1, params, NULL); }
static nn_tensor *nn__apply2(int op, nn_tensor *a, nn_tensor *b, const void *params)
{
    nn_tensor *in[2];
    in[0] = a; in[1] = b;
    return nn_apply_n(NULL, nn__op(op), in, 2, params, NULL);
}
static nn_tensor *nn__apply3(int op, nn_tensor *a, nn_tensor *b, nn_tensor *c, const void *params)
{
    nn_tensor *in[3];
    in[0] = a; in[1] = b; in[2] = c;
    return nn_apply_n(NULL, nn__op(op), in, 3, params, NULL);
}

NN_API nn_tensor *nn_detach(nn_tensor *x)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_tensor *t;
    if (!nn__check(nn, x, "nn_detach")) return nn__inert(nn);
    t = nn__new_head(nn, 0);
    if (!t) return nn__inert(nn);
    t->data = x->data; t->ndim = x->ndim; t->dtype = x->dtype; t->base = x->base;
    memcpy(t->shape, x->shape, sizeof t->shape);
    memcpy(t->stride, x->stride, sizeof t->stride);
    return t;
}

NN_API nn_tensor *nn_want_grad(nn_tensor *x)
{
    if (!x || nn__dead(x)) return x;
    if (!x->step) x->nn->changes++;
    x->flags |= NN__T_WANT_GRAD;
    return x;
}
NN_API nn_tensor *nn_grad(nn_tensor *x)
{
    if (!x || nn__dead(x) || !x->grad || !(x->flags & NN__T_GRAD_SET)) return NULL;
    x->grad->flags |= NN__T_PINNED;
    return x->grad;
}

// Memory for the gradient of t, in the context's real type whatever t holds: so backward kernels only know that type.
// Leaves (parameters) have the strides of t, so that optimizers see both alike; others are contiguous.
//
// A gradient lies in the step's memory, since an optimizer uses it up before the step ends. That of a leaf moves to memory of its own
// the first time that it is still wanted then: when gradients accumulate over steps.
static nn_tensor *nn__leaf_grad_head(nn_context *nn, nn_tensor *t)
{
    nn__leaf_grad *e = (nn__leaf_grad *)nn__life(nn, sizeof *e);
    nn_tensor *g = nn__new_head(nn, 1);
    if (!e || !g) return NULL;
    g->dtype = (int)nn->desc.dtype;
    g->ndim = t->ndim;
    memcpy(g->shape, t->shape, sizeof t->shape);
    memcpy(g->stride, t->stride, sizeof t->stride);
    g->step = nn->step - 1;          // it has no numbers yet
    e->t = t; e->next = nn->leaf_grads;
    nn->leaf_grads = e;
    return g;
}

static int nn__make_grad(nn_context *nn, nn_tensor *t)
{
    if (t->step) {
        if (t->grad) return 1;
        t->grad = nn__alloc_tensor(nn, 0, nn->desc.dtype, t->ndim, t->shape);
        if (nn__dead(t->grad)) { t->grad = NULL; return 0; }
    } else {
        if (!t->grad && !(t->grad = nn__leaf_grad_head(nn, t))) return 0;
        if (t->grad->step == 0 || t->grad->step == nn->step) return 1;
        t->grad->data = nn__step_data(nn, nn__storage_bytes(t->grad), &t->grad->place);
        if (!t->grad->data && !nn->measuring) return 0;
        t->grad->step = nn->step;
        t->grad->flags &= ~(unsigned)NN__T_PINNED;
        nn->leaf_grads_live = 1;
    }
    t->flags &= ~(unsigned)NN__T_GRAD_SET;
    return 1;
}

static size_t nn__storage_bytes(const nn_tensor *t) { return (size_t)nn_count(t) * nn_dtype_bytes((nn_dtype)t->dtype); }
static void nn__free_storage(nn_context *nn, nn_tensor *t) { nn__step_free(nn, t->data, t->place, nn__storage_bytes(t)); }

static void nn__drop_grad(nn_context *nn, nn_tensor *t)  // an intermediate gradient that has been used
{
    if (!t->grad || (t->flags & NN__T_WANT_GRAD) || !t->step) return;
    nn__free_storage(nn, t->grad);
    t->grad = NULL;
    t->flags &= ~(unsigned)NN__T_GRAD_SET;
}

// The numbers of results that only nn.h can see (NN__T_PRIVATE) go once nobody needs them: after the layer that used them where
// backward does not read them, else after the backward of the op that made them.
static void nn__release(nn_context *nn, nn_tensor *t)
{
    unsigned f = t->flags;
    if (!(f & NN__T_PRIVATE) || (f & NN__T_RELEASED) || t->base != t || t->step != nn->step || nn->hold) return;
    nn__free_storage(nn, t);
    t->data = NULL;
    t->flags |= NN__T_RELEASED;
}

static nn_view nn__kept_view(const nn_tensor *t, int kept)
{
    nn_view v = nn__view_of(t);
    if (!kept) v.data = NULL;
    return v;
}

// An elementwise op reads dy[i] only to write dx[i], input after input: the gradient of the last one may take the memory of dy.
static int nn__in_place(const nn_node *d, int retain)    // which input, or -1
{
    const nn_tensor *x, *y = d->out[0];
    int i = d->nin - 1, j;
    if (!(d->op->flags & NN_OP_IN_PLACE) || retain || !y->grad || (y->flags & NN__T_WANT_GRAD)) return -1;
    while (i > 0 && !(d->need & (1u << i))) i--;
    x = d->in[i];
    for (j = 0; j < i; j++) if (d->in[j] == x) return -1;
    return x && x->step && !x->grad && nn__same_sizes(y->ndim, y->shape, x->ndim, x->shape) ? i : -1;
}

static void nn__backward_part(nn_context *nn, nn_node *d, unsigned need, int reuse)    // the gradients of the inputs in `need`
{
    nn_call c;
    nn_tensor *twice[NN_MAX_INPUTS];                     // a tensor that is input twice gets its second gradient by way of a temporary
    int i, j;
    nn__begin_call(&c, nn, d->op->id, d->params);
    c.op = d->op;
    c.pass = NN_BACKWARD;
    c.mode = d->mode;
    c.ordinal = d->ordinal;
    c.step = d->step;
    c.nin = d->nin; c.nout = d->nout; c.naux = d->naux;
    for (i = 0; i < d->nin; i++) {
        nn_tensor *x = d->in[i];
        int kept = nn__op_keeps(d->op, NN_KEEP_IN(i));
        twice[i] = NULL;
        c.in[i] = nn__kept_view(x, kept);
        c.din[i] = c.in[i];
        c.din[i].data = NULL;
        if (x && kept && x->base->version != d->versions[i])
            nn_fail(nn, "%s: input %d was overwritten before backward could use it", d->op->name, i);
        if (!(need & (1u << i))) continue;
        if (i == reuse) x->grad = d->out[0]->grad;
        if (!nn__make_grad(nn, x)) return;
        for (j = 0; j < i; j++) if (d->in[j] == x && (need & (1u << j))) twice[i] = nn__alloc_tensor(nn, 0, nn->desc.dtype, x->ndim, x->shape);
        if (twice[i] && nn__dead(twice[i])) return;
    }
    for (i = 0; i < d->nout; i++) {                      // an output that was not used: its gradient is zero
        nn_tensor *y = d->out[i];
        if (y->flags & NN__T_GRAD_SET) continue;
        if (!nn__make_grad(nn, y)) return;
        nn__fill_view(nn, nn__view_of(y->grad), 0.0);
        y->flags |= NN__T_GRAD_SET;
    }
    for (i = 0; i < d->nin; i++) {                       // no memory is taken from here on: gradients stay where they are
        nn_tensor *x = d->in[i];
        if (!(need & (1u << i))) continue;
        c.din[i] = nn__view_of(twice[i] ? twice[i] : x->grad);
        if (nn->measuring) c.din[i].data = nn;           // plans see that it is wanted; nothing runs
        if (!twice[i] && (x->flags & NN__T_GRAD_SET)) c.add |= 1u << i;
        else if (!(d->op->flags & NN_OP_ASSIGNS)) { nn__fill_view(nn, c.din[i], 0.0); c.add |= 1u << i; }
        x->flags |= NN__T_GRAD_SET;
    }
    for (i = 0; i < d->nout; i++) {
        nn_tensor *y = d->out[i];
        c.out[i] = nn__kept_view(y, nn__op_keeps(d->op, NN_KEEP_OUT(i)));
        if (nn__op_keeps(d->op, NN_KEEP_OUT(i)) && y->base->version != d->versions[d->nin + i])
            nn_fail(nn, "%s: its result was overwritten before backward could use it", d->op->name);
        c.dout[i] = nn__view_of(y->grad);
    }
    for (i = 0; i < d->naux; i++) c.aux[i] = nn__view_of(d->aux[i]);
    nn__run(nn, &c);
    if (reuse >= 0) { d->out[0]->grad = NULL; d->out[0]->flags &= ~(unsigned)NN__T_GRAD_SET; }
    for (i = 0; i < d->nin; i++) if (twice[i]) {
        nn_call a;
        nn__begin_call(&a, nn, NN_OP_accumulate, NULL);
        a.nin = 1; a.nout = 1;
        a.in[0] = nn__view_of(twice[i]);
        a.out[0] = nn__view_of(d->in[i]->grad);
        nn__run(nn, &a);
        nn__free_storage(nn, twice[i]);
    }
}

typedef struct nn__slot nn__slot;                        // >>optim
static int  nn__clips_norm(const nn_optimizer *opt);
static void nn__updates_begin(nn_optimizer *opt, nn_node *tape);
static nn__slot *nn__fused_slot(nn_optimizer *opt, const nn_node *d);
static void nn__fused_update(nn_optimizer *opt, nn__slot *s, const nn_node *d);
static void nn__updates_after(nn_optimizer *opt, const nn_node *d);
static void nn__step_slots(nn_optimizer *opt, double clip_norm);
static void nn__backward_node(nn_context *nn, nn_node *d, int retain, nn_optimizer *step)          // step: updates as it goes, or NULL
{
    int i;
    nn__slot *fused = step ? nn__fused_slot(step, d) : NULL;
    unsigned need = fused ? d->need & ~2u : d->need, first = (d->op->flags & NN_OP_SPLIT) ? need & 1u : 0;
    if (first) nn__backward_part(nn, d, first, -1);
    if (need & ~first) nn__backward_part(nn, d, need & ~first, nn__in_place(d, retain));
    if (fused) nn__fused_update(step, fused, d);
    for (i = 0; i < d->nout; i++) nn__drop_grad(nn, d->out[i]);
    for (i = 0; i < d->naux && !retain; i++) nn__release(nn, d->aux[i]);
    for (i = 0; i < d->nout && !retain; i++) nn__release(nn, d->out[i]);      // the ops that used it have been walked
}

NN_API void nn_backward_with(nn_tensor *y, const nn_backward_desc *desc)
{
    nn_context *nn = y ? y->nn : NULL;
    nn_node *d;
    nn_optimizer *step = desc ? desc->step : NULL;
    int i, retain = desc && desc->retain, early;
    if (!nn || (!nn__check(nn, y, "nn_backward") && !nn->out_of_memory) || nn__dead(y)) return;
    if (!y->node) { nn_fail(nn, "nn_backward: the tensor has no history: was the step begun with NN_TRAIN, and does it depend on a parameter?"); return; }
    if (desc && desc->grad) {
        if (!nn__check(nn, desc->grad, "nn_backward")) return;
    } else if (nn_count(y) != 1) {
        nn_fail(nn, "nn_backward: the tensor has %lld elements; give .grad, or reduce it to one", (long long)nn_count(y));
        return;
    }
    for (d = y->node; d; d = d->prev)                    // gradients kept for reading since an earlier walk do not flow again
        for (i = 0; i < d->nout; i++) d->out[i]->flags &= ~(unsigned)NN__T_GRAD_SET;
    if (!nn__make_grad(nn, y)) return;
    if (desc && desc->grad) nn__copy_view(nn, nn__view_of(y->grad), nn__view_of(desc->grad));
    else nn__fill_view(nn, nn__view_of(y->grad), 1.0);
    y->flags |= NN__T_GRAD_SET;
    early = step && !nn__clips_norm(step);
    if (early) nn__updates_begin(step, y->node);
    for (d = y->node; d; d = d->prev) {
        int reached = 0;
        for (i = 0; i < d->nout; i++) reached |= (d->out[i]->flags & NN__T_GRAD_SET) != 0;
        if (reached) {
            if (d->consumed) { nn_fail(nn, "nn_backward: %s was walked before in this step (see .retain)", d->op->name); return; }
            nn__backward_node(nn, d, retain, early ? step : NULL);
            if (nn->failed && !nn->out_of_memory) return;
            d->consumed = !retain;
        }
        if (early) nn__updates_after(step, d);
    }
    if (early) nn__step_slots(step, 0);                  // gradients of earlier walks
    else if (step) nn_step(step);
}
NN_API void nn_backward(nn_tensor *y) { nn_backward_with(y, NULL); }

// ---- checking gradients against finite differences ---------------------------------------------------------
static double nn__loss_value(nn_context *nn, nn_loss_of loss, void *user, uint64_t random_step)
{
    nn->random_step = random_step;   // dropout draws the same mask every time
    nn_begin(nn, NN_TRAIN);
    return nn_item(loss(user));
}

// d loss / d x[i] by (f(x + h) - f(x - h)) / 2h, and by half the step. Their difference tells whether the slope can be trusted there.
static double nn__slope(nn_context *nn, nn_loss_of loss, void *user, uint64_t random_step, nn_tensor *x, double *v, int64_t i, double h, double *doubt)
{
    double keep = v[i], f[4], d[2];
    int j;
    for (j = 0; j < 4; j++) {
        v[i] = keep + (j % 2 ? -h : h) * (j < 2 ? 1.0 : 0.5);
        nn_write_as(x, NN_F64, v);
        f[j] = nn__loss_value(nn, loss, user, random_step);
    }
    v[i] = keep;
    nn_write_as(x, NN_F64, v);
    d[0] = (f[0] - f[1]) / (2 * h);
    d[1] = (f[2] - f[3]) / h;
    *doubt = fabs(d[0] - d[1]);
    return d[1];
}

static int nn__gradcheck_one(nn_context *nn, nn_loss_of loss, void *user, uint64_t random_step, nn_tensor *x, int which, const double *grad, double *v, const nn_gradcheck_desc *d)
{
    int64_t n = nn_count(x), step = nn__max(1, n / (d->samples > 0 ? d->samples : 32)), i;
    double largest = 0, doubt;
    if (!nn_read_as(x, NN_F64, v)) return 0;
    for (i = 0; i < n; i++) if (fabs(grad[i]) > largest) largest = fabs(grad[i]);
    for (i = 0; i < n; i += step) {
        double slope = nn__slope(nn, loss, user, random_step, x, v, i, d->eps, &doubt);
        if (!nn_ok(nn)) return 0;
        if (doubt > d->tolerance * (largest + 1e-3)) continue;       // a kink, as of relu at 0, lies within the step
        if (fabs(slope - grad[i]) <= d->tolerance * (largest + 1e-3)) continue;
        nn_fail(nn, "nn_gradcheck: tensor %d (%s), element %lld: gradient %g, finite difference %g", which, x->name ? x->name : "unnamed", (long long)i, grad[i], slope);
        return 0;
    }
    return 1;
}

NN_API int nn_gradcheck(nn_context *nn, nn_loss_of loss, void *user, nn_tensor *const *x, int n, const nn_gradcheck_desc *desc)
{
    nn_gradcheck_desc d;
    uint64_t random_step = nn ? nn->random_step : 0;
    int64_t most = 0, total = 0, at = 0;
    double *memory;
    int i, ok = 1;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (!nn_ok(nn)) return 0;
    if (d.eps == 0) d.eps = nn->desc.dtype == NN_F64 ? 1e-6 : 1e-2;
    if (d.tolerance == 0) d.tolerance = nn->desc.dtype == NN_F64 ? 1e-6 : 2e-2;
    for (i = 0; i < n; i++) {
        if (!nn__check(nn, x[i], "nn_gradcheck")) return 0;
        if (x[i]->step) { nn_fail(nn, "nn_gradcheck: tensor %d does not live long enough; make it with nn_tensor_new", i); return 0; }
        x[i]->flags &= ~(unsigned)NN__T_GRAD_SET;
        total += nn_count(x[i]);
        most = nn__max(most, nn_count(x[i]));
    }
    memory = (double *)nn__raw_alloc(nn, nn__mul_size((size_t)(total + most + 1), sizeof *memory));
    if (!memory) { nn__oom(nn, (size_t)(total + most + 1) * sizeof *memory); return 0; }
    nn->random_step = random_step;
    nn_begin(nn, NN_TRAIN);
    nn_backward(loss(user));
    for (i = 0; i < n && nn_ok(nn); i++) {
        memset(memory + most + at, 0, (size_t)nn_count(x[i]) * sizeof *memory);
        if (nn_grad(x[i])) nn_read_as(nn_grad(x[i]), NN_F64, memory + most + at);
        at += nn_count(x[i]);
    }
    for (i = 0, at = 0; i < n && ok && nn_ok(nn); i++) {
        ok = nn__gradcheck_one(nn, loss, user, random_step, x[i], i, memory + most + at, memory, &d);
        at += nn_count(x[i]);
    }
    for (i = 0; i < n; i++) x[i]->flags &= ~(unsigned)NN__T_GRAD_SET;
    nn__raw_free(nn, memory);
    nn->random_step = random_step;
    return ok && nn_ok(nn);
}

NN__SIMPLE_BEGIN
// =============================================================================================
// >>layers   A layer is parameters with local names, children, and a forward function. Full names come from walking up the parents.
// =============================================================================================
struct nn_layer {
    nn_context *nn;
    nn_layer   *parent, *child, *last_child, *next;      // children in order of creation
    const char *name;
    const char *kind;                // "Linear": for nn_summary
    nn_tensor **param;
    int         params, param_room;  // parameters and buffers, in order
    int         children, frozen;
    nn_tensor *(*forward)(void *self, nn_tensor *x);
    nn_tensor *(*step)(void *self, const nn_batch *batch);
    void       *self;
    int         user, release;       // forward is the user's; it keeps no tensor
    nn_fn       fn, activation;
    union { nn_conv_desc conv; nn_pool_desc pool; nn_norm_layer_desc norm; nn_linear_desc linear; nn_upsample_desc upsample; } desc;
    int64_t     size[4];             // channels, kernel and the like
    float       value;
    nn_shape    shape;               // what a layernorm or rmsnorm is for
    nn_shape    out;                 // of the last result, for nn_summary; ndim -1: none yet
    void       *extra;
};

static nn_layer nn__inert_layer;                         // only ever read: what constructors return after an error
static int       nn__no_layer(const nn_layer *l) { return !l || l == &nn__inert_layer; }
static nn_layer *nn__or_inert(nn_layer *l)       { return l ? l : &nn__inert_layer; }

static const char *nn__layer_name(const nn_layer *layer, char *to, size_t bytes)    // "h.0.attn"; "" for a root
{
    size_t n = 0;
    to[0] = 0;
    if (!layer || !layer->parent) return to;
    nn__layer_name(layer->parent, to, bytes);
    n = strlen(to);
    snprintf(to + n, bytes - n, n ? ".%s" : "%s", layer->name);
    return to;
}

static nn_layer *nn__new_layer(nn_context *nn, nn_layer *parent, const char *name, const char *kind, nn_tensor *(*forward)(void *, nn_tensor *))
{
    nn_layer *l, *c;
    char index[16];
    if (!nn_ok(nn) || parent == &nn__inert_layer) return NULL;
    l = (nn_layer *)nn__life(nn, sizeof *l);
    if (!l) return NULL;
    nn->changes++;
    snprintf(index, sizeof index, "%d", parent ? parent->children : 0);
    l->nn = nn;
    l->parent = parent;
    l->kind = kind;
    l->name = nn__copy_string(nn, name ? name : index);
    if (!l->name) return NULL;
    l->forward = forward;
    l->self = l;
    if (!parent) { l->next = nn->roots; nn->roots = l; return l; }
    for (c = parent->child; c; c = c->next)
        if (!strcmp(c->name, l->name)) { nn_fail(nn, "layer name \"%s\" is used twice below the same parent", l->name); return NULL; }
    if (!l->name[0]) { nn_fail(nn, "%s: a layer's name must not be empty; NULL gives it a number", kind); return NULL; }
    if (strchr(l->name, '.')) { nn_fail(nn, "layer name \"%s\" contains a dot; nest layers with nn_group_new", l->name); return NULL; }
    if (parent->last_child) parent->last_child->next = l; else parent->child = l;
    parent->last_child = l;
    parent->children++;
    return l;
}

static nn_tensor *nn__children_forward(void *self, nn_tensor *x);
static nn_tensor *nn__residual_forward(void *self, nn_tensor *x);
static nn_tensor *nn__fn_forward(void *self, nn_tensor *x);

static int nn__own_fn(nn_fn fn)                          // one of the functions above, not the user's, which might hold on to a tensor
{
#define NN__X(name, keep, f, df) nn_##name,
    static const nn_fn own[] = { NN_UNARY_OPS(NN__X) nn_global_avgpool };
#undef NN__X
    size_t i;
    for (i = 0; i < sizeof own / sizeof *own; i++) if (own[i] == fn) return 1;
    return 0;
}

static int nn__is_private(const nn_layer *l)             // can nobody else see the tensors that it is given and makes?
{
    const nn_layer *c;
    int children = l->forward == nn__children_forward || l->forward == nn__residual_forward;
    if (l->release) return 1;
    if (l->forward == nn__fn_forward) return nn__own_fn(l->fn);
    if (!children) return l->self == l && !l->user && (!l->activation || nn__own_fn(l->activation));
    for (c = l->child; c; c = c->next) if (!nn__is_private(c)) return 0;
    return 1;
}

static int nn__is_ours(const nn_layer *l)                // no callback of the user's in it
{
    const nn_layer *c;
    if (l->user || (l->fn && !nn__own_fn(l->fn)) || (l->activation && !nn__own_fn(l->activation))) return 0;
    for (c = l->child; c; c = c->next) if (!nn__is_ours(c)) return 0;
    return 1;
}

static nn__slab *nn__slab_at(nn_context *nn, int i)      // where tensor i of this step is: number i % NN__SLAB
{
    nn__slab *s = nn->slabs;
    for (; i >= NN__SLAB; i -= NN__SLAB) s = s->next;
    return s;
}
static nn_tensor *nn__next_head(nn__slab **s, int i)     // tensor i; *s is its slab, and then that of tensor i + 1
{
    nn_tensor *t = &(*s)->t[i % NN__SLAB];
    if (i % NN__SLAB == NN__SLAB - 1) *s = (*s)->next;
    return t;
}
static int nn__made_between(nn_context *nn, int from, int to, const nn_tensor *t)
{
    nn__slab *s = from < to ? nn__slab_at(nn, from) : NULL;
    int i;
    for (i = from; i < to; i++) if (nn__next_head(&s, i) == t) return 1;
    return 0;
}
static void nn__make_private(nn_context *nn, int from, const nn_tensor *but)         // the tensors since number `from`
{
    nn__slab *s = from < nn->tensors ? nn__slab_at(nn, from) : NULL;
    int i;
    for (i = from; i < nn->tensors; i++) {
        nn_tensor *t = nn__next_head(&s, i);
        if (t != but->base && !(t->flags & NN__T_WANT_GRAD)) t->flags |= NN__T_PRIVATE;
    }
}

// f(x), or x where f is NULL. Nobody reads x again: its memory may become that of the result.
static nn_tensor *nn__activate(nn_fn f, nn_tensor *x)
{
    nn_context *nn = x->nn;
    nn_tensor *y;
    if (!f) return x;
    if (nn__dead(x) || !nn__own_fn(f)) return f(x);
    x->flags |= NN__T_PRIVATE;
    nn->reuse = x;
    y = f(x);
    nn->reuse = NULL;
    return y;
}
static void nn__release_since(nn_context *nn, int from, const nn_tensor *but)
{
    nn__slab *s = from < nn->tensors ? nn__slab_at(nn, from) : NULL;
    int i;
    for (i = from; i < nn->tensors; i++) {
        nn_tensor *t = nn__next_head(&s, i);
        if (t != but->base && !(t->flags & NN__T_KEPT)) nn__release(nn, t);
    }
}

// In a row of layers nobody sees what one hands to the next. `from`: the first tensor that may still have to go.
static nn_tensor *nn__run_children(nn_layer *l, nn_tensor *x)
{
    nn_context *nn = l->nn;
    nn_layer *c;
    int from = nn->tensors, before = 0;
    for (c = l->child; c; c = c->next) {
        int start = nn->tensors, seen = !nn__is_private(c);
        nn_tensor *y;
        if (before && !seen && nn__made_between(nn, from, start, x->base)) x->base->flags |= NN__T_PRIVATE;
        if (seen) { x->base->flags &= ~(unsigned)NN__T_PRIVATE; before = 0; }
        nn->reuse = before && c->forward == nn__fn_forward && (x->flags & NN__T_PRIVATE) ? x : NULL;
        y = nn_forward(c, x);
        nn->reuse = NULL;
        if (nn__dead(y)) return y;
        if (!seen) nn__make_private(nn, start, y);
        nn__release_since(nn, from, y);
        if (nn__made_between(nn, start, nn->tensors, y->base)) { from = start; before = !seen; }
        x = y;
    }
    x->base->flags &= ~(unsigned)NN__T_PRIVATE;
    return x;
}
static nn_tensor *nn__children_forward(void *self, nn_tensor *x) { return nn__run_children((nn_layer *)self, x); }
static nn_tensor *nn__residual_forward(void *self, nn_tensor *x) { return nn_add(x, nn__run_children((nn_layer *)self, x)); }
static nn_tensor *nn__fn_forward(void *self, nn_tensor *x)       { return ((nn_layer *)self)->fn(x); }

NN_API nn_tensor *nn_forward(nn_layer *layer, nn_tensor *x)
{
    nn_layer *outer;
    nn_context *nn = x ? x->nn : NULL;
    int from;
    if (nn__no_layer(layer) || !nn__check(layer->nn, x, "nn_forward")) {
        if (nn && !nn->out_of_memory) return nn__inert(nn);
        if (nn__no_layer(layer) || nn__dead(x)) return nn__inert(nn);
    }
    outer = nn->scope;
    nn->scope = layer;
    from = nn ? nn->tensors : 0;
    x = layer->forward(layer->self, x);
    nn->scope = outer;
    if (!x) return nn__inert(nn);
    if (layer->release && !nn__dead(x)) {
        nn__make_private(nn, from, x);
        x->base->flags &= ~(unsigned)NN__T_PRIVATE;
        nn__release_since(nn, from, x);
    }
    layer->out.ndim = x->ndim;
    memcpy(layer->out.d, x->shape, sizeof x->shape);
    return x;
}

static nn_layer *nn__own_layer(nn_context *nn, nn_layer *parent, const char *name, const char *kind, const nn_layer_desc *desc)
{
    nn_layer *l = nn__new_layer(nn, parent, name, kind, desc && desc->forward ? desc->forward : nn__children_forward);
    if (l && desc) {
        l->step = desc->step;
        l->user = desc->forward != NULL;
        l->release = desc->forward && desc->release;
        if (desc->forward || desc->step) l->self = desc->forward ? desc->self : l;
        l->extra = desc->self;
    }
    return nn__or_inert(l);
}
static nn_context *nn__context_below(nn_layer *parent) { return nn__no_layer(parent) ? NULL : parent->nn; }

NN_API nn_context *nn_context_of(const nn_layer *layer)                         { return nn__no_layer(layer) ? NULL : layer->nn; }
NN_API nn_layer *nn_model_new(nn_context *nn, const nn_model_desc *desc)        { return nn__own_layer(nn, NULL, "", "Model", desc); }
NN_API nn_layer *nn_layer_new(nn_layer *parent, const char *name, const nn_layer_desc *desc) { return nn__own_layer(nn__context_below(parent), parent, name, "Layer", desc); }
NN_API nn_layer *nn_group_new(nn_layer *parent, const char *name)               { return nn_layer_new(parent, name, NULL); }
NN_API nn_layer *nn_residual_new(nn_layer *parent, const char *name)
{
    return nn__or_inert(nn__new_layer(nn__context_below(parent), parent, name, "Residual", nn__residual_forward));
}
NN_API nn_layer *nn_fn_new(nn_layer *parent, nn_fn fn)
{
    nn_layer *l;
    if (!fn) nn_fail(nn__context_below(parent), "nn_fn_new: the function is NULL");
    l = nn__new_layer(nn__context_below(parent), parent, NULL, "Function", nn__fn_forward);
    if (l) l->fn = fn;
    return nn__or_inert(l);
}

// Strides that put the input dimension outermost: how a (out, in) weight lies in memory, so that x W^T reads it row by row.
static void nn__input_major(nn_tensor *w) { w->stride[0] = 1; w->stride[1] = w->shape[0]; }

static nn_tensor *nn__add_param_as(nn_layer *l, const char *name, nn_dtype dtype, nn_shape shape, unsigned flags, int input_major)
{
    nn_context *nn = nn__context_below(l);
    nn_tensor *t;
    int i;
    if (!nn_ok(nn)) return nn__inert(nn);
    if (!name || !name[0]) { nn_fail(nn, "a parameter needs a name"); return nn__inert(nn); }
    for (i = 0; i < l->params; i++)
        if (!strcmp(l->param[i]->name, name)) { nn_fail(nn, "parameter name \"%s\" is used twice in one layer", name); return nn__inert(nn); }
    t = nn__alloc_tensor(nn, 1, dtype, shape.ndim, shape.d);
    if (nn__dead(t)) return t;
    if (input_major) nn__input_major(t);
    nn__fill_view(nn, nn__view_of(t), 0.0);
    t->flags |= flags;
    t->layer = l;
    t->name = nn__copy_string(nn, name);
    if (l->params == l->param_room) {
        nn_tensor **more = (nn_tensor **)nn__life(nn, (size_t)(2 * l->params + 2) * sizeof *more);
        if (!more) return nn__inert(nn);
        if (l->params) memcpy(more, l->param, (size_t)l->params * sizeof *more);
        l->param = more;
        l->param_room = 2 * l->params + 2;
    }
    if (!t->name) return nn__inert(nn);
    l->param[l->params++] = t;
    return t;
}
static nn_tensor *nn__add_param(nn_layer *l, const char *name, nn_shape shape, unsigned flags, int input_major)
{
    return nn__no_layer(l) ? nn__inert(NULL) : nn__add_param_as(l, name, l->nn->desc.dtype, shape, flags, input_major);
}
NN_API nn_tensor *nn_param_new(nn_layer *layer, const char *name, nn_shape shape)  { return nn__add_param(layer, name, shape, NN__T_PARAM, 0); }
NN_API nn_tensor *nn_buffer_new(nn_layer *layer, const char *name, nn_shape shape) { return nn__add_param(layer, name, shape, NN__T_BUFFER, 0); }

// ---- walking the tree: depth first, parameters of a layer before its children, as PyTorch's state_dict -----
typedef int (*nn__visit)(nn_tensor *t, void *arg);       // 0 stops the walk
static int nn__walk(nn_layer *l, unsigned flags, nn__visit visit, void *arg)
{
    nn_layer *c;
    int i;
    if (nn__no_layer(l)) return 1;
    for (i = 0; i < l->params; i++) if ((l->param[i]->flags & flags) && !visit(l->param[i], arg)) return 0;
    for (c = l->child; c; c = c->next) if (!nn__walk(c, flags, visit, arg)) return 0;
    return 1;
}

typedef struct nn__listing { nn_tensor **list; int max, n; int64_t count; } nn__listing;
static int nn__list_one(nn_tensor *t, void *arg)
{
    nn__listing *l = (nn__listing *)arg;
    if (l->list && l->n < l->max) l->list[l->n] = t;
    l->n++;
    l->count += nn_count(t);
    return 1;
}
static nn__listing nn__list(nn_layer *layer, unsigned flags, nn_tensor **list, int max)
{
    nn__listing l;
    l.list = list; l.max = max; l.n = 0; l.count = 0;
    nn__walk(layer, flags, nn__list_one, &l);
    return l;
}
NN_API int     nn_params(nn_layer *layer, nn_tensor **list, int max)  { return nn__list(layer, NN__T_PARAM, list, max).n; }
NN_API int     nn_buffers(nn_layer *layer, nn_tensor **list, int max) { return nn__list(layer, NN__T_BUFFER, list, max).n; }
NN_API int64_t nn_param_count(nn_layer *layer)                        { return nn__list(layer, NN__T_PARAM, NULL, 0).count; }

NN_API size_t nn_name(const nn_tensor *param, const nn_layer *below, char *to, size_t bytes)
{
    char layer[256], base[256];
    const char *from = layer;
    if (bytes) to[0] = 0;
    if (!param || !param->name) return 0;
    nn__layer_name(param->layer, layer, sizeof layer);
    if (below) {                     // both names start at the root: cut the common front off
        size_t n = strlen(nn__layer_name(below, base, sizeof base));
        if (n && !strncmp(layer, base, n)) from = layer + n + (layer[n] == '.');
    }
    return (size_t)snprintf(to, bytes, from[0] ? "%s.%s" : "%s%s", from, param->name);
}

typedef struct nn__search { const nn_layer *below; const char *path; nn_tensor *found; } nn__search;
static int nn__match_name(nn_tensor *t, void *arg)
{
    nn__search *s = (nn__search *)arg;
    char name[256];
    nn_name(t, s->below, name, sizeof name);
    if (!strcmp(name, s->path)) s->found = t;
    return !s->found;
}
NN_API nn_tensor *nn_param(nn_layer *layer, const char *path)
{
    nn__search s;
    if (!path) return NULL;
    s.below = layer; s.path = path; s.found = NULL;
    nn__walk(layer, NN__T_PARAM | NN__T_BUFFER, nn__match_name, &s);
    return s.found;
}

NN_API nn_layer *nn_child(nn_layer *layer, const char *path)
{
    nn_layer *c;
    size_t n = path ? strcspn(path, ".") : 0;
    if (nn__no_layer(layer) || !path) return NULL;
    if (!path[0]) return layer;
    for (c = layer->child; c; c = c->next)
        if (strlen(c->name) == n && !strncmp(c->name, path, n)) return path[n] ? nn_child(c, path + n + 1) : c;
    return NULL;
}

NN_API void nn_freeze_param(nn_tensor *param, int on)
{
    if (!param || nn__dead(param)) return;
    param->nn->changes++;
    if (on) param->flags |= NN__T_FROZEN; else param->flags &= ~(unsigned)NN__T_FROZEN;
}
NN_API void nn_freeze(nn_layer *layer, int on)
{
    nn_layer *c;
    int i;
    if (nn__no_layer(layer)) return;
    layer->frozen = on;
    layer->nn->changes++;
    for (i = 0; i < layer->params; i++) nn_freeze_param(layer->param[i], on);
    for (c = layer->child; c; c = c->next) nn_freeze(c, on);
}

static int nn__clear_grad(nn_tensor *t, void *arg) { (void)arg; t->flags &= ~(unsigned)NN__T_GRAD_SET; return 1; }   // the next writer assigns
NN_API void nn_zero_grad(nn_layer *layer)          { nn__walk(layer, NN__T_PARAM, nn__clear_grad, NULL); }

// ---- initialisers -------------------------------------------------------------------------------------
typedef struct nn__random_params { int kind; double a, b, low, high; } nn__random_params;
enum { NN__UNIFORM, NN__NORMAL, NN__TRUNC_NORMAL };
static void nn__randomize(nn_context *nn, nn_view to, uint64_t step, uint64_t ordinal, int kind, double a, double b, double low, double high)
{
    nn__random_params p;
    nn_call c;
    p.kind = kind; p.a = a; p.b = b; p.low = low; p.high = high;
    nn__begin_call(&c, nn, NN_OP_random, &p);
    c.nout = 1;
    c.out[0] = to;
    c.step = step;
    c.ordinal = ordinal;
    nn__run(nn, &c);
}
static void nn__init(nn_tensor *w, int kind, double a, double b, double low, double high)
{
    if (!w || !nn__check(w->nn, w, "nn_init")) return;
    w->base->version++;
    nn__randomize(w->nn, nn__view_of(w), 0, nn__ordinal(NN__DOMAIN_INIT, w->nn->inits++), kind, a, b, low, high);
}
NN_API void nn_init_constant(nn_tensor *w, float value)
{
    if (!w || !nn__check(w->nn, w, "nn_init_constant")) return;
    w->base->version++;
    nn__fill_view(w->nn, nn__view_of(w), (double)value);
}
NN_API void nn_init_uniform(nn_tensor *w, float low, float high)
{
    if (w && !(low <= high)) nn_fail(w->nn, "nn_init_uniform: %g..%g is not a range", (double)low, (double)high);
    nn__init(w, NN__UNIFORM, (double)low, (double)high, 0, 0);
}
NN_API void nn_init_normal(nn_tensor *w, float mean, float std)
{
    if (w && !(std >= 0)) nn_fail(w->nn, "nn_init_normal: the standard deviation is %g", (double)std);
    nn__init(w, NN__NORMAL, (double)mean, (double)std, 0, 0);
}
NN_API void nn_init_trunc_normal(nn_tensor *w, float mean, float std, float low, float high)
{
    if (w && !(std >= 0)) nn_fail(w->nn, "nn_init_trunc_normal: the standard deviation is %g", (double)std);
    if (w && !(low <= high)) nn_fail(w->nn, "nn_init_trunc_normal: %g..%g is not a range", (double)low, (double)high);
    nn__init(w, NN__TRUNC_NORMAL, (double)mean, (double)std, (double)low, (double)high);
}

NN__FLOAT_BEGIN
// How many numbers a result of w is summed from, and how many results an input goes to: w is (O, I, K ...) with K ... the kernel.
static int nn__fans(nn_tensor *w, const char *op, double *in, double *out)
{
    double kernel;
    if (!w || !nn__check(w->nn, w, op)) return 0;
    if (w->ndim < 2) { nn_fail(w->nn, "%s: a tensor needs two dimensions to have a fan-in, not %s", op, nn__dims_text(w->ndim, w->shape).s); return 0; }
    if (nn_count(w) == 0) return 0;
    kernel = (double)nn_count(w) / (double)w->shape[0] / (double)w->shape[1];
    *in = (double)w->shape[1] * kernel;
    *out = (double)w->shape[0] * kernel;
    return 1;
}
// Of that standard deviation: a uniform distribution on -s..s has the variance s^2 / 3.
static void nn__init_std(nn_tensor *w, double std, int uniform)
{
    double s = uniform ? sqrt(3.0) * std : std;
    nn__init(w, uniform ? NN__UNIFORM : NN__NORMAL, uniform ? -s : 0, s, 0, 0);
}
static void nn__init_xavier(nn_tensor *w, float gain, int uniform, const char *op)      // std^2 = gain^2 2 / (fan_in + fan_out)
{
    double in, out;
    if (nn__fans(w, op, &in, &out)) nn__init_std(w, fabs((double)gain) * sqrt(2.0 / (in + out)), uniform);
}
static void nn__init_kaiming(nn_tensor *w, float slope, int uniform, const char *op)    // std^2 = 2 / (1 + slope^2) / fan_in
{
    double in, out;
    if (nn__fans(w, op, &in, &out)) nn__init_std(w, sqrt(2.0 / (1.0 + (double)slope * (double)slope) / in), uniform);
}
NN_API void nn_init_xavier_uniform (nn_tensor *w, float gain)   { nn__init_xavier(w, gain, 1, "nn_init_xavier_uniform"); }
NN_API void nn_init_xavier_normal  (nn_tensor *w, float gain)   { nn__init_xavier(w, gain, 0, "nn_init_xavier_normal"); }
NN_API void nn_init_kaiming_uniform(nn_tensor *w, float slope)  { nn__init_kaiming(w, slope, 1, "nn_init_kaiming_uniform"); }
NN_API void nn_init_kaiming_normal (nn_tensor *w, float slope)  { nn__init_kaiming(w, slope, 0, "nn_init_kaiming_normal"); }

static double nn__dot(int64_t n, const double *a, const double *b)     // four sums: one would wait for every addition
{
    double s[4] = { 0, 0, 0, 0 };
    int64_t i, j;
    for (i = 0; i + 4 <= n; i += 4) for (j = 0; j < 4; j++) s[j] += a[i + j] * b[i + j];
    for (; i < n; i++) s[0] += a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}
// Gram-Schmidt on n vectors of `length` numbers. A second round removes what rounding left of the first ("twice is enough").
static void nn__orthonormalize(int64_t n, int64_t length, double *v)
{
    int64_t i, j, k;
    int round;
    for (i = 0; i < n; i++) {
        double *a = v + i * length, norm;
        for (round = 0; round < 2; round++)
            for (j = 0; j < i; j++) {
                const double *b = v + j * length;
                double d = nn__dot(length, a, b);
                for (k = 0; k < length; k++) a[k] -= d * b[k];
            }
        norm = sqrt(nn__dot(length, a, a));
        for (k = 0; norm > 0 && k < length; k++) a[k] /= norm;
    }
}
// w as a matrix of shape[0] rows gets orthonormal rows, or columns if there are fewer of them, times gain.
NN_API void nn_init_orthogonal(nn_tensor *w, float gain)
{
    nn_context *nn = w ? w->nn : NULL;
    int64_t rows, columns, n, i, j;
    double *a, *v;
    nn__mark m;
    if (!w || !nn__check(nn, w, "nn_init_orthogonal")) return;
    if (w->ndim < 2) { nn_fail(nn, "nn_init_orthogonal: the tensor needs two dimensions, not %s", nn__dims_text(w->ndim, w->shape).s); return; }
    n = nn_count(w);
    if (n == 0) return;
    rows = w->shape[0];
    columns = n / rows;
    nn_init_normal(w, 0, 1);
    m = nn__get_mark(nn);
    a = (double *)nn__host_step(nn, nn__mul_size((size_t)n, 2 * sizeof *a));
    if (a && nn_read_as(w, NN_F64, a)) {
        v = rows > columns ? a + n : a;
        if (v != a) for (i = 0; i < rows; i++) for (j = 0; j < columns; j++) v[j * rows + i] = a[i * columns + j];
        nn__orthonormalize(nn__min(rows, columns), nn__max(rows, columns), v);
        if (v != a) for (i = 0; i < rows; i++) for (j = 0; j < columns; j++) a[i * columns + j] = v[j * rows + i];
        for (i = 0; i < n; i++) a[i] *= (double)gain;
        nn_write_as(w, NN_F64, a);
    }
    nn__rewind(nn, &m);
}
NN__FLOAT_END

// ---- the layers: options are checked, parameters made as PyTorch makes them; forward calls the op of the same name --------------
static int nn__positive(nn_layer *parent, const char *kind, const char *name, const char *what, int64_t value)
{
    if (value > 0) return 1;
    nn_fail(nn__context_below(parent), "%s%s%s: %s must be positive, not %lld", kind, name ? " " : "", name ? name : "", what, (long long)value);
    return 0;
}
static int nn__not_negative(nn_layer *parent, const char *kind, const char *name, const char *what, int64_t value)   // NN_ZERO is fine
{
    return value == 0 || value == NN_ZERO || nn__positive(parent, kind, name, what, value);
}
static int nn__divides(nn_layer *parent, const char *kind, const char *name, int64_t groups, int64_t channels)
{
    if (channels % groups == 0) return 1;
    nn_fail(nn__context_below(parent), "%s%s%s: %lld groups do not divide %lld channels", kind, name ? " " : "", name ? name : "", (long long)groups, (long long)channels);
    return 0;
}
static nn_layer *nn__leaf(nn_layer *parent, const char *name, const char *kind, nn_tensor *(*forward)(void *, nn_tensor *))
{
    return nn__new_layer(nn__context_below(parent), parent, name, kind, forward);
}
static nn_layer *nn__finished(nn_layer *l)               // a layer without all of its parameters is none: it leaves the tree
{
    nn_layer **at, *before = NULL;
    if (!l || nn_ok(l->nn)) return nn__or_inert(l);
    for (at = &l->parent->child; *at != l; at = &(*at)->next) before = *at;
    *at = NULL;
    l->parent->last_child = before;
    l->parent->children--;
    return nn__or_inert(NULL);
}
static nn_tensor *nn__param_at(const nn_layer *l, int i, int64_t params) { return i < params ? l->param[i] : NULL; }

static nn_tensor *nn__linear_forward(void *self, nn_tensor *x)
{
    nn_layer *l = (nn_layer *)self;
    return nn_linear(x, l->param[0], nn__param_at(l, 1, l->desc.linear.no_bias ? 1 : 2), &l->desc.linear);
}

// PyTorch's default for weight and bias: kaiming_uniform with slope sqrt(5), which is uniform in +- 1 / sqrt(fan_in).
static void nn__weight_and_bias(nn_layer *l, nn_shape weight, int64_t out, double fan_in, int no_bias, int input_major)
{
    float bound = (float)(1.0 / sqrt(fan_in));
    nn_init_uniform(nn__add_param(l, "weight", weight, NN__T_PARAM, input_major), -bound, bound);
    if (!no_bias) nn_init_uniform(nn__add_param(l, "bias", nn__shape1(out), NN__T_PARAM, 0), -bound, bound);
}

NN_API nn_layer *nn_linear_new(nn_layer *parent, const char *name, int64_t in, int64_t out, const nn_linear_desc *desc)
{
    nn_layer *l;
    if (!nn__positive(parent, "Linear", name, "in", in) || !nn__positive(parent, "Linear", name, "out", out)) return nn__or_inert(NULL);
    l = nn__leaf(parent, name, "Linear", nn__linear_forward);
    if (!l) return nn__or_inert(NULL);
    if (desc) { l->desc.linear = *desc; l->activation = desc->activation; }
    l->size[0] = in; l->size[1] = out;
    nn__weight_and_bias(l, nn__shape2(out, in), out, (double)in, l->desc.linear.no_bias, 1);
    return nn__finished(l);
}

// ---- convolution layers --------------------------------------------------------------------------------
// Weights are (out, in / groups, kernel), transposed ones (in, out / groups, kernel). PyTorch takes the second size times the kernel
// for the fan-in of both, though a transposed convolution sums over in / groups.
static nn_layer *nn__conv_layer(nn_layer *parent, const char *name, const char *kind, nn_tensor *(*forward)(void *, nn_tensor *), int dims, int transposed,
                                int64_t in, int64_t out, int kernel, const nn_conv_desc *desc)
{
    nn_conv_desc d;
    nn_layer *l;
    nn_shape w;
    double fan_in;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (!d.groups) d.groups = 1;
    if (!nn__positive(parent, kind, name, "in", in) || !nn__positive(parent, kind, name, "out", out) || !nn__positive(parent, kind, name, "kernel", kernel) ||
        !nn__positive(parent, kind, name, "kernel_w", d.kernel_w ? d.kernel_w : kernel) || !nn__positive(parent, kind, name, "groups", d.groups) ||
        !nn__positive(parent, kind, name, "stride", d.stride ? d.stride : 1) || !nn__positive(parent, kind, name, "stride_w", d.stride_w ? d.stride_w : 1) ||
        !nn__positive(parent, kind, name, "dilation", d.dilation ? d.dilation : 1) || !nn__positive(parent, kind, name, "dilation_w", d.dilation_w ? d.dilation_w : 1) ||
        !nn__not_negative(parent, kind, name, "padding", d.padding) || !nn__not_negative(parent, kind, name, "padding_w", d.padding_w) ||
        !nn__not_negative(parent, kind, name, "output_padding", d.output_padding) || !nn__not_negative(parent, kind, name, "output_padding_w", d.output_padding_w) ||
        !nn__divides(parent, kind, name, d.groups, in) || !nn__divides(parent, kind, name, d.groups, out)) return nn__or_inert(NULL);
    l = nn__leaf(parent, name, kind, forward);
    if (!l) return nn__or_inert(NULL);
    memset(&w, 0, sizeof w);
    w.ndim = 2 + dims;
    w.d[0] = transposed ? in : out;
    w.d[1] = (transposed ? out : in) / d.groups;
    w.d[2] = kernel;
    w.d[3] = d.kernel_w ? d.kernel_w : kernel;
    fan_in = (double)w.d[1] * (double)w.d[2] * (dims == 2 ? (double)w.d[3] : 1.0);
    l->desc.conv = d;
    l->activation = d.activation;
    nn__weight_and_bias(l, w, out, fan_in, d.no_bias, 0);
    return nn__finished(l);
}
#define NN__CONV_LAYER(name, kind, dims, transposed)                                                                              \
    static nn_tensor *nn__##name##_forward(void *self, nn_tensor *x)                                                              \
    {                                                                                                                             \
        nn_layer *l = (nn_layer *)self;                                                                                           \
        return nn_##name(x, l->param[0], nn__param_at(l, 1, l->desc.conv.no_bias ? 1 : 2), &l->desc.conv);                        \
    }                                                                                                                             \
    NN_API nn_layer *nn_##name##_new(nn_layer *parent, const char *layer, int64_t in, int64_t out, int kernel, const nn_conv_desc *desc) \
    {                                                                                                                             \
        return nn__conv_layer(parent, layer, kind, nn__##name##_forward, dims, transposed, in, out, kernel, desc);                \
    }
NN__CONV_LAYER(conv1d,           "Conv1d",          1, 0)
NN__CONV_LAYER(conv2d,           "Conv2d",          2, 0)
NN__CONV_LAYER(conv_transpose1d, "ConvTranspose1d", 1, 1)
NN__CONV_LAYER(conv_transpose2d, "ConvTranspose2d", 2, 1)
#undef NN__CONV_LAYER

// ---- normalisation layers --------------------------------------------------------------------------------
// size[0] channels (0: any), size[1] how many of weight and bias there are, size[2] groups; batch statistics follow weight and bias
static nn_layer *nn__norm_layer(nn_layer *parent, const char *name, const char *kind, nn_tensor *(*forward)(void *, nn_tensor *), int64_t channels,
                                nn_shape shape, const nn_norm_layer_desc *desc, int affine, int bias)
{
    nn_layer *l;
    int i;
    if (shape.ndim < 1 || shape.ndim > NN_MAX_DIMS) {
        nn_fail(nn__context_below(parent), "%s%s%s: the shape to normalise has %d dimensions", kind, name ? " " : "", name ? name : "", shape.ndim);
        return NULL;
    }
    for (i = 0; i < shape.ndim; i++) if (!nn__positive(parent, kind, name, strcmp(kind, "LayerNorm") ? "channels" : "a size", shape.d[i])) return nn__or_inert(NULL);
    l = nn__leaf(parent, name, kind, forward);
    if (!l) return NULL;
    if (desc) { l->desc.norm = *desc; l->activation = desc->activation; }
    l->size[0] = channels;
    l->shape = shape;
    if (affine) {
        nn_init_constant(nn__add_param(l, "weight", shape, NN__T_PARAM, 0), 1.0f);
        if (bias) nn__add_param(l, "bias", shape, NN__T_PARAM, 0);
        l->size[1] = 1 + bias;
    }
    return l;
}
static int nn__affine(const nn_norm_layer_desc *desc) { return !desc || !desc->no_affine; }
static int nn__biased(const nn_norm_layer_desc *desc) { return !desc || !desc->no_bias; }

static int nn__input_fits(const nn_layer *l, const nn_tensor *x)     // weights would tell, but there may be none
{
    const nn_shape *s = &l->shape;
    if (!nn__check(l->nn, x, l->kind)) return 0;
    if (l->size[0] && (x->ndim < 2 || x->shape[1] != l->size[0])) {
        nn_fail(l->nn, "%s: x must be (B, %lld, ...), not %s", l->kind, (long long)l->size[0], nn__dims_text(x->ndim, x->shape).s);
        return 0;
    }
    if (!l->size[0] && (x->ndim < s->ndim || memcmp(x->shape + x->ndim - s->ndim, s->d, (size_t)s->ndim * sizeof *s->d))) {
        nn_fail(l->nn, "%s: x %s does not end in %s", l->kind, nn__dims_text(x->ndim, x->shape).s, nn__dims_text(s->ndim, s->d).s);
        return 0;
    }
    return 1;
}
static nn_tensor *nn__batchnorm(nn_tensor *x, nn_tensor *w, nn_tensor *b, nn_tensor *mean, nn_tensor *var, nn_tensor *tracked, const nn_batchnorm_desc *desc);
static nn_tensor *nn__batchnorm_forward(void *self, nn_tensor *x)
{
    nn_layer *l = (nn_layer *)self;
    int n = (int)l->size[1], stats = !l->desc.norm.no_stats;
    if (!nn__input_fits(l, x)) return NULL;
    return nn__batchnorm(x, nn__param_at(l, 0, n), nn__param_at(l, 1, n), stats ? l->param[n] : NULL, stats ? l->param[n + 1] : NULL,
                         stats ? l->param[n + 2] : NULL, &l->desc.norm);
}
static nn_tensor *nn__layernorm_forward(void *self, nn_tensor *x)
{
    nn_layer *l = (nn_layer *)self;
    return nn__input_fits(l, x) ? nn_layernorm(x, l->shape.ndim, nn__param_at(l, 0, l->size[1]), nn__param_at(l, 1, l->size[1]), &l->desc.norm) : NULL;
}
static nn_tensor *nn__groupnorm_forward(void *self, nn_tensor *x)
{
    nn_layer *l = (nn_layer *)self;
    return nn__input_fits(l, x) ? nn_groupnorm(x, (int)l->size[2], nn__param_at(l, 0, l->size[1]), nn__param_at(l, 1, l->size[1]), &l->desc.norm) : NULL;
}
static nn_tensor *nn__instancenorm_forward(void *self, nn_tensor *x)
{
    nn_layer *l = (nn_layer *)self;
    return nn__input_fits(l, x) ? nn_instancenorm(x, nn__param_at(l, 0, l->size[1]), nn__param_at(l, 1, l->size[1]), &l->desc.norm) : NULL;
}
static nn_tensor *nn__rmsnorm_forward(void *self, nn_tensor *x)
{
    nn_layer *l = (nn_layer *)self;
    return nn__input_fits(l, x) ? nn_rmsnorm(x, nn__param_at(l, 0, l->size[1]), &l->desc.norm) : NULL;
}

NN_API nn_layer *nn_batchnorm_new(nn_layer *parent, const char *name, int64_t channels, const nn_batchnorm_desc *desc)
{
    nn_layer *l = nn__norm_layer(parent, name, "BatchNorm", nn__batchnorm_forward, channels, nn__shape1(channels), desc, nn__affine(desc), nn__biased(desc));
    nn_shape scalar;
    if (nn__no_layer(l) || l->desc.norm.no_stats) return nn__finished(nn__no_layer(l) ? NULL : l);
    memset(&scalar, 0, sizeof scalar);
    nn__add_param(l, "running_mean", nn__shape1(channels), NN__T_BUFFER, 0);
    nn_init_constant(nn__add_param(l, "running_var", nn__shape1(channels), NN__T_BUFFER, 0), 1.0f);
    nn__add_param_as(l, "num_batches_tracked", NN_I64, scalar, NN__T_BUFFER, 0);
    return nn__finished(l);
}
NN_API nn_layer *nn_layernorm_new(nn_layer *parent, const char *name, nn_shape shape, const nn_layernorm_desc *desc)
{
    nn_layer *l = nn__norm_layer(parent, name, "LayerNorm", nn__layernorm_forward, 0, shape, desc, nn__affine(desc), nn__biased(desc));
    return nn__finished(nn__no_layer(l) ? NULL : l);
}
NN_API nn_layer *nn_groupnorm_new(nn_layer *parent, const char *name, int groups, int64_t channels, const nn_groupnorm_desc *desc)
{
    nn_layer *l;
    if (!nn__positive(parent, "GroupNorm", name, "groups", groups) || !nn__divides(parent, "GroupNorm", name, groups, channels)) return nn__or_inert(NULL);
    l = nn__norm_layer(parent, name, "GroupNorm", nn__groupnorm_forward, channels, nn__shape1(channels), desc, nn__affine(desc), nn__biased(desc));
    if (nn__no_layer(l)) return nn__or_inert(NULL);
    l->size[2] = groups;
    return nn__finished(l);
}
NN_API nn_layer *nn_instancenorm_new(nn_layer *parent, const char *name, int64_t channels, const nn_instancenorm_desc *desc)
{
    nn_layer *l = nn__norm_layer(parent, name, "InstanceNorm", nn__instancenorm_forward, channels, nn__shape1(channels), desc,
                                 desc && desc->affine && !desc->no_affine, nn__biased(desc));
    return nn__finished(nn__no_layer(l) ? NULL : l);
}
NN_API nn_layer *nn_rmsnorm_new(nn_layer *parent, const char *name, int64_t channels, const nn_rmsnorm_desc *desc)
{
    nn_layer *l = nn__norm_layer(parent, name, "RMSNorm", nn__rmsnorm_forward, 0, nn__shape1(channels), desc, nn__affine(desc), 0);
    return nn__finished(nn__no_layer(l) ? NULL : l);
}

// ---- embedding -------------------------------------------------------------------------------------------
static nn_tensor *nn__embedding_forward(void *self, nn_tensor *x) { return nn_embedding(x, ((nn_layer *)self)->param[0]); }
NN_API nn_layer *nn_embedding_new(nn_layer *parent, const char *name, int64_t count, int64_t channels)
{
    nn_layer *l;
    if (!nn__positive(parent, "Embedding", name, "count", count) || !nn__positive(parent, "Embedding", name, "channels", channels)) return nn__or_inert(NULL);
    l = nn__leaf(parent, name, "Embedding", nn__embedding_forward);
    if (!l) return nn__or_inert(NULL);
    nn_init_normal(nn__add_param(l, "weight", nn__shape2(count, channels), NN__T_PARAM, 0), 0, 1);
    return nn__finished(l);
}

// ---- layers without parameters ---------------------------------------------------------------------------
#define NN__POOL_LAYER(name, kind)                                                                                                \
    static nn_tensor *nn__##name##_forward(void *self, nn_tensor *x)                                                              \
    {                                                                                                                             \
        nn_layer *l = (nn_layer *)self;                                                                                           \
        return nn_##name(x, (int)l->size[0], &l->desc.pool);                                                                      \
    }                                                                                                                             \
    NN_API nn_layer *nn_##name##_new(nn_layer *parent, int kernel, const nn_pool_desc *desc)                                      \
    {                                                                                                                             \
        return nn__pool_layer(parent, kind, nn__##name##_forward, kernel, desc);                                                  \
    }
static nn_layer *nn__pool_layer(nn_layer *parent, const char *kind, nn_tensor *(*forward)(void *, nn_tensor *), int kernel, const nn_pool_desc *desc)
{
    nn_layer *l;
    if (!nn__positive(parent, kind, NULL, "kernel", kernel)) return nn__or_inert(NULL);
    if (desc && (!nn__positive(parent, kind, NULL, "kernel_w", desc->kernel_w ? desc->kernel_w : kernel) ||
                 !nn__positive(parent, kind, NULL, "stride", desc->stride ? desc->stride : 1) || !nn__positive(parent, kind, NULL, "stride_w", desc->stride_w ? desc->stride_w : 1) ||
                 !nn__positive(parent, kind, NULL, "dilation", desc->dilation ? desc->dilation : 1) ||
                 !nn__positive(parent, kind, NULL, "dilation_w", desc->dilation_w ? desc->dilation_w : 1) ||
                 !nn__not_negative(parent, kind, NULL, "padding", desc->padding) || !nn__not_negative(parent, kind, NULL, "padding_w", desc->padding_w)))
        return nn__or_inert(NULL);
    l = nn__leaf(parent, NULL, kind, forward);
    if (!l) return nn__or_inert(NULL);
    if (desc) l->desc.pool = *desc;
    l->size[0] = kernel;
    return l;
}
NN__POOL_LAYER(maxpool1d, "MaxPool1d")
NN__POOL_LAYER(maxpool2d, "MaxPool2d")
NN__POOL_LAYER(avgpool1d, "AvgPool1d")
NN__POOL_LAYER(avgpool2d, "AvgPool2d")
#undef NN__POOL_LAYER

static nn_tensor *nn__adaptive_avgpool2d_forward(void *self, nn_tensor *x)
{
    const nn_layer *l = (const nn_layer *)self;
    return nn_adaptive_avgpool2d(x, l->size[0], l->size[1]);
}
NN_API nn_layer *nn_adaptive_avgpool2d_new(nn_layer *parent, int64_t height, int64_t width)
{
    nn_layer *l;
    if (!nn__positive(parent, "AdaptiveAvgPool2d", NULL, "height", height) || !nn__positive(parent, "AdaptiveAvgPool2d", NULL, "width", width)) return nn__or_inert(NULL);
    l = nn__leaf(parent, NULL, "AdaptiveAvgPool2d", nn__adaptive_avgpool2d_forward);
    if (l) { l->size[0] = height; l->size[1] = width; }
    return nn__or_inert(l);
}

static nn_tensor *nn__upsample_forward(void *self, nn_tensor *x)     // (B, C, H, W), or (B, C, L), whose height is 1
{
    const nn_layer *l = (const nn_layer *)self;
    int64_t h, w, scale = l->size[0];
    if (x->ndim != 3 && x->ndim != 4) { nn_fail(l->nn, "Upsample: x must be (B, C, H, W) or (B, C, L), not %s", nn__dims_text(x->ndim, x->shape).s); return NULL; }
    h = x->ndim == 4 ? x->shape[2] : 1;
    w = x->shape[x->ndim - 1];
    if (h > INT64_MAX / scale || w > INT64_MAX / scale) { nn_fail(l->nn, "Upsample: %lld times %s is too large", (long long)scale, nn__dims_text(x->ndim, x->shape).s); return NULL; }
    return nn_upsample(x, x->ndim == 4 ? h * scale : 1, w * scale, &l->desc.upsample);
}
NN_API nn_layer *nn_upsample_new(nn_layer *parent, int scale, const nn_upsample_desc *desc)
{
    nn_layer *l;
    if (!nn__positive(parent, "Upsample", NULL, "scale", scale)) return nn__or_inert(NULL);
    l = nn__leaf(parent, NULL, "Upsample", nn__upsample_forward);
    if (!l) return nn__or_inert(NULL);
    if (desc) l->desc.upsample = *desc;
    l->size[0] = scale;
    return l;
}

static nn_tensor *nn__softmax_forward(void *self, nn_tensor *x)    { return nn_softmax(x, (int)((nn_layer *)self)->size[0]); }
NN_API nn_layer *nn_softmax_new(nn_layer *parent, int dim)
{
    nn_layer *l = nn__leaf(parent, NULL, "Softmax", nn__softmax_forward);
    if (l) l->size[0] = dim;
    return nn__or_inert(l);
}
static nn_tensor *nn__dropout_forward(void *self, nn_tensor *x)    { return nn_dropout(x, ((nn_layer *)self)->value); }
static nn_tensor *nn__dropout2d_forward(void *self, nn_tensor *x)  { return nn_dropout2d(x, ((nn_layer *)self)->value); }
static nn_tensor *nn__flatten_forward(void *self, nn_tensor *x)    { (void)self; return nn_flatten(x, 1); }
static nn_tensor *nn__leaky_relu_forward(void *self, nn_tensor *x) { return nn_leaky_relu(x, ((nn_layer *)self)->value); }
static nn_layer *nn__value_layer(nn_layer *parent, const char *kind, nn_tensor *(*forward)(void *, nn_tensor *), float value)
{
    nn_layer *l = nn__leaf(parent, NULL, kind, forward);
    if (l) l->value = value;
    return nn__or_inert(l);
}
static int nn__probability(nn_layer *parent, const char *kind, float p)
{
    if (p >= 0 && p <= 1) return 1;
    nn_fail(nn__context_below(parent), "%s: the probability is %g, not in 0..1", kind, (double)p);
    return 0;
}
NN_API nn_layer *nn_dropout_new(nn_layer *parent, float p)
{
    return nn__probability(parent, "Dropout", p) ? nn__value_layer(parent, "Dropout", nn__dropout_forward, p) : nn__or_inert(NULL);
}
NN_API nn_layer *nn_dropout2d_new(nn_layer *parent, float p)
{
    return nn__probability(parent, "Dropout2d", p) ? nn__value_layer(parent, "Dropout2d", nn__dropout2d_forward, p) : nn__or_inert(NULL);
}
NN_API nn_layer *nn_flatten_new(nn_layer *parent)                 { return nn__value_layer(parent, "Flatten", nn__flatten_forward, 0); }
NN_API nn_layer *nn_leaky_relu_new(nn_layer *parent, float slope) { return nn__value_layer(parent, "LeakyReLU", nn__leaky_relu_forward, slope); }

// ---- nn_summary: the net runs once without computing (only shapes, as under nn_desc.measure), then the tree is printed ------------
static void nn__forget_outputs(nn_layer *l)
{
    nn_layer *c;
    l->out.ndim = -1;
    for (c = l->child; c; c = c->next) nn__forget_outputs(c);
}
static nn_layer *nn__first_with_params(nn_layer *l)
{
    nn_layer *c, *found = l->params ? l : NULL;
    for (c = l->child; c && !found; c = c->next) found = nn__first_with_params(c);
    return found;
}
static void nn__measure_forward(nn_layer *l, nn_shape input)         // leaves l->out; memory, random state and peaks as they were
{
    nn_context *nn = l->nn;
    nn_layer *first = nn__first_with_params(l);
    nn_dtype dtype = first && !strcmp(first->kind, "Embedding") ? NN_I64 : nn->desc.dtype;
    nn__mark m = nn__get_mark(nn);
    uint64_t ordinal = nn->ordinal;
    size_t peak = nn->peak, step = nn->step_arena.peak, device = nn->device_step.peak;
    int measuring = nn->measuring, free_count = nn->free_count;
    nn->measuring = 1;
    nn->free_count = 0;
    nn->hold = 1;
    nn_push(nn, NN_EVAL);
    nn_forward(l, nn__alloc_tensor(nn, 0, dtype, input.ndim, input.d));
    nn_pop(nn);
    nn->measuring = measuring || nn->out_of_memory;
    nn->hold = 0;
    nn->free_count = free_count;
    nn->ordinal = ordinal;
    nn__rewind(nn, &m);
    nn->peak = peak; nn->step_arena.peak = step; nn->device_step.peak = device;
    nn__count_peak(nn);              // tensor heads stay
}
static void nn__with_commas(int64_t n, char *to)         // 421642 -> "421,642"; to has 32 bytes
{
    char digits[24];
    int i, count = snprintf(digits, sizeof digits, "%lld", (long long)n);
    for (i = 0; i < count; i++) {
        if (i && (count - i) % 3 == 0) *to++ = ',';
        *to++ = digits[i];
    }
    *to = 0;
}
static void nn__summary_row(nn_layer *l, int depth)
{
    nn_layer *c;
    char count[32] = "", name[96];
    int64_t n = 0;
    int i;
    for (i = 0; i < l->params; i++) if (l->param[i]->flags & NN__T_PARAM) n += nn_count(l->param[i]);
    if (n) nn__with_commas(n, count);
    snprintf(name, sizeof name, "%*s%s", depth < 20 ? 2 * depth : 40, "", l->name);
    nn__log(l->nn, "%-28s %-18s %-22s %14s\n", name, l->kind, l->out.ndim < 0 ? "not run" : nn__dims_text(l->out.ndim, l->out.d).s, count);
    for (c = l->child; c; c = c->next) nn__summary_row(c, depth + 1);
}
typedef struct nn__sizes { int64_t params, frozen, buffers; double param_bytes, buffer_bytes; } nn__sizes;
static int nn__add_sizes(nn_tensor *t, void *arg)
{
    nn__sizes *s = (nn__sizes *)arg;
    double bytes = (double)nn_count(t) * (double)nn_dtype_bytes((nn_dtype)t->dtype);
    if (t->flags & NN__T_BUFFER) { s->buffers += nn_count(t); s->buffer_bytes += bytes; return 1; }
    s->params += nn_count(t);
    s->param_bytes += bytes;
    if (t->flags & NN__T_FROZEN) s->frozen += nn_count(t);
    return 1;
}
NN_API void nn_summary(nn_layer *layer, nn_shape input)
{
    nn_context *nn = nn__context_below(layer);
    nn__sizes s;
    char params[32], frozen[32], buffers[32];
    if (!nn_ok(nn)) return;
    nn__forget_outputs(layer);
    nn__measure_forward(layer, input);
    nn__log(nn, "%-28s %-18s %-22s %14s\n", "layer", "kind", "output", "parameters");
    nn__summary_row(layer, 0);
    memset(&s, 0, sizeof s);
    nn__walk(layer, NN__T_PARAM | NN__T_BUFFER, nn__add_sizes, &s);
    nn__with_commas(s.params, params);
    nn__with_commas(s.frozen, frozen);
    nn__with_commas(s.buffers, buffers);
    nn__log(nn, "%s parameters (%.1f KB), %s frozen; %s numbers in buffers (%.1f KB)\n", params, s.param_bytes / 1024, frozen, buffers, s.buffer_bytes / 1024);
}

// =============================================================================================
// >>optim   An optimizer is one update op per parameter: (p, g, states) -> (p, states), run by the backend like every op. A table
// says which options an optimizer reads, its defaults and its states; the formulas are in >>ops, "parameter updates".
// =============================================================================================
enum { NN__LR, NN__MOMENTUM, NN__DAMPENING, NN__NESTEROV, NN__BETA1, NN__BETA2, NN__ALPHA, NN__EPS, NN__WEIGHT_DECAY, NN__MOMENTUM_DECAY,
       NN__LR_DECAY, NN__CENTERED, NN__AMSGRAD, NN__CLIP_NORM, NN__CLIP_VALUE, NN__OPTIONS, NN__ALWAYS };
static const struct { const char *name; size_t at; int whole; } nn__optimizer_fields[NN__OPTIONS] = {      // in the order of the enum
    { "lr",           offsetof(nn_optimizer_desc, lr), 0 },           { "momentum",       offsetof(nn_optimizer_desc, momentum), 0 },
    { "dampening",    offsetof(nn_optimizer_desc, dampening), 0 },    { "nesterov",       offsetof(nn_optimizer_desc, nesterov), 1 },
    { "beta1",        offsetof(nn_optimizer_desc, beta1), 0 },        { "beta2",          offsetof(nn_optimizer_desc, beta2), 0 },
    { "alpha",        offsetof(nn_optimizer_desc, alpha), 0 },        { "eps",            offsetof(nn_optimizer_desc, eps), 0 },
    { "weight_decay", offsetof(nn_optimizer_desc, weight_decay), 0 }, { "momentum_decay", offsetof(nn_optimizer_desc, momentum_decay), 0 },
    { "lr_decay",     offsetof(nn_optimizer_desc, lr_decay), 0 },     { "centered",       offsetof(nn_optimizer_desc, centered), 1 },
    { "amsgrad",      offsetof(nn_optimizer_desc, amsgrad), 1 },      { "clip_norm",      offsetof(nn_optimizer_desc, clip_norm), 0 },
    { "clip_value",   offsetof(nn_optimizer_desc, clip_value), 0 } };

enum { NN__SGD, NN__RMSPROP, NN__ADAGRAD, NN__ADAM, NN__ADAMW, NN__NADAM, NN__LION, NN__OPTIMIZERS };
enum { NN__MAX_STATES = 3 };
typedef struct nn__optimizer_kind {
    const char *name;
    int         op;
    unsigned    reads;               // bits of options, besides lr, weight_decay and clipping
    double      lr, beta1, beta2, eps, weight_decay;     // defaults
    struct { const char *name; int if_set; } state[NN__MAX_STATES];  // kept if that option is not zero
} nn__optimizer_kind;
#define NN__O(name) (1u << NN__##name)
static const nn__optimizer_kind nn__optimizers[NN__OPTIMIZERS] = {
    { "sgd",     NN_OP_sgd_update,     NN__O(MOMENTUM) | NN__O(DAMPENING) | NN__O(NESTEROV),               0.01,  0,   0,     0,     0,
                 { { "momentum_buffer", NN__MOMENTUM }, { NULL, 0 }, { NULL, 0 } } },
    { "rmsprop", NN_OP_rmsprop_update, NN__O(ALPHA) | NN__O(EPS) | NN__O(MOMENTUM) | NN__O(CENTERED),      0.01,  0,   0,     1e-8,  0,
                 { { "square_avg", NN__ALWAYS }, { "momentum_buffer", NN__MOMENTUM }, { "grad_avg", NN__CENTERED } } },
    { "adagrad", NN_OP_adagrad_update, NN__O(LR_DECAY) | NN__O(EPS),                                       0.01,  0,   0,     1e-10, 0,
                 { { "sum", NN__ALWAYS }, { NULL, 0 }, { NULL, 0 } } },
    { "adam",    NN_OP_adam_update,    NN__O(BETA1) | NN__O(BETA2) | NN__O(EPS) | NN__O(AMSGRAD),          0.001, 0.9, 0.999, 1e-8,  0,
                 { { "exp_avg", NN__ALWAYS }, { "exp_avg_sq", NN__ALWAYS }, { "max_exp_avg_sq", NN__AMSGRAD } } },
    { "adamw",   NN_OP_adam_update,    NN__O(BETA1) | NN__O(BETA2) | NN__O(EPS) | NN__O(AMSGRAD),          0.001, 0.9, 0.999, 1e-8,  0.01,
                 { { "exp_avg", NN__ALWAYS }, { "exp_avg_sq", NN__ALWAYS }, { "max_exp_avg_sq", NN__AMSGRAD } } },
    { "nadam",   NN_OP_nadam_update,   NN__O(BETA1) | NN__O(BETA2) | NN__O(EPS) | NN__O(MOMENTUM_DECAY),   0.002, 0.9, 0.999, 1e-8,  0,
                 { { "exp_avg", NN__ALWAYS }, { "exp_avg_sq", NN__ALWAYS }, { NULL, 0 } } },
    { "lion",    NN_OP_lion_update,    NN__O(BETA1) | NN__O(BETA2),                                        1e-4,  0.9, 0.99,  0,     0,
                 { { "exp_avg", NN__ALWAYS }, { NULL, 0 }, { NULL, 0 } } } };

// What an update needs besides tensors. Several optimizers share a name: decay1 is momentum or beta1, decay2 is alpha or beta2.
typedef struct nn__update_params {
    double lr, weight_decay, shrink, decay1, rest1, decay2, rest2, eps, correct, lr_grad, clip_value;
    int    momentum, nesterov, first, centered, amsgrad, far1;       // far1: the weight of a running mean is at least 1/2
    int    op;                       // NN_OP_sgd_update ..., for linear_update
} nn__update_params;

// A checkpoint holds: steps; per group lr and initial_lr; per slot its states (NULL: not in use) and its steps.
struct nn__slot {
    nn_tensor *p, *state[NN__MAX_STATES];                // the states' names are their tensor's name
    int        group;
    int64_t    steps;                // updates of this parameter: PyTorch's state["step"]
    nn_node   *last;                 // while nn_backward walks: the last node that has to do with the parameter,
    int        uses;                 // and how many there are
    double     product;              // nadam: product of its momentum factors up to product_step; follows from steps
    int64_t    product_step;
};
typedef struct nn__group { double lr, initial_lr, option[NN__OPTIONS]; } nn__group;
struct nn_optimizer {
    nn_context *nn;
    nn_layer   *layer;
    const nn__optimizer_kind *kind;
    nn__slot   *slot;
    int         slots, slot_room, states;                // states: at most so many per slot
    nn__group  *group;
    int         groups, group_room, scheduled;
    int64_t     steps;
    nn_tensor  *squares, *clip;      // one sum of squares per slot; joint norm and scale
};

// A float option was written in decimal: 0.9f is 0.89999998, but 0.9 was meant, and that is what Python would compute with.
static double nn__as_written(float f)
{
    char text[48];
    int digits;
    for (digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        if ((float)strtod(text, NULL) == f) return strtod(text, NULL);
    }
    return (double)f;
}
// 0 means the default, NN_ZERO means 0.
static double nn__option(float value, double normal)
{
    return value == 0 ? normal : value == (float)NN_ZERO ? 0 : nn__as_written(value);
}

static int nn__read_options(nn_context *nn, const nn__optimizer_kind *kind, const nn_optimizer_desc *desc, nn__group *g, int added)
{
    unsigned reads = kind->reads | NN__O(LR) | NN__O(WEIGHT_DECAY) | NN__O(CLIP_VALUE) | (added ? 0 : NN__O(CLIP_NORM));
    double *o = g->option;
    int i, whole;
    float value;
    for (i = 0; desc && i < NN__OPTIONS; i++) {
        const char *at = (const char *)desc + nn__optimizer_fields[i].at;
        if (nn__optimizer_fields[i].whole) { memcpy(&whole, at, sizeof whole); value = (float)whole; }
        else memcpy(&value, at, sizeof value);
        if (value == 0) continue;
        if (!(reads >> i & 1)) {
            if (i == NN__CLIP_NORM) nn_fail(nn, "nn_optimizer_add: clip_norm is joint over all groups: give it to the constructor");
            else nn_fail(nn, "%s: the optimizer has no option .%s", kind->name, nn__optimizer_fields[i].name);
            return 0;
        }
        o[i] = nn__option(value, 0);
        if (!(o[i] >= 0) || ((i == NN__BETA1 || i == NN__BETA2 || i == NN__ALPHA) && o[i] >= 1)) {
            nn_fail(nn, "%s: .%s is %g: it must be %s", kind->name, nn__optimizer_fields[i].name, o[i], i == NN__BETA1 || i == NN__BETA2 || i == NN__ALPHA ? "in 0..1, 1 excluded" : "at least 0");
            return 0;
        }
    }
    if (o[NN__NESTEROV] != 0 && (o[NN__MOMENTUM] == 0 || o[NN__DAMPENING] != 0)) { nn_fail(nn, "%s: .nesterov needs momentum and no dampening", kind->name); return 0; }
    g->lr = g->initial_lr = o[NN__LR];
    return 1;
}

// A tensor for life with the layout of t, filled with zeros or with t.
static nn_tensor *nn__twin(nn_tensor *t, const char *name, int copy)
{
    nn_tensor *s = nn__alloc_tensor(t->nn, 1, (nn_dtype)t->dtype, t->ndim, t->shape);
    if (nn__dead(s)) return NULL;
    memcpy(s->stride, t->stride, sizeof s->stride);
    s->name = name;
    if (copy) nn__copy_view(t->nn, nn__view_of(s), nn__view_of(t));
    else nn__fill_view(t->nn, nn__view_of(s), 0.0);
    return s;
}
// The states that a slot needs and does not have yet. 0 after an error. Frozen parameters get theirs when they first move.
static int nn__slot_states(nn_optimizer *opt, nn__slot *s)
{
    int i;
    for (i = 0; i < NN__MAX_STATES; i++) {
        int if_set = opt->kind->state[i].if_set;
        if (s->state[i] || !opt->kind->state[i].name || (if_set != NN__ALWAYS && opt->group[s->group].option[if_set] == 0)) continue;
        s->state[i] = nn__twin(s->p, opt->kind->state[i].name, 0);
        if (!s->state[i]) return 0;
    }
    return 1;
}

static nn__slot *nn__find_slot(nn_optimizer *opt, const nn_tensor *p)
{
    int i;
    for (i = 0; i < opt->slots; i++) if (opt->slot[i].p == p) return &opt->slot[i];
    return NULL;
}
static int nn__ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}
// Puts the parameters below `layer` whose full names end in `match` into the last group; those that have a slot change their group.
static int nn__add_slots(nn_optimizer *opt, nn_layer *layer, const char *match)
{
    nn_context *nn = opt->nn;
    int i, n = nn_params(layer, NULL, 0), found = 0;
    nn_tensor **list = (nn_tensor **)nn__life(nn, (size_t)n * sizeof *list);
    char name[256];
    if (!list) return 0;
    nn_params(layer, list, n);
    if (opt->slots + n > opt->slot_room) {
        nn__slot *more = (nn__slot *)nn__life(nn, (size_t)(opt->slots + n) * sizeof *more);
        if (!more) return 0;
        if (opt->slots) memcpy(more, opt->slot, (size_t)opt->slots * sizeof *more);
        opt->slot = more;
        opt->slot_room = opt->slots + n;
    }
    for (i = 0; i < n; i++) {
        nn__slot *s = nn__find_slot(opt, list[i]);
        nn_name(list[i], NULL, name, sizeof name);
        if (match && !nn__ends_in(name, match)) continue;
        if (!s) { s = &opt->slot[opt->slots++]; s->p = list[i]; }    // the same parameter is never updated twice
        s->group = opt->groups - 1;
        found++;
        if (!(s->p->flags & NN__T_FROZEN) && !nn__slot_states(opt, s)) return 0;
    }
    if (match && !found) { nn_fail(nn, "nn_optimizer_add: no parameter's name ends in \"%s\"", match); return 0; }
    return 1;
}

static nn__group *nn__new_group(nn_optimizer *opt)
{
    if (opt->groups == opt->group_room) {
        nn__group *more = (nn__group *)nn__life(opt->nn, (size_t)(2 * opt->group_room + 2) * sizeof *more);
        if (!more) return NULL;
        if (opt->groups) memcpy(more, opt->group, (size_t)opt->groups * sizeof *more);
        opt->group = more;
        opt->group_room = 2 * opt->group_room + 2;
    }
    return &opt->group[opt->groups++];
}

static nn_optimizer *nn__optimizer_new(nn_layer *layer, int which, const nn_optimizer_desc *desc)
{
    nn_context *nn = nn__context_below(layer);
    const nn__optimizer_kind *kind = &nn__optimizers[which];
    nn_optimizer *o;
    nn__group *g;
    if (!nn_ok(nn)) return NULL;
    if (desc && desc->match) { nn_fail(nn, "%s: .match belongs to nn_optimizer_add", kind->name); return NULL; }
    o = (nn_optimizer *)nn__life(nn, sizeof *o);
    if (!o) return NULL;
    o->nn = nn; o->layer = layer; o->kind = kind;
    while (o->states < NN__MAX_STATES && kind->state[o->states].name) o->states++;
    g = nn__new_group(o);
    if (!g) return NULL;
    g->option[NN__LR] = kind->lr;
    g->option[NN__BETA1] = kind->beta1;
    g->option[NN__BETA2] = kind->beta2;
    g->option[NN__EPS] = kind->eps;
    g->option[NN__WEIGHT_DECAY] = kind->weight_decay;
    g->option[NN__ALPHA] = 0.99;
    g->option[NN__MOMENTUM_DECAY] = 0.004;
    if (!nn__read_options(nn, kind, desc, g, 0) || !nn__add_slots(o, layer, NULL)) return NULL;
    return o;
}
NN_API nn_optimizer *nn_sgd_new    (nn_layer *layer, const nn_sgd_desc *desc)     { return nn__optimizer_new(layer, NN__SGD, desc); }
NN_API nn_optimizer *nn_rmsprop_new(nn_layer *layer, const nn_rmsprop_desc *desc) { return nn__optimizer_new(layer, NN__RMSPROP, desc); }
NN_API nn_optimizer *nn_adagrad_new(nn_layer *layer, const nn_adagrad_desc *desc) { return nn__optimizer_new(layer, NN__ADAGRAD, desc); }
NN_API nn_optimizer *nn_adam_new   (nn_layer *layer, const nn_adam_desc *desc)    { return nn__optimizer_new(layer, NN__ADAM, desc); }
NN_API nn_optimizer *nn_adamw_new  (nn_layer *layer, const nn_adamw_desc *desc)   { return nn__optimizer_new(layer, NN__ADAMW, desc); }
NN_API nn_optimizer *nn_nadam_new  (nn_layer *layer, const nn_nadam_desc *desc)   { return nn__optimizer_new(layer, NN__NADAM, desc); }
NN_API nn_optimizer *nn_lion_new   (nn_layer *layer, const nn_lion_desc *desc)    { return nn__optimizer_new(layer, NN__LION, desc); }

NN_API void nn_optimizer_add(nn_optimizer *opt, nn_layer *layer, const nn_optimizer_desc *desc)
{
    nn_context *nn = opt ? opt->nn : NULL;
    nn__group g, *to;
    if (!nn_ok(nn)) return;
    if (nn__no_layer(layer) || layer->nn != nn) { nn_fail(nn, "nn_optimizer_add: the layer is not of the optimizer's context"); return; }
    g = opt->group[0];
    g.option[NN__LR] = g.initial_lr;
    if (!nn__read_options(nn, opt->kind, desc, &g, 1)) return;
    to = nn__new_group(opt);
    if (!to) return;
    *to = g;
    nn->changes++;
    nn__add_slots(opt, layer, desc ? desc->match : NULL);
}

// ---- a step ---------------------------------------------------------------------------------------------
static int nn__movable(const nn__slot *s) { return s->p->grad && (s->p->flags & NN__T_GRAD_SET) && !(s->p->flags & NN__T_FROZEN); }

// Joint norm of the gradients and the scale that brings it to `most`, computed on the device: opt->clip is { norm, scale }.
static int nn__joint_norm(nn_optimizer *opt, double most)
{
    nn_context *nn = opt->nn;
    nn_call c;
    int64_t n = nn__max(1, opt->slot_room), two = 2;
    int i;
    if (!opt->clip) {
        nn_tensor *t = nn__alloc_tensor(nn, 1, nn->desc.dtype, 1, &two);
        opt->clip = nn__dead(t) ? NULL : t;
    }
    if (!opt->squares || opt->squares->shape[0] < n) {
        nn_tensor *t = nn__alloc_tensor(nn, 1, nn->desc.dtype, 1, &n);
        opt->squares = nn__dead(t) ? NULL : t;
    }
    if (!opt->clip || !opt->squares) return 0;
    nn__fill_view(nn, nn__view_of(opt->squares), 0.0);
    for (i = 0; i < opt->slots; i++) {
        if (!nn__movable(&opt->slot[i])) continue;
        nn__begin_call(&c, nn, NN_OP_square_sum, NULL);
        c.nin = c.nout = 1;
        c.in[0] = nn__view_of(opt->slot[i].p->grad);
        c.out[0] = nn__view_of(opt->squares);
        c.out[0].ndim = 0;
        if (c.out[0].data) c.out[0].data = (char *)c.out[0].data + (size_t)i * nn_dtype_bytes(nn->desc.dtype);
        nn__run(nn, &c);
    }
    nn__begin_call(&c, nn, NN_OP_clip_scale, &most);
    c.nin = c.nout = 1;
    c.in[0] = nn__view_of(opt->squares);
    c.out[0] = nn__view_of(opt->clip);
    nn__run(nn, &c);
    return nn_ok(nn);
}

static double nn__last_norm(nn_optimizer *opt)           // that nn__joint_norm found
{
    float v[2] = { NAN, NAN };
    return nn_read(opt->clip, v) ? (double)v[0] : (double)NAN;
}
NN_API float nn_grad_norm(nn_optimizer *opt) { return opt && nn_ok(opt->nn) && nn__joint_norm(opt, 0) ? (float)nn__last_norm(opt) : NAN; }

// nadam: factor of step t, and the product of the factors of steps 1..t
static double nn__nadam_factor(const nn__group *g, double t) { return g->option[NN__BETA1] * (1 - 0.5 * pow(0.96, t * g->option[NN__MOMENTUM_DECAY])); }
static double nn__nadam_product(const nn__group *g, nn__slot *s)
{
    if (s->product_step > s->steps || s->product_step == 0) { s->product_step = 0; s->product = 1; }
    while (s->product_step < s->steps) s->product *= nn__nadam_factor(g, (double)++s->product_step);
    return s->product;
}

static nn__update_params nn__update_of(const nn_optimizer *opt, nn__slot *s)        // in double, as Python computes
{
    const nn__group *g = &opt->group[s->group];
    const double *o = g->option;
    double steps = (double)s->steps, factor, next;
    nn__update_params u;
    memset(&u, 0, sizeof u);
    u.lr = g->lr;
    u.weight_decay = o[NN__WEIGHT_DECAY];
    u.shrink = 1;
    u.decay1 = o[NN__BETA1]; u.decay2 = o[NN__BETA2];
    u.eps = o[NN__EPS];
    u.clip_value = o[NN__CLIP_VALUE];
    u.momentum = o[NN__MOMENTUM] != 0; u.nesterov = o[NN__NESTEROV] != 0; u.centered = o[NN__CENTERED] != 0; u.amsgrad = o[NN__AMSGRAD] != 0;
    u.first = s->steps == 1;
    u.op = opt->kind->op;
    switch (opt->kind - nn__optimizers) {
    case NN__SGD:
        u.decay1 = o[NN__MOMENTUM];
        u.rest1 = 1 - o[NN__DAMPENING];
        return u;
    case NN__RMSPROP:
        u.decay1 = o[NN__MOMENTUM];
        u.decay2 = o[NN__ALPHA];
        u.rest2 = 1 - u.decay2;
        u.far1 = u.rest2 >= 0.5;
        return u;
    case NN__ADAGRAD:
        u.lr = g->lr / (1 + (steps - 1) * o[NN__LR_DECAY]);
        return u;
    case NN__NADAM:
        factor = nn__nadam_factor(g, steps);
        next = nn__nadam_factor(g, steps + 1);
        u.lr_grad = g->lr * (1 - factor) / (1 - nn__nadam_product(g, s));
        u.lr = g->lr * next / (1 - nn__nadam_product(g, s) * next);
        u.correct = 1 - pow(u.decay2, steps);
        break;
    case NN__ADAMW:
    case NN__LION:
        u.shrink = 1 - g->lr * u.weight_decay;
        u.weight_decay = 0;
        break;
    }
    u.rest1 = 1 - u.decay1;
    u.rest2 = 1 - u.decay2;
    u.far1 = u.rest1 >= 0.5;
    if (opt->kind->op == NN_OP_adam_update) {
        u.lr = g->lr / (1 - pow(u.decay1, steps));
        u.correct = sqrt(1 - pow(u.decay2, steps));
    }
    return u;
}

static void nn__trace_update(nn_context *nn, nn_optimizer *opt, int slot);          // >>step
static void nn__trace_count(nn_optimizer *opt);
static void nn__trace_norm(nn_context *nn);
static void nn__run_update(nn_optimizer *opt, nn__slot *s, nn_call *c)               // in[0..2] and the op are given
{
    nn__update_params u;
    int j;
    s->steps++;
    u = nn__update_of(opt, s);
    c->params = &u;
    c->nin = 3 + NN__MAX_STATES;
    for (j = 0; j < NN__MAX_STATES; j++) c->in[3 + j] = nn__view_of(s->state[j]);
    nn__trace_update(opt->nn, opt, (int)(s - opt->slot));
    nn__run(opt->nn, c);
    s->p->base->version++;
}

static int nn__step_slot(nn_optimizer *opt, nn__slot *s, double clip_norm)           // updates one parameter; 0 after an error
{
    nn_context *nn = opt->nn;
    nn_call c;
    if (!nn__movable(s)) return 1;
    if (!nn__slot_states(opt, s)) return 0;
    nn__begin_call(&c, nn, opt->kind->op, NULL);
    c.in[0] = nn__view_of(s->p);
    c.in[1] = nn__view_of(s->p->grad);
    c.in[2] = nn__view_of(NULL);
    if (clip_norm > 0) {             // the scale stays on the device
        c.in[2] = nn__view_of(opt->clip);
        c.in[2].ndim = 0;
        if (c.in[2].data) c.in[2].data = (char *)c.in[2].data + nn_dtype_bytes(nn->desc.dtype);
    }
    nn__run_update(opt, s, &c);
    return 1;
}

static void nn__step_slots(nn_optimizer *opt, double clip_norm)
{
    int i;
    for (i = 0; i < opt->slots; i++) {
        if (!nn__step_slot(opt, &opt->slot[i], clip_norm)) return;
        opt->slot[i].p->flags &= ~(unsigned)NN__T_GRAD_SET;
    }
}

NN_API void nn_step(nn_optimizer *opt)
{
    double clip_norm;
    if (!opt || !nn_ok(opt->nn)) return;
    clip_norm = opt->group[0].option[NN__CLIP_NORM];
    if (clip_norm > 0 && !nn__joint_norm(opt, clip_norm)) return;
    nn__trace_norm(opt->nn);
    nn__trace_count(opt);
    opt->steps++;
    nn__step_slots(opt, clip_norm);
}

// ---- updates during the walk (nn_backward_desc.step): a gradient is used while it is in the cache, and its memory is free at once --------
static nn__slot *nn__slot_of(nn_optimizer *opt, nn_tensor *p)
{
    int i = p->output;               // of no use to a parameter otherwise: where it was found last
    if (i < opt->slots && opt->slot[i].p == p) return &opt->slot[i];
    for (i = 0; i < opt->slots; i++) if (opt->slot[i].p == p) { p->output = i; return &opt->slot[i]; }
    return NULL;
}

static int nn__clips_norm(const nn_optimizer *opt) { return opt->group[0].option[NN__CLIP_NORM] > 0; }

static void nn__updates_begin(nn_optimizer *opt, nn_node *tape)
{
    nn_node *d;
    nn__slot *s;
    int i;
    for (i = 0; i < opt->slots; i++) { opt->slot[i].last = NULL; opt->slot[i].uses = 0; }
    for (d = tape; d; d = d->prev) for (i = 0; i < d->nin; i++)
        if (d->in[i] && (d->in[i]->base->flags & NN__T_PARAM) && (s = nn__slot_of(opt, d->in[i]->base)) != NULL) { s->last = d; s->uses++; }
    nn__trace_count(opt);
    opt->steps++;
}

// The weight of a linear layer that nothing else on the tape reads is updated while its gradient is computed, tile by tile.
static nn__slot *nn__fused_slot(nn_optimizer *opt, const nn_node *d)
{
    nn_context *nn = opt->nn;
    nn_tensor *w;
    nn__slot *s;
    int op = opt->kind->op;
    if (d->op->id != NN_OP_linear || !(d->need & 2) || nn->backend != &nn->cpu || (op != NN_OP_sgd_update && op != NN_OP_adam_update && op != NN_OP_lion_update)) return NULL;
    w = d->in[1];
    if (w->base != w || (w->flags & (NN__T_GRAD_SET | NN__T_WANT_GRAD)) || !nn_count(w) || !nn_count(d->in[0]) || nn_count(d->in[0]) > 1024 * w->shape[1]) return NULL;
    s = (w->flags & NN__T_PARAM) ? nn__slot_of(opt, w) : NULL;
    if (!s || s->uses != 1 || (w->stride[0] != 1 && w->stride[1] != 1)) return NULL;
    return nn__slot_states(opt, s) ? s : NULL;
}
static void nn__fused_update(nn_optimizer *opt, nn__slot *s, const nn_node *d)
{
    nn_call c;
    int i;
    for (i = 0; i < 2; i++) if (d->in[i]->base->version != d->versions[i]) nn_fail(opt->nn, "linear: input %d was overwritten before backward could use it", i);
    nn__begin_call(&c, opt->nn, NN_OP_linear_update, NULL);
    c.in[0] = nn__view_of(s->p);
    c.in[1] = nn__view_of(d->in[0]);
    c.in[2] = nn__view_of(d->out[0]->grad);
    nn__run_update(opt, s, &c);
}

static void nn__updates_after(nn_optimizer *opt, const nn_node *d)
{
    nn_context *nn = opt->nn;
    nn__slot *s;
    int i;
    for (i = 0; i < d->nin; i++) {
        if (!d->in[i] || !(d->in[i]->base->flags & NN__T_PARAM) || (s = nn__slot_of(opt, d->in[i]->base)) == NULL || s->last != d) continue;
        s->last = NULL;
        if (!nn__movable(s) || !nn__step_slot(opt, s, 0)) continue;
        s->p->flags &= ~(unsigned)NN__T_GRAD_SET;
        if (s->p->grad->step != nn->step) continue;      // it accumulated over steps: memory of its own
        nn__free_storage(nn, s->p->grad);
        s->p->grad->step = nn->step - 1;
    }
}

NN_API int64_t nn_steps(const nn_optimizer *opt) { return opt ? opt->steps : 0; }
NN_API float   nn_lr(const nn_optimizer *opt)    { return opt ? (float)opt->group[0].lr : 0.0f; }
NN_API void    nn_set_lr(nn_optimizer *opt, float lr)
{
    double old, first, to = lr == (float)NN_ZERO ? 0 : nn__as_written(lr);
    int i;
    if (!opt || !nn_ok(opt->nn)) return;
    if (!(to >= 0)) { nn_fail(opt->nn, "nn_set_lr: %g is not a learning rate", to); return; }
    old = opt->group[0].lr;
    first = opt->group[0].initial_lr;
    for (i = opt->groups - 1; i >= 0; i--) {
        nn__group *g = &opt->group[i];
        g->lr = i == 0 ? to : old > 0 ? to * (g->lr / old) : first > 0 ? to * (g->initial_lr / first) : to;
    }
}

// ---- an average of the weights ------------------------------------------------------------------------------
struct nn_ema {
    nn_context *nn;
    nn_layer   *layer;
    double      decay;
    nn_tensor **p, **shadow;
    int         n, swapped;
};
NN_API nn_ema *nn_ema_new(nn_layer *layer, float decay)
{
    nn_context *nn = nn__context_below(layer);
    nn_ema *e;
    int i;
    if (!nn_ok(nn)) return NULL;
    if (!(decay == (float)NN_ZERO || (decay >= 0 && decay <= 1))) { nn_fail(nn, "nn_ema_new: decay %g is not in 0..1", (double)decay); return NULL; }
    e = (nn_ema *)nn__life(nn, sizeof *e);
    if (!e) return NULL;
    e->nn = nn; e->layer = layer; e->decay = nn__option(decay, 0);
    e->n = nn_params(layer, NULL, 0);
    e->p = (nn_tensor **)nn__life(nn, (size_t)e->n * sizeof *e->p);
    e->shadow = (nn_tensor **)nn__life(nn, (size_t)e->n * sizeof *e->shadow);
    if (!e->p || !e->shadow) return NULL;
    nn_params(layer, e->p, e->n);
    for (i = 0; i < e->n; i++) if (!(e->shadow[i] = nn__twin(e->p[i], "ema", 1))) return NULL;
    return e;
}
static void nn__ema_run(nn_ema *e, int op)
{
    nn_call c;
    int i;
    for (i = 0; i < e->n; i++) {
        nn__begin_call(&c, e->nn, op, &e->decay);
        c.nin = 2;
        c.in[0] = nn__view_of(e->shadow[i]);
        c.in[1] = nn__view_of(e->p[i]);
        nn__run(e->nn, &c);
        if (op == NN_OP_swap) e->p[i]->base->version++;
    }
}
NN_API void nn_ema_update(nn_ema *ema)
{
    if (!ema || !nn_ok(ema->nn)) return;
    if (ema->swapped) { nn_fail(ema->nn, "nn_ema_update: parameters and averages are exchanged; call nn_ema_swap first"); return; }
    nn__ema_run(ema, NN_OP_ema_update);
}
NN_API void nn_ema_swap(nn_ema *ema)
{
    if (!ema || !nn_ok(ema->nn)) return;
    nn__ema_run(ema, NN_OP_swap);
    ema->swapped = !ema->swapped;
}

// ---- schedules: torch.optim.lr_scheduler, most of them as the same recursions, so that the values agree to the last digits -------
// `count` advances so far (PyTorch's last_epoch). nn__schedule_lr gives the rate after advance number `count`; at 0 the rate to start with.
enum { NN__STEP_LR, NN__MULTI_STEP_LR, NN__EXPONENTIAL_LR, NN__POLYNOMIAL_LR, NN__LINEAR_LR, NN__COSINE_LR, NN__WARM_RESTARTS_LR, NN__ONE_CYCLE_LR, NN__PLATEAU_LR };
static const char *const nn__schedule_names[] = { "step_lr", "multi_step_lr", "exponential_lr", "polynomial_lr", "linear_lr", "cosine_lr", "warm_restarts_lr", "one_cycle_lr", "plateau_lr" };
struct nn_schedule {
    nn_context   *nn;
    nn_optimizer *opt;
    int     kind, per_step;
    int     step_size, total, period_mult, patience, cooldown, maximize, warmup;
    int    *milestone, milestones;
    double  gamma, power, min_lr, start_factor, end_factor, max_lr, rise, div, final_div, factor, threshold;
    // state, for checkpoints (besides the groups' lr)
    int64_t count, warmed;           // advances of the schedule, and before it of the warmup
    int64_t since, period;           // warm_restarts_lr: T_cur, T_i
    double  best;                    // plateau_lr
    int     bad, cooling;
};

static double nn__schedule_lr(const nn_schedule *s, const nn__group *g)
{
    const double pi = 3.14159265358979323846;
    double lr = g->lr, base = g->initial_lr, t = (double)s->count, n = (double)s->total, from, to, start, share;
    int i, hits = 0;
    if (s->count == 0) lr = base;
    switch (s->kind) {
    case NN__STEP_LR:
        return s->count == 0 || s->count % s->step_size ? lr : lr * s->gamma;
    case NN__MULTI_STEP_LR:
        for (i = 0; i < s->milestones; i++) hits += s->milestone[i] == s->count;
        return hits ? lr * pow(s->gamma, hits) : lr;
    case NN__EXPONENTIAL_LR:
        return s->count == 0 ? lr : lr * s->gamma;
    case NN__POLYNOMIAL_LR:          // base (1 - t / n)^power
        return s->count == 0 || t > n ? lr : lr * pow((1 - t / n) / (1 - (t - 1) / n), s->power);
    case NN__LINEAR_LR:              // base (start + (end - start) t / n)
        if (s->count == 0) return lr * s->start_factor;
        return t > n ? lr : lr * (1 + (s->end_factor - s->start_factor) / (n * s->start_factor + (t - 1) * (s->end_factor - s->start_factor)));
    case NN__COSINE_LR:              // min + (base - min) (1 + cos(pi t / n)) / 2; after n it rises again
        if (s->count == 0) return lr;
        if ((s->count - 1 - s->total) % (2 * (int64_t)s->total) == 0) return lr + (base - s->min_lr) * (1 - cos(pi / n)) / 2;
        return (1 + cos(pi * t / n)) / (1 + cos(pi * (t - 1) / n)) * (lr - s->min_lr) + s->min_lr;
    case NN__WARM_RESTARTS_LR:       // the same with a period that starts anew
        return s->min_lr + (base - s->min_lr) * (1 + cos(pi * (double)s->since / (double)s->period)) / 2;
    case NN__ONE_CYCLE_LR:           // cosines from max / div up to max and down to max / div / final_div
        start = 0;
        share = s->rise * n - 1;
        from = s->max_lr / s->div;
        to = s->max_lr;
        if (t > share) { start = share; share = n - 1; from = s->max_lr; to = s->max_lr / s->div / s->final_div; }
        share = share > start ? (t - start) / (share - start) : 1;
        return to + (from - to) / 2 * (cos(pi * (share > 1 ? 1 : share)) + 1);
    }
    return lr;                       // plateau_lr moves on metrics
}
static void nn__schedule_apply(nn_schedule *s)
{
    double warm = s->warmed < s->warmup ? (double)(s->warmed + 1) / (double)(s->warmup + 1) : 1;
    int i;
    for (i = 0; i < s->opt->groups; i++) s->opt->group[i].lr = warm * nn__schedule_lr(s, &s->opt->group[i]);
}
static int nn__warming(nn_schedule *s)                   // one advance of the warmup: (t + 1) / (warmup + 1) of the rate to start with
{
    if (s->warmed >= s->warmup) return 0;
    s->warmed++;
    nn__schedule_apply(s);
    return 1;
}

static nn_schedule *nn__schedule_new(nn_optimizer *opt, int kind, const nn_schedule_desc *desc)
{
    nn_context *nn = opt ? opt->nn : NULL;
    const char *name = nn__schedule_names[kind];
    nn_schedule_desc d;
    nn_schedule *s;
    int i;
    if (!nn_ok(nn)) return NULL;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    s = (nn_schedule *)nn__life(nn, sizeof *s);
    if (!s) return NULL;
    s->nn = nn; s->opt = opt; s->kind = kind;
    s->per_step = d.per_step;
    s->step_size = d.step_size;
    s->total = d.total ? d.total : kind == NN__POLYNOMIAL_LR || kind == NN__LINEAR_LR ? 5 : 0;
    s->period = d.period ? d.period : 10;
    s->period_mult = d.period_mult ? d.period_mult : 1;
    s->patience = d.patience == NN_ZERO ? 0 : d.patience ? d.patience : 10;
    s->cooldown = d.cooldown == NN_ZERO ? 0 : d.cooldown;
    s->maximize = d.maximize;
    s->warmup = d.warmup == NN_ZERO ? 0 : d.warmup;
    s->gamma = nn__option(d.gamma, kind == NN__EXPONENTIAL_LR ? 0.95 : 0.1);
    s->power = nn__option(d.power, 1);
    s->min_lr = nn__option(d.min_lr, 0);
    s->start_factor = nn__option(d.start_factor, 1.0 / 3);
    s->end_factor = nn__option(d.end_factor, 1);
    s->max_lr = nn__option(d.max_lr, 0);
    s->rise = nn__option(d.rise, 0.3);
    s->div = nn__option(d.div, 25);
    s->final_div = nn__option(d.final_div, 1e4);
    s->factor = nn__option(d.factor, 0.1);
    s->threshold = nn__option(d.threshold, 1e-4);
    s->best = s->maximize ? -INFINITY : INFINITY;
    if (s->warmup < 0)                                                          nn_fail(nn, "%s: warmup %d is negative", name, s->warmup);
    if (kind == NN__STEP_LR && s->step_size < 1)                                nn_fail(nn, "step_lr: step_size must be at least 1");
    if (kind >= NN__POLYNOMIAL_LR && kind <= NN__COSINE_LR && s->total < 1)     nn_fail(nn, "%s: total must be at least 1", name);
    if (kind == NN__ONE_CYCLE_LR && (s->total < 1 || !(s->max_lr > 0)))         nn_fail(nn, "one_cycle_lr: total and max_lr must be given");
    if (kind == NN__ONE_CYCLE_LR && (!(s->rise >= 0 && s->rise <= 1) || !(s->div > 0) || !(s->final_div > 0)))
                                                                                nn_fail(nn, "one_cycle_lr: rise must be in 0..1, div and final_div positive");
    if (kind == NN__WARM_RESTARTS_LR && (s->period < 1 || s->period_mult < 1))  nn_fail(nn, "warm_restarts_lr: period and period_mult must be at least 1");
    if (kind == NN__LINEAR_LR && (!(s->start_factor > 0 && s->start_factor <= 1) || !(s->end_factor >= 0 && s->end_factor <= 1)))
                                                                                nn_fail(nn, "linear_lr: start_factor must be in 0..1 and not 0, end_factor in 0..1");
    if (kind == NN__PLATEAU_LR && !(s->factor >= 0 && s->factor < 1))           nn_fail(nn, "plateau_lr: factor must be below 1");
    if (kind == NN__MULTI_STEP_LR && (d.milestone_count < 1 || !d.milestones))  nn_fail(nn, "multi_step_lr: milestones must be given");
    if (!nn_ok(nn)) return NULL;
    if (kind == NN__MULTI_STEP_LR) {
        s->milestone = (int *)nn__life(nn, (size_t)d.milestone_count * sizeof *s->milestone);
        if (!s->milestone) return NULL;
        memcpy(s->milestone, d.milestones, (size_t)d.milestone_count * sizeof *s->milestone);
        s->milestones = d.milestone_count;
    }
    for (i = 0; i < opt->groups && !opt->scheduled; i++) opt->group[i].initial_lr = opt->group[i].lr;   // an nn_set_lr before counts
    opt->scheduled = 1;
    nn__schedule_apply(s);
    return s;
}
NN_API nn_schedule *nn_step_lr_new         (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__STEP_LR, desc); }
NN_API nn_schedule *nn_multi_step_lr_new   (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__MULTI_STEP_LR, desc); }
NN_API nn_schedule *nn_exponential_lr_new  (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__EXPONENTIAL_LR, desc); }
NN_API nn_schedule *nn_polynomial_lr_new   (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__POLYNOMIAL_LR, desc); }
NN_API nn_schedule *nn_linear_lr_new       (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__LINEAR_LR, desc); }
NN_API nn_schedule *nn_cosine_lr_new       (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__COSINE_LR, desc); }
NN_API nn_schedule *nn_warm_restarts_lr_new(nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__WARM_RESTARTS_LR, desc); }
NN_API nn_schedule *nn_one_cycle_lr_new    (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__ONE_CYCLE_LR, desc); }
NN_API nn_schedule *nn_plateau_lr_new      (nn_optimizer *opt, const nn_schedule_desc *desc) { return nn__schedule_new(opt, NN__PLATEAU_LR, desc); }

NN_API void nn_schedule_advance(nn_schedule *schedule)
{
    nn_schedule *s = schedule;
    if (!s || !nn_ok(s->nn) || s->kind == NN__PLATEAU_LR || nn__warming(s)) return;
    s->count++;
    if (s->kind == NN__WARM_RESTARTS_LR && ++s->since >= s->period) {
        s->since -= s->period;
        if (s->period <= INT64_MAX / s->period_mult) s->period *= s->period_mult;
    }
    nn__schedule_apply(s);
}
NN_API void nn_schedule_metric(nn_schedule *schedule, double value)
{
    nn_schedule *s = schedule;
    int i, better;
    if (!s || !nn_ok(s->nn) || s->kind != NN__PLATEAU_LR || nn__warming(s)) return;
    s->count++;
    better = s->maximize ? value > s->best * (1 + s->threshold) : value < s->best * (1 - s->threshold);
    if (better) { s->best = value; s->bad = 0; }
    else s->bad++;
    if (s->cooling > 0) { s->cooling--; s->bad = 0; }
    if (s->bad <= s->patience) return;
    s->cooling = s->cooldown;
    s->bad = 0;
    for (i = 0; i < s->opt->groups; i++) {
        nn__group *g = &s->opt->group[i];
        double lr = g->lr * s->factor > s->min_lr ? g->lr * s->factor : s->min_lr;
        if (g->lr - lr > 1e-8) g->lr = lr;               // PyTorch's eps: smaller changes are not made
    }
}

// =============================================================================================
// >>data   Datasets, scaling, augmentation, loaders.
//
// A dataset is a count and a function that reads sample i; where the numbers come from (arrays, the bytes of an idx file, pictures
// in folders, your callback, another dataset) is behind that function. A loader asks for the samples of a batch, in shuffled order,
// changes them (augmentation), and uploads them. What a batch contains is a function of (seed, epoch, position) alone: it does not
// matter which thread makes it or when, and to resume, a loader needs nothing but these three numbers.
// =============================================================================================
typedef struct nn__records { const unsigned char *at; int64_t count; } nn__records;
enum { NN__TARGET_NONE, NN__TARGET_CLASS, NN__TARGET_NUMBERS,
       NN__MOST_CLASSES = 1 << 20 };     // memory grows with the classes, so a file may not claim any number of them

struct nn_dataset {
    nn_context *nn;
    int64_t     count, classes, width, y_width;          // width: numbers in one x
    nn_shape    x_shape, y_shape;
    int         target;              // NN__TARGET_*
    char      **names;               // of the classes, or NULL
    // Reads sample i; x may be NULL. May run in a loader's thread, so it does not touch the context: errors go to `why`.
    int       (*read)(nn_dataset *d, int64_t i, float *x, float *y, int64_t *label, char *why, size_t room);
    const float   *x, *y;            // arrays
    const int64_t *labels;
    nn__records   *part;                // records of bytes in memory, as they were in the file
    int         parts, type;         // type: idx code of one number
    size_t      pitch, offset;       // bytes of a record; where in it x begins
    nn_dataset *of;                  // a subset: sample i is sample indices[i] of that
    const int64_t *indices;
    int       (*get)(void *self, int64_t index, float *x, float *y, int64_t *label);
    void       *self;
    float      *scratch;             // a callback fills x even when only the target is wanted
    char      **paths;               // pictures
    nn_folder_desc folder;
    nn__mutex   mutex;               // one call of a callback at a time, however many loaders there are
};

// ---- memory that goes before nn_free does ----------------------------------------------------------------
static void *nn__temp(nn_context *nn, size_t bytes)      // a caller's buffer is never exceeded: there it is step memory
{
    void *p;
    if (nn->buffer) return nn__host_step(nn, bytes);
    p = bytes > SIZE_MAX / 4 ? NULL : nn__raw_alloc(nn, bytes ? bytes : 1);
    if (!p) nn__oom(nn, bytes);
    return p;
}
static void nn__temp_free(nn_context *nn, void *p) { if (!nn->buffer) nn__raw_free(nn, p); }
static void *nn__life_raw(nn_context *nn, size_t bytes)  { return nn__arena_alloc(&nn->life, bytes, 0); }   // not zeroed

// ---- inflate: RFC 1951 (DEFLATE) in RFC 1952 (gzip) ----------------------------------------------------------
// A stream of Huffman codes: 0..255 a byte, 256 the end of the block, 257.. "repeat n bytes from d bytes back".
// Codes are canonical: all codes of one length are consecutive numbers, and shorter ones come first, so lengths define them.
// Decoding runs twice, first without output, to learn the size: the size in the file is not to be trusted.
typedef struct nn__huffman {
    uint16_t fast[512];              // by the next 9 bits: length << 9 | symbol; 0: the code is longer
    uint16_t symbol[288];            // sorted by code
    uint32_t limit[16];              // codes of at most this length, left-aligned in 15 bits, are below it
    int32_t  base[16];               // code + base = index into symbol
} nn__huffman;

typedef struct nn__inflate {
    const unsigned char *in, *end;
    uint64_t bits;                   // read but not used yet, the next one lowest
    int      have;                   // how many
    unsigned char *out;              // NULL: only count
    size_t   start, n, room;         // where this gzip member's output began, output so far, at most
    const char *error;
    nn__huffman literal, distance;
} nn__inflate;

static int nn__inflate_fail(nn__inflate *s, const char *why) { if (!s->error) s->error = why; return 0; }

static uint32_t nn__reverse_bits(uint32_t v, int n)
{
    uint32_t r = 0;
    while (n-- > 0) { r = r << 1 | (v & 1); v >>= 1; }
    return r;
}

static int nn__huffman_build(nn__huffman *h, const unsigned char *length, int n)
{
    int count[16], next[16], at[16], i, used = 0;
    uint32_t code = 0, j;
    memset(count, 0, sizeof count);
    memset(h->fast, 0, sizeof h->fast);
    for (i = 0; i < n; i++) count[length[i]]++;
    for (i = 1; i < 16; i++) {
        code <<= 1;
        next[i] = (int)code;
        at[i] = used;
        h->base[i] = used - (int)code;
        code += (uint32_t)count[i];
        used += count[i];
        if (code > (1u << i)) return 0;                  // more codes than there are bit patterns
        h->limit[i] = code << (15 - i);
    }
    for (i = 0; i < n; i++) {
        int len = length[i];
        if (!len) continue;
        h->symbol[at[len]++] = (uint16_t)i;
        if (len <= 9) for (j = nn__reverse_bits((uint32_t)next[len], len); j < 512; j += 1u << len) h->fast[j] = (uint16_t)(len << 9 | i);
        next[len]++;
    }
    return 1;
}

static void nn__refill(nn__inflate *s)
{
    while (s->have <= 56 && s->in < s->end) { s->bits |= (uint64_t)*s->in++ << s->have; s->have += 8; }
}

static int nn__take_bits(nn__inflate *s, int n)          // -1: the data ends
{
    int v;
    if (s->have < n) nn__refill(s);
    if (s->have < n) { nn__inflate_fail(s, "is truncated"); return -1; }
    v = (int)(s->bits & ((1u << n) - 1));
    s->bits >>= n;
    s->have -= n;
    return v;
}

static int nn__take_symbol(nn__inflate *s, const nn__huffman *h)
{
    int e, len, symbol;
    if (s->have < 15) nn__refill(s);
    e = h->fast[s->bits & 511];
    if (NN__LIKELY(e)) { len = e >> 9; symbol = e & 511; }
    else {
        uint32_t v = nn__reverse_bits((uint32_t)s->bits & 0x7FFF, 15);
        for (len = 10; len < 16 && v >= h->limit[len]; len++) { }
        if (len == 16) { nn__inflate_fail(s, s->have < 15 ? "is truncated" : "is damaged: an impossible code"); return -1; }
        symbol = h->symbol[(int32_t)(v >> (15 - len)) + h->base[len]];
    }
    if (len > s->have) { nn__inflate_fail(s, "is truncated"); return -1; }
    s->bits >>= len;
    s->have -= len;
    return symbol;
}

static int nn__inflate_codes(nn__inflate *s)             // one block of codes
{
    for (;;) {
        int v = nn__take_symbol(s, &s->literal), extra, length, distance;
        size_t i;
        if (v < 0) return 0;
        if (v == 256) return 1;
        if (s->n >= s->room) return nn__inflate_fail(s, "is damaged: more data than it should have");
        if (v < 256) {
            if (s->out) s->out[s->n] = (unsigned char)v;
            s->n++;
            continue;
        }
        v -= 257;                    // lengths: 3..10 directly, then 4 codes for each number of extra bits, then 258
        if (v > 28) return nn__inflate_fail(s, "is damaged: an impossible length");
        extra = v < 8 || v == 28 ? 0 : (v >> 2) - 1;
        length = v < 8 ? 3 + v : v == 28 ? 258 : ((4 + (v & 3)) << extra) + 3;
        if (extra) { int more = nn__take_bits(s, extra); if (more < 0) return 0; length += more; }
        v = nn__take_symbol(s, &s->distance);            // distances: 1..4 directly, then 2 codes for each number of extra bits
        if (v < 0) return 0;
        if (v > 29) return nn__inflate_fail(s, "is damaged: an impossible distance");
        extra = v < 4 ? 0 : (v >> 1) - 1;
        distance = v < 4 ? 1 + v : ((2 + (v & 1)) << extra) + 1;
        if (extra) { int more = nn__take_bits(s, extra); if (more < 0) return 0; distance += more; }
        if ((size_t)distance > s->n - s->start) return nn__inflate_fail(s, "is damaged: a distance reaches before the start");
        if ((size_t)length > s->room - s->n) return nn__inflate_fail(s, "is damaged: more data than it should have");
        if (s->out) {
            unsigned char *to = s->out + s->n;
            for (i = 0; i < (size_t)length; i++) to[i] = to[(ptrdiff_t)i - distance];
        }
        s->n += (size_t)length;
    }
}

static int nn__inflate_stored(nn__inflate *s)            // bytes as they are, from the next whole byte on
{
    size_t length, check, left;
    s->bits >>= s->have & 7;
    s->have &= ~7;
    length = (size_t)nn__take_bits(s, 16);
    check = (size_t)nn__take_bits(s, 16);
    if (s->error) return 0;
    if (length != (check ^ 0xFFFF)) return nn__inflate_fail(s, "is damaged: the length of a stored block");
    s->in -= s->have / 8;            // give back what was read ahead
    s->bits = 0;
    s->have = 0;
    left = (size_t)(s->end - s->in);
    if (length > left) return nn__inflate_fail(s, "is truncated");
    if (length > s->room - s->n) return nn__inflate_fail(s, "is damaged: more data than it should have");
    if (s->out && length) memcpy(s->out + s->n, s->in, length);
    s->in += length;
    s->n += length;
    return 1;
}

static int nn__inflate_tables(nn__inflate *s)            // the code lengths of a block: themselves coded, with run lengths
{
    static const unsigned char order[19] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    unsigned char length[320];
    int literals = nn__take_bits(s, 5) + 257, distances = nn__take_bits(s, 5) + 1, codes = nn__take_bits(s, 4) + 4, i, n = 0;
    if (s->error) return 0;
    if (literals > 286 || distances > 30) return nn__inflate_fail(s, "is damaged: too many codes");
    memset(length, 0, sizeof length);
    for (i = 0; i < codes; i++) {
        int v = nn__take_bits(s, 3);
        if (v < 0) return 0;
        length[order[i]] = (unsigned char)v;
    }
    if (!nn__huffman_build(&s->literal, length, 19)) return nn__inflate_fail(s, "is damaged: impossible code lengths");
    memset(length, 0, sizeof length);
    while (n < literals + distances) {
        int v = nn__take_symbol(s, &s->literal), times = 1, value = v;
        if (v < 0) return 0;
        if (v == 16) {               // the last length again
            if (n == 0) return nn__inflate_fail(s, "is damaged: nothing to repeat");
            value = length[n - 1];
            times = 3 + nn__take_bits(s, 2);
        } else if (v == 17) { value = 0; times = 3 + nn__take_bits(s, 3); }
        else if (v == 18)   { value = 0; times = 11 + nn__take_bits(s, 7); }
        if (s->error) return 0;
        if (times > literals + distances - n) return nn__inflate_fail(s, "is damaged: too many code lengths");
        while (times-- > 0) length[n++] = (unsigned char)value;
    }
    if (!nn__huffman_build(&s->literal, length, literals) || !nn__huffman_build(&s->distance, length + literals, distances))
        return nn__inflate_fail(s, "is damaged: impossible code lengths");
    return 1;
}

static int nn__inflate_blocks(nn__inflate *s)
{
    int last = 0;
    while (!last) {
        int kind;
        last = nn__take_bits(s, 1);
        kind = nn__take_bits(s, 2);
        if (s->error) return 0;
        if (kind == 3) return nn__inflate_fail(s, "is damaged: an impossible block");
        if (kind == 0) { if (!nn__inflate_stored(s)) return 0; continue; }
        if (kind == 1) {             // the fixed code
            unsigned char length[288];
            int i;
            for (i = 0; i < 288; i++) length[i] = (unsigned char)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
            nn__huffman_build(&s->literal, length, 288);
            memset(length, 5, 30);
            nn__huffman_build(&s->distance, length, 30);
        } else if (!nn__inflate_tables(s)) return 0;
        if (!nn__inflate_codes(s)) return 0;
    }
    s->in -= s->have / 8;
    s->bits = 0;
    s->have = 0;
    return 1;
}

static uint32_t nn__gzip_crc(const unsigned char *p, size_t n)      // CRC-32: remainder modulo the polynomial 0x04C11DB7, bits reversed
{
    uint32_t table[256], crc = 0xFFFFFFFFu, c;
    size_t i;
    int k;
    for (i = 0; i < 256; i++) {
        c = (uint32_t)i;
        for (k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        table[i] = c;
    }
    for (i = 0; i < n; i++) crc = table[(crc ^ p[i]) & 255] ^ (crc >> 8);
    return ~crc;
}

static uint32_t nn__little32(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static uint32_t nn__big32(const unsigned char *p)    { return (uint32_t)p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24; }
static int nn__is_gzip(const unsigned char *p, size_t n) { return n >= 2 && p[0] == 0x1F && p[1] == 0x8B; }

static int nn__gzip_header(nn__inflate *s)
{
    const unsigned char *p = s->in;
    size_t left = (size_t)(s->end - p), n = 10, k;
    int flags;
    if (left < 18) return nn__inflate_fail(s, "is truncated");
    if (!nn__is_gzip(p, left) || p[2] != 8 || (p[3] & 0xE0)) return nn__inflate_fail(s, "is not a gzip file that can be read");
    flags = p[3];
    if (flags & 4) {                 // an extra field of a given size
        n += 2 + (size_t)(p[10] | p[11] << 8);
        if (n >= left) return nn__inflate_fail(s, "is truncated");
    }
    for (k = 8; k <= 16; k *= 2) {   // a name and a comment, both ending in 0
        if (!((unsigned)flags & k)) continue;
        while (n < left && p[n]) n++;
        if (++n >= left) return nn__inflate_fail(s, "is truncated");
    }
    if (flags & 2) n += 2;
    if (n > left) return nn__inflate_fail(s, "is truncated");
    s->in += n;
    return 1;
}

static int nn__gunzip_pass(nn__inflate *s)               // all members of a gzip file: they are simply joined
{
    do {
        s->start = s->n;
        if (!nn__gzip_header(s) || !nn__inflate_blocks(s)) return 0;
        if (s->end - s->in < 8) return nn__inflate_fail(s, "is truncated");
        if (nn__little32(s->in + 4) != (uint32_t)(s->n - s->start)) return nn__inflate_fail(s, "is damaged: its size is wrong");
        if (s->out && nn__little32(s->in) != nn__gzip_crc(s->out + s->start, s->n - s->start)) return nn__inflate_fail(s, "is damaged: its checksum is wrong");
        s->in += 8;
        while (s->in < s->end && !*s->in) s->in++;       // padding
    } while (s->in < s->end);
    return 1;
}

// Unpacks into life or temporary memory. NULL after an error.
static unsigned char *nn__gunzip(nn_context *nn, const char *op, const char *name, const unsigned char *in, size_t size, int life, size_t *unpacked)
{
    nn__inflate *s = (nn__inflate *)nn__temp(nn, sizeof *s);
    unsigned char *out = NULL;
    int pass, ok = s != NULL;
    size_t n = SIZE_MAX / 4;
    for (pass = 0; ok && pass < 2; pass++) {
        memset(s, 0, sizeof *s);
        s->in = in; s->end = in + size; s->room = n; s->out = out;
        ok = nn__gunzip_pass(s);
        if (!ok) nn_fail(nn, "%s: %s %s", op, name, s->error);
        n = s->n;
        if (ok && !out) {
            out = (unsigned char *)(life ? nn__life_raw(nn, n ? n : 1) : nn__temp(nn, n ? n : 1));
            ok = out != NULL;
        }
    }
    nn__temp_free(nn, s);
    if (!ok && !life) nn__temp_free(nn, out);
    *unpacked = n;
    return ok ? out : NULL;
}

// The bytes of a file, or (path NULL) of the caller's memory, unpacked if they are gzip; into life or temporary memory.
static unsigned char *nn__load_bytes(nn_context *nn, const char *op, const char *path, const void *from, size_t size, int life, size_t *loaded)
{
    unsigned char *at, magic[2];
    const unsigned char *packed = (const unsigned char *)from;
    const char *name = path ? path : "the data";
    uint64_t file = size;
    int gzip;
    *loaded = 0;
    if (!nn_ok(nn)) return NULL;
    if (path && !NN__HAVE_FILES) { nn_fail(nn, "%s: there are no files: this program was compiled with NN_NO_STDIO", op); return NULL; }
    if (path && nn__path_kind(path, &file) != NN__PATH_FILE) { nn_fail(nn, "%s: there is no file %s", op, path); return NULL; }
    if (!path && !from) { nn_fail(nn, "%s: the data is NULL", op); return NULL; }
    if (!file) { nn_fail(nn, "%s: %s is empty", op, name); return NULL; }
    if (file > SIZE_MAX / 4) { nn_fail(nn, "%s: %s is too large for this machine", op, name); return NULL; }
    gzip = path ? nn__is_gzip(magic, nn__read_front(path, magic, 2)) : nn__is_gzip(packed, size);
    *loaded = (size_t)file;
    if (!path && gzip) return nn__gunzip(nn, op, name, packed, size, life, loaded);
    at = (unsigned char *)(life && !gzip ? nn__life_raw(nn, (size_t)file) : nn__temp(nn, (size_t)file));
    if (!at) return NULL;
    if (!path) memcpy(at, from, size);
    else if (nn__read_front(path, at, (size_t)file) != (size_t)file) {
        nn_fail(nn, "%s: %s cannot be read", op, path);
        if (!life || gzip) nn__temp_free(nn, at);
        return NULL;
    }
    if (gzip) {
        unsigned char *out = nn__gunzip(nn, op, name, at, (size_t)file, life, loaded);
        nn__temp_free(nn, at);
        return out;
    }
    return at;
}

// ---- datasets of arrays and callbacks ----------------------------------------------------------------------
static void nn__dataset_free(void *arg) { nn__mutex_free(&((nn_dataset *)arg)->mutex); }

static nn_dataset *nn__dataset_make(nn_context *nn, const char *op, int64_t count, nn_shape x_shape, nn_shape y_shape)
{
    nn_dataset *d;
    int64_t width = nn__checked_count(x_shape.ndim, x_shape.d, sizeof(float)), y_width = nn__checked_count(y_shape.ndim, y_shape.d, sizeof(float));
    if (!nn_ok(nn)) return NULL;
    if (width < 0 || x_shape.ndim >= NN_MAX_DIMS) { nn_fail(nn, "%s: impossible shape %s of one sample", op, nn__dims_text(x_shape.ndim, x_shape.d).s); return NULL; }
    if (y_width < 0 || y_shape.ndim >= NN_MAX_DIMS) { nn_fail(nn, "%s: impossible shape %s of one target", op, nn__dims_text(y_shape.ndim, y_shape.d).s); return NULL; }
    if (count < 0 || (uint64_t)count > SIZE_MAX / 16) { nn_fail(nn, "%s: impossible number of samples: %lld", op, (long long)count); return NULL; }
    d = (nn_dataset *)nn__life(nn, sizeof *d);
    if (!d) return NULL;
    d->nn = nn; d->count = count; d->x_shape = x_shape; d->y_shape = y_shape; d->width = width; d->y_width = y_width;
    nn__mutex_init(&d->mutex);
    nn__on_free(nn, nn__dataset_free, d);
    return nn->failed ? NULL : d;
}

static void nn__read_target(const nn_dataset *d, int64_t i, float *y, int64_t *label)
{
    if (label && d->labels) *label = d->labels[i];
    if (y && d->y) memcpy(y, d->y + i * d->y_width, (size_t)d->y_width * sizeof *y);
}

static int nn__read_arrays(nn_dataset *d, int64_t i, float *x, float *y, int64_t *label, char *why, size_t room)
{
    (void)why; (void)room;
    if (x) memcpy(x, d->x + i * d->width, (size_t)d->width * sizeof *x);
    nn__read_target(d, i, y, label);
    return 1;
}

static int nn__read_callback(nn_dataset *d, int64_t i, float *x, float *y, int64_t *label, char *why, size_t room)
{
    int64_t n = 0;
    int ok;
    nn__lock(&d->mutex);
    ok = d->get(d->self, i, x ? x : d->scratch, y ? y : d->scratch + d->width, &n);
    nn__unlock(&d->mutex);
    if (label) *label = n;
    if (!ok) snprintf(why, room, "sample %lld: the dataset's get failed", (long long)i);
    else if (d->target == NN__TARGET_CLASS && (n < 0 || n >= d->classes)) {
        snprintf(why, room, "sample %lld: class %lld is not in 0..%lld", (long long)i, (long long)n, (long long)d->classes - 1);
        ok = 0;
    }
    return ok;
}

static int nn__read_subset(nn_dataset *d, int64_t i, float *x, float *y, int64_t *label, char *why, size_t room)
{
    return d->of->read(d->of, d->indices[i], x, y, label, why, room);
}

// Finds the number of classes if it is not given, and checks every label.
static int nn__check_labels(nn_context *nn, const char *op, nn_dataset *d)
{
    int64_t i, most = -1;
    for (i = 0; i < d->count; i++) {
        if (d->labels[i] < 0 || (d->classes > 0 && d->labels[i] >= d->classes)) {
            nn_fail(nn, "%s: sample %lld has the class %lld; classes are 0..%lld", op, (long long)i, (long long)d->labels[i],
                    d->classes ? (long long)d->classes - 1 : (long long)NN__MOST_CLASSES - 1);
            return 0;
        }
        most = nn__max(most, d->labels[i]);
    }
    if (most >= NN__MOST_CLASSES) { nn_fail(nn, "%s: class %lld is too large; classes are 0..%d", op, (long long)most, (int)NN__MOST_CLASSES - 1); return 0; }
    if (!d->classes) d->classes = most + 1;
    d->target = NN__TARGET_CLASS;
    return 1;
}

NN_API nn_dataset *nn_dataset_new(nn_context *nn, const nn_dataset_desc *desc)
{
    const char *op = "nn_dataset_new";
    nn_dataset *d;
    if (!nn_ok(nn)) return NULL;
    if (!desc || (!desc->x == !desc->get)) { nn_fail(nn, "%s: give one of x and get", op); return NULL; }
    if ((desc->y && desc->labels) || (desc->get && (desc->y || desc->labels))) { nn_fail(nn, "%s: give one of y, labels and get", op); return NULL; }
    if (desc->classes < 0 || desc->classes > NN__MOST_CLASSES || (desc->classes && desc->y)) { nn_fail(nn, "%s: %lld classes", op, (long long)desc->classes); return NULL; }
    d = nn__dataset_make(nn, op, desc->count, desc->x_shape, desc->y_shape);
    if (!d) return NULL;
    d->classes = desc->classes;
    if (desc->get) {
        d->read = nn__read_callback;
        d->get = desc->get;
        d->self = desc->self;
        d->target = d->classes ? NN__TARGET_CLASS : NN__TARGET_NUMBERS;
        d->scratch = (float *)nn__life(nn, nn__mul_size((size_t)d->width + (size_t)d->y_width, sizeof *d->scratch));
        return d->scratch ? d : NULL;
    }
    d->read = nn__read_arrays;
    d->x = desc->x; d->y = desc->y; d->labels = desc->labels;
    if (d->y) d->target = NN__TARGET_NUMBERS;
    if (d->labels && !nn__check_labels(nn, op, d)) return NULL;
    if (!d->labels) d->classes = 0;
    return d;
}

NN_API int64_t     nn_dataset_count(const nn_dataset *data)   { return data ? data->count : 0; }
NN_API int64_t     nn_dataset_classes(const nn_dataset *data) { return data ? data->classes : 0; }
NN_API nn_shape    nn_dataset_shape(const nn_dataset *data)
{
    nn_shape none;
    memset(&none, 0, sizeof none);
    return data ? data->x_shape : none;
}
NN_API const char *nn_dataset_class(const nn_dataset *data, int64_t label)
{
    return data && data->names && label >= 0 && label < data->classes ? data->names[label] : NULL;
}

NN_API int nn_dataset_get(nn_dataset *data, int64_t index, float *x, float *y, int64_t *label)
{
    char why[256];
    if (!data || !nn_ok(data->nn)) return 0;
    if (index < 0 || index >= data->count) {
        nn_fail(data->nn, "nn_dataset_get: sample %lld of %lld", (long long)index, (long long)data->count);
        return 0;
    }
    if (data->read(data, index, x, y, label, why, sizeof why)) return 1;
    nn_fail(data->nn, "nn_dataset_get: %s", why);
    return 0;
}

static nn_dataset *nn__subset_make(nn_dataset *data, const char *op, int64_t *indices, int64_t count)   // indices: of data, in life memory
{
    nn_dataset *d = nn__dataset_make(data->nn, op, count, data->x_shape, data->y_shape);
    int64_t i;
    if (!d) return NULL;
    if (data->of) for (i = 0; i < count; i++) indices[i] = data->indices[indices[i]];      // a subset of a subset is a subset of the whole
    d->of = data->of ? data->of : data;
    d->indices = indices;
    d->read = nn__read_subset;
    d->target = data->target;
    d->classes = data->classes;
    d->names = data->names;
    return d;
}

NN_API nn_dataset *nn_subset_new(nn_dataset *data, const int64_t *indices, int64_t count)
{
    nn_context *nn = data ? data->nn : NULL;
    int64_t *list, i;
    if (!nn_ok(nn)) return NULL;
    if (count < 0 || (count && !indices)) { nn_fail(nn, "nn_subset_new: %lld indices", (long long)count); return NULL; }
    for (i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= data->count) {
            nn_fail(nn, "nn_subset_new: index %lld of a dataset with %lld samples", (long long)indices[i], (long long)data->count);
            return NULL;
        }
    list = (int64_t *)nn__life(nn, nn__mul_size((size_t)count, sizeof *list));
    if (!list) return NULL;
    if (count) memcpy(list, indices, (size_t)count * sizeof *list);
    return nn__subset_make(data, "nn_subset_new", list, count);
}

// The class of every sample (0 where there are none), in temporary memory.
static int32_t *nn__all_labels(nn_dataset *d, const char *op)
{
    int32_t *list = (int32_t *)nn__temp(d->nn, nn__mul_size((size_t)d->count, sizeof *list));
    char why[256];
    int64_t i;
    for (i = 0; list && i < d->count; i++) {
        int64_t label = 0;
        if (d->target == NN__TARGET_CLASS && !d->read(d, i, NULL, NULL, &label, why, sizeof why)) {
            nn_fail(d->nn, "%s: %s", op, why);
            nn__temp_free(d->nn, list);
            return NULL;
        }
        list[i] = (int32_t)label;
    }
    return list;
}

// Of n samples of a class the first part gets floor(share n); the samples still missing to round(share count) go to the classes with the
// largest remainders (Hamilton's method), so that both the whole and every class are as exact as whole numbers allow.
typedef struct nn__quota { int64_t count, left; double rest; } nn__quota;
static void nn__set_quotas(nn__quota *q, int64_t classes, double share, int64_t total)
{
    int64_t c;
    for (c = 0; c < classes; c++) {
        double want = share * (double)q[c].count;
        q[c].left = (int64_t)floor(want);
        q[c].rest = want - (double)q[c].left;
        total -= q[c].left;
    }
    while (total > 0) {              // ties: the larger class, then the first
        int64_t best = -1;
        for (c = 0; c < classes; c++)
            if (q[c].left < q[c].count && (best < 0 || q[c].rest > q[best].rest || (!(q[c].rest < q[best].rest) && q[c].count > q[best].count))) best = c;
        if (best < 0) return;
        q[best].left++;
        q[best].rest -= 2.0;
        total--;
    }
}

NN_API void nn_split_data(nn_dataset *data, double share, nn_dataset **first, nn_dataset **second)
{
    nn_context *nn = data ? data->nn : NULL;
    const char *op = "nn_split_data";
    int64_t *order, *list[2], taken[2], i, n = data ? data->count : 0, total, classes;
    int32_t *labels;
    nn__quota *q;
    nn__mark m;
    int ok = 0;
    if (first)  *first = NULL;
    if (second) *second = NULL;
    if (!nn_ok(nn)) return;
    if (!(share >= 0.0 && share <= 1.0)) { nn_fail(nn, "%s: the share %g is not in 0..1", op, share); return; }
    total = (int64_t)floor(share * (double)n + 0.5);
    taken[0] = taken[1] = 0;
    m = nn__get_mark(nn);
    list[0] = (int64_t *)nn__life(nn, nn__mul_size((size_t)total, sizeof *order));
    list[1] = (int64_t *)nn__life(nn, nn__mul_size((size_t)(n - total), sizeof *order));
    order = (int64_t *)nn__temp(nn, nn__mul_size((size_t)n, sizeof *order));
    labels = nn__all_labels(data, op);
    classes = data->target == NN__TARGET_CLASS ? nn__max(data->classes, 1) : 1;
    q = (nn__quota *)nn__temp(nn, nn__mul_size((size_t)classes, sizeof *q));
    if (list[0] && list[1] && order && labels && q) {
        memset(q, 0, (size_t)classes * sizeof *q);
        for (i = 0; i < n; i++) { order[i] = i; q[labels[i]].count++; }
        nn__set_quotas(q, classes, share, total);
        nn__shuffle(order, n, nn->seed, 0, nn__ordinal(NN__DOMAIN_SPLIT, 0));
        for (i = 0; i < n; i++) {
            int part = q[labels[order[i]]].left-- > 0 ? 0 : 1;
            list[part][taken[part]++] = order[i];
        }
        ok = 1;
    }
    nn__temp_free(nn, q);
    nn__temp_free(nn, labels);
    nn__temp_free(nn, order);
    nn__rewind_memory(nn, &m);
    if (!ok) return;
    if (first)  *first = nn__subset_make(data, op, list[0], taken[0]);
    if (second) *second = nn__subset_make(data, op, list[1], taken[1]);
}

// ---- idx (MNIST's format) and CIFAR-10 --------------------------------------------------------------------------
// idx: two zero bytes, a type code, the number of dimensions, the dimensions (32 bits, big-endian), then the numbers, big-endian.
typedef struct nn__idx { const unsigned char *at; int type, ndim; size_t element; int64_t d[NN_MAX_DIMS], width; } nn__idx;

static int nn__idx_header(nn_context *nn, const char *op, const char *name, const unsigned char *p, size_t size, nn__idx *x)
{
    uint64_t left;
    int64_t all = 1;
    int i;
    if (size < 4 || p[0] || p[1]) { nn_fail(nn, "%s: %s is not an idx file (it must begin with two zero bytes)", op, name); return 0; }
    x->type = p[2];
    x->ndim = p[3];
    x->element = x->type == 8 || x->type == 9 ? 1 : x->type == 11 ? 2 : x->type == 12 || x->type == 13 ? 4 : x->type == 14 ? 8 : 0;
    if (!x->element) { nn_fail(nn, "%s: %s has the unknown type code %d", op, name, x->type); return 0; }
    if (x->ndim < 1 || x->ndim >= NN_MAX_DIMS) { nn_fail(nn, "%s: %s has %d dimensions; 1..%d are possible", op, name, x->ndim, NN_MAX_DIMS - 1); return 0; }
    if (size < 4 + 4 * (size_t)x->ndim) { nn_fail(nn, "%s: %s ends within its header", op, name); return 0; }
    left = (size - 4 - 4 * (size_t)x->ndim) / x->element;
    for (i = 0; i < x->ndim; i++) {
        x->d[i] = (int64_t)nn__big32(p + 4 + 4 * i);
        if (x->d[i] == 0) { nn_fail(nn, "%s: %s holds nothing: its shape is %s", op, name, nn__dims_text(i + 1, x->d).s); return 0; }
        all = (uint64_t)x->d[i] > left / (uint64_t)all ? -1 : all * x->d[i];
        if (all < 0) break;
    }
    if (all < 0 || (size_t)all * x->element != size - 4 - 4 * (size_t)x->ndim) {
        for (i = 0; i < x->ndim; i++) x->d[i] = (int64_t)nn__big32(p + 4 + 4 * i);
        nn_fail(nn, "%s: the header of %s says %s numbers of %d bytes, which does not fit its size of %llu bytes", op, name, nn__dims_text(x->ndim, x->d).s,
                (int)x->element, (unsigned long long)size);
        return 0;
    }
    x->at = p + 4 + 4 * x->ndim;
    x->width = all / x->d[0];
    return 1;
}

static double nn__idx_number(int type, const unsigned char *p)
{
    uint32_t v;
    uint64_t w;
    float f;
    double d;
    if (type == 8) return p[0];
    if (type == 9) return p[0] < 128 ? p[0] : p[0] - 256;
    if (type == 11) return p[0] < 128 ? p[0] * 256 + p[1] : p[0] * 256 + p[1] - 65536;
    v = nn__big32(p);
    if (type == 12) return v < 0x80000000u ? (double)v : (double)v - 4294967296.0;
    if (type == 13) { memcpy(&f, &v, sizeof f); return f; }
    w = (uint64_t)v << 32 | nn__big32(p + 4);
    memcpy(&d, &w, sizeof d);
    return d;
}

static int nn__read_bytes(nn_dataset *d, int64_t i, float *x, float *y, int64_t *label, char *why, size_t room)
{
    const unsigned char *p;
    int64_t k, record = i;
    int part = 0;
    (void)why; (void)room;
    while (record >= d->part[part].count) record -= d->part[part++].count;
    p = d->part[part].at + (size_t)record * d->pitch + d->offset;
    if (x && d->type == 8) for (k = 0; k < d->width; k++) x[k] = (float)p[k] / 255.0f;      // bytes are pixels: 0..1
    else if (x) for (k = 0; k < d->width; k++) x[k] = (float)nn__idx_number(d->type, p + (size_t)k * (d->pitch / (size_t)d->width));
    nn__read_target(d, i, y, label);
    return 1;
}

static int nn__idx_targets(nn_context *nn, const char *op, nn_dataset *d, const nn__idx *l)
{
    int64_t i, n = l->d[0] * l->width, *labels;
    float *y;
    if (l->ndim == 1 && l->type < 13) {
        labels = (int64_t *)nn__life_raw(nn, nn__mul_size((size_t)n, sizeof *labels));
        if (!labels) return 0;
        for (i = 0; i < n; i++) labels[i] = (int64_t)nn__idx_number(l->type, l->at + (size_t)i * l->element);
        d->labels = labels;
        return nn__check_labels(nn, op, d);
    }
    y = (float *)nn__life_raw(nn, nn__mul_size((size_t)n, sizeof *y));
    if (!y) return 0;
    for (i = 0; i < n; i++) y[i] = (float)nn__idx_number(l->type, l->at + (size_t)i * l->element);
    d->y = y;
    d->target = NN__TARGET_NUMBERS;
    return 1;
}

static nn_dataset *nn__idx_open(nn_context *nn, const char *op, const char *image_path, const void *images, size_t image_bytes,
                                const char *label_path, const void *labels, size_t label_bytes)
{
    nn__idx x, l;
    nn_shape x_shape, y_shape;
    nn_dataset *d;
    unsigned char *at;
    size_t size;
    int with_labels = label_path || labels, i, wide;
    nn__mark m;
    if (!nn_ok(nn)) return NULL;
    m = nn__get_mark(nn);
    memset(&x_shape, 0, sizeof x_shape);
    memset(&y_shape, 0, sizeof y_shape);
    at = nn__load_bytes(nn, op, image_path, images, image_bytes, 1, &size);
    if (!at || !nn__idx_header(nn, op, image_path ? image_path : "the images", at, size, &x)) { nn__rewind_memory(nn, &m); return NULL; }
    if (x.ndim == 3) { x_shape.ndim = 3; x_shape.d[0] = 1; x_shape.d[1] = x.d[1]; x_shape.d[2] = x.d[2]; }   // (N, H, W): one channel
    else for (i = 1; i < x.ndim; i++) x_shape.d[x_shape.ndim++] = x.d[i];
    if (x.ndim == 1) { x_shape.ndim = 1; x_shape.d[0] = 1; }
    at = with_labels ? nn__load_bytes(nn, op, label_path, labels, label_bytes, 0, &size) : NULL;
    if (with_labels && (!at || !nn__idx_header(nn, op, label_path ? label_path : "the labels", at, size, &l))) {
        nn__temp_free(nn, at);
        nn__rewind_memory(nn, &m);
        return NULL;
    }
    wide = with_labels && (l.ndim > 1 || l.type >= 13);
    if (wide) for (i = 1; i < l.ndim; i++) y_shape.d[y_shape.ndim++] = l.d[i];
    if (with_labels && l.d[0] != x.d[0]) nn_fail(nn, "%s: there are %lld images but %lld labels", op, (long long)x.d[0], (long long)l.d[0]);
    d = nn__dataset_make(nn, op, x.d[0], x_shape, y_shape);
    if (d) {
        d->part = (nn__records *)nn__life(nn, sizeof *d->part);
        d->read = nn__read_bytes;
        d->parts = 1;
        d->type = x.type;
        d->pitch = (size_t)x.width * x.element;
        if (!d->part || (with_labels && !nn__idx_targets(nn, op, d, &l))) d = NULL;
        else { d->part->at = x.at; d->part->count = x.d[0]; }
    }
    nn__temp_free(nn, at);
    nn__rewind_memory(nn, &m);
    return d;
}

NN_API nn_dataset *nn_idx_load(nn_context *nn, const char *images, const char *labels)
{
    if (nn_ok(nn) && !images) nn_fail(nn, "nn_idx_load: the path is NULL");
    return nn__idx_open(nn, "nn_idx_load", images, NULL, 0, labels, NULL, 0);
}
NN_API nn_dataset *nn_idx_parse(nn_context *nn, const void *images, size_t image_bytes, const void *labels, size_t label_bytes)
{
    return nn__idx_open(nn, "nn_idx_parse", NULL, images, image_bytes, NULL, labels, label_bytes);
}

// CIFAR-10, binary version: records of one label byte and 3 x 32 x 32 bytes of red, green, blue.
enum { NN__CIFAR_RECORD = 1 + 3 * 32 * 32 };
static nn_dataset *nn__cifar_open(nn_context *nn, const char *op, const char *const *files, int parts, const void *bytes, size_t size)
{
    static const char *const classes[10] = { "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck" };
    nn_shape x_shape, y_shape;
    nn_dataset *d = NULL;
    nn__records *part;
    int64_t *labels, count = 0, i, k = 0;
    int p;
    nn__mark m;
    if (!nn_ok(nn)) return NULL;
    if (parts < 1) { nn_fail(nn, "%s: no files", op); return NULL; }
    m = nn__get_mark(nn);
    memset(&x_shape, 0, sizeof x_shape);
    memset(&y_shape, 0, sizeof y_shape);
    x_shape.ndim = 3; x_shape.d[0] = 3; x_shape.d[1] = x_shape.d[2] = 32;
    part = (nn__records *)nn__life(nn, nn__mul_size((size_t)parts, sizeof *part));
    for (p = 0; part && p < parts; p++) {
        const char *path = files ? files[p] : NULL, *name = path ? path : "the data";
        size_t loaded;
        if (files && !path) nn_fail(nn, "%s: file %d: the path is NULL", op, p);
        part[p].at = nn__load_bytes(nn, op, path, bytes, size, 1, &loaded);
        if (!part[p].at) break;
        if (loaded == 0 || loaded % NN__CIFAR_RECORD) {
            nn_fail(nn, "%s: %s has %llu bytes, which is not a multiple of %d", op, name, (unsigned long long)loaded, (int)NN__CIFAR_RECORD);
            break;
        }
        part[p].count = (int64_t)(loaded / NN__CIFAR_RECORD);
        count += part[p].count;
        for (i = 0; i < part[p].count; i++)
            if (part[p].at[i * NN__CIFAR_RECORD] > 9)
                nn_fail(nn, "%s: record %lld of %s has the class %d; classes are 0..9", op, (long long)i, name, part[p].at[i * NN__CIFAR_RECORD]);
    }
    nn__rewind_memory(nn, &m);
    labels = part && nn_ok(nn) ? (int64_t *)nn__life_raw(nn, nn__mul_size((size_t)count, sizeof *labels)) : NULL;
    if (labels) d = nn__dataset_make(nn, op, count, x_shape, y_shape);
    if (!d) return NULL;
    for (p = 0; p < parts; p++) for (i = 0; i < part[p].count; i++) labels[k++] = part[p].at[i * NN__CIFAR_RECORD];
    d->part = part; d->parts = parts; d->type = 8; d->pitch = NN__CIFAR_RECORD; d->offset = 1;
    d->read = nn__read_bytes;
    d->labels = labels;
    d->target = NN__TARGET_CLASS;
    d->classes = 10;
    d->names = (char **)nn__life(nn, sizeof classes);
    for (p = 0; d->names && p < 10; p++) d->names[p] = nn__copy_string(nn, classes[p]);
    return nn_ok(nn) ? d : NULL;
}

NN_API nn_dataset *nn_cifar_load(nn_context *nn, const char *const *files, int count)
{
    if (nn_ok(nn) && !files) nn_fail(nn, "nn_cifar_load: the list of files is NULL");
    return nn__cifar_open(nn, "nn_cifar_load", files, count, NULL, 0);
}
NN_API nn_dataset *nn_cifar_parse(nn_context *nn, const void *bytes, size_t count) { return nn__cifar_open(nn, "nn_cifar_parse", NULL, 1, bytes, count); }

// ---- CSV (RFC 4180) ------------------------------------------------------------------------------------------------
// Two passes over the text: the first checks every line and learns which columns hold numbers and which words; the second converts.
NN__FLOAT_BEGIN
// A decimal number that fills the field: not strtod, which follows the locale. Exact up to 15 digits and 22 powers of ten.
static int nn__parse_number(const char *s, size_t n, double *value)
{
    size_t i = 0;
    uint64_t m = 0;
    int exponent = 0, digits = 0, negative = n && s[0] == '-', point = 0, e = 0, e_negative;
    double v, p = 1.0, power = 10.0;
    if (n && (s[0] == '-' || s[0] == '+')) i++;
    for (; i < n && ((s[i] >= '0' && s[i] <= '9') || (s[i] == '.' && !point)); i++) {
        if (s[i] == '.') { point = 1; continue; }
        digits++;
        if (m < UINT64_MAX / 10 - 10) { m = m * 10 + (uint64_t)(s[i] - '0'); exponent -= exponent > -9999 ? point : 0; }
        else if (exponent < 9999) exponent += !point;
    }
    if (!digits) return 0;
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        e_negative = i < n && s[i] == '-';
        if (i < n && (s[i] == '-' || s[i] == '+')) i++;
        if (i == n) return 0;
        for (; i < n && s[i] >= '0' && s[i] <= '9'; i++) if (e < 9999) e = e * 10 + (s[i] - '0');
        exponent += e_negative ? -e : e;
    }
    if (i < n) return 0;
    for (e = exponent < 0 ? -exponent : exponent; e > 0 && p <= DBL_MAX; e >>= 1, power *= power) if (e & 1) p *= power;
    v = exponent < 0 ? (double)m / p : m ? (double)m * p : 0.0;
    *value = negative ? -v : v;
    return 1;
}
NN__FLOAT_END

static int nn__is_missing(const char *s, size_t n)
{
    static const char *const words[] = { "?", "NA", "N/A", "NaN", "null" };
    size_t i, k;
    if (n == 0) return 1;
    for (i = 0; i < sizeof words / sizeof *words; i++) {
        for (k = 0; k < n && words[i][k] && (s[k] | 32) == (words[i][k] | 32); k++) { }
        if (k == n && !words[i][k]) return 1;
    }
    return 0;
}

typedef struct nn__csv {
    nn_context *nn;
    const char *op, *name;
    char    *at, *end;
    char     separator;
    int64_t  line;                   // where `at` is, from 1
    char    *field;                  // the last field, without quotes and surrounding blanks
    size_t   length;
    int      last;                   // it was the last one of its row
} nn__csv;

enum { NN__COLUMN_FEATURE, NN__COLUMN_IGNORED, NN__COLUMN_TARGET };
typedef struct nn__column {
    const char *name;
    size_t   length;
    int      role, text;             // text: it holds words
    int64_t  words, number_line, word_line, missing_line, count;    // different words; first lines with each kind, 0 = none; numbers
    double   sum;
} nn__column;

static int nn__csv_newline(nn__csv *c)                   // \n, \r\n or \r
{
    if (c->at == c->end || (*c->at != '\n' && *c->at != '\r')) return 0;
    if (*c->at == '\r' && c->at + 1 < c->end && c->at[1] == '\n') c->at++;
    c->at++;
    c->line++;
    return 1;
}

static void nn__csv_blanks(nn__csv *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t') && *c->at != c->separator) c->at++;
}

static int nn__csv_row(nn__csv *c)                       // moves to the next row; 0 at the end
{
    while (nn__csv_newline(c)) { }
    return c->at < c->end;
}

static int nn__csv_field(nn__csv *c, int unescape)       // unescape: "" becomes ", in place, so only once
{
    char *to;
    int64_t line = c->line;
    nn__csv_blanks(c);
    c->field = to = c->at;
    if (c->at < c->end && *c->at == '"') {
        c->field = to = ++c->at;
        for (;; c->at++) {
            if (c->at == c->end) { nn_fail(c->nn, "%s: %s, line %lld: the quote is never closed", c->op, c->name, (long long)line); return 0; }
            if (*c->at == '"') {
                if (c->at + 1 == c->end || c->at[1] != '"') break;
                if (!unescape) to++;
                c->at++;
            } else if (*c->at == '\n' || (*c->at == '\r' && (c->at + 1 == c->end || c->at[1] != '\n'))) c->line++;
            if (unescape) *to = *c->at;
            to++;
        }
        c->at++;
        nn__csv_blanks(c);
    } else {
        while (c->at < c->end && *c->at != c->separator && *c->at != '\n' && *c->at != '\r') c->at++;
        to = c->at;
        while (to > c->field && (to[-1] == ' ' || to[-1] == '\t')) to--;
    }
    c->length = (size_t)(to - c->field);
    c->last = 1;
    if (c->at == c->end || nn__csv_newline(c)) return 1;
    if (*c->at != c->separator) {
        nn_fail(c->nn, "%s: %s, line %lld: text after a closing quote", c->op, c->name, (long long)c->line);
        return 0;
    }
    c->at++;
    c->last = 0;
    return 1;
}

// Words by (column, text), numbered per column in order of appearance: a hash table with open addressing.
typedef struct nn__word { const char *text; size_t length; int64_t column, number; } nn__word;
typedef struct nn__words { nn_context *nn; nn__word *slot; size_t room, count; } nn__words;

static nn__word *nn__word_slot(nn__words *w, int64_t column, const char *s, size_t n)      // where it is or belongs
{
    uint64_t h = 14695981039346656037u ^ (uint64_t)column;           // FNV-1a
    size_t i;
    for (i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    for (i = (size_t)(h ^ h >> 29) & (w->room - 1);; i = (i + 1) & (w->room - 1)) {
        nn__word *e = &w->slot[i];
        if (!e->text || (e->column == column && e->length == n && !memcmp(e->text, s, n))) return e;
    }
}

static int nn__words_grow(nn__words *w)
{
    nn__words old = *w;
    size_t i;
    w->room = old.room ? old.room * 2 : 64;
    w->slot = (nn__word *)nn__temp(w->nn, nn__mul_size(w->room, sizeof *w->slot));
    if (!w->slot) { *w = old; return 0; }
    memset(w->slot, 0, w->room * sizeof *w->slot);
    for (i = 0; i < old.room; i++)
        if (old.slot[i].text) *nn__word_slot(w, old.slot[i].column, old.slot[i].text, old.slot[i].length) = old.slot[i];
    nn__temp_free(w->nn, old.slot);
    return 1;
}

static int64_t nn__word_number(nn__words *w, nn__column *column, int64_t index, const char *s, size_t n)     // -1: out of memory
{
    nn__word *e;
    if (w->count * 2 >= w->room && !nn__words_grow(w)) return -1;
    e = nn__word_slot(w, index, s, n);
    if (!e->text) {
        e->text = s; e->length = n; e->column = index; e->number = column->words++;
        w->count++;
    }
    return e->number;
}

static void nn__sort_numbers(double *a, int64_t n)       // heapsort
{
    int64_t i, k, child;
    for (i = n / 2 - 1 + n; i > 0; i--) {                // first n/2 times: make a heap; then: move the largest behind it
        int64_t size = i >= n ? n : i;
        double v;
        if (i >= n) { k = i - n; v = a[k]; }
        else { k = 0; v = a[i]; a[i] = a[0]; }
        for (; (child = 2 * k + 1) < size; k = child) {
            if (child + 1 < size && a[child + 1] > a[child]) child++;
            if (!(a[child] > v)) break;
            a[k] = a[child];
        }
        a[k] = v;
    }
}

// What the sections of the work share.
typedef struct nn__sheet {
    nn__csv     csv;
    nn_csv_desc desc;
    nn__column *column;
    int64_t     columns, features, rows, target;         // target: its column, or -1
    nn__words   words;
    float      *x, *y;
    int64_t    *labels;
    double     *values;              // of the target, where classes are numbers
    char      **names;
    int64_t     classes;
} nn__sheet;

static int nn__csv_error(nn__sheet *t, int64_t line, int64_t column, const char *what)
{
    nn__column *c = &t->column[column];
    nn_fail(t->csv.nn, "%s: %s, line %lld, column %lld (%.*s): %s", t->csv.op, t->csv.name, (long long)line, (long long)column + 1,
            (int)nn__min((int64_t)c->length, 40), c->name ? c->name : "", what);
    return 0;
}

static int64_t nn__csv_find(nn__sheet *t, const char *name)      // without a header, columns are called "1", "2", ...
{
    char number[24];
    int64_t i;
    for (i = 0; i < t->columns; i++) {
        const char *s = t->column[i].name;
        size_t n = t->column[i].length;
        if (t->desc.no_header) { n = (size_t)snprintf(number, sizeof number, "%lld", (long long)i + 1); s = number; }
        if (strlen(name) == n && !memcmp(name, s, n)) return i;
    }
    nn_fail(t->csv.nn, "%s: %s has no column \"%s\"", t->csv.op, t->csv.name, name);
    return -1;
}

static int nn__csv_columns(nn__sheet *t)            // counts and names the columns, finds the target
{
    nn__csv *c = &t->csv, start;
    nn_context *nn = c->nn;
    int64_t i;
    int k;
    if (c->end - c->at >= 3 && !memcmp(c->at, "\xEF\xBB\xBF", 3)) c->at += 3;        // UTF-8's byte order mark
    if (memchr(c->at, 0, (size_t)(c->end - c->at))) { nn_fail(nn, "%s: %s is not text (it contains zero bytes)", c->op, c->name); return 0; }
    for (k = 0; k < t->desc.skip_lines; k++) {
        while (c->at < c->end && *c->at != '\n' && *c->at != '\r') c->at++;
        nn__csv_newline(c);
    }
    if (!nn__csv_row(c)) { nn_fail(nn, "%s: %s has no rows", c->op, c->name); return 0; }
    start = *c;
    do { if (!nn__csv_field(c, 0)) return 0; t->columns++; } while (!c->last);
    *c = start;
    t->column = (nn__column *)nn__temp(nn, nn__mul_size((size_t)t->columns, sizeof *t->column));
    if (!t->column) return 0;
    memset(t->column, 0, (size_t)t->columns * sizeof *t->column);
    for (i = 0; !t->desc.no_header && i < t->columns; i++) {
        if (!nn__csv_field(c, 1)) return 0;
        t->column[i].name = c->field;
        t->column[i].length = c->length;
    }
    for (k = 0; k < t->desc.ignore_count; k++) {
        if ((i = nn__csv_find(t, t->desc.ignore[k])) < 0) return 0;
        t->column[i].role = NN__COLUMN_IGNORED;
    }
    if (t->desc.target) t->target = nn__csv_find(t, t->desc.target);
    else if (t->desc.target_column > 0) t->target = t->desc.target_column - 1;
    else if (t->desc.target_column == 0) for (t->target = t->columns - 1; t->target > 0 && t->column[t->target].role; t->target--) { }
    else t->target = -1;
    if (!nn_ok(nn)) return 0;
    if (t->target >= t->columns) { nn_fail(nn, "%s: %s has %lld columns; the target is number %lld", c->op, c->name, (long long)t->columns, (long long)t->target + 1); return 0; }
    if (t->target >= 0 && t->column[t->target].role == NN__COLUMN_IGNORED) { nn_fail(nn, "%s: the target column is among the ignored ones", c->op); return 0; }
    if (t->target >= 0) t->column[t->target].role = NN__COLUMN_TARGET;
    for (i = 0; i < t->columns; i++) t->features += t->column[i].role == NN__COLUMN_FEATURE;
    if (!t->features) { nn_fail(nn, "%s: %s has no column besides the target (is the separator right?)", c->op, c->name); return 0; }
    return 1;
}

static int nn__csv_scan(nn__sheet *t)               // the first pass
{
    nn__csv *c = &t->csv;
    int64_t i;
    while (nn__csv_row(c)) {
        int64_t line = c->line, n = 0;
        do {
            int64_t at = c->line;
            double v;
            if (!nn__csv_field(c, 0)) return 0;
            if (n < t->columns && t->column[n].role != NN__COLUMN_IGNORED) {
                nn__column *k = &t->column[n];
                if (nn__is_missing(c->field, c->length)) { if (!k->missing_line) k->missing_line = at; }
                else if (nn__parse_number(c->field, c->length, &v)) {
                    if (!(fabs(v) <= FLT_MAX)) return nn__csv_error(t, at, n, "the number is too large");
                    if (!k->number_line) k->number_line = at;
                    k->sum += v;
                    k->count++;
                } else if (!k->word_line) k->word_line = at;
            }
            n++;
        } while (!c->last);
        if (n != t->columns) {
            nn_fail(c->nn, "%s: %s, line %lld: %lld fields, but the first row has %lld", c->op, c->name, (long long)line, (long long)n, (long long)t->columns);
            return 0;
        }
        t->rows++;
    }
    if (!t->rows) { nn_fail(c->nn, "%s: %s has a header but no data", c->op, c->name); return 0; }
    for (i = 0; i < t->columns; i++) {
        nn__column *k = &t->column[i];
        if (k->role == NN__COLUMN_IGNORED) continue;
        if (k->missing_line && (k->role == NN__COLUMN_TARGET || !t->desc.missing_as_mean)) return nn__csv_error(t, k->missing_line, i, "the value is missing");
        if (k->missing_line && !k->number_line && !k->word_line) return nn__csv_error(t, k->missing_line, i, "all values are missing");
        k->text = k->word_line != 0;
        if (k->role == NN__COLUMN_TARGET && t->desc.regression && k->text) return nn__csv_error(t, k->word_line, i, "the target is not a number");
        if (k->role == NN__COLUMN_FEATURE && k->text && k->number_line)
            return nn__csv_error(t, nn__max(k->word_line, k->number_line), i, "numbers and words in one column");
    }
    return 1;
}

static int nn__csv_convert(nn__sheet *t)            // the second pass
{
    nn__csv *c = &t->csv;
    int64_t row, i, f;
    for (row = 0; row < t->rows && nn__csv_row(c); row++)
        for (i = f = 0; i < t->columns; i++) {
            nn__column *k = &t->column[i];
            double v = 0.0;
            int64_t line = c->line;
            if (!nn__csv_field(c, 1)) return 0;
            if (k->role == NN__COLUMN_IGNORED) continue;
            if (k->text) {           // a missing word is a word of its own
                if ((v = (double)nn__word_number(&t->words, k, i, c->field, c->length)) < 0) return 0;
            } else if (!nn__parse_number(c->field, c->length, &v)) v = k->sum / (double)k->count;
            if (k->role == NN__COLUMN_FEATURE) t->x[row * t->features + f++] = (float)v;
            else if (t->desc.regression) t->y[row] = (float)v;
            else if (k->text) t->labels[row] = (int64_t)v;
            else {
                t->values[row] = v;
                if (!(fabs(v) < 9007199254740992.0) || floor(v) < v)
                    return nn__csv_error(t, line, i, "a class must be a whole number or a word; set .regression = 1 to predict numbers");
            }
        }
    return 1;
}

static int nn__csv_classes(nn__sheet *t)            // numbers the classes and names them
{
    nn_context *nn = t->csv.nn;
    size_t i;
    int64_t n = 0, row;
    double *sorted;
    if (t->column[t->target].text) {
        t->classes = t->column[t->target].words;
        t->names = (char **)nn__life(nn, nn__mul_size((size_t)t->classes, sizeof *t->names));
        for (i = 0; t->names && i < t->words.room; i++) {
            nn__word *w = &t->words.slot[i];
            char *name;
            if (!w->text || w->column != t->target) continue;
            name = (char *)nn__life(nn, w->length + 1);
            if (!name) return 0;
            memcpy(name, w->text, w->length);
            t->names[w->number] = name;
        }
        return t->names != NULL;
    }
    sorted = (double *)nn__temp(nn, nn__mul_size((size_t)t->rows, sizeof *sorted));
    if (!sorted) return 0;
    memcpy(sorted, t->values, (size_t)t->rows * sizeof *sorted);
    nn__sort_numbers(sorted, t->rows);
    for (row = 0; row < t->rows; row++) if (!n || sorted[row] > sorted[n - 1]) sorted[n++] = sorted[row];
    t->classes = n;
    t->names = (char **)nn__life(nn, nn__mul_size((size_t)n, sizeof *t->names));
    for (row = 0; t->names && row < n; row++) {
        char text[32];
        snprintf(text, sizeof text, "%.0f", sorted[row] + 0.0);
        t->names[row] = nn__copy_string(nn, text);
    }
    for (row = 0; row < t->rows; row++) {                // the last value that is not greater
        int64_t low = 0, high = n - 1;
        while (low < high) { int64_t mid = (low + high + 1) / 2; if (sorted[mid] > t->values[row]) high = mid - 1; else low = mid; }
        t->labels[row] = low;
    }
    nn__temp_free(nn, sorted);
    return nn_ok(nn);
}

static nn_dataset *nn__csv_dataset(nn__sheet *t)
{
    nn_context *nn = t->csv.nn;
    nn__csv start;
    nn_shape x_shape, y_shape;
    nn_dataset *d;
    size_t rows;
    int numbers = t->desc.regression, classes;
    if (!nn__csv_columns(t)) return NULL;
    start = t->csv;
    if (!nn__csv_scan(t)) return NULL;
    t->csv = start;
    rows = (size_t)t->rows;
    classes = t->target >= 0 && !numbers;
    memset(&y_shape, 0, sizeof y_shape);
    x_shape = nn__shape1(t->features);
    if (t->target >= 0 && numbers) y_shape = nn__shape1(1);          // so that y is (B, 1), as the output of a linear layer
    t->x = (float *)nn__life_raw(nn, nn__mul_size(nn__mul_size(rows, (size_t)t->features), sizeof *t->x));
    if (t->target >= 0 && numbers) t->y = (float *)nn__life_raw(nn, nn__mul_size(rows, sizeof *t->y));
    if (classes) t->labels = (int64_t *)nn__life_raw(nn, nn__mul_size(rows, sizeof *t->labels));
    if (classes && !t->column[t->target].text) t->values = (double *)nn__temp(nn, nn__mul_size(rows, sizeof *t->values));
    if (!nn_ok(nn) || !nn__csv_convert(t) || (classes && !nn__csv_classes(t))) return NULL;
    d = nn__dataset_make(nn, t->csv.op, t->rows, x_shape, y_shape);
    if (!d) return NULL;
    d->read = nn__read_arrays;
    d->x = t->x; d->y = t->y; d->labels = t->labels; d->names = t->names; d->classes = t->classes;
    d->target = classes ? NN__TARGET_CLASS : t->y ? NN__TARGET_NUMBERS : NN__TARGET_NONE;
    return d;
}

static nn_dataset *nn__csv_open(nn_context *nn, const char *op, const char *path, const char *text, size_t bytes, const nn_csv_desc *desc)
{
    nn__sheet t;
    nn_dataset *d = NULL;
    size_t size;
    nn__mark m;
    char *at;
    if (!nn_ok(nn)) return NULL;
    m = nn__get_mark(nn);
    memset(&t, 0, sizeof t);
    if (desc) t.desc = *desc;
    t.words.nn = t.csv.nn = nn;
    t.csv.op = op;
    t.csv.name = path ? path : "the text";
    t.csv.separator = t.desc.separator ? t.desc.separator : ',';
    t.csv.line = 1;
    at = (char *)nn__load_bytes(nn, op, path, text, bytes, 0, &size);
    if (strchr("\"\r\n", t.csv.separator)) nn_fail(nn, "%s: the separator cannot be a quote or a line end", op);
    if (at && nn_ok(nn)) {
        t.csv.at = at;
        t.csv.end = at + size;
        d = nn__csv_dataset(&t);
    }
    nn__temp_free(nn, t.words.slot);
    nn__temp_free(nn, t.values);
    nn__temp_free(nn, t.column);
    nn__temp_free(nn, at);
    nn__rewind_memory(nn, &m);
    return d;
}

NN_API nn_dataset *nn_csv_load(nn_context *nn, const char *path, const nn_csv_desc *desc)
{
    if (nn_ok(nn) && !path) nn_fail(nn, "nn_csv_load: the path is NULL");
    return nn__csv_open(nn, "nn_csv_load", path, NULL, 0, desc);
}
NN_API nn_dataset *nn_csv_parse(nn_context *nn, const char *text, size_t bytes, const nn_csv_desc *desc)
{
    return nn__csv_open(nn, "nn_csv_parse", NULL, text, bytes, desc);
}

// ---- pictures in folders --------------------------------------------------------------------------------------------
// root/class/picture. Only the paths are kept; a picture is decoded when its sample is read.
typedef struct nn__folder_entry { struct nn__folder_entry *next; char *name; } nn__folder_entry;

static nn__folder_entry *nn__sort_folder(nn__folder_entry *list)      // merge sort: halves, sorted, joined
{
    nn__folder_entry *slow = list, *fast, *other, *head = NULL, **to = &head;
    if (!list || !list->next) return list;
    for (fast = list->next; fast && fast->next; fast = fast->next->next) slow = slow->next;
    other = slow->next;
    slow->next = NULL;
    list = nn__sort_folder(list);
    other = nn__sort_folder(other);
    while (list && other) {
        nn__folder_entry **from = strcmp(list->name, other->name) <= 0 ? &list : &other;
        *to = *from;
        to = &(*from)->next;
        *from = (*from)->next;
    }
    *to = list ? list : other;
    return head;
}

static char *nn__join_path(nn_context *nn, const char *folder, const char *name)
{
    size_t n = strlen(folder), k = strlen(name);
    char *p = (char *)nn__life(nn, n + k + 2);
    if (!p) return NULL;
    memcpy(p, folder, n);
    p[n] = '/';
    memcpy(p + n + 1, name, k);
    return p;
}

// Entries of one kind, sorted, their names being full paths; names that begin with a dot are left out.
static nn__folder_entry *nn__list_folder(nn_context *nn, const char *path, int kind, int64_t *count)
{
    nn__dir dir;
    const char *name;
    nn__folder_entry *list = NULL;
    if (!nn__dir_open(&dir, path)) { nn_fail(nn, "nn_folder_load: the folder %s cannot be read", path); return NULL; }
    while (nn_ok(nn) && (name = nn__dir_next(&dir)) != NULL) {
        uint64_t size;
        nn__folder_entry *e;
        if (name[0] == '.') continue;
        e = (nn__folder_entry *)nn__host_step(nn, sizeof *e);
        if (!e || (e->name = nn__join_path(nn, path, name)) == NULL) break;
        if (nn__path_kind(e->name, &size) != kind) continue;
        e->next = list;
        list = e;
        ++*count;
    }
    nn__dir_close(&dir);
    return nn_ok(nn) ? nn__sort_folder(list) : NULL;
}

// Bilinear: output pixel centre i + 0.5 lies at (i + 0.5) * in / out in the input; between four pixels, each weighs by its nearness.
static void nn__resize_picture(const unsigned char *from, int h, int w, int channels, float *to, int64_t out_h, int64_t out_w)
{
    int64_t i, j;
    int c;
    for (i = 0; i < out_h; i++)
        for (j = 0; j < out_w; j++) {
            double y = ((double)i + 0.5) * h / (double)out_h - 0.5, x = ((double)j + 0.5) * w / (double)out_w - 0.5, fy, fx;
            int64_t y0, x0, y1, x1;
            y = y < 0 ? 0 : y > h - 1 ? h - 1 : y;
            x = x < 0 ? 0 : x > w - 1 ? w - 1 : x;
            y0 = (int64_t)y; x0 = (int64_t)x;
            y1 = nn__min(y0 + 1, h - 1); x1 = nn__min(x0 + 1, w - 1);
            fy = y - (double)y0; fx = x - (double)x0;
            for (c = 0; c < channels; c++) {
                double a = from[(y0 * w + x0) * channels + c], b = from[(y0 * w + x1) * channels + c];
                double p = from[(y1 * w + x0) * channels + c], q = from[(y1 * w + x1) * channels + c];
                double top = a + (b - a) * fx, bottom = p + (q - p) * fx;
                to[(c * out_h + i) * out_w + j] = (float)((top + (bottom - top) * fy) / 255.0);
            }
        }
}

static int nn__read_picture(nn_dataset *d, int64_t i, float *x, float *y, int64_t *label, char *why, size_t room)
{
    int w = 0, h = 0, n = 0, ok;
    unsigned char *pixels;
    nn__read_target(d, i, y, label);
    if (!x) return 1;
    nn__lock(&d->mutex);
    pixels = d->folder.load(d->paths[i], &w, &h, &n, d->folder.channels);
    ok = pixels && w > 0 && h > 0;
    if (ok) nn__resize_picture(pixels, h, w, d->folder.channels, x, d->x_shape.d[1], d->x_shape.d[2]);
    if (pixels) d->folder.free(pixels);
    nn__unlock(&d->mutex);
    if (!ok) snprintf(why, room, "the picture %s cannot be read", d->paths[i]);
    return ok;
}

static int nn__folder_size(nn_context *nn, const char *path, nn_folder_desc *desc)       // the size of the first picture
{
    int w = 0, h = 0, n = 0;
    unsigned char *pixels = desc->load(path, &w, &h, &n, desc->channels);
    if (pixels) desc->free(pixels);
    if (!pixels || w < 1 || h < 1) { nn_fail(nn, "nn_folder_load: the picture %s cannot be read", path); return 0; }
    if (!desc->height) desc->height = h;
    if (!desc->width) desc->width = w;
    return 1;
}

static nn_dataset *nn__folder_open(nn_context *nn, const char *path, nn_folder_desc desc)
{
    nn__folder_entry *folder, *folders, *e;
    int64_t classes = 0, count = 0, label = 0, i = 0, *labels;
    nn_shape x_shape, y_shape;
    nn_dataset *d;
    char **paths, **names;
    nn__folder_entry **lists;
    folders = nn__list_folder(nn, path, NN__PATH_FOLDER, &classes);
    if (nn_ok(nn) && !classes) nn_fail(nn, "nn_folder_load: %s has no folders, one for each class", path);
    if (!nn_ok(nn)) return NULL;
    lists = (nn__folder_entry **)nn__host_step(nn, nn__mul_size((size_t)classes, sizeof *lists));
    names = (char **)nn__life(nn, nn__mul_size((size_t)classes, sizeof *names));
    if (!lists || !names) return NULL;
    for (folder = folders; folder && nn_ok(nn); folder = folder->next) {
        names[i] = folder->name + strlen(path) + 1;
        lists[i++] = nn__list_folder(nn, folder->name, NN__PATH_FILE, &count);
    }
    if (nn_ok(nn) && !count) nn_fail(nn, "nn_folder_load: the folders in %s are empty", path);
    if (!nn_ok(nn)) return NULL;
    paths = (char **)nn__life(nn, nn__mul_size((size_t)count, sizeof *paths));
    labels = (int64_t *)nn__life(nn, nn__mul_size((size_t)count, sizeof *labels));
    if (!paths || !labels) return NULL;
    for (i = 0; label < classes; label++)
        for (e = lists[label]; e; e = e->next) { paths[i] = e->name; labels[i++] = label; }
    if ((!desc.height || !desc.width) && !nn__folder_size(nn, paths[0], &desc)) return NULL;
    memset(&x_shape, 0, sizeof x_shape);
    memset(&y_shape, 0, sizeof y_shape);
    x_shape.ndim = 3; x_shape.d[0] = desc.channels; x_shape.d[1] = desc.height; x_shape.d[2] = desc.width;
    d = nn__dataset_make(nn, "nn_folder_load", count, x_shape, y_shape);
    if (!d) return NULL;
    d->read = nn__read_picture;
    d->folder = desc; d->paths = paths; d->labels = labels; d->names = names; d->classes = classes;
    d->target = NN__TARGET_CLASS;
    return d;
}

NN_API nn_dataset *nn_folder_load(nn_context *nn, const char *path, const nn_folder_desc *desc)
{
    nn_folder_desc f;
    nn_dataset *d;
    nn__mark m;
    if (!nn_ok(nn)) return NULL;
    if (!path || !desc || !desc->load || !desc->free) { nn_fail(nn, "nn_folder_load: give a path, and load and free (stbi_load, stbi_image_free)"); return NULL; }
    f = *desc;
    if (!f.channels) f.channels = 3;
    if ((f.channels != 1 && f.channels != 3) || f.height < 0 || f.width < 0) {
        nn_fail(nn, "nn_folder_load: %d channels, %d x %d pixels; channels must be 1 or 3", f.channels, f.height, f.width);
        return NULL;
    }
    if (!NN__HAVE_FILES) { nn_fail(nn, "nn_folder_load: there are no files: this program was compiled with NN_NO_STDIO"); return NULL; }
    m = nn__get_mark(nn);
    d = nn__folder_open(nn, path, f);
    nn__rewind_memory(nn, &m);
    return d;
}

// ---- scaling -----------------------------------------------------------------------------------------------------------
// x' = (x - mean) / std, per feature of (F), per channel (dimension 0 of a sample) of anything larger.
struct nn_scaler { nn_context *nn; nn_layer *layer; nn_tensor *mean, *std; nn_shape x_shape; };

static int64_t nn__channels(nn_shape s) { return s.ndim ? s.d[0] : 1; }

NN_API nn_tensor *nn_scale(nn_scaler *scaler, nn_tensor *x)
{
    nn_context *nn = scaler ? scaler->nn : NULL;
    nn_shape s;
    int i, n;
    if (!nn__check(nn, x, "nn_scale")) return nn__inert(nn ? nn : x ? x->nn : NULL);
    n = (int)nn__max(scaler->x_shape.ndim, 1);           // broadcast over the batch in front and the pixels behind: (C, 1, 1)
    if (x->ndim < n || x->shape[x->ndim - n] != nn__channels(scaler->x_shape)) {
        nn_fail(nn, "nn_scale: %s does not hold samples of the shape %s that the scaler was made for", nn__dims_text(x->ndim, x->shape).s,
                nn__dims_text(scaler->x_shape.ndim, scaler->x_shape.d).s);
        return nn__inert(nn);
    }
    memset(&s, 0, sizeof s);
    s.ndim = n;
    for (i = 1; i < n; i++) s.d[i] = 1;
    s.d[0] = x->shape[x->ndim - n];
    return nn_div(nn_sub(x, nn_reshape(scaler->mean, s)), nn_reshape(scaler->std, s));
}

static nn_tensor *nn__scaler_forward(void *self, nn_tensor *x) { return nn_scale((nn_scaler *)self, x); }

NN_API nn_scaler *nn_scaler_unfitted_new(nn_layer *model, nn_shape x_shape)
{
    nn_context *nn = nn__context_below(model);
    nn_scaler *s;
    nn_layer *l, *before;
    if (!nn_ok(nn)) return NULL;
    s = (nn_scaler *)nn__life(nn, sizeof *s);
    l = s ? nn__new_layer(nn, model, "scaler", "Scaler", nn__scaler_forward) : NULL;
    if (!l) return NULL;
    l->self = s;
    s->nn = nn;
    s->layer = l;
    s->x_shape = x_shape;
    s->mean = nn_buffer_new(l, "mean", nn__shape1(nn__channels(x_shape)));
    s->std  = nn_buffer_new(l, "std",  nn__shape1(nn__channels(x_shape)));
    if (nn__dead(s->mean) || nn__dead(s->std)) return NULL;
    nn__fill_view(nn, nn__view_of(s->std), 1.0);
    model->children--;               // it comes first whenever it was made, and does not shift the numbers that name other children
    if (model->child != l) {
        for (before = model->child; before->next != l; before = before->next) { }
        before->next = NULL;
        model->last_child = before;
        l->next = model->child;
        model->child = l;
    }
    return s;
}

// Mean and squared deviations of each sample's channel, joined with those of the samples before (Chan et al. 1979):
// d = mean_b - mean_a,  mean = mean_a + d n_b / n,  m2 = m2_a + m2_b + d^2 n_a n_b / n
static int nn__fit_scaler(nn_dataset *train, float *x, double *mean, double *m2)
{
    int64_t channels = nn__channels(train->x_shape), pixels = channels ? train->width / channels : 0, i, c, k;
    char why[256];
    for (i = 0; i < train->count; i++) {
        double n_a = (double)i * (double)pixels, n_b = (double)pixels, n = n_a + n_b;
        if (!train->read(train, i, x, NULL, NULL, why, sizeof why)) { nn_fail(train->nn, "nn_scaler_new: %s", why); return 0; }
        for (c = 0; pixels && c < channels; c++) {
            const float *p = x + c * pixels;
            double b = 0.0, m2_b = 0.0, d;
            for (k = 0; k < pixels; k++) b += p[k];
            b /= n_b;
            for (k = 0; k < pixels; k++) m2_b += (p[k] - b) * (p[k] - b);
            d = b - mean[c];
            mean[c] += d * n_b / n;
            m2[c] += m2_b + d * d * n_a * n_b / n;
        }
    }
    for (c = 0; c < channels; c++) {
        double n = (double)train->count * (double)pixels;
        m2[c] = n > 0.0 && m2[c] > 0.0 ? sqrt(m2[c] / n) : 1.0;
        if (!(fabs(mean[c]) <= FLT_MAX) || !(m2[c] <= FLT_MAX)) {
            nn_fail(train->nn, "nn_scaler_new: feature %lld has a value that is not finite", (long long)c);
            return 0;
        }
        if ((float)m2[c] < FLT_MIN) m2[c] = 1.0;         // constant
    }
    return 1;
}

NN_API nn_scaler *nn_scaler_new(nn_layer *model, nn_dataset *train)
{
    nn_context *nn = nn__context_below(model);
    nn_scaler *s;
    double *mean, *std;
    float *x;
    size_t n;
    nn__mark m;
    if (!nn_ok(nn)) return NULL;
    if (!train) { nn_fail(nn, "nn_scaler_new: the dataset is NULL (nn_scaler_unfitted_new needs none)"); return NULL; }
    if (!train->count) { nn_fail(nn, "nn_scaler_new: the dataset has no samples"); return NULL; }
    s = nn_scaler_unfitted_new(model, train->x_shape);
    if (!s) return NULL;
    m = nn__get_mark(nn);
    n = (size_t)nn__channels(train->x_shape);
    mean = (double *)nn__host_step(nn, nn__mul_size(n, sizeof *mean));
    std = (double *)nn__host_step(nn, nn__mul_size(n, sizeof *std));
    x = (float *)nn__host_step(nn, nn__mul_size((size_t)train->width, sizeof *x));
    if (mean && std && x) {
        memset(mean, 0, n * sizeof *mean);
        memset(std, 0, n * sizeof *std);
        if (nn__fit_scaler(train, x, mean, std)) { nn_write_as(s->mean, NN_F64, mean); nn_write_as(s->std, NN_F64, std); }
    }
    nn__rewind_memory(nn, &m);
    return nn_ok(nn) ? s : NULL;
}

// ---- augmentation ------------------------------------------------------------------------------------------------------
// Every random number is a function of (seed, epoch, position of the sample in the epoch, which use). The elementary functions below
// are our own because those of C libraries differ in the last bit from one processor to the next, and then so would the pictures.
NN__FLOAT_BEGIN
static double nn__host_log(double x)                     // x = m 2^e;  log m = 2 artanh((m - 1) / (m + 1)) = 2 (t + t^3/3 + t^5/5 + ...)
{
    int e, k;
    double m = frexp(x, &e), t, t2, sum = 0.0;
    if (m < 0.70710678118654752440) { m *= 2.0; e--; }
    t = (m - 1.0) / (m + 1.0);
    t2 = t * t;
    for (k = 21; k > 0; k -= 2) sum = sum * t2 + 1.0 / k;
    return 2.0 * t * sum + e * 0.69314718055994530942;
}

static double nn__host_exp(double x)                     // 2^k e^r, |r| <= log(2) / 2, Taylor
{
    double k, r, sum = 1.0;
    int i;
    if (x < -700.0) return 0.0;
    if (x > 700.0) x = 700.0;
    k = floor(x * 1.44269504088896340736 + 0.5);
    r = x - k * 0.69314718055994530942;
    for (i = 14; i > 0; i--) sum = 1.0 + sum * r / i;
    return ldexp(sum, (int)k);
}

static void nn__host_sincos(double turns, double *s, double *c)      // of 2 pi turns: quarter turns by symmetry, the rest by Taylor
{
    double t = turns - floor(turns), q = floor(4.0 * t + 0.5), r = (t - q / 4.0) * 6.28318530717958647693, r2 = r * r, a = 1.0, b = 1.0;
    int i;
    for (i = 16; i > 0; i -= 2) { a = 1.0 - a * r2 / (i * (i + 1)); b = 1.0 - b * r2 / (i * (i - 1)); }
    a *= r;
    switch ((int)q & 3) {
        case 0:  *s =  a; *c =  b; break;
        case 1:  *s =  b; *c = -a; break;
        case 2:  *s = -a; *c = -b; break;
        default: *s = -b; *c =  a; break;
    }
}

typedef struct nn__stream { uint64_t seed, step, ordinal; } nn__stream;
static double nn__draw(const nn__stream *r, uint64_t i)  // number i of the stream, in [0, 1), 53 bits
{
    uint32_t v[4];
    nn__philox(r->seed, r->step, r->ordinal, i / 2, v);
    return (double)(((uint64_t)v[i % 2 * 2] << 32 | v[i % 2 * 2 + 1]) >> 11) * (1.0 / 9007199254740992.0);
}

static double nn__draw_normal(const nn__stream *r, uint64_t i)       // Box & Muller 1958
{
    uint64_t pair = i & ~(uint64_t)1;
    double s, c, radius = sqrt(-2.0 * nn__host_log(1.0 - nn__draw(r, pair)));
    nn__host_sincos(nn__draw(r, pair + 1), &s, &c);
    return radius * (i & 1 ? s : c);
}

// The logarithm of a gamma(a) variable: Marsaglia & Tsang 2000; below 1, gamma(a) = gamma(a + 1) U^(1/a).
static double nn__draw_log_gamma(const nn__stream *r, uint64_t *at, double a)
{
    double d = (a < 1.0 ? a + 1.0 : a) - 1.0 / 3.0, k = 1.0 / sqrt(9.0 * d), boost = 0.0;
    int tries;
    if (a < 1.0) boost = nn__host_log(1.0 - nn__draw(r, (*at)++)) / a;
    for (tries = 0; tries < 100; tries++) {
        double x, v, u;
        *at += *at & 1;
        x = nn__draw_normal(r, *at);
        u = 1.0 - nn__draw(r, *at + 2);
        *at += 4;
        v = 1.0 + k * x;
        if (v <= 0.0) continue;
        v = v * v * v;
        if (nn__host_log(u) < 0.5 * x * x + d - d * v + d * nn__host_log(v)) return nn__host_log(d * v) + boost;
    }
    return nn__host_log(d) + boost;
}

static double nn__draw_beta(const nn__stream *r, double a)           // beta(a, a) = g / (g + h), g and h gamma(a)
{
    uint64_t at = 0;
    double g = nn__draw_log_gamma(r, &at, a), h = nn__draw_log_gamma(r, &at, a);
    return 1.0 / (1.0 + nn__host_exp(h - g));
}

static void nn__shift_picture(const float *from, float *to, int64_t channels, int64_t h, int64_t w, int64_t dy, int64_t dx, int flip)
{
    int64_t c, i, j;                 // to[i][j] = from[i + dy][j + dx], zero outside
    for (c = 0; c < channels; c++)
        for (i = 0; i < h; i++)
            for (j = 0; j < w; j++) {
                int64_t y = i + dy, x = (flip ? w - 1 - j : j) + dx;
                to[(c * h + i) * w + j] = y >= 0 && y < h && x >= 0 && x < w ? from[(c * h + y) * w + x] : 0.0f;
            }
}

// to(p) = from(inverse (p - centre - shift) + centre), bilinear, zero outside
static void nn__warp_picture(const float *from, float *to, int64_t channels, int64_t h, int64_t w, const double inverse[4], double shift_y, double shift_x)
{
    int64_t c, i, j;
    int k;
    double cy = 0.5 * (double)(h - 1), cx = 0.5 * (double)(w - 1);
    for (i = 0; i < h; i++)
        for (j = 0; j < w; j++) {
            double v = (double)i - cy - shift_y, u = (double)j - cx - shift_x;
            double x = inverse[0] * u + inverse[1] * v + cx, y = inverse[2] * u + inverse[3] * v + cy, fx, fy, weight[4];
            int64_t left, top, at[4];
            if (!(x > -1.0 && x < (double)w && y > -1.0 && y < (double)h)) {
                for (c = 0; c < channels; c++) to[(c * h + i) * w + j] = 0.0f;
                continue;
            }
            left = (int64_t)(x + 1.0) - 1;               // floor: x + 1 is positive
            top = (int64_t)(y + 1.0) - 1;
            fx = x - (double)left;
            fy = y - (double)top;
            weight[0] = (1.0 - fy) * (1.0 - fx); weight[1] = (1.0 - fy) * fx; weight[2] = fy * (1.0 - fx); weight[3] = fy * fx;
            for (k = 0; k < 4; k++) {                    // outside: any pixel, weight 0
                int64_t py = top + (k >> 1), px = left + (k & 1);
                int inside = py >= 0 && py < h && px >= 0 && px < w;
                at[k] = inside ? py * w + px : 0;
                if (!inside) weight[k] = 0.0;
            }
            for (c = 0; c < channels; c++) {
                const float *p = from + c * h * w;
                to[(c * h + i) * w + j] = (float)(weight[0] * (double)p[at[0]] + weight[1] * (double)p[at[1]] + weight[2] * (double)p[at[2]] + weight[3] * (double)p[at[3]]);
            }
        }
}

// What the numbers of a sample's stream are for.
enum { NN__USE_CROP_Y, NN__USE_CROP_X, NN__USE_FLIP, NN__USE_ROTATE, NN__USE_SCALE, NN__USE_SHEAR, NN__USE_SHIFT_Y, NN__USE_SHIFT_X,
       NN__USE_CUT_Y, NN__USE_CUT_X, NN__USE_NOISE = 16 };

static double nn__draw_around(const nn__stream *r, uint64_t use, double range) { return (2.0 * nn__draw(r, use) - 1.0) * range; }
static int64_t nn__draw_below(const nn__stream *r, uint64_t use, int64_t n)    { return nn__min(n - 1, (int64_t)(nn__draw(r, use) * (double)n)); }

static void nn__augment(const nn_augment_desc *a, nn_shape shape, int64_t width, const nn__stream *r, float *x, float *other)
{
    int64_t channels = nn__channels(shape), h = shape.ndim == 3 ? shape.d[1] : 1, w = shape.ndim == 3 ? shape.d[2] : 1, pixels, c, i, j;
    size_t bytes = (size_t)width * sizeof *x;
    if (!width) return;
    pixels = width / channels;
    if (a->mean || a->std)
        for (c = 0; c < channels; c++)
            for (i = c * pixels; i < (c + 1) * pixels; i++) x[i] = (x[i] - (a->mean ? a->mean[c] : 0.0f)) / (a->std ? a->std[c] : 1.0f);
    if (a->crop_padding || a->flip > 0) {
        int64_t dy = nn__draw_below(r, NN__USE_CROP_Y, 2 * (int64_t)a->crop_padding + 1) - a->crop_padding;
        int64_t dx = nn__draw_below(r, NN__USE_CROP_X, 2 * (int64_t)a->crop_padding + 1) - a->crop_padding;
        int flip = nn__draw(r, NN__USE_FLIP) < (double)a->flip;
        if (dy || dx || flip) { nn__shift_picture(x, other, channels, h, w, dy, dx, flip); memcpy(x, other, bytes); }
    }
    if (a->rotate > 0 || a->scale > 0 || a->shear > 0 || a->translate > 0) {   // forward: size R(angle) (1 tan(shear); 0 1)
        double s, c1, ss, cs, tangent, size = 1.0 + nn__draw_around(r, NN__USE_SCALE, (double)a->scale), inverse[4];
        nn__host_sincos(nn__draw_around(r, NN__USE_ROTATE, (double)a->rotate) / 360.0, &s, &c1);
        nn__host_sincos(nn__draw_around(r, NN__USE_SHEAR, (double)a->shear) / 360.0, &ss, &cs);
        tangent = ss / cs;
        inverse[0] = (c1 + tangent * s) / size; inverse[1] = (s - tangent * c1) / size;
        inverse[2] = -s / size;                 inverse[3] = c1 / size;
        nn__warp_picture(x, other, channels, h, w, inverse, nn__draw_around(r, NN__USE_SHIFT_Y, (double)a->translate) * (double)h,
                         nn__draw_around(r, NN__USE_SHIFT_X, (double)a->translate) * (double)w);
        memcpy(x, other, bytes);
    }
    if (a->cutout) {
        int64_t top = nn__draw_below(r, NN__USE_CUT_Y, h) - a->cutout / 2, left = nn__draw_below(r, NN__USE_CUT_X, w) - a->cutout / 2;
        for (c = 0; c < channels; c++)
            for (i = nn__max(top, 0); i < nn__min(top + a->cutout, h); i++)
                for (j = nn__max(left, 0); j < nn__min(left + a->cutout, w); j++) x[(c * h + i) * w + j] = 0.0f;
    }
    if (a->noise > 0) for (i = 0; i < width; i++) x[i] += (float)((double)a->noise * nn__draw_normal(r, NN__USE_NOISE + (uint64_t)i));
}

static void nn__mix(float *a, float *b, int64_t n, float share)      // a = share a + (1 - share) b, and the other way round
{
    int64_t i;
    for (i = 0; i < n; i++) {
        float p = a[i], q = b[i];
        a[i] = share * p + (1.0f - share) * q;
        b[i] = share * q + (1.0f - share) * p;
    }
}
NN__FLOAT_END

// ---- loaders --------------------------------------------------------------------------------------------------------------
// Two deliveries are in the works: while the caller computes with batch k, the loader's thread fills host memory with k + 1 and k + 2.
// The owner thread uploads: only it touches the context. Nothing is prepared beyond the end of an epoch, so that no callback is called
// after the program has seen the end and may have put its data away.
typedef struct nn__delivery {
    float    *x, *y;                 // y: numbers, or with mixup probabilities
    int64_t  *labels;
    int64_t   epoch, index, count;   // what it is
    uint64_t  seed;
    int       wanted, ready;         // under the mutex
    char      error[256];
} nn__delivery;

struct nn_loader {
    nn_context *nn;
    nn_dataset *data;
    // The whole state: the next delivery is batch `position` of epoch `epoch`. Files save and restore these three and nothing else.
    int64_t     epoch, position;
    uint64_t    seed;
    int64_t     batch, batches;      // samples per batch, batches per epoch
    int64_t     y_width;             // numbers of y per sample in the batch; 0: classes, or nothing
    int         shuffle, mixed;
    nn_augment_desc augment;
    int         augmented;
    int64_t    *order;               // of order_epoch
    int64_t     order_epoch;
    uint64_t    order_seed;
    double     *cumulative;          // sums of the sampling weights
    float      *other;               // room for one sample
    nn_tensor  *x[2], *y[2];         // the batch; the last, smaller one, a view of it
    nn__delivery slot[2];
    nn__thread  thread;
    nn__mutex   mutex;
    nn__cond    changed;
    nn__delivery *busy;              // being filled by the thread
    int         prefetch, started, stop;
};

static nn__stream nn__loader_stream(const nn_loader *l, const nn__delivery *s, int domain, int64_t n)
{
    nn__stream r;
    (void)l;
    r.seed = s->seed; r.step = (uint64_t)s->epoch; r.ordinal = nn__ordinal(domain, (uint64_t)n);
    return r;
}

static int64_t nn__pick(nn_loader *l, const nn__delivery *s, int64_t position)       // which sample is at this position of the epoch
{
    int64_t low = 0, high = l->data->count - 1, i;
    if (l->cumulative) {             // the first whose sum of weights exceeds a random share of the total
        nn__stream r = nn__loader_stream(l, s, NN__DOMAIN_SHUFFLE, 1);
        double u = nn__draw(&r, (uint64_t)position) * l->cumulative[high];
        while (high > 0 && !(l->cumulative[high - 1] < l->cumulative[high])) high--;  // weights of 0 at the end
        while (low < high) { i = low + (high - low) / 2; if (l->cumulative[i] > u) high = i; else low = i + 1; }
        return low;
    }
    if (!l->shuffle) return position;
    if (l->order_epoch != s->epoch || l->order_seed != s->seed) {    // from 0, 1, 2 ... every time: no epoch depends on the one before
        for (i = 0; i < l->data->count; i++) l->order[i] = i;
        nn__shuffle(l->order, l->data->count, s->seed, (uint64_t)s->epoch, nn__ordinal(NN__DOMAIN_SHUFFLE, 0));
        l->order_epoch = s->epoch;
        l->order_seed = s->seed;
    }
    return l->order[position];
}

// Mixup (Zhang et al. 2018) within the batch: sample i with sample count - 1 - i, which, in shuffled order, is any other.
static void nn__mixup(nn_loader *l, nn__delivery *s)
{
    nn__stream r = nn__loader_stream(l, s, NN__DOMAIN_AUGMENT, ((int64_t)1 << 40) + s->index);
    float share = (float)nn__draw_beta(&r, (double)l->augment.mixup);
    int64_t i, n = s->count, width = l->data->width;
    if (l->data->target == NN__TARGET_CLASS) {
        memset(s->y, 0, (size_t)(n * l->y_width) * sizeof *s->y);
        for (i = 0; i < n; i++) s->y[i * l->y_width + s->labels[i]] = 1.0f;
    }
    for (i = 0; i < n / 2; i++) {
        nn__mix(s->x + i * width, s->x + (n - 1 - i) * width, width, share);
        if (l->y_width) nn__mix(s->y + i * l->y_width, s->y + (n - 1 - i) * l->y_width, l->y_width, share);
    }
}

static void nn__fill_delivery(nn_loader *l, nn__delivery *s)         // in any thread
{
    nn_dataset *d = l->data;
    nn__fpenv env = nn__fp_enter();
    int64_t i;
    s->error[0] = 0;
    for (i = 0; i < s->count; i++) {
        int64_t position = s->index * l->batch + i;
        float *x = s->x + i * d->width, *y = d->target == NN__TARGET_NUMBERS ? s->y + i * d->y_width : NULL;
        nn__stream r = nn__loader_stream(l, s, NN__DOMAIN_AUGMENT, position);
        if (y) memset(y, 0, (size_t)d->y_width * sizeof *y);
        if (!d->read(d, nn__pick(l, s, position), x, y, s->labels ? s->labels + i : NULL, s->error, sizeof s->error)) break;
        if (l->augmented) nn__augment(&l->augment, d->x_shape, d->width, &r, x, l->other);
    }
    if (i == s->count && l->mixed) nn__mixup(l, s);
    nn__fp_leave(env);
}

static void nn__loader_main(void *arg)
{
    nn_loader *l = (nn_loader *)arg;
    nn__lock(&l->mutex);
    while (!l->stop) {
        nn__delivery *s = NULL;
        int k;
        for (k = 0; k < 2; k++)      // the earlier one first
            if (l->slot[k].wanted && !l->slot[k].ready && (!s || l->slot[k].index < s->index)) s = &l->slot[k];
        if (!s) { nn__wait(&l->changed, &l->mutex); continue; }
        l->busy = s;
        nn__unlock(&l->mutex);
        nn__fill_delivery(l, s);
        nn__lock(&l->mutex);
        l->busy = NULL;
        s->ready = 1;
        nn__wake(&l->changed);
    }
    nn__unlock(&l->mutex);
}

static void nn__loader_free(void *arg)
{
    nn_loader *l = (nn_loader *)arg;
    if (l->started) {
        nn__lock(&l->mutex);
        l->stop = 1;
        nn__wake(&l->changed);
        nn__unlock(&l->mutex);
        nn__thread_join(&l->thread);
    }
    nn__cond_free(&l->changed);
    nn__mutex_free(&l->mutex);
}

static void nn__loader_cancel(nn_loader *l)              // what is prepared is not wanted any more
{
    nn__lock(&l->mutex);
    l->slot[0].wanted = l->slot[1].wanted = 0;
    while (l->busy) nn__wait(&l->changed, &l->mutex);
    l->slot[0].ready = l->slot[1].ready = 0;
    nn__unlock(&l->mutex);
}

static void nn__loader_order(nn_loader *l, nn__delivery *s, int64_t index)           // asks for a batch; with the mutex held
{
    if (index >= l->batches) return;
    s->epoch = l->epoch;
    s->seed = l->seed;
    s->index = index;
    s->count = nn__min(l->batch, l->data->count - index * l->batch);
    s->ready = 0;
    s->wanted = 1;
}

static int nn__is_ordered(const nn_loader *l, const nn__delivery *s, int64_t index)
{
    return s->wanted && s->epoch == l->epoch && s->seed == l->seed && s->index == index;
}

// The delivery of the next batch, filled; and the one after it is ordered.
static nn__delivery *nn__loader_await(nn_loader *l)
{
    nn__delivery *s = NULL;
    int k;
    if (l->prefetch && !l->started) {
        l->started = nn__thread_start(&l->thread, nn__loader_main, l);
        if (!l->started) l->prefetch = 0;                // then without
    }
    if (!l->prefetch) {
        nn__loader_order(l, &l->slot[0], l->position);
        nn__fill_delivery(l, &l->slot[0]);
        return &l->slot[0];
    }
    for (k = 0; k < 2; k++) if (nn__is_ordered(l, &l->slot[k], l->position)) s = &l->slot[k];
    if (!s) { nn__loader_cancel(l); s = &l->slot[0]; }   // the first of an epoch, or the state was set
    nn__lock(&l->mutex);
    if (!s->wanted) nn__loader_order(l, s, l->position);
    for (k = 0; k < 2; k++) if (!l->slot[k].wanted) nn__loader_order(l, &l->slot[k], l->position + 1);
    nn__wake(&l->changed);
    while (!s->ready) nn__wait(&l->changed, &l->mutex);
    nn__unlock(&l->mutex);
    return s;
}

static nn_tensor *nn__loader_tensor(nn_loader *l, nn_dtype dtype, nn_shape sample, int64_t count)
{
    nn_shape s;
    int i;
    memset(&s, 0, sizeof s);
    s.ndim = sample.ndim + 1;
    s.d[0] = count;
    for (i = 0; i < sample.ndim; i++) s.d[i + 1] = sample.d[i];
    return nn__alloc_tensor(l->nn, 1, dtype, s.ndim, s.d);
}

static nn_tensor *nn__front_rows(nn_tensor *t, int64_t count)        // a long-lived view of the first rows
{
    nn_tensor *v = nn__dead(t) ? NULL : nn__new_head(t->nn, 1);
    if (!v) return t;
    *v = *t;
    v->base = t;
    v->shape[0] = count;
    return v;
}

static int nn__loader_weights(nn_loader *l, const float *weights)    // NULL: as many of each class, however rare it is
{
    nn_context *nn = l->nn;
    nn_dataset *d = l->data;
    int32_t *labels = NULL;
    int64_t *counts = NULL, i;
    double sum = 0.0;
    nn__mark m = nn__get_mark(nn);
    if (!weights && d->target != NN__TARGET_CLASS) { nn_fail(nn, "nn_loader_new: balance: the dataset has no classes"); return 0; }
    l->cumulative = (double *)nn__life(nn, nn__mul_size((size_t)d->count, sizeof *l->cumulative));
    if (!l->cumulative) return 0;
    if (!weights) {
        labels = nn__all_labels(d, "nn_loader_new");
        counts = (int64_t *)nn__temp(nn, nn__mul_size((size_t)d->classes, sizeof *counts));
        if (counts) memset(counts, 0, (size_t)d->classes * sizeof *counts);
        for (i = 0; labels && counts && i < d->count; i++) counts[labels[i]]++;
    }
    for (i = 0; (weights || (labels && counts)) && i < d->count; i++) {
        double w = weights ? (double)weights[i] : 1.0 / (double)counts[labels[i]];
        if (!(w >= 0.0 && w <= FLT_MAX)) { nn_fail(nn, "nn_loader_new: weight %lld is %g", (long long)i, w); break; }
        l->cumulative[i] = sum += w;
    }
    if (nn_ok(nn) && d->count && !(sum > 0.0)) nn_fail(nn, "nn_loader_new: all weights are zero");
    nn__temp_free(nn, counts);
    nn__temp_free(nn, labels);
    nn__rewind_memory(nn, &m);
    return nn_ok(nn);
}

static const float *nn__copy_numbers(nn_context *nn, const float *from, int64_t n)
{
    float *p = (float *)nn__life(nn, nn__mul_size((size_t)n, sizeof *p));
    if (p) memcpy(p, from, (size_t)n * sizeof *p);
    return p;
}

static int nn__loader_augment(nn_loader *l, const nn_augment_desc *a)
{
    nn_context *nn = l->nn;
    nn_shape shape = l->data->x_shape;
    int64_t c, channels = nn__channels(shape);
    const char *rule = NULL;
    int affine = a->rotate > 0 || a->scale > 0 || a->shear > 0 || a->translate > 0;
    if ((a->crop_padding || a->flip > 0 || affine || a->cutout) && shape.ndim != 3) rule = "only pictures (C, H, W) can be cropped, flipped, warped and cut";
    if (a->crop_padding < 0 || a->cutout < 0) rule = "crop_padding and cutout cannot be negative";
    if (!(a->flip >= 0 && a->flip <= 1)) rule = "flip is a probability";
    if (!(a->rotate >= 0 && a->rotate <= 360) || !(a->shear >= 0 && a->shear < 90)) rule = "rotate is 0..360 degrees, shear below 90";
    if (!(a->scale >= 0 && a->scale < 1) || !(a->translate >= 0 && a->translate <= 1)) rule = "scale and translate are shares below 1";
    if (!(a->noise >= 0 && a->noise <= FLT_MAX) || !(a->mixup >= 0 && a->mixup <= 1e6f)) rule = "noise and mixup cannot be negative";
    for (c = 0; a->std && c < channels; c++) if (!(a->std[c] > 0 && a->std[c] <= FLT_MAX)) rule = "std must be above zero";
    if (rule) { nn_fail(nn, "nn_loader_new: augment: %s; samples are %s", rule, nn__dims_text(shape.ndim, shape.d).s); return 0; }
    l->augment = *a;
    l->augmented = 1;
    l->mixed = a->mixup > 0 && l->data->count > 0;
    if (a->mean) l->augment.mean = nn__copy_numbers(nn, a->mean, channels);
    if (a->std) l->augment.std = nn__copy_numbers(nn, a->std, channels);
    l->other = (float *)nn__life(nn, nn__mul_size((size_t)l->data->width, sizeof *l->other));
    return nn_ok(nn) && l->other;
}

static int nn__loader_room(nn_loader *l)                 // the tensors, and the host memory that is filled ahead of them
{
    nn_context *nn = l->nn;
    nn_dataset *d = l->data;
    int64_t last = d->count - (l->batches - 1) * l->batch;
    nn_shape y_shape = d->y_shape;
    int k, classes = d->target == NN__TARGET_CLASS;
    size_t n = (size_t)l->batch;
    if (classes && l->mixed) { y_shape = nn__shape1(d->classes); l->y_width = d->classes; }
    if (d->target == NN__TARGET_NUMBERS) l->y_width = d->y_width;
    l->x[0] = nn__loader_tensor(l, nn->desc.dtype, d->x_shape, l->batch);
    if (d->target) l->y[0] = nn__loader_tensor(l, classes && !l->mixed ? NN_I64 : nn->desc.dtype, y_shape, l->batch);
    for (k = 0; k < (l->prefetch ? 2 : 1); k++) {
        l->slot[k].x = (float *)nn__life(nn, nn__mul_size(nn__mul_size(n, (size_t)d->width), sizeof(float)));
        if (classes) l->slot[k].labels = (int64_t *)nn__life(nn, nn__mul_size(n, sizeof(int64_t)));
        if (l->y_width) l->slot[k].y = (float *)nn__life(nn, nn__mul_size(nn__mul_size(n, (size_t)l->y_width), sizeof(float)));
    }
    if (last > 0 && last < l->batch) {
        l->x[1] = nn__front_rows(l->x[0], last);
        if (d->target) l->y[1] = nn__front_rows(l->y[0], last);
    }
    return nn_ok(nn);
}

NN_API nn_loader *nn_loader_new(nn_dataset *data, const nn_loader_desc *desc)
{
    nn_context *nn = data ? data->nn : NULL;
    nn_loader_desc d;
    nn_loader *l;
    if (!nn_ok(nn)) return NULL;
    memset(&d, 0, sizeof d);
    if (desc) d = *desc;
    if (d.batch < 0) { nn_fail(nn, "nn_loader_new: a batch of %lld", (long long)d.batch); return NULL; }
    if (d.weights && d.balance) { nn_fail(nn, "nn_loader_new: give one of weights and balance"); return NULL; }
    l = (nn_loader *)nn__life(nn, sizeof *l);
    if (!l) return NULL;
    l->nn = nn;
    l->data = data;
    l->seed = nn->seed + (uint64_t)nn->loaders++ * 0x9E3779B97F4A7C15u;              // no two loaders shuffle alike
    l->batch = nn__max(1, nn__min(d.batch ? d.batch : 32, data->count));
    l->batches = d.drop_last ? data->count / (d.batch ? d.batch : 32) : (data->count + l->batch - 1) / l->batch;
    l->shuffle = d.shuffle;
    l->order_epoch = -1;
    l->prefetch = NN__HAVE_THREADS && !d.no_prefetch && nn->desc.threads != 1;
    nn__mutex_init(&l->mutex);
    nn__cond_init(&l->changed);
    nn__on_free(nn, nn__loader_free, l);
    if (d.augment && !nn__loader_augment(l, d.augment)) return NULL;
    if ((d.weights || d.balance) && !nn__loader_weights(l, d.weights)) return NULL;
    if (l->shuffle && !l->cumulative) l->order = (int64_t *)nn__life(nn, nn__mul_size((size_t)data->count, sizeof *l->order));
    return nn_ok(nn) && nn__loader_room(l) ? l : NULL;
}

NN_API int64_t nn_loader_batches(const nn_loader *loader) { return loader ? loader->batches : 0; }

NN_API void nn_loader_rewind(nn_loader *loader)
{
    if (!loader) return;
    if (loader->position > 0) { loader->position = 0; loader->epoch++; }
    if (loader->started) nn__loader_cancel(loader);
}

NN_API int nn_loader_next(nn_loader *loader, nn_batch *batch)
{
    nn_loader *l = loader;
    nn_context *nn = l ? l->nn : NULL;
    nn__delivery *s;
    int last;
    if (batch) memset(batch, 0, sizeof *batch);
    if (!nn_ok(nn) || !batch) return 0;
    if (l->position >= l->batches) {
        if (l->batches) l->epoch++;
        l->position = 0;
        return 0;
    }
    s = nn__loader_await(l);
    if (s->error[0]) nn_fail(nn, "nn_loader_next: %s", s->error);
    else {
        last = s->count < l->batch;
        batch->x = l->x[last];
        batch->y = l->y[last];
        batch->count = s->count;
        batch->index = s->index;
        if (s->count && l->data->width) nn_write_as(batch->x, NN_F32, s->x);
        if (batch->y && batch->y->dtype == NN_I64) nn_write_as(batch->y, NN_I64, s->labels);
        else if (batch->y && l->y_width) nn_write_as(batch->y, NN_F32, s->y);
    }
    l->position++;                   // also past a batch that failed: after nn_clear, the next one is tried
    if (!l->prefetch) return nn_ok(nn);
    nn__lock(&l->mutex);             // the delivery is in the tensors: its memory is free for the one after the next
    s->wanted = s->ready = 0;
    nn__loader_order(l, s, l->position + 1);
    nn__wake(&l->changed);
    nn__unlock(&l->mutex);
    return nn_ok(nn);
}

// =============================================================================================
// >>metrics   How good is it? Counts over (label, predicted) pairs; every other number is a ratio of counts.
//
//   tp: label c and predicted c    fp: predicted c only    fn: label c only
//   precision = tp / (tp + fp)     recall = tp / (tp + fn)     F1 = 2 tp / (2 tp + fp + fn)
//   macro: the mean over the classes    weighted: the mean weighted by support    micro: from the summed counts (= accuracy here)
//
// As scikit-learn with zero_division=0: a ratio 0 / 0 of a class that occurs (in labels or predictions) is 0; classes that do not occur
// are NaN and in no mean. Labels outside 0..classes-1 (an ignore_index) are left out of everything. Everything is summed in double, in order.
// =============================================================================================
static void nn__report_clear(nn_report *r)
{
    int i;
    memset(r, 0, sizeof *r);
    r->loss = r->accuracy = r->top5 = r->auc = r->mse = r->mae = r->r2 = NAN;
    r->macro_precision = r->macro_recall = r->macro_f1 = r->micro_f1 = r->weighted_f1 = NAN;
    for (i = 0; i < NN_MAX_CLASSES; i++) r->precision[i] = r->recall[i] = r->f1[i] = NAN;
}

static int64_t nn__argmax(const float *s, int64_t n)     // the first of equals; NaN never wins
{
    int64_t i, best = 0;
    for (i = 1; i < n; i++) if (s[i] > s[best] || (s[best] != s[best] && s[i] == s[i])) best = i;
    return best;
}

static int nn__in_top(const float *s, int64_t n, int64_t label, int k)      // is label among the k highest? Of equals the first
{
    int64_t i, before = 0;
    for (i = 0; i < n; i++) before += s[i] > s[label] || (s[i] == s[label] && i < label);
    return s[label] == s[label] && before < k;
}

// Heapsort (Williams 1964): in place, n log n whatever the data. Element i is known to the callbacks only.
typedef struct nn__order { void *data; int (*less)(void *data, int64_t i, int64_t j); void (*swap)(void *data, int64_t i, int64_t j); } nn__order;
static void nn__sift(const nn__order *o, int64_t i, int64_t n)
{
    int64_t k;
    for (; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && o->less(o->data, k, k + 1)) k++;
        if (!o->less(o->data, i, k)) return;
        o->swap(o->data, i, k);
    }
}
static void nn__sort(const nn__order *o, int64_t n)
{
    int64_t i;
    for (i = n / 2 - 1; i >= 0; i--) nn__sift(o, i, n);
    for (i = n - 1; i > 0; i--) { o->swap(o->data, 0, i); nn__sift(o, 0, i); }
}
static int  nn__key_less(void *data, int64_t i, int64_t j) { const uint64_t *k = (const uint64_t *)data; return k[i] < k[j]; }
static void nn__key_swap(void *data, int64_t i, int64_t j) { uint64_t *k = (uint64_t *)data, t = k[i]; k[i] = k[j]; k[j] = t; }

// A score and its label in one sortable number: the bits of a double in the order of its values, the last of them given to the label.
static uint64_t nn__auc_key(double score, int positive)
{
    uint64_t b;
    score += 0.0;                    // -0 and 0 are equal
    memcpy(&b, &score, 8);
    b = b >> 63 ? ~b : b | (uint64_t)1 << 63;
    return (b & ~(uint64_t)1) | (uint64_t)(positive != 0);
}

// The area under the ROC curve is the probability that a positive scores higher than a negative, a tie counting half
// (Mann & Whitney 1947). With R the sum of the ranks (from 1, ties sharing their mean rank) of the P positives among all N + P:
//     auc = (R - P (P + 1) / 2) / (P N)
static double nn__auc_of(uint64_t *key, int64_t n)
{
    nn__order o;
    double ranks = 0, p = 0;
    int64_t i, j;
    o.data = key; o.less = nn__key_less; o.swap = nn__key_swap;
    nn__sort(&o, n);
    for (i = 0; i < n; i = j) {
        double positives = 0;
        for (j = i; j < n && key[j] >> 1 == key[i] >> 1; j++) positives += (double)(key[j] & 1);
        ranks += positives * 0.5 * (double)(i + 1 + j);
        p += positives;
    }
    if (p == 0 || p == (double)n) return NAN;            // one class only: there is nothing to tell apart
    return (ranks - p * (p + 1) / 2) / (p * ((double)n - p));
}

static void *nn__bare_alloc(size_t bytes)                // for functions that know no context; may fail
{
    if (bytes > SIZE_MAX / 4) return NULL;
#ifdef NN_MALLOC
    return NN_MALLOC(bytes);
#else
    return malloc(bytes);
#endif
}
static void nn__bare_free(void *memory)
{
#ifdef NN_FREE
    if (memory) NN_FREE(memory);
#else
    free(memory);
#endif
}

NN_API double nn_auc(int64_t count, const float *score, const int64_t *label)
{
    uint64_t *key;
    int64_t i, n = 0;
    double auc = NAN;
    if (count < 2 || !score || !label) return NAN;
    key = (uint64_t *)nn__bare_alloc(nn__mul_size((size_t)count, sizeof *key));
    if (!key) return NAN;
    for (i = 0; i < count; i++) {
        if (label[i] != 0 && label[i] != 1) continue;
        if (score[i] != score[i]) break;
        key[n++] = nn__auc_key(score[i], label[i] == 1);
    }
    if (i == count) auc = nn__auc_of(key, n);
    nn__bare_free(key);
    return auc;
}

static int nn__are_probabilities(int64_t count, int64_t classes, const float *scores)
{
    int64_t i, j;
    for (i = 0; i < count; i++) {
        double sum = 0;
        for (j = 0; j < classes; j++) {
            if (!(scores[i * classes + j] >= 0)) return 0;
            sum += (double)scores[i * classes + j];
        }
        if (!(fabs(sum - 1) < 1e-3)) return 0;
    }
    return 1;
}

static double nn__log_sum_exp(const float *s, int64_t n)
{
    double most = s[nn__argmax(s, n)], sum = 0;
    int64_t i;
    if (!(fabs(most) <= DBL_MAX)) return most;
    for (i = 0; i < n; i++) sum += exp((double)s[i] - most);
    return most + log(sum);
}

// Two classes: class 1 against class 0. More: the mean over the classes of each against the rest, ranked by probability. Logits become
// (log-)probabilities by softmax. scratch: 2 * count numbers of 8 bytes.
static double nn__auc_classes(int64_t count, int64_t classes, const float *scores, const int64_t *labels, uint64_t *scratch)
{
    double *norm = (double *)(void *)(scratch + count), sum = 0;
    int logits = classes > 2 && !nn__are_probabilities(count, classes, scores);
    int64_t i, c, n, defined = 0;
    for (i = 0; i < count * classes; i++) if (scores[i] != scores[i]) return NAN;
    for (i = 0; i < count; i++) norm[i] = logits ? nn__log_sum_exp(scores + i * classes, classes) : 0;
    for (c = classes > 2 ? 0 : 1; c < classes; c++) {
        double auc;
        for (i = n = 0; i < count; i++) {
            const float *s = scores + i * classes;
            double score = classes > 2 ? (double)s[c] - norm[i] : (double)s[1] - (double)s[0];
            if (labels[i] < 0 || labels[i] >= classes) continue;
            if (score != score) return NAN;              // inf - inf
            scratch[n++] = nn__auc_key(score, labels[i] == c);
        }
        auc = nn__auc_of(scratch, n);
        if (auc == auc) { sum += auc; defined++; }
    }
    return defined ? sum / (double)defined : NAN;
}

static double nn__ratio(double a, double b) { return b > 0 ? a / b : 0; }   // zero_division=0

typedef struct nn__class_counts { int64_t tp, labels, predicted; } nn__class_counts;
enum { NN__CLASS_BLOCK = 512 };      // classes whose counts fit on the stack: more classes take more passes over the scores

static void nn__count_classes(nn__class_counts *counts, int64_t first, nn_report *r, int64_t count, int64_t classes, const float *scores, const int64_t *labels)
{
    int64_t i;
    memset(counts, 0, NN__CLASS_BLOCK * sizeof *counts);
    for (i = 0; i < count; i++) {
        int64_t y = labels[i], p;
        if (y < 0 || y >= classes) continue;
        p = nn__argmax(scores + i * classes, classes);
        if (y >= first && y < first + NN__CLASS_BLOCK) { counts[y - first].labels++; counts[y - first].tp += y == p; }
        if (p >= first && p < first + NN__CLASS_BLOCK) counts[p - first].predicted++;
        if (first) continue;
        r->count++;
        if (y < NN_MAX_CLASSES && p < NN_MAX_CLASSES) r->confusion[y][p]++;
    }
}

// scratch: 2 * count numbers of 8 bytes for the AUC, or NULL: then that is NaN
static void nn__report_classes_with(nn_report *r, int64_t count, int64_t classes, const float *scores, const int64_t *labels, uint64_t *scratch)
{
    nn__class_counts counts[NN__CLASS_BLOCK];
    double precision = 0, recall = 0, f1 = 0, weighted = 0, tp = 0, top = 0, occur = 0, n;
    int64_t first, i;
    nn__report_clear(r);
    r->classes = classes;
    if (count <= 0 || classes <= 0 || !scores || !labels) return;
    for (first = 0; first < classes; first += NN__CLASS_BLOCK) {
        nn__count_classes(counts, first, r, count, classes, scores, labels);
        for (i = 0; i < NN__CLASS_BLOCK && first + i < classes; i++) {
            const nn__class_counts *c = &counts[i];
            double p = nn__ratio((double)c->tp, (double)c->predicted), q = nn__ratio((double)c->tp, (double)c->labels);
            double f = nn__ratio(2.0 * (double)c->tp, (double)(c->predicted + c->labels));
            if (!c->labels && !c->predicted) continue;
            precision += p; recall += q; f1 += f; weighted += f * (double)c->labels;
            tp += (double)c->tp;
            occur++;
            if (first + i >= NN_MAX_CLASSES) continue;
            r->precision[first + i] = p; r->recall[first + i] = q; r->f1[first + i] = f; r->support[first + i] = c->labels;
        }
    }
    if (!r->count) return;
    n = (double)r->count;
    r->accuracy = r->micro_f1 = tp / n;
    r->macro_precision = precision / occur; r->macro_recall = recall / occur; r->macro_f1 = f1 / occur;
    r->weighted_f1 = weighted / n;
    for (i = 0; i < count; i++)
        if (classes > 5 && labels[i] >= 0 && labels[i] < classes) top += nn__in_top(scores + i * classes, classes, labels[i], 5);
    if (classes > 5) r->top5 = top / n;
    if (scratch && classes > 1) r->auc = nn__auc_classes(count, classes, scores, labels, scratch);
}

NN_API void nn_report_classes(nn_report *report, int64_t count, int64_t classes, const float *scores, const int64_t *labels)
{
    uint64_t *scratch;
    if (!report) return;
    scratch = count > 0 ? (uint64_t *)nn__bare_alloc(nn__mul_size((size_t)count, 2 * sizeof *scratch)) : NULL;
    nn__report_classes_with(report, count, classes, scores, labels, scratch);
    nn__bare_free(scratch);
}

// R^2 = 1 - sum (y - p)^2 / sum (y - mean y)^2 per column, then the mean over columns. A constant column counts as scikit-learn's: 1 if
// predicted exactly, else 0. NaN for fewer than two rows.
NN_API void nn_report_values(nn_report *report, int64_t count, int64_t width, const float *predicted, const float *target)
{
    double squares = 0, absolute = 0, r2 = 0, n = (double)count * (double)width;
    int64_t i, j;
    if (!report) return;
    nn__report_clear(report);
    if (count <= 0 || width <= 0 || !predicted || !target) return;
    report->count = count;
    for (j = 0; j < width; j++) {
        double mean = 0, residual = 0, total = 0;
        for (i = 0; i < count; i++) mean += (double)target[i * width + j];
        mean /= (double)count;
        for (i = 0; i < count; i++) {
            double y = (double)target[i * width + j], e = (double)predicted[i * width + j] - y;
            residual += e * e;
            absolute += fabs(e);
            total += (y - mean) * (y - mean);
        }
        squares += residual;
        r2 += total != 0 ? 1 - residual / total : residual == 0;
    }
    report->mse = squares / n;
    report->mae = absolute / n;
    if (count > 1) report->r2 = r2 / (double)width;
}

NN_API double nn_accuracy(nn_tensor *scores, nn_tensor *labels)
{
    nn_context *nn = scores ? scores->nn : NULL;
    nn__mark m;
    float *s;
    int64_t *y, i, n, right = 0, counted = 0;
    if (!nn__check(nn, scores, "nn_accuracy") || !nn__check(nn, labels, "nn_accuracy")) return NAN;
    if (scores->ndim != 2 || scores->shape[1] < 1 || nn_count(labels) != scores->shape[0]) {
        nn_fail(nn, "nn_accuracy: scores (B, C) and labels (B) are wanted, not %s and %s",
                nn__dims_text(scores->ndim, scores->shape).s, nn__dims_text(labels->ndim, labels->shape).s);
        return NAN;
    }
    n = scores->shape[0];
    m = nn__get_mark(nn);
    s = (float *)nn__host_step(nn, nn__mul_size((size_t)nn_count(scores), sizeof *s));
    y = (int64_t *)nn__host_step(nn, nn__mul_size((size_t)n, sizeof *y));
    if (s && y && nn_read(scores, s) && nn_read_as(labels, NN_I64, y))
        for (i = 0; i < n; i++) {
            if (y[i] < 0 || y[i] >= scores->shape[1]) continue;
            right += nn__argmax(s + i * scores->shape[1], scores->shape[1]) == y[i];
            counted++;
        }
    nn__rewind_memory(nn, &m);
    return counted ? (double)right / (double)counted : NAN;
}

static const char *nn__class_name(const nn_report *r, int64_t c, char *to, size_t bytes)
{
    if (c < NN_MAX_CLASSES && r->names[c][0]) snprintf(to, bytes, "%.15s", r->names[c]);
    else snprintf(to, bytes, "%lld", (long long)c);
    return to;
}

static void nn__print_number(nn_context *nn, const char *label, double v)    // nothing where it does not apply
{
    if (v == v) nn__log(nn, "%-18s%.6g\n", label, v);
}

// The largest cells off the diagonal: what is readable where the whole matrix is not.
static void nn__print_confused(nn_context *nn, const nn_report *r, int shown)
{
    char a[24], b[24];
    int64_t limit = INT64_MAX;
    int i, j, lines = 0;
    nn__log(nn, "most confused (true -> predicted):\n");
    while (lines < 10) {             // pass by pass: the next smaller count
        int64_t most = 0;
        for (i = 0; i < shown; i++) for (j = 0; j < shown; j++)
            if (i != j && r->confusion[i][j] < limit && r->confusion[i][j] > most) most = r->confusion[i][j];
        if (!most) break;
        for (i = 0; i < shown; i++) for (j = 0; j < shown; j++)
            if (i != j && r->confusion[i][j] == most && lines < 10) {
                nn__log(nn, "  %s -> %s: %lld\n", nn__class_name(r, i, a, sizeof a), nn__class_name(r, j, b, sizeof b), (long long)most);
                lines++;
            }
        limit = most;
    }
}

static void nn__print_matrix(nn_context *nn, const nn_report *r, int shown)
{
    char name[24];
    int64_t most = 0;
    int i, j, w = 3;
    for (i = 0; i < shown; i++) for (j = 0; j < shown; j++) most = nn__max(most, r->confusion[i][j]);
    for (; most > 99; most /= 10) w++;
    for (i = 0; i < shown; i++) w = (int)nn__max(w, nn__min(6, (int64_t)strlen(nn__class_name(r, i, name, sizeof name)) + 1));
    nn__log(nn, "confusion: a row is the true class, a column the predicted one\n%16s", "");
    for (j = 0; j < shown; j++) nn__log(nn, " %*.*s", w, w, nn__class_name(r, j, name, sizeof name));
    nn__log(nn, "\n");
    for (i = 0; i < shown; i++) {
        nn__log(nn, "%16s", nn__class_name(r, i, name, sizeof name));
        for (j = 0; j < shown; j++)
            if (r->confusion[i][j]) nn__log(nn, " %*lld", w, (long long)r->confusion[i][j]);
            else nn__log(nn, " %*s", w, ".");            // so that what is not zero stands out
        nn__log(nn, "\n");
    }
}

NN_API void nn_report_print(nn_context *nn, const nn_report *report)
{
    char name[24];
    int i, shown;
    if (!report) return;
    nn__log(nn, "%-18s%lld\n", "samples", (long long)report->count);
    nn__print_number(nn, "loss", report->loss);
    nn__print_number(nn, "mse", report->mse);
    nn__print_number(nn, "mae", report->mae);
    nn__print_number(nn, "r2", report->r2);
    nn__print_number(nn, "accuracy", report->accuracy);
    nn__print_number(nn, "top-5 accuracy", report->top5);
    nn__print_number(nn, "macro precision", report->macro_precision);
    nn__print_number(nn, "macro recall", report->macro_recall);
    nn__print_number(nn, "macro F1", report->macro_f1);
    nn__print_number(nn, "weighted F1", report->weighted_f1);
    nn__print_number(nn, "ROC AUC", report->auc);
    if (report->classes <= 0 || report->count <= 0 || report->accuracy != report->accuracy) return;
    shown = (int)nn__min(report->classes, NN_MAX_CLASSES);
    nn__log(nn, "%16s %9s %9s %9s %9s\n", "class", "precision", "recall", "F1", "support");
    for (i = 0; i < shown; i++)
        if (report->f1[i] == report->f1[i])
            nn__log(nn, "%16s %9.4f %9.4f %9.4f %9lld\n", nn__class_name(report, i, name, sizeof name),
                    report->precision[i], report->recall[i], report->f1[i], (long long)report->support[i]);
    if (report->classes > NN_MAX_CLASSES) nn__log(nn, "(the first %d of %lld classes)\n", shown, (long long)report->classes);
    if (shown <= 20) nn__print_matrix(nn, report, shown);
    else nn__print_confused(nn, report, shown);
}

// =============================================================================================
// >>monitor   What a training run leaves to look at: TensorBoard event files, pictures (PNG), plots (SVG), tables (CSV).
// Every format is first built as bytes in step memory, then written at once: a failed write is an error and never half a number.
// Nothing here reads tensor memory; numbers come through nn_read.
// =============================================================================================
typedef struct nn__bytes { nn_context *nn; unsigned char *at; size_t used, room; } nn__bytes;   // grows; at is NULL after running out of memory

static nn__bytes nn__bytes_new(nn_context *nn, size_t room)
{
    nn__bytes b;
    b.nn = nn; b.used = 0; b.room = room;
    b.at = (unsigned char *)nn__host_step(nn, room);
    return b;
}

static void nn__put(nn__bytes *b, const void *from, size_t n)
{
    if (!b->at || !n) return;
    if (n > b->room - b->used) {     // the old buffer stays behind until the caller rewinds
        size_t room = nn__mul_size(b->room + n, 2);
        unsigned char *more = (unsigned char *)nn__host_step(b->nn, room);
        if (more) memcpy(more, b->at, b->used);
        b->at = more;
        b->room = room;
        if (!more) return;
    }
    memcpy(b->at + b->used, from, n);
    b->used += n;
}

static void nn__put_byte(nn__bytes *b, unsigned v)
{
    unsigned char c = (unsigned char)v;
    nn__put(b, &c, 1);
}
static void nn__put_chars(nn__bytes *b, const char *s) { nn__put(b, s, strlen(s)); }

static void nn__put_little(nn__bytes *b, uint64_t v, int bytes)
{
    for (; bytes--; v >>= 8) nn__put_byte(b, (unsigned)(v & 255));
}

static void nn__put_big32(nn__bytes *b, uint32_t v)
{
    int i;
    for (i = 24; i >= 0; i -= 8) nn__put_byte(b, v >> i & 255);
}

// A number for text files: "inf" and "nan" in small letters, a point whatever the locale says.
static void nn__put_number(nn__bytes *b, double v, int digits)
{
    char s[48];
    size_t i;
    if (v != v) snprintf(s, sizeof s, "nan");
    else snprintf(s, sizeof s, "%.*g", digits, v);
    for (i = 0; s[i]; i++) if (s[i] == ',') s[i] = '.';
    nn__put_chars(b, s);
}

static void nn__put_format(nn__bytes *b, const char *format, ...) NN__PRINTF(2, 3);
static void nn__put_format(nn__bytes *b, const char *format, ...)   // no floating-point numbers: see nn__put_number
{
    char s[512];
    va_list list;
    va_start(list, format);
    vsnprintf(s, sizeof s, format, list);
    va_end(list);
    nn__put_chars(b, s);
}

// Text from the user: valid UTF-8 in any case (readers of XML and protobuf reject the rest), with the marks of XML escaped if wanted.
static size_t nn__utf8_length(const unsigned char *s, size_t n);          // >>files
static void nn__put_utf8(nn__bytes *b, const char *s, int xml)
{
    const unsigned char *u = (const unsigned char *)(s ? s : "");
    size_t n, left = strlen((const char *)u);
    for (; left; u += n, left -= n) {
        n = nn__utf8_length(u, left);
        if (!n) { nn__put_byte(b, '?'); n = 1; continue; }
        if (xml && n == 1 && *u == '&')      nn__put_chars(b, "&amp;");
        else if (xml && n == 1 && *u == '<') nn__put_chars(b, "&lt;");
        else if (xml && n == 1 && *u < ' ')  nn__put_byte(b, ' ');
        else nn__put(b, u, n);
    }
}

// 1 if all is well; else reports.
static int nn__bytes_save(nn__bytes *b, const char *what, const char *path)
{
    nn__file *f;
    int ok;
    if (!b->at || !nn_ok(b->nn)) return 0;
    f = nn__file_open(path, 1);
    ok = f && nn__file_write(f, b->at, b->used);
    if (f && !nn__file_close(f, 0)) ok = 0;
    if (!ok) nn_fail(b->nn, "%s: cannot write \"%s\"", what, path ? path : "");
    return ok;
}

// The CRCs of PNG (polynomial 0xEDB88320) and of TFRecord (CRC32C, 0x82F63B78), both reflected; four bits at a time.
static uint32_t nn__crc(uint32_t polynomial, uint32_t crc, const unsigned char *p, size_t n)
{
    uint32_t table[16], i, j;
    for (i = 0; i < 16; i++) {
        table[i] = i;
        for (j = 0; j < 4; j++) table[i] = table[i] >> 1 ^ ((table[i] & 1) ? polynomial : 0);
    }
    for (crc = ~crc; n--; p++) {
        crc = crc >> 4 ^ table[(crc ^ *p) & 15];
        crc = crc >> 4 ^ table[(crc ^ (unsigned)*p >> 4) & 15];
    }
    return ~crc;
}

// ---- PNG (RFC 2083): zlib data (RFC 1950) of one deflate block with the fixed codes (RFC 1951) ------------
// Runs are found at two distances only, one pixel and one row: flat areas and enlarged pictures shrink, and it takes 60 lines.
typedef struct nn__bits { nn__bytes *to; uint64_t hold; int count; } nn__bits;

static void nn__put_bits(nn__bits *b, uint32_t v, int n)             // lowest bit first
{
    b->hold |= (uint64_t)v << b->count;
    for (b->count += n; b->count >= 8; b->count -= 8, b->hold >>= 8) nn__put_byte(b->to, (unsigned)(b->hold & 255));
}

static void nn__put_code(nn__bits *b, uint32_t code, int n)          // Huffman codes go highest bit first
{
    uint32_t r = 0;
    int i;
    for (i = 0; i < n; i++) r |= (code >> i & 1) << (n - 1 - i);
    nn__put_bits(b, r, n);
}

static void nn__put_symbol(nn__bits *b, unsigned s)                  // the fixed code of a literal or length (RFC 1951, 3.2.6)
{
    if (s < 144)      nn__put_code(b, 0x30 + s, 8);
    else if (s < 256) nn__put_code(b, 0x190 + s - 144, 9);
    else if (s < 280) nn__put_code(b, s - 256, 7);
    else              nn__put_code(b, 0xC0 + s - 280, 8);
}

static int nn__log2(unsigned v) { int n = 0; while (v >>= 1) n++; return n; }

static void nn__put_match(nn__bits *b, unsigned length, unsigned distance)   // "copy length bytes from distance bytes back"
{
    unsigned l = length - 3, d = distance - 1;
    int extra = l < 8 ? 0 : nn__log2(l) - 2;
    if (length == 258)  nn__put_symbol(b, 285);
    else if (!extra)    nn__put_symbol(b, 257 + l);
    else {
        nn__put_symbol(b, 257 + 4 * ((unsigned)extra + 1) + (l >> extra & 3));
        nn__put_bits(b, l & ((1u << extra) - 1), extra);
    }
    extra = d < 4 ? 0 : nn__log2(d) - 1;
    nn__put_code(b, extra ? 2 * ((unsigned)extra + 1) + (d >> extra & 1) : d, 5);
    nn__put_bits(b, d & ((1u << extra) - 1), extra);
}

static size_t nn__match_length(const unsigned char *p, size_t at, size_t n, size_t distance)
{
    size_t l = 0;
    if (distance > at || distance > 32768) return 0;
    while (l < 258 && at + l < n && p[at + l] == p[at + l - distance]) l++;
    return l;
}

static void nn__put_zlib(nn__bytes *to, const unsigned char *p, size_t n, size_t pixel, size_t row)
{
    uint32_t a = 1, c = 0;
    size_t i;
    nn__bits b;
    b.to = to; b.hold = 0; b.count = 0;
    nn__put(to, "\x78\x01", 2);
    nn__put_bits(&b, 3, 3);          // the last block, fixed codes
    for (i = 0; i < n;) {
        size_t near_by = nn__match_length(p, i, n, pixel), above = nn__match_length(p, i, n, row), l = near_by > above ? near_by : above;
        if (l >= 3) nn__put_match(&b, (unsigned)l, (unsigned)(l == near_by ? pixel : row));
        else nn__put_symbol(&b, p[i]);
        i += l >= 3 ? l : 1;
    }
    nn__put_symbol(&b, 256);
    nn__put_bits(&b, 0, 7);          // fills the last byte
    for (i = 0; i < n; i++) { a = (a + p[i]) % 65521; c = (c + a) % 65521; }         // Adler-32
    nn__put_big32(to, c << 16 | a);
}

static void nn__put_chunk(nn__bytes *b, const char *type, const unsigned char *p, size_t n)
{
    size_t start;
    nn__put_big32(b, (uint32_t)n);
    start = b->used;
    nn__put(b, type, 4);
    nn__put(b, p, n);
    if (b->at) nn__put_big32(b, nn__crc(0xEDB88320u, 0, b->at + start, n + 4));
}

// pixels: height rows of width * channels bytes; channels 1 (gray) or 3 (red, green, blue)
static nn__bytes nn__png(nn_context *nn, const unsigned char *pixels, int64_t width, int64_t height, int channels)
{
    size_t row = (size_t)width * (size_t)channels, y, n = (row + 1) * (size_t)height;
    nn__bytes b = nn__bytes_new(nn, n + n / 6 + 128), raw = nn__bytes_new(nn, n), z = nn__bytes_new(nn, n + n / 6 + 64), head = nn__bytes_new(nn, 16);
    for (y = 0; y < (size_t)height; y++) { nn__put_byte(&raw, 0); nn__put(&raw, pixels + y * row, row); }    // 0: no filter
    if (raw.at) nn__put_zlib(&z, raw.at, raw.used, (size_t)channels, row + 1);
    nn__put_big32(&head, (uint32_t)width);
    nn__put_big32(&head, (uint32_t)height);
    nn__put(&head, channels == 3 ? "\10\2\0\0\0" : "\10\0\0\0\0", 5);                // 8 bits, colour type, deflate, filters, not interlaced
    nn__put(&b, "\x89PNG\r\n\x1a\n", 8);
    nn__put_chunk(&b, "IHDR", head.at, head.used);
    nn__put_chunk(&b, "IDAT", z.at, z.used);
    nn__put_chunk(&b, "IEND", NULL, 0);
    return b;
}

// A sheet of `count` pictures (C, H, W) taken from v, `columns` in a row, one dark pixel between them, every pixel drawn scale x scale.
typedef struct nn__pictures { int64_t count, columns, width, height; int channels, scale, stretch; } nn__pictures;
static void nn__draw_pictures(const nn__pictures *s, const float *v, unsigned char *to, int64_t sheet_width)
{
    int64_t cell_w = s->width * s->scale + 1, cell_h = s->height * s->scale + 1, plane = s->width * s->height, i, x, y;
    int c;
    for (i = 0; i < s->count; i++, v += plane * s->channels) {
        float low = 0, high = 1;
        if (s->stretch) {            // pictures that leave 0..1, such as filters, are shown in their own range
            float l = INFINITY, h = -INFINITY;
            for (x = 0; x < plane * s->channels; x++) { if (v[x] < l) l = v[x]; if (v[x] > h) h = v[x]; }
            if ((l < 0 || h > 1) && h - l < INFINITY) { low = l; high = h > l ? h : l + 1; }
        }
        for (y = 0; y < s->height * s->scale; y++)
            for (x = 0; x < s->width * s->scale; x++)
                for (c = 0; c < s->channels; c++) {
                    float p = (v[c * plane + y / s->scale * s->width + x / s->scale] - low) / (high - low);
                    int64_t at = (i / s->columns * cell_h + y) * sheet_width + i % s->columns * cell_w + x;
                    to[at * s->channels + c] = (unsigned char)(p >= 1 ? 255 : p > 0 ? p * 255.0f + 0.5f : 0);   // NaN: black
                }
    }
}

static nn__bytes nn__pictures_png(nn_context *nn, const nn_tensor *x, const nn__pictures *s, int64_t *width, int64_t *height)
{
    int64_t rows = (s->count + s->columns - 1) / s->columns;
    nn__bytes none;
    unsigned char *pixels = NULL;
    float *v;
    memset(&none, 0, sizeof none);
    none.nn = nn;
    *width  = s->columns * (s->width * s->scale + 1) - 1;
    *height = rows * (s->height * s->scale + 1) - 1;
    if (*width > 65535 || *height > 65535 || *width * *height * s->channels > INT32_MAX / 2) {
        nn_fail(nn, "png: a picture of %lld x %lld pixels is too large", (long long)*width, (long long)*height);
        return none;
    }
    v = (float *)nn__host_step(nn, nn__mul_size((size_t)nn_count(x), sizeof *v));
    if (v) pixels = (unsigned char *)nn__host_step(nn, (size_t)(*width * *height * s->channels));
    if (!pixels || !nn_read(x, v)) return none;
    memset(pixels, 64, (size_t)(*width * *height * s->channels));
    nn__draw_pictures(s, v, pixels, *width);
    return nn__png(nn, pixels, *width, *height, s->channels);
}

// Fills s for one picture (C, H, W) or (H, W), or for (B, C, H, W). 0 after an error.
static int nn__pictures_of(nn_context *nn, const nn_tensor *x, const char *op, int sheet, nn__pictures *s)
{
    int i = sheet ? 1 : 0;
    if (!nn__check(nn, x, op)) return 0;
    memset(s, 0, sizeof *s);
    if (x->ndim != 3 + i && !(x->ndim == 2 && !sheet)) {
        nn_fail(nn, "%s: %s is not %s", op, nn__dims_text(x->ndim, x->shape).s, sheet ? "(B, C, H, W)" : "(C, H, W) or (H, W)");
        return 0;
    }
    s->height = x->shape[x->ndim - 2];
    s->width = x->shape[x->ndim - 1];
    s->count = sheet ? x->shape[0] : 1;
    s->columns = s->scale = 1;
    if (x->ndim == 2 || x->shape[i] == 1 || x->shape[i] == 3) s->channels = x->ndim == 2 || x->shape[i] == 1 ? 1 : 3;
    else if (sheet) { s->channels = 1; s->count *= x->shape[i]; }    // filters with many input channels: every channel is a picture
    else { nn_fail(nn, "%s: %lld channels, not 1 or 3", op, (long long)x->shape[i]); return 0; }
    if (nn_count(x) == 0) { nn_fail(nn, "%s: an empty picture: %s", op, nn__dims_text(x->ndim, x->shape).s); return 0; }
    return 1;
}

NN_API int nn_png_save(const nn_tensor *image, const char *path)
{
    nn_context *nn = image ? image->nn : NULL;
    nn__pictures s;
    nn__bytes b;
    nn__mark m;
    int64_t w, h;
    int ok;
    if (!nn__pictures_of(nn, image, "nn_png_save", 0, &s)) return 0;
    m = nn__get_mark(nn);
    b = nn__pictures_png(nn, image, &s, &w, &h);
    ok = nn__bytes_save(&b, "nn_png_save", path);
    nn__rewind_memory(nn, &m);
    return ok;
}

NN_API int nn_png_sheet(const nn_tensor *images, int columns, const char *path)
{
    nn_context *nn = images ? images->nn : NULL;
    nn__pictures s;
    nn__bytes b;
    nn__mark m;
    int64_t w, h;
    int ok;
    if (!nn__pictures_of(nn, images, "nn_png_sheet", 1, &s)) return 0;
    s.columns = nn__max(1, nn__min(columns, s.count));
    s.scale = (int)nn__max(1, 48 / nn__max(s.width, s.height));      // 5 x 5 filters could not be seen
    s.stretch = 1;
    m = nn__get_mark(nn);
    b = nn__pictures_png(nn, images, &s, &w, &h);
    ok = nn__bytes_save(&b, "nn_png_sheet", path);
    nn__rewind_memory(nn, &m);
    return ok;
}

// ---- TensorBoard ------------------------------------------------------------------------------------------
// An event file is a list of records:  u64 length, u32 masked CRC32C of it, the bytes, u32 masked CRC32C of them (TFRecord).
// The bytes are a protobuf message (tensorflow/core/util/event.proto, framework/summary.proto); the fields used here:
//   Event            1 wall_time double, 2 step int64, 3 file_version string, 5 summary
//   Summary          1 value: { 1 tag, 2 simple_value float, 4 image, 5 histo, 8 tensor, 9 metadata }
//   Image            1 height, 2 width, 3 colorspace (channels), 4 encoded_image_string
//   HistogramProto   1 min, 2 max, 3 num, 4 sum, 5 sum_squares, 6 bucket_limit (packed doubles), 7 bucket (packed doubles)
//   TensorProto      1 dtype (7: string), 2 tensor_shape { 2 dim { 1 size } }, 8 string_val;  metadata { 1 plugin_data { 1 plugin_name } }
// A field is its number * 8 + kind (0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes), then the value.
struct nn_events { nn_context *nn; nn__file *file; };

static void nn__put_varint(nn__bytes *b, uint64_t v)
{
    for (; v >= 128; v >>= 7) nn__put_byte(b, (unsigned)(v & 127) | 128);
    nn__put_byte(b, (unsigned)v);
}
static void nn__proto_int(nn__bytes *b, unsigned field, int64_t v) { nn__put_varint(b, field << 3); nn__put_varint(b, (uint64_t)v); }
static void nn__proto_double(nn__bytes *b, unsigned field, double v)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    nn__put_varint(b, field << 3 | 1);
    nn__put_little(b, u, 8);
}
static void nn__proto_bytes(nn__bytes *b, unsigned field, const nn__bytes *v)
{
    nn__put_varint(b, field << 3 | 2);
    nn__put_varint(b, v->used);
    if (v->at) nn__put(b, v->at, v->used); else b->at = NULL;
}
static void nn__proto_text(nn__bytes *b, unsigned field, const char *s)
{
    nn__bytes t = nn__bytes_new(b->nn, 128);
    nn__put_utf8(&t, s, 0);
    nn__proto_bytes(b, field, &t);
}

static uint32_t nn__masked_crc(const unsigned char *p, size_t n)
{
    uint32_t c = nn__crc(0x82F63B78u, 0, p, n);
    return (c >> 15 | c << 17) + 0xA282EAD8u;
}

// Frames an event with the given field 3 (text) or 5 (summary) and writes it; flushed, so that TensorBoard sees it at once.
static int nn__events_write(nn_events *e, int64_t step, const char *version, const nn__bytes *summary)
{
    nn__bytes event = nn__bytes_new(e->nn, 64 + (summary ? summary->used : 0)), record = nn__bytes_new(e->nn, event.room + 16);
    int ok;
    if (!e->file) { nn_fail(e->nn, "nn_events: the file is closed"); return 0; }
    nn__proto_double(&event, 1, nn__wall_seconds());
    if (step) nn__proto_int(&event, 2, step);
    if (version) nn__proto_text(&event, 3, version);
    if (summary) nn__proto_bytes(&event, 5, summary);
    nn__put_little(&record, event.used, 8);
    if (record.at) nn__put_little(&record, nn__masked_crc(record.at, 8), 4);
    if (event.at) { nn__put(&record, event.at, event.used); nn__put_little(&record, nn__masked_crc(event.at, event.used), 4); }
    if (!event.at || !record.at) return 0;
    ok = nn__file_write(e->file, record.at, record.used) && nn__file_flush(e->file);
    if (!ok) nn_fail(e->nn, "nn_events: writing failed (disk full?)");
    return ok;
}

static void nn__events_close(void *arg)
{
    nn_events *e = (nn_events *)arg;
    if (e->file) nn__file_close(e->file, 0);
    e->file = NULL;
}

NN_API nn_events *nn_events_new(nn_context *nn, const char *dir)
{
    char path[1024];
    nn_events *e;
    nn__mark m;
    int i, n = 0;
    if (!nn_ok(nn)) return NULL;
    e = (nn_events *)nn__life(nn, sizeof *e);
    if (!e) return NULL;
    e->nn = nn;
    nn__make_folders(dir);
    for (i = 0; i < 1000; i++) {     // TensorBoard reads every file with "tfevents" in its name; never write into one that is there
        nn__file *old;
        n = snprintf(path, sizeof path, "%s/events.out.tfevents.%010.0f.nn_h.%d", dir ? dir : ".", floor(nn__wall_seconds()), i);
        if (n < 0 || (size_t)n >= sizeof path) break;
        old = nn__file_open(path, 0);
        if (!old) { e->file = nn__file_open(path, 1); break; }
        nn__file_close(old, 0);
    }
    if (!e->file) { nn_fail(nn, "nn_events_new: cannot create a file in \"%s\"", dir ? dir : "."); return NULL; }
    nn__on_free(nn, nn__events_close, e);
    m = nn__get_mark(nn);
    nn__events_write(e, 0, "brain.Event:2", NULL);       // the first record of every event file
    nn__rewind_memory(nn, &m);
    return nn_ok(nn) ? e : NULL;
}

// Begins a Summary.Value with its tag; the caller adds the field with the value and hands it to nn__value_end.
static int nn__value_begin(nn_events *e, const char *tag, size_t room, nn__bytes *value, nn__mark *m)
{
    if (!e || !nn_ok(e->nn)) return 0;
    *m = nn__get_mark(e->nn);
    *value = nn__bytes_new(e->nn, room);
    nn__proto_text(value, 1, tag);
    return 1;
}
static int nn__value_end(nn_events *e, int64_t step, const nn__bytes *value, const nn__mark *m)
{
    nn__bytes summary = nn__bytes_new(e->nn, value->used + 16);
    int ok;
    nn__proto_bytes(&summary, 1, value);
    ok = summary.at && nn__events_write(e, step, NULL, &summary);
    nn__rewind_memory(e->nn, m);
    return ok;
}

NN_API int nn_events_scalar(nn_events *events, const char *tag, int64_t step, double value)
{
    nn__bytes v;
    nn__mark m;
    float f = (float)value;
    uint32_t u;
    if (!nn__value_begin(events, tag, 128, &v, &m)) return 0;
    memcpy(&u, &f, sizeof u);
    nn__put_varint(&v, 2 << 3 | 5);
    nn__put_little(&v, u, 4);
    return nn__value_end(events, step, &v, &m);
}

// 30 buckets of equal width from min to max, as TensorFlow 2 makes them. Values that are not finite are left out.
NN_API int nn_events_histogram(nn_events *events, const char *tag, int64_t step, const float *values, int64_t count)
{
    enum { BUCKETS = 30 };
    double low = INFINITY, high = -INFINITY, sum = 0, squares = 0, bucket[BUCKETS], n = 0;
    int64_t i, buckets;
    nn__bytes v, h, limits, counts;
    nn__mark m;
    for (i = 0; values && i < count; i++) {
        double x = (double)values[i];
        if (!(x - x == 0)) continue;
        if (x < low) low = x;
        if (x > high) high = x;
        sum += x; squares += x * x; n++;
    }
    if (n == 0) low = high = 0;
    buckets = high > low || events->nn->measuring ? BUCKETS : 1;
    for (i = 0; i < BUCKETS; i++) bucket[i] = 0;
    for (i = 0; n > 0 && i < count; i++) {
        double x = (double)values[i];
        if (x - x == 0) bucket[buckets == 1 ? 0 : nn__min(buckets - 1, (int64_t)((x - low) / (high - low) * (double)buckets))]++;
    }
    if (!nn__value_begin(events, tag, 1024, &v, &m)) return 0;
    h = nn__bytes_new(events->nn, 1024);
    limits = nn__bytes_new(events->nn, 512);
    counts = nn__bytes_new(events->nn, 512);
    for (i = 0; i < buckets; i++) {
        double limit = i == buckets - 1 ? high : low + (high - low) * (double)(i + 1) / (double)buckets;
        uint64_t u;
        memcpy(&u, &limit, sizeof u);
        nn__put_little(&limits, u, 8);
        memcpy(&u, &bucket[i], sizeof u);
        nn__put_little(&counts, u, 8);
    }
    nn__proto_double(&h, 1, low);
    nn__proto_double(&h, 2, high);
    nn__proto_double(&h, 3, n);
    nn__proto_double(&h, 4, sum);
    nn__proto_double(&h, 5, squares);
    nn__proto_bytes(&h, 6, &limits);
    nn__proto_bytes(&h, 7, &counts);
    nn__proto_bytes(&v, 5, &h);
    return nn__value_end(events, step, &v, &m);
}

NN_API int nn_events_image(nn_events *events, const char *tag, int64_t step, const nn_tensor *image)
{
    nn__bytes v, i, png;
    nn__mark m;
    nn__pictures s;
    int64_t w, h;
    if (!events || !nn__pictures_of(events->nn, image, "nn_events_image", 0, &s)) return 0;
    if (!nn__value_begin(events, tag, 256, &v, &m)) return 0;
    i = nn__bytes_new(events->nn, 64);
    png = nn__pictures_png(events->nn, image, &s, &w, &h);
    nn__proto_int(&i, 1, h);
    nn__proto_int(&i, 2, w);
    nn__proto_int(&i, 3, s.channels);
    nn__proto_bytes(&i, 4, &png);
    nn__proto_bytes(&v, 4, &i);
    return nn__value_end(events, step, &v, &m);
}

NN_API int nn_events_text(nn_events *events, const char *tag, int64_t step, const char *text)
{
    nn__bytes v, t, meta, plugin;
    nn__mark m;
    if (!nn__value_begin(events, tag, 256, &v, &m)) return 0;
    t = nn__bytes_new(events->nn, 256);
    meta = nn__bytes_new(events->nn, 32);
    plugin = nn__bytes_new(events->nn, 32);
    nn__proto_text(&plugin, 1, "text");
    nn__proto_bytes(&meta, 1, &plugin);
    nn__proto_int(&t, 1, 7);
    nn__put(&t, "\x12\x04\x12\x02\x08\x01", 6);          // field 2, a shape of one dimension of size 1
    nn__proto_text(&t, 8, text);
    nn__proto_bytes(&v, 8, &t);
    nn__proto_bytes(&v, 9, &meta);
    return nn__value_end(events, step, &v, &m);
}

// ---- SVG ----------------------------------------------------------------------------------------------------
static const char *const nn__colors[8] = { "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#888888" };   // Okabe & Ito

static void nn__svg_begin(nn__bytes *b, int width, int height)
{
    nn__put_format(b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
                   "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", width, height, width, height);
}
static void nn__svg_text(nn__bytes *b, double x, double y, const char *attributes, const char *text)
{
    nn__put_chars(b, "<text x=\"");
    nn__put_number(b, x, 6);
    nn__put_chars(b, "\" y=\"");
    nn__put_number(b, y, 6);
    nn__put_format(b, "\" %s>", attributes);
    nn__put_utf8(b, text, 1);
    nn__put_chars(b, "</text>\n");
}
static void nn__svg_line(nn__bytes *b, double x1, double y1, double x2, double y2, const char *color)
{
    nn__put_chars(b, "<path d=\"M");
    nn__put_number(b, x1, 6); nn__put_byte(b, ' ');
    nn__put_number(b, y1, 6); nn__put_byte(b, 'L');
    nn__put_number(b, x2, 6); nn__put_byte(b, ' ');
    nn__put_number(b, y2, 6);
    nn__put_format(b, "\" stroke=\"%s\"/>\n", color);
}

// 1, 2 or 5 times a power of ten, such that about `parts` of them cover `range`
static double nn__tick_step(double range, int parts)
{
    double raw = range / parts, power = pow(10.0, floor(log10(raw))), m = raw / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

// Where value v of low..high lies on from..to; halves, because high - low may overflow.
static double nn__place(double v, double low, double high, double from, double to)
{
    return from + (to - from) * ((v / 2 - low / 2) / (high / 2 - low / 2));
}

typedef struct nn__axes { double x0, x1, y0, y1, low, high; int64_t last; } nn__axes;    // pixels, range of y, last index on x

static void nn__svg_axes(nn__bytes *b, const nn__axes *a)
{
    double step = nn__tick_step(a->high - a->low, 5), t;
    nn__bytes label = nn__bytes_new(b->nn, 64);
    int i;
    for (i = 0; i < 12; i++) {
        t = (ceil(a->low / step) + i) * step;
        if (!(t <= a->high + step * 1e-9)) break;
        if (fabs(t) < step * 1e-9) t = 0;
        label.used = 0;
        nn__put_number(&label, t, 6);
        nn__put_byte(&label, 0);
        if (!label.at || !b->at) return;
        nn__svg_line(b, a->x0, nn__place(t, a->low, a->high, a->y0, a->y1), a->x1, nn__place(t, a->low, a->high, a->y0, a->y1), "#ddd");
        nn__svg_text(b, a->x0 - 6, nn__place(t, a->low, a->high, a->y0, a->y1) + 4, "text-anchor=\"end\"", (const char *)label.at);
    }
    step = a->last > 0 ? nn__tick_step((double)a->last, 8) : 1;
    if (step < 1) step = 1;
    for (i = 0; i < 24 && i * step <= (double)a->last; i++) {
        double x = nn__place(i * step, 0, (double)nn__max(a->last, 1), a->x0, a->x1);
        char s[32];
        snprintf(s, sizeof s, "%.0f", i * step);
        nn__svg_line(b, x, a->y0, x, a->y0 + 4, "#333");
        nn__svg_text(b, x, a->y0 + 18, "text-anchor=\"middle\"", s);
    }
    nn__svg_line(b, a->x0, a->y0, a->x1, a->y0, "#333");
    nn__svg_line(b, a->x0, a->y0, a->x0, a->y1, "#333");
}

static void nn__svg_series(nn__bytes *b, const nn__axes *a, const nn_series *s, const char *color)
{
    int64_t i;
    int down = 0;                    // is the pen on the paper? NaN lifts it
    nn__put_chars(b, "<path d=\"");
    for (i = 0; s->y && i < s->count; i++) {
        int alone = !down && (i + 1 == s->count || !(s->y[i + 1] - s->y[i + 1] == 0));
        if (!(s->y[i] - s->y[i] == 0)) { down = 0; continue; }
        nn__put_byte(b, down ? 'L' : 'M');
        nn__put_number(b, nn__place((double)i, 0, (double)nn__max(a->last, 1), a->x0, a->x1), 6);
        nn__put_byte(b, ' ');
        nn__put_number(b, nn__place(s->y[i], a->low, a->high, a->y0, a->y1), 6);
        if (alone) nn__put_chars(b, "h0");              // a dot, thanks to the round ends
        down = 1;
    }
    nn__put_format(b, "\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/>\n", color);
}

NN_API int nn_svg_plot(nn_context *nn, const char *path, const char *title, const nn_series *series, int count)
{
    nn__bytes b;
    nn__axes a;
    nn__mark m;
    int64_t j;
    int i, ok;
    if (!nn_ok(nn)) return 0;
    m = nn__get_mark(nn);
    b = nn__bytes_new(nn, 16384);
    a.x0 = 70; a.x1 = 560; a.y0 = 360; a.y1 = 40; a.low = INFINITY; a.high = -INFINITY; a.last = 0;
    for (i = 0; i < count; i++) {
        a.last = nn__max(a.last, series[i].count - 1);
        for (j = 0; series[i].y && j < series[i].count; j++) {
            double y = series[i].y[j];
            if (!(y - y == 0)) continue;
            if (y < a.low) a.low = y;
            if (y > a.high) a.high = y;
        }
    }
    if (!(a.low <= a.high)) { a.low = 0; a.high = 1; }
    if (!(a.high - a.low > 1e-12 * fabs(a.high))) {      // one value: room on both sides
        double room = a.high != 0 ? 0.5 * fabs(a.high) : 1;
        a.low -= room; a.high += room;
    }
    nn__svg_begin(&b, 720, 400);
    nn__svg_text(&b, (a.x0 + a.x1) / 2, 24, "text-anchor=\"middle\" font-size=\"15\"", title);
    nn__svg_axes(&b, &a);
    for (i = 0; i < count; i++) {
        double y = a.y1 + 8 + 18 * i;
        nn__svg_series(&b, &a, &series[i], nn__colors[i & 7]);
        nn__svg_line(&b, a.x1 + 14, y, a.x1 + 34, y, nn__colors[i & 7]);
        nn__svg_text(&b, a.x1 + 40, y + 4, "", series[i].name);
    }
    nn__put_chars(&b, "</svg>\n");
    ok = nn__bytes_save(&b, "nn_svg_plot", path);
    nn__rewind_memory(nn, &m);
    return ok;
}

NN_API int nn_svg_confusion(nn_context *nn, const char *path, const nn_report *report)
{
    int64_t n = report ? nn__min(report->classes, NN_MAX_CLASSES) : 0, i, j;
    int side = (int)nn__max(20, nn__min(56, 560 / nn__max(n, 1))), x0 = 130, y0 = 60, ok;
    char label[24], attributes[96];
    nn__bytes b;
    nn__mark m;
    if (!nn_ok(nn)) return 0;
    if (n < 1) { nn_fail(nn, "nn_svg_confusion: the report has no classes"); return 0; }
    m = nn__get_mark(nn);
    b = nn__bytes_new(nn, 16384 + (size_t)(n * n) * 256);
    nn__svg_begin(&b, x0 + side * (int)n + 30, y0 + side * (int)n + 110);
    nn__svg_text(&b, x0 + side * (double)n / 2, 24, "text-anchor=\"middle\" font-size=\"15\"", "true class (rows), predicted class (columns)");
    for (i = 0; i < n; i++) {
        double row = 0, at = y0 + side * ((double)i + 0.5) + 4;
        for (j = 0; j < n; j++) row += (double)report->confusion[i][j];
        nn__svg_text(&b, x0 - 8, at, "text-anchor=\"end\"", nn__class_name(report, i, label, sizeof label));
        snprintf(attributes, sizeof attributes, "text-anchor=\"end\" transform=\"rotate(-45 %d %d)\"", x0 + side * (int)i + side / 2 + 4, y0 + side * (int)n + 16);
        nn__svg_text(&b, x0 + side * (int)i + side / 2 + 4, y0 + side * (int)n + 16, attributes, nn__class_name(report, i, label, sizeof label));
        for (j = 0; j < n; j++) {
            int64_t count = report->confusion[i][j];
            double share = row > 0 ? (double)count / row : 0;        // shaded by the share of its row
            nn__put_format(&b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" stroke=\"#ccc\" fill=\"#0072b2\" fill-opacity=\"",
                           x0 + side * (int)j, y0 + side * (int)i, side, side);
            nn__put_number(&b, share, 3);
            nn__put_chars(&b, "\"/>\n");
            if (!count) continue;
            snprintf(label, sizeof label, "%lld", (long long)count);
            snprintf(attributes, sizeof attributes, "text-anchor=\"middle\" font-size=\"%d\" fill=\"%s\"", side > 30 ? 12 : 8, share > 0.55 ? "#fff" : "#000");
            nn__svg_text(&b, x0 + side * ((double)j + 0.5), at, attributes, label);
        }
    }
    nn__put_chars(&b, "</svg>\n");
    ok = nn__bytes_save(&b, "nn_svg_confusion", path);
    nn__rewind_memory(nn, &m);
    return ok;
}

// Eight heights of a block, U+2581..U+2588, each the mean of its part of y; a blank where y is NaN. Returns the full length, as snprintf.
NN_API size_t nn_sparkline(const double *y, int64_t count, int width, char *to, size_t bytes)
{
    double low = INFINITY, high = -INFINITY;
    int64_t i, w = nn__min(width, count);
    size_t used = 0;
    if (bytes) to[0] = 0;
    for (i = 0; i < count; i++) if (y[i] - y[i] == 0) { if (y[i] < low) low = y[i]; if (y[i] > high) high = y[i]; }
    for (i = 0; i < w; i++) {
        int64_t j, first = count / w * i + nn__min(i, count % w), end = count / w * (i + 1) + nn__min(i + 1, count % w);
        double sum = 0, n = 0;
        char s[4];
        for (j = first; j < end; j++) if (y[j] - y[j] == 0) { sum += y[j]; n++; }
        s[0] = ' '; s[1] = s[2] = s[3] = 0;
        if (n > 0) {
            double level = high > low ? nn__place(sum / n, low, high, 0, 8) : 0;
            s[0] = (char)0xE2; s[1] = (char)0x96; s[2] = (char)(0x81 + (level < 0 ? 0 : level > 7 ? 7 : (int)level));
        }
        if (used + strlen(s) < bytes) memcpy(to + used, s, strlen(s) + 1);
        else bytes = 0;              // whole characters only
        used += strlen(s);
    }
    return used;
}

// =============================================================================================
// >>files   Weights and checkpoints in the safetensors format (https://github.com/huggingface/safetensors):
//
//     8 bytes    N, little-endian
//     N bytes    JSON: {"__metadata__":{"key":"text", ...},"fc1.weight":{"dtype":"F32","shape":[8,2],"data_offsets":[0,64]}, ...}
//                and spaces, so that the data begin at a multiple of 8
//     the data   row-major, little-endian; offsets count from here; no holes, no overlaps, nothing after the last tensor
//
// A file is not trusted: the whole header is checked against the size of the file and against the model before one number is written
// into the model. Numbers pass through a small buffer, so neither saving nor loading needs memory for the whole file.
//
// A checkpoint is the same file with more in it: the states of the optimizer are tensors "optimizer.<state>.<parameter>", and single
// numbers (steps, learning rates, where the loader stands, random state) are metadata: integers in decimal, reals as the hexadecimal digits
// of their bits, so that nothing is rounded. nn_load leaves them out; nn_resume wants all of them.
// =============================================================================================
enum { NN__PIECE = 16384,            // numbers that are converted at a time
       NN__JSON_DEPTH = 32 };
#define NN__HEADER_LIMIT 100000000u  // bytes; the reference implementation's limit

// ---- bytes from and to a file or memory; with neither, writing only counts --------------------------------
typedef struct nn__io {
    nn_context *nn;
    const char *what, *path;         // for messages: "nn_save", "model.safetensors"
    nn__file   *file;
    char       *to;
    const char *from;
    uint64_t    bytes, at;           // size of the file or memory; bytes written so far
} nn__io;

static int nn__io_failed(nn__io *io, const char *verb)
{
    nn_fail(io->nn, "%s: %s: cannot %s: %s", io->what, io->path, verb, nn__file_reason());
    return 0;
}

static int nn__io_write(nn__io *io, const void *from, size_t n)
{
    if (io->file) { if (!nn__file_write(io->file, from, n)) return nn__io_failed(io, "write"); }
    else if (io->to && io->at + n <= io->bytes) memcpy(io->to + io->at, from, n);
    io->at += n;                     // memory that is too small: the caller compares at with bytes
    return 1;
}

static int nn__io_read(nn__io *io, uint64_t at, void *to, size_t n)     // at + n <= bytes was checked
{
    if (!n) return 1;
    if (io->from) { memcpy(to, io->from + at, n); return 1; }
    errno = 0;
    if (!nn__file_seek(io->file, at) || nn__file_read(io->file, to, n) != n) return nn__io_failed(io, "read");
    return 1;
}

static int nn__io_open(nn__io *io)   // for reading
{
    int64_t size;
    errno = 0;
    if (!io->path || !io->path[0]) { nn_fail(io->nn, "%s: the path is empty", io->what); return 0; }
    if (nn__file_special(io->path)) { nn_fail(io->nn, "%s: %s: not a regular file", io->what, io->path); return 0; }
    io->file = nn__file_open(io->path, 0);
    if (!io->file) return nn__io_failed(io, "open");
    size = nn__file_size(io->file);
    if (size < 0) { nn__io_failed(io, "read"); nn__file_close(io->file, 0); return 0; }
    io->bytes = (uint64_t)size;
    return 1;
}

// ---- numbers between tensors and files ----------------------------------------------------------------------
static const struct { const char *name; int bits, dtype; } nn__file_dtypes[] = {   // dtype -1: known to the format, not to us
    { "F32", 32, NN_F32 }, { "F16", 16, NN_F16 }, { "BF16", 16, NN_BF16 }, { "F64", 64, NN_F64 }, { "I8", 8, NN_I8 }, { "U8", 8, NN_U8 },
    { "I32", 32, NN_I32 }, { "I64", 64, NN_I64 }, { "BOOL", 8, NN_BOOL }, { "I16", 16, -1 }, { "U16", 16, -1 }, { "U32", 32, -1 }, { "U64", 64, -1 },
    { "F8_E4M3", 8, -1 }, { "F8_E5M2", 8, -1 }, { "F8_E8M0", 8, -1 }, { "F8_E4M3FNUZ", 8, -1 }, { "F8_E5M2FNUZ", 8, -1 }, { "F4", 4, -1 },
    { "F6_E2M3", 6, -1 }, { "F6_E3M2", 6, -1 }, { "C64", 64, -1 } };
enum { NN__FILE_DTYPES = (int)(sizeof nn__file_dtypes / sizeof *nn__file_dtypes) };

static const char *nn__file_dtype_name(int dtype)
{
    int i = 0;
    while (nn__file_dtypes[i].dtype != dtype) i++;       // every nn_dtype is there
    return nn__file_dtypes[i].name;
}

static void nn__little_endian(void *data, size_t n, size_t element)     // the host's byte order <-> the file's, in place
{
    const uint16_t one = 1;
    char *p = (char *)data;
    size_t i, j;
    if (*(const char *)&one == 1) return;
    for (i = 0; i < n; i++, p += element)
        for (j = 0; j < element / 2; j++) { char t = p[j]; p[j] = p[element - 1 - j]; p[element - 1 - j] = t; }
}

// A tensor is moved in pieces of at most NN__PIECE numbers: whole inner blocks, cut along the first dimension that does not fit.
typedef struct nn__transfer {
    nn__io *io;
    int     write, dtype;            // of the file
    uint64_t at;                     // reading: position in the file
    char   *host;                    // one piece in host memory ...
    nn_view device;                  // ... and one where the numbers are, in the dtype of the file
} nn__transfer;

static int nn__transfer_piece(nn__transfer *x, nn_view v)
{
    nn_context *nn = x->io->nn;
    const nn_backend *b = nn->backend;
    size_t n = (size_t)nn_view_count(&v), e = nn_dtype_bytes((nn_dtype)x->dtype);
    int direct = v.dtype == x->dtype && nn__contiguous_view(&v);
    nn_view f = v;
    nn__row_major(f.ndim, f.shape, f.stride);
    f.dtype = x->dtype;
    f.data = direct ? v.data : x->device.data;
    if (x->write) {
        if (!nn->measuring) {
            if (!direct) nn__copy_view(nn, f, v);
            if (!nn_ok(nn)) return 0;
            if (!b->download(b->self, x->host, f.data, n * e)) { nn_fail(nn, "%s: download failed", b->name); return 0; }
        } else memset(x->host, 0, n * e);
        nn__little_endian(x->host, n, e);
        return nn__io_write(x->io, x->host, n * e);
    }
    if (!nn__io_read(x->io, x->at, x->host, n * e)) return 0;
    x->at += n * e;
    if (nn->measuring) return 1;
    nn__little_endian(x->host, n, e);
    if (!b->upload(b->self, f.data, x->host, n * e)) { nn_fail(nn, "%s: upload failed", b->name); return 0; }
    if (!direct) nn__copy_view(nn, v, f);
    return nn_ok(nn);
}

static int nn__transfer_tensor(nn__transfer *x, nn_tensor *t)
{
    nn_context *nn = x->io->nn;
    nn_view v = nn__view_of(t), piece;
    int64_t inner = 1, outer = 1, rows, o, r;
    size_t e = nn_dtype_bytes((nn_dtype)t->dtype), bytes;
    int d = v.ndim, i, ok = 1;
    nn__mark m;
    if (nn_count(t) == 0) return 1;
    if (!x->write) t->base->version++;
    while (d > 0 && v.shape[d - 1] <= NN__PIECE / inner) inner *= v.shape[--d];
    rows = d ? v.shape[d - 1] : 1;
    for (i = 0; i + 1 < d; i++) outer *= v.shape[i];
    piece = v;
    piece.ndim = v.ndim - d + (d > 0);
    if (d) for (i = 0; i < piece.ndim; i++) { piece.shape[i] = v.shape[d - 1 + i]; piece.stride[i] = v.stride[d - 1 + i]; }
    m = nn__get_mark(nn);
    bytes = (size_t)nn__min(nn_count(t), NN__PIECE) * nn_dtype_bytes((nn_dtype)x->dtype);
    x->host = (char *)nn__host_step(nn, bytes);
    x->device = v;
    x->device.data = nn__arena_alloc(nn->data_step, bytes, 1);
    if (!x->host || (!x->device.data && !nn->measuring)) ok = 0;
    for (o = 0; ok && o < outer; o++) {
        int64_t at = 0, rest = o, step = d ? nn__max(1, NN__PIECE / inner) : 1;
        for (i = d - 2; i >= 0; i--) { at += rest % v.shape[i] * v.stride[i]; rest /= v.shape[i]; }
        for (r = 0; ok && r < rows; r += step) {
            if (d) {
                piece.shape[0] = nn__min(step, rows - r);
                if (v.data) piece.data = (char *)v.data + (at + r * v.stride[d - 1]) * (int64_t)e;
            }
            ok = nn__transfer_piece(x, piece);
        }
    }
    nn__rewind_memory(nn, &m);
    return ok;
}

// ---- the JSON of the header: a strict parser that decodes strings in place -----------------------------------
typedef struct nn__json { nn__io *io; char *s; size_t n, at; } nn__json;

static int nn__json_fail(nn__json *j, const char *why)
{
    nn_fail(j->io->nn, "%s: %s: header, byte %llu: %s", j->io->what, j->io->path, (unsigned long long)j->at, why);
    return 0;
}

static int nn__json_peek(nn__json *j)                    // the next character that is no space; 0 at the end
{
    while (j->at < j->n && (j->s[j->at] == ' ' || j->s[j->at] == '\t' || j->s[j->at] == '\n' || j->s[j->at] == '\r')) j->at++;
    return j->at < j->n ? (unsigned char)j->s[j->at] : 0;
}

static int nn__json_take(nn__json *j, char c)
{
    char why[] = "'?' is missing";
    if (nn__json_peek(j) == c) { j->at++; return 1; }
    why[1] = c;
    return nn__json_fail(j, why);
}

// After an element: 1 if there is another one, 0 at the closing bracket, -1 after an error.
static int nn__json_more(nn__json *j, char close)
{
    if (nn__json_peek(j) == close) { j->at++; return 0; }
    return nn__json_take(j, ',') ? 1 : -1;
}
static int nn__json_open(nn__json *j, char open, char close)             // same, at the beginning
{
    if (!nn__json_take(j, open)) return -1;
    if (nn__json_peek(j) != close) return 1;
    j->at++;
    return 0;
}

static size_t nn__utf8_length(const unsigned char *s, size_t n)          // bytes of the well-formed character at s; 0: malformed (Unicode, table 3-7)
{
    size_t i, len = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (len == 0 || len > n) return 0;
    for (i = 1; i < len; i++) if ((s[i] & 0xC0) != 0x80) return 0;
    if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F)) return 0;
    return len;
}

static int nn__json_hex(nn__json *j, unsigned *to)       // four digits
{
    int i;
    *to = 0;
    for (i = 0; i < 4; i++, j->at++) {
        int c = j->at < j->n ? (unsigned char)j->s[j->at] : 0;
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (v < 0) return nn__json_fail(j, "\\u needs four hexadecimal digits");
        *to = *to << 4 | (unsigned)v;
    }
    return 1;
}

static int nn__json_escape(nn__json *j, char **to)       // after the backslash; what it stands for is never longer than itself
{
    static const char from[] = "\"\\/bfnrt", as[] = "\"\\/\b\f\n\r\t";
    int c = j->at < j->n ? j->s[j->at++] : 0;
    const char *simple = c ? strchr(from, c) : NULL;
    unsigned u, low;
    char *q = *to;
    if (simple) { *q = as[simple - from]; *to = q + 1; return 1; }
    if (c != 'u') return nn__json_fail(j, "unknown escape");
    if (!nn__json_hex(j, &u)) return 0;
    if (u >= 0xDC00 && u < 0xE000) return nn__json_fail(j, "half a surrogate pair");
    if (u >= 0xD800 && u < 0xDC00) {
        if (j->n - j->at < 2 || j->s[j->at] != '\\' || j->s[j->at + 1] != 'u') return nn__json_fail(j, "half a surrogate pair");
        j->at += 2;
        if (!nn__json_hex(j, &low)) return 0;
        if (low < 0xDC00 || low >= 0xE000) return nn__json_fail(j, "half a surrogate pair");
        u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00);
    }
    if (u == 0) return nn__json_fail(j, "a NUL character in a string");
    if (u < 0x80) *q++ = (char)u;
    else {
        if (u < 0x800) *q++ = (char)(0xC0 | u >> 6);
        else {
            if (u < 0x10000) *q++ = (char)(0xE0 | u >> 12);
            else { *q++ = (char)(0xF0 | u >> 18); *q++ = (char)(0x80 | (u >> 12 & 63)); }
            *q++ = (char)(0x80 | (u >> 6 & 63));
        }
        *q++ = (char)(0x80 | (u & 63));
    }
    *to = q;
    return 1;
}

static int nn__json_string(nn__json *j, char **text)     // decoded in place, with a 0 at its end
{
    char *q;
    if (!nn__json_take(j, '"')) return 0;
    *text = q = j->s + j->at;
    while (j->at < j->n) {
        unsigned char c = (unsigned char)j->s[j->at];
        size_t len;
        if (c == '"') { j->at++; *q = 0; return 1; }
        if (c < 0x20) return nn__json_fail(j, "a control character in a string");
        if (c == '\\') { j->at++; if (!nn__json_escape(j, &q)) return 0; continue; }
        len = nn__utf8_length((const unsigned char *)j->s + j->at, j->n - j->at);
        if (!len) return nn__json_fail(j, "not UTF-8");
        memmove(q, j->s + j->at, len);
        q += len;
        j->at += len;
    }
    return nn__json_fail(j, "a string does not end");
}

static int nn__json_key(nn__json *j, char **text) { return nn__json_string(j, text) && nn__json_take(j, ':'); }

static int nn__digit(const nn__json *j) { return j->at < j->n && j->s[j->at] >= '0' && j->s[j->at] <= '9'; }

static int nn__json_count(nn__json *j, int64_t *to)      // a whole number >= 0
{
    int64_t v = 0;
    size_t start;
    nn__json_peek(j);
    start = j->at;
    if (!nn__digit(j)) return nn__json_fail(j, "a whole number is missing");
    for (; nn__digit(j); j->at++) {
        int digit = j->s[j->at] - '0';
        if (v > (INT64_MAX - digit) / 10) return nn__json_fail(j, "the number is too large");
        v = v * 10 + digit;
    }
    if (j->s[start] == '0' && j->at > start + 1) return nn__json_fail(j, "a number begins with 0");
    if (j->at < j->n && (j->s[j->at] == '.' || j->s[j->at] == 'e' || j->s[j->at] == 'E')) return nn__json_fail(j, "not a whole number");
    *to = v;
    return 1;
}

static int nn__json_real(nn__json *j)                    // any number, skipped
{
    if (j->s[j->at] == '-') j->at++;
    if (j->at < j->n && j->s[j->at] == '0') j->at++;
    else { if (!nn__digit(j)) return nn__json_fail(j, "a value is missing"); while (nn__digit(j)) j->at++; }
    if (j->at < j->n && j->s[j->at] == '.') {
        j->at++;
        if (!nn__digit(j)) return nn__json_fail(j, "a digit is missing");
        while (nn__digit(j)) j->at++;
    }
    if (j->at < j->n && (j->s[j->at] == 'e' || j->s[j->at] == 'E')) {
        j->at++;
        if (j->at < j->n && (j->s[j->at] == '+' || j->s[j->at] == '-')) j->at++;
        if (!nn__digit(j)) return nn__json_fail(j, "a digit is missing");
        while (nn__digit(j)) j->at++;
    }
    return 1;
}

static int nn__json_skip(nn__json *j, int depth)         // a value that nobody asked for
{
    static const char *const words[] = { "true", "false", "null" };
    char *ignore;
    int c = nn__json_peek(j), more, i;
    if (c == '"') return nn__json_string(j, &ignore);
    if (c == '{' || c == '[') {
        char close = c == '{' ? '}' : ']';
        if (depth == NN__JSON_DEPTH) return nn__json_fail(j, "nested too deeply");
        for (more = nn__json_open(j, (char)c, close); more == 1; more = nn__json_more(j, close))
            if ((c == '{' && !nn__json_key(j, &ignore)) || !nn__json_skip(j, depth + 1)) return 0;
        return more == 0;
    }
    for (i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (j->n - j->at >= n && !memcmp(j->s + j->at, words[i], n)) { j->at += n; return 1; }
    }
    return c ? nn__json_real(j) : nn__json_fail(j, "a value is missing");
}

// ---- the header -------------------------------------------------------------------------------------------------
typedef struct nn__entry {           // a tensor in the file
    const char *name;                // as the model calls it: after renaming
    int64_t begin, end;              // bytes of data
    int64_t shape[NN_MAX_DIMS], ndim; // ndim may be larger than NN_MAX_DIMS: then it fits no tensor
    int     type, used;              // index in nn__file_dtypes
} nn__entry;
typedef struct nn__pair { char *key, *value; } nn__pair;
typedef struct nn__header {
    nn__entry *entry; int64_t entries, room;
    nn__pair  *meta;  int64_t metas, meta_room;
    uint64_t   data, bytes;          // where the data begin; how many
} nn__header;

static int  nn__by_name(void *d, int64_t i, int64_t j)   { const nn__entry *e = (const nn__entry *)d; return strcmp(e[i].name, e[j].name) < 0; }
static int  nn__by_offset(void *d, int64_t i, int64_t j)
{
    const nn__entry *e = (const nn__entry *)d;
    return e[i].begin != e[j].begin ? e[i].begin < e[j].begin : e[i].end < e[j].end;
}
static void nn__swap_entries(void *d, int64_t i, int64_t j) { nn__entry *e = (nn__entry *)d, t = e[i]; e[i] = e[j]; e[j] = t; }
static int  nn__by_key(void *d, int64_t i, int64_t j)    { const nn__pair *p = (const nn__pair *)d; return strcmp(p[i].key, p[j].key) < 0; }
static void nn__swap_pairs(void *d, int64_t i, int64_t j) { nn__pair *p = (nn__pair *)d, t = p[i]; p[i] = p[j]; p[j] = t; }
static void nn__sort_entries(nn__entry *e, int64_t n, int (*less)(void *, int64_t, int64_t))
{
    nn__order o;
    o.data = e; o.less = less; o.swap = nn__swap_entries;
    nn__sort(&o, n);
}

static int nn__parse_meta(nn__json *j, nn__header *h)
{
    int more = nn__json_open(j, '{', '}');
    for (; more == 1; more = nn__json_more(j, '}')) {
        nn__pair *p = &h->meta[h->metas];
        if (h->metas == h->meta_room) return nn__json_fail(j, "too many pairs");
        if (!nn__json_key(j, &p->key)) return 0;
        if (nn__json_peek(j) != '"') return nn__json_fail(j, "metadata must be text");
        if (!nn__json_string(j, &p->value)) return 0;
        h->metas++;
    }
    return more == 0;
}

static int nn__parse_shape(nn__json *j, nn__entry *e, int64_t *count)
{
    int more = nn__json_open(j, '[', ']');
    *count = 1;
    for (e->ndim = 0; more == 1; more = nn__json_more(j, ']')) {
        int64_t d;
        if (!nn__json_count(j, &d)) return 0;
        if (d && *count > INT64_MAX / 64 / d) return nn__json_fail(j, "the shape is too large");
        *count *= d;
        if (e->ndim < NN_MAX_DIMS) e->shape[e->ndim] = d;
        e->ndim++;
    }
    return more == 0;
}

static int nn__parse_entry(nn__json *j, nn__entry *e)    // {"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}
{
    char *key, *text;
    int64_t count = 0;
    unsigned seen = 0, bit;
    int more = nn__json_open(j, '{', '}');
    e->type = 0; e->used = 0;
    for (; more == 1; more = nn__json_more(j, '}')) {
        if (!nn__json_key(j, &key)) return 0;
        bit = !strcmp(key, "dtype") ? 1 : !strcmp(key, "shape") ? 2 : !strcmp(key, "data_offsets") ? 4 : 0;
        if (seen & bit) return nn__json_fail(j, "a key occurs twice");
        seen |= bit;
        if (bit == 0 && !nn__json_skip(j, 0)) return 0;
        if (bit == 1) {
            if (!nn__json_string(j, &text)) return 0;
            while (e->type < NN__FILE_DTYPES && strcmp(text, nn__file_dtypes[e->type].name)) e->type++;
            if (e->type == NN__FILE_DTYPES) return nn__json_fail(j, "unknown dtype");
        }
        if (bit == 2 && !nn__parse_shape(j, e, &count)) return 0;
        if (bit == 4 && (!nn__json_take(j, '[') || !nn__json_count(j, &e->begin) || !nn__json_take(j, ',') || !nn__json_count(j, &e->end) || !nn__json_take(j, ']'))) return 0;
    }
    if (more < 0) return 0;
    if (seen != 7) return nn__json_fail(j, "a tensor needs dtype, shape and data_offsets");
    if (e->begin > e->end) return nn__json_fail(j, "data_offsets run backwards");
    if (count * nn__file_dtypes[e->type].bits % 8) return nn__json_fail(j, "the tensor does not end at a byte");
    if (count * nn__file_dtypes[e->type].bits / 8 != e->end - e->begin) return nn__json_fail(j, "shape, dtype and data_offsets do not agree");
    return 1;
}

static int nn__parse_header(nn__json *j, nn__header *h)
{
    char *key;
    int more, metas = 0;
    if (!j->n || j->s[0] != '{') return nn__json_fail(j, "'{' is missing");
    for (more = nn__json_open(j, '{', '}'); more == 1; more = nn__json_more(j, '}')) {
        if (!nn__json_key(j, &key)) return 0;
        if (!strcmp(key, "__metadata__")) {
            if (metas++) return nn__json_fail(j, "__metadata__ occurs twice");
            if (!nn__parse_meta(j, h)) return 0;
            continue;
        }
        if (h->entries == h->room) return nn__json_fail(j, "too many tensors");
        if (!nn__parse_entry(j, &h->entry[h->entries])) return 0;
        h->entry[h->entries++].name = key;
    }
    if (more < 0) return 0;
    return nn__json_peek(j) == 0 && j->at == j->n ? 1 : nn__json_fail(j, "something follows the last '}'");
}

static int nn__check_layout(nn__io *io, nn__header *h)   // every byte of data belongs to exactly one tensor
{
    int64_t i, at = 0;
    nn__order o;
    o.data = h->meta; o.less = nn__by_key; o.swap = nn__swap_pairs;
    nn__sort(&o, h->metas);
    for (i = 1; i < h->metas; i++)
        if (!strcmp(h->meta[i].key, h->meta[i - 1].key)) { nn_fail(io->nn, "%s: %s: metadata \"%.100s\" occurs twice", io->what, io->path, h->meta[i].key); return 0; }
    nn__sort_entries(h->entry, h->entries, nn__by_name);
    for (i = 1; i < h->entries; i++)
        if (!strcmp(h->entry[i].name, h->entry[i - 1].name)) { nn_fail(io->nn, "%s: %s: tensor \"%.100s\" occurs twice", io->what, io->path, h->entry[i].name); return 0; }
    nn__sort_entries(h->entry, h->entries, nn__by_offset);
    for (i = 0; i < h->entries; at = h->entry[i++].end) {
        const nn__entry *e = &h->entry[i];
        if ((uint64_t)e->end > h->bytes) {
            nn_fail(io->nn, "%s: %s: the file is cut off: tensor \"%.100s\" ends at byte %llu of the data, which have %llu",
                    io->what, io->path, e->name, (unsigned long long)e->end, (unsigned long long)h->bytes);
            return 0;
        }
        if (e->begin != at) {
            nn_fail(io->nn, "%s: %s: tensor \"%.100s\" %s the one before", io->what, io->path, e->name, e->begin < at ? "overlaps" : "leaves a hole after");
            return 0;
        }
    }
    if ((uint64_t)at == h->bytes) return 1;
    nn_fail(io->nn, "%s: %s: %llu bytes follow the last tensor", io->what, io->path, (unsigned long long)(h->bytes - (uint64_t)at));
    return 0;
}

// Reads and checks the header. Memory: the header itself, and tables in proportion to its length (a tensor needs 49 bytes of it, a pair 5).
static int nn__read_header(nn__io *io, nn__header *h)
{
    nn__json j;
    unsigned char length[8];
    uint64_t n = 0, tensors = 0, pairs = 0, k;
    memset(h, 0, sizeof *h);
    if (io->bytes < 8) { nn_fail(io->nn, "%s: %s: %llu bytes are no safetensors file", io->what, io->path, (unsigned long long)io->bytes); return 0; }
    if (!nn__io_read(io, 0, length, 8)) return 0;
    for (k = 8; k--;) n = n << 8 | length[k];
    if (n > NN__HEADER_LIMIT) { nn_fail(io->nn, "%s: %s: not a safetensors file (a header of %llu bytes)", io->what, io->path, (unsigned long long)n); return 0; }
    if (n > io->bytes - 8) { nn_fail(io->nn, "%s: %s: the file is cut off: %llu of %llu bytes of header", io->what, io->path, (unsigned long long)(io->bytes - 8), (unsigned long long)n); return 0; }
    h->data = 8 + n;
    h->bytes = io->bytes - h->data;
    j.io = io; j.n = (size_t)n; j.at = 0;
    j.s = (char *)nn__host_step(io->nn, (size_t)n);
    if (!j.s || !nn__io_read(io, 8, j.s, j.n)) return 0;
    for (k = 0; k < n; k++) { tensors += j.s[k] == '{'; pairs += j.s[k] == ':'; }
    h->room = nn__min((int64_t)tensors, (int64_t)(n / 49 + 1));
    h->meta_room = nn__min((int64_t)pairs, (int64_t)(n / 5 + 1));
    h->entry = (nn__entry *)nn__host_step(io->nn, (size_t)h->room * sizeof *h->entry);
    h->meta = (nn__pair *)nn__host_step(io->nn, (size_t)h->meta_room * sizeof *h->meta);
    if (!h->entry || !h->meta) return 0;
    return nn__parse_header(&j, h) && nn__check_layout(io, h);
}

static nn__entry *nn__find_entry(const nn__header *h, const char *name)  // entries are sorted by name
{
    int64_t low = 0, high = h->entries;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        int c = strcmp(name, h->entry[mid].name);
        if (c == 0) return &h->entry[mid];
        if (c < 0) high = mid; else low = mid + 1;
    }
    return NULL;
}

static const char *nn__find_meta(const nn__header *h, const char *key)   // sorted too
{
    int64_t low = 0, high = h->metas;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        int c = strcmp(key, h->meta[mid].key);
        if (c == 0) return h->meta[mid].value;
        if (c < 0) high = mid; else low = mid + 1;
    }
    return NULL;
}

// ---- what is saved: a list of tensors and, for a checkpoint, a list of single numbers ---------------------------
typedef struct nn__item { const char *name; nn_tensor *t; int dtype; uint64_t begin; } nn__item;
typedef struct nn__items { nn_context *nn; nn_layer *below; nn__item *list; int64_t count, room; const char *prefix; } nn__items;

static void nn__add_item(nn__items *s, nn_tensor *t, const nn_tensor *named, const char *prefix)     // prefix + the name of `named`
{
    size_t p = strlen(prefix), n = nn_name(named, s->below, NULL, 0);
    char *name;
    if (s->list && s->count < s->room && (name = (char *)nn__host_step(s->nn, p + n + 1)) != NULL) {
        memcpy(name, prefix, p);
        nn_name(named, s->below, name + p, n + 1);
        s->list[s->count].name = name;
        s->list[s->count].t = t;
        s->list[s->count].dtype = t->dtype;
        s->list[s->count].begin = 0;
    }
    s->count++;
}
static int nn__add_walked(nn_tensor *t, void *arg) { nn__add_item((nn__items *)arg, t, t, ""); return 1; }

// One list for writing and reading, so that the two cannot disagree.
// COUNT: a 64-bit integer from 0 to 2^53. INT: an int from 0. SAME (an int64_t) and TEXT are compared, not restored.
enum { NN__FIELD_U64, NN__FIELD_COUNT, NN__FIELD_INT, NN__FIELD_F64, NN__FIELD_SAME, NN__FIELD_TEXT };
typedef struct nn__field { char key[48]; void *at; int kind; } nn__field;
typedef struct nn__fields { nn__field *list; int count, room; } nn__fields;

static void nn__add_field(nn__fields *f, int kind, void *at, const char *key, int index)    // index < 0: none
{
    if (f->list && f->count < f->room) {
        nn__field *e = &f->list[f->count];
        snprintf(e->key, sizeof e->key, index < 0 ? "%s" : "%s.%d", key, index);
        e->at = at; e->kind = kind;
    }
    f->count++;
}

static void nn__field_text(const nn__field *f, char *to, size_t bytes)
{
    uint64_t d = 0;
    if (f->kind != NN__FIELD_INT && f->kind != NN__FIELD_TEXT) memcpy(&d, f->at, 8);
    if (f->kind == NN__FIELD_TEXT)     snprintf(to, bytes, "%s", (const char *)f->at);
    else if (f->kind == NN__FIELD_INT) snprintf(to, bytes, "%d", *(const int *)f->at);
    else if (f->kind == NN__FIELD_F64) snprintf(to, bytes, "%016llx", (unsigned long long)d);
    else                               snprintf(to, bytes, "%llu", (unsigned long long)d);
}

static int nn__digits(const char *s, int base, uint64_t most, uint64_t *to)     // the whole string, no sign, at most `most`
{
    uint64_t v = 0;
    if (!*s) return 0;
    for (; *s; s++) {
        int d = *s >= '0' && *s <= '9' ? *s - '0' : *s >= 'a' && *s <= 'f' ? *s - 'a' + 10 : 99;
        if (d >= base || v > (most - (uint64_t)d) / (uint64_t)base) return 0;
        v = v * (uint64_t)base + (uint64_t)d;
    }
    *to = v;
    return 1;
}

static int nn__set_field(const nn__field *f, const char *text, int write)       // 1: the text is good; written only if wanted
{
    uint64_t u = 0, most = f->kind == NN__FIELD_U64 ? UINT64_MAX : f->kind == NN__FIELD_INT ? INT_MAX : (uint64_t)1 << 53;
    if (f->kind == NN__FIELD_TEXT) return !strcmp(text, (const char *)f->at);
    if (f->kind == NN__FIELD_F64) { if (strlen(text) != 16 || !nn__digits(text, 16, UINT64_MAX, &u)) return 0; }
    else if (!nn__digits(text, 10, most, &u)) return 0;
    if (f->kind == NN__FIELD_SAME) return u == *(const uint64_t *)f->at;
    if (write && f->kind == NN__FIELD_INT) *(int *)f->at = (int)u;
    if (write && f->kind != NN__FIELD_INT) memcpy(f->at, &u, 8);
    return 1;
}

static int nn__is_checkpoint(const nn_save_desc *d) { return d && (d->optimizer || d->schedule || d->loader || d->ema); }

static void nn__state_prefix(const nn_optimizer *o, int i, char *to, size_t bytes)      // "optimizer.exp_avg.": the names of states are PyTorch's
{
    snprintf(to, bytes, "optimizer.%s.", o->kind->state[i].name);
}

static void nn__list_tensors(nn__items *s, nn_layer *layer, const nn_save_desc *d)
{
    char prefix[64];
    int i, j;
    s->count = 0;
    nn__walk(layer, NN__T_PARAM | NN__T_BUFFER, nn__add_walked, s);
    for (i = 0; d && d->optimizer && i < d->optimizer->slots; i++)
        for (j = 0; j < d->optimizer->states; j++) {
            nn__slot *slot = &d->optimizer->slot[i];
            if (!slot->state[j]) continue;
            nn__state_prefix(d->optimizer, j, prefix, sizeof prefix);
            nn__add_item(s, slot->state[j], slot->p, prefix);
        }
    for (i = 0; d && d->ema && i < d->ema->n; i++) nn__add_item(s, d->ema->shadow[i], d->ema->p[i], "optimizer.ema.");
    for (i = 0; nn__is_checkpoint(d) && i < layer->nn->extras; i++)      // what nn_fit keeps; the file may lack it
        nn__add_item(s, layer->nn->extra[i].t, layer->nn->extra[i].named, layer->nn->extra[i].prefix);
}

static void nn__list_fields(nn__fields *f, nn_context *nn, const nn_save_desc *d)
{
    static char version[] = "1";
    int i;
    f->count = 0;
    if (!nn__is_checkpoint(d)) return;
    nn__add_field(f, NN__FIELD_TEXT, version, "nn.checkpoint", -1);
    nn__add_field(f, NN__FIELD_U64, &nn->seed, "context.seed", -1);
    nn__add_field(f, NN__FIELD_U64, &nn->random_step, "context.random_step", -1);
    nn__add_field(f, NN__FIELD_U64, &nn->inits, "context.inits", -1);
    if (d->optimizer) {
        nn_optimizer *o = d->optimizer;
        nn__add_field(f, NN__FIELD_TEXT, (void *)(uintptr_t)o->kind->name, "optimizer.kind", -1);
        nn__add_field(f, NN__FIELD_COUNT, &o->steps, "optimizer.steps", -1);
        for (i = 0; i < o->groups; i++) {
            nn__add_field(f, NN__FIELD_F64, &o->group[i].lr, "optimizer.lr", i);
            nn__add_field(f, NN__FIELD_F64, &o->group[i].initial_lr, "optimizer.initial_lr", i);
        }
        for (i = 0; i < o->slots; i++) nn__add_field(f, NN__FIELD_COUNT, &o->slot[i].steps, "optimizer.step", i);
    }
    if (d->schedule) {
        nn_schedule *c = d->schedule;
        nn__add_field(f, NN__FIELD_TEXT, (void *)(uintptr_t)nn__schedule_names[c->kind], "schedule.kind", -1);
        nn__add_field(f, NN__FIELD_COUNT, &c->count, "schedule.count", -1);
        nn__add_field(f, NN__FIELD_COUNT, &c->warmed, "schedule.warmed", -1);
        nn__add_field(f, NN__FIELD_COUNT, &c->since, "schedule.since", -1);
        nn__add_field(f, NN__FIELD_COUNT, &c->period, "schedule.period", -1);
        nn__add_field(f, NN__FIELD_F64, &c->best, "schedule.best", -1);
        nn__add_field(f, NN__FIELD_INT, &c->bad, "schedule.bad", -1);
        nn__add_field(f, NN__FIELD_INT, &c->cooling, "schedule.cooling", -1);
    }
    if (d->loader) {
        nn__add_field(f, NN__FIELD_SAME, &d->loader->batch, "loader.batch", -1);
        nn__add_field(f, NN__FIELD_SAME, &d->loader->batches, "loader.batches", -1);
        nn__add_field(f, NN__FIELD_COUNT, &d->loader->epoch, "loader.epoch", -1);
        nn__add_field(f, NN__FIELD_COUNT, &d->loader->position, "loader.position", -1);
        nn__add_field(f, NN__FIELD_U64, &d->loader->seed, "loader.seed", -1);
    }
    if (d->ema) nn__add_field(f, NN__FIELD_INT, &d->ema->swapped, "ema.swapped", -1);
}

typedef struct nn__state { nn__items items; nn__fields fields; } nn__state;

static int  nn__by_item_name(void *d, int64_t i, int64_t j)  { const nn__item *e = (const nn__item *)d; return strcmp(e[i].name, e[j].name) < 0; }
static void nn__swap_items(void *d, int64_t i, int64_t j)    { nn__item *e = (nn__item *)d, t = e[i]; e[i] = e[j]; e[j] = t; }

static int nn__unique_names(nn__io *io, const nn__items *s)
{
    nn__order o;
    int64_t i;
    nn__item *copy = (nn__item *)nn__host_step(io->nn, (size_t)s->count * sizeof *copy);
    if (!copy) return 0;
    memcpy(copy, s->list, (size_t)s->count * sizeof *copy);
    o.data = copy; o.less = nn__by_item_name; o.swap = nn__swap_items;
    nn__sort(&o, s->count);
    for (i = 1; i < s->count; i++)
        if (!strcmp(copy[i].name, copy[i - 1].name)) { nn_fail(io->nn, "%s: two tensors are called \"%.100s\"", io->what, copy[i].name); return 0; }
    return 1;
}

// Lists all of it in memory of this step.
static int nn__collect(nn__io *io, nn_layer *layer, const nn_save_desc *desc, nn__state *s)
{
    nn_context *nn = io->nn;
    memset(s, 0, sizeof *s);
    s->items.nn = nn;
    s->items.below = layer;
    nn__list_tensors(&s->items, layer, desc);
    nn__list_fields(&s->fields, nn, desc);
    s->items.room = s->items.count;
    s->fields.room = s->fields.count;
    s->items.list = (nn__item *)nn__host_step(nn, (size_t)s->items.room * sizeof *s->items.list);
    s->fields.list = (nn__field *)nn__host_step(nn, (size_t)s->fields.room * sizeof *s->fields.list);
    if (!s->items.list || !s->fields.list) return 0;
    nn__list_tensors(&s->items, layer, desc);
    nn__list_fields(&s->fields, nn, desc);
    return nn_ok(nn) && nn__unique_names(io, &s->items);
}

// ---- saving --------------------------------------------------------------------------------------------------------
static int nn__put_text(nn__io *io, const char *s)       { return nn__io_write(io, s, strlen(s)); }

static int nn__put_string(nn__io *io, const char *s)     // quoted and escaped
{
    size_t n = strlen(s), len;
    char escape[8];
    if (!nn__put_text(io, "\"")) return 0;
    for (; n; s += len, n -= len) {
        unsigned char c = (unsigned char)*s;
        len = nn__utf8_length((const unsigned char *)s, n);
        if (!len) { nn_fail(io->nn, "%s: the name of a tensor is not UTF-8", io->what); return 0; }
        if (c >= 0x20 && c != '"' && c != '\\') { if (!nn__io_write(io, s, len)) return 0; continue; }
        snprintf(escape, sizeof escape, c < 0x20 ? "\\u%04x" : "\\%c", c);
        if (!nn__put_text(io, escape)) return 0;
    }
    return nn__put_text(io, "\"");
}

static int nn__put_header(nn__io *io, const nn__state *s)
{
    char text[256];
    int64_t i;
    int k;
    if (!nn__put_text(io, "{\"__metadata__\":{\"format\":\"pt\"")) return 0;    // "pt": transformers asks for it
    for (k = 0; k < s->fields.count; k++) {
        nn__field_text(&s->fields.list[k], text, sizeof text);
        if (!nn__put_text(io, ",") || !nn__put_string(io, s->fields.list[k].key) || !nn__put_text(io, ":") || !nn__put_string(io, text)) return 0;
    }
    if (!nn__put_text(io, "}")) return 0;
    for (i = 0; i < s->items.count; i++) {
        const nn__item *e = &s->items.list[i];
        size_t n = 0;
        if (!nn__put_text(io, ",") || !nn__put_string(io, e->name)) return 0;
        n += (size_t)snprintf(text, sizeof text, ":{\"dtype\":\"%s\",\"shape\":[", nn__file_dtype_name(e->dtype));
        for (k = 0; k < e->t->ndim; k++) n += (size_t)snprintf(text + n, sizeof text - n, k ? ",%lld" : "%lld", (long long)e->t->shape[k]);
        if (!nn__io_write(io, text, n)) return 0;
        snprintf(text, sizeof text, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)e->begin,
                 (unsigned long long)(e->begin + (uint64_t)nn_count(e->t) * nn_dtype_bytes((nn_dtype)e->dtype)));
        if (!nn__put_text(io, text)) return 0;
    }
    return nn__put_text(io, "}");
}

static int nn__save_to(nn__io *io, nn__state *s, const nn_save_desc *desc)
{
    nn__io count;
    nn__transfer x;
    unsigned char length[8];
    uint64_t n, at = 0;
    size_t bytes;
    int64_t i;
    int k;
    for (bytes = 8; bytes; bytes /= 2)                   // the widest first: then every tensor is aligned to its own numbers
        for (i = 0; i < s->items.count; i++) {
            nn__item *e = &s->items.list[i];
            int real = e->t->dtype == NN_F32 || e->t->dtype == NN_F64 || e->t->dtype == NN_F16 || e->t->dtype == NN_BF16;
            if (desc && desc->dtype != NN_F32 && real && e->t->layer) e->dtype = (int)desc->dtype;   // parameters and buffers, not optimizer states
            if (nn_dtype_bytes((nn_dtype)e->dtype) != bytes) continue;
            e->begin = at;
            at += (uint64_t)nn_count(e->t) * bytes;
        }
    count = *io;
    count.file = NULL; count.to = NULL; count.at = 0;
    if (!nn__put_header(&count, s)) return 0;
    n = (count.at + 7) & ~(uint64_t)7;
    for (k = 0; k < 8; k++) length[k] = (unsigned char)(n >> 8 * k);
    if (!nn__io_write(io, length, 8) || !nn__put_header(io, s)) return 0;
    for (; count.at < n; count.at++) if (!nn__put_text(io, " ")) return 0;
    if (!io->file && !io->to) { io->at += at; return 1; }
    x.io = io; x.write = 1;
    for (bytes = 8; bytes; bytes /= 2)
        for (i = 0; i < s->items.count; i++) {
            x.dtype = s->items.list[i].dtype;
            if (nn_dtype_bytes((nn_dtype)x.dtype) == bytes && !nn__transfer_tensor(&x, s->items.list[i].t)) return 0;
        }
    return 1;
}

static int nn__io_begin(nn__io *io, nn_layer *layer, const char *what, const char *path)     // 0: there is nothing to work on
{
    memset(io, 0, sizeof *io);
    io->nn = nn_context_of(layer);
    io->what = what;
    io->path = path ? path : "(memory)";
    return nn_ok(io->nn);
}

static int nn__check_save(nn_context *nn, const nn_save_desc *d)
{
    if (!d) return 1;
    if (d->dtype != NN_F32 && d->dtype != NN_F16 && d->dtype != NN_BF16 && d->dtype != NN_F64) { nn_fail(nn, "nn_save: .dtype %s", nn_dtype_name(d->dtype)); return 0; }
    if ((!d->optimizer || d->optimizer->nn == nn) && (!d->schedule || d->schedule->nn == nn) && (!d->loader || d->loader->nn == nn) && (!d->ema || d->ema->nn == nn)) return 1;
    nn_fail(nn, "nn_save: the optimizer, schedule, loader or average belongs to another context");
    return 0;
}

static int nn__save_file(nn__io *io, nn__state *s, const nn_save_desc *desc)
{
    size_t n = strlen(io->path);
    char *temporary = (char *)nn__host_step(io->nn, n + 5);
    int ok;
    if (!temporary) return 0;
    if (io->nn->measuring) { io->to = temporary; return nn__save_to(io, s, desc); }        // io->bytes is 0: nothing is written, memory is counted
    memcpy(temporary, io->path, n);
    memcpy(temporary + n, ".tmp", 5);
    errno = 0;
    if (nn__file_special(io->path)) { nn_fail(io->nn, "nn_save: %s: not a regular file", io->path); return 0; }
    io->file = nn__file_open(temporary, 1);
    if (!io->file) return nn__io_failed(io, "create the file beside it (.tmp)");
    ok = nn__save_to(io, s, desc);
    if (!nn__file_close(io->file, ok) && ok) ok = nn__io_failed(io, "write");
    if (ok && !nn__file_replace(temporary, io->path)) ok = nn__io_failed(io, "rename the new file");
    if (!ok) nn__file_remove(temporary);
    return ok;
}

NN_API int nn_save(nn_layer *layer, const char *path, const nn_save_desc *desc)
{
    nn__io io;
    nn__state s;
    nn__mark m;
    int ok;
    if (!nn__io_begin(&io, layer, "nn_save", path) || !nn__check_save(io.nn, desc)) return 0;
    if (!path || !path[0]) { nn_fail(io.nn, "nn_save: the path is empty"); return 0; }
    m = nn__get_mark(io.nn);
    ok = nn__collect(&io, layer, desc, &s) && nn__save_file(&io, &s, desc);
    nn__rewind_memory(io.nn, &m);
    return ok;
}

NN_API int nn_save_memory(nn_layer *layer, void *to, size_t bytes, size_t *written, const nn_save_desc *desc)
{
    nn__io io;
    nn__state s;
    nn__mark m;
    int ok;
    if (written) *written = 0;
    if (!nn__io_begin(&io, layer, "nn_save_memory", NULL) || !nn__check_save(io.nn, desc)) return 0;
    m = nn__get_mark(io.nn);
    ok = nn__collect(&io, layer, desc, &s);
    if (ok && to) {                  // nothing is written where not all of it fits
        nn__io count = io;
        ok = nn__save_to(&count, &s, desc);
        if (written) *written = (size_t)count.at;
        if (ok && count.at > bytes) {
            nn_fail(io.nn, "nn_save_memory: %llu bytes are needed, there are %llu", (unsigned long long)count.at, (unsigned long long)bytes);
            ok = 0;
        }
    }
    io.to = (char *)to;
    io.bytes = bytes;
    ok = ok && nn__save_to(&io, &s, desc);
    if (ok && written) *written = (size_t)io.at;
    nn__rewind_memory(io.nn, &m);
    return ok;
}

// ---- loading -------------------------------------------------------------------------------------------------------
typedef struct nn__findings {        // the report of a load: one line per name; the first few names go into the error, too
    char  *to; size_t room, n;
    int    count[3];
    char   names[3][112];
} nn__findings;
enum { NN__MISSING, NN__UNEXPECTED, NN__MISSHAPED };

static void nn__find(nn__findings *f, int kind, const char *name, const char *detail)
{
    static const char *const words[] = { "missing", "unexpected", "mis-shaped" };
    size_t at = strlen(f->names[kind]), left = f->n < f->room ? f->room - f->n : 0;
    if (f->count[kind]++ < 3) snprintf(f->names[kind] + at, sizeof f->names[kind] - at, "%s%s%s", at ? ", " : "", name, kind == NN__MISSHAPED ? detail : "");
    else if (f->count[kind] == 4) snprintf(f->names[kind] + at, sizeof f->names[kind] - at, ", ...");
    if (f->to && left > 1) f->n += (size_t)snprintf(f->to + f->n, left, "%s %s%s\n", words[kind], name, detail);
}

static int nn__has_prefix(const char *s, const char *prefix) { return prefix && prefix[0] && !strncmp(s, prefix, strlen(prefix)); }
static int nn__has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && !strcmp(s + n - k, suffix);
}

static int nn__rename_entries(nn__io *io, nn__header *h, const nn_load_desc *d)
{
    int64_t i;
    int k;
    for (i = 0; d && i < h->entries; i++)
        for (k = 0; k < d->rename_count; k++) {
            const char *from = d->rename[k].from ? d->rename[k].from : "", *to = d->rename[k].to ? d->rename[k].to : "";
            size_t f = strlen(from), t = strlen(to), rest;
            char *name;
            if (strncmp(h->entry[i].name, from, f)) continue;
            rest = strlen(h->entry[i].name + f) + 1;
            name = (char *)nn__host_step(io->nn, t + rest);
            if (!name) return 0;
            memcpy(name, to, t);
            memcpy(name + t, h->entry[i].name + f, rest);
            h->entry[i].name = name;
            break;                   // the first that fits
        }
    nn__sort_entries(h->entry, h->entries, nn__by_name);
    for (i = 1; i < h->entries; i++)
        if (!strcmp(h->entry[i].name, h->entry[i - 1].name)) { nn_fail(io->nn, "%s: after renaming, two tensors are called \"%.100s\"", io->what, h->entry[i].name); return 0; }
    return 1;
}

static int nn__fits(const nn__entry *e, const nn_tensor *t)
{
    return e->ndim == t->ndim && !memcmp(e->shape, t->shape, (size_t)t->ndim * sizeof *t->shape) && nn__file_dtypes[e->type].dtype >= 0;
}

static void nn__describe_misfit(const nn__entry *e, const nn_tensor *t, char *to, size_t bytes)
{
    if (nn__file_dtypes[e->type].dtype < 0) snprintf(to, bytes, ": dtype %s cannot be read", nn__file_dtypes[e->type].name);
    else if (e->ndim > NN_MAX_DIMS) snprintf(to, bytes, ": %lld dimensions in the file, %d in the model", (long long)e->ndim, t->ndim);
    else snprintf(to, bytes, ": %s in the file, %s in the model", nn__dims_text((int)e->ndim, e->shape).s, nn__dims_text(t->ndim, t->shape).s);
}

// Compares names and shapes. Items get their entry by marking it used; those without one are left as they are.
static int nn__match(nn__io *io, nn__header *h, nn__items *items, const nn_load_desc *d, int checkpoint)
{
    nn__findings f;
    const char *skip = d ? d->skip : NULL;
    char detail[288];
    int64_t i;
    memset(&f, 0, sizeof f);
    if (d && d->report && d->report_bytes) { f.to = d->report; f.room = d->report_bytes; f.to[0] = 0; }
    for (i = 0; i < items->count; i++) {
        nn__item *item = &items->list[i];
        nn__entry *e = nn__find_entry(h, item->name);
        if (nn__has_prefix(item->name, skip)) continue;
        if (!e) { if (!nn__has_prefix(item->name, "trainer.")) nn__find(&f, NN__MISSING, item->name, ""); continue; }
        e->used = 1;
        if (nn__fits(e, item->t)) continue;
        nn__describe_misfit(e, item->t, detail, sizeof detail);
        nn__find(&f, NN__MISSHAPED, item->name, detail);
    }
    for (i = 0; i < h->entries; i++) {
        const nn__entry *e = &h->entry[i];
        if (e->used || nn__has_prefix(e->name, skip)) continue;
        if (checkpoint && (nn__has_prefix(e->name, "optimizer.") || nn__has_prefix(e->name, "trainer."))) continue;
        if (nn__has_suffix(e->name, ".num_batches_tracked")) continue;      // PyTorch's batch norm counts; ours does not need it
        nn__find(&f, NN__UNEXPECTED, e->name, "");
    }
    if (!f.count[NN__MISSHAPED] && ((d && d->not_strict) || (!f.count[NN__MISSING] && !f.count[NN__UNEXPECTED]))) return 1;
    nn_fail(io->nn, "%s: %s: %d missing%s%s, %d unexpected%s%s, %d mis-shaped%s%s", io->what, io->path,
            f.count[0], f.count[0] ? ": " : "", f.names[0], f.count[1], f.count[1] ? ": " : "", f.names[1], f.count[2], f.count[2] ? ": " : "", f.names[2]);
    return 0;
}

static int nn__check_fields(nn__io *io, const nn__header *h, const nn__fields *f, int write)
{
    char want[256];
    int i;
    for (i = 0; i < f->count; i++) {
        const nn__field *e = &f->list[i];
        const char *text = nn__find_meta(h, e->key);
        if (text && nn__set_field(e, text, write)) continue;
        nn__field_text(e, want, sizeof want);
        if (!text) nn_fail(io->nn, "%s: %s: not a checkpoint of this run: %s is missing", io->what, io->path, e->key);
        else if (e->kind >= NN__FIELD_SAME) nn_fail(io->nn, "%s: %s: %s is \"%.60s\" in the file, here it is \"%.60s\"", io->what, io->path, e->key, text, want);
        else nn_fail(io->nn, "%s: %s: %s has an impossible value", io->what, io->path, e->key);
        return 0;
    }
    return 1;
}

// A parameter that was frozen when the optimizer was made has no states before it first moves: where the file has them, they are made.
static int nn__make_states(nn__io *io, const nn__header *h, nn_layer *layer, const nn_save_desc *d)
{
    int i, j;
    for (i = 0; d && d->optimizer && i < d->optimizer->slots; i++)
        for (j = 0; j < d->optimizer->states; j++) {
            nn__slot *slot = &d->optimizer->slot[i];
            char name[512];
            size_t n;
            if (slot->state[j]) continue;
            nn__state_prefix(d->optimizer, j, name, sizeof name);
            n = strlen(name);
            nn_name(slot->p, layer, name + n, sizeof name - n);
            if (nn__find_entry(h, name) && !nn__slot_states(d->optimizer, slot)) return 0;
        }
    return nn_ok(io->nn);
}

// saved NULL: a plain load. Everything is checked first; then the numbers are read, in the order of the file's names.
static int nn__load_from(nn__io *io, nn_layer *layer, const nn_load_desc *desc, const nn_save_desc *saved)
{
    nn__header h;
    nn__state s;
    nn__transfer x;
    int64_t i;
    if (!nn__read_header(io, &h) || !nn__rename_entries(io, &h, desc) || !nn__make_states(io, &h, layer, saved) || !nn__collect(io, layer, saved, &s)) return 0;
    if (!nn__match(io, &h, &s.items, desc, nn__find_meta(&h, "nn.checkpoint") != NULL)) return 0;
    if (!nn__check_fields(io, &h, &s.fields, 0)) return 0;
    x.io = io; x.write = 0;
    for (i = 0; i < s.items.count; i++) {
        const nn__entry *e = nn__find_entry(&h, s.items.list[i].name);
        if (!e || nn__has_prefix(s.items.list[i].name, desc ? desc->skip : NULL)) continue;
        x.dtype = nn__file_dtypes[e->type].dtype;
        x.at = h.data + (uint64_t)e->begin;
        if (!nn__transfer_tensor(&x, s.items.list[i].t)) return 0;
    }
    return nn__check_fields(io, &h, &s.fields, 1);
}

static int nn__load_path(nn_layer *layer, const char *what, const char *path, const nn_load_desc *desc, const nn_save_desc *saved)
{
    nn__io io;
    nn__mark m;
    int ok;
    if (desc && desc->report && desc->report_bytes) desc->report[0] = 0;
    if (!nn__io_begin(&io, layer, what, path ? path : "") || !nn__io_open(&io)) return 0;
    m = nn__get_mark(io.nn);
    ok = nn__load_from(&io, layer, desc, saved);
    nn__rewind_memory(io.nn, &m);
    nn__file_close(io.file, 0);
    return ok;
}

NN_API int nn_load(nn_layer *layer, const char *path, const nn_load_desc *desc) { return nn__load_path(layer, "nn_load", path, desc, NULL); }

NN_API int nn_load_memory(nn_layer *layer, const void *from, size_t bytes, const nn_load_desc *desc)
{
    nn__io io;
    nn__mark m;
    int ok;
    if (desc && desc->report && desc->report_bytes) desc->report[0] = 0;
    if (!nn__io_begin(&io, layer, "nn_load_memory", NULL)) return 0;
    if (!from) { nn_fail(io.nn, "nn_load_memory: the pointer is NULL"); return 0; }
    io.from = (const char *)from;
    io.bytes = bytes;
    m = nn__get_mark(io.nn);
    ok = nn__load_from(&io, layer, desc, NULL);
    nn__rewind_memory(io.nn, &m);
    return ok;
}

NN_API int nn_resume(nn_layer *layer, const char *path, const nn_save_desc *desc)
{
    nn_context *nn = nn_context_of(layer);
    if (!nn_ok(nn) || !nn__check_save(nn, desc)) return 0;
    if (!nn__is_checkpoint(desc)) { nn_fail(nn, "nn_resume: give it what was saved: .optimizer, .schedule, .loader, .ema"); return 0; }
    return nn__load_path(layer, "nn_resume", path, NULL, desc);
}

// =============================================================================================
// >>train   The loop that everybody writes, with what makes it trustworthy: it stops at the first number that is not finite and names
// its origin, keeps the best weights, resumes bit for bit, and evaluates without touching the training step it interrupts.
// All of it goes through public calls (nn_begin, nn_forward, nn_backward, nn_step, nn_read), so it runs on every backend.
// =============================================================================================
// What nn_fit remembers from epoch to epoch: all in doubles, because it travels in a checkpoint as a tensor of this many numbers.
typedef struct nn__fit_state { double epochs, steps, best_loss, best_epoch, waited, has_best; } nn__fit_state;
enum { NN__FIT_NUMBERS = (int)(sizeof(nn__fit_state) / sizeof(double)) };

struct nn__trainer {                 // made once per model and used again by the next nn_fit
    nn__trainer *next;
    nn_layer   *model;
    nn_tensor  *numbers;             // nn__fit_state, f64
    nn_tensor **weight, **best;      // parameters and buffers; their copies from the best epoch, when patience wants them
    int         weights;
    nn_step_plan *plan;              // while nn_fit runs, if steps can be repeated
    nn__extra  *extra;               // what a checkpoint holds besides model and optimizer: numbers, best weights, averages
    int         extras;
};

typedef struct nn__fit {
    nn_context  *nn;
    nn_layer    *model;
    nn_fit_desc  d;
    nn__trainer *keep;
    nn__fit_state s;
    nn_progress  p;
    nn_events   *events;
    nn__file  *history;
    double       loss_sum, hit_sum, samples, labelled;   // of this epoch
    double       started, epoch_started, shown;          // seconds
    int          terminal, restored;
    nn_step_plan *plan;              // NULL: every step as always
    int          repeated, recorded; // this step is one of the plan; it is recorded for it
    nn_tensor   *loss, *scores;      // of this step
} nn__fit;

static int nn__finite(double v) { return v - v == 0; }

// ---- one batch ------------------------------------------------------------------------------------------
// The loss of a batch; *scores is the model's output, NULL where the model computes its own loss. Without y, the target is x itself.
static nn_tensor *nn__batch_loss(nn_layer *model, const nn_batch *b, nn_loss loss, const nn_loss_desc *desc, nn_tensor **scores)
{
    *scores = NULL;
    if (!loss && model->step) return model->step(model->extra, b);
    *scores = nn_forward(model, b->x);
    return loss ? loss(*scores, b->y ? b->y : b->x, desc) : NULL;
}

static int nn__is_labels(const nn_tensor *y) { return y && (y->dtype == NN_I64 || y->dtype == NN_I32); }

static void nn__count_hits(nn_tensor *scores, const nn_batch *b, double *hits, double *labelled)
{
    double share;
    if (!scores || !nn__is_labels(b->y) || scores->ndim != 2 || nn_count(b->y) != scores->shape[0]) return;
    share = nn_accuracy(scores, b->y);
    if (share != share) return;      // no sample of it has a label
    *hits += share * (double)b->count;
    *labelled += (double)b->count;
}

// A reduction by sum is the loss of all samples, a mean is that of one.
static double nn__loss_of_samples(double loss, const nn_batch *b, const nn_loss_desc *desc)
{
    return desc && desc->reduction == NN_SUM ? loss : loss * (double)b->count;
}

// ---- not a number: where did it come from? ------------------------------------------------------------------
static int nn__is_real(int dtype) { return dtype == NN_F32 || dtype == NN_F64 || dtype == NN_F16 || dtype == NN_BF16; }

static int nn__all_finite(const nn_tensor *x)
{
    nn_context *nn = x ? x->nn : NULL;
    int64_t i, n = nn_count(x);
    int ok = 1;
    double *v;
    nn__mark m;
    if (!nn_ok(nn) || nn->measuring || nn__dead(x) || !nn__is_real(x->dtype)) return 1;
    m = nn__get_mark(nn);
    v = (double *)nn__host_step(nn, nn__mul_size((size_t)n, sizeof *v));
    if (x->dtype == NN_F64) { if (v && nn_read_as(x, NN_F64, v)) for (i = 0; i < n && ok; i++) ok = nn__finite(v[i]); }
    else if (v && nn_read(x, (float *)(void *)v)) for (i = 0; i < n && ok; i++) ok = nn__finite((double)((float *)(void *)v)[i]);
    nn__rewind(nn, &m);
    return ok;
}

static const nn_tensor *nn__bad_weight(const nn__trainer *t)
{
    int i;
    for (i = 0; i < t->weights; i++) if (!nn__all_finite(t->weight[i])) return t->weight[i];
    return NULL;
}

// Reports why the loss is not finite: bad data, a parameter that an update broke, or the oldest op on the tape with a bad result.
static void nn__blame(nn__fit *f, const nn_batch *b, const char *value)
{
    const nn_tensor *w = nn__bad_weight(f->keep);
    nn_node *d, *guilty = NULL;
    char where[96], name[256];
    int i;
    if (f->terminal) nn__log_text(f->nn, "\n");
    snprintf(where, sizeof where, "nn_fit: the loss is %s in epoch %d, batch %lld", value, f->p.epoch, (long long)f->p.step);
    if (!w) {                        // once more, and every result stays
        nn_tensor *scores;
        f->nn->hold = 1;
        f->nn->random_step--;
        nn_begin(f->nn, NN_TRAIN);
        nn__batch_loss(f->model, b, f->model->step ? NULL : f->d.loss, f->d.loss_desc, &scores);
        f->nn->hold = 0;
    }
    for (d = f->nn->tape; d && !w; d = d->prev)          // from the newest to the oldest
        for (i = 0; i < d->nout; i++) if (!nn__all_finite(d->out[i])) guilty = d;
    if (!nn__all_finite(b->x))               nn_fail(f->nn, "%s: x of the batch has values that are not finite", where);
    else if (b->y && !nn__all_finite(b->y))  nn_fail(f->nn, "%s: y of the batch has values that are not finite", where);
    else if (w) {
        nn_name(w, NULL, name, sizeof name);
        nn_fail(f->nn, "%s: %s has values that are not finite since the last update (learning rate too high? see clip_norm)", where, name);
    } else if (guilty && guilty->layer) {
        nn__layer_name(guilty->layer, name, sizeof name);
        nn_fail(f->nn, "%s: first seen in the result of %s in layer \"%s\" (%s); parameters were not updated", where, guilty->op->name, name, guilty->layer->kind);
    } else nn_fail(f->nn, "%s: first seen in the result of %s in the loss; parameters were not updated", where, guilty ? guilty->op->name : "an op");
}

// A broken update shows in the loss of the next batch. After the last batch of an epoch there is none: look at the parameters.
static int nn__weights_are_finite(nn__fit *f)
{
    const nn_tensor *w = nn__bad_weight(f->keep);
    char name[256];
    if (!w) return nn_ok(f->nn);
    nn_name(w, NULL, name, sizeof name);
    nn_fail(f->nn, "nn_fit: %s has values that are not finite after epoch %d (learning rate too high? see clip_norm)", name, f->p.epoch);
    return 0;
}

// ---- evaluation -----------------------------------------------------------------------------------------
// Runs inside a step of somebody else: mode, random state and memory are as before when it ends; the tape is not written to.
typedef struct nn__aside { nn__mark mark; uint64_t ordinal, random_step; nn_layer *scope; } nn__aside;
static nn__aside nn__aside_begin(nn_context *nn)
{
    nn__aside a;
    a.mark = nn__get_mark(nn);
    a.ordinal = nn->ordinal; a.random_step = nn->random_step; a.scope = nn->scope;
    nn->scope = NULL;
    nn_push(nn, NN_EVAL);
    return a;
}
static void nn__aside_end(nn_context *nn, const nn__aside *a)
{
    nn_pop(nn);
    nn__rewind(nn, &a->mark);
    nn->ordinal = a->ordinal; nn->random_step = a->random_step; nn->scope = a->scope;
}

// Scores and targets of all batches, for the report. Rows of `width` scores; a row is a sample, or a pixel of one: (B, C, H, W).
typedef struct nn__collected { float *scores, *values; int64_t *labels, rows, room, width; } nn__collected;

static int nn__collect_batch(nn_context *nn, nn__collected *c, const nn_tensor *scores, const nn_batch *b, int64_t batches)
{
    const nn_tensor *y = b->y ? b->y : b->x;
    int classes = nn__is_labels(b->y), binary;
    int64_t n = nn_count(scores), rows = classes ? nn_count(y) : b->count, width = rows ? n / rows : 0, i, k;
    float *s;
    if (nn->measuring) return 1;
    binary = classes && width == 1;                      // one logit: of class 1 against class 0
    if (!rows || n % rows || (classes && !binary && (scores->ndim < 2 || width != scores->shape[1])) || (!classes && n != nn_count(y))) {
        nn_fail(nn, "nn_evaluate: outputs %s do not fit targets %s", nn__dims_text(scores->ndim, scores->shape).s, nn__dims_text(y->ndim, y->shape).s);
        return 0;
    }
    if (!c->room) {                                      // no later batch is larger than the first
        c->room = rows * nn__max(batches, 1);
        c->width = binary ? 2 : width;
        c->scores = (float *)nn__host_step(nn, nn__mul_size((size_t)c->room, (size_t)c->width * sizeof(float)));
        if (classes) c->labels = (int64_t *)nn__host_step(nn, nn__mul_size((size_t)c->room, sizeof(int64_t)));
        else         c->values = (float *)nn__host_step(nn, nn__mul_size((size_t)c->room, (size_t)c->width * sizeof(float)));
        if (!c->scores || (!c->labels && !c->values)) return 0;
    }
    if (c->rows + rows > c->room || (binary ? 2 : width) != c->width) { nn_fail(nn, "nn_evaluate: batches of different shapes"); return 0; }
    s = c->scores + c->rows * c->width;
    if (!binary && (!classes || scores->ndim == 2)) { if (!nn_read(scores, s)) return 0; }
    else {
        float *t = (float *)nn__host_step(nn, (size_t)n * sizeof *t);
        int64_t inner = binary ? 1 : rows / b->count;    // (B, C, ...) -> (B, ..., C)
        if (!t || !nn_read(scores, t)) return 0;
        for (i = 0; i < rows; i++) {
            if (binary) { s[2 * i] = 0; s[2 * i + 1] = t[i]; }
            else for (k = 0; k < width; k++) s[i * width + k] = t[(i / inner * width + k) * inner + i % inner];
        }
    }
    if (classes ? !nn_read_as(y, NN_I64, c->labels + c->rows) : !nn_read(y, c->values + c->rows * c->width)) return 0;
    c->rows += rows;
    return 1;
}

// Mean loss and accuracy over the loader's epoch, NaN where there is none; with `all`, scores and targets too (in memory of this step).
typedef struct nn__measured { double loss, accuracy; int64_t count; nn__collected all; } nn__measured;
static int nn__measure(nn_layer *model, nn_loader *data, nn_loss loss, const nn_loss_desc *desc, int collect, nn__measured *r)
{
    nn_context *nn = model->nn;
    double loss_sum = 0, hits = 0, labelled = 0;
    int64_t batches = nn_loader_batches(data), i;
    nn_batch b;
    nn_tensor *scores, *l;
    nn__mark m;
    memset(r, 0, sizeof *r);
    nn_loader_rewind(data);
    for (i = 0; nn_ok(nn) && nn_loader_next(data, &b); i++) {
        if (i == 0 || !collect) m = nn__get_mark(nn);
        l = nn__batch_loss(model, &b, loss, desc, &scores);
        if (!nn_ok(nn)) break;
        if (l && nn_count(l) != 1) { nn_fail(nn, "nn_evaluate: the loss has shape %s; it must be one number", nn__dims_text(l->ndim, l->shape).s); break; }
        if (l) loss_sum += nn__loss_of_samples(nn_item(l), &b, desc);
        if (!collect) nn__count_hits(scores, &b, &hits, &labelled);
        if (collect && !nn__collect_batch(nn, &r->all, scores, &b, batches)) break;
        r->count += b.count;
        if (i == 0 && collect) m = nn__get_mark(nn);     // what was collected lies above the first batch and stays
        else nn__rewind(nn, &m);
        if (nn->measuring) break;                        // one batch tells the memory
    }
    r->loss = (loss || (model->step && !collect)) && r->count ? loss_sum / (double)r->count : (double)NAN;
    r->accuracy = labelled > 0 ? hits / labelled : (double)NAN;
    return nn_ok(nn);
}

static int nn__model_and_loader(const char *what, nn_layer *model, nn_loader *data)
{
    if (nn__no_layer(model) || !nn_ok(model->nn)) return 0;
    if (data) return 1;
    nn_fail(model->nn, "%s: no loader", what);
    return 0;
}

NN_API int nn_evaluate(nn_layer *model, nn_loader *data, nn_loss loss, const nn_loss_desc *loss_desc, nn_report *report)
{
    nn_context *nn;
    nn__aside aside;
    nn__measured r;
    uint64_t *scratch;
    int64_t c;
    int ok;
    if (!nn__model_and_loader("nn_evaluate", model, data)) return 0;
    nn = model->nn;
    aside = nn__aside_begin(nn);
    ok = nn__measure(model, data, loss, loss_desc, report != NULL, &r);
    if (report && r.all.labels) {
        scratch = (uint64_t *)nn__host_step(nn, nn__mul_size((size_t)r.all.rows, 2 * sizeof *scratch));
        nn__report_classes_with(report, r.all.rows, r.all.width, r.all.scores, r.all.labels, scratch);
    } else if (report) nn_report_values(report, r.all.rows, r.all.width, r.all.scores, r.all.values);
    nn__aside_end(nn, &aside);
    if (!report) return ok;
    report->loss = r.loss;
    for (c = 0; c < report->classes && c < NN_MAX_CLASSES; c++) {
        const char *name = nn_dataset_class(data->data, c);
        if (name) snprintf(report->names[c], sizeof report->names[c], "%s", name);
    }
    return ok;
}

NN_API int nn_predict(nn_layer *model, nn_loader *data, float *outputs)
{
    nn_context *nn;
    nn__aside aside;
    nn__mark m;
    nn_batch b;
    if (!nn__model_and_loader("nn_predict", model, data)) return 0;
    nn = model->nn;
    if (data->shuffle || data->cumulative) { nn_fail(nn, "nn_predict: the loader shuffles; outputs would not be in order"); return 0; }
    aside = nn__aside_begin(nn);
    nn_loader_rewind(data);
    m = nn__get_mark(nn);
    while (nn_ok(nn) && nn_loader_next(data, &b)) {
        nn_tensor *y = nn_forward(model, b.x);
        if (nn->measuring || !nn_read(y, outputs)) break;
        outputs += nn_count(y);
        nn__rewind(nn, &m);
    }
    nn__aside_end(nn, &aside);
    return nn_ok(nn);
}

// ---- what is kept: the best weights, and the state that a checkpoint needs -----------------------------------
static nn__trainer *nn__trainer_of(nn_layer *model)
{
    nn_context *nn = model->nn;
    nn__trainer *t;
    nn_shape shape = nn__shape1(NN__FIT_NUMBERS);
    int n = nn__list(model, NN__T_PARAM | NN__T_BUFFER, NULL, 0).n;
    for (t = nn->trainers; t; t = t->next) if (t->model == model && t->weights == n) return t;
    t = (nn__trainer *)nn__life(nn, sizeof *t);
    if (!t) return NULL;
    t->model = model;
    t->weights = n;
    t->weight = (nn_tensor **)nn__life(nn, nn__mul_size((size_t)t->weights, sizeof *t->weight));
    t->extra = (nn__extra *)nn__life(nn, nn__mul_size(2 * (size_t)t->weights + 1, sizeof *t->extra));
    t->numbers = nn_tensor_new_as(nn, NN_F64, shape, NULL);
    if (!t->weight || !t->extra || nn__dead(t->numbers)) return NULL;
    nn__list(model, NN__T_PARAM | NN__T_BUFFER, t->weight, t->weights);
    t->next = nn->trainers;
    nn->trainers = t;
    return t;
}

static int nn__make_best(nn__trainer *t)
{
    nn_context *nn = t->model->nn;
    nn_tensor **best;
    int i;
    if (t->best) return 1;
    best = (nn_tensor **)nn__life(nn, nn__mul_size((size_t)t->weights, sizeof *best));
    if (!best) return 0;
    for (i = 0; i < t->weights; i++) {
        best[i] = nn__alloc_tensor(nn, 1, (nn_dtype)t->weight[i]->dtype, t->weight[i]->ndim, t->weight[i]->shape);
        if (nn__dead(best[i])) return 0;
        nn_copy(best[i], t->weight[i]);
    }
    t->best = best;
    return 1;
}

static void nn__add_extra(nn__trainer *t, const char *prefix, const nn_tensor *named, nn_tensor *x)
{
    t->extra[t->extras].prefix = prefix;
    t->extra[t->extras].named = named;
    t->extra[t->extras++].t = x;
}

static int nn__list_extras(nn__fit *f)
{
    nn__trainer *t = f->keep;
    nn_ema *e = f->d.ema;
    int i;
    t->extras = 0;
    nn__add_extra(t, "trainer.state", NULL, t->numbers);
    for (i = 0; f->d.patience > 0 && i < t->weights; i++) nn__add_extra(t, "trainer.best.", t->weight[i], t->best[i]);
    if (e && (e->nn != f->nn || e->n > t->weights || e->swapped)) {
        nn_fail(f->nn, e->swapped ? "nn_fit: parameters and averages are exchanged; call nn_ema_swap first" : "nn_fit: the averages are those of another model");
        return 0;
    }
    for (i = 0; e && i < e->n; i++) nn__add_extra(t, "trainer.ema.", e->p[i], e->shadow[i]);
    return 1;
}

static void nn__copy_best(nn__trainer *t, int restore)
{
    int i;
    for (i = 0; t->best && i < t->weights; i++) nn_copy(restore ? t->weight[i] : t->best[i], restore ? t->best[i] : t->weight[i]);
}

static nn_save_desc nn__checkpoint_desc(const nn__fit *f)
{
    nn_save_desc s;
    memset(&s, 0, sizeof s);
    s.optimizer = f->d.optimizer;
    s.schedule = f->d.schedule;
    s.loader = f->d.train;
    return s;
}

// Model, optimizer, schedule, loader, and through nn->extra what nn_fit itself keeps: one file, replaced as a whole.
static int nn__checkpoint(nn__fit *f, int resume)
{
    nn_save_desc s = nn__checkpoint_desc(f);
    nn_context *nn = f->nn;
    int ok;
    nn_write_as(f->keep->numbers, NN_F64, &f->s);
    nn->extra = f->keep->extra;
    nn->extras = f->keep->extras;
    ok = resume ? nn_resume(f->model, f->d.checkpoint, &s) : nn_save(f->model, f->d.checkpoint, &s);
    nn->extra = NULL;
    nn->extras = 0;
    if (!ok || !resume) return ok;
    if (!nn_read_as(f->keep->numbers, NN_F64, &f->s)) return nn->measuring;
    if (!(f->s.epochs >= 0 && f->s.epochs <= INT_MAX && f->s.waited >= 0 && f->s.waited <= INT_MAX)) {
        nn_fail(nn, "nn_fit: \"%s\" holds an impossible epoch", f->d.checkpoint);
        return 0;
    }
    return 1;
}

// ---- what is shown ----------------------------------------------------------------------------------------
static size_t nn__metric_text(char *to, size_t room, const char *name, double v, int percent)
{
    if (v != v) return 0;
    return (size_t)snprintf(to, room, percent ? "  %s %.2f %%" : "  %s %.4g", name, percent ? 100 * v : v);
}

static void nn__show_step(nn__fit *f)                    // on a terminal: one line, rewritten ten times a second
{
    char line[256], bar[24 + 1], left[32];
    double now, share, seconds;
    size_t n;
    int i, done;
    if (!f->terminal) return;
    now = nn__seconds();
    if (now - f->shown < 0.1) return;
    f->shown = now;
    share = f->p.steps > 0 ? (double)f->p.step / (double)f->p.steps : 1;
    done = (int)(share * 24);
    for (i = 0; i < 24; i++) bar[i] = i < done ? '=' : i == done ? '>' : ' ';
    bar[24] = 0;
    seconds = (now - f->epoch_started) * (1 - share) / (share > 0 ? share : 1);
    snprintf(left, sizeof left, "%d:%02d", (int)(seconds / 60), (int)seconds % 60);
    n = (size_t)snprintf(line, sizeof line, "\repoch %d/%d [%s] %lld/%lld", f->p.epoch, f->p.epochs, bar, (long long)f->p.step, (long long)f->p.steps);
    n += nn__metric_text(line + n, sizeof line - n, "loss", f->p.loss, 0);
    n += nn__metric_text(line + n, sizeof line - n, "accuracy", f->p.accuracy, 1);
    snprintf(line + n, sizeof line - n, "  %.0f samples/s  %s left \033[K", f->samples / (now - f->epoch_started + 1e-9), left);
    nn__log_text(f->nn, line);
    nn__flush_terminal();
}

static void nn__show_epoch(nn__fit *f)
{
    char line[320];
    double seconds = nn__seconds() - f->epoch_started;
    size_t n;
    if (f->d.quiet) return;
    n = (size_t)snprintf(line, sizeof line, "%sepoch %d/%d", f->terminal ? "\r\033[K" : "", f->p.epoch, f->p.epochs);
    n += nn__metric_text(line + n, sizeof line - n, "loss", f->p.loss, 0);
    n += nn__metric_text(line + n, sizeof line - n, "accuracy", f->p.accuracy, 1);
    n += nn__metric_text(line + n, sizeof line - n, "validation loss", f->p.validation_loss, 0);
    n += nn__metric_text(line + n, sizeof line - n, "validation accuracy", f->p.validation_accuracy, 1);
    n += nn__metric_text(line + n, sizeof line - n, "lr", f->p.lr, 0);
    snprintf(line + n, sizeof line - n, seconds < 10 ? "  %.2f s\n" : "  %.0f s\n", seconds);
    nn__log_text(f->nn, line);
}

static void nn__say(nn__fit *f, const char *format, int epoch, const char *text)
{
    if (!f->d.quiet) nn__log(f->nn, format, epoch, text);
}

static const char *const nn__history_head = "epoch,loss,accuracy,validation_loss,validation_accuracy,lr,seconds\n";

static int nn__logs_open(nn__fit *f)
{
    char path[1024];
    int n, fresh = f->s.epochs == 0, ok;
    if (!f->d.log_dir) return 1;
    f->events = nn_events_new(f->nn, f->d.log_dir);
    if (!f->events) return 0;
    n = snprintf(path, sizeof path, "%s/history.csv", f->d.log_dir);
    if (n < 0 || (size_t)n >= sizeof path) { nn_fail(f->nn, "nn_fit: the name of log_dir is too long"); return 0; }
    f->history = nn__file_open(path, fresh ? 1 : 2);
    ok = f->history && (!fresh || nn__file_write(f->history, nn__history_head, strlen(nn__history_head))) && nn__file_flush(f->history);
    if (!ok) nn_fail(f->nn, "nn_fit: cannot write \"%s\"", path);
    return ok;
}

static void nn__logs_close(nn__fit *f)
{
    if (f->events) nn__events_close(f->events);
    if (f->history && !nn__file_close(f->history, 0)) nn_fail(f->nn, "nn_fit: writing history.csv failed");
}

static void nn__log_steps(nn__fit *f)                    // some twenty points per epoch
{
    if (!f->events || f->p.step % nn__max(1, f->p.steps / 20)) return;
    nn_events_scalar(f->events, "step/loss", (int64_t)f->s.steps, f->p.loss);
    nn_events_scalar(f->events, "step/lr", (int64_t)f->s.steps, f->p.lr);
}

static void nn__event_scalar(nn__fit *f, const char *tag, double v) { if (v == v) nn_events_scalar(f->events, tag, f->p.epoch, v); }

static void nn__log_epoch(nn__fit *f)
{
    nn_context *nn = f->nn;
    nn__mark m = nn__get_mark(nn);
    nn__bytes row;
    char tag[320];
    double v[6];
    int i;
    if (!f->events) return;
    nn__event_scalar(f, "loss/train", f->p.loss);
    nn__event_scalar(f, "loss/validation", f->p.validation_loss);
    nn__event_scalar(f, "accuracy/train", f->p.accuracy);
    nn__event_scalar(f, "accuracy/validation", f->p.validation_accuracy);
    nn__event_scalar(f, "lr", f->p.lr);
    for (i = 0; i < f->keep->weights; i++) {
        const nn_tensor *w = f->keep->weight[i];
        float *values;
        if (!(w->flags & NN__T_PARAM)) continue;
        values = (float *)nn__host_step(nn, nn__mul_size((size_t)nn_count(w), sizeof *values));
        snprintf(tag, sizeof tag, "weights/");
        nn_name(w, f->model, tag + 8, sizeof tag - 8);
        if (values && (nn->measuring || nn_read(w, values))) nn_events_histogram(f->events, tag, f->p.epoch, values, nn->measuring ? 0 : nn_count(w));
        nn__rewind_memory(nn, &m);
    }
    row = nn__bytes_new(nn, 256);
    v[0] = f->p.loss; v[1] = f->p.accuracy; v[2] = f->p.validation_loss; v[3] = f->p.validation_accuracy; v[4] = f->p.lr; v[5] = f->p.seconds;
    nn__put_format(&row, "%d", f->p.epoch);
    for (i = 0; i < 6; i++) { nn__put_byte(&row, ','); nn__put_number(&row, v[i], 9); }
    nn__put_byte(&row, '\n');
    if (row.at && (!nn__file_write(f->history, row.at, row.used) || !nn__file_flush(f->history))) nn_fail(nn, "nn_fit: writing history.csv failed");
    nn__rewind_memory(nn, &m);
}

// ---- the loop -----------------------------------------------------------------------------------------------
static nn_step_plan *nn__step_plan_make(nn_layer *model);            // >>step: in this order in a step that is repeated ...
static int        nn__step_ready(nn_step_plan *p, const nn_tensor *x, const nn_tensor *y);
static int        nn__step_start(nn_step_plan *p, const nn_tensor *x, const nn_tensor *y);
static nn_tensor *nn__step_to_loss(nn_step_plan *p, nn_tensor **scores);
static void       nn__step_to_norm(nn_step_plan *p);
static void       nn__step_to_end(nn_step_plan *p);
static int        nn__step_record(nn_step_plan *p, const nn_tensor *x, const nn_tensor *y);          // ... and in one that is recorded
static void       nn__step_loss_known(nn_step_plan *p);
static void       nn__step_pause(nn_step_plan *p, int on);
static void       nn__step_recorded(nn_step_plan *p, const nn_tensor *loss, const nn_tensor *scores);
static void       nn__step_plan_drop(nn_step_plan *p);

static int nn__own_loss(nn_loss loss)
{
    static const nn_loss own[] = { nn_cross_entropy, nn_nll, nn_binary_cross_entropy, nn_mse, nn_l1, nn_huber, nn_smooth_l1, nn_kl_div, nn_hinge };
    size_t i;
    for (i = 0; i < sizeof own / sizeof *own; i++) if (own[i] == loss) return 1;
    return 0;
}
// A callback may do something else in a later step, and nobody would notice: then the user has to say that it does not.
static nn_step_plan *nn__fit_plan(const nn__fit *f)
{
    if (f->d.repeat == NN_ZERO || f->d.accumulate > 1 || f->nn->buffer || f->nn->measuring) return NULL;
    if (f->d.repeat != 1 && (f->model->step || !nn__own_loss(f->d.loss) || !nn__is_ours(f->model))) return NULL;
    return nn__step_plan_make(f->model);
}

static void nn__fit_forward(nn__fit *f, const nn_batch *b)
{
    f->recorded = 0;
    f->repeated = f->plan && nn__step_ready(f->plan, b->x, b->y);
    if (f->repeated) {
        if (nn__step_start(f->plan, b->x, b->y)) f->loss = nn__step_to_loss(f->plan, &f->scores);
        return;
    }
    nn_begin(f->nn, NN_TRAIN);
    f->recorded = f->plan && b->count == f->d.train->batch && nn__step_record(f->plan, b->x, b->y);
    f->loss = nn__batch_loss(f->model, b, f->model->step ? NULL : f->d.loss, f->d.loss_desc, &f->scores);
    if (f->recorded) { nn__step_loss_known(f->plan); nn__step_pause(f->plan, 1); }
}

static void nn__fit_backward(nn__fit *f, double scale, int last)
{
    nn_backward_desc back;
    int clips = nn__clips_norm(f->d.optimizer);          // clipping has a guard of its own before the update
    if (f->repeated) {
        if (clips) nn__step_to_norm(f->plan); else nn__step_to_end(f->plan);
        return;
    }
    if (f->recorded) nn__step_pause(f->plan, 0);
    memset(&back, 0, sizeof back);
    if (scale != 1) back.grad = nn_full(f->nn, nn_shape_of(f->loss), (float)scale);
    if (last && !clips) back.step = f->d.optimizer;
    nn_backward_with(f->loss, &back);
    if (f->recorded) nn__step_pause(f->plan, 1);
}

// Forward, guard, backward; in the last batch of an update also the update, unless gradients are clipped. `scale` is this batch's share of the update that it belongs to.
static int nn__fit_batch(nn__fit *f, const nn_batch *b, double scale, int last)
{
    nn_context *nn = f->nn;
    nn_tensor *loss;
    double value;
    nn__fit_forward(f, b);
    loss = f->loss;
    if (!nn_ok(nn)) return 0;
    if (nn_count(loss) != 1) {
        nn_fail(nn, "nn_fit: the loss has shape %s; it must be one number", loss ? nn__dims_text(loss->ndim, loss->shape).s : "NULL");
        return 0;
    }
    value = nn_item(loss);
    if (!nn_ok(nn)) return 0;
    if (!nn__finite(value) && !nn->measuring) { nn__blame(f, b, value != value ? "NaN" : "infinite"); return 0; }
    f->loss_sum += nn__loss_of_samples(value, b, f->d.loss_desc);
    f->samples += (double)b->count;
    nn__count_hits(f->scores, b, &f->hit_sum, &f->labelled);
    nn__fit_backward(f, scale, last);
    return nn_ok(nn);
}

static int nn__fit_update(nn__fit *f)
{
    nn_optimizer *opt = f->d.optimizer;
    int clips = nn__clips_norm(opt);
    if (clips && !f->nn->measuring && !nn__finite(f->repeated ? nn__last_norm(opt) : (double)nn_grad_norm(opt)) && nn_ok(f->nn)) {
        nn_fail(f->nn, "nn_fit: a gradient is not finite in epoch %d, batch %lld; parameters were not updated", f->p.epoch, (long long)f->p.step);
        return 0;
    }
    if (f->repeated) nn__step_to_end(f->plan);
    if (f->recorded) nn__step_pause(f->plan, 0);
    if (clips && !f->repeated) nn_step(opt);
    if (f->recorded) nn__step_recorded(f->plan, f->loss, f->scores);
    if (f->d.ema) nn_ema_update(f->d.ema);
    if (f->d.schedule && f->d.schedule->per_step) nn_schedule_advance(f->d.schedule);
    return nn_ok(f->nn);
}

// How much batch b counts in an update of `group` batches: like the same samples in one large batch, so by its number of samples.
// Only the last batch of an epoch can be smaller than the others.
static double nn__batch_share(const nn__fit *f, const nn_batch *b, int64_t group, int64_t left)
{
    int64_t full = f->d.train->batch, rest = f->d.train->data->count - full * (f->p.steps - 1), all = group * full;
    if (f->d.loss_desc && f->d.loss_desc->reduction == NN_SUM) return 1;
    if (group == 1) return 1;
    if (group == left && rest > 0 && rest < full) all -= full - rest;
    return (double)b->count / (double)all;
}

static int nn__fit_epoch(nn__fit *f)                     // 0: an error, or stopped by a callback
{
    nn_loader *train = f->d.train;
    int64_t k = nn__max(f->d.accumulate, 1), group = 0, in_group = 0, left = 0;
    nn_batch b;
    f->loss_sum = f->hit_sum = f->samples = f->labelled = 0;
    f->p.steps = nn_loader_batches(train);
    f->p.step = 0;
    f->p.validation_loss = f->p.validation_accuracy = NAN;
    f->epoch_started = nn__seconds();
    while (nn_ok(f->nn) && nn_loader_next(train, &b)) {
        f->p.step++;
        f->s.steps++;
        f->p.lr = (double)nn_lr(f->d.optimizer);
        if (in_group == 0) { left = f->p.steps - f->p.step + 1; group = nn__max(1, nn__min(k, left)); }
        if (!nn__fit_batch(f, &b, nn__batch_share(f, &b, group, left), in_group + 1 == group)) return 0;
        if (++in_group == group) { in_group = 0; if (!nn__fit_update(f)) return 0; }
        f->p.loss = f->loss_sum / f->samples;
        f->p.accuracy = f->labelled > 0 ? f->hit_sum / f->labelled : (double)NAN;
        f->p.seconds = nn__seconds() - f->started;
        nn__log_steps(f);
        nn__show_step(f);
        if (f->d.on_step) f->d.on_step(f->d.user, &f->p);
        if (f->p.stop) { nn_loader_rewind(train); return 0; }
        if (f->nn->measuring && in_group == 0) { nn_loader_rewind(train); break; }   // one update tells the memory
    }
    if (f->p.step == 0 && nn_ok(f->nn)) nn_fail(f->nn, "nn_fit: the training loader is empty");
    return nn_ok(f->nn);
}

// Validation, schedule, best weights, logs; then the callback, and the checkpoint with whatever the callback changed.
static int nn__fit_after_epoch(nn__fit *f)
{
    nn_context *nn = f->nn;
    nn__measured v;
    nn__aside aside;
    double judged;
    nn_begin(nn, NN_EVAL);           // the last step's memory is free
    if (!nn__weights_are_finite(f)) return 0;
    if (f->d.ema) nn_ema_swap(f->d.ema);
    if (f->d.validation) {
        aside = nn__aside_begin(nn);
        nn__measure(f->model, f->d.validation, f->model->step ? NULL : f->d.loss, f->d.loss_desc, 0, &v);
        nn__aside_end(nn, &aside);
        f->p.validation_loss = v.loss;
        f->p.validation_accuracy = v.accuracy;
    }
    judged = f->d.validation ? f->p.validation_loss : f->p.loss;
    f->s.epochs = f->p.epoch;
    f->s.waited++;
    if (nn_ok(nn) && (judged < f->s.best_loss || f->s.best_epoch == 0)) {
        f->s.best_loss = judged == judged ? judged : (double)INFINITY;
        f->s.best_epoch = f->p.epoch;
        f->s.waited = 0;
        f->s.has_best = f->d.patience > 0;
        if (f->d.patience > 0) nn__copy_best(f->keep, 0);        // with ema: the averages, which are what was judged
    }
    if (f->d.ema) nn_ema_swap(f->d.ema);
    if (f->d.schedule && !f->d.schedule->per_step) {
        nn_schedule_metric(f->d.schedule, !f->d.schedule->maximize ? judged : f->d.validation ? f->p.validation_accuracy : f->p.accuracy);
        nn_schedule_advance(f->d.schedule);
    }
    f->p.step = 0;
    f->p.seconds = nn__seconds() - f->started;
    if (nn_ok(nn)) nn__log_epoch(f);
    if (nn_ok(nn)) nn__show_epoch(f);
    if (nn_ok(nn) && f->d.on_epoch) f->d.on_epoch(f->d.user, &f->p);
    if (nn_ok(nn) && f->d.checkpoint) nn__checkpoint(f, 0);
    return nn_ok(nn);
}

static int nn__fit_check(nn_layer *model, const nn_fit_desc *d)
{
    nn_context *nn = nn__no_layer(model) ? NULL : model->nn;
    if (!nn_ok(nn)) return 0;
    if (!d || !d->train)                 nn_fail(nn, "nn_fit: no training loader");
    else if (!d->optimizer)              nn_fail(nn, "nn_fit: no optimizer");
    else if (!d->loss && !model->step)   nn_fail(nn, "nn_fit: no loss");
    else if (d->optimizer->nn != nn)     nn_fail(nn, "nn_fit: the optimizer belongs to another context");
    return nn_ok(nn);
}

NN_API int nn_fit(nn_layer *model, const nn_fit_desc *desc)
{
    nn__fit f;
    nn_context *nn;
    nn__file *old = NULL;
    if (!nn__fit_check(model, desc)) return 0;
    memset(&f, 0, sizeof f);
    nn = f.nn = model->nn;
    f.model = f.p.model = model;
    f.d = *desc;
    f.keep = nn__trainer_of(model);
    if (!f.keep || (f.d.patience > 0 && !nn__make_best(f.keep)) || !nn__list_extras(&f)) return 0;
    f.p.optimizer = f.d.optimizer;
    f.p.epochs = f.d.epochs > 0 ? f.d.epochs : 1;
    f.p.loss = f.p.accuracy = f.p.validation_loss = f.p.validation_accuracy = NAN;
    f.plan = f.keep->plan = nn__fit_plan(&f);
    f.started = nn__seconds();
    f.terminal = !f.d.quiet && !nn->desc.log && nn__is_terminal();
    nn_begin(nn, NN_EVAL);
    nn_zero_grad(model);
    if (f.d.train->position > 0) nn_loader_rewind(f.d.train);        // somebody left in the middle of an epoch
    if (f.d.checkpoint && !nn->measuring) old = nn__file_open(f.d.checkpoint, 0);
    if (old) {
        nn__file_close(old, 0);
        if (!nn__checkpoint(&f, 1)) return 0;
        nn__say(&f, "resumed after epoch %d from %s\n", (int)f.s.epochs, f.d.checkpoint);
    }
    if (nn__logs_open(&f)) {
        f.p.events = f.events;
        while (f.s.epochs < f.p.epochs && !f.p.stop && !(f.d.patience > 0 && f.s.waited >= f.d.patience)) {
            f.p.epoch = (int)f.s.epochs + 1;
            if (!nn__fit_epoch(&f) || !nn__fit_after_epoch(&f)) break;
            if (nn->measuring) break;
        }
    }
    if (nn_ok(nn) && f.d.patience > 0 && f.s.has_best > 0) {
        nn__copy_best(f.keep, 1);
        if (f.s.best_epoch < f.s.epochs) nn__say(&f, "the weights of epoch %d are the best%s\n", (int)f.s.best_epoch, "");
    }
    nn__logs_close(&f);
    nn__step_plan_drop(f.plan);
    f.keep->plan = NULL;
    nn_zero_grad(model);             // what an interrupted update left
    return nn_ok(nn);
}

NN__SIMPLE_END
// =============================================================================================
// >>plan   A forward pass as a fixed program. nn__run is the only door to the numbers, so recording is listening there:
//
//     record    the net runs twice, with the largest batch B and with a smaller one: every call is kept; nothing is released meanwhile,
//               so that equal addresses mean the same numbers
//     fold      batch norm under running statistics is a scale and a shift per channel: w' = w s, b' = (b - mean) s + beta,
//               s = gamma / sqrt(var + eps), goes into the convolution or linear layer before it
//     storages  overlapping views are one storage: constant (nobody writes it: copied), input, output or temporary
//     layout    temporaries whose lives do not overlap share memory: the largest first, each at the lowest free place (greedy by size);
//               an elementwise result takes the place of its input where that dies
//     batch     a size, stride or place that differs between the two recordings is linear in the batch
// =============================================================================================
enum { NN__PLAN_NONE, NN__PLAN_CONST, NN__PLAN_INPUT, NN__PLAN_OUTPUT, NN__PLAN_TEMP, NN__PLAN_BASES, NN__PLAN_VIEWS = NN_MAX_INPUTS + NN_MAX_OUTPUTS + NN_MAX_AUX };

typedef struct nn__recorded { const nn_op *op; int nin, nout, naux, mode; double params[NN_MAX_PARAMS / sizeof(double)]; nn_view v[NN__PLAN_VIEWS]; } nn__recorded;
struct nn__recording {                  // while a plan is made, nn->record points here
    nn_context *nn;
    nn__recorded *call;
    int          calls, room;
    const char  *refused;            // why there can be no plan
    nn_view      input, output;
    int64_t      batch;
};

typedef struct nn__storage { const char *low, *high; int base, first, last, into; int64_t place; } nn__storage;  // into: shares the place of that one, or -1
typedef struct nn__plan_view {
    nn_view v;                       // for batch 0: sizes are shape + batch * shape_step; data is not used
    int     base;
    int64_t at, at_step, shape_step[NN_MAX_DIMS], stride_step[NN_MAX_DIMS];
} nn__plan_view;
typedef struct nn__plan_call { const nn_op *op; nn_exec exec; int view, nin, nout, naux, mode; double params[NN_MAX_PARAMS / sizeof(double)]; } nn__plan_call;
struct nn_plan {
    nn_context    *nn;
    nn__plan_call *call;
    nn__plan_view *view, output;
    nn_shape       out_shape;
    char          *constants;
    int            calls, any_batch, threads;
    int64_t        batch;
    size_t         input_bytes, output_bytes, temp_bytes, scratch_bytes;       // of one sample; of the whole workspace
};

static void nn__record_refuse(nn_context *nn, const char *why)
{
    if (nn->record && !nn->record->refused) nn->record->refused = why;
    nn__trace_refuse(nn, why);
}
static void nn__record_call(nn_context *nn, const nn_call *c)
{
    nn__recording *r = nn->record;
    nn__recorded *to;
    int i, n = c->nin + c->nout + c->naux;
    if (r->refused) return;
    if (c->pass != NN_FORWARD) { r->refused = "it runs backward"; return; }
    if (c->op->flags & NN_OP_RANDOM) { r->refused = "it draws random numbers"; return; }
    if (c->op->params_bytes > NN_MAX_PARAMS) { r->refused = "an op has too many parameters"; return; }
    if (r->calls == r->room) {
        int room = r->room ? 2 * r->room : 32;
        nn__recorded *more = (nn__recorded *)nn__raw_alloc(nn, (size_t)room * sizeof *more);
        if (!more) { r->refused = "out of memory"; return; }
        if (r->calls) memcpy(more, r->call, (size_t)r->calls * sizeof *more);
        nn__raw_free(nn, r->call);
        r->call = more;
        r->room = room;
    }
    to = &r->call[r->calls++];
    to->op = c->op; to->nin = c->nin; to->nout = c->nout; to->naux = c->naux; to->mode = c->mode;
    memset(to->params, 0, sizeof to->params);
    if (c->params) memcpy(to->params, c->params, c->op->params_bytes);
    for (i = 0; i < n; i++) to->v[i] = i < c->nin ? c->in[i] : i < c->nin + c->nout ? c->out[i - c->nin] : c->aux[i - c->nin - c->nout];
}

static void nn__record_net(nn__recording *r, nn_layer *net, nn_shape shape, nn_dtype dtype)
{
    nn_context *nn = net->nn;
    nn_tensor *x, *y;
    int hold = nn->hold;
    memset(r, 0, sizeof *r);
    r->nn = nn;
    r->batch = shape.d[0];
    x = dtype == NN_F32 ? nn_zeros(nn, shape) : nn__alloc_tensor(nn, 0, dtype, shape.ndim, shape.d);
    if (nn__dead(x)) return;
    if (dtype != NN_F32) nn__fill_view(nn, nn__view_of(x), 0.0);
    r->input = nn__view_of(x);
    nn->hold = 1;
    nn->record = r;
    y = nn_contiguous(nn_forward(net, x));
    nn->record = NULL;
    nn->hold = hold;
    r->output = nn__view_of(y);
    if (nn_ok(nn) && (y->ndim < 1 || y->dtype != NN_F32)) r->refused = "its result is not f32, or has no batch dimension";
}

static int nn__view_empty(const nn_view *v) { return !v->data || nn_view_count(v) == 0; }

// ---- folding ------------------------------------------------------------------------------------------
static float nn__norm_eps(const void *params);           // >>ops
static int nn__reads_storage(const nn__recorded *c, const void *data)
{
    int i;
    for (i = 0; i < c->nin; i++) if (c->v[i].data == data) return 1;
    return 0;
}

// Folds call j, a batch norm, into call i, whose result nobody else reads. w, b: room for the new weights and bias. twin: the same net, another batch.
static void nn__fold(nn__recording *r, nn__recording *twin, int i, int j, float *w, float *b)
{
    nn__recorded *c = &r->call[i], *n = &r->call[j];
    const nn_view *old = &c->v[1], *bias = &c->v[2];
    float eps = nn__norm_eps(n->params);
    const char *low, *high;
    int64_t o, k, channels = old->shape[0], per = nn_view_count(old) / nn__max(1, channels), at, rest;
    int d, t;
    nn__view_extent(old, &low, &high);
    for (o = 0; o < channels; o++) {
        float gamma = n->v[1].data ? ((const float *)n->v[1].data)[o] : 1, beta = n->v[2].data ? ((const float *)n->v[2].data)[o] : 0;
        double s = (double)gamma / sqrt((double)((const float *)n->v[4].data)[o] + (double)eps);
        b[o] = (float)(((bias->data ? (double)((const float *)bias->data)[o] : 0) - (double)((const float *)n->v[3].data)[o]) * s + (double)beta);
        for (k = 0; k < per; k++) {
            for (d = old->ndim - 1, rest = k, at = o * old->stride[0]; d > 0; d--) { at += rest % old->shape[d] * old->stride[d]; rest /= old->shape[d]; }
            w[at] = (float)((double)((const float *)old->data)[at] * s);
        }
    }
    for (t = 0; t < 2; t++) {
        nn__recording *both = t ? twin : r;
        nn__recorded *to = &both->call[i];
        to->v[1].data = w;
        to->v[2] = both->call[j].v[3];
        to->v[2].data = b;
        to->v[2].stride[0] = 1;
        to->v[to->nin] = both->call[j].v[both->call[j].nin];
        both->call[j].op = NULL;
    }
}

static int nn__foldable(const nn__recording *r, int j)      // which call the batch norm j can go into, or -1
{
    const nn__recorded *n = &r->call[j];
    int i, k, found = -1;
    if (!n->op || n->op->id != NN_OP_batchnorm || n->mode == NN_TRAIN || !n->v[3].data || !n->v[4].data) return -1;
    for (i = 1; i < 5; i++) if (n->v[i].data && n->v[i].dtype != NN_F32) return -1;
    for (i = 0; i < j; i++) {
        const nn__recorded *c = &r->call[i];
        if (!c->op || c->v[c->nin].data != n->v[0].data) continue;
        found = c->op->id == NN_OP_conv2d || (c->op->id == NN_OP_linear && c->v[c->nin].ndim == 2) ? i : -1;
    }
    for (k = 0; k < r->calls && found >= 0; k++)
        if (k != j && r->call[k].op && nn__reads_storage(&r->call[k], n->v[0].data)) found = -1;
    if (found >= 0) {                                    // weights that are a part of something larger stay as they are
        const char *low, *high;
        nn__view_extent(&r->call[found].v[1], &low, &high);
        if (high - low != nn_view_count(&r->call[found].v[1]) * (int64_t)sizeof(float)) found = -1;
    }
    return found >= 0 && r->output.data != n->v[0].data ? found : -1;
}

// ---- storages -----------------------------------------------------------------------------------------
static int nn__storage_of(const nn__storage *s, int n, const nn_view *v)
{
    const char *low, *high;
    int i;
    nn__view_extent(v, &low, &high);
    for (i = 0; i < n; i++) if (low < s[i].high && s[i].low < high) return i;
    return -1;
}

static void nn__storage_add(nn__storage *s, int *n, const nn_view *v)    // joins what overlaps
{
    const char *low, *high;
    int i;
    if (nn__view_empty(v)) return;
    nn__view_extent(v, &low, &high);
    for (i = 0; i < *n;) {
        if (low >= s[i].high || s[i].low >= high) { i++; continue; }
        if (s[i].low < low) low = s[i].low;
        if (s[i].high > high) high = s[i].high;
        s[i] = s[--*n];
        i = 0;
    }
    s[*n].low = low; s[*n].high = high; s[*n].base = NN__PLAN_CONST; s[*n].first = -1; s[*n].last = -1; s[*n].into = -1; s[*n].place = 0;
    ++*n;
}

static int nn__find_storages(nn__recording *r, nn__storage *s)
{
    int n = 0, i, j;
    nn__storage_add(s, &n, &r->input);
    nn__storage_add(s, &n, &r->output);
    for (i = 0; i < r->calls; i++)
        for (j = 0; r->call[i].op && j < r->call[i].nin + r->call[i].nout; j++) nn__storage_add(s, &n, &r->call[i].v[j]);
    for (i = 0; i < r->calls; i++) {
        const nn__recorded *c = &r->call[i];
        for (j = 0; c->op && j < c->nin + c->nout; j++) {
            nn__storage *t;
            if (nn__view_empty(&c->v[j])) continue;
            t = &s[nn__storage_of(s, n, &c->v[j])];
            if (j < c->nin && (c->op->flags & NN_OP_MUTATES) && c->mode == NN_TRAIN) r->refused = "it changes its buffers";
            if (j >= c->nin) {
                if (t->base == NN__PLAN_CONST && t->first >= 0) r->refused = "it overwrites what it has read";
                t->base = NN__PLAN_TEMP;
            }
            if (t->first < 0) t->first = i;
            t->last = i;
        }
    }
    if (!nn__view_empty(&r->input)) {
        nn__storage *t = &s[nn__storage_of(s, n, &r->input)];
        if (t->base == NN__PLAN_TEMP) r->refused = "it overwrites its input";
        t->base = NN__PLAN_INPUT;
    }
    if (!nn__view_empty(&r->output)) {
        nn__storage *t = &s[nn__storage_of(s, n, &r->output)];
        const char *low, *high;
        nn__view_extent(&r->output, &low, &high);
        if (t->base == NN__PLAN_TEMP && low == t->low && high == t->high) t->base = NN__PLAN_OUTPUT;
        t->last = r->calls;
    }
    return n;
}

static void nn__drop_dead(nn__recording *r, nn__recording *twin)   // calls whose results nobody reads
{
    int i, j, k, again = 1;
    while (again) {
        again = 0;
        for (i = 0; i < r->calls; i++) {
            int used = 0;
            for (j = 0; r->call[i].op && j < r->call[i].nout && !used; j++) {
                const nn_view *v = &r->call[i].v[r->call[i].nin + j];
                const char *low, *high, *l, *h;
                if (nn__view_empty(v)) continue;
                nn__view_extent(v, &low, &high);
                nn__view_extent(&r->output, &l, &h);
                used = low < h && l < high;
                for (k = i + 1; k < r->calls && !used; k++) {
                    int in;
                    for (in = 0; r->call[k].op && in < r->call[k].nin && !used; in++) {
                        if (nn__view_empty(&r->call[k].v[in])) continue;
                        nn__view_extent(&r->call[k].v[in], &l, &h);
                        used = low < h && l < high;
                    }
                }
            }
            if (r->call[i].op && !used) { r->call[i].op = twin->call[i].op = NULL; again = 1; }
        }
    }
}

// ---- layout -------------------------------------------------------------------------------------------
static int nn__same_view(const nn_view *a, const nn_view *b)
{
    return a->data == b->data && nn__same_sizes(a->ndim, a->shape, b->ndim, b->shape) && !memcmp(a->stride, b->stride, (size_t)a->ndim * sizeof *a->stride);
}

static int nn__storage_root(const nn__storage *s, int i) { while (s[i].into >= 0) i = s[i].into; return i; }

// The result of an elementwise op may lie where its first input does, if that is as large, laid out alike and not needed any more.
static void nn__share_places(const nn__recording *r, nn__storage *s, int n)
{
    int i, j;
    for (i = 0; i < r->calls; i++) {
        const nn__recorded *c = &r->call[i];
        const nn_view *x = &c->v[0], *y = &c->v[c->nin];
        int from, to, ok = c->op && (c->op->flags & NN_OP_IN_PLACE) && !nn__view_empty(x) && !nn__view_empty(y);
        if (!ok || !nn__same_sizes(x->ndim, x->shape, y->ndim, y->shape) || memcmp(x->stride, y->stride, (size_t)x->ndim * sizeof *x->stride)) continue;
        from = nn__storage_of(s, n, x);
        to = nn__storage_of(s, n, y);
        for (j = 1; j < c->nin; j++) if (!nn__view_empty(&c->v[j]) && nn__storage_of(s, n, &c->v[j]) == from && !nn__same_view(&c->v[j], x)) ok = 0;
        from = nn__storage_root(s, from);
        if (!ok || s[from].base != NN__PLAN_TEMP || s[from].last != i || s[to].first != i || s[to].high - s[to].low != s[from].high - s[from].low) continue;
        if (s[to].base == NN__PLAN_OUTPUT) { s[from].base = NN__PLAN_OUTPUT; s[to].into = from; s[from].last = s[to].last; continue; }
        if (s[to].base != NN__PLAN_TEMP) continue;
        s[to].into = from;
        s[from].last = s[to].last;
    }
}

static int64_t nn__storage_bytes_of(const nn__storage *s) { return (int64_t)nn__round_up((size_t)(s->high - s->low)); }

static int64_t nn__place_temporaries(nn__storage *s, int n)          // greedy by size; returns the bytes needed
{
    int64_t total = 0;
    int done, i, j;
    for (i = 0; i < n; i++) s[i].place = -1;
    for (done = 0; done < n; done++) {
        int best = -1;
        int64_t at = 0;
        for (i = 0; i < n; i++) {
            if (s[i].base != NN__PLAN_TEMP || s[i].into >= 0 || s[i].place >= 0) continue;
            if (best < 0 || nn__storage_bytes_of(&s[i]) > nn__storage_bytes_of(&s[best])) best = i;
        }
        if (best < 0) break;
        for (j = 0; j < n; j++) {                        // the lowest place that no storage alive at the same time covers
            if (s[j].base != NN__PLAN_TEMP || s[j].into >= 0 || s[j].place < 0 || s[j].last < s[best].first || s[best].last < s[j].first) continue;
            if (s[j].place < at + nn__storage_bytes_of(&s[best]) && at < s[j].place + nn__storage_bytes_of(&s[j])) {
                at = s[j].place + nn__storage_bytes_of(&s[j]);
                j = -1;
            }
        }
        s[best].place = at;
        total = nn__max(total, at + nn__storage_bytes_of(&s[best]));
    }
    return total;
}

// ---- the program --------------------------------------------------------------------------------------
// How the view of two recordings depends on the batch. 0: it does not in a linear way.
static int nn__plan_bind(nn__plan_view *to, const nn_view *v, const nn_view *w, const nn__recording *r, const nn__recording *q, const nn__storage *s, int n, const nn__storage *u, int m)
{
    int64_t step = r->batch - q->batch, at[2];
    int i, a, b, base;
    memset(to, 0, sizeof *to);
    to->v = *v;
    if (nn__view_empty(v)) return nn__view_empty(w);
    a = nn__storage_of(s, n, v);
    base = s[nn__storage_root(s, a)].base;
    at[0] = (const char *)v->data - s[a].low;
    if (step) {
        b = nn__view_empty(w) ? -1 : nn__storage_of(u, m, w);
        if (b < 0 || w->ndim != v->ndim || u[nn__storage_root(u, b)].base != base) return 0;
        at[1] = (const char *)w->data - u[b].low;
        if ((at[0] - at[1]) % step || (base == NN__PLAN_CONST && (s[a].high - s[a].low != u[b].high - u[b].low))) return 0;
        to->at_step = (at[0] - at[1]) / step;
        for (i = 0; i < v->ndim; i++) {
            if ((v->shape[i] - w->shape[i]) % step || (v->stride[i] - w->stride[i]) % step) return 0;
            to->shape_step[i] = (v->shape[i] - w->shape[i]) / step;
            to->stride_step[i] = (v->stride[i] - w->stride[i]) / step;
            to->v.shape[i] -= to->shape_step[i] * r->batch;
            to->v.stride[i] -= to->stride_step[i] * r->batch;
        }
    }
    to->base = base;
    to->at = at[0] - to->at_step * r->batch + (base == NN__PLAN_CONST || base == NN__PLAN_TEMP ? s[nn__storage_root(s, a)].place : 0);
    return 1;
}

NN__INLINE void nn__plan_fill(nn_view *to, const nn__plan_view *from, int64_t batch, char *const *base)
{
    int i;
    to->data = from->base == NN__PLAN_NONE ? NULL : base[from->base] + from->at + from->at_step * batch;
    to->ndim = from->v.ndim;
    to->dtype = from->v.dtype;
    for (i = 0; i < from->v.ndim; i++) {
        to->shape[i] = from->v.shape[i] + from->shape_step[i] * batch;
        to->stride[i] = from->v.stride[i] + from->stride_step[i] * batch;
    }
}

static void nn__plan_begin(const nn_plan *p, nn_call *c)  // reads nothing of the context that its owner may be writing
{
    c->nn = p->nn;
    c->pass = NN_FORWARD;
    c->add = 0;
    c->seed = c->step = c->ordinal = 0;
}

static void nn__plan_prepare(const nn_plan *p, const nn__plan_call *k, int64_t batch, char *const *base, nn_call *c)
{
    const nn__plan_view *v = p->view + k->view;
    int i;
    c->op = k->op;
    c->params = k->params;
    c->mode = k->mode;
    c->nin = k->nin; c->nout = k->nout; c->naux = k->naux;
    c->phases = 1;
    c->tasks[0] = 1;
    c->shared_bytes = c->task_bytes = 0;
    c->cost = 0;
    for (i = 0; i < k->nin; i++)  nn__plan_fill(&c->in[i], v++, batch, base);
    for (i = 0; i < k->nout; i++) nn__plan_fill(&c->out[i], v++, batch, base);
    for (i = 0; i < k->naux; i++) nn__plan_fill(&c->aux[i], v++, batch, base);
    if (k->op->plan) k->op->plan(c);
}

static void nn__plan_exec(const nn_plan *p, const nn__plan_call *k, nn_call *c, char *scratch)
{
    nn_task t;
    nn__job j;
    c->shared = scratch;
    scratch += nn__round_up(c->shared_bytes);
    if (p->threads > 1 && !nn__is_small(c)) {
        j.c = c; j.exec = k->exec; j.slots = p->threads; j.scratch = scratch;
        for (j.phase = 0; j.phase < c->phases; j.phase++) nn__run_phase(p->nn, &j);
        return;
    }
    t.scratch = scratch;
    for (t.phase = 0; t.phase < c->phases; t.phase++) {
        t.count = c->tasks[t.phase];
        for (t.index = 0; t.index < t.count; t.index++) k->exec(c, &t);
    }
}

NN_API int nn_run_batch(const nn_plan *p, void *workspace, int64_t batch, const void *input, float *output)
{
    char *base[NN__PLAN_BASES];
    nn_call c;
    nn__fpenv env;
    int i;
    if (!p || batch < 0 || batch > p->batch || (batch != p->batch && !p->any_batch) || (!workspace && nn_plan_bytes(p)) || !input || !output) return 0;
    if (batch == 0) return 1;
    base[NN__PLAN_NONE] = NULL;
    base[NN__PLAN_CONST] = p->constants;
    base[NN__PLAN_INPUT] = (char *)(uintptr_t)input;
    base[NN__PLAN_OUTPUT] = (char *)output;
    base[NN__PLAN_TEMP] = (char *)(((uintptr_t)workspace + NN__ALIGN - 1) & ~(uintptr_t)(NN__ALIGN - 1));
    nn__plan_begin(p, &c);
    env = nn__fp_enter();
    for (i = 0; i < p->calls; i++) {
        nn__plan_prepare(p, &p->call[i], batch, base, &c);
        nn__plan_exec(p, &p->call[i], &c, base[NN__PLAN_TEMP] + p->temp_bytes);
    }
    nn__fp_leave(env);
    if (p->output.base != NN__PLAN_OUTPUT) memcpy(output, base[p->output.base] + p->output.at + p->output.at_step * batch, (size_t)batch * p->output_bytes);
    return 1;
}
NN_API int      nn_run(const nn_plan *p, void *workspace, const void *input, float *output) { return p && nn_run_batch(p, workspace, p->batch, input, output); }
NN_API size_t   nn_plan_bytes(const nn_plan *p)     { return p && p->temp_bytes + p->scratch_bytes ? p->temp_bytes + p->scratch_bytes + NN__ALIGN : 0; }
NN_API nn_shape nn_plan_output(const nn_plan *p)    { return p ? p->out_shape : nn_shape_of(NULL); }
NN_API int      nn_plan_any_batch(const nn_plan *p) { return p && p->any_batch; }
NN_API void     nn_plan_free(nn_plan *p)            { if (p) nn__raw_free(p->nn, p); }

static int nn__plan_same_stream(const nn__recording *r, const nn__recording *q)
{
    int i;
    if (r->calls != q->calls) return 0;
    for (i = 0; i < r->calls; i++) {
        const nn__recorded *a = &r->call[i], *b = &q->call[i];
        if (a->op != b->op || a->nin != b->nin || a->nout != b->nout || a->naux != b->naux || memcmp(a->params, b->params, sizeof a->params)) return 0;
    }
    return 1;
}

static size_t nn__plan_scratch(const nn_plan *p)         // the most that any batch needs
{
    char *base[NN__PLAN_BASES] = { NULL, NULL, NULL, NULL, NULL };
    size_t most = 0;
    int64_t b;
    int i;
    nn_call c;
    nn__plan_begin(p, &c);
    for (b = p->any_batch ? 1 : p->batch; b <= p->batch; b++) for (i = 0; i < p->calls; i++) {
        size_t bytes;
        nn__plan_prepare(p, &p->call[i], b, base, &c);
        bytes = nn__round_up(c.shared_bytes) + (size_t)p->threads * nn__round_up(c.task_bytes);
        if (bytes > most) most = bytes;
    }
    return most;
}

// One block holds the plan, its calls, views and constants.
static nn_plan *nn__plan_build(nn__recording *r, nn__recording *q, nn__storage *s, nn__storage *u, int parallel)
{
    nn_context *nn = r->nn;
    int n = nn__find_storages(r, s), m = nn__find_storages(q, u), i, j, calls = 0, views = 0, linear = 1;
    size_t constants = 0, head;
    nn_plan *p;
    char *at;
    if (r->refused || q->refused) return NULL;
    nn__share_places(r, s, n);
    nn__share_places(q, u, m);
    for (i = 0; i < r->calls; i++) if (r->call[i].op) { calls++; views += r->call[i].nin + r->call[i].nout + r->call[i].naux; }
    for (i = 0; i < n; i++) if (s[i].base == NN__PLAN_CONST) constants += (size_t)nn__storage_bytes_of(&s[i]);
    head = nn__round_up(sizeof *p) + nn__round_up((size_t)calls * sizeof *p->call) + nn__round_up((size_t)views * sizeof *p->view);
    at = (char *)nn__raw_alloc(nn, head + constants + NN__ALIGN);
    if (!at) { r->refused = "out of memory"; return NULL; }
    p = (nn_plan *)(void *)at;
    memset(p, 0, sizeof *p);
    p->nn = nn;
    p->batch = r->batch;
    p->threads = parallel ? nn->threads : 1;
    p->call = (nn__plan_call *)(void *)(at + nn__round_up(sizeof *p));
    p->view = (nn__plan_view *)(void *)(at + nn__round_up(sizeof *p) + nn__round_up((size_t)calls * sizeof *p->call));
    p->constants = (char *)(((uintptr_t)at + head + NN__ALIGN - 1) & ~(uintptr_t)(NN__ALIGN - 1));
    p->temp_bytes = (size_t)nn__place_temporaries(s, n);
    for (i = 0, constants = 0; i < n; i++) if (s[i].base == NN__PLAN_CONST) {
        s[i].place = (int64_t)constants;
        memcpy(p->constants + constants, s[i].low, (size_t)(s[i].high - s[i].low));
        constants += (size_t)nn__storage_bytes_of(&s[i]);
    }
    for (i = 0, views = 0; i < r->calls; i++) {
        const nn__recorded *c = &r->call[i];
        nn__plan_call *k = &p->call[p->calls];
        if (!c->op) continue;
        p->calls++;
        k->op = c->op; k->nin = c->nin; k->nout = c->nout; k->naux = c->naux; k->mode = c->mode; k->view = views;
        k->exec = c->op->id ? nn->table->forward[c->op->id] : c->op->forward;
        memcpy(k->params, c->params, sizeof k->params);
        for (j = 0; j < c->nin + c->nout + c->naux; j++, views++) {
            if (j < c->nin + c->nout) linear &= nn__plan_bind(&p->view[views], &c->v[j], &q->call[i].v[j], r, q, s, n, u, m);
            else { memset(&p->view[views], 0, sizeof *p->view); p->view[views].v.dtype = c->v[j].dtype; }
        }
    }
    linear &= nn__plan_bind(&p->output, &r->output, &q->output, r, q, s, n, u, m);
    if (!linear) { nn__raw_free(nn, p); return NULL; }   // for one batch only: the caller tries r with itself
    p->any_batch = r->batch > 1 && r != q;
    p->out_shape.ndim = r->output.ndim;
    memcpy(p->out_shape.d, r->output.shape, sizeof r->output.shape);
    p->output_bytes = (size_t)(nn_view_count(&r->output) / nn__max(1, r->batch)) * sizeof(float);
    p->scratch_bytes = nn__plan_scratch(p);
    return p;
}

NN_API nn_plan *nn_plan_new(nn_layer *net, nn_shape input, const nn_plan_desc *desc)
{
    nn_dtype dtype = desc ? desc->dtype : NN_F32;
    nn_context *nn = nn__no_layer(net) ? NULL : net->nn;
    nn__recording big, small;
    nn_shape less = input;
    nn__storage *s = NULL, *u;
    nn_plan *p = NULL;
    float *folded = NULL;
    nn__aside aside;
    size_t room = 0;
    int i, j, views = 2, same = 1;
    if (!nn || !nn_ok(nn)) return NULL;
    if (nn->backend != &nn->cpu || nn->desc.dtype != NN_F32 || nn->measuring) { nn_fail(nn, "nn_plan_new: plans are for f32 on the CPU"); return NULL; }
    if (input.ndim < 1 || input.d[0] < 1) { nn_fail(nn, "nn_plan_new: the input needs a batch dimension of at least 1"); return NULL; }
    aside = nn__aside_begin(nn);
    nn__record_net(&big, net, input, dtype);
    less.d[0] = input.d[0] > 1 ? input.d[0] - 1 : 1;
    if (nn_ok(nn) && !big.refused) { nn__record_net(&small, net, less, dtype); same = nn__plan_same_stream(&big, &small); }
    else memset(&small, 0, sizeof small);
    if (nn_ok(nn) && !big.refused && !small.refused) {
        nn__recording *twin = same ? &small : &big;
        for (i = 0; i < big.calls; i++) {
            views += big.call[i].nin + big.call[i].nout;
            if (big.call[i].nin > 2) room += (size_t)nn_view_count(&big.call[i].v[1]) + (size_t)nn__max(1, big.call[i].v[1].shape[0]);
        }
        s = (nn__storage *)nn__raw_alloc(nn, 2 * (size_t)views * sizeof *s);
        folded = (float *)nn__raw_alloc(nn, (room + 1) * sizeof *folded);
        u = s + views;
        if (!s || !folded) nn__oom(nn, room * sizeof *folded);
        else {
            for (j = 0, room = 0; j < big.calls && !(desc && desc->no_fold); j++) {
                if ((i = nn__foldable(&big, j)) < 0) continue;
                nn__fold(&big, twin, i, j, folded + room, folded + room + nn_view_count(&big.call[i].v[1]));
                room += (size_t)nn_view_count(&big.call[i].v[1]) + (size_t)big.call[i].v[1].shape[0];
            }
            nn__drop_dead(&big, twin);
            p = nn__plan_build(&big, twin, s, u, desc && desc->parallel);
            if (!p && !big.refused && !twin->refused && twin != &big) p = nn__plan_build(&big, &big, s, u, desc && desc->parallel);
        }
    }
    if (!p && nn_ok(nn)) nn_fail(nn, "nn_plan_new: this net has no plan: %s", big.refused ? big.refused : small.refused ? small.refused : "out of memory");
    nn__raw_free(nn, folded);
    nn__raw_free(nn, s);
    nn__raw_free(nn, small.call);
    nn__raw_free(nn, big.call);
    nn__aside_end(nn, &aside);
    return p;
}

static double nn__plan_macs(const nn_call *c)            // multiply-adds, where that means something
{
    double out = (double)nn_view_count(&c->out[0]);
    if (c->op->id == NN_OP_linear) return out * (double)c->in[1].shape[1];
    if (c->op->id == NN_OP_matmul) return out * (double)c->in[0].shape[c->in[0].ndim - 1];
    if (c->op->id == NN_OP_conv2d) return out * (double)nn_view_count(&c->in[1]) / (double)nn__max(1, c->in[1].shape[0]);
    if (c->op->id == NN_OP_conv_transpose2d) return (double)nn_view_count(&c->in[0]) * (double)nn_view_count(&c->in[1]) / (double)nn__max(1, c->in[1].shape[0]);
    return 0;
}

NN_API void nn_plan_print(const nn_plan *p)
{
    nn_context *nn = p ? p->nn : NULL;
    size_t in = 64, bytes;
    char *memory, *base[NN__PLAN_BASES];
    double macs = 0, seconds = 0;
    nn_call c;
    int i, j;
    if (!nn) return;
    for (i = 0; i < p->calls; i++) for (j = 0; j < p->call[i].nin; j++) {
        const nn__plan_view *v = p->view + p->call[i].view + j;
        nn_view w;
        memset(base, 0, sizeof base);
        nn__plan_fill(&w, v, p->batch, base);
        if (v->base == NN__PLAN_INPUT && in < (size_t)nn_view_count(&w) * nn_dtype_bytes((nn_dtype)w.dtype)) in = (size_t)nn_view_count(&w) * nn_dtype_bytes((nn_dtype)w.dtype);
    }
    in = nn__round_up(in);
    bytes = in + nn_plan_bytes(p) + nn__round_up((size_t)p->batch * p->output_bytes) + 2 * NN__ALIGN;
    memory = (char *)nn__raw_alloc(nn, bytes);
    if (!memory) return;
    memset(memory, 0, bytes);
    base[NN__PLAN_NONE] = NULL;
    base[NN__PLAN_CONST] = p->constants;
    base[NN__PLAN_INPUT] = (char *)(((uintptr_t)memory + NN__ALIGN - 1) & ~(uintptr_t)(NN__ALIGN - 1));
    base[NN__PLAN_OUTPUT] = base[NN__PLAN_INPUT] + in;
    base[NN__PLAN_TEMP] = base[NN__PLAN_OUTPUT] + nn__round_up((size_t)p->batch * p->output_bytes);
    nn__plan_begin(p, &c);
    nn__log(nn, "%-4s %-16s %-24s %10s %12s %10s %8s\n", "step", "op", "result", "bytes", "mult-adds", "us", "GFLOP/s");
    for (i = 0; i < p->calls; i++) {
        double took = 1e30, m;
        for (j = 0; j < 3; j++) {
            double start = nn__seconds();
            nn__plan_prepare(p, &p->call[i], p->batch, base, &c);
            nn__plan_exec(p, &p->call[i], &c, base[NN__PLAN_TEMP] + p->temp_bytes);
            if (nn__seconds() - start < took) took = nn__seconds() - start;
        }
        m = nn__plan_macs(&c);
        nn__log(nn, "%-4d %-16s %-24s %10lld %12.0f %10.2f %8.1f\n", i, c.op->name, NN__SHAPE_OF(&c.out[0]),
                (long long)(nn_view_count(&c.out[0]) * (int64_t)nn_dtype_bytes((nn_dtype)c.out[0].dtype)), m, took * 1e6, took > 0 ? 2e-9 * m / took : 0);
        macs += m;
        seconds += took;
    }
    nn__log(nn, "%d steps, %.0f multiply-adds, %.1f us, workspace %lld bytes (temporaries %lld, scratch %lld)\n", p->calls, macs, seconds * 1e6,
            (long long)nn_plan_bytes(p), (long long)p->temp_bytes, (long long)p->scratch_bytes);
    nn__raw_free(nn, memory);
}

// =============================================================================================
// >>step   A training step as a fixed program. A step runs as always while its calls are written down (nn__run is the only door to
// the numbers); if the next step makes the same calls, from then on the calls alone are repeated.
//
//     trace     every call: op, parameters, views. A view is life memory (parameters, states, statistics: they stay where they are),
//               x, y, or a part of a storage: a piece of this step's memory, known by when it was handed out
//     compare   two traces are equal where ops, parameters, shapes, addresses of life memory and places in storages are
//     layout    a storage lives from its first to its last call; those that live at different times share memory (nn__place_temporaries)
//     repeat    bind the views where memory or x or y have moved, then kernel after kernel. Only learning rates and what follows from
//               the count of steps, and the random stream's number, are computed anew
//
// What a callback of the user decides by itself is not seen here; what it reads or writes by itself (nn_item, nn_data, nn_from) is, and refused.
// =============================================================================================
enum { NN__STEP_LIFE, NN__STEP_X, NN__STEP_Y, NN__STEP_MEMORY, NN__STEP_BASES, NN__STEP_TRIES = 4, NN__STEP_OPTIMIZERS = 4,
       NN__CALL_VIEWS = 2 * (NN_MAX_INPUTS + NN_MAX_OUTPUTS) + NN_MAX_AUX };

typedef struct nn__step_call {
    nn_exec       exec;
    nn_optimizer *opt;               // an update: of that slot, its parameters are computed in every step
    int           slot, random, alone, slots;
    double        params[NN_MAX_PARAMS / sizeof(double)];
    nn_call       c;                 // its params points to the above
} nn__step_call;
typedef struct nn__step_ref { int call, view, base, storage; int64_t at; } nn__step_ref;     // at: bytes from the base, or in the storage
typedef struct nn__step_storage { const char *at; size_t bytes; int id, written; } nn__step_storage;      // id: the one that it was before it moved, or its own number

struct nn__trace {
    nn__step_call    *call;
    nn__step_ref     *ref;
    nn__step_storage *storage;
    int          calls, call_room, refs, ref_room, storages, storage_room;
    const char  *refused;            // why the step cannot be repeated
    nn_view      x, y;
    int          loss_at, norm_at;   // so many calls until the loss is known, and the norm of the gradients
    nn_optimizer *counted[NN__STEP_OPTIMIZERS];          // those whose count of steps goes up
    int          counts;
    nn_optimizer *opt;               // whose update the next call is
    int          slot;
};

struct nn_step_plan {
    nn_context       *nn;
    nn_layer         *model;
    nn_step_plan_desc d;
    nn__trace         trace, now;    // the last step that was recorded, then the program; while a step is recorded, nn->trace points to `now`
    const char       *why;           // it is not repeated; NULL: it is
    int               tries, same, at;   // same: y is x; at: the next call of this step
    unsigned          changes;       // of the context when it was recorded
    int64_t          *place;         // of each storage
    int               moving;        // so many refs, the first ones, are into x and y
    size_t            bytes, scratch, usual;             // of the memory of a step; where in it scratch begins; what a usual step used at its end
    char             *base[NN__STEP_BASES];              // where views point now
    nn_tensor         loss, scores;  // as nn_backward would have left them
};

// ---- trace --------------------------------------------------------------------------------------------
static void nn__trace_refuse(nn_context *nn, const char *why) { if (nn->trace && !nn->trace->refused) nn->trace->refused = why; }

static int nn__trace_grow(nn_context *nn, void **list, int *room, int count, size_t each)    // room for one more
{
    size_t more = *room ? 2 * (size_t)*room : 16;
    void *to;
    if (count < *room) return 1;
    to = nn__raw_alloc(nn, more * each);
    if (!to) { nn__trace_refuse(nn, "out of memory"); return 0; }
    if (count) memcpy(to, *list, (size_t)count * each);
    nn__raw_free(nn, *list);
    *list = to;
    *room = (int)more;
    return 1;
}

static int nn__trace_find(const nn__trace *t, const char *p)         // what was handed out last at an address is what is there; -1: nothing
{
    int i;
    for (i = t->storages - 1; i >= 0 && !(p >= t->storage[i].at && p < t->storage[i].at + t->storage[i].bytes); i--) { }
    return i;
}

static void nn__trace_storage(nn_context *nn, const char *at, size_t bytes, const char *from)        // memory of this step is handed out, or moved
{
    nn__trace *t = nn->trace;
    void *list = t->storage;
    int old = from ? nn__trace_find(t, from) : -1, ok = nn__trace_grow(nn, &list, &t->storage_room, t->storages, sizeof *t->storage);
    t->storage = (nn__step_storage *)list;
    if (!ok) return;
    t->storage[t->storages].at = at; t->storage[t->storages].bytes = bytes; t->storage[t->storages].written = 0;
    t->storage[t->storages].id = old >= 0 ? t->storage[old].id : t->storages;
    t->storages++;
}

static nn_view *nn__call_view(nn_call *c, int i)         // all views of a call by number
{
    if (i < NN_MAX_INPUTS) return &c->in[i];
    if ((i -= NN_MAX_INPUTS) < NN_MAX_OUTPUTS) return &c->out[i];
    if ((i -= NN_MAX_OUTPUTS) < NN_MAX_AUX) return &c->aux[i];
    if ((i -= NN_MAX_AUX) < NN_MAX_INPUTS) return &c->din[i];
    return &c->dout[i - NN_MAX_INPUTS];
}
static int nn__call_has(const nn_call *c, int i, int *writes)        // is view i in use? Is it written?
{
    int back = c->pass == NN_BACKWARD;
    if (i < NN_MAX_INPUTS) { *writes = 0; return i < c->nin; }       // also by those that change their inputs: the inputs are there before
    if ((i -= NN_MAX_INPUTS) < NN_MAX_OUTPUTS) { *writes = !back; return i < c->nout; }
    if ((i -= NN_MAX_OUTPUTS) < NN_MAX_AUX) { *writes = !back; return i < c->naux; }
    if ((i -= NN_MAX_AUX) < NN_MAX_INPUTS) { *writes = 1; return back && i < c->nin; }
    *writes = 0;
    return back && i - NN_MAX_INPUTS < c->nout;
}

static int nn__inside(const nn_view *v, const void *p)   // is p in the memory of v?
{
    const char *low, *high;
    if (nn__view_empty(v)) return 0;
    nn__view_extent(v, &low, &high);
    return (const char *)p >= low && (const char *)p < high;
}
static int nn__in_blocks(const nn__arena *a, const char *p)
{
    int i;
    for (i = 0; i < a->blocks; i++) if (p >= a->block[i].at && p < a->block[i].at + a->block[i].bytes) return 1;
    return 0;
}

// Where view number `view` of call number `call` points.
static void nn__trace_view(nn_context *nn, int call, int view, const nn_view *v, int writes)
{
    nn__trace *t = nn->trace;
    const char *p = (const char *)v->data, *low, *high;
    nn__step_ref ref;
    void *list = t->ref;
    int i, id, ok;
    if (nn__view_empty(v)) return;
    memset(&ref, 0, sizeof ref);
    ref.call = call;
    ref.view = view;
    i = nn__trace_find(t, p);
    if (i >= 0) {
        id = t->storage[i].id;
        nn__view_extent(v, &low, &high);
        if (low < t->storage[i].at || high > t->storage[i].at + t->storage[i].bytes) { nn__trace_refuse(nn, "a view leaves its storage"); return; }
        if (!writes && !t->storage[id].written) { nn__trace_refuse(nn, "it reads numbers that no op made"); return; }
        t->storage[id].written = 1;
        ref.base = NN__STEP_MEMORY;
        ref.storage = id;
        ref.at = p - t->storage[i].at;
    }
    else if (nn__inside(&t->x, p)) { ref.base = NN__STEP_X; ref.at = p - (const char *)t->x.data; }
    else if (nn__inside(&t->y, p)) { ref.base = NN__STEP_Y; ref.at = p - (const char *)t->y.data; }
    else if (nn__in_blocks(&nn->step_arena, p)) { nn__trace_refuse(nn, "it uses memory of the step that was there before"); return; }
    else return;
    if (writes && ref.base != NN__STEP_MEMORY) { nn__trace_refuse(nn, "it writes into x or y"); return; }
    ok = nn__trace_grow(nn, &list, &t->ref_room, t->refs, sizeof *t->ref);
    t->ref = (nn__step_ref *)list;
    if (ok) t->ref[t->refs++] = ref;
}

static void nn__trace_call(nn_context *nn, const nn_call *c)
{
    nn__trace *t = nn->trace;
    nn__step_call *k;
    void *list = t->call;
    int i, pass, writes, ok;
    if ((c->op->flags & NN_OP_RANDOM) && c->step != nn->random_step) nn__trace_refuse(nn, "it draws random numbers of its own");
    if (c->params && c->op->params_bytes > NN_MAX_PARAMS) nn__trace_refuse(nn, "an op has too many parameters");
    if (t->refused) return;
    ok = nn__trace_grow(nn, &list, &t->call_room, t->calls, sizeof *t->call);
    t->call = (nn__step_call *)list;
    if (!ok) return;
    k = &t->call[t->calls];
    memset(k, 0, sizeof *k);
    k->c.op = c->op; k->c.nn = nn; k->c.pass = c->pass; k->c.nin = c->nin; k->c.nout = c->nout; k->c.naux = c->naux; k->c.mode = c->mode; k->c.add = c->add;
    k->c.ordinal = c->ordinal;
    k->c.params = c->params;
    if (c->params) memcpy(k->params, c->params, c->op->params_bytes);
    k->opt = t->opt;
    k->slot = t->slot;
    t->opt = NULL;
    t->slot = 0;
    if (c->op->id) k->exec = c->pass == NN_FORWARD ? nn->table->forward[c->op->id] : nn->table->backward[c->op->id];
    else           k->exec = c->pass == NN_FORWARD ? c->op->forward : c->op->backward;
    if (!k->exec) nn__trace_refuse(nn, "an op has no kernel");
    for (pass = 0; pass < 2; pass++)                     // what is read, then what is written
        for (i = 0; i < NN__CALL_VIEWS; i++) {
            nn_view *v = nn__call_view((nn_call *)(uintptr_t)c, i), *to = nn__call_view(&k->c, i);
            if (!nn__call_has(c, i, &writes) || writes != pass) continue;
            to->data = v->data;
            to->ndim = v->ndim;
            to->dtype = v->dtype;
            memcpy(to->shape, v->shape, (size_t)v->ndim * sizeof *v->shape);
            memcpy(to->stride, v->stride, (size_t)v->ndim * sizeof *v->stride);
            nn__trace_view(nn, t->calls, i, v, writes);
        }
    t->calls++;
}

static void nn__trace_update(nn_context *nn, nn_optimizer *opt, int slot) { if (nn->trace) { nn->trace->opt = opt; nn->trace->slot = slot; } }
static void nn__trace_count(nn_optimizer *opt)
{
    nn__trace *t = opt->nn->trace;
    if (!t) return;
    if (t->counts == NN__STEP_OPTIMIZERS) nn__trace_refuse(opt->nn, "it uses too many optimizers");
    else t->counted[t->counts++] = opt;
}
static void nn__trace_norm(nn_context *nn) { if (nn->trace) nn->trace->norm_at = nn->trace->calls; }

static void nn__trace_free(nn_context *nn, nn__trace *t)
{
    nn__raw_free(nn, t->call);
    nn__raw_free(nn, t->ref);
    nn__raw_free(nn, t->storage);
    memset(t, 0, sizeof *t);
}

// ---- compare ------------------------------------------------------------------------------------------
static int nn__same_refs(const nn__trace *a, const nn__trace *b)     // and no view differs but by them
{
    int i, j, writes;
    if (a->refs != b->refs || (a->refs && memcmp(a->ref, b->ref, (size_t)a->refs * sizeof *a->ref))) return 0;
    for (i = 0; i < a->refs; i++) if (a->ref[i].call < a->calls) {
        nn__call_view(&a->call[a->ref[i].call].c, a->ref[i].view)->data = NULL;
        nn__call_view(&b->call[b->ref[i].call].c, b->ref[i].view)->data = NULL;
    }
    for (i = 0; i < a->calls; i++) for (j = 0; j < NN__CALL_VIEWS; j++) {
        const nn_view *v = nn__call_view(&a->call[i].c, j), *w = nn__call_view(&b->call[i].c, j);
        if (!nn__call_has(&a->call[i].c, j, &writes)) continue;
        if (v->dtype != w->dtype || !nn__same_sizes(v->ndim, v->shape, w->ndim, w->shape) || memcmp(v->stride, w->stride, (size_t)v->ndim * sizeof *v->stride)) return 0;
        if (v->data != w->data && nn_view_count(v)) return 0;
    }
    return 1;
}
static int nn__same_traces(const nn__trace *a, const nn__trace *b)
{
    int i;
    if (a->calls != b->calls || a->loss_at != b->loss_at || a->norm_at != b->norm_at || a->counts != b->counts || a->storages != b->storages) return 0;
    for (i = 0; i < a->counts; i++) if (a->counted[i] != b->counted[i]) return 0;
    for (i = 0; i < a->storages; i++) if (a->storage[i].bytes != b->storage[i].bytes) return 0;
    for (i = 0; i < a->calls; i++) {
        const nn__step_call *p = &a->call[i], *q = &b->call[i];
        if (p->c.op != q->c.op || p->c.pass != q->c.pass || p->c.nin != q->c.nin || p->c.nout != q->c.nout || p->c.naux != q->c.naux) return 0;
        if (p->c.mode != q->c.mode || p->c.add != q->c.add || p->c.ordinal != q->c.ordinal || !p->c.params != !q->c.params) return 0;
        if (p->opt != q->opt || p->slot != q->slot || (!p->opt && memcmp(p->params, q->params, sizeof p->params))) return 0;
    }
    return nn__same_refs(a, b);
}

// ---- layout -------------------------------------------------------------------------------------------
enum { NN__REF_LOSS = 0, NN__REF_SCORES = 1 };           // views of the results: refs of the call behind the last

static int nn__by_base(const void *a, const void *b)     // x and y first; else as they were
{
    const nn__step_ref *p = (const nn__step_ref *)a, *q = (const nn__step_ref *)b;
    int m = p->base == NN__STEP_MEMORY, n = q->base == NN__STEP_MEMORY;
    return m != n ? m - n : p->call != q->call ? p->call - q->call : p->view - q->view;
}

static void nn__step_point(nn_step_plan *p, const nn__step_ref *r)
{
    char *to = p->base[r->base] + r->at + (r->base == NN__STEP_MEMORY ? p->place[r->storage] : 0);
    if (r->call < p->trace.calls) nn__call_view(&p->trace.call[r->call].c, r->view)->data = to;
    else (r->view == NN__REF_LOSS ? &p->loss : &p->scores)->data = to;
}

static void nn__step_cut(nn_step_plan *p, nn__step_call *k, size_t *scratch)         // how the work of a call is cut: once, as it depends on shapes only
{
    nn_context *nn = p->nn;
    nn_call *c = &k->c;
    int64_t most = 1;
    int i;
    size_t bytes;
    if (c->params) c->params = k->params;
    k->random = (c->op->flags & NN_OP_RANDOM) != 0;
    c->phases = 1;
    c->tasks[0] = 1;
    if (c->op->plan) c->op->plan(c);
    for (i = 0; i < c->phases; i++) most = nn__max(most, c->tasks[i]);
    k->alone = nn->threads == 1 || most < 2 || nn__is_small(c);
    k->slots = k->alone ? 1 : (int)nn__min(nn->threads, most);
    bytes = nn__round_up(c->shared_bytes) + (size_t)k->slots * nn__round_up(c->task_bytes);
    if (bytes > *scratch) *scratch = bytes;
}

static int nn__step_build(nn_step_plan *p)               // the trace becomes the program; 0: out of memory
{
    nn_context *nn = p->nn;
    nn__trace *t = &p->trace;
    nn__storage *s = (nn__storage *)nn__raw_alloc(nn, (size_t)(t->storages + 1) * sizeof *s);
    size_t scratch = 0;
    int i;
    p->place = (int64_t *)nn__raw_alloc(nn, (size_t)(t->storages + 1) * sizeof *p->place);
    if (!s || !p->place) { nn__raw_free(nn, s); return 0; }
    memset(s, 0, (size_t)(t->storages + 1) * sizeof *s);
    for (i = 0; i < t->storages; i++) {
        s[i].low = t->storage[i].at;
        s[i].high = s[i].low + t->storage[i].bytes;
        s[i].base = NN__PLAN_NONE;
        s[i].into = -1;
    }
    for (i = 0; i < t->refs; i++) if (t->ref[i].base == NN__STEP_MEMORY) {
        nn__storage *one = &s[t->ref[i].storage];
        if (one->base == NN__PLAN_NONE) { one->base = NN__PLAN_TEMP; one->first = t->ref[i].call; }
        if (t->ref[i].call < one->first) one->first = t->ref[i].call;
        if (t->ref[i].call > one->last) one->last = t->ref[i].call;
    }
    p->scratch = (size_t)nn__place_temporaries(s, t->storages);
    for (i = 0; i < t->storages; i++) p->place[i] = s[i].place;
    nn__raw_free(nn, s);
    qsort(t->ref, (size_t)t->refs, sizeof *t->ref, nn__by_base);
    for (p->moving = 0; p->moving < t->refs && t->ref[p->moving].base != NN__STEP_MEMORY; p->moving++) { }
    for (i = 0; i < NN__STEP_BASES; i++) p->base[i] = (char *)&p->loss;              // anything but NULL, to be replaced by the first run
    for (i = 0; i < t->refs; i++) nn__step_point(p, &t->ref[i]);
    for (i = 0; i < t->calls; i++) nn__step_cut(p, &t->call[i], &scratch);
    p->bytes = p->scratch + scratch;
    return 1;
}

// ---- recording a step -----------------------------------------------------------------------------------
static void nn__step_forget(nn_step_plan *p)
{
    if (p->nn->trace == &p->now) p->nn->trace = NULL;
    nn__trace_free(p->nn, &p->now);
    nn__trace_free(p->nn, &p->trace);
    nn__raw_free(p->nn, p->place);
    p->place = NULL;
    p->tries = 0;
    p->why = "no step was recorded yet";
}

static int nn__step_fits(const nn_step_plan *p, const nn_tensor *x, const nn_tensor *y)      // are x and y like those that were recorded?
{
    const nn_tensor *t[2];
    const nn_view *v[2];
    int i;
    t[0] = x; t[1] = y;
    v[0] = &p->trace.x; v[1] = &p->trace.y;
    if ((x == y) != p->same) return 0;
    for (i = 0; i < 2; i++)
        if (t[i] ? t[i]->dtype != v[i]->dtype || !nn__same_sizes(t[i]->ndim, t[i]->shape, v[i]->ndim, v[i]->shape) || memcmp(t[i]->stride, v[i]->stride, (size_t)v[i]->ndim * sizeof *v[i]->stride)
                 : v[i]->data != NULL) return 0;
    return 1;
}

// May the step that has begun be recorded? Then its calls are, until nn__step_recorded.
static int nn__step_record(nn_step_plan *p, const nn_tensor *x, const nn_tensor *y)
{
    nn_context *nn = p->nn;
    nn__trace *t = &p->now;
    const char *low, *high, *l, *h;
    if (nn->buffer || nn->backend != &nn->cpu || nn->measuring) { p->why = "plans of steps need the CPU and the heap"; return 0; }
    if (p->tries == NN__STEP_TRIES || nn->trace || nn->hold || nn__dead(x) || !p->why) return 0;
    if (p->tries && !nn__step_fits(p, x, y)) return 0;   // a batch of another size in between
    nn__trace_free(nn, t);
    t->x = nn__view_of(x);
    t->y = nn__view_of(y);
    p->same = x == y;
    nn->trace = t;
    if (y && !p->same) {
        nn__view_extent(&t->x, &low, &high);
        nn__view_extent(&t->y, &l, &h);
        if (low < h && l < high) nn__trace_refuse(nn, "x and y share memory");
    }
    return 1;
}
static void nn__step_loss_known(nn_step_plan *p) { p->now.loss_at = p->now.calls; }
static void nn__step_pause(nn_step_plan *p, int on) { p->nn->trace = on ? NULL : &p->now; }           // what is done meanwhile is no part of the step

static void nn__step_result(nn_tensor *to, const nn_tensor *from)
{
    memset(to, 0, sizeof *to);
    if (nn__dead(from)) return;
    *to = *from;
    to->base = to;
    to->grad = NULL;
    to->node = NULL;
    to->flags = 0;
}

static void nn__step_recorded(nn_step_plan *p, const nn_tensor *loss, const nn_tensor *scores)
{
    nn_context *nn = p->nn;
    nn__trace *t = &p->now;
    int same, i;
    nn->trace = t;
    for (i = 0; i < 2; i++) {
        const nn_tensor *r = i == NN__REF_LOSS ? loss : scores;
        nn_view v = nn__view_of(r);
        if (nn__dead(r)) continue;
        if (r->flags & NN__T_RELEASED) nn__trace_refuse(nn, "its result has been released");
        nn__trace_view(nn, t->calls, i, &v, 0);
    }
    nn->trace = NULL;
    p->tries++;
    if (t->refused || !nn_ok(nn)) {
        p->why = t->refused ? t->refused : "it failed";
        p->tries = NN__STEP_TRIES;
        nn__trace_free(nn, t);
        nn__trace_free(nn, &p->trace);
        return;
    }
    same = p->tries > 1 && p->changes == nn->changes && nn__same_traces(&p->trace, t);
    nn__trace_free(nn, &p->trace);
    p->trace = *t;
    memset(t, 0, sizeof *t);
    p->changes = nn->changes;
    p->why = p->tries == NN__STEP_TRIES ? "no two steps made the same calls" : "only one step was recorded yet";
    if (!same) return;
    p->usual = nn->step_arena.used;
    nn__step_result(&p->loss, loss);
    nn__step_result(&p->scores, scores);
    if (nn__step_build(p)) p->why = NULL;
    else { p->why = "out of memory"; p->tries = NN__STEP_TRIES; }
}

// ---- repeat -------------------------------------------------------------------------------------------
// Can the next step be the program? Parameters must not hold gradients of an earlier step, which it would add to.
static int nn__step_ready(nn_step_plan *p, const nn_tensor *x, const nn_tensor *y)
{
    nn_context *nn = p->nn;
    int i, j;
    if (p->why || nn->measuring || nn->trace || nn->hold || !nn__step_fits(p, x, y)) return 0;
    if (p->changes != nn->changes) { nn__step_forget(p); return 0; }
    for (i = 0; i < p->trace.counts; i++) for (j = 0; j < p->trace.counted[i]->slots; j++)
        if (p->trace.counted[i]->slot[j].p->flags & NN__T_GRAD_SET) return 0;
    return 1;
}

static int nn__step_start(nn_step_plan *p, const nn_tensor *x, const nn_tensor *y)   // 0 after an error
{
    nn_context *nn = p->nn;
    char *memory;
    int i, from;
    nn_begin(nn, NN_TRAIN);
    if (!nn__check(nn, x, "nn_step_plan_run") || (y && !nn__check(nn, y, "nn_step_plan_run"))) return 0;
    nn->step_extra = nn__round_up(p->bytes);             // what nn_fit does in the middle of a step was counted when it was recorded
    memory = (char *)nn__arena_alloc(&nn->step_arena, p->bytes, 1);
    if (!memory) return 0;
    from = memory == p->base[NN__STEP_MEMORY] ? p->moving : p->trace.refs;
    if (from > p->moving || x->data != p->base[NN__STEP_X] || (y && y->data != p->base[NN__STEP_Y])) {
        p->base[NN__STEP_X] = (char *)x->data;
        p->base[NN__STEP_Y] = y ? (char *)y->data : NULL;
        p->base[NN__STEP_MEMORY] = memory;
        for (i = 0; i < from; i++) nn__step_point(p, &p->trace.ref[i]);
        for (i = 0; i < p->trace.calls; i++) p->trace.call[i].c.shared = memory + p->scratch;
    }
    p->loss.step = p->scores.step = nn->step;
    p->at = 0;
    for (i = 0; i < p->trace.counts; i++) p->trace.counted[i]->steps++;
    return 1;
}

static void nn__step_exec(nn_context *nn, nn__step_call *k)
{
    nn_call *c = &k->c;
    char *scratch = (char *)c->shared + nn__round_up(c->shared_bytes);
    nn__job j;
    if (nn->profile && nn->profile->on) {
        nn_call again = *c;
        again.phases = 1;
        again.tasks[0] = 1;
        again.cost = 0;
        again.shared_bytes = again.task_bytes = 0;
        nn__run(nn, &again);
        return;
    }
    if (k->alone) { nn__run_alone(c, k->exec, scratch); return; }
    j.c = c; j.exec = k->exec; j.slots = k->slots; j.scratch = scratch;
    for (j.phase = 0; j.phase < c->phases; j.phase++) nn__run_phase(nn, &j);
}

// The parameters of an update; those of the update before it where group and count are the same.
static void nn__step_update(nn__step_call *k, const nn__step_call *before)
{
    nn__slot *s = &k->opt->slot[k->slot], *t = before ? &before->opt->slot[before->slot] : NULL;
    nn__update_params u;
    s->steps++;
    if (t && before->opt == k->opt && t->group == s->group && t->steps == s->steps) { memcpy(k->params, before->params, sizeof u); return; }
    u = nn__update_of(k->opt, s);
    memcpy(k->params, &u, sizeof u);
}

static void nn__step_run(nn_step_plan *p, int to)        // the calls before number `to` that have not run yet
{
    nn_context *nn = p->nn;
    const nn__step_call *update = NULL;
    nn__fpenv env = nn__fp_enter();
    for (; p->at < to; p->at++) {
        nn__step_call *k = &p->trace.call[p->at];
        if (k->opt) { nn__step_update(k, update); update = k; }
        if (k->random) { k->c.step = nn->random_step; k->c.seed = nn->seed; }
        nn__step_exec(nn, k);
    }
    nn__fp_leave(env);
}
static nn_tensor *nn__step_to_loss(nn_step_plan *p, nn_tensor **scores)
{
    nn__step_run(p, p->trace.loss_at);
    *scores = p->scores.nn ? &p->scores : NULL;
    return &p->loss;
}
static void nn__step_to_norm(nn_step_plan *p) { nn__step_run(p, p->trace.norm_at); }
static void nn__step_to_end(nn_step_plan *p)
{
    nn__step_run(p, p->trace.calls);
    p->nn->step_extra = nn__round_up(p->bytes) - p->usual;
}

// ---- the public functions -------------------------------------------------------------------------------
static nn_step_plan *nn__step_plan_make(nn_layer *model)
{
    nn_step_plan *p = (nn_step_plan *)nn__raw_alloc(model->nn, sizeof *p);
    if (!p) return NULL;
    memset(p, 0, sizeof *p);
    p->nn = model->nn;
    p->model = model;
    nn__step_forget(p);
    return p;
}
static void nn__step_plan_drop(nn_step_plan *p)
{
    if (!p) return;
    nn__step_forget(p);
    nn__raw_free(p->nn, p);
}
NN_API nn_step_plan *nn_step_plan_new(nn_layer *model, const nn_step_plan_desc *desc)
{
    nn_context *nn = nn__no_layer(model) ? NULL : model->nn;
    nn_step_plan *p;
    if (!nn_ok(nn)) return NULL;
    if (!desc || (!desc->step && (!desc->loss || !desc->optimizer))) { nn_fail(nn, "nn_step_plan_new: give .loss and .optimizer, or .step"); return NULL; }
    if (desc->optimizer && desc->optimizer->nn != nn) { nn_fail(nn, "nn_step_plan_new: the optimizer belongs to another context"); return NULL; }
    p = nn__step_plan_make(model);
    if (p) p->d = *desc;
    else nn_fail(nn, "nn_step_plan_new: out of memory");
    return p;
}

static nn_tensor *nn__step_eagerly(nn_step_plan *p, nn_tensor *x, nn_tensor *y, nn_tensor **scores)
{
    nn_backward_desc back;
    nn_tensor *loss;
    *scores = NULL;
    if (p->d.step) return p->d.step(p->d.user, x, y);
    memset(&back, 0, sizeof back);
    back.step = p->d.optimizer;
    *scores = nn_forward(p->model, x);
    loss = p->d.loss(*scores, y ? y : x, p->d.loss_desc);
    nn_backward_with(loss, &back);
    return loss;
}

NN_API nn_tensor *nn_step_plan_run(nn_step_plan *plan, nn_tensor *x, nn_tensor *y)
{
    nn_context *nn = plan ? plan->nn : NULL;
    nn_tensor *loss, *scores;
    int traced;
    if (!nn_ok(nn) || !nn__check(nn, x, "nn_step_plan_run") || (y && !nn__check(nn, y, "nn_step_plan_run"))) return nn__inert(nn);
    if (nn__step_ready(plan, x, y)) {
        if (!nn__step_start(plan, x, y)) return nn__inert(nn);
        nn__step_to_end(plan);
        return &plan->loss;
    }
    nn_begin(nn, NN_TRAIN);
    traced = nn__step_record(plan, x, y);
    loss = nn__step_eagerly(plan, x, y, &scores);
    if (traced) nn__step_recorded(plan, loss, scores);
    return loss ? loss : nn__inert(nn);
}

NN_API void        nn_step_plan_free(nn_step_plan *plan)      { nn__step_plan_drop(plan); }
NN_API const char *nn_step_plan_why(const nn_step_plan *plan) { return plan ? plan->why : "no plan"; }
NN_API size_t      nn_step_plan_bytes(const nn_step_plan *plan) { return plan && !plan->why ? plan->bytes : 0; }
NN_API int         nn_step_plan_calls(const nn_step_plan *plan) { return plan && !plan->why ? plan->trace.calls : 0; }

// =============================================================================================
// >>passes   How one text becomes many kernels: this file includes itself, once per visit, with a few words set differently.
// The visits end at the #else of `#ifndef NN__VISIT` at the top, so they see only >>words and >>ops:
//
//   HOST    shape rules, plans, builders, once              PLAIN   kernels that move data, once, plain C
//   SIMD    kernels that compute, once per instruction set  f64     all kernels in double precision (NN_DOUBLE)
//
// Two classes of results (bit for bit the same within a class): F = fma, avx2, avx512, neon, rvv; N = scalar, wasm, and all
// PLAIN kernels.
// Under NN_DETERMINISTIC nothing fuses, and the classes are one.
// =============================================================================================
// Short words are macros within the visits only. Should the program have macros of these names, they are put aside and come back.
#if defined(__GNUC__) || defined(_MSC_VER)
#pragma push_macro("A")
#pragma push_macro("ABS")
#pragma push_macro("B")
#pragma push_macro("BITS")
#pragma push_macro("C")
#pragma push_macro("COS")
#pragma push_macro("ERF")
#pragma push_macro("EXP")
#pragma push_macro("EXPM1")
#pragma push_macro("FLOATS")
#pragma push_macro("FLOOR")
#pragma push_macro("FMA")
#pragma push_macro("GELU_TANH_GRAD")
#pragma push_macro("ISET1")
#pragma push_macro("LOAD")
#pragma push_macro("LOG")
#pragma push_macro("LOG1P")
#pragma push_macro("MISH_GRAD")
#pragma push_macro("POW")
#pragma push_macro("R")
#pragma push_macro("ROUND")
#pragma push_macro("SEL")
#pragma push_macro("SET1")
#pragma push_macro("SHL")
#pragma push_macro("SIGMOID")
#pragma push_macro("SIN")
#pragma push_macro("SOFTPLUS")
#pragma push_macro("SQRT")
#pragma push_macro("STORE")
#pragma push_macro("TANH")
#pragma push_macro("V")
#pragma push_macro("VI")
#pragma push_macro("X")
#pragma push_macro("Y")
#endif
#undef A
#undef ABS
#undef B
#undef BITS
#undef C
#undef COS
#undef ERF
#undef EXP
#undef EXPM1
#undef FLOATS
#undef FLOOR
#undef FMA
#undef GELU_TANH_GRAD
#undef ISET1
#undef LOAD
#undef LOG
#undef LOG1P
#undef MISH_GRAD
#undef POW
#undef R
#undef ROUND
#undef SEL
#undef SET1
#undef SHL
#undef SIGMOID
#undef SIN
#undef SOFTPLUS
#undef SQRT
#undef STORE
#undef TANH
#undef V
#undef VI
#undef X
#undef Y

typedef char nn__no_params;
typedef int  nn__int;
typedef struct nn__scalars       { float p, q; } nn__scalars;
typedef struct nn__reduce_params { unsigned mask; int keepdim; double scale, p; } nn__reduce_params;
typedef struct nn__slice_params  { int dim; int64_t start, step, count; } nn__slice_params;
typedef struct nn__sort_params   { int dim, descending; int64_t k; } nn__sort_params;
typedef struct nn__pad_params    { int mode; double value; int64_t left[NN_MAX_DIMS], right[NN_MAX_DIMS]; } nn__pad_params;
typedef struct nn__range_params  { double start, step, end; } nn__range_params;
typedef struct nn__norm_params   { int dims, groups, batch; float eps, momentum; } nn__norm_params;
typedef struct nn__dropout_params { float p; int64_t run; } nn__dropout_params;
// Pairs are (height, width); 1-d forms have height 1. `name` is what messages call the op.
typedef struct nn__conv_params   { const char *name; int64_t groups, stride[2], pad[2], dilation[2], extra[2]; int same; } nn__conv_params;
typedef struct nn__pool_params   { const char *name; int64_t kernel[2], stride[2], pad[2], dilation[2], size[2]; int adaptive, ceil_mode, exclude_pad; } nn__pool_params;
typedef struct nn__upsample_params { int64_t size[2]; int bilinear, align_corners; } nn__upsample_params;
typedef struct nn__loss_params   { int reduction; int64_t ignore; double smoothing, p; } nn__loss_params;   // p: margin, delta or temperature

// -- the host visit --
#define NN__VISIT    0
#define NN__IN_HOST  1
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  0
#define NN__REAL     float
#define NN__LANES    1
#define NN__PASS     host
#include NN_HEADER_FILENAME

// -- the kernels: everything below is compiled without contraction, the vector passes in a target region of their own --
NN__FLOAT_BEGIN
// -- two words need more than float arithmetic: one lane at a time, in double without fusing, so their bits are the same everywhere --
// x mod pi/2 for |x| >= 2^15 (Payne & Hanek 1983): x = m 2^e; only the bits of 2/pi that leave a result below 4 are multiplied.
NN__UNUSED static float nn__reduce_angle(float x, int32_t *quarter)
{
    static const uint32_t two_over_pi[8] = { 0, 0xA2F9836Eu, 0x4E441529u, 0xFC2757D1u, 0xF534DDC0u, 0xDB629599u, 0x3C439041u, 0xFE5163ABu };
    uint32_t b, w[3];
    uint64_t m, p;
    int e, i, q;
    double f;
    memcpy(&b, &x, 4);
    if ((b & 0x7F800000u) == 0x7F800000u) { *quarter = 0; return (float)NAN; }
    m = (b & 0x7FFFFFu) | 0x800000u;
    e = (int)(b >> 23 & 255) - 150 + 30;                 // bit position of the first needed word, from 32 bits before the point
    q = e / 32;
    for (i = 0; i < 3; i++) {
        uint64_t two = ((uint64_t)two_over_pi[q + i] << 32) | two_over_pi[q + i + 1];
        w[i] = (uint32_t)(two >> (32 - e % 32));
    }
    p = (m * w[0] << 32) + m * w[1] + (m * w[2] >> 32);  // x 2/pi mod 4, with 62 bits after the point
    *quarter = (int32_t)((p + (1ull << 61)) >> 62);
    p -= (uint64_t)(unsigned)*quarter << 62;
    f = (double)(int64_t)p * (1.57079632679489661923 / 4611686018427387904.0);
    if (b >> 31) { f = -f; *quarter = -*quarter; }
    return (float)f;
}

// x^y = 2^n e^r from log x = e ln 2 + 2 atanh((m - 1) / (m + 1)); special cases as C's pow.
NN__UNUSED static float nn__pow_one(float x, float y)
{
    double a = fabs((double)x), s, z, l, r, p;
    uint64_t bits;
    int64_t e, n;
    int i, integer = floor((double)y) == (double)y, odd = integer && fabs((double)y) < 16777216.0 && ((int64_t)y & 1);
    if (y == 0 || x == 1) return 1;
    if (x != x || y != y) return x + y;
    if (x < 0 && !integer && a < (double)INFINITY) return (float)NAN;
    if (a == 0 || a == (double)INFINITY) {
        r = (a == 0) == (y > 0) ? 0 : (double)INFINITY;
        return (float)(odd && signbit(x) ? -r : r);
    }
    if (a == 1) return x < 0 && odd ? -1.0f : 1.0f;
    if (fabs((double)y) == (double)INFINITY) return (a > 1) == (y > 0) ? (float)INFINITY : 0.0f;
    memcpy(&bits, &a, 8);
    e = (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0xFFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
    memcpy(&a, &bits, 8);
    if (a > 1.41421356237309504880) { a *= 0.5; e++; }
    s = (a - 1) / (a + 1);
    z = s * s;
    for (i = 21, p = 0; i >= 3; i -= 2) p = (p + 1.0 / i) * z;
    l = ((double)e * 0.69314718055994530942 + 2 * s * (1 + p)) * (double)y;
    if (l > 89) return x < 0 && odd ? -(float)INFINITY : (float)INFINITY;
    if (l < -105) return x < 0 && odd ? -0.0f : 0.0f;
    n = (int64_t)floor(l * 1.44269504088896340736 + 0.5);
    r = l - (double)n * 0.69314718055994530942;
    for (i = 13, p = 1; i >= 1; i--) p = 1 + p * r / i;
    bits = (uint64_t)(n + 1023) << 52;
    memcpy(&s, &bits, 8);
    return (float)(x < 0 && odd ? -p * s : p * s);
}

#define NN__VISIT    1
#define NN__IN_HOST  0
#define NN__IN_PLAIN 1
#define NN__IN_SIMD  0
#define NN__REAL     float
#define NN__LANES    1
#define NN__PASS     f32
#include NN_HEADER_FILENAME

// Which tables there are. RISC-V and WASM have no attribute for one function: there the program is compiled for vectors, or not.
#define NN__HAVE_X86  0
#define NN__HAVE_NEON 0
#define NN__HAVE_RVV  0
#define NN__HAVE_WASM 0
#if !defined(NN_NO_SIMD) && defined(NN__TARGET_BEGIN)
#  if defined(__x86_64__)
#    undef  NN__HAVE_X86
#    define NN__HAVE_X86 1
#  elif defined(__aarch64__) && defined(__AARCH64EL__)
#    undef  NN__HAVE_NEON
#    define NN__HAVE_NEON 1
#  elif defined(__riscv_vector) && defined(__clang__)    // -march=rv64gcv; GCC 12 has no vectors for RISC-V
#    if __has_builtin(__builtin_elementwise_fma) && __has_builtin(__builtin_elementwise_sqrt)
#      undef  NN__HAVE_RVV
#      define NN__HAVE_RVV 1
#    endif
#  elif defined(__wasm_simd128__) && defined(__clang__)  // -msimd128
#    undef  NN__HAVE_WASM
#    define NN__HAVE_WASM 1
#  endif
#endif
#define NN__HAVE_SIMD (NN__HAVE_X86 || NN__HAVE_NEON || NN__HAVE_RVV || NN__HAVE_WASM)

#if NN__HAVE_SIMD
NN__SIMPLE_BEGIN
#endif
#define NN__VISIT    2
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    1
#define NN__PASS     scalar
#include NN_HEADER_FILENAME
#if NN__HAVE_SIMD
NN__SIMPLE_END
#endif

#ifdef NN_DOUBLE
#define NN__VISIT    3
#define NN__IN_HOST  0
#define NN__IN_PLAIN 1
#define NN__IN_SIMD  1
#define NN__REAL     double
#define NN__IS_F64   1
#define NN__LANES    1
#define NN__PASS     f64
#include NN_HEADER_FILENAME
#endif

#if NN__HAVE_X86 && defined(NN_DOUBLE)                   // one lane, but fused: the plain-C twin of class F, for the tests
NN__TARGET_BEGIN("fma")
#define NN__VISIT    4
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    1
#define NN__PASS     fma
#define NN__FMA(a, b, c) __builtin_fmaf(a, b, c)
#include NN_HEADER_FILENAME
NN__TARGET_END
#endif

#if NN__HAVE_X86 && !defined(NN_NO_AVX2)
NN__TARGET_BEGIN("avx2,fma")
#define NN__VISIT    5
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    8
#define NN__MR       6
#define NN__PASS     avx2
#define NN__FMA(a, b, c) ((V)_mm256_fmadd_ps((__m256)(a), (__m256)(b), (__m256)(c)))
#define NN__SQRT(a)      ((V)_mm256_sqrt_ps((__m256)(a)))
#define NN__MUL32(a, b)  _mm256_mul_epu32((__m256i)(a), (__m256i)(b))
#define NN__GET_PART(p, n)    ((V)_mm256_maskload_ps(p, (__m256i)(NN__K(count_up)(0) < (int32_t)(n))))     // n lanes, the rest 0
#define NN__PUT_PART(p, v, n) _mm256_maskstore_ps(p, (__m256i)(NN__K(count_up)(0) < (int32_t)(n)), (__m256)(v))
#include NN_HEADER_FILENAME
NN__TARGET_END
#endif

#if NN__HAVE_X86 && !defined(NN_NO_AVX512)
NN__TARGET_BEGIN("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#define NN__VISIT    6
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    16
#define NN__MR       12
#define NN__TALL     14
#define NN__PASS     avx512
#define NN__FMA(a, b, c) ((V)_mm512_fmadd_ps((__m512)(a), (__m512)(b), (__m512)(c)))
#define NN__SQRT(a)      ((V)_mm512_maskz_sqrt_ps((__mmask16)0xFFFF, (__m512)(a)))  // the unmasked one warns inside GCC 12's own header
#define NN__MUL32(a, b)  _mm512_maskz_mul_epu32((__mmask8)0xFF, (__m512i)(a), (__m512i)(b))
#define NN__GET_PART(p, n)    ((V)_mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1u), p))
#define NN__PUT_PART(p, v, n) _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1u), (__m512)(v))
#include NN_HEADER_FILENAME
NN__TARGET_END
#endif

#if NN__HAVE_NEON
#define NN__VISIT    7
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    4
#define NN__MR       8
#define NN__PASS     neon
#define NN__FMA(a, b, c) ((V)vfmaq_f32((float32x4_t)(c), (float32x4_t)(a), (float32x4_t)(b)))
#define NN__SQRT(a)      ((V)vsqrtq_f32((float32x4_t)(a)))
#define NN__MUL32(a, b)  vmull_u32(vmovn_u64((uint64x2_t)(a)), vmovn_u64((uint64x2_t)(b)))
#include NN_HEADER_FILENAME
#endif

#if NN__HAVE_RVV
#define NN__VISIT    8
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    4
#define NN__MR       8
#define NN__PASS     rvv
#define NN__FMA(a, b, c) __builtin_elementwise_fma(a, b, c)
#define NN__SQRT(a)      __builtin_elementwise_sqrt(a)
#include NN_HEADER_FILENAME
#endif

#if NN__HAVE_WASM                                        // cannot fuse: class N
#define NN__VISIT    9
#define NN__IN_HOST  0
#define NN__IN_PLAIN 0
#define NN__IN_SIMD  1
#define NN__REAL     float
#define NN__LANES    4
#define NN__MR       8
#define NN__PASS     wasm
#define NN__SQRT(a)      ((V)wasm_f32x4_sqrt((v128_t)(a)))
#include NN_HEADER_FILENAME
#endif
NN__FLOAT_END

// -- the tables --
#define NN__ROW_OP(name, keep, f, df) \
    { #name, 1, 1, NN_OP_STRIDED | NN_OP_ASSIGNS | NN_OP_IN_PLACE, (unsigned)(keep) | NN_KEEP_NONE, NULL, nn__each_plan, NULL, NULL, NN_OP_##name, sizeof(nn__scalars) },
#define NN__ROW_OP2(name, keep, f, da, db) \
    { #name, 2, 1, NN_OP_STRIDED | NN_OP_ASSIGNS | NN_OP_ALL_INPUTS | NN_OP_IN_PLACE, (unsigned)(keep) | NN_KEEP_NONE, nn__broadcast_shape, \
      nn__binary_plan, NULL, NULL, NN_OP_##name, sizeof(nn__no_params) },
#define NN__NO_GRAD_SIMD         0
#define NN__NO_GRAD_PLAIN        0
#define NN__NO_GRAD_VIEW         0
#define NN__NO_GRAD_SIMD_FORWARD  NN_OP_NO_GRAD
#define NN__NO_GRAD_PLAIN_FORWARD NN_OP_NO_GRAD
#define NN__ROW_OPS(name, kind, in, out, flags, keep, shape, plan, params) \
    { #name, in, out, (flags) | NN__NO_GRAD_##kind, keep, shape, plan, NULL, NULL, NN_OP_##name, sizeof(params) },
#define X NN_KEEP_IN(0)
#define Y NN_KEEP_OUT(0)
#define A NN_KEEP_IN(0)
#define B NN_KEEP_IN(1)
static const nn_op nn__ops[NN_OP_COUNT] = {
    { "", 0, 0, NN_OP_NO_GRAD, 0, NULL, NULL, NULL, NULL, 0, 0 },
    NN_UNARY_OPS(NN__ROW_OP) NN_UNARY1_OPS(NN__ROW_OP) NN_UNARY2_OPS(NN__ROW_OP) NN_BINARY_OPS(NN__ROW_OP2)
    { "where", 3, 1, NN_OP_STRIDED | NN_OP_ASSIGNS | NN_OP_ALL_INPUTS, NN_KEEP_IN(0), nn__broadcast_shape, nn__binary_plan, NULL, NULL, NN_OP_where, sizeof(nn__no_params) },
    NN_STRUCTURED_OPS(NN__ROW_OPS) };
#undef X
#undef Y
#undef A
#undef B
static const nn_op *nn__op(int id) { return &nn__ops[id]; }

#define NN__FWD(name, keep, f, df)       NN__CAT3(nn__, name##_fwd_, NN__T),
#define NN__BWD(name, keep, f, df)       NN__CAT3(nn__, name##_bwd_, NN__T),
#define NN__FWD2(name, keep, f, da, db)  NN__CAT3(nn__, name##_fwd_, NN__T),
#define NN__BWD2(name, keep, f, da, db)  NN__CAT3(nn__, name##_bwd_, NN__T),
#define NN__CAT3(a, b, c)  NN__CAT3_(a, b, c)
#define NN__CAT3_(a, b, c) a##b##c
#define NN__FWD_SIMD(name)          NN__CAT3(nn__, name##_fwd_, NN__T)
#define NN__BWD_SIMD(name)          NN__CAT3(nn__, name##_bwd_, NN__T)
#define NN__FWD_SIMD_FORWARD(name)  NN__CAT3(nn__, name##_fwd_, NN__T)
#define NN__BWD_SIMD_FORWARD(name)  NULL
#define NN__FWD_PLAIN(name)         NN__CAT3(nn__, name##_fwd_, NN__P)
#define NN__BWD_PLAIN(name)         NN__CAT3(nn__, name##_bwd_, NN__P)
#define NN__FWD_PLAIN_FORWARD(name) NN__CAT3(nn__, name##_fwd_, NN__P)
#define NN__BWD_PLAIN_FORWARD(name) NULL
#define NN__FWD_VIEW(name)          NULL
#define NN__BWD_VIEW(name)          NN__CAT3(nn__, name##_bwd_, NN__T)
#define NN__FWDS(name, kind, in, out, flags, keep, shape, plan, params) NN__FWD_##kind(name),
#define NN__BWDS(name, kind, in, out, flags, keep, shape, plan, params) NN__BWD_##kind(name),
#define NN__FORWARD_TABLE  { NULL, NN_UNARY_OPS(NN__FWD) NN_UNARY1_OPS(NN__FWD) NN_UNARY2_OPS(NN__FWD) NN_BINARY_OPS(NN__FWD2) NN__FWD_SIMD(where), NN_STRUCTURED_OPS(NN__FWDS) }
#define NN__BACKWARD_TABLE { NULL, NN_UNARY_OPS(NN__BWD) NN_UNARY1_OPS(NN__BWD) NN_UNARY2_OPS(NN__BWD) NN_BINARY_OPS(NN__BWD2) NN__BWD_SIMD(where), NN_STRUCTURED_OPS(NN__BWDS) }

#define NN__P f32
#define NN__T scalar
static const nn_exec nn__forward_scalar[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_scalar[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#if NN__HAVE_X86 && defined(NN_DOUBLE)
#define NN__T fma
static const nn_exec nn__forward_fma[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_fma[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#endif
#if NN__HAVE_X86 && !defined(NN_NO_AVX2)
#define NN__T avx2
static const nn_exec nn__forward_avx2[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_avx2[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#endif
#if NN__HAVE_X86 && !defined(NN_NO_AVX512)
#define NN__T avx512
static const nn_exec nn__forward_avx512[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_avx512[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#endif
#if NN__HAVE_NEON
#define NN__T neon
static const nn_exec nn__forward_neon[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_neon[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#endif
#if NN__HAVE_RVV
#define NN__T rvv
static const nn_exec nn__forward_rvv[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_rvv[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#endif
#if NN__HAVE_WASM
#define NN__T wasm
static const nn_exec nn__forward_wasm[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_wasm[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#endif
#undef NN__P
#ifdef NN_DOUBLE
#define NN__P f64
#define NN__T f64
static const nn_exec nn__forward_f64[NN_OP_COUNT] = NN__FORWARD_TABLE, nn__backward_f64[NN_OP_COUNT] = NN__BACKWARD_TABLE;
#undef NN__T
#undef NN__P
#endif

// Best first. `needs` are the features that the processor must have.
static const struct { nn__table table; int needs; } nn__tables[] = {
#if NN__HAVE_X86 && !defined(NN_NO_AVX512)
    { { "avx512", 16, NN_F32, nn__forward_avx512, nn__backward_avx512 }, NN__HAS_AVX512 },
#endif
#if NN__HAVE_X86 && !defined(NN_NO_AVX2)
    { { "avx2",    8, NN_F32, nn__forward_avx2,   nn__backward_avx2 },   NN__HAS_AVX2 },
#endif
#if NN__HAVE_NEON
    { { "neon",    4, NN_F32, nn__forward_neon,   nn__backward_neon },   NN__HAS_NEON },
#endif
#if NN__HAVE_RVV
    { { "rvv",     4, NN_F32, nn__forward_rvv,    nn__backward_rvv },    0 },
#endif
#if NN__HAVE_WASM
    { { "wasm",    4, NN_F32, nn__forward_wasm,   nn__backward_wasm },   0 },
#endif
    { { "scalar",  1, NN_F32, nn__forward_scalar, nn__backward_scalar }, 0 },
#if NN__HAVE_X86 && defined(NN_DOUBLE)
    { { "fma",     1, NN_F32, nn__forward_fma,    nn__backward_fma },    NN__HAS_FMA },
#endif
#ifdef NN_DOUBLE
    { { "f64",     1, NN_F64, nn__forward_f64,    nn__backward_f64 },    0 },
#endif
};

static const nn__table *nn__find_table(const char *isa, nn_dtype dtype)
{
    int has = nn__cpu_features();
    size_t i;
    const char *wish = isa ? isa : getenv("NN_ISA");
    for (i = 0; i < sizeof nn__tables / sizeof *nn__tables; i++) {
        if (nn__tables[i].table.dtype != dtype || (nn__tables[i].needs & has) != nn__tables[i].needs) continue;
        if (wish && wish[0] && dtype == NN_F32 && strcmp(wish, nn__tables[i].table.isa)) continue;
        return &nn__tables[i].table;
    }
    return NULL;
}
#if defined(__GNUC__) || defined(_MSC_VER)
#pragma pop_macro("A")
#pragma pop_macro("ABS")
#pragma pop_macro("B")
#pragma pop_macro("BITS")
#pragma pop_macro("C")
#pragma pop_macro("COS")
#pragma pop_macro("ERF")
#pragma pop_macro("EXP")
#pragma pop_macro("EXPM1")
#pragma pop_macro("FLOATS")
#pragma pop_macro("FLOOR")
#pragma pop_macro("FMA")
#pragma pop_macro("GELU_TANH_GRAD")
#pragma pop_macro("ISET1")
#pragma pop_macro("LOAD")
#pragma pop_macro("LOG")
#pragma pop_macro("LOG1P")
#pragma pop_macro("MISH_GRAD")
#pragma pop_macro("POW")
#pragma pop_macro("R")
#pragma pop_macro("ROUND")
#pragma pop_macro("SEL")
#pragma pop_macro("SET1")
#pragma pop_macro("SHL")
#pragma pop_macro("SIGMOID")
#pragma pop_macro("SIN")
#pragma pop_macro("SOFTPLUS")
#pragma pop_macro("SQRT")
#pragma pop_macro("STORE")
#pragma pop_macro("TANH")
#pragma pop_macro("V")
#pragma pop_macro("VI")
#pragma pop_macro("X")
#pragma pop_macro("Y")
#endif
#endif // NN_IMPLEMENTATION

#else // NN__VISIT: from here on the text is visited several times
// =============================================================================================
// >>words   The vocabulary of kernels. V is a vector of NN__LANES numbers (a plain number where that is 1), R one number.
//
//   evens odds  every other number of the row a, b   zip_low zip_high  a and b in turns: the first, the last NN__LANES numbers of that
//   C(1.5)  a constant   SEL(m, a, b)  m ? a : b per lane, m a comparison   FMA(a, b, c)  a * b + c, fused where the class allows
//   LOAD STORE  SET1  ABS SQRT FLOOR ROUND EXP EXPM1 LOG LOG1P SIN COS TANH SIGMOID SOFTPLUS ERF POW
//
// + - * / and comparisons are written in infix. No word uses libm (sqrt apart), so their bits are the same everywhere; in the
// f64 visit they are libm's, which makes the double kernels an independent check of the float ones.
// =============================================================================================
#if NN__IN_PLAIN || NN__IN_SIMD
#define NN__K(name) NN__CAT(nn__##name, NN__PASS)
#define R           NN__REAL
#if NN__LANES > 1
typedef float   NN__K(vector)  __attribute__((vector_size(4 * NN__LANES)));
typedef int32_t NN__K(ivector) __attribute__((vector_size(4 * NN__LANES)));
#define V            NN__K(vector)
#define VI           NN__K(ivector)
#define SEL(m, a, b) ((V)(((VI)(m) & (VI)(a)) | (~(VI)(m) & (VI)(b))))
#define BITS(x)      ((VI)(x))
#define FLOATS(i)    ((V)(i))
#define SHL(i, n)    ((i) << (n))
#define SQRT(x)      NN__SQRT(x)
NN__INLINE V NN__K(set1)(float s)          { V zero = { 0 }; return s - zero; }     // s - 0 folds to s; 0 + s would not (-0.0)
NN__INLINE VI NN__K(iset1)(int32_t s)      { VI zero = { 0 }; return s - zero; }
#define SET1(s)      NN__K(set1)(s)
#define ISET1(s)     NN__K(iset1)(s)
#define C(x)         SET1((float)(x))
#else
typedef R       NN__K(vector);
typedef int32_t NN__K(ivector);
#define V            NN__K(vector)
#define VI           NN__K(ivector)
#define SEL(m, a, b) ((m) ? (a) : (b))
#define SET1(s)      (s)
#define ISET1(s)     (s)
#define C(x)         ((R)(x))
#ifdef NN__IS_F64
#define SQRT(x)      sqrt(x)
#else
#define SQRT(x)      sqrtf(x)
NN__INLINE VI NN__K(bits)(V x)             { VI i; memcpy(&i, &x, sizeof i); return i; }
NN__INLINE V  NN__K(floats)(VI i)          { V x; memcpy(&x, &i, sizeof x); return x; }
#define BITS(x)      NN__K(bits)(x)
#define FLOATS(i)    NN__K(floats)(i)
#define SHL(i, n)    ((VI)((uint32_t)(i) << (n)))        // what is shifted out (of NaN) is no overflow
#endif
#endif
#if !defined(NN__FMA) || defined(NN_DETERMINISTIC)
#define FMA(a, b, c) ((a) * (b) + (c))
#else
#define FMA(a, b, c) NN__FMA(a, b, c)
#endif
#define LOAD(p)      NN__K(load)(p)
#define STORE(p, v)  NN__K(store)(p, v)
NN__INLINE V    NN__K(load)(const R *p)    { V v; memcpy(&v, p, sizeof v); return v; }
NN__INLINE void NN__K(store)(R *p, V v)    { memcpy(p, &v, sizeof v); }
NN__INLINE VI   NN__K(iload)(const int32_t *p)       { VI v; memcpy(&v, p, sizeof v); return v; }
NN__INLINE void NN__K(istore)(int32_t *p, VI v)      { memcpy(p, &v, sizeof v); }
// evens(a, b), odds(a, b): numbers 0, 2, 4 ... and 1, 3, 5 ... of a followed by b; zip_low, zip_high: back again. The same of integers.
#if NN__LANES == 16
#define NN__EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define NN__ODDS  1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define NN__LOW   0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define NN__HIGH  8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define NN__FIRST 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define NN__LOW_PAIRS  0, 8, 1, 9, 2, 10, 3, 11
#define NN__HIGH_PAIRS 4, 12, 5, 13, 6, 14, 7, 15
#define NN__FIRST_PAIRS 0, 1, 2, 3, 4, 5, 6, 7
#elif NN__LANES == 8
#define NN__EVENS 0, 2, 4, 6, 8, 10, 12, 14
#define NN__ODDS  1, 3, 5, 7, 9, 11, 13, 15
#define NN__LOW   0, 8, 1, 9, 2, 10, 3, 11
#define NN__HIGH  4, 12, 5, 13, 6, 14, 7, 15
#define NN__FIRST 0, 1, 2, 3, 4, 5, 6, 7
#define NN__LOW_PAIRS  0, 4, 1, 5
#define NN__HIGH_PAIRS 2, 6, 3, 7
#define NN__FIRST_PAIRS 0, 1, 2, 3
#elif NN__LANES == 4
#define NN__EVENS 0, 2, 4, 6
#define NN__ODDS  1, 3, 5, 7
#define NN__LOW   0, 4, 1, 5
#define NN__HIGH  2, 6, 3, 7
#define NN__FIRST 0, 1, 2, 3
#define NN__LOW_PAIRS  0, 2
#define NN__HIGH_PAIRS 1, 3
#define NN__FIRST_PAIRS 0, 1
#endif
#if NN__LANES > 1
#define NN__PARTS NN__UNROLL         // loops over the vectors of 16 or 64 numbers
#else
#define NN__PARTS
#endif
// The sum of 16 numbers, i with i + 8 first, then i + 4, i + 2, i + 1: the same tree whatever the vector width.
#if NN__LANES == 1
NN__INLINE R NN__K(sum16)(const V *v)
{
    R a[8];
    int i;
    for (i = 0; i < 8; i++) a[i] = v[i] + v[i + 8];
    for (i = 0; i < 4; i++) a[i] += a[i + 4];
    return (a[0] + a[2]) + (a[1] + a[3]);
}
#else
typedef float NN__K(four) __attribute__((vector_size(16)));
NN__INLINE R NN__K(sum16)(const V *v)
{
    NN__K(four) a[4];
    memcpy(a, v, sizeof a);
    a[0] = (a[0] + a[2]) + (a[1] + a[3]);
    return (a[0][0] + a[0][2]) + (a[0][1] + a[0][3]);
}
#endif
#if NN__LANES > 1
NN__INLINE V  NN__K(evens)(V a, V b)       { NN__SHUFFLE(VI, a, b, NN__EVENS); }
NN__INLINE V  NN__K(odds)(V a, V b)        { NN__SHUFFLE(VI, a, b, NN__ODDS); }
NN__INLINE V  NN__K(zip_low)(V a, V b)     { NN__SHUFFLE(VI, a, b, NN__LOW); }
NN__INLINE V  NN__K(zip_high)(V a, V b)    { NN__SHUFFLE(VI, a, b, NN__HIGH); }
NN__INLINE VI NN__K(ievens)(VI a, VI b)    { NN__SHUFFLE(VI, a, b, NN__EVENS); }
NN__INLINE VI NN__K(iodds)(VI a, VI b)     { NN__SHUFFLE(VI, a, b, NN__ODDS); }
NN__INLINE VI NN__K(isel)(VI m, VI a, VI b) { return (m & a) | (~m & b); }
NN__INLINE VI NN__K(count_up)(int32_t first) { VI i = { NN__FIRST }; return i + first; }
typedef uint64_t NN__K(pairs) __attribute__((vector_size(4 * NN__LANES)));
#ifndef NN__MUL32
#define NN__MUL32(a, b) (((a) & 0xFFFFFFFFu) * ((b) & 0xFFFFFFFFu))      // 64-bit products of the low halves
#endif
NN__INLINE NN__K(pairs) NN__K(zip_low_pairs)(NN__K(pairs) a, NN__K(pairs) b)  { NN__SHUFFLE(NN__K(pairs), a, b, NN__LOW_PAIRS); }
NN__INLINE NN__K(pairs) NN__K(zip_high_pairs)(NN__K(pairs) a, NN__K(pairs) b) { NN__SHUFFLE(NN__K(pairs), a, b, NN__HIGH_PAIRS); }
// The Philox blocks from `first` on (>>random), half as many as there are lanes: their numbers in order, as two vectors. A number of
// 32 bits is the low half of one of 64; what gets into the high half is not looked at.
NN__INLINE void NN__K(philox)(uint64_t seed, uint64_t step, uint64_t ordinal, uint64_t first, VI r[2])
{
    NN__K(pairs) none = { 0 }, i = { NN__FIRST_PAIRS }, c0 = i + first, c1 = (c0 >> 32) ^ (ordinal >> 32), c2 = none + ordinal, c3 = none + step;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    int n;
    for (n = 0; n < 10; n++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        NN__K(pairs) p0 = (NN__K(pairs))NN__MUL32(none + 0xD2511F53u, c0), p1 = (NN__K(pairs))NN__MUL32(none + 0xCD9E8D57u, c2);
        c0 = (p1 >> 32) ^ c1 ^ k0;
        c2 = (p0 >> 32) ^ c3 ^ k1;
        c1 = p1;
        c3 = p0;
    }
    c0 = (c0 & 0xFFFFFFFFu) | c1 << 32;
    c2 = (c2 & 0xFFFFFFFFu) | c3 << 32;
    r[0] = (VI)NN__K(zip_low_pairs)(c0, c2);
    r[1] = (VI)NN__K(zip_high_pairs)(c0, c2);
}
#else
NN__INLINE V  NN__K(evens)(V a, V b)       { (void)b; return a; }
NN__INLINE V  NN__K(odds)(V a, V b)        { (void)a; return b; }
NN__INLINE V  NN__K(zip_low)(V a, V b)     { (void)b; return a; }
NN__INLINE V  NN__K(zip_high)(V a, V b)    { (void)a; return b; }
NN__INLINE VI NN__K(ievens)(VI a, VI b)    { (void)b; return a; }
NN__INLINE VI NN__K(iodds)(VI a, VI b)     { (void)a; return b; }
NN__INLINE VI NN__K(isel)(VI m, VI a, VI b) { return m ? a : b; }
NN__INLINE VI NN__K(count_up)(int32_t first) { return first; }
#endif
#undef NN__EVENS
#undef NN__ODDS
#undef NN__LOW
#undef NN__HIGH
#undef NN__FIRST
#undef NN__LOW_PAIRS
#undef NN__HIGH_PAIRS
#undef NN__FIRST_PAIRS

#ifdef NN__IS_F64
#define ABS(x)     fabs(x)
#define FLOOR(x)   floor(x)
#define ROUND(x)   rint(x)
#define EXP(x)     exp(x)
#define EXPM1(x)   expm1(x)
#define LOG(x)     log(x)
#define LOG1P(x)   log1p(x)
#define SIN(x)     sin(x)
#define COS(x)     cos(x)
#define TANH(x)    tanh(x)
#define ERF(x)     erf(x)
#define POW(x, y)  pow(x, y)
#else
#define ABS(x)     NN__K(abs)(x)
#define FLOOR(x)   NN__K(floor)(x)
#define ROUND(x)   NN__K(round)(x)
#define EXP(x)     NN__K(exp)(x)
#define EXPM1(x)   NN__K(expm1)(x)
#define LOG(x)     NN__K(log)(x)
#define LOG1P(x)   NN__K(log1p)(x)
#define SIN(x)     NN__K(sin)(x)
#define COS(x)     NN__K(cos)(x)
#define TANH(x)    NN__K(tanh)(x)
#define ERF(x)     NN__K(erf)(x)
#define POW(x, y)  NN__K(pow)(x, y)
NN__INLINE V NN__K(abs)(V x)               { return FLOATS(BITS(x) & 0x7FFFFFFF); }
NN__INLINE V NN__K(copysign)(V x, V s)     { return FLOATS((BITS(x) & 0x7FFFFFFF) | (BITS(s) & (int32_t)0x80000000)); }
// Adding 1.5 * 2^23 rounds to an integer (to even at .5), which is then in the low bits.
NN__INLINE V NN__K(round)(V x)
{
    V r = NN__K(copysign)((ABS(x) + C(8388608)) - C(8388608), x);
    return SEL(ABS(x) < C(8388608), r, x);
}
NN__INLINE V NN__K(floor)(V x)
{
    V r = NN__K(round)(x);
    return SEL(r > x, r - C(1), r);
}
// e^x = 2^n e^r, n = round(x / ln 2); ln 2 in two parts keeps r exact; 2^n in two factors reaches the denormals.
NN__INLINE V NN__K(exp)(V x)
{
    V t = SEL(x > C(89), C(89), SEL(x < C(-104), C(-104), x)), m = FMA(t, C(1.44269504), C(12582912)), f = m - C(12582912), r, p;
    VI n = BITS(m) - 0x4B400000, h = n >> 1;
    r = FMA(f, C(-0.693145751953125), t);
    r = FMA(f, C(-1.42860677e-6), r);
    p = C(0.0001989928569);
    p = FMA(p, r, C(0.001393364885));
    p = FMA(p, r, C(0.008333298469));
    p = FMA(p, r, C(0.04166646494));
    p = FMA(p, r, C(0.1666666672));
    p = FMA(p, r, C(0.5));
    p = FMA(p, r * r, r) + C(1);
    return p * FLOATS(SHL(h + 127, 23)) * FLOATS(SHL(n - h + 127, 23));
}
NN__INLINE V NN__K(expm1)(V x)
{
    V r = x, p = C(1.0 / 5040);
    p = FMA(p, r, C(1.0 / 720));
    p = FMA(p, r, C(1.0 / 120));
    p = FMA(p, r, C(1.0 / 24));
    p = FMA(p, r, C(1.0 / 6));
    p = FMA(p, r, C(0.5));
    p = FMA(p, r * r, r);
    return SEL(ABS(x) < C(0.4), p, EXP(x) - C(1));
}
// log x = n ln 2 + log m, m in [sqrt(1/2), sqrt(2))   (Cephes' polynomial)
NN__INLINE V NN__K(log)(V x)
{
    V denormal = x * C(8388608), y = SEL(x < C(1.17549435e-38), denormal, x), bias = SEL(x < C(1.17549435e-38), C(23), C(0)), m, z, p, n;
    VI i = BITS(ABS(y)) - 0x3F3504F3;         // ABS: a negative x, which gives NaN below, would overflow here
    n = C(0);
    {
        VI e = i >> 23;
        n = FLOATS((e + 0x4B400000)) - C(12582912) - bias;
        m = FLOATS((i & 0x7FFFFF) + 0x3F3504F3) - C(1);
    }
    z = m * m;
    p = C(7.0376836292e-2);
    p = FMA(p, m, C(-1.1514610310e-1));
    p = FMA(p, m, C(1.1676998740e-1));
    p = FMA(p, m, C(-1.2420140846e-1));
    p = FMA(p, m, C(1.4249322787e-1));
    p = FMA(p, m, C(-1.6668057665e-1));
    p = FMA(p, m, C(2.0000714765e-1));
    p = FMA(p, m, C(-2.4999993993e-1));
    p = FMA(p, m, C(3.3333331174e-1));
    p = p * m * z;
    p = FMA(n, C(-2.12194440e-4), p);
    p = FMA(C(-0.5), z, p);
    p = FMA(n, C(0.693359375), m + p);
    p = SEL(x == C(INFINITY), x, p);
    p = SEL(x == C(0), C(-INFINITY), p);
    return SEL(x >= C(0), p, C(NAN));
}
// log(1 + x) = log u + c / u, where u is 1 + x rounded and c what the rounding lost
NN__INLINE V NN__K(log1p)(V x)
{
    V u = C(1) + x, c = SEL(x > C(1), C(1) - (u - x), x - (u - C(1)));
    return SEL(ABS(x) < C(1e-4), FMA(C(-0.5) * x, x, x), SEL(u == C(INFINITY), u, LOG(u) + SEL(u > C(0), c / u, C(0))));
}
NN__INLINE V NN__K(tanh)(V x)
{
    V a = ABS(x), z = x * x, p = C(0.0022959729), big;
    p = FMA(p, z, C(-0.00834710977));
    p = FMA(p, z, C(0.0217700067));
    p = FMA(p, z, C(-0.0539594129));
    p = FMA(p, z, C(0.133333043));
    p = FMA(p, z, C(-0.333333332));
    big = NN__K(copysign)(C(1) - C(2) / (EXP(a + a) + C(1)), x);
    return SEL(x == x, SEL(a < C(0.625), FMA(p * z, x, x), big), x);
}
NN__INLINE V NN__K(sincos)(V x, int32_t quarter)
{
    V m = FMA(x, C(0.63661977236758134308), C(12582912)), f = m - C(12582912), r, z, s, c, low, e;
    VI q = BITS(m), huge = (VI)(ABS(x) > C(32768));
    int32_t any = 0;
    int i;
    r = FMA(f, C(-1.5703125), x);    // pi/2 in parts of 9 bits: their products with f, at most 2^15, are exact, fused or not
    r = FMA(f, C(-0.00048351287841796875), r);
    r = FMA(f, C(-3.13855707645416259765625E-7), r);
    low = f * C(-6.0708771343342959880828857421875E-11);
    e = r;                           // what r + low loses is kept in e
    r = r + low;
    e = (e - r) + low + f * C(-6.223372172e-14);
    r = SEL(x == C(0), x, r);
#if NN__LANES > 1
    for (i = 0; i < NN__LANES; i++) any |= huge[i];
    if (any) for (i = 0; i < NN__LANES; i++) if (!(ABS(x)[i] <= 32768.0f)) { int32_t k; r[i] = nn__reduce_angle(x[i], &k); q[i] = k; e[i] = 0; }
#else
    (void)any; (void)i; (void)huge;
    if (!(ABS(x) <= C(32768))) { r = nn__reduce_angle(x, &q); e = 0; }
#endif
    q = (q + quarter) & 3;
    z = r * r;
    s = FMA(FMA(FMA(C(-1.9515295891e-4), z, C(8.3321608736e-3)), z, C(-1.6666654611e-1)), z * r, e) + r;
    c = FMA(-e, r, FMA(FMA(FMA(C(2.443315711809948e-5), z, C(-1.388731625493765e-3)), z, C(4.166664568298827e-2)), z * z, FMA(C(-0.5), z, C(1))));
    s = SEL((q & 1) == 1, c, s);
    return SEL((q & 2) == 2, -s, s);
}
NN__INLINE V NN__K(sin)(V x)               { return NN__K(sincos)(x, 0); }
NN__INLINE V NN__K(cos)(V x)               { return NN__K(sincos)(x, 1); }
// Near 0 an odd polynomial; further out 1 - e^-p, p a polynomial fitted to -log(erfc x) on [1, 4].
NN__INLINE V NN__K(erf)(V x)
{
    V a = ABS(x), z = x * x, p = C(-9.67359117e-06), t = SEL(a > C(4), C(4), a), q = C(-1.6140616e-06);
    p = FMA(p, z, C(0.00011268254));
    p = FMA(p, z, C(-0.000848439657));
    p = FMA(p, z, C(0.00522105341));
    p = FMA(p, z, C(-0.0268654383));
    p = FMA(p, z, C(0.112837826));
    p = FMA(p, z, C(-0.376126385));
    p = FMA(p, z, C(0.12837917));    // 2 / sqrt(pi) - 1: the 1 is added exactly, as x
    q = FMA(q, t, C(4.55906224e-05));
    q = FMA(q, t, C(-0.000592769537));
    q = FMA(q, t, C(0.00474022234));
    q = FMA(q, t, C(-0.0263647174));
    q = FMA(q, t, C(0.109978245));
    q = FMA(q, t, C(0.631937094));
    q = FMA(q, t, C(1.13016668));
    q = FMA(q, t, C(-0.000303212967));
    return SEL(x == x, SEL(a < C(1), FMA(p, x, x), NN__K(copysign)(C(1) - EXP(-q), x)), x);
}
NN__INLINE V NN__K(pow)(V x, V y)
{
#if NN__LANES > 1
    V r = x;
    int i;
    for (i = 0; i < NN__LANES; i++) r[i] = nn__pow_one(x[i], y[i]);
    return r;
#else
    return nn__pow_one(x, y);
#endif
}
#endif
#define SIGMOID(x)  NN__K(sigmoid_word)(x)
#define SOFTPLUS(x) NN__K(softplus_word)(x)
#define GELU_TANH_GRAD(x) NN__K(gelu_tanh_grad)(x)
#define MISH_GRAD(x)      NN__K(mish_grad)(x)
NN__INLINE V NN__K(sigmoid_word)(V x)      // e^-|x| never overflows: 1 / (1 + e^-x), or e^x / (1 + e^x) for x < 0
{
    V e = EXP(-ABS(x)), d = C(1) + e, lost = e - (d - C(1)), y = SEL(x < C(0), e, C(1)) / d;
    return FMA(-y * lost, SEL(x < C(0), C(1) - y, y), y);            // what rounding 1 + e lost, to first order; 1/d is 1 - y or y
}
NN__INLINE V NN__K(softplus_word)(V x)     { return SEL(x > C(0), x, C(0)) + LOG1P(EXP(-ABS(x))); }
NN__INLINE V NN__K(gelu_tanh_grad)(V x)    // u = sqrt(2/pi) (x + 0.044715 x^3), t = tanh u:  (1 + t) / 2 + x (1 - t^2) u' / 2
{
    V t = TANH(C(0.79788456080286535588) * (x + C(0.044715) * x * x * x));
    return C(0.5) * (C(1) + t) + C(0.5) * x * (C(1) - t * t) * C(0.79788456080286535588) * (C(1) + C(0.134145) * x * x);
}
NN__INLINE V NN__K(mish_grad)(V x)         // t = tanh(softplus(x)):  t + x (1 - t^2) sigmoid(x)
{
    V t = TANH(SOFTPLUS(x));
    return t + x * (C(1) - t * t) * SIGMOID(x);
}
#endif

// =============================================================================================
// >>ops   Every op is one block: formula; shape rule, plan and builder (HOST); forward and backward (SIMD or PLAIN).
// A kernel is NN__FORWARD(name) or NN__BACKWARD(name): it gets the call c and its task t, and writes only what its task owns.
// =============================================================================================
#define NN__FORWARD(name)  static void NN__K(name##_fwd)(const nn_call *c, const nn_task *t)
#define NN__BACKWARD(name) static void NN__K(name##_bwd)(const nn_call *c, const nn_task *t)

// ---- plans and shape rules that many ops share -------------------------------------------------------
#if NN__IN_HOST
enum { NN__JOIN_ADD, NN__JOIN_MUL, NN__JOIN_MAX, NN__JOIN_MIN };   // how partial results become one
static size_t nn__real_bytes(const nn_call *c)      { return nn_dtype_bytes(c->nn->desc.dtype); }
static void nn__one_task(nn_call *c)                { (void)c; }
static int  nn__same_shape(nn_call *c)              { nn__like(&c->out[0], &c->in[0]); return 1; }
static void nn__each_plan(nn_call *c)               { c->tasks[0] = nn__task_count(nn_view_count(&c->out[0]), 8); }

static int nn__same_dims(const nn_view *a, const nn_view *b)
{
    return nn__same_sizes(a->ndim, a->shape, b->ndim, b->shape);
}

// NumPy: align at the last dimension; sizes must be equal or 1.
static int nn__broadcast_into(nn_call *c, int64_t *shape, int *ndim, const nn_view *b)
{
    int i, n = *ndim > b->ndim ? *ndim : b->ndim;
    int64_t r[NN_MAX_DIMS];
    for (i = 1; i <= n; i++) {
        int64_t p = i <= *ndim ? shape[*ndim - i] : 1, q = i <= b->ndim ? b->shape[b->ndim - i] : 1;
        if (p != q && p != 1 && q != 1) {
            nn_fail(c->nn, "%s: shapes do not broadcast: %s and %s", c->op->name, nn__dims_text(*ndim, shape).s, NN__SHAPE_OF(b));
            return 0;
        }
        r[n - i] = p == 1 ? q : p;
    }
    memcpy(shape, r, sizeof r);
    *ndim = n;
    return 1;
}

static int nn__broadcast_shape(nn_call *c)
{
    int64_t shape[NN_MAX_DIMS] = { 0 };
    int i, ndim = c->in[0].ndim;
    if (c->nin == 2 && nn__same_dims(&c->in[0], &c->in[1])) { nn__set_shape(&c->out[0], (int)c->nn->desc.dtype, ndim, c->in[0].shape); return 1; }
    memcpy(shape, c->in[0].shape, (size_t)ndim * sizeof *shape);
    for (i = 1; i < c->nin; i++) if (!nn__broadcast_into(c, shape, &ndim, &c->in[i])) return 0;
    nn__set_shape(&c->out[0], (int)c->nn->desc.dtype, ndim, shape);
    return 1;
}

// Elementwise with broadcasting. Backward of a broadcast operand: phase 0 computes its gradient at full size, phase 1 sums it.
static void nn__binary_plan(nn_call *c)
{
    int64_t n = nn_view_count(&c->out[0]), most = 1;
    int i;
    c->tasks[0] = nn__task_count(n, 8);
    if (c->pass == NN_FORWARD) return;
    for (i = 0; i < c->nin; i++) {
        if (!c->din[i].data || nn__same_dims(&c->in[i], &c->out[0])) continue;
        c->phases = 2;
        c->shared_bytes += nn__round_up((size_t)n * nn__real_bytes(c));
        most = nn__max(most, nn_view_count(&c->din[i]));
    }
    c->tasks[1] = nn__max(1, nn__min(nn__task_count(n, 4), most / 64));
}
#endif

#if NN__IN_SIMD
// The strides of v as seen from a result of shape `like`: 0 where v is broadcast.
NN__INLINE nn_view NN__K(broadcast)(const nn_view *v, const nn_view *like)
{
    nn_view r = *like;
    int i, lead = like->ndim - v->ndim;
    r.data = v->data;
    r.dtype = v->dtype;
    for (i = 0; i < like->ndim; i++) r.stride[i] = i < lead || (v->shape[i - lead] == 1 && like->shape[i] != 1) ? 0 : v->stride[i - lead];
    return r;
}

typedef void (*NN__K(row))(int64_t n, R *y, const R *const *in, const R *p);   // y[i] = f(in[0][i], ...), all contiguous
enum { NN__K(block) = 256 };

// A last incomplete vector: 0 < n < NN__LANES numbers.
#ifdef NN__GET_PART
NN__INLINE V    NN__K(load_part)(const R *p, int64_t n)       { return NN__GET_PART(p, n); }
NN__INLINE void NN__K(store_part)(R *p, V v, int64_t n)       { NN__PUT_PART(p, v, n); }
#else
NN__INLINE V NN__K(load_part)(const R *p, int64_t n)
{
    R part[NN__LANES] = { 0 };
    memcpy(part, p, (size_t)n * sizeof *p);
    return LOAD(part);
}
NN__INLINE void NN__K(store_part)(R *p, V v, int64_t n)
{
    R part[NN__LANES];
    STORE(part, v);
    memcpy(p, part, (size_t)n * sizeof *p);
}
#endif
// memcpy for short runs: whole vectors, the last of which may overlap its neighbour; then 8 or 4 at a time likewise.
NN__INLINE void NN__K(copy_few)(R *to, const R *from, int64_t n)
{
    int64_t i;
    if (n >= NN__LANES) {
        for (i = 0; i + NN__LANES <= n; i += NN__LANES) STORE(to + i, LOAD(from + i));
        if (i < n) STORE(to + n - NN__LANES, LOAD(from + n - NN__LANES));
    }
    else if (n >= 8) { memcpy(to, from, 8 * sizeof *to); memcpy(to + n - 8, from + n - 8, 8 * sizeof *to); }
    else if (n >= 4) { memcpy(to, from, 4 * sizeof *to); memcpy(to + n - 4, from + n - 4, 4 * sizeof *to); }
    else for (i = 0; i < n; i++) to[i] = from[i];
}
// Vectors, and a last incomplete one; k numbers of it count.
NN__INLINE V    NN__K(get_lanes)(const R *p, int64_t k)    { return k >= NN__LANES ? LOAD(p) : NN__K(load_part)(p, k); }
NN__INLINE void NN__K(put_lanes)(R *p, V v, int64_t k)     { if (k >= NN__LANES) STORE(p, v); else NN__K(store_part)(p, v, k); }
static void NN__K(fill_with)(int64_t n, R *y, R v)
{
    int64_t i, whole = n - n % NN__LANES;
    for (i = 0; i < whole; i += NN__LANES) STORE(y + i, SET1(v));
    for (; i < n; i++) y[i] = v;
}
static void NN__K(add_onto)(int64_t n, R *y, const R *x)  // y += x
{
    int64_t i, whole = n - n % NN__LANES;
    for (i = 0; i < whole; i += NN__LANES) STORE(y + i, LOAD(y + i) + LOAD(x + i));
    for (; i < n; i++) y[i] += x[i];
}

// Do all operands lie side by side in the same way? Then f may see them whole.
static int NN__K(alike)(const nn_view *out, const nn_view *const *in, int nin)
{
    int k, n = out->ndim;
    if (!nn__contiguous_view(out)) return 0;
    for (k = 0; k < nin; k++)
        if (in[k]->ndim != n || !nn__same_numbers(n, in[k]->stride, out->stride) || !nn__same_numbers(n, in[k]->shape, out->shape)) return 0;
    return 1;
}
static void NN__K(each_alike)(R *y, const nn_view *const *in, int nin, int64_t begin, int64_t end, NN__K(row) f, const R *p)
{
    const R *row[5];
    int k;
    for (k = 0; k < nin; k++) row[k] = (const R *)in[k]->data + begin;
    if (begin < end) f(end - begin, y + begin, row, p);
}

// out[i] (+)= f(in[0][i], in[1][i], ...) for the elements begin..end of out in logical order; f NULL: out (+)= in[0]. Operands of any
// strides, all of out's shape (see broadcast). What is not contiguous goes through small blocks on the stack, so that f always sees
// contiguous rows.
static void NN__K(each)(const nn_view *out, int add, const nn_view *const *in, int nin, int64_t begin, int64_t end, NN__K(row) f, const R *p)
{
    int64_t shape[NN_MAX_DIMS], index[NN_MAX_DIMS], stride[6][NN_MAX_DIMS], off[6], inner, first, run, at, i, j;
    R buffer[6][NN__K(block)];
    const R *data[5], *row[5];
    int n = 0, d, k, twin[5], direct = !add && f;
    if (begin >= end) return;
    if (direct && NN__K(alike)(out, in, nin)) { NN__K(each_alike)((R *)out->data, in, nin, begin, end, f, p); return; }
    for (d = 0; d < out->ndim; d++) {                    // drop sizes 1, join dimensions that are one run for every operand
        int join = n > 0;
        if (out->shape[d] == 1) continue;
        for (k = 0; k <= nin; k++) stride[k][n] = k < nin ? in[k]->stride[d] : out->stride[d];
        for (k = 0; join && k <= nin; k++) join = stride[k][n - 1] == stride[k][n] * out->shape[d];
        if (join) for (k = 0; k <= nin; k++) stride[k][n - 1] = stride[k][n];
        if (join) shape[n - 1] *= out->shape[d]; else shape[n++] = out->shape[d];
    }
    if (n == 0) { shape[0] = 1; for (k = 0; k <= nin; k++) stride[k][0] = 1; n = 1; }
    for (k = 0; k < nin; k++) {      // an operand that is there twice is brought once
        data[k] = (const R *)in[k]->data;
        for (twin[k] = 0; twin[k] < k; twin[k]++)
            if (data[twin[k]] == data[k] && !memcmp(stride[twin[k]], stride[k], (size_t)n * sizeof **stride)) break;
    }
    for (k = 0; k <= nin; k++) if (stride[k][n - 1] != 1) direct = 0;
    inner = shape[n - 1];
    first = begin % inner;
    for (k = 0; k <= nin; k++) off[k] = 0;
    for (d = n - 2, at = begin / inner; d >= 0; at /= shape[d--]) {
        index[d] = at % shape[d];
        for (k = 0; k <= nin; k++) off[k] += index[d] * stride[k][d];
    }
    for (at = begin; at < end; at += run, first = 0) {
        R *y = (R *)out->data + off[nin] + first * stride[nin][n - 1];
        run = nn__min(inner - first, end - at);
        if (direct) {
            for (k = 0; k < nin; k++) row[k] = data[k] + off[k] + first;
            f(run, y, row, p);
        } else for (i = 0; i < run; i += NN__K(block)) {
            int64_t m = nn__min(run - i, NN__K(block)), s = stride[nin][n - 1];
            const R *from = buffer[5];
            for (k = 0; k < nin; k++) {
                int64_t q = stride[k][n - 1];
                const R *x = data[k] + off[k] + (first + i) * q;
                row[k] = twin[k] < k ? row[twin[k]] : q == 1 ? x : buffer[k];
                if (twin[k] < k || q == 1) continue;
                if (q != 0)      for (j = 0; j < m; j++) buffer[k][j] = x[j * q];
                else if (i == 0) NN__K(fill_with)(m, buffer[k], *x);
            }
            if (!add && s == 1) {
                if (f) f(m, y + i, row, p);
                else   memcpy(y + i, row[0], (size_t)m * sizeof *y);
                continue;
            }
            if (f) f(m, buffer[5], row, p);
            else   from = row[0];
            if (!add)        for (j = 0; j < m; j++) y[(i + j) * s]  = from[j];
            else if (s != 1) for (j = 0; j < m; j++) y[(i + j) * s] += from[j];
            else             NN__K(add_onto)(m, y + i, from);
        }
        for (d = n - 2; d >= 0; d--) {
            for (k = 0; k <= nin; k++) off[k] += stride[k][d];
            if (++index[d] < shape[d]) break;
            for (k = 0; k <= nin; k++) off[k] -= stride[k][d] * shape[d];
            index[d] = 0;
        }
    }
}

// Loops over contiguous rows; the op's formula is inlined into them, once: the last vector may be incomplete.
NN__INLINE void NN__K(map1)(int64_t n, R *y, const R *a, const R *p, V (*f)(V, V, V))
{
    V v = SET1(p[0]), w = SET1(p[1]);
    for (; n > 0; n -= NN__LANES, y += NN__LANES, a += NN__LANES) NN__K(put_lanes)(y, f(NN__K(get_lanes)(a, n), v, w), n);
}
NN__INLINE void NN__K(map2)(int64_t n, R *y, const R *a, const R *b, V (*f)(V, V))
{
    for (; n > 0; n -= NN__LANES, y += NN__LANES, a += NN__LANES, b += NN__LANES)
        NN__K(put_lanes)(y, f(NN__K(get_lanes)(a, n), NN__K(get_lanes)(b, n)), n);
}
NN__INLINE void NN__K(map3)(int64_t n, R *y, const R *a, const R *b, const R *c, const R *p, V (*f)(V, V, V, V, V))
{
    V v = SET1(p[0]), w = SET1(p[1]);
    for (; n > 0; n -= NN__LANES, y += NN__LANES, a += NN__LANES, b += NN__LANES, c += NN__LANES)
        NN__K(put_lanes)(y, f(NN__K(get_lanes)(a, n), NN__K(get_lanes)(b, n), NN__K(get_lanes)(c, n), v, w), n);
}
NN__INLINE void NN__K(map4)(int64_t n, R *y, const R *a, const R *b, const R *c, const R *e, V (*f)(V, V, V, V))
{
    for (; n > 0; n -= NN__LANES, y += NN__LANES, a += NN__LANES, b += NN__LANES, c += NN__LANES, e += NN__LANES)
        NN__K(put_lanes)(y, f(NN__K(get_lanes)(a, n), NN__K(get_lanes)(b, n), NN__K(get_lanes)(c, n), NN__K(get_lanes)(e, n)), n);
}

// ---- sums over rows of numbers side by side --------------------------------------------------------------
// The sum of f over rows, in an order that depends on n alone: 64 sums side by side, whatever the vector width, as adding to one
// vector would wait for the last addition. f(sum, x, dy, w, m) returns sum + term.
enum { NN__K(row_lanes) = 64, NN__K(row_parts) = NN__K(row_lanes) / NN__LANES };
NN__INLINE R NN__K(sum64)(V *v)
{
    int j, k;
    NN__PARTS for (k = NN__K(row_parts) / 2; k * NN__LANES >= 16; k /= 2) NN__PARTS for (j = 0; j < k; j++) v[j] = v[j] + v[j + k];
    return NN__K(sum16)(v);
}
NN__INLINE R NN__K(row_sum)(int64_t n, const R *x, const R *dy, const R *w, R m, V (*f)(V, V, V, V, V))
{
    enum { lanes = NN__K(row_lanes), parts = NN__K(row_parts) };
    V sum[parts], vm = SET1(m);
    int64_t i, whole = n - n % lanes;
    int j;
    NN__PARTS for (j = 0; j < parts; j++) sum[j] = C(0);
    for (i = 0; i < whole; i += lanes)
        NN__PARTS for (j = 0; j < parts; j++) {
            int64_t at = i + j * NN__LANES;
            sum[j] = f(sum[j], LOAD(x + at), LOAD(dy + at), LOAD(w + at), vm);
        }
    NN__PARTS for (j = 0; j < parts; j++) {             // the rest, padded; what the padding gives is not added
        int64_t left = n - whole - j * NN__LANES, at = whole + j * NN__LANES;
        if (left >= NN__LANES) sum[j] = f(sum[j], LOAD(x + at), LOAD(dy + at), LOAD(w + at), vm);
        else if (left > 0) {
            V term = f(sum[j], NN__K(load_part)(x + at, left), NN__K(load_part)(dy + at, left), NN__K(load_part)(w + at, left), vm);
            sum[j] = SEL(NN__K(count_up)(0) < (int32_t)left, term, sum[j]);
        }
    }
    return NN__K(sum64)(sum);
}

// ---- folds: what all sums, maxima, products, norms are made of -----------------------------------------
// acc = f(acc, x) over the numbers x that belong to one result. The order depends on the shape and strides of the reduced dimensions
// alone: 16 partial results whatever the vector width, chunks of 128 rows, then the chunks. m: a number per result that f may read.
enum { NN__K(columns) = 64, NN__K(fold_lanes) = 16, NN__K(fold_chunk) = 128 };
typedef void (*NN__K(fold))(int64_t n, int64_t steps, const R *x, int64_t step, const R *m, R p, R *acc);  // rows of n numbers, n % 16 == 0
typedef struct NN__K(stage) { NN__K(fold) fold; int join; R start; } NN__K(stage);

NN__INLINE void NN__K(fold_strip)(int parts, int64_t steps, const R *x, int64_t step, const R *m, R p, R *acc, V (*f)(V, V, V, V))
{
    V a[16], b[16], q = SET1(p);
    int64_t s;
    int k;
    NN__PARTS for (k = 0; k < parts; k++) { a[k] = LOAD(acc + k * NN__LANES); b[k] = LOAD(m + k * NN__LANES); }
    for (s = 0; s < steps; s++, x += step)
        NN__PARTS for (k = 0; k < parts; k++) a[k] = f(a[k], LOAD(x + k * NN__LANES), b[k], q);
    NN__PARTS for (k = 0; k < parts; k++) STORE(acc + k * NN__LANES, a[k]);
}
NN__INLINE void NN__K(fold_rows)(int64_t n, int64_t steps, const R *x, int64_t step, const R *m, R p, R *acc, V (*f)(V, V, V, V))
{
    enum { parts = NN__K(fold_lanes) / NN__LANES, wide = 4 * NN__LANES > NN__K(fold_lanes) ? 4 : parts };
    int64_t i = 0;
    for (; wide > parts && i + wide * NN__LANES <= n; i += wide * NN__LANES) NN__K(fold_strip)(wide, steps, x + i, step, m + i, p, acc + i, f);
    for (; i < n; i += NN__K(fold_lanes)) NN__K(fold_strip)(parts, steps, x + i, step, m + i, p, acc + i, f);
}
#define NN__FOLD(name, formula) \
    NN__INLINE V NN__K(name##_fold_f)(V acc, V x, V m, V p) { (void)acc; (void)x; (void)m; (void)p; return formula; } \
    static void NN__K(name##_fold)(int64_t n, int64_t steps, const R *x, int64_t step, const R *m, R p, R *acc) \
    { NN__K(fold_rows)(n, steps, x, step, m, p, acc, NN__K(name##_fold_f)); }
NN__FOLD(sum, acc + x)

static void NN__K(join)(int how, int64_t n, R *a, const R *b)          // a[i] = a[i] joined with b[i]; a NaN stays
{
    int64_t i;
    switch (how) {
    case NN__JOIN_ADD: for (i = 0; i < n; i++) a[i] += b[i]; break;
    case NN__JOIN_MUL: for (i = 0; i < n; i++) a[i] *= b[i]; break;
    case NN__JOIN_MAX: for (i = 0; i < n; i++) a[i] = b[i] > a[i] || b[i] != b[i] ? b[i] : a[i]; break;
    default:           for (i = 0; i < n; i++) a[i] = b[i] < a[i] || b[i] != b[i] ? b[i] : a[i]; break;
    }
}
static NN__K(stage) NN__K(stage_of)(NN__K(fold) fold, int join, R start)
{
    NN__K(stage) s;
    s.fold = fold; s.join = join; s.start = start;
    return s;
}

// Which numbers of x belong to which result: kept dimensions (k), reduced ones (r), neighbours joined where they are one run.
typedef struct NN__K(walk) {
    const R *x;
    int64_t  ks[NN_MAX_DIMS], kx[NN_MAX_DIMS], ky[NN_MAX_DIMS], rs[NN_MAX_DIMS], rx[NN_MAX_DIMS], terms;
    int      nk, nr;
} NN__K(walk);
static NN__K(walk) NN__K(walk_over)(const nn_view *x, const nn_view *y)    // y: shaped like x, with stride 0 in the reduced dimensions
{
    NN__K(walk) w;
    int d;
    w.x = (const R *)x->data;
    w.nk = w.nr = 0;
    w.terms = 1;
    for (d = 0; d < x->ndim; d++) {
        int64_t n = x->shape[d], sx = x->stride[d], sy = y->stride[d];
        if (n == 1) continue;
        if (sy == 0) {
            w.terms *= n;
            if (w.nr && w.rx[w.nr - 1] == sx * n) { w.rs[w.nr - 1] *= n; w.rx[w.nr - 1] = sx; }
            else { w.rs[w.nr] = n; w.rx[w.nr++] = sx; }
        } else if (w.nk && w.kx[w.nk - 1] == sx * n && w.ky[w.nk - 1] == sy * n) {
            w.ks[w.nk - 1] *= n; w.kx[w.nk - 1] = sx; w.ky[w.nk - 1] = sy;
        } else { w.ks[w.nk] = n; w.kx[w.nk] = sx; w.ky[w.nk++] = sy; }
    }
    if (!w.nk) { w.ks[0] = 1; w.kx[0] = w.ky[0] = 0; w.nk = 1; }
    if (!w.nr) { w.rs[0] = 1; w.rx[0] = 0; w.nr = 1; }
    return w;
}
static int64_t NN__K(walk_offset)(int n, const int64_t *shape, const int64_t *stride, int64_t i)
{
    int64_t o = 0;
    int d;
    for (d = n - 1; d > 0; d--) { o += i % shape[d] * stride[d]; i /= shape[d]; }
    return n > 0 ? o + i * stride[0] : 0;
}
NN__INLINE int64_t NN__K(walk_width)(const NN__K(walk) *w, int64_t at, int64_t end)   // results from `at` on that lie in one row
{
    int64_t inner = w->ks[w->nk - 1];
    return nn__min(nn__min(inner - at % inner, end - at), NN__K(columns));
}

// acc[j] = start f x f x ...: results at .. at + n - 1 of one row, n <= columns. acc and m have room for n rounded up to 16.
static void NN__K(fold_block)(const NN__K(walk) *w, int64_t at, int64_t n, const NN__K(stage) *f, R p, const R *m, R *acc)
{
    enum { lanes = NN__K(fold_lanes), chunk = NN__K(fold_chunk) };
    int64_t pad = (n + lanes - 1) & ~(int64_t)(lanes - 1), stride = w->kx[w->nk - 1], step = w->rx[w->nr - 1], run = w->rs[w->nr - 1];
    int64_t runs = run ? w->terms / run : 0, r, i, j, k, since = 0;
    const R *x = w->x + (w->terms ? NN__K(walk_offset)(w->nk, w->ks, w->kx, at) : 0);
    R part[NN__K(columns)], row[NN__K(columns)];
    for (j = 0; j < pad; j++) acc[j] = f->start;
    if (step == 1 && run >= lanes) {                     // the numbers of a result lie side by side
        R lane[lanes], mine[lanes], rest[lanes];
        for (j = 0; j < n; j++) {
            for (k = 0; k < lanes; k++) { lane[k] = f->start; mine[k] = m[j]; row[k] = 0; }
            for (r = 0; r < runs; r++) for (i = 0; i < run; i += lanes * chunk) {
                const R *q = x + j * stride + NN__K(walk_offset)(w->nr - 1, w->rs, w->rx, r) + i;
                int64_t count = nn__min(run - i, lanes * chunk), tail = count % lanes;
                for (k = 0; k < lanes; k++) part[k] = f->start;
                f->fold(lanes, count / lanes, q, lanes, mine, p, part);
                if (tail) {
                    memcpy(row, q + count - tail, (size_t)tail * sizeof(R));
                    memcpy(rest, part, sizeof rest);
                    f->fold(lanes, 1, row, lanes, mine, p, rest);
                    memcpy(part, rest, (size_t)tail * sizeof(R));
                }
                NN__K(join)(f->join, lanes, lane, part);
            }
            for (k = lanes / 2; k; k /= 2) NN__K(join)(f->join, k, lane, lane + k);
            acc[j] = lane[0];
        }
        return;
    }
    for (j = 0; j < pad; j++) { part[j] = f->start; row[j] = 0; }
    for (r = 0; r < runs; r++) {
        const R *q = x + NN__K(walk_offset)(w->nr - 1, w->rs, w->rx, r);
        for (i = 0; i < run;) {
            int64_t count = nn__min(run - i, chunk - since);
            if (stride == 1 && n == pad) f->fold(pad, count, q + i * step, step, m, p, part);
            else for (k = 0; k < count; k++) {
                const R *from = q + (i + k) * step;
                if (stride == 1) memcpy(row, from, (size_t)n * sizeof(R));
                else for (j = 0; j < n; j++) row[j] = from[j * stride];
                f->fold(pad, 1, row, pad, m, p, part);
            }
            i += count;
            since += count;
            if (since < chunk) continue;
            NN__K(join)(f->join, pad, acc, part);
            for (j = 0; j < pad; j++) part[j] = f->start;
            since = 0;
        }
    }
    if (since) NN__K(join)(f->join, pad, acc, part);
}

// y (+)= scale * sum of x over the dimensions where y has stride 0; y has x's shape, and only positions begin..end of its kept
// dimensions are written.
static void NN__K(sum_to)(const nn_view *x, const nn_view *y, int add, R scale, int64_t begin, int64_t end)
{
    NN__K(walk) w = NN__K(walk_over)(x, y);
    NN__K(stage) f = NN__K(stage_of)(NN__K(sum_fold), NN__JOIN_ADD, 0);
    R acc[NN__K(columns)], none[NN__K(columns)] = { 0 };
    int64_t at, n, j;
    for (at = begin; at < end; at += n) {
        R *to = (R *)y->data + NN__K(walk_offset)(w.nk, w.ks, w.ky, at);
        int64_t stride = w.ky[w.nk - 1];
        n = NN__K(walk_width)(&w, at, end);
        NN__K(fold_block)(&w, at, n, &f, 0, none, acc);
        for (j = 0; j < n; j++) to[j * stride] = add ? to[j * stride] + acc[j] * scale : acc[j] * scale;
    }
}
#endif

// ---- elementwise: the rows of NN_UNARY_OPS, NN_UNARY1_OPS, NN_UNARY2_OPS -----------------------------
#if NN__IN_HOST
#define NN__X(name, keep, f, df) NN_API nn_tensor *nn_##name(nn_tensor *x) \
    { nn__scalars s = { 0, 0 }; return nn__apply1(NN_OP_##name, x, &s); }
NN_UNARY_OPS(NN__X)
#undef NN__X
#define NN__X(name, keep, f, df) NN_API nn_tensor *nn_##name(nn_tensor *x, float p) \
    { nn__scalars s = { 0, 0 }; s.p = p; return nn__apply1(NN_OP_##name, x, &s); }
NN_UNARY1_OPS(NN__X)
#undef NN__X
#define NN__X(name, keep, f, df) NN_API nn_tensor *nn_##name(nn_tensor *x, float p, float q) \
    { nn__scalars s = { 0, 0 }; s.p = p; s.q = q; return nn__apply1(NN_OP_##name, x, &s); }
NN_UNARY2_OPS(NN__X)
#undef NN__X
#endif
#if NN__IN_SIMD
static void NN__K(unary_fwd)(const nn_call *c, const nn_task *t, NN__K(row) f)
{
    const nn__scalars *s = (const nn__scalars *)c->params;
    const nn_view *in[1];
    int64_t n = nn_view_count(&c->out[0]);
    R p[2];
    p[0] = s->p; p[1] = s->q;
    in[0] = &c->in[0];
    NN__K(each)(&c->out[0], 0, in, 1, nn__task_begin(n, t), nn__task_end(n, t), f, p);
}
static void NN__K(unary_bwd)(const nn_call *c, const nn_task *t, NN__K(row) df)
{
    const nn__scalars *s = (const nn__scalars *)c->params;
    const nn_view *in[3];
    int64_t n = nn_view_count(&c->out[0]);
    R p[2];
    p[0] = s->p; p[1] = s->q;
    in[0] = c->in[0].data  ? &c->in[0]  : &c->dout[0];   // what was not kept is not read by df
    in[1] = c->out[0].data ? &c->out[0] : &c->dout[0];
    in[2] = &c->dout[0];
    NN__K(each)(&c->din[0], c->add & 1, in, 3, nn__task_begin(n, t), nn__task_end(n, t), df, p);
}
#define NN__X(name, keep, f, df) \
    NN__INLINE V NN__K(name##_f)(V x, V p, V q)              { (void)x; (void)p; (void)q; return f; } \
    NN__INLINE V NN__K(name##_d)(V x, V y, V dy, V p, V q)   { (void)x; (void)y; (void)dy; (void)p; (void)q; return df; } \
    static void NN__K(name##_row)(int64_t n, R *y, const R *const *in, const R *p)   { NN__K(map1)(n, y, in[0], p, NN__K(name##_f)); } \
    static void NN__K(name##_drow)(int64_t n, R *dx, const R *const *in, const R *p) { NN__K(map3)(n, dx, in[0], in[1], in[2], p, NN__K(name##_d)); } \
    NN__FORWARD(name)  { NN__K(unary_fwd)(c, t, NN__K(name##_row)); } \
    NN__BACKWARD(name) { NN__K(unary_bwd)(c, t, NN__K(name##_drow)); }
NN__SIMPLE_BEGIN
NN_UNARY_OPS(NN__X)
NN_UNARY1_OPS(NN__X)
NN_UNARY2_OPS(NN__X)
NN__SIMPLE_END
#undef NN__X
#endif

// ---- elementwise with broadcasting: the rows of NN_BINARY_OPS, and where ------------------------------
#if NN__IN_HOST
static nn_tensor *nn__no_input(int op, const nn_tensor *other)      // NULL where no input may be missing
{
    nn_context *nn = other ? other->nn : NULL;
    if (nn) nn_fail(nn, "%s: the tensor is NULL", nn__op(op)->name);
    return nn__inert(nn);
}
#define NN__X(name, keep, f, da, db) \
    NN_API nn_tensor *nn_##name(nn_tensor *a, nn_tensor *b) { return a && b ? nn__apply2(NN_OP_##name, a, b, NULL) : nn__no_input(NN_OP_##name, a ? a : b); }
NN_BINARY_OPS(NN__X)
#undef NN__X
NN_API nn_tensor *nn_where(nn_tensor *condition, nn_tensor *a, nn_tensor *b)
{
    nn_context *nn = condition ? condition->nn : NULL;
    if (condition && nn__check(nn, condition, "where") && condition->dtype != (int)nn->desc.dtype) condition = nn_cast(condition, nn->desc.dtype);
    if (!condition || !a || !b) return nn__no_input(NN_OP_where, condition ? condition : a ? a : b);
    return nn__apply3(NN_OP_where, condition, a, b, NULL);
}
#endif
#if NN__IN_SIMD
static void NN__K(broadcast_fwd)(const nn_call *c, const nn_task *t, NN__K(row) f)
{
    nn_view v[3];
    const nn_view *in[3];
    int64_t n = nn_view_count(&c->out[0]);
    int i;
    in[0] = in[1] = in[2] = &c->in[0];
    for (i = 1; i < c->nin; i++) in[i] = &c->in[i];
    if (NN__K(alike)(&c->out[0], in, c->nin)) { NN__K(each_alike)((R *)c->out[0].data, in, c->nin, nn__task_begin(n, t), nn__task_end(n, t), f, NULL); return; }
    for (i = 0; i < c->nin; i++) { v[i] = NN__K(broadcast)(&c->in[i], &c->out[0]); in[i] = &v[i]; }
    NN__K(each)(&c->out[0], 0, in, c->nin, nn__task_begin(n, t), nn__task_end(n, t), f, NULL);
}
// Gradients of all operands; df[i] may be NULL. An operand that was broadcast gets its gradient by way of c->shared.
static void NN__K(broadcast_bwd)(const nn_call *c, const nn_task *t, const NN__K(row) *df)
{
    nn_view v[3], full;
    const nn_view *in[5];
    int64_t n = nn_view_count(&c->out[0]), begin, end;
    R *temp = (R *)c->shared;
    int i, m = c->nin;
    for (i = 0; i < m; i++) {
        v[i] = NN__K(broadcast)(&c->in[i], &c->out[0]);
        in[i] = c->in[i].data ? &v[i] : &c->dout[0];
    }
    in[m] = c->out[0].data ? &c->out[0] : &c->dout[0];
    in[m + 1] = &c->dout[0];
    for (i = 0; i < m; i++) {
        int reduce = c->din[i].ndim != c->out[0].ndim || memcmp(c->din[i].shape, c->out[0].shape, (size_t)c->out[0].ndim * sizeof(int64_t));
        if (!c->din[i].data || !df[i]) continue;
        full = reduce ? c->dout[0] : c->din[i];          // dout is contiguous: so is the temporary
        if (reduce) full.data = temp;
        if (t->phase == 0) {
            begin = nn__task_begin(n, t);
            end = nn__task_end(n, t);
            NN__K(each)(&full, reduce ? 0 : (int)(c->add >> i & 1), in, m + 2, begin, end, df[i], NULL);
        } else if (reduce) {
            nn_view to = NN__K(broadcast)(&c->din[i], &full);
            int64_t kept = nn_view_count(&c->din[i]);
            NN__K(sum_to)(&full, &to, (int)(c->add >> i & 1), 1, nn__task_begin(kept, t), nn__task_end(kept, t));
        }
        if (reduce) temp = (R *)(void *)((char *)temp + nn__round_up((size_t)n * sizeof(R)));
    }
}
#define NN__X(name, keep, f, da, db) \
    NN__INLINE V NN__K(name##_f)(V a, V b)                   { (void)a; (void)b; return f; } \
    NN__INLINE V NN__K(name##_da)(V a, V b, V y, V dy)       { (void)a; (void)b; (void)y; (void)dy; return da; } \
    NN__INLINE V NN__K(name##_db)(V a, V b, V y, V dy)       { (void)a; (void)b; (void)y; (void)dy; return db; } \
    static void NN__K(name##_row)(int64_t n, R *y, const R *const *in, const R *p)    { (void)p; NN__K(map2)(n, y, in[0], in[1], NN__K(name##_f)); } \
    static void NN__K(name##_darow)(int64_t n, R *da_, const R *const *in, const R *p) { (void)p; NN__K(map4)(n, da_, in[0], in[1], in[2], in[3], NN__K(name##_da)); } \
    static void NN__K(name##_dbrow)(int64_t n, R *db_, const R *const *in, const R *p) { (void)p; NN__K(map4)(n, db_, in[0], in[1], in[2], in[3], NN__K(name##_db)); } \
    NN__FORWARD(name)  { NN__K(broadcast_fwd)(c, t, NN__K(name##_row)); } \
    NN__BACKWARD(name) { NN__K(row) df[2]; df[0] = NN__K(name##_darow); df[1] = NN__K(name##_dbrow); NN__K(broadcast_bwd)(c, t, df); }
NN__SIMPLE_BEGIN
NN_BINARY_OPS(NN__X)
NN__SIMPLE_END
#undef NN__X

static void NN__K(where_row)(int64_t n, R *y, const R *const *in, const R *p)        // in: condition, a, b
{
    int64_t i;
    (void)p;
    for (i = 0; i < n; i++) y[i] = in[0][i] != 0 ? in[1][i] : in[2][i];
}
static void NN__K(where_darow)(int64_t n, R *da, const R *const *in, const R *p)     // in: condition, a, b, y, dy
{
    int64_t i;
    (void)p;
    for (i = 0; i < n; i++) da[i] = in[0][i] != 0 ? in[4][i] : 0;
}
static void NN__K(where_dbrow)(int64_t n, R *db, const R *const *in, const R *p)
{
    int64_t i;
    (void)p;
    for (i = 0; i < n; i++) db[i] = in[0][i] != 0 ? 0 : in[4][i];
}
static void NN__K(where_dcrow)(int64_t n, R *dc, const R *const *in, const R *p)     // a condition has no slope
{
    (void)in; (void)p;
    NN__K(fill_with)(n, dc, 0);
}
NN__FORWARD(where)  { NN__K(broadcast_fwd)(c, t, NN__K(where_row)); }
NN__BACKWARD(where)
{
    NN__K(row) df[3];
    df[0] = NN__K(where_dcrow); df[1] = NN__K(where_darow); df[2] = NN__K(where_dbrow);
    NN__K(broadcast_bwd)(c, t, df);
}
#endif

// ---- copy, cast, fill, random: memory to memory, any strides -------------------------------------------
#if NN__IN_HOST
static int nn__cast_shape(nn_call *c)
{
    nn__set_shape(&c->out[0], *(const int *)c->params, c->in[0].ndim, c->in[0].shape);
    return 1;
}
NN_API nn_tensor *nn_cast(nn_tensor *x, nn_dtype dtype)
{
    int to = (int)dtype;
    if (x && !nn__dead(x) && x->dtype == to) return x;
    return nn__apply1(NN_OP_cast, x, &to);
}
NN_API nn_tensor *nn_contiguous(nn_tensor *x)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_tensor *t;
    if (!nn__check(nn, x, "nn_contiguous")) return nn__inert(nn);
    if (nn__contiguous_tensor(x)) return x;
    if (x->dtype == (int)nn->desc.dtype) return nn__apply1(NN_OP_contiguous, x, NULL);
    t = nn__alloc_tensor(nn, 0, (nn_dtype)x->dtype, x->ndim, x->shape);   // other dtypes have no gradient
    if (!nn__dead(t)) nn__copy_view(nn, nn__view_of(t), nn__view_of(x));
    return t;
}
// A stream of numbers in the current step: the same wherever and however it is computed.
static nn_tensor *nn__random_tensor(nn_context *nn, nn_shape shape, int kind, double a, double b)
{
    nn_tensor *t = nn_ok(nn) ? nn__alloc_tensor(nn, 0, nn->desc.dtype, shape.ndim, shape.d) : nn__inert(nn);
    if (!nn__dead(t)) nn__randomize(nn, nn__view_of(t), nn->random_step, nn__ordinal(NN__DOMAIN_OP, nn->ordinal++), kind, a, b, 0, 0);
    return t;
}
NN_API nn_tensor *nn_rand(nn_context *nn, nn_shape shape, float low, float high)  { return nn__random_tensor(nn, shape, NN__UNIFORM, low, high); }
NN_API nn_tensor *nn_randn(nn_context *nn, nn_shape shape, float mean, float std) { return nn__random_tensor(nn, shape, NN__NORMAL, mean, std); }
#endif
#if NN__IN_PLAIN
// Offset in elements of logical element i of v.
NN__INLINE int64_t NN__K(offset)(const nn_view *v, int64_t i)
{
    int64_t o = 0;
    int d;
    for (d = v->ndim - 1; d >= 0; d--) { o += i % v->shape[d] * v->stride[d]; i /= v->shape[d]; }
    return o;
}

static void NN__K(half_bits)(const void *p, int bf16, double *to)      // IEEE binary16 or bfloat16 -> double
{
    uint16_t h;
    uint32_t w;
    float f;
    memcpy(&h, p, 2);
    if (bf16) { w = (uint32_t)h << 16; memcpy(&f, &w, 4); *to = f; return; }
    {
        int e = h >> 10 & 31, m = h & 1023, s = h >> 15;
        double v = e == 31 ? (m ? (double)NAN : (double)INFINITY) : e ? ldexp(1.0 + m / 1024.0, e - 15) : ldexp(m / 1024.0, -14);
        *to = s ? -v : v;
    }
}
static uint16_t NN__K(to_bf16)(float f)                  // round to nearest, ties to even
{
    uint32_t w;
    memcpy(&w, &f, 4);
    if ((w & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(w >> 16 | 64);
    return (uint16_t)((w + 0x7FFF + (w >> 16 & 1)) >> 16);
}
static uint16_t NN__K(to_f16)(float f)
{
    uint32_t w, sign, m;
    int e;
    memcpy(&w, &f, 4);
    sign = w >> 16 & 0x8000;
    w &= 0x7FFFFFFF;
    if (w > 0x7F800000) return (uint16_t)(sign | 0x7E00);
    if (w >= 0x477FF000) return (uint16_t)(sign | 0x7C00);   // rounds to infinity
    if (w < 0x33000000) return (uint16_t)sign;               // rounds to zero
    e = (int)(w >> 23) - 112;
    m = (w & 0x7FFFFF) | 0x800000;
    if (e > 0) {
        w = ((uint32_t)e << 10) + ((m & 0x7FFFFF) >> 13);
        m = m & 0x1FFF;
        return (uint16_t)(sign | (w + (m > 0x1000 || (m == 0x1000 && (w & 1)))));
    } else {
        int shift = 14 - e;
        uint32_t rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
        w = m >> shift;
        return (uint16_t)(sign | (w + (rest > half || (rest == half && (w & 1)))));
    }
}

static double NN__K(get)(const nn_view *v, int64_t at)
{
    const char *p = (const char *)v->data + at * (int64_t)nn_dtype_bytes((nn_dtype)v->dtype);
    double d = 0;
    switch (v->dtype) {
    case NN_F32:  { float f;   memcpy(&f, p, 4); return f; }
    case NN_F64:  memcpy(&d, p, 8); return d;
    case NN_F16:  NN__K(half_bits)(p, 0, &d); return d;
    case NN_BF16: NN__K(half_bits)(p, 1, &d); return d;
    case NN_I8:   return *(const int8_t *)p;
    case NN_U8:   return *(const uint8_t *)p;
    case NN_BOOL: return *p != 0;
    case NN_I32:  { int32_t i; memcpy(&i, p, 4); return i; }
    case NN_I64:  { int64_t i; memcpy(&i, p, 8); return (double)i; }
    }
    return d;
}

// Integers saturate, and NaN becomes 0: no conversion is undefined.
static int64_t NN__K(to_int)(double d, double low, double high, int64_t least, int64_t most)
{
    if (!(d == d)) return 0;
    if (d <= low) return least;
    if (d >= high) return most;
    return (int64_t)d;
}
static void NN__K(put)(const nn_view *v, int64_t at, double d)
{
    char *p = (char *)v->data + at * (int64_t)nn_dtype_bytes((nn_dtype)v->dtype);
    switch (v->dtype) {
    case NN_F32:  { float f = (float)d; memcpy(p, &f, 4); break; }
    case NN_F64:  memcpy(p, &d, 8); break;
    case NN_F16:  { uint16_t h = NN__K(to_f16)((float)d);  memcpy(p, &h, 2); break; }
    case NN_BF16: { uint16_t h = NN__K(to_bf16)((float)d); memcpy(p, &h, 2); break; }
    case NN_I8:   *(int8_t *)p  = (int8_t)NN__K(to_int)(d, -128, 127, -128, 127); break;
    case NN_U8:   *(uint8_t *)p = (uint8_t)NN__K(to_int)(d, 0, 255, 0, 255); break;
    case NN_BOOL: *p = (char)(d != 0); break;
    case NN_I32:  { int32_t i = (int32_t)NN__K(to_int)(d, -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX); memcpy(p, &i, 4); break; }
    case NN_I64:  { int64_t i = NN__K(to_int)(d, -9223372036854775808.0, 9223372036854775807.0, INT64_MIN, INT64_MAX); memcpy(p, &i, 8); break; }
    }
}
NN__UNUSED static int64_t NN__K(get_int)(const nn_view *v, int64_t at)   // an index: i32 or i64 exactly, others truncated
{
    int64_t i;
    if (v->dtype != NN_I64) return NN__K(to_int)(NN__K(get)(v, at), -9.2e18, 9.2e18, INT64_MIN, INT64_MAX);
    memcpy(&i, (const int64_t *)v->data + at, 8);
    return i;
}

NN__FORWARD(copy)                    // same dtype, any strides
{
    const nn_view *x = &c->in[0], *y = &c->out[0];
    size_t e = nn_dtype_bytes((nn_dtype)x->dtype);
    int64_t n = nn_view_count(x), run = x->ndim ? x->shape[x->ndim - 1] : 1, i, j;
    (void)t;
    if (nn__contiguous_view(x) && nn__contiguous_view(y)) { if (n) memmove(y->data, x->data, (size_t)n * e); return; }
    for (i = 0; i < n; i += run) {
        const char *p = (const char *)x->data + NN__K(offset)(x, i) * (int64_t)e;
        char *q = (char *)y->data + NN__K(offset)(y, i) * (int64_t)e;
        int64_t sp = x->ndim ? x->stride[x->ndim - 1] * (int64_t)e : 0, sq = y->ndim ? y->stride[y->ndim - 1] * (int64_t)e : 0;
        if (sp == (int64_t)e && sq == (int64_t)e) memcpy(q, p, (size_t)run * e);
        else for (j = 0; j < run; j++) memcpy(q + j * sq, p + j * sp, e);
    }
}

NN__FORWARD(cast)
{
    int64_t n = nn_view_count(&c->in[0]), i;
    int ints = c->in[0].dtype == NN_I64 && c->out[0].dtype == NN_I64;
    (void)t;
    if (ints) { NN__K(copy_fwd)(c, t); return; }
    for (i = 0; i < n; i++) NN__K(put)(&c->out[0], NN__K(offset)(&c->out[0], i), NN__K(get)(&c->in[0], NN__K(offset)(&c->in[0], i)));
}
NN__BACKWARD(cast)
{
    const nn_view *x = &c->din[0], *y = &c->dout[0];
    int64_t n = nn_view_count(x), i;
    (void)t;
    for (i = 0; i < n; i++) {
        int64_t at = NN__K(offset)(x, i);
        NN__K(put)(x, at, NN__K(get)(y, NN__K(offset)(y, i)) + (c->add & 1 ? NN__K(get)(x, at) : 0));
    }
}

NN__FORWARD(fill)
{
    double v = *(const double *)c->params;
    nn_view y = c->out[0];
    int64_t n = nn_view_count(&y), i = nn__task_begin(n, t), end = nn__task_end(n, t);
    size_t e = nn_dtype_bytes((nn_dtype)y.dtype), bytes = (size_t)(end - i) * e, done, most;
    char *to = (char *)y.data + (size_t)i * e;
    if (i == end) return;
    if (!nn__contiguous_view(&y)) { for (; i < end; i++) NN__K(put)(&y, NN__K(offset)(&y, i), v); return; }
    if (v == 0 && !signbit(v)) { memset(to, 0, bytes); return; }
    y.data = to;
    NN__K(put)(&y, 0, v);
    for (done = e; done < bytes; done += most) {         // what is there is copied behind itself, up to a page at a time
        most = done < 4096 ? done : 4096;
        if (most > bytes - done) most = bytes - done;
        memcpy(to + done, to, most);
    }
}

// Numbers 4 j .. 4 j + 3 come from one Philox block. Uniform: 24 bits. Normal: Box & Muller 1958, in our own log, cos and sin.
NN__FORWARD(random)
{
    const nn__random_params *p = (const nn__random_params *)c->params;
    const nn_view *y = &c->out[0];
    int64_t n = nn_view_count(y), i;
    int k;
    (void)t;
    for (i = 0; i < n; i += 4) {
        uint32_t r[4];
        float z[4];
        nn__philox(c->seed, c->step, c->ordinal, (uint64_t)(i / 4), r);
        for (k = 0; k < 4; k++) z[k] = (float)(r[k] >> 8) * (1.0f / 16777216.0f);
        if (p->kind != NN__UNIFORM) for (k = 0; k < 4; k += 2) {
            R u = (R)(1.0f - z[k]), radius = SQRT(C(-2) * LOG(u)), angle = (R)(6.28318530717958647692 * (double)z[k + 1]);
            z[k] = (float)(radius * COS(angle));
            z[k + 1] = (float)(radius * SIN(angle));
        }
        for (k = 0; k < 4 && i + k < n; k++) {
            double v = p->kind == NN__UNIFORM ? p->a + (p->b - p->a) * (double)z[k] : p->a + p->b * (double)z[k];
            uint64_t again = 1;
            while (p->kind == NN__TRUNC_NORMAL && !(v >= p->low && v <= p->high) && again < 1000) {     // rejection
                nn__philox(c->seed, c->step, c->ordinal, (uint64_t)(i + k) | again++ << 40, r);
                v = (double)SQRT(C(-2) * LOG((R)(1.0f - (float)(r[0] >> 8) * (1.0f / 16777216.0f))));
                v = p->a + p->b * v * (double)COS((R)(6.28318530717958647692 * (double)(r[1] >> 8) * (1.0 / 16777216.0)));
            }
            if (p->kind == NN__TRUNC_NORMAL) v = v < p->low ? p->low : v > p->high ? p->high : v;   // bounds far out in a tail
            NN__K(put)(y, NN__K(offset)(y, i + k), v);
        }
    }
}
#endif
#if NN__IN_SIMD
NN__FORWARD(accumulate)              // out += in
{
    const nn_view *in[1];
    int64_t n = nn_view_count(&c->out[0]);
    in[0] = &c->in[0];
    NN__K(each)(&c->out[0], 1, in, 1, nn__task_begin(n, t), nn__task_end(n, t), NULL, NULL);
}
NN__FORWARD(contiguous)
{
    const nn_view *in[1];
    int64_t n = nn_view_count(&c->out[0]);
    in[0] = &c->in[0];
    NN__K(each)(&c->out[0], 0, in, 1, nn__task_begin(n, t), nn__task_end(n, t), NULL, NULL);
}
// din (+)= dout, where `to` is din seen in the shape of dout
static void NN__K(give_back)(const nn_call *c, const nn_task *t, const nn_view *to, const nn_view *from)
{
    const nn_view *in[1];
    int64_t n = nn_view_count(to);
    in[0] = from;
    NN__K(each)(to, (int)(c->add & 1), in, 1, nn__task_begin(n, t), nn__task_end(n, t), NULL, NULL);
}
NN__BACKWARD(contiguous) { NN__K(give_back)(c, t, &c->din[0], &c->dout[0]); }
#endif

// ---- views: the result shares the storage of x; backward writes into the same part of dx ----------------
#if NN__IN_HOST
static int nn__reshape_shape(nn_call *c)
{
    const nn_shape *p = (const nn_shape *)c->params;
    const nn_view *x = &c->in[0];
    int64_t d[NN_MAX_DIMS], n = 1, count = nn_view_count(x);
    int i, open = -1;
    for (i = 0; i < p->ndim; i++) {
        d[i] = p->d[i];
        if (d[i] == -1 && open < 0) { open = i; continue; }
        if (d[i] < 0 || (d[i] && n > INT64_MAX / d[i])) n = -1;
        if (n >= 0) n *= d[i];
    }
    if (open >= 0 && n > 0 && count % n == 0) { d[open] = count / n; n = count; }
    if (n != count) { nn_fail(c->nn, "reshape: %s does not fit %s", NN__SHAPE_OF(x), nn__dims_text(p->ndim, p->d).s); return 0; }
    nn__set_shape(&c->out[0], x->dtype, p->ndim, d);
    c->out[0].data = x->data;
    if (nn__contiguous_view(x)) return 1;
    for (i = 0, open = 0; i < p->ndim; i++) {            // squeeze, unsqueeze: only sizes 1 come and go
        if (d[i] == 1) continue;
        while (x->shape[open] == 1) open++;
        c->out[0].stride[i] = x->stride[open++];
    }
    return 1;
}
NN_API nn_tensor *nn_squeeze(nn_tensor *x, int dim)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_shape s = nn_shape_of(x);
    int d, i;
    if (!nn__check(nn, x, "nn_squeeze")) return nn__inert(nn);
    d = nn__dim_index(nn, "nn_squeeze", dim, s.ndim);
    if (d < 0) return nn__inert(nn);
    if (s.d[d] != 1) return x;       // as PyTorch
    for (i = d; i + 1 < s.ndim; i++) s.d[i] = s.d[i + 1];
    s.ndim--;
    return nn__apply1(NN_OP_reshape, x, &s);
}
NN_API nn_tensor *nn_unsqueeze(nn_tensor *x, int dim)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_shape s = nn_shape_of(x);
    int d, i;
    if (!nn__check(nn, x, "nn_unsqueeze")) return nn__inert(nn);
    if (s.ndim == NN_MAX_DIMS) { nn_fail(nn, "nn_unsqueeze: more than %d dimensions", NN_MAX_DIMS); return nn__inert(nn); }
    d = nn__dim_index(nn, "nn_unsqueeze", dim, s.ndim + 1);
    if (d < 0) return nn__inert(nn);
    for (i = s.ndim++; i > d; i--) s.d[i] = s.d[i - 1];
    s.d[d] = 1;
    return nn__apply1(NN_OP_reshape, x, &s);
}
NN_API nn_tensor *nn_reshape(nn_tensor *x, nn_shape shape)
{
    x = nn_contiguous(x);
    return nn__apply1(NN_OP_reshape, x, &shape);
}
NN_API nn_tensor *nn_flatten(nn_tensor *x, int start_dim)
{
    nn_shape s = nn_shape_of(x);
    int d;
    if (!x || !nn__check(x->nn, x, "nn_flatten")) return nn__inert(x ? x->nn : NULL);
    d = s.ndim ? nn__dim_index(x->nn, "nn_flatten", start_dim, s.ndim) : 0;
    if (d < 0) return nn__inert(x->nn);
    for (; s.ndim > d + 1; s.ndim--) s.d[d] *= s.d[s.ndim - 1] ? s.d[s.ndim - 1] : 0;
    if (s.ndim == 0) s = nn__shape1(1);
    return nn_reshape(x, s);
}

static int nn__permute_shape(nn_call *c)
{
    const nn_shape *p = (const nn_shape *)c->params;
    const nn_view *x = &c->in[0];
    nn_view *y = &c->out[0];
    unsigned seen = 0;
    int i;
    for (i = 0; i < p->ndim && p->ndim == x->ndim; i++) {
        int64_t d = p->d[i] < 0 ? p->d[i] + x->ndim : p->d[i];
        if (d < 0 || d >= x->ndim) break;
        seen |= 1u << d;
        y->shape[i] = x->shape[d];
        y->stride[i] = x->stride[d];
    }
    if (p->ndim != x->ndim || seen != (1u << x->ndim) - 1) {
        nn_fail(c->nn, "permute: %s is not an order of the dimensions of %s", nn__dims_text(p->ndim, p->d).s, NN__SHAPE_OF(x));
        return 0;
    }
    y->ndim = x->ndim;
    y->dtype = x->dtype;
    y->data = x->data;
    return 1;
}
NN_API nn_tensor *nn_permute(nn_tensor *x, nn_shape dims) { return nn__apply1(NN_OP_permute, x, &dims); }
NN_API nn_tensor *nn_transpose(nn_tensor *x, int dim0, int dim1)
{
    nn_shape s = nn_shape_of(x);
    nn_context *nn = x ? x->nn : NULL;
    int a, b, i;
    if (!nn__check(nn, x, "nn_transpose")) return nn__inert(nn);
    a = nn__dim_index(nn, "nn_transpose", dim0, s.ndim);
    b = nn__dim_index(nn, "nn_transpose", dim1, s.ndim);
    if (a < 0 || b < 0) return nn__inert(nn);
    for (i = 0; i < s.ndim; i++) s.d[i] = i == a ? b : i == b ? a : i;
    return nn_permute(x, s);
}

static int nn__slice_shape(nn_call *c)
{
    const nn__slice_params *p = (const nn__slice_params *)c->params;
    nn_view *y = &c->out[0];
    *y = c->in[0];
    y->shape[p->dim] = p->count;
    y->stride[p->dim] *= p->step;
    if (y->data && p->count) y->data = (char *)y->data + p->start * c->in[0].stride[p->dim] * (int64_t)nn_dtype_bytes((nn_dtype)y->dtype);
    return 1;
}
NN_API nn_tensor *nn_slice(nn_tensor *x, int dim, int64_t start, int64_t end, int64_t step)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__slice_params p;
    int64_t n;
    if (!nn__check(nn, x, "nn_slice")) return nn__inert(nn);
    memset(&p, 0, sizeof p);
    p.dim = nn__dim_index(nn, "nn_slice", dim, x->ndim);
    if (p.dim < 0) return nn__inert(nn);
    if (step < 1) { nn_fail(nn, "nn_slice: step %lld is not positive", (long long)step); return nn__inert(nn); }
    n = x->shape[p.dim];             // as Python: negative counts from the end, beyond the end means the end
    start = nn__max(0, nn__min(n, start < 0 ? start + n : start));
    end = nn__max(start, nn__min(n, end < 0 ? end + n : end));
    p.start = start; p.step = step;
    p.count = (end - start + step - 1) / step;
    return nn__apply1(NN_OP_slice, x, &p);
}

static int nn__expand_shape(nn_call *c)
{
    const nn_shape *p = (const nn_shape *)c->params;
    const nn_view *x = &c->in[0];
    nn_view *y = &c->out[0];
    int i, lead = p->ndim - x->ndim;
    for (i = 0; i < p->ndim; i++) {
        int64_t n = i < lead || lead < 0 ? 1 : x->shape[i - lead], want = p->d[i] == -1 && i >= lead ? n : p->d[i];
        if (lead < 0 || want < 0 || (n != 1 && n != want)) { nn_fail(c->nn, "expand: %s does not expand to %s", NN__SHAPE_OF(x), nn__dims_text(p->ndim, p->d).s); return 0; }
        y->shape[i] = want;
        y->stride[i] = i < lead || n != want ? 0 : x->stride[i - lead];
    }
    if (lead < 0) { nn_fail(c->nn, "expand: %s does not expand to %s", NN__SHAPE_OF(x), nn__dims_text(p->ndim, p->d).s); return 0; }
    y->ndim = p->ndim;
    y->dtype = x->dtype;
    y->data = x->data;
    return 1;
}
NN_API nn_tensor *nn_expand(nn_tensor *x, nn_shape shape) { return nn__apply1(NN_OP_expand, x, &shape); }
#endif
#if NN__IN_SIMD
NN__BACKWARD(reshape)
{
    nn_view to = c->din[0], from = c->dout[0];
    if (nn__contiguous_view(&to)) nn__set_shape(&to, to.dtype, from.ndim, from.shape);
    else nn__set_shape(&from, from.dtype, to.ndim, to.shape);        // dout always is contiguous
    NN__K(give_back)(c, t, &to, &from);
}
NN__BACKWARD(permute)
{
    const nn_shape *p = (const nn_shape *)c->params;
    nn_view to = c->din[0];
    int i;
    for (i = 0; i < to.ndim; i++) {
        int64_t d = p->d[i] < 0 ? p->d[i] + to.ndim : p->d[i];
        to.shape[i] = c->din[0].shape[d];
        to.stride[i] = c->din[0].stride[d];
    }
    NN__K(give_back)(c, t, &to, &c->dout[0]);
}
NN__BACKWARD(slice)
{
    const nn__slice_params *p = (const nn__slice_params *)c->params;
    nn_view to = c->din[0];
    to.shape[p->dim] = p->count;
    to.data = (R *)to.data + p->start * to.stride[p->dim];
    to.stride[p->dim] *= p->step;
    NN__K(give_back)(c, t, &to, &c->dout[0]);
}
NN__BACKWARD(expand)                 // a number that was used many times gets the sum of its gradients
{
    nn_view to = NN__K(broadcast)(&c->din[0], &c->dout[0]);
    int64_t n = nn_view_count(&c->din[0]);
    NN__K(sum_to)(&c->dout[0], &to, (int)(c->add & 1), 1, nn__task_begin(n, t), nn__task_end(n, t));
}
#endif

// ---- select, split, chunk, repeat, flip: made of views ---------------------------------------------------
#if NN__IN_HOST
NN_API nn_tensor *nn_select(nn_tensor *x, int dim, int64_t index)
{
    nn_context *nn = x ? x->nn : NULL;
    int d;
    int64_t i;
    if (!nn__check(nn, x, "select")) return nn__inert(nn);
    d = nn__dim_index(nn, "select", dim, x->ndim);
    if (d < 0) return nn__inert(nn);
    i = index < 0 ? index + x->shape[d] : index;
    if (i < 0 || i >= x->shape[d]) { nn_fail(nn, "select: index %lld of dimension %d of %s", (long long)index, d, nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
    return nn_squeeze(nn_slice(x, d, i, i + 1, 1), d);
}
NN_API void nn_split(nn_tensor *x, nn_shape sizes, int dim, nn_tensor **ys)
{
    nn_context *nn = x ? x->nn : NULL;
    int64_t sum = 0, at = 0;
    int d, i, bad = 0;
    for (i = 0; i < sizes.ndim; i++) ys[i] = nn__inert(nn);
    if (!nn__check(nn, x, "split")) return;
    d = nn__dim_index(nn, "split", dim, x->ndim);
    if (d < 0) return;
    for (i = 0; i < sizes.ndim; i++) {
        if (sizes.d[i] < 0 || sizes.d[i] > x->shape[d] - sum) bad = 1;
        else sum += sizes.d[i];
    }
    if (bad || sum != x->shape[d]) {
        nn_fail(nn, "split: sizes %s do not add up to dimension %d of %s", nn__dims_text(sizes.ndim, sizes.d).s, d, nn__dims_text(x->ndim, x->shape).s);
        return;
    }
    for (i = 0; i < sizes.ndim; at += sizes.d[i++]) ys[i] = nn_slice(x, d, at, at + sizes.d[i], 1);
}
NN_API void nn_chunk(nn_tensor *x, int parts, int dim, nn_tensor **ys)
{
    nn_context *nn = x ? x->nn : NULL;
    int64_t n;
    int d, i;
    for (i = 0; i < parts; i++) ys[i] = nn__inert(nn);
    if (!nn__check(nn, x, "chunk")) return;
    d = nn__dim_index(nn, "chunk", dim, x->ndim);
    if (d < 0) return;
    n = parts > 0 ? x->shape[d] / parts : 0;
    if (parts < 1 || n * parts != x->shape[d]) {
        nn_fail(nn, "chunk: dimension %d of %s does not divide into %d equal parts; see nn_split", d, nn__dims_text(x->ndim, x->shape).s, parts);
        return;
    }
    for (i = 0; i < parts; i++) ys[i] = nn_slice(x, d, i * n, (i + 1) * n, 1);
}
// Repeating dimension d of a contiguous x: (outer, 1, n inner) expanded to (outer, times, n inner).
NN_API nn_tensor *nn_repeat(nn_tensor *x, nn_shape times)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_shape s, t;
    int i, lead;
    if (!nn__check(nn, x, "repeat")) return nn__inert(nn);
    lead = times.ndim - x->ndim;
    s = times;
    for (i = 0; i < times.ndim && lead >= 0; i++) {
        int64_t n = i < lead ? 1 : x->shape[i - lead];
        if (times.d[i] < 0 || (n && times.d[i] > INT64_MAX / n)) break;
        s.d[i] = n * times.d[i];
    }
    if (lead < 0 || i < times.ndim || nn__checked_count(s.ndim, s.d, 8) < 0) {
        nn_fail(nn, "repeat: %s cannot be repeated %s times", nn__dims_text(x->ndim, x->shape).s, nn__dims_text(times.ndim, times.d).s);
        return nn__inert(nn);
    }
    s = times;
    for (i = 0; i < s.ndim; i++) s.d[i] = i < lead ? 1 : x->shape[i - lead];
    if (lead) x = nn_reshape(x, s);
    for (i = 0; i < s.ndim; i++) {
        int64_t outer = 1, rest = 1;
        int j;
        if (times.d[i] == 1) continue;
        for (j = 0; j < i; j++) outer *= s.d[j];
        for (j = i; j < s.ndim; j++) rest *= s.d[j];
        t = nn__shape2(outer, 1);
        t.ndim = 3; t.d[2] = rest;
        x = nn_reshape(x, t);
        t.d[1] = times.d[i];
        x = nn_expand(x, t);
        s.d[i] *= times.d[i];
        x = nn_reshape(x, s);
    }
    return x;
}
// A bit per dimension of x; no dims: all of them. 0 after an error.
static int nn__dims_mask(nn_context *nn, const char *op, const nn_tensor *x, nn_shape dims, unsigned *mask)
{
    int i;
    *mask = 0;
    if (!nn__check(nn, x, op)) return 0;
    for (i = 0; i < dims.ndim; i++) {
        int d = nn__dim_index(nn, op, (int)nn__max(-99, nn__min(99, dims.d[i])), x->ndim);
        if (d < 0) return 0;
        if (*mask & 1u << d) { nn_fail(nn, "%s: dimension %d is given twice", op, d); return 0; }
        *mask |= 1u << d;
    }
    if (dims.ndim == 0) *mask = (1u << x->ndim) - 1;
    return 1;
}
// The last number first, and steps backwards: a view with negative strides. nn_flip hands out a copy, so that no other op meets them.
static nn_view nn__flipped(nn_view v, int mask)
{
    int64_t start = 0;
    int i;
    for (i = 0; i < v.ndim; i++) {
        if (!(mask & 1 << i)) continue;
        if (v.shape[i] > 1) start += (v.shape[i] - 1) * v.stride[i];
        v.stride[i] = -v.stride[i];
    }
    if (v.data && nn_view_count(&v)) v.data = (char *)v.data + start * (int64_t)nn_dtype_bytes((nn_dtype)v.dtype);
    return v;
}
static int nn__flip_shape(nn_call *c) { c->out[0] = nn__flipped(c->in[0], *(const int *)c->params); return 1; }
NN_API nn_tensor *nn_flip(nn_tensor *x, nn_shape dims)
{
    nn_context *nn = x ? x->nn : NULL;
    unsigned mask;
    int p;
    if (!nn__dims_mask(nn, "flip", x, dims, &mask)) return nn__inert(nn);
    p = (int)mask;
    return nn_contiguous(nn__apply1(NN_OP_flip, x, &p));
}
#endif
#if NN__IN_SIMD
NN__BACKWARD(flip)
{
    nn_view to = nn__flipped(c->din[0], *(const int *)c->params);
    NN__K(give_back)(c, t, &to, &c->dout[0]);
}
#endif

// ---- moving numbers of any type --------------------------------------------------------------------------
#if NN__IN_HOST
// A contiguous x seen as (outer, n, inner), n being one dimension. The parameters of ops along a dimension begin with it.
typedef struct nn__three { int64_t outer, n, inner; } nn__three;
static nn__three nn__around(const nn_view *x, int dim)
{
    nn__three s;
    int i;
    s.outer = s.inner = 1;
    s.n = x->ndim ? x->shape[dim] : 1;
    for (i = 0; i < dim; i++) s.outer *= x->shape[i];
    for (i = dim + 1; i < x->ndim; i++) s.inner *= x->shape[i];
    return s;
}
static void nn__lines_plan(nn_call *c)                   // a task takes whole lines along the dimension
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    c->tasks[0] = nn__task_count(s.outer * s.inner, nn__max(1, s.n) * 4);
}
static int nn__line_dim(nn_context *nn, const char *name, const nn_tensor *x, int dim)     // a 0-d tensor is one line; -1 after an error
{
    if (!nn__check(nn, x, name)) return -1;
    return !x->ndim && (dim == 0 || dim == -1) ? 0 : nn__dim_index(nn, name, dim, x->ndim);
}
// Two views of one shape: dimensions that are one run in both become one.
static void nn__squash(nn_view *a, nn_view *b)
{
    int d, n = 0;
    for (d = 0; d < a->ndim; d++) {
        int64_t s = a->shape[d];
        if (s == 1) continue;
        if (n && a->stride[n - 1] == a->stride[d] * s && b->stride[n - 1] == b->stride[d] * s) { n--; s *= a->shape[n]; }
        a->shape[n] = b->shape[n] = s;
        a->stride[n] = a->stride[d];
        b->stride[n++] = b->stride[d];
    }
    if (!n) { a->shape[0] = b->shape[0] = a->stride[0] = b->stride[0] = 1; n = 1; }
    a->ndim = b->ndim = n;
}
#endif
#if NN__IN_PLAIN
NN__INLINE void NN__K(move_run)(char *to, int64_t st, const char *from, int64_t sf, int64_t n, size_t e)     // strides in elements
{
    int64_t i;
    if (st == 1 && sf == 1) memcpy(to, from, (size_t)n * e);
    else if (e == 4) for (i = 0; i < n; i++) memcpy(to + i * st * 4, from + i * sf * 4, 4);
    else if (e == 8) for (i = 0; i < n; i++) memcpy(to + i * st * 8, from + i * sf * 8, 8);
    else             for (i = 0; i < n; i++) memcpy(to + i * st * (int64_t)e, from + i * sf * (int64_t)e, e);
}
// Elements begin..end of two views of one shape and type: to = from, or, real numbers, to += from.
static void NN__K(move)(nn_view to, nn_view from, int add, int64_t begin, int64_t end)
{
    size_t e = nn_dtype_bytes((nn_dtype)from.dtype);
    int64_t i, j, inner, run, st, sf;
    nn__squash(&to, &from);
    inner = to.shape[to.ndim - 1];
    st = to.stride[to.ndim - 1]; sf = from.stride[to.ndim - 1];
    for (i = begin; i < end; i += run) {
        char *p = (char *)to.data + NN__K(offset)(&to, i) * (int64_t)e;
        const char *q = (const char *)from.data + NN__K(offset)(&from, i) * (int64_t)e;
        run = nn__min(inner - i % inner, end - i);
        if (!add) NN__K(move_run)(p, st, q, sf, run, e);
        else for (j = 0; j < run; j++) ((R *)(void *)p)[j * st] += ((const R *)(const void *)q)[j * sf];
    }
}
#endif

// ---- concat, stack:   y = x_0, x_1, ... side by side along dim      dx_i = its part of dy ------------------------
#if NN__IN_HOST
static int nn__concat_shape(nn_call *c)
{
    const nn_view *x = &c->in[0];
    int64_t shape[NN_MAX_DIMS] = { 0 };
    int i, d, dim = *(const int *)c->params;
    memcpy(shape, x->shape, sizeof shape);
    for (i = 1; i < c->nin; i++) {
        const nn_view *v = &c->in[i];
        int fits = v->ndim == x->ndim && v->shape[dim] <= INT64_MAX / 16 - shape[dim];
        for (d = 0; fits && d < x->ndim; d++) fits = d == dim || v->shape[d] == x->shape[d];
        if (!fits) { nn_fail(c->nn, "concat: %s and %s differ in more than dimension %d", NN__SHAPE_OF(x), NN__SHAPE_OF(v), dim); return 0; }
        if (v->dtype != x->dtype) {
            nn_fail(c->nn, "concat: %s and %s (see nn_cast)", nn_dtype_name((nn_dtype)x->dtype), nn_dtype_name((nn_dtype)v->dtype));
            return 0;
        }
        shape[dim] += v->shape[dim];
    }
    nn__set_shape(&c->out[0], x->dtype, x->ndim, shape);
    return 1;
}
// The part of `whole` where input i lies.
static nn_view nn__concat_part(const nn_call *c, const nn_view *whole, int i)
{
    nn_view part = *whole;
    int k, dim = *(const int *)c->params;
    int64_t at = 0;
    for (k = 0; k < i; k++) at += c->in[k].shape[dim];
    part.shape[dim] = c->in[i].shape[dim];
    if (nn_view_count(&part)) part.data = (char *)part.data + at * part.stride[dim] * (int64_t)nn_dtype_bytes((nn_dtype)part.dtype);
    return part;
}
static nn_tensor *nn__concat(nn_context *nn, nn_tensor *const *xs, int n, int dim)     // eight at a time
{
    nn_tensor **list;
    int i, groups = (n + NN_MAX_INPUTS - 1) / NN_MAX_INPUTS;
    if (groups == 1) return n == 1 ? xs[0] : nn_apply_n(nn, nn__op(NN_OP_concat), xs, n, &dim, NULL);
    list = (nn_tensor **)nn__host_step(nn, (size_t)groups * sizeof *list);
    if (!list) return nn__inert(nn);
    for (i = 0; i < groups; i++) list[i] = nn__concat(nn, xs + i * NN_MAX_INPUTS, (int)nn__min(NN_MAX_INPUTS, n - i * NN_MAX_INPUTS), dim);
    return nn__concat(nn, list, groups, dim);
}
static nn_context *nn__check_list(nn_tensor *const *xs, int n, const char *op)             // NULL after an error
{
    nn_context *nn = NULL;
    int i;
    for (i = 0; xs && i < n && !nn; i++) if (xs[i]) nn = xs[i]->nn;
    for (i = 0; nn && i < n; i++) if (!nn__check(nn, xs[i], op)) return NULL;
    return nn;
}
NN_API nn_tensor *nn_concat(nn_tensor *const *xs, int n, int dim)
{
    nn_context *nn = nn__check_list(xs, n, "concat");
    if (!nn) return nn__inert(xs && n > 0 && xs[0] ? xs[0]->nn : NULL);
    dim = nn__dim_index(nn, "concat", dim, xs[0]->ndim);
    return dim < 0 ? nn__inert(nn) : nn__concat(nn, xs, n, dim);
}
NN_API nn_tensor *nn_stack(nn_tensor *const *xs, int n, int dim)
{
    nn_context *nn = nn__check_list(xs, n, "stack");
    nn_tensor **list;
    int i;
    if (!nn) return nn__inert(xs && n > 0 && xs[0] ? xs[0]->nn : NULL);
    dim = nn__dim_index(nn, "stack", dim, xs[0]->ndim + 1);
    list = dim < 0 ? NULL : (nn_tensor **)nn__host_step(nn, (size_t)n * sizeof *list);
    if (!list) return nn__inert(nn);
    for (i = 0; i < n; i++) {
        if (xs[i]->ndim != xs[0]->ndim || memcmp(xs[i]->shape, xs[0]->shape, (size_t)xs[0]->ndim * sizeof(int64_t))) {
            nn_fail(nn, "stack: shapes differ: %s and %s", nn__dims_text(xs[0]->ndim, xs[0]->shape).s, nn__dims_text(xs[i]->ndim, xs[i]->shape).s);
            return nn__inert(nn);
        }
        list[i] = nn_unsqueeze(xs[i], dim);
    }
    return nn_ok(nn) || nn->out_of_memory ? nn__concat(nn, list, n, dim) : nn__inert(nn);
}
#endif
#if NN__IN_PLAIN
NN__FORWARD(concat)
{
    int i;
    for (i = 0; i < c->nin; i++) {
        int64_t n = nn_view_count(&c->in[i]);
        NN__K(move)(nn__concat_part(c, &c->out[0], i), c->in[i], 0, nn__task_begin(n, t), nn__task_end(n, t));
    }
}
NN__BACKWARD(concat)
{
    int i;
    for (i = 0; i < c->nin; i++) {
        int64_t n = nn_view_count(&c->in[i]);
        if (c->din[i].data) NN__K(move)(c->din[i], nn__concat_part(c, &c->dout[0], i), (int)(c->add >> i & 1), nn__task_begin(n, t), nn__task_end(n, t));
    }
}
#endif

// ---- gather:        y[i][j] = x[index[i][j]][j]       dx[index[i][j]][j] += dy[i][j]                (dim 0; others alike)
// ---- scatter_add:   y = x, then y[index[i][j]][j] += source[i][j]      dx = dy      dsource[i][j] = dy[index[i][j]][j]
// Additions go in the order of the index, in one task: the same bits at any number of threads.
#if NN__IN_HOST
static int nn__index_type(const nn_call *c, int i)
{
    if (c->in[i].dtype == NN_I32 || c->in[i].dtype == NN_I64) return 1;
    nn_fail(c->nn, "%s: the index is %s, not i32 or i64", c->op->name, nn_dtype_name((nn_dtype)c->in[i].dtype));
    return 0;
}
static int nn__gather_shape(nn_call *c)
{
    const nn_view *x = &c->in[0], *index = &c->in[1], *source = c->nin > 2 ? &c->in[2] : index;
    int d, dim = *(const int *)c->params, fits = index->ndim == x->ndim && source->ndim == x->ndim;
    if (!nn__index_type(c, 1)) return 0;
    for (d = 0; fits && d < x->ndim; d++) fits = (d == dim || index->shape[d] <= x->shape[d]) && index->shape[d] <= source->shape[d];
    if (!fits) {
        nn_fail(c->nn, "%s: index %s does not fit x %s%s%s along dimension %d", c->op->name, NN__SHAPE_OF(index), NN__SHAPE_OF(x),
                c->nin > 2 ? " and source " : "", c->nin > 2 ? NN__SHAPE_OF(source) : "", dim);
        return 0;
    }
    if (c->nin > 2 && source->dtype != x->dtype) {
        nn_fail(c->nn, "%s: x is %s, source is %s (see nn_cast)", c->op->name, nn_dtype_name((nn_dtype)x->dtype), nn_dtype_name((nn_dtype)source->dtype));
        return 0;
    }
    if (c->nin > 2) nn__like(&c->out[0], x);
    else nn__set_shape(&c->out[0], x->dtype, index->ndim, index->shape);
    return 1;
}
static void nn__gather_plan(nn_call *c)                  // forward: is the index sound, in one task? then the numbers
{
    if (c->pass == NN_BACKWARD) return;
    c->phases = 2;
    c->tasks[1] = nn__task_count(nn_view_count(&c->in[1]), 16);
}
static void nn__scatter_plan(nn_call *c)
{
    c->tasks[0] = nn__task_count(nn_view_count(&c->in[0]), 8);
    if (c->pass == NN_BACKWARD) return;
    c->phases = 2;
    c->tasks[1] = 1;
}
static void nn__bad_index(const nn_call *c, int64_t k, int64_t size)         // only where one task runs
{
    nn_fail(c->nn, "%s: index %lld is out of range: there are %lld", c->op->name, (long long)k, (long long)size);
}
static nn_tensor *nn__or_fail(nn_context *nn, nn_tensor *y) { return nn->failed && !nn->out_of_memory ? nn__inert(nn) : y; }   // a kernel may report
NN_API nn_tensor *nn_gather(nn_tensor *x, int dim, nn_tensor *index)
{
    nn_context *nn = x ? x->nn : NULL;
    if (!nn__check(nn, x, "gather") || !nn__check(nn, index, "gather")) return nn__inert(nn);
    dim = nn__dim_index(nn, "gather", dim, x->ndim);
    return dim < 0 ? nn__inert(nn) : nn__or_fail(nn, nn__apply2(NN_OP_gather, x, index, &dim));
}
NN_API nn_tensor *nn_scatter_add(nn_tensor *x, int dim, nn_tensor *index, nn_tensor *source)
{
    nn_context *nn = x ? x->nn : NULL;
    if (!nn__check(nn, x, "scatter_add") || !nn__check(nn, index, "scatter_add") || !nn__check(nn, source, "scatter_add")) return nn__inert(nn);
    dim = nn__dim_index(nn, "scatter_add", dim, x->ndim);
    return dim < 0 ? nn__inert(nn) : nn__or_fail(nn, nn__apply3(NN_OP_scatter_add, x, index, source, &dim));
}
#endif
#if NN__IN_PLAIN
static void NN__K(check_index)(const nn_call *c, const nn_view *index, int64_t size)
{
    int64_t n = nn_view_count(index), i;
    int dense = nn__contiguous_view(index);
    for (i = 0; i < n; i++) {
        int64_t k = NN__K(get_int)(index, dense ? i : NN__K(offset)(index, i));
        if (k < 0 || k >= size) { nn__bad_index(c, k, size); return; }
    }
}
NN__INLINE void NN__K(add_number)(const nn_view *to, int64_t at, const nn_view *from, int64_t from_at)       // numbers of any one type
{
    int64_t a, b;
    if (to->dtype == (sizeof(R) == 4 ? NN_F32 : NN_F64)) { ((R *)to->data)[at] += ((const R *)from->data)[from_at]; return; }
    if (to->dtype != NN_I64) { NN__K(put)(to, at, NN__K(get)(to, at) + NN__K(get)(from, from_at)); return; }
    memcpy(&a, (char *)to->data + at * 8, 8);
    memcpy(&b, (const char *)from->data + from_at * 8, 8);
    a = (int64_t)((uint64_t)a + (uint64_t)b);
    memcpy((char *)to->data + at * 8, &a, 8);
}
// For elements begin..end of index:  part = table[index], part += table[index], or table[index] += part. A bad index is skipped.
enum { NN__K(part_gets), NN__K(part_adds), NN__K(table_adds) };
static void NN__K(by_index)(const nn_call *c, const nn_view *table, const nn_view *index, const nn_view *part, int how, int64_t begin, int64_t end)
{
    int dim = *(const int *)c->params, last = index->ndim - 1;
    int64_t size = table->shape[dim], along = table->stride[dim], inner = index->shape[last], i, j, run;
    size_t e = nn_dtype_bytes((nn_dtype)table->dtype);
    nn_view others = *index, mine = *index;              // where the line of each element lies in table; where the element is in part
    memcpy(others.stride, table->stride, sizeof others.stride);
    memcpy(mine.stride, part->stride, sizeof mine.stride);
    others.stride[dim] = 0;
    for (i = begin; i < end; i += run) {
        int64_t at_index = NN__K(offset)(index, i), at_table = NN__K(offset)(&others, i), at_part = NN__K(offset)(&mine, i);
        run = nn__min(inner - i % inner, end - i);
        for (j = 0; j < run; j++) {
            int64_t k = NN__K(get_int)(index, at_index + j * index->stride[last]), p = at_part + j * mine.stride[last], q;
            if (k < 0 || k >= size) {
                if (how == NN__K(part_gets)) memset((char *)part->data + p * (int64_t)e, 0, e);
                if (how == NN__K(table_adds) && c->pass == NN_FORWARD) nn__bad_index(c, k, size);
                continue;
            }
            q = at_table + j * others.stride[last] + k * along;
            if (how == NN__K(part_gets)) memcpy((char *)part->data + p * (int64_t)e, (const char *)table->data + q * (int64_t)e, e);
            else if (how == NN__K(part_adds)) NN__K(add_number)(part, p, table, q);
            else NN__K(add_number)(table, q, part, p);
        }
    }
}
NN__FORWARD(gather)
{
    int64_t n = nn_view_count(&c->in[1]);
    if (t->phase == 0) NN__K(check_index)(c, &c->in[1], c->in[0].shape[*(const int *)c->params]);
    else NN__K(by_index)(c, &c->in[0], &c->in[1], &c->out[0], NN__K(part_gets), nn__task_begin(n, t), nn__task_end(n, t));
}
NN__BACKWARD(gather)
{
    (void)t;
    if (c->din[0].data) NN__K(by_index)(c, &c->din[0], &c->in[1], &c->dout[0], NN__K(table_adds), 0, nn_view_count(&c->in[1]));
}
NN__FORWARD(scatter_add)
{
    int64_t n = nn_view_count(&c->in[0]);
    if (t->phase == 0) NN__K(move)(c->out[0], c->in[0], 0, nn__task_begin(n, t), nn__task_end(n, t));
    else NN__K(by_index)(c, &c->out[0], &c->in[1], &c->in[2], NN__K(table_adds), 0, nn_view_count(&c->in[1]));
}
NN__BACKWARD(scatter_add)
{
    int64_t n = nn_view_count(&c->in[0]), m = nn_view_count(&c->in[1]);
    if (c->din[0].data) NN__K(move)(c->din[0], c->dout[0], 1, nn__task_begin(n, t), nn__task_end(n, t));
    if (c->din[2].data) NN__K(by_index)(c, &c->dout[0], &c->in[1], &c->din[2], NN__K(part_adds), nn__task_begin(m, t), nn__task_end(m, t));
}
#endif

// ---- index_select, embedding:   y[k] = x[index[k]]      dx[index[k]] += dy[k]    in the order of k; tasks share the columns ------
#if NN__IN_HOST
static int nn__select_shape(nn_call *c)
{
    const nn_view *x = &c->in[0], *index = &c->in[1];
    int64_t shape[NN_MAX_DIMS];
    if (!nn__index_type(c, 1)) return 0;
    if (index->ndim > 1) { nn_fail(c->nn, "index_select: the index has %d dimensions: %s; see nn_gather", index->ndim, NN__SHAPE_OF(index)); return 0; }
    memcpy(shape, x->shape, sizeof shape);
    shape[*(const int *)c->params] = nn_view_count(index);
    nn__set_shape(&c->out[0], x->dtype, x->ndim, shape);
    return 1;
}
static int nn__embedding_shape(nn_call *c)
{
    const nn_view *w = &c->in[0], *index = &c->in[1];
    int64_t shape[NN_MAX_DIMS] = { 0 };
    if (!nn__index_type(c, 1)) return 0;
    if (w->ndim != 2 || index->ndim == NN_MAX_DIMS) { nn_fail(c->nn, "embedding: w is %s, index %s; w must be (count, channels)", NN__SHAPE_OF(w), NN__SHAPE_OF(index)); return 0; }
    memcpy(shape, index->shape, sizeof shape);
    shape[index->ndim] = w->shape[1];
    nn__set_shape(&c->out[0], w->dtype, index->ndim + 1, shape);
    return 1;
}
static void nn__select_plan(nn_call *c)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    int64_t n = nn_view_count(&c->in[1]);
    c->tasks[0] = nn__max(1, nn__min(nn__task_count(s.outer * s.inner, nn__max(1, n)), s.outer * s.inner / 64));
    if (c->pass == NN_BACKWARD) return;
    c->phases = 2;
    c->tasks[0] = 1;
    c->tasks[1] = nn__task_count(s.outer * n, nn__max(1, s.inner));
}
NN_API nn_tensor *nn_index_select(nn_tensor *x, int dim, nn_tensor *index)
{
    nn_context *nn = x ? x->nn : NULL;
    if (!nn__check(nn, x, "index_select") || !nn__check(nn, index, "index_select")) return nn__inert(nn);
    dim = nn__dim_index(nn, "index_select", dim, x->ndim);
    return dim < 0 ? nn__inert(nn) : nn__or_fail(nn, nn__apply2(NN_OP_index_select, x, index, &dim));
}
NN_API nn_tensor *nn_embedding(nn_tensor *index, nn_tensor *w)
{
    nn_context *nn = w ? w->nn : index ? index->nn : NULL;
    int dim = 0;
    if (!nn__check(nn, w, "embedding") || !nn__check(nn, index, "embedding")) return nn__inert(nn);
    return nn__or_fail(nn, nn__apply2(NN_OP_embedding, w, index, &dim));
}
#endif
#if NN__IN_SIMD
NN__FORWARD(index_select)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    int64_t n = nn_view_count(&c->in[1]), i, k, end = nn__task_end(s.outer * n, t);
    size_t bytes = (size_t)s.inner * nn_dtype_bytes((nn_dtype)c->in[0].dtype);
    if (t->phase == 0) {
        for (i = 0; i < n; i++) {
            k = nn__class_at(&c->in[1], i);
            if (k < 0 || k >= s.n) { nn__bad_index(c, k, s.n); return; }
        }
        return;
    }
    for (i = nn__task_begin(s.outer * n, t); i < end; i++) {
        char *to = (char *)c->out[0].data + (size_t)i * bytes;
        k = nn__class_at(&c->in[1], i % n);
        if (k < 0 || k >= s.n) memset(to, 0, bytes);
        else memcpy(to, (const char *)c->in[0].data + (size_t)(i / n * s.n + k) * bytes, bytes);
    }
}
NN__BACKWARD(index_select)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    int64_t n = nn_view_count(&c->in[1]), end = nn__task_end(s.outer * s.inner, t), at, width, i;
    if (!c->din[0].data) return;
    for (at = nn__task_begin(s.outer * s.inner, t); at < end; at += width) {     // columns at .. at + width - 1 of one outer
        int64_t first = at % s.inner, outer = at / s.inner;
        width = nn__min(s.inner - first, end - at);
        for (i = 0; i < n; i++) {
            int64_t k = nn__class_at(&c->in[1], i);
            if (k >= 0 && k < s.n) NN__K(add_onto)(width, (R *)c->din[0].data + (outer * s.n + k) * s.inner + first, (const R *)c->dout[0].data + (outer * n + i) * s.inner + first);
        }
    }
}
NN__FORWARD(embedding)  { NN__K(index_select_fwd)(c, t); }
NN__BACKWARD(embedding) { NN__K(index_select_bwd)(c, t); }
#endif

// ---- one_hot:   y[..., k] = 1 where k = index[...], else 0 --------------------------------------------------
#if NN__IN_HOST
static int nn__one_hot_shape(nn_call *c)
{
    int64_t shape[NN_MAX_DIMS] = { 0 }, classes = *(const int64_t *)c->params;
    const nn_view *index = &c->in[0];
    if (!nn__index_type(c, 0)) return 0;
    if (classes < 1 || index->ndim == NN_MAX_DIMS) { nn_fail(c->nn, "one_hot: %lld classes for index %s", (long long)classes, NN__SHAPE_OF(index)); return 0; }
    memcpy(shape, index->shape, sizeof shape);
    shape[index->ndim] = classes;
    nn__set_shape(&c->out[0], (int)c->nn->desc.dtype, index->ndim + 1, shape);
    return 1;
}
NN_API nn_tensor *nn_one_hot(nn_tensor *index, int64_t classes)
{
    nn_context *nn = index ? index->nn : NULL;
    if (!nn__check(nn, index, "one_hot")) return nn__inert(nn);
    return nn__or_fail(nn, nn__apply1(NN_OP_one_hot, index, &classes));
}
#endif
#if NN__IN_PLAIN
NN__FORWARD(one_hot)
{
    int64_t n = nn_view_count(&c->in[0]), classes = *(const int64_t *)c->params, i;
    R *y = (R *)c->out[0].data;
    (void)t;
    if (n) memset(y, 0, (size_t)(n * classes) * sizeof(R));
    for (i = 0; i < n; i++) {
        int64_t k = NN__K(get_int)(&c->in[0], i);
        if (k < 0 || k >= classes) nn__bad_index(c, k, classes);
        else y[i * classes + k] = 1;
    }
}
#endif

// ---- tril, triu:   y_ij = x_ij where j - i <= diagonal (tril) or >= diagonal (triu), else 0      dx likewise from dy ------------
#if NN__IN_HOST
static int nn__triangle_shape(nn_call *c)
{
    if (c->in[0].ndim < 2) { nn_fail(c->nn, "%s: %s is not a matrix", c->op->name, NN__SHAPE_OF(&c->in[0])); return 0; }
    nn__like(&c->out[0], &c->in[0]);
    return 1;
}
NN_API nn_tensor *nn_tril(nn_tensor *x, int64_t diagonal) { return nn__apply1(NN_OP_tril, x, &diagonal); }
NN_API nn_tensor *nn_triu(nn_tensor *x, int64_t diagonal) { return nn__apply1(NN_OP_triu, x, &diagonal); }
#endif
#if NN__IN_PLAIN
static void NN__K(triangle)(const nn_call *c, const nn_task *t, const nn_view *x, const nn_view *y, int upper, int add)
{
    size_t e = nn_dtype_bytes((nn_dtype)y->dtype);
    int64_t m = y->shape[y->ndim - 2], n = y->shape[y->ndim - 1], count = nn_view_count(y), diagonal = *(const int64_t *)c->params, i, j, rows = n ? count / n : 0;
    diagonal = nn__max(-m - 1, nn__min(n + 1, diagonal));
    for (i = nn__task_begin(rows, t); i < nn__task_end(rows, t); i++) {
        int64_t edge = nn__max(0, nn__min(n, i % m + diagonal + !upper)), first = upper ? edge : 0, last = upper ? n : edge;
        char *to = (char *)y->data + (size_t)(i * n) * e;
        const char *from = (const char *)x->data + (size_t)(i * n) * e;
        if (add) { for (j = first; j < last; j++) ((R *)(void *)to)[j] += ((const R *)(const void *)from)[j]; continue; }
        memset(to, 0, (size_t)n * e);
        memcpy(to + (size_t)first * e, from + (size_t)first * e, (size_t)(last - first) * e);
    }
}
NN__FORWARD(tril)  { NN__K(triangle)(c, t, &c->in[0], &c->out[0], 0, 0); }
NN__BACKWARD(tril) { NN__K(triangle)(c, t, &c->dout[0], &c->din[0], 0, (int)(c->add & 1)); }
NN__FORWARD(triu)  { NN__K(triangle)(c, t, &c->in[0], &c->out[0], 1, 0); }
NN__BACKWARD(triu) { NN__K(triangle)(c, t, &c->dout[0], &c->din[0], 1, (int)(c->add & 1)); }
#endif

// ---- sort, topk:   y_i = x[index_i], the index ordering x along dim, equal numbers in their old order      dx[index_i] += dy_i ----
#if NN__IN_HOST
static int nn__sort_shape(nn_call *c)
{
    const nn__sort_params *p = (const nn__sort_params *)c->params;
    int64_t shape[NN_MAX_DIMS];
    memcpy(shape, c->in[0].shape, sizeof shape);
    shape[p->dim] = p->k;
    nn__set_shape(&c->out[0], c->in[0].dtype, c->in[0].ndim, shape);
    nn__set_shape(&c->out[1], NN_I64, c->in[0].ndim, shape);
    return 1;
}
static void nn__sort_plan(nn_call *c)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    c->tasks[0] = nn__task_count(s.outer * s.inner, nn__max(1, s.n) * 32);
    if (c->pass == NN_FORWARD) c->task_bytes = nn__mul_size((size_t)s.n, 4 * sizeof(int64_t));
}
static nn_tensor *nn__sorted(int op, const char *name, nn_tensor *x, int64_t k, int dim, nn_tensor **indices, int descending)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_tensor *out[NN_MAX_OUTPUTS];
    nn__sort_params p;
    int64_t n;
    memset(&p, 0, sizeof p);
    if (indices) *indices = nn__inert(nn);
    p.dim = nn__line_dim(nn, name, x, dim);
    if (p.dim < 0) return nn__inert(nn);
    n = x->ndim ? x->shape[p.dim] : 1;
    p.k = op == NN_OP_sort ? n : k;
    p.descending = descending;
    if (p.k < 0 || p.k > n || (!x->ndim && p.k != 1)) { nn_fail(nn, "%s: k is %lld for dimension %d of %s", name, (long long)p.k, p.dim, nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
    nn_apply_n(nn, nn__op(op), &x, 1, &p, out);
    if (indices && !nn__dead(out[0])) *indices = nn_detach(out[1]);  // the tape does not lead through an index
    return out[0];
}
NN_API nn_tensor *nn_sort(nn_tensor *x, int dim, nn_tensor **indices, const nn_sort_desc *desc)
{
    return nn__sorted(NN_OP_sort, "sort", x, 0, dim, indices, desc && desc->descending);
}
NN_API nn_tensor *nn_topk(nn_tensor *x, int64_t k, int dim, nn_tensor **indices, const nn_topk_desc *desc)
{
    return nn__sorted(NN_OP_topk, "topk", x, k, dim, indices, !(desc && desc->smallest));
}
#endif
#if NN__IN_PLAIN
// Numbers of any type as integers in the same order: NaN above all, -0 = 0.
static int64_t NN__K(order_key)(const nn_view *v, int64_t at, int *nan)
{
    double d;
    int64_t k;
    *nan = 0;
    if (v->dtype == NN_I64) { memcpy(&k, (const char *)v->data + at * 8, 8); return k; }
    d = NN__K(get)(v, at);
    if (d != d) { *nan = 1; return INT64_MAX; }
    d += 0.0;
    memcpy(&k, &d, 8);
    return k < 0 ? k ^ INT64_MAX : k;                    // negative doubles: larger bits are smaller numbers
}
typedef struct NN__K(keyed) { int64_t key, index; } NN__K(keyed);
static NN__K(keyed) *NN__K(merge_sort)(NN__K(keyed) *a, NN__K(keyed) *b, int64_t n)       // stable; returns where the result is, a or b
{
    int64_t width, i, j, k, m, to;
    for (i = 0; i < n; i += 16)                          // short runs by insertion
        for (j = i + 1; j < nn__min(n, i + 16); j++) {
            NN__K(keyed) x = a[j];
            for (k = j; k > i && a[k - 1].key > x.key; k--) a[k] = a[k - 1];
            a[k] = x;
        }
    for (width = 16; width < n; width *= 2) {
        NN__K(keyed) *other = b;
        for (i = 0; i < n; i = to) {
            m = nn__min(n, i + width);
            to = nn__min(n, m + width);
            for (k = j = i, j = m; i < m || j < to; k++) {
                if (j == to || (i < m && a[i].key <= a[j].key)) b[k] = a[i++];
                else b[k] = a[j++];
            }
        }
        b = a;
        a = other;
    }
    return a;
}
static NN__K(keyed) *NN__K(smallest)(NN__K(keyed) *a, NN__K(keyed) *best, int64_t n, int64_t k)      // the first k of the stable order, for small k
{
    int64_t i, j, have = 0;
    for (i = 0; i < n; i++) {
        if (have == k && a[i].key >= best[k - 1].key) continue;
        for (j = have < k ? have++ : k - 1; j > 0 && best[j - 1].key > a[i].key; j--) best[j] = best[j - 1];
        best[j] = a[i];
    }
    return best;
}
static void NN__K(sort_lines)(const nn_call *c, const nn_task *t)
{
    const nn__sort_params *p = (const nn__sort_params *)c->params;
    const nn_view *x = &c->in[0];
    nn__three s = nn__around(x, p->dim);
    size_t e = nn_dtype_bytes((nn_dtype)x->dtype);
    NN__K(keyed) *a = (NN__K(keyed) *)t->scratch, *b = s.n ? a + s.n : a;
    int64_t lines = s.n ? s.outer * s.inner : 0, line, i;
    for (line = nn__task_begin(lines, t); line < nn__task_end(lines, t); line++) {
        int64_t from = line / s.inner * s.n * s.inner + line % s.inner, to = line / s.inner * p->k * s.inner + line % s.inner;
        const NN__K(keyed) *order;
        int nan;
        for (i = 0; i < s.n; i++) {
            int64_t key = NN__K(order_key)(x, from + i * s.inner, &nan);
            a[i].key = p->descending ? ~key : key;       // turned round; NaN, above all, comes first
            a[i].index = i;
        }
        order = p->k <= 64 && p->k < s.n ? NN__K(smallest)(a, b, p->k ? s.n : 0, p->k) : NN__K(merge_sort)(a, b, s.n);
        for (i = 0; i < p->k; i++) {
            memcpy((char *)c->out[0].data + (size_t)(to + i * s.inner) * e, (const char *)x->data + (size_t)(from + order[i].index * s.inner) * e, e);
            memcpy((int64_t *)c->out[1].data + to + i * s.inner, &order[i].index, sizeof(int64_t));
        }
    }
}
static void NN__K(sort_back)(const nn_call *c, const nn_task *t)
{
    const nn__sort_params *p = (const nn__sort_params *)c->params;
    nn__three s = nn__around(&c->in[0], p->dim);
    int64_t lines = s.outer * s.inner, line, i;
    for (line = nn__task_begin(lines, t); line < nn__task_end(lines, t); line++) {
        int64_t from = line / s.inner * s.n * s.inner + line % s.inner, to = line / s.inner * p->k * s.inner + line % s.inner;
        for (i = 0; i < p->k; i++) {
            int64_t k = ((const int64_t *)c->out[1].data)[to + i * s.inner];
            ((R *)c->din[0].data)[from + k * s.inner] += ((const R *)c->dout[0].data)[to + i * s.inner];
        }
    }
}
NN__FORWARD(sort)  { NN__K(sort_lines)(c, t); }
NN__BACKWARD(sort) { NN__K(sort_back)(c, t); }
NN__FORWARD(topk)  { NN__K(sort_lines)(c, t); }
NN__BACKWARD(topk) { NN__K(sort_back)(c, t); }
#endif

// ---- pad:   y_o = x at o - left, in each dimension; outside: the value, or mirrored without the edge, or the edge      dx at that place += dy_o
#if NN__IN_HOST
// Where position o of the result comes from, in a dimension of size n; -1: from outside.
static int64_t nn__pad_source(int64_t o, int64_t left, int64_t n, int mode)
{
    int64_t i = o - left;
    if (i >= 0 && i < n) return i;
    if (mode == NN_PAD_CONSTANT) return -1;
    if (mode == NN_PAD_REPLICATE) return i < 0 ? 0 : n - 1;
    return i < 0 ? -i : 2 * (n - 1) - i;
}
static int nn__pad_shape(nn_call *c)
{
    const nn__pad_params *p = (const nn__pad_params *)c->params;
    const nn_view *x = &c->in[0];
    int64_t shape[NN_MAX_DIMS];
    int d;
    for (d = 0; d < x->ndim; d++) {
        int64_t n = x->shape[d], l = p->left[d], r = p->right[d], most = INT64_MAX / 64;
        shape[d] = l < -most || l > most || r < -most || r > most || n > most ? -1 : n + l + r;
        if (p->mode == NN_PAD_REFLECT && (l || r) && (l >= n || r >= n)) shape[d] = -1;        // mirrors once
        if (p->mode == NN_PAD_REPLICATE && (l > 0 || r > 0) && n == 0) shape[d] = -1;
        if (p->mode != NN_PAD_CONSTANT && (-l > n || -r > n)) shape[d] = -1;
        if (shape[d] < 0) { nn_fail(c->nn, "pad: %lld and %lld do not fit dimension %d of %s", (long long)l, (long long)r, d, NN__SHAPE_OF(x)); return 0; }
    }
    nn__set_shape(&c->out[0], x->dtype, x->ndim, shape);
    return 1;
}
// What a task takes at least. Forward: a row of the result. Backward, where rows of the result share rows of x: all of the dimensions
// from the first padded one on.
static int64_t nn__pad_parts(const nn_call *c)
{
    const nn__pad_params *p = (const nn__pad_params *)c->params;
    const nn_view *y = &c->out[0];
    int64_t parts = 1;
    int d;
    if (c->pass == NN_FORWARD && y->ndim) return y->shape[y->ndim - 1] ? nn_view_count(y) / y->shape[y->ndim - 1] : 0;
    for (d = 0; d + 1 < y->ndim && !p->left[d] && !p->right[d]; d++) parts *= y->shape[d];
    return parts;
}
static void nn__pad_plan(nn_call *c)
{
    int64_t n = nn__pad_parts(c);
    c->tasks[0] = nn__task_count(n, nn__max(1, nn_view_count(&c->out[0]) / nn__max(1, n)) * 4);
}
NN_API nn_tensor *nn_pad(nn_tensor *x, nn_shape amounts, const nn_pad_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__pad_params p;
    int i;
    if (!nn__check(nn, x, "pad")) return nn__inert(nn);
    memset(&p, 0, sizeof p);
    p.mode = desc ? (int)desc->mode : (int)NN_PAD_CONSTANT;
    p.value = desc ? (double)desc->value : 0.0;
    if (amounts.ndim % 2 || amounts.ndim / 2 > x->ndim || p.mode < NN_PAD_CONSTANT || p.mode > NN_PAD_REPLICATE) {
        nn_fail(nn, "pad: amounts %s for %s: two per dimension, the last dimension first", nn__dims_text(amounts.ndim, amounts.d).s, nn__dims_text(x->ndim, x->shape).s);
        return nn__inert(nn);
    }
    for (i = 0; i < amounts.ndim / 2; i++) { p.left[x->ndim - 1 - i] = amounts.d[2 * i]; p.right[x->ndim - 1 - i] = amounts.d[2 * i + 1]; }
    return nn__apply1(NN_OP_pad, x, &p);
}
#endif
#if NN__IN_PLAIN
// First element of the row of x that row r of the result comes from; -1: from outside.
static int64_t NN__K(pad_row)(const nn_call *c, int64_t r)
{
    const nn__pad_params *p = (const nn__pad_params *)c->params;
    int64_t at = 0, scale = c->in[0].ndim ? c->in[0].shape[c->in[0].ndim - 1] : 1;
    int d;
    for (d = c->out[0].ndim - 2; d >= 0; d--) {
        int64_t i = nn__pad_source(r % c->out[0].shape[d], p->left[d], c->in[0].shape[d], p->mode);
        if (i < 0) return -1;
        at += i * scale;
        scale *= c->in[0].shape[d];
        r /= c->out[0].shape[d];
    }
    return at;
}
static void NN__K(pad_rows)(const nn_call *c, const nn_task *t, int back)
{
    const nn__pad_params *p = (const nn__pad_params *)c->params;
    const nn_view *x = &c->in[0], *y = &c->out[0];
    int last = y->ndim - 1;
    int64_t n = last < 0 ? 1 : x->shape[last], m = last < 0 ? 1 : y->shape[last], left = last < 0 ? 0 : p->left[last];
    int64_t parts = nn__pad_parts(c), rows = m && parts ? nn_view_count(y) / m / parts : 0, r, i;
    int64_t begin = nn__max(0, nn__min(m, left)), end = nn__max(begin, nn__min(m, left + n));          // a straight copy in between
    size_t e = nn_dtype_bytes((nn_dtype)x->dtype);
    int64_t outside[1];
    nn_view value = *x;
    value.data = outside;
    if (!back) NN__K(put)(&value, 0, p->value);
    for (r = nn__task_begin(parts, t) * rows; r < nn__task_end(parts, t) * rows; r++) {
        int64_t from = NN__K(pad_row)(c, r);
        if (back) {
            if (from >= 0) for (i = 0; i < m; i++) {
                int64_t k = nn__pad_source(i, left, n, p->mode);
                if (k >= 0) ((R *)c->din[0].data)[from + k] += ((const R *)c->dout[0].data)[r * m + i];
            }
            continue;
        }
        for (i = 0; i < m; i++) {
            char *to = (char *)y->data + (size_t)(r * m + i) * e;
            int64_t k = from < 0 ? -1 : nn__pad_source(i, left, n, p->mode);
            if (k >= 0 && i == begin && end > begin) { memcpy(to, (const char *)x->data + (size_t)(from + k) * e, (size_t)(end - begin) * e); i = end - 1; }
            else memcpy(to, k < 0 ? (const char *)outside : (const char *)x->data + (size_t)(from + k) * e, e);
        }
    }
}
NN__FORWARD(pad)  { NN__K(pad_rows)(c, t, 0); }
NN__BACKWARD(pad) { NN__K(pad_rows)(c, t, 1); }
#endif

// ---- arange, linspace, eye: tensors from nothing --------------------------------------------------------------
#if NN__IN_HOST
static nn_tensor *nn__range(nn_context *nn, int64_t n, double start, double step, double end)
{
    nn__range_params p;
    nn_shape s = nn__shape1(n);
    nn_tensor *t = nn_ok(nn) ? nn__alloc_tensor(nn, 0, nn->desc.dtype, 1, s.d) : nn__inert(nn);
    nn_call c;
    if (nn__dead(t)) return t;
    memset(&p, 0, sizeof p);
    p.start = start; p.step = step; p.end = end;
    nn__begin_call(&c, nn, NN_OP_arange, &p);
    c.nout = 1;
    c.out[0] = nn__view_of(t);
    nn__run(nn, &c);
    return t;
}
NN_API nn_tensor *nn_arange(nn_context *nn, float start, float end, float step)
{
    double n = ceil(((double)end - (double)start) / (double)step);
    if (!nn_ok(nn)) return nn__inert(nn);
    if (!(n >= 0 && n < 9e15)) { nn_fail(nn, "arange: no way from %g to %g in steps of %g", (double)start, (double)end, (double)step); return nn__inert(nn); }
    return nn__range(nn, (int64_t)n, start, step, NAN);
}
NN_API nn_tensor *nn_linspace(nn_context *nn, float start, float end, int64_t n)
{
    return nn__range(nn, n, start, n > 1 ? ((double)end - (double)start) / (double)(n - 1) : 0, n > 1 ? (double)end : (double)start);
}
NN_API nn_tensor *nn_eye(nn_context *nn, int64_t n)
{
    nn_tensor *t = nn_zeros(nn, nn__shape2(n, n));
    nn_view diagonal;
    if (nn__dead(t)) return t;
    diagonal = nn__view_of(t);
    diagonal.ndim = 1;
    diagonal.stride[0] = n + 1;
    nn__fill_view(nn, diagonal, 1);
    return t;
}
#endif
#if NN__IN_PLAIN
NN__FORWARD(arange)                  // start + i step; the second half counted from the end where there is one, so that it is hit exactly
{
    const nn__range_params *p = (const nn__range_params *)c->params;
    const nn_view *y = &c->out[0];
    int64_t n = nn_view_count(y), i;
    (void)t;
    for (i = 0; i < n; i++) NN__K(put)(y, NN__K(offset)(y, i), p->end == p->end && i >= n / 2 ? p->end - (double)(n - 1 - i) * p->step : p->start + (double)i * p->step);
}
#endif

// ---- reductions over any dimensions:   y = after(x_0 f x_1 f ...)     (sum and mean: y = scale * sum of x      dx = scale * dy) -------
// var and logsumexp take two stages: m = mean, then the sum of (x - m)^2;  m = maximum, then the sum of e^(x - m). A reduction of very
// many numbers is cut into pieces, whose number depends on the reduced sizes alone: a phase per stage folds them, the last joins them.
#if NN__IN_HOST
static int64_t nn__reduced_count(const nn_view *x, unsigned mask)    // how many numbers become one
{
    int64_t n = 1;
    int i;
    for (i = 0; i < x->ndim; i++) if (mask & 1u << i) n *= x->shape[i];
    return n;
}
static int nn__reduce_shape(nn_call *c)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    int64_t shape[NN_MAX_DIMS];
    int i, n = 0, id = c->op->id;
    for (i = 0; i < c->in[0].ndim; i++) {
        if (!(p->mask & 1u << i)) shape[n++] = c->in[0].shape[i];
        else if (p->keepdim) shape[n++] = 1;
    }
    if ((id == NN_OP_max || id == NN_OP_min || id == NN_OP_argmax || id == NN_OP_argmin || isinf(p->p)) && nn__reduced_count(&c->in[0], p->mask) == 0) {
        nn_fail(c->nn, "%s: no numbers to choose from: %s", c->op->name, NN__SHAPE_OF(&c->in[0]));
        return 0;
    }
    nn__set_shape(&c->out[0], id == NN_OP_argmax || id == NN_OP_argmin ? (int)NN_I64 : c->in[0].dtype, n, shape);
    if (id == NN_OP_var || id == NN_OP_std) { c->naux = 1; nn__like(&c->aux[0], &c->out[0]); }         // the mean
    return 1;
}
static void nn__sum_plan(nn_call *c)                     // one task writes whole results
{
    int64_t small = nn_view_count(c->pass == NN_FORWARD ? &c->out[0] : &c->in[0]), big = nn_view_count(c->pass == NN_FORWARD ? &c->in[0] : &c->out[0]);
    c->tasks[0] = nn__task_count(nn__max(1, small), nn__max(1, big / nn__max(1, small)));
}
// The longest reduced dimension is cut into so many pieces.
static int64_t nn__reduce_pieces(const nn_view *x, unsigned mask, int *dim)
{
    int i;
    *dim = 0;
    for (i = 0; i < x->ndim; i++) if ((mask & 1u << i) && (!(mask & 1u << *dim) || x->shape[i] > x->shape[*dim])) *dim = i;
    return mask ? nn__max(1, nn__min(nn__min(x->shape[*dim], nn__reduced_count(x, mask) / 65536), 64)) : 1;
}
// Results that lie side by side in x are computed together.
static int64_t nn__reduce_unit(const nn_view *x, unsigned mask)
{
    int d = x->ndim - 1;
    while (d >= 0 && x->shape[d] == 1) d--;
    return d >= 0 && !(mask & 1u << d) ? 64 : 1;
}
static int nn__reduce_stages(const nn_call *c) { return c->op->id == NN_OP_var || c->op->id == NN_OP_std || c->op->id == NN_OP_logsumexp ? 2 : 1; }
static void nn__reduce_plan(nn_call *c)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    int64_t terms = nn__reduced_count(&c->in[0], p->mask), outs = nn_view_count(&c->out[0]), pieces, unit;
    int i, dim, id = c->op->id;
    if (c->pass == NN_BACKWARD) {    // some ops first compute a number or two per result: what equal maxima share ...
        c->tasks[0] = c->tasks[1] = nn__task_count(nn_view_count(&c->in[0]), 16);
        if (id != NN_OP_max && id != NN_OP_min && id != NN_OP_prod && id != NN_OP_std && !isinf(p->p)) return;
        c->phases = 2;
        c->tasks[0] = nn__task_count(outs, nn__max(1, terms));
        c->shared_bytes = nn__mul_size(2 * (size_t)outs, nn__real_bytes(c));
        return;
    }
    pieces = nn__reduce_pieces(&c->in[0], p->mask, &dim);
    unit = nn__reduce_unit(&c->in[0], p->mask);
    c->tasks[0] = nn__task_count((outs + unit - 1) / unit, unit * nn__max(1, terms / pieces)) * pieces;
    if (pieces == 1) return;
    c->phases = nn__reduce_stages(c) + 1;
    for (i = 1; i + 1 < c->phases; i++) c->tasks[i] = c->tasks[0];
    c->tasks[c->phases - 1] = nn__task_count(outs, pieces * 4);
    c->shared_bytes = nn__mul_size((size_t)((c->phases - 1) * pieces), nn__mul_size((size_t)outs, nn__real_bytes(c)));
}
static nn_tensor *nn__reduce(int op, const char *name, nn_tensor *x, nn_shape dims, const nn_reduce_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__reduce_params p;
    double n = 1;
    int i;
    memset(&p, 0, sizeof p);
    if (!nn__dims_mask(nn, name, x, dims, &p.mask)) return nn__inert(nn);
    p.keepdim = desc && desc->keepdim;
    p.scale = 1;
    for (i = 0; i < x->ndim; i++) if (p.mask & 1u << i) n *= (double)x->shape[i];
    if (!strcmp(name, "mean")) p.scale = 1 / n;          // of nothing: 0 * inf = NaN, as PyTorch
    if (op == NN_OP_var || op == NN_OP_std) p.scale = 1 / (desc && desc->population ? n : n > 1 ? n - 1 : 0.0);
    if (op == NN_OP_norm) p.p = desc && desc->p != 0 ? (desc->p == (float)NN_ZERO ? 0 : (double)desc->p) : 2;
    return nn__apply1(op, x, &p);
}
NN_API nn_tensor *nn_sum (nn_tensor *x, nn_shape dims, const nn_sum_desc *desc)            { return nn__reduce(NN_OP_sum, "sum", x, dims, desc); }
NN_API nn_tensor *nn_mean(nn_tensor *x, nn_shape dims, const nn_mean_desc *desc)           { return nn__reduce(NN_OP_sum, "mean", x, dims, desc); }
NN_API nn_tensor *nn_max (nn_tensor *x, nn_shape dims, const nn_max_desc *desc)            { return nn__reduce(NN_OP_max, "max", x, dims, desc); }
NN_API nn_tensor *nn_min (nn_tensor *x, nn_shape dims, const nn_min_desc *desc)            { return nn__reduce(NN_OP_min, "min", x, dims, desc); }
NN_API nn_tensor *nn_prod(nn_tensor *x, nn_shape dims, const nn_prod_desc *desc)           { return nn__reduce(NN_OP_prod, "prod", x, dims, desc); }
NN_API nn_tensor *nn_var (nn_tensor *x, nn_shape dims, const nn_var_desc *desc)            { return nn__reduce(NN_OP_var, "var", x, dims, desc); }
NN_API nn_tensor *nn_std (nn_tensor *x, nn_shape dims, const nn_std_desc *desc)            { return nn__reduce(NN_OP_std, "std", x, dims, desc); }
NN_API nn_tensor *nn_norm(nn_tensor *x, nn_shape dims, const nn_norm_desc *desc)           { return nn__reduce(NN_OP_norm, "norm", x, dims, desc); }
NN_API nn_tensor *nn_logsumexp(nn_tensor *x, nn_shape dims, const nn_logsumexp_desc *desc) { return nn__reduce(NN_OP_logsumexp, "logsumexp", x, dims, desc); }
NN_API nn_tensor *nn_argmax(nn_tensor *x, nn_shape dims, const nn_argmax_desc *desc)       { return nn__reduce(NN_OP_argmax, "argmax", x, dims, desc); }
NN_API nn_tensor *nn_argmin(nn_tensor *x, nn_shape dims, const nn_argmin_desc *desc)       { return nn__reduce(NN_OP_argmin, "argmin", x, dims, desc); }
#endif
#if NN__IN_SIMD
// y, shaped like x, with stride 0 in the reduced dimensions
NN__INLINE nn_view NN__K(reduced)(const nn_view *y, const nn_view *x, const nn__reduce_params *p)
{
    nn_view r = *x;
    int i, k = 0;
    r.data = y->data;
    for (i = 0; i < x->ndim; i++) {
        if (p->mask & 1u << i) { r.stride[i] = 0; k += p->keepdim; }
        else r.stride[i] = y->stride[k++];
    }
    return r;
}
// Between the stages and at the end. After the first of two stages: m from acc; after the last: acc becomes the result. n % 16 == 0.
typedef void (*NN__K(after))(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m);

static void NN__K(reduce_piece)(const nn_call *c, int dim, int64_t pieces, int64_t i, nn_view *x)
{
    int64_t n = x->shape[dim], first = n / pieces * i + nn__min(i, n % pieces);
    x->shape[dim] = n / pieces + (i < n % pieces);
    x->data = (R *)c->in[0].data + first * x->stride[dim];
}
static void NN__K(reduce)(const nn_call *c, const nn_task *t, const NN__K(stage) *f, NN__K(after) after)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    int stages = nn__reduce_stages(c), dim, s;
    int64_t pieces = nn__reduce_pieces(&c->in[0], p->mask, &dim), outs = nn_view_count(&c->out[0]), at, end, n, i, j;
    int64_t terms = nn__reduced_count(&c->in[0], p->mask), unit = nn__reduce_unit(&c->in[0], p->mask);
    int joins = pieces > 1 && t->phase == stages;        // the last phase of a reduction in pieces
    int until = pieces == 1 || joins ? stages : t->phase;
    nn_view x = c->in[0], y = NN__K(reduced)(&c->out[0], &x, p);
    R acc[NN__K(columns)], m[NN__K(columns)] = { 0 }, *part = (R *)c->shared;   // part[stage][piece][result]
    NN__K(walk) w;
    nn_task mine = *t;
    if (pieces > 1 && !joins) {
        mine.index = t->index / pieces;
        mine.count = t->count / pieces;
        NN__K(reduce_piece)(c, dim, pieces, t->index % pieces, &x);
    }
    w = NN__K(walk_over)(&x, &y);
    end = joins ? nn__task_end(outs, &mine) : nn__unit_end(outs, unit, &mine);
    for (at = joins ? nn__task_begin(outs, &mine) : nn__unit_begin(outs, unit, &mine); at < end; at += n) {
        int64_t pad;
        n = NN__K(walk_width)(&w, at, end);
        pad = (n + 15) & ~(int64_t)15;
        for (j = 0; j < pad; j++) m[j] = 0;
        for (s = 0; s < until; s++) {                    // whole stages: folded here, or joined from the pieces of an earlier phase
            if (pieces == 1) NN__K(fold_block)(&w, at, n, &f[s], (R)p->p, m, acc);
            else {
                for (j = 0; j < pad; j++) acc[j] = f[s].start;
                for (i = 0; i < pieces; i++) NN__K(join)(f[s].join, n, acc, part + (s * pieces + i) * outs + at);
            }
            after(s == stages - 1, p, (R)terms, pad, acc, m);
        }
        if (until < stages) {                            // this phase's piece
            NN__K(fold_block)(&w, at, n, &f[until], (R)p->p, m, acc);
            memcpy(part + (until * pieces + t->index % pieces) * outs + at, acc, (size_t)n * sizeof(R));
            continue;
        }
        memcpy((R *)c->out[0].data + at, acc, (size_t)n * sizeof(R));
        if (c->naux && c->aux[0].data) memcpy((R *)c->aux[0].data + at, m, (size_t)n * sizeof(R));
    }
}
static void NN__K(no_after)(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m)
{
    (void)last; (void)p; (void)terms; (void)n; (void)acc; (void)m;
}
static void NN__K(reduce_once)(const nn_call *c, const nn_task *t, NN__K(fold) fold, int join, R start, NN__K(after) after)
{
    NN__K(stage) f = NN__K(stage_of)(fold, join, start);
    NN__K(reduce)(c, t, &f, after);
}
// dx (+)= df(x, a, b), a and b being numbers per result
static void NN__K(reduce_back)(const nn_call *c, const nn_task *t, NN__K(row) df, const nn_view *a, const nn_view *b, R scalar)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    nn_view x = c->in[0], va = NN__K(reduced)(a, &x, p), vb = NN__K(reduced)(b, &x, p);
    const nn_view *in[3];
    int64_t n = nn_view_count(&c->din[0]);
    R s[2];
    s[0] = s[1] = scalar;
    in[0] = x.data ? &x : &vb; in[1] = &va; in[2] = &vb;
    if (c->din[0].data) NN__K(each)(&c->din[0], (int)(c->add & 1), in, 3, nn__task_begin(n, t), nn__task_end(n, t), df, s);
}
// to[i] = fold of the numbers that belong to result i; m: a number per result, or NULL
static void NN__K(fold_results)(const nn_call *c, const nn_task *t, NN__K(fold) fold, int join, R start, const R *m, R *to)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    NN__K(stage) f = NN__K(stage_of)(fold, join, start);
    nn_view y = NN__K(reduced)(&c->dout[0], &c->in[0], p);
    NN__K(walk) w = NN__K(walk_over)(&c->in[0], &y);
    int64_t outs = nn_view_count(&c->dout[0]), at, end = nn__task_end(outs, t), n;
    R acc[NN__K(columns)], mine[NN__K(columns)] = { 0 };
    for (at = nn__task_begin(outs, t); at < end; at += n) {
        n = NN__K(walk_width)(&w, at, end);
        if (m) memcpy(mine, m + at, (size_t)n * sizeof(R));
        NN__K(fold_block)(&w, at, n, &f, 0, mine, acc);
        memcpy(to + at, acc, (size_t)n * sizeof(R));
    }
}
#define NN__REDUCE_GRAD(name, formula) \
    NN__INLINE V NN__K(name##_grad)(V x, V a, V b, V p, V q) { (void)x; (void)a; (void)b; (void)p; (void)q; return formula; } \
    static void NN__K(name##_grow)(int64_t n, R *dx, const R *const *in, const R *p) { NN__K(map3)(n, dx, in[0], in[1], in[2], p, NN__K(name##_grad)); }

static void NN__K(scale_after)(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m)
{
    int64_t j;
    (void)last; (void)terms; (void)m;
    for (j = 0; j < n; j++) acc[j] *= (R)p->scale;
}
NN__REDUCE_GRAD(sum, b * p)
NN__FORWARD(sum)  { NN__K(reduce_once)(c, t, NN__K(sum_fold), NN__JOIN_ADD, 0, NN__K(scale_after)); }
NN__BACKWARD(sum) { NN__K(reduce_back)(c, t, NN__K(sum_grow), &c->dout[0], &c->dout[0], (R)((const nn__reduce_params *)c->params)->scale); }
#endif

// ---- max, min:   dx = dy / k where x = y, k of them being equal;   NaN wins ---------------------------------
#if NN__IN_SIMD
NN__FOLD(max,   SEL(x > acc, x, SEL(x == x, acc, x)))
NN__FOLD(min,   SEL(x < acc, x, SEL(x == x, acc, x)))
NN__FOLD(equal, acc + SEL(x == m, C(1), C(0)))
NN__REDUCE_GRAD(equal, SEL(x == a, b, C(0)))
static void NN__K(extreme_back)(const nn_call *c, const nn_task *t, NN__K(fold) equal, NN__K(row) df)
{
    R *share = (R *)c->shared;
    const R *dy = (const R *)c->dout[0].data;
    nn_view b = c->dout[0];
    int64_t n = nn_view_count(&b), i;
    b.data = share;
    if (t->phase == 1) { NN__K(reduce_back)(c, t, df, &c->out[0], &b, 0); return; }
    NN__K(fold_results)(c, t, equal, NN__JOIN_ADD, 0, (const R *)c->out[0].data, share);
    for (i = nn__task_begin(n, t); i < nn__task_end(n, t); i++) share[i] = dy[i] / share[i];
}
NN__FORWARD(max)  { NN__K(reduce_once)(c, t, NN__K(max_fold), NN__JOIN_MAX, (R)-INFINITY, NN__K(no_after)); }
NN__BACKWARD(max) { NN__K(extreme_back)(c, t, NN__K(equal_fold), NN__K(equal_grow)); }
NN__FORWARD(min)  { NN__K(reduce_once)(c, t, NN__K(min_fold), NN__JOIN_MIN, (R)INFINITY, NN__K(no_after)); }
NN__BACKWARD(min) { NN__K(extreme_back)(c, t, NN__K(equal_fold), NN__K(equal_grow)); }
#endif

// ---- prod:   dx_i = dy * product of the others: dy y / x_i;  with one zero only that zero has a gradient, with two nothing has -------
#if NN__IN_SIMD
NN__FOLD(prod,    acc * x)
NN__FOLD(nonzero, acc * SEL(x == C(0), C(1), x))
NN__FOLD(zeros,   acc + SEL(x == C(0), C(1), C(0)))
NN__REDUCE_GRAD(prod, SEL(x == C(0), b, a / x))
NN__FORWARD(prod)  { NN__K(reduce_once)(c, t, NN__K(prod_fold), NN__JOIN_MUL, 1, NN__K(no_after)); }
NN__BACKWARD(prod)
{
    int64_t n = nn_view_count(&c->dout[0]), i;
    const R *dy = (const R *)c->dout[0].data;
    R *whole = (R *)c->shared, *hole = whole + n;
    nn_view a = c->dout[0], b = c->dout[0];
    a.data = whole; b.data = hole;
    if (t->phase == 1) { NN__K(reduce_back)(c, t, NN__K(prod_grow), &a, &b, 0); return; }
    NN__K(fold_results)(c, t, NN__K(nonzero_fold), NN__JOIN_MUL, 1, NULL, whole);
    NN__K(fold_results)(c, t, NN__K(zeros_fold), NN__JOIN_ADD, 0, NULL, hole);
    for (i = nn__task_begin(n, t); i < nn__task_end(n, t); i++) {
        R zeros = hole[i], product = dy[i] * whole[i];
        whole[i] = zeros == 0 ? product : 0;
        hole[i] = zeros == 1 ? product : 0;
    }
}
#endif

// ---- var:   y = sum of (x - mean)^2 / (n - 1)   dx = 2 dy (x - mean) / (n - 1)      std:   y = sqrt(var)   dx = dy (x - mean) / ((n - 1) y)
#if NN__IN_SIMD
NN__FOLD(square, FMA(x - m, x - m, acc))
NN__REDUCE_GRAD(var, C(2) * b * (x - a) * p)
NN__REDUCE_GRAD(std, b * (x - a) * p)
static void NN__K(var_after)(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m)
{
    int64_t j;
    if (last) for (j = 0; j < n; j++) acc[j] *= (R)p->scale;
    else      for (j = 0; j < n; j++) m[j] = acc[j] / terms;
}
static void NN__K(std_after)(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m)
{
    int64_t j;
    NN__K(var_after)(last, p, terms, n, acc, m);
    if (last) for (j = 0; j < n; j += NN__LANES) STORE(acc + j, SQRT(LOAD(acc + j)));
}
static void NN__K(reduce_deviation)(const nn_call *c, const nn_task *t, NN__K(after) after)
{
    NN__K(stage) f[2];
    f[0] = NN__K(stage_of)(NN__K(sum_fold), NN__JOIN_ADD, 0);
    f[1] = NN__K(stage_of)(NN__K(square_fold), NN__JOIN_ADD, 0);
    NN__K(reduce)(c, t, f, after);
}
NN__FORWARD(var)  { NN__K(reduce_deviation)(c, t, NN__K(var_after)); }
NN__BACKWARD(var) { NN__K(reduce_back)(c, t, NN__K(var_grow), &c->aux[0], &c->dout[0], (R)((const nn__reduce_params *)c->params)->scale); }
NN__FORWARD(std)  { NN__K(reduce_deviation)(c, t, NN__K(std_after)); }
NN__BACKWARD(std)
{
    int64_t n = nn_view_count(&c->dout[0]), i;
    const R *dy = (const R *)c->dout[0].data, *y = (const R *)c->out[0].data;
    R *share = (R *)c->shared;
    nn_view b = c->dout[0];
    b.data = share;
    if (t->phase == 1) NN__K(reduce_back)(c, t, NN__K(std_grow), &c->aux[0], &b, (R)((const nn__reduce_params *)c->params)->scale);
    else for (i = nn__task_begin(n, t); i < nn__task_end(n, t); i++) share[i] = y[i] == 0 ? 0 : dy[i] / y[i];    // equal numbers: no slope, as PyTorch
}
#endif

// ---- logsumexp:   y = m + log sum of e^(x - m), m the maximum      dx = dy e^(x - y) -----------------------------
#if NN__IN_SIMD
NN__FOLD(exp, acc + EXP(x - m))
NN__REDUCE_GRAD(logsumexp, b * SEL(x == a, C(1), EXP(x - a)))
static void NN__K(logsumexp_after)(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m)
{
    int64_t j;
    (void)p; (void)terms;
    if (last) for (j = 0; j < n; j += NN__LANES) STORE(acc + j, LOAD(m + j) + LOG(LOAD(acc + j)));
    else      for (j = 0; j < n; j++) m[j] = acc[j] - acc[j] == 0 ? acc[j] : 0;      // inf - inf would be NaN
}
NN__FORWARD(logsumexp)
{
    NN__K(stage) f[2];
    f[0] = NN__K(stage_of)(NN__K(max_fold), NN__JOIN_MAX, (R)-INFINITY);
    f[1] = NN__K(stage_of)(NN__K(exp_fold), NN__JOIN_ADD, 0);
    NN__K(reduce)(c, t, f, NN__K(logsumexp_after));
}
NN__BACKWARD(logsumexp) { NN__K(reduce_back)(c, t, NN__K(logsumexp_grow), &c->out[0], &c->dout[0], 0); }
#endif

// ---- norm:   y = (sum of |x|^p)^(1/p)      dx = dy sign(x) (|x| / y)^(p - 1);   p 0 counts what is not 0;  p = inf: max |x|, -inf: min |x|
#if NN__IN_SIMD
NN__FOLD(norm0,      acc + SEL(x == C(0), C(0), C(1)))
NN__FOLD(norm1,      acc + ABS(x))
NN__FOLD(norm2,      FMA(x, x, acc))
NN__FOLD(normp,      acc + POW(ABS(x), p))
NN__FOLD(max_abs,    SEL(ABS(x) > acc, ABS(x), SEL(x == x, acc, x)))
NN__FOLD(min_abs,    SEL(ABS(x) < acc, ABS(x), SEL(x == x, acc, x)))
NN__FOLD(equal_abs,  acc + SEL(ABS(x) == m, C(1), C(0)))
NN__REDUCE_GRAD(equal_abs, SEL(ABS(x) == a, SEL(x > C(0), b, SEL(x < C(0), -b, C(0))), C(0)))
NN__REDUCE_GRAD(norm1, SEL(x > C(0), b, SEL(x < C(0), -b, C(0) * b)))
NN__REDUCE_GRAD(norm2, SEL(a == C(0), C(0), b * (x / a)))
NN__REDUCE_GRAD(normp, SEL(a == C(0), C(0), SEL(x > C(0), b, SEL(x < C(0), -b, C(0))) * SEL(x == C(0), C(1), POW(ABS(x) / a, p - C(1)))))
static void NN__K(norm_after)(int last, const nn__reduce_params *p, R terms, int64_t n, R *acc, R *m)
{
    R order = (R)p->p;
    int64_t j;
    (void)last; (void)terms; (void)m;
    if (order == 2) for (j = 0; j < n; j += NN__LANES) STORE(acc + j, SQRT(LOAD(acc + j)));
    else if (order != 0 && order != 1 && order - order == 0) for (j = 0; j < n; j += NN__LANES) STORE(acc + j, POW(LOAD(acc + j), SET1(1 / order)));
}
NN__FORWARD(norm)
{
    double p = ((const nn__reduce_params *)c->params)->p;
    if (isinf(p)) NN__K(reduce_once)(c, t, p > 0 ? NN__K(max_abs_fold) : NN__K(min_abs_fold), p > 0 ? NN__JOIN_MAX : NN__JOIN_MIN, p > 0 ? 0 : (R)INFINITY, NN__K(norm_after));
    else NN__K(reduce_once)(c, t, p == 0 ? NN__K(norm0_fold) : p == 1 ? NN__K(norm1_fold) : p == 2 ? NN__K(norm2_fold) : NN__K(normp_fold), NN__JOIN_ADD, 0, NN__K(norm_after));
}
NN__BACKWARD(norm)
{
    double p = ((const nn__reduce_params *)c->params)->p;
    if (isinf(p)) { NN__K(extreme_back)(c, t, NN__K(equal_abs_fold), NN__K(equal_abs_grow)); return; }
    if (p == 0) { NN__K(reduce_back)(c, t, NN__K(sum_grow), &c->out[0], &c->dout[0], 0); return; }       // a count has no slope: dx = 0 * dy
    NN__K(reduce_back)(c, t, p == 1 ? NN__K(norm1_grow) : p == 2 ? NN__K(norm2_grow) : NN__K(normp_grow), &c->out[0], &c->dout[0], (R)p);
}
#endif

// ---- argmax, argmin: where the extreme is, counted over the reduced dimensions in order; the first of equals, a NaN before all ------
#if NN__IN_PLAIN
static void NN__K(arg_extreme)(const nn_call *c, const nn_task *t, int least)
{
    const nn__reduce_params *p = (const nn__reduce_params *)c->params;
    const nn_view *x = &c->in[0];
    nn_view kept = *x, reduced = *x;
    int64_t outs = nn_view_count(&c->out[0]), terms, at, i;
    int d, nan, nk = 0, nr = 0;
    for (d = 0; d < x->ndim; d++) {
        nn_view *v = p->mask & 1u << d ? &reduced : &kept;
        int k = p->mask & 1u << d ? nr++ : nk++;
        v->shape[k] = x->shape[d];
        v->stride[k] = x->stride[d];
    }
    kept.ndim = nk; reduced.ndim = nr;
    terms = nn_view_count(&reduced);
    for (at = nn__task_begin(outs, t); at < nn__task_end(outs, t); at++) {
        int64_t base = NN__K(offset)(&kept, at), best = 0, key = 0;
        for (i = 0; i < terms; i++) {
            int64_t k = NN__K(order_key)(x, base + NN__K(offset)(&reduced, i), &nan);
            if (least && !nan) k = ~k;                   // turns the order round
            if (i == 0 || k > key) { key = k; best = i; }
        }
        memcpy((int64_t *)c->out[0].data + at, &best, sizeof best);
    }
}
NN__FORWARD(argmax) { NN__K(arg_extreme)(c, t, 0); }
NN__FORWARD(argmin) { NN__K(arg_extreme)(c, t, 1); }
#endif

// ---- cumsum:   y_i = x_0 + ... + x_i      dx_i = dy_i + ... + dy_(n-1);   sums in double ------------------------------
#if NN__IN_HOST
static nn_tensor *nn__along(int op, const char *name, nn_tensor *x, int dim)
{
    nn_context *nn = x ? x->nn : NULL;
    dim = nn__line_dim(nn, name, x, dim);
    return dim < 0 ? nn__inert(nn) : nn__apply1(op, x, &dim);
}
NN_API nn_tensor *nn_cumsum(nn_tensor *x, int dim)      { return nn__along(NN_OP_cumsum, "cumsum", x, dim); }
NN_API nn_tensor *nn_softmax(nn_tensor *x, int dim)     { return nn__along(NN_OP_softmax, "softmax", x, dim); }
NN_API nn_tensor *nn_log_softmax(nn_tensor *x, int dim) { return nn__along(NN_OP_log_softmax, "log_softmax", x, dim); }
#endif
#if NN__IN_PLAIN
static void NN__K(running_sum)(const nn_call *c, const nn_task *t, const R *x, R *y, int back, int add)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    int64_t lines = s.outer * s.inner, at, end = nn__task_end(lines, t), w, i, j;
    for (at = nn__task_begin(lines, t); at < end; at += w) {         // up to 64 neighbouring lines together
        double sum[64] = { 0 };
        int64_t first = at % s.inner, base = at / s.inner * s.n * s.inner + first;
        w = nn__min(nn__min(s.inner - first, end - at), 64);
        for (i = 0; i < s.n; i++) {
            int64_t o = base + (back ? s.n - 1 - i : i) * s.inner;
            for (j = 0; j < w; j++) {
                sum[j] += x[o + j];
                y[o + j] = (R)(add ? y[o + j] + sum[j] : sum[j]);
            }
        }
    }
}
NN__FORWARD(cumsum)  { NN__K(running_sum)(c, t, (const R *)c->in[0].data, (R *)c->out[0].data, 0, 0); }
NN__BACKWARD(cumsum) { NN__K(running_sum)(c, t, (const R *)c->dout[0].data, (R *)c->din[0].data, 1, (int)(c->add & 1)); }
#endif

// ---- softmax:       y = e^(x - m) / s, s = sum of e^(x - m), m the maximum along dim      dx = y (dy - sum of y dy)
// ---- log_softmax:   y = x - m - log s                                                     dx = dy - e^y sum of dy
#if NN__IN_SIMD
// y[i] (+)= f(a[i], b[i], m, s) for the n numbers of one row of lines: m and s belong to the line, which is i, or 0 if the lines lie along the row.
NN__INLINE void NN__K(line_row)(int64_t n, R *y, int add, const R *a, const R *b, const R *m, const R *s, int across, V (*f)(V, V, V, V))
{
    V vm = SET1(m[0]), vs = SET1(s[0]);
    int64_t i;
    for (i = 0; i < n; i += NN__LANES) {
        int64_t k = nn__min(n - i, NN__LANES);
        V r;
        if (across) { vm = LOAD(m + i); vs = LOAD(s + i); }          // m and s have room for whole vectors
        if (k == NN__LANES) {
            r = f(LOAD(a + i), LOAD(b + i), vm, vs);
            STORE(y + i, add ? LOAD(y + i) + r : r);
        } else {
            r = f(NN__K(load_part)(a + i, k), NN__K(load_part)(b + i, k), vm, vs);
            NN__K(store_part)(y + i, add ? NN__K(load_part)(y + i, k) + r : r, k);
        }
    }
}
typedef void (*NN__K(line))(int64_t n, R *y, int add, const R *a, const R *b, const R *m, const R *s, int across);
#define NN__LINE(name, formula) \
    NN__INLINE V NN__K(name##_line_f)(V a, V b, V m, V s) { (void)a; (void)b; (void)m; (void)s; return formula; } \
    static void NN__K(name##_line)(int64_t n, R *y, int add, const R *a, const R *b, const R *m, const R *s, int across) \
    { NN__K(line_row)(n, y, add, a, b, m, s, across, NN__K(name##_line_f)); }
NN__LINE(exp_less,          EXP(a - m))
NN__LINE(divide,            a / s)
NN__LINE(less_less,         a - m - s)
NN__LINE(product,           a * b)
NN__LINE(first,             a)
NN__LINE(softmax_grad,      b * (a - s))
NN__LINE(log_softmax_grad,  a - EXP(b) * s)

// Contiguous lines: passes over a row that stays in the cache.
NN__INLINE V NN__K(larger)(V a, V b)                     { return SEL(b > a, b, a); }
static R NN__K(row_max)(int64_t n, const R *x)           // a NaN may be lost: the sum of the exponentials has it
{
    enum { parts = NN__K(row_parts) };
    V most[parts];
    R part[NN__LANES], m;
    int64_t i;
    int j;
    NN__PARTS for (j = 0; j < parts; j++) most[j] = C(-INFINITY);
    for (i = 0; i + NN__K(row_lanes) <= n; i += NN__K(row_lanes))
        NN__PARTS for (j = 0; j < parts; j++) most[j] = NN__K(larger)(most[j], LOAD(x + i + j * NN__LANES));
    for (; i + NN__LANES <= n; i += NN__LANES) most[0] = NN__K(larger)(most[0], LOAD(x + i));
    if (i < n) most[0] = SEL(NN__K(count_up)(0) < (int32_t)(n - i), NN__K(larger)(most[0], NN__K(load_part)(x + i, n - i)), most[0]);
    for (j = 1; j < parts; j++) most[0] = NN__K(larger)(most[0], most[j]);
    STORE(part, most[0]);
    for (j = 1, m = part[0]; j < NN__LANES; j++) m = part[j] > m ? part[j] : m;
    return m;
}
static R NN__K(row_exps)(int64_t n, const R *x, R scale, R m, R *y)  // the sum of e^(scale x - m), which go to y or, NULL, nowhere
{
    enum { parts = NN__K(row_parts) };
    V sum[parts], vm = SET1(m), vs = SET1(scale);
    int64_t i;
    int j;
    for (j = 0; j < parts; j++) sum[j] = C(0);
    for (i = 0; i < n; i += NN__K(row_lanes))
        for (j = 0; j < parts; j++) {
            int64_t left = n - i - j * NN__LANES, at = i + j * NN__LANES;
            V e;
            if (left <= 0) continue;
            e = EXP(NN__K(get_lanes)(x + at, left) * vs - vm);
            if (left < NN__LANES) e = SEL(NN__K(count_up)(0) < (int32_t)left, e, C(0));
            if (y) NN__K(put_lanes)(y + at, e, left);
            sum[j] = sum[j] + e;
        }
    return NN__K(sum64)(sum);
}
static R NN__K(log_one)(R x)                             { R y[NN__LANES]; STORE(y, LOG(SET1(x))); return y[0]; }
NN__INLINE V NN__K(product_term)(V s, V x, V dy, V w, V m) { (void)w; (void)m; return FMA(x, dy, s); }
NN__INLINE V NN__K(plain_term)(V s, V x, V dy, V w, V m)   { (void)dy; (void)w; (void)m; return s + x; }
static void NN__K(softmax_row)(int64_t n, const R *x, R *y, int logs)
{
    R m = NN__K(row_max)(n, x), s = NN__K(row_exps)(n, x, 1, m, logs ? NULL : y);
    if (logs) {
        s = NN__K(log_one)(s);
        NN__K(less_less_line)(n, y, 0, x, x, &m, &s, 0);
    } else NN__K(divide_line)(n, y, 0, y, y, &m, &s, 0);
}
static void NN__K(softmax_row_back)(int64_t n, R *dx, int add, const R *y, const R *dy, int logs)
{
    R s = logs ? NN__K(row_sum)(n, dy, dy, dy, 0, NN__K(plain_term)) : NN__K(row_sum)(n, y, dy, y, 0, NN__K(product_term));
    if (logs) NN__K(log_softmax_grad_line)(n, dx, add, dy, y, &s, &s, 0);
    else      NN__K(softmax_grad_line)(n, dx, add, dy, y, &s, &s, 0);
}

// Other lines are taken up to 64 neighbours at a time, row by row.
typedef struct NN__K(lines) { int64_t count, rows, step; } NN__K(lines);     // of `count` lines: rows, distance of rows
static NN__K(lines) NN__K(lines_at)(nn__three s, int64_t at, int64_t end, int64_t *base)
{
    NN__K(lines) l;
    int64_t first = at % s.inner;
    l.count = nn__min(nn__min(s.inner - first, end - at), NN__K(columns));
    l.rows = s.n;
    l.step = s.inner;
    *base = at / s.inner * s.n * s.inner + first;
    return l;
}
static void NN__K(each_line)(const NN__K(lines) *l, R *y, int add, const R *a, const R *b, const R *m, const R *s, NN__K(line) f)
{
    int64_t r;
    for (r = 0; r < l->rows; r++) f(l->count, y + r * l->step, add, a + r * l->step, b + r * l->step, m, s, 1);
}
// acc[line] = sum of f(a, b) along it
static void NN__K(line_sum)(const NN__K(lines) *l, const R *a, const R *b, NN__K(line) f, R *acc)
{
    static const R none[NN__K(columns)] = { 0 };
    R row[NN__K(columns)] = { 0 };
    int64_t r;
    NN__K(fill_with)(NN__K(columns), acc, 0);
    for (r = 0; r < l->rows; r++) {
        f(l->count, row, 0, a + r * l->step, b + r * l->step, none, none, 0);
        NN__K(add_onto)(NN__K(columns), acc, row);
    }
}
static void NN__K(softmax_lines)(const nn_call *c, const nn_task *t, int logs)
{
    nn__three s = nn__around(&c->in[0], *(const int *)c->params);
    NN__K(stage) most = NN__K(stage_of)(NN__K(max_fold), NN__JOIN_MAX, (R)-INFINITY), exps = NN__K(stage_of)(NN__K(exp_fold), NN__JOIN_ADD, 0);
    nn_view kept = c->in[0];
    NN__K(walk) w;
    R m[NN__K(columns)] = { 0 }, sum[NN__K(columns)];
    int64_t lines = s.outer * s.inner, at, end = nn__task_end(lines, t), base, j;
    if (kept.ndim) kept.stride[*(const int *)c->params] = 0;
    w = NN__K(walk_over)(&c->in[0], &kept);
    if (s.inner == 1) {
        for (at = nn__task_begin(lines, t); at < end; at++) NN__K(softmax_row)(s.n, (const R *)c->in[0].data + at * s.n, (R *)c->out[0].data + at * s.n, logs);
        return;
    }
    for (at = nn__task_begin(lines, t); at < end;) {
        NN__K(lines) l = NN__K(lines_at)(s, at, end, &base);
        const R *x = (const R *)c->in[0].data + base;
        R *y = (R *)c->out[0].data + base;
        for (j = 0; j < NN__K(columns); j++) sum[j] = 0;
        NN__K(fold_block)(&w, at, l.count, &most, 0, sum, m);
        if (logs) {
            NN__K(fold_block)(&w, at, l.count, &exps, 0, m, sum);
            for (j = 0; j < l.count; j += NN__LANES) STORE(sum + j, LOG(LOAD(sum + j)));
            NN__K(each_line)(&l, y, 0, x, x, m, sum, NN__K(less_less_line));
        } else {
            NN__K(each_line)(&l, y, 0, x, x, m, m, NN__K(exp_less_line));
            NN__K(line_sum)(&l, y, y, NN__K(first_line), sum);
            NN__K(each_line)(&l, y, 0, y, y, sum, sum, NN__K(divide_line));
        }
        at += l.count;
    }
}
static void NN__K(softmax_back)(const nn_call *c, const nn_task *t, int logs)
{
    nn__three s = nn__around(&c->out[0], *(const int *)c->params);
    NN__K(line) summed = logs ? NN__K(first_line) : NN__K(product_line), grad = logs ? NN__K(log_softmax_grad_line) : NN__K(softmax_grad_line);
    R sum[NN__K(columns)];
    int64_t lines = s.outer * s.inner, at = nn__task_begin(lines, t), end = nn__task_end(lines, t), base;
    for (; s.inner == 1 && at < end; at++)
        NN__K(softmax_row_back)(s.n, (R *)c->din[0].data + at * s.n, (int)(c->add & 1), (const R *)c->out[0].data + at * s.n, (const R *)c->dout[0].data + at * s.n, logs);
    while (at < end) {
        NN__K(lines) l = NN__K(lines_at)(s, at, end, &base);
        const R *y = (const R *)c->out[0].data + base, *dy = (const R *)c->dout[0].data + base;
        NN__K(line_sum)(&l, dy, y, summed, sum);
        NN__K(each_line)(&l, (R *)c->din[0].data + base, (int)(c->add & 1), dy, y, sum, sum, grad);
        at += l.count;
    }
}
NN__FORWARD(softmax)      { NN__K(softmax_lines)(c, t, 0); }
NN__BACKWARD(softmax)     { NN__K(softmax_back)(c, t, 0); }
NN__FORWARD(log_softmax)  { NN__K(softmax_lines)(c, t, 1); }
NN__BACKWARD(log_softmax) { NN__K(softmax_back)(c, t, 1); }
#endif

// ---- gemm:   C (+)= A B      A (m, k), B (k, n), C (m, n), any strides -----------------------------------
// Every element of C is one chain  c = fma(a_0, b_0, c0), c = fma(a_1, b_1, c) ...  in the order of k: tiles load C before they
// add to it, so neither block sizes nor m and n nor threads nor packing change a bit.
//
//     task         rows x columns of C; the column blocks are outermost, so that a thread that takes neighbouring tasks keeps its columns of B
//     slice        `depth` terms of k at a time: a slice of the task's A stays in the second-level cache
//     strip        columns of B of a few vectors, in place if they lie side by side, else packed: [term][column]
//     tile         up to NN__TALL x 2 vectors of C in registers, or fewer rows and more vectors: one step of k is an outer product
//
// (Goto & van de Geijn 2008.) A is read in place, one number at a time: packing it cost more than it gained, up to 2048 x 2048.
#if NN__IN_HOST
enum { NN__GEMM_M = 96, NN__GEMM_STRIP = 32, NN__GEMM_ROWS = 512, NN__GEMM_DEPTH = 512, NN__GEMM_WORK = 1 << 18 };
typedef struct nn__gemm_cut { int64_t rows, columns, down, across, depth; int pack_a, pack_b; size_t scratch; } nn__gemm_cut;    // scratch: numbers

typedef struct nn__product {         // y (m, n) = a (m, k) b (k, n);  element (i, j) of a is a[i ars + j acs]
    const void *a, *b;
    void       *y;
    int64_t     m, n, k, ars, acs, brs, bcs, yrs, ycs;
} nn__product;

// Where y lies column by column, its transpose is computed: y' = b' a'.
static nn__product nn__product_turned(nn__product p)
{
    nn__product q = p;
    if (p.ycs == 1 || p.yrs != 1) return p;
    q.a = p.b; q.b = p.a; q.m = p.n; q.n = p.m;
    q.ars = p.bcs; q.acs = p.brs; q.brs = p.acs; q.bcs = p.ars; q.yrs = p.ycs; q.ycs = 1;
    return q;
}

static nn__gemm_cut nn__gemm_cuts(const nn__product *g)
{
    nn__gemm_cut s;
    int64_t m = g->m, n = g->n, k = g->k;
    int64_t strips = (n + NN__GEMM_STRIP - 1) / NN__GEMM_STRIP, want, most;
    double work = (double)m * (double)n * (double)k / (double)NN__GEMM_WORK;         // in tasks
    s.down = m > 0; s.across = n > 0; s.rows = m; s.columns = strips * NN__GEMM_STRIP;
    if (work > 1 || m > NN__GEMM_ROWS || n > NN__GEMM_ROWS) {
        want = work < 8 ? 1 + (int64_t)work : nn__max(8, m / NN__GEMM_ROWS * (n / NN__GEMM_ROWS));
        s.down = (int64_t)sqrt((double)want * (double)m / (double)(n + 1));          // tasks as square as possible: least traffic
        s.down = nn__max((m + NN__GEMM_ROWS - 1) / NN__GEMM_ROWS, nn__min(s.down, m / 56));
        s.across = nn__max((n + NN__GEMM_ROWS - 1) / NN__GEMM_ROWS, nn__min(strips, (want + s.down - 1) / nn__max(1, s.down)));
        s.rows = s.down ? (m + s.down - 1) / s.down : 0;
        s.columns = s.across ? (strips + s.across - 1) / s.across * NN__GEMM_STRIP : 0;
        s.across = n ? (n + s.columns - 1) / s.columns : 0;
    }
    s.pack_a = (g->ars != 1 && g->acs != 1) || g->acs == 0;
    s.pack_b = g->bcs != 1 || g->brs < 1 || s.pack_a;
    most = s.pack_a || s.pack_b ? NN__GEMM_DEPTH / 2 : k <= 2 * (int64_t)NN__GEMM_DEPTH ? nn__max(1, k) : (int64_t)NN__GEMM_DEPTH;
    s.depth = k <= most ? nn__max(1, k) : (k + (k + most - 1) / most - 1) / ((k + most - 1) / most);
    s.scratch = (size_t)(((s.pack_a ? s.rows : 0) + (s.pack_b ? nn__min(s.columns, strips * NN__GEMM_STRIP) : 0)) * s.depth);
    return s;
}
static int64_t nn__gemm_tasks(nn__product g)
{
    nn__gemm_cut s;
    g = nn__product_turned(g);
    s = nn__gemm_cuts(&g);
    return s.down * s.across;
}
static int64_t nn__gemm_plan(nn_call *c, nn__product g)              // the same; also makes room for their scratch and adds what they cost
{
    double work = (double)g.m * (double)g.n * (double)g.k / 8;
    nn__gemm_cut s;
    size_t bytes;
    g = nn__product_turned(g);
    s = nn__gemm_cuts(&g);
    bytes = s.scratch * nn__real_bytes(c);
    if (bytes > c->task_bytes) c->task_bytes = bytes;
    c->cost += work < 1e12 ? (int64_t)work + 1 : (int64_t)1 << 40;
    return s.down * s.across;
}
#endif
#if NN__IN_SIMD
#ifndef NN__MR
#define NN__MR 4
#endif
#ifndef NN__TALL
#define NN__TALL NN__MR
#endif
#define NN__NV 2                     // vectors per row of a tile
#define NN__NR (NN__NV * NN__LANES)

// y[h][v vectors] = A (h, k) B (k, v vectors) + y, or + start in every row. h and v are constants where this is inlined: the sums stay in registers.
NN__INLINE void NN__K(gemm_sums)(const int h, const int v, int64_t k, const R *a, int64_t ars, int64_t acs, const R *b, int64_t ldb, const R *start, R *y, int64_t ldy)
{
    V acc[NN__TALL][8], bv[8];
    int64_t p;
    int i, j;
    NN__UNROLL for (i = 0; i < h; i++)
        NN__UNROLL for (j = 0; j < v; j++) acc[i][j] = LOAD(y + i * ldy + j * NN__LANES);
    if (start) {
        NN__UNROLL for (i = 0; i < h; i++)
            NN__UNROLL for (j = 0; j < v; j++) acc[i][j] = LOAD(start + j * NN__LANES);
    }
    for (p = 0; p < k; p++, a += acs, b += ldb) {
        NN__UNROLL for (j = 0; j < v; j++) bv[j] = LOAD(b + j * NN__LANES);
        NN__UNROLL for (i = 0; i < h; i++)
            NN__UNROLL for (j = 0; j < v; j++) acc[i][j] = FMA(SET1(a[i * ars]), bv[j], acc[i][j]);
    }
    NN__UNROLL for (i = 0; i < h; i++)
        NN__UNROLL for (j = 0; j < v; j++) STORE(y + i * ldy + j * NN__LANES, acc[i][j]);
}

typedef void (*NN__K(gemm_fn))(int64_t k, const R *a, int64_t ars, int64_t acs, const R *b, int64_t ldb, const R *start, R *y, int64_t ldy);
#define NN__TILE(h, v) static void NN__K(tile_##h##x##v)(int64_t k, const R *a, int64_t ars, int64_t acs, const R *b, int64_t ldb, const R *start, R *y, int64_t ldy) \
    { NN__K(gemm_sums)(h, v, k, a, ars, acs, b, ldb, start, y, ldy); }
#define NN__TILES_OF(v, NN__X) NN__X(1, v) NN__X(2, v) NN__X(3, v) NN__X(4, v)
#if NN__TALL == 4
#define NN__TILES(v, NN__X) NN__TILES_OF(v, NN__X)
#elif NN__TALL == 6
#define NN__TILES(v, NN__X) NN__TILES_OF(v, NN__X) NN__X(5, v) NN__X(6, v)
#elif NN__TALL == 8
#define NN__TILES(v, NN__X) NN__TILES_OF(v, NN__X) NN__X(5, v) NN__X(6, v) NN__X(7, v) NN__X(8, v)
#else
#define NN__TILES(v, NN__X) NN__TILES_OF(v, NN__X) NN__X(5, v) NN__X(6, v) NN__X(7, v) NN__X(8, v) NN__X(9, v) NN__X(10, v) NN__X(11, v) NN__X(12, v) NN__X(13, v) NN__X(14, v)
#endif
NN__TILES(1, NN__TILE)
NN__TILES(2, NN__TILE)
NN__TILE(1, 4) NN__TILE(1, 8) NN__TILE(2, 4) NN__TILE(3, 4)
#define NN__X(h, v) NN__K(tile_##h##x##v),
static const NN__K(gemm_fn) NN__K(tiles)[2][NN__TALL] = { { NN__TILES(1, NN__X) }, { NN__TILES(2, NN__X) } };
#undef NN__X
#undef NN__TILE
#undef NN__TILES
#undef NN__TILES_OF

NN__INLINE NN__K(gemm_fn) NN__K(tile_for)(int64_t rows, int vectors)
{
    if (vectors <= 2) return NN__K(tiles)[vectors - 1][rows - 1];
    return vectors == 8 ? NN__K(tile_1x8) : rows == 1 ? NN__K(tile_1x4) : rows == 2 ? NN__K(tile_2x4) : NN__K(tile_3x4);
}

static void NN__K(gemm_tile)(int64_t k, const R *a, const R *b, R *y, int64_t ldy)   // y[MR][NR] += A panel * B panel
{
    NN__K(gemm_sums)(NN__MR, NN__NV, k, a, 1, NN__MR, b, NN__NR, NULL, y, ldy);
}

#if NN__LANES > 1
#define NN__FOUR_LOW        0, 4, 1, 5
#define NN__FOUR_HIGH       2, 6, 3, 7
#define NN__FOUR_LOW_PAIRS  0, 1, 4, 5
#define NN__FOUR_HIGH_PAIRS 2, 3, 6, 7
typedef int32_t NN__K(ifour) __attribute__((vector_size(16)));
NN__INLINE NN__K(four) NN__K(four_low)(NN__K(four) a, NN__K(four) b)        { NN__SHUFFLE(NN__K(ifour), a, b, NN__FOUR_LOW); }
NN__INLINE NN__K(four) NN__K(four_high)(NN__K(four) a, NN__K(four) b)       { NN__SHUFFLE(NN__K(ifour), a, b, NN__FOUR_HIGH); }
NN__INLINE NN__K(four) NN__K(four_low_pairs)(NN__K(four) a, NN__K(four) b)  { NN__SHUFFLE(NN__K(ifour), a, b, NN__FOUR_LOW_PAIRS); }
NN__INLINE NN__K(four) NN__K(four_high_pairs)(NN__K(four) a, NN__K(four) b) { NN__SHUFFLE(NN__K(ifour), a, b, NN__FOUR_HIGH_PAIRS); }
#undef NN__FOUR_LOW
#undef NN__FOUR_HIGH
#undef NN__FOUR_LOW_PAIRS
#undef NN__FOUR_HIGH_PAIRS
NN__INLINE void NN__K(transpose4)(const R *x, int64_t rs, R *to, int64_t width)      // to[p][j] = x[j][p], 4 x 4
{
    NN__K(four) a[4], r[4], low, high;
    int i;
    NN__UNROLL for (i = 0; i < 4; i++) memcpy(&a[i], x + i * rs, 16);
    low = NN__K(four_low)(a[0], a[1]); high = NN__K(four_low)(a[2], a[3]);
    r[0] = NN__K(four_low_pairs)(low, high); r[1] = NN__K(four_high_pairs)(low, high);
    low = NN__K(four_high)(a[0], a[1]); high = NN__K(four_high)(a[2], a[3]);
    r[2] = NN__K(four_low_pairs)(low, high); r[3] = NN__K(four_high_pairs)(low, high);
    NN__UNROLL for (i = 0; i < 4; i++) memcpy(to + i * width, &r[i], 16);
}
#endif

// w rows of k numbers to [term][row], rows beside each other: to[p * width + j] = x[j rs + p cs]; rows w .. width are zero. B too, by swapped strides.
static void NN__K(gemm_turn)(int64_t w, int64_t k, const R *x, int64_t rs, int64_t cs, int64_t width, R *to)
{
    int64_t terms = 0, rows = 0, first = 0, p, j;        // so many of each are done in blocks of 4 x 4, 64 terms of a row at a time
    if (rs == 1) {
        for (p = 0; p < k; p++) {
            NN__K(copy_few)(to + p * width, x + p * cs, w);
            for (j = w; j < width; j++) to[p * width + j] = 0;
        }
        return;
    }
#if NN__LANES > 1
    if (cs == 1) {
        terms = k / 4 * 4;
        rows = w / 4 * 4;
        for (first = 0; first < terms; first += 64)
            for (j = 0; j < rows; j += 4) for (p = first; p < nn__min(terms, first + 64); p += 4) NN__K(transpose4)(x + j * rs + p, rs, to + p * width + j, width);
    }
#else
    (void)first;
#endif
    for (p = 0; p < k; p++) {
        for (j = p < terms ? rows : 0; j < w; j++) to[p * width + j] = x[j * rs + p * cs];
        for (; j < width; j++) to[p * width + j] = 0;
    }
}

// n rows of k numbers in panels: as many as there are tiles, nearly equal (A); or, tiles 0, as wide as strips are (B).
static void NN__K(gemm_panels)(int64_t n, int64_t k, const R *x, int64_t rs, int64_t cs, int64_t tiles, R *to)
{
    int64_t i, w, width, p, t;
    for (p = 0; p < (rs == 1 ? k : 1); p++) {            // where rows lie side by side, go through memory in its order
        for (i = 0, t = 0; i < n; i += w, t++) {
            w = tiles ? n / tiles + (t < n % tiles) : nn__min(NN__NR, n - i);
            width = tiles ? w : w > NN__LANES ? NN__NR : NN__LANES;
            if (rs == 1) NN__K(gemm_turn)(w, 1, x + i + p * cs, 1, cs, width, to + i * k + p * width);
            else         NN__K(gemm_turn)(w, k, x + i * rs, rs, cs, width, to + i * k);
        }
    }
}

// y (m, n) += packed A * packed B; tiles at the edge, and those of a y whose rows are not dense, go through the stack.
static void NN__K(gemm_macro)(int64_t m, int64_t n, int64_t k, const R *a, const R *b, R *y, int64_t rs, int64_t cs)
{
    R edge[NN__MR * NN__NR];
    int64_t i, j, p, q;
    for (j = 0; j < n; j += NN__NR)
        for (i = 0; i < m; i += NN__MR) {
            int64_t h = nn__min(NN__MR, m - i), w = nn__min(NN__NR, n - j);
            R *z = y + i * rs + j * cs;
            const R *pa = a + i * k, *pb = b + j * k;
            if (h == NN__MR && w == NN__NR && cs == 1) { NN__K(gemm_tile)(k, pa, pb, z, rs); continue; }
            memset(edge, 0, sizeof edge);
            for (p = 0; p < h; p++) for (q = 0; q < w; q++) edge[p * NN__NR + q] = z[p * rs + q * cs];
            NN__K(gemm_tile)(k, pa, pb, edge, NN__NR);
            for (p = 0; p < h; p++) for (q = 0; q < w; q++) z[p * rs + q * cs] = edge[p * NN__NR + q];
        }
}

// All rows of a task times one strip: w columns, in tiles of nearly equal height. acs 0: A is packed, a panel per tile. b: [term][column].
static void NN__K(gemm_strip)(int64_t m, int64_t w, int vectors, int64_t k, const R *a, int64_t ars, int64_t acs, const R *b, int64_t ldb,
                              const R *start, R *y, int64_t rs, int64_t cs)
{
    R edge[NN__TALL * NN__NR];
    int64_t tiles = (m + NN__TALL - 1) / NN__TALL, t, p, q, width = vectors * NN__LANES;
    for (t = 0; t < tiles; t++) {
        int64_t h = m / tiles + (t < m % tiles);
        NN__K(gemm_fn) tile = NN__K(tile_for)(h, vectors);
        if (w == width && cs == 1) tile(k, a, acs ? ars : 1, acs ? acs : h, b, ldb, start, y, rs);
        else {
            for (p = 0; !start && p < h; p++) for (q = 0; q < width; q++) edge[p * width + q] = q < w ? y[p * rs + q * cs] : 0;
            tile(k, a, acs ? ars : 1, acs ? acs : h, b, ldb, start, edge, width);
            for (p = 0; p < h; p++) {
                if (cs == 1) NN__K(copy_few)(y + p * rs, edge + p * width, w);
                else for (q = 0; q < w; q++) y[p * rs + q * cs] = edge[p * width + q];
            }
        }
        a += acs ? h * ars : h * k;
        y += h * rs;
    }
}

static int NN__K(gemm_vectors)(int64_t m, int64_t w, int wide)   // of the next strip, of which w columns are left
{
    if (wide && m == 1 && w >= 8 * NN__LANES) return 8;
    if (wide && m <= 3 && w >= 4 * NN__LANES) return 4;
    return w > NN__LANES ? 2 : 1;
}

// A strip that is narrower than its vectors reads on into the next rows of B, which does no harm, but for the last rows of B: how many?
static int64_t NN__K(gemm_overrun)(int64_t w, int64_t width, int64_t ldb, int64_t depth, int last)
{
    return w == width || !last ? 0 : nn__min(depth, (width - w + ldb - 1) / ldb);
}

// One task of a product. add: y is kept, not overwritten. bias: what y starts from along n, or NULL.
static void NN__K(gemm_task)(nn__product g, int add, const R *bias, int64_t task, R *scratch)
{
    nn__gemm_cut s;
    int64_t i0, j0, h, end, p = 0, j;
    R *y, *strip, start[8 * NN__LANES] = { 0 }, tail[NN__NR * NN__NR];
    g = nn__product_turned(g);
    s = nn__gemm_cuts(&g);
    i0 = task % s.down * s.rows;
    j0 = task / s.down * s.columns;
    h = nn__min(s.rows, g.m - i0);
    end = nn__min(g.n, j0 + s.columns);
    y = (R *)g.y + i0 * g.yrs;
    strip = scratch + (s.pack_a ? s.rows * s.depth : 0);
    if (h <= 0) return;
    do {
        int64_t depth = nn__min(s.depth, g.k - p);
        const R *x = (const R *)g.a + i0 * g.ars + p * g.acs;
        if (s.pack_a) {
            NN__K(gemm_panels)(h, depth, x, g.ars, g.acs, (h + NN__TALL - 1) / NN__TALL, scratch);
            x = scratch;
        }
        if (s.pack_b) NN__K(gemm_panels)(end - j0, depth, (const R *)g.b + p * g.brs + j0 * g.bcs, g.bcs, g.brs, 0, strip);
        for (j = j0; j < end;) {
            int vectors = NN__K(gemm_vectors)(h, end - j, !s.pack_b && g.ycs == 1);
            int64_t width = vectors * NN__LANES, w = nn__min(width, end - j), ldb = g.brs, rest = 0;
            const R *b = (const R *)g.b + p * g.brs + j * g.bcs;
            if (bias) NN__K(copy_few)(start, bias + j, w);
            if (s.pack_b) { b = strip + (j - j0) * depth; ldb = width; }
            else rest = NN__K(gemm_overrun)(w, width, ldb, depth, p + depth == g.k);
            NN__K(gemm_strip)(h, w, vectors, depth - rest, x, g.ars, s.pack_a ? 0 : g.acs, b, ldb, add || p ? NULL : start, y + j * g.ycs, g.yrs, g.ycs);
            if (rest) {
                NN__K(gemm_turn)(w, rest, b + (depth - rest) * ldb, 1, ldb, width, tail);
                NN__K(gemm_strip)(h, w, vectors, rest, x + (depth - rest) * g.acs, g.ars, g.acs, tail, width, NULL, y + j * g.ycs, g.yrs, g.ycs);
            }
            j += w;
        }
        p += depth;
    } while (p < g.k);
}
#endif

// ---- matmul:   Y = A B      dA = dY B^T      dB = A^T dY      leading dimensions broadcast -----------------
#if NN__IN_HOST
typedef struct nn__matmul_size { int64_t batch, m, n, k; } nn__matmul_size;
static nn__matmul_size nn__matmul_sizes(const nn_call *c)
{
    nn__matmul_size s;
    const nn_view *y = &c->out[0];
    s.m = y->shape[y->ndim - 2];
    s.n = y->shape[y->ndim - 1];
    s.k = c->in[0].shape[c->in[0].ndim - 1];
    s.batch = s.m && s.n ? nn_view_count(y) / s.m / s.n : 0;
    return s;
}
static int nn__matmul_shape(nn_call *c)
{
    const nn_view *a = &c->in[0], *b = &c->in[1];
    nn_view rest = *b;
    int64_t shape[NN_MAX_DIMS] = { 0 };
    int ndim = a->ndim - 2;
    if (a->shape[a->ndim - 1] != b->shape[b->ndim - 2]) {
        nn_fail(c->nn, "matmul: inner sizes differ: %s x %s", NN__SHAPE_OF(a), NN__SHAPE_OF(b));
        return 0;
    }
    memcpy(shape, a->shape, sizeof shape);
    rest.ndim = b->ndim - 2;
    if (!nn__broadcast_into(c, shape, &ndim, &rest)) return 0;
    shape[ndim] = a->shape[a->ndim - 2];
    shape[ndim + 1] = b->shape[b->ndim - 1];
    nn__set_shape(&c->out[0], a->dtype, ndim + 2, shape);
    return 1;
}
// Backward: tasks are blocks of dA, then blocks of dB, of every batch entry. A broadcast operand sums over the batch inside its task.
static int64_t nn__leading(const nn_view *v)
{
    int64_t n = 1;
    int i;
    for (i = 0; i < v->ndim - 2; i++) n *= v->shape[i];
    return n;
}
// Element offset of the matrix of v that belongs to batch entry i of a result shaped like `like`.
static int64_t nn__matrix_at(const nn_view *v, const nn_view *like, int64_t i)
{
    int64_t at = 0;
    int d;
    for (d = like->ndim - 3; d >= 0; d--) {
        int e = d - (like->ndim - v->ndim);
        if (e >= 0 && v->shape[e] != 1) at += i % like->shape[d] * v->stride[e];
        i /= like->shape[d];
    }
    return at;
}
static nn__product nn__matmul_product(const nn_call *c, int which, int64_t i)    // of batch entry i. which: 0 Y, 1 dA, 2 dB
{
    nn__matmul_size s = nn__matmul_sizes(c);
    const nn_view *a = which == 1 ? &c->dout[0] : &c->in[0], *b = which == 2 ? &c->dout[0] : &c->in[1], *y = which ? &c->din[which - 1] : &c->out[0];
    size_t bytes = nn__real_bytes(c);
    nn__product g;
    g.a = (const char *)a->data + (size_t)nn__matrix_at(a, &c->out[0], i) * bytes;
    g.b = (const char *)b->data + (size_t)nn__matrix_at(b, &c->out[0], i) * bytes;
    g.y = (char *)y->data + (size_t)nn__matrix_at(y, &c->out[0], i) * bytes;
    g.m = which == 2 ? s.k : s.m; g.n = which == 1 ? s.k : s.n; g.k = which == 1 ? s.n : which == 2 ? s.m : s.k;
    g.ars = a->stride[a->ndim - 2]; g.acs = a->stride[a->ndim - 1];
    g.brs = b->stride[b->ndim - 2]; g.bcs = b->stride[b->ndim - 1];
    g.yrs = y->stride[y->ndim - 2]; g.ycs = y->stride[y->ndim - 1];
    if (which == 2) { int64_t t = g.ars; g.ars = g.acs; g.acs = t; }
    if (which == 1) { int64_t t = g.brs; g.brs = g.bcs; g.bcs = t; }
    return g;
}
static void nn__matmul_plan(nn_call *c)
{
    c->tasks[0] = 0;
    if (c->pass == NN_FORWARD) {
        int64_t batch = nn__matmul_sizes(c).batch;
        c->tasks[0] = batch * nn__gemm_plan(c, nn__matmul_product(c, 0, 0));
        c->cost *= nn__min(batch, 1 << 20);
    } else {
        if (c->din[0].data) c->tasks[0] += nn__leading(&c->in[0]) * nn__gemm_plan(c, nn__matmul_product(c, 1, 0));
        if (c->din[1].data) c->tasks[0] += nn__leading(&c->in[1]) * nn__gemm_plan(c, nn__matmul_product(c, 2, 0));
    }
}
NN_API nn_tensor *nn_matmul(nn_tensor *a, nn_tensor *b)
{
    nn_context *nn = a ? a->nn : NULL;
    nn_tensor *y;
    int a1, b1;
    if (!nn__check(nn, a, "matmul") || !nn__check(nn, b, "matmul")) return nn__inert(nn);
    if (!a->ndim || !b->ndim) { nn_fail(nn, "matmul: a 0-d tensor; use nn_mul"); return nn__inert(nn); }
    a1 = a->ndim == 1; b1 = b->ndim == 1;
    if (a1) a = nn_unsqueeze(a, 0);
    if (b1) b = nn_unsqueeze(b, 1);
    y = nn__apply2(NN_OP_matmul, a, b, NULL);
    if (b1) y = nn_squeeze(y, -1);
    return a1 ? nn_squeeze(y, b1 ? -1 : -2) : y;
}
#endif
#if NN__IN_SIMD
NN__FORWARD(matmul)
{
    int64_t tasks = c->tasks[0] / nn__matmul_sizes(c).batch;
    NN__K(gemm_task)(nn__matmul_product(c, 0, t->index / tasks), 0, NULL, t->index % tasks, (R *)t->scratch);
}
NN__BACKWARD(matmul)
{
    nn__matmul_size s = nn__matmul_sizes(c);
    int64_t index = t->index, tasks = 1, matrices = 0, i, j;
    nn__product g, own;
    int side, add;
    for (side = 0; side < 2; side++) {                   // whose task is this?
        if (!c->din[side].data) continue;
        matrices = nn__leading(&c->in[side]);
        tasks = nn__gemm_tasks(nn__matmul_product(c, side + 1, 0));
        if (index < matrices * tasks) break;
        index -= matrices * tasks;
    }
    if (side == 2) return;
    own = nn__matmul_product(c, side + 1, 0);
    own.y = (R *)c->din[side].data + nn__matrix_at(&c->din[side], &c->din[side], index / tasks);
    add = (int)(c->add >> side & 1);
    for (i = matrices == s.batch ? index / tasks : 0; i < s.batch; i++) {            // the batch entries of the result that used this matrix
        g = nn__matmul_product(c, side + 1, i);
        if (g.y != own.y) continue;
        NN__K(gemm_task)(g, add, NULL, index % tasks, (R *)t->scratch);
        if (matrices == s.batch) return;
        add = 1;
    }
    if (s.batch == 0 && !add && index % tasks == 0)
        for (i = 0; i < own.m; i++) for (j = 0; j < own.n; j++) ((R *)own.y)[i * own.yrs + j * own.ycs] = 0;
}
#endif

// ---- linear:   Y = X W^T + b      dX = dY W      dW = dY^T X      db = sum of dY over rows ------------------
#if NN__IN_HOST
static int nn__linear_shape(nn_call *c)
{
    const nn_view *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    int64_t shape[NN_MAX_DIMS];
    if (x->ndim < 1 || w->ndim != 2 || x->shape[x->ndim - 1] != w->shape[1]) {
        nn_fail(c->nn, "linear: x %s does not fit w %s: its last size must be %lld", NN__SHAPE_OF(x), NN__SHAPE_OF(w), w->ndim == 2 ? (long long)w->shape[1] : -1);
        return 0;
    }
    if (b->ndim && (b->ndim != 1 || b->shape[0] != w->shape[0])) { nn_fail(c->nn, "linear: bias %s does not fit w %s", NN__SHAPE_OF(b), NN__SHAPE_OF(w)); return 0; }
    memcpy(shape, x->shape, sizeof shape);
    shape[x->ndim - 1] = w->shape[0];
    nn__set_shape(&c->out[0], x->dtype, x->ndim, shape);
    return 1;
}
static nn__matmul_size nn__linear_sizes(const nn_call *c)            // m rows, n outputs, k inputs
{
    nn__matmul_size s;
    s.batch = 1;
    s.n = c->in[1].shape[0];
    s.k = c->in[1].shape[1];
    s.m = s.n ? nn_view_count(&c->out[0]) / s.n : 0;
    return s;
}
enum { NN__BIAS_COLUMNS = 64 };
static nn__product nn__linear_product(const nn_call *c, int which)    // 0 Y, 1 dX, 2 dW^T, whose rows are dense in an input-major weight
{
    nn__matmul_size s = nn__linear_sizes(c);
    nn__product g;
    const nn_view *w = which == 2 ? &c->din[1] : &c->in[1];
    g.a = which == 1 ? c->dout[0].data : c->in[0].data;
    g.b = which == 2 ? c->dout[0].data : w->data;
    g.y = which == 0 ? c->out[0].data : c->din[which - 1].data;
    g.m = which == 2 ? s.k : s.m; g.n = which == 1 ? s.k : s.n; g.k = which == 0 ? s.k : which == 1 ? s.n : s.m;
    g.ars = which == 0 ? s.k : which == 1 ? s.n : 1; g.acs = which == 2 ? s.k : 1;
    g.brs = which == 0 ? w->stride[1] : which == 1 ? w->stride[0] : s.n; g.bcs = which == 0 ? w->stride[0] : which == 1 ? w->stride[1] : 1;
    g.yrs = which == 0 ? s.n : which == 1 ? s.k : w->stride[1]; g.ycs = which == 2 ? w->stride[0] : 1;
    return g;
}
static int nn__is_few(const nn__product *g)             // so few numbers that cutting them into tiles would cost more than the product
{
    return g->m > 0 && g->n > 0 && g->k > 0 && g->m * g->n * g->k <= 512;
}
static void nn__linear_plan(nn_call *c)
{
    nn__matmul_size s = nn__linear_sizes(c);
    if (c->pass == NN_FORWARD) { c->tasks[0] = nn__gemm_plan(c, nn__linear_product(c, 0)); return; }
    c->tasks[0] = 0;
    if (c->din[0].data) c->tasks[0] += nn__gemm_plan(c, nn__linear_product(c, 1));
    if (c->din[1].data) c->tasks[0] += nn__gemm_plan(c, nn__linear_product(c, 2));
    if (c->din[2].data) c->tasks[0] += (s.n + NN__BIAS_COLUMNS - 1) / NN__BIAS_COLUMNS;
}
NN_API nn_tensor *nn_linear(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_linear_desc *desc)
{
    nn_tensor *in[3];
    in[0] = nn_contiguous(x); in[1] = w; in[2] = b ? nn_contiguous(b) : NULL;
    x = nn_apply_n(x ? x->nn : NULL, nn__op(NN_OP_linear), in, 3, NULL, NULL);
    return nn__activate(desc ? desc->activation : NULL, x);
}
#endif
#if NN__IN_SIMD
// A product of few numbers: element after element, or vector after vector, the same chains.
static void NN__K(linear_task)(const nn__product *g, int add, const R *bias, int64_t task, R *scratch)
{
    int64_t step = g->bcs == 1 && g->ycs == 1 ? NN__LANES : 1, i, j, p;
    if (!nn__is_few(g)) { NN__K(gemm_task)(*g, add, bias, task, scratch); return; }
    for (i = 0; i < g->m; i++) for (j = 0; j < g->n; j += step) {
        const R *a = (const R *)g->a + i * g->ars, *b = (const R *)g->b + j * g->bcs;
        R *y = (R *)g->y + i * g->yrs + j * g->ycs;
        int64_t w = nn__min(step, g->n - j);
        V sum = add ? NN__K(load_part)(y, w) : bias ? NN__K(load_part)(bias + j, w) : C(0);
        for (p = 0; p < g->k; p++) sum = FMA(SET1(a[p * g->acs]), NN__K(load_part)(b + p * g->brs, w), sum);
        NN__K(store_part)(y, sum, w);
    }
}
// y[j] (+)= the sum of column j of x (rows, n), n <= 64: in chunks of 128 rows, as sum_to adds them.
static void NN__K(column_sums)(int64_t rows, int64_t n, const R *x, int64_t ld, int add, R *y)
{
    int64_t i, j;
    for (j = 0; j < n; j += NN__LANES) {
        int64_t w = nn__min(NN__LANES, n - j);
        V all = C(0), part = C(0);
        for (i = 0; i < rows; i++) {
            part = part + NN__K(get_lanes)(x + i * ld + j, w);
            if ((i + 1) % NN__K(fold_chunk) == 0 || i + 1 == rows) { all = all + part; part = C(0); }
        }
        NN__K(put_lanes)(y + j, add ? NN__K(get_lanes)(y + j, w) + all : all, w);
    }
}
NN__FORWARD(linear)
{
    nn__product g = nn__linear_product(c, 0);
    NN__K(linear_task)(&g, 0, (const R *)c->in[2].data, t->index, (R *)t->scratch);
}
NN__BACKWARD(linear)
{
    nn__matmul_size s = nn__linear_sizes(c);
    int64_t i = t->index, first;
    int which;
    for (which = 1; which < 3; which++) if (c->din[which - 1].data) {                // tasks of dX, then of dW
        nn__product g = nn__linear_product(c, which);
        int64_t tasks = nn__is_few(&g) ? 1 : nn__gemm_tasks(g);
        if (i < tasks) { NN__K(linear_task)(&g, (int)(c->add >> (which - 1) & 1), NULL, i, (R *)t->scratch); return; }
        i -= tasks;
    }
    first = i * NN__BIAS_COLUMNS;
    NN__K(column_sums)(s.m, nn__min(NN__BIAS_COLUMNS, s.n - first), (const R *)c->dout[0].data + first, s.n, (int)(c->add >> 2 & 1), (R *)c->din[2].data + first);
}
#endif

// ---- batchnorm, layernorm, groupnorm, instancenorm, rmsnorm ------------------------------------------------
// All are one formula. Numbers that belong together (N of them) get mean 0 and variance 1, then every channel its own scale and shift:
//
//     mean = sum x / N      var = sum (x - mean)^2 / N      rstd = 1 / sqrt(var + eps)      h = (x - mean) rstd      y = w h + b
//
//     together are:   batchnorm  a channel in the whole batch       layernorm  the last dimensions of one sample
//                     groupnorm  C/G channels of one sample         instancenorm  one channel of one sample (G = C)
//     rmsnorm (Zhang & Sennrich 2019) leaves the mean out:   rstd = 1 / sqrt(sum x^2 / N + eps)      y = w x rstd
//
// Backward. mean and var depend on every x, so each dx gets two more terms (Ioffe & Szegedy 2015, in one line), with g = w dy:
//
//     dw = sum dy h      db = sum dy      dx = rstd (g - sum g / N - h sum(g h) / N)
//        = rstd g + p (x - mean) + q,     p = -rstd^3 sum(g (x - mean)) / N,     q = -rstd sum g / N
//
// Under running statistics mean and var are constants: p = q = 0. rmsnorm has mean = 0 and q = 0.
// Kernels see x as (B, C, S): batch, channels, and the S numbers of a channel side by side. layernorm is groupnorm with one group
// whose channels are single numbers: C = N, S = 1. The variance takes a second pass: sum x^2 - mean^2 would cancel.
#if NN__IN_HOST
typedef struct nn__norm_size { int64_t b, c, s, groups, n; } nn__norm_size;      // n numbers share their statistics
static nn__norm_size nn__norm_sizes(const nn_call *c)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const nn_view *x = &c->in[0];
    nn__norm_size z;
    int d;
    z.b = z.c = z.s = 1;
    if (p->dims) {
        for (d = 0; d < x->ndim; d++) if (d < x->ndim - p->dims) z.b *= x->shape[d]; else z.c *= x->shape[d];
    } else {
        z.b = x->shape[0];
        z.c = x->shape[1];
        for (d = 2; d < x->ndim; d++) z.s *= x->shape[d];
    }
    z.groups = p->groups ? p->groups : 1;
    z.n = p->groups ? z.c / z.groups * z.s : z.b * z.s;
    return z;
}

// Tasks of forward, or of dx, come first; then those of dw and db. A task of channels owns some channels: single ones, or 64
// neighbours where S = 1, so that it reads whole cache lines.
enum { NN__NORM_COLUMNS = 64 };
static int64_t nn__norm_units(const nn__norm_size *z) { return z->s == 1 ? (z->c + NN__NORM_COLUMNS - 1) / NN__NORM_COLUMNS : z->c; }
static int64_t nn__norm_channel_tasks(const nn__norm_size *z)
{
    return nn__task_count(nn__norm_units(z), 8 * nn__max(1, z->b) * nn__max(z->s == 1 ? (int64_t)NN__NORM_COLUMNS : 1, z->s));
}
// Where a sample is one row, a task of backward goes through some rows once and leaves its part of dw and db, which phase 1 adds up.
static int     nn__norm_in_rows(const nn__norm_size *z) { return z->s == 1 && z->groups == 1; }
static int64_t nn__norm_chunks(const nn__norm_size *z)  { return nn__max(1, nn__min(nn__min(z->b, z->b * z->c / 8192), NN__MAX_SLOTS)); }
static int64_t nn__norm_row_tasks(const nn__norm_size *z) { return nn__task_count(z->b * z->groups, 8 * nn__max(1, z->n)); }
static void nn__norm_plan(nn_call *c)
{
    nn__norm_size z = nn__norm_sizes(c);
    int rows = c->pass == NN_FORWARD || c->din[0].data, affine = c->pass == NN_BACKWARD && (c->din[1].data || (c->nin > 2 && c->din[2].data));
    c->tasks[0] = (rows ? nn__norm_row_tasks(&z) : 0) + (affine ? nn__norm_channel_tasks(&z) : 0);
    if (!affine || !nn__norm_in_rows(&z)) return;
    c->phases = 2;
    c->tasks[0] = nn__norm_chunks(&z);
    c->tasks[1] = nn__task_count(z.c, 2 * c->tasks[0]);
    c->shared_bytes = nn__mul_size(2 * (size_t)(c->tasks[0] * z.c), nn__real_bytes(c));
}
static void nn__batchnorm_plan(nn_call *c)
{
    nn__norm_size z = nn__norm_sizes(c);
    c->tasks[0] = nn__norm_channel_tasks(&z);
}

// Result like x; mean and rstd, one per `rows`, for backward.
static int nn__norm_results(nn_call *c, int64_t rows)
{
    int i;
    nn__like(&c->out[0], &c->in[0]);
    c->naux = 2;
    for (i = 0; i < 2; i++) nn__set_shape(&c->aux[i], c->in[0].dtype, 1, &rows);
    return 1;
}
static int nn__layernorm_shape(nn_call *c)               // and rmsnorm
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const nn_view *x = &c->in[0];
    int i;
    if (p->dims < 1 || p->dims > x->ndim) { nn_fail(c->nn, "%s: the last %d dimensions of %s", c->op->name, p->dims, NN__SHAPE_OF(x)); return 0; }
    for (i = 1; i < c->nin; i++) {
        const nn_view *w = &c->in[i];
        if (w->ndim && (w->ndim != p->dims || memcmp(w->shape, x->shape + x->ndim - p->dims, (size_t)p->dims * sizeof *w->shape))) {
            nn_fail(c->nn, "%s: %s %s does not fit the last %d dimensions of x %s", c->op->name, i == 1 ? "weight" : "bias", NN__SHAPE_OF(w), p->dims, NN__SHAPE_OF(x));
            return 0;
        }
    }
    return nn__norm_results(c, nn__norm_sizes(c).b);
}
static int nn__channels_fit(nn_call *c, int inputs)      // x (B, C, ...), everything else (C)
{
    static const char *const names[5] = { "x", "weight", "bias", "mean", "var" };
    const nn_view *x = &c->in[0];
    int i;
    if (x->ndim < 2) { nn_fail(c->nn, "%s: x must be (B, C, ...), not %s", c->op->name, NN__SHAPE_OF(x)); return 0; }
    for (i = 1; i < inputs; i++) {
        const nn_view *w = &c->in[i];
        if (w->ndim && (w->ndim != 1 || w->shape[0] != x->shape[1])) {
            nn_fail(c->nn, "%s: %s %s does not fit the %lld channels of x %s", c->op->name, names[i], NN__SHAPE_OF(w), (long long)x->shape[1], NN__SHAPE_OF(x));
            return 0;
        }
    }
    return 1;
}
static int nn__groupnorm_shape(nn_call *c)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    nn__norm_size z;
    if (!nn__channels_fit(c, 3)) return 0;
    z = nn__norm_sizes(c);
    if (p->groups < 1 || z.c % z.groups) { nn_fail(c->nn, "groupnorm: %d groups do not divide the channels of x %s", p->groups, NN__SHAPE_OF(&c->in[0])); return 0; }
    return nn__norm_results(c, z.b * z.groups);
}
static int nn__batchnorm_shape(nn_call *c)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    int i;
    for (i = 0; i < 5; i++)
        if (c->in[i].dtype != (int)c->nn->desc.dtype && (i == 0 || c->in[i].ndim)) {
            nn_fail(c->nn, "batchnorm: input %d is %s, not %s (see nn_cast)", i, nn_dtype_name((nn_dtype)c->in[i].dtype), nn_dtype_name(c->nn->desc.dtype));
            return 0;
        }
    if (!nn__channels_fit(c, 5)) return 0;
    if (p->batch && nn__norm_sizes(c).n == 1) {          // the variance of one number says nothing: every result would be b
        nn_fail(c->nn, "batchnorm: more than one value per channel is needed in training, x is %s", NN__SHAPE_OF(&c->in[0]));
        return 0;
    }
    return nn__norm_results(c, c->in[0].shape[1]);
}

static float nn__norm_eps(const void *params) { return ((const nn__norm_params *)params)->eps; }
static int nn__norm_options(nn_context *nn, const char *op, const nn_norm_layer_desc *desc, nn__norm_params *p)
{
    memset(p, 0, sizeof *p);
    p->eps = !desc || desc->eps == 0 ? 1e-5f : desc->eps == (float)NN_ZERO ? 0.0f : desc->eps;
    p->momentum = !desc || desc->momentum == 0 ? 0.1f : desc->momentum == (float)NN_ZERO ? 0.0f : desc->momentum;
    if (p->eps >= 0 && p->momentum >= 0 && p->momentum <= 1) return 1;
    nn_fail(nn, "%s: eps %g or momentum %g is out of range", op, (double)p->eps, (double)p->momentum);
    return 0;
}

// What is moved must be the user's memory, not a contiguous copy of it.
static int nn__running_ok(nn_context *nn, const nn_tensor *mean, const nn_tensor *var)
{
    if (!mean && !var) return 1;
    if (!mean || !var) { nn_fail(nn, "batchnorm: mean and var: give both or none"); return 0; }
    if (!nn__check(nn, mean, "batchnorm") || !nn__check(nn, var, "batchnorm")) return 0;
    if (nn__contiguous_tensor(mean) && nn__contiguous_tensor(var)) return 1;
    nn_fail(nn, "batchnorm: mean and var must be contiguous");
    return 0;
}
static nn_tensor *nn__batchnorm(nn_tensor *x, nn_tensor *w, nn_tensor *b, nn_tensor *mean, nn_tensor *var, nn_tensor *tracked, const nn_batchnorm_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_tensor *in[6];
    nn__norm_params p;
    if (!nn__check(nn, x, "batchnorm") || !nn__norm_options(nn, "batchnorm", desc, &p) || !nn__running_ok(nn, mean, var)) return nn__inert(nn);
    p.batch = !mean || (nn->mode == NN_TRAIN && !((mean->flags | var->flags) & NN__T_FROZEN));
    in[0] = x; in[1] = w; in[2] = b;
    in[3] = nn__wants(mean) ? nn_detach(mean) : mean;    // running averages have no gradient
    in[4] = nn__wants(var) ? nn_detach(var) : var;
    in[5] = mean && p.batch ? tracked : NULL;
    if (mean && p.batch) { mean->base->version++; var->base->version++; }
    if (in[5]) tracked->base->version++;
    return nn__activate(desc ? desc->activation : NULL, nn_apply_n(nn, nn__op(NN_OP_batchnorm), in, 6, &p, NULL));
}
NN_API nn_tensor *nn_batchnorm(nn_tensor *x, nn_tensor *w, nn_tensor *b, nn_tensor *mean, nn_tensor *var, const nn_batchnorm_desc *desc)
{
    return nn__batchnorm(x, w, b, mean, var, NULL, desc);
}
static nn_tensor *nn__apply_norm(int op, int inputs, nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn__norm_params *p, const nn_norm_layer_desc *desc)  // w, b may be NULL
{
    nn_tensor *in[3];
    in[0] = x; in[1] = w; in[2] = b;
    return nn__activate(desc ? desc->activation : NULL, nn_apply_n(x->nn, nn__op(op), in, inputs, p, NULL));
}
NN_API nn_tensor *nn_layernorm(nn_tensor *x, int dims, nn_tensor *w, nn_tensor *b, const nn_layernorm_desc *desc)
{
    nn__norm_params p;
    if (!x || !nn__norm_options(x->nn, "layernorm", desc, &p)) return nn__inert(x ? x->nn : NULL);
    p.dims = dims;
    p.groups = 1;
    return nn__apply_norm(NN_OP_layernorm, 3, x, w, b, &p, desc);
}
NN_API nn_tensor *nn_rmsnorm(nn_tensor *x, nn_tensor *w, const nn_rmsnorm_desc *desc)
{
    nn__norm_params p;
    if (!x || !nn__norm_options(x->nn, "rmsnorm", desc, &p)) return nn__inert(x ? x->nn : NULL);
    p.dims = p.groups = 1;
    return nn__apply_norm(NN_OP_rmsnorm, 2, x, w, NULL, &p, desc);
}
NN_API nn_tensor *nn_groupnorm(nn_tensor *x, int groups, nn_tensor *w, nn_tensor *b, const nn_groupnorm_desc *desc)
{
    nn__norm_params p;
    if (!x || !nn__norm_options(x->nn, "groupnorm", desc, &p)) return nn__inert(x ? x->nn : NULL);
    p.groups = groups;
    return nn__apply_norm(NN_OP_groupnorm, 3, x, w, b, &p, desc);
}
NN_API nn_tensor *nn_instancenorm(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_instancenorm_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    int64_t s = 1;
    int d;
    if (!nn__check(nn, x, "instancenorm")) return nn__inert(nn);
    if (x->ndim < 3) { nn_fail(nn, "instancenorm: x must be (B, C, L) or (B, C, H, W), not %s", nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
    if (x->shape[1] > INT_MAX) { nn_fail(nn, "instancenorm: too many channels"); return nn__inert(nn); }
    for (d = 2; d < x->ndim; d++) s *= x->shape[d];
    if (s == 1) { nn_fail(nn, "instancenorm: more than one value per channel is needed, x is %s", nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
    if (x->shape[1] == 0) return x;
    return nn_groupnorm(x, (int)x->shape[1], w, b, desc);
}
#endif
#if NN__IN_SIMD
NN__INLINE V NN__K(add_term)(V s, V x, V dy, V w, V m)    { (void)dy; (void)w; (void)m; return s + x; }
NN__INLINE V NN__K(dy_term)(V s, V x, V dy, V w, V m)     { (void)x; (void)w; (void)m; return s + dy; }
NN__INLINE V NN__K(square_term)(V s, V x, V dy, V w, V m) { V d = x - m; (void)dy; (void)w; return FMA(d, d, s); }
NN__INLINE V NN__K(dot_term)(V s, V x, V dy, V w, V m)    { (void)w; return FMA(dy, x - m, s); }
NN__INLINE V NN__K(dot3_term)(V s, V x, V dy, V w, V m)   { return FMA(dy * w, x - m, s); }
static R NN__K(row_add)(int64_t n, const R *x)                    { return NN__K(row_sum)(n, x, x, x, 0, NN__K(add_term)); }       // sum x
static R NN__K(row_square)(int64_t n, const R *x, R m)            { return NN__K(row_sum)(n, x, x, x, m, NN__K(square_term)); }    // sum (x - m)^2
static R NN__K(row_dot)(int64_t n, const R *x, R m, const R *dy)  { return NN__K(row_sum)(n, x, dy, x, m, NN__K(dot_term)); }      // sum dy (x - m)
static R NN__K(row_dot3)(int64_t n, const R *x, R m, const R *dy, const R *w) { return NN__K(row_sum)(n, x, dy, w, m, NN__K(dot3_term)); }  // sum dy w (x - m)

NN__INLINE R    NN__K(rstd)(R var, R eps)                  { return 1 / (R)sqrt((double)(var + eps)); }  // float by way of double rounds right

static void NN__K(scale_shift_row)(int64_t n, R *y, const R *x, R m, R a, R b)          // y = (x - m) a + b
{
    int64_t i;
    for (i = 0; i < n; i += NN__LANES) NN__K(put_lanes)(y + i, FMA(NN__K(get_lanes)(x + i, n - i) - SET1(m), SET1(a), SET1(b)), n - i);
}
static void NN__K(affine_row)(int64_t n, R *y, const R *x, R m, R rstd, const R *w, const R *b)      // y = (x - m) rstd w + b; w, b may be NULL
{
    int64_t i;
    for (i = 0; i < n; i += NN__LANES) {
        V h = (NN__K(get_lanes)(x + i, n - i) - SET1(m)) * SET1(rstd);
        if (w) h = h * NN__K(get_lanes)(w + i, n - i);
        if (b) h = h + NN__K(get_lanes)(b + i, n - i);
        NN__K(put_lanes)(y + i, h, n - i);
    }
}
// dx (+)= dy a w + (x - m) p + q; w may be NULL
static void NN__K(norm_dx_row)(int64_t n, R *dx, const R *x, const R *dy, const R *w, R m, R a, R p, R q, int add)
{
    int64_t i;
    for (i = 0; i < n; i += NN__LANES) {
        V g = NN__K(get_lanes)(dy + i, n - i) * SET1(a), d;
        if (w) g = g * NN__K(get_lanes)(w + i, n - i);
        d = FMA(NN__K(get_lanes)(x + i, n - i) - SET1(m), SET1(p), g + SET1(q));
        if (add) d = d + NN__K(get_lanes)(dx + i, n - i);
        NN__K(put_lanes)(dx + i, d, n - i);
    }
}

// ---- rows: layernorm, groupnorm, rmsnorm. A row is one group of one sample; its n numbers lie side by side.
static void NN__K(normalise_fwd)(const nn_call *c, const nn_task *t, int center)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    nn__norm_size z = nn__norm_sizes(c);
    const R *w = (const R *)c->in[1].data, *b = c->nin > 2 ? (const R *)c->in[2].data : NULL;
    int64_t rows = z.b * z.groups, per = z.c / z.groups, r, i, end = nn__task_end(rows, t);
    R count = (R)nn__max(1, z.n);
    for (r = nn__task_begin(rows, t); r < end; r++) {
        const R *x = (const R *)c->in[0].data + r * z.n;
        R *y = (R *)c->out[0].data + r * z.n;
        int64_t first = r % z.groups * per;              // channel
        R mean = center ? NN__K(row_add)(z.n, x) / count : 0;
        R rstd = NN__K(rstd)(NN__K(row_square)(z.n, x, mean) / count, (R)p->eps);
        if (z.s == 1) NN__K(affine_row)(per, y, x, mean, rstd, w ? w + first : NULL, b ? b + first : NULL);
        else for (i = 0; i < per; i++)
            NN__K(scale_shift_row)(z.s, y + i * z.s, x + i * z.s, mean, w ? rstd * w[first + i] : rstd, b ? b[first + i] : 0);
        if (c->aux[0].data) { ((R *)c->aux[0].data)[r] = mean; ((R *)c->aux[1].data)[r] = rstd; }
    }
}
static void NN__K(norm_dx)(const nn_call *c, const nn__norm_size *z, int64_t r, int center)
{
    const R *x = (const R *)c->in[0].data + r * z->n, *dy = (const R *)c->dout[0].data + r * z->n, *w = (const R *)c->in[1].data;
    R *dx = (R *)c->din[0].data + r * z->n;
    R mean = ((const R *)c->aux[0].data)[r], rstd = ((const R *)c->aux[1].data)[r], sum = 0, dot = 0, count = (R)nn__max(1, z->n), p, q;
    int64_t per = z->c / z->groups, i;
    int add = (int)(c->add & 1);
    if (w) w += r % z->groups * per;
    if (!w) {
        if (center) sum = NN__K(row_add)(z->n, dy);
        dot = NN__K(row_dot)(z->n, x, mean, dy);
    } else if (z->s == 1) {
        if (center) sum = NN__K(row_dot)(z->n, w, 0, dy);
        dot = NN__K(row_dot3)(z->n, x, mean, dy, w);
    } else for (i = 0; i < per; i++) {
        if (center) sum += w[i] * NN__K(row_add)(z->s, dy + i * z->s);
        dot += w[i] * NN__K(row_dot)(z->s, x + i * z->s, mean, dy + i * z->s);
    }
    p = -(rstd * dot / count * rstd * rstd);
    q = center ? -(rstd * sum / count) : 0;
    if (!w || z->s == 1) NN__K(norm_dx_row)(z->n, dx, x, dy, w, mean, rstd, p, q, add);
    else for (i = 0; i < per; i++) NN__K(norm_dx_row)(z->s, dx + i * z->s, x + i * z->s, dy + i * z->s, NULL, mean, rstd * w[i], p, q, add);
}
// dw, db of channels first..last - 1, at most NN__NORM_COLUMNS; the samples in order, in chunks of 128.
static void NN__K(norm_dw)(const nn_call *c, const nn__norm_size *z, int64_t first, int64_t last)
{
    const R *x = (const R *)c->in[0].data, *dy = (const R *)c->dout[0].data, *mean = (const R *)c->aux[0].data, *rstd = (const R *)c->aux[1].data;
    R total[2][NN__NORM_COLUMNS] = { { 0 } }, part[2][NN__NORM_COLUMNS] = { { 0 } };
    int64_t per = z->c / z->groups, b, i, j, k;
    for (b = 0; b < z->b; b++) {
        for (i = first; i < last; i = j) {               // channels i..j - 1 share their statistics
            int64_t row = b * z->groups + i / per, at = (b * z->c + i) * z->s;
            j = nn__min(last, (i / per + 1) * per);
            if (z->s == 1) for (k = i; k < j; k += NN__LANES, at += NN__LANES) {
                R *w = part[0] + (k - first), *s = part[1] + (k - first);
                V g = NN__K(get_lanes)(dy + at, j - k), h = (NN__K(get_lanes)(x + at, j - k) - SET1(mean[row])) * SET1(rstd[row]);
                NN__K(put_lanes)(w, FMA(g, h, NN__K(get_lanes)(w, j - k)), j - k);
                NN__K(put_lanes)(s, NN__K(get_lanes)(s, j - k) + g, j - k);
            } else for (k = i; k < j; k++, at += z->s) {
                part[0][k - first] += rstd[row] * NN__K(row_dot)(z->s, x + at, mean[row], dy + at);
                part[1][k - first] += NN__K(row_add)(z->s, dy + at);
            }
        }
        if (b % 128 == 127 || b == z->b - 1)
            for (k = 0; k < last - first; k++) for (i = 0; i < 2; i++) { total[i][k] += part[i][k]; part[i][k] = 0; }
    }
    for (i = 0; i < 2; i++) if (i + 1 < c->nin && c->din[i + 1].data) {
        R *d = (R *)c->din[i + 1].data + first;
        for (k = 0; k < last - first; k++) d[k] = c->add >> (i + 1) & 1 ? d[k] + total[i][k] : total[i][k];
    }
}
// Some rows: dx, and part[0] += dy h, part[1] += dy, row after row.
static void NN__K(norm_rows_bwd)(const nn_call *c, const nn_task *t, const nn__norm_size *z, int center)
{
    const R *x = (const R *)c->in[0].data, *dy = (const R *)c->dout[0].data, *mean = (const R *)c->aux[0].data, *rstd = (const R *)c->aux[1].data;
    R *part = (R *)c->shared + t->index * 2 * z->c;
    int64_t b, k, i, rows, end = nn__task_end(z->b, t);
    NN__K(fill_with)(2 * z->c, part, 0);
    for (b = nn__task_begin(z->b, t); b < end; b += rows) {
        rows = nn__min(4, end - b);
        for (k = 0; c->din[0].data && k < rows; k++) NN__K(norm_dx)(c, z, b + k, center);
        for (i = 0; i < z->c; i += NN__LANES) {
            int64_t left = z->c - i;
            V w = NN__K(get_lanes)(part + i, left), s = NN__K(get_lanes)(part + z->c + i, left);
            for (k = b; k < b + rows; k++) {
                V g = NN__K(get_lanes)(dy + k * z->c + i, left);
                w = FMA(g, (NN__K(get_lanes)(x + k * z->c + i, left) - SET1(mean[k])) * SET1(rstd[k]), w);
                s = s + g;
            }
            NN__K(put_lanes)(part + i, w, left);
            NN__K(put_lanes)(part + z->c + i, s, left);
        }
    }
}
static void NN__K(norm_parts)(const nn_call *c, const nn_task *t, const nn__norm_size *z)
{
    int64_t begin = nn__task_begin(z->c, t), n = nn__task_end(z->c, t) - begin, k;
    int i;
    for (i = 0; i < 2; i++) if (i + 1 < c->nin && c->din[i + 1].data) {
        R *d = (R *)c->din[i + 1].data + begin;
        if (!(c->add >> (i + 1) & 1)) NN__K(fill_with)(n, d, 0);
        for (k = 0; k < c->tasks[0]; k++) NN__K(add_onto)(n, d, (const R *)c->shared + (2 * k + i) * z->c + begin);
    }
}
static void NN__K(normalise_bwd)(const nn_call *c, const nn_task *t, int center)
{
    nn__norm_size z = nn__norm_sizes(c);
    nn_task mine = *t;
    int64_t i, end, width = z.s == 1 ? NN__NORM_COLUMNS : 1;
    if (t->phase == 1) { NN__K(norm_parts)(c, t, &z); return; }
    if (c->phases == 2) { NN__K(norm_rows_bwd)(c, t, &z, center); return; }
    mine.count = c->din[0].data ? nn__norm_row_tasks(&z) : 0;
    if (t->index < mine.count) {
        end = nn__task_end(z.b * z.groups, &mine);
        for (i = nn__task_begin(z.b * z.groups, &mine); i < end; i++) NN__K(norm_dx)(c, &z, i, center);
        return;
    }
    mine.index -= mine.count;
    mine.count = nn__norm_channel_tasks(&z);
    end = nn__task_end(nn__norm_units(&z), &mine);
    for (i = nn__task_begin(nn__norm_units(&z), &mine); i < end; i++) NN__K(norm_dw)(c, &z, i * width, nn__min(z.c, (i + 1) * width));
}
NN__FORWARD(layernorm)  { NN__K(normalise_fwd)(c, t, 1); }
NN__BACKWARD(layernorm) { NN__K(normalise_bwd)(c, t, 1); }
NN__FORWARD(groupnorm)  { NN__K(normalise_fwd)(c, t, 1); }
NN__BACKWARD(groupnorm) { NN__K(normalise_bwd)(c, t, 1); }
NN__FORWARD(rmsnorm)    { NN__K(normalise_fwd)(c, t, 0); }
NN__BACKWARD(rmsnorm)   { NN__K(normalise_bwd)(c, t, 0); }

// ---- batchnorm: statistics of a channel over all samples. Its S numbers per sample lie side by side; where S = 1, neighbouring
// channels do, and a vector holds as many channels as it has lanes.
NN__INLINE R NN__K(moved)(R running, R now, R momentum) { return (1 - momentum) * running + momentum * now; }
static void NN__K(batchnorm_move)(const nn_call *c, int64_t channel, R mean, R var, int64_t n)       // running averages; unbiased variance, as PyTorch
{
    R m = (R)((const nn__norm_params *)c->params)->momentum, *means = (R *)c->in[3].data, *vars = (R *)c->in[4].data;
    if (!means || n == 0) return;
    means[channel] = NN__K(moved)(means[channel], mean, m);
    vars[channel] = NN__K(moved)(vars[channel], var * ((R)n / (R)(n - 1)), m);
}
// A channel is gone through in blocks of some 2048 numbers: a part of a row, or several rows. In a block number i of a row belongs to
// sum i % 64; f and g as in row_sum, g may be NULL.
typedef struct NN__K(channel_block) { int64_t rows, n, next; const R *x, *dy; } NN__K(channel_block);      // next: distance of rows
NN__INLINE void NN__K(block_sums)(const NN__K(channel_block) *b, R m, R *sum_f, R *sum_g, V (*f)(V, V, V, V, V), V (*g)(V, V, V, V, V))
{
    enum { lanes = NN__K(row_lanes), parts = NN__K(row_parts) };
    V u[parts], v[parts], vm = SET1(m);
    int64_t whole = b->n - b->n % lanes, i, r;
    int j;
    NN__PARTS for (j = 0; j < parts; j++) u[j] = v[j] = C(0);
    for (r = 0; r < b->rows; r++) {
        const R *x = b->x + r * b->next, *dy = b->dy + r * b->next;
        for (i = 0; i < whole; i += lanes)
            NN__PARTS for (j = 0; j < parts; j++) {
                int64_t at = i + j * NN__LANES;
                u[j] = f(u[j], LOAD(x + at), LOAD(dy + at), vm, vm);
                if (g) v[j] = g(v[j], LOAD(x + at), LOAD(dy + at), vm, vm);
            }
        NN__PARTS for (j = 0; j < parts; j++) {         // as in row_sum
            int64_t left = b->n - whole - j * NN__LANES, at = whole + j * NN__LANES;
            if (left >= NN__LANES) {
                u[j] = f(u[j], LOAD(x + at), LOAD(dy + at), vm, vm);
                if (g) v[j] = g(v[j], LOAD(x + at), LOAD(dy + at), vm, vm);
            } else if (left > 0) {
                V p = NN__K(load_part)(x + at, left), q = NN__K(load_part)(dy + at, left);
                u[j] = SEL(NN__K(count_up)(0) < (int32_t)left, f(u[j], p, q, vm, vm), u[j]);
                if (g) v[j] = SEL(NN__K(count_up)(0) < (int32_t)left, g(v[j], p, q, vm, vm), v[j]);
            }
        }
    }
    *sum_f = NN__K(sum64)(u);
    if (g) *sum_g = NN__K(sum64)(v);
}
static int64_t NN__K(next_block)(const nn__norm_size *z, int64_t at, const R *x, const R *dy, NN__K(channel_block) *b)    // at: numbers of the channel done
{
    int64_t row = at / nn__max(1, z->s), first = at % nn__max(1, z->s);
    b->next = z->c * z->s;
    b->n = nn__min(z->s - first, 4096);
    b->rows = z->s < 2048 ? nn__min(2048 / nn__max(1, z->s), z->b - row) : 1;
    b->x = x + row * b->next + first;
    b->dy = dy + row * b->next + first;
    return b->rows * b->n;
}
// Mean and sum of squared distances from it, in one pass over memory: of a block, which is in the cache the second time; two sets of
// numbers are joined as in Chan, Golub & LeVeque 1979.
static void NN__K(channel_stats)(const nn__norm_size *z, const R *x, R *mean, R *squares)
{
    double m = 0, q = 0, n = 0;
    int64_t at, k;
    for (at = 0; at < z->n; at += k) {
        NN__K(channel_block) b;
        R sum, none;
        double block, delta, more;
        k = NN__K(next_block)(z, at, x, x, &b);
        NN__K(block_sums)(&b, 0, &sum, &none, NN__K(add_term), NULL);
        block = (double)sum / (double)k;
        NN__K(block_sums)(&b, (R)block, &sum, &none, NN__K(square_term), NULL);
        block = (double)(R)block;
        delta = block - m;
        more = (double)k / (n + (double)k);
        q += (double)sum + delta * delta * n * more;
        m += delta * more;
        n += (double)k;
    }
    *mean = (R)m;
    *squares = (R)q;
}
static void NN__K(channel_products)(const nn__norm_size *z, const R *x, R mean, const R *dy, R *sum, R *dot)     // sum dy, sum dy (x - mean)
{
    double u = 0, v = 0;
    int64_t at, k;
    for (at = 0; at < z->n; at += k) {
        NN__K(channel_block) b;
        R s, d;
        k = NN__K(next_block)(z, at, x, dy, &b);
        NN__K(block_sums)(&b, mean, &s, &d, NN__K(dy_term), NN__K(dot_term));
        u += (double)s;
        v += (double)d;
    }
    *sum = (R)u;
    *dot = (R)v;
}
static void NN__K(batchnorm_channel)(const nn_call *c, const nn__norm_size *z, int64_t i)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const R *x = (const R *)c->in[0].data + i * z->s, *w = (const R *)c->in[1].data, *bias = (const R *)c->in[2].data;
    R *y = (R *)c->out[0].data + i * z->s, mean, var, rstd, count = (R)nn__max(1, z->n);
    int64_t b, jump = z->c * z->s;
    if (p->batch) {
        NN__K(channel_stats)(z, x, &mean, &var);
        var = var / count;
        NN__K(batchnorm_move)(c, i, mean, var, z->n);
    } else {
        mean = ((const R *)c->in[3].data)[i];
        var = ((const R *)c->in[4].data)[i];
    }
    rstd = NN__K(rstd)(var, (R)p->eps);
    for (b = 0; b < z->b; b++) NN__K(scale_shift_row)(z->s, y + b * jump, x + b * jump, mean, w ? rstd * w[i] : rstd, bias ? bias[i] : 0);
    if (c->aux[0].data) { ((R *)c->aux[0].data)[i] = mean; ((R *)c->aux[1].data)[i] = rstd; }
}
static void NN__K(batchnorm_columns)(const nn_call *c, const nn__norm_size *z, int64_t i, int64_t k)    // channels i..i + k - 1, k <= NN__LANES
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const R *x = (const R *)c->in[0].data + i;
    R *y = (R *)c->out[0].data + i, means[NN__LANES], vars[NN__LANES], scale[NN__LANES], shift[NN__LANES];
    int64_t b, j;
    V mean, var, part = C(0), n = SET1((R)nn__max(1, z->n));
    if (p->batch) {
        mean = var = C(0);
        for (b = 0; b < z->b; b++) {
            part = part + NN__K(get_lanes)(x + b * z->c, k);
            if (b % 128 == 127 || b == z->b - 1) { mean = mean + part; part = C(0); }
        }
        mean = mean / n;
        for (b = 0; b < z->b; b++) {
            V d = NN__K(get_lanes)(x + b * z->c, k) - mean;
            part = FMA(d, d, part);
            if (b % 128 == 127 || b == z->b - 1) { var = var + part; part = C(0); }
        }
        var = var / n;
        STORE(means, mean);
        STORE(vars, var);
        for (j = 0; j < k; j++) NN__K(batchnorm_move)(c, i + j, means[j], vars[j], z->n);
    } else {
        mean = NN__K(get_lanes)((const R *)c->in[3].data + i, k);
        STORE(means, mean);
        STORE(vars, NN__K(get_lanes)((const R *)c->in[4].data + i, k));
    }
    for (j = 0; j < NN__LANES; j++) {
        R rstd = j < k ? NN__K(rstd)(vars[j], (R)p->eps) : 0;
        scale[j] = c->in[1].data && j < k ? rstd * ((const R *)c->in[1].data)[i + j] : rstd;
        shift[j] = c->in[2].data && j < k ? ((const R *)c->in[2].data)[i + j] : 0;
        if (c->aux[0].data && j < k) { ((R *)c->aux[0].data)[i + j] = means[j]; ((R *)c->aux[1].data)[i + j] = rstd; }
    }
    for (b = 0; b < z->b; b++) NN__K(put_lanes)(y + b * z->c, FMA(NN__K(get_lanes)(x + b * z->c, k) - mean, LOAD(scale), LOAD(shift)), k);
}
NN__FORWARD(batchnorm)
{
    nn__norm_size z = nn__norm_sizes(c);
    int64_t i, j, units = nn__norm_units(&z), end = nn__task_end(units, t);
    if (t->index == 0 && c->in[5].data) ++*(int64_t *)c->in[5].data;     // num_batches_tracked
    for (i = nn__task_begin(units, t); i < end; i++) {
        if (z.s != 1) { NN__K(batchnorm_channel)(c, &z, i); continue; }
        for (j = i * NN__NORM_COLUMNS; j < nn__min(z.c, (i + 1) * NN__NORM_COLUMNS); j += NN__LANES)
            NN__K(batchnorm_columns)(c, &z, j, nn__min(NN__LANES, z.c - j));
    }
}
static void NN__K(give_channel)(const nn_call *c, int input, int64_t i, R d)         // dw or db of one channel
{
    R *to = (R *)c->din[input].data;
    if (to) to[i] = c->add >> input & 1 ? to[i] + d : d;
}
static void NN__K(batchnorm_channel_bwd)(const nn_call *c, const nn__norm_size *z, int64_t i)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const R *x = (const R *)c->in[0].data + i * z->s, *dy = (const R *)c->dout[0].data + i * z->s;
    R mean = ((const R *)c->aux[0].data)[i], rstd = ((const R *)c->aux[1].data)[i], w = c->in[1].data ? ((const R *)c->in[1].data)[i] : 1;
    R count = (R)nn__max(1, z->n), sum, dot, u = 0, v = 0;
    R *dx = (R *)c->din[0].data;
    int64_t b, jump = z->c * z->s;
    NN__K(channel_products)(z, x, mean, dy, &sum, &dot);
    NN__K(give_channel)(c, 1, i, rstd * dot);
    NN__K(give_channel)(c, 2, i, sum);
    if (!dx) return;
    if (p->batch) {
        u = -(rstd * (w * dot) / count * rstd * rstd);
        v = -(rstd * (w * sum) / count);
    }
    for (b = 0; b < z->b; b++)
        NN__K(norm_dx_row)(z->s, dx + i * z->s + b * jump, x + b * jump, dy + b * jump, NULL, mean, rstd * w, u, v, (int)(c->add & 1));
}
static void NN__K(batchnorm_columns_bwd)(const nn_call *c, const nn__norm_size *z, int64_t i, int64_t k)
{
    const nn__norm_params *p = (const nn__norm_params *)c->params;
    const R *x = (const R *)c->in[0].data + i, *dy = (const R *)c->dout[0].data + i;
    V mean = NN__K(get_lanes)((const R *)c->aux[0].data + i, k), rstd = NN__K(get_lanes)((const R *)c->aux[1].data + i, k);
    V w = c->in[1].data ? NN__K(get_lanes)((const R *)c->in[1].data + i, k) : C(1), n = SET1((R)nn__max(1, z->n));
    V sum = C(0), dot = C(0), part = C(0), more = C(0), u, v;
    R *dx = c->din[0].data ? (R *)c->din[0].data + i : NULL, sums[NN__LANES], dots[NN__LANES];
    int64_t b, j;
    for (b = 0; b < z->b; b++) {
        V g = NN__K(get_lanes)(dy + b * z->c, k);
        part = part + g;
        more = FMA(g, NN__K(get_lanes)(x + b * z->c, k) - mean, more);
        if (b % 128 == 127 || b == z->b - 1) { sum = sum + part; dot = dot + more; part = more = C(0); }
    }
    STORE(sums, sum);
    STORE(dots, rstd * dot);
    for (j = 0; j < k; j++) { NN__K(give_channel)(c, 1, i + j, dots[j]); NN__K(give_channel)(c, 2, i + j, sums[j]); }
    if (!dx) return;
    u = p->batch ? -(rstd * (w * dot) / n * rstd * rstd) : C(0);
    v = p->batch ? -(rstd * (w * sum) / n) : C(0);
    for (b = 0; b < z->b; b++) {
        R *to = dx + b * z->c;
        V d = FMA(NN__K(get_lanes)(x + b * z->c, k) - mean, u, NN__K(get_lanes)(dy + b * z->c, k) * (rstd * w) + v);
        NN__K(put_lanes)(to, c->add & 1 ? d + NN__K(get_lanes)(to, k) : d, k);
    }
}
NN__BACKWARD(batchnorm)
{
    nn__norm_size z = nn__norm_sizes(c);
    int64_t i, j, units = nn__norm_units(&z), end = nn__task_end(units, t);
    for (i = nn__task_begin(units, t); i < end; i++) {
        if (z.s != 1) { NN__K(batchnorm_channel_bwd)(c, &z, i); continue; }
        for (j = i * NN__NORM_COLUMNS; j < nn__min(z.c, (i + 1) * NN__NORM_COLUMNS); j += NN__LANES)
            NN__K(batchnorm_columns_bwd)(c, &z, j, nn__min(NN__LANES, z.c - j));
    }
}
#endif

// ---- dropout:   y = x m / (1 - p), m = 0 with probability p, else 1      dx = dy m / (1 - p) -----------------
// (Srivastava et al. 2014.) Mask number i is number i of this op's random stream (>>random): backward draws it again instead of
// keeping it. One mask covers `run` neighbours: 1 for dropout, a channel for dropout2d.
#if NN__IN_HOST
static void nn__dropout_plan(nn_call *c)
{
    const nn__dropout_params *p = (const nn__dropout_params *)c->params;
    c->tasks[0] = nn__task_count((nn_view_count(&c->in[0]) / p->run + 3) / 4, 16 + 4 * p->run);
}
static nn_tensor *nn__dropout(nn_tensor *x, float p, const char *name, int channels)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__dropout_params q;
    int d;
    if (!nn__check(nn, x, name)) return nn__inert(nn);
    if (!(p >= 0 && p <= 1)) { nn_fail(nn, "%s: the probability is %g, not in 0..1", name, (double)p); return nn__inert(nn); }
    if (channels && x->ndim < 2) { nn_fail(nn, "%s: x must be (B, C, ...), not %s", name, nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
    if (nn->mode == NN_EVAL || p == 0) return x;
    memset(&q, 0, sizeof q);
    q.p = p;
    q.run = 1;
    for (d = 2; channels && d < x->ndim; d++) q.run *= nn__max(1, x->shape[d]);
    return nn__apply1(NN_OP_dropout, x, &q);
}
NN_API nn_tensor *nn_dropout(nn_tensor *x, float p)   { return nn__dropout(x, p, "dropout", 0); }
NN_API nn_tensor *nn_dropout2d(nn_tensor *x, float p) { return nn__dropout(x, p, "dropout2d", 1); }
#endif
#if NN__IN_SIMD
#if NN__LANES > 1
static void NN__K(masked_row)(const nn_call *c, int64_t first, int64_t n, const R *x, R *y, R scale, int64_t dropped, int add)  // from Philox block `first` on
{
    int32_t low = (int32_t)((uint32_t)dropped ^ 0x80000000u);        // unsigned numbers compare like signed ones with the first bit flipped
    int64_t i;
    int k;
    for (i = 0; i < n; i += 2 * NN__LANES) {
        VI r[2];
        NN__K(philox)(c->seed, c->step, c->ordinal, (uint64_t)(first + i / 4), r);
        for (k = 0; k < 2 && i + k * NN__LANES < n; k++) {
            int64_t at = i + k * NN__LANES, left = n - at;
            V v = SEL((r[k] ^ (int32_t)0x80000000) >= low, NN__K(get_lanes)(x + at, left) * SET1(scale), C(0));
            if (add) v = NN__K(get_lanes)(y + at, left) + v;
            NN__K(put_lanes)(y + at, v, left);
        }
    }
}
#endif
static void NN__K(masked)(const nn_call *c, const nn_task *t, const nn_view *x, const nn_view *y, int add)
{
    const nn__dropout_params *p = (const nn__dropout_params *)c->params;
    uint64_t dropped = (uint64_t)((double)p->p * 4294967296.0);          // of 2^32 numbers
    R scale = p->p < 1 ? (R)(1.0 / (1.0 - (double)p->p)) : 0;
    int64_t masks = nn_view_count(x) / p->run, blocks = (masks + 3) / 4, i = nn__task_begin(blocks, t), end = nn__task_end(blocks, t);
    int k;
#if NN__LANES > 1
    if (p->run == 1 && !(dropped >> 32)) {
        NN__K(masked_row)(c, i, nn__min(4 * end, masks) - 4 * i, (const R *)x->data + 4 * i, (R *)y->data + 4 * i, scale, (int64_t)dropped, add);
        return;
    }
#endif
    for (; i < end; i++) {
        uint32_t r[4];
        nn__philox(c->seed, c->step, c->ordinal, (uint64_t)i, r);
        for (k = 0; k < 4 && 4 * i + k < masks; k++) {
            const R *from = (const R *)x->data + (4 * i + k) * p->run;
            R *to = (R *)y->data + (4 * i + k) * p->run;
            R s = r[k] >= dropped ? scale : 0;
            int64_t j;
            for (j = 0; j < p->run; j += NN__LANES) {
                V v = s != 0 ? NN__K(get_lanes)(from + j, p->run - j) * SET1(s) : C(0);
                if (add) v = NN__K(get_lanes)(to + j, p->run - j) + v;
                NN__K(put_lanes)(to + j, v, p->run - j);
            }
        }
    }
}
NN__FORWARD(dropout)  { NN__K(masked)(c, t, &c->in[0], &c->out[0], 0); }
NN__BACKWARD(dropout) { NN__K(masked)(c, t, &c->dout[0], &c->din[0], (int)(c->add & 1)); }
#endif

// ---- convolution:   y(o, i) = b(o) + sum over c, k of w(o, c, k) x(c, i stride - pad + k dilation)         (i, k: pairs) ----------
//
// A convolution ties a small grid, the map, to a large one, the image; w is (map channels, image channels of one group, KH, KW).
//   conv2d            map   = gather(image)        its dx: image = spread(map)       dw = correlate(map, image)
//   conv_transpose2d  image = spread(map)          its dx: map   = gather(image)     dw = correlate(map, image)
// so one op is the other's backward. spread is a gather too: an image pixel p takes every map pixel i with i stride - pad + k dilation = p.
// Which k have one depends on (p + pad) mod stride, the phase of p; the pixels of a phase share their taps, and for them the sum is a
// convolution of stride 1. All three products are matrix products in which one factor (a row per channel and tap, a column per pixel) is
// never stored whole: a task packs the panel it needs straight from the grid (implicit GEMM; Chetlur et al. 2014, "cuDNN").
// Columns run through the batch, and every result is one chain of fma over (channel, ky, kx): it does not depend on its neighbours.
#if NN__IN_HOST
enum { NN__CONV_N = 128, NN__CONV_K = 256, NN__CONV_M = 192, NN__CONV_TASKS = 32, NN__CONV_CHAIN = 16384, NN__CONV_PACK = 1 << 19, NN__STRIP = 32768, NN__STRIP_TAPS = 64,
       NN__THIN = 8, NN__THIN_SUMS = 4096 };

#ifdef NN_DETERMINISTIC
#define NN__WINOGRAD 0
#else
#define NN__WINOGRAD 1
#endif
typedef struct nn__conv {
    int64_t batch, groups, o, c, taps;                   // o, c: channels of map and image in one group; taps = KH * KW
    int64_t kernel[2], map[2], image[2], stride[2], pad[2], dilation[2], phases[2];
    int     transposed, winograd;
} nn__conv;

static nn__conv nn__conv_sizes(const nn_call *c)
{
    const nn__conv_params *p = (const nn__conv_params *)c->params;
    nn__conv v;
    const nn_view *image, *map, *w = &c->in[1];
    int d;
    v.transposed = c->op->id == NN_OP_conv_transpose2d;
    image = v.transposed ? &c->out[0] : &c->in[0];
    map   = v.transposed ? &c->in[0] : &c->out[0];
    v.batch = image->shape[0];
    v.groups = p->groups;
    v.o = w->shape[0] / v.groups;
    v.c = w->shape[1];
    for (d = 0; d < 2; d++) {
        v.kernel[d] = w->shape[2 + d];
        v.map[d] = map->shape[2 + d];
        v.image[d] = image->shape[2 + d];
        v.stride[d] = p->stride[d];
        v.dilation[d] = p->dilation[d];
        v.pad[d] = p->same ? p->dilation[d] * (v.kernel[d] - 1) / 2 : p->pad[d];
    }
    v.taps = v.kernel[0] * v.kernel[1];
    if (v.taps == 1 && v.stride[0] == 1 && v.stride[1] == 1 && !v.pad[0] && !v.pad[1] && v.map[0] == v.image[0] && v.map[1] == v.image[1]) {
        v.map[1] = v.image[1] = v.map[0] * v.map[1];     // 1x1: rows do not matter, an image is one long row and this a plain matrix product
        v.map[0] = v.image[0] = 1;
    }
    for (d = 0; d < 2; d++) v.phases[d] = nn__min(v.stride[d], v.image[d]);
    v.winograd = NN__WINOGRAD && !c->nn->desc.exact && c->nn->desc.dtype == NN_F32 && v.kernel[0] == 3 && v.kernel[1] == 3 && v.o >= 16 && v.c >= 16
              && v.stride[0] == 1 && v.stride[1] == 1 && v.dilation[0] == 1 && v.dilation[1] == 1;
    return v;
}

// One dimension of a gather: result i lies at first + i pitch; its tap a (a step of tap_step in the kernel, from tap0) reads i step + offset + a hop.
typedef struct nn__axis { int64_t size, count, first, pitch, step, offset, hop, taps, tap0, tap_step; } nn__axis;
static nn__axis nn__conv_axis(const nn__conv *v, int d, int spread, int64_t phase)
{
    nn__axis a;
    int64_t k;
    a.size = v->image[d]; a.count = v->map[d];
    a.first = 0; a.pitch = 1;
    a.step = v->stride[d]; a.offset = -v->pad[d]; a.hop = v->dilation[d];
    a.taps = v->kernel[d]; a.tap0 = 0; a.tap_step = 1;
    if (!spread) return a;
    a.size = v->map[d]; a.count = (v->image[d] - phase + v->stride[d] - 1) / v->stride[d];
    a.first = phase; a.pitch = v->stride[d];
    a.step = 1; a.offset = a.hop = a.taps = 0;
    for (k = 0; k < v->kernel[d]; k++) {
        int64_t at = phase + v->pad[d] - k * v->dilation[d];
        if (at % v->stride[d]) continue;
        if (a.taps == 0) { a.tap0 = k; a.offset = at / v->stride[d]; }
        if (a.taps == 1) { a.tap_step = k - a.tap0; a.hop = at / v->stride[d] - a.offset; }
        a.taps++;
    }
    return a;
}
static int64_t nn__conv_taps_before(const nn__conv *v, int d, int64_t phase)    // taps of all smaller phases
{
    int64_t k, n = 0;
    for (k = 0; k < v->kernel[d]; k++) {
        int64_t at = (k * v->dilation[d] - v->pad[d]) % v->stride[d];
        n += (at < 0 ? at + v->stride[d] : at) < phase;
    }
    return n;
}

typedef struct nn__gather {
    nn__axis y, x;
    int64_t  rows, channels, taps, columns;              // results (rows, columns) = weights (rows, channels taps) * pixels (channels taps, columns)
    int64_t  w_row, w_channel, before;                   // where weights lie; packed terms of all smaller phases
} nn__gather;
static nn__gather nn__conv_gather(const nn__conv *v, int spread, int64_t phase)
{
    nn__gather q;
    int64_t py = phase / v->phases[1], px = phase % v->phases[1], all = spread ? nn__conv_taps_before(v, 1, v->phases[1]) : 0;
    q.y = nn__conv_axis(v, 0, spread, py);
    q.x = nn__conv_axis(v, 1, spread, px);
    q.rows = spread ? v->c : v->o;
    q.channels = spread ? v->o : v->c;
    q.taps = q.y.taps * q.x.taps;
    q.columns = v->batch * q.y.count * q.x.count;
    q.w_row = spread ? v->taps : v->c * v->taps;
    q.w_channel = spread ? v->c * v->taps : v->taps;
    q.before = spread ? q.channels * (nn__conv_taps_before(v, 0, py) * all + q.y.taps * nn__conv_taps_before(v, 1, px)) : 0;
    return q;
}

// The terms of a sum in parts of at most NN__CONV_K: some channels with all taps, or some taps of one channel.
typedef struct nn__part { int64_t channel, channels, tap, taps; } nn__part;
static int nn__next_part(const nn__gather *q, nn__part *p)
{
    if (q->taps <= NN__CONV_K) {
        p->channel += p->channels;
        p->taps = q->taps;
        p->channels = q->taps ? nn__min(NN__CONV_K / q->taps, q->channels - p->channel) : 0;
    } else {
        p->tap += p->taps;
        if (p->tap == q->taps) { p->tap = 0; p->channel++; }
        p->taps = nn__min(NN__CONV_K, q->taps - p->tap);
        p->channels = p->channel < q->channels;
    }
    return p->channels > 0;
}

// Depthwise convolutions have one row per matrix: nothing to share a packed panel with. They run directly on a strip: some rows of one
// plane, padded with zeros, and for a step > 1 sorted by x mod step, so that every tap reads neighbouring numbers for neighbouring results.
typedef struct nn__strip { int64_t low_y, low_x, span, sub, row, rows; } nn__strip;  // span: lines of one result row; sub: numbers per x mod step
static nn__strip nn__conv_strip(const nn__axis *y, const nn__axis *x, int64_t room)  // room: numbers
{
    nn__strip z;
    int64_t reach_y = (nn__max(1, y->taps) - 1) * y->hop, reach_x = (nn__max(1, x->taps) - 1) * x->hop;      // negative when it spreads
    z.low_y = y->offset + nn__min(0, reach_y);
    z.low_x = x->offset + nn__min(0, reach_x);
    z.span = (reach_y < 0 ? -reach_y : reach_y) + 1;
    z.sub = x->count + (reach_x < 0 ? -reach_x : reach_x) / x->step + 16;        // vectors may read beyond the last result
    z.row = z.sub * x->step;
    z.rows = nn__max(1, nn__min(y->count, (room / z.row - z.span) / y->step + 1));
    return z;
}
static int nn__conv_direct(const nn__conv *v)
{
    int64_t lines = v->dilation[0] * (v->kernel[0] - 1) + 1, row = v->dilation[1] * (v->kernel[1] - 1) + v->stride[1] * (nn__max(v->map[1], v->image[1]) + 36);
    return v->c == 1 && v->o >= 1 && v->o <= 2 && v->taps <= NN__STRIP_TAPS && lines <= NN__STRIP / row;
}
// dw of few channels, too, is summed on strips: of all channels of a group, which leave room for fewer rows. Rows that fill few vectors
// of 16 are left to the matrix product.
static int nn__conv_thin(const nn__conv *v)
{
    int64_t lines = v->dilation[0] * (v->kernel[0] - 1) + 1, row = v->dilation[1] * (v->kernel[1] - 1) + v->stride[1] * (v->map[1] + 36);
    return nn__conv_direct(v) || (v->c >= 1 && v->o >= 1 && v->c <= NN__THIN && v->taps <= NN__STRIP_TAPS && 2 * lines <= NN__STRIP / row / v->c
                              && v->map[1] <= NN__STRIP / 16 && 4 * v->map[1] >= (v->map[1] + 15) / 16 * 48);
}
static int64_t nn__thin_rows(const nn__conv *v) { return nn__min((v->o + 3) / 4 * 4, NN__THIN_SUMS / (v->c * v->taps) / 4 * 4); }

// 3x3 kernels with step 1 and many channels: Winograd's F(4x4, 3x3) (Winograd 1980; Lavin & Gray 2016). A tile of 4x4 results costs
// 36 products per channel instead of 144:   Y = A^T [sum over c of (G g G^T) (B^T d B)] A,   g 3x3 weights, d 6x6 pixels, the products
// element by element: 36 matrix products. dw is F(3x3, 4x4): g is a tile of the map, the sum runs over tiles. B, G, A come from the
// polynomial x (x^2 - 1/2) (x^2 - 2), whose roots keep the error low (Barabasz et al. 2020): measured against double, 1.3 to 2.5
// times that of a direct sum; below 4e-6 of the norm of all results, and no result is off by more than 1e-5 of the largest one
// (tests/test_conv.c). A column is a tile; columns run through the batch, and every result is a chain over channels as before, so the
// bits do not depend on neighbours, lanes or threads.
enum { NN__TILE_ROWS = 24, NN__WINO_N = 32, NN__WINO_K = 64, NN__WINO_M = 144, NN__WINO_DW_M = 72, NN__WINO_DW_K = 16, NN__WINO_PACK = 1 << 20, NN__WINO_FEW = 2 };
static int64_t nn__wino_stride(int64_t rows, int64_t columns) { return rows * columns + 16; }    // between two of 36 matrices: not a power of 2
static int64_t nn__wino_tiles(const int64_t *size) { return (size[0] + 3) / 4 * ((size[1] + 3) / 4); }
// Does it pay? Multiply-adds per weight, for one image: the choice must not depend on the batch. Transforming weights costs about as much
// as 960 of them; forward shares that among 8 images, in between 1 and a batch, backward among 32.
static int nn__wino_pays(const nn__conv *v, const int64_t *results, int back)
{
    int64_t direct = 9 * results[0] * results[1], tiles = 36 * nn__wino_tiles(results);
    return v->winograd && tiles + tiles * 6 / v->o + tiles * 6 / v->c + (back ? 30 : 120) < direct * 7 / 8;
}
static int nn__conv_wino(const nn__conv *v, int spread) { return nn__wino_pays(v, spread ? v->image : v->map, spread != v->transposed); }
static int nn__wino_dw(const nn__conv *v)               { return nn__wino_pays(v, v->map, 1); }

// How the three products are cut into tasks; from sizes only.
typedef struct nn__conv_cut {
    int64_t phases, blocks, splits, rows, tasks, panels; // gather: rows of one task; panels: numbers in the packed weights of a group
    int64_t lead, pack_blocks, rounds;                   // a round packs pack_blocks blocks of NN__GEMM_M weight rows, then multiplies;
                                                         // lead: rows of a round, rounded up to whole tiles of any height
} nn__conv_cut;
// Tasks of Winograd: NN__WINO_N columns and at most NN__WINO_M rows; what packs weights takes NN__TILE_ROWS rows, a multiple of every NN__MR.
// Where there are few columns, weights are not packed in a phase of their own: every task transforms what it needs, which stays in the cache.
static int64_t nn__tile_rows(int64_t rows, int64_t parts) { return ((rows + parts - 1) / parts + NN__TILE_ROWS - 1) / NN__TILE_ROWS * NN__TILE_ROWS; }
static nn__conv_cut nn__wino_cuts(const nn__conv *v, int spread)
{
    nn__conv_cut s;
    int64_t rows = spread ? v->c : v->o, terms = 36 * (spread ? v->o : v->c);
    s.phases = 1;
    s.blocks = (v->batch * nn__wino_tiles(spread ? v->image : v->map) + NN__WINO_N - 1) / NN__WINO_N;
    s.lead = nn__tile_rows(rows, nn__min(NN_MAX_PHASES / 2, v->groups * rows * terms / NN__WINO_PACK + 1));
    s.rounds = (rows + s.lead - 1) / s.lead;
    s.pack_blocks = s.lead / NN__TILE_ROWS;
    s.panels = ((spread ? v->o : v->c) + NN__WINO_K - 1) / NN__WINO_K * 36 * 16 + s.lead * terms;
    s.splits = nn__max((s.lead + NN__WINO_M - 1) / NN__WINO_M, nn__min(4, 8 / (v->groups * s.blocks)));
    if (s.blocks <= NN__WINO_FEW) {
        s.lead = nn__tile_rows(rows, 1);
        s.rounds = 1;
        s.pack_blocks = s.panels = 0;
        s.splits = nn__max((s.lead + NN__WINO_M / 2 - 1) / (NN__WINO_M / 2), nn__min(4, 8 / (v->groups * s.blocks)));
    }
    s.rows = nn__tile_rows(s.lead, s.splits);
    s.splits = (s.lead + s.rows - 1) / s.rows;
    s.tasks = v->groups * s.blocks * s.splits;
    return s;
}
static nn__conv_cut nn__conv_cuts(const nn__conv *v, int spread)
{
    nn__conv_cut s;
    nn__gather q;
    memset(&s, 0, sizeof s);
    s.phases = spread ? v->phases[0] * v->phases[1] : 1;
    s.rows = spread ? v->c : v->o;
    if (s.phases == 0 || s.rows == 0 || v->batch == 0) return s;
    if (nn__conv_wino(v, spread)) return nn__wino_cuts(v, spread);
    if (nn__conv_direct(v)) {
        s.tasks = nn__task_count(v->batch * v->groups, v->o * v->taps * v->map[0] * v->map[1]);
        return s;
    }
    q = nn__conv_gather(v, spread, 0);                   // phase 0 has the most pixels
    s.blocks = (q.columns + NN__CONV_N - 1) / NN__CONV_N;
    s.pack_blocks = (s.rows + NN__GEMM_M - 1) / NN__GEMM_M;
    s.rounds = nn__min(s.pack_blocks, v->groups * s.rows * q.channels * v->taps / NN__CONV_PACK + 1);
    s.rounds = nn__min(s.rounds, NN_MAX_PHASES / 2);
    s.pack_blocks = (s.pack_blocks + s.rounds - 1) / s.rounds;
    s.rounds = (s.rows + s.pack_blocks * NN__GEMM_M - 1) / (s.pack_blocks * NN__GEMM_M);
    s.lead = nn__min((s.rows + 23) / 24 * 24, s.pack_blocks * NN__GEMM_M);      // NN__MR is 4, 6, 8 or 12
    s.panels = s.lead * q.channels * v->taps;
    s.tasks = v->groups * s.phases * s.blocks;
    s.splits = nn__max((s.pack_blocks + 1) / 2, nn__min(s.pack_blocks, NN__CONV_TASKS / nn__max(1, s.tasks)));
    s.rows = (s.pack_blocks + s.splits - 1) / s.splits * NN__GEMM_M;
    s.tasks *= s.splits;
    return s;
}
typedef struct nn__dw_cut { int64_t across, blocks, chunks, images, count; } nn__dw_cut; // blocks of dw per group; chunks of the batch
static nn__dw_cut nn__conv_dw_cuts(const nn__conv *v)
{
    nn__dw_cut s;
    int64_t columns = v->c * v->taps, pixels = v->map[0] * v->map[1], work, want;
    int wino = nn__wino_dw(v);
    s.across = (columns + NN__CONV_N - 1) / NN__CONV_N;
    s.blocks = (v->o + NN__CONV_M - 1) / NN__CONV_M * s.across;
    s.count = v->groups * v->o * columns;
    if (nn__conv_thin(v)) s.blocks = (v->o + nn__thin_rows(v) - 1) / nn__thin_rows(v);
    if (wino) {
        s.across = (v->c + NN__WINO_K - 1) / NN__WINO_K;
        s.blocks = (v->o + NN__WINO_DW_M - 1) / NN__WINO_DW_M * s.across;
    }
    work = nn__min(v->o, NN__CONV_M) * nn__min(columns, NN__CONV_N) * pixels * v->batch;
    want = nn__max((wino ? NN__CONV_TASKS / 4 : NN__CONV_TASKS) / nn__max(1, s.blocks * v->groups), v->batch * pixels / NN__CONV_CHAIN);
    want = nn__min(nn__min(want, v->batch), nn__min(work >> 18, ((int64_t)1 << 22) / nn__max(1, s.count)));
    want = nn__max(1, want);
    s.images = (v->batch + want - 1) / want;
    s.chunks = s.images ? (v->batch + s.images - 1) / s.images : 1;
    return s;
}

static int nn__conv_shape(nn_call *c)
{
    const nn__conv_params *p = (const nn__conv_params *)c->params;
    const nn_view *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    int64_t shape[4], out;
    int d, transposed = c->op->id == NN_OP_conv_transpose2d;
    if (x->ndim != 4 || w->ndim != 4 || !w->shape[2] || !w->shape[3]) {
        nn_fail(c->nn, "%s: x is (B, C, H, W) and w has 4 dimensions, not %s and %s", p->name, NN__SHAPE_OF(x), NN__SHAPE_OF(w));
        return 0;
    }
    if (w->shape[0] % p->groups || x->shape[1] != (transposed ? w->shape[0] : w->shape[1] * p->groups)) {
        nn_fail(c->nn, "%s: x %s does not fit w %s with %lld groups", p->name, NN__SHAPE_OF(x), NN__SHAPE_OF(w), (long long)p->groups);
        return 0;
    }
    shape[0] = x->shape[0];
    shape[1] = transposed ? w->shape[1] * p->groups : w->shape[0];
    if (b->ndim && (b->ndim != 1 || b->shape[0] != shape[1])) {
        nn_fail(c->nn, "%s: bias %s does not fit w %s: it must have %lld numbers", p->name, NN__SHAPE_OF(b), NN__SHAPE_OF(w), (long long)shape[1]);
        return 0;
    }
    for (d = 0; d < 2; d++) {
        int64_t reach = p->dilation[d] * (w->shape[2 + d] - 1) + 1, n = x->shape[2 + d];
        if (w->shape[2 + d] > INT32_MAX || n > INT64_MAX / 8 / nn__max(1, p->stride[d])) {
            nn_fail(c->nn, "%s: impossible sizes: x %s, w %s", p->name, NN__SHAPE_OF(x), NN__SHAPE_OF(w));
            return 0;
        }
        if (transposed) out = (n - 1) * p->stride[d] - 2 * p->pad[d] + reach + p->extra[d];
        else out = p->same ? n : n + 2 * p->pad[d] < reach ? 0 : (n + 2 * p->pad[d] - reach) / p->stride[d] + 1;
        if (out < 1 && !(p->same && n == 0)) {
            nn_fail(c->nn, "%s: nothing is left of x %s with a kernel of %s, padding %lld, dilation %lld", p->name, NN__SHAPE_OF(x), NN__SHAPE_OF(w),
                    (long long)p->pad[d], (long long)p->dilation[d]);
            return 0;
        }
        shape[2 + d] = out;
    }
    nn__set_shape(&c->out[0], x->dtype, 4, shape);
    return 1;
}
static int64_t nn__conv_scratch(const nn__conv *v, int spread, int64_t rows)        // numbers that a task of a gather needs; rows: of one task
{
    int64_t sums = nn__wino_stride(NN__WINO_N, rows), image = nn__wino_stride(NN__WINO_N, NN__WINO_K), few = nn__wino_stride(NN__WINO_N + rows, NN__WINO_K / 2) + 16;
    if (nn__conv_wino(v, spread)) return 36 * (sums + nn__max(image, rows <= NN__WINO_M / 2 ? few : 0));
    return nn__conv_direct(v) ? (int64_t)NN__STRIP : NN__CONV_K * (NN__CONV_N + 32) + (rows + 11) * NN__CONV_N;
}
static int64_t nn__conv_dw_scratch(const nn__conv *v)
{
    if (nn__wino_dw(v)) return 36 * (nn__wino_stride(NN__WINO_DW_M, NN__WINO_K) + nn__wino_stride(NN__WINO_DW_M + NN__WINO_K, NN__WINO_DW_K) + 16);
    return nn__conv_thin(v) ? 2 * NN__STRIP + 16 * NN__THIN_SUMS : NN__CONV_K * (NN__CONV_M + 16 + NN__CONV_N + 32);
}
// Forward: weights are packed, then the gather runs. Backward: weights are packed; dx, dw and db are computed side by side; chunks of dw are summed.
static void nn__conv_plan(nn_call *c)
{
    nn__conv v = nn__conv_sizes(c);
    int back = c->pass == NN_BACKWARD, spread = v.transposed != back;
    nn__conv_cut s = nn__conv_cuts(&v, spread);
    size_t real = nn__real_bytes(c);
    double work = (double)(v.batch * v.groups * v.o) * (double)(v.c * v.taps) * (double)(v.map[0] * v.map[1]) / 8;
    c->cost = work < 1e12 ? (int64_t)work + 1 : (int64_t)1 << 40;
    c->tasks[0] = 0;
    if (!back || c->din[0].data) {
        int64_t round;
        c->phases = 2 * (int)nn__max(1, s.rounds);
        for (round = 0; round < c->phases / 2; round++) {
            c->tasks[2 * round] = v.groups * s.pack_blocks;
            c->tasks[2 * round + 1] = s.tasks;
        }
        c->shared_bytes = nn__round_up((size_t)(v.groups * s.panels) * real);
        c->task_bytes = (size_t)nn__conv_scratch(&v, spread, s.rows) * real;
    }
    else c->phases = 1;
    if (back && c->din[1].data) {
        nn__dw_cut w = nn__conv_dw_cuts(&v);
        c->tasks[0] = v.groups * w.blocks * w.chunks;
        c->task_bytes = (size_t)nn__conv_dw_scratch(&v) * real;
        if (w.chunks > 1) {
            c->shared_bytes = (size_t)(w.chunks * w.count) * real;
            c->phases = 2;
            c->tasks[1] = nn__task_count(w.count, w.chunks);
        }
    }
    if (back && c->din[2].data) c->tasks[0] += (c->dout[0].shape[1] + NN__BIAS_COLUMNS - 1) / NN__BIAS_COLUMNS;
}

static int64_t nn__int_option(int value, int otherwise) { return value == 0 ? otherwise : value == NN_ZERO ? 0 : value; }
static nn_tensor *nn__conv_apply(int op, const char *name, int dims, nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_desc *desc)
{
    nn_context *nn = x ? x->nn : w ? w->nn : NULL;
    nn_conv_desc d;
    nn__conv_params p;
    nn_tensor *in[3], *y;
    int i, transposed = op == NN_OP_conv_transpose2d;
    memset(&d, 0, sizeof d);
    memset(&p, 0, sizeof p);
    if (desc) d = *desc;
    if (!nn__check(nn, x, name) || !nn__check(nn, w, name)) return nn__inert(nn);
    p.name = name;
    p.groups = nn__int_option(d.groups, 1);
    p.same = d.same;
    p.stride[0] = nn__int_option(d.stride, 1);     p.stride[1] = nn__int_option(d.stride_w, (int)p.stride[0]);
    p.pad[0] = nn__int_option(d.padding, 0);       p.pad[1] = nn__int_option(d.padding_w, (int)p.pad[0]);
    p.dilation[0] = nn__int_option(d.dilation, 1); p.dilation[1] = nn__int_option(d.dilation_w, (int)p.dilation[0]);
    p.extra[0] = nn__int_option(d.output_padding, 0); p.extra[1] = nn__int_option(d.output_padding_w, (int)p.extra[0]);
    if (dims == 1) {                                     // a signal is an image of height 1
        if (x->ndim != 3 || w->ndim != 3) {
            nn_fail(nn, "%s: x is (B, C, L) and w has 3 dimensions, not %s and %s", name, nn__dims_text(x->ndim, x->shape).s, nn__dims_text(w->ndim, w->shape).s);
            return nn__inert(nn);
        }
        if (d.stride_w || d.padding_w || d.dilation_w || d.output_padding_w) { nn_fail(nn, "%s: a signal has no width: _w options are for images", name); return nn__inert(nn); }
        p.stride[0] = p.dilation[0] = 1;
        p.pad[0] = p.extra[0] = 0;
        x = nn_unsqueeze(x, 2);
        w = nn_unsqueeze(w, 2);
    }
    for (i = 0; i < 2; i++) {
        if (p.groups < 1 || p.stride[i] < 1 || p.dilation[i] < 1 || p.pad[i] < 0 || p.extra[i] < 0) {
            nn_fail(nn, "%s: groups, stride and dilation are at least 1, padding at least 0", name);
            return nn__inert(nn);
        }
        if (p.same && (transposed || p.stride[i] != 1 || p.pad[i])) {
            nn_fail(nn, "%s: .same is for stride 1, without .padding, and not for transposed convolutions", name);
            return nn__inert(nn);
        }
        if (p.extra[i] && (!transposed || (p.extra[i] >= p.stride[i] && p.extra[i] >= p.dilation[i]))) {
            nn_fail(nn, "%s: .output_padding is for transposed convolutions, and smaller than stride or dilation", name);
            return nn__inert(nn);
        }
    }
    in[0] = x; in[1] = w; in[2] = b;
    y = nn_apply_n(nn, nn__op(op), in, 3, &p, NULL);
    if (dims == 1) y = nn_squeeze(y, 2);
    return nn__activate(d.activation, y);
}
NN_API nn_tensor *nn_conv1d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv1d_desc *desc) { return nn__conv_apply(NN_OP_conv2d, "conv1d", 1, x, w, b, desc); }
NN_API nn_tensor *nn_conv2d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv2d_desc *desc) { return nn__conv_apply(NN_OP_conv2d, "conv2d", 2, x, w, b, desc); }
NN_API nn_tensor *nn_conv_transpose1d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_transpose1d_desc *desc)
{
    return nn__conv_apply(NN_OP_conv_transpose2d, "conv_transpose1d", 1, x, w, b, desc);
}
NN_API nn_tensor *nn_conv_transpose2d(nn_tensor *x, nn_tensor *w, nn_tensor *b, const nn_conv_transpose2d_desc *desc)
{
    return nn__conv_apply(NN_OP_conv_transpose2d, "conv_transpose2d", 2, x, w, b, desc);
}
#endif
#if NN__IN_SIMD
#define NN__THIN_M (NN__LANES == 8 ? 2 : 4)              // tiles of thin_tile: AVX2 has 16 registers, the others 32
#ifdef __GNUC__
#define NN__PREFETCH(p) __builtin_prefetch(p)
#else
#define NN__PREFETCH(p) ((void)(p))
#endif
// Packs the weights of one group and of NN__GEMM_M rows in a round, in the order in which conv_block reads them: phase, part, panel, term, row.
static void NN__K(conv_weights)(const nn__conv *v, int spread, const R *w, int64_t round, int64_t index, R *to)
{
    nn__conv_cut s = nn__conv_cuts(v, spread);
    int64_t group = index / s.pack_blocks, low = round * s.pack_blocks * NN__GEMM_M, first = low + index % s.pack_blocks * NN__GEMM_M, tap[NN__CONV_K], phase, i, ch, k;
    int j;
    w += group * v->o * v->c * v->taps;
    to += group * s.panels;
    for (phase = 0; phase < s.phases; phase++) {
        nn__gather q = nn__conv_gather(v, spread, phase);
        nn__part p = { 0, 0, 0, 0 };
        while (nn__next_part(&q, &p)) {
            for (k = 0; k < p.taps; k++) tap[k] = (q.y.tap0 + (p.tap + k) / q.x.taps * q.y.tap_step) * v->kernel[1] + q.x.tap0 + (p.tap + k) % q.x.taps * q.x.tap_step;
            for (i = first; i < nn__min(first + NN__GEMM_M, q.rows); i += NN__MR) {
                R *z = to + (i - low) * p.channels * p.taps;
                const R *x = w + i * q.w_row + p.channel * q.w_channel;
                int h = (int)nn__min(NN__MR, q.rows - i);
                if (h < NN__MR) memset(z, 0, (size_t)(p.channels * p.taps * NN__MR) * sizeof *z);
                if (spread) for (ch = 0; ch < p.channels; ch++) for (k = 0; k < p.taps; k++) for (j = 0; j < h; j++) // neighbours in w come one after
                    z[(ch * p.taps + k) * NN__MR + j] = x[j * q.w_row + ch * q.w_channel + tap[k]];                   // the other: rows may lie far apart
                else for (j = 0; j < h; j++) for (ch = 0; ch < p.channels; ch++) for (k = 0; k < p.taps; k++)
                    z[(ch * p.taps + k) * NN__MR + j] = x[j * q.w_row + ch * q.w_channel + tap[k]];
            }
            to += s.lead * p.channels * p.taps;
        }
    }
}

NN__INLINE void NN__K(copy_run)(R *to, const R *from, int64_t n, int64_t step)       // every step-th of from
{
    int64_t i;
    if (step == 1) NN__K(copy_few)(to, from, n);
    else for (i = 0; i < n; i++) to[i] = from[i * step];
}

// Columns first..first+n of the pixel matrix, the terms of part p, into panels of NN__NR columns. A column is (image, y, x) of the result;
// columns of one row read neighbouring pixels, so a panel is a few runs. What lies outside of the source is zero.
typedef struct NN__K(run) { int64_t image, y, x, at, n; } NN__K(run);
static void NN__K(conv_pixels)(const nn__gather *q, const nn__part *p, const R *from, int64_t image_stride, int64_t first, int64_t n, R *to)
{
    NN__K(run) run[NN__NR];
    int64_t plane = q->y.size * q->x.size, j, k, ch, depth = p->channels * p->taps;
    for (j = 0; j < n; j += NN__NR, to += depth * NN__NR) {
        int64_t w = nn__min(NN__NR, n - j), at = 0, col = first + j, runs = 0, r;
        while (at < w) {
            NN__K(run) *u = &run[runs++];
            u->x = col % q->x.count;
            u->y = col / q->x.count % q->y.count;
            u->image = col / q->x.count / q->y.count;
            u->at = at;
            u->n = nn__min(q->x.count - u->x, w - at);
            u->x = u->x * q->x.step + q->x.offset;
            u->y = u->y * q->y.step + q->y.offset;
            at += u->n;
            col += u->n;
        }
        for (k = 0; k < p->taps; k++) {
            int64_t ky = (p->tap + k) / q->x.taps * q->y.hop, kx = (p->tap + k) % q->x.taps * q->x.hop, full = 0, m = 0;
            struct { const R *from; int64_t at, n; } part[NN__NR];
            for (r = 0; r < runs; r++) {
                NN__K(run) *u = &run[r];
                int64_t y = u->y + ky, x = u->x + kx, lo = 0, hi = u->n;
                if (y < 0 || y >= q->y.size) continue;
                if (x < 0) lo = q->x.step == 1 ? -x : (-x + q->x.step - 1) / q->x.step;
                if (x + (hi - 1) * q->x.step >= q->x.size) hi = x >= q->x.size ? 0 : (q->x.size - 1 - x) / q->x.step + 1;
                if (lo >= hi) continue;
                part[m].from = from + u->image * image_stride + y * q->x.size + x + lo * q->x.step;
                part[m].at = u->at + lo;
                full += part[m++].n = hi - lo;
            }
            for (ch = 0; ch < p->channels; ch++) {
                R *z = to + (ch * p->taps + k) * NN__NR;
                int64_t c = (p->channel + ch) * plane;
                if (full < NN__NR) memset(z, 0, NN__NR * sizeof *z);
                for (r = 0; r < m; r++) NN__K(copy_run)(z + part[r].at, part[r].from + c, part[r].n, q->x.step);
            }
        }
    }
}

NN__INLINE void NN__K(fill_run)(R *y, int64_t n, R value)
{
    int64_t i;
    for (i = 0; i + NN__LANES <= n; i += NN__LANES) STORE(y + i, SET1(value));
    for (; i < n; i++) y[i] = value;
}

// One block of results: some rows (channels) and NN__CONV_N columns (pixels). y (+)= bias + packed weights * pixels. Sums are gathered in
// the scratch, where rows are dense, then go to y run by run.
static void NN__K(conv_block)(const nn__conv *v, int spread, const R *a, const R *from, const R *bias, R *y, int add, int64_t round, int64_t index, R *scratch)
{
    nn__conv_cut s = nn__conv_cuts(v, spread);
    int64_t group = index / s.splits / s.blocks / s.phases, phase = index / s.splits / s.blocks % s.phases;
    int64_t first = index / s.splits % s.blocks * NN__CONV_N, in_round = index % s.splits * s.rows, row = round * s.pack_blocks * NN__GEMM_M + in_round;
    nn__gather q = nn__conv_gather(v, spread, phase);
    nn__part p = { 0, 0, 0, 0 };
    int64_t width = spread ? v->image[1] : v->map[1], plane = width * (spread ? v->image[0] : v->map[0]), column[NN__CONV_N], i, j, k, e;
    int64_t n = nn__min(NN__CONV_N, q.columns - first), m = nn__min(nn__min(s.rows, s.pack_blocks * NN__GEMM_M - in_round), q.rows - row), source = q.y.size * q.x.size;
    R *sum = scratch + NN__CONV_K * (NN__CONV_N + 32);
    if (n <= 0 || m <= 0) return;
    for (j = 0; j < n; j++) {                            // where the columns lie in row 0 of y
        int64_t col = first + j, x = col % q.x.count, b = col / q.x.count / q.y.count;
        if (j && x) { column[j] = column[j - 1] + q.x.pitch; continue; }
        column[j] = b * v->groups * q.rows * plane + (q.y.first + col / q.x.count % q.y.count * q.y.pitch) * width + q.x.first + x * q.x.pitch;
    }
    for (i = 0; i < m; i++) NN__K(fill_run)(sum + i * NN__CONV_N, NN__CONV_N, bias ? bias[group * q.rows + row + i] : 0);
    memset(sum + m * NN__CONV_N, 0, (NN__MR - 1) * NN__CONV_N * sizeof *sum);
    a += group * s.panels + s.lead * q.before;
    from += group * q.channels * source;
    while (nn__next_part(&q, &p)) {
        int64_t depth = p.channels * p.taps;
        NN__K(conv_pixels)(&q, &p, from, v->groups * q.channels * source, first, n, scratch);
        for (j = 0; j < n; j += NN__NR) for (i = 0; i < m; i += NN__MR)
            NN__K(gemm_tile)(depth, a + (in_round + i) * depth, scratch + j * depth, sum + i * NN__CONV_N + j, NN__CONV_N);
        a += s.lead * depth;
    }
    y += (group * q.rows + row) * plane;
    for (j = 0; j < n; j = k) {
        for (k = j + 1; k < n && column[k] == column[k - 1] + q.x.pitch; k++) { }
        for (i = 0; i < m; i++) {
            const R *z = sum + i * NN__CONV_N + j;
            R *to = y + i * plane + column[j];
            if (add) for (e = 0; e < k - j; e++) to[e * q.x.pitch] += z[e];
            else if (q.x.pitch == 1) NN__K(copy_run)(to, z, k - j, 1);
            else for (e = 0; e < k - j; e++) to[e * q.x.pitch] = z[e];
        }
    }
}

// Panels for dw, a row per pixel: `depth` pixels, from number `first` on, of `rows` planes; images are image_stride apart.
static void NN__K(conv_planes)(const R *x, int64_t pixels, int64_t image_stride, int64_t first, int64_t depth, int64_t rows, int width, R *to)
{
    int64_t i, j, p, q, n;
    for (i = 0; i < rows; i += width, to += depth * width) {
        int64_t h = nn__min(width, rows - i);
        for (p = 0; p < depth; p += n) {                 // short runs of each plane in turn: planes may be a power of 2 apart
            int64_t pixel = (first + p) % pixels, image = (first + p) / pixels;
            const R *from = x + image * image_stride + i * pixels + pixel;
            R *z = to + p * width;
            n = nn__min(nn__min(16, pixels - pixel), depth - p);
            for (j = 0; j < h; j++) for (q = 0; q < n; q++) z[q * width + j] = from[j * pixels + q];
            for (; j < width; j++) for (q = 0; q < n; q++) z[q * width + j] = 0;
        }
    }
}
// A column of dw is a channel and a tap. Columns of one kernel row read neighbouring pixels: a few numbers at a time.
typedef struct NN__K(taps) { int64_t offset, y, x, at, n; } NN__K(taps);
static void NN__K(conv_image_panels)(const nn__conv *v, const R *image, int64_t first, int64_t depth, int64_t column, int64_t columns, R *to)
{
    NN__K(taps) run[NN__NR];
    int64_t width = v->image[1], plane = v->image[0] * width, kw = v->kernel[1], dx = v->dilation[1], j, p, r, e;
    for (j = 0; j < columns; j += NN__NR) {
        int64_t w = nn__min(NN__NR, columns - j), at = 0, runs = 0, ox = first % v->map[1], oy = first / v->map[1] % v->map[0], b = first / v->map[1] / v->map[0];
        while (at < w) {
            NN__K(taps) *u = &run[runs++];
            int64_t k = column + j + at;
            u->at = at;
            u->n = nn__min(kw - k % kw, w - at);
            u->y = k / kw % v->kernel[0] * v->dilation[0];
            u->x = k % kw * dx;
            u->offset = k / v->taps * plane + u->y * width + u->x;
            at += u->n;
        }
        for (p = 0; p < depth; p++, to += NN__NR) {
            int64_t y = oy * v->stride[0] - v->pad[0], x = ox * v->stride[1] - v->pad[1];
            int64_t z = b * v->groups * v->c * plane + y * width + x;
            int inside = y >= 0 && x >= 0 && y + (v->kernel[0] - 1) * v->dilation[0] < v->image[0] && x + (kw - 1) * dx < width;
            for (e = w; e < NN__NR; e++) to[e] = 0;
            if (inside && dx == 1) for (r = 0; r < runs; r++) {
                const R *s = image + z + run[r].offset;
                R *d = to + run[r].at;
                if (run[r].n == 3)      memcpy(d, s, 3 * sizeof *d);
                else if (run[r].n == 5) memcpy(d, s, 5 * sizeof *d);
                else for (e = 0; e < run[r].n; e++) d[e] = s[e];
            } else for (r = 0; r < runs; r++) for (e = 0; e < run[r].n; e++) {
                int64_t iy = y + run[r].y, ix = x + run[r].x + e * dx;
                to[run[r].at + e] = iy < 0 || ix < 0 || iy >= v->image[0] || ix >= width ? 0 : image[z + run[r].offset + e * dx];
            }
            if (++ox == v->map[1]) { ox = 0; if (++oy == v->map[0]) { oy = 0; b++; } }
        }
    }
}
// One block of dw over one chunk of the batch.  dw (o, c k) (+)= map (o, pixels) * image (pixels, c k)
static void NN__K(conv_dw)(const nn__conv *v, const R *map, const R *image, R *dw, int add, int64_t index, R *part, R *scratch)
{
    nn__dw_cut s = nn__conv_dw_cuts(v);
    int64_t chunk = index % s.chunks, block = index / s.chunks % s.blocks, group = index / s.chunks / s.blocks, columns = v->c * v->taps;
    int64_t i0 = block / s.across * NN__CONV_M, j0 = block % s.across * NN__CONV_N, h = nn__min(NN__CONV_M, v->o - i0), w = nn__min(NN__CONV_N, columns - j0);
    int64_t first = chunk * s.images, pixels = v->map[0] * v->map[1], total = (nn__min(v->batch, first + s.images) - first) * pixels, p, i;
    if (s.chunks > 1) { dw = part + chunk * s.count; add = 0; }
    dw += (group * v->o + i0) * columns + j0;
    if (!add) for (i = 0; i < h; i++) memset(dw + i * columns, 0, (size_t)w * sizeof *dw);
    map += ((first * v->groups + group) * v->o + i0) * pixels;
    image += (first * v->groups + group) * v->c * v->image[0] * v->image[1];
    for (p = 0; p < total; p += NN__CONV_K) {
        int64_t depth = nn__min(NN__CONV_K, total - p);
        R *pb = scratch + NN__CONV_K * (NN__CONV_M + 16);
        NN__K(conv_planes)(map, pixels, v->groups * v->o * pixels, p, depth, h, NN__MR, scratch);
        if (v->taps == 1 && v->image[0] == 1 && pixels == v->image[1])               // 1x1: the image as it is
            NN__K(conv_planes)(image + j0 * pixels, pixels, v->groups * v->c * pixels, p, depth, w, NN__NR, pb);
        else NN__K(conv_image_panels)(v, image, p, depth, j0, w, pb);
        NN__K(gemm_macro)(h, w, depth, scratch, pb, dw, columns, 1);
    }
}

// Lines first..first+rows (of results) of a strip. What comes next lies `ahead`.
static void NN__K(strip_fill)(const nn__axis *y, const nn__axis *x, const nn__strip *z, const R *plane, int64_t first, int64_t rows, int64_t ahead, R *to)
{
    int64_t lines = (rows - 1) * y->step + z->span, l, e;
    memset(to, 0, (size_t)(lines * z->row) * sizeof *to);
    for (l = 0; l < lines; l++, to += z->row) {
        int64_t line = first * y->step + z->low_y + l;
        if (line < 0 || line >= y->size) continue;
        for (e = 0; e < x->size; e += 16) NN__PREFETCH(plane + line * x->size + ahead + e);
        for (e = 0; e < x->step; e++) {
            int64_t at = z->low_x + e, lo = at < 0 ? (-at + x->step - 1) / x->step : 0, hi = at < x->size ? nn__min(z->sub, (x->size - 1 - at) / x->step + 1) : 0;
            if (lo < hi) NN__K(copy_run)(to + e * z->sub + lo, plane + line * x->size + at + lo * x->step, hi - lo, x->step);
        }
    }
}
static void NN__K(strip_taps)(const nn__gather *q, const nn__strip *z, int64_t *at)       // where the taps of result (0, 0) lie in a strip
{
    int64_t k;
    for (k = 0; k < q->taps; k++) {
        int64_t ky = q->y.offset + k / q->x.taps * q->y.hop - z->low_y, kx = q->x.offset + k % q->x.taps * q->x.hop - z->low_x;
        at[k] = ky * z->row + kx % q->x.step * z->sub + kx / q->x.step;
    }
}
// y[i pitch] (+)= bias + sum over k of w[k] x[at[k] + i]
static void NN__K(strip_row)(int64_t n, R *y, int64_t pitch, int add, R bias, int64_t taps, const R *w, const R *x, const int64_t *at)
{
    int64_t i, j, k;
    for (i = 0; i < n; i += NN__LANES) {
        int64_t m = nn__min(NN__LANES, n - i);
        int whole = pitch == 1 && m == NN__LANES;
        R part[NN__LANES] = { 0 };
        V sum = SET1(bias);
        if (add && whole) sum = LOAD(y + i);
        else if (add) { for (j = 0; j < m; j++) part[j] = y[(i + j) * pitch]; sum = LOAD(part); }
        for (k = 0; k < taps; k++) sum = FMA(SET1(w[k]), LOAD(x + at[k] + i), sum);
        if (whole) { STORE(y + i, sum); continue; }
        STORE(part, sum);
        for (j = 0; j < m; j++) y[(i + j) * pitch] = part[j];
    }
}
static void NN__K(conv_strips)(const nn__conv *v, int spread, const R *w, const R *from, const R *bias, R *y, int add, int64_t index, int64_t tasks, R *scratch)
{
    int64_t planes = v->batch * v->groups, phases = spread ? v->phases[0] * v->phases[1] : 1, i, phase, r0, r, n, ch, m, k;
    int64_t width = spread ? v->image[1] : v->map[1], plane = width * (spread ? v->image[0] : v->map[0]), at[NN__STRIP_TAPS];
    R taps[NN__STRIP_TAPS];
    for (i = planes * index / tasks; i < planes * (index + 1) / tasks; i++) for (phase = 0; phase < phases; phase++) {
        nn__gather q = nn__conv_gather(v, spread, phase);
        nn__strip z = nn__conv_strip(&q.y, &q.x, NN__STRIP / 4);
        int64_t group = i % v->groups, source = q.y.size * q.x.size;
        NN__K(strip_taps)(&q, &z, at);
        for (r0 = 0; r0 < q.y.count; r0 += n) for (n = nn__min(z.rows, q.y.count - r0), ch = 0; ch < q.channels; ch++) {
            NN__K(strip_fill)(&q.y, &q.x, &z, from + (i * q.channels + ch) * source, r0, n, source, scratch);
            for (m = 0; m < q.rows; m++) {
                const R *x = w + group * v->o * v->taps + m * q.w_row + ch * q.w_channel;
                R *to = y + (i * q.rows + m) * plane + q.x.first;
                for (k = 0; k < q.taps; k++) taps[k] = x[(q.y.tap0 + k / q.x.taps * q.y.tap_step) * v->kernel[1] + q.x.tap0 + k % q.x.taps * q.x.tap_step];
                for (r = 0; r < n; r++)
                    NN__K(strip_row)(q.x.count, to + (q.y.first + (r0 + r) * q.y.pitch) * width, q.x.pitch, add || ch, bias ? bias[group * q.rows + m] : 0,
                                     q.taps, taps, scratch + r * q.y.step * z.row, at);
            }
        }
    }
}
// sum[m][k] += sum over rows and columns of dy[m] x[at[k]]: in 16 partial sums, whatever the vector width. rows: of dy, `wide` numbers, a
// multiple of 16; planes of dy are dy_plane apart, lines of x x_line, sums of neighbouring m sum_row.
NN__INLINE void NN__K(thin_tile)(int m, int taps, int64_t rows, int64_t wide, const R *dy, int64_t dy_plane, const R *x, int64_t x_line, const int64_t *at, R *sum, int64_t sum_row)
{
    int64_t r, i;
    int e, j, k;
    for (e = 0; e < 16; e += NN__LANES) {
        V acc[4][9], g[4], z;
        NN__UNROLL for (j = 0; j < m; j++) NN__UNROLL for (k = 0; k < taps; k++) acc[j][k] = LOAD(sum + j * sum_row + k * 16 + e);
        for (r = 0; r < rows; r++) for (i = e; i < wide; i += 16) {
            NN__UNROLL for (j = 0; j < m; j++) g[j] = LOAD(dy + j * dy_plane + r * wide + i);
            NN__UNROLL for (k = 0; k < taps; k++) {
                z = LOAD(x + r * x_line + at[k] + i);
                NN__UNROLL for (j = 0; j < m; j++) acc[j][k] = FMA(g[j], z, acc[j][k]);
            }
        }
        NN__UNROLL for (j = 0; j < m; j++) NN__UNROLL for (k = 0; k < taps; k++) STORE(sum + j * sum_row + k * 16 + e, acc[j][k]);
    }
}
// Some rows of dw, few channels: one group over one chunk of the batch.
static void NN__K(conv_thin_dw)(const nn__conv *v, const R *map, const R *image, R *dw, int add, int64_t index, R *part, R *scratch)
{
    nn__dw_cut s = nn__conv_dw_cuts(v);
    nn__gather q = nn__conv_gather(v, 0, 0);
    int64_t wide = (q.x.count + 15) / 16 * 16, tile = v->o == 1 ? 1 : NN__THIN_M, terms = v->c * v->taps, all = nn__thin_rows(v);
    nn__strip z = nn__conv_strip(&q.y, &q.x, NN__STRIP / v->c);
    int64_t chunk = index % s.chunks, block = index / s.chunks % s.blocks, group = index / s.chunks / s.blocks, o0 = block * all, h = nn__min(all, v->o - o0);
    int64_t pixels = q.y.count * q.x.count, at[NN__STRIP_TAPS], line = q.y.step * z.row, plane, b, r0, r, n, m, k, i, c;
    R *dy = scratch + NN__STRIP, *total = dy + NN__STRIP;
    z.rows = nn__max(1, nn__min(z.rows, NN__STRIP / 4 / wide));
    plane = ((z.rows - 1) * q.y.step + z.span) * z.row;
    memset(total, 0, (size_t)(all * terms * 16) * sizeof *total);
    NN__K(strip_taps)(&q, &z, at);
    for (b = chunk * s.images; b < nn__min(v->batch, (chunk + 1) * s.images); b++) for (r0 = 0; r0 < q.y.count; r0 += n) {
        n = nn__min(z.rows, q.y.count - r0);
        for (c = 0; c < v->c; c++)
            NN__K(strip_fill)(&q.y, &q.x, &z, image + ((b * v->groups + group) * v->c + c) * v->image[0] * v->image[1], r0, n, v->groups * v->c * v->image[0] * v->image[1], scratch + c * plane);
        for (m = 0; m < h; m += tile) {
            const R *from = map + ((b * v->groups + group) * v->o + o0 + m) * pixels + r0 * q.x.count;
            memset(dy, 0, (size_t)(tile * n * wide) * sizeof *dy);
            for (i = 0; i < nn__min(tile, h - m); i++) for (r = 0; r < n; r++) {
                for (k = 0; k < q.x.count; k += 16) NN__PREFETCH(from + (i + (v->o == 1 ? v->groups : tile)) * pixels + r * q.x.count + k);
                NN__K(copy_run)(dy + (i * n + r) * wide, from + i * pixels + r * q.x.count, q.x.count, 1);
            }
            for (c = 0; c < v->c; c++) for (k = 0; k < v->taps;) {
                const R *x = scratch + c * plane;
                R *sum = total + (m * terms + c * v->taps + k) * 16;
                int64_t left = v->taps - k;
                if (tile == 1 && left >= 9)  { NN__K(thin_tile)(1, 9, n, wide, dy, 0, x, line, at + k, sum, 0); k += 9; }
                else if (tile == 1 && left >= 3) { NN__K(thin_tile)(1, 3, n, wide, dy, 0, x, line, at + k, sum, 0); k += 3; }
                else if (tile == 1)          { NN__K(thin_tile)(1, 1, n, wide, dy, 0, x, line, at + k, sum, 0); k++; }
                else if (left >= 5 && left % 3) { NN__K(thin_tile)(NN__THIN_M, 5, n, wide, dy, n * wide, x, line, at + k, sum, terms * 16); k += 5; }
                else if (left >= 3)          { NN__K(thin_tile)(NN__THIN_M, 3, n, wide, dy, n * wide, x, line, at + k, sum, terms * 16); k += 3; }
                else                         { NN__K(thin_tile)(NN__THIN_M, 1, n, wide, dy, n * wide, x, line, at + k, sum, terms * 16); k++; }
            }
        }
    }
    if (s.chunks > 1) { dw = part + chunk * s.count; add = 0; }
    dw += (group * v->o + o0) * terms;
    for (m = 0; m < h * terms; m++) {
        R *sum = total + m * 16;
        for (k = 8; k; k /= 2) for (i = 0; i < k; i++) sum[i] += sum[i + k];
        dw[m] = add ? dw[m] + sum[0] : sum[0];
    }
}

// ---- Winograd's transforms: vectors of tiles, or of channels
// r = B^T d: the first of six numbers every `step` vectors.
NN__INLINE void NN__K(wino_b)(const V *d, int step, V *r)
{
    V a = FMA(C(-2), d[2 * step], d[4 * step]), b = C(0.70710678118654752440) * FMA(C(-2), d[step], d[3 * step]);
    V e = FMA(C(-0.5), d[2 * step], d[4 * step]), f = C(1.41421356237309504880) * FMA(C(-0.5), d[step], d[3 * step]);
    r[5 * step] = FMA(C(-2.5), d[3 * step], d[step]) + d[5 * step];  // r may be d
    r[0] = FMA(C(-2.5), d[2 * step], d[0]) + d[4 * step];
    r[step] = a + b;
    r[2 * step] = a - b;
    r[3 * step] = e + f;
    r[4 * step] = e - f;
}
// r = G g, of n = 3 or 4 numbers g.
NN__INLINE void NN__K(wino_g)(const V *g, int n, int step, int to, V *r)
{
    V odd = n == 4 ? g[3 * step] : C(0);
    V a = C(-2.0 / 3) * FMA(C(0.5), g[2 * step], g[0]), b = C(-0.47140452079103168293) * FMA(C(0.5), odd, g[step]);
    V e = C(1.0 / 6) * FMA(C(2), g[2 * step], g[0]), f = C(0.23570226039551584147) * FMA(C(2), odd, g[step]);
    r[0] = g[0];
    r[to] = a + b;
    r[2 * to] = a - b;
    r[3 * to] = e + f;
    r[4 * to] = e - f;
    r[5 * to] = g[(n - 1) * step];
}
// r = A^T m, n = 3 or 4 numbers.
NN__INLINE void NN__K(wino_a)(const V *m, int step, int n, int to, V *r)
{
    V a = m[step] + m[2 * step], b = m[step] - m[2 * step], e = m[3 * step] + m[4 * step], f = m[3 * step] - m[4 * step];
    r[0] = m[0] + a + e;
    r[to] = FMA(C(0.70710678118654752440), b, C(1.41421356237309504880) * f);
    r[2 * to] = FMA(C(0.5), a, C(2) * e);
    if (n == 3) r[2 * to] = r[2 * to] + m[5 * step];
    else r[3 * to] = FMA(C(0.35355339059327376220), b, C(2.82842712474619009760) * f) + m[5 * step];
}
// Tiles side by side, one lane each: `tiles` of them from lane on; then the same again, `count` times, `stride` numbers further on. Of the rows
// and columns that their patches span, y0..y1 and x0..x1 lie inside of the plane; the others stay zero.
typedef struct NN__K(patch) { int64_t at, stride, count, lane, tiles, y0, y1, x0, x1; } NN__K(patch);
static NN__K(patch) NN__K(wino_patch)(int64_t y, int64_t x, int64_t height, int64_t width, int64_t tiles, int n)
{
    NN__K(patch) p;
    p.at = y * width + x;
    p.stride = p.lane = 0;
    p.count = 1;
    p.tiles = tiles;
    p.y0 = nn__max(0, -y); p.y1 = nn__min(n, height - y);
    p.x0 = nn__max(0, -x); p.x1 = nn__min(4 * tiles + n - 4, width - x);
    return p;
}
// What lanes read: numbers 0..3 of a row of their patch, and those 4 further on, of which 4 and 5 matter.
enum { NN__K(wino_lanes) = 32 };
typedef struct NN__K(patches) { R low[6][NN__K(wino_lanes)][4], high[6][NN__K(wino_lanes)][4]; } NN__K(patches);   // a vector at lane 12 fits
static void NN__K(wino_copy)(const NN__K(patch) *p, const R *plane, int64_t width, NN__K(patches) *to)
{
    int64_t low = nn__min(p->x1, 4 * p->tiles) - p->x0, from = nn__max(4, p->x0), high = p->x1 - from, i, l;
    for (i = p->y0; i < p->y1; i++) {
        const R *x = plane + (p->at + i * width);
        R *a = to->low[i][p->lane], *b = to->high[i][p->lane];
        if (p->tiles == 1 && low == 4 && high == 2) for (l = 0; l < p->count; l++, x += p->stride, a += 4, b += 4) { memcpy(a, x, 4 * sizeof *x); memcpy(b, x + 4, 2 * sizeof *x); }
        else for (l = 0; l < p->count; l++, x += p->stride, a += 4, b += 4) {
            NN__K(copy_run)(a + p->x0, x + p->x0, low, 1);
            NN__K(copy_run)(b + from - 4, x + from, high, 1);
        }
    }
}
// The same for tiles side by side whose lanes are `count` planes: what lies in one line of the cache is read together.
enum { NN__K(wino_run) = 4 };
static void NN__K(wino_copy_planes)(const NN__K(patch) *p, int tiles, const R *plane, int64_t width, NN__K(patches) *to)
{
    int64_t i, l;
    int t;
    for (l = 0; l < p->count; l++, plane += p->stride) for (i = p->y0; i < p->y1; i++) for (t = 0; t < tiles; t++) {
        const R *x = plane + (p[t].at + i * width);
        R *a = to[t].low[i][l], *b = to[t].high[i][l];
        int64_t x0 = p[t].x0, x1 = p[t].x1, from = nn__max(4, x0);
        if (t == 0) NN__PREFETCH(x + 4 * p->stride + 8);
        if (x0 == 0 && x1 >= 4) memcpy(a, x, 4 * sizeof *x);
        else NN__K(copy_run)(a + x0, x + x0, nn__min(4, x1) - x0, 1);
        if (x1 == 6 && x0 <= 4) memcpy(b, x + 4, 2 * sizeof *x);
        else NN__K(copy_run)(b + from - 4, x + from, x1 - from, 1);
    }
}
// Four vectors, number by number: r[j] gets numbers j, j + 4, ... of the row that x is; join is the way back.
NN__INLINE void NN__K(split_four)(const R *x, V *r)
{
    V a = LOAD(x), b = LOAD(x + NN__LANES), c = LOAD(x + 2 * NN__LANES), d = LOAD(x + 3 * NN__LANES);
    V e = NN__K(evens)(a, b), f = NN__K(evens)(c, d), g = NN__K(odds)(a, b), h = NN__K(odds)(c, d);
    r[0] = NN__K(evens)(e, f);
    r[1] = NN__K(evens)(g, h);
    r[2] = NN__K(odds)(e, f);
    r[3] = NN__K(odds)(g, h);
}
NN__INLINE void NN__K(join_four)(const V *r, R *x)
{
    V e = NN__K(zip_low)(r[0], r[2]), f = NN__K(zip_high)(r[0], r[2]), g = NN__K(zip_low)(r[1], r[3]), h = NN__K(zip_high)(r[1], r[3]);
    STORE(x, NN__K(zip_low)(e, g));
    STORE(x + NN__LANES, NN__K(zip_high)(e, g));
    STORE(x + 2 * NN__LANES, NN__K(zip_low)(f, h));
    STORE(x + 3 * NN__LANES, NN__K(zip_high)(f, h));
}
// B^T d B of the lanes from l on: 36 vectors, `stride` numbers apart.
NN__INLINE void NN__K(wino_image)(const NN__K(patches) *p, int l, R *to, int64_t stride)
{
    V d[36], t[6];
    int i, j;
    NN__UNROLL for (i = 0; i < 6; i++) {
        NN__K(split_four)(p->low[i][l], d + 6 * i);
        NN__K(split_four)(p->high[i][l], t);
        d[6 * i + 4] = t[0];
        d[6 * i + 5] = t[1];
    }
    NN__UNROLL for (j = 0; j < 6; j++) NN__K(wino_b)(d + j, 6, d + j);
    NN__UNROLL for (i = 0; i < 6; i++) {
        NN__K(wino_b)(d + 6 * i, 1, t);
        NN__UNROLL for (j = 0; j < 6; j++) STORE(to + (6 * i + j) * stride, t[j]);
    }
}
// G g G^T of n x n numbers g: 36 vectors, `stride` numbers apart. Of the last vector of a panel's last row only `some` numbers are stored:
// elsewhere the rest is overwritten by the next row.
NN__INLINE void NN__K(wino_kernel)(const V *g, int n, R *to, int64_t stride, int some)
{
    V s[24], t[6];
    int i, j, k;
    NN__UNROLL for (j = 0; j < n; j++) NN__K(wino_g)(g + j, n, n, n, s + j);
    NN__UNROLL for (i = 0; i < 6; i++) {
        NN__K(wino_g)(s + n * i, n, 1, 1, t);
        if (some >= NN__LANES) NN__UNROLL for (j = 0; j < 6; j++) STORE(to + (6 * i + j) * stride, t[j]);
        else NN__UNROLL for (j = 0; j < 6; j++) {
            R last[NN__LANES];
            STORE(last, t[j]);
            for (k = 0; k < some; k++) to[(6 * i + j) * stride + k] = last[k];
        }
    }
}

// Weights of some rows and channels, as wino_products reads them. Several channels at a time: rows of w may be far apart.
static void NN__K(wino_kernels)(const nn__gather *q, int flip, const R *w, int64_t rows, int64_t channels, R *to, int64_t stride)
{
    enum { some = 8 };
    R g[some][9][16];
    int64_t i, ch, e, j, n;
    int k, l;
    memset(g, 0, sizeof g);
    for (i = 0; i < rows; i += NN__MR) for (ch = 0; ch < channels; ch += some) {
        n = nn__min(some, channels - ch);
        for (j = 0; j < nn__min(NN__MR, rows - i); j++) for (e = 0; e < n; e++) {
            const R *x = w + (i + j) * q->w_row + (ch + e) * q->w_channel;
            NN__UNROLL for (k = 0; k < 9; k++) g[e][k][j] = x[k];
        }
        for (e = 0; e < n; e++) for (l = 0; l < NN__MR; l += NN__LANES) {
            V x[9];
            NN__UNROLL for (k = 0; k < 9; k++) x[k] = LOAD(g[e][flip ? 8 - k : k] + l);
            NN__K(wino_kernel)(x, 3, to + i * channels + (ch + e) * NN__MR + l, stride, ch + e == channels - 1 ? NN__MR - l : NN__LANES);
        }
    }
}
// A task of the packing phase: NN__TILE_ROWS rows of a round, all channels in parts of NN__WINO_K.
static void NN__K(wino_weights)(const nn__conv *v, int spread, const R *w, int64_t round, int64_t index, R *to)
{
    nn__conv_cut s = nn__conv_cuts(v, spread);
    nn__gather q = nn__conv_gather(v, spread, 0);
    int64_t group = index / s.pack_blocks, first = index % s.pack_blocks * NN__TILE_ROWS, row = round * s.lead + first, part;
    to += group * s.panels;
    for (part = 0; part < q.channels; part += NN__WINO_K) {
        int64_t depth = nn__min(NN__WINO_K, q.channels - part), stride = nn__wino_stride(s.lead, depth);
        NN__K(wino_kernels)(&q, spread, w + group * v->o * v->c * 9 + row * q.w_row + part * q.w_channel, nn__min(NN__TILE_ROWS, q.rows - row), depth, to + first * depth, stride);
        to += 36 * stride;
    }
}
// y (+)= A B for each of the 36 matrices: panels of NN__MR rows, of NN__NR columns. Few columns take one vector of a panel.
NN__INLINE void NN__K(wino_tile)(int nv, int add, int64_t k, const R *a, const R *b, R *y, int64_t ldy)
{
    V acc[NN__MR][NN__NV], bv[NN__NV];
    int64_t p;
    int i, j;
    NN__UNROLL for (i = 0; i < NN__MR; i++) NN__UNROLL for (j = 0; j < nv; j++) acc[i][j] = C(0);
    if (add) NN__UNROLL for (i = 0; i < NN__MR; i++) NN__UNROLL for (j = 0; j < nv; j++) acc[i][j] = LOAD(y + i * ldy + j * NN__LANES);
    for (p = 0; p < k; p++, a += NN__MR, b += NN__NR) {
        NN__UNROLL for (j = 0; j < nv; j++) bv[j] = LOAD(b + j * NN__LANES);
        NN__UNROLL for (i = 0; i < NN__MR; i++) NN__UNROLL for (j = 0; j < nv; j++) acc[i][j] = FMA(SET1(a[i]), bv[j], acc[i][j]);
    }
    NN__UNROLL for (i = 0; i < NN__MR; i++) NN__UNROLL for (j = 0; j < nv; j++) STORE(y + i * ldy + j * NN__LANES, acc[i][j]);
}
static void NN__K(wino_products)(int64_t m, int64_t n, int add, int64_t depth, const R *a, int64_t a_stride, const R *b, int64_t b_stride, R *y, int64_t y_stride, int64_t ld)
{
    int64_t i, j;
    int e;
    for (e = 0; e < 36; e++, a += a_stride, b += b_stride, y += y_stride) for (j = 0; j < n; j += NN__NR) {
        if (n - j > NN__LANES) for (i = 0; i < m; i += NN__MR) NN__K(wino_tile)(NN__NV, add, depth, a + i * depth, b + j * depth, y + i * ld + j, ld);
        else for (i = 0; i < m; i += NN__MR) NN__K(wino_tile)(1, add, depth, a + i * depth, b + j * depth, y + i * ld + j, ld);
    }
}
// One block of results: some rows (channels) and NN__WINO_N columns (tiles).
static void NN__K(wino_block)(const nn__conv *v, int spread, const R *a, const R *w, const R *from, const R *bias, R *y, int add, int64_t round, int64_t index, R *scratch)
{
    nn__conv_cut s = nn__conv_cuts(v, spread);
    nn__gather q = nn__conv_gather(v, spread, 0);
    int64_t group = index / s.splits / s.blocks, first = index / s.splits % s.blocks * NN__WINO_N, in_round = index % s.splits * s.rows, row = round * s.lead + in_round;
    int64_t across = (q.x.count + 3) / 4, tiles = across * ((q.y.count + 3) / 4), n = nn__min(NN__WINO_N, v->batch * tiles - first);
    int64_t m = nn__min(nn__min(s.rows, s.lead - in_round), q.rows - row), source = q.y.size * q.x.size, plane = q.y.count * q.x.count, wide, l, r, part, ch;
    int few = s.panels == 0;
    R *mm = scratch, *vv = mm + 36 * nn__wino_stride(s.rows, NN__WINO_N), *uu = vv + 36 * nn__wino_stride(NN__WINO_N, NN__WINO_K / 2);
    NN__K(patch) in[NN__WINO_N], out[NN__WINO_N];
    NN__K(patches) p;
    int64_t runs = 0, low_y = q.y.offset + nn__min(0, 2 * q.y.hop), low_x = q.x.offset + nn__min(0, 2 * q.x.hop);
    R tile[4][NN__WINO_N][4];
    int i, j;
    if (m <= 0) return;
    for (l = 0; l < n; runs++) {
        int64_t b = (first + l) / tiles, ty = (first + l) % tiles / across, tx = (first + l) % across, run = nn__min(across - tx, n - l);
        in[runs] = NN__K(wino_patch)(4 * ty + low_y, 4 * tx + low_x, q.y.size, q.x.size, run, 6);
        in[runs].at += (b * v->groups + group) * q.channels * source;
        in[runs].stride = v->groups * q.channels * source;
        in[runs].count = tiles == 1 ? n : 1;             // a tile is a whole image
        in[runs].lane = l;
        out[runs] = NN__K(wino_patch)(4 * ty, 4 * tx, q.y.count, q.x.count, run, 4);
        out[runs].at += ((b * v->groups + group) * q.rows + row) * plane;
        out[runs].stride = v->groups * q.rows * plane;
        out[runs].count = in[runs].count;
        out[runs].lane = l;
        l += run * in[runs].count;
    }
    memset(&p, 0, sizeof p);
    wide = (n + NN__LANES - 1) / NN__LANES * NN__LANES;
    a += group * s.panels;
    w += group * v->o * v->c * 9 + row * q.w_row;
    for (part = 0; part < q.channels; part += few ? NN__WINO_K / 2 : NN__WINO_K) {
        int64_t depth = nn__min(few ? NN__WINO_K / 2 : NN__WINO_K, q.channels - part);
        const R *ww = few ? uu : a + in_round * depth;
        int64_t stride = nn__wino_stride(few ? s.rows : s.lead, depth);
        if (few) NN__K(wino_kernels)(&q, spread, w + part * q.w_channel, m, depth, uu, stride);
        for (ch = 0; ch < depth; ch++) {
            for (l = 0; l < runs; l++) NN__K(wino_copy)(&in[l], from + (part + ch) * source, q.x.size, &p);
            for (i = 0; i < wide; i += NN__LANES)
                NN__K(wino_image)(&p, i, vv + i / NN__NR * depth * NN__NR + ch * NN__NR + i % NN__NR, nn__wino_stride(depth, NN__WINO_N));
        }
        NN__K(wino_products)(m, wide, part > 0, depth, ww, stride, vv, nn__wino_stride(depth, NN__WINO_N), mm, nn__wino_stride(s.rows, NN__WINO_N), NN__WINO_N);
        a += 36 * stride;
    }
    for (r = 0; r < m; r++, y += plane) {
        R first_term = bias ? bias[group * q.rows + row + r] : 0;
        for (i = 0; i < wide; i += NN__LANES) {
            V t[24], z[4];
            NN__UNROLL for (j = 0; j < 6; j++) {
                V x[6];
                int k;
                NN__UNROLL for (k = 0; k < 6; k++) x[k] = LOAD(mm + (6 * k + j) * nn__wino_stride(s.rows, NN__WINO_N) + r * NN__WINO_N + i);
                NN__K(wino_a)(x, 1, 4, 6, t + j);
            }
            NN__UNROLL for (j = 0; j < 4; j++) {
                int k;
                NN__K(wino_a)(t + 6 * j, 1, 4, 1, z);
                NN__UNROLL for (k = 0; k < 4; k++) z[k] = z[k] + SET1(first_term);
                NN__K(join_four)(z, tile[j][i]);
            }
        }
        for (l = 0; l < runs; l++) for (i = 0; i < out[l].y1; i++) {
            R *to = y + out[l].at + i * q.x.count;
            const R *z = tile[i][out[l].lane];
            for (ch = 0; ch < out[l].count; ch++, to += out[l].stride, z += 4) {
                if (add) for (part = 0; part < out[l].x1; part++) to[part] += z[part];
                else NN__K(copy_run)(to, z, out[l].x1, 1);
            }
        }
    }
}
// One block of dw over one chunk of the batch: rows are channels of the map, columns those of the image, terms are tiles.
static void NN__K(wino_dw)(const nn__conv *v, const R *map, const R *image, R *dw, int add, int64_t index, R *sums, R *scratch)
{
    nn__dw_cut s = nn__conv_dw_cuts(v);
    int64_t chunk = index % s.chunks, block = index / s.chunks % s.blocks, group = index / s.chunks / s.blocks;
    int64_t i0 = block / s.across * NN__WINO_DW_M, j0 = block % s.across * NN__WINO_K, h = nn__min(NN__WINO_DW_M, v->o - i0), w = nn__min(NN__WINO_K, v->c - j0);
    int64_t across = (v->map[1] + 3) / 4, tiles = across * ((v->map[0] + 3) / 4), source = v->image[0] * v->image[1], plane = v->map[0] * v->map[1];
    int64_t t0, t, l, i, j, wide = (w + NN__LANES - 1) / NN__LANES * NN__LANES, begin = chunk * s.images * tiles, end = nn__min(v->batch, (chunk + 1) * s.images) * tiles;
    R *mm = scratch, *vv = mm + 36 * nn__wino_stride(NN__WINO_DW_M, NN__WINO_K), *uu = vv + 36 * nn__wino_stride(NN__WINO_DW_K, NN__WINO_K);
    int k, r, run;
    for (t0 = begin; t0 < end; t0 += NN__WINO_DW_K) {
        int64_t depth = nn__min(NN__WINO_DW_K, end - t0);
        for (t = 0; t < depth; t += run) {
            NN__K(patch) lane[NN__K(wino_run)];
            NN__K(patches) p[NN__K(wino_run)];
            int64_t b = (t0 + t) / tiles * v->groups + group, ty = (t0 + t) % tiles / across * 4, tx = (t0 + t) % across * 4;
            run = (int)nn__min(nn__min(NN__K(wino_run), across - tx / 4), depth - t);
            memset(p, 0, (size_t)run * sizeof *p);
            for (r = 0; r < run; r++) {
                lane[r] = NN__K(wino_patch)(ty - v->pad[0], tx + 4 * r - v->pad[1], v->image[0], v->image[1], 1, 6);
                lane[r].stride = source;
            }
            for (j = 0; j < wide; j += NN__K(wino_lanes)) {
                lane[0].count = nn__min(NN__K(wino_lanes), w - j);
                NN__K(wino_copy_planes)(lane, run, image + (b * v->c + j0 + j) * source, v->image[1], p);
                for (k = 0; k < nn__min(NN__K(wino_lanes), wide - j); k += NN__LANES) for (r = 0; r < run; r++)
                    NN__K(wino_image)(&p[r], k, vv + (j + k) / NN__NR * depth * NN__NR + (t + r) * NN__NR + (j + k) % NN__NR, nn__wino_stride(NN__WINO_K, depth));
            }
            memset(p, 0, (size_t)run * sizeof *p);
            for (r = 0; r < run; r++) {
                lane[r] = NN__K(wino_patch)(ty, tx + 4 * r, v->map[0], v->map[1], 1, 4);
                lane[r].stride = plane;
            }
            for (i = 0; i < h; i += NN__TILE_ROWS) {
                lane[0].count = nn__min(NN__TILE_ROWS, h - i);
                NN__K(wino_copy_planes)(lane, run, map + (b * v->o + i0 + i) * plane, v->map[1], p);
                for (r = 0; r < run; r++) for (l = 0; l < NN__TILE_ROWS; l += NN__MR) for (k = 0; k < NN__MR; k += NN__LANES) {
                    V g[16];
                    int e;
                    NN__UNROLL for (e = 0; e < 4; e++) NN__K(split_four)(p[r].low[e][l + k], g + 4 * e);
                    NN__K(wino_kernel)(g, 4, uu + (i + l) * depth + (t + r) * NN__MR + k, nn__wino_stride(NN__WINO_DW_M, depth), t + r == depth - 1 ? NN__MR - k : NN__LANES);
                }
            }
        }
        NN__K(wino_products)(h, wide, t0 > begin, depth, uu, nn__wino_stride(NN__WINO_DW_M, depth), vv, nn__wino_stride(NN__WINO_K, depth), mm, nn__wino_stride(NN__WINO_DW_M, NN__WINO_K), NN__WINO_K);
    }
    if (begin >= end) memset(mm, 0, (size_t)(36 * nn__wino_stride(NN__WINO_DW_M, NN__WINO_K)) * sizeof *mm);     // a batch of 0
    if (s.chunks > 1) { dw = sums + chunk * s.count; add = 0; }
    dw += ((group * v->o + i0) * v->c + j0) * 9;
    for (i = 0; i < h; i++, dw += v->c * 9) for (j = 0; j < w; j += NN__LANES) {
        R z[9][NN__LANES];
        V t3[18];
        NN__UNROLL for (k = 0; k < 6; k++) {
            V x[6];
            int e;
            NN__UNROLL for (e = 0; e < 6; e++) x[e] = LOAD(mm + (6 * e + k) * nn__wino_stride(NN__WINO_DW_M, NN__WINO_K) + i * NN__WINO_K + j);
            NN__K(wino_a)(x, 1, 3, 6, t3 + k);
        }
        NN__UNROLL for (k = 0; k < 3; k++) {
            V x[3];
            int e;
            NN__K(wino_a)(t3 + 6 * k, 1, 3, 1, x);
            NN__UNROLL for (e = 0; e < 3; e++) STORE(z[3 * k + e], x[e]);
        }
        for (l = 0; l < nn__min(NN__LANES, w - j); l++) for (k = 0; k < 9; k++) { R *to = dw + (j + l) * 9 + k; *to = add ? *to + z[k][l] : z[k][l]; }
    }
}

// The three products, each by tiles or by strips.
static void NN__K(conv_product)(const nn__conv *v, int spread, const nn_call *c, const nn_task *t, const R *from, const R *bias, R *y, int add)
{
    if (nn__conv_wino(v, spread)) NN__K(wino_block)(v, spread, (const R *)c->shared, (const R *)c->in[1].data, from, bias, y, add, t->phase / 2, t->index, (R *)t->scratch);
    else if (nn__conv_direct(v)) NN__K(conv_strips)(v, spread, (const R *)c->in[1].data, from, bias, y, add, t->index, nn__conv_cuts(v, spread).tasks, (R *)t->scratch);
    else NN__K(conv_block)(v, spread, (const R *)c->shared, from, bias, y, add, t->phase / 2, t->index, (R *)t->scratch);
}
static void NN__K(conv_pack)(const nn__conv *v, int spread, const nn_call *c, const nn_task *t)
{
    if (nn__conv_wino(v, spread)) NN__K(wino_weights)(v, spread, (const R *)c->in[1].data, t->phase / 2, t->index, (R *)c->shared);
    else NN__K(conv_weights)(v, spread, (const R *)c->in[1].data, t->phase / 2, t->index, (R *)c->shared);
}
static void NN__K(conv_forward)(const nn_call *c, const nn_task *t)
{
    nn__conv v = nn__conv_sizes(c);
    if (t->phase % 2 == 0) NN__K(conv_pack)(&v, v.transposed, c, t);
    else NN__K(conv_product)(&v, v.transposed, c, t, (const R *)c->in[0].data, (const R *)c->in[2].data, (R *)c->out[0].data, 0);
}
static void NN__K(conv_backward)(const nn_call *c, const nn_task *t)
{
    nn__conv v = nn__conv_sizes(c);
    nn__dw_cut w = nn__conv_dw_cuts(&v);
    int64_t i = t->index, nw = c->din[1].data ? v.groups * w.blocks * w.chunks : 0;
    R *dw = (R *)c->din[1].data, *part = (R *)c->shared;
    const R *x = (const R *)c->in[0].data, *dy = (const R *)c->dout[0].data;
    if (c->din[0].data) {                                // a call of its own: NN_OP_SPLIT
        if (t->phase % 2 == 0) NN__K(conv_pack)(&v, !v.transposed, c, t);
        else NN__K(conv_product)(&v, !v.transposed, c, t, dy, NULL, (R *)c->din[0].data, (int)(c->add & 1));
    }
    else if (t->phase == 1) {
        int64_t begin = nn__task_begin(w.count, t), end = nn__task_end(w.count, t), k;
        for (i = begin; i < end; i++) {
            R sum = 0;
            for (k = 0; k < w.chunks; k++) sum += part[k * w.count + i];
            dw[i] = c->add & 2 ? dw[i] + sum : sum;
        }
    }
    else if (i < nw) {
        const R *map = v.transposed ? x : dy, *image = v.transposed ? dy : x;
        if (nn__wino_dw(&v)) NN__K(wino_dw)(&v, map, image, dw, (int)(c->add >> 1 & 1), i, part, (R *)t->scratch);
        else if (nn__conv_thin(&v)) NN__K(conv_thin_dw)(&v, map, image, dw, (int)(c->add >> 1 & 1), i, part, (R *)t->scratch);
        else                     NN__K(conv_dw)(&v, map, image, dw, (int)(c->add >> 1 & 1), i, part, (R *)t->scratch);
    }
    else {
        nn_view rows = c->dout[0], to;
        int64_t first = (i - nw) * NN__BIAS_COLUMNS, shape[3];
        shape[0] = rows.shape[0]; shape[1] = rows.shape[1]; shape[2] = rows.shape[2] * rows.shape[3];
        nn__set_shape(&rows, rows.dtype, 3, shape);
        to = rows;
        to.data = c->din[2].data;
        to.stride[0] = to.stride[2] = 0;
        to.stride[1] = 1;
        NN__K(sum_to)(&rows, &to, (int)(c->add >> 2 & 1), 1, first, nn__min(rows.shape[1], first + NN__BIAS_COLUMNS));
    }
}
NN__FORWARD(conv2d)            { NN__K(conv_forward)(c, t); }
NN__BACKWARD(conv2d)           { NN__K(conv_backward)(c, t); }
NN__FORWARD(conv_transpose2d)  { NN__K(conv_forward)(c, t); }
NN__BACKWARD(conv_transpose2d) { NN__K(conv_backward)(c, t); }
#endif

// ---- pooling:   y = maximum or mean of x over windows      dx: dy at the maximum, or dy / divisor in the whole window ------------
// Windows are begin, begin + dilation ... < end in each direction; adaptive pooling cuts n pixels into m windows [floor(i n/m), ceil((i+1) n/m)).
#if NN__IN_HOST
typedef struct nn__window { int64_t begin, end, full; } nn__window;             // full: its size with padding, the divisor of a mean
static nn__window nn__pool_window(const nn__pool_params *p, int d, int64_t n, int64_t m, int64_t i)
{
    nn__window w;
    if (p->adaptive) {
        w.begin = i * n / m;
        w.end = ((i + 1) * n + m - 1) / m;
        w.full = w.end - w.begin;
        return w;
    }
    w.begin = i * p->stride[d] - p->pad[d];
    w.end = w.begin + (p->kernel[d] - 1) * p->dilation[d] + 1;
    w.full = nn__min(w.end, n + p->pad[d]) - w.begin;
    w.end = nn__min(w.end, n);
    if (w.begin < 0) w.begin += (-w.begin + p->dilation[d] - 1) / p->dilation[d] * p->dilation[d];
    return w;
}
static int nn__pool_shape(nn_call *c)
{
    const nn__pool_params *p = (const nn__pool_params *)c->params;
    const nn_view *x = &c->in[0];
    int64_t shape[4];
    int d;
    if (x->ndim != 4) { nn_fail(c->nn, "%s: x is (B, C, H, W), not %s", p->name, NN__SHAPE_OF(x)); return 0; }
    shape[0] = x->shape[0];
    shape[1] = x->shape[1];
    for (d = 0; d < 2; d++) {
        int64_t n = x->shape[2 + d], reach = p->dilation[d] * (p->kernel[d] - 1) + 1, room = n + 2 * p->pad[d] - reach;
        shape[2 + d] = p->size[d];
        if (p->adaptive && n > 0) continue;
        if (p->adaptive || room + (p->ceil_mode ? p->stride[d] - 1 : 0) < 0) {
            nn_fail(c->nn, "%s: x %s is smaller than its window", p->name, NN__SHAPE_OF(x));
            return 0;
        }
        shape[2 + d] = room < 0 ? 1 : room / p->stride[d] + 1;
        if (room > 0 && p->ceil_mode && room % p->stride[d] && shape[2 + d] * p->stride[d] < n + p->pad[d]) shape[2 + d]++;  // the last window starts inside
    }
    if (c->op->id == NN_OP_maxpool2d) {
        if (x->shape[2] > INT32_MAX / nn__max(1, x->shape[3])) { nn_fail(c->nn, "%s: x %s has too large planes", p->name, NN__SHAPE_OF(x)); return 0; }
        c->naux = 1;                 // the place of each maximum in its plane
        nn__set_shape(&c->aux[0], NN_I32, 4, shape);
    }
    nn__set_shape(&c->out[0], x->dtype, 4, shape);
    return 1;
}
// A window is the maximum (sum) of its rows, column by column, and then that of its columns. For this the columns of x, padding included,
// are dealt out to `stride` lines, column q to line q % stride at q / stride: the k-th columns of neighbouring windows are neighbours there.
// Scratch of a task: the columns; the lines; and of both the places (maxima), or what divides a mean and its shares.
typedef struct nn__pool_sizes { int64_t columns, line, outs, numbers; } nn__pool_sizes;      // all rounded up, and room for whole vectors
static nn__pool_sizes nn__pool_room(const nn__pool_params *p, int64_t w, int64_t ow)
{
    nn__pool_sizes z;
    z.columns = (w + 47) & ~(int64_t)15;
    z.line = p->adaptive ? 0 : (ow + (p->kernel[1] - 1) * p->dilation[1] / p->stride[1] + 63) & ~(int64_t)15;
    z.outs = (ow + 31) & ~(int64_t)15;
    z.numbers = z.columns + p->stride[1] * z.line + z.outs;
    return z;
}
static void nn__pool_plan(nn_call *c)                    // tasks are some planes
{
    const nn_view *x = &c->in[0], *y = &c->out[0];
    const nn__pool_params *p = (const nn__pool_params *)c->params;
    int64_t window = p->adaptive ? 2 : (p->kernel[0] + p->kernel[1]) / 2;
    c->tasks[0] = nn__task_count(y->shape[0] * y->shape[1], x->shape[2] * x->shape[3] + y->shape[2] * y->shape[3] * nn__min(window, 1 << 20));
    c->task_bytes = nn__mul_size(2 * (size_t)nn__pool_room(p, x->shape[3], y->shape[3]).numbers, nn__real_bytes(c));
}

static nn_tensor *nn__pool_apply(int op, const char *name, int dims, nn_tensor *x, int kernel, const nn_pool_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    nn_pool_desc d;
    nn__pool_params p;
    int i;
    memset(&d, 0, sizeof d);
    memset(&p, 0, sizeof p);
    if (desc) d = *desc;
    if (!nn__check(nn, x, name)) return nn__inert(nn);
    p.name = name;
    p.kernel[0] = kernel;                           p.kernel[1] = nn__int_option(d.kernel_w, kernel);
    p.stride[0] = nn__int_option(d.stride, kernel);     p.stride[1] = nn__int_option(d.stride_w, d.stride ? (int)p.stride[0] : (int)p.kernel[1]);
    p.pad[0] = nn__int_option(d.padding, 0);            p.pad[1] = nn__int_option(d.padding_w, (int)p.pad[0]);
    p.dilation[0] = nn__int_option(d.dilation, 1);      p.dilation[1] = nn__int_option(d.dilation_w, (int)p.dilation[0]);
    p.ceil_mode = d.ceil_mode;
    p.exclude_pad = d.exclude_pad;
    if (dims == 1) {
        if (x->ndim != 3) { nn_fail(nn, "%s: x is (B, C, L), not %s", name, nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
        if (d.kernel_w || d.stride_w || d.padding_w || d.dilation_w) { nn_fail(nn, "%s: a signal has no width: _w options are for images", name); return nn__inert(nn); }
        p.kernel[0] = p.stride[0] = p.dilation[0] = 1;
        p.pad[0] = 0;
        x = nn_unsqueeze(x, 2);
    }
    for (i = 0; i < 2; i++) {
        if (p.kernel[i] < 1 || p.stride[i] < 1 || p.dilation[i] < 1 || p.pad[i] < 0 || p.pad[i] > ((p.kernel[i] - 1) * p.dilation[i] + 1) / 2) {
            nn_fail(nn, "%s: kernel, stride and dilation are at least 1, padding at most half of the kernel", name);
            return nn__inert(nn);
        }
    }
    if (op == NN_OP_avgpool2d ? p.dilation[0] != 1 || p.dilation[1] != 1 : p.exclude_pad) {
        nn_fail(nn, "%s: %s", name, op == NN_OP_avgpool2d ? "means have no .dilation" : ".exclude_pad is for means");
        return nn__inert(nn);
    }
    x = nn__apply1(op, x, &p);
    return dims == 1 ? nn_squeeze(x, 2) : x;
}
static nn_tensor *nn__adaptive_pool(int op, const char *name, int dims, nn_tensor *x, int64_t height, int64_t width)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__pool_params p;
    memset(&p, 0, sizeof p);
    if (!nn__check(nn, x, name)) return nn__inert(nn);
    if (x->ndim != dims + 2) { nn_fail(nn, "%s: x is %s, not %s", name, dims == 1 ? "(B, C, L)" : "(B, C, H, W)", nn__dims_text(x->ndim, x->shape).s); return nn__inert(nn); }
    if (height < 1 || width < 1 || height > INT32_MAX || width > INT32_MAX) { nn_fail(nn, "%s: impossible size %lld x %lld", name, (long long)height, (long long)width); return nn__inert(nn); }
    p.name = name;
    p.adaptive = 1;
    p.kernel[0] = p.kernel[1] = p.stride[0] = p.stride[1] = p.dilation[0] = p.dilation[1] = 1;
    p.size[0] = height; p.size[1] = width;
    x = nn__apply1(op, dims == 1 ? nn_unsqueeze(x, 2) : x, &p);
    return dims == 1 ? nn_squeeze(x, 2) : x;
}
NN_API nn_tensor *nn_maxpool1d(nn_tensor *x, int kernel, const nn_maxpool1d_desc *desc) { return nn__pool_apply(NN_OP_maxpool2d, "maxpool1d", 1, x, kernel, desc); }
NN_API nn_tensor *nn_maxpool2d(nn_tensor *x, int kernel, const nn_maxpool2d_desc *desc) { return nn__pool_apply(NN_OP_maxpool2d, "maxpool2d", 2, x, kernel, desc); }
NN_API nn_tensor *nn_avgpool1d(nn_tensor *x, int kernel, const nn_avgpool1d_desc *desc) { return nn__pool_apply(NN_OP_avgpool2d, "avgpool1d", 1, x, kernel, desc); }
NN_API nn_tensor *nn_avgpool2d(nn_tensor *x, int kernel, const nn_avgpool2d_desc *desc) { return nn__pool_apply(NN_OP_avgpool2d, "avgpool2d", 2, x, kernel, desc); }
NN_API nn_tensor *nn_adaptive_maxpool1d(nn_tensor *x, int64_t length) { return nn__adaptive_pool(NN_OP_maxpool2d, "adaptive_maxpool1d", 1, x, 1, length); }
NN_API nn_tensor *nn_adaptive_avgpool1d(nn_tensor *x, int64_t length) { return nn__adaptive_pool(NN_OP_avgpool2d, "adaptive_avgpool1d", 1, x, 1, length); }
NN_API nn_tensor *nn_adaptive_maxpool2d(nn_tensor *x, int64_t height, int64_t width)
{
    return nn__adaptive_pool(NN_OP_maxpool2d, "adaptive_maxpool2d", 2, x, height, width);
}
NN_API nn_tensor *nn_adaptive_avgpool2d(nn_tensor *x, int64_t height, int64_t width)
{
    return nn__adaptive_pool(NN_OP_avgpool2d, "adaptive_avgpool2d", 2, x, height, width);
}
// (B, C, ...) -> (B, C, N); NULL after an error
static nn_tensor *nn__channel_rows(nn_tensor *x, const char *name)
{
    nn_shape s = nn_shape_of(x);
    if (!nn__check(x ? x->nn : NULL, x, name)) return NULL;
    if (s.ndim < 3) { nn_fail(x->nn, "%s: x is (B, C, ...), not %s", name, nn__dims_text(x->ndim, x->shape).s); return NULL; }
    return nn_flatten(x, 2);
}
NN_API nn_tensor *nn_global_maxpool(nn_tensor *x)
{
    nn_tensor *rows = nn__channel_rows(x, "global_maxpool");
    return rows ? nn_squeeze(nn__adaptive_pool(NN_OP_maxpool2d, "global_maxpool", 1, rows, 1, 1), 2) : nn__inert(x ? x->nn : NULL);
}
NN_API nn_tensor *nn_global_avgpool(nn_tensor *x)
{
    nn_tensor *rows = nn__channel_rows(x, "global_avgpool");
    nn_shape last = nn__shape1(2);
    return rows ? nn_mean(rows, last, NULL) : nn__inert(x ? x->nn : NULL);
}
#endif
#if NN__IN_SIMD
typedef struct NN__K(pooling) {      // a call, opened by one of its tasks
    const nn__pool_params *p;
    int64_t h, w, oh, ow, first, last, in, out;          // planes first .. last - 1; numbers of x, and of y up to the last of these planes
    nn__pool_sizes z;
    R       *column, *line, *divisor, *share;            // scratch
    int32_t *column_at, *line_at;
} NN__K(pooling);
static NN__K(pooling) NN__K(pool_open)(const nn_call *c, const nn_task *t)
{
    NN__K(pooling) o;
    o.p = (const nn__pool_params *)c->params;
    o.h = c->in[0].shape[2]; o.w = c->in[0].shape[3]; o.oh = c->out[0].shape[2]; o.ow = c->out[0].shape[3];
    o.first = nn__task_begin(c->out[0].shape[0] * c->out[0].shape[1], t);
    o.last = nn__task_end(c->out[0].shape[0] * c->out[0].shape[1], t);
    o.in = nn_view_count(&c->in[0]);
    o.out = o.last * o.oh * o.ow;
    o.z = nn__pool_room(o.p, o.w, o.ow);
    o.column = (R *)t->scratch;
    o.line = o.column + o.z.columns;
    o.share = o.line + o.p->stride[1] * o.z.line;
    o.divisor = o.column + o.z.numbers;
    o.column_at = (int32_t *)(void *)o.divisor;
    o.line_at = o.column_at + o.z.columns;
    return o;
}
static void NN__K(pool_deal)(const NN__K(pooling) *o, int places)    // columns to lines. What is behind the columns is padding too
{
    int64_t s = o->p->stride[1], pad = o->p->pad[1], n = o->z.line, i, r;
    R *a = o->line + pad % s * n + pad / s, *b = o->line + (pad + 1) % s * n + (pad + 1) / s;
    int32_t *ia = o->line_at + (a - o->line), *ib = o->line_at + (b - o->line);
    if (s == 1) {
        memcpy(a, o->column, (size_t)o->w * sizeof(R));
        if (places) memcpy(ia, o->column_at, (size_t)o->w * sizeof *ia);
    } else if (s == 2) for (i = 0; 2 * i < o->w; i += NN__LANES) {
        V u = LOAD(o->column + 2 * i), v = LOAD(o->column + 2 * i + NN__LANES);
        STORE(a + i, NN__K(evens)(u, v));
        STORE(b + i, NN__K(odds)(u, v));
        if (places) {
            VI j = NN__K(iload)(o->column_at + 2 * i), k = NN__K(iload)(o->column_at + 2 * i + NN__LANES);
            NN__K(istore)(ia + i, NN__K(ievens)(j, k));
            NN__K(istore)(ib + i, NN__K(iodds)(j, k));
        }
    } else for (r = 0; r < s; r++) for (i = r; i < o->w; i += s) {
        o->line[(pad + r) % s * n + (pad + i) / s] = o->column[i];
        if (places) o->line_at[(pad + r) % s * n + (pad + i) / s] = o->column_at[i];
    }
}
static void NN__K(pool_collect)(const NN__K(pooling) *o)             // lines to columns
{
    int64_t s = o->p->stride[1], pad = o->p->pad[1], n = o->z.line, i, r;
    const R *a = o->line + pad % s * n + pad / s, *b = o->line + (pad + 1) % s * n + (pad + 1) / s;
    if (s == 1) memcpy(o->column, a, (size_t)o->w * sizeof(R));
    else if (s == 2) for (i = 0; 2 * i < o->w; i += NN__LANES) {
        V u = LOAD(a + i), v = LOAD(b + i);
        STORE(o->column + 2 * i, NN__K(zip_low)(u, v));
        STORE(o->column + 2 * i + NN__LANES, NN__K(zip_high)(u, v));
    } else for (r = 0; r < s; r++) for (i = r; i < o->w; i += s) o->column[i] = o->line[(pad + r) % s * n + (pad + i) / s];
}
// Where the k-th columns of windows lie in the lines, for one k after the other.
typedef struct NN__K(pool_tap) { int64_t rest, at; } NN__K(pool_tap);
NN__INLINE void NN__K(pool_next)(const NN__K(pooling) *o, NN__K(pool_tap) *k)
{
    k->rest += o->p->dilation[1];
    for (k->at += o->p->dilation[1] * o->z.line; k->rest >= o->p->stride[1]; k->rest -= o->p->stride[1]) k->at -= o->p->stride[1] * o->z.line - 1;
}

// Maxima: NaN wins; of equals the first. Padding is -inf at place INT32_MAX.
NN__INLINE void NN__K(pool_take)(V *best, VI *place, V v, VI at)
{
    VI m = (VI)((v > *best) | (v != v) | ((v == *best) & (at < *place)));
    *place = NN__K(isel)(m, at, *place);
    *best = SEL(m, v, *best);
}
static void NN__K(pool_max_rows)(const NN__K(pooling) *o, const R *x, int64_t plane, nn__window wy)
{
    int64_t i, y, left = o->in - plane * o->h * o->w;    // a vector may reach into what follows the row
    x += plane * o->h * o->w;
    for (i = 0; i < o->w; i += NN__LANES) {
        int64_t at = wy.begin * o->w + i;
        V best = NN__K(get_lanes)(x + at, left - at);
        VI place = NN__K(count_up)((int32_t)at);
        for (y = wy.begin + o->p->dilation[0]; y < wy.end; y += o->p->dilation[0]) {
            V v = NN__K(get_lanes)(x + y * o->w + i, left - y * o->w - i);
            VI m = (VI)((v > best) | (v != v));
            place = NN__K(isel)(m, NN__K(count_up)((int32_t)(y * o->w + i)), place);
            best = SEL(m, v, best);
        }
        STORE(o->column + i, best);
        NN__K(istore)(o->column_at + i, place);
    }
    for (i = o->w; i < o->w + 2 * NN__LANES; i += NN__LANES) {
        STORE(o->column + i, C(-INFINITY));
        NN__K(istore)(o->column_at + i, NN__K(count_up)(0) * 0 + INT32_MAX);
    }
}
NN__FORWARD(maxpool2d)
{
    NN__K(pooling) o = NN__K(pool_open)(c, t);
    int64_t i, k, oy, ox, left, pads = o.p->stride[1] * o.z.line;
    NN__K(fill_with)(o.z.columns + pads, o.column, (R)-INFINITY);
    for (i = 0; i < o.z.columns + pads; i++) o.column_at[i] = INT32_MAX;
    for (i = o.first; i < o.last; i++) for (oy = 0; oy < o.oh; oy++) {
        R *y = (R *)c->out[0].data + (i * o.oh + oy) * o.ow;
        int32_t *at = c->aux[0].data ? (int32_t *)c->aux[0].data + (i * o.oh + oy) * o.ow : NULL;
        nn__window wy = nn__pool_window(o.p, 0, o.h, o.oh, oy);
        if (wy.begin >= wy.end) {
            NN__K(fill_with)(o.ow, y, (R)-INFINITY);
            for (ox = 0; at && ox < o.ow; ox++) at[ox] = -1;
            continue;
        }
        NN__K(pool_max_rows)(&o, (const R *)c->in[0].data, i, wy);
        if (!o.p->adaptive) NN__K(pool_deal)(&o, 1);
        for (ox = 0; !o.p->adaptive && ox < o.ow; ox += NN__LANES) {
            NN__K(pool_tap) tap = { 0, ox };
            V best = LOAD(o.line + tap.at);
            VI place = NN__K(iload)(o.line_at + tap.at);
            for (k = 1; k < o.p->kernel[1]; k++) {
                NN__K(pool_next)(&o, &tap);
                NN__K(pool_take)(&best, &place, LOAD(o.line + tap.at), NN__K(iload)(o.line_at + tap.at));
            }
            left = o.out - (i * o.oh + oy) * o.ow - ox;  // what follows the row is written later
            place = NN__K(isel)((VI)(place == INT32_MAX), place * 0 - 1, place);
            NN__K(put_lanes)(y + ox, best, left);
            if (!at) continue;
            if (left >= NN__LANES) NN__K(istore)(at + ox, place);
            else {
                int32_t part[NN__LANES];
                NN__K(istore)(part, place);
                memcpy(at + ox, part, (size_t)left * sizeof *part);
            }
        }
        for (ox = 0; o.p->adaptive && ox < o.ow; ox++) {
            nn__window wx = nn__pool_window(o.p, 1, o.w, o.ow, ox);
            int64_t best = wx.begin;
            for (k = wx.begin + 1; k < wx.end; k++) {
                R v = o.column[k], b = o.column[best];
                if (v > b || v != v || (v == b && o.column_at[k] < o.column_at[best])) best = k;
            }
            y[ox] = o.column[best];
            if (at) at[ox] = o.column_at[best];
        }
    }
}
NN__BACKWARD(maxpool2d)
{
    int64_t in = c->in[0].shape[2] * c->in[0].shape[3], out = c->out[0].shape[2] * c->out[0].shape[3], planes = c->out[0].shape[0] * c->out[0].shape[1], i, j;
    for (i = nn__task_begin(planes, t); i < nn__task_end(planes, t); i++) {
        const R *dy = (const R *)c->dout[0].data + i * out;
        const int32_t *where = (const int32_t *)c->aux[0].data + i * out;
        R *dx = (R *)c->din[0].data + i * in;
        if (!(c->add & 1)) memset(dx, 0, (size_t)in * sizeof *dx);
        for (j = 0; j < out; j++) if (where[j] >= 0) dx[where[j]] += dy[j];
    }
}

// Means. The divisor is what the window has of rows times what it has of columns.
static void NN__K(pool_counts)(const NN__K(pooling) *o)
{
    int64_t ox;
    for (ox = 0; ox < o->z.outs; ox++) o->divisor[ox] = o->share[ox] = 0;
    for (ox = 0; ox < o->ow; ox++) {
        nn__window wx = nn__pool_window(o->p, 1, o->w, o->ow, ox);
        o->divisor[ox] = (R)(o->p->exclude_pad ? nn__max(0, wx.end - wx.begin) : wx.full);
    }
}
NN__INLINE V NN__K(pool_share)(const NN__K(pooling) *o, nn__window wy, int64_t ox, V sum)
{
    V d = LOAD(o->divisor + ox) * SET1((R)(o->p->exclude_pad ? nn__max(0, wy.end - wy.begin) : wy.full));
    return SEL(d > C(0), sum / d, C(0));
}
NN__FORWARD(avgpool2d)
{
    NN__K(pooling) o = NN__K(pool_open)(c, t);
    int64_t i, j, k, oy, ox;
    NN__K(pool_counts)(&o);
    NN__K(fill_with)(o.z.columns + o.p->stride[1] * o.z.line, o.column, 0);
    for (i = o.first; i < o.last; i++) for (oy = 0; oy < o.oh; oy++) {
        const R *x = (const R *)c->in[0].data + i * o.h * o.w;
        R *y = (R *)c->out[0].data + (i * o.oh + oy) * o.ow;
        nn__window wy = nn__pool_window(o.p, 0, o.h, o.oh, oy);
        for (j = 0; j < o.w; j += NN__LANES) {           // as above, vectors may reach beyond the row
            V sum = C(0);
            for (k = wy.begin; k < wy.end; k++) sum = sum + NN__K(get_lanes)(x + k * o.w + j, o.in - (i * o.h + k) * o.w - j);
            STORE(o.column + j, sum);
        }
        for (j = o.w; j < o.w + 2 * NN__LANES; j += NN__LANES) STORE(o.column + j, C(0));
        if (!o.p->adaptive) NN__K(pool_deal)(&o, 0);
        else for (ox = 0; ox < o.ow; ox++) {
            nn__window wx = nn__pool_window(o.p, 1, o.w, o.ow, ox);
            for (k = wx.begin, o.share[ox] = 0; k < wx.end; k++) o.share[ox] += o.column[k];
        }
        for (ox = 0; ox < o.ow; ox += NN__LANES) {
            NN__K(pool_tap) tap = { 0, ox };
            V sum = o.p->adaptive ? LOAD(o.share + ox) : LOAD(o.line + ox);
            for (k = 1; !o.p->adaptive && k < o.p->kernel[1]; k++) {
                NN__K(pool_next)(&o, &tap);
                sum = sum + LOAD(o.line + tap.at);
            }
            NN__K(put_lanes)(y + ox, NN__K(pool_share)(&o, wy, ox, sum), o.out - (i * o.oh + oy) * o.ow - ox);
        }
    }
}
NN__BACKWARD(avgpool2d)
{
    NN__K(pooling) o = NN__K(pool_open)(c, t);
    int64_t i, k, oy, ox;
    NN__K(pool_counts)(&o);
    for (i = o.first; i < o.last; i++) {
        R *dx = (R *)c->din[0].data + i * o.h * o.w;
        if (!(c->add & 1)) memset(dx, 0, (size_t)(o.h * o.w) * sizeof *dx);
        for (oy = 0; oy < o.oh; oy++) {
            const R *dy = (const R *)c->dout[0].data + (i * o.oh + oy) * o.ow;
            nn__window wy = nn__pool_window(o.p, 0, o.h, o.oh, oy);
            NN__K(pool_tap) tap = { 0, 0 };
            for (ox = 0; ox < o.ow; ox += NN__LANES) STORE(o.share + ox, NN__K(pool_share)(&o, wy, ox, NN__K(get_lanes)(dy + ox, o.ow - ox)));
            if (o.p->adaptive) {
                NN__K(fill_with)(o.w, o.column, 0);
                for (ox = 0; ox < o.ow; ox++) {
                    nn__window wx = nn__pool_window(o.p, 1, o.w, o.ow, ox);
                    for (k = wx.begin; k < wx.end; k++) o.column[k] += o.share[ox];
                }
            } else {
                NN__K(fill_with)(o.p->stride[1] * o.z.line, o.line, 0);
                for (k = 0; k < o.p->kernel[1]; k++, NN__K(pool_next)(&o, &tap)) NN__K(add_onto)(o.ow, o.line + tap.at, o.share);
                NN__K(pool_collect)(&o);
            }
            for (k = wy.begin; k < wy.end; k++) NN__K(add_onto)(o.w, dx + k * o.w, o.column);
        }
    }
}
#endif

// ---- upsample:   y(i) = x(floor(i n/m)), or between two neighbours of x at  (i + 1/2) n/m - 1/2  or, corners aligned,  i (n-1)/(m-1) --
#if NN__IN_HOST
typedef struct nn__between { int64_t a, b; double share; } nn__between;         // (1 - share) x(a) + share x(b)
static nn__between nn__upsample_at(const nn__upsample_params *p, int64_t n, int64_t m, int64_t i)
{
    nn__between r;
    double at;
    r.a = r.b = i * n / m;
    r.share = 0;
    if (!p->bilinear) return r;
    at = p->align_corners ? (m > 1 ? (double)i * (double)(n - 1) / (double)(m - 1) : 0) : ((double)i + 0.5) * (double)n / (double)m - 0.5;
    if (at < 0) at = 0;
    r.a = nn__min((int64_t)at, n - 1);
    r.b = nn__min(r.a + 1, n - 1);
    r.share = at - (double)r.a;
    return r;
}
static int nn__upsample_shape(nn_call *c)
{
    const nn__upsample_params *p = (const nn__upsample_params *)c->params;
    const nn_view *x = &c->in[0];
    int64_t shape[4];
    if (x->ndim != 4 || !x->shape[2] || !x->shape[3]) { nn_fail(c->nn, "upsample: x is (B, C, H, W) or (B, C, L) with pixels, not %s", NN__SHAPE_OF(x)); return 0; }
    shape[0] = x->shape[0]; shape[1] = x->shape[1];
    shape[2] = p->size[0];  shape[3] = p->size[1];
    nn__set_shape(&c->out[0], x->dtype, 4, shape);
    return 1;
}
static void nn__upsample_plan(nn_call *c)                // phase 0: where each row and column of y comes from
{
    const nn_view *y = &c->out[0];
    c->phases = 2;
    c->tasks[0] = 1;
    c->tasks[1] = nn__task_count(y->shape[0] * y->shape[1], 4 * (y->shape[2] * y->shape[3] + c->in[0].shape[2] * c->in[0].shape[3]));
    c->shared_bytes = (size_t)(y->shape[2] + y->shape[3]) * sizeof(nn__between);
}
NN_API nn_tensor *nn_upsample(nn_tensor *x, int64_t height, int64_t width, const nn_upsample_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__upsample_params p;
    int signal;
    memset(&p, 0, sizeof p);
    if (!nn__check(nn, x, "upsample")) return nn__inert(nn);
    signal = x->ndim == 3;
    p.size[0] = height; p.size[1] = width;
    p.bilinear = desc && desc->bilinear;
    p.align_corners = desc && desc->align_corners;
    if (height < 1 || width < 1 || height > INT32_MAX || width > INT32_MAX || (signal && height != 1)) {
        nn_fail(nn, "upsample: impossible size %lld x %lld for %s", (long long)height, (long long)width, nn__dims_text(x->ndim, x->shape).s);
        return nn__inert(nn);
    }
    if (p.align_corners && !p.bilinear) { nn_fail(nn, "upsample: .align_corners is for .bilinear"); return nn__inert(nn); }
    x = nn__apply1(NN_OP_upsample, signal ? nn_unsqueeze(x, 2) : x, &p);
    return signal ? nn_squeeze(x, 2) : x;
}
#endif
#if NN__IN_PLAIN
static void NN__K(resample)(const nn_call *c, const nn_task *t, int back)
{
    const nn__upsample_params *p = (const nn__upsample_params *)c->params;
    int64_t h = c->in[0].shape[2], w = c->in[0].shape[3], oh = c->out[0].shape[2], ow = c->out[0].shape[3], planes = c->out[0].shape[0] * c->out[0].shape[1];
    nn__between *rows = (nn__between *)c->shared, *columns = rows + oh;
    int64_t i, oy, ox;
    if (t->phase == 0) {
        for (i = 0; i < oh; i++) rows[i] = nn__upsample_at(p, h, oh, i);
        for (i = 0; i < ow; i++) columns[i] = nn__upsample_at(p, w, ow, i);
        return;
    }
    for (i = nn__task_begin(planes, t); i < nn__task_end(planes, t); i++) {
        const R *x = back ? NULL : (const R *)c->in[0].data + i * h * w;
        R *y = (R *)(back ? c->dout[0].data : c->out[0].data) + i * oh * ow, *dx = back ? (R *)c->din[0].data + i * h * w : NULL;
        if (back && !(c->add & 1)) memset(dx, 0, (size_t)(h * w) * sizeof *dx);
        for (oy = 0; oy < oh; oy++, y += ow) {
            int64_t a = rows[oy].a * w, b = rows[oy].b * w;
            R sy = (R)rows[oy].share, ry = 1 - sy;
            for (ox = 0; ox < ow; ox++) {
                int64_t l = columns[ox].a, r = columns[ox].b;
                R sx = (R)columns[ox].share, rx = 1 - sx;
                if (!p->bilinear) {
                    if (back) dx[a + l] += y[ox];
                    else y[ox] = x[a + l];
                } else if (back) {
                    dx[a + l] += ry * rx * y[ox];
                    dx[a + r] += ry * sx * y[ox];
                    dx[b + l] += sy * rx * y[ox];
                    dx[b + r] += sy * sx * y[ox];
                } else y[ox] = ry * (rx * x[a + l] + sx * x[a + r]) + sy * (rx * x[b + l] + sx * x[b + r]);
            }
        }
    }
}
NN__FORWARD(upsample)  { NN__K(resample)(c, t, 0); }
NN__BACKWARD(upsample) { NN__K(resample)(c, t, 1); }
#endif

// ---- losses ---------------------------------------------------------------------------------------------
// l is the loss of one element or one row. NN_MEAN divides their sum by their number, NN_SUM does not, NN_NONE keeps them apart.
#if NN__IN_HOST
enum { NN__L_WEIGHT = 1, NN__L_POS_WEIGHT = 2, NN__L_SMOOTHING = 4, NN__L_IGNORE = 8, NN__L_TEMPERATURE = 16, NN__L_MARGIN = 32, NN__L_DELTA = 64, NN__L_P = 128 };
enum { NN__LOSS_CHUNK = 4096, NN__CLASS_COLUMNS = 64 };

static int nn__loss_misses(nn_context *nn, const char *op, unsigned reads, unsigned bit, int set, const char *option)
{
    if (!set || (reads & bit)) return 0;
    nn_fail(nn, "%s: the option .%s does not apply", op, option);
    return 1;
}
// Reduction and options; an option that this loss does not have is an error rather than ignored.
static int nn__loss_options(nn_context *nn, const char *op, const nn_loss_desc *d, unsigned reads, nn__loss_params *p)
{
    memset(p, 0, sizeof *p);
    p->ignore = -100;
    if (!d) return nn_ok(nn);
    p->reduction = (int)d->reduction;
    p->smoothing = nn__option(d->label_smoothing, 0);
    if (d->ignore_index) p->ignore = d->ignore_index == NN_ZERO ? 0 : d->ignore_index;
    if ((unsigned)p->reduction > NN_NONE) { nn_fail(nn, "%s: reduction %d is none of NN_MEAN, NN_SUM, NN_NONE", op, p->reduction); return 0; }
    if (!(p->smoothing >= 0 && p->smoothing <= 1)) { nn_fail(nn, "%s: label_smoothing %g is not in 0..1", op, p->smoothing); return 0; }
    return !nn__loss_misses(nn, op, reads, NN__L_WEIGHT,      d->weight != NULL,         "weight")
        && !nn__loss_misses(nn, op, reads, NN__L_POS_WEIGHT,  d->pos_weight != NULL,     "pos_weight")
        && !nn__loss_misses(nn, op, reads, NN__L_SMOOTHING,   d->label_smoothing != 0,   "label_smoothing")
        && !nn__loss_misses(nn, op, reads, NN__L_IGNORE,      d->ignore_index != 0,      "ignore_index")
        && !nn__loss_misses(nn, op, reads, NN__L_TEMPERATURE, d->temperature != 0,       "temperature")
        && !nn__loss_misses(nn, op, reads, NN__L_MARGIN,      d->margin != 0,            "margin")
        && !nn__loss_misses(nn, op, reads, NN__L_DELTA,       d->delta != 0,             "delta")
        && !nn__loss_misses(nn, op, reads, NN__L_P,           d->p != 0,                 "p") && nn_ok(nn);
}
static nn_tensor *nn__reduce_loss(nn_tensor *l, const nn__loss_params *p)          // for losses composed of other ops
{
    nn_shape all;
    memset(&all, 0, sizeof all);
    return p->reduction == NN_NONE ? l : p->reduction == NN_SUM ? nn_sum(l, all, NULL) : nn_mean(l, all, NULL);
}
// Broadcasting is refused: (B, 1) against (B) would silently give a (B, B) loss.
static int nn__same_shapes(nn_context *nn, const char *op, const nn_view *a, const nn_view *b)
{
    if (nn__same_dims(a, b)) return 1;
    nn_fail(nn, "%s: shapes must be equal: %s and %s", op, NN__SHAPE_OF(a), NN__SHAPE_OF(b));
    return 0;
}
static void nn__reduced_loss_plan(nn_call *c, int64_t items, int64_t cost, int64_t partials)   // phase 0: items, phase 1: their sum
{
    c->tasks[0] = nn__task_count(items, cost);
    if (c->pass == NN_BACKWARD) return;
    c->phases = 2;
    c->tasks[1] = 1;
    c->shared_bytes = (size_t)partials * nn__real_bytes(c);
}
#endif
#if NN__IN_SIMD
// y[i] = f(v, k): v[j] is in[j][i], k[j] the scalar p[j].
NN__INLINE void NN__K(map)(int64_t n, R *y, const R *const *in, int nin, const R *p, int np, V (*f)(const V *v, const V *k))
{
    V v[6], k[6];
    int64_t i;
    int j;
    NN__UNROLL for (j = 0; j < np; j++) k[j] = SET1(p[j]);
    for (i = 0; i + NN__LANES <= n; i += NN__LANES) {
        NN__UNROLL for (j = 0; j < nin; j++) v[j] = LOAD(in[j] + i);
        STORE(y + i, f(v, k));
    }
    if (i == n) return;
    NN__UNROLL for (j = 0; j < nin; j++) v[j] = NN__K(load_part)(in[j] + i, n - i);
    NN__K(store_part)(y + i, f(v, k), n - i);
}
// Long sums: element i goes to lane i % 16, whatever the vector width; lane_sum adds the lanes as a tree.
static void NN__K(add_lanes)(R *lane, int64_t n, const R *x)
{
    int64_t i = 0;
    int k;
#if NN__LANES > 1
    V v[16 / NN__LANES];
    NN__UNROLL for (k = 0; k < 16 / NN__LANES; k++) v[k] = LOAD(lane + k * NN__LANES);
    for (; i + 16 <= n; i += 16) NN__UNROLL for (k = 0; k < 16 / NN__LANES; k++) v[k] += LOAD(x + i + k * NN__LANES);
    NN__UNROLL for (k = 0; k < 16 / NN__LANES; k++) STORE(lane + k * NN__LANES, v[k]);
#else
    for (; i + 16 <= n; i += 16) for (k = 0; k < 16; k++) lane[k] += x[i + k];
#endif
    for (k = 0; i + k < n; k++) lane[k] += x[i + k];
}
static R NN__K(lane_sum)(R *lane)
{
    int i, k;
    for (k = 8; k; k /= 2) for (i = 0; i < k; i++) lane[i] += lane[i + k];
    return lane[0];
}
static R NN__K(long_sum)(int64_t n, const R *x)          // chunks, then the sums of chunks
{
    R total[16] = { 0 };
    int64_t i;
    if (n == 1) return x[0] + 0;     // what the sums below would give
    for (i = 0; i < n; i += NN__LOSS_CHUNK) {
        R lane[16] = { 0 };
        int k;
        NN__K(add_lanes)(lane, nn__min(NN__LOSS_CHUNK, n - i), x + i);
        for (k = 0; k < 16; k++) total[k] += lane[k];
    }
    return NN__K(lane_sum)(total);
}
#endif

// ---- losses of single elements: one row is the whole loss.   x prediction, t target, w weight, q pos_weight, p delta or margin ----
// binary_cross_entropy is  -w (q t log s(x) + (1 - t) log(1 - s(x))),  s the sigmoid. As -log s(x) = softplus(-x) and
// -log(1 - s(x)) = softplus(x), nothing overflows or cancels.
#if NN__IN_HOST
static int nn__pair_loss_shape(nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    int i;
    for (i = 1; i < c->nin; i++) if ((i == 1 || c->in[i].ndim) && !nn__same_shapes(c->nn, c->op->name, &c->in[0], &c->in[i])) return 0;
    nn__set_shape(&c->out[0], c->in[0].dtype, p->reduction == NN_NONE ? c->in[0].ndim : 0, c->in[0].shape);
    return 1;
}
static void nn__pair_loss_plan(nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    int64_t n = nn_view_count(&c->in[0]), chunks = (n + NN__LOSS_CHUNK - 1) / NN__LOSS_CHUNK;
    if (c->pass == NN_FORWARD && p->reduction != NN_NONE) nn__reduced_loss_plan(c, chunks, 8 * NN__LOSS_CHUNK, chunks);
    else c->tasks[0] = nn__task_count(n, 16);
}
static nn_tensor *nn__pair_loss(int op, nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc, unsigned reads, double option)
{
    nn_context *nn = x ? x->nn : NULL;
    const char *name = nn__op(op)->name;
    nn_tensor *in[4];
    nn__loss_params p;
    if (!nn__check(nn, x, name) || !nn__check(nn, target, name) || !nn__loss_options(nn, name, desc, reads, &p)) return nn__inert(nn);
    p.p = option;
    in[0] = x; in[1] = target; in[2] = in[3] = NULL;
    if (desc && desc->weight)     in[2] = nn_expand(nn_detach(desc->weight), nn_shape_of(x));      // constants: no gradient
    if (desc && desc->pos_weight) in[3] = nn_expand(nn_detach(desc->pos_weight), nn_shape_of(x));
    if ((in[2] && nn__dead(in[2])) || (in[3] && nn__dead(in[3]))) return nn__inert(nn);
    return nn_apply_n(nn, nn__op(op), in, nn__op(op)->inputs, &p, NULL);
}
NN_API nn_tensor *nn_mse(nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc) { return nn__pair_loss(NN_OP_mse, x, target, desc, 0, 0); }
NN_API nn_tensor *nn_l1 (nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc) { return nn__pair_loss(NN_OP_l1, x, target, desc, 0, 0); }
NN_API nn_tensor *nn_huber(nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc)
{
    return nn__pair_loss(NN_OP_huber, x, target, desc, NN__L_DELTA, nn__option(desc ? desc->delta : 0, 1));
}
NN_API nn_tensor *nn_smooth_l1(nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc)
{
    return nn__pair_loss(NN_OP_smooth_l1, x, target, desc, NN__L_DELTA, nn__option(desc ? desc->delta : 0, 1));
}
NN_API nn_tensor *nn_binary_cross_entropy(nn_tensor *logits, nn_tensor *target, const nn_loss_desc *desc)
{
    return nn__pair_loss(NN_OP_binary_cross_entropy, logits, target, desc, NN__L_WEIGHT | NN__L_POS_WEIGHT, 0);
}
#endif
#if NN__IN_SIMD
//         name                  l                                                              dl/dx                       dl/dt
#define NN__PAIR_LOSSES(NN__X) \
    NN__X( mse,                  (x - t) * (x - t),                                             C(2) * (x - t),             C(-2) * (x - t)           ) \
    NN__X( l1,                   ABS(x - t),                                                    NN__K(sign_of)(x - t),      NN__K(sign_of)(t - x)     ) \
    NN__X( huber,                SEL(ABS(x - t) < p, C(0.5) * (x - t) * (x - t), p * (ABS(x - t) - C(0.5) * p)),                                        \
                                 NN__K(within)(x - t, p),                                       NN__K(within)(t - x, p)                               ) \
    NN__X( smooth_l1,            SEL(ABS(x - t) < p, C(0.5) * (x - t) * (x - t) / p, ABS(x - t) - C(0.5) * p),                                          \
                                 SEL(ABS(x - t) < p, (x - t) / p, NN__K(sign_of)(x - t)),       SEL(ABS(x - t) < p, (t - x) / p, NN__K(sign_of)(t - x)) ) \
    NN__X( hinge,                SEL(p - t * x < C(0), C(0), p - t * x),                        SEL(p - t * x > C(0), -t, C(0)), SEL(p - t * x > C(0), -x, C(0)) ) \
    NN__X( binary_cross_entropy, w * NN__K(bce)(x, q * t, C(1) - t),                                                                                    \
                                 w * ((C(1) - t) * SIGMOID(x) - q * t * SIGMOID(-x)),           w * NN__K(bce)(x, q, C(-1))                           )
NN__INLINE V NN__K(sign_of)(V d)       { return SEL(d > C(0), C(1), SEL(d < C(0), C(-1), d)); }
NN__INLINE V NN__K(within)(V d, V p)   { return SEL(d < -p, -p, SEL(d > p, p, d)); }
NN__INLINE V NN__K(bce)(V x, V yes, V no)                // yes softplus(-x) + no softplus(x), which share log(1 + e^-|x|)
{
    V rest = LOG1P(EXP(-ABS(x)));
    return yes * (SEL(x < C(0), -x, C(0)) + rest) + no * (SEL(x > C(0), x, C(0)) + rest);
}

// Blocks of all operands, so that a formula sees contiguous rows: in[] is x, t, w, q, dy.
typedef struct NN__K(pair) { const R *x, *t, *w, *q; R p; R ones[NN__K(block)]; } NN__K(pair);
static void NN__K(pair_open)(NN__K(pair) *o, const nn_call *c)
{
    NN__K(fill_with)(nn__min(NN__K(block), nn_view_count(&c->in[0])), o->ones, 1);
    o->x = (const R *)c->in[0].data;
    o->t = (const R *)c->in[1].data;
    o->w = c->nin > 2 ? (const R *)c->in[2].data : NULL;
    o->q = c->nin > 3 ? (const R *)c->in[3].data : NULL;
    o->p = (R)((const nn__loss_params *)c->params)->p;
}
static void NN__K(pair_block)(const NN__K(pair) *o, int64_t i, int64_t n, R *y, const R *dy, NN__K(row) f)
{
    const R *in[5];
    in[0] = o->x + i; in[1] = o->t + i;
    in[2] = o->w ? o->w + i : o->ones;
    in[3] = o->q ? o->q + i : o->ones;
    in[4] = dy ? dy : o->ones;
    f(n, y, in, &o->p);
}
static void NN__K(pair_loss_fwd)(const nn_call *c, const nn_task *t, NN__K(row) f)
{
    int reduction = ((const nn__loss_params *)c->params)->reduction;
    int64_t n = nn_view_count(&c->in[0]), chunks = (n + NN__LOSS_CHUNK - 1) / NN__LOSS_CHUNK, i, end, k;
    R *y = (R *)c->out[0].data, *part = (R *)c->shared, value[NN__K(block)];
    NN__K(pair) o;
    NN__K(pair_open)(&o, c);
    if (reduction == NN_NONE) {
        end = nn__task_end(n, t);
        for (i = nn__task_begin(n, t); i < end; i += NN__K(block)) NN__K(pair_block)(&o, i, nn__min(end - i, NN__K(block)), y + i, NULL, f);
    } else if (t->phase == 0) for (k = nn__task_begin(chunks, t); k < nn__task_end(chunks, t); k++) {
        R lane[16] = { 0 };
        end = nn__min(n, (k + 1) * NN__LOSS_CHUNK);
        for (i = k * NN__LOSS_CHUNK; i < end; i += NN__K(block)) {
            NN__K(pair_block)(&o, i, nn__min(end - i, NN__K(block)), value, NULL, f);
            NN__K(add_lanes)(lane, nn__min(end - i, NN__K(block)), value);
        }
        part[k] = NN__K(lane_sum)(lane);
    } else y[0] = NN__K(long_sum)(chunks, part) / (reduction == NN_MEAN ? (R)n : 1);
}
static void NN__K(pair_loss_bwd)(const nn_call *c, const nn_task *t, NN__K(row) df, NN__K(row) dg)
{
    int reduction = ((const nn__loss_params *)c->params)->reduction, side;
    int64_t n = nn_view_count(&c->in[0]), i, end = nn__task_end(n, t);
    const R *dy = (const R *)c->dout[0].data;
    R g[NN__K(block)], value[NN__K(block)];
    NN__K(pair) o;
    NN__K(pair_open)(&o, c);
    if (reduction != NN_NONE) NN__K(fill_with)(nn__min(NN__K(block), n), g, reduction == NN_MEAN ? dy[0] / (R)n : dy[0]);
    for (side = 0; side < 2; side++) {
        R *dx = (R *)c->din[side].data;
        int add = (int)(c->add >> side & 1);
        for (i = nn__task_begin(n, t); dx && i < end; i += NN__K(block)) {
            int64_t m = nn__min(end - i, NN__K(block));
            NN__K(pair_block)(&o, i, m, add ? value : dx + i, reduction == NN_NONE ? dy + i : g, side ? dg : df);
            if (add) NN__K(add_onto)(m, dx + i, value);
        }
    }
}
#define NN__PAIR_NAMES const V x = v[0], t = v[1], w = v[2], q = v[3], p = k[0]; (void)x; (void)t; (void)w; (void)q; (void)p
#define NN__X(name, f, dx, dt) \
    NN__INLINE V NN__K(name##_f)(const V *v, const V *k)  { NN__PAIR_NAMES; return f; } \
    NN__INLINE V NN__K(name##_dx)(const V *v, const V *k) { NN__PAIR_NAMES; return v[4] * (dx); } \
    NN__INLINE V NN__K(name##_dt)(const V *v, const V *k) { NN__PAIR_NAMES; return v[4] * (dt); } \
    static void NN__K(name##_row)(int64_t n, R *y, const R *const *in, const R *p)   { NN__K(map)(n, y, in, 4, p, 1, NN__K(name##_f)); } \
    static void NN__K(name##_dxrow)(int64_t n, R *y, const R *const *in, const R *p) { NN__K(map)(n, y, in, 5, p, 1, NN__K(name##_dx)); } \
    static void NN__K(name##_dtrow)(int64_t n, R *y, const R *const *in, const R *p) { NN__K(map)(n, y, in, 5, p, 1, NN__K(name##_dt)); } \
    NN__FORWARD(name)  { NN__K(pair_loss_fwd)(c, t, NN__K(name##_row)); } \
    NN__BACKWARD(name) { NN__K(pair_loss_bwd)(c, t, NN__K(name##_dxrow), NN__K(name##_dtrow)); }
NN__PAIR_LOSSES(NN__X)
#undef NN__X
#undef NN__PAIR_NAMES
#undef NN__PAIR_LOSSES
#endif

// ---- cross_entropy:   l = sum over classes c of  w_c t_c (-log p_c),   log p_c = x_c - m - log sum exp(x - m),  m = max x --------
// t are probabilities, or 1 at the target class. Label smoothing e replaces t_c by (1 - e) t_c + e / C.
// dx_c = W p_c - w_c t_c with W = sum of w_c t_c.   Mean: over the sum of w_target (classes) or the number of rows (probabilities).
// x is (B, C, inner): with inner = 1 the vectors run along the classes of a row, otherwise along up to 64 neighbouring columns.
#if NN__IN_HOST
typedef struct nn__class_dims { int64_t batch, classes, inner; } nn__class_dims;
static nn__class_dims nn__class_dims_of(const nn_view *x)
{
    nn__class_dims d;
    int i;
    d.batch = x->ndim > 1 ? x->shape[0] : 1;
    d.classes = x->shape[x->ndim > 1];
    d.inner = 1;
    for (i = 2; i < x->ndim; i++) d.inner *= x->shape[i];
    return d;
}
static int     nn__is_index(const nn_view *t)               { return t->dtype == NN_I32 || t->dtype == NN_I64; }
static int64_t nn__class_at(const nn_view *t, int64_t i)    { return t->dtype == NN_I64 ? ((const int64_t *)t->data)[i] : ((const int32_t *)t->data)[i]; }
static int64_t nn__class_tiles(nn__class_dims d)
{
    return d.inner == 1 ? d.batch : d.batch * ((d.inner + NN__CLASS_COLUMNS - 1) / NN__CLASS_COLUMNS);
}
// x (B, C, ...) with classes (B, ...) or, where allowed, probabilities (B, C, ...); weight (C). Sets out.
static int nn__class_shape(nn_call *c, int probabilities, int reduction)
{
    const nn_view *x = &c->in[0], *t = &c->in[1], *w = &c->in[2];
    nn_view rows;
    int dtype = (int)c->nn->desc.dtype, d = x->ndim > 1, i;
    if (x->ndim < 1 || x->dtype != dtype) {
        nn_fail(c->nn, "%s: the prediction %s must be %s, (B, C, ...)", c->op->name, NN__SHAPE_OF(x), nn_dtype_name((nn_dtype)dtype));
        return 0;
    }
    rows = *x;                       // without the dimension of the classes
    for (i = d; i + 1 < x->ndim; i++) rows.shape[i] = x->shape[i + 1];
    rows.ndim--;
    if (!nn__is_index(t) && (!probabilities || t->dtype != dtype)) {
        nn_fail(c->nn, "%s: the target is %s: classes are i32 or i64%s", c->op->name, nn_dtype_name((nn_dtype)t->dtype), probabilities ? ", probabilities of the type of the prediction" : "");
        return 0;
    }
    if (!nn__same_dims(nn__is_index(t) ? &rows : x, t)) {
        nn_fail(c->nn, "%s: target %s does not fit prediction %s; classes must be %s", c->op->name, NN__SHAPE_OF(t), NN__SHAPE_OF(x), NN__SHAPE_OF(&rows));
        return 0;
    }
    if (c->nin > 2 && w->ndim && (w->ndim != 1 || w->shape[0] != x->shape[d] || w->dtype != dtype)) {
        nn_fail(c->nn, "%s: weight %s: it needs one number for each of %lld classes", c->op->name, NN__SHAPE_OF(w), (long long)x->shape[d]);
        return 0;
    }
    nn__set_shape(&c->out[0], dtype, reduction == NN_NONE ? rows.ndim : 0, rows.shape);
    return 1;
}
// Reports the first class that is out of range: 1 if there is one. Called by the last phase, which runs in the caller's thread.
static int nn__bad_class(const nn_call *c, int64_t rows, int64_t classes, int64_t ignore)
{
    int64_t i;
    for (i = 0; i < rows; i++) {
        int64_t k = nn__class_at(&c->in[1], i);
        if (k == ignore || (k >= 0 && k < classes)) continue;
        nn_fail(c->nn, "%s: target %lld of row %lld is not a class 0..%lld", c->op->name, (long long)k, (long long)i, (long long)classes - 1);
        return 1;
    }
    return 0;
}
static int nn__cross_entropy_shape(nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__class_dims d;
    int64_t shape[2];
    if (!nn__class_shape(c, 1, p->reduction)) return 0;
    d = nn__class_dims_of(&c->in[0]);
    shape[0] = 2; shape[1] = d.batch * d.inner;
    c->naux = 2;
    nn__set_shape(&c->aux[0], c->in[0].dtype, 2, shape);             // m and log sum exp(x - m) of every row
    shape[0] = 1;
    nn__set_shape(&c->aux[1], c->in[0].dtype, 1, shape);             // what the sum was divided by
    return 1;
}
static void nn__cross_entropy_plan(nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__class_dims d = nn__class_dims_of(&c->in[0]);
    nn__reduced_loss_plan(c, nn__class_tiles(d), 16 * d.classes * (d.inner == 1 ? 1 : nn__min(d.inner, NN__CLASS_COLUMNS)), p->reduction == NN_NONE ? 0 : d.batch * d.inner);
}
static nn_tensor *nn__class_loss(int op, nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc, unsigned reads)
{
    nn_context *nn = x ? x->nn : NULL;
    const char *name = nn__op(op)->name;
    nn_tensor *in[3];
    nn__loss_params p;
    if (!nn__check(nn, x, name) || !nn__check(nn, target, name) || !nn__loss_options(nn, name, desc, reads, &p)) return nn__inert(nn);
    if (p.ignore >= 0 && target->dtype == (int)nn->desc.dtype) { nn_fail(nn, "%s: ignore_index does not apply to probabilities", name); return nn__inert(nn); }
    in[0] = x; in[1] = target;
    in[2] = desc && desc->weight ? nn_detach(desc->weight) : NULL;   // a constant
    if (in[2] && nn__dead(in[2])) return nn__inert(nn);
    return nn_apply_n(nn, nn__op(op), in, 3, &p, NULL);
}
NN_API nn_tensor *nn_cross_entropy(nn_tensor *logits, nn_tensor *target, const nn_loss_desc *desc)
{
    return nn__class_loss(NN_OP_cross_entropy, logits, target, desc, NN__L_WEIGHT | NN__L_SMOOTHING | NN__L_IGNORE);
}
#endif
#if NN__IN_SIMD
NN__INLINE V NN__K(log_word)(V x, V p, V q)              { (void)p; (void)q; return LOG(x); }
typedef struct NN__K(classes) {      // a cross_entropy call, opened
    nn__class_dims d;
    const R *x, *t, *w;              // t: probabilities, or NULL; w: weights, or NULL
    const nn_view *target;
    int64_t ignore;
    R keep, spread, all;             // 1 - e, e / C, sum of weights
    R *m, *ls;                       // aux, or NULL
    R ones[NN__K(block)];
} NN__K(classes);
static void NN__K(classes_open)(NN__K(classes) *o, const nn_call *c)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    int64_t i;
    o->d = nn__class_dims_of(&c->in[0]);
    o->x = (const R *)c->in[0].data;
    o->target = &c->in[1];
    o->t = nn__is_index(&c->in[1]) ? NULL : (const R *)c->in[1].data;
    o->w = (const R *)c->in[2].data;
    o->ignore = p->ignore;
    o->keep = (R)(1 - p->smoothing);
    o->spread = (R)(p->smoothing / (double)o->d.classes);
    o->all = (R)o->d.classes;
    if (o->w && o->spread != 0) for (i = 0, o->all = 0; i < o->d.classes; i++) o->all += o->w[i];
    o->m = (R *)c->aux[0].data;
    o->ls = o->m ? o->m + o->d.batch * o->d.inner : NULL;
    for (i = 0; i < NN__K(block); i++) o->ones[i] = 1;
}
// The class of a row; -1: it counts for nothing (ignored, or out of range, which the last phase reports).
static int64_t NN__K(class_of)(const NN__K(classes) *o, int64_t row)
{
    int64_t k = nn__class_at(o->target, row);
    return k == o->ignore || k < 0 || k >= o->d.classes ? -1 : k;
}
static R NN__K(class_weight)(const NN__K(classes) *o, int64_t k) { return o->w ? o->w[k] : 1; }

// Rows: v is x, t, w of neighbouring classes; k is m, log sum, and what t becomes: k[2] t + k[3].
NN__INLINE V NN__K(ce_row_term)(const V *v, const V *k) { return v[2] * (k[2] * v[1] + k[3]) * (k[1] - (v[0] - k[0])); }
NN__INLINE V NN__K(ce_row_mass)(const V *v, const V *k) { return v[2] * (k[2] * v[1] + k[3]); }
NN__INLINE V NN__K(ce_row_dx)(const V *v, const V *k)   { return k[4] * EXP((v[0] - k[0]) - k[1]) - v[2] * (k[2] * v[1] + k[3]); }
NN__INLINE V NN__K(ce_row_dt)(const V *v, const V *k)   { return v[2] * k[2] * (k[1] - (v[0] - k[0])); }
static int64_t NN__K(ce_row_in)(const NN__K(classes) *o, int64_t row, int64_t i, const R **in)   // operands from class i on; returns their number
{
    int64_t at = row * o->d.classes + i;
    in[0] = o->x + at;
    in[1] = o->t ? o->t + at : o->ones;
    in[2] = o->w ? o->w + i : o->ones;
    return nn__min(NN__K(block), o->d.classes - i);
}
static R NN__K(ce_row_sum)(const NN__K(classes) *o, int64_t row, const R *p, int mass)
{
    R lane[16] = { 0 }, value[NN__K(block)];
    const R *in[3];
    int64_t i, n;
    for (i = 0; i < o->d.classes; i += n) {
        n = NN__K(ce_row_in)(o, row, i, in);
        if (mass) NN__K(map)(n, value, in, 3, p, 4, NN__K(ce_row_mass));
        else      NN__K(map)(n, value, in, 3, p, 4, NN__K(ce_row_term));
        NN__K(add_lanes)(lane, n, value);
    }
    return NN__K(lane_sum)(lane);
}
static void NN__K(ce_row)(const NN__K(classes) *o, int64_t row, R *loss)
{
    const R *x = o->x + row * o->d.classes;
    int64_t k = o->t ? 0 : NN__K(class_of)(o, row);
    R p[4];
    loss[row] = 0;
    if (k < 0) return;
    p[0] = NN__K(row_max)(o->d.classes, x);
    p[1] = NN__K(log_one)(NN__K(row_exps)(o->d.classes, x, 1, p[0], NULL));
    p[2] = o->t ? o->keep : 0;
    p[3] = o->spread;
    if (o->m) { o->m[row] = p[0]; o->ls[row] = p[1]; }
    if (!o->t) loss[row] = o->keep * NN__K(class_weight)(o, k) * (p[1] - (x[k] - p[0]));
    if (o->t || o->spread != 0) loss[row] += NN__K(ce_row_sum)(o, row, p, 0);
}
static void NN__K(ce_row_back)(const NN__K(classes) *o, int64_t row, R g, const nn_call *c)
{
    int64_t k = o->t ? 0 : NN__K(class_of)(o, row), classes = o->d.classes, i, n;
    R *dx = (R *)c->din[0].data, *dt = (R *)c->din[1].data, value[NN__K(block)], p[5];
    const R *in[3];
    int add = (int)(c->add & 1), add_t = (int)(c->add >> 1 & 1);
    if (dx) dx += row * classes;
    if (k < 0) { for (i = 0; dx && !add && i < classes; i++) dx[i] = 0; return; }
    p[0] = o->m[row]; p[1] = o->ls[row];
    p[2] = o->t ? o->keep : 0;
    p[3] = o->spread;
    p[4] = g * (o->t ? NN__K(ce_row_sum)(o, row, p, 1) : o->keep * NN__K(class_weight)(o, k) + o->spread * o->all);
    p[2] *= g; p[3] *= g;
    for (i = 0; dx && i < classes; i += n) {
        n = NN__K(ce_row_in)(o, row, i, in);
        NN__K(map)(n, add ? value : dx + i, in, 3, p, 5, NN__K(ce_row_dx));
        if (add) NN__K(add_onto)(n, dx + i, value);
    }
    if (dx && !o->t) dx[k] -= g * o->keep * NN__K(class_weight)(o, k);
    for (i = 0; o->t && dt && i < classes; i += n) {
        R *z = dt + row * classes + i;
        n = NN__K(ce_row_in)(o, row, i, in);
        NN__K(map)(n, add_t ? value : z, in, 3, p, 3, NN__K(ce_row_dt));
        if (add_t) NN__K(add_onto)(n, z, value);
    }
}
// Columns: v is x, t, and m, log sum, ... of neighbouring columns; k what t becomes for this class: k[0] t + k[1], weight included.
NN__INLINE V NN__K(ce_col_max)(const V *v, const V *k)  { (void)k; return NN__K(larger)(v[1], v[0]); }
NN__INLINE V NN__K(ce_col_sum)(const V *v, const V *k)  { (void)k; return v[1] + EXP(v[0] - v[2]); }
NN__INLINE V NN__K(ce_col_term)(const V *v, const V *k) { return v[4] + (k[0] * v[1] + k[1]) * (v[3] - (v[0] - v[2])); }
NN__INLINE V NN__K(ce_col_mass)(const V *v, const V *k) { return v[4] + (k[0] * v[1] + k[1]); }
NN__INLINE V NN__K(ce_col_dx)(const V *v, const V *k)   { return v[4] * EXP((v[0] - v[2]) - v[3]) - v[5] * (k[0] * v[1] + k[1]); }
NN__INLINE V NN__K(ce_col_dt)(const V *v, const V *k)   { return v[5] * k[0] * (v[3] - (v[0] - v[2])); }
static void NN__K(ce_col_class)(const NN__K(classes) *o, int64_t at, int64_t k, const R **in, R *p)   // operands of class k in columns from `at`
{
    R w = NN__K(class_weight)(o, k);
    in[0] = o->x + at + k * o->d.inner;
    in[1] = o->t ? o->t + at + k * o->d.inner : o->ones;
    p[0] = o->t ? w * o->keep : 0;
    p[1] = w * o->spread;
}
static void NN__K(ce_columns)(const NN__K(classes) *o, int64_t tile, R *loss)
{
    int64_t tiles = (o->d.inner + NN__CLASS_COLUMNS - 1) / NN__CLASS_COLUMNS, first = tile % tiles * NN__CLASS_COLUMNS, b = tile / tiles;
    int64_t n = nn__min(NN__CLASS_COLUMNS, o->d.inner - first), at = b * o->d.classes * o->d.inner + first, row = b * o->d.inner + first, j, k;
    R m[NN__CLASS_COLUMNS], s[NN__CLASS_COLUMNS], ls[NN__CLASS_COLUMNS], sum[NN__CLASS_COLUMNS], p[2] = { 0, 0 };
    const R *in[5];
    for (j = 0; j < n; j++) { m[j] = (R)-INFINITY; s[j] = sum[j] = 0; }
    for (k = 0; k < o->d.classes; k++) { in[0] = o->x + at + k * o->d.inner; in[1] = m; NN__K(map)(n, m, in, 2, p, 0, NN__K(ce_col_max)); }
    for (k = 0; k < o->d.classes; k++) { in[0] = o->x + at + k * o->d.inner; in[1] = s; in[2] = m; NN__K(map)(n, s, in, 3, p, 0, NN__K(ce_col_sum)); }
    NN__K(map1)(n, ls, s, p, NN__K(log_word));
    in[2] = m; in[3] = ls; in[4] = sum;
    if (o->t || o->spread != 0) for (k = 0; k < o->d.classes; k++) {
        NN__K(ce_col_class)(o, at, k, in, p);
        NN__K(map)(n, sum, in, 5, p, 2, NN__K(ce_col_term));
    }
    for (j = 0; j < n; j++) {
        k = o->t ? 0 : NN__K(class_of)(o, row + j);
        loss[row + j] = k < 0 ? 0 : sum[j];
        if (k >= 0 && !o->t) loss[row + j] += o->keep * NN__K(class_weight)(o, k) * (ls[j] - (o->x[at + k * o->d.inner + j] - m[j]));
        if (o->m) { o->m[row + j] = m[j]; o->ls[row + j] = ls[j]; }
    }
}
static void NN__K(ce_columns_back)(const NN__K(classes) *o, int64_t tile, const R *dy, R by, const nn_call *c)   // dy NULL: every row has gradient `by`
{
    int64_t tiles = (o->d.inner + NN__CLASS_COLUMNS - 1) / NN__CLASS_COLUMNS, first = tile % tiles * NN__CLASS_COLUMNS, b = tile / tiles;
    int64_t n = nn__min(NN__CLASS_COLUMNS, o->d.inner - first), at = b * o->d.classes * o->d.inner + first, row = b * o->d.inner + first, j, k;
    R g[NN__CLASS_COLUMNS], mass[NN__CLASS_COLUMNS], value[NN__CLASS_COLUMNS], p[2];
    const R *in[6];
    int side;
    in[2] = o->m + row; in[3] = o->ls + row; in[4] = mass; in[5] = g;
    for (j = 0; j < n; j++) mass[j] = 0;
    if (o->t) for (k = 0; k < o->d.classes; k++) { NN__K(ce_col_class)(o, at, k, in, p); NN__K(map)(n, mass, in, 5, p, 2, NN__K(ce_col_mass)); }
    for (j = 0; j < n; j++) {
        k = o->t ? 0 : NN__K(class_of)(o, row + j);
        g[j] = k < 0 ? 0 : dy ? dy[row + j] : by;
        mass[j] = k < 0 ? 0 : g[j] * (o->t ? mass[j] : o->keep * NN__K(class_weight)(o, k) + o->spread * o->all);
    }
    for (side = 0; side < (o->t ? 2 : 1); side++) {
        int add = (int)(c->add >> side & 1);
        for (k = 0; c->din[side].data && k < o->d.classes; k++) {
            R *to = (R *)c->din[side].data + at + k * o->d.inner;
            NN__K(ce_col_class)(o, at, k, in, p);
            if (side) NN__K(map)(n, add ? value : to, in, 6, p, 2, NN__K(ce_col_dt));
            else      NN__K(map)(n, add ? value : to, in, 6, p, 2, NN__K(ce_col_dx));
            if (add) NN__K(add_onto)(n, to, value);
        }
    }
    for (j = 0; c->din[0].data && !o->t && j < n; j++) {
        k = NN__K(class_of)(o, row + j);
        if (k >= 0) ((R *)c->din[0].data)[at + k * o->d.inner + j] -= g[j] * o->keep * NN__K(class_weight)(o, k);
    }
}
NN__FORWARD(cross_entropy)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    NN__K(classes) o;
    int64_t i, tiles, rows;
    R *loss = p->reduction == NN_NONE ? (R *)c->out[0].data : (R *)c->shared;
    double total = 0;
    NN__K(classes_open)(&o, c);
    tiles = nn__class_tiles(o.d);
    rows = o.d.batch * o.d.inner;
    if (t->phase == 0) {
        for (i = nn__task_begin(tiles, t); i < nn__task_end(tiles, t); i++) {
            if (o.d.inner == 1) NN__K(ce_row)(&o, i, loss);
            else NN__K(ce_columns)(&o, i, loss);
        }
        return;
    }
    if (!o.t && nn__bad_class(c, rows, o.d.classes, p->ignore)) return;
    if (o.t) total = (double)rows;
    else for (i = 0; i < rows; i++) {
        int64_t k = NN__K(class_of)(&o, i);
        if (k >= 0) total += (double)NN__K(class_weight)(&o, k);
    }
    if (p->reduction != NN_MEAN) total = 1;
    if (p->reduction != NN_NONE) *(R *)c->out[0].data = NN__K(long_sum)(rows, loss) / (R)total;
    if (c->aux[1].data) *(R *)c->aux[1].data = (R)total;
}
NN__BACKWARD(cross_entropy)
{
    int none = ((const nn__loss_params *)c->params)->reduction == NN_NONE;
    const R *dy = (const R *)c->dout[0].data;
    R g = none ? 0 : dy[0] / *(const R *)c->aux[1].data;
    NN__K(classes) o;
    int64_t i, tiles;
    NN__K(classes_open)(&o, c);
    tiles = nn__class_tiles(o.d);
    for (i = nn__task_begin(tiles, t); i < nn__task_end(tiles, t); i++) {
        if (o.d.inner == 1) NN__K(ce_row_back)(&o, i, none ? dy[i] : g, c);
        else NN__K(ce_columns_back)(&o, i, none ? dy : NULL, g, c);
    }
}
#endif

// ---- nll:   l = -w_k x_k, k the target class      dx_k = -w_k      mean: over the sum of w_k ----------------------------------------
#if NN__IN_HOST
static int nn__nll_shape(nn_call *c)
{
    int64_t one = 1;
    if (!nn__class_shape(c, 0, ((const nn__loss_params *)c->params)->reduction)) return 0;
    c->naux = 1;
    nn__set_shape(&c->aux[0], c->in[0].dtype, 1, &one);              // what the sum was divided by
    return 1;
}
NN_API nn_tensor *nn_nll(nn_tensor *log_p, nn_tensor *target, const nn_loss_desc *desc)
{
    return nn__class_loss(NN_OP_nll, log_p, target, desc, NN__L_WEIGHT | NN__L_IGNORE);
}
#endif
#if NN__IN_PLAIN
NN__FORWARD(nll)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__class_dims d = nn__class_dims_of(&c->in[0]);
    const R *x = (const R *)c->in[0].data, *w = (const R *)c->in[2].data;
    R *y = (R *)c->out[0].data;
    double sum = 0, total = 0;
    int64_t i, rows = d.batch * d.inner;
    (void)t;
    if (nn__bad_class(c, rows, d.classes, p->ignore)) return;
    for (i = 0; i < rows; i++) {
        int64_t k = nn__class_at(&c->in[1], i);
        R l = k == p->ignore ? 0 : -(w ? w[k] : 1) * x[(i / d.inner * d.classes + k) * d.inner + i % d.inner];
        if (p->reduction == NN_NONE) y[i] = l;
        sum += (double)l;
        if (k != p->ignore) total += w ? (double)w[k] : 1;
    }
    if (p->reduction != NN_MEAN) total = 1;
    if (p->reduction != NN_NONE) y[0] = (R)(sum / total);
    if (c->aux[0].data) *(R *)c->aux[0].data = (R)total;
}
NN__BACKWARD(nll)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__class_dims d = nn__class_dims_of(&c->din[0]);
    const R *w = (const R *)c->in[2].data, *dy = (const R *)c->dout[0].data;
    R *dx = (R *)c->din[0].data, by = *(const R *)c->aux[0].data;
    int64_t i, rows = d.batch * d.inner;
    (void)t;
    for (i = 0; dx && i < rows; i++) {
        int64_t k = nn__class_at(&c->in[1], i);
        if (k == p->ignore || k < 0 || k >= d.classes) continue;
        dx[(i / d.inner * d.classes + k) * d.inner + i % d.inner] -= (w ? w[k] : 1) * (p->reduction == NN_NONE ? dy[i] : dy[0] / by);
    }
}
#endif

// ---- hinge:   elements, targets -1 or 1:  l = max(0, margin - t x)      classes k:  l = sum over c != k of max(0, margin - x_k + x_c) / C ----
#if NN__IN_HOST
static int nn__multi_margin_shape(nn_call *c) { return nn__class_shape(c, 0, ((const nn__loss_params *)c->params)->reduction); }
NN_API nn_tensor *nn_hinge(nn_tensor *x, nn_tensor *target, const nn_loss_desc *desc)
{
    nn_context *nn = x ? x->nn : NULL;
    nn__loss_params p;
    nn_tensor *in[2];
    double margin = nn__option(desc ? desc->margin : 0, 1);
    if (!nn__check(nn, x, "hinge") || !nn__check(nn, target, "hinge")) return nn__inert(nn);
    if (target->dtype != NN_I32 && target->dtype != NN_I64) return nn__pair_loss(NN_OP_hinge, x, target, desc, NN__L_MARGIN, margin);
    if (!nn__loss_options(nn, "hinge", desc, NN__L_MARGIN, &p)) return nn__inert(nn);
    p.p = margin;
    in[0] = x; in[1] = target;
    return nn_apply(nn__op(NN_OP_multi_margin), in, &p);
}
#endif
#if NN__IN_PLAIN
NN__FORWARD(multi_margin)            // torch.nn.MultiMarginLoss
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__class_dims d = nn__class_dims_of(&c->in[0]);
    R *y = (R *)c->out[0].data;
    double sum = 0;
    int64_t i, j, rows = d.batch * d.inner;
    (void)t;
    if (nn__bad_class(c, rows, d.classes, INT64_MIN)) return;
    for (i = 0; i < rows; i++) {
        const R *x = (const R *)c->in[0].data + i / d.inner * d.classes * d.inner + i % d.inner;
        int64_t k = nn__class_at(&c->in[1], i);
        double l = 0;
        for (j = 0; j < d.classes; j++) {
            double z = p->p - (double)x[k * d.inner] + (double)x[j * d.inner];
            if (j != k && !(z <= 0)) l += z;
        }
        l /= (double)d.classes;
        if (p->reduction == NN_NONE) y[i] = (R)l;
        sum += l;
    }
    if (p->reduction != NN_NONE) y[0] = (R)(p->reduction == NN_MEAN ? sum / (double)rows : sum);
}
NN__BACKWARD(multi_margin)
{
    const nn__loss_params *p = (const nn__loss_params *)c->params;
    nn__class_dims d = nn__class_dims_of(&c->in[0]);
    const R *dy = (const R *)c->dout[0].data;
    int64_t i, j, rows = d.batch * d.inner;
    (void)t;
    for (i = 0; c->din[0].data && i < rows; i++) {
        int64_t at = i / d.inner * d.classes * d.inner + i % d.inner, k = nn__class_at(&c->in[1], i);
        const R *x = (const R *)c->in[0].data + at;
        R *dx = (R *)c->din[0].data + at, g = p->reduction == NN_NONE ? dy[i] : p->reduction == NN_MEAN ? dy[0] / (R)rows : dy[0];
        g /= (R)d.classes;
        if (k < 0 || k >= d.classes) continue;
        for (j = 0; j < d.classes; j++) {
            if (j == k || p->p - (double)x[k * d.inner] + (double)x[j * d.inner] <= 0) continue;
            dx[j * d.inner] += g;
            dx[k * d.inner] -= g;
        }
    }
}
#endif

// ---- kl_div:   l = T^2 sum over c of q_c (log q_c - log p_c),   p = softmax(x / T), q = softmax(t / T) over the last dimension ------------
// Distillation (Hinton et al. 2015): T^2 keeps the gradient's size at any T. Mean: over rows (PyTorch's "batchmean"); NN_NONE: the terms.
// With dy per term:  dx_c = T (p_c sum(q dy) - q_c dy_c),   dt_c = T q_c (dy_c r_c - sum(q dy r)),   r = log q - log p + 1.
#if NN__IN_HOST
static int64_t nn__row_length(const nn_view *x) { return x->ndim ? x->shape[x->ndim - 1] : 1; }
static int64_t nn__row_count(const nn_view *x)
{
    int64_t n = 1;
    int i;
    for (i = 0; i + 1 < x->ndim; i++) n *= x->shape[i];
    return n;
}
static int nn__kl_div_shape(nn_call *c)
{
    int64_t shape[2];
    if (!nn__pair_loss_shape(c)) return 0;
    shape[0] = nn__row_count(&c->in[0]); shape[1] = 4;
    c->naux = 1;
    nn__set_shape(&c->aux[0], c->in[0].dtype, 2, shape);             // of x and of t: maximum of v / T, log sum exp
    return 1;
}
static void nn__kl_div_plan(nn_call *c)
{
    int64_t rows = nn__row_count(&c->in[0]);
    nn__reduced_loss_plan(c, rows, 32 * nn__row_length(&c->in[0]), rows);
}
NN_API nn_tensor *nn_kl_div(nn_tensor *logits, nn_tensor *target_logits, const nn_loss_desc *desc)
{
    nn_context *nn = logits ? logits->nn : NULL;
    nn__loss_params p;
    double temperature = nn__option(desc ? desc->temperature : 0, 1);
    if (!nn__check(nn, logits, "kl_div") || !nn__check(nn, target_logits, "kl_div") || !nn__loss_options(nn, "kl_div", desc, NN__L_TEMPERATURE, &p)) return nn__inert(nn);
    if (!(temperature > 0)) { nn_fail(nn, "kl_div: temperature %g is not positive", temperature); return nn__inert(nn); }
    p.p = temperature;
    return nn__apply2(NN_OP_kl_div, logits, target_logits, &p);
}
#endif
#if NN__IN_SIMD
// k: 1 / T, then maximum and log sum of x, of t, then a factor. log p and log q of vectors x = v[0], t = v[1]; v[2] is dy.
#define NN__LOG_P ((v[0] * k[0] - k[1]) - k[2])
#define NN__LOG_Q ((v[1] * k[0] - k[3]) - k[4])
NN__INLINE V NN__K(kl_term)(const V *v, const V *k)  { V q = NN__LOG_Q; return k[5] * (EXP(q) * (q - NN__LOG_P)); }
NN__INLINE V NN__K(kl_mass)(const V *v, const V *k)  { return EXP(NN__LOG_Q) * v[2]; }
NN__INLINE V NN__K(kl_slope)(const V *v, const V *k) { V q = NN__LOG_Q; return EXP(q) * v[2] * (q - NN__LOG_P + C(1)); }
NN__INLINE V NN__K(kl_dx)(const V *v, const V *k)    { return (EXP(NN__LOG_P) * k[5] - EXP(NN__LOG_Q) * v[2]) / k[0]; }
NN__INLINE V NN__K(kl_dt)(const V *v, const V *k)    { V q = NN__LOG_Q; return EXP(q) * (v[2] * (q - NN__LOG_P + C(1)) - k[5]) / k[0]; }
#undef NN__LOG_P
#undef NN__LOG_Q
NN__FORWARD(kl_div)
{
    const nn__loss_params *o = (const nn__loss_params *)c->params;
    int64_t rows = nn__row_count(&c->in[0]), n = nn__row_length(&c->in[0]), i, j, w;
    R *y = (R *)c->out[0].data, *loss = (R *)c->shared, *aux = (R *)c->aux[0].data, value[NN__K(block)], k[6];
    int none = o->reduction == NN_NONE, side;
    if (t->phase) {
        if (!none) y[0] = NN__K(long_sum)(rows, loss) / (o->reduction == NN_MEAN ? (R)rows : 1);
        return;
    }
    k[0] = (R)(1 / o->p);
    k[5] = (R)(o->p * o->p);
    for (i = nn__task_begin(rows, t); i < nn__task_end(rows, t); i++) {
        R lane[16] = { 0 };
        for (side = 0; side < 2; side++) {
            const R *v = (const R *)c->in[side].data + i * n;
            k[1 + 2 * side] = NN__K(row_max)(n, v) * k[0];
            k[2 + 2 * side] = NN__K(log_one)(NN__K(row_exps)(n, v, k[0], k[1 + 2 * side], NULL));
        }
        if (aux) memcpy(aux + 4 * i, k + 1, 4 * sizeof *k);
        for (j = 0; j < n; j += w) {
            const R *in[2];
            in[0] = (const R *)c->in[0].data + i * n + j;
            in[1] = (const R *)c->in[1].data + i * n + j;
            w = nn__min(NN__K(block), n - j);
            NN__K(map)(w, none ? y + i * n + j : value, in, 2, k, 6, NN__K(kl_term));
            if (!none) NN__K(add_lanes)(lane, w, value);
        }
        if (!none) loss[i] = NN__K(lane_sum)(lane);
    }
}
NN__BACKWARD(kl_div)
{
    const nn__loss_params *o = (const nn__loss_params *)c->params;
    int64_t rows = nn__row_count(&c->in[0]), n = nn__row_length(&c->in[0]), i, j, m, w;
    const R *dy = (const R *)c->dout[0].data, *aux = (const R *)c->aux[0].data;
    R g[NN__K(block)], value[NN__K(block)], k[6];
    int none = o->reduction == NN_NONE, side;
    for (j = 0; !none && j < NN__K(block); j++) g[j] = o->reduction == NN_MEAN ? dy[0] / (R)rows : dy[0];
    k[0] = (R)(1 / o->p);
    k[5] = 0;
    for (i = nn__task_begin(rows, t); i < nn__task_end(rows, t); i++) for (side = 0; side < 2; side++) {
        int add = (int)(c->add >> side & 1), pass;
        R lane[16] = { 0 };
        if (!c->din[side].data) continue;
        memcpy(k + 1, aux + 4 * i, 4 * sizeof *k);
        for (pass = 0; pass < 2; pass++) {               // first the sum over the row, then the gradient
            for (j = 0; j < n; j += w) {
                const R *in[3];
                R *to = (R *)c->din[side].data + i * n + j;
                in[0] = (const R *)c->in[0].data + i * n + j;
                in[1] = (const R *)c->in[1].data + i * n + j;
                in[2] = none ? dy + i * n + j : g;
                w = nn__min(NN__K(block), n - j);
                if (pass == 0) {
                    if (side) NN__K(map)(w, value, in, 3, k, 6, NN__K(kl_slope));
                    else      NN__K(map)(w, value, in, 3, k, 6, NN__K(kl_mass));
                    NN__K(add_lanes)(lane, w, value);
                    continue;
                }
                if (side) NN__K(map)(w, add ? value : to, in, 3, k, 6, NN__K(kl_dt));
                else      NN__K(map)(w, add ? value : to, in, 3, k, 6, NN__K(kl_dx));
                for (m = 0; add && m < w; m++) to[m] += value[m];
            }
            if (pass == 0) k[5] = NN__K(lane_sum)(lane);
        }
    }
}
#endif

// ---- losses composed of other ops ------------------------------------------------------------------------------------------------
#if NN__IN_HOST
static nn_tensor *nn__row_sum(nn_tensor *x, int keepdim)             // over the last dimension
{
    nn_reduce_desc d;
    memset(&d, 0, sizeof d);
    d.keepdim = keepdim;
    return nn_sum(x, nn__shape1(-1), &d);
}
static int nn__check_rows(nn_context *nn, const char *op, const nn_tensor *a, const nn_tensor *b)
{
    nn_view va, vb;
    if (!nn__check(nn, a, op) || !nn__check(nn, b, op)) return 0;
    va = nn__view_of(a); vb = nn__view_of(b);
    if (!nn__same_shapes(nn, op, &va, &vb)) return 0;
    if (a->ndim < 1) { nn_fail(nn, "%s: vectors are needed, not 0-d tensors", op); return 0; }
    return 1;
}
// l = 1 - cos(a, b) for target 1, max(0, cos(a, b) - margin) for target -1; 1e-12 under the root as in PyTorch
NN_API nn_tensor *nn_cosine_embedding(nn_tensor *a, nn_tensor *b, nn_tensor *target, const nn_loss_desc *desc)
{
    nn_context *nn = a ? a->nn : NULL;
    nn_tensor *cosine, *same, *other, *none;
    nn__loss_params p;
    nn_view va, vt;
    if (!nn__check_rows(nn, "cosine_embedding", a, b) || !nn__check(nn, target, "cosine_embedding")) return nn__inert(nn);
    if (!nn__loss_options(nn, "cosine_embedding", desc, NN__L_MARGIN, &p)) return nn__inert(nn);
    va = nn__view_of(a); vt = nn__view_of(target);
    va.ndim--;
    if (!nn__same_dims(&va, &vt)) {
        nn_fail(nn, "cosine_embedding: target %s does not fit vectors %s", NN__SHAPE_OF(&vt), nn__dims_text(a->ndim, a->shape).s);
        return nn__inert(nn);
    }
    target = nn_detach(nn_cast(target, nn->desc.dtype));
    none = nn_scalar(nn, 0.0f);
    cosine = nn_mul(nn_add_scalar(nn__row_sum(nn_square(a), 0), 1e-12f), nn_add_scalar(nn__row_sum(nn_square(b), 0), 1e-12f));
    cosine = nn_div(nn__row_sum(nn_mul(a, b), 0), nn_sqrt(cosine));
    same = nn_add_scalar(nn_neg(cosine), 1.0f);
    other = nn_clamp(nn_add_scalar(cosine, (float)-nn__option(desc ? desc->margin : 0, 0)), 0.0f, INFINITY);
    same = nn_where(nn_eq(target, nn_scalar(nn, 1.0f)), same, none);
    other = nn_where(nn_eq(target, nn_scalar(nn, -1.0f)), other, none);
    return nn__reduce_loss(nn_add(same, other), &p);
}

// |a - b + 1e-6|_p of rows: torch.nn.functional.pairwise_distance
static nn_tensor *nn__row_distance(nn_tensor *a, nn_tensor *b, float p)
{
    nn_reduce_desc d;
    memset(&d, 0, sizeof d);
    d.p = p;
    return nn_norm(nn_add_scalar(nn_sub(a, b), 1e-6f), nn__shape1(-1), &d);
}
// l = max(0, |a - p| - |a - n| + margin)
NN_API nn_tensor *nn_triplet_margin(nn_tensor *anchor, nn_tensor *positive, nn_tensor *negative, const nn_loss_desc *desc)
{
    nn_context *nn = anchor ? anchor->nn : NULL;
    nn_tensor *d;
    nn__loss_params p;
    float norm = (float)nn__option(desc ? desc->p : 0, 2), margin = (float)nn__option(desc ? desc->margin : 0, 1);
    if (!nn__check_rows(nn, "triplet_margin", anchor, positive) || !nn__check_rows(nn, "triplet_margin", anchor, negative)) return nn__inert(nn);
    if (!nn__loss_options(nn, "triplet_margin", desc, NN__L_MARGIN | NN__L_P, &p)) return nn__inert(nn);
    if (!(norm > 0)) { nn_fail(nn, "triplet_margin: p %g is not a positive number", (double)norm); return nn__inert(nn); }
    d = nn_sub(nn__row_distance(anchor, positive, norm), nn__row_distance(anchor, negative, norm));
    return nn__reduce_loss(nn_clamp(nn_add_scalar(d, margin), 0.0f, INFINITY), &p);
}

static nn_tensor *nn__unit_rows(nn_tensor *x)            // x / |x|; 1e-24 keeps a zero row finite
{
    return nn_mul(x, nn_rsqrt(nn_add_scalar(nn__row_sum(nn_square(x), 1), 1e-24f)));
}
// l_i = -log softmax_j(cos(a_i, b_j) / T) at j = i: row i of a must find row i of b among all rows (van den Oord et al. 2018)
NN_API nn_tensor *nn_info_nce(nn_tensor *a, nn_tensor *b, const nn_loss_desc *desc)
{
    nn_context *nn = a ? a->nn : NULL;
    nn_tensor *logits;
    nn_loss_desc own;
    nn__loss_params p;
    nn__mark m;
    int64_t *index, i, n;
    double temperature = nn__option(desc ? desc->temperature : 0, 0.07);
    if (!nn__check_rows(nn, "info_nce", a, b) || !nn__loss_options(nn, "info_nce", desc, NN__L_TEMPERATURE, &p)) return nn__inert(nn);
    if (a->ndim != 2) { nn_fail(nn, "info_nce: rows (B, C) are needed, not %s", nn__dims_text(a->ndim, a->shape).s); return nn__inert(nn); }
    if (!(temperature > 0)) { nn_fail(nn, "info_nce: temperature %g is not positive", temperature); return nn__inert(nn); }
    logits = nn_mul_scalar(nn_matmul(nn__unit_rows(a), nn_transpose(nn__unit_rows(b), 0, 1)), (float)(1 / temperature));
    memset(&own, 0, sizeof own);
    own.reduction = (nn_reduction)p.reduction;
    n = a->shape[0];
    a = nn__alloc_tensor(nn, 0, NN_I64, 1, &n);
    m = nn__get_mark(nn);
    index = (int64_t *)nn__host_step(nn, nn__mul_size((size_t)n, sizeof *index));
    if (nn__dead(a) || !index) return nn__inert(nn);
    for (i = 0; i < n; i++) index[i] = i;
    nn__upload(nn, a, index);
    nn__rewind_memory(nn, &m);
    return nn_cross_entropy(logits, a, &own);
}
#endif

// ---- parameter updates ------------------------------------------------------------------------------------
// One step of each optimizer for a vector of parameters p with gradients g and states s: the new p is returned. The order of
// operations is PyTorch's (torch.optim, foreach=False). What does not depend on the element is computed once, in double, by >>optim.
#if NN__IN_HOST
static void nn__update_plan(nn_call *c) { c->tasks[0] = nn__task_count(nn_view_count(&c->in[0]), 16); }
static nn__product nn__linear_update_product(const nn_call *c)       // dW^T, as in nn__linear_product
{
    const nn_view *w = &c->in[0];
    nn__product g;
    g.a = c->in[1].data; g.b = c->in[2].data; g.y = w->data;
    g.m = w->shape[1]; g.n = w->shape[0]; g.k = nn_view_count(&c->in[2]) / g.n;
    g.ars = 1; g.acs = g.m; g.brs = g.n; g.bcs = 1;
    g.yrs = w->stride[1]; g.ycs = w->stride[0];
    if (g.n == 1 && g.yrs == 1) {    // one output: a row of weights
        g.a = g.b; g.b = c->in[1].data;
        g.n = g.brs = g.yrs = g.m; g.m = 1;
        g.acs = g.ycs = 1;
    }
    return g;
}
static void nn__linear_update_plan(nn_call *c)
{
    nn__product g = nn__linear_update_product(c);
    c->tasks[0] = nn__gemm_plan(c, g);
    c->task_bytes = (size_t)(g.k * NN__GEMM_STRIP) * nn__real_bytes(c);
}
static void nn__square_sum_plan(nn_call *c)
{
    int64_t chunks = (nn_view_count(&c->in[0]) + NN__LOSS_CHUNK - 1) / NN__LOSS_CHUNK;
    nn__reduced_loss_plan(c, chunks, 2 * NN__LOSS_CHUNK, chunks);
}
#endif
#if NN__IN_SIMD
typedef struct NN__K(rates) {        // nn__update_params as vectors
    V lr, weight_decay, shrink, decay1, rest1, decay2, rest2, eps, correct, lr_grad, clip_value, scale;
    int decays, clips, momentum, nesterov, first, centered, amsgrad, far1;
} NN__K(rates);

NN__INLINE V NN__K(decayed)(V p, V g, const NN__K(rates) *u)         // L2: the gradient of |p|^2 wd / 2 joins g
{
    return u->decays ? FMA(u->weight_decay, p, g) : g;
}
NN__INLINE V NN__K(lerp)(V a, V b, V w, int late) { return late ? FMA(w - C(1), b - a, b) : FMA(w, b - a, a); }   // (1 - w) a + w b

// b = momentum b + (1 - dampening) g,   p -= lr b;   nesterov: p -= lr (g + momentum b)
NN__INLINE V NN__K(sgd)(V p, V g, V *s, const NN__K(rates) *u)
{
    g = NN__K(decayed)(p, g, u);
    if (u->momentum) {
        s[0] = u->first ? g : FMA(u->rest1, g, s[0] * u->decay1);
        g = u->nesterov ? FMA(u->decay1, s[0], g) : s[0];
    }
    return FMA(-u->lr, g, p);
}
// v = alpha v + (1 - alpha) g^2,   p -= lr g / (sqrt(v) + eps);   centered: v - mean(g)^2;   momentum: of the steps   (Hinton 2012)
NN__INLINE V NN__K(rmsprop)(V p, V g, V *s, const NN__K(rates) *u)
{
    V v;
    g = NN__K(decayed)(p, g, u);
    v = s[0] = s[0] * u->decay2 + u->rest2 * g * g;
    if (u->centered) {
        s[2] = NN__K(lerp)(s[2], g, u->rest2, u->far1);
        v = v - s[2] * s[2];
    }
    v = SQRT(v) + u->eps;
    if (!u->momentum) return p - u->lr * g / v;
    s[1] = s[1] * u->decay1 + g / v;
    return FMA(-u->lr, s[1], p);
}
// v += g^2,   p -= lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)   (Duchi et al. 2011)
NN__INLINE V NN__K(adagrad)(V p, V g, V *s, const NN__K(rates) *u)
{
    g = NN__K(decayed)(p, g, u);
    s[0] = s[0] + g * g;
    return p - u->lr * g / (SQRT(s[0]) + u->eps);
}
// m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,  p -= lr m' / (sqrt(v') + eps),  m' = m / (1 - b1^t), v' = v / (1 - b2^t)
// (Kingma & Ba 2015). adamw shrinks p by lr wd first and has no L2. amsgrad takes the largest v so far.
NN__INLINE V NN__K(adam)(V p, V g, V *s, const NN__K(rates) *u)
{
    V v;
    p = p * u->shrink;
    g = NN__K(decayed)(p, g, u);
    s[0] = NN__K(lerp)(s[0], g, u->rest1, u->far1);
    v = s[1] = s[1] * u->decay2 + u->rest2 * g * g;
    if (u->amsgrad) v = s[2] = SEL(s[2] > v, s[2], v);
    return p - u->lr * s[0] / (SQRT(v) / u->correct + u->eps);
}
// adam with Nesterov momentum whose factor b1 (1 - 0.96^(t momentum_decay) / 2) rises   (Dozat 2016)
NN__INLINE V NN__K(nadam)(V p, V g, V *s, const NN__K(rates) *u)
{
    V d;
    g = NN__K(decayed)(p, g, u);
    s[0] = NN__K(lerp)(s[0], g, u->rest1, u->far1);
    s[1] = s[1] * u->decay2 + u->rest2 * g * g;
    d = SQRT(s[1] / u->correct) + u->eps;
    p = p - u->lr_grad * g / d;
    return p - u->lr * s[0] / d;
}
// p = (1 - lr wd) p - lr sign(b1 m + (1 - b1) g),   m = b2 m + (1 - b2) g   (Chen et al. 2023)
NN__INLINE V NN__K(lion)(V p, V g, V *s, const NN__K(rates) *u)
{
    V d = s[0] * u->decay1 + g * u->rest1;
    p = p * u->shrink;
    s[0] = FMA(u->rest2, g, s[0] * u->decay2);
    return FMA(-u->lr, NN__K(sign_of)(d), p);
}

static NN__K(rates) NN__K(rates_of)(const nn__update_params *u, R scale)
{
    NN__K(rates) r;
    r.lr = SET1((R)u->lr); r.weight_decay = SET1((R)u->weight_decay); r.shrink = SET1((R)u->shrink);
    r.decay1 = SET1((R)u->decay1); r.rest1 = SET1((R)u->rest1); r.decay2 = SET1((R)u->decay2); r.rest2 = SET1((R)u->rest2);
    r.eps = SET1((R)u->eps); r.correct = SET1((R)u->correct); r.lr_grad = SET1((R)u->lr_grad); r.clip_value = SET1((R)u->clip_value);
    r.scale = SET1(scale);
    r.decays = u->weight_decay != 0; r.clips = u->clip_value > 0; r.momentum = u->momentum; r.nesterov = u->nesterov;
    r.first = u->first; r.centered = u->centered; r.amsgrad = u->amsgrad; r.far1 = u->far1;
    return r;
}

// A rectangle of parameters, p[i][j] for i < rows, j < n, with gradients and up to 3 states (NULL: not in use) beside it.
typedef struct NN__K(part) { R *p, *state[3]; const R *g; int64_t ld, ldg; } NN__K(part);        // ld: from row to row, of p and the states
typedef void (*NN__K(update))(int64_t rows, int64_t n, const NN__K(part) *a, const NN__K(rates) *r);
NN__INLINE void NN__K(update_part)(int64_t rows, int64_t n, const NN__K(part) *part, const NN__K(rates) *rates, const int states, V (*f)(V p, V g, V *s, const NN__K(rates) *u))
{
    const NN__K(part) own = *part, *a = &own;            // copies of our own stay in registers
    const NN__K(rates) mine = *rates, *r = &mine;
    int64_t i, j;
    int k;
    for (i = 0; i < rows; i++) for (j = 0; j < n; j += NN__LANES) {
        int64_t at = i * a->ld + j, m = n - j;
        V x = NN__K(get_lanes)(a->p + at, m), g = NN__K(get_lanes)(a->g + i * a->ldg + j, m) * r->scale, s[3];
        NN__UNROLL for (k = 0; k < 3; k++) s[k] = k < states && a->state[k] ? NN__K(get_lanes)(a->state[k] + at, m) : C(0);
        if (r->clips) g = SEL(g < -r->clip_value, -r->clip_value, SEL(g > r->clip_value, r->clip_value, g));
        NN__K(put_lanes)(a->p + at, f(x, g, s, r), m);
        NN__UNROLL for (k = 0; k < states; k++) if (a->state[k]) NN__K(put_lanes)(a->state[k] + at, s[k], m);
    }
}
// p, its gradient and its states share one dense layout, so an update sees flat memory. in: p, g, scale or NULL, up to 3 states.
static void NN__K(update_all)(const nn_call *c, const nn_task *t, NN__K(update) update)
{
    NN__K(rates) r = NN__K(rates_of)((const nn__update_params *)c->params, c->in[2].data ? *(const R *)c->in[2].data : 1);
    int64_t n = nn_view_count(&c->in[0]), i = nn__task_begin(n, t);
    NN__K(part) a;
    int k;
    a.p = (R *)c->in[0].data + i;
    a.g = (const R *)c->in[1].data + i;
    a.ld = a.ldg = 0;
    for (k = 0; k < 3; k++) a.state[k] = c->in[3 + k].data ? (R *)c->in[3 + k].data + i : NULL;
    update(1, nn__task_end(n, t) - i, &a, &r);
}
#define NN__X(name, states) \
    static void NN__K(name##_updates)(int64_t rows, int64_t n, const NN__K(part) *a, const NN__K(rates) *r) { NN__K(update_part)(rows, n, a, r, states, NN__K(name)); } \
    NN__FORWARD(name##_update) { NN__K(update_all)(c, t, NN__K(name##_updates)); }
NN__X(sgd, 1) NN__X(rmsprop, 3) NN__X(adagrad, 1) NN__X(adam, 3) NN__X(nadam, 2) NN__X(lion, 1)
#undef NN__X

// A tile of the gradient dW = dY^T X is in the first-level cache when the update reads it: dW is never written to memory.
// in: W, X, dY, states. Every element is the same chain of fma as in nn_linear's backward.
NN__FORWARD(linear_update)
{
    const nn__update_params *u = (const nn__update_params *)c->params;
    NN__K(update) update = u->op == NN_OP_sgd_update ? NN__K(sgd_updates) : u->op == NN_OP_adam_update ? NN__K(adam_updates) : NN__K(lion_updates);
    NN__K(rates) r = NN__K(rates_of)(u, 1);
    nn__product g = nn__product_turned(nn__linear_update_product(c));
    nn__gemm_cut cut = nn__gemm_cuts(&g);
    int64_t i0 = t->index % cut.down * cut.rows, j0 = t->index / cut.down * cut.columns, h = nn__min(cut.rows, g.m - i0), end = nn__min(g.n, j0 + cut.columns);
    int64_t tiles = (h + NN__TALL - 1) / NN__TALL, tile, rows, j, w;
    R dw[NN__TALL * NN__NR], zero[NN__NR] = { 0 }, *last = (R *)t->scratch;
    const R *x = (const R *)g.a + i0 * g.ars;
    NN__K(part) a;
    int k;
    w = (end - j0) % NN__LANES;      // the columns of an incomplete last vector are copied, with zeros beside them
    if (h > 0 && w) NN__K(gemm_turn)(w, g.k, (const R *)g.b + end - w, 1, g.brs, NN__LANES, last);
    a.ld = g.yrs;
    a.g = dw;
    for (tile = 0; tile < tiles; tile++, i0 += rows, x += rows * g.ars) {
        rows = h / tiles + (tile < h % tiles);
        for (j = j0; j < end; j += w) {
            int vectors = end - j >= NN__NR ? NN__NV : 1;
            int64_t at = i0 * g.yrs + j;
            w = nn__min(vectors * NN__LANES, end - j);
            a.ldg = vectors * NN__LANES;
            a.p = (R *)g.y + at;
            for (k = 0; k < 3; k++) a.state[k] = c->in[3 + k].data ? (R *)c->in[3 + k].data + at : NULL;
            if (w == a.ldg) NN__K(tile_for)(rows, vectors)(g.k, x, g.ars, g.acs, (const R *)g.b + j, g.brs, zero, dw, a.ldg);
            else            NN__K(tile_for)(rows, vectors)(g.k, x, g.ars, g.acs, last, NN__LANES, zero, dw, a.ldg);
            update(rows, w, &a, &r);
        }
    }
}

NN__INLINE V NN__K(square_of)(const V *v, const V *k)    { (void)k; return v[0] * v[0]; }
NN__FORWARD(square_sum)              // out = sum of in^2, dense memory of any strides; chunks, then the sums of chunks
{
    int64_t n = nn_view_count(&c->in[0]), chunks = (n + NN__LOSS_CHUNK - 1) / NN__LOSS_CHUNK, i, j, w;
    R *part = (R *)c->shared, value[NN__K(block)], none = 0;
    if (t->phase) { *(R *)c->out[0].data = NN__K(long_sum)(chunks, part); return; }
    for (i = nn__task_begin(chunks, t); i < nn__task_end(chunks, t); i++) {
        R lane[16] = { 0 };
        int64_t end = nn__min(n, (i + 1) * NN__LOSS_CHUNK);
        for (j = i * NN__LOSS_CHUNK; j < end; j += w) {
            const R *in = (const R *)c->in[0].data + j;
            w = nn__min(NN__K(block), end - j);
            NN__K(map)(w, value, &in, 1, &none, 0, NN__K(square_of));
            NN__K(add_lanes)(lane, w, value);
        }
        part[i] = NN__K(lane_sum)(lane);
    }
}
NN__INLINE V NN__K(ema)(const V *v, const V *k)          { return FMA(v[1], k[1], v[0] * k[0]); }
NN__FORWARD(ema_update)              // in[0] = decay in[0] + (1 - decay) in[1]
{
    double decay = *(const double *)c->params;
    int64_t n = nn_view_count(&c->in[0]), i = nn__task_begin(n, t);
    const R *in[2];
    R k[2];
    k[0] = (R)decay; k[1] = (R)(1 - decay);
    in[0] = (const R *)c->in[0].data + i;
    in[1] = (const R *)c->in[1].data + i;
    NN__K(map)(nn__task_end(n, t) - i, (R *)c->in[0].data + i, in, 2, k, 2, NN__K(ema));
}
#endif
#if NN__IN_PLAIN
NN__FORWARD(clip_scale)              // in: sums of squares;  out[0]: their joint norm, out[1]: min(1, max / (norm + 1e-6)), or 1 without a maximum
{
    double most = *(const double *)c->params, sum = 0, scale;
    const R *x = (const R *)c->in[0].data;
    R *y = (R *)c->out[0].data;
    int64_t i;
    (void)t;
    for (i = 0; i < c->in[0].shape[0]; i++) sum += (double)x[i];
    y[0] = (R)sqrt(sum);
    scale = most > 0 ? most / ((double)y[0] + 1e-6) : 1;
    y[1] = (R)(scale > 1 ? 1 : scale);
}
NN__FORWARD(swap)                    // exchanges the numbers of two tensors of one layout
{
    char block[256], *a = (char *)c->in[0].data, *b = (char *)c->in[1].data;
    size_t n = (size_t)nn_view_count(&c->in[0]) * sizeof(R), i, m;
    (void)t;
    for (i = 0; i < n; i += m) {
        m = n - i < sizeof block ? n - i : sizeof block;
        memcpy(block, a + i, m);
        memcpy(a + i, b + i, m);
        memcpy(b + i, block, m);
    }
}
#endif

// ---- the end of a visit: every word goes ----------------------------------------------------------------
#undef NN__FORWARD
#undef NN__BACKWARD
#if NN__IN_PLAIN || NN__IN_SIMD
#undef NN__K
#undef R
#undef V
#undef VI
#undef SEL
#undef BITS
#undef FLOATS
#undef SHL
#undef SQRT
#undef SET1
#undef ISET1
#undef NN__PARTS
#undef C
#undef FMA
#undef LOAD
#undef STORE
#undef ABS
#undef FLOOR
#undef ROUND
#undef EXP
#undef EXPM1
#undef LOG
#undef LOG1P
#undef SIN
#undef COS
#undef TANH
#undef ERF
#undef POW
#undef SIGMOID
#undef SOFTPLUS
#undef GELU_TANH_GRAD
#undef MISH_GRAD
#endif
#undef NN__MR
#undef NN__TALL
#undef NN__NV
#undef NN__NR
#undef NN__FMA
#undef NN__SQRT
#undef NN__MUL32
#undef NN__GET_PART
#undef NN__PUT_PART
#undef NN__IS_F64
#undef NN__PASS
#undef NN__LANES
#undef NN__REAL
#undef NN__IN_HOST
#undef NN__IN_PLAIN
#undef NN__IN_SIMD
#undef NN__VISIT
#endif // NN__VISIT

/*
   Revisions
       0.1.0  first version
       0.2.0  (not released) plans; updates during the walk; products in place, Winograd, a spinning pool, vectors everywhere; nn_profile; results
              and gradients share memory

   ------------------------------------------------------------------------------
   This software is available under 2 licenses; choose whichever you prefer.
   ------------------------------------------------------------------------------
   ALTERNATIVE A - MIT No Attribution License (MIT-0)
   Copyright (c) 2026 the authors of nn.h
   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files
   (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge,
   publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
   MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE
   FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION
   WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
   ------------------------------------------------------------------------------
   ALTERNATIVE B - Public Domain (www.unlicense.org)
   This is free and unencumbered software released into the public domain. Anyone is free to copy, modify, publish, use, compile, sell,
   or distribute this software, either in source code form or as a compiled binary, for any purpose, commercial or non-commercial, and
   by any means. In jurisdictions that recognize copyright laws, the author or authors of this software dedicate any and all copyright
   interest in the software to the public domain. We make this dedication for the benefit of the public at large and to the detriment of
   our heirs and successors. We intend this dedication to be an overt act of relinquishment in perpetuity of all present and future rights
   to this software under copyright law.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
   MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES
   OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
   THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
