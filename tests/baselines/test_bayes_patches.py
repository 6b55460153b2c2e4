"""The sampler of several patches, against enumeration of every configuration."""

import itertools
import math

import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_patches import BayesPatches
from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.patch_sampler import EMPTY, Dictionary, PatchSampler
from deepesi.calibration.sbc import uniformity
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.metrics.source_metric import SourceMetric

N_PATCHES, N_CHANNELS = 60, 12
LEVELS = torch.tensor([1.0, 3.0, 9.0]).double()


def random(*shape, rng):
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def small(data, near=None):
    """60 patches of two radii around 30 sources on a line; neighbours look alike."""
    rng = torch.Generator().manual_seed(0)
    rows = random(N_PATCHES + 4, N_CHANNELS, rng=rng)
    rows = sum(rows[i : i + N_PATCHES] for i in range(4))
    centres = torch.arange(N_PATCHES // 2).repeat_interleave(2)
    if near is None:
        near = (torch.arange(30)[:, None] - torch.arange(30)).abs() < 2
    moments = 0.5 + torch.rand(N_PATCHES, generator=rng).double()
    return Dictionary(torch.nn.functional.normalize(rows, dim=1), moments, centres, near, data)


def log_evidences(dictionary, configurations):
    """Evidence of the recording under Gaussians, relative to noise alone, by their covariances."""
    noise = torch.eye(N_CHANNELS).double()
    covariances = [noise]
    for patches, level in configurations:
        rows = dictionary.topographies[list(patches)]
        scale = LEVELS[level] / dictionary.moments[list(patches)]
        covariances.append(noise + rows.T @ (scale.square()[:, None] * rows))
    zero = torch.zeros(N_CHANNELS).double()
    gaussians = torch.distributions.MultivariateNormal(zero, torch.stack(covariances))
    found = sum(gaussians.log_prob(column) for column in dictionary.data[0].T)
    return (found[1:] - found[0]).tolist()


def enumerated(dictionary, n_sources):
    """Posterior of every configuration, by brute force."""
    priors = {}
    for count in range(n_sources[0], n_sources[1] + 1):
        for patches in itertools.combinations(range(N_PATCHES), count):
            pairs = itertools.combinations([int(dictionary.centres[p]) for p in patches], 2)
            if any(dictionary.near[a, b] for a, b in pairs):
                continue
            # A set of n patches fills n slots in n! orders: uniform numbers, uniform patches.
            prior = math.log(math.factorial(count)) - count * math.log(N_PATCHES)
            for level in range(len(LEVELS)):
                priors[patches, level] = prior
    logs = np.array(list(priors.values())) + log_evidences(dictionary, priors)
    values = np.exp(logs - logs.max())
    return dict(zip(priors, values / values.sum(), strict=True))


def recording(patches, amplitude, n_times, rng):
    dictionary = small(torch.zeros(1, N_CHANNELS, n_times).double())
    moments = amplitude * random(len(patches), n_times, rng=rng)
    noise = random(N_CHANNELS, n_times, rng=rng)
    return (dictionary.topographies[list(patches)].T @ moments + noise)[None]


class Independent(PatchSampler):
    """With other random numbers for every example, so that results of examples are independent."""

    def _uniform(self):
        return torch.rand(len(self.example), generator=self.rng, dtype=torch.float64)


def sampled(dictionary, n_sources, n_chains=200, n_rounds=30, n_burn=30, kind=PatchSampler):
    rng = torch.Generator().manual_seed(1)
    sampler = kind(dictionary, LEVELS, n_sources, n_chains, rng)
    state = sampler.start()
    for number in range(n_burn):
        state = sampler.sweep(state, min(1.0, number / 15))
    states = []
    for _ in range(n_rounds):
        state = sampler.sweep(state, 1.0)
        states.append(state)
    return sampler, states


@pytest.mark.parametrize(("n_sources", "n_times"), [((1, 1), 1), ((1, 2), 1), ((0, 2), 3)])
def test_patches_and_levels_equal_enumeration(n_sources, n_times):
    rng = torch.Generator().manual_seed(2)
    dictionary = small(recording((10, 40), 2.5, n_times, rng))
    posterior = enumerated(dictionary, n_sources)
    _, states = sampled(dictionary, n_sources)
    exact, found = np.zeros((2, N_PATCHES + 1)), np.zeros((2, N_PATCHES + 1))
    levels = np.zeros((2, len(LEVELS)))
    counts = np.zeros((2, 3))
    for (patches, level), share in posterior.items():
        exact[0, list(patches)] += share
        levels[0, level] += share
        counts[0, len(patches)] += share
    total = sum(len(state.level) for state in states)
    for state in states:
        present = state.patches[state.patches != EMPTY]
        found[0] += np.bincount(present, minlength=N_PATCHES + 1) / total
        levels[1] += np.bincount(state.level, minlength=3) / total
        counts[1] += np.bincount((state.patches != EMPTY).sum(1), minlength=3) / total
    assert found[0] == pytest.approx(exact[0], abs=0.04)
    assert levels[1] == pytest.approx(levels[0], abs=0.04)
    assert counts[1] == pytest.approx(counts[0], abs=0.04)


def test_evidence_is_that_of_the_covariance():
    rng = torch.Generator().manual_seed(3)
    dictionary = small(recording((5, 50), 3.0, 4, rng))
    _, (state,) = sampled(dictionary, (2, 2), n_chains=3, n_rounds=1, n_burn=3)
    for patches, level, evidence in zip(*state, strict=True):
        (expected,) = log_evidences(dictionary, [(patches.tolist(), int(level))])
        assert float(evidence) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_moments_are_those_of_the_gaussian_posterior():
    rng = torch.Generator().manual_seed(4)
    dictionary = small(recording((5, 50), 3.0, 2, rng))
    sampler, (state,) = sampled(dictionary, (2, 2), n_chains=2, n_rounds=1, n_burn=3)
    amplitudes = sampler.amplitudes(state)
    for chain, patches in enumerate(state.patches.tolist()):
        gain = (dictionary.topographies[patches] / dictionary.moments[patches, None]).T
        precision = gain.T @ gain + torch.eye(2).double() / LEVELS[state.level[chain]] ** 2
        cov = torch.linalg.inv(precision)
        mean = cov @ gain.T @ dictionary.data[0]
        assert torch.allclose(amplitudes.mean[chain], mean)
        root = amplitudes.root[chain]
        assert torch.allclose(root @ root.T, cov)


def test_two_patches_are_never_too_near():
    rng = torch.Generator().manual_seed(5)
    dictionary = small(recording((30,), 6.0, 1, rng))
    _, states = sampled(dictionary, (2, 3), n_chains=20)
    for state in states:
        for patches in state.patches.tolist():
            centres = [int(dictionary.centres[p]) for p in patches if p != EMPTY]
            assert len(centres) >= 2
            assert all(abs(a - b) >= 2 for a, b in itertools.combinations(centres, 2))


def test_ranks_of_draws_from_its_own_prior_are_uniform():
    """Simulation-based calibration of the number of patches and of their summed moments."""
    rng = torch.Generator().manual_seed(6)
    empty = torch.zeros(30, 30, dtype=torch.bool)
    n_tests, data, truths = 150, [], []
    for _ in range(n_tests):
        count = int(torch.randint(0, 3, (), generator=rng))
        patches = torch.randint(0, N_PATCHES, (count,), generator=rng)
        level = LEVELS[torch.randint(0, 3, (), generator=rng)]
        dictionary = small(torch.zeros(1, N_CHANNELS, 1).double(), empty)
        moments = level * random(count, 1, rng=rng)
        gain = (dictionary.topographies[patches] / dictionary.moments[patches, None]).T
        data.append(gain @ moments + random(N_CHANNELS, 1, rng=rng))
        truths.append((float(moments.sum()), count))
    dictionary = small(torch.stack(data), empty)
    n_chains = 20
    settings = {"n_chains": n_chains, "n_rounds": 1, "n_burn": 40, "kind": Independent}
    sampler, states = sampled(dictionary, (0, 2), **settings)
    amplitudes = sampler.amplitudes(states[0])
    noise = random(len(amplitudes.mean), 2, 1, rng=rng)
    present = (states[0].patches != EMPTY)[..., None]
    drawn = ((amplitudes.mean + amplitudes.root @ noise) * present).sum((1, 2))
    drawn = drawn.unflatten(0, (n_tests, n_chains)).numpy()
    counts = (states[0].patches != EMPTY).sum(1).unflatten(0, (n_tests, n_chains)).numpy()
    jitter = np.random.default_rng(0)
    for values, true in ((drawn, 0), (counts, 1)):
        target = np.array([t[true] for t in truths])[:, None]
        ties = (values == target).sum(1)
        ranks = (values < target).sum(1) + jitter.integers(0, ties + 1)
        assert uniformity(ranks, n_chains) > 0.005


SIZES = {"smallest": 0.03, "largest": 0.06, "n_radii": 2, "n_chains": 4, "n_annealed": 8}


def test_two_sources_are_found_and_counted(simulate):
    model = BayesPatches((1, 3), **SIZES, n_kept=4, n_samples=8, min_distance=0.05)
    eloreta = MinimumNorm("eLORETA")
    exact = {"skull_conductivity": (0.01, 0.01), "skull_thickness": (0.006, 0.006)}
    exact |= {"scalp_conductivity": (0.33, 0.33), "brain_conductivity": (0.33, 0.33)}
    batch = simulate(
        [*model.head_inputs, *eloreta.head_inputs],
        n_times=10,
        tissues=TissueRanges(**exact),
        setups=SetupRanges(montages=["biosemi32"], displacement=0.0),
        sources=PatchSources((2, 2), (0.03, 0.06), min_distance=0.05),
        snr_db=(5, 5),
        batch_size=16,
    ).batch(0)
    scores = []
    for method in (model, eloreta):
        metric = SourceMetric("localization_error")
        metric.update(method(batch.data, batch.inputs), batch)
        scores.append(metric.compute())
    assert scores[0] < 0.6 * scores[1]
    estimate = model(batch.data, batch.inputs)
    assert estimate.samples.shape == (8, 16, 84, 10)
    assert (estimate.std >= 0).all()
    posterior = model.sample_patches(batch.data, batch.inputs)
    counts = posterior.n_sources()
    assert torch.allclose(counts.sum(1), torch.ones(16).double())
    assert counts[:, 2].mean() > 0.5
    assert (posterior.r_hat >= 1).all()


def test_an_example_does_not_depend_on_the_others(simulate):
    model = BayesPatches((1, 2), **SIZES, n_kept=2, n_samples=4)
    batch = simulate(model.head_inputs, n_times=2, batch_size=3).batch(0)
    together = model(batch.data, batch.inputs)
    alone = model(batch.data[1:2], batch.inputs)
    assert torch.allclose(together.mean[1:2], alone.mean, atol=1e-6 * alone.mean.abs().max())
    assert torch.allclose(
        together.samples[:, 1:2], alone.samples, atol=1e-6 * alone.samples.abs().max()
    )


def test_bad_numbers_and_free_orientation_are_refused(simulate):
    with pytest.raises(ValueError, match=r"numbers of sources in order, got .*n_sources=\(3, 1\)"):
        BayesPatches((3, 1))
    with pytest.raises(ValueError, match="must be 1 or more"):
        BayesPatches(n_chains=0)
    model = BayesPatches((1, 1), **SIZES)
    batch = simulate(model.head_inputs, batch_size=1).batch(0)
    inputs = dict(batch.inputs)
    inputs[model.moments.key] = inputs[model.moments.key].expand(-1, -1, 3)
    with pytest.raises(ValueError, match="bayes_patches_fixed on a head of free orientation"):
        model(batch.data, inputs)
