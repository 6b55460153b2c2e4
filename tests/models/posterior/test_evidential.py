"""Evidential regression: its likelihood by integration, both parts, and what training does."""

import math

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import invgamma, norm

from deepesi.models.posterior.evidential import Evidential, NormalInverseGamma


def ignored(estimate, batch):
    """An objective that the likelihood does not need."""
    raise AssertionError


def distribution(mean=0.3, n_virtual=2.0, shape=3.0, scale=0.5):
    values = (torch.tensor(value, dtype=torch.float64) for value in (mean, n_virtual, shape, scale))
    return NormalInverseGamma(*(value.reshape(1, 1, 1) for value in values))


@pytest.mark.parametrize("value", [-1.0, 0.3, 2.0])
def test_the_likelihood_is_the_integral_over_variances(value):
    """A normal distribution of variance ``v (1 + 1 / n_virtual)``, ``v`` inverse gamma."""

    def density(variance):
        width = math.sqrt(variance * 1.5)
        return norm.pdf(value, 0.3, width) * invgamma.pdf(variance, 3, scale=0.5)

    found = distribution().log_likelihood(torch.tensor([[[value]]], dtype=torch.float64))
    assert found.exp().item() == pytest.approx(quad(density, 0, math.inf)[0], rel=1e-5)


def test_both_parts_are_those_of_draws_of_mean_and_variance():
    variances = invgamma.rvs(3, scale=0.5, size=200_000, random_state=0)
    means = norm.rvs(0.3, (variances / 2) ** 0.5, random_state=1)
    assert distribution().aleatoric().item() == pytest.approx(variances.mean(), rel=0.02)
    assert distribution().epistemic().item() == pytest.approx(means.var(), rel=0.02)


def test_the_deviation_of_the_estimate_is_both_parts(simulate):
    model = Evidential(8, 1, 4).eval()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    estimate, parts = model(batch.data, batch.inputs), model.parts(batch.data, batch.inputs)
    torch.testing.assert_close(estimate.mean, parts.mean)
    torch.testing.assert_close(estimate.std, torch.hypot(parts.aleatoric, parts.epistemic))
    assert min(parts.aleatoric.min().item(), parts.epistemic.min().item()) > 0


def test_training_lowers_the_squared_error_and_the_likelihood_term(simulate):
    torch.manual_seed(0)
    model = Evidential(8, 1, 4).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    batch = simulate(model.head_inputs, batch_size=16, n_times=2).batch(0)
    rows = []
    for _ in range(15):
        terms = model.training_loss(batch, ignored, torch.Generator())
        parts = [terms[name].item() for name in ("squares", "likelihood", "penalty")]
        assert terms["loss"].item() == pytest.approx(sum(parts), rel=1e-4)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        rows.append(parts)
    assert rows[-1][0] < 0.9 * rows[0][0]
    assert rows[-1][1] < rows[0][1] - 0.3


def test_bad_values():
    with pytest.raises(ValueError, match="Evidential: penalty must be 0 or more, got -1.0"):
        Evidential(penalty=-1.0)
    with pytest.raises(ValueError, match="Evidential: all sizes must be 1 or more"):
        Evidential(n_messages=0)
