/* ort.c - A worker (measure.h) for ONNX Runtime, through its C functions: no Python in the measured part.

   Build:  cc -O2 ort.c -o ort -ldl
   Run:    ./ort LIBONNXRUNTIME FOLDER THREADS       measures FOLDER/workload.onnx (onnx_nets.py writes them)
   The function table is stable; its slots are counted in onnxruntime_c_api.h, which the Python package does not have. */
#include <dlfcn.h>
#include "../measure.h"

enum { GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_SESSION_OPTIONS = 10, SET_OPTIMIZATION = 23, SET_INTRA_OP_THREADS = 24,
       SET_INTER_OP_THREADS = 25, SESSION_INPUT_TYPE = 33, CREATE_TENSOR = 49, CAST_TO_TENSOR_INFO = 55, GET_DIM_COUNT = 61, GET_DIMS = 62,
       CREATE_CPU_MEMORY_INFO = 69 };
typedef struct Base { const void *(*get_api)(uint32_t); const char *(*version)(void); } Base;
typedef void *Handle;
static void **api;
#define CALL(slot, ...) ((Handle (*)(__VA_ARGS__))api[slot])
static void check(Handle status)
{
    if (!status) return;
    fprintf(stderr, "onnxruntime: %s\n", ((const char *(*)(Handle))api[GET_ERROR_MESSAGE])(status));
    exit(1);
}

typedef struct Net { char name[128]; Handle session, in, out; } Net;
static const char *folder;
static int threads;
static Handle env, memory;

static int open_net(Net *n, const char *workload)
{
    char path[1024];
    Handle options, type;
    const void *info;
    size_t dims, count = 1;
    int64_t d[8];
    snprintf(path, sizeof path, "%s/%s.onnx", folder, workload);
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    fclose(f);
    snprintf(n->name, sizeof n->name, "%s", workload);
    check(CALL(CREATE_SESSION_OPTIONS, Handle *)(&options));
    check(CALL(SET_INTRA_OP_THREADS, Handle, int)(options, threads));
    check(CALL(SET_INTER_OP_THREADS, Handle, int)(options, 1));
    check(CALL(SET_OPTIMIZATION, Handle, int)(options, 99));                    /* all */
    check(CALL(CREATE_SESSION, Handle, const char *, Handle, Handle *)(env, path, options, &n->session));
    check(CALL(SESSION_INPUT_TYPE, Handle, size_t, Handle *)(n->session, 0, &type));
    check(CALL(CAST_TO_TENSOR_INFO, Handle, const void **)(type, &info));
    check(CALL(GET_DIM_COUNT, const void *, size_t *)(info, &dims));
    check(CALL(GET_DIMS, const void *, int64_t *, size_t)(info, d, dims));
    for (size_t i = 0; i < dims; i++) count *= (size_t)d[i];
    int tokens = strstr(workload, "_gpt_") != NULL;      /* i64 */
    size_t bytes = count * (tokens ? sizeof(int64_t) : sizeof(float));
    check(CALL(CREATE_TENSOR, Handle, void *, size_t, const int64_t *, size_t, int, Handle *)
              (memory, tokens ? calloc(count, sizeof(int64_t)) : (void *)nnb_numbers((int64_t)count), bytes, d, dims, tokens ? 7 : 1, &n->in));
    return 1;
}

static void run(void *arg)                               /* the output is allocated once and then reused */
{
    Net *n = arg;
    const char *in = "x", *out = "y";
    check(CALL(RUN, Handle, Handle, const char *const *, const Handle *, size_t, const char *const *, size_t, Handle *)
              (n->session, NULL, &in, &n->in, 1, &out, 1, &n->out));
}

static void answer(const char *workload, double seconds)
{
    static Net net[64];
    static int nets;
    int i = 0;
    while (i < nets && strcmp(net[i].name, workload)) i++;
    if (i == nets && (nets == 64 || !open_net(&net[nets], workload))) return;
    nets += i == nets;
    nnb_report("onnxruntime", workload, threads, "us", 1e6 * nnb_median(run, &net[i], seconds, 2));
}

int main(int argc, char **argv)
{
    if (argc != 4) { fprintf(stderr, "usage: ort LIBONNXRUNTIME FOLDER THREADS\n"); return 1; }
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) { fprintf(stderr, "%s\n", dlerror()); return 1; }
    const Base *base = ((const Base *(*)(void))dlsym(library, "OrtGetApiBase"))();
    api = (void **)(uintptr_t)base->get_api(10);
    folder = argv[2];
    threads = atoi(argv[3]);
    check(CALL(CREATE_ENV, int, const char *, Handle *)(3, "bench", &env));
    check(CALL(CREATE_CPU_MEMORY_INFO, int, int, Handle *)(0, 0, &memory));
    nnb_serve(answer);
    return 0;
}
