"""Point maps in TIFF, NPY and NPZ against tifffile and numpy."""

import io

import numpy as np
import pytest
import tifffile

from pirn_jax.errors import BadInputError
from pirn_jax.scans import read_scan
from tests.scans import layouts

XYZ = layouts.points() + np.random.RandomState(0).rand(12, 16, 3).astype(np.float32) * 1e-4


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw"])
@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 5, 12])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_tiff_encoding_of_points(tmp_path, compression, predictor, rows, byteorder, dtype):
    array = XYZ.astype(dtype)
    data = layouts.tiff_bytes(array, compression, predictor, rows, byteorder)
    (tmp_path / "a.tiff").write_bytes(data)
    if compression == "none" and predictor != 1:  # read differently by libtiff and tifffile
        with pytest.raises(BadInputError, match="predictor without compression"):
            read_scan({"xyz": tmp_path / "a.tiff"})
        return
    scan = read_scan({"xyz": tmp_path / "a.tiff"})
    assert np.array_equal(scan.xyz, array.astype(np.float32))
    if compression != "lzw" and predictor != 3:  # those need a further package in tifffile
        assert np.array_equal(tifffile.imread(io.BytesIO(data)), array)


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"rowsperstrip": 2}, {"bigtiff": True}]
)
def test_tiffs_written_by_tifffile(tmp_path, options):
    tifffile.imwrite(tmp_path / "a.tiff", XYZ, photometric="rgb", **options)
    assert np.array_equal(read_scan({"xyz": tmp_path / "a.tiff"}).xyz, XYZ)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_and_npz(tmp_path, dtype, order):
    array = np.asarray(XYZ.astype(dtype), order=order)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", xyz=array, other=np.zeros(3))
    np.savez_compressed(tmp_path / "c.npz", anything=array)
    for name in ("a.npy", "b.npz", "c.npz"):
        assert np.array_equal(read_scan({"xyz": tmp_path / name}).xyz, array.astype(np.float32))
