"""Scoring: reconstruction → anomaly map, score, label, regions."""
