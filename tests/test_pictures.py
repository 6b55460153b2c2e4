"""Pictures of the documentation are drawn by a command and show what is there."""

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs" / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_pictures"] = module
    spec.loader.exec_module(module)
    return module


def test_every_picture_is_in_the_repository(pictures):
    assert {p.stem for p in pictures.PICTURES.iterdir()} == set(pictures.FIGURES)


def test_floors_are_those_that_imports_are_checked_against(pictures):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers, torch_free = (contracts["contracts"][i] for i in (0, 1))
    expected = [set(layer.replace("deepesi.", "").split(" | ")) for layer in layers["layers"]]
    assert [set(folders.split()) for _, folders, _ in pictures.FLOORS] == expected
    plain = {
        f
        for _, folders, ground in pictures.FLOORS
        for f in folders.split()
        if ground == pictures.PLAIN
    }
    assert {f"deepesi.{folder}" for folder in plain} == set(torch_free["source_modules"])


@pytest.mark.parametrize(
    "name", ["pipeline", "floors", "curve", "durations", "modality", "posterior"]
)
def test_pictures_are_drawn_as_stored(pictures, tmp_path, name, capsys):
    assert pictures.main(["--only", name, "--out", str(tmp_path)]) == 0
    assert "written" in capsys.readouterr().out
    drawn, stored = (Image.open(f / f"{name}.png") for f in (tmp_path, pictures.PICTURES))
    assert drawn.size == stored.size
    assert drawn.width >= 2 * 390  # sharp on a phone


def test_posterior_shows_two_sources_and_the_set_holds_both(pictures):
    titles = [part.get_suptitle() for part in pictures.posterior_figure().subfigs]
    assert titles[0] == "target: 2 sources (rings)"
    target, samples = pictures._stored_samples(1284)
    assert samples.shape == (200, 1284)
    template = pictures.load_template("fsaverage-ico3")
    peaks = pictures.source_peaks(target[None], template.space.edges)[0]
    found = pictures.sources_of(samples, template.source_pos, template.space.edges)
    assert found.joint_set[peaks].all()
    assert found.count_probabilities[1] > found.count_probabilities[2]


@pytest.mark.slow
def test_result_shows_a_typical_recording(pictures):
    """Not the best one: the packaged network errs there as it does on average."""
    titles = [ax.get_title() for ax in pictures.result_figure().axes]
    assert titles[0] == "recording, 5 dB, 64 electrodes"
    assert titles[1] == "target"
    assert titles[3].startswith("default, ")
    assert 3 <= int(titles[3].split()[1]) <= 12  # mm; 6.1 is the mean of the benchmark
