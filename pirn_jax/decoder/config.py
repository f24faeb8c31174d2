"""What a decoder is, and the loss it is trained with, as frozen dataclasses.

Every row of the paper's ablations is a value here: Table 2 (assignment "softmax" is "without BPA",
context "none" is "without APR", communicate False is "without MNC"), Table 3 (modalities), 5
(prototypes), 6 (layers), 7 (context), 9 (assignment). The values given are the paper's; the text
under each field is its `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Suppress

from pirn_jax.errors import ConfigError, check_choices, check_name

MODALITIES = ("rgb", "normals")


@dataclass(frozen=True)
class DecoderConfig:
    """The prototype decoder (`pirn_jax.decoder`). The values given here are the paper's."""

    modalities: Annotated[tuple[str, ...], Suppress] = MODALITIES
    """Which streams there are: rgb, normals, or both (paper, Table 3); a detector's own say."""
    prototypes: int = 10
    """K, prototypes per modality (Table 5)."""
    layers: int = 2
    """L, decoder layers (Table 6)."""
    token_scale: Literal[
        "none",
        "centre",
        "centre_image",
        "standardise",
        "standardise_image",
        "whiten",
        "layernorm",
    ] = "none"
    """What is done to E before it is both input and target: none, centre (over the shots),
    centre_image (each image on its own mean), standardise (per channel), standardise_image (the
    same after centre_image), whiten, layernorm."""
    distance: Literal["cosine", "squared"] = "cosine"
    """Of a token to what it is rebuilt as, in the loss and in the score: cosine (1 - cos), or
    squared (mean over channels of the squared difference)."""
    prototype_init: Literal["normal", "kmeans++"] = "normal"
    """normal: N(0, 1) per coordinate; kmeans++: tokens of the shots, far from one another."""

    assignment: str = "ot"
    """BPA's cost → plan: ot, softmax (Table 2 without BPA), linear, sigmoid (Table 9), unbalanced,
    semi_relaxed, partial, sparsemax, annealed, or your own as package.module:function."""
    epsilon: float = 0.05
    """Entropic regularisation, in units of the cosine cost."""
    iterations: int = 50
    """Sinkhorn iterations, always all of them."""
    solver: Annotated[Literal["auto", "ott", "scan", "kernel", "pallas"], Suppress] = "auto"
    """ott, scan, kernel, pallas, or auto: the fastest measured that equals ott to 1e-5; a
    detector's own says."""
    gradient: Literal["unroll", "implicit", "stop"] = "unroll"
    """Gradient of the plan: unroll (through the iterations), implicit (at their limit), stop."""
    attention: bool = False
    """BPA with LayerNorm and learned query, key, value and output projections, in heads.
    False: Eq. 2 as it stands, on the tokens and prototypes themselves."""
    heads: int = 6
    """Most heads of that attention: the largest divisor of the channels up to it is taken. 0: one
    for every 32 channels."""
    mlp_ratio: int = 0
    """Hidden width of a feed-forward block after each layer, in channels; 0: none, as in the
    equations (Table 4's 103.36 GFLOPs leave room for one of ratio 4)."""

    context: Literal["ot", "topk", "global", "none"] = "ot"
    """APR's context per prototype: ot, topk (its N/K nearest tokens), global (the mean token), or
    none: prototypes as learned (Tables 2 and 7)."""
    update_bias: float = 0.0
    """Initial bias of APR's update gate u; u near 1 keeps the prototype as it is."""

    communicate: bool = True
    """MNC: prototypes and tokens of the modalities inform each other (Table 2)."""
    neighbours: int = 3
    """Nearest prototypes of the other modality each prototype listens to."""
    graph_heads: int = 4
    """Heads of the graph attention; must divide the channels."""
    graph: Literal["jraph", "dense"] = "jraph"
    """Message passing by jraph, or the same as dense masked attention (equal to 1e-6), which has no
    gather in it and so can be exported."""
    gate: float = 0.1
    """Initial γ; the gate is tanh γ. At 0 a few-shot run never opens it."""
    mnc_residual: Literal["purified", "bottleneck", "none"] = "purified"
    """What Z_mnc starts from: purified (Z' = E ⊙ σ(Z_bpa), Eq. 4; lets an anomaly copy itself
    through), bottleneck (Z' through a linear map to half of the channels and back, which carries
    what is normal and little else), or none. With one modality Z_mnc is this alone (Table 3)."""
    bottleneck_init: Literal["normal", "principal"] = "normal"
    """normal: random weights; principal: the shots' principal components, so that training starts
    from the best linear reconstruction."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ConfigError(
                f"expected one or two different modalities, got {self.modalities}",
                "use rgb, normals, or both",
            )
        for name in self.modalities:
            check_name("modalities", name, MODALITIES)
        for name in ("prototypes", "layers", "iterations", "neighbours", "graph_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name}: expected 1 or more, got {getattr(self, name)}", "raise it"
                )
        for name in ("heads", "mlp_ratio"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name}: expected 0 or more, got {getattr(self, name)}", "use 0 or 4"
                )
        if not self.epsilon > 0:
            raise ConfigError(f"epsilon: expected above 0, got {self.epsilon}", "use 0.05")
        if self.gradient == "implicit" and self.assignment != "ot":
            raise ConfigError(
                f"gradient implicit needs assignment ot, got {self.assignment}",
                "use gradient unroll",
            )


@dataclass(frozen=True)
class LossConfig:
    """The training loss (`pirn_jax.decoder.loss`)."""

    form: Literal["flattened", "per_token", "mean"] = "flattened"
    """flattened: INP-Former's soft mining on the cosine of whole maps; per_token: the same weights
    on per-token distances; mean: the mean distance, no mining."""
    exponent: float = 3.0
    """Power of the mining weights (d / mean d); no part in form mean."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.exponent < 0:
            raise ConfigError(f"exponent: expected 0 or more, got {self.exponent}", "use 1 or 3")
