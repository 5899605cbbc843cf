#include <stdlib.h>
#define NN__LT_LEAST (getenv("NN_LT_LEAST") ? atof(getenv("NN_LT_LEAST")) : 1.3e8)       /* tests have products of all sizes through cuBLASLt */
#define NN_CUDA_IMPLEMENTATION
#include "../../nn_cuda.h"
