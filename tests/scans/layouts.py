"""Tiny files in exactly each released layout, written with the libraries the releases were."""

import json
import struct
import zipfile

import numpy as np
import tifffile
from PIL import Image

SIZE = (12, 16)  # rows, columns


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)


def photograph(number=0, size=SIZE):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.stack([rows * 7, columns * 5, rows + columns + number], -1).astype(np.uint8)


def points(number=0, size=SIZE, unit=1.0, missing=0.0):
    """A tilted plane 0.5 m away, 1 mm per pixel; the first row was not measured."""
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    z = 0.5 + 0.0005 * rows + 0.001 * number
    xyz = np.stack([0.001 * columns, 0.001 * rows, z], -1) * unit
    xyz[0] = missing
    return xyz.astype(np.float32)


def point_map(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, photometric="rgb")


def defect_mask(value, size=SIZE):
    mask = np.zeros(size, np.uint8)
    mask[3:6, 4:9] = value
    return mask


def mvtec3d(root, category="bagel"):
    """MVTec 3D-AD: rgb, xyz and gt folders, numbers of three digits, class_ids.json."""
    here = root / category
    number = 0
    for folder, count, value in (
        ("train/good", 3, None),
        ("validation/good", 2, None),
        ("test/good", 2, 0),
        ("test/crack", 2, 254),
        ("test/combined", 1, 255),
    ):
        for index in range(count):
            name = f"{index:03}"
            picture(here / folder / "rgb" / f"{name}.png", photograph(number))
            point_map(here / folder / "xyz" / f"{name}.tiff", points(number))
            if value is not None:
                picture(here / folder / "gt" / f"{name}.png", defect_mask(value))
            number += 1
    ids = {"255": "contamination", "254": "crack", "253": "hole", "0": "good"}
    (here / "class_ids.json").write_text(json.dumps(ids))
    (here / "calibration").mkdir()
    (here / "calibration" / "camera_parameters.json").write_text("{}")
    (here / "readme.txt").write_text("readme")
    return here


def mvtec2d(root, category="hazelnut"):
    """MVTec AD: photographs by defect, masks under ground_truth with `_mask`."""
    here = root / category
    for index in range(3):
        picture(here / "train/good" / f"{index:03}.png", photograph(index))
    for index in range(2):
        picture(here / "test/good" / f"{index:03}.png", photograph(index))
        picture(here / "test/crack" / f"{index:03}.png", photograph(index))
        picture(here / "ground_truth/crack" / f"{index:03}_mask.png", defect_mask(255))
    (here / "license.txt").write_text("licence")
    return here


EYECANDIES_DEPTH = (0.9, 1.7)


def eyecandies(root, category="GummyBear", size=SIZE):
    """Eyecandies: 17 files a sample; three-digit names in train, two-digit ones in test_public."""
    here = root / category
    for split, width, count in (("train", 3, 2), ("val", 3, 1), ("test_public", 2, 3)):
        for index in range(count):
            bad = split == "test_public" and index > 0
            _eyecandies_sample(here / split / "data" / f"{index:0{width}}", index, bad, size)
    return here


def _eyecandies_sample(stem, index, bad, size):
    stem.parent.mkdir(parents=True, exist_ok=True)

    def name(item):
        return stem.with_name(f"{stem.name}_{item}")

    for light in range(6):
        picture(name(f"image_{light}.png"), photograph(10 * light + index, size))
    depth = np.linspace(0, 65535, size[0] * size[1]).reshape(size).astype(np.uint16)
    picture(name("depth.png"), depth)
    low, high = EYECANDIES_DEPTH
    name("info_depth.yaml").write_text(f"normalization:\n  max: {high}\n  min: {low}\n")
    normals = np.zeros((*size, 3), np.uint8) + np.array([128, 200, 230], np.uint8)
    picture(name("normals.png"), normals)
    name("pose.txt").write_text("1 0 0 0\n0 0 1 2\n0 -1 0 3\n0 0 0 1\n")
    name("obj_params.yaml").write_text("object: {}\n")
    kinds = {"bumps": bad, "colors": bad and index == 2, "dents": 0, "normals": 0}
    lines = [f"{kind}: {int(value)}" for kind, value in kinds.items()]
    name("metadata.yaml").write_text("\n".join([f"anomalous: {int(bad)}", *lines]) + "\n")
    for item in ("bumps_mask", "dents_mask", "colors_mask", "normals_mask", "mask"):
        shown = bad and item in ("bumps_mask", "mask")
        picture(name(f"{item}.png"), defect_mask(255 if shown else 0, size))


D3_RGB, D3_XYZ = (24, 36), (12, 16)


def real_iad_d3(root, category="knob-cap", packed=True):
    """Real-IAD D3: JSON splits and one archive of raw files per category, millimetres and NaN."""
    prefix = f"{category}/"
    lists = {"train": [], "validation": [], "test": []}
    files = {}
    work = root / "work"
    for split, defect, count in (
        ("train", "OK", 2),
        ("validation", "OK", 1),
        ("test", "OK", 1),
        ("test", "scratch", 2),
    ):
        for index in range(count):
            sample = f"{split}_{defect}_S{index:04}"
            folder = "GOOD" if defect == "OK" else defect
            entry = {
                "anomaly_class": defect,
                "image_path": f"{folder}/rgb/{sample}/{category}_L05_RGB.jpg",
                "ps_path": f"{folder}/ps/{sample}.jpg",
                "xyz_path": f"{folder}/xyz/{sample}.tiff",
                "mask_path": None if defect == "OK" else f"{folder}/gt/rgb/{sample}.png",
            }
            lists[split].append(entry)
            picture(work / "rgb.jpg", photograph(index, D3_RGB))
            point_map(work / "xyz.tiff", points(index, D3_XYZ, unit=1000.0, missing=np.nan))
            picture(work / "mask.png", defect_mask(255, D3_RGB))
            for role, name in (("image", "rgb.jpg"), ("ps", "rgb.jpg"), ("xyz", "xyz.tiff")):
                files[prefix + entry[f"{role}_path"]] = (work / name).read_bytes()
            if entry["mask_path"]:
                files[prefix + entry["mask_path"]] = (work / "mask.png").read_bytes()
    split = root / "realiad_d3_jsons" / f"{category}.json"
    split.parent.mkdir(parents=True)
    split.write_text(json.dumps({"meta": {"prefix": prefix}, **lists}))
    raw = root / "realiad_d3_raw"
    raw.mkdir()
    if packed:
        with zipfile.ZipFile(raw / f"{category}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir(prefix.rstrip("/"))
            for name, data in files.items():
                archive.writestr(name, data)
                fork = name.rpartition("/")
                archive.writestr(f"__MACOSX/{fork[0]}/._{fork[2]}", b"\0\5\x16\7")
    else:
        for name, data in files.items():
            path = raw / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return split


def tiff_bytes(
    array, compression="none", predictor=1, rows=None, byteorder="<", shape=None, extra=()
):
    """A point-map TIFF written by hand, so that any header can be told any lie.

    LZW strips come from libtiff through Pillow. `extra` replaces or adds (tag, type, values).
    """
    import io
    import zlib

    array = np.asarray(array)
    height, width, channels = shape or array.shape
    data = array.astype(array.dtype.newbyteorder(byteorder))
    row_bytes = array.shape[1] * array.shape[2] * array.dtype.itemsize
    if predictor == 2:
        words = data.view(f"{byteorder}u{array.dtype.itemsize}").astype(np.uint64)
        words[:, 1:] -= words[:, :-1].copy()
        body = words.astype(f"{byteorder}u{array.dtype.itemsize}").tobytes()
    elif predictor == 3:
        big = array.astype(array.dtype.newbyteorder(">")).view(np.uint8)
        planes = big.reshape(array.shape[0], -1, array.dtype.itemsize).transpose(0, 2, 1)
        steps = planes.reshape(array.shape[0], -1, channels).copy()
        steps[:, 1:] -= steps[:, :-1].copy()
        body = steps.tobytes()
    else:
        body = data.tobytes()
    rows = rows or height
    strips = [body[i : i + rows * row_bytes] for i in range(0, len(body), rows * row_bytes)]
    if compression == "deflate":
        strips = [zlib.compress(strip, 1) for strip in strips]
    if compression == "lzw":
        packed = []
        for strip in strips:
            grey = np.frombuffer(strip, np.uint8).reshape(-1, row_bytes)
            stream = io.BytesIO()
            Image.fromarray(grey).save(
                stream, "TIFF", compression="tiff_lzw", tiffinfo={278: len(grey)}
            )
            stream.seek(0)
            with tifffile.TiffFile(stream) as tiff:
                page = tiff.pages.first
                assert len(page.dataoffsets) == 1
                at, count = page.dataoffsets[0], page.databytecounts[0]
            packed.append(stream.getvalue()[at : at + count])
        strips = packed
    code = {"none": 1, "lzw": 5, "deflate": 8}[compression]
    kind = {"f": 3, "u": 1, "i": 2}[array.dtype.kind]
    starts = np.cumsum([8, *[len(strip) for strip in strips[:-1]]]).tolist()
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [8 * array.dtype.itemsize] * channels),
        259: (3, [code]),
        262: (3, [2 if channels == 3 else 1]),
        273: (4, starts),
        277: (3, [channels]),
        278: (4, [rows]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [1]),
        317: (3, [predictor]),
        339: (3, [kind] * channels),
    }
    for tag, kind, values in extra:
        tags[tag] = (kind, values)
    return tiff_from(tags, b"".join(strips), byteorder)


def tiff_from(tags, body, byteorder="<", following=0):
    """A TIFF from its tags and the bytes after its 8-byte header."""
    size = {1: 1, 3: 2, 4: 4, 16: 8}
    letter = {1: "B", 3: "H", 4: "I", 16: "Q"}
    directory = 8 + len(body)
    values_at = directory + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag, (kind, content) in sorted(tags.items()):
        packed = struct.pack(f"{byteorder}{len(content)}{letter[kind]}", *content)
        entries += struct.pack(f"{byteorder}HHI", tag, kind, len(content))
        if len(content) * size[kind] <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{byteorder}I", values_at + len(values))
            values += packed
    head = struct.pack(f"{byteorder}2sHI", b"II" if byteorder == "<" else b"MM", 42, directory)
    count = struct.pack(f"{byteorder}H", len(tags))
    return head + body + count + entries + struct.pack(f"{byteorder}I", following) + values
