"""The report's figures: matplotlib → inline SVG that takes its colours and font from the page.

matplotlib writes fixed colours and a fixed font. The figures are drawn in three marker colours, and
these are replaced by the page's CSS variables: one figure serves light, dark and print. No text of
a file goes into a figure: titles and captions stand beside it, escaped, in the HTML.

Every function returns an `<svg>` element; `label` is what a screen reader says.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pirn_jax.report.schema import Curve

INK, SOFT, ACCENT = "#101112", "#131415", "#161718"
"""Marker colours: nothing else is drawn, so that each can be found and replaced."""

_VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", ACCENT: "var(--accent)"}
_SIZE = (3.3, 2.35)  # inches; scaled to the column, so this only sets the relative text size
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.4,
}


def score_histogram(
    good: Sequence[float],
    defective: Sequence[float],
    threshold: float | None,
    label: str,
    *,
    named: str = "good",
) -> str:
    """How far good and defective scans lie apart, and where the threshold cuts.

    Args:
        good: scores of good scans; may be empty, as may `defective`.
        defective: scores of defective scans.
        threshold: drawn if given.
        label: for screen readers.
        named: what the legend calls `good`, where the truth is not known.
    """

    def draw(axes: Any) -> None:
        values = [*good, *defective, *([] if threshold is None else [threshold])]
        low, high = min(values), max(values)
        margin = (high - low) * 0.03 or abs(high) * 0.03 or 1.0
        count = min(30, max(10, len(good) + len(defective)))
        bins = np.linspace(low - margin, high + margin, count + 1)
        for scores, colour, name in ((good, SOFT, named), (defective, ACCENT, "defective")):
            if len(scores):
                axes.hist(scores, bins, color=colour, alpha=0.55, label=name, histtype="stepfilled")
                axes.plot(scores, np.zeros(len(scores)), "|", color=colour, ms=6, clip_on=False)
        if threshold is not None:
            axes.axvline(threshold, color=INK, lw=1, ls=(0, (4, 2)), label="threshold")
        axes.set_xlabel("image score")
        axes.set_ylabel("scans")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.2)

    return _svg(draw, label)


def rate_curves(
    curves: Mapping[str, Sequence[Curve]], limit: float, label: str, vertical: str
) -> str:
    """ROC or PRO curves over the false-positive rate.

    Args:
        curves: by the legend's name: one (rates, values) per seed, the first drawn strongest.
        limit: largest false-positive rate shown, in (0, 1].
        label: for screen readers.
        vertical: what goes up.
    """

    def draw(axes: Any) -> None:
        if limit == 1:
            axes.plot([0, 1], [0, 1], color=SOFT, lw=0.6, ls=(0, (1, 2)))
        shown = {name: seeds for name, seeds in curves.items() if seeds}
        for (name, seeds), colour in zip(shown.items(), (ACCENT, INK), strict=False):
            for place, (across, up) in enumerate(seeds):
                first = place == 0
                axes.plot(
                    across,
                    up,
                    color=colour,
                    alpha=1.0 if first else 0.35,
                    lw=1.4 if first else 0.8,
                    label=name if first else None,
                )
        axes.set(xlim=(0, limit), ylim=(0, 1.02), xlabel="false-positive rate", ylabel=vertical)
        if len(shown) > 1:
            axes.legend(loc="lower right")

    return _svg(draw, label)


def loss_curve(seeds: Sequence[Sequence[tuple[float, float]]], label: str) -> str:
    """Training loss over the epochs, logarithmic where it is positive throughout.

    Args:
        seeds: (epoch, loss) of each seed, the first drawn strongest.
        label: for screen readers.
    """

    def draw(axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        for place, losses in enumerate(seeds):
            epochs, values = zip(*losses, strict=True)
            first = place == 0
            axes.plot(
                epochs,
                values,
                color=ACCENT,
                alpha=1.0 if first else 0.35,
                lw=1.4 if first else 0.8,
                marker="." if len(values) == 1 else None,
            )
        lowest = min(value for losses in seeds for _, value in losses)
        highest = max(value for losses in seeds for _, value in losses)
        if lowest > 0 and highest / lowest > 10:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=min(0.0, lowest))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="epoch", ylabel="training loss")

    return _svg(draw, label)


def usage_bars(shares: Sequence[float], label: str) -> str:
    """Share of the tokens that each prototype answers for, largest first.

    Args:
        shares: one per prototype, sum about 1.
        label: for screen readers.
    """

    def draw(axes: Any) -> None:
        ordered = sorted(shares, reverse=True)
        axes.bar(np.arange(1, len(ordered) + 1), ordered, color=ACCENT, alpha=0.8, width=0.7)
        axes.axhline(1 / len(ordered), color=INK, lw=0.8, ls=(0, (4, 2)))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="prototype, most used first", ylabel="share of tokens")

    return _svg(draw, label)


def _svg(draw: Callable[[Any], None], label: str) -> str:
    """Draw on fresh axes and return the element, without header, ids of groups, or fixed style."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    label = label.encode("utf-8", "replace").decode("utf-8")  # a name may be no UTF-8
    # The salt tells figures apart: ids of clip paths and markers must be unique in the page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": label}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        draw(axes)
        FigureCanvasSVG(figure)
        buffer = io.StringIO()
        figure.savefig(
            buffer,
            format="svg",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    box = re.search(r'viewBox="([\d. ]+)"', text)
    assert box is not None, "matplotlib writes a viewBox"
    body = text[text.index(">", box.end()) + 1 :].strip()
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"font:([^;\"]*?)'[^;\"]*", r"font:\1inherit", body)
    body = re.sub(r"font-family:[^;\"]*", "font-family: inherit", body)
    for marker, variable in _VARIABLES.items():
        body = body.replace(marker, variable)
    body = re.sub(r' (?:d|x|y|transform)="[^"]*"', _rounded, body)
    body = re.sub(r"\s*\n\s*", " ", body)
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{html.escape(label)}">{body}'


def _rounded(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point: half the bytes, no visible difference."""
    return re.sub(r"\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", attribute[0])
