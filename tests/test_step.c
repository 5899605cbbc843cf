/* test_step.c - training steps: updates fused into gradients, and steps repeated as fixed programs, have the bits of plain steps */
#define TEST_INSIDE
#include "library.h"
#include "test.h"

enum { NETS = 4, OPTIMIZERS = 6, STEPS = 20 };
static nn_context *quiet(int threads) { return nn_new(&(nn_desc){ .seed = 5, .threads = threads, .on_error = test_quiet, .log = test_quiet }); }

static nn_layer *make_net(nn_context *nn, int which, nn_shape *x)
{
    nn_layer *net = nn_model_new(nn, NULL);
    if (which == 0) {                /* sizes that fill no vector, one output */
        *x = NN_SHAPE(7, 19);
        nn_linear_new(net, NULL, 19, 37, &(nn_linear_desc){ .activation = nn_tanh });
        nn_linear_new(net, NULL, 37, 1, &(nn_linear_desc){ .no_bias = 1 });
        nn_linear_new(net, NULL, 1, 5, NULL);
    }
    if (which == 1) {                /* dropout */
        *x = NN_SHAPE(33, 70);
        nn_linear_new(net, NULL, 70, 130, &(nn_linear_desc){ .activation = nn_relu });
        nn_dropout_new(net, 0.4f);
        nn_linear_new(net, NULL, 130, 64, NULL);
        nn_fn_new(net, nn_relu);
        nn_dropout_new(net, 0.2f);
        nn_linear_new(net, NULL, 64, 5, NULL);
    }
    if (which == 2) {                /* a CNN with batch norm */
        *x = NN_SHAPE(6, 2, 9, 8);
        nn_conv2d_new(net, NULL, 2, 6, 3, &(nn_conv2d_desc){ .padding = 1, .no_bias = 1 });
        nn_batchnorm_new(net, NULL, 6, &(nn_batchnorm_desc){ .activation = nn_relu });
        nn_maxpool2d_new(net, 2, NULL);
        nn_conv2d_new(net, NULL, 6, 8, 3, NULL);
        nn_fn_new(net, nn_relu);
        nn_dropout2d_new(net, 0.3f);
        nn_flatten_new(net);
        nn_linear_new(net, NULL, 8 * 2 * 2, 5, NULL);
    }
    if (which == 3) {                /* residual, layer norm, input that is normalised first */
        *x = NN_SHAPE(9, 12);
        nn_batchnorm_new(net, NULL, 12, NULL);
        nn_layer *r = nn_residual_new(net, NULL);
        nn_layernorm_new(r, NULL, NN_SHAPE(12), NULL);
        nn_linear_new(r, NULL, 12, 12, &(nn_linear_desc){ .activation = nn_gelu });
        nn_linear_new(net, NULL, 12, 5, NULL);
    }
    return net;
}
static nn_optimizer *make_optimizer(nn_layer *net, int which)
{
    switch (which) {
    case 0: return nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.05f, .momentum = 0.9f });
    case 1: return nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.05f, .momentum = 0.9f, .nesterov = 1, .weight_decay = 1e-3f, .clip_value = 0.02f });
    case 2: return nn_adam_new(net, &(nn_adam_desc){ .lr = 0.01f, .amsgrad = 1 });
    case 3: return nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.01f, .clip_norm = 0.5f });
    case 4: return nn_lion_new(net, &(nn_lion_desc){ .lr = 0.001f });
    default: return nn_nadam_new(net, &(nn_nadam_desc){ .lr = 0.01f });
    }
}

/* All parameters and buffers after some steps, each on other numbers; schedule: the rate changes in every step. */
enum { APART, FUSED, PLANNED };                          /* nn_backward and nn_step; nn_backward_with; nn_step_plan_run */
static int64_t state_of(nn_layer *net, float *to)
{
    nn_tensor *list[64];
    int64_t at = 0;
    for (int kind = 0; kind < 2; kind++) {
        int n = kind ? nn_buffers(net, list, 64) : nn_params(net, list, 64);
        for (int i = 0; i < n; i++) { nn_read(list[i], to + at); at += nn_count(list[i]); }
    }
    return at;
}
static int64_t train(int how, int which, int optimizer, int threads, float *losses, float *to)
{
    static float x[4096];
    nn_context *nn = quiet(threads);
    nn_shape shape;
    nn_layer *net = make_net(nn, which, &shape);
    nn_optimizer *opt = make_optimizer(net, optimizer);
    nn_schedule *schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = 15, .per_step = 1 });
    nn_step_plan *plan = nn_step_plan_new(net, &(nn_step_plan_desc){ .loss = nn_cross_entropy, .optimizer = opt });
    nn_tensor *tx = nn_tensor_new(nn, shape, NULL), *ty = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(shape.d[0]), NULL);
    nn_tensor *tx2 = nn_tensor_new(nn, shape, NULL);
    for (int step = 0; step < STEPS; step++) {
        int64_t y[64], n = nn_count(tx);
        nn_tensor *in = step % 5 == 3 ? tx2 : tx, *loss;                               /* x moves */
        for (int64_t i = 0; i < n; i++) x[i] = (float)((i * 37 + step * 11) % 61) / 30 - 1;
        for (int64_t i = 0; i < shape.d[0]; i++) y[i] = (i * 3 + step) % 5;
        nn_write(in, x);
        nn_write_as(ty, NN_I64, y);
        if (how == PLANNED) loss = nn_step_plan_run(plan, in, ty);
        else {
            nn_begin(nn, NN_TRAIN);
            loss = nn_cross_entropy(nn_forward(net, in), ty, NULL);
            if (how == FUSED) nn_backward_with(loss, &(nn_backward_desc){ .step = opt });
            else { nn_backward(loss); nn_step(opt); }
        }
        losses[step] = (float)nn_item(loss);
        nn_schedule_advance(schedule);
    }
    CHECK(nn_ok(nn) && nn_steps(opt) == STEPS);
    if (!nn_ok(nn)) puts(nn_error(nn));
    if (how == PLANNED) {
        CHECK(nn_step_plan_why(plan) == NULL && nn_step_plan_calls(plan) > 0 && nn_step_plan_bytes(plan) > 0);
        if (nn_step_plan_why(plan)) printf("net %d, optimizer %d: %s\n", which, optimizer, nn_step_plan_why(plan));
    }
    int64_t n = state_of(net, to);
    nn_step_plan_free(plan);
    nn_free(nn);
    return n;
}

TEST(same_bits)
{
    static float state[3][32768];
    float loss[3][STEPS];
    for (int which = 0; which < NETS; which++) for (int optimizer = 0; optimizer < OPTIMIZERS; optimizer++) for (int threads = 1; threads < 4; threads += 2) {
        int64_t n = train(APART, which, optimizer, 1, loss[0], state[0]);
        CHECK(n < 32768);
        for (int how = FUSED; how <= PLANNED; how++) {
            CHECK(train(how, which, optimizer, threads, loss[how], state[how]) == n);
            CHECK(!memcmp(loss[0], loss[how], sizeof loss[0]));
            CHECK(!memcmp(state[0], state[how], (size_t)n * sizeof(float)));
        }
        CHECK(loss[0][0] != loss[0][STEPS - 1]);
    }
}

/* nn_fit: with and without plans, with everything that it can do at once; a smaller last batch; frozen in the middle. */
static nn_layer *frozen;
static int repeated_steps;
static void on_step(void *user, nn_progress *p)
{
    nn_step_plan *plan = nn_context_of(p->model)->trainers->plan;
    (void)user;
    repeated_steps += plan && !plan->why;
    if (p->epoch == 2 && p->step == 3) nn_freeze(frozen, 1);
    if (p->epoch == 3 && p->step == 1) nn_freeze(frozen, 0);
}
static int64_t fit(int repeat, int which, int optimizer, float *to)
{
    static float x[40 * 144];
    static int64_t labels[40];
    nn_context *nn = quiet(1);
    nn_shape shape, one;
    nn_layer *net = make_net(nn, which, &shape);
    nn_optimizer *opt = make_optimizer(net, optimizer);
    int64_t per = 1;
    one.ndim = shape.ndim - 1;
    for (int i = 1; i < shape.ndim; i++) per *= one.d[i - 1] = shape.d[i];
    for (int64_t i = 0; i < 40 * per; i++) x[i] = (float)(i * 37 % 61) / 30 - 1;
    for (int i = 0; i < 40; i++) labels[i] = i * 7 % 5;
    nn_dataset *data = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 40, .x_shape = one, .classes = 5, .x = x, .labels = labels });
    nn_loader *loader = nn_loader_new(data, &(nn_loader_desc){ .batch = 6, .shuffle = 1 });
    frozen = nn_child(net, "0");
    CHECK(nn_fit(net, &(nn_fit_desc){ .train = loader, .validation = loader, .loss = nn_cross_entropy, .optimizer = opt, .epochs = 3, .ema = nn_ema_new(net, 0.9f),
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = 30, .per_step = 1 }), .quiet = 1, .repeat = repeat, .on_step = on_step }));
    if (!nn_ok(nn)) puts(nn_error(nn));
    int64_t n = state_of(net, to);
    nn_free(nn);
    return n;
}
TEST(fit_has_the_same_bits)
{
    static float state[2][32768];
    for (int which = 0; which < NETS; which++) for (int optimizer = 0; optimizer < OPTIMIZERS; optimizer += 1 + (which > 0)) {
        int64_t n = fit(NN_ZERO, which, optimizer, state[0]);
        CHECK(repeated_steps == 0 && fit(0, which, optimizer, state[1]) == n);
        CHECK(repeated_steps >= 3 * 7 - 4 && repeated_steps <= 3 * 7 - 3);   /* two more are recorded after each change; while memory grows, gradients may move: one more */
        repeated_steps = 0;
        CHECK(!memcmp(state[0], state[1], (size_t)n * sizeof(float)));
    }
}

/* A step in the user's words: two optimizers, two backward passes, an average of the weights. */
typedef struct Gan { nn_layer *g, *d; nn_optimizer *og, *od; nn_ema *ema; int calls; } Gan;
static nn_tensor *gan_step(void *user, nn_tensor *x, nn_tensor *y)
{
    Gan *a = user;
    nn_tensor *fake = nn_forward(a->g, nn_randn(x->nn, NN_SHAPE(8, 4), 0, 1)), *loss;
    a->calls++;
    loss = nn_add(nn_mean(nn_square(nn_sub(nn_forward(a->d, x), y)), NN_ALL, NULL), nn_mean(nn_square(nn_forward(a->d, nn_detach(fake))), NN_ALL, NULL));
    nn_backward_with(loss, &(nn_backward_desc){ .step = a->od });
    nn_backward_with(nn_mean(nn_square(nn_sub(nn_forward(a->d, fake), y)), NN_ALL, NULL), &(nn_backward_desc){ .step = a->og });
    nn_zero_grad(a->d);
    nn_ema_update(a->ema);
    return loss;
}
static int64_t gan(int planned, float *to, float *losses)
{
    nn_context *nn = quiet(1);
    Gan a = { 0 };
    a.g = nn_model_new(nn, NULL);
    nn_linear_new(a.g, NULL, 4, 9, &(nn_linear_desc){ .activation = nn_tanh });
    nn_linear_new(a.g, NULL, 9, 3, NULL);
    a.d = nn_model_new(nn, NULL);
    nn_linear_new(a.d, NULL, 3, 9, &(nn_linear_desc){ .activation = nn_tanh });
    nn_linear_new(a.d, NULL, 9, 1, NULL);
    a.og = nn_adam_new(a.g, NULL);
    a.od = nn_sgd_new(a.d, &(nn_sgd_desc){ .momentum = 0.5f });
    a.ema = nn_ema_new(a.g, 0.5f);
    nn_step_plan *plan = nn_step_plan_new(a.d, &(nn_step_plan_desc){ .step = gan_step, .user = &a });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(8, 3), NULL), *y = nn_tensor_new(nn, NN_SHAPE(8, 1), NULL);
    for (int i = 0; i < STEPS; i++) {
        float v[24];
        for (int k = 0; k < 24; k++) v[k] = (float)((k * 5 + i) % 7);
        nn_write(x, v);
        nn_tensor *loss;
        if (planned) loss = nn_step_plan_run(plan, x, y);
        else { nn_begin(nn, NN_TRAIN); loss = gan_step(&a, x, y); }
        losses[i] = (float)nn_item(loss);
    }
    CHECK(nn_ok(nn) && (planned ? a.calls <= 4 : a.calls == STEPS));
    int64_t n = state_of(a.g, to);
    n += state_of(a.d, to + n);
    nn_step_plan_free(plan);
    nn_free(nn);
    return n;
}
TEST(two_optimizers)
{
    float state[2][512], loss[2][STEPS];
    int64_t n = gan(0, state[0], loss[0]);
    CHECK(gan(1, state[1], loss[1]) == n);
    CHECK(!memcmp(state[0], state[1], (size_t)n * sizeof(float)) && !memcmp(loss[0], loss[1], sizeof loss[0]));
}

/* What cannot be repeated is not. */
typedef struct Odd { nn_layer *net; nn_optimizer *opt; int kind, calls; } Odd;
static nn_tensor *odd_step(void *user, nn_tensor *x, nn_tensor *y)
{
    Odd *o = user;
    float two = 2, v[12];
    nn_tensor *h = nn_forward(o->net, x), *loss;
    (void)y;
    o->calls++;
    if (o->kind == 1) h = nn_mul(h, nn_from(x->nn, NN_SHAPE(1), &two));                /* numbers from the host */
    if (o->kind == 2 && nn_item(nn_sum(h, NN_ALL, NULL)) > 1e9) h = nn_neg(h);         /* a decision by a value */
    if (o->kind == 3 && o->calls % 2) h = nn_square(h);                                /* other ops in every step */
    if (o->kind == 4) h = nn_mul(h, nn_scalar(x->nn, (float)o->calls));                /* a constant that changes */
    if (o->kind == 5) nn_read(h, v);
    loss = nn_mean(nn_square(h), NN_ALL, NULL);
    nn_backward_with(loss, &(nn_backward_desc){ .step = o->opt });
    return loss;
}
static int64_t odd(int kind, int planned, float *to, int *repeated)
{
    nn_context *nn = quiet(1);
    Odd o = { .kind = kind };
    o.net = nn_model_new(nn, NULL);
    nn_linear_new(o.net, NULL, 3, 3, NULL);
    o.opt = nn_sgd_new(o.net, NULL);
    nn_step_plan *plan = nn_step_plan_new(o.net, &(nn_step_plan_desc){ .step = odd_step, .user = &o });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(4, 3), NULL);
    for (int i = 0; i < 10; i++) {
        float v[12];
        for (int k = 0; k < 12; k++) v[k] = (float)((k * 5 + i) % 7) / 7;
        nn_write(x, v);
        if (planned) nn_step_plan_run(plan, x, NULL);
        else { nn_begin(nn, NN_TRAIN); odd_step(&o, x, NULL); }
    }
    CHECK(nn_ok(nn));
    *repeated = nn_step_plan_why(plan) == NULL;
    CHECK(*repeated ? o.calls < 10 : o.calls == 10);
    int64_t n = state_of(o.net, to);
    nn_step_plan_free(plan);
    nn_free(nn);
    return n;
}
TEST(refusals)
{
    float state[2][16];
    int repeated;
    for (int kind = 0; kind < 6; kind++) {
        int64_t n = odd(kind, 0, state[0], &repeated);
        odd(kind, 1, state[1], &repeated);
        CHECK(repeated == (kind == 0));
        CHECK(!memcmp(state[0], state[1], (size_t)n * sizeof(float)));
    }
}

/* In a caller's buffer steps run as always. */
TEST(in_a_buffer)
{
    static char memory[1 << 18];
    nn_context *nn = nn_new(&(nn_desc){ .memory = memory, .bytes = sizeof memory, .threads = 1, .seed = 5, .on_error = test_quiet });
    nn_shape shape;
    nn_layer *net = make_net(nn, 0, &shape);
    nn_optimizer *opt = make_optimizer(net, 0);
    nn_step_plan *plan = nn_step_plan_new(net, &(nn_step_plan_desc){ .loss = nn_mse, .optimizer = opt });
    nn_tensor *x = nn_tensor_new(nn, shape, NULL), *y = nn_tensor_new(nn, NN_SHAPE(7, 5), NULL);
    for (int i = 0; i < 5; i++) CHECK(nn_item(nn_step_plan_run(plan, x, y)) >= 0);
    CHECK(nn_ok(nn) && nn_step_plan_why(plan) != NULL && nn_step_plan_calls(plan) == 0);
    nn_step_plan_free(plan);
    nn_free(nn);
}

/* Steady state: repeated steps call no allocator. Batches of another size, gradients left over, and steps of one's own come between. */
static int64_t calls;
static void *count_malloc(void *user, size_t bytes) { (void)user; calls++; return malloc(bytes); }
static void count_free(void *user, void *p) { (void)user; free(p); }
TEST(between_other_steps)
{
    static float state[2][32768];
    for (int planned = 0; planned < 2; planned++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 5, .threads = 1, .malloc = count_malloc, .free = count_free, .on_error = test_quiet });
        nn_shape shape;
        nn_layer *net = make_net(nn, 1, &shape);
        nn_optimizer *opt = make_optimizer(net, 0);
        nn_step_plan *plan = nn_step_plan_new(net, &(nn_step_plan_desc){ .loss = nn_cross_entropy, .optimizer = opt });
        nn_tensor *x = nn_tensor_new(nn, shape, NULL), *y = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(shape.d[0]), NULL);
        nn_tensor *few = nn_tensor_new(nn, NN_SHAPE(4, 70), NULL), *fewer = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(4), NULL);
        int64_t before = 0;
        nn_init_normal(x, 0, 1);
        nn_init_normal(few, 0, 1);
        for (int step = 0; step < 12; step++) {
            nn_tensor *in = step % 6 == 1 ? few : x, *to = step % 6 == 1 ? fewer : y;
            if (step == 6) { nn_begin(nn, NN_TRAIN); nn_backward(nn_cross_entropy(nn_forward(net, x), y, NULL)); }       /* the next step adds to it */
            if (step == 10) before = calls;
            if (planned) nn_step_plan_run(plan, in, to);
            else {
                nn_begin(nn, NN_TRAIN);
                nn_backward_with(nn_cross_entropy(nn_forward(net, in), to, NULL), &(nn_backward_desc){ .step = opt });
            }
        }
        CHECK(nn_ok(nn) && calls == before);
        CHECK(planned == (nn_step_plan_why(plan) == NULL));
        state_of(net, state[planned]);
        nn_step_plan_free(plan);
        nn_free(nn);
    }
    CHECK(!memcmp(state[0], state[1], sizeof state[0]));
}
