"""The knobs of a detector and of a run, as frozen dataclasses.

`Config` is one detector: `PIRN(Config(...))`. `TrainConfig` is a run of `python -m pirn_jax.train`
and holds a `Config`. The text under each field is its `--help`. How a method learns is in its
recipe (`pirn_jax.methods`), whose fields are flags of their own: `--recipe.decoder.prototypes 50`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from tyro.conf import Suppress, arg

from pirn_jax.decoder.config import MODALITIES
from pirn_jax.encoder import Blocks, tiled_side
from pirn_jax.errors import ConfigError, check_choices, check_name
from pirn_jax.methods import MethodSettings, find_recipe, method_of, recipes_of
from pirn_jax.scans.datasets.registry import DATASETS, find_layout
from pirn_jax.scans.formats.options import Reading


@dataclass(frozen=True)
class Config:
    """One detector, from pictures to label."""

    encoder: str = "auto"
    """dinov2-small, -base, -large, -giant (each also -reg), dino-vits8, dino-vits16, dino-vitb8,
    dino-vitb16, vit-tiny-16, wide-resnet50-2, pirn-tiny (comes with the package); auto: what
    --weights holds, else DINOv2 (of recipe paper ViT-B/14) from the cache or the hub, else
    pirn-tiny."""
    weights: str | None = None
    """Safetensors file, or the folder it lies in; without it the local cache, then a download;
    random: seeded numbers, which know nothing, for benchmarks and tests."""
    points_weights: str | None = None
    """Point-MAE's safetensors file, for recipes whose features are point-mae: what
    python -m pirn_jax.encoder.convert makes of its published checkpoint; random: as above."""
    require_weights: bool = False
    """Fail rather than fall back to the encoder in the package."""
    image_size: int = 224
    """Side of the pictures the encoder sees, in pixels; a multiple of its patch."""
    tiles: int = 1
    """The picture of a scan is cut into tiles x tiles pictures of that size, neighbours of which
    share a quarter of their side: 2 shows 1.75 times the detail, by 4 passes of the encoder; 3 2.5
    times, by 9; 1: it is seen whole."""
    layers: tuple[int, ...] | None = None
    """Encoder blocks to average, counted from 1; None: the recipe's own, of 12: 4-10
    where it normalises them, as by default (pirn-tiny: 8-12); 3-10 of inp-former; else 2-10
    (pirn-tiny: 12)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the encoder's matrix products: float32 or bfloat16. The decoder is always float32."""
    runtime: Literal["jax", "openvino"] = "jax"
    """What the encoder runs on: jax, or openvino, which is faster on a CPU, most of all with dtype
    bfloat16; it must be installed: pip install 'pirn-jax[openvino]'."""
    modalities: tuple[str, ...] = MODALITIES
    """rgb, normals, or both."""
    method: str = "auto"
    """mixture (Gaussian prototypes in closed form); pirn (prototypes and a trained decoder: the
    paper's system); memory (nearest token of the shots), subspace (their principal components),
    inp-former, simplenet, cflow, cfm (needs both modalities), ast, m3dm, btf (with histograms of
    points), shape-guided (with patches of points): what they are measured against, on the same
    tokens (docs/methods.md); auto: the first that has the recipe: mixture, and pirn for recipe
    paper."""
    recipe: Annotated[str | MethodSettings, Suppress] = "default"
    """How the method learns and judges: the name of one of its recipes, or a recipe. Every method
    has default; pirn also has paper: the equations to the letter, on ViT-B/14, with Open3D's
    geometry. A recipe that equals a named one is kept by its name."""
    solver: Literal["auto", "ott", "scan", "kernel", "pallas"] = "auto"
    """Of the transport problems: ott, scan, kernel, pallas (one launch on an NVIDIA GPU); auto: the
    fastest measured that equals ott to 1e-5."""
    background: Literal["auto", "plane", "none"] = "auto"
    """plane: the plane the part lies on is found in the points and removed; none: all is kept.
    auto: decided by the shots: none where that plane goes on through the middle, as it does where
    the part itself is the plane; none also for Eyecandies and Real-IAD D3, which mark their
    background themselves. Scans without points keep everything."""
    geometry: Literal["auto", "grid", "open3d"] = "auto"
    """How normals and background are computed: grid, or open3d as in the paper (slow); auto: grid,
    of recipe paper open3d."""
    false_alarm_rate: float = 0.05
    """Share of good scans that may be called defective; the threshold is set for it."""
    part_side: Annotated[float | None, Suppress] = None
    """Side of the square around the part that the encoder sees, in metres. None: the whole frame,
    or decided by the shots, as `fit` does it."""
    seed: Annotated[int, Suppress] = 0  # a run has seeds
    """Of everything random in a model."""

    def __post_init__(self) -> None:
        method = str(self.method).replace("_", "-")
        object.__setattr__(self, "method", method_of(self.recipe) if method == "auto" else method)
        check_choices(self)
        if isinstance(self.recipe, MethodSettings):
            self._settle_recipe(self.recipe)
        if not self.modalities or len(set(self.modalities)) != len(self.modalities):
            raise ConfigError(
                f"modalities: expected one or two different ones, got {self.modalities}",
                "use rgb, normals, or both",
            )
        for name in self.modalities:
            check_name("modalities", name, MODALITIES)
        if not 0.0 < self.false_alarm_rate < 1.0:
            raise ConfigError(
                f"false_alarm_rate: expected between 0 and 1, got {self.false_alarm_rate}",
                "use 0.05",
            )
        if self.image_size < 1:
            raise ConfigError(
                f"image_size: expected 1 or more pixels, got {self.image_size}", "use 224"
            )
        if self.tiles < 1:
            raise ConfigError(f"tiles: expected 1 or more along a side, got {self.tiles}", "use 2")
        if self.part_side is not None and not 0.0 < self.part_side < math.inf:
            raise ConfigError(
                f"part_side: expected metres above 0, got {self.part_side}", "leave it to fit"
            )
        if self.require_weights and self.weights == "random":
            raise ConfigError(
                "weights are required, but random ones were asked for: leave out "
                "--require-weights, or name a network or a file"
            )
        _ = self.settings  # refuses what cannot be, before any work

    def _settle_recipe(self, recipe: MethodSettings) -> None:
        known = recipes_of(self.method)
        if type(recipe) is not type(known["default"]):
            raise ConfigError(
                f"recipe: a {type(recipe).__name__} is not of method {self.method}",
                f"give a {type(known['default']).__name__}",
            )
        for name, named in known.items():
            if recipe == named:
                object.__setattr__(self, "recipe", name)

    @property
    def chosen_recipe(self) -> MethodSettings:
        """The recipe as given, whether by name or not."""
        if isinstance(self.recipe, MethodSettings):
            return self.recipe
        return find_recipe(self.method, self.recipe)

    @property
    def settings(self) -> MethodSettings:
        """The recipe with this detector's modalities and solver.

        Raises:
            ConfigError: no such recipe, or a solver where there is nothing to solve.
        """
        return self.chosen_recipe.for_detector(self.modalities, self.solver)

    @property
    def recipe_name(self) -> str:
        """The named recipe, or the one that the recipe differs least from."""
        if isinstance(self.recipe, str):
            return self.recipe
        known = recipes_of(self.method)
        return min(known, key=lambda name: len(_differences(known[name], self.chosen_recipe)))

    @property
    def changed(self) -> dict[str, object]:
        """What differs from the recipe of that name: values by dotted names."""
        return _differences(find_recipe(self.method, self.recipe_name), self.chosen_recipe)

    @property
    def view_size(self) -> int:
        """Side of the picture of a scan, in pixels: what all its tiles cover."""
        return tiled_side(self.image_size, self.tiles)

    @property
    def geometry_method(self) -> Literal["grid", "open3d"]:
        """`geometry`, with auto decided."""
        return self.chosen_recipe.geometry if self.geometry == "auto" else self.geometry

    def encoder_layers(self) -> Blocks:
        """Which of the encoder's blocks are read, and how."""
        blocks = self.chosen_recipe.encoder_layers()
        return blocks._replace(layers=self.layers or blocks.layers)

    def for_shots(self, shots: int) -> Config:
        """The same, as its recipe is for so many shots; 0: all there are."""
        others = self.chosen_recipe.for_shots(shots)
        changed = self.changed
        return with_settings(self, {k: v for k, v in others.items() if k not in changed})


def with_settings(config: Config, changes: Mapping[str, object]) -> Config:
    """The detector with fields of its recipe changed.

    Args:
        config: the detector.
        changes: values by dotted names: {"decoder.prototypes": 50, "epochs": 30}.

    Raises:
        ConfigError: no such field, or a value of another type.
    """
    recipe = config.chosen_recipe
    for name, value in changes.items():
        recipe = _changed(recipe, name, name.split("."), value)
    return replace(config, recipe=recipe)


_Part = TypeVar("_Part")


def _changed(part: _Part, whole: str, path: list[str], value: object) -> _Part:
    assert is_dataclass(part)
    head, *rest = path
    check_name(f"recipe field {whole!r}", head, [f.name for f in fields(part)])
    old = getattr(part, head)
    if rest and not is_dataclass(old):
        raise ConfigError(f"recipe field {whole!r}: {head} has no fields", f"give {head} alone")
    if rest:
        new = _changed(old, whole, rest, value)
    else:
        new = float(value) if isinstance(old, float) and type(value) is int else value
        if type(new) is not type(old):
            raise ConfigError(
                f"recipe field {whole!r}: expected {type(old).__name__}, got {value!r}",
                f"e.g. {old}",
            )
    return replace(part, **{head: new})  # type: ignore[type-var]


def _differences(one: MethodSettings, other: MethodSettings) -> dict[str, object]:
    """The fields of the other that differ, by dotted names."""
    mine = dict(leaves(asdict(one)))
    return {name: value for name, value in leaves(asdict(other)) if mine.get(name) != value}


def leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The values of dictionaries in dictionaries, by dotted names."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Reading):
    """One run: data, shots, the detector, and where everything goes."""

    dataset: str = "synthetic"
    """synthetic (generated parts), mvtec3d, mvtec2d, eyecandies, real_iad_d3, or folder (your own
    files)."""
    data_root: str | None = None
    """Folder that holds the dataset's categories; without it the variable PIRN_DATA."""
    category: tuple[str, ...] = ()
    """Categories to train, or all. Without it: all there are; of synthetic flange and biscuit."""
    shots: int = 5
    """Good scans to learn from, per category; 0: all there are."""
    shots_order: Literal["hash", "first"] = "hash"
    """hash: chosen by SHA-256 of seed, dataset, category and key; first: the first by name."""
    seeds: tuple[int, ...] = (0,)
    """One model per category and seed; the seed chooses the shots and starts the parameters."""
    test_scans: int = 40
    """Test scans per generated category."""
    detector: Annotated[Config, arg(name="")] = field(default_factory=Config)
    """The detector."""
    out: str | None = None
    """The run folder; without it runs/<dataset>-<shots>shot."""
    overwrite: bool = False
    """Replace a run that is there already, once the new one is whole."""
    resume: bool = False
    """Go on with an interrupted run; on the same machine it ends at the same parameters."""
    parallel: Literal["auto", "none", "pmap", "sharding"] = "auto"
    """Over devices: pmap (the local ones), sharding (also those of several processes), none; auto:
    pmap where there is more than one, sharding with a coordinator."""
    coordinator: str | None = None
    """Several processes train together: HOST:PORT where the first of them is to listen. Every
    process gets the same flags but for --process, and the first alone writes. Not needed in a step
    of Slurm with --parallel sharding."""
    processes: int | None = None
    """How many processes there are; known without in a step of Slurm."""
    process: int | None = None
    """Which of them this is, from 0; known without in a step of Slurm."""
    save_seconds: float = 60.0
    """Least time between two checkpoints: what an interruption costs at most, and why a short run
    keeps none."""
    cache: str | None = None
    """Folder for features of the shots, prepared normals and compiled programs; without it the
    variable PIRN_CACHE, else ~/.cache/pirn_jax. Treat it as you treat programs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name("dataset", self.dataset, DATASETS)
        layout = find_layout(self.dataset)
        if self.overwrite and self.resume:
            raise ConfigError(
                "resume goes on with what overwrite would remove: give one of the two"
            )
        if layout.rendered and self.data_root is not None:
            raise ConfigError(
                f"{self.dataset} scans are generated and lie in no folder: leave out --data-root, "
                "or name the dataset that lies there with --dataset"
            )
        for name in self.detector.modalities:
            if name not in layout.modalities:
                there = " ".join(layout.modalities)
                what = "photographs" if there == "rgb" else there
                raise ConfigError(
                    f"{self.dataset} holds {what} only, but {name} are to be used: add "
                    f"--modalities {there}"
                )
        if self.shots < 0 or (layout.rendered and self.shots == 0):
            raise ConfigError(
                f"shots: expected 1 or more (0, all, of a real dataset only), got {self.shots}"
            )
        if self.test_scans < 1:
            raise ConfigError(f"test_scans: expected 1 or more, got {self.test_scans}", "use 20")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds: expected different numbers from 0, got {self.seeds}")
        if "all" in self.category and len(self.category) > 1:
            raise ConfigError("category all beside others", "give all, or the others")
        self._check_processes()
        if not self.save_seconds >= 0:
            raise ConfigError(f"save_seconds: expected 0 or more, got {self.save_seconds}")
        if self.detector.seed != 0:
            raise ConfigError(
                "a run's models are seeded by seeds", f"use --seeds {self.detector.seed}"
            )

    def _check_processes(self) -> None:
        if self.coordinator is None:
            if self.processes is not None or self.process is not None:
                raise ConfigError(
                    "processes and process count what meets at a coordinator: add --coordinator "
                    "HOST:PORT"
                )
            return
        host, _, port = self.coordinator.rpartition(":")
        if not (host and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigError(f"coordinator: expected HOST:PORT, got {self.coordinator!r}")
        if self.parallel not in ("auto", "sharding"):
            raise ConfigError(
                f"parallel {self.parallel} stays within a process, but a coordinator was given: "
                "use --parallel sharding"
            )
        if (self.processes is None) != (self.process is None):
            raise ConfigError("give both --processes and --process, or neither (in a Slurm step)")
        if self.processes is not None and not 0 <= (self.process or 0) < self.processes:
            raise ConfigError(
                f"process: expected 0 to {self.processes - 1}, of {self.processes}; got "
                f"{self.process}"
            )

    @property
    def folder(self) -> str:
        """The run folder."""
        shots = f"{self.shots}shot" if self.shots else "allshot"
        return self.out or os.path.join("runs", f"{self.dataset}-{shots}")

    @property
    def model_config(self) -> Config:
        """The detector as this run trains it: background and recipe as its data and shots ask."""
        own = self.detector.background == "auto" and find_layout(self.dataset).marks_background
        detector = replace(self.detector, background="none") if own else self.detector
        return detector.for_shots(self.shots)


PRESETS = ("default", "paper", "debug")


def preset(name: str) -> TrainConfig:
    """A named run to start from; paper is recipe paper and nothing else.

    Raises:
        ConfigError: no such name.
    """
    check_name("config", name, PRESETS)
    if name == "paper":
        return TrainConfig(detector=Config(recipe="paper"))
    if name == "debug":  # the whole program in seconds: for a first look, and for tests
        return TrainConfig(
            category=("flange",),
            shots=2,
            test_scans=6,
            detector=Config(encoder="pirn-tiny", image_size=56),
            out=os.path.join("runs", "debug"),
        )
    return TrainConfig()
