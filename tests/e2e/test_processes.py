"""Two processes of two devices each, through the command: the results of one device."""

import json
import socket
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from pirn_jax import train
from tests.e2e.commands import command, finish, start

RUN = ("--config", "debug", "--method", "pirn", "--shots", "3", "--parallel", "sharding")
FLAGS = (*RUN, "--recipe.epochs", "4")


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def together(out, *more, cache):
    """Both processes' results."""
    flags = (*FLAGS, "--out", out, "--coordinator", free_address(), "--processes", 2, *more)
    running = [
        start("train", *flags, "--process", index, cache=cache / str(index), devices=2)
        for index in range(2)
    ]
    return [finish(process) for process in running]


@pytest.mark.slow
def test_two_processes_end_like_one_device(tmp_path):
    alone = command("train", *FLAGS, "--out", tmp_path / "alone", cache=tmp_path / "0")
    assert alone.returncode == 0, alone.stderr
    both = together(tmp_path / "both", "--save-seconds", "0", cache=tmp_path)
    for done in both:
        assert done.returncode == 0, done.stderr
    assert "I-AUROC" in both[0].stdout
    assert "I-AUROC" not in both[1].stdout  # the first alone speaks, and writes
    one, other = tmp_path / "alone", tmp_path / "both"
    model = "flange/seed0/model/model.safetensors"
    for name in ("split.json", "flange/seed0/split.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    first, second = load_file(one / model), load_file(other / model)
    assert first.keys() == second.keys()
    # Adam moves what has no gradient but rounding by its rate, 0.001, a step, in any direction.
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, atol=0.02, err_msg=name)
    losses = [
        [json.loads(line)["loss"] for line in (run / "history.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]
    assert len(losses[0]) == 4
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-5)
    scores = [
        np.loadtxt(run / "scores.csv", str, delimiter=",", skiprows=1)[:, 5].astype(float)
        for run in (one, other)
    ]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
    assert list((other / "checkpoints" / "0").iterdir())

    # Its results gone, the run goes on from the first process's checkpoints to the same end.
    for name in ("metrics.json", "report.html", model):
        (other / name).unlink()
    for done in together(other, "--resume", cache=tmp_path):
        assert done.returncode == 0, done.stderr
    for name, array in load_file(other / model).items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)

    # What the first refuses, or cannot do, ends both alike.
    for done in together(other, cache=tmp_path):
        assert done.returncode == 3
        assert "--resume" in done.stderr
    (tmp_path / "file").touch()
    for done in together(tmp_path / "file" / "run", cache=tmp_path):
        assert done.returncode == 4
        assert "expected a folder to write into" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--process", "0", "--processes", "2"), "--coordinator"),
        (("--coordinator", "here"), "HOST:PORT"),
        (("--coordinator", "here:1", "--processes", "2"), "both --processes and --process"),
        (("--coordinator", "here:1", "--processes", "2", "--process", "2"), "expected 0 to 1"),
        (("--coordinator", "here:1", "--parallel", "pmap"), "--parallel sharding"),
        (("--save-seconds", "-1"), "save_seconds"),
    ],
)
def test_flags_that_contradict_are_refused_before_any_work(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        train.main(["--out", str(tmp_path / "run"), *flags])
    assert stopped.value.code == 3
    printed = capsys.readouterr()
    said = " ".join((printed.err + printed.out).replace("│", " ").split())
    assert message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_loses_another_ends_soon_and_says_so(lost, tmp_path):
    """And one process alone goes on from what both had, to where one alone would have come."""
    flags = (*RUN, "--recipe.epochs", "60", "--save-seconds", "0")
    alone = command("train", *flags, "--out", tmp_path / "alone", cache=tmp_path / "a")
    assert alone.returncode == 0, alone.stderr
    out, address = tmp_path / "both", free_address()
    flags = (*flags, "--out", out)
    running = [
        start(
            "train", *flags, "--coordinator", address, "--processes", 2, "--process", index,
            cache=tmp_path / str(index), devices=1,
        )
        for index in range(2)
    ]  # fmt: skip
    steps = out / "checkpoints" / "0"
    began = time.monotonic()
    while not steps.is_dir() or not any(path.name.isdigit() for path in steps.iterdir()):
        assert time.monotonic() < began + 240
        assert running[0].poll() is None
        time.sleep(0.2)
    running[lost].kill()
    left = finish(running[1 - lost], 100)
    finish(running[lost], 100)
    assert left.returncode == 4, left.stderr
    assert "another process of this run is gone" in left.stderr
    assert "--resume" in left.stderr
    assert not (out / "metrics.json").exists()
    done = command("train", *flags, "--resume", cache=tmp_path / "b")
    assert done.returncode == 0, done.stderr
    model = "flange/seed0/model/model.safetensors"
    first, second = load_file(tmp_path / "alone" / model), load_file(out / model)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, atol=0.05, err_msg=name)
    losses = [
        [json.loads(line)["loss"] for line in (run / "history.jsonl").read_text().splitlines()]
        for run in (tmp_path / "alone", out)
    ]
    assert len(losses[1]) == 60
