"""A model may learn in a way of its own: `InverseModel.training_loss`."""

import lightning
import pytest
import torch

from deepesi.core.contracts import Estimate
from deepesi.losses.base import WeightedSum
from deepesi.losses.supervised import CosineDistance
from deepesi.models.convdip import ConvDip
from deepesi.models.posterior.structured import StructuredPosterior
from deepesi.training.criterion import criterion_of
from deepesi.training.data import RecordingStream
from deepesi.training.module import InverseTraining
from deepesi.uncertainty.ensemble import DeepEnsemble, StackedEnsemble

SIZES = {"n_dipoles": 84, "height": 6, "width": 6, "hidden": 16}


class Denoising(ConvDip):
    """Learns to be unmoved by noise added to the recording; has no use for the objective."""

    drawn: list[float]

    def training_loss(self, batch, objective, rng):
        noise = torch.randn(batch.data.shape, generator=rng) * batch.data.std()
        self.drawn.append(float(noise.sum()))
        moved = self(batch.data + noise, batch.inputs).mean - self(batch.data, batch.inputs).mean
        unit = batch.inputs[self.unit.key]
        return {"loss": (moved / unit).square().mean(), "noise": noise.square().mean().detach()}


def denoising():
    model = Denoising(**SIZES)
    model.drawn = []
    return model


@pytest.fixture
def objective():
    return WeightedSum({"cosine": CosineDistance()}, {"cosine": 1.0})


def train(model, objective, toy, simulate, n_steps=2):
    module = InverseTraining(model, objective, {}, toy.space, 1e-3, 0.01, 1, 10, {})
    data = RecordingStream(
        simulate(model.head_inputs), simulate(model.head_inputs, split="validation"), 2, 1
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=n_steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    return trainer.logged_metrics


def test_default_is_the_objective_of_the_estimate(objective, simulate):
    model = ConvDip(**SIZES)
    batch = simulate(model.head_inputs).batch(0)
    terms = model.training_loss(batch, objective, torch.Generator())
    expected, log = objective(model(batch.data, batch.inputs), batch)
    assert torch.equal(terms.pop("loss"), expected)
    assert terms == log


def test_a_model_trains_by_its_own_loss(objective, toy, simulate):
    torch.manual_seed(0)
    model = denoising()
    before = model.last.weight.detach().clone()
    logged = train(model, objective, toy, simulate)
    assert not torch.equal(model.last.weight, before)
    assert {"loss", "train/noise", "val/loss", "val/nemd"} <= set(logged)
    assert "train/raw/cosine" not in logged


def test_what_it_draws_is_keyed_as_the_batch(objective, toy, simulate):
    drawn = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = denoising()
        train(model, objective, toy, simulate)
        drawn.append(model.drawn)
    assert drawn[0] == drawn[1]
    assert drawn[0][0] != drawn[0][1]


def test_members_keep_their_own_loss(objective, toy, simulate):
    torch.manual_seed(0)
    model = DeepEnsemble([denoising(), denoising()])
    batch = simulate(model.head_inputs).batch(0)
    terms = model.training_loss(batch, objective, torch.Generator().manual_seed(0))
    assert {name: values.shape for name, values in terms.items()} == {"loss": (2,), "noise": (2,)}
    logged = train(model, objective, toy, simulate)
    assert "train/noise" in logged


def test_members_that_cannot_be_joined_are_refused(objective, simulate):
    with pytest.raises(ValueError, match="Denoising has a training loss of its own.*one by one"):
        StackedEnsemble(denoising, 2)
    mixed = DeepEnsemble([denoising(), ConvDip(**SIZES)])
    batch = simulate(mixed.head_inputs).batch(0)
    with pytest.raises(ValueError, match="members have different terms: .*'noise'.*raw/cosine"):
        mixed.training_loss(batch, objective, torch.Generator())


def test_validation_grades_the_estimate(objective, simulate):
    model = denoising().eval()
    batch = simulate(model.head_inputs).batch(0)
    estimate = model(batch.data, batch.inputs)
    assert isinstance(estimate, Estimate)
    assert torch.isfinite(objective(estimate, batch)[0])


def test_posterior_samples_are_validated_by_their_own_loss(objective, toy, simulate):
    """Their mean does not tell how good they are; the density of the targets does."""
    model = StructuredPosterior(1, 8, 0.03, 0.06, 2, n_draws=2)
    logged = train(model, objective, toy, simulate)
    assert {"val/loss", "val/patches", "val/moments", "val/nemd"} <= set(logged)
    assert "val/raw/cosine" not in logged
    parts = sum(logged[f"val/{name}"] for name in ("skull", "patches", "moments"))
    assert logged["val/loss"] == pytest.approx(float(parts), rel=1e-5)
    assert criterion_of(model, simulated=True) == "val/loss"
    assert criterion_of(ConvDip(**SIZES), simulated=True) == "val/nemd"
    assert criterion_of(ConvDip(**SIZES), simulated=False) == "val/loss"
