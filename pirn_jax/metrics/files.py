"""Maps and masks in files, read one at a time and never trusted.

A set is a folder (paired by the path below it, without the ending), an .npz, or one .npy of shape
(n, H, W). Sizes are read from the header before any pixel is, pickles are refused, and only one
channel is accepted: a coloured heatmap holds no scores.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from pirn_jax.errors import BadInputError
from pirn_jax.storage import LARGEST_JSON, open_regular, read_regular

MAP_ENDINGS = (".npy", ".tif", ".tiff", ".png")
MASK_ENDINGS = (".npy", ".png", ".tif", ".tiff", ".bmp")
LARGEST = 1 << 28  # pixels of one map: 268 Mpx, 1 GiB of float32
LARGEST_SET = 1 << 31  # pixels of one array inside an .npz


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
    """Masks of a dataset by their place in it: hole/gt/000 is hole/000; photographs are none."""
    masks = {
        name.removeprefix("test/").replace("/gt/", "/"): one
        for name, one in readers.items()
        if "/gt/" in name
    }
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
    with _readable("table of scores", path):
        rows = csv.DictReader(io.StringIO(read_regular(path, LARGEST_JSON).decode(), newline=""))
        if not {"key", "score"} <= set(rows.fieldnames or ()):
            raise BadInputError(
                f"columns 'key' and 'score' expected, got {rows.fieldnames}",
                "write one row per map: its name without the ending, and its score",
                path=path,
            )
        for row in rows:
            if row["key"] in scores:
                raise BadInputError(f"key {row['key']!r} is given twice", path=path)
            scores[row["key"]] = float(row["score"])
    missing = [name for name in names if name not in scores]
    if missing:
        raise BadInputError(f"no score for {len(missing)} maps: {_some(missing)}", path=path)
    return np.array([scores[name] for name in names])


def _readers(path: Path, endings: tuple[str, ...], what: str) -> _Readers:
    if not path.exists():
        raise BadInputError(f"{what} not found", "check the path", path=path)
    if path.is_dir():
        readers: _Readers = {}
        for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in endings):
            name = file.relative_to(path).with_suffix("").as_posix()
            if name in readers:
                raise BadInputError(f"two {what} are called {name!r}", "keep one of them", path)
            readers[name] = lambda file=file: read_map(file)
    elif path.suffix.lower() == ".npz":
        readers = _npz(path)
    elif path.suffix.lower() == ".npy":
        readers = _stack(lambda: _npy(path), _npy(path))
    else:
        raise BadInputError(f"{what} must be a folder, an .npz or an .npy", path=path)
    if not readers:
        raise BadInputError(f"no {what} here ({', '.join(endings)})", "check the path", path=path)
    return readers


def _stack(read: Callable[[], np.ndarray], array: np.ndarray) -> _Readers:
    """Readers of a (n, H, W) array's parts, numbered."""
    if array.ndim != 3:
        raise BadInputError(f"an .npy set has shape (n, H, W), got {array.shape}")
    width = len(str(max(1, len(array) - 1)))
    return {f"{i:0{width}d}": lambda i=i: read()[i] for i in range(len(array))}


def _npz(path: Path) -> _Readers:
    """Every array by its name; one (n, H, W) array alone is n maps, held in memory."""
    with _readable(".npz", path), open_regular(path) as stream, zipfile.ZipFile(stream) as archive:
        members = [m.filename for m in archive.infolist() if m.filename.endswith(".npy")]
        shapes = {}
        for member in members:
            with archive.open(member) as file:
                shapes[member] = _header(file, path)

    def read(member: str) -> np.ndarray:
        with _readable(f".npz: {member}", path), np.load(path, allow_pickle=False) as archive:
            return archive[member.removesuffix(".npy")]

    if len(members) == 1 and len(shapes[members[0]]) == 3:
        if math.prod(shapes[members[0]]) > LARGEST_SET:
            raise BadInputError(
                f"an array of shape {shapes[members[0]]} would have to be held in memory",
                "save it as an .npy, which is read part by part",
                path=path,
            )
        array = read(members[0])
        return _stack(lambda: array, array)
    return {member.removesuffix(".npy"): lambda member=member: read(member) for member in members}


def _header(file: IO[bytes] | io.BufferedIOBase, path: Path) -> tuple[int, ...]:
    """Shape from an .npy header; refuses what is not plain numbers or is too large."""
    with _readable(".npy", path):
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise BadInputError(f".npy version {version} holds no plain numbers", path=path)
    if dtype.hasobject:
        raise BadInputError("holds Python objects, which are never unpickled", path=path)
    if dtype.kind not in "biuf":
        raise BadInputError(f"holds {dtype}, which are no plain numbers", path=path)
    _check_size(shape[-2:], path)
    return shape


def _check_size(shape: tuple[int, ...], path: Path) -> None:
    if math.prod(shape) > LARGEST:
        raise BadInputError(
            f"a map of {' x '.join(map(str, shape))} pixels is larger than {LARGEST} in all",
            "the header may be damaged; evaluate a larger map in parts",
            path=path,
        )


def read_map(path: Path) -> np.ndarray:
    """One map or mask from an .npy, .png, .bmp or .tiff file: (H, W), as stored.

    Raises:
        BadInputError: for a file that cannot be read, is too large, or has more than one channel.
    """
    open_regular(path).close()  # a pipe or a device would hang the decoders
    suffix = path.suffix.lower()
    if suffix == ".npy":
        array = _npy(path)
    elif suffix in (".tif", ".tiff"):
        array = _tiff(path)
    else:
        array = _picture(path)
    if array.ndim != 2:
        raise BadInputError(
            f"one channel (H, W) expected, got shape {array.shape}",
            "a coloured heatmap holds no scores: save the scores themselves",
            path=path,
        )
    return array


def _npy(path: Path) -> np.ndarray:
    """The array, mapped: its pixels are read when they are used."""
    with _readable(".npy", path):
        with open_regular(path) as file:
            _header(file, path)
        return np.load(path, mmap_mode="r", allow_pickle=False)


def _tiff(path: Path) -> np.ndarray:
    import tifffile

    with _readable("TIFF", path), tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise BadInputError(f"one page expected, got {len(file.pages)}", path=path)
        page = file.pages[0]
        _check_size(page.shape, path)
        return page.asarray()


def _picture(path: Path) -> np.ndarray:
    from PIL import Image

    with _readable("picture", path), Image.open(path) as image:
        _check_size(image.size, path)
        if image.mode == "RGB":  # a grey mask saved in colour
            channels = np.asarray(image)
            if (channels == channels[..., :1]).all():
                return channels[..., 0]
        return np.asarray(image)


@contextmanager
def _readable(kind: str, path: Path) -> Iterator[None]:
    """Whatever a decoder raises on damaged bytes, and no list of that stays whole, as our error."""
    try:
        yield
    except BadInputError:
        raise
    except Exception as error:
        raise BadInputError(f"not a readable {kind}: {error}", path=path) from error


def _zeros_like(read: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    return lambda: np.zeros(np.shape(read()), np.uint8)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
