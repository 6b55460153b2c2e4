"""Training with MEG: of a forward solution with MEG alone, and of EEG and MEG together."""

import hydra
import mne
import numpy as np
import pytest
import torch
import yaml

from deepesi.cli.train import run
from deepesi.physics.cohort import Cohort
from deepesi.runtime.inverse import Inverse
from deepesi.training.run import build_data, build_module
from tests.contract.test_joint_contract import joint_toy  # noqa: F401 (a fixture)
from tests.runtime.test_meg import mixture

SMALL = [
    "model=unrolled_ista",
    "data.batch_size=4",
    "data.pool_size=1",
    "data.pool_period=1",
    "data.setups.montages=[biosemi16]",
    "trainer.steps_per_epoch=2",
    "trainer.validation_batch_size=4",
    "trainer.max_steps=2",
    "trainer.n_validation_batches=1",
    "compare=false",
    "strangers=null",
    "name=x",
]


def compose(*overrides):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        return hydra.compose("train", [*SMALL, *overrides])


@pytest.mark.slow
def test_meg_alone_from_forward_solution_to_estimate(tmp_path):
    """Trained on a forward solution without EEG, exported, applied; EEG is refused by name."""
    evoked, cov, solution = mixture("meg")
    path = tmp_path / "meg-fwd.fif"
    mne.write_forward_solution(path, solution, verbose="error")
    overrides = ["head=forward", f"head.forward={path}", "data.sources.shapes=[point]"]
    overrides += ["data.sources.n_sources=[1,1]", f"logger.save_dir={tmp_path}"]
    overrides += ["+scenario.sources.shapes=[point]"]
    run(compose(*overrides), tmp_path)
    identity = yaml.safe_load((tmp_path / "model/model.yaml").read_text())
    assert identity["sensor_kinds"] == ["grad", "mag"]
    assert identity["trained"]["n_channels"] == [51, 51]
    inverse = Inverse.load(tmp_path / "export/model.onnx")
    assert inverse.contract.sensor_kinds == ("mag", "grad")
    stc = inverse.for_recording(evoked, cov, solution).apply(evoked, baseline="none").stc
    assert np.abs(stc.data[:, 9]).argmax() == 7
    with pytest.raises(ValueError, match="takes magnetometer and gradiometer channels, .* EEG"):
        inverse.for_recording(evoked, cov, mixture("both")[2])


def test_joint_data_train_a_network_on_every_mixture(joint_toy, tmp_path):  # noqa: F811
    config = compose("data=joint", f"logger.save_dir={tmp_path}", "export=false")
    cohort = Cohort.single(joint_toy)
    module = build_module(config, cohort)
    assert module.identity["trained"]["n_channels"] == [13, 16 + 36]
    stream, seen = build_data(config, cohort, module, torch.device("cpu")).train, set()
    for step in range(8):
        batch = stream.batch(step)
        seen.add("+".join(sorted(set(batch.head.sensors.modalities))))
        if step < 2:
            loss = module.training_step(batch, step)
            loss.backward()
            gradients = [p.grad for p in module.model.parameters() if p.grad is not None]
            assert gradients
            assert all(gradient.isfinite().all() for gradient in gradients)
    assert seen == {"eeg", "meg", "eeg+meg"}


def test_the_joint_experiment_trains_on_every_mixture(joint_toy, tmp_path):  # noqa: F811
    """Its own network and settings, two steps on a toy head."""
    config = compose("experiment=joint", "model=matched_filter", "data.n_times=1", "export=false")
    assert config.data.setups.coils.eeg_only == config.data.setups.coils.meg_only == 0.25
    config.logger.save_dir = str(tmp_path)
    run(config, tmp_path, Cohort.single(joint_toy))
    identity = yaml.safe_load((tmp_path / "model/model.yaml").read_text())
    assert identity["sensor_kinds"] == ["eeg", "grad", "mag"]
    assert identity["trained"]["n_channels"] == [13, 16 + 36]


@pytest.mark.slow
def test_the_experiment_of_strangers_trains_with_meg_on_their_cortices(tmp_path):
    """Its own network on the packaged head, two steps."""
    overrides = ["experiment=stranger", "data=joint", "model=loose_matched_filter"]
    overrides += ["data.n_times=1", "data.setups.anatomy.share=1", "export=false"]
    config = compose(*overrides)
    config.logger.save_dir = str(tmp_path)
    run(config, tmp_path)
    identity = yaml.safe_load((tmp_path / "model/model.yaml").read_text())
    assert identity["sensor_kinds"] == ["eeg", "grad", "mag"]
    assert identity["trained"]["n_channels"] == [13, 16 + 306]
