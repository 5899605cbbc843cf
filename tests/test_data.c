/* test_data.c - datasets, gzip, CSV, folders, splits, scalers, augmentation, loaders */
#define _DEFAULT_SOURCE
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include "fake_device.h"
#include <unistd.h>

static nn_context *quiet(uint64_t seed) { return nn_new(&(nn_desc){ .on_error = test_quiet, .seed = seed, .threads = 2 }); }

/* ---- datasets ------------------------------------------------------------------------------------------------ */
TEST(arrays)
{
    nn_context *nn = quiet(1);
    float x[6] = { 1, 2, 3, 4, 5, 6 }, y[3] = { 7, 8, 9 }, gx[2], gy = 0;
    int64_t labels[3] = { 2, 0, 1 }, label = -1;
    nn_dataset *a = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 3, .x_shape = NN_SHAPE(2), .x = x, .labels = labels });
    nn_dataset *b = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 3, .x_shape = NN_SHAPE(2), .x = x, .y = y });
    CHECK(nn_dataset_count(a) == 3 && nn_dataset_classes(a) == 3 && nn_dataset_classes(b) == 0);
    CHECK(nn_dataset_shape(a).ndim == 1 && nn_dataset_shape(a).d[0] == 2);
    CHECK(nn_dataset_get(a, 1, gx, NULL, &label) && gx[0] == 3 && gx[1] == 4 && label == 0);
    CHECK(nn_dataset_get(b, 2, NULL, &gy, NULL) && gy == 9);
    CHECK(nn_dataset_class(a, 0) == NULL);
    CHECK(!nn_dataset_get(a, 3, gx, NULL, NULL));
    CHECK_ERROR(nn, "sample 3 of 3");
    CHECK(!nn_dataset_get(a, -1, gx, NULL, NULL));
    nn_clear(nn);
    CHECK(!nn_dataset_new(nn, &(nn_dataset_desc){ .count = 3, .x_shape = NN_SHAPE(2), .x = x, .labels = labels, .classes = 2 }));
    CHECK_ERROR(nn, "sample 0 has the class 2; classes are 0..1");
    CHECK(!nn_dataset_new(nn, &(nn_dataset_desc){ .count = 3, .x_shape = NN_SHAPE(2) }));
    CHECK_ERROR(nn, "one of x and get");
    CHECK(!nn_dataset_new(nn, &(nn_dataset_desc){ .count = -3, .x_shape = NN_SHAPE(2), .x = x }));
    nn_clear(nn);
    CHECK(!nn_dataset_new(nn, &(nn_dataset_desc){ .count = 1, .x_shape = NN_SHAPE(1LL << 40, 1LL << 40), .x = x }));
    nn_clear(nn);
    CHECK(!nn_dataset_new(nn, NULL));
    CHECK(nn_dataset_count(NULL) == 0 && nn_loader_batches(NULL) == 0 && !nn_loader_new(NULL, NULL) && !nn_loader_next(NULL, NULL));
    nn_free(nn);
}

static int count_get(void *self, int64_t index, float *x, float *y, int64_t *label)
{
    int64_t *fail = self;
    x[0] = (float)index; x[1] = (float)(2 * index);
    *y = 0;
    *label = index % 4;
    return !fail || *fail != index;
}

TEST(callback)
{
    nn_context *nn = quiet(1);
    int64_t fail = 5, label;
    float x[2];
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 10, .x_shape = NN_SHAPE(2), .classes = 4, .get = count_get, .self = &fail });
    nn_dataset *e = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 10, .x_shape = NN_SHAPE(2), .classes = 3, .get = count_get });
    CHECK(nn_dataset_get(d, 6, x, NULL, &label) && x[1] == 12 && label == 2);
    CHECK(nn_dataset_get(d, 7, NULL, NULL, &label) && label == 3);
    CHECK(!nn_dataset_get(d, 5, x, NULL, NULL));
    CHECK_ERROR(nn, "sample 5");
    CHECK(!nn_dataset_get(e, 3, x, NULL, NULL));
    CHECK_ERROR(nn, "class 3 is not in 0..2");
    nn_free(nn);
}

/* ---- idx, CIFAR, gzip -------------------------------------------------------------------------------------------- */
TEST(digits)
{
    nn_context *nn = quiet(1);
    nn_dataset *d = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte");
    int64_t label, sum[10] = { 0 };
    float x[64];
    if (!d) SKIP("run from the root of the repository");
    CHECK(nn_dataset_count(d) == 1797 && nn_dataset_classes(d) == 10);
    CHECK(nn_dataset_shape(d).ndim == 3 && nn_dataset_shape(d).d[0] == 1 && nn_dataset_shape(d).d[2] == 8);
    for (int64_t i = 0; i < 1797; i++) { CHECK(nn_dataset_get(d, i, x, NULL, &label)); sum[label]++; }
    CHECK(sum[0] == 178 && sum[1] == 182 && sum[9] == 180);
    CHECK(nn_dataset_get(d, 0, x, NULL, &label) && label == 0 && x[0] == 0 && x[2] == 5.0f / 255.0f && x[3] == 13.0f / 255.0f);
    CHECK(!nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/none"));
    CHECK_ERROR(nn, "there is no file examples/data/none");
    CHECK(!nn_idx_load(nn, "examples/data", NULL));
    CHECK_ERROR(nn, "there is no file");
    CHECK(!nn_idx_load(nn, "examples/data/iris.csv", NULL));
    CHECK_ERROR(nn, "not an idx file");
    CHECK(nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-images-idx3-ubyte") != NULL);   /* numbers as targets */
    nn_free(nn);
}

TEST(idx_types)
{
    static const unsigned char u8[] = { 0, 0, 8, 1, 0, 0, 0, 2, 255, 51 }, i8[] = { 0, 0, 9, 1, 0, 0, 0, 2, 255, 5 },
        i16[] = { 0, 0, 11, 2, 0, 0, 0, 1, 0, 0, 0, 2, 255, 254, 1, 2 }, i32[] = { 0, 0, 12, 1, 0, 0, 0, 2, 255, 255, 255, 253, 0, 1, 0, 0 },
        f32[] = { 0, 0, 13, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x3F, 0x80, 0, 0, 0xC0, 0x20, 0, 0 }, f64[] = { 0, 0, 14, 1, 0, 0, 0, 1, 0x40, 9, 0x21, 0xFB, 0x54, 0x44, 0x2D, 0x18 },
        d4[] = { 0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 3, 4 }, lab[] = { 0, 0, 8, 1, 0, 0, 0, 2, 1, 0 };
    nn_context *nn = quiet(1);
    float x[2], y[2];
    int64_t label;
    CHECK(nn_dataset_get(nn_idx_parse(nn, u8, sizeof u8, NULL, 0), 1, x, NULL, NULL) && x[0] == 0.2f);
    CHECK(nn_dataset_get(nn_idx_parse(nn, i8, sizeof i8, NULL, 0), 0, x, NULL, NULL) && x[0] == -1);
    CHECK(nn_dataset_get(nn_idx_parse(nn, i16, sizeof i16, NULL, 0), 0, x, NULL, NULL) && x[0] == -2 && x[1] == 258);
    CHECK(nn_dataset_get(nn_idx_parse(nn, i32, sizeof i32, NULL, 0), 0, x, NULL, NULL) && x[0] == -3);
    CHECK(nn_dataset_get(nn_idx_parse(nn, f32, sizeof f32, NULL, 0), 0, x, NULL, NULL) && x[0] == 1 && x[1] == -2.5f);
    CHECK(nn_dataset_get(nn_idx_parse(nn, f64, sizeof f64, NULL, 0), 0, x, NULL, NULL) && x[0] == 3.14159265f);
    CHECK(nn_dataset_shape(nn_idx_parse(nn, d4, sizeof d4, NULL, 0)).ndim == 3);
    CHECK(nn_dataset_get(nn_idx_parse(nn, f64, sizeof f64, f32, sizeof f32), 0, x, y, NULL) && y[0] == 1 && y[1] == -2.5f);
    CHECK(nn_dataset_get(nn_idx_parse(nn, u8, sizeof u8, lab, sizeof lab), 0, x, NULL, &label) && label == 1);
    CHECK(nn_ok(nn));
    CHECK(!nn_idx_parse(nn, u8, sizeof u8, i8, sizeof i8));
    CHECK_ERROR(nn, "has the class -1");
    CHECK(!nn_idx_parse(nn, f64, sizeof f64, (const unsigned char[]){ 0, 0, 12, 1, 0, 0, 0, 1, 127, 0, 0, 0 }, 12));
    CHECK_ERROR(nn, "is too large");
    CHECK(!nn_idx_parse(nn, f64, sizeof f64, lab, sizeof lab));
    CHECK_ERROR(nn, "1 images but 2 labels");
    nn_free(nn);
}

TEST(idx_damage)
{
    static const struct { unsigned char b[24]; size_t n; const char *words; } bad[] = {
        { { 0 }, 0, "is empty" }, { { 0, 0, 8 }, 3, "not an idx file" }, { { 1, 0, 8, 1, 0, 0, 0, 1, 5 }, 9, "not an idx file" },
        { { 0, 0, 7, 1, 0, 0, 0, 1, 5 }, 9, "type code 7" }, { { 0, 0, 8, 0 }, 4, "0 dimensions" }, { { 0, 0, 8, 200, 0, 0, 0, 1 }, 8, "200 dimensions" },
        { { 0, 0, 8, 2, 0, 0, 0, 1 }, 8, "ends within its header" }, { { 0, 0, 8, 1, 0, 0, 0, 0 }, 8, "holds nothing" },
        { { 0, 0, 8, 1, 255, 255, 255, 255, 5 }, 9, "(4294967295)" }, { { 0, 0, 8, 2, 255, 255, 255, 255, 0, 0, 0, 0 }, 12, "does not fit" },
        { { 0, 0, 8, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1 }, 17, "does not fit" },
        { { 0, 0, 13, 1, 0, 0, 0, 1, 1, 2, 3 }, 11, "does not fit" }, { { 0, 0, 8, 1, 0, 0, 0, 1, 1, 2 }, 10, "does not fit" } };
    nn_context *nn = quiet(1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!nn_idx_parse(nn, bad[i].b, bad[i].n, NULL, 0));
        CHECK_ERROR(nn, bad[i].words);
    }
    CHECK(nn->life.used < 100000);
    CHECK(!nn_idx_parse(nn, NULL, 0, NULL, 0));
    nn_free(nn);
}

TEST(cifar)
{
    size_t n = 3073 * 3;
    unsigned char *b = calloc(n, 1);
    nn_context *nn = quiet(1);
    float x[3072];
    int64_t label;
    b[0] = 3; b[3073] = 9; b[3073 + 1] = 255; b[3073 + 1 + 1024] = 51;
    nn_dataset *d = nn_cifar_parse(nn, b, n);
    CHECK(nn_dataset_count(d) == 3 && nn_dataset_classes(d) == 10 && !strcmp(nn_dataset_class(d, 9), "truck"));
    CHECK(nn_dataset_get(d, 1, x, NULL, &label) && label == 9 && x[0] == 1 && x[1024] == 0.2f && x[1] == 0);
    CHECK(!nn_cifar_parse(nn, b, n - 1));
    CHECK_ERROR(nn, "not a multiple of 3073");
    b[2 * 3073] = 10;
    CHECK(!nn_cifar_parse(nn, b, n));
    CHECK_ERROR(nn, "record 2 of the data has the class 10");
    CHECK(!nn_cifar_parse(nn, b, 0));
    CHECK_ERROR(nn, "empty");
    CHECK(!nn_cifar_load(nn, (const char *const[]){ "nowhere.bin" }, 1));
    CHECK_ERROR(nn, "nowhere.bin");
    FILE *f = fopen("build/cifar_test.bin", "wb");
    if (f) {
        fwrite(b, 1, 3073 * 2, f);
        fclose(f);
        d = nn_cifar_load(nn, (const char *const[]){ "build/cifar_test.bin", "build/cifar_test.bin" }, 2);
        CHECK(nn_dataset_count(d) == 4);
        CHECK(nn_dataset_get(d, 3, x, NULL, &label) && label == 9 && x[0] == 1);
        CHECK(nn_dataset_get(d, 2, x, NULL, &label) && label == 3 && x[0] == 0);
        remove("build/cifar_test.bin");
    }
    nn_free(nn);
    free(b);
}

/* A gzip member of stored blocks, by hand. */
static size_t gzip_stored(const char *text, size_t n, unsigned char *to, int flags)
{
    size_t at = 10;
    uint32_t crc = nn__gzip_crc((const unsigned char *)text, n);
    memset(to, 0, 10);
    to[0] = 0x1F; to[1] = 0x8B; to[2] = 8; to[3] = (unsigned char)flags;
    if (flags & 4)  { to[at++] = 3; to[at++] = 0; at += 3; }
    if (flags & 8)  { memcpy(to + at, "name", 5); at += 5; }
    if (flags & 16) { memcpy(to + at, "comment", 8); at += 8; }
    if (flags & 2)  { at += 2; }
    to[at++] = 1;
    to[at++] = (unsigned char)n; to[at++] = (unsigned char)(n >> 8); to[at++] = (unsigned char)~n; to[at++] = (unsigned char)(~n >> 8);
    memcpy(to + at, text, n);
    at += n;
    for (int i = 0; i < 4; i++) to[at++] = (unsigned char)(crc >> 8 * i);
    for (int i = 0; i < 4; i++) to[at++] = (unsigned char)(n >> 8 * i);
    return at;
}

TEST(gzip)
{
    unsigned char z[256];
    const char *text = "a,b\n1,x\n2,y\n";
    nn_context *nn = quiet(1);
    for (int flags = 0; flags < 32; flags++) {
        size_t n = gzip_stored(text, strlen(text), z, flags & 30);
        CHECK(nn_dataset_count(nn_csv_parse(nn, (char *)z, n, NULL)) == 2);
        for (size_t cut = 2; cut < n; cut++) {
            CHECK(!nn_csv_parse(nn, (char *)z, cut, NULL));
            CHECK_ERROR(nn, "is truncated");
        }
    }
    size_t n = gzip_stored(text, 8, z, 0), m = gzip_stored(text + 8, 4, z + n, 8);             /* two members are joined; zeros may follow */
    memset(z + n + m, 0, 5);
    CHECK(nn_dataset_count(nn_csv_parse(nn, (char *)z, n + m + 5, NULL)) == 2);
    z[n + m] = 1;
    CHECK(!nn_csv_parse(nn, (char *)z, n + m + 5, NULL));
    nn_clear(nn);
    n = gzip_stored(text, strlen(text), z, 0);
    z[n - 8] ^= 1;
    CHECK(!nn_csv_parse(nn, (char *)z, n, NULL));
    CHECK_ERROR(nn, "checksum");
    z[n - 8] ^= 1; z[n - 4] ^= 1;
    CHECK(!nn_csv_parse(nn, (char *)z, n, NULL));
    CHECK_ERROR(nn, "its size is wrong");
    nn_free(nn);
}

TEST(gzip_codes)                     /* fixed and dynamic codes, written by gzip itself */
{
    nn_context *nn = quiet(1);
    size_t n;
    char *z = slurp("tests/fuzz/corpus/csv/iris.csv.gz", &n);
    nn_csv_desc desc = { .no_header = 1, .skip_lines = 1 };
    if (!z) SKIP("run from the root of the repository");
    nn_dataset *d = nn_csv_load(nn, "tests/fuzz/corpus/csv/iris.csv.gz", &desc), *e = nn_csv_load(nn, "examples/data/iris.csv", &desc);
    CHECK(nn_dataset_count(d) == 150 && nn_dataset_count(e) == 150);
    for (int64_t i = 0; i < 150; i++) {
        float a[4], b[4];
        CHECK(nn_dataset_get(d, i, a, NULL, NULL) && nn_dataset_get(e, i, b, NULL, NULL) && !memcmp(a, b, sizeof a));
    }
    for (size_t i = 0; i < n; i += 3) {                  /* every kind of damage is an error or harmless, never a crash */
        z[i] ^= 0x15;
        nn_csv_parse(nn, z, n, &desc);
        z[i] ^= 0x15;
        nn_clear(nn);
        CHECK(!nn_csv_parse(nn, z, i, &desc));
        nn_clear(nn);
    }
    d = nn_csv_load(nn, "tests/fuzz/corpus/csv/fixed.csv.gz", NULL);
    CHECK(nn_dataset_count(d) == 3);
    d = nn_csv_load(nn, "tests/fuzz/corpus/csv/long_codes.csv.gz", NULL);                      /* codes of up to 15 bits: Fibonacci numbers of letters (zlib, Z_HUFFMAN_ONLY) */
    CHECK(nn_dataset_count(d) == 2583 && nn_dataset_classes(d) == 16);
    for (int64_t k = 0, i = 0, count = 1, next = 1, label = -1; k < 16; k++) {
        for (int64_t end = i + count; i < end; i++) CHECK(nn_dataset_get(d, i, NULL, NULL, &label) && label == k);
        CHECK(nn_dataset_class(d, k)[0] == 'a' + k);
        next += count;
        count = next - count;
    }
    nn_free(nn);
    free(z);
}

/* ---- CSV ------------------------------------------------------------------------------------------------------------ */
static nn_dataset *csv(nn_context *nn, const char *text, nn_csv_desc d) { return nn_csv_parse(nn, text, strlen(text), &d); }

TEST(csv_forms)
{
    nn_context *nn = quiet(1);
    float x[4], y;
    int64_t label;
    nn_dataset *d = csv(nn, "\xEF\xBB\xBF" "w,\"h, \"\"cm\"\"\",kind\r\n\r\n1,2,cat\r\n-3.5e1,\"4\",\"a \"\"dog\"\"\"\r\n.5, +6. ,\"cat\"\r\n", (nn_csv_desc){ 0 });
    CHECK(nn_dataset_count(d) == 3 && nn_dataset_classes(d) == 2 && nn_dataset_shape(d).d[0] == 2);
    CHECK_TEXT(nn_dataset_class(d, 0), "cat"); CHECK_TEXT(nn_dataset_class(d, 1), "a \"dog\"");
    CHECK(nn_dataset_get(d, 1, x, NULL, &label) && x[0] == -35 && x[1] == 4 && label == 1);
    CHECK(nn_dataset_get(d, 2, x, NULL, &label) && x[0] == 0.5f && x[1] == 6 && label == 0);
    d = csv(nn, "w,\"h, \"\"cm\"\"\",kind\n1,2,3\n", (nn_csv_desc){ .target = "h, \"cm\"" });
    CHECK(nn_dataset_get(d, 0, x, NULL, NULL) && x[0] == 1 && x[1] == 3);
    CHECK_TEXT(nn_dataset_class(d, 0), "2");
    d = csv(nn, "1;2;10\n4;5;-7\n7;8;10", (nn_csv_desc){ .no_header = 1, .separator = ';', .target_column = 3 });   /* numbers: sorted */
    CHECK(nn_dataset_classes(d) == 2 && !strcmp(nn_dataset_class(d, 0), "-7") && !strcmp(nn_dataset_class(d, 1), "10"));
    CHECK(nn_dataset_get(d, 2, x, NULL, &label) && label == 1 && x[1] == 8);
    d = csv(nn, "a b\n1\t2.25\n3\t4\n", (nn_csv_desc){ .skip_lines = 1, .no_header = 1, .separator = '\t', .regression = 1 });
    CHECK(nn_dataset_classes(d) == 0 && nn_dataset_get(d, 0, x, &y, NULL) && y == 2.25f && x[0] == 1);
    d = csv(nn, "a,b\n1,2\n3,4\n", (nn_csv_desc){ .target_column = -1 });
    CHECK(nn_dataset_shape(d).d[0] == 2 && nn_dataset_classes(d) == 0);
    d = csv(nn, "id,size,y\n7,big,0\n8,small,1\n9,big,0\n", (nn_csv_desc){ .ignore = (const char *const[]){ "id" }, .ignore_count = 1 });
    CHECK(nn_dataset_shape(d).d[0] == 1);
    CHECK(nn_dataset_get(d, 1, x, NULL, NULL) && x[0] == 1);
    CHECK(nn_dataset_get(d, 2, x, NULL, NULL) && x[0] == 0);
    d = csv(nn, "1,2,3\n", (nn_csv_desc){ .no_header = 1, .ignore = (const char *const[]){ "3", "1" }, .ignore_count = 2, .target_column = -1 });
    CHECK(nn_dataset_get(d, 0, x, NULL, NULL) && x[0] == 2 && nn_dataset_shape(d).d[0] == 1);
    d = csv(nn, "a,b,c\n1,?,0\n3,4,0\nNaN,8,0\n,,1\n", (nn_csv_desc){ .missing_as_mean = 1 });
    CHECK(nn_dataset_get(d, 0, x, NULL, NULL) && x[1] == 6);
    CHECK(nn_dataset_get(d, 2, x, NULL, NULL) && x[0] == 2);
    CHECK(nn_dataset_get(d, 3, x, NULL, NULL) && x[0] == 2 && x[1] == 6);
    d = csv(nn, "\n\n a , b \r 1 , two words \r\r2,\"line\nbreak\"\r", (nn_csv_desc){ 0 });
    CHECK(nn_dataset_count(d) == 2);
    CHECK(d && !strcmp(nn_dataset_class(d, 0), "two words") && !strcmp(nn_dataset_class(d, 1), "line\nbreak"));
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(csv_errors)
{
    static const struct { const char *text, *words; nn_csv_desc d; } bad[] = {
        { "\n\n", "has no rows", { 0 } }, { "a,b\n", "a header but no data", { 0 } }, { "a\n1\n", "no column besides", { 0 } },
        { "a,b\n1,2\n\n1,2,3\n", "line 4: 3 fields, but the first row has 2", { 0 } }, { "a,b\n1\n", "line 2: 1 fields", { 0 } },
        { "a,b\n\"x\ny\",2\n3\n", "line 4: 1 fields", { 0 } },
        { "a,b\n1,2\n,2\n", "line 3, column 1 (a): the value is missing", { 0 } }, { "a,b\n1,2\n1,NA\n", "line 3, column 2 (b): the value is missing", { .missing_as_mean = 1 } },
        { "a,b\n,1\n?,2\n", "line 2, column 1 (a): all values are missing", { .missing_as_mean = 1 } },
        { "a,b\n1,2\nx,2\n", "line 3, column 1 (a): numbers and words", { 0 } }, { "a,b\n1,2\n1,x\n", "line 3, column 2 (b): the target is not a number", { .regression = 1 } },
        { "a,b\n1,2.5\n", "set .regression = 1", { 0 } }, { "a,b\n1e39,2\n", "line 2, column 1 (a): the number is too large", { 0 } },
        { "a,b\n1,\"2\n3,4\n", "line 2: the quote is never closed", { 0 } }, { "a,b\n1,\"2\"x\n", "line 2: text after a closing quote", { 0 } },
        { "a,b\n1,2\n", "no column \"c\"", { .target = "c" } }, { "a,b\n1,2\n", "the target is number 3", { .target_column = 3 } },
        { "a,b\n1,2\n", "separator", { .separator = '"' } } };
    nn_context *nn = quiet(1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(!csv(nn, bad[i].text, bad[i].d));
        CHECK_ERROR(nn, bad[i].words);
    }
    CHECK(!nn_csv_parse(nn, "a,b\n1,\0\n", 8, NULL));
    CHECK_ERROR(nn, "zero bytes");
    CHECK(!nn_csv_parse(nn, "", 0, NULL));
    CHECK_ERROR(nn, "empty");
    CHECK(!csv(nn, "a,b\n1,2\n", (nn_csv_desc){ .target = "a", .ignore = (const char *const[]){ "a" }, .ignore_count = 1 }));
    CHECK_ERROR(nn, "ignored");
    nn_free(nn);
}

TEST(csv_numbers)
{
    static const char *const text[] = { "0", "-0", "1", "0.1", "3.14159265358979", "1e10", "1E-10", "123456789012345678901234567890", "0.00000000000000000000000000000000000012345",
        "16777217", "3.4028234e38", "1.17549435e-38", "1e-400", "0e999999999", "-2.5e+3", "00012", "9007199254740993" };
    static const char *const not[] = { "", "-", ".", "e5", "1e", "1e+", "1x", "0x10", "1.2.3", "--1", "1 2", "inf" };
    double v;
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        CHECK(nn__parse_number(text[i], strlen(text[i]), &v));
        CHECK((float)v == (float)strtod(text[i], NULL));
    }
    for (size_t i = 0; i < sizeof not / sizeof *not; i++) CHECK(!nn__parse_number(not[i], strlen(not[i]), &v));
}

TEST(csv_files)
{
    nn_context *nn = quiet(1);
    nn_csv_desc desc = { .skip_lines = 1, .no_header = 1 };
    nn_dataset *iris = nn_csv_load(nn, "examples/data/iris.csv", &desc), *wine;
    float x[13];
    int64_t label;
    if (!iris) SKIP("run from the root of the repository");
    wine = nn_csv_load(nn, "examples/data/wine_data.csv", &desc);
    CHECK(nn_dataset_count(iris) == 150 && nn_dataset_classes(iris) == 3 && nn_dataset_shape(iris).d[0] == 4);
    CHECK(nn_dataset_get(iris, 149, x, NULL, &label) && x[0] == 5.9f && x[3] == 1.8f && label == 2);
    CHECK(nn_dataset_count(wine) == 178 && nn_dataset_classes(wine) == 3 && nn_dataset_shape(wine).d[0] == 13);
    CHECK(nn_dataset_get(wine, 0, x, NULL, &label) && x[0] == 14.23f && x[12] == 1065 && label == 0);
    CHECK(!nn_csv_load(nn, "examples/data/wine_data.csv", NULL));
    CHECK_ERROR(nn, "line 2: 14 fields, but the first row has 5");
    nn_free(nn);
}

TEST(csv_many_words)                 /* the table of words grows */
{
    nn_context *nn = quiet(1);
    char *text = malloc(400000);
    size_t n = 0;
    float x;
    int64_t label;
    for (int i = 0; i < 10000; i++) n += (size_t)sprintf(text + n, "w%d,c%d\n", i % 7777, i % 9999);
    nn_dataset *d = nn_csv_parse(nn, text, n, &(nn_csv_desc){ .no_header = 1 });
    CHECK(nn_dataset_classes(d) == 9999);
    CHECK(nn_dataset_get(d, 9999, &x, NULL, &label) && label == 0 && x == 2222);
    CHECK(nn_dataset_get(d, 9998, &x, NULL, &label) && label == 9998);
    free(text);
    nn_free(nn);
}

/* ---- folders -------------------------------------------------------------------------------------------------------- */
static unsigned char *fake_load(const char *path, int *w, int *h, int *n, int want)  /* "W H V": a picture whose left half is 0, right half V */
{
    FILE *f = fopen(path, "r");
    int v = 0, ok = f && fscanf(f, "%d %d %d", w, h, &v) == 3;
    unsigned char *p;
    if (f) fclose(f);
    if (!ok) return NULL;
    *n = want;
    p = malloc((size_t)(*w * *h * want));
    for (int i = 0; i < *w * *h; i++) for (int c = 0; c < want; c++) p[i * want + c] = (unsigned char)(i % *w < *w / 2 ? 0 : v);
    return p;
}
static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (f) { fputs(text, f); fclose(f); }
}

TEST(folder)
{
    char cmd[64] = "/tmp/nn_folder_XXXXXX", path[128];
    nn_context *nn = quiet(1);
    nn_folder_desc desc = { .load = fake_load, .free = free };
    float x[3 * 4 * 4];
    int64_t label;
    nn_batch b;
    if (!mkdtemp(cmd)) SKIP("no temporary folder");
    CHECK(!nn_folder_load(nn, cmd, &desc));
    CHECK_ERROR(nn, "has no folders");
    CHECK(!nn_folder_load(nn, cmd, &(nn_folder_desc){ .load = fake_load, .free = free, .channels = 2 }));
    CHECK_ERROR(nn, "2 channels, 0 x 0 pixels; channels must be 1 or 3");
    snprintf(path, sizeof path, "%s/dog", cmd); mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/cat", cmd); mkdir(path, 0700);
    CHECK(!nn_folder_load(nn, cmd, &desc));
    CHECK_ERROR(nn, "are empty");
    snprintf(path, sizeof path, "%s/dog/b.png", cmd); put(path, "4 4 255");
    snprintf(path, sizeof path, "%s/dog/a.png", cmd); put(path, "2 2 51");
    snprintf(path, sizeof path, "%s/cat/z.png", cmd); put(path, "4 4 255");
    snprintf(path, sizeof path, "%s/cat/.hidden", cmd); put(path, "no");
    nn_dataset *d = nn_folder_load(nn, cmd, &desc);
    CHECK(nn_dataset_count(d) == 3 && nn_dataset_classes(d) == 2 && nn_dataset_shape(d).d[0] == 3 && nn_dataset_shape(d).d[1] == 4);
    CHECK(d && !strcmp(nn_dataset_class(d, 0), "cat") && !strcmp(nn_dataset_class(d, 1), "dog"));
    CHECK(nn_dataset_get(d, 1, x, NULL, &label) && label == 1);     /* 2 x 2 to 4 x 4: 0, a quarter, three quarters, 1 */
    CHECK(x[0] == 0); CHECK_NEAR(x[1], 0.05, 1e-7); CHECK_NEAR(x[2], 0.15, 1e-7); CHECK_NEAR(x[47], 0.2, 1e-7);
    desc.channels = 1; desc.height = 2; desc.width = 2;
    nn_dataset *g = nn_folder_load(nn, cmd, &desc);
    CHECK(nn_dataset_get(g, 0, x, NULL, &label) && label == 0 && x[0] == 0 && x[1] == 1);
    snprintf(path, sizeof path, "%s/dog/b.png", cmd); put(path, "broken");
    nn_loader *l = nn_loader_new(g, &(nn_loader_desc){ .batch = 1 });
    CHECK(nn_loader_next(l, &b) && nn_loader_next(l, &b) && !nn_loader_next(l, &b));
    CHECK_ERROR(nn, "dog/b.png cannot be read");
    nn_free(nn);
    for (const char *const *p = (const char *const[]){ "dog/a.png", "dog/b.png", "cat/z.png", "cat/.hidden", NULL }; *p; p++) { snprintf(path, sizeof path, "%s/%s", cmd, *p); remove(path); }
    snprintf(path, sizeof path, "%s/dog", cmd); rmdir(path);
    snprintf(path, sizeof path, "%s/cat", cmd); rmdir(path);
    rmdir(cmd);
}

/* ---- subsets and splits ----------------------------------------------------------------------------------------------- */
TEST(subsets)
{
    nn_context *nn = quiet(1);
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 10, .x_shape = NN_SHAPE(2), .classes = 4, .get = count_get });
    nn_dataset *s = nn_subset_new(d, (int64_t[]){ 7, 3, 3 }, 3), *t = nn_subset_new(s, (int64_t[]){ 2, 0 }, 2);
    float x[2];
    CHECK(nn_dataset_count(s) == 3 && nn_dataset_get(s, 0, x, NULL, NULL) && x[0] == 7);
    CHECK(nn_dataset_count(t) == 2 && nn_dataset_get(t, 1, x, NULL, NULL) && x[0] == 7);
    CHECK(nn_dataset_get(t, 0, x, NULL, NULL) && x[0] == 3);
    CHECK(!nn_subset_new(d, (int64_t[]){ 10 }, 1));
    CHECK_ERROR(nn, "index 10");
    CHECK(nn_dataset_count(nn_subset_new(d, NULL, 0)) == 0);
    nn_free(nn);
}

TEST(split)
{
    enum { N = 1003 };
    static float x[N];
    static int64_t labels[N];
    static char seen[N];
    nn_context *nn = quiet(5), *other = quiet(6);
    int64_t want[3] = { 0 }, got[3] = { 0 }, label;
    float v, first = -1;
    int same = 1;
    nn_dataset *a, *b, *c, *e;
    for (int i = 0; i < N; i++) { x[i] = (float)i; labels[i] = i < 3 ? 2 : i % 2; want[labels[i]]++; }
    nn_dataset_desc desc = { .count = N, .x_shape = NN_SHAPE(1), .x = x, .labels = labels };
    nn_split_data(nn_dataset_new(nn, &desc), 0.8, &a, &b);
    nn_split_data(nn_dataset_new(other, &desc), 0.8, &c, &e);
    CHECK(nn_dataset_count(a) == 802 && nn_dataset_count(b) == 201 && nn_dataset_classes(b) == 3);   /* round(802.4) */
    for (int64_t i = 0; i < 802; i++) {
        CHECK(nn_dataset_get(a, i, &v, NULL, &label));
        seen[(int)v]++;
        got[label]++;
        if (i == 0) first = v;
        nn_dataset_get(c, i, &v, NULL, NULL);
        same &= v == x[0] + (float)i || v == first;
    }
    for (int k = 0; k < 3; k++) CHECK(fabs((double)got[k] - 0.8 * (double)want[k]) < 1.0);
    for (int64_t i = 0; i < 201; i++) { CHECK(nn_dataset_get(b, i, &v, NULL, &label)); seen[(int)v]++; }
    for (int i = 0; i < N; i++) CHECK(seen[i] == 1);
    CHECK(!same);
    nn_split_data(a, 0.5, &c, NULL);
    CHECK(nn_dataset_count(c) == 401);
    nn_split_data(a, 1.0, &c, &e);
    CHECK(nn_dataset_count(c) == 802 && nn_dataset_count(e) == 0);
    nn_split_data(a, 1.5, &c, &e);
    CHECK(!c && !e);
    CHECK_ERROR(nn, "not in 0..1");
    nn_free(nn);
    nn_free(other);
}

/* ---- scaler --------------------------------------------------------------------------------------------------------------- */
TEST(scaler)
{
    static const float x[] = { 1, 5, 1e6f, 2, 5, 1e6f + 1, 6, 5, 1e6f + 2 };
    nn_context *nn = quiet(1);
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 3, .x_shape = NN_SHAPE(3), .x = x });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_fn_new(net, nn_neg);
    nn_scaler *s = nn_scaler_new(net, d);
    char name[32];
    float y[9], mean[3], std[3];
    nn_read(nn_param(net, "scaler.mean"), mean);
    nn_read(nn_param(net, "scaler.std"), std);
    CHECK(mean[0] == 3 && mean[1] == 5 && mean[2] == 1e6f + 1);
    CHECK_NEAR(std[0], sqrt(14.0 / 3), 1e-6); CHECK(std[1] == 1); CHECK_NEAR(std[2], sqrt(2.0 / 3), 1e-6);
    nn_name(nn_param(net, "scaler.std"), NULL, name, sizeof name);
    CHECK_TEXT(name, "scaler.std");
    CHECK(nn_child(net, "0") && nn_params(net, NULL, 0) == 0 && nn_buffers(net, NULL, 0) == 2);
    nn_begin(nn, NN_EVAL);
    nn_tensor *in = nn_from(nn, NN_SHAPE(3, 3), x);
    nn_read(nn_forward(net, in), y);                     /* scaled first, then negated */
    CHECK_NEAR(y[0], 2 / sqrt(14.0 / 3), 1e-6); CHECK(y[1] == 0); CHECK_NEAR(y[8], -1 / sqrt(2.0 / 3), 1e-6);
    nn_read(nn_scale(s, in), y);
    CHECK_NEAR(y[0], -2 / sqrt(14.0 / 3), 1e-6);
    nn_scale(s, nn_zeros(nn, NN_SHAPE(3, 2)));
    CHECK_ERROR(nn, "nn_scale: (3, 2) does not hold");
    CHECK(!nn_scaler_new(net, d));
    CHECK_ERROR(nn, "used twice");
    CHECK(!nn_scaler_new(nn_model_new(nn, NULL), NULL));
    CHECK_ERROR(nn, "NULL");
    nn_free(nn);
}

TEST(scaler_of_sequences)            /* (T, F): one mean and deviation for each feature */
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL), *other = nn_model_new(nn, NULL);
    float x[4 * 5 * 2], y[4 * 5 * 2];
    for (int i = 0; i < 40; i++) x[i] = i % 2 ? 100 + (float)(i * 7 % 13) : 0.01f * (float)(i * 5 % 11);
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 4, .x_shape = NN_SHAPE(5, 2), .x = x, .y = x, .y_shape = NN_SHAPE(5, 2) });
    nn_scaler *s = nn_sequence_scaler_new(net, d), *blank = nn_sequence_scaler_unfitted_new(other, NN_SHAPE(5, 2));
    CHECK(s && blank && nn_count(nn_param(net, "scaler.mean")) == 2 && nn_count(nn_param(other, "scaler.std")) == 2);
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(4, 5, 2), x)), y));
    for (int f = 0; f < 2; f++) {
        double sum = 0, square = 0;
        for (int i = f; i < 40; i += 2) { sum += (double)y[i]; square += (double)y[i] * (double)y[i]; }
        CHECK_NEAR(sum / 20, 0, 1e-5);
        CHECK_NEAR(square / 20, 1, 1e-4);
    }
    CHECK(nn_read(nn_forward(net, nn_from(nn, NN_SHAPE(2, 10, 2), x)), y));        /* any number of steps */
    CHECK(nn_read(nn_forward(other, nn_from(nn, NN_SHAPE(4, 5, 2), x)), y) && !memcmp(x, y, sizeof x) && nn_ok(nn));
    nn_forward(net, nn_zeros(nn, NN_SHAPE(4, 5, 3)));
    CHECK(!nn_ok(nn));
    nn_free(nn);
}
TEST(scaler_pictures)
{
    nn_context *nn = nn_new(&(nn_desc){ .dtype = NN_F64, .on_error = test_quiet });
    float x[2 * 2 * 6];
    for (int i = 0; i < 24; i++) x[i] = (float)(i % 7) - (i % 12 >= 6 ? 100.0f : 0.0f);
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 2, .x_shape = NN_SHAPE(2, 2, 3), .x = x });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_scaler *s = nn_scaler_new(net, d);
    double y[24], sum[2] = { 0 }, square[2] = { 0 };
    nn_begin(nn, NN_EVAL);
    nn_read_as(nn_scale(s, nn_from(nn, NN_SHAPE(2, 2, 2, 3), x)), NN_F64, y);
    for (int i = 0; i < 24; i++) { sum[i / 6 % 2] += y[i]; square[i / 6 % 2] += y[i] * y[i]; }
    for (int c = 0; c < 2; c++) { CHECK_NEAR(sum[c], 0, 1e-12); CHECK_NEAR(square[c], 12, 1e-10); }
    x[3] = NAN;
    CHECK(!nn_scaler_new(nn_model_new(nn, NULL), d));
    CHECK_ERROR(nn, "feature 0 has a value that is not finite");
    nn_layer *plain = nn_model_new(nn, NULL);
    s = nn_scaler_unfitted_new(plain, NN_SHAPE(2, 2, 3));
    nn_begin(nn, NN_EVAL);
    nn_read_as(nn_scale(s, nn_from(nn, NN_SHAPE(1, 2, 2, 3), x + 12)), NN_F64, y);
    for (int i = 0; i < 12; i++) CHECK(y[i] == (double)x[12 + i]);
    nn_free(nn);
}

/* ---- loaders ----------------------------------------------------------------------------------------------------------------- */
typedef struct made { float x[4096], y[2048]; int64_t labels[2048], counts[64]; int64_t n, batches; } made;

static void take(nn_loader *l, made *m, int64_t max)     /* deliveries, one behind the other; epochs run on */
{
    nn_batch b;
    int64_t nx = 0, ny = 0, ends = 0;
    memset(m, 0, sizeof *m);
    while (m->batches < max && ends < 2) {
        if (!nn_loader_next(l, &b)) { ends++; continue; }
        ends = 0;
        if (nx + nn_count(b.x) > 4096) break;
        nn_read(b.x, m->x + nx);
        nx += nn_count(b.x);
        if (b.y && b.y->dtype == NN_I64) nn_read_as(b.y, NN_I64, m->labels + m->n);
        else if (b.y) { nn_read(b.y, m->y + ny); ny += nn_count(b.y); }
        CHECK(nn_dim(b.x, 0) == b.count && (!b.y || nn_dim(b.y, 0) == b.count));
        m->counts[m->batches++] = b.count;
        m->n += b.count;
    }
}

TEST(loader_order)
{
    static made a, b, c;
    for (int way = 0; way < 3; way++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = way == 1 ? 1 : 2 });
        nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 10, .x_shape = NN_SHAPE(2), .classes = 4, .get = count_get });
        nn_loader_desc desc = { .batch = 4, .no_prefetch = way == 2 };
        nn_batch batch;
        nn_loader *l = nn_loader_new(d, &desc);
        CHECK(nn_loader_batches(l) == 3);
        take(l, &a, 3);
        CHECK(a.n == 10 && a.counts[2] == 2);
        for (int i = 0; i < 10; i++) CHECK(a.x[2 * i] == (float)i && a.x[2 * i + 1] == (float)(2 * i) && a.labels[i] == i % 4);
        CHECK(!nn_loader_next(l, &batch) && !batch.x);
        CHECK(nn_loader_next(l, &batch) && batch.index == 0 && batch.count == 4);
        desc.drop_last = 1;
        CHECK(nn_loader_batches(nn_loader_new(d, &desc)) == 2);
        desc.drop_last = 0; desc.shuffle = 1;
        l = nn_loader_new(d, &desc);
        take(l, &b, 6);
        if (way == 0) c = b;
        CHECK(!memcmp(b.x, c.x, sizeof b.x) && !memcmp(b.labels, c.labels, sizeof b.labels));  /* threads do not matter */
        for (int e = 0; e < 2; e++) {
            int seen[10] = { 0 };
            for (int i = 0; i < 10; i++) { seen[(int)b.x[20 * e + 2 * i]]++; CHECK(b.labels[10 * e + i] == (int)b.x[20 * e + 2 * i] % 4); }
            for (int i = 0; i < 10; i++) CHECK(seen[i] == 1);
        }
        CHECK(memcmp(b.x, b.x + 20, 20 * sizeof *b.x));
        desc.batch = 100;
        l = nn_loader_new(d, &desc);
        CHECK(nn_loader_batches(l) == 1 && nn_loader_next(l, &batch) && batch.count == 10);
        l = nn_loader_new(nn_subset_new(d, NULL, 0), NULL);
        CHECK(nn_loader_batches(l) == 0 && !nn_loader_next(l, &batch) && !nn_loader_next(l, &batch));
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

TEST(loader_resume)                  /* three numbers are the whole state */
{
    static made all, rest;
    for (int prefetch = 0; prefetch < 2; prefetch++)
        for (int stop = 0; stop < 8; stop++) {
            nn_augment_desc augment = { .noise = 0.5f, .mixup = 0.4f };
            nn_loader_desc desc = { .batch = 4, .shuffle = 1, .no_prefetch = !prefetch, .augment = &augment };
            nn_dataset_desc data = { .count = 10, .x_shape = NN_SHAPE(2), .classes = 4, .get = count_get };
            nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 2 }), *other = nn_new(&(nn_desc){ .seed = 99, .threads = 2 });
            nn_loader *l = nn_loader_new(nn_dataset_new(nn, &data), &desc), *k = nn_loader_new(nn_dataset_new(other, &data), &desc);
            nn_batch b;
            take(l, &rest, stop);
            k->epoch = l->epoch; k->position = l->position; k->seed = l->seed;
            take(l, &all, 7);
            take(k, &rest, 7);
            CHECK(all.n == rest.n && !memcmp(&all, &rest, sizeof all));
            nn_loader_rewind(k);                         /* the next epoch; and again: nothing was delivered of it */
            nn_loader_rewind(k);
            l->epoch = k->epoch; l->position = 0;
            CHECK(nn_loader_next(k, &b) && b.index == 0);
            take(l, &all, 1);
            nn_read(b.x, rest.x);
            CHECK(!memcmp(all.x, rest.x, 8 * sizeof(float)));
            nn_free(nn);
            nn_free(other);
        }
}

TEST(loader_errors)
{
    for (int prefetch = 0; prefetch < 2; prefetch++) {
        nn_context *nn = quiet(1);
        int64_t fail = 5;
        nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 10, .x_shape = NN_SHAPE(2), .classes = 4, .get = count_get, .self = &fail });
        nn_loader *l = nn_loader_new(d, &(nn_loader_desc){ .batch = 2, .no_prefetch = !prefetch });
        nn_batch b;
        CHECK(nn_loader_next(l, &b) && nn_loader_next(l, &b) && nn_ok(nn));
        CHECK(!nn_loader_next(l, &b) && !b.x);
        CHECK(!nn_loader_next(l, &b));
        CHECK_ERROR(nn, "sample 5");
        CHECK(nn_loader_next(l, &b) && b.index == 3);
        CHECK(!nn_loader_new(d, &(nn_loader_desc){ .batch = -1 }));
        nn_clear(nn);
        CHECK(!nn_loader_new(d, &(nn_loader_desc){ .augment = &(nn_augment_desc){ .flip = 0.5f } }));
        CHECK_ERROR(nn, "only pictures");
        CHECK(!nn_loader_new(d, &(nn_loader_desc){ .balance = 1 }));
        CHECK_ERROR(nn, "sample 5");
        CHECK(!nn_loader_new(d, &(nn_loader_desc){ .batch = 1LL << 60, .weights = (float[10]){ 0 } }));
        CHECK_ERROR(nn, "all weights are zero");
        nn_free(nn);                 /* with a thread in the middle of its work */
    }
}

TEST(loader_weights)
{
    enum { N = 100 };
    static made m;
    static float x[N], weights[N];
    static int64_t labels[N];
    int64_t hits[2] = { 0 };
    nn_context *nn = quiet(1);
    nn_batch b;
    for (int i = 0; i < N; i++) { x[i] = (float)i; labels[i] = i < 5; weights[i] = i == 17 ? 3.0f : i == 60 ? 1.0f : 0.0f; }
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = N, .x_shape = NN_SHAPE(1), .x = x, .labels = labels });
    nn_loader *l = nn_loader_new(d, &(nn_loader_desc){ .batch = 20, .weights = weights });
    take(l, &m, 50);
    for (int64_t i = 0; i < m.n; i++) { CHECK(m.x[i] == 17 || m.x[i] == 60); hits[m.x[i] == 17]++; }
    CHECK_NEAR((double)hits[1] / (double)m.n, 0.75, 0.05);
    l = nn_loader_new(d, &(nn_loader_desc){ .batch = 20, .balance = 1 });
    hits[0] = hits[1] = 0;
    take(l, &m, 50);
    for (int64_t i = 0; i < m.n; i++) hits[m.labels[i]]++;
    CHECK(m.n == 1000);
    CHECK_NEAR((double)hits[1] / (double)m.n, 0.5, 0.06);
    nn_dataset *none = nn_dataset_new(nn, &(nn_dataset_desc){ .count = N, .x_shape = NN_SHAPE(1), .x = x });
    CHECK(!nn_loader_new(none, &(nn_loader_desc){ .balance = 1 }));
    CHECK_ERROR(nn, "no classes");
    weights[3] = -1;
    CHECK(!nn_loader_new(d, &(nn_loader_desc){ .weights = weights }));
    CHECK_ERROR(nn, "weight 3 is -1");
    l = nn_loader_new(none, NULL);
    CHECK(nn_loader_next(l, &b) && b.x && !b.y);
    nn_free(nn);
}

/* ---- augmentation ---------------------------------------------------------------------------------------------------------------- */
static nn_dataset *pictures(nn_context *nn, float *x, int64_t n)     /* n pictures of 2 x 6 x 5 */
{
    for (int64_t i = 0; i < n * 60; i++) x[i] = (float)(i % 101) + 1;
    return nn_dataset_new(nn, &(nn_dataset_desc){ .count = n, .x_shape = NN_SHAPE(2, 6, 5), .x = x });
}
static void augmented(nn_context *nn, nn_dataset *d, nn_augment_desc a, made *m)
{
    take(nn_loader_new(d, &(nn_loader_desc){ .batch = 8, .augment = &a }), m, 2);
    CHECK(nn_ok(nn));
}

TEST(augment_exact)
{
    static made m;
    static float x[16 * 60];
    nn_context *nn = quiet(1);
    nn_dataset *d = pictures(nn, x, 16);
    float mean[2] = { 10, 20 }, std[2] = { 2, 4 };
    augmented(nn, d, (nn_augment_desc){ .flip = 1 }, &m);
    for (int i = 0; i < 960; i++) CHECK(m.x[i] == x[i / 5 * 5 + 4 - i % 5]);
    augmented(nn, d, (nn_augment_desc){ .mean = mean, .std = std }, &m);
    for (int i = 0; i < 960; i++) CHECK(m.x[i] == (x[i] - mean[i / 30 % 2]) / std[i / 30 % 2]);
    augmented(nn, d, (nn_augment_desc){ .crop_padding = 2 }, &m);
    int moved = 0;
    for (int i = 0; i < 16; i++) {   /* each picture is one shift of the original */
        int found = 0;
        for (int dy = -2; dy <= 2; dy++)
            for (int dx = -2; dx <= 2; dx++) {
                int ok = 1;
                for (int k = 0; k < 60; k++) {
                    int r = k / 5 % 6 + dy, c = k % 5 + dx;
                    float want = r >= 0 && r < 6 && c >= 0 && c < 5 ? x[i * 60 + k / 30 * 30 + r * 5 + c] : 0.0f;
                    ok &= m.x[i * 60 + k] == want;
                }
                found += ok;
                moved += ok && (dy || dx);
            }
        CHECK(found == 1);
    }
    CHECK(moved > 8);
    augmented(nn, d, (nn_augment_desc){ .cutout = 2 }, &m);
    for (int i = 0; i < 16; i++) {
        int zeros = 0;
        for (int k = 0; k < 60; k++) { zeros += m.x[i * 60 + k] == 0; CHECK(m.x[i * 60 + k] == 0 || m.x[i * 60 + k] == x[i * 60 + k]); }
        CHECK(zeros == 2 * 4 || zeros == 2 * 2 || zeros == 2 * 1);  /* whole, at an edge, in a corner; in both channels */
    }
    augmented(nn, d, (nn_augment_desc){ .rotate = 1e-6f }, &m);
    for (int i = 0; i < 960; i++) CHECK_NEAR(m.x[i], x[i], 0.02);
    nn_free(nn);
}

TEST(augment_warp)                   /* a quarter turn, a shift and a size that can be computed by hand */
{
    float x[25], y[25];
    double quarter[4] = { 0, 1, -1, 0 }, half[4] = { 0.5, 0, 0, 0.5 }, same[4] = { 1, 0, 0, 1 };
    for (int i = 0; i < 25; i++) x[i] = (float)i;
    nn__warp_picture(x, y, 1, 5, 5, quarter, 0, 0);
    for (int r = 0; r < 5; r++) for (int c = 0; c < 5; c++) CHECK_NEAR(y[r * 5 + c], x[(4 - c) * 5 + r], 1e-5);
    nn__warp_picture(x, y, 1, 5, 5, same, 1, 0.5);
    CHECK(y[0] == 0 && y[5 + 1] == 0.5f && y[10 + 2] == 6.5f);
    nn__warp_picture(x, y, 1, 5, 5, half, 0, 0);
    CHECK(y[0] == 6 && y[12] == 12 && y[1] == 6.5f && y[24] == 18);
}

TEST(augment_functions)
{
    double s, c;
    for (int i = 0; i < 1000; i++) {
        double u = (i + 0.5) / 1000, t = (i - 500) / 130.0;
        CHECK_NEAR(nn__host_log(u), log(u), 1e-14 * (1 + fabs(log(u))));
        CHECK_NEAR(nn__host_exp(t), exp(t), 2e-15 * exp(t));
        nn__host_sincos(t, &s, &c);
        CHECK_NEAR(s, sin(6.283185307179586477 * t), 1e-13); CHECK_NEAR(c, cos(6.283185307179586477 * t), 1e-13);
    }
    static const double alphas[] = { 0.2, 1.0, 4.0 };
    for (int k = 0; k < 3; k++) {    /* beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)) */
        double sum = 0, square = 0, n = 4000;
        for (int i = 0; i < (int)n; i++) {
            nn__stream r = { 1, (uint64_t)i, 7 };
            double v = nn__draw_beta(&r, alphas[k]);
            CHECK(v >= 0 && v <= 1);
            sum += v; square += (v - 0.5) * (v - 0.5);
        }
        CHECK_NEAR(sum / n, 0.5, 0.03);
        CHECK_NEAR(square / n, 1 / (4 * (2 * alphas[k] + 1)), 0.01);
    }
}

TEST(augment_noise_mixup)
{
    static made m;
    static float x[2048];
    static int64_t labels[512];
    nn_context *nn = quiet(1);
    double sum = 0, square = 0, partly = 0;
    for (int i = 0; i < 512; i++) { labels[i] = i % 3; for (int k = 0; k < 4; k++) x[4 * i + k] = 0; }
    nn_dataset *d = nn_dataset_new(nn, &(nn_dataset_desc){ .count = 512, .x_shape = NN_SHAPE(4), .x = x, .labels = labels });
    take(nn_loader_new(d, &(nn_loader_desc){ .batch = 64, .augment = &(nn_augment_desc){ .noise = 2 } }), &m, 8);
    for (int i = 0; i < 2048; i++) { sum += m.x[i]; square += m.x[i] * m.x[i]; }
    CHECK_NEAR(sum / 2048, 0, 0.15); CHECK_NEAR(square / 2048, 4, 0.4);
    for (int i = 0; i < 512; i++) for (int k = 0; k < 4; k++) x[4 * i + k] = (float)labels[i];
    take(nn_loader_new(d, &(nn_loader_desc){ .batch = 63, .augment = &(nn_augment_desc){ .mixup = 1 } }), &m, 8);
    for (int i = 0; i < 504; i++) {  /* x is the label here: its mixture is the mean of the mixed label */
        CHECK_NEAR(m.y[3 * i] + m.y[3 * i + 1] + m.y[3 * i + 2], 1, 1e-6);
        CHECK_NEAR(m.x[4 * i], m.y[3 * i + 1] + 2 * m.y[3 * i + 2], 1e-6);
        partly += m.y[3 * i] > 0.01f && m.y[3 * i] < 0.99f;
    }
    CHECK(partly > 50);
    nn_free(nn);
}

TEST(augment_threads)                /* bit for bit, with and without a thread */
{
    static made a, b;
    static float x[16 * 60];
    nn_augment_desc all = { .crop_padding = 1, .flip = 0.5f, .rotate = 15, .scale = 0.1f, .shear = 5, .translate = 0.1f, .cutout = 2, .noise = 0.1f, .mixup = 0.2f };
    nn_context *nn = quiet(8), *other = quiet(8);
    take(nn_loader_new(pictures(nn, x, 16), &(nn_loader_desc){ .batch = 5, .shuffle = 1, .augment = &all }), &a, 12);
    take(nn_loader_new(pictures(other, x, 16), &(nn_loader_desc){ .batch = 5, .shuffle = 1, .augment = &all, .no_prefetch = 1 }), &b, 12);
    CHECK(!memcmp(&a, &b, sizeof a) && a.batches == 12);
    CHECK(memcmp(a.x, a.x + 960, 960 * sizeof *a.x));
    nn_free(nn);
    nn_free(other);
}

/* ---- memory, devices --------------------------------------------------------------------------------------------------------------- */
TEST(loader_memory)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 2 });
    static float x[16 * 60];
    nn_augment_desc all = { .crop_padding = 1, .flip = 0.5f, .rotate = 15, .noise = 0.1f, .mixup = 0.2f };
    nn_loader *l = nn_loader_new(pictures(nn, x, 16), &(nn_loader_desc){ .batch = 5, .shuffle = 1, .augment = &all });
    nn_batch b;
    int64_t before = 0;
    for (int i = 0; i < 60; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_loader_next(l, &b);
        if (i == 8) before = nn->allocations;
    }
    CHECK(nn->allocations == before);
    nn_free(nn);
    static char buffer[400000], big[390000];   /* a caller's buffer: no heap at all, and enough after measuring */
    nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = sizeof buffer, .on_error = test_quiet });
    nn_dataset *d = nn_csv_load(nn, "examples/data/iris.csv", &(nn_csv_desc){ .skip_lines = 1, .no_header = 1 }), *train, *test;
    if (d) {
        nn_split_data(d, 0.8, &train, &test);
        nn_scaler_new(nn_model_new(nn, NULL), train);
        l = nn_loader_new(train, &(nn_loader_desc){ .shuffle = 1, .balance = 1 });
        CHECK(nn_loader_next(l, &b));
        CHECK(nn_ok(nn)); CHECK(nn->allocations == 0); CHECK(nn->hi == nn->buffer_bytes);
        memset(big, '1', sizeof big);
        CHECK(!nn_csv_parse(nn, big, sizeof big, NULL));
        CHECK_ERROR(nn, "out of memory");
    }
    nn_free(nn);
}

TEST(loader_device)
{
    static made a, b;
    static float x[16 * 60];
    nn_augment_desc aug = { .flip = 0.5f };
    static fake_device dev;
    fake_open(&dev);
    nn_context *nn = nn_new(&(nn_desc){ .backend = &dev.backend, .seed = 8 }), *other = quiet(8);
    nn_dataset *d = pictures(nn, x, 16);
    take(nn_loader_new(d, &(nn_loader_desc){ .batch = 5, .shuffle = 1, .augment = &aug }), &a, 4);
    take(nn_loader_new(pictures(other, x, 16), &(nn_loader_desc){ .batch = 5, .shuffle = 1, .augment = &aug }), &b, 4);
    CHECK(!memcmp(&a, &b, sizeof a));
    nn_scaler *s = nn_scaler_new(nn_model_new(nn, NULL), d);
    nn_begin(nn, NN_EVAL);
    nn_read(nn_scale(s, nn_from(nn, NN_SHAPE(1, 2, 6, 5), x)), a.x);
    CHECK(nn_ok(nn) && a.x[0] < 0);
    nn_free(nn);
    nn_free(other);
    fake_close(&dev);
}

TEST(out_of_memory)                  /* every allocation fails once: an error, no crash, nothing lost */
{
    const char *text = "a,b,c\n1,x,0\n2,y,1\n3,x,0\n4,z,1\n5,x,0\n";
    static char buffer[60000];
    for (size_t bytes = 20000; bytes <= sizeof buffer; bytes += 256) {
        nn_context *nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = bytes, .on_error = test_quiet, .threads = 1 });
        nn_dataset *d = nn_csv_parse(nn, text, strlen(text), NULL), *p, *q;
        nn_batch b;
        if (!nn) continue;
        nn_split_data(d, 0.5, &p, &q);
        nn_loader_next(nn_loader_new(p, &(nn_loader_desc){ .shuffle = 1 }), &b);
        nn_scaler_new(nn_model_new(nn, NULL), q);
        nn_free(nn);
    }
}

/* ---- data that is not in the repository ----------------------------------------------------------------------------------------------- */
static const char *shared(const char *name)
{
    static char path[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", test_shared() ? test_shared() : "", name);
    return test_shared() && access(path[k], R_OK) == 0 ? path[k] : NULL;
}

static void check_idx(const char *images, const char *labels, int64_t count, int64_t first)
{
    const char *i = shared(images), *l = shared(labels);
    nn_context *nn;
    float x[784];
    int64_t label;
    if (!i || !l) SKIP("set NN_SHARED to the folder with the data sets");
    nn = quiet(1);
    nn_dataset *d = nn_idx_load(nn, i, l);
    CHECK(nn_dataset_count(d) == count && nn_dataset_classes(d) == 10 && nn_dataset_shape(d).d[1] == 28);
    CHECK(nn_dataset_get(d, 0, x, NULL, &label) && label == first);
    CHECK(nn_dataset_get(d, count - 1, x, NULL, &label));
    nn_free(nn);
}
TEST(mnist_train)   { check_idx("mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz", 60000, 5); }
TEST(mnist_test)    { check_idx("mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz", 10000, 7); }
TEST(fashion_mnist) { check_idx("fashion-mnist/t10k-images-idx3-ubyte.gz", "fashion-mnist/t10k-labels-idx1-ubyte.gz", 10000, 9); }

TEST(cifar10)
{
    const char *files[2] = { shared("cifar10/cifar10_test500.bin.gz"), shared("cifar10/cifar10_test500.bin.gz") };
    nn_context *nn;
    float x[3072];
    int64_t label = 0;
    if (!files[0]) SKIP("set NN_SHARED to the folder with the data sets");
    nn = quiet(1);
    nn_dataset *d = nn_cifar_load(nn, files, 2);
    CHECK(nn_dataset_count(d) == 1000 && nn_dataset_get(d, 500, x, NULL, &label));
    CHECK(label == 3 && !strcmp(nn_dataset_class(d, label), "cat"));             /* CIFAR-10's first test image */
    nn_free(nn);
}

TEST(shared_csv)
{
    const char *digits = shared("optdigits/optdigits_train.csv.gz"), *cancer = shared("tabular/breast_cancer.csv");
    nn_context *nn;
    if (!digits || !cancer) SKIP("set NN_SHARED to the folder with the data sets");
    nn = quiet(1);
    nn_dataset *d = nn_csv_load(nn, digits, &(nn_csv_desc){ .no_header = 1 }), *c = nn_csv_load(nn, cancer, &(nn_csv_desc){ .no_header = 1, .skip_lines = 1 });
    CHECK(nn_dataset_count(d) == 3823 && nn_dataset_classes(d) == 10 && nn_dataset_shape(d).d[0] == 64);
    CHECK(nn_dataset_count(c) == 569 && nn_dataset_classes(c) == 2 && nn_dataset_shape(c).d[0] == 30);
    nn_free(nn);
}
