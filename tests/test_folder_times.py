"""The table of seconds and tests per folder at the end of a run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import folder_times


def report(nodeid, when, duration):
    return pytest.TestReport(nodeid, ("", 0, ""), {}, "passed", None, when, duration=duration)


def test_times_are_added_up_per_folder():
    reports = [
        report("tests/core/test_a.py::test_one", "setup", 2.0),
        report("tests/core/test_a.py::test_one", "call", 1.0),
        report("tests/core/deep/test_b.py::test_two[a/b]", "call", 0.5),
        report("tests/test_c.py::test_three", "call", 4.0),
    ]
    times = folder_times(reports)
    assert times == {"tests": (4.0, 1), "tests/core": (3.5, 2)}
    assert list(times) == ["tests", "tests/core"]


@pytest.mark.parametrize("n_processes", ["0", "2"])
@pytest.mark.slow
def test_table_counts_every_test_in_one_and_in_two_processes(n_processes):
    file = "tests/core/test_quantities.py"
    command = [sys.executable, "-m", "pytest", "-n", n_processes, "-k", "not magnitude_is", file]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    n_tests = re.search(r"(\d+) passed", done.stdout)[1]
    assert re.search(rf"^tests/core +[\d.]+ s +{n_tests}$", done.stdout, re.MULTILINE)
