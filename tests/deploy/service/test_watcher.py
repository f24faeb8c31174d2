"""A watched folder: whole parts once each, replaced ones again, and nothing of it is touched."""

from pirn_jax.deploy.service.watcher import Watcher
from tests.deploy.service.stand_in import make, png
from tests.scans import layouts


def watcher_of(folder, parts, streams=("rgb",)):
    whom = {"model": "cap", "streams": streams, "largest": 1 << 20}
    return Watcher(folder, parts.journal, parts.batcher, **whom)


def keys(parts):
    return sorted(one["key"] for one in parts.journal.results())


def test_what_lies_still_is_taken_once(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    parts = make(tmp_path / "state")
    parts.batcher.start()
    watcher = watcher_of(folder, parts)
    (folder / "a.png").write_bytes(png()[:-9])  # still being written
    assert watcher.look() == 0
    (folder / "a.png").write_bytes(png())
    assert watcher.look() == 0
    assert watcher.look() == 1
    assert watcher.look() == 0
    assert watcher_of(folder, parts).look() == 0
    again = watcher_of(folder, parts)  # after a restart
    assert [again.look(), again.look()] == [0, 0]
    (folder / "a.png").write_bytes(png(50))
    (folder / "b").mkdir()
    (folder / "b" / "c.png").write_bytes(png())
    assert [watcher.look(), watcher.look()] == [0, 2]
    parts.batcher.stop()
    assert keys(parts) == ["a", "a", "b/c"]
    assert sorted(path.name for path in folder.rglob("*")) == ["a.png", "b", "c.png"]
    assert (folder / "a.png").read_bytes() == png(50)


def test_a_part_waits_until_its_files_are_all_there(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    parts = make(tmp_path / "state")
    parts.batcher.start()
    watcher = watcher_of(folder, parts, ("rgb", "xyz"))
    (folder / "a.png").write_bytes(png(size=layouts.SIZE))
    (folder / "intrinsics.json").write_text("{}")
    assert [watcher.look(), watcher.look()] == [0, 0]
    (folder / "a.tiff").write_bytes(layouts.tiff_bytes(layouts.points()))
    assert [watcher.look(), watcher.look()] == [0, 1]
    parts.batcher.stop()
    (result,) = parts.journal.results()
    assert result["state"] == "judged"
    names = {path.name for path in parts.journal.place(result["id"]).iterdir()}
    assert {"rgb.png", "xyz.tiff", "intrinsics.json", "points.bin"} <= names


def test_what_lies_above_a_part_counts_as_for_predict(tmp_path):
    folder = tmp_path / "in"
    (folder / "part_1").mkdir(parents=True)
    (folder / "intrinsics.json").write_text("{}")
    (folder / "ignore.png").write_bytes(png())
    (folder / "part_1" / "rgb.png").write_bytes(png())
    parts = make(tmp_path / "state")
    parts.batcher.start()
    watcher = watcher_of(folder, parts)
    assert [watcher.look(), watcher.look()] == [0, 1]
    parts.batcher.stop()
    (result,) = parts.journal.results()
    names = {path.name for path in parts.journal.place(result["id"]).iterdir()}
    assert {"rgb.png", "ignore.png", "intrinsics.json"} <= names


def test_what_is_larger_than_a_part_may_be_is_named_once_and_not_copied(tmp_path, caplog):
    folder = tmp_path / "in"
    folder.mkdir()
    with (folder / "a.png").open("wb") as large:
        large.truncate((1 << 20) + 1)
    (folder / "b.png").write_bytes(png())
    parts = make(tmp_path / "state")
    parts.batcher.start()
    watcher = watcher_of(folder, parts)
    assert [watcher.look() for _ in range(4)] == [0, 1, 0, 0]
    parts.batcher.stop()
    assert keys(parts) == ["b"]
    assert caplog.text.count("a: not judged: 1,048,577 bytes") == 1


def test_one_file_that_cannot_be_taken_holds_up_no_other(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png())
    parts = make(tmp_path / "state")
    parts.batcher.start()
    watcher = watcher_of(folder, parts)
    whole = watcher._take

    def take(entry, state):
        if entry.key == "a":
            parts.batcher.free_slot()
            raise OSError("no permission")
        whole(entry, state)

    monkeypatch.setattr(watcher, "_take", take)
    assert [watcher.look(), watcher.look()] == [0, 1]
    parts.batcher.stop()
    assert keys(parts) == ["b"]
