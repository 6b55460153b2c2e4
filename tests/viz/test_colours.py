"""Colours of figures and pages are told apart by colour-blind readers, too.

Colour blindness is simulated as in Machado et al. 2009 (doi:10.1109/TVCG.2009.113), and differences
are those of CIELAB: 2 is just seen, 10 is clear at a glance.
"""

import itertools

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from deepesi.evaluation.figures import COLOURS as METHODS
from deepesi.viz.advice import COLOURS as ADVICE
from deepesi.viz.cortex import PARTS, RING

#: From linear RGB to what is seen, rows sum to 1.
BLIND = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(colours, blind):
    """CIELAB ``(N, 3)`` of sRGB colours ``(N, 3)`` as a reader sees them."""
    rgb = np.asarray(colours, dtype=float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(BLIND[blind]), 0, 1)
    relative = seen @ np.transpose(XYZ) / np.sum(XYZ, axis=1)
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    x, y, z = f.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def test_white_and_black_in_cielab():
    assert np.allclose(lab([[1, 1, 1], [0, 0, 0]], "none"), [[100, 0, 0], [0, 0, 0]], atol=0.1)


@pytest.mark.parametrize("blind", BLIND)
@pytest.mark.parametrize(
    "colours", [PARTS, ADVICE, METHODS], ids=["parts of a set", "advice", "methods"]
)
def test_colours_of_lists_differ(colours, blind):
    seen = lab([to_rgb(colour) for colour in colours], blind)
    pairs = itertools.combinations(range(len(colours)), 2)
    least = min((np.linalg.norm(seen[i] - seen[k]), colours[i], colours[k]) for i, k in pairs)
    assert least[0] > 10, least


@pytest.mark.parametrize("blind", BLIND)
def test_scales_are_read_in_one_direction(blind):
    """Larger magnitudes are brighter; both signs of a diverging scale differ from each other."""
    magnitudes = lab(colormaps["inferno"](np.linspace(0.25, 0.95, 64))[:, :3], blind)[:, 0]
    assert (np.diff(magnitudes) > 0).all()
    for share in (0.1, 0.25):
        low, high = lab(colormaps["RdBu_r"]([share, 1 - share])[:, :3], blind)
        assert np.linalg.norm(low - high) > 20


@pytest.mark.parametrize("blind", BLIND)
def test_the_ring_differs_from_every_value(blind):
    scale = lab(colormaps["inferno"](np.linspace(0.25, 0.95, 64))[:, :3], blind)
    (ring,) = lab([to_rgb(RING)], blind)
    assert np.linalg.norm(scale - ring, axis=1).min() > 20
