"""The defects of the generator: each changes a good surface inside an exact mask.

Texture only: stain, print_missing, scratch. Geometry only: dent, bump, warp; the photograph shows
them by their shading alone. Both: crack, hole, contamination.

A defect takes the good surface, a strength (0 invisible, 1 plain) and a share of the part's
visible area; it changes exactly that share, to the pixel, and returns the mask of it. Its random
stream is its own, so that a defective part and its good twin differ in nothing else.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from pirn_jax.scans.synthetic_parts import (
    Field,
    Surface,
    layered_noise,
    smoothstep,
    value_noise,
)

Mask = Bool[np.ndarray, "H W"]


class Flaw(NamedTuple):
    """A type of defect.

    Attributes:
        modality: "texture", "geometry" or "both": where it is to be found.
        shares: smallest and largest share of the part it covers.
        strengths: smallest and largest strength; 1 is plain to see.
        inflict: (random stream, surface, u, v, pixel, share, strength) -> surface and mask.
    """

    modality: str
    shares: tuple[float, float]
    strengths: tuple[float, float]
    inflict: Callable[..., tuple[Surface, Mask]]


# --- footprints --------------------------------------------------------------------------------


def _place(rng: np.random.Generator, inside: Mask, u: Field, v: Field) -> tuple[float, float]:
    """A random point of the part, any pixel of it as likely as another."""
    spots = np.flatnonzero(inside)
    spot = spots[int(rng.random() * spots.size)]
    return float(u.flat[spot]), float(v.flat[spot])


def _nearest_share(distance: Field, inside: Mask, share: float) -> tuple[Mask, Field]:
    """The `share` of the part with the smallest distance, and distance / its largest there."""
    candidates = np.where(inside, distance, np.inf)
    count = int(np.clip(round(share * inside.sum()), 3, inside.sum()))
    limit = np.partition(candidates, count - 1, axis=None)[count - 1]
    mask = candidates <= limit
    return mask, np.where(mask, distance / max(limit, 1e-12), 1.0)


def _blob(
    rng: np.random.Generator, inside: Mask, u: Field, v: Field, share: float, pixel: float
) -> tuple[Mask, Field]:
    """An uneven blot: its mask, and 0 at the centre to 1 at its outline."""
    centre_u, centre_v = _place(rng, inside, u, v)
    radius = np.sqrt(share * inside.sum() / np.pi) * pixel
    turn, stretch = np.pi * rng.random(), 1 + 0.8 * rng.random()
    a = np.cos(turn) * (u - centre_u) + np.sin(turn) * (v - centre_v)
    b = -np.sin(turn) * (u - centre_u) + np.cos(turn) * (v - centre_v)
    uneven = 1 + 0.35 * layered_noise(rng, u, v, max(1.3 * radius, 2 * pixel), 2)
    distance = np.hypot(a / stretch, b * stretch) * uneven
    return _nearest_share(distance, inside, share)


def _line(
    rng: np.random.Generator,
    inside: Mask,
    u: Field,
    v: Field,
    share: float,
    pixel: float,
    wander: float,
) -> tuple[Mask, Field]:
    """A thin wandering line through the part: its mask, and 0 in its middle to 1 at its sides."""
    u0, v0 = _place(rng, inside, u, v)
    area = share * inside.sum() * pixel**2
    width = np.clip(np.sqrt(area / 12), 1.3 * pixel, 3.2 * pixel)
    length = area / width
    heading = 2 * np.pi * rng.random()
    knots = [(u0, v0)]
    for direction in (1.0, -1.0):  # grow from the middle to both ends
        turn, here = heading, (u0, v0)
        for _ in range(4):
            turn += wander * rng.standard_normal()
            step = direction * length / 8
            here = (here[0] + step * np.cos(turn), here[1] + step * np.sin(turn))
            knots = [*knots, here] if direction > 0 else [here, *knots]
    distance = np.full_like(u, np.inf)
    for (ua, va), (ub, vb) in zip(knots[:-1], knots[1:], strict=True):
        du, dv = ub - ua, vb - va
        along = np.clip(((u - ua) * du + (v - va) * dv) / (du * du + dv * dv), 0.0, 1.0)
        distance = np.minimum(distance, np.hypot(u - ua - along * du, v - va - along * dv))
    return _nearest_share(distance, inside, share)


def _mix(albedo: Float[np.ndarray, "H W 3"], colour: np.ndarray, amount: Field):
    """Blend towards a colour by `amount` 0..1."""
    return albedo + (colour - albedo) * amount[..., None]


def _soften(reach: Field, mask: Mask) -> Field:
    """1 in the middle of a footprint, falling at its outline, never quite 0 inside."""
    return np.where(mask, 0.35 + 0.65 * smoothstep(1.0, 0.6, reach), 0.0)


# --- texture only --------------------------------------------------------------------------------


def _stain(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """Oil, coffee or bleach soaked in: the colour changes, the relief stays."""
    mask, reach = _blob(rng, inside, u, v, share, pixel)
    tone = np.array([[0.10, 0.05, 0.02], [0.02, 0.02, 0.03], [0.75, 0.72, 0.65]])[int(3 * rng.random())]
    amount = strength * _soften(reach, mask) * (0.75 + 0.25 * value_noise(rng, u, v, 0.004))
    return surface._replace(
        albedo=_mix(surface.albedo, tone, 0.75 * amount),
        ink_albedo=surface.ink_albedo,
        ink=surface.ink * (1 - 0.5 * amount),
    ), mask


def _print_missing(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """A patch of the print did not take; only printed parts can have it."""
    printed = surface.ink > 0.25
    centre_u, centre_v = _place(rng, printed & inside, u, v)
    distance = np.hypot(u - centre_u, v - centre_v) * (1 + 0.2 * value_noise(rng, u, v, 0.004))
    share = min(share, 0.85 * (printed & inside).sum() / inside.sum())
    mask, _ = _nearest_share(distance, printed & inside, share * inside.sum() / (printed & inside).sum())
    reached = np.where(mask, distance, 0.0).max()  # faint print edges go with their letters
    gone = inside & (surface.ink > 0.0) & (distance <= reached)
    return surface._replace(ink=np.where(gone, surface.ink * (1 - strength), surface.ink)), gone


def _scratch(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """A scuff in the finish: a bright or dark line, too shallow to measure."""
    mask, reach = _line(rng, inside, u, v, share, pixel, 0.12)
    tone = np.array([0.80, 0.80, 0.80]) if rng.random() < 0.6 else np.array([0.03, 0.03, 0.03])
    amount = strength * _soften(reach, mask) * 0.85
    return surface._replace(
        albedo=_mix(surface.albedo, tone, amount), ink=surface.ink * (1 - amount)
    ), mask


# --- geometry only ---------------------------------------------------------------------------------


def _swelling(reach: Field, mask: Mask) -> Field:
    """A round profile, 1 in the middle, steep enough at the outline to be there."""
    return np.where(mask, 1 - reach**2, 0.0)


def _depth(mask: Mask, pixel: float, strength: float, slope: float, most: float) -> float:
    """Depth of a defect of this footprint, metres: `slope` times its radius, at most `most`."""
    return strength * min(slope * np.sqrt(mask.sum() / np.pi) * pixel, most)


def _dent(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """Pressed in."""
    mask, reach = _blob(rng, inside, u, v, share, pixel)
    depth = _depth(mask, pixel, strength, 0.55, 0.0045)
    lower = surface.height - depth * _swelling(reach, mask)
    return surface._replace(height=np.where(mask, np.maximum(lower, 2e-4), surface.height)), mask


def _bump(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """Raised from below."""
    mask, reach = _blob(rng, inside, u, v, share, pixel)
    depth = _depth(mask, pixel, strength, 0.55, 0.0045)
    return surface._replace(height=surface.height + depth * _swelling(reach, mask)), mask


def _warp(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """An end of the part bends up beyond a straight line."""
    turn = 0.5 * (2 * rng.random() - 1) + (np.pi if rng.random() < 0.5 else 0.0)
    across = np.cos(turn) * u + np.sin(turn) * v
    mask, _ = _nearest_share(across - across.min() + pixel, inside, share)
    line = across[mask].max()
    beyond = np.where(mask, line - across, 0.0)
    lift = strength * 0.014 * (beyond / max(beyond.max(), pixel)) ** 1.3
    return surface._replace(height=surface.height + lift), mask


# --- both ------------------------------------------------------------------------------------------


def _crack(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """A jagged dark gap."""
    mask, reach = _line(rng, inside, u, v, share, pixel, 0.55)
    open_ = strength * _soften(reach, mask)
    lower = np.maximum(surface.height - 0.0035 * open_, 0.0)
    return surface._replace(
        height=np.where(mask, lower, surface.height),
        albedo=surface.albedo * (1 - 0.75 * open_)[..., None],
        ink=surface.ink * (1 - open_),
    ), mask


def _hole(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """Material broken out, with a sharp dark edge."""
    mask, reach = _blob(rng, inside, u, v, share, pixel)
    gone = np.where(mask, 0.55 + 0.45 * smoothstep(1.0, 0.75, reach), 0.0)
    deep = strength * np.minimum(surface.height, 0.010)
    lower = surface.height - deep * gone
    return surface._replace(
        height=np.where(mask, lower, surface.height),
        albedo=surface.albedo * (1 - 0.55 * strength * gone)[..., None],
        gloss=surface.gloss * (1 - gone),
        ink=surface.ink * (1 - gone),
    ), mask


def _contamination(rng, surface: Surface, inside: Mask, u, v, pixel, share, strength):
    """Something foreign lies on the part: a chip, a crumb, a blob of glue."""
    mask, reach = _blob(rng, inside, u, v, share, pixel)
    tones = np.array([[0.45, 0.36, 0.10], [0.05, 0.12, 0.05], [0.50, 0.10, 0.07], [0.60, 0.58, 0.52], [0.05, 0.05, 0.05]])
    tone = tones[int(5 * rng.random())] * (1 + 0.3 * value_noise(rng, u, v, 0.002))[..., None]
    heap = np.where(mask, np.sqrt(np.clip(1 - reach**2, 0.06, 1.0)), 0.0)
    lumps = 1 + 0.25 * value_noise(rng, u, v, 0.003)
    tall = _depth(mask, pixel, strength, 0.6, 0.004)
    amount = strength * np.where(mask, 0.35 + 0.65 * smoothstep(1.0, 0.85, reach), 0.0)
    return surface._replace(
        height=surface.height + tall * heap * lumps,
        albedo=_mix(surface.albedo, tone, amount),
        ink=surface.ink * (1 - amount),
    ), mask


FLAWS = {
    "stain": Flaw("texture", (0.002, 0.08), (0.15, 1.0), _stain),
    "print_missing": Flaw("texture", (0.001, 0.03), (0.3, 1.0), _print_missing),
    "scratch": Flaw("texture", (0.001, 0.015), (0.15, 1.0), _scratch),
    "dent": Flaw("geometry", (0.002, 0.10), (0.15, 1.0), _dent),
    "bump": Flaw("geometry", (0.002, 0.10), (0.15, 1.0), _bump),
    "warp": Flaw("geometry", (0.05, 0.20), (0.1, 1.0), _warp),
    "crack": Flaw("both", (0.001, 0.02), (0.15, 1.0), _crack),
    "hole": Flaw("both", (0.001, 0.04), (0.15, 1.0), _hole),
    "contamination": Flaw("both", (0.001, 0.05), (0.15, 1.0), _contamination),
}
"""Every type of defect by name, in the order of the ids."""
