"""Corrected draws against enumeration of patches and skulls, amplitudes integrated out."""

import math

import pytest
import torch

from deepesi.models.layers.patch_sequence import NONE, skull_weights
from deepesi.models.posterior.importance import refine
from deepesi.models.posterior.structured import StructuredPosterior
from tests.models.posterior.test_structured import posterior


def topographies(model, batch, log_skull):
    """Unit topographies of all patches ``(P, C)`` under one skull."""
    recordings = model._known(batch.data, batch.inputs).recordings
    weights = skull_weights(torch.tensor([[log_skull]]).double(), model.log_widest, model.n_skulls)
    rows = recordings.rows @ torch.einsum("m,mce->ce", weights[0, 0], recordings.filters).mT
    return rows / rows.norm(dim=1, keepdim=True)


def log_evidence(model, batch, rows):
    """By covariances of the data: that of patches with these rows ``(..., J, C)``."""
    recordings = model._known(batch.data, batch.inputs).recordings
    white = recordings.white[0]
    cov = torch.eye(len(white)).double() + recordings.strength[0] * rows.mT @ rows
    quadratic = (white * torch.linalg.solve(cov, white)).sum((-2, -1))
    return -0.5 * (quadratic + white.shape[1] * torch.logdet(cov))


@pytest.mark.parametrize("n_times", [1, 2])
def test_one_patch_and_its_skull(simulate, n_times):
    model = posterior(1, moved=False)
    batch = simulate(model.head_inputs, batch_size=1, n_times=n_times, snr_db=(5, 5)).batch(0)
    grid = torch.linspace(-model.log_widest, model.log_widest, 41).double()
    evidence = [
        log_evidence(model, batch, topographies(model, batch, float(x))[:, None]) for x in grid
    ]
    exact = torch.softmax(torch.stack(evidence).flatten(), 0).unflatten(0, (len(grid), -1))
    refined = refine(model, batch.data, batch.inputs, 1500)
    patches = refined.configuration.patches[:, 0, 0]
    found = torch.bincount(patches, minlength=exact.shape[1]) / 1500
    assert (found - exact.sum(0)).abs().max() < 0.05
    mean = (exact.sum(1) * grid).sum()
    spread = ((exact.sum(1) * grid.square()).sum() - mean.square()).sqrt()
    assert refined.configuration.log_skull.double().mean() == pytest.approx(
        mean.item(), abs=0.15 * spread.item()
    )
    assert 0 < refined.n_effective.item() <= 1500


def test_one_or_two_patches_under_a_known_skull(simulate):
    """Probability of two patches and of every site, by enumeration of all pairs."""
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=1, snr_db=(3, 3)).batch(0)
    rows = topographies(model, batch, 0.0)
    n_patches, positions = len(rows), batch.inputs[model.positions.key]
    pairs = torch.combinations(torch.arange(n_patches))
    gaps = (positions[pairs[:, 0] % len(positions)] - positions[pairs[:, 1] % len(positions)]).norm(
        dim=1
    )
    pairs = pairs[gaps >= 0.03]
    of_one = log_evidence(model, batch, rows[:, None]) - math.log(n_patches)
    of_two = log_evidence(model, batch, rows[pairs]) + math.log(2) - 2 * math.log(n_patches)
    probability = torch.softmax(torch.cat([of_one, of_two]), 0)
    two = probability[n_patches:]
    exact = probability[:n_patches].clone()
    exact = exact.index_add(0, pairs[:, 0], two).index_add(0, pairs[:, 1], two)
    drawn = refine(model, batch.data, batch.inputs, 2000, log_skull=0.0).configuration
    share = (drawn.n_sources() == 2).double().mean().item()
    assert 0.02 < two.sum().item() < 0.98
    assert share == pytest.approx(two.sum().item(), abs=0.05)
    there = drawn.patches[drawn.patches != NONE]
    found = torch.bincount(there, minlength=n_patches) / 2000
    assert (found - exact).abs().max() < 0.05
    assert (drawn.log_skull == 0).all()


def test_moments_are_those_of_the_exact_posterior(simulate):
    model = posterior(1)
    batch = simulate(model.head_inputs, batch_size=1, n_times=2, snr_db=(15, 15)).batch(0)
    drawn = refine(model, batch.data, batch.inputs, 1500, log_skull=0.0).configuration
    number = drawn.patches[:, 0, 0].mode().values
    recordings = model._known(batch.data, batch.inputs).recordings
    nominal = recordings.rows @ recordings.filters[model.n_skulls // 2].mT
    scale = batch.inputs[model.moments.key].flatten()[number] / nominal[number].norm()
    shrinkage = recordings.strength[0] / (1 + recordings.strength[0])
    mean = shrinkage * topographies(model, batch, 0.0)[number] @ recordings.white[0]
    amplitudes = (drawn.moments / scale)[drawn.patches[:, 0, 0] == number][:, 0, 0].double()
    count = len(amplitudes)
    assert count > 100
    assert ((amplitudes.mean(0) - mean).abs() < 4 * (shrinkage / count).sqrt()).all()
    assert amplitudes.std(0).numpy() == pytest.approx(
        [shrinkage.sqrt().item()] * 2, rel=3 / count**0.5
    )


def test_strongest_first_and_far_enough_apart(simulate):
    model = posterior(3)
    batch = simulate(model.head_inputs, batch_size=2, snr_db=(15, 15)).batch(0)
    drawn = refine(model, batch.data, batch.inputs, 100, min_distance=0.05).configuration
    unit, positions = batch.inputs[model.moments.key].flatten(), batch.inputs[model.positions.key]
    there = drawn.patches != NONE
    strength = (drawn.moments[..., 0] / unit[drawn.patches.clamp_min(0)]).abs()
    assert (strength.diff(dim=2) <= 0).all()
    assert (there.int().diff(dim=2) <= 0).all()
    assert (drawn.moments[~there] == 0).all()
    sites = positions[drawn.patches.clamp_min(0) % len(positions)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = there[:, :, i] & there[:, :, j]
        assert ((sites[:, :, i] - sites[:, :, j]).norm(dim=2)[both] >= 0.05).all()
    assert there[:, :, 1].any()


def test_draws_do_not_depend_on_the_mode_of_the_model(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=2).batch(0)
    expected = refine(model, batch.data, batch.inputs, 50).configuration.patches
    found = refine(model.train(), batch.data, batch.inputs, 50).configuration.patches
    assert torch.equal(found, expected)


def test_draws_that_are_all_too_near_to_each_other(simulate):
    model = posterior(2)
    batch = simulate(model.head_inputs, batch_size=1).batch(0)
    with torch.no_grad():
        model.next_patch.another[-1].bias.fill_(100.0)  # always two patches
    message = r"none of the 5 draws of a recording are the patches far enough apart. Draw more .n."
    with pytest.raises(ValueError, match=message):
        refine(model, batch.data, batch.inputs, 5, min_distance=1.0)


@pytest.mark.parametrize("sizes", [{"n": 0}, {"n": 5, "n_steps": 0}])
def test_no_draws(sizes):
    with pytest.raises(
        ValueError, match=r"refine: the numbers of draws and steps must be 1 or mor"
    ):
        refine(StructuredPosterior(), torch.zeros(1, 2, 1), {}, **sizes)
