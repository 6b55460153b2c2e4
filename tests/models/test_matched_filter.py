"""The unrolled matched filter: its physics exactly, its symmetries, its sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.metrics.source_metric import SourceMetric
from deepesi.models.matched_filter import UnrolledMatchedFilter
from tests.models.free import apply, free


def make(**settings):
    torch.manual_seed(0)
    model = UnrolledMatchedFilter(
        **({"n_components": 2, "n_sweeps": 1, "hidden": 8, "exchanged": 4} | settings)
    )
    for parameter in model.parameters():  # far from the start, where much would be zero
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_estimate_turns_its_sign_with_the_recording(simulate):
    model = make()
    batch = simulate(model.head_inputs, n_times=3).batch(0)
    there, back = (apply(model, sign * batch.data, batch.head).mean for sign in (1, -1))
    assert torch.allclose(there, -back)


def test_a_window_is_inverted_as_one_whatever_its_time_axis(simulate):
    """A rotation of the samples rotates the estimate: weights see energies of the window only."""
    model = make(heteroscedastic=True)
    batch = simulate(model.head_inputs, n_times=5).batch(0)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    mean, std = apply(model, batch.data, batch.head)[:2]
    turned = apply(model, batch.data @ rotation, batch.head)
    largest = mean.abs().max().item()
    assert torch.allclose(turned.mean, mean @ rotation, rtol=1e-3, atol=1e-3 * largest)
    assert torch.allclose(turned.std, std, rtol=1e-3)


def test_free_orientation_has_no_preferred_axes(simulate):
    """Turning the axes that moments are counted along turns the moments and nothing else."""
    model = make()
    batch = simulate([], n_times=2).batch(0)
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    straight = apply(model, batch.data, free(batch.head)).mean.unflatten(1, (84, 3))
    turned = apply(model, batch.data, free(batch.head, turn)).mean.unflatten(1, (84, 3))
    expected = torch.einsum("op,bsot->bspt", torch.as_tensor(turn).float(), straight)
    assert torch.allclose(turned, expected, rtol=1e-2, atol=1e-3 * straight.abs().max().item())


def test_untrained_it_finds_a_patch_without_noise(template, simulate):
    model = UnrolledMatchedFilter(n_components=1, n_sweeps=1).eval()
    batch = simulate(
        model.head_inputs,
        heads=template,
        montage="biosemi64",
        batch_size=32,
        sources=PatchSources(n_sources=(1, 1)),
    ).batch(0)
    gain = torch.as_tensor(batch.head.leadfield, dtype=torch.float32)
    exact = replace(batch, data=gain @ batch.sources)
    metric = SourceMetric("localization_error")
    metric.update(apply(model, exact.data, exact.head), exact)
    assert metric.compute() < 5.0


def test_it_reads_the_skull_off_the_recording(template):
    """The weights of the skulls follow the true conductivity, for one source of high SNR."""
    model = UnrolledMatchedFilter(n_components=1, n_sweeps=1).eval()
    batch = SimulatedRecordings(
        template,
        PatchSources(n_sources=(1, 1)),
        SetupRanges(montages=["biosemi64"]),
        model.head_inputs,
        tissues=TissueRanges((0.003, 0.03), (0.006, 0.006), (0.33, 0.33), (0.33, 0.33)),
        snr_db=(20, 20),
        batch_size=64,
    ).batch(0)
    weights_of_skulls = []
    model.skulls[0].register_forward_hook(lambda _, __, weights: weights_of_skulls.append(weights))

    def conductivity(prior, mismatch):
        model.skulls[0].prior.data[:] = torch.tensor(prior)
        model.skulls[0].log_mismatch.data[:] = torch.tensor(mismatch)
        model(batch.data, batch.inputs)
        return np.log(model.skull_filters.ratios) @ weights_of_skulls[-1].detach().numpy()

    true = np.log(batch.scene.tissues[:, 0].numpy() / 0.01)
    open_minded = conductivity([0.0] * 5, [-4.0, -4.0])
    assert np.corrcoef(open_minded, true)[0, 1] > 0.8
    distrustful = conductivity([-30.0, -30.0, 0.0, -30.0, -30.0], [0.0, 0.0])
    assert np.abs(distrustful).max() < 1e-3


def test_standard_deviation_is_positive_and_costs_weights_only_if_asked(simulate):
    plain, both = make(), make(heteroscedastic=True)
    batch = simulate(plain.head_inputs, n_times=2).batch(0)
    assert apply(plain, batch.data, batch.head).std is None
    assert (apply(both, batch.data, batch.head).std > 0).all()
    count = [sum(p.numel() for p in m.parameters()) for m in (plain, both)]
    assert count[1] - count[0] == (8 + 1) * (5 + 1)


def test_along_the_normals_it_is_the_network_of_fixed_orientation_on_any_head(simulate):
    settings = {"heteroscedastic": True, "smallest": 0.03, "largest": 0.06}
    fixed, normal = (make(along_normals=along, **settings) for along in (False, True))
    normal.load_state_dict(fixed.state_dict())
    batch = simulate([], n_times=3).batch(0)
    expected = apply(fixed, batch.data, batch.head)
    found = apply(normal, batch.data, batch.head)
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.std, expected.std)
    found = apply(normal, batch.data, batch.head.with_components())
    axes = torch.tensor(batch.head.source_normals, dtype=torch.float32)[:, :, None]
    for kind, along in (("mean", axes), ("std", axes.abs())):
        components = (getattr(expected, kind)[:, :, None] * along).flatten(1, 2)
        largest = components.abs().max().item()
        torch.testing.assert_close(getattr(found, kind), components, rtol=1e-3, atol=1e-4 * largest)


def test_number_of_weights_is_as_documented():
    count = sum(p.numel() for p in UnrolledMatchedFilter().parameters())
    assert f"{count:,} weights" in UnrolledMatchedFilter.__doc__


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_sweeps": 0}, "all sizes must be 1 or more.*'n_sweeps': 0"),
        ({"n_conjugate": 0}, "all sizes must be 1 or more"),
    ],
)
def test_sizes_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        UnrolledMatchedFilter(**settings)
