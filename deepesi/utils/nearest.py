"""Similar names, for errors about an unknown name."""

from collections.abc import Iterable
from difflib import get_close_matches


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names that are most similar to an unknown one, best first; at most three."""
    return get_close_matches(name, list(known), n=3)


def nearest(name: str, known: Iterable[str]) -> str:
    """``Nearest: b; all: a, b, c.``, or ``All: a, b, c.`` where none is like the name."""
    names = list(known)
    near, every = near_names(name, names), ", ".join(names)
    return f"Nearest: {', '.join(near)}; all: {every}." if near else f"All: {every}."
