#!/usr/bin/env python3
"""Our files against the safetensors library: it reads what we write, we read what it writes.

    python3 tests/check_safetensors.py [program]     program: tests/safetensors_tool.c, compiled; built here if not given
Needs the packages safetensors and numpy; without them it says "skipped". The last line is  N passed, N failed, N skipped."""
import json, os, struct, subprocess, sys, tempfile

try:
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file
except ImportError as e:
    print("skipped: %s" % e)
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHAPES = {"fc1.weight": (7, 5), "fc1.bias": (7,), "inner.fc2.weight": (300, 7), "inner.fc2.bias": (300,),
          "scalar": (), "empty": (0, 3), 'quote"back\\slash': (2, 3, 4)}
passed = failed = 0


def check(name, ok):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    if not ok:
        print("FAILED", name)


def numbers(shape):                                       # the formula of safetensors_tool.c
    n = int(np.prod(shape, dtype=np.int64))
    return ((np.arange(n, dtype=np.int64) * 37 % 101 - 50) / 8).reshape(shape)


def bf16_file(path):                                      # numpy has no bf16: write the format by hand
    header, data = {}, b""
    for name, shape in SHAPES.items():
        bits = (numbers(shape).astype(np.float32).view(np.uint32) >> 16).astype("<u2") if np.prod(shape) != 0 else np.zeros(shape, "<u2")
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [len(data), len(data) + bits.nbytes]}
        data += bits.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def main(tool, d):
    check("writing", subprocess.call([tool, "write", d]) == 0)
    for kind, dtype in (("f32", np.float32), ("f16", np.float16), ("f64", np.float64)):
        got = load_file("%s/ours_%s.safetensors" % (d, kind))
        check(kind + ": names", set(got) == set(SHAPES))
        for name, shape in SHAPES.items():
            a = got.get(name)
            check("%s: %s" % (kind, name), a is not None and a.dtype == dtype and a.shape == shape and np.array_equal(a, numbers(shape).astype(dtype)))
    with safe_open("%s/ours_bf16.safetensors" % d, framework="numpy") as f:     # the library checks the header; the bits are ours to check
        check("bf16: names", set(f.keys()) == set(SHAPES))
        check("bf16: metadata", f.metadata() == {"format": "pt"})
    raw = open("%s/ours_bf16.safetensors" % d, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    check("alignment", n % 8 == 0)
    for name, shape in SHAPES.items():
        begin, end = header[name]["data_offsets"]
        bits = np.frombuffer(raw[8 + n + begin:8 + n + end], "<u2").astype(np.uint32) << 16
        check("bf16: " + name, header[name]["dtype"] == "BF16" and np.array_equal(bits.view(np.float32).reshape(shape), numbers(shape).astype(np.float32)))
    with safe_open("%s/ours_checkpoint.safetensors" % d, framework="numpy") as f:
        check("checkpoint", f.metadata()["nn.checkpoint"] == "1" and all("optimizer.exp_avg_sq." + k in f.keys() for k in SHAPES))
    for dtype in ("float32", "float16", "float64", "int8", "int32", "int64"):
        whole = dtype.startswith("int")
        arrays = {k: np.asarray(2 * np.trunc(numbers(s)) if whole else numbers(s)).astype(dtype).reshape(s) for k, s in SHAPES.items()}
        short = {"float32": "F32", "float16": "F16", "float64": "F64", "int8": "I8", "int32": "I32", "int64": "I64"}[dtype]
        save_file(arrays, "%s/theirs_%s.safetensors" % (d, short), metadata={"who": "safetensors \u00e9 \"\n"})
    bf16_file("%s/theirs_BF16.safetensors" % d)
    check("reading", subprocess.call([tool, "read", d]) == 0)


with tempfile.TemporaryDirectory() as d:
    tool = sys.argv[1] if len(sys.argv) > 1 else os.path.join(d, "tool")
    if len(sys.argv) < 2:
        subprocess.check_call([os.environ.get("CC", "cc"), "-std=c99", "-O1", "-DNN_NO_SIMD", "-I", ROOT, os.path.join(ROOT, "tests", "safetensors_tool.c"), "-o", tool, "-lm", "-lpthread"])
    main(tool, d)
print("%d passed, %d failed, 0 skipped" % (passed, failed))
sys.exit(failed != 0)
