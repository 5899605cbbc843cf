/* determinism.h - 50 training steps of an MLP and of a CNN, 20 of a recurrent net, 4 of each special kernel, and a hash of all parameters: used by
   test_determinism.c and, with other compilers and targets (NEON and big-endian under qemu, NN_DETERMINISTIC, WASM), by determinism.c. */
static uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ ((const unsigned char *)p)[i]) * 0x100000001B3u;
    return h;
}

static uint64_t hash_params(nn_layer *net)
{
    nn_tensor *list[64];
    static float v[1 << 16];
    uint64_t h = 0xCBF29CE484222325u;
    int n = nn_params(net, list, 64);
    for (int i = 0; i < n; i++) {
        int64_t count = nn_count(list[i]);
        if (!nn_read(list[i], v)) return 0;
        for (int64_t j = 0; j < count; j++) {            /* as little-endian bytes, whatever the machine */
            uint32_t bits;
            memcpy(&bits, v + j, 4);
            unsigned char b[4] = { (unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16), (unsigned char)(bits >> 24) };
            h = hash_bytes(h, b, 4);
        }
    }
    return nn_ok(nn_context_of(net)) ? h : 0;
}

static uint64_t train_mlp(nn_context *nn)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_linear_new(net, "fc1", 50, 70, NULL);
    nn_fn_new(net, nn_gelu);
    nn_layernorm_new(net, "norm", NN_SHAPE(70), NULL);
    nn_dropout_new(net, 0.1f);
    nn_linear_new(net, "fc2", 70, 37, NULL);
    nn_fn_new(net, nn_tanh);
    nn_linear_new(net, "fc3", 37, 10, NULL);
    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.01f, .clip_norm = 1 });
    for (int i = 0; i < 50; i++) {
        int64_t labels[32];
        for (int j = 0; j < 32; j++) labels[j] = (i * 7 + j * 3) % 10;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(32, 50), 0, 1), *y = nn_from_as(nn, NN_I64, NN_SHAPE(32), labels);
        nn_backward(nn_cross_entropy(nn_forward(net, x), y, NULL));
        nn_step(opt);
    }
    return hash_params(net);
}

static uint64_t train_cnn(nn_context *nn)
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_conv2d_new(net, "conv1", 3, 10, 3, &(nn_conv2d_desc){ .padding = 1 });
    nn_batchnorm_new(net, "bn1", 10, NULL);
    nn_fn_new(net, nn_relu);
    nn_maxpool2d_new(net, 2, NULL);
    nn_conv2d_new(net, "conv2", 10, 18, 3, &(nn_conv2d_desc){ .stride = 2, .no_bias = 1 });
    nn_fn_new(net, nn_silu);
    nn_fn_new(net, nn_global_avgpool);
    nn_linear_new(net, "fc", 18, 10, NULL);
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.05f, .momentum = 0.9f, .weight_decay = 1e-4f });
    for (int i = 0; i < 50; i++) {
        int64_t labels[8];
        for (int j = 0; j < 8; j++) labels[j] = (i * 7 + j * 3) % 10;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *x = nn_randn(nn, NN_SHAPE(8, 3, 13, 11), 0, 1), *y = nn_from_as(nn, NN_I64, NN_SHAPE(8), labels);
        nn_backward(nn_cross_entropy(nn_forward(net, x), y, NULL));
        nn_step(opt);
    }
    return hash_params(net);
}

static uint64_t train_rnn(nn_context *nn)                /* an LSTM in both directions, a GRU on it, an RNN with relu: CTC on sequences of several lengths */
{
    nn_layer *net = nn_model_new(nn, NULL);
    nn_layer *lstm = nn_lstm_new(net, "lstm", 9, 21, &(nn_lstm_desc){ .layers = 2, .bidirectional = 1, .dropout = 0.1f });
    nn_layer *proj = nn_lstm_new(net, "proj", 42, 23, &(nn_lstm_desc){ .proj = 11 });
    nn_layer *gru = nn_gru_new(net, "gru", 11, 17, NULL), *rnn = nn_rnn_new(net, "rnn", 17, 13, &(nn_rnn_desc){ .relu = 1, .no_bias = 1 });
    nn_layer *fc = nn_linear_new(net, "fc", 13, 6, NULL);
    nn_optimizer *opt = nn_adam_new(net, &(nn_adam_desc){ .lr = 0.01f });
    for (int i = 0; i < 20; i++) {
        int64_t lengths[37], sizes[37], targets[37 * 3];
        for (int j = 0; j < 37; j++) { lengths[j] = 8 + (i + j) % 4; sizes[j] = 1 + j % 3; }
        for (int j = 0; j < 37 * 3; j++) targets[j] = 1 + (i * 7 + j * 3) % 5;
        nn_begin(nn, NN_TRAIN);
        nn_rnn_state s = { .lengths = nn_from_as(nn, NN_I64, NN_SHAPE(37), lengths) }, t = s;
        nn_tensor *y = nn_rnn_forward(proj, nn_rnn_forward(lstm, nn_randn(nn, NN_SHAPE(37, 11, 9), 0, 1), &s), &t);
        y = nn_log_softmax(nn_forward(fc, nn_forward(rnn, nn_forward(gru, y))), 2);
        nn_backward(nn_ctc_loss(nn_transpose(y, 0, 1), nn_from_as(nn, NN_I64, NN_SHAPE(37, 3), targets), s.lengths, nn_from_as(nn, NN_I64, NN_SHAPE(37), sizes), NULL));
        nn_step(opt);
    }
    return hash_params(net);
}

/* What the nets above are too small for: depthwise and 1x1 convolutions, Winograd, channels in lanes, dot products of many terms and of few outputs,
   attention, updates in the tiles of a product. The hash without Winograd must be another one where it is used (test_determinism.c). */
static uint64_t train_paths(nn_context *nn)
{
    nn_layer *net = nn_model_new(nn, NULL), *pictures = nn_group_new(net, "pictures"), *words = nn_group_new(net, "words");
    nn_conv2d_new(pictures, "strips", 3, 16, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_relu });
    nn_conv2d_new(pictures, "depthwise", 16, 16, 3, &(nn_conv2d_desc){ .padding = 1, .groups = 16 });
    nn_conv2d_new(pictures, "product", 16, 24, 1, &(nn_conv2d_desc){ .activation = nn_relu });
    nn_conv2d_new(pictures, "winograd", 24, 20, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_relu });
    nn_maxpool2d_new(pictures, 2, NULL);
    nn_conv2d_new(pictures, "small", 20, 20, 3, &(nn_conv2d_desc){ .padding = 1, .activation = nn_relu });
    nn_conv2d_new(pictures, "lanes", 20, 33, 3, &(nn_conv2d_desc){ .stride = 2, .padding = 1 });
    nn_flatten_new(pictures);
    nn_linear_new(pictures, "long", 33 * 4 * 4, 100, &(nn_linear_desc){ .activation = nn_gelu });
    nn_linear_new(pictures, "few", 100, 10, NULL);
    nn_transformer_encoder_layer_new(words, "layer", 36, 3, &(nn_transformer_desc){ .hidden = 70, .norm_first = 1 });
    nn_linear_new(words, "out", 36, 10, NULL);
    nn_optimizer *opt = nn_sgd_new(net, &(nn_sgd_desc){ .lr = 0.05f, .momentum = 0.9f });
    for (int i = 0; i < 4; i++) {
        int64_t labels[2 * 35];
        for (int j = 0; j < 2 * 35; j++) labels[j] = (i * 7 + j * 3) % 10;
        nn_begin(nn, NN_TRAIN);
        nn_tensor *scores = nn_forward(pictures, nn_randn(nn, NN_SHAPE(3, 3, 16, 16), 0, 1)), *more = nn_forward(words, nn_randn(nn, NN_SHAPE(2, 35, 36), 0, 1));
        nn_tensor *loss = nn_cross_entropy(scores, nn_from_as(nn, NN_I64, NN_SHAPE(3), labels), NULL);
        loss = nn_add(loss, nn_token_cross_entropy(more, nn_from_as(nn, NN_I64, NN_SHAPE(2, 35), labels), NULL));
        nn_backward_with(loss, &(nn_backward_desc){ .step = opt });
    }
    return hash_params(net);
}
