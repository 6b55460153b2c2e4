"""Few files speak of electrodes and their reference; the others serve every kind of sensor."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import deepesi

PACKAGE = Path(deepesi.__file__).parent
#: Files that may speak of electrodes and of their average reference, and why.
FOLDERS = {
    "physics/sensors.py": "the reference operator",
    "physics/scalp_potential.py": "ScalpPotentialFamily",
    "data_gen/scalp_potentials.py": "ScalpPotentialFamily on a device",
    "physics/building": "boundary elements of scalp potentials",
    "physics/sphere.py": "scalp potentials of spheres",
    "physics/montage.py": "montages",
    "physics/scalp.py": "positions on the scalp",
    "physics/cap_check.py": "montages",
    "physics/cap_faults.py": "montages",
    "physics/nets.py": "montages",
    "physics/cap_placement.py": "montages",
    "data_gen/caps.py": "montages",
    "physics/channel_names.py": "montages",
    "data_gen/montages.py": "montages",
    "runtime/reading/bids.py": "electrodes.tsv of BIDS",
    "runtime/reading/bids_electrodes.py": "electrodes.tsv of BIDS",
    "runtime/reading/bids_files.py": "electrodes.tsv of BIDS",
    "runtime/reading/bids_inheritance.py": "electrodes.tsv of BIDS",
    "data_gen/artifacts.py": "artifacts of EEG",
}
#: Names elsewhere: keys of configurations, and the method that puts electrodes on a head.
KEYS = {
    "data_gen/curriculum.py": {"electrodes"},
    "physics/template.py": {"electrodes"},
    "viz/demo.py": {"electrode_names"},
    "evaluation/descriptions.py": {"electrode_error"},
}
#: Mean of a tensor over axis 1 or -2, of an array over axis 0 or -2; a subscript does not matter.
MEAN_OVER_CHANNELS = re.compile(
    r"([\w.]+)(?:\[.*\])?\.mean\((?:(?:dim=)?(?:1|-2)|axis=(?:0|-2))(?:, keepdims?=True)?\)"
)
POSITIONS = {"points", "positions"}
OF_EEG = re.compile(r"electrode|average_?ref", re.IGNORECASE)
COUNTS_CHANNELS = re.compile(r"n_channels|len\(.*(sensors|channels|names|leadfield|cov).*\)")


def identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value.split(".")[-1]


def one_less_than_channels(tree: ast.AST) -> Iterator[str]:
    """Expressions such as ``n_channels - 1``, which take the reference for granted."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Sub)
            and isinstance(node.right, ast.Constant)
            and node.right.value == 1
            and COUNTS_CHANNELS.search(ast.unparse(node.left))
        ):
            yield ast.unparse(node)


def centred_over_channels(tree: ast.AST) -> Iterator[str]:
    """Expressions such as ``x - x.mean(1)``: an average reference by hand.

    Channels are axis 1 of batches ``(B, C, T)`` and axis 0 of recordings ``(C, T)``.
    """
    for node in ast.walk(tree):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)):
            continue
        found = MEAN_OVER_CHANNELS.fullmatch(ast.unparse(node.right))
        if (
            found
            and found[1] not in POSITIONS
            and found[1] in re.findall(r"[\w.]+", ast.unparse(node.left))
        ):
            yield ast.unparse(node)


@functools.cache
def outside() -> dict[str, ast.Module]:
    paths = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {
        name: ast.parse(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if not any(name == folder or name.startswith(f"{folder}/") for folder in FOLDERS)
    }


def test_electrodes_and_their_reference_are_named_in_few_files():
    violations = {
        name: names
        for name, tree in outside().items()
        if (names := {i for i in identifiers(tree) if OF_EEG.search(i)} - KEYS.get(name, set()))
    }
    assert not violations, (
        f"give these to {list(FOLDERS)}, or call electrodes sensors: {violations}"
    )


def test_no_rank_is_taken_for_granted():
    violations = {
        name: less
        for name, tree in outside().items()
        if (less := list(one_less_than_channels(tree)))
    }
    assert not violations, f"ask SensorArray.rank or the head input Rank: {violations}"


def test_no_average_reference_is_computed_by_hand():
    violations = {
        name: by_hand
        for name, tree in outside().items()
        if (by_hand := [*centred_over_channels(tree)])
    }
    assert not violations, f"use SensorArray.reference or reference_operator: {violations}"


@pytest.mark.parametrize("name", KEYS)
def test_names_that_may_be_elsewhere_are_there(name):
    assert KEYS[name] <= set(identifiers(outside()[name])), (
        f"{name}: take names that went out of KEYS"
    )


@pytest.mark.parametrize(
    ("line", "by_hand"),
    [
        ("x - x.mean(1, keepdim=True)", True),
        ("x - x[:, seen].mean(dim=1, keepdim=True)", True),
        ("batch.data + x - x.mean(-2, keepdim=True)", True),
        ("batch.data - batch.data.mean(dim=-2, keepdim=True)", True),
        ("data - data.mean(axis=0)", True),
        ("data - data.mean(axis=-2, keepdims=True)", True),
        ("data - data.mean(axis=1, keepdims=True)", False),  # over time
        ("x - x.mean(-1, keepdim=True)", False),
        ("x - y.mean(1, keepdim=True)", False),
        ("points - points.mean(axis=0)", False),
    ],
)
def test_the_rule_knows_an_average_reference(line, by_hand):
    assert [*centred_over_channels(ast.parse(line))] == [line] * by_hand


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_there(folder):
    assert (PACKAGE / folder).exists()


def test_the_rule_detects_what_it_forbids():
    tree = ast.parse("def average_reference(x):\n    return x.sum() / (head.n_channels - 1)")
    assert list(one_less_than_channels(tree)) == ["head.n_channels - 1"]
    assert any(OF_EEG.search(name) for name in identifiers(tree))
