"""Where results go: never over what is not ours, and over what is only at the very end."""

import subprocess
import sys

import pytest

from pirn_jax.errors import ConfigError, MachineError
from pirn_jax.manifest import is_ours
from pirn_jax.runs.outputs import check_free, contents, going_on, writing

KIND = "a test 1"


@pytest.fixture
def ours(tmp_path):
    with writing(tmp_path / "out", KIND) as place:
        assert place == tmp_path / "out"
        (place / "result").write_text("old")
    return tmp_path / "out"


def test_a_new_or_empty_folder_is_free(tmp_path):
    check_free(tmp_path / "new", KIND, overwrite=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()
    check_free(tmp_path / "empty", KIND, overwrite=False)


def test_ours_is_replaced_where_asked_for(ours):
    with pytest.raises(ConfigError, match="--overwrite"):
        check_free(ours, KIND, overwrite=False)
    check_free(ours, KIND, overwrite=True)
    with pytest.raises(ConfigError, match="other files"):
        check_free(ours, "another 1", overwrite=True)


def test_what_was_stopped_before_its_first_result_is_begun_again_and_gone_on_with(tmp_path):
    out = tmp_path / "out"
    with writing(out, KIND):
        pass
    check_free(out, KIND, overwrite=False)
    with writing(out, KIND) as place:
        assert place == out
        (place / ".parts").mkdir()
    with pytest.raises(ConfigError, match="results in this folder already"):
        check_free(out, KIND, overwrite=False)


def test_beginnings_of_files_that_a_killed_process_left_are_swept(tmp_path):
    out, kept = tmp_path / "out", {"result", ".mine.tmp", ".lock"}
    program = (
        "import os, sys; from pathlib import Path; from pirn_jax.storage import whole_file\n"
        "with whole_file(Path(sys.argv[1]) / 'deep' / 'map.png') as begun:\n"
        "    begun.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    with writing(out, KIND):
        pass
    subprocess.run([sys.executable, "-c", program, str(out)], check=False)
    assert [path.suffix for path in (out / "deep").iterdir()] == [".tmp"]
    for name in kept:
        (out / name).touch()
    with going_on(out, KIND):
        assert not list((out / "deep").iterdir())
        assert kept <= {path.name for path in out.iterdir()}


def test_without_the_last_file_there_are_no_results_yet(ours, tmp_path):
    check_free(ours, KIND, overwrite=False, last="metrics")
    with pytest.raises(ConfigError, match="would be replaced"):
        check_free(ours, KIND, overwrite=False, last="metrics", inputs=[ours / "result"])
    with pytest.raises(ConfigError, match="other files"):
        check_free(ours, "another 1", overwrite=False, last="metrics")
    with pytest.raises(ConfigError, match="--overwrite"):
        check_free(ours, KIND, overwrite=False, last="result")


def test_a_folder_of_anything_else_is_never_written_to(tmp_path):
    (tmp_path / "000_mask.png").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="other files"):
            check_free(tmp_path, KIND, overwrite=overwrite)
    with pytest.raises(NotADirectoryError):
        check_free(tmp_path / "000_mask.png", KIND, overwrite=True)


def test_inputs_are_not_replaced(ours, tmp_path):
    outside = tmp_path / "scan.png"
    check_free(ours, KIND, overwrite=True, inputs=[outside, tmp_path])
    (tmp_path / "link").symlink_to(ours / "result")
    for read in (ours, ours / "result", tmp_path / "link"):
        with pytest.raises(ConfigError, match="would be replaced"):
            check_free(ours, KIND, overwrite=True, inputs=[outside, read])


def test_what_is_there_stays_until_the_new_is_whole(ours):

    def fail():
        with writing(ours, KIND) as place:
            (place / "other").write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (ours / "result").read_text() == "old"
    assert not (ours / "other").exists()
    with writing(ours, KIND) as place:
        (place / "other").write_text("new")
        assert (ours / "result").read_text() == "old"
    assert not (ours / "result").exists()
    assert (ours / "other").read_text() == "new"
    assert is_ours(ours, KIND)
    assert [path.name for path in ours.parent.iterdir()] == ["out"]


def test_a_second_writer_is_refused_by_name(ours):
    pytest.importorskip("fcntl")
    for way in (writing, going_on):
        with way(ours, KIND):
            with (
                pytest.raises(MachineError, match="another run is writing") as error,
                writing(ours, KIND),
            ):
                pass
            assert str(ours) in str(error.value)
    with going_on(ours, KIND) as place:  # the lock is gone with its holder
        assert contents(place)


def test_the_lock_falls_with_a_process_that_is_killed(tmp_path):
    pytest.importorskip("fcntl")
    code = f"""
import os, pathlib
from pirn_jax.storage import sole_writer
with sole_writer(pathlib.Path({str(tmp_path)!r})):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(MachineError), going_on(tmp_path, KIND):
            pass
        holder.kill()
    with going_on(tmp_path, KIND):
        pass
