/* test_rnn.c - recurrent nets: padding, streaming, truncated back-propagation, plans, memory, errors; CTC against a sum over all paths */
#define NN_DOUBLE
#include "library.h"
#include "test.h"

typedef nn_layer *(*make_fn)(nn_layer *parent, const char *name, int64_t in, int64_t hidden, const nn_rnn_desc *desc);
static const make_fn make[] = { nn_rnn_new, nn_lstm_new, nn_gru_new }, make_cell[] = { nn_rnn_cell_new, nn_lstm_cell_new, nn_gru_cell_new };
static nn_context *quiet(void) { return nn_new(&(nn_desc){ .seed = 5, .threads = 1, .on_error = test_quiet }); }
static void fill(float *x, int64_t n) { for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 37 % 61) / 30 - 1; }
static int same(nn_tensor *a, nn_tensor *b)              /* shape and bits */
{
    static float x[1 << 16], y[1 << 16];
    int64_t n = nn_count(a);
    return nn_count(b) == n && n <= 1 << 16 && nn_read(a, x) && nn_read(b, y) && !memcmp(x, y, (size_t)n * sizeof *x);
}
static double apart(nn_tensor *a, nn_tensor *b)
{
    static float x[1 << 16], y[1 << 16];
    double worst = 0;
    if (nn_count(a) != nn_count(b) || !nn_read(a, x) || !nn_read(b, y)) return INFINITY;
    for (int64_t i = 0; i < nn_count(a); i++) worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
    return worst;
}

/* Whatever stands behind the end of a sample: results and gradients are the same bits; and results are those of the sample alone. */
TEST(padding_counts_for_nothing)
{
    enum { B = 5, T = 6, I = 3 };
    static const int64_t lengths[B] = { 4, 6, 1, 0, 5 };
    for (int kind = 0; kind < 6; kind++) for (int first = 0; first < 2; first++) {
        nn_context *nn = quiet();
        nn_layer *l = make[kind % 3](nn_model_new(nn, NULL), "l", I, 7, &(nn_rnn_desc){ .layers = 2, .bidirectional = 1, .time_first = first, .proj = kind == 4 ? 3 : 0, .relu = kind == 3 });
        nn_tensor *grads[2][24], *y[2], *params[24];
        nn_rnn_state s[2];
        float x[B * T * I];
        int n = nn_params(l, params, 24);
        nn_begin(nn, NN_TRAIN);
        for (int run = 0; run < 2; run++) {
            fill(x, B * T * I);
            for (int b = 0; b < B; b++) for (int t = (int)lengths[b]; t < T; t++) for (int i = 0; i < I; i++) x[((first ? t * B + b : b * T + t)) * I + i] = run ? NAN : 7;
            s[run] = (nn_rnn_state){ .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(B), lengths) };
            y[run] = nn_rnn_forward(l, nn_from(nn, first ? NN_SHAPE(T, B, I) : NN_SHAPE(B, T, I), x), &s[run]);
            nn_backward(nn_add(nn_sum(nn_square(y[run]), NN_ALL, NULL), nn_sum(s[run].h, NN_ALL, NULL)));
            for (int i = 0; i < n; i++) grads[run][i] = nn_add_scalar(nn_grad(params[i]), 0);
            nn_zero_grad(l);
        }
        CHECK(same(y[0], y[1]) && same(s[0].h, s[1].h));
        for (int i = 0; i < n; i++) CHECK(same(grads[0][i], grads[1][i]));
        for (int b = 0; b < B; b++) {
            nn_rnn_state alone = { 0 };
            nn_tensor *part = nn_slice(nn_from(nn, first ? NN_SHAPE(T, B, I) : NN_SHAPE(B, T, I), x), first, b, b + 1, 1), *all;
            all = nn_slice(y[0], first, b, b + 1, 1);
            part = nn_rnn_forward(l, nn_slice(part, !first, 0, lengths[b], 1), &alone);
            CHECK(same(part, nn_slice(all, !first, 0, lengths[b], 1)));
            CHECK(nn_item(nn_sum(nn_abs(nn_slice(all, !first, lengths[b], T, 1)), NN_ALL, NULL)) == 0);
            CHECK(same(alone.h, nn_slice(s[0].h, 1, b, b + 1, 1)));
        }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

/* A sequence at once, in two pieces, step by step, by a cell, and by a plan: the same bits, on every table. */
static nn_tensor *step(void *self, nn_tensor *x) { return nn_rnn_step(self, x); }
TEST(steps_are_the_sequence)
{
    enum { B = 5, T = 9, I = 4, H = 21 };
    for (int i = 0; test_isa(i); i++) for (int kind = 0; kind < 3; kind++) for (int layers = 1; layers < 3; layers++) {
        nn_context *nn = nn_new(&(nn_desc){ .isa = test_isa(i), .threads = 2 });
        nn_layer *l = make[kind](nn_model_new(nn, NULL), "l", I, H, &(nn_rnn_desc){ .layers = layers }), *cell = make_cell[kind](nn_model_new(nn, NULL), "l", I, H, NULL);
        nn_rnn_state whole = { 0 }, halves = { 0 }, single = { 0 }, one = { 0 };
        int64_t size = nn_rnn_state_size(l);
        float x[B * T * I], in[B * (I + 4 * H)] = { 0 }, out[B * (H + 4 * H)], y_plan[B * H];
        nn_tensor *from[16], *to[4];
        CHECK(nn_params(cell, to, 4) == 4 && nn_params(l, from, 16) == 4 * layers);
        for (int k = 0; k < 4 && layers == 1; k++) nn_copy(to[k], from[k]);
        nn_layer *streaming = nn_model_new(nn, &(nn_model_desc){ .forward = step, .self = l });
        nn_plan *plan = nn_plan_new(streaming, NN_SHAPE(B, I + size), NULL);
        void *work = malloc(nn_plan_bytes(plan) + 1);
        CHECK(plan && nn_plan_output(plan).d[1] == H + size && nn_plan_any_batch(plan));
        fill(x, B * T * I);
        nn_begin(nn, NN_EVAL);
        nn_tensor *in_all = nn_from(nn, NN_SHAPE(B, T, I), x), *y = nn_rnn_forward(l, in_all, &whole), *part[2];
        for (int k = 0; k < 2; k++) part[k] = nn_rnn_forward(l, nn_slice(in_all, 1, k ? 4 : 0, k ? T : 4, 1), &halves);
        CHECK(same(nn_concat(part, 2, 1), y) && same(halves.h, whole.h) && (kind != 1 || same(halves.c, whole.c)));
        for (int t = 0; t < T; t++) {
            nn_tensor *now = nn_slice(y, 1, t, t + 1, 1);
            CHECK(same(nn_rnn_forward(l, nn_slice(in_all, 1, t, t + 1, 1), &single), now));
            if (layers == 1) CHECK(same(nn_rnn_forward(cell, nn_select(in_all, 1, t), &one), now));
            for (int b = 0; b < B; b++) memcpy(in + b * (I + size), x + (b * T + t) * I, I * sizeof *x);
            CHECK(nn_run(plan, work, in, out));
            for (int b = 0; b < B; b++) {
                memcpy(y_plan + b * H, out + b * (H + size), H * sizeof *out);
                memcpy(in + b * (I + size) + I, out + b * (H + size) + H, (size_t)size * sizeof *out);
            }
            CHECK(same(nn_from(nn, NN_SHAPE(B, 1, H), y_plan), now));
        }
        CHECK(same(single.h, whole.h) && nn_ok(nn));
        free(work);
        nn_plan_free(plan);
        nn_free(nn);
    }
}

/* One sample alone whose W is large is cut by units, a turn of its tasks per step: the bits of the sample in a batch, and of a step that is recorded. */
TEST(one_sample_is_cut)
{
    enum { B = 4, T = 5, I = 6, MOST = 256 };
    static const int64_t lengths[B] = { 5, 3, 0, 1 };
    for (int which = 0; which < 5 && test_isa(which); which++) for (int kind = 0; kind < 9; kind++) for (int threads = 1; threads < 4; threads += 2) {
        int64_t hidden = kind % 3 == 0 ? 256 : kind % 3 == 1 ? 128 : 192, sides = 1 + (kind > 5);
        nn_context *nn = nn_new(&(nn_desc){ .seed = 5, .threads = threads, .isa = test_isa(which), .on_error = test_quiet });
        nn_layer *l = make[kind % 3](nn_model_new(nn, NULL), "l", I, hidden, &(nn_rnn_desc){ .bidirectional = kind > 5, .time_first = kind > 2 && kind < 6, .no_bias = kind > 2 && kind < 6, .relu = kind == 3 });
        static float x[B * T * I], state[2 * B * MOST];
        fill(x, B * T * I);
        fill(state, 2 * B * MOST);
        nn_begin(nn, NN_EVAL);
        for (int use = 0; use < 4; use++) {                          /* bits: a state to begin with, lengths */
            nn_rnn_state all = { 0 };
            nn_tensor *in = nn_from(nn, NN_SHAPE(B, T, I), x), *h = nn_from(nn, NN_SHAPE(sides, B, hidden), state), *n = nn_from_as(nn, NN_I64, NN_SHAPE(B), lengths), *y;
            if (use & 1) { all.h = h; all.c = kind % 3 == 1 ? nn_neg(h) : NULL; }
            if (use & 2) all.lengths = n;
            int time = kind > 2 && kind < 6;
            y = nn_rnn_forward(l, time ? nn_contiguous(nn_transpose(in, 0, 1)) : in, &all);
            if (time) y = nn_transpose(y, 0, 1);
            for (int b = 0; b < B; b++) for (int recorded = 0; recorded < 2; recorded++) {
                nn_rnn_state one = { 0 };
                nn_tensor *alone = nn_contiguous(nn_slice(in, 0, b, b + 1, 1)), *z;
                if (use & 1) { one.h = nn_contiguous(nn_slice(h, 1, b, b + 1, 1)); one.c = kind % 3 == 1 ? nn_neg(one.h) : NULL; }
                if (use & 2) one.lengths = nn_slice(n, 0, b, b + 1, 1);
                nn_push(nn, recorded ? NN_TRAIN : NN_EVAL);
                z = nn_rnn_forward(l, time ? nn_contiguous(nn_transpose(alone, 0, 1)) : alone, &one);
                nn_pop(nn);
                if (time) z = nn_transpose(z, 0, 1);
                CHECK(same(nn_contiguous(nn_slice(y, 0, b, b + 1, 1)), nn_contiguous(z)));
                CHECK(same(nn_contiguous(nn_slice(all.h, 1, b, b + 1, 1)), one.h));
                if (kind % 3 == 1) CHECK(same(nn_contiguous(nn_slice(all.c, 1, b, b + 1, 1)), one.c));
            }
        }
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

/* Two steps with the state carried over: the gradients of the pieces, which end at the border, add up to those of one tape that is cut there. */
TEST(truncated_back_propagation)
{
    enum { B = 3, T = 8, I = 2, H = 6 };
    for (int kind = 0; kind < 3; kind++) {
        nn_context *nn = quiet();
        nn_layer *l = make[kind](nn_model_new(nn, NULL), "l", I, H, NULL);
        nn_tensor *params[8], *cut[8], *whole[8];
        float x[B * T * I];
        int n = nn_params(l, params, 8);
        fill(x, B * T * I);
        for (int pieces = 0; pieces < 3; pieces++) {     /* 0: one tape, cut in the middle; 1: not cut; 2: two steps */
            nn_rnn_state s = { 0 };
            nn_begin(nn, NN_TRAIN);
            for (int k = 0; k < (pieces == 1 ? 1 : 2); k++) {
                nn_tensor *all = nn_from(nn, NN_SHAPE(B, T, I), x), *y;
                if (k && pieces == 0) { s.h = nn_detach(s.h); if (s.c) s.c = nn_detach(s.c); }
                if (k && pieces == 2) { nn_rnn_keep(&s); nn_begin(nn, NN_TRAIN); all = nn_from(nn, NN_SHAPE(B, T, I), x); }
                y = nn_rnn_forward(l, pieces == 1 ? all : nn_slice(all, 1, k * T / 2, (k + 1) * T / 2, 1), &s);
                nn_backward(nn_sum(nn_square(y), NN_ALL, NULL));
            }
            for (int i = 0; i < n; i++) {
                nn_tensor *g = nn_tensor_new(nn, nn_shape_of(params[i]), NULL);
                CHECK(nn_copy(g, nn_grad(params[i])));
                if (pieces == 0) cut[i] = g;
                if (pieces == 1) whole[i] = g;
                if (pieces == 2) CHECK(same(g, cut[i]));
            }
            nn_zero_grad(l);
        }
        CHECK(apart(cut[1], whole[1]) > 1e-4);           /* of weight_hh: the cut does cut */
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

TEST(plans_give_the_same_bits)
{
    enum { B = 5, T = 6, I = 4 };
    for (int kind = 0; kind < 3; kind++) for (int last = 0; last < 2; last++) {
        nn_context *nn = quiet();
        nn_layer *net = nn_model_new(nn, NULL);
        float x[B * T * I], y[B * T * 3];
        make[kind](net, NULL, I, 19, &(nn_rnn_desc){ .layers = 2, .bidirectional = 1, .dropout = 0.5f, .last = last });
        nn_linear_new(net, NULL, 38, 3, NULL);
        nn_plan *plan = nn_plan_new(net, NN_SHAPE(B, T, I), NULL);
        void *work = malloc(nn_plan_bytes(plan) + 1);
        CHECK(plan && nn_plan_any_batch(plan));
        fill(x, B * T * I);
        nn_begin(nn, NN_EVAL);
        for (int64_t b = 1; b <= B; b++) {
            CHECK(nn_run_batch(plan, work, b, x, y));
            CHECK(same(nn_from(nn, last ? NN_SHAPE(b, 3) : NN_SHAPE(b, T, 3), y), nn_forward(net, nn_from(nn, NN_SHAPE(b, T, I), x))));
        }
        free(work);
        nn_plan_free(plan);
        CHECK(nn_ok(nn));
        nn_free(nn);
    }
}

/* The same step again takes no memory from the allocator, and nn_fit's walk with updates gives the same bits as one after the other. */
TEST(steady_memory_and_updates_during_the_walk)
{
    uint64_t bits[2] = { 0, 0 };
    for (int early = 0; early < 2; early++) {
        nn_context *nn = quiet();
        nn_layer *net = nn_model_new(nn, NULL);
        nn_lstm_new(net, NULL, 4, 20, &(nn_lstm_desc){ .layers = 2, .last = 1, .dropout = 0.2f });
        nn_linear_new(net, NULL, 20, 3, NULL);
        nn_optimizer *opt = nn_adam_new(net, NULL);
        float x[17 * 5 * 4], w[80 * 20];
        int64_t label[17], before = 0;
        fill(x, 17 * 5 * 4);
        for (int i = 0; i < 17; i++) label[i] = i % 3;
        for (int i = 0; i < 6; i++) {
            nn_begin(nn, NN_TRAIN);
            nn_tensor *loss = nn_cross_entropy(nn_forward(net, nn_from(nn, NN_SHAPE(17, 5, 4), x)), nn_from_as(nn, NN_I64, NN_SHAPE(17), label), NULL);
            nn_backward_with(loss, &(nn_backward_desc){ .step = early ? opt : NULL });
            if (!early) nn_step(opt);
            if (i == 2) before = nn_allocations(nn);
        }
        CHECK(nn_allocations(nn) == before);
        CHECK(nn_read(nn_param(net, "0.weight_hh_l1"), w) && nn_ok(nn));
        for (int i = 0; i < 80 * 20; i++) { uint32_t b; memcpy(&b, w + i, 4); bits[early] = bits[early] * 31 + b; }
        nn_free(nn);
    }
    CHECK(bits[0] == bits[1]);
}

/* Dropout is between the layers: the output of the last one has no zeros; evaluation has none at all. */
TEST(dropout_between_layers)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL), *one = nn_gru_new(net, "one", 3, 8, &(nn_gru_desc){ .dropout = 0.9f }), *two = nn_gru_new(net, "two", 3, 8, &(nn_gru_desc){ .layers = 2, .dropout = 0.9f });
    float x[4 * 5 * 3];
    fill(x, 60);
    nn_begin(nn, NN_TRAIN);
    nn_tensor *in = nn_from(nn, NN_SHAPE(4, 5, 3), x), *a = nn_forward(two, in), *b = nn_forward(one, in);
    CHECK(nn_item(nn_sum(nn_eq(a, nn_scalar(nn, 0)), NN_ALL, NULL)) == 0);
    nn_push(nn, NN_EVAL);
    CHECK(!same(a, nn_forward(two, in)) && same(b, nn_forward(one, in)));
    nn_pop(nn);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

static void expect(nn_context *nn, const char *part) { CHECK_TEXT(nn_error(nn), part); nn_clear(nn); nn_begin(nn, NN_EVAL); }
TEST(errors)
{
    nn_context *nn = quiet();
    nn_layer *net = nn_model_new(nn, NULL), *l = nn_lstm_new(net, "l", 3, 5, &(nn_lstm_desc){ .layers = 2 }), *fc = nn_linear_new(net, "fc", 3, 3, NULL);
    int64_t lengths[] = { 2, 9 }, classes[] = { 1, 7 }, sizes[] = { 1, 1 }, two[] = { 2, 2 };
    nn_begin(nn, NN_EVAL);
    nn_forward(l, nn_zeros(nn, NN_SHAPE(2, 3)));                                                expect(nn, "LSTM: x must be (B, T, 3), not (2, 3)");
    nn_forward(l, nn_zeros(nn, NN_SHAPE(2, 4, 4)));                                             expect(nn, "LSTM: x must be (B, T, 3), not (2, 4, 4)");
    nn_rnn_forward(l, nn_zeros(nn, NN_SHAPE(2, 4, 3)), &(nn_rnn_state){ .h = nn_zeros(nn, NN_SHAPE(1, 2, 5)) });   expect(nn, "LSTM: h of the state is (1, 2, 5), not (2, B, 5)");
    nn_rnn_forward(l, nn_zeros(nn, NN_SHAPE(2, 4, 3)), &(nn_rnn_state){ .c = nn_zeros(nn, NN_SHAPE(2, 3, 5)) });   expect(nn, "rnn: c is (3, 5), not (2, 5)");
    nn_rnn_forward(l, nn_zeros(nn, NN_SHAPE(2, 4, 3)), &(nn_rnn_state){ .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(2), lengths) });   expect(nn, "the length of sample 1 is 9, not in 0..4");
    nn_rnn_forward(l, nn_zeros(nn, NN_SHAPE(2, 4, 3)), &(nn_rnn_state){ .lengths = nn_zeros(nn, NN_SHAPE(2)) });   expect(nn, "lengths are i32 or i64");
    nn_rnn_forward(fc, nn_zeros(nn, NN_SHAPE(2, 3)), NULL);                                     expect(nn, "a Linear is not a recurrent layer");
    nn_rnn_step(l, nn_zeros(nn, NN_SHAPE(2, 4)));                                               expect(nn, "nn_rnn_step: x must be (B, 3 + 20)");
    nn_gru_new(net, "a", 3, 5, &(nn_gru_desc){ .proj = 2 });                                    expect(nn, "proj is for LSTM");
    nn_lstm_new(net, "a", 3, 5, &(nn_lstm_desc){ .proj = 5 });                                  expect(nn, "smaller than hidden");
    nn_lstm_new(net, "a", 3, 0, NULL);                                                          expect(nn, "hidden must be positive");
    nn_lstm_new(net, "a", 3, 4, &(nn_lstm_desc){ .dropout = 2 });                               expect(nn, "probability is 2");
    nn_gru_cell_new(net, "a", 3, 4, &(nn_gru_desc){ .layers = 2 });                             expect(nn, "a cell is one layer");
#define CTC(t, i, n, ...) nn_ctc_loss(nn_zeros(nn, NN_SHAPE(4, 2, 5)), nn_from_as(nn, NN_I64, NN_SHAPE(2, 1), t), nn_from_as(nn, NN_I64, NN_SHAPE(2), i), nn_from_as(nn, NN_I64, NN_SHAPE(2), n), &(nn_ctc_desc){ __VA_ARGS__ })
    CTC(classes, two, sizes, .blank = 0);                                                       expect(nn, "ctc_loss: sample 1: ");
    CTC(sizes, lengths, sizes, .blank = 0);                                                     expect(nn, "ctc_loss: sample 1: ");
    nn_ctc_loss(nn_zeros(nn, NN_SHAPE(4, 2, 5)), nn_from_as(nn, NN_I64, NN_SHAPE(1, 2), classes), nn_from_as(nn, NN_I64, NN_SHAPE(2), two), nn_from_as(nn, NN_I64, NN_SHAPE(2), two), NULL);
    expect(nn, "ctc_loss: targets (1, 2) must be (2, S)");
    nn_ctc_loss(nn_zeros(nn, NN_SHAPE(4, 2, 5)), nn_from_as(nn, NN_I64, NN_SHAPE(2, 1), classes), nn_from_as(nn, NN_I64, NN_SHAPE(1), two), nn_from_as(nn, NN_I64, NN_SHAPE(2), two), NULL);
    expect(nn, "ctc_loss: lengths are (1), not (2)");
    CTC(sizes, two, two, .blank = 0);                                                           expect(nn, "ctc_loss: sample 0: ");
    CTC(sizes, two, sizes, .blank = 1);                                                         expect(nn, "the blank is in the target");
    CTC(sizes, two, sizes, .blank = 5);                                                         expect(nn, "blank 5 is not a class 0..4");
    CTC(sizes, two, sizes, .blank = 0);
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* All classes^T paths are tried; those that spell the target count. */
static double by_hand(const double *p, int T, int classes, const int64_t *target, int size)
{
    double sum = 0;
    int paths = 1;
    for (int t = 0; t < T; t++) paths *= classes;
    for (int path = 0; path < paths; path++) {
        double q = 1;
        int rest = path, last = 0, at = 0, ok = 1;
        for (int t = 0; t < T; t++, rest /= classes) {
            int k = rest % classes;
            q *= p[t * classes + k];
            if (k && k != last) { ok = ok && at < size && target[at] == k; at++; }
            last = k;
        }
        if (ok && at == size) sum += q;
    }
    return -log(sum);
}
TEST(ctc_is_the_sum_over_all_paths)
{
    enum { T = 5, C = 3 };
    static const int64_t targets[][3] = { { 1, 2, 1 }, { 1, 1, 2 }, { 2, 2, 0 }, { 1, 0, 0 }, { 0, 0, 0 }, { 2, 2, 2 } };
    static const int64_t sizes[] = { 3, 3, 2, 1, 0, 3 };
    nn_context *nn = quiet();
    double p[T * C];
    float lp[T * C];
    nn_begin(nn, NN_EVAL);
    for (int i = 0; i < 6; i++) for (int64_t steps = 1; steps <= T; steps++) {
        for (int t = 0; t < T; t++) {
            double sum = 0;
            for (int k = 0; k < C; k++) sum += p[t * C + k] = 0.1 + (double)((t * 5 + k * 7 + i) % 11);
            for (int k = 0; k < C; k++) { p[t * C + k] /= sum; lp[t * C + k] = (float)log(p[t * C + k]); }
        }
        double l = nn_item(nn_ctc_loss(nn_from(nn, NN_SHAPE(T, 1, C), lp), nn_from_as(nn, NN_I64, NN_SHAPE(1, 3), targets[i]), nn_from_as(nn, NN_I64, NN_SHAPE(1), &steps), nn_from_as(nn, NN_I64, NN_SHAPE(1), &sizes[i]),
                                       &(nn_ctc_desc){ .reduction = NN_SUM }));
        CHECK_NEAR(l, by_hand(p, (int)steps, C, targets[i], (int)sizes[i]), 2e-5);
    }
    CHECK(nn_ok(nn));
    nn_free(nn);
}

/* Lengths that nn_forward hands on: padding changes no bit, through layers in a row and checkpoints; gradients, too. */
TEST(lengths_through_nn_forward)
{
    for (int kind = 0; kind < 4; kind++) {
        nn_context *nn = nn_new(&(nn_desc){ .seed = 3 });
        nn_layer *net = nn_model_new(nn, NULL), *l[2];
        for (int i = 0; i < 2; i++)
            l[i] = kind == 3 ? nn_transformer_encoder_layer_new(net, NULL, 6, 2, &(nn_transformer_desc){ .hidden = 8 })
                 : (kind == 0 ? nn_lstm_new : kind == 1 ? nn_gru_new : nn_rnn_new)(net, NULL, i ? 8 : 6, 4, &(nn_rnn_desc){ .bidirectional = 1, .last = i });
        nn_checkpoint_layer(l[0], kind != 1);
        float x[2 * 9 * 6], y[2][2 * 9 * 8], g[2][2000];
        int64_t lengths[2] = { 9, 5 };
        for (int fill = 0; fill < 2; fill++) {
            for (int i = 0; i < 2 * 9 * 6; i++) x[i] = i >= (9 + 5) * 6 ? (fill ? 100.0f : 0.0f) : (float)(i * 37 % 23) / 23;
            nn_begin(nn, NN_TRAIN);
            nn_tensor *out = nn_forward_lengths(net, nn_from(nn, NN_SHAPE(2, 9, 6), x), nn_from_as(nn, NN_I64, NN_SHAPE(2), lengths)), *list[32];
            if (kind == 3) out = nn_slice(out, 1, 0, 5, 1);          /* attention's padded rows are there, nobody sees them */
            CHECK(nn_count(out) <= 2 * 9 * 8 && nn_read(out, y[fill]));
            nn_backward(nn_sum(nn_square(out), NN_ALL, NULL));
            int n = nn_params(net, list, 32), at = 0;
            for (int i = 0; i < n; i++) { CHECK(nn_read(nn_grad(list[i]), g[fill] + at)); at += (int)nn_count(list[i]); }
            CHECK(at < 2000);
            if (fill) CHECK(!memcmp(y[0], y[1], (size_t)nn_count(out) * sizeof(float)) && !memcmp(g[0], g[1], (size_t)at * sizeof(float)));
            nn_zero_grad(net);
            CHECK(nn_ok(nn));
        }
        nn_free(nn);
    }
}
