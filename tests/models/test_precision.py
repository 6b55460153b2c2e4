"""Every network under automatic mixed precision, and as a compiled graph."""

import subprocess
import sys

import pytest
import torch

from deepesi.core.contracts import InverseModel
from deepesi.losses.base import WeightedSum
from deepesi.losses.supervised import CosineDistance
from tests.conftest import slow
from tests.contract.test_contract import RECIPES

NETWORKS = [
    name
    for name, make in RECIPES.items()
    if type(make()).__module__.startswith("deepesi.models.")
    and list(make().parameters())
    and " with std" not in name
]


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_gives_the_estimate_and_finite_gradients(name, simulate):
    """Where evidence decides, three digits are too few: it is computed in single precision."""
    model = RECIPES[name]()
    batch = simulate(model.head_inputs, n_times=12, batch_size=3, snr_db=[5, 10]).batch(0)
    target = batch.sources / batch.sources.abs().max()

    def gradients(estimate):
        model.zero_grad()
        unit = estimate.mean.detach().abs().max()
        (estimate.mean / unit - target).square().mean().backward()
        return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}

    plain = model(batch.data, batch.inputs)
    expected = gradients(plain)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(batch.data, batch.inputs)
    found = gradients(mixed)
    off = (mixed.mean.float() - plain.mean).norm() / plain.mean.norm()
    assert off < 0.1
    assert found.keys() == expected.keys()
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


OWN_LOSS = [
    name for name in NETWORKS if type(RECIPES[name]()).training_loss != InverseModel.training_loss
]


@pytest.mark.parametrize("name", OWN_LOSS)
def test_losses_of_models_are_those_of_single_precision(name, simulate):
    model = RECIPES[name]().train()
    batch = simulate(model.head_inputs, n_times=2, batch_size=3, snr_db=[5, 10]).batch(0)
    objective = WeightedSum({"cosine": CosineDistance()}, {"cosine": 1.0})

    def loss():
        return model.training_loss(batch, objective, torch.Generator().manual_seed(0))["loss"]

    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss()
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(loss().item(), rel=1e-3)


COMPILED = """
import jaxtyping
jaxtyping.install_import_hook = lambda *a, **k: None  # shape checks of the tests break graphs
import torch
from deepesi.core.contracts import as_tensors
from deepesi.physics.head_inputs import prepare
from deepesi.physics.template import load_template
from tests.contract.test_contract import RECIPES

head, model = load_template(PATH).montage_head("biosemi16"), RECIPES[NAME]().eval()
compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
inputs = as_tensors(prepare(model.head_inputs, head))
for n_times in (5, 21):
    data = 1e-5 * torch.randn(3, 16, n_times)
    with torch.no_grad():
        expected, found = model(data, inputs).mean, compiled(data, inputs).mean
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
"""


#: torch.compile cannot trace how zuko composes transforms.
BREAKS = {"StructuredPosterior"}


@pytest.mark.parametrize("name", [slow(name) for name in NETWORKS if name not in BREAKS])
def test_it_compiles_without_a_break(name, toy_path):
    """With any duration, in a process of its own."""
    code = COMPILED.replace("PATH", repr(str(toy_path))).replace("NAME", repr(name))
    subprocess.run([sys.executable, "-c", code], check=True)
