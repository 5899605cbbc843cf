/* cases_rnn.h - recurrent nets, CTC (see test_ops.c). The rnn op starts from gx = x W_ih^T + b_ih; y, h and c count. */
typedef struct rnn_case { int kind, reverse, time_first, no_bias, state, lengths, proj, file_order; int64_t batch, time, hidden; } rnn_case;
static nn_tensor *rnn_run(fixture *f, rnn_case k)
{
    int64_t gates = nn__rnn_gates(k.kind), out = k.proj ? k.proj : k.hidden, n[64];
    nn_tensor *in[7] = { 0 }, *y[3], *all[3];
    for (int64_t i = 0; i < k.batch; i++) n[i] = (i * 3 + 1) % (k.time + 1);
    in[0] = k.time_first ? var(f, k.time, k.batch, gates * k.hidden) : var(f, k.batch, k.time, gates * k.hidden);
    in[1] = k.file_order ? var(f, gates * k.hidden, out) : nn_transpose(var(f, out, gates * k.hidden), 0, 1);
    if (!k.no_bias) in[2] = var(f, gates * k.hidden);
    if (k.state) in[3] = var(f, k.batch, out);
    if (k.state && k.kind == NN__RNN_LSTM) in[4] = var(f, k.batch, k.hidden);
    if (k.lengths) in[5] = nn_from_as(f->nn, NN_I64, NN_SHAPE(k.batch), n);
    if (k.proj) in[6] = var(f, out, k.hidden);
    nn__rnn(k.kind, k.reverse, k.time_first, in, y);
    for (int i = 0; i < 3; i++) all[i] = nn_reshape(y[i], NN_SHAPE(-1));
    return nn_concat(all, 2 + (k.kind == NN__RNN_LSTM), 0);
}
#define RNN(...) rnn_run(f, (rnn_case){ __VA_ARGS__ })
#define RNN_CASES(name, which) \
    CASE(rnn, name)             { return RNN(.kind = which, .batch = 3, .time = 4, .hidden = 5); } \
    CASE(rnn, name##_state)     { return RNN(.kind = which, .batch = 2, .time = 3, .hidden = 3, .state = 1); } \
    CASE(rnn, name##_reverse)   { return RNN(.kind = which, .batch = 2, .time = 3, .hidden = 3, .state = 1, .reverse = 1, .no_bias = 1); } \
    CASE(rnn, name##_lengths)   { return RNN(.kind = which, .batch = 5, .time = 4, .hidden = 2, .state = 1, .lengths = 1); } \
    CASE(rnn, name##_backwards) { return RNN(.kind = which, .batch = 5, .time = 4, .hidden = 2, .state = 1, .lengths = 1, .reverse = 1, .time_first = 1); } \
    CASE(rnn, name##_time)      { return RNN(.kind = which, .batch = 4, .time = 3, .hidden = 2, .time_first = 1); } \
    CASE(rnn, name##_file)      { return RNN(.kind = which, .batch = 2, .time = 2, .hidden = 3, .file_order = 1); } \
    CASE(rnn, name##_step)      { return RNN(.kind = which, .batch = 1, .time = 1, .hidden = 3, .state = 1); } \
    CASE(rnn, name##_wide)      { return RNN(.kind = which, .batch = 5, .time = 2, .hidden = 29, .state = 1, .no_bias = 1); } \
    CASE(rnn, name##_rows)      { return RNN(.kind = which, .batch = 35, .time = 3, .hidden = 2, .lengths = 1); } \
    CASE(rnn, name##_no_rows)   { return RNN(.kind = which, .batch = 0, .time = 3, .hidden = 2, .state = 1); } \
    CASE(rnn, name##_no_steps)  { return RNN(.kind = which, .batch = 2, .time = 0, .hidden = 2, .state = 1); }
RNN_CASES(tanh, NN__RNN_TANH)
RNN_CASES(relu, NN__RNN_RELU)
RNN_CASES(lstm, NN__RNN_LSTM)
RNN_CASES(gru,  NN__RNN_GRU)
CASE(rnn, proj)          { return RNN(.kind = NN__RNN_LSTM, .batch = 3, .time = 4, .hidden = 5, .proj = 2); }
CASE(rnn, proj_state)    { return RNN(.kind = NN__RNN_LSTM, .batch = 2, .time = 3, .hidden = 4, .proj = 3, .state = 1, .file_order = 1); }
CASE(rnn, proj_lengths)  { return RNN(.kind = NN__RNN_LSTM, .batch = 5, .time = 4, .hidden = 3, .proj = 2, .state = 1, .lengths = 1, .reverse = 1); }
CASE(rnn, proj_wide)     { return RNN(.kind = NN__RNN_LSTM, .batch = 5, .time = 2, .hidden = 35, .proj = 19, .no_bias = 1); }
CASE(rnn, unrolled_twice)                                /* gradients that are there already: gx, W, b, h are used twice */
{
    nn_tensor *in[7] = { var(f, 4, 3, 9), var(f, 9, 3), var(f, 9), var(f, 4, 3) }, *a[3], *b[3];
    nn__rnn(NN__RNN_GRU, 0, 0, in, a);
    nn__rnn(NN__RNN_GRU, 1, 0, in, b);
    return nn_mul(a[0], b[0]);
}
CASE(rnn, lstm_twice)
{
    nn_tensor *in[7] = { var(f, 4, 3, 12), var(f, 12, 2), var(f, 12), var(f, 4, 2), var(f, 4, 3), NULL, var(f, 2, 3) }, *a[3], *b[3];
    nn__rnn(NN__RNN_LSTM, 0, 0, in, a);
    nn__rnn(NN__RNN_LSTM, 1, 0, in, b);
    return nn_add(a[0], nn_mul(b[0], nn_unsqueeze(a[1], 1)));
}

static nn_tensor *ctc(fixture *f, nn_tensor *targets, int64_t time, int64_t classes, const int64_t *steps, const int64_t *sizes, int64_t batch, nn_ctc_desc d)
{
    return nn_ctc_loss(nn_log_softmax(var(f, time, batch, classes), 2), targets, nn_from_as(f->nn, NN_I64, NN_SHAPE(batch), steps), nn_from_as(f->nn, NN_I64, NN_SHAPE(batch), sizes), &d);
}
#define LIST(...) (const int64_t[]){ __VA_ARGS__ }
CASE(ctc_loss, mean)      { return ctc(f, ints(f, NN_SHAPE(3, 2), 1, 2, 3, 3, 2, 0), 6, 4, LIST(6, 5, 4), LIST(2, 2, 1), 3, (nn_ctc_desc){ 0 }); }
CASE(ctc_loss, sum)       { return ctc(f, ints(f, NN_SHAPE(5), 1, 2, 3, 3, 2), 6, 4, LIST(6, 5, 4), LIST(2, 2, 1), 3, (nn_ctc_desc){ .reduction = NN_SUM }); }
CASE(ctc_loss, none)      { return ctc(f, ints(f, NN_SHAPE(2, 3), 0, 2, 2, 1, 0, 1), 7, 4, LIST(7, 7), LIST(3, 3), 2, (nn_ctc_desc){ .reduction = NN_NONE, .blank = 3 }); }
CASE(ctc_loss, empty)     { return ctc(f, ints(f, NN_SHAPE(2, 2), 1, 2, 1, 1), 3, 3, LIST(3, 2), LIST(0, 1), 2, (nn_ctc_desc){ .reduction = NN_NONE }); }
CASE(ctc_loss, long)      { return ctc(f, ints(f, NN_SHAPE(1, 20), 1, 2, 3, 3, 2, 1, 1, 4, 5, 2, 1, 2, 3, 4, 5, 5, 5, 1, 2, 3), 30, 6, LIST(29), LIST(20), 1, (nn_ctc_desc){ 0 }); }
CASE(ctc_loss, tight)     { return ctc(f, ints(f, NN_SHAPE(1, 3), 1, 2, 1), 3, 3, LIST(3), LIST(3), 1, (nn_ctc_desc){ 0 }); }
CASE(ctc_loss, impossible) { return ctc(f, ints(f, NN_SHAPE(2, 2), 1, 1, 2, 1), 2, 3, LIST(2, 2), LIST(2, 2), 2, (nn_ctc_desc){ .reduction = NN_NONE, .zero_infinity = 1 }); }
CASE(ctc_loss, of_p)                                     /* probabilities that do not add up to 1 have a gradient, too */
{
    return nn_ctc_loss(var(f, 4, 1, 3), ints(f, NN_SHAPE(1, 2), 1, 2), ints(f, NN_SHAPE(1), 4), ints(f, NN_SHAPE(1), 2), NULL);
}
