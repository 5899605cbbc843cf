/* safetensors_tool.c - the other side of check_safetensors.py:  write DIR  writes files,  read DIR  reads what the library wrote */
#define NN_IMPLEMENTATION
#include "../nn.h"

static nn_layer *make(nn_context *nn)
{
    nn_layer *net = nn_model_new(nn, NULL), *g = nn_group_new(net, "inner");
    nn_linear_new(net, "fc1", 5, 7, NULL);
    nn_linear_new(g, "fc2", 7, 300, NULL);
    nn_param_new(net, "scalar", NN_SCALAR);
    nn_param_new(net, "empty", NN_SHAPE(0, 3));
    nn_param_new(net, "quote\"back\\slash", NN_SHAPE(2, 3, 4));
    return net;
}

static void fill(nn_tensor *t)                           /* element i is (i * 37 % 101 - 50) / 8: exact in f16 and bf16 */
{
    int64_t n = nn_count(t), i;
    float *v = malloc((size_t)(n ? n : 1) * 4);
    for (i = 0; i < n; i++) v[i] = (float)(i * 37 % 101 - 50) / 8;
    nn_write(t, v);
    free(v);
}
static int is_filled(nn_tensor *t, double scale)         /* scale 1: all; else: the integer part of element i, times scale */
{
    int64_t n = nn_count(t), i;
    int good = 1;
    float *v = malloc((size_t)(n ? n : 1) * 4);
    nn_read(t, v);
    for (i = 0; i < n; i++) {
        double want = (double)(i * 37 % 101 - 50) / 8;
        good &= v[i] == (float)(scale == 1 ? want : scale * trunc(want));
    }
    free(v);
    return good;
}

int main(int argc, char **argv)
{
    static const struct { const char *name; nn_dtype dtype; } as[] = { { "f32", NN_F32 }, { "f16", NN_F16 }, { "bf16", NN_BF16 }, { "f64", NN_F64 } };
    static const char *const read[] = { "F32", "F16", "BF16", "F64", "I8", "I32", "I64" };
    nn_context *nn = nn_new(NULL);
    nn_layer *net = make(nn);
    nn_optimizer *opt = nn_adam_new(net, NULL);
    nn_tensor *list[16];
    int n = nn_params(net, list, 16), i, k, bad = 0;
    char path[1000];
    if (argc != 3) return 2;
    if (!strcmp(argv[1], "write")) {
        for (i = 0; i < n; i++) fill(list[i]);
        for (k = 0; k < 4; k++) {
            snprintf(path, sizeof path, "%s/ours_%s.safetensors", argv[2], as[k].name);
            bad |= !nn_save(net, path, &(nn_save_desc){ .dtype = as[k].dtype });
        }
        snprintf(path, sizeof path, "%s/ours_checkpoint.safetensors", argv[2]);
        bad |= !nn_save(net, path, &(nn_save_desc){ .optimizer = opt });
    } else {
        for (k = 0; k < 7; k++) {
            snprintf(path, sizeof path, "%s/theirs_%s.safetensors", argv[2], read[k]);
            for (i = 0; i < n; i++) nn_init_uniform(list[i], 77, 78);
            if (!nn_load(net, path, NULL)) { bad = 1; nn_clear(nn); continue; }
            for (i = 0; i < n; i++) if (!is_filled(list[i], k < 4 ? 1 : 2)) { printf("%s: tensor %d differs\n", path, i); bad = 1; }
        }
    }
    if (bad || !nn_ok(nn)) printf("%s\n", nn_error(nn));
    nn_free(nn);
    return bad;
}
