"""What a detector is: its config, its frozen encoder, and what it has learned.

Dimension letters: M modalities, S shots and their copies, N tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable

import jax
import numpy as np

from pirn_jax.config import Config
from pirn_jax.decoder import Params, Tokens
from pirn_jax.detector.encoders import describes_as, features_of, open_encoder
from pirn_jax.detector.inference import Inference, build_inference
from pirn_jax.detector.preprocessing import NOTHING_KEPT
from pirn_jax.detector.reference import Reference
from pirn_jax.encoder import Encoder
from pirn_jax.encoder.packed import Packed, pack
from pirn_jax.errors import ConfigError
from pirn_jax.geometry.prepared import PreparedCache
from pirn_jax.geometry.sight import SightLimits
from pirn_jax.methods.method import Method
from pirn_jax.scoring import Calibration, calibrate, fix_threshold


class DetectorState:
    """A detector before and after it was fitted; see `pirn_jax.detector.PIRN`."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        encoder: Encoder | None = None,
        prepared: PreparedCache = NOTHING_KEPT,
    ):
        self.asked = Config() if config is None else config
        self.prepared = prepared
        self.forget()
        if encoder is not None and encoder.tiles != self.config.tiles:
            raise ConfigError(
                f"tiles: {self.config.tiles} a side, with an encoder for {encoder.tiles}",
                "load it with open_encoder(config)",
            )
        self._encoder = None if encoder is None else encoder.read(self.config.encoder_layers())

    def forget(self) -> None:
        """Be as before anything was learned: what it decided, and every threshold, goes too."""
        self.config = self.asked
        self.calibration: Calibration | None = None
        self.sight: SightLimits | None = None
        self.reference: Reference | None = None
        self.origin: dict[str, object] = {}
        self.model_id = ""
        self.shots: Tokens | None = None
        self._learned: tuple[Params, Params] | None = None
        self._placed: tuple[Params | Packed, Params | Packed] | None = None
        self._inference: tuple[tuple[Encoder, Method, float, float], Inference] | None = None

    @property
    def encoder(self) -> Encoder:
        """The frozen encoder."""
        if self._encoder is None:
            self._encoder = open_encoder(self.config)
        return self._encoder

    @property
    def random_weights(self) -> bool:
        """Whether the encoder's weights are random numbers, so that results mean little."""
        return not self.encoder.source.path

    @property
    def method(self) -> Method:
        """The method of the config, for tokens of the encoder.

        Raises:
            ConfigError: the encoder describes geometry as to another method.
        """
        if not describes_as(self.encoder, self.config):
            raise ConfigError(
                f"method {self.config.method} of {features_of(self.config)} with an encoder of "
                f"{self.encoder.features}",
                "load it with open_encoder(config)",
            )
        return self.config.settings.create(self.config.modalities, self.encoder)

    @property
    def inference(self) -> Inference:
        """The compiled programs, shared with all models of the same method and encoder.

        Kept here too: what is shared holds a few, and another model must not cost this one its own.
        """
        settings = self.config.chosen_recipe
        made_of = (self.encoder, self.method, settings.top, settings.own_level)
        if self._inference is None or self._inference[0] != made_of:
            self._inference = made_of, build_inference(*made_of)
        return self._inference[1]

    @property
    def fitted(self) -> bool:
        """Whether it has learned from shots."""
        return self._learned is not None

    @property
    def parameters(self) -> tuple[Params, Params]:
        """What was learned, and the statistics of the shots; trees of numpy arrays.

        Raises:
            ConfigError: the detector has not been trained.
        """
        if self._learned is None:
            raise ConfigError("this model has not been trained", "call fit(scans) first")
        return self._learned

    @parameters.setter
    def parameters(self, learned: tuple[Params, Params]) -> None:
        self._learned, self._placed, self.model_id = learned, None, ""

    @property
    def placed(self) -> tuple[Params | Packed, Params | Packed]:
        """`parameters` on the device in few buffers: brought there once, not by every call."""
        if self._placed is None:
            parameters, statistics = jax.device_put(self.parameters)
            self._placed = pack(parameters), pack(statistics)
        return self._placed

    def set_fixed_threshold(self, threshold: float) -> None:
        """Call scores above a number defective; it promises nothing about false alarms.

        Raises:
            ConfigError: it is no finite number.
        """
        self.calibration = fix_threshold(threshold, self.calibration)

    def set_threshold(self, scores: Iterable[float], *, leave_one_out: bool = False) -> None:
        """Set the threshold from the scores of good scans; see `pirn_jax.scoring.calibrate`."""
        self.calibration = calibrate(
            np.asarray(list(scores)), self.config.false_alarm_rate, leave_one_out=leave_one_out
        )
