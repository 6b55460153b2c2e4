"""Maps side by side."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from deepesi.viz.cortex import PARTS, draw_parts
from deepesi.viz.maps import draw_maps
from deepesi.viz.movie import drawn


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


def test_parts_are_drawn_in_their_colours(template):
    """On the side where they are; those after the last letter share the last colour."""
    left, pos = np.arange(642), template.source_pos
    lateral = left[pos[left, 0] < np.quantile(pos[left, 0], 0.3)]
    parts = np.array_split(lateral[np.argsort(pos[lateral, 1])], 6)

    def shares(view: str, shown) -> np.ndarray:
        """Share of the pixels with the hue of each part."""
        figure = Figure(figsize=(3, 3), dpi=100)
        draw_parts(figure.subplots(), shown, template.display, view, np.array([], np.int64))
        image = drawn(figure).astype(float)
        image /= image.max(axis=2, keepdims=True).clip(1)
        hues = np.array([to_rgb(colour) for colour in PARTS])
        hues /= hues.max(axis=1, keepdims=True)
        near = np.abs(image[..., None, :] - hues).max(axis=3) < 0.12
        return near.mean(axis=(0, 1))

    five, six = (shares("left lateral", parts[:n]) for n in (5, 6))
    assert (five > 0.004).all()
    assert six[-1] > 1.3 * five[-1]
    assert np.allclose(six[:-1], five[:-1], atol=0.002)
    assert not shares("right lateral", parts).any()
