/* saliency.c - Demonstrates the gradient with respect to the input: which pixels made the net say "three"?

   The gradient of the winning score tells how the score would move with each pixel; times the pixel, it is that pixel's share in the
   decision (Simonyan et al. 2014). Whether that is true can be tried: take the pixels with the largest shares away, and the net
   should err more often than when as many other lit pixels are taken away.
   Build:    cc -O2 examples/saliency.c -o saliency -lm -lpthread
   Run:      ./saliency                 from the folder that contains examples/data
   Expect:   a digit beside its map, three accuracies, then "the map shows what matters"
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE, TEST = 300, ERASED = 6 };

static void draw(const float *picture, const float *map)
{
    const char *shades = " .:-=+*#%@";
    float most = 1e-9f, brightest = 1e-9f;
    for (int i = 0; i < PIXELS; i++) { most = fmaxf(most, map[i]); brightest = fmaxf(brightest, picture[i]); }
    for (int y = 0; y < SIDE; y++) {
        for (int x = 0; x < SIDE; x++) { char c = shades[(int)(9 * picture[y * SIDE + x] / brightest)]; printf("%c%c", c, c); }
        printf("   |   ");
        for (int x = 0; x < SIDE; x++) { char c = shades[(int)(9 * fmaxf(map[y * SIDE + x], 0) / most)]; printf("%c%c", c, c); }
        printf("\n");
    }
}

static double accuracy(nn_context *nn, nn_layer *net, const float *x, const int64_t *label)
{
    nn_begin(nn, NN_EVAL);
    return nn_accuracy(nn_forward(net, nn_from(nn, NN_SHAPE(TEST, 1, SIDE, SIDE), x)), nn_from_as(nn, NN_I64, NN_SHAPE(TEST), label));
}

/* Copies the pictures without the ERASED lit pixels that have the largest score. */
static void erase(const float *x, const float *score, float *to)
{
    memcpy(to, x, TEST * PIXELS * sizeof *to);
    for (int i = 0; i < TEST; i++)
        for (int k = 0; k < ERASED; k++) {
            int best = -1;
            for (int p = i * PIXELS; p < (i + 1) * PIXELS; p++)
                if (to[p] > 0 && (best < 0 || score[p] > score[best])) best = p;
            if (best >= 0) to[best] = 0;
        }
}

int main(void)
{
    static float x[TEST * PIXELS], map[TEST * PIXELS], chance[TEST * PIXELS], erased[TEST * PIXELS];
    static int64_t label[TEST];
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *digits = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte"), *train = NULL, *test = NULL;
    nn_split_data(digits, 0.8, &train, &test);
    if (!nn_ok(nn)) return 1;                             /* the reason has been printed */

    nn_layer *net = nn_model_new(nn, NULL);
    nn_scaler_new(net, train);                            /* pixels to mean 0 and deviation 1, inside the net */
    nn_conv2d_new(net, "conv", 1, 16, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_relu });
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", 16 * PIXELS, 64, &(nn_linear_desc){ .activation = nn_relu });
    nn_linear_new(net, "fc2", 64, 10, NULL);
    nn_fit(net, &(nn_fit_desc){ .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1 }), .loss = nn_cross_entropy,
                                .optimizer = nn_adam_new(net, NULL), .epochs = 10 });
    for (int i = 0; i < TEST; i++) nn_dataset_get(test, i, x + i * PIXELS, NULL, label + i);

    /* The gradient: a step in NN_TRAIN, but what we ask for is dx. Frozen, the parameters need no gradients of their own. */
    nn_freeze(net, 1);
    nn_begin(nn, NN_TRAIN);
    nn_tensor *input = nn_want_grad(nn_from(nn, NN_SHAPE(TEST, 1, SIDE, SIDE), x));
    nn_tensor *winner = nn_max(nn_forward(net, input), NN_DIMS(1), NULL);               /* (TEST): the highest score of each picture */
    nn_backward(nn_sum(winner, NN_ALL, NULL));            /* pictures do not mix, so the sum gives each its own gradient */
    if (!nn_ok(nn) || !nn_read(nn_mul(nn_grad(input), input), map) || !nn_read(nn_rand(nn, nn_shape_of(input), 0, 1), chance)) return 1;

    printf("\nwhat the net sees                what decides: a %d\n", (int)label[0]);
    draw(x, map);
    double whole = accuracy(nn, net, x, label);
    erase(x, chance, erased);
    double random = accuracy(nn, net, erased, label);
    erase(x, map, erased);
    double salient = accuracy(nn, net, erased, label);
    int ok = nn_ok(nn) && whole > 0.9 && salient < random - 0.1;
    printf("accuracy %.1f%%; without %d lit pixels at random %.1f%%; without the %d of the map %.1f%%\n", 100 * whole, ERASED, 100 * random, ERASED, 100 * salient);
    nn_free(nn);
    puts(ok ? "the map shows what matters" : "the map shows nothing");
    return !ok;
}
