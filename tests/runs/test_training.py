"""What a training that is refused leaves behind."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pirn_jax.config import Config, TrainConfig, with_settings
from pirn_jax.errors import NotJudgedError
from pirn_jax.runs import train_run
from pirn_jax.runs.outputs import is_taken
from tests.scans import layouts


def test_a_shot_that_is_refused_when_it_is_read_leaves_no_folder(tmp_path):
    """Its header is sound, so that it is found out after the run has begun."""
    good = tmp_path / "part/train/good"
    good.mkdir(parents=True)
    for number in range(2):
        Image.fromarray(layouts.photograph(number)).save(good / f"{number}.png")
    Image.fromarray(np.zeros_like(layouts.photograph(0))).save(good / "black.png")
    small = Config(encoder="vit-tiny-16", weights="random", image_size=32, method="mixture")
    small = dataclasses.replace(small, modalities=("rgb",), background="none")
    detector = with_settings(small, {"prototypes": 2, "rank": 2, "view": "frame"})
    config = TrainConfig(
        detector=detector,
        dataset="folder",
        data_root=str(tmp_path / "part"),
        shots=3,
        cache=str(tmp_path / "cache"),
        out=str(tmp_path / "run"),
    )
    with pytest.raises(NotJudgedError, match="black"):
        train_run(config)
    assert not is_taken(tmp_path / "run")
    (good / "black.png").unlink()
    train_run(dataclasses.replace(config, shots=2))  # the same place, without --overwrite
    assert is_taken(tmp_path / "run")
