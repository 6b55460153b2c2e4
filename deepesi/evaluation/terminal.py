"""Tables in a terminal of any width: numbers are never folded, and nothing is cut."""

import re
import textwrap
from collections.abc import Callable, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deepesi.evaluation.benchmark import Row
from deepesi.evaluation.intervals import MIN_EXAMPLES
from deepesi.evaluation.table import RULE, Layout, layout
from deepesi.metrics.table import IN_TABLES, METRICS

#: The interval in a cell, with the space before it.
INTERVAL = re.compile(r" \[([-+.,\d ]+)\]")
NO_INTERVALS = f"No intervals here: fewer than {MIN_EXAMPLES} examples, or all alike."
#: Columns of a terminal that the longest title of a metric takes.
TITLE = max(len(METRICS[metric].title) for metric in IN_TABLES)
#: Columns of a terminal that a name always gets.
NARROWEST = 12


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """Print one scenario; bold as `layout` marks it."""
    print_layout(console, layout(rows), rows[0].scenario, RULE)


def print_layout(console: Console, table: Layout, title: str, caption: str) -> None:
    """Print a table with a column ``method`` so that nothing is cut.

    Where the terminal is too narrow for ``mean [low, high]``, the interval stands below its mean
    and names are folded; where it is too narrow for that, every line becomes a list.
    """
    cells = [text for line in table.lines for text, _ in line]
    intervals = [ends for text in cells for ends in INTERVAL.findall(text)]
    if intervals and not any(", " in ends for ends in intervals):
        table = _changed(table, lambda text: INTERVAL.sub("", text))
        caption += f" {NO_INTERVALS}"
    longest = max(len(line[table.header.index("method")][0]) for line in table.lines)
    wide = _terminal(table, longest, title, caption, padding=1)
    if _width(wide) <= console.width:
        console.print(wide)
        return
    stacked = _changed(table, _stacked)
    below = "" if stacked == table else " The interval stands below its mean."
    too_wide = _width(_terminal(stacked, longest, title, "", padding=0)) - console.width
    for_names = max(NARROWEST, longest - too_wide)
    narrow = _terminal(stacked, for_names, title, caption + below, padding=0)
    console.print(narrow if _width(narrow) <= console.width else _listed(table, title, caption))


def _changed(table: Layout, change: Callable[[str], str]) -> Layout:
    lines = [[(change(text), best) for text, best in line] for line in table.lines]
    return Layout(table.header, lines)


def _stacked(text: str) -> str:
    """``mean [low, high]`` in two lines: ``mean``, ``low–high`` below it."""
    interval = INTERVAL.search(text)
    ends = interval[1].replace(", ", "–") if interval else ""
    return f"{INTERVAL.sub('', text)}\n{ends}" if interval else text


def _listed(table: Layout, title: str, caption: str) -> Text:
    """Every line of a table as a list, for a terminal that no table fits into."""
    parts = [(f"{title}\n", "bold")]
    n_where = table.header.index("method")
    for line in table.lines:
        named = [f"{h} {text}" for h, (text, _) in zip(table.header, line[:n_where], strict=False)]
        parts.append((f"\n{', '.join([*named, line[n_where][0]])}\n", ""))
        for head, (text, best) in list(zip(table.header, line, strict=True))[n_where + 1 :]:
            parts += [(f"  {head} ", ""), (f"{text}\n", "bold" if best else "")]
    return Text.assemble(*parts, f"\n{caption}")


def _width(table: Table) -> int:
    return Console(width=10_000).measure(table).maximum


def _terminal(layout: Layout, for_names: int, title: str, caption: str, padding: int) -> Table:
    """The table with names of so many columns."""
    header, lines = layout
    table = Table(
        title=Text(title),
        caption=Text(caption),
        box=SIMPLE,
        padding=(0, padding),
        show_edge=False,
    )
    n_where = header.index("method")
    for number, heading in enumerate(header):
        own = max(len(part) for line in lines for part in line[number][0].split("\n"))
        least = max(own, *map(len, heading.split()), TITLE * (number > n_where))
        kind = "left" if number == n_where else "right"
        table.add_column(_folded(heading, least), justify=kind, no_wrap=True)
    previous = None
    for line in lines:
        where = line[:n_where]
        if previous not in (None, where):
            table.add_section()
        previous = where
        cells = [*where, (_folded(line[n_where][0], for_names), False), *line[n_where + 1 :]]
        table.add_row(*(Text(text, style="bold" if best else "") for text, best in cells))
    return table


def _folded(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))
