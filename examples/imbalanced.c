/* imbalanced.c - Demonstrates what to do when one class is rare: class weights or balanced sampling, and F1 instead of accuracy.

   Of the handwritten digits only the eights are wanted, and nine in ten of those are taken away: about 1 % positives. A net that
   says "no" to everything is 99 % accurate and useless.
   Build:    cc -O2 examples/imbalanced.c -o imbalanced -lm -lpthread
   Expect:   three reports; "F1 of the rare class" rises from plain to weighted or balanced training
   Level:    **                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

static nn_dataset *digits;           /* sample i of the rare problem is digit keep[i] */
static int64_t keep[1797];

static int get(void *self, int64_t i, float *x, float *y, int64_t *label)
{
    (void)self; (void)y;
    if (!nn_dataset_get(digits, keep[i], x, NULL, label)) return 0;
    *label = *label == 8;
    return 1;
}

/* Trains from the same start and returns the report on the test set. */
static nn_report train_and_test(nn_context *nn, const char *title, nn_dataset *train, nn_dataset *test, float rare_weight, int balance)
{
    float weights[2] = { 1, rare_weight };
    nn_report report;
    nn_layer *net = nn_model_new(nn, NULL);
    nn_scaler_new(net, train);
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", 64, 32, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "fc2", 32, 2, NULL);
    nn_loss_desc loss = { .weight = nn_tensor_new(nn, NN_SHAPE(2), weights) };
    nn_fit(net, &(nn_fit_desc){
        .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1, .balance = balance }),
        .loss = nn_cross_entropy, .loss_desc = &loss, .epochs = 12, .quiet = 1,
        .optimizer = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.002f }) });
    nn_evaluate(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 256 }), nn_cross_entropy, NULL, &report);
    printf("\n== %s\n", title);
    nn_report_print(nn, &report);
    return report;
}

int main(void)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 2 });
    digits = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte");
    if (!nn_ok(nn)) return 1;
    int64_t count = 0, eights = 0, label;
    for (int64_t i = 0; i < nn_dataset_count(digits); i++) {
        nn_dataset_get(digits, i, NULL, NULL, &label);
        if (label != 8 || eights++ % 6 == 0) keep[count++] = i;
    }
    nn_dataset *rare = nn_dataset_new(nn, &(nn_dataset_desc){ .count = count, .x_shape = nn_dataset_shape(digits), .classes = 2, .get = get });
    nn_dataset *train, *test;
    nn_split_data(rare, 0.6, &train, &test);              /* stratified: both parts have their share of eights */

    nn_report plain = train_and_test(nn, "plain", train, test, 1, 0);
    nn_report weighted = train_and_test(nn, "class weights", train, test, 20, 0);
    nn_report balanced = train_and_test(nn, "balanced sampling", train, test, 1, 1);
    printf("\nF1 of the rare class: plain %.3f, weighted %.3f, balanced %.3f\n", plain.f1[1], weighted.f1[1], balanced.f1[1]);
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
