/* fuzz_cifar.c - CIFAR-10 records, plain and gzip (use -max_len=8192 or more), through a loader
   clang -g -O1 -fsanitize=fuzzer,address,undefined -DNN_NO_SIMD tests/fuzz/fuzz_cifar.c -o fuzz_cifar -lm -lpthread && ./fuzz_cifar tests/fuzz/corpus/cifar */
#ifndef TEST_LINKED
#define NN_IMPLEMENTATION
#endif
#include "../../nn.h"
#include <stdlib.h>
#include <string.h>

static void quiet(void *user, const char *message) { (void)user; (void)message; }

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static float x[3072];
    nn_desc d = { 0 };
    nn_augment_desc augment = { 0 };
    nn_loader_desc desc = { 0 };
    nn_context *nn;
    nn_dataset *data;
    nn_batch batch;
    d.on_error = quiet;
    d.threads = 1;
    nn = nn_new(&d);
    data = nn_cifar_parse(nn, bytes, n);
    if ((data != NULL) != nn_ok(nn)) abort();
    for (int64_t i = 0; i < nn_dataset_count(data); i++) {
        int64_t label = -1;
        if (!nn_dataset_get(data, i, x, NULL, &label) || label < 0 || label > 9) abort();
    }
    augment.crop_padding = 4; augment.flip = 0.5f; augment.rotate = 10; augment.cutout = 5;
    desc.batch = 2; desc.shuffle = 1; desc.augment = &augment;
    if (data && nn_dataset_count(data) < 8 && !nn_loader_next(nn_loader_new(data, &desc), &batch)) abort();
    nn_free(nn);
    return 0;
}
