/* test_layers.c - constructors: names, shapes, order, default initialisation, bad arguments; initialisers; freezing; nn_summary */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"

static nn_context *quiet(nn_desc d) { d.on_error = test_quiet; return nn_new(&d); }
static void fails(nn_context *nn, const char *part)
{
    CHECK(!nn_ok(nn));
    CHECK_TEXT(nn_error(nn), part);
    nn_clear(nn);
}

/* All parameters and buffers below a layer, as "name(shape) name(shape) ". */
static int describe_one(nn_tensor *t, void *arg)
{
    char *to = arg;
    nn_name(t, NULL, to + strlen(to), 64);
    strcat(to, nn__dims_text(t->ndim, t->shape).s);
    if (t->dtype != NN_F32) strcat(to, nn_dtype_name((nn_dtype)t->dtype));
    strcat(to, " ");
    return 1;
}
static const char *describe(nn_layer *l)
{
    static char text[4096];
    text[0] = 0;
    nn__walk(l, NN__T_PARAM | NN__T_BUFFER, describe_one, text);
    return text;
}
static void params_are(nn_layer *l, const char *expected)
{
    CHECK(nn_context_of(l) && nn_ok(l->nn));
    CHECK(!strcmp(describe(l), expected));
    if (strcmp(describe(l), expected)) printf("  \"%s\", not \"%s\"\n", describe(l), expected);
}

static double moments(nn_tensor *w, double *std, double *low, double *high)
{
    static float v[1 << 19];
    double mean = 0, var = 0;
    int64_t n = nn_count(w);
    CHECK(n <= 1 << 19 && nn_read(w, v));
    *low = *high = (double)v[0];
    for (int64_t i = 0; i < n; i++) { mean += (double)v[i] / (double)n; *low = fmin(*low, (double)v[i]); *high = fmax(*high, (double)v[i]); }
    for (int64_t i = 0; i < n; i++) var += ((double)v[i] - mean) * ((double)v[i] - mean) / (double)n;
    *std = sqrt(var);
    return mean;
}
static void is_uniform(nn_tensor *w, double bound)      /* in +- bound, up to it, with the right spread */
{
    double std, low, high, mean, n = (double)nn_count(w);
    mean = moments(w, &std, &low, &high);
    CHECK(low >= -bound * (1 + 1e-6) && high <= bound * (1 + 1e-6));
    CHECK_NEAR(mean, 0, 5 * bound / sqrt(3 * n));
    CHECK_NEAR(std, bound / sqrt(3.0), 3 * bound / sqrt(n));
    if (n > 300) CHECK(low < -0.95 * bound && high > 0.95 * bound);
}
static void is_normal(nn_tensor *w, double expected, double std)
{
    double s, low, high, mean, n = (double)nn_count(w);
    mean = moments(w, &s, &low, &high);
    CHECK_NEAR(mean, expected, 5 * std / sqrt(n));
    CHECK_NEAR(s, std, 5 * std / sqrt(2 * n));
    CHECK(low > expected - 6 * std && high < expected + 6 * std && low < expected - 2 * std && high > expected + 2 * std);
}
static void is_constant(nn_tensor *w, double c)
{
    double std, low, high;
    moments(w, &std, &low, &high);
    CHECK(low == c && high == c);
}

/* ---- constructors ---- */
TEST(linear)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL), *l = nn_linear_new(m, "fc", 100, 30, NULL);
    params_are(l, "fc.weight(30, 100) fc.bias(30) ");
    is_uniform(nn_param(m, "fc.weight"), 0.1);
    is_uniform(nn_param(m, "fc.bias"), 0.1);
    params_are(nn_linear_new(m, "head", 4, 3, &(nn_linear_desc){ .no_bias = 1 }), "head.weight(3, 4) ");
    params_are(nn_linear_new(m, NULL, 4, 3, NULL), "2.weight(3, 4) 2.bias(3) ");
    CHECK(nn_param_count(m) == 3030 + 12 + 15);
    nn_begin(nn, NN_EVAL);
    CHECK(nn_dim(nn_forward(nn_child(m, "head"), nn_zeros(nn, NN_SHAPE(5, 4))), 1) == 3);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(convolutions)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL);
    params_are(nn_conv1d_new(m, "a", 6, 8, 5, NULL), "a.weight(8, 6, 5) a.bias(8) ");
    params_are(nn_conv2d_new(m, "b", 6, 9, 3, &(nn_conv2d_desc){ .kernel_w = 7, .groups = 3 }), "b.weight(9, 2, 3, 7) b.bias(9) ");
    params_are(nn_conv2d_new(m, "c", 4, 4, 1, &(nn_conv2d_desc){ .groups = 4, .no_bias = 1 }), "c.weight(4, 1, 1, 1) ");
    params_are(nn_conv_transpose1d_new(m, "d", 6, 8, 5, &(nn_conv_transpose1d_desc){ .groups = 2 }), "d.weight(6, 4, 5) d.bias(8) ");
    params_are(nn_conv_transpose2d_new(m, "e", 6, 8, 5, NULL), "e.weight(6, 8, 5, 5) e.bias(8) ");
    is_uniform(nn_param(nn_conv2d_new(m, "f", 16, 32, 3, &(nn_conv2d_desc){ .groups = 4 }), "weight"), 1 / sqrt(4 * 9.0));
    is_uniform(nn_param(nn_conv1d_new(m, "g", 16, 512, 3, &(nn_conv1d_desc){ .kernel_w = 50 }), "bias"), 1 / sqrt(16 * 3.0));
    is_uniform(nn_param(nn_conv_transpose2d_new(m, "h", 16, 600, 3, &(nn_conv_transpose2d_desc){ .groups = 2 }), "bias"), 1 / sqrt(300 * 9.0));
    is_uniform(nn_param(m, "h.weight"), 1 / sqrt(300 * 9.0));
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(convolutions_run)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL);
    nn_conv2d_new(m, "conv", 3, 8, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_relu });
    nn_batchnorm_new(m, "bn", 8, NULL);
    nn_maxpool2d_new(m, 2, NULL);
    nn_conv2d_new(m, "down", 8, 4, 3, &(nn_conv2d_desc){ .kernel_w = 1, .stride = 2 });
    nn_upsample_new(m, 3, NULL);
    nn_conv_transpose2d_new(m, "up", 4, 2, 2, &(nn_conv_transpose2d_desc){ .stride = 2 });
    nn_avgpool2d_new(m, 3, &(nn_avgpool2d_desc){ .stride = 1 });
    nn_adaptive_avgpool2d_new(m, 2, 3);
    nn_flatten_new(m);
    nn_softmax_new(m, -1);
    nn_begin(nn, NN_TRAIN);
    nn_tensor *y = nn_forward(m, nn_rand(nn, NN_SHAPE(2, 3, 12, 12), 0, 1));
    CHECK(y->ndim == 2 && y->shape[0] == 2 && y->shape[1] == 12);
    nn_backward(nn_sum(nn_mul(y, y), NN_ALL, NULL));
    CHECK(nn_ok(nn));
    CHECK(nn_grad(nn_param(m, "conv.weight")) && nn_grad(nn_param(m, "up.bias")));
    nn_layer *s = nn_model_new(nn, NULL);
    nn_conv1d_new(s, "conv", 3, 8, 3, NULL);
    nn_maxpool1d_new(s, 2, NULL);
    nn_avgpool1d_new(s, 2, NULL);
    nn_conv_transpose1d_new(s, "up", 8, 2, 4, NULL);
    nn_upsample_new(s, 2, NULL);
    nn_begin(nn, NN_EVAL);
    y = nn_forward(s, nn_zeros(nn, NN_SHAPE(2, 3, 18)));
    CHECK(y->ndim == 3 && y->shape[1] == 2 && y->shape[2] == 14);
    CHECK(nn_ok(nn));
    nn_layer *e = nn_model_new(nn, NULL);
    nn_embedding_new(e, "wte", 11, 5);
    y = nn_forward(e, nn_from_as(nn, NN_I64, NN_SHAPE(2, 3), (int64_t[]){ 0, 1, 2, 10, 9, 8 }));
    CHECK(y->ndim == 3 && y->shape[2] == 5);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(norms)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL), *l;
    nn_tensor *list[16];
    int64_t tracked;
    params_are(nn_batchnorm_new(m, "bn", 5, NULL), "bn.weight(5) bn.bias(5) bn.running_mean(5) bn.running_var(5) bn.num_batches_tracked()i64 ");
    is_constant(nn_param(m, "bn.weight"), 1);
    is_constant(nn_param(m, "bn.bias"), 0);
    is_constant(nn_param(m, "bn.running_mean"), 0);
    is_constant(nn_param(m, "bn.running_var"), 1);
    CHECK(nn_params(m, list, 16) == 2 && list[0] == nn_param(m, "bn.weight") && list[1] == nn_param(m, "bn.bias"));
    CHECK(nn_buffers(m, list, 16) == 3 && list[2] == nn_param(m, "bn.num_batches_tracked"));
    CHECK(nn_param_count(m) == 10);
    params_are(nn_batchnorm_new(m, "a", 5, &(nn_batchnorm_desc){ .no_affine = 1 }), "a.running_mean(5) a.running_var(5) a.num_batches_tracked()i64 ");
    params_are(nn_batchnorm_new(m, "b", 5, &(nn_batchnorm_desc){ .no_stats = 1 }), "b.weight(5) b.bias(5) ");
    params_are(nn_layernorm_new(m, "c", NN_SHAPE(3, 4), NULL), "c.weight(3, 4) c.bias(3, 4) ");
    params_are(nn_layernorm_new(m, "d", NN_SHAPE(4), &(nn_layernorm_desc){ .no_bias = 1 }), "d.weight(4) ");
    params_are(nn_layernorm_new(m, "e", NN_SHAPE(4), &(nn_layernorm_desc){ .no_affine = 1 }), "");
    params_are(nn_groupnorm_new(m, "f", 2, 6, NULL), "f.weight(6) f.bias(6) ");
    params_are(nn_instancenorm_new(m, "g", 6, NULL), "");
    params_are(nn_instancenorm_new(m, "h", 6, &(nn_instancenorm_desc){ .affine = 1 }), "h.weight(6) h.bias(6) ");
    params_are(nn_rmsnorm_new(m, "i", 6, NULL), "i.weight(6) ");
    is_constant(nn_param(m, "i.weight"), 1);

    l = nn_child(m, "bn");
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_rand(nn, NN_SHAPE(4, 5, 3, 2), 1, 3);
    for (int i = 0; i < 7; i++) nn_forward(l, x);
    CHECK(nn_read_as(nn_param(l, "num_batches_tracked"), NN_I64, &tracked) && tracked == 7);
    nn_freeze(l, 1);
    nn_forward(l, x);
    nn_freeze(l, 0);
    nn_push(nn, NN_EVAL);
    nn_forward(l, x);
    nn_pop(nn);
    CHECK(nn_read_as(nn_param(l, "num_batches_tracked"), NN_I64, &tracked) && tracked == 7);
    CHECK(nn_ok(nn));
    nn_forward(nn_child(m, "b"), x);
    nn_forward(nn_child(m, "c"), nn_zeros(nn, NN_SHAPE(2, 3, 4)));
    nn_forward(nn_child(m, "d"), nn_zeros(nn, NN_SHAPE(2, 3, 4)));
    nn_forward(nn_child(m, "e"), nn_zeros(nn, NN_SHAPE(2, 3, 4)));
    nn_forward(nn_child(m, "f"), nn_zeros(nn, NN_SHAPE(2, 6)));
    nn_forward(nn_child(m, "g"), nn_zeros(nn, NN_SHAPE(2, 6, 4)));
    nn_forward(nn_child(m, "h"), nn_zeros(nn, NN_SHAPE(2, 6, 4)));
    nn_forward(nn_child(m, "i"), nn_zeros(nn, NN_SHAPE(2, 6)));
    CHECK(nn_ok(nn));
    nn_forward(nn_child(m, "a"), nn_zeros(nn, NN_SHAPE(4, 3)));                fails(nn, "a: BatchNorm: x must be (B, 5, ...)");
    nn_forward(nn_child(m, "e"), nn_zeros(nn, NN_SHAPE(2, 3)));                fails(nn, "does not end in (4)");
    nn_forward(nn_child(m, "g"), nn_zeros(nn, NN_SHAPE(2, 3, 4)));             fails(nn, "(B, 6, ...)");
    nn_free(nn);
}

TEST(plain_layers)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL), *r;
    nn_flatten_new(m);
    nn_leaky_relu_new(m, 0.25f);
    nn_dropout_new(m, 0.5f);
    nn_fn_new(m, nn_neg);
    r = nn_residual_new(m, "res");
    nn_fn_new(r, nn_square);
    nn_begin(nn, NN_EVAL);
    float v[6], x[6] = { -4, 1, 2, 3, 4, 5 };
    nn_tensor *y = nn_forward(m, nn_from(nn, NN_SHAPE(1, 2, 3), x));
    CHECK(y->ndim == 2 && y->shape[1] == 6 && nn_read(y, v));
    CHECK(v[0] == 2 && v[1] == 0 && v[2] == 2 && v[5] == 20);                  /* -x + x^2 */
    nn_begin(nn, NN_TRAIN);
    nn_forward(m, nn_from(nn, NN_SHAPE(1, 2, 3), x));
    nn_dropout2d_new(m, 0.5f);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* Every bad argument is reported in words; the result is inert, and using it changes nothing. */
TEST(bad_arguments)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL), *l;
#define BAD(make, part) do { l = make; CHECK(l && !nn_context_of(l)); fails(nn, part); } while (0)
    BAD(nn_linear_new(m, "fc", 0, 3, NULL), "Linear fc: in must be positive, not 0");
    BAD(nn_linear_new(m, "fc", 3, -1, NULL), "out must be positive, not -1");
    BAD(nn_linear_new(m, "fc", INT64_MAX, INT64_MAX, NULL), "impossible shape");
    BAD(nn_linear_new(m, "a.b", 2, 2, NULL), "contains a dot");
    BAD(nn_linear_new(m, "", 2, 2, NULL), "must not be empty");
    nn_linear_new(m, "same", 2, 2, NULL);
    BAD(nn_linear_new(m, "same", 2, 2, NULL), "used twice");
    BAD(nn_conv2d_new(m, "c", 3, 8, 0, NULL), "Conv2d c: kernel must be positive, not 0");
    BAD(nn_conv2d_new(m, "c", 0, 8, 3, NULL), "in must be positive");
    BAD(nn_conv1d_new(m, "c", 3, 0, 3, NULL), "out must be positive");
    BAD(nn_conv2d_new(m, "c", 4, 8, 3, &(nn_conv2d_desc){ .groups = 3 }), "3 groups do not divide 4 channels");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .groups = 3 }), "3 groups do not divide 8 channels");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .groups = -1 }), "groups must be positive");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .stride = -1 }), "stride must be positive");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .stride_w = NN_ZERO }), "stride_w must be positive");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .padding = -1 }), "padding must be positive");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .dilation = -2 }), "dilation must be positive");
    BAD(nn_conv2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .kernel_w = -2 }), "kernel_w must be positive");
    BAD(nn_conv_transpose2d_new(m, "c", 6, 8, 3, &(nn_conv2d_desc){ .output_padding = -2 }), "output_padding must be positive");
    BAD(nn_conv_transpose1d_new(m, "c", 6, 8, -3, NULL), "kernel must be positive");
    BAD(nn_batchnorm_new(m, "n", 0, NULL), "BatchNorm n: channels must be positive, not 0");
    BAD(nn_layernorm_new(m, "n", NN_SCALAR, NULL), "0 dimensions");
    BAD(nn_layernorm_new(m, "n", NN_SHAPE(3, 0), NULL), "must be positive");
    BAD(nn_groupnorm_new(m, "n", 0, 4, NULL), "groups must be positive");
    BAD(nn_groupnorm_new(m, "n", 3, 4, NULL), "3 groups do not divide 4 channels");
    BAD(nn_groupnorm_new(m, "n", 2, -4, NULL), "channels must be positive");
    BAD(nn_instancenorm_new(m, "n", -1, NULL), "must be positive");
    BAD(nn_rmsnorm_new(m, "n", 0, NULL), "must be positive");
    BAD(nn_embedding_new(m, "n", 0, 4), "count must be positive");
    BAD(nn_embedding_new(m, "n", 4, 0), "channels must be positive");
    BAD(nn_maxpool2d_new(m, 0, NULL), "MaxPool2d: kernel must be positive");
    BAD(nn_maxpool1d_new(m, -1, NULL), "kernel must be positive");
    BAD(nn_avgpool2d_new(m, 2, &(nn_avgpool2d_desc){ .stride = -1 }), "stride must be positive");
    BAD(nn_avgpool1d_new(m, 2, &(nn_avgpool1d_desc){ .padding = -1 }), "padding must be positive");
    BAD(nn_adaptive_avgpool2d_new(m, 0, 1), "height must be positive");
    BAD(nn_upsample_new(m, 0, NULL), "scale must be positive");
    BAD(nn_dropout_new(m, 1.5f), "not in 0..1");
    BAD(nn_dropout2d_new(m, -0.5f), "not in 0..1");
    BAD(nn_fn_new(m, NULL), "NULL");
    nn_param_new(m, "w", NN_SHAPE(-1));          fails(nn, "impossible shape");
    nn_param_new(m, "", NN_SHAPE(1));            fails(nn, "needs a name");
    nn_param_new(m, NULL, NN_SHAPE(1));          fails(nn, "needs a name");
    CHECK(m->children == 1);                     /* nothing half made is left in the tree ... */
    CHECK(nn_params(m, NULL, 0) == 2);
    l = nn_linear_new(m, "fc", 0, 3, NULL);      /* ... and an inert layer can be used */
    nn_linear_new(l, "below", 2, 2, NULL);
    nn_freeze(l, 1);
    nn_summary(l, NN_SHAPE(1));
    CHECK(!nn_param(l, "weight") && !nn_child(l, "x") && nn_param_count(l) == 0);
    nn_clear(nn);
    nn_begin(nn, NN_EVAL);
    CHECK(nn__dead(nn_forward(l, nn_zeros(nn, NN_SHAPE(1, 1)))));
    nn_clear(nn);
    CHECK(!nn_context_of(nn_linear_new(NULL, "fc", 2, 3, NULL)) && !nn_context_of(nn_dropout_new(NULL, 0.5f)) && !nn_context_of(nn_batchnorm_new(NULL, "b", 3, NULL)));
    CHECK(!nn_param(m, NULL) && !nn_child(m, NULL));
    nn_free(nn);
}

/* ---- initialisers ---- */
TEST(initialisers)
{
    nn_context *nn = quiet((nn_desc){ .seed = 3 });
    nn_tensor *w = nn_tensor_new(nn, NN_SHAPE(300, 400), NULL), *k = nn_tensor_new(nn, NN_SHAPE(64, 32, 3, 5), NULL);
    double std, low, high, mean;
    nn_init_constant(w, 0.75f);           is_constant(w, 0.75);
    nn_init_uniform(w, -0.3f, 0.3f);      is_uniform(w, 0.3);
    nn_init_normal(w, 2, 0.5f);           is_normal(w, 2, 0.5);
    nn_init_xavier_uniform(w, 1);         is_uniform(w, sqrt(6.0 / 700));
    nn_init_xavier_normal(w, 2);          is_normal(w, 0, 2 * sqrt(2.0 / 700));
    nn_init_kaiming_uniform(w, 0);        is_uniform(w, sqrt(6.0 / 400));
    nn_init_kaiming_normal(w, 0);         is_normal(w, 0, sqrt(2.0 / 400));
    nn_init_kaiming_uniform(k, (float)sqrt(5.0)); is_uniform(k, 1 / sqrt(32 * 15.0));
    nn_init_kaiming_normal(k, 0.1f);      is_normal(k, 0, sqrt(2.0 / 1.01 / (32 * 15)));
    nn_init_xavier_normal(k, 1);          is_normal(k, 0, sqrt(2.0 / (96 * 15)));
    nn_init_trunc_normal(w, 0.5f, 1, -0.5f, 1.5f);
    mean = moments(w, &std, &low, &high);
    CHECK(low >= -0.5 && high <= 1.5 && low < -0.45 && high > 1.45);
    CHECK_NEAR(mean, 0.5, 0.01);
    CHECK_NEAR(std, 0.5396, 0.01);                       /* normal cut at +- 1 sigma */
    nn_init_trunc_normal(w, 0, 0.02f, -2, 2);
    is_normal(w, 0, 0.02);
    nn_init_trunc_normal(k, 0, 1, 9, 10);                /* almost impossible: but in bounds */
    moments(k, &std, &low, &high);
    CHECK(low >= 9 && high <= 10);
    CHECK(nn_ok(nn));
    nn_init_uniform(w, 1, 0);                            fails(nn, "not a range");
    nn_init_normal(w, 0, -1);                            fails(nn, "standard deviation");
    nn_init_trunc_normal(w, 0, 1, 2, 1);                 fails(nn, "not a range");
    nn_init_xavier_uniform(nn_tensor_new(nn, NN_SHAPE(3), NULL), 1); fails(nn, "two dimensions");
    nn_init_orthogonal(nn_tensor_new(nn, NN_SHAPE(3), NULL), 1);     fails(nn, "two dimensions");
    nn_init_kaiming_normal(nn_tensor_new(nn, NN_SHAPE(0, 3), NULL), 1);
    nn_init_orthogonal(nn_tensor_new(nn, NN_SHAPE(3, 0), NULL), 1);
    nn_init_constant(NULL, 1);
    nn_init_orthogonal(NULL, 1);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

static void is_orthogonal(nn_tensor *w, double gain)     /* W W^T = gain^2 I, or W^T W if there are more rows */
{
    static float v[1 << 16];
    int64_t rows = w->shape[0], columns = nn_count(w) / rows, n = rows < columns ? rows : columns;
    double worst = 0;
    CHECK(nn_read(w, v));
    for (int64_t i = 0; i < n; i++) for (int64_t j = 0; j <= i; j++) {
        double dot = 0;
        if (rows <= columns) for (int64_t k = 0; k < columns; k++) dot += (double)v[i * columns + k] * (double)v[j * columns + k];
        else for (int64_t k = 0; k < rows; k++) dot += (double)v[k * columns + i] * (double)v[k * columns + j];
        worst = fmax(worst, fabs(dot - (i == j ? gain * gain : 0)));
    }
    CHECK_NEAR(worst, 0, 1e-6 * gain * gain);
}
TEST(orthogonal)
{
    nn_context *nn = quiet((nn_desc){ .seed = 8 });
    nn_layer *m = nn_model_new(nn, NULL);
    static const int64_t shapes[][2] = { { 40, 40 }, { 17, 130 }, { 130, 17 }, { 1, 9 }, { 9, 1 }, { 1, 1 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        nn_tensor *w = nn_tensor_new(nn, NN_SHAPE(shapes[i][0], shapes[i][1]), NULL);
        nn_init_orthogonal(w, 1);
        is_orthogonal(w, 1);
        nn_init_orthogonal(w, 1.5f);
        is_orthogonal(w, 1.5);
    }
    nn_tensor *k = nn_tensor_new(nn, NN_SHAPE(8, 3, 3, 3), NULL), *w;
    nn_init_orthogonal(k, 1);
    is_orthogonal(k, 1);
    nn_linear_new(m, "fc", 30, 20, NULL);                /* stored input-major: the initialiser sees (out, in) */
    w = nn_param(m, "fc.weight");
    nn_init_orthogonal(w, 1);
    is_orthogonal(w, 1);
    CHECK(nn_ok(nn));
    nn_free(nn);
    nn = quiet((nn_desc){ .seed = 8, .dtype = NN_F64 });
    w = nn_tensor_new(nn, NN_SHAPE(20, 30), NULL);
    nn_init_orthogonal(w, 1);
    is_orthogonal(w, 1);
    nn_free(nn);
    nn = quiet((nn_desc){ .measure = 1 });
    nn_init_orthogonal(nn_tensor_new(nn, NN_SHAPE(20, 30), NULL), 1);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(the_same_seed_gives_the_same_net)
{
    float a[60], b[60], c[60];
    for (int i = 0; i < 3; i++) {
        nn_context *nn = quiet((nn_desc){ .seed = i == 2 ? 2 : 1, .threads = 1 + i });
        nn_layer *m = nn_model_new(nn, NULL);
        nn_linear_new(m, "x", 7, 7, NULL);
        nn_linear_new(m, "y", 10, 6, NULL);
        CHECK(nn_read(nn_param(m, "y.weight"), i == 0 ? a : i == 1 ? b : c));
        nn_free(nn);
    }
    CHECK(!memcmp(a, b, sizeof a) && memcmp(a, c, sizeof a));
}

/* ---- the tree ---- */
TEST(names_order_and_freezing)
{
    nn_context *nn = quiet((nn_desc){ 0 });
    nn_layer *m = nn_model_new(nn, NULL), *h = nn_group_new(m, "h"), *block = nn_group_new(h, NULL);
    nn_layernorm_new(block, "ln", NN_SHAPE(4), NULL);
    nn_linear_new(block, "fc", 4, 4, NULL);
    nn_linear_new(m, "head", 4, 2, NULL);
    nn_param_new(m, "scale", NN_SHAPE(1));
    params_are(m, "scale(1) h.0.ln.weight(4) h.0.ln.bias(4) h.0.fc.weight(4, 4) h.0.fc.bias(4) head.weight(2, 4) head.bias(2) ");
    CHECK(nn_child(m, "h.0.fc") && nn_child(m, "h.0.fc") == nn_child(block, "fc"));
    CHECK(nn_param(h, "0.fc.bias") == nn_param(m, "h.0.fc.bias") && !nn_param(m, "h.0.fc.none"));
    nn_freeze(h, 1);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_forward(m, nn_ones(nn, NN_SHAPE(3, 4))), NN_ALL, NULL));
    CHECK(!nn_grad(nn_param(m, "h.0.fc.weight")) && nn_grad(nn_param(m, "head.weight")));
    nn_freeze(h, 0);
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_forward(m, nn_ones(nn, NN_SHAPE(3, 4))), NN_ALL, NULL));
    CHECK(nn_grad(nn_param(m, "h.0.fc.weight")) && nn_grad(nn_param(m, "h.0.ln.bias")));
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* ---- nn_summary ---- */
static char summary[8192];
static void collect(void *user, const char *text) { (void)user; strncat(summary, text, sizeof summary - strlen(summary) - 1); }
TEST(summary)
{
    nn_context *nn = quiet((nn_desc){ .log = collect, .seed = 4 });
    nn_layer *m = nn_model_new(nn, NULL), *g;
    float before[8], after[8];
    int64_t tracked;
    nn_flatten_new(m);
    nn_linear_new(m, "fc1", 12, 2000, NULL);
    nn_batchnorm_new(m, "bn", 2000, NULL);
    nn_dropout_new(m, 0.5f);
    g = nn_group_new(m, "tail");
    nn_linear_new(g, "fc2", 2000, 8, NULL);
    nn_begin(nn, NN_TRAIN);
    CHECK(nn_read(nn_rand(nn, NN_SHAPE(8), 0, 1), before));
    nn_seed(nn, 4);
    nn_begin(nn, NN_TRAIN);
    summary[0] = 0;
    nn_summary(m, NN_SHAPE(64, 3, 4));
    CHECK_TEXT(summary, "  fc1                        Linear             (64, 2000)                     26,000");
    CHECK_TEXT(summary, "    fc2                      Linear             (64, 8)                        16,008");
    CHECK_TEXT(summary, "46,008 parameters (179.7 KB), 0 frozen; 4,001 numbers in buffers (15.6 KB)");
    CHECK(nn_get_mode(nn) == NN_TRAIN);
    CHECK(nn_read(nn_rand(nn, NN_SHAPE(8), 0, 1), after));            /* the random state has not moved, nor have the statistics */
    CHECK(!memcmp(before, after, sizeof before));
    CHECK(nn_read_as(nn_param(m, "bn.num_batches_tracked"), NN_I64, &tracked) && tracked == 0);
    is_constant(nn_param(m, "bn.running_mean"), 0);
    CHECK(nn_ok(nn));
    nn_summary(m, NN_SHAPE(64, 3, 5));                                /* what does not fit is an error like any other */
    fails(nn, "fc1: linear: x (64, 15)");
    nn_begin(nn, NN_TRAIN);
    nn_backward(nn_sum(nn_forward(m, nn_ones(nn, NN_SHAPE(4, 3, 4))), NN_ALL, NULL));
    nn_summary(nn_child(m, "fc1"), NN_SHAPE(12));                     /* in the middle of a step, of a part */
    CHECK(nn_ok(nn) && nn_grad(nn_param(m, "fc1.bias")));
    nn_summary(NULL, NN_SHAPE(1));
    nn_free(nn);
}
TEST(summary_of_an_embedding_takes_indices)
{
    nn_context *nn = quiet((nn_desc){ .log = collect });
    nn_layer *m = nn_model_new(nn, NULL);
    nn_embedding_new(m, "wte", 50, 16);
    nn_linear_new(m, "head", 16, 50, NULL);
    summary[0] = 0;
    nn_summary(m, NN_SHAPE(2, 7));
    CHECK_TEXT(summary, "(2, 7, 16)");
    CHECK_TEXT(summary, "(2, 7, 50)");
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* A layer that runs out of memory while it is made is inert, and nothing breaks. */
TEST(layers_in_a_small_buffer)
{
    static char memory[1 << 16];
    for (size_t bytes = 4096; bytes <= sizeof memory; bytes += 97) {
        nn_context *nn = quiet((nn_desc){ .memory = memory, .bytes = bytes, .threads = 1 });
        if (!nn) continue;
        nn_layer *m = nn_model_new(nn, NULL);
        nn_linear_new(m, "fc", 20, 30, NULL);
        nn_batchnorm_new(m, "bn", 30, NULL);
        nn_layernorm_new(m, "ln", NN_SHAPE(30), NULL);
        nn_init_orthogonal(nn_param(m, "fc.weight"), 1);
        nn_begin(nn, NN_TRAIN);
        nn_forward(m, nn_zeros(nn, NN_SHAPE(4, 20)));
        CHECK(nn_ok(nn) || strstr(nn_error(nn), "out of memory"));
        nn_free(nn);
    }
}
