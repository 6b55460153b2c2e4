"""Loads a head: a packaged head, a file, or a forward solution."""

from pathlib import Path
from typing import TYPE_CHECKING

from deepesi.physics.building.own_head import head_of_forward, head_of_solution
from deepesi.physics.template import Template, load_oriented

if TYPE_CHECKING:
    import mne


def load_head(
    head: "str | Path | mne.Forward" = "fsaverage-ico3", n_orient: int | None = None
) -> Template:
    """Load a head to train, evaluate or simulate on.

    A packaged head, and one of ``deepesi head build``, takes any montage and any tissues. A forward
    solution has its own sensors and one lead field.

    >>> load_head("fsaverage-ico3").space.n_sources
    1284

    Args:
        head: Name of a packaged head; path of an ``.npz`` of ``deepesi head build``; an
            `mne.Forward`, or the path of its ``-fwd.fif``.
        n_orient: Dipole components per source: 1, along the normal of the cortex, or 3. None: as
            the head has it; of a forward solution 1.

    Raises:
        FileNotFoundError: There is no such head or file.
        TypeError: `head` is none of these.
        ValueError: As in `deepesi.physics.template.load_template` and `head_of_forward`; or a
            packaged head or file has another `n_orient`.

    """
    import mne

    of_solution = 1 if n_orient is None else n_orient
    if isinstance(head, mne.Forward):
        return head_of_solution(head, of_solution)
    if not isinstance(head, str | Path):
        raise TypeError(
            f"load_head: got {type(head).__name__}, expected the name of a packaged head "
            "(fsaverage-ico3), the path of an .npz or -fwd.fif file, or an mne.Forward."
        )
    if str(head).endswith((".fif", ".fif.gz")):
        return head_of_forward(head, of_solution)
    template = load_oriented(head, n_orient)
    if n_orient not in (None, template.space.n_orient):
        raise ValueError(
            f"load_head: {head} has {template.space.n_orient} dipole component(s) per source, "
            f"n_orient={n_orient} was asked for. Give the name of a packaged head, build one with "
            "'deepesi head build --free-orientation', or leave n_orient as the head has it."
        )
    return template
