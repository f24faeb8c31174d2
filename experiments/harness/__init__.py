"""What stands behind every table and figure: jobs, a token store, the runner, sheets, drawings.

Imported as `harness`: `python experiments/table01.py` puts `experiments/` on the path, and pytest
does the same (`pythonpath` in pyproject.toml).
"""
