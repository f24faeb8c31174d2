"""The shift suite: what a camera, a lamp or a fixture may do to a scan without it being a defect.

Each family changes a scan at one moderate strength; good and defective scans are changed alike,
masks never. Which way (the direction of the light, the hue, the axis) is drawn from SHA-256 of
family and key, so a scan is shifted the same on every machine, whatever its neighbours.

    gradient   the light falls off across the picture: gain from 0.75 to 1.25 along one direction
    colour     channel gains 0.85 to 1.15 of one hue, their mean 1: another colour temperature
    gamma      brightness to the power 1.35 or 1 / 1.35
    blur       out of focus: a Gaussian of 0.5 % of the shorter side
    tilt       the scan turned rigidly by 5 degrees about a horizontal axis through its centroid

The first four change the photograph alone, the last the geometry alone. None of them may be used to
augment good training scans: they stand for what training has not seen. (Pseudo-defects blur and
stain patches, and are learned from as defects.)

Dimension letters: H, W pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from pirn_jax.errors import BadInputError, ConfigError
from pirn_jax.scans import Scan

SHIFTS_VERSION = 1
"""A change of a shifted byte is a new version, and results of two versions do not compare."""

GRADIENT = 0.25
"""Gain at the bright end less one, and one less the gain at the dark end."""
COLOUR = 0.15
"""Largest deviation of a channel's gain from one."""
GAMMA = 1.35
BLUR = 0.005
"""Standard deviation, as a share of the shorter side."""
TILT = np.deg2rad(5.0)


def shift_scan(scan: Scan, family: str) -> Scan:
    """The scan under a shift.

    Args:
        scan: any scan with a key.
        family: one of `FAMILIES`.

    Returns:
        A new scan; mask, labels and key are those of the old one.

    Raises:
        ConfigError: no such family.
        BadInputError: the scan lacks what the family changes: a photograph, or geometry.
    """
    if family not in FAMILIES:
        raise ConfigError(f"shift: expected one of {', '.join(FAMILIES)}; got {family!r}")
    name = f"pirn_jax shift {SHIFTS_VERSION}|{family}|{scan.key}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))
    if family == "tilt":
        return tilted(scan, axis=rng.uniform(0, 2 * np.pi), angle=TILT)
    if scan.rgb is None:
        raise BadInputError(
            f"{scan.key}: no photograph for the shift {family}", "use tilt for geometry alone"
        )
    return scan._replace(rgb=_PHOTOGRAPH[family](scan.rgb, rng))


def shifted(scans: Iterable[Scan], family: str | None) -> Iterator[Scan]:
    """Every scan under the shift, one after the other; as they are for None."""
    return (scan if family is None else shift_scan(scan, family) for scan in scans)


def families_of(modalities: Iterable[str]) -> tuple[str, ...]:
    """The shifts that a set with these modalities ("rgb", "normals") can show."""
    have = set(modalities)
    return tuple(name for name in FAMILIES if ("normals" if name == "tilt" else "rgb") in have)


def tilted(scan: Scan, axis: float, angle: float) -> Scan:
    """The measured points turned about an axis parallel to the image plane; normals with them.

    Args:
        scan: with points or normals.
        axis: direction of the axis in the x-y plane of the camera, radians from x.
        angle: radians.

    Raises:
        BadInputError: neither points nor normals, or no measured point.
    """
    if scan.xyz is None and scan.normals is None:
        raise BadInputError(f"{scan.key}: no geometry to tilt", "use the other shifts")
    turn = _rotation(axis, angle)
    xyz, normals = scan.xyz, scan.normals
    if xyz is not None:
        measured = scan.valid & np.isfinite(xyz).all(-1) & (xyz != 0).any(-1)
        if not measured.any():
            raise BadInputError(f"{scan.key}: no measured point to tilt", "leave the scan out")
        points = xyz[measured].astype(np.float64)
        centre = points.mean(axis=0)
        xyz = xyz.copy()
        xyz[measured] = ((points - centre) @ turn.T + centre).astype(np.float32)
    if normals is not None:
        normals = (normals.astype(np.float64) @ turn.T).astype(np.float32)
    return scan._replace(xyz=xyz, normals=normals)


def _rotation(axis: float, angle: float) -> Float[np.ndarray, "3 3"]:
    """Rodrigues' formula."""
    x, y = np.cos(axis), np.sin(axis)
    cross = np.array([[0.0, 0.0, y], [0.0, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _gradient(rgb: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> np.ndarray:
    height, width = rgb.shape[:2]
    direction = rng.uniform(0, 2 * np.pi)
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    along = np.cos(direction) * columns + np.sin(direction) * rows
    gain = 1 + GRADIENT * along / np.abs(along).max()
    return _bytes(rgb * gain[..., None])


def _colour(rgb: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> np.ndarray:
    hue = rng.uniform(0, 2 * np.pi)
    return _bytes(rgb * (1 + COLOUR * np.cos(hue + np.array([0, 2, 4]) * np.pi / 3)))


def _gamma(rgb: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> np.ndarray:
    power = GAMMA if rng.random() < 0.5 else 1 / GAMMA
    return _bytes(255 * (np.arange(256) / 255) ** power)[rgb]


def _blur(rgb: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> np.ndarray:
    sigma = BLUR * min(rgb.shape[:2])
    return _bytes(gaussian_filter(rgb.astype(np.float32), (sigma, sigma, 0), mode="reflect"))


def _bytes(values: np.ndarray) -> UInt8[np.ndarray, " ..."]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_PHOTOGRAPH: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "gradient": _gradient,
    "colour": _colour,
    "gamma": _gamma,
    "blur": _blur,
}
FAMILIES = (*_PHOTOGRAPH, "tilt")
