#!/usr/bin/env python3
"""Are the tests of nn_cuda.h strong enough? Breaks one thing at a time in its kernels and says which breaks no test notices.

   mutate.py [--every N] [--first N] [--seconds S] [--section NAME] [--out FILE]

Mutants: a barrier is removed; a comparison of an index with a bound is moved by one (< becomes <=, >= becomes >); a mask of lanes loses its upper
half; a step of a warp's sum is left out; an addition to a gradient becomes an assignment. Each is compiled for the shim (-O0, no sanitizer) and
must fail: a crash, a wrong number, a race or a complaint of the shim. Those that pass are compiled again under ASan+UBSan. What then remains
is written with its line. Cases are chosen by section, so that a mutant takes seconds, not minutes; a whole run takes hours: --every 20 samples."""
import argparse, os, re, subprocess, sys, tempfile

CASES = {"maps": "", "reduce": "sum,max,min,prod,var,std,logsumexp,norm,arg,cumsum", "shape": "concat,gather,scatter,index,one_hot,tri,sort,topk,pad,arange", "products": "matmul,linear",
         "conv": "conv,pool,upsample", "norm": "norm,softmax", "loss": "mse,l1,huber,hinge,entropy,nll,margin,kl_div", "embedding": "embedding", "attention": "attention,rope", "rnn": "rnn,ctc",
         "optim": None, "words": ""}


def mutants(text):
    """(line number, what, new line)"""
    inside, section, depth = False, "", 0
    for n, line in enumerate(text):
        m = re.match(r"// >>(\w+)", line)
        if m: section = m.group(1)
        if re.match(r"(static __global__|NN__DEV|template .*(__global__|NN__DEV))", line): inside = True
        if inside:
            code = line.split("//")[0]
            if "__syncthreads();" in code: yield n, section, "barrier removed", line.replace("__syncthreads();", ";", 1)
            if "NN__FULL" in code and "define" not in code: yield n, section, "mask broken", line.replace("NN__FULL", "0x0000ffffu", 1)
            for m in re.finditer(r"(?<![<\w])(\w+|\)) (<|>=) (?=[\w(])", code):
                if "template" in code or "#" in code: continue
                new = {"<": "<=", ">=": ">"}[m.group(2)]
                yield n, section, "bound moved: %s becomes %s" % (m.group(2), new), line[:m.start(2)] + new + line[m.end(2):]
            if re.search(r"m = 16; m;", code): yield n, section, "a step of a warp's sum left out", line.replace("m = 16; m;", "m = 8; m;", 1)
            if re.search(r"\] \+= ", code) and "acc" not in code: yield n, section, "+= becomes =", re.sub(r"\] \+= ", "] = ", line, count=1)
        if line.startswith("}"): inside = False


def run(command, seconds, env=None):
    try:
        p = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds, env=dict(os.environ, **(env or {})))
        return p.returncode
    except subprocess.TimeoutExpired: return -1


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--every", type=int, default=1); a.add_argument("--first", type=int, default=0); a.add_argument("--seconds", type=int, default=10 ** 9)
    a.add_argument("--section"); a.add_argument("--out")
    o = a.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    text = open("nn_cuda.h").read().split("\n")
    todo = [m for m in mutants(text) if (not o.section or m[1] == o.section) and m[1] in CASES][o.first::o.every]
    out = open(o.out, "a") if o.out else sys.stdout
    work = tempfile.mkdtemp()
    killed = survived = invalid = 0
    import time
    start = time.time()
    flags = "-std=c++11 -w -x c++ -DNN_CUDA_EMU -I. -include tests/cuda/cushim.h".split()
    open(os.path.join(work, "m.cu"), "w").write('#define NN_CUDA_IMPLEMENTATION\n#include "nn_cuda_mutant.h"\n')
    for n, section, what, line in todo:
        if time.time() - start > o.seconds: break
        new = list(text)
        new[n] = line
        open(os.path.join(work, "nn_cuda_mutant.h"), "w").write("\n".join(new).replace('#include "nn.h"', '#include "%s/nn.h"' % os.getcwd()))
        dead = False
        for sanitize in ([], ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]):
            if run(["g++", "-O0"] + flags + sanitize + ["-c", work + "/m.cu", "-o", work + "/m.o"], 600): invalid += 1; dead = True; break
            if run(["g++"] + sanitize + ["build/cuda/test_cuda.o", work + "/m.o", "-o", work + "/m", "-lm", "-lpthread"], 60): invalid += 1; dead = True; break
            cases = CASES[section]
            tests = [("optimizers", {})] if cases is None else [("every_case", {"NN_CASE": c, "CUSHIM_ORDER": order}) for order in ("fwd", "rev") for c in cases.split(",")] + [("gpt", {})]
            for test, env in tests:
                if run([work + "/m", test], 300, dict(env, ASAN_OPTIONS="detect_leaks=0")): dead = True; killed += 1; break
            if dead: break
        if not dead:
            survived += 1
            print("SURVIVED  >>%s  nn_cuda.h:%d  %s:  %s" % (section, n + 1, what, line.strip()[:140]), file=out, flush=True)
    print("%d mutants of %d: %d killed, %d survived, %d did not compile" % (killed + survived + invalid, len(todo), killed, survived, invalid), file=out, flush=True)


if __name__ == "__main__": main()
