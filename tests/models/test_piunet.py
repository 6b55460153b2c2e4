"""The physics-informed U-Net: its parts exactly, its symmetries, its sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.data_gen.sources import PatchSources
from deepesi.export.to_onnx import export_onnx
from deepesi.losses.supervised import CosineDistance
from deepesi.metrics.source_metric import SourceMetric
from deepesi.models.piunet import PhysicsInformedUNet
from deepesi.physics.head import SourceSpace
from deepesi.physics.head_inputs import prepare
from deepesi.runtime.session import as_feeds, open_model
from deepesi.training.weights import load_network, save_network
from tests.models.free import apply, free


def make(moved=True, **settings):
    """A small one; its weights away from the start, at which most have no effect."""
    torch.manual_seed(0)
    small = {"base_channels": 4, "hidden": 8, "gathered": 4, "smallest": 0.03, "largest": 0.06}
    model = PhysicsInformedUNet(**(small | settings))
    for parameter in model.parameters() if moved else ():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def volume(head):
    """A grid of 5 x 6 x 5 source locations 20 mm apart without a surface, free orientation."""
    shape = (5, 6, 5)
    numbers = np.arange(150).reshape(shape)
    along = [
        np.stack([numbers.take(range(n - 1), a), numbers.take(range(1, n), a)], -1).reshape(-1, 2)
        for a, n in enumerate(shape)
    ]
    places = 0.02 * np.stack(np.unravel_index(numbers.ravel(), shape), axis=1)
    away = head.sensors.positions[:, None] - (places - places.mean(axis=0) + [0, 0.01, 0.04])
    field = away / np.linalg.norm(away, axis=2, keepdims=True) ** 3  # of a dipole in free space
    field -= field.mean(axis=0)
    return replace(
        head,
        leadfield=field.reshape(head.n_channels, -1),
        source_pos=places,
        source_normals=np.zeros_like(places),
        space=SourceSpace("grid-20mm", (np.arange(150),), np.concatenate(along), n_orient=3),
    )


def test_data_consistency_leaves_noise(simulate):
    """What the estimate does not explain of a loud recording is far less than the recording."""
    model = make(moved=False, n_conjugate=12)
    batch = simulate(model.head_inputs, snr_db=(20, 20), montage="biosemi32").batch(0)
    gain = torch.as_tensor(batch.head.leadfield).float()
    left = batch.data - gain @ apply(model, batch.data, batch.head).mean
    share = left.square().sum((1, 2)) / batch.data.square().sum((1, 2))
    assert share.median() < 0.3


def test_estimate_turns_its_sign_with_the_recording(simulate):
    model = make()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    there, back = (apply(model, sign * batch.data, batch.head).mean for sign in (1, -1))
    assert torch.allclose(there, -back)


def test_a_window_is_inverted_as_one_whatever_its_time_axis(simulate):
    """A rotation of the samples rotates the estimate: variances see energies of the window only."""
    model = make(heteroscedastic=True, n_conjugate=15)
    batch = simulate(model.head_inputs, n_times=5).batch(0)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    mean, std = apply(model, batch.data, batch.head)[:2]
    turned = apply(model, batch.data @ rotation, batch.head)
    largest = mean.abs().max().item()
    assert torch.allclose(turned.mean, mean @ rotation, rtol=1e-3, atol=1e-3 * largest)
    assert torch.allclose(turned.std, std, rtol=1e-2)


def test_examples_of_a_batch_do_not_know_each_other(simulate):
    model = make().train()
    batch = simulate(model.head_inputs, n_times=2).batch(0)
    together, alone = model(batch.data, batch.inputs), model(batch.data[2:3], batch.inputs)
    largest = together.mean[2].abs().max().item()
    assert torch.allclose(together.mean[2:3], alone.mean, rtol=1e-3, atol=1e-4 * largest)


def test_free_orientation_has_no_preferred_axes(simulate):
    """Turning the axes turns the moments and changes nothing else."""
    model = make()
    batch = simulate([], n_times=2).batch(0)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    straight = apply(model, batch.data, free(batch.head)).mean.unflatten(1, (84, 3))
    turned = apply(model, batch.data, free(batch.head, turn)).mean.unflatten(1, (84, 3))
    expected = torch.einsum("op,bsot->bspt", torch.as_tensor(turn).float(), straight)
    assert torch.allclose(turned, expected, rtol=1e-2, atol=1e-3 * straight.abs().max().item())


@pytest.mark.parametrize("heteroscedastic", [False, True])
def test_volume_of_free_orientation(simulate, heteroscedastic):
    """Learns from it, and finds single dipoles of any direction without having learned."""
    head = volume(simulate([], montage="biosemi64").batch(0).head)
    model = make(moved=False, heteroscedastic=heteroscedastic, smallest=0.01, largest=0.02)
    inputs = as_tensors(prepare(model.head_inputs, head))
    chosen = np.arange(0, 150, 7)
    moments = np.random.default_rng(1).normal(size=(len(chosen), 3))
    sources = np.zeros((len(chosen), 150, 3))
    sources[np.arange(len(chosen)), chosen] = moments
    data = torch.as_tensor(head.leadfield @ sources.reshape(len(chosen), 450, 1)).float()
    data *= 30 * head.noise_level / data.square().mean((1, 2), keepdim=True).sqrt()
    mean, std = model(data, inputs)[:2]
    assert mean.shape == (len(chosen), 450, 1)
    assert (std is None) != heteroscedastic
    assert std is None or ((std > 0).all() and std.shape == mean.shape)
    found = mean.detach().unflatten(1, (150, 3)).norm(dim=2)[..., 0].argmax(1).numpy()
    error = np.linalg.norm(head.source_pos[found] - head.source_pos[chosen], axis=1)
    assert np.median(error) <= 0.02
    (mean.square().sum() + (0 if std is None else std.sum())).backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)


@pytest.mark.slow
def test_exported_file_follows_the_head(template, toy, tmp_path):
    """Traced on 84 sources and 16 channels, applied to 1,284 and 32, in the same grid."""
    model = make(smallest=0.010, largest=0.025)
    path = tmp_path / "model.onnx"
    export_onnx(model, toy.montage_head("biosemi16"), path)
    head = template.montage_head("biosemi32")
    data = np.random.default_rng(0).normal(scale=1e-6, size=(2, 32, 4)).astype(np.float32)
    data -= data.mean(axis=1, keepdims=True)
    opened = open_model(path)
    found = opened.run(data, as_feeds(prepare(opened.contract.head_inputs, head)))["mean"]
    expected = apply(model, torch.as_tensor(data), head).mean.numpy()
    assert found.shape == (2, 1284, 4)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()
    silent = opened.run(0 * data, as_feeds(prepare(opened.contract.head_inputs, head)))["mean"]
    assert (silent == 0).all()


def test_untrained_it_finds_a_patch_without_noise(template, simulate):
    torch.manual_seed(0)
    model = PhysicsInformedUNet().eval()
    batch = simulate(
        model.head_inputs,
        heads=template,
        montage="biosemi64",
        batch_size=32,
        sources=PatchSources(n_sources=(1, 1)),
    ).batch(0)
    exact = torch.as_tensor(batch.head.leadfield).float() @ batch.sources
    metric = SourceMetric("localization_error")
    metric.update(apply(model, exact, batch.head), batch)
    assert metric.compute() < 5.0


def test_silence_is_answered_with_nothing(simulate):
    model = make(heteroscedastic=True)
    batch = simulate(model.head_inputs, n_times=2).batch(0)
    mean, std = apply(model, torch.zeros_like(batch.data), batch.head)[:2]
    assert (mean == 0).all()
    assert torch.isfinite(std).all()


def test_it_learns(simulate):
    model = make(moved=False, n_passes=1)
    batch = simulate(model.head_inputs, batch_size=16).batch(0)
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-2), CosineDistance()
    course = []
    for _ in range(12):
        value = loss(model(batch.data, batch.inputs), batch).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        course.append(value.item())
    assert course[-1] < 0.9 * course[0]


def test_saved_weights_come_back(toy, tmp_path, simulate):
    """Weights are plain arrays, whatever layout the convolutions like."""
    model = make()
    config = {"_target_": "deepesi.models.piunet.PhysicsInformedUNet", "base_channels": 4}
    config |= {"hidden": 8, "gathered": 4, "smallest": 0.03, "largest": 0.06}
    space = {"space": toy.space.name, "space_fingerprint": toy.space.fingerprint}
    save_network(model, {"model": config, **space}, tmp_path / "model")
    again, _ = load_network(tmp_path, toy.space)
    batch = simulate(model.head_inputs).batch(0)
    first, second = (apply(m, batch.data, batch.head).mean for m in (model, again))
    assert torch.equal(first, second)


def test_standard_deviation_costs_weights_only_if_asked(simulate):
    plain, both = make(), make(heteroscedastic=True)
    count = [sum(p.numel() for p in m.parameters()) for m in (plain, both)]
    assert count[1] - count[0] == 8 * 4 + 4
    batch = simulate(plain.head_inputs, n_times=2).batch(0)
    assert apply(plain, batch.data, batch.head).std is None


@pytest.mark.parametrize("base_channels", [8, 16, 32])
def test_number_of_weights_is_as_documented(base_channels):
    count = sum(p.numel() for p in PhysicsInformedUNet(base_channels).parameters())
    assert f"{count:,} with {base_channels}" in PhysicsInformedUNet.__doc__
    assert count < 700_000 or base_channels == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_passes": 0}, "all sizes must be 1 or more.*'n_passes': 0"),
        ({"n_conjugate": 0}, "all sizes must be 1 or more"),
        ({"base_channels": 6}, "'base_channels': 6.*must be multiples of 4"),
        ({"n_y": 18}, "'n_y': 18.*must be multiples of 4: the grid is halved twice"),
        ({"spacing": 0.0}, "VoxelCorners: needs a positive spacing"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        PhysicsInformedUNet(**settings)
