# Every example is built and run with the arguments that the comment names for CI.
# They share one object of nn.h, built without AVX-512; xor, and make digits below, are built as the README says.
run "build nn.h for the examples" make -s build/nn.o CFLAGS="-O1 -DNN_NO_AVX512"
run "build the examples" make -s -k -j"$(nproc)" examples CFLAGS="-O1 $implemented" LIBS="build/nn.o -lm -lpthread"
run "build xor" sh -c "rm build/xor && make -s build/xor"
example() {
    local e=examples/$1.c args lines
    args=$(sed -n 's/.*Run in CI: *\(.*[^ ]\) *$/\1/p' $e | head -n 1)
    LIMIT=300 run "run example $1 $args" sh -c "build/$1 $args"
    lines=$(wc -l < $e); [ "$lines" -le 150 ] || bad "$1 has $lines lines, more than 150"
}
fsdd=../shared/data/audio/fsdd_train900.tar.gz     # speech_digits reads a folder
[ -f $fsdd ] && mkdir -p build/fsdd && tar -xzf $fsdd -C build/fsdd --strip-components=1
for e in examples/*.c; do [ $e = examples/predict_image.c ] || example $(basename $e .c); done
run "make digits ends with an accuracy of at least 97 %" sh -c "rm -f build/digits; make -s digits > $out/digits.txt && tail -n 2 $out/digits.txt | grep -E 'test accuracy 9[789]\.[0-9]+%' && tail -n 1 $out/digits.txt | grep -x 'saved digits.safetensors'"
example predict_image                # reads what make digits has saved
