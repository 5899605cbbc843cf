/* test.h - the harness: TEST(name) { CHECK(...); } registers itself; main runs all, or those whose name contains argv[1].

   How a test comes to nn.h: see library.h.
   A test that cannot run here calls SKIP("reason"). The last line of a program is  N passed, N failed, N skipped. */
#ifndef TEST_H
#define TEST_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct test_case { const char *name; void (*run)(void); struct test_case *next; } test_case;
static test_case *test_first, **test_last = &test_first;
static int test_failures, test_skipped, test_checks;     /* of the running test */

static void test_add(test_case *t) { *test_last = t; test_last = &t->next; }
#define TEST(id)                                                                             \
    static void test_##id(void);                                                             \
    static test_case test_case_##id = { #id, test_##id, NULL };                              \
    __attribute__((constructor)) static void test_register_##id(void) { test_add(&test_case_##id); } \
    static void test_##id(void)

#define CHECK(condition)                                                                     \
    do { test_checks++;                                                                      \
         if (!(condition) && test_failures++ < 10) printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); } while (0)
#define CHECK_NEAR(a, b, tolerance)                                                          \
    do { double test_a = (double)(a), test_b = (double)(b); test_checks++;                   \
         if (!(fabs(test_a - test_b) <= (tolerance)) && !(isnan(test_a) && isnan(test_b)) && test_a != test_b && test_failures++ < 10) \
             printf("%s:%d: failed: %s = %.9g, %s = %.9g\n", __FILE__, __LINE__, #a, test_a, #b, test_b); } while (0)
#define CHECK_TEXT(text, part)                                                               \
    do { const char *volatile test_v = (text), *test_t = test_v; test_checks++;                                         \
         if (!strstr(test_t, part) && test_failures++ < 10) printf("%s:%d: failed: \"%s\" does not contain \"%s\"\n", __FILE__, __LINE__, test_t, part); } while (0)
#define SKIP(reason) do { printf("skipped: %s\n", reason); test_skipped = 1; return; } while (0)

/* For on_error: errors that a test expects are not printed. */
__attribute__((unused)) static void test_quiet(void *user, const char *message) { (void)user; (void)message; }

/* The kernel tables of this machine in f32, by number; NULL after the last. */
__attribute__((unused)) static const char *test_isa(int number)
{
    static const char *const isas[] = { "scalar", "fma", "avx2", "avx512", "neon", "rvv", "wasm" };
    static const char *here[8];
    static int count = -1;
    if (count < 0) {
        count = 0;
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = isas[i], .on_error = test_quiet });
            if (nn_ok(nn)) here[count++] = isas[i];
            nn_free(nn);
        }
    }
    return number < count ? here[number] : NULL;
}

/* An error with these words, then clear it. */
#define CHECK_ERROR(nn, words) do { CHECK(!nn_ok(nn)); CHECK_TEXT(nn_error(nn), words); nn_clear(nn); } while (0)

/* A file and a 0 behind it; NULL: it cannot be opened. */
__attribute__((unused)) static char *slurp(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *p;
    long n;
    *size = 0;
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    n = ftell(f);
    rewind(f);
    p = malloc((size_t)n + 1);
    *size = fread(p, 1, (size_t)n, f);
    p[*size] = 0;
    fclose(f);
    return p;
}

/* The folder with data sets that are not in the repository, or NULL. */
__attribute__((unused)) static const char *test_shared(void)
{
    const char *path = getenv("NN_SHARED");
    FILE *f;
    if (path && path[0]) return path;
    f = fopen("../shared/data/README.md", "r");
    if (!f) return NULL;
    fclose(f);
    return "../shared/data";
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0, skipped = 0;
    for (test_case *t = test_first; t; t = t->next) {
        if (argc > 1 && !strstr(t->name, argv[1])) continue;
        test_failures = test_skipped = test_checks = 0;
        t->run();
        fflush(stdout);
        if (test_failures) printf("FAILED %s (%d of %d checks)\n", t->name, test_failures, test_checks);
        if (test_failures) failed++; else if (test_skipped) skipped++; else passed++;
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed != 0;
}
#endif
