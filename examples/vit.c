/* vit.c - Demonstrates a vision Transformer (Dosovitskiy et al. 2021): a picture is read as a sequence of patches.

   A convolution as large as its stride turns every patch of 4 x 4 pixels into a vector; a learned vector tells where the patch was. Encoder layers, in which
   every patch sees all others, then the mean over patches and a linear layer. Nothing says that neighbours belong together: a net has to learn
   that from many pictures, where a convolution knows it.
   Data:     CIFAR-10, binary version (https://www.cs.toronto.edu/~kriz/cifar.html):  ./vit [--epochs N] train1.bin[.gz] ... test.bin[.gz]
             Without files it trains on synthetic pictures, to show that it runs.
   Build:    cc -O2 examples/vit.c -o vit -lm -lpthread
   Expect:   on the first 4,000 pictures of CIFAR-10 a test accuracy of 52 % after 25 epochs (a minute). 75 epochs give no more: then it knows 84 % of the
             pictures that it learned from. It needs more pictures, not more epochs; the net of cifar10.c has 55 % after 10
   Run in CI: --epochs 1
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { SIDE = 32, PATCH = 4, PATCHES = SIDE / PATCH * (SIDE / PATCH), WIDTH = 64, HEADS = 4, LAYERS = 4, CLASSES = 10 };
typedef struct Vit { nn_layer *root, *patches, *positions, *block[LAYERS], *norm, *head; } Vit;

static nn_tensor *forward(void *self, nn_tensor *x)                              /* (B, 3, 32, 32) */
{
    Vit *v = self;
    x = nn_flatten(nn_forward(v->patches, x), 2);                                /* (B, WIDTH, 8, 8), (B, WIDTH, 64) */
    x = nn_add(nn_transpose(x, 1, 2), nn_param(v->positions, "weight"));         /* (B, 64, WIDTH) */
    for (int i = 0; i < LAYERS; i++) x = nn_forward(v->block[i], x);
    x = nn_mean(nn_forward(v->norm, x), NN_DIMS(1), NULL);                       /* (B, WIDTH) */
    return nn_forward(v->head, x);                                               /* (B, 10) */
}
static void build(Vit *v, nn_context *nn)
{
    v->root = nn_model_new(nn, &(nn_model_desc){ .forward = forward, .self = v, .release = 1 });
    v->patches = nn_conv2d_new(v->root, "patches", 3, WIDTH, PATCH, &(nn_conv2d_desc){ .stride = PATCH });
    v->positions = nn_embedding_new(v->root, "positions", PATCHES, WIDTH);
    for (int i = 0; i < LAYERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "block%d", i);
        v->block[i] = nn_transformer_encoder_layer_new(v->root, name, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 2 * WIDTH, .activation = nn_gelu, .norm_first = 1 });
    }
    v->norm = nn_layernorm_new(v->root, "norm", NN_SHAPE(WIDTH), NULL);
    v->head = nn_linear_new(v->root, "head", WIDTH, CLASSES, NULL);
    nn_init_trunc_normal(nn_param(v->positions, "weight"), 0, 0.02f, -0.04f, 0.04f);
}

/* A picture of class k has a bright spot in the k-th of ten places. */
static int synthetic(void *self, int64_t i, float *x, float *y, int64_t *label)
{
    (void)self; (void)y;
    *label = i % CLASSES;
    for (int j = 0; j < 3 * SIDE * SIDE; j++) {
        float row = (float)(j / SIDE % SIDE) - 10 - 11 * (float)(*label / 5), col = (float)(j % SIDE) - 3 - 6 * (float)(*label % 5);
        x[j] = expf(-(row * row + col * col) / 20) + 0.3f * (float)((j * 7919 + i * 104729) % 11) / 11;
    }
    return 1;
}

int main(int argc, char **argv)
{
    const char *files[16];
    int count = 0, epochs = 25;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]);
        else if (count < 16) files[count++] = argv[i];
    }
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset_desc spots = { .count = 1000, .x_shape = NN_SHAPE(3, SIDE, SIDE), .classes = CLASSES, .get = synthetic };
    if (count < 2) puts("no files given: synthetic pictures");
    nn_dataset *train = count >= 2 ? nn_cifar_load(nn, files, count - 1) : nn_dataset_new(nn, &spots);
    spots.count = 200;
    nn_dataset *test = count >= 2 ? nn_cifar_load(nn, files + count - 1, 1) : nn_dataset_new(nn, &spots);
    if (!nn_ok(nn)) return 1;

    Vit v;
    build(&v, nn);
    printf("%lld pictures, %lld to test, %lld parameters\n", (long long)nn_dataset_count(train), (long long)nn_dataset_count(test), (long long)nn_param_count(v.root));
    float mean[3] = { 0.491f, 0.482f, 0.447f }, std[3] = { 0.247f, 0.243f, 0.262f };
    nn_augment_desc to_train = { .crop_padding = 4, .flip = 0.5f, .mean = mean, .std = std }, to_test = { .mean = mean, .std = std };
    if (count < 2) to_train = to_test;                   /* a spot that has moved is another class */
    nn_loader *batches = nn_loader_new(train, &(nn_loader_desc){ .batch = 25, .shuffle = 1, .augment = &to_train });
    nn_loader *tests = nn_loader_new(test, &(nn_loader_desc){ .batch = 100, .augment = &to_test });
    nn_optimizer *opt = nn_adamw_new(v.root, &(nn_adamw_desc){ .lr = 0.001f, .weight_decay = 0.05f, .clip_norm = 1 });
    int steps = epochs * (int)nn_loader_batches(batches);
    nn_fit(v.root, &(nn_fit_desc){
        .train = batches, .validation = tests, .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs, .repeat = 1,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .per_step = 1, .total = steps, .warmup = steps / 10 }) });
    nn_report report;
    if (!nn_evaluate(v.root, tests, NULL, NULL, &report)) return 1;
    printf("test accuracy %.2f%%\n", 100 * report.accuracy);
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
