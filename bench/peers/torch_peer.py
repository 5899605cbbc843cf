"""torch_peer.py - A worker (../measure.h) for PyTorch: the workloads of bench.c, eager or compiled.

Run:  OMP_NUM_THREADS=1 python torch_peer.py THREADS [--compile]
Both take the fused SGD, and for pictures the faster of the two memory formats. Compiled means torch.compile of the net with its loss,
and frozen weights for inference. Compiling takes seconds per workload; TORCHINDUCTOR_CACHE_DIR keeps it."""
import sys
import types

import torch
import torch.nn as nn

import worker
from torch_nets import gpt_of, net_of, random_tokens

THREADS, COMPILE = int(sys.argv[1]), "--compile" in sys.argv
torch.set_num_threads(THREADS)
torch.manual_seed(1)
cross_entropy = nn.CrossEntropyLoss()


def random_batch(shape, batch, form):
    x = torch.rand(batch, *shape)
    return x.contiguous(memory_format=form) if len(shape) == 3 else x


def formats(shape):
    return [torch.contiguous_format, torch.channels_last] if len(shape) == 3 else [torch.contiguous_format]


def sgd(net, lr=0.01):
    return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, fused=True)


def optimizer(net, workload):
    if workload.startswith("n5"):
        return torch.optim.Adam(net.parameters(), fused=True)
    return sgd(net, 1e-9 if workload.startswith("n7c_") else 0.01)


def compiled(f, **how):
    """torch.compile of a copy of f: it remembers by code object, so nets that share one would grow each other's checks and shapes."""
    own = types.FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    return torch.compile(own, dynamic=False, **how)


def train_step(workload, form):
    net, shape, batch = net_of(workload)
    net = net.train().to(memory_format=form)
    x, y = random_batch(shape, batch, form), torch.randint(0, 2 if workload.startswith("n5a_") else 10, (batch,))
    if workload.startswith("n5b_"):
        x, y, error = torch.randint(0, 65, (batch, 64)), torch.randint(0, 65, (batch * 64,)), cross_entropy
    elif workload.startswith("n2x_"):
        y, error = torch.rand(batch, 1), nn.MSELoss()
    elif workload.startswith("n7c_"):
        error = lambda scores, _: scores.sum()
    else:
        error = cross_entropy
    opt = optimizer(net, workload)
    loss = lambda x, y: error(net(x), y)
    if COMPILE:
        loss = compiled(loss)

    def step():
        opt.zero_grad()
        loss(x, y).backward()
        opt.step()
    return step


def epoch():
    """A data set in memory, shuffled; the batch is gathered by one index; the loss is read every step."""
    net, _, batch = net_of("n1_")
    opt = sgd(net)
    xs, ys = torch.rand(60000, 784), torch.randint(0, 10, (60000,))
    loss = lambda x, y: cross_entropy(net(x), y)
    loss = compiled(loss) if COMPILE else loss

    def step():
        order = torch.randperm(60000)
        for i in range(0, 60000, batch):
            at = order[i:i + batch]
            opt.zero_grad()
            error = loss(xs[at], ys[at])
            error.backward()
            opt.step()
            error.item()
    return step


def gpt(workload):
    """Training with the fused AdamW, a whole context, or one token behind half a context in the cache."""
    net = gpt_of(workload)
    context = net.context
    if workload.endswith("_train"):
        opt = torch.optim.AdamW(net.parameters(), lr=0.001, fused=True)
        x, y = random_tokens(12, context), random_tokens(12, context).flatten()
        loss = lambda x, y: cross_entropy(net(x).flatten(0, 1), y)
        loss = compiled(loss) if COMPILE else loss

        def step():
            opt.zero_grad()
            loss(x, y).backward()
            opt.step()
        return "tokens_per_s", 12 * context, [step]
    net.eval()
    if workload.endswith("_prefill"):
        x = random_tokens(1, context)
        run = compiled(lambda x: net(x), options={"freezing": True}) if COMPILE else net
        return "us", 1, [without_gradients(lambda: run(x))]
    caches, at, x = net.caches(), context // 2, random_tokens(1, 1)
    with torch.no_grad():
        net(random_tokens(1, at), caches)
    run = compiled(lambda x: net(x, caches, at)) if COMPILE else lambda x: net(x, caches, at)
    return "us", 1, [without_gradients(lambda: run(x))]


def infer_step(workload, form):
    net, shape, batch = net_of(workload)
    net = net.eval().to(memory_format=form)
    x = random_batch(shape, batch, form)
    run = compiled(lambda x: net(x), options={"freezing": True}) if COMPILE else net

    def step():
        run(x)
    return step


def product(workload):
    form, m, n, k = worker.gemm_shape(workload)
    a = torch.rand(k, m).t() if form[0] == "T" else torch.rand(m, k)
    b = torch.rand(n, k).t() if form[1] == "T" else torch.rand(k, n)
    c = torch.empty(m, n)
    return "GFLOPS", 2.0 * m * n * k, [without_gradients(lambda: torch.mm(a, b, out=c))]


def adds(tape):
    a, b = torch.rand(4, requires_grad=tape), torch.rand(4)

    def step():
        for _ in range(1000):
            torch.add(a, b)
    return "ns", 1000, [step if tape else without_gradients(step)]


def make(workload):
    if workload == "none" or (COMPILE and workload.startswith(("gemm_", "eager_"))):
        return None
    if workload.startswith("gemm_"):
        return product(workload)
    if workload.startswith("eager_"):
        return adds(workload.endswith("_tape"))
    if workload.endswith("_epoch938"):
        return "seconds", 1, [epoch()]
    if "_gpt_" in workload:
        return gpt(workload)
    shape, batch = net_of(workload)[1:]
    some = formats(shape)
    if workload.endswith("_train"):
        tokens = workload.startswith("n5b_")
        return "tokens_per_s" if tokens else "samples_per_s", batch * (64 if tokens else 1), [train_step(workload, f) for f in some]
    return "us", 1, [without_gradients(infer_step(workload, f)) for f in some]


def without_gradients(step):
    """Inference runs in inference mode, which is entered once, not per call: see main."""
    step.infer = True
    return step


def main():
    inner = worker.median_step

    def median_step(step, budget, warm):
        with torch.inference_mode(getattr(step, "infer", False)):
            return inner(step, budget, warm)
    worker.median_step = median_step
    worker.serve("pytorch-compiled" if COMPILE else "pytorch", THREADS, make)


if __name__ == "__main__":
    main()
