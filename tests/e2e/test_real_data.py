"""Real data, end to end: MVTec's tire (photographs) and road surface (photographs and geometry)."""

import json

import pytest

from tests.e2e.commands import command

WEIGHTS = "weights/vit_tiny_patch16_224.safetensors"


def train(shared, out, folder, *arguments):
    done = command(
        "train", "--dataset", "mvtec3d", "--data-root", shared / "data" / folder,
        "--encoder", "vit-tiny-16", "--weights", shared / WEIGHTS, "--out", out, *arguments,
        cache=out.parent / "cache",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.slow
def test_tire_by_photographs_alone(shared, tmp_path):
    if not (shared / "data" / "mvtec3d_rgb" / "tire").is_dir():
        pytest.skip("tire is not at hand")
    document = train(shared, tmp_path / "run", "mvtec3d_rgb", "--modalities", "rgb",
                     "--shots", "10")  # fmt: skip
    figures = document["categories"]["tire"]["seed0"]
    assert document["data"] == "real"
    assert document["encoder"]["random"] is False
    assert figures["scans"] == 58
    assert figures["p_auroc"] > 0.7  # chance is 0.5


@pytest.mark.slow
def test_road_by_photographs_and_geometry(shared, tmp_path):
    if not (shared / "data" / "mvtec3d_rgbxyz" / "road").is_dir():
        pytest.skip("road is not at hand")
    document = train(shared, tmp_path / "run", "mvtec3d_rgbxyz", "--shots", "10")
    stored = json.loads((tmp_path / "run/road/seed0/model/config.json").read_text())
    assert stored["config"]["background"] == "none"  # the part is the plane
    figures = document["categories"]["road"]["seed0"]
    assert figures["scans"] == 40
    assert figures["i_auroc"] > 0.75  # chance is 0.5
    assert figures["p_auroc"] > 0.75
