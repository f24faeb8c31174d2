"""What people hand over to be judged: arranged in their ways, with files that do not belong."""

import numpy as np
import pytest
from PIL import Image

from pirn_jax.scans.datasets.inputs import PREDICTIONS, list_inputs
from tests.scans import layouts

RGB = layouts.photograph()
ONE, BOTH = ("rgb",), ("rgb", "xyz")


def place(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".tiff":
            layouts.point_map(path, layouts.points())
        elif path.suffix in (".png", ".webp", ".gif", ".bmp"):
            Image.fromarray(RGB).save(path)
        elif path.suffix == ".jfif":
            Image.fromarray(RGB).save(path, format="JPEG")
        else:
            path.write_bytes(b"x")
    return root


def found(root, modalities, *, paths=None, skip=None):
    inputs = list_inputs(paths or [root], modalities, skip)
    scans = {entry.key: {r: f.name for r, f in entry.files.items()} for entry in inputs.entries}
    return scans, [name for name, _ in inputs.left_out]


def test_every_kind_of_picture_is_judged(tmp_path):
    place(tmp_path, "a.png", "b.webp", "c.gif", "d.jfif")
    scans, left_out = found(tmp_path, ONE)
    assert list(scans) == ["a", "b", "c", "d"]
    assert left_out == []


@pytest.mark.parametrize("name", ["b.heic", "b.psd", "b", ".b.png", "sub/b.heic", "b.csv"])
def test_what_is_skipped_is_named(tmp_path, name):
    place(tmp_path, "a.png", name)
    scans, left_out = found(tmp_path, ONE)
    assert list(scans) == ["a"]
    assert left_out == [name]


def test_known_junk_is_quiet(tmp_path):
    place(tmp_path, "a.png", ".DS_Store", "Thumbs.db", "._a.png", "__MACOSX/a.png", "README.txt",
          "intrinsics.json", "calibration.json", "sub/desktop.ini")  # fmt: skip
    assert found(tmp_path, ONE) == ({"a": {"rgb": "a.png"}}, [])


def test_folders_of_folders_have_their_paths_as_keys(tmp_path):
    for defect in ("hole", "cut"):
        for stem in ("000", "001"):
            place(tmp_path, f"{defect}/rgb/{stem}.png", f"{defect}/xyz/{stem}.tiff",
                  f"{defect}/gt/{stem}.png")  # fmt: skip
    scans, left_out = found(tmp_path, BOTH)
    assert list(scans) == ["cut/000", "cut/001", "hole/000", "hole/001"]
    assert scans["cut/001"] == {"rgb": "001.png", "xyz": "001.tiff"}
    assert left_out == []
    files = [tmp_path / f"{defect}/rgb/000.png" for defect in ("hole", "cut")]
    assert list(found(tmp_path, ONE, paths=files)[0]) == ["cut/000", "hole/000"]
    assert list(found(tmp_path, ONE, paths=[tmp_path / "hole/rgb"])[0]) == ["000", "001"]


def test_one_folder_for_each_part(tmp_path):
    place(tmp_path, "part_17/rgb.png", "part_18/rgb.png", "line/part_19/rgb.png")
    for name in ("part_17", "part_18", "line/part_19"):
        layouts.picture(tmp_path / name / "depth.png", np.full(layouts.SIZE, 500, np.uint16))
    scans, left_out = found(tmp_path, BOTH)
    assert list(scans) == ["line/part_19", "part_17", "part_18"]
    assert scans["part_17"] == {"depth": "depth.png", "rgb": "rgb.png"}
    assert left_out == []
    alone, _ = found(tmp_path, BOTH, paths=[tmp_path / "part_17"])
    assert list(alone) == ["part_17"]


def test_a_tiff_is_a_photograph_for_a_model_that_looks_at_those_alone(tmp_path):
    place(tmp_path, "a.png", "b.tiff", "c.png", "c.tiff")
    scans, left_out = found(tmp_path, ONE)
    assert scans == {"a": {"rgb": "a.png"}, "b": {"rgb": "b.tiff"}, "c": {"rgb": "c.png"}}
    assert left_out == []
    scans, left_out = found(tmp_path, BOTH)
    assert scans == {"c": {"rgb": "c.png", "xyz": "c.tiff"}}
    assert left_out == ["a.png", "b.tiff"]


def test_one_scan_without_a_partner_keeps_no_other_from_being_judged(tmp_path):
    place(tmp_path, "a.png", "a.tiff", "b.png", "c.tiff", "d_mask.png")
    inputs = list_inputs([tmp_path], BOTH)
    assert [entry.key for entry in inputs.entries] == ["a"]
    reasons = dict(inputs.left_out)
    assert "no points" in reasons["b.png"]
    assert "no photograph" in reasons["c.tiff"]
    assert set(reasons) == {"b.png", "c.tiff", "d_mask.png"}


def test_two_photographs_of_one_stem_are_both_judged(tmp_path):
    place(tmp_path, "a.png", "a.bmp")
    assert sorted(found(tmp_path, ONE)[0].values(), key=str) == [
        {"rgb": "a.bmp"}, {"rgb": "a.png"}
    ]  # fmt: skip


def test_predictions_inside_what_is_judged_are_not_judged(tmp_path):
    place(tmp_path, "a.png", "out/a_heatmap.png", "out/a_mask.png", "out/stray.png")
    scans, _ = found(tmp_path, ONE, skip=tmp_path / "out")
    assert list(scans) == ["a"]
    place(
        tmp_path, f"out/{PREDICTIONS}", "out/manifest.json", "out/.lock"
    )  # of an earlier run, into another folder
    scans, left_out = found(tmp_path, ONE)
    assert list(scans) == ["a", "out/stray"]
    assert left_out == []
    place(tmp_path, PREDICTIONS, "a_heatmap.png")  # into the folder itself
    assert "a_heatmap" not in found(tmp_path, ONE, skip=tmp_path)[0]


def test_an_ignore_mask_serves_all_that_lie_beside_or_below_it(tmp_path):
    place(tmp_path, "ignore.png", "a.png", "sub/b.png", "c_ignore.png", "c.png")
    scans, left_out = found(tmp_path, ONE)
    assert {key: roles["ignore"] for key, roles in scans.items()} == {
        "a": "ignore.png", "sub/b": "ignore.png", "c": "c_ignore.png"
    }  # fmt: skip
    assert left_out == []


def test_a_path_that_is_not_there_and_a_linked_folder_are_named(tmp_path):
    place(tmp_path, "in/a.png", "elsewhere/b.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    scans, left_out = found(tmp_path, ONE, paths=[tmp_path / "in", tmp_path / "absent.png"])
    assert [roles["rgb"] for roles in scans.values()] == ["a.png"]
    assert left_out == ["linked/", str(tmp_path / "absent.png")]


def test_links_are_followed_where_asked_for_each_folder_once(tmp_path):
    place(tmp_path, "in/a.png", "elsewhere/b.png", "c.png")
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")
    (tmp_path / "in/d.png").symlink_to(tmp_path / "c.png")
    (tmp_path / "in/e.png").symlink_to("a.png")  # stays within
    inputs = list_inputs([tmp_path / "in"], ONE)
    assert [entry.key for entry in inputs.entries] == ["a", "e"]
    reasons = dict(inputs.left_out)
    assert set(reasons) == {"linked/", "circle/", "d.png"}
    assert all("--follow-links" in reason for reason in reasons.values())
    inputs = list_inputs([tmp_path / "in"], ONE, follow_links=True)
    assert [entry.key for entry in inputs.entries] == ["a", "d", "e", "linked/b"]
    assert inputs.left_out == ()
