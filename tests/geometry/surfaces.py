"""Analytic surfaces seen by a pinhole camera, with their exact normals."""

import numpy as np

FOCAL = 600.0
DISTANCE = 0.6
PITCH = DISTANCE / FOCAL  # metres between pixels at that distance: 1 mm


def rays(height, width):
    row, column = np.mgrid[:height, :width]
    x = (column - width / 2 + 0.5) / FOCAL
    y = (row - height / 2 + 0.5) / FOCAL
    return np.stack([x, y, np.ones_like(x)], -1)


def plane(size=120, normal=(0.4, -0.3, -1.0)):
    normal = np.array(normal) / np.linalg.norm(normal)
    ray = rays(size, size)
    depth = normal @ (0, 0, DISTANCE) / (ray @ normal)
    seen = np.ones((size, size), bool)
    return depth[..., None] * ray, np.broadcast_to(normal, ray.shape), seen


def round_surface(size, project, radius):
    ray, centre = rays(size, size), np.array([0.0, 0.0, DISTANCE + 0.05])
    across, middle = ray @ project, project @ centre
    a, b = (across**2).sum(-1), across @ middle
    inside = b**2 - a * (middle @ middle - radius**2)
    seen = inside > 0
    depth = (b - np.sqrt(np.maximum(inside, 0))) / a
    points = np.where(seen[..., None], depth[..., None] * ray, 0)
    normal = np.where(seen[..., None], points @ project - middle, 0)
    length = np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return points, normal / length, seen


def sphere(size=120):
    return round_surface(size, np.eye(3), 0.08)


def cylinder(size=120):
    axis = np.array([0.3, 1.0, 0.1]) / np.linalg.norm([0.3, 1.0, 0.1])
    return round_surface(size, np.eye(3) - np.outer(axis, axis), 0.075)


SURFACES = {"plane": plane, "sphere": sphere, "cylinder": cylinder}


def measured(points, seen, noise, holes, seed=0):
    """What a sensor would give: noise along z in pixel distances, a share of missing pixels."""
    random = np.random.default_rng(seed)
    points = points.copy()
    points[..., 2] += noise * PITCH * random.standard_normal(seen.shape)
    valid = seen & (random.random(seen.shape) >= holes)
    return np.where(valid[..., None], points, 0).astype(np.float32), valid


def part_on_table(kind, size=240, holes=0.05, noise=2e-4, seed=0):
    """A part of 80 mm on a tilted table, seen from 0.6 m; and the pixels more than 5.5 mm high."""
    random = np.random.default_rng(seed)
    pitch = 0.15 / size
    row, column = np.mgrid[:size, :size] - size / 2 + 0.5
    x, y = column * pitch, row * pitch
    left, top = random.uniform(-0.01, 0.01, 2)
    away = np.hypot(x - left, 1.2 * (y - top))
    height = {
        "dome": 0.8 * np.sqrt(np.maximum(0.05**2 - away**2, 0)),
        "ring": 1.5 * np.sqrt(np.maximum(0.015**2 - (away - 0.035) ** 2, 0)),
        "box": np.where(np.maximum(np.abs(x - left), np.abs(y - top)) < 0.04, 0.02, 0),
    }[kind]
    z = DISTANCE + 0.1 * x - 0.05 * y - height + noise * random.standard_normal(x.shape)
    scale = z / DISTANCE
    points = np.stack([x * scale, y * scale, z], -1)
    points[random.random(x.shape) < holes] = 0
    return points.astype(np.float32), height > 0.0055


def angle(one, other):
    """Degrees between unit vectors."""
    return np.degrees(np.arccos(np.clip(np.sum(one * other, axis=-1), -1, 1)))
