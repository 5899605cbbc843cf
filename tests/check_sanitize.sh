# Tests under ASan + UBSan, TSan (threads) and valgrind, linked with one build of nn.h for each. Tests of kernels go through plain C and AVX2 under ASan;
# where the host part is tested, plain C runs unless a test asks for more.
kernels="ops conv attention rnn products"
host="core memory backend files data metrics layers norm reduce shape losses optim monitor train plan step decode text models"
threads="determinism train data plan step decode"
make="make --no-print-directory -s -j$(nproc)"
programs() { local kind=$1; shift; printf "$out/$kind/test_%s " "$@"; }
run "ASan+UBSan builds" $make T=$out/asan KERNEL_TESTS="$kernels $host" SANITIZE="-fsanitize=address,undefined -fno-sanitize-recover=undefined -DNN_NO_AVX512" $(programs asan $kernels $host)
run "TSan builds" $make T=$out/tsan KERNEL_TESTS= SANITIZE=-fsanitize=thread $(programs tsan $threads)
mkdir -p build/tests                              # where tests write
export ASAN_OPTIONS=max_malloc_fill_size=67108864:malloc_fill_byte=255        # fresh memory is NaN
for t in $kernels; do sums "ASan+UBSan test_$t" $out/asan/test_$t; done
for t in $host; do NN_ISA=scalar sums "ASan+UBSan test_$t" $out/asan/test_$t; done
for t in $threads; do TSAN_OPTIONS=halt_on_error=1 sums "TSan test_$t" $out/tsan/test_$t; done
if command -v valgrind > /dev/null; then
    run "builds for valgrind" $make build/tests/test_core build/tests/test_memory
    for t in core memory; do sums "valgrind test_$t" valgrind -q --error-exitcode=9 --leak-check=full build/tests/test_$t; done
else skip "valgrind" valgrind; fi
