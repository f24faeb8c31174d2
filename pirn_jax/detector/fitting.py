"""Many detectors fitted at once: shots → tokens → jobs of one training.

Models of one method are trained together, and with them those that leave out a shot each, whose
scores stand in for good scans that were not learned from.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Unpack

import numpy as np

from pirn_jax.decoder import Tokens, select_scans
from pirn_jax.detector.preprocessing import view_shots
from pirn_jax.detector.reference import learn_reference
from pirn_jax.detector.shots import Fold, leave_one_out_folds, shot_tokens
from pirn_jax.detector.state import DetectorState
from pirn_jax.errors import BadInputError
from pirn_jax.methods.method import LearnOptions
from pirn_jax.progress import Tell, shown_progress
from pirn_jax.scans import Scan, Split
from pirn_jax.training import FeatureCache, HistoryLine, Trained, TrainingJob

_log = logging.getLogger("pirn_jax")


def fit_models(
    models: Sequence[DetectorState],
    shots: Sequence[Iterable[Scan] | Tokens],
    names: Sequence[str],
    *,
    leave_one_out: Sequence[bool] | None = None,
    cache: FeatureCache | None = None,
    encoded: Callable[[int], None] | None = None,
    **options: Unpack[LearnOptions],
) -> list[Trained]:
    """Train models of one method together; the others change what one becomes by rounding alone.

    Args:
        models: detectors whose configs differ at most in the seed and in what shots decide.
        shots: of each: good scans, or their tokens and their copies'. What a model learned before,
            decided, or was calibrated with, is forgotten.
        names: of each, unique; in histories and messages.
        leave_one_out: of each, whether its threshold is to be set from models that leave out a shot
            each.
        cache: of tokens; None: nothing is kept.
        encoded: called with the number of shots just encoded.
        **options: of `Method.learn`: parallel, checkpoints, resume, save_seconds, progress.

    Returns:
        What was trained for each model.

    Raises:
        BadInputError: a defective scan, none at all, or one without a modality of the model.
    """
    cache = FeatureCache(None) if cache is None else cache
    wanted = [False] * len(models) if leave_one_out is None else list(leave_one_out)
    jobs: list[TrainingJob] = []
    for model, scans, name in zip(models, shots, names, strict=True):
        model.forget()
        model.shots = _tokens_of(model, scans, name, cache)
        jobs.append(TrainingJob(name, model.shots, model.config.seed, *_copies(model)))
        if encoded is not None and not isinstance(scans, Tokens):
            encoded(model.shots.values.shape[1] // (1 + _copies(model)[0]))
    folds = [
        _folds(model, name) if own else []
        for model, name, own in zip(models, names, wanted, strict=True)
    ]
    jobs += [fold.job for own in folds for fold in own]
    trained = models[0].method.learn(jobs, **options)
    for model, result in zip(models, trained, strict=False):
        model.parameters = (result.parameters, result.statistics)
    done = len(models)
    for model, own in zip(models, folds, strict=True):
        if own:
            scores = _scores_of(model, own, trained[done : done + len(own)])
            model.set_threshold(scores, leave_one_out=True)
            done += len(own)
    return trained[: len(models)]


def fit_one(
    model: DetectorState, scans: Iterable[Scan], *, parallel: str, progress: bool | None
) -> None:
    """`fit_models` of a single one, and how far it is on stderr; the arguments are `PIRN.fit`'s."""
    with shown_progress(progress) as tell:
        told = functools.partial(_tell_epochs, tell)
        fit_models([model], [_counted(scans, tell)], ["model"], parallel=parallel, progress=told)


def leave_one_out_scores(model: DetectorState, **options: Unpack[LearnOptions]) -> list[float]:
    """The score of every shot of a trained model, by one that has not seen it.

    Raises:
        BadInputError: the model was loaded, or has a single shot.
    """
    folds = _folds(model, "model")
    return _scores_of(model, folds, model.method.learn([fold.job for fold in folds], **options))


def _tokens_of(
    model: DetectorState, scans: Iterable[Scan] | Tokens, name: str, cache: FeatureCache
) -> Tokens:
    """Tokens of the shots and their copies; decides the model's background and limits."""
    if isinstance(scans, Tokens):
        return scans
    asked = model.config.background
    model.config, views, model.sight = view_shots(scans, model.config, model.prepared)
    if asked == "auto" and model.config.background == "none":
        _log.warning(
            "%s: the plane at the border goes on through the middle, so it is taken for the part "
            "and nothing is removed; background plane removes it",
            name,
        )
    tokens = shot_tokens(views, model.config, model.encoder, cache)
    model.reference = learn_reference(
        views, tokens, model.config.modalities, model.config.part_side
    )
    return tokens


def _copies(model: DetectorState) -> tuple[int, int]:
    """How many of each shot are learned from beside itself, and how many of them are spoiled."""
    every = model.config.chosen_recipe.augmentations()
    return len(every), sum(one.kind == "spoiled" for one in every)


def _folds(model: DetectorState, name: str) -> list[Fold]:
    if model.shots is None:
        raise BadInputError(
            "this model was loaded, and its shots are not at hand",
            "give good scans: calibrate(scans)",
        )
    return leave_one_out_folds(name, model.shots, model.config.seed, *_copies(model))


def _scores_of(
    model: DetectorState, folds: Sequence[Fold], trained: Sequence[Trained]
) -> list[float]:
    assert model.shots is not None
    program, scores = model.inference.from_tokens, []
    for fold, result in zip(folds, trained, strict=True):
        for place in fold.left_out:  # one at a time: one shape, whatever the parts
            one = select_scans(model.shots, np.array([place]))
            found = program(result.parameters, result.statistics, one)
            scores.append(float(found.score[0]))
    return scores


def _counted(scans: Iterable[Scan], tell: Tell) -> Iterable[Scan]:
    """The same scans; it is told how many of them were read."""
    total = len(scans) if isinstance(scans, Sized) else 0
    numbers = itertools.count(1)

    def done() -> None:
        number = next(numbers)
        tell("shots", number, max(total, number), "")

    if isinstance(scans, Split):
        return scans.watched(done)
    return ((scan, done())[0] for scan in scans)


def _tell_epochs(tell: Tell, done: int, total: int, last: Mapping[str, HistoryLine]) -> None:
    losses = [line["loss"] for line in last.values()]
    tell("training", done, total, f"loss {sum(losses) / len(losses):.4f}" if losses else "")
