# Every example is built and run with the arguments that the comment names for CI.
# They share one object of nn.h; make digits below is built as the README says.
rm -f build/nn.o
run "gcc -O2" make -s build/nn.o CC=gcc CFLAGS="-O2 $warn"
run "build the examples" make -s -k -j"$(nproc)" examples CFLAGS="-O1 $implemented" LIBS="build/nn.o -lm -lpthread"
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
