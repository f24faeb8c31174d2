"""How the projects that publish these networks name their tensors, and what becomes of each.

A scheme (`Names`) and a network give a table: parameter path → the keys it is made of, the shapes
they must have, and how they are put together. `weights.py` reads files by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pirn_jax.encoder.catalog import EncoderConfig
from pirn_jax.encoder.embedded import folded_bias, folded_kernel
from pirn_jax.errors import WeightsError

Shape = tuple[int, ...]


class Names(NamedTuple):
    """How one project names the tensors: `{i}` the 0-based block; ".weight", ".bias" left off."""

    project: str
    cls: str
    positions: str
    registers: tuple[str, ...]
    patches: str
    norm1: str
    qkv: tuple[str, ...]
    out: str
    scale1: str
    norm2: str
    mlp: tuple[tuple[str, str], ...]  # alternatives of (into, out of) the MLP
    scale2: str
    ignored: tuple[str, ...]  # present in files, of no use to raw patch tokens: key prefixes


_HF = "encoder.layer.{i}."
_HF_QKV = tuple(f"{_HF}attention.attention.{part}" for part in ("query", "key", "value"))
_HF_DINOV2 = Names(
    project="transformers (DINOv2)",
    cls="embeddings.cls_token",
    positions="embeddings.position_embeddings",
    registers=("embeddings.register_tokens",),
    patches="embeddings.patch_embeddings.projection",
    norm1=f"{_HF}norm1",
    qkv=_HF_QKV,
    out=f"{_HF}attention.output.dense",
    scale1=f"{_HF}layer_scale1.lambda1",
    norm2=f"{_HF}norm2",
    mlp=((f"{_HF}mlp.fc1", f"{_HF}mlp.fc2"), (f"{_HF}mlp.weights_in", f"{_HF}mlp.weights_out")),
    scale2=f"{_HF}layer_scale2.lambda1",
    ignored=("embeddings.mask_token", "layernorm.", "classifier.", "pooler."),
)
_HF_VIT = _HF_DINOV2._replace(
    project="transformers (ViT)",
    norm1=f"{_HF}layernorm_before",
    norm2=f"{_HF}layernorm_after",
    mlp=((f"{_HF}intermediate.dense", f"{_HF}output.dense"),),
)
_TIMM = Names(
    project="timm or Meta",
    cls="cls_token",
    positions="pos_embed",
    registers=("register_tokens", "reg_token"),
    patches="patch_embed.proj",
    norm1="blocks.{i}.norm1",
    qkv=("blocks.{i}.attn.qkv",),
    out="blocks.{i}.attn.proj",
    scale1="blocks.{i}.ls1.gamma",
    norm2="blocks.{i}.norm2",
    mlp=(
        ("blocks.{i}.mlp.fc1", "blocks.{i}.mlp.fc2"),
        ("blocks.{i}.mlp.w12", "blocks.{i}.mlp.w3"),
    ),
    scale2="blocks.{i}.ls2.gamma",
    ignored=("mask_token", "norm.", "head.", "fc_norm."),
)


class Rule(NamedTuple):
    """One parameter: where it comes from and how it is made."""

    sources: tuple[str, ...]
    shapes: tuple[Shape, ...]
    build: Callable[..., np.ndarray]


def recognise(keys: set[str], path: Path) -> tuple[Names, str]:
    """Recognise the naming scheme and the prefix a wrapping model put before every key."""
    for key in sorted(keys, key=len):
        for names in (_HF_VIT, _HF_DINOV2, _TIMM):
            prefix = key.removesuffix(names.patches + ".weight")
            if prefix == key:
                continue
            if names is _HF_VIT and prefix + names.norm1.format(i=0) + ".weight" not in keys:
                continue
            return names, prefix
    some = ", ".join(sorted(keys)[:5]) or "nothing"
    raise WeightsError(
        f"holds no Vision Transformer that is known here; it has {some}, …",
        "expected the names of transformers (Dinov2Model, ViTModel), timm, or Meta",
        path,
    )


def mapping(
    config: EncoderConfig, names: Names, prefix: str, header: Mapping[str, Shape], blocks: int
) -> dict[str, Rule]:
    """The table: parameter path → rule, for a file with this header and number of blocks."""
    width, patch = config.width, config.patch
    rules: dict[str, Rule] = {}

    def vector(target: str, source: str, size: int = width) -> None:
        rules[target] = Rule((prefix + source,), ((size,),), lambda v: v)

    def norm(target: str, source: str) -> None:
        vector(f"{target}.scale", f"{source}.weight")
        vector(f"{target}.bias", f"{source}.bias")

    def linear(target: str, sources: tuple[str, ...], inputs: int, outputs: int) -> None:
        part = outputs // len(sources)
        kernels = tuple(f"{prefix}{s}.weight" for s in sources)
        biases = tuple(f"{prefix}{s}.bias" for s in sources)
        rules[f"{target}.kernel"] = Rule(
            kernels, ((part, inputs),) * len(sources), lambda *w: np.concatenate(w).T
        )
        rules[f"{target}.bias"] = Rule(
            biases, ((part,),) * len(sources), lambda *b: np.concatenate(b)
        )

    rules["patches.kernel"] = Rule(
        (f"{prefix}{names.patches}.weight",),
        ((width, 3, patch, patch),),
        lambda w: w.transpose(2, 3, 1, 0).reshape(-1, width),
    )
    vector("patches.bias", f"{names.patches}.bias")
    tokens = [(prefix + names.cls, (1, 1, width))]
    if config.registers:
        choices = [prefix + name for name in names.registers]
        found = next((c for c in choices if c in header), choices[0])
        tokens.append((found, (1, config.registers, width)))
    rules["prefix"] = Rule(
        tuple(key for key, _ in tokens),
        tuple(shape for _, shape in tokens),
        lambda *t: np.concatenate(t, axis=1)[0],
    )
    stored = header.get(prefix + names.positions, ())
    # timm's register models keep no position for the class token
    leading = 0 if f"{prefix}reg_token" in header else 1
    count = stored[1] - leading if len(stored) == 3 else 0
    expected = (1, max(1, math.isqrt(max(count, 0))) ** 2 + leading, width)
    rules["positions"] = Rule((prefix + names.positions,), (expected,), lambda p: p[0])

    if config.teacher:
        norm("norm", "layernorm")
        head, bias = f"{prefix}head.weight", f"{prefix}head.bias"
        shapes = (config.teacher, width), (config.teacher,)
        # Symmetric: the same as a kernel, which is transposed.
        rules["head.kernel"] = Rule((head,), shapes[:1], folded_kernel)
        rules["head.bias"] = Rule((head, bias), shapes, folded_bias)

    for i in range(blocks):
        at = {field: value for field, value in names._asdict().items() if isinstance(value, str)}
        at = {field: value.format(i=i) for field, value in at.items()}
        fc1, fc2 = next(
            (pair for pair in names.mlp if f"{prefix}{pair[0].format(i=i)}.weight" in header),
            names.mlp[-1 if config.mlp == "swiglu" else 0],
        )
        norm(f"blocks.{i}.norm1", at["norm1"])
        linear(
            f"blocks.{i}.attention.qkv", tuple(q.format(i=i) for q in names.qkv), width, 3 * width
        )
        linear(f"blocks.{i}.attention.out", (at["out"],), width, width)
        norm(f"blocks.{i}.norm2", at["norm2"])
        into = config.hidden * (2 if config.mlp == "swiglu" else 1)
        linear(f"blocks.{i}.mlp.fc1", (fc1.format(i=i),), width, into)
        linear(f"blocks.{i}.mlp.fc2", (fc2.format(i=i),), config.hidden, width)
        if config.layer_scale:
            vector(f"blocks.{i}.scale1", at["scale1"])
            vector(f"blocks.{i}.scale2", at["scale2"])
    return rules
