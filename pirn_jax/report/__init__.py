"""Report: a run folder → one offline HTML file, for the engineer who has to decide.

>>> from pirn_jax.report import write_report
>>> write_report("runs/flange")             # runs/flange/report.html

A run folder is described once, for whoever writes one and for the report that reads it: `layout`
(where the files lie), `schema` (what the JSON documents hold), `tables` (scores and history).
`contents` reads a folder, `figures` draws the curves, `pictures` and `heatmap` the maps, `category`
and `html` make the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pirn_jax.report.html import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> object:
    if name == "write_report":  # the page's parts are not all needed by who needs one of them
        from pirn_jax.report.html import write_report

        return write_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
