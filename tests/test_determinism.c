/* test_determinism.c - the same bits for 1, 2, 3, 8 threads and on every table of a class; results that do not depend on the batch */
#define NN_DOUBLE
#include "library.h"
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
