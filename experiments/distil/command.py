"""The command: flags, what is read, and what is written.

python experiments/distil --pictures PHOTOGRAPHS.tar NORMALS/ --minutes 60 --out RUN
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import tyro

from distil.export import write_student
from distil.pictures import Pictures, read_pictures, source_names
from distil.progress import progress, say
from distil.schedule import Schedule
from distil.train import Distilled, Recipe, distil
from pirn_jax.encoder.encoder import Encoder, load_encoder
from pirn_jax.storage import write_json


@dataclass(frozen=True)
class Options:
    """Distil a small encoder from a large one.

    Attributes:
        pictures: folders (with all below them) and uncompressed tars of JPEG, PNG and WebP files;
            one named twice is drawn from twice as often.
        out: folder for checkpoints, the student and its figures.
        minutes: of the whole command, reading and compiling included; over all resumes.
        steps: instead of minutes.
        learning_rate: the highest.
        warm_up: share of the run in which the rate rises.
        teacher: the encoder to imitate, by its name.
        weights: its file; without one, the cache or the hub.
        init: a student's file to begin from; without one, a slice of the teacher.
        resume: go on with the run in `out`.
        save_minutes: between checkpoints.
        memory: GiB that decoded pictures may take.
        threads: that decode and crop.
        recipe: what is learned.
    """

    pictures: tuple[Path, ...]
    out: Path
    minutes: float | None = None
    steps: int | None = None
    learning_rate: float = 1e-3
    warm_up: float = 0.03
    teacher: str = "dinov2-small"
    weights: Path | None = None
    init: Path | None = None
    resume: bool = False
    save_minutes: float = 1.0
    memory: float = 16.0
    threads: int = os.cpu_count() or 1
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def main(options: Options) -> None:
    """Run it."""
    began, recipe = time.monotonic(), options.recipe
    schedule = Schedule(options.minutes, options.steps, options.learning_rate, options.warm_up)
    teacher = load_encoder(options.teacher, options.weights, recipe.image_size, dtype=recipe.dtype)
    recipe.network(teacher)  # says what is wrong before anything is read
    weights = Counter(options.pictures)
    sources = dict(zip(source_names(list(weights)), weights.values(), strict=True))
    with progress("reading") as tell:
        pictures = read_pictures(
            list(weights),
            recipe.image_size,
            threads=options.threads,
            memory=options.memory,
            progress=lambda done, total: tell(done / total, f"{done} of {total} pictures"),
        )
    _say_what_was_read(pictures)
    stops: list[int] = []
    before = {number: signal.signal(number, _stopper(stops)) for number in _SIGNALS}
    try:
        result = distil(
            recipe,
            schedule,
            teacher,
            pictures,
            sources,
            options.out / "checkpoints",
            init=options.init,
            resume=options.resume,
            save_seconds=60 * options.save_minutes,
            threads=options.threads,
            began=began,
            stop=lambda: bool(stops),
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _write(options, schedule, teacher, pictures, sources, result)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _stopper(stops: list[int]):
    """Ends the run after its step; a second signal ends the process."""

    def stop(number: int, _: object) -> None:
        if stops:
            raise KeyboardInterrupt
        stops.append(number)
        say("stopping after this step; again: at once")

    return stop


def _say_what_was_read(pictures: Pictures) -> None:
    size = sum(array.nbytes for array in pictures.arrays) / 2**30
    say(f"{len(pictures.arrays)} pictures, {size:.2f} GiB; {len(pictures.skipped)} left out")
    for name, reason in pictures.skipped[:20]:
        say(f"  left out: {name!r}: {reason}")
    if len(pictures.skipped) > 20:
        say(f"  and {len(pictures.skipped) - 20} more")


def _write(
    options: Options,
    schedule: Schedule,
    teacher: Encoder,
    pictures: Pictures,
    sources: dict[str, int],
    result: Distilled,
) -> None:
    """The student's file, and its figures beside it."""
    path = options.out / f"student_{options.recipe.student}.safetensors"
    config = options.recipe.network(teacher).config
    digest = write_student(path, result.parameters, config, result.statistics, teacher.layers)
    count = Counter(pictures.sources)
    devices = jax.local_devices()
    figures = {
        "file": path.name,
        "sha256": digest,
        "bytes": path.stat().st_size,
        "parameters": sum(value.size for value in result.parameters.values()),
        "teacher": {
            "name": teacher.config.name,
            "layers": teacher.layers,
            "sha256": teacher.source.sha256,
        },
        "recipe": dataclasses.asdict(options.recipe),
        "schedule": dataclasses.asdict(schedule),
        "init": options.init.name if options.init else "slice",
        "pictures": {
            name: {"count": count[i], "weight": weight}
            for i, (name, weight) in enumerate(sources.items())
        },
        "left_out": len(pictures.skipped),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "pictures_seen": result.steps * options.recipe.batch,
        "held_out": {"before": result.before, "after": result.after},
        "history": result.history,
    }
    write_json(path.with_suffix(".json"), figures)
    say(f"wrote {path} and {path.with_suffix('.json').name}")
