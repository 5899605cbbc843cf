#!/usr/bin/env python3
"""Records tests/golden/*.bin: what PyTorch computes, for tests/test_golden.c to replay without PyTorch.

    python3 tests/record_golden.py [theme ...]         needs torch >= 2.0 and numpy; CPU, one thread

Inputs are float32. Expected results are computed by PyTorch in float64 from those inputs and stored as float32: then a tolerance
measures our rounding and not PyTorch's. Exceptions say f32=True: the edge-value cases (overflow happens in float32).
Lion and a few compositions are not in PyTorch; their formulas stand here.

A file is "NNGOLD1\n" and then records; all numbers are little-endian:
    string op, string label                            string: u8 length, bytes
    u8 count, options: string name, u8 kind, value     kind 0: i32, 1: f32, 2: u16 length and bytes
    u8 count, inputs:  string name, u8 wants_gradient, tensor
    u8 count, outputs: tensor
    tensor dy                                          ndim 255: there is none; it belongs to output 0
    u8 count, gradients: u8 input, tensor
tensor: u8 dtype (0 f32, 1 i64), u8 ndim, u16 sizes, u8 storage and then
    storage 0: the numbers, f32 or i32
    storage 1: i32 low, u32 range, u32 seed: number i is low + hash(seed, i) % range, for f32 divided by 65536
"""
import os, struct, sys, zlib
import numpy as np
import torch
import torch.nn as tnn
import torch.nn.functional as F

torch.set_num_threads(1)
HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "data")


# ---- numbers from a hash, the same here and in C --------------------------------------------------------
def hashed(seed, n):
    """lowbias32 of (seed, i) by Chris Wellons"""
    with np.errstate(over="ignore"):
        h = np.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
        h ^= h >> np.uint32(16); h *= np.uint32(0x7FEB352D)
        h ^= h >> np.uint32(15); h *= np.uint32(0x846CA68B)
        h ^= h >> np.uint32(16)
    return h


def f32(x):
    """the double that has the value of float32 x: what C sees"""
    return float(np.float32(x))


class In:
    """an input: numbers, and how they are stored"""
    def __init__(self, name, values, grad, stored=None):
        self.name, self.values, self.grad, self.stored = name, values, grad, stored


class Theme:
    def __init__(self, name):
        self.name, self.records, self.counts, self.seen = name, [], {}, set()

    def write(self):
        data = b"NNGOLD1\n" + b"".join(self.records)
        with open(os.path.join(HERE, self.name + ".bin"), "wb") as f:
            f.write(data)
        print("%-12s %5d cases %9d bytes" % (self.name, len(self.records), len(data)))


theme = None
serial = [0]


def string(s):
    b = s.encode()
    assert len(b) < 256
    return struct.pack("<B", len(b)) + b


def tensor_bytes(values, stored=None):
    if values is None:
        return struct.pack("<BB", 0, 255)
    a = np.asarray(values)
    integer = a.dtype.kind in "iub"
    head = struct.pack("<BB%dH" % a.ndim, int(integer), a.ndim, *a.shape)
    if stored:
        return head + b"\1" + struct.pack("<iII", *stored)
    with np.errstate(over="ignore"):
        return head + b"\0" + a.astype("<i4" if integer else "<f4").tobytes()


def seed_of(text):
    return zlib.crc32(text.encode())


def rnd(*shape, low=-1.5, high=1.5, grad=True, name="x", key=None):
    """float32 numbers on the grid of 1/65536 in [low, high)"""
    serial[0] += 1
    seed = seed_of(key or "%s %s %d" % (theme.name if theme else "", name, serial[0]))
    lo, count = int(round(low * 65536)), int(round((high - low) * 65536))
    n = int(np.prod(shape)) if shape else 1
    v = (hashed(seed, n) % np.uint32(count)).astype(np.int64) + lo
    return In(name, (v / 65536.0).astype(np.float32).reshape(shape), grad, (lo, count, seed))


def ints(*shape, low=0, high=10, name="index", key=None):
    serial[0] += 1
    seed = seed_of(key or "%s %s %d" % (theme.name if theme else "", name, serial[0]))
    n = int(np.prod(shape)) if shape else 1
    v = (hashed(seed, n) % np.uint32(high - low)).astype(np.int64) + low
    return In(name, v.reshape(shape), False, (low, high - low, seed))


def raw(values, name="x", grad=True):
    a = np.asarray(values)
    if a.dtype.kind == "f":
        a = a.astype(np.float32)
    return In(name, a, grad and a.dtype.kind == "f")


def numpy_of(t):
    t = t.detach()
    return t.to(torch.int64).numpy() if t.dtype in (torch.bool,) else t.numpy()


def record(op, label, opts, inputs, outputs, dy=None, grads=(), dy_stored=None):
    """one record from arrays that exist already"""
    serial[0] = seed_of(theme.name + op + label) & 0xFFFF
    if (op, label) in theme.seen:
        raise SystemExit("%s %s is there twice" % (op, label))
    theme.seen.add((op, label))
    b = string(op) + string(label) + struct.pack("<B", len(opts))
    for k, v in opts.items():
        b += string(k)
        if isinstance(v, str):
            b += struct.pack("<BH", 2, len(v)) + v.encode()
        elif isinstance(v, float):
            b += struct.pack("<Bf", 1, v)
        else:
            b += struct.pack("<Bi", 0, int(v))
    b += struct.pack("<B", len(inputs))
    for i in inputs:
        b += string(i.name) + struct.pack("<B", int(bool(i.grad))) + tensor_bytes(i.values, i.stored)
    b += struct.pack("<B", len(outputs)) + b"".join(tensor_bytes(o) for o in outputs)
    b += tensor_bytes(dy, dy_stored)
    b += struct.pack("<B", len(grads)) + b"".join(struct.pack("<B", k) + tensor_bytes(g) for k, g in grads)
    theme.records.append(b)
    theme.counts[op] = theme.counts.get(op, 0) + 1


def case(op, label, fn, inputs, grad=True, f32_ref=False, ones=False, transposed=0, more=None, **opts):
    """Runs fn on the inputs, and its gradient for an upstream gradient dy.
    transposed: bit k: input k reaches fn, and our op, as a view with its last two dimensions exchanged.
    loose: an option that multiplies the tolerance, for the few cases whose float32 inputs leave no more digits: the mean of 100..101 is only known
    to 4e-6, a log-sum-exp of 1000 to 6e-5; a batch of two numbers is normalised to -1, 1 whatever they are, and dx is a difference of equals; a row of one number is
    divided by sqrt(eps), and so is the rounding of its distance from the mean.
    more: a function that gives further outputs, without gradient, after fn."""
    real = torch.float32 if f32_ref else torch.float64
    for k in opts:
        if isinstance(opts[k], float):
            opts[k] = f32(opts[k])
    leaves, args = [], []
    for k, i in enumerate(inputs):
        t = torch.tensor(i.values)
        if t.is_floating_point():
            t = t.to(real)
            t.requires_grad_(bool(i.grad and grad))
        leaves.append(t)
        args.append(t.transpose(-2, -1) if transposed >> k & 1 else t)
    if transposed:
        opts["transposed"] = transposed
    y = fn(*args)
    ys = list(y) if isinstance(y, (tuple, list)) else [y]
    dy, grads, stored = None, [], None
    if grad and ys[0].is_floating_point() and ys[0].requires_grad:
        if ones:
            d = raw(np.ones(tuple(ys[0].shape), np.float32), "dy")
        else:
            d = rnd(*ys[0].shape, name="dy", low=-1, high=1, key="dy %s %s" % (op, label))
        dy, stored = d.values, d.stored
        ys[0].backward(torch.tensor(d.values, dtype=real), retain_graph=False)
        for k, t in enumerate(leaves):
            if inputs[k].grad and t.requires_grad:
                g = t.grad if t.grad is not None else torch.zeros_like(t)
                grads.append((k, g.numpy()))
    if more:
        ys += list(more(*args))
    for i in inputs:
        if not grad:
            i.grad = False
    record(op, label, opts, inputs, [numpy_of(t) for t in ys], dy, grads, stored)


def shape_opts(prefix, values):
    """a list of integers as options: n_<prefix>, <prefix>0, <prefix>1 ..."""
    d = {"n_" + prefix: len(values)}
    for i, v in enumerate(values):
        d["%s%d" % (prefix, i)] = v
    return d


def name_of(*parts):
    return " ".join(p if isinstance(p, str) else str(p).replace(" ", "") for p in parts if p != "")


# ---- elementwise ----------------------------------------------------------------------------------------
INF, NAN = float("inf"), float("nan")
EDGES = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -3.0, 6.0, 1e-6, -1e-6, 1e-20, -1e-20, 10.0, -10.0, 20.5, -20.5, 60.0, -60.0,
         100.0, -100.0, 1e4, -1e4, 1e18, -1e18, INF, -INF, NAN]

UNARY = {
    "neg": (torch.neg, -3, 3), "abs": (torch.abs, -3, 3), "sign": (torch.sign, -3, 3), "square": (torch.square, -3, 3),
    "sqrt": (torch.sqrt, 0.01, 9), "rsqrt": (torch.rsqrt, 0.05, 9), "reciprocal": (torch.reciprocal, 0.1, 4), "exp": (torch.exp, -5, 5),
    "log": (torch.log, 0.01, 20), "log1p": (torch.log1p, -0.9, 5), "sin": (torch.sin, -10, 10), "cos": (torch.cos, -10, 10),
    "tanh": (torch.tanh, -4, 4), "sigmoid": (torch.sigmoid, -8, 8), "relu": (torch.relu, -3, 3), "relu6": (F.relu6, -3, 9),
    "selu": (F.selu, -4, 4), "gelu": (F.gelu, -5, 5), "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), -5, 5), "silu": (F.silu, -8, 8),
    "mish": (F.mish, -8, 8), "logsigmoid": (F.logsigmoid, -8, 8), "softsign": (F.softsign, -6, 6), "hardsigmoid": (F.hardsigmoid, -5, 5),
    "hardswish": (F.hardswish, -5, 5), "floor": (torch.floor, -5, 5), "ceil": (torch.ceil, -5, 5), "round": (torch.round, -5, 5),
    "erf": (torch.erf, -4, 4),
}
UNARY1 = {
    "add_scalar": (lambda x, p: x + p, -3, 3, [0.0, 1.5, -2.25]), "mul_scalar": (lambda x, p: x * p, -3, 3, [0.0, 2.0, -0.3]),
    "pow_scalar": (lambda x, p: torch.pow(x, p), 0.1, 3, [2.0, 3.0, 0.5, -1.0, -1.7, 1.0]),
    "leaky_relu": (lambda x, p: F.leaky_relu(x, p), -3, 3, [0.01, 0.2, 1.5]), "elu": (lambda x, p: F.elu(x, p), -4, 4, [1.0, 0.4, 2.0]),
    "celu": (lambda x, p: F.celu(x, p), -4, 4, [1.0, 0.4, 2.0]),
    "softplus": (lambda x, p: F.softplus(x, p, threshold=500), -6, 6, [1.0, 0.5, 3.0]),
}
UNARY2 = {"clamp": (lambda x, p, q: torch.clamp(x, p, q), -3, 3, [(-1.0, 1.0), (0.0, 2.0), (-0.5, 9.0)]),
          "hardtanh": (lambda x, p, q: F.hardtanh(x, p, q), -3, 3, [(-1.0, 1.0), (0.0, 2.0), (-0.5, 9.0)])}
BINARY = {
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum,
    "eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge,
}
COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")


# Where nn.h means to differ from PyTorch, these arguments are left out:
#   sign(nan) is nan, as in NumPy; PyTorch: 0.                      softsign(inf) has gradient 0; PyTorch: inf / inf.
#   gelu(inf) is inf; PyTorch's vector code: nan.                   hardswish(-inf) is 0, its limit; PyTorch: -inf * 0. Gradient at nan: nan; 1.
#   (-inf)^0.5 is inf as in IEEE 754's pow; PyTorch calls sqrt;     clamp passes the gradient at the bounds, as PyTorch does with one bound;
#   its gradient at -0 is inf, PyTorch's -inf.                      with two, 2.15 passes nothing (numbers) or half of it (tensors).
LEFT_OUT = {"sign": [NAN], "gelu": [INF, -INF], "softsign": [INF, -INF], "hardswish": [-INF, NAN]}


def edges_for(op, *bounds):
    out = LEFT_OUT.get(op, []) + (list(bounds) if op == "clamp" else [0.0, -INF] if op == "pow_scalar" and bounds[0] == 0.5 else [])
    return [e for e in EDGES if not any(e == o or (e != e and o != o) for o in out)]


def elementwise():
    for op, (fn, lo, hi) in UNARY.items():
        case(op, "37", fn, [rnd(37, low=lo, high=hi)])
        case(op, "3d", fn, [rnd(2, 3, 4, low=lo, high=hi)])
        case(op, "scalar", fn, [rnd(low=lo, high=hi)])
        case(op, "transposed", fn, [rnd(5, 9, low=lo, high=hi)], transposed=1)
        case(op, "edges", fn, [raw(edges_for(op))], f32_ref=True, ones=True)
    for op, (fn, lo, hi, ps) in UNARY1.items():
        for p in ps:
            case(op, "37 p=%g" % p, lambda x: fn(x, f32(p)), [rnd(37, low=lo, high=hi)], p=p)
            case(op, "transposed p=%g" % p, lambda x: fn(x, f32(p)), [rnd(3, 2, 7, low=lo, high=hi)], transposed=1, p=p)
            case(op, "edges p=%g" % p, lambda x: fn(x, f32(p)), [raw(edges_for(op, p))], f32_ref=op != "softplus", ones=True, p=p)
    for op, (fn, lo, hi, ps) in UNARY2.items():
        for p, q in ps:
            case(op, "37 p=%g q=%g" % (p, q), lambda x: fn(x, p, q), [rnd(37, low=lo, high=hi)], p=p, q=q)
            case(op, "transposed p=%g q=%g" % (p, q), lambda x: fn(x, p, q), [rnd(3, 2, 7, low=lo, high=hi)], transposed=1, p=p, q=q)
            case(op, "edges p=%g q=%g" % (p, q), lambda x: fn(x, p, q), [raw(edges_for(op, p, q))], f32_ref=True, ones=True, p=p, q=q)
    shapes = [((37,), (37,)), ((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 5)), ((2, 3, 4), (3, 1)), ((), (2, 3)), ((6,), ()), ((2, 1, 4, 1), (3, 1, 5)),
              ((1, 7), (5, 7)), ((2, 3, 5), (2, 1, 1))]
    for op, fn in BINARY.items():
        grad = op not in COMPARE
        lo, hi = (0.2, 3) if op in ("div", "pow") else (-2, 2)
        call = fn if grad else lambda a, b: fn(a, b).to(a.dtype)
        for sa, sb in shapes:
            a, b = rnd(*sa, low=lo, high=hi, name="a"), rnd(*sb, low=lo, high=hi, name="b")
            case(op, name_of(sa, sb), call, [a, b], grad=grad)
        case(op, "transposed a", call, [rnd(4, 3, low=lo, high=hi, name="a"), rnd(3, 4, low=lo, high=hi, name="b")], grad=grad, transposed=1)
        case(op, "transposed b broadcast", call, [rnd(2, 3, 4, low=lo, high=hi, name="a"), rnd(4, 3, low=lo, high=hi, name="b")], grad=grad, transposed=2)
        # ties are where maximum, minimum and the comparisons are decided
        if op in COMPARE + ("maximum", "minimum"):
            case(op, "ties", call, [raw([1.0, 2.0, -1.0, 0.0, 3.0, -0.0], "a"), raw([1.0, 1.0, -1.0, 0.0, 4.0, 0.0], "b")], grad=grad)
        e = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 1e30, INF, -INF, NAN]
        case(op, "edges", call, [raw(np.repeat(e, len(e)), "a"), raw(np.tile(e, len(e)), "b")], grad=grad, f32_ref=True, ones=True)
    for sc, sa, sb in [((7,), (7,), (7,)), ((3, 4), (3, 4), (3, 4)), ((3, 1), (1, 4), (3, 4)), ((2, 3), (), (3,)), ((4,), (2, 1), (2, 4)), ((2, 1, 2), (3, 1), ())]:
        c = ints(*sc, low=0, high=2)
        case("where", name_of(sc, sa, sb), lambda c, a, b: torch.where(c != 0, a, b),
             [raw(c.values.astype(np.float32), "condition", grad=False), rnd(*sa, name="a"), rnd(*sb, name="b")])


# ---- reductions -----------------------------------------------------------------------------------------
def all_dims(dims, x):
    return list(range(x.dim())) if len(dims) == 0 else [d % x.dim() for d in dims]


def joined(x, dims, keepdim, fn):
    """fn(x, dim) of the dimensions dims made one, as torch's argmax and prod take only one"""
    d = all_dims(dims, x)
    keep = [i for i in range(x.dim()) if i not in d]
    y = fn(x.permute(*keep, *sorted(d)).reshape([x.shape[i] for i in keep] + [-1]))
    return y.reshape([1 if i in d else x.shape[i] for i in range(x.dim())]) if keepdim else y


def reductions():
    def call(op, dims, keepdim, population=0, p=2.0):
        k = bool(keepdim)
        return {
            "sum": lambda x: torch.sum(x, all_dims(dims, x), k), "mean": lambda x: torch.mean(x, all_dims(dims, x), k),
            "max": lambda x: torch.amax(x, all_dims(dims, x), k), "min": lambda x: torch.amin(x, all_dims(dims, x), k),
            "prod": lambda x: joined(x, dims, k, lambda y: y.prod(-1)),
            "var": lambda x: torch.var(x, all_dims(dims, x), unbiased=not population, keepdim=k),
            "std": lambda x: torch.std(x, all_dims(dims, x), unbiased=not population, keepdim=k),
            "logsumexp": lambda x: torch.logsumexp(x, all_dims(dims, x), k),
            "norm": lambda x: torch.linalg.vector_norm(x, p, all_dims(dims, x), k),
            "argmax": lambda x: joined(x, dims, k, lambda y: y.argmax(-1)), "argmin": lambda x: joined(x, dims, k, lambda y: y.argmin(-1)),
        }[op]
    ops = ["sum", "mean", "max", "min", "prod", "var", "std", "logsumexp", "norm", "argmax", "argmin"]
    combos = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (-1,)]
    for op in ops:
        for dims in combos:
            for keepdim in (0, 1):
                if dims == (-1,) and keepdim:
                    continue
                case(op, name_of("(3,4,5)", dims, "keepdim" if keepdim else ""), call(op, dims, keepdim), [rnd(3, 4, 5)], keepdim=keepdim, **shape_opts("dim", dims))
        for shape, dims in [((150,), ()), ((1,), ()) if op not in ("var", "std") else ((2,), ()), ((3, 70), (1,)), ((70, 3), (0,)), ((2, 2, 3, 2, 3), (1, 3)), ((2, 2, 3, 2, 3), (0, 2, 4))]:
            case(op, name_of(shape, dims), call(op, dims, 0), [rnd(*shape)], keepdim=0, **shape_opts("dim", dims))
        case(op, "transposed", call(op, (0,), 0), [rnd(6, 5)], transposed=1, keepdim=0, **shape_opts("dim", (0,)))
        case(op, "transposed last", call(op, (2,), 1), [rnd(2, 6, 5)], transposed=1, keepdim=1, **shape_opts("dim", (2,)))
    for op in ("var", "std"):
        for dims in [(), (0,), (1, 2)]:
            case(op, name_of("population", dims), call(op, dims, 0, 1), [rnd(3, 4, 5)], keepdim=0, population=1, **shape_opts("dim", dims))
        # large mean, small spread: a one-pass formula loses everything here
        case(op, "far from zero", call(op, (1,), 0), [rnd(3, 40, low=100, high=101)], keepdim=0, loose=10.0, **shape_opts("dim", (1,)))
    for p in (1.0, 3.0, 0.5, 2.5):
        for dims in [(), (1,), (0, 2)]:
            case("norm", name_of("p=%g" % p, dims), call("norm", dims, 0, 0, p), [rnd(3, 4, 5, low=0.1, high=1.5)], keepdim=0, p=p, **shape_opts("dim", dims))
    ties = [[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0], [-1.0, -2.0, -1.0, -2.0]]
    for op in ("max", "min", "argmax", "argmin"):
        case(op, "ties", call(op, (1,), 0), [raw(ties)], keepdim=0, **shape_opts("dim", (1,)))
        case(op, "ties all", call(op, (), 0), [raw(ties)], keepdim=0, **shape_opts("dim", ()))
        case(op, "nan", call(op, (1,), 0), [raw([[1.0, NAN, 3.0], [1.0, 2.0, 3.0], [-INF, INF, 0.0]])], grad=False, keepdim=0, **shape_opts("dim", (1,)))
    case("prod", "one zero", call("prod", (1,), 0), [raw([[1.0, 0.0, 3.0], [2.0, 4.0, 0.5]])], keepdim=0, **shape_opts("dim", (1,)))
    case("prod", "two zeros", call("prod", (), 0), [raw([[1.0, 0.0, 3.0], [0.0, 4.0, 0.5]])], keepdim=0, **shape_opts("dim", ()))
    case("norm", "zeros", call("norm", (1,), 0), [raw([[0.0, 0.0], [3.0, 4.0]])], keepdim=0, **shape_opts("dim", (1,)))
    case("logsumexp", "large", call("logsumexp", (1,), 0), [raw([[1000.0, 1001.0], [-1000.0, -1001.0], [0.0, -INF]])], keepdim=0, loose=10.0, **shape_opts("dim", (1,)))
    case("logsumexp", "infinite", call("logsumexp", (1,), 0), [raw([[-INF, -INF], [INF, 1.0]])], grad=False, keepdim=0, **shape_opts("dim", (1,)))
    for shape, d in [((9,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 3, 4), 1), ((2, 3, 4), -1), ((2, 70), 1), ((70, 2), 0), ((1, 1), 0)]:
        case("cumsum", name_of(shape, d), lambda x: torch.cumsum(x, d), [rnd(*shape)], dim=d)
    case("cumsum", "transposed", lambda x: torch.cumsum(x, 0), [rnd(4, 5)], transposed=1, dim=0)
    for dim in (0, 1, 2, -1):
        for op, fn in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
            case(op, name_of("(3,4,5)", dim), lambda x: fn(x, dim), [rnd(3, 4, 5, low=-3, high=3)], dim=dim)
    for op, fn in (("softmax", F.softmax), ("log_softmax", F.log_softmax)):
        case(op, "7", lambda x: fn(x, 0), [rnd(7, low=-3, high=3)], dim=0)
        case(op, "one", lambda x: fn(x, 1), [rnd(5, 1, low=-3, high=3)], dim=1)
        case(op, "long", lambda x: fn(x, 1), [rnd(2, 90, low=-9, high=9)], dim=1)
        case(op, "4d channels", lambda x: fn(x, 1), [rnd(2, 5, 3, 2, low=-3, high=3)], dim=1)
        case(op, "transposed", lambda x: fn(x, 1), [rnd(6, 5, low=-3, high=3)], transposed=1, dim=1)
        case(op, "large", lambda x: fn(x, 1), [raw([[1000.0, 1001.0, 999.0], [-1000.0, 0.0, 1000.0], [88.0, -88.0, 0.0], [0.0, -INF, 1.0]])], dim=1)


# ---- linear algebra -------------------------------------------------------------------------------------
def linear_algebra():
    pairs = [((3, 4), (4, 5)), ((1, 1), (1, 1)), ((7, 3), (3, 1)), ((1, 9), (9, 6)), ((4,), (4,)), ((4,), (4, 3)), ((3, 4), (4,)), ((2, 3, 4), (2, 4, 5)),
             ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((1, 3, 4), (2, 4, 2)), ((2, 1, 3, 2), (3, 2, 4)), ((2, 2, 3, 2), (2, 2, 2, 3)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)),
             ((17, 3), (3, 5)), ((5, 33), (33, 4)), ((2, 70), (70, 2)), ((9, 8), (8, 16)), ((6, 16), (16, 17)), ((3, 1, 2, 3), (1, 2, 3, 2)), ((12, 1), (1, 12))]
    for a, b in pairs:
        case("matmul", name_of(a, b), torch.matmul, [rnd(*a, name="a"), rnd(*b, name="b")])
    for bits, a, b in [(1, (4, 3), (4, 5)), (2, (3, 4), (5, 4)), (3, (4, 3), (5, 4)), (1, (2, 4, 3), (2, 4, 5)), (2, (2, 3, 4), (2, 5, 4)), (3, (2, 4, 3), (2, 5, 4)), (2, (2, 3, 4), (5, 4)),
                       (1, (3, 19), (3, 2)), (2, (2, 20), (9, 20))]:
        case("matmul", name_of(a, b, "transposed", bits), torch.matmul, [rnd(*a, name="a"), rnd(*b, name="b")], transposed=bits)
    for x, o in [((3, 4), 5), ((1, 7), 1), ((6,), 4), ((2, 3, 4), 5), ((2, 2, 3, 2), 3), ((5, 33), 4), ((17, 2), 16), ((4, 1), 18)]:
        for bias in (1, 0):
            i = [rnd(*x), rnd(o, x[-1], name="w")] + ([rnd(o, name="b")] if bias else [])
            case("linear", name_of(x, o, "" if bias else "no bias"), F.linear, i)
    for act, fn in [("relu", F.relu), ("tanh", torch.tanh), ("gelu", F.gelu), ("sigmoid", torch.sigmoid)]:
        case("linear", act, lambda x, w, b: fn(F.linear(x, w, b)), [rnd(3, 4), rnd(5, 4, name="w"), rnd(5, name="b")], activation=act)
    case("linear", "transposed x", F.linear, [rnd(4, 6), rnd(5, 4, name="w"), rnd(5, name="b")], transposed=1)
    case("linear", "transposed w", F.linear, [rnd(6, 4), rnd(4, 5, name="w"), rnd(5, name="b")], transposed=2)


# ---- shapes, indices, order -----------------------------------------------------------------------------
def shape_ops():
    for a, b in [((3, 4), (12,)), ((3, 4), (2, 6)), ((3, 4), (-1,)), ((2, 3, 4), (2, -1)), ((2, 3, 4), (4, -1, 2)), ((6,), (1, 6, 1)), ((1,), ())]:
        case("reshape", name_of(a, b), lambda x: x.reshape(b) if b != () else x.reshape(()), [rnd(*a)], **shape_opts("d", b))
    case("reshape", "transposed", lambda x: x.reshape(12), [rnd(3, 4)], transposed=1, **shape_opts("d", (12,)))
    case("reshape", "transposed 3d", lambda x: x.reshape(2, 12), [rnd(2, 3, 4)], transposed=1, **shape_opts("d", (2, 12)))
    for a, d in [((3, 4), 0), ((2, 3, 4), 1), ((2, 3, 4), 0), ((2, 3, 2, 2), 2), ((5,), 0), ((2, 3, 2, 2), -2)]:
        case("flatten", name_of(a, d), lambda x: torch.flatten(x, d), [rnd(*a)], dim=d)
    for a, d in [((1, 4), 0), ((3, 1), 1), ((3, 1), -1), ((2, 1, 3), 1), ((1,), 0)]:
        case("squeeze", name_of(a, d), lambda x: x.squeeze(d), [rnd(*a)], dim=d)
    for a, d in [((4,), 0), ((4,), 1), ((4,), -1), ((2, 3), 1), ((2, 3), 2), ((2, 3), -2), ((), 0)]:
        case("unsqueeze", name_of(a, d), lambda x: x.unsqueeze(d), [rnd(*a)], dim=d)
    for a, d in [((3, 4), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 2, 1)), ((2, 3, 2, 2), (0, 2, 3, 1)), ((2, 3, 2, 2), (3, 2, 1, 0)), ((2, 3, 4), (-1, 0, 1))]:
        case("permute", name_of(a, d), lambda x: x.permute(d), [rnd(*a)], **shape_opts("d", d))
    for a, d0, d1 in [((3, 4), 0, 1), ((2, 3, 4), 0, 2), ((2, 3, 4), -1, -2), ((2, 3, 4), 1, 1), ((2, 3, 2, 2), 1, 3)]:
        case("transpose", name_of(a, d0, d1), lambda x: x.transpose(d0, d1), [rnd(*a)], dim0=d0, dim1=d1)
    for a, b in [((3, 1), (3, 4)), ((1, 4), (3, 4)), ((4,), (3, 4)), ((1, 3, 1), (2, 3, 5)), ((3, 1), (-1, 4)), ((3, 1), (2, 3, 4)), ((), (2, 3)), ((3, 4), (3, 4))]:
        case("expand", name_of(a, b), lambda x: x.expand(b), [rnd(*a)], **shape_opts("d", b))
    for a, d, s, e, st in [((10,), 0, 2, 7, 1), ((10,), 0, 0, 10, 3), ((4, 5), 0, 1, 3, 1), ((4, 5), 1, 1, 5, 2), ((4, 5), -1, -3, 5, 1), ((2, 3, 4), 1, 0, -1, 1), ((4, 5), 0, 0, 100, 1),
                           ((10,), 0, 3, 3, 1), ((2, 3, 4), 2, 1, 4, 2)]:
        def sl(x):
            idx = [slice(None)] * x.dim()
            idx[d] = slice(s, e, st)
            return x[tuple(idx)]
        case("slice", name_of(a, d, s, e, st), sl, [rnd(*a)], dim=d, start=s, end=e, step=st)
    for a, d, k in [((5,), 0, 3), ((4, 5), 0, 2), ((4, 5), 1, -1), ((2, 3, 4), 1, 0), ((2, 3, 4), -1, 3)]:
        case("select", name_of(a, d, k), lambda x: x.select(d, k), [rnd(*a)], dim=d, index=k)
    case("contiguous", "transposed", lambda x: x.contiguous(), [rnd(3, 4)], transposed=1)
    case("contiguous", "as it is", lambda x: x.contiguous(), [rnd(3, 4)])
    for dt, tt in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        v = np.concatenate([rnd(30, low=-9, high=9).values, np.array([0, -0.0, 1e-7, 6e-8, 65504, 70000, -70000, 1e-5, 3.14159265, 1 / 3, INF, -INF, NAN], np.float32)])
        case("cast", dt, lambda x: x.float().to(tt).float(), [raw(v)], f32_ref=True, grad=False, dtype=dt)
    for dt, tt in (("i32", torch.int32), ("i64", torch.int64), ("i8", torch.int8), ("u8", torch.uint8), ("bool", torch.bool)):
        v = rnd(20, low=0 if dt == "u8" else -5, high=100).values
        case("cast", dt, lambda x: x.float().to(tt).to(torch.int64), [raw(np.append(v, [0, 1]))], f32_ref=True, grad=False, dtype=dt)
    for shapes, d in [(((2, 3), (4, 3)), 0), (((2, 3), (2, 1)), 1), (((2, 3), (2, 2), (2, 4)), -1), (((2, 2, 2), (2, 3, 2)), 1), (((3,), (1,), (5,)), 0), (((4, 2),), 0)]:
        case("concat", name_of(shapes, d), lambda *x: torch.cat(x, d), [rnd(*s, name="x%d" % i) for i, s in enumerate(shapes)], dim=d)
    case("concat", "transposed", lambda *x: torch.cat(x, 1), [rnd(3, 2, name="x0"), rnd(2, 4, name="x1")], transposed=1, dim=1)
    for s, n, d in [((3,), 2, 0), ((3,), 3, 1), ((2, 3), 2, 0), ((2, 3), 3, 1), ((2, 3), 2, 2), ((2, 3), 2, -1), ((), 3, 0)]:
        case("stack", name_of(s, n, d), lambda *x: torch.stack(x, d), [rnd(*s, name="x%d" % i) for i in range(n)], dim=d)
    # split and chunk: the pieces joined in reverse order
    for a, sizes, d in [((7,), (2, 5), 0), ((6, 3), (1, 2, 3), 0), ((3, 6), (4, 2), 1), ((2, 3, 4), (1, 3), -1)]:
        case("split", name_of(a, sizes, d), lambda x: torch.cat(torch.split(x, sizes, d)[::-1], d), [rnd(*a)], dim=d, **shape_opts("d", sizes))
    for a, n, d in [((6,), 2, 0), ((6,), 3, 0), ((2, 4), 2, 1), ((2, 3, 4), 4, 2), ((3, 4), 3, 0), ((3, 4), 1, 0)]:
        case("chunk", name_of(a, n, d), lambda x: torch.cat(torch.chunk(x, n, d)[::-1], d), [rnd(*a)], dim=d, parts=n)
    for a, t in [((3,), (2,)), ((3,), (2, 2)), ((2, 3), (1, 2)), ((2, 3), (3, 1)), ((2, 3), (2, 2, 2)), ((2, 1, 2), (1, 4, 3))]:
        case("repeat", name_of(a, t), lambda x: x.repeat(t), [rnd(*a)], **shape_opts("d", t))
    for a, d in [((5,), (0,)), ((3, 4), (0,)), ((3, 4), (1,)), ((3, 4), (0, 1)), ((2, 3, 4), (0, 2)), ((2, 3, 4), (-1,))]:
        case("flip", name_of(a, d), lambda x: torch.flip(x, d), [rnd(*a)], **shape_opts("d", d))
    for a, d, ishape in [((5,), 0, (7,)), ((4, 3), 0, (2, 3)), ((4, 3), 1, (4, 5)), ((2, 3, 4), 1, (2, 5, 4)), ((2, 3, 4), -1, (2, 3, 2)), ((4, 3), 0, (2, 2))]:
        case("gather", name_of(a, d, ishape), lambda x, i: torch.gather(x, d, i), [rnd(*a), ints(*ishape, high=a[d])], dim=d)
        case("scatter_add", name_of(a, d, ishape), lambda x, i, s: torch.scatter_add(x, d, i, s), [rnd(*a), ints(*ishape, high=a[d]), rnd(*ishape, name="source")], dim=d)
    case("gather", "transposed", lambda x, i: torch.gather(x, 1, i), [rnd(4, 3), ints(3, 5, high=4)], transposed=1, dim=1)
    case("gather", "i32", lambda x, i: torch.gather(x, 1, i), [rnd(4, 3), ints(4, 5, high=3)], dim=1, i32=1)
    for a, d, n in [((5,), 0, 8), ((5, 3), 0, 4), ((3, 5), 1, 7), ((2, 3, 4), 1, 2), ((2, 3, 4), -1, 5)]:
        case("index_select", name_of(a, d, n), lambda x, i: torch.index_select(x, d, i), [rnd(*a), ints(n, high=a[d])], dim=d)
    case("index_select", "i32", lambda x, i: torch.index_select(x, 0, i), [rnd(4, 3), ints(5, high=4)], dim=0, i32=1)
    for s, c in [((5,), 4), ((2, 3), 6), ((), 3), ((2, 2, 2), 2)]:
        case("one_hot", name_of(s, c), lambda i: F.one_hot(i, c).double(), [ints(*s, high=c)], grad=False, classes=c)
    for op, fn in (("tril", torch.tril), ("triu", torch.triu)):
        for a, k in [((4, 4), 0), ((4, 4), 1), ((4, 4), -2), ((3, 5), 0), ((5, 3), -1), ((2, 3, 4), 1), ((2, 2, 3, 3), 0), ((3, 3), 9), ((3, 3), -9)]:
            case(op, name_of(a, k), lambda x: fn(x, k), [rnd(*a)], diagonal=k)
        case(op, "transposed", lambda x: fn(x, 0), [rnd(3, 5)], transposed=1, diagonal=0)
    for a, d in [((9,), 0), ((4, 5), 0), ((4, 5), 1), ((2, 5, 3), 1), ((2, 3, 5), -1), ((1,), 0), ((2, 70), 1)]:
        for desc in (0, 1):
            case("sort", name_of(a, d, "descending" if desc else ""), lambda x: torch.sort(x, dim=d, descending=bool(desc), stable=True), [rnd(*a)], dim=d, descending=desc)
    ties = [2.0, 1.0, 2.0, 0.0, 1.0, 2.0, -0.0, NAN, INF, -INF]
    for desc in (0, 1):
        case("sort", "stable %d" % desc, lambda x: torch.sort(x, dim=0, descending=bool(desc), stable=True), [raw(ties[:7])], dim=0, descending=desc)
        case("sort", "infinite %d" % desc, lambda x: torch.sort(x, dim=0, descending=bool(desc), stable=True), [raw(ties)], grad=False, dim=0, descending=desc)
        case("sort", "transposed %d" % desc, lambda x: torch.sort(x, dim=1, descending=bool(desc), stable=True), [rnd(5, 4)], transposed=1, dim=1, descending=desc)
    for a, k, d in [((9,), 3, 0), ((9,), 9, 0), ((4, 5), 2, 0), ((4, 5), 1, 1), ((2, 5, 3), 4, 1), ((2, 3, 5), 2, -1), ((3, 40), 5, 1)]:
        for small in (0, 1):
            case("topk", name_of(a, k, d, "smallest" if small else ""), lambda x: torch.topk(x, k, d, largest=not small, sorted=True), [rnd(*a)], dim=d, k=k, smallest=small)
    modes = [("constant", 0), ("reflect", 1), ("replicate", 2)]
    for mode, m in modes:
        for a, p in [((2, 3, 5), (1, 1)), ((2, 3, 5), (2, 0)), ((2, 3, 5), (0, 3)), ((1, 2, 4, 5), (1, 2, 3, 1)), ((1, 2, 4, 5), (2, 2, 0, 0)), ((2, 2, 3, 3), (1, 0, 0, 2))]:
            case("pad", name_of(mode, a, p), lambda x: F.pad(x, p, mode), [rnd(*a)], mode=m, **shape_opts("d", p))
    for a, p, v in [((5,), (1, 2), 0.0), ((3, 4), (1, 1, 2, 0), 2.5), ((2, 3), (0, 1, 0, 0), -1.0), ((2, 2, 2), (1, 1, 0, 1, 1, 0), 0.5)]:
        case("pad", name_of("value", a, p, v), lambda x: F.pad(x, p, "constant", f32(v)), [rnd(*a)], mode=0, value=v, **shape_opts("d", p))
    for s, e, st in [(0.0, 5.0, 1.0), (1.0, 2.0, 0.25), (3.0, -1.0, -0.5), (0.0, 1.0, 0.3)]:
        case("arange", name_of(s, e, st), lambda: torch.arange(s, e, f32(st), dtype=torch.float64), [], start=s, end=e, step=st)
    for s, e, n in [(0.0, 1.0, 5), (-2.0, 3.0, 11), (1.0, 1.0, 3), (5.0, 0.0, 8), (2.0, 7.0, 1)]:
        case("linspace", name_of(s, e, n), lambda: torch.linspace(s, e, n, dtype=torch.float64), [], start=s, end=e, n=n)
    for n in (1, 4):
        case("eye", str(n), lambda: torch.eye(n, dtype=torch.float64), [], n=n)
    case("full", "2.5", lambda: torch.full((2, 3), 2.5, dtype=torch.float64), [], value=2.5)
    for shape, v in [((7, 3), 5), ((4,), 9), ((2, 3, 2), 4)]:
        case("embedding", name_of(shape, v), lambda i, w: F.embedding(i, w), [ints(*shape, high=v), rnd(v, 3, name="w")])
    case("embedding", "repeated", lambda i, w: F.embedding(i, w), [raw(np.array([1, 1, 1, 0, 1]), "index"), rnd(3, 5, name="w")])
    case("embedding", "i32", lambda i, w: F.embedding(i, w), [ints(2, 3, high=4), rnd(4, 2, name="w")], i32=1)


# ---- convolution, pooling, upsampling -------------------------------------------------------------------
def conv_ops():
    def conv_label(o):
        return " ".join("%s=%s" % (k, v) for k, v in o.items())

    def conv(nd, x, w, bias=True, act=None, **o):
        fn = F.conv1d if nd == 1 else F.conv2d
        st, pa, di = [(o.get(k, dflt), o.get(k + "_w", o.get(k, dflt)))[:nd] for k, dflt in (("stride", 1), ("padding", 0), ("dilation", 1))]
        same = o.get("same", 0)
        i = [rnd(*x), rnd(*w, name="w")] + ([rnd(w[0], name="b")] if bias else [])
        acts = {None: lambda y: y, "relu": F.relu, "tanh": torch.tanh}
        opts = dict(o)
        if act:
            opts["activation"] = act
        for k in ("stride_w", "padding_w", "dilation_w"):
            if opts.get(k, 1) == 0:
                opts[k] = -2147483648
        case("conv%dd" % nd, name_of(x, w, "" if bias else "no bias", act or "", conv_label(o)),
             lambda x, w, b=None: acts[act](fn(x, w, b, st, "same" if same else pa, di, o.get("groups", 1))), i, **opts)

    for k in (1, 2, 3, 5):
        for o in ({}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"stride": 2, "padding": 2}, {"stride": 3, "padding": 1, "dilation": 2}):
            length = 11 if k < 5 else 12
            conv(1, (2, 4, length), (6 if k != 5 else 2, 4, k), bias=k != 2, **o)
    for g, cout in ((2, 6), (4, 4), (4, 8)):
        for o in ({}, {"padding": 1, "stride": 2}, {"dilation": 2, "padding": 2}):
            conv(1, (2, 4, 9), (cout, 4 // g, 3), groups=g, **o)
    for k in (1, 2, 3, 4, 5):
        conv(1, (1, 2, 9), (3, 2, k), same=1)
        if k > 1:
            conv(1, (1, 2, 9), (3, 2, k), same=1, dilation=2)
    conv(1, (1, 1, 1), (1, 1, 1))
    conv(1, (1, 3, 40), (2, 3, 7), padding=3)
    conv(1, (2, 3, 8), (4, 3, 3), act="relu")
    for k in (1, 2, 3):
        for o in ({}, {"stride": 2}, {"padding": 1}, {"dilation": 2}, {"stride": 2, "padding": 1}, {"stride": 2, "padding": 2, "dilation": 2}):
            conv(2, (2, 3, 6, 5), (4, 3, k, k), bias=k != 2, **o)
    for o in ({"stride": 1, "stride_w": 2}, {"stride": 2, "stride_w": 1}, {"padding": 1, "padding_w": 0}, {"padding": 0, "padding_w": 2}, {"dilation": 2, "dilation_w": 1},
              {"dilation": 1, "dilation_w": 2, "padding": 1}, {"stride": 3, "stride_w": 2, "padding": 2, "padding_w": 1}):
        conv(2, (2, 2, 7, 6), (3, 2, 3, 3), **o)
    for kh, kw in ((1, 3), (3, 1), (2, 3), (5, 2), (1, 1)):
        conv(2, (1, 3, 6, 7), (4, 3, kh, kw), padding=1)
        conv(2, (1, 3, 6, 7), (4, 3, kh, kw), bias=False, stride=2)
    for g, cin, cout in ((2, 4, 6), (3, 3, 3), (4, 4, 8), (3, 6, 3)):
        for o in ({}, {"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2}):
            conv(2, (2, cin, 5, 6), (cout, cin // g, 3, 3), groups=g, **o)
    conv(2, (1, 5, 8, 8), (5, 1, 5, 5), groups=5, padding=2)
    conv(2, (1, 5, 8, 8), (5, 1, 5, 5), bias=False, groups=5, padding=2, stride=2)
    for k in ((1, 1), (2, 2), (3, 3), (4, 4), (2, 5)):
        conv(2, (1, 2, 6, 7), (3, 2) + k, same=1)
        if k != (1, 1):
            conv(2, (1, 2, 6, 7), (3, 2) + k, same=1, dilation=2)
    conv(2, (1, 1, 1, 1), (1, 1, 1, 1))
    conv(2, (3, 2, 3, 3), (2, 2, 3, 3))                                   # one output pixel
    conv(2, (1, 1, 9, 9), (1, 1, 7, 7), padding=3)
    conv(2, (1, 8, 6, 6), (9, 8, 3, 3), padding=1)
    conv(2, (1, 17, 4, 4), (3, 17, 1, 1))
    for act in ("relu", "tanh"):
        conv(2, (2, 2, 5, 5), (3, 2, 3, 3), act=act, padding=1)
    case("conv2d", "transposed x", F.conv2d, [rnd(1, 2, 6, 5), rnd(3, 2, 3, 3, name="w"), rnd(3, name="b")], transposed=1)

    def convt(nd, x, w, bias=True, **o):
        fn = F.conv_transpose1d if nd == 1 else F.conv_transpose2d
        st, pa, op, di = [(o.get(k, dflt), o.get(k + "_w", o.get(k, dflt)))[:nd] for k, dflt in (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))]
        g = o.get("groups", 1)
        i = [rnd(*x), rnd(*w, name="w")] + ([rnd(w[1] * g, name="b")] if bias else [])
        opts = dict(o)
        for k in ("stride_w", "padding_w", "dilation_w", "output_padding_w"):
            if opts.get(k, 1) == 0:
                opts[k] = -2147483648
        case("conv_transpose%dd" % nd, name_of(x, w, "" if bias else "no bias", conv_label(o)), lambda x, w, b=None: fn(x, w, b, st, pa, op, g, di), i, **opts)

    for k in (1, 2, 3, 4):
        for o in ({}, {"stride": 2}, {"stride": 2, "output_padding": 1}, {"dilation": 2}):
            convt(1, (2, 4, 6), (4, 3, k), bias=k != 2, **o)
        if k >= 3:
            convt(1, (2, 4, 6), (4, 3, k), stride=2, padding=1)
            convt(1, (2, 4, 6), (4, 3, k), stride=3, padding=1, output_padding=2)
            convt(1, (2, 4, 6), (4, 3, k), stride=1, padding=2, dilation=2)
    for g in (2, 4):
        convt(1, (2, 4, 5), (4, 2, 3), groups=g)
        convt(1, (2, 4, 5), (4, 1, 3), groups=g, stride=2, padding=1)
    for k in (1, 2, 3, 4):
        for o in ({}, {"stride": 2}, {"stride": 2, "output_padding": 1}, {"dilation": 2}):
            convt(2, (1, 3, 4, 3), (3, 2, k, k), bias=k != 2, **o)
        if k >= 3:
            convt(2, (2, 2, 3, 4), (2, 3, k, k), stride=2, padding=1)
            convt(2, (2, 2, 3, 4), (2, 3, k, k), stride=2, padding=1, output_padding=1)
            convt(2, (2, 2, 4, 4), (2, 2, k, k), padding=1, dilation=2)
    for o in ({"stride": 2, "stride_w": 1}, {"padding": 1, "padding_w": 0}, {"stride": 3, "output_padding": 2, "output_padding_w": 1}, {"stride": 2, "output_padding": 1, "output_padding_w": 0},
              {"dilation": 1, "dilation_w": 2}):
        convt(2, (1, 2, 4, 3), (2, 2, 3, 3), **o)
    convt(2, (1, 2, 3, 4), (2, 2, 2, 3), stride=2)
    for g in (2, 4):
        convt(2, (1, 4, 3, 3), (4, 2, 3, 3), groups=g)
        convt(2, (1, 4, 3, 3), (4, 1, 3, 3), groups=g, stride=2, padding=1)

    def pool(kind, nd, x, k, kw=None, **o):
        st = (o.get("stride", k), o.get("stride_w", o.get("stride", kw or k)))[:nd]
        pa = (o.get("padding", 0), o.get("padding_w", o.get("padding", 0)))[:nd]
        di = (o.get("dilation", 1), o.get("dilation_w", o.get("dilation", 1)))[:nd]
        ks = (k, kw or k)[:nd]
        ceil = bool(o.get("ceil_mode", 0))
        if kind == "max":
            fn = lambda x: (F.max_pool1d if nd == 1 else F.max_pool2d)(x, ks, st, pa, di, ceil)
        else:
            fn = lambda x: (F.avg_pool1d if nd == 1 else F.avg_pool2d)(x, ks, st, pa, ceil, not o.get("exclude_pad", 0))
        opts = dict(o, kernel=k)
        if kw:
            opts["kernel_w"] = kw
        for key in ("padding_w",):
            if opts.get(key, 1) == 0:
                opts[key] = -2147483648
        case("%spool%dd" % (kind, nd), name_of(x, "k=%d" % k, "kw=%d" % kw if kw else "", conv_label(o)), fn, [rnd(*x)], **opts)

    one = [{}, {"stride": 1}, {"padding": 1}, {"stride": 2, "padding": 1, "ceil_mode": 1}, {"ceil_mode": 1}, {"stride": 3, "ceil_mode": 1}]
    for k in (2, 3, 4):
        for o in one:
            pool("max", 1, (2, 2, 11), k, **o)
            pool("avg", 1, (2, 2, 11), k, **o)
            if o.get("padding") or o.get("ceil_mode"):
                pool("avg", 1, (2, 2, 11), k, exclude_pad=1, **o)
            pool("max", 2, (1, 2, 7, 8), k, **o)
            pool("avg", 2, (1, 2, 7, 8), k, **o)
            if o.get("padding") or o.get("ceil_mode"):
                pool("avg", 2, (1, 2, 7, 8), k, exclude_pad=1, **o)
    for o in ({"dilation": 2}, {"dilation": 2, "stride": 1, "padding": 1}, {"dilation": 3, "stride": 2, "ceil_mode": 1}):
        pool("max", 1, (2, 2, 12), 3, **o)
        pool("max", 2, (1, 2, 9, 8), 3, **o)
    for kind in ("max", "avg"):
        pool(kind, 2, (1, 2, 6, 8), 2, 3)
        pool(kind, 2, (1, 2, 6, 8), 3, 2, stride=2, stride_w=1)
        pool(kind, 2, (1, 2, 6, 8), 3, 3, stride=2, padding=1, padding_w=0)
        pool(kind, 2, (1, 2, 6, 8), 2, 4, stride=1, stride_w=3, padding=0, padding_w=2, ceil_mode=1)
        pool(kind, 2, (1, 1, 1, 1), 1)
    pool("max", 2, (1, 2, 8, 7), 2, 3, dilation=1, dilation_w=2)
    case("maxpool2d", "ties", lambda x: F.max_pool2d(x, 2), [raw(np.array([[1, 1, 0, 0], [1, 1, 0, 0], [2, 3, -1, -1], [3, 2, -1, -1]], np.float32).reshape(1, 1, 4, 4))], kernel=2)
    case("maxpool1d", "negative with padding", lambda x: F.max_pool1d(x, 3, 1, 1), [rnd(1, 1, 6, low=-3, high=-1)], kernel=3, stride=1, padding=1)
    case("maxpool2d", "transposed", lambda x: F.max_pool2d(x, 2), [rnd(1, 2, 6, 4)], transposed=1, kernel=2)
    for length in (1, 2, 3, 5, 7, 9):
        case("adaptive_maxpool1d", str(length), lambda x: F.adaptive_max_pool1d(x, length), [rnd(2, 2, 7)], length=length)
        case("adaptive_avgpool1d", str(length), lambda x: F.adaptive_avg_pool1d(x, length), [rnd(2, 2, 7)], length=length)
    for h, w in ((1, 1), (2, 2), (3, 2), (5, 4), (6, 7), (7, 9), (1, 3)):
        case("adaptive_maxpool2d", "%dx%d" % (h, w), lambda x: F.adaptive_max_pool2d(x, (h, w)), [rnd(1, 2, 6, 7)], height=h, width=w)
        case("adaptive_avgpool2d", "%dx%d" % (h, w), lambda x: F.adaptive_avg_pool2d(x, (h, w)), [rnd(1, 2, 6, 7)], height=h, width=w)
    for s in ((2, 3, 7), (2, 3, 4, 5), (1, 1, 1, 1), (2, 4, 10, 9)):
        case("global_maxpool", name_of(s), lambda x: torch.amax(x, list(range(2, x.dim()))), [rnd(*s)])
        case("global_avgpool", name_of(s), lambda x: torch.mean(x, list(range(2, x.dim()))), [rnd(*s)])
    for a, (h, w) in (((1, 2, 3, 4), (6, 8)), ((1, 2, 3, 4), (5, 7)), ((2, 1, 4, 5), (2, 3)), ((1, 2, 3, 3), (1, 1)), ((1, 1, 1, 1), (3, 4)), ((1, 2, 5, 4), (5, 4)), ((1, 1, 6, 7), (13, 10)), ((1, 1, 8, 8), (28, 28))):
        g = a[2] < 8
        case("upsample", name_of("nearest", a, h, w), lambda x: F.interpolate(x, (h, w), mode="nearest"), [rnd(*a)], height=h, width=w)
        for ac in (0, 1):
            case("upsample", name_of("bilinear", a, h, w, "align" if ac else ""), lambda x: F.interpolate(x, (h, w), mode="bilinear", align_corners=bool(ac)), [rnd(*a)],
                 height=h, width=w, bilinear=1, align_corners=ac)
    for a, n in (((2, 2, 5), 10), ((2, 2, 5), 7), ((2, 2, 5), 3), ((1, 1, 1), 4)):
        case("upsample", name_of("nearest", a, n), lambda x: F.interpolate(x, n, mode="nearest"), [rnd(*a)], height=1, width=n)
        for ac in (0, 1):
            case("upsample", name_of("linear", a, n, "align" if ac else ""), lambda x: F.interpolate(x, n, mode="linear", align_corners=bool(ac)), [rnd(*a)],
                 height=1, width=n, bilinear=1, align_corners=ac)


# ---- normalisation --------------------------------------------------------------------------------------
def norm_ops():
    def pos(i):
        i.values = np.abs(i.values) + np.float32(0.5)
        i.stored = None
        return i
    for shape in ((6, 3), (4, 3, 5), (2, 3, 4, 3), (3, 1, 2, 2), (2, 5, 1)):
        c = shape[1]
        for affine in (1, 0):
            for stats in (1, 0):
                for mom, eps in ((0.0, 0.0), (0.3, 1e-3)):
                    i = [rnd(*shape, low=-2, high=3)]
                    if affine:
                        i += [rnd(c, name="w"), rnd(c, name="b")]
                    if stats:
                        i += [rnd(c, name="mean", grad=False), pos(rnd(c, name="var", grad=False))]
                    opts = {}
                    if mom:
                        opts = dict(momentum=mom, eps=eps)
                    if shape == (2, 5, 1):
                        opts["loose"] = 10.0
                    names = [q.name for q in i]

                    def fn(*a):
                        d = dict(zip(names, a))
                        return F.batch_norm(d["x"], d.get("mean"), d.get("var"), d.get("w"), d.get("b"), True, f32(mom or 0.1), f32(eps or 1e-5))
                    case("batchnorm", name_of(shape, "train", "affine" if affine else "", "stats" if stats else "", "mom" if mom else ""), fn, i,
                         more=(lambda *a: [t for n, t in zip(names, a) if n in ("mean", "var")]) if stats else None, **opts)
            # evaluation
            i = [rnd(*shape, low=-2, high=3)] + ([rnd(c, name="w"), rnd(c, name="b")] if affine else []) + [rnd(c, name="mean", grad=False), pos(rnd(c, name="var", grad=False))]
            names = [q.name for q in i]

            def ev(*a):
                d = dict(zip(names, a))
                return F.batch_norm(d["x"], d.get("mean"), d.get("var"), d.get("w"), d.get("b"), False, 0.1, 1e-5)
            case("batchnorm", name_of(shape, "eval", "affine" if affine else ""), ev, i, grad=False, eval=1)
    case("batchnorm", "far from zero", lambda x: F.batch_norm(x, None, None, None, None, True, 0.1, f32(1e-5)), [rnd(8, 2, 4, low=50, high=51)])
    for shape, n in (((4, 7), 1), ((2, 3, 5), 1), ((2, 3, 5), 2), ((2, 3, 4, 3), 3), ((3, 1), 1), ((2, 3, 4, 3), 1), ((2, 90), 1), ((5,), 1)):
        tail = shape[-n:]
        for mode in ("affine", "no bias", "plain", "eps"):
            i = [rnd(*shape, low=-2, high=3)] + ([rnd(*tail, name="w")] if mode != "plain" else []) + ([rnd(*tail, name="b")] if mode in ("affine", "eps") else [])
            o = {"eps": 1e-2} if mode == "eps" else {}
            if shape == (3, 1):
                o["loose"] = 10.0
            case("layernorm", name_of(shape, n, mode), lambda x, w=None, b=None: F.layer_norm(x, tail, w, b, f32(o.get("eps", 1e-5))), i, dims=n, **o)
    case("layernorm", "far from zero", lambda x: F.layer_norm(x, (40,), None, None, f32(1e-5)), [rnd(2, 40, low=50, high=51)], dims=1)
    for shape, g in (((4, 6), 2), ((2, 6, 5), 3), ((2, 4, 3, 2), 2), ((2, 4, 3, 2), 1), ((2, 4, 3, 2), 4), ((1, 6, 2, 2), 6)):
        for mode in ("affine", "plain", "eps"):
            i = [rnd(*shape, low=-2, high=3)] + ([rnd(shape[1], name="w"), rnd(shape[1], name="b")] if mode != "plain" else [])
            o = {"eps": 1e-2} if mode == "eps" else {}
            case("groupnorm", name_of(shape, g, mode), lambda x, w=None, b=None: F.group_norm(x, g, w, b, f32(o.get("eps", 1e-5))), i, groups=g, **o)
    for shape in ((2, 3, 6), (2, 3, 4, 3), (1, 2, 5, 5)):
        for mode in ("affine", "plain", "eps"):
            i = [rnd(*shape, low=-2, high=3)] + ([rnd(shape[1], name="w"), rnd(shape[1], name="b")] if mode != "plain" else [])
            o = {"eps": 1e-2} if mode == "eps" else {}
            case("instancenorm", name_of(shape, mode), lambda x, w=None, b=None: F.instance_norm(x, None, None, w, b, True, 0.1, f32(o.get("eps", 1e-5))), i, **o)
    for shape in ((4, 7), (2, 3, 5), (6,), (2, 90)):
        for mode in ("affine", "plain", "eps"):
            i = [rnd(*shape, low=-2, high=3)] + ([rnd(shape[-1], name="w")] if mode != "plain" else [])
            o = {"eps": 1e-2} if mode == "eps" else {}

            def rms(x, w=None):
                y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + f32(o.get("eps", 1e-5)))      # = F.rms_norm, which PyTorch before 2.4 has not
                return y if w is None else y * w
            case("rmsnorm", name_of(shape, mode), rms, i, **o)
    for op in ("dropout", "dropout2d"):
        case(op, "p=0", lambda x: x * 1, [rnd(2, 3, 4)], p=0.0)
        case(op, "eval", lambda x: x * 1, [rnd(2, 3, 4)], grad=False, p=0.5, eval=1)
        case(op, "p=1", lambda x: x * 0, [rnd(2, 3, 4)], p=1.0)


# ---- losses ---------------------------------------------------------------------------------------------
REDUCTIONS = ("mean", "sum", "none")


def losses():
    def red(r):
        return REDUCTIONS.index(r)
    for r in REDUCTIONS:
        for shape in ((5, 4), (3, 4, 2), (2, 3, 2, 3), (1, 2), (3, 40)):
            b, c = shape[0], shape[1]
            tshape = (b,) + shape[2:]
            for mode in ("", "weight", "smooth", "weight smooth", "ignore", "ignore weight smooth", "ignore zero"):
                if shape in ((1, 2), (3, 40)) and mode not in ("", "smooth"):
                    continue
                o, i = {}, [rnd(*shape, low=-3, high=3), ints(*tshape, high=c, name="target")]
                if "ignore" in mode:
                    ig = 0 if "zero" in mode else 1
                    o["ignore_index"] = ig
                if "smooth" in mode:
                    o["label_smoothing"] = 0.1
                if "weight" in mode:
                    i.append(rnd(c, low=0.2, high=2, grad=False, name="weight"))
                if "ignore" in mode and (i[1].values == o["ignore_index"]).all():
                    continue
                po = dict(o)
                if po.get("ignore_index") == 0:
                    po["ignore_index"] = -2147483648
                case("cross_entropy", name_of(r, shape, mode), lambda x, t, w=None: F.cross_entropy(x, t, w, reduction=r, ignore_index=o.get("ignore_index", -100),
                     label_smoothing=f32(o.get("label_smoothing", 0.0))), i, reduction=red(r), **po)
                if "smooth" not in mode:
                    lp = rnd(*shape, low=-3, high=0)
                    case("nll", name_of(r, shape, mode), lambda x, t, w=None: F.nll_loss(x, t, w, reduction=r, ignore_index=o.get("ignore_index", -100)),
                         [lp, rnd_copy(i[1])] + i[2:], reduction=red(r), **po)
            if len(shape) <= 4:
                t = rnd(*shape, low=0.05, high=1, grad=False, name="target")
                t.values = (t.values / t.values.sum(1, keepdims=True)).astype(np.float32); t.stored = None
                for mode in ("", "weight", "smooth", "weight smooth"):
                    if shape in ((1, 2), (3, 40)) and mode != "":
                        continue
                    o, i = {}, [rnd(*shape, low=-3, high=3), t]
                    if "smooth" in mode:
                        o["label_smoothing"] = 0.2
                    if "weight" in mode:
                        i.append(rnd(c, low=0.2, high=2, grad=False, name="weight"))
                    case("cross_entropy", name_of(r, "probabilities", shape, mode), lambda x, t, w=None: F.cross_entropy(x, t, w, reduction=r, label_smoothing=f32(o.get("label_smoothing", 0.0))),
                         i, reduction=red(r), **o)
        case("cross_entropy", name_of(r, "i32"), lambda x, t: F.cross_entropy(x, t, reduction=r), [rnd(5, 4), ints(5, high=4, name="target")], reduction=red(r), i32=1)
        case("cross_entropy", name_of(r, "-100"), lambda x, t: F.cross_entropy(x, t, reduction=r), [rnd(4, 3), raw(np.array([0, -100, 2, 1]), "target")], reduction=red(r))
        case("cross_entropy", name_of(r, "large"), lambda x, t: F.cross_entropy(x, t, reduction=r), [raw([[1000.0, -1000.0, 0.0], [-500.0, 500.0, 499.0]]), raw(np.array([0, 2]), "target")], reduction=red(r))
        for shape, mode in (((7,), ""), ((4, 3), ""), ((4, 3), "weight"), ((4, 3), "pos"), ((4, 3), "weight pos"), ((2, 3, 4), "pos"), ((4, 3), "row weight"), ((), "")):
            i = [rnd(*shape, low=-4, high=4), rnd(*shape, low=0, high=1, grad=False, name="target")]
            if "weight" in mode:
                i.append(rnd(*(shape if "row" not in mode else (shape[0], 1)), low=0.2, high=2, grad=False, name="weight"))
            if "pos" in mode:
                i.append(rnd(shape[-1], low=0.5, high=3, grad=False, name="pos_weight"))
            names = [q.name for q in i]

            def bce(*a):
                d = dict(zip(names, a))
                return F.binary_cross_entropy_with_logits(d["x"], d["target"], d.get("weight"), reduction=r, pos_weight=d.get("pos_weight"))
            case("binary_cross_entropy", name_of(r, shape, mode), bce, i, reduction=red(r))
        case("binary_cross_entropy", name_of(r, "large"), lambda x, t: F.binary_cross_entropy_with_logits(x, t, reduction=r),
             [raw([200.0, -200.0, 200.0, -200.0, 0.0]), raw([1.0, 0.0, 0.0, 1.0, 0.5], "target", grad=False)], reduction=red(r))
        for shape in ((7,), (4, 3), (2, 3, 4), ()):
            def pair():
                return [rnd(*shape, low=-3, high=3), rnd(*shape, low=-1, high=1, grad=False, name="target")]
            case("mse", name_of(r, shape), lambda x, t: F.mse_loss(x, t, reduction=r), pair(), reduction=red(r))
            case("l1", name_of(r, shape), lambda x, t: F.l1_loss(x, t, reduction=r), pair(), reduction=red(r))
            for delta in (0.0, 0.5, 2.0):
                o = {"delta": delta} if delta else {}
                case("huber", name_of(r, shape, delta or ""), lambda x, t: F.huber_loss(x, t, reduction=r, delta=delta or 1.0), pair(), reduction=red(r), **o)
                case("smooth_l1", name_of(r, shape, delta or ""), lambda x, t: F.smooth_l1_loss(x, t, reduction=r, beta=delta or 1.0), pair(), reduction=red(r), **o)
        same = [raw([1.0, 2.0, -1.0]), raw([1.0, 3.0, 1.0], "target", grad=False)]
        for op, fn in (("l1", F.l1_loss), ("huber", F.huber_loss), ("smooth_l1", F.smooth_l1_loss)):
            case(op, name_of(r, "at the kinks"), lambda x, t: fn(x, t, reduction=r), [raw(q.values, q.name, q.grad) for q in same], reduction=red(r))
        for shape in ((4, 5), (1, 3), (6, 2)):
            for t in (1.0, 2.0, 4.0):
                def kl(x, y):                            # T^2 KL(softmax(y / T) || softmax(x / T)) (Hinton et al. 2015)
                    return F.kl_div(F.log_softmax(x / t, -1), F.softmax(y / t, -1), reduction=r.replace("mean", "batchmean")) * t * t
                case("kl_div", name_of(r, shape, "T=%g" % t), kl, [rnd(*shape, low=-3, high=3), rnd(*shape, low=-3, high=3, grad=False, name="target")], reduction=red(r), temperature=t)
            for m in (0.0, 0.5, 2.0):
                o = {"margin": m} if m else {}
                tv = ints(*shape, high=2)

                def hinge(x, t):                         # max(0, m - t x)
                    y = torch.clamp((m or 1.0) - t * x, min=0)
                    return y if r == "none" else y.sum() if r == "sum" else y.mean()
                case("hinge", name_of(r, shape, m or ""), hinge, [rnd(*shape, low=-2, high=2), raw(tv.values * 2.0 - 1.0, "target", grad=False)], reduction=red(r), **o)
                case("hinge", name_of(r, "classes", shape, m or ""), lambda x, t: F.multi_margin_loss(x, t, margin=m or 1.0, reduction=r),
                     [rnd(*shape, low=-1, high=1), ints(shape[0], high=shape[1], name="target")], reduction=red(r), **o)
        for m in (0.0, 0.3):
            for shape in ((4, 5), (1, 3), (6, 2)):
                o = {"margin": m} if m else {}
                t = ints(shape[0], high=2)
                case("cosine_embedding", name_of(r, shape, m or ""), lambda a, b, t: F.cosine_embedding_loss(a, b, t, margin=f32(m), reduction=r),
                     [rnd(*shape, name="a"), rnd(*shape, name="b"), raw(t.values * 2.0 - 1.0, "target", grad=False)], reduction=red(r), **o)
        for m, p in ((0.0, 0.0), (0.3, 0.0), (2.0, 1.0), (1.0, 3.0)):
            for shape in ((4, 5), (1, 3)):
                o = dict(({"margin": m} if m else {}), **({"p": p} if p else {}))
                case("triplet_margin", name_of(r, shape, m or "", p or ""), lambda a, b, c: F.triplet_margin_loss(a, b, c, margin=f32(m) or 1.0, p=p or 2.0, reduction=r),
                     [rnd(*shape, name="anchor"), rnd(*shape, name="positive"), rnd(*shape, name="negative")], reduction=red(r), **o)
        for t in (0.0, 0.5):
            for shape in ((4, 5), (2, 3), (6, 8)):
                def nce(a, b):                           # cross entropy of cosine similarities / T against the diagonal (Oord et al. 2018)
                    s = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / f32(t or 0.07)
                    return F.cross_entropy(s, torch.arange(shape[0]), reduction=r)
                o = {"temperature": t} if t else {}
                case("info_nce", name_of(r, shape, t or ""), nce, [rnd(*shape, name="a"), rnd(*shape, name="b")], reduction=red(r), **o)


def rnd_copy(i):
    return In(i.name, i.values, i.grad, i.stored)


# ---- layers: names, shapes, and what they compute -------------------------------------------------------
def layers():
    def layer(op, label, module, x, build, eval_=0, integer=False):
        """build: our options. The parameters get numbers here and travel as inputs named like in the state_dict."""
        module = module.double()
        names = list(module.state_dict())
        inputs = [x]
        params = dict(module.named_parameters())
        buffers = [n for n in names if n not in params]
        for n in names:
            t = module.state_dict()[n]
            if not t.is_floating_point():                # num_batches_tracked
                inputs.append(raw(np.array(3), n))
                t.fill_(3)
                continue
            i = rnd(*t.shape, name=n, grad=n in params, low=0.5 if n.endswith("running_var") else -0.75, high=1.5 if n.endswith("running_var") else 0.75)
            inputs.append(i)
            with torch.no_grad():
                t.copy_(torch.tensor(i.values, dtype=torch.float64))
        module.train(not eval_)
        xt = torch.tensor(x.values)
        if not integer:
            xt = xt.double().requires_grad_(not eval_)
        y = module(xt)
        grads, dy, stored = [], None, None
        if not eval_ and y.requires_grad:
            d = rnd(*y.shape, low=-1, high=1, key="dy %s %s" % (op, label))
            dy, stored = d.values, d.stored
            y.backward(torch.tensor(d.values, dtype=torch.float64))
            if not integer:
                grads.append((0, xt.grad.numpy()))
            for k, n in enumerate(names):
                if n in params:
                    grads.append((k + 1, params[n].grad.numpy()))
        else:
            for i in inputs:
                i.grad = False
        outs = [numpy_of(y)] + [numpy_of(module.state_dict()[n]) for n in buffers]
        opts = dict(build, count=len(names), buffers=len(buffers))
        if eval_:
            opts["eval"] = 1
        record("layer_" + op, label, {k: (f32(v) if isinstance(v, float) else v) for k, v in opts.items()}, inputs, outs, dy, grads, stored)

    for i, o, bias in ((3, 5, 1), (1, 1, 1), (7, 2, 0), (4, 17, 1)):
        layer("linear", name_of(i, o, bias), tnn.Linear(i, o, bool(bias)), rnd(4, i), {"in": i, "out": o, "no_bias": 1 - bias})
    layer("linear", "3d", tnn.Linear(3, 4), rnd(2, 3, 3), {"in": 3, "out": 4})
    for k, o in ((3, {}), (1, {"no_bias": 1}), (5, {"padding": 2}), (3, {"stride": 2, "padding": 1}), (3, {"dilation": 2}), (3, {"groups": 2}), (2, {"groups": 4, "padding": 1})):
        m = tnn.Conv1d(4, 4, k, o.get("stride", 1), o.get("padding", 0), o.get("dilation", 1), o.get("groups", 1), not o.get("no_bias"))
        layer("conv1d", name_of(k, sorted(o.items())), m, rnd(2, 4, 8), dict(o, **{"in": 4, "out": 4, "kernel": k}))
        m = tnn.Conv2d(4, 4, k, o.get("stride", 1), o.get("padding", 0), o.get("dilation", 1), o.get("groups", 1), not o.get("no_bias"))
        layer("conv2d", name_of(k, sorted(o.items())), m, rnd(1, 4, 6, 5), dict(o, **{"in": 4, "out": 4, "kernel": k}))
    layer("conv2d", "3x2", tnn.Conv2d(2, 3, (3, 2), (1, 2), (1, 0)), rnd(1, 2, 5, 6), {"in": 2, "out": 3, "kernel": 3, "kernel_w": 2, "stride": 1, "stride_w": 2, "padding": 1, "padding_w": -2147483648})
    layer("conv2d", "same", tnn.Conv2d(2, 3, 4, padding="same"), rnd(1, 2, 5, 6), {"in": 2, "out": 3, "kernel": 4, "same": 1})
    for k, o in ((3, {}), (2, {"stride": 2}), (3, {"stride": 2, "padding": 1, "output_padding": 1}), (3, {"no_bias": 1}), (3, {"groups": 2}), (2, {"dilation": 2})):
        a = (o.get("stride", 1), o.get("padding", 0), o.get("output_padding", 0), o.get("groups", 1), not o.get("no_bias"), o.get("dilation", 1))
        layer("conv_transpose1d", name_of(k, sorted(o.items())), tnn.ConvTranspose1d(4, 2, k, *a), rnd(2, 4, 5), dict(o, **{"in": 4, "out": 2, "kernel": k}))
        layer("conv_transpose2d", name_of(k, sorted(o.items())), tnn.ConvTranspose2d(4, 2, k, *a), rnd(1, 4, 3, 4), dict(o, **{"in": 4, "out": 2, "kernel": k}))
    for ev in (0, 1):
        for shape, cls in (((6, 3), tnn.BatchNorm1d), ((3, 3, 4), tnn.BatchNorm1d), ((2, 3, 3, 4), tnn.BatchNorm2d)):
            tag = "eval" if ev else "train"
            layer("batchnorm", name_of(shape, tag), cls(3), rnd(*shape), {"channels": 3}, ev)
            layer("batchnorm", name_of(shape, tag, "no affine"), cls(3, affine=False), rnd(*shape), {"channels": 3, "no_affine": 1}, ev)
            layer("batchnorm", name_of(shape, tag, "momentum eps"), cls(3, eps=f32(1e-3), momentum=f32(0.4)), rnd(*shape), {"channels": 3, "eps": 1e-3, "momentum": 0.4}, ev)
            layer("batchnorm", name_of(shape, tag, "no stats"), cls(3, track_running_stats=False), rnd(*shape), {"channels": 3, "no_stats": 1}, ev)
    for shape, n in (((4, 6), 1), ((2, 3, 5), 1), ((2, 3, 5), 2)):
        tail = shape[-n:]
        layer("layernorm", name_of(shape, n), tnn.LayerNorm(tail), rnd(*shape), shape_opts("d", tail))
        layer("layernorm", name_of(shape, n, "no affine"), tnn.LayerNorm(tail, elementwise_affine=False), rnd(*shape), dict(shape_opts("d", tail), no_affine=1))
        layer("layernorm", name_of(shape, n, "eps"), tnn.LayerNorm(tail, eps=f32(0.01)), rnd(*shape), dict(shape_opts("d", tail), eps=0.01))
    for g in (1, 2, 4):
        layer("groupnorm", str(g), tnn.GroupNorm(g, 4), rnd(2, 4, 3, 2), {"groups": g, "channels": 4})
        layer("groupnorm", name_of(g, "no affine"), tnn.GroupNorm(g, 4, affine=False), rnd(2, 4, 3, 2), {"groups": g, "channels": 4, "no_affine": 1})
    layer("instancenorm", "1d", tnn.InstanceNorm1d(3), rnd(2, 3, 6), {"channels": 3, "no_affine": 1})
    layer("instancenorm", "2d", tnn.InstanceNorm2d(3), rnd(2, 3, 3, 4), {"channels": 3, "no_affine": 1})
    layer("instancenorm", "1d affine", tnn.InstanceNorm1d(3, affine=True), rnd(2, 3, 6), {"channels": 3, "affine": 1})
    layer("instancenorm", "2d affine eps", tnn.InstanceNorm2d(3, eps=f32(0.01), affine=True), rnd(2, 3, 3, 4), {"channels": 3, "affine": 1, "eps": 0.01})
    if hasattr(tnn, "RMSNorm"):
        layer("rmsnorm", "6", tnn.RMSNorm(6, eps=f32(1e-5)), rnd(3, 6), {"channels": 6})
        layer("rmsnorm", "eps", tnn.RMSNorm(5, eps=f32(1e-2)), rnd(2, 3, 5), {"channels": 5, "eps": 1e-2})
    layer("embedding", "7x4", tnn.Embedding(7, 4), ints(3, 5, high=7, name="x"), {"in": 7, "out": 4}, integer=True)
    layer("embedding", "2x1", tnn.Embedding(2, 1), ints(6, high=2, name="x"), {"in": 2, "out": 1}, integer=True)
    layer("maxpool1d", "3", tnn.MaxPool1d(3, 2, 1), rnd(2, 2, 9), {"kernel": 3, "stride": 2, "padding": 1})
    layer("maxpool2d", "2", tnn.MaxPool2d(2), rnd(1, 2, 6, 5), {"kernel": 2})
    layer("maxpool2d", "3 ceil", tnn.MaxPool2d(3, 2, 1, ceil_mode=True), rnd(1, 2, 6, 5), {"kernel": 3, "stride": 2, "padding": 1, "ceil_mode": 1})
    layer("avgpool1d", "2", tnn.AvgPool1d(2), rnd(2, 2, 9), {"kernel": 2})
    layer("avgpool2d", "3", tnn.AvgPool2d(3, 1, 1, count_include_pad=False), rnd(1, 2, 6, 5), {"kernel": 3, "stride": 1, "padding": 1, "exclude_pad": 1})
    layer("adaptive_avgpool2d", "2x3", tnn.AdaptiveAvgPool2d((2, 3)), rnd(1, 2, 5, 7), {"height": 2, "width": 3})
    layer("upsample", "nearest", tnn.Upsample(scale_factor=2), rnd(1, 2, 3, 4), {"scale": 2})
    layer("upsample", "bilinear", tnn.Upsample(scale_factor=3, mode="bilinear"), rnd(1, 2, 3, 4), {"scale": 3, "bilinear": 1})
    layer("upsample", "align", tnn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), rnd(1, 2, 3, 4), {"scale": 2, "bilinear": 1, "align_corners": 1})
    layer("dropout", "eval", tnn.Dropout(0.5), rnd(3, 4), {"p": 0.5}, 1)
    layer("dropout2d", "eval", tnn.Dropout2d(0.5), rnd(2, 3, 4, 2), {"p": 0.5}, 1)
    layer("flatten", "4d", tnn.Flatten(), rnd(2, 3, 2, 2), {})
    layer("softmax", "-1", tnn.Softmax(-1), rnd(3, 5), {"dim": -1})
    layer("softmax", "1", tnn.Softmax(1), rnd(2, 3, 4), {"dim": 1})
    layer("leaky_relu", "0.2", tnn.LeakyReLU(f32(0.2)), rnd(3, 5), {"slope": 0.2})

    # Whole networks: the names in the tree are those of the state_dict.
    class Residual(tnn.Sequential):
        def forward(self, x):
            return x + super().forward(x)
    from collections import OrderedDict as D
    layer("net", "mlp", tnn.Sequential(D([("fc1", tnn.Linear(4, 6)), ("1", tnn.Tanh()), ("fc2", tnn.Linear(6, 3))])), rnd(5, 4), {"net": "mlp"})
    layer("net", "nested", tnn.Sequential(D([("body", tnn.Sequential(D([("0", tnn.Linear(4, 4)), ("1", tnn.ReLU()), ("2", tnn.Linear(4, 4))]))), ("head", tnn.Linear(4, 2))])), rnd(3, 4), {"net": "nested"})
    layer("net", "residual", tnn.Sequential(D([("block", Residual(D([("fc1", tnn.Linear(4, 6)), ("1", tnn.ReLU()), ("fc2", tnn.Linear(6, 4))]))), ("out", tnn.Linear(4, 2))])), rnd(3, 4), {"net": "residual"})
    cnn = lambda: tnn.Sequential(D([("conv1", tnn.Conv2d(1, 3, 3, padding=1)), ("bn1", tnn.BatchNorm2d(3)), ("2", tnn.ReLU()), ("3", tnn.MaxPool2d(2)), ("conv2", tnn.Conv2d(3, 4, 3)), ("5", tnn.ReLU()),
                                    ("6", tnn.Flatten()), ("fc", tnn.Linear(4 * 2 * 2, 3))]))
    layer("net", "cnn train", cnn(), rnd(2, 1, 8, 8), {"net": "cnn"})
    layer("net", "cnn eval", cnn(), rnd(2, 1, 8, 8), {"net": "cnn"}, 1)


# ---- attention and what is made of it ---------------------------------------------------------------------
def visible(tq, tk):
    """causal, aligned to the end"""
    return torch.ones(tq, tk, dtype=torch.bool).tril(tk - tq)


def alibi_slopes(h):
    p = 1 << (h.bit_length() - 1)
    return np.array([2.0 ** (-8 * (i + 1) / p) if i < p else 2.0 ** (-4 * (2 * (i - p) + 1) / p) for i in range(h)], np.float32)


def attention():
    def sdpa(label, h, hk, tq, tk, d, e, mask=None, causal=0, batch=1, **opts):
        ins = [rnd(batch, h, tq, d, name="q"), rnd(batch, hk, tk, d, name="k"), rnd(batch, hk, tk, e, name="v")]
        if mask is not None:
            ins.append(mask)

        def fn(q, k, v, *m):
            bias = torch.zeros(batch, h, tq, tk, dtype=q.dtype)
            if m and mask.name == "mask" and mask.values.dtype.kind == "f":
                bias = bias + m[0]
            elif m and mask.name == "mask":
                bias = bias.masked_fill(m[0] == 0, -np.inf)
            elif m and mask.name == "lengths":
                bias = bias.masked_fill(torch.arange(tk) >= m[0].view(-1, 1, 1, 1), -np.inf)
            elif m:
                at = torch.arange(tq).view(-1, 1) + tk - tq
                bias = bias - m[0].to(q.dtype).view(-1, 1, 1) * (torch.arange(tk) - at).abs()
            if causal:
                bias = bias.masked_fill(~visible(tq, tk), -np.inf)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=f32(opts["scale"]) if "scale" in opts else None, enable_gqa=h != hk)
        case("attention", name_of(label, (batch, h, hk, tq, tk, d, e), sorted(opts.items())), fn, ins, causal=causal, **opts)

    masks = {
        "none": lambda b, h, tq, tk: (None, 0), "causal": lambda b, h, tq, tk: (None, 1),
        "bool": lambda b, h, tq, tk: (raw((np.arange(tq * tk).reshape(tq, tk) % 3 != 1).astype(np.int64), "mask"), 0),
        "bool keys": lambda b, h, tq, tk: (raw((np.arange(b * tk).reshape(b, 1, 1, tk) % 4 != 3).astype(np.int64), "mask"), 0),
        "float": lambda b, h, tq, tk: (rnd(tq, tk, name="mask", grad=False), 1),
        "float heads": lambda b, h, tq, tk: (rnd(h, tq, tk, name="mask", grad=False), 0),
        "lengths": lambda b, h, tq, tk: (raw(np.array([max(1, tk - 2 * i) for i in range(b)]), "lengths"), 0),
        "alibi": lambda b, h, tq, tk: (raw(alibi_slopes(h), "alibi", grad=False), 1),
    }
    for what, make in masks.items():
        for h, hk in ((2, 2), (4, 2), (3, 1)):
            for n, (tq, tk, d, e) in enumerate(((3, 3, 4, 4), (2, 5, 3, 2), (1, 4, 2, 5), (4, 4, 1, 1), (2, 6, 3, 3))):
                b = 2 if h == 2 else 1
                for scale in ({}, {"scale": 0.4}):
                    mask, causal = make(b, h, tq, tk)
                    sdpa(what, h, hk, tq, tk, d, e, mask, causal, b, **scale)
    sdpa("hidden row", 2, 2, 4, 3, 3, 3, raw(np.array([[1], [0], [1], [0]]), "mask"))
    sdpa("hidden by inf", 2, 1, 2, 3, 3, 3, raw(np.array([[0, 0.5, -np.inf], [-np.inf] * 3], np.float32), "mask", grad=False))
    sdpa("more queries than keys", 2, 2, 5, 3, 3, 3, None, 1)
    sdpa("tiles", 1, 1, 3, 130, 2, 2, None, 1)
    sdpa("large scores", 1, 1, 5, 9, 3, 3, None, 0, scale=3.0)
    for h, hk, t, d, causal in ((1, 1, 3, 4, 1), (2, 2, 4, 3, 1), (4, 2, 3, 2, 0), (3, 1, 5, 2, 1)):
        def packed(x, h=h, hk=hk, t=t, d=d, causal=causal):
            q, k, v = x.view(2, t, h + 2 * hk, d).transpose(1, 2).split([h, hk, hk], 1)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible(t, t) if causal else None, enable_gqa=h != hk)
            return y.transpose(1, 2).reshape(2, t, h * d)
        case("attention_packed", name_of((h, hk, t, d), causal), packed, [rnd(2, t, (h + 2 * hk) * d)], heads=h, kv_heads=hk, causal=causal)

    for shape, time in (((2, 3, 4), 1), ((1, 2, 5, 6), 2), ((2, 3, 2, 4), 1), ((4, 2), 0)):       # rotary positions
        for interleaved in (0, 1):
            for start, base in ((0, 10000.0), (3, 100.0)):
                d, n = shape[-1], shape[time]

                def rope(x, d=d, n=n, time=time, interleaved=interleaved, start=start, base=base):
                    angle = torch.arange(start, start + n, dtype=x.dtype).view(-1, 1) * base ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)
                    angle = angle.view([n if i == time else 1 for i in range(x.ndim - 1)] + [d // 2])
                    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :d // 2], x[..., d // 2:])
                    u, v = a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()
                    return torch.stack((u, v), -1).flatten(-2) if interleaved else torch.cat((u, v), -1)
                case("rope", name_of(shape, time, interleaved, start, base), rope, [rnd(*shape)], interleaved=interleaved, start=start, base=base, time=time)
    for n, d in ((5, 6), (3, 2), (4, 5)):
        at, i = np.arange(n)[:, None].astype(np.float64), np.arange(d)
        angle = at * 10000.0 ** (-(i // 2 * 2) / d)
        record("sinusoidal", name_of((n, d)), {"n": n, "d": d}, [], [np.where(i % 2, np.cos(angle), np.sin(angle))])
    for h in (1, 2, 6, 8, 12):
        record("alibi", str(h), {"heads": h}, [], [alibi_slopes(h)])

    def layer(op, label, module, data, call, **opts):
        """data: inputs before the parameters. The parameters get numbers here and travel as inputs named as in the state_dict."""
        module = module.double().train()
        inputs, params = list(data), dict(module.named_parameters())
        for n in module.state_dict():
            inputs.append(rnd(*params[n].shape, name=n, low=-0.75, high=0.75))
            with torch.no_grad():
                params[n].copy_(torch.tensor(inputs[-1].values, dtype=torch.float64))
        args = {i.name: torch.tensor(i.values) for i in data}
        args = {k: t.double().requires_grad_(i.grad) if t.is_floating_point() else t for (k, t), i in zip(args.items(), data)}
        y = call(module, args)
        d = rnd(*y.shape, low=-1, high=1, key="dy %s %s" % (op, label))
        y.backward(torch.tensor(d.values, dtype=torch.float64))
        leaves = [args[i.name] for i in data] + [params[i.name] for i in inputs[len(data):]]
        grads = [(k, t.grad.numpy()) for k, t in enumerate(leaves) if inputs[k].grad]
        opts = dict(opts, data=len(data), count=len(params))
        record("attn_" + op, label, {k: (f32(v) if isinstance(v, float) else v) for k, v in opts.items()}, inputs, [numpy_of(y)], d.values, grads, d.stored)

    def padding(b, t):
        return raw((np.arange(b * t).reshape(b, t) % 5 != 4).astype(np.int64), "keys")

    def hide(a, name="keys"):
        return a[name] == 0 if name in a else None
    for bias in (1, 0):
        for heads in (1, 2):
            for what in ("none", "causal", "keys", "bool", "float"):
                data = [rnd(2, 3, 4, name="q")]
                data += [padding(2, 3)] if what == "keys" else [raw(np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]]), "mask")] if what == "bool" else \
                        [rnd(3, 3, name="mask", grad=False)] if what == "float" else []

                def call(m, a, what=what):
                    mask = ~visible(3, 3) if what == "causal" else a["mask"] == 0 if what == "bool" else a.get("mask")
                    return m(a["q"], a["q"], a["q"], attn_mask=mask, key_padding_mask=hide(a), need_weights=False)[0]
                layer("mha", name_of("self", what, heads, bias), tnn.MultiheadAttention(4, heads, bias=bool(bias), batch_first=True), data, call,
                      embed=4, heads=heads, no_bias=1 - bias, causal=int(what == "causal"))
        for kdim, vdim in ((4, 4), (3, 4), (4, 5), (3, 2)):
            for keys in (0, 1):
                data = [rnd(2, 3, 4, name="q"), rnd(2, 5, kdim, name="k"), rnd(2, 5, vdim, name="v")] + ([padding(2, 5)] if keys else [])
                layer("mha", name_of("cross", kdim, vdim, keys, bias), tnn.MultiheadAttention(4, 2, bias=bool(bias), kdim=kdim, vdim=vdim, batch_first=True), data,
                      lambda m, a: m(a["q"], a["k"], a["v"], key_padding_mask=hide(a), need_weights=False)[0],
                      embed=4, heads=2, no_bias=1 - bias, kdim=kdim, vdim=vdim)
    for bias in (1, 0):
        for first in (0, 1):
            for act in ("relu", "gelu"):
                how = dict(dim_feedforward=6, dropout=0.0, activation=act, batch_first=True, norm_first=bool(first), bias=bool(bias), layer_norm_eps=f32(1e-3 if bias else 1e-5))
                o = {"embed": 4, "heads": 2, "hidden": 6, "norm_first": first, "activation": act, "no_bias": 1 - bias, "eps": 1e-3 if bias else 1e-5}
                for what in ("none", "causal", "keys"):
                    layer("encoder", name_of(act, first, bias, what), tnn.TransformerEncoderLayer(4, 2, **how), [rnd(2, 3, 4, name="q")] + ([padding(2, 3)] if what == "keys" else []),
                          lambda m, a, what=what: m(a["q"], src_mask=~visible(3, 3) if what == "causal" else None, src_key_padding_mask=hide(a)), causal=int(what == "causal"), **o)
                for causal in (0, 1):
                    for keys in (0, 1):
                        layer("decoder", name_of(act, first, bias, causal, keys), tnn.TransformerDecoderLayer(4, 2, **how),
                              [rnd(2, 3, 4, name="q"), rnd(2, 5, 4, name="memory")] + ([padding(2, 5)] if keys else []),
                              lambda m, a, causal=causal: m(a["q"], a["memory"], tgt_mask=~visible(3, 3) if causal else None, memory_key_padding_mask=hide(a)), causal=causal, **o)

    class Llama(tnn.Module):
        """RMSNorm first, SwiGLU, rotary positions, grouped queries"""
        def __init__(self, hk):
            super().__init__()
            self.hk = hk
            self.self_attn = tnn.Module()
            self.self_attn.in_proj_weight = tnn.Parameter(torch.zeros(8 + 4 * hk, 8))
            self.self_attn.out_proj = tnn.Linear(8, 8, bias=False)
            self.linear1, self.linear2, self.linear3 = tnn.Linear(8, 5, bias=False), tnn.Linear(5, 8, bias=False), tnn.Linear(8, 5, bias=False)
            self.norm1, self.norm2 = tnn.RMSNorm(8, eps=f32(1e-5)), tnn.RMSNorm(8, eps=f32(1e-5))

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (self.norm1(x) @ self.self_attn.in_proj_weight.T).view(b, t, -1, 2).transpose(1, 2).split([4, self.hk, self.hk], 1)
            angle = torch.arange(t, dtype=x.dtype).view(t, 1)
            turn = lambda z: torch.stack((z[..., 0::2] * angle.cos() - z[..., 1::2] * angle.sin(), z[..., 1::2] * angle.cos() + z[..., 0::2] * angle.sin()), -1).flatten(-2)
            y = F.scaled_dot_product_attention(turn(q), turn(k), v, attn_mask=visible(t, t), enable_gqa=self.hk != 4)
            x = x + self.self_attn.out_proj(y.transpose(1, 2).reshape(b, t, 8))
            h = self.norm2(x)
            return x + self.linear2(F.silu(self.linear1(h)) * self.linear3(h))
    for hk in (4, 2, 1):
        layer("encoder", name_of("llama", hk), Llama(hk), [rnd(2, 3, 8, name="q")], lambda m, a: m(a["q"]), embed=8, heads=4, kv_heads=hk, hidden=5, norm_first=1, no_bias=1, causal=1,
              rmsnorm=1, gated=1, rope=1, eps=1e-5)


# ---- recurrent nets: all options of nn.RNN, nn.LSTM, nn.GRU; CTC ------------------------------------------------------

    for h, hk, tq, tk, shape, causal in ((2, 2, 3, 4, (2, 2, 3, 4), 0), (4, 2, 3, 5, (4, 3, 5), 0), (4, 2, 3, 5, (1, 5), 1), (2, 2, 4, 4, (2, 1, 1, 4), 0),
                                         (3, 1, 6, 6, (6, 6), 1), (1, 1, 2, 130, (2, 130), 0), (4, 2, 40, 70, (4, 40, 70), 1)):       # learned masks
        sdpa("learned " + name_of(shape), h, hk, tq, tk, 3, 4, rnd(*shape, name="mask"), causal, 2)


def recurrent():
    """One output: y, h and c, each flattened, one after the other, so that dy reaches all of them."""
    def rnn(kind, cls, label, o, batch, steps, width, hidden, state, lengths=None, relu=0, proj=0):
        cell, time_first = kind.endswith("_cell"), o.get("time_first", 0)
        how = {} if cell else dict(num_layers=o.get("layers", 1), bidirectional=bool(o.get("bidirectional")), batch_first=not time_first)
        if relu:
            how["nonlinearity"] = "relu"
        if proj:
            how["proj_size"] = proj
        m = cls(width, hidden, bias=not o.get("no_bias"), **how).double()
        runs, out = o.get("layers", 1) * (2 if o.get("bidirectional") else 1), proj or hidden
        inputs = [rnd(*((batch, width) if cell else (steps, batch, width) if time_first else (batch, steps, width)))]
        if state:
            inputs.append(rnd(*((batch, out) if cell else (runs, batch, out)), name="h"))
            if "LSTM" in cls.__name__:
                inputs.append(rnd(*((batch, hidden) if cell else (runs, batch, hidden)), name="c"))
        if lengths:
            inputs.append(raw(np.array(lengths, np.int64), "lengths"))
        first = len(inputs)
        names = [n for n, _ in m.named_parameters()]
        with torch.no_grad():
            for n, v in m.named_parameters():
                i = rnd(*v.shape, low=-1, high=1, name="l." + n)
                v.copy_(torch.tensor(i.values))
                inputs.append(i)
        t = {i.name: torch.tensor(i.values).double().requires_grad_(True) for i in inputs[:first] if i.name != "lengths"}
        x, start = t["x"], None
        if state:
            start = (t["h"], t["c"]) if "c" in t else t["h"]
        if lengths:
            x = tnn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=not time_first, enforce_sorted=False)
        y = m(x, start)
        if cell:
            parts = list(y) if isinstance(y, tuple) else [y]
        else:
            y, last = y
            if lengths:
                y = tnn.utils.rnn.pad_packed_sequence(y, batch_first=not time_first, total_length=steps)[0]
            parts = [y] + (list(last) if isinstance(last, tuple) else [last])
        y = torch.cat([v.reshape(-1) for v in parts])
        dy = rnd(*y.shape, name="dy", low=-1, high=1)
        y.backward(torch.tensor(dy.values).double())
        params = dict(m.named_parameters())
        grads = [(k, (t[i.name] if i.name in t else params[i.name[2:]]).grad.numpy()) for k, i in enumerate(inputs) if i.name != "lengths"]
        opts = {k: v for k, v in dict(o, relu=relu, proj=proj).items() if v}
        record("rnn_" + kind, label, dict(opts, hidden=hidden, first=first, **{"in": width}), inputs, [y.detach().numpy()], dy.values, grads, dy.stored)

    for kind, cls, relu, proj in (("rnn", tnn.RNN, 0, 0), ("rnn", tnn.RNN, 1, 0), ("lstm", tnn.LSTM, 0, 0), ("lstm", tnn.LSTM, 0, 1), ("gru", tnn.GRU, 0, 0)):
        for bits in range(64):
            layers, bidirectional, time_first, no_bias, lengths, state = (bits >> k & 1 for k in range(6))
            o = {"layers": layers + 1, "bidirectional": bidirectional, "time_first": time_first, "no_bias": no_bias}
            label = name_of(*[n for n, v in (("relu", relu), ("proj", proj), ("deep", layers), ("both ways", bidirectional), ("time first", time_first), ("no bias", no_bias), ("lengths", lengths), ("state", state)) if v])
            rnn(kind, cls, label, o, 2, 3, 2, 2, state, [(3, 2), (1, 3)][no_bias] if lengths else None, relu, proj)
        rnn(kind, cls, name_of("relu" if relu else "", "proj" if proj else "", "one step"), {}, 1, 1, 3, 4, 1, None, relu, proj)
        rnn(kind, cls, name_of("relu" if relu else "", "proj" if proj else "", "wide"), {}, 5, 2, 2, 17, 0, [2, 1, 2, 1, 2], relu, proj and 9)
    for kind, cls in (("rnn_cell", tnn.RNNCell), ("lstm_cell", tnn.LSTMCell), ("gru_cell", tnn.GRUCell)):
        for state in (0, 1):
            for no_bias in (0, 1):
                rnn(kind, cls, name_of("state" if state else "", "no bias" if no_bias else ""), {"no_bias": no_bias}, 3, 1, 2, 3, state)
    rnn("rnn_cell", tnn.RNNCell, "relu", {}, 3, 1, 2, 3, 1, relu=1)

    def ctc(label, classes, steps, targets, inputs, sizes, reduction="mean", blank=0, zero=0):
        index = {"mean": 0, "sum": 1, "none": 2}[reduction]
        more = [raw(np.array(v, np.int64), n) for n, v in (("targets", targets), ("steps", inputs), ("sizes", sizes))]
        fn = lambda x, t, i, n: F.ctc_loss(F.log_softmax(x, 2), t, i, n, blank, reduction, bool(zero))
        case("ctc_loss", label, fn, [rnd(steps, len(inputs), classes, low=-3, high=3)] + more, reduction=index, blank=blank, zero_infinity=zero)

    for reduction in ("mean", "sum", "none"):
        for blank in (0, 3):
            c = [k for k in range(4) if k != blank]
            ctc(name_of(reduction, blank, "padded"), 4, 7, [[c[0], c[1], c[1]], [c[2], c[2], 0], [c[0], 0, 0]], [7, 6, 3], [3, 2, 1], reduction, blank)
            ctc(name_of(reduction, blank, "behind each other"), 4, 7, [c[0], c[1], c[1], c[2], c[2], c[0]], [7, 6, 3], [3, 2, 1], reduction, blank)
            ctc(name_of(reduction, blank, "tight"), 4, 3, [[c[0], c[1], c[2]]], [3], [3], reduction, blank)
            ctc(name_of(reduction, blank, "empty"), 4, 3, [[c[0], c[1]], [c[0], c[0]]], [3, 2], [0, 1], reduction, blank)
            ctc(name_of(reduction, blank, "too long"), 4, 2, [[c[0], c[0]], [c[1], c[2]]], [2, 2], [2, 2], reduction, blank, 1)
    ctc("long", 6, 40, [[1, 2, 3, 4, 5] * 4, [5, 5, 1, 1, 2] * 4], [40, 33], [20, 17])


# ---- initialisers: bounds and statistics of many numbers -------------------------------------------------
def initialisers():
    def stats(op, label, t, opts, exact_low=None, exact_high=None):
        """outputs: mean, std, low, high; low and high NaN where the distribution has no bounds"""
        a = t.detach().double().numpy()
        s = np.array([a.mean(), a.std(), NAN if exact_low is None else exact_low, NAN if exact_high is None else exact_high])
        record("init_" + op, label, {k: (f32(v) if isinstance(v, float) else v) for k, v in opts.items()}, [], [s, np.array(t.shape, np.int64)])

    torch.manual_seed(1)
    for shape in ((60, 100), (20, 10, 5, 5), (40, 30, 7)):
        d = shape_opts("d", shape)
        t = lambda: torch.empty(shape)
        fan_in, fan_out = tnn.init._calculate_fan_in_and_fan_out(t())
        stats("constant", name_of(shape), tnn.init.constant_(t(), 0.3), dict(d, value=0.3), 0.3, 0.3)
        stats("uniform", name_of(shape), tnn.init.uniform_(t(), -0.2, 0.7), dict(d, low=-0.2, high=0.7), -0.2, 0.7)
        stats("normal", name_of(shape), tnn.init.normal_(t(), 0.5, 2.0), dict(d, mean=0.5, std=2.0))
        stats("trunc_normal", name_of(shape), tnn.init.trunc_normal_(t(), 0.0, 1.0, -2.0, 2.0), dict(d, mean=0.0, std=1.0, low=-2.0, high=2.0), -2, 2)
        stats("trunc_normal", name_of(shape, "narrow"), tnn.init.trunc_normal_(t(), 0.5, 1.0, 0.0, 0.75), dict(d, mean=0.5, std=1.0, low=0.0, high=0.75), 0, 0.75)
        for gain in (1.0, tnn.init.calculate_gain("tanh")):
            b = gain * np.sqrt(6.0 / (fan_in + fan_out))
            stats("xavier_uniform", name_of(shape, "%.3g" % gain), tnn.init.xavier_uniform_(t(), gain), dict(d, gain=gain), -b, b)
            stats("xavier_normal", name_of(shape, "%.3g" % gain), tnn.init.xavier_normal_(t(), gain), dict(d, gain=gain))
        for slope in (0.0, 0.2):
            b = np.sqrt(2.0 / (1 + slope ** 2)) * np.sqrt(3.0 / fan_in)
            stats("kaiming_uniform", name_of(shape, slope), tnn.init.kaiming_uniform_(t(), slope), dict(d, slope=slope), -b, b)
            stats("kaiming_normal", name_of(shape, slope), tnn.init.kaiming_normal_(t(), slope), dict(d, slope=slope))
    for shape, gain in (((12, 12), 1.0), ((8, 20), 1.0), ((20, 8), 1.5), ((6, 4, 3, 3), 1.0)):
        stats("orthogonal", name_of(shape, gain), tnn.init.orthogonal_(torch.empty(shape), gain), dict(shape_opts("d", shape), gain=gain))

    # what layers start with
    for label, m, opts in (("linear", tnn.Linear(90, 80), {"in": 90, "out": 80}), ("conv1d", tnn.Conv1d(20, 40, 5), {"in": 20, "out": 40, "kernel": 5}), ("conv2d", tnn.Conv2d(12, 40, 3), {"in": 12, "out": 40, "kernel": 3}),
                           ("conv2d groups", tnn.Conv2d(12, 48, 3, groups=4), {"in": 12, "out": 48, "kernel": 3, "groups": 4}),
                           ("conv_transpose1d", tnn.ConvTranspose1d(20, 40, 5), {"in": 20, "out": 40, "kernel": 5}), ("conv_transpose2d", tnn.ConvTranspose2d(12, 40, 3), {"in": 12, "out": 40, "kernel": 3}),
                           ("conv_transpose2d groups", tnn.ConvTranspose2d(12, 48, 3, groups=4), {"in": 12, "out": 48, "kernel": 3, "groups": 4}),
                           ("embedding", tnn.Embedding(100, 60), {"in": 100, "out": 60}), ("batchnorm", tnn.BatchNorm2d(8), {"channels": 8}), ("layernorm", tnn.LayerNorm(9), {"n_d": 1, "d0": 9}),
                           ("groupnorm", tnn.GroupNorm(2, 8), {"groups": 2, "channels": 8})):
        for n, t in m.state_dict().items():
            if n.endswith("num_batches_tracked"):
                continue
            lo = hi = None
            if n in ("weight", "bias") and label[:4] in ("line", "conv"):
                fan_in, _ = tnn.init._calculate_fan_in_and_fan_out(m.weight)
                hi = 1.0 / np.sqrt(fan_in)                                 # kaiming_uniform(a = sqrt(5))
                lo = -hi
            elif label[:4] != "embe":
                lo = hi = float(t.double().mean())
            stats("layer_" + label.split()[0], name_of(label, n), t, dict(opts, param=n), lo, hi)


# ---- optimizers and schedules: 100 steps -----------------------------------------------------------------
# Their options count as written in nn.h: 0.9f is the double 0.9. So no f32() here.
class Lion(torch.optim.Optimizer):
    """Chen et al. 2023, algorithm 2"""
    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for g in self.param_groups:
            b1, b2 = g["betas"]
            for p in g["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                c = torch.sign(b1 * m + (1 - b1) * p.grad)
                p.sub_(g["lr"] * (c + g["weight_decay"] * p))
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


def trajectory(net_loss, params, opt, steps, every, clip_norm=0.0, clip_value=0.0, schedule=None):
    out, losses = [], []
    for s in range(steps):
        opt.zero_grad()
        loss = net_loss(s)
        loss.backward()
        ps = [p for p in params if p.grad is not None]
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(ps, clip_norm)
        if clip_value:
            torch.nn.utils.clip_grad_value_(ps, clip_value)
        opt.step()
        if schedule:
            schedule.step()
        losses.append(float(loss.detach()))
        if (s + 1) % every == 0:
            out.append(np.concatenate([p.detach().numpy().reshape(-1) for p in params]))
    return np.array(losses), np.array(out)


def make_optimizer(kind, params, o):
    lr = {} if "lr" not in o else {"lr": o["lr"]}
    wd = {} if "weight_decay" not in o else {"weight_decay": o["weight_decay"]}
    eps = {} if "eps" not in o else {"eps": o["eps"]}
    defaults = (0.9, 0.99) if kind == "lion" else (0.9, 0.999)
    betas = {"betas": (o.get("beta1", defaults[0]), o.get("beta2", defaults[1]))}
    T = torch.optim
    f = dict(sgd=0.01, rmsprop=0.01, adagrad=0.01, adam=0.001, adamw=0.001, nadam=0.002, lion=0.0001)
    lr = lr or {"lr": f[kind]}
    if kind == "sgd":
        return T.SGD(params, momentum=o.get("momentum", 0.0), dampening=o.get("dampening", 0.0), nesterov=bool(o.get("nesterov", 0)), **lr, **wd)
    if kind == "rmsprop":
        return T.RMSprop(params, alpha=o.get("alpha", 0.99), momentum=o.get("momentum", 0.0), centered=bool(o.get("centered", 0)), **lr, **wd, **(eps or {"eps": 1e-8}))
    if kind == "adagrad":
        return T.Adagrad(params, lr_decay=o.get("lr_decay", 0.0), **lr, **wd, **(eps or {"eps": 1e-10}))
    if kind == "adam":
        return T.Adam(params, amsgrad=bool(o.get("amsgrad", 0)), **lr, **wd, **betas, **(eps or {"eps": 1e-8}))
    if kind == "adamw":
        return T.AdamW(params, amsgrad=bool(o.get("amsgrad", 0)), **lr, **(wd or {"weight_decay": 0.01}), **betas, **(eps or {"eps": 1e-8}))
    if kind == "nadam":
        return T.NAdam(params, momentum_decay=o.get("momentum_decay", 0.004), **lr, **wd, **betas, **(eps or {"eps": 1e-8}))
    return Lion(params, **lr, **wd, **betas)


def optimizers():
    settings = {
        "sgd": [{}, {"lr": 0.1}, {"lr": 0.05, "momentum": 0.9}, {"lr": 0.05, "momentum": 0.5, "dampening": 0.3}, {"lr": 0.05, "momentum": 0.9, "nesterov": 1}, {"lr": 0.1, "weight_decay": 0.01},
                {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}, {"lr": 0.05, "momentum": 0.9, "nesterov": 1, "weight_decay": 0.05}, {"lr": 0.3}],
        "rmsprop": [{}, {"lr": 0.003}, {"alpha": 0.9}, {"eps": 1e-3}, {"momentum": 0.9, "lr": 0.001}, {"centered": 1, "lr": 0.003}, {"centered": 1, "momentum": 0.5, "lr": 0.002}, {"weight_decay": 0.01},
                    {"centered": 1, "weight_decay": 0.01, "eps": 1e-2}],
        "adagrad": [{}, {"lr": 0.1}, {"lr": 0.1, "lr_decay": 0.01}, {"lr": 0.1, "eps": 1e-3}, {"lr": 0.1, "weight_decay": 0.01}, {"lr": 0.2, "lr_decay": 0.05, "weight_decay": 0.02}],
        "adam": [{}, {"lr": 0.01}, {"lr": 0.05}, {"lr": 0.01, "beta1": 0.5}, {"lr": 0.01, "beta2": 0.9}, {"lr": 0.01, "eps": 1e-3}, {"lr": 0.01, "weight_decay": 0.05}, {"lr": 0.01, "amsgrad": 1},
                 {"lr": 0.05, "amsgrad": 1, "weight_decay": 0.01, "beta2": 0.95}],
        "adamw": [{}, {"lr": 0.01}, {"lr": 0.05, "weight_decay": 0.2}, {"lr": 0.01, "beta1": 0.8, "beta2": 0.95}, {"lr": 0.01, "amsgrad": 1}, {"lr": 0.03, "amsgrad": 1, "weight_decay": 0.1}, {"lr": 0.01, "eps": 1e-4}],
        "nadam": [{}, {"lr": 0.01}, {"lr": 0.01, "momentum_decay": 0.02}, {"lr": 0.01, "beta1": 0.7, "beta2": 0.9}, {"lr": 0.01, "weight_decay": 0.05}, {"lr": 0.03, "eps": 1e-3}],
        "lion": [{}, {"lr": 0.001}, {"lr": 0.003, "weight_decay": 0.1}, {"lr": 0.002, "beta1": 0.8}, {"lr": 0.001, "beta2": 0.9}],
    }
    for kind in settings:
        settings[kind] += [{"lr": 0.01, "clip_norm": 0.1}, {"lr": 0.01, "clip_norm": 100.0}, {"lr": 0.01, "clip_value": 0.02}]
    settings["sgd"] += [{"lr": 0.1, "momentum": 0.9, "clip_norm": 0.05, "weight_decay": 0.01}]

    def problem(real):
        # three batches in turn and targets that cannot be learnt: no gradient comes near zero, where RMSprop and Lion magnify rounding
        x = torch.tensor(rnd(24, 4, key="problem x").values, dtype=real)
        y = torch.tensor(rnd(24, 3, key="problem y").values, dtype=real)
        ps = [torch.tensor(i.values, dtype=real, requires_grad=True) for i in start]

        def loss(s):
            b = slice(s % 3 * 8, s % 3 * 8 + 8)
            return F.mse_loss(F.linear(torch.tanh(F.linear(x[b], ps[0], ps[1])), ps[2], ps[3]), y[b])
        return ps, loss
    start = [rnd(5, 4, low=-0.75, high=0.75, name="fc1.weight", key="p0"), rnd(5, low=-0.75, high=0.75, name="fc1.bias", key="p1"),
             rnd(3, 5, low=-0.75, high=0.75, name="fc2.weight", key="p2"), rnd(3, low=-0.75, high=0.75, name="fc2.bias", key="p3")]
    for kind, list_ in settings.items():
        for n, o in enumerate(list_):
            runs = {}
            for real in (torch.float64, torch.float32):
                ps, loss = problem(real)
                k = {c: o[c] for c in ("clip_norm", "clip_value") if c in o}
                runs[real] = trajectory(loss, ps, make_optimizer(kind, ps, {a: b for a, b in o.items() if a not in k}), 100, 10, **k)
            l, t = runs[torch.float64]
            drift = np.abs(t - runs[torch.float32][1]).max() / np.abs(t).max()
            if drift > 3e-6:
                print("  note: %s %s: float32 and float64 of PyTorch differ by %.1e" % (kind, o, drift))
            record("optim_" + kind, name_of(*["%s=%g" % q for q in o.items()]) or "default", dict(o),
                   [rnd(24, 4, key="problem x", grad=False), rnd(24, 3, key="problem y", grad=False, name="y")] + [rnd_copy(s) for s in start], [l, t])
    # a parameter group: the biases with another learning rate
    for kind, o in (("sgd", {"lr": 0.05, "momentum": 0.9}), ("adam", {"lr": 0.01}), ("adamw", {"lr": 0.01})):
        ps, loss = problem(torch.float64)
        opt = make_optimizer(kind, [{"params": [ps[0], ps[2]]}, {"params": [ps[1], ps[3]], "lr": 0.002}], o)
        l, t = trajectory(loss, ps, opt, 100, 10)
        record("optim_" + kind, "bias group", dict(o, group_lr=0.002),
               [rnd(24, 4, key="problem x", grad=False), rnd(24, 3, key="problem y", grad=False, name="y")] + [rnd_copy(s) for s in start], [l, t])
    # torch.amp.GradScaler: losses that are multiplied by infinity or NaN now and then, and a scale that grows until gradients overflow
    for kind, o in (("sgd", {"lr": 0.05, "momentum": 0.9, "dampening": 0.2}), ("adam", {"lr": 0.01, "clip_norm": 0.1}), ("adamw", {"lr": 0.01, "clip_value": 0.02}),
                    ("nadam", {"lr": 0.01}), ("adagrad", {"lr": 0.1, "lr_decay": 0.05}), ("rmsprop", {"lr": 0.003}), ("lion", {"lr": 0.001})):
        ps, loss = problem(torch.float32)
        factor = np.ones(100)
        factor[[0, 1, 30, 60]] = np.inf, -np.inf, np.nan, np.inf
        opt = make_optimizer(kind, ps, {a: b for a, b in o.items() if not a.startswith("clip")})
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0 ** 118, growth_factor=3.0, backoff_factor=0.25, growth_interval=7)
        losses, out, scales = [], [], []
        for s in range(100):
            opt.zero_grad()
            l = loss(s)
            losses.append(float(l.detach()))
            scaler.scale(l * float(factor[s])).backward()
            scaler.unscale_(opt)
            if "clip_norm" in o:
                torch.nn.utils.clip_grad_norm_(ps, o["clip_norm"])
            if "clip_value" in o:
                torch.nn.utils.clip_grad_value_(ps, o["clip_value"])
            scaler.step(opt)
            scaler.update()
            scales.append(scaler.get_scale())
            if (s + 1) % 10 == 0:
                out.append(np.concatenate([p.detach().numpy().reshape(-1) for p in ps]))
        record("scaler_" + kind, "%g to %g" % (min(scales), max(scales)), dict(o, loss_scale=2.0 ** 118, growth_factor=3.0, backoff_factor=0.25, growth_interval=7),
               [rnd(24, 4, key="problem x", grad=False), rnd(24, 3, key="problem y", grad=False, name="y")] + [rnd_copy(s) for s in start] + [raw(factor, "factor", grad=False)],
               [np.array(losses), np.array(out), np.array(scales)])
    # weight average: torch.optim.swa_utils with get_ema_multi_avg_fn
    for decay in (0.9, 0.99):
        ps, loss = problem(torch.float64)
        opt = make_optimizer("sgd", ps, {"lr": 0.1})
        shadow = [p.detach().clone() for p in ps]
        out = []
        for s in range(50):
            opt.zero_grad(); loss(s).backward(); opt.step()
            for a, p in zip(shadow, ps):
                a.mul_(decay).add_(p.detach(), alpha=1 - decay)
            if (s + 1) % 10 == 0:
                out.append(np.concatenate([a.numpy().reshape(-1) for a in shadow]))
        record("ema", str(decay), {"decay": decay}, [rnd(24, 4, key="problem x", grad=False), rnd(24, 3, key="problem y", grad=False, name="y")] + [rnd_copy(s) for s in start], [np.array(out)])

    S = torch.optim.lr_scheduler
    LR = 0.05

    def schedule(kind, label, make, steps=100, metric=None, warmup=0, **o):
        # warmup: w rates (i + 1) / (w + 1) of the first one come before PyTorch's
        p = torch.zeros(1, requires_grad=True)
        opt = torch.optim.SGD([p], lr=LR)
        s = make(opt)
        values = [opt.param_groups[0]["lr"]]
        for i in range(steps):
            p.grad = torch.zeros(1)
            opt.step()
            if metric is None:
                s.step()
            else:
                s.step(metric[i])
            values.append(opt.param_groups[0]["lr"])
        values = [values[0] * (i + 1) / (warmup + 1) for i in range(warmup)] + values
        if warmup:
            o["warmup"] = warmup
        inputs = [] if metric is None else [raw(metric, "metric", grad=False)]
        record("lr_" + kind, label, dict(o, steps=steps, lr=LR), inputs, [np.array(values)])

    for w in (1, 5, 20):
        schedule("step", "warmup %d" % w, lambda t: S.StepLR(t, 10, 0.5), warmup=w, step_size=10, gamma=0.5)
        schedule("cosine", "warmup %d" % w, lambda t: S.CosineAnnealingLR(t, 60), steps=60, warmup=w, total=60)
        schedule("exponential", "warmup %d" % w, lambda t: S.ExponentialLR(t, 0.9), warmup=w, gamma=0.9)
        schedule("one_cycle", "warmup %d" % w, lambda t: S.OneCycleLR(t, 0.1, total_steps=50, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, cycle_momentum=False), steps=49, warmup=w, total=50, max_lr=0.1)
    for n, g in ((1, 0.9), (10, 0.1), (7, 0.5), (30, 0.0)):
        o = {"gamma": g} if g else {}
        schedule("step", name_of(n, g or "default"), lambda t: S.StepLR(t, n, g or 0.1), step_size=n, **o)
    for ms, g in (((10, 50), 0.0), ((5, 6, 7), 0.5), ((30,), 0.2), ((1, 2, 3, 99), 0.9), ((20, 20, 40), 0.5)):
        o = {"gamma": g} if g else {}
        schedule("multi_step", name_of(ms, g or "default"), lambda t: S.MultiStepLR(t, list(ms), g or 0.1), **o, **shape_opts("d", ms))
    for g in (0.0, 0.9, 0.99, 0.999):
        schedule("exponential", str(g or "default"), lambda t: S.ExponentialLR(t, g or 0.95), **({"gamma": g} if g else {}))
    for n, p in ((100, 0.0), (50, 2.0), (80, 0.5), (20, 1.0), (100, 3.0)):
        schedule("polynomial", name_of(n, p or "default"), lambda t: S.PolynomialLR(t, n, p or 1.0), total=n, **({"power": p} if p else {}))
    for n, a, b in ((10, 0.0, 0.0), (50, 0.5, 1.0), (100, 1.0, 0.1), (30, 0.1, 0.5), (5, 0.25, 0.0)):
        o = dict(({"start_factor": a} if a else {}), **({"end_factor": b} if b else {}))
        schedule("linear", name_of(n, a, b), lambda t: S.LinearLR(t, a or 1.0 / 3, b or 1.0, n), total=n, **o)
    for n, m in ((100, 0.0), (50, 0.001), (20, 0.0), (33, 0.01)):
        # closed form: PyTorch's recursion and it agree up to n and then part; the header says cosine_lr counts `total` advances
        schedule("cosine", name_of(n, m), lambda t: S.CosineAnnealingLR(t, n, m), steps=n, total=n, **({"min_lr": m} if m else {}))
    for n, k, m in ((10, 1, 0.0), (10, 2, 0.0), (7, 3, 0.001), (1, 2, 0.0), (0, 0, 0.0), (25, 1, 0.01)):
        o = dict(({"period": n} if n else {}), **({"period_mult": k} if k else {}), **({"min_lr": m} if m else {}))
        schedule("warm_restarts", name_of(n, k, m), lambda t: S.CosineAnnealingWarmRestarts(t, n or 10, k or 1, m), **o)
    for n, mx, rise, div, fin in ((100, 0.1, 0.0, 0.0, 0.0), (100, 1.0, 0.5, 10.0, 100.0), (50, 0.3, 0.1, 25.0, 1e4), (10, 0.1, 0.4, 2.0, 2.0), (101, 0.5, 0.25, 0.0, 0.0)):
        o = {"max_lr": mx, **({"rise": rise} if rise else {}), **({"div": div} if div else {}), **({"final_div": fin} if fin else {})}
        schedule("one_cycle", name_of(n, mx, rise, div, fin), lambda t: S.OneCycleLR(t, mx, total_steps=n, pct_start=rise or 0.3, div_factor=div or 25.0, final_div_factor=fin or 1e4, cycle_momentum=False),
                 steps=n - 1, total=n, **o)
    flat = np.concatenate([np.linspace(1, 0.5, 20), np.full(40, 0.5), np.linspace(0.5, 0.4, 10), np.full(30, 0.45)]).astype(np.float32)
    noisy = (1.0 / (1 + np.arange(100) / 10.0) + 0.05 * np.sin(np.arange(100) * 1.7)).astype(np.float32)
    for label, m in (("flat", flat), ("noisy", noisy)):
        for o in ({}, {"factor": 0.5, "patience": 3}, {"patience": 5, "cooldown": 4}, {"factor": 0.5, "patience": 2, "threshold": 0.05}, {"factor": 0.3, "patience": 1, "min_lr": 0.001}, {"maximize": 1, "patience": 4}):
            schedule("plateau", name_of(label, sorted(o.items())), lambda t: S.ReduceLROnPlateau(t, "max" if o.get("maximize") else "min", o.get("factor", 0.1), o.get("patience", 10),
                     threshold=o.get("threshold", 1e-4), cooldown=o.get("cooldown", 0), min_lr=o.get("min_lr", 0.0)), metric=[float(v) for v in m], **o)


# ---- loss curves of real training ------------------------------------------------------------------------
def curves():
    with open(os.path.join(DATA, "digits-images-idx3-ubyte"), "rb") as f:
        images = np.frombuffer(f.read()[16:], np.uint8).reshape(-1, 8, 8).astype(np.float32) / 16
    with open(os.path.join(DATA, "digits-labels-idx1-ubyte"), "rb") as f:
        labels = np.frombuffer(f.read()[8:], np.uint8).astype(np.int64)

    def run(net, label, steps, batch, kind, o):
        res = {}
        shapes = {"mlp": [("fc1.weight", (64, 64)), ("fc1.bias", (64,)), ("fc2.weight", (10, 64)), ("fc2.bias", (10,))],
                  "lenet": [("conv1.weight", (6, 1, 5, 5)), ("conv1.bias", (6,)), ("conv2.weight", (16, 6, 5, 5)), ("conv2.bias", (16,)), ("fc1.weight", (120, 400)), ("fc1.bias", (120,)),
                            ("fc2.weight", (84, 120)), ("fc2.bias", (84,)), ("fc3.weight", (10, 84)), ("fc3.bias", (10,))]}[net.rstrip("5")]
        start = []
        for n, s in shapes:
            fan = int(np.prod(s[1:])) if len(s) > 1 else dict(shapes)[n.replace("bias", "weight")]
            fan = fan if isinstance(fan, int) else int(np.prod(fan[1:]))
            b = round((fan ** -0.5 if net == "mlp" else (6 / fan) ** 0.5 if net == "lenet" else (3 / fan) ** 0.5) * 256) / 256     # LeNet: He et al. 2015, or it idles at first and rounding grows
            start.append(rnd(*s, low=-b, high=b, name=n, key=net + n))
        for real in (torch.float64, torch.float32):
            p = {i.name: torch.tensor(i.values, dtype=real, requires_grad=True) for i in start}
            x, y = torch.tensor(images, dtype=real), torch.tensor(labels)

            def forward(x):
                if net == "mlp":
                    return F.linear(F.relu(F.linear(x.reshape(-1, 64), p["fc1.weight"], p["fc1.bias"])), p["fc2.weight"], p["fc2.bias"])
                x = F.interpolate(x[:, None], (28, 28), mode="bilinear")
                # lenet5: tanh and means as in LeCun et al. 1998. It is smooth: fast SGD throws relu and max over their kinks, and then
                # not even PyTorch's own float32 keeps 3 digits of its float64.
                act, pool = (torch.tanh, F.avg_pool2d) if net == "lenet5" else (F.relu, F.max_pool2d)
                x = pool(act(F.conv2d(x, p["conv1.weight"], p["conv1.bias"], padding=2)), 2)
                x = pool(act(F.conv2d(x, p["conv2.weight"], p["conv2.bias"])), 2).flatten(1)
                x = act(F.linear(x, p["fc1.weight"], p["fc1.bias"]))
                x = act(F.linear(x, p["fc2.weight"], p["fc2.bias"]))
                return F.linear(x, p["fc3.weight"], p["fc3.bias"])

            def loss(s):
                i = (np.arange(batch) + s * batch) % 1437
                return F.cross_entropy(forward(x[i]), y[i])
            params = list(p.values())
            res[real] = trajectory(loss, params, make_optimizer(kind, params, o), steps, steps)
        l = res[torch.float64][0]
        print("  %s %s: loss %.4f -> %.4f; PyTorch's own float32 is off by at most %.1e" % (net, label, l[0], l[-10:].mean(), np.abs(res[torch.float32][0] - l).max() / np.abs(l).max()))
        record("curve_" + net, label, {**dict(o), "optimizer": kind, "batch": batch, "steps": steps}, start, [l])

    run("mlp", "sgd", 200, 32, "sgd", {"lr": 0.1})
    run("mlp", "momentum", 200, 32, "sgd", {"lr": 0.05, "momentum": 0.9})
    run("mlp", "adam", 200, 32, "adam", {"lr": 0.001})
    run("mlp", "adamw", 200, 32, "adamw", {"lr": 0.001, "weight_decay": 0.05})
    run("mlp", "rmsprop", 200, 32, "rmsprop", {"lr": 0.0003})
    run("lenet5", "sgd", 200, 8, "sgd", {"lr": 0.02, "momentum": 0.9})
    run("lenet", "adam", 200, 8, "adam", {"lr": 0.0003})


THEMES = [elementwise, reductions, linear_algebra, shape_ops, conv_ops, norm_ops, losses, layers, recurrent, attention, initialisers, optimizers, curves]

if __name__ == "__main__":
    os.makedirs(HERE, exist_ok=True)
    total = size = 0
    for t in THEMES:
        theme = Theme(t.__name__)
        serial[0] = 0
        if len(sys.argv) > 1 and theme.name not in sys.argv[1:]:
            continue
        t()
        theme.write()
        total += len(theme.records)
    print("torch %s: %d cases, %d bytes" % (torch.__version__, total, sum(os.path.getsize(os.path.join(HERE, f)) for f in os.listdir(HERE))))
