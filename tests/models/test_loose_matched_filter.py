"""The loose matched filter: its physics exactly, its symmetries, both kinds of patches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.metrics.source_metric import SourceMetric
from deepesi.models.layers.oriented_patches import (
    Component,
    OrientedPatches,
    moment_matrix,
    principal_axis,
)
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.physics.template import load_template
from tests.models.free import apply, free

FREE = "fsaverage-ico3-free"


def make(heteroscedastic=True, **settings):
    torch.manual_seed(0)
    sizes = {"n_components": 2, "n_sweeps": 1, "hidden": 8, "exchanged": 4, "n_strongest": 8}
    model = LooseMatchedFilter(heteroscedastic=heteroscedastic, **(sizes | settings))
    for parameter in model.parameters():  # far from the start, where much would be zero
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def patches(n_sources=5, n_orient=3, n_channels=8):
    """Random unit topographies, and random orthogonal ones of norms that add up to `n_orient`."""
    rng = torch.Generator().manual_seed(0)
    normal = torch.randn(2, n_sources, n_channels, generator=rng, dtype=torch.float64)
    blocks = torch.randn(2, n_sources, n_channels, n_orient, generator=rng, dtype=torch.float64)
    blocks = torch.linalg.qr(blocks)[0].mT
    power = torch.rand(2, n_sources, n_orient, 1, generator=rng, dtype=torch.float64) + 0.2
    power = n_orient * power / power.sum(2, keepdim=True)
    normal = torch.nn.functional.normalize(normal, dim=2)
    return normal, (blocks * power.sqrt()).permute(2, 0, 1, 3)


def test_evidence_of_one_sample_is_that_of_a_gaussian_patch():
    """``N(0, σ² I + s q qᵀ)`` along the normals, ``N(0, σ² I + s/O Q Qᵀ)`` otherwise."""
    normal, loose = patches()
    rng = torch.Generator().manual_seed(1)
    data = 3 * torch.randn(8, 1, 2, generator=rng, dtype=torch.float64)
    strength = torch.tensor([20.0, 50.0], dtype=torch.float64)
    variance = torch.tensor([[1.5, 2.0], [3.0, 4.0]], dtype=torch.float64)
    power = data.square().sum((0, 1))
    rank = torch.tensor([8.0], dtype=torch.float64)
    fit = OrientedPatches(normal, loose).fit(data, power, strength, variance, rank)
    blocks = [normal[:, :, None], loose.permute(1, 2, 0, 3)]
    for example, s in enumerate(strength):
        expected = []
        for kind, rows in enumerate(blocks):
            for patch in rows.flatten(0, 1):
                cov = variance[kind, example] * torch.eye(8).double()
                cov = cov + s / len(patch) * patch.T @ patch
                gaussian = torch.distributions.MultivariateNormal(torch.zeros(8).double(), cov)
                expected.append(gaussian.log_prob(data[:, 0, example]))
        difference = torch.stack(expected) - fit.evidence[example].flatten()
        assert difference.std() < 1e-8


def test_energy_is_that_along_the_axes_and_topographies_there_have_norm_1():
    normal, loose = patches()
    data = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(1)).double()
    ones = torch.ones(3, dtype=torch.float64)
    fit = OrientedPatches(normal, loose).fit(data, ones, 9 * ones, ones.expand(2, -1), ones[:1])
    chosen = torch.einsum("obks,oksc->bksc", fit.axes, loose)
    assert torch.allclose(chosen.norm(dim=3), torch.ones(()).double())
    energy = torch.einsum("bksc,ctb->bkst", chosen, data).square().sum(3)
    assert torch.allclose(fit.energy[:, 2:], energy)
    straight = torch.einsum("ksc,ctb->bkst", normal, data).square().sum(3)
    assert torch.allclose(fit.energy[:, :2], straight)


def test_principal_axis_is_the_first_eigenvector_and_exact_for_one_sample():
    rng = torch.Generator().manual_seed(0)
    long = torch.randn(3, 20, 2, 1, 40, generator=rng).double()
    long[0] *= 5  # a window of one source
    matrix = moment_matrix(list(long))
    assert torch.allclose(matrix, torch.einsum("otbks,ptbks->opbks", long, long))
    axis = principal_axis(matrix)
    values = torch.linalg.eigvalsh(matrix.permute(2, 3, 4, 0, 1))[..., -1]
    reached = torch.einsum("obks,opbks,pbks->bks", axis, matrix, axis)
    assert (reached / values).min() > 1 - 1e-9
    one = torch.randn(3, 1, 2, 1, 40, generator=rng).double()
    axis = principal_axis(moment_matrix(list(one)))
    cosine = (axis * one[:, 0]).sum(0) / one[:, 0].norm(dim=0)
    assert torch.allclose(cosine.abs(), torch.ones(()).double())


def test_components_of_equal_energy_do_not_cancel():
    signal = torch.tensor([1.0, -0.2, -1.0])
    axis = principal_axis((signal * signal[:, None])[:, :, None, None, None])[:, 0, 0, 0]
    assert torch.allclose((axis @ signal).abs(), signal.norm())


def test_without_any_signal_there_is_still_an_axis():
    for energy in (0.0, 1e-30, 1e-22, 1e-18):
        axis = principal_axis(energy * torch.eye(3)[:, :, None, None, None])
        assert torch.allclose(axis.norm(dim=0), torch.ones(()))


def test_residual_is_that_of_the_posterior_mean():
    normal, loose = patches()
    dictionary = OrientedPatches(normal, loose)
    rng = torch.Generator().manual_seed(2)
    data = torch.randn(8, 4, 1, generator=rng).double()
    gamma = torch.zeros(4, 5, 1).double()
    gamma[1, 2], gamma[3, 4] = 4.0, 2.5
    axes = torch.randn(3, 1, 2, 5, generator=rng).double()
    residual = dictionary.residual(data, [Component(gamma, axes, torch.ones(2, 1))], 4, 8)[:, :, 0]
    turned = axes[:, 0, 1, 4] @ loose[:, 1, 4]
    cov = torch.eye(8).double() + 4.0 * torch.outer(normal[1, 2], normal[1, 2])
    cov = cov + 2.5 * torch.outer(turned, turned)
    assert torch.allclose(residual, torch.linalg.solve(cov, data[:, :, 0]), atol=1e-6)


def test_estimate_turns_its_sign_with_the_recording(simulate):
    model = make()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    there, back = (apply(model, sign * batch.data, batch.head) for sign in (1, -1))
    assert torch.allclose(there.mean, -back.mean)
    assert torch.allclose(there.std, back.std)


def test_a_window_is_inverted_as_one_whatever_its_time_axis(simulate):
    """A rotation of the samples rotates the estimate: weights see energies of the window only."""
    model = make()
    batch = simulate([], n_times=5).batch(0)
    head = free(batch.head)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    mean = apply(model, batch.data, head).mean
    turned = apply(model, batch.data @ rotation, head).mean
    largest = mean.abs().max().item()
    assert torch.allclose(turned, mean @ rotation, rtol=1e-3, atol=1e-3 * largest)


def test_orientations_turn_with_the_normals(simulate):
    """Turning axes and normals turns the moments; the unit of sources changes by 1 %."""
    model = make()
    batch = simulate([], n_times=2).batch(0)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    head = free(batch.head, turn)
    head = replace(head, source_normals=batch.head.source_normals @ turn)
    straight = apply(model, batch.data, free(batch.head)).mean.unflatten(1, (84, 3))
    turned = apply(model, batch.data, head).mean.unflatten(1, (84, 3))
    expected = torch.einsum("op,bsot->bspt", torch.as_tensor(turn).float(), straight)
    assert torch.allclose(turned, expected, rtol=0, atol=2e-2 * straight.abs().max().item())


def test_a_source_of_a_window_keeps_its_orientation(simulate):
    model = make(n_components=1)
    batch = simulate([], n_times=6).batch(0)
    mean = apply(model, batch.data, free(batch.head)).mean.unflatten(1, (84, 3))
    strongest = mean.square().sum((2, 3)).argmax(1)
    moments = mean[torch.arange(len(mean)), strongest]
    values = torch.linalg.svdvals(moments.double())
    assert (values[:, 1] < 0.5 * values[:, 0]).all()


@pytest.fixture(scope="module")
def errors():
    """Localization error of untrained networks and of scans, own anatomy and somebody else's."""
    torch.manual_seed(0)
    models = {
        "loose": LooseMatchedFilter(),
        "along normals": UnrolledMatchedFilter(),
        "scan": BayesSinglePatch(n_radii=5),
    }
    own = dict(SETTINGS, head="fsaverage-ico3", anatomy=None)
    errors = {}
    for name, model in models.items():
        for case, settings in {"strangers": SETTINGS, "own": own}.items():
            head = FREE if name == "loose" else settings["head"]
            errors[name, case] = error(model, load_template(head), settings["anatomy"])
    return errors


SETTINGS = {"head": FREE, "anatomy": AnatomyRanges()}


def error(model, template, anatomy):
    recordings = SimulatedRecordings(
        template,
        PatchSources(n_sources=(1, 1)),
        SetupRanges(["biosemi64"], anatomy=anatomy),
        model.head_inputs,
        snr_db=(20.0, 20.0),
        batch_size=8,
        pool_size=1,
        pool_period=1,
        split="test",
    )
    metric = SourceMetric("localization_error")
    for step in range(3):
        batch = recordings.batch(step)
        with torch.no_grad():
            metric.update(model.eval()(batch.data, batch.inputs), batch)
    return float(metric.compute())


@pytest.mark.slow
def test_untrained_it_is_near_a_scan_in_somebody_elses_head(errors):
    """Networks along the normals read wrong normals as another skull and as bad sensors."""
    assert errors["loose", "strangers"] < 1.3 * errors["scan", "strangers"]
    assert errors["loose", "strangers"] < 0.9 * errors["along normals", "strangers"]


@pytest.mark.slow
def test_untrained_it_uses_normals_where_they_are_right(errors):
    """A scan of free orientation gains nothing from the analyst's own anatomy but grid points."""
    assert errors["loose", "own"] < 0.5 * errors["loose", "strangers"]


def test_right_normals_help(simulate, free_toy):
    """Sources along the normals; for comparison, the head gets the normals of other sources."""
    torch.manual_seed(0)
    model = LooseMatchedFilter(n_radii=2, smallest=0.03, largest=0.06).eval()
    sources = PatchSources((1, 1), radius=(0.03, 0.03))
    batch = simulate([], heads=free_toy, sources=sources, batch_size=32, snr_db=(20, 20)).batch(0)
    errors = {}
    for name, normals in {
        "right": batch.head.source_normals,
        "wrong": np.random.default_rng(0).permutation(batch.head.source_normals),
    }.items():
        metric = SourceMetric("localization_error")
        head = replace(batch.head, source_normals=normals)
        metric.update(apply(model, batch.data, head), batch)
        errors[name] = float(metric.compute())
    assert errors["right"] < 0.7 * errors["wrong"]


def test_right_normals_help_more_where_they_are_known_to_be_right(simulate, free_toy):
    """Untrained: patches of any orientation get less of the posterior on a person's own cortex."""
    torch.manual_seed(0)
    model = LooseMatchedFilter(n_radii=2, smallest=0.03, largest=0.06).eval()
    batch = simulate([], heads=free_toy, batch_size=32, snr_db=(5, 5)).batch(0)
    normals = torch.as_tensor(batch.head.source_normals).float()
    across = {}
    for own in (False, True):
        mean = apply(model, batch.data, replace(batch.head, own_normals=own)).mean
        moments = mean.unflatten(1, (-1, 3))[..., 0]
        along = (moments * normals).sum(2)
        across[own] = float(1 - along.square().sum() / moments.square().sum())
    assert across[True] < 0.5 * across[False]


def test_number_of_weights_is_as_documented():
    count = sum(p.numel() for p in LooseMatchedFilter().parameters())
    assert f"{count:,} weights" in LooseMatchedFilter.__doc__


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_sweeps": 0}, "LooseMatchedFilter: all sizes must be 1 or more.*'n_sweeps': 0"),
        ({"loose": 0.0}, "loose must be above 0 and at most 1"),
        ({"smallest": 10.0}, "radii .* in metres"),
    ],
)
def test_sizes_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LooseMatchedFilter(**settings)


def test_standard_deviation_is_positive_and_costs_weights_only_if_asked(simulate):
    plain, both = make(heteroscedastic=False), make()
    batch = simulate([], n_times=2).batch(0)
    head = free(batch.head)
    assert apply(plain, batch.data, head).std is None
    assert (apply(both, batch.data, head).std > 0).all()
    count = [sum(p.numel() for p in m.parameters()) for m in (plain, both)]
    assert count[1] - count[0] == (8 + 1) * 8 + 1
    plain.load_state_dict(both.state_dict(), strict=False)
    means = [apply(m, batch.data, head).mean for m in (plain, both)]
    assert torch.equal(*means)
