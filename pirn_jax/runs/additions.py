"""Good scans added to a run: they join the shots of its models, and a new run comes of it.

The scans are those of a folder, or what people marked as false alarms on the page of a service,
whose --state folder is given then.

The old run stays as it is. The new one lies beside it, `RUN-v2`, then `RUN-v3`: its own shots are
the old ones and the new; category, seeds, recipe, encoder and the scans that set the threshold are
the old run's. `added.json` keeps which scans joined, from which folder, and the SHA-256 of their
files, so that the next version finds them again and nothing else in their place:

    {"of": "RUN", "folders": [{"folder", "reading", "scans": [{"key", "sha256": {role: …}}]}]}
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pirn_jax.config import TrainConfig
from pirn_jax.detector import PIRN
from pirn_jax.encoder import Encoder
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.places import address, is_remote
from pirn_jax.report import layout
from pirn_jax.report.layout import ModelFolder
from pirn_jax.report.schema import Document
from pirn_jax.runs.changes import Changes, changes_of
from pirn_jax.runs.folder import Progress, open_run, start_caches, trained_models
from pirn_jax.runs.items import RunItem, check_items, open_category, provenance_of
from pirn_jax.runs.mirror import Mirror, mirrored
from pirn_jax.runs.outputs import RUN_FORMAT, check_free, writing
from pirn_jax.runs.training import train_into
from pirn_jax.scans import Split
from pirn_jax.scans.datasets.dataset import Dataset, Entry
from pirn_jax.scans.datasets.judged import find_scans, options_of, read_given
from pirn_jax.scans.datasets.marked import is_log, list_marked
from pirn_jax.scans.datasets.shots import file_hashes
from pirn_jax.scans.formats.options import Reading
from pirn_jax.storage import read_object, write_json

_log = logging.getLogger("pirn_jax")
_VERSION = re.compile(r"(.+)-v([1-9][0-9]{0,8})")


class Addition(NamedTuple):
    """Good scans of one folder.

    Attributes:
        folder: where they lie.
        reading: how their files are understood, where it is not as in the run's training.
        scans: SHA-256 of each one's files by role, by key.
    """

    folder: Path
    reading: Mapping[str, Any]
    scans: Mapping[str, Mapping[str, str]]

    def document(self) -> Document:
        """As plain JSON values."""
        scans = [{"key": key, "sha256": dict(sums)} for key, sums in self.scans.items()]
        return {"folder": address(self.folder), "reading": dict(self.reading), "scans": scans}


class Added(NamedTuple):
    """What `add_to_run` made.

    Attributes:
        folder: the new run.
        changes: what is otherwise than in the old one, by model.
    """

    folder: Path
    changes: Mapping[str, Changes]


def next_version(run: Path) -> Path:
    """Where the next version of a run belongs: beside it."""
    place = _lasting(run)
    match = _VERSION.fullmatch(place.name)
    name, number = (match[1], int(match[2])) if match else (place.name, 1)
    return place.with_name(f"{name}-v{number + 1}")


def add_to_run(
    run: Path,
    folder: Path,
    out: Path | None = None,
    *,
    reading: Reading | None = None,
    data_root: str | None = None,
    category: str | None = None,
    weights: str | None = None,
    allow_code: Sequence[str] = (),
    cache: str | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> Added:
    """Train the next version of a run, with good scans added to its shots.

    Args:
        run: that is added to; it stays as it is.
        folder: of good scans, found and read as `predict` does it.
        out: the new run's folder; None: `next_version`.
        reading: flags of how the new files are to be understood; else as in training.
        data_root: where the run's data has moved.
        category: of the scans; needed where the run holds models of several.
        weights: the encoder's file, where it has moved.
        allow_code: what code the run may name, as for `PIRN.load`.
        cache: as in `TrainConfig`.
        progress: see `Progress`.
        command: kept in `environment.json`.

    Raises:
        BadInputError: no scan, one that cannot be used, or files that are no longer what the run
            learned from.
        ConfigError: the folder is taken, or scans of the run's own tests are added.
    """
    target = next_version(run) if out is None else out
    last = (layout.METRICS, layout.REPORT)
    with (
        mirrored(run, read_only=True) as old,
        mirrored(target, last, inputs=[run, folder]) as results,
    ):
        changes = _add(
            old.folder,
            folder,
            results.folder,
            reading or Reading(),
            data_root=data_root,
            category=category,
            weights=weights,
            allow_code=allow_code,
            cache=cache,
            progress=progress,
            command=command,
        )
    return Added(target, changes)


def _add(
    run: Path,
    folder: Path,
    target: Path,
    reading: Reading,
    *,
    data_root: str | None,
    category: str | None,
    weights: str | None,
    allow_code: Sequence[str],
    cache: str | None,
    progress: Progress | None,
    command: Sequence[str],
) -> dict[str, Changes]:
    """`add_to_run`, of folders on this machine."""
    config = open_run(run, allow_code)
    places = trained_models(run, (category,) if category else ())
    categories = sorted({place.category for place in places})
    if len(categories) > 1:
        raise ConfigError(
            f"the run holds models of {', '.join(categories)}", "say whose scans with --category"
        )
    check_free(target, RUN_FORMAT, overwrite=False, inputs=[run, folder])
    config = _continued(config, places, target, cache, data_root)
    _, prepared = start_caches(cache)

    def load(place: ModelFolder, encoder: Encoder | None) -> PIRN:
        return PIRN.load(
            place.path / layout.MODEL,
            weights=weights,
            encoder=encoder,
            prepared=prepared,
            allow_code=allow_code,
        )

    old: list[PIRN] = []
    for place in places:
        old.append(load(place, old[0].encoder if old else None))
    data = open_category(config, categories[0])
    before = read_additions(run)
    for number, one in enumerate(before, 1):
        again = _found_again(one, old[0], number)
        data = replace(data, train=data.train.joined(again))
    learned = [data.train.select(_shots_again(place, data.train)) for place in places]
    new = _new_of(folder, old[0], reading, len(before) + 1, learned)
    _check_apart(new, data)
    sums = {entry.key.partition("/")[2]: file_hashes(entry.files) for entry in new.entries}
    addition = Addition(_lasting(folder), _kept(reading), sums)
    data = replace(data, train=data.train.joined(new))
    items = [RunItem(categories[0], place.seed, data) for place in places]
    shots = [(*_shots_again(place, data.train), *new.keys) for place in places]
    items = check_items(items, config)
    named = {"of": run.resolve().name, **provenance_of(config, old[0].random_weights).document()}
    changes = {}
    with writing(target, RUN_FORMAT) as made:
        local = Mirror(made, made)
        train_into(made, config, items, shots, local, progress, command, old[0].encoder)
        folders = [one.document() for one in (*before, addition)]
        write_json(made / layout.ADDED, {**named, "folders": folders})
        for place, model in zip(places, old, strict=True):
            now = layout.model_folder(made, place.category, place.seed)
            newer = load(now, model.encoder)
            changes[place.name] = changes_of(place, model, now, newer, new)
        said = {name: found.document() for name, found in changes.items()}
        write_json(made / layout.CHANGES, {**named, "models": said})
    return changes


def read_additions(run: Path) -> list[Addition]:
    """What was added to a run before.

    Raises:
        BadInputError: what says so is damaged.
    """
    path = run / layout.ADDED
    if not path.is_file():
        return []
    try:
        return [
            Addition(
                Path(str(one["folder"])),
                dict(one["reading"]),
                {str(scan["key"]): dict(scan["sha256"]) for scan in one["scans"]},
            )
            for one in read_object(path)["folders"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInputError(
            f"not what was written: {error!s:.120}", "add to the run it was made of", path
        ) from error


def _continued(
    config: TrainConfig,
    places: Sequence[ModelFolder],
    target: Path,
    cache: str | None,
    data_root: str | None,
) -> TrainConfig:
    """The run's config for its next version: as it was, but for where and what is trained."""
    return replace(
        config,
        data_root=data_root or config.data_root,
        category=(places[0].category,),
        seeds=tuple(place.seed for place in places),
        out=str(target),
        overwrite=False,
        resume=False,
        parallel="auto",
        coordinator=None,
        processes=None,
        process=None,
        cache=cache,
    )


def _new_of(
    folder: Path, model: PIRN, reading: Reading, number: int, known: Sequence[Split]
) -> Split:
    """The scans of a folder that the run has not learned from yet."""
    found = _found(folder, model, reading, number)
    files = _files(*known)
    new = [
        entry.key
        for entry in found.entries
        if not any(file.path.resolve() in files for file in entry.files.values())
    ]
    if not new:
        raise BadInputError(
            "the run has learned from all of these scans already",
            "add others, or mark further false alarms",
            folder,
        )
    if len(new) < len(found):
        _log.info("%s: %d scans are learned from already", folder, len(found) - len(new))
    return found.select(new)


def _files(*splits: Split) -> set[Path]:
    """All their files."""
    return {
        file.path.resolve()
        for split in splits
        for entry in split.entries
        for file in entry.files.values()
    }


def _found(
    folder: Path, model: PIRN, reading: Reading, number: int, again: Collection[str] | None = None
) -> Split:
    """The scans of a folder, under keys of their own: `added1/<key>`.

    Args:
        folder: of scans, or of a service's log.
        model: whose scans they are.
        reading: flags of how they are to be understood.
        number: of the addition.
        again: of a log: those that joined before, however they are marked now.
    """
    options, camera = options_of(model.origin, reading)
    if is_log(folder):
        entries = list_marked(folder, str(model.origin.get("category")), again)
        if not entries:
            raise BadInputError("no part is marked as a false alarm", "mark some", folder)
        scans = Split(entries, partial(read_given, options=options, camera=camera))
    else:
        scans, left_out = find_scans([folder], {}, model.config.modalities, options, None, camera)
        if left_out:  # whoever adds scans wants them all learned
            name, reason = left_out[0]
            raise BadInputError(f"{name}: {reason}", "take it out, or give what it lacks", folder)
    return scans.renamed(lambda key: f"added{number}/{key}")


def _found_again(addition: Addition, model: PIRN, number: int) -> Split:
    """The scans of an earlier addition, which must be what they were."""
    found = _found(addition.folder, model, Reading(**addition.reading), number, addition.scans)
    split = found.select([f"added{number}/{key}" for key in addition.scans])
    for entry, sums in zip(split.entries, addition.scans.values(), strict=True):
        _check_same(entry, sums)
    return split


def _shots_again(place: ModelFolder, train: Split) -> tuple[str, ...]:
    """The keys a model learned from, of scans that must be what they were."""
    path = place.path / layout.SPLIT
    try:
        recorded = {str(s["key"]): dict(s["sha256"]) for s in read_object(path)["shots"]}
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(f"not what was written: {error!s:.120}", "train again", path) from error
    for entry, sums in zip(train.select(recorded).entries, recorded.values(), strict=True):
        _check_same(entry, sums)
    return tuple(recorded)


def _kept(reading: Reading) -> dict[str, Any]:
    """The flags that are given, as plain JSON values that mean the same elsewhere."""
    kept = {name: value for name, value in reading.changed().items() if name != "limits"}
    names = ("calibration", "intrinsics")
    files = {n: address(_lasting(Path(kept[n]))) for n in names if n in kept}
    return kept | files


def _lasting(path: Path) -> Path:
    """The path as it is from anywhere."""
    return path if is_remote(path) else path.resolve()


def _check_same(entry: Entry, sums: Mapping[str, str]) -> None:
    if file_hashes(entry.files) != sums:
        raise BadInputError(
            f"{entry.key}: its files are no longer those that the run learned from",
            "put them back, or train again",
            str(next(iter(entry.files.values()), "")) or None,
        )


def _check_apart(new: Split, data: Dataset) -> None:
    """Refuse to learn from scans by which the run is measured."""
    for split, words in (
        (data.test, "a test scan of this run: what it says of a part it has learned means nothing"),
        (data.validation, "a scan that this run's threshold is set with"),
    ):
        files = _files(split)
        for entry in new.entries:
            if any(file.path.resolve() in files for file in entry.files.values()):
                raise ConfigError(
                    f"{entry.key} is {words}", "move it out of there, or leave it out"
                )
