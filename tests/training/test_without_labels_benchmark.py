"""The benchmark of learning without labels: intervals over seeds, domains, small entropy."""

import numpy as np
import pytest
import torch

from benchmarks import without_labels
from benchmarks.without_labels import SHIFTS, Errors, configured, mean_text, of_group
from deepesi.models.convdip import ConvDip


def test_interval_over_seeds_in_closed_form():
    """Student's t of two degrees of freedom: 4.303 standard errors."""
    half = 4.302653 / 3**0.5  # the standard deviation is 1
    values = np.array([1.0, 2.0, 3.0])
    assert mean_text(values, 3) == f"2.000 [{2 - half:.3f}, {2 + half:.3f}]"
    assert mean_text(values[:1], 1) == "1.0"


def test_gains_are_paired_over_seeds(capsys):
    errors = Errors()
    for control, method in ((30.0, 29.0), (40.0, 39.0), (20.0, 19.0)):
        errors.add("control", control)
        errors.add("method", method)
    assert errors.line("method", "control") == {
        "error_mm": "29.0",
        "seeds": "29.0 / 39.0 / 19.0",
        "gain_mm": "1.0 [1.0, 1.0]",
    }
    assert errors.line("control", "control")["gain_mm"] == ""
    assert "method, test: seed 2: 19.00 mm" in capsys.readouterr().out


@pytest.mark.parametrize("shift", SHIFTS)
def test_both_domains_of_a_shift_are_configurations(shift):
    (source, own), (target, other) = SHIFTS[shift]
    config = configured(
        3,
        0,
        "experiment=adapt",
        f"data={source}",
        f"data@unlabelled={target}",
        *of_group("data", own),
        *of_group("unlabelled", other),
    )
    assert config.data != config.unlabelled
    assert config.data.batch_size == config.unlabelled.batch_size


def test_training_for_small_entropy(simulate):
    """The entropy of the maps becomes smaller, and the network itself does not change."""
    torch.manual_seed(0)
    model = ConvDip(84, hidden=8)
    torch.nn.init.normal_(model.last.weight)
    batch = simulate(model.head_inputs, batch_size=16, n_times=1).batch(0)

    def entropy(network):
        with torch.no_grad():
            share = network(batch.data, batch.inputs).mean.abs()
        share = share / share.sum(1, keepdim=True)
        return float(torch.special.entr(share).sum(1).mean())

    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    adapted = without_labels.of_small_entropy(model, batch)
    assert entropy(adapted) < entropy(model) - 1e-3
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    norms = [name for name, layer in model.named_modules() if isinstance(layer, torch.nn.LayerNorm)]
    after = adapted.state_dict()
    changed = {
        name.rpartition(".")[0] for name in after if not torch.equal(after[name], before[name])
    }
    assert changed == set(norms)
