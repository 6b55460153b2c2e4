"""Errors of configurations as one line that begins with the key."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf

from deepesi.cli.config_types import RENAMED, targets
from deepesi.composition import compose, names_in
from deepesi.utils.nearest import near_names


def usual_config(command: str) -> DictConfig:
    """The configuration of a command without any override."""
    return compose(command)


def one_line_error(
    error: Exception,
    command: str,
    config: DictConfig | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """An error in one line: the key that caused it, what is wrong, what to do.

    Args:
        error: The exception.
        command: Name of the command.
        config: Configuration of the command, if it was composed.
        overrides: What was typed, ``key=value``.

    """
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override!r} cannot be read ({_line(error).split(' See https')[0]}). Give "
            "key=value; values with blanks, commas, = or brackets in quotes of Hydra inside those "
            "of the shell: \"ckpt='a=b/last.ckpt'\"."
        )
    *_, cause = _causes(error)
    key = getattr(cause, "full_key", None) or _full_key(error)
    if isinstance(error, ConfigCompositionException) and key:
        return f"{key}: there is no such key. {_nearest(str(key), command, overrides)}"
    if "Missing mandatory value" in str(cause):
        given = re.sub(r".*Missing mandatory value: (\S+).*", r"\1", _line(cause))
        return f"{given} must be given: {given}=..."
    text = _near_option(_line(cause).split(" Config search path:")[0])
    key = key or _key_named(text, config)
    if key is None and config is not None and isinstance(cause, FileNotFoundError):
        key = _key_with(text, OmegaConf.to_container(config, resolve=True), "")
    if key is None or text.startswith(key) or ("." in key and key in text) or f"{key}=" in text:
        return text
    return f"{key}: {text}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes."""
    while True:
        yield error
        if error.__cause__ is None or not type(error).__module__.startswith("hydra."):
            return
        error = error.__cause__


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _full_key(error: BaseException) -> str | None:
    """Key in a configuration at which Hydra raised an error."""
    found = re.search(r"full_key: (\S+)", str(error))
    return found[1] if found else None


def _renamed(key: str, command: str, overrides: Sequence[str]) -> str | None:
    """Text with the new name of a key in the chosen groups; None if no group has it."""
    group, _, last = key.rpartition(".")
    groups = [word for word in overrides if re.match(r"[\w/@]+=", word)]
    try:
        config = compose(command, groups)
    except HydraException:  # the configuration has more errors than this key
        config = usual_config(command)
    known = list(_keys(OmegaConf.to_container(config), ""))
    new = f".{RENAMED[last]}"
    if f"{group}{new}" in known:
        return f"It is called {group}{new} now."
    near = [k for k in known if k.startswith(key.split(".")[0]) and k.endswith(new)]
    return f"{last} is called {RENAMED[last]} now: {', '.join(near)}." if near else None


def _nearest(key: str, command: str, overrides: Sequence[str]) -> str:
    if key.split(".")[-1] in RENAMED and (new := _renamed(key, command, overrides)):
        return new
    known = list(_keys(OmegaConf.to_container(usual_config(command)), ""))
    near = [k for k in known if k.split(".")[-1] == key.split(".")[-1]]
    near = near or near_names(key, known)
    if not near:
        near = [k for k in known if key.split(".")[0] == k.split(".")[0]][:12]
    shown = f"Nearest: {', '.join(near)}. " if near else ""
    return f"{shown}All keys: deepesi {command} --cfg job."


def _keys(values: Any, prefix: str) -> Iterator[str]:
    """Dotted keys of groups and values."""
    for name, value in values.items() if isinstance(values, dict) else ():
        yield f"{prefix}{name}"
        yield from _keys(value, f"{prefix}{name}.")


def _near_option(text: str) -> str:
    """The same text; if a group lacks an option, with the nearest options."""
    found = re.search(r"Could not (?:find|load) '(\w+)/([^']+)'", text)
    near = near_names(found[2], names_in(found[1])) if found else []
    return f"{text.rstrip('.')}. Nearest: {', '.join(near)}." if near else text


def _key_with(text: str, values: Any, key: str) -> str | None:
    """The key whose value is the missing path in a text."""
    if isinstance(values, str):
        return key if f"there is no {values}." in text or f"{values!r}" in text else None
    below = values.items() if isinstance(values, dict) else ()
    parts = [(f"{key}.{name}" if key else str(name), value) for name, value in below]
    parts += [(key, value) for value in values] if isinstance(values, list) else []
    return next((found for part in parts if (found := _key_with(text, part[1], part[0]))), None)


def _key_named(text: str, config: DictConfig | None) -> str | None:
    """The key of the setting in an error of a constructor: ``Class: setting ...``."""
    found = re.match(r"(\w+): (\w+)", text)
    if found is None or config is None:
        return None
    for key, node in targets(OmegaConf.to_container(config, resolve=False)):
        if node["_target_"].split(".")[-1] == found[1] and found[2] in node:
            return f"{key}.{found[2]}"
    return None
