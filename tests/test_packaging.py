"""The versions that are asked for are those that are tested."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pins(file: str) -> dict[str, Version]:
    """Packages and versions of a file of constraints."""
    lines = (ROOT / file).read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.lower().replace("_", "-"): Version(version) for name, version in pairs}


@pytest.fixture(scope="module")
def bounds() -> dict[str, Requirement]:
    """Requirements of pyproject.toml, with extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [Requirement(line) for group in groups for line in group]
    return {r.name.lower().replace("_", "-"): r for r in asked if r.name != "deepesi"}


def test_the_oldest_versions_are_the_bounds(bounds):
    oldest = pins("constraints-oldest.txt")
    assert set(oldest) == set(bounds)
    for name, requirement in bounds.items():
        (specifier,) = requirement.specifier
        assert specifier.operator == ">="
        assert oldest[name] == Version(specifier.version), name


def test_what_was_tested_together_meets_the_bounds(bounds):
    tested = pins("constraints.txt")
    for name, requirement in bounds.items():
        assert tested[name] in requirement.specifier, name
