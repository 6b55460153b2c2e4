"""The figure of posterior samples shows what the samples say."""

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from deepesi.calibration.sample_sources import sources_of
from deepesi.viz import samples as viz
from deepesi.viz.samples import animate_samples, draw_posterior, modes


def axes_of(figure):
    return [ax for part in figure.subfigs for ax in axes_of(part)] + list(figure.axes)


def drawn(toy, mesh, magnitudes, **options):
    sources = sources_of(magnitudes, toy.source_pos, toy.space.edges)
    figure = Figure(figsize=(12, 7), layout="constrained")
    found = sources.probability, sources.count_probabilities
    draw_posterior(figure, magnitudes, *found, 0.01, toy.source_pos, mesh, **options)
    figure.draw_without_rendering()
    return figure


def patches(n):
    """Sources 3 and 50 together in a third of the samples, else 3 alone."""
    magnitudes = np.zeros((n, 84))
    magnitudes[:, 3] = 2e-8
    magnitudes[::3, 50] = 1e-8
    return magnitudes


def test_bars_map_and_samples(toy):
    figure = drawn(toy, toy.display, patches(30), marks=np.array([3, 50]))
    axes = {id(ax): ax for ax in axes_of(figure)}.values()
    (bars,) = [ax for ax in axes if ax.get_xlabel() == "number of sources"]
    assert [round(bar.get_height()) for bar in bars.patches] == [0, 67, 33]
    titles = [ax.get_title() for ax in axes]
    assert sum("to 20 nAm" in title for title in titles) == 4
    assert any("probability of a source within 10 mm" in ax.get_xlabel() for ax in axes)


def test_few_samples_and_samples_without_sources(toy):
    for mesh in (toy.display, None):
        few = drawn(toy, mesh, patches(2))
        dense = drawn(toy, mesh, 1e-9 * np.random.default_rng(0).random((5, 84)))
        assert axes_of(few)
        said = [text.get_text() for ax in axes_of(dense) for text in ax.texts]
        assert any("cannot be counted" in text for text in said)


def test_likely_locations_are_apart(toy):
    probability = np.zeros(84)
    probability[[3, 50, 70]] = [0.5, 0.9, 0.1]
    found = modes(probability, toy.source_pos, 0.03)
    assert found[0] == 50
    assert len(found) == 3
    assert modes(np.zeros(84), toy.source_pos, 0.03).size == 0


def test_the_set_is_drawn_beside_the_samples(toy):
    inside = np.arange(84) < 10
    figure = drawn(toy, toy.display, patches(30), joint_set=inside, level=0.8)
    titles = [part.get_suptitle() for row in figure.subfigs for part in row.subfigs]
    assert "80 % set: holds all sources together" in titles


def test_an_animation_shows_one_sample_per_frame_without_end(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(viz, "N_ANIMATED", 3)
    path = tmp_path / "samples.gif"
    animate_samples(patches(30), toy.source_pos, toy.display, path, np.array([3]), progress=False)
    with Image.open(path) as file:
        assert (file.n_frames, file.info["loop"]) == (3, 0)
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
    assert (frames[0] != frames[1]).any()
