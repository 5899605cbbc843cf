#!/bin/sh
# Runs test programs, one on each core, and adds up their last lines; ends with   N passed, N failed, N skipped
passed=0 failed=0 skipped=0
logs=$(mktemp -d "${TMPDIR:-/tmp}/nn_test_XXXXXX") || exit 1
trap 'rm -rf "$logs"' EXIT
printf '%s\n' "$@" | xargs -P "$(nproc 2>/dev/null || echo 1)" -I{} sh -c 'log=$0/$(basename "$1"); "$1" > "$log.log" 2>&1; echo $? > "$log.new"; mv "$log.new" "$log.status"' "$logs" {} &
for program in "$@"; do
    name=$(basename "$program") log=$logs/$(basename "$program").log
    while [ ! -e "$logs/$name.status" ]; do sleep 0.1; done
    status=$(cat "$logs/$name.status")
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$log" | tail -n 1)
    if [ -z "$last" ] || { [ "$status" -ne 0 ] && [ "${last#*, 0 failed}" != "$last" ]; }; then
        cat "$log"
        echo "$name: ended with status $status"
        failed=$((failed + 1))
        continue
    fi
    [ "$status" -ne 0 ] && cat "$log"
    grep '^skipped:' "$log"
    printf '%-24s %s\n' "$name" "$last"
    passed=$((passed + $(echo "$last" | cut -d' ' -f1)))
    failed=$((failed + $(echo "$last" | cut -d' ' -f3)))
    skipped=$((skipped + $(echo "$last" | sed -n 's/.*, \([0-9]*\) skipped/\1/p' | grep . || echo 0)))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
