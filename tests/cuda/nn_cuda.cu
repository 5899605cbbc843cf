#define NN_CUDA_IMPLEMENTATION
#include "../../nn_cuda.h"
