/* cases_norm.h - batchnorm, layernorm, groupnorm, instancenorm, rmsnorm, dropout (see test_ops.c) */
static nn_tensor *running(fixture *f, int64_t n, float first)     /* statistics: not variables */
{
    nn_tensor *t = nn_zeros(f->nn, NN_SHAPE(n));
    float v[64];
    for (int64_t i = 0; i < n; i++) v[i] = first + 0.1f * (float)(i % 7);
    nn_write(t, v);
    return t;
}
static nn_tensor *frozen(nn_tensor *t) { nn_freeze_param(t, 1); return t; }

CASE(batchnorm, image)         { nn_tensor *x = var(f, 3, 4, 5, 7), *w = var(f, 4), *b = var(f, 4); return nn_batchnorm(x, w, b, running(f, 4, 0.1f), running(f, 4, 0.8f), NULL); }
CASE(batchnorm, signal)        { nn_tensor *x = var(f, 2, 5, 3), *w = var(f, 5), *b = var(f, 5); return nn_batchnorm(x, w, b, NULL, NULL, &(nn_batchnorm_desc){ .eps = 0.1f }); }
CASE(batchnorm, rows)          { nn_tensor *x = var(f, 9, 5), *w = var(f, 5), *b = var(f, 5); return nn_batchnorm(x, w, b, running(f, 5, 0.1f), running(f, 5, 0.8f), NULL); }
CASE(batchnorm, wide_rows)     { nn_tensor *x = var(f, 5, 83), *w = var(f, 83), *b = var(f, 83); return nn_batchnorm(x, w, b, NULL, NULL, NULL); }
CASE(batchnorm, tall)          { nn_tensor *x = var(f, 300, 3), *w = var(f, 3), *b = var(f, 3); return nn_batchnorm(x, w, b, NULL, NULL, NULL); }
CASE(batchnorm, tall_signal)   { nn_tensor *x = var(f, 270, 1, 2), *w = var(f, 1), *b = var(f, 1); return nn_batchnorm(x, w, b, NULL, NULL, NULL); }
CASE(batchnorm, plain)         { return nn_batchnorm(var(f, 3, 4, 17), NULL, NULL, NULL, NULL, NULL); }
CASE(batchnorm, plain_rows)    { return nn_batchnorm(var(f, 6, 4), NULL, NULL, NULL, NULL, NULL); }
CASE(batchnorm, weight_only)   { nn_tensor *x = var(f, 3, 4, 6), *w = var(f, 4); return nn_batchnorm(x, w, NULL, NULL, NULL, NULL); }
CASE(batchnorm, bias_only)     { nn_tensor *x = var(f, 3, 4, 6), *b = var(f, 4); return nn_batchnorm(x, NULL, b, NULL, NULL, NULL); }
CASE(batchnorm, one_sample)    { nn_tensor *x = var(f, 1, 2, 2, 1), *w = var(f, 2); return nn_batchnorm(x, w, NULL, NULL, NULL, &(nn_batchnorm_desc){ .eps = 0.5f }); }
CASE(batchnorm, frozen)        { nn_tensor *x = var(f, 3, 4, 5), *w = var(f, 4), *b = var(f, 4); return nn_batchnorm(x, w, b, frozen(running(f, 4, 0.1f)), running(f, 4, 0.8f), NULL); }
CASE(batchnorm, frozen_rows)   { nn_tensor *x = var(f, 3, 21), *w = var(f, 21), *b = var(f, 21); return nn_batchnorm(x, w, b, frozen(running(f, 21, 0.1f)), running(f, 21, 0.8f), NULL); }
CASE(batchnorm, frozen_single) { nn_tensor *x = var(f, 1, 3), *w = var(f, 3), *b = var(f, 3); return nn_batchnorm(x, w, b, frozen(running(f, 3, 0.1f)), running(f, 3, 0.8f), NULL); }
CASE(batchnorm, frozen_plain)  { return nn_batchnorm(var(f, 3, 4, 2), NULL, NULL, frozen(running(f, 4, 0.1f)), running(f, 4, 0.8f), NULL); }
CASE(batchnorm, strided)       { nn_tensor *x = var(f, 7, 4, 6), *w = var(f, 8); return nn_batchnorm(nn_transpose(nn_slice(x, 0, 0, 6, 2), 0, 1), nn_slice(w, 0, 1, 4, 1), NULL, NULL, NULL, NULL); }
CASE(batchnorm, twice)         { nn_tensor *x = var(f, 4, 3, 5), *w = var(f, 3); return nn_add(x, nn_batchnorm(nn_batchnorm(x, w, w, NULL, NULL, NULL), w, NULL, NULL, NULL, NULL)); }
CASE(batchnorm, empty)         { nn_tensor *x = var(f, 0, 4, 5), *w = var(f, 4), *b = var(f, 4); return nn_batchnorm(x, w, b, running(f, 4, 0.1f), running(f, 4, 0.8f), NULL); }
CASE(batchnorm, empty_rows)    { nn_tensor *x = var(f, 0, 4), *w = var(f, 4); return nn_batchnorm(x, w, NULL, NULL, NULL, NULL); }
CASE(batchnorm, empty_image)   { nn_tensor *x = var(f, 2, 4, 0), *w = var(f, 4); return nn_batchnorm(x, w, NULL, NULL, NULL, NULL); }
CASE(batchnorm, no_channels)   { nn_tensor *x = var(f, 2, 0, 3), *w = var(f, 0); return nn_batchnorm(x, w, NULL, NULL, NULL, NULL); }
CASE_NO_GRAD(batchnorm, eval)   { nn_tensor *x = var(f, 3, 4, 5), *w = var(f, 4), *y; nn_push(f->nn, NN_EVAL); y = nn_batchnorm(x, w, NULL, running(f, 4, 0.1f), running(f, 4, 0.8f), NULL); nn_pop(f->nn); return y; }

CASE(layernorm, last)          { nn_tensor *x = var(f, 5, 37), *w = var(f, 37), *b = var(f, 37); return nn_layernorm(x, 1, w, b, NULL); }
CASE(layernorm, sequence)      { nn_tensor *x = var(f, 2, 3, 16), *w = var(f, 16), *b = var(f, 16); return nn_layernorm(x, 1, w, b, &(nn_layernorm_desc){ .eps = 0.01f }); }
CASE(layernorm, two_dims)      { nn_tensor *x = var(f, 4, 3, 7), *w = var(f, 3, 7), *b = var(f, 3, 7); return nn_layernorm(x, 2, w, b, NULL); }
CASE(layernorm, all_dims)      { nn_tensor *x = var(f, 4, 5), *w = var(f, 4, 5), *b = var(f, 4, 5); return nn_layernorm(x, 2, w, b, NULL); }
CASE(layernorm, plain)         { return nn_layernorm(var(f, 4, 19), 1, NULL, NULL, NULL); }
CASE(layernorm, weight_only)   { nn_tensor *x = var(f, 4, 9), *w = var(f, 9); return nn_layernorm(x, 1, w, NULL, NULL); }
CASE(layernorm, bias_only)     { nn_tensor *x = var(f, 4, 9), *b = var(f, 9); return nn_layernorm(x, 1, NULL, b, NULL); }
CASE(layernorm, wide)          { nn_tensor *x = var(f, 2, 133), *w = var(f, 133), *b = var(f, 133); return nn_layernorm(x, 1, w, b, NULL); }
CASE(layernorm, tall)          { nn_tensor *x = var(f, 290, 3), *w = var(f, 3), *b = var(f, 3); return nn_layernorm(x, 1, w, b, NULL); }
CASE(layernorm, long_row)      { return nn_slice(nn_layernorm(var(f, 1, 4090), 1, NULL, NULL, NULL), 1, 0, 4090, 100); }
CASE(layernorm, vector)        { nn_tensor *x = var(f, 6), *w = var(f, 6); return nn_layernorm(x, 1, w, NULL, NULL); }
CASE(layernorm, one_number)    { nn_tensor *x = var(f, 3, 1), *w = var(f, 1), *b = var(f, 1); return nn_add(x, nn_layernorm(x, 1, w, b, &(nn_layernorm_desc){ .eps = 0.5f })); }
CASE(layernorm, strided)       { nn_tensor *x = var(f, 6, 5), *w = var(f, 12); return nn_layernorm(nn_transpose(x, 0, 1), 1, nn_slice(w, 0, 0, 12, 2), NULL, NULL); }
CASE(layernorm, twice)         { nn_tensor *x = var(f, 3, 6), *w = var(f, 6); return nn_mul(x, nn_layernorm(nn_layernorm(x, 1, w, NULL, NULL), 1, w, w, NULL)); }
CASE(layernorm, no_rows)       { nn_tensor *x = var(f, 0, 6), *w = var(f, 6), *b = var(f, 6); return nn_layernorm(x, 1, w, b, NULL); }
CASE(layernorm, no_columns)    { nn_tensor *x = var(f, 3, 0), *w = var(f, 0); return nn_layernorm(x, 1, w, NULL, NULL); }

CASE(groupnorm, image)         { nn_tensor *x = var(f, 2, 6, 3, 5), *w = var(f, 6), *b = var(f, 6); return nn_groupnorm(x, 3, w, b, NULL); }
CASE(groupnorm, one_group)     { nn_tensor *x = var(f, 2, 4, 7), *w = var(f, 4), *b = var(f, 4); return nn_groupnorm(x, 1, w, b, NULL); }
CASE(groupnorm, rows)          { nn_tensor *x = var(f, 3, 12), *w = var(f, 12), *b = var(f, 12); return nn_groupnorm(x, 4, w, b, NULL); }
CASE(groupnorm, wide_rows)     { nn_tensor *x = var(f, 2, 138), *w = var(f, 138), *b = var(f, 138); return nn_groupnorm(x, 2, w, b, NULL); }
CASE(groupnorm, plain)         { return nn_groupnorm(var(f, 3, 4, 6), 2, NULL, NULL, NULL); }
CASE(groupnorm, weight_only)   { nn_tensor *x = var(f, 3, 4, 6), *w = var(f, 4); return nn_groupnorm(x, 2, w, NULL, &(nn_groupnorm_desc){ .eps = 0.3f }); }
CASE(groupnorm, bias_only)     { nn_tensor *x = var(f, 3, 4, 6), *b = var(f, 4); return nn_groupnorm(x, 2, NULL, b, NULL); }
CASE(groupnorm, strided)       { nn_tensor *x = var(f, 4, 3, 5), *w = var(f, 4); return nn_groupnorm(nn_transpose(x, 0, 1), 2, w, NULL, NULL); }
CASE(groupnorm, tall)          { nn_tensor *x = var(f, 140, 2, 3), *w = var(f, 2), *b = var(f, 2); return nn_groupnorm(x, 2, w, b, NULL); }
CASE(groupnorm, empty)         { nn_tensor *x = var(f, 0, 4, 5), *w = var(f, 4), *b = var(f, 4); return nn_groupnorm(x, 2, w, b, NULL); }
CASE(groupnorm, empty_image)   { nn_tensor *x = var(f, 2, 4, 0), *w = var(f, 4), *b = var(f, 4); return nn_groupnorm(x, 2, w, b, NULL); }
CASE(groupnorm, instance)      { nn_tensor *x = var(f, 2, 3, 4, 5), *w = var(f, 3), *b = var(f, 3); return nn_instancenorm(x, w, b, NULL); }
CASE(groupnorm, instance_plain) { return nn_instancenorm(var(f, 2, 3, 33), NULL, NULL, NULL); }

CASE(rmsnorm, last)            { nn_tensor *x = var(f, 5, 37), *w = var(f, 37); return nn_rmsnorm(x, w, NULL); }
CASE(rmsnorm, sequence)        { nn_tensor *x = var(f, 2, 3, 16), *w = var(f, 16); return nn_rmsnorm(x, w, &(nn_rmsnorm_desc){ .eps = 0.1f }); }
CASE(rmsnorm, plain)           { return nn_rmsnorm(var(f, 3, 50), NULL, NULL); }
CASE(rmsnorm, wide)            { nn_tensor *x = var(f, 3, 131), *w = var(f, 131); return nn_rmsnorm(x, w, NULL); }
CASE(rmsnorm, strided)         { nn_tensor *x = var(f, 6, 5), *w = var(f, 6); return nn_rmsnorm(nn_transpose(x, 0, 1), w, NULL); }
CASE(rmsnorm, itself)          { nn_tensor *x = var(f, 7); return nn_mul(x, nn_rmsnorm(x, x, NULL)); }
CASE(rmsnorm, no_rows)         { nn_tensor *x = var(f, 0, 6), *w = var(f, 6); return nn_rmsnorm(x, w, NULL); }

/* y = norm(x + r) and the sum s: both used, only one; the sum is worth less, so that mixing them up shows */
static nn_tensor *both(nn_tensor *y, nn_tensor *s) { return nn_sub(y, nn_mul_scalar(s, 0.7f)); }
static nn_tensor *fixed(fixture *f, nn_shape s) { return nn_reshape(nn_sin(nn_arange(f->nn, 0, (float)(s.d[0] * (s.ndim > 1 ? s.d[1] : 1)), 1)), s); }     /* wants no gradient */
CASE(add_layernorm, both)       { nn_tensor *x = var(f, 5, 37), *r = var(f, 5, 37), *w = var(f, 37), *b = var(f, 37), *s, *y = nn_add_layernorm(x, r, 1, w, b, &s, NULL); return both(y, s); }
CASE(add_layernorm, norm_only)  { nn_tensor *x = var(f, 2, 3, 16), *r = var(f, 2, 3, 16), *w = var(f, 16); return nn_add_layernorm(x, r, 1, w, var(f, 16), NULL, NULL); }
CASE(add_layernorm, sum_only)   { nn_tensor *x = var(f, 3, 9), *r = var(f, 3, 9), *s; nn_add_layernorm(x, r, 1, NULL, NULL, &s, NULL); return s; }
CASE(add_layernorm, two_dims)   { nn_tensor *x = var(f, 4, 3, 7), *r = var(f, 4, 3, 7), *w = var(f, 3, 7), *b = var(f, 3, 7), *s, *y = nn_add_layernorm(x, r, 2, w, b, &s, NULL); return both(y, s); }
CASE(add_layernorm, plain)      { nn_tensor *x = var(f, 4, 19), *s, *y = nn_add_layernorm(x, var(f, 4, 19), 1, NULL, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, bias_only)  { nn_tensor *x = var(f, 4, 9), *r = var(f, 4, 9); return nn_add_layernorm(x, r, 1, NULL, var(f, 9), NULL, &(nn_layernorm_desc){ .eps = 0.01f }); }
CASE(add_layernorm, wide)       { nn_tensor *x = var(f, 2, 133), *r = var(f, 2, 133), *w = var(f, 133), *s, *y = nn_add_layernorm(x, r, 1, w, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, tall)       { nn_tensor *x = var(f, 290, 3), *r = var(f, 290, 3), *w = var(f, 3), *b = var(f, 3), *s, *y = nn_add_layernorm(x, r, 1, w, b, &s, NULL); return both(y, s); }
CASE(add_layernorm, vector)     { nn_tensor *x = var(f, 6), *r = var(f, 6); return nn_add_layernorm(x, r, 1, var(f, 6), NULL, NULL, NULL); }
CASE(add_layernorm, one_number) { nn_tensor *x = var(f, 3, 1), *r = var(f, 3, 1), *s, *y = nn_add_layernorm(x, r, 1, NULL, NULL, &s, &(nn_layernorm_desc){ .eps = 0.5f }); return both(y, s); }
CASE(add_layernorm, strided)    { nn_tensor *x = nn_transpose(var(f, 6, 5), 0, 1), *r = nn_slice(var(f, 5, 12), 1, 0, 12, 2), *s, *y = nn_add_layernorm(x, r, 1, NULL, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, itself)     { nn_tensor *x = var(f, 3, 6), *s, *y = nn_add_layernorm(x, x, 1, NULL, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, more_of_x)  { nn_tensor *x = var(f, 3, 6), *r = var(f, 3, 6), *y = nn_add_layernorm(x, r, 1, NULL, NULL, NULL, NULL); return nn_mul(x, y); }
CASE(add_layernorm, more_of_r)  { nn_tensor *x = var(f, 3, 6), *r = var(f, 3, 6), *s, *y = nn_add_layernorm(x, r, 1, NULL, NULL, &s, NULL); return nn_mul(r, both(y, s)); }
CASE(add_layernorm, more_of_both) { nn_tensor *x = var(f, 3, 6), *r = var(f, 3, 6), *w = var(f, 6), *s, *y = nn_add_layernorm(x, r, 1, w, w, &s, NULL); return nn_mul(nn_mul(x, r), both(y, s)); }
CASE(add_layernorm, fixed_x)    { nn_tensor *x = fixed(f, NN_SHAPE(3, 6)), *r = var(f, 3, 6), *w = var(f, 6), *s, *y = nn_add_layernorm(x, r, 1, w, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, fixed_r)    { nn_tensor *x = var(f, 3, 6), *r = fixed(f, NN_SHAPE(3, 6)), *s, *y = nn_add_layernorm(x, r, 1, NULL, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, fixed_both) { nn_tensor *x = fixed(f, NN_SHAPE(3, 6)), *r = fixed(f, NN_SHAPE(3, 6)), *w = var(f, 6), *b = var(f, 6); return nn_add_layernorm(x, r, 1, w, b, NULL, NULL); }
CASE(add_layernorm, fixed_row)  { nn_tensor *x = var(f, 21), *r = fixed(f, NN_SHAPE(21)), *w = var(f, 21), *s, *y = nn_add_layernorm(x, r, 1, w, NULL, &s, NULL); return both(y, s); }
CASE(add_layernorm, stream)                              /* two parts on a stream: the gradient of a sum is what the next one gives, and its memory that of dr */
{
    nn_tensor *x = var(f, 3, 13), *w = var(f, 13), *b = var(f, 13), *y = nn_add_layernorm(x, nn_sin(x), 1, w, b, &x, NULL);
    y = nn_add_layernorm(x, nn_tanh(y), 1, w, b, &x, NULL);
    return both(nn_add_layernorm(x, nn_exp(y), 1, w, b, &x, NULL), x);
}
CASE(add_layernorm, no_rows)    { nn_tensor *x = var(f, 0, 6), *r = var(f, 0, 6), *w = var(f, 6), *b = var(f, 6), *s, *y = nn_add_layernorm(x, r, 1, w, b, &s, NULL); return both(y, s); }
CASE(add_layernorm, no_columns) { nn_tensor *x = var(f, 3, 0), *r = var(f, 3, 0), *w = var(f, 0), *s, *y = nn_add_layernorm(x, r, 1, w, NULL, &s, NULL); return both(y, s); }

CASE(add_rmsnorm, both)         { nn_tensor *x = var(f, 5, 37), *r = var(f, 5, 37), *w = var(f, 37), *s, *y = nn_add_rmsnorm(x, r, w, &s, NULL); return both(y, s); }
CASE(add_rmsnorm, norm_only)    { nn_tensor *x = var(f, 2, 3, 16), *r = var(f, 2, 3, 16); return nn_add_rmsnorm(x, r, var(f, 16), NULL, &(nn_rmsnorm_desc){ .eps = 0.1f }); }
CASE(add_rmsnorm, sum_only)     { nn_tensor *x = var(f, 3, 9), *r = var(f, 3, 9), *s; nn_add_rmsnorm(x, r, NULL, &s, NULL); return s; }
CASE(add_rmsnorm, plain)        { nn_tensor *x = var(f, 3, 50), *s, *y = nn_add_rmsnorm(x, var(f, 3, 50), NULL, &s, NULL); return both(y, s); }
CASE(add_rmsnorm, wide)         { nn_tensor *x = var(f, 3, 131), *r = var(f, 3, 131); return nn_add_rmsnorm(x, r, var(f, 131), NULL, NULL); }
CASE(add_rmsnorm, strided)      { nn_tensor *x = var(f, 6, 5), *r = var(f, 5, 6), *s, *y = nn_add_rmsnorm(nn_transpose(x, 0, 1), r, var(f, 6), &s, NULL); return both(y, s); }
CASE(add_rmsnorm, itself)       { nn_tensor *x = var(f, 7); return nn_mul(x, nn_add_rmsnorm(x, x, x, NULL, NULL)); }
CASE(add_rmsnorm, more_of_both) { nn_tensor *x = var(f, 3, 6), *r = var(f, 3, 6), *s, *y = nn_add_rmsnorm(x, r, NULL, &s, NULL); return nn_mul(nn_mul(x, r), both(y, s)); }
CASE(add_rmsnorm, no_rows)      { nn_tensor *x = var(f, 0, 6), *r = var(f, 0, 6), *s, *y = nn_add_rmsnorm(x, r, var(f, 6), &s, NULL); return both(y, s); }

CASE(dropout, half)            { return nn_dropout(var(f, 5, 37), 0.5f); }
CASE(dropout, little)          { return nn_mul(nn_dropout(var(f, 67), 0.1f), nn_dropout(var(f, 67), 0.3f)); }
CASE(dropout, all)             { return nn_dropout(var(f, 9), 1.0f); }
CASE(dropout, strided)         { nn_tensor *x = var(f, 5, 7); return nn_add(x, nn_dropout(nn_transpose(nn_transpose(x, 0, 1), 0, 1), 0.4f)); }
CASE(dropout, transposed)      { return nn_dropout(nn_transpose(var(f, 5, 7), 0, 1), 0.4f); }
CASE(dropout, channels)        { return nn_dropout2d(var(f, 3, 5, 2, 3), 0.5f); }
CASE(dropout, channels_rows)   { return nn_dropout2d(var(f, 3, 5), 0.5f); }
CASE(dropout, empty)           { return nn_dropout(var(f, 3, 0), 0.5f); }
CASE(dropout, empty_channels)  { return nn_dropout2d(var(f, 3, 2, 0), 0.5f); }
CASE(dropout, scalar)          { return nn_dropout(var_scalar(f), 0.5f); }
