"""jax_peer.py - A worker (../measure.h) for JAX: the nets of bench.c under jax.jit, one call per step, parameters donated.

Run:  python jax_peer.py THREADS          XLA's pool is as large as the set of cores that the process may use, so that is set first."""
import os
import sys

THREADS = int(sys.argv[1])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import worker
from functional_nets import maker, net_of, takes_tokens, user


class Ops:
    relu, tanh, sigmoid, rsqrt = staticmethod(jax.nn.relu), staticmethod(jnp.tanh), staticmethod(jax.nn.sigmoid), staticmethod(lax.rsqrt)
    zeros = staticmethod(jnp.zeros)

    @staticmethod
    def average(x):
        return x.mean(-1, keepdims=True)

    @staticmethod
    def gelu(x):
        return jax.nn.gelu(x, approximate=False)

    @staticmethod
    def split4(x):
        return jnp.split(x, 4, -1)

    @staticmethod
    def swap(x):
        return jnp.swapaxes(x, 0, 1)

    @staticmethod
    def lookup(table, at):
        return table[at]

    @staticmethod
    def rows(x, width):
        return x.reshape(-1, width)

    @staticmethod
    def scan(step, state, xs):
        return lax.scan(step, state, xs)[1]

    @staticmethod
    def attention(qkv, heads, cache, at):
        b, t, width = qkv.shape
        q, k, v = (z.reshape(b, t, heads, -1) for z in jnp.split(qkv, 3, -1))
        if cache is not None:                            # updated in place: the caches are donated
            cache[:] = [lax.dynamic_update_slice(c, z, (0, at, 0, 0)) for c, z in zip(cache, (k, v))]
            k, v = (c[:, :at + t] for c in cache)
        return jax.nn.dot_product_attention(q, k, v, is_causal=cache is None).reshape(b, t, -1)

    @staticmethod
    def moments(x):
        return x.mean((0, 1, 2)), x.var((0, 1, 2))

    @staticmethod
    def conv(x, w, stride, padding, groups):
        return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups)

    @staticmethod
    def maxpool(x, kernel, stride, padding):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, kernel, kernel, 1), (1, stride, stride, 1), [(0, 0), (padding, padding), (padding, padding), (0, 0)])

    @staticmethod
    def flatten(x):
        return x.reshape(x.shape[0], -1)

    @staticmethod
    def mean(x):
        return x.mean((1, 2))


def batch_of(workload, shape):
    rng = np.random.default_rng(2)
    return jnp.asarray(rng.integers(0, 65, shape) if takes_tokens(workload) else rng.random(shape, np.float32))


def train_step(workload, forward, shape):
    params, x = [], batch_of(workload, shape)
    scores = forward(Ops, maker(params, jnp.asarray), x, True)
    labels, target = jnp.arange(scores.shape[0]) % min(10, scores.shape[-1]), jnp.ones_like(scores)

    def loss(params, x):
        scores = forward(Ops, user(params), x, True)
        if workload.startswith("n2x"):
            return jnp.mean((scores - target) ** 2)
        if workload.startswith("n7c"):
            return 1e-7 * scores.sum()
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1))

    def sgd(params, state, grads):
        momentum = [0.9 * m + g for m, g in zip(state, grads)]
        return [p - 0.01 * m for p, m in zip(params, momentum)], momentum

    def adam(params, state, grads):
        t, m, v = state
        t = t + 1
        m = [0.9 * a + 0.1 * g for a, g in zip(m, grads)]
        v = [0.999 * a + 0.001 * g * g for a, g in zip(v, grads)]
        rate, root, decay = 0.001 / (1 - 0.9 ** t), jnp.sqrt(1 - 0.999 ** t), 1e-5 if workload.startswith("n6") else 0
        return [p - decay * p - rate * a / (jnp.sqrt(b) / root + 1e-8) for p, a, b in zip(params, m, v)], (t, m, v)

    @(lambda f: jax.jit(f, donate_argnums=(0, 1)))
    def update(params, state, x):
        value, grads = jax.value_and_grad(loss)(params, x)
        return *(adam if workload.startswith(("n5", "n6")) else sgd)(params, state, grads), value

    def zeros():
        return [jnp.zeros_like(p) for p in params]
    state = [params, (jnp.float32(0), zeros(), zeros()) if workload.startswith(("n5", "n6")) else zeros()]

    def step():
        state[0], state[1], value = update(state[0], state[1], x)
        value.block_until_ready()
    return step


def infer_step(workload, forward, shape):
    params, x = [], batch_of(workload, shape)
    forward(Ops, maker(params, jnp.asarray), x, False)
    run = jax.jit(lambda x: forward(Ops, user(params), x, False))                # weights are constants
    return lambda: run(x).block_until_ready()


def decode_step(workload, forward, shape):
    """One token behind half a context in the caches."""
    params, x, at = [], batch_of(workload, (1, 1)), shape[1] // 2
    heads, layers, width = (4, 4, 128) if workload.startswith("n6a_") else (6, 6, 384)
    forward(Ops, maker(params, jnp.asarray), x, False)

    @(lambda f: jax.jit(f, donate_argnums=1))
    def run(x, caches):
        caches = [list(c) for c in caches]
        return forward(Ops, user(params), x, False, caches, at), caches
    caches = [[[jnp.zeros((1, shape[1], heads, width // heads)) for _ in range(2)] for _ in range(layers)]]

    def step():
        y, caches[0] = run(x, caches[0])
        y.block_until_ready()
    return step


def make(workload):
    if not workload.endswith(("_train", "_infer", "_prefill", "_decode")):
        return None
    forward, shape = net_of(workload)
    if workload.endswith(("_infer", "_prefill")):
        return "us", 1, [infer_step(workload, forward, shape)]
    if workload.endswith("_decode"):
        return "us", 1, [decode_step(workload, forward, shape)]
    tokens = takes_tokens(workload)
    return "tokens_per_s" if tokens else "samples_per_s", shape[0] * (shape[1] if tokens else 1), [train_step(workload, forward, shape)]


worker.serve("jax", THREADS, make)
