/* test_optim.c - optimizers against PyTorch's algorithms written out in double, clipping, groups, averages, schedules. */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"

enum { N = 37, STEPS = 25 };
static double noise(int step, int i) { return 4 * nn__uniform_at(11, 2, (uint64_t)step, (uint64_t)i) - 2; }

/* torch.optim, foreach=False, one element */
typedef struct state { double m, v, extra, product; int t; } state;
typedef struct rates { const char *name; double lr, momentum, dampening, beta1, beta2, alpha, eps, wd, momentum_decay, lr_decay; int nesterov, centered, amsgrad; } rates;
static double reference(const rates *o, state *s, double p, double g)
{
    double d;
    s->t++;
    if (!strcmp(o->name, "adamw") || !strcmp(o->name, "lion")) p *= 1 - o->lr * o->wd;
    else g += o->wd * p;
    if (!strcmp(o->name, "sgd")) {
        if (o->momentum != 0) {
            s->m = s->t == 1 ? g : o->momentum * s->m + (1 - o->dampening) * g;
            g = o->nesterov ? g + o->momentum * s->m : s->m;
        }
        return p - o->lr * g;
    }
    if (!strcmp(o->name, "rmsprop")) {
        s->v = o->alpha * s->v + (1 - o->alpha) * g * g;
        d = s->v;
        if (o->centered) { s->extra += (1 - o->alpha) * (g - s->extra); d -= s->extra * s->extra; }
        d = sqrt(d) + o->eps;
        if (o->momentum == 0) return p - o->lr * g / d;
        s->m = o->momentum * s->m + g / d;
        return p - o->lr * s->m;
    }
    if (!strcmp(o->name, "adagrad")) {
        s->v += g * g;
        return p - o->lr / (1 + (s->t - 1) * o->lr_decay) * g / (sqrt(s->v) + o->eps);
    }
    if (!strcmp(o->name, "lion")) {
        d = o->beta1 * s->m + (1 - o->beta1) * g;
        s->m = o->beta2 * s->m + (1 - o->beta2) * g;
        return p - o->lr * (d > 0 ? 1 : d < 0 ? -1 : 0);
    }
    s->m = o->beta1 * s->m + (1 - o->beta1) * g;
    s->v = o->beta2 * s->v + (1 - o->beta2) * g * g;
    if (!strcmp(o->name, "nadam")) {
        double mu = o->beta1 * (1 - 0.5 * pow(0.96, s->t * o->momentum_decay)), next = o->beta1 * (1 - 0.5 * pow(0.96, (s->t + 1) * o->momentum_decay));
        s->product = (s->t == 1 ? 1 : s->product) * mu;
        d = sqrt(s->v / (1 - pow(o->beta2, s->t))) + o->eps;
        return p - o->lr * (1 - mu) / (1 - s->product) * g / d - o->lr * next / (1 - s->product * next) * s->m / d;
    }
    if (s->v > s->extra) s->extra = s->v;
    d = sqrt(o->amsgrad ? s->extra : s->v) / sqrt(1 - pow(o->beta2, s->t)) + o->eps;
    return p - o->lr / (1 - pow(o->beta1, s->t)) * s->m / d;
}

typedef nn_optimizer *(*make)(nn_layer *, const nn_optimizer_desc *);
static nn_tensor *values(nn_context *nn, nn_shape shape, const double *v)
{
    nn_tensor *t = nn_zeros(nn, shape);
    nn_write_as(t, NN_F64, v);
    return t;
}
static void give_gradient(nn_context *nn, nn_tensor *p, int step)
{
    double g[512];
    for (int i = 0; i < nn_count(p); i++) g[i] = noise(step, i);
    nn_backward(nn_sum(nn_mul(p, values(nn, nn_shape_of(p), g)), NN_ALL, NULL));
}

static void compare(make create, const nn_optimizer_desc *desc, const rates *o, nn_dtype dtype, const char *isa)
{
    nn_context *nn = nn_new(&(nn_desc){ .dtype = dtype, .isa = isa, .threads = 1 });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_tensor *p = nn_param_new(net, "p", NN_SHAPE(N));
    nn_optimizer *opt;
    double x[N], got[N], tolerance = dtype == NN_F64 ? 1e-11 : 2e-5;
    state s[N];
    memset(s, 0, sizeof s);
    for (int i = 0; i < N; i++) x[i] = (float)noise(100, i);
    nn_write_as(p, NN_F64, x);
    opt = create(net, desc);
    for (int step = 0; step < STEPS; step++) {
        nn_begin(nn, NN_TRAIN);
        give_gradient(nn, p, step);
        nn_step(opt);
        for (int i = 0; i < N; i++) x[i] = reference(o, &s[i], x[i], dtype == NN_F64 ? noise(step, i) : (float)noise(step, i));
    }
    CHECK(nn_ok(nn));
    CHECK(nn_steps(opt) == STEPS);
    nn_read_as(p, NN_F64, got);
    for (int i = 0; i < N; i++) {
        if (!(fabs(got[i] - x[i]) <= tolerance * (1 + fabs(x[i])))) printf("%s %s, element %d: %.12g, reference %.12g\n", o->name, nn_isa(nn), i, got[i], x[i]);
        CHECK(fabs(got[i] - x[i]) <= tolerance * (1 + fabs(x[i])));
        if (test_failures) break;
    }
    nn_free(nn);
}

TEST(optimizers_follow_pytorch)
{
    static const struct { make create; nn_optimizer_desc desc; rates o; } list[] = {
        { nn_sgd_new,     { .lr = 0 }, { .name = "sgd", .lr = 0.01 } },
        { nn_sgd_new,     { .lr = 0.1f, .weight_decay = 0.05f }, { .name = "sgd", .lr = 0.1, .wd = 0.05 } },
        { nn_sgd_new,     { .lr = 0.1f, .momentum = 0.9f }, { .name = "sgd", .lr = 0.1, .momentum = 0.9 } },
        { nn_sgd_new,     { .lr = 0.1f, .momentum = 0.9f, .dampening = 0.3f, .weight_decay = 0.01f }, { .name = "sgd", .lr = 0.1, .momentum = 0.9, .dampening = 0.3, .wd = 0.01 } },
        { nn_sgd_new,     { .lr = 0.1f, .momentum = 0.9f, .nesterov = 1 }, { .name = "sgd", .lr = 0.1, .momentum = 0.9, .nesterov = 1 } },
        { nn_rmsprop_new, { .lr = 0 }, { .name = "rmsprop", .lr = 0.01, .alpha = 0.99, .eps = 1e-8 } },
        { nn_rmsprop_new, { .lr = 0.02f, .alpha = 0.9f, .eps = 1e-3f, .momentum = 0.8f, .weight_decay = 0.1f }, { .name = "rmsprop", .lr = 0.02, .alpha = 0.9, .eps = 1e-3, .momentum = 0.8, .wd = 0.1 } },
        { nn_rmsprop_new, { .lr = 0.02f, .eps = 1e-3f, .centered = 1 }, { .name = "rmsprop", .lr = 0.02, .alpha = 0.99, .eps = 1e-3, .centered = 1 } },
        { nn_rmsprop_new, { .lr = 0.02f, .alpha = 0.3f, .eps = 0.1f, .centered = 1, .momentum = 0.5f }, { .name = "rmsprop", .lr = 0.02, .alpha = 0.3, .eps = 0.1, .centered = 1, .momentum = 0.5 } },
        { nn_adagrad_new, { .lr = 0 }, { .name = "adagrad", .lr = 0.01, .eps = 1e-10 } },
        { nn_adagrad_new, { .lr = 0.1f, .lr_decay = 0.02f, .weight_decay = 0.01f, .eps = 1e-6f }, { .name = "adagrad", .lr = 0.1, .lr_decay = 0.02, .wd = 0.01, .eps = 1e-6 } },
        { nn_adam_new,    { .lr = 0 }, { .name = "adam", .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8 } },
        { nn_adam_new,    { .lr = 0.05f, .beta1 = 0.4f, .beta2 = 0.9f, .eps = 1e-4f, .weight_decay = 0.1f }, { .name = "adam", .lr = 0.05, .beta1 = 0.4, .beta2 = 0.9, .eps = 1e-4, .wd = 0.1 } },
        { nn_adam_new,    { .lr = 0.05f, .beta1 = NN_ZERO, .beta2 = 0.9f, .amsgrad = 1 }, { .name = "adam", .lr = 0.05, .beta1 = 0, .beta2 = 0.9, .eps = 1e-8, .amsgrad = 1 } },
        { nn_adamw_new,   { .lr = 0 }, { .name = "adamw", .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .wd = 0.01 } },
        { nn_adamw_new,   { .lr = 0.1f, .weight_decay = 0.3f, .amsgrad = 1 }, { .name = "adamw", .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .wd = 0.3, .amsgrad = 1 } },
        { nn_adamw_new,   { .lr = 0.1f, .weight_decay = NN_ZERO }, { .name = "adamw", .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8 } },
        { nn_nadam_new,   { .lr = 0 }, { .name = "nadam", .lr = 0.002, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .momentum_decay = 0.004 } },
        { nn_nadam_new,   { .lr = 0.05f, .momentum_decay = 0.1f, .weight_decay = 0.1f, .beta2 = 0.99f }, { .name = "nadam", .lr = 0.05, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .momentum_decay = 0.1, .wd = 0.1 } },
        { nn_lion_new,    { .lr = 0 }, { .name = "lion", .lr = 1e-4, .beta1 = 0.9, .beta2 = 0.99 } },
        { nn_lion_new,    { .lr = 0.01f, .beta1 = 0.8f, .beta2 = 0.7f, .weight_decay = 0.1f }, { .name = "lion", .lr = 0.01, .beta1 = 0.8, .beta2 = 0.7, .wd = 0.1 } } };
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        compare(list[k].create, &list[k].desc, &list[k].o, NN_F64, NULL);
        for (int i = 0; test_isa(i); i++) compare(list[k].create, &list[k].desc, &list[k].o, NN_F32, test_isa(i));
    }
}

/* min (x - a)^T D (x - a) / 2 with condition number 100 */
TEST(every_optimizer_finds_a_minimum)
{
    static const struct { make create; nn_optimizer_desc desc; } list[] = {
        { nn_sgd_new, { .lr = 0.015f } }, { nn_sgd_new, { .lr = 0.01f, .momentum = 0.9f, .nesterov = 1 } }, { nn_rmsprop_new, { .lr = 0.01f } }, { nn_adagrad_new, { .lr = 0.5f } },
        { nn_adam_new, { .lr = 0.05f } }, { nn_adamw_new, { .lr = 0.05f, .weight_decay = NN_ZERO } }, { nn_nadam_new, { .lr = 0.05f } }, { nn_lion_new, { .lr = 0.01f } } };
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 1 });
        nn_layer *net = nn_model_new(nn, NULL);
        nn_tensor *p = nn_param_new(net, "p", NN_SHAPE(10));
        float scale[10], at[10], v[10];
        nn_optimizer *opt = list[k].create(net, &list[k].desc);
        nn_schedule *schedule = nn_exponential_lr_new(opt, &(nn_schedule_desc){ .gamma = 0.998f });
        for (int i = 0; i < 10; i++) { scale[i] = (float)pow(100, i / 9.0); at[i] = (float)(i % 3) - 1; }
        for (int step = 0; step < 1200; step++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *d = nn_sub(p, nn_from(nn, NN_SHAPE(10), at));
            nn_backward(nn_mul_scalar(nn_sum(nn_mul(nn_from(nn, NN_SHAPE(10), scale), nn_square(d)), NN_ALL, NULL), 0.5f));
            nn_step(opt);
            nn_schedule_advance(schedule);
        }
        nn_read(p, v);
        for (int i = 0; i < 10; i++) CHECK_NEAR(v[i], at[i], 0.02);
        nn_free(nn);
    }
}

TEST(clipping)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "big", 70, 90, NULL);             /* more than one chunk, and input-major strides */
    nn_tensor *p = nn_param_new(net, "p", NN_SHAPE(5)), *w = nn_param(net, "big.weight");
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 1, .clip_norm = 2 });
    double sum = 0;
    static float v[6300], before[6300], g[5];
    nn_begin(nn, NN_TRAIN);
    nn_read(w, before);
    nn_backward(nn_add(nn_mul_scalar(nn_sum(nn_square(w), NN_ALL, NULL), 10), nn_mul_scalar(nn_sum(nn_add_scalar(p, 1), NN_ALL, NULL), 3)));
    nn_read(nn_grad(w), v);
    for (int i = 0; i < 6300; i++) sum += (double)v[i] * v[i];
    nn_read(nn_grad(p), g);
    for (int i = 0; i < 5; i++) sum += (double)g[i] * g[i];
    CHECK_NEAR(nn_grad_norm(opt) / sqrt(sum), 1, 1e-6);
    nn_step(opt);
    CHECK(!nn_grad(w) && !nn_grad(p));
    nn_read(w, v);
    for (int i = 0; i < 6300; i += 13) CHECK_NEAR(before[i] - v[i], 20 * before[i] * 2 / (sqrt(sum) + 1e-6), 1e-6);
    nn_read(p, g);
    CHECK_NEAR(g[0], -3 * 2 / (sqrt(sum) + 1e-6), 1e-6);
    nn_begin(nn, NN_TRAIN);                              /* a small gradient is left alone */
    nn_backward(nn_mul_scalar(nn_sum(p, NN_ALL, NULL), 0.5f));
    CHECK_NEAR(nn_grad_norm(opt), sqrt(5) / 2, 1e-6);
    nn_step(opt);
    nn_read(p, v);
    CHECK_NEAR(v[0], g[0] - 0.5f, 1e-6);
    CHECK_NEAR(nn_grad_norm(opt), 0, 0);
    nn_free(nn);

    nn = nn_new(NULL);
    net = nn_model_new(nn, NULL);
    p = nn_param_new(net, "p", NN_SHAPE(3));
    opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 1, .clip_value = 0.5f });
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_mul(p, nn_from(nn, NN_SHAPE(3), (float[]){ -7, 0.25f, 3 })), NN_ALL, NULL));
    nn_step(opt);
    nn_read(p, v);
    CHECK_NEAR(v[0], 0.5, 0); CHECK_NEAR(v[1], -0.25, 0); CHECK_NEAR(v[2], -0.5, 0);
    nn_free(nn);
}

TEST(groups_and_frozen)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL), *a = nn_linear_new(net, "a", 2, 2, NULL), *b = nn_linear_new(net, "b", 2, 2, NULL);
    nn_tensor *aw = nn_param(a, "weight"), *ab = nn_param(a, "bias"), *bw = nn_param(b, "weight"), *bb = nn_param(b, "bias");
    nn_optimizer *opt = nn_adamw_new(a, &(nn_adamw_desc){ .lr = 0.5f });
    nn_tensor *all[4] = { aw, ab, bw, bb };
    float v[4];
    nn_optimizer_add(opt, b, &(nn_optimizer_desc){ .lr = 0.25f });
    nn_optimizer_add(opt, net, &(nn_optimizer_desc){ .match = ".bias", .weight_decay = NN_ZERO });
    CHECK(opt->slots == 4 && opt->groups == 3);
    CHECK(nn__find_slot(opt, aw)->group == 0 && nn__find_slot(opt, bw)->group == 1 && nn__find_slot(opt, ab)->group == 2 && nn__find_slot(opt, bb)->group == 2);
    CHECK_NEAR(opt->group[2].option[NN__WEIGHT_DECAY], 0, 0);
    CHECK_NEAR(opt->group[1].option[NN__WEIGHT_DECAY], 0.01, 0);
    CHECK_NEAR(opt->group[2].lr, 0.5, 0);
    nn_set_lr(opt, 0.1f);
    CHECK_NEAR(nn_lr(opt), 0.1f, 0);
    CHECK_NEAR(opt->group[1].lr, 0.05, 1e-15);
    nn_set_lr(opt, NN_ZERO);
    nn_set_lr(opt, 0.1f);
    CHECK_NEAR(opt->group[1].lr, 0.05, 1e-15);
    for (int i = 0; i < 4; i++) nn_init_uniform(all[i], 1, 1);
    nn_freeze_param(bw, 1);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_add(nn_sum(aw, NN_ALL, NULL), nn_add(nn_sum(bb, NN_ALL, NULL), nn_sum(bw, NN_ALL, NULL))));
    nn_step(opt);                    /* ab got no gradient, bw is frozen; Adam's first step is lr, after a decay of lr 0.01 */
    nn_read(aw, v); CHECK_NEAR(v[0], 1 - 0.001 - 0.1, 1e-6);
    nn_read(ab, v); CHECK_NEAR(v[0], 1, 0);
    nn_read(bw, v); CHECK_NEAR(v[0], 1, 0);
    nn_read(bb, v); CHECK_NEAR(v[0], 1 - 0.1, 1e-6);
    CHECK(nn__find_slot(opt, aw)->steps == 1 && nn__find_slot(opt, ab)->steps == 0);
    CHECK(!strcmp(nn__find_slot(opt, aw)->state[0]->name, "exp_avg") && !nn__find_slot(opt, aw)->state[2]);

    unsigned version = aw->version;  /* an update counts as a write */
    nn_begin(nn, NN_TRAIN);
    nn_tensor *y = nn_sum(nn_square(aw), NN_ALL, NULL);
    nn_backward_with(y, &(nn_backward_desc){ .retain = 1 });
    nn_step(opt);
    CHECK(aw->version == version + 1);
    nn_backward(y);
    CHECK_TEXT(nn_error(nn), "overwritten");
    nn_clear(nn);

    version = aw->version;           /* after an error nothing moves */
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(aw, NN_ALL, NULL));
    nn_fail(nn, "on purpose");
    nn_step(opt);
    CHECK(aw->version == version && nn_steps(opt) == 2);
    nn_free(nn);

    nn = nn_new(NULL);               /* unfrozen later: states appear at its first step */
    net = nn_model_new(nn, NULL);
    a = nn_linear_new(net, "a", 2, 2, NULL);
    nn_freeze(a, 1);
    opt = nn_adam_new(net, NULL);
    CHECK(!opt->slot[0].state[0]);
    nn_freeze(a, 0);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_param(a, "weight"), NN_ALL, NULL));
    nn_step(opt);
    CHECK(opt->slot[0].state[0] && nn_ok(nn));
    nn_free(nn);
}

TEST(accumulation_and_allocations)
{
    nn_context *nn = nn_new(NULL);
    nn_layer *net = nn_model_new(nn, NULL);
    nn_tensor *p = nn_param_new(net, "p", NN_SHAPE(3));
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 1, .clip_norm = 100, .momentum = 0.5f });
    float v[3];
    int64_t count = 0;
    for (int i = 0; i < 3; i++) { nn_begin(nn, NN_TRAIN); nn_backward(nn_sum(p, NN_ALL, NULL)); }
    nn_step(opt);
    nn_read(p, v);
    CHECK_NEAR(v[0], -3, 1e-6);
    for (int i = 0; i < 20; i++) {
        if (i == 5) count = nn->allocations;
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_sum(p, NN_ALL, NULL));
        nn_step(opt);
    }
    CHECK(nn->allocations == count);
    nn_free(nn);
}

#define FAILS(make, layer, text, ...) do { nn_clear(nn); nn_optimizer *fails = make(layer, &(nn_optimizer_desc){ __VA_ARGS__ }); nn_step(fails); CHECK(!fails); CHECK_TEXT(nn_error(nn), text); } while (0)
TEST(mistakes)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "a", 2, 2, NULL);
    FAILS(nn_adam_new, net, "adam: the optimizer has no option .momentum", .momentum = 0.9f);
    FAILS(nn_adamw_new, net, "no option .dampening", .dampening = 0.1f);
    FAILS(nn_sgd_new, net, "no option .beta1", .beta1 = 0.9f);
    FAILS(nn_sgd_new, net, "no option .eps", .eps = 1e-8f);
    FAILS(nn_nadam_new, net, "no option .amsgrad", .amsgrad = 1);
    FAILS(nn_lion_new, net, "no option .eps", .eps = 1e-8f);
    FAILS(nn_adagrad_new, net, "no option .centered", .centered = 1);
    FAILS(nn_rmsprop_new, net, "no option .lr_decay", .lr_decay = 1);
    FAILS(nn_adam_new, net, "no option .momentum_decay", .momentum_decay = 1);
    FAILS(nn_sgd_new, net, "lr is -1", .lr = -1);
    FAILS(nn_sgd_new, net, "lr is nan", .lr = NAN);
    FAILS(nn_adam_new, net, "beta1 is 1", .beta1 = 1);
    FAILS(nn_sgd_new, net, "nesterov", .nesterov = 1);
    FAILS(nn_sgd_new, net, "nesterov", .nesterov = 1, .momentum = 0.5f, .dampening = 0.5f);
    FAILS(nn_sgd_new, net, "match", .match = ".bias");
    nn_clear(nn);
    nn_optimizer *opt = nn_adam_new(net, NULL);
    nn_optimizer_add(opt, net, &(nn_optimizer_desc){ .match = ".nothing" });
    CHECK_TEXT(nn_error(nn), "no parameter's name ends in \".nothing\"");
    nn_clear(nn);
    nn_optimizer_add(opt, net, &(nn_optimizer_desc){ .clip_norm = 1 });
    CHECK_TEXT(nn_error(nn), "clip_norm");
    nn_clear(nn);
    nn_optimizer_add(opt, net, &(nn_optimizer_desc){ .momentum = 1 });
    CHECK_TEXT(nn_error(nn), ".momentum");
    nn_clear(nn);
    nn_optimizer_add(opt, NULL, NULL);
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    CHECK(!nn_step_lr_new(opt, NULL));
    CHECK_TEXT(nn_error(nn), "step_size");
    nn_clear(nn);
    CHECK(!nn_cosine_lr_new(opt, NULL) && !nn_ok(nn)); nn_clear(nn);
    CHECK(!nn_one_cycle_lr_new(opt, &(nn_schedule_desc){ .total = 5 }) && !nn_ok(nn)); nn_clear(nn);
    CHECK(!nn_multi_step_lr_new(opt, NULL) && !nn_ok(nn)); nn_clear(nn);
    CHECK(!nn_one_cycle_lr_new(opt, &(nn_schedule_desc){ .total = 5, .max_lr = 1, .rise = 1.5f }));
    CHECK_ERROR(nn, "rise must be in 0..1");
    CHECK(!nn_one_cycle_lr_new(opt, &(nn_schedule_desc){ .total = 5, .max_lr = 1, .div = NAN }));
    CHECK_ERROR(nn, "div and final_div positive");
    CHECK(!nn_linear_lr_new(opt, &(nn_schedule_desc){ .start_factor = 2 }));
    CHECK_ERROR(nn, "start_factor must be in 0..1");
    CHECK(!nn_linear_lr_new(opt, &(nn_schedule_desc){ .end_factor = -1 }));
    CHECK_ERROR(nn, "end_factor in 0..1");
    CHECK(!nn_ema_new(net, 1.5f) && !nn_ok(nn)); nn_clear(nn);
    /* NULL everywhere */
    nn_step(NULL); nn_optimizer_add(NULL, net, NULL); nn_set_lr(NULL, 1); nn_schedule_advance(NULL); nn_schedule_metric(NULL, 1); nn_ema_update(NULL); nn_ema_swap(NULL);
    CHECK(nn_lr(NULL) == 0 && nn_steps(NULL) == 0 && isnan(nn_grad_norm(NULL)) && !nn_step_lr_new(NULL, NULL) && !nn_sgd_new(NULL, NULL) && !nn_ema_new(NULL, 0.9f));
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(options_count_as_written)
{
    CHECK(nn__as_written(0.9f) == 0.9);
    CHECK(nn__as_written(0.999f) == 0.999);
    CHECK(nn__as_written(1e-8f) == 1e-8);
    CHECK(nn__as_written(3e-4f) == 3e-4);
    CHECK(nn__as_written(-2.5f) == -2.5);
    CHECK(nn__as_written(16777216.0f) == 16777216.0);
    CHECK((float)nn__as_written(1.0f / 3) == 1.0f / 3);
    CHECK(isinf(nn__as_written(INFINITY)) && isnan(nn__as_written(NAN)));
    CHECK(nn__option(0, 7) == 7 && nn__option(NN_ZERO, 7) == 0);
}

TEST(averages)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL), *fc = nn_linear_new(net, "fc", 3, 40, NULL);
    nn_tensor *w = nn_param(fc, "weight");
    static float v[120], shadow[120], got[120];
    nn_ema *ema = nn_ema_new(net, 0.9f);
    nn_read(w, shadow);
    for (int step = 0; step < 5; step++) {
        for (int i = 0; i < 120; i++) { v[i] = (float)noise(step, i); shadow[i] = 0.9f * shadow[i] + 0.1f * v[i]; }
        nn_write(w, v);
        nn_ema_update(ema);
    }
    nn_ema_swap(ema);
    nn_read(w, got);
    for (int i = 0; i < 120; i++) CHECK_NEAR(got[i], shadow[i], 1e-6);
    nn_ema_update(ema);
    CHECK_TEXT(nn_error(nn), "exchanged");
    nn_clear(nn);
    nn_ema_swap(ema);
    nn_read(w, got);
    for (int i = 0; i < 120; i++) CHECK_NEAR(got[i], v[i], 0);
    nn_free(nn);
}

/* ---- schedules: closed forms, and values of torch.optim.lr_scheduler ---- */
typedef nn_schedule *(*make_schedule)(nn_optimizer *, const nn_schedule_desc *);
static nn_context *schedule_nn;
static nn_optimizer *schedule_opt;
static nn_schedule *start(make_schedule create, const nn_schedule_desc *desc)
{
    nn_layer *net;
    schedule_nn = nn_new(NULL);
    net = nn_model_new(schedule_nn, NULL);
    nn_linear_new(net, "a", 2, 2, NULL);
    schedule_opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.5f });
    nn_optimizer_add(schedule_opt, net, &(nn_optimizer_desc){ .lr = 0.05f, .match = ".bias" });
    return create(schedule_opt, desc);
}
static double lr(int group) { return schedule_opt->group[group].lr; }

TEST(schedules)
{
    const double pi = 3.14159265358979323846;
    int milestones[] = { 3, 5, 5 };
    nn_schedule *s = start(nn_step_lr_new, &(nn_schedule_desc){ .step_size = 3, .gamma = 0.5f });
    for (int t = 0; t < 10; t++) { CHECK_NEAR(lr(0), 0.5 * pow(0.5, t / 3), 1e-15); CHECK_NEAR(lr(1), 0.05 * pow(0.5, t / 3), 1e-15); nn_schedule_advance(s); }
    nn_free(schedule_nn);

    s = start(nn_multi_step_lr_new, &(nn_schedule_desc){ .milestones = milestones, .milestone_count = 3 });
    for (int t = 0; t < 8; t++) { CHECK_NEAR(lr(0), 0.5 * (t < 3 ? 1 : t < 5 ? 0.1 : 0.001), 1e-15); nn_schedule_advance(s); }
    nn_free(schedule_nn);

    s = start(nn_exponential_lr_new, NULL);
    for (int t = 0; t < 8; t++) { CHECK_NEAR(lr(0), 0.5 * pow(0.95, t), 1e-15); nn_schedule_advance(s); }
    nn_free(schedule_nn);

    s = start(nn_polynomial_lr_new, &(nn_schedule_desc){ .total = 6, .power = 2 });
    for (int t = 0; t < 9; t++) { CHECK_NEAR(lr(0), t < 6 ? 0.5 * pow(1 - t / 6.0, 2) : 0, 1e-15); nn_schedule_advance(s); }
    nn_free(schedule_nn);

    s = start(nn_linear_lr_new, NULL);
    for (int t = 0; t < 9; t++) { CHECK_NEAR(lr(0), t < 5 ? 0.5 * (1.0 / 3 + (2.0 / 3) * t / 5) : 0.5, 1e-15); nn_schedule_advance(s); }
    nn_free(schedule_nn);

    s = start(nn_cosine_lr_new, &(nn_schedule_desc){ .total = 10, .min_lr = 0.01f });
    for (int t = 0; t < 25; t++) {   /* PyTorch's goes up again after total */
        CHECK_NEAR(lr(0), 0.01 + 0.49 * (1 + cos(pi * t / 10)) / 2, 1e-14);
        CHECK_NEAR(lr(1), 0.01 + 0.04 * (1 + cos(pi * t / 10)) / 2, 1e-14);
        nn_schedule_advance(s);
    }
    nn_free(schedule_nn);

    s = start(nn_warm_restarts_lr_new, &(nn_schedule_desc){ .period = 2, .period_mult = 2 });
    for (int t = 0; t < 14; t++) {   /* periods of 2, 4, 8 */
        int from = t < 2 ? 0 : t < 6 ? 2 : 6, period = t < 2 ? 2 : t < 6 ? 4 : 8;
        CHECK_NEAR(lr(0), 0.5 * (1 + cos(pi * (t - from) / period)) / 2, 1e-15);
        nn_schedule_advance(s);
    }
    nn_free(schedule_nn);

    s = start(nn_one_cycle_lr_new, &(nn_schedule_desc){ .total = 20, .max_lr = 1 });
    for (int t = 0; t < 22; t++) {   /* the top is reached at step 0.3 * 20 - 1 = 5 */
        double share = t <= 5 ? t / 5.0 : (t - 5) / 14.0, from = t <= 5 ? 0.04 : 1, to = t <= 5 ? 1 : 0.04 / 1e4;
        if (share > 1) share = 1;
        CHECK_NEAR(lr(0), to + (from - to) / 2 * (cos(pi * share) + 1), 1e-15);
        CHECK_NEAR(lr(1), lr(0), 0);
        nn_schedule_advance(s);
    }
    nn_free(schedule_nn);

    s = start(nn_plateau_lr_new, &(nn_schedule_desc){ .patience = 2, .cooldown = 1, .min_lr = 0.01f });
    {
        static const double metric[] = { 1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9 };
        static const double want[]   = { 0.5, 0.5, 0.5, 0.5, 0.05, 0.05, 0.05, 0.05, 0.01, 0.01, 0.01, 0.01 };
        for (int t = 0; t < 12; t++) { nn_schedule_metric(s, metric[t]); nn_schedule_advance(s); CHECK_NEAR(lr(0), want[t], 1e-15); }
    }
    nn_free(schedule_nn);

    s = start(nn_plateau_lr_new, &(nn_schedule_desc){ .patience = NN_ZERO, .maximize = 1 });
    nn_schedule_metric(s, 0.5); CHECK_NEAR(lr(0), 0.5, 0);
    nn_schedule_metric(s, 0.6); CHECK_NEAR(lr(0), 0.5, 0);
    nn_schedule_metric(s, 0.6); CHECK_NEAR(lr(0), 0.05, 1e-15);
    nn_free(schedule_nn);

    s = start(nn_exponential_lr_new, &(nn_schedule_desc){ .gamma = 0.5f, .warmup = 4, .per_step = 1 });
    CHECK(s->per_step == 1);
    for (int t = 0; t < 8; t++) { CHECK_NEAR(lr(0), t < 4 ? 0.5 * (t + 1) / 5 : 0.5 * pow(0.5, t - 4), 1e-15); nn_schedule_advance(s); }
    CHECK(nn_ok(schedule_nn));
    nn_free(schedule_nn);
}

/* Everything must also fit into a buffer whose size was measured. */
TEST(measured_memory)
{
    size_t bytes = 0;
    void *memory = NULL;
    for (int pass = 0; pass < 2; pass++) {
        nn_context *nn = nn_new(&(nn_desc){ .memory = memory, .bytes = bytes, .measure = pass == 0, .threads = 1 });
        nn_layer *net = nn_model_new(nn, NULL);
        nn_linear_new(net, "a", 4, 3, NULL);
        nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .clip_norm = 1, .amsgrad = 1 });
        nn_ema *ema = nn_ema_new(net, 0.9f);
        for (int i = 0; i < 2; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *x = nn_ones(nn, NN_SHAPE(2, 4)), *y = nn_forward(net, x);
            nn_backward(nn_add(nn_cross_entropy(y, nn_from_as(nn, NN_I64, NN_SHAPE(2), NULL), NULL), nn_add(nn_mse(y, nn_zeros(nn, NN_SHAPE(2, 3)), NULL), nn_info_nce(y, y, NULL))));
            nn_step(opt);
            nn_ema_update(ema);
        }
        CHECK(nn_ok(nn));
        if (pass == 0) { bytes = nn_bytes_needed(nn) + 64; memory = malloc(bytes); }
        nn_free(nn);
    }
    free(memory);
}

/* ---- loss scaling: the bits of a run without it that leaves out the steps where a gradient is not finite ---- */
enum { SCALED_STEPS = 14, SCALED_NUMBERS = 24 * 9 + 9 + 9 * 3 + 3 };
static const float spoiled[SCALED_STEPS] = { [0] = INFINITY, [1] = -INFINITY, [6] = NAN, [13] = INFINITY };       /* what the loss is multiplied by */
typedef struct scaled_by { nn_context *nn; nn_layer *net; nn_optimizer *opt; int how; } scaled_by;
enum { BY_HAND, WALKING, PLANNED, ACCUMULATED, CHECKPOINTED, SCALED_WAYS };
static nn_tensor *run_net(void *self, nn_tensor *x) { return nn_forward(self, x); }
static nn_tensor *scaled_step(void *user, nn_tensor *x, nn_tensor *y)
{
    scaled_by *s = user;
    nn_tensor *z = s->how == CHECKPOINTED ? nn_checkpoint(run_net, s->net, x) : nn_forward(s->net, x), *loss;
    loss = nn_mul(nn_mean(nn_square(z), NN_ALL, NULL), y);
    if (s->how == ACCUMULATED) {
        nn_backward_with(loss, &(nn_backward_desc){ .grad = nn_full(s->nn, nn_shape_of(loss), 0.25f), .retain = 1 });
        nn_backward_with(loss, &(nn_backward_desc){ .grad = nn_full(s->nn, nn_shape_of(loss), 0.75f) });
    }
    else nn_backward_with(loss, &(nn_backward_desc){ .step = s->how == BY_HAND ? NULL : s->opt });
    return loss;
}
static void scaled_run(make create, nn_optimizer_desc d, nn_dtype dtype, int how, int threads, int scaling, double *weights, float *scales, double *norms)
{
    scaled_by s = { .how = how };
    nn_context *nn = s.nn = nn_new(&(nn_desc){ .seed = 2, .threads = threads, .dtype = dtype, .loss_scale = scaling ? 1024.0f : 0, .growth_interval = 3 });
    nn_layer *net = s.net = nn_model_new(nn, NULL), *part;
    nn_linear_new(net, "a", 24, 9, NULL);
    nn_fn_new(net, nn_tanh);
    part = nn_linear_new(net, "b", 9, 3, NULL);
    nn_optimizer *opt = s.opt = create(net, &d);
    nn_optimizer_add(opt, part, &(nn_optimizer_desc){ .lr = 0.02f });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(5, 24), NULL), *y = nn_tensor_new(nn, NN_SCALAR, NULL), *p[4];
    nn_step_plan *plan = how == PLANNED ? nn_step_plan_new(net, &(nn_step_plan_desc){ .step = scaled_step, .user = &s }) : NULL;
    int updates = 0, good = 0;
    float scale = 1024;
    for (int i = 0; i < SCALED_STEPS; i++) {
        float v[120], factor = spoiled[i] != 0 ? spoiled[i] : 1;
        for (int k = 0; k < 120; k++) v[k] = (float)noise(200 + i, k);
        nn_write(x, v);
        nn_write(y, &factor);
        if (plan) nn_step_plan_run(plan, x, y);
        else {
            nn_begin(nn, NN_TRAIN);
            scaled_step(&s, x, y);
            if (how == BY_HAND) norms[i] = nn_grad_norm(opt);
            if (!scaling && spoiled[i] != 0) nn_zero_grad(net);
            else if (how == BY_HAND || how == ACCUMULATED) nn_step(opt);
        }
        updates += spoiled[i] == 0;
        if (spoiled[i] != 0) { scale /= 2; good = 0; }
        else if (++good == 3) { scale *= 2; good = 0; }
        if (scaling && (i % 2 || i == SCALED_STEPS - 1)) CHECK(nn_steps(opt) == updates);
        scales[i] = nn_loss_scale(nn);
        CHECK(scales[i] == (scaling ? scale : 1));
    }
    CHECK(!plan || nn_step_plan_calls(plan) > 0);
    CHECK(nn_ok(nn) && nn_steps(opt) == updates);
    nn_params(net, p, 4);
    for (int k = 0, at = 0; k < 4; k++) { nn_read_as(p[k], NN_F64, weights + at); at += (int)nn_count(p[k]); }
    nn_step_plan_free(plan);
    nn_free(nn);
}
TEST(loss_scaling)
{
    static const struct { make create; nn_optimizer_desc desc; } list[] = {
        { nn_sgd_new,     { .lr = 0.1f, .momentum = 0.9f, .dampening = 0.3f, .clip_norm = 0.05f } },      /* dampening: the first step is another */
        { nn_sgd_new,     { .lr = 0.1f, .clip_value = 0.01f } },
        { nn_rmsprop_new, { .momentum = 0.8f, .centered = 1 } },
        { nn_adagrad_new, { .lr = 0.1f, .lr_decay = 0.3f } },
        { nn_adam_new,    { .lr = 0.02f, .amsgrad = 1, .weight_decay = 0.1f } },
        { nn_adamw_new,   { .lr = 0.02f, .clip_norm = 0.02f } },
        { nn_nadam_new,   { .lr = 0.02f } },
        { nn_lion_new,    { .lr = 0.01f, .weight_decay = 0.1f } } };
    for (size_t k = 0; k < sizeof list / sizeof *list; k++) for (int f64 = 0; f64 < 2; f64++) {
        double want[2][SCALED_NUMBERS], got[SCALED_NUMBERS], norms[2][SCALED_STEPS];
        float scales[SCALED_STEPS];
        nn_dtype dtype = f64 ? NN_F64 : NN_F32;
        scaled_run(list[k].create, list[k].desc, dtype, BY_HAND, 1, 0, want[0], scales, norms[0]);
        scaled_run(list[k].create, list[k].desc, dtype, ACCUMULATED, 1, 0, want[1], scales, norms[0]);
        for (int how = 0; how < SCALED_WAYS; how++) {
            scaled_run(list[k].create, list[k].desc, dtype, how, how == PLANNED ? 3 : 1, 1, got, scales, norms[1]);
            if (memcmp(got, want[how == ACCUMULATED], sizeof got)) printf("optimizer %d, %s, way %d: other bits\n", (int)k, f64 ? "f64" : "f32", how);
            CHECK(!memcmp(got, want[how == ACCUMULATED], sizeof got));
            for (int i = 0; how == BY_HAND && i < SCALED_STEPS; i++) CHECK(spoiled[i] == 0 ? norms[1][i] == norms[0][i] : !isfinite(norms[1][i]));
        }
    }
}

/* Two optimizers for one loss, one of them with more gradients to come: the scale stays while any of them waits. */
static void two_losses(nn_tensor *p, nn_tensor *q, float of_p)
{
    nn_begin(p->nn, NN_TRAIN);
    nn_backward(nn_add(nn_mul_scalar(nn_sum(p, NN_ALL, NULL), of_p), nn_sum(q, NN_ALL, NULL)));
}
static nn_tensor *sum_of_squares(void *x) { return nn_sum(nn_square(x), NN_ALL, NULL); }
TEST(one_loss_scale_for_two_optimizers)
{
    nn_context *nn = nn_new(&(nn_desc){ .loss_scale = 8, .growth_factor = 4, .backoff_factor = 0.25f, .growth_interval = 2 });
    nn_layer *net = nn_model_new(nn, NULL), *first = nn_group_new(net, "a"), *second = nn_group_new(net, "b");
    nn_tensor *p = nn_param_new(first, "p", NN_SHAPE(3)), *q = nn_param_new(second, "q", NN_SHAPE(2));
    nn_optimizer *a = nn_sgd_new(first, &(nn_sgd_desc){ .lr = 1 }), *b = nn_sgd_new(second, &(nn_sgd_desc){ .lr = 1 });
    nn_optimizer *idle = nn_adam_new(net, NULL);         /* its parameters are those of others */
    float v[3];
    two_losses(p, q, INFINITY);
    CHECK(nn_read(nn_grad(q), v) && v[0] == 8 && nn_grad_norm(b) == sqrtf(2));
    nn_step(a);
    CHECK(nn_steps(a) == 0 && nn_loss_scale(nn) == 8);   /* b's gradients are still to be divided by 8 */
    nn_step(b);
    CHECK(nn_steps(b) == 1 && nn_loss_scale(nn) == 2);
    CHECK(nn_read(p, v) && v[0] == 0 && nn_read(q, v) && v[0] == -1);
    for (int i = 0; i < 3; i++) {                        /* b's add up over three steps of a */
        two_losses(p, q, 1);
        nn_step(a);
        CHECK(nn_steps(a) == i + 1 && nn_loss_scale(nn) == 2);
    }
    nn_step(b);
    CHECK(nn_read(p, v) && v[2] == -3 && nn_read(q, v) && v[1] == -4);
    two_losses(p, q, 1);
    nn_step(a);
    nn_step(b);
    CHECK(nn_loss_scale(nn) == 8);                       /* the second time that it may: up */
    CHECK(nn_steps(idle) == 0 && nn_ok(nn));
    nn_freeze(second, 1);                                /* a parameter that begins to move later */
    nn_optimizer *late = nn_adam_new(net, &(nn_adam_desc){ .lr = 1 });
    for (int i = 0; i < 3; i++) {
        if (i == 2) nn_freeze(second, 0);
        two_losses(p, q, 1);
        nn_step(late);
    }
    CHECK(nn_read(q, v)); CHECK_NEAR(v[0], -6, 1e-6);    /* its first step: lr times 1 */
    CHECK(nn_read(p, v)); CHECK_NEAR(v[0], -7, 1e-6);
    CHECK(nn_gradcheck(nn, sum_of_squares, p, &p, 1, NULL) && nn_loss_scale(nn) > 1);     /* looks at gradients as they are */
    nn_free(nn);
}
TEST(loss_scale_finds_its_size)                          /* gradients of 1e33 and 1: only the scale overflows; and it never becomes infinite */
{
    nn_context *nn = nn_new(&(nn_desc){ .loss_scale = 65536, .growth_interval = 1 });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_tensor *p = nn_param_new(net, "p", NN_SHAPE(2));
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 1, .clip_value = 1 });
    nn_ema *ema = nn_ema_new(net, 0.5f);
    float v[2];
    for (int i = 0; i < 4; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_sum(nn_mul(p, nn_from(nn, NN_SHAPE(2), (float[]){ 2e34f, 0.5f })), NN_ALL, NULL));
        nn_step(opt);
        nn_ema_update(ema);
    }
    CHECK(nn_steps(opt) == 1 && nn_loss_scale(nn) == 16384);         /* 65536, 32768: too large; 16384: good; 32768: not */
    CHECK(nn_read(p, v) && v[0] == -1 && v[1] == -0.5f);
    nn_ema_swap(ema);
    CHECK(nn_read(p, v) && v[0] == -0.75f && v[1] == -0.375f);
    nn_free(nn);
    nn = nn_new(&(nn_desc){ .loss_scale = 1e38f, .growth_interval = 1 });
    net = nn_model_new(nn, NULL);
    p = nn_param_new(net, "p", NN_SHAPE(2));
    opt = nn_sgd_new(net, NULL);
    for (int i = 0; i < 3; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_sum(nn_mul_scalar(p, 0.25f), NN_ALL, NULL));
        nn_step(opt);
        CHECK(nn_loss_scale(nn) == 2e38f);
    }
    CHECK(nn_steps(opt) == 3 && nn_read(p, v)); CHECK_NEAR(v[0], -0.0075, 1e-8);
    nn_free(nn);
    for (int i = 0; i < 4; i++) {
        static const nn_desc bad[4] = { { .loss_scale = -1 }, { .loss_scale = 1, .growth_factor = 1 }, { .loss_scale = 1, .backoff_factor = 1 }, { .loss_scale = 1, .growth_interval = -1 } };
        nn_desc d = bad[i];
        d.on_error = test_quiet;
        nn = nn_new(&d);
        CHECK_TEXT(nn_error(nn), "loss_scale");
        nn_free(nn);
    }
    CHECK(nn_loss_scale(NULL) == 1);
}

/* ---- updates during the walk: the same bits as nn_backward, then nn_step ---- */
static nn_tensor *tied(void *self, nn_tensor *x)         /* a weight that is used twice, through a view and as it is */
{
    nn_layer **l = self;
    nn_tensor *w = nn_param(l[0], "weight"), *y = nn_relu(nn_forward(l[0], x));
    y = nn_add(nn_matmul(y, w), nn_matmul(x, nn_transpose(nn_detach(w), 0, 1)));
    return nn_forward(l[1], y);
}
static void walked(nn_optimizer_desc d, int early, int accumulate, int freeze, float *weights, size_t *bytes)
{
    nn_layer *l[2];
    nn_context *nn = nn_new(&(nn_desc){ .seed = 2, .threads = 1 });
    nn_layer *net = nn_model_new(nn, &(nn_model_desc){ .forward = tied, .self = l });
    l[0] = nn_linear_new(net, "a", 24, 24, NULL);
    l[1] = nn_linear_new(net, "b", 24, 2, NULL);
    nn_layer *apart = nn_linear_new(net, "c", 3, 3, NULL);           /* takes no part */
    nn_optimizer *opt = nn_sgd_new(net, &d);
    if (freeze) nn_freeze(l[1], 1);
    for (int i = 0; i < 6; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *loss = nn_mean(nn_square(nn_forward(net, nn_randn(nn, NN_SHAPE(5, 24), 0, 1))), NN_ALL, NULL);
        int step = !accumulate || i % 2;
        nn_backward_with(loss, &(nn_backward_desc){ .step = early && step ? opt : NULL });
        if (!early && step) nn_step(opt);
        if (early && step) CHECK(nn_grad(nn_param(l[0], "weight")) == NULL);
    }
    CHECK(nn_ok(nn) && nn_steps(opt) == (accumulate ? 3 : 6));
    CHECK(nn_read(nn_param(l[0], "weight"), weights) && nn_read(nn_param(l[1], "weight"), weights + 576) && nn_read(nn_param(apart, "weight"), weights + 624));
    *bytes = nn_bytes_needed(nn);
    nn_free(nn);
}
TEST(updates_during_the_walk)
{
    static float w[2][633];
    size_t bytes[2];
    for (int i = 0; i < 8; i++) {
        nn_optimizer_desc d = { .lr = 0.05f, .momentum = 0.9f, .clip_norm = i & 4 ? 0.5f : 0 };
        for (int early = 0; early < 2; early++) walked(d, early, i & 1, i & 2, w[early], &bytes[early]);
        CHECK(!memcmp(w[0], w[1], sizeof w[0]));
        CHECK(bytes[1] <= bytes[0]);
    }
}
