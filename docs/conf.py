"""Settings of the site: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

import api_reference  # noqa: E402
import live_demo  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402

from deepesi import __version__  # noqa: E402

project, author, release = "deepesi", "The deepesi developers", __version__
copyright = author
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
#: ``README.md`` is the table of contents on GitHub; ``guide.md`` shows it on the site.
exclude_patterns = ["_build", "README.md", "**/README.txt"]
default_role = "py:obj"
nitpicky = False

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "html_image"]
autosummary_generate = False
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

html_theme = "pydata_sphinx_theme"
html_title = "deepesi"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = False
html_sidebars = {"index": [], "about": [], "demo": []}
html_theme_options = {
    "logo": {"text": "deepesi"},
    "navbar_align": "left",
    "navbar_center": ["navbar-nav"],
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": False,
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "plot_gallery": True,
    "matplotlib_animations": False,
    "ignore_repr_types": r"matplotlib\.|'list'",  # what a last line draws
}
linkcheck_timeout, linkcheck_retries, linkcheck_anchors = 30, 2, False
# Publishers refuse robots; `docs/sources.py` asks doi.org itself.
linkcheck_ignore = [r"https://doi\.org/"]
# What libraries say about themselves is no part of a page.
warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|lightning|onnxscript)\b")

#: Pages of the repository that lie elsewhere on the site.
PLACES = {
    DOCS / "README.md": "/guide.md",
    DOCS / "decisions": "/decisions/index.rst",
    DOCS.parent / "CONTRIBUTING.md": "/contributing.md",
    DOCS.parent / "CHANGELOG.md": "/changelog.md",
}
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")
INCLUDED = re.compile(r"^% include (\S+)(?: from `(.*)` to `(.*)`)?$", re.MULTILINE)


def site_links(text: str, folder: Path) -> str:
    """Markdown of a file in `folder`, with its links as the site needs them.

    A script of ``examples`` is a page of the gallery. A link to a file that the site does not have
    becomes plain text.
    """

    def link(match: re.Match[str]) -> str:
        words, target, anchor = match[1], (folder / match[2]).resolve(), match[3] or ""
        place = PLACES.get(target)
        if place is None and target.is_relative_to(DOCS):
            place = f"/{target.relative_to(DOCS)}"
        elif target.parent == DOCS.parent / "examples" and target.suffix == ".py":
            place = f"/auto_examples/{target.stem}.rst"
        return f"[{words}]({place}{anchor})" if place else words

    return re.sub(r'<a id="([\w-]+)"></a>', r"(\1)=", LINK.sub(link, text))


def read_page(app: Sphinx, name: str, content: list[str]) -> None:
    """Put in what a page includes from the repository, and adapt links."""
    path = Path(app.env.doc2path(name))
    if path.suffix != ".md":
        return

    def included(match: re.Match[str]) -> str:
        source = (path.parent / match[1]).resolve()
        app.env.note_dependency(str(source))
        text = source.read_text(encoding="utf-8")
        if match[2]:
            text = text.split(match[2], 1)[1].split(match[3], 1)[0]
        return site_links(text, source.parent)

    content[0] = INCLUDED.sub(included, site_links(content[0], path.parent))


def skip_alias(_: Sphinx, __: str, ___: str, member: Any, skip: bool, ____: Any) -> bool | None:
    """Leave out the fields of named tuples that Python describes by their number."""
    return True if str(member.__doc__).startswith("Alias for field number") else None


def write_demo(app: Sphinx, problem: Exception | None) -> None:
    """Put the page in which a network runs beside the others."""
    if problem is None and app.builder.format == "html":
        live_demo.write(Path(app.outdir))


def setup(app: Sphinx) -> None:
    """Write the pages of the API, adapt links while pages are read, and add the demo."""
    api_reference.write(DOCS / "api")
    app.connect("source-read", read_page)
    app.connect("autodoc-skip-member", skip_alias)
    app.connect("build-finished", write_demo)
