"""The generator's camera, light and sensor: a surface becomes an organised RGB + xyz scan.

The photograph is shaded from the very geometry that is measured: normals of the rendered points,
albedo, one lamp with a soft cast shadow, ambient light with occlusion in hollows, a highlight. The
sensor then measures the geometry with noise that grows on slanted faces, misses steep faces, what
its projector cannot reach, and a little at random.

Everything drawn here differs between good parts too; a defect has no part in it.

Dimension letters: H, W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy.ndimage import gaussian_filter

from pirn_jax.scans.synthetic.parts import Kind, Surface
from pirn_jax.scans.synthetic.shapes import Field, value_noise


class View(NamedTuple):
    """How this sample lies before the camera.

    Attributes:
        ray_x, ray_y: direction of each pixel's ray, x/z and y/z.
        depth: camera to table along each ray's z, metres.
        lean: metres of z per metre of height above the table, per pixel (negative).
        u, v: part coordinates of each pixel on the table, metres.
        pixel: metres per pixel on the table.
    """

    ray_x: Field
    ray_y: Field
    depth: Field
    lean: Field
    u: Field
    v: Field
    pixel: float


def focal_length(kind: Kind, size: int) -> float:
    """Focal length in pixels; the principal point is the middle of the picture."""
    return kind.distance * size / kind.field


def take_view(rng: np.random.Generator, kind: Kind, size: int) -> View:
    """Draw the pose: where the part lies, its turn, its size, and how the table leans."""
    focal = focal_length(kind, size)
    axis = (np.arange(size) - (size - 1) / 2) / focal
    ray_x, ray_y = np.meshgrid(axis, axis)
    slope_x, slope_y = 0.05 * (2 * rng.random(2) - 1)
    distance = kind.distance * (1 + 0.010 * (2 * rng.random() - 1))
    facing = 1 - slope_x * ray_x - slope_y * ray_y  # plane: z = distance + slope · (x, y)
    depth = distance / facing
    lean = -np.sqrt(1 + slope_x**2 + slope_y**2) / facing
    turn = kind.turn * (2 * rng.random() - 1)
    shift = 0.045 * kind.field * (2 * rng.random(2) - 1)
    scale = 1 + 0.03 * (2 * rng.random() - 1)
    x, y = (depth * ray_x - shift[0]) / scale, (depth * ray_y - shift[1]) / scale
    u = np.cos(turn) * x + np.sin(turn) * y
    v = -np.sin(turn) * x + np.cos(turn) * y
    return View(ray_x, ray_y, depth, lean, u, v, kind.distance / focal)


def points(view: View, height: Field) -> Float[np.ndarray, "H W 3"]:
    """Where each ray meets the surface, metres in the camera's frame."""
    z = view.depth + view.lean * height
    return np.stack([view.ray_x * z, view.ray_y * z, z], axis=-1)


def facing_normals(xyz: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """Unit normals towards the camera from central differences of the points."""
    down, right = np.gradient(xyz, axis=0), np.gradient(xyz, axis=1)
    normal = np.stack(
        [
            down[..., 1] * right[..., 2] - down[..., 2] * right[..., 1],
            down[..., 2] * right[..., 0] - down[..., 0] * right[..., 2],
            down[..., 0] * right[..., 1] - down[..., 1] * right[..., 0],
        ],
        axis=-1,
    )
    return normal / np.sqrt((normal**2).sum(-1, keepdims=True))


def blocked(height: Field, pixel: float, azimuth: float, rise: float, soft: float) -> Field:
    """Share 0..1 of a beam that the part stops before it reaches each pixel.

    Args:
        height: metres above the table; nothing stands outside the picture.
        pixel: metres per pixel.
        azimuth: where the beam comes from, radians from +x towards +y.
        rise: how steeply it comes, metres of height per metre of table.
        soft: height by which a blocker must stand in the beam to stop all of it, metres.
    """
    size = height.shape[0]
    reach = height.max() / rise / pixel  # no shadow is longer, in pixels
    pad = int(np.ceil(reach)) + 1
    around = np.pad(height, pad)
    dark = np.zeros_like(height)
    for step in reach * np.arange(1, 15) / 14:
        row = round(step * np.sin(azimuth)) + pad
        column = round(step * np.cos(azimuth)) + pad
        ahead = around[row : row + size, column : column + size]
        dark = np.maximum(dark, ahead - height - step * pixel * rise)
    return np.clip(dark / soft, 0.0, 1.0)


def photograph(
    rng: np.random.Generator, kind: Kind, view: View, surface: Surface
) -> UInt8[np.ndarray, "H W 3"]:
    """Shade the surface and expose the picture.

    Args:
        rng: the stream of table, lamp, lens and image noise.
        kind: gives the table's colour.
        view: pose and rays.
        surface: the part, with or without a defect.

    Returns:
        sRGB picture, uint8 (H, W, 3).
    """
    size = view.u.shape[0]
    azimuth = -2.2 + 0.5 * (2 * rng.random() - 1)  # upper left, as over most work benches
    climb = np.deg2rad(50 + 8 * (2 * rng.random() - 1))
    warmth = 0.06 * (2 * rng.random() - 1)
    lamp = (1.15 * np.exp(0.12 * rng.standard_normal())) * np.array([1 + warmth, 1.0, 1 - warmth])
    ambient = 0.34 * np.exp(0.12 * rng.standard_normal())
    table_shade = 1 + 0.10 * value_noise(rng, view.u, view.v, 0.030)
    table_shade += 0.12 * value_noise(rng, view.u, view.v, 0.0015)
    table = np.array(kind.table) * np.exp(0.12 * rng.standard_normal()) * table_shade[..., None]

    ink = surface.ink[..., None]
    albedo = surface.albedo + (surface.ink_albedo - surface.albedo) * ink
    albedo = table + (albedo - table) * surface.cover[..., None]
    normal = facing_normals(points(view, surface.height))
    light = np.array(
        [np.cos(azimuth) * np.cos(climb), np.sin(azimuth) * np.cos(climb), -np.sin(climb)]
    )
    shadow = blocked(surface.height, view.pixel, azimuth, np.tan(climb), 0.0025)
    diffuse = np.maximum(normal @ light, 0.0) * (1 - 0.85 * shadow)
    hollow = gaussian_filter(surface.height, size / 50) - surface.height
    open_sky = 1 - 0.65 * np.clip(hollow / 0.006, 0.0, 1.0)
    sky = (0.65 - 0.35 * normal[..., 2]) * open_sky * ambient
    half = light + np.array([0.0, 0.0, -1.0])
    glint = np.maximum(normal @ (half / np.sqrt(half @ half)), 0.0) ** 24
    shine = 0.55 * surface.gloss * surface.cover * glint * (1 - shadow)

    radiance = albedo * (diffuse[..., None] * lamp + sky[..., None]) + shine[..., None] * lamp
    corner = view.ray_x**2 + view.ray_y**2
    radiance *= (1 - 0.22 * corner / corner.max())[..., None]
    radiance = gaussian_filter(radiance, (size / 450, size / 450, 0))  # the lens
    radiance = radiance / (1 + 0.25 * radiance)  # highlights roll off as on a real sensor
    level = 255 * np.clip(1.12 * radiance, 0.0, 1.0) ** (1 / 2.2)
    level += (1.2 + 1.6 * rng.random()) * rng.standard_normal(level.shape)
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)


def measure(
    rng: np.random.Generator, view: View, surface: Surface
) -> tuple[Float32[np.ndarray, "H W 3"], Bool[np.ndarray, "H W"]]:
    """Measure the surface as a structured-light sensor does.

    Args:
        rng: the stream of depth noise and missing points.
        view: pose and rays.
        surface: the part, with or without a defect.

    Returns:
        Points float32 (H, W, 3), metres, whole micrometres along z, zeros where missing; and
        the bool (H, W) of pixels that were measured.
    """
    size = view.u.shape[0]
    cloud = points(view, surface.height)
    slant = -facing_normals(cloud)[..., 2]  # 1 seen head-on, 0 edge-on
    level = 1.0e-5 + 1.5e-5 * rng.random()
    noise = 1.6 * gaussian_filter(rng.standard_normal((size, size)), 1.0 * size / 256)
    noise += 0.35 * rng.standard_normal((size, size))
    noise += 1.2 * value_noise(rng, view.u, view.v, 0.012)
    z = cloud[..., 2] + level * noise / np.maximum(slant, 0.25)
    z = np.rint(z * 1e6) / 1e6
    missing = 0.75 * smooth_drop(slant) + 0.30 * value_noise(rng, view.u, view.v, 0.0022)
    lost = missing > 0.36 + 0.05 * rng.random()
    # The projector stands left of the camera; what it cannot reach is not measured.
    lost |= blocked(surface.height, view.pixel, np.pi, 3.6, 1e-4) > 0.5
    lost |= rng.random((size, size)) < 0.003 * rng.random()
    xyz = np.stack([view.ray_x * z, view.ray_y * z, z], axis=-1).astype(np.float32)
    xyz[lost] = 0.0
    return xyz, ~lost


def smooth_drop(slant: Field) -> Field:
    """How readily a face is lost: 0 up to 60° of slant, 1 from 80° on."""
    t = np.clip((0.5 - slant) / 0.33, 0.0, 1.0)
    return t * t * (3 - 2 * t)
