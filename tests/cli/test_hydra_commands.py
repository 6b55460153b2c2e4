"""Errors of train, evaluate, calibrate and preview: one line, the key, the cure; ``--debug``."""

import functools
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.errors import InstantiationException

from deepesi.cli import config_errors
from deepesi.cli.config_types import RENAMED, fits
from deepesi.cli.main import main
from deepesi.cli.processor import prepare_processor
from deepesi.training.weights import save_network
from tests.conftest import slow
from tests.training.toy import TOY, start, wait_for

ROOT = Path(__file__).parents[2]
#: Ways to start a training.
ENTRIES = [["-m", "deepesi", "train"], [str(ROOT / "train.py")]]


@pytest.fixture(scope="module", autouse=True)
def usual_once():
    """The configuration without overrides is composed once, not in every test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_errors, "usual_config", functools.cache(config_errors.usual_config))
        yield


def error_of(*words: str, monkeypatch, folder) -> str:
    """What a command that is wrong ends with."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["deepesi", *words])
    with pytest.raises(SystemExit) as ended:
        main(words)
    return str(ended.value.code)


#: What is typed behind a command, and the line it ends with.
WRONG = {
    # an unknown key
    "train data.montage=biosemi64": r"data.montage: there is no such key. Nearest: data.* All keys",
    "train max_steps=5": r"max_steps: there is no such key. Nearest: trainer.max_steps",
    "train modle=gnn": r"modle: there is no such key. Nearest: model",
    "train model=piunet model.n_looks=1": r"no such key. It is called model.n_passes now",
    "train loss.terms.reprojection.through=true": r"called loss.terms.reprojection.leadfield now",
    "train loss.through=true": r"through is called leadfield now: loss.terms.reprojection.lead",
    "train data.sources.course=null": r"called data.sources.time_course now",
    "train data=erp data.sources.time_course.courses=[]": r"data.sources.time_course.kinds now",
    "train model=gnn model.n_places=1": r"called model.n_components now",
    "train model.n_places=1": r"n_places: there is no such key. Nearest: model",
    "evaluate scenario.examples=3": r"scenario.examples: there is no such key",
    "train model=gnn +model.n_places=4": r"no such setting; it is called n_components now",
    "train +model.n_heads=4": r"model.n_heads: ConvDip has no such setting; it has n_dipoles",
    "calibrate +scenario.sources.radios=3": r"scenario.sources.radios: PatchSources has no such",
    # a wrong type
    "train trainer.max_steps=many": r"trainer.max_steps=many: expected a whole number",
    "train trainer.compile=3": r"trainer.compile=3: expected true or false",
    "train seed=1.5": r"seed=1.5: expected a whole number",
    "train data.batch_size=big": r"data.batch_size=big: SimulatedRecordings expected a whole numb",
    "train data.sources.radius=[0.01,big]": r"data.sources.radius=.*expected tuple\[float, float\]",
    "train data.setups.noise.level=abc": r"data.setups.noise.level=abc: NoiseRanges expected",
    "evaluate models=a.onnx": r"models=a.onnx: expected a list, \[a,b\]",
    "train trainer.patience=soon": r"trainer.patience must be 1 or more, got soon",
    # a wrong value
    "train data.sources.radius=[0.02,0.01]": r"data.sources: PatchSources: radius 0.02 to 0.01",
    "train scenario.sources.radius=[10,25]": r"scenario.sources: .* radius 10 to 25 .*is 0.010\)",
    "train data.snr_db=[20,-5]": r"data.snr_db: SimulatedRecordings: snr_db 20 to -5 must",
    "preview data.sources.shapes=[round]": r"data.sources: .*shapes \['round'\] unknown",
    "train trainer.accumulate=0": r"trainer.accumulate must be 1 or more, got 0",
    "train model.hidden=0": r"model.hidden: ConvDip: hidden.* 0|model: ConvDip: .*hidden",
    # a group, something missing, a file
    "train model=foo": r"Could not find 'model/foo' Available options in 'model': .* convdip",
    "train experiment=distill": r"teacher must be given: teacher=\.\.\.",
    "train head=own": r"bem must be given",
    "train ckpt=no=1/last.ckpt": r"there is no ckpt=no=1/last.ckpt. Give the",
    "train head.name=nobody": r"head: load_template: no head 'nobody'. At hand",
    "evaluate models=[convdpi]": "load_network: there is no convdpi.*Packaged is 'convdip'",
    "evaluate models=[a=b.ckpt]": r"models: load_network: there is no a=b.ckpt. Give a run dir",
    "train init_from=a=b/0": r"init_from: load_network: there is no a=b/0. Give a run directory",
    "train pruned_from=~/no": r"pruned_from: load_network: there is no /.*/no. Give a run dir",
    "evaluate baselines=[]": r"nothing to evaluate. Name files with models=",
    "train seed": r"'seed' cannot be read .*Give key=value; values with blanks",
    "train init_from=a pruned_from=b": r"init_from uses all weights.*Give only one of them",
    # what would change nothing
    "train ckpt=a.ckpt init_from=b": r"init_from would change nothing, because ckpt=a.ckpt",
    "evaluate resume=a models=[b]": r"head, models would change nothing, because resume uses",
    "evaluate by_cortex.own=a": r"by_cortex needs two networks, got \['own'\] only. Give by",
    "evaluate by_cortex.own=a mc_dropout=b": r"mc_dropout and by_cortex both write a network to",
    "evaluate mc_samples=3": r"mc_samples would change nothing, because no mc_dropout=PATH",
}


@pytest.mark.parametrize(("words", "message"), WRONG.items(), ids=WRONG.keys())
def test_errors_are_one_line_with_the_key(toy_path, tmp_path, monkeypatch, words, message):
    command, *rest = words.split()
    small = [] if "head" in words else [f"head.name={toy_path}"]
    if command == "train":
        small += ["baselines=[]", "scenario.n_examples=4", "scenario.setups.montages=[biosemi16]"]
    said = error_of(command, *small, *rest, monkeypatch=monkeypatch, folder=tmp_path)
    assert re.search(message, said), said
    assert "\n" not in said
    assert said.startswith(f"deepesi {command}: ")


def test_every_renamed_key_is_tested():
    typed = {word.split("=")[0].split(".")[-1] for words in WRONG for word in words.split()}
    assert RENAMED.keys() <= typed | {"knob"}, "knob: in the next test"


def test_a_renamed_setting_of_an_own_file(toy_path, tmp_path, monkeypatch):
    own = tmp_path / "configs" / "baselines"
    own.mkdir(parents=True)
    own = own / "own.yaml"
    own.write_text("own:\n  _target_: deepesi.baselines.tuned.Tuned\n  knob: snr_db\n")
    monkeypatch.setenv("DEEPESI_CONFIG", str(tmp_path / "configs"))
    words = ("evaluate", f"head.name={toy_path}", "baselines=own")
    said = error_of(*words, monkeypatch=monkeypatch, folder=tmp_path)
    assert said.endswith("own.knob: Tuned has no such setting; it is called parameter now.")


OLD_RUNS = {
    "a class": ({"_target_": "deepesi.models.gnn.ElectrodeGNN"}, "no class deepesi.*ElectrodeGNN"),
    "a setting": ({"n_places": 3}, "unexpected keyword argument 'n_places'"),
    "weights": ({"hidden": 8}, "size mismatch"),
}


@pytest.mark.parametrize("command", ["export {run} --out {run}/a.onnx", "evaluate models=[{run}]"])
@pytest.mark.parametrize(("changed", "reason"), OLD_RUNS.values(), ids=OLD_RUNS.keys())
def test_a_run_of_an_earlier_version(
    toy, toy_path, tmp_path, monkeypatch, command, changed, reason
):
    """The error names the run and the cure."""
    config = {"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": toy.space.n_dipoles}
    network = hydra.utils.instantiate(config | {"hidden": 16})
    identity = {"model": config | {"hidden": 16} | changed, "space": toy.space.name}
    identity["space_fingerprint"] = toy.space.fingerprint
    save_network(network, identity, tmp_path / "run" / "model")
    words = command.format(run=tmp_path / "run").split()
    words += ["--head", str(toy_path)] if words[0] == "export" else [f"head.name={toy_path}"]
    said = error_of(*words, monkeypatch=monkeypatch, folder=tmp_path)
    assert re.search(f"the network in {tmp_path}/run/model cannot be made: .*{reason}", said), said
    assert said.endswith(
        ". It was saved by another version of deepesi, or needs a plugin that is not installed. "
        "Train it again, use its exported .onnx file, or install the plugin."
    )
    assert "\n" not in said


def run(*command: str, cwd, **environment):
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


WRONG_RADIUS = "data.sources.radius=[0.02,0.01]"


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=["module", "train.py"])
def test_a_process_ends_with_one_line_and_1(tmp_path, entry):
    done = run(*entry, WRONG_RADIUS, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("deepesi train: data.sources")


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=["module", "train.py"])
def test_a_process_shows_its_traceback(tmp_path, entry):
    shown = run(*entry, WRONG_RADIUS, "--debug", cwd=tmp_path)
    assert shown.returncode == 1
    assert "Traceback" in shown.stderr
    assert "in __post_init__" in shown.stderr


def test_an_error_keeps_its_traceback_if_asked(tmp_path, monkeypatch):
    """The same in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["deepesi", "train"])
    with pytest.raises(InstantiationException) as error:
        main(["train", WRONG_RADIUS, "--debug"])
    assert "in __post_init__" in "".join(traceback.format_exception(error.value))


def test_module_is_the_command(tmp_path, monkeypatch, capsys):
    done = run("-m", "deepesi", "--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("deepesi ")
    monkeypatch.setattr(sys, "argv", ["deepesi"])
    for command in ("train", "export"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert not ended.value.code
        assert len(capsys.readouterr().out) > 200


@pytest.mark.parametrize(
    ("value", "hint", "fit"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, True),
        (1.5, int, False),
        ("a", str, True),
        ([1, 2], tuple[float, float], True),
        ([1], tuple[float, float], False),
        (None, int, False),
        (None, int | None, True),
        ([1, "a"], list[int], False),
        ("a", Path, True),
        (1, str, False),
        ({"a": 1}, dict[str, int], True),
        ("ab", list[str], False),
        (True, bool, True),
        (1, bool, False),
    ],
)
def test_values_and_types(value, hint, fit):
    assert fits(value, hint) is fit


def test_settings_of_the_processor_are_ours_only_where_unset(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    prepare_processor()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    prepare_processor()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


LONG = ["trainer.max_steps=100000", "trainer.steps_per_epoch=100000", "data.batch_size=64"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    ("phase", "name"),
    [
        slow("training", "SIGTERM"),  # fast, in one process: tests/training/test_interruptions.py
        slow("comparison", "SIGINT"),
        slow("training", "SIGINT"),
        slow("comparison", "SIGTERM"),
    ],
)
def test_asked_to_stop_a_run_ends_within_five_seconds(toy_path, tmp_path, name, phase):
    folder = tmp_path / "a=b [1]"
    options = LONG if phase == "training" else ["scenario.n_examples=100000"]
    process = start(tmp_path, toy_path, *options, f"hydra.run.dir={folder}")
    there = {
        "training": folder / "checkpoints" / "last.ckpt",
        "comparison": folder / "scores" / "settings.json",
    }
    wait_for(there[phase], process)
    time.sleep(0.5)
    asked = time.monotonic()
    process.send_signal(signal.Signals[name])
    output, _ = process.communicate(timeout=60)
    # Beside other jobs a process has a share of a core, and takes so much longer.
    assert time.monotonic() - asked < 5 * max(1, os.getloadavg()[0] / os.cpu_count())
    assert process.returncode == 128 + signal.Signals[name], output
    assert f"stopped by {name}" in output
    assert "Traceback" not in output
    if phase == "training":
        goes_on(output, tmp_path, toy_path)


def goes_on(output: str, cwd: Path, toy_path: Path) -> None:
    """The printed argument resumes the run when it is added to the same command."""
    printed = output.split("Resume with ")[1].splitlines()[0]
    toy = " ".join(f"'{word}'" for word in TOY)
    command = (
        f"{sys.executable} -m deepesi train {toy} head.name={toy_path} name=toy baselines=[] "
        f"{' '.join(LONG)} {printed}"
    )
    again = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    lines = []
    for line in again.stdout:
        lines.append(line)
        if "of training to go" in line:
            break
    again.terminate()
    again.communicate(timeout=60)
    assert "of training to go" in lines[-1], "".join(lines)


@pytest.mark.parametrize("process", [False, slow(True)], ids=["main", "train.py"])
def test_sweep_lands_in_numbered_folders(toy_path, tmp_path, monkeypatch, capsys, process):
    """The documented command, without ``name`` and ``hydra.sweep.dir``: two runs of two steps."""
    toy = [word for word in TOY if not word.startswith(("trainer.max_steps", "trainer.steps_per"))]
    sweep = ["-m", "seed=1,2", f"head.name={toy_path}", "trainer.max_steps=2"]
    words = [*toy, *sweep, "compare=false", "export=false"]
    if process:
        done = run(str(ROOT / "train.py"), *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        printed = done.stdout
    else:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["deepesi", "train", *words])
        main(["train", *words])
        printed = capsys.readouterr().out
    (time_,) = (tmp_path / "outputs" / "convdip").iterdir()
    seeds = [hydra_config(time_ / str(number))["seed"] for number in (0, 1)]
    assert seeds == [1, 2]
    for number in (0, 1):
        assert (time_ / str(number) / "model" / "weights.safetensors").is_file()
        assert not (time_ / str(number) / "export").exists()
    assert printed.count("lowest val/nemd") == 2


def hydra_config(folder: Path):
    return yaml.safe_load((folder / "config.yaml").read_text())


def test_chosen_model_names_the_folder(tmp_path):
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        import deepesi.cli.train  # noqa: F401  registers what the name is made with

        for overrides, name in (
            (["model=gnn"], "gnn"),
            (["experiment=piunet"], "piunet"),
            (["name=mine"], "mine"),
        ):
            config = hydra.compose("train", overrides, return_hydra_config=True)
            assert str(config.hydra.sweep.dir).startswith(f"outputs/{name}/")
