/* test_backend.c - the whole library on a device whose memory the host cannot touch (fake_device.h) */
#define _DEFAULT_SOURCE
#include "library.h"
#include "test.h"
#include "fake_device.h"

static char profile[8192];
static void collect(void *user, const char *text) { (void)user; strncat(profile, text, sizeof profile - strlen(profile) - 1); }
#define LARGE 0x1p127f               /* as a loss scale: the first gradients overflow */
/* 20 steps of a small net; the parameters at the end. */
static int train(nn_context *nn, float *to)
{
    float xs[6 * 3], ys[6];
    for (int i = 0; i < 18; i++) xs[i] = (float)((i * 7) % 11) / 11.0f - 0.4f;
    for (int i = 0; i < 6; i++) ys[i] = (float)(i % 2);
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc1", 3, 9, NULL);
    nn_fn_new(net, nn_gelu);
    nn_linear_new(net, "fc2", 9, 1, NULL);
    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.05f });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(6, 3), xs), *y = nn_tensor_new(nn, NN_SHAPE(6, 1), ys);
    for (int i = 0; i < 20; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_mul_scalar(nn_binary_cross_entropy(nn_forward(net, x), y, NULL), 64));
        nn_step(opt);
    }
    nn_tensor *list[8];
    int n = nn_params(net, list, 8), at = 0;
    for (int i = 0; i < n; i++) { nn_read(list[i], to + at); at += (int)nn_count(list[i]); }
    return nn_ok(nn) ? at : 0;
}

static void compare_with_cpu(int refuse_all, int refuse_op, float loss_scale)
{
    float cpu[64] = { 0 }, fake[64] = { 0 };
    fake_device d;
    if (!fake_open(&d)) SKIP("no mmap");
    d.refuse_all = refuse_all;
    d.refuse_op = refuse_op;
    nn_context *nn = nn_new(&(nn_desc){ .loss_scale = loss_scale });
    int n = train(nn, cpu);
    loss_scale = nn_loss_scale(nn);
    nn_free(nn);
    CHECK(n == 3 * 9 + 9 + 9 + 1 && loss_scale < LARGE);
    nn = nn_new(&(nn_desc){ .backend = &d.backend, .loss_scale = loss_scale > 1 ? LARGE : 0 });
    CHECK(train(nn, fake) == n && nn_loss_scale(nn) == loss_scale);
    CHECK(d.runs > 100);
    CHECK((nn_fallbacks(nn) > 0) == (refuse_all || refuse_op));
    nn_free(nn);
    CHECK(d.allocs == d.frees);
    CHECK(memcmp(cpu, fake, sizeof cpu) == 0);
    fake_close(&d);
}
TEST(same_bits_as_the_cpu)     { compare_with_cpu(0, 0, 0); }
TEST(every_op_falls_back)      { compare_with_cpu(1, 0, 0); }
TEST(one_op_falls_back)        { compare_with_cpu(0, NN_OP_linear, 0); }
TEST(loss_scaling)             { compare_with_cpu(0, 0, LARGE); compare_with_cpu(1, 0, LARGE); compare_with_cpu(0, NN_OP_adam_update, LARGE); }

TEST(steady_state_takes_no_memory)
{
    fake_device d;
    if (!fake_open(&d)) SKIP("no mmap");
    nn_context *nn = nn_new(&(nn_desc){ .backend = &d.backend });
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(100, 100), NULL));
    int64_t after = 0;
    for (int i = 0; i < 10; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_sum(nn_tanh(nn_matmul(x, x)), NN_ALL, NULL));
        if (i == 2) after = d.allocs;
    }
    CHECK(nn_ok(nn) && d.allocs == after);
    nn_free(nn);
    fake_close(&d);
}

/* ---- loaders send the next batch ahead ---- */
static int fit(nn_context *nn, int prefetch, float *losses)
{
    static float xs[22 * 5];
    int64_t labels[22];
    for (int i = 0; i < 22 * 5; i++) xs[i] = (float)((i * 7) % 11) / 11.0f - 0.4f;
    for (int i = 0; i < 22; i++) labels[i] = i % 3;
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc", 5, 3, NULL);
    nn_dataset *data = nn_dataset_new(nn, &(nn_dataset_desc){ .x = xs, .x_shape = NN_SHAPE(5), .labels = labels, .classes = 3, .count = 22 });
    nn_loader *loader = nn_loader_new(data, &(nn_loader_desc){ .batch = 4, .shuffle = 1, .no_prefetch = !prefetch });
    int ok = nn_fit(net, &(nn_fit_desc){ .train = loader, .loss = nn_cross_entropy, .optimizer = nn_adam_new(net, NULL), .epochs = 3, .quiet = 1 });
    nn_tensor *p[2];
    nn_params(net, p, 2);
    nn_read(p[0], losses);
    nn_read(p[1], losses + 15);
    return ok && nn_ok(nn);
}
TEST(batches_are_sent_ahead)
{
    float cpu[18], fake[18];
    nn_context *nn = nn_new(&(nn_desc){ .threads = 1 });
    CHECK(fit(nn, 0, cpu));
    nn_free(nn);
    for (int how = 0; how < 3; how++) {                  /* no thread loads; one does; and a device that cannot send */
        fake_device d;
        if (!fake_open(&d)) SKIP("no mmap");
        if (how == 2) d.backend.send = NULL;
        nn = nn_new(&(nn_desc){ .threads = how == 1 ? 2 : 1, .backend = &d.backend });
        CHECK(fit(nn, how == 1, fake));
        CHECK(memcmp(cpu, fake, sizeof cpu) == 0);
        if (how == 0) CHECK(d.sends == 3 * 5 * 2 && d.arrivals == d.sends);          /* 3 epochs of 6 batches: all but the first; x and y */
        nn_free(nn);
        fake_close(&d);
    }
}
TEST(what_was_sent_waits_for_its_turn)                   /* not before its batch is asked for, not after the state was set back, not for another loader */
{
    float xs[12], v[2];
    fake_device d;
    for (int i = 0; i < 12; i++) xs[i] = (float)i;
    if (!fake_open(&d)) SKIP("no mmap");
    nn_context *nn = nn_new(&(nn_desc){ .threads = 2, .backend = &d.backend });
    nn_dataset *data = nn_dataset_new(nn, &(nn_dataset_desc){ .x = xs, .x_shape = NN_SHAPE(1), .count = 12 });
    nn_loader *a = nn_loader_new(data, &(nn_loader_desc){ .batch = 2 }), *b = nn_loader_new(data, &(nn_loader_desc){ .batch = 2 });
    nn_batch p, q;
    for (int i = 0; i < 5; i++) {
        CHECK(nn_loader_next(a, &p) && nn_loader_next(b, &q));
        if (i == 2) { nn_loader_rewind(b); CHECK(nn_loader_next(b, &q)); }
        nn_read(p.x, v);
        CHECK(v[0] == (float)(2 * i) && v[1] == (float)(2 * i + 1));
        nn_read(q.x, v);
        CHECK(v[0] == (float)(2 * (i < 2 ? i : i - 2)));
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
    fake_close(&d);
}

TEST(wrong_version_is_refused)
{
    fake_device d;
    if (!fake_open(&d)) SKIP("no mmap");
    d.backend.version = 77;
    nn_context *nn = nn_new(&(nn_desc){ .backend = &d.backend, .on_error = test_quiet });
    CHECK(!nn_ok(nn));
    CHECK_ERROR(nn, "version 77");
    CHECK(nn_item(nn_sum(nn_ones(nn, NN_SHAPE(3)), NN_ALL, NULL)) == 3 && d.allocs == 0);          /* after nn_clear: on the CPU */
    nn_free(nn);
    fake_close(&d);
}
static int no_such_device(void *self, nn_context *nn) { (void)self; nn_fail(nn, "no such device"); return 0; }
static void never(void *self, nn_context *nn) { (void)self; (void)nn; CHECK(!"close of what is not open"); }
TEST(a_device_that_does_not_open)
{
    fake_device d;
    if (!fake_open(&d)) SKIP("no mmap");
    d.backend.open = no_such_device;
    d.backend.close = never;
    nn_context *nn = nn_new(&(nn_desc){ .backend = &d.backend, .on_error = test_quiet });
    CHECK_ERROR(nn, "no such device");
    CHECK(nn_item(nn_sum(nn_ones(nn, NN_SHAPE(3)), NN_ALL, NULL)) == 3 && d.allocs == 0);
    nn_free(nn);
    fake_close(&d);
}

/* A device that repeats lists of calls: the bits of single calls, nothing run one by one but what differs, and errors of the device on the way. */
typedef struct list_device { fake_device d; nn_call call[256]; double params[256][NN_MAX_PARAMS / sizeof(double)]; int calls, recording, lists, repeats, forgotten, refuse; } list_device;
static int list_run(void *self, const nn_call *c)
{
    list_device *l = self;
    if (!l->recording) return fake_run(&l->d, c);
    l->call[l->calls] = *c;
    if (c->params) l->call[l->calls].params = memcpy(l->params[l->calls], c->params, c->op->params_bytes);
    l->calls++;
    return 1;
}
static int list_record(void *self) { list_device *l = self; l->recording = l->refuse != 1; l->calls = 0; return l->recording; }
static void *list_recorded(void *self) { list_device *l = self; l->recording = 0; l->lists++; return l->refuse == 2 ? NULL : l->call; }
static int list_repeat(void *self, void *list, const nn_call *const *varying, int count)
{
    list_device *l = self;
    int at = 0;
    CHECK(list == l->call);
    if (l->refuse == 3 && ++l->repeats == 3) return 0;
    for (int i = 0; i < l->calls; i++) {
        const nn_call *c = &l->call[i];
        if (at < count && varying[at]->op == c->op && varying[at]->out[0].data == c->out[0].data) c = varying[at++];
        if (!fake_run(&l->d, c)) return 0;
    }
    CHECK(at == count);
    l->repeats += l->refuse != 3;
    return 1;
}
static void list_forget(void *self, void *list) { (void)list; ((list_device *)self)->forgotten++; }
static int repeated_steps(const nn_backend *backend, float loss_scale, float *to)
{
    nn_context *nn = nn_new(&(nn_desc){ .backend = backend, .seed = 5, .threads = 1, .loss_scale = loss_scale, .log = collect });
    float xs[6 * 3], ys[6];
    for (int i = 0; i < 18; i++) xs[i] = (float)((i * 7) % 11) / 11.0f - 0.4f;
    for (int i = 0; i < 6; i++) ys[i] = (float)(i % 2);
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "a", 3, 9, NULL);
    nn_dropout_new(net, 0.3f);
    nn_linear_new(net, "b", 9, 1, NULL);
    nn_step_plan *plan = nn_step_plan_new(net, &(nn_step_plan_desc){ .loss = nn_mse, .optimizer = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.05f }) });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(6, 3), xs), *y = nn_tensor_new(nn, NN_SHAPE(6, 1), ys), *list[8];
    for (int i = 0; i < 14; i++) {
        if (i == 10) nn_profile(nn, 1);                               /* one by one, to see their times */
        if (i == 11) { profile[0] = 0; nn_profile_print(nn); nn_profile(nn, 0); CHECK_TEXT(profile, "linear                 forward          2"); }
        if (i == 12) { profile[0] = 0; nn_step_plan_print(plan); CHECK_TEXT(profile, "_update           forward "); CHECK_TEXT(profile, " calls, "); }  /* changes nothing */
        to[i] = (float)nn_item(nn_step_plan_run(plan, x, y));
    }
    int n = nn_params(net, list, 8), at = 14;
    for (int i = 0; i < n; i++) { nn_read(list[i], to + at); at += (int)nn_count(list[i]); }
    CHECK(nn_ok(nn) && nn_step_plan_why(plan) == NULL);
    nn_step_plan_free(plan);
    nn_free(nn);
    return at;
}
TEST(lists_of_calls)
{
    static list_device l;                                             /* 0: all is well. 1: it records nothing. 2: it has no list of these. 3: once, it cannot repeat one */
    for (int refuse = 0; refuse < 4; refuse++) for (int scaled = 0; scaled < 2; scaled++) {
        float cpu[64], lists[64];
        memset(&l, 0, sizeof l);
        if (!fake_open(&l.d)) SKIP("no mmap");
        l.refuse = refuse;
        l.d.backend.self = &l;
        l.d.backend.run = list_run;
        l.d.backend.record = list_record; l.d.backend.recorded = list_recorded; l.d.backend.repeat = list_repeat; l.d.backend.forget = list_forget;
        int n = repeated_steps(NULL, scaled ? LARGE : 0, cpu);
        CHECK(n == 14 + 3 * 9 + 9 + 9 + 1 && repeated_steps(&l.d.backend, scaled ? LARGE : 0, lists) == n && !memcmp(cpu, lists, (size_t)n * sizeof *cpu));
        CHECK(refuse == 1 ? l.lists == 0 : refuse == 2 ? l.repeats == 0 && l.lists == 1 : l.repeats >= 3 && l.lists == 1 + (refuse == 3));
        CHECK(l.forgotten == (refuse == 1 || refuse == 2 ? 0 : l.lists) && l.d.allocs == l.d.frees);
        fake_close(&l.d);
    }
}

TEST(data_is_not_for_the_host)
{
    fake_device d;
    float v[4] = { 1, 2, 3, 4 };
    if (!fake_open(&d)) SKIP("no mmap");
    nn_context *nn = nn_new(&(nn_desc){ .backend = &d.backend, .on_error = test_quiet });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(2, 2), v);
    CHECK(nn_item(nn_sum(nn_transpose(x, 0, 1), NN_ALL, NULL)) == 10.0);
    CHECK(nn_data(x) == NULL);
    CHECK_TEXT(nn_error(nn), "nn_read");
    nn_free(nn);
    fake_close(&d);
}

TEST(device_faults_are_errors)
{
    float to[64];
    for (int what = 0; what < 2; what++) for (int64_t n = 1; n < 40; n++) {
        fake_device d;
        if (!fake_open(&d)) SKIP("no mmap");
        if (what) d.fail_copy = n; else d.fail_alloc = n;
        nn_context *nn = nn_new(&(nn_desc){ .backend = &d.backend, .on_error = test_quiet });
        int ok = train(nn, to) != 0;
        CHECK(ok == nn_ok(nn));
        CHECK(ok || (what ? d.copies : d.allocs) >= n);  /* a failed larger block is tried again at the size that is needed */
        CHECK(ok || nn_error(nn)[0]);
        int reached = (what ? d.copies : d.allocs) >= n;
        nn_free(nn);
        fake_close(&d);
        if (!reached) break;
    }
}

/* ---- nn_profile ---- */
static void twice(const nn_call *c, const nn_task *t)
{
    (void)t;
    for (int64_t i = 0; i < nn_view_count(&c->in[0]); i++) ((float *)c->out[0].data)[i] = 2 * ((float *)c->in[0].data)[i];
}
static void profile_of(const nn_backend *backend)
{
    nn_op own[20];
    nn_context *nn = nn_new(&(nn_desc){ .log = collect, .backend = backend });
    float numbers[64] = { 0 };
    CHECK(train(nn, numbers) > 0);                                    /* off: nothing is counted */
    profile[0] = 0;
    nn_profile_print(nn);
    CHECK(!profile[0]);
    nn_profile(nn, 0);
    nn_profile(nn, 1);
    CHECK(train(nn, numbers) > 0);
    for (int i = 0; i < 20; i++) {                                    /* more ops of one's own than are told apart */
        static char name[20][16];
        snprintf(name[i], sizeof name[i], "own%d", i);
        own[i] = (nn_op){ .name = name[i], .inputs = 1, .forward = twice };
        nn_tensor *x = nn_ones(nn, NN_SHAPE(3));
        nn_apply(&own[i], &x, NULL);
    }
    nn_profile(nn, 0);
    nn_exp(nn_ones(nn, NN_SHAPE(3)));                                 /* off again */
    nn_profile_print(nn);
    CHECK_TEXT(profile, "op                     pass         calls");
    CHECK_TEXT(profile, "linear                 forward         40");       /* 2 layers, 20 steps */
    CHECK_TEXT(profile, "linear                 backward        40");
    CHECK_TEXT(profile, "gelu                   backward        20");
    CHECK_TEXT(profile, "adam_update            forward         80");       /* 4 parameters */
    CHECK_TEXT(profile, "own3                   forward          1");
    CHECK_TEXT(profile, "forward          5");                              /* the last place */
    CHECK_TEXT(profile, " ms in all\n");
    CHECK(!strstr(profile, "exp"));
    nn_profile(nn, 1);                                                /* from zero */
    nn_begin(nn, NN_EVAL);
    nn_matmul(nn_ones(nn, NN_SHAPE(64, 64)), nn_ones(nn, NN_SHAPE(64, 64)));
    profile[0] = 0;
    nn_profile_print(nn);
    CHECK_TEXT(profile, "matmul                 forward          1");
    CHECK(!strstr(profile, "linear"));
    nn_conv2d(nn_ones(nn, NN_SHAPE(2, 3, 8, 8)), nn_ones(nn, NN_SHAPE(4, 3, 3, 3)), NULL, NULL);
    nn_conv_transpose2d(nn_ones(nn, NN_SHAPE(2, 3, 8, 8)), nn_ones(nn, NN_SHAPE(3, 4, 3, 3)), NULL, NULL);
    nn_forward(nn_gru_new(nn_model_new(nn, NULL), NULL, 5, 7, NULL), nn_ones(nn, NN_SHAPE(2, 6, 5)));
    nn_profile_print(nn);
    CHECK_TEXT(profile, "conv2d                 forward          1");
    CHECK_TEXT(profile, "conv_transpose2d       forward          1");
    CHECK_TEXT(profile, "rnn                    forward          1");
    CHECK(nn_ok(nn));
    nn_free(nn);
}
TEST(profile_on_the_cpu) { profile_of(NULL); }
TEST(profile_on_a_device)
{
    fake_device d;
    if (!fake_open(&d)) SKIP("no mmap");
    profile_of(&d.backend);
    fake_close(&d);
}
TEST(profile_of_nothing)
{
    nn_profile(NULL, 1);
    nn_profile_print(NULL);
    nn_context *nn = nn_new(&(nn_desc){ .measure = 1, .log = collect });
    nn_profile(nn, 1);
    nn_begin(nn, NN_EVAL);
    nn_matmul(nn_ones(nn, NN_SHAPE(4, 4)), nn_ones(nn, NN_SHAPE(4, 4)));   /* computes nothing, so takes no time */
    profile[0] = 0;
    nn_profile_print(nn);
    CHECK(!strstr(profile, "matmul"));
    CHECK_TEXT(profile, "0.000 ms in ops");
    nn_free(nn);
}
TEST(profile_takes_what_was_measured)                                 /* in a buffer of just the size that a dry run said */
{
    float numbers[64];
    size_t bytes = 0;
    void *memory = NULL;
    for (int run = 0; run < 2; run++) {
        nn_context *nn = nn_new(&(nn_desc){ .measure = !run, .memory = memory, .bytes = bytes, .threads = 1 });
        nn_profile(nn, 1);
        train(nn, numbers);
        CHECK(nn_ok(nn));
        bytes = nn_bytes_needed(nn);
        nn_free(nn);
        if (!run) memory = aligned_alloc(64, bytes);
    }
    free(memory);
}
