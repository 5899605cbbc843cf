/* cifar10.c - Demonstrates the explicit training loop and a net with its own forward, as in PyTorch's tutorial, on colour photographs.

   Data:     CIFAR-10, binary version:  ./cifar10 [--net lenet] [--epochs N] train1.bin[.gz] ... test.bin[.gz]
             Without files it trains on small synthetic pictures, to show that it runs.
   Build:    cc -O2 examples/cifar10.c -o cifar10 -lm -lpthread
   Expect:   a falling loss and a test accuracy per epoch; on the whole of CIFAR-10 about 75 %, on its first 4,000 pictures 55 %
   Run in CI: --epochs 1
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

typedef struct Net { nn_layer *root, *conv1, *conv2, *fc1, *fc2, *fc3; } Net;

static nn_tensor *two_conv(void *self, nn_tensor *x)                             /* (B, 3, 32, 32) */
{
    Net *n = self;
    x = nn_maxpool2d(nn_relu(nn_forward(n->conv1, x)), 2, NULL);                 /* (B, 32, 16, 16) */
    x = nn_maxpool2d(nn_relu(nn_forward(n->conv2, x)), 2, NULL);                 /* (B, 64, 8, 8) */
    x = nn_relu(nn_forward(n->fc1, nn_flatten(x, 1)));
    return nn_forward(n->fc2, nn_dropout(x, 0.3f));                              /* (B, 10) */
}

static nn_tensor *lenet(void *self, nn_tensor *x)                                /* the net of PyTorch's "Training a Classifier" */
{
    Net *n = self;
    x = nn_maxpool2d(nn_relu(nn_forward(n->conv1, x)), 2, NULL);                 /* (B, 6, 14, 14) */
    x = nn_maxpool2d(nn_relu(nn_forward(n->conv2, x)), 2, NULL);                 /* (B, 16, 5, 5) */
    x = nn_relu(nn_forward(n->fc1, nn_flatten(x, 1)));
    x = nn_relu(nn_forward(n->fc2, x));
    return nn_forward(n->fc3, x);
}

/* A picture of class k has a bright bar at an angle that belongs to k. */
static int synthetic(void *self, int64_t i, float *x, float *y, int64_t *label)
{
    (void)self; (void)y;
    *label = i % 10;
    for (int c = 0; c < 3; c++) for (int row = 0; row < 32; row++) for (int col = 0; col < 32; col++) {
        float a = (float)*label * 0.314f, d = (float)(row - 16) * cosf(a) - (float)(col - 16) * sinf(a) + (float)(i % 7) - 3;
        x[(c * 32 + row) * 32 + col] = expf(-d * d / 20) + 0.1f * (float)((i * 31 + row * 17 + col * 13 + c) % 10) / 10;
    }
    return 1;
}

int main(int argc, char **argv)
{
    const char *files[16];
    int count = 0, epochs = 10, small = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--net") && i + 1 < argc) small = !strcmp(argv[++i], "lenet");
        else if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (count < 16) files[count++] = argv[i];
    }

    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *train, *test;
    if (count >= 2) { train = nn_cifar_load(nn, files, count - 1); test = nn_cifar_load(nn, files + count - 1, 1); }
    else {
        puts("no files given: synthetic pictures");
        train = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 1000, .x_shape = NN_SHAPE(3, 32, 32), .classes = 10, .get = synthetic });
        test  = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 200,  .x_shape = NN_SHAPE(3, 32, 32), .classes = 10, .get = synthetic });
    }
    if (!nn_ok(nn)) return 1;

    Net n = { 0 };
    n.root = nn_model_new(nn, &(nn_model_desc){ .forward = small ? lenet : two_conv, .self = &n });
    n.conv1 = nn_conv2d_new(n.root, "conv1", 3, small ? 6 : 32, small ? 5 : 3, &(nn_conv2d_desc){ .padding = small ? 0 : 1 });
    n.conv2 = nn_conv2d_new(n.root, "conv2", small ? 6 : 32, small ? 16 : 64, small ? 5 : 3, &(nn_conv2d_desc){ .padding = small ? 0 : 1 });
    n.fc1 = nn_linear_new(n.root, "fc1", small ? 16 * 5 * 5 : 64 * 8 * 8, small ? 120 : 256, NULL);
    n.fc2 = nn_linear_new(n.root, "fc2", small ? 120 : 256, small ? 84 : 10, NULL);
    if (small) n.fc3 = nn_linear_new(n.root, "fc3", 84, 10, NULL);

    nn_optimizer *opt = nn_sgd_new(n.root, &(nn_sgd_desc){ .lr = 0.01f, .momentum = 0.9f, .weight_decay = 5e-4f });
    float mean[3] = { 0.491f, 0.482f, 0.447f }, std[3] = { 0.247f, 0.243f, 0.262f };
    nn_loader *batches = nn_loader_new(train, &(nn_loader_desc){ .batch = 64, .shuffle = 1,
        .augment = &(nn_augment_desc){ .crop_padding = 4, .flip = count >= 2 ? 0.5f : 0, .mean = mean, .std = std } });
    nn_loader *tests = nn_loader_new(test, &(nn_loader_desc){ .batch = 250, .augment = &(nn_augment_desc){ .mean = mean, .std = std } });

    for (int epoch = 1; epoch <= epochs; epoch++) {
        double running = 0;
        nn_batch b;
        while (nn_loader_next(batches, &b)) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *loss = nn_cross_entropy(nn_forward(n.root, b.x), b.y, NULL);
            nn_backward(loss);
            nn_step(opt);
            running += nn_item(loss);
        }
        nn_report report;
        if (!nn_evaluate(n.root, tests, NULL, NULL, &report)) return 1;
        printf("epoch %d  loss %.4f  test accuracy %.2f%%\n", epoch, running / (double)nn_loader_batches(batches), 100 * report.accuracy);
    }
    if (!nn_save(n.root, "cifar10.safetensors", NULL)) return 1;
    nn_free(nn);
    return 0;
}
