// What mutate.py writes into its copy of nn_cuda.h: which mutant is on, and which were reached (1; 2: a comparison of fractions, which has no mutant).
extern "C" { int nn_mutant, nn_mutants = NN_MUTANT_COUNT; unsigned char nn_mutant_ran[NN_MUTANT_COUNT]; }
static inline bool nn_mutated(int k) { nn_mutant_ran[k] = 1; return nn_mutant == k; }
struct nn_bound { int k; };
static inline float operator+(nn_bound b, float v) { nn_mutant_ran[b.k] = nn_mutant_ran[b.k + 1] = 2; return v; }
static inline double operator+(nn_bound b, double v) { nn_mutant_ran[b.k] = nn_mutant_ran[b.k + 1] = 2; return v; }
template <class T> static inline auto operator+(nn_bound b, T v) -> decltype(v + 0)
{
    nn_mutant_ran[b.k] = nn_mutant_ran[b.k + 1] = 1;
    return nn_mutant == b.k ? v + 1 : nn_mutant == b.k + 1 ? v - 1 : v + 0;
}
#define NN_MUTATED(k) nn_mutated(k)
#define NN_BOUND(k)   nn_bound{k}
