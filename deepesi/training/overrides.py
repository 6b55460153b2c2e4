"""Hydra overrides as text: quoting for the shell, and reading without quotes."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

#: Values that Hydra reads as strings without quotes, except `WORDS`.
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
WORDS = ("null", "true", "false", "inf", "nan")
#: Key, ``=`` and value; the value may contain further ``=``.
OVERRIDE = re.compile(r"(?P<key>[+~]{0,2}[\w./@:-]+)=(?P<value>.*)", re.DOTALL)


def quoted(value: str | Path) -> str:
    """Put a string in quotes for Hydra if it needs them."""
    text = str(value)
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return text if plain else QuotedString(text, Quote.single).with_quotes()


def typed(key: str, value: str | Path | Sequence[str | Path]) -> str:
    """Return ``key=value`` for a shell, quoted for Hydra and for the shell.

    Args:
        key: Key of the configuration.
        value: String or path, or a list of them.

    """
    if isinstance(value, str | Path):
        return shlex.quote(f"{key}={quoted(value)}")
    return shlex.quote(f"{key}=[{','.join(map(quoted, value))}]")


def add_quotes(overrides: Sequence[str]) -> list[str]:
    """Add missing quotes to overrides, for paths with ``=``, brackets and similar.

    Changes values that Hydra cannot read, names of existing files with a comma, and a leading
    ``~/``, which becomes the home folder. Arguments without ``=`` do not change.
    """
    return [_with_quotes(override) for override in overrides]


def _with_quotes(override: str) -> str:
    match = OVERRIDE.fullmatch(override)
    if match is None:
        return override
    key, value = match["key"], match["value"]
    if value.startswith("[") and value.endswith("]"):
        parts = value[1:-1].split(",")
        paths = _joined(parts)
        if paths == [part.strip() for part in parts] and _sweeps(override) is not None:
            return override
        return f"{key}=[{','.join(_quoted_once(path) for path in paths)}]"
    value = _at_home(value)
    override = f"{key}={value}"
    sweeps = _sweeps(override)
    if sweeps is False or (sweeps and not ("/" in value and Path(value).exists())):
        return override
    changed = f"{key}={_quoted_once(value)}"
    return override if _sweeps(changed) is None else changed


def _at_home(text: str) -> str:
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def _joined(parts: Sequence[str]) -> list[str]:
    """Split at commas, except commas in names of existing files."""
    if not parts:
        return []
    for end in range(len(parts), 0, -1):
        whole = _at_home(",".join(parts[:end]).strip())
        if end == 1 or ("/" in whole and Path(whole).exists()):
            break
    return [whole, *_joined(parts[end:])]


def _sweeps(override: str) -> bool | None:
    """Whether an override is a sweep over several values; None if Hydra cannot read it."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except HydraException:
        return None
    return parsed.is_sweep_override()


def _quoted_once(text: str) -> str:
    """Put a string in quotes, unless Hydra can read it as it is."""
    return text if _sweeps(f"key={text}") is False else quoted(text)
