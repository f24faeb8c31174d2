"""The model in plain PyTorch, decoder in both recipes: the peer our timings stand beside.

Eager modules, log-domain Sinkhorn with both modalities in one call (which halves its share), one
`nn.Linear` per projection. Nothing of pirn_jax is used here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


def sinkhorn(cost: torch.Tensor, epsilon: float = 0.05, iterations: int = 50) -> torch.Tensor:
    """Plans (..., N, K): rows sum to 1, columns to N/K."""
    s = -cost / epsilon
    n, k = s.shape[-2:]
    f = s.new_zeros((*s.shape[:-1], 1))
    for _ in range(iterations):
        g = math.log(n / k) - torch.logsumexp(s + f, dim=-2, keepdim=True)
        f = -torch.logsumexp(s + g, dim=-1, keepdim=True)
    return torch.exp(s + f + g)


def cosine_cost(z: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """1 − cos, (..., N, K)."""
    return 1 - F.normalize(z, dim=-1) @ F.normalize(p, dim=-1).transpose(-1, -2)


class Gru(nn.Module):
    """Eq. 5-8."""

    def __init__(self, c: int, update_bias: float):
        super().__init__()
        self.gates, self.candidate = nn.Linear(2 * c, 2 * c), nn.Linear(2 * c, c)
        with torch.no_grad():
            self.gates.bias[:c] = update_bias

    def forward(self, p: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Refined prototypes."""
        u, r = torch.sigmoid(self.gates(torch.cat([p, c], -1))).chunk(2, -1)
        return u * p + (1 - u) * torch.tanh(self.candidate(torch.cat([r * p, c], -1)))


class Graph(nn.Module):
    """Masked attention over the 2K prototypes."""

    def __init__(self, c: int, heads: int = 4, neighbours: int = 3):
        super().__init__()
        self.heads, self.neighbours = heads, neighbours
        self.weight = nn.Linear(c, c, bias=False)
        self.receive = nn.Parameter(torch.randn(heads, c // heads) * 0.02)
        self.send = nn.Parameter(torch.randn(heads, c // heads) * 0.02)

    def forward(self, p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Aligned prototypes."""
        x = torch.cat([p, q], 1)
        b, m, c = x.shape
        k = m // 2
        similarity = 1 - cosine_cost(p, q)
        edge = torch.eye(m, dtype=torch.bool, device=x.device).repeat(b, 1, 1)
        top = min(self.neighbours, k)
        edge[:, :k, k:].scatter_(2, similarity.topk(top, -1).indices, True)
        edge[:, k:, :k].scatter_(2, similarity.transpose(1, 2).topk(top, -1).indices, True)
        h = self.weight(x).view(b, m, self.heads, -1)
        e = (h * self.receive).sum(-1)[:, :, None] + (h * self.send).sum(-1)[:, None]
        e = F.leaky_relu(e, 0.2).masked_fill(~edge[..., None], float("-inf")).softmax(2)
        out = x + F.elu(torch.einsum("bijh,bjhd->bihd", e, h).reshape(b, m, c))
        return out[:, :k], out[:, k:]


class Cross(nn.Module):
    """Eq. 3 with its gate."""

    def __init__(self, c: int):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(c, c, bias=False) for _ in range(3))
        self.gamma = nn.Parameter(torch.tensor(0.1))

    def forward(self, z: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        """What is heard from the other modality."""
        scores = self.q(z) @ self.k(p).transpose(1, 2) / math.sqrt(z.shape[-1])
        return torch.tanh(self.gamma) * (scores.softmax(-1) @ self.v(p))


class Heads(nn.Module):
    """Projections of BPA in heads."""

    def __init__(self, c: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(c, c, bias=False) for _ in range(3))
        self.o = nn.Linear(c, c)

    def cut(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) → (B, H, N, D)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Layer(nn.Module):
    """APR, BPA, MNC; `default` adds heads, the feed-forward block and a bottleneck for Z'."""

    def __init__(self, c: int, default: bool):
        super().__init__()
        self.default = default
        self.gru = nn.ModuleList(Gru(c, 2.0 if default else 0.0) for _ in range(2))
        self.graph = Graph(c)
        self.cross = nn.ModuleList(Cross(c) for _ in range(2))
        if default:
            self.heads = nn.ModuleList(Heads(c, c // 32) for _ in range(2))
            self.narrow = nn.ModuleList(
                nn.Sequential(nn.Linear(c, c // 2, bias=False), nn.Linear(c // 2, c, bias=False))
                for _ in range(2)
            )
            self.mlp = nn.ModuleList(
                nn.Sequential(
                    nn.LayerNorm(c, eps=1e-6, elementwise_affine=False),
                    nn.Linear(c, 4 * c),
                    nn.GELU(),
                    nn.Linear(4 * c, c),
                )
                for _ in range(2)
            )

    def assign(self, zs: list, ps: list) -> list:
        """BPA of both modalities, their transport problems in one call."""
        if not self.default:
            plans = sinkhorn(torch.stack([cosine_cost(z, p) for z, p in zip(zs, ps, strict=True)]))
            return [t @ p for t, p in zip(plans, ps, strict=True)]
        costs, values = [], []
        for heads, z, p in zip(self.heads, zs, ps, strict=True):
            z, p = (F.layer_norm(x, x.shape[-1:], eps=1e-6) for x in (z, p))
            costs.append(cosine_cost(heads.cut(heads.q(z)), heads.cut(heads.k(p))))
            values.append(heads.cut(heads.v(p)))
        plans = sinkhorn(torch.stack(costs))
        return [
            heads.o((t @ v).transpose(1, 2).flatten(2))
            for heads, t, v in zip(self.heads, plans, values, strict=True)
        ]

    def forward(self, zs: list, ps: list) -> tuple[list, list]:
        """Rebuilt tokens and refined prototypes."""
        plans = sinkhorn(torch.stack([cosine_cost(z, p) for z, p in zip(zs, ps, strict=True)]))
        contexts = [
            (t / t.sum(1, keepdim=True)).transpose(1, 2) @ z for t, z in zip(plans, zs, strict=True)
        ]
        ps = [gru(p, c) for gru, p, c in zip(self.gru, ps, contexts, strict=True)]
        bpa = self.assign(zs, ps)
        aligned = self.graph(*ps)
        pure = [z * torch.sigmoid(b) for z, b in zip(zs, bpa, strict=True)]
        new = [bpa[m] + self.cross[m](pure[m], aligned[1 - m]) for m in range(2)]
        if self.default:
            new = [x + narrow(y) for x, narrow, y in zip(new, self.narrow, pure, strict=True)]
            return [x + mlp(x) for mlp, x in zip(self.mlp, new, strict=True)], ps
        return [x + y for x, y in zip(new, pure, strict=True)], ps


class Decoder(nn.Module):
    """Recipe "paper" or "default" (on tokens that are standardised already)."""

    def __init__(self, recipe: str = "paper", c: int = 768, k: int = 10, layers: int = 2):
        super().__init__()
        self.prototypes = nn.ParameterList(nn.Parameter(torch.randn(k, c)) for _ in range(2))
        self.layers = nn.ModuleList(Layer(c, recipe == "default") for _ in range(layers))

    def forward(self, rgb: torch.Tensor, normals: torch.Tensor) -> list:
        """Rebuilt tokens of both modalities."""
        zs = [rgb, normals]
        ps = [p.expand(rgb.shape[0], -1, -1) for p in self.prototypes]
        for layer in self.layers:
            zs, ps = layer(zs, ps)
        return zs


class Block(nn.Module):
    """A pre-norm transformer block with LayerScale, attention by PyTorch's fused function."""

    def __init__(self, c: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(c, eps=1e-6) for _ in range(2))
        self.qkv, self.out = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.fc1, self.fc2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)
        self.scale1, self.scale2 = (nn.Parameter(torch.ones(c)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens of the same shape (B, T, C)."""
        parts = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        x = x + self.scale1 * self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Pair(nn.Module):
    """The whole model: pictures to heatmap and score.

    Args:
        c: channels of the DINOv2 encoder.
        heads: its attention heads.
        blocks: how many of its blocks are run: all, or up to the last of `layers`.
        layers: 1-based blocks that are averaged.
        recipe: of the decoder.
    """

    def __init__(
        self, c: int, heads: int, blocks: int, layers: tuple[int, ...], recipe: str = "default"
    ):
        super().__init__()
        self.patches = nn.Conv2d(3, c, 14, 14)
        self.first = nn.Parameter(torch.zeros(1, 1, c))
        self.positions = nn.Parameter(torch.randn(1, 257, c) * 0.02)
        self.blocks = nn.ModuleList(Block(c, heads) for _ in range(blocks))
        self.layers, self.squared = layers, recipe == "default"
        self.decoder = Decoder(recipe, c)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        reach = torch.arange(-16, 17)
        kernel = torch.exp(-0.5 * (reach / 4) ** 2)
        self.register_buffer("kernel", (kernel / kernel.sum()).view(1, 1, 1, -1))

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Mean patch tokens (B, N, C) of colours in [0, 1], (B, 3, 224, 224)."""
        x = self.patches((x - self.mean) / self.std).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.positions
        total = torch.zeros((), dtype=x.dtype)
        for number, block in enumerate(self.blocks, 1):
            x = block(x)
            if number in self.layers:
                total = total + x[:, 1:]
        return total / len(self.layers)

    def forward(
        self, rgb: torch.Tensor, normals: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (B, 224, 224) and scores (B,)."""
        tokens = self.tokens(torch.cat([rgb, normals])).float()
        tokens = (tokens - tokens.mean((0, 1))) / tokens.std((0, 1))
        given = tokens.chunk(2)
        rebuilt = self.decoder(*given)
        distance = sum(
            ((e - z) ** 2).mean(-1) if self.squared else 1 - F.cosine_similarity(e, z, dim=-1)
            for e, z in zip(given, rebuilt, strict=True)
        )
        maps = F.interpolate(
            distance.view(-1, 1, 16, 16), size=224, mode="bilinear", align_corners=False
        )
        maps = F.conv2d(F.pad(maps, (16, 16, 0, 0), mode="reflect"), self.kernel)
        across = self.kernel.transpose(2, 3)
        maps = F.conv2d(F.pad(maps, (0, 0, 16, 16), mode="reflect"), across)[:, 0]
        flat = maps.flatten(1)
        return maps, flat.topk(502, 1).values.mean(1) if self.squared else flat.amax(1)
