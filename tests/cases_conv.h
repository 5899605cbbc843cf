/* cases_conv.h - convolution, pooling, upsampling (see test_ops.c). x, w, b in that order. */
#define CONV_CASE(op, label, fn, desc_type, X, W, O, ...) \
    CASE(op, label) { nn_tensor *x = make_var(f, -1.5, 1.5, NN_SHAPE X), *w = make_var(f, -1.5, 1.5, NN_SHAPE W), *b = var(f, O); return fn(x, w, b, &(desc_type){ __VA_ARGS__ }); }
#define CONV2(label, X, W, O, ...)  CONV_CASE(conv2d, label, nn_conv2d, nn_conv2d_desc, X, W, O, __VA_ARGS__)
#define CONV1(label, X, W, O, ...)  CONV_CASE(conv2d, signal_##label, nn_conv1d, nn_conv1d_desc, X, W, O, __VA_ARGS__)
#define CONVT2(label, X, W, O, ...) CONV_CASE(conv_transpose2d, label, nn_conv_transpose2d, nn_conv_transpose2d_desc, X, W, O, __VA_ARGS__)
#define CONVT1(label, X, W, O, ...) CONV_CASE(conv_transpose2d, signal_##label, nn_conv_transpose1d, nn_conv_transpose1d_desc, X, W, O, __VA_ARGS__)

CASE(conv2d, plain)        { nn_tensor *x = var(f, 2, 3, 5, 6), *w = var(f, 4, 3, 3, 2), *b = var(f, 4); return nn_conv2d(x, w, b, NULL); }
CASE(conv2d, no_bias)      { nn_tensor *x = var(f, 2, 3, 5, 6), *w = var(f, 4, 3, 3, 2); return nn_conv2d(x, w, NULL, NULL); }
CASE(conv2d, twice)        { nn_tensor *x = var(f, 1, 2, 5, 5), *w = var(f, 2, 2, 3, 3), *b = var(f, 2); return nn_conv2d(nn_conv2d(x, w, b, NULL), w, b, NULL); }
CASE(conv2d, added)        { nn_tensor *x = var(f, 1, 2, 5, 5), *w = var(f, 2, 2, 3, 3), *b = var(f, 2), *y = nn_conv2d(x, w, b, &(nn_conv2d_desc){ .same = 1 }); return nn_add(nn_add(y, x), nn_conv2d(x, w, b, &(nn_conv2d_desc){ .padding = 1 })); }
CASE(conv2d, transposed_x) { nn_tensor *x = var(f, 2, 5, 6, 3), *w = var(f, 4, 3, 3, 2); return nn_conv2d(nn_permute(x, NN_DIMS(0, 3, 1, 2)), w, NULL, NULL); }
CASE(conv2d, sliced_x)     { nn_tensor *x = var(f, 2, 3, 9, 7), *w = var(f, 2, 3, 2, 2); return nn_conv2d(nn_slice(nn_slice(x, 2, 1, 9, 2), 3, 1, 6, 1), w, NULL, NULL); }
CASE(conv2d, strided_w)    { nn_tensor *x = var(f, 2, 2, 5, 6), *w = var(f, 3, 2, 3, 4); return nn_conv2d(x, nn_transpose(w, 0, 3), NULL, &(nn_conv2d_desc){ .padding = 1 }); }
CASE(conv2d, frozen_x)     { nn_tensor *x = nn_rand(f->nn, NN_SHAPE(2, 2, 5, 5), -1, 1), *w = var(f, 3, 2, 3, 3), *b = var(f, 3); return nn_conv2d(x, w, b, NULL); }
CASE(conv2d, frozen_w)     { nn_tensor *x = var(f, 2, 2, 5, 5), *w = nn_rand(f->nn, NN_SHAPE(3, 2, 3, 3), -1, 1), *b = var(f, 3); return nn_conv2d(x, w, b, NULL); }
CASE(conv2d, only_bias)    { nn_tensor *x = nn_rand(f->nn, NN_SHAPE(2, 2, 5, 5), -1, 1), *w = nn_rand(f->nn, NN_SHAPE(3, 2, 3, 3), -1, 1), *b = var(f, 3); return nn_conv2d(x, w, b, NULL); }
CONV2(stride,        (2, 3, 7, 6),   (4, 3, 3, 3),   4, .stride = 2)
CONV2(stride_pad,    (2, 2, 7, 8),   (3, 2, 3, 3),   3, .stride = 2, .padding = 1)
CONV2(stride_3,      (1, 2, 11, 10), (2, 2, 4, 5),   2, .stride = 3, .padding = 2)
CONV2(stride_apart,  (2, 2, 8, 9),   (3, 2, 2, 3),   3, .stride = 2, .stride_w = 1, .padding = 0, .padding_w = 2)
CONV2(stride_big,    (2, 2, 9, 9),   (3, 2, 2, 2),   3, .stride = 4)
CONV2(stride_huge,   (2, 2, 4, 5),   (3, 2, 2, 2),   3, .stride = 1000, .padding = 1)
CONV2(pad,           (2, 2, 4, 5),   (3, 2, 3, 3),   3, .padding = 1)
CONV2(pad_wide,      (1, 2, 3, 3),   (2, 2, 3, 3),   2, .padding = 4)
CONV2(pad_none_w,    (2, 2, 4, 5),   (3, 2, 3, 3),   3, .padding = 2, .padding_w = NN_ZERO)
CONV2(dilation,      (2, 2, 8, 7),   (3, 2, 3, 3),   3, .dilation = 2)
CONV2(dilation_mix,  (1, 2, 9, 11),  (3, 2, 3, 2),   3, .dilation = 3, .dilation_w = 2, .padding = 2, .stride = 2)
CONV2(dilation_even, (1, 2, 9, 11),  (2, 2, 3, 3),   2, .dilation = 2, .stride = 2, .padding = 1)
CONV2(dilation_4_6,  (1, 1, 21, 19), (2, 1, 4, 3),   2, .dilation = 4, .stride = 6, .padding = 5)
CONV2(same,          (2, 2, 5, 6),   (3, 2, 3, 3),   3, .same = 1)
CONV2(same_even,     (1, 2, 5, 6),   (3, 2, 4, 2),   3, .same = 1)
CONV2(same_dilated,  (1, 2, 7, 6),   (3, 2, 4, 3),   3, .same = 1, .dilation = 2)
CONV2(groups,        (2, 4, 7, 5),   (6, 2, 3, 3),   6, .groups = 2, .stride = 2)
CONV2(groups_3,      (2, 6, 5, 5),   (3, 2, 3, 3),   3, .groups = 3, .padding = 1)
CONV2(depthwise,     (2, 5, 6, 7),   (5, 1, 3, 3),   5, .groups = 5, .padding = 1)
CONV2(depthwise_2,   (2, 3, 6, 7),   (6, 1, 3, 3),   6, .groups = 3, .stride = 2, .padding = 1)
CONV2(depthwise_5,   (1, 2, 20, 19), (2, 1, 5, 3),   2, .groups = 2, .dilation = 2, .padding = 3)
CONV2(one_by_one,    (2, 5, 4, 6),   (7, 5, 1, 1),   7, .stride = 1)
CONV2(one_strided,   (2, 3, 5, 6),   (4, 3, 1, 1),   4, .stride = 2)
CONV2(one_padded,    (2, 3, 3, 4),   (4, 3, 1, 1),   4, .padding = 1)
CONV2(one_channel,   (3, 1, 9, 9),   (5, 1, 5, 5),   5, .stride = 1)
CONV2(one_filter,    (1, 1, 12, 40), (1, 1, 3, 3),   1, .padding = 1)
CONV2(one_pixel,     (2, 3, 1, 1),   (2, 3, 1, 1),   2, .stride = 1)
CONV2(whole,         (2, 3, 4, 5),   (6, 3, 4, 5),   6, .stride = 1)
CONV2(tile_edges,    (3, 2, 7, 9),   (29, 2, 3, 3), 29, .padding = 1)
CONV2(many_terms,    (1, 31, 4, 5),  (3, 31, 3, 3),  3, .padding = 1)
CONV2(many_columns,  (2, 1, 20, 33), (2, 1, 2, 2),   2, .stride = 1)
CONV2(kernel_17,     (1, 1, 18, 19), (2, 1, 17, 17), 2, .stride = 1)
CONV2(activation,    (2, 2, 4, 5),   (3, 2, 3, 3),   3, .padding = 1, .activation = nn_tanh)
CONV2(no_batch,      (0, 2, 4, 5),   (3, 2, 3, 3),   3, .padding = 1)
CONV2(no_input,      (2, 0, 4, 5),   (3, 0, 3, 3),   3, .padding = 1)
CONV2(no_output,     (2, 2, 4, 5),   (0, 2, 3, 3),   0, .padding = 1)
CONV1(plain,         (2, 3, 9),      (4, 3, 3),      4, .stride = 1)
CONV1(options,       (2, 4, 19),     (6, 2, 3),      6, .stride = 2, .padding = 3, .dilation = 2, .groups = 2)
CONV1(same,          (2, 2, 9),      (3, 2, 4),      3, .same = 1)
CONV1(long,          (1, 1, 400),    (2, 1, 300),    2, .padding = 7)
CONV1(strided_long,  (1, 2, 700),    (1, 2, 260),    1, .stride = 2)
CASE(conv2d, signal_view)  { nn_tensor *x = var(f, 2, 9, 3), *w = var(f, 4, 3, 3); return nn_conv1d(nn_transpose(x, 1, 2), w, NULL, NULL); }

CASE(conv_transpose2d, plain)   { nn_tensor *x = var(f, 2, 3, 4, 5), *w = var(f, 3, 4, 3, 2), *b = var(f, 4); return nn_conv_transpose2d(x, w, b, NULL); }
CASE(conv_transpose2d, no_bias) { nn_tensor *x = var(f, 2, 3, 4, 5), *w = var(f, 3, 4, 3, 2); return nn_conv_transpose2d(x, w, NULL, NULL); }
CASE(conv_transpose2d, view)    { nn_tensor *x = var(f, 2, 5, 4, 3), *w = var(f, 3, 4, 3, 2); return nn_conv_transpose2d(nn_transpose(x, 1, 3), w, NULL, &(nn_conv_transpose2d_desc){ .stride = 2 }); }
CASE(conv_transpose2d, there_and_back) { nn_tensor *x = var(f, 1, 2, 6, 6), *w = var(f, 3, 2, 3, 3); return nn_conv_transpose2d(nn_conv2d(x, w, NULL, &(nn_conv2d_desc){ .stride = 2 }), w, NULL, &(nn_conv_transpose2d_desc){ .stride = 2, .output_padding = 1 }); }
CONVT2(stride,         (2, 3, 4, 3), (3, 2, 3, 3), 2, .stride = 2)
CONVT2(stride_pad,     (2, 3, 4, 3), (3, 2, 4, 4), 2, .stride = 2, .padding = 1)
CONVT2(stride_3,       (1, 2, 4, 3), (2, 2, 2, 5), 2, .stride = 3, .padding = NN_ZERO, .padding_w = 1)
CONVT2(output_padding, (2, 3, 4, 3), (3, 2, 3, 3), 2, .stride = 2, .padding = 1, .output_padding = 1)
CONVT2(output_apart,   (2, 3, 4, 3), (3, 2, 3, 3), 2, .stride = 3, .padding = 1, .output_padding = 2, .output_padding_w = NN_ZERO)
CONVT2(dilation,       (1, 2, 4, 5), (2, 3, 3, 3), 3, .dilation = 2, .padding = 1)
CONVT2(dilation_mix,   (1, 2, 4, 5), (2, 3, 3, 2), 3, .dilation = 2, .stride = 3, .output_padding = 1)
CONVT2(dilation_extra, (1, 2, 4, 5), (2, 3, 1, 1), 3, .dilation = 3, .output_padding = 2)
CONVT2(groups,         (2, 4, 4, 5), (4, 3, 3, 3), 6, .groups = 2, .stride = 2)
CONVT2(depthwise,      (2, 3, 5, 4), (3, 1, 3, 3), 3, .groups = 3, .stride = 2, .padding = 1)
CONVT2(one_by_one,     (2, 3, 5, 4), (3, 4, 1, 1), 4, .stride = 1)
CONVT2(wide,           (1, 2, 5, 3), (2, 27, 2, 2), 27, .stride = 2)
CONVT2(activation,     (1, 2, 3, 3), (2, 2, 2, 2), 2, .stride = 2, .activation = nn_sigmoid)
CONVT2(no_batch,       (0, 3, 4, 5), (3, 2, 3, 3), 2, .stride = 2)
CONVT1(plain,          (2, 3, 5),    (3, 2, 4),    2, .stride = 1)
CONVT1(options,        (2, 4, 7),    (4, 3, 3),    6, .stride = 3, .padding = 2, .output_padding = 1, .dilation = 2, .groups = 2)

#define POOL(op, label, fn, X, kernel, ...) CASE(op, label) { return fn(make_var(f, -1.5, 1.5, NN_SHAPE X), kernel, &(nn_pool_desc){ __VA_ARGS__ }); }
#define POOLS(label, X, kernel, ...) POOL(maxpool2d, label, nn_maxpool2d, X, kernel, __VA_ARGS__) POOL(avgpool2d, label, nn_avgpool2d, X, kernel, __VA_ARGS__)
CASE(maxpool2d, plain)         { return nn_maxpool2d(var(f, 2, 3, 6, 8), 2, NULL); }
CASE(avgpool2d, plain)         { return nn_avgpool2d(var(f, 2, 3, 6, 8), 2, NULL); }
CASE(maxpool2d, view)          { return nn_maxpool2d(nn_transpose(var(f, 2, 6, 3, 8), 1, 2), 2, NULL); }
CASE(avgpool2d, view)          { return nn_avgpool2d(nn_transpose(var(f, 2, 6, 3, 8), 1, 2), 2, NULL); }
CASE(maxpool2d, twice)         { nn_tensor *x = var(f, 2, 2, 4, 4); return nn_add(nn_maxpool2d(x, 2, NULL), nn_maxpool2d(x, 2, NULL)); }
CASE(avgpool2d, twice)         { nn_tensor *x = var(f, 2, 2, 4, 4); return nn_add(nn_avgpool2d(x, 2, NULL), nn_avgpool2d(x, 2, NULL)); }
POOLS(overlap,     (2, 2, 7, 9),  3, .stride = 2)
POOLS(pad,         (2, 2, 7, 9),  3, .stride = 2, .padding = 1)
POOLS(ceil,        (2, 2, 7, 9),  3, .stride = 3, .ceil_mode = 1)
POOLS(ceil_pad,    (1, 2, 8, 10), 3, .stride = 2, .padding = 1, .ceil_mode = 1)
POOLS(ceil_gap,    (1, 2, 8, 10), 2, .stride = 4, .ceil_mode = 1)
POOLS(wide,        (2, 2, 7, 9),  3, .kernel_w = 2, .stride = 1, .stride_w = 2)
POOLS(wide_pad,    (2, 2, 7, 9),  3, .kernel_w = 5, .padding = 1, .padding_w = 2)
POOLS(one,         (2, 2, 3, 3),  1, .stride = 2)
POOLS(whole,       (2, 2, 5, 5),  5, .stride = 1)
POOLS(no_batch,    (0, 2, 5, 5),  2, .stride = 1)
POOL(maxpool2d, dilation,     nn_maxpool2d, (1, 2, 9, 9),  3, .dilation = 2, .stride = 1)
POOL(maxpool2d, dilation_pad, nn_maxpool2d, (1, 2, 9, 9),  2, .dilation = 3, .stride = 2, .padding = 2, .ceil_mode = 1)
POOL(avgpool2d, exclude_pad,  nn_avgpool2d, (2, 2, 7, 9),  3, .stride = 2, .padding = 1, .exclude_pad = 1)
POOL(avgpool2d, exclude_ceil, nn_avgpool2d, (2, 2, 8, 10), 3, .stride = 2, .padding = 1, .exclude_pad = 1, .ceil_mode = 1)
POOL(maxpool2d, signal,       nn_maxpool1d, (2, 3, 11),    3, .stride = 2, .padding = 1)
POOL(avgpool2d, signal,       nn_avgpool1d, (2, 3, 11),    3, .stride = 2, .padding = 1)
POOLS(long_rows,      (1, 2, 4, 45),  3, .stride = 2, .padding = 1)
POOLS(long_rows_dense, (1, 1, 4, 41),  3, .stride = 1, .padding = 1)
POOLS(long_rows_sparse, (1, 1, 7, 50),  2, .stride = 3)
CASE(maxpool2d, adaptive)        { return nn_adaptive_maxpool2d(var(f, 2, 2, 7, 10), 3, 4); }
CASE(avgpool2d, adaptive)        { return nn_adaptive_avgpool2d(var(f, 2, 2, 7, 10), 3, 4); }
CASE(maxpool2d, adaptive_up)     { return nn_adaptive_maxpool2d(var(f, 2, 2, 3, 2), 5, 4); }
CASE(avgpool2d, adaptive_up)     { return nn_adaptive_avgpool2d(var(f, 2, 2, 3, 2), 5, 4); }
CASE(maxpool2d, adaptive_signal) { return nn_adaptive_maxpool1d(var(f, 2, 2, 11), 4); }
CASE(avgpool2d, adaptive_signal) { return nn_adaptive_avgpool1d(var(f, 2, 2, 11), 4); }
CASE(maxpool2d, global)          { return nn_global_maxpool(var(f, 2, 3, 4, 5)); }
CASE(avgpool2d, global)          { return nn_global_avgpool(nn_transpose(var(f, 2, 3, 4, 5), 1, 2)); }
CASE(maxpool2d, global_signal)   { return nn_global_maxpool(var(f, 2, 3, 14)); }

#define UPSAMPLE(label, X, height, width, ...) CASE(upsample, label) { return nn_upsample(make_var(f, -1.5, 1.5, NN_SHAPE X), height, width, &(nn_upsample_desc){ __VA_ARGS__ }); }
CASE(upsample, plain) { return nn_upsample(var(f, 2, 3, 4, 5), 8, 10, NULL); }
CASE(upsample, view)  { return nn_upsample(nn_transpose(var(f, 2, 4, 3, 5), 1, 2), 8, 10, NULL); }
CASE(upsample, twice) { nn_tensor *x = var(f, 1, 2, 3, 4); return nn_add(nn_upsample(x, 5, 6, NULL), nn_upsample(x, 5, 6, &(nn_upsample_desc){ .bilinear = 1 })); }
UPSAMPLE(odd,            (2, 2, 4, 5), 7, 13, .bilinear = 0)
UPSAMPLE(down,           (2, 2, 7, 6), 3, 4, .bilinear = 0)
UPSAMPLE(linear,         (2, 2, 4, 5), 8, 10, .bilinear = 1)
UPSAMPLE(linear_odd,     (2, 2, 4, 5), 7, 13, .bilinear = 1)
UPSAMPLE(linear_down,    (2, 2, 7, 6), 3, 4, .bilinear = 1)
UPSAMPLE(linear_corners, (2, 2, 4, 5), 7, 13, .bilinear = 1, .align_corners = 1)
UPSAMPLE(corners_to_one, (2, 2, 4, 5), 1, 1, .bilinear = 1, .align_corners = 1)
UPSAMPLE(corners_of_one, (2, 2, 1, 1), 3, 4, .bilinear = 1, .align_corners = 1)
UPSAMPLE(signal,         (2, 2, 5), 1, 12, .bilinear = 1)
UPSAMPLE(no_batch,       (0, 2, 4, 5), 8, 10, .bilinear = 1)
