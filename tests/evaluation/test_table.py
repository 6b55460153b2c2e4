"""The terminal's table is readable at 80 columns: numbers are never folded nor cut."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.table import RULE, Layout, cell, markdown_table
from deepesi.evaluation.terminal import NO_INTERVALS, print_layout, print_table
from deepesi.metrics.table import IN_TABLES
from tests.evaluation.conftest import LONG


def shown(rows, width):
    console = Console(width=width, file=io.StringIO())
    print_table(console, rows)
    return console.file.getvalue()


def numbers(row):
    decimals = 3 if row.metric in ("nemd", "auc") else 1
    return [f"{x:.{decimals}f}" for x in (row.value, row.ci_low, row.ci_high)]


def a_row(method, metric, level, snr_db, value):
    return Row(
        method,
        "head",
        snr_db,
        "1",
        metric,
        value,
        0.9 * value,
        1.1 * value,
        value,
        9,
        axis="assumed anatomy",
        level=level,
    )


WIDEST = [
    a_row(method, metric, level, snr_db, value)
    for level in ("own", "template")
    for snr_db in (5.0, 20.0)
    for method in (LONG, "eLORETA")
    for metric, value in zip(IN_TABLES, (112.34, 0.987, 0.912, 123.45), strict=True)
]


@pytest.mark.parametrize("width", [80, 100, 240])
def test_every_number_is_there_and_no_line_is_too_long(benchmark, width):
    for rows in (WIDEST, [row for row in benchmark.rows if row.scenario == "toy"]):
        text = shown(rows, width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
        words = text.replace("–", " ").replace("[", " ").replace("]", " ").replace(",", " ").split()
        for row in rows:
            if row.metric in IN_TABLES:
                for number in numbers(row):
                    assert number in words, (row, number)


def test_narrow_terminal_stacks_the_interval_below_its_mean():
    narrow, wide = shown(WIDEST, 80), shown(WIDEST, 240)
    assert "101.1–123.6" in narrow
    assert "The interval stands below" in narrow
    assert "112.3 [101.1, 123.6]" in wide
    assert LONG in wide
    assert LONG not in narrow  # folded, but whole
    letters = "".join(c for line in narrow.splitlines() for c in line[14:34] if c.isalpha())
    assert "UnrolledMatchedFilterkrunoutputsmatchedfilter" in letters
    assert RULE[:20] in wide


@pytest.mark.parametrize("width", [30, 40, 60])
def test_terminal_too_narrow_for_any_table_gets_a_list(width):
    text = shown(WIDEST, width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    words = text.split()
    for row in WIDEST:
        mean, low, high = numbers(row)
        assert {mean, f"[{low},", f"{high}]"} <= set(words)
    assert "".join(LONG.split()) in "".join(words)


@pytest.mark.parametrize("width", [40, 80, 240])
def test_means_without_intervals_are_shown_alone_and_it_is_said_why(width):
    few = [replace(row, ci_low=None, ci_high=None) for row in WIDEST]
    assert cell(few[0]) == "112.3 [-]"
    text = shown(few, width)
    assert "112.3" in text
    assert "112.3 [-]" not in text
    assert NO_INTERVALS in " ".join(text.split())
    some = shown([few[0], *WIDEST[1:]], 240)  # where others have one, it is marked
    assert "112.3 [-]" in some
    assert NO_INTERVALS not in some


def test_names_like_markup_or_like_an_interval_stay_whole():
    for name in ("[red]x[/red]", "a [run, b]", "[/x]"):
        table = Layout(["method", "value"], [[(name, False), ("1.0 [0.5, 1.5]", True)]])
        for width in (12, 25, 80):
            console = Console(width=width, file=io.StringIO())
            print_layout(console, table, "[b]", "[/c]")
            text = "".join(console.file.getvalue().split())
            assert all("".join(part.split()) in text for part in (name, "[b]", "[/c]"))


def test_markdown_escapes_what_would_end_a_cell():
    table = Layout(["method"], [[("a|b", False)], [("c|d", True)]])
    assert markdown_table(table).splitlines()[2:] == [r"| a\|b |", r"| **c\|d** |"]
