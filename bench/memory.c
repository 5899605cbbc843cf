/* memory.c - Peak memory of training: bytes that three training steps need, for the nets of examples/digits.c and examples/resnet.c.

   Build:  cc -O2 -I. bench/memory.c -o memory -lm -lpthread
   Prints: peer, workload, threads, metric, value; tab-separated, as bench/memory_torch.py does.
           peak_bytes  everything that nn.h holds, by nn_desc.measure: nothing is computed
           trained_in  the same, after training in a buffer of just that size; resnet18 only with --compute: it takes a while
           rss_growth  how far the resident set grew, in a process of its own, without a buffer                            */
#define NN_IMPLEMENTATION
#define main digits_main
#include "../examples/digits.c"
#undef main
#define main resnet_main
#include "../examples/resnet.c"
#undef main
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DIGITS, LENET, RESNET };
static const char *const workloads[] = { "digits", "lenet", "resnet18" };

static size_t train(int workload, int measure, void *memory, size_t room)
{
    static Block blocks[8];
    nn_context *nn = nn_new(&(nn_desc){ .seed = 1, .threads = 1, .measure = measure, .memory = memory, .bytes = room });
    nn_shape one = workload == DIGITS ? NN_SHAPE(1, 8, 8) : workload == LENET ? NN_SHAPE(1, 28, 28) : NN_SHAPE(3, 32, 32);
    int64_t batch = workload == RESNET ? 32 : 64, count = batch * one.d[0] * one.d[1] * one.d[2], labels[64];
    nn_layer *net = workload == RESNET ? add_resnet18(nn, blocks, 64, 10) : nn_model_new(nn, NULL);
    nn_optimizer *opt;
    float *x = malloc((size_t)count * sizeof *x);
    size_t bytes;
    if (workload == DIGITS) add_mlp(net, 64, 10);
    if (workload == LENET) add_lenet(net, one, 10);
    if (workload == RESNET) opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.02f, .momentum = 0.9f, .weight_decay = 5e-4f, .nesterov = 1 });
    else opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.002f, .weight_decay = 0.01f });
    for (int64_t i = 0; i < count; i++) x[i] = (float)(i % 17) / 17;
    for (int i = 0; i < batch; i++) labels[i] = i % 10;
    for (int step = 0; step < 3; step++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *scores = nn_forward(net, nn_from(nn, NN_SHAPE(batch, one.d[0], one.d[1], one.d[2]), x));
        nn_backward(nn_cross_entropy(scores, nn_from_as(nn, NN_I64, NN_SHAPE(batch), labels), NULL));
        nn_step(opt);
    }
    bytes = nn_ok(nn) ? nn_bytes_needed(nn) : 0;
    nn_free(nn);
    free(x);
    return bytes;
}

static long resident(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_maxrss * 1024L;
}

static void report(int workload, const char *metric, long long value)
{
    printf("nn.h\t%s\t1\t%s\t%lld\n", workloads[workload], metric, value);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int compute = argc > 1 && !strcmp(argv[1], "--compute");     /* ResNet-18 too: takes a while */
    for (int w = DIGITS; w <= RESNET; w++) {
        size_t peak = train(w, 1, NULL, 0);
        report(w, "peak_bytes", (long long)peak);
        if (w == RESNET && !compute) continue;
        void *memory = aligned_alloc(64, peak);
        report(w, "trained_in", (long long)train(w, 0, memory, peak));
        free(memory);
        pid_t child = fork();
        if (child == 0) {
            long before = resident();
            train(w, 0, NULL, 0);
            report(w, "rss_growth", resident() - before);
            _exit(0);
        }
        waitpid(child, NULL, 0);
    }
    return 0;
}
