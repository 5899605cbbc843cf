/* test_memory.c - allocator calls in steady state, failing allocations, a caller's buffer, measuring */
#include "library.h"
#include "test.h"

typedef struct counter { int64_t calls, live, fail_at, from; size_t bytes; } counter;       /* the call that fails; that and all behind it */
static void *count_malloc(void *user, size_t bytes)
{
    counter *c = user;
    void *p;
    if (++c->calls == c->fail_at || (c->from && c->calls >= c->from)) return NULL;
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

#if defined(__linux__)
/* "hg" among the flags of the mapping that holds the middle of a tensor: 1, none: 0, not to be found out: -1 */
static int asks_for_huge_pages(const nn_desc *desc)
{
    nn_context *nn = nn_new(desc);
    nn_tensor *x = nn_zeros(nn, NN_SHAPE(1 << 22));
    unsigned long at = x ? (unsigned long)((char *)x->data + (8 << 20)) : 0, first, last;
    FILE *f = fopen("/proc/self/smaps", "r");
    char line[512];
    int here = 0, found = -1;
    while (f && found < 0 && fgets(line, sizeof line, f)) {
        if (sscanf(line, "%lx-%lx ", &first, &last) == 2) here = first <= at && at < last;
        else if (here && !strncmp(line, "VmFlags:", 8)) found = strstr(line, " hg") != NULL;
    }
    if (f) fclose(f);
    nn_free(nn);
    return found;
}
static char own_memory[64 << 20];
static void *own_malloc(void *used, size_t bytes)
{
    char *at = own_memory + *(size_t *)used;
    bytes = (bytes + 63) / 64 * 64;
    if (*(size_t *)used + bytes > sizeof own_memory) return NULL;
    *(size_t *)used += bytes;
    return at;
}
static void own_free(void *used, void *at) { (void)used; (void)at; }
TEST(large_blocks_ask_for_huge_pages)
{
    size_t used = 0;
    FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (f) fclose(f);
    if (!f || asks_for_huge_pages(NULL) < 0) SKIP("the kernel has no huge pages to ask for, or does not tell");
    CHECK(asks_for_huge_pages(NULL) == 1);
    CHECK(asks_for_huge_pages(&(nn_desc){ .malloc = own_malloc, .free = own_free, .user = &used }) == 0);
    CHECK(used > 1 << 24);
}
#endif

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
    nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 1, .on_error = test_quiet });
    nn_begin(nn, NN_EVAL);
    nn_zeros(nn, NN_SHAPE(1));
    nn_begin(nn, NN_EVAL);
    CHECK(nn_reserve(nn, 1 << 20));
    int64_t before = c.calls;
    nn_zeros(nn, NN_SHAPE(200000));
    CHECK(nn_ok(nn) && c.calls == before);
    CHECK(!nn_reserve(nn, 1 << 20) && nn_ok(nn));         /* in the middle of a step: no */
    nn_begin(nn, NN_EVAL);
    c.from = 1;
    CHECK(!nn_reserve(nn, 1 << 24));
    CHECK_ERROR(nn, "out of memory");
    c.from = 0;
    CHECK(nn_reserve(nn, 1 << 24) && nn_count(nn_zeros(nn, NN_SHAPE(1 << 20))) == 1 << 20 && nn_ok(nn));
    nn_free(nn);
}

/* Everything once: a CNN with batch norm and dropout is made, trained, saved, loaded, run, evaluated. */
static int whole_life(nn_context *nn)
{
    static float x[24 * 36];
    static int64_t labels[24];
    static char file[1 << 16];
    size_t bytes = 0;
    nn_batch b;
    nn_report report;
    for (int i = 0; i < 24 * 36; i++) x[i] = (float)((i * 37) % 101) / 101;
    for (int i = 0; i < 24; i++) labels[i] = i % 3;
    nn_layer *net = nn_model_new(nn, NULL);
    nn_dataset *data = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 24, .x_shape = NN_SHAPE(1, 6, 6), .classes = 3, .x = x, .labels = labels });
    nn_scaler_new(net, data);
    nn_conv2d_new(net, "conv", 1, 4, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_batchnorm_new(net, "bn", 4, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_dropout_new(net, 0.2f);
    nn_linear_new(net, "fc", 4 * 9, 3, NULL);
    nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .clip_norm = 1 });
    nn_loader *loader = nn_loader_new(data, &(nn_loader_desc){ .batch = 8, .shuffle = 1, .augment = &(nn_augment_desc){ .crop_padding = 1, .noise = 0.1f } });
    while (nn_loader_next(loader, &b)) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_cross_entropy(nn_forward(net, b.x), b.y, NULL));
        nn_step(opt);
    }
    nn_fit(net, &(nn_fit_desc){ .train = loader, .validation = loader, .loss = nn_cross_entropy, .optimizer = opt, .epochs = 2, .patience = 1, .quiet = 1 });
    if (!nn_save_memory(net, file, sizeof file, &bytes, &(nn_save_desc){ .optimizer = opt, .loader = loader })) return 0;
    if (!nn_load_memory(net, file, bytes, NULL)) return 0;
    if (!nn_evaluate(net, loader, nn_cross_entropy, NULL, &report)) return 0;
    nn_begin(nn, NN_EVAL);
    nn_tensor *y = nn_softmax(nn_forward(net, nn_zeros(nn, NN_SHAPE(2, 1, 6, 6))), -1);
    float p[6];
    return nn_read(y, p) && nn_ok(nn);
}

TEST(nth_allocation_fails_in_a_whole_life)
{
    int64_t n = 1;
    for (; n < 2000; n++) {
        counter c = { 0 };
        c.fail_at = n;
        nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 2, .on_error = test_quiet, .log = test_quiet });
        int ok = nn && whole_life(nn);
        CHECK(ok || !nn_ok(nn));
        CHECK(ok || nn_error(nn)[0]);
        nn_free(nn);
        CHECK(c.live == 0);
        if (c.calls < n) { CHECK(ok); break; }
    }
    CHECK(n > 4 && n < 2000);         /* memory is taken in large blocks: there are few calls */
}

TEST(callers_buffer_for_a_whole_life)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1, .on_error = test_quiet, .log = test_quiet });
    CHECK(whole_life(nn));
    size_t need = nn_bytes_needed(nn);
    nn_free(nn);
    char *raw = malloc(need + 128), *buffer = (char *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
    nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = need, .threads = 1, .on_error = test_quiet, .log = test_quiet });
    CHECK(nn && whole_life(nn));
    nn_free(nn);
    nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = need - 1, .threads = 1, .on_error = test_quiet, .log = test_quiet });
    CHECK(nn && !whole_life(nn));
    CHECK_TEXT(nn_error(nn), "are needed");
    nn_free(nn);
    free(raw);
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

/* ---- after an error of memory --------------------------------------------------------------------------------------------- */
/* What was small and found no memory is there again after nn_clear: no tensor of size 0 without an error. */
TEST(small_things_after_nn_clear)
{
    char memory[1 << 13];
    nn_context *nn = nn_new(&(nn_desc){ .memory = memory, .bytes = sizeof memory, .threads = 1, .on_error = test_quiet });
    int n = 0;
    while (nn_ok(nn) && n < 1000) { nn_tensor_new(nn, NN_SHAPE(1), NULL); n++; }
    CHECK(n > 1 && n < 1000 && !nn_ok(nn));
    nn_clear(nn);
    CHECK(nn_count(nn_tensor_new(nn, NN_SHAPE(1), NULL)) == 0 && !nn_ok(nn));
    nn_free(nn);
    counter c = { 0 };
    nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 1, .on_error = test_quiet });
    c.from = 1;
    while (nn_ok(nn)) nn_tensor_new(nn, NN_SHAPE(1), NULL);
    c.from = 0;
    nn_clear(nn);
    for (int i = 0; i < 5; i++) CHECK(nn_count(nn_tensor_new(nn, NN_SHAPE(1), NULL)) == 1 && nn_ok(nn));
    nn_free(nn);
    CHECK(c.live == 0);
}

/* Memory ends in a step, each time at another place of an op, and is there again after nn_clear: what runs then, in the same step, has its gradient. */
TEST(tape_after_nn_clear)
{
    for (int n = 0; n < 40; n++) {
        counter c = { 0 };
        float three = 3, dx = 0;
        nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 1, .on_error = test_quiet });
        nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(1), &three));
        for (int i = 0; i < n; i++) nn_tensor_new(nn, NN_SHAPE(80), NULL);
        nn_zeros(nn, NN_SHAPE(1 << 16));                 /* room for the numbers of the step: it is its heads and nodes that find none */
        nn_begin(nn, NN_TRAIN);
        c.from = 1;
        while (nn_ok(nn)) nn_square(x);
        c.from = 0;
        nn_clear(nn);
        nn_backward(nn_sum(nn_square(x), NN_ALL, NULL));
        CHECK(nn_ok(nn) && nn_read(nn_grad(x), &dx) && dx == 6);
        nn_free(nn);
        CHECK(c.live == 0);
    }
}

/* Plans, steps that are repeated, tokens with a cache, texts: at every allocation none is left; then there is memory again, and all is well. */
static int plan_life(nn_context *nn)
{
    float x[5 * 36] = { 0 }, y[5 * 3];
    static char workspace[1 << 16];
    nn_layer *net = nn_model_new(nn, NULL);
    nn_conv2d_new(net, NULL, 1, 4, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_batchnorm_new(net, NULL, 4, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_linear_new(net, NULL, 36, 3, NULL);
    nn_plan *p = nn_plan_new(net, NN_SHAPE(5, 1, 6, 6), NULL);
    int ok = nn_plan_bytes(p) <= sizeof workspace && nn_run(p, workspace, x, y);
    nn_plan_print(p);
    nn_plan_free(p);
    return ok && nn_ok(nn);
}
static int step_life(nn_context *nn)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, NULL, 7, 9, &(nn_linear_desc){ .activation = nn_relu });
    nn_batchnorm_new(net, NULL, 9, NULL);
    nn_dropout_new(net, 0.1f);
    nn_linear_new(net, NULL, 9, 2, NULL);
    nn_step_plan *p = nn_step_plan_new(net, &(nn_step_plan_desc){ .loss = nn_mse, .optimizer = nn_adamw_new(net, &(nn_adamw_desc){ .clip_norm = 1 }) });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(6, 7), NULL), *y = nn_tensor_new(nn, NN_SHAPE(6, 2), NULL);
    int ok = p != NULL;
    for (int i = 0; i < 5; i++) ok &= isfinite(nn_item(nn_step_plan_run(p, x, y)));
    nn_step_plan_free(p);
    return ok;
}
enum { WORDS = 11, WIDTH = 8, HEADS = 2, LONGEST = 30 };
typedef struct writer { nn_layer *net, *tokens, *block, *head; nn_kv_cache *cache; } writer;
static nn_tensor *write_forward(void *self, nn_tensor *ids)
{
    writer *w = self;
    int64_t at = w->cache ? nn_kv_cache_length(w->cache) : 0;
    nn_tensor *x = nn_add(nn_forward(w->tokens, ids), nn_slice(nn_param(w->net, "positions.weight"), 0, at, at + nn_dim(ids, 1), 1));
    return nn_forward(w->head, nn_transformer_encoder_layer_forward(w->block, x, &(nn_attention_desc){ .cache = w->cache }));
}
static int any_words(void *self, const nn_generate_step *s)
{
    (void)self;
    for (int64_t i = 0; i < s->batch * WORDS; i++) s->logits[i] = (float)(i * 7 % WORDS);
    return 1;
}
static int writer_life(nn_context *nn)
{
    writer w = { 0 };
    int64_t prompt[8] = { 1, 2, 3, 4, 5, 6 }, out[2 * LONGEST], counts[2] = { 2, 4 }, made[2];
    nn_generate_desc d = { .vocabulary = WORDS, .context = LONGEST, .cache = &w.cache, .caches = 1 }, e = { .vocabulary = WORDS, .step = any_words };
    d.model = w.net = nn_model_new(nn, &(nn_model_desc){ .forward = write_forward, .self = &w, .release = 1 });
    w.tokens = nn_embedding_new(w.net, "tokens", WORDS, WIDTH);
    nn_embedding_new(w.net, "positions", LONGEST, WIDTH);
    w.block = nn_transformer_encoder_layer_new(w.net, NULL, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 12, .causal = 1 });
    w.head = nn_linear_new(w.net, "head", WIDTH, WORDS, NULL);
    w.cache = nn_kv_cache_new(nn, 1, HEADS, LONGEST, WIDTH / HEADS, 0);
    if (!nn_ok(nn) || nn_generate(nn, prompt, 4, out, 12, &d) != 12 || !nn_generate_batch(nn, prompt, counts, 2, 4, out, made, 6, &e)) return 0;
    e.beams = 3;
    return nn_generate(nn, prompt, 4, out, 6, &e) == 6;
}
static int text_life(nn_context *nn)
{
    const char *text = "the cat sat on the mat, the cat sat on the hat; then the cat that sat there sat. \xC3\xA4\xE2\x82\xAC the the";
    int64_t ids[200], n;
    char back[400];
    nn_batch b;
    nn_tokenizer *t = nn_bpe_tokenizer_new(nn, text, strlen(text), 280, NULL);
    n = nn_encode(t, text, strlen(text), ids, 200, NULL);
    if (n < 0 || nn_decode(t, ids, n, back, sizeof back, NULL) != strlen(text)) return 0;
    t = nn_wordpiece_tokenizer_parse(nn, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n", 46, NULL);
    if (nn_encode(t, text, strlen(text), ids, 200, NULL) < 0) return 0;
    nn_loader *l = nn_loader_new(nn_texts_new(nn, (int64_t[]){ 0, 9, 20, 31 }, 3, &(nn_tokens_desc){ .tokens = ids, .count = 31 }), &(nn_loader_desc){ .batch = 2 });
    return nn_loader_next(l, &b) && nn_loader_next(l, &b) && !nn_loader_next(l, &b);
}
TEST(no_memory_left_and_there_again)
{
    static int (*const life[])(nn_context *) = { plan_life, step_life, writer_life, text_life, whole_life };
    static char memory[1 << 18];
    for (int k = 0; k < 5; k++) {
        int64_t n = 1, calls = 1;
        for (; n <= calls && n < 300; n++) {
            counter c = { .from = n };
            nn_context *nn = nn_new(&(nn_desc){ .malloc = count_malloc, .free = count_free, .user = &c, .threads = 2, .on_error = test_quiet, .log = test_quiet });
            int ok = nn && life[k](nn);
            CHECK(ok == nn_ok(nn));              /* a step plan without memory runs as always */
            calls = nn && ok ? n - 1 : n + 1;
            c.from = 0;
            nn_clear(nn);
            CHECK(!nn || (life[k](nn) && nn_ok(nn)));
            nn_free(nn);
            CHECK(c.live == 0);
        }
        CHECK(n > 4 && n < 300);
        for (size_t bytes = 3000; bytes < sizeof memory; bytes += bytes / 16) {          /* in a buffer: it does not get larger */
            nn_context *nn = nn_new(&(nn_desc){ .memory = memory, .bytes = bytes, .threads = 1, .on_error = test_quiet, .log = test_quiet });
            for (int turn = 0; nn && turn < 2; turn++, nn_clear(nn)) {
                int ok = life[k](nn);
                CHECK(ok == nn_ok(nn) && (ok || strstr(nn_error(nn), "out of memory") || strstr(nn_error(nn), "are needed")));
            }
            nn_free(nn);
        }
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

/* What layers hand to each other is released; what the user has seen stays, and no number depends on it. */
static nn_tensor *seen;
static nn_tensor *look(nn_tensor *x) { seen = x; return x; }
static nn_tensor *by_hand(void *self, nn_tensor *x)      /* the same layers, but in the user's hands: nothing is released */
{
    nn_layer *net = *(nn_layer **)self;
    char name[16];
    for (int i = 0; i < 9; i++) { snprintf(name, sizeof name, "%d", i); x = nn_forward(nn_child(net, name), x); }
    return x;
}
static size_t released_net(nn_desc d, int own, float *grads, float *scores)
{
    nn_layer *net = NULL;
    d.seed = 3; d.threads = 1; d.on_error = test_quiet;
    nn_context *nn = nn_new(&d);
    if (!nn) return 0;
    net = nn_model_new(nn, own ? &(nn_model_desc){ .forward = by_hand, .self = &net } : NULL);
    nn_conv2d_new(net, NULL, 1, 4, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_batchnorm_new(net, NULL, 4, NULL);
    nn_fn_new(net, nn_relu);
    nn_fn_new(net, look);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_dropout_new(net, 0.3f);
    nn_fn_new(net, nn_gelu);
    nn_linear_new(net, NULL, 64, 3, NULL);
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.1f, .momentum = 0.9f });
    nn_tensor *params[8];
    int n = nn_params(net, params, 8);
    float x[5 * 64], before[5 * 256], after[5 * 256];
    for (int i = 0; i < 5 * 64; i++) x[i] = (float)(i * 37 % 29) / 29 - 0.4f;
    for (int step = 0; step < 3 && nn_ok(nn); step++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *y = nn_forward(net, nn_from(nn, NN_SHAPE(5, 1, 8, 8), x));
        if (!d.measure && nn_ok(nn)) CHECK(nn_read(seen, before));
        nn_backward(nn_mean(nn_square(y), NN_ALL, NULL));
        if (!d.measure && nn_ok(nn)) { CHECK(nn_read(seen, after)); CHECK(!memcmp(before, after, sizeof before)); }
        if (step == 1) continue;     /* its gradients stay and the next are added */
        for (int i = 0, at = 0; i < n && step == 2 && grads; at += (int)nn_count(params[i++])) nn_read(nn_grad(params[i]), grads + at);
        nn_step(opt);
    }
    nn_begin(nn, NN_EVAL);
    nn_tensor *y = nn_forward(net, nn_from(nn, NN_SHAPE(5, 1, 8, 8), x));
    if (scores) nn_read(y, scores);
    size_t bytes = nn_ok(nn) ? nn_bytes_needed(nn) : 0;
    nn_free(nn);
    return bytes;
}
TEST(what_nobody_reads_is_released)
{
    float g[2][400] = { { 0 } }, y[2][15];
    nn_desc d = { .measure = 0 }, m = { .measure = 1 };
    size_t small = released_net(d, 0, g[0], y[0]), large = released_net(d, 1, g[1], y[1]), need = released_net(m, 0, NULL, NULL);
    CHECK(small > 0 && small < large);
    CHECK(!memcmp(g[0], g[1], sizeof g[0]) && g[0][0] != 0);
    CHECK(!memcmp(y[0], y[1], sizeof y[0]));
    char *raw = malloc(need + 64), *buffer = (char *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
    nn_desc b = { .memory = buffer, .bytes = need };
    CHECK(released_net(b, 0, g[1], y[1]) == need);
    CHECK(!memcmp(g[0], g[1], sizeof g[0]) && !memcmp(y[0], y[1], sizeof y[0]));
    b.bytes = need - 64;
    CHECK(released_net(b, 0, NULL, NULL) == 0);
    free(raw);
}

/* LeNet's sizes: what its backward frees lies between gradients of weights, which move down to make room. */
static size_t lenet(nn_desc d, int own, float *weights)
{
    nn_layer *net = NULL;
    d.seed = 3; d.threads = 1; d.on_error = test_quiet;
    nn_context *nn = nn_new(&d);
    if (!nn) return 0;
    net = nn_model_new(nn, own ? &(nn_model_desc){ .forward = by_hand, .self = &net } : NULL);
    nn_conv2d_new(net, NULL, 1, 8, 5, &(nn_conv2d_desc){ .padding = 2 });
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_conv2d_new(net, NULL, 8, 16, 5, &(nn_conv2d_desc){ .padding = 2, .activation = nn_relu });
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_linear_new(net, NULL, 16 * 49, 64, &(nn_linear_desc){ .activation = nn_relu });
    nn_dropout_new(net, 0.3f);
    nn_linear_new(net, NULL, 64, 3, NULL);
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.1f, .momentum = 0.9f });
    float x[4 * 784];
    for (int i = 0; i < 4 * 784; i++) x[i] = (float)(i * 37 % 29) / 29 - 0.4f;
    for (int step = 0; step < 3 && nn_ok(nn); step++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_mean(nn_square(nn_forward(net, nn_from(nn, NN_SHAPE(4, 1, 28, 28), x))), NN_ALL, NULL));
        nn_step(opt);
    }
    if (weights) CHECK(nn_read(nn_param(net, "6.weight"), weights));
    size_t bytes = nn_ok(nn) ? nn_bytes_needed(nn) : 0;
    nn_free(nn);
    return bytes;
}
TEST(gradients_move_down)
{
    static float w[3][64 * 784];
    nn_desc d = { .measure = 0 }, m = { .measure = 1 };
    size_t need = lenet(m, 0, NULL), loose = lenet(m, 1, NULL);
    CHECK(need > 0 && need < loose);
    CHECK(lenet(d, 0, w[0]) && lenet(d, 1, w[1]));
    char *raw = malloc(need + 64), *buffer = (char *)(((uintptr_t)raw + 63) & ~(uintptr_t)63);
    nn_desc b = { .memory = buffer, .bytes = need };
    CHECK(lenet(b, 0, w[2]) == need);
    CHECK(!memcmp(w[0], w[1], sizeof w[0]) && !memcmp(w[0], w[2], sizeof w[0]) && w[0][0] != 0);
    free(raw);
}
