"""Networks under a prior on the normal: fixed orientation at one end, free at the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.models.layers.orientation_posterior import OrientationPosterior
from deepesi.models.piunet import PhysicsInformedUNet
from deepesi.models.transformer import SourceTransformer
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head_inputs import SourceUnit, prepare
from tests.models.free import apply

WIDE = {"smallest": 0.03, "largest": 0.06, "n_radii": 2}
NETWORKS = {
    "GNN": lambda loose: SensorGNN(**WIDE, n_components=2, n_rounds=1, loose=loose),
    "U-Net": lambda loose: PhysicsInformedUNet(
        base_channels=4, **WIDE, gathered=4, hidden=8, n_strongest=16, loose=loose
    ),
    "ISTA": lambda loose: UnrolledISTA(n_steps=4, **WIDE, loose=loose),
    "transformer": lambda loose: SourceTransformer(
        n_components=2, n_rounds=1, n_blocks=1, stretch=2, **WIDE, loose=loose
    ),
}
ALL = NETWORKS | {"ConvDip": lambda loose: ConvDip(252, 8, 8, hidden=16, loose=loose)}


def make(name, loose):
    """Weights as training might leave them."""
    torch.manual_seed(0)
    model = ALL[name](loose)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def in_one_unit(model, data, head):
    """Estimate by source; `SourceUnit` is a median over columns, which depend on the axes."""
    inputs = as_tensors(prepare(model.head_inputs, head))
    unit = prepare([SourceUnit()], head.along_normals())
    with torch.no_grad():
        mean = model(data, inputs | as_tensors(unit)).mean
    return mean.unflatten(1, (head.space.n_sources, -1))


@pytest.fixture
def recording(simulate, free_toy):
    return simulate([], heads=free_toy, batch_size=4, n_times=3).batch(0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_small_variance_is_fixed_orientation(name, recording):
    """With any weights. Patches are flat, since a patch of fixed orientation follows the cortex."""
    normals = np.zeros((84, 3))
    normals[:] = np.array([2.0, -1.0, 2.0]) / 3
    head = replace(recording.head, source_normals=normals)
    loose = in_one_unit(make(name, 1e-10), recording.data, head)
    fixed = in_one_unit(make(name, 1.0), recording.data, head.along_normals())
    expected = fixed * torch.as_tensor(normals, dtype=torch.float32)[:, :, None]
    assert torch.allclose(loose, expected, rtol=0, atol=2e-3 * expected.abs().max().item())


@pytest.mark.parametrize("name", ALL)
def test_variance_1_is_free_orientation(name, recording):
    """No step between the prior of equal variances and none, with equal weights of sensors."""
    models = [make(name, loose) for loose in (1.0, 1 - 1e-7)]
    # With loose=1 they count the weights by their mean over orientations.
    if name in ("GNN", "transformer"):
        for model in models:
            torch.nn.init.constant_(model.reliability.log_mismatch, -50.0)
            if name == "transformer":
                torch.nn.init.zeros_(model.trust.weight)
    free, near = (apply(model, recording.data, recording.head).mean for model in models)
    assert torch.allclose(free, near, rtol=0, atol=1e-3 * free.abs().max().item())


@pytest.mark.parametrize("name", NETWORKS)
def test_orientations_turn_with_axes_and_normals(name, recording):
    model, head = make(name, 0.2), recording.head
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    turned_head = replace(
        head,
        leadfield=(head.leadfield.reshape(head.n_channels, -1, 3) @ turn).reshape(
            head.n_channels, -1
        ),
        source_normals=head.source_normals @ turn,
    )
    if name in ("GNN", "transformer"):  # tokens are positions and normals in the head frame
        torch.nn.init.zeros_(model.evidence.token_layer.weight)
        query = model.cross.query if name == "GNN" else model.query
        torch.nn.init.zeros_(query.weight)
    straight = in_one_unit(model, recording.data, head)
    turned = in_one_unit(model, recording.data, turned_head)
    expected = torch.einsum("op,bsot->bspt", torch.as_tensor(turn).float(), straight)
    assert torch.allclose(turned, expected, rtol=0, atol=2e-3 * straight.abs().max().item())


@pytest.mark.parametrize("name", ALL)
def test_less_variance_means_less_moment_along_the_cortex(name, recording):
    normals = torch.as_tensor(recording.head.source_normals).float()[:, :, None]

    def off_normal(loose):
        mean = in_one_unit(make(name, loose), recording.data, recording.head)
        along = (mean * normals).sum(2, keepdim=True)
        return ((mean - along * normals).square().sum() / mean.square().sum()).item()

    assert off_normal(0.05) < 0.7 * off_normal(1.0)


@pytest.mark.parametrize("name", ALL)
def test_every_weight_learns_under_a_prior(name, recording):
    model = make(name, 0.2).train()
    inputs = as_tensors(prepare(model.head_inputs, recording.head))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    unit = inputs.get(SourceUnit().key, recording.sources.abs().max())
    for _ in range(2):
        optimizer.zero_grad()
        loss = ((model(recording.data, inputs).mean - recording.sources) / unit).square().mean()
        loss.backward()
        assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
    unchanged = [k for k, value in model.state_dict().items() if not (value != before[k]).any()]
    assert set(unchanged) <= {"trunk.count.bias"}  # it adds the same to all scores of a softmax


@pytest.mark.parametrize("name", ALL)
def test_heads_without_tangents_and_variances_out_of_range_are_refused(name, recording):
    model = make(name, 0.2)
    with pytest.raises(ValueError, match="loose=0.2 needs three dipole components per source"):
        apply(model, recording.data, recording.head.along_normals())
    for loose in (0.0, 1.5):
        with pytest.raises(ValueError, match="loose must be above 0 and at most 1, got"):
            ALL[name](loose)


def test_deviation_of_convdip_is_that_of_the_prior(recording):
    """Outputs are standard deviations of independent coefficients of the root of the prior."""
    torch.manual_seed(0)
    model = ConvDip(252, 8, 8, hidden=16, loose=1e-6, heteroscedastic=True).eval()
    std = apply(model, recording.data, recording.head).std.unflatten(1, (84, 3))
    normals = torch.as_tensor(recording.head.source_normals).float().abs()[:, :, None]
    along = (std * normals).sum(2, keepdim=True)
    assert torch.allclose(std, along * normals, rtol=0, atol=5e-3 * along.max().item())


@pytest.fixture(scope="module")
def patches():
    """Topographies of 5 patches of 8 channels, of variance 1 and twice 0.3 by a random root."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(5, 8, 3)))[0]
    turn = np.linalg.qr(rng.normal(size=(5, 3, 3)))[0]
    root = (turn * np.sqrt([1.0, 0.3, 0.3])) @ turn.swapaxes(1, 2)
    return torch.as_tensor((basis @ root).swapaxes(1, 2))  # S O C


STRENGTH = 7.0


def test_energy_is_the_evidence_over_all_orientations(patches):
    """Logarithm of ``N(v; 0, I + s Qᵀ Q)``, up to a constant that patches share."""
    data = 3 * torch.randn(8, generator=torch.Generator().manual_seed(0)).double()
    posterior = OrientationPosterior(patches.flatten(0, 1)[None], 3, 0.3)
    filtered = (patches @ data)[None, :, :, None, None]
    found = posterior.amplitudes(filtered, torch.tensor([STRENGTH]).double())
    energy = (found * filtered).sum(2).flatten() * STRENGTH / (1 + STRENGTH)
    expected = []
    for rows in patches:
        cov = torch.eye(8).double() + STRENGTH * rows.T @ rows
        gaussian = torch.distributions.MultivariateNormal(torch.zeros(8).double(), cov)
        expected.append(gaussian.log_prob(data))
        mean = STRENGTH * rows @ torch.linalg.solve(cov, data)
        shrunk = found[0, len(expected) - 1, :, 0, 0] * STRENGTH / (1 + STRENGTH)
        assert torch.allclose(shrunk, mean)
    assert (energy / 2 - torch.stack(expected)).std() < 1e-10


def test_degrees_of_freedom_are_the_energy_of_noise(patches):
    posterior = OrientationPosterior(patches.flatten(0, 1)[None], 3, 0.3)
    strength = torch.tensor([STRENGTH]).double()
    filtered = patches[None, :, :, :, None]  # of every unit vector in turn
    energy = (posterior.amplitudes(filtered, strength) * filtered).sum((2, 3, 4))
    assert torch.allclose(energy, posterior.n_free(strength))


def test_with_weighted_sensors_amplitudes_are_the_posterior_mean(patches):
    """Same for ``N(v; 0, I + s/p Qᵀ Q)``, weighted topographies, by shrinkage on the normal."""
    rng = torch.Generator().manual_seed(0)
    weights = torch.rand(8, 1, generator=rng).double()
    data = torch.randn(8, generator=rng).double()
    posterior = OrientationPosterior(patches.flatten(0, 1)[None], 3, 0.3)
    power = torch.rand(1, 5, 1, generator=rng).double()
    strength = torch.tensor([STRENGTH]).double()
    rows = patches * weights[:, 0]
    filtered = (rows @ data)[None, :, :, None, None]
    grams = posterior.weighted_grams(weights)
    found = posterior.weighted_amplitudes(filtered, strength, grams, power)[0, :, :, 0, 0]
    for patch, amplitudes, p in zip(rows, found, power[0, :, 0], strict=True):
        level = STRENGTH / p
        cov = torch.eye(8).double() + level * patch.T @ patch
        mean = level * patch @ torch.linalg.solve(cov, data)
        assert torch.allclose(amplitudes * STRENGTH / (1 + STRENGTH) / p, mean)
    even = posterior.weighted_amplitudes(
        filtered, strength, posterior.weighted_grams(torch.ones(8, 1).double()), power * 0 + 1
    )
    assert torch.allclose(even, posterior.amplitudes(filtered, strength))
