"""The least change that moves the peak, against the closed form of a linear model."""

import numpy as np
import pytest

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.interpret.any_model import counterfactual as module
from deepesi.interpret.any_model.counterfactual import ChangedRecording, counterfactual
from deepesi.interpret.any_model.frames import Frame
from deepesi.physics.head_inputs import prepare
from deepesi.physics.lobes import elsewhere, lobe_text


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi16")


@pytest.fixture(scope="module")
def kernel(head):
    model = MinimumNorm(regularization="constant", snr_db=10)
    return prepare(model.head_inputs, head)[model.kernels.key][0].astype(float)


@pytest.fixture(scope="module")
def changed(head, kernel):
    data = 3e-6 * head.leadfield[:, [7]] / np.abs(head.leadfield[:, 7]).max()
    noise_std = np.sqrt(head.noise_cov.diagonal())
    return ChangedRecording(
        Frame(data, (0,), 1, 0), lambda b: kernel @ b, head.sensors, noise_std, 1
    )


@pytest.fixture(scope="module")
def away(head, changed):
    peak = int(changed.magnitudes(np.zeros((1, 16)))[0].argmax())
    return elsewhere(peak, head.source_pos, None)


def least_norm(head, kernel, changed, away):
    """Norm of the least change of all sensors of a linear model: gap over norm of the gradient."""
    moments = kernel @ changed.frame.data[:, 0]
    per_noise = kernel @ (np.eye(16) - 1 / 16) * changed.noise_std
    slopes = np.sign(moments)[:, None] * per_noise
    peak = np.abs(moments).argmax()
    gap = np.abs(moments[peak]) - np.abs(moments[away])
    return float((gap / np.linalg.norm(slopes[away] - slopes[peak], axis=1)).min())


def test_the_peak_really_moves_and_less_does_not_move_it(changed, away):
    found = counterfactual(changed, away)
    before, after, less = changed.magnitudes(np.array([0, 1, 0.9])[:, None] * found.change)
    assert before.argmax() == found.before
    assert not away[before.argmax()]
    assert after.argmax() == found.after
    assert away[after.argmax()]
    assert not away[less.argmax()]
    assert (
        found.sensors
        == np.flatnonzero(found.change)[
            np.argsort(-np.abs(found.change[found.change != 0]))
        ].tolist()
    )
    assert len(found.sensors) in module.N_CHANGED
    assert found.cost >= found.size > 0


def test_a_change_of_all_sensors_equals_the_closed_form(head, kernel, changed, away, monkeypatch):
    monkeypatch.setattr(module, "N_CHANGED", ())
    found = counterfactual(changed, away)
    least = least_norm(head, kernel, changed, away)
    assert least <= found.size * 1.001
    assert found.size <= 1.15 * least
    sparse = [c for n in (1, 4) if (c := _with_sensors(n, changed, away, monkeypatch)) is not None]
    assert sparse
    for candidate in sparse:
        assert candidate.size >= 0.999 * least
        assert away[changed.magnitudes(candidate.change[None])[0].argmax()]


def _with_sensors(number, changed, away, monkeypatch):
    monkeypatch.setattr(module, "N_CHANGED", (number,))
    found = counterfactual(changed, away)
    return found if found is not None and len(found.sensors) <= number else None


def test_a_model_that_ignores_the_recording_has_none(changed, away):
    moments = np.linspace(1, 2, 84)[:, None] * np.where(away, 0.1, 1.0)[:, None]
    constant = ChangedRecording(
        changed.frame,
        lambda b: np.broadcast_to(moments, (len(b), 84, 1)),
        changed.sensors,
        changed.noise_std,
        1,
    )
    assert counterfactual(constant, away) is None
    assert counterfactual(changed, np.zeros(84, dtype=bool)) is None


def test_elsewhere_is_another_lobe_or_the_other_side(template):
    mni, positions = template.source_mni, template.source_pos
    source = int(np.linalg.norm(mni - [-20, -95, 5], axis=1).argmin())
    far = elsewhere(source, positions, mni)
    assert lobe_text(mni[source]) == "left occipital"
    frontal, mirrored, near = (
        int(np.linalg.norm(mni - near_to, axis=1).argmin())
        for near_to in ([-40, 40, 20], [20, -95, 5], [-30, -88, 5])
    )
    assert far[frontal]
    assert far[mirrored]
    assert not far[near]
    assert not far[source]
    distance = np.linalg.norm(positions - positions[source], axis=1)
    assert distance[far].min() >= 0.03
    np.testing.assert_array_equal(elsewhere(source, positions, None), distance >= 0.06)
    unknown = np.full_like(mni, np.nan)
    np.testing.assert_array_equal(elsewhere(source, positions, unknown), distance >= 0.06)
