"""PIRN as one object: good scans in, a detector out.

    from pirn_jax import PIRN, Config
    from pirn_jax.scans import open_dataset

    data = open_dataset("synthetic", None, "flange")
    model = PIRN(Config()).fit(data.train).calibrate(data.validation)
    print(model.evaluate(data.test))
    print(model.predict(data.test[0]).pred_score)

From pictures to maps and score is one compiled call: encoder, method and scoring together. Nothing
in it passes from one scan of a batch to another, so batch size and order change a score by rounding
alone: see docs/decisions.md, 33, for how much that is.

Dimension letters: M modalities, B batch, N tokens, C channels, K prototypes.

Differs from the paper: a threshold is set (`pirn_jax.scoring.calibration`); for background tokens
see `MethodSettings.foreground`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from pirn_jax import __version__
from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.detector.evaluation import Evaluator, Truth
from pirn_jax.detector.fitting import fit_one, leave_one_out_scores
from pirn_jax.detector.given import scan_of
from pirn_jax.detector.inference import Outputs, each_scan
from pirn_jax.detector.prediction import Prediction, postprocess
from pirn_jax.detector.predictor import Identity
from pirn_jax.detector.preprocessing import (
    BATCH,
    NOTHING_KEPT,
    PIXELS_AT_HAND,
    check_good,
    looking_of,
    prefetch_all,
    view_scan,
)
from pirn_jax.detector.reference import Seen
from pirn_jax.detector.result import Inferred, ScanResult
from pirn_jax.detector.saving import Stored, load_model, model_id, save_model
from pirn_jax.detector.state import DetectorState
from pirn_jax.encoder import Encoder
from pirn_jax.errors import NotJudgedError, PirnError
from pirn_jax.geometry import Views
from pirn_jax.geometry.prepared import PreparedCache
from pirn_jax.geometry.showing import Looking
from pirn_jax.scans import Scan
from pirn_jax.training import token_validity

_log = logging.getLogger("pirn_jax")


class PIRN(DetectorState):
    """A few-shot anomaly detector.

    Args:
        config: see `Config`.
        encoder: one that is loaded already, read as the config says; loaded when needed otherwise.
            Models that share one share its memory and its compiled program.
        prepared: normals and object masks at hand (`pirn_jax.prepare`); without it they are
            computed.

    Attributes:
        asked: the config as given.
        config: the same, with background, square, turned copies and pseudo-defects as `fit`
            decided them where that was left to it.
        calibration: the threshold and its promise; None before `calibrate`.
        sight: what its shots show, by which a sensor that saw nothing is told; None without scans.
        reference: what its good scans look like, by which `doctor --against` tells whether camera
            or light have moved; None without scans.
        origin: where the shots came from, kept with the model: plain JSON values.
        model_id: of the files it was loaded from, or ""; see `saving.model_id`.
        shots: tokens of what it learned from, each shot followed by its copies; None for a model
            that was loaded.
    """

    def fit(
        self, scans: Iterable[Scan], *, parallel: str = "none", progress: bool | None = None
    ) -> PIRN:
        """Train on good scans; what was learned before, decided, or calibrated with is forgotten.

        A model that was loaded was saved with its decisions, and they are what it asks for: for
        another part take a new one.

        Args:
            scans: the shots, all of them good.
            parallel: over local devices, as in `TrainConfig`.
            progress: show how far it is, on stderr; None: in notebooks.

        Returns:
            Itself.

        Raises:
            BadInputError: a defective scan, none at all, or one without a modality of the model.
        """
        fit_one(self, scans, parallel=parallel, progress=progress)
        return self

    def calibrate(self, scans: Iterable[Scan] | None = None, *, parallel: str = "none") -> PIRN:
        """Set the threshold from good scans the model was not trained on.

        Args:
            scans: such scans. None: models are trained that leave out a shot each, and score it;
                the promise is then approximate.
            parallel: over local devices, for that training.

        Returns:
            Itself.

        Raises:
            BadInputError: a defective scan, none at all, or a single shot and nothing else.
        """
        if scans is None:
            scores = leave_one_out_scores(self, parallel=parallel)
        else:
            scores = self.score_good(scans)
        self.set_threshold(scores, leave_one_out=scans is None)
        return self

    def score_good(
        self,
        scans: Iterable[Scan],
        failed: Callable[[str, PirnError], None] | None = None,
        done: Callable[[], None] = lambda: None,
    ) -> list[float]:
        """Scores of good scans that it was not trained on; `reference` learns how they look.

        Args:
            scans: to set a threshold with.
            failed: as for `predict_scans`.
            done: called whenever a scan has its score.

        Raises:
            BadInputError: a defective scan.
        """
        scores, seen = [], []
        for result in self.predict_scans(scans, failed=failed):
            check_good(result.scan, "calibrate")
            scores.append(result.inferred.score)
            seen.append(Seen.of(result.views, result.inferred.tokens, self.config.part_side))
            done()
        if self.reference is not None:
            self.reference = self.reference.with_calibration(seen, self.config.modalities)
        return scores

    def predict_scans(
        self,
        scans: Iterable[Scan],
        *,
        batch: int = BATCH,
        failed: Callable[[str, PirnError], None] | None = None,
    ) -> Iterator[ScanResult]:
        """Score scans one after the other, read ahead by threads.

        Args:
            scans: of any sizes.
            batch: scans a call of the device; changes a score by rounding alone.
            failed: called with the key and the error of a scan that cannot be used, which is then
                left out. None: the error is raised.

        Raises:
            NotJudgedError: see `predict`; without `failed`.
        """
        yield from self.judge(self.look(scans, batch=batch, failed=failed), batch=batch)

    def look(
        self,
        scans: Iterable[Scan],
        *,
        batch: int = BATCH,
        failed: Callable[[str, PirnError], None] | None = None,
    ) -> Iterator[list[tuple[Scan, Views]]]:
        """The first half of `predict_scans`: scans as the encoder sees them, for `judge`.

        What is judged in one call stands in the same `batch` places of the list, whatever is left
        out of them or comes before: a part of the list that begins at such a place is judged, to
        the last bit, as the whole list is.
        """
        some: list[tuple[Scan, Views]] = []
        pairs = prefetch_all(scans, self._look, 2 * batch, failed)
        for place, pair in enumerate(pairs, 1):
            if pair is not None:
                some.append(pair)
            if some and (place % batch == 0 or _pixels(some) > PIXELS_AT_HAND):
                yield some
                some = []
        if some:
            yield some

    def judge(
        self, batches: Iterable[list[tuple[Scan, Views]]], *, batch: int = BATCH
    ) -> Iterator[ScanResult]:
        """The second half of `predict_scans`: what the device makes of what `look` gives."""
        running = None
        for some in batches:
            # On its way before the last one is waited for: the device works while the host does.
            started = some, self._start(some, batch)
            if running is not None:
                yield from _results(*running)
            running = started
            if _pixels(some) > PIXELS_AT_HAND:  # no other scan is read beside large ones
                yield from _results(*running)
                running = None
        if running is not None:
            yield from _results(*running)

    def compile(self, batch: int) -> None:
        """Compile the program for so many scans a call, so that the first need not wait."""
        side, modalities = self.config.view_size, len(self.config.modalities)
        pictures = np.zeros((modalities, batch, side, side, 3), np.float32)
        valid = np.ones((batch, self.encoder.grid[0] * self.encoder.grid[1]), bool)
        found = self.inference.from_pictures(self.encoder.packed, *self.placed, pictures, valid)
        found.score.block_until_ready()

    def predict_tokens(self, tokens: Tokens, *, batch: int = BATCH) -> Iterator[Inferred]:
        """`predict_scans` from tokens at hand, in order.

        Args:
            tokens: of this detector's encoder.
            batch: scans a call of the device; changes a score by rounding alone.
        """
        count = tokens.values.shape[1]
        for start in range(0, count, batch):
            some = select_scans(tokens, np.minimum(np.arange(start, start + batch), count - 1))
            found = self.inference.from_tokens(*self.placed, some)
            yield from each_scan(found, min(batch, count - start))

    def predict(self, scan: object) -> Prediction:
        """Score, label, map, mask and regions of one scan.

        Args:
            scan: a `Scan`; a path ("a.png"); a photograph as a uint8 array (H, W, 3); or several of
                these by what they are: {"rgb": "a.png", "xyz": "a.tiff"}.

        Raises:
            BadInputError: a modality of the model is missing in the scan, or nothing was measured.
            NotJudgedError: it is far from all shots in brightness, contrast, share measured or
                size, as a black photograph is: no score would mean anything.
        """
        given = scan_of(scan, self.config.modalities)
        (result,) = self.predict_scans([given], batch=1)
        return self.postprocess(result)

    @property
    def has_threshold(self) -> bool:
        """Whether scans are called good or defective."""
        return self.calibration is not None

    @property
    def looking(self) -> Looking:
        """What of a scan it looks at."""
        return looking_of(self.config)

    @property
    def identity(self) -> Identity:
        """What it is, as records say it."""
        return Identity(
            self.model_id,
            self.config.method,
            self.encoder.config.name,
            self.random_weights,
            self.origin.get("data"),
            {"pirn_jax": __version__, "jax": jax.__version__},
        )

    def postprocess(self, result: ScanResult) -> Prediction:
        """The prediction from what `predict_scans` yields."""
        return postprocess(result, self.config.modalities, self.calibration)

    def evaluate(self, scans: Iterable[Scan]) -> dict[str, float]:
        """Metrics on scans with known truth.

        Returns:
            `i_auroc, i_ap, i_f1max` where labels of both kinds are known, `p_auroc, p_ap, p_f1max,
            aupro_0.3, …` where masks are; with a threshold what it does, as far as labels tell.
            Of scans that are not judged (see `predict`) none counts; they are named in the log.
        """

        def left_out(key: str, error: PirnError) -> None:
            if not isinstance(error, NotJudgedError):
                raise error
            _log.warning("left out: %s", error.problem)

        found = self.predict_scans(scans, failed=left_out)  # of a lot, it sets the threshold
        evaluator = Evaluator(None if self.calibration is None else self.calibration.threshold)
        for result in found:
            evaluator.add(Truth.of(result.scan, result.views), result.inferred)
        return evaluator.figures()[0]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `config.json` and `model.safetensors`; the encoder is named, not copied.

        Returns:
            The folder.
        """
        about = (self.calibration, self.sight, self.reference, self.origin)
        return save_model(Stored(self.config, self.encoder, *about, *self.parameters), folder)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        weights: str | None = None,
        points_weights: str | None = None,
        encoder: Encoder | None = None,
        runtime: str | None = None,
        prepared: PreparedCache = NOTHING_KEPT,
        allow_code: Collection[str] = (),
    ) -> PIRN:
        """The detector that `save` wrote.

        Args:
            folder: with `config.json` and `model.safetensors`.
            weights: the encoder's file, where it has moved.
            points_weights: that of Point-MAE, where the model has its features and it has moved.
            encoder: an encoder at hand; used if it is the right one.
            runtime: of the encoder, as in `Config`, where it is to differ from training.
            prepared: as for `PIRN`.
            allow_code: functions, as "package.module:function", that the model may name and that
                are then imported; without it nothing in the folder names code.

        Raises:
            BadInputError: not such a folder, or damaged.
            ConfigError: it names code that is not allowed.
            WeightsError: the encoder's weights are missing, or not those the model was trained on.
        """
        stored = load_model(
            folder,
            weights=weights,
            points_weights=points_weights,
            encoder=encoder,
            runtime=runtime,
            allow_code=allow_code,
        )
        model = cls(stored.config, encoder=stored.encoder, prepared=prepared)
        model.calibration, model.sight = stored.calibration, stored.sight
        model.reference, model.origin = stored.reference, stored.origin
        model.parameters = (stored.parameters, stored.statistics)
        model.model_id = model_id(Path(folder))
        return model

    def _look(self, scan: Scan) -> Views:
        views = view_scan(scan, self.config, self.prepared)
        if self.sight is not None:
            self.sight.check(scan.key, views.sight)
        return views

    def _start(self, pairs: Sequence[tuple[Scan, Views]], size: int) -> Outputs:
        """The program started on a batch, filled up to `size`; nothing waits for it."""
        padded = [views for _, views in pairs]
        padded += [padded[-1]] * (size - len(padded))
        names = self.config.modalities
        shown = [[views.picture(name) for views in padded] for name in names]
        pictures = np.asarray(shown, np.float32)
        valid = np.stack([token_validity(views.valid, self.encoder.grid) for views in padded])
        return self.inference.from_pictures(self.encoder.packed, *self.placed, pictures, valid)


def _pixels(pairs: Sequence[tuple[Scan, Views]]) -> int:
    return sum(scan.valid.size for scan, _ in pairs)


def _results(pairs: Sequence[tuple[Scan, Views]], found: Outputs) -> Iterator[ScanResult]:
    """What a program returned for each scan; waits for it."""
    for (scan, views), inferred in zip(pairs, each_scan(found, len(pairs)), strict=True):
        if not np.isfinite(inferred.score):
            raise PirnError(f"{scan.key}: the score is not finite", "train again with a lower rate")
        yield ScanResult(scan, views, inferred)
