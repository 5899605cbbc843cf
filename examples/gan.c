/* gan.c - Demonstrates two nets with two optimizers in one step: a generator learns to draw digits that a discriminator takes for real
   (Goodfellow et al. 2014).

   Build:    cc -O2 examples/gan.c -o gan -lm -lpthread
   Run:      ./gan [--epochs N]
   Expect:   two losses per 20 epochs that keep each other in check, and gan.png, a sheet of 64 invented digits
   Run in CI: --epochs 40
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { LATENT = 16, PIXELS = 64, BATCH = 64 };

static nn_tensor *leaky(nn_tensor *x) { return nn_leaky_relu(x, 0.2f); }

static nn_layer *make_generator(nn_context *nn)                                  /* (B, 16) -> (B, 64), -1..1 */
{
    nn_layer *g = nn_model_new(nn, NULL);
    nn_linear_new(g, "fc1", LATENT, 128, NULL);
    nn_batchnorm_new(g, "bn1", 128, NULL);
    nn_fn_new(g, nn_relu);
    nn_linear_new(g, "fc2", 128, 128, NULL);
    nn_batchnorm_new(g, "bn2", 128, NULL);
    nn_fn_new(g, nn_relu);
    nn_linear_new(g, "fc3", 128, PIXELS, NULL);
    nn_fn_new(g, nn_tanh);
    return g;
}

static nn_layer *make_discriminator(nn_context *nn)                              /* (B, 64) -> (B, 1), a logit: real? */
{
    nn_layer *d = nn_model_new(nn, NULL);
    nn_linear_new(d, "fc1", PIXELS, 128, NULL);
    nn_fn_new(d, leaky);
    nn_dropout_new(d, 0.3f);
    nn_linear_new(d, "fc2", 128, 64, NULL);
    nn_fn_new(d, leaky);
    nn_dropout_new(d, 0.3f);
    nn_linear_new(d, "fc3", 64, 1, NULL);
    return d;
}

int main(int argc, char **argv)
{
    int epochs = argc > 2 && !strcmp(argv[1], "--epochs") ? atoi(argv[2]) : 300;
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *digits = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte");
    if (!nn_ok(nn)) return 1;
    nn_loader *loader = nn_loader_new(digits, &(nn_loader_desc){ .batch = BATCH, .shuffle = 1, .drop_last = 1 });
    nn_layer *generator = make_generator(nn), *discriminator = make_discriminator(nn);
    nn_optimizer *g_opt = nn_adam_new(generator, &(nn_adam_desc){ .lr = 0.0005f, .beta1 = 0.5f });
    nn_optimizer *d_opt = nn_adam_new(discriminator, &(nn_adam_desc){ .lr = 0.0005f, .beta1 = 0.5f });

    for (int epoch = 1; epoch <= epochs; epoch++) {
        double g_sum = 0, d_sum = 0;
        nn_batch b;
        while (nn_loader_next(loader, &b)) {
            nn_begin(nn, NN_TRAIN);
            /* bytes 0..16 of 255 -> -1..1 */
            nn_tensor *real = nn_add_scalar(nn_mul_scalar(nn_flatten(b.x, 1), 2 * 255.0f / 16), -1);
            nn_tensor *fake = nn_forward(generator, nn_randn(nn, NN_SHAPE(BATCH, LATENT), 0, 1));
            nn_tensor *yes = nn_full(nn, NN_SHAPE(BATCH, 1), 0.9f), *no = nn_zeros(nn, NN_SHAPE(BATCH, 1));

            nn_tensor *d_loss = nn_add(nn_binary_cross_entropy(nn_forward(discriminator, real), yes, NULL),
                                       nn_binary_cross_entropy(nn_forward(discriminator, nn_detach(fake)), no, NULL));
            nn_backward(d_loss);
            nn_step(d_opt);

            nn_tensor *g_loss = nn_binary_cross_entropy(nn_forward(discriminator, fake), yes, NULL);
            nn_backward(g_loss);                          /* through the discriminator, which is not stepped ... */
            nn_step(g_opt);
            nn_zero_grad(discriminator);                  /* ... and forgets these gradients */
            d_sum += nn_item(d_loss);
            g_sum += nn_item(g_loss);
        }
        if (epoch % 20 == 0) printf("epoch %3d  discriminator %.3f  generator %.3f\n", epoch,
                                    d_sum / (double)nn_loader_batches(loader), g_sum / (double)nn_loader_batches(loader));
    }
    nn_begin(nn, NN_EVAL);
    nn_tensor *drawn = nn_forward(generator, nn_randn(nn, NN_SHAPE(64, LATENT), 0, 1));
    drawn = nn_mul_scalar(nn_add_scalar(drawn, 1), 0.5f);
    if (!nn_png_sheet(nn_upsample(nn_reshape(drawn, NN_SHAPE(64, 1, 8, 8)), 32, 32, NULL), 8, "gan.png")) return 1;
    puts("wrote gan.png");
    nn_free(nn);
    return 0;
}
