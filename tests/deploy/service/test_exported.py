"""An exported file behind the service: the trained model's verdicts, in a process without JAX."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pirn_jax.deploy.service.exported import Exported
from pirn_jax.deploy.service.judge import Part, ScanJudge
from pirn_jax.detector.judging import Judging
from pirn_jax.errors import BadInputError, NotJudgedError
from pirn_jax.scans import open_dataset
from pirn_jax.scans.formats.options import Reading

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parents[3]

# The command itself, but for the listening.
PROGRAM = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("jax", "jaxlib", "flax", "optax", "orbax", "ott"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import json, uvicorn
from starlette.testclient import TestClient
import pirn_jax.serve

class Server(uvicorn.Server):
    def run(self):
        with TestClient(self.config.app, base_url="http://127.0.0.1:8000") as client:
            roles = zip(("rgb", "xyz"), sys.argv[3:])
            files = {role: (path, open(path, "rb")) for role, path in roles}
            print(json.dumps([client.post("/v1/judge", files=files).json(),
                              client.get("/v1/models").json()]))

uvicorn.Server = Server
pirn_jax.serve.main([sys.argv[1], "--state", sys.argv[2]])
"""


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """Files of a generated part."""
    folder = tmp_path_factory.mktemp("scan")
    scan = open_dataset("synthetic", None, "flange").test[0]
    Image.fromarray(scan.rgb).save(folder / "a.png")
    np.save(folder / "a.npy", scan.xyz)
    return {"rgb": folder / "a.png", "xyz": folder / "a.npy"}


@pytest.mark.slow
def test_the_service_judges_without_jax(saved, part, tmp_path):
    model, place = saved
    words = [place / "part.onnx", tmp_path / "state", part["rgb"], part["xyz"]]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'runtime'}"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record, (about,) = json.loads(done.stdout.splitlines()[-1])
    expected = model.predict(part)
    assert record["score"] == pytest.approx(expected.pred_score, rel=1e-3)
    assert (record["label"], record["rule"]) == (expected.pred_label, "part threshold")
    assert len(record["regions"]) == len(expected.regions)
    assert set(record["versions"]) == {"pirn_jax", "pirn_runtime"}
    assert (about["name"], about["method"], about["encoder"]) == ("part", "mixture", "pirn-tiny")


def test_one_part_that_cannot_be_judged_keeps_no_other_from_it(saved, part, tmp_path):
    _, place = saved
    model = Exported(place / "part.onnx", "onnxruntime")
    judge = ScanJudge(model, Judging(), {}, Reading(unit="m"), 4)
    (tmp_path / "rgb.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.asarray(Image.open(part["rgb"])) // 8).save(tmp_path / "dark.png")
    parts = [
        Part("1", "one", "part", part),
        Part("2", "two", "part", part | {"rgb": tmp_path / "rgb.png"}),
        Part("3", "three", "part", part | {"rgb": tmp_path / "dark.png"}),
        Part("4", "four", "part", part),
    ]
    first, broken, dark, last = judge.judge(parts)
    assert isinstance(broken, BadInputError)
    assert isinstance(dark, NotJudgedError)
    assert (first.record["key"], last.record["key"]) == ("one", "four")
    assert first.record["score"] == pytest.approx(last.record["score"], rel=0, abs=1e-5)
    assert first.shown.normals.shape == first.shown.photograph.shape
    with pytest.raises(BadInputError, match=r"a\.png"):
        Exported(part["rgb"], "onnxruntime")


def test_errors_of_a_runtime_that_is_installed_by_itself_become_ours(monkeypatch, saved):
    """As the wheel has them: other classes under the same names."""
    import pirn_runtime

    class PirnError(Exception):
        def __init__(self, problem, remedy, path):
            super().__init__(problem)
            self.problem, self.remedy, self.path = problem, remedy, path

    class NotJudgedError(PirnError):
        pass

    model = Exported(saved[1] / "part.onnx", "onnxruntime")

    def show(_):
        raise NotJudgedError("dark", "see to the light", None)

    monkeypatch.setattr(model._judge, "show", show)
    found = {}
    scans = open_dataset("synthetic", None, "flange").test[:1]
    assert list(model.predict_scans(scans, batch=1, failed=found.__setitem__)) == []
    (error,) = found.values()
    assert (type(error).__module__, type(error).__name__) == ("pirn_jax.errors", "NotJudgedError")
    assert (error.problem, error.remedy) == ("dark", "see to the light")

    def refuse(*_, **__):
        raise PirnError("damaged", "export it again", "part.onnx")

    monkeypatch.setattr(pirn_runtime, "Judge", refuse)
    from pirn_jax.errors import PirnError as Ours

    with pytest.raises(Ours, match="damaged"):
        Exported(Path("part.onnx"), "onnxruntime")
