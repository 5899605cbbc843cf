/* xor.c - Demonstrates the smallest complete program: a net, an optimizer, a training loop.

   Build:    cc -O2 examples/xor.c -o xor -lm -lpthread
   Expect:   four probabilities near 0, 1, 1, 0 and then "xor learned"
   Level:    *                                                                                   */
#define NN_IMPLEMENTATION
#include "../nn.h"

int main(void)
{
    float in[] = { 0,0, 0,1, 1,0, 1,1 }, out[] = { 0, 1, 1, 0 }, p[4];
    nn_context *nn = nn_new(NULL);
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc1", 2, 8, NULL);
    nn_fn_new(net, nn_tanh);
    nn_linear_new(net, "fc2", 8, 1, NULL);
    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.05f });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(4, 2), in), *y = nn_tensor_new(nn, NN_SHAPE(4, 1), out);
    for (int i = 0; i < 500; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_backward(nn_binary_cross_entropy(nn_forward(net, x), y, NULL));     // from logits
        nn_step(opt);
    }
    nn_begin(nn, NN_EVAL);
    nn_tensor *answer = nn_sigmoid(nn_forward(net, x));
    nn_print(answer);
    int learned = nn_read(answer, p);
    for (int i = 0; i < 4 && learned; i++) learned = (p[i] > 0.5f) == (out[i] > 0.5f);
    nn_free(nn);
    puts(learned ? "xor learned" : "xor not learned");
    return !learned;
}
