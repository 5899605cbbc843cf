/* cases_core.h - views, sum and mean, matmul, linear, cast (see test_ops.c) */
CASE(contiguous, transposed)  { return nn_contiguous(nn_transpose(var(f, 3, 5), 0, 1)); }
CASE(contiguous, sliced)      { return nn_contiguous(nn_slice(var(f, 4, 9), 1, 1, 8, 3)); }
CASE(reshape, plain)          { return nn_mul_scalar(nn_reshape(var(f, 3, 4), NN_SHAPE(2, -1)), 2.0f); }
CASE(reshape, of_transposed)  { return nn_reshape(nn_transpose(var(f, 3, 4), 0, 1), NN_SHAPE(6, 2)); }
CASE(reshape, squeeze)        { return nn_squeeze(nn_transpose(var(f, 3, 1, 4), 0, 2), 1); }
CASE(reshape, unsqueeze)      { return nn_unsqueeze(nn_transpose(var(f, 3, 4), 0, 1), -1); }
CASE(reshape, to_scalar)      { return nn_reshape(var(f, 1, 1), NN_SCALAR); }
CASE(reshape, flatten)        { return nn_flatten(var(f, 2, 3, 4), 1); }
CASE(reshape, empty)          { return nn_flatten(var(f, 0, 3, 4), 1); }
CASE(permute, three)          { return nn_permute(var(f, 2, 3, 4), NN_DIMS(2, 0, 1)); }
CASE(permute, negative)       { return nn_permute(var(f, 2, 3, 4), NN_DIMS(-1, 0, -2)); }
CASE(slice, rows)             { return nn_slice(var(f, 7, 3), 0, 2, 6, 1); }
CASE(slice, strided)          { return nn_slice(var(f, 7, 9), 1, -8, 100, 3); }
CASE(slice, overlapping)      { nn_tensor *x = var(f, 6, 4); return nn_mul(nn_slice(x, 0, 0, 4, 1), nn_slice(x, 0, 2, 6, 1)); }
CASE(slice, none)             { return nn_slice(var(f, 7, 3), 0, 5, 2, 1); }
CASE(expand, rows)            { return nn_mul_scalar(nn_expand(var(f, 1, 5), NN_SHAPE(4, -1)), 3.0f); }
CASE(expand, lead)            { return nn_expand(var(f, 3, 1), NN_SHAPE(2, 3, 4)); }
CASE(expand, scalar)          { return nn_expand(var_scalar(f), NN_SHAPE(3, 20)); }
CASE(sum, all)                { return nn_sum(var(f, 5, 7), NN_ALL, NULL); }
CASE(sum, last)               { return nn_sum(var(f, 5, 37), NN_DIMS(-1), NULL); }
CASE(sum, first)              { return nn_sum(var(f, 13, 7), NN_DIMS(0), &(nn_sum_desc){ .keepdim = 1 }); }
CASE(sum, middle)             { return nn_sum(var(f, 3, 6, 5), NN_DIMS(1), NULL); }
CASE(sum, outer_two)          { return nn_sum(var(f, 3, 6, 5), NN_DIMS(0, 2), NULL); }
CASE(sum, strided)            { return nn_sum(nn_transpose(var(f, 6, 35), 0, 1), NN_DIMS(0), NULL); }
CASE(sum, empty)              { return nn_sum(var(f, 0, 5), NN_DIMS(0), NULL); }
CASE(sum, scalar)             { return nn_sum(var_scalar(f), NN_ALL, NULL); }
CASE(sum, mean)               { return nn_mean(var(f, 4, 6), NN_DIMS(1), NULL); }
CASE(sum, mean_all)           { return nn_mean(var(f, 4, 6), NN_ALL, &(nn_mean_desc){ .keepdim = 1 }); }
CASE(matmul, square)          { nn_tensor *a = var(f, 5, 7), *b = var(f, 7, 3); return nn_matmul(a, b); }
CASE(matmul, blocks)          { nn_tensor *a = var(f, 29, 41), *b = var(f, 41, 67); return nn_matmul(a, b); }
CASE(matmul, transposed)      { nn_tensor *a = var(f, 7, 5), *b = var(f, 3, 7); return nn_matmul(nn_transpose(a, 0, 1), nn_transpose(b, 0, 1)); }
CASE(matmul, batch)           { nn_tensor *a = var(f, 3, 5, 4), *b = var(f, 3, 4, 2); return nn_matmul(a, b); }
CASE(matmul, broadcast)       { nn_tensor *a = var(f, 2, 1, 5, 4), *b = var(f, 3, 4, 2); return nn_matmul(a, b); }
CASE(matmul, shared_right)    { nn_tensor *a = var(f, 3, 5, 4), *b = var(f, 4, 2); return nn_matmul(a, b); }
CASE(matmul, vectors)         { nn_tensor *a = var(f, 6), *b = var(f, 6); return nn_matmul(a, b); }
CASE(matmul, matrix_vector)   { nn_tensor *a = var(f, 5, 6), *b = var(f, 6); return nn_matmul(a, b); }
CASE(matmul, vector_matrix)   { nn_tensor *a = var(f, 6), *b = var(f, 2, 6, 3); return nn_matmul(a, b); }
CASE(matmul, itself)          { nn_tensor *a = var(f, 5, 5); return nn_matmul(a, a); }
CASE(matmul, no_inner)        { nn_tensor *a = var(f, 3, 0), *b = var(f, 0, 4); return nn_matmul(a, b); }
CASE(matmul, no_rows)         { nn_tensor *a = var(f, 0, 3), *b = var(f, 3, 4); return nn_matmul(a, b); }
CASE(linear, plain)           { nn_tensor *x = var(f, 4, 6), *w = var(f, 5, 6), *b = var(f, 5); return nn_linear(x, w, b, NULL); }
CASE(linear, no_bias)         { nn_tensor *x = var(f, 4, 6), *w = var(f, 5, 6); return nn_linear(x, w, NULL, NULL); }
CASE(linear, wide)            { nn_tensor *x = var(f, 2, 3, 11), *w = var(f, 130, 11), *b = var(f, 130); return nn_linear(x, w, b, NULL); }
CASE(linear, vector)          { nn_tensor *x = var(f, 6), *w = var(f, 5, 6), *b = var(f, 5); return nn_linear(x, w, b, NULL); }
CASE(linear, activation)      { nn_tensor *x = var(f, 4, 6), *w = var(f, 5, 6), *b = var(f, 5); return nn_linear(x, w, b, &(nn_linear_desc){ .activation = nn_tanh }); }
CASE(linear, input_major)     { nn_tensor *x = var(f, 4, 6), *w = var(f, 6, 5), *b = var(f, 5); return nn_linear(x, nn_transpose(w, 0, 1), b, NULL); }
static nn_tensor *small_linear(fixture *f, nn_dtype dtype, int64_t group)
{
    nn_tensor *x = var(f, 4, 6), *b = var(f, 5), *scale = NULL, *w = nn_quantize_new(nn_detach(nn_ones(f->nn, NN_SHAPE(5, 6))), dtype, dtype == NN_I8 || dtype == NN_I4 ? &scale : NULL, &(nn_quantize_desc){ .group = group });
    return nn_linear(x, w, b, &(nn_linear_desc){ .scale = scale });
}
CASE(linear_small, bf16)      { return small_linear(f, NN_BF16, 0); }
CASE(linear_small, f16)       { return small_linear(f, NN_F16, 0); }
CASE(linear_small, i8)        { return small_linear(f, NN_I8, 0); }
CASE(linear_small, groups)    { return small_linear(f, NN_I8, 2); }
static const float *numbers_of_words(int64_t n)          /* the same in float and double */
{
    static float v[2048];
    for (int64_t i = 0; i < n && i < 2048; i++) v[i] = (float)(i * 37 % 101 - 50) / 64;
    return v;
}
static nn_tensor *words_linear(fixture *f, int64_t rows, int64_t in, int64_t out, int64_t group, int dense)      /* 4 bits, of different sizes */
{
    nn_tensor *x = var(f, rows, in), *scale, *w = nn_from(f->nn, NN_SHAPE(out, in), numbers_of_words(in * out));
    w = nn_quantize_new(w, NN_I4, &scale, &(nn_quantize_desc){ .group = group });
    return nn_linear(x, dense ? nn_contiguous(w) : w, NULL, &(nn_linear_desc){ .scale = dense ? nn_contiguous(scale) : scale });
}
CASE(linear_small, i4)        { return small_linear(f, NN_I4, 0); }
CASE(linear_small, i4_one)    { return words_linear(f, 1, 45, 37, 16, 0); }
CASE(linear_small, i4_dense)  { return words_linear(f, 1, 64, 20, 32, 1); }
CASE(linear_small, i4_rows)   { return words_linear(f, 3, 23, 7, 8, 1); }
CASE(linear_small, i4_many)   { return words_linear(f, 11, 40, 9, 8, 0); }
CASE(linear_small, i4_none)   { return words_linear(f, 0, 9, 5, 8, 0); }
CASE_NO_GRAD(dequantize, i4)
{
    nn_tensor *scale, *w = nn_from(f->nn, NN_SHAPE(5, 77), numbers_of_words(5 * 77));
    w = nn_quantize_new(w, NN_I4, &scale, &(nn_quantize_desc){ .group = 16 });
    return nn_dequantize(w, scale);
}
CASE(linear, no_rows)         { nn_tensor *x = var(f, 0, 6), *w = var(f, 5, 6), *b = var(f, 5); return nn_linear(x, w, b, NULL); }
CASE(cast, through_f64)       { nn_tensor *x = var(f, 4, 6); return nn_mul_scalar(nn_cast(nn_cast(x, NN_F64), f->nn->desc.dtype), 2.0f); }
