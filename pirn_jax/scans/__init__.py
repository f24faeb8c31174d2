"""Scans: files → Scan."""
