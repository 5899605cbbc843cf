/* cases_loss.h - gradients of every loss with every option (see test_ops.c) */
static nn_tensor *make_fixed(fixture *f, double low, double high, nn_shape shape)   /* a constant */
{
    nn_tensor *t = nn__alloc_tensor(f->nn, 0, f->nn->desc.dtype, shape.ndim, shape.d);
    double v[256];
    for (int64_t i = 0; i < nn_count(t); i++) v[i] = (float)(low + (high - low) * nn__uniform_at(3, 7, 1, (uint64_t)i));
    nn_write_as(t, NN_F64, v);
    return t;
}
#define fixed(f, low, high, ...) make_fixed(f, low, high, NN_SHAPE(__VA_ARGS__))
#define LOSS(...) (&(nn_loss_desc){ __VA_ARGS__ })
#define PAIR_CASES(op)                                                                                                                      \
    CASE(op, mean)     { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_##op(x, t, NULL); }                                      \
    CASE(op, sum)      { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_##op(x, t, LOSS(.reduction = NN_SUM)); }                 \
    CASE(op, none)     { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_##op(x, t, LOSS(.reduction = NN_NONE)); }                \
    CASE(op, strided)  { nn_tensor *x = var(f, 7, 5), *t = var(f, 5, 14); return nn_##op(nn_transpose(x, 0, 1), nn_slice(t, 1, 0, 14, 2), NULL); } \
    CASE(op, itself)   { nn_tensor *x = var(f, 5, 7); return nn_##op(x, nn_mul_scalar(x, 0.5f), NULL); }                                    \
    CASE(op, twice)    { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_add(nn_##op(x, t, NULL), nn_##op(x, t, LOSS(.reduction = NN_NONE))); } \
    CASE(op, one)      { nn_tensor *x = var_scalar(f), *t = var_scalar(f); return nn_##op(x, t, NULL); }                                    \
    CASE(op, blocks)   { nn_tensor *x = var_in(f, -3, 3, 11, 47), *t = var(f, 11, 47); return nn_##op(x, t, LOSS(.reduction = NN_SUM)); }   \
    CASE(op, detached) { nn_tensor *x = var(f, 5, 7), *t = fixed(f, -1.5, 1.5, 5, 7); return nn_##op(x, t, NULL); }                           \
    CASE(op, empty)    { nn_tensor *x = var(f, 0, 7), *t = var(f, 0, 7); return nn_##op(x, t, LOSS(.reduction = NN_SUM)); }                 \
    CASE(op, empty_none) { nn_tensor *x = var(f, 0, 7), *t = var(f, 0, 7); return nn_##op(x, t, LOSS(.reduction = NN_NONE)); }
PAIR_CASES(mse)
PAIR_CASES(l1)
PAIR_CASES(huber)
PAIR_CASES(smooth_l1)
PAIR_CASES(hinge)
PAIR_CASES(binary_cross_entropy)
CASE(mse, chunks)       { nn_tensor *x = var(f, 2, 4, 512), *t = nn_mul_scalar(x, 0.5f); nn_tensor *big = nn_expand(x, NN_SHAPE(3, 2, 4, 512)); return nn_mse(big, nn_expand(t, NN_SHAPE(3, 2, 4, 512)), NULL); }
CASE(huber, delta)      { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_huber(x, t, LOSS(.delta = 0.4f)); }
CASE(huber, delta_none) { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_huber(x, t, LOSS(.delta = 2.5f, .reduction = NN_NONE)); }
CASE(smooth_l1, beta)   { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_smooth_l1(x, t, LOSS(.delta = 0.4f)); }
CASE(smooth_l1, zero)   { nn_tensor *x = var(f, 5, 7), *t = var(f, 5, 7); return nn_smooth_l1(x, t, LOSS(.delta = NN_ZERO)); }
CASE(hinge, margin)     { nn_tensor *x = var(f, 5, 7), *t = nn_sign(fixed(f, -1.5, 1.5, 5, 7)); return nn_hinge(x, t, LOSS(.margin = 0.5f)); }
CASE(hinge, no_margin)  { nn_tensor *x = var(f, 5, 7), *t = nn_sign(fixed(f, -1.5, 1.5, 5, 7)); return nn_hinge(x, t, LOSS(.margin = NN_ZERO, .reduction = NN_NONE)); }
CASE(binary_cross_entropy, weight)     { nn_tensor *x = var(f, 5, 7), *t = var_in(f, 0, 1, 5, 7), *w = fixed(f, 0, 2, 7); return nn_binary_cross_entropy(x, t, LOSS(.weight = w)); }
CASE(binary_cross_entropy, rows)       { nn_tensor *x = var(f, 5, 7), *t = var_in(f, 0, 1, 5, 7), *w = fixed(f, 0, 2, 5, 1); return nn_binary_cross_entropy(x, t, LOSS(.weight = w, .reduction = NN_NONE)); }
CASE(binary_cross_entropy, pos_weight) { nn_tensor *x = var(f, 5, 7), *t = var_in(f, 0, 1, 5, 7), *w = fixed(f, 0, 3, 7); return nn_binary_cross_entropy(x, t, LOSS(.pos_weight = w)); }
CASE(binary_cross_entropy, both)       { nn_tensor *x = var_in(f, -9, 9, 5, 7), *t = var_in(f, 0, 1, 5, 7), *w = fixed(f, 0, 3, 5, 7); return nn_binary_cross_entropy(x, t, LOSS(.weight = w, .pos_weight = w, .reduction = NN_SUM)); }

/* cross_entropy: classes */
CASE(cross_entropy, mean)      { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), NULL); }
CASE(cross_entropy, sum)       { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.reduction = NN_SUM)); }
CASE(cross_entropy, none)      { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.reduction = NN_NONE)); }
CASE(cross_entropy, wide)      { return nn_cross_entropy(var_in(f, -6, 6, 3, 601), ints(f, NN_SHAPE(3), 600, 0, 255), LOSS(.label_smoothing = 0.1f)); }
CASE(cross_entropy, int32)     { return nn_cross_entropy(var(f, 3, 5), nn_from_as(f->nn, NN_I32, NN_SHAPE(3), (int32_t[]){ 4, 0, 1 }), NULL); }
CASE(cross_entropy, vector)    { return nn_cross_entropy(var(f, 5), ints(f, NN_SCALAR, 3), NULL); }
CASE(cross_entropy, weight)    { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.weight = fixed(f, 0, 2, 5))); }
CASE(cross_entropy, weight_none) { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.weight = fixed(f, 0, 2, 5), .reduction = NN_NONE)); }
CASE(cross_entropy, smooth)    { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.label_smoothing = 0.2f)); }
CASE(cross_entropy, smooth_weight) { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, -100, 2), LOSS(.label_smoothing = 0.2f, .weight = fixed(f, 0, 2, 5))); }
CASE(cross_entropy, smooth_all) { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.label_smoothing = 1, .reduction = NN_SUM)); }
CASE(cross_entropy, ignore)    { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), -100, 4, 2, -100), NULL); }
CASE(cross_entropy, ignore_0)  { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 0, 2), LOSS(.ignore_index = NN_ZERO)); }
CASE(cross_entropy, ignore_3)  { return nn_cross_entropy(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 3, 1, 2), LOSS(.ignore_index = 3, .reduction = NN_NONE)); }
CASE(cross_entropy, columns)   { return nn_cross_entropy(var(f, 2, 3, 5), ints(f, NN_SHAPE(2, 5), 0, 1, 2, 0, 1, 2, 0, -100, 2, 0), NULL); }
CASE(cross_entropy, image)     { return nn_cross_entropy(var(f, 2, 3, 2, 2), ints(f, NN_SHAPE(2, 2, 2), 0, 1, 2, 0, 1, 2, 0, 1), LOSS(.reduction = NN_NONE)); }
CASE(cross_entropy, image_all) { return nn_cross_entropy(var(f, 2, 3, 2, 2), ints(f, NN_SHAPE(2, 2, 2), 0, 1, 2, 0, -100, 2, 0, 1), LOSS(.label_smoothing = 0.3f, .weight = fixed(f, 0, 2, 3))); }
CASE(cross_entropy, tiles)     { nn_tensor *y = nn_contiguous(nn_expand(ints(f, NN_SHAPE(1, 1), 1), NN_SHAPE(2, 131))); return nn_cross_entropy(var(f, 2, 3, 131), y, LOSS(.label_smoothing = 0.1f)); }
CASE(cross_entropy, column)    { return nn_cross_entropy(var(f, 2, 3, 1), ints(f, NN_SHAPE(2, 1), 2, 0), NULL); }
CASE(cross_entropy, strided)   { return nn_cross_entropy(nn_transpose(var(f, 2, 5, 3), 1, 2), ints(f, NN_SHAPE(2, 5), 0, 1, 2, 0, 1, 2, 0, 1, 2, 0), NULL); }
CASE(cross_entropy, twice)     { nn_tensor *x = var(f, 4, 5), *y = ints(f, NN_SHAPE(4), 0, 4, 2, 2); return nn_add(nn_cross_entropy(x, y, NULL), nn_cross_entropy(x, y, LOSS(.reduction = NN_NONE))); }
CASE(cross_entropy, columns_twice) { nn_tensor *x = var(f, 2, 3, 2), *y = ints(f, NN_SHAPE(2, 2), 0, 1, 2, 0); return nn_add(nn_cross_entropy(x, y, NULL), nn_cross_entropy(x, y, LOSS(.reduction = NN_NONE))); }
CASE(cross_entropy, none_left) { return nn_cross_entropy(var(f, 0, 5), ints(f, NN_SHAPE(0), 0), LOSS(.reduction = NN_SUM)); }
CASE(cross_entropy, no_pixels) { return nn_cross_entropy(var(f, 2, 5, 0), ints(f, NN_SHAPE(2, 0), 0), LOSS(.reduction = NN_NONE)); }
CASE(cross_entropy, one_class) { return nn_cross_entropy(var(f, 3, 1), ints(f, NN_SHAPE(3), 0, 0, 0), NULL); }
CASE(cross_entropy, large)     { return nn_cross_entropy(nn_add_scalar(var(f, 3, 4), 1000.0f), ints(f, NN_SHAPE(3), 0, 3, 1), LOSS(.reduction = NN_NONE)); }
/* cross_entropy: probabilities, with and without a gradient of their own */
CASE(cross_entropy, soft)        { nn_tensor *x = var(f, 4, 5), *t = var_in(f, 0, 1, 4, 5); return nn_cross_entropy(x, t, NULL); }
CASE(cross_entropy, soft_sum)    { nn_tensor *x = var(f, 4, 5), *t = fixed(f, 0, 1, 4, 5); return nn_cross_entropy(x, t, LOSS(.reduction = NN_SUM)); }
CASE(cross_entropy, soft_none)   { nn_tensor *x = var(f, 4, 5), *t = var_in(f, 0, 1, 4, 5); return nn_cross_entropy(x, t, LOSS(.reduction = NN_NONE)); }
CASE(cross_entropy, soft_wide)   { nn_tensor *x = var(f, 2, 300), *t = var_in(f, 0, 0.01, 2, 300); return nn_cross_entropy(x, t, LOSS(.label_smoothing = 0.1f)); }
CASE(cross_entropy, soft_smooth) { nn_tensor *x = var(f, 4, 5), *t = var_in(f, 0, 1, 4, 5); return nn_cross_entropy(x, t, LOSS(.label_smoothing = 0.3f, .weight = fixed(f, 0, 2, 5))); }
CASE(cross_entropy, soft_image)  { nn_tensor *x = var(f, 2, 3, 7), *t = var_in(f, 0, 1, 2, 3, 7); return nn_cross_entropy(x, t, LOSS(.label_smoothing = 0.3f, .weight = fixed(f, 0, 2, 3))); }
CASE(cross_entropy, soft_pixels) { nn_tensor *x = var(f, 2, 3, 7), *t = var_in(f, 0, 1, 2, 3, 7); return nn_cross_entropy(x, t, LOSS(.reduction = NN_NONE)); }
CASE(cross_entropy, soft_twice)  { nn_tensor *x = var(f, 2, 3), *t = var_in(f, 0, 1, 2, 3); return nn_add(nn_cross_entropy(x, t, NULL), nn_cross_entropy(x, t, LOSS(.reduction = NN_NONE))); }
CASE(cross_entropy, soft_vector) { nn_tensor *x = var(f, 5), *t = var_in(f, 0, 1, 5); return nn_cross_entropy(x, t, NULL); }

CASE(nll, mean)        { return nn_nll(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), NULL); }
CASE(nll, weight)      { return nn_nll(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, -100, 2), LOSS(.weight = fixed(f, 0, 2, 5))); }
CASE(nll, none)        { return nn_nll(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.weight = fixed(f, 0, 2, 5), .reduction = NN_NONE)); }
CASE(nll, image)       { return nn_nll(var(f, 2, 3, 2, 2), ints(f, NN_SHAPE(2, 2, 2), 0, 1, 2, 0, 1, 2, 0, 1), LOSS(.reduction = NN_SUM)); }
CASE(nll, strided)     { return nn_nll(nn_transpose(var(f, 5, 4), 0, 1), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.ignore_index = 2)); }
CASE(nll, none_left)   { return nn_nll(var(f, 0, 5), ints(f, NN_SHAPE(0), 0), LOSS(.reduction = NN_SUM)); }

CASE(multi_margin, mean)   { return nn_hinge(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), NULL); }
CASE(multi_margin, sum)    { return nn_hinge(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.reduction = NN_SUM, .margin = 0.3f)); }
CASE(multi_margin, none)   { return nn_hinge(var(f, 4, 5), ints(f, NN_SHAPE(4), 0, 4, 2, 2), LOSS(.reduction = NN_NONE, .margin = 2)); }
CASE(multi_margin, vector) { return nn_hinge(var(f, 5), ints(f, NN_SCALAR, 1), NULL); }

CASE(kl_div, mean)      { nn_tensor *x = var(f, 4, 5), *t = var(f, 4, 5); return nn_kl_div(x, t, NULL); }
CASE(kl_div, sum)       { nn_tensor *x = var(f, 4, 5), *t = var(f, 4, 5); return nn_kl_div(x, t, LOSS(.reduction = NN_SUM, .temperature = 3)); }
CASE(kl_div, none)      { nn_tensor *x = var(f, 4, 5), *t = var(f, 4, 5); return nn_kl_div(x, t, LOSS(.reduction = NN_NONE, .temperature = 0.7f)); }
CASE(kl_div, detached)  { nn_tensor *x = var(f, 4, 5), *t = fixed(f, -1.5, 1.5, 4, 5); return nn_kl_div(x, t, LOSS(.temperature = 4)); }
CASE(kl_div, wide)      { nn_tensor *x = var(f, 2, 2, 300), *t = var(f, 2, 2, 300); return nn_kl_div(x, t, LOSS(.temperature = 2)); }
CASE(kl_div, twice)     { nn_tensor *x = var(f, 4, 5), *t = var(f, 4, 5); return nn_add(nn_kl_div(x, t, NULL), nn_kl_div(x, t, LOSS(.reduction = NN_NONE))); }
CASE(kl_div, strided)   { nn_tensor *x = var(f, 5, 4), *t = var(f, 4, 5); return nn_kl_div(nn_transpose(x, 0, 1), t, NULL); }
CASE(kl_div, vector)    { nn_tensor *x = var(f, 5), *t = var(f, 5); return nn_kl_div(x, t, NULL); }
CASE(kl_div, empty)     { nn_tensor *x = var(f, 0, 5), *t = var(f, 0, 5); return nn_kl_div(x, t, LOSS(.reduction = NN_SUM)); }

/* composed ones, under the name of an op they use */
CASE(div, cosine_embedding)        { nn_tensor *a = var(f, 4, 5), *b = var(f, 4, 5); return nn_cosine_embedding(a, b, ints(f, NN_SHAPE(4), 1, -1, -1, 1), NULL); }
CASE(div, cosine_embedding_margin) { nn_tensor *a = var(f, 4, 5), *b = var(f, 4, 5); return nn_cosine_embedding(a, b, ints(f, NN_SHAPE(4), 1, -1, -1, 1), LOSS(.margin = 0.3f, .reduction = NN_NONE)); }
CASE(div, cosine_embedding_vector) { nn_tensor *a = var(f, 5), *b = var(f, 5); return nn_cosine_embedding(a, b, nn_scalar(f->nn, 1), NULL); }
CASE(clamp, triplet)               { nn_tensor *a = var(f, 4, 5), *p = var(f, 4, 5), *n = var(f, 4, 5); return nn_triplet_margin(a, p, n, NULL); }
CASE(clamp, triplet_1)             { nn_tensor *a = var(f, 4, 5), *p = var(f, 4, 5), *n = var(f, 4, 5); return nn_triplet_margin(a, p, n, LOSS(.p = 1, .margin = 2, .reduction = NN_SUM)); }
CASE(clamp, triplet_3)             { nn_tensor *a = var(f, 4, 5), *p = var(f, 4, 5), *n = var(f, 4, 5); return nn_triplet_margin(a, p, n, LOSS(.p = 3, .reduction = NN_NONE)); }
CASE(clamp, triplet_inf)           { nn_tensor *a = var(f, 4, 5), *p = var(f, 4, 5), *n = var(f, 4, 5); return nn_triplet_margin(a, p, n, LOSS(.p = INFINITY)); }
CASE(matmul, info_nce)             { nn_tensor *a = var(f, 4, 5), *b = var(f, 4, 5); return nn_info_nce(a, b, NULL); }
CASE(matmul, info_nce_temperature) { nn_tensor *a = var(f, 4, 5), *b = var(f, 4, 5); return nn_info_nce(a, b, LOSS(.temperature = 0.5f, .reduction = NN_NONE)); }
