"""Names that were meant, for errors about a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """``Nearest: b; all: a, b, c.``, or ``All: a, b, c.`` where none is like the name."""
    names = list(known)
    close, every = get_close_matches(name, names, n=3), ", ".join(names)
    return f"Nearest: {', '.join(close)}; all: {every}." if close else f"All: {every}."
