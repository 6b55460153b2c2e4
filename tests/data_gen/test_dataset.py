"""`SimulatedRecordings` as a dataset of torch: alone, in a loader, in its workers."""

import re
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import hydra
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from deepesi.data_gen.generator import SimulatedRecordings
from tests.conftest import slow


def keys(batches):
    return [batch.scene.key for batch in batches]


def test_defaults_are_those_of_the_snapshot(template):
    """Python and ``configs/data/snapshot.yaml`` draw the same, setting by setting."""
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        config = hydra.compose("train", ["data=snapshot"])
    asked = hydra.utils.instantiate(config.data, _convert_="all")(
        heads=hydra.utils.instantiate(config.head)
    )
    alone = SimulatedRecordings()
    assert isinstance(alone, IterableDataset)
    for recordings in (asked, alone):
        assert recordings.pool._draw_from[0][0].template.fingerprint == template.fingerprint
    for mine, theirs in zip(alone.pool._draw_from[2:4], asked.pool._draw_from[2:4], strict=True):
        assert plain(asdict(mine)) == plain(asdict(theirs))
    for name in ("sources", "tissues"):
        mine, theirs = (asdict(getattr(recordings, name)) for recordings in (alone, asked))
        assert plain(mine) == plain(theirs)
    for name in ("artifacts", "largest_moment", "batch_size", "lengths", "sfreq", "curriculum"):
        assert plain(getattr(alone, name)) == plain(getattr(asked, name)), name
    assert list(alone.snr_db) == list(asked.snr_db)
    assert (alone.pool.size, alone.pool.period) == (asked.pool.size, asked.pool.period)
    first, second = alone.batch(3), asked.batch(3)
    assert torch.equal(first.data, second.data)
    assert torch.equal(first.sources, second.sources)


def plain(value):
    """Tuples as lists, as a YAML file has them."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, tuple | list) else value


def test_iterating_gives_the_batches_of_all_steps(simulate):
    recordings = simulate(seed=3, rank=2)
    batches = list(islice(recordings, 3))
    assert keys(batches) == [(3, "train", 2, step) for step in range(3)]
    assert torch.equal(batches[1].data, recordings.batch(1, rank=2).data)


@pytest.mark.parametrize(("n_workers", "method"), [(0, None), slow(2, "spawn")])
def test_workers_share_the_steps_out(simulate, n_workers, method):
    """Disjoint, in order, the same as without workers; leaving the endless loader hangs nowhere."""
    recordings = simulate(seed=1, pool_size=2, pool_period=4)
    loader = DataLoader(
        recordings,
        batch_size=None,
        num_workers=n_workers,
        multiprocessing_context=method,
        timeout=60 if n_workers else 0,
    )
    batches = list(islice(loader, 7))
    assert keys(batches) == [(1, "train", 0, step) for step in range(7)]
    for step, batch in enumerate(batches):
        expected = recordings.batch(step)
        torch.testing.assert_close(batch.data, expected.data, rtol=1e-5, atol=1e-12)
        torch.testing.assert_close(batch.sources, expected.sources, rtol=1e-5, atol=1e-16)
        assert batch.head.sensors.names == expected.head.sensors.names


@pytest.mark.parametrize("kind", [str, Path])
def test_head_by_name_or_path(toy_path, kind):
    recordings = SimulatedRecordings(kind(toy_path), batch_size=2)
    assert recordings.batch(0).sources.shape == (2, 84, 1)


def test_notebook_lines_of_the_docs_run():
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    lines = re.search(r"```python\n(.*?SimulatedRecordings.*?)```", text, re.DOTALL)[1]
    assert sum(bool(line) for line in lines.splitlines()) == 4
    found = {"__name__": "__notebook__"}
    exec(compile(lines, "docs/data.md", "exec"), found)
    batch = found["batch"]
    assert batch.sources.shape == (256, 1284, 1)
    assert batch.data.shape[0] == 256
