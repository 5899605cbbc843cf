#!/usr/bin/env bash
# Line coverage of nn.h by the tests: prints the share, and with -v the lines that no test reaches.   Long: -O0 with counters.
# As `make test` builds them: tests of what is public share one nn.h with every table, those of kernels have a whole one of their own, others plain C.
cd "$(dirname "$0")/.."
dir=build/coverage
rm -rf $dir; mkdir -p $dir build/tests
gcc="gcc -std=c11 -O0 -g -I."
counted="--coverage -fprofile-update=atomic"
run() { NN_WORD_STRIDE=400009 $dir/$1/$1 > $dir/$1.log 2>&1; echo "$1: $(tail -n 1 $dir/$1.log)"; }
one() {
    local n=$1
    mkdir -p $dir/$n
    if grep -qs TEST_LINKED tests/$n.c; then
        while [ ! -e $dir/nn.built ]; do sleep 1; done
        $gcc -DTEST_LINKED tests/$n.c $dir/nn.o -o $dir/$n/$n --coverage -lm -lpthread
    else
        case $n in test_ops|test_norm) plain= ;; *) plain=-DNN_NO_SIMD ;; esac
        $gcc $counted $plain tests/$n.c -o $dir/$n/$n -lm -lpthread
    fi
    run "$n"
}
export dir gcc counted
export -f one run
{ echo nn.o; grep -Ls TEST_LINKED tests/test_*.c; grep -ls TEST_LINKED tests/test_*.c; } | xargs -n 1 basename -s .c | xargs -P "$(nproc)" -I{} bash -c '
    if [ {} = nn.o ]; then $gcc $counted -DNN_DOUBLE -DNN_IMPLEMENTATION -x c -c nn.h -o $dir/nn.o; touch $dir/nn.built; else one {}; fi'
python3 - "$dir" "${1:-}" <<'PY'
import collections, glob, json, os, re, subprocess, sys
lines, text = collections.defaultdict(int), open("nn.h").read().split("\n")
for counts in glob.glob(sys.argv[1] + "/**/*.gcda", recursive=True):
    for f in json.loads(subprocess.run(["gcov", "-j", "-t", counts], capture_output=True, check=True).stdout.split(b"\n")[0])["files"]:
        for l in f["lines"] if os.path.basename(f["file"]) == "nn.h" else []: lines[l["line_number"]] += max(0, l["count"])
for n in [n for n in lines if re.fullmatch(r"[\s{};]*(//.*)?", text[n - 1])]: del lines[n]        # only braces
missed = sorted(n for n, c in lines.items() if c == 0)
print(f"{len(lines) - len(missed)} of {len(lines)} lines: {100 * (1 - len(missed) / max(1, len(lines))):.2f} %")
if sys.argv[2] == "-v":
    for n in missed: print(f"{n}: {text[n - 1].strip()[:140]}")
PY
