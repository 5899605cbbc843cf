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
from functional_nets import maker, net_of, user


class Ops:
    relu, tanh, sigmoid, rsqrt = staticmethod(jax.nn.relu), staticmethod(jnp.tanh), staticmethod(jax.nn.sigmoid), staticmethod(lax.rsqrt)

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


def train_step(workload, forward, shape):
    params, x = [], jnp.asarray(np.random.default_rng(2).random(shape, np.float32))
    scores = forward(Ops, maker(params, jnp.asarray), x, True)
    labels, target = jnp.arange(shape[0]) % 10, jnp.ones_like(scores)

    def loss(params, x):
        scores = forward(Ops, user(params), x, True)
        if workload.startswith("n2x"):
            return jnp.mean((scores - target) ** 2)
        if workload.startswith("n7c"):
            return 1e-7 * scores.sum()
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], 1))

    @(lambda f: jax.jit(f, donate_argnums=(0, 1)))
    def update(params, momentum, x):
        value, grads = jax.value_and_grad(loss)(params, x)
        momentum = [0.9 * m + g for m, g in zip(momentum, grads)]
        return [p - 0.01 * m for p, m in zip(params, momentum)], momentum, value

    state = [params, [jnp.zeros_like(p) for p in params]]

    def step():
        state[0], state[1], value = update(state[0], state[1], x)
        value.block_until_ready()
    return step


def infer_step(forward, shape):
    params, x = [], jnp.asarray(np.random.default_rng(2).random(shape, np.float32))
    forward(Ops, maker(params, jnp.asarray), x, False)
    run = jax.jit(lambda x: forward(Ops, user(params), x, False))                # weights are constants
    return lambda: run(x).block_until_ready()


def make(workload):
    if not workload.endswith(("train", "infer")):
        return None
    forward, shape = net_of(workload)
    if workload.endswith("infer"):
        return "us", 1, [infer_step(forward, shape)]
    return "samples_per_s", shape[0], [train_step(workload, forward, shape)]


worker.serve("jax", THREADS, make)
