#!/bin/sh
# Runs test programs one after the other and adds up their last lines; ends with   N passed, N failed, N skipped
passed=0 failed=0 skipped=0
log=${TMPDIR:-/tmp}/nn_test_$$.log
trap 'rm -f "$log"' EXIT
for program in "$@"; do
    "$program" > "$log" 2>&1
    status=$?
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -n 1)
    if [ -z "$last" ] || { [ $status -ne 0 ] && [ "${last#*, 0 failed}" != "$last" ]; }; then
        cat "$log"
        echo "$(basename "$program"): ended with status $status"
        failed=$((failed + 1))
        continue
    fi
    [ $status -ne 0 ] && cat "$log"
    grep '^skipped:' "$log"
    printf '%-24s %s\n' "$(basename "$program")" "$last"
    passed=$((passed + $(echo "$last" | cut -d' ' -f1)))
    failed=$((failed + $(echo "$last" | cut -d' ' -f3)))
    skipped=$((skipped + $(echo "$last" | sed -n 's/.*, \([0-9]*\) skipped/\1/p' | grep . || echo 0)))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
