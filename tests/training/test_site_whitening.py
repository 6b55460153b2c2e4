"""Feature whitening per site: closed form, and a small network."""

import pytest
import torch

from deepesi.models.gnn import SensorGNN
from deepesi.training.site_whitening import SHRINKAGE, FeatureStatistics, SiteWhitening


@pytest.fixture
def network():
    torch.manual_seed(0)
    return SensorGNN(smallest=0.03, largest=0.06, n_components=1, n_rounds=1)


def rows(n, seed, mixing, shift):
    noise = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return noise @ mixing + shift


def test_features_get_mean_and_covariance_of_the_others():
    mixing = torch.tensor([[1.0, 0.5, 0], [0, 2, 0], [0.3, 0, 1]], dtype=torch.float64)
    training, site = rows(500, 0, mixing, 1.0), rows(400, 1, mixing.T + 1, -2.0)
    changed = FeatureStatistics.of(site).transport_to(FeatureStatistics.of(training), site)
    torch.testing.assert_close(changed.mean(0), training.mean(0))
    torch.testing.assert_close(
        torch.cov(changed.T), torch.cov(training.T), rtol=0.1, atol=30 * SHRINKAGE
    )


def test_constant_features_stay_finite():
    statistics = FeatureStatistics.of(torch.zeros(5, 3, dtype=torch.float64))
    assert torch.isfinite(statistics.transport_to(statistics, torch.ones(2, 3).double())).all()


@pytest.mark.parametrize(("layer", "axis"), [("cross", 0), ("blocks.0", 2)])
def test_a_network_on_another_site(network, simulate, layer, axis):
    """The training recordings keep their estimate; another site gets another one."""
    stream = simulate(network.head_inputs, n_times=2)
    training, site = stream.batch(0), stream.batch(1)
    whitening = SiteWhitening(network, layer, axis)
    before = network(site.data, site.inputs).mean
    with pytest.raises(RuntimeError, match="call fit with training recordings before adapt"):
        whitening.adapt(site.data, site.inputs)
    whitening.fit([training])
    assert torch.equal(whitening(site.data, site.inputs).mean, before)
    whitening.adapt(training.data, training.inputs)
    same = whitening(training.data, training.inputs).mean
    expected = network(training.data, training.inputs).mean
    torch.testing.assert_close(same, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    whitening.adapt(site.data, site.inputs)
    assert not torch.allclose(whitening(site.data, site.inputs).mean, before, rtol=1e-3, atol=0)
    assert torch.equal(network(site.data, site.inputs).mean, before)  # no hook is left


def test_no_such_layer(network):
    with pytest.raises(ValueError, match=r"SensorGNN has no layer 'x'. Choose one of"):
        SiteWhitening(network, "x", 0)
