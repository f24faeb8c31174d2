"""How a decoder is built and trained, as a frozen dataclass; the values given are the paper's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pirn_jax.decoder.config import DecoderConfig, LossConfig
from pirn_jax.errors import ConfigError, check_choices


@dataclass(frozen=True)
class TrainingRecipe:
    """One way to build and train the decoder."""

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """What it is trained for."""
    learning_rate: float = 1e-4
    """Of Adam."""
    schedule: Literal["constant", "cosine"] = "constant"
    """constant, or cosine: up from 0 over a fifth of the steps (20 at most), then down to a
    hundredth."""
    noise: float = 0.0
    """Standard deviation of the Gaussian noise added to the input at each step, at the decoder's
    scale; the target stays whole, so that odd tokens are taken back to what is likely (Vincent,
    Neural Computation 2011)."""
    dropout: float = 0.0
    """Share of the input's values set to 0 (its mean) at each step, the target whole likewise."""
    epochs: int = 60
    """Passes over the shots."""
    batch_size: int = 4
    """Scans a step; the last, smaller batch of an epoch is never dropped."""

    def __post_init__(self) -> None:
        check_choices(self)
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
