"""Solvers on a user's own recording, as an exported file would be."""

import mne
import numpy as np
import pytest
import torch

from deepesi.cli.main import main
from deepesi.core.contracts import as_tensors
from deepesi.evaluation.solvers import load_solver
from deepesi.physics.head_inputs import prepare
from deepesi.physics.io.heads import head_on_template
from deepesi.physics.sensors import average_reference
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked(n_times=12)
    evoked.data[:, 6] += 5e-6 * np.random.default_rng(1).normal(size=32)
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    return evoked


def apply(name, toy_path):
    main(
        [
            "apply",
            name,
            "x-ave.fif",
            "--noise-cov",
            "x-cov.fif",
            "--head",
            str(toy_path),
            "--out",
            "o",
        ]
    )


@pytest.mark.parametrize("name", ["lasso", "gamma_map", "eloreta"])
def test_a_solver_by_its_name(folder, toy_path, name, capsys):
    apply(name, toy_path)
    assert "strongest at 24 ms" in capsys.readouterr().out
    evoked = mne.read_evokeds("x-ave.fif", 0, verbose="error")
    head = head_on_template(evoked.info, make_covariance(evoked.info), load_template(toy_path), 4)
    model = load_solver(name).model
    data = torch.as_tensor(average_reference(evoked.data)[None], dtype=torch.float32)
    expected = model(data, as_tensors(prepare(model.head_inputs, head)))
    found = mne.read_source_estimate("o").data
    np.testing.assert_allclose(found, expected.mean[0].numpy(), rtol=1e-3, atol=1e-12)
    has_std = expected.std is not None
    assert bool(list(folder_files("o-std*"))) == has_std


def folder_files(pattern):
    from pathlib import Path

    return Path().glob(pattern)


def test_a_loose_solver_uses_the_packaged_head_of_free_orientation(folder, toy_path, capsys):
    main(["apply", "lcmv_loose", "x-ave.fif", "--noise-cov", "x-cov.fif", "--out", "o"])
    assert "strongest at 24 ms" in capsys.readouterr().out
    assert mne.read_source_estimate("o-stc.h5").data.shape == (1284, 3, 12)
    with pytest.raises(SystemExit, match="gives 3 orientation.*has 1. Use a head of free orient"):
        apply("lcmv_loose", toy_path)


def test_a_recording_that_does_not_fit_is_refused_for_a_solver_too(folder, toy_path):
    make_evoked().pick([0, 1, 2]).save("x-ave.fif", overwrite=True, verbose="error")
    with pytest.raises(SystemExit, match="3 good EEG channels .* expected at least 8"):
        apply("lasso", toy_path)


def test_a_file_of_that_name_goes_before_it(folder, toy_path):
    from pathlib import Path

    Path("lasso").write_bytes(b"no model")
    with pytest.raises(SystemExit, match="lasso: not a readable ONNX model"):
        apply("lasso", toy_path)


def test_a_name_that_is_none(folder, toy_path):
    with pytest.raises(SystemExit, match="there is no file lassoo.*Nearest: lasso"):
        apply("lassoo", toy_path)
    with pytest.raises(SystemExit, match="there is no file convdpi.*Nearest: convdip"):
        apply("convdpi", toy_path)
    with pytest.raises(FileNotFoundError, match=r"no file convdpi. Did you mean 'convdip'\?"):
        Inverse.load("convdpi")
    with pytest.raises(FileNotFoundError):
        Inverse.load("lasso")
