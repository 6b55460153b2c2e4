"""An inverse model on one recording in Python."""

import numpy as np
import pytest

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.invert import invert
from deepesi.evaluation.scores import apply_model, metric_values


def test_it_is_what_the_benchmark_applies(simulate):
    model = MinimumNorm("eLORETA")
    batch = simulate(model.head_inputs).batch(0)
    expected = apply_model(model, batch.example(2)).mean
    data = batch.data[2].double().numpy()
    found = invert(model, batch.head, data + 1e-6).mean  # any reference
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


def test_data_of_another_set_up(toy):
    head = toy.montage_head("biosemi16")
    for data in (np.zeros((15, 3)), np.zeros(16), np.full((16, 1), np.nan)):
        with pytest.raises(ValueError, match=r"invert: .*\(16 channels of the head"):
            invert(MinimumNorm(), head, data)


def test_metric_of_every_example(simulate):
    model = MinimumNorm("sLORETA", "constant", snr_db=200)
    batch = simulate(model.head_inputs, snr_db=(0, 0)).batch(0)
    values = metric_values(model, batch)
    positions = batch.head.source_pos
    strongest = apply_model(model, batch).mean[..., 0].abs().argmax(1).numpy()
    peaks = batch.scene.peaks[:, 0].numpy()
    single = (batch.scene.peaks >= 0).sum(1).numpy() == 1
    expected = 1e3 * np.linalg.norm(positions[strongest] - positions[peaks], axis=1)
    np.testing.assert_allclose(values[single], expected[single], atol=1e-9)
    with pytest.raises(ValueError, match="no metric 'localisation_error'"):
        metric_values(model, batch, "localisation_error")
