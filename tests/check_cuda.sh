# nn_cuda.h without a GPU (see tests/cuda/test_cuda.c): the kernels as C++ on the CPU, plain, under ASan+UBSan and TSan, in three orders; nvcc's PTX in
# ptxsim; nvcc's warnings for every architecture; registers, spills and occupancy against tests/cuda/budget.txt. CUDA_FULL=1: everything everywhere.
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
make="make --no-print-directory -s"
run "builds: C++ on the CPU, plain and sanitized" $make -j2 build/cuda/test_shim build/cuda/test_asan build/cuda/test_tsan build/cuda/test_race build/cuda/launch_shim build/cuda/launch_asan
sums "launches and graphs on the CPU" build/cuda/launch_shim
sums "launches and graphs, ASan+UBSan" build/cuda/launch_asan
sums "cases, programs and faults on the CPU" build/cuda/test_shim
NN_PRECISION=3 NN_OFFSET=0 sums "cases on tensor cores, precision 3" build/cuda/test_shim every_case
for order in fwd rev rand; do CUSHIM_ORDER=$order build/cuda/test_shim the_same_bits_again | grep '^bits'; done | sort -u > $out/log
[ "$(wc -l < $out/log)" = 1 ] && ok "the same bits in every order" || bad "the same bits in every order"
# every case in every order of threads under both sanitizers, which compare results as the plain build does; those on tensor cores in one order each
if [ -n "$CUDA_FULL" ]; then sums "ASan+UBSan: everything" build/cuda/test_asan
else NN_OFFSET=1 sums "ASan+UBSan, unaligned" build/cuda/test_asan every_case; fi
sums "ASan+UBSan: planned faults, and what they leave" build/cuda/test_asan planned_faults
for run in rev:0 rand:0 rev:1 rand:2; do
    CUSHIM_ORDER=${run%:*} NN_PRECISION=${run#*:} NN_OFFSET=0 sums "ASan+UBSan in order ${run%:*}, precision ${run#*:}" build/cuda/test_asan every_case
done
for i in 0 1 2 3 4 5 6 7; do RACE=$i TSAN_OPTIONS=exitcode=66 build/cuda/test_race > /dev/null 2>&1; echo "$?"; done | tr '\n' ' ' > $out/log
[ "$(cat $out/log)" = "0 66 0 66 0 66 0 66 " ] && ok "TSan sees planted races, and nothing else" || bad "TSan sees planted races, and nothing else"
for run in fwd:0 rev:0 rand:0 rev:1 rand:2; do
    TSAN_OPTIONS=halt_on_error=1 CUSHIM_ORDER=${run%:*} NN_PRECISION=${run#*:} NN_OFFSET=0 sums "TSan in order ${run%:*}, precision ${run#*:}" build/cuda/test_tsan every_case
done
for t in loss_scaling tiny_gradients; do TSAN_OPTIONS=halt_on_error=1 sums "TSan: $t" build/cuda/test_tsan $t; done
run "builds: tensors past 2^31 numbers" $make build/cuda/large_shim
CUSHIM_DRY=2 CUSHIM_ARENA=1048576 sums "tensors past 2^31 numbers, their memory not there" build/cuda/large_shim
run "builds: products at larger sizes" $make build/cuda/products_shim
sums "products at larger sizes" build/cuda/products_shim
run "mutants of the kernels: the tests that are known to notice them do (all: make cuda-mutate)" python3 tests/cuda/mutate.py sample
CUSHIM_NODEV=1 sums "no device: simulated" build/cuda/test_shim no_device
if [ -n "$nvcc" ]; then
    run "builds: nvcc, warnings as errors: PTX" $make -j2 NVCC="$nvcc" build/cuda/test_ptx build/cuda/test_gpu build/cuda/launch_ptx
    sums "nvcc's PTX: launches and graphs" build/cuda/launch_ptx
    for offset in 0 1; do NN_OFFSET=$offset sums "nvcc's PTX: cases, alignment $offset" build/cuda/test_ptx every_case; done
    for precision in 1 2 3; do NN_PRECISION=$precision NN_OFFSET=0 sums "nvcc's PTX: cases on tensor cores, precision $precision" build/cuda/test_ptx every_case; done
    for t in a_token_is_a_graph loss_scaling tiny_gradients; do sums "nvcc's PTX: $t" build/cuda/test_ptx $t; done
    for t in ${CUDA_PROGRAMS:-mlp lenet lstm gpt}; do sums "nvcc's PTX: 20 steps of $t" build/cuda/test_ptx $t; done
    run "the simulator's own test" sh -c "$make NVCC=$nvcc build/cuda/selftest && build/cuda/selftest"
    run "builds: products through cuBLASLt's functions" $make NVCC="$nvcc" build/cuda/products_ptx build/cuda/libcublasLt.so.13
    LD_LIBRARY_PATH=build/cuda NN_LT_LEAST=1 NN_PRECISION=0 sums "products through cuBLASLt's functions" build/cuda/products_ptx
    grep -q '^fakeblas: [1-9][0-9]* products' $out/log && ok "cuBLASLt is opened and asked" || bad "cuBLASLt is opened and asked"
    sums "no device: the real runtime" build/cuda/test_gpu no_device
    run "no device: no product library is opened" sh -c "! LD_DEBUG=libs build/cuda/test_gpu no_device 2>&1 | grep -i cublas"
    LIMIT=3600 PTX_80=build/cuda/nn_cuda.80.ptx sums "nvcc -Werror all-warnings (make cuda-archs: every architecture)" sh tests/cuda/archs.sh "$nvcc" ${CUDA_ARCHS:-75 121}
    rm -rf $out/tree && mkdir -p $out/tree && cp -r Makefile nn.h nn_cuda.h examples $out/tree       # beside, not over, the examples of the CPU
    examples="$make -C $out/tree -j2 NVCC=$nvcc CUDA=1"   # xor and mnist_cuda as a user builds them; the others share an object of nn.h
    flags="-Ofc mid -gencode arch=compute_80,code=compute_80 -cudart shared"
    run "builds: xor and mnist_cuda with make CUDA=1" $examples CFLAGS="-O0 -DNN_NO_SIMD -DNN_DEFAULT_BACKEND=nn_cuda_default" NVCCFLAGS="$flags" build/xor build/mnist_cuda
    run "builds: every other example with make CUDA=1" $examples CFLAGS="-O0 -DNN_NO_SIMD $implemented" NVCCFLAGS="$flags" LIBS="build/nn.o -lm -lpthread" examples
    real=$(dirname "$(readlink -f "$nvcc")")/../lib64
    run "no device: xor of make CUDA=1" $out/tree/build/xor
    run "linked by a C compiler with the static runtime, it needs the C library alone" sh -c "! ldd $out/tree/build/xor | grep -vE 'linux-vdso|ld-linux|lib(c|m|dl|rt|pthread)\.so'"
    run "no device: mnist_cuda" env LD_LIBRARY_PATH="$real" $out/tree/build/mnist_cuda --fp16 no_such_folder
    run "nvcc's PTX: mnist_cuda --fp16 with its loss scale, on four images" sh tests/cuda/mnist.sh $out/tree/build/mnist_cuda $out "$real"
    run "registers, spills, occupancy, 16-byte accesses: the budget" $make NVCC="$nvcc" cuda-report
else skip "nvcc" "nvcc (on the PATH or in /usr/local/cuda/bin)"; fi
