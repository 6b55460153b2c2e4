"""Several maps of sources side by side on the inflated cortex."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.template import DisplayMesh
from deepesi.viz.cortex import best_views, covering_views, draw_cortex

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

Array = NDArray[np.float64]


def draw_maps(
    figure: "FigureBase",
    maps: Mapping[str, Array],
    mesh: DisplayMesh,
    marks: Sequence[int] = (),
    n_views: int = 2,
) -> None:
    """Draw maps in columns and views in rows, every map in a colour range of its own.

    Args:
        figure: Figure or subfigure to draw in.
        maps: Title to magnitudes ``(S,)`` of any unit, not negative.
        mesh: Cortex mesh, `deepesi.physics.template.Template.display`.
        marks: Numbers of sources to mark with a ring. The views show them best; without marks,
            the strongest source of the first map.
        n_views: Number of views.

    Raises:
        ValueError: There is no map, or a map is no vector of finite magnitudes.

    """
    if not maps:
        raise ValueError("draw_maps: got no maps, expected a title and magnitudes for each.")
    for title, values in maps.items():
        if values.ndim != 1 or not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(
                f"draw_maps: {title!r} has the shape {values.shape} or negative or non-finite "
                "values, expected one magnitude per source. Take np.abs, or "
                "deepesi.physics.head.magnitudes of free orientation, at one sample."
            )
    first = next(iter(maps.values()))
    rings = np.asarray(marks, np.int64)
    views = (
        covering_views(rings, mesh, n_views)
        if len(rings) > 1
        else best_views(int(rings[0] if len(rings) else first.argmax()), mesh, n_views)
    )
    axes = figure.subplots(n_views, len(maps), squeeze=False)
    for column, (title, values) in enumerate(maps.items()):
        for row, view in enumerate(views):
            ax = axes[row, column]
            draw_cortex(ax, values, mesh, view, float(values.max()), rings)
            ax.set_title(f"{title}\n{view}" if row == 0 else view, fontsize=9)
