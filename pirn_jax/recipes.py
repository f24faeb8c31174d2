"""Recipes: how each method learns and judges, as frozen dataclasses, and the named sets of values.

`paper` is the literal reading of the equations; `default` is what we run unless told otherwise.
Where the two differ the comment says why. Every row of the paper's ablations is a value here:
Table 2 (assignment "softmax" is "without BPA", context "none" is "without APR", communicate False
is "without MNC"), Table 3 (modalities), 5 (prototypes), 6 (layers), 7 (context), 9 (assignment).

The text under each field is what `--change name=value` changes. What the authors of the baselines
published, `pirn_jax.baselines` says.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pirn_jax.errors import ConfigError

MODALITIES = ("rgb", "normals")
CHOICES = {
    "token_scale": (
        "none",
        "centre",
        "centre_image",
        "standardise",
        "standardise_image",
        "whiten",
        "layernorm",
    ),
    "prototype_init": ("normal", "kmeans++"),
    "solver": ("auto", "ott", "scan", "kernel"),
    "gradient": ("unroll", "implicit", "stop"),
    "context": ("ot", "topk", "global", "none"),
    "graph": ("jraph", "dense"),
    "mnc_residual": ("purified", "bottleneck", "none"),
    "bottleneck_init": ("normal", "principal"),
    "distance": ("cosine", "squared"),
    "form": ("flattened", "per_token", "mean"),
    "schedule": ("constant", "cosine"),
}
_SCALES = ("none", "centre", "standardise", "whiten")
_DISTANCES = ("cosine", "euclidean")


def check_choices(config: Any, choices: dict[str, tuple[str, ...]]) -> None:
    """Refuse a value that is not among those its field may have."""
    for entry in fields(config):
        if entry.name in choices:
            check_name(entry.name, getattr(config, entry.name), choices[entry.name])


def check_name(what: str, name: str, names: tuple[str, ...]) -> None:
    """Refuse a name that is not among those, with the nearest that is."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        # One sentence: the flag parser shows no remedy.
        question = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"{what}: expected one of {', '.join(names)}; got {name!r}{question}")


@dataclass(frozen=True)
class DecoderConfig:
    """The prototype decoder (`pirn_jax.decoder`). The values given here are the paper's."""

    modalities: tuple[str, ...] = MODALITIES
    """Which streams there are: rgb, normals, or both (paper, Table 3)."""
    prototypes: int = 10
    """K, prototypes per modality (Table 5)."""
    layers: int = 2
    """L, decoder layers (Table 6)."""
    token_scale: str = "none"
    """What is done to E before it is both input and target: none, centre (over the shots),
    centre_image (each image on its own mean), standardise (per channel), standardise_image (the
    same after centre_image), whiten, layernorm."""
    distance: str = "cosine"
    """Of a token to what it is rebuilt as, in the loss and in the score: cosine (1 - cos), or
    squared (mean over channels of the squared difference)."""
    prototype_init: str = "normal"
    """normal: N(0, 1) per coordinate; kmeans++: tokens of the shots, far from one another."""

    assignment: str = "ot"
    """BPA's cost → plan: ot, softmax (Table 2 without BPA), linear, sigmoid (Table 9), unbalanced,
    semi_relaxed, partial, sparsemax, annealed, or your own as package.module:function."""
    epsilon: float = 0.05
    """Entropic regularisation, in units of the cosine cost."""
    iterations: int = 50
    """Sinkhorn iterations, always all of them."""
    solver: str = "auto"
    """ott, scan, kernel, or auto: the fastest that equals ott to 1e-5."""
    gradient: str = "unroll"
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

    context: str = "ot"
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
    graph: str = "jraph"
    """Message passing by jraph, or the same as dense masked attention (equal to 1e-6)."""
    gate: float = 0.1
    """Initial γ; the gate is tanh γ. At 0 a few-shot run never opens it."""
    mnc_residual: str = "purified"
    """What Z_mnc starts from: purified (Z' = E ⊙ σ(Z_bpa), Eq. 4; lets an anomaly copy itself
    through), bottleneck (Z' through a linear map to half of the channels and back, which carries
    what is normal and little else), or none. With one modality Z_mnc is this alone (Table 3)."""
    bottleneck_init: str = "normal"
    """normal: random weights; principal: the shots' principal components, so that training starts
    from the best linear reconstruction."""

    def __post_init__(self) -> None:
        check_choices(self, CHOICES)
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

    form: str = "flattened"
    """flattened: INP-Former's soft mining on the cosine of whole maps; per_token: the same weights
    on per-token distances; mean: the mean distance, no mining."""
    exponent: float = 3.0
    """Power of the mining weights (d / mean d); no part in form mean."""

    def __post_init__(self) -> None:
        check_choices(self, CHOICES)
        if self.exponent < 0:
            raise ConfigError(f"exponent: expected 0 or more, got {self.exponent}", "use 1 or 3")


@dataclass(frozen=True)
class Recipe:
    """One way to build and train the decoder."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    learning_rate: float = 1e-4
    """Of Adam."""
    schedule: str = "constant"
    """constant, or cosine: up from 0 over a fifth of the steps (20 at most), then down to a
    hundredth."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise added to the input at each step, at the decoder's
    scale; the target stays whole, so that odd tokens are taken back to what is likely (Vincent,
    Neural Computation 2011)."""
    dropout: float = 0.0
    """Share of the input's values set to 0 (its mean) at each step, the target whole likewise."""
    epochs: int = 60
    """Passes over the shots (8 with all of them)."""
    batch_size: int = 4
    """Scans a step; the last, smaller batch of an epoch is never dropped."""
    copies: int = 0
    """Photometric copies of each shot to learn from as well."""
    nudges: int = 0
    """Copies turned by up to 15 degrees and shifted by up to a twentieth of the picture's sides."""

    def __post_init__(self) -> None:
        check_choices(self, CHOICES)
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout: expected a share in [0, 1), got {self.dropout}", "use 0.3")
        if not 0.0 <= self.noise < float("inf"):
            raise ConfigError(f"noise: expected 0 or more, got {self.noise}", "use 0 or 1")
        if self.loss.form == "flattened" and self.decoder.distance != "cosine":
            raise ConfigError(
                f"form flattened compares cosines, and the distance is {self.decoder.distance}",
                "use form per_token or mean",
            )
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected above 0, got {getattr(self, name)}")
        for name in ("copies", "nudges"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected 0 or more, got {getattr(self, name)}")


# The reasons in `default` are measured: experiments/RECIPE.md.
RECIPES: dict[str, Recipe] = {
    "paper": Recipe(),
    "default": Recipe(
        decoder=DecoderConfig(
            # Each image on its own mean (its light is not its defect), each channel at its own
            # scale: raw ViT outputs share a strong mean and a few outlier channels.
            token_scale="standardise_image",
            # The length of a token says much of what is odd: cosines lose it.
            distance="squared",
            prototype_init="kmeans++",
            attention=True,
            heads=0,
            mlp_ratio=4,
            update_bias=2.0,
            # The whole of Z' copies anomalies through; none of it rebuilds too little.
            mnc_residual="bottleneck",
            # 5 parts are too few to find from nothing what a subspace finds in closed form.
            bottleneck_init="principal",
        ),
        loss=LossConfig(form="mean", exponent=0.0),
        learning_rate=2e-3,
        schedule="cosine",
        # As strong as the tokens themselves. The best denoiser gives their mean weighed by
        # nearness, a soft nearest neighbour; training from so few moves towards it.
        noise=1.0,
        # No part lies twice in the same place. Copies under another light gained nothing.
        nudges=4,
    ),
}


def find_recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of that name, with fields of its decoder changed.

    Raises:
        ConfigError: no such recipe or field.
    """
    check_name("recipe", name, tuple(RECIPES))
    for change in changes:
        check_name("decoder field", change, tuple(f.name for f in fields(DecoderConfig)))
    recipe = RECIPES[name]
    return replace(recipe, decoder=replace(recipe.decoder, **changes))


# --- what it is measured against ------------------------------------------------------------------


@dataclass(frozen=True)
class TokenOptions:
    """What is learned from, and what is done to its tokens, in this order."""

    copies: int = 0
    """Photometric copies of each shot to learn from as well."""
    nudges: int = 0
    """Copies turned by up to 15 degrees and shifted by up to a twentieth of the picture's sides."""
    rotations: int = 1
    """Positions each shot is turned to, in equal steps; 1: its own, 8: every 45 degrees."""
    pool: bool = False
    """Each token becomes the mean of the valid ones among it and its 8 neighbours."""
    centre_image: bool = False
    """Each image's tokens are taken from their own mean."""
    scale: str = "none"
    """Then, by statistics of all the shots' tokens: none, centre, standardise (per channel),
    whiten."""

    def __post_init__(self) -> None:
        _check(
            self,
            {"copies": 0, "nudges": 0, "rotations": 1},
            {"scale": _SCALES, "distance": _DISTANCES},
        )


@dataclass(frozen=True)
class MemoryRecipe(TokenOptions):
    """The memory of the shots' tokens (`pirn_jax.methods.memory`)."""

    distance: str = "cosine"
    """To the nearest token: cosine (1 - cos), or euclidean."""


@dataclass(frozen=True)
class SubspaceRecipe(TokenOptions):
    """Principal components of the shots' tokens (`pirn_jax.methods.subspace`)."""

    variance: float = 0.99
    """Share of the variance that the components kept explain."""
    distance: str = "euclidean"
    """Token to its projection: euclidean (the squared length of what is missing), or cosine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.variance <= 1:
            raise ConfigError(
                f"variance: expected a share in (0, 1], got {self.variance}", "use 0.99"
            )


@dataclass(frozen=True)
class InpFormerRecipe:
    """INP-Former (`pirn_jax.methods.inp_former`); the values are its authors'."""

    augment: bool = True
    """Train on 22 copies of each shot."""
    prototypes: int = 6
    """Intrinsic normal prototypes per image."""
    blocks: int = 8
    """Of the decoder; even, as they are compared in two halves."""
    mining: float = 3.0
    """Power of the soft mining weights."""
    coherence: float = 0.2
    """Weight of the loss that draws prototypes to the image's tokens."""
    learning_rate: float = 1e-3
    """Highest; reached after the warm-up, then a cosine to a tenth of it."""
    warm_up: int = 100
    """Steps of it."""
    epochs: int = 200
    """Passes over the shots and their copies."""
    batch_size: int = 16
    """Images a step; the last, smaller batch of an epoch is dropped, unless it is the only one."""

    def __post_init__(self) -> None:
        least = {"prototypes": 1, "blocks": 2, "warm_up": 0, "epochs": 1, "batch_size": 1}
        _check(self, least, {})
        if self.blocks % 2:
            raise ConfigError(f"blocks: expected an even number, got {self.blocks}", "use 8")
        for name in ("mining", "coherence"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ConfigError(f"learning_rate: expected above 0, got {self.learning_rate}")


def _check(recipe: Any, least: dict[str, int], choices: dict[str, tuple[str, ...]]) -> None:
    for name, lowest in least.items():
        if getattr(recipe, name) < lowest:
            raise ConfigError(f"{name}: expected {lowest} or more, got {getattr(recipe, name)}")
    for name, known in choices.items():
        value = getattr(recipe, name, known[0])
        if value not in known:
            raise ConfigError(f"{name}: expected one of {', '.join(known)}; got {value!r}")


BASELINES: dict[str, MemoryRecipe | SubspaceRecipe | InpFormerRecipe] = {
    "memory": MemoryRecipe(),
    "subspace": SubspaceRecipe(),
    "inp_former": InpFormerRecipe(),
}


AnyRecipe = Recipe | MemoryRecipe | SubspaceRecipe | InpFormerRecipe
