"""torch_nets.py - The nets of bench.c in PyTorch, for torch_peer.py and onnx_nets.py."""
import torch
import torch.nn as nn
import torch.nn.functional as F


def mlp1():
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def mlp2():
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def xor():
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())


def cnn3():
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(64 * 8 * 8, 128), nn.ReLU(), nn.Linear(128, 10))


def lenet():
    return nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout)
        self.conv2, self.bn2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout)
        self.down = nn.Identity()
        if stride != 1 or cin != cout:
            self.down = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.down(x), inplace=True)


def resnet18(classes):
    if classes == 10:
        layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    else:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for stage in range(4):
        cout = 64 << stage
        layers += [Block(cin, cout, 2 if stage else 1), Block(cout, cout, 1)]
        cin = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def separable():
    return nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1, groups=64, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
                         nn.Conv2d(64, 128, 1, bias=False), nn.BatchNorm2d(128), nn.ReLU())


class GptBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ln2, self.fc, self.out = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x, cache=None, at=0):
        b, t, c = x.shape
        q, k, v = (z.view(b, t, self.heads, -1).transpose(1, 2) for z in self.qkv(self.ln1(x)).split(c, 2))
        if cache is not None:                            # made ahead: (2, B, heads, context, D)
            cache[0, :, :, at:at + t], cache[1, :, :, at:at + t] = k, v
            k, v = cache[0, :, :, :at + t], cache[1, :, :, :at + t]
        y = F.scaled_dot_product_attention(q, k, v, is_causal=bool(at == 0))
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.out(F.gelu(self.fc(self.ln2(x))))


class Gpt(nn.Module):
    """nanoGPT's decoder; the embedding is also the last layer."""
    def __init__(self, layers, heads, width, context):
        super().__init__()
        self.context = context
        self.tokens, self.positions = nn.Embedding(65, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList([GptBlock(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, caches=None, at=0):
        x = self.tokens(tokens) + self.positions(torch.arange(at, at + int(tokens.shape[1])))
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches is not None else None, at)
        return F.linear(self.norm(x), self.tokens.weight)

    def caches(self):
        width = self.tokens.weight.shape[1]
        heads = self.blocks[0].heads
        return [torch.zeros(2, 1, heads, self.context, width // heads) for _ in self.blocks]


def gpt_of(workload):
    return Gpt(4, 4, 128, 64) if workload.startswith("n6a_") else Gpt(6, 6, 384, 256)


def random_tokens(batch, time):
    return torch.randint(0, 65, (batch, time))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(10, 128, batch_first=True), nn.Linear(128, 2)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


class CharLstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.lstm, self.out = nn.Embedding(65, 256), nn.LSTM(256, 256, 2, batch_first=True), nn.Linear(256, 65)

    def forward(self, x):
        return self.out(self.lstm(self.embedding(x))[0]).flatten(0, 1)


NETS = {                                                 # beginning of the workload: net, shape of a sample
    "n1_": (mlp1, (784,)),
    "n2_": (mlp2, (784,)),
    "n2x_": (xor, (2,)),
    "n3_": (cnn3, (3, 32, 32)),
    "n4_": (lenet, (3, 32, 32)),
    "n5a_": (Lstm, (32, 10)),
    "n5b_": (CharLstm, (64,)),
    "n7a_": (lambda: resnet18(10), (3, 32, 32)),
    "n7b_": (lambda: resnet18(1000), (3, 224, 224)),
    "n7c_": (separable, (64, 32, 32)),
}
INFERENCE = ["n1_mlp784-128-10_b1", "n1_mlp784-128-10_b64", "n2_mlp784-128-64-10_b1", "n2_mlp784-128-64-10_b64", "n3_cnn32-64_b1", "n3_cnn32-64_b64",
             "n4_lenet_b1", "n4_lenet_b64", "n5a_lstm128_s32_b1", "n5a_lstm128_s32_b32", "n7a_resnet18_cifar_b1", "n7b_resnet18_224_b1", "n7c_dwsep64-128_32x32_b1"]

PREFILL = ["n6a_gpt_L4_d128_c64", "n6b_gpt_L6_d384_c256"]


def net_of(workload):
    """net, shape of a sample, batch"""
    prefix = workload.split("_")[0] + "_"
    batch = [int(p[1:]) for p in workload.split("_") if p[:1] == "b" and p[1:].isdigit()]
    return NETS[prefix][0](), NETS[prefix][1], batch[0] if batch else 64
