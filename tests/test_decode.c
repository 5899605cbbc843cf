/* test_decode.c - tokens of a text as a program that is repeated (nn_step_plan_desc.eval): the bits of nn_forward, wherever it stands, and errors where it has them */
#include "library.h"
#include "test.h"

enum { LAYERS = 2, HEADS = 2, WIDTH = 16, CAPACITY = 40, POSITIONS = 36, VOCABULARY = 11, BATCH = 3, KINDS = 5, CALLS = 400 };
static int64_t calls;
static void *count_malloc(void *user, size_t bytes) { (void)user; calls++; return malloc(bytes); }
static void count_free(void *user, void *p) { (void)user; free(p); }

/* 0: learned positions, a slice of a parameter. 1: rotary, grouped heads. 2: positions counted, then looked up. 3: slopes, and tables of sines.
   4: attention to another sequence. */
typedef struct Writer {
    int kind, eager_calls;
    nn_layer *net, *tokens, *block[LAYERS], *attention[LAYERS], *head;
    nn_tensor *table, *memory;
    nn_kv_cache *cache[LAYERS], *across[LAYERS];
} Writer;
static nn_tensor *forward(void *self, nn_tensor *ids)
{
    Writer *w = self;
    nn_context *nn = ids->nn;
    int64_t at = w->cache[0] ? nn_kv_cache_length(w->cache[0]) : 0, t = nn_dim(ids, 1);
    nn_tensor *x = nn_forward(w->tokens, ids);
    w->eager_calls++;
    if (w->kind == 0) x = nn_add(x, nn_slice(nn_param(w->net, "positions.weight"), 0, at, at + t, 1));
    if (w->kind == 2) x = nn_add(x, nn_embedding(nn_cast(nn_arange(nn, (float)at, (float)(at + t), 1), NN_I64), nn_param(w->net, "positions.weight")));
    if (w->kind == 3) x = nn_add(x, nn_slice(w->table, 0, at, at + t, 1));
    for (int i = 0; i < LAYERS; i++) {
        nn_attention_desc a = { .cache = w->cache[i] }, b = { .cache = w->across[i] };
        if (w->kind == 1) x = nn_add(x, nn_multihead_attention_forward(w->attention[i], x, NULL, NULL, &a));
        else if (w->kind == 4) x = nn_transformer_decoder_layer_forward(w->block[i], x, w->memory, &a, &b);
        else x = nn_transformer_encoder_layer_forward(w->block[i], x, &a);
    }
    return nn_forward(w->head, x);
}
static void new_caches(Writer *w, nn_context *nn, int64_t batch)
{
    for (int i = 0; i < LAYERS; i++) {
        w->cache[i] = nn_kv_cache_new(nn, batch, w->kind == 1 ? 1 : HEADS, CAPACITY, WIDTH / HEADS, 0);
        if (w->kind == 4) w->across[i] = nn_kv_cache_new(nn, batch, HEADS, 7, WIDTH / HEADS, 0);
    }
}
static void build(Writer *w, nn_context *nn, int kind)
{
    memset(w, 0, sizeof *w);
    w->kind = kind;
    w->net = nn_model_new(nn, &(nn_model_desc){ .forward = forward, .self = w, .release = 1 });
    w->tokens = nn_embedding_new(w->net, "tokens", VOCABULARY, WIDTH);
    if (kind == 0 || kind == 2) nn_embedding_new(w->net, "positions", POSITIONS, WIDTH);
    if (kind == 1) w->table = nn_rope_new(nn, POSITIONS, WIDTH / HEADS, 0);
    if (kind == 3) w->table = nn_sinusoidal_new(nn, POSITIONS, WIDTH);
    for (int i = 0; i < LAYERS; i++) {
        if (kind == 1) w->attention[i] = nn_multihead_attention_new(w->net, NULL, WIDTH, HEADS, &(nn_multihead_attention_desc){ .kv_heads = 1, .causal = 1, .rope = w->table });
        else if (kind == 4) w->block[i] = nn_transformer_decoder_layer_new(w->net, NULL, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 20, .causal = 1 });
        else w->block[i] = nn_transformer_encoder_layer_new(w->net, NULL, WIDTH, HEADS, &(nn_transformer_desc){ .hidden = 24, .norm_first = 1, .causal = 1, .activation = nn_gelu,
                                                            .alibi = kind == 3 ? nn_alibi_slopes_new(nn, HEADS) : NULL });
    }
    w->head = nn_linear_new(w->net, "head", WIDTH, VOCABULARY, NULL);
}

/* What happens to a text: tokens, and what may come between them. */
enum { TOKEN = 1, PROMPT, BACK, ANEW, TRAIN, FREEZE, OTHERS, SAVED };
static const int script[] = { PROMPT, TOKEN, TOKEN, TOKEN, TOKEN, TOKEN, TOKEN, BACK, TOKEN, TOKEN, TRAIN, TOKEN, TOKEN, PROMPT, TOKEN, ANEW, TOKEN, TOKEN, TOKEN, TOKEN, TRAIN, TOKEN,
    FREEZE, TOKEN, TOKEN, TOKEN, TOKEN, TOKEN, ANEW, PROMPT, PROMPT, TOKEN, TOKEN, OTHERS, TOKEN, TOKEN, SAVED, TOKEN, TOKEN, TOKEN };
static void train(Writer *w, nn_optimizer *opt, nn_tensor *ids)
{
    Writer kept = *w;
    memset(w->cache, 0, sizeof w->cache);
    memset(w->across, 0, sizeof w->across);
    nn_begin(nn_context_of(w->net), NN_TRAIN);
    nn_backward(nn_mean(nn_square(nn_forward(w->net, ids)), NN_ALL, NULL));
    nn_step(opt);
    *w = kept;
}
static size_t play(int kind, int planned, int threads, int64_t batch, float *to, size_t room)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = threads, .on_error = test_quiet, .malloc = count_malloc, .free = count_free });
    static char file[1 << 18];
    size_t n = 0, bytes = 0;
    int repeated = 0, eagerly = 0;
    Writer w;
    build(&w, nn, kind);
    new_caches(&w, nn, batch);
    nn_optimizer *opt = nn_sgd_new(w.net, &(nn_sgd_desc){ .lr = 0.1f });
    nn_step_plan *plan = nn_step_plan_new(w.net, &(nn_step_plan_desc){ .eval = 1 });
    nn_tensor *one = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(batch, 1), NULL), *five = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(batch, 5), NULL);
    w.memory = nn_tensor_new(nn, NN_SHAPE(batch, 7, WIDTH), NULL);
    nn_init_normal(w.memory, 0, 1);
    CHECK(nn_save_memory(w.net, file, sizeof file, &bytes, NULL));
    for (int i = 0; i < (int)(sizeof script / sizeof *script); i++) {
        int what = script[i];
        nn_tensor *in = what == PROMPT ? five : one, *y;
        int64_t ids[5 * BATCH];
        for (int k = 0; k < 5 * BATCH; k++) ids[k] = (i * 3 + k * 5) % VOCABULARY;
        if (what == BACK) for (int k = 0; k < LAYERS; k++) nn_kv_cache_truncate(w.cache[k], nn_kv_cache_length(w.cache[k]) - 4);
        if (what == ANEW) for (int k = 0; k < LAYERS; k++) { nn_kv_cache_truncate(w.cache[k], 0); if (kind == 4) nn_kv_cache_truncate(w.across[k], 0); }
        if (what == TRAIN) train(&w, opt, five);
        if (what == FREEZE) nn_freeze(w.tokens, 1);
        if (what == SAVED) CHECK(nn_load_memory(w.net, file, bytes, NULL));
        if (what == OTHERS) {        /* another text, with caches and a plan of its own, for some tokens */
            Writer kept = w;
            nn_step_plan *second = nn_step_plan_new(w.net, &(nn_step_plan_desc){ .eval = 1 });
            new_caches(&w, nn, batch);
            for (int k = 0; k < 6; k++) {
                if (planned) y = nn_step_plan_run(second, one, NULL);
                else { nn_begin(nn, NN_EVAL); y = nn_forward(w.net, one); }
                CHECK(n + (size_t)nn_count(y) <= room && nn_read(y, to + n));
                n += (size_t)nn_count(y);
            }
            CHECK(!planned || nn_step_plan_why(second) == NULL);
            nn_step_plan_free(second);
            w = kept;
        }
        if (what > PROMPT) continue;
        nn_write_as(in, NN_I64, ids);
        eagerly = w.eager_calls;
        if (planned) y = nn_step_plan_run(plan, in, NULL);
        else { nn_begin(nn, NN_EVAL); y = nn_forward(w.net, in); }
        repeated += w.eager_calls == eagerly;
        CHECK(n + (size_t)nn_count(y) <= room && nn_read(y, to + n));
        n += (size_t)nn_count(y);
    }
    CHECK(nn_ok(nn) && (planned ? repeated >= 8 && !nn_step_plan_why(plan) && nn_step_plan_calls(plan) > 8 : !repeated));
    if (!nn_ok(nn) || (planned && repeated < 8)) printf("kind %d: %s; %d repeated; %s\n", kind, nn_error(nn), repeated, nn_step_plan_why(plan) ? nn_step_plan_why(plan) : "fine");
    nn_step_plan_free(plan);
    nn_free(nn);
    return n;
}
TEST(bits)
{
    static float eager[1 << 14], repeated[1 << 14];
    for (int kind = 0; kind < KINDS; kind++) for (int threads = 1; threads <= 2; threads++) for (int64_t batch = 1; batch <= BATCH; batch += 2) {
        size_t n = play(kind, 0, threads, batch, eager, 1 << 14);
        CHECK(n > 100 && n == play(kind, 1, threads, batch, repeated, 1 << 14));
        CHECK(!memcmp(eager, repeated, n * sizeof *eager));
    }
}

/* To the end of the positions, then to the end of the cache: what nn_forward says is said, and afterwards it goes on. */
TEST(ends)
{
    for (int kind = 0; kind < 4; kind++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 1, .on_error = test_quiet, .malloc = count_malloc, .free = count_free });
        Writer w;
        build(&w, nn, kind);
        new_caches(&w, nn, 1);
        nn_step_plan *plan = nn_step_plan_new(w.net, &(nn_step_plan_desc){ .eval = 1 });
        nn_tensor *one = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(1, 1), NULL);
        for (int turn = 0; turn < 2; turn++) {
            int64_t before = 0;
            for (int i = 0; i < LAYERS; i++) nn_kv_cache_truncate(w.cache[i], turn);
            for (int i = turn; i < POSITIONS; i++) {
                if (i == 5) before = calls;
                CHECK(nn_dim(nn_step_plan_run(plan, one, NULL), 2) == VOCABULARY && nn_ok(nn) && nn_kv_cache_length(w.cache[LAYERS - 1]) == i + 1);
            }
            CHECK(calls == before && w.eager_calls <= 3 + turn && !nn_step_plan_why(plan));         /* steady state: no memory is asked for */
            int64_t count = nn_count(nn_step_plan_run(plan, one, NULL));
            CHECK(!nn_ok(nn) || count == 0);                         /* a slice from the end on is empty */
            nn_clear(nn);
        }
        for (int i = 0; i < LAYERS; i++) nn_kv_cache_truncate(w.cache[i], 9);
        nn_step_plan_run(plan, one, NULL);
        CHECK(nn_ok(nn) && nn_kv_cache_length(w.cache[0]) == 10);
        nn_step_plan_free(plan);
        nn_free(nn);
    }
}

/* What goes with the position in another way is not repeated: memory that grows, ops that change, a mask from the host, a cache that is cut meanwhile. */
typedef struct Odd { Writer w; int kind; } Odd;
static nn_tensor *odd_forward(void *self, nn_tensor *ids)
{
    Odd *o = self;
    nn_context *nn = ids->nn;
    int64_t at = nn_kv_cache_length(o->w.cache[0]);
    float bias = (float)(at % 3);
    nn_tensor *x = nn_forward(o->w.tokens, ids);
    if (o->kind == 1) x = nn_add(x, nn_mean(nn_arange(nn, 0, (float)(at + 1), 1), NN_ALL, NULL));
    if (o->kind == 2 && at % 2) x = nn_neg(x);
    if (o->kind == 3) x = nn_add(x, nn_from(nn, NN_SHAPE(1), &bias));
    if (o->kind == 4) x = nn_add_scalar(x, (float)at);
    if (o->kind == 5) x = nn_add(x, nn_slice(nn_param(o->w.net, "positions.weight"), 0, at * at, at * at + 1, 1));
    if (o->kind == 6) nn_kv_cache_truncate(o->w.cache[0], at);
    for (int i = 0; i < LAYERS; i++) x = nn_transformer_encoder_layer_forward(o->w.block[i], x, &(nn_attention_desc){ .cache = o->w.cache[i] });
    return nn_forward(o->w.head, x);
}
static nn_tensor *odd_step(void *user, nn_tensor *x, nn_tensor *y) { (void)y; return odd_forward(user, x); }
TEST(refusals)
{
    float all[2][6 * VOCABULARY];
    for (int kind = 0; kind < 7; kind++) for (int planned = 0; planned < 2; planned++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 1, .on_error = test_quiet });
        Odd o = { .kind = kind };
        build(&o.w, nn, 0);
        new_caches(&o.w, nn, 1);
        nn_step_plan *plan = nn_step_plan_new(o.w.net, &(nn_step_plan_desc){ .step = odd_step, .user = &o, .eval = 1 });
        nn_tensor *one = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(1, 1), NULL), *y;
        for (int i = 0; i < 6; i++) {
            if (planned) y = nn_step_plan_run(plan, one, NULL);
            else { nn_begin(nn, NN_EVAL); y = odd_forward(&o, one); }
            CHECK(nn_ok(nn) && nn_read(y, all[planned] + i * VOCABULARY));
        }
        if (planned) CHECK(!memcmp(all[0], all[1], sizeof all[0]));
        if (planned) CHECK((nn_step_plan_why(plan) == NULL) == (kind == 0));
        nn_step_plan_free(plan);
        nn_free(nn);
    }
}

/* Without a cache: predictions. */
TEST(predictions)
{
    nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 1, .on_error = test_quiet });
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, NULL, 6, 9, &(nn_linear_desc){ .activation = nn_relu });
    nn_dropout_new(net, 0.5f);
    nn_linear_new(net, NULL, 9, 2, NULL);
    nn_step_plan *plan = nn_step_plan_new(net, &(nn_step_plan_desc){ .eval = 1 });
    nn_tensor *x = nn_tensor_new(nn, NN_SHAPE(4, 6), NULL);
    for (int i = 0; i < 6; i++) {
        float a[8], b[8];
        nn_init_normal(x, 0, 1);
        CHECK(nn_read(nn_step_plan_run(plan, x, NULL), a));
        nn_begin(nn, NN_EVAL);
        CHECK(nn_read(nn_forward(net, x), b) && !memcmp(a, b, sizeof a));
    }
    CHECK(nn_ok(nn) && !nn_step_plan_why(plan));
    nn_step_plan_free(plan);
    nn_free(nn);
}

/* nn_generate with a model finds the texts that it finds with a step: prompts, a window that slides, one text after another, two models with the same caches. */
static int step(void *self, const nn_generate_step *s)
{
    Writer *w = self;
    nn_context *nn = nn_context_of(w->net);
    for (int i = 0; i < LAYERS; i++) nn_kv_cache_truncate(w->cache[i], s->length - s->fresh);
    nn_begin(nn, NN_EVAL);
    nn_tensor *y = nn_forward(w->net, nn_from_as(nn, NN_I64, NN_SHAPE(1, s->fresh), s->tokens + s->length - s->fresh));
    return nn_read(nn_select(y, 1, s->fresh - 1), s->logits);
}
TEST(generation)
{
    for (int kind = 0; kind < 4; kind++) {
        int64_t text[2][2][4][POSITIONS] = { 0 }, prompt[5] = { 1, 4, 2, 9, 3 };
        for (int how = 0; how < 2; how++) {                          /* with a step, with a model */
            nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 1, .on_error = test_quiet, .malloc = count_malloc, .free = count_free });
            Writer w[2];
            for (int i = 0; i < 2; i++) {
                build(&w[i], nn, kind);
                if (i) memcpy(w[1].cache, w[0].cache, sizeof w[0].cache);
                else new_caches(&w[0], nn, 1);
            }
            for (int turn = 0; turn < 4; turn++) for (int i = 0; i < 2; i++) {
                int64_t eager = w[i].eager_calls, n = turn == 1 ? 3 : 30, start = turn == 2 ? 1 : 5;
                nn_generate_desc d = { .vocabulary = VOCABULARY, .context = turn == 3 ? 20 : POSITIONS, .slide = turn == 3 };
                if (how) { d.model = w[i].net; d.cache = w[i].cache; d.caches = LAYERS; }
                else     { d.step = step; d.self = &w[i]; }
                CHECK(nn_generate(nn, prompt, start, text[how][i][turn], n, &d) == n && nn_ok(nn));
                if (how && (turn == 0 || turn == 2)) CHECK(w[i].eager_calls - eager <= 5);
            }
            if (how) {                                               /* the same model again: everything is there */
                nn_generate_desc d = { .vocabulary = VOCABULARY, .model = w[1].net, .cache = w[1].cache, .caches = LAYERS };
                int64_t before, eager, again[POSITIONS], one = 1;
                CHECK(nn_generate(nn, prompt, 5, again, 30, &d) == 30);
                before = calls; eager = w[1].eager_calls;
                CHECK(nn_generate(nn, prompt, 5, again, 30, &d) == 30);
                CHECK(calls == before && w[1].eager_calls == eager + 1);
                d.beams = 2;
                CHECK(nn_generate(nn, prompt, 5, again, 3, &d) == -1);
                CHECK_ERROR(nn, "beams need a step");
                d.beams = 0; d.vocabulary = VOCABULARY + 1;
                CHECK(nn_generate(nn, prompt, 5, again, 3, &d) == -1);
                CHECK_ERROR(nn, "the model's scores are");
                d.step = NULL;
                CHECK(!nn_generate_batch(nn, prompt, &one, 1, 5, again, &eager, 3, &d));
                CHECK_ERROR(nn, "it needs a step");
            }
            nn_free(nn);
        }
        CHECK(!memcmp(text[0], text[1], sizeof text[0]));
    }
}
/* Weights in fewer bytes, embeddings too: the bits of nn_forward, token by token and in nn_generate. */
TEST(weights_in_fewer_bytes)
{
    static const nn_dtype types[] = { NN_BF16, NN_I8, NN_I4, NN_I4 };
    static char file[1 << 18];
    for (int type = 0; type < 4; type++) for (int kind = 1; kind < KINDS; kind += 1 + (kind == 1)) {      /* 2 takes rows of a parameter by itself */
        nn_context *nn = nn_new(&(nn_desc){ .seed = 3, .threads = 2, .on_error = test_quiet });
        Writer w;
        size_t bytes;
        float eager[20][VOCABULARY], repeated[VOCABULARY];
        int64_t prompt[5] = { 1, 4, 2, 9, 3 }, text[2][25] = { { 0 } };
        int before = 0;
        build(&w, nn, kind);                                         /* its numbers, for another whose weights are small */
        CHECK(nn_save_memory(w.net, file, sizeof file, &bytes, NULL));
        nn_weights_as(nn, types[type], type > 0 ? &(nn_quantize_desc){ .group = type == 2 ? 16 : 8 } : NULL);
        if (type == 1) nn_weights_as(nn, NN_I8, NULL);
        build(&w, nn, kind);
        nn_weights_as(nn, NN_F32, NULL);
        CHECK(nn_load_memory(w.net, file, bytes, NULL));
        CHECK(type < 2 || nn_param(w.net, "head.weight")->inputs == WIDTH);
        new_caches(&w, nn, 1);
        w.memory = nn_tensor_new(nn, NN_SHAPE(1, 7, WIDTH), NULL);
        nn_init_normal(w.memory, 0, 1);
        nn_tensor *one = nn_tensor_new_as(nn, NN_I64, NN_SHAPE(1, 1), NULL);
        nn_step_plan *plan = nn_step_plan_new(w.net, &(nn_step_plan_desc){ .eval = 1 });
        for (int planned = 0; planned < 2; planned++) {
            for (int k = 0; k < LAYERS; k++) { nn_kv_cache_truncate(w.cache[k], 0); if (kind == 4) nn_kv_cache_truncate(w.across[k], 0); }
            before = w.eager_calls;
            for (int64_t i = 0; i < 20; i++) {
                nn_write_as(one, NN_I64, &(int64_t){ i * 7 % VOCABULARY });
                if (planned) CHECK(nn_read(nn_step_plan_run(plan, one, NULL), repeated) && !memcmp(repeated, eager[i], sizeof repeated));
                else { nn_begin(nn, NN_EVAL); CHECK(nn_read(nn_forward(w.net, one), eager[i])); }
            }
        }
        CHECK(nn_ok(nn) && w.eager_calls - before <= 5 && !nn_step_plan_why(plan) && memcmp(eager[0], eager[1], sizeof eager[0]));
        nn_step_plan_free(plan);
        for (int how = 0; kind < 4 && how < 2; how++) {
            nn_generate_desc d = { .vocabulary = VOCABULARY, .context = POSITIONS, .sample = &(nn_sample_desc){ .greedy = 1 } };
            if (how) { d.model = w.net; d.cache = w.cache; d.caches = LAYERS; }
            else     { d.step = step; d.self = &w; }
            CHECK(nn_generate(nn, prompt, 5, text[how], 25, &d) == 25);
        }
        CHECK(nn_ok(nn) && !memcmp(text[0], text[1], sizeof text[0]));
        nn_free(nn);
    }
}
