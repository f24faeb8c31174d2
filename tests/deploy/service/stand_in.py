"""A service without a model: its judge reads the files as `predict` would."""

import io
import threading

import numpy as np
from PIL import Image

from pirn_jax.deploy.service.app import Parts, create_app
from pirn_jax.deploy.service.batcher import Batcher
from pirn_jax.deploy.service.intake import accept
from pirn_jax.deploy.service.journal import Journal
from pirn_jax.deploy.service.judge import Judged, Served, Shown
from pirn_jax.deploy.service.measures import Measures
from pirn_jax.detector.records import now
from pirn_jax.errors import PirnError
from pirn_jax.scans import Limits, Options, read_scan

ABOUT = {
    "name": "cap", "scale": {"threshold": 5.0, "spread": 2.0, "scores": [1.0, 3.0, 5.0],
    "promise": "the largest of 3"}, "modalities": ["rgb", "normals"],
    "method": "none", "encoder": "none",
}  # fmt: skip


class Brightness:
    """Not OK where the photograph is bright; may be held up, and keeps the sizes of its calls."""

    def __init__(self, memory=1 << 30):
        self.calls, self.go_on = [], threading.Event()
        self.go_on.set()
        self.limits = Limits(memory=memory)

    def judge(self, parts):
        self.calls.append([part.key for part in parts])
        assert self.go_on.wait(30)
        return [self._one(part) for part in parts]

    def _one(self, part):
        try:
            scan = read_scan(part.files, Options(unit="auto", limits=self.limits))
        except PirnError as error:
            return error
        if scan.rgb is not None and scan.rgb.max() == 13:
            raise ZeroDivisionError("unlucky")
        heat = np.zeros(scan.valid.shape, np.float32)
        if scan.rgb is not None:
            heat = scan.rgb.mean(-1).astype(np.float32) / 255
        score = 10 * float(heat.max())
        label = int(score > 5)
        record = {
            "key": part.key, "time": now(), "score": score, "label": label, "threshold": 5.0,
            "rule": "part threshold", "regions": [], "size": heat.shape,
        }  # fmt: skip
        return Judged(record, Shown(scan.rgb, None, heat, heat > 0.5, scan.xyz))


def png(level=200, size=(12, 16)):
    stream = io.BytesIO()
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def make(folder, *, judge=None, keys=(), largest=1 << 20, local=True, **options):
    """The parts of a service."""
    judge = judge or Brightness()
    journal, measures = Journal(folder), Measures()
    models = {"cap": Served("cap", judge, ("rgb", "normals"), ABOUT)}
    batcher = Batcher(journal, models, measures=measures, **options)
    return Parts(journal, batcher, models, measures, keys=keys, largest=largest, local=local)


def app_of(parts):
    return create_app(parts)


def accepted(journal, key="a", level=200, model="cap", **more):
    """A part that was accepted and is not judged yet."""
    files = {"rgb": ("a.png", io.BytesIO(png(level)))}
    return accept(journal, files, key=key, model=model, source="http", **more)
