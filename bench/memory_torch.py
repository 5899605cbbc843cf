"""memory_torch.py - Peak memory of training in PyTorch: the nets, batches and optimizers of bench/memory.c, one thread, CPU.

peak_bytes  the largest running sum of what the CPU allocator handed out and got back: tensors only, no code, no graph
rss_growth  how far the resident set grew
Each workload runs in a process of its own. Prints peer, workload, threads, metric, value; tab-separated."""
import resource
import subprocess
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile


class Block(nn.Module):
    """torchvision's BasicBlock, with its in-place ReLU or without."""
    def __init__(self, cin, cout, stride, inplace):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.relu = nn.ReLU(inplace)
        self.down = None
        if stride != 1 or cin != cout:
            self.down = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.down is not None:
            x = self.down(x)
        return self.relu(y + x)


def resnet18(inplace):
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace)]
    cin = 64
    for stage in range(4):
        cout = 64 << stage
        layers += [Block(cin, cout, 2 if stage else 1, inplace), Block(cout, cout, 1, inplace)]
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 10))


def lenet():
    return nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(32 * 49, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def adamw(net):
    return torch.optim.AdamW(net.parameters(), lr=0.002, weight_decay=0.01)


def sgd(net):
    return torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4, nesterov=True)


WORKLOADS = {                                            # net, optimizer, batch, shape of a sample
    "digits": (mlp, adamw, 64, (1, 8, 8)),
    "lenet": (lenet, adamw, 64, (1, 28, 28)),
    "resnet18": (lambda: resnet18(False), sgd, 32, (3, 32, 32)),
    "resnet18_inplace": (lambda: resnet18(True), sgd, 32, (3, 32, 32)),
}


def train(make, optimizer, batch, shape):
    net = make()
    opt = optimizer(net)
    for _ in range(3):
        x, labels = torch.rand(batch, *shape), torch.arange(batch) % 10
        opt.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        opt.step()
        del x, labels


def peak_bytes(workload):
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        train(*workload)
    events = [e for e in p.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for e in sorted(events, key=lambda e: e.start_ns()):
        now += e.nbytes()
        peak = max(peak, now)
    return peak


def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    if len(sys.argv) == 3:
        name, metric = sys.argv[1:]
        before = resident()
        value = peak_bytes(WORKLOADS[name]) if metric == "peak_bytes" else (train(*WORKLOADS[name]), resident() - before)[1]
        print(f"pytorch\t{name}\t1\t{metric}\t{value}", flush=True)
        return
    for name in WORKLOADS:
        for metric in ("peak_bytes", "rss_growth"):
            subprocess.run([sys.executable, __file__, name, metric], check=True)


if __name__ == "__main__":
    main()
