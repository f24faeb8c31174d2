"""The encoder against randomly initialised transformers networks, read from their own files."""

import numpy as np
import pytest

from pirn_jax.encoder import CATALOG, load_encoder
from pirn_jax.encoder.positions import resize_positions

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

TOLERANCE = 2e-5
DINOV2 = [name for name in CATALOG if name.startswith("dinov2-")]
VIT = [name for name in CATALOG if name.startswith(("dino-", "vit-"))]


def pictures(*size):
    return np.random.RandomState(0).rand(2, *size, 3).astype(np.float32)


def blocks_of(name):
    return 4 if CATALOG[name].width >= 1024 else 12


def largest_error(name, size, folder, stored_side):
    """Over every block's raw patch tokens, and the mean that a call returns."""
    from tests.encoder.published import hidden_states, random_model, save

    blocks = blocks_of(name)
    layers = range(1, blocks + 1)
    model = random_model(CATALOG[name], blocks, stored_side)
    images = pictures(*size)
    expected = hidden_states(model, images, CATALOG[name])
    encoder = load_encoder(
        name, save(model, folder), image_size=size, layers=layers, position_rule="hf"
    )
    found = encoder.hidden_states(images, layers)
    assert len(expected) == len(found) == blocks
    return max(np.abs(e - f).max() for e, f in zip(expected, found, strict=True))


def cases(names, sizes):
    """Every pair; in the quick run the narrow networks alone, at the size that is not square."""

    def marks(name, size):
        quick = size[0] != size[1] and CATALOG[name].width <= 384
        return [] if quick else [pytest.mark.slow]

    return [pytest.param(name, size, marks=marks(name, size)) for name in names for size in sizes]


@pytest.mark.parametrize(("name", "size"), cases(DINOV2, [(224, 280), (224, 224), (518, 518)]))
def test_dinov2_equals_transformers_on_every_block(name, size, tmp_path):
    assert largest_error(name, size, tmp_path, stored_side=518) <= TOLERANCE


@pytest.mark.parametrize(("name", "size"), cases(VIT, [(224, 272), (224, 224)]))
def test_dino_and_augreg_equal_transformers_on_every_block(name, size, tmp_path):
    assert largest_error(name, size, tmp_path, stored_side=224) <= TOLERANCE


def test_the_tanh_gelu_mistake_would_be_seen(tmp_path, monkeypatch):
    """The check is sharp: a port's usual mistake lies far above the tolerance."""
    import jax

    exact = jax.nn.gelu
    monkeypatch.setattr(jax.nn, "gelu", lambda x, approximate: exact(x, approximate=True))
    assert largest_error("dinov2-small", (224, 280), tmp_path, 518) > 10 * TOLERANCE


@pytest.mark.parametrize("stored", [14, 16, 28, 37])
@pytest.mark.parametrize("size", [(16, 16), (16, 20), (28, 28), (64, 40), (14, 15), (60, 60)])
def test_position_rules_equal_their_originals(stored, size):
    """Against the calls the originals make: Meta's, transformers' and timm's."""
    import torch

    grid = np.random.RandomState(1).randn(stored, stored, 8).astype(np.float32)
    image = torch.from_numpy(grid).permute(2, 0, 1)[None]
    offset = tuple((side + 0.1) / stored for side in size)
    calls = {
        "meta": {"scale_factor": offset, "antialias": False},
        "meta-registers": {"size": size, "antialias": True},
        "hf": {"size": size, "antialias": False},
        "hf-registers": {"size": size, "antialias": True},
        "timm": {"size": size, "antialias": True},
    }
    for rule, options in calls.items():
        expected = torch.nn.functional.interpolate(
            image, mode="bicubic", align_corners=False, **options
        )
        if size == (stored, stored):
            expected = image  # every original returns the embedding itself
        found = resize_positions(grid, size, rule)
        np.testing.assert_allclose(found, expected[0].permute(1, 2, 0), atol=4e-6, err_msg=rule)


@pytest.mark.parametrize("name", ["dinov2-small", "dinov2-small-reg", "dino-vits16"])
def test_the_default_rule_is_metas(name, tmp_path):
    """Tokens change with the rule exactly as the position embedding does."""
    import torch

    from tests.encoder.published import random_model, save

    config, blocks, images = CATALOG[name], 1, pictures(224, 224)
    side = 518 if config.patch == 14 else 384
    model = random_model(config, blocks, side=side)
    path = save(model, tmp_path)
    encoder = load_encoder(name, path, layers=(1,))
    stored = model.embeddings.position_embeddings[0, 1:].detach()
    grid = stored.reshape(side // config.patch, side // config.patch, -1).permute(2, 0, 1)[None]
    cells = 224 // config.patch
    factor = (cells + 0.1) / grid.shape[-1]
    options = {"size": (cells, cells)} if config.registers else {"scale_factor": (factor, factor)}
    resized = torch.nn.functional.interpolate(
        grid, mode="bicubic", antialias=bool(config.registers), **options
    )
    expected = resized[0].flatten(1).T
    np.testing.assert_allclose(encoder.parameters["positions"], expected, atol=1e-6)
    meta = load_encoder(name, path, layers=(1,), position_rule="meta")
    np.testing.assert_array_equal(encoder(images), meta(images))
    if not config.registers:  # with registers Meta's and transformers' rules are the same call
        hf = load_encoder(name, path, layers=(1,), position_rule="hf")
        assert np.abs(np.asarray(encoder(images)) - np.asarray(hf(images))).max() > 1e-4


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_files_load_as_what_they_hold(kind, tmp_path):
    import torch

    from tests.encoder.published import hidden_states, random_model, save

    name, images = "dinov2-small", pictures(224, 224)
    model = random_model(CATALOG[name], 2, side=518).to(getattr(torch, kind))
    path = save(model, tmp_path)
    expected = hidden_states(model.float(), images, CATALOG[name])
    encoder = load_encoder(name, path, layers=(1, 2), position_rule="hf")
    found = encoder.hidden_states(images, (1, 2))
    for e, f in zip(expected, found, strict=True):
        np.testing.assert_allclose(f, e, atol=TOLERANCE)


def test_a_wrapped_classifier_is_read_through_its_prefix(tmp_path):
    """Dinov2ForImageClassification writes every key behind "dinov2." and adds a head."""
    from transformers import Dinov2Config, Dinov2ForImageClassification

    settings = Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=2, image_size=518
    )
    model = Dinov2ForImageClassification(settings).eval()
    model.save_pretrained(tmp_path)
    from tests.encoder.published import hidden_states

    images = pictures(224, 224)
    expected = hidden_states(model.dinov2, images, CATALOG["dinov2-small"])
    encoder = load_encoder("dinov2-small", tmp_path, layers=(2,), position_rule="hf")
    np.testing.assert_allclose(encoder(images), expected[1], atol=TOLERANCE)
