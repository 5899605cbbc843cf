/* test_files.c - safetensors: round trips, formats, damage of every kind, checkpoints, full disks */
#define _GNU_SOURCE
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include "fake_device.h"
#include <sys/resource.h>
#include <signal.h>

static nn_context *quiet(void) { return nn_new(&(nn_desc){ .on_error = test_quiet, .threads = 1 }); }

static nn_layer *make_net(nn_context *nn)                /* strided weights, a nested group, a buffer, a scalar, an empty tensor */
{
    nn_layer *net = nn_model_new(nn, NULL), *g;
    nn_linear_new(net, "fc1", 5, 7, NULL);
    g = nn_group_new(net, "inner");
    nn_linear_new(g, "fc2", 7, 3, &(nn_linear_desc){ .no_bias = 1 });
    nn_init_normal(nn_buffer_new(g, "mean", NN_SHAPE(2, 3, 4)), 0, 1);
    nn_init_normal(nn_param_new(g, "gain", NN_SCALAR), 0, 1);
    nn_param_new(g, "none", NN_SHAPE(0, 4));
    return net;
}
enum { NET_NUMBERS = 35 + 7 + 21 + 24 + 1 };
static const char *const net_names[] = { "fc1.weight", "fc1.bias", "inner.fc2.weight", "inner.mean", "inner.gain" };

static void read_net(nn_layer *net, float *to)
{
    for (int i = 0; i < 5; i++) { nn_tensor *t = nn_param(net, net_names[i]); nn_read(t, to); to += nn_count(t); }
}
static int same_net(nn_layer *a, nn_layer *b)
{
    float x[NET_NUMBERS], y[NET_NUMBERS];
    read_net(a, x); read_net(b, y);
    return !memcmp(x, y, sizeof x);
}

static char *path_of(const char *name)
{
    static char path[4][300];
    static int next;
    const char *dir = getenv("TMPDIR");
    char *p = path[next++ % 4];
    snprintf(path[(next - 1) % 4], 300, "%s/nn_%d_%s", dir ? dir : "/tmp", (int)getpid(), name);
    return p;
}
static void spill(const char *path, const void *s, size_t n) { FILE *f = fopen(path, "wb"); fwrite(s, 1, n, f); fclose(f); }
static int exists(const char *path) { FILE *f = fopen(path, "rb"); if (f) fclose(f); return f != NULL; }

/* A file in memory from the text of its header and its data; the caller frees it. */
static char *file_of(const char *json, const void *data, size_t n, size_t *bytes)
{
    size_t len = strlen(json), i;
    char *s = malloc(8 + len + n + 1);
    for (i = 0; i < 8; i++) s[i] = (char)(i < 4 ? len >> 8 * i : 0);
    memcpy(s + 8, json, len);
    if (n) memcpy(s + 8 + len, data, n);
    *bytes = 8 + len + n;
    return s;
}
static int load_json(nn_layer *net, const char *json, const void *data, size_t n, const nn_load_desc *d)
{
    size_t bytes;
    char *s = file_of(json, data, n, &bytes), *exact = malloc(bytes ? bytes : 1);
    int ok;
    memcpy(exact, s, bytes);                             /* no byte more than the file has: the sanitizer looks */
    free(s);
    ok = nn_load_memory(net, exact, bytes, d);
    free(exact);
    return ok;
}

/* ---- round trips ------------------------------------------------------------------------------------------ */
TEST(round_trip_through_a_file)
{
    nn_context *nn = quiet();
    nn_layer *a = make_net(nn), *b = make_net(nn);
    char *path = path_of("a.safetensors");
    CHECK(!same_net(a, b));
    CHECK(nn_save(a, path, NULL));
    CHECK(nn_load(b, path, NULL));
    CHECK(same_net(a, b) && nn_ok(nn));
    CHECK(!exists(path_of("a.safetensors.tmp")));
    CHECK(nn_save(a, path, NULL) && nn_load(b, path, NULL));    /* over an existing file */
    CHECK(nn_load(nn_child(b, "inner"), path, NULL) == 0);      /* a subtree has other names */
    nn_clear(nn);
    CHECK(nn_load(nn_child(b, "inner"), path, &(nn_load_desc){ .rename = &(nn_rename){ "inner.", "" }, .rename_count = 1, .not_strict = 1 }));
    CHECK(nn_save(nn_child(a, "inner"), path, NULL) && nn_load(nn_child(b, "inner"), path, NULL));
    remove(path);
    nn_free(nn);
}

TEST(round_trip_through_memory)
{
    nn_context *nn = quiet();
    nn_layer *a = make_net(nn), *b = make_net(nn);
    size_t need = 0, n = 0, m;
    char *s, *file, *path = path_of("m.safetensors");
    CHECK(nn_save_memory(a, NULL, 0, &need, NULL) && need > NET_NUMBERS * 4);
    s = malloc(need);
    memset(s, 'x', need);
    CHECK(!nn_save_memory(a, s, need - 1, &n, NULL) && n == need);
    CHECK_TEXT(nn_error(nn), "bytes are needed, there are");
    for (size_t i = 0; i < need; i++) if (s[i] != 'x') { CHECK(!"written to although too small"); break; }
    nn_clear(nn);
    CHECK(nn_save_memory(a, s, need, &n, NULL) && n == need);
    CHECK(nn_load_memory(b, s, need, NULL) && same_net(a, b));
    CHECK(nn_save(a, path, NULL));                       /* both forms give the same bytes */
    file = slurp(path, &m);
    CHECK(m == need && !memcmp(file, s, need));
    free(s); free(file);
    remove(path);
    nn_free(nn);
}

TEST(the_bytes_of_a_file)
{
    static const char json[] = "{\"__metadata__\":{\"format\":\"pt\"},\"l.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                               "\"l.b\\\"\\\\\\u0001\xC3\xA9\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[24,28]}}";
    static const unsigned char numbers[] = { 0,0,0x80,0x3F, 0,0,0,0x40, 0,0,0x40,0x40, 0,0,0x80,0x40, 0,0,0xA0,0x40, 0,0,0xC0,0x40, 0,0,0x80,0xBF };
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL), *l = nn_linear_new(net, "l", 3, 2, &(nn_linear_desc){ .no_bias = 1 });
    char s[512];
    size_t n, header = (strlen(json) + 7) / 8 * 8;
    nn_write(nn_param(l, "weight"), (float[]){ 1, 2, 3, 4, 5, 6 });
    nn_write(nn_param_new(l, "b\"\\\x01\xC3\xA9", NN_SCALAR), (float[]){ -1 });
    CHECK(nn_save_memory(net, s, sizeof s, &n, NULL));
    CHECK((unsigned char)s[0] == header && !s[1] && !s[7]);
    CHECK(!memcmp(s + 8, json, strlen(json)));
    for (size_t i = strlen(json); i < header; i++) CHECK(s[8 + i] == ' ');
    CHECK(n == 8 + header + sizeof numbers && !memcmp(s + 8 + header, numbers, sizeof numbers));
    CHECK(nn_load_memory(net, s, n, NULL));
    nn_free(nn);
}

TEST(large_strided_tensors_go_through_in_pieces)
{
    static const int64_t shapes[][3] = { { 3, 5, NN__PIECE + 1 }, { 7, 200, 113 }, { NN__PIECE * 2 + 1, 1, 1 }, { 1, NN__PIECE - 1, 2 }, { 2, 3, NN__PIECE } };
    for (int k = 0; k < 5; k++) {
        nn_context *nn = quiet();
        nn_layer *a = nn_model_new(nn, NULL), *b = nn_model_new(nn, NULL);
        nn_shape shape = NN_SHAPE(shapes[k][0], shapes[k][1], shapes[k][2]);
        int64_t count = shape.d[0] * shape.d[1] * shape.d[2];
        float *x = malloc((size_t)count * 4), *y = malloc((size_t)count * 4);
        char *path = path_of("big");
        for (int i = 0; i < 2; i++) {
            nn_tensor *t = nn_param_new(i ? b : a, "w", shape);
            t->stride[0] = 1; t->stride[1] = shape.d[0] * shape.d[2]; t->stride[2] = shape.d[0];    /* a permutation */
            if (!i) nn_init_normal(t, 0, 1);
        }
        CHECK(nn_save(a, path, NULL) && nn_load(b, path, NULL));
        nn_read(nn_param(a, "w"), x); nn_read(nn_param(b, "w"), y);
        CHECK(!memcmp(x, y, (size_t)count * 4));
        CHECK(nn_save(a, path, &(nn_save_desc){ .dtype = NN_BF16 }) && nn_load(b, path, NULL));
        nn_read(nn_param(b, "w"), y);
        int good = 1;
        for (int64_t i = 0; i < count; i++) good &= fabsf(x[i] - y[i]) <= fabsf(x[i]) / 256;
        CHECK(good);
        remove(path);
        free(x); free(y);
        nn_free(nn);
    }
}

TEST(memory_needed_does_not_grow_with_the_model)
{
    enum { BYTES = 3 << 20 };
    char *buffer = malloc(BYTES), *path = path_of("small");
    nn_context *nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = BYTES, .threads = 1 }), *m;
    nn_layer *net = nn_model_new(nn, NULL);
    size_t before, with;
    nn_linear_new(net, "fc", 700, 800, NULL);            /* 2.2 MB of weights */
    CHECK(nn_ok(nn));
    CHECK(nn_save(net, path, NULL) && nn_load(net, path, NULL));
    CHECK(nn_save(net, path, &(nn_save_desc){ .dtype = NN_F16 }) && nn_load(net, path, NULL));
    nn_free(nn);
    free(buffer);
    m = nn_new(&(nn_desc){ .measure = 1, .threads = 1, .on_error = test_quiet });     /* measuring counts the buffers, and writes no file */
    net = nn_model_new(m, NULL);
    nn_linear_new(net, "fc", 700, 800, NULL);
    before = nn_bytes_needed(m);
    remove(path);
    CHECK(nn_save(net, path, NULL) && !exists(path));
    with = nn_bytes_needed(m);
    CHECK(with > before && with - before < 300000);
    nn_free(m);
}

TEST(on_a_device)
{
    static fake_device d;
    nn_context *host = quiet(), *nn;
    nn_layer *a = make_net(host), *b;
    char s[4096], t[4096];
    size_t n = 0, m = 0;
    if (!fake_open(&d)) SKIP("no memory region");
    nn = nn_new(&(nn_desc){ .backend = &d.backend, .on_error = test_quiet, .threads = 1 });
    b = make_net(nn);
    CHECK(nn_save_memory(a, s, sizeof s, &n, NULL));
    CHECK(nn_load_memory(b, s, n, NULL));
    CHECK(same_net(a, b));
    CHECK(nn_save_memory(b, t, sizeof t, &m, NULL));
    CHECK(m == n && !memcmp(s, t, n));
    CHECK(nn_save_memory(b, t, sizeof t, &m, &(nn_save_desc){ .dtype = NN_F16 }) && nn_load_memory(b, t, m, NULL));
    nn_free(nn);
    nn_free(host);
    fake_close(&d);
}

/* The bytes of numbers as a file has them: little-endian. */
static const void *as_in_file(const void *data, size_t bytes, size_t each)
{
    static unsigned char to[64];
    const uint16_t one = 1;
    int little = *(const unsigned char *)&one;
    for (size_t i = 0; i < bytes; i++) to[i] = ((const unsigned char *)data)[little ? i : i / each * each + each - 1 - i % each];
    return to;
}

/* ---- dtypes ------------------------------------------------------------------------------------------------- */
static void check_dtype(const char *dtype, const void *data, size_t bytes, const float *want)
{
    nn_context *nn = quiet(), *nn64 = nn_new(&(nn_desc){ .dtype = NN_F64, .threads = 1 });
    char json[200];
    float got[4] = { 0 };
    double got64[4] = { 0 };
    nn_layer *net = nn_model_new(nn, NULL), *net64 = nn_model_new(nn64, NULL);
    nn_param_new(net, "w", NN_SHAPE(4)); nn_param_new(net64, "w", NN_SHAPE(4));
    snprintf(json, sizeof json, "{\"w\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%d]}}", dtype, (int)bytes);
    data = as_in_file(data, bytes, bytes / 4);
    CHECK(load_json(net, json, data, bytes, NULL) && load_json(net64, json, data, bytes, NULL));
    nn_read(nn_param(net, "w"), got);
    nn_read_as(nn_param(net64, "w"), NN_F64, got64);
    for (int i = 0; i < 4; i++) { CHECK_NEAR(got[i], want[i], 0); CHECK_NEAR(got64[i], want[i], 0); }
    nn_free(nn);
    nn_free(nn64);
}
TEST(every_dtype_is_read)
{
    float ints[] = { 0, 1, -2, 100 }, whole[] = { 0, 1, 254, 100 }, bools[] = { 0, 1, 1, 0 }, real[] = { 0, 1.5f, -2, 65504 };
    check_dtype("F32", real, 16, real);
    check_dtype("F64", (double[]){ 0, 1.5, -2, 65504 }, 32, real);
    check_dtype("F16", (uint16_t[]){ 0, 0x3E00, 0xC000, 0x7BFF }, 8, real);
    check_dtype("BF16", (uint16_t[]){ 0, 0x3FC0, 0xC000, 0x4780 }, 8, (float[]){ 0, 1.5f, -2, 65536 });
    check_dtype("I8", (int8_t[]){ 0, 1, -2, 100 }, 4, ints);
    check_dtype("U8", (uint8_t[]){ 0, 1, 254, 100 }, 4, whole);
    check_dtype("I32", (int32_t[]){ 0, 1, -2, 100 }, 16, ints);
    check_dtype("I64", (int64_t[]){ 0, 1, -2, 100 }, 32, ints);
    check_dtype("BOOL", (uint8_t[]){ 0, 1, 1, 0 }, 4, bools);
}
TEST(dtypes_that_cannot_be_read)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    char report[100];
    nn_param_new(net, "w", NN_SHAPE(2));
    CHECK(!load_json(net, "{\"w\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[0,4]}}", "abcd", 4, &(nn_load_desc){ .report = report, .report_bytes = sizeof report }));
    CHECK_TEXT(nn_error(nn), "mis-shaped: w: dtype U16 cannot be read");
    CHECK_TEXT(report, "mis-shaped w: dtype U16 cannot be read\n");
    nn_clear(nn);                                        /* in a tensor that nobody asks for they do no harm */
    CHECK(load_json(net, "{\"u\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[8,11]},\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                    "abcdefghijk", 11, &(nn_load_desc){ .not_strict = 1 }));
    nn_free(nn);
}
TEST(save_in_other_dtypes)
{
    nn_context *nn = quiet();
    nn_layer *a = make_net(nn), *b = make_net(nn);
    nn_optimizer *opt = nn_adam_new(a, NULL);
    char s[8192];
    size_t n;
    float x[NET_NUMBERS], y[NET_NUMBERS];
    CHECK(nn_save_memory(a, s, sizeof s, &n, &(nn_save_desc){ .dtype = NN_F16, .optimizer = opt }));
    CHECK(strstr(s + 8, "\"fc1.weight\":{\"dtype\":\"F16\"") && strstr(s + 8, "fc1.weight\":{\"dtype\":\"F32\""));  /* optimizer states stay exact */
    CHECK(nn_load_memory(b, s, n, NULL));
    read_net(a, x); read_net(b, y);
    for (int i = 0; i < NET_NUMBERS; i++) CHECK_NEAR(x[i], y[i], fabsf(x[i]) / 1024 + 1e-7f);
    CHECK(nn_save_memory(a, s, sizeof s, &n, &(nn_save_desc){ .dtype = NN_F64 }) && nn_load_memory(b, s, n, NULL) && same_net(a, b));
    CHECK(!nn_save_memory(a, s, sizeof s, &n, &(nn_save_desc){ .dtype = NN_I8 }));
    CHECK_TEXT(nn_error(nn), ".dtype i8");
    nn_free(nn);
}

/* ---- names ------------------------------------------------------------------------------------------------------ */
TEST(reports)
{
    nn_context *nn = quiet();
    nn_layer *a = nn_model_new(nn, NULL), *b = nn_model_new(nn, NULL), *c = nn_model_new(nn, NULL);
    char s[2048], report[400];
    size_t n;
    nn_load_desc d = { .report = report, .report_bytes = sizeof report }, loose = d;
    loose.not_strict = 1;
    nn_linear_new(a, "fc1", 2, 3, NULL); nn_linear_new(a, "old", 2, 2, NULL);
    nn_linear_new(b, "fc1", 2, 3, NULL); nn_linear_new(b, "new", 2, 2, NULL);
    nn_linear_new(c, "fc1", 2, 4, NULL); nn_linear_new(c, "old", 2, 2, NULL);
    CHECK(nn_save_memory(a, s, sizeof s, &n, NULL));
    CHECK(!nn_load_memory(b, s, n, &d));
    CHECK_TEXT(report, "missing new.weight\nmissing new.bias\nunexpected old.bias\nunexpected old.weight\n");
    CHECK_TEXT(nn_error(nn), "2 missing: new.weight, new.bias, 2 unexpected: old.bias, old.weight, 0 mis-shaped");
    nn_clear(nn);
    CHECK(nn_load_memory(b, s, n, &loose));
    CHECK_TEXT(report, "missing new.weight\n");
    CHECK(!nn_load_memory(c, s, n, &loose));
    CHECK_TEXT(report, "mis-shaped fc1.weight: (3, 2) in the file, (4, 2) in the model\nmis-shaped fc1.bias: (3) in the file, (4) in the model\n");
    nn_clear(nn);
    CHECK(nn_load_memory(c, s, n, &(nn_load_desc){ .skip = "fc1." }));
    CHECK(nn_load_memory(a, s, n, &d) && report[0] == 0);       /* nothing to report */
    CHECK(nn_load_memory(b, s, n, &(nn_load_desc){ .rename = (nn_rename[]){ { "older", "x" }, { "old.", "new." } }, .rename_count = 2 }));
    CHECK(!nn_load_memory(b, s, n, &(nn_load_desc){ .rename = (nn_rename[]){ { "old", "fc1" } }, .rename_count = 1 }));
    CHECK_TEXT(nn_error(nn), "after renaming, two tensors are called \"fc1.bias\"");
    nn_clear(nn);
    CHECK(!nn_load_memory(b, s, n, &(nn_load_desc){ .report = report, .report_bytes = 20 }));
    CHECK(strlen(report) == 19);
    nn_free(nn);
}

TEST(a_file_with_many_wrong_names_has_a_short_error)
{
    nn_context *nn = quiet();
    nn_layer *a = nn_model_new(nn, NULL), *b = nn_model_new(nn, NULL), *l;
    static char s[65536];
    char name[150];
    size_t n;
    l = nn_group_new(a, "layer");
    for (int i = 0; i < 30; i++) { memset(name, 'a', 149); snprintf(name + 120, 30, "%d", i); nn_param_new(l, name, NN_SHAPE(1)); }
    CHECK(nn_save_memory(a, s, sizeof s, &n, NULL));
    CHECK(!nn_load_memory(b, s, n, NULL));
    CHECK_TEXT(nn_error(nn), "0 missing, 30 unexpected: layer.aaaaaaa");
    nn_free(nn);
}

TEST(num_batches_tracked_is_not_missed)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    nn_param_new(net, "w", NN_SHAPE(2));
    CHECK(load_json(net, "{\"bn.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[8,16]},\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                    "abcdefghijklmnop", 16, NULL));
    nn_free(nn);
}

TEST(two_tensors_of_one_name_are_not_saved)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    char s[1000];
    size_t n;
    nn_linear_new(net, "fc", 2, 2, NULL);
    nn_param_new(net, "fc.weight", NN_SHAPE(2));
    CHECK(!nn_save_memory(net, s, sizeof s, &n, NULL));
    CHECK_TEXT(nn_error(nn), "two tensors are called \"fc.weight\"");
    nn_free(nn);
}

TEST(names_must_be_utf8)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    size_t n;
    nn_param_new(net, "a\xFF", NN_SHAPE(2));
    CHECK(!nn_save_memory(net, NULL, 0, &n, NULL));
    CHECK_TEXT(nn_error(nn), "not UTF-8");
    nn_free(nn);
}

/* ---- headers -------------------------------------------------------------------------------------------------------- */
#define W "\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
TEST(odd_but_valid_headers)
{
    static const char *const good[] = {
        "{" W "}", "{" W "}      \n\t\r", "{ " W " }", "{\n\t\"w\" : { \"data_offsets\" : [ 0 , 8 ] , \"shape\" : [ 2 ] , \"dtype\" : \"F32\" }\r\n}",
        "{\"__metadata__\":{}," W "}", "{" W ",\"__metadata__\":{\"a\":\"b\",\"c\":\"\\u00e9\\ud83d\\ude00\\n\"}}",
        "{\"\\u0077\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        "{\"w\":{\"\\u0064type\":\"F\\u00332\",\"shape\":[2],\"data_offsets\":[0,8],\"extra\":[1,-2.5e+3,{\"a\":null,\"b\":[]},true,false,\"x\",0,0.5E-1]}}" };
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    float v[2], in[2] = { 1.25f, -7 };
    nn_param_new(net, "w", NN_SHAPE(2));
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        nn_write(nn_param(net, "w"), (float[]){ 0, 0 });
        CHECK(load_json(net, good[i], as_in_file(in, 8, 4), 8, NULL));
        if (!nn_ok(nn)) printf("%s\n%s\n", good[i], nn_error(nn));
        nn_clear(nn);
        nn_read(nn_param(net, "w"), v);
        CHECK(v[0] == 1.25f && v[1] == -7);
    }
    nn_free(nn);
}

TEST(bad_headers)
{
    static const struct { const char *json, *why; } bad[] = {
        { "", "'{' is missing" }, { " {" W "}", "'{' is missing" }, { "[]", "'{' is missing" }, { "{", "'\"' is missing" },
        { "{" W, "',' is missing" }, { "{" W ",}", "'\"' is missing" }, { "{" W "}x", "something follows" }, { "{" W "}{}", "something follows" },
        { "{\"w\"}", "':' is missing" }, { "{\"w\":}", "'{' is missing" }, { "{\"w\":5}", "'{' is missing" }, { "{w:5}", "'\"' is missing" },
        { "{\"w\":{}}", "needs dtype, shape and data_offsets" }, { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2]}}", "needs dtype" },
        { "{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "a key occurs twice" },
        { "{\"w\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", "unknown dtype" },
        { "{\"w\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}}", "'\"' is missing" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", "'[' is missing" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", "a whole number is missing" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", "not a whole number" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2e0],\"data_offsets\":[0,8]}}", "not a whole number" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[02],\"data_offsets\":[0,8]}}", "a number begins with 0" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,],\"data_offsets\":[0,8]}}", "a whole number is missing" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}", "the number is too large" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,8]}}", "the number is too large" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,8]}}", "the shape is too large" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", "the shape is too large" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", "do not agree" },
        { "{\"w\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[0,8]}}", "do not agree" },
        { "{\"w\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,8]}}", "does not end at a byte" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", "run backwards" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "',' is missing" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", "']' is missing" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]}}", "cut off: tensor \"w\" ends at byte 16 of the data, which have 8" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "leaves a hole" },
        { "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "4 bytes follow the last tensor" },
        { "{}", "8 bytes follow the last tensor" },
        { "{" W ",\"v\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", "overlaps" },
        { "{" W ",\"v\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "overlaps" },
        { "{" W "," W "}", "tensor \"w\" occurs twice" },
        { "{" W ",\"\\u0077\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}", "tensor \"w\" occurs twice" },
        { "{\"__metadata__\":{},\"__metadata__\":{}," W "}", "__metadata__ occurs twice" },
        { "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}," W "}", "metadata \"a\" occurs twice" },
        { "{\"__metadata__\":{\"a\":1}," W "}", "metadata must be text" }, { "{\"__metadata__\":[]," W "}", "'{' is missing" },
        { "{\"w", "a string does not end" }, { "{\"w\\", "unknown escape" }, { "{\"\\x\":1}", "unknown escape" }, { "{\"\\u12g4\":1}", "four hexadecimal digits" },
        { "{\"\\u12", "four hexadecimal digits" }, { "{\"\\ud800\":1}", "surrogate" }, { "{\"\\udc00\":1}", "surrogate" }, { "{\"\\ud800\\u0041\":1}", "surrogate" },
        { "{\"\\u0000\":1}", "NUL" }, { "{\"a\nb\":1}", "control character" }, { "{\"\xFF\":1}", "not UTF-8" }, { "{\"\xC0\x80\":1}", "not UTF-8" },
        { "{\"\xED\xA0\x80\":1}", "not UTF-8" }, { "{\"\xF4\x90\x80\x80\":1}", "not UTF-8" }, { "{\"\xE2\x82", "not UTF-8" },
        { "{\"w\":{\"x\":01,\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "',' is missing" },
        { "{\"w\":{\"x\":-,\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "a value is missing" },
        { "{\"w\":{\"x\":1.,\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "a digit is missing" },
        { "{\"w\":{\"x\":1e,\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "a digit is missing" },
        { "{\"w\":{\"x\":nul,\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "a value is missing" },
        { "{\"w\":{\"x\":", "a value is missing" },
        { "{\"w\":{\"x\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nested too deeply" } };
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    float v[2];
    nn_param_new(net, "w", NN_SHAPE(2));
    nn_write(nn_param(net, "w"), (float[]){ 3, 4 });
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int ok = load_json(net, bad[i].json, "abcdefgh", 8, NULL);
        if (ok || !strstr(nn_error(nn), bad[i].why)) printf("%s\n  %s\n", bad[i].json, ok ? "was accepted" : nn_error(nn));
        CHECK(!ok && strstr(nn_error(nn), bad[i].why));
        nn_clear(nn);
        nn_read(nn_param(net, "w"), v);
        CHECK(v[0] == 3 && v[1] == 4);
    }
    nn_free(nn);
}

TEST(lengths_that_lie)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    unsigned char s[16] = { 0 };
    CHECK(!nn_load_memory(net, s, 0, NULL)); CHECK_TEXT(nn_error(nn), "0 bytes are no safetensors file"); nn_clear(nn);
    CHECK(!nn_load_memory(net, s, 7, NULL)); nn_clear(nn);
    CHECK(!nn_load_memory(net, s, 8, NULL)); CHECK_TEXT(nn_error(nn), "'{' is missing"); nn_clear(nn);
    s[0] = 9;
    CHECK(!nn_load_memory(net, s, 16, NULL)); CHECK_TEXT(nn_error(nn), "cut off: 8 of 9 bytes of header"); nn_clear(nn);
    memset(s, 0xFF, 8);
    CHECK(!nn_load_memory(net, s, 16, NULL)); CHECK_TEXT(nn_error(nn), "not a safetensors file"); nn_clear(nn);
    CHECK(!nn_load_memory(net, NULL, 16, NULL)); nn_clear(nn);
    nn_free(nn);
}

TEST(more_dimensions_than_we_have)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL);
    nn_param_new(net, "w", NN_SHAPE(1, 1, 1, 1, 1, 1, 1, 2));
    CHECK(!load_json(net, "{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,2,1],\"data_offsets\":[0,8]}}", "abcdefgh", 8, NULL));
    CHECK_TEXT(nn_error(nn), "9 dimensions in the file, 8 in the model");
    nn_free(nn);
}

/* ---- damage ------------------------------------------------------------------------------------------------------------- */
TEST(truncated_at_every_length)
{
    nn_context *nn = quiet();
    nn_layer *a = make_net(nn), *b = make_net(nn);
    char s[2048], *path = path_of("cut");
    float before[NET_NUMBERS], after[NET_NUMBERS];
    size_t n, i;
    CHECK(nn_save_memory(a, s, sizeof s, &n, NULL));
    read_net(b, before);
    for (i = 0; i < n; i++) {
        char *exact = malloc(i ? i : 1);
        int ok;
        memcpy(exact, s, i);
        ok = nn_load_memory(b, exact, i, NULL);
        CHECK(!ok && nn_error(nn)[0]);
        nn_clear(nn);
        free(exact);
        if (i % 16 && i > 16) continue;                  /* through a file, too */
        spill(path, s, i);
        CHECK(!nn_load(b, path, NULL));
        nn_clear(nn);
    }
    read_net(b, after);
    CHECK(!memcmp(before, after, sizeof before));
    CHECK(nn_load_memory(b, s, n, NULL) && same_net(a, b));
    CHECK(!nn_load_memory(b, s, n + 1, NULL));           /* one byte too many */
    remove(path);
    nn_free(nn);
}

/* Weights of 4 bits: a file is read by a model of the same type, group and number of inputs, and changes nothing of another. */
static nn_layer *small_net(nn_context *nn, nn_dtype type, int64_t group, int64_t in)
{
    nn_layer *net = nn_model_new(nn, NULL), *l;
    float w[3 * 48], x[3];
    for (int i = 0; i < 3 * in; i++) w[i] = (float)(i * 37 % 101 - 50) / 100;
    for (int i = 0; i < 3; i++) x[i] = (float)i + 0.5f;
    nn_weights_as(nn, type, &(nn_quantize_desc){ .group = group });
    l = nn_linear_new(net, "fc", in, 3, NULL);
    nn_weights_as(nn, NN_F32, NULL);
    nn_tensor *full = nn_tensor_new(nn, NN_SHAPE(3, in), w), *scale = nn_param(l, "weight_scale"), *q, *s;
    CHECK(nn_write(nn_param(l, "bias"), x));
    if (type == NN_F32) CHECK(nn_write(nn_param(l, "weight"), w));
    else {
        nn_begin(nn, NN_EVAL);
        q = nn_quantize_new(full, type, &s, &(nn_quantize_desc){ .group = group });
        float by[3 * 48];
        int32_t words[3 * 48];
        CHECK(nn_count(s) == nn_count(scale) && nn_read(s, by) && nn_write(scale, by));
        if (type == NN_I4) CHECK(nn_read_as(q, NN_I32, words) && nn_write_as(nn_param(l, "weight"), NN_I32, words));
        else CHECK(nn_write(nn_param(l, "weight"), w));
    }
    return net;
}
TEST(words_of_four_bits)
{
    static const struct { nn_dtype type; int group, in; const char *text; } other[] = {
        { NN_I4, 8, 9, NULL }, { NN_I4, 16, 9, "fc.weight_scale: (3, 2) in the file, (3, 1) in the model" }, { NN_I8, 0, 9, "fc.weight: I32 (3, 2) of 9 inputs in the file, I8 (3, 9) in the model" },
        { NN_F32, 0, 9, "fc.weight: I32 (3, 2) of 9 inputs in the file, F32 (3, 9) in the model" }, { NN_I4, 8, 16, "I32 (3, 2) of 9 inputs in the file, I32 (3, 2) of 16 inputs in the model" },
        { NN_I4, 8, 17, "of 17 inputs" }, { NN_I4, 8, 8, "of 8 inputs" }, { NN_I4, 8, 10, "of 10 inputs" } };
    nn_context *nn = quiet();
    nn_layer *a = small_net(nn, NN_I4, 8, 9);
    char s[2048], again[2048], before[2048];
    size_t n, k, bytes;
    CHECK(nn_ok(nn) && nn_save_memory(a, s, sizeof s, &n, NULL));
    for (int i = 0; i < 8; i++) for (size_t cut = 0; cut < (i ? 1 : n); cut++) {
        nn_layer *b = small_net(nn, other[i].type, other[i].group, other[i].in);
        nn_write(nn_param(b, "fc.bias"), (float[3]){ 7, 8, 9 });
        CHECK(nn_save_memory(b, before, sizeof before, &bytes, NULL) && bytes <= sizeof before);
        CHECK(!nn_load_memory(b, s, other[i].text ? n : cut, NULL));
        if (other[i].text && !strstr(nn_error(nn), other[i].text)) printf("    %s\n", nn_error(nn));
        if (other[i].text) CHECK_TEXT(nn_error(nn), other[i].text);
        nn_clear(nn);
        CHECK(nn_save_memory(b, again, sizeof again, &k, NULL) && k == bytes && !memcmp(again, before, k));
        if (cut + 1 == n) CHECK(nn_load_memory(b, s, n, NULL) && nn_save_memory(b, again, sizeof again, &k, NULL) && k == n && !memcmp(again, s, n));
    }
    nn_free(nn);
}
/* One input: shapes tell nothing at all. Metadata may be missing, or tell of tensors that are not there, but not be wrong. */
TEST(inputs_in_metadata)
{
    static const nn_dtype types[] = { NN_I4, NN_I8, NN_F32 };
    static const struct { const char *meta; int good; } of[] = { { "", 1 }, { "\"nn.inputs.fc.weight\":\"9\"", 1 }, { "\"nn.inputs.gone.weight\":\"x\"", 1 },
        { "\"nn.inputs.fc.weight\":\"16\"", 0 }, { "\"nn.inputs.fc.weight\":\"0\"", 0 }, { "\"nn.inputs.fc.weight\":\"-9\"", 0 }, { "\"nn.inputs.fc.weight\":\"\"", 0 },
        { "\"nn.inputs.fc.bias\":\"3\"", 0 }, { "\"nn.inputs.fc.weight\":\"99999999999999999999\"", 0 } };
    nn_context *nn = quiet();
    char s[2048], json[1024], data[64];
    size_t n;
    for (int i = 0; i < 3; i++) for (int j = 0; j < 3; j++) {
        nn_layer *from = small_net(nn, types[i], types[i] == NN_I4 ? 8 : 0, 1), *to = small_net(nn, types[j], types[j] == NN_I4 ? 8 : 0, 1);
        CHECK(nn_save_memory(from, s, sizeof s, &n, NULL));
        CHECK(nn_load_memory(to, s, n, &(nn_load_desc){ .allow_unexpected = i == 0 }) == (i == j || i == 2));           /* f32 is rounded */
        nn_clear(nn);
    }
    for (int i = 0; i < (int)(sizeof data); i++) data[i] = 0;
    for (int i = 0; i < 9; i++) for (int renamed = 0; renamed < 2; renamed++) {
        snprintf(json, sizeof json, "{\"__metadata__\":{%s},\"fc.weight\":{\"dtype\":\"I32\",\"shape\":[3,2],\"data_offsets\":[0,24]},\"fc.weight_scale\":{\"dtype\":\"F32\",\"shape\":[3,2],"
            "\"data_offsets\":[24,48]},\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[48,60]}}", of[i].meta);
        char *file = file_of(json, data, 60, &n);
        nn_context *own = quiet();
        nn_layer *net = nn_model_new(own, NULL);
        nn_weights_as(own, NN_I4, &(nn_quantize_desc){ .group = 8 });
        nn_linear_new(net, renamed ? "other" : "fc", 9, 3, NULL);
        CHECK(nn_load_memory(net, file, n, renamed ? &(nn_load_desc){ .rename = &(nn_rename){ "fc.", "other." }, .rename_count = 1 } : NULL) == of[i].good);
        if (i > 3 && i != 7) CHECK_TEXT(nn_error(own), "impossible value");
        nn_free(own);
        free(file);
    }
    nn_free(nn);
}

TEST(every_flipped_bit_of_the_header)
{
    nn_context *nn = quiet();
    nn_layer *a = make_net(nn), *b = make_net(nn);
    char s[2048], *exact;
    float before[NET_NUMBERS], after[NET_NUMBERS];
    size_t n, header;
    int loaded = 0;
    CHECK(nn_save_memory(a, s, sizeof s, &n, NULL));
    header = 8 + (size_t)(unsigned char)s[0] + 256 * (size_t)(unsigned char)s[1];
    exact = malloc(n);
    read_net(b, before);
    for (size_t bit = 0; bit < 8 * header; bit++) {
        int ok;
        memcpy(exact, s, n);
        exact[bit / 8] = (char)(exact[bit / 8] ^ 1 << bit % 8);
        ok = nn_load_memory(b, exact, n, NULL);
        CHECK(ok || nn_error(nn)[0]);
        nn_clear(nn);                /* a failed context reads nothing */
        read_net(b, after);
        if (!ok) CHECK(!memcmp(before, after, sizeof before));
        else { loaded++; memcpy(before, after, sizeof before); }
    }
    CHECK(loaded < (int)header / 4);                     /* only spaces that became other spaces, and letters of metadata */
    free(exact);
    nn_free(nn);
}

TEST(files_that_are_none)
{
    nn_context *nn = quiet();
    nn_layer *net = make_net(nn);
    struct { const char *path, *why; } c[] = { { "/nonexistent/x", "cannot open" }, { "", "the path is empty" }, { "/", "not a regular file" }, { NULL, "the path is empty" },
                                               { "/dev/null", "not a regular file" }, { "/dev/full", "not a regular file" } };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) { CHECK(!nn_load(net, c[i].path, NULL)); CHECK_TEXT(nn_error(nn), c[i].why); nn_clear(nn); }
    c[0].why = "cannot create";
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) { CHECK(!nn_save(net, c[i].path, NULL)); CHECK_TEXT(nn_error(nn), c[i].why); nn_clear(nn); }
    CHECK(!exists("/dev/full.tmp") && !exists("/dev/null.tmp"));
    CHECK(!nn_save(NULL, "x", NULL) && !nn_load(NULL, "x", NULL) && !nn_resume(NULL, "x", NULL));
    nn_fail(nn, "something else");                       /* after an error nothing is written */
    CHECK(!nn_save(net, path_of("after"), NULL) && !exists(path_of("after")));
    nn_free(nn);
}

TEST(a_full_disk_leaves_the_old_file)
{
    nn_context *nn = quiet();
    nn_layer *a = make_net(nn), *big = nn_model_new(nn, NULL);
    struct rlimit old, small;
    char *path = path_of("full"), *tmp = path_of("full.tmp"), *before, *after;
    size_t n = 0, m = 0;
    nn_linear_new(big, "fc", 300, 300, NULL);
    CHECK(nn_save(a, path, NULL));
    before = slurp(path, &n);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    for (small.rlim_cur = 0; small.rlim_cur <= 320000; small.rlim_cur = small.rlim_cur * 7 + 1) {
        setrlimit(RLIMIT_FSIZE, &small);
        CHECK(!nn_save(big, path, NULL));
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK_TEXT(nn_error(nn), "cannot write");
        nn_clear(nn);
        CHECK(!exists(tmp));
    }
    signal(SIGXFSZ, SIG_DFL);
    after = slurp(path, &m);
    CHECK(n == m && !memcmp(before, after, n));
    CHECK(nn_save(big, path, NULL) && nn_load(big, path, NULL));
    free(before); free(after);
    remove(path);
    nn_free(nn);
}

TEST(no_memory)
{
    for (size_t bytes = 20000; bytes < 60000; bytes += 1024) {
        char *buffer = malloc(bytes), s[4096];
        nn_context *nn = nn_new(&(nn_desc){ .memory = buffer, .bytes = bytes, .threads = 1, .on_error = test_quiet });
        if (nn) {
            nn_layer *net = make_net(nn);
            size_t n = 0;
            if (nn_save_memory(net, s, sizeof s, &n, NULL)) CHECK(nn_load_memory(net, s, n, NULL) || strstr(nn_error(nn), "out of memory"));
            else CHECK_TEXT(nn_error(nn), "out of memory");
            nn_free(nn);
        }
        free(buffer);
    }
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------------ */
typedef struct run { nn_context *nn; nn_layer *net; nn_optimizer *opt; nn_save_desc save; } run;
static run start(uint64_t seed, int sgd)
{
    run r = { .nn = nn_new(&(nn_desc){ .seed = seed, .on_error = test_quiet, .threads = 1 }) };
    r.net = nn_model_new(r.nn, NULL);
    nn_linear_new(r.net, "fc1", 4, 8, NULL);
    nn_fn_new(r.net, nn_tanh);
    nn_linear_new(r.net, "fc2", 8, 2, NULL);
    r.opt = sgd ? nn_sgd_new(r.net, &(nn_sgd_desc){ .lr = 0.1f, .momentum = 0.9f }) : nn_adam_new(r.net, &(nn_adam_desc){ .lr = 0.01f });
    r.save.optimizer = r.opt;
    return r;
}
static void steps(run *r, int n)
{
    for (int i = 0; i < n; i++) {
        nn_begin(r->nn, NN_TRAIN);
        nn_backward(nn_binary_cross_entropy(nn_forward(r->net, nn_randn(r->nn, NN_SHAPE(6, 4), 0, 1)), nn_rand(r->nn, NN_SHAPE(6, 2), 0, 1), NULL));
        nn_step(r->opt);
    }
}
static void weights(run *r, float *to) { nn_read(nn_param(r->net, "fc1.weight"), to); nn_read(nn_param(r->net, "fc2.bias"), to + 32); }

TEST(a_resumed_run_goes_on_bit_for_bit)
{
    for (int sgd = 0; sgd < 2; sgd++) {
        run a = start(7, sgd), b = start(99, sgd);       /* the other seed: everything must come from the file */
        float x[34], y[34];
        char *path = path_of("checkpoint");
        steps(&a, 9);
        CHECK(nn_save(a.net, path, &a.save));
        steps(&a, 6);
        CHECK(nn_resume(b.net, path, &b.save));
        if (!nn_ok(b.nn)) printf("%s\n", nn_error(b.nn));
        CHECK(nn_steps(b.opt) == 9);
        steps(&b, 6);
        weights(&a, x); weights(&b, y);
        CHECK(!memcmp(x, y, sizeof x));
        CHECK(nn_ok(a.nn) && nn_ok(b.nn));
        CHECK(nn_load(b.net, path, NULL));               /* the weights alone */
        remove(path);
        nn_free(a.nn); nn_free(b.nn);
    }
}

TEST(what_is_no_checkpoint_of_this_run)
{
    run a = start(1, 0), sgd = start(1, 1);
    nn_layer *other = nn_model_new(a.nn, NULL);
    char *path = path_of("checkpoint"), s[65536], *file, *at;
    float x[34], y[34];
    size_t n;
    CHECK(nn_save(a.net, path, NULL));
    CHECK(!nn_resume(a.net, path, &a.save));             /* weights only */
    CHECK_TEXT(nn_error(a.nn), "missing: optimizer.exp_avg.fc1.weight");
    nn_clear(a.nn);
    CHECK(!nn_resume(a.net, path, NULL));
    CHECK_TEXT(nn_error(a.nn), "nn_resume: give it what was saved");
    nn_clear(a.nn);
    CHECK(nn_save(a.net, path, &a.save));
    CHECK(!nn_resume(sgd.net, path, &sgd.save));
    CHECK_TEXT(nn_error(sgd.nn), "momentum_buffer");
    CHECK(!nn_save(other, path, &sgd.save));
    CHECK_TEXT(nn_error(a.nn), "another context");
    nn_clear(a.nn);
    file = slurp(path, &n);                              /* a damaged number: nothing is restored */
    at = file;
    while (memcmp(at, "context.seed\":\"1\"", 17)) at++;
    at[15] = 'x';
    spill(path, file, n);
    weights(&a, x);
    steps(&a, 1);
    weights(&a, y);
    CHECK(memcmp(x, y, sizeof x));
    CHECK(!nn_resume(a.net, path, &a.save));
    CHECK_TEXT(nn_error(a.nn), "context.seed has an impossible value");
    nn_clear(a.nn);
    weights(&a, x);
    CHECK(!memcmp(x, y, sizeof x) && nn_steps(a.opt) == 1);
    CHECK(nn_save_memory(a.net, s, sizeof s, &n, &a.save) && nn_load_memory(a.net, s, n, NULL));
    free(file);
    remove(path);
    nn_free(a.nn); nn_free(sgd.nn);
}

/* Everything at once: augmented, shuffled loading in mid-epoch, a schedule, averages, groups, states made late, amsgrad. */
typedef struct whole { nn_context *nn; nn_layer *net; nn_save_desc save; int64_t seen; } whole;
static float data_x[50 * 4];
static int64_t data_y[50];
static whole start_whole(uint64_t seed, int64_t batch)
{
    whole w = { .nn = nn_new(&(nn_desc){ .seed = seed, .on_error = test_quiet, .threads = 1 }) };
    nn_dataset *d;
    for (int i = 0; i < 200; i++) data_x[i] = (float)(i * 37 % 101) / 50 - 1;
    for (int i = 0; i < 50; i++) data_y[i] = i % 3;
    w.net = nn_model_new(w.nn, NULL);
    nn_linear_new(w.net, "fc1", 4, 8, NULL);
    nn_fn_new(w.net, nn_tanh);
    nn_linear_new(w.net, "fc2", 8, 3, NULL);
    nn_freeze(nn_child(w.net, "fc1"), 1);
    w.save.optimizer = nn_adam_new(w.net, &(nn_adam_desc){ .lr = 0.01f, .amsgrad = 1 });
    nn_optimizer_add(w.save.optimizer, w.net, &(nn_optimizer_desc){ .lr = 0.02f, .match = ".bias" });
    w.save.schedule = nn_warm_restarts_lr_new(w.save.optimizer, &(nn_schedule_desc){ .period = 7, .period_mult = 2, .warmup = 2 });
    w.save.ema = nn_ema_new(w.net, 0.9f);
    d = nn_dataset_new(w.nn, &(nn_dataset_desc){ .count = 50, .x_shape = NN_SHAPE(4), .classes = 3, .x = data_x, .labels = data_y });
    w.save.loader = nn_loader_new(d, &(nn_loader_desc){ .batch = batch, .shuffle = 1, .augment = &(nn_augment_desc){ .noise = 0.1f } });
    return w;
}
static void whole_steps(whole *w, int n)
{
    nn_batch b;
    while (n-- > 0) {
        nn_begin(w->nn, NN_TRAIN);
        while (!nn_loader_next(w->save.loader, &b)) if (!nn_ok(w->nn)) return;
        nn_backward(nn_cross_entropy(nn_forward(w->net, nn_add(b.x, nn_randn(w->nn, nn_shape_of(b.x), 0, 0.1f))), b.y, NULL));
        nn_step(w->save.optimizer);
        nn_ema_update(w->save.ema);
        nn_schedule_advance(w->save.schedule);
        if (++w->seen == 3) nn_freeze(nn_child(w->net, "fc1"), 0);
    }
}
static void whole_numbers(whole *w, float *to)
{
    for (int i = 0; i < 2; i++) {
        nn_read(nn_param(w->net, "fc1.weight"), to); nn_read(nn_param(w->net, "fc2.weight"), to + 32); nn_read(nn_param(w->net, "fc2.bias"), to + 56);
        to[59] = nn_lr(w->save.optimizer);
        to += 60;
        nn_ema_swap(w->save.ema);
    }
}
TEST(all_of_a_run_is_resumed)
{
    for (int done = 2; done < 30; done += 9) {           /* before and after the unfreezing; 11 batches are an epoch */
        whole a = start_whole(3, 9), b = start_whole(4, 9), c = start_whole(3, 10);
        float x[120], y[120];
        char *path = path_of("all"), s[65536];
        size_t n;
        whole_steps(&a, done);
        CHECK(nn_save(a.net, path, &a.save));
        whole_steps(&a, 20);
        CHECK(nn_resume(b.net, path, &b.save));
        b.seen = done;
        if (done >= 3) nn_freeze(nn_child(b.net, "fc1"), 0);
        whole_steps(&b, 20);
        whole_numbers(&a, x); whole_numbers(&b, y);
        CHECK(!memcmp(x, y, sizeof x));
        if (!nn_ok(a.nn) || !nn_ok(b.nn)) printf("%s %s\n", nn_error(a.nn), nn_error(b.nn));
        CHECK(nn_ok(a.nn) && nn_ok(b.nn));
        CHECK(nn_load(b.net, path, NULL));
        CHECK(!nn_resume(c.net, path, &c.save));         /* another batch size */
        CHECK_TEXT(nn_error(c.nn), "loader.batch is \"9\" in the file, here it is \"10\"");
        CHECK(nn_save_memory(a.net, s, sizeof s, &n, &a.save));
        remove(path);
        nn_free(a.nn); nn_free(b.nn); nn_free(c.nn);
    }
}

TEST(fields_are_exact)
{
    double d[] = { 0.1, -0.0, 1e-310, INFINITY, 3 }, e;
    int64_t i[] = { 0, 1, (int64_t)1 << 53, 12345678901234, 5 }, j;
    uint64_t u[] = { 0, 1, UINT64_MAX, UINT64_MAX - 1, 5 }, v;
    int small = 7;
    char text[64];
    nn__field a = { "", d, NN__FIELD_F64 };
    for (int k = 0; k < 5; k++) {
        a.kind = NN__FIELD_F64;   a.at = &d[k]; nn__field_text(&a, text, sizeof text); a.at = &e; CHECK(nn__set_field(&a, text, 1) && !memcmp(&e, &d[k], 8));
        a.kind = NN__FIELD_COUNT; a.at = &i[k]; nn__field_text(&a, text, sizeof text); a.at = &j; CHECK(nn__set_field(&a, text, 1) && j == i[k]);
        a.kind = NN__FIELD_SAME; CHECK(nn__set_field(&a, text, 1) && !nn__set_field(&a, "6", 1));
        a.kind = NN__FIELD_U64;   a.at = &u[k]; nn__field_text(&a, text, sizeof text); a.at = &v; CHECK(nn__set_field(&a, text, 1) && v == u[k]);
    }
    a.kind = NN__FIELD_U64; a.at = &v;
    CHECK(!nn__set_field(&a, "18446744073709551616", 1) && !nn__set_field(&a, "", 1) && !nn__set_field(&a, "-1", 1) && !nn__set_field(&a, "1 ", 1) && !nn__set_field(&a, "1f", 1));
    a.kind = NN__FIELD_COUNT; a.at = &j;
    CHECK(!nn__set_field(&a, "-1", 1) && !nn__set_field(&a, "9007199254740993", 1));
    a.kind = NN__FIELD_INT; a.at = &small;
    CHECK(!nn__set_field(&a, "2147483648", 1) && small == 7 && nn__set_field(&a, "2147483647", 1) && small == 2147483647);
    a.kind = NN__FIELD_F64; a.at = &e;
    CHECK(!nn__set_field(&a, "3ff", 1) && !nn__set_field(&a, "3ff000000000000g", 1));
}
