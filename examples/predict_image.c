/* predict_image.c - Demonstrates inference on a picture of your own: stb_image decodes it, a saved net says which digit it is.

   Draw a digit, white on black or black on white, save it as PNG or JPEG. The net is what examples/digits.c has saved.
   Build:    cc -O2 -I/usr/include/stb examples/predict_image.c -o predict_image -lm -lpthread      (Debian: libstb-dev)
   Run:      ./digits && ./predict_image [picture.png] [digits.safetensors]
   Expect:   the most likely digits with their probabilities. Without a picture it writes one from the data set, digit.png, and reads that.
   Run in CI: digit.png
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"
#define STB_IMAGE_IMPLEMENTATION
#define STBI_NO_HDR
#if defined(__GNUC__)
#  pragma GCC diagnostic ignored "-Wunused-parameter"
#  pragma GCC diagnostic ignored "-Wsign-compare"
#endif
#include "stb_image.h"

/* A digit of the data set as a picture, so that there is something to read. */
static int write_sample(nn_context *nn, const char *path)
{
    float pixels[64];
    nn_dataset *digits = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte");
    if (!nn_dataset_get(digits, 3, pixels, NULL, NULL)) return 0;
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_mul_scalar(nn_from(nn, NN_SHAPE(1, 1, 8, 8), pixels), 255.0f / 16);
    return nn_png_save(nn_select(nn_upsample(x, 64, 64, NULL), 0, 0), path);
}

/* The picture as the training data are: 8 x 8, strokes bright, 16/255 at most. */
static int read_picture(const char *path, float *to)
{
    int w, h, n;
    unsigned char *p = stbi_load(path, &w, &h, &n, 1);
    double sum = 0;
    if (!p) return 0;
    for (int i = 0; i < w * h; i++) sum += p[i];
    int dark_on_light = sum / ((double)w * h) > 127;
    for (int y = 0; y < 8; y++) for (int x = 0; x < 8; x++) {
        double cell = 0;
        int count = 0;
        for (int v = y * h / 8; v < (y + 1) * h / 8; v++) for (int u = x * w / 8; u < (x + 1) * w / 8; u++, count++) cell += p[v * w + u];
        cell = count ? cell / count / 255 : 0;
        to[y * 8 + x] = (float)((dark_on_light ? 1 - cell : cell) * 16 / 255);
    }
    stbi_image_free(p);
    return 1;
}

int main(int argc, char **argv)
{
    const char *picture = argc > 1 ? argv[1] : "digit.png", *weights = argc > 2 ? argv[2] : "digits.safetensors";
    float pixels[64], p[3];
    int64_t classes[3];
    nn_context *nn = nn_new(NULL);
    if (!read_picture(picture, pixels)) {
        printf("%s cannot be read (%s); writing a sample there\n", picture, stbi_failure_reason());
        if (!write_sample(nn, picture) || !read_picture(picture, pixels)) return 1;
    }

    nn_layer *net = nn_model_new(nn, NULL);               /* as in digits.c, ready for its weights */
    nn_scaler_unfitted_new(net, NN_SHAPE(1, 8, 8));
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", 64, 128, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "fc2", 128, 10, NULL);
    FILE *f = fopen(weights, "rb");
    if (!f) { printf("there is no %s: run digits first\n", weights); nn_free(nn); return 0; }
    fclose(f);
    if (!nn_load(net, weights, NULL)) return 1;           /* the report of what does not fit has been printed */

    nn_begin(nn, NN_EVAL);
    nn_tensor *index, *probability = nn_softmax(nn_forward(net, nn_from(nn, NN_SHAPE(1, 1, 8, 8), pixels)), -1);
    probability = nn_topk(probability, 3, -1, &index, NULL);
    if (!nn_read(probability, p) || !nn_read_as(index, NN_I64, classes)) return 1;
    for (int i = 0; i < 3; i++) printf("%lld  %5.1f %%\n", (long long)classes[i], 100 * (double)p[i]);
    nn_free(nn);
    return 0;
}
