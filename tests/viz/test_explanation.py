"""Figures of explanations: the scale of scalp maps."""

import numpy as np
import pytest

from deepesi.physics.montage import head_montage
from deepesi.viz.explanation import scalp_figure

NAMES = ["Fp1", "Fp2", "Cz", "O1", "O2", "T7", "T8"]


@pytest.mark.parametrize(("least", "start"), [(0.0, 0.0), (-3.0, -30.0)])
def test_the_scale_starts_at_zero_without_negative_values(least, start):
    positions = head_montage(NAMES, "biosemi32").get_positions()["ch_pos"]
    values = np.array([least, 0, 0, 30.0, 12, 0, 0])
    where = np.array([positions[name] for name in NAMES])
    figure = scalp_figure(values, where, NAMES, "mm", as_dots=True)
    assert figure.axes[1].get_ylim() == (start, 30.0)
    assert figure.axes[1].get_ylabel() == "mm"
