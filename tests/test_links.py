"""Links and pictures of the Markdown files lead somewhere, and the index lists every page."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.docs_modules import docs_module

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", ".github/**/*.md", "docs/*.md", "docs/decisions/*.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)|<img [^>]*src=\"(?!\w+:)([^\"]+)\"")


#: Folders that building the site writes; the slow test of tests/test_site.py checks links to them.
GENERATED = ("auto_examples/", "api/")


def anchors(text: str) -> set[str]:
    """Anchors that GitHub makes from the headings of a page, and explicit anchors."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    headings = (re.sub(r"[^\w\- ]", "", h.lower()) for h in re.findall(r"^#+ (.*)$", text, re.M))
    return {h.strip().replace(" ", "-") for h in headings} | set(re.findall(r'<a id="(.*?)"', text))


def broken(page: Path) -> list[str]:
    """Links of a page that lead to no file, or to no heading of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = []
    for link in (m[1] or m[2] for m in LINK.finditer(text)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if page.parent == DOCS and path.startswith(GENERATED):
            continue
        known = target.exists() and (
            not anchor or anchor in anchors(target.read_text(encoding="utf-8"))
        )
        found += [] if known else [link]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "other.md").write_text("# Names, units and *formats*\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#names-units-and-formats) [b](https://x.y) [c](none.md) [d](other.md#none)\n"
        '<img src="none.png">\n```\n[e](f)\n```\n'
    )
    assert broken(page) == ["none.md", "other.md#none", "none.png"]


def test_index_lists_every_page():
    listed = set(re.findall(r"^\| \[[\w ]+\]\((\w+\.md)\)", (DOCS / "README.md").read_text(), re.M))
    of_the_site = {"README.md", "index.md", "guide.md", "changelog.md", "contributing.md"}
    assert listed == {page.name for page in DOCS.glob("*.md")} - of_the_site


def test_pictures_are_shown_and_small():
    pictures = list((DOCS / "pictures").iterdir())
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert all(f"pictures/{picture.name}" in shown for picture in pictures)
    assert sum(picture.stat().st_size for picture in pictures) < 500_000


@pytest.fixture(scope="module")
def sources():
    return docs_module("sources")


def test_numbers_of_sources_have_their_form(sources):
    """Whether they exist is asked online: `python docs/sources.py`, every night."""
    found = {(kind, number) for _, kind, number in sources.sources()}
    assert {("doi", "10.1109/10.623056"), ("arxiv", "1810.03292")} <= found
    assert len(found) > 100
    assert sources.malformed() == []
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text()
    assert "python docs/sources.py" in nightly
    assert "-b linkcheck" in nightly


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10.1016/S1388-2457(00)00527-7);", "10.1016/S1388-2457(00)00527-7"),
        ("10.1109/10.623056.", "10.1109/10.623056"),
        ("10.1214/aos/1015957395).", "10.1214/aos/1015957395"),
    ],
)
def test_punctuation_is_no_part_of_a_number(sources, text, number):
    assert sources.number_in(text) == number


class Server(BaseHTTPRequestHandler):
    """Knows one number."""

    def do_GET(self):
        self.send_response({"/10.1/known": 200, "/10.1/busy": 503}.get(self.path, 404))
        self.end_headers()

    def log_message(self, *words):
        pass


def test_unknown_sources_are_found(sources, monkeypatch, capsys):
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(sources, "SERVERS", {"doi": address})
    named = [(Path("a.md"), "doi", f"10.1/{name}") for name in ("known", "busy", "none")]
    monkeypatch.setattr(sources, "sources", lambda: iter(named))
    try:
        assert sources.main() == 1
    finally:
        server.shutdown()
        server.server_close()
    assert capsys.readouterr().out.splitlines() == [
        "a.md: no answer for doi:10.1/busy",
        "a.md: unknown: doi:10.1/none",
        "1 of 3 sources exist.",
    ]
