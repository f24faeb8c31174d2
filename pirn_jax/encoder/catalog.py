"""The encoders by name: sizes, layers, colour statistics, where their weights are published.

Source: DINOv2 (arXiv 2304.07193), registers (arXiv 2309.16588), DINO (arXiv 2104.14294), AugReg
(arXiv 2106.10270). "Layers 2-10" of PIRN section 4 are read as 1-based block outputs of a 12-block
encoder; deeper ones take the same share of their depth. pirn-tiny learned that mean, and gives it
after its last block.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from pirn_jax.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NORMALISED = 4, 10  # of 12 blocks: experiments/RECIPE.md
PositionRule = Literal["meta", "meta-registers", "timm", "hf", "hf-registers"]


@dataclass(frozen=True)
class EncoderConfig:
    """What one published Vision Transformer is.

    Attributes:
        name: the name used here, e.g. "dinov2-base".
        width: channels C per token.
        depth: number of blocks.
        heads: attention heads.
        patch: side of a patch in pixels.
        layers: 1-based blocks whose raw outputs are averaged unless told otherwise.
        normalised_layers: the same where each block's tokens are normalised first, so that late
            blocks, whose tokens are longer, do not outweigh early ones.
        registers: register tokens between the class token and the patches.
        mlp: "gelu" (two matrices, exact erf GELU) or "swiglu".
        hidden: channels inside the MLP (after gating, for "swiglu").
        layer_scale: whether each residual branch has a learned scale per channel.
        position_rule: how the originals resize the position embedding; see `positions.py`.
        native_size: side in pixels of the pictures its position embedding belongs to.
        epsilon: of LayerNorm; a config.json beside the weights that says another one wins.
        mean, std: of the colours the network was trained with, for pictures in [0, 1].
        hub: repository id of the published weights, or "" where none are.
        revision: the commit there whose weights these are; "" where it is not known, and the newest
            is taken.
        sha256: of the weights of that commit, where it is known.
        teacher: channels of the network this one was distilled from, by a linear head on its last
            block; its tokens then are that block's, normalised, in a basis where distances are the
            teacher's (`embedded.py`). 0: tokens are raw block outputs.
    """

    name: str
    width: int
    depth: int
    heads: int
    patch: int
    layers: tuple[int, ...]
    normalised_layers: tuple[int, ...]
    hidden: int
    registers: int = 0
    mlp: Literal["gelu", "swiglu"] = "gelu"
    layer_scale: bool = False
    position_rule: PositionRule = "meta"
    native_size: int = 224
    epsilon: float = 1e-6
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    hub: str = ""
    revision: str = ""
    sha256: str = ""
    teacher: int = 0

    def own_layers(self, normalised: bool) -> tuple[int, ...]:
        """The blocks that are averaged unless told otherwise."""
        return self.normalised_layers if normalised else self.layers

    def flops(self, image_size: tuple[int, int], last_layer: int | None = None) -> int:
        """Arithmetic of one picture's forward pass, 2 operations per multiply-add.

        Counts the matrix products only: patches, projections, attention, MLP. Normalisation,
        softmax and GELU add 1-2 %.

        Args:
            image_size: height and width in pixels.
            last_layer: the block after which it stops (1-based); None for the whole network.
        """
        patches = (image_size[0] // self.patch) * (image_size[1] // self.patch)
        tokens = 1 + self.registers + patches
        matrices = 3 if self.mlp == "swiglu" else 2
        projections = 4 * self.width**2 + matrices * self.width * self.hidden
        block = tokens * projections + 2 * tokens**2 * self.width
        embedding = patches * 3 * self.patch**2 * self.width
        last = last_layer or self.depth
        head = patches * self.width**2 if self.teacher and last == self.depth else 0
        return 2 * (embedding + last * block + head)


# Commits of the hub, as two registries of models pin them: without registers mteb's, with them Geti
# Prompt's. The hashes are those under which others keep these commits' files.
_REVISIONS = {
    "small": "ed25f3a31f01632728cabb09d1542f84ab7b0056",
    "base": "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
    "large": "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
    "giant": "611a9d42f2335e0f921f1e313ad3c1b7178d206d",
    "small-reg": "0d9846e56b43a21fa46d7f3f5070f0506a5795a9",
    "base-reg": "a1d738ccfa7ae170945f210395d99dde8adb1805",
    "large-reg": "e4c89a4e05589de9b3e188688a303d0f3c04d0f3",
    "giant-reg": "8d0d49f77fb8b5dd78842496ff14afe7dd4d85cb",
}
_SHA256 = {
    "small": "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
    "large": "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
}


def _layers(depth: int, first: int = 2, last: int = 10) -> tuple[int, ...]:
    """Blocks 2-10 of 12, or others, or the same shares of another depth."""
    return tuple(round(layer * depth / 12) for layer in range(first, last + 1))


def _dinov2(size: str, width: int, depth: int, heads: int) -> list[EncoderConfig]:
    giant = size == "giant"
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8 if giant else 4 * width
    return [
        EncoderConfig(
            name=f"dinov2-{size}{suffix}",
            width=width,
            depth=depth,
            heads=heads,
            patch=14,
            layers=_layers(depth),
            normalised_layers=_layers(depth, *_NORMALISED),
            hidden=hidden,
            registers=registers,
            mlp="swiglu" if giant else "gelu",
            layer_scale=True,
            position_rule="meta-registers" if registers else "meta",
            native_size=518,
            hub=f"facebook/dinov2-{'with-registers-' if registers else ''}{size}",
            revision=_REVISIONS[f"{size}{suffix}"],
            sha256=_SHA256.get(f"{size}{suffix}", ""),
        )
        for registers, suffix in ((0, ""), (4, "-reg"))
    ]


def _dino(size: str, width: int, heads: int, patch: int) -> EncoderConfig:
    return EncoderConfig(
        name=f"dino-vit{size}{patch}",
        width=width,
        depth=12,
        heads=heads,
        patch=patch,
        layers=_layers(12),
        normalised_layers=_layers(12, *_NORMALISED),
        hidden=4 * width,
        hub=f"facebook/dino-vit{size}{patch}",
    )


_CONFIGS = [
    *_dinov2("small", 384, 12, 6),
    *_dinov2("base", 768, 12, 12),
    *_dinov2("large", 1024, 24, 16),
    *_dinov2("giant", 1536, 40, 24),
    *(_dino(s, w, h, p) for s, w, h in (("s", 384, 6), ("b", 768, 12)) for p in (8, 16)),
    EncoderConfig(
        name="vit-tiny-16",
        width=192,
        depth=12,
        heads=3,
        patch=16,
        layers=_layers(12),
        normalised_layers=_layers(12, *_NORMALISED),
        hidden=768,
        position_rule="timm",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        hub="timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    ),
    EncoderConfig(
        name="pirn-tiny",
        width=192,
        depth=12,
        heads=3,
        patch=14,
        layers=(12,),
        normalised_layers=_layers(12, 8, 12),
        hidden=768,
        layer_scale=True,
        teacher=384,
    ),
]
CATALOG: dict[str, EncoderConfig] = {config.name: config for config in _CONFIGS}


def _spellings(config: EncoderConfig) -> set[str]:
    """The names other projects use for the same network."""
    names = {config.name, config.hub, config.hub.split("/")[-1]} - {""}
    if config.name.startswith("dinov2-"):
        size, register = config.name.split("-")[1], "-reg" in config.name
        names.add(f"dinov2_vit{size[0]}14" + ("_reg" if register else ""))  # torch.hub
        if register:
            names.add(f"dinov2reg_vit_{size}_14")  # INP-Former
        names.add(f"vit_{size}_patch14_{'reg4_' if register else ''}dinov2.lvd142m")  # timm
    elif config.name.startswith("dino-"):
        names.add(config.name.replace("dino-vit", "dino_vit"))
        size = "small" if config.width == 384 else "base"
        names.add(f"vit_{size}_patch{config.patch}_224.dino")
    return names


def encoder_config(name: str) -> EncoderConfig:
    """The catalog entry called `name`, in this or a well-known other spelling.

    Raises:
        ConfigError: no such encoder; the message offers the nearest names.
    """
    spellings = {s.lower(): config for config in _CONFIGS for s in _spellings(config)}
    if config := spellings.get(name.lower()):
        return config
    near = difflib.get_close_matches(name.lower(), list(spellings), n=2, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    raise ConfigError(f"no encoder is called {name!r}", f"{meant}Known: {', '.join(CATALOG)}")
