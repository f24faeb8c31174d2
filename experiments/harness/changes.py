"""What a row changes of a detector's settings: dotted names to typed values.

    {"decoder.prototypes": 50}
    {"loss.form": "per_token", "loss.exponent": 3.0, "epochs": 30}

Given as a mapping and kept as pairs, which can be hashed. `pirn_jax.config.with_settings` applies
them, and refuses a name or a type that does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from pirn_jax.config import Config

Pairs = tuple[tuple[str, object], ...]
Change = Mapping[str, object] | Pairs
_DETECTORS_OWN = ("decoder.modalities", "decoder.solver")  # fields of Config, and said there


def pairs_of(change: Change) -> Pairs:
    """The change as pairs, in the order given."""
    return tuple(dict(change).items())


def labels_of(change: Change) -> list[str]:
    """Each setting as it is shown: name=value."""
    return [f"{name}={value}" for name, value in dict(change).items()]


def changes_of(config: Config) -> Pairs:
    """By what a detector's settings differ from those of its method and recipe."""
    own = _flat(asdict(config.settings))
    usual = _flat(asdict(Config(method=config.method, recipe=config.recipe).settings))
    return tuple(
        (name, value)
        for name, value in own.items()
        if name not in _DETECTORS_OWN and usual.get(name) != value
    )


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
