"""python -m pirn_jax.metrics as a user runs it, and its loader against files that lie."""

import io
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.metrics import evaluate_maps, image_metrics
from pirn_jax.metrics.__main__ import Arguments, main
from pirn_jax.metrics.files import _readers, open_pair, read_map, read_scores
from pirn_jax.scans.formats import File


@pytest.fixture
def scene():
    generator = np.random.default_rng(0)
    masks = np.zeros((4, 20, 30), np.uint8)
    masks[1, 2:6, 3:9], masks[2, 10:18, 20:25], masks[2, 0, :4] = 255, 254, 253
    maps = (generator.normal(size=masks.shape) + (masks > 0)).astype(np.float32)
    return maps, masks


def write(folder, arrays, ending, suffix=""):
    for index, array in enumerate(arrays):
        path = folder / ("good" if index in (0, 3) else "crack") / f"{index:03d}{suffix}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if ending == ".npy":
            np.save(path, array)
        elif ending == ".tiff":
            tifffile.imwrite(path, array, compression=None)
        else:
            Image.fromarray(array).save(path)


NAMES = [1, 2, 0, 3]  # "crack" sorts before "good"


@pytest.mark.parametrize("ending", [".npy", ".tiff"])
def test_folders(tmp_path, scene, ending):
    maps, masks = scene
    write(tmp_path / "maps", maps, ending)
    write(tmp_path / "masks", masks, ".png", "_mask")
    out = tmp_path / "new" / "figures.json"
    got = main(Arguments(tmp_path / "maps", tmp_path / "masks", json=out))
    want = evaluate_maps(maps[NAMES], masks[NAMES])
    assert {name: got[name] for name in want} == want
    images = image_metrics(maps.max(axis=(1, 2)), [0, 1, 1, 0])
    assert {name: got[name] for name in images} == images
    assert json.loads(out.read_text()) == json.loads(json.dumps(got))


def test_sixteen_bit_png_maps(tmp_path, scene):
    maps, masks = scene
    grey = np.round((maps - maps.min()) * 5000).astype(np.uint16)
    write(tmp_path / "maps", grey, ".png")
    write(tmp_path / "masks", masks, ".npy")
    got = main(Arguments(tmp_path / "maps", tmp_path / "masks", limits=(0.2,)))
    want = evaluate_maps(grey[NAMES], masks[NAMES], (0.2,))
    assert {name: got[name] for name in want} == want


def test_npz_npy_and_scores(tmp_path, scene):
    maps, masks = scene
    np.save(tmp_path / "maps.npy", maps)
    np.savez_compressed(tmp_path / "masks.npz", masks)
    table = tmp_path / "scores.csv"
    table.write_text("key,score\n" + "".join(f"{i},{s}\n" for i, s in enumerate([3, 2, 4, 1])))
    paths = (tmp_path / "maps.npy", tmp_path / "masks.npz")
    got = main(Arguments(*paths, protocol="cfm99", scores=table))
    want = evaluate_maps(maps, masks, protocol="cfm99")
    assert {name: got[name] for name in want} == want
    assert got["i_auroc"] == image_metrics([3, 2, 4, 1], [0, 1, 1, 0])["i_auroc"]
    np.savez(tmp_path / "maps.npz", **{f"{i}": m for i, m in enumerate(maps)})
    named = main(Arguments(tmp_path / "maps.npz", tmp_path / "masks.npz", protocol="cfm99"))
    assert {name: named[name] for name in want} == want


def test_good_images_without_masks(tmp_path, scene):
    maps, masks = scene
    write(tmp_path / "maps", maps, ".npy")
    write(tmp_path / "masks", masks, ".png")
    for index in (0, 3):
        (tmp_path / "masks" / "good" / f"{index:03d}.png").unlink()
    with pytest.raises(BadInputError, match=r"2 of 4 maps have no mask: good/000, good/003"):
        main(Arguments(tmp_path / "maps", tmp_path / "masks"))
    got = main(Arguments(tmp_path / "maps", tmp_path / "masks", good_without_mask=True))
    assert got["p_auroc"] == evaluate_maps(maps[NAMES], masks[NAMES])["p_auroc"]


def test_only_defective_images_have_pixel_metrics_only(tmp_path, scene, capsys):
    maps, masks = scene
    np.save(tmp_path / "maps.npy", maps[1:3])
    np.save(tmp_path / "masks.npy", masks[1:3])
    got = main(Arguments(tmp_path / "maps.npy", tmp_path / "masks.npy"))
    assert "p_auroc" in got
    assert "i_auroc" not in got
    assert "image metrics are undefined" in capsys.readouterr().out


def test_as_a_command(tmp_path, scene):
    maps, masks = scene
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "masks.npy", masks)
    command = [sys.executable, "-m", "pirn_jax.metrics", "maps.npy", "masks.npy"]
    done = subprocess.run(
        [*command, "--limits", "0.3", "0.1", "--json", "out.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p), "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert "aupro_0.1" in done.stdout
    assert "jax" not in done.stderr
    assert set(json.loads((tmp_path / "out.json").read_text())) >= {"p_ap", "i_f1max", "aupro_0.3"}
    done = subprocess.run(
        [*command[:3], "nowhere", "masks.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: nowhere: maps not found")


def test_sets_that_do_not_pair(tmp_path, scene):
    maps, masks = scene
    write(tmp_path / "maps", maps[:3], ".npy")
    write(tmp_path / "masks", masks, ".png")
    with pytest.raises(BadInputError, match="1 masks have no map: good/003"):
        open_pair(tmp_path / "maps", tmp_path / "masks")
    write(tmp_path / "maps", maps, ".tiff")
    with pytest.raises(BadInputError, match="two maps are called 'crack/001'"):
        open_pair(tmp_path / "maps", tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="no maps here"):
        open_pair(tmp_path / "empty", tmp_path / "masks")
    with pytest.raises(BadInputError, match="must be a folder"):
        open_pair(tmp_path / "maps" / "good" / "000.tiff", tmp_path / "masks")


def npy_bytes(array, shape=None):
    stream = io.BytesIO()
    if shape is None:
        np.save(stream, array, allow_pickle=True)
    else:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.npy", npy_bytes(np.array([{}], object)), "never unpickled"),
        ("a.npy", npy_bytes(None, (2**20, 2**20)), "more than the cap"),
        ("a.npy", npy_bytes(None, (9, 9)), "needs 324 bytes"),
        ("a.npy", b"nothing", "not a readable NPY"),
        ("a.npy", npy_bytes(np.zeros((4, 4, 3))), "one channel"),
        ("a.png", b"nothing", "not a readable PNG"),
        ("a.tiff", b"nothing", "not a readable TIFF"),
    ],
)
def test_files_that_lie(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=message) as caught:
        read_map(File(path))
    assert caught.value.path == str(path)


def test_a_tiff_that_claims_to_be_huge(tmp_path):
    path = tmp_path / "bomb.tiff"
    tifffile.imwrite(path, np.zeros((64, 64), np.float32), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength"):
            file.pages[0].tags[tag].overwrite(1 << 15)
    with pytest.raises(BadInputError, match="more than the cap"):
        read_map(File(path))


def test_npz_that_lie(tmp_path):
    for data, message in (
        (npy_bytes(np.array([{}], object)), "never unpickled"),
        (npy_bytes(None, (1 << 20, 1 << 8, 1 << 8)), "needs 274,877,906,944 bytes"),
        (npy_bytes(None, (3, 8, 8)), "needs 768 bytes"),
    ):
        with zipfile.ZipFile(tmp_path / "maps.npz", "w") as archive:
            archive.writestr("maps.npy", data)
        with pytest.raises(BadInputError, match=message):
            open_pair(tmp_path / "maps.npz", tmp_path / "maps.npz")
    (tmp_path / "maps.npz").write_bytes(b"PK nothing")
    with pytest.raises(BadInputError, match="not a readable zip archive"):
        open_pair(tmp_path / "maps.npz", tmp_path / "maps.npz")


def test_coloured_heatmaps_are_refused_and_grey_in_colour_is_not(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_map(File(tmp_path / "grey.png")), grey)
    Image.fromarray(np.stack([grey, grey, 255 - grey], axis=2)).save(tmp_path / "jet.png")
    with pytest.raises(BadInputError, match="coloured heatmap"):
        read_map(File(tmp_path / "jet.png"))
    pages = np.zeros((3, 8, 8), np.float32)
    tifffile.imwrite(tmp_path / "pages.tiff", pages, photometric="minisblack")
    with pytest.raises(BadInputError, match="one page"):
        read_map(File(tmp_path / "pages.tiff"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,value\n", "columns 'key' and 'score'"),
        ("", "columns 'key' and 'score'"),
        ("key,score\na,1\na,2\n", "given twice"),
        ("key,score\na,high\n", "not a readable table"),
        ("key,score\na\n", "not a readable table"),
        ("key,score\nb,1\n", "no score for 1 maps: a"),
    ],
)
def test_score_tables(tmp_path, text, message):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_scores(path, ["a"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.tiff"])
def test_a_pipe_among_the_maps_is_named(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(BadInputError, match="not a regular file"):
        read_map(File(tmp_path / name))
    os.mkfifo(tmp_path / "scores.csv")
    with pytest.raises(BadInputError, match="not a regular file"):
        read_scores(tmp_path / "scores.csv", [])


def test_text_in_an_array_is_no_map(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 2), "x" * 1000))
    with pytest.raises(BadInputError, match="expected real numbers"):
        read_map(File(tmp_path / "a.npy"))


def test_parts_of_a_stack_are_read_alone_and_only_in_order(tmp_path):
    maps = np.arange(24, dtype=">f8").reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", maps)
    readers = _readers(tmp_path / "a.npy", (), "maps")
    assert list(readers) == ["0", "1"]
    np.testing.assert_array_equal(readers["1"](), maps[1])
    np.save(tmp_path / "a.npy", maps[:1])  # cut short since it was looked at
    with pytest.raises(BadInputError, match="not a readable NPY"):
        readers["1"]()
    np.save(tmp_path / "b.npy", np.asfortranarray(maps))
    with pytest.raises(BadInputError, match="in C order"):
        _readers(tmp_path / "b.npy", (), "maps")


def test_packed_maps_and_coloured_masks_mean_what_they_do_in_scans(tmp_path):
    scores = np.random.default_rng(0).random((8, 9), np.float32)
    tifffile.imwrite(tmp_path / "a.tiff", scores, compression="zlib")
    np.testing.assert_array_equal(read_map(File(tmp_path / "a.tiff")), scores)
    truth = np.zeros((8, 9, 3), np.uint8)
    truth[2:4, 3:5] = (255, 0, 0)
    for folder, array in (("maps", scores.astype(np.uint8)), ("masks", truth)):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png")
    _, masks = open_pair(tmp_path / "maps", tmp_path / "masks")
    np.testing.assert_array_equal(next(iter(masks)) > 0, truth[..., 0] > 0)


@pytest.mark.parametrize("layout", ["mvtec3d", "mvtec2d", "folder", "beside"])
@pytest.mark.parametrize("small", [False, True], ids=["same size", "smaller"])
def test_maps_of_a_run_are_matched_with_the_dataset_s_test_folder(tmp_path, layout, small):
    mask = np.zeros((12, 16), np.uint8)
    mask[3:6, 4:9] = 255
    for defect, value in (("good", mask * 0), ("hole", mask)):
        for number in range(2):
            scores = (value > 0).astype(np.float32) + np.float32(0.1 * number)
            path = tmp_path / "maps" / f"test__{defect}__{number:03}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, scores[::2, ::2] if small else scores)
            place = {
                "mvtec3d": f"test/{defect}/gt/{number:03}.png",
                "folder": f"test/{defect}/gt/{number:03}.png",
                "mvtec2d": f"ground_truth/{defect}/{number:03}_mask.png",
                "beside": f"test/{defect}/{number:03}_mask.png",
            }[layout]
            if layout not in ("mvtec2d", "beside") or defect != "good":
                (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(value).save(tmp_path / place)
            photograph = "rgb/" if layout not in ("mvtec2d", "beside") else ""
            picture = tmp_path / f"test/{defect}/{photograph}{number:03}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.dstack([value + 1] * 3)).save(picture)
    maps, masks = open_pair(tmp_path / "maps", tmp_path / "test")
    assert list(maps.names) == ["good/000", "good/001", "hole/000", "hole/001"]
    pairs = list(zip(maps, masks, strict=True))
    assert [bool(one.any()) for _, one in pairs] == [False, False, True, True]
    assert all(scores.shape == one.shape for scores, one in pairs[2:])
    if not small:
        assert np.array_equal(pairs[2][0] > 0.5, pairs[2][1] > 0)
