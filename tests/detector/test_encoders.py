"""The encoder of a saved model: found by the hash of its weights, never by the path it names."""

import pytest

from pirn_jax.config import Config
from pirn_jax.detector.encoders import find_encoder, open_encoder
from pirn_jax.encoder.embedded import FILE
from pirn_jax.encoder.source import remember, remembered
from pirn_jax.errors import WeightsError
from pirn_jax.storage import write_json

CONFIG = Config(encoder="vit-tiny-16", image_size=64)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PIRN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def weights(tmp_path):
    """A network of its own, as a file that no cache and no package knows."""
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes(FILE.read_bytes())
    return copy


def test_weights_are_found_where_this_user_had_them(weights, tmp_path):
    config = Config(encoder="pirn-tiny", image_size=70, weights=str(weights))
    source = open_encoder(config).source
    assert remembered(source.sha256) is None
    remember(source)
    assert remembered(source.sha256) == weights
    again = find_encoder(Config(encoder="pirn-tiny", image_size=70), source.sha256, "")
    assert again.source.path == str(weights)
    weights.unlink()
    assert remembered(source.sha256) is None
    for digest in ("../../etc/passwd", "", "0" * 63):
        assert remembered(digest) is None


def test_moved_weights_are_named_by_path_and_hash(tmp_path):
    planted = tmp_path / "planted.safetensors"
    planted.write_bytes(b"nothing that may be read")
    digest = "ab" * 32
    with pytest.raises(WeightsError) as error:
        find_encoder(CONFIG, digest, str(planted))
    assert str(planted) in str(error.value)
    assert digest in str(error.value)
    assert "--weights" in str(error.value)


def test_what_lies_there_must_have_the_hash(weights, tmp_path):
    digest = "ab" * 32
    write_json(tmp_path / "cache" / "weights" / f"{digest}.json", {"path": str(weights)})
    with pytest.raises(WeightsError, match="but the model was trained with the pirn-tiny of abab"):
        find_encoder(Config(encoder="pirn-tiny", image_size=70), digest, "")
