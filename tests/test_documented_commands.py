"""Every command of README, CONTRIBUTING and docs is composed or parsed by the real thing."""

import argparse
import functools
import importlib
import json
import os
import re
import sys
import tomllib

import hydra
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict
from sphinx.cmd.build import get_parser

import deepesi.cli.train  # noqa: F401 (registers the resolver of `hydra.run.dir`)
from deepesi.cli import calibrate, loading
from deepesi.cli import overrides as typed
from deepesi.cli.config_errors import usual_config
from deepesi.cli.config_types import check_config, targets
from deepesi.cli.hydra_commands import COMMANDS, config_dirs
from deepesi.cli.main import build_parser
from deepesi.physics.head_inputs.declaration import built_in
from deepesi.physics.template import load_template
from deepesi.training.overrides import add_quotes
from deepesi.training.run import build_model
from deepesi.training.trainer import check_sweep, check_trainer, resolve_max_steps
from deepesi.viz.demo import PACKAGE, VERSION
from tests.conftest import slow
from tests.documents import DOCUMENTS, ROOT, Command, documented

#: Each once, however often it is shown.
FOUND = list(
    {(c.words, c.inline): c for path in DOCUMENTS for c in reversed(documented(path))}.values()
)
PLUGINS = ROOT / "docs" / "plugins.md"
#: A word of the text that stands for one of ours.
PLACEHOLDERS = {"model=NAME": "model=convdip"}


def test_commands_are_found():
    """In every file that is known to show some, so that the search itself cannot break unseen."""
    files = {command.where.split(":")[0] for command in FOUND}
    assert {"README.md", "CONTRIBUTING.md"} <= files
    assert {f"docs/{name}.md" for name in ("training", "evaluation", "deployment")} <= files
    assert any("-m" in c.words and "train" in " ".join(c.words[:2]) for c in FOUND)
    assert sum(not command.inline for command in FOUND) > 50


#: Pages whose commands are run by whoever measures anew; they are checked nightly.
SLOW_PAGES = ("docs/benchmarks.md", "docs/speed.md", "docs/without_labels.md")
MARKED = [slow(c) if c.where.startswith(SLOW_PAGES) else c for c in FOUND]


@pytest.mark.parametrize("command", MARKED, ids=lambda c: f"{c.where} {' '.join(c.words)}"[:90])
def test_documented_command(command: Command, tmp_path, monkeypatch, capsys, request):
    first, *rest = command.words
    if first == "python" and rest[0] == "-m":
        first, *rest = rest[1:]
    elif first == "python":
        first, *rest = rest
    if first in ("train.py", "evaluate.py"):
        compose(first.removesuffix(".py"), rest, tmp_path, monkeypatch)
    elif first == "deepesi" and rest[0] in COMMANDS:
        compose(rest[0], rest[1:], tmp_path, monkeypatch)
    elif first == "deepesi":
        parse(rest, command.inline, capsys)
    elif first.startswith(("deepesi.", "benchmarks.")):
        parse_module(first, rest, monkeypatch)
    elif first in ("docs/tables.py", "docs/pictures.py"):
        monkeypatch.syspath_prepend(str(ROOT / "docs"))
        parse_module(first.removeprefix("docs/").removesuffix(".py"), rest, monkeypatch)
    elif first == "pip":
        check_pip(rest)
    elif first == "npm":
        check_npm(rest)
    elif first == "pytest":
        check_pytest(rest, request.config)
    elif first == "sphinx-build":
        assert (ROOT / get_parser().parse_args(rest).sourcedir / "conf.py").is_file()
    else:
        pytest.fail(f"{command.where} shows {command.words}, which nothing here knows to check")


def parse(words, inline, capsys):
    """By the parser of ``deepesi``; a sentence may leave out what a command requires."""
    if words[-1].startswith("--") and inline:  # ``--precision ...``
        words = words[:-1]
    try:
        build_parser().parse_args(words)
    except SystemExit:
        error = capsys.readouterr().err
        assert inline, error
        assert "the following arguments are required" in error, error


class ParsedError(Exception):
    pass


def parse_module(name, words, monkeypatch):
    """By the parser of a module that can be run, up to what it would then do."""
    real = argparse.ArgumentParser.parse_args

    def stop(self, *given):
        real(self, *given)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(ParsedError):
        importlib.import_module(name).main()


def check_pip(words):
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for word in words:
        if "[" in word:
            assert set(re.search(r"\[(.*)\]", word)[1].split(",")) <= extras.keys(), word
        if word.endswith(".txt"):
            assert (ROOT / word).is_file()


def check_npm(words):
    """The tested version, in the documents as in errors and in the tests."""
    package = json.loads((ROOT / "deepesi" / "viz" / "web" / "package.json").read_text())
    assert words == ["install", "--prefix", "web", f"{PACKAGE}@{VERSION}"]
    assert package["devDependencies"][PACKAGE] == VERSION


def check_pytest(words, config):
    known, unknown = config._parser.parse_known_and_unknown_args(list(words))
    assert not unknown
    for path in known.file_or_dir:
        assert (ROOT / path).exists(), path


@pytest.fixture(autouse=True)
def _no_hydra_left():
    yield
    HydraConfig.instance().cfg = None


usual_of = functools.cache(usual_config)


def own_folder(tmp_path):
    """The folder of the user that the documents speak of, with the scenario they show."""
    scenario = re.search(r"^```yaml\n(.*?)^```", PLUGINS.read_text(), re.MULTILINE | re.DOTALL)[1]
    files = {"scenario": scenario, "experiment": "# @package _global_\nseed: 1\n"}
    for group, text in files.items():
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text(text)
    return {"DIR": str(tmp_path)}


def compose(command, words, tmp_path, monkeypatch):
    """Compose as Hydra does: the folder of a sweep, its runs, and the objects of each run.

    Of runs that differ in the seed only, one is composed and built.
    """
    flags = ("-m", "--multirun", "--debug")
    folders, words = config_dirs(words)
    monkeypatch.setenv("DEEPESI_CONFIG", os.pathsep.join(map(own_folder(tmp_path).get, folders)))
    overrides = add_quotes([PLACEHOLDERS.get(word, word) for word in words if word not in flags])
    multirun = "-m" in words or "--multirun" in words
    with hydra.initialize_config_module("deepesi.configs", version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(overrides)
        assert multirun or not any(o.is_sweep_override() for o in parsed), "a sweep without -m"
        if multirun:
            fixed = [o.input_line for o in parsed if not o.is_sweep_override()]
            whole = hydra.compose(command, fixed, return_hydra_config=True)
            assert str(whole.hydra.sweep.dir).startswith("outputs/")
        ((*runs,),) = BasicSweeper.split_arguments(parsed, None)
        but_seed = {tuple(w for w in run if not w.startswith("seed=")): run for run in runs}
        for run in but_seed.values():
            config = hydra.compose(command, run, return_hydra_config=True)
            with open_dict(config):
                config.hydra.runtime.output_dir, config.hydra.job.num = str(tmp_path), 0
            HydraConfig.instance().set_config(config)
            assert config.hydra.run.dir
            with open_dict(config):
                del config["hydra"]
            check(command, config, run, usual_of(command), multirun)


def check(command, config, overrides, usual, multirun):
    values = OmegaConf.to_container(config, resolve=True)
    for _, node in targets(values):
        hydra.utils.get_object(node["_target_"])
    check_config(config, usual)
    if command == "preview":
        hydra.utils.instantiate(config.data, _convert_="all")
        return
    assert isinstance(loading.load_baselines(config), dict)
    if command == "train":
        typed.check_one_scenario(overrides, "train")
        loading.load_scenarios([config.scenario])
        check_training(config, multirun)
    elif command == "evaluate":
        loading.load_scenarios(typed.chosen_scenarios(overrides))
    else:
        typed.check_one_scenario(overrides, command)
        calibrate.one_scenario(config.scenario)


def check_training(config, multirun):
    if multirun:
        check_sweep(config.trainer)
    check_trainer(config.trainer)
    resolve_max_steps(config.trainer)
    build_model(config.model, load_template())
    hydra.utils.instantiate(config.data, _convert_="all")
    if "teacher" not in config:  # a file that the reader has
        hydra.utils.instantiate(config.loss)


def test_contributing_lists_every_head_input_and_says_how_to_freeze():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)`", text.split("| head input |")[1], re.MULTILINE))
    assert built_in().keys() == listed
    assert "--freeze" in text


def test_a_command_that_nothing_knows_fails(tmp_path, monkeypatch):
    """The list is made of what the files say, placeholders and continued lines included."""
    page = tmp_path / "page.md"
    page.write_text(
        "Say `deepesi train|evaluate ...` or `evaluate.py seed=1`.\n```\n"
        "deepesi train -m seed=1,2 \\\n  'name=a b'  # two\nnothing --known\n```\n"
        "```\noutputs/x/\n  deep\n```\n"
    )
    monkeypatch.setattr("tests.documents.ROOT", tmp_path)
    assert [c.words for c in documented(page)] == [
        ("deepesi", "train", "-m", "seed=1,2", "name=a b"),
        ("nothing", "--known"),
        ("deepesi", "train"),
        ("deepesi", "evaluate"),
        ("evaluate.py", "seed=1"),
    ]
