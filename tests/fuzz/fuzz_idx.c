/* fuzz_idx.c - idx files, plain and gzip. Input: two bytes (little-endian) with the size of the labels, the labels, the images.
   clang -g -O1 -fsanitize=fuzzer,address,undefined -DNN_NO_SIMD tests/fuzz/fuzz_idx.c -o fuzz_idx -lm -lpthread && ./fuzz_idx tests/fuzz/corpus/idx */
#ifndef TEST_LINKED
#define NN_IMPLEMENTATION
#endif
#include "../../nn.h"
#include <stdlib.h>
#include <string.h>

static void quiet(void *user, const char *message) { (void)user; (void)message; }

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    nn_desc d = { 0 };
    nn_context *nn;
    nn_dataset *data;
    size_t labels = n < 2 ? 0 : (size_t)bytes[0] | (size_t)bytes[1] << 8, images;
    char *l, *x;
    if (n < 2 || labels > n - 2) return 0;
    images = n - 2 - labels;
    l = malloc(labels ? labels : 1);
    x = malloc(images ? images : 1);
    memcpy(l, bytes + 2, labels);
    memcpy(x, bytes + 2 + labels, images);
    d.on_error = quiet;
    d.threads = 1;
    nn = nn_new(&d);
    data = nn_idx_parse(nn, x, images, labels ? l : NULL, labels);
    if ((data != NULL) != nn_ok(nn)) abort();
    free(l);                                             /* what was parsed was copied */
    free(x);
    if (data) {
        nn_shape s = nn_dataset_shape(data);
        int64_t width = 1, label = 0;
        float *to;
        for (int i = 0; i < s.ndim; i++) width *= s.d[i];
        to = malloc((size_t)width * sizeof *to);
        for (int64_t i = 0; i < nn_dataset_count(data); i++) {
            if (!nn_dataset_get(data, i, to, NULL, &label)) abort();
            if (nn_dataset_classes(data) && (label < 0 || label >= nn_dataset_classes(data))) abort();
        }
        free(to);
    }
    nn_free(nn);
    return 0;
}
