"""onnx_nets.py FOLDER - Writes the nets of bench.c as FOLDER/workload.onnx, with random weights (needs torch and onnx)."""
import os
import sys
import warnings

import torch

from torch_nets import INFERENCE, PREFILL, gpt_of, net_of, random_tokens

warnings.filterwarnings("ignore")
os.makedirs(sys.argv[1], exist_ok=True)
torch.manual_seed(1)


def write(name, net, x):
    torch.onnx.export(net.eval(), (x,), os.path.join(sys.argv[1], name + ".onnx"), input_names=["x"], output_names=["y"], opset_version=17, dynamo=False)


class OfTokens(torch.nn.Module):
    """Without the cache's arguments, which would become inputs."""
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)


for name in (n + "_infer" for n in INFERENCE):
    net, shape, batch = net_of(name)
    write(name, net, torch.rand(batch, *shape))
for name in (n + "_prefill" for n in PREFILL):
    net = gpt_of(name)
    write(name, OfTokens(net), random_tokens(1, net.context))
