/* custom_op.c - Demonstrates an op of your own, with its own backward, proved by the gradient checker and used in a net.

   The op is the bent identity  y = (sqrt(x^2 + 1) - 1) / 2 + x,  whose slope is  x / (2 sqrt(x^2 + 1)) + 1.
   Build:    cc -O2 examples/custom_op.c -o custom_op -lm -lpthread
   Expect:   "the gradient is right", a falling loss, "y(0.5) = ..." near sin(0.5) = 0.479
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

/* Inputs arrive contiguous. backward adds to the gradient: nn.h has zeroed it, or another op has already added its share. */
static void bent_forward(const nn_call *c, const nn_task *t)
{
    const float *x = c->in[0].data;
    float *y = c->out[0].data;
    (void)t;
    for (int64_t i = 0; i < nn_view_count(&c->in[0]); i++) y[i] = (sqrtf(x[i] * x[i] + 1) - 1) / 2 + x[i];
}

static void bent_backward(const nn_call *c, const nn_task *t)
{
    const float *x = c->in[0].data, *dy = c->dout[0].data;
    float *dx = c->din[0].data;
    (void)t;
    for (int64_t i = 0; i < nn_view_count(&c->in[0]); i++) dx[i] += dy[i] * (x[i] / (2 * sqrtf(x[i] * x[i] + 1)) + 1);
}

static const nn_op bent = { .name = "bent_identity", .inputs = 1, .forward = bent_forward, .backward = bent_backward };
static nn_tensor *bent_identity(nn_tensor *x) { return nn_apply(&bent, &x, NULL); }

typedef struct problem { nn_layer *net; nn_tensor *x, *y; } problem;
static nn_tensor *loss_of(void *user)
{
    problem *p = user;
    return nn_mse(nn_forward(p->net, p->x), p->y, NULL);
}

int main(void)
{
    nn_context *nn = nn_new(NULL);
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc1", 1, 16, NULL);
    nn_fn_new(net, bent_identity);                        /* used like nn_relu */
    nn_linear_new(net, "fc2", 16, 1, NULL);

    float xs[64], ys[64], at = 0.5f;
    for (int i = 0; i < 64; i++) { xs[i] = (float)i / 16 - 2; ys[i] = sinf(xs[i]); }
    problem p = { net, nn_tensor_new(nn, NN_SHAPE(64, 1), xs), nn_tensor_new(nn, NN_SHAPE(64, 1), ys) };

    nn_tensor *params[8];
    if (!nn_gradcheck(nn, loss_of, &p, params, nn_params(net, params, 8), NULL)) return 1;
    puts("the gradient is right");

    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.02f });
    for (int i = 0; i <= 2000; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *loss = loss_of(&p);
        nn_backward(loss);
        nn_step(opt);
        if (i % 500 == 0) printf("step %4d  loss %.5f\n", i, nn_item(loss));
    }
    nn_begin(nn, NN_EVAL);
    printf("y(0.5) = %.3f\n", nn_item(nn_forward(net, nn_from(nn, NN_SHAPE(1, 1), &at))));
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
