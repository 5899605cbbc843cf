/* regression.c - Demonstrates regression on a real table: a CSV file, standardised inputs, R^2 on days that were not trained on.

   How many babies are born on a day? Year, month, day of the month and weekday tell most of it: weekends are quiet.
   Words and small integers that name things (weekday, month) enter as one-hot columns through a callback dataset.
   Build:    cc -O2 examples/regression.c -o regression -lm -lpthread
   Expect:   a line per epoch, and at the end "R^2 on the test days: 0.89..."
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { WEEKDAYS = 7, MONTHS = 12, FEATURES = 2 + WEEKDAYS + MONTHS };

/* Sample i of the table as the net wants it: year, day, one-hot weekday, one-hot month; births in thousands. */
static int get_day(void *self, int64_t i, float *x, float *y, int64_t *label)
{
    float row[4], births;
    (void)label;
    if (!nn_dataset_get(self, i, row, &births, NULL)) return 0;   /* year, month, day of the month, weekday 1..7 */
    memset(x, 0, FEATURES * sizeof *x);
    x[0] = row[0];
    x[1] = row[2];
    x[2 + (int)row[3] - 1] = 1;
    x[2 + WEEKDAYS + (int)row[1] - 1] = 1;
    *y = births / 1000;
    return 1;
}

int main(void)
{
    nn_context *nn = nn_new(NULL);
    nn_dataset *table = nn_csv_load(nn, "examples/data/us_births_2000_2014.csv", &(nn_csv_desc){ .regression = 1 });
    if (!nn_ok(nn)) return 1;
    nn_dataset *days = nn_dataset_new(nn, &(nn_dataset_desc){
        .count = nn_dataset_count(table), .x_shape = NN_SHAPE(FEATURES), .y_shape = NN_SHAPE(1), .get = get_day, .self = table });
    nn_dataset *train, *test;
    nn_split_data(days, 0.8, &train, &test);

    nn_layer *net = nn_model_new(nn, NULL);
    nn_scaler_new(net, train);
    nn_linear_new(net, "fc1", FEATURES, 64, &(nn_linear_desc){ .activation = nn_silu });
    nn_linear_new(net, "fc2", 64, 64, &(nn_linear_desc){ .activation = nn_silu });
    nn_linear_new(net, "fc3", 64, 1, NULL);

    nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.005f });
    nn_loader *test_loader = nn_loader_new(test, &(nn_loader_desc){ .batch = 256 });
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 64, .shuffle = 1 }), .validation = test_loader,
        .loss = nn_huber, .optimizer = opt, .epochs = 20,
        .schedule = nn_cosine_lr_new(opt, &(nn_schedule_desc){ .total = 20 }) });

    nn_report report;
    if (!nn_evaluate(net, test_loader, nn_mse, NULL, &report)) return 1;
    printf("mean absolute error: %.0f births\nR^2 on the test days: %.3f\n", 1000 * report.mae, report.r2);
    int ok = nn_ok(nn) && report.r2 > 0.85;
    nn_free(nn);
    return !ok;
}
