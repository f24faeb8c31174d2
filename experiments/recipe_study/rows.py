"""What the recipe study compares, as data: sets, systems and their options, questions, grids.

A variant is a detector as it differs from `default`; `command.py` says what is done with it.
To ask another question, add a variant. Every one must resolve (tests/experiments/recipe_study).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from harness.changes import Change, pairs_of
from pirn_jax.scans import find_layout
from pirn_jax.scans.synthetic.generator import CATEGORIES, HELD_OUT

BOTH = ("rgb", "normals")


@dataclass(frozen=True)
class TestSet:
    """Test images that are reported together.

    Attributes:
        name: in tables.
        dataset: as for `open_dataset`.
        folder: of the dataset's categories, below `--data-root`.
        modalities: what its scans hold.
        background: as in `Config`.
        image_metrics: whether image scores count: not where another exposure behind the
            defects tells good from defective.
        selects: whether it may be used to choose an option.
        category: of the dataset, where it has another name than the set.
    """

    name: str
    dataset: str
    folder: str = ""
    modalities: tuple[str, ...] = ("rgb",)
    background: str = "none"
    image_metrics: bool = True
    selects: bool = True
    category: str = ""

    @property
    def place(self) -> str:
        """The category: what is left out when the set is reported on."""
        return self.category or self.name

    @property
    def generated(self) -> bool:
        """Whether it is rendered."""
        return find_layout(self.dataset).rendered


REAL = (
    # Frames of road surface: the plane is the part.
    TestSet("road", "mvtec3d", "mvtec3d_rgbxyz", BOTH),
    TestSet("road, RGB", "mvtec3d", "mvtec3d_rgbxyz", category="road"),
    TestSet("tire", "mvtec3d", "mvtec3d_rgb"),
    TestSet("cookie", "mvtec2d", "mvtec2d", image_metrics=False),
    TestSet("hazelnut_toy", "mvtec2d", "mvtec2d", image_metrics=False),
)
GENERATED = tuple(
    TestSet(kind, "synthetic", "", BOTH, "plane", selects=kind not in HELD_OUT)
    for kind in CATEGORIES
)


@dataclass(frozen=True)
class Variant:
    """A detector, by what it changes of `default`.

    Attributes:
        name: unique.
        change: to its settings, by dotted name (`harness.changes`); kept as pairs.
        fields: of `Config`, as pairs.
        streams: the modalities it looks at, of those a set has; a set with none of them is left
            out.
        full: only in the full grid.
        ablation: takes a part of the paper's system away, and so can never be chosen.
    """

    name: str
    change: Change = ()
    fields: tuple[tuple[str, Any], ...] = ()
    streams: tuple[str, ...] = BOTH
    full: bool = False
    ablation: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "change", pairs_of(self.change))


DEFAULT = Variant("default")

# --- systems and their options: one option for all sets, chosen by the same rule for each system --


def _memory(name: str, change: Change = (), full: bool = False) -> Variant:
    return Variant(f"memory {name}", change, (("method", "memory"),), full=full)


def _subspace(name: str, change: Change = (), full: bool = False) -> Variant:
    return Variant(f"subspace {name}", change, (("method", "subspace"),), full=full)


def _inp_former(name: str, change: Change = (), full: bool = False) -> Variant:
    return Variant(f"inp_former {name}", change, (("method", "inp-former"),), full=full)


BASELINES: dict[str, tuple[Variant, ...]] = {
    "memory": (
        _memory("raw"),
        _memory("centred", {"centre_image": True}),
        _memory("centred, pooled", {"centre_image": True, "pool": True}),
        _memory("centred, copies", {"centre_image": True, "photometric": 4}),
        _memory("standardised", {"scale": "standardise"}),
        _memory("standardised, Euclidean", {"scale": "standardise", "distance": "euclidean"}),
        _memory(
            "standardised, Euclidean, nudged",
            {"scale": "standardise", "distance": "euclidean", "jitter": 4},
        ),
        _memory(
            "standardised, centred, Euclidean",
            {"scale": "standardise", "centre_image": True, "distance": "euclidean"},
        ),
        _memory("standardised, centred", {"scale": "standardise", "centre_image": True}),
        _memory("whitened, centred", {"scale": "whiten", "centre_image": True}, full=True),
        _memory("pooled", {"pool": True}, full=True),
        _memory("rotations", {"rotations": 8}, full=True),
        _memory("copies", {"photometric": 4}, full=True),
        _memory("centred, rotations", {"centre_image": True, "rotations": 8}, full=True),
        _memory(
            "centred, pooled, copies",
            {"centre_image": True, "pool": True, "photometric": 4},
            full=True,
        ),
    ),
    "subspace": (
        _subspace("99 %"),
        _subspace("90 %", {"variance": 0.9}),
        _subspace("90 %, nudged", {"variance": 0.9, "jitter": 4}),
        _subspace("99 %, centred", {"centre_image": True}),
        _subspace(
            "90 %, centred, standardised",
            {"variance": 0.9, "centre_image": True, "scale": "standardise"},
        ),
        _subspace(
            "90 %, centred, standardised, pooled",
            {"variance": 0.9, "centre_image": True, "scale": "standardise", "pool": True},
        ),
        _subspace("99 %, centred, copies", {"centre_image": True, "photometric": 4}, full=True),
        _subspace("99 %, rotations", {"rotations": 8}, full=True),
    ),
    "inp_former": (
        _inp_former("without augmentation", {"augment": False}),
        _inp_former("22 copies", full=True),
    ),
}

PAPER = Variant("paper", fields=(("recipe", "paper"),))

# --- questions: each row against default; a row that is default costs nothing ---------------------

QUESTIONS: dict[str, tuple[Variant, ...]] = {
    "Both streams, or one? (paper: both)": (
        Variant("photograph alone", streams=("rgb",), ablation=True),
        Variant("normals alone", streams=("normals",), ablation=True),
    ),
    "Is cross-modal communication worth it? (paper: yes)": (
        Variant("without MNC: streams summed", {"decoder.communicate": False}, ablation=True),
        Variant("no messages at first: γ = 0", {"decoder.gate": 0.0}, ablation=True),
        Variant("identity residual in MNC", {"decoder.mnc_residual": "purified"}),
    ),
    "Balanced transport, or softmax? (paper: transport)": (
        Variant("softmax for BPA", {"decoder.assignment": "softmax"}, ablation=True),
        Variant(
            "unbalanced transport", {"decoder.assignment": "unbalanced"}, full=True, ablation=True
        ),
    ),
    "Is prototype refinement worth it? (paper: yes)": (
        Variant("without APR", {"decoder.context": "none"}, ablation=True),
        Variant("APR's gate half open at first", {"decoder.update_bias": 0.0}, full=True),
        Variant("APR with the mean token", {"decoder.context": "global"}, full=True, ablation=True),
    ),
    "How many prototypes? (paper: 10)": (
        Variant("K = 5", {"decoder.prototypes": 5}, full=True),
        Variant("K = 20", {"decoder.prototypes": 20}, full=True),
        Variant("K = 50", {"decoder.prototypes": 50}),
        Variant("K = 200", {"decoder.prototypes": 200}, full=True),
    ),
    "How many layers? (paper: 2)": (
        Variant("L = 1", {"decoder.layers": 1}),
        Variant("L = 3", {"decoder.layers": 3}, full=True),
    ),
    "Transport: how many heads, how soft?": (
        Variant("1 head", {"decoder.heads": 1}),
        Variant("12 heads", {"decoder.heads": 12}, full=True),
        Variant("ε = 0.02", {"decoder.epsilon": 0.02}, full=True),
        Variant("ε = 0.2", {"decoder.epsilon": 0.2}, full=True),
    ),
    "Which scale of the tokens?": (
        Variant("raw tokens", {"decoder.token_scale": "none"}, full=True),
        Variant("centred on the shots", {"decoder.token_scale": "centre"}, full=True),
        Variant("each image centred", {"decoder.token_scale": "centre_image"}),
        Variant("standardised", {"decoder.token_scale": "standardise"}),
        Variant("whitened", {"decoder.token_scale": "whiten"}, full=True),
        Variant("LayerNorm", {"decoder.token_scale": "layernorm"}, full=True),
    ),
    "Where do prototypes start?": (
        Variant("prototypes from N(0, 1)", {"decoder.prototype_init": "normal"}, full=True),
    ),
    "Which parts that the equations lack are needed?": (
        Variant("no feed-forward", {"decoder.mlp_ratio": 0}),
        Variant("no projections, no heads", {"decoder.attention": False}, full=True),
    ),
    "Which loss?": (
        Variant("cosine distance", {"decoder.distance": "cosine"}),
        Variant(
            "flattened loss, exponent 3",
            {"decoder.distance": "cosine", "loss.form": "flattened", "loss.exponent": 3.0},
            full=True,
        ),
        Variant("mining, exponent 3", {"loss.form": "per_token", "loss.exponent": 3.0}, full=True),
        Variant("mining, exponent 1", {"loss.form": "per_token", "loss.exponent": 1.0}),
    ),
    "May the input pass by the prototypes?": (
        Variant("Z' left out", {"decoder.mnc_residual": "none"}),
    ),
    "What is hidden of the input while training?": (
        Variant("nothing: no noise", {"noise": 0.0}),
        Variant("noise 0.5", {"noise": 0.5}, full=True),
        Variant("noise 2", {"noise": 2.0}, full=True),
        Variant("dropout 0.1 in place of noise", {"noise": 0.0, "dropout": 0.1}),
        Variant("dropout 0.3 in place of noise", {"noise": 0.0, "dropout": 0.3}, full=True),
    ),
    "How long, how fast?": (
        Variant("constant rate", {"schedule": "constant"}, full=True),
        Variant("rate 5e-4", {"learning_rate": 5e-4}, full=True),
        Variant("rate 4e-3", {"learning_rate": 4e-3}, full=True),
        Variant("15 epochs", {"epochs": 15}, full=True),
        Variant("30 epochs", {"epochs": 30}),
        Variant("120 epochs", {"epochs": 120}, full=True),
    ),
    "Do copies of the shots help?": (
        Variant("no copies", {"jitter": 0}),
        Variant("8 turned and shifted", {"jitter": 8}, full=True),
        Variant("4 photometric, none turned", {"jitter": 0, "photometric": 4}),
        Variant("2 photometric as well", {"photometric": 2}, full=True),
    ),
    "Where does Z' start?": (
        Variant("bottleneck from random weights", {"decoder.bottleneck_init": "normal"}),
    ),
    "Which image score?": (
        Variant("mean of the top 1 %", {"top": 0.01}),
        Variant("the highest value alone", {"top": 0.0}),
    ),
}

CANDIDATES = (
    DEFAULT,
    *(row for rows in QUESTIONS.values() for row in rows if not row.ablation),
)
"""What "ours, chosen" is chosen among: rows that keep APR, BPA and MNC."""

POOLS: dict[str, tuple[tuple[str, ...], ...]] = {
    "RGB + geometry": (HELD_OUT, ("road",)),
    "real RGB": (("tire",), ("road, RGB",), ("cookie",), ("hazelnut_toy",)),
    "generated": (CATEGORIES,),
    "all": (CATEGORIES, ("road",), ("tire",), ("cookie",), ("hazelnut_toy",)),
}
"""Means over sets: of the mean of each group, of the sets that were run and count the metric. Two
groups of "RGB + geometry" weigh the same: generated parts that chose nothing, and the road."""

# --- how much of it -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """How much of the study is run.

    Attributes:
        kinds: of generated parts that options are chosen on.
        test_scans: of each kind.
        draws: of the shots, in the main comparison with 5 shots.
        draws_beside: the same with 10 shots and with 1.
        draws_shifted: the first of either, under shift.
        draws_selection: for choosing options, and for questions; the first of `draws`.
        draws_slow: of INP-Former.
        sets_slow: that it is run on; all without names.
        shots_slow: that it is run with.
        seeds: of the initialisation, at the first draw, for its own spread.
        draws_larger: of larger pictures than the first size: real sets, 5 shots.
        full: rows that are marked so too.
        replicates: of the bootstrap.
    """

    kinds: tuple[str, ...]
    test_scans: int
    draws: int
    draws_beside: int
    draws_shifted: int
    draws_selection: int
    draws_slow: int
    sets_slow: tuple[str, ...]
    shots_slow: tuple[int, ...]
    seeds: int
    draws_larger: int
    full: bool
    replicates: int


_BRIEF = Grid(
    kinds=("flange",),
    test_scans=30,
    draws=3,
    draws_beside=2,
    draws_shifted=1,
    draws_selection=1,
    draws_slow=1,
    sets_slow=(),
    shots_slow=(5, 10),
    seeds=3,
    draws_larger=2,
    full=False,
    replicates=1000,
)

GRIDS = {
    "reduced": replace(
        _BRIEF,
        kinds=("flange", "heatsink"),
        test_scans=40,
        draws=5,
        draws_beside=2,
        draws_shifted=2,
        draws_selection=2,
        sets_slow=(*HELD_OUT, "road", "tire"),
        shots_slow=(5,),
        draws_larger=2,
    ),
    "full": Grid(
        kinds=tuple(kind for kind in CATEGORIES if kind not in HELD_OUT),
        test_scans=60,
        draws=5,
        draws_beside=5,
        draws_shifted=5,
        draws_selection=5,
        draws_slow=2,
        sets_slow=(),
        shots_slow=(5, 10),
        seeds=5,
        draws_larger=5,
        full=True,
        replicates=2000,
    ),
    # An hour or two on two cores for one size: few draws, so wide intervals; says which way, not
    # how far.
    "brief": _BRIEF,
    # The whole machinery at little cost; its figures mean nothing.
    "tiny": replace(
        _BRIEF,
        test_scans=12,
        draws=2,
        draws_beside=1,
        sets_slow=("road",),
        shots_slow=(5,),
        seeds=2,
        draws_larger=1,
        replicates=100,
    ),
}
