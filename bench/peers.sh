#!/bin/sh
# peers.sh - Installs the peers of nn.h, runs them and nn.h in turns, prints a table (make bench-peers; half an hour).
#
#   bench/peers.sh [options of peers.py measure]        e.g. --only n1_,gemm_NN --threads 1 --rounds 3
#   NN_BENCH_PIP="--index-url ..."                      options for pip: where wheels come from (PyTorch's own index has small ones for CPUs)
#   NN_BENCH_PYTHON=python3                             an interpreter that has torch already, instead of a new one
# Everything goes to build/peers: a Python environment per framework, programs, nets as ONNX files, rounds.tsv, RESULTS.md.
# What cannot be installed is named and left out. As root, Debian's BLAS packages are installed too.
cd "$(dirname "$0")/.." || exit 1
dir=build/peers
here=$PWD/$dir
list=$dir/list
cc=${CC:-cc} cxx=${CXX:-c++} python=${PYTHON:-python3}
mkdir -p $dir
: > $list

worker() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >> $list; }
skip()   { echo "skipped: $1 ($2)"; }
# environment NAME PACKAGE...: a Python environment with these packages in build/peers/NAME
environment() {
    name=$1; shift
    [ -x "$dir/$name/bin/python" ] || $python -m venv "$dir/$name" || return 1
    # shellcheck disable=SC2086
    "$dir/$name/bin/python" -m pip install -q --disable-pip-version-check $NN_BENCH_PIP "$@" > "$dir/$name.log" 2>&1
}
# library NAME: path of a shared library, or nothing
# shellcheck disable=SC2231
library() { for f in /usr/lib/*/$1 /usr/lib/$1 /usr/lib64/$1; do [ -e "$f" ] && { echo "$f"; return; }; done; }

if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    for p in libopenblas-pthread-dev libblis-pthread-dev libdnnl-dev libeigen3-dev libxsmm-dev; do
        apt-get install -y --no-install-recommends $p > $dir/apt.log 2>&1 || skip $p "apt-get: see $dir/apt.log"
    done
fi

# ---- nn.h ----
$cc -O2 -I. bench/bench.c -o $dir/bench -lm -lpthread || exit 1
worker nn.h "" "$dir/bench -t {threads} -"

# ---- frameworks ----
torch=$NN_BENCH_PYTHON
[ "$torch" ] || { environment torch torch numpy setuptools onnx && torch=$here/torch/bin/python; }
if [ "$torch" ] && $torch -c 'import torch' 2> $dir/torch.import; then
    worker pytorch "" "$torch bench/peers/torch_peer.py {threads}"
    worker pytorch-compiled "TORCHINDUCTOR_CACHE_DIR=$here/inductor" "$torch bench/peers/torch_peer.py {threads} --compile"
else skip PyTorch "see $dir/torch.log, $dir/torch.import"; fi
if environment jax jax && $dir/jax/bin/python -c 'import jax' 2> /dev/null; then worker jax "" "$dir/jax/bin/python bench/peers/jax_peer.py {threads}"
else skip JAX "see $dir/jax.log"; fi
if environment tensorflow tensorflow-cpu && $dir/tensorflow/bin/python -c 'import tensorflow' 2> /dev/null; then
    worker tensorflow "" "$dir/tensorflow/bin/python bench/peers/tf_peer.py {threads}"
else skip TensorFlow "see $dir/tensorflow.log"; fi
if environment onnxruntime onnxruntime && $cc -O2 bench/peers/ort.c -o $dir/ort -ldl; then
    so=$(find $dir/onnxruntime/ -name 'libonnxruntime.so*' 2> /dev/null | head -1)
    if [ -d $dir/onnx ] || { [ "$torch" ] && $torch bench/peers/onnx_nets.py $dir/onnx > $dir/onnx.log 2>&1; }; then
        if [ "$so" ]; then worker onnxruntime "" "$dir/ort $so $dir/onnx {threads}"; else skip "ONNX Runtime" "no libonnxruntime.so in its package"; fi
    else skip "ONNX Runtime" "torch could not write the nets: see $dir/onnx.log"; fi
else skip "ONNX Runtime" "see $dir/onnxruntime.log"; fi

# ---- products ----
$cc -O2 bench/peers/gemm.c -o $dir/gemm -ldl || exit 1
blas() { worker "$1" "$4" "$dir/gemm $1 $2 $3 {threads}"; }
if environment blas scipy-openblas32 mkl; then
    so=$(find $dir/blas/ -name 'libscipy_openblas.so' | head -1)
    [ "$so" ] && blas openblas cblas "$so"
    so=$(find $dir/blas/ -name 'libmkl_rt.so*' | head -1)
    [ "$so" ] && blas mkl cblas "$so" "LD_LIBRARY_PATH=$here/blas/lib MKL_THREADING_LAYER=INTEL KMP_BLOCKTIME=1"
else skip "OpenBLAS and MKL of pip" "see $dir/blas.log"; fi
so=$(library openblas-pthread/libopenblas.so.0); if [ "$so" ]; then blas openblas-debian cblas "$so"; else skip "Debian's OpenBLAS" "not installed"; fi
so=$(library blis-pthread/libblis.so.4);         if [ "$so" ]; then blas blis cblas "$so"; else skip BLIS "not installed"; fi
so=$(library 'libdnnl.so.[23]');                 if [ "$so" ]; then blas onednn dnnl "$so"; else skip oneDNN "not installed"; fi
# shim NAME COMMAND...: compiles build/peers/libNAME_shim.so
shim() {
    name=$1; shift
    # shellcheck disable=SC2086
    if "$@" -shared -fPIC bench/peers/"${name}"_shim.c* -o $dir/lib"$name"_shim.so $LINK > $dir/"$name".log 2>&1; then blas "$name" shim "$here/lib${name}_shim.so"
    else skip "$name's shim" "see $dir/$name.log"; fi
}
LINK=-ldnnl shim dnnl "$cxx" -O2 -fopenmp
LINK='' shim eigen "$cxx" -O3 -march=native -DNDEBUG -fopenmp -I/usr/include/eigen3
LINK="-lxsmm -lxsmmnoblas -lpthread -ldl -lm" shim xsmm "$cc" -O2

# ---- run ----
rm -f $dir/rounds.tsv $dir/rounds.tsv.log
$python bench/peers.py measure $list $dir/rounds.tsv "$@" || exit 1
{
    echo "# nn.h and its peers"
    echo
    echo "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2> /dev/null | head -1), $(nproc) cores, $($cc --version | head -1), $(date -u +%Y-%m-%d)"
    echo
    [ "$torch" ] && $torch -c 'import torch; print("torch", torch.__version__, end=" ")'
    for e in jax tensorflow onnxruntime blas; do
        [ -x $dir/$e/bin/python ] && $dir/$e/bin/python -m pip list --format=freeze 2> /dev/null |
            grep -E '^(jax|jaxlib|tensorflow_cpu|tensorflow-cpu|onnxruntime|scipy-openblas32|mkl)=='
    done | tr '\n' ' '
    command -v dpkg-query > /dev/null && dpkg-query -W libopenblas0-pthread libblis4-pthread libdnnl2 libeigen3-dev libxsmm-dev 2> /dev/null | tr '\t\n' '= '
    echo
    $python bench/peers.py table $dir/rounds.tsv
} | tee $dir/RESULTS.md
