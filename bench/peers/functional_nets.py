"""functional_nets.py - The nets of bench.c for libraries of functions (JAX, TensorFlow): pictures are (B, H, W, C), which both prefer.

forward(ops, net, take, x, train): take(kind, *shape) hands out the next parameter, so that one text makes them and uses them.
Batch norm in training normalises by the batch; the running averages (a few hundred numbers) are left out, in the peer's favour."""

import numpy as np


def batchnorm(ops, take, x, channels, train):
    scale, shift, mean, var = take("one", channels), take("zero", channels), take("zero", channels), take("one", channels)
    if train:
        mean, var = ops.moments(x)
    factor = scale * ops.rsqrt(var + 1e-5)
    return x * factor + (shift - mean * factor)


def conv(ops, take, x, cin, cout, kernel, stride=1, padding=0, groups=1, bias=True):
    x = ops.conv(x, take("w", kernel, kernel, cin // groups, cout), stride, padding, groups)
    return x + take("b", cout) if bias else x


def dense(take, x, cin, cout):
    return x @ take("w", cin, cout) + take("b", cout)


def mlp(sizes):
    def forward(ops, take, x, train):
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            x = dense(take, x, a, b)
            x = ops.relu(x) if i + 2 < len(sizes) else x
        return x
    return forward


def xor(ops, take, x, train):
    return ops.sigmoid(dense(take, ops.tanh(dense(take, x, 2, 8)), 8, 1))


def cnn(layers, sizes):
    def forward(ops, take, x, train):
        for cin, cout, kernel, padding in layers:
            x = ops.maxpool(ops.relu(conv(ops, take, x, cin, cout, kernel, 1, padding)), 2, 2, 0)
        return mlp(sizes)(ops, take, ops.flatten(x), train)
    return forward


def block(ops, take, x, cin, cout, stride, train):
    y = ops.relu(batchnorm(ops, take, conv(ops, take, x, cin, cout, 3, stride, 1, bias=False), cout, train))
    y = batchnorm(ops, take, conv(ops, take, y, cout, cout, 3, 1, 1, bias=False), cout, train)
    if stride != 1 or cin != cout:
        x = batchnorm(ops, take, conv(ops, take, x, cin, cout, 1, stride, bias=False), cout, train)
    return ops.relu(y + x)


def resnet18(classes):
    def forward(ops, take, x, train):
        small = classes == 10
        x = conv(ops, take, x, 3, 64, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        x = ops.relu(batchnorm(ops, take, x, 64, train))
        x = x if small else ops.maxpool(x, 3, 2, 1)
        cin = 64
        for stage in range(4):
            cout = 64 << stage
            x = block(ops, take, x, cin, cout, 2 if stage else 1, train)
            x = block(ops, take, x, cout, cout, 1, train)
            cin = cout
        return dense(take, ops.mean(x), 512, classes)
    return forward


def separable(ops, take, x, train):
    x = ops.relu(batchnorm(ops, take, conv(ops, take, x, 64, 64, 3, 1, 1, 64, False), 64, train))
    return ops.relu(batchnorm(ops, take, conv(ops, take, x, 64, 128, 1, bias=False), 128, train))


def layernorm(ops, take, x, width):
    mean = ops.average(x)
    x = x - mean
    return x * ops.rsqrt(ops.average(x * x) + 1e-5) * take("one", width) + take("zero", width)


def lstm(ops, take, x, cin, width):
    """x: (T, B, cin); all products with the input at once."""
    recurrent = take("w", width, 4 * width)

    def step(state, gates):
        h, c = state
        i, f, g, o = ops.split4(gates + h @ recurrent)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return (h, c), h
    start = ops.zeros((x.shape[1], width))
    return ops.scan(step, (start, start), dense(take, x, cin, 4 * width))


def last_of_lstm(ops, take, x, train):
    return dense(take, lstm(ops, take, ops.swap(x), 10, 128)[-1], 128, 2)


def char_lstm(ops, take, x, train):
    x = ops.swap(ops.lookup(take("w", 65, 256), x))
    for _ in range(2):
        x = lstm(ops, take, x, 256, 256)
    return ops.rows(dense(take, ops.swap(x), 256, 65), 65)


def gpt(layers, heads, width):
    """nanoGPT's decoder; the embedding is also the last layer. cache: (key, value) per layer, (B, heads, context, D), and where the token stands."""
    def forward(ops, take, x, train, caches=None, at=0):
        tokens, context = take("w", 65, width), 64 if width == 128 else 256
        x = ops.lookup(tokens, x) + take("w", context, width)[at:at + x.shape[1]]
        for i in range(layers):
            y = layernorm(ops, take, x, width)
            y = ops.attention(dense(take, y, width, 3 * width), heads, caches and caches[i], at)
            x = x + dense(take, y, width, width)
            y = layernorm(ops, take, x, width)
            x = x + dense(take, ops.gelu(dense(take, y, width, 4 * width)), 4 * width, width)
        return ops.rows(layernorm(ops, take, x, width) @ tokens.T, 65)
    return forward


NETS = {
    "n1": (mlp([784, 128, 10]), (784,)),
    "n2": (mlp([784, 128, 64, 10]), (784,)),
    "n2x": (xor, (2,)),
    "n3": (cnn([(3, 32, 3, 1), (32, 64, 3, 1)], [4096, 128, 10]), (32, 32, 3)),
    "n4": (cnn([(3, 6, 5, 0), (6, 16, 5, 0)], [400, 120, 84, 10]), (32, 32, 3)),
    "n5a": (last_of_lstm, (32, 10)),
    "n5b": (char_lstm, (64,)),
    "n6a": (gpt(4, 4, 128), (64,)),
    "n6b": (gpt(6, 6, 384), (256,)),
    "n7a": (resnet18(10), (32, 32, 3)),
    "n7b": (resnet18(1000), (224, 224, 3)),
    "n7c": (separable, (32, 32, 64)),
}


def net_of(workload):
    """forward, shape of the batch (1 where the name has none)"""
    parts = workload.split("_")
    batch = next((int(p[1:]) for p in parts if p[:1] == "b" and p[1:].isdigit()), 1)
    forward, shape = NETS[parts[0]]
    return forward, (batch, *shape)


def takes_tokens(workload):
    return workload.startswith(("n5b_", "n6"))


def maker(parameters, convert):
    """A take() that makes parameters."""
    rng = np.random.default_rng(1)

    def take(kind, *shape):
        fan_in = int(np.prod(shape[:-1])) or 1
        value = {"one": np.ones, "zero": np.zeros}.get(kind, lambda s: rng.uniform(-1, 1, s) / np.sqrt(fan_in))(shape)
        parameters.append(convert(value.astype(np.float32)))
        return parameters[-1]
    return take


def user(parameters):
    """A take() that hands out what maker() made."""
    rest = iter(parameters)
    return lambda kind, *shape: next(rest)
