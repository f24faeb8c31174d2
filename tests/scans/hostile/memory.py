"""How much memory sound files of each kind take, against what the readers announce.

Each file is read with a cap of one byte more than itself, whose refusal states the need, and then
with exactly that cap. Prints JSON lines: name, bytes announced, bytes at the peak.
"""

import json
import re
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans import Intrinsics, Limits, Options, read_scan
from tests.scans import layouts
from tests.scans.hostile import clouds
from tests.scans.hostile.peak import peak_memory, reset_peak

SIZE = (900, 1200)


def files(folder):
    noise = np.random.RandomState(0)
    xyz = layouts.points(0, SIZE) + noise.rand(*SIZE, 3).astype(np.float32) * 1e-3
    rgb = noise.randint(0, 256, (*SIZE, 3), np.uint8)
    grid = {"WIDTH": SIZE[1], "HEIGHT": SIZE[0], "POINTS": SIZE[0] * SIZE[1]}
    body = xyz.transpose(2, 0, 1).tobytes()
    literals = b"".join(b"\x1f" + body[at : at + 32] for at in range(0, len(body), 32))
    Image.fromarray(rgb).save(folder / "photograph.png", compress_level=1)
    Image.fromarray(rgb).save(folder / "photograph.jpg")
    Image.fromarray(rgb[..., 0]).save(folder / "grey.png", compress_level=1)
    Image.fromarray(rgb).save(folder / "photograph.tiff", compression="tiff_lzw")
    depth = (500 + noise.randint(0, 50, SIZE)).astype(np.uint16)
    Image.fromarray(depth).save(folder / "depth.png", compress_level=1)
    normals = np.zeros((*SIZE, 3), np.uint8) + np.array([128, 128, 255], np.uint8)
    normals[..., :2] += rgb[..., :2] // 64
    Image.fromarray(normals).save(folder / "normals.png", compress_level=1)
    np.save(folder / "points.npy", xyz)
    np.save(folder / "double.npy", xyz.astype(np.float64))
    with zipfile.ZipFile(
        folder / "points.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as archive:
        archive.write(folder / "points.npy", "xyz.npy")
    for compression in ("none", "deflate", "lzw"):
        data = layouts.tiff_bytes(xyz, compression, rows=100)
        (folder / f"{compression}.tiff").write_bytes(data)
    (folder / "points.pcd").write_bytes(clouds.pcd(body=xyz.tobytes(), **grid))
    packed = clouds.lzf(literals, size=len(body))
    (folder / "packed.pcd").write_bytes(clouds.pcd("binary_compressed", packed, **grid))
    notes = (f"obj_info num_cols {SIZE[1]}", f"obj_info num_rows {SIZE[0]}")
    (folder / "points.ply").write_bytes(
        clouds.ply(count=SIZE[0] * SIZE[1], notes=notes, body=xyz.tobytes())
    )
    few = layouts.points(0, (300, 400))
    text = "\n".join(" ".join(f"{v:.5f}" for v in point) for point in few.reshape(-1, 3)) + "\n"
    grid = {"WIDTH": 400, "HEIGHT": 300, "POINTS": 120_000}
    (folder / "ascii.pcd").write_bytes(clouds.pcd("ascii", text.encode(), **grid))
    roles = {"photograph": "rgb", "grey": "rgb", "depth": "depth", "normals": "normals"}
    return [(roles.get(path.stem, "xyz"), path) for path in sorted(folder.iterdir())]


def main(folder):
    for role, path in files(Path(folder)):
        camera = Intrinsics(2000.0, 2000.0, 1000.0, 750.0)

        unit = "mm" if role == "depth" else "auto"  # counts say no unit

        def read(memory, role=role, path=path, camera=camera, unit=unit):
            limits = Limits(memory=memory)
            return read_scan({role: path}, Options(unit, intrinsics=camera, limits=limits))

        announced = path.stat().st_size
        for _ in range(4):  # an archive announces itself first, then its member
            try:
                read(announced)
            except BadInputError as error:
                announced = int(re.search(r"([\d,]+) bytes", error.problem)[1].replace(",", ""))
            else:
                break
        before = reset_peak()
        read(announced)
        taken = peak_memory() - before
        sys.stdout.write(json.dumps([path.name, announced, taken]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
