/* fuzz_tokenizer.c - every reader of tokenizers (chosen by the first byte), and training
   clang -g -O1 -fsanitize=fuzzer,address,undefined -DNN_NO_SIMD tests/fuzz/fuzz_tokenizer.c -o fuzz_tokenizer -lm -lpthread && ./fuzz_tokenizer tests/fuzz/corpus/tokenizer */
#ifndef TEST_LINKED
#define NN_IMPLEMENTATION
#endif
#include "../../nn.h"
#include <stdlib.h>
#include <string.h>

static void quiet(void *user, const char *message) { (void)user; (void)message; }

/* Whatever the file says, a tokenizer that was accepted gives tokens that it has, and those of bytes give the text back. */
static void use(nn_context *nn, nn_tokenizer *t, int of_bytes, const char *text, size_t n)
{
    int64_t *ids = malloc((n + 1) * sizeof *ids), count = nn_encode(t, text, n, ids, (int64_t)n + 1, NULL), i;
    size_t bytes;
    char *back;
    if (count < 0) { nn_clear(nn); free(ids); return; }  /* it has no token for something */
    for (i = 0; i < count && i <= (int64_t)n; i++) if (ids[i] < 0 || ids[i] >= nn_token_count(t)) abort();
    if (count <= (int64_t)n + 1) {
        bytes = nn_decode(t, ids, count, NULL, 0, NULL);
        back = malloc(bytes + 1);
        if (nn_decode(t, ids, count, back, bytes + 1, NULL) != bytes) abort();
        if (of_bytes && (bytes != n || (n && memcmp(back, text, n)))) abort();
        free(back);
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char text[] = "ab a<s> un\xC3\xA9, \xE4\xB8\xAD a\xFF" "aab  ab\n[UNK] <|endoftext|>";
    nn_desc d = { 0 };
    nn_context *nn;
    nn_tokenizer *t = NULL;
    uint8_t *copy, *zero;
    int kind;
    if (!n) return 0;
    kind = *data++ % 5;
    n--;
    copy = malloc(n ? n : 1);                            /* exact, so that a read past the end shows */
    memcpy(copy, data, n);
    d.on_error = quiet;
    d.threads = 1;
    nn = nn_new(&d);
    zero = n ? memchr(copy, 0, n) : NULL;
    if (kind == 0 && zero) t = nn_bpe_tokenizer_parse(nn, copy, (size_t)(zero - copy), zero + 1, n - (size_t)(zero - copy) - 1, NULL);
    if (kind == 1) t = nn_wordpiece_tokenizer_parse(nn, copy, n, NULL);
    if (kind == 2) t = nn_llama_tokenizer_parse(nn, copy, n, NULL);
    if (kind == 3) t = nn_tokenizer_parse(nn, copy, n);
    if (kind == 4) t = nn_bpe_tokenizer_new(nn, (char *)copy, n, 300, NULL);
    if ((t != NULL) != nn_ok(nn) && !(kind == 0 && !zero)) abort();
    if (t) { use(nn, t, kind == 0 || kind == 4, text, sizeof text - 1); use(nn, t, kind == 0 || kind == 4, (char *)copy, n < 500 ? n : 500); }
    nn_free(nn);
    free(copy);
    return 0;
}
