"""The encoder by OpenVINO, held to JAX's: the runtime is an optional package."""

import sys

import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import PIRN, open_encoder
from pirn_jax.encoder import load_encoder
from pirn_jax.errors import ConfigError, MissingDependencyError
from pirn_jax.scans import open_dataset


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino")


def pictures(batch, height, width):
    return np.random.RandomState(batch).rand(batch, height, width, 3).astype(np.float32)


def cosines(tokens, reference):
    tokens, reference = np.asarray(tokens, np.float64), np.asarray(reference, np.float64)
    lengths = np.linalg.norm(tokens, axis=-1) * np.linalg.norm(reference, axis=-1)
    return (tokens * reference).sum(-1) / lengths


def pair(name, size, dtype, layers=None, weights="random", **blocks):
    ours = load_encoder(name, weights, size, layers, **blocks)
    fast = load_encoder(name, weights, size, layers, dtype=dtype, runtime="openvino", **blocks)
    return ours, fast


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize(
    ("name", "size", "layers", "normalised"),
    [
        ("dinov2-small", (56, 42), (2, 4), False),
        ("vit-tiny-16", (64, 96), (1, 2, 5), True),
        ("dinov2-small-reg", (42, 42), (1, 3), True),  # registers; blocks on both sides of the seam
        # SwiGLU; ends at the seam
        pytest.param("dinov2-giant", (28, 28), (1,), False, marks=pytest.mark.slow),
    ],
)
def test_tokens_are_jaxs_at_every_batch_size(name, size, layers, normalised):
    ours, fast = pair(name, size, "float32", layers, normalised=normalised)
    for batch in (2, 1, 3):  # one graph takes them all, and keeps nothing of the call before
        images = pictures(batch, *size)
        reference, tokens = np.asarray(ours(images)), np.asarray(fast(images))
        assert tokens.dtype == np.float32
        assert cosines(tokens, reference).min() > 1 - 1e-6
        np.testing.assert_allclose(tokens, reference, atol=2e-5 * reference.std() + 1e-5)


@pytest.mark.usefixtures("openvino")
@pytest.mark.parametrize("name", ["dinov2-small", "vit-tiny-16"])
def test_bfloat16_stays_near_float32(name):
    ours, fast = pair(name, (112, 112), "bfloat16")
    images = pictures(2, 112, 112)
    assert cosines(fast(images), ours(images)).min() > 0.9999


@pytest.mark.usefixtures("openvino")
def test_results_outlive_the_next_call():
    _, fast = pair("vit-tiny-16", (32, 32), "float32", (1,))
    first = fast(pictures(1, 32, 32))
    kept = np.array(first)
    fast(pictures(2, 32, 32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.usefixtures("openvino")
def test_real_weights_on_a_real_photograph(shared):
    from PIL import Image

    file = sorted((shared / "data" / "mvtec2d").glob("*/test/good/*"))[0]
    photograph = Image.open(file).convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)
    images = np.asarray(photograph, np.float32)[None] / 255
    weights = shared / "weights" / "vit_tiny_patch16_224.safetensors"
    for dtype, least in (("float32", 1 - 1e-5), ("bfloat16", 0.999)):
        ours, fast = pair("vit-tiny-16", 224, dtype, weights=weights)
        assert cosines(fast(images), ours(images)).min() >= least


@pytest.mark.usefixtures("openvino")
def test_the_detector_predicts_the_same_with_either(tmp_path):
    small = {"decoder.layers": 1, "decoder.iterations": 5, "decoder.mlp_ratio": 0, "epochs": 1}
    kind = {"encoder": "vit-tiny-16", "weights": "random", "image_size": 64, "layers": (2, 3)}
    config = with_settings(Config(**kind, method="pirn", modalities=("rgb",)), small)
    data = open_dataset("synthetic", None, "biscuit", size=80, train=2, validation=2, test=1)
    model = PIRN(config, encoder=open_encoder(config)).fit(data.train)
    expected = model.predict(data.test[0])
    model.save(tmp_path / "model")
    fast = PIRN.load(tmp_path / "model", runtime="openvino")
    assert (fast.config.runtime, fast.encoder.runtime) == ("openvino", "openvino")
    found = fast.predict(data.test[0])
    assert found.pred_score == pytest.approx(expected.pred_score, rel=1e-4)
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=1e-4)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'pirn-jax\[openvino\]'"):
        load_encoder("vit-tiny-16", "random", 32, (1,), runtime="openvino")


def test_unknown_runtimes_are_refused(unchecked):
    with pytest.raises(ConfigError, match="runtime"):
        load_encoder("vit-tiny-16", "random", 32, (1,), runtime="tensorflow")
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        Config(runtime="openvin")
