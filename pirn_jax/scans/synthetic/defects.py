"""The defects of the generator: each changes a good surface inside an exact mask.

Texture only: stain, print_missing, scratch; the relief stays as it was. Geometry only: dent, bump,
warp; the photograph shows them by their shading alone. Both: crack, hole, contamination.

A flaw is given a strength (0 invisible, 1 plain) and a share of the part's visible area, and
changes that share, to the pixel. Its random stream is its own, so that a defective part and its
good twin differ in nothing else.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pirn_jax.scans.synthetic.parts import Surface
from pirn_jax.scans.synthetic.scene import View
from pirn_jax.scans.synthetic.shapes import Field, layered_noise, smoothstep, value_noise

Mask = Bool[np.ndarray, "H W"]
Damage = tuple[Surface, Mask]


class Site(NamedTuple):
    """Where and how much to damage.

    Attributes:
        rng: the flaw's own random stream.
        surface: the good surface.
        part: the pixels of the part.
        u, v: part coordinates of each pixel, metres.
        pixel: metres per pixel.
        share: the share of the part's pixels to change.
        strength: 0 invisible, 1 plain.
    """

    rng: np.random.Generator
    surface: Surface
    part: Mask
    u: Field
    v: Field
    pixel: float
    share: float
    strength: float


class Flaw(NamedTuple):
    """A type of defect.

    Attributes:
        modality: "texture", "geometry" or "both": where it is to be found.
        shares: smallest and largest share of the part.
        strengths: smallest and largest strength.
        apply: site -> damaged surface and the mask of the changed pixels.
    """

    modality: str
    shares: tuple[float, float]
    strengths: tuple[float, float]
    apply: Callable[[Site], Damage]


def damage(
    rng: np.random.Generator,
    defect: str,
    surface: Surface,
    view: View,
    share: float,
    strength: float,
) -> Damage:
    """Give a good surface a defect.

    Args:
        rng: the flaw's own random stream.
        defect: one of `FLAWS`.
        surface: the good surface.
        view: the part's coordinates.
        share: the share of the part's pixels to change.
        strength: 0 invisible, 1 plain.

    Returns:
        The damaged surface and the mask of the changed pixels.
    """
    part = surface.cover > 0.5
    return FLAWS[defect].apply(
        Site(rng, surface, part, view.u, view.v, view.pixel, share, strength)
    )


# --- footprints: a mask, and how far out a pixel lies in it: 0 in the middle, 1 at the outline


def _place(site: Site, among: Mask) -> tuple[float, float]:
    """A random point among these pixels, any as likely as another."""
    spots = np.flatnonzero(among)
    spot = spots[int(site.rng.random() * spots.size)]
    return float(site.u.flat[spot]), float(site.v.flat[spot])


def _nearest(distance: Field, among: Mask, count: int) -> tuple[Mask, Field]:
    """The `count` pixels of least distance, and that distance over its largest."""
    candidates = np.where(among, distance, np.inf)
    count = min(max(count, 3), int(among.sum()))
    limit = np.partition(candidates, count - 1, axis=None)[count - 1]
    mask = candidates <= limit
    return mask, np.where(mask, distance / max(limit, 1e-12), 1.0)


def _count(site: Site) -> int:
    return round(site.share * int(site.part.sum()))


def _blob(site: Site) -> tuple[Mask, Field]:
    """An uneven blot."""
    rng, pixel = site.rng, site.pixel
    centre_u, centre_v = _place(site, site.part)
    radius = np.sqrt(_count(site) / np.pi) * pixel
    turn, stretch = np.pi * rng.random(), 1 + 0.8 * rng.random()
    a = np.cos(turn) * (site.u - centre_u) + np.sin(turn) * (site.v - centre_v)
    b = -np.sin(turn) * (site.u - centre_u) + np.cos(turn) * (site.v - centre_v)
    uneven = 1 + 0.35 * layered_noise(rng, site.u, site.v, max(1.3 * radius, 2 * pixel), 2)
    return _nearest(np.hypot(a / stretch, b * stretch) * uneven, site.part, _count(site))


def _line(site: Site, wander: float) -> tuple[Mask, Field]:
    """A thin line through the part, 1.3 to 3.2 pixels wide; `wander` radians a knot."""
    here = _place(site, site.part)
    area = _count(site) * site.pixel**2
    width = np.clip(np.sqrt(area / 12), 1.3 * site.pixel, 3.2 * site.pixel)
    step, heading = area / width / 8, 2 * np.pi * site.rng.random()
    knots = [here]
    for direction in (1.0, -1.0):  # grow from the middle to both ends
        turn, (knot_u, knot_v) = heading, here
        for _ in range(4):
            turn += wander * site.rng.standard_normal()
            knot_u += direction * step * np.cos(turn)
            knot_v += direction * step * np.sin(turn)
            knots.insert(len(knots) if direction > 0 else 0, (knot_u, knot_v))
    distance = np.full_like(site.u, np.inf)
    for (from_u, from_v), (to_u, to_v) in pairwise(knots):
        du, dv = to_u - from_u, to_v - from_v
        a, b = site.u - from_u, site.v - from_v
        along = np.clip((a * du + b * dv) / (du * du + dv * dv), 0.0, 1.0)
        distance = np.minimum(distance, np.hypot(a - along * du, b - along * dv))
    return _nearest(distance, site.part, _count(site))


def _soften(reach: Field, mask: Mask, start: float = 0.6) -> Field:
    """1 in the middle of a footprint, falling towards the outline from `start`, never to 0."""
    return np.where(mask, 0.35 + 0.65 * smoothstep(1.0, start, reach), 0.0)


# --- colours and depths ------------------------------------------------------------------------


def _mix(
    albedo: Float[np.ndarray, "H W 3"], colour: np.ndarray, amount: Field
) -> Float[np.ndarray, "H W 3"]:
    """Blend towards a colour by `amount` 0..1."""
    return albedo + (colour - albedo) * amount[..., None]


def _contrasting(site: Site, mask: Mask) -> np.ndarray:
    """A colour that shows on what it lies on: dark on bright, bright on dark, of any tint."""
    bright = site.surface.albedo[mask].mean() > 0.22
    return (0.035 if bright else 0.65) * (1 + 0.25 * (2 * site.rng.random(3) - 1))


def _depth(site: Site, mask: Mask) -> float:
    """Depth of a defect of this footprint, metres: 0.55 of its radius, at most 4.5 mm."""
    radius = np.sqrt(mask.sum() / np.pi) * site.pixel
    return site.strength * min(0.55 * radius, 0.0045)


# --- texture only ------------------------------------------------------------------------------


def _stain(site: Site) -> Damage:
    """Oil, coffee or bleach soaked in."""
    mask, reach = _blob(site)
    uneven = 0.85 + 0.15 * value_noise(site.rng, site.u, site.v, 0.004)
    amount = site.strength * _soften(reach, mask) * uneven
    return site.surface._replace(
        albedo=_mix(site.surface.albedo, _contrasting(site, mask), 0.9 * amount),
        ink=site.surface.ink * (1 - 0.5 * amount),
    ), mask


def _print_missing(site: Site) -> Damage:
    """A patch of the print did not take."""
    printed = site.part & (site.surface.ink > 0.25)
    centre_u, centre_v = _place(site, printed)
    uneven = 1 + 0.2 * value_noise(site.rng, site.u, site.v, 0.004)
    distance = np.hypot(site.u - centre_u, site.v - centre_v) * uneven
    mask, _ = _nearest(distance, printed, min(_count(site), int(0.85 * printed.sum())))
    fade = np.where(mask, 1 - site.strength, 1.0)
    return site.surface._replace(ink=site.surface.ink * fade), mask


def _scratch(site: Site) -> Damage:
    """A scuff in the finish, bright or dark, too shallow to measure."""
    mask, reach = _line(site, 0.12)
    amount = site.strength * _soften(reach, mask)
    return site.surface._replace(
        albedo=_mix(site.surface.albedo, _contrasting(site, mask), amount),
        ink=site.surface.ink * (1 - amount),
    ), mask


# --- geometry only -----------------------------------------------------------------------------


def _dent(site: Site) -> Damage:
    """Pressed in."""
    mask, reach = _blob(site)
    lower = site.surface.height - _depth(site, mask) * (1 - reach**2)
    height = np.where(mask, np.maximum(lower, 2e-4), site.surface.height)
    return site.surface._replace(height=height), mask


def _bump(site: Site) -> Damage:
    """Raised."""
    mask, reach = _blob(site)
    lift = np.where(mask, _depth(site, mask) * (1 - reach**2), 0.0)
    return site.surface._replace(height=site.surface.height + lift), mask


def _warp(site: Site) -> Damage:
    """An end of the part bends up beyond a straight line."""
    turn = 0.5 * (2 * site.rng.random() - 1) + (np.pi if site.rng.random() < 0.5 else 0.0)
    across = np.cos(turn) * site.u + np.sin(turn) * site.v
    mask, _ = _nearest(across - across.min() + site.pixel, site.part, _count(site))
    beyond = np.where(mask, across[mask].max() - across, 0.0)
    lift = site.strength * 1.2 * beyond**2 / (beyond + 0.004)  # bends over 4 mm, then straight
    return site.surface._replace(height=site.surface.height + lift), mask


# --- both --------------------------------------------------------------------------------------


def _crack(site: Site) -> Damage:
    """A jagged dark gap."""
    mask, reach = _line(site, 0.55)
    gap = site.strength * _soften(reach, mask)
    lower = np.maximum(site.surface.height - 0.0035 * gap, 0.0)
    return site.surface._replace(
        height=np.where(mask, lower, site.surface.height),
        albedo=site.surface.albedo * (1 - 0.75 * gap)[..., None],
        ink=site.surface.ink * (1 - gap),
    ), mask


def _hole(site: Site) -> Damage:
    """Material broken out, with a sharp dark edge."""
    mask, reach = _blob(site)
    gone = site.strength * _soften(reach, mask, start=0.75)
    lower = site.surface.height - gone * np.minimum(site.surface.height, 0.010)
    return site.surface._replace(
        height=np.where(mask, lower, site.surface.height),
        albedo=site.surface.albedo * (1 - 0.55 * gone)[..., None],
        gloss=site.surface.gloss * (1 - gone),
        ink=site.surface.ink * (1 - gone),
    ), mask


_FOREIGN = np.array(
    [[0.45, 0.36, 0.10], [0.05, 0.12, 0.05], [0.50, 0.10, 0.07], [0.60, 0.58, 0.52], [0.05] * 3]
)  # swarf, mould, wax, plaster, rubber


def _contamination(site: Site) -> Damage:
    """Something foreign lies on the part: a chip, a crumb, a blob of glue."""
    mask, reach = _blob(site)
    grain = 1 + 0.3 * value_noise(site.rng, site.u, site.v, 0.002)
    colour = _FOREIGN[int(5 * site.rng.random())] * grain[..., None]
    heap = np.where(mask, np.sqrt(np.clip(1 - reach**2, 0.06, 1.0)), 0.0)
    lumps = 1 + 0.25 * value_noise(site.rng, site.u, site.v, 0.003)
    amount = site.strength * _soften(reach, mask, start=0.85)
    return site.surface._replace(
        height=site.surface.height + _depth(site, mask) * heap * lumps,
        albedo=_mix(site.surface.albedo, colour, amount),
        ink=site.surface.ink * (1 - amount),
    ), mask


FLAWS = {
    "stain": Flaw("texture", (0.004, 0.12), (0.35, 1.0), _stain),
    "print_missing": Flaw("texture", (0.012, 0.10), (0.6, 1.0), _print_missing),
    "scratch": Flaw("texture", (0.002, 0.02), (0.3, 1.0), _scratch),
    "dent": Flaw("geometry", (0.004, 0.15), (0.3, 1.0), _dent),
    "bump": Flaw("geometry", (0.004, 0.15), (0.3, 1.0), _bump),
    "warp": Flaw("geometry", (0.05, 0.20), (0.35, 1.0), _warp),
    "crack": Flaw("both", (0.001, 0.02), (0.25, 1.0), _crack),
    "hole": Flaw("both", (0.001, 0.04), (0.2, 1.0), _hole),
    "contamination": Flaw("both", (0.001, 0.06), (0.25, 1.0), _contamination),
}
"""Every type of defect by name."""
