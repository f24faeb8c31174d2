"""Files of scans to be fuzzed: pictures, points, cameras, archives, whole data sets."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans import Intrinsics, Limits, Options, Scan, open_dataset, read_scan
from pirn_jax.scans.formats import File, read_camera_calibration, read_intrinsics, read_mask
from pirn_jax.scans.formats.glance import check_file
from tests.fuzz.judging import MEMORY, Files, Kind
from tests.scans import layouts
from tests.scans.hostile import clouds, points

LIMITS = Limits(memory=MEMORY)
CAMERA = Intrinsics(600.0, 600.0, 8.0, 6.0, depth_scale=1e-3)
_RGB = layouts.photograph()
_GREY = _RGB[..., 0]
_XYZ = points.XYZ


def encoded(array: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    """A picture's file."""
    stream, picture = io.BytesIO(), Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(stream, kind, **options)
    return stream.getvalue()


def _turned() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes()


def _deep_tiff() -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, _RGB.astype(np.uint16) * 16, photometric="rgb")
    return stream.getvalue()


def _frames() -> bytes:
    stream = io.BytesIO()
    one, two = Image.fromarray(_RGB), Image.fromarray(255 - _RGB)
    one.save(stream, "GIF", save_all=True, append_images=[two])
    return stream.getvalue()


def _glance(path: Path) -> None:
    """What is done with every file before a run; a file refused there is read all the same."""
    with contextlib.suppress(BadInputError):
        check_file(File(path), LIMITS)


def _keeps_its_promises(scan: Scan) -> None:
    assert isinstance(scan, Scan)
    assert scan.rgb is None or (scan.rgb.dtype == np.uint8 and scan.rgb.shape[2] == 3)
    assert scan.xyz is None or np.isfinite(scan.xyz).all()
    assert scan.normals is None or np.isfinite(scan.normals).all()
    assert scan.mask is None or scan.mask.dtype == np.uint8


def _as(role: str, **more: object) -> Callable[[Path], None]:
    """Reads the one file of a folder, at a glance and then as a scan's."""

    def read(folder: Path) -> None:
        (path,) = folder.iterdir()
        _glance(path)
        scan = read_scan({role: path}, Options("auto", intrinsics=CAMERA, limits=LIMITS, **more))
        _keeps_its_promises(scan)

    return read


def _mask(folder: Path) -> None:
    (path,) = folder.iterdir()
    mask = read_mask(File(path), LIMITS)
    assert mask.dtype == np.uint8
    assert mask.ndim == 2


def _camera(folder: Path) -> None:
    path = folder / "intrinsics.json"
    if path.exists():
        camera = read_intrinsics(File(path), LIMITS)
    else:
        camera = read_camera_calibration(File(folder / "calibration.json"), LIMITS).camera
    assert np.isfinite([camera.fx, camera.fy, camera.cx, camera.cy]).all()
    assert camera.fx > 0


def _dataset(name: str, category: str, **options: object) -> Callable[[Path], None]:
    """Opens a dataset and reads a training and a test scan of it."""

    def read(folder: Path) -> None:
        data = open_dataset(name, folder, category, limits=LIMITS, **options)
        for split in (data.train, data.test):
            if len(split):
                _keeps_its_promises(split[len(split) - 1])

    return read


def files_of(folder: Path, *, most: int = 1 << 20) -> Files:
    """All files below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size <= most
    }


def _released(build: Callable[[Path], object], **options: object) -> Files:
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder), **options)
        work = Path(folder) / "work"
        return {n: b for n, b in files_of(Path(folder)).items() if not n.startswith(work.name)}


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1).encode()


def kinds() -> list[Kind]:
    """All kinds of scans' files."""
    text = "\n".join(f"{x:g} {y:g} {z:g}" for x, y, z in _XYZ.reshape(-1, 3)) + "\n"
    up = np.zeros((12, 16, 3), np.float32) + np.array([0, 0, 1], np.float32)
    defect = layouts.defect_mask(255)
    see_through = np.dstack([_RGB, np.full_like(_GREY, 255)])
    plane = {"fx": 600.0, "fy": 600.0, "cx": 8.0, "cy": 6.0, "depth_scale": 0.001}
    matrix = {"intrinsic_matrix": [600, 0, 0, 0, 600, 0, 8, 6, 1], "depth_scale": 1000.0}
    pose = {"rgb": plane, "rotation": np.eye(3).tolist(), "translation": [0.1, 0, 0]}

    def one(name: str, *contents: bytes) -> list[Files]:
        return [{name: content} for content in contents]

    return [
        Kind(
            "PNG photograph",
            one(
                "a.png",
                encoded(_RGB, "PNG"),
                encoded(_GREY, "PNG"),
                encoded(_RGB, "PNG", "P"),
                encoded(see_through, "PNG"),
                encoded(_RGB, "PNG", exif=_turned()),
            ),
            _as("rgb"),
        ),
        Kind(
            "JPEG photograph",
            one(
                "a.jpg",
                encoded(_RGB, "JPEG"),
                encoded(_RGB, "JPEG", progressive=True),
                encoded(_GREY, "JPEG"),
                encoded(_RGB, "JPEG", exif=_turned(), subsampling=2, optimize=True),
            ),
            _as("rgb"),
        ),
        Kind(
            "TIFF photograph",
            one(
                "a.tiff",
                encoded(_RGB, "TIFF"),
                encoded(_RGB, "TIFF", compression="tiff_lzw"),
                encoded(_RGB, "TIFF", compression="tiff_adobe_deflate"),
                encoded(_GREY, "TIFF", compression="packbits"),
                _deep_tiff(),
            ),
            _as("rgb", white=4095),
        ),
        Kind(
            "BMP photograph",
            one("a.bmp", *(encoded(_RGB, "BMP", m) for m in ("RGB", "P", "L"))),
            _as("rgb"),
        ),
        Kind(
            "WebP photograph",
            one(
                "a.webp",
                encoded(_RGB, "WEBP"),
                encoded(_RGB, "WEBP", lossless=True),
                encoded(_RGB, "WEBP", exif=_turned()),
            ),
            _as("rgb"),
        ),
        Kind("GIF photograph", one("a.gif", encoded(_RGB, "GIF"), _frames()), _as("rgb")),
        Kind(
            "mask",
            [
                *one("a.png", *(encoded(defect, "PNG", mode) for mode in ("L", "P", "1", "RGB"))),
                *one("b.png", encoded(np.dstack([_RGB * 0, defect]), "PNG")),
                *one("a.jpg", encoded(defect, "JPEG", quality=100)),
                *one("a.bmp", encoded(defect, "BMP")),
            ],
            _mask,
        ),
        Kind(
            "depth map",
            [
                *one("a.png", encoded(np.full((12, 16), 500, np.uint16), "PNG")),
                *one("a.npy", points.npy(_XYZ[..., 2])),
                *one("a.tiff", layouts.tiff_bytes(_XYZ[..., 2:], "deflate")),
            ],
            _as("depth"),
        ),
        Kind(
            "normal map",
            [
                *one("a.npy", points.npy(up)),
                *one("a.png", encoded(np.zeros_like(_RGB) + np.uint8([128, 128, 255]), "PNG")),
            ],
            _as("normals"),
        ),
        Kind(
            "TIFF points",
            one(
                "a.tiff",
                layouts.tiff_bytes(_XYZ),
                layouts.tiff_bytes(_XYZ, "deflate", rows=5),
                layouts.tiff_bytes(_XYZ, "lzw", rows=5),
                layouts.tiff_bytes(_XYZ, "deflate", predictor=3),
                layouts.tiff_bytes(_XYZ, "lzw", predictor=2, byteorder=">"),
            ),
            _as("xyz"),
        ),
        Kind(
            "NPY points",
            one(
                "a.npy",
                points.npy(_XYZ),
                points.npy(_XYZ.astype(np.float64)),
                points.npy(np.asfortranarray(_XYZ)),
            ),
            _as("xyz"),
        ),
        Kind(
            "NPZ points",
            one(
                "a.npz",
                clouds.SOUND_NPZ,
                clouds.zipped([("xyz.npy", points.SOUND_NPY), ("more.npy", points.SOUND_NPY)], 0),
            ),
            _as("xyz"),
        ),
        Kind(
            "PCD points",
            one(
                "a.pcd",
                clouds.pcd(),
                clouds.pcd("binary_compressed", clouds.lzf(clouds.LITERALS)),
                clouds.pcd("ascii", text.encode()),
            ),
            _as("xyz"),
        ),
        Kind(
            "PLY points",
            one(
                "a.ply",
                clouds.ply(),
                clouds.ply("ascii 1.0", body=text.encode()),
                clouds.ply("binary_big_endian 1.0", body=_XYZ.astype(">f4").tobytes()),
            ),
            _as("xyz"),
        ),
        Kind(
            "camera",
            [
                *one("intrinsics.json", _json(plane), _json(matrix), _json({"intrinsics": plane})),
                *one("calibration.json", _json(pose)),
            ],
            _camera,
        ),
        Kind(
            "Real-IAD D3",
            [_released(layouts.real_iad_d3), _released(layouts.real_iad_d3, packed=False)],
            _dataset("real_iad_d3", "knob-cap", assume_aligned=True),
            share=0.1,
        ),
        Kind(
            "Eyecandies",
            [_released(layouts.eyecandies)],
            _dataset("eyecandies", "GummyBear"),
            share=0.02,
        ),
        Kind("MVTec 3D-AD", [_released(layouts.mvtec3d)], _dataset("mvtec3d", "bagel"), share=0.05),
    ]
