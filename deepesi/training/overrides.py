"""Overrides of Hydra as text: written so that they can be typed, read where quotes are missing."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

#: Values that the grammar of Hydra reads as texts as they stand, in any place; but for `WORDS`.
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+-]*")
WORDS = ("null", "true", "false", "inf", "nan")
#: A key, ``=``, and all the rest, which is the value however many ``=`` it holds.
OVERRIDE = re.compile(r"(?P<key>[+~]{0,2}[\w./@:-]+)=(?P<value>.*)", re.DOTALL)


def quoted(value: str | Path) -> str:
    """A text as the grammar of Hydra reads it back: in quotes where it needs them."""
    text = str(value)
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return text if plain else QuotedString(text, Quote.single).with_quotes()


def typed(key: str, value: str | Path | Sequence[str | Path]) -> str:
    """``key=value`` to type in a shell: quoted for Hydra, then for the shell.

    Args:
        key: Of the configuration.
        value: A text or path, or several as a list.

    """
    if isinstance(value, str | Path):
        return shlex.quote(f"{key}={quoted(value)}")
    return shlex.quote(f"{key}=[{','.join(map(quoted, value))}]")


def understood(overrides: Sequence[str]) -> list[str]:
    """Overrides with quotes where they lack them: around paths with ``=``, brackets, ``~`` ...

    Only what Hydra could not read is changed, a comma where it is part of the name of a file that
    exists, and ``~/`` at the beginning of a path, which is the home folder as in a shell. What is
    no ``key=value`` stays as it is.
    """
    return [_understood(override) for override in overrides]


def _understood(override: str) -> str:
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
    """What stands between commas; those that are part of the name of a file are no such commas."""
    if not parts:
        return []
    for end in range(len(parts), 0, -1):
        whole = _at_home(",".join(parts[:end]).strip())
        if end == 1 or ("/" in whole and Path(whole).exists()):
            break
    return [whole, *_joined(parts[end:])]


def _sweeps(override: str) -> bool | None:
    """Whether an override names several values, one per run; None if Hydra cannot read it."""
    try:
        (parsed,) = OverridesParser.create().parse_overrides([override])
    except HydraException:
        return None
    return parsed.is_sweep_override()


def _quoted_once(text: str) -> str:
    """A text in quotes, unless it is already or Hydra reads it without."""
    return text if _sweeps(f"key={text}") is False else quoted(text)
