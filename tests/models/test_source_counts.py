"""Evidence of every further patch against brute force, and probabilities of numbers of sources."""

import numpy as np
import pytest
import torch

from deepesi.models.layers.source_counts import SourceCounts, count_loss, evidence_gains


def recording(n_sources, n_times=4, strength=6.0, n_channels=12, n_candidates=9, seed=0):
    """Candidates that are far from parallel; the first ones are active."""
    rng = np.random.default_rng(seed)
    rows = np.linalg.qr(rng.normal(size=(n_channels, n_candidates)))[0].T
    rows = rows + 0.1 * rng.normal(size=rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    moments = strength * rng.choice([-1.0, 1.0], size=(n_sources, n_times))
    return rows, rows[:n_sources].T @ moments + 0.1 * rng.normal(size=(n_channels, n_times))


def log_evidence(white, rows, variances):
    covariance = np.eye(len(white)) + (rows.T * variances) @ rows
    explained = np.einsum("ct,cd,dt->", white, np.linalg.inv(covariance), white)
    return -0.5 * (explained + white.shape[1] * np.linalg.slogdet(covariance)[1])


def test_gains_are_those_of_the_best_variance_of_the_best_patch():
    rows, white = recording(3)
    found = evidence_gains(torch.as_tensor(white)[None], torch.as_tensor(rows)[None, :, None], 4)
    grid = np.append(0.0, np.geomspace(1e-3, 1e3, 4000))
    variances, before = np.zeros(len(rows)), log_evidence(white, rows, np.zeros(len(rows)))
    for gain in found[0].tolist():
        tried = {}
        for patch in np.flatnonzero(variances == 0):
            one = np.eye(len(rows))[patch]
            precision = np.linalg.inv(np.eye(len(white)) + (rows.T * variances) @ rows)
            s, e = rows[patch] @ precision @ rows[patch], rows[patch] @ precision @ white
            # The evidence of one more patch, for all variances of the grid at once.
            gains = 0.5 * (grid * (e @ e) / (1 + grid * s) - white.shape[1] * np.log1p(grid * s))
            tried[patch] = gains.max(), grid[gains.argmax()]
            exact = log_evidence(white, rows, variances + grid[gains.argmax()] * one) - before
            assert exact == pytest.approx(gains.max(), abs=1e-8)
        best = max(tried, key=lambda p: tried[p][0])
        assert gain == pytest.approx(tried[best][0], rel=1e-4, abs=1e-6)
        variances[best] = tried[best][1]
        before = log_evidence(white, rows, variances)


def test_orthogonal_topographies_of_one_patch_count_together():
    """Two orthogonal topographies of equal power add twice the evidence of one."""
    rows = torch.eye(6, dtype=torch.float64)[None, :2]
    data = 5 * torch.ones(1, 6, 3, dtype=torch.float64)
    both = evidence_gains(data, rows[:, None], 1)  # one patch with two orientations
    alone = evidence_gains(data, rows[:, :1, None], 1)
    assert both.item() == pytest.approx(2 * alone.item())


@pytest.mark.parametrize("n_sources", [1, 2, 4])
def test_bayes_rule_with_one_support_counts_clear_sources(n_sources):
    rows, white = recording(n_sources)
    white = torch.as_tensor(white)[None]
    gains = evidence_gains(white, torch.as_tensor(rows)[None, :, None], 5)
    n_times = torch.tensor([4.0], dtype=torch.float64)
    power = white.square().sum((1, 2)) / 4
    head = SourceCounts(5, 4)
    head.last.bias.data.zero_()  # neither scaled nor shifted
    probabilities = head(gains, torch.tensor(9.0, dtype=torch.float64), power, n_times).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-6)
    # Each further source has odds of 1 to 9, the number of candidates.
    assert probabilities[0, n_sources - 1].item() == pytest.approx(8 / 9, abs=0.02)


def test_training_learns_the_prior():
    """Where the evidence says nothing, the probabilities become the shares of the numbers."""
    torch.manual_seed(0)
    head, shares = SourceCounts(3, 8), torch.tensor([0.6, 0.3, 0.1])
    counts = torch.repeat_interleave(torch.arange(1, 4), (100 * shares).round().long())
    silent = torch.zeros(100, 3), torch.tensor(50.0), torch.ones(100), torch.ones(100)
    optimizer = torch.optim.Adam(head.parameters(), 0.03)
    for _ in range(200):
        optimizer.zero_grad()
        loss = count_loss(head(*silent), counts)
        loss.backward()
        optimizer.step()
    assert torch.allclose(head(*silent)[0].exp(), shares, atol=0.02)
    entropy = -(shares * shares.log()).sum()
    assert loss.item() == pytest.approx(entropy.item(), abs=0.01)


def test_more_sources_than_probabilities_count_as_the_most():
    log_probabilities = torch.tensor([[0.5, 0.2, 0.3]]).log()
    loss = count_loss(log_probabilities, torch.tensor([7]))
    assert loss.item() == pytest.approx(-np.log(0.3))
