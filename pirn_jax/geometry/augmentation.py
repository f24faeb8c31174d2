"""Copies of a shot: the same good part under another light, or turned, to learn more from it.

A plan is a tuple of copies; the shot itself comes first and is not in the plan. What is random in a
copy is drawn from the seed, the shot's own pixels and the copy's number: neither the order of the
shots nor their number changes a copy.

Turning a picture of normals turns the vectors as well: they live in the camera's frame, x right and
y down as in the picture. Photometric copies change the photograph; of the normals they are repeated
measurements, with noise on the vectors. Lighting gradients, colour, gamma and blur are left out on
purpose: under these the detectors are tested for robustness.

Source: the 22 of INP-Former: Luo et al. 2025, its released few-shot code; rotations of the shots in
45° steps: Damm et al. 2025 (AnomalyDINO, arXiv 2405.14529).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from pirn_jax.geometry import Views

VERSION = 2  # raised when a copy of the same plan and seed becomes another
_LEAST_COVER = 0.5  # of a pixel must come from valid ones for it to be valid
_NUDGE_DEGREES, _NUDGE_SHIFT = 15.0, 0.05


class Copy(NamedTuple):
    """One way to copy a shot.

    Attributes:
        kind: "photometric"; "grey"; "move", of the picture's plane; or "nudge", a small move drawn
            at random.
        degrees: of a move, counter-clockwise as one looks at the picture.
        shift: of a move, (down, right), as shares of the picture's sides.
        mirror: of a move: left and right are swapped first.
        reflect: of a move: what comes from outside the photograph is its reflection, and padding
            stays where it is; otherwise it is black and not valid.
    """

    kind: str
    degrees: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    mirror: bool = False
    reflect: bool = False


Plan = tuple[Copy, ...]


def photometric(count: int) -> Plan:
    """So many photometric copies."""
    return (Copy("photometric"),) * count


def nudges(count: int) -> Plan:
    """So many copies turned by up to 15° and shifted by up to a twentieth of the sides."""
    return (Copy("nudge"),) * count


def rotations(count: int) -> Plan:
    """The picture turned in equal steps to so many positions, the first of which is its own."""
    return tuple(Copy("move", degrees=360.0 * step / count) for step in range(1, count))


def inp_former_copies() -> Plan:
    """The 21 copies that INP-Former trains on beside each shot."""
    sixteenth = 180 / 16
    turned = [Copy("move", sixteenth * n, reflect=True) for n in (-4, -3, -2, -1, 1, 2, 3, 4)]
    shifted = [
        Copy("move", shift=(down, right), reflect=True)
        for size in (0.2, 0.1)
        for down, right in itertools.product((size, -size), repeat=2)
    ]
    quarters = [Copy("move", 90.0 * n) for n in (1, 2, 3)]
    return (*turned, *shifted, Copy("move", mirror=True), Copy("grey"), *quarters)


def with_copies(views: Views, plan: Plan, seed: int) -> Iterator[Views]:
    """The views, then their copies in the order of the plan.

    Args:
        views: of a shot; masks of defects are not kept.
        plan: which copies.
        seed: of what is random in them.
    """
    yield views
    if not plan:
        return
    digest = hashlib.sha256()
    for picture in (views.rgb, views.normals, views.valid):
        digest.update(b"" if picture is None else np.ascontiguousarray(picture).tobytes())
    own = int.from_bytes(digest.digest()[:8], "big")
    for number, copy in enumerate(plan):
        random = np.random.default_rng((seed, own, number))
        if copy.kind == "move":
            yield _moved(views, copy)
        elif copy.kind == "nudge":
            degrees = random.uniform(-_NUDGE_DEGREES, _NUDGE_DEGREES)
            down, right = random.uniform(-_NUDGE_SHIFT, _NUDGE_SHIFT, 2)
            yield _moved(views, Copy("move", degrees, (down, right), reflect=True))
        elif copy.kind == "grey":
            yield views._replace(rgb=None if views.rgb is None else _grey(views.rgb))
        else:
            rgb = None if views.rgb is None else _relit(views.rgb, random)
            normals = None if views.normals is None else _noisy(views.normals, random)
            yield views._replace(rgb=rgb, normals=normals)


def _grey(rgb: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    luma = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat(luma[..., None], 3, axis=-1)


def _relit(
    rgb: Float32[np.ndarray, "h w 3"], random: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """Contrast, brightness, sharpness, noise, quantisation: each in one copy of two, one at least.

    Pixels that are black, as the background is, stay so.
    """
    chosen = random.random(5) < 0.5
    chosen[random.integers(5)] = True
    contrast, brightness, sharpness, noise, steps = (
        random.uniform(low, high)
        for low, high in ((0.7, 1.3), (-0.15, 0.15), (0.5, 1.5), (0.01, 0.05), (8, 32))
    )
    grain = random.standard_normal(rgb.shape).astype(np.float32)
    shown = rgb.max(-1) > 0
    result = rgb
    if chosen[0]:
        mean = rgb[shown].mean() if shown.any() else 0.0
        result = mean + contrast * (result - mean)
    if chosen[1]:
        result = result + brightness
    if chosen[2]:
        smooth = ndimage.gaussian_filter(result, (1.0, 1.0, 0.0), mode="reflect")
        result = result + sharpness * (result - smooth)
    if chosen[3]:
        result = result + noise * grain
    if chosen[4]:
        result = np.round(result * steps) / steps
    return np.where(shown[..., None], np.clip(result, 0, 1), 0).astype(np.float32)


def _noisy(
    normals: Float32[np.ndarray, "h w 3"], random: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    vectors, defined = _decoded(normals)
    noise = random.uniform(0.0, 0.05) * random.standard_normal(normals.shape)
    return _encoded(vectors + noise.astype(np.float32), defined)


def _moved(views: Views, copy: Copy) -> Views:
    angle = np.deg2rad(copy.degrees)
    cos, sin = round(float(np.cos(angle)), 12), round(float(np.sin(angle)), 12)
    # Of (right, down): counter-clockwise, as one sees it, takes right to up, which is -down.
    turn = np.array([[cos, sin], [-sin, cos]]) @ np.diag([-1.0 if copy.mirror else 1.0, 1.0])
    back = turn.T[::-1, ::-1]  # from the copy's pixels (down, right) to the shot's
    part = views.frame.inside if copy.reflect else (slice(None), slice(None))

    def move(field: np.ndarray) -> np.ndarray:
        result = field.astype(np.float32)
        size = np.array(result[part].shape)
        middle = (size - 1) / 2
        place = np.column_stack([back, middle - back @ (middle + np.array(copy.shift) * size)])
        mode = "mirror" if copy.reflect else "constant"
        result[part] = ndimage.affine_transform(
            result[part], place, order=1, mode=mode, prefilter=False
        )
        return result

    def move_all(fields: np.ndarray) -> np.ndarray:
        return np.stack([move(fields[..., i]) for i in range(fields.shape[-1])], axis=-1)

    rgb = normals = None
    if views.rgb is not None:
        rgb = np.clip(move_all(views.rgb), 0, 1)
    if views.normals is not None:
        vectors, defined = _decoded(views.normals)
        moved = move_all(vectors)
        moved[..., :2] = moved[..., :2] @ turn.T.astype(np.float32)
        normals = _encoded(moved, move(defined) >= _LEAST_COVER)
    ignore = None if views.ignore is None else move(views.ignore) > 0
    valid = move(views.valid) >= _LEAST_COVER
    return Views(rgb, normals, valid, None, ignore, views.frame)


def _decoded(
    normals: Float32[np.ndarray, "h w 3"],
) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    """Unit vectors, 0 where there are none, and where they are."""
    defined = np.any(normals > 0, axis=-1)
    vectors = np.where(np.expand_dims(defined, -1), 2 * normals - 1, 0)
    return vectors.astype(np.float32), np.asarray(defined)


def _encoded(
    vectors: Float32[np.ndarray, "h w 3"], defined: Bool[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 3"]:
    length = np.linalg.norm(vectors, axis=-1)
    defined = defined & (length > 1e-3)
    unit = vectors / np.where(defined, length, 1)[..., None]
    return np.where(defined[..., None], np.clip((unit + 1) / 2, 0, 1), 0).astype(np.float32)
