"""The parts of the generator: one function per kind of part, from part coordinates to a surface.

A part is a height field over the table with an albedo, a gloss and, on some parts, a print. All
lengths are metres. Every function takes the sample's own random stream and the part coordinates
(u, v) of each pixel, and draws from the stream what differs between two good parts of the kind:
colour, texture, the lot number, the shape's tolerances. Nothing here knows of defects, cameras or
light.

Everything is float64 and draws only `random()` and `standard_normal()`, so that after rounding to
8-bit colours and whole micrometres two machines produce the same bytes.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pirn_jax.scans.synthetic.shapes import (
    Field,
    box_distance,
    coverage,
    disc_distance,
    layered_noise,
    lot_number,
    on_circle,
    painted,
    pores,
    rounded_edge,
    smoothstep,
    text_print,
    tinted,
    value_noise,
)


class Surface(NamedTuple):
    """What a part looks like from above, before light and camera.

    Attributes:
        height: metres above the table, 0 beside the part.
        cover: share of the pixel the part covers, 0..1.
        albedo: linear reflectance 0..1 under the print.
        gloss: strength of the specular highlight, 0..1.
        ink: share of the pixel the print covers, 0..1.
        ink_albedo: the print's linear colour.
    """

    height: Field
    cover: Field
    albedo: Float[np.ndarray, "H W 3"]
    gloss: Field
    ink: Field
    ink_albedo: Float[np.ndarray, " 3"]


class Kind(NamedTuple):
    """A kind of part: how it is drawn and how it lies before the camera.

    Attributes:
        draw: (random stream, u, v, metres per pixel) -> Surface.
        field: width of the table the picture shows, metres.
        distance: camera to table, metres.
        turn: how far the part may be rotated to either side, radians.
        table: linear colour of the table.
        printed: whether good parts carry a print.
    """

    draw: Callable[[np.random.Generator, Field, Field, float], Surface]
    field: float
    distance: float
    turn: float
    table: tuple[float, float, float]
    printed: bool


# --- the parts; their numbers are dimensions in metres, as on a drawing, and linear colours -------

_NO_INK = np.array([0.0, 0.0, 0.0])


def _flange(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Turned steel flange: hub, bore, six bolt holes, turning marks, an etched lot number."""
    radius = np.hypot(u, v)
    outer, hub = 0.042 * (1 + 0.01 * rng.standard_normal()), 0.020
    rim = radius - outer
    height = 0.010 * rounded_edge(rim, 0.0015)
    height += 0.0055 * smoothstep(hub + 0.0045, hub - 0.0025, radius)  # a tapered neck
    height -= 0.0009 * smoothstep(0.0012, 0.0004, np.abs(radius - 0.0145))  # the seal groove
    holes = disc_distance(u, v, on_circle(0.0305, 6), 0.0034)
    bore = radius - 0.0105
    openings = np.minimum(holes, bore)
    cover = coverage(rim, pixel) * coverage(-openings, pixel)
    height = np.where(openings < 0, 0.0, height - 0.0008 * smoothstep(0.0014, 0.0, openings))
    marks = value_noise(rng, radius, np.zeros_like(u), 0.0007)  # the tool's feed
    angle = np.arctan2(v, u)
    sheen = 0.10 * np.cos(2 * (angle - 2 * np.pi * rng.random()))  # light along the grooves
    shade = 1.0 + (0.05 + 0.06 * rng.random()) * marks + sheen
    shade += (0.04 + 0.05 * rng.random()) * layered_noise(rng, u, v, 0.012)
    text = "PIRN-" + lot_number(rng, 2)
    ink = text_print(0.0305 * (angle + np.pi / 2), 0.0305 - radius, text, 0.0, 0.0, 0.0040)
    return Surface(
        height, cover, painted(tinted(rng, (0.27, 0.275, 0.285), 0.17), shade),
        np.full_like(u, 0.55), ink * cover, np.array([0.06, 0.06, 0.07]),
    )  # fmt: skip


def _housing(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Moulded plastic housing: rim, recessed deck, two screw bosses, vents, a printed name."""
    half_u, half_v = 0.040 * (1 + 0.006 * rng.standard_normal()), 0.027
    outline = box_distance(u, v, half_u, half_v, 0.007)
    deck = box_distance(u, v, half_u - 0.0045, half_v - 0.0045, 0.004)
    height = 0.013 * rounded_edge(outline, 0.003) - 0.0028 * smoothstep(0.0004, -0.0014, deck)
    bosses = disc_distance(u, v, [(-0.0275, 0.0140), (0.0275, -0.0140)], 0.0050)
    screws = bosses + 0.0028
    height += 0.0028 * smoothstep(0.0005, -0.0008, bosses)
    height -= 0.004 * smoothstep(0.0006, -0.0010, screws)
    vents = np.maximum(
        np.abs(np.mod(u - 0.0005, 0.005) - 0.0025) - 0.0011, np.abs(v + 0.0125) - 0.0062
    )
    vents = np.maximum(vents, np.abs(u + 0.0055) - 0.0150)
    height -= 0.0035 * smoothstep(0.0003, -0.0005, vents)
    cover = coverage(outline, pixel)
    grain = value_noise(rng, u, v, 0.0009)
    height += 0.00003 * grain * (cover > 0.5)
    shade = 1.0 + 0.05 * grain + 0.06 * layered_noise(rng, u, v, 0.020)
    shade *= 1.0 - 0.75 * smoothstep(0.0002, -0.0008, np.minimum(screws, vents))
    ink = text_print(u, v, "PIRN", -0.0060, 0.0060, 0.0080)
    ink = np.maximum(ink, text_print(u, v, lot_number(rng, 4), 0.0215, 0.0078, 0.0045))
    line = np.maximum(np.abs(v - 0.0145) - 0.0006, np.abs(u - 0.0055) - 0.0250)
    ink = np.maximum(ink, coverage(line, pixel))
    return Surface(
        height, cover, painted(tinted(rng, (0.045, 0.16, 0.33), 0.18), shade),
        np.full_like(u, 0.22 + 0.15 * rng.random()), ink, np.array([0.75, 0.75, 0.72]),
    )  # fmt: skip


def _biscuit(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Baked biscuit: scalloped rim, domed and cracked crust, docking holes, browning."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    lobes = 0.0011 * np.cos(22 * angle) + 0.0008 * np.cos(2 * (angle - 6.3 * rng.random()))
    rim = radius - (0.036 * (1 + 0.02 * rng.standard_normal()) + lobes)
    crust = layered_noise(rng, u, v, 0.009, 4)
    height = 0.0125 * rounded_edge(rim, 0.008) * (1 + 0.06 * value_noise(rng, u, v, 0.030))
    height += (0.0003 + 0.0003 * rng.random()) * crust * smoothstep(0.0, -0.004, rim)
    ring = np.abs(radius - 0.0285)
    height -= 0.0009 * smoothstep(0.0016, 0.0004, ring)
    docking = [(0.0, 0.0), *on_circle(0.010, 6), *on_circle(0.020, 12)]
    docking = [tuple(centre + 0.0004 * rng.standard_normal(2)) for centre in docking]
    holes = disc_distance(u, v, docking, 0.0011)
    height -= 0.0022 * smoothstep(0.0007, -0.0006, holes)
    cover = coverage(rim, pixel)
    brown = 0.30 + 0.25 * rng.random() + 0.65 * smoothstep(-0.013, 0.001, rim)
    brown += 0.20 * crust + 0.30 * value_noise(rng, u, v, 0.022)
    brown += 0.5 * smoothstep(0.0006, -0.0004, holes) + 0.15 * smoothstep(0.0014, 0.0004, ring)
    brown = np.clip(brown, 0.0, 1.3)[..., None]
    pale, dark = tinted(rng, (0.70, 0.46, 0.20), 0.08), np.array([0.27, 0.11, 0.03])
    albedo = np.clip(pale + (dark - pale) * brown, 0.02, 0.95)
    speckle = value_noise(rng, u, v, 0.0012) > 0.78 - 0.10 * rng.random()  # bran
    albedo = np.where(speckle[..., None], 0.72 * albedo, albedo)
    return Surface(height, cover, albedo, np.full_like(u, 0.05), np.zeros_like(u), _NO_INK)


def _webbing(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Woven strap: plain weave of two yarns, bound edges, a coloured stripe, an ink print."""
    wander = 0.0008 * value_noise(rng, u, v, 0.025)
    u, v = u + wander, v - 0.7 * wander
    half_u, half_v = 0.043 * (1 + 0.01 * rng.standard_normal()), 0.024
    outline = box_distance(u, v, half_u, half_v, 0.0015)
    yarn = 0.0030
    column, row = np.floor(u / yarn), np.floor(v / yarn)
    across_u, across_v = 2 * (u / yarn - column) - 1, 2 * (v / yarn - row) - 1
    warp = 0.6 * np.sqrt(1 - across_v**2) + 0.4 * np.sin(np.pi * (u / yarn + row))
    weft = 0.6 * np.sqrt(1 - across_u**2) + 0.4 * np.sin(np.pi * (v / yarn + column + 1))
    over = warp > weft  # which yarn lies on top
    relief = np.clip(np.maximum(warp, weft), 0.0, 1.0)
    cover = coverage(outline, pixel)
    height = (0.0090 + 0.0013 * relief) * rounded_edge(outline, 0.0025)
    height += 0.0010 * (value_noise(rng, u, v, 0.030) + 1.0) * cover  # it never lies quite flat
    fibre = value_noise(rng, np.where(over, u * 0.2, u), np.where(over, v, v * 0.2), 0.0006)
    base = tinted(rng, (0.34, 0.31, 0.22), 0.15)
    stripe = smoothstep(0.0060, 0.0056, np.abs(np.abs(v) - 0.0155))[..., None]
    albedo = base + stripe * (tinted(rng, (0.42, 0.05, 0.04), 0.15) - base)
    shade = (0.55 + 0.45 * relief) * (1.0 + 0.16 * fibre) * np.where(over, 1.0, 0.86)
    shade *= 1.0 + 0.10 * layered_noise(rng, u, v, 0.018)
    ink = text_print(u, v, "PIRN-" + lot_number(rng, 2), 0.0, 0.0, 0.0100) * (0.75 + 0.25 * relief)
    return Surface(
        height, cover, np.clip(albedo * shade[..., None], 0.0, 1.0),
        np.full_like(u, 0.04), ink, np.array([0.03, 0.03, 0.04]),
    )  # fmt: skip


def _heatsink(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Ribbed aluminium heatsink: eight fins with a cross cut, a milled pad, an etched number."""
    half_u, half_v = 0.038 * (1 + 0.004 * rng.standard_normal()), 0.031
    outline = box_distance(u, v, half_u, half_v, 0.0010)
    pitch = 0.0095
    fin = np.abs(np.mod(u, pitch) - pitch / 2) - 0.0024
    cut = 0.0018 - np.abs(v - 0.0105)
    pad = box_distance(u, v + 0.0125, 0.0235, 0.0085, 0.001)
    ribs = np.maximum(np.maximum(fin, cut), -(pad - 0.0012))
    ribs = np.maximum(ribs, np.abs(u) - (half_u - 0.0008))
    height = 0.0105 * rounded_edge(outline, 0.0008)
    height += (0.0036 + 0.0002 * rng.standard_normal()) * smoothstep(0.0010, -0.0012, ribs)
    height += 0.0022 * smoothstep(0.0006, -0.0008, pad)
    cover = coverage(outline, pixel)
    height = height * (cover > 0)
    saw = value_noise(rng, u * 0.15, v, 0.0009)
    shade = 1.0 + (0.04 + 0.06 * rng.random()) * saw + 0.07 * layered_noise(rng, u, v, 0.015)
    ink = text_print(u, v, "PIRN", -0.0105, -0.0125, 0.0070)
    ink = np.maximum(ink, text_print(u, v, lot_number(rng, 4), 0.0125, -0.0125, 0.0046))
    return Surface(
        height, cover, painted(tinted(rng, (0.46, 0.47, 0.50), 0.14), shade),
        np.full_like(u, 0.35 + 0.15 * rng.random()), ink * (pad < 0), np.array([0.05, 0.05, 0.06]),
    )  # fmt: skip


def _foam(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Foam block: open pores of two sizes in a soft yellow body with a scouring pad's dark side."""
    soft = 0.0010 * value_noise(rng, u, v, 0.018)
    outline = box_distance(u, v, 0.038 * (1 + 0.015 * rng.standard_normal()), 0.028, 0.006) + soft
    cover = coverage(outline, pixel)
    height = 0.017 * rounded_edge(outline, 0.007) + 0.0009 * value_noise(rng, u, v, 0.022) * cover
    wide = smoothstep(0.10, -0.12, pores(rng, u, v, 0.0062, 0.42))
    fine = smoothstep(0.12, -0.12, pores(rng, u, v, 0.0024, 0.40))
    depth = 0.0007 + 0.0003 * rng.random()
    height = np.maximum(height - cover * (depth * wide + 0.0002 * fine), 0.0)
    shade = (1.0 - 0.42 * wide) * (1.0 - 0.22 * fine)
    shade *= 1.0 + 0.10 * layered_noise(rng, u, v, 0.020)
    pad = smoothstep(0.0185, 0.0192, v + 0.3 * soft)[..., None]  # the scouring side
    yellow, green = tinted(rng, (0.75, 0.55, 0.10), 0.10), tinted(rng, (0.05, 0.20, 0.08), 0.15)
    rough = 1.0 + 0.35 * value_noise(rng, u, v, 0.0011)
    albedo = yellow * shade[..., None] * (1 - pad) + green * rough[..., None] * pad
    return Surface(
        height, cover, np.clip(albedo, 0.0, 1.0), np.full_like(u, 0.02), np.zeros_like(u), _NO_INK
    )


def _rope(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Three-strand rope between two taped ends, one strand a coloured tracer."""
    length, thick = 0.047, 0.0120 * (1 + 0.02 * rng.standard_normal())
    phase, sway = 6.3 * rng.random(), 0.0012 + 0.0018 * rng.random()
    bend = sway * np.sin(u / 0.018 + phase)
    across = (v - bend) / np.sqrt(1 + (sway / 0.018 * np.cos(u / 0.018 + phase)) ** 2)
    tape = smoothstep(length - 0.0115, length - 0.0108, np.abs(u))
    body = np.maximum(np.abs(across) - thick * (1 - 0.04 * tape), np.abs(u) - length)
    cover = coverage(body, pixel)
    side = np.clip(across / thick, -1.0, 1.0)
    around = np.arcsin(side)
    lay = 0.030 * (1 + 0.03 * rng.standard_normal())
    strand = 3 * around / np.pi * 1.15 - 3 * u / lay + rng.random() * 3
    strand = strand + 0.03 * value_noise(rng, u, v, 0.010)
    within = strand - np.floor(strand) - 0.5
    groove = np.sqrt(np.clip(1 - (2 * within) ** 2, 0.0, 1.0))
    profile = np.sqrt(np.clip(1 - side**2, 0.0, 1.0))
    relief = groove * (1 - tape) + 0.9 * tape
    height = (thick * (1 + 0.80 * profile) + 0.0026 * (relief - 1)) * (cover > 0.5)
    fibre = value_noise(rng, 8 * within * lay / 3, u * 0.35 + across * 0.35, 0.0012)
    tracer = (np.mod(np.floor(strand), 3) == 0)[..., None]
    white, blue = tinted(rng, (0.62, 0.58, 0.48), 0.09), tinted(rng, (0.06, 0.12, 0.40), 0.15)
    colour = np.where(tracer, blue, white) * (0.62 + 0.38 * groove)[..., None]
    worn = 1 + 0.06 * value_noise(rng, u, v, 0.014)
    colour = colour * (1.0 + 0.13 * fibre)[..., None] * worn[..., None]
    albedo = colour * (1 - tape[..., None]) + np.array([0.05, 0.05, 0.055]) * tape[..., None]
    return Surface(
        height, cover, np.clip(albedo, 0.0, 1.0), 0.05 + 0.25 * tape, np.zeros_like(u), _NO_INK
    )


def _dowel(rng: np.random.Generator, u: Field, v: Field, pixel: float) -> Surface:
    """Wooden dowel on its side: chamfered ends, two turned grooves, grain, a burnt-in number."""
    length, thick = 0.044 * (1 + 0.01 * rng.standard_normal()), 0.0175
    end = np.maximum(np.abs(u) - (length - 0.004), 0.0)
    girth = thick * (1 + 0.01 * rng.standard_normal()) - 0.6 * end
    ring = smoothstep(0.0014, 0.0006, np.abs(np.abs(u) - 0.0315))
    girth = girth - 0.0010 * ring
    body = np.maximum(np.abs(v) - girth, np.abs(u) - length)
    cover = coverage(body, pixel)
    profile = np.sqrt(np.clip(1 - (v / np.maximum(girth, 1e-4)) ** 2, 0.0, 1.0))
    height = (thick + girth * profile * 0.75) * (cover > 0.5)
    around = np.arcsin(np.clip(v / thick, -1, 1)) * thick
    flow = 0.003 * value_noise(rng, u * 0.4, around, 0.012)
    ringed = (around + flow) / (0.0006 + 0.0005 * rng.random())
    ringed = np.sin(ringed + 3 * value_noise(rng, u * 0.12, around, 0.005))
    fibres = value_noise(rng, u * 0.10, around, 0.0007)
    grain = 0.5 * ringed + 0.5 * fibres
    pale, dark = tinted(rng, (0.62, 0.42, 0.21), 0.10), tinted(rng, (0.40, 0.21, 0.08), 0.10)
    mix = np.clip(0.42 + 0.36 * grain + 0.18 * value_noise(rng, u * 0.3, around, 0.012), 0, 1)
    albedo = pale + (dark - pale) * mix[..., None]
    albedo = albedo * (1 - 0.35 * ring)[..., None]
    height += 0.00005 * fibres * cover
    turned = around + 0.002 * rng.standard_normal()
    ink = text_print(u, turned, "PIRN-" + lot_number(rng, 3), 0.0, 0.0, 0.0065)
    return Surface(
        height, cover, np.clip(albedo, 0.0, 1.0), np.full_like(u, 0.08), ink * cover,
        np.array([0.07, 0.035, 0.015]),
    )  # fmt: skip


KINDS = {
    "flange": Kind(_flange, 0.112, 0.47, 0.20, (0.020, 0.022, 0.026), True),
    "housing": Kind(_housing, 0.105, 0.42, 0.20, (0.16, 0.15, 0.14), True),
    "biscuit": Kind(_biscuit, 0.096, 0.40, np.pi, (0.05, 0.06, 0.075), False),
    "webbing": Kind(_webbing, 0.110, 0.45, 0.20, (0.07, 0.075, 0.07), True),
    "heatsink": Kind(_heatsink, 0.102, 0.55, 0.20, (0.10, 0.075, 0.05), True),
    "foam": Kind(_foam, 0.102, 0.46, 0.20, (0.10, 0.11, 0.13), False),
    "rope": Kind(_rope, 0.112, 0.50, 0.25, (0.035, 0.04, 0.04), False),
    "dowel": Kind(_dowel, 0.106, 0.60, 0.25, (0.03, 0.05, 0.045), True),
}
"""The kinds of part by name."""
