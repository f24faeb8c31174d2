"""The copy of a folder in a store, by the store of this process's memory."""

import os
from pathlib import Path

import fsspec
import pytest

from pirn_jax.errors import BadInputError, ConfigError, MachineError
from pirn_jax.runs import mirror
from pirn_jax.runs.mirror import mirrored

WHERE = Path("memory://bucket/run")


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("PIRN_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    return files


def test_what_is_new_goes_up_and_comes_down_elsewhere(store, monkeypatch, tmp_path):
    with mirrored(WHERE) as here:
        (here.folder / "model").mkdir(parents=True)
        (here.folder / "model" / "a").write_text("1")
        (here.folder / ".lock").touch()
        (here.folder / "2.orbax-checkpoint-tmp-1").mkdir()
        (here.folder / "2.orbax-checkpoint-tmp-1" / "half").touch()
        here.push()
        assert sorted(store.find("/bucket")) == ["/bucket/run/model/a"]
        (here.folder / "b").write_text("2")
    assert not here.folder.exists()
    monkeypatch.setenv("PIRN_CACHE", str(tmp_path / "another machine"))
    with mirrored(WHERE) as here:
        assert (here.folder / "model" / "a").read_text() == "1"
        (here.folder / "b").unlink()
    assert sorted(store.find("/bucket")) == ["/bucket/run/model/a"]


def test_only_what_changed_goes_up_and_in_order(store, monkeypatch):
    put = []
    monkeypatch.setattr(
        mirror, "write_remote", lambda path, file: put.append(path.relative_to(WHERE).as_posix())
    )
    with mirrored(WHERE, ("metrics.json", "report.html")) as here:
        for name in ("report.html", "metrics.json", "scores.csv", "part/seed0/maps/a.npy"):
            (here.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (here.folder / name).write_text(name)
        here.push()
        first, put[:] = list(put), []
        (here.folder / "scores.csv").write_text("longer than before")
    assert first == ["part/seed0/maps/a.npy", "scores.csv", "metrics.json", "report.html"]
    assert put == ["scores.csv"]


def test_nothing_goes_up_where_the_work_failed_or_only_reads(store):
    def fails():
        with mirrored(WHERE) as here:
            here.folder.mkdir()
            (here.folder / "a").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    with mirrored(WHERE, read_only=True) as here:
        here.folder.mkdir()
        (here.folder / "a").touch()
    assert not store.exists("/bucket/run")


def test_names_that_would_lead_elsewhere_are_refused(store):
    store.pipe("/bucket/run/x/../../a", b"1")
    with pytest.raises(BadInputError, match="no file of ours"), mirrored(WHERE):
        pass


def test_locks_and_unfinished_files_that_a_copy_brought_are_passed_over(store):
    for name in (".lock", "x/.hidden/a", "2.orbax-checkpoint-tmp-1/half", "b"):
        store.pipe(f"/bucket/run/{name}", b"1")
    with mirrored(WHERE) as here:
        assert [path.name for path in here.folder.rglob("*")] == ["b"]


def test_what_cannot_be_put_there_in_the_end_is_kept_and_named(store, monkeypatch):
    def work():
        with mirrored(WHERE) as here:
            here.folder.mkdir()
            (here.folder / "a").write_text("1")

    monkeypatch.setattr(mirror, "write_remote", unreachable)
    with pytest.raises(MachineError, match="is kept") as caught:
        work()
    assert (Path(caught.value.path) / "a").read_text() == "1"


def unreachable(path, file):
    raise MachineError("the store cannot be reached", "check the network", str(path))


def training(how):
    """Work that puts there what it has so far, and fails in the end."""
    with mirrored(WHERE) as here:
        here.folder.mkdir(exist_ok=True)
        (here.folder / "checkpoint").write_text("1")
        how(here)
        raise KeyboardInterrupt


def test_a_store_that_is_gone_for_a_while_ends_no_training(store, monkeypatch):
    def meanwhile(here):
        with monkeypatch.context() as patch:
            patch.setattr(mirror, "write_remote", unreachable)
            assert not here.push_so_far()
        assert store.find("/bucket") == []
        (here.folder / "later").write_text("2")

    with pytest.raises(KeyboardInterrupt):
        training(meanwhile)
    assert sorted(store.find("/bucket")) == ["/bucket/run/checkpoint", "/bucket/run/later"]


def test_of_a_training_that_fails_what_is_not_there_is_kept_and_named(store, monkeypatch, caplog):
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "write_remote", unreachable)
        with pytest.raises(KeyboardInterrupt):
            training(lambda here: here.push_so_far())
    place = Path(caplog.records[-1].getMessage().partition("is kept in ")[2])
    assert (place / "checkpoint").read_text() == "1"
    with mirrored(WHERE) as here:
        assert not here.folder.exists()
    left = Path(caplog.records[-1].getMessage().partition("lies in ")[2])
    assert (left / "checkpoint").read_text() == "1"
    assert [path.name for path in left.parent.iterdir() if path.is_dir()] == [left.name]


def test_copies_of_killed_readers_go_and_those_of_others_stay(store):
    with mirrored(WHERE, read_only=True) as here:
        lives = here.folder.parent
        dead = lives.with_name(f"{lives.name}-2")
        dead.mkdir()
        for copy in (dead, lives):
            os.utime(copy, (0, 0))
        with mirrored(WHERE, read_only=True) as other:
            assert {path for path in lives.parent.iterdir()} == {lives, other.folder.parent}


def test_inputs_below_what_is_written_are_refused(store):
    inside = Path("memory://bucket/run/data")
    with pytest.raises(ConfigError, match="lies in the folder"), mirrored(WHERE, inputs=[inside]):
        pass
    with mirrored(WHERE, inputs=[Path("memory://bucket/running"), Path("/local")]):
        pass


def test_a_local_folder_is_its_own_copy(tmp_path):
    with mirrored(tmp_path) as here:
        assert here.folder == tmp_path
        here.push()
