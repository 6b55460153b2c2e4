"""Unrolled ISTA: optimality of what it minimizes before training, symmetries, borders."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, MultiTaskLasso

from deepesi.core.contracts import as_tensors
from deepesi.export.to_onnx import check_parity, export_onnx
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head_inputs import (
    PatchSensitivities,
    PatchTopographies,
    Preconditioners,
    prepare,
)
from tests.conftest import slow

POINTS = {"smallest": 1e-3, "largest": 1e-3, "n_radii": 1}
WIDE = {"smallest": 0.02, "largest": 0.08, "n_radii": 2}  # patches of several sources on the toy


def recording(head, n_times=1):
    """Three dipoles in noise ``(C, T)``, V."""
    rng = np.random.default_rng(0)
    sources = np.zeros((head.space.n_dipoles, n_times))
    sources[[5, 40, 70]] = 3e-8 * rng.normal(size=(3, n_times))
    noise = head.noise_level * rng.normal(size=(head.n_channels, n_times))
    return head.project(sources) + noise - noise.mean(axis=0)


def minimize(head, recording, threshold=0.2, level=0, **settings):
    """Many steps before training: whitened data ``(C, T)``, dictionary ``(P, O, C)``,
    coefficients ``(P, O, T)`` and the preconditioner ``(C, C)``, all in double precision."""
    model = UnrolledISTA(n_steps=2000, threshold=threshold, hidden=1, **settings).double()
    model.plan.data[:, 4:] = torch.eye(4)[level]
    inputs = {k: torch.as_tensor(v) for k, v in prepare(model.head_inputs, head).items()}
    with torch.no_grad():
        code, _ = model.encode(torch.as_tensor(recording)[None], inputs)
    n_orient = head.space.n_orient
    atoms = inputs[model.topographies.key].numpy().reshape(-1, n_orient, head.n_channels)
    data = inputs[model.whitener.key].numpy() @ recording
    return data, atoms, code.reshape(len(atoms), n_orient, -1), inputs[model.levels.key][level]


def trained(seed=0, **settings):
    """Weights as training might leave them: nothing is neutral any more."""
    torch.manual_seed(seed)
    model = UnrolledISTA(**settings)
    for name, parameter in model.named_parameters():
        if name != "momentum":
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def apply(model, data, head):
    inputs = as_tensors(prepare(model.head_inputs, head))
    with torch.no_grad():
        return model(torch.as_tensor(data, dtype=torch.float32), inputs)


def check_optimality(data, atoms, code, metric, threshold):
    """For ``½ (v − Gx)ᵀ M (v − Gx) + λ Σ ‖x_g‖``: ``‖Gᵀ_g M (v − Gx)‖ ≤ λ`` everywhere, and
    ``Gᵀ_g M (v − Gx) = λ x_g / ‖x_g‖`` on the support."""
    code = code.numpy()
    weight = threshold * np.linalg.norm(atoms @ metric @ data, axis=(1, 2)).max()
    correlation = atoms @ metric @ (data - np.einsum("poc,pot->ct", atoms, code))
    length = np.linalg.norm(code, axis=(1, 2))
    support = length > 0
    assert 0 < support.sum() < len(atoms)
    assert np.linalg.norm(correlation, axis=(1, 2)).max() <= weight * (1 + 1e-3)
    expected = weight * code[support] / length[support, None, None]
    assert np.abs(correlation[support] - expected).max() <= 1e-3 * weight


@pytest.mark.parametrize("threshold", [slow(0.05), 0.2, slow(0.8)])
def test_untrained_it_satisfies_the_optimality_conditions_of_the_lasso(head, threshold):
    data, atoms, code, _ = minimize(head, recording(head), threshold, **POINTS)
    check_optimality(data, atoms, code, np.eye(16), threshold)


@pytest.mark.parametrize("patches", [POINTS, slow(WIDE)], ids=["points", "patches"])
@pytest.mark.parametrize(("n_times", "free"), [slow(6, False), slow(1, True), (6, True)])
def test_groups_over_time_and_orientation_satisfy_theirs(head, free_head, patches, n_times, free):
    head = free_head if free else head
    data, atoms, code, _ = minimize(head, recording(head, n_times), **patches)
    check_optimality(data, atoms, code, np.eye(16), 0.2)


@pytest.mark.parametrize("level", [slow(1), 3])
def test_a_preconditioner_weighs_the_channels(head, level):
    data, atoms, code, metric = minimize(head, recording(head), level=level, **WIDE)
    check_optimality(data, atoms, code, metric.numpy(), 0.2)


def test_untrained_it_equals_scikit_learn(head):
    for n_times, kind in ((1, Lasso), (6, MultiTaskLasso)):
        data, atoms, code, _ = minimize(head, recording(head, n_times), **POINTS)
        weight = 0.2 * np.linalg.norm(atoms @ data, axis=(1, 2)).max()
        theirs = kind(weight / 16, fit_intercept=False, tol=1e-12, max_iter=10**6)
        found = theirs.fit(atoms[:, 0].T, data).coef_.reshape(n_times, -1).T
        assert np.allclose(code[:, 0], found, atol=1e-4 * np.abs(found).max())


def test_points_are_the_lead_field(head):
    """The estimate is the LASSO in A m: ``|aᵀ (v − A j)| ≤ λ ‖a‖`` with ``A`` whitened."""
    model = UnrolledISTA(n_steps=500, threshold=0.5, **POINTS)
    data = recording(head)
    estimate = apply(model, data[None], head).mean[0].double().numpy()
    white = prepare([model.whitener], head)[model.whitener.key]
    gain = white @ head.leadfield
    gain /= np.linalg.norm(gain, axis=0)
    limit = 0.5 * np.abs(gain.T @ white @ data).max()
    left = np.abs(gain.T @ white @ (data - head.leadfield @ estimate))
    assert left.max() == pytest.approx(limit, rel=1e-3)
    assert left[estimate != 0] == pytest.approx(limit, rel=1e-3)


def test_preconditioned_steps_of_one_converge(head):
    """No eigenvalue of ``Gᵀ M G`` exceeds 1; the sensitivities are its diagonal."""
    columns = PatchTopographies().compute(head).reshape(-1, 16)
    matrices, diagonals = Preconditioners().compute(head), PatchSensitivities().compute(head)
    for matrix, diagonal in zip(matrices, diagonals, strict=True):
        curvature = columns @ matrix @ columns.T
        assert np.linalg.norm(curvature, 2) == pytest.approx(1)
        assert diagonal.ravel() == pytest.approx(np.diag(curvature))


def test_by_default_it_has_few_weights():
    count = sum(p.numel() for p in UnrolledISTA().parameters())
    assert f"By default {count:,} weights" in " ".join(UnrolledISTA.__doc__.split())


@pytest.mark.parametrize("group_time", [True, False])
def test_sign_flip_flips_the_estimate(head, group_time):
    model = trained(group_time=group_time, heteroscedastic=True)
    data = recording(head, 3)[None]
    first, second = apply(model, data, head), apply(model, -data, head)
    assert torch.equal(first.mean, -second.mean)
    assert torch.equal(first.std, second.std)


def test_a_window_shares_its_support(head):
    data = recording(head, 5)[None]
    together = apply(UnrolledISTA(50, 0.5, **POINTS), data, head).mean[0] != 0
    assert (together == together[:, :1]).all()
    assert 0 < together[:, 0].sum() < 84
    alone = apply(UnrolledISTA(50, 0.5, group_time=False, **POINTS), data, head).mean[0] != 0
    assert (alone != alone[:, :1]).any()


def test_samples_on_their_own_do_not_see_each_other(head):
    model = trained(group_time=False, heteroscedastic=True)
    data = recording(head, 5)[None]
    whole, part = apply(model, data, head), apply(model, data[..., 2:3], head)
    for a, b in ((whole.mean, part.mean), (whole.std, part.std)):
        assert torch.allclose(a[..., 2:3], b, rtol=1e-4, atol=1e-5 * a.max().item())


def test_order_of_samples_does_not_matter(head):
    model, order = trained(), [3, 0, 4, 1, 2]
    data = recording(head, 5)[None]
    first, second = apply(model, data, head).mean, apply(model, data[..., order], head).mean
    assert torch.allclose(first[..., order], second, atol=1e-5 * first.abs().max().item())


@pytest.mark.parametrize("patches", [POINTS, WIDE], ids=["points", "patches"])
def test_free_orientation_is_blind_to_the_frame(free_head, patches):
    """Turning the axes of every source turns the moments with them."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    leadfield = (free_head.leadfield.reshape(16, 28, 3) @ turn).reshape(16, 84)
    model, data = trained(**patches), recording(free_head, 2)[None]
    first = apply(model, data, free_head).mean.reshape(28, 3, 2)
    second = apply(model, data, replace(free_head, leadfield=leadfield)).mean.reshape(28, 3, 2)
    back = torch.as_tensor(turn, dtype=torch.float32) @ second
    assert torch.allclose(first, back, atol=1e-3 * first.abs().max().item())


def test_standard_deviation_is_an_addition(head):
    """The same mean with it and without, and no weights are spent on it if it is not asked for."""
    plain, both = UnrolledISTA(), UnrolledISTA(heteroscedastic=True)
    added = both.state_dict().keys() - plain.state_dict().keys()
    assert added == {"std_layer.weight", "std_layer.bias"}
    both.load_state_dict(plain.state_dict(), strict=False)
    data = recording(head, 3)[None]
    alone, estimate = apply(plain, data, head), apply(both, data, head)
    assert alone.std is None
    assert torch.equal(alone.mean, estimate.mean)
    assert estimate.std.shape == (1, 84, 3)
    assert (estimate.std > 0).all()
    assert (estimate.std.std(dim=2) > 0).any()


def test_silence_is_answered_with_zero(head):
    estimate = apply(trained(heteroscedastic=True), np.zeros((2, 16, 3)), head)
    assert (estimate.mean == 0).all()
    assert torch.isfinite(estimate.std).all()


def test_every_weight_learns(simulate):
    model = trained(heteroscedastic=True)
    batch = simulate(model.head_inputs, n_times=2).batch(0)
    mean, std = model(batch.data, batch.inputs)[:2]
    ((mean / mean.abs().amax()).square().sum() + (std / std.amax()).sum()).backward()
    for name, parameter in model.named_parameters():
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
        silent = (rows == 0).all(dim=1).nonzero().flatten().tolist()
        assert not silent, name


@pytest.mark.slow
@pytest.mark.parametrize("free", [False, True])
def test_one_file_serves_every_source_space(head, template, free_head, free, tmp_path):
    """Exported at 84 sources, applied to 1,284; or with free orientation, at another duration."""
    traced, other = (free_head, free_head) if free else (head, template.montage_head("biosemi32"))
    model, path = trained(n_steps=2, heteroscedastic=True), tmp_path / "model.onnx"
    export_onnx(model, traced, path)
    data = torch.as_tensor(recording(other, 5), dtype=torch.float32)[None]
    batch = SimpleNamespace(data=data, head=other)
    assert check_parity(model, path, batch, n_timed=1).max_difference <= 1e-5


@pytest.mark.parametrize("size", ["n_steps", "n_radii", "n_levels", "hidden"])
def test_sizes_that_are_not_positive_are_refused(size):
    with pytest.raises(ValueError, match=rf"UnrolledISTA: all sizes .* 1 or more, .*'{size}': 0"):
        UnrolledISTA(**{size: 0})


@pytest.mark.parametrize("threshold", [0.0, 0.9, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must lie between 0 and 0.9, got .*fraction"):
        UnrolledISTA(threshold=threshold)
