"""Lists of scans judged in parts: the bytes of one machine, whatever was interrupted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pirn_jax.cluster import Cluster
from pirn_jax.detector import PIRN
from pirn_jax.errors import ConfigError
from pirn_jax.runs import spread
from pirn_jax.runs.predictions import predict_scans
from pirn_jax.runs.sources import ModelSource
from pirn_jax.runs.spread import is_unfinished, load_on, predict_on
from pirn_jax.scans import Options
from pirn_jax.scans.datasets.judged import find_scans
from pirn_jax.storage import LARGEST_JSON
from tests.kills.works import small_encoder, small_model
from tests.scans import layouts

# The checker of types would read a scan to see that it is one, and some cannot be read.
pytestmark = pytest.mark.usefixtures("unchecked")


class InThisProcess(Cluster):
    """In place of a cluster: its tasks here, as workers with or without GPUs take them."""

    def __init__(self, gpus=0, most=1000):
        self.gpus, self.most, self.done = gpus, most, 0

    def map(self, steps, shared, tasks):
        for task in tasks:
            if self.done == self.most:
                raise KeyboardInterrupt
            self.done += 1
            if self.gpus:
                yield steps.write(shared, steps.judge(shared, steps.read(shared, task)))
            else:
                yield steps.whole(shared, task)


@pytest.fixture(scope="module")
def model():
    return small_model(small_encoder(), 1)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(spread, "BATCHES", 2)


@pytest.fixture
def scans(tmp_path):
    for number in range(11):
        path = tmp_path / "scans" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        if number in (2, 3, 10):
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(layouts.photograph(number)).save(path)
    return find_scans([tmp_path / "scans"], {}, ("rgb",), Options())[0]


@pytest.fixture
def source(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model")
    monkeypatch.setenv("PIRN_CACHE", str(tmp_path / "cache"))
    loaded = PIRN.load(tmp_path / "model", encoder=model.encoder)
    monkeypatch.setattr(spread, "loaded", lambda source: loaded)
    return ModelSource(tmp_path / "model", weights="random")


def without_time(folder):
    """Its files; of each record all but when it was made, and where."""
    found = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        if path.name == "predictions.jsonl":
            lines = [json.loads(line) for line in content.decode().splitlines()]
            content = [
                {name: value for name, value in line.items() if name not in ("time", *KINDS)}
                for line in lines
            ]
        if path.name != ".lock":
            found[path.name] = content
    return found


KINDS = ("heatmap", "mask")


def predict(cluster, source, model, scans, out, resume=False, runtime="jax"):
    failed = []

    def say(key, error):
        failed.append(key)

    loaded = PIRN.load(source.folder, encoder=model.encoder)
    loaded.config = replace(loaded.config, runtime=runtime)
    if cluster is None:
        records = list(predict_scans(loaded, scans, out, say, batch=2))
    else:
        records = list(predict_on(
            cluster, source, loaded, scans, out, say, batch=2, resume=resume
        ))  # fmt: skip
    assert [record["key"] for record in records] == list(scans.keys)
    return failed


@pytest.mark.parametrize("gpus", [0, 1])
def test_parts_give_the_bytes_of_the_whole(gpus, model, source, scans, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    failed = predict(None, source, model, scans, one)
    assert failed == ["02", "03", "10"]
    assert predict(InThisProcess(gpus), source, model, scans, other) == failed
    assert without_time(one) == without_time(other)
    assert len(list(one.glob("*_heatmap.png"))) == 8


def test_a_job_started_again_does_what_is_left(model, source, scans, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(InThisProcess(most=2), source, model, scans, out)
    assert is_unfinished(out)
    job = out / ".parts" / "job.json"
    said = job.read_bytes()
    job.unlink()  # as where it was stopped before that was written
    assert is_unfinished(out)
    job.write_bytes(said)
    # A worker was killed after its pictures, before its records.
    (out / ".parts" / "4.jsonl").unlink()
    with pytest.raises(ConfigError, match="an unfinished job is there"):
        predict(InThisProcess(), source, model, scans[:9], out, resume=True)
    for how in ({"runtime": "openvino"}, {"out": tmp_path / "scans" / ".." / "out"}):
        with pytest.raises(ConfigError, match="an unfinished job is there"):
            predict(InThisProcess(), source, model, scans, resume=True, **{"out": out} | how)
    cluster = InThisProcess()
    predict(cluster, source, model, scans, out, resume=True)
    assert cluster.done == 2  # of three
    assert not is_unfinished(out)
    predict(None, source, model, scans, tmp_path / "whole")
    assert without_time(out) == without_time(tmp_path / "whole")


def test_records_of_a_part_may_be_longer_than_what_is_believed_of_a_json_file(
    model, source, scans, tmp_path, monkeypatch
):
    def long(*given, known=spread.in_order):
        for record in known(*given):
            yield record | {"regions": "x" * LARGEST_JSON if record["key"] == "00" else ""}

    monkeypatch.setattr(spread, "in_order", long)
    assert predict(InThisProcess(), source, model, scans, tmp_path / "out") == ["02", "03", "10"]


def test_a_model_on_a_cluster_says_what_it_says_here(model, source, scans, monkeypatch):
    monkeypatch.setattr(ModelSource, "load", lambda self, encoder, kind: kind.load(
        self.folder, encoder=model.encoder
    ))  # fmt: skip
    there = load_on(InThisProcess(), source)
    failed = {}
    found = list(there.predict_scans(scans, batch=2, failed=failed.__setitem__))
    here = list(model.predict_scans(scans, batch=2, failed=lambda *_: None))
    assert set(failed) == {"02", "03", "10"}
    for one, other in zip(found, here, strict=True):
        assert one.scan.key == other.scan.key
        assert one.inferred.score == other.inferred.score
        np.testing.assert_array_equal(one.inferred.fused, other.inferred.fused)
