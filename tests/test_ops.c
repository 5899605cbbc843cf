/* test_ops.c - every op of the table: gradients in double against finite differences, then every float table against double.

   1. In an f64 context the gradient of  sum(result * fixed random weights)  w.r.t. every variable is compared with central differences.
   2. For each float table of this machine the result and the gradients are compared with those of the f64 context.
   An op row without a case fails. See cases.h. */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"

#include "cases.h"

static int differs(double a, double b, double scale, double tolerance) { return !(fabs(a - b) <= tolerance * (scale + 1e-3)) && a != b && !(isnan(a) && isnan(b)); }

static int check_numeric(const op_case *k, fixture *f, const outcome *o)    /* central differences, 4th order */
{
    const double h = 1e-3;
    for (int v = 0; v < f->vars; v++) {
        double scale = 0;
        int64_t step = f->count[v] > 40 ? f->count[v] / 37 : 1;
        for (int64_t i = 0; i < f->count[v]; i++) if (fabs(o->dx[v][i]) > scale) scale = fabs(o->dx[v][i]);
        for (int64_t i = 0; i < f->count[v]; i += step) {
            double keep = f->value[v][i], s[4], d, slow, fast;
            static const double at[4] = { 1, -1, 2, -2 };
            for (int j = 0; j < 4; j++) { f->value[v][i] = keep + at[j] * h; s[j] = run_case(k, f, NULL); }
            f->value[v][i] = keep;
            fast = (s[0] - s[1]) / (2 * h); slow = (s[2] - s[3]) / (4 * h);
            d = (4 * fast - slow) / 3;
            if (fabs(fast - slow) > 1e-4 * (scale + 1)) continue;          /* a kink lies within the step: no derivative to compare */
            if (differs(d, o->dx[v][i], scale, 2e-6)) {
                printf("%s/%s: variable %d, element %lld: gradient %.9g, finite difference %.9g\n", k->name, k->label, v, (long long)i, o->dx[v][i], d);
                return 0;
            }
        }
    }
    return 1;
}

static int same_numbers(const op_case *k, const char *isa, const char *what, int v, int64_t n, const double *a, const double *b)
{
    double scale = 0;
    for (int64_t i = 0; i < n; i++) if (isfinite(b[i]) && fabs(b[i]) > scale) scale = fabs(b[i]);
    for (int64_t i = 0; i < n; i++) if (differs(a[i], b[i], scale, 1e-5)) {
        printf("%s/%s on %s: %s %d, element %lld: %.9g, in double %.9g\n", k->name, k->label, isa, what, v, (long long)i, a[i], b[i]);
        return 0;
    }
    return 1;
}

static int check_case(const op_case *k)
{
    fixture f;
    outcome exact, o;
    int ok = 1;
    memset(&f, 0, sizeof f); memset(&exact, 0, sizeof exact); memset(&o, 0, sizeof o);
    f.seed = 1;
    f.nn = nn_new(&(nn_desc){ .dtype = NN_F64, .threads = 1, .on_error = test_quiet });
    run_case(k, &f, &exact);
    if (nn_ok(f.nn) && k->grad) ok = check_numeric(k, &f, &exact);
    if (!nn_ok(f.nn)) { printf("%s/%s: %s\n", k->name, k->label, nn_error(f.nn)); ok = 0; }
    nn_free(f.nn);
    for (int i = 0; ok && test_isa(i); i++) {
        const char *isa = test_isa(i);
        f.nn = nn_new(&(nn_desc){ .isa = isa, .threads = 1 + (i & 1), .on_error = test_quiet });
        run_case(k, &f, &o);
        if (!nn_ok(f.nn)) { printf("%s/%s on %s: %s\n", k->name, k->label, isa, nn_error(f.nn)); ok = 0; }
        else if (o.n != exact.n) { printf("%s/%s on %s: another shape than in double\n", k->name, k->label, isa); ok = 0; }
        else {
            ok = same_numbers(k, isa, "result", 0, o.n, o.y, exact.y);
            for (int v = 0; ok && v < f.vars; v++)
                if (o.wanted[v] != exact.wanted[v]) { printf("%s/%s on %s: gradient of variable %d is missing\n", k->name, k->label, isa, v); ok = 0; }
                else ok = same_numbers(k, isa, "gradient", v, f.count[v], o.dx[v], exact.dx[v]);
        }
        nn_free(f.nn);
        free_outcome(&o);
    }
    free_outcome(&exact);
    for (int i = 0; i < MAX_VARS; i++) free(f.value[i]);
    return ok;
}

static const char *only;             /* NN_CASE=conv2d tests one op */
TEST(every_case)
{
    int cases = 0;
    only = getenv("NN_CASE");
    for (op_case *k = first_case; k; k = k->next) {
        if (only && strcmp(only, k->name)) continue;
        cases++;
        CHECK(check_case(k));
    }
    printf("%d cases\n", cases);
}

TEST(every_row_has_a_case)
{
    for (int op = 1; op < NN_OP_COUNT; op++) {
        int found = 0;
        for (op_case *k = first_case; k; k = k->next) found |= k->op == op;
        if (!found && !(nn__ops[op].flags & NN_OP_NO_GRAD)) { printf("no case for the op %s\n", nn__ops[op].name); CHECK(found); }
    }
}

/* One row of a matrix that no cache holds: in tiles, or as streams of rows where the processor's memory does not follow runs. The same bits. */
TEST(streams_and_tiles_are_the_same)
{
    static const int64_t sizes[][2] = { { 1030, 300 }, { 4099, 67 } };               /* outputs, terms */
    static float y[2][4099];
    for (int i = 0; test_isa(i); i++) for (int q = 0; q < 4; q++) {
        int64_t n = sizes[q / 2][0], k = sizes[q / 2][1];
        for (int runs = 0; runs < 2; runs++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = 1 + runs, .seed = 5 });
            nn->features = runs ? nn->features | NN__HAS_RUNS : nn->features & ~NN__HAS_RUNS;
            nn_begin(nn, NN_EVAL);
            nn_tensor *a = nn_randn(nn, NN_SHAPE(1, k), 0, 1), *b = nn_randn(nn, NN_SHAPE(k, n), 0, 1), *bias = q % 2 ? nn_randn(nn, NN_SHAPE(n), 0, 1) : NULL;
            CHECK(nn_read(bias ? nn_linear(a, nn_transpose(b, 0, 1), bias, NULL) : nn_matmul(a, b), y[runs]));
            for (int64_t j = 0; j < n; j += n / 9) {
                double sum = bias ? ((float *)bias->data)[j] : 0, size = fabs(sum);
                for (int64_t p = 0; p < k; p++) {
                    double term = (double)((float *)a->data)[p] * ((float *)b->data)[p * n + j];
                    sum += term;
                    size += fabs(term);
                }
                CHECK(fabs(y[runs][j] - sum) <= ldexp((double)(k + 1) * size, -24));
            }
            nn_free(nn);
        }
        CHECK(!memcmp(y[0], y[1], (size_t)n * sizeof **y));
    }
}
TEST(what_products_pack)                                 /* columns of A 8 KB apart, of many terms; always in 1 MB of scratch (see columns_far_apart_are_packed) */
{
    static const int64_t sizes[][4] = { { 56, 1024, 512, 1 }, { 71, 1030, 1031, 1 }, { 128, 1024, 1025, 1 }, { 1024, 1024, 1024, 1 }, { 5000, 300, 4000, 1 }, { 512, 4096, 9000, 1 },
                                            { 56, 1024, 500, 0 }, { 50, 1024, 600, 0 }, { 64, 200, 600, 0 } };       /* m, n, k, packed? */
    for (size_t q = 0; q < sizeof sizes / sizeof *sizes; q++) {
        nn__product g = { .m = sizes[q][0], .n = sizes[q][1], .k = sizes[q][2], .ars = 1, .acs = 2048, .brs = sizes[q][1], .bcs = 1, .ycs = 1 };
        CHECK(nn__gemm_cuts(&g).pack_a == sizes[q][3]);
        CHECK(nn__gemm_scratch(&g) <= 1 << 18);
        g.acs = 2050;
        CHECK(!nn__gemm_cuts(&g).pack_a);
    }
}
