"""A self-contained HTML page of figures."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from deepesi.physics.files import atomic

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1600px; margin: 2em auto;
       padding: 0 1em; color: #222; background: #fff }
h2 { margin: 1.5em 0 0.3em; padding-top: 0.6em; border-top: 1px solid #ddd }
img { max-width: 100% }
th { text-align: left; padding-right: 1.5em; vertical-align: top }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto; font-size: 13px }
.note { background: #fff4d6; padding: 0.5em 1em }
"""


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()


def picture(content: bytes, text: str) -> str:
    """HTML of a PNG, embedded, with the text that stands for it where it cannot be seen."""
    source = base64.b64encode(content).decode()
    return f"<img src='data:image/png;base64,{source}' alt='{html.escape(text, quote=True)}'>"


def write_page(
    path: Path,
    title: str,
    facts: Mapping[str, str],
    notes: Sequence[str],
    sections: Mapping[str, str],
) -> None:
    """Write a page, whole or not at all.

    Args:
        path: ``.html`` file.
        title: Heading.
        facts: Table at the top, name to text.
        notes: What the reader must know.
        sections: Heading to HTML.

    """
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in facts.items()
    )
    lines = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1><table>{rows}</table>",
        *(f"<p class='note'>{html.escape(note)}</p>" for note in notes),
        *(f"<h2>{html.escape(name)}</h2>\n{content}" for name, content in sections.items()),
        "</body></html>",
    ]
    with atomic(path) as partial:
        partial.write_text("\n".join(lines), encoding="utf-8")
