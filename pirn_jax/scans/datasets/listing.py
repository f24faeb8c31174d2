"""What lies in a dataset's folders: names in order, files by stem, partners that are missing.

Listing opens no file. Hidden files, and what macOS adds to archives, are passed over; a link that
leads out of the dataset's root is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.places import exists, list_folder
from pirn_jax.scans.datasets.names import defect_of, find_splits, is_junk
from pirn_jax.scans.formats.files import File, check_inside

_MODALITIES = ("rgb", "xyz")


def split_categories(root: Path) -> list[str]:
    """Folders of the root that hold a `train` or `test` folder; "" where it does so itself."""
    if _is_category(root, root):
        return [""]
    return [name for name in subfolders(root, root) if _is_category(root / name, root)]


def _is_category(folder: Path, root: Path) -> bool:
    try:
        return bool({"train", "test"} & find_splits(subfolders(folder, root), folder).keys())
    except BadInputError:  # two folders for one split, or a link: said when it is opened
        return True


def list_defects(
    category: Path,
    root: Path,
    splits: Mapping[str, str],
    split: str,
    others: Set[Path] = frozenset(),
) -> list[tuple[str, Path]]:
    """The folders of a split: each one's defect, "good" for good parts, and where it lies.

    Args:
        category: its folder.
        root: the dataset's.
        splits: the splits' names on disk.
        split: which of them.
        others: folders that are named after no defect.

    Raises:
        BadInputError: defective parts where all must be good.
    """
    folder = category / splits.get(split, split)
    found = []
    for name in subfolders(folder, root):
        if is_junk(name) or folder / name in others:
            continue
        defect = defect_of(name, folder)
        if defect != "good" and split != "test":
            raise BadInputError(
                f"defective parts ({defect}) among the {split} scans, which must all be good",
                f"move them to {category / splits.get('test', 'test')}",
                path=str(folder / name),
            )
        found.append((defect, folder / name))
    return found


def subfolders(folder: Path, root: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are left out."""
    return sorted(
        name
        for name, inner in _listed(folder, root).items()
        if inner and not name.startswith((".", "__MACOSX"))
    )


def files_by_stem(folder: Path, root: Path, suffixes: Iterable[str]) -> dict[str, File]:
    """Files of a folder by their name without extension; extensions in any case.

    Raises:
        BadInputError: two files share a stem, so that it is not known which belongs to the scan,
            or the folder leads out of the root.
    """
    wanted = tuple(suffixes)
    found: dict[str, File] = {}
    for name in sorted(_listed(folder, root)):
        file = File(folder / name, root=root)
        if name.startswith(".") or file.suffix not in wanted:
            continue
        if file.stem in found:
            raise BadInputError(
                f"{found[file.stem].name} and {name} have the same stem",
                "keep one of them",
                path=str(folder),
            )
        found[file.stem] = file
    return found


def _listed(folder: Path, root: Path) -> dict[str, bool]:
    """What is in a folder, and whether it is a folder itself."""
    if not exists(folder) and not folder.is_symlink():
        return {}
    check_inside(folder, root)
    try:
        return list_folder(folder)
    except OSError as error:
        raise BadInputError(
            f"cannot be listed: {error.strerror}", "check the folder", path=str(folder)
        ) from error


def check_partners(
    role: str, files: Mapping[str, File], partner: str, partners: Mapping[str, File], folder: Path
) -> None:
    """Check that two roles have the same stems.

    Raises:
        BadInputError: naming the first file without its partner.
    """
    for stem, file in sorted(files.items()):
        if stem not in partners:
            raise BadInputError(
                f"no {partner} file for {file.name}: expected {folder / partner / stem}.*",
                f"restore it, or remove {file.name}",
                path=str(file),
            )
    for stem, file in sorted(partners.items()):
        if stem not in files:
            raise BadInputError(
                f"no {role} file for {file.name}: expected {folder / role / stem}.*",
                f"restore it, or remove {file.name}",
                path=str(file),
            )


def check_modalities(modalities: Sequence[str]) -> None:
    """Refuse modalities other than "rgb" and "xyz", or none.

    Raises:
        ConfigError: saying what was given.
    """
    if isinstance(modalities, str) or not modalities or set(modalities) - set(_MODALITIES):
        raise ConfigError(
            f"modalities must be some of {_MODALITIES}, got {modalities!r}",
            'for instance modalities=("rgb",)',
        )
