"""A package of somebody else adds a network, a head input, a loss and a scenario."""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.composition import names_in, register_plugins
from deepesi.core.contracts import InverseModel
from deepesi.evaluation.solvers import load_solver
from deepesi.physics.head_inputs import HeadInput
from deepesi.physics.io.heads import place_recording
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.methods import find_methods, solver_names
from deepesi.training.run import check_exportable
from deepesi.utils import plugins
from deepesi.utils.config_folders import CONFIGS, config_folders, config_names, folder_of
from tests.conftest import make_covariance, make_evoked
from tests.training.toy import TOY

ROOT = Path(__file__).parents[2]

#: Trains and evaluates by the command line, as a user would.
TRAIN = """
import sys
from deepesi.cli.main import main
for words in {commands!r}:
    sys.argv = ["deepesi", *words]
    main(words)
"""
#: Applies the exported file where importing torch fails.
APPLY = """
import sys
for name in ("torch", "lightning", "hydra", "onnx"):
    sys.modules[name] = None
import mne, numpy as np
from deepesi import Inverse
model, head, folder = sys.argv[1:]
inverse = Inverse.load(model, head=head)
print([type(d).__module__ for d in inverse.contract.head_inputs])
evoked = mne.read_evokeds(folder + "/x-ave.fif", 0, verbose="error")
noise_cov = mne.read_cov(folder + "/x-cov.fif", verbose="error")
np.save(folder + "/estimate.npy", inverse.apply(evoked, noise_cov).data)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder that the package is installed into, by pip."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(Path(__file__).with_name("toy"), folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", folder / "site"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *options, source], check=True, text=True
    )
    return folder / "site"


def python(site: Path, folder: Path, script: str, *words: str) -> str:
    """Output of a script in an environment with the package."""
    path = os.pathsep.join(map(str, (site, ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(site, toy_path, tmp_path_factory):
    """A folder with the run, its evaluation, and a folder of the user's own configurations."""
    folder = tmp_path_factory.mktemp("trained")
    mine = folder / "mine" / "scenario" / "loud.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("defaults: [toy_few, _self_]\nname: loud\nsnr_db: [20]\n")
    small = [word for word in TOY if not word.startswith(("model.", "scenario."))]
    train = ["train", "model=toynet", "model.first=0.25", "loss=amplitude", *small]
    train += ["scenario=toy_few", "compare=false", "hydra.run.dir=run"]
    evaluate = ["evaluate", "--config-dir", "mine", "models=[run]", "baselines=[]"]
    evaluate += ["scenario=[toy_few,loud]", "hydra.run.dir=evaluated"]
    commands = [[*words, f"head.name={toy_path}"] for words in (train, evaluate)]
    python(site, folder, TRAIN.format(commands=commands))
    return folder


def test_it_trains_by_its_name_with_its_loss(trained):
    config = yaml.safe_load((trained / "run" / "config.yaml").read_text())
    assert config["model"] == {"_target_": "deepesi_toy.network.ToyNet", "first": 0.25}
    assert set(config["loss"]["terms"]) > {"amplitude", "cosine"}
    header = (trained / "run" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "train/raw/amplitude" in header


def test_it_is_evaluated_on_its_scenario_and_on_the_users(trained):
    with (trained / "evaluated" / "benchmark.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["scenario"] for row in rows} == {"toy_few", "loud"}
    assert all(row["method"].startswith("ToyNet") for row in rows)


def test_it_is_applied_without_torch(site, trained, toy, toy_path):
    """The estimate is the one of the formula, with the weight of the run."""
    evoked = make_evoked("biosemi16", 5)
    noise_cov = make_covariance(evoked.info)
    evoked.save(trained / "x-ave.fif", verbose="error")
    noise_cov.save(trained / "x-cov.fif", verbose="error")
    model = trained / "run" / "export" / "model.onnx"
    said = python(site, trained, APPLY, str(model), str(toy_path), str(trained))
    assert "deepesi_toy.inputs" in said
    found = np.load(trained / "estimate.npy")
    head = toy.head(evoked.ch_names, place_recording(evoked.info, toy).points)
    fitted = head.leadfield.T @ (evoked.data - evoked.data.mean(axis=0))
    expected = fitted / (head.leadfield**2).sum(axis=0)[:, None]
    weight = (found * expected).sum() / (expected**2).sum()
    assert 0.1 < weight < 0.5
    np.testing.assert_allclose(found, weight * expected, rtol=0, atol=0.01 * np.abs(found).max())


def test_without_the_package_its_file_says_what_to_install(trained):
    with pytest.raises(ValueError, match="head input 'Sensitivity' .*pip install deepesi-toy"):
        Inverse.load(trained / "run" / "export" / "model.onnx")


@pytest.mark.parametrize("package", ["x; rm -rf /", "-r evil", "", 3])
def test_what_a_file_says_is_no_command(package):
    with pytest.raises(ValueError, match="does not name its package"):
        HeadInput.from_json({"type": "os.system", "package": package})


@dataclass(frozen=True)
class Local(HeadInput):
    axes = ("channels",)

    def compute(self, head):
        return np.zeros(len(head.sensors))


class Asks(MinimumNorm):
    def __init__(self):
        super().__init__("MNE")
        self.head_inputs = (*self.head_inputs, Local())


def test_a_head_input_that_no_reader_could_find_is_refused_before_training():
    with pytest.raises(ValueError, match=r"Local of tests.*Declare it .*deepesi.head_inputs"):
        check_exportable(Asks())
    twin = dataclass(frozen=True)(type("Gain", (Local,), {"__module__": "theirs"}))
    with pytest.raises(ValueError, match="Gain of theirs cannot be found by its name"):
        twin().to_json()


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Declares entry points, as an installed package does."""

    def package(name: str, **groups: dict[str, str]) -> None:
        folder = tmp_path / name / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [
            line
            for group, entries in groups.items()
            for line in (f"[deepesi.{group}]", *(f"{k} = {v}" for k, v in entries.items()))
        ]
        (folder / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(tmp_path / name))

    return package


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere:Net", r"'net' \(nowhere:Net\) of the package theirs cannot be imported"),
        ("json:Net", "cannot be imported .*Update the package, or uninstall it"),
        ("json:JSONDecoder", "no subclass of deepesi.core.contracts.InverseModel"),
        ("json:dumps", "no subclass of deepesi.core.contracts.InverseModel"),
    ],
)
def test_a_plugin_that_is_no_model_is_refused(declare, value, message):
    declare("theirs", models={"net": value})
    with pytest.raises(ValueError, match=message):
        plugins.load(plugins.declared(plugins.MODELS)["net"], InverseModel)


def test_two_plugins_of_one_name_are_refused(declare):
    declare("one", losses={"sharp": "json:A"})
    declare("other", losses={"sharp": "json:B"})
    with pytest.raises(ValueError, match="packages (one and other|other and one) both .*'sharp'"):
        plugins.declared(plugins.LOSSES)


def test_a_plugin_with_the_name_of_our_own_is_refused(declare):
    declare("theirs", models={"convdip": "json:JSONDecoder"})
    with pytest.raises(ValueError, match="has the name of deepesi's own model=convdip"):
        register_plugins.__wrapped__()


def test_folders_of_the_user_are_looked_into(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        (folder / "scenario").mkdir(parents=True)
        (folder / "scenario" / f"{folder.name}_own.yaml").write_text("defaults: [snr, _self_]")
    monkeypatch.setenv("DEEPESI_CONFIG", os.pathsep.join(map(str, folders)))
    assert {"a_own", "b_own", "snr"} <= set(names_in("scenario"))
    (tmp_path / "b" / "scenario" / "snr.yaml").write_text("")
    with pytest.raises(ValueError, match=r"b/scenario/snr.yaml has the name of .*Rename it"):
        config_folders()
    monkeypatch.setenv("DEEPESI_CONFIG", str(tmp_path / "c"))
    with pytest.raises(FileNotFoundError, match=f"there is no folder {re.escape(str(tmp_path))}/c"):
        config_folders()


def test_a_solver_of_the_user_is_offered_to_all_commands(tmp_path, monkeypatch):
    (tmp_path / "baselines").mkdir()
    lasso = (folder_of(CONFIGS) / "baselines" / "lasso.yaml").read_text()
    (tmp_path / "baselines" / "my_lasso.yaml").write_text(lasso.replace("LASSO (", "My LASSO ("))
    monkeypatch.setenv("DEEPESI_CONFIG", str(tmp_path))
    assert config_names("baselines") == names_in("baselines")
    assert "my_lasso" in solver_names()
    (method,) = find_methods(["my_lasso"], [], load_solver)
    assert method.name == "My LASSO (cross-validated)"


def test_our_own_head_inputs_travel_as_before():
    assert all("package" not in declared.to_json() for declared in MinimumNorm("MNE").head_inputs)
