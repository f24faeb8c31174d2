"""Checkpoints of PyTorch: against PyTorch itself, and by hand where nothing of it is installed."""

import pickle
import zipfile

import numpy as np
import pytest

from pirn_jax.encoder import pytorch
from pirn_jax.encoder.pytorch import read_checkpoint
from pirn_jax.errors import BadInputError
from tests.encoder.test_weights import Bomb

TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQK\x00K\x02K\x03\x86K\x01K\x02\x86\x89"
    b"ccollections\nOrderedDict\n)RtR"
)
"""Of shape (2, 3) with strides (1, 2), in storage 0 of 6 numbers."""
CHECKPOINT = b"\x80\x02}(X\x01\x00\x00\x00w" + TENSOR + b"X\x05\x00\x00\x00epochK\x07u."
NUMBERS = np.arange(6, dtype="<f4")


def archive(path, content=CHECKPOINT, numbers=NUMBERS, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("part/data.pkl", content)
        file.writestr("part/data/0", numbers.tobytes())
    return path


def test_a_tensor_is_read_as_it_lies(tmp_path):
    found = read_checkpoint(archive(tmp_path / "a.pth"))
    assert list(found) == ["w"]  # the epoch is no tensor
    np.testing.assert_array_equal(found["w"], NUMBERS.reshape(3, 2).T)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CHECKPOINT.replace(b"K\x02K\x03\x86", b"K\x02K\x05\x86"), "in a storage of 6"),
        (CHECKPOINT.replace(b"K\x01K\x02\x86", b"K\x01K\x03\x86"), "beyond its 6 numbers"),
        (CHECKPOINT.replace(b"QK\x00", b"QJ\xff\xff\xff\xff"), "in a storage of 6"),
        (CHECKPOINT.replace(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x001"), "part/data/1"),
        (CHECKPOINT.replace(b"FloatStorage", b"QInt8Storage"), "would call torch.QInt8Storage"),
        (CHECKPOINT.replace(b"collections\nOrderedDict", b"os\nsystem"), "would call os.system"),
        (CHECKPOINT.replace(b"ccollections\nOrderedDict\n)R", b"(i__main__\nX\n"), "INST"),
        (CHECKPOINT[:-1], "pickle exhausted|without an end"),
        (b"\x80\x02u.", "from a mark on that was not set"),
        (b"\x80\x02K\x07.", "a int where a dict is expected"),
        (b"no pickle", "opcode|instruction"),
        (pickle.dumps({"w": NUMBERS}, 2), "would call numpy"),
    ],
)
def test_what_is_no_plain_checkpoint_is_refused_and_named(tmp_path, content, message):
    path = archive(tmp_path / "a.pth", content)
    with pytest.raises(BadInputError, match=message) as caught:
        read_checkpoint(path)
    assert "nothing in the file was run" in caught.value.remedy
    assert caught.value.path == str(path)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_never_run(tmp_path, protocol):
    for number, whole in enumerate((True, False)):
        victim, path = tmp_path / "executed", tmp_path / f"{number}.pth"
        payload = pickle.dumps({"w": Bomb(victim)}, protocol)
        archive(path, payload) if whole else path.write_bytes(payload)
        with pytest.raises(BadInputError, match="no checkpoint of plain tensors"):
            read_checkpoint(path)
        assert not victim.exists()


def test_what_would_fill_memory_is_refused(tmp_path, monkeypatch):
    with pytest.raises(BadInputError, match="is compressed"):
        read_checkpoint(archive(tmp_path / "a.pth", compression=zipfile.ZIP_DEFLATED))
    larger = TENSOR.replace(b"cpuK\x06", b"cpuK\xc8").replace(b"K\x03\x86", b"K\x64\x86")
    again = b"".join(b"X\x04\x00\x00\x00%04dh\x00" % place for place in range(1000))
    many = b"\x80\x02}(X\x01\x00\x00\x00w" + larger + b"q\x00" + again + b"u."
    with pytest.raises(BadInputError, match="4 times what the file holds"):
        read_checkpoint(archive(tmp_path / "b.pth", many, np.zeros(200, "<f4")))
    monkeypatch.setattr(pytorch, "MOST_INSTRUCTIONS", 5)
    with pytest.raises(BadInputError, match="more than 5 instructions"):
        read_checkpoint(archive(tmp_path / "d.pth"))


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_what_pytorch_saves_is_read(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    numbers = torch.randn(4, 6)
    content = {
        "model": network.state_dict(),
        "turned": numbers.T,
        "part": numbers[1:, ::2],
        "parameter": torch.nn.Parameter(numbers.double()),
        "half": numbers.half(),
        "brain": numbers.bfloat16(),
        "whole": torch.arange(7),
        "true": numbers > 0,
        "one": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
        "options": {"rate": 0.1, "names": ["a", ("b", None)]},
    }
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(path)
    assert found.pop("options") == {}
    expected = {name: value for name, value in content.items() if name != "options"}
    assert found.keys() == expected.keys()
    expected |= expected.pop("model")
    found |= found.pop("model")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        own = value.detach()
        assert found[name].shape == tuple(own.shape)
        assert str(own.dtype).removeprefix("torch.") == found[name].dtype.name
        np.testing.assert_array_equal(found[name].astype(np.float64), own.double().numpy())


@pytest.mark.torch
def test_a_file_that_was_cut_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save({"w": torch.randn(100)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for end in range(0, len(whole), 37):
            path.write_bytes(whole[:end])
            with pytest.raises(BadInputError, match="no checkpoint of plain tensors"):
                read_checkpoint(path)
