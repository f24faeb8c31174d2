"""What a rule is: how one kind of equation of a JAX program is written in ONNX.

A rule takes the graph, the equation's parameters, its inputs and the shapes of its outputs, and
returns the outputs. What is known already is computed on the spot, in numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pirn_jax.deploy.graph import Graph, Value

Params = Mapping[str, Any]
Rule = Callable[[Graph, Params, list[Value], Sequence[Any]], list[Value]]
Rules = dict[str, Rule]
"""By the name of JAX's primitive."""


def rule_for(rules: Rules, *names: str) -> Callable[[Rule], Rule]:
    """Makes a function the rule of these primitives."""

    def keep(rule: Rule) -> Rule:
        rules.update(dict.fromkeys(names, rule))
        return rule

    return keep
