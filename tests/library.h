/* library.h - nn.h for a test. As it is, the whole library is compiled with the test, which can be built by  cc tests/test_X.c -lm -lpthread.
   With TEST_LINKED it is in an object that all tests share (see Makefile); a test that looks inside (TEST_INSIDE) then has its types and static functions,
   while public functions are those of the object: build it with -O1 -fno-inline, else the compiler keeps what only they need. */
#ifndef TEST_LINKED
#  define NN_IMPLEMENTATION
#  include "../nn.h"
#else
#  include "../nn.h"
#  ifdef TEST_INSIDE
#    pragma GCC system_header                /* else: a static function is used in an inline one */
#    ifndef NN_NO_SIMD
#      define NN_NO_SIMD                     /* its tables are in the object */
#    endif
#    undef NN_API
#    define NN_API extern inline __attribute__((gnu_inline))
#    define NN_IMPLEMENTATION
#    include "../nn.h"
#  else
#    define NN__IMPLEMENTED                  /* also where an example that is tested asks for the implementation, and has what that includes */
#    include <math.h>
#    include <stdio.h>
#    include <stdlib.h>
#    include <string.h>
#    include <time.h>
#  endif
#endif
