#!/usr/bin/env bash
# Line coverage of nn.h by the tests: prints the share, and with -v the lines that no test reaches.   Long: -O0 with counters.
# Tests share one nn.h with every table (see library.h).
cd "$(dirname "$0")/.."
dir=build/coverage
rm -rf $dir; mkdir -p $dir build/tests
gcc="gcc -std=c11 -O0 -g -I."
counted="--coverage -fprofile-update=atomic"
run() { NN_WORD_STRIDE=400009 $dir/$1/$1 > $dir/$1.log 2>&1; echo "$1: $(tail -n 1 $dir/$1.log)"; }
one() {
    mkdir -p $dir/$1
    $gcc $counted -DTEST_LINKED tests/$1.c $dir/nn.o -o $dir/$1/$1 -lm -lpthread
    run "$1"
}
export dir gcc counted
export -f one run
$gcc $counted -DNN_DOUBLE -DNN_IMPLEMENTATION -x c -c nn.h -o $dir/nn.o
basename -s .c tests/test_*.c | xargs -P "$(nproc)" -I{} bash -c 'one {}'
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
