"""Few files speak of electrodes and their reference; the others serve every kind of sensor."""

import ast
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
    "physics/cap_placement.py": "montages",
    "data_gen/caps.py": "montages",
    "physics/channel_names.py": "montages",
    "data_gen/montages.py": "montages",
    "runtime/reading/bids.py": "electrodes.tsv of BIDS",
    "runtime/reading/bids_electrodes.py": "electrodes.tsv of BIDS",
    "runtime/reading/bids_inheritance.py": "electrodes.tsv of BIDS",
    "data_gen/artifacts.py": "artifacts of EEG",
}
#: Names elsewhere: keys of configurations, and the method that puts electrodes on a head.
KEYS = {
    "data_gen/curriculum.py": {"electrodes"},
    "physics/template.py": {"electrodes"},
    "viz/demo.py": {"electrode_names"},
    "evaluation/descriptions.py": {"electrode_error"},
    "benchmarks/drawing.py": {"BadElectrode", "ElectrodePops", "make_eeg_average_ref_proj"},
}
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


def outside() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not any(name == folder or name.startswith(f"{folder}/") for folder in FOLDERS):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_electrodes_and_their_reference_are_named_in_few_files():
    violations = {
        name: names
        for name, tree in outside()
        if (names := {i for i in identifiers(tree) if OF_EEG.search(i)} - KEYS.get(name, set()))
    }
    assert not violations, (
        f"give these to {list(FOLDERS)}, or call electrodes sensors: {violations}"
    )


def test_no_rank_is_taken_for_granted():
    violations = {
        name: less for name, tree in outside() if (less := list(one_less_than_channels(tree)))
    }
    assert not violations, f"ask SensorArray.rank or the head input Rank: {violations}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_are_there(folder):
    assert (PACKAGE / folder).exists()


def test_the_rule_detects_what_it_forbids():
    tree = ast.parse("def average_reference(x):\n    return x.sum() / (head.n_channels - 1)")
    assert list(one_less_than_channels(tree)) == ["head.n_channels - 1"]
    assert any(OF_EEG.search(name) for name in identifiers(tree))
