"""The structured posterior against enumeration, its own density and the simulation it learns."""

import math

import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.calibration import fit, measure
from deepesi.evaluation.calibration_report import scores_layout
from deepesi.evaluation.observation import observe
from deepesi.models.layers.patch_sequence import NONE
from deepesi.models.posterior.structured import StructuredPosterior

WIDE = {"smallest": 0.03, "largest": 0.06, "n_radii": 2, "hidden": 8}


def ignored(estimate, batch):
    """An objective that the likelihood does not need."""
    raise AssertionError


def posterior(n_components=2, moved=True):
    torch.manual_seed(0)
    model = StructuredPosterior(n_components, **WIDE)
    for parameter in model.parameters() if moved else ():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def noise_for(model, batch, n=1, seed=0):
    size = model.noise_size(batch.data, batch.inputs)
    return torch.randn((n, len(batch.data), size), generator=torch.Generator().manual_seed(seed))


def test_without_errors_of_the_head_it_is_the_exact_posterior(simulate):
    """Posterior of one patch, nominal skull, as enumerated by `BayesSinglePatch`."""
    model, exact = posterior(1, moved=False), BayesSinglePatch(0.03, 0.06, 2)
    with torch.no_grad():
        model.log_error.bias.fill_(-30.0)
        model.memory.fill_(1.0)
        for layer in (model.scores.last, model.next_patch.sharpness):
            layer.weight.zero_()
    batch = simulate([*model.head_inputs, *exact.head_inputs], n_times=2, snr_db=(5, 5)).batch(0)
    energy = batch.inputs[exact.topographies.key] @ (batch.inputs["whitener"] @ batch.data)[:, None]
    strength = model._known(batch.data, batch.inputs).recordings.strength[:, None]
    shrinkage = strength / (1 + strength)  # its prior of the amplitude is not flat
    expected = torch.softmax(0.5 * shrinkage * energy.square().sum(3).flatten(1), dim=1)
    drawn = model.sample_configurations(batch.data, batch.inputs, noise_for(model, batch))
    known = model._known(batch.data, batch.inputs)
    choice = model.next_patch(0, known, model._sequence(known, torch.zeros(1, 8)), [])
    found = (choice.log_odds - choice.log_total)[0].exp()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)
    assert drawn.patches.shape == (1, 8, 1)


@pytest.mark.parametrize("n_times", [1, 3])
def test_samples_have_the_density_that_it_says(simulate, n_times):
    """Density of the continuous part: that of the noise over the volume, from derivatives."""
    model = posterior()
    batch = simulate(model.head_inputs, batch_size=1, n_times=n_times).batch(0)
    noise = noise_for(model, batch).requires_grad_()
    drawn = model.sample_configurations(batch.data, batch.inputs, noise)
    there = (drawn.patches != NONE)[0, 0]
    unit = batch.inputs[model.unit.key]
    values = torch.cat([drawn.log_skull.flatten(), (drawn.moments[0, 0][there] / unit).flatten()])
    rows = [torch.autograd.grad(v, noise, retain_graph=True)[0][0, 0] for v in values]
    z = noise[0, 0].unflatten(0, (6, n_times))
    own = [
        0,
        *(n for j in range(2) if there[j] for n in range((4 + j) * n_times, (5 + j) * n_times)),
    ]
    jacobian = torch.stack(rows)[:, own]
    normal = torch.distributions.Normal(0, 1).log_prob(z.flatten()[own]).sum()
    continuous = normal - jacobian.double().slogdet().logabsdet
    known = model._known(batch.data, batch.inputs)
    parts = model._log_densities(known, batch.inputs, drawn)
    assert (parts["skull"] + parts["moments"]).item() == pytest.approx(continuous.item(), abs=2e-3)
    total = model.log_density(batch.data, batch.inputs, drawn)
    assert total.item() == pytest.approx(sum(parts.values()).item())


def test_its_log_score_is_reported(simulate):
    model = posterior()
    batch = simulate(model.head_inputs, batch_size=20, snr_db=(5, 5)).batch(0)
    found = observe({"x": model}, lambda _: [(batch, 20)], [5.0], "all")["x"]
    rows = measure("x", "toy", "toy", fit(found, 0.5, 1), found)
    values = {row.metric: row.value for row in rows if row.snr_db == "all"}
    density = model.log_density(batch.data, batch.inputs, model.target(batch))
    assert values["log_score"] == pytest.approx(-density.mean().item(), rel=1e-5)
    assert scores_layout(rows).lines[0][-1][0].startswith(f"{values['log_score']:.2f} [")


def test_patches_are_drawn_with_the_probability_that_it_says(simulate):
    """Frequencies of the number of patches, against the probabilities along the draws."""
    model = posterior()
    batch = simulate(model.head_inputs, batch_size=1, snr_db=(0, 0)).batch(0)
    drawn = model.sample_configurations(batch.data, batch.inputs, noise_for(model, batch, 3000))
    known = model._known(batch.data, batch.inputs)
    sequence = model._sequence(known, drawn.log_skull)
    first = model.next_patch(0, known, sequence, [])
    probability = (first.mass / first.mass.sum((2, 3), keepdim=True)).mean((0, 1)).flatten()
    counted = torch.bincount(drawn.patches[:, 0, 0], minlength=len(probability)) / 3000
    often = probability > 0.01
    off = (counted - probability)[often] / (probability[often] / 3000).sqrt()
    assert off.square().mean() < 2
    sequence.take(sequence.topography(drawn.patches[..., 0]))
    more = torch.sigmoid(model.next_patch(1, known, sequence, [drawn.patches[..., 0]]).more).mean()
    share = (drawn.n_sources() == 2).double().mean()
    assert share.item() == pytest.approx(more.item(), abs=4 * (0.25 / 3000) ** 0.5)


def test_the_target_is_what_was_simulated(simulate):
    """Strongest first; moments are sums around each centre; more than it has are left out."""
    sources = PatchSources((3, 3), radius=(0.03, 0.03), min_distance=0.06)
    for n_components in (2, 3, 4):
        model = posterior(n_components)
        batch = simulate(model.head_inputs, sources=sources).batch(0)
        target = model.target(batch)
        assert target.patches.shape == (1, 8, n_components)
        assert target.n_sources().unique().tolist() == [min(n_components, 3)]
        unit = batch.inputs[model.moments.key].flatten()[target.patches.clamp_min(0)]
        strength = (target.moments[..., 0] / unit).abs()[..., : min(n_components, 3)]
        assert (strength.diff(dim=2) <= 0).all()
    assert target.patches[..., 3].unique().tolist() == [NONE]
    torch.testing.assert_close(target.moments.sum(2)[0, :, 0], batch.sources.sum((1, 2)))
    for sites, peaks in zip(target.sites(84)[0], batch.scene.peaks, strict=True):
        assert set(sites[:3].tolist()) == set(peaks.tolist())
    torch.testing.assert_close(
        target.log_skull[0], (batch.scene.tissues[:, 0] / model.nominal_skull).log()
    )


def test_training_needs_few_steps_to_learn_the_errors_of_heads(simulate):
    model = posterior(moved=False).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for step in range(20):
        batch = simulate(model.head_inputs, batch_size=32, n_times=1 + step % 2).batch(step)
        terms = model.training_loss(batch, ignored, torch.Generator())
        assert terms["loss"].item() == pytest.approx(
            sum(terms[name].item() for name in ("skull", "patches", "moments")), rel=1e-4
        )
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        losses.append(terms["loss"].item())
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_a_head_of_one_lead_field_teaches_nothing_about_skulls(simulate):
    model = posterior()
    batch = simulate(model.head_inputs).batch(0)
    batch.scene.tissues[:, 0] = math.nan
    terms = model.training_loss(batch, ignored, torch.Generator())
    assert terms["skull"] == 0
    assert terms["loss"].isfinite()


def test_patches_point_along_the_normals_on_a_head_of_free_orientation(simulate, free_toy):
    model = posterior()
    batch = simulate(model.head_inputs, heads=free_toy).batch(0)
    drawn = model.sample(batch.data, batch.inputs, noise_for(model, batch, 4))
    vectors = drawn[..., 0].unflatten(2, (84, 3))
    normals = torch.as_tensor(free_toy.source_normals, dtype=torch.float32)
    along = (vectors * normals).sum(3, keepdim=True) * normals
    torch.testing.assert_close(vectors, along, rtol=1e-4, atol=1e-12)
    assert vectors.abs().amax((2, 3)).min() > 0


def test_samples_turn_their_sign_with_the_recording(simulate):
    """Source locations do not change; moments do, up to which half of the noise they come from."""
    model = posterior()
    batch = simulate(model.head_inputs, batch_size=1, snr_db=(20, 20)).batch(0)
    noise = noise_for(model, batch, 400)
    one, other = (
        model.sample_configurations(sign * batch.data, batch.inputs, noise) for sign in (1, -1)
    )
    assert torch.equal(one.patches, other.patches)
    unit = batch.inputs[model.unit.key]
    means = [c.moments[:, 0, 0, 0].mean() / unit for c in (one, other)]
    assert means[0].item() == pytest.approx(-means[1].item(), rel=0.1)


def test_bad_sizes():
    with pytest.raises(
        ValueError, match="n_skulls must be 3 or more and nominal_skull above 0 S/m"
    ):
        StructuredPosterior(n_skulls=1)
    with pytest.raises(ValueError, match="all sizes must be 1 or more"):
        StructuredPosterior(n_components=0)
