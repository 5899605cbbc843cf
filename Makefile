# make digits   trains on real handwritten digits        make test    the fast tests        make check   everything that CI runs
# make bench    how fast it is here, 3 minutes          make bench-peers   beside PyTorch and others: installs them, half an hour
CC      ?= cc
CXX     ?= c++
CFLAGS  ?= -O2
LIBS     = -lm -lpthread
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc 2>/dev/null || echo 1)
STB      = $(wildcard /usr/include/stb)
TESTS    = $(patsubst tests/%.c,%,$(wildcard tests/test_*.c))
EXAMPLES = $(patsubst examples/%.c,%,$(wildcard examples/*.c))

.PHONY: digits test check install uninstall clean examples bench bench-peers cuda-report cuda-archs cuda-mutate

digits: build/digits
	./build/digits

# make CUDA=1 build/NAME: the same example on a GPU, where there is one. NVCCFLAGS=-arch=sm_90 (or native, sm_75 ...) for one architecture.
ifdef CUDA
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
NVCCFLAGS ?= -arch=sm_80
CUDA_NEEDS = build/nn_cuda.o
CUDA_CC    = -DNN_DEFAULT_BACKEND=nn_cuda_default
CUDA_LIBS  = build/nn_cuda.o -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt -lpthread
endif
build/%: examples/%.c $(wildcard examples/*.h) nn.h $(CUDA_NEEDS) | build
	$(CC) -std=c99 $(CFLAGS) $(CUDA_CC) -Wall -Wextra $(STB:%=-isystem %) $< -o $@ $(CUDA_LIBS) $(LIBS)
build/nn_cuda.o: nn_cuda.h nn.h | build
	printf '#define NN_CUDA_IMPLEMENTATION\n#include "nn_cuda.h"\n' > build/nn_cuda.cu
	$(NVCC) -O3 $(NVCCFLAGS) -I. -Xcompiler -fno-exceptions,-fno-rtti,-fno-threadsafe-statics -c build/nn_cuda.cu -o $@
build/nn.o: nn.h | build
	$(CC) -std=c99 $(CFLAGS) -DNN_IMPLEMENTATION -x c -c $< -o $@
build/mnist_cuda: examples/mnist_cuda.cu nn_cuda.h build/nn.o
	$(NVCC) -O3 $(NVCCFLAGS) $< build/nn.o -o $@

build:
	mkdir -p build

examples: $(EXAMPLES:%=build/%)

# Tests share two builds of nn.h (see tests/library.h): one with every table, for those of kernels, one with plain C; both with double.
# -O1: tests check numbers, not time. T=build/asan SANITIZE=-fsanitize=address: the same, instrumented, in another folder (tests/check_sanitize.sh).
T            = build/tests
TEST_CFLAGS  = -std=c11 -O1 -g -Wall -Wextra -I. $(SANITIZE)
KERNEL_TESTS = attention conv determinism golden norm ops plan products rnn words
TEST_DEPENDS = tests/test.h tests/library.h tests/determinism.h tests/cases.h $(wildcard tests/cases_*.h) nn.h
ON_TABLES    = $(KERNEL_TESTS:%=$T/test_%)
$T/nn_tables.o: nn.h
	@mkdir -p $T
	$(CC) $(TEST_CFLAGS) -DNN_DOUBLE -DNN_IMPLEMENTATION -x c -c $< -o $@
$T/nn_plain.o: nn.h
	@mkdir -p $T
	$(CC) $(TEST_CFLAGS) -DNN_DOUBLE -DNN_NO_SIMD -DNN_IMPLEMENTATION -x c -c $< -o $@
$(ON_TABLES): $T/nn_tables.o
$(filter-out $(ON_TABLES),$(TESTS:%=$T/%)): $T/nn_plain.o
$T/test_%: tests/test_%.c $(TEST_DEPENDS)
	$(CC) $(TEST_CFLAGS) -fno-inline -DTEST_LINKED $< $(filter %.o,$^) -o $@ $(LIBS)

test:
	@$(MAKE) --no-print-directory -j$(JOBS) $(TESTS:%=$T/%)
	@tests/run.sh $(TESTS:%=$T/%)

# CUDA (see tests/check_cuda.sh, check_ptx.sh): the kernels of nn_cuda.h as C++ on the CPU, or nvcc's PTX in tests/cuda/ptxsim, and one test program for all.
# make build/cuda/test_shim && NN_CASE=conv2d build/cuda/test_shim every_case
NVCC     = $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc) nvcc)
PATTERN := $(shell $(CXX) -ftrivial-auto-var-init=pattern -E -x c++ /dev/null > /dev/null 2>&1 && echo -ftrivial-auto-var-init=pattern)
SHIM     = $(CXX) -std=c++11 -O1 -g $(PATTERN) -Wall -Wextra -Wno-unused-function -Wno-unknown-pragmas -x c++ -DNN_CUDA_EMU -include tests/cuda/cushim.h
build/cuda/test_cuda.o: tests/cuda/test_cuda.c tests/cuda/cases_seq.h $(TEST_DEPENDS) nn_cuda.h
	@mkdir -p build/cuda
	$(CC) $(TEST_CFLAGS) -fno-inline -DTEST_LINKED -c $< -o $@
build/cuda/nn_counted.o: build/tests/nn_plain.o
	@mkdir -p build/cuda
	objcopy --redefine-sym malloc=counted_malloc --redefine-sym free=counted_free $< $@
build/cuda/shim.o build/cuda/asan.o build/cuda/tsan.o: build/cuda/%.o: tests/cuda/nn_cuda.cu nn_cuda.h tests/cuda/cushim.h nn.h
	@mkdir -p build/cuda
	$(SHIM) $(SANITIZE_$*) -c $< -o $@
SANITIZE_shim = -fsanitize=signed-integer-overflow -fno-sanitize-recover=all
SANITIZE_asan = -O0 -fsanitize=address,undefined -fno-sanitize-recover=undefined
SANITIZE_tsan = -O1 -fsanitize=thread
build/cuda/test_shim build/cuda/test_asan build/cuda/test_tsan: build/cuda/test_%: build/cuda/test_cuda.o build/cuda/nn_counted.o build/cuda/%.o
	$(CXX) $(SANITIZE_$*) $^ -o $@ $(LIBS)
# planted races, each other one mended: RACE=3 build/cuda/test_race fails
build/cuda/test_race: tests/cuda/test_race.cu tests/cuda/launch.h tests/cuda/cushim.h
	@mkdir -p build/cuda
	$(SHIM) $(SANITIZE_tsan) $< -o $@ $(LIBS)
# launches, and graphs that get new arguments, in both simulators
build/cuda/launch_shim build/cuda/launch_asan: build/cuda/launch_%: tests/cuda/test_launch.cu tests/cuda/launch.h tests/cuda/cushim.h
	@mkdir -p build/cuda
	$(SHIM) $(SANITIZE_$*) -Wno-psabi $< -o $@ $(LIBS)
build/cuda/launch_ptx: tests/cuda/test_launch.cu tests/cuda/launch.h build/cuda/libcudart.so.13
	$(NVCC) -O1 -cudart shared -gencode arch=compute_80,code=compute_80 -Xlinker -rpath='$$ORIGIN' $< -o $@
# products and convolutions at larger sizes: NN_ROW=7 build/cuda/products_shim
build/cuda/test_products.o: tests/cuda/test_products.c tests/test.h nn.h nn_cuda.h
	@mkdir -p build/cuda
	$(CC) $(TEST_CFLAGS) -c $< -o $@
build/cuda/products_shim build/cuda/products_asan build/cuda/products_tsan: build/cuda/products_%: build/cuda/test_products.o build/cuda/%.o build/tests/nn_plain.o
	$(CXX) $(SANITIZE_$*) $^ -o $@ $(LIBS)
build/cuda/products_ptx: build/cuda/test_products.o build/cuda/ptx.o build/tests/nn_plain.o build/cuda/libcudart.so.13
	$(CXX) $^ -o $@ -Wl,-rpath,'$$ORIGIN' $(LIBS)
# tensors of more than 2^31 numbers: CUSHIM_DRY=2 CUSHIM_ARENA=1048576 NN_CASE=softmax build/cuda/large_shim
build/cuda/test_large.o: tests/cuda/test_large.c tests/test.h nn.h nn_cuda.h
	@mkdir -p build/cuda
	$(CC) $(TEST_CFLAGS) -c $< -o $@
build/cuda/large_shim: build/cuda/test_large.o build/cuda/shim.o build/tests/nn_plain.o
	$(CXX) $(SANITIZE_shim) $^ -o $@ $(LIBS)
# the simulator by itself, and a library of few calls in place of the real cuBLASLt, for products through it: all of them, with NN_LT_LEAST=1
build/cuda/selftest: tests/cuda/ptxsim/selftest.cu build/cuda/libcudart.so.13
	$(NVCC) -O3 -cudart shared -gencode arch=compute_80,code=compute_80 -Xlinker -rpath='$$ORIGIN' $< -o $@
build/cuda/libcublasLt.so.13: tests/cuda/ptxsim/fakeblas.cpp build/cuda/libcudart.so.13
	$(CXX) -std=c++14 -O2 -fPIC -shared -I$(dir $(NVCC))../include $^ -o $@ -Wl,-soname,libcublasLt.so.13
# nvcc's PTX: in an object that ptxsim runs, or a GPU, and beside it, for ptxas
build/cuda/ptx.o: tests/cuda/nn_cuda.cu nn_cuda.h nn.h
	@mkdir -p build/cuda/kept
	$(NVCC) -O3 -lineinfo -Werror all-warnings -cudart shared -gencode arch=compute_80,code=compute_80 --keep --keep-dir build/cuda/kept -I. -c $< -o $@
	mv build/cuda/kept/nn_cuda.ptx build/cuda/nn_cuda.80.ptx
	rm -rf build/cuda/kept
build/cuda/libcudart.so.13: tests/cuda/ptxsim/ptxsim.cpp
	@mkdir -p build/cuda
	$(CXX) -std=c++14 -O2 -ffp-contract=off -fPIC -shared -Wall -Wno-misleading-indentation -I$(dir $(NVCC))../include $< -o $@ -Wl,-soname,libcudart.so.13 \
	    -Wl,--version-script,tests/cuda/ptxsim/version.map -ldl
build/cuda/test_ptx: build/cuda/test_cuda.o build/cuda/nn_counted.o build/cuda/ptx.o build/cuda/libcudart.so.13
	$(CXX) $^ -o $@ -Wl,-rpath,'$$ORIGIN' $(LIBS)

# every kernel at the sizes of networks: what the executor counts
build/cuda/profile: tests/cuda/profile.c tests/cuda/traffic.h build/cuda/ptx.o build/tests/nn_plain.o build/cuda/libcudart.so.13
	$(CC) $(TEST_CFLAGS) -c $< -o build/cuda/profile.o
	$(CXX) build/cuda/profile.o build/cuda/ptx.o build/tests/nn_plain.o build/cuda/libcudart.so.13 -o $@ -Wl,-rpath,'$$ORIGIN' $(LIBS)
build/cuda/profile.tsv: build/cuda/profile
	PTXSIM_TABLE=$@ PTXSIM_RACE=0 build/cuda/profile > build/cuda/profile.log

build/cuda/test_gpu: build/cuda/test_cuda.o build/cuda/nn_counted.o build/cuda/ptx.o
	$(CXX) $^ -o $@ -L$(dir $(NVCC))../lib64 -lcudart_static -ldl -lrt $(LIBS)
build/cuda/sm_%.cubin: build/cuda/ptx.o
	$(dir $(realpath $(NVCC)))ptxas -O3 -v -arch=sm_$* build/cuda/nn_cuda.80.ptx -o $@ > build/cuda/sm_$*.log 2>&1
build/cuda/predict: bench/cuda.c build/cuda/shim.o build/tests/nn_plain.o
	$(CC) $(TEST_CFLAGS) -c $< -o build/cuda/predict.o
	$(CXX) $(SANITIZE_shim) build/cuda/predict.o build/cuda/shim.o build/tests/nn_plain.o -o $@ $(LIBS)
comma := ,
# every mutant of the kernels in one build (tests/cuda/mutate.py)
build/cuda/mutants.o: tests/cuda/mutants.c tests/cuda/test_cuda.c tests/cuda/test_products.c tests/cuda/cases_seq.h $(TEST_DEPENDS) nn_cuda.h
	@mkdir -p build/cuda
	$(CC) $(TEST_CFLAGS) -fno-inline -DTEST_LINKED -c $< -o $@
build/cuda/nn_cuda_mutants.h: nn_cuda.h tests/cuda/mutate.py tests/cuda/mutants.h
	python3 tests/cuda/mutate.py generate
build/cuda/mutants_shim.o build/cuda/mutants_asan.o: build/cuda/mutants_%.o: build/cuda/nn_cuda_mutants.h tests/cuda/cushim.h nn.h
	printf '#define NN_CUDA_IMPLEMENTATION\n#include "nn_cuda_mutants.h"\n' > build/cuda/mutants.cu
	$(CXX) -std=c++11 -O1 -g1 -w $(PATTERN) $(if $(filter asan,$*),-fsanitize=address) -fsanitize=alignment,bounds -fsanitize-undefined-trap-on-error -x c++ -DNN_CUDA_EMU -include tests/cuda/cushim.h -I. -c build/cuda/mutants.cu -o $@
build/cuda/mutants_shim build/cuda/mutants_asan: build/cuda/mutants_%: build/cuda/mutants.o build/cuda/nn_counted.o build/cuda/mutants_%.o
	$(CXX) $(if $(filter asan,$*),-fsanitize=address) $^ -o $@ $(LIBS)
build/cuda/mutants_ptx: build/cuda/mutants.o build/cuda/nn_counted.o build/cuda/ptx.o build/cuda/libcudart.so.13
	$(CXX) $^ -o $@ -Wl,-rpath,'$$ORIGIN' $(LIBS)
cuda-mutate:
	python3 tests/cuda/mutate.py run
cuda-report: build/cuda/sm_80.cubin build/cuda/sm_90.cubin build/cuda/predict build/cuda/profile.tsv
	@CUSHIM_DRY=1 CUSHIM_SMS=108 CUSHIM_ARENA=131072 build/cuda/predict > build/cuda/predict.log || { cat build/cuda/predict.log; exit 1; }
	@cat build/cuda/predict.log
	@python3 tests/cuda/sass.py --budget tests/cuda/budget.txt $(foreach a,80 90,sm_$a:build/cuda/sm_$a.cubin:build/cuda/sm_$a.log) \
	    --profile build/cuda/profile.tsv --bytes build/cuda/profile.log --steps build/cuda/predict.log
	@cat build/cuda/profile.log

# every architecture that nvcc knows, warnings as errors: about three minutes
cuda-archs:
	@tests/cuda/archs.sh $(NVCC) $(ARCHS)

build/bench: bench/bench.c bench/limit.h bench/measure.h nn.h | build
	$(CC) -O2 -I. $< -o $@ $(LIBS)

bench: build/bench
	./build/bench

bench-peers: build/bench
	@bench/peers.sh

install:
	mkdir -p $(DESTDIR)$(PREFIX)/include
	cp nn.h $(wildcard nn_cuda.h) $(DESTDIR)$(PREFIX)/include/

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/include/nn.h $(DESTDIR)$(PREFIX)/include/nn_cuda.h

clean:
	rm -rf build

check:
	@tests/check.sh
