"""The exact posterior of one patch, against enumeration by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.oracle import WithTrueLeadField
from deepesi.core.contracts import as_tensors
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.metrics.source_metric import SourceMetric
from deepesi.physics.graph import distances_mm
from deepesi.physics.head_inputs import prepare
from deepesi.physics.head_inputs.patches import patch_profiles
from deepesi.physics.noise import whitener

RADII = {"smallest": 0.03, "largest": 0.06, "n_radii": 2}


@pytest.mark.parametrize("n_times", [1, 4])
def test_location_and_moments_equal_enumeration(simulate, n_times):
    model = BayesSinglePatch(**RADII)
    batch = simulate(
        model.head_inputs,
        n_times=n_times,
        sources=PatchSources((1, 1), (0.03, 0.06)),
        snr_db=(0, 10),
    ).batch(0)
    found = model(batch.data, batch.inputs).mean
    head, white = batch.head, whitener(batch.head.noise_cov)
    distances = distances_mm(head.source_pos, head.source_pos)
    for example, recording in enumerate(batch.data.double().numpy()):
        data, fits, logs = white @ recording, [], []
        for radius in np.linspace(0.03, 0.06, 2):
            profiles = patch_profiles(head, radius).toarray()
            for profile in profiles:
                topography = white @ head.leadfield @ profile
                moment = topography @ data / (topography @ topography)
                misfit = data - np.outer(topography, moment)
                fits.append(np.outer(profile, moment))
                logs.append(-0.5 * (misfit**2).sum())
        posterior = np.exp(np.array(logs) - max(logs)).reshape(2, 84)
        posterior /= posterior.sum()
        best = (distances @ posterior.sum(axis=0)).argmin()
        share = posterior[:, best] / posterior[:, best].sum()
        expected = share[0] * fits[best] + share[1] * fits[84 + best]
        assert np.allclose(found[example], expected, atol=1e-3 * np.abs(expected).max())


def test_it_localizes_better_than_eloreta_even_without_knowing_the_head(simulate, template):
    model, eloreta = BayesSinglePatch(n_radii=3), MinimumNorm("eLORETA")
    batch = simulate(
        [*model.head_inputs, *eloreta.head_inputs],
        heads=template,
        montage="biosemi64",
        sources=PatchSources((1, 1)),
        snr_db=(10, 10),
        batch_size=64,
    ).batch(0)
    scores = []
    for method in (model, eloreta):
        metric = SourceMetric("localization_error")
        metric.update(method(batch.data, batch.inputs), batch)
        scores.append(metric.compute())
    assert scores[0] < 0.5 * scores[1]


def test_the_oracle_changes_nothing_where_the_nominal_head_is_true(simulate):
    model = BayesSinglePatch(**RADII)
    exact = {"skull_conductivity": (0.01, 0.01), "skull_thickness": (0.006, 0.006)}
    exact |= {"scalp_conductivity": (0.33, 0.33), "brain_conductivity": (0.33, 0.33)}
    setups = SetupRanges(montages=["biosemi16"], displacement=0.0)
    batch = simulate(model.head_inputs, tissues=TissueRanges(**exact), setups=setups).batch(0)
    found, known = model(batch.data, batch.inputs).mean, WithTrueLeadField(model)(batch).mean
    assert torch.allclose(found, known, rtol=1e-3, atol=1e-3 * found.abs().max().item())


def test_the_oracle_uses_each_example_s_own_lead_field(simulate):
    model = BayesSinglePatch(**RADII)
    batch = simulate(model.head_inputs).batch(0)
    one = batch.true_leadfield.project(torch.eye(84).expand(8, -1, -1))[5].double().numpy()
    head = replace(batch.head, leadfield=one - one.mean(axis=0))
    expected = model(batch.data[5:6], as_tensors(prepare(model.head_inputs, head))).mean[0]
    assert torch.allclose(
        WithTrueLeadField(model)(batch).mean[5], expected, atol=1e-4 * expected.abs().max().item()
    )
