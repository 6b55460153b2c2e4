import numpy as np
import pytest
import torch

from deepesi.data_gen.setups import SetupPool, SetupRanges
from deepesi.data_gen.sources import PatchSources, gabor
from deepesi.physics.head_inputs import Gain
from deepesi.physics.montage import ScalpPoints
from deepesi.physics.noise import white_noise_cov


def test_same_key_same_batch(simulate):
    first, again = simulate(seed=3).batch(5), simulate(seed=3).batch(5)
    assert torch.equal(first.eeg, again.eeg)
    assert torch.equal(first.sources, again.sources)
    assert first.head.ch_names == again.head.ch_names


def test_other_keys_other_batches(simulate):
    draws = [
        simulate(seed=3).batch(5),
        simulate(seed=4).batch(5),
        simulate(seed=3, split="validation").batch(5),
        simulate(seed=3).batch(5, rank=1),
        simulate(seed=3).batch(6),
    ]
    eeg = [d.scene.skull_conductivity for d in draws]
    assert all(not torch.equal(a, b) for i, a in enumerate(eeg) for b in eeg[:i])


@pytest.mark.parametrize("n_times", [1, 20])
@pytest.mark.parametrize("snr_db", [0.0, 10.0])
def test_realised_snr_is_the_requested_one(simulate, snr_db, n_times):
    recordings = simulate(snr_db=(snr_db, snr_db), n_times=n_times, batch_size=2000)
    batch = recordings.batch(0)
    clean = batch.truth.project(batch.sources)
    noise = batch.eeg - clean
    signal_power = clean.square().sum((1, 2))
    assert torch.allclose(signal_power, signal_power[0].expand(2000), rtol=1e-3)
    realised = 10 * torch.log10(signal_power[0] / noise.square().sum((1, 2)).mean())
    # 2000 windows of 15 T noise dimensions: standard error of the mean 0.036 / sqrt(T) dB.
    assert realised.item() == pytest.approx(snr_db, abs=0.15)


def test_every_example_is_rendered_through_its_own_lead_field(simulate, toy):
    """Equal to the numpy lead field at the drawn conductivity and electrodes."""
    batch = simulate(snr_db=(200, 200)).batch(0)
    family, used = toy.family, batch.truth
    node_rows = used.scalp_modes[0].double().numpy()
    lookup = {row.tobytes(): i for i, row in enumerate(family.scalp_modes[0].astype(np.float32))}
    vertex = np.array([lookup[row.astype(np.float32).tobytes()] for row in node_rows])
    gains = []
    for i in range(len(batch.eeg)):
        weights = used.weights[i].double().numpy()
        points = ScalpPoints(vertex[used.vertices[i].numpy()], weights, weights, weights)
        gain = family.leadfield(float(batch.scene.skull_conductivity[i]), points)
        expected = gain @ batch.sources[i].double().numpy()
        assert np.allclose(batch.eeg[i].numpy(), expected, rtol=0, atol=1e-4 * abs(expected).max())
        gains.append(gain)
    assert not np.allclose(gains[0], gains[1], rtol=0.01)
    assert not np.allclose(gains[0], batch.head.leadfield, rtol=0.01)


def test_recordings_are_average_referenced(simulate):
    batch = simulate(n_times=3).batch(0)
    assert batch.eeg.mean(1).abs().max() < 1e-6 * batch.eeg.abs().max()


def test_inputs_are_those_of_the_nominal_head(simulate):
    gain = Gain()
    batch = simulate([gain]).batch(0)
    assert np.allclose(batch.inputs[gain.key].numpy(), batch.head.leadfield, rtol=1e-5)


def test_patches_lie_within_their_radius_and_apart():
    side = torch.arange(50.0)
    distances = 0.005 * (side[:, None] - side).abs()
    drawn = PatchSources((2, 4), (0.01, 0.02), 0.03).draw(
        distances, 300, 1, torch.Generator().manual_seed(0)
    )
    counts = (drawn.peaks >= 0).sum(1)
    assert set(counts.tolist()) == {2, 3, 4}
    for sources, peaks, extents in zip(*drawn, strict=True):
        kept = peaks >= 0
        inside = distances[peaks[kept]] <= extents[kept][:, None]
        assert (sources[:, 0] != 0).equal(inside.any(0))
        apart = distances[peaks[kept]][:, peaks[kept]]
        apart.fill_diagonal_(1)
        assert apart.min() > 0.03
        assert (extents[~kept] == 0).all()


def test_centres_are_uniform_over_the_sources():
    distances = torch.full((20, 20), 1.0).fill_diagonal_(0)
    drawn = PatchSources((1, 1)).draw(distances, 20000, 1, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn.peaks[:, 0], minlength=20)
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


def test_time_courses_differ_between_patches():
    courses = gabor(2, 3, 50, torch.Generator().manual_seed(0))
    assert courses.shape == (2, 3, 50)
    assert torch.corrcoef(courses[0]).fill_diagonal_(0).abs().max() < 0.99


def test_pool_is_redrawn_and_a_function_of_the_step(toy):
    pool = SetupPool(toy, SetupRanges(montages=["biosemi16", "biosemi32"]), [], 2, 4)
    levels = [pool.at(0, "train", 0, step).head.noise_level for step in range(8)]
    assert len({f"{x:.12e}" for x in levels}) == 4
    assert levels[0] == levels[2]
    fresh = SetupPool(toy, SetupRanges(montages=["biosemi16", "biosemi32"]), [], 2, 4)
    assert fresh.at(0, "train", 0, 7).head.noise_level == levels[7]


def test_brain_noise_has_its_share_and_the_same_power(toy):
    def draw(share):
        pool = SetupPool(toy, SetupRanges(["biosemi16"], (1e-6, 1e-6), share), [], 1, 1)
        return np.linalg.eigvalsh(pool.at(0, "train", 0, 0).head.noise_cov)[1:]

    white, mixed = draw((1, 1)), draw((0.2, 0.2))
    assert mixed.sum() == pytest.approx(white.sum())
    assert mixed[0] < 0.5 * white[0]
    assert mixed[-1] > 3 * white[-1]


def test_noise_level_is_the_drawn_one(toy):
    pool = SetupPool(toy, SetupRanges(["biosemi16"], (1e-6, 1e-6)), [], 1, 1)
    head = pool.at(0, "train", 0, 0).head
    assert np.allclose(head.noise_cov, white_noise_cov(16, 1e-6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: PatchSources(radius=(10, 25)), r"radius 10-25 .* in metres"),
        (lambda _: PatchSources(min_distance=30), "min_distance 30 must lie within 0-0.06"),
        (lambda _: PatchSources(n_sources=(3, 1)), "n_sources must be a range from 1 upwards"),
        (lambda _: SetupRanges(montages=[]), "montages is empty"),
        (lambda _: SetupRanges(noise_level=(1, 2)), "volts below 1e-3"),
        (lambda _: SetupRanges(displacement=5), "in metres"),
        (lambda _: SetupRanges(sensor_noise=(0.0, 1.0)), "within 1e-6-1"),
        (lambda s: s(skull_conductivity=(3, 30)), "not mS/m"),
        (lambda s: s(skull_conductivity=(0.03, 0.003)), "not an ascending range"),
        (lambda s: s(snr_db=(20, 0)), "not ascending"),
        (lambda s: s(batch_size=0), "must be 1 or more"),
        (lambda s: s(split="dev").batch(0), "unknown split 'dev'"),
        (lambda s: s(seed=-1).batch(0), "must not be negative"),
        (lambda s: s(pool_size=0), "size must be 1 or more"),
    ],
)
def test_ranges_out_of_order_or_unit_are_refused(simulate, make, message):
    with pytest.raises(ValueError, match=message):
        make(simulate)
