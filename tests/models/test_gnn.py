"""Electrode GNN: what it finds before training, its symmetries, its graph, its borders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.data_gen.sources import PatchSources
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.losses.supervised import CosineDistance
from deepesi.losses.uncertainty import GaussianNLL
from deepesi.models.gnn import SensorGNN, SignedAttention
from deepesi.models.layers.evidence import Evidence
from deepesi.physics.head_inputs import SensorGraph, prepare

POINTS = {"smallest": 1e-3, "largest": 1e-3, "n_radii": 1}
WIDE = {"smallest": 0.03, "largest": 0.06}  # patches of several sources on the toy head


def trained(seed=0, **settings):
    """Weights as training might leave them: nothing is neutral any more."""
    torch.manual_seed(seed)
    model = SensorGNN(**settings)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def apply(model, data, head):
    inputs = as_tensors(prepare(model.head_inputs, head))
    with torch.no_grad():
        return model(torch.as_tensor(data, dtype=torch.float32), inputs)


def recording(head, strengths, n_times=1, noise=0.0, seed=0):
    """Potential ``(1, C, T)`` of dipoles ``{number: A m}`` of constant strength, and noise."""
    sources = np.zeros((head.space.n_dipoles, n_times))
    for number, strength in strengths.items():
        sources[number] = strength
    white = np.random.default_rng(seed).normal(size=(head.n_channels, n_times))
    data = head.project(sources) + noise * head.noise_level * (white - white.mean(axis=0))
    return data[None]


def neutral(**settings):
    """The untrained network without its random parts: likelihoods of known lead fields."""
    model = SensorGNN(**settings)
    with torch.no_grad():
        model.blocks[-1].signals.weight.zero_()
        for layer in (model.evidence.score, model.spread):
            if layer is not None:
                layer.weight.zero_()
                layer.bias.zero_()
        model.evidence.mismatch.fill_(-20.0)
        model.evidence.presence.bias.fill_(20.0)
    return model


def test_untrained_it_finds_a_single_source_with_its_moment(head):
    """A source whose lead field is known and that stands out of the noise is found exactly."""
    for number in range(0, 84, 7):
        data = recording(head, {number: -2e-7})
        mean = apply(neutral(n_components=1, n_rounds=1, **POINTS), data, head).mean[0, :, 0]
        assert mean.abs().argmax() == number
        assert mean[number].item() == pytest.approx(-2e-7, rel=0.05)


def test_what_is_explained_is_taken_off(head):
    """One component localizes one of two sources; a second, the other in the residual."""
    data = recording(head, {5: 3e-7, 60: 2e-7})
    alone = apply(neutral(n_components=1, n_rounds=1, **POINTS), data, head).mean[0, :, 0].abs()
    both = apply(neutral(n_components=2, n_rounds=4, **POINTS), data, head).mean[0, :, 0].abs()
    assert set(both.topk(2).indices.tolist()) == {5, 60}
    assert alone[60] < 0.2 * both[60]


def test_the_window_is_taken_as_a_whole(head):
    """Samples that show the same source in other noise localize it better together than alone."""
    model = neutral(n_components=1, n_rounds=1, **POINTS)
    hits = np.zeros(2)
    for seed in range(20):
        data = recording(head, {4 * seed: 2e-8}, n_times=16, noise=1.0, seed=seed)
        for row, part in enumerate((data, data[..., :1])):
            found = apply(model, part, head).mean[0].square().sum(1).argmax()
            hits[row] += found.item() == 4 * seed
    assert hits[0] >= hits[1] + 5


def test_sign_flip_flips_the_estimate(head):
    model = trained(heteroscedastic=True, **WIDE)
    data = recording(head, {5: 1e-7, 40: 5e-8}, n_times=6, noise=1.0)
    first, second = apply(model, data, head), apply(model, -data, head)
    assert torch.equal(first.mean, -second.mean)
    assert torch.equal(first.std, second.std)


def test_free_orientation_is_blind_to_the_frame(free_head):
    """Turning the axes of every source turns the moments with them."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    leadfield = (free_head.leadfield.reshape(16, 28, 3) @ turn).reshape(16, 84)
    model = trained(**WIDE)
    data = recording(free_head, {5: 1e-7, 40: 5e-8}, n_times=2, noise=1.0)
    first = apply(model, data, free_head).mean.reshape(28, 3, 2)
    second = apply(model, data, replace(free_head, leadfield=leadfield)).mean.reshape(28, 3, 2)
    back = torch.as_tensor(turn, dtype=torch.float32) @ second
    assert torch.allclose(first, back, atol=1e-3 * first.abs().max().item())


@pytest.mark.slow
def test_free_orientation_and_another_space_through_one_file(head, free_head, simulate, tmp_path):
    """Exported with a head of free orientation, another montage is served by the same file."""
    model = trained(n_components=1, n_rounds=1, **WIDE)
    export_onnx(model, free_head, tmp_path / "model.onnx")
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    few = free_head.pick(free_head.sensors.names[:11])
    batch = replace(batch, head=few, data=batch.data[:, :11] - batch.data[:, :11].mean(1, True))
    assert check_parity(model, tmp_path / "model.onnx", batch, n_timed=1).max_difference <= 1e-5


def test_energy_above_the_power_of_the_recording_counts_as_all_of_it():
    """With three orientations and weighted sensors the energy of a patch is approximate."""
    torch.manual_seed(0)
    evidence = Evidence(2, 3, 4)
    energy = torch.tensor([[10.0, 300.0, 4.0], [1.0, 2.0, 3.0]])[..., None]
    zeros, power = torch.zeros(2, 2, 3, 1), torch.full((2, 1), 250.0)
    sizes = torch.tensor([16.0]), torch.tensor(1.0)
    weights, _ = evidence(energy, zeros, power, *sizes, torch.ones(3, 3), torch.ones(4, 3, 1))
    assert torch.isfinite(weights).all()
    assert weights.argmax() == 1


def test_the_same_weights_serve_another_source_space(template):
    model = trained(n_components=1)
    head = template.montage_head("biosemi16")
    assert apply(model, recording(head, {700: 1e-7}), head).mean.shape == (1, 1284, 1)


def test_standard_deviation_is_an_addition(simulate):
    """The same weights are drawn, and the same mean is estimated, with it and without."""
    plain, both = trained(), trained(heteroscedastic=True)
    added = both.state_dict().keys() - plain.state_dict().keys()
    assert added == {"spread.weight", "spread.bias"}
    both.load_state_dict(plain.state_dict(), strict=False)
    batch = simulate(plain.head_inputs, n_times=3).batch(0)
    alone, estimate = (model(batch.data, batch.inputs) for model in (plain, both))
    assert alone.std is None
    assert torch.allclose(alone.mean, estimate.mean, atol=1e-6 * alone.mean.abs().max().item())
    assert estimate.std.shape == (8, 84, 3)
    assert (estimate.std > 0).all()


def test_standard_deviation_is_the_spread_over_the_places(head):
    """With nothing learned: a source of moment ``m`` there with probability ``p``, else silent.

    Its mean is ``p m`` and its variance ``p (1 - p) m²``, ``m`` being what fits best there.
    """
    model = neutral(n_components=1, n_rounds=1, heteroscedastic=True, **POINTS)
    with torch.no_grad():
        model.spread.bias[1] = -50.0  # no floor
        model.reliability.log_mismatch.fill_(-50.0)  # all electrodes alike
    data = recording(head, {30: 2e-8}, noise=1.0)
    mean, std = (value[0, :, 0].double().numpy() for value in apply(model, data, head)[:2])
    white = prepare([model.whitener], head)[model.whitener.key]
    gain = white @ head.leadfield
    moment = gain.T @ (white @ data[0, :, 0]) / (gain**2).sum(axis=0)
    chance = mean / moment
    assert chance.sum() == pytest.approx(1, rel=1e-3)
    assert np.sort(chance)[-2] > 0.1  # more than one source is likely
    spread = np.sqrt(chance * (1 - chance)) * np.abs(moment)
    unit = prepare([model.unit], head)[model.unit.key]
    assert np.allclose(std, spread, rtol=1e-3, atol=0.02 * unit)


@pytest.mark.parametrize("loss", [CosineDistance(), GaussianNLL()], ids=["cosine", "nll"])
def test_every_weight_learns(simulate, loss):
    model = trained(heteroscedastic=isinstance(loss, GaussianNLL), n_blocks=2, **WIDE).train()
    batch = simulate(model.head_inputs, n_times=6).batch(0)
    loss(model(batch.data, batch.inputs), batch).mean().backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.slow
def test_some_steps_of_training_help(simulate):
    torch.manual_seed(0)
    model, loss = SensorGNN(n_components=2, **WIDE), CosineDistance()
    data = simulate(
        model.head_inputs,
        batch_size=32,
        sources=PatchSources(n_sources=(1, 2), radius=(0.03, 0.06)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    values = []
    for step in range(40):
        batch = data.batch(step % 4)
        value = loss(model(batch.data, batch.inputs), batch).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert np.mean(values[-4:]) < 0.9 * np.mean(values[:4])


def test_messages_follow_the_edges(head):
    """What one electrode says reaches itself and those it is joined to, nobody else."""
    torch.manual_seed(0)
    layer = SignedAttention(n_states=8, n_signals=3, n_out=2, n_heads=2)
    edges = torch.as_tensor(SensorGraph(3).compute(head))
    states, signals = torch.randn(16, 4, 8), torch.randn(16, 4, 5, 3)
    features = torch.rand(len(edges), 2)
    louder = signals.clone()
    louder[6] += 1
    _, before = layer(states, signals, edges, features)
    _, after = layer(states, louder, edges, features)
    changed = (before != after).flatten(1).any(1).nonzero().flatten().tolist()
    assert set(changed) == {6} | set(edges[edges[:, 0] == 6, 1].tolist())


def test_attention_adds_up_to_one(head):
    """So electrodes that all say the same hear just that."""
    torch.manual_seed(0)
    layer = SignedAttention(n_states=8, n_signals=1, n_out=1, n_heads=2)
    torch.nn.init.ones_(layer.signals.weight)
    edges = torch.as_tensor(SensorGraph(3).compute(head))
    signals = torch.ones(16, 4, 5, 1)
    _, mixed = layer(torch.randn(16, 4, 8), signals, edges, torch.rand(len(edges), 2))
    assert torch.allclose(mixed, 3 * signals)  # two heads and what the electrode has itself


def test_number_of_weights_as_documented():
    words = " ".join(SensorGNN.__doc__.split())
    plain, both = (
        sum(p.numel() for p in SensorGNN(heteroscedastic=h).parameters()) for h in (False, True)
    )
    assert f"With the default sizes {plain:,} weights" in words
    assert f"with `heteroscedastic` {both - plain} more" in words


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_components": 0}, r"all sizes must be 1 or more, got .*'n_components': 0"),
        ({"n_radii": 0}, r"all sizes must be 1 or more, got .*'n_radii': 0"),
        ({"n_heads": 3}, r"hidden must be a multiple of n_heads .*hidden=16, n_heads=3"),
        ({"kernel_size": 4}, r".*kernel_size odd, got .*kernel_size=4"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"SensorGNN: {message}"):
        SensorGNN(**settings)
