#!/bin/sh
# examples/mnist_cuda.cu with --fp16 and its loss scale, on four images: in ptxsim and, with the real libcudart.so, where there is no device. The same
# loss, within what 16-bit floats are worth, and no product on the CPU.                tests/cuda/mnist.sh PROGRAM SCRATCH FOLDER_OF_LIBCUDART
program=$1 folder=$2 real=$3
python3 - "$folder" << 'END'
import gzip, struct, sys
for part, n in (("train", 4), ("t10k", 2)):
    labels = bytes(i * 7 % 10 for i in range(n))
    pixels = bytes(min(255, (x * (1 + label) + y * (9 - label) + i) % 97 * 3) for i, label in enumerate(labels) for y in range(28) for x in range(28))
    gzip.open("%s/%s-images-idx3-ubyte.gz" % (sys.argv[1], part), "wb").write(struct.pack(">IIII", 0x803, n, 28, 28) + pixels)
    gzip.open("%s/%s-labels-idx1-ubyte.gz" % (sys.argv[1], part), "wb").write(struct.pack(">II", 0x801, n) + labels)
END
LD_LIBRARY_PATH=$real      "$program" --epochs 2 --fp16 "$folder" > "$folder/mnist_cpu.txt"  || exit 1
LD_LIBRARY_PATH=build/cuda "$program" --epochs 2 --fp16 "$folder" > "$folder/mnist_cuda.txt" || exit 1
tail -n 40 "$folder/mnist_cpu.txt" "$folder/mnist_cuda.txt"
grep -q '^on the CPU: no CUDA device' "$folder/mnist_cpu.txt" && grep -q '^on cuda:0' "$folder/mnist_cuda.txt" || exit 1
grep -E '^ *(linear|conv2d|adam_update) .*on the CPU' "$folder/mnist_cuda.txt" && exit 1
losses() { sed -n 's/^epoch .* loss \([0-9.]*\) .*/\1/p' "$1"; }
losses "$folder/mnist_cpu.txt" > "$folder/mnist_losses"
losses "$folder/mnist_cuda.txt" | paste "$folder/mnist_losses" - | awk '{ d = $1 - $2; if (NF != 2 || d > 0.02 || d < -0.02) bad = 1 } END { exit bad || NR != 2 }'
