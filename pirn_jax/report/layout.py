"""Where everything in a run folder lies: for runs, which write it, and the report, which reads it.

    runs/<name>/
      config.json        every setting
      environment.json   command, packages, devices: `Environment`
      split.json         the shots of each model: `Shots`
      history.jsonl      the loss, epoch by epoch: `HistoryLine`
      checkpoints/       to go on from
      metrics.json       `RunMetrics`
      scores.csv         `ScoreRow` of every model, behind its category and seed
      report.html
      added.json         of a run that `train --add` made: which scans joined the shots, and whence
      changes.json       and what came of it: `pirn_jax.runs.changes`
      <category>/seed<k>/                `ModelFolder`
        model/           what `PIRN.load` reads
        split.json       of this model
        metrics.json     figures by name
        scores.csv       `ScoreRow`
        curves.json      ROC and PRO of the pixels: `Curve`
        usage.json       share of the tokens each prototype answers for, by modality
        calibration.json `pirn_jax.scoring.Calibration`
        maps/<stem>.npy      the fused map of every scan, float32
        pictures/<stem>.npz  rgb, normals, mask uint8 and map_<modality> float16 of some scans

What the documents hold is in `pirn_jax.report.schema`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
SPLIT = "split.json"
HISTORY = "history.jsonl"
CHECKPOINTS = "checkpoints"
METRICS = "metrics.json"
SCORES = "scores.csv"
REPORT = "report.html"
MODEL = "model"
CURVES = "curves.json"
USAGE = "usage.json"
CALIBRATION = "calibration.json"
ADDED = "added.json"
CHANGES = "changes.json"
MAPS = "maps"
PICTURES = "pictures"
MAP_PREFIX = "map_"
"""Of the arrays in a picture file that are maps; the modality follows."""

SEED_FOLDER = re.compile(r"seed(0|[1-9][0-9]{0,18})", re.ASCII)
_LONGEST = 160  # bytes of a stem before it is cut; file systems allow 255 with the extension


class ModelFolder(NamedTuple):
    """Where one model of a run lies.

    Attributes:
        path: `<run>/<category>/seed<k>`.
        category: name of the folder; untrusted where it was found rather than made.
        seed: k.
    """

    path: Path
    category: str
    seed: int

    @property
    def name(self) -> str:
        """In the run: `<category>/seed<k>`, which is also the training job's name."""
        return f"{self.category}/seed{self.seed}"

    @property
    def trained(self) -> bool:
        """Whether there is a model that can be loaded, and not results alone."""
        return (self.path / MODEL / CONFIG).is_file()

    def map_of(self, key: str) -> Path:
        """The file of a scan's fused map."""
        return self.path / MAPS / f"{picture_stem(key)}.npy"

    def picture_of(self, key: str) -> Path:
        """The file of a scan's pictures."""
        return self.path / PICTURES / f"{picture_stem(key)}.npz"


def model_folder(run: Path, category: str, seed: int) -> ModelFolder:
    """Where a model of a run belongs, there or not."""
    return ModelFolder(run / category / f"seed{seed}", category, seed)


def list_models(run: Path) -> list[ModelFolder]:
    """The models of a run that are there, trained or with results alone, by category and seed."""
    found = [
        ModelFolder(path, path.parent.name, int(match[1]))
        for path in run.glob("*/seed*")
        if (match := SEED_FOLDER.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted(found, key=lambda model: (model.category, model.seed))


def picture_stem(key: str) -> str:
    """A scan's key as the name of a file, without extension; no two keys share one.

    `test/good/000` becomes `test__good__000`. Whatever could be mistaken for a slash, hide the file
    or lead elsewhere is written as %XX; a name too long for a file system is cut and ends in its
    hash.
    """
    stem = "".join(
        "__" if letter == "/" else letter if _plain(key, place) else _escaped(letter)
        for place, letter in enumerate(key)
    )
    if len(stem.encode()) > _LONGEST:
        digest = hashlib.sha256(stem.encode()).hexdigest()[:32]
        stem = f"{stem.encode()[:_LONGEST].decode(errors='ignore')}%-{digest}"
    return stem or "%"


def _plain(key: str, place: int) -> bool:
    letter = key[place]
    if letter == "_":  # alone it is itself; beside its like or a slash it would read as one
        return not {"_", "/"} & set(key[max(0, place - 1) : place] + key[place + 1 : place + 2])
    if letter == "." and place == 0:
        return False
    return letter.isprintable() and letter not in '%\\:*?"<>|'


def _escaped(letter: str) -> str:
    # A lone surrogate stands for a byte of a file name that is no UTF-8.
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
