/* cases_reduce.h - reductions, cumsum, softmax (see test_ops.c) */
#define REDUCED(op) \
    CASE(op, all)          { return nn_##op(var(f, 5, 7), NN_ALL, NULL); } \
    CASE(op, last)         { return nn_##op(var(f, 3, 21), NN_DIMS(-1), NULL); } \
    CASE(op, last_long)    { return nn_##op(var(f, 2, 53), NN_DIMS(1), NULL); } \
    CASE(op, last_short)   { return nn_##op(var(f, 37, 3), NN_DIMS(1), NULL); } \
    CASE(op, first)        { return nn_##op(var(f, 5, 19), NN_DIMS(0), NULL); } \
    CASE(op, first_sixteen) { return nn_##op(var(f, 4, 16), NN_DIMS(0), NULL); } \
    CASE(op, keepdim)      { return nn_##op(var(f, 3, 4, 5), NN_DIMS(1), &(nn_reduce_desc){ .keepdim = 1 }); } \
    CASE(op, outer_two)    { return nn_##op(var(f, 3, 4, 5), NN_DIMS(2, 0), NULL); } \
    CASE(op, channels)     { return nn_##op(var(f, 3, 2, 4, 5), NN_DIMS(0, 2, 3), &(nn_reduce_desc){ .keepdim = 1 }); } \
    CASE(op, transposed)   { return nn_##op(nn_transpose(var(f, 6, 20), 0, 1), NN_DIMS(0), NULL); } \
    CASE(op, strided)      { return nn_##op(nn_slice(nn_transpose(var(f, 6, 9), 0, 1), 0, 1, 9, 2), NN_DIMS(1), NULL); } \
    CASE(op, expanded)     { return nn_##op(nn_expand(var(f, 6, 1), NN_SHAPE(6, 3)), NN_DIMS(1), NULL); } \
    CASE(op, twice)        { nn_tensor *x = var(f, 4, 6); return nn_add(nn_##op(x, NN_DIMS(1), NULL), nn_##op(nn_mul_scalar(x, 1.25f), NN_DIMS(-1), NULL)); } \
    CASE(op, one)          { return nn_##op(var(f, 4, 1), NN_DIMS(0), NULL); } \
    CASE(op, no_results)   { return nn_##op(var(f, 0, 4), NN_DIMS(1), NULL); }
REDUCED(max)
REDUCED(min)
REDUCED(prod)
REDUCED(var)
REDUCED(std)
REDUCED(logsumexp)
REDUCED(norm)
CASE(sum, blocks)            { return nn_sum(var(f, 70, 40), NN_DIMS(0), NULL); }
CASE(sum, chunks)            { return nn_sum(var(f, 300, 5), NN_DIMS(0), NULL); }
CASE(sum, middle_sixteen)    { return nn_sum(var(f, 3, 5, 32), NN_DIMS(1), NULL); }
CASE(sum, middle_expanded)   { return nn_sum(nn_expand(var(f, 3, 1, 5), NN_SHAPE(3, 4, 5)), NN_DIMS(1, 0), NULL); }
CASE(max, of_scalar)         { return nn_max(var_scalar(f), NN_ALL, NULL); }
CASE(prod, of_scalar)        { return nn_prod(var_scalar(f), NN_ALL, NULL); }
CASE(prod, a_zero)           { nn_tensor *x = var(f, 3, 4), *y = nn_mul(x, nn_from(f->nn, NN_SHAPE(3, 4), (float[]){ 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1 })); return nn_prod(y, NN_DIMS(1), NULL); }
CASE(prod, two_zeros)        { nn_tensor *x = var(f, 2, 4), *y = nn_mul(x, nn_from(f->nn, NN_SHAPE(2, 4), (float[]){ 1, 0, 1, 0, 1, 1, 1, 1 })); return nn_prod(y, NN_DIMS(1), NULL); }
CASE(prod, none)             { return nn_prod(var(f, 3, 0), NN_DIMS(1), NULL); }
CASE(var, population)        { return nn_var(var(f, 4, 6), NN_DIMS(0), &(nn_var_desc){ .population = 1 }); }
CASE(var, far_from_zero)     { return nn_var(var_in(f, 10, 11, 4, 30), NN_DIMS(1), NULL); }
CASE(std, population)        { return nn_std(var(f, 4, 6), NN_DIMS(1), &(nn_std_desc){ .population = 1, .keepdim = 1 }); }
CASE(logsumexp, large)       { return nn_logsumexp(var_in(f, 100, 110, 4, 9), NN_DIMS(1), NULL); }
CASE(norm, order_one)          { return nn_norm(var(f, 4, 19), NN_DIMS(1), &(nn_norm_desc){ .p = 1 }); }
CASE(norm, count)            { return nn_norm(var(f, 4, 6), NN_DIMS(1), &(nn_norm_desc){ .p = (float)NN_ZERO }); }
CASE(norm, three)            { return nn_norm(var(f, 4, 19), NN_DIMS(1), &(nn_norm_desc){ .p = 3 }); }
CASE(norm, half)             { return nn_norm(var_in(f, 0.2, 2, 4, 6), NN_DIMS(0), &(nn_norm_desc){ .p = 0.5f }); }
CASE(norm, one_and_a_half)   { return nn_norm(var(f, 4, 6), NN_ALL, &(nn_norm_desc){ .p = 1.5f }); }
CASE(norm, infinity)         { return nn_norm(var(f, 4, 19), NN_DIMS(1), &(nn_norm_desc){ .p = INFINITY }); }
CASE(norm, minus_infinity)   { return nn_norm(var(f, 4, 19), NN_DIMS(0), &(nn_norm_desc){ .p = -INFINITY, .keepdim = 1 }); }
CASE_NO_GRAD(argmax, last)   { return nn_argmax(var(f, 5, 7), NN_DIMS(1), NULL); }
CASE_NO_GRAD(argmin, middle) { return nn_argmin(nn_transpose(var(f, 5, 7, 3), 0, 1), NN_DIMS(1), &(nn_argmin_desc){ .keepdim = 1 }); }

CASE(cumsum, last)           { return nn_cumsum(var(f, 3, 9), 1); }
CASE(cumsum, first)          { return nn_cumsum(var(f, 9, 70), 0); }
CASE(cumsum, middle)         { return nn_cumsum(var(f, 3, 4, 5), -2); }
CASE(cumsum, transposed)     { return nn_cumsum(nn_transpose(var(f, 3, 4), 0, 1), 1); }
CASE(cumsum, twice)          { nn_tensor *x = var(f, 3, 4); return nn_mul(x, nn_cumsum(x, 1)); }
CASE(cumsum, empty)          { return nn_cumsum(var(f, 3, 0), 1); }
CASE(cumsum, scalar)         { return nn_cumsum(var_scalar(f), 0); }
#define LINES(op) \
    CASE(op, last)         { return nn_##op(var_in(f, -4, 4, 3, 10), -1); } \
    CASE(op, last_long)    { return nn_##op(var_in(f, -4, 4, 2, 700), 1); } \
    CASE(op, last_one)     { return nn_##op(var(f, 5, 1), 1); } \
    CASE(op, first)        { return nn_##op(var_in(f, -4, 4, 5, 19), 0); } \
    CASE(op, first_wide)   { return nn_##op(var_in(f, -4, 4, 3, 130), 0); } \
    CASE(op, middle)       { return nn_##op(var_in(f, -4, 4, 3, 4, 5), 1); } \
    CASE(op, middle_one)   { return nn_##op(var_in(f, -4, 4, 3, 1, 5), 1); } \
    CASE(op, images)       { return nn_##op(var_in(f, -4, 4, 2, 3, 4, 6), 1); } \
    CASE(op, transposed)   { return nn_##op(nn_transpose(var(f, 5, 20), 0, 1), 1); } \
    CASE(op, twice)        { nn_tensor *x = var(f, 3, 21); return nn_mul(x, nn_##op(x, 1)); } \
    CASE(op, twice_first)  { nn_tensor *x = var(f, 3, 21); return nn_mul(x, nn_##op(x, 0)); } \
    CASE(op, scalar)       { return nn_##op(var_scalar(f), 0); } \
    CASE(op, empty)        { return nn_##op(var(f, 3, 0), 1); } \
    CASE(op, no_lines)     { return nn_##op(var(f, 0, 3), 1); }
LINES(softmax)
LINES(log_softmax)
