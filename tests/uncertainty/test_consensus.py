"""Consensus: probabilities against NumPy, the fit against known mixtures and on recordings."""

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.baselines.music import RecursiveMUSIC
from deepesi.calibration.conformal import reach_kernel
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.data_gen.sources import PatchSources
from deepesi.uncertainty.consensus import EXPONENTS, Consensus, fit_consensus, maximum_likelihood
from tests.counting import Counting


class Displaced(InverseModel):
    """A model whose sources are in a wrong order."""

    bound_to_space = False

    def __init__(self, model):
        super().__init__()
        self.model, self.head_inputs = model, model.head_inputs

    def forward(self, data, inputs):
        mean = self.model(data, inputs).mean
        return Estimate(mean[:, torch.arange(mean.shape[1]).roll(37)])


def both():
    return [MinimumNorm("eLORETA"), RecursiveMUSIC(n_sources=1)]


def test_the_magnitude_is_the_probability_times_the_moment_of_the_first_member(simulate):
    members, weights, exponents = both(), [3.0, 1.0], [1.4, 0.5]
    consensus = Consensus(members, weights, exponents)
    batch = simulate(consensus.head_inputs, n_times=3).batch(0)
    found = consensus(batch.data, batch.inputs)
    kernel, expected = reach_kernel(batch.head.source_pos), 0.0
    for member, weight, exponent in zip(members, weights, exponents, strict=True):
        mean = member(batch.data, batch.inputs).mean.double().numpy()
        power = ((mean**2).mean(2) @ kernel) ** exponent
        expected = expected + weight / 4 * power / power.sum(1, keepdims=True)
    first = members[0](batch.data, batch.inputs).mean.square().mean(2).sqrt().sum(1, keepdim=True)
    rms = found.mean.square().mean(2).sqrt()
    np.testing.assert_allclose((rms / first).numpy(), expected, rtol=1e-3, atol=1e-6)
    deviation = found.std.square().mean(2).sqrt()
    variance = expected * (1 - expected)
    np.testing.assert_allclose((deviation / first).numpy(), np.sqrt(variance), rtol=1e-3, atol=1e-5)


def test_source_counts_are_the_weighted_mean(simulate):
    members = [Counting(0), Counting(1)]
    consensus = Consensus(members, [3.0, 1.0])
    batch = simulate(consensus.head_inputs).batch(0)
    first, second = (member(batch.data, batch.inputs).source_counts for member in members)
    found = consensus(batch.data, batch.inputs).source_counts
    torch.testing.assert_close(found, 0.75 * first + 0.25 * second)


def test_equal_members_keep_direction_and_time_course(simulate):
    member = MinimumNorm("eLORETA")
    consensus = Consensus([member, MinimumNorm("eLORETA")])
    batch = simulate(consensus.head_inputs, n_times=4).batch(0)
    found, own = (1e9 * m(batch.data, batch.inputs).mean for m in (consensus, member))
    torch.testing.assert_close(torch.cosine_similarity(found, own, dim=2), torch.ones(8, 84))
    assert torch.equal(1e9 * consensus(-batch.data, batch.inputs).mean, -found)


def test_no_data_no_moments(simulate):
    consensus = Consensus(both())
    batch = simulate(consensus.head_inputs).batch(0)
    found = consensus(torch.zeros_like(batch.data), batch.inputs)
    assert not found.mean.any()
    assert not found.std.any()


def test_maximum_likelihood_recovers_a_mixture():
    """Targets of two members in turn, each right with the probability of its own exponent."""
    generator = torch.Generator().manual_seed(0)
    evidence = torch.randn(2, 6000, 20, generator=generator)
    true = torch.stack([(2.0 * evidence[0]).softmax(1), (0.5 * evidence[1]).softmax(1)])
    which = (torch.rand(6000, generator=generator) > 0.7).long()
    drawn = torch.multinomial(true[which, torch.arange(6000)], 1, generator=generator)
    by_exponent = torch.stack([(a * evidence).log_softmax(2) for a in EXPONENTS])
    log_p = by_exponent.gather(3, drawn.expand(len(EXPONENTS), 2, -1, 1))[..., 0]
    weights, best = maximum_likelihood(log_p, 200)
    assert weights.tolist() == pytest.approx([0.7, 0.3], abs=0.05)
    assert [EXPONENTS[k] for k in best.tolist()] == [2.0, 0.5]


def test_the_member_that_is_wrong_gets_no_weight(simulate):
    members = [Displaced(MinimumNorm("eLORETA")), MinimumNorm("eLORETA")]
    sources = PatchSources(n_sources=(1, 1), radius=(0.03, 0.06))
    declared = Consensus(members).head_inputs
    stream = simulate(declared, sources=sources, snr_db=(10, 10), batch_size=40, split="validation")
    consensus = fit_consensus(members, [stream.batch(0), stream.batch(1)])
    assert consensus.weights[1] > 0.8
    batch = stream.batch(2)
    found, right = (
        m(batch.data, batch.inputs).mean.square().mean(2) for m in (consensus, members[1])
    )
    assert (found.argmax(1) == right.argmax(1)).float().mean() > 0.8


def test_it_is_exported_only_if_all_members_are():
    assert not Consensus(both()).exportable
    assert Consensus([MinimumNorm("eLORETA"), MinimumNorm("MNE")]).exportable


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1.0]}, "weights must be 2 numbers of 0 or more.*got"),
        ({"weights": [1.0, -1.0]}, "weights must be 2 numbers of 0 or more"),
        ({"weights": [0.0, 0.0]}, "not all 0"),
        ({"exponents": [1.0, 0.0]}, "exponents must be 2 numbers above 0"),
        ({"exponents": [1.0]}, "exponents must be 2 numbers above 0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Consensus(both(), **settings)


def test_wrong_members():
    with pytest.raises(ValueError, match="Consensus: needs 2 members or more, got 1"):
        Consensus(both()[:1])
    with pytest.raises(TypeError, match=r"must be inverse models, got \['Linear'\].*load_any"):
        Consensus([*both(), torch.nn.Linear(2, 2)])
    with pytest.raises(ValueError, match="no recordings to fit on"):
        fit_consensus(both(), [])
    with pytest.raises(ValueError, match="n_steps must be 1 or more, got 0"):
        fit_consensus(both(), [], n_steps=0)
