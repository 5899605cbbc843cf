/* autoencoder.c - Demonstrates learning without labels: a net squeezes a digit into 8 numbers and draws it again from them.

   A data set without targets is its own target: nn_fit compares the output with the input.
   Build:    cc -O2 examples/autoencoder.c -o autoencoder -lm -lpthread
   Run:      ./autoencoder              from the folder that contains examples/data
   Expect:   a line per epoch, an error far below that of the mean picture, then "wrote autoencoder.png":
             digits that the net has never seen above, what it made of them below
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { PIXELS = 64, CODE = 8, TEST = 297, SHOWN = 20 };

/* All pictures as one array of numbers 0..1; the pixels in the file are 0..16, and nn.h divides by 255. */
static float *read_pictures(nn_dataset *data, int64_t count)
{
    float *x = malloc((size_t)(count * PIXELS) * sizeof *x);
    if (!x) return NULL;
    for (int64_t i = 0; i < count; i++)
        if (!nn_dataset_get(data, i, x + i * PIXELS, NULL, NULL)) { free(x); return NULL; }
    for (int64_t i = 0; i < count * PIXELS; i++) x[i] *= 255.0f / 16.0f;
    return x;
}

/* The error of the best constant answer: of the mean picture. */
static double error_of_mean(const float *x, int64_t count)
{
    double error = 0;
    for (int p = 0; p < PIXELS; p++) {
        double mean = 0;
        for (int64_t i = 0; i < count; i++) mean += x[i * PIXELS + p] / (double)count;
        for (int64_t i = 0; i < count; i++) error += (x[i * PIXELS + p] - mean) * (x[i * PIXELS + p] - mean);
    }
    return error / (double)(count * PIXELS);
}

int main(void)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *digits = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte");
    int64_t count = nn_dataset_count(digits) - TEST;
    float *x = nn_ok(nn) ? read_pictures(digits, count + TEST) : NULL, *unseen = x + count * PIXELS;
    if (!x) return 1;                                     /* the reason has been printed */

    nn_dataset *train = nn_dataset_new(nn, &(nn_dataset_desc){ .count = count, .x_shape = NN_SHAPE(PIXELS), .x = x });
    nn_dataset *test  = nn_dataset_new(nn, &(nn_dataset_desc){ .count = TEST,  .x_shape = NN_SHAPE(PIXELS), .x = unseen });

    nn_layer *net = nn_model_new(nn, NULL), *encoder = nn_group_new(net, "encoder"), *decoder = nn_group_new(net, "decoder");
    nn_linear_new(encoder, "fc1", PIXELS, 48, &(nn_linear_desc){ .activation = nn_relu });
    nn_linear_new(encoder, "fc2", 48, CODE, NULL);        /* the bottleneck */
    nn_linear_new(decoder, "fc1", CODE, 48, &(nn_linear_desc){ .activation = nn_relu });
    nn_linear_new(decoder, "fc2", 48, PIXELS, &(nn_linear_desc){ .activation = nn_sigmoid });

    nn_loader *check = nn_loader_new(test, &(nn_loader_desc){ .batch = 99 });
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1 }), .validation = check,
        .loss = nn_mse, .optimizer = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.003f }), .epochs = 40 });

    nn_report report;
    if (!nn_evaluate(net, check, nn_mse, NULL, &report)) return 1;
    double mean = error_of_mean(unseen, TEST);
    printf("squared error per pixel: %.4f with %d numbers, %.4f with the mean picture\n", report.mse, CODE, mean);

    nn_begin(nn, NN_EVAL);                                /* rows of ten: originals, then what was made of them */
    nn_tensor *rows[4];
    for (int i = 0; i < 2; i++) {
        rows[2 * i] = nn_from(nn, NN_SHAPE(SHOWN / 2, PIXELS), unseen + i * SHOWN / 2 * PIXELS);
        rows[2 * i + 1] = nn_forward(net, rows[2 * i]);
    }
    nn_tensor *sheet = nn_reshape(nn_concat(rows, 4, 0), NN_SHAPE(-1, 1, 8, 8));
    int ok = nn_png_sheet(sheet, SHOWN / 2, "autoencoder.png") && report.mse < 0.35 * mean;
    nn_free(nn);
    free(x);
    if (ok) puts("wrote autoencoder.png");
    return !ok;
}
