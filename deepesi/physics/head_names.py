"""Names of the heads that ``deepesi head build`` makes."""

import re

#: End of the name of a head of free orientation.
FREE = "-free"
BUILT = re.compile(rf"(?:fsaverage|warp(\d+))-((?:ico|vol)\d+)({FREE})?")


def head_name(warp_seed: int | None, spacing: str, n_orient: int = 1) -> str:
    """Name of the file of a head: ``fsaverage-ico3``, ``warp9-ico4``, ``fsaverage-ico3-free``."""
    who = "fsaverage" if warp_seed is None else f"warp{warp_seed}"
    return f"{who}-{spacing}" + (FREE if n_orient == 3 and "vol" not in spacing else "")


def build_options(name: str) -> str | None:
    """Options of ``deepesi head build`` for the head of this name; None: it makes none of it."""
    built = BUILT.fullmatch(name)
    if built is None:
        return None
    seed, spacing, free = built.groups()
    options = [f"--spacing {spacing}"]
    options += [f"--warp-seed {seed}"] if seed else []
    options += ["--free-orientation"] if free else []
    return " ".join(options)
