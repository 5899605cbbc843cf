/* forecast.c - Demonstrates forecasting a time series: how many babies are born on each of the next 14 days? An LSTM reads four weeks and what the
   calendar says about the two to come, and is measured against the forecasts that cost nothing: last week again, and last year again.

   The last two years are held out. Births fall on weekends and holidays; some holidays keep their date, some their weekday, so the net sees
   both days a year ago, and learns by how much to correct the better of the two baselines.
   Build:    cc -O2 examples/forecast.c -o forecast -lm -lpthread
   Run:      ./forecast [--epochs N]              5,479 days of births in the United States (examples/data)
   Expect:   a table of errors after 3 seconds: the LSTM's are a third below those of the better baseline. forecast.svg shows the last 16 weeks
   Run in CI: --epochs 8
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { PAST = 28, AHEAD = 14, STEPS = PAST + AHEAD, WEEKDAYS = 7, FEATURES = 5 + WEEKDAYS, YEAR = 364, FIRST = PAST + 366 + WEEKDAYS };
enum { TEST = 52 * AHEAD, MOST = 6000, SHOWN = 8 * AHEAD };
typedef struct Days { double births[MOST]; int month[MOST], date[MOST], weekday[MOST]; int64_t count; double mean, std; } Days;
static Days days;

static int load_days(nn_context *nn, const char *path)
{
    nn_dataset *table = nn_csv_load(nn, path, &(nn_csv_desc){ .regression = 1 });
    float row[4], births;
    for (days.count = 0; days.count < MOST && days.count < nn_dataset_count(table); days.count++) {
        if (!nn_dataset_get(table, days.count, row, &births, NULL)) return 0;          /* year, month, date, weekday 1..7 */
        days.month[days.count] = (int)row[1];
        days.date[days.count] = (int)row[2];
        days.weekday[days.count] = (int)row[3] - 1;
        days.births[days.count] = births;
    }
    return days.count > FIRST + STEPS + TEST;
}

static float standard(double births) { return (float)((births - days.mean) / days.std); }

/* Last week again: for day t, known until the day before `now`. A year of 52 weeks ago: the same weekday. */
static double last_week(int64_t t, int64_t now) { return days.births[now - WEEKDAYS + (t - now) % WEEKDAYS]; }
static double last_year(int64_t t)              { return days.births[t - YEAR]; }

/* Sample i is forecast on the morning of day i + FIRST: PAST days as they were, then AHEAD days of which only the calendar is known. */
static int get_window(void *self, int64_t i, float *x, float *y, int64_t *label)
{
    int64_t now = FIRST + i, t;
    (void)self; (void)label;
    memset(x, 0, STEPS * FEATURES * sizeof *x);
    for (t = now - PAST; t < now + AHEAD; t++, x += FEATURES) {
        int64_t same_date = t - 365 - (days.date[t - 365] != days.date[t]);             /* after a 29th of February it is 366 days ago */
        x[0] = standard(last_year(t));
        x[1] = standard(t < now ? days.births[t] : last_week(t, now));
        x[2] = t < now ? 0 : 1;
        x[3] = (float)((days.births[same_date] - days.births[same_date - WEEKDAYS]) / days.std);      /* how unusual was this date, */
        x[4] = (float)((last_year(t) - last_year(t - WEEKDAYS)) / days.std);                          /* this day of that week, a year ago? */
        x[5 + days.weekday[t]] = 1;
    }
    if (y) for (t = 0; t < AHEAD; t++) y[t] = standard(days.births[now + t]);
    return 1;
}

/* (B, STEPS, FEATURES) -> (B, AHEAD): last year's births and a correction */
typedef struct Net { nn_layer *lstm, *out; } Net;
static nn_tensor *forward(void *self, nn_tensor *x)
{
    const Net *n = self;
    nn_tensor *h = nn_slice(nn_forward(n->lstm, x), 1, PAST, STEPS, 1);
    nn_tensor *correction = nn_squeeze(nn_forward(n->out, h), -1);
    return nn_add(nn_select(nn_slice(x, 1, PAST, STEPS, 1), -1, 0), correction);
}

typedef struct Error { double absolute, square; int64_t count; } Error;
static void add_error(Error *e, double forecast, double truth)
{
    e->absolute += fabs(forecast - truth);
    e->square += (forecast - truth) * (forecast - truth);
    e->count++;
}

static double print_error(const char *name, const Error *e)
{
    printf("%-22s MAE %5.0f   RMSE %5.0f\n", name, e->absolute / (double)e->count, sqrt(e->square / (double)e->count));
    return e->absolute;
}

int main(int argc, char **argv)
{
    static float forecasts[TEST];
    static double plot[3][SHOWN];
    int64_t starts[TEST / AHEAD];
    int epochs = argc > 2 && !strcmp(argv[1], "--epochs") ? atoi(argv[2]) : 25;
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    if (!load_days(nn, "examples/data/us_births_2000_2014.csv")) return 1;
    int64_t known = days.count - TEST, windows = known - AHEAD - FIRST + 1;            /* the last window to learn from ends where the test begins */
    for (int64_t i = 0; i < known; i++) days.mean += days.births[i] / (double)known;
    for (int64_t i = 0; i < known; i++) days.std += (days.births[i] - days.mean) * (days.births[i] - days.mean) / (double)known;
    days.std = sqrt(days.std);

    nn_dataset_desc desc = { .count = days.count - AHEAD - FIRST + 1, .x_shape = NN_SHAPE(STEPS, FEATURES), .y_shape = NN_SHAPE(AHEAD), .get = get_window };
    nn_dataset *all = nn_dataset_new(nn, &desc);
    desc.count = windows;
    nn_dataset *train = nn_dataset_new(nn, &desc);
    for (int i = 0; i < TEST / AHEAD; i++) starts[i] = known - FIRST + i * AHEAD;       /* every two weeks a forecast: each day is forecast once */
    nn_dataset *test = nn_subset_new(all, starts, TEST / AHEAD);

    Net n;
    nn_layer *net = nn_model_new(nn, &(nn_model_desc){ .forward = forward, .self = &n });
    n.lstm = nn_lstm_new(net, "lstm", FEATURES, 64, NULL);
    n.out  = nn_linear_new(net, "out", 64, 1, NULL);
    nn_init_constant(nn_param(n.out, "weight"), 0);                                     /* to begin with, the forecast is last year's */
    nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.004f, .clip_norm = 1 });
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 64, .shuffle = 1 }), .loss = nn_l1, .optimizer = opt, .epochs = epochs, .repeat = 1,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = epochs }) });
    if (!nn_predict(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 64 }), forecasts)) return 1;

    Error week = { 0 }, year = { 0 }, lstm = { 0 };
    for (int i = 0; i < TEST; i++) {
        int64_t t = known + i, now = t - i % AHEAD;
        double forecast = forecasts[i] * days.std + days.mean;
        add_error(&week, last_week(t, now), days.births[t]);
        add_error(&year, last_year(t), days.births[t]);
        add_error(&lstm, forecast, days.births[t]);
        if (i >= TEST - SHOWN) {
            int k = i - (TEST - SHOWN);
            plot[0][k] = days.births[t]; plot[1][k] = forecast; plot[2][k] = last_year(t);
        }
    }
    printf("%d days held out, forecast %d days at a time:\n", TEST, AHEAD);
    double a = print_error("last week again", &week), b = print_error("last year again", &year), c = print_error("LSTM", &lstm);
    static char names[SHOWN][24];
    const char *labels[SHOWN];
    for (int i = 0; i < SHOWN; i++) {
        int64_t t = known + TEST - SHOWN + i;
        snprintf(names[i], sizeof names[i], "%d/%d", days.month[t], days.date[t]);
        labels[i] = names[i];
    }
    nn_series series[] = { { "truth", plot[0], SHOWN, labels }, { "LSTM", plot[1], SHOWN, NULL }, { "last year again", plot[2], SHOWN, NULL } };
    nn_svg_plot(nn, "forecast.svg", "Births per day, the last 16 weeks", series, 3);
    int ok = nn_ok(nn) && c < a && c < b;
    nn_free(nn);
    return !ok;
}
