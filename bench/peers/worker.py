"""worker.py - What the Python peers share: the loop of a worker (see ../measure.h) and the median of a step."""
import sys
import time


def median_step(step, budget, warm):
    """Median seconds of a step; short steps are timed in groups of 20 us and more."""
    now, start = time.perf_counter, time.perf_counter()
    end = start + budget / 20
    took = 0.0
    while warm > 0 or now() < end:
        warm -= 1
        start = now()
        step()
        took = now() - start
    group = int(20e-6 / (took + 1e-8)) + 1 if took < 20e-6 else 1
    times, end = [], now() + budget
    while not times or (now() < end and len(times) < 20000):
        start = now()
        for _ in range(group):
            step()
        times.append((now() - start) / group)
    times.sort()
    return times[len(times) // 2]


def value(metric, units, seconds):
    """units: samples, tokens, multiply-adds times 2, or calls of a step."""
    if metric in ("samples_per_s", "tokens_per_s"):
        return units / seconds
    if metric == "GFLOPS":
        return units / seconds / 1e9
    return seconds / units * {"us": 1e6, "ns": 1e9, "seconds": 1}[metric]


def serve(peer, threads, make):
    """make(workload) gives None, or (metric, units, steps): functions of which the fastest, by a first try, is measured from then on."""
    made = {}
    for line in sys.stdin:
        workload, seconds = line.split()
        seconds, fresh = float(seconds), workload not in made
        if fresh:
            try:
                made[workload] = make(workload)
                if made[workload]:
                    metric, units, steps = made[workload]
                    tries = [(median_step(s, seconds / 2, 3), i) for i, s in enumerate(steps)] if len(steps) > 1 else [(0, 0)]
                    made[workload] = metric, units, steps[min(tries)[1]]
            except Exception as e:                       # one workload that a peer cannot do is no reason to lose the others
                print(f"{peer}: {workload}: {type(e).__name__}: {str(e)[:300]}", file=sys.stderr, flush=True)
                made[workload] = None
        if made[workload]:
            metric, units, step = made[workload]
            seconds = median_step(step, seconds, (0 if metric == "seconds" else 1 + fresh))
            print(f"{peer}\t{workload}\t{threads}\t{metric}\t{value(metric, units, seconds):.5g}")
        print(".", flush=True)


def gemm_shape(workload):
    """gemm_NT_64x10x128 -> ("NT", 64, 10, 128)"""
    _, form, sizes = workload.split("_")
    return (form, *map(int, sizes.split("x")))
