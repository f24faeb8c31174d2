"""What a row changes of a detector's settings: dotted names to typed values.

    {"decoder.prototypes": 50}
    {"loss.form": "per_token", "loss.exponent": 3.0, "epochs": 30}

Given as a mapping and kept as pairs, which can be hashed. `pirn_jax.config.with_settings` applies
them, and refuses a name or a type that does not exist; `Config.changed` finds them again.
"""

from __future__ import annotations

from collections.abc import Mapping

Pairs = tuple[tuple[str, object], ...]
Change = Mapping[str, object] | Pairs


def pairs_of(change: Change) -> Pairs:
    """The change as pairs, in the order given."""
    return tuple(dict(change).items())


def labels_of(change: Change) -> list[str]:
    """Each setting as it is shown: name=value."""
    return [f"{name}={value}" for name, value in dict(change).items()]
