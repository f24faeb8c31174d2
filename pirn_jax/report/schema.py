"""What the documents of a run folder hold: runs write by it and the report reads by it.

Each JSON document has a function that makes it, `…_document`, and one that reads it, `read_…`, so
that a field's name stands in one place. Readers take untrusted documents: what does not fit is left
out, and nothing is raised. Every document says where it came from: `Provenance`. The files of lines
are described in `pirn_jax.report.tables`, and where all of them lie in `pirn_jax.report.layout`.
`config.json` has the fields of the run's own config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from pirn_jax import scoring
from pirn_jax.errors import BadInputError
from pirn_jax.report.layout import SEED_FOLDER
from pirn_jax.scans import Note
from pirn_jax.scoring import Calibration

Document = dict[str, object]
"""A JSON object: to be written, or as found and not yet believed."""

_LARGEST = 1e30
_UP = {"roc": "tpr", "pro": "pro"}  # what goes up in each curve, over "fpr"


# --- values of untrusted documents ----------------------------------------------------------------


def number(value: object) -> float | None:
    """The value as a float that figures can be drawn of (finite, below 1e30), or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None  # NaN is not below anything


def numbers(value: object) -> list[float] | None:
    """The value as a list of finite floats, or None."""
    if not isinstance(value, list):
        return None
    found = [number(item) for item in value]
    return None if None in found else [item for item in found if item is not None]


def mapping(value: object) -> Document:
    """The value if it is a dictionary with text for keys, else an empty one."""
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return value
    return {}


def text_of(value: object) -> str:
    """The value if it is text, else ""."""
    return value if isinstance(value, str) else ""


def _words(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


# --- where it came from ---------------------------------------------------------------------------


class Provenance(NamedTuple):
    """How far a result may be believed; in every document of a run.

    Attributes:
        data: "generated" by a program, or "real".
        random_weights: the encoder's weights are random numbers.
    """

    data: Literal["generated", "real"]
    random_weights: bool

    def document(self) -> Document:
        """As fields for any document, or columns for any table."""
        return {"data": self.data, "random_weights": self.random_weights}


def read_provenance(*documents: Mapping[str, object]) -> Provenance:
    """The loudest of what documents say: generated and random if any of them says so."""
    generated = any(document.get("data") == "generated" for document in documents)
    random = any(document.get("random_weights") is True for document in documents)
    return Provenance("generated" if generated else "real", random)


# --- one model's documents ------------------------------------------------------------------------


class Curve(NamedTuple):
    """Points of a curve over the false-positive rate; lists of equal length."""

    across: list[float]
    up: list[float]


def figures_document(figures: Mapping[str, float], provenance: Provenance) -> Document:
    """A model's `metrics.json`: figures by name."""
    return {**figures, **provenance.document()}


def read_figures(document: Mapping[str, object]) -> dict[str, float]:
    """The figures of a model: whatever is a number."""
    return {name: v for name, value in document.items() if (v := number(value)) is not None}


def curves_document(curves: Mapping[str, Curve], provenance: Provenance) -> Document:
    """A model's `curves.json`; of "roc" and "pro" those that are defined."""
    points = {name: {"fpr": c.across, _UP[name]: c.up} for name, c in curves.items()}
    return {**points, **provenance.document()}


def read_curves(document: Mapping[str, object]) -> dict[str, Curve]:
    """The curves of a model: also of what `evaluate_maps` found, in which they stand likewise."""
    found = {}
    for name, upwards in _UP.items():
        points = mapping(document.get(name))
        across, up = numbers(points.get("fpr")), numbers(points.get(upwards))
        if across and up and len(across) == len(up):
            found[name] = Curve(across, up)
    return found


def usage_document(usage: Mapping[str, Sequence[float]], provenance: Provenance) -> Document:
    """A model's `usage.json`: by modality the share of each prototype."""
    return {**{name: list(shares) for name, shares in usage.items()}, **provenance.document()}


def read_usage(document: Mapping[str, object]) -> dict[str, list[float]]:
    """The shares by modality."""
    return {name: shares for name, value in document.items() if (shares := numbers(value))}


def calibration_document(calibration: Calibration, provenance: Provenance) -> Document:
    """A model's `calibration.json`."""
    return {**calibration._asdict(), **provenance.document()}


def read_calibration(document: Mapping[str, object]) -> Calibration | None:
    """The calibration, or None where a field is missing or of another kind (another version)."""
    try:
        return scoring.read_calibration(document)
    except BadInputError:
        return None


# --- the run's documents --------------------------------------------------------------------------


class EncoderFacts(NamedTuple):
    """Which encoder a run used.

    Attributes:
        name: as in `Config`.
        sha256: of its file, or "".
        layers: blocks from 1.
        image_size: side in pixels.
        about: where its weights come from and under which licence, where that is known.
    """

    name: str
    sha256: str
    layers: tuple[int, ...]
    image_size: int
    about: str = ""


class RecipeFacts(NamedTuple):
    """How the method learned: a recipe's name, and where the run's settings differ from it.

    Attributes:
        name: of the recipe.
        changed: value by dotted path, {"decoder.prototypes": 50}.
    """

    name: str
    changed: dict[str, object]


class RunMetrics(NamedTuple):
    """`metrics.json` of a run.

    Attributes:
        categories: the figures of each model, by category and seed.
        mean: over categories of the mean over seeds, of each figure.
        encoder: the encoder, where it is known.
        recipe: the recipe, where it is known.
        provenance: where it all came from.
        notes: what is odd about each category's data, and which figures that makes doubtful.
        left_out: test and validation scans that could not be used.
    """

    categories: dict[str, dict[int, dict[str, float]]]
    mean: dict[str, float]
    encoder: EncoderFacts | None
    recipe: RecipeFacts | None
    provenance: Provenance
    notes: Mapping[str, tuple[Note, ...]] = {}
    left_out: int = 0


def run_metrics_document(metrics: RunMetrics) -> Document:
    """`metrics.json` of a run."""
    encoder = {} if metrics.encoder is None else metrics.encoder._asdict()
    recipe = None if metrics.recipe is None else metrics.recipe._asdict()
    categories = {
        category: {f"seed{seed}": dict(figures) for seed, figures in seeds.items()}
        for category, seeds in metrics.categories.items()
    }
    return {
        "categories": categories,
        "mean": dict(metrics.mean),
        "encoder": {**encoder, "random": metrics.provenance.random_weights},
        "recipe": recipe,
        "data": metrics.provenance.data,
        "notes": {name: [note._asdict() for note in n] for name, n in metrics.notes.items()},
        "left_out": metrics.left_out,
    }


def read_run_metrics(document: Mapping[str, object]) -> RunMetrics:
    """The metrics of a run; a recipe written as its name alone is that of an older version."""
    categories: dict[str, dict[int, dict[str, float]]] = {}
    for category, seeds in mapping(document.get("categories")).items():
        for name, figures in mapping(seeds).items():
            if match := SEED_FOLDER.fullmatch(name):
                found = categories.setdefault(category, {})
                found[int(match[1])] = read_figures(mapping(figures))
    encoder, recipe = mapping(document.get("encoder")), document.get("recipe")
    if isinstance(recipe, str):
        recipe = {"name": recipe}
    name = text_of(mapping(recipe).get("name"))
    layers = numbers(encoder.get("layers")) or []
    return RunMetrics(
        categories,
        read_figures(mapping(document.get("mean"))),
        EncoderFacts(
            text_of(encoder.get("name")),
            text_of(encoder.get("sha256")),
            tuple(int(layer) for layer in layers),
            int(number(encoder.get("image_size")) or 0),
            text_of(encoder.get("about")),
        )
        if text_of(encoder.get("name"))
        else None,
        RecipeFacts(name, mapping(mapping(recipe).get("changed"))) if name else None,
        read_provenance(document, {"random_weights": encoder.get("random")}),
        {name: _notes(value) for name, value in mapping(document.get("notes")).items()},
        int(number(document.get("left_out")) or 0),
    )


_TOUCHES: dict[str, Literal["scans", "pixels", "all"]]
_TOUCHES = {"scans": "scans", "pixels": "pixels", "all": "all"}


def _notes(value: object) -> tuple[Note, ...]:
    found = []
    for one in map(mapping, value if isinstance(value, list) else ()):
        if words := text_of(one.get("words")):
            found.append(Note(words, _TOUCHES.get(text_of(one.get("touches")), "")))
    return tuple(found)


def is_touched(figure: str, notes: Iterable[Note]) -> bool:
    """Whether notes make a figure doubtful; the names of those of scans begin with i_."""
    kinds = {"all", "scans" if figure.startswith("i_") else "pixels"}
    return any(note.touches in kinds for note in notes)


class Environment(NamedTuple):
    """`environment.json`: what a run was made with, and how.

    Attributes:
        command: its words; () where the run was no command's.
        started: ISO 8601, UTC.
        pirn_jax: version.
        python: version.
        platform: operating system and processor.
        processors: how many; None unknown.
        packages: version by name; None: not installed.
        devices: those jax used.
        run: the run whose models were evaluated; "" where it is this one.
    """

    command: tuple[str, ...] = ()
    started: str = ""
    pirn_jax: str = ""
    python: str = ""
    platform: str = ""
    processors: int | None = None
    packages: Mapping[str, str | None] = {}
    devices: tuple[str, ...] = ()
    run: str = ""


def environment_document(environment: Environment, provenance: Provenance) -> Document:
    """`environment.json`."""
    found = environment._asdict() | {
        "command": list(environment.command),
        "packages": dict(environment.packages),
        "devices": list(environment.devices),
    }
    if not environment.run:
        del found["run"]
    return {**found, **provenance.document()}


def read_environment(document: Mapping[str, object]) -> Environment:
    """The environment; fields that do not fit have their defaults."""
    processors = number(document.get("processors"))
    packages = mapping(document.get("packages"))
    return Environment(
        _words(document.get("command")),
        text_of(document.get("started")),
        text_of(document.get("pirn_jax")),
        text_of(document.get("python")),
        text_of(document.get("platform")),
        None if processors is None else int(processors),
        {name: v for name, v in packages.items() if v is None or isinstance(v, str)},
        _words(document.get("devices")),
        text_of(document.get("run")),
    )


class Shots(NamedTuple):
    """What one model learned from: keys of its scans, in the order of choice."""

    category: str
    seed: int
    keys: tuple[str, ...]


def split_document(
    splits: Mapping[tuple[str, int], Mapping[str, object]],
    provenance: Provenance,
    extra: Mapping[str, object] | None = None,
) -> Document:
    """`split.json` of a run.

    Args:
        splits: by category and seed, what `pirn_jax.scans.write_split` wrote for the model.
        provenance: where the scans came from.
        extra: of generated data the "generator"'s version and hash.
    """
    found: dict[str, dict[str, object]] = {}
    for (category, seed), split in splits.items():
        found.setdefault(category, {})[f"seed{seed}"] = dict(split)
    return {**found, **provenance.document(), **(extra or {})}


def read_shots(document: Mapping[str, object]) -> list[Shots]:
    """The shots of each model of a run."""
    found = []
    for category, seeds in document.items():
        for name, split in mapping(seeds).items():
            match, shots = SEED_FOLDER.fullmatch(name), mapping(split).get("shots")
            if match and isinstance(shots, list):
                keys = (mapping(shot).get("key") for shot in shots)
                words = tuple(key for key in keys if isinstance(key, str))
                found.append(Shots(category, int(match[1]), words))
    return found
