"""Point-MAE in PyTorch, written from its architecture, with the names of the published file."""

import numpy as np
import torch
from torch import nn


class Groups(nn.Module):
    """The mini-PointNet."""

    def __init__(self, inner, width):
        super().__init__()
        first, second, third = inner
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, first, 1), nn.BatchNorm1d(first), nn.ReLU(), nn.Conv1d(first, second, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * second, third, 1),
            nn.BatchNorm1d(third),
            nn.ReLU(),
            nn.Conv1d(third, width, 1),
        )

    def forward(self, groups):  # (G, K, 3)
        own = self.first_conv(groups.transpose(1, 2))
        shared = own.amax(2, keepdim=True).expand_as(own)
        return self.second_conv(torch.cat([shared, own], 1)).amax(2)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x):
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        return self.proj(mixed.transpose(0, 1).flatten(1))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(nn.functional.gelu(self.mlp.fc1(self.norm2(x))))


class TorchPointMae(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.encoder = Groups(size.inner, size.width)
        first = size.inner[0]
        self.pos_embed = nn.Sequential(nn.Linear(3, first), nn.GELU(), nn.Linear(first, size.width))
        self.blocks = nn.Module()
        self.blocks.blocks = nn.ModuleList(Block(size.width, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, groups, centres):
        x, position, taps = self.encoder(groups), self.pos_embed(centres), []
        for number, block in enumerate(self.blocks.blocks, 1):
            x = block(x + position)
            if number in self.size.taps:
                taps.append(self.norm(x))
        return torch.cat(taps, -1)


def random_network(size):
    """In double precision, every parameter and statistic random."""
    torch.manual_seed(0)
    network = TorchPointMae(size).double().eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2.0)
            elif value.is_floating_point() and value.ndim == 1:
                value.add_(0.2 * torch.randn_like(value))
    return network


def tokens(network, points: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Of one view (h, w, 3), zeros where nothing was measured: each step by plain loops."""
    size = network.size
    measured = (points != 0).any(-1)
    cloud = torch.from_numpy(points[measured]).double()
    chosen = [0]
    while len(chosen) < size.groups:
        away = torch.cdist(cloud, cloud[chosen]).amin(1)
        chosen.append(int(away.argmax()))
    centres = cloud[chosen]
    near = torch.cdist(centres, cloud).topk(size.neighbours, largest=False).indices
    with torch.no_grad():
        features = network(cloud[near] - centres[:, None], centres)
    squared, which = (torch.cdist(cloud, centres) ** 2).topk(3, largest=False)
    weight = 1 / (squared + 1e-8)
    weight = weight / weight.sum(1, keepdim=True)
    each = np.zeros((*measured.shape, size.channels))
    each[measured] = (features[which] * weight[..., None]).sum(1).numpy()
    height, width = (side // count for side, count in zip(measured.shape, grid, strict=True))
    found = np.zeros((*grid, size.channels))
    for place in np.ndindex(grid):
        rows, columns = (
            slice(place[axis] * step, (place[axis] + 1) * step)
            for axis, step in enumerate((height, width))
        )
        inside = measured[rows, columns]
        if inside.any():
            found[place] = each[rows, columns][inside].mean(0)
    return found.reshape(-1, size.channels)
