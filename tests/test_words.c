/* test_words.c - the vector words against libm in double, over the full range of floats: at most 2 ulp, on every table */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

/* The distance in units of the last place of the exact result as a float. */
static double ulps(float got, double exact)
{
    float e = (float)exact;
    uint32_t bits;
    memcpy(&bits, &e, 4);
    if (isnan(exact)) return isnan(got) ? 0 : 1e9;
    if (isnan(got)) return 1e9;
    if (isinf(e)) return got == e || (fabsf(got) >= 3.402823e38f && signbit(got) == signbit(e)) ? 0 : 1e9;
    uint64_t power = bits >> 23 & 255, ulp = ((power ? power : 1) + 1023 - 150) << 52;       /* 2^exponent */
    double unit;
    memcpy(&unit, &ulp, 8);
    return isinf(got) ? 1e9 : fabs((double)got - exact) / unit;
}

typedef nn_tensor *(*word)(nn_tensor *);
typedef struct worst { nn_context *nn; double ulps; float where; } worst;

/* Plain C, and the best table (NN_ISA: another): one of each class; the class's others have its bits (test_determinism). */
enum { TABLES = 2 };
static int open_tables(worst *w)
{
    for (int t = 0; t < TABLES; t++) w[t] = (worst){ nn_new(&(nn_desc){ .isa = t ? NULL : "scalar", .threads = 1 }), 0, 0 };
    return strcmp(nn_isa(w[1].nn), "scalar") ? TABLES : 1;
}
static void close_tables(worst *w) { for (int t = 0; t < TABLES; t++) nn_free(w[t].nn); }

/* Every `stride`-th float, as bits, so all exponents are visited alike; NaN and what lies outside of the domain, too. */
enum { PIECE = 1 << 13 };
static void find_worst(worst *w, int tables, word f, double (*exact)(double), uint64_t stride)
{
    static float in[PIECE], out[PIECE];
    static double right[PIECE];
    uint64_t bits = 0;
    while (bits < 0x100000000ull) {
        int n = 0;
        for (; n < PIECE && bits < 0x100000000ull; bits += stride, n++) {
            uint32_t b = (uint32_t)bits;
            memcpy(&in[n], &b, 4);
            right[n] = exact(in[n]);
        }
        for (int t = 0; t < tables; t++) {
            nn_begin(w[t].nn, NN_EVAL);
            nn_read(f(nn_from(w[t].nn, NN_SHAPE(n), in)), out);
            for (int i = 0; i < n; i++) {
                double u = ulps(out[i], right[i]);
                if (u > w[t].ulps) { w[t].ulps = u; w[t].where = in[i]; }
            }
        }
    }
}

/* NN_WORD_STRIDE=1: all 2^32 floats, some minutes for a word. Each is a test of its own, so several may run at once: test_words sin_is */
static uint64_t stride_of(void) { const char *s = getenv("NN_WORD_STRIDE"); return s && atoi(s) > 0 ? (uint64_t)atoi(s) : 4099; }
static void check_word(const char *name, word f, double (*exact)(double))
{
    worst w[TABLES];
    int tables = open_tables(w);
    find_worst(w, tables, f, exact, stride_of());
    for (int t = 0; t < tables; t++) {
        printf("%-8s %-7s %.3f ulp at %.9g\n", name, nn_isa(w[t].nn), w[t].ulps, (double)w[t].where);
        CHECK(w[t].ulps <= 2.0);
    }
    close_tables(w);
}
static double exact_sigmoid(double x)  { return 1 / (1 + exp(-x)); }
static double exact_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }
static double exact_elu(double x)      { return x > 0 ? x : expm1(x); }
static nn_tensor *elu(nn_tensor *x)      { return nn_elu(x, 1); }
static nn_tensor *softplus(nn_tensor *x) { return nn_softplus(x, 1); }
#define WORD(name, f, exact) TEST(name##_is_within_2_ulp) { check_word(#name, f, exact); }
WORD(exp, nn_exp, exp) WORD(log, nn_log, log) WORD(log1p, nn_log1p, log1p) WORD(sin, nn_sin, sin) WORD(cos, nn_cos, cos) WORD(tanh, nn_tanh, tanh)
WORD(erf, nn_erf, erf) WORD(sigmoid, nn_sigmoid, exact_sigmoid) WORD(sqrt, nn_sqrt, sqrt) WORD(floor, nn_floor, floor) WORD(round, nn_round, rint)
WORD(softplus, softplus, exact_softplus) WORD(expm1, elu, exact_elu)

static double pow_fixed;
static double exact_pow(double x) { return pow(x, pow_fixed); }
static nn_tensor *pow_word(nn_tensor *x) { return nn_pow_scalar(x, (float)pow_fixed); }
TEST(pow_is_within_2_ulp)
{
    static const float exponents[] = { 0.5f, -0.5f, 2, 3, -1, -3, 7, 0.1f, 1.7f, -2.3f, 10, 33.3f, -20, 0, 1, 100, 1e-3f };
    worst w[TABLES], all[TABLES] = { { NULL, 0, 0 } };
    int tables = open_tables(w);
    for (size_t i = 0; i < sizeof exponents / sizeof *exponents; i++) {
        pow_fixed = exponents[i];
        find_worst(w, tables, pow_word, exact_pow, stride_of() * 16 + 1);
        for (int t = 0; t < tables; t++) {
            if (w[t].ulps > 2) printf("pow %s: %.3f ulp at %.9g ^ %.9g\n", nn_isa(w[t].nn), w[t].ulps, (double)w[t].where, pow_fixed);
            if (w[t].ulps > all[t].ulps) all[t] = w[t];
            w[t].ulps = 0;
        }
    }
    for (int t = 0; t < tables; t++) {
        printf("%-8s %-7s %.3f ulp\n", "pow", nn_isa(w[t].nn), all[t].ulps);
        CHECK(all[t].ulps <= 2.0);
    }
    close_tables(w);
}

/* ---- which table is taken: nn_desc.isa and NN_ISA ---- */
#ifndef _WIN32
int setenv(const char *name, const char *value, int overwrite), unsetenv(const char *name);     /* -std=c11 hides them */
#endif
static void set_wish(const char *isa)
{
#ifdef _WIN32
    char text[40];
    snprintf(text, sizeof text, "NN_ISA=%s", isa ? isa : "");
    _putenv(text);
#else
    if (isa) setenv("NN_ISA", isa, 1);
    else unsetenv("NN_ISA");
#endif
}
/* By another way than nn.h's: what this program has kernels for and this processor runs. -1: not known here. */
static int is_here(const char *isa)
{
    if (!strcmp(isa, "scalar")) return 1;
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__TINYC__) && !defined(_WIN32)
#ifdef NN_NO_SIMD
    return 0;
#else
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(isa, "fma")) return __builtin_cpu_supports("fma") != 0;
#ifndef NN_NO_AVX2
    if (!strcmp(isa, "avx2")) return avx2;
#endif
#ifndef NN_NO_AVX512
    if (!strcmp(isa, "avx512")) return avx512;
#endif
    (void)avx512;
    return 0;
#endif
#endif
    return -1;
}
/* 1: `isa` was taken. 0: an error that names it, and plain C goes on. */
static int took(const char *desc, const char *isa)
{
    nn_context *nn = nn_new(&(nn_desc){ .isa = desc, .threads = 1, .on_error = test_quiet });
    int ok = nn_ok(nn);
    if (ok) CHECK(!strcmp(nn_isa(nn), isa));
    else {
        char words[40];
        snprintf(words, sizeof words, "nn_new: no kernels \"%s\" for f32", isa);
        CHECK_ERROR(nn, words);
        CHECK(!strcmp(nn_isa(nn), "scalar"));
        nn_begin(nn, NN_EVAL);
        CHECK(nn_item(nn_sum(nn_ones(nn, NN_SHAPE(70)), NN_ALL, NULL)) == 70 && nn_ok(nn));
    }
    nn_free(nn);
    return ok;
}
static int took_best(const char *desc, const char *best)
{
    nn_context *nn = nn_new(&(nn_desc){ .isa = desc, .threads = 1, .on_error = test_quiet });
    int same = nn_ok(nn) && !strcmp(nn_isa(nn), best);
    nn_free(nn);
    return same;
}
TEST(the_table_that_was_asked_for)
{
    static const char *const names[] = { "scalar", "fma", "avx2", "avx512", "neon", "rvv", "wasm", "sse9", "AVX2", "avx" };
    const char *outside = getenv("NN_ISA");
    char before[40] = { 0 }, best[40];
    int here = 0, listed = 0;
    if (outside) snprintf(before, sizeof before, "%s", outside);
    set_wish(NULL);
    nn_context *nn = nn_new(NULL);
    snprintf(best, sizeof best, "%s", nn_isa(nn));       /* on x86 the widest */
    nn_free(nn);
    CHECK(is_here("avx512") == 1 ? !strcmp(best, "avx512") : is_here("avx2") == 1 ? !strcmp(best, "avx2") : is_here("avx2") < 0 || !strcmp(best, "fma") || !strcmp(best, "scalar"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        set_wish(NULL);
        int by_desc = took(names[i], names[i]);
        set_wish(names[i]);
        CHECK(took(NULL, names[i]) == by_desc);                       /* the environment's, where the desc says nothing */
        CHECK(is_here(names[i]) < 0 || is_here(names[i]) == by_desc);
        if (by_desc) printf("%s is here\n", names[i]);
        CHECK(took("scalar", "scalar"));                              /* the desc wins ... */
        CHECK(took_best("", best));                                   /* ... also with the best */
        set_wish("scalar");
        CHECK(took(names[i], names[i]) == by_desc);
        here += by_desc;
    }
    set_wish("");
    CHECK(took_best(NULL, best));
    set_wish(NULL);
    while (test_isa(listed)) listed++;
    CHECK(here == listed);
    set_wish("scalar");
    nn = nn_new(&(nn_desc){ .dtype = NN_F64 });                       /* double has one table, whatever is asked for */
    CHECK(nn_ok(nn) && !strcmp(nn_isa(nn), "f64"));
    nn_free(nn);
    set_wish(outside ? before : NULL);
}
