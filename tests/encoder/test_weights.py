"""Files that are not what they should be: a named error each, and nothing executed."""

import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pirn_jax.encoder import CATALOG, load_encoder
from pirn_jax.encoder.weights import identify
from pirn_jax.errors import ConfigError, WeightsError

NAME = "vit-tiny-16"


def timm_tensors(blocks=12, seed=0, width=192, patch=16, side=14):
    """A file as timm names it, with random values."""
    stream = np.random.RandomState(seed)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, side * side + 1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (10, width),
        "head.bias": (10,),
    }
    for i in range(blocks):
        for layer, inputs, outputs in (
            ("attn.qkv", width, 3 * width),
            ("attn.proj", width, width),
            ("mlp.fc1", width, 4 * width),
            ("mlp.fc2", 4 * width, width),
        ):
            shapes[f"blocks.{i}.{layer}.weight"] = (outputs, inputs)
            shapes[f"blocks.{i}.{layer}.bias"] = (outputs,)
        for layer in ("norm1", "norm2"):
            shapes[f"blocks.{i}.{layer}.weight"] = (width,)
            shapes[f"blocks.{i}.{layer}.bias"] = (width,)
    return {
        key: (0.04 * stream.standard_normal(shape)).astype(np.float32)
        for key, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "good.safetensors"
    save_file(timm_tensors(), path)
    return path


def images(batch=1):
    return np.random.RandomState(3).rand(batch, 224, 224, 3).astype(np.float32)


def changed(good, folder, change):
    tensors = load_file(good)
    change(tensors)
    path = folder / "changed.safetensors"
    save_file(tensors, path)
    return path


def set_nan(tensors):
    tensors["blocks.3.mlp.fc1.weight"][5, 7] = np.nan


def set_infinite(tensors):
    tensors["pos_embed"][0, 3, 1] = -np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.11.mlp.fc2.bias"), r"missing: blocks\.11\.mlp\.fc2\.bias"),
        (lambda t: t.pop("pos_embed"), "missing: pos_embed"),
        (
            lambda t: [t.pop(k) for k in list(t) if "blocks.4." in k],
            r"missing: blocks\.4\.\* \(12 keys\)",
        ),
        (
            lambda t: [t.pop(k) for k in list(t) if "blocks.11." in k],
            r"missing: blocks\.11\.\* \(12 keys\)",
        ),
        (lambda t: t.update(extra=np.zeros(3, np.float32)), "unexpected: extra"),
        (lambda t: t.update({"blocks.12.norm1.bias": np.zeros(192)}), r"unexpected: blocks\.12\."),
        (
            lambda t: t.update({"blocks.0.attn.qkv.weight": np.zeros((192, 576), np.float32)}),
            re.escape("blocks.0.attn.qkv.weight is (192, 576), expected (576, 192)"),
        ),
        (
            lambda t: t.update(pos_embed=np.zeros((1, 199, 192), np.float32)),
            re.escape("pos_embed is (1, 199, 192), expected (1, 197, 192)"),
        ),
        (
            lambda t: t.update(pos_embed=np.zeros((1, 196, 192), np.float32)),
            re.escape("pos_embed is (1, 196, 192), expected (1, 170, 192)"),
        ),
        (
            lambda t: t.update(pos_embed=np.zeros((1, 0, 192), np.float32)),
            re.escape("pos_embed is (1, 0, 192), expected (1, 2, 192)"),
        ),
        (
            lambda t: t.update({"patch_embed.proj.bias": np.zeros(192, np.int32)}),
            "patch_embed.proj.bias is not of a floating type",
        ),
        (set_nan, r"NaN or infinite values in blocks\.3\.mlp\.fc1\.weight"),
        (set_infinite, "NaN or infinite values in pos_embed"),
        (lambda t: t.clear() or t.update(x=np.zeros(1)), "no Vision Transformer"),
    ],
)
def test_a_wrong_tensor_is_named(good, tmp_path, change, message):
    path = changed(good, tmp_path, change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_encoder(NAME, path)
    assert caught.value.path == str(path)
    assert caught.value.remedy


def test_everything_wrong_is_listed_at_once(good, tmp_path):
    def change(tensors):
        tensors.pop("cls_token")
        tensors["stray"] = np.zeros(2, np.float32)
        tensors["patch_embed.proj.bias"] = np.zeros(3, np.float32)

    with pytest.raises(WeightsError) as caught:
        load_encoder(NAME, changed(good, tmp_path, change))
    for part in ("missing: cls_token", "unexpected: stray", "patch_embed.proj.bias is (3,)"):
        assert part in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(good, tmp_path, share):
    content = good.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        load_encoder(NAME, path)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("kind", ["pickle", "zip"])
def test_a_pickle_called_safetensors_is_refused_and_never_run(tmp_path, kind):
    victim, path = tmp_path / "executed", tmp_path / "model.safetensors"
    payload = pickle.dumps(Bomb(victim), protocol=4)
    if kind == "pickle":
        path.write_bytes(payload)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", payload)
    with pytest.raises(WeightsError, match="can run code") as caught:
        load_encoder(NAME, path)
    assert "pirn_jax.encoder.convert" in caught.value.remedy
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\xff" * 100, "not a whole safetensors file"),
        (b"", "not a whole safetensors file"),
    ],
)
def test_other_kinds_of_file_are_named(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_encoder(NAME, path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        load_encoder(NAME, tmp_path / "nowhere.safetensors")


def test_another_networks_file_is_recognised(good):
    with pytest.raises(WeightsError, match="looks like vit-tiny-16"):
        load_encoder("dinov2-small", good)
    assert identify(good) == NAME
    assert load_encoder("auto", good).config.name == NAME


def test_a_configuration_beside_the_file_must_agree(tmp_path):
    """Heads leave no trace in the shapes: only config.json can tell."""
    save_file(hf_dinov2_small_tensors(), tmp_path / "model.safetensors")
    beside = tmp_path / "config.json"

    def load(**stated):
        beside.write_text(json.dumps({"model_type": "dinov2"} | stated))
        return load_encoder("dinov2-small", tmp_path, layers=(1,))

    assert load(num_attention_heads=6, layer_norm_eps=1e-6).config.epsilon == 1e-6
    assert load(num_attention_heads=6, layer_norm_eps=1e-12).config.epsilon == 1e-12
    for stated, message in (
        ({"num_attention_heads": 12}, "num_attention_heads is 12, expected 6"),
        ({"hidden_act": "gelu_new"}, "hidden_act is gelu_new, expected gelu"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn is True, expected False"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is tiny"),
    ):
        with pytest.raises(WeightsError, match=message):
            load(**stated)
    for content, message in (("{not json", "no readable JSON"), ("3", "expected a JSON object")):
        beside.write_text(content)
        with pytest.raises(WeightsError, match=message) as caught:
            load_encoder("dinov2-small", tmp_path, layers=(1,))
        assert caught.value.path == str(beside)
    assert load(model_type="bert", num_attention_heads=99).blocks == 1  # about something else


def test_a_configuration_that_names_code_is_not_followed(tmp_path):
    save_file(hf_dinov2_small_tensors(), tmp_path / "model.safetensors")
    victim = tmp_path / "executed"
    (tmp_path / "configuration_x.py").write_text(f"open({str(victim)!r}, 'w').close()")
    stated = {"model_type": "dinov2", "auto_map": {"AutoConfig": "configuration_x.X"}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    assert load_encoder("dinov2-small", tmp_path, layers=(1,)).blocks == 1
    assert not victim.exists()


def hf_dinov2_small_tensors():
    stream, width = np.random.RandomState(0), 384
    block = "encoder.layer.0."
    shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, 26, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (width,),
        f"{block}layer_scale1.lambda1": (width,),
        f"{block}layer_scale2.lambda1": (width,),
        f"{block}mlp.fc1.weight": (4 * width, width),
        f"{block}mlp.fc1.bias": (4 * width,),
        f"{block}mlp.fc2.weight": (width, 4 * width),
        f"{block}mlp.fc2.bias": (width,),
    }
    for name in ("attention.query", "attention.key", "attention.value", "output.dense"):
        shapes[f"{block}attention.{name}.weight"] = (width, width)
        shapes[f"{block}attention.{name}.bias"] = (width,)
    for name in (f"{block}norm1", f"{block}norm2", "layernorm"):
        shapes[f"{name}.weight"] = (width,)
        shapes[f"{name}.bias"] = (width,)
    return {key: stream.standard_normal(s).astype(np.float32) for key, s in shapes.items()}


def test_every_value_of_the_file_lands_in_one_place(good):
    """Total in both directions: as many numbers in as out, the ignored ones apart."""
    tensors = load_file(good)
    ignored = ("norm.", "head.")
    used = sum(value.size for key, value in tensors.items() if not key.startswith(ignored))
    parameters = load_encoder(NAME, good).parameters
    import jax

    held = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert held == used - 192  # the class token's position is added to the class token
    np.testing.assert_allclose(
        parameters["prefix"][0], tensors["cls_token"][0, 0] + tensors["pos_embed"][0, 0], atol=1e-7
    )
    np.testing.assert_array_equal(
        parameters["blocks"][7]["mlp"]["fc2"]["kernel"], tensors["blocks.7.mlp.fc2.weight"].T
    )


def test_a_file_may_end_after_the_last_layer_asked_for(tmp_path, good):
    tensors = load_file(good)
    for key in [k for k in tensors if re.match(r"blocks\.(10|11)\.", k)]:
        del tensors[key]
    path = tmp_path / "ten.safetensors"
    save_file(tensors, path)
    short = load_encoder(NAME, path, layers=range(2, 11))
    assert short.blocks == 10
    np.testing.assert_array_equal(short(images()), load_encoder(NAME, good)(images()))
    with pytest.raises(ConfigError, match="these weights end after 10"):
        short.hidden_states(images(), (12,))
    for layers in (None, (12,)):
        with pytest.raises(WeightsError, match=r"missing: blocks\.10\.\* .* blocks\.11\.\*"):
            load_encoder(NAME, path, layers=layers)


def test_metas_names_give_the_same_tokens_as_timms(tmp_path):
    """DINOv2 with registers under Meta's names, and as timm keeps it: no class position."""
    config = CATALOG["dinov2-small-reg"]
    tensors = timm_tensors(blocks=1, width=384, patch=14, side=37)
    for key in ("head.weight", "head.bias"):
        del tensors[key]
    for i in (1, 2):
        tensors[f"blocks.0.ls{i}.gamma"] = np.random.RandomState(i).rand(384).astype(np.float32)
    registers = np.random.RandomState(5).randn(1, 4, 384).astype(np.float32)
    meta = tensors | {"register_tokens": registers, "mask_token": np.zeros((1, 384), np.float32)}
    timm = tensors | {
        "reg_token": registers,
        "cls_token": tensors["cls_token"] + tensors["pos_embed"][:, :1],
        "pos_embed": np.ascontiguousarray(tensors["pos_embed"][:, 1:]),
    }
    outputs = []
    for name, content in (("meta", meta), ("timm", timm)):
        save_file(content, tmp_path / f"{name}.safetensors")
        encoder = load_encoder(config.name, tmp_path / f"{name}.safetensors", layers=(1,))
        outputs.append(np.asarray(encoder(images())))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def test_bfloat16_files_load_without_torch(tmp_path, good):
    half = {key: v.astype(ml_dtypes.bfloat16) for key, v in load_file(good).items()}
    save_file(half, tmp_path / "half.safetensors")
    full = {key: value.astype(np.float32) for key, value in half.items()}
    save_file(full, tmp_path / "full.safetensors")
    np.testing.assert_array_equal(
        load_encoder(NAME, tmp_path / "half.safetensors")(images()),
        load_encoder(NAME, tmp_path / "full.safetensors")(images()),
    )


def test_the_source_is_recorded(good, tmp_path):
    import hashlib

    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(good, folder / "model.safetensors")
    source = load_encoder(NAME, folder).source
    assert source.path == str(folder / "model.safetensors")
    assert source.sha256 == hashlib.sha256(good.read_bytes()).hexdigest()
