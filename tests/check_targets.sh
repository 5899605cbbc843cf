# Other compilers and machines: tcc, musl, Windows under wine, AArch64 and big-endian s390x under qemu; equal bits where design says so.
# nn.h is compiled once for each; determinism.c, and tests, are linked with that.
nn_h="-DNN_IMPLEMENTATION -x c -c nn.h -o $out"
rm -f $out/*.o
program() { # program SOURCE NAME COMPILER FLAGS...: $out/SOURCE_NAME of tests/SOURCE.c and nn_NAME.o
    local source=$1 name=$2; shift 2
    rm -f $out/${source}_$name
    "$@" -O1 -fno-inline -DTEST_LINKED -o $out/${source}_$name tests/$source.c $out/nn_$name.o $libs > $out/log 2>&1 || bad "$source for $name"
}
same() { # same NAME EXPECTED COMMAND...: the command prints the same hashes
    local name=$1 expected=$2; shift 2
    if timeout 600 "$@" > "$out/log" 2>&1 && diff <(tr -d '\r' < "$out/log") "$expected" > /dev/null; then ok "$name"; else cat "$expected" >> "$out/log"; bad "$name"; fi
}
libs="-lm -lpthread"
make -s build/tests/nn_tables.o build/tests/nn_plain.o && cp build/tests/nn_tables.o build/tests/nn_plain.o $out/
gcc -std=c11 -O1 -DNN_DETERMINISTIC $nn_h/nn_det.o
for name in tables plain det; do program determinism $name gcc -std=c11 && $out/determinism_$name > $out/$name.txt; done
if command -v tcc > /dev/null; then
    run "tcc compiles" tcc -I. $out/one.c -o $out/tcc_one $libs
    run "tcc runs xor" sh -c "tcc -I. examples/xor.c -o $out/tcc_xor $libs && $out/tcc_xor"
    tcc tests/determinism.c -o $out/determinism_tcc $libs 2> $out/log
    same "tcc: bits of plain C" $out/plain.txt $out/determinism_tcc
else skip "tcc" tcc; fi
if command -v clang > /dev/null; then
    run "clang -O2" clang -std=c99 -O2 $warn $nn_h/nn_clang.o
    program determinism clang clang -std=c11
    same "clang: the same bits" $out/tables.txt $out/determinism_clang
    clang -std=gnu11 -O3 -march=native -DNN_DETERMINISTIC $nn_h/nn_clang_det.o
    program determinism clang_det clang -std=gnu11
    same "clang -O3 -march=native NN_DETERMINISTIC: the same bits" $out/det.txt $out/determinism_clang_det
else skip "clang bits" clang; fi
run "gcc -O3 -march=native" gcc -std=gnu99 -O3 -march=native $warn $nn_h/nn_o3.o
program determinism o3 gcc -std=gnu11
same "gcc -O3 -march=native: the same bits" $out/tables.txt $out/determinism_o3
if command -v musl-gcc > /dev/null; then
    musl-gcc -std=c11 -O1 $nn_h/nn_musl.o
    program determinism musl musl-gcc -static -std=c11
    same "musl: the same bits" $out/tables.txt $out/determinism_musl
else skip "musl" musl-gcc; fi
if command -v x86_64-w64-mingw32-gcc > /dev/null; then
    run "mingw compiles without a warning" x86_64-w64-mingw32-gcc -std=c99 -O1 -Wall -Wextra -Wshadow -Werror $nn_h/nn_windows.o
    if command -v wine > /dev/null || [ -x /usr/lib/wine/wine64 ]; then
        wine=$(command -v wine || echo /usr/lib/wine/wine64)
        WINEDEBUG=-all $wine cmd /c exit > /dev/null 2>&1             # the first run makes its folder and talks about it
        libs= program determinism windows x86_64-w64-mingw32-gcc -std=c11 -static
        WINEDEBUG=-all same "Windows under wine: the same bits" $out/tables.txt $wine $out/determinism_windows.exe
    else skip "Windows" wine; fi
else skip "mingw" x86_64-w64-mingw32-gcc; fi
if command -v aarch64-linux-gnu-gcc > /dev/null && command -v qemu-aarch64 > /dev/null; then
    run "aarch64 compiles without a warning" aarch64-linux-gnu-gcc -std=c99 -O2 $warn -DNN_DOUBLE $nn_h/nn_a64.o
    for t in determinism test_ops; do program $t a64 aarch64-linux-gnu-gcc -std=c11 -static; done
    same "NEON under qemu: the same bits" $out/tables.txt qemu-aarch64 $out/determinism_a64
    sums "gradients on NEON under qemu" qemu-aarch64 $out/test_ops_a64
    aarch64-linux-gnu-gcc -std=gnu11 -O2 -DNN_DETERMINISTIC $nn_h/nn_a64_det.o
    program determinism a64_det aarch64-linux-gnu-gcc -std=gnu11 -static
    same "NEON, NN_DETERMINISTIC: the same bits" $out/det.txt qemu-aarch64 $out/determinism_a64_det
else skip "aarch64" qemu-aarch64; fi
if command -v s390x-linux-gnu-gcc > /dev/null && command -v qemu-s390x > /dev/null; then
    s390x-linux-gnu-gcc -std=gnu11 -O1 -DNN_DOUBLE $nn_h/nn_s390.o
    for t in determinism test_files; do program $t s390 s390x-linux-gnu-gcc -std=gnu11 -static; done
    same "big-endian s390x: the bits of plain C" $out/plain.txt qemu-s390x $out/determinism_s390
    sums "file formats on big-endian s390x" qemu-s390x $out/test_files_s390
else skip "s390x" qemu-s390x; fi
if command -v clang-19 > /dev/null && command -v wasm-ld-19 > /dev/null && command -v node > /dev/null; then
    wasm="clang-19 --target=wasm32-wasi --sysroot=/usr -std=c11 -O1 -DNN_NO_THREADS"
    $wasm -DNN_DETERMINISTIC tests/determinism.c -o $out/determinism_wasm -fuse-ld="$(command -v wasm-ld-19)"
    same "WASM in node, NN_DETERMINISTIC: the same bits" $out/det.txt node --no-warnings tests/run_wasi.mjs $out/determinism_wasm
    $wasm -msimd128 tests/determinism.c -o $out/determinism_wasm_simd -fuse-ld="$(command -v wasm-ld-19)"
    same "WASM SIMD in node: the bits of plain C" $out/plain.txt node --no-warnings tests/run_wasi.mjs $out/determinism_wasm_simd
else skip "WASM" "clang-19, wasm-ld-19 or node"; fi
if command -v clang-19 > /dev/null && command -v qemu-riscv64 > /dev/null && [ -d /usr/riscv64-linux-gnu/lib ]; then
    clang-19 --target=riscv64-linux-gnu -march=rv64gcv -std=c11 -O1 -static tests/determinism.c -o $out/determinism_rvv $libs
    for bits in 128 256; do
        same "RISC-V vectors of $bits bits under qemu: the same bits" $out/tables.txt qemu-riscv64 -cpu rv64,v=true,vext_spec=v1.0,vlen=$bits $out/determinism_rvv
    done
else skip "RISC-V" "clang-19, qemu-riscv64 or libc6-dev-riscv64-cross"; fi
gcc -std=c11 -O1 -DNN_DETERMINISTIC -DNN_NO_SIMD $nn_h/nn_det_plain.o
program determinism det_plain gcc -std=c11
same "NN_DETERMINISTIC: plain C equals SIMD" $out/det.txt $out/determinism_det_plain
