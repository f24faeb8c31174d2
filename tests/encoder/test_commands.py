"""The encoder's two commands, most of them run as a user runs them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from pirn_jax.command import run
from pirn_jax.encoder import convert
from tests.encoder.test_weights import timm_tensors


def command(module, *arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "COLUMNS": "200"},
    )


def test_a_picture_is_shown_as_its_tokens(tmp_path):
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (90, 120, 3), np.uint8)).save(
        tmp_path / "part.png"
    )
    save_file(timm_tensors(), tmp_path / "weights.safetensors")
    options = ("--weights", "weights.safetensors", "--image-size", 64)
    done = command("pirn_jax.encoder", "part.png", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Encoder(vit-tiny-16, 64×64" in done.stdout
    assert "16 tokens of 192 channels" in done.stdout
    with Image.open(tmp_path / "tokens.png") as drawn:
        assert drawn.size[0] > 300


def test_without_weights_or_network_the_encoder_of_the_package_runs_and_says_so(tmp_path):
    done = command("pirn_jax.encoder", "--image-size", 56, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the encoder is pirn-tiny, which comes with pirn_jax" in done.stderr
    assert "was trained on pictures of 224 px" in done.stderr
    assert "distilled from DINOv2-small" in " ".join(done.stdout.split())


def test_what_is_no_picture_is_refused_with_its_name(tmp_path):
    (tmp_path / "part.png").write_bytes(b"not a picture")
    options = ("--encoder", "pirn-tiny", "--image-size", 56)
    done = command("pirn_jax.encoder", "part.png", *options, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: part.png: is no picture")


@pytest.mark.torch
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_checkpoint_is_converted_to_the_file_the_library_reads(tmp_path, wrapped, capsys):
    torch = pytest.importorskip("torch")
    tensors = timm_tensors(blocks=12)
    content = {key: torch.from_numpy(value) for key, value in tensors.items()}
    if wrapped:
        content = {"teacher": {f"backbone.{key}": value for key, value in content.items()}}
    torch.save(content, tmp_path / "in.pth")
    files = [str(tmp_path / "in.pth"), str(tmp_path / "out.safetensors")]
    run(convert.main, arguments=files)
    assert "vit-tiny-16" in capsys.readouterr().out
    written = load_file(tmp_path / "out.safetensors")
    assert written.keys() == tensors.keys()
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value)
    with pytest.raises(SystemExit) as stopped:
        run(convert.main, arguments=files)
    assert stopped.value.code == 3
    assert "exists already" in capsys.readouterr().err


@pytest.mark.torch
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    from tests.encoder.test_weights import Bomb

    torch.save({"weight": Bomb(tmp_path / "executed")}, tmp_path / "in.pth")
    done = command("pirn_jax.encoder.convert", "in.pth", "out.safetensors", folder=tmp_path)
    assert done.returncode == 2
    assert "is no checkpoint of plain tensors" in done.stderr
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out.safetensors").exists()
