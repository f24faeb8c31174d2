"""INP-Former in PyTorch, written from its published definition: the oracle of the JAX one."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def norm(channels):
    return nn.LayerNorm(channels, eps=1e-8)


class Mlp(nn.Sequential):
    def __init__(self, c):
        super().__init__(nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))


class Block(nn.Module):
    """Cross-attention from x to y and an MLP; softmax for aggregation, clipped cosine to decode."""

    def __init__(self, c, heads, softmax):
        super().__init__()
        self.heads, self.softmax = heads, softmax
        self.norm1, self.norm2, self.mlp = norm(c), norm(c), Mlp(c)
        self.q, self.kv, self.proj = nn.Linear(c, c), nn.Linear(c, 2 * c), nn.Linear(c, c)
        if not softmax:
            self.learn_scale = nn.Parameter(torch.ones(heads, 1, 1))

    def split(self, x):
        b, n, c = x.shape
        return x.view(b, n, self.heads, c // self.heads).transpose(1, 2)

    def forward(self, x, y):
        q = self.split(self.q(self.norm1(x)))
        k, v = (self.split(z) for z in self.kv(self.norm1(y)).chunk(2, -1))
        if self.softmax:
            weight = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        else:
            weight = (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * self.learn_scale).relu()
        made = self.proj((weight @ v).transpose(1, 2).reshape(x.shape))
        x = x + made if self.softmax else made
        return x + self.mlp(self.norm2(x))


class InpFormer(nn.Module):
    def __init__(self, c, heads, prototypes, blocks):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(prototypes, c))
        self.aggregation = Block(c, heads, softmax=True)
        self.bottleneck = Mlp(c)
        self.decoder = nn.ModuleList(Block(c, heads, softmax=False) for _ in range(blocks))

    def forward(self, layers):
        """The mean of each half of the layers, what is made of them, and the coherence loss."""
        fused = torch.stack(layers).mean(0)
        shared = self.aggregation(self.prototypes.expand(len(fused), -1, -1), fused)
        distance = 1 - F.cosine_similarity(fused.unsqueeze(2), shared.unsqueeze(1), dim=-1)
        x, outputs = self.bottleneck(fused), []
        for block in self.decoder:
            x = block(x, shared)
            outputs.append(x)
        outputs.reverse()

        def halves(some):
            half = len(some) // 2
            return [torch.stack(part).mean(0) for part in (some[:half], some[half:])]

        return halves(layers), halves(outputs), distance.min(2).values.mean()


def soft_mining(targets, rebuilt, power=3):
    """One minus the cosine of whole maps; gradients weighed per place by (d / mean d)^power."""
    total = 0.0
    for a, b in zip(targets, rebuilt, strict=True):
        with torch.no_grad():
            d = 1 - F.cosine_similarity(a, b, dim=-1)
            factor = ((d / d.mean()) ** power).unsqueeze(-1)
        b.register_hook(lambda g, factor=factor: g * factor)
        total = total + (1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean()
    return total / len(targets)


class StableAdamW:
    """AdamW, AMSGrad, the step of each tensor divided by max(1, RMS(gradient / denominator))."""

    def __init__(self, parameters, decay=1e-4, betas=(0.9, 0.999), eps=1e-10):
        self.parameters, self.decay, self.betas, self.eps = list(parameters), decay, betas, eps
        self.memory = [[torch.zeros_like(p) for _ in range(3)] for p in self.parameters]
        self.count = 0

    @torch.no_grad()
    def step(self, rate):
        self.count += 1
        first, second = self.betas
        for p, (mean, square, largest) in zip(self.parameters, self.memory, strict=True):
            p.mul_(1 - rate * self.decay)
            mean.lerp_(p.grad, 1 - first)
            square.mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
            torch.maximum(largest, square, out=largest)
            denominator = largest.sqrt() / math.sqrt(1 - second**self.count) + self.eps
            surprise = (p.grad / denominator).norm() / math.sqrt(p.numel())
            size = rate / (1 - first**self.count) / max(1.0, surprise.item())
            p.addcdiv_(mean, denominator, value=-size)


def load(model, parameters):
    """Our parameters into the model."""

    def put(target, value):
        target.data = torch.tensor(value)

    def linear(target, found, at=...):
        put(target.weight, found["kernel"][at].T.copy())
        put(target.bias, found["bias"][at])

    def block(target, found, at=...):
        for ours, theirs in (("norm1", target.norm1), ("norm2", target.norm2)):
            put(theirs.weight, found[ours]["scale"][at])
            put(theirs.bias, found[ours]["bias"][at])
        names = {"query": target.q, "key_value": target.kv, "out": target.proj}
        for ours, theirs in (names | {"fc1": target.mlp[0], "fc2": target.mlp[2]}).items():
            linear(theirs, found[ours], at)

    put(model.prototypes, parameters["prototypes"])
    block(model.aggregation, parameters["aggregation"])
    linear(model.bottleneck[0], parameters["bottleneck"]["fc1"])
    linear(model.bottleneck[2], parameters["bottleneck"]["fc2"])
    for place, target in enumerate(model.decoder):
        block(target, parameters["decoder"], place)
        put(target.learn_scale, parameters["decoder"]["sharpness"][place].reshape(-1, 1, 1))
    return model
