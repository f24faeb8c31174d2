"""The paper's equations once more, in PyTorch: one image, one modality, plain loops."""

import math

import torch
import torch.nn.functional as F


def plan(cost, epsilon=0.05, iterations=50, mass=None):
    """Rows sum to their mass, columns to its K-th part; log domain, columns first."""
    n, k = cost.shape
    mass = torch.ones(n, dtype=cost.dtype) if mass is None else mass
    f, log_mass = torch.zeros(n, dtype=cost.dtype), torch.log(mass)
    for _ in range(iterations):
        g = torch.log(mass.sum() / k) - torch.logsumexp(
            -cost / epsilon + (f + log_mass)[:, None], 0
        )
        f = -torch.logsumexp(-cost / epsilon + g[None, :], 1)
    return mass[:, None] * torch.exp(-cost / epsilon + f[:, None] + g[None, :])


def cosine(z, p):
    return 1 - F.normalize(z, dim=-1) @ F.normalize(p, dim=-1).T


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def gru(p, c, w):
    """Eq. 5-8; w holds W_z, W_r, W and their biases, matrices (out, in)."""
    u = torch.sigmoid(torch.cat([p, c], -1) @ w["z"].T + w["bz"])
    r = torch.sigmoid(torch.cat([p, c], -1) @ w["r"].T + w["br"])
    new = torch.tanh(torch.cat([r * p, c], -1) @ w["w"].T + w["b"])
    return u * p + (1 - u) * new


def refine(z, p, w, context="ot", mass=None):
    n, k = z.shape[0], p.shape[0]
    if context == "ot":
        weights = plan(cosine(z, p), mass=mass)
    elif context == "global":
        weights = torch.ones(n, k)
    else:
        weights = torch.zeros(n, k)
        for j, nearest in enumerate(cosine(z, p).T):
            weights[nearest.argsort()[: max(1, n // k)], j] = 1
    contexts = [(weights[:, j : j + 1] * z).sum(0) / weights[:, j].sum() for j in range(k)]
    return gru(p, torch.stack(contexts), w)


def attention(z, p, w, heads, mass=None):
    """BPA in heads: projections, a plan per head, concatenation, output projection."""
    q, k, v = norm(z) @ w["q"], norm(p) @ w["k"], norm(p) @ w["v"]
    out = []
    for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        out.append(plan(cosine(qh, kh), mass=mass) @ vh)
    return torch.cat(out, -1) @ w["o"] + w["bo"]


def graph(p, q, w, heads, neighbours):
    """One node at a time, over its own list of senders."""
    x = torch.cat([p, q])
    k = len(p)
    h = (x @ w["g"]).view(2 * k, heads, -1)
    similarity = F.normalize(p, dim=-1) @ F.normalize(q, dim=-1).T
    out = []
    for i in range(2 * k):
        row = similarity[i] if i < k else similarity[:, i - k]
        near = row.argsort(descending=True)[:neighbours]
        senders = [*((near + k) if i < k else near).tolist(), i]
        logits = torch.stack(
            [
                F.leaky_relu((h[i] * w["receive"]).sum(-1) + (h[j] * w["send"]).sum(-1), 0.2)
                for j in senders
            ]
        )
        weights = logits.softmax(0)
        out.append(sum(weights[a][:, None] * h[j] for a, j in enumerate(senders)).reshape(-1))
    aligned = x + F.elu(torch.stack(out))
    return aligned[:k], aligned[k:]


def cross(z, p, w):
    """Eq. 3."""
    scores = (z @ w["cq"]) @ (p @ w["ck"]).T / math.sqrt(z.shape[-1])
    return scores.softmax(-1) @ (p @ w["cv"])


def mlp(x, w):
    return x + F.gelu(norm(x) @ w["m1"] + w["mb1"]) @ w["m2"] + w["mb2"]


def flattened_loss(target, rebuilt, exponent=3.0):
    """INP-Former's: the hook scales what flows back into each location."""
    distance = (1 - F.cosine_similarity(target, rebuilt, dim=-1)).detach()
    factor = (distance / distance.mean()) ** exponent
    if rebuilt.requires_grad:
        rebuilt.register_hook(lambda g: g * factor[..., None])
    return (1 - F.cosine_similarity(target.flatten(1), rebuilt.flatten(1), dim=-1)).mean()


def per_token_loss(target, rebuilt, exponent):
    distance = 1 - F.cosine_similarity(target, rebuilt, dim=-1)
    factor = (distance / distance.mean()).detach() ** exponent
    return (factor * distance).mean()


def decode(
    streams, weights, *, heads=0, graph_heads=4, neighbours=3, residual="purified", masses=None
):
    """A whole decoder of the given layers' weights on one image, one or two modalities."""
    first = list(streams)
    z, p = list(first), list(weights["prototypes"])
    mass = masses
    for layer in weights["layers"]:
        p = [refine(z[m], p[m], layer[m], mass=mass) for m in range(len(z))]
        if heads:
            bpa = [attention(z[m], p[m], layer[m], heads, mass) for m in range(len(z))]
        else:
            bpa = [plan(cosine(z[m], p[m]), mass=mass) @ p[m] for m in range(len(z))]
        purified = [z[m] * torch.sigmoid(bpa[m]) for m in range(len(z))]
        new = list(bpa)
        if len(z) == 2:
            aligned = graph(p[0], p[1], layer[0], graph_heads, neighbours)
            gates = [torch.tanh(layer[m]["gamma"]) for m in range(2)]
            heard = [cross(purified[m], aligned[1 - m], layer[m]) for m in range(2)]
            new = [new[m] + gates[m] * heard[m] for m in range(2)]
        if residual == "purified":
            new = [new[m] + purified[m] for m in range(len(z))]
        if residual == "bottleneck":
            new = [new[m] + purified[m] @ layer[m]["down"] @ layer[m]["up"] for m in range(len(z))]
        z = [mlp(new[m], layer[m]) if "m1" in layer[m] else new[m] for m in range(len(z))]
    return z, p
