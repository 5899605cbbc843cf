# nn_cuda.h without a GPU and without nvcc (see tests/cuda/test_cuda.c): the kernels as C++ on the CPU, plain, under ASan+UBSan and TSan, in three orders.
# CUDA_FULL=1: everything under ASan, too.
mkdir -p build/cuda
make="flock build/cuda/lock make --no-print-directory -s"                        # check_ptx.sh may want the same objects at the same time
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
