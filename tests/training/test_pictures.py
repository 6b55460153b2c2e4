"""What Weights & Biases is given: configuration, curves, pictures of validation examples."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.physics.cohort import Cohort
from deepesi.physics.similarity import residual_variance
from deepesi.training.pictures import comparison
from deepesi.training.run import fit
from deepesi.viz.estimate import comparison_figure
from tests.training.toy import compose


@pytest.fixture
def example(toy, simulate):
    """An estimate of two sources."""
    model = MinimumNorm("eLORETA")
    batch = simulate(model.head_inputs, split="validation", n_times=3).batch(0)
    estimate = model(batch.data, batch.inputs)
    return batch, comparison(batch, estimate.mean, 1, toy.display, "an example")


def test_comparison_is_of_one_example(example):
    batch, found = example
    assert found.recorded == pytest.approx(batch.data[1].numpy())
    assert found.target == pytest.approx(np.sqrt((batch.sources[1].numpy() ** 2).mean(axis=1)))
    assert found.target.argmax() in found.peaks
    # The estimate answers to the recording, the target leaves noise and the error of the head.
    misfit = residual_variance(found.explained, found.recorded)
    assert 0 < misfit < residual_variance(0 * found.explained, found.recorded) == 1
    assert 0 < residual_variance(found.target_potential, found.recorded) < 1
    assert residual_variance(found.recorded, found.recorded) == 0


@pytest.mark.parametrize("mesh", [True, False])
def test_comparison_is_drawn(example, mesh):
    _, found = example
    figure = comparison_figure(found if mesh else replace(found, mesh=None))
    titles = [text.get_text() for text in figure.findobj(Text)]
    away = found.source_pos[found.peaks] - found.source_pos[found.estimated.argmax()]
    off = 1e3 * np.linalg.norm(away, axis=1).min()
    assert any(f"strongest {off:.0f} mm from the nearest" in t for t in titles)
    assert any(t == f"{residual_variance(found.explained, found.recorded):.2f}" for t in titles)
    assert any("residual" in t for t in titles)


@pytest.mark.slow  # starts a service of its own
def test_wandb_gets_pictures_and_configuration(toy, toy_path, tmp_path):
    """Two pictures, both of one validation batch; all without a network."""
    config = compose(
        toy_path,
        tmp_path,
        "logger=wandb",
        "logger.offline=true",
        "trainer.pictures=2",
        "trainer.n_validation_batches=1",
    )
    fit(config, Cohort.single(toy), tmp_path)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    pictures = sorted((folder / "files" / "media" / "images").rglob("*.png"))
    assert len({path.read_bytes() for path in pictures}) == len(pictures) == 2
    assert all(imread(path).std() > 0.1 for path in pictures)
    (record,) = (path.read_bytes() for path in folder.glob("*.wandb"))
    for name in (b'"n_validation_batches":1', b"val/nemd", b"data_share", b"validation/examples"):
        assert name in record, name


def test_negative_number_of_pictures_is_refused(toy, toy_path, tmp_path):
    config = compose(toy_path, tmp_path, "logger=wandb", "trainer.pictures=-1")
    with pytest.raises(ValueError, match=r"trainer.pictures must be 0 \(none\) or more, got -1"):
        fit(config, Cohort.single(toy), tmp_path)
