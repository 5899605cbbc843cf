/* cases_seq.h - sizes that only matter to kernels on a device: rows of a block, several chunks of a sum, heads of 64 and 128 numbers, many
   keys, more states than threads (see test_cuda.c). Large operands are sums of a column and a row. */
static nn_tensor *outer(fixture *f, int64_t rows, int64_t columns) { nn_tensor *a = var(f, rows, 1), *b = var(f, 1, columns); return nn_sin(nn_add(nn_mul_scalar(a, 7), nn_mul_scalar(b, 5))); }
static nn_tensor *wide(fixture *f, int64_t rows, int64_t columns)  { nn_tensor *two[2] = { outer(f, rows, columns), outer(f, rows, columns) }; return nn_concat(two, 2, 1); }
static nn_tensor *numbers(fixture *f, nn_shape s, int64_t below, int narrow)         /* indices 0 .. below - 1 */
{
    int64_t n = 1, *v, i;
    nn_tensor *t;
    for (int d = 0; d < s.ndim; d++) n *= s.d[d];
    v = malloc((size_t)(n + 1) * sizeof *v);
    for (i = 0; i < n; i++) { int64_t k = (i * i + i / 3) % below; if (narrow) ((int32_t *)v)[i] = (int32_t)k; else v[i] = k; }
    t = nn_from_as(f->nn, narrow ? NN_I32 : NN_I64, s, v);
    free(v);
    return t;
}
#define SOFT(op) \
    CASE(op, block)        { return nn_##op(outer(f, 3, 301), 1); } \
    CASE(op, long_rows)    { return nn_##op(wide(f, 2, 701), 1); } \
    CASE(op, many_rows)    { return nn_##op(outer(f, 601, 259), 1); } \
    CASE(op, columns)      { return nn_##op(nn_reshape(outer(f, 70, 45), NN_SHAPE(2, 35, 45)), 1); }
SOFT(softmax)
SOFT(log_softmax)
CASE(layernorm, block)       { nn_tensor *x = outer(f, 3, 300), *w = var(f, 300), *b = var(f, 300); return nn_layernorm(x, 1, w, b, NULL); }
CASE(layernorm, long_rows)   { nn_tensor *x = wide(f, 2, 2051); return nn_layernorm(x, 1, NULL, NULL, NULL); }
CASE(layernorm, chunks)      { nn_tensor *x = outer(f, 401, 37), *w = var(f, 37), *b = var(f, 37); return nn_layernorm(x, 1, w, b, NULL); }
CASE(rmsnorm, chunks)        { nn_tensor *x = outer(f, 300, 68), *w = var(f, 68); return nn_rmsnorm(x, w, NULL); }
CASE(rmsnorm, block)         { nn_tensor *x = outer(f, 2, 777), *w = var(f, 777); return nn_rmsnorm(x, w, NULL); }
CASE(add_layernorm, block)   { nn_tensor *x = outer(f, 3, 300), *r = outer(f, 3, 300), *w = var(f, 300), *s, *y = nn_add_layernorm(x, r, 1, w, w, &s, NULL); return both(y, s); }
CASE(add_layernorm, chunks)  { nn_tensor *x = outer(f, 401, 37), *w = var(f, 37), *b = var(f, 37); return nn_add_layernorm(x, nn_neg(nn_square(x)), 1, w, b, NULL, NULL); }
CASE(add_layernorm, long_rows) { nn_tensor *x = wide(f, 2, 2051), *s, *y = nn_add_layernorm(x, nn_square(x), 1, NULL, NULL, &s, NULL); return both(y, s); }
CASE(add_rmsnorm, block)     { nn_tensor *x = outer(f, 2, 777), *r = outer(f, 2, 777), *w = var(f, 777), *s, *y = nn_add_rmsnorm(x, r, w, &s, NULL); return both(y, s); }
CASE(groupnorm, block)       { nn_tensor *x = nn_reshape(outer(f, 24, 70), NN_SHAPE(3, 8, 70)), *w = var(f, 8), *b = var(f, 8); return nn_groupnorm(x, 2, w, b, NULL); }
CASE(batchnorm, chunks)      { nn_tensor *x = outer(f, 300, 5), *w = var(f, 5), *b = var(f, 5); return nn_batchnorm(x, w, b, running(f, 5, 0.1f), running(f, 5, 0.8f), NULL); }
CASE(batchnorm, large)       { nn_tensor *x = nn_reshape(outer(f, 9, 1803), NN_SHAPE(3, 3, 1803)), *w = var(f, 3), *b = var(f, 3); return nn_batchnorm(x, w, b, NULL, NULL, NULL); }
CASE(batchnorm, large_image) { nn_tensor *x = nn_reshape(outer(f, 8, 3000), NN_SHAPE(4, 2, 50, 60)), *w = var(f, 2), *b = var(f, 2); return nn_batchnorm(x, w, b, running(f, 2, 0.1f), running(f, 2, 0.8f), NULL); }

/* few rows times weights as they are stored; dense: inputs side by side, as in an embedding */
static nn_tensor *stored(fixture *f, nn_dtype type, int64_t rows, int64_t in, int64_t out, int64_t group, int dense)
{
    nn_tensor *x = outer(f, rows, in), *b = var(f, 1, out), *scale = NULL, *w;
    float *v = malloc((size_t)(out * in + 1) * sizeof *v);
    for (int64_t i = 0; i < out * in; i++) v[i] = (float)((i * 37 + i / 11) % 101 - 50) / (float)(64 + i / in % 7 * 16 + i % in / 8);
    w = nn_from(f->nn, NN_SHAPE(out, in), v);
    free(v);
    w = nn_quantize_new(w, type, type == NN_I8 || type == NN_I4 ? &scale : NULL, &(nn_quantize_desc){ .group = group });
    return nn_linear(x, dense ? nn_contiguous(w) : w, nn_reshape(b, NN_SHAPE(out)), &(nn_linear_desc){ .scale = dense && scale ? nn_contiguous(scale) : scale });
}
#define STORED(name, ...) CASE(linear_small, name) { return stored(f, __VA_ARGS__); }
STORED(i4_parts, NN_I4, 1, 1030, 68, 32, 0)    STORED(i4_five, NN_I4, 5, 90, 36, 16, 0)        STORED(i4_odd, NN_I4, 2, 45, 37, 8, 0)        STORED(i4_out, NN_I4, 2, 41, 1, 8, 0)
STORED(i4_tied, NN_I4, 3, 288, 70, 16, 1)      STORED(i4_tied_parts, NN_I4, 1, 2080, 9, 64, 1) STORED(i4_tied_tail, NN_I4, 2, 157, 5, 8, 1)  STORED(i4_tied_odd, NN_I4, 1, 333, 11, 32, 1)
STORED(i4_most, NN_I4, 16, 64, 12, 32, 0)      STORED(i4_more, NN_I4, 17, 64, 12, 32, 1)       STORED(i4_eight, NN_I4, 1, 5, 7, 8, 0)
STORED(i8_wide, NN_I8, 2, 70, 144, 0, 0)       STORED(i8_parts, NN_I8, 1, 600, 132, 0, 0)      STORED(i8_odd, NN_I8, 5, 37, 33, 0, 0)        STORED(i8_groups, NN_I8, 1, 96, 48, 24, 0)
STORED(i8_32, NN_I8, 3, 96, 144, 32, 0)        STORED(i8_tied, NN_I8, 1, 400, 35, 0, 1)        STORED(i8_tied_groups, NN_I8, 4, 160, 33, 40, 1)
STORED(i8_tied_four, NN_I8, 2, 52, 9, 0, 1)    STORED(i8_tied_odd, NN_I8, 1, 133, 6, 0, 1)     STORED(i8_tied_twelve, NN_I8, 2, 48, 20, 12, 1)
STORED(bf16_wide, NN_BF16, 3, 50, 72, 0, 0)    STORED(bf16_two, NN_BF16, 1, 31, 70, 0, 0)      STORED(bf16_odd, NN_BF16, 1, 300, 33, 0, 0)   STORED(bf16_tied, NN_BF16, 1, 304, 20, 0, 1)
STORED(f16_wide, NN_F16, 1, 264, 64, 0, 0)     STORED(f16_tied_two, NN_F16, 5, 150, 18, 0, 1)  STORED(f16_tied_odd, NN_F16, 2, 151, 17, 0, 1)
CASE(linear, one_wide)         { return nn_linear(outer(f, 1, 300), outer(f, 68, 300), NULL, NULL); }
CASE(linear, one_input_major)  { return nn_linear(outer(f, 1, 300), nn_transpose(outer(f, 300, 68), 0, 1), NULL, NULL); }

CASE(mse, few_chunks)          { return nn_mse(outer(f, 130, 70), outer(f, 130, 70), NULL); }
CASE(huber, two_stages)      { return nn_huber(outer(f, 301, 299), outer(f, 301, 299), LOSS(.reduction = NN_SUM, .delta = 0.5f)); }
CASE(binary_cross_entropy, few_chunks) { nn_tensor *x = outer(f, 130, 70), *w = var_in(f, 0.5, 2, 70); return nn_binary_cross_entropy(x, nn_detach(nn_sigmoid(x)), LOSS(.weight = w, .pos_weight = w)); }
CASE(cross_entropy, block)   { nn_tensor *x = outer(f, 5, 301), *w = var_in(f, 0.5, 2, 301); return nn_cross_entropy(x, numbers(f, NN_SHAPE(5), 301, 1), LOSS(.weight = w, .label_smoothing = 0.2f)); }
CASE(cross_entropy, vocabulary) { return nn_cross_entropy(wide(f, 6, 2501), numbers(f, NN_SHAPE(6), 4999, 0), NULL); }
CASE(cross_entropy, soft_block) { nn_tensor *x = outer(f, 4, 300); return nn_cross_entropy(x, nn_softmax(outer(f, 4, 300), 1), LOSS(.label_smoothing = 0.1f)); }
CASE(cross_entropy, pixels)  { nn_tensor *x = nn_reshape(outer(f, 40, 45), NN_SHAPE(2, 20, 5, 9)); return nn_cross_entropy(x, numbers(f, NN_SHAPE(2, 5, 9), 20, 0), LOSS(.ignore_index = 3)); }
CASE(cross_entropy, many_rows) { nn_tensor *x = nn_reshape(outer(f, 201, 200), NN_SHAPE(20100, 2)), *w = var_in(f, 0.5, 2, 2); return nn_cross_entropy(x, numbers(f, NN_SHAPE(20100), 2, 1), LOSS(.weight = w)); }
CASE(nll, many_rows)         { nn_tensor *x = nn_reshape(outer(f, 201, 200), NN_SHAPE(20100, 2)); return nn_nll(x, numbers(f, NN_SHAPE(20100), 2, 1), NULL); }
CASE(multi_margin, block)    { return nn_hinge(outer(f, 3, 300), numbers(f, NN_SHAPE(3), 300, 0), NULL); }
CASE(kl_div, block)          { return nn_kl_div(outer(f, 3, 300), outer(f, 3, 300), LOSS(.temperature = 2)); }
CASE(embedding, long)        { return nn_embedding(numbers(f, NN_SHAPE(1500), 31, 1), var(f, 31, 7)); }
CASE(embedding, wide)        { return nn_embedding(numbers(f, NN_SHAPE(3, 5), 11, 0), outer(f, 11, 268)); }
CASE(embedding, longer)      { return nn_embedding(numbers(f, NN_SHAPE(9001), 13, 0), var(f, 13, 1)); }

CASE(attention, head_64)        qkv(1, 2, 1, 30, 31, 64, 64, .causal = 1)
CASE(attention, head_64_wide)   qkv(1, 1, 1, 63, 66, 62, 57, .causal = 0)
CASE(attention, head_128)       qkv(1, 1, 1, 29, 31, 128, 128, .causal = 1)
CASE(attention, head_100)       qkv(1, 1, 1, 40, 40, 100, 99, .causal = 0)
CASE(attention, head_200)       qkv(1, 1, 1, 9, 11, 200, 300, .causal = 1)
CASE(attention, rows_tiles)     qkv(1, 3, 1, 70, 70, 16, 16, .causal = 1)
CASE(attention, rows_mask)      qkv(1, 2, 2, 67, 130, 5, 5, .mask = bools(f, NN_SHAPE(2, 1, 130), 7), .lengths = ints(f, NN_SHAPE(1), 101), .alibi = constant(f, NN_SHAPE(2)))
CASE(attention, head_64_mask)   qkv(1, 2, 2, 20, 30, 64, 48, .mask = constant(f, NN_SHAPE(20, 30)), .causal = 1)
CASE(attention, decode)         qkv(1, 4, 2, 1, 200, 8, 8, .causal = 1)
CASE(attention, decode_few)     qkv(2, 2, 2, 3, 110, 5, 9, .causal = 1)
CASE(attention, decode_64)      qkv(1, 8, 1, 1, 61, 64, 64, .mask = bools(f, NN_SHAPE(8, 1, 61), 3))
CASE(attention, decode_100)     qkv(1, 1, 1, 2, 40, 100, 60, .alibi = constant(f, NN_SHAPE(1)), .causal = 1)
CASE(attention, decode_length)  qkv(3, 1, 1, 1, 300, 4, 4, .lengths = ints(f, NN_SHAPE(3), 300, 0, 77))
CASE(attention_dropout, head_64) qkv(1, 2, 1, 30, 31, 64, 64, .causal = 1, .dropout = 0.3f)
#define spread(f, b, h, t, d) nn_reshape(outer(f, (b) * (h) * (t), d), NN_SHAPE(b, h, t, d))
#define large(b, h, hk, tq, tk, d, e, ...) { nn_tensor *q = spread(f, b, h, tq, d), *k = spread(f, b, hk, tk, d), *v = spread(f, b, hk, tk, e); \
                                             return nn_scaled_dot_product_attention(q, k, v, &(AD){ __VA_ARGS__ }); }
#define learned_mask(shape, ...) { nn_tensor *m = make_var(f, -1.5, 1.5, shape); large(__VA_ARGS__, .mask = m) }
CASE(attention, learned_64)     { nn_tensor *m = nn_reshape(outer(f, 140, 66), NN_SHAPE(2, 70, 66)); large(3, 2, 1, 70, 66, 64, 48, .mask = m, .causal = 1) }
CASE(attention, learned_100)    learned_mask(NN_SHAPE(2, 1, 9, 20), 2, 4, 2, 9, 20, 100, 130, .causal = 0)
CASE(attention, learned_line)   learned_mask(NN_SHAPE(4, 1, 130), 3, 4, 4, 70, 130, 5, 3, .causal = 1, .alibi = constant(f, NN_SHAPE(4)))
CASE(attention, learned_add)    { nn_tensor *x = var(f, 1, 2, 6, 3), *m = var(f, 1, 2, 6, 6); AD d = { .mask = m }; return nn_scaled_dot_product_attention(x, nn_scaled_dot_product_attention(x, x, x, &d), x, &d); }
CASE(attention, learned_column) { nn_tensor *m = var(f, 131, 1), *q = var(f, 1, 4, 131, 3), *k = var(f, 1, 2, 67, 3); return nn_add(m, nn_scaled_dot_product_attention(q, k, k, &(AD){ .mask = m })); }
CASE(attention, learned_part)   { nn_tensor *m = nn_slice(var(f, 9, 2, 140), 2, 3, 133, 2); m = nn_transpose(m, 0, 1); qkv(2, 2, 1, 9, 65, 4, 4, .mask = m) }
CASE(attention_dropout, learned_64)   learned_mask(NN_SHAPE(67, 40), 2, 6, 2, 67, 40, 33, 64, .causal = 1, .dropout = 0.3f)
CASE(attention_dropout, learned_keys) learned_mask(NN_SHAPE(70), 2, 2, 2, 40, 70, 4, 4, .causal = 0, .dropout = 0.5f)
CASE(rope, wide_half)           { return nn_rope(nn_reshape(outer(f, 30, 150), NN_SHAPE(2, 15, 150)), table(f, 15, 144), NULL); }
CASE(rope, wide_pairs)       { return nn_rope(nn_reshape(outer(f, 30, 150), NN_SHAPE(2, 15, 150)), table(f, 15, 138), &(RD){ .interleaved = 1 }); }

CASE(rnn, gru_tiles)         { return RNN(.kind = NN__RNN_GRU, .batch = 3, .time = 4, .hidden = 33, .state = 1); }
CASE(rnn, tanh_tiles)        { return RNN(.kind = NN__RNN_TANH, .batch = 35, .time = 1, .hidden = 60, .state = 1); }
CASE(rnn, lstm_tiles)        { return RNN(.kind = NN__RNN_LSTM, .batch = 4, .time = 3, .hidden = 31, .lengths = 1, .file_order = 1); }
CASE(rnn, shares)            { return RNN(.kind = NN__RNN_RELU, .batch = 35, .time = 10, .hidden = 3, .reverse = 1); }
CASE(ctc_loss, many_states)
{
    return ctc(f, numbers(f, NN_SHAPE(2, 70), 4, 0), 190, 5, LIST(190, 171), LIST(70, 66), 2, (nn_ctc_desc){ .reduction = NN_SUM, .blank = 4 });
}

/* What the mutation run (mutate.py) found untested: casts at their limits, random numbers, ties, long lines, runs that merge, loops over a grid. */
static nn_tensor *casted(fixture *f, int64_t n, const int64_t *v, nn_dtype to) { return nn_cast(nn_from_as(f->nn, NN_I64, NN_SHAPE(n), v), to); }
#define LIMITS ((int64_t[]){ -129, -128, -127, -1, 0, 1, 127, 128, 129, 254, 255, 256 })
CASE_NO_GRAD(cast, i8)       { return casted(f, 12, LIMITS, NN_I8); }
CASE_NO_GRAD(cast, u8)       { return casted(f, 12, LIMITS, NN_U8); }
CASE_NO_GRAD(cast, i32)      { int64_t m = 2147483647; return nn_sub(nn_cast(nn_slice(casted(f, 6, (int64_t[]){ -m - 2, -m - 1, -m, m - 1, m, m + 1 }, NN_I32), 0, 0, 6, 1), NN_F64), nn_cast(nn_from_as(f->nn, NN_I64, NN_SHAPE(1), &m), NN_F64)); }
static nn_tensor *halves(fixture *f, nn_dtype to, const uint32_t *bits, int64_t n, float scale)
{
    float v[64];
    memcpy(v, bits, (size_t)n * sizeof *v);
    return nn_mul_scalar(nn_cast(nn_cast(nn_tensor_new(f->nn, NN_SHAPE(n), v), to), f->nn->desc.dtype), scale);
}
CASE_NO_GRAD(cast, f16_large)     { return halves(f, NN_F16, (uint32_t[]){ 0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FF001, 0x7F800000, 0x7F800001, 0xFF800000, 0xC77FEFFF, 0x7FC00000 }, 9, 1); }
CASE_NO_GRAD(cast, f16_ties)      { return halves(f, NN_F16, (uint32_t[]){ 0x3F800FFF, 0x3F801000, 0x3F801001, 0x3F802FFF, 0x3F803000, 0x3F803001, 0xBF801000, 0xBF803000 }, 8, 1); }
CASE_NO_GRAD(cast, f16_small)     { return halves(f, NN_F16, (uint32_t[]){ 0x32FFFFFF, 0x33000000, 0x33000001, 0x33C00000, 0x387FC000, 0x387FE000, 0x387FEFFF, 0x387FF000, 0x387FFFFF, 0x38800000, 0x38801000, 0x38803000 }, 12, 16777216); }
CASE_NO_GRAD(cast, bf16_ties)     { return halves(f, NN_BF16, (uint32_t[]){ 0x3F807FFF, 0x3F808000, 0x3F808001, 0x3F818000, 0x7F7F7FFF, 0x7F7F8000, 0x7F800000, 0x7F800001, 0x7FC00000 }, 9, 1); }
CASE(cast, to_f64_twice)     { nn_tensor *x = var(f, 5); return nn_mul_scalar(nn_cast(nn_add(nn_cast(x, NN_F64), nn_cast(x, NN_F64)), f->nn->desc.dtype), 2); }
CASE_NO_GRAD(random, uniform)    { return nn_rand(f->nn, NN_SHAPE(1027), -1, 2); }
CASE_NO_GRAD(random, normal)     { return nn_randn(f->nn, NN_SHAPE(1026), 1, 2); }
CASE_NO_GRAD(random, truncated)  { nn_tensor *x = nn_zeros(f->nn, NN_SHAPE(1025)); nn_init_trunc_normal(x, 0.1f, 1, -0.5f, 0.7f); return x; }
CASE_NO_GRAD(fill, odd)          { return nn_full(f->nn, NN_SHAPE(259), 2.5f); }
CASE(dropout, odd)               { return nn_dropout(var(f, 1027), 0.4f); }
CASE(dropout, even)              { return nn_dropout(var(f, 32, 33), 0.4f); }
CASE_NO_GRAD(argmax, long)       { return nn_argmax(outer(f, 5, 300), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmin, long)       { return nn_argmin(outer(f, 5, 301), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmax, ties)       { return nn_argmax(numbers(f, NN_SHAPE(9, 100), 7, 1), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmax, negative)   { return nn_argmax(nn_concat((nn_tensor *[]){ nn_neg(nn_exp(outer(f, 9, 40))), nn_full(f->nn, NN_SHAPE(9, 1), -9) }, 2, 1), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmin, zeros)      { return nn_argmin(nn_tensor_new(f->nn, NN_SHAPE(2, 4), (float[]){ 1, 0.0f, -0.0f, 3, 1, -0.0f, 0.0f, -0.0f }), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmax, nan)        { return nn_argmax(nn_tensor_new(f->nn, NN_SHAPE(2, 4), (float[]){ 1, NAN, INFINITY, NAN, 1, 2, 2, 0 }), NN_DIMS(1), NULL); }
CASE(cumsum, long)               { return nn_cumsum(outer(f, 9, 67), 1); }
CASE(cumsum, leaf)               { return nn_cumsum(var(f, 3, 67), 1); }
CASE(cumsum, columns_leaf)       { return nn_cumsum(var(f, 5, 259), 0); }
CASE(sort, merged)               { return nn_sort(wide(f, 2, 1300), -1, NULL, NULL); }
CASE(sort, merged_columns)       { return nn_sort(nn_reshape(outer(f, 70, 60), NN_SHAPE(1400, 3)), 0, NULL, &(nn_sort_desc){ .descending = 1 }); }
CASE_NO_GRAD(sort, merged_ties)  { nn_tensor *i; nn_sort(numbers(f, NN_SHAPE(1, 3200), 5, 0), 1, &i, NULL); return i; }
CASE_NO_GRAD(sort, ties)         { nn_tensor *i; nn_sort(numbers(f, NN_SHAPE(2, 300), 9, 1), 1, &i, &(nn_sort_desc){ .descending = 1 }); return i; }
CASE_NO_GRAD(arange, linspace)   { return nn_linspace(f->nn, -1, 3, 515); }
CASE_NO_GRAD(arange, even)       { return nn_linspace(f->nn, 0, 1, 6); }
CASE_NO_GRAD(arange, step)       { return nn_arange(f->nn, 1, 40, 0.25f); }
CASE_NO_GRAD(max, nan)           { return nn_max(nn_tensor_new(f->nn, NN_SHAPE(3, 3), (float[]){ 1, NAN, 3, NAN, 1, 2, 1, 2, NAN }), NN_DIMS(1), NULL); }
CASE_NO_GRAD(min, nan)           { return nn_min(nn_tensor_new(f->nn, NN_SHAPE(3, 3), (float[]){ 1, NAN, 3, NAN, 1, 2, 1, 2, NAN }), NN_DIMS(1), NULL); }
CASE(contiguous, turned)         { return nn_mul_scalar(nn_contiguous(nn_transpose(var(f, 35, 45), 0, 1)), 2); }
CASE(contiguous, turned_many)    { return nn_mul_scalar(nn_contiguous(nn_transpose(var(f, 40, 9, 9), 1, 2)), 2); }
CASE(contiguous, turned_exactly) { return nn_mul_scalar(nn_contiguous(nn_transpose(var(f, 32, 64), 0, 1)), 2); }
CASE_NO_GRAD(argmax, neighbours) { int32_t v[2][40] = {{0}}; v[0][3] = 6; v[0][35] = 7; v[1][3] = 6; v[1][4] = 7; return nn_argmax(nn_from_as(f->nn, NN_I32, NN_SHAPE(2, 40), v), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmax, least)      { int64_t v[3] = { INT64_MIN, INT64_MIN, INT64_MIN }; return nn_argmax(nn_from_as(f->nn, NN_I64, NN_SHAPE(1, 3), v), NN_DIMS(1), NULL); }

/* Where a bound decides and no other case stands: one number more than whole pieces, the last size of a tile, the least that needs two chunks. */
CASE(sum, pieces_and_one)        { return nn_sum(nn_reshape(outer(f, 33, 132), NN_SHAPE(1089, 4)), NN_DIMS(0), NULL); }
CASE(mse, chunk_and_one)         { return nn_mse(outer(f, 241, 17), outer(f, 241, 17), NULL); }
CASE(nll, chunks_and_one)        { return nn_nll(nn_reshape(outer(f, 53, 541), NN_SHAPE(28673, 1)), numbers(f, NN_SHAPE(28673), 1, 0), NULL); }
CASE(layernorm, chunks_and_one)  { nn_tensor *x = nn_reshape(outer(f, 65, 195), NN_SHAPE(4225, 3)), *w = var(f, 3), *b = var(f, 3); return nn_layernorm(x, 1, w, b, NULL); }
CASE(batchnorm, chunks_and_one)  { nn_tensor *x = nn_reshape(outer(f, 65, 195), NN_SHAPE(4225, 3)), *w = var(f, 3), *b = var(f, 3); return nn_batchnorm(x, w, b, running(f, 3, 0.1f), running(f, 3, 0.8f), NULL); }
CASE(embedding, wide_and_one)    { return nn_embedding(numbers(f, NN_SHAPE(3, 5), 11, 0), outer(f, 11, 129)); }
CASE(sort, run_less_one)         { return nn_sort(outer(f, 2, 1023), -1, NULL, NULL); }
CASE(sort, run_and_one)          { return nn_sort(outer(f, 2, 1025), -1, NULL, NULL); }
CASE(topk, short_run)            { return nn_topk(nn_add_scalar(outer(f, 3, 1100), -5), 300, 1, NULL, NULL); }
CASE(topk, run_and_one)          { return nn_topk(outer(f, 2, 1025), 500, 1, NULL, &(nn_topk_desc){ .smallest = 1 }); }
CASE_NO_GRAD(argmax, later)      { int32_t v[1][70] = {{0}}; v[0][3] = v[0][35] = v[0][67] = 7; return nn_argmax(nn_from_as(f->nn, NN_I32, NN_SHAPE(1, 70), v), NN_DIMS(1), NULL); }
CASE(pad, eight)                 { return nn_pad(var(f, 2, 1, 2, 1, 2, 1, 2, 3), NN_SHAPE(1, 2, 0, 1), &(nn_pad_desc){ .mode = NN_PAD_REPLICATE }); }
CASE(upsample, to_two)           { return nn_upsample(var(f, 2, 1, 3, 4), 2, 2, &(nn_upsample_desc){ .bilinear = 1, .align_corners = 1 }); }
CASE(upsample, one_more)         { return nn_upsample(var(f, 1, 2, 4, 5), 5, 6, &(nn_upsample_desc){ .bilinear = 1 }); }
CASE(attention, head_129)        large(1, 1, 1, 9, 40, 129, 129, .causal = 1)
CASE(attention, head_129_100)    large(1, 1, 1, 9, 40, 129, 100, .causal = 0)
CASE(attention, head_100_129)    large(1, 1, 1, 9, 40, 100, 129, .causal = 0)
CASE(attention, rows_and_one)    qkv(1, 1, 1, 65, 129, 8, 8, .causal = 1)
CASE(attention, one_short)       qkv(3, 2, 2, 5, 7, 4, 4, .lengths = ints(f, NN_SHAPE(3), 6, -1, 8))
CASE(attention, learned_63)      { nn_tensor *m = var(f, 63, 63); large(1, 1, 1, 63, 63, 65, 65, .mask = m) }
CASE(attention, decode_and_one)  qkv(1, 1, 1, 1, 200, 4, 4, .lengths = ints(f, NN_SHAPE(1), 101))
CASE(attention, decode_turned)   { nn_tensor *q = var(f, 1, 2, 1, 7), *k = var(f, 1, 2, 7, 40), *v = var(f, 1, 2, 6, 40); return nn_scaled_dot_product_attention(q, nn_transpose(k, 2, 3), nn_transpose(v, 2, 3), NULL); }
CASE(attention, unaligned_rows)                          /* in tensor cores' precisions, too */
{
    nn_tensor *p[3];
    for (int i = 0; i < 3; i++) p[i] = nn_reshape(nn_slice(var(f, 1 + 2 * 9 * 16), 0, 1, 1 + 2 * 9 * 16, 1), NN_SHAPE(1, 2, 9, 16));
    return nn_scaled_dot_product_attention(p[0], p[1], p[2], &(AD){ .causal = 1 });
}
CASE(ctc_loss, no_steps)         { return ctc(f, ints(f, NN_SHAPE(3, 2), 1, 2, 1, 1, 2, 1), 3, 3, LIST(3, 0, 0), LIST(2, 0, 1), 3, (nn_ctc_desc){ .reduction = NN_NONE, .zero_infinity = 1 }); }
CASE(ctc_loss, one_step)         { return ctc(f, ints(f, NN_SHAPE(2, 1), 1, 2), 1, 3, LIST(1, 1), LIST(0, 1), 2, (nn_ctc_desc){ .reduction = NN_NONE }); }
CASE(cross_entropy, first_ignored) { nn_tensor *w = var_in(f, 0.5, 2, 7); return nn_cross_entropy(var(f, 5, 7), numbers(f, NN_SHAPE(5), 7, 1), LOSS(.ignore_index = NN_ZERO, .weight = w)); }
#define peaked(large, ...) nn_full(f->nn, NN_SHAPE(__VA_ARGS__), large)      /* times constants: exact scores, far apart */
CASE(attention, decode_apart)    /* scores of one head are no measure for those of another */
{
    nn_tensor *two[2] = { peaked(0.5f, 1, 1, 1, 4), peaked(256, 1, 1, 1, 4) }, *v = var(f, 1, 2, 140, 8);
    return nn_scaled_dot_product_attention(nn_concat(two, 2, 1), constant(f, NN_SHAPE(1, 2, 140, 4)), v, NULL);
}
CASE(attention, decode_peaks)    { nn_tensor *v = var(f, 1, 30, 32, 4); return nn_scaled_dot_product_attention(peaked(512, 1, 30, 1, 4), constant(f, NN_SHAPE(1, 30, 32, 4)), v, NULL); }
CASE(attention, decode_last)     /* the key that counts is the last one's of those who share them */
{
    nn_tensor *k[2] = { nn_zeros(f->nn, NN_SHAPE(1, 1, 39, 64)), peaked(1, 1, 1, 1, 64) }, *v = var(f, 1, 1, 40, 64);
    return nn_scaled_dot_product_attention(peaked(32, 1, 1, 1, 64), nn_concat(k, 2, 2), v, NULL);
}
CASE(cross_entropy, soft_odd)    { return nn_cross_entropy(outer(f, 4, 301), nn_softmax(outer(f, 4, 301), 1), LOSS(.label_smoothing = 0.1f)); }
CASE(maxpool2d, infinite)        { return nn_maxpool2d(nn_add_scalar(var(f, 1, 2, 4, 8), -INFINITY), 2, NULL); }
CASE(maxpool2d, infinite_odd)    { return nn_maxpool2d(nn_add_scalar(var(f, 1, 2, 5, 7), -INFINITY), 3, &(nn_pool_desc){ .stride = 1 }); }
CASE(embedding, keys_and_one)    { return nn_embedding(numbers(f, NN_SHAPE(1025), 31, 1), var(f, 31, 2)); }
/* Keys of a longer list lie behind those of a shorter one that comes after it. */
static nn_tensor *two_lists(fixture *f, float a, float b)
{
    nn_tensor *x = var(f, 7, 3), *y = var(f, 7, 3), *z[2];
    z[0] = nn_embedding(nn_cast(nn_full(f->nn, NN_SHAPE(9), a), NN_I64), x);
    z[1] = nn_embedding(nn_cast(nn_full(f->nn, NN_SHAPE(41), b), NN_I64), y);
    return nn_concat(z, 2, 0);
}
CASE(embedding, two_lists)       { return two_lists(f, 5, 5); }
CASE(embedding, two_lists_apart) { return two_lists(f, 3, 5); }
STORED(i4_tied_eight, NN_I4, 2, 40, 9, 8, 1)   STORED(i8_tied_eight, NN_I8, 1, 24, 9, 8, 1)     /* the last piece but one ends the line */
CASE(matmul, every_other)        { nn_tensor *a = var(f, 2, 5), *b = var(f, 5, 14); return nn_matmul(a, nn_slice(b, 1, 0, 14, 2)); }
CASE(conv2d, group_rows)         { nn_tensor *x = var(f, 1, 2, 4, 4), *w = var(f, 12, 1, 3, 3); return nn_conv2d(x, w, NULL, &(nn_conv2d_desc){ .groups = 2, .padding = 1 }); }
