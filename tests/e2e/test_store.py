"""`s3://` against a server on this machine: data read, runs written there, resumed elsewhere."""

import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.e2e.commands import command, finish, start
from tests.scans import layouts

pytestmark = pytest.mark.slow
MODEL = "model.safetensors"


@pytest.fixture
def store(monkeypatch):
    """A bucket named `plant`, whose keys are in the environment as a plant's would be."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    fs = pytest.importorskip("s3fs")
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    files.mkdir("plant")
    yield files
    files.rm("plant", recursive=True)  # the server is another's next time, what it holds is not
    server.stop()


FLAGS = ("--config", "debug", "--method", "pirn", "--shots", "3", "--save-seconds", "0")


def test_data_caches_runs_and_outputs(store, tmp_path):
    layouts.mvtec3d(tmp_path / "data")
    store.put(str(tmp_path / "data") + "/", "plant/data/", recursive=True)
    data, run, cache = "s3://plant/data", "s3://plant/run", "s3://plant/cache"
    done = command("prepare", "mvtec3d", data, "--out", f"{cache}/geometry", cache=tmp_path / "0")
    assert done.returncode == 0, done.stderr
    assert len(store.find("plant/cache/geometry")) == 11  # and summary.json

    flags = (
        "--dataset", "mvtec3d", "--shots", "2", "--encoder", "pirn-tiny", "--image-size", "56",
        "--background", "none",
    )  # fmt: skip
    there = command(
        "train", *flags, "--data-root", data, "--out", run, "--cache", cache, cache=tmp_path / "1"
    )
    here = command(
        "train", *flags, "--data-root", tmp_path / "data", "--out", tmp_path / "run",
        cache=tmp_path / "2",
    )  # fmt: skip
    for done in (there, here):
        assert done.returncode in (0, 2), done.stderr
    store.get("plant/run/", str(tmp_path / "copy") + "/", recursive=True)
    for path in (tmp_path / "run").rglob("*"):
        name = path.relative_to(tmp_path / "run")
        if path.is_file() and path.suffix in (".npy", ".npz", ".safetensors", ".csv"):
            assert (tmp_path / "copy" / name).read_bytes() == path.read_bytes(), name
    for path in (tmp_path / "copy").rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes(), path

    predictions = "s3://plant/predictions"
    done = command("predict", run, f"{data}/bagel/test", "--out", predictions, cache=tmp_path / "3")
    assert done.returncode in (0, 2), done.stderr
    assert f'"heatmap": "{predictions}/' in done.stdout
    assert store.exists("plant/predictions/predictions.jsonl")
    assert len(store.glob("plant/predictions/*_heatmap.png")) == done.stdout.count('"heatmap":')
    again = command(
        "predict", run, f"{data}/bagel/test", "--out", predictions, cache=tmp_path / "4"
    )
    assert again.returncode == 3
    assert "--overwrite" in again.stderr
    done = command("evaluate", run, "--out", "s3://plant/evaluated", cache=tmp_path / "5")
    assert done.returncode in (0, 2), done.stderr
    assert store.cat("plant/evaluated/scores.csv") == store.cat("plant/run/scores.csv")


def test_a_killed_run_is_resumed_on_another_machine(store, tmp_path):
    flags = (*FLAGS, "--recipe.epochs", "60")
    whole = command("train", *flags, "--out", tmp_path / "whole", cache=tmp_path / "0")
    assert whole.returncode == 0, whole.stderr
    flags = (*flags, "--out", "s3://plant/run")
    process = start("train", *flags, cache=tmp_path / "1")
    began = time.monotonic()
    while not store.glob("plant/run/checkpoints/0/*/about/**"):
        assert time.monotonic() < began + 240
        assert process.poll() is None, finish(process).stderr
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not store.exists("plant/run/metrics.json")
    done = command("train", *flags, "--resume", cache=tmp_path / "2")
    assert done.returncode == 0, done.stderr
    store.get("plant/run/flange/seed0/model/", str(tmp_path / "model") + "/", recursive=True)
    first = load_file(tmp_path / "whole" / "flange/seed0/model" / MODEL)
    second = load_file(tmp_path / "model" / MODEL)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array, err_msg=name)
    assert "hunter2" not in done.stderr + done.stdout
