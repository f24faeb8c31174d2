"""The recipe study: is the default better than the baselines, and is every part of it needed?

`command.py` has the protocol; `python experiments/recipe_study` runs it.
"""
