/* mnist_cuda.cu - Demonstrates training on an NVIDIA GPU: a CNN on MNIST (or Fashion-MNIST), on the CPU where there is no GPU.

   Data:     the four files of MNIST in a folder:  ./mnist_cuda [--epochs N] [--fp16] [FOLDER];  default: Debian's dataset-fashion-mnist
             --fp16: products of 16-bit floats on tensor cores, and a loss scale, so that small gradients do not become 0
   Build:    cc -O2 -DNN_IMPLEMENTATION -x c -c nn.h -o nn.o
             nvcc -O3 -arch=native examples/mnist_cuda.cu nn.o -o mnist_cuda          (or: make build/mnist_cuda)
   Expect:   where it runs, a line per epoch, the test accuracy, and what the device did.
             Without the data it says so and ends well. Never run on a GPU by its authors: see nn_cuda.h.
   Level:    **                                                                                   */
#define NN_CUDA_IMPLEMENTATION
#include "../nn_cuda.h"

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
    int epochs = 5;
    nn_cuda_desc device = nn_cuda_desc();        // this file is C++, which has no designated initialisers before C++20
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--fp16")) device.precision = NN_CUDA_FP16;
        else folder = argv[i];

    nn_desc desc = nn_desc();
    desc.seed = 1;
    desc.backend = nn_cuda_available() ? nn_cuda_with(0, &device) : NULL;
    desc.loss_scale = device.precision == NN_CUDA_FP16 ? 65536.0f : 0.0f;
    printf("on %s%s%s\n", desc.backend ? desc.backend->name : "the CPU", nn_cuda_why()[0] ? ": " : "", nn_cuda_why());
    nn_context *nn = nn_new(&desc);
    nn_dataset *train = load(nn, folder, "train"), *test = load(nn, folder, "t10k");
    if (!nn_ok(nn)) { printf("no data in %s: nothing to do\n", folder); return 0; }

    nn_layer *net = nn_model_new(nn, NULL);
    nn_conv2d_new(net, "conv1", 1, 32, 3, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_conv2d_new(net, "conv2", 32, 64, 3, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_flatten_new(net);
    nn_dropout_new(net, 0.3f);
    nn_linear_new(net, "fc", 64 * 5 * 5, 10, NULL);

    nn_adam_desc adam = nn_adam_desc();
    adam.lr = 0.001f;
    nn_loader_desc batches = nn_loader_desc();
    batches.batch = 128;
    batches.shuffle = 1;
    nn_fit_desc fit = nn_fit_desc();
    fit.train = nn_loader_new(train, &batches);
    fit.loss = nn_cross_entropy;
    fit.optimizer = nn_adam_new(net, &adam);
    fit.epochs = epochs;
    nn_fit(net, &fit);

    nn_report report;
    batches.shuffle = 0;
    if (!nn_evaluate(net, nn_loader_new(test, &batches), nn_cross_entropy, NULL, &report)) return 1;
    printf("test accuracy %.2f%%\n", 100 * report.accuracy);
    if (desc.backend) nn_cuda_report(desc.backend);
    nn_free(nn);
    return 0;
}
