"""Annealed patches: symmetries, several sources, what it learns."""

import pytest
import torch

from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.metrics.source_metric import SourceMetric
from deepesi.models.annealed_patches import AnnealedPatches
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from tests.models.free import apply, free

SIZES = {"smallest": 0.03, "largest": 0.06, "n_radii": 2, "min_distance": 0.05}


def make(**settings):
    small = {"n_components": 2, "n_chains": 2, "n_annealed": 3, "n_kept": 2}
    return AnnealedPatches(**(SIZES | small | settings)).eval()


def close(first, second):
    return torch.allclose(first, second, rtol=1e-3, atol=1e-4 * float(second.abs().max()))


def test_estimate_turns_its_sign_with_the_recording(simulate):
    batch = simulate([], n_times=3).batch(0)
    head = free(batch.head)
    there, back = (apply(make(), sign * batch.data, head) for sign in (1, -1))
    assert torch.allclose(there.mean, -back.mean)
    assert torch.allclose(there.std, back.std)
    assert (there.std > 0).all()


def test_a_window_is_inverted_as_one_whatever_its_time_axis(simulate):
    batch = simulate([], n_times=5).batch(0)
    head = free(batch.head)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    mean = apply(make(), batch.data, head).mean
    assert close(apply(make(), batch.data @ rotation, head).mean, mean @ rotation)


def test_an_example_does_not_depend_on_the_others(simulate):
    batch = simulate([], n_times=2).batch(0)
    head = free(batch.head)
    together = apply(make(), batch.data, head)
    alone = apply(make(), batch.data[2:3], head)
    assert close(together.mean[2:3], alone.mean)
    assert close(together.std[2:3], alone.std)


def test_two_sources_in_a_window_are_found_better_than_in_turn(simulate):
    model = make(n_components=3)
    in_turn = LooseMatchedFilter(**{k: SIZES[k] for k in ("smallest", "largest", "n_radii")}).eval()
    exact = {"skull_conductivity": (0.01, 0.01), "skull_thickness": (0.006, 0.006)}
    exact |= {"scalp_conductivity": (0.33, 0.33), "brain_conductivity": (0.33, 0.33)}
    batch = simulate(
        [*model.head_inputs, *in_turn.head_inputs],
        n_times=10,
        tissues=TissueRanges(**exact),
        setups=SetupRanges(montages=["biosemi32"], displacement=0.0),
        sources=PatchSources((2, 2), (0.03, 0.06), min_distance=0.05),
        snr_db=(5, 5),
        batch_size=24,
    ).batch(0)
    scores = []
    for method in (model, in_turn):
        metric = SourceMetric("localization_error")
        with torch.no_grad():
            metric.update(method(batch.data, batch.inputs), batch)
        scores.append(metric.compute())
    assert scores[0] < 0.8 * scores[1]


@pytest.mark.parametrize("n_components", [1, 4])
def test_any_number_of_patches(simulate, n_components):
    batch = simulate([], n_times=2).batch(0)
    estimate = apply(make(n_components=n_components), batch.data, free(batch.head))
    assert torch.isfinite(estimate.mean).all()
    assert (estimate.mean.abs().amax((1, 2)) > 0).all()


def test_silence_and_noise_give_small_estimates(simulate):
    batch = simulate([], n_times=2).batch(0)
    head = free(batch.head)
    silent = apply(make(), 0 * batch.data, head)
    assert torch.equal(silent.mean, torch.zeros_like(silent.mean))
    assert (silent.std > 0).all()


def test_its_four_weights_learn(simulate):
    model = make().train()
    batch = simulate(model.head_inputs, n_times=2).batch(0)
    estimate = model(batch.data, batch.inputs)
    loss = (estimate.mean / batch.sources.abs().max()).square().sum() + estimate.std.log().mean()
    loss.backward()
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert len(grads) == 4
    assert all(grad is not None and torch.isfinite(grad) for grad in grads.values())
    assert all(grads[name] != 0 for name in ("log_mismatch", "log_several", "log_gate"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_chains": 0}, "AnnealedPatches: all sizes must be 1 or more.*'n_chains': 0"),
        ({"mismatch": 0.0}, "mismatch and one_source must be between 0 and 1, got 0.0"),
        ({"one_source": 1.0}, "must be between 0 and 1, got .* and 1.0"),
        ({"smallest": 10.0}, "radii .* in metres"),
    ],
)
def test_sizes_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)
