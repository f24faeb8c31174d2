"""The commands as a user meets them: processes, exit codes, stdout and files.

One small run (`--config debug`) is trained once and then used by everything.
"""

import json
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pirn_jax import PIRN, train
from pirn_jax import predict as predict_command
from pirn_jax.scans import Options, open_dataset
from pirn_jax.scans.datasets.judged import find_scans
from pirn_jax.scans.synthetic.generator import write_mvtec3d
from tests.e2e.commands import command, finish, start


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def trained(place):
    done = command("train", "--config", "debug", "--out", place / "run", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def run(place, trained):
    return place / "run"


@pytest.fixture(scope="module")
def scans(place):
    """Three scans as photographs and points side by side."""
    folder = place / "scans"
    folder.mkdir()
    for scan in open_dataset("synthetic", None, "flange", size=128).test[:3]:
        name = scan.key.replace("/", "-")
        Image.fromarray(scan.rgb).save(folder / f"{name}.png")
        tifffile.imwrite(folder / f"{name}.tiff", scan.xyz, photometric="rgb")
    return folder


# A run at work


@pytest.mark.slow
def test_the_doctor_tells_that_the_camera_has_moved(run, place, scans):
    moved = command("doctor", "--against", run, scans, cache=place / "cache")  # of half the pixels
    assert moved.returncode == 2, moved.stdout + moved.stderr
    assert "pixels a millimetre" in moved.stdout
    assert "the camera's distance or lens?" in moved.stdout


@pytest.mark.slow
def test_good_scans_join_the_shots_of_the_next_version(run, place):
    folder = place / "good"
    folder.mkdir()
    scan = open_dataset("synthetic", None, "flange", train=40).train[30]
    Image.fromarray(scan.rgb).save(folder / "a.png")
    tifffile.imwrite(folder / "a.tiff", scan.xyz, photometric="rgb")
    done = command("train", "--add", run, folder, "--unit", "m", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    assert "flange/seed0: threshold" in done.stdout
    assert "1 scans joined the shots" in done.stdout
    assert (place / "run-v2/changes.json").is_file()
    assert "--add" in command("train", "--help").stdout
    assert "RUN-v2" in command("train", "--add", "--help").stdout
    assert command("train", "--add", run).returncode == 3


# Training


def test_training_prints_the_figures_and_where_the_report_is(trained, run):
    for word in ("I-AUROC", "P-AUROC", "AUPRO@30", "F1max", "flange", "report.html"):
        assert word in trained.stdout
    assert "generated data" in trained.stdout
    assert (run / "report.html").stat().st_size > 10_000


def test_the_run_folder_is_whole(run):
    files = ("config", "environment", "split", "metrics")
    documents = {name: json.loads((run / f"{name}.json").read_text()) for name in files}
    assert documents["config"]["shots"] == 2
    assert documents["config"]["background"] == "auto"
    stored = json.loads((run / "flange" / "seed0" / "model" / "config.json").read_text())
    assert stored["config"]["background"] == "plane"
    assert documents["environment"]["command"][:3] == ["python", "-m", "pirn_jax.train"]
    shots = documents["split"]["flange"]["seed0"]["shots"]
    assert len(shots) == 2
    figures = documents["metrics"]["categories"]["flange"]["seed0"]
    assert 0 <= figures["i_auroc"] <= 1
    assert documents["metrics"]["mean"]["aupro_0.3"] == pytest.approx(figures["aupro_0.3"])
    model = run / "flange" / "seed0"
    for name in ("metrics.json", "scores.csv", "curves.json", "usage.json", "calibration.json",
                 "split.json", "model/config.json", "model/model.safetensors"):  # fmt: skip
        assert (model / name).is_file(), name
    scores = (model / "scores.csv").read_text().splitlines()
    assert len(scores) == 1 + 6
    assert len(list((model / "maps").glob("*.npy"))) == 6
    assert len(list((model / "pictures").glob("*.npz"))) == 6
    anomaly_map = np.load(model / "maps" / "test__good__000.npy", allow_pickle=False)
    assert anomaly_map.shape == (256, 256)
    usage = json.loads((model / "usage.json").read_text())
    assert len(usage["rgb"]) == 50
    assert (run / "history.jsonl").read_bytes() == b""  # the mixture takes no steps


@pytest.mark.slow
def test_a_trained_decoder_leaves_its_history(place):
    words = ("--config", "debug", "--method", "pirn", "--recipe.epochs", "2")
    done = command("train", *words, "--out", place / "pirn", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    text = (place / "pirn" / "history.jsonl").read_text()
    assert [json.loads(line)["epoch"] for line in text.splitlines()] == [1, 2]
    assert text.count("generated") == 2


def test_every_file_says_generated_and_with_what_weights(run):
    for path in [*run.glob("*.json"), *run.glob("*/*/*.json"), run / "scores.csv",
                 run / "report.html"]:  # fmt: skip
        text = path.read_text()
        if path.name == "config.json" and path.parent == run:
            assert '"synthetic"' in text
            assert '"pirn-tiny"' in text
        elif path.name == "manifest.json":
            assert "metrics" not in text  # it names what the folder is, and holds no figures
        elif path.name != "split.json" or path.parent == run:
            assert "generated" in text.lower(), path
            if path.suffix != ".html":  # which says it where they are random
                assert "random_weights" in text or '"random": false' in text, path


def test_a_run_is_refused_where_one_is(run, capsys):
    before = (run / "metrics.json").stat().st_mtime_ns
    with pytest.raises(SystemExit) as stopped:
        train.main(["--config", "debug", "--out", str(run)])
    assert stopped.value.code == 3
    said = capsys.readouterr().err
    assert "--resume" in said
    assert "--overwrite" in said
    assert (run / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_finished_run_is_resumed_by_showing_it(run, place):
    before = (run / "metrics.json").stat().st_mtime_ns
    done = command("train", "--config", "debug", "--out", run, "--resume", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    assert "I-AUROC" in done.stdout
    assert (run / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_same_seed_gives_the_same_shots_and_parameters(run, place):
    again = place / "again"
    done = command("train", "--config", run / "config.json", "--out", again, cache=place / "cache")
    assert done.returncode == 0, done.stderr
    for name in ("split.json", "flange/seed0/split.json", "flange/seed0/model/model.safetensors",
                 "flange/seed0/scores.csv"):  # fmt: skip
        assert (again / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_it_ends_the_same(run, place):
    """SIGKILL after 1, 4, 7, … seconds, each time going on, until it is done."""
    out = place / "killed"
    flags = ("--config", "debug", "--out", out, "--resume")
    for seconds in range(1, 200, 3):
        try:
            done = command("train", *flags, cache=place / "cache", seconds=seconds)
        except subprocess.TimeoutExpired:  # the process was killed
            continue
        assert done.returncode == 0, done.stderr
        break
    else:
        pytest.fail("never finished")
    assert seconds > 1, "it was never killed"
    for name in ("split.json", "flange/seed0/model/model.safetensors", "flange/seed0/scores.csv"):
        assert (out / name).read_bytes() == (run / name).read_bytes(), name


@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed_it_ends_the_same(place):
    """SIGKILL while it starts, trains, or writes one of its checkpoints, one every epoch."""
    flags = ("--config", "debug", "--method", "pirn", "--recipe.epochs", "211")
    flags += ("--save-seconds", "0", "--out")
    began = time.monotonic()
    done = command("train", *flags, place / "whole", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    # So short that twenty of them do not reach the end.
    longest, moments = (time.monotonic() - began) / 6, random.Random(0)
    for kill in range(20):
        process = start("train", *flags, place / "broken", "--resume", cache=place / "cache")
        with pytest.raises(subprocess.TimeoutExpired):
            finish(process, moments.uniform(0, longest))
        assert process.returncode == -9, kill
    done = command("train", *flags, place / "broken", "--resume", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    for name in ("split.json", "flange/seed0/model/model.safetensors", "flange/seed0/scores.csv",
                 "history.jsonl"):  # fmt: skip
        assert (place / "broken" / name).read_bytes() == (place / "whole" / name).read_bytes(), name


# Flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shot", "5"), "--shots"),
        (("--overwrite", "--resume"), "give one of the two"),
        (("--dataset", "mvtec3"), "did you mean 'mvtec3d'"),
        (("--dataset", "mvtec2d", "--data-root", "."), "--modalities rgb"),
        (("--config", "debgu"), "expected one of default, paper, debug"),
        (("--recipe.prototyps", "3"), "--recipe.prototypes"),
        (("--recipe", "papper"), "did you mean 'paper'"),
        (("--dataset", "mvtec3d"), "--data-root"),
        (("--category", "flang"), "flang"),
        (("--weights", "random", "--require-weights"), "weights are required"),
        (
            ("--method", "memory", "--recipe", "paper"),
            "recipe of memory: expected",
        ),
    ],
)
def test_wrong_flags_are_refused_before_any_work(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PIRN_DATA", raising=False)
    with pytest.raises(SystemExit) as stopped:
        train.main(["--out", str(tmp_path / "run"), *arguments])
    assert stopped.value.code == 3
    printed = capsys.readouterr()
    said = " ".join((printed.err + printed.out).replace("│", " ").split())
    assert message in said
    assert not (tmp_path / "run").exists()


# Prediction


def predict(run, place, *arguments, out):
    return command("predict", run, *arguments, "--out", out, cache=place / "cache")


@pytest.fixture(scope="module")
def predicted(run, scans, place):
    """All three scans, a broken and a black one in their midst: what was found, where, and said."""
    out = place / "predictions"
    files, broken = sorted(scans.iterdir()), [place / "m.png", place / "m.tiff"]
    for path in broken:
        path.write_bytes(b"nothing")
    dark = [place / "n.png", place / "n.tiff"]
    Image.new("RGB", (128, 128)).save(dark[0])
    dark[1].write_bytes(next(f for f in files if f.suffix == ".tiff").read_bytes())
    given = [*files[:2], *broken, *dark, *files[2:]]
    done = predict(run, place, *given, "--unit", "m", "--batch", "2", out=out)
    assert done.returncode == 2, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    written = (out / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == records
    unjudged = {r["key"]: r["not_judged"] for r in records if r["score"] is None}
    assert unjudged.keys() == {"m", "n"}
    assert "dark" in unjudged["n"]
    return [r for r in records if r["score"] is not None], out, done.stderr


def test_predictions_are_lines_pictures_and_masks(predicted):
    records, *_ = predicted
    assert len(records) == 3
    for record in records:
        assert record["label"] == int(record["score"] > record["threshold"])
        assert bool(record["regions"]) == bool(record["label"])
        assert record["trained_on"] == "generated"
        assert record["random_weights"] is False
        with Image.open(record["heatmap"]) as heatmap, Image.open(record["mask"]) as mask:
            assert heatmap.size == mask.size == (128, 128)
            assert heatmap.mode == "RGB"
            assert bool(np.asarray(mask).any()) == bool(record["label"])


def test_predictions_are_not_written_over(run, scans, predicted, capsys):
    with pytest.raises(SystemExit) as stopped:
        predict_command.main([str(run), str(scans), "--out", str(predicted[1])])
    assert stopped.value.code == 3
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "code"), [("taken", 3), ("taken/000_mask.png", 4), ("new/../taken/000_mask.png/x", 4)]
)
def test_predictions_go_among_no_other_files_and_over_none(run, scans, tmp_path, out, code, capsys):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "000_mask.png").write_text("precious")
    (tmp_path / "new").mkdir()
    with pytest.raises(SystemExit) as stopped:
        predict_command.main(
            [str(run), str(scans), "--out", str(tmp_path / out), "--overwrite", "--fail-on-defect"]
        )
    assert stopped.value.code == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert (tmp_path / "taken" / "000_mask.png").read_text() == "precious"


def test_what_cannot_be_judged_is_skipped_and_said(predicted):
    """A file that is none, and a photograph as a dead camera gives it."""
    assert "skipped: m: " in predicted[2]
    assert "skipped: n: n is not judged: the photograph is dark" in predicted[2]


@pytest.mark.slow
def test_a_folder_in_one_batch_has_the_scores_of_its_files_in_two(
    run, scans, place, predicted, tmp_path
):
    done = predict(run, place, scans, "--unit", "m", out=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    scores = {r["key"]: r["score"] for r in map(json.loads, done.stdout.splitlines())}
    others = {Path(r["key"]).name: r["score"] for r in predicted[0]}  # two folders were given there
    assert scores == pytest.approx(others, abs=1e-5)


def test_a_scan_is_named_by_its_files(scans):
    photograph, points = sorted(scans.iterdir())[:2]
    both, options = ("rgb", "normals"), Options(unit="m")
    (one,), _ = find_scans((), {"rgb": photograph, "xyz": points}, both, options)
    (other,), left_out = find_scans((photograph, points), {}, both, options)
    assert left_out == ()
    assert one.key == other.key
    np.testing.assert_array_equal(one.rgb, other.rgb)
    np.testing.assert_array_equal(one.xyz, other.xyz)
    assert len(find_scans((scans,), {}, both, options)[0]) == 3


@pytest.mark.slow
def test_a_scan_named_by_its_files_is_predicted(run, scans, place, predicted, tmp_path):
    files = sorted(scans.iterdir())
    done = predict(run, place, "--rgb", files[0], "--xyz", files[1], "--unit", "m", "--batch", "1",
                   out=tmp_path / "one")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = map(json.loads, done.stdout.splitlines())
    scores = {Path(r["key"]).name: r["score"] for r in predicted[0]}
    assert record["score"] == pytest.approx(scores[record["key"]], abs=1e-5)


@pytest.mark.slow
def test_defects_fail_where_asked(run, scans, place, tmp_path):
    """With the threshold put where it must, the exit code follows the label."""
    model = PIRN.load(run / "flange" / "seed0" / "model")
    for threshold, code, label in ((0.0, 1, 1), (1e6, 0, 0)):
        model.calibration = model.calibration._replace(threshold=threshold)
        place_of = model.save(tmp_path / "model")
        done = predict(place_of, place, *sorted(scans.iterdir())[:2], "--unit", "m",
                       "--fail-on-defect", out=tmp_path / f"out{label}")  # fmt: skip
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["label"] == label


@pytest.mark.slow
def test_what_cannot_be_predicted_is_said(run, place, tmp_path):
    for arguments, code, message in (
        ((), 3, "nothing to predict"),
        (("--category", "rope", "x.png"), 2, "no such|no model of category|cannot"),
    ):
        done = predict(run, place, *arguments, out=tmp_path / "out")
        assert done.returncode == code
        assert any(part in done.stderr for part in message.split("|")), done.stderr


@pytest.mark.slow
def test_a_lot_is_judged_together(run, scans, tmp_path, capsys):
    """By the run, by the run with good scans that join, and by the lot alone."""
    given = [str(scans), "--lot", "--unit", "m", "--cache", str(tmp_path / "cache"), "--out"]
    ways = {"run": [str(run)], "good": [str(run), "--good", str(scans)]}
    ways["alone"] = ["--encoder", "pirn-tiny"]
    for name, words in ways.items():
        predict_command.main([*words, *given, str(tmp_path / name)])
        records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert len(records) == 3
        for record in records:
            assert record["lot"] == (6 if name == "good" else 3)
            assert record["score"] > 0
            # The threshold of the run was set by scores without the lot.
            assert (record["threshold"] is None) == (record["label"] is None) == (name != "good")


def test_what_is_no_lot_is_refused(run, scans, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    for words, said in (
        (["--good", str(scans)], "--encoder and --good are of a lot"),
        (["--lot", "--good", str(scans), "--threshold", "1"], "contradict each other"),
    ):
        with pytest.raises(SystemExit) as stopped:
            predict_command.main([str(run), str(scans), *words, *out])
        assert stopped.value.code == 3
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_evaluated_lot_by_lot(run, place):
    out, flags = place / "lots", ("--lot", "--false-alarm-rate", "0.2")
    done = command("evaluate", run, "--out", out, *flags, cache=place / "cache")
    assert done.returncode == 0, done.stderr
    text = (out / "metrics.json").read_text()
    calibration = json.loads((out / "flange/seed0/calibration.json").read_text())
    assert calibration["wanted_rate"] == 0.2
    assert f"judged as one lot of {6 + calibration['scans']} scans" in text


def test_rules_zones_and_predictions_added_to_others(run, scans, place, tmp_path):
    """Twice the same scan into one folder: by the threshold, then by rules on half of it."""
    files, out = sorted(scans.iterdir())[:2], tmp_path / "out"
    done = predict(run, place, *files, "--unit", "m", out=out)
    assert done.returncode == 0, done.stderr
    (first,) = map(json.loads, done.stdout.splitlines())
    assert first["rule"] == "part threshold"
    half = np.zeros((128, 128), np.uint8)
    half[:64] = 255
    Image.fromarray(half).save(tmp_path / "roi.png")
    (tmp_path / "rules.toml").write_text(
        "[threshold]\npart = -1\npixel = 0\n[[not_ok]]\nname = 'everything'\n"
    )
    with (out / "predictions.jsonl").open("a") as lines:
        lines.write('{"key": "cut sh')  # a kill
    done = predict(run, place, *files, "--unit", "m", "--append", "--fail-on-defect", "--rules",
                   tmp_path / "rules.toml", "--roi", tmp_path / "roi.png", out=out)  # fmt: skip
    assert done.returncode == 1, done.stderr
    (second,) = map(json.loads, done.stdout.splitlines())
    assert (second["key"], second["rule"], second["threshold"]) == (first["key"], "everything", -1)
    assert second["model"] == first["model"]
    assert second["calibration"] == first["calibration"]
    assert second["heatmap"] != first["heatmap"]
    lines = (out / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [first, second]
    with Image.open(second["mask"]) as mask:
        mask = np.asarray(mask)
    assert mask.any()
    assert not mask[:64].any()


@pytest.mark.slow
def test_a_run_is_served(run, scans, place, tmp_path):
    """By HTTP and from a folder, until it is told to end."""
    import socket
    import urllib.request

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ("--port", port, "--state", tmp_path / "state", "--unit", "m")
    options += ("--watch", scans, "--to-folder", tmp_path / "out")
    serving = start("serve", run, *options, cache=place / "cache")
    try:
        for _ in range(1200):
            if serving.poll() is not None or len(list((tmp_path / "out").glob("*.json"))) == 3:
                break
            time.sleep(0.1)
        records = [json.loads(file.read_text()) for file in (tmp_path / "out").glob("*.json")]
        known = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/results").read())
    finally:
        serving.terminate()
        done = finish(serving)
    assert done.returncode == 0, done.stderr
    assert sorted(one["key"] for one in known) == sorted(record["key"] for record in records)
    alone = {scan.key.replace("/", "-"): scan for scan in
             open_dataset("synthetic", None, "flange", size=128).test[:3]}  # fmt: skip
    model = PIRN.load(run / "flange" / "seed0" / "model")
    for record in records:
        score = model.predict(alone[record["key"]]).pred_score
        assert record["score"] == pytest.approx(score, rel=1e-3)


# Evaluation


@pytest.mark.slow
def test_evaluating_a_run_again_gives_its_figures(run, place, tmp_path):
    done = command("evaluate", run, "--out", tmp_path / "again", cache=place / "cache")
    assert done.returncode == 0, done.stderr
    assert "I-AUROC" in done.stdout
    first = json.loads((run / "metrics.json").read_text())["mean"]
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())["mean"]
    assert again == pytest.approx(first, abs=1e-5)
    assert (tmp_path / "again" / "report.html").is_file()


@pytest.mark.slow
def test_evaluating_on_a_dataset_on_disk(run, place, tmp_path):
    write_mvtec3d(tmp_path / "data", "flange", size=96, train=1, validation=1, test=4)
    done = command("evaluate", run, "--dataset", "mvtec3d", "--data-root", tmp_path / "data",
                   "--out", tmp_path / "out", cache=place / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["categories"]["flange"]["seed0"]["scans"] == 4
    assert document["left_out"] == 0
    # Damaged where no header shows it: the others are judged, and the exit code says so.
    picture = next((tmp_path / "data/flange/test").glob("*/rgb/*.png"))
    content = picture.read_bytes()
    middle = len(content) // 2
    picture.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    done = command("evaluate", run, "--dataset", "mvtec3d", "--data-root", tmp_path / "data",
                   "--out", tmp_path / "out", "--overwrite", "--false-alarm-rate", "0.6",
                   cache=place / "cache")  # fmt: skip
    assert done.returncode == 2, done.stderr
    model = tmp_path / "out/flange/seed0"
    calibration = json.loads((model / "calibration.json").read_text())
    assert (calibration["wanted_rate"], calibration["scans"]) == (0.6, 1)  # of the data at hand
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["categories"]["flange"]["seed0"]["scans"] == 3
    assert document["left_out"] == 1


# Other methods


@pytest.mark.slow
@pytest.mark.parametrize("method", ["memory", "inp-former"])
def test_the_baselines_train_evaluate_and_predict_by_the_same_commands(method, scans, tmp_path):
    run, cache = tmp_path / "run", tmp_path / "cache"
    changes = {
        "memory": ["--recipe.photometric", "1"],
        "inp-former": ["--recipe.epochs", "2", "--recipe.no-augment"],
    }[method]
    flags = ("--config", "debug", "--method", method, *changes, "--out", run)
    done = command("train", *flags, cache=cache)
    assert done.returncode == 0, done.stderr
    assert method in (run / "report.html").read_text()
    trained = json.loads((run / "metrics.json").read_text())["mean"]
    done = command("evaluate", run, "--out", tmp_path / "again", cache=cache)
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())["mean"]
    assert again == pytest.approx(trained, abs=1e-4)
    done = command("predict", run, scans, "--out", tmp_path / "predictions", cache=cache)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(lines) == 3
    assert all(np.isfinite(line["score"]) for line in lines)
