"""Recordings of other people under the set-up of a recording."""

from dataclasses import replace

import hydra
import numpy as np
import pytest

from deepesi.advice.simulated_subjects import Conditions, StrangerRanges, Strangers, StrangerSource
from deepesi.composition import compose
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.caps import DIGITIZED, CapRanges
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.snapshot import SNAPSHOT_SOURCES
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.family import NOMINAL
from deepesi.physics.few_sources import few_sources
from deepesi.physics.noise import of_rank, rank_of, spanned_projector, whitener
from deepesi.physics.scalp import project_to_mesh
from deepesi.physics.sensors import SensorArray
from deepesi.physics.template import load_template


def conditions_on(template, rank=None):
    """16 electrodes, noise that is stronger on some of them, of this rank."""
    names, points = template.montage("biosemi16")
    sensors = SensorArray.eeg(names, points.positions)
    cov = sensors.reference_cov(np.diag(np.linspace(1, 9, 16) * 1e-12))
    return Conditions(template, points, cov if rank is None else of_rank(cov, rank))


@pytest.fixture(scope="module")
def conditions(free_toy):
    return conditions_on(free_toy)


@pytest.fixture(scope="module")
def source(conditions):
    return StrangerSource(conditions, seed=3)


def test_the_same_seed_gives_the_same_strangers(conditions, source):
    again = StrangerSource(conditions, seed=3).draw(StrangerRanges(), 5, 12)
    first = source.draw(StrangerRanges(), 5, 12)
    np.testing.assert_array_equal(first.data, again.data)
    np.testing.assert_array_equal(first.peaks, again.peaks)
    other = StrangerSource(conditions, seed=4).draw(StrangerRanges(), 5, 12)
    assert np.abs(first.data - other.data).max() > 1e-7
    fewer = source.draw(StrangerRanges(), 5, 10)
    np.testing.assert_array_equal(first.data[:10], fewer.data)


def test_other_ranges_change_the_head_and_neither_sources_nor_noise(source):
    usual, own = (source.draw(StrangerRanges(anatomy=a), 60, 20) for a in (AnatomyRanges(), None))
    np.testing.assert_array_equal(usual.peaks, own.peaks)
    assert np.abs(usual.data - own.data).max() > 0.1 * np.abs(usual.data).max()
    noise = [source.draw(StrangerRanges(anatomy=a), -300, 20).data for a in (AnatomyRanges(), None)]
    np.testing.assert_allclose(*noise, atol=1e-12)


@pytest.mark.parametrize("rank", [None, 11])
def test_noise_has_the_covariance_and_the_signal_the_snr(free_toy, rank):
    conditions = conditions_on(free_toy, rank)
    source, white = StrangerSource(conditions), whitener(conditions.noise_cov)
    noise = source.draw(StrangerRanges(anatomy=None), -300, 500).data
    cov = noise.T @ noise / 500
    assert np.linalg.norm(cov - conditions.noise_cov) < 0.25 * np.linalg.norm(cov)
    assert rank_of(cov) == rank_of(conditions.noise_cov)
    strong = source.draw(StrangerRanges(), 20, 40).data
    power = ((strong @ white.T) ** 2).sum(1) / rank_of(conditions.noise_cov)
    np.testing.assert_allclose(power.mean(), 101, rtol=0.05)
    spanned = strong @ spanned_projector(conditions.noise_cov)
    np.testing.assert_allclose(spanned, strong, atol=1e-5 * np.abs(strong).max())


def test_a_stranger_without_differences_is_the_analyst(free_toy):
    """One patch in the analyst's own head is explained by her lead field, in another head not."""
    conditions = conditions_on(free_toy)
    none = CapRanges(0, 0, 0, 0, (0, 0), (0, 0), (DIGITIZED,), (0, 0), (0, 0), (0, 0))
    point = replace(SNAPSHOT_SOURCES, n_sources=(1, 1), shapes=("point",))
    tissues = TissueRanges(
        (NOMINAL.skull_conductivity,) * 2,
        (NOMINAL.skull_thickness,) * 2,
        (NOMINAL.scalp_conductivity,) * 2,
        (NOMINAL.brain_conductivity,) * 2,
    )
    same = StrangerRanges(DIGITIZED, None, none, tissues, point)
    head = free_toy.head(*free_toy.montage("biosemi16"), conditions.noise_cov)
    white = whitener(conditions.noise_cov)
    source = StrangerSource(conditions)
    strangers = source.draw(same, 80, 20)
    best, residual = few_sources(white @ head.leadfield, strangers.data @ white.T, 1)
    np.testing.assert_array_equal(best, strangers.peaks[:, 0])
    assert residual.max() < 1e-4
    others = source.draw(replace(same, anatomy=AnatomyRanges()), 80, 20)
    assert np.median(few_sources(white @ head.leadfield, others.data @ white.T, 1)[1]) > 1e-3


def test_ranges_are_those_of_the_configuration():
    config = compose("train", ["head=stranger"]).data
    sources = hydra.utils.instantiate(config.sources, _convert_="all")
    ours = StrangerRanges()
    assert as_plain(ours.sources) == as_plain(sources)
    for name in ("cap", "anatomy"):
        configured = hydra.utils.instantiate(config.setups[name], _convert_="all")
        for key, value in as_plain(configured).items():
            expected = as_plain(getattr(ours, name))[key]
            if key == "knowledge":
                assert value == expected
            else:
                np.testing.assert_allclose(value, expected, atol=1e-3)
    tissues = hydra.utils.instantiate(config.get("tissues"), _convert_="all")
    assert tissues is None or as_plain(tissues) == as_plain(ours.tissues)


def as_plain(ranges):
    values = vars(ranges).items()
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values}


def test_ranges_describe_the_knowledge_of_the_analyst():
    assert StrangerRanges().known == "the names of the electrodes, no MRI"
    assert StrangerRanges(DIGITIZED, None).known == "digitized electrodes, the MRI of the subject"


@pytest.mark.slow
def test_strangers_are_those_of_the_generator():
    """The same misfit and scan error as ``scenario=stranger`` draws on the same set-up."""
    template, n = load_template("fsaverage-ico3-free"), 240
    sources = replace(SNAPSHOT_SOURCES, n_sources=(1, 1))
    cap = CapRanges(knowledge=["names"])
    setups = SetupRanges(["biosemi64"], cap=cap, anatomy=AnatomyRanges())
    stream = SimulatedRecordings(
        template,
        sources,
        setups,
        snr_db=(10, 10),
        batch_size=10,
        split="test",
        pool_size=1,
        pool_period=1,
    )
    parts = [stream.batch(step) for step in range(n // 10)]
    head = parts[0].head
    data = np.concatenate([part.data[..., 0].double().numpy() for part in parts])
    scale = np.repeat([part.head.noise_level for part in parts], 10)[:, None] / head.noise_level
    peaks = np.concatenate([part.scene.peaks.numpy() for part in parts])
    family = template.family
    points = project_to_mesh(head.sensors.positions, family.scalp_pos, family.scalp_faces)
    source = StrangerSource(Conditions(template, points, head.noise_cov))
    ours = source.draw(StrangerRanges(sources=sources), 10, n)
    white = whitener(head.noise_cov)
    results = []
    for recordings, true in ((data / scale, peaks), (ours.data, ours.peaks)):
        best, residual = few_sources(white @ head.leadfield, recordings @ white.T, 1)
        way = template.source_pos[best] - template.source_pos[true[:, 0]]
        results.append([np.median(residual), 1e3 * np.median(np.linalg.norm(way, axis=1))])
    np.testing.assert_allclose(*results, rtol=0.15)


def test_targets_are_all_centres_or_that_of_the_largest_moment():
    peaks, moments = np.array([[3, 5, -1], [7, 2, 9]]), np.array([[1.0, 2.0, 0.0], [4.0, 1.0, 2.0]])
    strangers = Strangers(np.zeros((2, 4)), peaks, moments)
    assert np.array_equal(strangers.targets("all"), peaks)
    assert strangers.targets("strongest").tolist() == [[-1, 5, -1], [7, -1, -1]]
