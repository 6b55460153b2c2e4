"""`scenario=volume` on small heads: free orientation, somebody else's head, 61 channels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.cli.loading import load_heads, load_named, load_scenarios
from deepesi.composition import compose
from deepesi.core.quantities import magnitude
from deepesi.evaluation.benchmark import run_benchmark
from deepesi.metrics.example import Geometry
from deepesi.metrics.functional import nemd
from deepesi.physics.building.build import build_head
from deepesi.physics.building.warps import read_member
from deepesi.physics.cohort import Cohort
from deepesi.physics.family import TissueGrid
from deepesi.physics.head_inputs.patches import patch_profiles
from deepesi.physics.head_names import head_name
from deepesi.physics.template import load_template
from tests.conftest import with_coarse_scalp

GRID = TissueGrid((0.002, 0.03), (0.0055, 0.0065), (0.3, 0.363), (2, 1, 1))
HEADS = ["head.name=fsaverage-vol14", "scenario.heads=[warp9-vol14]"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The scenario on a grid of 14 mm, with a coarse scalp and skull."""
    with pytest.MonkeyPatch.context() as patched:
        cache = tmp_path_factory.mktemp("cache")
        patched.setenv("DEEPESI_CACHE", str(cache))
        for seed in (None, 9):
            anatomy = with_coarse_scalp(read_member(seed, "vol14", "ico2"))
            name = head_name(seed, "vol14")
            path = cache / "heads" / f"{name}.npz"
            build_head(path, name, anatomy, GRID, n_patterns=80, rank=80, warp_seed=seed)
        yield compose("evaluate", ["scenario=volume", *HEADS, "scenario.n_examples=4"])


@pytest.fixture(scope="module")
def cohort(config) -> Cohort:
    return load_heads(config.head)


@pytest.fixture(scope="module")
def levels(config):
    return {scenario.level: scenario for scenario in load_scenarios([config.scenario])}


@pytest.mark.parametrize("level", ["1", "10"])
def test_recordings_of_the_protocol(level, levels, cohort):
    scenario = levels[level]
    assert list(scenario.snr_db) == [0, 5, 20]
    batch = next(scenario.batches(cohort, 20, []))
    assert (batch.scene.peaks >= 0).sum(1).tolist() == [int(level)] * 4
    assert batch.data.shape == (4, 61, 1)
    # The sources are on another head than that of the analyst, who has the template.
    assert batch.scene.head_name == "warp9-vol14"
    assert np.array_equal(batch.head.source_pos, cohort.template.source_pos)
    assert batch.head.space.n_orient == 3
    assert not batch.head.source_normals.any()


def test_every_patch_has_an_orientation_of_its_own(levels, cohort):
    batch = next(levels["1"].batches(cohort, 20, []))
    moments = batch.sources[..., 0].unflatten(1, (-1, 3))
    strongest = moments[torch.arange(4), batch.scene.peaks[:, 0]]
    directions = strongest / strongest.norm(dim=1, keepdim=True)
    along = (moments * directions[:, None]).sum(2).abs()
    assert torch.allclose(along, moments.norm(dim=2), rtol=1e-3, atol=1e-13)  # in one patch
    cosines = directions @ directions.T
    assert (cosines - torch.eye(4)).abs().max() < 0.999


@pytest.mark.parametrize("radius", [0.02, 0.03])
def test_patches_of_models_are_those_of_the_generator(radius, levels, cohort):
    """Both measure the radius in straight distance, not along the edges of the grid."""
    sources = replace(levels["1"].sources, radius=(radius, radius))
    batch = next(replace(levels["1"], sources=sources).batches(cohort, 20, []))
    drawn = magnitude(batch.sources, 3).double().numpy()
    true_head = load_template("warp9-vol14").montage_head("easycap-M10")
    profiles = patch_profiles(true_head, radius)[batch.scene.peaks[:, 0].numpy()].toarray()
    assert np.allclose(drawn / drawn.sum(1, keepdims=True), profiles, atol=1e-6)


def test_methods_are_compared_by_nemd(levels, cohort, tmp_path):
    models = {"eLORETA": MinimumNorm("eLORETA")}
    models |= load_named(["untrained:matched_filter"], cohort.template, "evaluate")[0]
    rows = run_benchmark(models, [levels["1"]], cohort, tmp_path).rows
    found = {(r.method, r.snr_db): r.value for r in rows if r.metric == "nemd"}
    assert all(0 < value < 1.5 for value in found.values())
    assert found["eLORETA", 20] < found["eLORETA", 0]
    assert found["matched_filter (untrained)", 20] < found["eLORETA", 20]


def test_distances_of_the_metric_are_straight(levels, cohort):
    """Mass at one neighbour on the grid instead of another costs their straight distance."""
    batch = next(levels["1"].batches(cohort, 20, []))
    geometry = Geometry(batch.head)
    target = magnitude(batch.sources, 3)[0].double().numpy()
    shown = nemd(target, target, geometry.distances_mm, geometry.uniform_mm(target))
    assert shown == pytest.approx(0, abs=1e-9)
    a, b = 0, batch.head.space.n_sources - 1
    straight = 1e3 * np.linalg.norm(batch.head.source_pos[a] - batch.head.source_pos[b])
    assert geometry.distances_mm[a, b] == pytest.approx(straight)


def test_heads_that_were_not_built_are_named_with_their_command(template, monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPESI_CACHE", str(tmp_path))
    command = r"deepesi head build --spacing vol7"
    with pytest.raises(FileNotFoundError, match=rf"no head 'fsaverage-vol7'.*'{command}'"):
        load_template("fsaverage-vol7")
    scenario, *_ = load_scenarios([compose("evaluate", ["scenario=volume"]).scenario])
    with pytest.raises(FileNotFoundError, match=rf"'warp9-vol7'.*'{command} --warp-seed 9'"):
        next(scenario.batches(Cohort.single(template), 20, []))


def test_a_cortex_is_refused(levels, template):
    with pytest.raises(ValueError, match=r"has fsaverage-ico3 .*\(head\.name=fsaverage-vol14\)"):
        next(levels["1"].batches(Cohort.single(template), 20, []))
