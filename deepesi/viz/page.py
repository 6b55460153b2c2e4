"""HTML pages: facts, tables and figures in one file without external resources."""

import base64
import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from deepesi.utils.files import atomic

#: Resolution of figures, dots per inch, and dots per pixel of the page.
DPI, DENSITY = 150, 1.5
#: Smallest width of a figure on a narrow screen, as a share of the full width.
MIN_WIDTH = 0.8
STYLE = """
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 1.5em auto;
       padding: 0 1em; color: #222; background: #fff; overflow-wrap: break-word }
h1 { font-size: 1.7em; line-height: 1.2 }
h2 { margin: 1.6em 0 0.4em; padding-top: 0.7em; border-top: 1px solid #ddd; font-size: 1.3em }
h3 { margin: 1.3em 0 0.3em; font-size: 1.05em }
nav { columns: 16em; margin: 1em 0; padding: 0.6em 1em; background: #f6f6f6 }
nav a { display: block }
a { color: #05568f }
.scroll { overflow-x: auto; margin: 0.6em 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: 0.15em 1em 0.15em 0; text-align: left; vertical-align: top }
.data { font-size: 0.88em }
.data td, .data th { white-space: nowrap; padding-right: 0.75em; border-bottom: 1px solid #e8e8e8 }
.data th { border-bottom: 2px solid #bbb; vertical-align: bottom; white-space: normal }
.data button { font: inherit; font-weight: 600; color: inherit; text-align: left; padding: 0;
               border: 0; background: none; cursor: pointer }
.data button::after { content: " ↕"; color: #999 }
.data [aria-sort=ascending] button::after { content: " ↑"; color: #222 }
.data [aria-sort=descending] button::after { content: " ↓"; color: #222 }
.data .long { white-space: normal; min-width: 15em }
.shaded td { background: #fde8e4 }
.facts { width: 100% }
.facts th { min-width: 11em; font-weight: 600 }
.facts td { width: 100%; overflow-wrap: anywhere }
img { display: block; max-width: 100%; height: auto }
figure { margin: 0.8em 0 }
figcaption, .small { font-size: 0.88em; color: #444 }
.tiles { display: flex; flex-wrap: wrap; gap: 0.4em 1em }
.tiles figure { flex: 0 1 auto; margin: 0.3em 0 }
.key { display: flex; flex-wrap: wrap; gap: 0.1em 1.4em; margin: 0.4em 0; padding: 0;
       list-style: none; font-size: 0.92em }
.key svg { vertical-align: middle; margin-right: 0.4em }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 13px }
.note { background: #fff4d6; padding: 0.5em 1em }
@media (max-width: 640px) {
  body { font-size: 15px }
  .facts th, .facts td { display: block; padding-right: 0 }
  .facts th { padding-top: 0.5em; white-space: normal }
  .data .word { white-space: normal; min-width: 8em }
}
"""
#: A click on a heading sorts by this column, a second click reverses the order.
SORT = """
const value = row => {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace(/,(?=\\d{3})/g, "").replace("−", "-"));
  return isNaN(number) || /[a-z]{2}/i.test(text) ? text : number;
};
let column = 0;
for (const button of document.querySelectorAll(".data th button")) button.onclick = () => {
  const heading = button.parentNode, body = heading.closest("table").tBodies[0];
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  column = heading.cellIndex;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return typeof x === "number" ? x - y : x.localeCompare(y);
  });
  body.append(...(down ? rows.reverse() : rows));
};
"""


def png(figure: Figure) -> bytes:
    """Content of the PNG file of a figure."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI)
    return stream.getvalue()


def picture(content: bytes, text: str) -> str:
    """HTML of an embedded PNG with an alternative text.

    On a narrow screen a wide figure scrolls sideways instead of becoming too small to read.
    """
    source, alt = base64.b64encode(content).decode(), html.escape(text, quote=True)
    width = round(int.from_bytes(content[16:20], "big") / DENSITY)
    return (
        f"<div class='scroll'><img src='data:image/png;base64,{source}' width='{width}' "
        f"style='min-width:{round(MIN_WIDTH * width)}px' alt='{alt}'></div>"
    )


def tiles(figures: Iterable[tuple[str, Figure]], width: int) -> str:
    """HTML of small figures with captions, side by side.

    Args:
        figures: Captions and figures.
        width: Width of a figure on the page, pixels. 340 or less fits a phone.

    """
    parts = []
    for caption, figure in figures:
        source = base64.b64encode(png(figure)).decode()
        text = html.escape(caption, quote=True)
        parts.append(
            f"<figure style='width:{width}px'><img src='data:image/png;base64,{source}' "
            f"width='{width}' alt='{text}'><figcaption>{text}</figcaption></figure>"
        )
    return f"<div class='tiles'>{''.join(parts)}</div>"


def key(styles: Mapping[str, tuple[str, str]]) -> str:
    """HTML legend of curves. `styles` maps a name to colour and line style of matplotlib."""
    dashes = {"-": "none", "--": "6 3", ":": "2 2", "-.": "6 2 2 2"}
    lines = "".join(
        f"<li><svg width='30' height='8'><line x1='0' y1='4' x2='30' y2='4' stroke='{colour}' "
        f"stroke-width='2.5' stroke-dasharray='{dashes[line]}'/></svg>{html.escape(name)}</li>"
        for name, (colour, line) in styles.items()
    )
    return f"<ul class='key'>{lines}</ul>"


def html_table(
    header: Sequence[str],
    lines: Sequence[Sequence[tuple[str, bool]]],
    shaded: Sequence[bool] = (),
    long: Sequence[str] = (),
) -> str:
    """HTML table that can be sorted by clicks on the headings and scrolls sideways.

    Args:
        header: Titles of the columns.
        lines: Rows of cells ``(text, is bold)``.
        shaded: Whether each row has a background colour. Default: no row.
        long: Titles of columns with wrapped text.

    """
    head = "".join(
        f"<th scope='col'><button type='button'>{html.escape(title)}</button></th>"
        for title in header
    )
    marks = shaded or [False] * len(lines)
    body = "".join(
        f"<tr{' class=shaded' if mark else ''}>"
        + "".join(_cell(*cell, title in long) for cell, title in zip(line, header, strict=True))
        + "</tr>"
        for line, mark in zip(lines, marks, strict=True)
    )
    return (
        f"<div class='scroll' tabindex='0'><table class='data'><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, is_bold: bool, is_long: bool) -> str:
    is_word = re.search(r"[^\W\d_]", text) is not None
    kind = " class='long'" if is_long else " class='word'" if is_word else ""
    text = html.escape(text)
    return f"<td{kind}>{f'<b>{text}</b>' if is_bold else text}</td>"


def facts_table(facts: Mapping[str, str]) -> str:
    """HTML table with one row per fact; line breaks in the text are kept."""
    lines = "".join(
        f"<tr><th scope='row'>{html.escape(name)}</th>"
        f"<td>{html.escape(text).replace(chr(10), '<br>')}</td></tr>"
        for name, text in facts.items()
    )
    return f"<table class='facts'>{lines}</table>"


def write_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    sections: Mapping[str, str],
    policy: str = "",
) -> None:
    """Write a page atomically.

    Args:
        path: ``.html`` file.
        title: Heading.
        facts: Table at the top, texts by name.
        notes: Highlighted sentences below the table.
        sections: HTML by heading.
        policy: Content security policy: what the browser lets the page load; empty: anything.

    """
    names = {heading: _anchor(heading, n) for n, heading in enumerate(sections)}
    links = "".join(f"<a href='#{a}'>{html.escape(h)}</a>" for h, a in names.items())
    lines = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">' if policy else "",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>{facts_table(facts)}",
        *(f"<p class='note'>{html.escape(note)}</p>" for note in notes),
        f"<nav>{links}</nav>" if len(sections) > 1 else "",
        *(
            f"<h2 id='{names[heading]}'>{html.escape(heading)}</h2>\n{content}"
            for heading, content in sections.items()
        ),
        f"<script>{SORT}</script></body></html>",
    ]
    with atomic(path) as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")


def _anchor(heading: str, number: int) -> str:
    return f"{number + 1}-{re.sub(r'[^a-z0-9]+', '-', heading.lower()).strip('-')}"
