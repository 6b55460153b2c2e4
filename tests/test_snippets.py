"""Every Python block of README and docs runs as it stands, and says what it promises."""

import re
import shutil
from pathlib import Path

import mne
import nibabel
import numpy as np
import pytest

from deepesi.runtime.inverse import Inverse
from deepesi.runtime.packaged import model_path
from tests.conftest import make_covariance, make_evoked

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
BLOCKS = [
    pytest.param(block, id=f"{file.name}-{number}")
    for file in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(BLOCK.findall(file.read_text()))
]
#: What a training in a block takes, to end in seconds.
SMALL = [
    "data.batch_size=4",
    "data.n_times=1",
    "data.pool_size=1",
    "data.setups.montages=[biosemi16]",
    "model.n_components=1",
    "model.n_sweeps=1",
    "model.n_messages=1",
    "model.n_conjugate=2",
    "model.n_radii=1",
    "model.n_skulls=1",
    "trainer.n_validation_batches=1",
    "trainer.validation_batch_size=4",
]


@pytest.fixture
def smaller(toy_path):
    """Size of heads and trainings in the blocks, and what they are here."""
    return {
        '"fsaverage-ico3"': repr(str(toy_path)),
        "max_steps=960": f"max_steps=2, overrides={SMALL!r}",
        "scenario.n_examples=20": "scenario.n_examples=4",
        "for step in range(20)]": "for step in range(1)]",
    }


def write_subject() -> None:
    """An MRI of a subject: its transforms to the head frame and to MNI space, and its scalp."""
    transforms = Path("my-subject/mri/transforms")
    transforms.mkdir(parents=True)
    rows = "\n".join(["1 0 0 0", "0 1 0 0", "0 0 1 0"])
    (transforms / "talairach.xfm").write_text(f"MNI Transform File\nLinear_Transform =\n{rows};\n")
    mri = nibabel.freesurfer.MGHImage(np.zeros((8, 8, 8), np.uint8), np.eye(4))
    nibabel.save(mri, transforms.parent / "T1.mgz")
    for kind in ("trans", "head"):
        fsaverage = Path(mne.__file__).parent / f"data/fsaverage/fsaverage-{kind}.fif"
        Path(f"my-{kind}.fif").write_bytes(fsaverage.read_bytes())


@pytest.fixture
def names(tmp_path, monkeypatch, fsaverage_dir):
    """Variables that the blocks assume: an average, its noise, an exported file with its head."""
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked(n_times=5)
    noise_cov = make_covariance(evoked.info)
    Path("model.onnx").write_bytes(model_path("convdip").read_bytes())
    Inverse.load("model.onnx").for_recording(evoked, noise_cov).save("head.npz")
    write_subject()
    shutil.copytree(fsaverage_dir / "fsaverage", "fsaverage")
    given = {"evoked": evoked, "noise_cov": noise_cov, "frame": evoked.data[:, :1]}
    return {**given, "subjects_dir": Path()}


def test_there_are_some():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS)
def test_it_runs(names, smaller, block):
    for size, here in smaller.items():
        block = block.replace(size, here)
    exec(compile(block, "block", "exec"), names)
    if "estimate" in names:
        assert np.isfinite(names["estimate"].stc.data).all()
        assert names["prediction_set"].sources.any()
    if "stc" in names:
        assert np.isfinite(names["stc"].data).all()
    if "loss" in names:
        assert names["loss"].isfinite()
    if "mean" in names:
        assert names["mean"].shape == (1284, 1)
