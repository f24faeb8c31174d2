"""What an exported file says of itself: a JSON object in it, written here and read as untrusted.

The table of keys is in docs/deploy.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pirn_jax.errors import BadInputError
from pirn_jax.geometry.prepared import Settings
from pirn_jax.geometry.showing import Looking
from pirn_jax.geometry.sight import SightLimits, read_sight
from pirn_jax.scoring.calibration import Calibration, read_calibration

FORMAT = "pirn_jax part 1"
ENTRY = "pirn_jax"
"""Under which it lies in an ONNX file's metadata."""
LARGEST = 1 << 20  # bytes of the object
_LARGEST_SIDE, _LARGEST_BATCH = 4096, 4096
_ANOTHER = "export it again, with the version of pirn_jax that judges"
# Fields of onnx.proto: ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto.
_GRAPH, _METADATA, _FUNCTIONS = 7, 14, 25
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15
_ATTRIBUTE, _DOMAIN = 5, 7
_LONGEST = 1e6  # metres
_HOLDING = {5, 6, 10, 11, 22, 23}  # tensors and graphs
_EXTERNAL, _LOCATION = 13, 14


class Description(NamedTuple):
    """What is known of an exported model; fields as in docs/deploy.md."""

    version: str
    model: str
    weights: str
    licence: str
    encoder: str
    about: str
    random_weights: bool
    looking: Looking
    sight: SightLimits | None
    batch: int | None
    stored: str
    calibration: Calibration | None
    reading: dict[str, Any]
    trained_on: str | None
    config: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As plain JSON values."""
        looking, settings, known = self.looking, self.looking.settings, self.calibration
        side = looking.part_side
        return {
            "format": FORMAT,
            "version": self.version,
            "model": self.model,
            "weights": self.weights,
            "licence": self.licence,
            "encoder": self.encoder,
            "about": self.about,
            "random_weights": self.random_weights,
            "modalities": list(looking.modalities),
            "image_size": looking.image_size,
            "batch": self.batch,
            "stored": self.stored,
            "views": {
                "background": settings.background,
                "geometry": settings.method,
                "foreground": looking.foreground,
                "part_side": side,
            },
            "metres_per_pixel": None if side is None else side / looking.image_size,
            "sight": None if self.sight is None else self.sight._asdict(),
            "calibration": None if known is None else known._asdict(),
            "promise": known.statement() if known is not None and known.scans else "",
            "reading": self.reading,
            "trained_on": self.trained_on,
            "config": self.config,
        }


def parse_description(text: str, path: Path) -> Description:
    """What a file says of itself; none of it is believed.

    Raises:
        BadInputError: it is no description, or of another format.
    """
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise BadInputError(
                f"expected a {FORMAT!r}, got {document['format']!r:.80}", _ANOTHER, path
            )
        views, known = document["views"], document["calibration"]
        modalities = tuple(document["modalities"])
        if not modalities or not set(modalities) <= {"rgb", "normals"}:
            raise ValueError(f"modalities {modalities!r:.80}")
        settings = Settings(
            method=_one_of(views["geometry"], ("grid", "open3d")),
            background=_one_of(views["background"], ("plane", "none")),
        )
        looking = Looking(
            modalities,
            _whole(document["image_size"], _LARGEST_SIDE),
            settings,
            _one_of(views["foreground"], ("mask", "all")),
            None if views["part_side"] is None else _length(views["part_side"]),
        )
        batch = document["batch"]
        return Description(
            **{
                name: _text(document[name])
                for name in ("version", "model", "weights", "licence", "encoder", "about", "stored")
            },
            random_weights=document["random_weights"] is True,
            looking=looking,
            sight=read_sight(document["sight"]),
            batch=None if batch is None else _whole(batch, _LARGEST_BATCH),
            calibration=None if known is None else read_calibration(known),
            reading=dict(document["reading"]),
            trained_on=None if document["trained_on"] is None else _text(document["trained_on"]),
            config=dict(document["config"]),
        )
    except BadInputError as error:
        raise BadInputError(error.problem, error.remedy or _ANOTHER, path) from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadInputError(
            f"its description is damaged: {type(error).__name__}: {error!s:.120}", _ANOTHER, path
        ) from error


def read_entry(content: bytes, path: Path) -> str:
    """The description in an ONNX file's bytes, before any other program looks at them.

    Raises:
        BadInputError: no ONNX file, none of ours, or one that would read other files.
    """
    try:
        found = None
        for field, part in _fields(memoryview(content)):
            if field == _METADATA:
                entry = dict(_fields(part))
                if entry[1] == ENTRY.encode() and len(entry[2]) <= LARGEST:
                    found = entry[2].tobytes().decode()
            elif field == _GRAPH and (problem := _problem(part)):
                raise BadInputError(problem, _ANOTHER, path)
            elif field == _FUNCTIONS:
                raise BadInputError("functions, which no file of ours has", _ANOTHER, path)
    except BadInputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"not a readable ONNX file: {error}", _ANOTHER, path) from error
    if found is None:
        raise BadInputError(
            f"an ONNX file without a description {ENTRY!r}",
            "export one with python -m pirn_jax.export",
            path,
        )
    return found


def _problem(graph: memoryview) -> str:
    """What a graph has that none of ours has, and by which other files could be read; or ""."""
    for field, part in _fields(graph):
        if field == _INITIALIZER:
            for inner, value in _fields(part):
                if inner == _EXTERNAL or (inner == _LOCATION and value != 0):
                    return "weights that lie in another file"
        elif field == _NODE:
            for inner, value in _fields(part):
                if inner == _DOMAIN and len(value):
                    return "operators that are not ONNX's own"
                if inner == _ATTRIBUTE and _HOLDING & {kind for kind, _ in _fields(value)}:
                    return "graphs or weights within an operator"
        elif field == _SPARSE:
            return "sparse weights"
    return ""


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Fields of a Protocol Buffers message: numbers as they are, all else as bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                if kind != 2:
                    raise ValueError(f"wire type {kind}")
                size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("cut short")
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")


def _one_of(value: object, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got {value!r:.80}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r:.80}")
    return value


def _whole(value: object, most: int) -> int:
    if type(value) is not int or not 1 <= value <= most:
        raise ValueError(f"expected a whole number from 1 to {most}, got {value!r:.80}")
    return value


def _length(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value <= _LONGEST:
        raise ValueError(f"expected metres above 0, got {value!r:.80}")
    return float(value)


Stored = Literal["float32", "float16", "int8"]
"""How weights lie in a file."""
