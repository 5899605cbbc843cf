/* distill.c - Demonstrates distillation (Hinton et al. 2015): a big net teaches a small one what it knows about wrong answers too.

   The student has few labelled digits to learn from, but the teacher's softened opinions on all of them.
   Build:    cc -O2 examples/distill.c -o distill -lm -lpthread
   Expect:   the accuracies of the teacher, of a student on its own, and of a distilled student, which lies between
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { EPOCHS = 25 };

static nn_layer *make_net(nn_context *nn, nn_dataset *train, int64_t hidden)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_scaler_new(net, train);
    nn_flatten_new(net);
    nn_linear_new(net, "fc1", 64, hidden, NULL);
    nn_fn_new(net, nn_relu);
    nn_linear_new(net, "fc2", hidden, 10, NULL);
    return net;
}

static double accuracy(nn_layer *net, nn_dataset *test)
{
    nn_report report;
    nn_evaluate(net, nn_loader_new(test, &(nn_loader_desc){ .batch = 512 }), NULL, NULL, &report);
    return 100 * report.accuracy;
}

static void fit(nn_layer *net, nn_dataset *train)
{
    nn_fit(net, &(nn_fit_desc){ .train = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1 }),
                                .loss = nn_cross_entropy, .epochs = EPOCHS, .quiet = 1,
                                .optimizer = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.003f }) });
}

/* loss = T^2 KL(teacher / T || student / T): the labels are not looked at */
static void distill(nn_layer *student, nn_layer *teacher, nn_dataset *train)
{
    nn_context *nn = nn_context_of(student);
    nn_optimizer *opt = nn_adam_new(student, &(nn_adam_desc){ .lr = 0.003f });
    nn_loader *loader = nn_loader_new(train, &(nn_loader_desc){ .batch = 32, .shuffle = 1 });
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        nn_batch b;
        while (nn_loader_next(loader, &b)) {
            nn_begin(nn, NN_TRAIN);
            nn_push(nn, NN_EVAL);                         /* the teacher learns nothing */
            nn_tensor *opinion = nn_forward(teacher, b.x);
            nn_pop(nn);
            nn_backward(nn_kl_div(nn_forward(student, b.x), opinion, &(nn_loss_desc){ .temperature = 4 }));
            nn_step(opt);
        }
    }
}

int main(void)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1 });
    nn_dataset *all = nn_idx_load(nn, "examples/data/digits-images-idx3-ubyte", "examples/data/digits-labels-idx1-ubyte");
    nn_dataset *train, *test, *few, *rest;
    nn_split_data(all, 0.7, &train, &test);
    nn_split_data(train, 0.1, &few, &rest);
    if (!nn_ok(nn)) return 1;

    nn_layer *teacher = make_net(nn, train, 256), *alone = make_net(nn, train, 16), *student = make_net(nn, train, 16);
    fit(teacher, train);
    fit(alone, few);
    distill(student, teacher, train);
    printf("teacher,  %6lld parameters, all labels:          %.2f%%\n", (long long)nn_param_count(teacher), accuracy(teacher, test));
    printf("student,  %6lld parameters, a tenth of the labels: %.2f%%\n", (long long)nn_param_count(alone), accuracy(alone, test));
    printf("distilled %6lld parameters, the teacher's opinion: %.2f%%\n", (long long)nn_param_count(student), accuracy(student, test));
    int ok = nn_ok(nn);
    nn_free(nn);
    return !ok;
}
