"""The baselines as detectors: through the public methods, with the encoder in the package."""

import jax
import numpy as np
import pytest

from pirn_jax.config import Config, with_settings
from pirn_jax.detector import PIRN, open_encoder
from pirn_jax.detector.saving import MODEL_FORMAT
from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.manifest import MANIFEST, write_manifest
from pirn_jax.scans import open_dataset
from pirn_jax.storage import read_object

SMALL = {"encoder": "pirn-tiny", "image_size": 42}
INP_FORMER = {"epochs": 2, "warm_up": 1, "blocks": 2, "augment": False}


@pytest.fixture(scope="module")
def data():
    return open_dataset("synthetic", None, "biscuit", size=64, train=3, validation=2, test=4)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("mixture", {"prototypes": 4, "rank": 3, "jitter": 1}),
        ("memory", {"photometric": 1, "centre_image": True, "scale": "standardise"}),
        pytest.param("subspace", {"rotations": 2, "variance": 0.9}, marks=pytest.mark.slow),
        pytest.param("inp-former", INP_FORMER, marks=pytest.mark.slow),
        ("simplenet", {"steps": 30, "hidden": 32}),
        pytest.param("cflow", {"steps": 20, "blocks": 2}, marks=pytest.mark.slow),
        pytest.param("cfm", {"steps": 20, "rotations": 2}, marks=pytest.mark.slow),
        pytest.param("ast", {"steps": 10, "width": 8}, marks=pytest.mark.slow),
        pytest.param("btf", {}, marks=pytest.mark.slow),
        pytest.param("m3dm", {"steps": 3}, marks=pytest.mark.slow),
        pytest.param("shape-guided", {"steps": 3, "patches": 9}, marks=pytest.mark.slow),
    ],
)
def test_a_baseline_fits_calibrates_saves_loads_and_predicts(data, tmp_path, method, change):
    config = with_settings(Config(**SMALL, method=method), change)
    model = PIRN(config).fit(data.train).calibrate()
    assert model.calibration.leave_one_out
    assert model.calibration.scans == 3
    scans = list(data.test)
    scores = [found.inferred.score for found in model.predict_scans(scans)]
    usage = next(model.predict_scans(scans[:1])).inferred.usage
    assert usage is None if method != "mixture" else usage.shape == (2, 4)
    turned = [found.inferred.score for found in model.predict_scans(scans[::-1])]
    np.testing.assert_allclose(scores, turned[::-1], rtol=1e-4)
    model.save(tmp_path)
    loaded = PIRN.load(tmp_path, encoder=model.encoder)
    assert loaded.encoder is model.encoder
    jax.tree.map(np.testing.assert_array_equal, loaded.parameters, model.parameters)
    again = [found.inferred.score for found in loaded.predict_scans(scans)]
    np.testing.assert_allclose(again, scores, rtol=1e-6)
    assert loaded.calibration == model.calibration
    # Without its first shot: what leave-one-out scored that shot with.
    without = PIRN(model.config, encoder=model.encoder).fit(list(data.train)[1:])
    (found,) = without.predict_scans([data.train[0]], batch=8)
    assert model.calibration.threshold >= found.inferred.score * (1 - 1e-3)


def test_a_bank_of_any_size_loads_and_a_damaged_one_does_not(tmp_path, data):
    from safetensors.numpy import load_file, save_file

    encoder = open_encoder(Config(**SMALL))
    config = Config(**SMALL, method="memory", modalities=("rgb",))
    folder = PIRN(config, encoder=encoder).fit(list(data.train)[:1]).save(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    bank = tensors["parameters.bank"]

    def replace(bank):
        save_file({**tensors, "parameters.bank": bank.copy()}, folder / "model.safetensors")
        about = read_object(folder / MANIFEST)["about"]
        write_manifest(folder, MODEL_FORMAT, ("config.json", "model.safetensors"), about)

    replace(bank[:, :7])
    assert PIRN.load(folder, encoder=encoder).parameters[0]["bank"].shape == (1, 7, 192)
    for damaged in (bank[:, :0], bank[:, :, 1:], bank[0]):
        replace(damaged)
        with pytest.raises(BadInputError, match=r"parameters\.bank: expected"):
            PIRN.load(folder, encoder=encoder)


def test_inp_former_asks_for_layers_in_two_groups(data):
    encoder = open_encoder(Config(**SMALL, method="inp-former"))
    assert (encoder.layers, encoder.groups) == (tuple(range(3, 11)), 2)
    assert encoder.channels == 2 * 192
    pictures = np.random.default_rng(0).random((1, 42, 42, 3), np.float32)
    states = encoder.hidden_states(pictures, encoder.layers)
    expected = np.concatenate([np.mean(states[:4], 0), np.mean(states[4:], 0)], -1)
    np.testing.assert_allclose(encoder(pictures), expected, atol=1e-4)
    plain = PIRN(Config(**SMALL, method="memory"), encoder=encoder).encoder
    assert (plain.layers, plain.groups, plain.channels) == (tuple(range(3, 11)), 1, 192)
    assert plain.parameters is encoder.parameters
    assert PIRN(Config(**SMALL, method="inp-former"), encoder=plain).encoder is encoder
    with pytest.raises(ConfigError, match="do not make 2 groups"):
        open_encoder(Config(**SMALL, method="inp-former", layers=(1, 2, 3)))
    jax.clear_caches()
