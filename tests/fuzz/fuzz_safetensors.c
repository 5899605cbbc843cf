/* fuzz_safetensors.c - nn_load_memory on any bytes. libFuzzer:
       clang -g -O1 -fsanitize=fuzzer,address,undefined -DNN_NO_SIMD -I. tests/fuzz/fuzz_safetensors.c -o build/fuzz_safetensors -lm -lpthread
       build/fuzz_safetensors tests/fuzz/corpus/safetensors
   With -DFUZZ_MAIN it is a program that runs the files that it is given (for AFL++, or to look at one input). */
#ifndef TEST_LINKED
#define NN_IMPLEMENTATION
#endif
#include "../../nn.h"
#include <stdlib.h>
#include <string.h>

static void quiet(void *user, const char *message) { (void)user; (void)message; }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static nn_context *nn;
    static nn_layer *net;
    static const nn_rename rename[] = { { "model.", "" }, { "", "x" } };
    static char report[300];
    nn_load_desc loose;
    float before[6], after[6];
    if (!nn) {
        nn_desc d;
        memset(&d, 0, sizeof d);
        d.threads = 1;
        d.on_error = quiet;
        nn = nn_new(&d);
        net = nn_model_new(nn, NULL);
        nn_linear_new(net, "fc", 3, 2, NULL);
        nn_buffer_new(net, "w", NN_SHAPE(2));
    }
    memset(&loose, 0, sizeof loose);
    loose.not_strict = 1;
    loose.report = report;
    loose.report_bytes = sizeof report;
    nn_begin(nn, NN_EVAL);
    nn_read(nn_param(net, "fc.weight"), before);
    if (!nn_load_memory(net, data, size, NULL)) {
        nn_clear(nn);
        nn_read(nn_param(net, "fc.weight"), after);
        if (memcmp(before, after, sizeof before)) abort();       /* all or nothing */
    }
    nn_clear(nn);
    nn_load_memory(net, data, size, &loose);
    if (strlen(report) >= sizeof report) abort();
    nn_clear(nn);
    loose.rename = rename;
    loose.rename_count = 2;
    loose.skip = "fc.b";
    nn_load_memory(net, data, size, &loose);
    nn_clear(nn);
    return 0;
}

#ifdef FUZZ_MAIN
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        static uint8_t bytes[1 << 20];
        FILE *f = fopen(argv[i], "rb");
        size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
        uint8_t *exact = (uint8_t *)malloc(n ? n : 1);
        if (f) fclose(f);
        memcpy(exact, bytes, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    return 0;
}
#endif
