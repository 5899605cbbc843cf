# Other compilers and machines: tcc, musl, Windows under wine, AArch64 and big-endian s390x under qemu; equal bits where design says so.
gcc -std=c11 -O1 -I. tests/determinism.c -o $out/det -lm -lpthread && $out/det > $out/det.txt
gcc -std=c11 -O1 -DNN_DETERMINISTIC -I. tests/determinism.c -o $out/det_d -lm -lpthread && $out/det_d > $out/det_d.txt
gcc -std=c11 -O1 -DNN_NO_SIMD -I. tests/determinism.c -o $out/det_n -lm -lpthread && $out/det_n > $out/det_n.txt
same() { # same NAME EXPECTED COMMAND...: the command prints the same hashes
    local name=$1 expected=$2; shift 2
    if timeout 600 "$@" > "$out/log" 2>&1 && diff <(tr -d '\r' < "$out/log") "$expected" > /dev/null; then ok "$name"; else cat "$expected" >> "$out/log"; bad "$name"; fi
}
if command -v tcc > /dev/null; then
    run "tcc compiles" tcc -I. $out/one.c -o $out/tcc_one -lm -lpthread
    run "tcc runs xor" sh -c "tcc -I. examples/xor.c -o $out/tcc_xor -lm -lpthread && $out/tcc_xor"
    tcc -I. tests/determinism.c -o $out/det_tcc -lm -lpthread 2> $out/log && same "tcc: bits of plain C" $out/det_n.txt $out/det_tcc
else skip "tcc" tcc; fi
if command -v clang > /dev/null; then
    clang -std=c11 -O2 -I. tests/determinism.c -o $out/det_clang -lm -lpthread && same "clang: the same bits" $out/det.txt $out/det_clang
    clang -std=gnu11 -O3 -march=native -DNN_DETERMINISTIC -I. tests/determinism.c -o $out/det_clang_d -lm -lpthread && same "clang -O3 -march=native NN_DETERMINISTIC: the same bits" $out/det_d.txt $out/det_clang_d
else skip "clang bits" clang; fi
gcc -std=gnu11 -O3 -march=native -I. tests/determinism.c -o $out/det_o3 -lm -lpthread && same "gcc -O3 -march=native: the same bits" $out/det.txt $out/det_o3
if command -v musl-gcc > /dev/null; then
    musl-gcc -static -std=c11 -O1 -I. tests/determinism.c -o $out/det_musl -lm -lpthread && same "musl: the same bits" $out/det.txt $out/det_musl
else skip "musl" musl-gcc; fi
if command -v x86_64-w64-mingw32-gcc > /dev/null; then
    run "mingw compiles without a warning" x86_64-w64-mingw32-gcc -std=c99 -O1 -Wall -Wextra -Wshadow -Werror -I. $out/one.c -o $out/one.exe -static
    if command -v wine > /dev/null || [ -x /usr/lib/wine/wine64 ]; then
        wine=$(command -v wine || echo /usr/lib/wine/wine64)
        WINEDEBUG=-all $wine cmd /c exit > /dev/null 2>&1             # the first run makes its folder and talks about it
        x86_64-w64-mingw32-gcc -std=c11 -O1 -I. tests/determinism.c -o $out/det.exe -static && WINEDEBUG=-all same "Windows under wine: the same bits" $out/det.txt $wine $out/det.exe
    else skip "Windows" wine; fi
else skip "mingw" x86_64-w64-mingw32-gcc; fi
if command -v aarch64-linux-gnu-gcc > /dev/null && command -v qemu-aarch64 > /dev/null; then
    run "aarch64 compiles without a warning" aarch64-linux-gnu-gcc -std=c99 -O1 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I. $out/one.c -o $out/one_a64 -static -lm -lpthread
    aarch64-linux-gnu-gcc -std=c11 -O2 -I. tests/determinism.c -o $out/det_a64 -static -lm -lpthread && same "NEON under qemu: the same bits" $out/det.txt qemu-aarch64 $out/det_a64
    aarch64-linux-gnu-gcc -std=gnu11 -O2 -DNN_DETERMINISTIC -I. tests/determinism.c -o $out/det_a64d -static -lm -lpthread && same "NEON, NN_DETERMINISTIC: the same bits" $out/det_d.txt qemu-aarch64 $out/det_a64d
    aarch64-linux-gnu-gcc -std=c11 -O1 -I. tests/test_ops.c -o $out/ops_a64 -static -lm -lpthread && sums "gradients on NEON under qemu" qemu-aarch64 $out/ops_a64
else skip "aarch64" qemu-aarch64; fi
if command -v s390x-linux-gnu-gcc > /dev/null && command -v qemu-s390x > /dev/null; then
    s390x-linux-gnu-gcc -std=gnu11 -O1 -I. tests/determinism.c -o $out/det_s390 -static -lm -lpthread && same "big-endian s390x: the bits of plain C" $out/det_n.txt qemu-s390x $out/det_s390
    s390x-linux-gnu-gcc -std=gnu11 -O1 -I. tests/test_files.c -o $out/files_s390 -static -lm -lpthread && sums "file formats on big-endian s390x" qemu-s390x $out/files_s390
else skip "s390x" qemu-s390x; fi
if command -v clang-19 > /dev/null && command -v wasm-ld-19 > /dev/null && command -v node > /dev/null; then
    clang-19 --target=wasm32-wasi --sysroot=/usr -std=c11 -O1 -DNN_NO_THREADS -DNN_DETERMINISTIC -I. tests/determinism.c -o $out/det.wasm -fuse-ld="$(command -v wasm-ld-19)" &&
        same "WASM in node, NN_DETERMINISTIC: the same bits" $out/det_d.txt node --no-warnings tests/run_wasi.mjs $out/det.wasm
    clang-19 --target=wasm32-wasi --sysroot=/usr -std=c11 -O1 -msimd128 -DNN_NO_THREADS -I. tests/determinism.c -o $out/det_simd.wasm -fuse-ld="$(command -v wasm-ld-19)" &&
        same "WASM SIMD in node: the bits of plain C" $out/det_n.txt node --no-warnings tests/run_wasi.mjs $out/det_simd.wasm
else skip "WASM" "clang-19, wasm-ld-19 or node"; fi
if command -v clang-19 > /dev/null && command -v qemu-riscv64 > /dev/null && [ -d /usr/riscv64-linux-gnu/lib ]; then
    clang-19 --target=riscv64-linux-gnu -march=rv64gcv -std=c11 -O1 -static -I. tests/determinism.c -o $out/det_rvv -lm -lpthread &&
        for bits in 128 256; do
            same "RISC-V vectors of $bits bits under qemu: the same bits" $out/det.txt qemu-riscv64 -cpu rv64,v=true,vext_spec=v1.0,vlen=$bits $out/det_rvv
        done
else skip "RISC-V" "clang-19, qemu-riscv64 or libc6-dev-riscv64-cross"; fi
diff $out/det_d.txt <(gcc -std=c11 -O1 -DNN_DETERMINISTIC -DNN_NO_SIMD -I. tests/determinism.c -o $out/det_dn -lm -lpthread && $out/det_dn) > $out/log && ok "NN_DETERMINISTIC: plain C equals SIMD" || bad "NN_DETERMINISTIC: plain C equals SIMD"
