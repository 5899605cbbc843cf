/* ptxsim.cpp - a stand-in for libcudart.so.13 that executes the PTX inside an nvcc-built program on the CPU.
 * For checks only.  Build:  make -C ptxsim   Run:  LD_LIBRARY_PATH=<dir> ./program   (program built with -cudart shared
 * and PTX embedded, e.g. nvcc -gencode arch=compute_80,code=compute_80 -lineinfo).
 * It checks: every global/shared/local access is inside an allocation and aligned, memory is written before it is read,
 * data races in a block and between blocks, barrier and warp-operation agreement, cp.async waits, host access to device memory.
 * Environment: PTXSIM_PROF=1 counts instructions, sectors a request and bank conflicts;  PTXSIM_ORDER=fwd|rev|rand PTXSIM_SEED=n;
 * PTXSIM_RACE=0 PTXSIM_INIT=0 switch checks off, PTXSIM_RACE=2 looks inside blocks only (for 'last block finishes' kernels);  PTXSIM_EAGER=1;  PTXSIM_NODEV=1;  PTXSIM_ARENA=MiB;  PTXSIM_ARCH=80.
 * PTXSIM_TABLE=file writes what PTXSIM_PROF counts as a table for sass.py.
 * At exit it prints 'ptxsim: L launches, I instructions, E errors'; an error makes the process exit with 9. */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>
using std::map;
using std::string;
using std::vector;
typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint16_t u16;
typedef uint8_t u8;

static const char *env(const char *k, const char *d) {
    const char *v = getenv(k);
    return v && *v ? v : d;
}
static int ienv(const char *k, int d) { return atoi(env(k, std::to_string(d).c_str())); }
static long n_err, n_launch;
static u64 n_instr;
[[noreturn]] static void fatal(const string &m) {
    fprintf(stderr, "ptxsim: cannot go on: %s\n", m.c_str());
    _exit(8);
}

/* ---------------- program ---------------- */
enum Op {
    MOV,
    LD,
    ST,
    ADD,
    SUB,
    MUL,
    MAD,
    DIV,
    REM,
    NEG,
    ABS,
    MIN,
    MAX,
    SQRT,
    RSQRT,
    RCP,
    EX2,
    LG2,
    SIN,
    COS,
    TANH,
    COPYSIGN,
    AND,
    OR,
    XOR,
    NOT,
    SHL,
    SHR,
    BFE,
    BFI,
    BREV,
    POPC,
    CLZ,
    BFIND,
    PRMT,
    SHF,
    LOP3,
    SETP,
    SELP,
    CVT,
    CVTA,
    BRA,
    BRX,
    RET,
    BAR,
    SHFL,
    VOTE,
    ACTIVEMASK,
    REDUX,
    BARWARP,
    ATOM,
    RED,
    FENCE,
    MMA,
    LDMATRIX,
    CPASYNC,
    CPCOMMIT,
    CPWAIT,
    CALL,
    TRAP,
    NOP,
    SLCT,
    MUL24,
    ELECT
};
enum Space { GEN, GLOBAL, SHARED, LOCAL, PARAM, CONSTS };
struct Type {
    char k;
    int bits;
}; /* k: u s f b p, h = f16, B = bf16, t = tf32, X = bf16x2, H = f16x2 */
struct Opnd {
    char k;
    int r;
    u64 imm;
    vector<Opnd> v;
    string s;
    int r2;
}; /* k: r reg, i imm, a address, v vector, s special, l label, n name */
enum { IS_EQ, IS_NE, IS_LT, IS_LE, IS_GT, IS_GE, IS_NUM, IS_NAN, OR_NAN = 8 };    /* OR_NAN: true of what is not comparable, too */
enum { JOIN_OR, JOIN_AND, JOIN_XOR };
struct Ins {
    Op op;
    Type t, t2;
    Space sp;
    int nvec;
    vector<Opnd> o;
    int pred;
    bool pneg;
    u32 fl;
    string mod, text;
    int relation, join;                                  /* of setp */
    int line;
    int target;
    vector<int> targets;
    u64 cnt;
};
enum {
    F_FTZ = 1,
    F_HI = 2,
    F_LO = 4,
    F_WIDE = 8,
    F_SAT = 16,
    F_RNI = 32,
    F_RZI = 64,
    F_RMI = 128,
    F_RPI = 256,
    F_APPROX = 512,
    F_UNI = 1024,
    F_TRANS = 2048,
    F_TO = 4096,
    F_RZ = 8192,
    F_RM = 1 << 14,
    F_RP = 1 << 15,
    F_NAN = 1 << 16,
    F_CG = 1 << 17,
    F_RELU = 1 << 18,
    F_SYNC = 1 << 19
};
struct Var {
    u64 off;
    size_t size;
    Space sp;
};
struct Kernel {
    string name;
    vector<std::pair<string, Var>> params;
    size_t parambytes;
    map<string, Var> vars;
    size_t shbytes, locbytes;
    map<string, int> regs;
    vector<Ins> code;
    map<string, int> labels;
    map<string, vector<string>> brt;
    int nregs;
    bool dyn;
};
static map<string, Kernel *> kernels;
static map<string, Var> globals;
static map<string, size_t> shglobals;
static string dynname;

/* ---------------- device memory ---------------- */
static char *arena;
static size_t acap, atop;
static u8 *ashadow;
static bool aopen;
static map<u64, size_t> live;
static int sticky, lasterr;
static vector<char> g_init_pending;
struct Sh {
    u32 w, we, r, re;
}; /* writer/reader thread + 1 and its epoch; a cell per 4 bytes, and one per byte for accesses of fewer than 4 bytes */
static Sh *grace;
static void aprot(bool o) {
    if (o != aopen) {
        mprotect(arena, acap, o ? PROT_READ | PROT_WRITE : PROT_NONE);
        aopen = o;
    }
}
static void ainit(void) {
    if (arena) return;
    acap = (size_t)ienv("PTXSIM_ARENA", 512) << 20;
    arena = (char *)mmap(0, acap, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ashadow = (u8 *)mmap(0, acap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    grace = (Sh *)mmap(0, (acap / 4 + acap) * sizeof(Sh), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED || ashadow == MAP_FAILED || grace == MAP_FAILED) fatal("no memory for the device arena");
}
static size_t nvars, varstop;                          /* module variables, which stay */
static u64 amalloc(size_t n) {
    ainit();
    size_t need = (n + 511) / 256 * 256;
    if (live.size() == nvars) atop = varstop;            /* else addresses are never used again: use after free shows */
    if (atop + need > acap) return 0;
    u64 p = (u64)(arena + atop);
    atop += need;
    live[p] = n;
    bool o = aopen;
    aprot(true);
    memset((void *)p, 0xff, n);
    memset(ashadow + (p - (u64)arena), 0, n);
    aprot(o);
    return p;
}
/* What a launch may touch in the blocks that were named with nn_device_block; NULL: everything. */
struct Guard {
    vector<std::pair<u64, u64>> range;
};
static map<u64, size_t> guarded;
static std::shared_ptr<Guard> guard_next, guard_now;
static vector<std::pair<u64, size_t>> fills;
static bool allowed(u64 a, size_t n) {
    if (!guard_now) return true;
    auto it = guarded.upper_bound(a);
    if (it == guarded.begin() || (--it, a >= it->first + it->second)) return true;
    for (auto &r : guard_now->range)
        if (a >= r.first && a + n <= r.first + r.second) return true;
    return false;
}
static bool isdev(u64 p, size_t n) {
    auto it = live.upper_bound(p);
    if (it == live.begin()) return false;
    --it;
    return p + n <= it->first + it->second;
}

/* ---------------- parser ---------------- */
static vector<string> split(const string &s, char c) {
    vector<string> r;
    string x;
    for (char d : s)
        if (d == c) {
            r.push_back(x);
            x.clear();
        } else x += d;
    r.push_back(x);
    return r;
}
static string trim(const string &s) {
    size_t a = s.find_first_not_of(" \t\r\n"), b = s.find_last_not_of(" \t\r\n");
    return a == string::npos ? "" : s.substr(a, b - a + 1);
}
static bool parsetype(const string &s, Type *t) {
    static const map<string, Type> m = {{"u8", {'u', 8}},    {"u16", {'u', 16}}, {"u32", {'u', 32}},    {"u64", {'u', 64}},
                                        {"s8", {'s', 8}},    {"s16", {'s', 16}}, {"s32", {'s', 32}},    {"s64", {'s', 64}},
                                        {"b8", {'b', 8}},    {"b16", {'b', 16}}, {"b32", {'b', 32}},    {"b64", {'b', 64}},
                                        {"f16", {'h', 16}},  {"f32", {'f', 32}}, {"f64", {'f', 64}},    {"bf16", {'B', 16}},
                                        {"tf32", {'t', 32}}, {"pred", {'p', 1}}, {"bf16x2", {'X', 32}}, {"f16x2", {'H', 32}}};
    auto it = m.find(s);
    if (it == m.end()) return false;
    *t = it->second;
    return true;
}
static int reg(Kernel *k, const string &n) {
    auto it = k->regs.find(n);
    if (it != k->regs.end()) return it->second;
    return -1;
}
static u64 parsenum(const string &s) {
    bool neg = s[0] == '-';
    string t = neg ? s.substr(1) : s;
    u64 v;
    if (t.size() > 2 && t[0] == '0' && (t[1] == 'f' || t[1] == 'F')) v = strtoull(t.c_str() + 2, 0, 16);
    else if (t.size() > 2 && t[0] == '0' && (t[1] == 'd' || t[1] == 'D')) v = strtoull(t.c_str() + 2, 0, 16);
    else v = strtoull(t.c_str(), 0, 0);
    return neg ? (u64) - (s64)v : v;
}
static Opnd operand(Kernel *k, string s) {
    Opnd o;
    o.k = 'n';
    o.r = -1;
    o.imm = 0;
    o.r2 = -1;
    s = trim(s);
    if (s.empty()) fatal("empty operand");
    if (s[0] == '{') {
        o.k = 'v';
        int d = 0;
        string x;
        for (size_t i = 1; i + 1 < s.size(); i++) {
            if (s[i] == ',' && !d) {
                o.v.push_back(operand(k, x));
                x.clear();
            } else x += s[i];
        }
        o.v.push_back(operand(k, x));
        return o;
    }
    if (s[0] == '[') {
        o.k = 'a';
        string b = trim(s.substr(1, s.size() - 2)), base = b;
        s64 off = 0;
        size_t p = b.find_last_of("+");
        if (p != string::npos && p) {
            base = trim(b.substr(0, p));
            off = (s64)parsenum(trim(b.substr(p + 1)));
        }
        o.imm = (u64)off;
        o.r = reg(k, base);
        if (o.r < 0) {
            if (isdigit(base[0])) o.imm += parsenum(base);
            else o.s = base;
        }
        return o;
    }
    size_t bar = s.find('|');
    if (bar != string::npos) {
        o = operand(k, s.substr(0, bar));
        Opnd q = operand(k, s.substr(bar + 1));
        o.r2 = q.r;
        return o;
    }
    bool neg = s[0] == '!';
    if (neg) s = s.substr(1);
    int r = reg(k, s);
    if (r >= 0) {
        o.k = 'r';
        o.r = r;
        o.imm = neg;
        return o;
    }
    if (s == "_") {
        o.k = 'r';
        o.r = 0;
        return o;
    }
    if (s[0] == '%') {
        o.k = 's';
        o.s = s;
        static const char *sp[] = {"%tid.x",          "%tid.y",
                                   "%tid.z",          "%ntid.x",
                                   "%ntid.y",         "%ntid.z",
                                   "%ctaid.x",        "%ctaid.y",
                                   "%ctaid.z",        "%nctaid.x",
                                   "%nctaid.y",       "%nctaid.z",
                                   "%laneid",         "%warpid",
                                   "%smid",           "%clock",
                                   "%clock64",        "%lanemask_lt",
                                   "%lanemask_le",    "%lanemask_eq",
                                   "%lanemask_ge",    "%lanemask_gt",
                                   "%globaltimer",    "%nsmid",
                                   "%nwarpid",        "%dynamic_smem_size",
                                   "%total_smem_size"};
        for (int i = 0; i < (int)(sizeof sp / sizeof *sp); i++)
            if (s == sp[i]) {
                o.r = i;
                return o;
            }
        fatal("special register " + s);
    }
    if (s == "WARP_SZ") {
        o.k = 'i';
        o.imm = 32;
        return o;
    }
    if (isdigit(s[0]) || s[0] == '-') {
        o.k = 'i';
        o.imm = parsenum(s);
        return o;
    }
    o.s = s;
    size_t p = s.find('+');
    if (p != string::npos) {
        o.s = s.substr(0, p);
        o.imm = parsenum(s.substr(p + 1));
    }
    return o;
}
static vector<string> opsplit(const string &s) {
    vector<string> r;
    string x;
    int d = 0;
    for (char c : s) {
        if (c == '{' || c == '[' || c == '(') d++;
        if (c == '}' || c == ']' || c == ')') d--;
        if (c == ',' && !d) {
            r.push_back(x);
            x.clear();
        } else x += c;
    }
    if (!trim(x).empty()) r.push_back(x);
    return r;
}
static int relation_of(const string &mod) { /* ".ltu.and.ftz.f32": of its first word */
    static const map<string, int> words = {{"eq", IS_EQ}, {"ne", IS_NE}, {"lt", IS_LT}, {"lo", IS_LT}, {"le", IS_LE}, {"ls", IS_LE},
                                           {"gt", IS_GT}, {"hi", IS_GT}, {"ge", IS_GE}, {"hs", IS_GE}, {"num", IS_NUM}, {"nan", IS_NAN}};
    string c = mod.substr(1, mod.find('.', 1) == string::npos ? string::npos : mod.find('.', 1) - 1);
    bool or_nan = c.size() == 3 && c[2] == 'u';
    auto it = words.find(or_nan ? c.substr(0, 2) : c);
    if (it == words.end()) fatal("comparison not known: " + mod);
    return it->second | (or_nan ? OR_NAN : 0);
}
static void instr(Kernel *k, string s, int line) {
    Ins in;
    in.pred = -1;
    in.pneg = false;
    in.fl = 0;
    in.sp = GEN;
    in.nvec = 1;
    in.line = line;
    in.target = -1;
    in.cnt = 0;
    in.relation = in.join = 0;
    in.t = {'b', 32};
    in.t2 = {0, 0};
    in.text = s;
    for (char &c : in.text)
        if (c == '\n' || c == '\t') c = ' ';
    if (s[0] == '@') {
        size_t e = s.find_first_of(" \t");
        string p = s.substr(1, e - 1);
        if (p[0] == '!') {
            in.pneg = true;
            p = p.substr(1);
        }
        in.pred = reg(k, p);
        if (in.pred < 0) fatal("predicate " + p);
        s = trim(s.substr(e));
    }
    size_t e = s.find_first_of(" \t\n");
    string opc = e == string::npos ? s : s.substr(0, e), rest = e == string::npos ? "" : trim(s.substr(e));
    vector<string> p = split(opc, '.');
    string b = p[0];
    int nt = 0;
    for (size_t i = 1; i < p.size(); i++) {
        const string &q = p[i];
        Type t;
        if (parsetype(q, &t)) {
            if (!nt) in.t = t;
            else if (nt == 1) in.t2 = t;
            nt++;
            if (b == "mma") in.mod += "." + q;
            continue;
        }
        if (q == "ftz") in.fl |= F_FTZ;
        else if (q == "hi") in.fl |= F_HI;
        else if (q == "lo") in.fl |= F_LO;
        else if (q == "wide") in.fl |= F_WIDE;
        else if (q == "sat") in.fl |= F_SAT;
        else if (q == "rni") in.fl |= F_RNI;
        else if (q == "rzi") in.fl |= F_RZI;
        else if (q == "rmi") in.fl |= F_RMI;
        else if (q == "rpi") in.fl |= F_RPI;
        else if (q == "rz") in.fl |= F_RZ;
        else if (q == "rm") in.fl |= F_RM;
        else if (q == "rp") in.fl |= F_RP;
        else if (q == "approx") in.fl |= F_APPROX;
        else if (q == "uni") in.fl |= F_UNI;
        else if (q == "trans") in.fl |= F_TRANS;
        else if (q == "to") in.fl |= F_TO;
        else if (q == "NaN") in.fl |= F_NAN;
        else if (q == "relu") in.fl |= F_RELU;
        else if (q == "rn") {
        } else if (q == "global") {
            in.sp = GLOBAL;
            in.mod += "." + q;
        } else if (q == "shared" || q == "shared::cta") {
            if (b != "cp" || in.sp == GEN) in.sp = SHARED;
            in.mod += "." + q;
        } else if (q == "local") in.sp = LOCAL;
        else if (q == "param" || q == "param::entry" || q == "param::func") in.sp = PARAM;
        else if (q == "const") in.sp = CONSTS;
        else if (q == "v2") in.nvec = 2;
        else if (q == "v4") in.nvec = 4;
        else if (q == "v8") in.nvec = 8;
        else if (q == "x1") in.nvec = 1;
        else if (q == "x2") in.nvec = 2;
        else if (q == "x4") in.nvec = 4;
        else in.mod += "." + q;
        if (q == "volatile" || q == "acquire" || q == "release" || q == "relaxed") in.fl |= F_SYNC;
    }
    static const map<string, Op> ops = {{"mov", MOV},
                                        {"ld", LD},
                                        {"ldu", LD},
                                        {"st", ST},
                                        {"add", ADD},
                                        {"sub", SUB},
                                        {"mul", MUL},
                                        {"mad", MAD},
                                        {"fma", MAD},
                                        {"div", DIV},
                                        {"rem", REM},
                                        {"neg", NEG},
                                        {"abs", ABS},
                                        {"min", MIN},
                                        {"max", MAX},
                                        {"sqrt", SQRT},
                                        {"rsqrt", RSQRT},
                                        {"rcp", RCP},
                                        {"ex2", EX2},
                                        {"lg2", LG2},
                                        {"sin", SIN},
                                        {"cos", COS},
                                        {"tanh", TANH},
                                        {"copysign", COPYSIGN},
                                        {"and", AND},
                                        {"or", OR},
                                        {"xor", XOR},
                                        {"not", NOT},
                                        {"shl", SHL},
                                        {"shr", SHR},
                                        {"bfe", BFE},
                                        {"bfi", BFI},
                                        {"brev", BREV},
                                        {"popc", POPC},
                                        {"clz", CLZ},
                                        {"bfind", BFIND},
                                        {"prmt", PRMT},
                                        {"shf", SHF},
                                        {"lop3", LOP3},
                                        {"setp", SETP},
                                        {"selp", SELP},
                                        {"slct", SLCT},
                                        {"cvt", CVT},
                                        {"cvta", CVTA},
                                        {"bra", BRA},
                                        {"brx", BRX},
                                        {"ret", RET},
                                        {"exit", RET},
                                        {"bar", BAR},
                                        {"barrier", BAR},
                                        {"shfl", SHFL},
                                        {"vote", VOTE},
                                        {"activemask", ACTIVEMASK},
                                        {"redux", REDUX},
                                        {"atom", ATOM},
                                        {"red", RED},
                                        {"membar", FENCE},
                                        {"fence", FENCE},
                                        {"mma", MMA},
                                        {"ldmatrix", LDMATRIX},
                                        {"call", CALL},
                                        {"trap", TRAP},
                                        {"nanosleep", NOP},
                                        {"prefetch", NOP},
                                        {"prefetchu", NOP},
                                        {"discard", NOP},
                                        {"mul24", MUL24}};
    if (b == "cp") {
        if (in.mod.find("async") == string::npos) fatal(s);
        in.op = in.mod.find("commit") != string::npos ? CPCOMMIT : in.mod.find("wait") != string::npos ? CPWAIT : CPASYNC;
        if (in.mod.find("bulk") != string::npos) fatal("cp.async.bulk: " + s);
    } else {
        auto it = ops.find(b);
        if (it == ops.end()) fatal("instruction not known: " + s);
        in.op = it->second;
    }
    if (in.op == SETP) {
        in.relation = relation_of(in.mod);
        in.join = in.mod.find(".and") != string::npos ? JOIN_AND : in.mod.find(".xor") != string::npos ? JOIN_XOR : JOIN_OR;
    }
    if (in.op == BAR && in.mod.find("warp") != string::npos) in.op = BARWARP;
    if (in.op == CALL) {
        in.o.clear();
        in.mod = rest;
        k->code.push_back(in);
        return;
    }
    if (in.op == BRX) {
        vector<string> v = opsplit(rest);
        in.o.push_back(operand(k, v[0]));
        in.mod = trim(v[1]);
        k->code.push_back(in);
        return;
    }
    for (auto &x : opsplit(rest)) in.o.push_back(operand(k, x));
    k->code.push_back(in);
}
static size_t vardecl(const string &d, string *name, size_t *align, vector<u64> *init,
                      int *esz) { /* ".shared .align 4 .b8 x[32] = {1,2}" -> size in bytes */
    string s = d, iv;
    size_t eq = s.find('=');
    if (eq != string::npos) {
        iv = trim(s.substr(eq + 1));
        s = s.substr(0, eq);
    }
    *align = 0;
    bool ptr = false;
    Type t = {'b', 8};
    size_t n = 1; /* .ptr: the alignment after it is the pointee's */
    size_t br = s.find('[');
    if (br != string::npos) {
        string c = s.substr(br + 1, s.find(']', br) - br - 1);
        n = trim(c).empty() ? 0 : strtoull(c.c_str(), 0, 0);
        s = s.substr(0, br);
    }
    vector<string> w;
    {
        string x;
        for (char c : s + " ")
            if (isspace((unsigned char)c)) {
                if (!x.empty()) w.push_back(x);
                x.clear();
            } else x += c;
    }
    for (size_t i = 0; i < w.size(); i++) {
        if (w[i] == ".ptr") {
            ptr = true;
            continue;
        }
        if (w[i] == ".align") {
            size_t al = strtoull(w[++i].c_str(), 0, 0);
            if (!ptr) *align = al;
            continue;
        }
        if (w[i][0] == '.') {
            Type q;
            if (parsetype(w[i].substr(1), &q)) t = q;
        }
    }
    *name = w.back();
    *esz = t.bits / 8;
    if (!*align) *align = (size_t)*esz;
    if (!iv.empty() && init) {
        if (iv[0] == '{') iv = iv.substr(1, iv.find('}') - 1);
        for (auto &x : split(iv, ','))
            if (!trim(x).empty()) {
                string q = trim(x);
                init->push_back(isdigit(q[0]) || q[0] == '-' ? parsenum(q) : 0);
            }
    }
    return n * (size_t)*esz;
}
static void place(Kernel *k, const string &d) {
    string n;
    size_t al;
    int es;
    size_t sz = vardecl(d, &n, &al, 0, &es);
    Var v;
    v.size = sz;
    bool sh = d.find(".shared") != string::npos, pr = d.find(".param") != string::npos;
    (void)pr;
    size_t *top = sh ? &k->shbytes : &k->locbytes;
    *top = (*top + al - 1) / al * al;
    v.off = *top;
    v.sp = sh ? SHARED : LOCAL;
    *top += sz;
    k->vars[n] = v;
}
static void parse_module(const string &src0) {
    string src;
    for (size_t i = 0; i < src0.size(); i++) {
        if (src0[i] == '/' && src0[i + 1] == '/') {
            while (i < src0.size() && src0[i] != '\n') i++;
            src += '\n';
        } else if (src0[i] == '/' && src0[i + 1] == '*') {
            i = src0.find("*/", i) + 1;
        } else src += src0[i];
    }
    size_t p = 0;
    Kernel *k = 0;
    int depth = 0, line = 0, fdepth = 0;
    bool skipfn = false;
    auto ws = [&]() {
        while (p < src.size() && isspace((unsigned char)src[p])) p++;
    };
    auto upto = [&](char c) {
        size_t e = p;
        int q = 0;
        while (e < src.size() && (src[e] != c || q)) {
            if (src[e] == '"') q = !q;
            e++;
        }
        string r = src.substr(p, e - p);
        p = e + 1;
        return r;
    };
    for (;;) {
        ws();
        if (p >= src.size()) break;
        char c = src[p];
        if (c == '{') {
            depth++;
            p++;
            continue;
        }
        if (c == '}') {
            depth--;
            p++;
            if (k && depth == fdepth) {
                for (auto &in : k->code) {
                    if (in.op == BRA) {
                        auto it = k->labels.find(in.o[0].s);
                        if (it == k->labels.end()) fatal("label " + in.o[0].s);
                        in.target = it->second;
                    }
                    if (in.op == BRX)
                        for (auto &l : k->brt[in.mod]) in.targets.push_back(k->labels[l]);
                }
                if (!skipfn) kernels[k->name] = k;
                k = 0;
                skipfn = false;
            }
            continue;
        }
        if (c == '.') {
            size_t e = p;
            while (e < src.size() && !isspace((unsigned char)src[e])) e++;
            string d = src.substr(p, e - p);
            if (d == ".version" || d == ".target" || d == ".address_size" || d == ".file") {
                upto('\n');
                continue;
            }
            if (d == ".loc") {
                string l = upto('\n');
                int f = 0;
                sscanf(l.c_str(), ".loc %d %d", &f, &line);
                continue;
            }
            if (d == ".section") {
                upto('{');
                int q = 1;
                while (q && p < src.size()) {
                    if (src[p] == '{') q++;
                    if (src[p] == '}') q--;
                    p++;
                }
                continue;
            }
            size_t semi = src.find(';', p), br = src.find('{', p);
            string head = src.substr(p, std::min(semi, br) - p);
            bool fn = head.find(".entry") != string::npos || head.find(".func") != string::npos;
            if (fn) {
                if (semi < br) {
                    upto(';');
                    continue;
                } /* a declaration */
                k = new Kernel();
                k->parambytes = k->shbytes = k->locbytes = 0;
                k->nregs = 1;
                k->dyn = false;
                k->regs.clear();
                fdepth = depth;
                line = 0;
                skipfn = head.find(".entry") == string::npos;
                if (skipfn) k->name = "func";
                else {
                    size_t q = head.find(".entry") + 6;
                    while (isspace((unsigned char)head[q])) q++;
                    size_t r = q;
                    while (r < head.size() && !isspace((unsigned char)head[r]) && head[r] != '(') r++;
                    k->name = head.substr(q, r - q);
                    size_t a = head.find('(', r), z = head.find(')', r);
                    if (a != string::npos)
                        for (auto &x : split(head.substr(a + 1, z - a - 1), ','))
                            if (!trim(x).empty()) {
                                string n;
                                size_t al;
                                int es;
                                size_t sz = vardecl(trim(x), &n, &al, 0, &es);
                                k->parambytes = (k->parambytes + al - 1) / al * al;
                                Var v;
                                v.off = k->parambytes;
                                v.size = sz;
                                v.sp = PARAM;
                                k->parambytes += sz;
                                k->params.push_back(std::make_pair(n, v));
                                k->vars[n] = v;
                            }
                }
                p = br;
                continue;
            }
            string st = upto(';');
            if (!k) {
                if (d == ".pragma" || d == ".alias") continue;
                string n;
                size_t al;
                int es;
                vector<u64> init;
                size_t sz = vardecl(st, &n, &al, &init, &es);
                if (st.find(".shared") != string::npos) {
                    if (!sz) dynname = n;
                    shglobals[n] = sz;
                    continue;
                }
                if (st.find(".global") != string::npos || st.find(".const") != string::npos) {
                    if (globals.count(n)) continue;
                    Var v;
                    v.size = sz;
                    v.sp = GLOBAL;
                    v.off = amalloc(sz ? sz : 1);
                    nvars++;
                    varstop = atop;
                    bool o = aopen;
                    aprot(true);
                    memset((void *)v.off, 0, sz);
                    for (size_t i = 0; i < init.size() && i * (size_t)es < sz; i++)
                        memcpy((char *)v.off + i * (size_t)es, &init[i], (size_t)es);
                    memset(ashadow + (v.off - (u64)arena), 1, sz);
                    aprot(o);
                    globals[n] = v;
                    continue;
                }
                continue;
            }
            if (d == ".reg") {
                string x = trim(st.substr(4));
                size_t q = x.find_first_of(" \t");
                string names = x.substr(q);
                if (trim(x.substr(0, q)) == ".v2" || trim(x.substr(0, q)) == ".v4") fatal("vector registers");
                for (auto &nm : split(names, ',')) {
                    string n = trim(nm);
                    size_t lt = n.find('<');
                    if (lt == string::npos) {
                        if (!k->regs.count(n)) k->regs[n] = k->nregs++;
                    } else {
                        int cnt = atoi(n.c_str() + lt + 1);
                        string b = n.substr(0, lt);
                        for (int i = 0; i < cnt; i++) {
                            string r = b + std::to_string(i);
                            if (!k->regs.count(r)) k->regs[r] = k->nregs++;
                        }
                    }
                }
            } else if (d == ".shared" || d == ".local" || d == ".param") place(k, st);
            continue;
        }
        size_t e = p;
        while (e < src.size() && (isalnum((unsigned char)src[e]) || src[e] == '_' || src[e] == '$' || src[e] == '%')) e++;
        size_t f = e;
        while (f < src.size() && isspace((unsigned char)src[f])) f++;
        if (k && src[f] == ':' && src[f + 1] != ':') {
            string l = src.substr(p, e - p);
            k->labels[l] = (int)k->code.size();
            p = f + 1;
            ws();
            if (src.compare(p, 14, ".branchtargets") == 0) {
                p += 14;
                for (auto &x : split(upto(';'), ',')) k->brt[l].push_back(trim(x));
            }
            continue;
        }
        string st = trim(upto(';'));
        if (!k || st.empty()) continue;
        if (!skipfn) instr(k, st, line);
    }
}

/* ---------------- interpreter ---------------- */
static const u64 GSH = 0x100000000000ull, GLO = 0x200000000000ull, GPA = 0x300000000000ull; /* generic windows: shared, local, parameters */
struct Copy {
    u64 dst, src;
    u32 n, ns;
};
struct Th {
    int pc, st, lane, warp, lin;
    u32 tid[3];
    u64 *R;
    char *loc;
    u8 *locsh;
    u32 mask;
    int barid, barcnt;
    vector<vector<Copy>> grp;
    vector<Copy> open;
    bool done;
};
struct Acc {
    int lane;
    u64 a;
    int n;
};
struct Prof {
    u64 req, sect, ideal, ways, wmax, bytes;
};
struct Run {
    Kernel *k;
    dim3 g, b;
    u32 bid[3];
    char *param;
    size_t dyn;
    vector<Th> th;
    vector<char> sh;
    vector<u8> shinit;
    vector<Sh> shrace;
    u32 bepoch;
    vector<u32> wepoch;
    u32 launch;
    bool dead;
    bool prof, count;
    map<std::pair<int, int>, vector<vector<Acc>>> acc;
    vector<u32> occ;
    long blk;
};
static Run *R;
static u32 launchno;
static int chk_race;
static bool chk_init;
static map<string, map<int, Prof>> profs;
static map<string, map<string, u64>> counts;
static u64 bytes_asked, sectors_once;
static u32 *sector_read, *sector_written;                /* the launch that did so last */
static map<string, long> nlaunch;
static map<string, std::pair<size_t, int>> largest;      /* dynamic shared memory, threads of a block */

static void complain(Th *t, const Ins *in, const char *fmt, ...) {
    static map<std::pair<Kernel *, const Ins *>, int> said;
    n_err++;
    R->dead = true;
    if (said[std::make_pair(R->k, in)]++ > 1 || said.size() > 100) return;
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "ptxsim: ");
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\n  kernel %s block (%u,%u,%u) thread (%u,%u,%u)%s%s: %s\n", R->k->name.c_str(), R->bid[0], R->bid[1], R->bid[2],
            t->tid[0], t->tid[1], t->tid[2], in && in->line ? " line " : "", in && in->line ? std::to_string(in->line).c_str() : "",
            in ? in->text.c_str() : "");
}
static inline float f32(u64 v) {
    u32 u = (u32)v;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline double f64(u64 v) {
    double d;
    memcpy(&d, &v, 8);
    return d;
}
static inline u64 uf(float f) {
    u32 u;
    memcpy(&u, &f, 4);
    return u;
}
static inline u64 ud(double d) {
    u64 u;
    memcpy(&u, &d, 8);
    return u;
}
static float h2f(u16 h) {
    u32 s = (u32)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return f32(s | 0x7f800000u | m << 13);
    if (!e) {
        float f = (float)m * 5.9604644775390625e-8f;
        return s ? -f : f;
    }
    return f32(s | (e + 112) << 23 | m << 13);
}
static u16 f2h(float f) {
    _Float16 h = (_Float16)f;
    u16 u;
    memcpy(&u, &h, 2);
    return u;
}
static float b2f(u16 h) { return f32((u32)h << 16); }
static u16 f2b(float f) {
    u32 u = (u32)uf(f);
    if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return (u16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static inline float ftz(float f, u32 fl) { return (fl & F_FTZ) && fabsf(f) < 1.17549435e-38f ? copysignf(0, f) : f; }
static inline u64 mask(u64 v, int b) { return b >= 64 ? v : v & ((1ull << b) - 1); }
static inline s64 sx(u64 v, int b) { return b >= 64 ? (s64)v : (s64)(v << (64 - b)) >> (64 - b); }

static u64 symaddr(Th *t, const Ins *in, const string &s, Space *sp) {
    auto it = R->k->vars.find(s);
    if (it != R->k->vars.end()) {
        *sp = it->second.sp;
        return it->second.off;
    }
    auto g = globals.find(s);
    if (g != globals.end()) {
        *sp = GLOBAL;
        return g->second.off;
    }
    auto h = shglobals.find(s);
    if (h != shglobals.end()) {
        *sp = SHARED;
        size_t off = (R->k->shbytes + 15) / 16 * 16;
        if (h->second) fatal("module-level .shared variable with a size: " + s);
        return off;
    }
    (void)t;
    fatal("symbol " + s + " in " + in->text);
}
static __attribute__((noinline)) u64 get_other(Th *t, const Ins *in, const Opnd &o) {
    switch (o.k) {
        case 's':
            switch (o.r) {
                case 0:
                case 1:
                case 2: return t->tid[o.r];
                case 3: return R->b.x;
                case 4: return R->b.y;
                case 5: return R->b.z;
                case 6:
                case 7:
                case 8: return R->bid[o.r - 6];
                case 9: return R->g.x;
                case 10: return R->g.y;
                case 11: return R->g.z;
                case 12: return (u64)t->lane;
                case 13: return (u64)t->warp;
                case 17: return (1u << t->lane) - 1;
                case 18: return (u32)((2ull << t->lane) - 1);
                case 19: return 1u << t->lane;
                case 20: return ~((1u << t->lane) - 1);
                case 21: return ~(u32)((2ull << t->lane) - 1);
                case 23: return 132;
                case 25: return R->dyn;
                default: return 0;
            }
        case 'n': {
            Space sp;
            return symaddr(t, in, o.s, &sp) + o.imm;
        }
    }
    fatal("operand in " + in->text);
}
static inline __attribute__((always_inline)) u64 get(Th *t, const Ins *in, const Opnd &o) {
    if (o.k == 'r') return o.imm ? !t->R[o.r] : t->R[o.r];
    return o.k == 'i' ? (u64)o.imm : get_other(t, in, o);
}
/* one access: check and give the host address, or 0 */
static void race(Th *t, const Ins *in, Sh *s, bool wr, bool atomic, bool shared, u64 a) {
    u32 me = (u32)(R->blk * 1024 + t->lin) + 1, base = R->launch << 12, be = base + (R->bepoch & 0xfff);
    auto conflict = [&](u32 other, u32 oe) {
        if (!other || other == me || (oe >> 12) != R->launch) return false;
        u32 ob = (other - 1) / 1024, ol = (other - 1) % 1024;
        if (ob != (u32)R->blk) return !shared && chk_race == 1;
        if (oe != be) return false;
        if ((int)ol / 32 == t->warp) return false; /* same warp and same barrier epoch: left to __syncwarp checks (see wepoch) */
        return true;
    };
    u32 id = atomic ? 0 : me;
    if (wr) {
        if (conflict(s->w, s->we)) {
            complain(t, in, "data race: two threads write %s+0x%llx without a barrier", shared ? "shared" : "global",
                     (unsigned long long)a);
            return;
        }
        if (conflict(s->r, s->re)) {
            complain(t, in, "data race: write to %s+0x%llx that another thread reads", shared ? "shared" : "global", (unsigned long long)a);
            return;
        }
        s->w = id;
        s->we = be;
    } else {
        if (conflict(s->w, s->we)) {
            complain(t, in, "data race: read of %s+0x%llx that another thread writes", shared ? "shared" : "global", (unsigned long long)a);
            return;
        }
        if (!atomic && !(s->r && s->re == be && s->r != me && (s->r - 1) / 1024 == (u32)R->blk)) {
            s->r = me;
            s->re = be;
        }
    }
}
static char *access(Th *t, const Ins *in, Space sp, u64 a, int n, bool wr, bool atomic = false, bool quiet = false) {
    if (sp == GEN) {
        if (a >= GSH && a < GSH + (1ull << 32)) {
            sp = SHARED;
            a -= GSH;
        } else if (a >= GLO && a < GLO + (1ull << 32)) {
            sp = LOCAL;
            a -= GLO;
        } else if (a >= GPA && a < GPA + (1ull << 32)) {
            sp = PARAM;
            a -= GPA;
        } else sp = GLOBAL;
    }
    if (a % (u64)n) {
        complain(t, in, "address 0x%llx is not aligned to %d bytes", (unsigned long long)a, n);
        return 0;
    }
    if (R->prof && !quiet && (sp == GLOBAL || sp == SHARED)) {
        int pc = (int)(in - &R->k->code[0]);
        u32 &oc = R->occ[(size_t)t->lin * R->k->code.size() + (size_t)pc];
        auto &v = R->acc[std::make_pair(t->warp, pc)];
        if (v.size() <= oc) v.resize(oc + 1);
        Acc ac = {t->lane, a, n};
        v[oc].push_back(ac);
        oc++;
    }
    switch (sp) {
        case SHARED: {
            if (a + (u64)n > R->sh.size()) {
                complain(t, in, "shared address 0x%llx is behind the %zu bytes the block has", (unsigned long long)a, R->sh.size());
                return 0;
            }
            if (wr) memset(&R->shinit[a], 1, (size_t)n);
            else if (chk_init)
                for (int i = 0; i < n; i++)
                    if (!R->shinit[a + (u64)i]) {
                        complain(t, in, "shared memory is read before it is written (0x%llx)", (unsigned long long)a);
                        return 0;
                    }
            if (chk_race)
                for (int i = 0; i < n; i += 4) race(t, in, n < 4 ? &R->shrace[R->sh.size() / 4 + 1 + a] : &R->shrace[(a + (u64)i) / 4], wr, atomic, true, a);
            return &R->sh[a];
        }
        case LOCAL:
            if (a + (u64)n > R->k->locbytes) {
                complain(t, in, "local address 0x%llx is outside the frame", (unsigned long long)a);
                return 0;
            }
            if (wr) memset(t->locsh + a, 1, (size_t)n);
            return t->loc + a;
        case PARAM:
        case CONSTS:
            if (sp == CONSTS) break;
            if (a + (u64)n > R->k->parambytes) {
                complain(t, in, "parameter address");
                return 0;
            }
            return R->param + a;
        default: break;
    }
    static u64 lb, le;
    static u32 ll;
    if (ll != R->launch || a < lb || a + (u64)n > le) {
        auto it = live.upper_bound(a);
        if (it == live.begin() || (--it, a + (u64)n > it->first + it->second)) {
            complain(t, in, "global address 0x%llx (%d bytes) is outside every allocation", (unsigned long long)a, n);
            return 0;
        }
        lb = it->first;
        le = lb + it->second;
        ll = R->launch;
    }
    if (guard_now && !allowed(a, (size_t)n)) {
        complain(t, in, "global address 0x%llx (%d bytes) belongs to no tensor of this call", (unsigned long long)a, n);
        return 0;
    }
    u64 off = a - (u64)arena;
    if (R->count) {
        u32 &last = (wr ? sector_written : sector_read)[off / 32];
        bytes_asked += (u64)n;
        if (last != R->launch) { last = R->launch; sectors_once++; }
    }
    if (wr) memset(ashadow + off, 1, (size_t)n);
    else if (chk_init)
        for (int i = 0; i < n; i++)
            if (!ashadow[off + (u64)i]) {
                complain(t, in, "global memory is read before it is written (0x%llx)", (unsigned long long)a);
                return 0;
            }
    if (chk_race)
        for (int i = 0; i < n; i += 4) race(t, in, n < 4 ? &grace[acap / 4 + off] : &grace[(off + (u64)i) / 4], wr, atomic, false, off);
    return (char *)a;
}
static u64 loadv(char *p, Type t) {
    u64 v = 0;
    memcpy(&v, p, (size_t)t.bits / 8);
    return t.k == 's' ? (u64)sx(v, t.bits) : v;
}
static u64 addr(Th *t, const Ins *in, const Opnd &o, Space *sp) {
    if (o.r >= 0) return t->R[o.r] + o.imm;
    if (o.s.empty()) return o.imm;
    Space q;
    u64 a = symaddr(t, in, o.s, &q);
    if (*sp == GEN || *sp == CONSTS || *sp == PARAM) *sp = q;
    return a + o.imm;
}

static u64 alu(Op op, Type t, u64 a, u64 b, u64 c, u32 fl, const Ins *in) {
    if (t.k == 'f' && t.bits == 32) {
        float x = ftz(f32(a), fl), y = ftz(f32(b), fl), z = ftz(f32(c), fl), r;
        switch (op) {
            case ADD: r = x + y; break;
            case SUB: r = x - y; break;
            case MUL: r = x * y; break;
            case MAD: r = fmaf(x, y, z); break;
            case DIV: r = x / y; break;
            case NEG: r = -x; break;
            case ABS: r = fabsf(x); break;
            case MIN: r = (fl & F_NAN) && (x != x || y != y) ? NAN : fminf(x, y); break;
            case MAX: r = (fl & F_NAN) && (x != x || y != y) ? NAN : fmaxf(x, y); break;
            case SQRT: r = sqrtf(x); break;
            case RSQRT: r = 1.0f / sqrtf(x); break;
            case RCP: r = 1.0f / x; break;
            case EX2: r = exp2f(x); break;
            case LG2: r = log2f(x); break;
            case SIN: r = sinf(x); break;
            case COS: r = cosf(x); break;
            case TANH: r = tanhf(x); break;
            case COPYSIGN: r = copysignf(y, x); break;
            default: fatal(in->text);
        }
        r = ftz(r, fl);
        if (fl & F_SAT) r = r != r ? 0 : r < 0 ? 0 : r > 1 ? 1 : r;
        if ((fl & F_RELU) && !(r > 0)) r = 0;
        return uf(r);
    }
    if (t.k == 'f') {
        double x = f64(a), y = f64(b), z = f64(c), r;
        switch (op) {
            case ADD: r = x + y; break;
            case SUB: r = x - y; break;
            case MUL: r = x * y; break;
            case MAD: r = fma(x, y, z); break;
            case DIV: r = x / y; break;
            case NEG: r = -x; break;
            case ABS: r = fabs(x); break;
            case MIN: r = fmin(x, y); break;
            case MAX: r = fmax(x, y); break;
            case SQRT: r = sqrt(x); break;
            case RSQRT: r = 1 / sqrt(x); break;
            case RCP: r = 1 / x; break;
            default: fatal(in->text);
        }
        return ud(r);
    }
    if (t.k == 'h' || t.k == 'B') {
        Type f = {'f', 32};
        bool h = t.k == 'h';
        u64 r = alu(op, f, uf(h ? h2f((u16)a) : b2f((u16)a)), uf(h ? h2f((u16)b) : b2f((u16)b)), uf(h ? h2f((u16)c) : b2f((u16)c)),
                    fl & ~F_FTZ, in);
        return h ? f2h(f32(r)) : f2b(f32(r));
    }
    if (t.k == 'H' || t.k == 'X') {
        Type q = {t.k == 'H' ? 'h' : 'B', 16};
        return (alu(op, q, a & 0xffff, b & 0xffff, c & 0xffff, fl, in) & 0xffff) |
               (alu(op, q, a >> 16 & 0xffff, b >> 16 & 0xffff, c >> 16 & 0xffff, fl, in) & 0xffff) << 16;
    }
    bool s = t.k == 's';
    int n = t.bits;
    u64 ua = mask(a, n), ub = mask(b, n);
    s64 sa = sx(a, n), sb = sx(b, n);
    switch (op) {
        case ADD: return mask(a + b, n);
        case SUB: return mask(a - b, n);
        case MUL:
        case MAD: {
            u64 r;
            if (fl & F_WIDE) {
                r = s ? (u64)(sa * sb) : ua * ub;
                if (op == MAD) r += c;
                return mask(r, n * 2);
            }
            if (fl & F_HI) {
                r = n == 64 ? (s ? (u64)((__int128)sa * sb >> 64) : (u64)((unsigned __int128)ua * ub >> 64))
                            : (s ? (u64)(sa * sb >> n) : ua * ub >> n);
            } else r = a * b;
            if (op == MAD) r += c;
            return mask(r, n);
        }
        case MUL24: return mask((u64)(sx(a, 24) * sx(b, 24)), 32);
        case DIV:
            if (!ub) return mask(~0ull, n);
            return s ? (sb == -1 ? mask((u64)-sa, n) : mask((u64)(sa / sb), n)) : ua / ub;
        case REM:
            if (!ub) return ua;
            return s ? (sb == -1 ? 0 : mask((u64)(sa % sb), n)) : ua % ub;
        case NEG: return mask((u64)-sa, n);
        case ABS: return mask((u64)(sa < 0 ? -sa : sa), n);
        case MIN: return s ? mask((u64)std::min(sa, sb), n) : std::min(ua, ub);
        case MAX: return s ? mask((u64)std::max(sa, sb), n) : std::max(ua, ub);
        case AND: return ua & ub;
        case OR: return ua | ub;
        case XOR: return ua ^ ub;
        case NOT: return t.k == 'p' ? !a : mask(~a, n);
        case SHL: return (u32)b >= (u32)n ? 0 : mask(a << (u32)b, n);
        case SHR: return s ? mask((u64)(sa >> ((u32)b >= (u32)n ? n - 1 : (int)b)), n) : ((u32)b >= (u32)n ? 0 : ua >> (u32)b);
        case POPC: return (u64)__builtin_popcountll(ua);
        case CLZ: return ua ? (u64)(__builtin_clzll(ua) - (64 - n)) : (u64)n;
        case BREV: {
            u64 r = 0;
            for (int i = 0; i < n; i++) r |= (ua >> i & 1) << (n - 1 - i);
            return r;
        }
        case BFIND: {
            u64 v = s && sa < 0 ? mask(~ua, n) : ua;
            return v ? (u64)(63 - __builtin_clzll(v)) : 0xffffffffu;
        }
        case BFE: {
            int pos = (int)(b & 255), len = (int)(c & 255);
            if (!len) return 0;
            u64 v = pos >= n ? 0 : ua >> pos;
            if (s && len < n) {
                int top = std::min(pos + len - 1, n - 1);
                u64 sg = ua >> top & 1;
                v = mask(v, len);
                if (sg) v |= ~((1ull << std::min(len, n - pos)) - 1);
                return mask(v, n);
            }
            return mask(v, std::min(len, n));
        }
        default: fatal(in->text);
    }
}
template <class T> static bool related(int r, T x, T y) {
    return r == IS_EQ ? x == y : r == IS_NE ? x != y : r == IS_LT ? x < y : r == IS_LE ? x <= y : r == IS_GT ? x > y : x >= y;
}
static bool compare(int relation, Type t, u64 a, u64 b, u32 fl) {
    int r = relation & ~OR_NAN;
    if (t.k == 'f' || t.k == 'h' || t.k == 'B') {
        double x = t.k == 'h'     ? h2f((u16)a)
                   : t.k == 'B'   ? b2f((u16)a)
                   : t.bits == 32 ? ftz(f32(a), fl)
                                  : f64(a),
               y = t.k == 'h'     ? h2f((u16)b)
                   : t.k == 'B'   ? b2f((u16)b)
                   : t.bits == 32 ? ftz(f32(b), fl)
                                  : f64(b);
        bool un = x != x || y != y;
        if (r == IS_NUM || r == IS_NAN) return un == (r == IS_NAN);
        return un ? (relation & OR_NAN) != 0 : related(r, x, y);
    }
    if (t.k == 's') return related(r, sx(a, t.bits), sx(b, t.bits));
    return related(r, mask(a, t.bits), mask(b, t.bits));
}
static u64 convert(Type d, Type s, u64 a, u32 fl, const Ins *in) {
    bool sf = s.k == 'f' || s.k == 'h' || s.k == 'B', df = d.k == 'f' || d.k == 'h' || d.k == 'B' || d.k == 't';
    if (sf && df) {
        double x = s.k == 'h' ? h2f((u16)a) : s.k == 'B' ? b2f((u16)a) : s.bits == 32 ? ftz(f32(a), fl) : f64(a);
        if (fl & F_RNI) x = nearbyint(x);
        if (fl & F_RZI) x = trunc(x);
        if (fl & F_RMI) x = floor(x);
        if (fl & F_RPI) x = ceil(x);
        if (fl & F_SAT) x = x != x ? 0 : x < 0 ? 0 : x > 1 ? 1 : x;
        if ((fl & F_RELU) && !(x > 0)) x = 0;
        if (d.k == 'h') return f2h((float)x);
        if (d.k == 'B') return f2b((float)x);
        if (d.k == 't') {
            u32 u = (u32)uf((float)x);
            u = (u + 0x1000) & 0xffffe000u;
            return u;
        }
        if (d.bits == 32) return uf(ftz((float)x, fl));
        return ud(x);
    }
    if (sf) {
        double x = s.k == 'h' ? h2f((u16)a) : s.k == 'B' ? b2f((u16)a) : s.bits == 32 ? ftz(f32(a), fl) : f64(a);
        if (x != x) return 0;
        x = (fl & F_RNI) ? nearbyint(x) : (fl & F_RMI) ? floor(x) : (fl & F_RPI) ? ceil(x) : trunc(x);
        if (d.k == 's') {
            double lo = -ldexp(1, d.bits - 1), hi = ldexp(1, d.bits - 1);
            s64 v = x < lo ? (s64)lo : x >= hi ? (s64)((1ull << (d.bits - 1)) - 1) : (s64)x;
            return mask((u64)v, d.bits);
        }
        double hi = ldexp(1, d.bits);
        return x <= 0 ? 0 : x >= hi ? mask(~0ull, d.bits) : (u64)x;
    }
    if (df) {
        double x;
        float xf;
        if (s.k == 's') {
            s64 v = sx(a, s.bits);
            x = (double)v;
            xf = (float)v;
        } else {
            u64 v = mask(a, s.bits);
            x = (double)v;
            xf = (float)v;
        }
        if (fl & (F_RZ | F_RM | F_RP)) {
            float f = (float)x;
            if ((fl & F_RZ) && fabs((double)f) > fabs(x)) f = nextafterf(f, 0);
            if ((fl & F_RM) && (double)f > x) f = nextafterf(f, -INFINITY);
            if ((fl & F_RP) && (double)f < x) f = nextafterf(f, INFINITY);
            xf = f;
        }
        return d.k == 'h' ? f2h(xf) : d.k == 'B' ? f2b(xf) : d.bits == 32 ? uf(xf) : ud(x);
    }
    u64 v = s.k == 's' ? (u64)sx(a, s.bits) : mask(a, s.bits);
    if (fl & F_SAT) {
        s64 q = (s64)v;
        if (d.k == 's') {
            s64 lo = -(1ll << (d.bits - 1)), hi = (1ll << (d.bits - 1)) - 1;
            q = std::max(lo, std::min(hi, q));
        } else {
            s64 hi = d.bits >= 63 ? INT64_MAX : (1ll << d.bits) - 1;
            if (s.k == 's') q = std::max((s64)0, q);
            q = std::min(q, hi);
        }
        v = (u64)q;
    }
    (void)in;
    v = mask(v, d.bits);
    return d.k == 's' ? (u64)sx(v, d.bits) : v;
}
static void atomic(Th *t, const Ins *in) {
    bool red = in->op == RED;
    int ai = red ? 0 : 1;
    Space sp = in->sp;
    u64 a = addr(t, in, in->o[(size_t)ai], &sp);
    int n = in->t.bits / 8;
    string m = in->mod;
    auto has = [&](const char *s) { return m.find(s) != string::npos; };
    char *p = access(t, in, sp, a, n, false, true);
    if (!p) return;
    if (!access(t, in, sp, a, n, true, true, true)) return;
    u64 old = 0;
    memcpy(&old, p, (size_t)n);
    u64 b = get(t, in, in->o[(size_t)ai + 1]), nw;
    Type ty = in->t;
    if (has(".cas")) {
        u64 c = get(t, in, in->o[(size_t)ai + 2]);
        nw = mask(old, ty.bits) == mask(b, ty.bits) ? c : old;
    } else if (has(".exch")) nw = b;
    else if (has(".inc")) nw = (u32)old >= (u32)b ? 0 : old + 1;
    else if (has(".dec")) nw = old == 0 || (u32)old > (u32)b ? b : old - 1;
    else if (has(".add")) nw = alu(ADD, ty, old, b, 0, 0, in);
    else if (has(".min")) nw = alu(MIN, ty, old, b, 0, 0, in);
    else if (has(".max")) nw = alu(MAX, ty, old, b, 0, 0, in);
    else if (has(".and")) nw = old & b;
    else if (has(".or")) nw = old | b;
    else if (has(".xor")) nw = old ^ b;
    else fatal(in->text);
    memcpy(p, &nw, (size_t)n);
    if (!red) t->R[in->o[0].r] = mask(old, ty.bits);
}
static void builtin_call(Th *t, const Ins *in) {
    const string &s = in->mod;
    if (s.find("__assertfail") != string::npos) {
        complain(t, in, "device assert failed");
        return;
    }
    if (s.find("vprintf") != string::npos) {
        auto arg = [&](const char *n) {
            u64 v = 0;
            auto it = R->k->vars.find(n);
            if (it == R->k->vars.end()) fatal(s);
            memcpy(&v, t->loc + it->second.off, 8);
            return v;
        };
        u64 f = arg("param0"), a = arg("param1");
        char *fmt = (char *)f, *buf = 0;
        if (a) buf = access(t, in, GEN, a, 1, false, false, true);
        size_t off = 0;
        string out;
        for (char *p = fmt; *p; p++) {
            if (*p != '%') {
                out += *p;
                continue;
            }
            string sp = "%";
            p++;
            while (*p && !isalpha((unsigned char)*p) && *p != '%') sp += *p++;
            bool l = false;
            while (*p == 'l' || *p == 'z') {
                l = true;
                p++;
            }
            if (*p == '%') {
                out += '%';
                continue;
            }
            char tmp[512];
            if (strchr("feEgG", *p)) {
                off = (off + 7) & ~7ull;
                double d;
                memcpy(&d, buf + off, 8);
                off += 8;
                snprintf(tmp, sizeof tmp, (sp + *p).c_str(), d);
            } else if (*p == 's') {
                off = (off + 7) & ~7ull;
                u64 q;
                memcpy(&q, buf + off, 8);
                off += 8;
                snprintf(tmp, sizeof tmp, "%s", (char *)q);
            } else if (l || *p == 'p') {
                off = (off + 7) & ~7ull;
                u64 q;
                memcpy(&q, buf + off, 8);
                off += 8;
                snprintf(tmp, sizeof tmp, (sp + "ll" + (*p == 'p' ? 'x' : *p)).c_str(), q);
            } else {
                off = (off + 3) & ~3ull;
                u32 q;
                memcpy(&q, buf + off, 4);
                off += 4;
                snprintf(tmp, sizeof tmp, (sp + *p).c_str(), q);
            }
            out += tmp;
        }
        fputs(out.c_str(), stdout);
        return;
    }
    fatal("call: " + in->text);
}
static void docopy(Th *t, const Ins *in, const Copy &c) {
    if (c.ns) {
        char *s = 0;
        for (u32 i = 0; i < c.ns; i += 4) {
            s = access(t, in, GLOBAL, c.src + i, 4, false);
            if (!s) return;
            char *d = access(t, in, SHARED, c.dst + i, 4, true);
            if (!d) return;
            memcpy(d, s, 4);
        }
    }
    for (u32 i = c.ns; i < c.n; i += 4) {
        char *d = access(t, in, SHARED, c.dst + i, 4, true);
        if (!d) return;
        memset(d, 0, 4);
    }
}
static int skipped_line = -1; /* barriers of this line of the source are left out: a mutant (mutants.c) */
/* run a thread until it waits or ends; st: 0 ready, 1 block barrier, 2 warp operation, 3 done */
static void step(Th *t) {
    Kernel *k = R->k;
    const Ins *code = k->code.data();
    int nc = (int)k->code.size();
    u64 *r = t->R;
    u64 budget = 2000000000ull;
    while (!R->dead) {
        if (t->pc >= nc) {
            t->st = 3;
            return;
        }
        Ins *in = (Ins *)&code[t->pc];
        in->cnt++;
        n_instr++;
        if (!--budget) {
            complain(t, in, "thread runs without end");
            return;
        }
        if (in->pred >= 0 && (r[in->pred] != 0) == in->pneg) {
            t->pc++;
            continue;
        }
        const vector<Opnd> &o = in->o;
        switch (in->op) {
            case MOV:
                if (o[0].k == 'v') {
                    u64 v = get(t, in, o[1]);
                    int n = in->t.bits / (int)o[0].v.size();
                    for (size_t i = 0; i < o[0].v.size(); i++) r[o[0].v[i].r] = mask(v >> (n * (int)i), n);
                } else if (o[1].k == 'v') {
                    u64 v = 0;
                    int n = in->t.bits / (int)o[1].v.size();
                    for (size_t i = 0; i < o[1].v.size(); i++) v |= mask(get(t, in, o[1].v[i]), n) << (n * (int)i);
                    r[o[0].r] = v;
                } else r[o[0].r] = get(t, in, o[1]);
                break;
            case LD: {
                Space sp = in->sp;
                u64 a = addr(t, in, o[1], &sp);
                if (in->sp == CONSTS) sp = GLOBAL;
                int n = in->t.bits / 8 * in->nvec;
                char *p = access(t, in, sp, a, n, false, in->fl & F_SYNC);
                if (!p) return;
                if (in->nvec == 1) r[o[0].r] = loadv(p, in->t);
                else
                    for (int i = 0; i < in->nvec; i++) r[o[0].v[(size_t)i].r] = loadv(p + i * in->t.bits / 8, in->t);
                break;
            }
            case ST: {
                Space sp = in->sp;
                u64 a = addr(t, in, o[0], &sp);
                int n = in->t.bits / 8 * in->nvec;
                char *p = access(t, in, sp, a, n, true, in->fl & F_SYNC);
                if (!p) return;
                if (in->nvec == 1) {
                    u64 v = get(t, in, o[1].k == 'v' ? o[1].v[0] : o[1]);
                    memcpy(p, &v, (size_t)n);
                } else
                    for (int i = 0; i < in->nvec; i++) {
                        u64 v = get(t, in, o[1].v[(size_t)i]);
                        memcpy(p + i * in->t.bits / 8, &v, (size_t)in->t.bits / 8);
                    }
                break;
            }
            case ADD:
            case SUB:
            case MUL:
            case DIV:
            case REM:
            case MIN:
            case MAX:
            case AND:
            case OR:
            case XOR:
            case SHL:
            case SHR:
            case COPYSIGN:
            case MUL24: {
                u64 a = get(t, in, o[1]), b = get(t, in, o[2]), c = 0;
                if ((in->op == MIN || in->op == MAX) && o.size() > 3) {
                    a = alu(in->op, in->t, a, b, 0, in->fl, in);
                    b = get(t, in, o[3]);
                }
                r[o[0].r] = alu(in->op, in->t, a, b, c, in->fl, in);
                break;
            }
            case MAD:
            case BFE: r[o[0].r] = alu(in->op, in->t, get(t, in, o[1]), get(t, in, o[2]), get(t, in, o[3]), in->fl, in); break;
            case NEG:
            case ABS:
            case SQRT:
            case RSQRT:
            case RCP:
            case EX2:
            case LG2:
            case SIN:
            case COS:
            case TANH:
            case NOT:
            case POPC:
            case CLZ:
            case BREV:
            case BFIND: r[o[0].r] = alu(in->op, in->t, get(t, in, o[1]), 0, 0, in->fl, in); break;
            case BFI: {
                u64 a = get(t, in, o[1]), b = get(t, in, o[2]);
                int pos = (int)(get(t, in, o[3]) & 255), len = (int)(get(t, in, o[4]) & 255), n = in->t.bits;
                for (int i = 0; i < len && pos + i < n; i++) b = (b & ~(1ull << (pos + i))) | (a >> i & 1) << (pos + i);
                r[o[0].r] = mask(b, n);
                break;
            }
            case PRMT: {
                u64 w = (get(t, in, o[1]) & 0xffffffffu) | get(t, in, o[2]) << 32, s = get(t, in, o[3]);
                u32 v = 0;
                for (int i = 0; i < 4; i++) {
                    u32 q = (u32)(s >> (4 * i)) & 15;
                    u8 by = (u8)(w >> ((q & 7) * 8));
                    if (q & 8) by = by & 0x80 ? 0xff : 0;
                    v |= (u32)by << (8 * i);
                }
                r[o[0].r] = v;
                break;
            }
            case SHF: {
                u64 a = get(t, in, o[1]) & 0xffffffffu, b = get(t, in, o[2]) & 0xffffffffu;
                u32 c = (u32)get(t, in, o[3]);
                c = in->mod.find("wrap") != string::npos ? c & 31 : std::min(c, 32u);
                u64 w = b << 32 | a;
                r[o[0].r] = in->mod.find(".l") == 0 ? (u32)((w << c) >> 32) : (u32)(w >> c);
                break;
            }
            case LOP3: {
                u32 a = (u32)get(t, in, o[1]), b = (u32)get(t, in, o[2]), c = (u32)get(t, in, o[3]), l = (u32)get(t, in, o[4]), v = 0;
                for (int i = 0; i < 32; i++) v |= (l >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i;
                r[o[0].r] = v;
                break;
            }
            case SETP: {
                bool v = compare(in->relation, in->t, get(t, in, o[1]), get(t, in, o[2]), in->fl), w = !v;
                if (o.size() > 3) {
                    u64 c = get(t, in, o[3]) & 1;
                    auto f = [&](bool x) {
                        return in->join == JOIN_AND ? x && c : in->join == JOIN_XOR ? x != (c != 0) : x || c;
                    };
                    v = f(v);
                    w = f(w);
                }
                r[o[0].r] = v;
                if (o[0].r2 >= 0) r[o[0].r2] = w;
                break;
            }
            case SELP: r[o[0].r] = get(t, in, o[3]) ? get(t, in, o[1]) : get(t, in, o[2]); break;
            case SLCT: {
                u64 c = get(t, in, o[3]);
                bool ge = in->t2.k == 'f' ? f32(c) >= 0 : sx(c, 32) >= 0;
                r[o[0].r] = ge ? get(t, in, o[1]) : get(t, in, o[2]);
                break;
            }
            case CVT:
                if (in->t.k == 'X' || in->t.k == 'H') {
                    Type q = {in->t.k == 'X' ? 'B' : 'h', 16};
                    r[o[0].r] = convert(q, in->t2, get(t, in, o[2]), in->fl, in) | convert(q, in->t2, get(t, in, o[1]), in->fl, in) << 16;
                } else r[o[0].r] = convert(in->t, in->t2, get(t, in, o[1]), in->fl, in);
                break;
            case CVTA: {
                u64 v = get(t, in, o[1]);
                u64 base = in->sp == SHARED ? GSH : in->sp == LOCAL ? GLO : in->sp == PARAM ? GPA : 0;
                r[o[0].r] = in->fl & F_TO ? v - base : v + base;
                break;
            }
            case BRA: t->pc = in->target; continue;
            case BRX: {
                u64 i = get(t, in, o[0]);
                if (i >= in->targets.size()) {
                    complain(t, in, "brx");
                    return;
                }
                t->pc = in->targets[i];
                continue;
            }
            case RET: t->st = 3; return;
            case BAR:
                if (in->line == skipped_line) break;
                t->barid = (int)get(t, in, o[0]);
                t->barcnt = o.size() > 1 && o[1].k != 'v' ? (int)get(t, in, o[1]) : 0;
                t->st = 1;
                return;
            case SHFL:
            case VOTE:
            case REDUX:
            case BARWARP:
            case MMA:
            case LDMATRIX:
                if (in->op == BARWARP && in->line == skipped_line) break;
                t->mask = in->op == SHFL                      ? (u32)get(t, in, o[4])
                          : in->op == VOTE || in->op == REDUX ? (u32)get(t, in, o[2])
                          : in->op == BARWARP                 ? (u32)get(t, in, o[0])
                                                              : 0xffffffffu;
                t->st = 2;
                return;
            case ACTIVEMASK: r[o[0].r] = 0xffffffffu; break;
            case ATOM:
            case RED: atomic(t, in); break;
            case FENCE:
            case NOP: break;
            case CPASYNC: {
                Space sp = SHARED;
                Copy c;
                c.dst = addr(t, in, o[0], &sp);
                sp = GLOBAL;
                c.src = addr(t, in, o[1], &sp);
                c.n = (u32)get(t, in, o[2]);
                c.ns = o.size() > 3 ? (u32)get(t, in, o[3]) : c.n;
                if (c.dst % c.n || c.src % c.n) {
                    complain(t, in, "cp.async address not aligned to %u", c.n);
                    return;
                }
                t->open.push_back(c);
                break;
            }
            case CPCOMMIT:
                t->grp.push_back(t->open);
                t->open.clear();
                break;
            case CPWAIT: {
                size_t keep = 0;
                if (in->mod.find("wait_all") != string::npos) {
                    t->grp.push_back(t->open);
                    t->open.clear();
                } else keep = get(t, in, o[0]);
                while (t->grp.size() > keep) {
                    for (auto &c : t->grp[0]) docopy(t, in, c);
                    t->grp.erase(t->grp.begin());
                    if (R->dead) return;
                }
                break;
            }
            case CALL: builtin_call(t, in); break;
            case TRAP: complain(t, in, "trap"); return;
            default: fatal(in->text);
        }
        t->pc++;
    }
}
static void warpop(Th *w, int n, u32 m) { /* all lanes of m wait at the same instruction */
    int first = __builtin_ctz(m);
    const Ins *in = &R->k->code[(size_t)w[first].pc];
    const vector<Opnd> &o = in->o;
    u64 v[32], v2[32];
    bool p2[32];
    auto each = [&](auto f) {
        for (int i = 0; i < n; i++)
            if (m >> i & 1) f(i);
    };
    switch (in->op) {
        case SHFL: {
            enum { UP, DOWN, BFLY, IDX };
            const string &md = in->mod;
            const int way = md.find(".up") != string::npos ? UP : md.find(".down") != string::npos ? DOWN : md.find(".bfly") != string::npos ? BFLY : IDX;
            each([&](int i) {
                u32 b = (u32)get(&w[i], in, o[2]), c = (u32)get(&w[i], in, o[3]);
                int cl = (int)(c & 31), sm = (int)(c >> 8 & 31), mx = (i & sm) | (cl & ~sm), j;
                bool ok;
                if (way == UP) {
                    j = i - (int)(b & 31);
                    ok = j >= mx;
                } else if (way == DOWN) {
                    j = i + (int)(b & 31);
                    ok = j <= mx;
                } else if (way == BFLY) {
                    j = i ^ (int)(b & 31);
                    ok = j <= mx;
                } else {
                    j = (i & sm) | ((int)(b & 31) & ~sm);
                    ok = j <= mx;
                }
                if (!ok) j = i;
                if (!(m >> j & 1)) {
                    complain(&w[i], in, "shuffle reads lane %d, which is not in the mask", j);
                    v[i] = 0;
                    p2[i] = false;
                    return;
                }
                v[i] = get(&w[j], in, o[1]);
                p2[i] = ok;
            });
            each([&](int i) {
                w[i].R[o[0].r] = v[i];
                if (o[0].r2 >= 0) w[i].R[o[0].r2] = p2[i];
            });
            break;
        }
        case VOTE: {
            u32 bits = 0;
            each([&](int i) {
                if (get(&w[i], in, o[1]) & 1) bits |= 1u << i;
            });
            u64 res = in->mod.find("ballot") != string::npos ? bits
                      : in->mod.find("any") != string::npos  ? bits != 0
                      : in->mod.find("all") != string::npos  ? bits == m
                                                             : (bits == m || !bits);
            each([&](int i) { w[i].R[o[0].r] = res; });
            break;
        }
        case REDUX: {
            u64 a = 0;
            bool f = true;
            const Op q = in->mod.find("add") != string::npos   ? ADD
                         : in->mod.find("min") != string::npos ? MIN
                         : in->mod.find("max") != string::npos ? MAX
                         : in->mod.find("and") != string::npos ? AND
                         : in->mod.find("xor") != string::npos ? XOR
                                                               : OR;
            each([&](int i) {
                u64 x = get(&w[i], in, o[1]);
                a = f ? x : alu(q, in->t, a, x, 0, 0, in);
                f = false;
            });
            each([&](int i) { w[i].R[o[0].r] = a; });
            break;
        }
        case BARWARP: R->wepoch[(size_t)w[first].warp]++; break;
        case LDMATRIX: {
            u32 out[4][32];
            int nm = in->nvec;
            for (int q = 0; q < nm; q++) {
                u16 M[8][8];
                for (int row = 0; row < 8; row++) {
                    Space sp = SHARED;
                    Th *t = &w[q * 8 + row];
                    u64 a = addr(t, in, o[1], &sp);
                    char *p = access(t, in, SHARED, a, 16, false);
                    if (!p) return;
                    memcpy(M[row], p, 16);
                }
                for (int i = 0; i < 32; i++) {
                    int a = i / 4, b = i % 4 * 2;
                    out[q][i] = in->fl & F_TRANS ? (u32)M[b][a] | (u32)M[b + 1][a] << 16 : (u32)M[a][b] | (u32)M[a][b + 1] << 16;
                }
            }
            for (int i = 0; i < 32; i++)
                for (int q = 0; q < nm; q++) w[i].R[o[0].k == 'v' ? o[0].v[(size_t)q].r : o[0].r] = out[q][i];
            break;
        }
        case MMA: {
            int K = in->mod.find("m16n8k16") != string::npos  ? 16
                    : in->mod.find("m16n8k8") != string::npos ? 8
                    : in->mod.find("m16n8k4") != string::npos ? 4
                                                              : 0;
            size_t q = in->mod.rfind(".f32.");
            bool bf = in->mod.find("bf16") != string::npos, tf = in->mod.find("tf32") != string::npos;
            (void)q;
            (void)v2;
            if (!K || in->mod.find("row.col") == string::npos || in->t.k != 'f') fatal("mma shape not known: " + in->text);
            static float A[16][16], B[16][8], C[16][8];
            for (int i = 0; i < 32; i++) {
                int g = i >> 2, l = i & 3;
                Th *t = &w[i];
                for (size_t x = 0; x < o[1].v.size(); x++) {
                    u64 av = get(t, in, o[1].v[x]);
                    int row = g + (int)(x & 1) * 8;
                    if (tf) A[row][l + (int)(x >> 1) * 4] = f32(av & 0xffffe000u);
                    else
                        for (int h = 0; h < 2; h++) {
                            u16 e = (u16)(av >> (16 * h));
                            A[row][l * 2 + h + (int)(x >> 1) * 8] = bf ? b2f(e) : h2f(e);
                        }
                }
                for (size_t x = 0; x < o[2].v.size(); x++) {
                    u64 bv = get(t, in, o[2].v[x]);
                    if (tf) B[l + (int)x * 4][g] = f32(bv & 0xffffe000u);
                    else
                        for (int h = 0; h < 2; h++) {
                            u16 e = (u16)(bv >> (16 * h));
                            B[l * 2 + h + (int)x * 8][g] = bf ? b2f(e) : h2f(e);
                        }
                }
                for (size_t x = 0; x < 4; x++) C[g + (int)(x >> 1) * 8][l * 2 + (int)(x & 1)] = f32(get(t, in, o[3].v[x]));
            }
            for (int i = 0; i < 32; i++) {
                int g = i >> 2, l = i & 3;
                for (int x = 0; x < 4; x++) {
                    int row = g + (x >> 1) * 8, col = l * 2 + (x & 1);
                    double s = 0;
                    for (int kk = 0; kk < K; kk++) s += (double)A[row][kk] * B[kk][col];
                    w[i].R[o[0].v[(size_t)x].r] = uf((float)(C[row][col] + s));
                }
            }
            break;
        }
        default: fatal(in->text);
    }
    each([&](int i) {
        w[i].pc++;
        w[i].st = 0;
    });
}
static u64 rnd_(u64 *s) {
    u64 z = (*s += 0x9e3779b97f4a7c15ull);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static void profile_block(void) {
    for (auto &e : R->acc) {
        const Ins *in = &R->k->code[(size_t)e.first.second];
        Prof &p = profs[R->k->name][e.first.second];
        bool sh = in->sp == SHARED || in->op == LDMATRIX;
        for (auto &q : e.second) {
            if (q.empty()) continue;
            p.req++;
            u64 bytes = 0;
            for (auto &x : q) bytes += (u64)x.n;
            p.bytes += bytes;
            if (!sh) {
                vector<u64> s;
                for (auto &x : q)
                    for (u64 a = x.a / 32; a <= (x.a + (u64)x.n - 1) / 32; a++) s.push_back(a);
                std::sort(s.begin(), s.end());
                p.sect += (u64)(std::unique(s.begin(), s.end()) - s.begin());
                p.ideal += (bytes + 31) / 32;
            } else {
                int per = q[0].n >= 16 ? 8 : q[0].n == 8 ? 16 : 32;
                u64 ways = 0, ph = 0;
                for (size_t i = 0; i < q.size(); i += (size_t)per) {
                    map<u64, vector<u64>> bk;
                    for (size_t j = i; j < q.size() && j < i + (size_t)per; j++)
                        for (int w = 0; w < std::max(1, q[j].n / 4); w++) bk[(q[j].a / 4 + (u64)w) % 32].push_back(q[j].a / 4 + (u64)w);
                    u64 mx = 0;
                    for (auto &b : bk) {
                        std::sort(b.second.begin(), b.second.end());
                        mx = std::max(mx, (u64)(std::unique(b.second.begin(), b.second.end()) - b.second.begin()));
                    }
                    ways += mx;
                    ph++;
                }
                p.sect += ways;
                p.ideal += ph;
                p.wmax = std::max(p.wmax, ways);
            }
        }
    }
}
static void run_kernel(Kernel *k, dim3 g, dim3 b, char *param, size_t dyn) {
    static bool init;
    static int order;
    static u64 rs;
    static bool prof;
    if (!init) {
        init = true;
        chk_race = ienv("PTXSIM_RACE", 1);
        chk_init = ienv("PTXSIM_INIT", 1);
        order = !strcmp(env("PTXSIM_ORDER", "fwd"), "rev") ? 1 : !strcmp(env("PTXSIM_ORDER", "fwd"), "rand") ? 2 : 0;
        rs = (u64)ienv("PTXSIM_SEED", 1);
        prof = ienv("PTXSIM_PROF", *env("PTXSIM_TABLE", "") ? 3 : 0);
    }
    n_launch++;
    nlaunch[k->name]++;
    largest[k->name].first = std::max(largest[k->name].first, dyn);
    largest[k->name].second = std::max(largest[k->name].second, (int)(b.x * b.y * b.z));
    Run run;
    R = &run;
    run.k = k;
    run.g = g;
    run.b = b;
    run.param = param;
    run.dyn = dyn;
    run.launch = ++launchno & 0xfffff;
    run.dead = false;
    run.count = prof;
    if (prof && !sector_read) {
        size_t n = (size_t)acap / 32 * sizeof *sector_read;
        sector_read = (u32 *)mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        sector_written = (u32 *)mmap(0, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    int n = (int)(b.x * b.y * b.z), nw = (n + 31) / 32;
    long total = (long)g.x * g.y * g.z;
    size_t shsz = (k->shbytes + 15) / 16 * 16 + dyn;
    vector<u64> regs((size_t)n * (size_t)k->nregs);
    vector<char> loc((size_t)n * (k->locbytes + 1));
    vector<u8> locsh(loc.size());
    vector<int> ord((size_t)n);
    run.th.resize((size_t)n);
    if (chk_race && run.launch == 1 && launchno > 1) {
        memset(grace, 0, atop / 4 * sizeof(Sh));
        memset(grace + acap / 4, 0, atop * sizeof(Sh));
    }
    for (long bi = 0; bi < total && !run.dead; bi++) {
        long q = order ? total - 1 - bi : bi;
        run.blk = q;
        run.bid[0] = (u32)(q % g.x);
        run.bid[1] = (u32)(q / g.x % g.y);
        run.bid[2] = (u32)(q / g.x / g.y);
        run.sh.assign(shsz, (char)0xff);
        run.shinit.assign(shsz, 0);
        if (chk_race) run.shrace.assign(shsz / 4 + 2 + shsz, Sh());
        run.bepoch = 0;
        run.wepoch.assign((size_t)nw, 0);
        run.prof = prof && (bi == 0 || bi == total / 2);
        if (run.prof) {
            run.acc.clear();
            run.occ.assign((size_t)n * k->code.size(), 0);
        }
        for (int i = 0; i < n; i++) {
            Th *t = &run.th[(size_t)i];
            t->pc = 0;
            t->st = 0;
            t->lin = i;
            t->lane = i & 31;
            t->warp = i / 32;
            t->tid[0] = (u32)i % b.x;
            t->tid[1] = (u32)i / b.x % b.y;
            t->tid[2] = (u32)i / b.x / b.y;
            t->R = &regs[(size_t)i * (size_t)k->nregs];
            memset(t->R, 0xee, (size_t)k->nregs * 8);
            t->loc = &loc[(size_t)i * (k->locbytes + 1)];
            t->locsh = &locsh[(size_t)i * (k->locbytes + 1)];
            t->grp.clear();
            t->open.clear();
            ord[(size_t)i] = order == 1 ? n - 1 - i : i;
        }
        int left = n;
        while (left && !run.dead) {
            bool any = false;
            if (order == 2)
                for (int i = n - 1; i > 0; i--) std::swap(ord[(size_t)i], ord[(size_t)(rnd_(&rs) % (u64)(i + 1))]);
            for (int i = 0; i < n && !run.dead; i++) {
                Th *t = &run.th[(size_t)ord[(size_t)i]];
                if (t->st == 0) {
                    any = true;
                    step(t);
                    if (t->st == 3) left--;
                }
            }
            for (int wi = 0; wi < nw && !run.dead; wi++) {
                Th *w = &run.th[(size_t)wi * 32];
                int c = std::min(32, n - wi * 32);
                u32 seen = 0;
                for (int i = 0; i < c && !run.dead; i++)
                    if (w[i].st == 2 && !(seen >> i & 1)) {
                        u32 m = w[i].mask & (c == 32 ? ~0u : (1u << c) - 1);
                        bool ready = true;
                        if (!(m >> i & 1)) {
                            complain(&w[i], &k->code[(size_t)w[i].pc], "warp operation: the calling lane is not in its mask");
                            break;
                        }
                        for (int j = 0; j < c; j++)
                            if (m >> j & 1) {
                                if (w[j].st == 3) {
                                    complain(&w[i], &k->code[(size_t)w[i].pc], "warp operation waits for lane %d, which has returned", j);
                                    ready = false;
                                    break;
                                }
                                if (w[j].st != 2 || w[j].pc != w[i].pc || w[j].mask != w[i].mask) ready = false;
                            }
                        if (ready) {
                            warpop(w, c, m);
                            seen |= m;
                            any = true;
                        }
                    }
            }
            map<int, int> cnt;
            map<int, int> need;
            for (int i = 0; i < n; i++)
                if (run.th[(size_t)i].st == 1) {
                    cnt[run.th[(size_t)i].barid]++;
                    need[run.th[(size_t)i].barid] = run.th[(size_t)i].barcnt;
                }
            for (auto &e : cnt) {
                int want = need[e.first] ? need[e.first] : n;
                if (!need[e.first] && left < n) {
                    for (int i = 0; i < n; i++)
                        if (run.th[(size_t)i].st == 1) {
                            complain(&run.th[(size_t)i], &k->code[(size_t)run.th[(size_t)i].pc],
                                     "__syncthreads while %d threads of the block have returned", n - left);
                            break;
                        }
                    break;
                }
                if (e.second == want) {
                    int pc = -1;
                    for (int i = 0; i < n; i++) {
                        Th *t = &run.th[(size_t)i];
                        if (t->st == 1 && t->barid == e.first) {
                            if (pc >= 0 && pc != t->pc)
                                complain(t, &k->code[(size_t)t->pc], "threads of one block wait at different barriers");
                            pc = t->pc;
                            t->pc++;
                            t->st = 0;
                        }
                    }
                    run.bepoch++;
                    any = true;
                }
            }
            if (!any && left && !run.dead) {
                for (int i = 0; i < n; i++)
                    if (run.th[(size_t)i].st != 3) {
                        complain(&run.th[(size_t)i], &k->code[(size_t)run.th[(size_t)i].pc], "deadlock");
                        break;
                    }
            }
        }
        for (auto &t : run.th)
            if (!t.grp.empty() || !t.open.empty()) {
                complain(&t, 0, "cp.async never waited for");
                break;
            }
        if (run.prof) profile_block();
    }
    if (run.dead) sticky = cudaErrorIllegalAddress;
    R = 0;
}

/* ---------------- fat binaries ---------------- */
struct FW {
    int magic, version;
    const void *data;
    void *f;
};
struct FH {
    u32 magic;
    u16 ver, hs;
    u64 size;
};
struct FE {
    u16 kind, ver;
    u32 hs;
    u64 size;
    u32 csize, u;
    u16 minor, major;
    u32 arch, noff, nlen;
    u64 flags, z, dsize;
};
static map<const void *, string> hostfn, hostvar;
static void load_fat(const void *w) {
    const FW *f = (const FW *)w;
    const FH *h = (const FH *)f->data;
    const char *p = (const char *)h + h->hs, *e = p + h->size;
    int want = ienv("PTXSIM_ARCH", 0);
    bool got = false;
    for (; p < e;) {
        const FE *x = (const FE *)p;
        if (x->kind == 1 && (!want || (int)x->arch == want) && !got) {
            string s;
            const char *d = p + x->hs;
            if (x->flags & 0x8000) {
                void *z = dlopen("libzstd.so.1", RTLD_NOW);
                size_t (*dec)(void *, size_t, const void *, size_t) =
                    z ? (size_t(*)(void *, size_t, const void *, size_t))dlsym(z, "ZSTD_decompress") : 0;
                if (!dec) fatal("compressed PTX and no libzstd.so.1 (build with nvcc --no-compress)");
                s.resize(x->dsize);
                size_t n = dec(&s[0], s.size(), d, x->csize);
                if (n > s.size()) fatal("zstd");
                s.resize(n);
            } else if (x->flags & 0x2000) fatal("LZ4 PTX: build with nvcc --no-compress");
            else s.assign(d, x->size);
            size_t z = s.find('\0');
            if (z != string::npos) s.resize(z);
            parse_module(s);
            got = true;
        }
        p += x->hs + x->size;
    }
    if (!got) fprintf(stderr, "ptxsim: a module has no PTX (build with code=compute_80)\n");
}
/* PTXSIM_TABLE=file: kernel, launches, instructions, most dynamic shared memory and threads of a block; then each load and store with its requests, sectors (bank passes), and how few there could be. See sass.py. */
static void table(const char *path) {
    FILE *f = fopen(path, "w");
    if (!f) return;
    for (auto &kk : kernels) {
        Kernel *k = kk.second;
        if (!nlaunch[kk.first]) continue;
        u64 steps = 0;
        for (auto &in : k->code) steps += in.cnt;
        fprintf(f, "kernel\t%s\t%ld\t%llu\t%zu\t%d\n", kk.first.c_str(), nlaunch[kk.first], (unsigned long long)steps, largest[kk.first].first, largest[kk.first].second);
        for (auto &q : profs[kk.first]) {
            const Ins *in = &k->code[(size_t)q.first];
            Prof &p = q.second;
            if (!p.req) continue;
            bool sh = in->sp == SHARED || in->op == LDMATRIX;
            fprintf(f, "%s\t%s\t%d\t%d\t%llu\t%llu\t%llu\t%s\n", sh ? "shared" : "global", kk.first.c_str(), in->line,
                    in->op == CPASYNC ? 16 : in->t.bits / 8 * in->nvec, (unsigned long long)p.req, (unsigned long long)p.sect, (unsigned long long)p.ideal,
                    in->text.c_str());
        }
    }
    fclose(f);
}
static void report(void) {
    if (*env("PTXSIM_TABLE", "")) table(env("PTXSIM_TABLE", ""));
    if (ienv("PTXSIM_PROF", 0) == 3) goto end;
    if (ienv("PTXSIM_PROF", 0))
        for (auto &kk : kernels) {
            Kernel *k = kk.second;
            u64 tot = 0, ff = 0, mm = 0, gb = 0, lsm = 0, bars = 0, mu = 0;
            if (!nlaunch[kk.first]) continue;
            for (auto &in : k->code) {
                tot += in.cnt;
                if (in.t.k == 'f' && (in.op == MAD || in.op == ADD || in.op == MUL || in.op == SUB)) ff += in.cnt * (in.op == MAD ? 2 : 1);
                if (in.op == MMA) mm += in.cnt;
                if ((in.op == LD || in.op == ST) && (in.sp == GLOBAL)) gb += in.cnt * (u64)(in.t.bits / 8 * in.nvec);
                if ((in.op == LD || in.op == ST) && in.sp == SHARED) lsm += in.cnt;
                if (in.op == BAR) bars += in.cnt;
                if (in.op == EX2 || in.op == LG2 || in.op == RSQRT || in.op == RCP || in.op == DIV || in.op == SQRT || in.op == TANH)
                    mu += in.cnt;
            }
            fprintf(stderr,
                    "prof %-28s launches %ld  thread-instr %llu  fp32 flop %llu  mma %llu  global bytes asked %llu  shared ld/st %llu  "
                    "special %llu  barriers %llu  smem %zu\n",
                    kk.first.substr(0, 28).c_str(), nlaunch[kk.first], (unsigned long long)tot, (unsigned long long)ff,
                    (unsigned long long)mm, (unsigned long long)gb, (unsigned long long)lsm, (unsigned long long)mu,
                    (unsigned long long)bars, k->shbytes);
            for (auto &q : profs[kk.first]) {
                const Ins *in = &k->code[(size_t)q.first];
                Prof &p = q.second;
                if (!p.req) continue;
                double f = (double)p.sect / (double)p.ideal;
                if (f < 1.01 && ienv("PTXSIM_PROF", 0) < 2) continue;
                fprintf(stderr, "   line %-4d %-52.52s requests %-7llu %s %.2f (ideal %.2f)%s\n", in->line, in->text.c_str(),
                        (unsigned long long)p.req, in->sp == SHARED || in->op == LDMATRIX ? "bank passes/request" : "sectors/request",
                        (double)p.sect / (double)p.req, (double)p.ideal / (double)p.req, f >= 2 ? "  <-- slow" : "");
            }
        }
end:
    fprintf(stderr, "ptxsim: %ld launches, %llu instructions, %ld errors\n", n_launch, (unsigned long long)n_instr, n_err);
    fflush(stdout);
    if (n_err) _exit(9);
}

/* ---------------- streams ---------------- */
struct CUevent_st {
    long want, done;
};
struct QOp {
    int kind = 0;
    std::function<void()> fn;
    CUevent_st *ev = 0;
    long ver = 0, seq = 0;
    std::shared_ptr<Guard> guard;
    bool kernel = false;
};
struct CUgraphNode_st {
    CUgraph_st *graph;
    size_t at;
};
struct CUgraph_st {
    vector<QOp> ops;
    vector<CUgraphNode_st *> nodes;
    long number;
};
struct CUgraphExec_st {
    vector<QOp> ops;
    long number; /* of the graph that it was made from */
};
struct CUstream_st {
    std::deque<QOp> q;
    bool legacy, blocking;
    CUgraph_st *cap;
};
static std::set<CUgraphNode_st *> nodes; /* of graphs that are there */
static vector<CUstream_st *> &streams(void) {
    static vector<CUstream_st *> *v;
    if (!v) {
        v = new vector<CUstream_st *>();
        CUstream_st *s = new CUstream_st();
        s->legacy = s->blocking = true;
        v->push_back(s);
    }
    return *v;
}
static long seqno;
static CUstream_st *S(cudaStream_t s) { return !s || s == cudaStreamLegacy || s == cudaStreamPerThread ? streams()[0] : s; }
static bool sstep(CUstream_st *s) {
    if (s->q.empty()) return false;
    QOp &o = s->q.front();
    for (CUstream_st *x : streams())
        if (x != s && !x->q.empty() && x->q.front().seq < o.seq && ((s->legacy && x->blocking) || (x->legacy && s->blocking)))
            return sstep(x);
    if (o.kind == 2 && o.ev->done < o.ver) {
        for (CUstream_st *x : streams())
            if (x != s)
                for (QOp &p : x->q)
                    if (p.kind == 1 && p.ev == o.ev) return sstep(x);
        return false;
    }
    QOp r = o;
    s->q.pop_front();
    if (r.kind == 0 && !sticky) {
        bool o = aopen;
        aprot(true);
        guard_now = r.guard;
        r.fn();
        guard_now.reset();
        aprot(o);
    }
    if (r.kind == 1) r.ev->done = std::max(r.ev->done + 1, r.ver);
    return true;
}
static cudaError_t E(int e) {
    if (!e) e = sticky;
    if (e) lasterr = e;
    return (cudaError_t)e;
}
static cudaError_t drain(CUstream_st *s) {
    if (s->cap) return E(cudaErrorStreamCaptureUnsupported);
    aprot(true);
    while (!s->q.empty())
        if (!sstep(s)) fatal("a stream waits for an event that is never recorded");
    aprot(false);
    return E(0);
}
static long handles, counted[4], failing[4];            /* streams, events, graphs; allocations, launches, copies, handles */
static map<u64, size_t> pinned;
static bool planned_failure(int kind) { return ++counted[kind] == failing[kind]; }
static void minit(void *d, size_t n, u8 v) {
    if (isdev((u64)d, n)) memset(ashadow + ((u64)d - (u64)arena), v, n);
}
static cudaError_t enq(CUstream_st *s, QOp o) {
    if (o.kind == 0) {
        o.guard = guard_next;
        if (fills.size()) {
            vector<std::pair<u64, size_t>> now;
            now.swap(fills);
            QOp q;
            q.fn = [now]() { for (auto &r : now) { memset((void *)r.first, 0xff, r.second); minit((void *)r.first, r.second, 0); } };
            enq(s, q);
        }
    }
    if (s->cap) {
        s->cap->ops.push_back(o);
        return cudaSuccess;
    }
    o.seq = seqno++;
    s->q.push_back(o);
    static int eager = ienv("PTXSIM_EAGER", 0);
    if (eager) return drain(s);
    return E(0);
}
static cudaError_t enqf(cudaStream_t s, std::function<void()> f) {
    QOp o;
    o.kind = 0;
    o.fn = f;
    o.ev = 0;
    o.ver = 0;
    return enq(S(s), o);
}
static bool nodev(void) {
    static int v = -1;
    if (v < 0) v = ienv("PTXSIM_NODEV", 0);
    return v;
}

extern "C" {
void **__cudaRegisterFatBinary(void *f) {
    static bool at;
    if (!at) {
        at = true;
        atexit(report);
    }
    load_fat(f);
    static void *h;
    return &h;
}
void __cudaRegisterFatBinaryEnd(void **) {}
void __cudaUnregisterFatBinary(void **) {}
void __cudaRegisterFunction(void **, const char *hf, char *, const char *dn, int, uint3 *, uint3 *, dim3 *, dim3 *, int *) {
    hostfn[hf] = dn;
}
void __cudaRegisterVar(void **, char *hv, char *, const char *dn, int, size_t, int, int) { hostvar[hv] = dn; }
char __cudaInitModule(void **) { return 1; }
static struct {
    dim3 g, b;
    size_t s;
    cudaStream_t st;
} pcfg;
unsigned __cudaPushCallConfiguration(dim3 g, dim3 b, size_t s, cudaStream_t st) {
    pcfg.g = g;
    pcfg.b = b;
    pcfg.s = s;
    pcfg.st = st;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *g, dim3 *b, size_t *s, void *st) {
    *g = pcfg.g;
    *b = pcfg.b;
    *s = pcfg.s;
    *(cudaStream_t *)st = pcfg.st;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t *k, const void *f) {
    *k = (cudaKernel_t)f;
    return cudaSuccess;
}
static map<const void *, size_t> maxdyn;
/* a launch as something that a stream or a graph does; arguments are copied now */
static cudaError_t kernel_op(QOp *o, const void *f, dim3 g, dim3 b, void **args, size_t dyn) {
    if (nodev()) return E(cudaErrorNoDevice);
    auto it = hostfn.find(f);
    if (it == hostfn.end()) return E(cudaErrorInvalidDeviceFunction);
    auto kt = kernels.find(it->second);
    if (kt == kernels.end()) return E(cudaErrorInvalidDeviceFunction);
    Kernel *k = kt->second;
    size_t lim = maxdyn.count(f) ? maxdyn[f] : 49152, n = (size_t)b.x * b.y * b.z;
    if (!n || n > 1024 || b.z > 64 || !g.x || !g.y || !g.z || g.y > 65535 || g.z > 65535 || dyn > lim ||
        k->shbytes + dyn > std::max(lim, (size_t)49152))
        return E(cudaErrorInvalidConfiguration);
    vector<char> p(k->parambytes + 8);
    for (size_t i = 0; i < k->params.size(); i++) memcpy(&p[k->params[i].second.off], args[i], k->params[i].second.size);
    o->kernel = true;
    o->fn = [=]() {
        vector<char> q = p;
        run_kernel(k, g, b, q.data(), dyn);
    };
    return cudaSuccess;
}
cudaError_t cudaLaunchKernel(const void *f, dim3 g, dim3 b, void **args, size_t dyn, cudaStream_t st) {
    QOp o;
    cudaError_t e = kernel_op(&o, f, g, b, args, dyn);
    if (e != cudaSuccess) return e;
    if (planned_failure(1)) return E(cudaErrorLaunchOutOfResources);
    return enq(S(st), o);
}
cudaError_t __cudaLaunchKernel(cudaKernel_t k, dim3 g, dim3 b, void **a, size_t s, cudaStream_t st) {
    return cudaLaunchKernel((const void *)k, g, b, a, s, st);
}
cudaError_t cudaGetDeviceCount(int *n) {
    if (nodev()) return E(cudaErrorNoDevice);
    *n = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int d) { return nodev() ? E(cudaErrorNoDevice) : d ? E(cudaErrorInvalidDevice) : cudaSuccess; }
cudaError_t cudaGetDevice(int *d) {
    *d = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int i) {
    if (nodev()) return E(cudaErrorNoDevice);
    if (i) return E(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    strcpy(p->name, "ptxsim");
    p->totalGlobalMem = (size_t)ienv("PTXSIM_ARENA", 512) << 20;
    p->major = 9;
    p->minor = 0;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->multiProcessorCount = 132;
    p->sharedMemPerBlock = 49152;
    p->sharedMemPerBlockOptin = 232448;
    p->sharedMemPerMultiprocessor = 233472;
    p->maxThreadsPerMultiProcessor = 2048;
    p->l2CacheSize = 50 << 20;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *v, cudaDeviceAttr a, int) {
    *v = a == cudaDevAttrMemoryPoolsSupported ? 1 : a == cudaDevAttrMultiProcessorCount            ? 132
         : a == cudaDevAttrComputeCapabilityMajor       ? 9
         : a == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 232448
         : a == cudaDevAttrWarpSize                     ? 32
                                                        : 0;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *v) {
    *v = nodev() ? 0 : 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *v) {
    *v = 13000;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *f, size_t *t) {
    ainit();
    *f = acap - atop;
    *t = acap;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void **p, size_t n) {
    if (nodev()) return E(cudaErrorNoDevice);
    for (auto s : streams())
        if (s->cap) return E(cudaErrorStreamCaptureUnsupported);
    u64 a = planned_failure(0) ? 0 : amalloc(n ? n : 1);
    if (!a) return E(cudaErrorMemoryAllocation);
    *p = (void *)a;
    return E(0);
}
cudaError_t cudaDeviceSynchronize(void) {
    for (auto s : vector<CUstream_st *>(streams())) {
        cudaError_t e = drain(s);
        if (e) return e;
    }
    return E(0);
}
cudaError_t cudaFree(void *p) {
    if (!p) return cudaSuccess;
    cudaDeviceSynchronize();
    if (!live.count((u64)p)) return E(cudaErrorInvalidValue);
    live.erase((u64)p);
    return E(0);
}
cudaError_t cudaMallocAsync(void **p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
cudaError_t cudaFreeAsync(void *p, cudaStream_t s) {
    return enqf(s, [=]() { live.erase((u64)p); });
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *p, int) { *p = 0; return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
cudaError_t cudaMallocHost(void **p, size_t n) { /* pinned: the only host memory that a copy reads or writes late */
    if (nodev()) return E(cudaErrorNoDevice);
    if (planned_failure(0)) return E(cudaErrorMemoryAllocation);
    *p = malloc(n ? n : 1);
    pinned[(u64)*p] = n;
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t n, unsigned) { return cudaMallocHost(p, n); }
cudaError_t cudaFreeHost(void *p) {
    if (!p) return cudaSuccess;
    if (!pinned.erase((u64)p)) return E(cudaErrorInvalidValue);
    cudaDeviceSynchronize();
    free(p);
    return cudaSuccess;
}
static bool ispinned(const void *p, size_t n) {
    auto it = pinned.upper_bound((u64)p);
    return it != pinned.begin() && (--it, (u64)p + n <= it->first + it->second);
}
cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind k, cudaStream_t st) {
    bool dd = isdev((u64)d, n), sd = isdev((u64)s, n);
    if (!n) return E(0);
    if (k == cudaMemcpyDefault) k = dd ? sd ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost;
    if ((k == cudaMemcpyHostToDevice && (!dd || sd)) || (k == cudaMemcpyDeviceToHost && (dd || !sd)) ||
        (k == cudaMemcpyDeviceToDevice && !(dd && sd))) {
        fprintf(stderr, "ptxsim: cudaMemcpy of %zu bytes: a pointer is on the wrong side or out of bounds\n", n);
        n_err++;
        return E(cudaErrorInvalidValue);
    }
    if (planned_failure(2)) return E(cudaErrorUnknown);
    if (k == cudaMemcpyHostToDevice && !ispinned(s, n)) { /* pageable memory is read before the call returns */
        vector<char> now((const char *)s, (const char *)s + n);
        return enqf(st, [d, now]() {
            memcpy(d, now.data(), now.size());
            minit(d, now.size(), 1);
        });
    }
    cudaError_t e = enqf(st, [=]() { /* bytes that nobody wrote stay so (they are NaN); a view with gaps is copied whole: only kernels are reported */
        memmove(d, s, n);
        if (dd && sd) memmove(ashadow + ((u64)d - (u64)arena), ashadow + ((u64)s - (u64)arena), n);
        else minit(d, n, 1);
    });
    return !e && k == cudaMemcpyDeviceToHost && !ispinned(d, n) ? drain(S(st)) : e;
}
cudaError_t cudaMemcpy(void *d, const void *s, size_t n, cudaMemcpyKind k) {
    cudaError_t e = cudaMemcpyAsync(d, s, n, k, 0);
    return e ? e : drain(S(0));
}
cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t st) {
    if (!n) return E(0);
    if (planned_failure(2)) return E(cudaErrorUnknown);
    if (!isdev((u64)d, n)) {
        n_err++;
        fprintf(stderr, "ptxsim: cudaMemset out of bounds\n");
        return E(cudaErrorInvalidValue);
    }
    return enqf(st, [=]() {
        memset(d, v, n);
        minit(d, n, 1);
    });
}
cudaError_t cudaMemset(void *d, int v, size_t n) { return cudaMemsetAsync(d, v, n, 0); }
cudaError_t cudaMemcpyToSymbol(const void *sym, const void *s, size_t n, size_t off, cudaMemcpyKind k) {
    Var &v = globals[hostvar[sym]];
    return cudaMemcpy((char *)v.off + off, s, n, k == cudaMemcpyDefault ? cudaMemcpyHostToDevice : k);
}
cudaError_t cudaGetSymbolAddress(void **p, const void *sym) {
    *p = (void *)globals[hostvar[sym]].off;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned f) {
    if (nodev()) return E(cudaErrorNoDevice);
    if (planned_failure(3)) return E(cudaErrorMemoryAllocation);
    *s = new CUstream_st();
    (*s)->blocking = !(f & 1);
    streams().push_back(*s);
    handles++;
    return E(0);
}
cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, 0); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned f, int) { return cudaStreamCreateWithFlags(s, f); }
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    drain(s);
    auto &v = streams();
    v.erase(std::find(v.begin(), v.end(), s));
    delete s;
    handles--;
    sticky = lasterr = 0; /* a real context would stay lost; here the next one is whole, so that one fault does not hide others */
    return E(0);
}
cudaError_t cudaStreamSynchronize(cudaStream_t s) { return drain(S(s)); }
cudaError_t cudaStreamQuery(cudaStream_t s) { return S(s)->q.empty() ? E(0) : cudaErrorNotReady; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    if (nodev()) return E(cudaErrorNoDevice);
    if (planned_failure(3)) return E(cudaErrorMemoryAllocation);
    handles++;
    *e = new CUevent_st();
    return E(0);
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    cudaDeviceSynchronize();
    handles--;
    delete e;
    return E(0);
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
    QOp o;
    o.kind = 1;
    o.ev = e;
    o.ver = ++e->want;
    return enq(S(s), o);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
    QOp o;
    o.kind = 2;
    o.ev = e;
    o.ver = e->want;
    return enq(S(s), o);
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    while (e->done < e->want) {
        bool any = false;
        for (auto s : streams())
            if (!s->q.empty() && sstep(s)) {
                any = true;
                break;
            }
        if (!any) fatal("event");
    }
    return E(0);
}
cudaError_t cudaEventQuery(cudaEvent_t e) { return e->done >= e->want ? E(0) : cudaErrorNotReady; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t) {
    *ms = 1;
    return E(0);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (!s) return E(cudaErrorStreamCaptureUnsupported);
    if (planned_failure(3)) return E(cudaErrorMemoryAllocation);
    drain(s);
    static long number;
    s->cap = new CUgraph_st();
    s->cap->number = ++number;
    return E(0);
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    if (!s->cap) return E(cudaErrorStreamCaptureUnsupported);
    handles++;
    *g = s->cap;
    s->cap = 0;
    if (!planned_failure(3)) return E(0); /* else it ends all the same */
    cudaGraphDestroy(*g);
    *g = 0;
    return E(cudaErrorMemoryAllocation);
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *st) {
    *st = S(s)->cap ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return E(0);
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t s, cudaStreamCaptureStatus *st, unsigned long long *, cudaGraph_t *, const cudaGraphNode_t **last,
                                     const cudaGraphEdgeData **, size_t *n) {
    cudaStreamIsCapturing(s, st);
    if (!s || !s->cap) return E(cudaErrorStreamCaptureUnsupported);
    CUgraph_st *g = s->cap;
    while (g->nodes.size() < g->ops.size()) {
        g->nodes.push_back(new CUgraphNode_st{g, g->nodes.size()});
        nodes.insert(g->nodes.back());
    }
    *n = !g->nodes.empty();
    *last = *n ? &g->nodes.back() : 0;
    return E(0);
}
/* The node is that of the graph, which must be there, that x was made from. */
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t x, cudaGraphNode_t node, const cudaKernelNodeParams *p) {
    QOp o;
    if (!nodes.count(node) || node->graph->number != x->number) {
        fprintf(stderr, "ptxsim: the node of another graph, or of one that is no more\n");
        return E(cudaErrorInvalidValue);
    }
    if (!x->ops[node->at].kernel) return E(cudaErrorInvalidValue);
    cudaError_t e = kernel_op(&o, p->func, p->gridDim, p->blockDim, p->kernelParams, p->sharedMemBytes);
    if (e != cudaSuccess) return e;
    o.guard = guard_next;
    x->ops[node->at] = o;
    return E(0);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    if (planned_failure(3)) return E(cudaErrorMemoryAllocation);
    handles++;
    *x = new CUgraphExec_st{g->ops, g->number};
    return E(0);
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t x, cudaGraph_t g, cudaGraphExecUpdateResultInfo *) {
    if (x->ops.size() != g->ops.size()) return E(cudaErrorInvalidValue);
    x->ops = g->ops;
    return E(0);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    if (planned_failure(1)) return E(cudaErrorLaunchOutOfResources);
    for (auto o : x->ops) { /* with the guards of the time when it was captured */
        o.seq = seqno++;
        S(s)->q.push_back(o);
    }
    return E(0);
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    handles--;
    for (auto n : g->nodes) {
        nodes.erase(n);
        delete n;
    }
    delete g;
    return E(0);
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) {
    cudaDeviceSynchronize();
    handles--;
    delete g;
    return E(0);
}
/* what tests ask for: see test_cuda.c */
void nn_device_block(void *p, size_t n, int there) {
    if (there) {
        guarded[(u64)p] = n;
        return;
    }
    cudaDeviceSynchronize();
    guarded.erase((u64)p);
}
void nn_device_guard(void *const *p, const size_t *n, int count) {
    fills.clear();
    guard_next.reset();
    if (count < 0) return;
    guard_next = std::make_shared<Guard>();
    for (int i = 0; i < count; i++) guard_next->range.push_back(std::make_pair((u64)p[i], (u64)n[i]));
}
void nn_device_fill(void *p, size_t n) { fills.push_back(std::make_pair((u64)p, n)); }
void nn_device_fail(int kind, long n) {
    for (int i = 0; i < 4; i++) counted[i] = failing[i] = 0;
    if (kind >= 0) failing[kind] = n;
    lasterr = 0;
}
long nn_device_count(int kind) { return counted[kind]; }
void nn_device_without_barrier(int line) { skipped_line = line ? line : -1; }
/* Bytes that kernels asked global memory for until now; of the sectors that a launch read or wrote, each counted once; in sectors of 32. */
double nn_device_bytes(int once) { return once ? 32.0 * (double)sectors_once : (double)bytes_asked; }
long nn_device_live(void) { return (long)(live.size() - nvars) + (long)pinned.size() + handles; }
/* for fakeblas.cpp: run on a stream; check a range (write 1: mark it written) */
int ptxsim_enqueue(cudaStream_t s, void (*fn)(void *), void *arg) {
    return enqf(s, [=]() { fn(arg); });
}
int ptxsim_range(const void *p, size_t n, int write, const char *who) {
    if (!isdev((u64)p, n)) {
        fprintf(stderr, "ptxsim: %s: %p (%zu bytes) is outside every device allocation\n", who, p, n);
        n_err++;
        return 1;
    }
    u8 *sh = ashadow + ((u64)p - (u64)arena);
    if (write) memset(sh, 1, n);
    else if (ienv("PTXSIM_INIT", 1))
        for (size_t i = 0; i < n; i++)
            if (!sh[i]) {
                fprintf(stderr, "ptxsim: %s reads device memory that was never written (offset %zu)\n", who, i);
                n_err++;
                return 1;
            }
    return 0;
}
cudaError_t cudaGetLastError(void) {
    int e = lasterr;
    lasterr = sticky;
    return (cudaError_t)e;
}
cudaError_t cudaPeekAtLastError(void) { return (cudaError_t)lasterr; }
const char *cudaGetErrorString(cudaError_t e) {
    return e == 0     ? "no error"
           : e == 100 ? "no CUDA-capable device is detected"
           : e == 2   ? "out of memory"
           : e == 9   ? "invalid configuration argument"
           : e == 700 ? "an illegal memory access was encountered"
           : e == 900 ? "operation not permitted when stream is capturing"
                      : "CUDA error";
}
const char *cudaGetErrorName(cudaError_t e) {
    return e == 0     ? "cudaSuccess"
           : e == 100 ? "cudaErrorNoDevice"
           : e == 2   ? "cudaErrorMemoryAllocation"
           : e == 700 ? "cudaErrorIllegalAddress"
                      : "cudaError";
}
cudaError_t cudaFuncSetAttribute(const void *f, cudaFuncAttribute a, int v) {
    if (a == cudaFuncAttributeMaxDynamicSharedMemorySize) {
        if (v > 232448) return E(cudaErrorInvalidValue);
        maxdyn[f] = (size_t)v;
    }
    return E(0);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    return E(0);
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *, int, size_t) {
    *n = 2;
    return E(0);
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *, int, size_t, unsigned) {
    *n = 2;
    return E(0);
}
cudaError_t cudaDeviceReset(void) { return cudaDeviceSynchronize(); }
cudaError_t cudaProfilerStart(void) { return cudaSuccess; }
cudaError_t cudaProfilerStop(void) { return cudaSuccess; }
}
