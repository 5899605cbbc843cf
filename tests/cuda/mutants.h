// What mutate.py writes into its copy of nn_cuda.h: which mutant is on, and which were reached.
extern "C" { int nn_mutant, nn_mutants = NN_MUTANT_COUNT; unsigned char nn_mutant_ran[NN_MUTANT_COUNT]; }
enum { NN_REACHED = 1, NN_DIFFERS = 2, NN_FRACTIONS = 4 };              // mutants.c has them too; fractions: a comparison of such, which has no mutant
static inline bool nn_mutated(int k) { nn_mutant_ran[k] = NN_REACHED | NN_DIFFERS; return nn_mutant == k; }
struct nn_bound { int k; };
template <class T> struct nn_moved { T v; int k; };
template <class T> static inline auto operator<<(nn_bound b, T v) -> nn_moved<decltype(v + 0)> { return nn_moved<decltype(v + 0)>{ v + 0, b.k }; }
template <class L> struct nn_whole { enum { YES = 1 }; };
template <> struct nn_whole<float> { enum { YES = 0 }; };
template <> struct nn_whole<double> { enum { YES = 0 }; };
// F: the comparison. A case where both bounds give the same answer cannot notice the mutant: it is not one of those that run it.
template <class F, class L, class T> static inline bool nn_compare(L a, const nn_moved<T> &b)
{
    const bool is = F::of(a, b.v);
    if (!(nn_whole<L>::YES && nn_whole<T>::YES)) { nn_mutant_ran[b.k] = nn_mutant_ran[b.k + 1] = NN_FRACTIONS; return is; }
    if (nn_mutant) return nn_mutant == b.k ? F::of(a, b.v + 1) : nn_mutant == b.k + 1 ? F::of(a, b.v - 1) : is;
    nn_mutant_ran[b.k] |= (unsigned char)(NN_REACHED | (F::of(a, b.v + 1) != is ? NN_DIFFERS : 0));
    nn_mutant_ran[b.k + 1] |= (unsigned char)(NN_REACHED | (F::of(a, b.v - 1) != is ? NN_DIFFERS : 0));
    return is;
}
#define NN_COMPARE(name, op) \
    struct nn_##name { template <class L, class T> static inline bool of(L a, T b) { return a op b; } }; \
    template <class L, class T> static inline bool operator op(L a, const nn_moved<T> &b) { return nn_compare<nn_##name>(a, b); }
NN_COMPARE(less, <) NN_COMPARE(most, <=) NN_COMPARE(more, >) NN_COMPARE(least, >=)
#define NN_MUTATED(k) nn_mutated(k)
#define NN_BOUND(k)   nn_bound{k}
