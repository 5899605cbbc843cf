# What we write is read by others, and the reverse.
run "builds: what they read and write with" sh -c "make -s build/tests/test_monitor build/tests/test_train build/tests/nn_plain.o build/tests/nn_tables.o &&
    gcc -std=c99 -O1 $implemented examples/bert.c build/tests/nn_tables.o -o $out/bert -lm -lpthread &&
    gcc -std=c99 -O1 $implemented tests/safetensors_tool.c build/tests/nn_plain.o -o $out/safetensors_tool -lm -lpthread"
run check_events.py      $py tests/check_events.py build/tests
run check_minilm.py      $py tests/check_minilm.py $out/bert
run check_safetensors.py $py tests/check_safetensors.py $out/safetensors_tool
# tests/fuzz/corpus has the seeds; found.tar.gz what more than 10 minutes of fuzzing each have found to reach new code.
mkdir -p $out/found && tar -xzf tests/fuzz/found.tar.gz -C $out/found
if command -v clang > /dev/null; then
    fuzz="clang -std=c11 -g -O1 -DNN_NO_SIMD -I."
    run "build nn.h for the fuzzers" $fuzz -fsanitize=fuzzer-no-link,address,undefined -DNN_IMPLEMENTATION -x c -c nn.h -o $out/nn_fuzz.o
    for f in tests/fuzz/fuzz_*.c; do
        n=$(basename $f .c); n=${n#fuzz_}
        mkdir -p $out/corpus_$n $out/found/$n
        run "build fuzz_$n" $fuzz -fsanitize=fuzzer,address,undefined -DTEST_LINKED $f $out/nn_fuzz.o -o $out/fuzz_$n -lm -lpthread
        run "fuzz_$n: the corpus, then ${FUZZ_SECONDS:-15} s" $out/fuzz_$n -max_total_time=${FUZZ_SECONDS:-15} -rss_limit_mb=2048 -max_len=4096 -timeout=10 -artifact_prefix=$out/ $out/corpus_$n tests/fuzz/corpus/$n $out/found/$n
    done
else skip "fuzzing" clang; fi
