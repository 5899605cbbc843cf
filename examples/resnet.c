/* resnet.c - Demonstrates a ResNet-18 (He et al. 2016) with a CIFAR stem, written as blocks with their own forward.

   Parameter names and shapes are torchvision's, so its weights load (other than conv1 and fc, which depend on the picture size).
   Data:     CIFAR-10 binary files:  ./resnet [--width W] [--epochs N] train.bin[.gz] ... test.bin[.gz];  without: synthetic pictures
   Build:    cc -O2 examples/resnet.c -o resnet -lm -lpthread
   Expect:   "11173962 parameters" at full width, a falling loss, a test accuracy
   Run in CI: --width 8 --epochs 1
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

typedef struct Block { nn_layer *conv1, *bn1, *conv2, *bn2, *down, *down_bn; } Block;

/* relu(bn2(conv2(relu(bn1(conv1(x))))) + x), x projected where the size changes */
static nn_tensor *block_forward(void *self, nn_tensor *x)                        /* (B, C, H, W) */
{
    Block *b = self;
    nn_tensor *y = nn_forward(b->bn1, nn_forward(b->conv1, x));
    y = nn_forward(b->bn2, nn_forward(b->conv2, y));
    if (b->down) x = nn_forward(b->down_bn, nn_forward(b->down, x));
    return nn_relu(nn_add(y, x));
}

static void add_block(nn_layer *stage, Block *b, int64_t in, int64_t out, int stride)
{
    nn_layer *l = nn_layer_new(stage, NULL, &(nn_layer_desc){ .forward = block_forward, .self = b, .release = 1 });
    memset(b, 0, sizeof *b);
    b->conv1 = nn_conv2d_new(l, "conv1", in, out, 3, &(nn_conv2d_desc){ .stride = stride, .padding = 1, .no_bias = 1 });
    b->bn1   = nn_batchnorm_new(l, "bn1", out, &(nn_batchnorm_desc){ .activation = nn_relu });
    b->conv2 = nn_conv2d_new(l, "conv2", out, out, 3, &(nn_conv2d_desc){ .padding = 1, .no_bias = 1 });
    b->bn2   = nn_batchnorm_new(l, "bn2", out, NULL);
    if (in == out && stride == 1) return;
    nn_layer *down = nn_group_new(l, "downsample");
    b->down    = nn_conv2d_new(down, "0", in, out, 1, &(nn_conv2d_desc){ .stride = stride, .no_bias = 1 });
    b->down_bn = nn_batchnorm_new(down, "1", out, NULL);
}

/* blocks: room for 8 */
static nn_layer *add_resnet18(nn_context *nn, Block *blocks, int64_t width, int64_t classes)
{
    nn_layer *net = nn_model_new(nn, NULL);
    int64_t in = width;
    nn_conv2d_new(net, "conv1", 3, width, 3, &(nn_conv2d_desc){ .padding = 1, .no_bias = 1 });
    nn_batchnorm_new(net, "bn1", width, &(nn_batchnorm_desc){ .activation = nn_relu });
    for (int stage = 0; stage < 4; stage++) {
        char name[16];
        snprintf(name, sizeof name, "layer%d", stage + 1);
        nn_layer *group = nn_group_new(net, name);
        int64_t out = width << stage;
        add_block(group, &blocks[2 * stage], in, out, stage ? 2 : 1);
        add_block(group, &blocks[2 * stage + 1], out, out, 1);
        in = out;
    }
    nn_fn_new(net, nn_global_avgpool);
    nn_linear_new(net, "fc", in, classes, NULL);
    return net;
}

/* A picture of class k is a grating with k + 1 stripes. */
static int grating(void *self, int64_t i, float *x, float *y, int64_t *label)
{
    (void)self; (void)y;
    *label = i % 10;
    for (int j = 0; j < 3 * 32 * 32; j++) x[j] = sinf(0.19635f * (float)(*label + 1) * (float)(j % 32) + (float)i) + 0.3f * (float)((j * 7919 + i * 104729) % 11 - 5) / 5;
    return 1;
}

int main(int argc, char **argv)
{
    const char *files[16];
    int count = 0, epochs = 5;
    int64_t width = 64;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--width") && i + 1 < argc) width = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (count < 16) files[count++] = argv[i];
    }
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset_desc synthetic = { .count = 640, .x_shape = NN_SHAPE(3, 32, 32), .classes = 10, .get = grating };
    nn_dataset *train = count >= 2 ? nn_cifar_load(nn, files, count - 1) : nn_dataset_new(nn, &synthetic);
    synthetic.count = 100;
    nn_dataset *test = count >= 2 ? nn_cifar_load(nn, files + count - 1, 1) : nn_dataset_new(nn, &synthetic);
    if (!nn_ok(nn)) return 1;

    Block blocks[8];
    nn_layer *net = add_resnet18(nn, blocks, width, 10);
    printf("%lld parameters\n", (long long)nn_param_count(net));

    float mean[3] = { 0.491f, 0.482f, 0.447f }, std[3] = { 0.247f, 0.243f, 0.262f };
    nn_augment_desc train_augment = { .crop_padding = 4, .flip = 0.5f, .mean = mean, .std = std }, test_augment = { .mean = mean, .std = std };
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.02f, .momentum = 0.9f, .weight_decay = 5e-4f, .nesterov = 1 });
    nn_loader *loader = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1, .augment = count >= 2 ? &train_augment : NULL });
    nn_fit(net, &(nn_fit_desc){
        .train = loader, .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs,
        .schedule = nn_one_cycle_lr_new(opt, &(nn_schedule_desc){ .max_lr = 0.05f, .per_step = 1,
                                        .total = (int)nn_loader_batches(loader) * epochs + 1 }) });
    nn_report report;
    if (!nn_evaluate(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 100, .augment = count >= 2 ? &test_augment : NULL }), nn_cross_entropy, NULL, &report)) return 1;
    printf("test accuracy %.2f%%\n", 100 * report.accuracy);
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
