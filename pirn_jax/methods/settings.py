"""What every method's recipe holds: a frozen dataclass whose fields are flags, `--recipe.NAME`.

A method's file has a subclass with its own fields, and `RECIPES`, named sets of values of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tyro.conf import Suppress

from pirn_jax.decoder.config import MODALITIES
from pirn_jax.encoder import Blocks, Encoder
from pirn_jax.errors import ConfigError, check_choices
from pirn_jax.geometry.augmentation import Augmentations
from pirn_jax.methods.method import Method

Features = Literal["normals", "fpfh", "point-mae", "point-mae-as-published"]
"""What describes the geometry to a method, where it may be told."""
Geometry = Features | Literal["points"]
"""What describes the geometry: also the points themselves, to a method that is made for them."""


@dataclass(frozen=True)
class MethodSettings(ABC):
    """How a method learns and judges."""

    needs_both: ClassVar[str | None] = None
    """Why photograph and geometry are both needed, where one does not do."""

    foreground: Literal["mask", "all"] = "mask"
    """mask: tokens without a pixel of the part take no part in learning, and count as perfectly
    rebuilt; all: every location counts. The background is black in the pictures either way."""
    view: Literal["part", "frame"] = "part"
    """part: the encoder sees a square around the part, of one physical size for all scans, where
    points say what the part is; frame: it sees the whole frame."""
    top: float = 0.0
    """Image score: mean of this share of the map's largest values; 0: the largest."""
    own_level: float = 0.0
    """This share of what a picture has everywhere (the lower quartile of its tokens' distances) is
    taken off all of them, so that another light does not mark the whole part; 0: nothing."""
    encoder: Annotated[str, Suppress] = "auto"
    """What encoder auto means here; auto: as everywhere."""
    geometry: Annotated[Literal["grid", "open3d"], Suppress] = "grid"
    """What geometry auto means here."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name, usual in (("top", "0 or 0.01"), ("own_level", "0 or 0.5")):
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                problem = f"{name}: expected a share in [0, 1], got {share}"
                raise ConfigError(problem, f"use {usual}")

    def at_least(self, **lowest: int) -> None:
        """Refuse a field below its lowest value.

        Raises:
            ConfigError: naming the field.
        """
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected {least} or more, got {getattr(self, name)}")

    def for_detector(self, modalities: tuple[str, ...], solver: str) -> MethodSettings:
        """The same with what a detector says for itself.

        Raises:
            ConfigError: one modality, where both are needed; a solver, and the method has no
                transport problem to solve.
        """
        if self.needs_both is not None and len(modalities) != len(MODALITIES):
            raise ConfigError(
                f"{self.needs_both}; there is only {' and '.join(modalities)}",
                f"use modalities {' and '.join(MODALITIES)}, or method memory",
            )
        if solver != "auto":
            raise ConfigError(
                f"solver {solver} is of transport problems, and this method has none",
                "leave out solver, or use method pirn",
            )
        return self

    def for_shots(self, shots: int) -> dict[str, object]:
        """Fields that are others for so many shots (0: all there are), with their values."""
        del shots
        return {}

    def encoder_layers(self) -> Blocks:
        """Which of the encoder's blocks are read, and how."""
        return Blocks()

    def geometry_features(self) -> Geometry:
        """What describes the geometry: a picture of its normals, its points or features of them."""
        return "normals"

    def augmentations(self) -> Augmentations:
        """What is learned from beside each shot itself."""
        return ()

    def for_parts(self, any_angle: bool, apart: bool) -> dict[str, object]:
        """Fields that the parts seen in the shots decide, with their values.

        Args:
            any_angle: the silhouettes say that parts lie at any angle.
            apart: points tell each part from what is around it, and it fills the picture.
        """
        del any_angle, apart
        return {}

    @abstractmethod
    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Method:
        """The method, for tokens of that encoder."""
