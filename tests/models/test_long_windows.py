"""Weak sources in long windows: errors of the head are shares of the signal, not of all noise."""

import pytest
import torch

from deepesi.cli.loading import load_untrained
from deepesi.core.contracts import as_tensors
from deepesi.models.layers.mismatch_noise import mismatch_energy
from deepesi.physics.head_inputs import prepare
from deepesi.physics.template import load_template


def test_energy_of_mismatch():
    energy, rank = torch.tensor([500.0, 600.0, 1000.0]), torch.tensor([60.0])
    assert torch.equal(mismatch_energy(energy, rank, rank), energy)  # one sample: all of it
    expected = torch.tensor([0.0, 60.0, 460.0])  # ten samples: without the noise of nine
    assert torch.equal(mismatch_energy(energy, 10 * rank, rank), expected)


@pytest.mark.parametrize("name", ["matched_filter", "loose_matched_filter", "piunet", "gnn"])
def test_a_weak_source_in_a_long_window_is_localized(name):
    """-12 dB in each of 200 samples, 11 dB in their mean."""
    template = load_template("fsaverage-ico3")
    head = template.montage_head("biosemi32")
    model = load_untrained(name, template).eval()
    inputs = as_tensors(prepare(model.head_inputs, head))
    source = 300
    clean = torch.as_tensor(head.leadfield[:, [source]]).float()
    clean = clean / clean.norm() * head.noise_level * (10**-1.2 * 31) ** 0.5
    rng = torch.Generator().manual_seed(0)
    noise = head.noise_level * torch.randn(1, 32, 200, generator=rng)
    with torch.no_grad():
        mean = model(clean + noise - noise.mean(1, keepdim=True), inputs).mean
    found = int(mean[0].norm(dim=1).argmax())
    distance = float(((template.source_pos[found] - template.source_pos[source]) ** 2).sum() ** 0.5)
    assert distance < 0.015
