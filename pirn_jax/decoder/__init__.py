"""Decoder: tokens → reconstruction."""
