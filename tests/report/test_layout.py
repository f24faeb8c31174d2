"""Where the files of a run lie: names that are unique and safe, and models that are found."""

import itertools
import re

import pytest

from pirn_jax.report import layout
from pirn_jax.report.layout import ModelFolder, list_models, model_folder, picture_stem


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("test/good/000", "test__good__000"),
        ("train/hole_big/a-1.2", "train__hole_big__a-1.2"),
        ("Prüfung/größer 3", "Prüfung__größer 3"),
        ("a__b", "a%5F%5Fb"),
        ("a_/b", "a%5F__b"),
        ("../x", "%2E.__x"),
        ("C:\\x", "C%3A%5Cx"),
        ("100%", "100%25"),
        ("", "%"),
        ("\0\n\udcff", "%00%0A%ED%B3%BF"),
    ],
)
def test_a_key_as_the_name_of_a_file(key, stem):
    assert picture_stem(key) == stem


def key_of(stem: str) -> str:
    """The key of a stem that was not cut, by a parser of its own."""
    if stem == "%":
        return ""
    pieces = re.findall(r"%[0-9A-F]{2}|__|.", stem, re.DOTALL)
    found = b"".join(
        b"/"
        if piece == "__"
        else bytes.fromhex(piece[1:])
        if len(piece) == 3
        else piece.encode("utf-8", "surrogatepass")
        for piece in pieces
    )
    return found.decode("utf-8", "surrogatepass")


def test_no_two_keys_share_a_name_and_each_can_be_told_from_it():
    letters = "aA_/\\%.5\n"
    keys = ["".join(key) for n in range(6) for key in itertools.product(letters, repeat=n)]
    stems = [picture_stem(key) for key in keys]
    assert len(set(stems)) == len(keys) == 66430
    for key, stem in zip(keys, stems, strict=True):
        assert key_of(stem) == key
        assert not set('/\\:*?"<>|\n\0') & set(stem)
        assert not stem.startswith(".")


def test_long_keys_have_names_that_fit_and_differ():
    keys = [f"{folder}/{'ö' * 300}{n}" for folder in ("a", "b") for n in range(10)]
    stems = [picture_stem(key) for key in keys]
    assert len(set(stems)) == len(keys)
    assert max(len(stem.encode()) for stem in stems) <= 200
    assert all(stem.startswith(f"{key[0]}__ö") for key, stem in zip(keys, stems, strict=True))


@pytest.mark.parametrize("key", ["test/good/000", "../../secret", "/etc/passwd", "..", "a" * 999])
def test_a_scan_s_files_lie_in_its_model(tmp_path, key):
    model = model_folder(tmp_path, "flange", 0)
    assert model.map_of(key).resolve().parent == (tmp_path / "flange/seed0/maps").resolve()
    assert model.picture_of(key).resolve().parent == (tmp_path / "flange/seed0/pictures").resolve()


def test_models_are_found_by_category_and_seed(tmp_path):
    wanted = [("biscuit", 0), ("flange", 2), ("flange", 10)]
    for category, seed in reversed(wanted):
        folder = model_folder(tmp_path, category, seed)
        folder.path.mkdir(parents=True)
        assert folder.name == f"{category}/seed{seed}"
    for other in ("flange/seed", "flange/seed01", "flange/seed²", "flange/Seed1", "flange/seed-1",
                  "checkpoints/seeds", "flange/seed3x"):  # fmt: skip
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "flange/seed4").write_text("no folder")
    found = list_models(tmp_path)
    assert found == [model_folder(tmp_path, category, seed) for category, seed in wanted]
    assert all(isinstance(model, ModelFolder) for model in found)
    assert not any(model.trained for model in found)
    (found[1].path / layout.MODEL).mkdir()
    (found[1].path / layout.MODEL / layout.CONFIG).write_text("{}")
    assert [model.trained for model in found] == [False, True, False]


def test_a_folder_that_is_not_there_holds_no_models(tmp_path):
    assert list_models(tmp_path / "none") == []
