"""Synthetic: rendered scans of parts, good and defective, with exact masks."""

from pirn_jax.scans.synthetic.generator import (
    CATEGORIES,
    GENERATOR_VERSION,
    HELD_OUT,
    describe,
    generator_hash,
    open_synthetic,
    render,
    write_mvtec3d,
)

__all__ = [
    "CATEGORIES",
    "GENERATOR_VERSION",
    "HELD_OUT",
    "describe",
    "generator_hash",
    "open_synthetic",
    "render",
    "write_mvtec3d",
]
