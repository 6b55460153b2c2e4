"""Depth and orientation of the sources of a test set, and errors by them."""

from collections import Counter

import numpy as np
import pytest

from benchmarks import localization
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.first_sources import FirstSources, first_sources
from deepesi.evaluation.scenario import Scenario
from deepesi.physics.cohort import Cohort
from deepesi.physics.graph import vertex_normals
from deepesi.physics.helmets import CLEARANCE, helmet, put_on


def test_depth_and_angle_of_known_dipoles(template):
    """10 mm under a vertex of the scalp: along its normal, at a right angle, without normal."""
    scalp = template.family.scalp_pos
    top = scalp[:, 2].argsort()[-40:]
    outward = vertex_normals(scalp, template.family.scalp_faces)[top]
    aside = np.cross(outward, [1.0, 0.0, 0.0])
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    below = scalp[top] - 0.010 * outward
    for normals, expected in ((outward, 0), (-outward, 0), (aside, 90), (outward + aside, 45)):
        unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        depth, angle = template.depth_and_angle(below, unit)
        assert np.allclose(depth, 0.010, atol=1e-3)  # another vertex may be nearer
        assert np.median(np.abs(angle - expected)) < 0.1
    assert np.isnan(template.depth_and_angle(below, 0 * outward)[1]).all()


def test_depth_of_sources_is_that_of_the_head(template):
    depth, angle = template.depth_and_angle(template.source_pos, template.source_normals)
    assert np.array_equal(depth, template.depth)
    assert angle[template.is_cortex].min() >= 0
    assert angle[template.is_cortex].max() <= 90
    assert np.median(angle[template.is_cortex]) == pytest.approx(59, abs=1)


def test_meg_hardly_measures_radial_sources(template):
    """Mean power at the same moment over that of all sources, dB: as in docs/meg.md."""
    coils = put_on(
        helmet("neuromag306"), template.family.scalp_pos, np.eye(3), np.zeros(2), CLEARANCE
    )
    head = template.head(*template.montage("biosemi64"), coils=coils)
    depth, angle = template.depth_and_angle(template.source_pos, template.source_normals)
    found = {}
    for modality in ("eeg", "meg"):
        rows = np.array(head.sensors.modalities) == modality
        power = (head.leadfield[rows] ** 2).sum(axis=0)
        ranges = (angle < 25, angle >= 65, depth >= 0.042)
        means = [power[inside & template.is_cortex].mean() for inside in ranges]
        found[modality] = 10 * np.log10(means / power[template.is_cortex].mean())
    assert np.allclose(found["eeg"], [1.2, -0.3, -2.2], atol=0.06)
    assert np.allclose(found["meg"], [-5.9, 1.5, -5.9], atol=0.06)


def test_sources_of_somebody_else_lie_where_their_cortex_does(template):
    setups = SetupRanges(["biosemi16"], anatomy=AnatomyRanges())
    sources = PatchSources((2, 2), (0.01, 0.02))
    recordings = SimulatedRecordings(template, sources, setups, batch_size=5, split="test")
    parts = recordings.parts(0)
    first = parts.batch.scene.peaks[:, 0].numpy()
    depth, angle = first_sources(parts)
    positions, normals = (part.double().numpy()[first] for part in parts.anatomy[:2])
    expected = template.depth_and_angle(positions, normals)
    assert np.allclose(depth, 1e3 * expected[0])
    assert np.allclose(angle, expected[1])
    grid = first_sources(parts._replace(anatomy=None))
    assert np.array_equal(grid.depth, 1e3 * template.depth[first])
    assert np.abs(grid.angle - angle).max() > 5


def test_every_source_lies_in_one_range_of_depth_and_one_of_angle():
    found = localization.ranges(FirstSources(np.array([20, 26, 60.0]), np.array([0, 44.9, 90])))
    assert {name: rows.tolist() for name, rows in found.items() if rows.any()} == {
        "below 26 mm": [True, False, False],
        "26-32 mm": [False, True, False],
        "above 42 mm": [False, False, True],
        "0-25°": [True, False, False],
        "25-45°": [False, True, False],
        "65-90°": [False, False, True],
    }
    assert len(found) == 8


def test_errors_by_source_are_those_of_the_whole(toy):
    scenario = Scenario(
        name="toy",
        snr_db=[0, 20],
        n_examples=25,
        batch_size=16,
        sources=PatchSources((1, 1), (0.03, 0.06)),
        setups=SetupRanges(["biosemi16"]),
        axis="montage",
        level="16",
    )
    models = {"MNE": MinimumNorm("MNE")}
    rows = list(localization.rows(scenario, Cohort.single(toy), models, by_source=True))
    alone = list(localization.rows(scenario, Cohort.single(toy), models))
    assert rows[:2] == alone
    assert [(row.level, row.snr_db, row.n) for row in alone] == [("16", 0, 25), ("16", 20, 25)]
    total = Counter[tuple[float, str]]()
    for row in rows[2:]:
        kind = row.level[-1]  # of mm, or the sign of degrees
        assert row.level.startswith("16, ")
        assert row.ci_low is None or row.ci_low < row.value < row.ci_high
        total[row.snr_db, kind] += row.n * row.value
    for row in alone:
        assert total[row.snr_db, "m"] == pytest.approx(25 * row.value)
        assert total[row.snr_db, "°"] == pytest.approx(25 * row.value)
