"""Methods: what learns from tokens of good scans, and gives those of others distances.

One file per system. Each has its settings (a `MethodSettings`), named sets of them (`RECIPES`), and
a class that is a `Method`; a line in `METHODS` makes it one of `--method`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from pirn_jax.errors import check_name
from pirn_jax.methods.settings import MethodSettings

METHODS = {
    "mixture": "pirn_jax.methods.mixture",
    "pirn": "pirn_jax.methods.pirn",
    "memory": "pirn_jax.methods.memory",
    "subspace": "pirn_jax.methods.subspace",
    "inp-former": "pirn_jax.methods.inp_former",
    "simplenet": "pirn_jax.methods.simplenet",
    "cflow": "pirn_jax.methods.cflow",
    "cfm": "pirn_jax.methods.cfm",
    "ast": "pirn_jax.methods.ast",
    "m3dm": "pirn_jax.methods.m3dm",
    "btf": "pirn_jax.methods.btf",
    "shape-guided": "pirn_jax.methods.shape_guided",
}

__all__ = ["METHODS", "MethodSettings", "find_recipe", "method_of", "recipes_of"]


def recipes_of(method: str) -> Mapping[str, MethodSettings]:
    """A method's recipes by name; each has "default".

    Raises:
        ConfigError: no such method.
    """
    check_name("method", method, METHODS)
    return importlib.import_module(METHODS[method]).RECIPES


def method_of(recipe: str | MethodSettings) -> str:
    """The first method with a recipe of that name, or with recipes of that kind.

    Raises:
        ConfigError: none has.
    """
    named = {method: recipes_of(method) for method in METHODS}
    if isinstance(recipe, str):
        known = {name: method for method, recipes in named.items() for name in recipes}
        check_name("recipe", recipe, known)
        return next(method for method, recipes in named.items() if recipe in recipes)
    return next(method for method, known in named.items() if type(recipe) is type(known["default"]))


def find_recipe(method: str, recipe: str) -> MethodSettings:
    """A recipe of a method.

    Raises:
        ConfigError: no such method, or no such recipe of it.
    """
    known = recipes_of(method)
    check_name(f"recipe of {method}", recipe, known)
    return known[recipe]
