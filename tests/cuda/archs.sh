#!/bin/sh
# nn_cuda.h for every architecture that this nvcc knows (from sm_75 on), warnings as errors. The text asks only whether the architecture is 80 or
# more, so it is compiled to PTX twice, for 75 and 80, and ptxas makes each architecture's code of the one or the other.
#     tests/cuda/archs.sh NVCC [75 90 ...]         PTX_80=FILE: PTX for 80 that is there
nvcc=$1; shift
ptxas=$(dirname "$(readlink -f "$(command -v "$nvcc")")")/ptxas
[ $# -eq 0 ] && set -- $("$nvcc" --list-gpu-arch | sed 's/compute_//' | sort -n)
at=${TMPDIR:-/tmp}/nn_archs_$$
trap 'rm -f "$at".*' EXIT
passed=0
for from in 75 80; do
    [ $from = 80 ] && [ -n "$PTX_80" ] && { cp "$PTX_80" "$at.80.ptx"; continue; }
    "$nvcc" -Ofc max -arch=compute_$from -Werror all-warnings -I. -ptx tests/cuda/nn_cuda.cu -o "$at.$from.ptx" || echo "compute_$from failed"
done
for sm; do
    [ "$sm" -ge 80 ] && from=80 || from=75
    if "$ptxas" -O0 --warning-as-error -arch=sm_$sm "$at.$from.ptx" -o "$at.cubin"; then passed=$((passed + 1)); echo "sm_$sm ok"; else echo "sm_$sm failed"; fi
done
echo "$passed passed, $(($# - passed)) failed"
[ $# -gt 0 ] && [ "$passed" -eq $# ]
