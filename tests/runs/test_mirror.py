"""The copy of a folder in a store, by the store of this process's memory."""

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
    def unreachable(path, file):
        raise MachineError("the store cannot be reached", "check the network", str(path))

    def work():
        with mirrored(WHERE) as here:
            here.folder.mkdir()
            (here.folder / "a").write_text("1")

    monkeypatch.setattr(mirror, "write_remote", unreachable)
    with pytest.raises(MachineError, match="is kept") as caught:
        work()
    assert (Path(caught.value.path) / "a").read_text() == "1"


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
