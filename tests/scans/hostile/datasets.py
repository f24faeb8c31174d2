"""Foreign kinds under each name, depth, normals, masks, links, and whole hostile datasets."""

import json
import os
import pickle
import zipfile

import numpy as np

from pirn_jax.scans import Options, open_dataset, read_intrinsics, read_scan
from pirn_jax.scans.formats.files import File
from tests.scans import layouts
from tests.scans.hostile.clouds import ARCHIVES
from tests.scans.hostile.corpus import case, encoded, limits, one_file, with_photograph
from tests.scans.hostile.pictures import SOUND_BMP, SOUND_JPEG, SOUND_PNG, SOUND_TIFF_PICTURE, png
from tests.scans.hostile.points import BODY, SOUND_NPY, described, npy, npy_header

# ----------------------------------------------------------------- another kind under the name

FOREIGN = {
    "nothing": b"",
    "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 9,
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "a gif": encoded(np.zeros((12, 16), np.uint8), "GIF"),
    "a pickle": pickle.dumps({"xyz": np.zeros((4, 4, 3))}),
    "a shell script": b"#!/bin/sh\nrm -rf /\n" * 20,
    "noise": bytes(np.random.RandomState(0).randint(0, 256, 4096, np.uint8)),
    "zeros": bytes(4096),
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "a picture": encoded(layouts.photograph(), "WEBP"),
}
for suffix, role in {
    ".png": "rgb",
    ".jpg": "rgb",
    ".bmp": "rgb",
    ".tiff": "xyz",
    ".npy": "xyz",
    ".npz": "xyz",
    ".ply": "xyz",
    ".pcd": "xyz",
}.items():
    for label, content in FOREIGN.items():
        one_file(f"{label} named {suffix}", role, f"a{suffix}", content)
one_file("a jpeg named .png", "rgb", "a.png", SOUND_JPEG)
one_file("a png named .jpg", "rgb", "a.jpg", SOUND_PNG)
one_file("a photograph as point map", "xyz", "a.tiff", SOUND_TIFF_PICTURE)
one_file("a picture's extension for points", "xyz", "a.png", SOUND_PNG)
one_file("an unknown extension", "rgb", "a.svg", b"<svg/>")


# ---------------------------------------------------------- depth, normals, masks beside others

one_file("depth map of 8 bits", "depth", "a.png", encoded(np.zeros((12, 16), np.uint8), "PNG"))
one_file("depth map in colour", "depth", "a.png", SOUND_PNG)
one_file("depth map of zeros", "depth", "a.png", encoded(np.zeros((12, 16), np.uint16), "PNG"))
one_file("depth map that is a cloud", "depth", "a.npy", SOUND_NPY)
one_file("depth map of text", "depth", "a.npy", npy_header(described("(12, 16)", "'<U1'"), BODY))
one_file("depth map of NaN", "depth", "a.npy", lambda: npy(np.full((12, 16), np.nan, np.float32)))
one_file("depth map as jpeg", "depth", "a.jpg", SOUND_JPEG)


@case("depth map without its camera")
def _(folder):
    layouts.picture(folder / "a.png", np.full((12, 16), 500, np.uint16))
    return lambda: read_scan({"depth": folder / "a.png"}, Options(unit="mm", limits=limits()))


for label, text in {
    "zero focal length": '{"fx": 0, "fy": 1, "cx": 1, "cy": 1}',
    "a missing centre": '{"fx": 500, "fy": 500}',
    "words": '{"fx": "wide", "fy": 500, "cx": 1, "cy": 1}',
    "infinity": '{"fx": Infinity, "fy": 500, "cx": 1, "cy": 1}',
    "NaN": '{"fx": NaN, "fy": 500, "cx": 1, "cy": 1}',
    "a scale of kilometres": '{"fx": 500, "fy": 500, "cx": 1, "cy": 1, "depth_scale": 1000}',
    "a scale of words": '{"fx": 500, "fy": 500, "cx": 1, "cy": 1, "depth_scale": "mm"}',
    "a list": "[500, 500, 1, 1]",
    "no JSON": "fx=500",
    "a hundred thousand brackets": "[" * 100_000,
    "a number of a million digits": '{"fx": ' + "9" * 1_000_000 + "}",
    "other letters": "\xff\xfe",
}.items():

    @case(f"camera of {label}")
    def _(folder, text=text):
        (folder / "intrinsics.json").write_bytes(text.encode("latin-1"))
        return lambda: read_intrinsics(File(folder / "intrinsics.json"), limits())


one_file(
    "normals that are a photograph",
    "normals",
    "a.png",
    lambda: encoded(np.random.RandomState(1).randint(0, 90, (12, 16, 3), np.uint8), "PNG"),
)
one_file("normals that are all undefined", "normals", "a.png", png())
one_file("normals in grey", "normals", "a.png", encoded(np.zeros((12, 16), np.uint8), "PNG"))
one_file(
    "normals away from the sensor",
    "normals",
    "a.npy",
    lambda: npy(np.zeros((12, 16, 3), np.float32) + np.array([0, 0, -1], np.float32)),
)
one_file("normals of integers", "normals", "a.npy", lambda: npy(np.ones((12, 16, 3), np.int8)))
one_file("normals of NaN", "normals", "a.npy", lambda: npy(np.full((12, 16, 3), np.nan)))
COLOURS_AND_ALPHA = np.dstack(
    [layouts.photograph(), np.arange(192, dtype=np.uint8)[::-1].reshape(12, 16)]
)
for role in ("mask", "ignore"):
    for label, name, data in (
        ("as blurred jpeg", "m.jpg", encoded(np.full((12, 16), 130, np.uint8), "JPEG")),
        ("in colours and alpha", "m.png", encoded(COLOURS_AND_ALPHA, "PNG")),
        ("of another size", "m.png", encoded(np.zeros((24, 32), np.uint8), "PNG")),
        ("cut short as webp", "m.webp", encoded(np.zeros((12, 16, 3), np.uint8), "WEBP")[:30]),
        ("of floats", "m.tiff", encoded(np.zeros((12, 16), np.float32), "TIFF")),
        ("cut short", "m.png", encoded(np.zeros((12, 16), np.uint8), "PNG")[:50]),
    ):
        with_photograph(f"{role} {label}", role, name, data)
with_photograph("geometry of another size", "xyz", "a.npy", lambda: npy(layouts.points(0, (6, 8))))


# ------------------------------------------------------------------- names, links, whole datasets


@case("a pipe under a picture's name")
def _(folder):
    os.mkfifo(folder / "a.png")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a folder under a picture's name")
def _(folder):
    (folder / "a.png").mkdir()
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a device under a picture's name")
def _(folder):
    (folder / "a.png").symlink_to("/dev/zero")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a link to nothing")
def _(folder):
    (folder / "a.png").symlink_to(folder / "absent.png")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a link to itself")
def _(folder):
    (folder / "a.png").symlink_to(folder / "a.png")
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a file that does not exist")
def _(folder):
    return lambda: read_scan({"rgb": folder / "a.png"})


@case("a name with a NUL")
def _(folder):
    return lambda: read_scan({"rgb": f"{folder}/a\0.png"})


@case("a sparse file of 100 GB")
def _(folder):
    with open(folder / "a.npy", "wb") as file:
        file.truncate(100 << 30)
    return lambda: read_scan({"xyz": folder / "a.npy"})


def read_all(name, root, category, **options):
    data = open_dataset(name, root, category, limits=limits(), **options)
    for split in (data.train, data.validation, data.test):
        for scan in split:
            assert scan.key


def damaged(name, label, change, category, **options):
    """A release that is sound but for one change."""

    @case(f"{name}: {label}")
    def _(folder):
        root = folder / "data"
        getattr(layouts, name)(root, category)
        change(root)
        return lambda: read_all(name, root, category, **options)


def outside(root):
    target = root.parent / "outside"
    target.mkdir(exist_ok=True)
    (target / "000.png").write_bytes(SOUND_PNG)
    return target


def linked_file(root):
    path = root / "bagel/train/good/rgb/000.png"
    path.unlink()
    path.symlink_to(outside(root) / "000.png")


def linked_folder(root):
    path = root / "bagel/validation"
    path.rename(outside(root) / "validation")
    path.symlink_to(root.parent / "outside/validation")


def linked_category(root):
    (root / "bagel").rename(outside(root) / "bagel")
    (root / "bagel").symlink_to(root.parent / "outside/bagel")


def writes(path, text):
    return lambda root: (root / path).write_text(text)


damaged("mvtec3d", "a picture linked from outside", linked_file, "bagel")
damaged("mvtec3d", "a split linked from outside", linked_folder, "bagel")
damaged("mvtec3d", "a category linked from outside", linked_category, "bagel")
damaged(
    "mvtec3d",
    "two photographs of one stem",
    lambda root: (root / "bagel/train/good/rgb/000.bmp").write_bytes(SOUND_BMP),
    "bagel",
)
damaged(
    "mvtec2d",
    "a mask for no photograph",
    lambda root: (root / "nut/ground_truth/crack/077_mask.png").write_bytes(SOUND_PNG),
    "nut",
)
for label, text in {
    "bounds the wrong way round": "normalization:\n  max: 0.5\n  min: 0.9\n",
    "no bounds": "normalization: {}\n",
    "bounds of NaN": "normalization: {min: .nan, max: .inf}\n",
    "a bound twice": "normalization: {min: 0, min: 1, max: 2}\n",
    "negative bounds": "normalization: {min: -4.0, max: 2.0}\n",
    "bounds of kilometres": "normalization: {min: 1.0e4, max: 2.0e4}\n",
    "a hundred kilobytes": "# comment\n" * 10_000,
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
}.items():
    damaged(
        "eyecandies",
        f"depth with {label}",
        writes("Sweet/train/data/000_info_depth.yaml", text),
        "Sweet",
    )
for label, text in {
    "no truth": "bumps: 1\n",
    "an odd truth": "anomalous: 7\n",
    "an object tag": "!!python/object/apply:os.abort []\n",
}.items():
    damaged(
        "eyecandies",
        f"metadata with {label}",
        writes("Sweet/test_public/data/00_metadata.yaml", text),
        "Sweet",
    )


def d3(label, change):
    """A D3 release whose split is changed: `change(document)` alters or replaces it."""

    def rewrite(root):
        path = root / "realiad_d3_jsons/part.json"
        document = json.loads(path.read_text())
        result = change(document)
        path.write_text(json.dumps(document) if result is None else result)

    damaged("real_iad_d3", label, rewrite, "part", assume_aligned=True)


def set_path(value, field="image_path"):
    return lambda document: document["train"][0].__setitem__(field, value)


for label, value in {
    "climbs out": "../../../etc/passwd",
    "climbs out half-way": "a/../../../etc/passwd",
    "is absolute": "/etc/passwd",
    "has a drive letter": "C:/x.jpg",
    "has backslashes": "..\\..\\x.jpg",
    "is in a home folder": "~/x.jpg",
    "has a NUL": "a\0.jpg",
    "is empty": "",
    "is a dot": ".",
    "is a number": 7,
    "is a list": ["a.jpg"],
    "is endless": "a" * 5000,
}.items():
    d3(f"a photograph's path that {label}", set_path(value))
    if label in ("climbs out", "is absolute", "is a number"):
        d3(f"a point map's path that {label}", set_path(value, "xyz_path"))
        d3(f"a mask's path that {label}", set_path(value, "mask_path"))
d3("a prefix that climbs out", lambda document: document["meta"].__setitem__("prefix", "../../"))
d3("a prefix that is absolute", lambda document: document["meta"].__setitem__("prefix", "/etc/"))
d3("a prefix that is a number", lambda document: document["meta"].__setitem__("prefix", 7))
d3("a split that is a list", lambda document: "[]")
d3("a split of text samples", lambda document: json.dumps({"train": ["a", "b"]}))
d3("a split without samples", lambda document: "{}")
d3("a split cut short", lambda document: json.dumps(document)[:200])
d3("a split of brackets", lambda document: "[" * 200_000)
d3("a split of 20 MB", lambda document: json.dumps(document) + " " * (20 << 20))
d3("a sample without its class", lambda document: document["test"][0].pop("anomaly_class") and None)
d3("a defect among training samples", set_path("scratch", "anomaly_class"))
d3("a sample twice", lambda document: document["train"].append(document["train"][0]))
for label, content in ARCHIVES.items():

    def replaced(root, content=content):
        (root / "realiad_d3_raw/part.zip").write_bytes(content())

    damaged("real_iad_d3", f"archive {label}", replaced, "part", assume_aligned=True)


def flipped(root):
    path = root / "realiad_d3_raw/part.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith(".tiff"))
    data[info.header_offset + 120] ^= 0xFF
    path.write_bytes(bytes(data))


damaged("real_iad_d3", "archive with a flipped byte", flipped, "part", assume_aligned=True)
