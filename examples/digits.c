/* digits.c - Demonstrates training a classifier on real images: load, split, fit, evaluate, save.

   Build:    cc -O2 examples/digits.c -o digits -lm -lpthread
   Run:      ./digits                             1,797 handwritten digits of 8 x 8 pixels (examples/data), a small MLP
             ./digits --net cnn                   the same with a LeNet
             ./digits [--net cnn] [--epochs N] train-images train-labels test-images test-labels
                                                  MNIST, Fashion-MNIST: idx files, .gz too
             ./digits [--epochs N] table.csv      the last column is the class
   Expect:   a line per epoch, then "test accuracy 9x.xx%" and "saved digits.safetensors"
   Run in CI: --net cnn --epochs 3
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

/* LeNet (LeCun et al. 1998), with ReLU and max pooling; any image size from 8 x 8. */
static void add_lenet(nn_layer *net, nn_shape image, int64_t classes)
{
    int64_t h = image.d[1] / 2 / 2, w = image.d[2] / 2 / 2;
    nn_conv2d_new(net, "conv1", image.d[0], 16, 5, &(nn_conv2d_desc){ .padding = 2 });
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_conv2d_new(net, "conv2", 16, 32, 5, &(nn_conv2d_desc){ .padding = 2 });
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", 32 * h * w, 128, NULL);
    nn_fn_new(net, nn_relu);
    nn_dropout_new(net, 0.3f);
    nn_linear_new(net, "fc2", 128, classes, NULL);
}

static void add_mlp(nn_layer *net, int64_t inputs, int64_t classes)
{
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", inputs, 128, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "fc2", 128, classes, NULL);
}

int main(int argc, char **argv)
{
    int cnn = 0, epochs = 0, files = 0;
    const char *file[4] = { "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte" };
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--net") && i + 1 < argc) cnn = !strcmp(argv[++i], "cnn");
        else if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (files < 4) file[files++] = argv[i];
    }

    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *all, *train = NULL, *test = NULL;
    if (files == 1) all = nn_csv_load(nn, file[0], NULL);
    else            all = nn_idx_load(nn, file[0], file[1]);
    if (files == 4) { train = all; test = nn_idx_load(nn, file[2], file[3]); }
    else nn_split_data(all, 0.8, &train, &test);          /* shuffled, every class in the same proportion */
    if (!nn_ok(nn)) return 1;                             /* the reason has been printed */

    nn_shape image = nn_dataset_shape(train);
    int64_t inputs = 1, classes = nn_dataset_classes(train);
    for (int i = 0; i < image.ndim; i++) inputs *= image.d[i];
    nn_layer *net = nn_model_new(nn, NULL);
    nn_scaler_new(net, train);                            /* (x - mean) / std, measured on the training set, saved with the net */
    if (cnn && image.ndim == 3) add_lenet(net, image, classes);
    else add_mlp(net, inputs, classes);

    int64_t batches = (nn_dataset_count(train) + 63) / 64;
    if (!epochs) epochs = batches < 100 ? 30 : 10;
    nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.002f, .weight_decay = 0.01f });
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 64, .shuffle = 1 }),
        .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = epochs }) });

    nn_report report;
    if (!nn_evaluate(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 256 }), nn_cross_entropy, NULL, &report)) return 1;
    nn_report_print(nn, &report);
    printf("test accuracy %.2f%%\n", 100 * report.accuracy);
    if (!nn_save(net, "digits.safetensors", NULL)) return 1;
    printf("saved digits.safetensors\n");
    nn_free(nn);
    return 0;
}
