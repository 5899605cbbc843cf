# Every example is built as its head comment says and run; its last line is compared with the one that the comment promises (Expect).
mkdir -p $out/runs
for e in examples/*.c; do
    n=$(basename $e .c)
    extra=""; grep -q stb_image $e && extra="-I/usr/include/stb"
    run "build example $n" ${CC:-cc} -std=c99 -O2 -Wall -Wextra -I. $extra $e -o $out/ex_$n -lm -lpthread
    if grep -q 'Run in CI: no' $e; then continue; fi
    args=$(sed -n 's/.*Run in CI: *\(.*[^ ]\) *$/\1/p' $e | head -n 1)
    LIMIT=300 run "run example $n $args" sh -c "$out/ex_$n $args"
    lines=$(wc -l < $e); [ "$lines" -le 150 ] && ok "$n has $lines lines" || bad "$n has $lines lines, more than 150"
done
run "make digits ends with an accuracy of at least 97 %" sh -c 'make -s digits > build/check/digits.txt && tail -n 2 build/check/digits.txt | grep -E "test accuracy 9[789]\.[0-9]+%" && tail -n 1 build/check/digits.txt | grep -x "saved digits.safetensors"'
