"""The learning rate, by the clock or by the number of steps.

    rate = peak · ramp · (1 + cos π u) / 2,     u = (share - warm) / (1 - warm) from 0 to 1

`share` is how much of the time, or of the steps, is over. The ramp rises to 1 over the warm-up
share, and over `GENTLE` steps at least: on a slow machine the share alone would be a step or two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pirn_jax.errors import ConfigError

GENTLE = 50


@dataclass(frozen=True)
class Schedule:
    """How long a run lasts and how fast it learns.

    Attributes:
        minutes: of training in all, interruptions not counted; or None.
        steps: instead, so many.
        peak: the highest rate.
        warm_up: share of the whole in which the rate rises.

    Raises:
        ConfigError: neither or both of minutes and steps, or a value out of range.
    """

    minutes: float | None = None
    steps: int | None = None
    peak: float = 1e-3
    warm_up: float = 0.03

    def __post_init__(self):
        if (self.minutes is None) == (self.steps is None):
            raise ConfigError(
                f"expected either minutes or steps, got {self.minutes} and {self.steps}",
                "give --minutes, or --steps",
            )
        if (self.minutes or self.steps or 0) <= 0 or self.peak <= 0 or not 0 <= self.warm_up < 1:
            raise ConfigError(
                f"minutes, steps and learning rate must be positive and the warm-up a share, "
                f"got {self}"
            )

    def share(self, step: int, seconds: float) -> float:
        """How much is over, from 0; 1 or more at the end."""
        if self.steps is not None:
            return step / self.steps
        return seconds / (60 * (self.minutes or 0.0))

    def rate(self, step: int, share: float) -> float:
        """Of the step with this number, from 0, taken when so much is over."""
        ramp = min(1.0, (step + 1) / GENTLE)
        if share < self.warm_up:
            return self.peak * min(ramp, max(share / self.warm_up, 0.02))
        along = min((share - self.warm_up) / (1 - self.warm_up), 1.0)
        return self.peak * ramp * (1 + math.cos(math.pi * along)) / 2
