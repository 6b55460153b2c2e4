"""Test-time adaptation on the toy head: an error of the head that is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.onnx_model import load_onnx
from deepesi.export.to_onnx import export_onnx
from deepesi.training.test_time import adapt


@pytest.fixture
def head(toy):
    return toy.montage_head("biosemi16")


def windows(head, gains, n=64, level=1e-6, seed=0):
    """Single sources through channels of other gains, with noise."""
    rng = np.random.default_rng(seed)
    n_dipoles = head.leadfield.shape[1]
    moments = np.zeros((n, n_dipoles))
    moments[np.arange(n), rng.integers(n_dipoles, size=n)] = 1e-7 * rng.normal(size=n)
    data = moments @ (gains[:, None] * head.leadfield).T
    data = data / data.std() * 2e-5 + rng.normal(scale=level, size=data.shape)
    return torch.as_tensor(data[:, :, None], dtype=torch.float32)


def single():
    """Explains by one patch at a time, so an error of the head stays in the residual."""
    return BayesSinglePatch(smallest=0.03, largest=0.06, n_radii=2)


GAINS = np.r_[1.6, 0.5, np.ones(14)]


def test_gains_of_channels_are_found(head):
    """The correction moves towards the true gains, and other windows are explained better."""
    found = adapt(single(), head, windows(head, GAINS, n=256))
    assert found.accepted
    assert found.residual[1] < 0.9 * found.residual[0]
    assert found.correction[0, 0] > 1 > found.correction[1, 1]
    assert found.seconds > 0


def test_the_same_every_time_and_in_any_reference(head):
    data = windows(head, GAINS)
    first, second = (adapt(MinimumNorm(), head, d) for d in (data, data - data[:, :1]))
    assert np.allclose(first.correction, second.correction, atol=1e-4)
    again = adapt(MinimumNorm(), head, data)
    assert np.array_equal(first.correction, again.correction)


def test_a_correction_that_does_not_help_is_dropped(head):
    """Fitted to windows under one head, judged by those under another."""
    data = windows(head, GAINS)
    data[32:] = windows(head, 1 / GAINS, seed=1)[32:]
    found = adapt(single(), head, data, strength=1e-3)
    assert not found.accepted
    assert found.head is head
    assert np.array_equal(found.correction, np.eye(16))
    assert not np.allclose(found.unchecked.leadfield, head.leadfield)


def test_few_sources_are_not_taken_for_an_error_of_the_head(head):
    """Eight windows per source, under the right head, of sources that the model cannot describe.

    A correction fits the sources of the first half. If both halves have the same sources, it passes
    as a correction of the head.
    """
    pairs = windows(head, np.ones(16), n=8) + windows(head, np.ones(16), n=8, seed=1)
    data = pairs.repeat_interleave(8, 0) + windows(head, np.ones(16), seed=2) / 20
    assert not adapt(single(), head, data).accepted
    mixed = torch.cat([data[::2], data[1::2]])
    assert adapt(single(), head, mixed).accepted


def test_silent_recording(head):
    found = adapt(MinimumNorm(), head, torch.full((16, 16, 1), 1e-30))
    assert np.isfinite(found.correction).all()


def test_scale_and_strength(head):
    """A strong prior leaves the head; joint scaling of data and noise changes nothing."""
    data = windows(head, GAINS, n=256)
    weak, strong = (adapt(MinimumNorm(), head, data, s).correction for s in (0.3, 1e6))
    assert np.abs(strong - np.eye(16)).max() < 1e-3 < np.abs(weak - np.eye(16)).max()
    louder = replace(head, noise_cov=100 * head.noise_cov)
    assert np.allclose(adapt(MinimumNorm(), louder, 10 * data, 0.3).correction, weak, atol=1e-4)


def test_an_exported_file_takes_the_adapted_head(head, tmp_path):
    path = tmp_path / "mne.onnx"
    export_onnx(MinimumNorm(), head, path)
    data = windows(head, GAINS)
    first, second = (adapt(m, head, data) for m in (MinimumNorm(), load_onnx(path)))
    assert np.allclose(first.head.leadfield, second.head.leadfield, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": torch.zeros(15, 16, 1)}, "15 windows of 16 channels, expected at least 16"),
        ({"data": torch.zeros(64, 15, 1)}, r"shape \(64, 15, 1\), expected finite windows"),
        ({"data": torch.full((64, 16, 1), torch.nan)}, "expected finite windows"),
        ({"strength": 0.0}, "strength must be above 0 and n_steps 1 to 10, got 0.0 and 1"),
        ({"n_steps": 11}, "n_steps 1 to 10, got 1.0 and 11"),
    ],
)
def test_bad_input(head, change, message):
    with pytest.raises(ValueError, match=message):
        adapt(MinimumNorm(), head, **({"data": windows(head, GAINS)} | change))
