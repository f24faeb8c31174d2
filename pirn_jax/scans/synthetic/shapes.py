"""Shapes, textures and print: what the generator's parts are drawn with.

Fields over the part's own plane: (u, v) are the part coordinates of each pixel in metres, and a
distance is signed, in metres, negative inside. What is random is drawn from the stream given, in
the order of the calls: another order is another rendering, and a new `GENERATOR_VERSION`.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

Field = Float[np.ndarray, "H W"]


def smoothstep(low: float, high: float, x: Field) -> Field:
    """0 below `low`, 1 above `high`, a smooth cubic between; `low` > `high` turns it round."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def value_noise(rng: np.random.Generator, u: Field, v: Field, cell: float) -> Field:
    """Smooth random field in [-1, 1] over the plane, features about `cell` metres wide."""
    side = 64
    lattice = 2.0 * rng.random((side, side)) - 1.0
    x, y = u / cell + side * rng.random(), v / cell + side * rng.random()
    left, top = np.floor(x), np.floor(y)
    a, b = x - left, y - top
    a, b = a * a * (3.0 - 2.0 * a), b * b * (3.0 - 2.0 * b)
    j, i = left.astype(np.int64) % side, top.astype(np.int64) % side
    j1, i1 = (j + 1) % side, (i + 1) % side
    upper = lattice[i, j] * (1.0 - a) + lattice[i, j1] * a
    lower = lattice[i1, j] * (1.0 - a) + lattice[i1, j1] * a
    return upper * (1.0 - b) + lower * b


def pores(rng: np.random.Generator, u: Field, v: Field, cell: float, largest: float) -> Field:
    """Signed distance to randomly placed discs, in cells; one disc per cell, of any radius."""
    side = 32
    place_u, place_v = rng.random((side, side)), rng.random((side, side))
    radius = largest * rng.random((side, side))
    x, y = u / cell, v / cell
    left, top = np.floor(x), np.floor(y)
    nearest = np.full_like(u, np.inf)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            j, i = left + right, top + down
            at = i.astype(np.int64) % side, j.astype(np.int64) % side
            gap = np.hypot(x - j - place_u[at], y - i - place_v[at]) - radius[at]
            nearest = np.minimum(nearest, gap)
    return nearest


def layered_noise(
    rng: np.random.Generator, u: Field, v: Field, cell: float, octaves: int = 3
) -> Field:
    """Sum of `octaves` noises, each half as wide and 0.55 times as strong; about [-1, 1]."""
    total, gain = np.zeros_like(u), 1.0
    for octave in range(octaves):
        total += gain * value_noise(rng, u, v, cell / 2**octave)
        gain *= 0.55
    return total / 1.3


def box_distance(u: Field, v: Field, half_u: float, half_v: float, corner: float) -> Field:
    """Signed distance to a rectangle with rounded corners, negative inside, metres."""
    a, b = np.abs(u) - (half_u - corner), np.abs(v) - (half_v - corner)
    outside = np.hypot(np.maximum(a, 0.0), np.maximum(b, 0.0))
    return outside + np.minimum(np.maximum(a, b), 0.0) - corner


def disc_distance(u: Field, v: Field, centres: list[tuple[float, float]], radius: float) -> Field:
    """Signed distance to the nearest of several discs, negative inside, metres."""
    gaps = [np.hypot(u - centre_u, v - centre_v) for centre_u, centre_v in centres]
    return np.minimum.reduce(gaps) - radius


def on_circle(radius: float, count: int) -> list[tuple[float, float]]:
    """`count` points evenly on a circle, the first on the u axis."""
    turns = np.arange(count) * 2 * np.pi / count
    return [(radius * np.cos(turn), radius * np.sin(turn)) for turn in turns]


def rounded_edge(distance: Field, width: float) -> Field:
    """0 outside, rising over `width` metres inside the outline to 1 along a quarter circle."""
    t = np.clip(-distance / width, 0.0, 1.0)
    return np.sqrt(t * (2.0 - t))


def coverage(distance: Field, pixel: float) -> Field:
    """Share of a pixel inside the outline: the soft edge of a sharp shape."""
    return np.clip(0.5 - distance / pixel, 0.0, 1.0)


def tinted(
    rng: np.random.Generator, colour: tuple[float, float, float], spread: float
) -> Float[np.ndarray, " 3"]:
    """The colour of this sample: brightness and hue of the batch vary."""
    brightness = np.exp(spread * rng.standard_normal())
    return np.clip(
        np.array(colour) * brightness * np.exp(0.35 * spread * rng.standard_normal(3)), 0.01, 0.95
    )


def painted(colour: Float[np.ndarray, " 3"], shade: Field) -> Float[np.ndarray, "H W 3"]:
    """One colour times a field of relative brightness."""
    return np.clip(shade[..., None] * colour, 0.0, 1.0)


# --- print: a 5 × 7 dot-matrix font, the way lot numbers are jetted onto parts ------------------

_GLYPHS = {
    "P": "1E11111E101010", "I": "0E04040404040E", "R": "1E11111E141211", "N": "11191515131111",
    "-": "0000001F000000", "0": "0E11131519110E", "1": "040C040404040E", "2": "0E11010204081F",
    "3": "1F02040201110E", "4": "02060A121F0202", "5": "1F101E0101110E", "6": "0608101E11110E",
    "7": "1F010204080808", "8": "0E11110E11110E", "9": "0E11110F01020C",
}  # fmt: skip


def lot_number(rng: np.random.Generator, digits: int) -> str:
    """Random digits: two good parts do not carry the same print."""
    return "".join(str(int(10 * rng.random())) for _ in range(digits))


def text_print(
    u: Field, v: Field, text: str, centre_u: float, centre_v: float, tall: float
) -> Field:
    """Share of each pixel covered by one line of `text`, letters `tall` metres high."""
    rows = np.zeros((9, 6 * len(text) + 1))
    for place, letter in enumerate(text):
        bits = np.array([int(_GLYPHS[letter][2 * k : 2 * k + 2], 16) for k in range(7)])
        rows[1:8, 6 * place + 1 : 6 * place + 6] = (bits[:, None] >> np.arange(4, -1, -1)) & 1
    dot = tall / 7.0
    line = (v - centre_v) / dot + 4.0
    column = (u - centre_u) / dot + rows.shape[1] / 2.0 - 0.5
    return map_coordinates(rows, [line, column], order=1, mode="constant")
