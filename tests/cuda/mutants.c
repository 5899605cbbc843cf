/* mutants.c - which mutants of nn_cuda.h's kernels do the tests notice? Started by mutate.py, linked with a build that holds all of them.

   First every item (a case of the op table, a row of test_products.c, a whole program) runs unbroken, and which mutants would differ in it (a
   comparison: both bounds give different answers somewhere; the others: executed) is noted in the file NN_COVERAGE, unless that has the item already.
   Then, for each number in the file NN_MUTANTS, the items where it differs run in processes of their own, those first that are quick and have
   noticed mutants before, until one fails, crashes or takes much too long, NN_BUDGET seconds in all. A line of NN_MUTANTS: number, line of
   the source (for ptxsim), and the item to begin with, if any; NN_ONLY=1: and to end with. NN_ORDERS: the orders of threads to try. A line
   of the file NN_VERDICTS: number, verdict, item that noticed, order, in how many it differs. */
#define _GNU_SOURCE
#include "test_cuda.c"
#define outcome product_outcome
#define numbers product_numbers
#define row     product_row
#define inner   product_inner
#define state   product_state
#define number  product_number
#define nn_cuda_with(device, desc) guarded_cuda((int)(desc)->precision)
#include "test_products.c"
#undef nn_cuda_with
#undef outcome
#undef numbers
#undef row
#undef inner
#undef state
#undef number
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

WEAK extern int nn_mutant, nn_mutants;
WEAK extern unsigned char nn_mutant_ran[];
WEAK void nn_device_without_barrier(int line);           /* of ptxsim */

typedef struct item { char name[96]; op_case *k; int offset, precision, row; test_case *program; } item;
enum { ITEMS = 8000, MUTANTS = 8000, REACHED = 1, DIFFERS = 2, FRACTIONS = 4 };
static item items[ITEMS];
static int item_count;
static struct shared {
    char name[ITEMS][sizeof items->name];
    double seconds[ITEMS];
    int kills[ITEMS], broken[ITEMS], next, todo, number[MUTANTS], line[MUTANTS], first[MUTANTS], items;
    unsigned char differs[ITEMS][MUTANTS / 8], ran[MUTANTS];
} *all;

static double now(void) { struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec; }
static item *add_item(void) { return &items[item_count < ITEMS - 1 ? item_count++ : item_count]; }
static void list_items(void)
{
    static const char *const programs[] = { "mlp", "lenet", "lstm", "gpt", "optimizers", "loss_scaling", "tiny_gradients_in_fp16", "norm_of_many_tensors", "norm_of_odd_tensors", "updates_of_numbers_anywhere", "indices_out_of_range", "topk_of_long_lines", "a_token_is_a_graph" };
    for (op_case *k = first_case; k; k = k->next) for (int v = 0; v < 5; v++) {
        if (v > 1 && tolerance_of(k->name, v - 1) < 1e-3) continue;
        item *i = add_item();
        i->k = k; i->offset = v == 1; i->precision = v > 1 ? v - 1 : 0;
        snprintf(i->name, sizeof i->name, "%s/%s%s%s", k->name, k->label, v == 1 ? " unaligned" : "", v < 2 ? "" : v == 2 ? " tf32" : v == 3 ? " bf16" : " fp16");
    }
    for (int r = 0; r < PRODUCTS; r++) for (int p = 0; p < rows[r].precisions; p++) {
        item *i = add_item();
        i->row = r; i->precision = p;
        snprintf(i->name, sizeof i->name, "products row %d precision %d", r, p);
    }
    for (test_case *t = test_first; t; t = t->next) for (size_t n = 0; n < sizeof programs / sizeof *programs; n++) if (!strcmp(t->name, programs[n])) {
        item *i = add_item();
        i->program = t;
        snprintf(i->name, sizeof i->name, "%s", t->name);
    }
}
static int run_item(const item *i)                       /* 1: nothing noticed */
{
    test_failures = 0;
    if (i->k) return check_case(i->k, i->offset, i->precision);
    if (i->program) i->program->run();
    else {
        char row[16], precision[16];
        snprintf(row, sizeof row, "%d", i->row); snprintf(precision, sizeof precision, "%d", i->precision);
        setenv("NN_ROW", row, 1); setenv("NN_PRECISION", precision, 1);
        test_products();
    }
    return test_failures == 0;
}
static void limit(double seconds)                        /* an endless loop ends by a signal */
{
    struct itimerval t;
    memset(&t, 0, sizeof t);
    t.it_value.tv_sec = (time_t)seconds + 1;
    setitimer(ITIMER_PROF, &t, NULL);
}
static void quiet(void)
{
    int null = open("/dev/null", O_WRONLY);
    if (getenv("NN_LOUD")) return;
    dup2(null, 1); dup2(null, 2);
    close(null);
}
static void mutate(int number, int line) { if (nn_device_without_barrier) nn_device_without_barrier(number ? line : 0); else if (&nn_mutant) nn_mutant = number; }

/* ---- which item can notice what ---- */
static void note(void)
{
    for (int n; (n = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < item_count;) {
        if (all->seconds[n] > 0) continue;
        memset(nn_mutant_ran, 0, (size_t)nn_mutants);
        double t = now();
        limit(300);
        all->broken[n] = !run_item(&items[n]);
        all->seconds[n] = now() - t;
        for (int m = 1; m < nn_mutants; m++) {
            if (nn_mutant_ran[m] & DIFFERS) all->differs[n][m / 8] |= (unsigned char)(1 << m % 8);
            __atomic_fetch_or(&all->ran[m], nn_mutant_ran[m], __ATOMIC_RELAXED);
        }
    }
}
static int differs(int item, int mutant) { return all->differs[item][mutant / 8] >> mutant % 8 & 1; }
static const char *without_items(int mutant) { return all->ran[mutant] & REACHED ? "never differs" : all->ran[mutant] ? "fractions" : "not executed"; }

/* ---- one mutant ---- */
static int try_items(int number, int line, const char *order, const int *list, int count, double budget)       /* the item that noticed, or -1; in processes of their own */
{
    int *at = mmap(NULL, sizeof *at, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status, found = -1;
    *at = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        double slow = atof(getenv("NN_SLOWER") ? getenv("NN_SLOWER") : "1"), end = now() + budget;
        quiet();
        setenv("CUSHIM_ORDER", order, 1);
        mutate(number, line);
        for (int i = 0; i < count; i++) {
            *at = i;
            if (now() > end) _exit(3);
            limit((10 * all->seconds[list[i]] + 2) * slow);
            if (!run_item(&items[list[i]])) _exit(1);
        }
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (!(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3))) found = list[*at];
    munmap(at, sizeof *at);
    return found;
}
static double price(int i) { return (all->seconds[i] + 1e-3) / (1 + all->kills[i]); }
static int by_price(const void *a, const void *b) { double p = price(*(const int *)a), q = price(*(const int *)b); return p < q ? -1 : p > q; }
static void work(int to)
{
    static int list[ITEMS];
    char orders[64], line[256];
    double budget = atof(getenv("NN_BUDGET") ? getenv("NN_BUDGET") : "60");
    for (int n; (n = __atomic_fetch_add(&all->next, 1, __ATOMIC_RELAXED)) < all->todo;) {
        int count = 0, found = -1;
        char *order, *rest = orders;
        const int number = all->number[n], known = all->first[n], first = known >= 0 && (getenv("NN_ONLY") || differs(known, number)) ? known : -1;
        if (first >= 0) list[count++] = first;
        for (int i = 0; i < item_count && !getenv("NN_ONLY"); i++) if (i != first && !all->broken[i] && differs(i, number)) list[count++] = i;
        qsort(list + (first >= 0), (size_t)(count - (first >= 0)), sizeof *list, by_price);
        snprintf(orders, sizeof orders, "%s", getenv("NN_ORDERS") ? getenv("NN_ORDERS") : "fwd,rev,rand");
        while (count && found < 0 && (order = strsep(&rest, ","))) found = try_items(number, all->line[n], order, list, count, budget);
        if (found >= 0) __atomic_fetch_add(&all->kills[found], 1, __ATOMIC_RELAXED);
        int length = snprintf(line, sizeof line, "%d\t%s\t%s\t%s\t%d\n", number, !count ? without_items(number) : found >= 0 ? "killed" : "survived", found >= 0 ? items[found].name : "", found >= 0 ? order : "", count);
        if (write(to, line, (size_t)length) != length) _exit(2);
    }
}
static void in_processes(int jobs, int what, int to)
{
    pid_t child[16];
    fflush(stdout);
    for (int j = 0; j < jobs; j++) if ((child[j] = fork()) == 0) {
        if (what == 0) { quiet(); note(); } else work(to);
        _exit(0);
    }
    for (int j = 0; j < jobs; j++) { int status; waitpid(child[j], &status, 0); CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0); }
}
TEST(mutation)
{
    const char *coverage = getenv("NN_COVERAGE"), *list = getenv("NN_MUTANTS"), *verdicts = getenv("NN_VERDICTS");
    int jobs = getenv("NN_JOBS") ? atoi(getenv("NN_JOBS")) : 2, number, line, fresh_items = 0;
    if (!list || !verdicts) SKIP("started by mutate.py");
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    list_items();
    FILE *f = coverage ? fopen(coverage, "rb") : NULL;
    if (f) {
        struct shared *was = malloc(sizeof *was);
        CHECK(was && fread(was, sizeof *was, 1, f) == 1);
        for (int n = 0; n < item_count; n++) for (int i = 0; i < was->items; i++) if (!strcmp(items[n].name, was->name[i]) && !was->broken[i]) {
            memcpy(all->differs[n], was->differs[i], sizeof *all->differs);
            all->seconds[n] = was->seconds[i]; all->kills[n] = was->kills[i];
        }
        memcpy(all->ran, was->ran, sizeof all->ran);
        free(was);
        fclose(f);
    }
    for (int n = 0; n < item_count; n++) { strcpy(all->name[n], items[n].name); fresh_items += all->seconds[n] == 0; }
    if (coverage && fresh_items && &nn_mutant) {
        CHECK(nn_mutants < MUTANTS);
        in_processes(jobs, 0, 0);
        printf("%d items noted\n", fresh_items);
    }
    for (int i = 0; i < item_count; i++) if (all->broken[i]) { printf("fails unbroken: %s\n", items[i].name); CHECK(!all->broken[i]); }
    all->items = item_count;
    f = coverage && &nn_mutant ? fopen(coverage, "wb") : NULL;
    if (f) { CHECK(fwrite(all, sizeof *all, 1, f) == 1); fclose(f); }
    all->next = all->todo = 0;
    f = fopen(list, "r");
    CHECK(f != NULL);
    for (char rest[256] = ""; f && all->todo < MUTANTS && fscanf(f, "%d %d%255[^\n]", &number, &line, rest) >= 2; rest[0] = 0) {
        char *name = rest + strspn(rest, "\t ");
        int n = all->todo++;
        all->number[n] = number; all->line[n] = line; all->first[n] = -1;
        if (*name) for (int i = 0; i < item_count; i++) if (!strcmp(items[i].name, name)) all->first[n] = i;
        if (*name && all->first[n] < 0 && getenv("NN_ONLY")) { printf("no item is called %s\n", name); CHECK(all->first[n] >= 0); }
    }
    if (f) fclose(f);
    int to = open(verdicts, O_WRONLY | O_CREAT | O_APPEND, 0644);
    CHECK(to >= 0);
    in_processes(jobs, 1, to);
    close(to);
}
