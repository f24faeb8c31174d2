"""Geometry: Scan → Views."""
