#!/usr/bin/env bash
# Line coverage of nn.h by the tests: prints the share, and with -v the lines that no test reaches.   needs gcovr (pip)
cd "$(dirname "$0")/.."
dir=build/coverage
rm -rf $dir; mkdir -p $dir
gcovr=build/venv/bin/gcovr; [ -x $gcovr ] || gcovr=gcovr
for t in tests/test_*.c; do
    n=$(basename $t .c)
    echo "mkdir -p $dir/$n && gcc -std=c11 -O0 -g --coverage -fprofile-update=atomic -I. $t -o $dir/$n/$n -lm -lpthread && NN_WORD_STRIDE=400009 $dir/$n/$n > $dir/$n.log 2>&1; echo $n: \$(tail -n 1 $dir/$n.log)"
done | xargs -P "$(nproc)" -I{} sh -c '{}'
$gcovr -r . --merge-mode-functions=merge-use-line-0 --gcov-ignore-parse-errors=negative_hits.warn_once_per_file --filter 'nn\.h' --txt $dir/report.txt --json $dir/report.json $dir > /dev/null 2> $dir/gcovr.log || tail -n 3 $dir/gcovr.log
python3 - "$dir/report.json" "${1:-}" <<'PY'
import json, sys
lines = {}
for f in json.load(open(sys.argv[1]))["files"]:
    for l in f["lines"]:
        if not l.get("gcovr/noncode"): lines[l["line_number"]] = lines.get(l["line_number"], 0) + l["count"]
missed = sorted(n for n, c in lines.items() if c == 0)
print(f"{len(lines) - len(missed)} of {len(lines)} lines: {100 * (1 - len(missed) / max(1, len(lines))):.2f} %")
if sys.argv[2] == "-v":
    text = open("nn.h").read().split("\n")
    for n in missed: print(f"{n}: {text[n - 1].strip()[:140]}")
PY
