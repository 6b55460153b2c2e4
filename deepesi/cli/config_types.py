"""Checks values of a configuration against the declared types of constructors."""

import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

#: Renamed keys: last part of the old key, and the new name.
RENAMED = {
    "course": "time_course",
    "courses": "kinds",
    "n_places": "n_components",
    "n_looks": "n_passes",
    "through": "leadfield",
    "knob": "parameter",
}

#: Keys whose values may have another type than in the YAML files.
ANY_TYPE = {"name", "trainer.devices"}
#: Keys that are removed before a class is built, because its constructor does not take them.
REMOVED = {"levels"}
WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list, [a,b]",
    dict: "a group of keys",
}


def check_config(config: DictConfig, usual: DictConfig) -> None:
    """Refuse values of a wrong type and keys that a constructor lacks, before anything is built.

    If a group names a class (``_target_``), its constructor gives the expected types; else the
    default configuration gives them.

    Args:
        config: Configuration to check.
        usual: Configuration of the same command without overrides.

    Raises:
        ValueError: A value has the wrong type, or a key is unknown.

    """
    values = OmegaConf.to_container(config, resolve=True)
    usual_values = OmegaConf.to_container(usual, resolve=False)
    assert isinstance(values, dict)
    assert isinstance(usual_values, dict)
    _check_like(values, usual_values, "")
    for key, node in targets(values):
        _check_target(node, key)
    for key, node in targets(values):
        if node["_target_"].startswith("deepesi.data_gen.") and not node.get("_partial_"):
            hydra.utils.instantiate(OmegaConf.select(config, key), _convert_="all")  # its ranges


def targets(values: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every group that names a class, and its key."""
    if isinstance(values, dict):
        if "_target_" in values:
            yield key, values
        for name, value in values.items():
            yield from targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            yield from targets(value, f"{key}[{number}]")


def _check_like(values: Mapping[Any, Any], usual: Mapping[Any, Any], prefix: str) -> None:
    for name, expected in usual.items():
        key, value = f"{prefix}{name}", values.get(name)
        if key in ANY_TYPE or any(_is_open(v) for v in (expected, value)):
            continue
        kind = float if type(expected) is int and isinstance(value, int) else type(expected)
        if not fits(value, kind):
            raise ValueError(f"{key}={value}: expected {WORDS[type(expected)]}.")
        if isinstance(value, dict) and "_target_" not in expected:
            _check_like(value, expected, f"{key}.")


def _is_open(value: Any) -> bool:
    """Whether a value has no type: null, an interpolation, or missing."""
    return value is None or (isinstance(value, str) and value.startswith(("${", "???")))


def _check_target(node: Mapping[str, Any], key: str) -> None:
    kind = hydra.utils.get_object(node["_target_"])
    name = node["_target_"].split(".")[-1]
    parameters = inspect.signature(kind).parameters
    given = {k: v for k, v in node.items() if not k.startswith("_")}
    unknown = [k for k in given if k not in parameters and k not in REMOVED]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        new = RENAMED.get(unknown[0])
        cure = f"is called {new} now" if new in parameters else f"has {', '.join(parameters)}"
        raise ValueError(f"{key}.{unknown[0]}: {name} has no such setting; it {cure}.")
    if not node["_target_"].startswith("deepesi."):
        return
    hints = typing.get_type_hints(kind.__init__ if inspect.isclass(kind) else kind)
    for setting, value in given.items():
        if setting in hints and value != "???" and not fits(value, hints[setting]):
            hint = hints[setting]
            expected = WORDS.get(hint, str(hint).replace("typing.", ""))
            raise ValueError(f"{key}.{setting}={value}: {name} expected {expected}.")


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a YAML file can become an argument of a type.

    Whole numbers are numbers, texts are paths, lists are sequences and tuples; a group of keys
    becomes an object. Types that no YAML value has are not checked.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if hint is type(None):
        return value is None
    if origin is typing.Literal:
        return value in arguments
    if hint is bool or isinstance(value, bool):
        return isinstance(value, bool) and hint in (bool, Any)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float)
    if hint in (str, Path):
        return isinstance(value, str)
    return _fits_group(value, hint, origin, arguments)


def _fits_group(value: Any, hint: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    if origin is tuple and Ellipsis not in arguments:
        return (
            isinstance(value, list)
            and len(value) == len(arguments)
            and all(map(fits, value, arguments))
        )
    if origin in (tuple, list, Sequence):
        return isinstance(value, list) and all(fits(v, arguments[0]) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict)
    if hint in (list, dict):
        return isinstance(value, hint)
    if inspect.isclass(hint) and hint.__module__.startswith("deepesi."):
        return isinstance(value, dict)
    return True
