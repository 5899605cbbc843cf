/* fuzz_csv.c - CSV, plain and gzip, under several descs
   clang -g -O1 -fsanitize=fuzzer,address,undefined -DNN_NO_SIMD tests/fuzz/fuzz_csv.c -o fuzz_csv -lm -lpthread && ./fuzz_csv tests/fuzz/corpus/csv */
#ifndef TEST_LINKED
#define NN_IMPLEMENTATION
#endif
#include "../../nn.h"
#include <stdlib.h>
#include <string.h>

static void quiet(void *user, const char *message) { (void)user; (void)message; }

/* Whatever the text says, a dataset that was accepted can be read to its end. */
static void parse(const char *text, size_t n, const nn_csv_desc *desc)
{
    nn_desc d = { 0 };
    nn_context *nn;
    nn_dataset *data;
    d.on_error = quiet;
    d.threads = 1;
    nn = nn_new(&d);
    data = nn_csv_parse(nn, text, n, desc);
    if ((data != NULL) != nn_ok(nn)) abort();
    for (int64_t i = 0; i < nn_dataset_count(data); i++) {
        int64_t label = 0;
        float y = 0, *x = malloc((size_t)nn_dataset_shape(data).d[0] * sizeof *x);
        if (!nn_dataset_get(data, i, x, &y, &label)) abort();
        if (nn_dataset_classes(data) && (label < 0 || label >= nn_dataset_classes(data) || !nn_dataset_class(data, label))) abort();
        free(x);
    }
    nn_free(nn);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const ignore[] = { "a" };
    nn_csv_desc d = { 0 };
    char *text = malloc(n ? n : 1);                      /* exact, so that a read past the end shows */
    memcpy(text, bytes, n);
    parse(text, n, NULL);
    d.no_header = 1; d.missing_as_mean = 1;
    parse(text, n, &d);
    d.regression = 1; d.separator = ';'; d.skip_lines = 1; d.target_column = 1;
    parse(text, n, &d);
    memset(&d, 0, sizeof d);
    d.ignore = ignore; d.ignore_count = 1; d.target_column = -1;
    parse(text, n, &d);
    free(text);
    return 0;
}
