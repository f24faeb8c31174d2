"""The corpus itself: `CASES[name](folder)` makes hostile files and returns what reads them."""

import contextlib
import io
import os

import numpy as np
from PIL import Image

from pirn_jax.errors import BadInputError
from pirn_jax.scans import Intrinsics, Limits, Options, read_scan
from pirn_jax.scans.formats import File
from pirn_jax.scans.formats.glance import check_file
from tests.scans import layouts

CASES = {}
CAMERA = Intrinsics(600.0, 600.0, 8.0, 6.0, depth_scale=1e-3)


def limits():
    """The caps under test: the defaults, or a memory cap in MiB from the environment."""
    small = os.environ.get("HOSTILE_MEMORY_MIB")
    return Limits(memory=int(small) << 20) if small else Limits()


def case(name):
    def keep(function):
        assert name not in CASES, name
        CASES[name] = function
        return function

    return keep


def one_file(name, role, filename, content):
    """A case of one file read in one role; content is bytes or a function that makes them."""

    @case(name)
    def build(folder):
        path = folder / filename
        path.write_bytes(content() if callable(content) else content)
        options = Options(limits=limits(), intrinsics=CAMERA)

        def attempt():
            with contextlib.suppress(BadInputError):
                check_file(File(path), options.limits)  # as before every run
            return read_scan({role: path}, options)

        return attempt


def with_photograph(name, role, filename, content):
    """A case of one file read beside a sound photograph."""

    @case(name)
    def build(folder):
        path = folder / filename
        path.write_bytes(content() if callable(content) else content)
        layouts.picture(folder / "sound.png", layouts.photograph())
        options = Options(limits=limits(), intrinsics=CAMERA)
        return lambda: read_scan({"rgb": folder / "sound.png", role: path}, options)


def beside_points(name, filename, content):
    """A case of a photograph beside sound points."""

    @case(name)
    def build(folder):
        path = folder / filename
        path.write_bytes(content() if callable(content) else content)
        np.save(folder / "sound.npy", layouts.points())
        options = Options(limits=limits())
        return lambda: read_scan({"rgb": path, "xyz": folder / "sound.npy"}, options)


def encoded(array, kind, **options):
    stream = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(stream, kind, **options)
    return stream.getvalue()


def cuts(data, shares=(0.02, 0.1, 0.25, 0.5, 0.75, 0.9)):
    """Where to cut a file short: after some shares of it, and one byte before its end."""
    return sorted({max(1, int(share * len(data))) for share in shares} | {len(data) - 1})
