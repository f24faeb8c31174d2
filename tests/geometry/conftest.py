import struct
from pathlib import Path

import numpy as np
import pytest


def phoxi(folder: Path, number: int) -> np.ndarray:
    depth = np.nan_to_num(np.load(folder / f"depth_{number}.npy")[..., 0])
    row, column = np.mgrid[: depth.shape[0], : depth.shape[1]]
    x, y = (column - 255.5) / 552.5 * depth, (row - 191.75) / 552.5 * depth
    return np.stack([x, y, depth], -1).astype(np.float32)


def organised_pcd(file: Path) -> np.ndarray:
    """The x, y, z of a binary_compressed PCD of fields label x y z rgba; LZF, field by field."""
    raw = file.read_bytes()
    start = raw.index(b"DATA binary_compressed\n") + len(b"DATA binary_compressed\n")
    packed = struct.unpack("<I", raw[start : start + 4])[0]
    data, out, at = raw[start + 8 : start + 8 + packed], bytearray(), 0
    while at < len(data):
        control, at = data[at], at + 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length, at = length + data[at], at + 1
        back = len(out) - ((control & 31) << 8) - 1 - data[at]
        at += 1
        for offset in range(length + 2):
            out.append(out[back + offset])
    fields = np.frombuffer(bytes(out), "<f4").reshape(5, 480, 640)
    return np.nan_to_num(np.stack(fields[1:4], -1))


REAL = ("phoxi_0", "phoxi_1", "phoxi_2", "test42", "test5")


@pytest.fixture(params=REAL)
def real_scan(request, shared):
    """Points of a real scan, zeros where nothing was measured."""
    name = request.param
    if name.startswith("phoxi"):
        return phoxi(shared / "data" / "phoxi", int(name[-1]))
    return organised_pcd(shared / "data" / "organized_pcd" / f"{name}.pcd")
