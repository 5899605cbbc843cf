/* cases_attention.h - attention, its layouts and masks, rotary positions (see test_ops.c) */
typedef nn_attention_desc AD;
static nn_tensor *bools(fixture *f, nn_shape s, int modulo)      /* every modulo-th key is hidden */
{
    unsigned char v[4096];
    int64_t n = 1;
    for (int i = 0; i < s.ndim; i++) n *= s.d[i];
    for (int64_t i = 0; i < n; i++) v[i] = (unsigned char)(i % modulo != modulo - 1);
    return nn_from_as(f->nn, NN_BOOL, s, v);
}
static nn_tensor *constant(fixture *f, nn_shape s)
{
    double v[4096];
    nn_tensor *t;
    int64_t n = 1;
    for (int i = 0; i < s.ndim; i++) n *= s.d[i];
    for (int64_t i = 0; i < n; i++) v[i] = (double)(i * 7 % 11) * 0.125 - 0.5;
    t = nn__alloc_tensor(f->nn, 0, f->nn->desc.dtype, s.ndim, s.d);
    nn_write_as(t, NN_F64, v);
    return t;
}
#define qkv(b, h, hk, tq, tk, d, e, ...) { nn_tensor *q = var(f, b, h, tq, d), *k = var(f, b, hk, tk, d), *v = var(f, b, hk, tk, e); \
                                           return nn_scaled_dot_product_attention(q, k, v, &(AD){ __VA_ARGS__ }); }
CASE(attention, plain)         qkv(2, 3, 3, 5, 7, 4, 6, .causal = 0)
CASE(attention, causal)        qkv(1, 2, 2, 9, 9, 5, 5, .causal = 1)
CASE(attention, causal_end)    qkv(1, 2, 2, 3, 9, 5, 5, .causal = 1)
CASE(attention, causal_hidden) qkv(1, 1, 1, 7, 4, 3, 3, .causal = 1)
CASE(attention, grouped)       qkv(2, 6, 2, 4, 5, 3, 2, .causal = 1, .scale = 0.7f)
CASE(attention, multi_query)   qkv(2, 4, 1, 11, 11, 3, 4, .causal = 1)
CASE(attention, blocks)        qkv(1, 1, 1, 71, 135, 5, 3, .causal = 1)
CASE(attention, blocks_apart)  qkv(1, 1, 1, 140, 200, 3, 2, .causal = 0)
CASE(attention, wide)          qkv(1, 2, 1, 3, 4, 33, 40, .causal = 0)
CASE(attention, vectors)       qkv(1, 2, 2, 17, 20, 16, 32, .causal = 1)
CASE(attention, one)           qkv(1, 1, 1, 1, 1, 1, 1, .causal = 1)
CASE(attention, no_queries)    qkv(2, 2, 2, 0, 5, 3, 3, .causal = 1)
CASE(attention, no_keys)       qkv(2, 2, 2, 3, 0, 3, 3, .causal = 0)
CASE(attention, no_batch)      qkv(0, 2, 2, 3, 4, 3, 3, .causal = 0)
CASE(attention, no_numbers)    qkv(1, 2, 2, 3, 4, 0, 3, .causal = 0)
CASE(attention, bool_mask)     qkv(2, 2, 2, 5, 7, 4, 4, .mask = bools(f, NN_SHAPE(5, 7), 3))
CASE(attention, bool_heads)    qkv(2, 4, 2, 5, 7, 4, 4, .mask = bools(f, NN_SHAPE(4, 1, 7), 5), .causal = 1)
CASE(attention, hidden_row)    qkv(1, 2, 2, 5, 3, 4, 4, .mask = bools(f, NN_SHAPE(5, 1), 2))
CASE(attention, float_mask)    qkv(2, 2, 2, 5, 7, 4, 4, .mask = constant(f, NN_SHAPE(2, 2, 5, 7)))
CASE(attention, float_row)     qkv(2, 2, 2, 5, 7, 4, 4, .mask = constant(f, NN_SHAPE(7)), .causal = 1)
#define learned(b, h, hk, tq, tk, shape, ...) { nn_tensor *m = make_var(f, -1.5, 1.5, shape); qkv(b, h, hk, tq, tk, 3, 4, .mask = m, __VA_ARGS__) }
CASE(attention, learned_all)   learned(2, 2, 2, 5, 7, NN_SHAPE(2, 2, 5, 7), .scale = 0.7f)
CASE(attention, learned_keys)  learned(2, 4, 2, 5, 7, NN_SHAPE(7), .causal = 1)
CASE(attention, learned_heads) learned(3, 6, 2, 5, 7, NN_SHAPE(6, 1, 7), .causal = 1)
CASE(attention, learned_sum)   { nn_tensor *q = var(f, 2, 2, 5, 3), *k = var(f, 2, 2, 7, 3), *m = nn_mul(var(f, 5, 1), var(f, 2, 1, 7)); return nn_scaled_dot_product_attention(q, k, k, &(AD){ .mask = m }); }
CASE(attention, learned_batch) learned(3, 2, 2, 5, 7, NN_SHAPE(3, 1, 5, 7), .lengths = ints(f, NN_SHAPE(3), 7, 0, 3))
CASE(attention, learned_tiles) learned(1, 2, 1, 40, 70, NN_SHAPE(40, 70), .causal = 1)
CASE(attention, learned_apart) learned(2, 2, 2, 70, 9, NN_SHAPE(70, 9), .causal = 0)
CASE(attention, learned_empty) learned(0, 2, 2, 5, 7, NN_SHAPE(5, 7), .causal = 0)
CASE(attention, learned_nokey) learned(2, 2, 2, 5, 0, NN_SHAPE(5, 1), .causal = 0)
CASE(attention, learned_twice) { nn_tensor *x = var(f, 1, 2, 6, 3), *m = var(f, 6, 6); AD d = { .mask = m }; return nn_scaled_dot_product_attention(x, nn_scaled_dot_product_attention(x, x, x, &d), x, &d); }
CASE(attention_dropout, learned) learned(2, 4, 2, 5, 7, NN_SHAPE(4, 5, 7), .dropout = 0.3f)
CASE(attention, lengths)       qkv(4, 2, 2, 5, 7, 4, 4, .lengths = ints(f, NN_SHAPE(4), 7, 3, 0, 9))
CASE(attention, alibi)         qkv(2, 4, 2, 5, 9, 4, 4, .alibi = constant(f, NN_SHAPE(4)), .causal = 1)
CASE(attention, strided)
{
    nn_tensor *x = var(f, 2, 7, 3, 2, 4), *p[3];                     /* one projection: (B, T, qkv, heads, D) */
    for (int i = 0; i < 3; i++) p[i] = nn_transpose(nn_select(x, 2, i), 1, 2);
    return nn_scaled_dot_product_attention(p[0], p[1], p[2], &(AD){ .causal = 1 });
}
CASE(attention, turned)        { nn_tensor *q = var(f, 2, 2, 4, 5), *k = var(f, 2, 2, 4, 6), *v = var(f, 2, 2, 3, 6);
                                 return nn_scaled_dot_product_attention(nn_transpose(q, 2, 3), nn_transpose(k, 2, 3), nn_transpose(v, 2, 3), NULL); }
CASE(attention, turned_vectors) { nn_tensor *q = var(f, 1, 2, 16, 5), *k = var(f, 1, 2, 16, 18), *v = var(f, 1, 2, 16, 18);
                                 return nn_scaled_dot_product_attention(nn_transpose(q, 2, 3), nn_transpose(k, 2, 3), nn_transpose(v, 2, 3), NULL); }
CASE(attention, shared)        { nn_tensor *q = var(f, 1, 2, 4, 5), *k = var(f, 1, 1, 4, 5); return nn_scaled_dot_product_attention(q, k, k, NULL); }
CASE(attention, itself)        { nn_tensor *x = var(f, 1, 2, 6, 3); return nn_add(x, nn_scaled_dot_product_attention(x, x, nn_mul(x, x), &(AD){ .causal = 1 })); }
CASE(attention, only_q)        { nn_tensor *k = constant(f, NN_SHAPE(1, 2, 4, 5)); return nn_scaled_dot_product_attention(var(f, 1, 2, 4, 5), k, k, NULL); }
CASE(attention, only_v)        { nn_tensor *k = constant(f, NN_SHAPE(9, 1, 4, 5)); return nn_scaled_dot_product_attention(k, k, var(f, 9, 1, 4, 5), NULL); }
CASE(attention, heads_last)    { nn_tensor *q = var(f, 2, 5, 12), *k = var(f, 2, 7, 6), *v = var(f, 2, 7, 8); return nn_attention(q, k, v, &(AD){ .heads = 4, .kv_heads = 2 }); }
CASE(attention, packed)        { return nn_attention(var(f, 2, 9, 3 * 8), NULL, NULL, &(AD){ .heads = 2, .causal = 1 }); }
CASE(attention, packed_group)  { return nn_attention(var(f, 9, 5, 8 * 3), NULL, NULL, &(AD){ .heads = 4, .kv_heads = 2, .causal = 1 }); }
CASE(attention, packed_long)   { return nn_attention(var(f, 1, 130, 3 * 2), NULL, NULL, &(AD){ .causal = 1 }); }
CASE(attention, packed_twice)  { nn_tensor *x = var(f, 1, 5, 6), *y = nn_attention(x, NULL, NULL, NULL); return nn_attention(nn_concat((nn_tensor *[]){ y, x }, 2, 2), y, y, &(AD){ .heads = 4, .kv_heads = 1 }); }
CASE(attention_dropout, half)  qkv(2, 2, 2, 5, 7, 4, 6, .dropout = 0.5f)
CASE(attention_dropout, group) qkv(1, 4, 2, 37, 70, 3, 3, .dropout = 0.2f, .causal = 1)
CASE(attention_dropout, all)   qkv(1, 2, 2, 3, 4, 3, 3, .dropout = 1.0f)

static nn_tensor *table(fixture *f, int64_t positions, int64_t size)    /* cosines and sines for this step */
{
    double v[4096];
    nn_tensor *t;
    for (int64_t i = 0; i < positions * size; i++) v[i] = nn__rope_value(i / size, i % size, (double)size, 100);
    t = nn__alloc_tensor(f->nn, 0, f->nn->desc.dtype, 2, (int64_t[]){ positions, size });
    nn_write_as(t, NN_F64, v);
    return t;
}
typedef nn_rope_desc RD;
CASE(rope, half)               { return nn_rope(var(f, 2, 3, 5, 8), table(f, 7, 8), NULL); }
CASE(rope, interleaved)        { return nn_rope(var(f, 2, 3, 5, 10), table(f, 7, 10), &(RD){ .interleaved = 1, .start = 2 }); }
CASE(rope, wide)               { return nn_rope(var(f, 3, 70), table(f, 3, 70), NULL); }
CASE(rope, wide_interleaved)   { return nn_rope(var(f, 3, 74), table(f, 3, 70), &(RD){ .interleaved = 1 }); }
CASE(rope, part)               { return nn_rope(var(f, 2, 5, 9), table(f, 5, 4), NULL); }
CASE(rope, packed)             { return nn_rope(var(f, 2, 5, 4, 6), table(f, 9, 6), &(RD){ .time_dim = 1, .heads = 3, .start = 4 }); }
CASE(rope, strided)            { return nn_rope(nn_transpose(var(f, 2, 5, 3, 6), 1, 2), table(f, 5, 6), NULL); }
CASE(rope, again)              { nn_tensor *x = var(f, 2, 5, 6), *t = table(f, 5, 4); return nn_add(nn_rope(x, t, NULL), nn_rope(x, t, &(RD){ .interleaved = 1 })); }
CASE(rope, empty)              { return nn_rope(var(f, 0, 5, 6), table(f, 5, 6), NULL); }
