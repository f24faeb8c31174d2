"""Values of files as HTML: everything untrusted is escaped here, and nowhere else."""

from __future__ import annotations

import html
import statistics
from collections.abc import Mapping, Sequence

from pirn_jax.errors import printable
from pirn_jax.report.schema import number


def escape(value: object) -> str:
    """Any value as text that is safe in an element and in a quoted attribute."""
    if isinstance(value, list | tuple):
        value = ", ".join(str(item) for item in value)
    # A lone surrogate, as from a file name that is no UTF-8, cannot be written as UTF-8.
    return html.escape(printable(str(value)), quote=True)


def pairs(entries: Mapping[str, object] | Sequence[tuple[str, object]]) -> str:
    """The lines of a `<dl>`."""
    lines = entries.items() if isinstance(entries, Mapping) else entries
    return "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in lines)


def flatten(document: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as one list: {"a": {"b": 1}} → {"a.b": 1}."""
    found: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def count(number_of: int, what: str) -> str:
    """A number with its word: 1 scan, 2 scans. The word is not escaped."""
    return f"{number_of} {what}" + ("" if number_of == 1 else "s")


def spread(values: Sequence[float]) -> str:
    """Mean, and ± the sample standard deviation where there are several."""
    values = [v for value in values if (v := number(value)) is not None]
    if not values:
        return "–"
    deviation = f"<small>± {statistics.stdev(values):.3f}</small>" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"
