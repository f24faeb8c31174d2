"""Maps and masks in files, read one at a time and never trusted.

A set is a folder (paired by the path below it, without the ending), an .npz, or one .npy of shape
(n, H, W). They are read as scans are, by `pirn_jax.scans.formats`: header first, within caps, never
unpickled. A map has one channel: a coloured heatmap holds no scores. Pictures of masks mean what
they mean everywhere (`pirn_jax.scans.formats.masks`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from pirn_jax.errors import BadInputError
from pirn_jax.scans.formats import File, Limits, open_archive, read_array, read_bytes, read_mask
from pirn_jax.scans.formats.arrays import read_npy_header
from pirn_jax.scans.formats.files import Stream, decoding
from pirn_jax.scans.formats.pictures import GREY, converted, decode, open_picture
from pirn_jax.storage import LARGEST_FILE, LARGEST_JSON, open_regular, read_regular

MAP_ENDINGS = (".npy", ".tif", ".tiff", ".png")
MASK_ENDINGS = (".npy", ".png", ".tif", ".tiff", ".bmp")
LIMITS = Limits(pixels=1 << 28, memory=LARGEST_FILE)  # 268 Mpx: 1 GiB of float32
_ARRAYS = (".npy", ".tif", ".tiff")
_SAVE = "save the scores themselves, one channel, as float32 .npy"

_Readers = dict[str, Callable[[], np.ndarray]]


class FileSet:
    """Arrays behind names, in order of name; each is read when its turn comes, every time anew.

    Args:
        readers: what reads each array, by name.
    """

    def __init__(self, readers: _Readers):
        self.names = sorted(readers)
        self._readers = readers

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._readers[name]() for name in self.names)


def open_pair(maps: Path, masks: Path, good_without_mask: bool = False) -> tuple[FileSet, FileSet]:
    """Open both sets and pair them by name.

    Args:
        maps: folder of .npy, .tiff or .png maps, or an .npz, or an .npy of shape (n, H, W).
        masks: the same for masks; "_mask" at the end of a name is left off where that pairs it.
            The test folder of a dataset will do for the maps of a run.
        good_without_mask: a map without a mask is of a good image, as in MVTec AD (2D).

    Raises:
        BadInputError: for a path or file that cannot be read, or sets that do not pair.
    """
    truth = masks.parent / "ground_truth"
    in_truth = masks.name == "test" and truth.is_dir()
    if in_truth:  # MVTec AD (2D) keeps photographs in test, and no masks of good ones
        masks = truth
    map_readers = _readers(maps, MAP_ENDINGS, "maps")
    mask_readers = _readers(masks, MASK_ENDINGS, "masks")
    if not set(map_readers) & set(mask_readers):
        map_readers, mask_readers = _of_run(map_readers), _of_dataset(mask_readers)
        in_truth = in_truth or masks.name == "test"  # of a dataset, whose good scans need no masks
    for name in list(mask_readers):
        short = name.removesuffix("_mask")
        if name not in map_readers and short in map_readers and short not in mask_readers:
            mask_readers[short] = mask_readers.pop(name)
    alone = sorted(set(map_readers) - set(mask_readers))
    good = [n for n in alone if good_without_mask or (in_truth and n.startswith("good/"))]
    if len(good) < len(map_readers):
        for name in good:
            mask_readers[name] = _zeros_like(map_readers[name])
            alone.remove(name)
    if alone:
        raise BadInputError(
            f"{len(alone)} of {len(map_readers)} maps have no mask: {_some(alone)}",
            "name masks like their maps; --good-without-mask where these images are good",
            path=masks,
        )
    orphans = sorted(set(mask_readers) - set(map_readers))
    if orphans:
        raise BadInputError(
            f"{len(orphans)} masks have no map: {_some(orphans)}",
            "name maps like their masks, and put nothing else in the folders",
            path=maps,
        )
    fitted = {name: _at_size_of(read, mask_readers[name]) for name, read in map_readers.items()}
    return FileSet(fitted), FileSet(mask_readers)


def _of_run(readers: _Readers) -> _Readers:
    """Maps of a run by their place in its dataset: test__hole__000 is hole/000."""
    found = {name.replace("__", "/").removeprefix("test/"): one for name, one in readers.items()}
    return found if len(found) == len(readers) else readers


def _of_dataset(readers: _Readers) -> _Readers:
    """Masks of a dataset by their place in it; photographs are none.

    hole/gt/000 is hole/000; where a mask lies beside its photograph, hole/000_mask is.
    """
    named = {name.removeprefix("test/"): one for name, one in readers.items()}
    beside = {n for n in named if n.endswith("_mask") and n.removesuffix("_mask") in named}
    if beside:
        return {name.removesuffix("_mask"): named[name] for name in beside}
    masks = {name.replace("/gt/", "/"): one for name, one in named.items() if "/gt/" in name}
    return masks or readers


def _at_size_of(
    read: Callable[[], np.ndarray], read_mask: Callable[[], np.ndarray]
) -> Callable[[], np.ndarray]:
    """The map at its mask's size, where it is the same picture smaller, as runs keep them."""

    def fitted() -> np.ndarray:
        from PIL import Image

        scores, shape = read(), np.shape(read_mask())
        ratio = [small / large for small, large in zip(scores.shape, shape, strict=True)]
        longest = max(scores.shape, default=0)
        same = longest and abs(ratio[0] - ratio[1]) * max(shape) <= 1
        if scores.shape == shape or not same or ratio[0] > 1:
            return scores  # sizes that do not belong together are refused later
        picture = Image.fromarray(scores.astype(np.float32))
        return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))

    return fitted


def read_scores(path: Path, names: list[str]) -> np.ndarray:
    """Image scores from a CSV file with the columns "key" and "score", in the order of the names.

    Raises:
        BadInputError: for another header, a score that is no number, or keys that do not fit.
    """
    scores: dict[str, float] = {}
    with decoding(path, "table of scores", "write one row per map: its name, and its score"):
        rows = csv.DictReader(io.StringIO(read_regular(path, LARGEST_JSON).decode(), newline=""))
        if not {"key", "score"} <= set(rows.fieldnames or ()):
            raise BadInputError(
                f"columns 'key' and 'score' expected, got {rows.fieldnames}",
                "write one row per map: its name without the ending, and its score",
                path=path,
            )
        for row in rows:
            if row["key"] in scores:
                raise BadInputError(f"key {row['key']!r} is given twice", "keep one", path=path)
            scores[row["key"]] = float(row["score"])
    missing = [name for name in names if name not in scores]
    if missing:
        raise BadInputError(
            f"no score for {len(missing)} maps: {_some(missing)}", "add their rows", path=path
        )
    return np.array([scores[name] for name in names])


def _readers(path: Path, endings: tuple[str, ...], what: str) -> _Readers:
    if not path.exists():
        raise BadInputError(f"{what} not found", "check the path", path=path)
    read = read_map if what == "maps" else _read_truth
    if path.is_dir():
        readers: _Readers = {}
        for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in endings):
            name = file.relative_to(path).with_suffix("").as_posix()
            if name in readers:
                raise BadInputError(f"two {what} are called {name!r}", "keep one of them", path)
            readers[name] = lambda file=file: read(File(file))
    elif path.suffix.lower() == ".npz":
        readers = _npz(path)
    elif path.suffix.lower() == ".npy":
        readers = _stack(File(path), lambda: open_regular(path))
    else:
        raise BadInputError(
            f"{what} must be a folder, an .npz or an .npy", "check the path", path=path
        )
    if not readers:
        raise BadInputError(f"no {what} here ({', '.join(endings)})", "check the path", path=path)
    return readers


def _npz(path: Path) -> _Readers:
    """Every array by its name; one (n, H, W) array alone is n maps, held in memory."""
    with open_archive(path, LIMITS) as archive:
        members = [File(path, name) for name in archive.members if name.endswith(".npy")]
    if len(members) == 1:
        (file,) = members
        data = read_bytes(file, LIMITS)
        with decoding(file, "NPY array", _SAVE):
            shape, _, _ = read_npy_header(file, io.BytesIO(data))
        if len(shape) == 3:
            return _stack(file, lambda: io.BytesIO(data))
    return {
        str(file.member).removesuffix(".npy"): lambda file=file: read_map(file) for file in members
    }


def _stack(file: File, opened: Callable[[], Stream]) -> _Readers:
    """Readers of a (n, H, W) array's parts, numbered; none is read before its turn.

    Args:
        file: for messages.
        opened: a stream of its bytes, anew with each call.
    """
    with decoding(file, "NPY array", _SAVE), opened() as stream:
        shape, fortran, dtype = read_npy_header(file, stream)
        begin, size = stream.tell(), stream.seek(0, io.SEEK_END)
    if len(shape) != 3 or fortran or dtype.kind not in "biuf":
        raise BadInputError(
            f"expected maps as real numbers (n, H, W) in C order, got {dtype} {shape}",
            "save them as numpy.ascontiguousarray(maps, numpy.float32)",
            path=str(file),
        )
    LIMITS.check_size(file, *shape[1:])
    each = shape[1] * shape[2] * dtype.itemsize
    if size - begin != shape[0] * each:
        raise BadInputError(
            f"shape {shape} of {dtype} needs {shape[0] * each:,} bytes, the file holds "
            f"{size - begin:,}",
            "write it again",
            path=str(file),
        )

    def read(place: int) -> np.ndarray:
        with decoding(file, "NPY array", _SAVE), opened() as stream:
            stream.seek(begin + place * each)
            return np.frombuffer(stream.read(each), dtype).reshape(shape[1:])

    width = len(str(max(1, shape[0] - 1)))
    return {f"{i:0{width}d}": lambda i=i: read(i) for i in range(shape[0])}


def read_map(file: File, limits: Limits = LIMITS) -> Shaped[np.ndarray, "H W"]:
    """One map from an .npy, .png, .bmp or .tiff file, as stored.

    Raises:
        BadInputError: it cannot be read, is too large, or has more than one channel.
    """
    array = read_array(file, limits) if file.suffix in _ARRAYS else _grey(file, limits)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2:
        raise BadInputError(
            f"one channel (H, W) expected, got shape {array.shape}",
            f"a coloured heatmap holds no scores: {_SAVE}",
            path=str(file),
        )
    return array


def _grey(file: File, limits: Limits) -> Shaped[np.ndarray, "H W *c"]:
    """A picture's values; one channel where a grey picture was saved in colour."""
    picture = open_picture(file, limits, deep=(GREY,))
    if picture.mode in ("1", "L") or picture.mode.startswith("I;16"):
        return decode(file, picture)
    channels = decode(file, converted(file, picture, "RGB"))
    return channels[..., 0] if (channels == channels[..., :1]).all() else channels


def _read_truth(file: File) -> Shaped[np.ndarray, "H W"]:
    """One mask: an array as it is, a picture by the rule of masks."""
    return read_map(file) if file.suffix in _ARRAYS else read_mask(file, LIMITS)


def _zeros_like(read: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    return lambda: np.zeros(np.shape(read()), np.uint8)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
