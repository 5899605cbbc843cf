#!/usr/bin/env python3
"""peers.py - nn.h beside its peers: every workload in rounds, one worker after the other in each round, compared as ratios.

peers.py measure LIST OUT.tsv [--threads 1,2] [--rounds 5] [--seconds 0.4] [--only n1_,gemm_NN] [--lock FILE]
    LIST has a worker per line: peer, environment (A=1 B=2), command; tab-separated, {threads} is replaced. All are started once per
    thread count and wait; one is asked at a time (the protocol is in measure.h). The order turns by one place every round.
    OUT.tsv gets peer, workload, threads, metric, value, round; an existing file is continued.
    --lock: hold this file's lock while measuring, for 45 s at a time, so that several users of a machine measure in turn.
peers.py table TSV...
    Markdown. A ratio is the median over the rounds of (nn.h : peer in that round), > 1 where nn.h is faster; the interval is a
    bootstrap over rounds (95 %). The best peer of a row is the one with the best median. "% of limit" is the rate of multiply-adds,
    counted for the direct algorithms, over the peak of the same rounds; Winograd's convolutions may pass 100 %. "fused", of training
    steps: how many weights nn.h updates inside the product of their gradient; the others after it.
peers.py brief TSV...
    The same for networks alone, a line per workload (README.md).
"""
import fcntl
import math
import os
import random
import statistics
import subprocess
import sys
import time

NETS = """n1_mlp784-128-10_b64_train n1_mlp784-128-10_epoch938 n2_mlp784-128-64-10_b64_train n2x_xor2-8-1_b4_train n3_cnn32-64_b64_train
n4_lenet_b64_train n5a_lstm128_s32_b32_train n5b_charlstm256x2_s64_b32_train n7a_resnet18_cifar_b32_train n7c_dwsep64-128_32x32_b32_train n1_mlp784-128-10_b1_infer n1_mlp784-128-10_b64_infer
n2_mlp784-128-64-10_b1_infer n2_mlp784-128-64-10_b64_infer n3_cnn32-64_b1_infer n3_cnn32-64_b64_infer n4_lenet_b1_infer n4_lenet_b64_infer
n5a_lstm128_s32_b1_infer n5a_lstm128_s32_b32_infer n7a_resnet18_cifar_b1_infer n7b_resnet18_224_b1_infer n7c_dwsep64-128_32x32_b1_infer n6a_gpt_L4_d128_c64_b12_train
n6b_gpt_L6_d384_c256_b12_train n6a_gpt_L4_d128_c64_prefill n6a_gpt_L4_d128_c64_decode n6b_gpt_L6_d384_c256_prefill n6b_gpt_L6_d384_c256_decode
eager_add4 eager_add4_tape""".split()
GEMM = """NN_64x64x64 NN_128x128x128 NN_256x256x256 NN_512x512x512 NN_1024x1024x1024 NN_2048x2048x2048 NT_256x256x256 TN_256x256x256
NT_1024x1024x1024 TN_1024x1024x1024 NT_64x128x784 NN_64x784x128 TN_128x784x64 NT_64x10x128 NN_64x128x10 TN_10x128x64 NT_256x512x784
NN_256x784x512 TN_512x784x256 NT_1x128x784 NT_1x10x128 NN_6x784x75 NN_16x100x150 NN_32x1024x27 NN_64x256x288 NN_64x1024x576 NN_128x256x1152
NN_256x64x2304 NN_512x16x4608 NN_64x12544x147 NN_128x784x64 NN_512x196x512 NN_256x768x768 NT_256x768x768 TN_768x768x256 NN_256x3072x768
NT_256x3072x768 TN_3072x768x256 NN_256x768x3072 NT_256x768x3072 TN_768x3072x256 NT_256x256x64 NN_256x64x256 NT_64x64x32 NT_32x512x128
NT_32x1024x256 NT_1x4096x4096 NN_1x4096x4096 NT_1x768x768 NT_1x3072x768 NT_1x1000x512""".split()
WORKLOADS = NETS + ["gemm_" + g for g in GEMM]
ORDER = {w: i for i, w in enumerate(WORKLOADS)}
OURS = "nn.h"


# ---- measuring ----------------------------------------------------------------------------------------------
class Worker:
    def __init__(self, peer, environment, command, threads, log):
        n = str(threads)
        env = dict(os.environ, OMP_NUM_THREADS=n, OPENBLAS_NUM_THREADS=n, MKL_NUM_THREADS=n, BLIS_NUM_THREADS=n)
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):      # they pin a slow kernel
            env.pop(name, None)
        env.update(pair.split("=", 1) for pair in environment.replace("{threads}", n).split())
        self.peer, self.none = peer, set()
        self.process = subprocess.Popen(command.replace("{threads}", n).split(), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def ask(self, workload, seconds):
        """Rows of the answer; nothing for what the worker does not know, or if it has died."""
        rows = []
        if workload in self.none:
            return rows
        try:
            self.process.stdin.write(f"{workload} {seconds}\n")
            self.process.stdin.flush()
            for line in self.process.stdout:
                if line == ".\n":
                    break
                rows.append(line.rstrip("\n").split("\t"))
        except OSError:
            pass
        if not rows:
            self.none.add(workload)
        return rows


class Lock:
    """One user of the machine at a time: held while measuring, given up between rounds after 45 s. Without a path: nothing."""
    def __init__(self, path):
        self.file, self.since = open(path, "a") if path else None, None

    def turn(self):
        if self.file and (self.since is None or time.monotonic() > self.since + 45):
            self.release()
            time.sleep(0.1)                              # others wait, too
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.since = time.monotonic()

    def release(self):
        if self.file:
            fcntl.flock(self.file, fcntl.LOCK_UN)
            self.since = None


def measure(list_path, out_path, threads, rounds, seconds, only, lock):
    peers = [line.rstrip("\n").split("\t") for line in open(list_path) if line.strip()]
    chosen = [w for w in WORKLOADS if not only or any(w.startswith(o) for o in only)]
    lock = Lock(lock)
    with open(out_path, "a") as out, open(out_path + ".log", "a") as log:
        for t in threads:
            lock.turn()
            workers = [Worker(*p, t, log) for p in peers]
            for w in workers:                            # all are up before anything is measured
                w.ask("none", 0)
                w.none.clear()
            for workload in chosen:
                budget = seconds / 4 if workload.startswith("gemm") else seconds
                for worker in workers:                   # builds, compiles, warms up
                    lock.turn()
                    worker.ask(workload, budget / 10)
                able = [w for w in workers if workload not in w.none]
                for r in range(rounds):
                    lock.turn()
                    for i in range(len(able)):
                        if t > 1:
                            time.sleep(0.25)             # the threads of the last one stop spinning: Intel's OpenMP does so after 0.2 s
                        for row in able[(i + r) % len(able)].ask(workload, budget):
                            out.write("\t".join([*row, str(r)]) + "\n")
                    for row in workers[0].ask("fma", 0):
                        out.write("\t".join(["limit", workload, *row[2:], str(r)]) + "\n")
                out.flush()
                print(f"{t} threads: {workload}", file=sys.stderr, flush=True)
            for w in workers:
                w.process.stdin.close()
            for w in workers:
                w.process.wait()
            lock.release()


# ---- the table ----------------------------------------------------------------------------------------------
def read(paths):
    """values[workload, threads][peer][metric][round]"""
    values = {}
    for path in paths:
        for line in open(path):
            peer, workload, threads, metric, value, r = line.rstrip("\n").split("\t")
            values.setdefault((workload, int(threads)), {}).setdefault(peer, {}).setdefault(metric, {})[path, int(r)] = float(value)
    return values


def main_metric(workload):
    if workload.startswith("gemm"):
        return "GFLOPS"
    if workload.startswith("eager"):
        return "ns"
    return "us" if workload.endswith(("infer", "prefill", "decode")) else ("tokens_per_s" if workload.startswith(("n5b_", "n6")) else "samples_per_s") if workload.endswith("train") else "seconds"


def speed(metric, value):
    return value if metric in ("GFLOPS", "samples_per_s", "tokens_per_s") else 1 / value


def ratios(metric, ours, theirs):
    return [speed(metric, ours[r]) / speed(metric, theirs[r]) for r in ours if r in theirs]


def interval(values, draws=1000):
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[draws // 40], medians[-1 - draws // 40]


def short(x):
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def row_of(key, peers):
    """None without nn.h; else (cells, ratio to the best peer, ratio to PyTorch, whether the first one's interval reaches 1)"""
    workload, threads = key
    metric = main_metric(workload)
    ours = peers.get(OURS, {}).get(metric)
    if not ours:
        return None
    others = {p: m[metric] for p, m in peers.items() if p not in (OURS, "limit") and metric in m}
    ranked = sorted(others, key=lambda p: -speed(metric, statistics.median(others[p].values())))
    flops, peak = peers[OURS].get("GFLOPS"), peers.get("limit", {}).get("GFLOPS")
    percent = f"{100 * statistics.median(flops.values()) / statistics.median(peak.values()):.0f} %" if flops and peak else ""
    cells = [workload, str(threads), f"{short(statistics.median(ours.values()))} {metric.replace('_per_', '/').replace('samples/s', '/s')}"]
    best = torch = None
    reaches = False
    if ranked:
        all_best = ratios(metric, ours, others[ranked[0]])
        best = statistics.median(all_best)
        low, high = interval(all_best)
        reaches = high >= 1
        cells += [f"{short(statistics.median(others[ranked[0]].values()))} {ranked[0]}", f"**{best:.2f}**" if best >= 1 else f"{best:.2f}", f"{low:.2f}-{high:.2f}"]
    else:
        cells += ["", "", ""]
    of_torch = [p for p in ranked if p.startswith("pytorch")]
    if of_torch:
        torch = statistics.median(ratios(metric, ours, others[of_torch[0]]))
    cells += [f"{torch:.2f}" + (" (compiled)" if of_torch[0] != "pytorch" else "") if torch else "", percent]
    return cells, best, torch, reaches


def fused(peers):
    counts = peers.get(OURS, {}).get("fused")
    return f"{statistics.median(counts.values()):.0f}" if counts else ""


def mean(values):
    return math.exp(statistics.mean(map(math.log, values)))


def is_net(workload):
    return not workload.startswith(("eager", "gemm"))


KINDS = [("Training", lambda w: w.endswith(("train", "epoch938"))), ("Inference", lambda w: w.endswith(("infer", "prefill", "decode"))),
         ("Networks (training and inference)", is_net), ("Eager ops", lambda w: w.startswith("eager")), ("Products", lambda w: w.startswith("gemm"))]


def means(values):
    """Geometric means over the rows of a kind that have a peer."""
    print("\n| rows | threads | nn.h : best peer | rows where nn.h is first | where the interval reaches 1 | nn.h : PyTorch |\n| --- | --- | --- | --- | --- | --- |")
    for title, belongs in KINDS:
        for t in sorted({k[1] for k in values}):
            rows = [r for r in (row_of(k, values[k]) for k in values if belongs(k[0]) and k[1] == t) if r and r[1]]
            torch = [r[2] for r in rows if r[2]]
            if rows:
                first, reach, n = sum(r[1] >= 1 for r in rows), sum(r[3] for r in rows), len(rows)
                print(f"| {title} | {t} | {mean([r[1] for r in rows]):.2f} | {first} of {n} | {reach} of {n} | {f'{mean(torch):.2f}' if torch else ''} |")


def table(paths):
    values = read(paths)
    for title, belongs in KINDS:
        keys = sorted((k for k in values if belongs(k[0])), key=lambda k: (ORDER.get(k[0], 999), k[1]))
        rows = [(r[0], fused(values[k])) for k in keys if (r := row_of(k, values[k]))]
        more = any(f for _, f in rows)
        if rows and title[:8] != "Networks":
            print(f"\n### {title}\n\n| workload | threads | nn.h | best peer | nn.h : best | interval | nn.h : PyTorch | % of limit |" + " fused |" * more)
            print("| --- | --- | --- | --- | --- | --- | --- | --- |" + " --- |" * more)
            for cells, f in rows:
                print("| " + " | ".join(cells + [f] * more) + " |")
    print("\n### Geometric means")
    means(values)


def brief(paths):
    values = read(paths)
    print("| workload | nn.h, 1 thread | : best peer | : PyTorch | nn.h, 2 threads | : best peer | : PyTorch | fused |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for workload in sorted({k[0] for k in values if is_net(k[0])}, key=lambda w: ORDER.get(w, 999)):
        line = [workload]
        for t in (1, 2):
            row = row_of((workload, t), values.get((workload, t), {}))
            peer = row[0][3].split()[-1] if row and row[1] else ""
            line += [row[0][2], f"{row[1]:.2f} {peer}" if peer else "", f"{row[2]:.2f}" if row[2] else ""] if row else ["", "", ""]
        line.append(next((f for t in (1, 2) if (f := fused(values.get((workload, t), {})))), ""))
        print("| " + " | ".join(line) + " |")
    means(values)


def option(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


if __name__ == "__main__":
    if len(sys.argv) > 3 and sys.argv[1] == "measure":
        measure(sys.argv[2], sys.argv[3], [int(t) for t in option("--threads", "1,2").split(",")], int(option("--rounds", "5")),
                float(option("--seconds", "0.4")), [o for o in option("--only", "").split(",") if o], option("--lock", ""))
    elif len(sys.argv) > 2 and sys.argv[1] in ("table", "brief"):
        (table if sys.argv[1] == "table" else brief)(sys.argv[2:])
    else:
        sys.exit(__doc__)
