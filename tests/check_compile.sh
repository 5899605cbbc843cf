# The header alone: compilers, standards, switches, two files, from another folder, renamed.
cp $out/one.c $out/one.cpp
# Once optimized, as some warnings of GCC come only then; the other standards are looked at only.
for c in gcc clang; do
    with $c "$c -std=c99" $c -std=c99 -O1 $warn -I. $out/one.c -o $out/one -lm -lpthread
    with $c "$c -std=c11" $c -std=c11 -fsyntax-only $warn -I. $out/one.c
done
for c in g++ clang++; do
    with $c "$c -std=c++11" $c -std=c++11 -O1 $warn -I. $out/one.cpp -o $out/one -lm -lpthread
    with $c "$c -std=c++17" $c -std=c++17 -fsyntax-only $warn -I. $out/one.cpp
done
with gcc "gcc -O2"  gcc -std=c99 -O2 $warn -I. $out/one.c -o $out/one -lm -lpthread
with gcc "gcc -O3 -march=native" gcc -std=gnu99 -O3 -march=native $warn -I. $out/one.c -o $out/one -lm -lpthread
for switch in NN_NO_STDIO NN_NO_THREADS NN_NO_SIMD NN_NO_AVX512 NN_NO_AVX2 NN_DETERMINISTIC NN_DOUBLE NN_STATIC; do
    run "gcc -D$switch"   gcc -std=c99 -O0 $warn -D$switch -I. $out/one.c -o $out/one_$switch -lm -lpthread
    run "run $switch"     $out/one_$switch
    with clang "clang -D$switch" clang -std=c99 -O0 $warn -D$switch -I. $out/one.c -o $out/one -lm -lpthread
done
printf '#include "nn.h"\nint other(void) { return nn_version()[0] == 0; }\n' > $out/two_a.c
printf '#define NN_IMPLEMENTATION\n#include "nn.h"\nint other(void);\nint main(void) { return other(); }\n' > $out/two_b.c
run "two files" sh -c "gcc -std=c99 -O0 $warn -I. $out/two_a.c $out/two_b.c -o $out/two -lm -lpthread && $out/two"
mkdir -p $out/sub/lib && cp nn.h $out/sub/lib/nn.h && cp nn.h $out/sub/my_net.h
printf '#define NN_IMPLEMENTATION\n#include "lib/nn.h"\nint main(void) { return 0; }\n' > $out/sub/a.c
run "from a subdirectory" gcc -std=c99 -O0 $warn $out/sub/a.c -o $out/sub/a -lm -lpthread
printf '#define NN_HEADER_FILENAME "my_net.h"\n#define NN_IMPLEMENTATION\n#include "my_net.h"\nint main(void) { return 0; }\n' > $out/sub/b.c
run "renamed" gcc -std=c99 -O0 $warn $out/sub/b.c -o $out/sub/b -lm -lpthread
printf '#define NN_MALLOC(n) malloc(n)\n#define NN_FREE(p) free(p)\n#include <stdlib.h>\n#define NN_IMPLEMENTATION\n#include "nn.h"\nint main(void) { nn_free(nn_new(NULL)); return 0; }\n' > $out/hooks.c
run "NN_MALLOC and NN_FREE" sh -c "gcc -std=c99 -O0 $warn -I. $out/hooks.c -o $out/hooks -lm -lpthread && $out/hooks"
run "every exported symbol starts with nn_" sh -c "gcc -std=c99 -O0 -I. -c $out/one.c -o $out/one.o && nm -g --defined-only $out/one.o | awk '\$3 !~ /^nn_/ && \$3 != \"main\" { print; bad = 1 } END { exit bad }'"
run "every desc argument has a C++ reference" $py tests/check_header.py
{
    for n in A B C R V X Y ABS EXP LOG SIN LOAD; do echo "#define $n mine"; done
    printf '#define NN_IMPLEMENTATION\n#include "nn.h"\n#define TEXT(x) #x\n#define STR(x) TEXT(x)\nint main(void) { return STR(C)[0] != 109 || STR(EXP)[0] != 109; }\n'
} > $out/macros.c
run "the program's own short macros survive" sh -c "gcc -std=c99 -O0 $warn -I. $out/macros.c -o $out/macros -lm -lpthread && $out/macros"
