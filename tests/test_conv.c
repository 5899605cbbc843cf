/* test_conv.c - convolution, pooling, upsampling against naive loops: every option, both gradients, errors, and equal bits. */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

static uint32_t dice_state = 1;
static int dice(int low, int high)   /* low..high */
{
    dice_state = dice_state * 1664525u + 1013904223u;
    return low + (int)((dice_state >> 8) % (uint32_t)(high - low + 1));
}
static float *numbers(int64_t n)
{
    float *x = malloc(((size_t)n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)dice(-1000, 1000) / 700.0f;
    return x;
}
static double *zeros(int64_t n) { return calloc((size_t)n + 1, sizeof(double)); }
static void check_all(const char *what, const nn_tensor *t, const double *want, double factor)
{
    int64_t n = t ? nn_count(t) : 0;
    float *got = malloc(((size_t)n + 1) * sizeof *got);
    double scale = 1e-3;
    CHECK(t && nn_read(t, got));
    for (int64_t i = 0; i < n; i++) if (fabs(want[i]) > scale) scale = fabs(want[i]);
    for (int64_t i = 0; t && i < n; i++) if (!(fabs(got[i] - factor * want[i]) <= 5e-5 * scale)) {
        printf("%s[%lld] = %g, should be %g\n", what, (long long)i, got[i], factor * want[i]);
        CHECK(0);
        break;
    }
    free(got);
}
static const char *tables[] = { "scalar", "fma", "avx2", "avx512", "neon" };
static nn_context *context_of(const char *isa, int threads)
{
    nn_context *nn = nn_new(&(nn_desc){ .isa = isa, .threads = threads, .on_error = test_quiet });
    if (nn && !nn_ok(nn)) { nn_free(nn); nn = NULL; }
    return nn;
}

/* ---- convolution ---- */
typedef struct sizes { int transposed, b, g, c, o, h, w, kh, kw, sh, sw, ph, pw, dh, dw, eh, ew, same, oh, ow, bias; } sizes;   /* c, o: inputs and outputs of a group */
typedef struct results { double *y, *dx, *dw, *db; } results;

/* The definition: input pixel (iy, ix) and output pixel (oy, ox) are tied by tap (ky, kx) if  large = small stride - pad + k dilation. */
static results naive(const sizes *s, const float *x, const float *w, const float *bias, const float *dy)
{
    int64_t ny = (int64_t)s->b * s->g * s->o * s->oh * s->ow, nx = (int64_t)s->b * s->g * s->c * s->h * s->w, nw = (int64_t)s->g * s->o * s->c * s->kh * s->kw;
    results r = { zeros(ny), zeros(nx), zeros(nw), zeros(s->g * s->o) };
    int top = s->same ? s->dh * (s->kh - 1) / 2 : s->ph, left = s->same ? s->dw * (s->kw - 1) / 2 : s->pw;
    for (int64_t i = 0; i < ny; i++) {
        int o = (int)(i / ((int64_t)s->oh * s->ow) % (s->g * s->o));
        r.y[i] = s->bias ? bias[o] : 0;
        r.db[o] += dy[i];
    }
    for (int b = 0; b < s->b; b++) for (int g = 0; g < s->g; g++) for (int o = 0; o < s->o; o++) for (int c = 0; c < s->c; c++)
    for (int a = 0; a < (s->transposed ? s->h : s->oh); a++) for (int e = 0; e < (s->transposed ? s->w : s->ow); e++)
    for (int ky = 0; ky < s->kh; ky++) for (int kx = 0; kx < s->kw; kx++) {
        int ly = a * s->sh - top + ky * s->dh, lx = e * s->sw - left + kx * s->dw;
        int oy = s->transposed ? ly : a, ox = s->transposed ? lx : e, iy = s->transposed ? a : ly, ix = s->transposed ? e : lx;
        int64_t at_y = (((int64_t)b * s->g + g) * s->o + o) * s->oh * s->ow + (int64_t)oy * s->ow + ox;
        int64_t at_x = (((int64_t)b * s->g + g) * s->c + c) * s->h * s->w + (int64_t)iy * s->w + ix;
        int64_t at_w = s->transposed ? (((int64_t)(g * s->c + c) * s->o + o) * s->kh + ky) * s->kw + kx : (((int64_t)(g * s->o + o) * s->c + c) * s->kh + ky) * s->kw + kx;
        if (iy < 0 || ix < 0 || iy >= s->h || ix >= s->w || oy < 0 || ox < 0 || oy >= s->oh || ox >= s->ow) continue;
        r.y[at_y] += (double)w[at_w] * x[at_x];
        r.dx[at_x] += (double)w[at_w] * dy[at_y];
        r.dw[at_w] += (double)x[at_x] * dy[at_y];
    }
    return r;
}
static int zero(int v) { return v ? v : NN_ZERO; }
static int finish(sizes *s)          /* the size of the result; 0 if there is none */
{
    int rh = s->dh * (s->kh - 1) + 1, rw = s->dw * (s->kw - 1) + 1;
    if (s->transposed) {
        s->oh = (s->h - 1) * s->sh - 2 * s->ph + rh + s->eh;
        s->ow = (s->w - 1) * s->sw - 2 * s->pw + rw + s->ew;
    } else if (s->same) { s->oh = s->h; s->ow = s->w; }
    else {
        s->oh = s->h + 2 * s->ph < rh ? 0 : (s->h + 2 * s->ph - rh) / s->sh + 1;
        s->ow = s->w + 2 * s->pw < rw ? 0 : (s->w + 2 * s->pw - rw) / s->sw + 1;
    }
    return s->oh > 0 && s->ow > 0;
}
static nn_tensor *apply(const sizes *s, nn_tensor *x, nn_tensor *w, nn_tensor *b, int signal)
{
    nn_conv_desc d = { .stride = s->sh, .stride_w = s->sw, .padding = s->ph, .padding_w = zero(s->pw), .dilation = s->dh, .dilation_w = s->dw, .groups = s->g, .same = s->same,
                       .output_padding = s->eh, .output_padding_w = zero(s->ew) };
    if (signal) { d.stride = s->sw; d.padding = s->pw; d.dilation = s->dw; d.output_padding = s->ew; d.stride_w = d.padding_w = d.dilation_w = d.output_padding_w = 0; }
    if (s->transposed) return signal ? nn_conv_transpose1d(x, w, b, &d) : nn_conv_transpose2d(x, w, b, &d);
    return signal ? nn_conv1d(x, w, b, &d) : nn_conv2d(x, w, b, &d);
}
static void check_conv(nn_context *nn, const sizes *s, int signal)
{
    int ic = s->g * s->c, oc = s->g * s->o;
    int64_t nx = (int64_t)s->b * ic * s->h * s->w, nw = (int64_t)oc * s->c * s->kh * s->kw, ny = (int64_t)s->b * oc * s->oh * s->ow;
    float *fx = numbers(nx), *fw = numbers(nw), *fb = numbers(oc), *fy = numbers(ny);
    results r = naive(s, fx, fw, fb, fy);
    nn_shape sx = NN_SHAPE(s->b, ic, s->h, s->w), sw = s->transposed ? NN_SHAPE(ic, s->o, s->kh, s->kw) : NN_SHAPE(oc, s->c, s->kh, s->kw), sy = NN_SHAPE(s->b, oc, s->oh, s->ow);
    if (signal) { sx = NN_SHAPE(s->b, ic, s->w); sw = NN_SHAPE(sw.d[0], sw.d[1], s->kw); sy = NN_SHAPE(s->b, oc, s->ow); }
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_want_grad(nn_from(nn, sx, fx)), *w = nn_want_grad(nn_from(nn, sw, fw)), *b = s->bias ? nn_want_grad(nn_from(nn, NN_SHAPE(oc), fb)) : NULL;
    nn_tensor *dy = nn_from(nn, sy, fy), *y = apply(s, x, w, b, signal);
    CHECK(nn_ok(nn));
    if (!nn_ok(nn)) printf("%s\n", nn_error(nn));
    CHECK(y->ndim == sy.ndim && !memcmp(y->shape, sy.d, (size_t)sy.ndim * sizeof *y->shape));
    check_all("y", y, r.y, 1);
    nn_backward_with(y, &(nn_backward_desc){ .grad = dy });
    check_all("dx", nn_grad(x), r.dx, 1);
    check_all("dw", nn_grad(w), r.dw, 1);
    if (b) check_all("db", nn_grad(b), r.db, 1);
    nn_begin(nn, NN_TRAIN);          /* used twice: the second gradient is added */
    x = nn_want_grad(nn_from(nn, sx, fx)); w = nn_want_grad(nn_from(nn, sw, fw)); b = s->bias ? nn_want_grad(nn_from(nn, NN_SHAPE(oc), fb)) : NULL;
    y = nn_add(apply(s, x, w, b, signal), apply(s, x, w, b, signal));
    nn_backward_with(y, &(nn_backward_desc){ .grad = nn_from(nn, sy, fy) });
    check_all("2 dx", nn_grad(x), r.dx, 2);
    check_all("2 dw", nn_grad(w), r.dw, 2);
    if (b) check_all("2 db", nn_grad(b), r.db, 2);
    CHECK(nn_ok(nn));
    nn_clear(nn);
    if (test_failures) printf("  in %s b %d g %d c %d o %d x %dx%d k %dx%d stride %d,%d pad %d,%d dilation %d,%d extra %d,%d same %d on %s\n", s->transposed ? "conv_transpose" : "conv",
                              s->b, s->g, s->c, s->o, s->h, s->w, s->kh, s->kw, s->sh, s->sw, s->ph, s->pw, s->dh, s->dw, s->eh, s->ew, s->same, nn_isa(nn));
    free(fx); free(fw); free(fb); free(fy); free(r.y); free(r.dx); free(r.dw); free(r.db);
}
static sizes any_sizes(int signal)
{
    for (;;) {
        sizes s = { .transposed = dice(0, 1), .b = dice(0, 9) ? dice(1, 3) : 0, .g = dice(0, 2) ? 1 : dice(2, 4), .c = dice(1, 4), .o = dice(1, 5), .h = dice(1, 12), .w = dice(1, 15), .kh = dice(1, 4),
                    .kw = dice(1, 5), .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = dice(0, 3) > 0 };
        switch (dice(0, 9)) {
            case 0: s.g = dice(2, 9); s.c = 1; s.o = dice(1, 2); break;             /* depthwise */
            case 1: s.o = dice(20, 40); break;
            case 2: s.c = dice(20, 70); break;
            case 3: s.kh = s.kw = 1; break;
            case 4: s.h = dice(12, 24); s.w = dice(20, 40); s.b = dice(1, 4); break;
        }
        if (dice(0, 1)) { s.sh = dice(1, 4); s.sw = dice(1, 4); }
        if (dice(0, 1)) { s.dh = dice(1, 3); s.dw = dice(1, 3); }
        if (dice(0, 1)) { s.ph = dice(0, 4); s.pw = dice(0, 4); }
        if (!s.transposed && !dice(0, 5)) { s.same = 1; s.sh = s.sw = 1; s.ph = s.pw = 0; }
        if (s.transposed && dice(0, 1)) { s.eh = dice(0, (s.sh > s.dh ? s.sh : s.dh) - 1); s.ew = dice(0, (s.sw > s.dw ? s.sw : s.dw) - 1); }
        if (signal) s.h = s.kh = s.sh = s.dh = 1, s.ph = s.eh = 0;
        if (finish(&s)) return s;
    }
}
TEST(conv_fuzz)
{
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        nn_context *nn = context_of(tables[t], 2);
        if (!nn) continue;
        for (int i = 0; i < 150 && !test_failures; i++) {
            int signal = dice(0, 4) == 0;
            sizes s = any_sizes(signal);
            check_conv(nn, &s, signal);
        }
        nn_free(nn);
    }
}
static void check_list(const sizes *list, size_t count)      /* on the best table with two threads, and on plain C */
{
    nn_context *nn = context_of(NULL, 2), *plain = context_of("scalar", 1);
    for (size_t i = 0; i < count; i++) {
        sizes s = list[i];
        CHECK(finish(&s));
        check_conv(nn, &s, 0);
        check_conv(plain, &s, 0);
    }
    nn_free(nn);
    nn_free(plain);
}

/* A direct sum of K terms:  |error| <= (K + 1) u sum |a b|, u = 2^-24, in y, dx, dw and db alike: the sums of the absolute values come from the same loops. */
static void within(const char *what, const nn_tensor *t, const double *want, const double *sum, int64_t terms)
{
    int64_t n = nn_count(t);
    float *got = malloc(((size_t)n + 1) * sizeof *got);
    double most = 0;
    CHECK(nn_read(t, got));
    for (int64_t i = 0; i < n; i++) {
        double bound = (double)(terms + 1) * ldexp(sum[i], -24), e = fabs(got[i] - want[i]);
        if (!(e <= bound)) { printf("%s[%lld]: error %g, bound %g\n", what, (long long)i, e, bound); CHECK(0); break; }
        if (bound > 0 && e / bound > most) most = e / bound;
    }
    CHECK(most > 0);
    free(got);
}
static void absolute(float *x, int64_t n) { for (int64_t i = 0; i < n; i++) x[i] = fabsf(x[i]); }
TEST(direct_sums_are_within_their_bound)
{
    static const sizes list[] = {
        { .b = 3, .g = 1, .c = 3, .o = 17, .h = 11, .w = 13, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },        /* strips */
        { .b = 20, .g = 1, .c = 1, .o = 6, .h = 28, .w = 28, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },                             /* several chunks of the batch */
        { .b = 2, .g = 1, .c = 40, .o = 37, .h = 9, .w = 11, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },           /* channels in lanes */
        { .b = 2, .g = 1, .c = 64, .o = 30, .h = 8, .w = 9, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },            /* Winograd, if it may */
        { .b = 2, .g = 1, .c = 70, .o = 33, .h = 9, .w = 9, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },                              /* products of images */
        { .b = 3, .g = 9, .c = 1, .o = 1, .h = 14, .w = 15, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },            /* depthwise */
        { .b = 3, .g = 21, .c = 1, .o = 1, .h = 9, .w = 37, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },                     /* two channels a task */
        { .transposed = 1, .b = 2, .g = 17, .c = 1, .o = 1, .h = 5, .w = 12, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 11, .g = 1, .c = 20, .o = 37, .h = 8, .w = 9, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },                             /* all of dw in a task */
        { .b = 1, .g = 1, .c = 2, .o = 3, .h = 20, .w = 21, .kh = 9, .kw = 9, .sh = 1, .sw = 2, .ph = 3, .dh = 1, .dw = 1, .bias = 1 },                     /* packed panels */
        { .b = 1, .g = 1, .c = 100, .o = 17, .h = 14, .w = 14, .kh = 3, .kw = 3, .sh = 3, .sw = 3, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .transposed = 1, .b = 2, .g = 1, .c = 19, .o = 35, .h = 5, .w = 6, .kh = 4, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
    };
    for (size_t l = 0; l < sizeof list / sizeof *list; l++) {
        sizes s = list[l];
        CHECK(finish(&s));
        int ic = s.g * s.c, oc = s.g * s.o;
        int64_t nx = (int64_t)s.b * ic * s.h * s.w, nw = (int64_t)oc * s.c * s.kh * s.kw, ny = (int64_t)s.b * oc * s.oh * s.ow;
        float *fx = numbers(nx), *fw = numbers(nw), *fb = numbers(oc), *fy = numbers(ny), *kept[4];
        const float *from[4] = { fx, fw, fb, fy };
        const int64_t size[4] = { nx, nw, oc, ny };
        for (int i = 0; i < 4; i++) { kept[i] = malloc((size_t)size[i] * sizeof(float)); memcpy(kept[i], from[i], (size_t)size[i] * sizeof(float)); absolute(kept[i], size[i]); }
        results r = naive(&s, fx, fw, fb, fy), a = naive(&s, kept[0], kept[1], kept[2], kept[3]);
        int64_t places = s.transposed ? (int64_t)s.b * s.h * s.w : (int64_t)s.b * s.oh * s.ow;
        for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
            nn_context *nn = nn_new(&(nn_desc){ .isa = tables[t], .threads = 2, .winograd = NN_ZERO, .on_error = test_quiet });
            if (!nn_ok(nn)) { nn_free(nn); continue; }
            nn_begin(nn, NN_TRAIN);
            nn_tensor *x = nn_want_grad(nn_from(nn, NN_SHAPE(s.b, ic, s.h, s.w), fx)), *b = nn_want_grad(nn_from(nn, NN_SHAPE(oc), fb));
            nn_tensor *w = nn_want_grad(nn_from(nn, s.transposed ? NN_SHAPE(ic, s.o, s.kh, s.kw) : NN_SHAPE(oc, s.c, s.kh, s.kw), fw)), *y = apply(&s, x, w, b, 0);
            within("y", y, r.y, a.y, (int64_t)s.c * s.kh * s.kw + 1);
            nn_backward_with(y, &(nn_backward_desc){ .grad = nn_from(nn, NN_SHAPE(s.b, oc, s.oh, s.ow), fy) });
            within("dx", nn_grad(x), r.dx, a.dx, (int64_t)s.o * s.kh * s.kw);
            within("dw", nn_grad(w), r.dw, a.dw, places);
            within("db", nn_grad(b), r.db, a.db, (int64_t)s.b * s.oh * s.ow);
            CHECK(nn_ok(nn));
            if (test_failures) printf("  in case %d on %s\n", (int)l, tables[t]);
            nn_free(nn);
        }
        for (int i = 0; i < 4; i++) free(kept[i]);
        free(fx); free(fw); free(fb); free(fy);
        free(r.y); free(r.dx); free(r.dw); free(r.db); free(a.y); free(a.dx); free(a.dw); free(a.db);
    }
}

TEST(conv_large)                     /* several blocks of rows, columns, terms, taps; several chunks of the batch */
{
    static const sizes list[] = {
        { .b = 2, .g = 1, .c = 70, .o = 210, .h = 9, .w = 8, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 40, .g = 1, .c = 3, .o = 8, .h = 20, .w = 21, .kh = 5, .kw = 5, .sh = 2, .sw = 2, .ph = 2, .pw = 2, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 33, .g = 6, .c = 1, .o = 1, .h = 24, .w = 25, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 2, .g = 2, .c = 1, .o = 2, .h = 90, .w = 130, .kh = 5, .kw = 3, .sh = 2, .sw = 3, .ph = 2, .pw = 1, .dh = 2, .dw = 1, .bias = 1 },
        { .b = 1, .g = 2, .c = 1, .o = 1, .h = 12, .w = 9000, .kh = 9, .kw = 9, .sh = 1, .sw = 1, .ph = 4, .pw = 4, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 1, .g = 1, .c = 2, .o = 3, .h = 30, .w = 31, .kh = 20, .kw = 21, .sh = 1, .sw = 2, .ph = 3, .pw = 0, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 2, .g = 1, .c = 3, .o = 16, .h = 32, .w = 32, .kh = 8, .kw = 8, .sh = 8, .sw = 8, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 3, .g = 1, .c = 3, .o = 10, .h = 31, .w = 33, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 2, .g = 2, .c = 7, .o = 90, .h = 20, .w = 30, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .ph = 3, .pw = 3, .dh = 1, .dw = 1 },
        { .b = 2, .g = 1, .c = 30, .o = 250, .h = 9, .w = 9, .kh = 1, .kw = 1, .sh = 2, .sw = 2, .dh = 1, .dw = 1 },
        { .b = 2, .g = 3, .c = 1, .o = 1, .h = 15, .w = 30, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .ph = 2, .pw = 2, .dh = 1, .dw = 1 },
        { .transposed = 1, .b = 2, .g = 1, .c = 40, .o = 100, .h = 5, .w = 6, .kh = 4, .kw = 4, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .transposed = 1, .b = 3, .g = 5, .c = 1, .o = 1, .h = 20, .w = 50, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .eh = 1, .ew = 1, .bias = 1 },
    };
    check_list(list, sizeof list / sizeof *list);
}
/* Winograd: against double, the bound of each tile; NN_ZERO is a direct sum; the same bits on every table that fuses, with any threads, alone and in a batch. */
static int error_of(const char *what, const float *got, const double *want, int64_t n, double rms_bound, double max_bound)
{
    double square = 0, norm = 0, most = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = fabs(got[i] - want[i]);
        square += e * e;
        norm += want[i] * want[i];
        if (!(e <= most)) most = e;
        if (fabs(want[i]) > largest) largest = fabs(want[i]);
    }
    if (square <= rms_bound * rms_bound * norm && most <= max_bound * largest) return 1;
    printf("%s: error %g of the norm, %g of the largest\n", what, sqrt(square / norm), most / largest);
    CHECK(0);
    return 0;
}
static const struct { const char *name; int largest; double rms, most; } tiles[] = { { "F(4x4) or F(2x2)", 4, 4e-6, 1e-5 }, { "F(2x2)", 2, 1.2e-6, 4e-6 }, { "direct", NN_ZERO, 2e-6, 1e-5 } };
enum { TWO = 1, FOUR = 2, TWO_AT_MOST = 4 };                 /* what was chosen: by itself, and where 2 is the largest */
static void winograd(const sizes *s, int chosen[3])
{
    int64_t count[3] = { (int64_t)s->b * s->g * s->o * s->oh * s->ow, (int64_t)s->b * s->g * s->c * s->h * s->w, (int64_t)s->g * s->o * s->c * 9 };
    float *fx = numbers(count[1]), *fw = numbers(count[2]), *fb = numbers(s->g * s->o), *fy = numbers(count[0]), *first[3][3] = { { NULL } };
    results r = naive(s, fx, fw, fb, fy);
    const double *want[3] = { r.y, r.dx, r.dw };
    static const char *what[3] = { "y", "dx", "dw" };
    int used = 0;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) for (int threads = 1; threads <= (t ? 3 : 1); threads += 2) for (int k = 0; k < 3; k++) {
        nn_context *nn;
        if (tiles[k].largest == NN_ZERO && (t == 0 || threads > 1)) continue;        /* direct sums have a test of their own */
        if (threads > 1 && !strcmp(tables[t], "fma")) continue;                     /* a number at a time: slow */
        nn = nn_new(&(nn_desc){ .isa = tables[t], .threads = threads, .winograd = tiles[k].largest, .on_error = test_quiet });
        if (!nn_ok(nn)) { nn_free(nn); continue; }
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_want_grad(nn_from(nn, NN_SHAPE(s->b, s->g * s->c, s->h, s->w), fx)), *b = s->bias ? nn_from(nn, NN_SHAPE(s->g * s->o), fb) : NULL;
        nn_tensor *w = nn_want_grad(nn_from(nn, s->transposed ? NN_SHAPE(s->g * s->c, s->o, 3, 3) : NN_SHAPE(s->g * s->o, s->c, 3, 3), fw)), *y = apply(s, x, w, b, 0);
        nn_backward_with(y, &(nn_backward_desc){ .grad = nn_from(nn, NN_SHAPE(s->b, s->g * s->o, s->oh, s->ow), fy) });
        nn_tensor *all[3] = { y, nn_grad(x), nn_grad(w) };
        for (int i = 0; i < 3; i++) {
            float *got = malloc((size_t)count[i] * sizeof *got);
            CHECK(nn_read(all[i], got));
            if (!error_of(what[i], got, want[i], count[i], tiles[k].rms, tiles[k].most)) printf("  with %s on %s\n", tiles[k].name, tables[t]);
            if (t > 0 && first[k][i]) CHECK(!memcmp(got, first[k][i], (size_t)count[i] * sizeof *got));
            if (t > 0 && !first[k][i]) first[k][i] = got;
            else free(got);
        }
        if (first[k][0]) {                               /* the last sample alone */
            int64_t nx = count[1] / s->b, ny = count[0] / s->b;
            float *got = malloc((size_t)ny * sizeof *got);
            CHECK(nn_read(apply(s, nn_from(nn, NN_SHAPE(1, s->g * s->c, s->h, s->w), fx + (s->b - 1) * nx), nn_from(nn, nn_shape_of(w), fw), b, 0), got));
            CHECK(!memcmp(got, first[k][0] + (s->b - 1) * ny, (size_t)ny * sizeof *got));
            free(got);
        }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
    for (int i = 0; i < 3 && first[0][i]; i++) {
        size_t bytes = (size_t)count[i] * sizeof(float);
        int two = memcmp(first[1][i], first[2][i], bytes) != 0, any = memcmp(first[0][i], first[2][i], bytes) != 0, four = any && memcmp(first[0][i], first[1][i], bytes) != 0;
        chosen[i] |= (two ? TWO_AT_MOST : 0) | (four ? FOUR : any ? TWO : 0);
        used |= any;
    }
#ifndef NN_DETERMINISTIC
    CHECK(used || !first[0][0]);         /* else this was no case of Winograd */
#endif
    free(fx); free(fw); free(fb); free(fy); free(r.y); free(r.dx); free(r.dw); free(r.db);
    for (int k = 0; k < 9; k++) free(first[k / 3][k % 3]);
}
TEST(conv_winograd)
{
    static const struct { int transposed, b, g, c, o, h, w, pad, bias; } list[] = {
        { 0, 2, 1, 16, 16, 8, 8, 1, 1 },   { 0, 1, 1, 17, 23, 9, 7, 1, 1 },    { 0, 3, 1, 70, 80, 5, 6, 0, 1 },  { 0, 2, 1, 40, 160, 13, 10, 2, 0 },
        { 1, 2, 1, 64, 64, 16, 16, 1, 1 }, { 1, 1, 1, 20, 70, 9, 14, 0, 1 },   { 0, 1, 1, 33, 18, 20, 37, 5, 1 }, { 0, 1, 1, 18, 20, 20, 37, 6, 1 },
        { 0, 5, 1, 130, 64, 4, 4, 1, 1 },  { 0, 3, 2, 16, 32, 8, 8, 1, 1 },    { 0, 70, 1, 16, 64, 12, 12, 1, 1 }, { 0, 67, 1, 300, 100, 4, 4, 1, 0 },
        { 0, 1, 1, 200, 310, 8, 8, 1, 0 }, { 0, 26, 1, 200, 170, 8, 7, 1, 1 },  { 0, 2, 1, 150, 90, 7, 7, 1, 1 },  { 0, 5, 2, 33, 30, 6, 6, 1, 1 },
        { 1, 3, 1, 40, 50, 6, 5, 1, 1 },   { 0, 1, 1, 300, 130, 6, 6, 1, 1 },   { 0, 35, 1, 20, 40, 2, 9, 1, 0 },
    };
    int chosen[3] = { 0, 0, 0 };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        sizes s = { .transposed = list[i].transposed, .b = list[i].b, .g = list[i].g, .c = list[i].c, .o = list[i].o, .h = list[i].h, .w = list[i].w, .kh = 3, .kw = 3,
                    .sh = 1, .sw = 1, .ph = list[i].pad, .pw = list[i].pad, .dh = 1, .dw = 1, .bias = list[i].bias };
        CHECK(finish(&s));
        winograd(&s, chosen);
        if (test_failures) { printf("  in case %d\n", (int)i); break; }
    }
#ifndef NN_DETERMINISTIC
    for (int i = 0; i < 3; i++) CHECK(!chosen[i] || chosen[i] == (TWO | FOUR | TWO_AT_MOST));        /* no table that fuses, or all of them, in every pass */
#endif
}
TEST(conv_winograd_edges)            /* maps of 1 to 9 rows and columns, with both tiles: what lies outside, tiles that are cut off, channels that do not fill a panel */
{
    for (int largest = 2; largest <= 4; largest += 2) {
        nn_context *nn = nn_new(&(nn_desc){ .threads = 2, .winograd = largest }), *plain = nn_new(&(nn_desc){ .isa = "scalar", .threads = 1, .winograd = largest });
        for (int i = 0; i < 81 * 3 && !test_failures; i++) {
            sizes s = { .transposed = dice(0, 1), .b = dice(1, 3), .g = dice(1, 2), .c = dice(16, 35), .o = dice(16, 35), .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = i / 81, .pw = i / 81,
                        .dh = 1, .dw = 1, .bias = 1 };
            int border = s.transposed ? 2 * s.ph - 2 : 2 - 2 * s.ph;         /* from the map to the image that x is */
            s.h = i % 9 + 1 + border;
            s.w = i % 81 / 9 + 1 + border;
            if (s.h < 1 || s.w < 1 || !finish(&s)) continue;
            check_conv(nn, &s, 0);
            if (i % 3 == 0) check_conv(plain, &s, 0);
        }
        nn_free(nn);
        nn_free(plain);
    }
}
TEST(conv_channels)                  /* channels in lanes: panels that are not full, blocks of rows, columns and images, phases with different taps */
{
    const sizes list[] = {
        { .b = 2, .g = 1, .c = 20, .o = 37, .h = 9, .w = 11, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 1, .g = 1, .c = 130, .o = 16, .h = 7, .w = 5, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1 },
        { .b = 9, .g = 1, .c = 17, .o = 40, .h = 4, .w = 4, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 1, .g = 2, .c = 18, .o = 50, .h = 3, .w = 140, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 2, .g = 1, .c = 24, .o = 33, .h = 9, .w = 9, .kh = 1, .kw = 1, .sh = 2, .sw = 2, .dh = 1, .dw = 1 },
        { .b = 1, .g = 1, .c = 16, .o = 20, .h = 12, .w = 13, .kh = 2, .kw = 5, .sh = 3, .sw = 2, .ph = 1, .pw = 2, .dh = 2, .dw = 1, .bias = 1 },
        { .transposed = 1, .b = 2, .g = 1, .c = 19, .o = 35, .h = 5, .w = 6, .kh = 4, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
    };
    check_list(list, sizeof list / sizeof *list);
}

TEST(conv_one_by_one)                /* products of images as they are: blocks of pixels and rows, chunks of the batch; a row that reads only padding is none of them */
{
    static const sizes list[] = {
        { .b = 2, .g = 1, .c = 5, .o = 7, .h = 1, .w = 70, .kh = 1, .kw = 1, .sh = 3, .sw = 1, .ph = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 33, .g = 1, .c = 17, .o = 40, .h = 8, .w = 8, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 3, .g = 2, .c = 33, .o = 20, .h = 32, .w = 32, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 2, .g = 1, .c = 3, .o = 1, .h = 31, .w = 33, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 2, .g = 2, .c = 4, .o = 5, .h = 7, .w = 13, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
        { .b = 1, .g = 1, .c = 70, .o = 150, .h = 25, .w = 41, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1 },
        { .transposed = 1, .b = 2, .g = 1, .c = 40, .o = 30, .h = 9, .w = 8, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
    };
    check_list(list, sizeof list / sizeof *list);
}

TEST(conv_by_hand)                   /* numbers that anyone can check */
{
    nn_context *nn = nn_new(NULL);
    float v[16], k2[4] = { 1, 10, 100, 1000 }, two[2] = { 1, 2 };
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_from(nn, NN_SHAPE(1, 1, 1, 4), (float[]){ 1, 2, 3, 4 }), *k = nn_from(nn, NN_SHAPE(1, 1, 1, 2), two);
    CHECK(nn_read(nn_conv2d(x, k, NULL, NULL), v) && v[0] == 5 && v[1] == 8 && v[2] == 11);             /* 1*1 + 2*2: no flip */
    CHECK(nn_read(nn_conv2d(x, k, NULL, &(nn_conv2d_desc){ .same = 1 }), v) && v[0] == 5 && v[3] == 4); /* the extra zero is at the end */
    CHECK(nn_read(nn_conv_transpose1d(nn_from(nn, NN_SHAPE(1, 1, 2), two), nn_from(nn, NN_SHAPE(1, 1, 4), k2), NULL, &(nn_conv_transpose1d_desc){ .stride = 2 }), v));
    CHECK(v[0] == 1 && v[1] == 10 && v[2] == 102 && v[3] == 1020 && v[4] == 200 && v[5] == 2000);
    CHECK(nn_read(nn_conv2d(x, k, nn_from(nn, NN_SHAPE(1), (float[]){ -7 }), &(nn_conv2d_desc){ .activation = nn_relu }), v) && v[0] == 0 && v[1] == 1 && v[2] == 4);
    CHECK(nn_ok(nn));
    nn_free(nn);
}
static void fails(nn_context *nn, nn_tensor *result, const char *message)
{
    CHECK(!nn_ok(nn));
    CHECK_TEXT(nn_error(nn), message);
    CHECK(result != NULL);
    nn_clear(nn);
}
TEST(errors)
{
    nn_context *nn = context_of(NULL, 1), *three = nn_new(&(nn_desc){ .winograd = 3, .on_error = test_quiet });
    CHECK(!nn_ok(three));
    CHECK_TEXT(nn_error(three), ".winograd is 4, 2 or NN_ZERO");
    nn_free(three);
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_zeros(nn, NN_SHAPE(2, 4, 6, 5)), *w = nn_zeros(nn, NN_SHAPE(6, 4, 3, 3)), *b = nn_zeros(nn, NN_SHAPE(6)), *s = nn_zeros(nn, NN_SHAPE(2, 4, 9)), *k = nn_zeros(nn, NN_SHAPE(6, 4, 3));
    nn_tensor *i = nn_from_as(nn, NN_I32, NN_SHAPE(1, 4, 1, 1), (int32_t[]){ 1, 2, 3, 4 }), *one = nn_zeros(nn, NN_SHAPE(4, 6, 5));
    fails(nn, nn_conv2d(x, k, b, NULL), "conv2d");
    fails(nn, nn_conv2d(one, w, b, NULL), "conv2d: x is (B, C, H, W)");
    fails(nn, nn_conv1d(x, k, b, NULL), "conv1d: x is (B, C, L)");
    fails(nn, nn_conv1d(s, w, b, NULL), "conv1d");
    fails(nn, nn_conv1d(s, k, b, &(nn_conv1d_desc){ .stride_w = 2 }), "conv1d: a signal has no width");
    fails(nn, nn_conv2d(x, w, nn_zeros(nn, NN_SHAPE(5)), NULL), "conv2d: bias");
    fails(nn, nn_conv2d(x, w, nn_zeros(nn, NN_SHAPE(1, 6)), NULL), "conv2d: bias");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .groups = 2 }), "does not fit w");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .groups = 5 }), "does not fit w");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .groups = -1 }), "groups, stride and dilation");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .stride = NN_ZERO }), "groups, stride and dilation");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .padding = -1 }), "padding at least 0");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .dilation = 3 }), "nothing is left");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .same = 1, .stride = 2 }), ".same");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .same = 1, .padding = 1 }), ".same");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .output_padding = 1 }), ".output_padding");
    fails(nn, nn_conv2d(x, nn_zeros(nn, NN_SHAPE(6, 4, 0, 3)), b, NULL), "conv2d");
    fails(nn, nn_conv2d(i, nn_zeros(nn, NN_SHAPE(2, 4, 1, 1)), NULL, NULL), "conv2d: input 0 is i32");
    fails(nn, nn_conv2d(x, nn_tensor_new_as(nn, NN_F16, NN_SHAPE(6, 4, 3, 3), NULL), b, NULL), "input 1 is f16");
    fails(nn, nn_conv_transpose2d(x, w, b, NULL), "conv_transpose2d: x");
    fails(nn, nn_conv_transpose2d(x, nn_zeros(nn, NN_SHAPE(4, 6, 3, 3)), b, &(nn_conv_transpose2d_desc){ .output_padding = 1 }), ".output_padding");
    fails(nn, nn_conv_transpose2d(x, nn_zeros(nn, NN_SHAPE(4, 6, 3, 3)), b, &(nn_conv_transpose2d_desc){ .same = 1 }), ".same");
    fails(nn, nn_conv_transpose2d(x, nn_zeros(nn, NN_SHAPE(4, 6, 1, 1)), b, &(nn_conv_transpose2d_desc){ .padding = 3 }), "nothing is left");
    fails(nn, nn_conv_transpose2d(x, nn_zeros(nn, NN_SHAPE(4, 6, 3, 3)), b, &(nn_conv_transpose2d_desc){ .stride = INT32_MAX, .dilation = INT32_MAX }), "");
    fails(nn, nn_conv2d(x, w, b, &(nn_conv2d_desc){ .padding = INT32_MAX }), "");
    CHECK(nn_conv2d(NULL, NULL, NULL, NULL) != NULL || 1);
    fails(nn, nn_conv2d(x, NULL, NULL, NULL), "conv2d");
    fails(nn, nn_conv2d(NULL, w, NULL, NULL), "conv2d");
    fails(nn, nn_maxpool2d(one, 2, NULL), "maxpool2d: x is (B, C, H, W)");
    fails(nn, nn_maxpool1d(x, 2, NULL), "maxpool1d: x is (B, C, L)");
    fails(nn, nn_maxpool2d(x, 0, NULL), "maxpool2d: kernel");
    fails(nn, nn_maxpool2d(x, 2, &(nn_pool_desc){ .padding = 2 }), "at most half");
    fails(nn, nn_maxpool2d(x, 2, &(nn_pool_desc){ .exclude_pad = 1 }), ".exclude_pad");
    fails(nn, nn_avgpool2d(x, 2, &(nn_pool_desc){ .dilation = 2 }), ".dilation");
    fails(nn, nn_avgpool2d(x, 7, NULL), "smaller than its window");
    fails(nn, nn_avgpool1d(s, 2, &(nn_pool_desc){ .kernel_w = 2 }), "a signal has no width");
    fails(nn, nn_maxpool2d(i, 1, NULL), "input 0 is i32");
    fails(nn, nn_adaptive_avgpool2d(x, 0, 2), "adaptive_avgpool2d: impossible size");
    fails(nn, nn_adaptive_maxpool1d(x, 2), "adaptive_maxpool1d: x is (B, C, L)");
    fails(nn, nn_adaptive_maxpool2d(nn_zeros(nn, NN_SHAPE(2, 2, 0, 3)), 2, 2), "smaller than its window");
    fails(nn, nn_global_avgpool(b), "global_avgpool: x is (B, C, ...)");
    fails(nn, nn_upsample(x, 0, 4, NULL), "upsample: impossible size");
    fails(nn, nn_upsample(s, 2, 4, NULL), "upsample: impossible size");
    fails(nn, nn_upsample(b, 2, 4, NULL), "upsample: x is");
    fails(nn, nn_upsample(x, 2, 4, &(nn_upsample_desc){ .align_corners = 1 }), ".align_corners");
    fails(nn, nn_upsample(nn_zeros(nn, NN_SHAPE(1, 1, 0, 3)), 2, 4, NULL), "upsample: x is");
    fails(nn, nn_upsample(x, INT32_MAX, INT32_MAX, NULL), "");
    nn_maxpool2d(NULL, 2, NULL); nn_avgpool1d(NULL, 2, NULL); nn_upsample(NULL, 1, 1, NULL); nn_global_maxpool(NULL); nn_global_avgpool(NULL); nn_adaptive_avgpool2d(NULL, 1, 1);
    nn_free(nn);
}

/* ---- equal bits ---- */
static const sizes bit_sizes[] = {
    { .b = 5, .g = 1, .c = 3, .o = 17, .h = 11, .w = 13, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 40, .g = 1, .c = 1, .o = 6, .h = 28, .w = 28, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 9, .g = 2, .c = 20, .o = 15, .h = 9, .w = 7, .kh = 3, .kw = 5, .sh = 2, .sw = 2, .ph = 2, .pw = 2, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 8, .g = 7, .c = 1, .o = 1, .h = 14, .w = 15, .kh = 3, .kw = 3, .sh = 2, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 6, .g = 1, .c = 40, .o = 30, .h = 6, .w = 7, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .transposed = 1, .b = 6, .g = 1, .c = 10, .o = 12, .h = 6, .w = 7, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
};
/* y, dx, dw, db in one array; images first.. of them only */
static float *run_bits(nn_context *nn, const sizes *s, int first, int count, int64_t *n, const float *fx, const float *fw, const float *fb, const float *fy)
{
    int ic = s->g * s->c, oc = s->g * s->o;
    int64_t x1 = (int64_t)ic * s->h * s->w, y1 = (int64_t)oc * s->oh * s->ow, nw = (int64_t)oc * s->c * s->kh * s->kw;
    float *all = malloc(((size_t)(x1 + y1) * (size_t)count + (size_t)nw + (size_t)oc) * sizeof *all), *at = all;
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_want_grad(nn_from(nn, NN_SHAPE(count, ic, s->h, s->w), fx + first * x1)), *b = nn_want_grad(nn_from(nn, NN_SHAPE(oc), fb));
    nn_tensor *w = nn_want_grad(nn_from(nn, s->transposed ? NN_SHAPE(ic, s->o, s->kh, s->kw) : NN_SHAPE(oc, s->c, s->kh, s->kw), fw));
    nn_tensor *y = apply(s, x, w, b, 0);
    nn_backward_with(y, &(nn_backward_desc){ .grad = nn_from(nn, NN_SHAPE(count, oc, s->oh, s->ow), fy + first * y1) });
    nn_read(y, at); at += y1 * count;
    nn_read(nn_grad(x), at); at += x1 * count;
    nn_read(nn_grad(w), at); at += nw;
    nn_read(nn_grad(b), at); at += oc;
    CHECK(nn_ok(nn));
    *n = at - all;
    return all;
}
static void equal_bits_of(sizes s)
{
    CHECK(finish(&s));
    int64_t x1 = (int64_t)s.g * s.c * s.h * s.w, y1 = (int64_t)s.g * s.o * s.oh * s.ow, n, m;
    float *fx = numbers(s.b * x1), *fw = numbers((int64_t)s.g * s.o * s.c * s.kh * s.kw), *fb = numbers(s.g * s.o), *fy = numbers(s.b * y1), *first_fused = NULL;
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        nn_context *one = context_of(tables[t], 1), *many = context_of(tables[t], 4);
        if (!one) { nn_free(many); continue; }
        float *a = run_bits(one, &s, 0, s.b, &n, fx, fw, fb, fy), *c = run_bits(many, &s, 0, s.b, &m, fx, fw, fb, fy);
        CHECK(n == m && !memcmp(a, c, (size_t)n * sizeof *a));                              /* any number of threads */
        free(c);
        for (int b = 0; b < s.b; b += 3) {                                                  /* any batch: y and dx of one image alone */
            c = run_bits(one, &s, b, 1, &m, fx, fw, fb, fy);
            CHECK(!memcmp(c, a + b * y1, (size_t)y1 * sizeof *a));
            CHECK(!memcmp(c + y1, a + s.b * y1 + b * x1, (size_t)x1 * sizeof *a));
            free(c);
        }
        if (strcmp(tables[t], "scalar")) {                                                  /* any fused table */
            if (first_fused) CHECK(!memcmp(a, first_fused, (size_t)n * sizeof *a));
            if (first_fused) free(a); else first_fused = a;
        } else free(a);
        nn_free(one);
        nn_free(many);
    }
    free(first_fused); free(fx); free(fw); free(fb); free(fy);
}
TEST(equal_bits) { for (size_t i = 0; i < sizeof bit_sizes / sizeof *bit_sizes; i++) equal_bits_of(bit_sizes[i]); }

/* Strips: shapes whose results are computed without packed pixels, against the definition, and their bits. */
static const sizes strip_sizes[] = {
    { .b = 4, .g = 1, .c = 3, .o = 6, .h = 32, .w = 32, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },                           /* LeNet */
    { .b = 7, .g = 1, .c = 6, .o = 16, .h = 14, .w = 14, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 2, .g = 1, .c = 3, .o = 13, .h = 41, .w = 50, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .ph = 3, .pw = 3, .dh = 1, .dw = 1, .bias = 1 },       /* a stem */
    { .b = 3, .g = 9, .c = 1, .o = 1, .h = 17, .w = 33, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },        /* depthwise: four lines at a time */
    { .b = 2, .g = 4, .c = 1, .o = 1, .h = 5, .w = 14, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 2, .pw = 0, .dh = 1, .dw = 1 },
    { .b = 2, .g = 5, .c = 1, .o = 1, .h = 9, .w = 7, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },          /* rows shorter than a vector */
    { .b = 2, .g = 3, .c = 1, .o = 2, .h = 12, .w = 19, .kh = 5, .kw = 3, .sh = 2, .sw = 2, .ph = 2, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 2, .g = 1, .c = 40, .o = 25, .h = 21, .w = 23, .kh = 1, .kw = 1, .sh = 1, .sw = 1, .dh = 1, .dw = 1, .bias = 1 },                       /* columns in several bands */
    { .b = 1, .g = 1, .c = 5, .o = 12, .h = 1, .w = 2500, .kh = 1, .kw = 9, .sh = 1, .sw = 1, .pw = 4, .dh = 1, .dw = 1, .bias = 1 },              /* a signal */
    { .b = 2, .g = 1, .c = 4, .o = 8, .h = 20, .w = 18, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .ph = 2, .pw = 2, .dh = 2, .dw = 2, .bias = 1 },
    { .b = 2, .g = 1, .c = 3, .o = 20, .h = 16, .w = 16, .kh = 4, .kw = 4, .sh = 4, .sw = 4, .dh = 1, .dw = 1, .bias = 1 },                        /* patches */
    { .transposed = 1, .b = 2, .g = 1, .c = 8, .o = 3, .h = 11, .w = 13, .kh = 4, .kw = 4, .sh = 2, .sw = 2, .ph = 1, .pw = 1, .dh = 1, .dw = 1, .bias = 1 },
    { .b = 2, .g = 1, .c = 33, .o = 18, .h = 30, .w = 29, .kh = 5, .kw = 5, .sh = 1, .sw = 1, .ph = 2, .pw = 2, .dh = 1, .dw = 1, .bias = 1 },     /* two parts of terms, several bands of lines */
};
TEST(conv_strips)
{
    nn_context *nn = context_of(NULL, 2), *plain = context_of("scalar", 1);
    for (size_t i = 0; i < sizeof strip_sizes / sizeof *strip_sizes && !test_failures; i++) {
        sizes s = strip_sizes[i];
        CHECK(finish(&s));
        check_conv(nn, &s, 0);
        check_conv(plain, &s, 0);
        equal_bits_of(s);
        if (test_failures) printf("  in case %d\n", (int)i);
    }
    nn_free(nn);
    nn_free(plain);
}

/* ---- pooling ---- */
/* In a plan ReLU is a part of the convolution before it: the bits of two steps, for every kind of convolution and every table. */
TEST(relu_in_plans)
{
    static const struct { int c, o, kernel, side, groups, stride; } list[] = {
        { 32, 48, 3, 8, 1, 1 }, { 20, 70, 3, 9, 1, 2 }, { 40, 33, 1, 6, 1, 1 }, { 40, 33, 1, 11, 1, 1 }, { 24, 16, 1, 32, 2, 1 }, { 8, 8, 3, 9, 8, 1 }, { 5, 5, 3, 32, 5, 1 },
        { 3, 6, 5, 12, 1, 1 }, { 3, 5, 9, 12, 1, 1 }, { 18, 20, 3, 16, 1, 1 }, { 2, 8, 1, 9, 1, 2 },
    };
    static float x[60000], y[2][60000];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)(i * 37 % 61) / 30 - 1;
    for (int k = 0; test_isa(k); k++) for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        nn_context *nn = context_of(test_isa(k), 1);
        nn_layer *net = nn_model_new(nn, NULL);
        nn_shape s = NN_SHAPE(2, list[i].c, list[i].side, list[i].side);
        nn_conv2d_new(net, NULL, list[i].c, list[i].o, list[i].kernel, &(nn_conv2d_desc){ .stride = list[i].stride, .padding = list[i].kernel / 2, .groups = list[i].groups, .activation = nn_relu });
        nn_plan *p = nn_plan_new(net, s, NULL);
        CHECK(p != NULL);
        if (!p) { nn_free(nn); continue; }
        void *work = malloc(nn_plan_bytes(p) + 1);
        nn_begin(nn, NN_EVAL);
        nn_tensor *t = nn_forward(net, nn_from(nn, s, x));
        CHECK(nn_count(t) <= 60000 && nn_read(t, y[0]) && nn_run(p, work, x, y[1]));
        CHECK(!memcmp(y[0], y[1], (size_t)nn_count(t) * sizeof(float)));
        free(work);
        nn_plan_free(p);
        nn_free(nn);
    }
}

TEST(pool_fuzz)
{
    nn_context *nn = context_of(NULL, 2);
    for (int round = 0; round < 400 && !test_failures; round++) {
        int b = dice(1, 3), c = dice(1, 3), h = dice(1, 12), w = dice(1, round % 4 ? 12 : 70), kh = dice(1, 4), kw = dice(1, 4), sh = dice(1, 4), sw = dice(1, 4), max = dice(0, 1), ceil_mode = dice(0, 1), exclude = !max && dice(0, 1);
        int dh = max ? dice(1, 3) : 1, dw = max ? dice(1, 3) : 1, ph = dice(0, kh / 2), pw = dice(0, kw / 2), oh = 0, ow = 0;
        if (h + 2 * ph < dh * (kh - 1) + 1 || w + 2 * pw < dw * (kw - 1) + 1) continue;
        while (oh * sh - ph + dh * (kh - 1) < h + ph || (ceil_mode && oh * sh - ph < h && (oh - 1) * sh - ph + dh * (kh - 1) + 1 < h + ph)) oh++;   /* windows that fit, and one that reaches out */
        while (ow * sw - pw + dw * (kw - 1) < w + pw || (ceil_mode && ow * sw - pw < w && (ow - 1) * sw - pw + dw * (kw - 1) + 1 < w + pw)) ow++;
        int64_t nx = (int64_t)b * c * h * w, ny = (int64_t)b * c * oh * ow;
        float *fx = numbers(nx), *fy = numbers(ny);
        double *y = zeros(ny), *dx = zeros(nx);
        for (int64_t i = 0; i < ny; i++) {
            int64_t p = i / (oh * ow), oy = i / ow % oh, ox = i % ow, best = -1, real = 0, full = 0;
            double sum = 0;
            for (int pass = 0; pass < 2; pass++) {
                for (int ky = 0; ky < kh; ky++) for (int kx = 0; kx < kw; kx++) {
                    int64_t iy = oy * sh - ph + ky * dh, ix = ox * sw - pw + kx * dw, at = (p * h + iy) * w + ix;
                    if (!pass && iy < h + ph && ix < w + pw) full++;
                    if (iy < 0 || ix < 0 || iy >= h || ix >= w) continue;
                    if (!pass) { real++; sum += fx[at]; if (best < 0 || fx[at] > fx[best]) best = at; }
                    else if (!max) dx[at] += fy[i] / (double)(exclude ? real : full);
                }
            }
            y[i] = max ? best < 0 ? -INFINITY : fx[best] : real ? sum / (double)(exclude ? real : full) : 0;
            if (max && best >= 0) dx[best] += fy[i];
            if (max && best < 0) y[i] = 1e30;            /* a window without a pixel: see empty_windows */
        }
        nn_begin(nn, NN_TRAIN);
        nn_pool_desc d = { .stride = sh, .stride_w = sw, .padding = ph, .padding_w = zero(pw), .dilation = dh, .dilation_w = dw, .kernel_w = kw, .ceil_mode = ceil_mode, .exclude_pad = exclude };
        nn_tensor *x = nn_want_grad(nn_from(nn, NN_SHAPE(b, c, h, w), fx)), *t = max ? nn_maxpool2d(x, kh, &d) : nn_avgpool2d(x, kh, &d);
        if (!nn_ok(nn)) printf("%s\n", nn_error(nn));
        CHECK(nn_ok(nn) && t->shape[2] == oh && t->shape[3] == ow);
        if (nn_ok(nn) && t->shape[2] == oh && t->shape[3] == ow) {
            int hollow = 0;
            for (int64_t i = 0; i < ny; i++) hollow |= y[i] == 1e30;
            if (!hollow) check_all("y", t, y, 1);
            nn_backward_with(t, &(nn_backward_desc){ .grad = nn_from(nn, NN_SHAPE(b, c, oh, ow), fy) });
            check_all("dx", nn_grad(x), dx, 1);
        }
        if (test_failures) printf("  in %s %dx%d k %dx%d stride %d,%d pad %d,%d dilation %d,%d ceil %d exclude %d -> %dx%d\n", max ? "max" : "avg", h, w, kh, kw, sh, sw, ph, pw, dh, dw, ceil_mode, exclude, oh, ow);
        free(fx); free(fy); free(y); free(dx);
    }
    nn_free(nn);
}
TEST(pool_by_hand)
{
    nn_context *nn = nn_new(NULL);
    float v[16];
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_want_grad(nn_from(nn, NN_SHAPE(1, 1, 5), (float[]){ 1, 3, 3, NAN, 2 })), *y = nn_maxpool1d(x, 2, &(nn_maxpool1d_desc){ .stride = 1 });
    CHECK(nn_read(y, v) && v[0] == 3 && v[1] == 3 && isnan(v[2]) && isnan(v[3]));
    nn_backward_with(y, &(nn_backward_desc){ .grad = nn_ones(nn, NN_SHAPE(1, 1, 4)) });
    CHECK(nn_read(nn_grad(x), v) && v[0] == 0 && v[1] == 2 && v[2] == 0 && v[3] == 2 && v[4] == 0);       /* of equals the first; NaN gets its share */
    x = nn_from(nn, NN_SHAPE(1, 1, 3), (float[]){ 6, 12, 24 });
    CHECK(nn_read(nn_avgpool1d(x, 3, &(nn_avgpool1d_desc){ .stride = 1, .padding = 1 }), v) && v[0] == 6 && v[1] == 14 && v[2] == 12);
    CHECK(nn_read(nn_avgpool1d(x, 3, &(nn_avgpool1d_desc){ .stride = 1, .padding = 1, .exclude_pad = 1 }), v) && v[0] == 9 && v[1] == 14 && v[2] == 18);
    CHECK(nn_read(nn_avgpool1d(x, 2, &(nn_avgpool1d_desc){ .ceil_mode = 1 }), v) && v[0] == 9 && v[1] == 24);   /* what lies beyond the padding does not count */
    CHECK(nn_dim(nn_maxpool1d(x, 2, &(nn_maxpool1d_desc){ .stride = 3, .ceil_mode = 1 }), 2) == 1);
    CHECK(nn_read(nn_adaptive_avgpool1d(x, 2), v) && v[0] == 9 && v[1] == 18);
    CHECK(nn_read(nn_adaptive_maxpool1d(x, 2), v) && v[0] == 12 && v[1] == 24);
    CHECK(nn_read(nn_global_avgpool(x), v) && v[0] == 14);
    CHECK(nn_read(nn_global_maxpool(x), v) && v[0] == 24);
    CHECK(nn_global_maxpool(x)->ndim == 2 && nn_global_avgpool(nn_zeros(nn, NN_SHAPE(2, 3, 2, 2, 2)))->ndim == 2);
    CHECK(nn_read(nn_maxpool1d(nn_full(nn, NN_SHAPE(1, 1, 2), -INFINITY), 2, NULL), v) && v[0] == -INFINITY);
    CHECK(nn_ok(nn));
    nn_free(nn);
}
TEST(empty_windows)                  /* a dilated window whose pixels all lie in the padding */
{
    nn_context *nn = nn_new(NULL);
    float v[4];
    nn_begin(nn, NN_TRAIN);
    nn_tensor *x = nn_want_grad(nn_ones(nn, NN_SHAPE(1, 1, 1, 1))), *y = nn_maxpool2d(x, 2, &(nn_maxpool2d_desc){ .dilation = 4, .padding = 2 });
    CHECK(nn_count(y) == 1 && nn_read(y, v) && v[0] == -INFINITY);
    nn_backward_with(y, &(nn_backward_desc){ .grad = nn_ones(nn, nn_shape_of(y)) });
    CHECK(nn_read(nn_grad(x), v) && v[0] == 0);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* ---- upsampling ---- */
TEST(upsample_by_hand)
{
    nn_context *nn = nn_new(NULL);
    float v[16];
    nn_begin(nn, NN_EVAL);
    nn_tensor *x = nn_from(nn, NN_SHAPE(1, 1, 3), (float[]){ 0, 4, 8 });
    CHECK(nn_read(nn_upsample(x, 1, 6, NULL), v) && v[0] == 0 && v[1] == 0 && v[2] == 4 && v[3] == 4 && v[4] == 8 && v[5] == 8);
    CHECK(nn_read(nn_upsample(x, 1, 2, NULL), v) && v[0] == 0 && v[1] == 4);
    CHECK(nn_read(nn_upsample(x, 1, 6, &(nn_upsample_desc){ .bilinear = 1 }), v) && v[0] == 0 && v[1] == 1 && v[2] == 3 && v[3] == 5 && v[4] == 7 && v[5] == 8);
    CHECK(nn_read(nn_upsample(x, 1, 5, &(nn_upsample_desc){ .bilinear = 1, .align_corners = 1 }), v) && v[0] == 0 && v[1] == 2 && v[2] == 4 && v[3] == 6 && v[4] == 8);
    x = nn_from(nn, NN_SHAPE(1, 1, 2, 2), (float[]){ 0, 2, 4, 6 });
    CHECK(nn_read(nn_upsample(x, 3, 3, &(nn_upsample_desc){ .bilinear = 1, .align_corners = 1 }), v) && v[1] == 1 && v[3] == 2 && v[4] == 3 && v[8] == 6);
    CHECK(nn_ok(nn));
    nn_free(nn);
}
TEST(no_allocations_per_step)
{
    nn_context *nn = nn_new(&(nn_desc){ .threads = 2 });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(4, 3, 16, 16), NULL), *w = nn_want_grad(nn_tensor_new(nn, NN_SHAPE(8, 3, 3, 3), NULL));
    int64_t before = 0;
    for (int i = 0; i < 5; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *y = nn_upsample(nn_avgpool2d(nn_maxpool2d(nn_conv2d(x, w, NULL, &(nn_conv2d_desc){ .padding = 1 }), 2, NULL), 2, NULL), 8, 8, NULL);
        nn_backward(nn_sum(y, NN_ALL, NULL));
        if (i == 2) before = nn_allocations(nn);
    }
    CHECK(nn_allocations(nn) == before);
    CHECK(nn_ok(nn));
    nn_free(nn);
}
