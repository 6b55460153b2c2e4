"""Names that were meant, for errors about a name that is not known."""

from collections.abc import Sequence
from difflib import get_close_matches


def nearest(name: str, known: Sequence[str]) -> str:
    """``Nearest: b; all: a, b, c.``, or ``All: a, b, c.`` where none is like the name."""
    close, every = get_close_matches(name, known, n=3), ", ".join(known)
    return f"Nearest: {', '.join(close)}; all: {every}." if close else f"All: {every}."
