"""Steps inside networks: evidence and attention, from a usual forward pass."""

import numpy as np
import pytest
import torch

from deepesi.core.contracts import as_tensors
from deepesi.interpret.networks.inside import (
    attention_maps,
    evidence_maps,
    has_attention,
    has_steps,
)
from deepesi.models.annealed_patches import AnnealedPatches
from deepesi.models.convdip import ConvDip
from deepesi.models.gnn import SensorGNN
from deepesi.models.loose_matched_filter import LooseMatchedFilter
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.models.transformer import SourceTransformer
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.models.unrolled_ista import UnrolledISTA
from deepesi.physics.head_inputs import prepare

WIDE = {"smallest": 0.03, "largest": 0.06}
SMALL = {"n_components": 2, "n_sweeps": 1, "hidden": 8, "n_radii": 2, "n_strongest": 8}
NETWORKS = {
    "matched filter": (lambda: UnrolledMatchedFilter(**WIDE, **SMALL), "sweep 1, component 2"),
    "loose": (lambda: LooseMatchedFilter(**WIDE, **SMALL), "sweep 1, component 2"),
    "GNN": (lambda: SensorGNN(**WIDE, n_components=1), "round 2, component 1"),
    "transformer": (
        lambda: SourceTransformer(
            **WIDE, n_components=1, n_blocks=1, hidden=8, n_heads=1, stretch=2, n_radii=2
        ),
        "round 2, component 1",
    ),
    "Champagne": (
        lambda: UnrolledChampagne(**WIDE, n_steps=3, n_dense=2, n_strongest=16, hidden=8),
        "update 1",
    ),
    "annealed patches": (
        lambda: AnnealedPatches(
            **WIDE, n_components=1, n_chains=8, n_annealed=1, n_kept=1, n_radii=2, min_distance=0.01
        ),
        "sweep 2",
    ),
    "ISTA": (lambda: UnrolledISTA(**WIDE, n_steps=2), "step 2"),
}


@pytest.fixture(scope="module")
def head(toy):
    return toy.montage_head("biosemi16")


@pytest.fixture(scope="module")
def data(head):
    volts = 3e-5 * head.leadfield[:, 7] / np.abs(head.leadfield[:, 7]).max()
    return torch.tensor(volts[None, :, None], dtype=torch.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_evidence_of_every_step_is_near_the_source(name, head, data):
    torch.manual_seed(0)
    make, last = NETWORKS[name]
    model = make()
    inputs = as_tensors(prepare(model.head_inputs, head))
    assert has_steps(model)
    first, second = evidence_maps(model, data, inputs)
    assert second.title == last
    for values in (first.values, second.values):
        assert values.shape == (84,)
        assert (values >= 0).all()
        assert values.sum() == pytest.approx(1, abs=1e-5)
    off = np.linalg.norm(head.source_pos[first.values.argmax()] - head.source_pos[7])
    assert off < 0.05
    assert not any(module._forward_hooks for module in model.modules())
    assert not {"_correction", "_sweep"} & vars(model).keys()


def test_attention_of_the_gnn(head, data):
    torch.manual_seed(0)
    model = SensorGNN(**WIDE, n_components=1)
    inputs = as_tensors(prepare(model.head_inputs, head))
    assert has_attention(model)
    attention = attention_maps(model, data, inputs)
    assert attention.read.shape == (84, 16)
    np.testing.assert_allclose(attention.read.sum(1), 1, atol=1e-5)
    # The weights of one receiver have the sum 1, so their mean over edges is 1.
    sender = inputs[model.graph.key][:, 0].numpy()
    assert (attention.sent * np.bincount(sender, minlength=16)).sum() == pytest.approx(
        len(sender), rel=1e-4
    )
    torch.nn.init.zeros_(model.blocks[0].score.weight)  # the same weight for every neighbour
    np.testing.assert_allclose(attention_maps(model, data, inputs).sent, 1, atol=1e-5)


def test_attention_of_the_transformer(head, data):
    torch.manual_seed(0)
    model = SourceTransformer(**WIDE, n_components=1, n_blocks=1, hidden=8, n_heads=1, n_radii=2)
    inputs = as_tensors(prepare(model.head_inputs, head))
    assert has_attention(model)
    attention = attention_maps(model, data, inputs)
    assert attention.sent is None
    assert attention.read.shape == (84, 16)
    np.testing.assert_allclose(attention.read.sum(1), 1, atol=1e-5)
    torch.nn.init.zeros_(model.query.weight)  # all queries are zero
    torch.nn.init.zeros_(model.query.bias)
    np.testing.assert_allclose(attention_maps(model, data, inputs).read, 1 / 16, atol=1e-6)


def test_networks_without_steps_or_attention_are_refused(data):
    model = ConvDip(n_dipoles=84, hidden=16)
    assert not has_steps(model)
    assert not has_attention(UnrolledISTA(n_steps=1))
    with pytest.raises(ValueError, match="ConvDip has no steps to show"):
        evidence_maps(model, data, {})
    with pytest.raises(ValueError, match="ConvDip has no attention, expected a SensorGNN"):
        attention_maps(model, data, {})
