import numpy as np
import pytest
import torch
from scipy.signal import periodogram

from deepesi.data_gen.artifacts import (
    BadElectrode,
    Blinks,
    ElectrodePops,
    Muscle,
    Recording,
    Saccades,
)
from deepesi.physics.family import NOMINAL

KINDS = [Blinks, Saccades, Muscle, ElectrodePops, BadElectrode]
N = 400


@pytest.fixture(scope="module")
def record(template):
    _, electrodes = template.montage("biosemi64")
    eyes = template.family.eye_leadfield(NOMINAL, electrodes)

    def make(n_times=200, sfreq=500.0):
        return Recording(
            torch.as_tensor(electrodes.positions).float(),
            torch.as_tensor(eyes).float().expand(N, -1, -1),
            N,
            n_times,
            sfreq,
        )

    return make


def drawn(kind, recording, **settings):
    artifact = kind(**({"probability": 1.0} | settings))
    return artifact.draw(recording, 1e-10, 1.0, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_times", [1, 20, 200])
def test_realised_power_is_the_requested_one(record, kind, n_times):
    potential, _ = drawn(kind, record(n_times), relative_db=(3.0, 3.0))
    power = potential.double().square().sum((1, 2))
    assert torch.allclose(power, torch.tensor(1e-10 * 10**0.3, dtype=torch.float64), rtol=1e-3)
    assert potential.mean(1).abs().max() < 1e-5 * potential.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_share_of_the_examples(record, kind):
    potential, present = drawn(kind, record(10), probability=0.3)
    assert present.float().mean() == pytest.approx(0.3, abs=4 * (0.21 / N) ** 0.5)
    assert torch.equal(potential.abs().amax((1, 2)) > 0, present)


def strongest(potential):
    """Electrode of the largest power per example."""
    return potential.square().sum(2).argmax(1)


def test_blinks_are_frontal_and_positive_above_the_eyes(record):
    recording = record()
    potential, _ = drawn(Blinks, recording)
    place = recording.sensor_pos[strongest(potential)]
    assert (place[:, 1] > 0.05).float().mean() > 0.95
    frontal = recording.sensor_pos[:, 1] > 0.08
    assert (potential[:, frontal].sum((1, 2)) > 0).float().mean() > 0.95


def test_horizontal_saccades_have_opposite_signs_on_both_sides(record):
    recording = record()
    potential, _ = drawn(Saccades, recording)
    pos = recording.sensor_pos
    front = pos[:, 1] > 0.03
    left, right = (
        potential[:, front & side].sum((1, 2)) for side in (pos[:, 0] < -0.02, pos[:, 0] > 0.02)
    )
    # Directions are drawn around the circle: mostly opposite, not always.
    assert (left * right < 0).float().mean() > 0.6


def test_muscles_are_lateral_or_frontal_and_fast(record):
    recording = record(n_times=500)
    potential, _ = drawn(Muscle, recording)
    place = recording.sensor_pos[strongest(potential)]
    # 64 electrodes reach the vertex at 0.15 m above the ears; muscles stay far below it.
    assert (place[:, 2] < 0.08).float().mean() > 0.95
    frequency, power = periodogram(potential[:, :, :].double().numpy(), 500.0)
    inside = (frequency >= 15) & (frequency <= 205)
    assert power.mean((0, 1))[inside].sum() > 0.95 * power.mean((0, 1)).sum()


@pytest.mark.parametrize("kind", [ElectrodePops, BadElectrode])
def test_electrode_faults_are_on_one_electrode(record, kind):
    potential, _ = drawn(kind, record())
    power = potential.square().sum(2)
    share = power.amax(1) / power.sum(1)
    # The average reference spreads 1/64 of it to the others.
    assert share.min() > 0.97
    assert len(strongest(potential).unique()) > 50


def test_pops_start_suddenly_and_decay(record):
    potential, _ = drawn(ElectrodePops, record())
    course = potential[torch.arange(N), strongest(potential)]
    jump = course.diff(dim=1)
    jump = jump * jump.gather(1, jump.abs().argmax(1, keepdim=True)).sign()
    after = torch.where(jump == jump.amax(1, keepdim=True), 0.0, jump)
    assert (after <= 1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_settings_out_of_range_are_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: probability 3 must lie within 0 to 1"):
        kind(probability=3)
    with pytest.raises(ValueError, match="relative_db 5 to -5 must be an ascending range"):
        kind(relative_db=(5, -5))


def test_recordings_at_other_rates_and_montages(template):
    _, electrodes = template.montage("10-20-19")
    eyes = template.family.eye_leadfield(NOMINAL, electrodes)
    recording = Recording(
        torch.as_tensor(electrodes.positions).float(),
        torch.as_tensor(eyes).float().expand(3, -1, -1),
        3,
        64,
        128.0,
    )
    for kind in KINDS:
        potential, _ = drawn(kind, recording)
        assert potential.shape == (3, 19, 64)
        assert np.isfinite(potential.numpy()).all()
