/* test_models.c - the pretrained models of examples/, by the very code of the examples, against what Hugging Face's transformers computes with the same
   files (tests/record_models.py); decoding with caches; low-rank adapters; files that do not fit. */
#include "library.h"
#include "test.h"
#define main gpt2_main
#include "../examples/gpt2.c"
#undef main
#define main llama_main
#include "../examples/llama.c"
#undef main
#define main bert_main
#include "../examples/bert.c"
#undef main
#include <unistd.h>

static GPT2 gpt2;
static Llama llama;
static Bert bert;
enum { VOCABULARY = 61, NEW = 64 };

static const char *golden(const char *name)              /* the text of one of four calls stays */
{
    static char path[4][256];
    static int next;
    FILE *f = fopen("tests/golden/gpt2/config.json", "rb");
    snprintf(path[next++ % 4], 256, "%s/%s", f ? "tests/golden" : "golden", name);
    if (f) fclose(f);
    return path[(next - 1) % 4];
}
static const char *temporary(const char *name)
{
    static char path[4][256];
    static int next;
    const char *dir = getenv("TMPDIR");
    snprintf(path[next++ % 4], 256, "%s/nn_%d_%s", dir ? dir : "/tmp", (int)getpid(), name);
    return path[(next - 1) % 4];
}

/* Everything of a file of recorded tensors, as parameters of a layer. */
static nn_layer *recorded(nn_context *nn, const char *path)
{
    static const char *const names[] = { "prompt0", "logits0", "prompt1", "logits1", "tokens", "ids", "lengths", "hidden", "sentence" };
    nn_layer *l = nn_model_new(nn, NULL);
    nn_shape s;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) if (nn_file_shape(nn, path, names[i], &s)) nn_param_new(l, names[i], s);
    nn_load(l, path, NULL);
    return l;
}
static nn_tensor *as_ids(nn_tensor *t) { return nn_cast(t->ndim == 1 ? nn_unsqueeze(t, 0) : t, NN_I64); }
static double distance(const nn_tensor *a, const nn_tensor *b)       /* the largest difference */
{
    int64_t n = nn_count(b);
    double worst = nn_count(a) == n ? 0 : INFINITY;
    float *v = malloc((size_t)(2 * n + 1) * sizeof *v);
    if (nn_count(a) == n && nn_read(a, v) && nn_read(b, v + n))
        for (int64_t i = 0; i < n; i++) { double d = fabs((double)v[i] - (double)v[n + i]); if (!(d <= worst)) worst = d; }
    else worst = INFINITY;
    free(v);
    return worst;
}

/* 0: GPT-2; 1: Llama from safetensors, with grouped queries; 2: the same from llama2.c's format */
static LanguageModel *load(nn_context *nn, int which)
{
    int ok = which == 0 ? gpt2_load(nn, &gpt2, golden("gpt2")) : llama_load(nn, &llama, golden(which == 1 ? "llama" : "llama/model.bin"));
    CHECK(ok);
    return which == 0 ? &gpt2.lm : &llama.lm;
}
static nn_layer *answers(nn_context *nn, int which) { return recorded(nn, golden(which ? "llama/expected.safetensors" : "gpt2/expected.safetensors")); }

/* Logits of one pass, of decoding token by token, and in uneven pieces: bit by bit the same. */
static void same_bits(LanguageModel *m, const int64_t *ids, int64_t n)
{
    static float all[128 * VOCABULARY], part[128 * VOCABULARY];
    static const int64_t sizes[][2] = { { 1, 1 }, { 5, 1 }, { 7, 3 }, { 33, 33 } };
    nn_context *nn = nn_context_of(m->net);
    nn_begin(nn, NN_EVAL);
    CHECK(nn_read(nn_forward(m->net, nn_from_as(nn, NN_I64, NN_SHAPE(1, n), ids)), all));
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        lm_rewind(m, 0);
        memset(part, 0, sizeof part);
        m->cached = 1;
        for (int64_t i = 0, step; i < n; i += step) {
            step = i ? sizes[s][1] : sizes[s][0];
            if (step > n - i) step = n - i;
            nn_begin(nn, NN_EVAL);
            CHECK(nn_read(nn_forward(m->net, nn_from_as(nn, NN_I64, NN_SHAPE(1, step), ids + i)), part + i * VOCABULARY));
        }
        m->cached = 0;
        CHECK(!memcmp(all, part, (size_t)(n * VOCABULARY) * sizeof *all));
    }
}

static void parity(int which, const char *isa, int threads)
{
    nn_context *nn = nn_new(&(nn_desc){ .isa = isa, .threads = threads });
    LanguageModel *m = load(nn, which);
    nn_layer *want = answers(nn, which);
    int64_t ids[128], tokens[NEW], expected[NEW], n;
    if (!nn_ok(nn)) { nn_free(nn); return; }
    for (int i = 0; i < 2; i++) {
        nn_begin(nn, NN_EVAL);
        nn_tensor *logits = nn_forward(m->net, as_ids(nn_param(want, i ? "prompt1" : "prompt0")));
        CHECK_NEAR(distance(logits, nn_param(want, i ? "logits1" : "logits0")), 0, 1e-4);
    }
    n = nn_count(nn_param(want, "prompt0"));
    CHECK(nn_read_as(nn_param(want, "prompt0"), NN_I64, ids) && nn_read_as(nn_param(want, "tokens"), NN_I64, expected));
    CHECK(lm_generate(m, NULL, ids, n, tokens, NEW, 0, NULL) == NEW);
    CHECK(!memcmp(tokens, expected, sizeof tokens));
    memcpy(ids + n, expected, sizeof expected);
    same_bits(m, ids, n + NEW);
    CHECK(nn_ok(nn));
    nn_free(nn);
}
TEST(decoders_match_transformers)
{
    for (int which = 0; which < 3; which++)
        for (int i = 0; test_isa(i); i++) parity(which, test_isa(i), 1 + i % 2);
}

TEST(encoder_matches_transformers)
{
    nn_context *nn = nn_new(NULL);
    CHECK(bert_load(nn, &bert, golden("bert"), NN_F32));
    nn_layer *want = recorded(nn, golden("bert/expected.safetensors"));
    nn_begin(nn, NN_EVAL);
    nn_tensor *ids = as_ids(nn_param(want, "ids")), *hidden, *alone;
    bert.lengths = nn_cast(nn_param(want, "lengths"), NN_I64);
    hidden = nn_forward(bert.net, ids);
    CHECK_NEAR(distance(nn_select(hidden, 0, 0), nn_select(nn_param(want, "hidden"), 0, 0)), 0, 1e-4);
    CHECK_NEAR(distance(bert_sentences(&bert, ids), nn_param(want, "sentence")), 0, 1e-4);
    bert.lengths = NULL;             /* the second sentence without its padding */
    alone = nn_forward(bert.net, nn_slice(nn_slice(ids, 0, 1, 2, 1), 1, 0, 3, 1));
    CHECK(distance(alone, nn_slice(nn_slice(hidden, 0, 1, 2, 1), 1, 0, 3, 1)) == 0);
    CHECK_NEAR(distance(alone, nn_slice(nn_slice(nn_param(want, "hidden"), 0, 1, 2, 1), 1, 0, 3, 1)), 0, 1e-4);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* ---- training -------------------------------------------------------------------------------------------- */
enum { PARAMS = 128 };
static uint64_t hash_of(const nn_tensor *t)
{
    int64_t n = nn_count(t);
    uint64_t h = 1;
    float *v = malloc((size_t)(n + 1) * sizeof *v);
    if (!nn_read(t, v)) h = 0;
    for (int64_t i = 0; i < n && h; i++) { uint32_t b; memcpy(&b, v + i, 4); h = (h ^ b) * 0x100000001B3u; }
    free(v);
    return h;
}
static nn_tensor *loss_of(nn_layer *net, nn_layer *want)     /* of saying tokens 1..32 after 0..31 */
{
    nn_tensor *t = as_ids(nn_param(want, "tokens"));
    return nn_token_cross_entropy(nn_forward(net, nn_slice(t, 1, 0, 32, 1)), nn_contiguous(nn_slice(t, 1, 1, 33, 1)), NULL);
}

TEST(all_parameters_learn)
{
    for (int which = 0; which < 3; which++) {
        nn_context *nn = nn_new(NULL);
        nn_tensor *p[PARAMS];
        uint64_t before[PARAMS];
        nn_layer *net, *want;
        int n;
        if (which < 2) { net = load(nn, which)->net; want = answers(nn, which); }
        else { CHECK(bert_load(nn, &bert, golden("bert"), NN_F32)); net = bert.net; want = recorded(nn, golden("bert/expected.safetensors")); }
        n = nn_params(net, p, PARAMS);
        CHECK(n > 20 && n <= PARAMS);
        for (int i = 0; i < n && i < PARAMS; i++) before[i] = hash_of(p[i]);
        nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.003f });
        double first = 0, last = 0;
        for (int i = 0; i < 10; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *loss;
            if (which < 2) loss = loss_of(net, want);
            else {                   /* the second and third sentence come close to the first */
                bert.lengths = nn_cast(nn_param(want, "lengths"), NN_I64);
                nn_tensor *y = bert_sentences(&bert, as_ids(nn_param(want, "ids")));
                loss = nn_neg(nn_sum(nn_matmul(nn_slice(y, 0, 1, 3, 1), nn_select(y, 0, 0)), NN_ALL, NULL));
            }
            last = nn_item(loss);
            if (i == 0) first = last;
            nn_backward(loss);
            nn_step(opt);
        }
        CHECK(last < first);
        for (int i = 0; i < n && i < PARAMS; i++) {
            char name[128];
            nn_name(p[i], NULL, name, sizeof name);
            if (hash_of(p[i]) == before[i]) printf("model %d: %s has not changed\n", which, name);
            CHECK(hash_of(p[i]) != before[i]);
        }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

static int is_adapter(const nn_tensor *t)
{
    char name[128];
    nn_name(t, NULL, name, sizeof name);
    return strstr(name, ".lora_A.weight") || strstr(name, ".lora_B.weight");
}
/* GPT-2, where weights are transposed, and Llama: adapters change nothing at first, only they learn, they are saved and loaded alone, they merge. */
TEST(lora)
{
    for (int which = 0; which < 2; which++) {
        nn_context *nn = nn_new(NULL), *other = nn_new(NULL);
        nn_tensor *p[PARAMS], *y;
        uint64_t before[PARAMS];
        char *path = (char *)(uintptr_t)temporary("adapter.safetensors");
        nn_layer *net = load(nn, which)->net, *want = answers(nn, which);
        int64_t full = nn_param_count(net), adapters;
        int n;
        double first = 0, last = 0;
        CHECK(nn_lora_new(net, &(nn_lora_desc){ .rank = 2, .alpha = 4, .dropout = 0.1f }) == (which ? 15 : 8));
        adapters = nn_param_count(net) - full;
        CHECK((double)adapters < 0.2 * (double)full);
        nn_begin(nn, NN_EVAL);
        CHECK_NEAR(distance(nn_forward(net, as_ids(nn_param(want, "prompt0"))), nn_param(want, "logits0")), 0, 1e-4);
        n = nn_params(net, p, PARAMS);
        CHECK(n <= PARAMS);
        for (int i = 0; i < n; i++) before[i] = hash_of(p[i]);
        nn_optimizer *opt = nn_adamw_new(net, &(nn_adamw_desc){ .lr = 0.02f });
        for (int i = 0; i < 20; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *loss = loss_of(net, want);
            last = nn_item(loss);
            if (i == 0) first = last;
            nn_backward(loss);
            if (i == 0) {            /* B is zero: only B gets a gradient that is not */
                CHECK(nn_grad(nn_param(net, which ? "model.embed_tokens.weight" : "wte.weight")) == NULL);
                CHECK(nn_grad(nn_param(net, which ? "model.layers.0.self_attn.q_proj.lora_B.weight" : "h.0.attn.c_attn.lora_B.weight")) != NULL);
            }
            nn_step(opt);
        }
        CHECK(last < 0.95 * first);
        for (int i = 0; i < n; i++) CHECK((hash_of(p[i]) != before[i]) == is_adapter(p[i]));

        /* alone in a file, and from there into another model */
        nn_shape s;
        size_t bytes = 0;
        CHECK(nn_save(net, path, &(nn_save_desc){ .trainable = 1 }) && nn_save_memory(net, NULL, 0, &bytes, &(nn_save_desc){ .trainable = 1 }));
        CHECK(bytes < 4 * (size_t)adapters + 5000);
        CHECK(!nn_file_shape(nn, path, which ? "model.norm.weight" : "ln_f.weight", NULL));
        CHECK(nn_file_shape(nn, path, which ? "model.layers.1.mlp.down_proj.lora_A.weight" : "h.1.mlp.c_proj.lora_A.weight", &s) && s.ndim == 2 && s.d[0] == 2 && s.d[1] == (which ? 40 : 64));
        nn_begin(nn, NN_EVAL);
        y = nn_keep(nn_forward(net, as_ids(nn_param(want, "prompt1"))));
        float tuned[9 * VOCABULARY], again[9 * VOCABULARY];
        CHECK(distance(y, nn_param(want, "logits1")) > 0.1 && nn_read(y, tuned));
        nn_layer *net2 = load(other, which)->net, *want2 = answers(other, which);
        nn_lora_new(net2, &(nn_lora_desc){ .rank = 2, .alpha = 4 });
        CHECK(nn_load(net2, path, &(nn_load_desc){ .trainable = 1 }));
        nn_begin(other, NN_EVAL);
        CHECK(nn_read(nn_forward(net2, as_ids(nn_param(want2, "prompt1"))), again) && !memcmp(tuned, again, sizeof tuned));

        /* merged: the old names, nearly the same numbers, and the cache still agrees */
        CHECK(nn_lora_merge(net2) == (which ? 15 : 8) && nn_param_count(net2) == full && nn_lora_merge(net2) == 0);
        nn_begin(other, NN_EVAL);
        CHECK(nn_read(nn_forward(net2, as_ids(nn_param(want2, "prompt1"))), again));
        for (int i = 0; i < 9 * VOCABULARY; i++) CHECK_NEAR(again[i], tuned[i], 1e-4);
        int64_t ids[9];
        CHECK(nn_read_as(nn_param(want2, "prompt1"), NN_I64, ids));
        same_bits(which ? &llama.lm : &gpt2.lm, ids, 9);
        CHECK(nn_ok(nn) && nn_ok(other));
        remove(path);
        nn_free(nn);
        nn_free(other);
    }
}

TEST(lora_by_name_and_checkpoint)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet, .seed = 3 });
    nn_layer *net = nn_model_new(nn, NULL), *head;
    char report[512], *path = (char *)(uintptr_t)temporary("lora.safetensors");
    float x[8] = { 1, -2, 3, 0.5f, -1, 2, 0.25f, 1 };
    nn_linear_new(net, "fc1", 4, 6, &(nn_linear_desc){ .activation = nn_relu, .no_bias = 1 });
    nn_linear_new(net, "fc2", 6, 5, NULL);
    head = nn_linear_new(net, "head", 5, 2, NULL);
    nn_begin(nn, NN_EVAL);
    nn_tensor *y = nn_keep(nn_forward(net, nn_from(nn, NN_SHAPE(2, 4), x)));
    CHECK(nn_lora_new(net, &(nn_lora_desc){ .rank = 3, .match = "fc1" }) == 1 && nn_lora_new(net, &(nn_lora_desc){ .rank = 1, .match = "fc2" }) == 1);
    nn_freeze(head, 0);              /* learns as a whole, beside the adapters */
    CHECK(nn_param_count(net) == 24 + 35 + 12 + 3 * 10 + 11);
    nn_begin(nn, NN_EVAL);
    CHECK(distance(nn_forward(net, nn_from(nn, NN_SHAPE(2, 4), x)), y) == 0);

    /* a checkpoint of what learns, resumed: the same numbers as without a break */
    double loss[2] = { 0, 0 };
    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.05f });
    for (int round = 0; round < 2; round++) {
        nn_save_desc d = { .optimizer = opt, .trainable = 1 };
        if (round == 1) CHECK(nn_resume(net, path, &d));
        for (int i = 0; i < 3; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *l = nn_sum(nn_square(nn_forward(net, nn_from(nn, NN_SHAPE(2, 4), x))), NN_ALL, NULL);
            loss[round] = nn_item(l);
            nn_backward(l);
            nn_step(opt);
            if (round == 0 && i == 0) CHECK(nn_save(net, path, &d));
        }
        if (round == 1) break;
    }
    CHECK(loss[1] < loss[0]);        /* one step further: 1 + 3 against 3 */
    nn_begin(nn, NN_EVAL);
    y = nn_keep(nn_forward(net, nn_from(nn, NN_SHAPE(2, 4), x)));
    CHECK(nn_save(net, path, &(nn_save_desc){ .trainable = 1 }));
    CHECK(nn_lora_merge(net) == 2);
    nn_begin(nn, NN_EVAL);
    CHECK(distance(nn_forward(net, nn_from(nn, NN_SHAPE(2, 4), x)), y) < 1e-5);
    CHECK(nn_ok(nn));

    CHECK(nn_lora_new(net, &(nn_lora_desc){ .match = "fc7" }) == 0);
    CHECK_TEXT(nn_error(nn), "fc7");
    nn_clear(nn);
    CHECK(nn_lora_new(net, &(nn_lora_desc){ .rank = -1 }) == 0 && !nn_ok(nn));
    nn_clear(nn);
    CHECK(nn_lora_new(net, &(nn_lora_desc){ .match = "fc1", .rank = 2 }) == 1);       /* the file has 3 */
    CHECK(!nn_load(net, path, &(nn_load_desc){ .trainable = 1, .allow_unexpected = 1, .report = report, .report_bytes = sizeof report }));
    CHECK_TEXT(report, "mis-shaped fc1.lora_A.weight: (3, 4) in the file, (2, 4) in the model");
    nn_clear(nn);
    remove(path);
    nn_free(nn);
}

/* ---- files -------------------------------------------------------------------------------------------------- */
TEST(misfits_are_named)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_load_desc d = { .allow_unexpected = 1 };
    nn_rename rename = { "transformer.", "" };
    load(nn, 0);
    gpt2.lm.positions = 95;
    gpt2_build(nn, &gpt2, 1e-5f);
    d.rename = &rename;
    d.rename_count = 1;
    CHECK(!nn_load(gpt2.lm.net, golden("gpt2/model.safetensors"), &d));
    CHECK_TEXT(nn_error(nn), "wpe.weight: (96, 16) in the file, (95, 16) in the model");
    nn_clear(nn);

    load(nn, 1);
    llama.lm.kv_heads = 4;
    CHECK(llama_build(nn, &llama) && !nn_load(llama.lm.net, golden("llama/model.safetensors"), &d));
    CHECK_TEXT(nn_error(nn), "model.layers.0.self_attn.k_proj.weight: (8, 16) in the file, (16, 16) in the model");
    nn_clear(nn);
    llama.lm.layers = 3;
    CHECK(llama_build(nn, &llama) && !nn_load(llama.lm.net, golden("llama/model.safetensors"), &d));
    CHECK_TEXT(nn_error(nn), "missing: model.layers.2.");
    nn_clear(nn);

    /* llama2.c's format has no names; a file that is too short ends in one */
    static char bytes[31000];
    const char *path = temporary("short.bin");
    FILE *f = fopen(golden("llama/model.bin"), "rb"), *to = fopen(path, "wb");
    CHECK(f && to && fread(bytes, 1, sizeof bytes, f) == sizeof bytes && fwrite(bytes, 1, sizeof bytes, to) == sizeof bytes);
    if (f) fclose(f);
    if (to) fclose(to);
    CHECK(!llama_load(nn, &llama, path));
    CHECK_TEXT(nn_error(nn), "the file ends in lm_head.weight");
    nn_clear(nn);
    remove(path);

    /* names as in OpenAI's own file: no prefix, and a mask in every layer, which nobody needs */
    load(nn, 0);
    nn_tensor *mask = nn_buffer_new(nn_child(gpt2.lm.net, "h.0.attn"), "bias", NN_SHAPE(1, 1, 2, 2));
    CHECK(mask && nn_save(gpt2.lm.net, path, NULL));
    load(nn, 0);
    CHECK(!nn_load(gpt2.lm.net, path, NULL));
    CHECK_TEXT(nn_error(nn), "unexpected: h.0.attn.bias");
    nn_clear(nn);
    CHECK(nn_load(gpt2.lm.net, path, &d));
    remove(path);
    nn_free(nn);
}

TEST(looking_into_files)
{
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    static const char json[] = "{ \"a\": 12, \"b\": {\"a\": -1.5e-3, \"c\": [1, {\"a\": 3}]}, \"text\": \"h\\u00e9 \\\"x\\\"\", \"yes\": true, \"no\": false, \"null\": null, \"empty\": \"\" }";
    const char *path = temporary("config.json");
    char text[8];
    nn_shape s;
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(json, 1, sizeof json - 1, f) == sizeof json - 1);
    if (f) fclose(f);
    CHECK(nn_json_number(nn, path, "a", 0) == 12 && nn_json_number(nn, path, "b.a", 0) == -1.5e-3 && nn_json_number(nn, path, "yes", 5) == 1 && nn_json_number(nn, path, "no", 5) == 0);
    CHECK(nn_json_number(nn, path, "null", 5) == 5 && nn_json_number(nn, path, "b", 5) == 5 && nn_json_number(nn, path, "b.c", 5) == 5);
    CHECK(nn_json_number(nn, path, "z", 5) == 5 && nn_json_number(nn, path, "a.a", 5) == 5);
    CHECK(nn_json_text(nn, path, "text", text, sizeof text) == 7 && !strcmp(text, "h\xc3\xa9 \"x\""));
    CHECK(nn_json_text(nn, path, "text", text, 3) == 7 && !strcmp(text, "h\xc3"));
    CHECK(nn_json_text(nn, path, "a", text, sizeof text) == 2 && !strcmp(text, "12") && nn_json_text(nn, path, "empty", text, sizeof text) == 0 && nn_ok(nn));
    CHECK(nn_json_number(nn, path, "text", 5) == 5);
    CHECK_TEXT(nn_error(nn), "text is");
    nn_clear(nn);
    f = fopen(path, "wb");
    CHECK(f && fwrite(json, 1, 60, f) == 60);
    if (f) fclose(f);
    CHECK(nn_json_text(nn, path, "a", text, sizeof text) == 0 && !nn_ok(nn));
    nn_clear(nn);
    remove(path);
    CHECK(nn_json_text(nn, path, "a", text, sizeof text) == 0);
    CHECK_TEXT(nn_error(nn), "cannot open");
    nn_clear(nn);
    CHECK(nn_file_shape(nn, golden("gpt2/model.safetensors"), "transformer.wpe.weight", &s) && s.ndim == 2 && s.d[0] == 96 && s.d[1] == 16);
    CHECK(!nn_file_shape(nn, golden("gpt2/model.safetensors"), "wpe.weight", &s) && nn_ok(nn));
    CHECK(!nn_file_shape(nn, golden("gpt2/config.json"), "a", &s) && !nn_ok(nn));
    nn_clear(nn);

    nn_layer *l = nn_model_new(nn, NULL);                /* what is to be loaded needs no random numbers, and draws none */
    nn_begin(nn, NN_EVAL);
    for (int skip = 0; skip < 2; skip++) {
        nn_init_skip(nn, skip);
        nn_tensor *w = nn_param(nn_linear_new(l, NULL, 3, 5, NULL), "weight");
        CHECK((nn_item(nn_sum(nn_abs(w), NN_ALL, NULL)) == 0) == skip);
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* ---- weights in fewer bytes (nn_weights_as) -------------------------------------------------------------------- */
static nn_layer *load_as(nn_context *nn, int which, nn_dtype type, int64_t group)
{
    int ok = which == 3;
    nn_weights_as(nn, type, group ? &(nn_quantize_desc){ .group = group } : NULL);
    if (which < 3) load(nn, which);
    else CHECK(ok = bert_load(nn, &bert, golden("bert"), type));
    nn_weights_as(nn, NN_F32, NULL);
    return which == 0 ? gpt2.lm.net : which < 3 ? llama.lm.net : bert.net;
}
static nn_tensor *answer(nn_layer *net, nn_layer *want, int which)
{
    if (which < 3) return nn_forward(net, as_ids(nn_param(want, "prompt1")));
    bert.lengths = nn_cast(nn_param(want, "lengths"), NN_I64);
    return bert_sentences(&bert, as_ids(nn_param(want, "ids")));
}
/* The bits of a model whose weights were rounded and are f32 again; a file of them comes back as it was. */
TEST(weights_in_fewer_bytes)
{
    static const nn_dtype types[] = { NN_BF16, NN_F16, NN_I8, NN_I8, NN_I4, NN_I4 };
    static float a[4096], b[4096];
    for (int which = 0; which < 4; which++) for (int i = 0; i < 6; i++) {
        nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet }), *other = nn_new(NULL);
        const char *path = temporary("small.safetensors");
        nn_layer *net = load_as(nn, which, types[i], i == 3 || i == 5 ? 8 : 0), *full, *want = which < 3 ? answers(nn, which) : recorded(nn, golden("bert/expected.safetensors")), *want2;
        nn_tensor *list[PARAMS], *y;
        CHECK(nn_ok(nn));
        nn_begin(nn, NN_EVAL);
        y = nn_keep(answer(net, want, which));
        CHECK(nn_read(y, a) && nn_count(y) <= 4096);
        CHECK(nn_save(net, path, NULL));
        int held = nn_buffers(net, list, PARAMS), small = 0;
        for (int k = 0; k < held; k++) small += types[i] == NN_I4 ? list[k]->inputs > 0 : list[k]->dtype == (int)types[i];
        CHECK(small == (which == 0 ? 10 : which < 3 ? 16 : 13));
        nn_init_skip(nn, 1);
        full = load_as(other, which, NN_F32, 0);
        nn_init_skip(nn, 0);
        for (int k = 0; k < held; k++) if (types[i] == NN_I4 ? list[k]->inputs > 0 : list[k]->dtype == (int)types[i]) {      /* the same numbers as f32 */
            char name[160], scale[176];
            static float w[40000], s[40000];
            nn_name(list[k], NULL, name, sizeof name);
            snprintf(scale, sizeof scale, "%s_scale", name);
            nn_tensor *by = nn_param(net, scale), *to = nn_param(full, name);
            int64_t n = nn_count(list[k]), columns = nn_dim(list[k], 1), turned = which == 0 && !strstr(name, "wte") && !strstr(name, "wpe");
            CHECK(n <= 40000 && nn_read(list[k], w) && (by != NULL) == (i > 1) && (!by || nn_read(by, s)) && to);
            if (types[i] == NN_I4) {
                nn_tensor *back = nn_dequantize(turned ? nn_transpose(list[k], 0, 1) : list[k], by);
                CHECK(nn_count(back) <= 40000 && nn_read(turned ? nn_transpose(back, 0, 1) : back, w));
            }
            else for (int64_t j = 0; by && j < n; j++) {
                int64_t out = turned ? j % columns : j / columns, in = turned ? j / columns : j % columns, inputs = turned ? n / columns : columns;
                w[j] *= s[out * nn_dim(by, 1) + in / (inputs / nn_dim(by, 1))];
            }
            CHECK(to && nn_write(to, w));
        }
        want2 = which < 3 ? answers(other, which) : recorded(other, golden("bert/expected.safetensors"));
        nn_begin(other, NN_EVAL);
        CHECK(nn_read(answer(full, want2, which), b) && !memcmp(a, b, (size_t)nn_count(y) * sizeof *a));
        if (which == 1 && i == 0) CHECK(distance(y, nn_param(want, "logits1")) < 1e-4);      /* this file is bf16 */

        net = load_as(nn, which, types[i], i == 3 || i == 5 ? 8 : 0);
        CHECK(nn_load(net, path, NULL));
        nn_begin(nn, NN_EVAL);
        CHECK(nn_read(answer(net, want, which), b) && !memcmp(a, b, (size_t)nn_count(y) * sizeof *a));
        if (which < 2) {             /* adapters learn beside them, and cannot be merged */
            double first = 0, last = 0;
            CHECK(nn_lora_new(net, &(nn_lora_desc){ .rank = 2 }) == (which ? 15 : 8));
            nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.02f });
            for (int step = 0; step < 8; step++) {
                nn_begin(nn, NN_TRAIN);
                nn_tensor *loss = loss_of(net, want);
                last = nn_item(loss);
                if (!step) first = last;
                nn_backward(loss);
                nn_step(opt);
            }
            CHECK(last < first && nn_ok(nn));
            CHECK(nn_lora_merge(net) == 0 && !nn_ok(nn));
            nn_clear(nn);
        }
        remove(path);
        nn_free(nn);
        nn_free(other);
    }
    nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL);
    for (int i = 0; i < 3; i++) {
        nn_weights_as(nn, i == 2 ? NN_F32 : NN_I4, &(nn_quantize_desc){ .group = i == 0 ? 24 : i == 1 ? 4 : 8 });
        CHECK(!nn_ok(nn));
        nn_clear(nn);
    }
    nn_weights_as(nn, NN_I8, &(nn_quantize_desc){ .group = 5 });
    CHECK(nn_linear_new(net, "a", 8, 3, NULL) && !nn_ok(nn));
    CHECK_TEXT(nn_error(nn), "groups of 5");
    nn_clear(nn);
    nn_weights_as(nn, NN_I32, NULL);
    CHECK(!nn_ok(nn));
    nn_clear(nn);
    nn_weights_as(nn, NN_I8, NULL);
    nn_layer *l = nn_multihead_attention_new(net, "mha", 8, 2, NULL), *f;
    nn_weights_as(nn, NN_F32, NULL);
    f = nn_multihead_attention_new(net, "full", 8, 2, NULL);
    float w[24 * 8], s[24], x[3 * 8];
    for (int i = 0; i < 24 * 8; i++) w[i] = (float)(i * 37 % 101 - 50) / 100;
    for (int i = 0; i < 24; i++) x[i] = (float)(i * 7 % 11) / 11;
    CHECK(nn_write(nn_param(l, "in_proj_weight"), w) && nn_write(nn_param(l, "out_proj.weight"), w));
    for (int part = 0; part < 2; part++) {
        nn_tensor *q = nn_param(l, part ? "out_proj.weight" : "in_proj_weight");
        CHECK(nn_read(q, w) && nn_read(nn_param(l, part ? "out_proj.weight_scale" : "in_proj_weight_scale"), s));
        for (int64_t i = 0; i < nn_count(q); i++) w[i] *= s[i / 8];
        CHECK(nn_write(nn_param(f, part ? "out_proj.weight" : "in_proj_weight"), w));
    }
    nn_begin(nn, NN_EVAL);
    nn_tensor *in = nn_from(nn, NN_SHAPE(1, 3, 8), x), *memory = nn_mul_scalar(in, 2);
    CHECK(distance(nn_forward(l, in), nn_forward(f, in)) == 0);
    CHECK(distance(nn_multihead_attention_forward(l, in, memory, NULL, NULL), nn_multihead_attention_forward(f, in, memory, NULL, NULL)) == 0);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* ---- adapters on attention with one weight for q, k and v ------------------------------------------------------ */
TEST(lora_of_in_proj)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 5, .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL), *l = nn_transformer_decoder_layer_new(net, "dec", 8, 2, &(nn_transformer_desc){ .hidden = 12, .causal = 1 });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(2, 5, 8), NULL), *memory = nn_tensor_new(nn, NN_SHAPE(2, 4, 8), NULL), *y, *tuned, *list[PARAMS];
    uint64_t before[PARAMS];
    int64_t full = nn_param_count(net);
    double first = 0, last = 0;
    nn_init_normal(x, 0, 1);
    nn_init_normal(memory, 0, 1);
    nn_begin(nn, NN_EVAL);
    y = nn_tensor_new(nn, NN_SHAPE(2, 5, 8), nn_data(nn_transformer_decoder_layer_forward(l, x, memory, NULL, NULL)));
    CHECK(nn_lora_new(net, &(nn_lora_desc){ .rank = 2, .alpha = 4, .match = "self_attn.in_proj" }) == 1);
    CHECK(nn_param_count(net) == full + 2 * (8 + 24));
    CHECK(nn_lora_new(net, &(nn_lora_desc){ .rank = 2, .alpha = 4, .dropout = 0.1f }) == 5);           /* the others: out_proj twice, in_proj, linear1, linear2 */
    CHECK(nn_param(net, "dec.multihead_attn.lora_B.weight") && nn_param(net, "dec.self_attn.lora_A.weight") && nn_param(net, "dec.self_attn.out_proj.lora_A.weight"));
    nn_begin(nn, NN_EVAL);
    CHECK(distance(nn_transformer_decoder_layer_forward(l, x, memory, NULL, NULL), y) < 1e-6);
    int n = nn_params(net, list, PARAMS);
    for (int i = 0; i < n; i++) before[i] = hash_of(list[i]);
    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.03f });
    for (int i = 0; i < 20; i++) {
        nn_begin(nn, NN_TRAIN);
        nn_tensor *loss = nn_mean(nn_square(nn_sub(nn_transformer_decoder_layer_forward(l, x, memory, NULL, NULL), nn_flip(x, NN_DIMS(2)))), NN_ALL, NULL);
        last = nn_item(loss);
        if (!i) first = last;
        nn_backward(loss);
        nn_step(opt);
    }
    CHECK(last < 0.9 * first && nn_ok(nn));
    for (int i = 0; i < n; i++) CHECK((hash_of(list[i]) != before[i]) == is_adapter(list[i]));
    nn_begin(nn, NN_EVAL);
    tuned = nn_keep(nn_transformer_decoder_layer_forward(l, x, memory, NULL, NULL));
    CHECK(distance(tuned, y) > 0.01);
    CHECK(nn_lora_merge(net) == 6 && nn_param_count(net) == full && nn_child(l, "self_attn.out_proj") && !nn_child(l, "self_attn.lora_A"));
    nn_begin(nn, NN_EVAL);
    CHECK(distance(nn_transformer_decoder_layer_forward(l, x, memory, NULL, NULL), tuned) < 1e-5 && nn_ok(nn));
    nn_free(nn);
}

/* ---- several texts at once; no allocation --------------------------------------------------------------------- */
TEST(texts_side_by_side)
{
    for (int which = 0; which < 2; which++) {
        nn_context *nn = nn_new(&(nn_desc){ .on_error = test_quiet });
        LanguageModel *m = load(nn, which);
        static int64_t prompts[3][LM_PROMPT], tokens[3 * 24], alone[24];
        static const int64_t counts[3] = { 9, 1, 4 };
        int64_t made[3], stop, n;
        for (int r = 0; r < 3; r++) for (int i = 0; i < 9; i++) prompts[r][i] = (r * 17 + i * i * 7 + 5) % VOCABULARY;
        CHECK(lm_generate_batch(m, NULL, prompts[0], counts, 3, tokens, made, 24, 0));
        for (int r = 0; r < 3; r++) {
            CHECK(made[r] == 24 && lm_generate(m, NULL, prompts[r], counts[r], alone, 24, 0, NULL) == 24);
            CHECK(!memcmp(alone, tokens + r * 24, sizeof alone));
        }
        stop = tokens[24 + 5];       /* one ends before the others */
        nn_generate_desc d = { .step = lm_step, .self = m, .vocabulary = VOCABULARY, .context = m->positions, .sample = &(nn_sample_desc){ .greedy = 1 }, .stop = &stop, .stop_count = 1 };
        static int64_t again[3 * 24];
        CHECK(nn_generate_batch(nn, prompts[0], counts, 3, LM_PROMPT, again, made, 24, &d));
        for (int r = 0; r < 3; r++) {
            for (n = 0; n < 24 && tokens[r * 24 + n] != stop; n++) { }
            CHECK(made[r] == (n < 24 ? n + 1 : 24) && !memcmp(again + r * 24, tokens + r * 24, (size_t)made[r] * sizeof *again));
        }
        CHECK(made[1] <= 6 && nn_ok(nn));
        CHECK(!nn_generate_batch(nn, prompts[0], counts, 3, LM_PROMPT, again, made, 1000, &d));
        CHECK_TEXT(nn_error(nn), "more than the context");
        nn_clear(nn);
        d.beams = 2;
        CHECK(!nn_generate_batch(nn, prompts[0], counts, 3, LM_PROMPT, again, made, 4, &d));
        CHECK_TEXT(nn_error(nn), "no beams");
        nn_clear(nn);
        CHECK(!nn_generate_batch(nn, prompts[0], (int64_t[]){ 3, 0, 1 }, 3, LM_PROMPT, again, made, 4, &(nn_generate_desc){ .step = lm_step, .vocabulary = VOCABULARY }));
        CHECK_TEXT(nn_error(nn), "prompt 1 has 0 tokens");
        nn_free(nn);
    }
}
/* Calls to the allocator: none in a loop of decoding, nor in nn_generate, once it has been called. */
TEST(generation_allocates_nothing)
{
    for (int which = 0; which < 2; which++) {
        nn_context *nn = nn_new(NULL);
        LanguageModel *m = load(nn, which);
        static const int64_t prompt[] = { 7, 23, 4, 42, 11 };
        int64_t tokens[NEW], before, calls[3];
        static const int64_t lengths[3] = { NEW, 4, NEW };
        for (int i = 0; i < 3; i++) {
            before = nn_allocations(nn);
            CHECK(lm_generate(m, NULL, prompt, 5, tokens, lengths[i], 0.8f, NULL) == lengths[i]);
            calls[i] = nn_allocations(nn) - before;
        }
        CHECK(calls[2] == 0);
        CHECK(calls[0] > 0 && calls[1] == 0);
        lm_rewind(m, 0);
        m->cached = m->last = 1;
        for (int i = 0; i < 40; i++) {
            if (i == 20) before = nn_allocations(nn);
            nn_begin(nn, NN_EVAL);
            CHECK(nn_sample(nn_select(nn_forward(m->net, nn_from_as(nn, NN_I64, NN_SHAPE(1, 1), prompt)), 1, 0), NULL, 0, &(nn_sample_desc){ .greedy = 1 }, tokens));
        }
        CHECK(nn_allocations(nn) == before);
        m->cached = m->last = 0;
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}
