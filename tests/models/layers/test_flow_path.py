"""Paths of flow matching on a Gaussian toy, whose posterior is known."""

import pytest
import torch

from deepesi.models.layers.flow_path import follow, on_path, times, velocity_error

#: Two sources, prior variances 1 and 4, seen by one channel with noise of variance 0.5.
PRIOR, TOPOGRAPHY, NOISE = torch.tensor([1.0, 4.0]).double(), torch.tensor([1.0, 0.5]).double(), 0.5
DATA = 1.5


def posterior():
    covariance = torch.linalg.inv(
        torch.diag(1 / PRIOR) + torch.outer(TOPOGRAPHY, TOPOGRAPHY) / NOISE
    )
    return covariance @ TOPOGRAPHY * DATA / NOISE, covariance


def exact(x, time):
    """Expected end of a path, given where it is and the recording: one more Gaussian update."""
    mean, covariance = posterior()
    if time == 0:
        return mean.expand_as(x)
    precision = torch.linalg.inv(covariance)
    noise = ((1 - time) / time) ** 2
    both = torch.linalg.inv(precision + torch.eye(2) / noise)
    return (x / time / noise + precision @ mean) @ both


def moments(denoiser, n_steps):
    """Mean and covariance of the ends: they are linear in the noise."""
    starts = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    mean, *columns = follow(denoiser, starts, n_steps)
    root = torch.stack(columns) - mean
    return mean, root.T @ root


@pytest.mark.parametrize(("n_steps", "within"), [(8, 0.05), (64, 0.002)])
def test_exact_velocities_lead_to_the_posterior(n_steps, within):
    mean, covariance = moments(exact, n_steps)
    expected = posterior()
    torch.testing.assert_close(mean, expected[0], rtol=0, atol=within)
    torch.testing.assert_close(covariance, expected[1], rtol=0, atol=4 * within)


def test_learned_velocities_lead_to_the_posterior():
    """The denoiser of the least velocity error on simulations: linear, at every time apart."""
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(100_000, 2, generator=generator).double() * PRIOR.sqrt()
    data = ends @ TOPOGRAPHY + NOISE**0.5 * torch.randn(100_000, generator=generator).double()
    starts = torch.randn(100_000, 2, generator=generator).double()

    def learned(x, time):
        share = torch.full((len(ends), 1), time).double()
        design = torch.cat([on_path(starts, ends, share), data[:, None]], dim=1)
        weights = torch.linalg.lstsq(design, ends).solution
        loss = velocity_error(design @ weights, ends, share).square().mean()
        assert loss < velocity_error(design @ (1.01 * weights), ends, share).square().mean()
        return torch.cat([x, torch.full_like(x[:, :1], DATA)], dim=1) @ weights

    mean, covariance = moments(learned, 16)
    torch.testing.assert_close(mean, posterior()[0], rtol=0, atol=0.05)
    torch.testing.assert_close(covariance, posterior()[1], rtol=0.05, atol=0.05)


def test_the_error_of_a_velocity_is_that_of_the_end_over_the_time_left():
    start, end, expected = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    time = torch.linspace(0, 0.9, 5)[:, None]
    x = on_path(start, end, time)
    found = (expected - x) / (1 - time) - (end - start)
    torch.testing.assert_close(velocity_error(expected, end, time), found, rtol=1e-4, atol=1e-4)


def test_times_end_at_one_with_shorter_steps():
    assert times(4) == pytest.approx([0, 7 / 16, 3 / 4, 15 / 16, 1])
