/* cases_shape.h - moving numbers: concat, gather, sort, pad ... (see test_ops.c) */
CASE(slice, select)             { return nn_mul_scalar(nn_select(nn_transpose(var(f, 3, 4), 0, 1), 0, -2), 2.0f); }
CASE(slice, select_scalar)      { return nn_select(var(f, 5), 0, 3); }
CASE(slice, split)              { nn_tensor *y[3]; nn_split(var(f, 4, 7), NN_SHAPE(2, 1, 4), 1, y); return nn_add(nn_mul(y[0], y[1]), nn_slice(y[2], 1, 1, 3, 1)); }
CASE(slice, chunk)              { nn_tensor *y[2]; nn_chunk(var(f, 6, 3), 2, 0, y); return nn_mul(y[0], y[1]); }
CASE(expand, repeat)            { return nn_repeat(var(f, 2, 3), NN_SHAPE(2, 3)); }
CASE(expand, repeat_lead)       { return nn_repeat(nn_transpose(var(f, 2, 3), 0, 1), NN_SHAPE(2, 1, 4)); }
CASE(expand, repeat_none)       { return nn_repeat(var(f, 2, 3), NN_SHAPE(0, 1)); }
CASE(expand, repeat_scalar)     { return nn_repeat(var_scalar(f), NN_SHAPE(3, 2)); }
CASE(flip, last)                { return nn_flip(var(f, 3, 20), NN_DIMS(-1)); }
CASE(flip, both)                { return nn_flip(nn_transpose(var(f, 3, 5), 0, 1), NN_DIMS(0, 1)); }
CASE(flip, first)               { nn_tensor *x = var(f, 3, 5); return nn_mul(x, nn_flip(x, NN_DIMS(0))); }
CASE(flip, empty)               { return nn_flip(var(f, 3, 0), NN_ALL); }
CASE(concat, rows)              { nn_tensor *x[3]; x[0] = var(f, 2, 5); x[1] = var(f, 0, 5); x[2] = var(f, 3, 5); return nn_concat(x, 3, 0); }
CASE(concat, columns)           { nn_tensor *x[2]; x[0] = var(f, 3, 5); x[1] = nn_transpose(var(f, 2, 3), 0, 1); return nn_concat(x, 2, -1); }
CASE(concat, channels)          { nn_tensor *x[2]; x[0] = var(f, 2, 3, 2, 3); x[1] = var(f, 2, 1, 2, 3); return nn_mul(nn_concat(x, 2, 1), nn_concat(x, 2, 1)); }
CASE(concat, itself)            { nn_tensor *x[3]; x[0] = x[1] = x[2] = var(f, 2, 3); return nn_concat(x, 3, 1); }
CASE(concat, many)              { nn_tensor *x[19]; x[0] = var(f, 19, 3); for (int i = 18; i >= 0; i--) x[i] = nn_slice(x[0], 0, i, i + 1, 1); return nn_concat(x, 19, 1); }
CASE(concat, stack)             { nn_tensor *x[2]; x[0] = var(f, 2, 3); x[1] = nn_transpose(var(f, 3, 2), 0, 1); return nn_stack(x, 2, 1); }
CASE(concat, stack_scalars)     { nn_tensor *x[2]; x[0] = var_scalar(f); x[1] = var_scalar(f); return nn_stack(x, 2, 0); }
CASE(concat, cast)              { nn_tensor *x[2]; x[0] = x[1] = nn_cast(var(f, 2, 3), NN_F64); return nn_cast(nn_concat(x, 2, 0), f->nn->desc.dtype); }
CASE(gather, rows)              { return nn_gather(var(f, 3, 4), 0, ints(f, NN_SHAPE(2, 3), 2, 0, 2, 1, 1, 2)); }
CASE(gather, columns)           { return nn_gather(var(f, 3, 4), 1, ints(f, NN_SHAPE(3, 2), 3, 3, 0, 1, 2, 0)); }
CASE(gather, strided)           { return nn_gather(nn_transpose(var(f, 4, 3), 0, 1), -1, nn_transpose(ints(f, NN_SHAPE(2, 3), 3, 3, 0, 1, 2, 0), 0, 1)); }
CASE(gather, middle)            { return nn_gather(var(f, 2, 3, 2), 1, ints(f, NN_SHAPE(2, 2, 2), 0, 2, 2, 1, 0, 0, 0, 1)); }
CASE(gather, none)              { return nn_gather(var(f, 3, 4), 1, nn_from_as(f->nn, NN_I64, NN_SHAPE(3, 0), NULL)); }
CASE(index_select, rows)        { return nn_index_select(var(f, 5, 4), 0, ints(f, NN_SHAPE(4), 4, 0, 0, 2)); }
CASE(index_select, columns)     { return nn_index_select(nn_transpose(var(f, 5, 4), 0, 1), 1, ints(f, NN_SHAPE(3), 1, 1, 3)); }
CASE(index_select, middle)      { return nn_index_select(var(f, 2, 3, 4), 1, nn_cast(ints(f, NN_SHAPE(5), 1, 2, 1, 0, 1), NN_I32)); }
CASE(index_select, none)        { return nn_index_select(var(f, 5, 4), 0, nn_from_as(f->nn, NN_I64, NN_SHAPE(0), NULL)); }
CASE(embedding, words)          { return nn_embedding(ints(f, NN_SHAPE(2, 3), 1, 4, 1, 0, 6, 1), var(f, 7, 5)); }
CASE(embedding, one)            { return nn_embedding(nn_select(ints(f, NN_SHAPE(3), 1, 4, 1), 0, 1), nn_transpose(var(f, 3, 7), 0, 1)); }
CASE(embedding, none)           { return nn_embedding(nn_from_as(f->nn, NN_I32, NN_SHAPE(2, 0), NULL), var(f, 7, 5)); }
CASE(scatter_add, rows)         { nn_tensor *x = var(f, 3, 4), *s = var(f, 3, 4); return nn_scatter_add(x, 0, ints(f, NN_SHAPE(2, 3), 2, 0, 2, 1, 1, 2), s); }
CASE(scatter_add, columns)      { nn_tensor *x = var(f, 4, 3), *s = var(f, 2, 3); return nn_scatter_add(nn_transpose(x, 0, 1), 1, ints(f, NN_SHAPE(3, 2), 3, 3, 0, 1, 2, 0), nn_transpose(s, 0, 1)); }
CASE(scatter_add, itself)       { nn_tensor *x = var(f, 3, 2); return nn_scatter_add(x, 0, ints(f, NN_SHAPE(2, 2), 2, 0, 0, 2), x); }
CASE_NO_GRAD(one_hot, plain)    { return nn_one_hot(ints(f, NN_SHAPE(2, 3), 1, 4, 1, 0, 3, 1), 5); }
#define TRIANGLE(op) \
    CASE(op, square)       { return nn_##op(var(f, 5, 5), 0); } \
    CASE(op, wide)         { return nn_##op(var(f, 2, 3, 5), 1); } \
    CASE(op, tall)         { return nn_##op(nn_transpose(var(f, 3, 6), 0, 1), -2); } \
    CASE(op, far)          { nn_tensor *x = var(f, 3, 4); return nn_add(nn_mul(x, nn_##op(x, 7)), nn_##op(x, INT64_MIN)); } \
    CASE(op, empty)        { return nn_##op(var(f, 3, 0), 0); }
TRIANGLE(tril)
TRIANGLE(triu)
CASE(sort, last)                { return nn_sort(var(f, 3, 9), -1, NULL, NULL); }
CASE(sort, descending)          { return nn_sort(var(f, 40, 3), 0, NULL, &(nn_sort_desc){ .descending = 1 }); }
CASE(sort, strided)             { return nn_sort(nn_transpose(var(f, 3, 9), 0, 1), 0, NULL, NULL); }
CASE(sort, then_gather)         { nn_tensor *x = var(f, 3, 9), *i, *y = nn_sort(x, 1, &i, NULL); return nn_mul(y, nn_gather(x, 1, i)); }
CASE(sort, scalar)              { return nn_sort(var_scalar(f), 0, NULL, NULL); }
CASE(sort, empty)               { return nn_sort(var(f, 3, 0), 1, NULL, NULL); }
CASE(topk, last)                { return nn_topk(var(f, 3, 9), 4, -1, NULL, NULL); }
CASE(topk, smallest)            { return nn_topk(var(f, 90, 2), 70, 0, NULL, &(nn_topk_desc){ .smallest = 1 }); }
CASE(topk, middle)              { nn_tensor *x = var(f, 2, 6, 3); return nn_mul(nn_topk(x, 3, 1, NULL, NULL), nn_slice(x, 1, 0, 3, 1)); }
CASE(topk, none)                { return nn_topk(var(f, 3, 9), 0, 1, NULL, NULL); }
#define PADS(label, mode_) \
    CASE(pad, label##_row)     { return nn_pad(var(f, 3, 4), NN_SHAPE(2, 1), &(nn_pad_desc){ .mode = mode_, .value = 1.5f }); } \
    CASE(pad, label##_image)   { return nn_pad(var(f, 2, 2, 3, 4), NN_SHAPE(1, 3, 2, 1), &(nn_pad_desc){ .mode = mode_ }); } \
    CASE(pad, label##_volume)  { return nn_pad(var(f, 2, 3, 3, 2), NN_SHAPE(1, 0, 2, 1, 1, 2), &(nn_pad_desc){ .mode = mode_ }); } \
    CASE(pad, label##_smaller) { return nn_pad(nn_transpose(var(f, 5, 4), 0, 1), NN_SHAPE(-1, 2, 3, -2), &(nn_pad_desc){ .mode = mode_ }); } \
    CASE(pad, label##_vector)  { nn_tensor *x = nn_mul_scalar(var(f, 5), 2.0f); return nn_add(nn_pad(x, NN_SHAPE(3, 4), &(nn_pad_desc){ .mode = mode_ }), nn_pad(x, NN_SHAPE(4, 3), &(nn_pad_desc){ .mode = mode_ })); }
PADS(constant, NN_PAD_CONSTANT)
PADS(reflect, NN_PAD_REFLECT)
PADS(replicate, NN_PAD_REPLICATE)
CASE(pad, all_of_nothing)       { return nn_pad(var(f, 2, 0), NN_SHAPE(2, 1), NULL); }
CASE(pad, away)                 { return nn_pad(var(f, 2, 3), NN_SHAPE(-1, -2), NULL); }
