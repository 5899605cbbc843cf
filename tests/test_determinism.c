/* test_determinism.c - the same bits for 1, 2, 3, 8 threads and on every table of a class; results that do not depend on the batch */
#ifndef TEST_LINKED
#define NN_IMPLEMENTATION
#endif
#define NN_DOUBLE
#include "../nn.h"
#include "test.h"
#include "determinism.h"

/* Class F fuses multiply-add, class N does not; under NN_DETERMINISTIC all are one. */
static int class_of(const char *isa)
{
#ifdef NN_DETERMINISTIC
    (void)isa;
    return 0;
#else
    return strcmp(isa, "scalar") != 0;
#endif
}

static void same_bits(uint64_t (*train)(nn_context *nn), const char *what, int winograd)
{
    static const int threads[] = { 1, 2, 3, 8 };
    uint64_t first[2] = { 0, 0 };
    for (int i = 0; test_isa(i); i++) {
        const char *isa = test_isa(i);
        for (int t = 0; t < 4; t++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = isa, .threads = threads[t], .seed = 1, .winograd = winograd });
            uint64_t h = train(nn), *expected = &first[class_of(isa)];
            nn_free(nn);
            CHECK(h != 0);
            if (!*expected) *expected = h;
            if (h != *expected) printf("%s: %s with %d threads gives %016llx, not %016llx\n", what, isa, threads[t], (unsigned long long)h, (unsigned long long)*expected);
            CHECK(h == *expected);
        }
    }
    printf("%s: class N %016llx, class F %016llx\n", what, (unsigned long long)first[0], (unsigned long long)first[1]);
}
TEST(mlp_training_gives_the_same_bits) { same_bits(train_mlp, "mlp", 0); }
TEST(cnn_training_gives_the_same_bits) { same_bits(train_cnn, "cnn", 0); }
TEST(rnn_training_gives_the_same_bits) { same_bits(train_rnn, "rnn", 0); }
TEST(special_kernels_give_the_same_bits)
{
    static const int tiles[] = { 4, 2, NN_ZERO };
    uint64_t hash[3];
    for (int i = 0; i < 3; i++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 1, .winograd = tiles[i] });
        hash[i] = train_paths(nn);
        nn_free(nn);
    }
    same_bits(train_paths, "paths", 4);
    same_bits(train_paths, "paths, small tiles", 2);
#ifndef NN_DETERMINISTIC
    CHECK(hash[0] != hash[1] && hash[1] != hash[2]);     /* else F(4x4), or F(2x2), was not among them */
#else
    CHECK(hash[0] == hash[2] && hash[1] == hash[2]);
#endif
}

/* The output of a sample is the same bits alone and in any batch. */
static void batch_independent(nn_layer *net, nn_shape one)
{
    nn_context *nn = nn_context_of(net);
    nn_shape all = one;
    static float together[64 * 64], alone[64];
    all.d[0] = 37;
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_keep(nn_randn(nn, all, 0, 1)), *y = nn_forward(net, x);
    int64_t width = nn_count(y) / 37;
    CHECK(nn_read(y, together));
    for (int i = 0; i < 37; i++) {
        CHECK(nn_read(nn_forward(net, nn_contiguous(nn_slice(x, 0, i, i + 1, 1))), alone));
        CHECK(!memcmp(alone, together + i * width, (size_t)width * sizeof(float)));
    }
    CHECK(nn_ok(nn));
}
TEST(a_sample_does_not_see_its_batch)
{
    for (int i = 0; test_isa(i); i++) {
        const char *isa = test_isa(i);
        nn_context *nn = nn_new(&(nn_desc){ .isa = isa });
        nn_layer *mlp = nn_model_new(nn, NULL), *cnn = nn_model_new(nn, NULL), *rnn = nn_model_new(nn, NULL);
        nn_linear_new(mlp, "fc1", 300, 70, NULL);
        nn_fn_new(mlp, nn_gelu);
        nn_layernorm_new(mlp, "norm", NN_SHAPE(70), NULL);
        nn_linear_new(mlp, "fc2", 70, 37, NULL);
        batch_independent(mlp, NN_SHAPE(1, 300));
        nn_conv2d_new(cnn, "conv1", 3, 10, 3, &(nn_conv2d_desc){ .padding = 1 });
        nn_batchnorm_new(cnn, "bn", 10, NULL);
        nn_fn_new(cnn, nn_relu);
        nn_maxpool2d_new(cnn, 2, NULL);
        nn_conv2d_new(cnn, "conv2", 10, 33, 3, NULL);
        nn_flatten_new(cnn);
        nn_linear_new(cnn, "fc", 33 * 3 * 3, 10, NULL);
        batch_independent(cnn, NN_SHAPE(1, 3, 10, 10));
        nn_lstm_new(rnn, "lstm", 5, 19, &(nn_lstm_desc){ .bidirectional = 1 });
        nn_gru_new(rnn, "gru", 38, 33, &(nn_gru_desc){ .last = 1 });
        batch_independent(rnn, NN_SHAPE(1, 4, 5));
        nn_free(nn);
    }
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
