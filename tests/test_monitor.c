/* test_monitor.c - Event files, PNG, SVG, sparklines: read back byte by byte, and pictures by stb_image where it is installed. */
#define NN_DOUBLE
#define TEST_INSIDE
#include "library.h"
#include "test.h"
#include <dirent.h>
#if defined(__has_include)
#if __has_include(<stb/stb_image.h>)
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-function"
#include <stb/stb_image.h>
#define HAVE_STB 1
#endif
#endif

static nn_context *quiet(void) { nn_desc d = { 0 }; d.threads = 1; d.on_error = test_quiet; return nn_new(&d); }

static char *folder(const char *name)                   /* below NN_TEST_DIR, or /tmp: emptied */
{
    static char path[512];
    const char *base = getenv("NN_TEST_DIR");
    snprintf(path, sizeof path, "%s/nn_%s", base ? base : "/tmp", name);
    DIR *dir = opendir(path);
    if (dir) {
        struct dirent *e;
        char file[1024];
        while ((e = readdir(dir))) { snprintf(file, sizeof file, "%s/%s", path, e->d_name); remove(file); }
        closedir(dir);
    }
    nn__make_folders(path);
    return path;
}

TEST(crc_check_values)                                   /* of "123456789", from the catalogue of parametrised CRC algorithms */
{
    CHECK(nn__crc(0xEDB88320u, 0, (const unsigned char *)"123456789", 9) == 0xCBF43926u);
    CHECK(nn__crc(0x82F63B78u, 0, (const unsigned char *)"123456789", 9) == 0xE3069283u);
}

static void round_trip(nn_context *nn, int64_t c, int64_t h, int64_t w, int kind)
{
#ifdef HAVE_STB
    char path[600];
    size_t n;
    int64_t i, y, x;
    int sw = 0, sh = 0, sc = 0;
    float *v = malloc((size_t)(c * h * w) * sizeof *v);
    nn_begin(nn, NN_EVAL);
    for (i = 0; i < c * h * w; i++)
        v[i] = kind == 0 ? (float)(rand() % 256) / 255.0f : kind == 1 ? (float)(i / 97 % 2) : kind == 2 ? 0.5f : (float)(i % w) / (float)w;
    snprintf(path, sizeof path, "%s/a.png", folder("png"));
    CHECK(nn_png_save(nn_from(nn, NN_SHAPE(c, h, w), v), path));
    unsigned char *file = (unsigned char *)slurp(path, &n), *p = file ? stbi_load_from_memory(file, (int)n, &sw, &sh, &sc, 0) : NULL;
    CHECK(p && sw == w && sh == h && sc == c);
    int wrong = 0;
    for (i = 0; p && i < c; i++) for (y = 0; y < h; y++) for (x = 0; x < w; x++)
        wrong += p[(y * w + x) * c + i] != (unsigned char)(v[(i * h + y) * w + x] * 255.0f + 0.5f);
    CHECK(wrong == 0);
    if (kind == 2) CHECK(n < 200 + (size_t)(c * h * w) / 20);        /* flat areas shrink */
    stbi_image_free(p);
    free(file);
    free(v);
#else
    (void)nn; (void)c; (void)h; (void)w; (void)kind;
#endif
}

TEST(png_reads_back)
{
#ifndef HAVE_STB
    SKIP("stb_image.h is not installed");
#endif
    nn_context *nn = quiet();
    for (int kind = 0; kind < 4; kind++) {
        round_trip(nn, 1, 28, 28, kind);
        round_trip(nn, 3, 17, 31, kind);
        round_trip(nn, 1, 1, 1, kind);
        round_trip(nn, 3, 1, 700, kind);
        round_trip(nn, 1, 300, 1, kind);
        round_trip(nn, 3, 200, 333, kind);
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(png_clamps_and_rejects)
{
    nn_context *nn = quiet();
    char path[600];
    size_t n = 0;
    float v[4] = { -3, 7, NAN, 0.5f };
    snprintf(path, sizeof path, "%s/a.png", folder("png"));
    CHECK(nn_png_save(nn_from(nn, NN_SHAPE(2, 2), v), path));
#ifdef HAVE_STB
    int w, h, c;
    unsigned char *file = (unsigned char *)slurp(path, &n), *p = stbi_load_from_memory(file, (int)n, &w, &h, &c, 0);
    CHECK(p && p[0] == 0 && p[1] == 255 && p[2] == 0 && p[3] == 128);
    stbi_image_free(p);
    free(file);
#endif
    (void)n;
    CHECK(!nn_png_save(nn_zeros(nn, NN_SHAPE(2, 4, 4)), path));
    CHECK_TEXT(nn_error(nn), "2 channels");
    nn_clear(nn);
    CHECK(!nn_png_save(nn_zeros(nn, NN_SHAPE(4)), path));
    nn_clear(nn);
    CHECK(!nn_png_save(nn_expand(nn_zeros(nn, NN_SHAPE(1, 1, 1)), NN_SHAPE(1, 2, 70000)), path));
    CHECK_ERROR(nn, "70000 x 2 pixels is too large");
    CHECK(!nn_png_save(nn_zeros(nn, NN_SHAPE(1, 0, 4)), path));
    CHECK_TEXT(nn_error(nn), "empty");
    nn_clear(nn);
    CHECK(!nn_png_save(nn_zeros(nn, NN_SHAPE(1, 4, 4)), "/no/such/folder/a.png"));
    CHECK_TEXT(nn_error(nn), "/no/such/folder/a.png");
    nn_clear(nn);
    CHECK(!nn_png_save(NULL, path) && !nn_png_sheet(NULL, 3, path));
    CHECK(nn_ok(nn));
    nn_free(nn);
}

TEST(png_sheet)
{
    nn_context *nn = quiet();
    char path[600];
    snprintf(path, sizeof path, "%s/a.png", folder("png"));
    CHECK(nn_png_sheet(nn_randn(nn, NN_SHAPE(7, 1, 5, 5), 0, 1), 4, path));
#ifdef HAVE_STB
    size_t n;
    int w, h, c;
    unsigned char *file = (unsigned char *)slurp(path, &n), *p = stbi_load_from_memory(file, (int)n, &w, &h, &c, 0);
    CHECK(p && w == 4 * 46 - 1 && h == 2 * 46 - 1 && c == 1);        /* 5 x 5, enlarged nine times, one pixel between */
    int low = 255, high = 0;
    for (int y = 0; y < 45; y++) for (int x = 0; x < 45; x++) { int q = p[y * w + x]; if (q < low) low = q; if (q > high) high = q; }
    CHECK(low == 0 && high == 255);                                  /* negative numbers: own range */
    CHECK(p[0] == p[8] && p[0] == p[8 * w + 8]);
    stbi_image_free(p);
    free(file);
#endif
    CHECK(nn_png_sheet(nn_rand(nn, NN_SHAPE(2, 3, 60, 50), 0, 1), 9, path));
    CHECK(nn_png_sheet(nn_rand(nn, NN_SHAPE(4, 32, 3, 3), -1, 1), 32, path));  /* filters of a second layer: every channel alone */
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* -- a small reader of TFRecord and protobuf ------------------------------------------------- */
typedef struct { const unsigned char *p; size_t n; } span;
static uint64_t varint(span *s)
{
    uint64_t v = 0;
    for (int shift = 0; s->n; shift += 7) { unsigned c = *s->p++; s->n--; v |= (uint64_t)(c & 127) << shift; if (c < 128) break; }
    return v;
}
static int field(span *s, unsigned want, span *value, uint64_t *number)   /* looks for a field; 1 if found */
{
    span t = *s;
    while (t.n) {
        uint64_t key = varint(&t), v = 0;
        span in = { NULL, 0 };
        if ((key & 7) == 0) v = varint(&t);
        else {
            size_t n = (key & 7) == 1 ? 8 : (key & 7) == 5 ? 4 : (size_t)varint(&t);
            if (n > t.n) return 0;
            in.p = t.p; in.n = n;
            if (n <= 8) memcpy(&v, t.p, n);
            t.p += n; t.n -= n;
        }
        if (key >> 3 == want) { if (value) *value = in; if (number) *number = v; return 1; }
    }
    return 0;
}
static uint32_t u32(const unsigned char *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }

static int next_event(span *file, span *event)           /* checks both CRCs */
{
    uint64_t n;
    if (file->n < 16) return 0;
    memcpy(&n, file->p, 8);
    CHECK(u32(file->p + 8) == nn__masked_crc(file->p, 8));
    if (n > file->n - 16) return 0;
    event->p = file->p + 12;
    event->n = (size_t)n;
    CHECK(u32(event->p + n) == nn__masked_crc(event->p, (size_t)n));
    file->p += n + 16;
    file->n -= (size_t)n + 16;
    return 1;
}

TEST(event_file)
{
    nn_context *nn = quiet();
    const char *dir = folder("events");
    char path[1200] = "", text[64];
    float v[1000], pixels[2 * 3];
    uint64_t number;
    double d;
    float f;
    for (int i = 0; i < 1000; i++) v[i] = (float)i / 100.0f;
    v[5] = NAN; v[7] = INFINITY;
    for (int i = 0; i < 6; i++) pixels[i] = (float)i / 5;
    nn_events *e = nn_events_new(nn, dir), *e2 = nn_events_new(nn, dir);   /* a second run in the same second: a file of its own */
    CHECK(e && e2);
    CHECK(nn_events_scalar(e, "loss", 3, 0.25));
    CHECK(nn_events_scalar(e, "l\xC3\xB6ss \xff", 1234567890123, NAN));
    CHECK(nn_events_histogram(e, "weights", 4, v, 1000));
    CHECK(nn_events_histogram(e, "one value", 4, v, 1));
    CHECK(nn_events_histogram(e, "nothing", 4, NULL, 0));
    CHECK(nn_events_image(e, "picture", 5, nn_from(nn, NN_SHAPE(1, 2, 3), pixels)));
    CHECK(nn_events_text(e, "note", 6, "**bold** <&> \n text"));
    struct dirent *entry;
    int files = 0;
    DIR *list = opendir(dir);
    while ((entry = readdir(list))) if (strstr(entry->d_name, "events.out.tfevents.")) {
        files++;
        if (strstr(entry->d_name, ".0")) snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
    }
    closedir(list);
    CHECK(files == 2);
    size_t n;
    unsigned char *bytes = (unsigned char *)slurp(path, &n);              /* flushed already: the context is still alive */
    span file = { bytes, n }, event, summary, value, tag, x, y;
    CHECK(next_event(&file, &event) && field(&event, 3, &x, NULL) && x.n == 13 && !memcmp(x.p, "brain.Event:2", 13));
    CHECK(field(&event, 1, NULL, &number));
    memcpy(&d, &number, 8);
    CHECK(d > 1.7e9 && d < 1e11);
    CHECK(next_event(&file, &event) && field(&event, 2, NULL, &number) && number == 3);
    CHECK(field(&event, 5, &summary, NULL) && field(&summary, 1, &value, NULL) && field(&value, 1, &tag, NULL) && tag.n == 4 && !memcmp(tag.p, "loss", 4));
    CHECK(field(&value, 2, &x, NULL) && x.n == 4);
    memcpy(&f, x.p, 4);
    CHECK(f == 0.25f);
    CHECK(next_event(&file, &event) && field(&event, 2, NULL, &number) && number == 1234567890123);
    CHECK(field(&event, 5, &summary, NULL) && field(&summary, 1, &value, NULL) && field(&value, 1, &tag, NULL) && !memcmp(tag.p, "l\xC3\xB6ss ?", 7));
    CHECK(next_event(&file, &event) && field(&event, 5, &summary, NULL) && field(&summary, 1, &value, NULL) && field(&value, 5, &x, NULL));
    CHECK(field(&x, 3, NULL, &number));
    memcpy(&d, &number, 8);
    CHECK(d == 998);                                     /* NaN and infinity are left out */
    CHECK(field(&x, 6, &y, NULL) && y.n == 30 * 8 && field(&x, 7, &tag, NULL) && tag.n == 30 * 8);
    double sum = 0, last = -1, limit = 0;
    for (int i = 0; i < 30; i++) { memcpy(&d, tag.p + 8 * i, 8); sum += d; memcpy(&limit, y.p + 8 * i, 8); CHECK(limit > last); last = limit; }
    CHECK(sum == 998);
    CHECK_NEAR(limit, 9.99, 1e-6);
    CHECK(next_event(&file, &event) && next_event(&file, &event));
    CHECK(next_event(&file, &event) && field(&event, 5, &summary, NULL) && field(&summary, 1, &value, NULL) && field(&value, 4, &x, NULL));
    CHECK(field(&x, 1, NULL, &number) && number == 2 && field(&x, 2, NULL, &number) && number == 3 && field(&x, 3, NULL, &number) && number == 1);
    CHECK(field(&x, 4, &y, NULL) && !memcmp(y.p, "\x89PNG", 4));
#ifdef HAVE_STB
    int w, h, c;
    unsigned char *p = stbi_load_from_memory(y.p, (int)y.n, &w, &h, &c, 0);
    CHECK(p && w == 3 && h == 2 && p[5] == 255 && p[1] == 51);
    stbi_image_free(p);
#endif
    CHECK(next_event(&file, &event) && field(&event, 5, &summary, NULL) && field(&summary, 1, &value, NULL) && field(&value, 8, &x, NULL));
    CHECK(field(&x, 8, &y, NULL) && y.n == 19);
    CHECK(field(&value, 9, &x, NULL) && field(&x, 1, &y, NULL) && field(&y, 1, &tag, NULL));
    snprintf(text, sizeof text, "%.*s", (int)tag.n, (const char *)tag.p);
    CHECK_TEXT(text, "text");
    CHECK(file.n == 0);
    free(bytes);
    CHECK(nn_ok(nn));
    CHECK(!nn_events_new(nn, "/proc/no/such"));
    CHECK_TEXT(nn_error(nn), "/proc/no/such");
    nn_clear(nn);
    CHECK(!nn_events_scalar(NULL, "x", 0, 0) && !nn_events_text(NULL, "x", 0, "") && !nn_events_image(NULL, "x", 0, NULL));
    nn_free(nn);
}

TEST(a_full_disk_is_an_error)
{
    FILE *full = fopen("/dev/full", "wb");
    if (!full) SKIP("no /dev/full");
    fclose(full);
    nn_context *nn = quiet();
    CHECK(!nn_png_save(nn_zeros(nn, NN_SHAPE(1, 4, 4)), "/dev/full"));
    CHECK_TEXT(nn_error(nn), "/dev/full");
    nn_clear(nn);
    nn_events *e = nn_events_new(nn, folder("events"));
    fclose(e->file);
    e->file = fopen("/dev/full", "wb");
    CHECK(!nn_events_scalar(e, "loss", 0, 1));
    CHECK_TEXT(nn_error(nn), "nn_events");
    nn_free(nn);
}

TEST(svg_plot)
{
    nn_context *nn = quiet();
    char path[600];
    double a[6] = { 1, 0.5, NAN, 0.25, 0.2, 0.19 }, b[3] = { NAN, 3, NAN }, same[2] = { 5, 5 }, wild[4] = { -1e308, 1e308, INFINITY, 0 };
    nn_series s[4] = { { "train <loss>", a, 6, NULL }, { "b & c", b, 3, NULL }, { "none", NULL, 0, NULL }, { NULL, a, 1, NULL } };
    size_t n;
    snprintf(path, sizeof path, "%s/a.svg", folder("svg"));
    CHECK(nn_svg_plot(nn, path, "title", s, 4));
    char *t = slurp(path, &n);
    CHECK(t && n > 500);
    CHECK_TEXT(t, "train &lt;loss>");
    CHECK_TEXT(t, "b &amp; c");
    CHECK_TEXT(t, "h0");                                 /* the lonely point */
    CHECK(!strstr(t, "nan") && !strstr(t, "inf"));
    free(t);
    s[0].y = same; s[0].count = 2;
    CHECK(nn_svg_plot(nn, path, NULL, s, 1));
    s[0].labels = (const char *const[]){ "Jan <1>", NULL };          /* texts below the axis */
    CHECK(nn_svg_plot(nn, path, NULL, s, 1) && (t = slurp(path, &n)) != NULL);
    CHECK_TEXT(t, ">Jan &lt;1></text>");
    CHECK(!strstr(t, ">1</text>"));
    free(t);
    s[0].labels = NULL;
    s[0].y = wild; s[0].count = 4;
    CHECK(nn_svg_plot(nn, path, "wild", s, 1));
    t = slurp(path, &n);
    CHECK(t && !strstr(t, "nan") && !strstr(t, "inf"));
    free(t);
    CHECK(nn_svg_plot(nn, path, "nothing", NULL, 0));
    CHECK(nn_ok(nn));
    CHECK(!nn_svg_plot(nn, "/no/such/a.svg", "", s, 1));
    nn_free(nn);
}

TEST(svg_confusion)
{
    nn_context *nn = quiet();
    static nn_report r;
    char path[600];
    size_t n;
    r.classes = 3;
    r.confusion[0][0] = 40; r.confusion[0][2] = 7; r.confusion[1][1] = 123456;
    snprintf(r.names[0], 16, "set<osa>");
    snprintf(path, sizeof path, "%s/a.svg", folder("svg"));
    CHECK(nn_svg_confusion(nn, path, &r));
    char *t = slurp(path, &n);
    CHECK_TEXT(t, "set&lt;osa>");
    CHECK_TEXT(t, ">123456<");
    CHECK_TEXT(t, ">7<");
    free(t);
    r.classes = 64;
    CHECK(nn_svg_confusion(nn, path, &r));
    r.classes = 0;
    CHECK(!nn_svg_confusion(nn, path, &r));
    CHECK_TEXT(nn_error(nn), "no classes");
    nn_free(nn);
}

TEST(sparkline)
{
    double y[8] = { 0, 1, 2, 3, 4, 5, 6, 7 }, gap[3] = { 1, NAN, 2 }, flat[2] = { 3, 3 };
    char s[64], tiny[5];
    CHECK(nn_sparkline(y, 8, 8, s, sizeof s) == 24);
    CHECK(!strcmp(s, "\xE2\x96\x81\xE2\x96\x82\xE2\x96\x83\xE2\x96\x84\xE2\x96\x85\xE2\x96\x86\xE2\x96\x87\xE2\x96\x88"));
    CHECK(nn_sparkline(gap, 3, 20, s, sizeof s) == 7 && s[3] == ' ');
    CHECK(nn_sparkline(flat, 2, 20, s, sizeof s) == 6);
    CHECK(nn_sparkline(y, 8, 2, s, sizeof s) == 6);
    CHECK(nn_sparkline(y, 8, 8, tiny, sizeof tiny) == 24 && strlen(tiny) == 3);
    CHECK(nn_sparkline(NULL, 0, 8, s, sizeof s) == 0 && s[0] == 0);
}
