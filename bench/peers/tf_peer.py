"""tf_peer.py - A worker (../measure.h) for TensorFlow: the nets of bench.c in a tf.function; the faster of its own runtime and XLA.

Run:  python tf_peer.py THREADS"""
import os
import sys

THREADS = int(sys.argv[1])
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import numpy as np
import tensorflow as tf

import worker
from functional_nets import maker, net_of, user

tf.config.threading.set_intra_op_parallelism_threads(THREADS)
tf.config.threading.set_inter_op_parallelism_threads(1)


class Ops:
    relu, tanh, sigmoid, rsqrt = staticmethod(tf.nn.relu), staticmethod(tf.tanh), staticmethod(tf.sigmoid), staticmethod(tf.math.rsqrt)

    @staticmethod
    def moments(x):
        return tf.nn.moments(x, (0, 1, 2))

    @staticmethod
    def conv(x, w, stride, padding, groups):
        if groups > 1:
            return tf.nn.depthwise_conv2d(x, tf.reshape(w, (w.shape[0], w.shape[1], groups, -1)), (1, stride, stride, 1), "SAME")
        return tf.nn.conv2d(x, w, stride, [(0, 0), (padding, padding), (padding, padding), (0, 0)])

    @staticmethod
    def maxpool(x, kernel, stride, padding):
        x = tf.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)]) if padding else x        # after a ReLU: zeros lose
        return tf.nn.max_pool2d(x, kernel, stride, "VALID")

    @staticmethod
    def flatten(x):
        return tf.reshape(x, (x.shape[0], -1))

    @staticmethod
    def mean(x):
        return tf.reduce_mean(x, (1, 2))


def train_step(workload, forward, shape, xla):
    params, x = [], tf.constant(np.random.default_rng(2).random(shape, np.float32))
    scores = forward(Ops, maker(params, tf.Variable), x, True)
    momentum = [tf.Variable(tf.zeros_like(p)) for p in params]
    labels, target = tf.range(shape[0]) % 10, tf.ones_like(scores)

    @tf.function(jit_compile=xla)
    def step():
        with tf.GradientTape() as tape:
            scores = forward(Ops, user(params), x, True)
            if workload.startswith("n2x"):
                loss = tf.reduce_mean((scores - target) ** 2)
            elif workload.startswith("n7c"):
                loss = 1e-7 * tf.reduce_sum(scores)
            else:
                loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores))
        for p, m, g in zip(params, momentum, tape.gradient(loss, params)):
            if g is not None:                            # running statistics have none
                m.assign(0.9 * m + g)
                p.assign_sub(0.01 * m)
        return loss
    return lambda: step().numpy()


def infer_step(forward, shape, xla):
    params, x = [], tf.constant(np.random.default_rng(2).random(shape, np.float32))
    forward(Ops, maker(params, tf.constant), x, False)

    @tf.function(jit_compile=xla)
    def run(x):
        return forward(Ops, user(params), x, False)
    return lambda: run(x).numpy()


def make(workload):
    if not workload.endswith(("train", "infer")) or workload.startswith(("n5", "n6")):
        return None
    forward, shape = net_of(workload)
    if workload.endswith("infer"):
        return "us", 1, [infer_step(forward, shape, xla) for xla in (False, True)]
    return "samples_per_s", shape[0], [train_step(workload, forward, shape, xla) for xla in (False, True)]


worker.serve("tensorflow", THREADS, make)
