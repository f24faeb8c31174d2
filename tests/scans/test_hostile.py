"""Hostile files: each is one `BadInputError` that names the file, within the memory cap, under 2 s.

The kinds (the modules of `hostile/` make 500 files of them):

* PNG, JPEG, BMP, TIFF pictures cut short at many places; single bytes flipped; headers of 0 pixels,
  2^31 and more, 100000×100000, unknown depths, colours, methods; more rows announced than there
  are; decompression bombs (8000×8000, 60000×60000, text chunks); a JPEG of two thousand scans;
  a million chunks, comments, pages, values; several pictures in one file, animations; hidden
  transparency, CMYK, 16 bits; EXIF orientations; something behind the picture's end (zip, script).
* Ten foreign kinds (nothing, HTML, a program, GIF, a pickle, a script, noise, zeros, a git-lfs
  pointer, WebP) under each of eight extensions; JPEG named PNG and the reverse.
* Point-map TIFF: cut; header lies about size, bits, channels, number type, planes, tiles, volumes,
  strips (behind the end, too long, too short, none, twice), compression, predictor; several pages,
  directories in the void, tags of 2^31 values, BigTIFF; a deflate bomb inside one strip; LZW and
  deflate damage; nothing measured, one place, 1e30, wrong unit, channels first.
* NPY: cut; too many bytes; pickled objects, records, text, dates, code in the header; shapes that
  lie, overflow, are negative; headers of parentheses, of 4 GB; versions; other dimensions.
* NPZ and archives: members that climb out, are absolute, have drive letters, backslashes or control
  characters, are symbolic links, encrypted, double, of other methods; 120000 members; lying sizes,
  bombs, missing lists, an archive behind a picture.
* PCD and PLY: cut; lying counts and grids; no grid; unknown, missing and double fields; lists;
  other encodings; LZF that ends early, lies, refers to before its beginning, or is a bomb; words.
* Depth maps of the wrong kind or without a camera; cameras of zeros, words, NaN, brackets, long
  numbers; normal maps that are photographs, undefined or point away; masks in JPEG, colours, 16
  bits or another size.
* Pipes, devices, folders, broken and circular links under a picture's name; a sparse file of
  100 GB; pictures, splits and categories linked from outside the root; two files of one stem.
* Datasets: depth bounds and metadata that are missing, double, NaN or full of aliases
  and tags; splits whose paths climb out, are absolute, numbers, lists or endless; brackets, 20 MB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pirn_jax.scans import read_scan
from tests.scans import layouts
from tests.scans.hostile import clouds, pictures, points

ROOT = Path(__file__).resolve().parents[2]


def run(program, *arguments, **environment):
    result = subprocess.run(
        [sys.executable, "-m", f"tests.scans.{program}", *arguments],
        cwd=ROOT,
        # Freed memory goes back to the system at once, so that a peak belongs to its own case.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory: Linux only")
@pytest.mark.parametrize("memory", [1024, pytest.param(64, marks=pytest.mark.slow)])  # MiB
def test_every_hostile_file_is_refused_in_time_and_memory(tmp_path, memory):
    rows = run("hostile", str(tmp_path), HOSTILE_MEMORY_MIB=str(memory))
    assert len({row[0] for row in rows}) == len(rows) >= 200
    assert [row for row in rows if row[1] != "BadInputError"] == []
    assert [row for row in rows if row[2] > 2.0] == []
    assert [row for row in rows if row[3] > memory << 20] == []


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory: Linux only")
def test_the_memory_announced_bounds_the_memory_taken(tmp_path):
    rows = run("hostile.memory", str(tmp_path))
    assert len(rows) >= 10
    for name, announced, taken in rows:
        assert taken <= announced, name
        assert taken > 0.2 * announced, f"{name}: the estimate refuses what would fit"


def test_the_writers_of_the_corpus_are_sound(tmp_path):
    """A file is hostile for its one change only if the same file without it can be read."""
    for name, role, data in (
        ("a.png", "rgb", pictures.png()),
        ("a.jpg", "rgb", pictures.SOUND_JPEG),
        ("a.bmp", "rgb", pictures.SOUND_BMP),
        ("a.tif", "rgb", pictures.SOUND_TIFF_PICTURE),
        ("a.tiff", "xyz", layouts.tiff_bytes(points.XYZ)),
        ("a.npy", "xyz", points.SOUND_NPY),
        ("b.npy", "xyz", points.npy_header(points.described(), points.BODY)),
        ("a.npz", "xyz", clouds.SOUND_NPZ),
        ("a.pcd", "xyz", clouds.pcd()),
        ("b.pcd", "xyz", clouds.pcd("binary_compressed", clouds.lzf(clouds.LITERALS))),
        ("a.ply", "xyz", clouds.ply()),
    ):
        (tmp_path / name).write_bytes(data)
        scan = read_scan({role: tmp_path / name})
        if role == "xyz":
            assert np.array_equal(scan.xyz, points.XYZ), name
