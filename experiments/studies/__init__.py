"""Measurements beside the paper, each a command: `python experiments/studies/balance.py`."""
