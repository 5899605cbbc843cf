/* fashion.c - Demonstrates the short way (Keras' fit): a CNN on Fashion-MNIST with augmentation, early stopping and TensorBoard.

   Data:     Debian's package dataset-fashion-mnist, or the four files from anywhere:  ./fashion [--epochs N] [FOLDER]
   Build:    cc -O2 examples/fashion.c -o fashion -lm -lpthread
   Expect:   a line per epoch; test accuracy of 91 to 92 %.   tensorboard --logdir runs   shows the curves
             Without the data it says so and ends well.
   Run in CI: --epochs 1 /usr/share/datasets/fashion-mnist
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

static nn_dataset *load(nn_context *nn, const char *folder, const char *part)
{
    char images[512], labels[512];
    snprintf(images, sizeof images, "%s/%s-images-idx3-ubyte.gz", folder, part);
    snprintf(labels, sizeof labels, "%s/%s-labels-idx1-ubyte.gz", folder, part);
    return nn_idx_load(nn, images, labels);
}

int main(int argc, char **argv)
{
    const char *folder = "/usr/share/datasets/fashion-mnist";
    int epochs = 15;
    for (int i = 1; i < argc; i++) if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]); else folder = argv[i];

    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *all = load(nn, folder, "train"), *test = load(nn, folder, "t10k"), *train, *validation;
    if (!nn_ok(nn)) { printf("no Fashion-MNIST in %s: nothing to do\n", folder); return 0; }
    nn_split_data(all, 55.0 / 60, &train, &validation);

    nn_layer *net = nn_model_new(nn, NULL);
    nn_conv2d_new(net, "conv1", 1, 32, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_batchnorm_new(net, "bn1", 32, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_conv2d_new(net, "conv2", 32, 64, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_batchnorm_new(net, "bn2", 64, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_dropout_new(net, 0.3f);
    nn_linear_new(net, "fc1", 64 * 7 * 7, 128, NULL);
    nn_fn_new(net, nn_relu);
    nn_dropout_new(net, 0.3f);
    nn_linear_new(net, "fc2", 128, 10, NULL);
    nn_summary(net, NN_SHAPE(1, 1, 28, 28));

    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.001f });
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 128, .shuffle = 1, .augment = &(nn_augment_desc){ .flip = 0.5f } }),
        .validation = nn_loader_new(validation, &(nn_loader_desc){ .batch = 256 }),
        .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs, .patience = 3, .log_dir = "runs/fashion",
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = epochs }) });

    nn_report report;
    if (!nn_evaluate(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 256 }), nn_cross_entropy, NULL, &report)) return 1;
    nn_report_print(nn, &report);
    printf("test accuracy %.2f%%\n", 100 * report.accuracy);
    nn_free(nn);
    return 0;
}
