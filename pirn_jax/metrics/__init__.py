"""Metrics: maps and masks → figures."""
