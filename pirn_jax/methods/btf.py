"""BTF: one memory of what photograph and point histograms say of a place together.

    x    = [rgb / s_rgb, fpfh / s_fpfh]                the token of a place, both side by side
    d(x) = |x - m|,  m the nearest in the bank;        of modality m: |x_m - m_m|² / d(x)

|                | published                                      | here                           |
|----------------|------------------------------------------------|--------------------------------|
| photograph     | WideResNet-50-2, stages 2 and 3, at 28²        | the encoder's tokens           |
| geometry       | FPFH of Open3D, 100 neighbours, normals that   | FPFH of the organised grid,    |
|                | point to either side                           | normals towards the sensor     |
| scale          | none: histograms reach 200, the network's      | each modality by its deviation |
|                | channels 1 to 3, so distances are FPFH's       | (`balance`)                    |
| coreset        | 10 %, after a random projection                | everything (few shots); or a   |
|                |                                                | `share`, exact                 |
| image score    | largest distance, weighed down where its       | the map's largest value        |
|                | neighbours are far                             | (`top`)                        |
| map            | blurred as an 8-bit picture                    | as all methods here            |

The modalities' maps are the parts of the distance that are theirs; their sum is the distance.

Source: Horwitz and Hoshen 2023 (Back to the Feature, arXiv 2203.05550) and its released code.

Dimension letters: M modalities, B images, N tokens, C channels, T tokens of the shots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from pirn_jax.decoder import Params, Tokens
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.methods.coreset import coreset
from pirn_jax.methods.memory import filled, nearest
from pirn_jax.methods.method import LearnOptions
from pirn_jax.methods.scaling import TokenSettings, fit, scaled, statistics_shapes
from pirn_jax.methods.settings import Features
from pirn_jax.training import Trained, TrainingJob


@dataclass(frozen=True)
class BtfSettings(TokenSettings):
    """A memory of both modalities' tokens, side by side."""

    features: Features = "fpfh"
    """What describes the geometry: fpfh (histograms of the angles between normals), normals (the
    encoder's tokens of a picture of them), point-mae (a network; see --points-weights),
    point-mae-as-published (its batch normalisation by the scan at hand)."""
    share: float = 1.0
    """Of the tokens that is kept: the coreset. A tenth, as published, is a few dozen places of five
    shots: the extremes, which leave the usual ones far away."""
    balance: bool = True
    """Each modality's tokens are divided by their deviation, so that both weigh the same."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise ConfigError(f"share: expected a share in (0, 1], got {self.share}", "use 0.1")

    def create(self, modalities: tuple[str, ...], encoder: Encoder) -> Btf:
        """The memory, for tokens of that encoder."""
        return Btf(self, encoder.grid, encoder.channels, encoder.widths(modalities))


RECIPES = {"default": BtfSettings()}


@dataclass(frozen=True)
class Btf:
    """One bank of places.

    Attributes:
        settings: see BtfSettings; only what judges is compared.
        grid: rows and columns of the tokens.
        channels: C of the tokens as they come.
        widths: channels of each modality's; the rest of C is 0.
    """

    settings: BtfSettings = field(compare=False)
    grid: tuple[int, int]
    channels: int
    widths: tuple[int, ...]
    judges: BtfSettings = field(init=False)

    def __post_init__(self) -> None:
        judges = replace(self.settings, jitter=0, photometric=0, rotations=1, share=1.0)
        object.__setattr__(self, "judges", judges)

    def learn(self, jobs: Sequence[TrainingJob], **_: Unpack[LearnOptions]) -> list[Trained]:
        """The bank of each job; nothing is trained, so there is no history.

        Raises:
            BadInputError: no token of the shots counts.
        """
        trained = []
        for job in jobs:
            statistics, tokens = fit(self.settings, self.grid, job.shots)
            if not tokens.shape[1]:
                raise BadInputError(f"{job.name}: no token of the shots shows the part")
            deviation = np.ones(len(tokens), np.float32)
            if self.settings.balance:
                spread = np.sqrt(tokens.var(1).sum(-1))
                deviation = np.where(spread > 0, spread, 1).astype(np.float32)
            bank = coreset(np.asarray(self._places(tokens, deviation)), self.settings.share)
            parameters = {"bank": filled(bank), "deviation": deviation}
            trained.append(Trained(job.name, parameters, statistics, []))
        return trained

    def distances(
        self, parameters: Params, statistics: Params, tokens: Tokens
    ) -> tuple[Float[Array, "M B N"], None]:
        """Each modality's part of a place's distance to the nearest in the bank."""
        x = scaled(self.settings, self.grid, statistics, tokens)
        places = self._places(x, parameters["deviation"])
        bank = jnp.asarray(parameters["bank"])
        flat = places.reshape(-1, places.shape[-1])
        squares = (flat - bank[nearest(flat, bank)]) ** 2
        parts, start = [], 0
        for width in self.widths:
            parts.append(squares[:, start : start + width].sum(-1))
            start += width
        own = jnp.stack(parts)
        total = jnp.sqrt(own.sum(0))
        found = own / jnp.where(total > 0, total, 1.0)[None]
        return found.reshape(x.shape[:-1]), None

    def abstract_params(self) -> tuple[Params, Params]:
        """Shapes of parameters and statistics; -1 is any size."""
        count = len(self.widths)
        parameters = {
            "bank": jax.ShapeDtypeStruct((-1, sum(self.widths)), jnp.float32),
            "deviation": jax.ShapeDtypeStruct((count,), jnp.float32),
        }
        return parameters, statistics_shapes(self.settings.scale, count, self.channels)

    def _places(
        self,
        tokens: Float[Array | np.ndarray, "M *places C"],
        deviation: Float[Array | np.ndarray, " M"],
    ) -> Float[Array, "*places D"]:
        """All modalities' channels side by side, each over its deviation."""
        each = zip(tokens, deviation, self.widths, strict=True)
        return jnp.concatenate([x[..., :width] / size for x, size, width in each], axis=-1)
