/* test_core.c - contexts, errors, steps, modes, views, gradients, custom ops */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"

static nn_context *quiet(void) { return nn_new(&(nn_desc){ .on_error = test_quiet }); }

TEST(error_names_op_shapes_and_rule)
{
    nn_context *nn = quiet();
    nn_tensor *y = nn_matmul(nn_zeros(nn, NN_SHAPE(64, 784)), nn_zeros(nn, NN_SHAPE(100, 10)));
    CHECK(!nn_ok(nn));
    CHECK(!strcmp(nn_error(nn), "matmul: inner sizes differ: (64, 784) x (100, 10)"));
    CHECK(y && nn_count(y) == 0 && isnan(nn_item(nn_sum(nn_relu(y), NN_ALL, NULL))));      /* inert, but a tensor */
    nn_fail(nn, "a later error");
    CHECK_TEXT(nn_error(nn), "matmul");                                                   /* the first one sticks */
    nn_clear(nn);
    CHECK(nn_ok(nn) && !nn_error(nn)[0]);
    CHECK(nn_item(nn_ones(nn, NN_SCALAR)) == 1.0);
    nn_free(nn);
}

TEST(error_names_the_layer)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL), *head = nn_group_new(net, "head");
    nn_linear_new(head, "fc", 4, 2, NULL);
    nn_forward(net, nn_zeros(nn, NN_SHAPE(3, 5)));
    CHECK_TEXT(nn_error(nn), "head.fc: linear: x (3, 5) does not fit w (2, 4)");
    nn_free(nn);
}

static int calls;
static void count_error(void *user, const char *message) { (void)user; (void)message; calls++; }
TEST(error_callback_is_called_inside_the_call)
{
    calls = 0;
    nn_context *nn = nn_new(&(nn_desc){ .on_error = count_error });
    nn_add(nn_zeros(nn, NN_SHAPE(3)), nn_zeros(nn, NN_SHAPE(4)));
    CHECK(calls == 1);
    nn_add(nn_zeros(nn, NN_SHAPE(3)), nn_zeros(nn, NN_SHAPE(4)));
    CHECK(calls == 1);
    nn_free(nn);
}

TEST(null_is_tolerated)
{
    CHECK(!nn_ok(NULL));
    nn_free(NULL); nn_begin(NULL, NN_TRAIN); nn_push(NULL, NN_EVAL); nn_pop(NULL); nn_clear(NULL); nn_step(NULL); nn_backward(NULL);
    CHECK(nn_relu(NULL) && nn_add(NULL, NULL) && nn_zeros(NULL, NN_SHAPE(2)));
    CHECK(isnan(nn_item(nn_matmul(NULL, NULL))));
    nn_layer *net = nn_model_new(NULL, NULL);
    nn_linear_new(net, "a", 1, 1, NULL);
    CHECK(nn_forward(net, nn_zeros(NULL, NN_SHAPE(1))) != NULL);
    nn_context *nn = quiet();
    CHECK(nn_count(nn_add(nn_zeros(nn, NN_SHAPE(2)), NULL)) == 0 && !nn_ok(nn));
    nn_free(nn);
}

TEST(dead_and_foreign_tensors)
{
    nn_context *a = quiet(), *b = quiet();
    nn_begin(a, NN_EVAL);
    nn_tensor *x = nn_zeros(a, NN_SHAPE(2));
    nn_begin(a, NN_EVAL);
    nn_relu(x);
    CHECK_TEXT(nn_error(a), "died at the last nn_begin");
    nn_clear(a);
    nn_add(nn_zeros(a, NN_SHAPE(2)), nn_zeros(b, NN_SHAPE(2)));
    CHECK_TEXT(nn_error(a), "another context");
    nn_free(a);
    nn_free(b);
}

TEST(keep_survives_one_step)
{
    nn_context *nn = quiet();
    nn_begin(nn, NN_EVAL);
    nn_tensor *k = nn_keep(nn_full(nn, NN_SHAPE(3), 5));
    nn_begin(nn, NN_EVAL);
    CHECK(nn_item(nn_sum(k, NN_ALL, NULL)) == 15.0);
    nn_tensor *again = nn_keep(k);
    nn_begin(nn, NN_EVAL);
    CHECK(nn_item(nn_sum(again, NN_ALL, NULL)) == 15.0);
    nn_begin(nn, NN_EVAL);
    nn_sum(again, NN_ALL, NULL);
    CHECK(!nn_ok(nn));
    nn_free(nn);
}

TEST(views_share_storage)
{
    nn_context *nn = quiet();
    float v[12], r[12];
    for (int i = 0; i < 12; i++) v[i] = (float)i;
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(3, 4), v);
    nn_tensor *row = nn_slice(x, 0, 1, 2, 1), *t = nn_transpose(x, 0, 1), *f = nn_reshape(x, NN_SHAPE(12));
    CHECK(row->base == x && t->base == x && f->base == x && f->data == x->data);
    nn_write(row, (float[]){ 40, 50, 60, 70 });
    CHECK(nn_read(f, r) && r[4] == 40 && r[7] == 70 && r[8] == 8);
    CHECK(nn_read(t, r) && r[1] == 40 && r[3] == 1);
    CHECK(nn_data(t) == NULL);
    CHECK_TEXT(nn_error(nn), "not contiguous");
    nn_free(nn);
}

TEST(begin_sets_the_mode)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc", 2, 2, NULL);
    nn_begin(nn, NN_EVAL);
    CHECK(nn_forward(net, nn_ones(nn, NN_SHAPE(1, 2)))->node == NULL);
    nn_begin(nn, NN_TRAIN);
    CHECK(nn_forward(net, nn_ones(nn, NN_SHAPE(1, 2)))->node != NULL);
    nn_push(nn, NN_EVAL);
    nn_tensor *y = nn_forward(net, nn_ones(nn, NN_SHAPE(1, 2)));
    nn_pop(nn);
    CHECK(y->node == NULL && nn_get_mode(nn) == NN_TRAIN);
    CHECK(isfinite(nn_item(nn_sum(y, NN_ALL, NULL))));
    nn_pop(nn);
    CHECK_TEXT(nn_error(nn), "nn_push");
    nn_free(nn);
}

TEST(gradients_accumulate_until_cleared)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    nn_tensor *w = nn_param_new(net, "w", NN_SHAPE(3));
    for (int i = 1; i <= 3; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_sum(nn_mul_scalar(w, 2), NN_ALL, NULL));
        CHECK(nn_item(nn_slice(nn_grad(w), 0, 0, 1, 1)) == 2.0 * i);
    }
    nn_zero_grad(net);
    CHECK(nn_grad(w) == NULL);
    nn_free(nn);
}

TEST(detach_and_freeze_stop_gradients)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    nn_tensor *a = nn_param_new(net, "a", NN_SHAPE(2)), *b = nn_param_new(net, "b", NN_SHAPE(2));
    nn_init_uniform(a, 1, 2); nn_init_uniform(b, 1, 2);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_mul(nn_detach(a), b), NN_ALL, NULL));
    CHECK(nn_grad(a) == NULL && nn_grad(b) != NULL);
    nn_zero_grad(net);
    nn_freeze_param(b, 1);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_mul(a, b), NN_ALL, NULL));
    CHECK(nn_grad(a) != NULL && nn_grad(b) == NULL);
    nn_free(nn);
}

TEST(backward_twice_is_an_error_unless_asked_for)
{
    nn_context *nn = quiet();
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(2), (float[]){ 1, 2 }));
    nn_begin(nn, NN_TRAIN);
    nn_tensor *y = nn_sum(nn_square(x), NN_ALL, NULL);
    nn_backward_with(y, &(nn_backward_desc){ .retain = 1 });
    nn_backward(y);
    CHECK(nn_ok(nn) && nn_item(nn_slice(nn_grad(x), 0, 1, 2, 1)) == 8.0);
    nn_backward(y);
    CHECK_TEXT(nn_error(nn), "walked before");
    nn_free(nn);
}

TEST(two_losses_share_activations)
{
    nn_context *nn = quiet();
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(2), (float[]){ 1, 2 })), *w = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(2), (float[]){ 3, 5 }));
    nn_begin(nn, NN_TRAIN);
    nn_tensor *h = nn_mul(x, w);
    nn_backward(nn_add(nn_sum(h, NN_ALL, NULL), nn_sum(nn_square(h), NN_ALL, NULL)));     /* d = (1 + 2h) w */
    CHECK(nn_item(nn_slice(nn_grad(x), 0, 0, 1, 1)) == (1 + 2 * 3) * 3.0);
    CHECK(nn_item(nn_slice(nn_grad(w), 0, 1, 2, 1)) == (1 + 2 * 10) * 2.0);
    nn_free(nn);
}

TEST(gradient_of_an_intermediate_result)
{
    nn_context *nn = quiet();
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(2), (float[]){ 1, 2 }));
    nn_begin(nn, NN_TRAIN);
    nn_tensor *h = nn_want_grad(nn_mul_scalar(x, 3)), *plain = nn_square(h);
    nn_backward(nn_sum(plain, NN_ALL, NULL));
    CHECK(nn_grad(h) && nn_item(nn_slice(nn_grad(h), 0, 1, 2, 1)) == 12.0 && !nn_grad(plain));
    nn_free(nn);
}

/* The gradient of a reshape is handed on, not copied: not when another user of x was first, not when somebody asked to see it. */
TEST(gradient_of_a_reshape)
{
    static const float xs[6] = { 1, 2, 3, 4, 5, 6 };
    for (int how = 0; how < 8; how++) {                  /* bits: x is used before, x is used after, y is wanted */
        nn_context *nn = quiet();
        nn_tensor *p = nn_param_new(nn_model_new(nn, NULL), "p", NN_SHAPE(2, 3)), *x, *y, *loss;
        nn_write(p, xs);
        nn_begin(nn, NN_TRAIN);
        x = nn_want_grad(nn_mul_scalar(p, 2));
        loss = how & 1 ? nn_sum(nn_square(x), NN_ALL, NULL) : nn_zeros(nn, NN_SCALAR);
        y = nn_reshape(x, NN_SHAPE(3, 2));
        if (how & 4) nn_want_grad(y);
        loss = nn_add(loss, nn_sum(nn_mul(y, nn_from(nn, NN_SHAPE(3, 2), xs)), NN_ALL, NULL));
        if (how & 2) loss = nn_add(loss, nn_sum(nn_square(x), NN_ALL, NULL));
        nn_backward(loss);
        CHECK(nn_ok(nn) && nn_grad(x)->ndim == 2 && nn_grad(x)->shape[0] == 2 && nn_grad(x)->shape[1] == 3);
        for (int i = 0; i < 6; i++) {
            float dx = xs[i] + (float)((how & 1) + (how >> 1 & 1)) * 2 * 2 * xs[i];
            CHECK(nn_data(nn_grad(x))[i] == dx && nn_data(nn_grad(p))[i] == 2 * dx);
            if (how & 4) CHECK(nn_data(nn_grad(y))[i] == xs[i] && nn_grad(y)->shape[0] == 3);
        }
        nn_free(nn);
    }
}

TEST(overwritten_storage_is_noticed)
{
    nn_context *nn = quiet();
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(2), (float[]){ 1, 2 }));
    nn_begin(nn, NN_TRAIN);
    nn_tensor *y = nn_sum(nn_square(x), NN_ALL, NULL);
    nn_write(x, (float[]){ 5, 6 });
    nn_backward(y);
    CHECK_ERROR(nn, "overwritten");
    nn_begin(nn, NN_TRAIN);
    y = nn_exp(x);                                       /* backward reads its result */
    nn_write(y, (float[]){ 5, 6 });
    nn_backward(nn_sum(y, NN_ALL, NULL));
    CHECK_ERROR(nn, "exp: its result was overwritten");
    nn_free(nn);
}

TEST(backward_needs_history_and_one_element)
{
    nn_context *nn = quiet();
    nn_tensor *x = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(2), NULL));
    nn_begin(nn, NN_EVAL);
    nn_backward(nn_sum(x, NN_ALL, NULL));
    CHECK_TEXT(nn_error(nn), "NN_TRAIN");
    nn_clear(nn);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_square(x));
    CHECK_TEXT(nn_error(nn), "2 elements");
    nn_free(nn);
}

/* a user's own op, as in design.md: softsign */
static void softsign_forward(const nn_call *c, const nn_task *t)
{
    const float *x = c->in[0].data;
    float *y = c->out[0].data;
    (void)t;
    for (int64_t i = 0; i < nn_view_count(&c->in[0]); i++) y[i] = x[i] / (1 + fabsf(x[i]));
}
static void softsign_backward(const nn_call *c, const nn_task *t)
{
    const float *x = c->in[0].data, *dy = c->dout[0].data;
    float *dx = c->din[0].data;
    (void)t;
    for (int64_t i = 0; i < nn_view_count(&c->in[0]); i++) dx[i] += dy[i] / ((1 + fabsf(x[i])) * (1 + fabsf(x[i])));
}
static const nn_op my_softsign = { .name = "my_softsign", .inputs = 1, .forward = softsign_forward, .backward = softsign_backward };
static nn_tensor *my_softsign_op(nn_tensor *x) { return nn_apply(&my_softsign, &x, NULL); }

typedef struct checked { nn_layer *net; nn_tensor *x; } checked;
static nn_tensor *loss_of(void *user) { checked *c = user; return nn_mean(nn_square(nn_forward(c->net, c->x)), NN_ALL, NULL); }
TEST(custom_op_in_a_layer_and_the_gradient_checker)
{
    nn_context *nn = quiet();
    checked c;
    nn_tensor *list[8];
    c.net = nn_model_new(nn, NULL);
    nn_linear_new(c.net, "fc1", 3, 5, NULL);
    nn_fn_new(c.net, my_softsign_op);
    nn_linear_new(c.net, "fc2", 5, 2, NULL);
    c.x = nn_tensor_new(nn, NN_SHAPE(4, 3), (float[]){ 1, -2, .5f, .3f, .1f, 2, -1, -.7f, .2f, .9f, 1.5f, -.4f });
    CHECK(nn_gradcheck(nn, loss_of, &c, list, nn_params(c.net, list, 8), NULL));
    if (!nn_ok(nn)) puts(nn_error(nn));
    nn_free(nn);
}

static void wrong_backward(const nn_call *c, const nn_task *t)
{
    (void)t;
    for (int64_t i = 0; i < nn_view_count(&c->in[0]); i++) ((float *)c->din[0].data)[i] += 0.7f * ((const float *)c->dout[0].data)[i];
}
static const nn_op wrong_op = { .name = "wrong", .inputs = 1, .forward = softsign_forward, .backward = wrong_backward };
static nn_tensor *wrong(nn_tensor *x) { return nn_apply(&wrong_op, &x, NULL); }
TEST(the_gradient_checker_finds_a_wrong_gradient)
{
    nn_context *nn = quiet();
    checked c;
    nn_tensor *list[8];
    c.net = nn_model_new(nn, NULL);
    nn_linear_new(c.net, "fc1", 3, 5, NULL);
    nn_fn_new(c.net, wrong);
    c.x = nn_tensor_new(nn, NN_SHAPE(1, 3), (float[]){ 1, -2, .5f });
    CHECK(!nn_gradcheck(nn, loss_of, &c, list, nn_params(c.net, list, 8), NULL));
    CHECK_TEXT(nn_error(nn), "finite difference");
    nn_free(nn);
}

TEST(gradcheck_in_double)
{
    nn_context *nn = nn_new(&(nn_desc){ .dtype = NN_F64, .on_error = test_quiet });
    checked c;
    nn_tensor *list[8];
    c.net = nn_model_new(nn, NULL);
    nn_linear_new(c.net, "fc1", 3, 5, NULL);
    nn_fn_new(c.net, nn_tanh);
    c.x = nn_tensor_new(nn, NN_SHAPE(2, 3), (float[]){ 1, -2, .5f, .1f, .2f, .3f });
    CHECK(nn_gradcheck(nn, loss_of, &c, list, nn_params(c.net, list, 8), NULL));
    if (!nn_ok(nn)) puts(nn_error(nn));
    nn_free(nn);
}

TEST(names_come_from_the_tree)
{
    nn_context *nn = quiet();
    char name[64];
    nn_layer *net = nn_model_new(nn, NULL), *h = nn_group_new(net, "h"), *zero = nn_group_new(h, NULL);
    nn_layer *fc = nn_linear_new(zero, "c_fc", 2, 3, NULL);
    nn_tensor *w = nn_param(net, "h.0.c_fc.weight");
    CHECK(w && w == nn_param(fc, "weight") && nn_child(net, "h.0.c_fc") == fc);
    CHECK(nn_name(w, NULL, name, sizeof name) == 15 && !strcmp(name, "h.0.c_fc.weight"));
    nn_name(w, h, name, sizeof name);
    CHECK(!strcmp(name, "0.c_fc.weight"));
    CHECK(nn_param_count(net) == 9 && nn_params(net, NULL, 0) == 2);
    CHECK(nn_dim(w, 0) == 3 && nn_dim(w, 1) == 2 && nn_param(net, "nothing") == NULL);
    nn_linear_new(zero, "c_fc", 2, 3, NULL);
    CHECK_TEXT(nn_error(nn), "used twice");
    nn_free(nn);
}

TEST(dtypes_convert)
{
    nn_context *nn = quiet();
    float v[6] = { 0, -1.5f, 3.25f, 65504, 1e-8f, 300 }, r[6];
    for (int d = 0; d < NN_DTYPE_COUNT; d++) {
        nn_tensor *t = nn_cast(nn_from(nn, NN_SHAPE(6), v), (nn_dtype)d);
        CHECK(t->dtype == d && nn_read(t, r));
        CHECK(r[0] == 0);
        if (d == NN_F16) { CHECK(r[1] == -1.5f && r[2] == 3.25f && r[3] == 65504 && r[4] == 0); }
        if (d == NN_U8) CHECK(r[1] == 0 && r[5] == 255);
        if (d == NN_I8) CHECK(r[1] == -1 && r[5] == 127);
        if (d == NN_I64) CHECK(r[2] == 3 && r[3] == 65504);
        if (d == NN_BOOL) CHECK(r[1] == 1);
    }
    nn_relu(nn_cast(nn_from(nn, NN_SHAPE(6), v), NN_I32));
    CHECK_TEXT(nn_error(nn), "nn_cast");
    nn_free(nn);
}

TEST(random_numbers_are_a_function_of_seed_and_step)
{
    float a[100], b[100], mean = 0, sq = 0, big[10000];
    for (int k = 0; k < 2; k++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 1 + k });
        nn_begin(nn, NN_TRAIN);
        nn_read(nn_randn(nn, NN_SHAPE(100), 0, 1), k ? b : a);
        nn_read(nn_randn(nn, NN_SHAPE(10000), 0, 1), big);
        nn_free(nn);
    }
    CHECK(!memcmp(a, b, sizeof a));
    for (int i = 0; i < 10000; i++) { mean += big[i] / 10000; sq += big[i] * big[i] / 10000; }
    CHECK_NEAR(mean, 0, 0.04);
    CHECK_NEAR(sq, 1, 0.05);
}

/* known answers of Philox4x32-10 (Random123's kat_vectors): counter and key all 0, and all 1 bits */
TEST(philox_known_answers)
{
    uint32_t r[4];
    nn__philox(0, 0, 0, 0, r);
    CHECK(r[0] == 0x6627e8d5 && r[1] == 0xe169c58d && r[2] == 0xbc57ac4c && r[3] == 0x9b00dbd8);
}

static char logged[4096];
static void log_to(void *user, const char *text) { (void)user; strncat(logged, text, sizeof logged - strlen(logged) - 1); }
TEST(printing)
{
    nn_context *nn = nn_new(&(nn_desc){ .log = log_to });
    logged[0] = 0;
    nn_print(nn_from(nn, NN_SHAPE(2, 2), (float[]){ 1, 2.5f, -3, 1e10f }));
    CHECK_TEXT(logged, "[[1 2.5],\n [-3 1e+10]]  f32 (2, 2)");
    logged[0] = 0;
    nn_print(nn_zeros(nn, NN_SHAPE(1000, 1000)));
    CHECK_TEXT(logged, "...");
    nn_print(nn_zeros(nn, NN_SHAPE(0, 3)));
    nn_print(nn_scalar(nn, 4));
    nn_print(NULL);
    nn_free(nn);
}

static int64_t fake_tasks;
static void reversed(void *user, int64_t n, void (*task)(void *, int64_t), void *arg) { (void)user; fake_tasks += n; while (n--) task(arg, n); }
TEST(a_job_system_of_your_own)
{
    nn_context *a = nn_new(&(nn_desc){ .threads = 4, .parallel_for = reversed }), *b = nn_new(&(nn_desc){ .threads = 1 });
    static float r[2][300 * 300];
    for (int k = 0; k < 2; k++) {
        nn_context *nn = k ? b : a;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(300, 300), 0, 1);
        nn_read(nn_matmul(x, nn_tanh(x)), r[k]);
    }
    CHECK(fake_tasks > 4 && !memcmp(r[0], r[1], sizeof r[0]));
    nn_free(a); nn_free(b);
}
TEST(a_job_system_trains_and_runs_plans)
{
    static float x[64 * 100], y[2][64 * 10];
    for (int i = 0; i < 64 * 100; i++) x[i] = (float)(i * 37 % 61) / 30 - 1;
    for (int k = 0; k < 2; k++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 2, .threads = k ? 3 : 1, .parallel_for = k ? reversed : NULL });
        nn_layer *net = nn_model_new(nn, NULL);
        nn_linear_new(net, NULL, 100, 200, &(nn_linear_desc){ .activation = nn_relu });
        nn_linear_new(net, NULL, 200, 10, NULL);
        nn_optimizer *opt = nn_sgd_new(net, NULL);
        for (int i = 0; i < 2; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_backward_with(nn_mean(nn_square(nn_forward(net, nn_from(nn, NN_SHAPE(64, 100), x))), NN_ALL, NULL), &(nn_backward_desc){ .step = opt });
        }
        nn_plan *plan = nn_plan_new(net, NN_SHAPE(64, 100), &(nn_plan_desc){ .parallel = 1 });
        void *work = malloc(nn_plan_bytes(plan) + 1);
        int64_t before = fake_tasks;
        CHECK(nn_run(plan, work, x, y[k]) && (fake_tasks > before) == k && nn_ok(nn) && !nn->pool);
        free(work);
        nn_plan_free(plan);
        nn_free(nn);
    }
    CHECK(!memcmp(y[0], y[1], sizeof y[0]));
}
TEST(threads_start_when_they_are_needed)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 5 });
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_ones(nn, NN_SHAPE(8, 8)), *y = nn_matmul(nn_add(x, x), x);
    CHECK(nn_item(nn_sum(y, NN_ALL, NULL)) == 1024 && nn->pool && nn->pool->started == 0);
    x = nn_randn(nn, NN_SHAPE(300, 300), 0, 1);
    nn_matmul(x, x);
    CHECK(nn->pool->started > 0 && nn->pool->started <= 4 && nn_ok(nn));
    nn_free(nn);
}

/* every task runs once, with scratch of its own, whether workers spin, sleep or come late; small calls stay on the caller's thread */
enum { POOL_TASKS = 37 };
typedef struct pool_params { int *seen; nn__atomic *wrong; int tasks; int64_t cost; } pool_params;
static void pool_plan(nn_call *c)
{
    const pool_params *p = c->params;
    c->phases = 2;
    c->tasks[0] = c->tasks[1] = p->tasks;
    c->task_bytes = 64;
    c->cost = p->cost;
}
static void pool_task(const nn_call *c, const nn_task *t)
{
    const pool_params *p = c->params;
    volatile int *mine = t->scratch;
    *mine = (int)t->index;
    for (int i = 0; i < 50; i++) if (*mine != (int)t->index) nn__atomic_add(p->wrong, 1);
    if (p->seen[t->index] != 2 * (int)t->index + t->phase) nn__atomic_add(p->wrong, 1);    // phase 1 sees all of phase 0
    p->seen[t->index]++;
}
TEST(the_pool_runs_every_task_once)
{
    static const nn_op op = { .name = "pool", .inputs = 1, .plan = pool_plan, .forward = pool_task, .params_bytes = sizeof(pool_params), .flags = NN_OP_NO_GRAD };
    int seen[POOL_TASKS], threads[4] = { 1, 2, 3, 8 };
    nn__atomic wrong = 0;
    pool_params p = { seen, &wrong, 0, 0 };
    for (int k = 0; k < 4; k++) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = threads[k] });
        for (int i = 0; i < 600; i++) {
            p.tasks = 1 + i % POOL_TASKS;
            p.cost = i % 3 ? 1 << 20 : 0;
            for (int j = 0; j < p.tasks; j++) seen[j] = 2 * j;
            nn_begin(nn, NN_EVAL);
            nn_tensor *x = nn_zeros(nn, NN_SHAPE(1));
            nn_apply(&op, &x, &p);
            for (int j = 0; j < p.tasks; j++) CHECK(seen[j] == 2 * j + 2);
            if (i % 200 == 199) { double t = nn__seconds(); while (nn__seconds() - t < 5e-4) { } }      // the workers fall asleep
        }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
    CHECK(nn__atomic_load(&wrong) == 0);
}

TEST(floating_point_environment_is_kept)
{
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);     /* an audio host: flush to zero, denormals are zero */
    if ((_mm_getcsr() & 0x8040) != 0x8040) SKIP("no flush-to-zero here (valgrind has none)");
    nn_context *nn = nn_new(NULL);
    float v[1] = { 1e-39f }, r[1];
    nn_read(nn_mul_scalar(nn_from(nn, NN_SHAPE(1), v), 0.5f), r);
    CHECK((_mm_getcsr() & 0x8040) == 0x8040);
    _mm_setcsr(before);
    CHECK(r[0] > 0);
    nn_free(nn);
#else
    SKIP("x86-64 only");
#endif
}

TEST(unknown_isa_is_an_error)
{
    nn_context *nn = nn_new(&(nn_desc){ .isa = "z80", .on_error = test_quiet });
    CHECK(!nn_ok(nn));
    CHECK_TEXT(nn_error(nn), "z80");
    nn_free(nn);
}

TEST(small_functions)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 3, .on_error = test_quiet });
    nn_tensor *x = nn_zeros(nn, NN_SHAPE(2, 3));
    CHECK(!strcmp(nn_version(), NN_VERSION) && nn_threads(nn) == 3 && nn_threads(NULL) == 0);
    CHECK(nn_data(x) == x->data && nn_dim(x, -1) == 3);
    CHECK(!nn_copy(x, nn_zeros(nn, NN_SHAPE(3, 2))));
    CHECK_TEXT(nn_error(nn), "(2, 3) and (3, 2)");
    nn_clear(nn);
    CHECK(isnan(nn_item(x)));
    CHECK_TEXT(nn_error(nn), "6 elements");
    nn_clear(nn);
    nn_permute(x, NN_DIMS(0, 0));
    CHECK_TEXT(nn_error(nn), "not an order");
    nn_free(nn);
}
