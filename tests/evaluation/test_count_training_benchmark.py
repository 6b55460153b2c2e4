"""Training of the number of sources alone: it learns, other weights stay, others are refused."""

import pytest
import torch

from benchmarks import count_training
from deepesi.models.convdip import ConvDip
from deepesi.models.layers.source_counts import SourceCounts
from deepesi.models.unrolled_champagne import UnrolledChampagne
from deepesi.training.weights import read_network, save_network

SMALL = {"n_steps": 2, "n_dense": 1, "n_strongest": 20, "n_radii": 2, "hidden": 4}
SETTINGS = ["data.batch_size=6", "data.n_times=1", "data.setups.montages=[biosemi16]"]


def test_held_out_recordings_are_told_better():
    """Every source adds 20 nats, further ones nothing: the number can be read off."""
    true = 1 + torch.arange(200) % 3
    gains = torch.where(torch.arange(3) < true[:, None], 20.0, 0.1)
    common = torch.tensor(500.0), torch.tensor(9.0), torch.tensor(1.0)
    examples = [(gain, *common, number) for gain, number in zip(gains, true, strict=True)]
    torch.manual_seed(0)
    before, after = count_training.train(SourceCounts(3, 8), examples, n_steps=200)
    assert after < 0.05 < before


def test_only_the_probabilities_change(tmp_path):
    torch.manual_seed(0)
    model = UnrolledChampagne(**SMALL)
    name = "deepesi.models.unrolled_champagne.UnrolledChampagne"
    (tmp_path / "run" / "model").mkdir(parents=True)
    save_network(model, {"model": {"_target_": name, **SMALL}}, tmp_path / "run" / "model")
    words = [
        str(tmp_path / "run"),
        "--batches",
        "2",
        "--steps",
        "3",
        "--out",
        str(tmp_path / "new"),
    ]
    count_training.main([*words, "--set", *SETTINGS])
    trained, _ = read_network(tmp_path / "new")
    for key, weight in trained.state_dict().items():
        same = torch.equal(weight, model.state_dict()[key])
        assert same == (not key.startswith("source_counts"))


def test_a_network_that_counts_no_sources_is_refused(tmp_path):
    config = {"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": 1284, "hidden": 4}
    (tmp_path / "model").mkdir()
    save_network(ConvDip(1284, hidden=4), {"model": config}, tmp_path / "model")
    with pytest.raises(ValueError, match="counts no sources. Give a run of experiment=champagne"):
        count_training.main([str(tmp_path)])
