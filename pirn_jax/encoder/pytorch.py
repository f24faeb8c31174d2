"""PyTorch's checkpoint files, read as data: neither PyTorch nor an unpickler takes part.

    archive/data.pkl        a pickle: dictionaries, lists, text, and where each tensor lies
    archive/data/0, 1, ...  the numbers of each storage, as they are in memory

A pickle is a program for a small stack machine. `pickletools` cuts it into its instructions and
runs none; those that build plain values are followed here, into plain values, and of the names that
it may call three are known, each by what it means: an ordered dictionary, a tensor, a parameter.
Any other instruction or name is refused. Files from before PyTorch 1.6 are no archive: five such
pickles follow one another, and then the storages.

Source: the format as `torch.save` writes it (PyTorch 2.13, `torch/serialization.py`).
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickletools import genops
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from pirn_jax.errors import BadInputError
from pirn_jax.storage import LARGEST_FILE, read_regular

MOST_INSTRUCTIONS = 1 << 20
"""Of one pickle: a checkpoint of thousands of tensors has some hundred thousand."""
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_ORDERED, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_KNOWN = {_ORDERED, _TENSOR, _PARAMETER, *(f"torch {name}" for name in _DTYPES)}
_MARK = object()
_SHARED = 4  # times that tensors may share what they hold
_WRONG = (ValueError, KeyError, TypeError, IndexError, OverflowError, zipfile.BadZipFile)


class _Name(NamedTuple):
    """What a pickle would import."""

    text: str


class _Storage(NamedTuple):
    """Where numbers lie: `key` says in which member of the archive, or in which place."""

    dtype: np.dtype
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_checkpoint(path: Path) -> dict[Any, Any]:
    """The tensors of a checkpoint by their names, as arrays, and dictionaries of such.

    What is no tensor, or lies deeper, is left out.

    Raises:
        BadInputError: it is no such file, is damaged, or would have anything else called.
    """
    file = io.BytesIO(read_regular(path, LARGEST_FILE))
    try:
        archive = zipfile.is_zipfile(file)
        file.seek(0)
        content, numbers = _read_archive(file) if archive else _read_before_archives(file)
        return _arrays(_plain(content, dict), numbers, _SHARED * len(file.getbuffer()))
    except (*_WRONG, _Refused) as error:
        raise BadInputError(
            f"is no checkpoint of plain tensors ({error})",
            "only weights can be converted; nothing in the file was run",
            path,
        ) from error


class _Refused(Exception):
    """What is refused, and why."""


Numbers = Callable[[_Storage], bytes]
"""What lies in a storage."""


def _read_archive(file: io.BytesIO) -> tuple[Any, Numbers]:
    archive = zipfile.ZipFile(file)
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise _Refused(f"{len(pickles)} members called data.pkl, where one is expected")
    folder = pickles[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
        if members[name].compress_type != zipfile.ZIP_STORED:
            raise _Refused(f"{name} is compressed, which PyTorch does not do")
        return archive.read(name)

    if f"{folder}byteorder" in members and read(f"{folder}byteorder") != b"little":
        raise _Refused("its numbers have their high byte first")
    content = _follow(io.BytesIO(read(pickles[0])))
    return content, lambda storage: read(f"{folder}data/{storage.key}")


def _read_before_archives(file: io.BytesIO) -> tuple[Any, Numbers]:
    if _follow(file) != _MAGIC:
        raise _Refused("neither an archive nor what PyTorch wrote before 1.6")
    storages: dict[str, _Storage] = {}
    _, system, content, keys = (_follow(file, storages) for _ in range(4))
    if system["little_endian"] is not True:
        raise _Refused("its numbers have their high byte first")
    numbers = {}
    for key in keys:
        file.seek(8, io.SEEK_CUR)  # how many there are, which the pickle has said
        numbers[key] = file.read(storages[key].count * storages[key].dtype.itemsize)
    return content, lambda storage: numbers[storage.key]


def _arrays(content: dict[Any, Any], numbers: Numbers, room: int) -> dict[Any, Any]:
    def array(tensor: _Tensor) -> np.ndarray:
        nonlocal room
        made = _array(tensor, numbers(tensor.storage))
        room -= made.nbytes
        if room < 0:
            raise _Refused(f"its tensors are more than {_SHARED} times what the file holds")
        return made

    def arrays(named: dict[Any, Any]) -> dict[Any, Any]:
        return {key: array(value) for key, value in named.items() if isinstance(value, _Tensor)}

    inner = {key: arrays(value) for key, value in content.items() if isinstance(value, dict)}
    return arrays(content) | inner


def _array(tensor: _Tensor, numbers: bytes) -> np.ndarray:
    (storage, offset, shape, strides), count = tensor, math.prod(tensor.shape)
    if min((offset, *shape, *strides)) < 0 or count > storage.count:
        raise _Refused(f"a tensor of {shape} in a storage of {storage.count}")
    if not count:
        return np.zeros(shape, storage.dtype)
    flat = np.frombuffer(numbers, storage.dtype)
    if offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) >= flat.size:
        raise _Refused(f"a tensor of {shape} reaches beyond its {flat.size} numbers")
    steps = [step * flat.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps).copy()


def _follow(file: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """The value that one pickle builds; the file stands behind it then.

    Args:
        file: where the pickle begins.
        storages: those that it names are added.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    given: Any

    def since_mark() -> list[Any]:
        place = next(i for i in reversed(range(-1, len(stack))) if i < 0 or stack[i] is _MARK)
        if place < 0:
            raise _Refused("values from a mark on that was not set")
        values = stack[place + 1 :]
        del stack[place:]
        return values

    for number, (instruction, given, _) in enumerate(genops(file)):
        if number > MOST_INSTRUCTIONS:
            raise _Refused(f"a pickle of more than {MOST_INSTRUCTIONS} instructions")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction.name == "NEWTRUE")
            case ("BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT") | (
                "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING"
            ):
                stack.append(given)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(instruction.name[-1])
                values = tuple(stack[-count:])
                del stack[-count:]
                stack.append(values)
            case "APPEND" | "APPENDS":
                values = since_mark() if instruction.name == "APPENDS" else [stack.pop()]
                _plain(stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                if instruction.name == "SETITEMS":
                    values = since_mark()
                else:
                    values = [stack.pop(-2), stack.pop()]
                _plain(stack[-1], dict).update(zip(values[::2], values[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[given] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[given])
            case "GLOBAL":
                stack.append(_known(given))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_known(f"{module} {name}"))
            case "BINPERSID":
                named = _storage(*stack.pop())
                stack.append(named)
                if storages is not None:
                    storages[named.key] = named
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(_called(called, arguments))
            case "BUILD":  # what else an ordered dictionary knows: versions of its modules
                stack.pop()
                _plain(stack[-1], dict)
            case other:
                raise _Refused(f"the instruction {other}")
    raise _Refused("a pickle without an end")


def _plain(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise _Refused(f"a {type(value).__name__} where a {kind.__name__} is expected")
    return value


def _known(text: str) -> _Name:
    if text not in _KNOWN:
        raise _Refused(f"it would call {text.replace(' ', '.')}")
    return _Name(text)


def _storage(
    kind: str, name: _Name, key: str, device: str, count: int, view: None = None
) -> _Storage:
    del device
    if kind != "storage" or view is not None:
        raise _Refused(f"a {kind} that is no whole storage")
    dtype = _DTYPES[_plain(name, _Name).text.removeprefix("torch ")]
    if _plain(count, int) < 0:
        raise _Refused(f"a storage of {count} numbers")
    return _Storage(dtype, _plain(key, str), count)


def _called(called: Any, arguments: Any) -> Any:
    name = _plain(called, _Name).text
    if name == _ORDERED and arguments == ():
        return {}
    if name == _PARAMETER:
        return _plain(arguments[0], _Tensor)
    if name != _TENSOR:
        raise _Refused(f"it would call {name.replace(' ', '.')}")
    storage, offset, shape, strides = arguments[:4]
    for whole in (offset, *shape, *strides):
        _plain(whole, int)
    return _Tensor(_plain(storage, _Storage), offset, tuple(shape), tuple(strides))
