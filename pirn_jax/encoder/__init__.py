"""Encoder: pictures → tokens."""
