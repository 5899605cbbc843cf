/* test_words.c - the vector words against libm in double, over the full range of floats: at most 2 ulp, on every table */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

static double ulps(float got, double exact)
{
    float e = (float)exact, next;
    double ulp;
    if (isnan(exact)) return isnan(got) ? 0 : 1e9;
    if (isinf(e)) return got == e || fabsf(got) >= 3.402823e38f ? 0 : 1e9;
    next = nextafterf(fabsf(e), INFINITY);
    ulp = (double)next - (double)fabsf(e);
    return fabs((double)got - exact) / ulp;
}

typedef nn_tensor *(*word)(nn_tensor *);
static double exact_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double exact_floor(double x)   { return floor(x); }
static const struct { const char *name; word f; double (*exact)(double); double low, high; } words[] = {
    { "exp", nn_exp, exp, -INFINITY, INFINITY }, { "log", nn_log, log, 0, INFINITY }, { "log1p", nn_log1p, log1p, -1, INFINITY },
    { "sin", nn_sin, sin, -INFINITY, INFINITY }, { "cos", nn_cos, cos, -INFINITY, INFINITY }, { "tanh", nn_tanh, tanh, -INFINITY, INFINITY },
    { "erf", nn_erf, erf, -INFINITY, INFINITY }, { "sigmoid", nn_sigmoid, exact_sigmoid, -INFINITY, INFINITY }, { "sqrt", nn_sqrt, sqrt, 0, INFINITY },
    { "floor", nn_floor, exact_floor, -INFINITY, INFINITY }, { "round", nn_round, rint, -INFINITY, INFINITY } };

enum { PIECE = 1 << 15 };
static float in[PIECE], out[PIECE];

/* Every `stride`-th float, as bits, so all exponents are visited alike. */
static double worst_of(nn_context *nn, word f, double (*exact)(double), double low, double high, uint32_t stride, float *where)
{
    double worst = 0;
    uint64_t bits = 0;
    while (bits < 0x100000000ull) {
        int n = 0;
        for (; n < PIECE && bits < 0x100000000ull; bits += stride) {
            uint32_t b = (uint32_t)bits;
            float x;
            memcpy(&x, &b, 4);
            if (x >= low && x <= high) in[n++] = x;
        }
        if (n == 0) continue;
        nn_begin(nn, NN_EVAL);
        nn_read(f(nn_from(nn, NN_SHAPE(n), in)), out);
        for (int i = 0; i < n; i++) {
            double u = ulps(out[i], exact(in[i]));
            if (u > worst) { worst = u; *where = in[i]; }
        }
    }
    return worst;
}

static uint32_t stride_of(void) { const char *s = getenv("NN_WORD_STRIDE"); return s ? (uint32_t)strtoul(s, NULL, 10) : 4099; }

TEST(words_are_within_2_ulp)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        static const char *const tables[] = { "scalar", "fma" };   /* one of each class; the class's others have its bits (test_determinism) */
        for (int t = 0; t < 2; t++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = tables[t], .on_error = test_quiet });
            float where = 0;
            if (!nn_ok(nn)) { nn_free(nn); continue; }
            double worst = worst_of(nn, words[i].f, words[i].exact, words[i].low, words[i].high, stride_of(), &where);
            printf("%-8s %-7s %.3f ulp at %.9g\n", words[i].name, tables[t], worst, (double)where);
            CHECK(worst <= 2.0);
            nn_free(nn);
        }
    }
}

static double pow_fixed;
static double exact_pow(double x) { return pow(x, pow_fixed); }
static nn_tensor *pow_word(nn_tensor *x) { return nn_pow_scalar(x, (float)pow_fixed); }
TEST(pow_is_within_2_ulp)
{
    static const float exponents[] = { 0.5f, -0.5f, 2, 3, -1, -3, 7, 0.1f, 1.7f, -2.3f, 10, 33.3f, -20, 0, 1, 100, 1e-3f };
    static const char *const tables[] = { "scalar", "fma" };
    for (int t = 0; t < 2; t++) {
        nn_context *nn = nn_new(&(nn_desc){ .isa = tables[t], .on_error = test_quiet });
        double worst = 0;
        float where = 0;
        if (!nn_ok(nn)) { nn_free(nn); continue; }
        for (size_t i = 0; i < sizeof exponents / sizeof *exponents; i++) {
            pow_fixed = exponents[i];
            double u = worst_of(nn, pow_word, exact_pow, -INFINITY, INFINITY, stride_of() * 16 + 1, &where);
            if (u > worst) worst = u;
            if (u > 2) printf("pow %s: %.3f ulp at %.9g ^ %.9g\n", tables[t], u, (double)where, pow_fixed);
        }
        printf("pow      %-7s %.3f ulp\n", tables[t], worst);
        CHECK(worst <= 2.0);
        nn_free(nn);
    }
}
