"""Scans of one lot judged together: against each other, and against the shots where there are any.

    lot    the lot's own distances (`pirn_jax.scoring.lot`), of tokens taken from their image's mean
           and standardised by the lot's
    shots  those of method mixture, which has learned
    both   lot + shots

Both are log-likelihoods in nats a channel, with pseudo-defects the shots' is a ratio of two, and
likelihoods multiply. A score means something within its lot alone: the same scan has another in
another lot, and a threshold of scores without the lot says nothing of them. Good scans that join
the lot give it a threshold of its own: each has its score as every other scan of the lot has, so
the promise of `pirn_jax.scoring.calibration` holds for the lot's good scans.

Nothing is stored. The lot's tokens are held in memory, some times over while they are compared, and
its scans are read twice.

Dimension letters: M modalities, S scans, N tokens, C channels, P poses.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float32

from pirn_jax.decoder import Params, Tokens, select_scans
from pirn_jax.decoder.tokens import apply_scale, fit_scale
from pirn_jax.detector.detector import PIRN
from pirn_jax.detector.encoders import features_of
from pirn_jax.detector.predictor import Identity
from pirn_jax.detector.preprocessing import BATCH, check_good, decide, prefetch
from pirn_jax.detector.result import Inferred, ScanResult
from pirn_jax.encoder.tiles import tile_side
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.geometry import WITNESSES, Views
from pirn_jax.geometry.augmentation import Augmentations, augment
from pirn_jax.methods.method import Method
from pirn_jax.scans import Scan, Split
from pirn_jax.scoring.lot import lot_distances
from pirn_jax.scoring.maps import AnomalyMaps, score_distances
from pirn_jax.training import extract

MOST_BYTES = 1 << 30
"""Of a lot's tokens as they are encoded; while they are compared, there are several copies."""
_SCALE = "standardise_image"
Failed = Callable[[str, PirnError], None]


class Distances(NamedTuple):
    """Of the tokens of a lot.

    Attributes:
        valid: tokens that count.
        lot: from their like in the other scans.
        shots: the method's; None for a detector that has learned nothing.
        usage: as for `Inferred`, of every scan.
    """

    valid: Bool[np.ndarray, "S N"]
    lot: Float32[np.ndarray, "M S N"]
    shots: Float32[np.ndarray, "M S N"] | None
    usage: Float32[np.ndarray, "M S K"] | None


class Lot(PIRN):
    """A detector whose `predict_scans` judges all it is given as one lot, and needs it whole.

        Lot(PIRN.load("flange-model")).evaluate(scans)
        Lot(PIRN(Config(encoder="pirn-tiny"))).predict_scans(scans)  # no shots at all

    Args:
        detector: fitted or loaded; or not, and then the lot alone judges: it also decides
            background, square and poses, as shots would.

    Raises:
        ConfigError: it is fitted, and of another method than mixture; or its tokens of the geometry
            are points as they are.

    Attributes:
        scans: how many were last judged together, good ones that joined them included.
    """

    def __init__(self, detector: PIRN):
        super().__init__(detector.asked, encoder=detector.encoder, prepared=detector.prepared)
        self.config = detector.config
        self.sight, self.origin, self.scans = detector.sight, detector.origin, 0
        if detector.fitted:
            if detector.config.method != "mixture":
                raise ConfigError(
                    f"a lot's log-likelihoods add up with those of method mixture alone; "
                    f"{detector.config.method} has none",
                    "use a model of method mixture, or the lot without shots",
                )
            self.parameters = detector.parameters
        elif features_of(detector.config) == "points":
            raise ConfigError(
                f"a lot compares tokens, and of method {detector.config.method} these are points",
                "use another method",
            )
        self.model_id = detector.model_id
        self._good = list[Scan]()
        self._good_failed: Failed | None = None

    @property
    def identity(self) -> Identity:
        """What it is, and how many scans it last judged together."""
        return super().identity._replace(lot=self.scans)

    @property
    def has_threshold(self) -> bool:
        """Whether there is one, or will be once the lot is judged."""
        return super().has_threshold or len(self._good) > 0

    def calibrate(
        self,
        scans: Iterable[Scan] | None = None,
        *,
        parallel: str = "none",
        failed: Failed | None = None,
    ) -> Lot:
        """Have good scans join every lot, whose threshold is then set from their scores in it.

        Args:
            scans: such scans, none of which the detector was trained on.
            parallel: of no use here: nothing is trained.
            failed: as for `predict_scans`, of these.

        Raises:
            ConfigError: none are given.
        """
        del parallel
        if scans is None:
            raise ConfigError("a lot's threshold is set by good scans that join it", "give some")
        self._good, self._good_failed = _kept(scans), failed
        return self

    def decide(self, scans: Iterable[Scan]) -> None:
        """Have the lot decide background, square and poses where there are no shots that did."""
        if not self.fitted:
            readable = prefetch(scans, lambda _: None, BATCH, lambda *_: None)
            witnesses = [scan for scan, _ in islice(readable, WITNESSES)]
            self.config = decide(witnesses, self.asked, self.prepared)

    def predict_scans(
        self, scans: Iterable[Scan], *, batch: int = BATCH, failed: Failed | None = None
    ) -> Iterator[ScanResult]:
        """Score the scans of a lot; each is read twice: to be compared, and to be shown.

        Args:
            scans: all of the lot.
            batch: scans a call of the device; changes a score by rounding alone.
            failed: as for `PIRN.predict_scans`; a scan that cannot be used is in no lot.

        Raises:
            BadInputError: no scan has another to be compared with; or there are too many.
            NotJudgedError: see `PIRN.predict`; without `failed`.
        """
        scans, good = _kept(scans), self._good
        self.decide(scans)
        self._check_room(len(scans) + len(good))
        encoded: list[str] = []
        tokens = self._encode(scans, batch, encoded, failed)
        if len(good):
            joining = self._encode(good, batch, [], self._good_failed, purpose="calibrate")
            tokens = _joined(tokens, joining)
        found = list(self.predict_tokens(tokens, batch=batch))
        if len(good):
            self.set_threshold([one.score for one in found[len(encoded) :]])
        return self._shown(scans, dict(zip(encoded, found, strict=False)), batch, failed)

    def predict_tokens(self, tokens: Tokens, *, batch: int = BATCH) -> Iterator[Inferred]:
        """`predict_scans` from tokens at hand, in order.

        Args:
            tokens: of this detector's encoder; each scan's followed by those of its turned copies.
            batch: scans a call of the device; changes a score by rounding alone.
        """
        parts = self.distances(tokens, batch=batch)
        distance = parts.lot if parts.shots is None else parts.lot + parts.shots
        self.scans = count = len(parts.valid)
        settings = self.config.chosen_recipe
        size, grid, tiles = self.encoder.image_size, self.encoder.grid, self.encoder.tiles
        shown = size, grid, tile_side(min(size), tiles), settings.top, settings.own_level
        for start in range(0, count, batch):
            places = np.minimum(np.arange(start, start + batch), count - 1)
            maps = jax.device_get(_maps(*shown, distance[:, places], parts.valid[places]))
            for place, scan in enumerate(range(start, min(start + batch, count))):
                shares = None if parts.usage is None else parts.usage[:, scan]
                score = float(maps.score[place])
                yield Inferred(score, maps.fused[place], maps.modalities[:, place], shares)

    def distances(self, tokens: Tokens, *, batch: int = BATCH) -> Distances:
        """What `predict_tokens` adds up."""
        poses = 1 + len(self.turns)
        count = tokens.values.shape[1] // poses
        own = select_scans(tokens, np.arange(count) * poses)
        every, valid = np.asarray(tokens.valid), np.asarray(own.valid)
        m, _, n, c = tokens.values.shape
        values, others = _standardised(own, tokens)
        others = others.reshape(m, count, poses * n, c)
        lot = lot_distances(values, others, every.reshape(count, poses * n))
        if not self.fitted:
            return Distances(valid, lot, None, None)
        return Distances(valid, lot, *self._shots_distances(own, batch))

    @property
    def turns(self) -> Augmentations:
        """The other positions each scan is looked at in, where shots would be turned."""
        every = self.config.chosen_recipe.augmentations()
        return tuple(one for one in every if one.kind == "move")

    def _check_room(self, count: int) -> None:
        rows, columns = self.encoder.grid
        each = len(self.config.modalities) * rows * columns * self.encoder.channels * 4
        most = MOST_BYTES // (each * (1 + len(self.turns)))
        if count > most:
            raise BadInputError(
                f"a lot of {count} scans: the tokens of more than {most} are not held in memory",
                f"judge it in lots of {most} or fewer",
            )

    def _encode(
        self,
        scans: Sequence,
        batch: int,
        keys: list[str],
        failed: Failed | None = None,
        purpose: str = "",
    ) -> Tokens:
        """Tokens of the scans that can be used, each followed by its turned copies'.

        Args:
            scans: of the lot, or good ones.
            batch: of them, a call.
            keys: theirs are added.
            failed: as for `predict_scans`.
            purpose: that only good scans serve.
        """

        def views() -> Iterator[Views]:
            for scan, view in prefetch(scans, self._look, 2 * batch, failed):
                if purpose:
                    check_good(scan, purpose)
                keys.append(scan.key)
                yield from augment(view, self.turns, self.config.seed)

        return extract(self.encoder, views(), self.config.modalities, batch=batch)

    def _shots_distances(
        self, tokens: Tokens, batch: int
    ) -> tuple[Float32[np.ndarray, "M S N"], Float32[np.ndarray, "M S K"] | None]:
        count, found = tokens.values.shape[1], []
        for start in range(0, count, batch):
            some = select_scans(tokens, np.minimum(np.arange(start, start + batch), count - 1))
            found.append(jax.device_get(_distances(self.method, *self.parameters, some)))
        distances, usages = zip(*found, strict=True)
        usage = None if usages[0] is None else np.concatenate(usages, 1)[:, :count]
        return np.concatenate(distances, 1)[:, :count], usage

    def _shown(
        self, scans: Sequence, found: dict[str, Inferred], batch: int, failed: Failed | None
    ) -> Iterator[ScanResult]:
        """The scans, read again, with what was found; of one that has gone meanwhile nothing."""

        def gone(key: str, error: PirnError) -> None:
            if key in found:  # of the others it was said when they were to be encoded
                if failed is None:
                    raise error
                failed(key, error)

        for scan, views in prefetch(scans, self._look, 2 * batch, gone):
            if scan.key in found:
                yield ScanResult(scan, views, found[scan.key])


def _kept(scans: Iterable[Scan]) -> Sequence:
    """Scans that can be gone through twice, and told apart by their keys."""
    if isinstance(scans, Split):
        return scans
    every = list(scans)
    keys = [scan.key for scan in every]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise BadInputError(
            f"two scans of the lot have the key {twice.pop()!r}",
            "give each its own: scan._replace(key=…)",
        )
    return every


def _joined(one: Tokens, other: Tokens) -> Tokens:
    values = [np.asarray(tokens.values) for tokens in (one, other)]
    valid = [np.asarray(tokens.valid) for tokens in (one, other)]
    return Tokens(np.concatenate(values, 1), np.concatenate(valid))


@jax.jit
def _standardised(
    own: Tokens, every: Tokens
) -> tuple[Float[Array, "M S N C"], Float[Array, "M P N C"]]:
    """Tokens of the scans, and of these and their turned copies, by statistics of the former."""
    mass = [jnp.asarray(tokens.valid, jnp.float32) for tokens in (own, every)]
    values = [jnp.asarray(tokens.values) for tokens in (own, every)]
    statistics = fit_scale(_SCALE, values[0], mass[0])
    one, other = (
        apply_scale(_SCALE, statistics, *given) for given in zip(values, mass, strict=True)
    )
    return one, other


@functools.partial(jax.jit, static_argnums=0)
def _distances(
    method: Method, parameters: Params, statistics: Params, tokens: Tokens
) -> tuple[Float[Array, "M B N"], Float[Array, "M B K"] | None]:
    return method.distances(parameters, statistics, tokens)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _maps(
    size: tuple[int, int],
    grid: tuple[int, int],
    side: int,
    top: float,
    own_level: float,
    distance: Float[Array, "M B N"],
    valid: Bool[Array, "B N"],
) -> AnomalyMaps:
    return score_distances(
        distance, size, valid=valid, grid=grid, own_level=own_level, top=top, side=side
    )
