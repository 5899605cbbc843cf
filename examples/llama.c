/* llama.c - Demonstrates a pretrained Llama (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, grouped queries; two formats of files.

   Data:     a folder with config.json and model.safetensors in the layout of Hugging Face's LlamaForCausalLM (SmolLM, TinyLlama, Mistral, Qwen2) and,
             for text, a tokenizer.json that nn.h knows; or a .bin of llama2.c (version 0) with its tokenizer.bin in the same folder, for example
             stories15M.bin from https://huggingface.co/karpathy/tinyllamas
   Build:    cc -O2 examples/llama.c -o llama -lm -lpthread
   Run:      ./llama folder|file.bin [options] "Once upon a time"             the options are those of language_model.h
   Expect:   how many parameters it has, and how the text goes on
   Run in CI: tests/golden/llama/model.bin -n 8 -i "7 23 4 42 11"
   Level:    ***                                                                                  */
#include "language_model.h"

typedef struct LlamaBlock { nn_layer *norm1, *q, *k, *v, *o, *norm2, *gate, *up, *down; } LlamaBlock;
typedef struct Llama {
    LanguageModel lm;
    int        heads, interleaved, tied, qkv_bias;      /* interleaved: which numbers of a head are turned together */
    int64_t    width, hidden;
    float      eps, base;
    nn_tensor *rope;
    nn_layer  *embed, *norm, *lm_head;
    LlamaBlock block[LM_LAYERS];
} Llama;

static nn_tensor *llama_turned(const Llama *m, nn_tensor *x, int64_t start)      /* (B, T, heads * D) */
{
    nn_rope_desc d = { .start = start, .interleaved = m->interleaved, .time_dim = 1 };
    return nn_reshape(nn_rope(nn_reshape(x, NN_SHAPE(nn_dim(x, 0), nn_dim(x, 1), -1, m->lm.head)), m->rope, &d), nn_shape_of(x));
}

static nn_tensor *llama_forward(void *self, nn_tensor *ids)                      /* i64 (B, T) -> logits (B, T, V) */
{
    Llama *m = self;
    int64_t start = lm_start(&m->lm), t = nn_dim(ids, 1);
    nn_tensor *x = nn_forward(m->embed, ids), *mask = lm_mask(&m->lm, start + t);
    for (int i = 0; i < m->lm.layers; i++) {
        LlamaBlock *b = &m->block[i];
        nn_tensor *h = nn_forward(b->norm1, x), *q = llama_turned(m, nn_forward(b->q, h), start), *k = llama_turned(m, nn_forward(b->k, h), start);
        nn_attention_desc a = { .causal = 1, .heads = m->heads, .kv_heads = (int)m->lm.kv_heads, .cache = m->lm.cached ? m->lm.cache[i] : NULL, .mask = mask };
        h = nn_add_norm_forward(b->norm2, x, nn_forward(b->o, nn_attention(q, k, nn_forward(b->v, h), &a)), &x);     /* x + what attention gives, and its norm */
        x = nn_add(x, nn_forward(b->down, nn_mul(nn_forward(b->gate, h), nn_forward(b->up, h))));
    }
    if (m->lm.last) x = nn_slice(x, 1, t - 1, t, 1);
    return nn_forward(m->lm_head, nn_forward(m->norm, x));
}

static int llama_build(nn_context *nn, Llama *m)
{
    nn_linear_desc plain = { .no_bias = 1 }, qkv = { .no_bias = !m->qkv_bias }, silu = { .no_bias = 1, .activation = nn_silu };
    nn_rmsnorm_desc norm = { .eps = m->eps };
    if (m->lm.layers < 1 || m->lm.layers > LM_LAYERS || m->heads < 1 || m->lm.kv_heads < 1) {
        nn_fail(nn, "llama: %d layers, %d heads, %d of keys are impossible", m->lm.layers, m->heads, (int)m->lm.kv_heads);
        return 0;
    }
    if (!m->lm.head) m->lm.head = m->width / m->heads;
    m->lm.begin = 1;
    nn_init_skip(nn, 1);             /* every number comes from a file */
    m->lm.net = nn_model_new(nn, &(nn_model_desc){ .forward = llama_forward, .self = m, .release = 1 });
    m->rope = nn_rope_new(nn, m->lm.positions, m->lm.head, m->base);
    nn_layer *model = nn_group_new(m->lm.net, "model"), *layers;
    m->embed = nn_embedding_new(model, "embed_tokens", m->lm.vocabulary, m->width);
    layers = nn_group_new(model, "layers");
    for (int i = 0; i < m->lm.layers; i++) {
        LlamaBlock *b = &m->block[i];
        nn_layer *l = nn_group_new(layers, NULL), *attn = nn_group_new(l, "self_attn"), *mlp = nn_group_new(l, "mlp");
        b->norm1 = nn_rmsnorm_new(l, "input_layernorm", m->width, &norm);
        b->q     = nn_linear_new(attn, "q_proj", m->width, m->heads * m->lm.head, &qkv);
        b->k     = nn_linear_new(attn, "k_proj", m->width, m->lm.kv_heads * m->lm.head, &qkv);
        b->v     = nn_linear_new(attn, "v_proj", m->width, m->lm.kv_heads * m->lm.head, &qkv);
        b->o     = nn_linear_new(attn, "o_proj", m->heads * m->lm.head, m->width, &plain);
        b->norm2 = nn_rmsnorm_new(l, "post_attention_layernorm", m->width, &norm);
        b->gate  = nn_linear_new(mlp, "gate_proj", m->width, m->hidden, &silu);
        b->up    = nn_linear_new(mlp, "up_proj", m->width, m->hidden, &plain);
        b->down  = nn_linear_new(mlp, "down_proj", m->hidden, m->width, &plain);
    }
    m->norm = nn_rmsnorm_new(model, "norm", m->width, &norm);
    m->lm_head = m->tied ? nn_tied_linear_new(m->lm.net, m->embed) : nn_linear_new(m->lm.net, "lm_head", m->width, m->lm.vocabulary, &plain);
    nn_init_skip(nn, 0);
    return nn_ok(nn);
}

static int llama_load_folder(nn_context *nn, Llama *m, const char *folder)
{
    char config[512], weights[512], text[64];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    m->width          = (int64_t)nn_json_number(nn, config, "hidden_size", 4096);
    m->hidden         = (int64_t)nn_json_number(nn, config, "intermediate_size", 11008);
    m->lm.layers      = (int)nn_json_number(nn, config, "num_hidden_layers", 32);
    m->heads          = (int)nn_json_number(nn, config, "num_attention_heads", 32);
    m->lm.kv_heads    = (int64_t)nn_json_number(nn, config, "num_key_value_heads", m->heads);
    m->lm.head        = (int64_t)nn_json_number(nn, config, "head_dim", 0);
    m->lm.vocabulary  = (int64_t)nn_json_number(nn, config, "vocab_size", 32000);
    m->lm.positions   = (int64_t)nn_json_number(nn, config, "max_position_embeddings", 2048);
    m->eps            = (float)nn_json_number(nn, config, "rms_norm_eps", 1e-6);
    m->base           = (float)nn_json_number(nn, config, "rope_theta", nn_json_number(nn, config, "rope_parameters.rope_theta", 10000));
    if (nn_json_text(nn, config, "rope_scaling.rope_type", text, sizeof text) && strcmp(text, "default")) nn_fail(nn, "%s: rope_scaling %s is not supported", config, text);
    m->tied           = !nn_file_shape(nn, weights, "lm_head.weight", NULL);
    m->qkv_bias       = nn_file_shape(nn, weights, "model.layers.0.self_attn.q_proj.bias", NULL);
    return nn_ok(nn) && llama_build(nn, m) && nn_load(m->lm.net, weights, &(nn_load_desc){ .allow_unexpected = 1 });
}

/* llama2.c: seven numbers, then every kind of weight for all layers, then tables of positions, which are computed here, then lm_head. */
static int llama_load_bin(nn_context *nn, Llama *m, const char *path)
{
    static const char *const kinds[] = { "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                         "post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj" };
    char name[96];
    int32_t h[7];
    FILE *f = fopen(path, "rb");
    if (!f || fread(h, 4, 7, f) != 7) { nn_fail(nn, "%s cannot be read", path); if (f) fclose(f); return 0; }
    m->width = h[0]; m->hidden = h[1]; m->lm.layers = h[2]; m->heads = h[3]; m->lm.kv_heads = h[4]; m->lm.positions = h[6];
    m->tied = h[5] > 0; m->lm.vocabulary = h[5] > 0 ? h[5] : -(int64_t)h[5]; m->interleaved = 1; m->eps = 1e-5f;
    for (int i = 0, n = llama_build(nn, m) ? 9 * m->lm.layers + 2 + !m->tied : 0; i < n && nn_ok(nn); i++) {
        if (i == 0) snprintf(name, sizeof name, "model.embed_tokens.weight");
        else if (i <= 9 * m->lm.layers) snprintf(name, sizeof name, "model.layers.%d.%s.weight", (i - 1) % m->lm.layers, kinds[(i - 1) / m->lm.layers]);
        else snprintf(name, sizeof name, i == 9 * m->lm.layers + 1 ? "model.norm.weight" : "lm_head.weight");
        if (i == 9 * m->lm.layers + 2) fseek(f, (long)(m->lm.positions * m->lm.head * 4), SEEK_CUR);
        nn_tensor *w = nn_param(m->lm.net, name);
        size_t count = (size_t)(w->inputs ? nn_dim(w, 0) * w->inputs : nn_count(w));          /* int4: w is words of eight */
        float *numbers = malloc(count * sizeof *numbers);
        if (!numbers || fread(numbers, sizeof *numbers, count, f) != count) nn_fail(nn, "%s: the file ends in %s", path, name);
        else nn_write(w, numbers);
        free(numbers);
    }
    fclose(f);
    return nn_ok(nn);
}

static int llama_load(nn_context *nn, Llama *m, const char *path)                /* 1 = ok */
{
    size_t n = strlen(path);
    memset(m, 0, sizeof *m);
    return n > 4 && !strcmp(path + n - 4, ".bin") ? llama_load_bin(nn, m, path) : llama_load_folder(nn, m, path);
}

int main(int argc, char **argv)
{
    static Llama m;
    if (argc < 2) { puts("llama folder|file.bin [options] [prompt]: see language_model.h"); return 1; }
    nn_context *nn = nn_new(NULL);
    nn_weights_as(nn, lm_weights(argc, argv), NULL);
    if (!llama_load(nn, &m, argv[1])) return 1;
    return lm_main(&m.lm, argc, argv);
}
