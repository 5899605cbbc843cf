# Tests under ASan + UBSan, TSan (threads) and valgrind. Two builds at a time; plain C and AVX2 kernels where kernels are tested, else plain C.
build() { # build KIND TEST FLAGS...
    local kind=$1 t=$2; shift 2
    printf '%s\n' "gcc -std=c11 -O1 -g -DNN_NO_AVX512 $* -I. tests/test_$t.c -o $out/${kind}_$t -lm -lpthread"
}
kernels="ops conv norm reduce shape losses"
host="core memory backend files data metrics layers optim monitor train plan"
threads="determinism train data plan"
{
    for t in $kernels; do build asan $t -fsanitize=address,undefined -fno-sanitize-recover=undefined; done
    for t in $host; do build asan $t -DNN_NO_AVX2 -fsanitize=address,undefined -fno-sanitize-recover=undefined; done
    for t in $threads; do build tsan $t -DNN_NO_AVX2 -fsanitize=thread; done
    for t in core memory; do build valgrind $t -DNN_NO_AVX2; done
} | xargs -P "$(nproc)" -I{} sh -c '{}' > $out/log 2>&1 && ok "sanitizer builds" || bad "sanitizer builds"
for t in $kernels $host; do sums "ASan+UBSan test_$t" $out/asan_$t; done
for t in $threads; do TSAN_OPTIONS=halt_on_error=1 sums "TSan test_$t" $out/tsan_$t; done
if command -v valgrind > /dev/null; then
    for t in core memory; do sums "valgrind test_$t" valgrind -q --error-exitcode=9 --leak-check=full $out/valgrind_$t; done
else skip "valgrind" valgrind; fi
