"""Scans: files → Scan."""

from pirn_jax.scans.scan import Scan

__all__ = ["Scan"]
