"""Maps side by side."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from deepesi.viz.maps import draw_maps


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


def test_views_show_the_marked_sources(toy):
    figure = Figure()
    maps = {name: np.arange(84.0) for name in ("a", "b")}
    draw_maps(figure, maps, toy.display, [3], n_views=2)
    assert [title.split("\n")[0] for title in titles(figure)[:2]] == ["a", "b"]
    assert all("left" in title for title in titles(figure))  # source 3 of 42 on the left
    rings = [c for c in figure.axes[0].collections if isinstance(c, PathCollection)]
    assert [len(ring.get_offsets()) for ring in rings] == [1]


def test_without_marks_the_strongest_source_is_shown(toy):
    figure = Figure()
    draw_maps(figure, {"a": np.arange(84.0)}, toy.display, n_views=1)
    assert "right" in titles(figure)[0]


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({}, "got no maps"),
        ({"a": -np.ones(84)}, "'a' has the shape .* negative"),
        ({"a": np.full(84, np.nan)}, "non-finite"),
        ({"a": np.ones((84, 2))}, r"shape \(84, 2\)"),
    ],
)
def test_a_map_that_cannot_be_drawn(toy, maps, message):
    with pytest.raises(ValueError, match=message):
        draw_maps(Figure(), maps, toy.display)
