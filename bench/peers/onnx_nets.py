"""onnx_nets.py FOLDER - Writes the nets of bench.c as FOLDER/workload.onnx, with random weights (needs torch and onnx)."""
import os
import sys
import warnings

import torch

from torch_nets import INFERENCE, net_of

warnings.filterwarnings("ignore")
os.makedirs(sys.argv[1], exist_ok=True)
torch.manual_seed(1)
for name in (n + "_infer" for n in INFERENCE):
    net, shape, batch = net_of(name)
    torch.onnx.export(net.eval(), (torch.rand(batch, *shape),), os.path.join(sys.argv[1], name + ".onnx"), input_names=["x"], output_names=["y"],
                      opset_version=17, dynamo=False)
