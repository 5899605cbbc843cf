/* test_memory.c - allocator calls in steady state, failing allocations, a caller's buffer, measuring */
#define NN_IMPLEMENTATION
#include "../nn.h"
#include "test.h"

typedef struct counter { int64_t calls, live, fail_at; size_t bytes; } counter;
static void *count_malloc(void *user, size_t bytes)
{
    counter *c = user;
    void *p;
    if (++c->calls == c->fail_at) return NULL;
    p = malloc(bytes);
    if (p) { c->live++; c->bytes += bytes; }
    return p;
}
static void count_free(void *user, void *p) { ((counter *)user)->live--; free(p); }

static nn_layer *make_net(nn_context *nn)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc1", 8, 33, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "fc2", 33, 3, NULL);
    return net;
}
static nn_tensor *loss_of(nn_layer *net, nn_tensor *x, nn_tensor *y)
{
    return nn_binary_cross_entropy(nn_forward(net, x), y, NULL);
}
static int train(nn_context *nn, int steps)
{
    nn_layer *net = make_net(nn);
    nn_optimizer *opt = nn_adam_new(net, NULL);
    for (int i = 0; i < steps; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(16, 8), 0, 1), *y = nn_zeros(nn, NN_SHAPE(16, 3));
        nn_backward(loss_of(net, x, y));
        nn_step(opt);
    }
    return nn_ok(nn);
}

TEST(steady_state_allocates_nothing)
{
    counter c = { 0 };
    nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 2 });
    nn_layer *net = make_net(nn);
    nn_optimizer *opt = nn_adam_new(net, NULL);
    int64_t after = 0;
    for (int i = 0; i < 20; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(64, 8), 0, 1), *y = nn_zeros(nn, NN_SHAPE(64, 3)), *loss = loss_of(net, x, y);
        nn_keep(loss);
        nn_backward(loss);
        nn_step(opt);
        CHECK(isfinite(nn_item(loss)));
        if (i == 2) after = c.calls;
    }
    CHECK(nn_ok(nn));
    CHECK(c.calls == after);
    nn_free(nn);
    CHECK(c.live == 0);
}

TEST(smaller_batches_allocate_nothing)
{
    counter c = { 0 };
    nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 1 });
    nn_layer *net = make_net(nn);
    int64_t after = 0;
    for (int i = 0; i < 60; i++) {
        nn_begin(nn, NN_TRAIN);
        int64_t batch = i < 2 ? 500 : 1 + (i * 37) % 500;
        nn_backward(loss_of(net, nn_ones(nn, NN_SHAPE(batch, 8)), nn_zeros(nn, NN_SHAPE(batch, 3))));
        nn_zero_grad(net);
        if (i == 2) after = c.calls;
    }
    CHECK(nn_ok(nn) && c.calls == after);
    nn_free(nn);
}

TEST(reserve_ahead)
{
    counter c = { 0 };
    nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 1 });
    nn_begin(nn, NN_EVAL);
    nn_zeros(nn, NN_SHAPE(1));
    nn_begin(nn, NN_EVAL);
    CHECK(nn_reserve(nn, 1 << 20));
    int64_t before = c.calls;
    nn_zeros(nn, NN_SHAPE(200000));
    CHECK(nn_ok(nn) && c.calls == before);
    nn_free(nn);
}

TEST(nth_allocation_fails)
{
    for (int64_t n = 1; n < 200; n++) {
        counter c = { 0 };
        c.fail_at = n;
        nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 2, .on_error = test_quiet });
        int ok = nn && train(nn, 3);
        CHECK(ok || !nn_ok(nn));
        CHECK(ok || nn_error(nn)[0]);
        nn_free(nn);
        CHECK(c.live == 0);
        if (c.calls < n) { CHECK(n > 3); break; }
    }
}

static size_t bytes_for(int measure)
{
    nn_context *nn = nn_new(&(nn_desc){ .measure = measure, .threads = 1, .on_error = test_quiet });
    train(nn, 3);
    CHECK(nn_ok(nn));
    size_t n = nn_bytes_needed(nn);
    nn_free(nn);
    return n;
}
TEST(measuring_equals_running) { CHECK(bytes_for(1) == bytes_for(0)); CHECK(bytes_for(0) > 10000); }

TEST(callers_buffer)
{
    size_t need = bytes_for(1);
    char *raw = malloc(need + 256), *buffer = (char *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
    memset(buffer + need, 0x5A, 64);
    counter c = { 0 };
    nn_context *nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = need, .threads = 1, .malloc = count_malloc, .free = count_free, .user = &c, .on_error = test_quiet });
    CHECK(nn && train(nn, 3));
    CHECK(c.calls == 0);
    CHECK(nn_bytes_needed(nn) == need);
    for (int i = 0; i < 64; i++) CHECK(buffer[need + (size_t)i] == 0x5A);
    nn_free(nn);

    nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = need - 1, .threads = 1, .on_error = test_quiet });
    CHECK(nn && !train(nn, 3));
    char expect[64];
    snprintf(expect, sizeof expect, "%llu are needed", (unsigned long long)need);
    CHECK_TEXT(nn_error(nn), expect);
    nn_free(nn);
    free(raw);
}

TEST(any_smaller_buffer_is_an_error_and_nothing_more)
{
    size_t need = bytes_for(1);
    char *raw = malloc(need + 256);
    for (size_t n = 0; n < need; n += 61) {
        memset(raw, 0x5A, need + 256);
        nn_context *nn = nn_new(&(nn_desc){ .memory = raw, .bytes = n, .threads = 1, .on_error = test_quiet });
        if (nn) CHECK(!train(nn, 2));
        nn_free(nn);
        for (size_t i = n; i < n + 64; i++) if (raw[i] != 0x5A) { CHECK(raw[i] == 0x5A); break; }
    }
    free(raw);
}

TEST(peak_is_not_activations_plus_all_gradients)
{
    nn_context *nn = nn_new(&(nn_desc){ .measure = 1, .threads = 1 });
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(1000, 1000), NULL)), *y = x;
    nn_begin(nn, NN_TRAIN);
    for (int i = 0; i < 20; i++) y = nn_tanh(y);
    nn_backward(nn_sum(y, NN_ALL, NULL));
    CHECK(nn_bytes_needed(nn) < (size_t)(1 + 1 + 20 + 3) * 4000000);
    nn_free(nn);
}

TEST(impossible_sizes)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_tensor *t = nn_zeros(nn, NN_SHAPE(INT64_MAX, 4));
    CHECK(!nn_ok(nn) && nn_count(t) == 0);
    nn_clear(nn);
    nn_zeros(nn, NN_SHAPE(1LL << 40, 1LL << 20));
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    nn_zeros(nn, NN_SHAPE(3, -1));
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    CHECK(nn_item(nn_sum(nn_ones(nn, NN_SHAPE(3)), NN_ALL, NULL)) == 3.0);
    nn_free(nn);
}
