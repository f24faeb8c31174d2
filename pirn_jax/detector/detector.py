"""PIRN as one object: good scans in, a detector out.

    from pirn_jax import PIRN, Config
    from pirn_jax.scans import open_dataset

    data = open_dataset("synthetic", None, "flange")
    model = PIRN(Config()).fit(data.train).calibrate(data.validation)
    print(model.evaluate(data.test))
    print(model.predict(data.test[0]).pred_score)

From pictures to maps and score is one compiled call: encoder, method and scoring together. Nothing
in it passes from one scan of a batch to another, so neither batch size nor order changes a score.

Dimension letters: M modalities, B batch, H W scan pixels, h w model pixels, N tokens, C channels,
K prototypes.

Differs from the paper: background tokens take no part in the reconstruction and count as perfectly
rebuilt in the map; a threshold is set (`pirn_jax.scoring.calibration`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32

from pirn_jax.config import Config
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, ConfigError, PirnError
from pirn_jax.geometry import Views
from pirn_jax.judging import (
    BATCH,
    Judged,
    Measurement,
    Method,
    Outcome,
    check_good,
    decide_background,
    find_encoder,
    find_method,
    is_encoder_of,
    left_out,
    open_encoder,
    plan_of,
    programs,
    read_ahead,
    shot_features,
    some_of,
)
from pirn_jax.storage import (
    fill,
    flatten,
    read_config,
    read_object,
    read_tensors,
    write_json,
)
from pirn_jax.scans import Scan, Split
from pirn_jax.storage import write_whole
from pirn_jax.scoring import (
    Calibration,
    Region,
    calibrate,
    decide,
    find_regions,
)
from pirn_jax.training.features import FeatureCache, Features, foreground
from pirn_jax.training.loop import Job, Trained

_log = logging.getLogger("pirn_jax")
MODEL_FORMAT = "pirn_jax model 1"


class Prediction(NamedTuple):
    """What the detector says of a scan.

    Attributes:
        pred_score: image score, >= 0; larger is more anomalous.
        pred_label: 1 defective, 0 good; None for a model without a threshold.
        anomaly_map: at the scan's size.
        pred_mask: pixels called defective; holds one exactly when the label is 1. None like it.
        maps: each modality's own map, at the scan's size.
        regions: of the mask, the highest peak first.
    """

    pred_score: float
    pred_label: int | None
    anomaly_map: Float32[np.ndarray, "H W"]
    pred_mask: Bool[np.ndarray, "H W"] | None
    maps: dict[str, Float32[np.ndarray, "H W"]]
    regions: list[Region]


class PIRN:
    """A few-shot anomaly detector.

    Args:
        config: see `Config`.
        encoder: an encoder loaded for this config; loaded when needed otherwise. Models that share
            one share its memory and its compiled program.

    Attributes:
        config: as given; `fit` decides what background "auto" is.
        calibration: the threshold and its promise; None before `calibrate`.
        origin: where the shots came from, kept with the model: plain JSON values.
    """

    def __init__(self, config: Config | None = None, *, encoder: Encoder | None = None):
        self.config = Config() if config is None else config
        self.calibration: Calibration | None = None
        self.origin: dict[str, Any] = {}
        self._encoder = encoder
        self._parameters: dict[str, Any] | None = None
        self._statistics: dict[str, Any] = {}
        self._shots: Features | None = None

    @property
    def encoder(self) -> Encoder:
        """The frozen encoder."""
        if self._encoder is None:
            self._encoder = open_encoder(self.config)
        return self._encoder

    @property
    def demo(self) -> bool:
        """Whether the encoder's weights are random, so that results mean little."""
        return not self.encoder.source.path

    @property
    def parameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What was learned, and the statistics of the shots; trees of numpy arrays.

        Raises:
            ConfigError: the detector has not been trained.
        """
        return self._trained(), self._statistics

    def fit(self, scans: Iterable[Scan], *, parallel: str = "none") -> PIRN:
        """Train on good scans.

        Args:
            scans: the shots, all of them good.
            parallel: over local devices, as in `TrainConfig`.

        Returns:
            Itself.

        Raises:
            BadInputError: a defective scan, none at all, or one without a modality of the model.
        """
        fit_models([self], [scans], ["model"], parallel=parallel)
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
            if self._shots is None:
                raise BadInputError(
                    "this model was loaded, and its shots are not at hand",
                    "give good scans: calibrate(scans)",
                )
            copies = len(plan_of(self.config))
            jobs, parts = left_out("model", self._shots, self.config.seed, copies)
            trained = self._method().learn(jobs, parallel=parallel)
            scores = _scores_left_out(self, trained, parts)
        else:
            scores = []
            for judged in self.judge(scans):
                check_good(judged.scan, "calibrate")
                scores.append(judged.outcome.score)
        self.calibration = calibrate(
            np.asarray(scores), self.config.false_alarm_rate, leave_one_out=scans is None
        )
        return self

    def judge(
        self,
        scans: Iterable[Scan],
        *,
        batch: int = BATCH,
        failed: Callable[[str, PirnError], None] | None = None,
    ) -> Iterator[Judged]:
        """Score scans one after the other, read ahead by threads.

        Args:
            scans: of any sizes.
            batch: scans a call of the device; changes no score.
            failed: called with the key and the error of a scan that cannot be used, which is then
                left out. None: the error is raised.
        """
        waiting: list[tuple[Scan, Views]] = []
        for pair in read_ahead(scans, self.config, 2 * batch, failed):
            waiting.append(pair)
            if len(waiting) == batch:
                yield from self._judge_batch(waiting, batch)
                waiting = []
        if waiting:
            yield from self._judge_batch(waiting, batch)

    def judge_features(self, features: Features, *, batch: int = BATCH) -> Iterator[Outcome]:
        """`judge` from tokens at hand: the outcome of each scan, in order.

        Args:
            features: of this detector's encoder.
            batch: scans a call of the device; changes no score.
        """
        _, program = self._programs()
        count = len(features.valid)
        for start in range(0, count, batch):
            some = some_of(features, np.minimum(np.arange(start, start + batch), count - 1))
            tokens = np.stack([getattr(some, name) for name in self.config.modalities])
            yield from self._outcomes(
                program(self._trained(), self._statistics, tokens, some.valid),
                min(batch, count - start),
            )

    def predict(self, scan: Scan) -> Prediction:
        """Score, label, map, mask and regions of one scan.

        Raises:
            BadInputError: a modality of the model is missing in the scan, or nothing was measured.
        """
        (judged,) = self.judge([scan], batch=1)
        return self.conclude(judged)

    def conclude(self, judged: Judged) -> Prediction:
        """The prediction from what `judge` yields: maps at the scan's size, mask and regions."""
        scan, views, outcome = judged
        fused = views.to_scan(outcome.fused)
        maps = {name: views.to_scan(array) for name, array in outcome.maps.items()}
        if self.calibration is None:
            return Prediction(outcome.score, None, fused, None, maps, [])
        decision = decide(fused, self.calibration, score=outcome.score)
        regions = find_regions(
            decision.mask, fused, modalities=maps, xyz=scan.xyz, valid=scan.valid
        )
        return Prediction(outcome.score, decision.label, fused, decision.mask, maps, regions)

    def evaluate(self, scans: Iterable[Scan]) -> dict[str, float]:
        """Metrics on scans with known truth.

        Returns:
            `i_auroc, i_ap, i_f1max` where labels of both kinds are known, `p_auroc, p_ap, p_f1max,
            aupro_0.3, …` where masks are; with a threshold also what it does.
        """
        measured = Measurement(None if self.calibration is None else self.calibration.threshold)
        for judged in self.judge(scans):
            measured.add(judged)
        figures, _ = measured.figures()
        return figures

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `config.json` and `model.safetensors`; the encoder is named, not copied.

        Returns:
            The folder.
        """
        from safetensors.numpy import save

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        tensors = flatten("parameters", self._trained()) | flatten("statistics", self._statistics)
        source = self.encoder.source
        document = {
            "format": MODEL_FORMAT,
            "config": asdict(self.config),
            "encoder": {
                "name": self.encoder.config.name,
                "weights": str(Path(source.path).resolve()) if source.path else "",
                "sha256": source.sha256,
                "layers": self.encoder.layers,
                "demo": self.demo,
            },
            "calibration": None if self.calibration is None else self.calibration._asdict(),
            "origin": self.origin,
        }
        write_whole(target / "model.safetensors", save(tensors))
        write_json(target / "config.json", document)
        return target

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        weights: str | None = None,
        encoder: Encoder | None = None,
        runtime: str | None = None,
    ) -> PIRN:
        """The detector that `save` wrote.

        Args:
            folder: with `config.json` and `model.safetensors`.
            weights: the encoder's file, where it has moved.
            encoder: an encoder at hand; used if it is the right one.
            runtime: of the encoder, as in `Config`, where it is to differ from training.

        Raises:
            BadInputError: not such a folder, or damaged.
            WeightsError: the encoder's weights are missing, or not those the model was trained on.
        """
        document = read_object(Path(folder) / "config.json")
        if document.get("format") != MODEL_FORMAT:
            raise BadInputError(
                f"expected a {MODEL_FORMAT!r}, got {document.get('format')!r}",
                "give the model/ folder of a run",
                path=folder,
            )
        path = str(Path(folder) / "config.json")
        try:
            about = document["encoder"]
            name, digest = str(about["name"]), str(about["sha256"])
            layers, stored = tuple(about["layers"]), str(about["weights"])
            config = read_config(Config, document["config"], path)
            threshold = document["calibration"]
            calibration = None if threshold is None else Calibration(**threshold)
        except (KeyError, TypeError) as error:
            raise BadInputError(f"not what was written: {error}", "train again", path) from error
        config = replace(config, encoder=name, layers=layers, weights=weights or stored or "random")
        if runtime is not None:
            config = replace(config, runtime=runtime)
        if encoder is None or not is_encoder_of(encoder, config, digest):
            encoder = find_encoder(config, digest, named=weights is not None)
        model = cls(config, encoder=encoder)
        model.calibration, model.origin = calibration, dict(document.get("origin") or {})
        parameters, statistics = model._method().skeleton()
        tensors = read_tensors(Path(folder) / "model.safetensors")
        model._parameters = fill("parameters", parameters, tensors, folder)
        model._statistics = fill("statistics", statistics, tensors, folder)
        return model

    def _method(self) -> Method:
        return find_method(self.config, self.encoder)

    def _programs(self) -> tuple[Any, Any]:
        config = self.config
        return programs(self.encoder, self._method(), config.modalities, config.top_share)

    def _trained(self) -> dict[str, Any]:
        if self._parameters is None:
            raise ConfigError("this model has not been trained", "call fit(scans) first")
        return self._parameters

    def _take(self, trained: Trained) -> None:
        self._parameters, self._statistics = trained.parameters, trained.statistics

    def _judge_batch(self, pairs: list[tuple[Scan, Views]], size: int) -> Iterator[Judged]:
        padded = [views for _, views in pairs]
        padded += [padded[-1]] * (size - len(padded))
        names = self.config.modalities
        pictures = np.stack([[getattr(views, name) for views in padded] for name in names])
        valid = np.stack([foreground(views.valid, self.encoder.grid) for views in padded])
        program, _ = self._programs()
        outcomes = self._outcomes(
            program(self.encoder.parameters, self._trained(), self._statistics, pictures, valid),
            len(pairs),
        )
        for (scan, views), outcome in zip(pairs, outcomes, strict=True):
            if not np.isfinite(outcome.score):
                raise PirnError(
                    f"{scan.key}: the score is not finite", "train again with a lower rate"
                )
            yield Judged(scan, views, outcome)

    def _outcomes(self, found: Any, count: int) -> Iterator[Outcome]:
        """The first so many of what a program returned."""
        fused, maps, score, usage = jax.device_get(found)
        for place in range(count):
            each = {name: maps[name][place] for name in self.config.modalities}
            shares = None if usage is None else usage[:, place]
            yield Outcome(float(score[place]), fused[place], each, shares)


def fit_models(
    models: Sequence[PIRN],
    shots: Sequence[Iterable[Scan] | Features],
    names: Sequence[str],
    *,
    leave_one_out: Sequence[bool] | None = None,
    cache: FeatureCache | None = None,
    parallel: str = "auto",
    checkpoints: Path | None = None,
    resume: bool = False,
    save_seconds: float = 60.0,
    encoded: Callable[[int], None] | None = None,
    progress: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> list[Trained]:
    """Train many models in one call, those of equal shape together; all share one recipe.

    Args:
        models: of one config but for the seed.
        shots: of each model; scans, or their tokens with those of the copies of each behind it.
        names: of each model, for checkpoints and messages.
        leave_one_out: which models to calibrate with further ones that leave out a shot each.
        cache: for the shots' features.
        parallel: see `pirn_jax.training`.
        checkpoints: folder for them; None: none are kept.
        resume: go on from the last one.
        save_seconds: least time between two of them.
        encoded: called with the number of shots just encoded.
        progress: see `pirn_jax.training`.

    Returns:
        What was trained for each model.
    """
    wanted = [False] * len(models) if leave_one_out is None else list(leave_one_out)
    jobs: list[Job] = []
    extra: list[tuple[PIRN, int, list[tuple[Features, list[int]]]]] = []
    for model, scans, name in zip(models, shots, names, strict=True):
        if model.config.background == "auto" and not isinstance(scans, Features):
            if not isinstance(scans, Split):  # read again, as often as is wanted
                scans = list[Scan](scans)
            model.config = replace(model.config, background=decide_background(scans, model.config))
            if model.config.background == "none":
                _log.warning(
                    "%s: the plane at the border goes on through the middle, so it is taken for "
                    "the part and nothing is removed; background plane removes it",
                    name,
                )
        model._shots = shot_features(scans, model.config, model.encoder, cache, encoded)
        jobs.append(Job(name, model._shots, model.config.seed))
    for model, name, uncalibrated in zip(models, names, wanted, strict=True):
        if uncalibrated and model._shots is not None:
            copies = len(plan_of(model.config))
            more, parts = left_out(name, model._shots, model.config.seed, copies)
            extra.append((model, len(jobs), parts))
            jobs += more
    method = models[0]._method()
    trained = method.learn(
        jobs,
        parallel=parallel,
        checkpoints=checkpoints,
        resume=resume,
        save_seconds=save_seconds,
        progress=progress,
    )
    for model, result in zip(models, trained, strict=False):
        model._take(result)
    for model, first, parts in extra:
        scores = _scores_left_out(model, trained[first : first + len(parts)], parts)
        model.calibration = calibrate(
            np.asarray(scores), model.config.false_alarm_rate, leave_one_out=True
        )
    return trained[: len(models)]


def _scores_left_out(
    model: PIRN, trained: Sequence[Trained], parts: Sequence[tuple[Features, list[int]]]
) -> list[float]:
    """The score of every shot, by the model that has not seen it."""
    _, program = model._programs()
    scores: list[float] = []
    for result, (shots, places) in zip(trained, parts, strict=True):
        for place in places:  # one at a time: one shape, whatever the parts
            one = some_of(shots, [place])
            tokens = np.stack([getattr(one, name) for name in model.config.modalities])
            _, _, score, _ = program(result.parameters, result.statistics, tokens, one.valid)
            scores.append(float(score[0]))
    return scores
