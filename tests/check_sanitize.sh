# Tests under ASan + UBSan, TSan (threads) and valgrind.
for t in core memory ops files data metrics layers norm reduce shape losses optim monitor train conv; do
    [ -f tests/test_$t.c ] || continue
    opt=-O1; [ $t = ops ] && opt="-O1 -DNN_NO_AVX512"
    run "build test_$t for ASan+UBSan" gcc -std=c11 $opt -g -DNN_NO_AVX512 -fsanitize=address,undefined -fno-sanitize-recover=undefined -I. tests/test_$t.c -o $out/san_$t -lm -lpthread
    sums "ASan+UBSan test_$t" $out/san_$t
done
for t in determinism train data; do
    [ -f tests/test_$t.c ] || continue
    run "build test_$t for TSan" gcc -std=c11 -O1 -g -DNN_NO_AVX512 -fsanitize=thread -I. tests/test_$t.c -o $out/tsan_$t -lm -lpthread
    TSAN_OPTIONS=halt_on_error=1 sums "TSan test_$t" $out/tsan_$t
done
if command -v valgrind > /dev/null; then
    for t in core memory; do
        run "build test_$t for valgrind" gcc -std=c11 -O1 -g -DNN_NO_AVX512 -DNN_NO_AVX2 -I. tests/test_$t.c -o $out/vg_$t -lm -lpthread
        sums "valgrind test_$t" valgrind -q --error-exitcode=9 --leak-check=full $out/vg_$t
    done
else skip "valgrind" valgrind; fi
