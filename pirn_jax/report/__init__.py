"""Report: a run folder → one offline HTML file, for the engineer who has to decide.

>>> from pirn_jax.report import write_report
>>> write_report("runs/flange")             # runs/flange/report.html

`contents` reads the folder, `figures` draws the curves, `pictures` the heatmaps, `html` the page.
"""

from pirn_jax.report.html import write_report

__all__ = ["write_report"]
