"""The next version of a run: what is learned, what stays as it was, and what is said of it."""

import hashlib
import io
import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from pirn_jax import PIRN
from pirn_jax.config import Config, TrainConfig
from pirn_jax.deploy.service.intake import accept
from pirn_jax.deploy.service.journal import Journal
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.report.tables import ScoreRow
from pirn_jax.runs.additions import add_to_run, next_version, read_additions
from pirn_jax.runs.changes import Changes, _flipped
from pirn_jax.runs.training import train_run
from pirn_jax.scans import open_dataset
from pirn_jax.scans.synthetic.generator import write_mvtec3d


def test_versions_lie_beside_each_other(tmp_path):
    assert next_version(tmp_path / "flange") == tmp_path / "flange-v2"
    assert next_version(tmp_path / "flange-v2") == tmp_path / "flange-v3"
    assert next_version(tmp_path / "rev-v1x") == tmp_path / "rev-v1x-v2"
    assert next_version(Path("s3://bucket/flange")) == Path("s3://bucket/flange-v2")


def test_what_was_added_before_is_not_believed(tmp_path):
    assert read_additions(tmp_path) == []
    for damage in ("{}", '{"folders": [{"folder": "a", "reading": {}, "scans": [1]}]}'):
        (tmp_path / "added.json").write_text(damage)
        with pytest.raises(BadInputError, match="not what was written"):
            read_additions(tmp_path)


def test_changes_in_words():
    changes = Changes(
        (6.0, 5.0), (3.0, 3.0), (10, 10), {"i_auroc": (0.9, None)}, {"a": (1.0, 7.0)},
        {"a": (0, 1)}, {"added1/b": (6.5, 2.0), "added1/c": (6.6, 3.0)}, (2, 0),
    )  # fmt: skip
    said = list(changes.lines())
    assert said[0] == "threshold 6 → 5"
    assert "10 good scans it was set with 3" in said[1]
    assert said[2].startswith("2 scans joined the shots: their median score 6.55 → 2.5")
    assert said[2].endswith("called defective 2 → 0")
    assert said[3] == "i_auroc of the test scans 0.900 → unknown"
    assert said[4:] == ["1 of 1 test scans now called defective: a"]


def test_what_has_no_label_on_one_side_is_not_called_otherwise():
    rows = [
        {
            key: ScoreRow(key, None, "", 1.0, label)
            for key, label in zip("abcde", labels, strict=True)
        }
        for labels in ((None, None, 0, 1, 1), (0, 1, 1, None, 1))
    ]
    assert _flipped(*rows) == {"c": (0, 1)}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("versions")


@pytest.fixture(scope="module")
def run(place):
    """Trained on files, in the layout of a released dataset."""
    write_mvtec3d(place / "data", "flange", size=96, train=3, validation=3, test=4)
    config = TrainConfig(
        dataset="mvtec3d",
        data_root=str(place / "data"),
        shots=2,
        detector=Config(encoder="pirn-tiny", image_size=56),
        out=str(place / "run"),
        cache=str(place / "cache"),
    )
    return train_run(config)


def good(folder, places):
    """Files of generated good parts that the run has not seen."""
    folder.mkdir()
    scans = [open_dataset("synthetic", None, "flange", size=96, train=40).train[p] for p in places]
    for scan, number in zip(scans, places, strict=True):
        Image.fromarray(scan.rgb).save(folder / f"part{number}.png")
        np.save(folder / f"part{number}.npy", scan.xyz)
    return folder


def digests(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def keys(run):
    split = json.loads((run / "flange/seed0/split.json").read_text())
    return [shot["key"] for shot in split["shots"]]


@pytest.mark.slow
def test_the_next_version_has_learned_the_added_scans_too(run, place):
    before = digests(run)
    added = add_to_run(run, good(place / "new", (20, 21)), cache=str(place / "cache"))
    assert added.folder == place / "run-v2"
    assert digests(run) == before
    assert keys(added.folder) == [*keys(run), "added1/part20", "added1/part21"]
    assert (added.folder / "report.html").is_file()
    old, new = (PIRN.load(one / "flange/seed0/model") for one in (run, added.folder))
    assert (new.config.recipe, new.config.seed) == (old.config.recipe, old.config.seed)

    # What the same scans teach by themselves.
    data = open_dataset("mvtec3d", place / "data", "flange")
    files = [
        {"rgb": place / f"new/part{n}.png", "xyz": place / f"new/part{n}.npy"} for n in (20, 21)
    ]
    from pirn_jax.detector.given import scan_of

    shots = [*data.train.select(keys(run)), *(scan_of(f, ("rgb", "normals")) for f in files)]
    alone = PIRN(Config(encoder="pirn-tiny", image_size=56), encoder=new.encoder).fit(shots)
    alone.calibrate(data.validation)
    assert new.calibration.threshold == pytest.approx(alone.calibration.threshold, rel=1e-4)

    (changes,) = added.changes.values()
    assert changes.threshold == (old.calibration.threshold, new.calibration.threshold)
    score = old.predict(files[0]).pred_score
    assert changes.added["added1/part20"][0] == pytest.approx(score, rel=1e-3)
    assert changes.added["added1/part20"][1] < score  # it has learned it
    assert set(changes.test) == set(data.test.keys)
    said = json.loads((added.folder / "changes.json").read_text())
    assert said["of"] == "run"
    assert said["models"]["flange/seed0"]["threshold"] == list(changes.threshold)

    again = add_to_run(run, place / "new", place / "again", cache=str(place / "cache"))
    assert PIRN.load(again.folder / "flange/seed0/model").model_id == new.model_id
    with pytest.raises(ConfigError, match="results in this folder"):
        add_to_run(run, place / "new", cache=str(place / "cache"))


@pytest.mark.slow
def test_false_alarms_that_people_marked_join_the_version_after_that(run, place):
    first = place / "run-first"
    add_to_run(run, good(place / "folder", (22,)), first, cache=str(place / "cache"))
    journal = Journal(place / "state")
    parts = []
    for number in (23, 24):
        scan = open_dataset("synthetic", None, "flange", size=96, train=40).train[number]
        picture, points = io.BytesIO(), io.BytesIO()
        Image.fromarray(scan.rgb).save(picture, "PNG")
        np.save(points, scan.xyz)
        picture.seek(0)
        points.seek(0)
        files = {"rgb": ("a.png", picture), "xyz": ("a.npy", points)}
        parts.append(accept(journal, files, key="a", model="flange", source="http"))
    with pytest.raises(BadInputError, match="no part is marked"):
        add_to_run(first, place / "state", cache=str(place / "cache"))
    journal.mark(parts[1].id, "false_alarm")
    journal.close()
    second = add_to_run(first, place / "state", cache=str(place / "cache")).folder
    assert second == place / "run-first-v2"
    assert keys(second) == [*keys(run), "added1/part22", f"added2/{parts[1].id}"]
    with pytest.raises(BadInputError, match="learned from all of these scans already"):
        add_to_run(second, place / "state", place / "third", cache=str(place / "cache"))
    with pytest.raises(BadInputError, match="learned from all of these scans already"):
        add_to_run(second, place / "folder", place / "third", cache=str(place / "cache"))
    Image.new("RGB", (96, 96)).save(place / "folder/part22.png")
    with pytest.raises(BadInputError, match="added1/part22: its files are no longer those"):
        add_to_run(second, place / "new2", place / "third", cache=str(place / "cache"))


@pytest.mark.slow
def test_a_run_in_a_store_has_its_next_version_there(run, place, monkeypatch):
    monkeypatch.setenv("PIRN_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)
    store = fsspec.filesystem("memory")
    for folder in (run, good(place / "stored", (25,))):
        for path in folder.rglob("*"):
            if path.is_file():
                name = f"/bucket/{folder.name}/{path.relative_to(folder)}"
                store.pipe(name, path.read_bytes())
    added = add_to_run(Path("memory://bucket/run"), Path("memory://bucket/stored"))
    assert added.folder == Path("memory://bucket/run-v2")
    assert store.exists("/bucket/run-v2/metrics.json")
    (addition,) = json.loads(store.cat("/bucket/run-v2/added.json"))["folders"]
    assert addition["folder"] == "memory://bucket/stored"
    assert not (place / "memory:").exists()


@pytest.mark.slow
def test_what_cannot_be_meant_is_refused(run, place):
    test = place / "data/flange/test"
    with pytest.raises(ConfigError, match="is a test scan of this run"):
        add_to_run(run, test / "good", place / "other")
    with pytest.raises(BadInputError, match="no model of category 'cap'"):
        add_to_run(run, test / "good", category="cap")
    (place / "odd").mkdir()
    (place / "odd/a.png").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"a\.png: no points"):
        add_to_run(run, place / "odd", place / "other")
    assert not (place / "other").exists()
