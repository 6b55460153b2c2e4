"""Tables of the documentation are those of the stored results, and nothing else writes them."""

import csv
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from deepesi.metrics.table import METRICS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_tables"] = module
    spec.loader.exec_module(module)
    return module


COLUMNS = (
    "method",
    "scenario",
    "snr_db",
    "n_sources",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "median",
    "n",
    "difference",
    "difference_low",
    "difference_high",
    "axis",
    "level",
)


def store(folder, name, lines, header=COLUMNS, **facts):
    with (folder / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    known = {"command": "x", "commit": "y", "seed": 0, "date": "2026-01-01", "cores": 2}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(known | facts))


def line(method, snr_db, metric, value, low="", high="", axis="SNR (dB)", level=""):
    return (
        method,
        "s",
        snr_db,
        "1",
        metric,
        value,
        low,
        high,
        2 * value,
        9,
        "",
        "",
        "",
        axis,
        level or f"{snr_db:g}",
    )


@pytest.fixture
def stored(tmp_path):
    lines = [
        line(method, snr_db, metric, scale * value, scale * value / 2, scale * value * 2)
        for method, scale in (("a", 1), ("b, c", 4))
        for snr_db in (0.0, 10.0)
        for metric, value in (("localization_error", 20 - snr_db), ("nemd", 0.125))
    ]
    store(tmp_path, "snr", lines)
    return tmp_path


def test_every_page_holds_what_is_stored(tables):
    """Running the writer changes nothing: python docs/tables.py."""
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.rewritten(text) == text, f"{page.name}: run python docs/tables.py"


def test_every_stored_result_is_shown_somewhere(tables):
    text = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    shown = set()
    for found in tables.TABLE.finditer(text):
        names = yaml.safe_load(found[2])["table"]
        shown |= set(names if isinstance(names, list) else [names])
    assert shown == {path.stem for path in tables.RESULTS.glob("*.csv")}
    assert shown == {path.stem for path in tables.RESULTS.glob("*.yaml")}


def test_the_list_of_metrics_is_that_of_the_package(tables):
    assert "| `nemd` | nEMD |  | lower |" in tables.metric_list()
    assert tables.metric_list().count("\n") == 2 + len(METRICS)
    page = "a\n<!-- metrics -->\nold\n<!-- end -->\nb\n"
    assert tables.rewritten(page) == page.replace("old\n", tables.metric_list())
    text = (tables.DOCS / "evaluation.md").read_text(encoding="utf-8")
    assert tables.METRIC_LIST.search(text)


NUMBER = re.compile(r"[-*~<+ ]*[.\d][\d,.e-]*( ?(%|ms|s|mm|MB))?\**")


def test_tables_of_numbers_are_written_by_the_command(tables):
    """No table with an interval, or with a row of numbers, stands outside of the markers."""
    for page in tables.PAGES:
        text = tables.TABLE.sub("", page.read_text(encoding="utf-8"))
        rows = [line for line in text.splitlines() if line.startswith("|")]
        left = [row for row in rows if re.match(r"\|.*\d \[[\d.]+, [\d.]+\]", row)]
        left += [row for row in rows if sum(map(is_number, row.split("|")[2:-1])) > 1]
        assert not left, f"{page.name}: {left[0]}"


def is_number(cell):
    return bool(NUMBER.fullmatch(cell.strip()))


def test_benchmark_becomes_methods_by_levels(tables, stored):
    marker = "table: snr\nmetric: localization_error\nlast: nemd\n"
    assert tables.render(marker, stored) == (
        "| method | 0 dB | 10 dB | nEMD |\n| --- | --- | --- | --- |\n"
        "| a | 20.0 [10.0, 40.0] | 10.0 [5.0, 20.0] | .125 / .125 |\n"
        "| b, c | 80.0 [40.0, 160.0] | 40.0 [20.0, 80.0] | .500 / .500 |\n"
    )


def test_rows_columns_and_what_is_shown_can_be_chosen(tables, stored):
    marker = (
        "table: [snr]\nmetric: localization_error\nbeside: nemd\ncolumns: [{later: 10 dB}]\n"
        "corner: mm\nrows:\n  - {second: 'b, c'}\n  - a\n"
    )
    assert tables.render(marker, stored) == (
        "| mm | later |\n| --- | --- |\n| second | 40.0 [20.0, 80.0] .50 |\n"
        "| a | 10.0 [5.0, 20.0] .12 |\n"
    )
    ratio = "table: snr\nmetric: localization_error\nshow: ratio\nto: a\nrows: ['b, c']\n"
    assert "| b, c | 4.00 | 4.00 |" in tables.render(ratio, stored)
    median = "table: snr\nmetric: nemd\nshow: median\nrows: [a]\n"
    assert "| a | 0.250 | 0.250 |" in tables.render(median, stored)


def test_levels_of_an_axis_are_columns(tables, tmp_path):
    lines = [
        line("a", snr_db, "nemd", 0.5, axis="montage", level=level)
        for level in ("16", "32")
        for snr_db in (5.0, 20.0)
    ]
    store(tmp_path, "both", lines)
    store(tmp_path, "one", lines[::2])
    header = tables.render("table: both\nmetric: nemd\n", tmp_path).splitlines()[0]
    assert header == "| method | 16, 5 dB | 16, 20 dB | 32, 5 dB | 32, 20 dB |"
    assert tables.render("table: one\nmetric: nemd\n", tmp_path).startswith("| method | 16 | 32 |")


def test_any_other_csv_is_shown_as_it_is(tables, tmp_path):
    store(tmp_path, "plain", [("x", "1", "2"), ("y", "", "4"), ("x", "5", "6")], ("n", "p", "q"))
    assert tables.render("table: plain\n", tmp_path).endswith(
        "| x | 1 | 2 |\n| y |  | 4 |\n| x | 5 | 6 |\n"
    )
    assert tables.render("table: plain\nrows: [x]\ncolumns: [n, q]\n", tmp_path) == (
        "| n | q |\n| --- | --- |\n| x | 2 |\n| x | 6 |\n"
    )


def test_what_is_not_there_is_said(tables, stored):
    with pytest.raises(FileNotFoundError, match="there is no .*other.csv. Stored results: snr"):
        tables.render("table: other\n", stored)
    with pytest.raises(ValueError, match=r"no method 'd' in snr, expected some of a, b, c"):
        tables.render("table: snr\nmetric: nemd\nrows: [d]\n", stored)
    with pytest.raises(ValueError, match="no column '5 dB' in snr, expected some of 0 dB, 10 dB"):
        tables.render("table: snr\nmetric: nemd\ncolumns: [5 dB]\n", stored)
    with pytest.raises(ValueError, match="unknown metrik in a table, expected some of table, me"):
        tables.render("table: snr\nmetrik: nemd\n", stored)
    with pytest.raises(ValueError, match="no metric 'nmed' in a table. Nearest: .*nemd"):
        tables.render("table: snr\nmetric: nmed\n", stored)
    (stored / "snr.yaml").write_text("command: x\nseed: 0\n")
    with pytest.raises(ValueError, match="snr.yaml lacks commit, date, cores"):
        tables.render("table: snr\nmetric: nemd\n", stored)


def test_page_is_rewritten_between_its_markers_only(tables, stored):
    page = "a\n<!-- table: snr\nmetric: nemd\nrows: [a]\n-->\nold\n<!-- end -->\nb\n"
    new = tables.rewritten(page, stored)
    assert new.startswith("a\n<!-- table: snr\nmetric: nemd\nrows: [a]\n-->\n| method | 0 dB")
    assert new.endswith("|\n<!-- end -->\nb\n")
    assert "old" not in new
    assert tables.rewritten(new, stored) == new


def test_results_of_a_run_are_kept_with_where_they_are_from(tables, stored, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "benchmark.csv").write_bytes((stored / "snr.csv").read_bytes())
    with pytest.raises(FileNotFoundError, match="no .*leaderboard.csv. Give the run directory"):
        tables.keep(run, "new", stored)
    (run / "leaderboard.csv").write_text(
        "method,seed,version,commit,command\na,3,0.1.0,abc,python evaluate.py\n"
    )
    tables.keep(run, "new", stored)
    facts = yaml.safe_load((stored / "new.yaml").read_text())
    assert (facts["command"], facts["commit"], facts["seed"]) == ("python evaluate.py", "abc", 3)
    assert tables.render("table: new\nmetric: nemd\n", stored).count("\n") == 4


def test_check_says_what_would_change(tables, stored, monkeypatch, capsys):
    page = stored / "page.md"
    page.write_text("<!-- table: snr\nmetric: nemd\n-->\n<!-- end -->\n")
    monkeypatch.setattr(tables, "PAGES", (page,))
    monkeypatch.setattr(
        tables, "rewritten", lambda text, write=tables.rewritten: write(text, stored)
    )
    assert tables.main(["--check"]) == 1
    assert "would change: page.md" in capsys.readouterr().out
    assert tables.main([]) == 0
    assert "written: page.md" in capsys.readouterr().out
    assert tables.main(["--check"]) == 0
    assert "every table is as stored" in capsys.readouterr().out
