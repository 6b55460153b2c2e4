"""The limit on the time of a calculation in parts."""

import time

from deepesi.utils.budget import within_budget


def test_results_are_complete_or_none():
    assert within_budget(lambda x: 2 * x, [1, 2, 3], 60) == [2, 4, 6]
    assert within_budget(lambda x: x, [], 0) == []


def test_a_slow_calculation_ends_after_its_first_part():
    done = []

    def slow(part):
        time.sleep(0.02)
        done.append(part)

    assert within_budget(slow, list(range(100)), 1.0) is None
    assert done == [0]
