#!/usr/bin/env python3
"""Are the tests of nn_cuda.h strong enough? Breaks one thing at a time in its kernels and says which breaks no test notices.

   mutate.py generate                      writes build/cuda/nn_cuda_mutants.h, a copy of nn_cuda.h that holds every mutant, and the list of them
   mutate.py run [--section NAME] [--kinds barrier,assign] [--only 17,18] [--again]        all; --again: those that were not noticed last time
   mutate.py sample                        one mutant in six of those that a test notices in the plain build, each with the test that is known to notice it: seconds, for tests/check_cuda.sh
   mutate.py list                          what was not noticed, and the sample, of the last run

Mutants: a barrier is removed (__syncthreads, __syncwarp); a comparison of whole numbers has its bound moved by one, up and down; a mask of lanes
loses its upper half; a step of a warp's sum is left out; an addition to a result becomes an assignment.
All are in one build: `i < n` becomes `i < NN_BOUND(17) << n`, and the variable nn_mutant says which number adds one. tests/cuda/mutants.c first
notes in which case which mutants differ, then runs, for each mutant, the cases where it does, until one fails. What survives the plain build
(barriers: in three orders of threads) runs again under ASan; barriers that still survive run as nvcc's PTX, where ptxsim leaves the barrier out
and finds the race. tests/cuda/equivalent.txt lists mutants that cannot change a result, each with its reason; those of `a < b ? a : b`, same at the bound, are known by their form."""
import argparse, hashlib, os, re, subprocess, sys

B = "build/cuda"
HERE = os.path.dirname(os.path.abspath(__file__))
START = re.compile(r"__global__|\bNN__DEV(_OUT)?\b|\bNN__FN\b|__device__|\bNN__CUDA_UPDATE\(")
OPEN = ["not executed", "never differs", "survived"]
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


def minimum(before, after):
    """Is it `a < b ? a : b` or the like, where the bound may be moved as a and b are the same at the bound?"""
    bare = lambda t: re.sub(r"^\(|\)$", "", re.sub(r"^\(int\)", "", t.strip()))
    m = re.match(r"([^?;&|]*?)\)? \? ([^?:;]*) : ([^;?]*)", after)
    if not m: return False
    bound, one, other = bare(m.group(1)), bare(m.group(2)), m.group(3).strip()
    ends = lambda x: bool(x) and re.search(r"(^|[=(,?:&|] ?)" + re.escape(x) + r"$", before.strip()) is not None
    return (one == bound and ends(re.split(r"[,)]", other)[0])) or (ends(one) and re.match(re.escape(bound) + r"([^\w.]|$)", other) is not None)


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
            kinds = ["bound up", "bound down"]
            if minimum(part[:m.start()], part[m.end():]): kinds[m.group(1) in (">", "<=")] += " of a minimum"
            yield start + m.end(), 0, "NN_BOUND(%d) << ", kinds, "bound of %s moved" % m.group(1)
        for m in re.finditer(r"(?<=m = )16(?=; m;)", part): yield start + m.start(), 2, "(16 >> NN_MUTATED(%d))", ["step"], "a step of a warp's sum left out"
        for m in re.finditer(r"(?<=\]) \+= ", part):
            at = left_side(part, m.start())
            place = part[at:m.start()]
            if "++" in place or re.match(r"(sum|acc)\b", place): continue
            yield start + at, 0, "NN_MUTATED(%%d) ? (void)(%s = 0) : (void)0, " % place.replace("%", "%%"), ["assign"], "+= becomes ="
        for m in re.finditer(r"(?<![\w.>])((\w+(\.|->))?add)(?= \? )", part):
            yield start + m.start(), len(m.group(1)), "(%s && !NN_MUTATED(%%d))" % m.group(1), ["assign"], "+= becomes ="


def generate():
    text = open("nn_cuda.h").read()
    out, last, rows, seen, section, lines = [], 0, [], {}, "", text.split("\n")
    sections = [re.match(r"// >>(\w+)|", l).group(1) for l in lines]
    for offset, length, new, kinds, what in sorted(points(text), key=lambda p: p[:2]):
        out += [text[last:offset], new % (len(rows) + 1)]
        last = offset + length
        n = text.count("\n", 0, offset)
        section = next((s for s in reversed(sections[:n + 1]) if s), "")
        for kind in kinds:
            kind, minimal = kind.replace(" of a minimum", ""), "minimum" in kind
            nth = seen[section, lines[n].strip(), kind] = seen.get((section, lines[n].strip(), kind), 0) + 1
            rows.append((str(len(rows) + 1), kind, section, str(n + 1), str(nth), "minimum" if minimal else what, lines[n].strip()))
    out.append(text[last:])
    words = open(os.path.join(HERE, "mutants.h")).read().replace("NN_MUTANT_COUNT", str(len(rows) + 1))
    os.makedirs(B, exist_ok=True)
    new = ("#ifdef NN_CUDA_IMPLEMENTATION\n" + words + "#endif\n#line 1 \"nn_cuda.h\"\n" + "".join(out))
    if not os.path.exists(B + "/nn_cuda_mutants.h") or open(B + "/nn_cuda_mutants.h").read() != new: open(B + "/nn_cuda_mutants.h", "w").write(new)
    open(B + "/mutants.tsv", "w").write("".join("\t".join(r) + "\n" for r in rows))
    return rows


def name_of(row): return "%s %s %s | %s" % (row[2], row[1], row[4], row[6])       # stable when other lines move


def equivalents():
    """name -> reason; a line may stand for all mutants of a line of source: kind `any`"""
    found, reason = {}, ""
    for line in open(os.path.join(HERE, "equivalent.txt")):
        line = line.rstrip("\n")
        if line.startswith("# ") : reason = line[2:]
        elif line: found[line] = reason
    return found


def run(build, todo, verdicts, **env):
    """todo: (row, the item to begin with or None); gives number -> (verdict, item, order, how many execute it)"""
    open(B + "/mutants.todo", "w").write("".join("%s %s %s\n" % (r[0], r[3], item or "") for r, item in todo))
    if os.path.exists(verdicts): os.remove(verdicts)
    p = subprocess.run([B + "/mutants_" + build, "mutation"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
                       env=dict(os.environ, NN_MUTANTS=B + "/mutants.todo", NN_VERDICTS=verdicts, ASAN_OPTIONS="detect_leaks=0", **env))
    print(p.stdout, end="", flush=True)
    if p.returncode: sys.exit("mutants_%s failed" % build)
    return read(verdicts)


def read(verdicts): return {l.split("\t")[0]: l.rstrip("\n").split("\t")[1:] for l in open(verdicts)} if os.path.exists(verdicts) else {}


def remembered(rows):
    """Verdicts of an earlier run: they are kept by name, as numbers change with every edit."""
    old = read(B + "/mutants.verdicts")
    return {r[0]: old[name_of(r)] for r in rows if name_of(r) in old}


def everything(o):
    rows = generate()
    known, equal = remembered(rows), equivalents()
    subprocess.check_call(["make", "-s", "--no-print-directory"] + [B + "/mutants_" + b for b in o.stages.split(",")])
    wanted = set(o.only.split(",")) if o.only else None
    rows_here = [r for r in rows if (not o.section or r[2] == o.section) and (not o.kinds or r[1] in o.kinds.split(",")) and (not wanted or r[0] in wanted)
                 and r[5] != "minimum" and (not o.again or (known.get(r[0], ["survived"])[0] in OPEN and name_of(r) not in equal))]
    result, coverage = dict(known), B + "/mutants.coverage"
    if os.path.exists(coverage) and os.path.getmtime(coverage) < os.path.getmtime(B + "/mutants_shim.o"): os.remove(coverage)
    alive, names = rows_here, {r[0]: name_of(r) for r in rows}
    for build in o.stages.split(","):
        for orders in ("fwd", "fwd,rev,rand"):
            part = [r for r in alive if (r[1] == "barrier") == (orders != "fwd") and (build != "ptx" or r[1] == "barrier")]
            if not part: continue
            new = run(build, [(r, (known.get(r[0], [""])[1:2] or [None])[0]) for r in part], B + "/mutants.new", NN_COVERAGE=coverage, NN_ORDERS=orders if build == "shim" else "fwd" if build == "ptx" else "rev",
                      NN_BUDGET=str({"shim": 1, "asan": 4, "ptx": 30}[build] * o.patience), NN_SLOWER={"shim": "1", "asan": "10", "ptx": "60"}[build])
            for k, v in new.items(): result[k] = v + [build]
            open(B + "/mutants.verdicts", "w").write("".join("\t".join([names[k]] + v) + "\n" for k, v in result.items()))
        alive = [r for r in rows_here if result.get(r[0], [""])[0] == "survived"]
        print("%s: %d of %d not noticed so far" % (build, len(alive), len(rows_here)), flush=True)
    report(rows, result)
    write_sample(rows, result)
    return 0


def write_sample(rows, result):
    """tests/cuda/sample.txt: one in six of the mutants that a test notices in the plain build, of lines that are there once"""
    there = {}
    for r in rows: there.setdefault(r[6], set()).add(r[3])
    with open(os.path.join(HERE, "sample.txt"), "w") as f:
        for r in rows:
            v = result.get(r[0], [""])
            if v[0] == "killed" and v[-1] == "shim" and v[2] == "fwd" and len(there[r[6]]) == 1 and int(hashlib.sha1(name_of(r).encode()).hexdigest(), 16) % 6 == 0:
                f.write("%s\t%s\n" % (v[1], name_of(r)))


def report(rows, result):
    equal, count, left = equivalents(), {}, []
    for r in rows:
        v = result.get(r[0], ["not run"])[0]
        if v != "killed" and (name_of(r) in equal or r[5] == "minimum"): v = "equivalent"
        count.setdefault(r[1], {}).setdefault(v, []).append(r)
        if v in OPEN: left.append((v, r))
        if v == "killed" and name_of(r) in equal: print("killed, but listed as equivalent: " + name_of(r))
    for v, r in left: print("%s: nn_cuda.h:%s  %s" % (v.upper(), r[3], name_of(r)))
    words = ["killed", "equivalent", "fractions"] + OPEN + ["not run"]
    print("%-12s %9s" % ("", "mutants") + "".join(" %13s" % w for w in words))
    for kind in KINDS + ["all"]:
        of = {w: sum(len(c.get(w, [])) for k, c in count.items() if kind in (k, "all")) for w in words}
        print("%-12s %9d" % (kind, sum(of.values())) + "".join(" %13d" % of[w] for w in words))
    print("(fractions: comparisons of floating-point numbers, which have no bound to move)")


def sample():
    known = dict(reversed(l.rstrip("\n").split("\t")) for l in open(os.path.join(HERE, "sample.txt")))
    todo = [(r, known[name_of(r)]) for r in generate() if name_of(r) in known]
    subprocess.check_call(["make", "-s", "--no-print-directory", B + "/mutants_shim"])
    new = run("shim", todo, B + "/mutants.new", NN_ORDERS="fwd", NN_SLOWER="3", NN_ONLY="1")
    for r, item in todo:
        if new[r[0]][0] != "killed": print("SURVIVED: nn_cuda.h:%s  %s  (%s)" % (r[3], name_of(r), item))
    killed = sum(v[0] == "killed" for v in new.values())
    print("%d of %d sampled mutants killed; %d of the list are not in nn_cuda.h any more" % (killed, len(todo), len(known) - len(todo)))
    return killed != len(todo) or len(todo) < 20


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("command", choices=["generate", "run", "sample", "list"])
    a.add_argument("--section"); a.add_argument("--kinds"); a.add_argument("--only"); a.add_argument("--again", action="store_true")
    a.add_argument("--stages", default="shim,asan,ptx"); a.add_argument("--patience", type=float, default=1)
    o = a.parse_args()
    os.chdir(os.path.join(HERE, "..", ".."))
    if o.command == "generate": print("%d mutants" % len(generate()))
    elif o.command == "list": 
        rows = generate()
        report(rows, remembered(rows))
        write_sample(rows, remembered(rows))
    else: sys.exit(everything(o) if o.command == "run" else sample())
