"""Configs as JSON: what a run and a model keep of their settings, and how it is believed again.

The file is untrusted: every field is checked against its type as strict JSON (no text for a number,
no number for a truth), by pydantic; an unknown one is refused. It never names code: what would be
imported is refused unless the caller allows exactly that name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from pirn_jax.config import Config, TrainConfig, leaves
from pirn_jax.errors import ConfigError, check_name
from pirn_jax.methods import find_recipe, method_of

_log = logging.getLogger("pirn_jax")
_Kind = TypeVar("_Kind", Config, TrainConfig)
# Which of several processes this is says nothing of a run; and where things are written, where
# programs lie, or what a file may cost this machine is for whoever starts a run to say, never for a
# file.
_CALLERS_OWN = (
    *("coordinator", "processes", "process"),
    *("out", "overwrite", "resume", "cache", "limits"),
)


def to_json(config: Config | TrainConfig) -> dict[str, Any]:
    """A config as one JSON object, `from_json`'s inverse.

    A detector's recipe is there by name, and in full as `settings`; a run's object holds the
    detector's fields beside its own, but for its seed, and says nothing of folders and processes.
    """
    if isinstance(config, TrainConfig):
        document = {
            f.name: getattr(config, f.name)
            for f in fields(config)
            if f.name not in ("detector", *_CALLERS_OWN)
        }
        detector = to_json(config.detector)
        del detector["seed"]
        return document | detector
    document = {f.name: getattr(config, f.name) for f in fields(config)}
    return document | {"recipe": config.recipe_name, "settings": asdict(config.chosen_recipe)}


def code_named(config: Config) -> tuple[str, ...]:
    """What a detector's recipe would import: every `package.module:function` in it."""
    values = [value for _, value in leaves(asdict(config.chosen_recipe))]
    return tuple(value for value in values if isinstance(value, str) and ":" in value)


def from_json(
    kind: type[_Kind], document: Mapping[str, Any], path: str, allow_code: Collection[str] = ()
) -> _Kind:
    """A config from JSON.

    Args:
        kind: Config or TrainConfig.
        document: what `to_json` made; fields left out have their defaults, and where `settings` is
            left out the recipe is the one named, as are its fields that are left out.
        path: the file, for messages.
        allow_code: code that the file may name; said in the log where it does.

    Raises:
        ConfigError: an unknown field, a value of another type or out of range, or code that is not
            allowed.
    """
    config = _read(kind, document, path)
    for name in code_named(config.detector if isinstance(config, TrainConfig) else config):
        if name not in allow_code:
            raise ConfigError(
                f"it names code to be run, {name!r}",
                f"where you trust that function: --allow-code {name}, from Python "
                f"allow_code=({name!r},)",
                path,
            )
        _log.warning("%s: runs code that was allowed: %s", path, name)
    return config


def _read(kind: type[_Kind], document: Mapping[str, Any], path: str) -> _Kind:
    if kind is TrainConfig:
        if "detector" in document:
            raise ConfigError("no field 'detector'", "its fields stand beside the others", path)
        own = {f.name for f in fields(Config)} - {"seed"} | {"settings"}
        inner = {name: value for name, value in document.items() if name in own}
        said = [name for name in _CALLERS_OWN if document.get(name)]
        if said:
            _log.warning("%s: not taken from a file, only from flags: %s", path, ", ".join(said))
        outer = {n: value for n, value in document.items() if n not in (own | {*_CALLERS_OWN})}
        detector = _read(Config, inner, path)
        # Checked together: what data there is decides what the detector may look at.
        return _validated(kind, outer, path, detector=detector)
    plain = {name: value for name, value in document.items() if name != "settings"}
    settings = document.get("settings")
    if settings is None:
        return _validated(kind, plain, path)
    recipe, method = str(plain.pop("recipe", "default")), str(plain.get("method", "auto"))
    try:
        plain["method"] = method_of(recipe) if method == "auto" else method.replace("_", "-")
        named = find_recipe(plain["method"], recipe)
    except ConfigError as error:
        raise ConfigError(error.problem, error.remedy, path) from error
    return _validated(kind, plain, path, recipe=_validated(type(named), settings, path, named))


_Data = TypeVar("_Data")


def _validated(
    kind: type[_Data], document: object, path: str, base: _Data | None = None, **given: object
) -> _Data:
    """The dataclass, its fields as strict JSON has them; those given are as they are.

    Fields left out are those of `base`, or have their defaults.
    """
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(document, Mapping):
        raise ConfigError(f"expected an object, got {type(document).__name__}", path=path)
    types = get_type_hints(kind, include_extras=True)
    names = [f.name for f in fields(kind) if f.name not in given]  # type: ignore[arg-type]
    values: dict[str, object] = {} if base is None else {n: getattr(base, n) for n in names}
    values |= given
    for name, value in document.items():
        try:
            check_name("field", name, names)
        except ConfigError as error:
            raise ConfigError(error.problem, error.remedy, path) from error
        inner = types[name]
        if isinstance(inner, type) and is_dataclass(inner):
            values[name] = _validated(inner, value, path, values.get(name))
            continue
        try:
            values[name] = TypeAdapter(types[name]).validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{name}: got {json.dumps(value)}: {said}", path=path) from error
    try:
        return kind(**values)
    except ConfigError as error:
        raise ConfigError(error.problem, error.remedy, path) from error
