"""The knobs of a detector and of a run, as frozen dataclasses.

`Config` is one detector: `PIRN(Config(...))`. `TrainConfig` is a run of `python -m pirn_jax.train`
and holds a `Config`. The text under each field is its `--help`. How a method learns is in its
recipe (`pirn_jax.recipes`).
"""

from __future__ import annotations

import ast
import os
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

import tyro

from pirn_jax.errors import ConfigError
from pirn_jax.recipes import (
    BASELINES,
    MODALITIES,
    AnyRecipe,
    DecoderConfig,
    LossConfig,
    Recipe,
    check_choices,
    check_name,
    find_recipe,
)
from pirn_jax.recipes import CHOICES as RECIPE_CHOICES

CHOICES = {
    "solver": RECIPE_CHOICES["solver"],
    "method": ("pirn", *BASELINES),
    "dtype": ("float32", "bfloat16"),
    "runtime": ("jax", "openvino"),
    "background": ("auto", "plane", "none"),
    "geometry": ("grid", "open3d"),
}


@dataclass(frozen=True)
class Config:
    """One detector, from pictures to label."""

    encoder: str = "auto"
    """dinov2-small, -base, -large, -giant (each also -reg), dino-vits8, dino-vits16, dino-vitb8,
    dino-vitb16, vit-tiny-16, demo (seeded weights that know nothing); auto: what --weights holds,
    else DINOv2 from the cache or the hub, else demo."""
    weights: str | None = None
    """Safetensors file, or the folder it lies in; without it the local cache, then a download."""
    require_weights: bool = False
    """Fail rather than fall back to the demo encoder."""
    image_size: int = 224
    """Side of the pictures the encoder sees, in pixels; a multiple of its patch."""
    layers: tuple[int, ...] | None = None
    """Encoder blocks to average, counted from 1; None: the network's own (2-10 of 12)."""
    dtype: str = "float32"
    """Of the encoder's matrix products: float32 or bfloat16. The decoder is always float32."""
    runtime: str = "jax"
    """What the encoder runs on: jax, or openvino, which is faster on a CPU, most of all with dtype
    bfloat16; it must be installed: pip install 'pirn-jax[openvino]'."""
    modalities: tuple[str, ...] = MODALITIES
    """rgb, normals, or both."""
    method: str = "pirn"
    """pirn; memory (nearest token of the shots), subspace (their principal components), inp_former:
    what it is measured against, on the same tokens."""
    recipe: str = "default"
    """Of pirn: how the decoder is built and trained: default, or paper (the equations to the
    letter). The other methods have one recipe each."""
    change: tuple[str, ...] = ()
    """Fields of the method's recipe to change, each as name=value: epochs=30 prototypes=6
    context=none; of memory: distance=euclidean pool=True."""
    solver: str = "auto"
    """Of the transport problems: ott, scan, kernel; auto: the fastest that equals ott to 1e-5."""
    background: str = "auto"
    """plane: the plane the part lies on is found in the points and removed; none: all is kept.
    auto: decided by the shots: none where that plane goes on through the middle, as it does where
    the part itself is the plane; none also for Eyecandies and Real-IAD D3, which mark their
    background themselves. Scans without points keep everything."""
    geometry: str = "grid"
    """How normals and background are computed: grid, or open3d as in the paper (slow)."""
    top: float | None = None
    """Image score: mean of this share of the map's largest values; 0: the largest. None: as the
    method's authors do: 0.01 for inp_former and subspace, 0 for memory and recipe paper; 0.01 for
    recipe default."""
    false_alarm_rate: float = 0.05
    """Share of good scans that may be called defective; the threshold is set for it."""
    seed: Annotated[int, tyro.conf.Suppress] = 0  # a run has seeds
    """Of everything random in a model."""

    def __post_init__(self) -> None:
        check_choices(self, CHOICES)
        if self.top is not None and not 0.0 <= self.top <= 1.0:
            raise ConfigError(f"top: expected a share in [0, 1], got {self.top}", "use 0 or 0.01")
        if not 0.0 < self.false_alarm_rate < 1.0:
            raise ConfigError(
                f"false_alarm_rate: expected between 0 and 1, got {self.false_alarm_rate}",
                "use 0.05",
            )
        if self.image_size < 1:
            raise ConfigError(
                f"image_size: expected 1 or more pixels, got {self.image_size}", "use 224"
            )
        if self.require_weights and (self.encoder == "demo" or self.weights == "random"):
            raise ConfigError(
                "weights are required, but the encoder asked for has none: leave out "
                "--require-weights, or name a network or a file"
            )
        if self.encoder == "demo" and self.weights not in (None, "random"):
            raise ConfigError(
                "the demo encoder has no weights to load: name the network the file is of"
            )
        self.resolved_recipe()  # refuses what cannot be, before any work

    @property
    def top_share(self) -> float:
        """`top`, with None decided by the method."""
        if self.top is not None:
            return self.top
        if self.method == "pirn":
            return 0.0 if self.recipe == "paper" else 0.01
        return 0.01 if self.method in ("inp_former", "subspace") else 0.0

    def resolved_recipe(self) -> AnyRecipe:
        """The method's recipe with this detector's modalities, solver and changes.

        Raises:
            ConfigError: no such recipe or field, or a value that does not fit.
        """
        # The modalities themselves are checked there, whatever the method.
        recipe: Any = find_recipe(self.recipe, modalities=self.modalities, solver=self.solver)
        parts: dict[str, dict[str, Any]] = {"decoder": {}, "loss": {}, "": {}}
        if self.method == "pirn":
            own = ("modalities", "solver")  # these have flags of their own
            places = {f.name: "" for f in fields(Recipe) if f.name not in parts}
            places |= {f.name: "loss" for f in fields(LossConfig)}
            places |= {f.name: "decoder" for f in fields(DecoderConfig) if f.name not in own}
        else:
            for name, meant in (("recipe", "default"), ("solver", "auto")):
                if getattr(self, name) != meant:
                    raise ConfigError(
                        f"{name} {getattr(self, name)} is pirn's, and the method is {self.method}",
                        f"leave out {name}, or use method pirn",
                    )
            recipe = BASELINES[self.method]
            places = {f.name: "" for f in fields(recipe)}
        for change in self.change:
            name, sign, value = change.partition("=")
            if not sign:
                raise ConfigError(f"change: expected name=value, got {change!r}", "e.g. epochs=30")
            check_name("change", name, tuple(places))
            part = places[name]
            old = getattr(getattr(recipe, part) if part else recipe, name)
            parts[part][name] = _value(name, value, old)
        if self.method != "pirn":
            return replace(recipe, **parts[""])
        return replace(
            recipe,
            decoder=replace(recipe.decoder, **parts["decoder"]),
            loss=replace(recipe.loss, **parts["loss"]),
            **parts[""],
        )


def _value(name: str, text: str, old: Any) -> Any:
    """A changed field's value, of the type of the one it replaces."""
    try:
        value = text if isinstance(old, str) else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(old, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(old):
        raise ConfigError(f"{name}: expected {type(old).__name__}, got {text!r}", f"e.g. {old}")
    return value


@dataclass(frozen=True)
class TrainConfig:
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
    shots_order: str = "hash"
    """hash: chosen by SHA-256 of seed, dataset, category and key; first: the first by name."""
    seeds: tuple[int, ...] = (0,)
    """One model per category and seed; the seed chooses the shots and starts the parameters."""
    test_scans: int = 20
    """Test scans per generated category."""
    unit: str = "auto"
    """Of point files: m, mm, or auto (metres as released; your own files must be unmistakable)."""
    detector: Config = field(default_factory=Config)
    """The detector."""
    out: str | None = None
    """The run folder; without it runs/<dataset>-<shots>shot."""
    overwrite: bool = False
    """Remove a run folder that is there already."""
    resume: bool = False
    """Go on with an interrupted run; ends at the same parameters."""
    parallel: str = "auto"
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
    """Folder for features of the shots and compiled programs; without it the variable PIRN_CACHE,
    else ~/.cache/pirn_jax. Treat it as you treat programs."""

    def __post_init__(self) -> None:
        names = {
            "dataset": ("synthetic", "mvtec3d", "mvtec2d", "eyecandies", "real_iad_d3", "folder"),
            "shots_order": ("hash", "first"),
            "unit": ("auto", "m", "mm"),
            "parallel": ("auto", "none", "pmap", "sharding"),
        }
        for name, known in names.items():
            check_name(name, getattr(self, name), known)
        if self.overwrite and self.resume:
            raise ConfigError(
                "resume goes on with what overwrite would remove: give one of the two"
            )
        if self.dataset == "synthetic" and self.data_root is not None:
            raise ConfigError(
                "synthetic scans are generated and lie in no folder: leave out --data-root, or "
                "name the dataset that lies there with --dataset"
            )
        if self.dataset == "mvtec2d" and "normals" in self.detector.modalities:
            raise ConfigError(
                "mvtec2d holds photographs only, but normals are to be used: add --modalities rgb"
            )
        if self.shots < 0 or (self.dataset == "synthetic" and self.shots == 0):
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
    def background(self) -> str:
        """The detector's background; auto is none where the dataset marks its own."""
        marked = self.dataset in ("eyecandies", "real_iad_d3")
        return "none" if marked and self.detector.background == "auto" else self.detector.background


PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "paper": TrainConfig(detector=Config(recipe="paper", geometry="open3d")),
    # The whole program in seconds: for a first look, and for tests.
    "debug": TrainConfig(
        category=("flange",),
        shots=2,
        test_scans=6,
        detector=Config(encoder="demo", image_size=56, change=("epochs=2",)),
        out=os.path.join("runs", "debug"),
    ),
}
