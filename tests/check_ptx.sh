# nn_cuda.h as nvcc compiles it: PTX in the simulator tests/cuda/ptxsim; warnings for every architecture; registers, spills and occupancy against
# tests/cuda/budget.txt; the examples with make CUDA=1.
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
mkdir -p build/cuda
make="make --no-print-directory -s"
locked="flock build/cuda/lock $make"                     # check_cuda.sh may want the same objects at the same time
if [ -z "$nvcc" ]; then skip "nvcc" "nvcc (on the PATH or in /usr/local/cuda/bin)"; return; fi
run "builds: nvcc, warnings as errors: PTX" $locked -j2 NVCC="$nvcc" build/cuda/test_ptx build/cuda/test_gpu build/cuda/launch_ptx
sums "nvcc's PTX: launches and graphs" build/cuda/launch_ptx
for offset in 0 1; do NN_OFFSET=$offset sums "nvcc's PTX: cases, alignment $offset" build/cuda/test_ptx every_case; done
for precision in 1 2 3; do NN_PRECISION=$precision NN_OFFSET=0 sums "nvcc's PTX: cases on tensor cores, precision $precision" build/cuda/test_ptx every_case; done
for t in a_token_is_a_graph loss_scaling tiny_gradients; do sums "nvcc's PTX: $t" build/cuda/test_ptx $t; done
for t in ${CUDA_PROGRAMS:-mlp lenet lstm gpt}; do NN_STEPS=10 sums "nvcc's PTX: 10 steps of $t" build/cuda/test_ptx $t; done
run "the simulator's own test" sh -c "$make NVCC=$nvcc build/cuda/selftest && build/cuda/selftest"
run "builds: products through cuBLASLt's functions" $locked NVCC="$nvcc" build/cuda/products_ptx build/cuda/libcublasLt.so.13
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
