#!/usr/bin/env bash
# make check: the fast tests, then compilers and targets, sanitizers, examples, documents. A part whose tool is missing is skipped and
# said so; with NN_CI=1 a missing tool is a failure. Ends with   N passed, N failed, N skipped
#
#     tests/check.sh            all parts: the fast tests, then two parts at a time, the longest first, as most parts keep one core busy
#     tests/check.sh PART ...   these parts one after the other: test cuda ptx sanitize targets compile files examples docs
cd "$(dirname "$0")/.."
passed=0 failed=0 skipped=0
if [ $# -eq 0 ]; then
    mkdir -p build/check
    rm -f build/check/*.log
    parts="cuda ptx sanitize targets compile files examples docs"
    part='tests/check.sh $0 | tee build/check/$0.log | sed -u "\$d"'
    sh -c "$part" test
    printf '%s\n' $parts | xargs -P 2 -I{} sh -c "$part" {}
    for p in test $parts; do
        read -r p f s < <(tail -n 1 build/check/$p.log | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
        passed=$((passed + ${p:-0})) failed=$((failed + ${f:-1})) skipped=$((skipped + ${s:-0}))
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
fi
out=build/check/$1
mkdir -p "$out"
py=build/venv/bin/python
[ -x "$py" ] || py=python3

ok()   { passed=$((passed + 1)); printf 'ok       %s  (%d s)\n' "$1" $SECONDS; }
bad()  { failed=$((failed + 1)); printf 'FAILED   %s\n' "$1"; [ -f "$out/log" ] && tail -n 25 "$out/log"; }
skip() { if [ -n "$NN_CI" ]; then failed=$((failed + 1)); printf 'FAILED   %s: %s is missing\n' "$1" "$2"; else skipped=$((skipped + 1)); printf 'skipped  %s: no %s\n' "$1" "$2"; fi; }
run()  { local name=$1; shift; if timeout "${LIMIT:-600}" "$@" > "$out/log" 2>&1; then ok "$name"; else bad "$name"; fi; }
with() { local tool=$1 name=$2; shift 2; if command -v "$tool" >/dev/null 2>&1; then run "$name" "$@"; else skip "$name" "$tool"; fi; }
sums() { # adds the counts of a test program's last line
    local name=$1; shift
    timeout "${LIMIT:-900}" "$@" > "$out/log" 2>&1
    local status=$? last
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$out/log" | tail -n 1)
    if [ -z "$last" ]; then bad "$name (status $status)"; return; fi
    passed=$((passed + $(echo "$last" | cut -d' ' -f1)))
    failed=$((failed + $(echo "$last" | cut -d' ' -f3)))
    local s; s=$(echo "$last" | sed -n 's/.*, \([0-9]*\) skipped/\1/p'); skipped=$((skipped + ${s:-0}))
    if [ $status -ne 0 ]; then printf 'FAILED   %s: %s\n' "$name" "$last"; tail -n 40 "$out/log"; else printf 'ok       %s: %s  (%d s)\n' "$name" "$last" $SECONDS; fi
}
warn="-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror"
implemented="-D_GNU_SOURCE -DTEST_LINKED -include $PWD/tests/library.h"      # a program's nn.h is in an object beside it
printf '#define NN_IMPLEMENTATION\n#include "nn.h"\nint main(void) { nn_context *nn = nn_new(NULL); int ok = nn_ok(nn); nn_free(nn); return !ok; }\n' > $out/one.c
for part; do
    . "tests/check_$part.sh"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
