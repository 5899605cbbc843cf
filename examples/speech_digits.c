/* speech_digits.c - Demonstrates audio: waveforms become log-mel spectrograms (an FFT is here, too), a small CNN and a GRU hear which digit was said.

   Data:     Free Spoken Digit Dataset (Jackson, CC BY-SA 4.0): "zero" to "nine" by six speakers, WAV, 8 kHz:
             ./speech_digits [--epochs N] FOLDER  recordings/ of github.com/Jakobovski/free-spoken-digit-dataset: 0_george_5.wav ...
   Build:    cc -O2 examples/speech_digits.c -o speech_digits -lm -lpthread
   Expect:   98 % of the test part after 10 seconds: takes 5 to 7 of every speaker and digit; 8 to 19 are learnt from
             Without the data it says so and ends well.
   Run in CI: build/fsdd
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { RATE = 8000, FRAME = RATE / 40, HOP = RATE / 100, FFT = 256, MELS = 40, FRAMES = 64, SAMPLES = HOP * FRAMES };  /* 25 ms every 10 ms, 640 ms a word */
enum { DIGITS = 10, SPEAKERS = 6, TAKE = 5, TAKES = 15, TEST_TAKES = 3, MOST = DIGITS * SPEAKERS * TAKES };
static const double pi = 3.14159265358979323846;

/* In place, n a power of two: X_k = sum_t x_t exp(-2 pi i k t / n). Cooley & Tukey 1965: bits of the index reversed, then butterflies. */
static void fft(double *re, double *im, int n)
{
    for (int i = 1, j = 0; i < n; i++) {
        int bit = n / 2;
        for (; j & bit; bit /= 2) j ^= bit;
        j ^= bit;
        if (i < j) { double t = re[i]; re[i] = re[j]; re[j] = t; t = im[i]; im[i] = im[j]; im[j] = t; }
    }
    for (int half = 1; half < n; half *= 2)
        for (int k = 0; k < half; k++) {
            double c = cos(pi * k / half), s = -sin(pi * k / half);
            for (int a = k; a < n; a += 2 * half) {
                int b = a + half;
                double x = c * re[b] - s * im[b], y = c * im[b] + s * re[b];
                re[b] = re[a] - x; im[b] = im[a] - y;
                re[a] += x;        im[a] += y;
            }
        }
}

static double mel(double hertz)   { return 2595 * log10(1 + hertz / 700); }             /* equal steps sound equally far apart */
static double hertz(double mels)  { return 700 * (pow(10, mels / 2595) - 1); }

/* Weight of every FFT bin in every filter: triangles whose corners are equally far apart in mel. */
static void make_filters(float filter[MELS][FFT / 2 + 1])
{
    for (int m = 0; m < MELS; m++) {
        double step = mel(RATE / 2.0) / (MELS + 1), low = hertz(step * m), peak = hertz(step * (m + 1)), high = hertz(step * (m + 2));
        for (int k = 0; k <= FFT / 2; k++) {
            double f = (double)k * RATE / FFT, w = f < peak ? (f - low) / (peak - low) : (high - f) / (high - peak);
            filter[m][k] = w > 0 ? (float)w : 0;
        }
    }
}

/* (MELS, FRAMES): the logarithm of the energy in every filter and frame, from 0 (80 dB below the loudest, or nothing there) to 1 */
static void log_mel(const float *wave, float *to)
{
    static float filter[MELS][FFT / 2 + 1];
    static double energy[MELS][FRAMES];
    double re[FFT], im[FFT], loudest = 1e-10;
    if (filter[MELS - 1][FFT / 2 - 1] == 0) make_filters(filter);
    for (int t = 0; t < FRAMES; t++) {
        for (int i = 0; i < FFT; i++) re[i] = im[i] = 0;
        for (int i = 0; i < FRAME && t * HOP + i < SAMPLES; i++)
            re[i] = wave[t * HOP + i] * (0.5 - 0.5 * cos(2 * pi * i / FRAME));           /* Hann's window */
        fft(re, im, FFT);
        for (int m = 0; m < MELS; m++) {
            double sum = 0;
            for (int k = 0; k <= FFT / 2; k++) sum += filter[m][k] * (re[k] * re[k] + im[k] * im[k]);
            energy[m][t] = sum;
            if (sum > loudest) loudest = sum;
        }
    }
    for (int m = 0; m < MELS; m++)
        for (int t = 0; t < FRAMES; t++) to[m * FRAMES + t] = (float)(1 + log10(energy[m][t] / loudest + 1e-8) / 8);
}

/* A WAV file of 16-bit mono samples at RATE, its middle of SAMPLES; shorter ones get silence on both sides. */
static int load_wav(const char *path, float *wave)
{
    static unsigned char bytes[1 << 18];
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(bytes, 1, sizeof bytes, f) : 0;
    if (f) fclose(f);
    memset(wave, 0, SAMPLES * sizeof *wave);
    if (n < 44 || memcmp(bytes, "RIFF", 4) || memcmp(bytes + 36, "data", 4)) return 0;
    if (bytes[22] != 1 || bytes[24] + 256 * bytes[25] != RATE || bytes[34] != 16) return 0;
    int count = (int)(n - 44) / 2, skip = (count - SAMPLES) / 2;
    for (int at = 0; at < SAMPLES; at++) {
        const unsigned char *p = bytes + 44 + 2 * (at + skip);
        if (at + skip >= 0 && at + skip < count) wave[at] = (float)(int16_t)(p[0] | p[1] << 8) / 32768;
    }
    return 1;
}

/* A picture becomes a sequence: (B, channels, mels, frames) -> (B, frames, channels * mels) */
static nn_tensor *frames(void *self, nn_tensor *x)
{
    (void)self;
    return nn_flatten(nn_permute(x, NN_DIMS(0, 3, 1, 2)), 2);
}

static float x[MOST][MELS * FRAMES];
static int64_t label[MOST], indices[2][MOST];

int main(int argc, char **argv)
{
    static const char *speakers[SPEAKERS] = { "george", "jackson", "lucas", "nicolas", "theo", "yweweler" };
    static float wave[SAMPLES];
    const char *folder = ".";
    int epochs = 40;
    int64_t count = 0, parts[2] = { 0 };
    for (int i = 1; i < argc; i++) if (!strcmp(argv[i], "--epochs") && i + 1 < argc) epochs = atoi(argv[++i]); else folder = argv[i];
    for (int digit = 0; digit < DIGITS; digit++) for (int s = 0; s < SPEAKERS; s++) for (int take = TAKE; take < TAKE + TAKES; take++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%d_%s_%d.wav", folder, digit, speakers[s], take);
        if (!load_wav(path, wave)) continue;
        log_mel(wave, x[count]);
        int test = take < TAKE + TEST_TAKES;             /* 0 or 1 */
        indices[test][parts[test]++] = count;
        label[count++] = digit;
    }
    if (!parts[0] || !parts[1]) { printf("no spoken digits in %s: nothing to do\n", folder); return 0; }
    printf("%lld words to learn from, %lld to test\n", (long long)parts[0], (long long)parts[1]);

    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *all = nn_dataset_new(nn, &(nn_dataset_desc){
        .count = count, .x_shape = NN_SHAPE(1, MELS, FRAMES), .classes = DIGITS, .x = x[0], .labels = label });
    nn_dataset *train = nn_subset_new(all, indices[0], parts[0]), *test = nn_subset_new(all, indices[1], parts[1]);
    nn_layer *net = nn_model_new(nn, NULL);
    for (int i = 0, in = 1, out = 16; i < 3; i++, in = out, out *= 2) {
        nn_conv2d_new(net, NULL, in, out, 3, &(nn_conv2d_desc){ .padding = 1, .no_bias = 1 });
        nn_batchnorm_new(net, NULL, out, &(nn_batchnorm_desc){ .activation = nn_relu });
        nn_maxpool2d_new(net, 2, NULL);
    }
    nn_layer_new(net, "frames", &(nn_layer_desc){ .forward = frames });
    nn_gru_new(net, "gru", 64 * (MELS / 8), 64, &(nn_gru_desc){ .bidirectional = 1, .last = 1 });
    nn_dropout_new(net, 0.5f);
    nn_linear_new(net, "out", 2 * 64, DIGITS, NULL);
    nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.002f });
    nn_fit(net, &(nn_fit_desc){                           /* a little earlier or later, higher or lower */
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1, .augment = &(nn_augment_desc){ .translate = 0.05f } }),
        .loss = nn_cross_entropy, .optimizer = opt, .epochs = epochs, .repeat = 1,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = epochs }) });
    nn_report report;
    if (!nn_evaluate(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 60 }), nn_cross_entropy, NULL, &report)) return 1;
    nn_report_print(nn, &report);
    printf("test accuracy %.2f%%\n", 100 * report.accuracy);
    int ok = nn_ok(nn) && report.accuracy > 0.95;
    nn_free(nn);
    return !ok;
}
