#!/usr/bin/env python3
"""Are the tests of nn_cuda.h strong enough? Breaks one thing at a time in its kernels and says which breaks no test notices.

   mutate.py generate HEADER TABLE                     writes the copy of nn_cuda.h that holds every mutant, and the list of them
   mutate.py run BUILD [--every N] [--only 17,18-20] [--kind bound] [--seconds S] [--stages shim,asan,ptx]

Mutants: a barrier is removed (__syncthreads, __syncwarp); a comparison of whole numbers has its bound moved by one, up and down; a mask of lanes
loses its upper half; a step of a warp's sum is left out; an addition to a gradient becomes an assignment.
All are in one build: `i < n` becomes `i < NN_BOUND(17) + n`, and the variable nn_mutant says which number adds one. tests/cuda/mutants.c first
notes which case executes which mutants, then runs, for each mutant, the cases that execute it, until one fails. What survives the plain build in
three orders runs again under ASan+UBSan; barriers that still survive run as nvcc's PTX, where ptxsim leaves out the barrier and finds the race.
tests/cuda/equivalent.txt lists the mutants that change no result, each with its reason."""
import argparse, os, re, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
START = re.compile(r"__global__|\bNN__DEV(_OUT)?\b|\bNN__FN\b|__device__|\bNN__CUDA_UPDATE\(")
KINDS = ["barrier", "bound up", "bound down", "mask", "step", "assign"]


def blank(text):
    """The same text with comments, strings, preprocessor conditions and template parameters as spaces."""
    wipe = lambda m: re.sub(r"[^\n]", " ", m.group(0))
    text = re.sub(r"/\*.*?\*/|//[^\n]*|\"(\\.|[^\"\n\\])*\"|'(\\.|[^'\n\\])'", wipe, text, flags=re.S)
    text = re.sub(r"^#(?!define)[^\n]*", wipe, text, flags=re.M)
    text = re.sub(r"\benum\b[^{};]*\{[^}]*\}", wipe, text)
    return re.sub(r"\btemplate <[^{};()]*>(?= )|__launch_bounds__\([^()]*(\([^()]*\))*\)|static_assert\([^;]*;", wipe, text)


def device_ranges(text):
    """(start, end) of the bodies of device functions"""
    at = 0
    for m in iter(lambda: START.search(text, at), None):
        at, depth = m.end(), 0
        line = text[text.rfind("\n", 0, m.start()) + 1:m.start()]
        if line.startswith("#define NN__") and "{" not in line and re.match(r"#define \w+(\(.*\))?\s+[\w\s]*$", line) and not text[m.end():text.find("\n", m.end())].rstrip().endswith(("}", "\\", "{")): continue
        body = at
        while body < len(text) and not (depth <= 0 and text[body] in "{;"):
            depth += {"(": 1, ")": -1}.get(text[body], 0)
            body += 1
        if text[body:body + 1] != "{": continue
        depth, end = 0, body
        while end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
            if depth == 0: break
        yield body, end
        at = end


def left_side(code, end):
    """Start of the place `a.b[i][j]` that ends at `end`"""
    at = end
    while at > 0:
        if code[at - 1] in "])":
            depth = 0
            while True:
                at -= 1
                depth += {"]": 1, ")": 1, "[": -1, "(": -1}.get(code[at], 0)
                if depth == 0: break
        elif code[at - 1].isalnum() or code[at - 1] in "_.": at -= 1
        elif code[at - 2:at] == "->": at -= 2
        else: return at
    return at


def points(text):
    """(offset, length, replacement with %d, kinds, what)"""
    code = blank(text)
    for start, end in device_ranges(code):
        part = code[start:end]
        for m in re.finditer(r"__syncthreads\(\);", part): yield start + m.start(), len(m.group(0)), "do { if (!NN_MUTATED(%d)) __syncthreads(); } while (0);", ["barrier"], "barrier removed"
        for m in re.finditer(r"__syncwarp\((\w*)\);", part): yield start + m.start(), len(m.group(0)), "do { if (!NN_MUTATED(%%d)) __syncwarp(%s); } while (0);" % m.group(1), ["barrier"], "barrier removed"
        for m in re.finditer(r"\bNN__FULL\b", part):
            if "__syncwarp" in part[max(0, m.start() - 12):m.start()]: continue
            yield start + m.start(), 8, "(NN_MUTATED(%d) ? 0xffffu : NN__FULL)", ["mask"], "mask broken"
        for m in re.finditer(r"(?<=[\w)\]]) (<|>=|<=|>) (?=[\w(*!&-])", part):
            if re.match(r"-?[\d.]*\.[\d]*f?\b|\(float\)|INFINITY", part[m.end():]): continue
            if part[:m.start()].endswith("template"): continue
            yield start + m.end(), 0, "NN_BOUND(%d) + ", ["bound up", "bound down"], "bound of %s moved" % m.group(1)
        for m in re.finditer(r"(?<=m = )16(?=; m;)", part): yield start + m.start(), 2, "(16 >> NN_MUTATED(%d))", ["step"], "a step of a warp's sum left out"
        for m in re.finditer(r"(?<=\]) \+= ", part):
            at = left_side(part, m.start())
            place = part[at:m.start()]
            if "++" in place or re.match(r"(sum|acc)\b", place): continue
            yield start + at, 0, "NN_MUTATED(%%d) ? (void)(%s = 0) : (void)0, " % place.replace("%", "%%"), ["assign"], "+= becomes ="
        for m in re.finditer(r"(?<![\w.>])((\w+(\.|->))?add)(?= \? )", part):
            yield start + m.start(), len(m.group(1)), "(!NN_MUTATED(%%d) && %s)" % m.group(1), ["assign"], "+= becomes ="


def generate(header, table):
    text = open(os.path.join(HERE, "..", "..", "nn_cuda.h")).read()
    out, last, number, rows = [], 0, 0, []
    lines = text.split("\n")
    line_at = lambda offset: text.count("\n", 0, offset)
    section = lambda n: next((re.match(r"// >>(\w+)", s).group(1) for s in reversed(lines[:n + 1]) if re.match(r"// >>\w+", s)), "")
    for offset, length, new, kinds, what in sorted(points(text), key=lambda p: p[:2]):
        out += [text[last:offset], new % (number + 1)]
        last = offset + length
        for kind in kinds:
            number += 1
            n = line_at(offset)
            rows.append("\t".join([str(number), kind, section(n), str(n + 1), str(offset - text.rfind("\n", 0, offset) - 1), what + kind[5:] if kind.startswith("bound") else what, lines[n].strip()]))
    out.append(text[last:])
    words = open(os.path.join(HERE, "mutants.h")).read().replace("NN_MUTANT_COUNT", str(number + 1))
    open(header, "w").write("#ifdef NN_CUDA_IMPLEMENTATION\n" + words + "#endif\n#line 1 \"nn_cuda.h\"\n" + "".join(out))
    open(table, "w").write("\n".join(rows) + "\n")
    print("%d mutants: %s" % (number, ", ".join("%d %s" % (sum(r.split("\t")[1] == k for r in rows), k) for k in KINDS)))


if __name__ == "__main__":
    if sys.argv[1] == "generate": generate(*sys.argv[2:4])
