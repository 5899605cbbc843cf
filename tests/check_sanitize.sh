# Tests under ASan + UBSan, TSan (threads) and valgrind. Two builds at a time. Every op runs on plain C and AVX2 kernels under ASan; where the
# host part is tested, plain C only, without optimization: a third of the time to build. Tests with TEST_LINKED share one build of nn.h.
compile="gcc -std=c11 -g -I."
kernel_flags="-O1 -DNN_NO_AVX512"
host_flags="-O0 -DNN_NO_SIMD"
asan="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
build() { # build KIND TEST FLAGS...
    local kind=$1 t=$2; shift 2
    printf '%s\n' "$compile $* tests/test_$t.c -o $out/${kind}_$t -lm -lpthread"
}
kernels="ops"
linked="conv attention rnn products"
host="core memory backend files data metrics layers norm reduce shape losses optim monitor train plan step decode text models"
threads="determinism train data plan step decode"
{
    printf '%s\n' "$compile $kernel_flags $asan -DNN_DOUBLE -DNN_IMPLEMENTATION -x c -c nn.h -o $out/nn_asan.o"
    for t in $kernels; do build asan $t $kernel_flags $asan; done
    for t in $host; do build asan $t $host_flags $asan; done
    for t in $threads; do build tsan $t $host_flags -fsanitize=thread; done
    for t in core memory; do build valgrind $t $host_flags; done
} | xargs -P "$(nproc)" -I{} sh -c '{}' > $out/log 2>&1 && for t in $linked; do
    $compile -O1 $asan -DTEST_LINKED tests/test_$t.c $out/nn_asan.o -o $out/asan_$t -lm -lpthread || break
done >> $out/log 2>&1 && ok "sanitizer builds" || bad "sanitizer builds"
mkdir -p build/tests                              # where tests write
export ASAN_OPTIONS=max_malloc_fill_size=67108864:malloc_fill_byte=255        # fresh memory is NaN
for t in $kernels $linked $host; do sums "ASan+UBSan test_$t" $out/asan_$t; done
for t in $threads; do TSAN_OPTIONS=halt_on_error=1 sums "TSan test_$t" $out/tsan_$t; done
if command -v valgrind > /dev/null; then
    for t in core memory; do sums "valgrind test_$t" valgrind -q --error-exitcode=9 --leak-check=full $out/valgrind_$t; done
else skip "valgrind" valgrind; fi
