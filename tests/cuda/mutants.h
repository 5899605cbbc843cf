// What mutate.py writes into its copy of nn_cuda.h: which mutant is on, and which were reached (1; 2: a comparison of fractions, which has no mutant).
extern "C" { int nn_mutant, nn_mutants = NN_MUTANT_COUNT; unsigned char nn_mutant_ran[NN_MUTANT_COUNT]; }
static inline bool nn_mutated(int k) { nn_mutant_ran[k] = 1; return nn_mutant == k; }
struct nn_bound { int k; };
template <class T> struct nn_moved { T v; int k; };
template <class T> static inline auto operator<<(nn_bound b, T v) -> nn_moved<decltype(v + 0)> { return nn_moved<decltype(v + 0)>{ v + 0, b.k }; }
template <class L> struct nn_whole { enum { YES = 1 }; };
template <> struct nn_whole<float> { enum { YES = 0 }; };
template <> struct nn_whole<double> { enum { YES = 0 }; };
template <class L, class T> static inline T nn_move(const nn_moved<T> &b)
{
    const bool whole = nn_whole<L>::YES && nn_whole<T>::YES;
    nn_mutant_ran[b.k] = nn_mutant_ran[b.k + 1] = whole ? 1 : 2;
    return !whole ? b.v : nn_mutant == b.k ? b.v + 1 : nn_mutant == b.k + 1 ? b.v - 1 : b.v;
}
template <class L, class T> static inline bool operator<(L a, const nn_moved<T> &b) { return a < nn_move<L>(b); }
template <class L, class T> static inline bool operator<=(L a, const nn_moved<T> &b) { return a <= nn_move<L>(b); }
template <class L, class T> static inline bool operator>(L a, const nn_moved<T> &b) { return a > nn_move<L>(b); }
template <class L, class T> static inline bool operator>=(L a, const nn_moved<T> &b) { return a >= nn_move<L>(b); }
#define NN_MUTATED(k) nn_mutated(k)
#define NN_BOUND(k)   nn_bound{k}
