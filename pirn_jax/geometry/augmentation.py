"""Augmentation: a shot under another light, moved, turned or spoiled, to learn more from one part.

Augmentations are a tuple; the shot itself comes first and is not among them. What is random in one
is drawn from the seed, the shot's own pixels and its number: neither the order of the shots nor
their number changes what comes out.

Turning a picture of normals turns the vectors as well: they live in the camera's frame, x right and
y down as in the picture. Points turn about their mean; a shift changes where they lie in the
picture, and not their coordinates. Photometric augmentation changes the photograph; of the normals
it makes repeated measurements, with noise on the vectors. Of good copies none has a lighting
gradient, another colour, gamma or blur: under these the detectors are tested for robustness.

Source: rotations of the shots in 45° steps: Damm et al. 2025 (AnomalyDINO, arXiv 2405.14529).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from pirn_jax.geometry.pseudo_defects import spoil
from pirn_jax.geometry.vectors import picture_of, vectors_of
from pirn_jax.geometry.views import Views

VERSION = 2  # raised when the same augmentations and seed give other pixels
_LEAST_COVER = 0.5  # of a pixel must come from valid ones for it to be valid
_JITTER_DEGREES, _JITTER_SHIFT = 15.0, 0.05


class Augmentation(NamedTuple):
    """One way to augment a shot.

    Attributes:
        kind: "photometric"; "grey"; "move", of the picture's plane; "jitter", a small move drawn at
            random; or "spoiled", with pseudo-defects (pirn_jax.geometry.pseudo_defects): the only
            one that is no good part.
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

    @property
    def turned(self) -> bool:
        """Whether it turns the picture by more than parts that lie in one pose differ by."""
        return abs(self.degrees) > _JITTER_DEGREES


Augmentations = tuple[Augmentation, ...]


def photometric(count: int) -> Augmentations:
    """So many times another light and sensor."""
    return (Augmentation("photometric"),) * count


def jitter(count: int) -> Augmentations:
    """So many times a turn of up to 15° and a shift of up to a twentieth of the sides."""
    return (Augmentation("jitter"),) * count


def rotations(count: int) -> Augmentations:
    """The picture turned in equal steps to so many positions, the first of which is its own."""
    return tuple(Augmentation("move", degrees=360.0 * step / count) for step in range(1, count))


def spoiled(count: int) -> Augmentations:
    """So many times with pseudo-defects."""
    return (Augmentation("spoiled"),) * count


def augment(views: Views, augmentations: Augmentations, seed: int) -> Iterator[Views]:
    """The views, then one more for each augmentation, in their order.

    Args:
        views: of a shot; masks of defects are not kept.
        augmentations: which.
        seed: of what is random in them.
    """
    yield views
    if not augmentations:
        return
    digest = hashlib.sha256()
    for picture in (views.rgb, views.picture("normals"), views.valid):
        digest.update(b"" if picture is None else np.ascontiguousarray(picture).tobytes())
    own = int.from_bytes(digest.digest()[:8], "big")
    for number, augmentation in enumerate(augmentations):
        random = np.random.default_rng((seed, own, number))
        if augmentation.kind == "move":
            yield _moved(views, augmentation)
        elif augmentation.kind == "jitter":
            degrees = random.uniform(-_JITTER_DEGREES, _JITTER_DEGREES)
            down, right = random.uniform(-_JITTER_SHIFT, _JITTER_SHIFT, 2)
            yield _moved(views, Augmentation("move", degrees, (down, right), reflect=True))
        elif augmentation.kind == "grey":
            yield views._replace(rgb=None if views.rgb is None else _grey(views.rgb))
        elif augmentation.kind == "spoiled":
            yield spoil(views, random)
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
    """Contrast, brightness, sharpness, noise, quantisation: each half of the time, one at least.

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
    vectors, defined = vectors_of(normals)
    noise = random.uniform(0.0, 0.05) * random.standard_normal(normals.shape)
    return picture_of(vectors + noise.astype(np.float32), defined)


def _moved(views: Views, move: Augmentation) -> Views:
    angle = np.deg2rad(move.degrees)
    cos, sin = round(float(np.cos(angle)), 12), round(float(np.sin(angle)), 12)
    # Of (right, down): counter-clockwise, as one sees it, takes right to up, which is -down.
    turn = np.array([[cos, sin], [-sin, cos]]) @ np.diag([-1.0 if move.mirror else 1.0, 1.0])
    back = turn.T[::-1, ::-1]  # from the result's pixels (down, right) to the shot's
    part = views.frame.inside if move.reflect else (slice(None), slice(None))

    def carry(field: np.ndarray, order: int = 1) -> np.ndarray:
        result = field.astype(np.float32)
        size = np.array(result[part].shape)
        middle = (size - 1) / 2
        place = np.column_stack([back, middle - back @ (middle + np.array(move.shift) * size)])
        mode = "mirror" if move.reflect else "constant"
        result[part] = ndimage.affine_transform(
            result[part], place, order=order, mode=mode, prefilter=False
        )
        return result

    def carry_all(fields: np.ndarray, order: int = 1) -> np.ndarray:
        every = range(fields.shape[-1])
        return np.stack([carry(fields[..., i], order) for i in every], axis=-1)

    rgb = normals = None
    if views.rgb is not None:
        rgb = np.clip(carry_all(views.rgb), 0, 1)
    if views.normals is not None:
        vectors, defined = vectors_of(views.normals)
        moved = carry_all(vectors)
        moved[..., :2] = moved[..., :2] @ turn.T.astype(np.float32)
        normals = picture_of(moved, carry(defined) >= _LEAST_COVER)
    ignore = None if views.ignore is None else carry(views.ignore) > 0
    valid = carry(views.valid) >= _LEAST_COVER
    points = None
    if views.points is not None:
        points = _turned(carry_all(views.points, order=0), turn.astype(np.float32))
        points = np.where(valid[..., None], points, np.float32(0))
    return Views(rgb, normals, valid, None, ignore, views.frame, points=points)


def _turned(
    points: Float32[np.ndarray, "h w 3"], turn: Float32[np.ndarray, "2 2"]
) -> Float32[np.ndarray, "h w 3"]:
    """Points turned and mirrored about their mean as the picture is; zeros stay."""
    measured = (points != 0).any(-1)
    moved = points.copy()
    across = points[measured][:, :2]
    middle = across.mean(0) if len(across) else np.zeros(2, np.float32)
    moved[measured, :2] = middle + (across - middle) @ turn.T
    return moved
