# The header alone: compilers, standards, switches, two files, from another folder, renamed.
cp $out/one.c $out/one.cpp
# Once optimized, as some warnings of GCC come only then; the other standards are looked at only. gcc -O2 is in check_examples.sh, clang -O2 and
# gcc -O3 -march=native are in check_targets.sh, which use the code.
libs="-lm -lpthread"
run "gcc -std=c99" sh -c "gcc -std=c99 -O1 $warn -I. -c $out/one.c -o $out/one.o && gcc $out/one.o -o $out/one $libs && $out/one"
run "every exported symbol starts with nn_" sh -c "nm -g --defined-only $out/one.o | awk '\$3 !~ /^nn_/ && \$3 != \"main\" { print; bad = 1 } END { exit bad }'"
with g++     "g++ -std=c++11"     g++     -std=c++11 -O1 $warn -I. $out/one.cpp -o $out/one $libs
with clang++ "clang++ -std=c++11" clang++ -std=c++11 -O0 $warn -I. $out/one.cpp -o $out/one $libs
for c in gcc clang;     do with $c "$c -std=c11"   $c -std=c11   -fsyntax-only $warn -I. $out/one.c; done
for c in g++ clang++;   do with $c "$c -std=c++17" $c -std=c++17 -fsyntax-only $warn -I. $out/one.cpp; done
with clang "clang -std=c99" clang -std=c99 -fsyntax-only $warn -I. $out/one.c
for switch in NN_NO_STDIO NN_NO_THREADS NN_NO_SIMD NN_NO_AVX512 NN_NO_AVX2 NN_DETERMINISTIC NN_DOUBLE NN_STATIC; do
    run "gcc -D$switch"   gcc -std=c99 -O0 $warn -D$switch -I. $out/one.c -o $out/one_$switch $libs
    run "run $switch"     $out/one_$switch
    with clang "clang -D$switch" clang -std=c99 -O0 $warn -D$switch -I. $out/one.c -o $out/one $libs
done
plain="gcc -std=c99 -O0 -DNN_NO_SIMD $warn -I."       # what follows is the same with every table, or looked at only
printf '#include "nn.h"\nint other(void) { return nn_version()[0] == 0; }\n' > $out/two_a.c
printf '#define NN_IMPLEMENTATION\n#include "nn.h"\nint other(void);\nint main(void) { return other(); }\n' > $out/two_b.c
run "two files" sh -c "$plain $out/two_a.c $out/two_b.c -o $out/two $libs && $out/two"
mkdir -p $out/sub/lib && cp nn.h $out/sub/lib/nn.h && cp nn.h $out/sub/my_net.h
printf '#define NN_IMPLEMENTATION\n#include "lib/nn.h"\nint main(void) { return 0; }\n' > $out/sub/a.c
run "from a subdirectory" gcc -std=c99 -fsyntax-only $warn $out/sub/a.c
printf '#define NN_HEADER_FILENAME "my_net.h"\n#define NN_IMPLEMENTATION\n#include "my_net.h"\nint main(void) { return 0; }\n' > $out/sub/b.c
run "renamed" gcc -std=c99 -fsyntax-only $warn $out/sub/b.c
printf '#define NN_MALLOC(n) malloc(n)\n#define NN_FREE(p) free(p)\n#include <stdlib.h>\n#define NN_IMPLEMENTATION\n#include "nn.h"\nint main(void) { nn_free(nn_new(NULL)); return 0; }\n' > $out/hooks.c
run "NN_MALLOC and NN_FREE" sh -c "$plain $out/hooks.c -o $out/hooks $libs && $out/hooks"
run "every desc argument has a C++ reference" $py tests/check_header.py
macros="A B C R V X Y ABS EXP LOG SIN LOAD"
{
    for n in $macros; do echo "#define $n mine"; done
    printf '#define NN_IMPLEMENTATION\n#include "nn.h"\n#define TEXT(x) #x\n#define STR(x) TEXT(x)\n'
    for n in $macros; do echo "extern char survives[sizeof STR($n) == sizeof \"mine\" ? 1 : -1];"; done
    echo 'int main(void) { return 0; }'
} > $out/macros.c
run "the program's own short macros survive" gcc -std=c99 -fsyntax-only $warn -I. $out/macros.c
