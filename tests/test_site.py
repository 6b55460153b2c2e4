"""The site: every page is in it, every public name is documented, and one command builds it."""

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import deepesi
from deepesi.viz.demo import FILES
from tests.docs_modules import docs_module

ROOT = Path(__file__).parents[1]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
#: Folders whose classes a user never meets, or meets through a command.
INTERNAL = {"advice", "api", "configs", "utils", "validation"}


@pytest.fixture(scope="module")
def reference():
    return docs_module("api_reference")


@pytest.fixture(scope="module")
def conf(reference):
    return docs_module("conf")


def public(reference):
    """Every public name with its value."""
    names = [f"deepesi.{name}" for name in deepesi.__all__ if name != "__version__"]
    for room in reference.ROOMS.values():
        for module in reference.modules_of(room):
            names += [f"{module}.{name}" for name in reference.public_names(module, room.functions)]
    return {
        name: getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2])
        for name in names
    }


def undocumented(names):
    """Names without a description of their own, and public methods and properties without one."""
    found = []
    for name, value in names.items():
        found += [] if inspect.getdoc(value) and value.__doc__ else [name]
        protocol = getattr(value, "_is_protocol", False)  # its `Attributes` say what they are
        for member, of_class in vars(value).items() if inspect.isclass(value) else ():
            described = inspect.isfunction(of_class) or isinstance(of_class, property)
            generated = getattr(of_class, "__module__", None) != value.__module__  # by PyG, say
            generated = generated and inspect.isfunction(of_class)
            if described and not protocol and not generated and not member.startswith("_"):
                inherited = inspect.getdoc(getattr(value, member))
                found += [] if inherited else [f"{name}.{member}"]
    return found


def test_every_folder_is_public_or_internal(reference):
    rooms = {m.split(".")[0] for room in reference.ROOMS.values() for m in room.modules}
    folders = {path.parent.name for path in (ROOT / "deepesi").glob("*/__init__.py")}
    assert rooms | INTERNAL == folders
    assert not rooms & INTERNAL


def test_every_public_name_is_documented(reference):
    names = public(reference)
    assert {"deepesi.train", "deepesi.models.convdip.ConvDip"} <= names.keys()
    assert undocumented(names) == []


def test_a_name_without_description_is_found():
    class Described:
        """What it is."""

        def bare(self):
            return None

    def nothing():
        return None

    assert undocumented({"a": Described, "b": nothing}) == ["a.bare", "b"]


def test_the_reference_shows_every_public_name(reference, tmp_path):
    reference.write(tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    shown = re.findall(r"^\.\. auto(?:class|function):: (\S+)$", text, re.M)
    assert sorted(shown) == sorted(public(reference))


def imported_names():
    """Names that the code of the README, of the pages and of the gallery imports."""
    pages = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    code = [
        b for p in pages for b in re.findall(r"^```python\n(.*?)^```", p.read_text(), re.M | re.S)
    ]
    code += [path.read_text() for path in sorted(EXAMPLES.glob("plot_*.py"))]
    return {
        (node.module, alias.name)
        for text in code
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "deepesi"
        for alias in node.names
    }


def test_what_the_pages_import_is_in_the_reference(reference):
    shown = {id(value) for value in public(reference).values()}
    names = imported_names()
    assert len(names) > 50
    lacking = {}
    for module, name in names:
        value = getattr(importlib.import_module(module), name)
        if callable(value) and id(value) not in shown:
            lacking[f"{module}.{name}"] = value
    assert lacking == {}
    assert {
        "deepesi.models.posterior.evidential.Evidential",
        "deepesi.physics.template.load_template",
    } <= public(reference).keys()


def test_every_page_is_on_the_site():
    """In the table of contents of the start page, of the guide or of another page."""
    listed = set()
    for page in (*DOCS.glob("*.md"), *DOCS.glob("*.rst")):
        for tree in re.findall(r"toctree(?:}|::)\n(.*?)(?:^```|\Z)", page.read_text(), re.M | re.S):
            listed |= {line.strip() for line in tree.splitlines() if not line.startswith(":")}
    pages = {path.stem for path in (*DOCS.glob("*.md"), *DOCS.glob("about.rst"))}
    assert pages - listed == {"README", "index"}


def test_links_of_the_repository_become_links_of_the_site(conf):
    text = (
        "[a](data.md#noise) [b](decisions) [c](../tests/plugins/toy) [d](https://x.y) [e](#here) "
        '![f](pictures/curve.png) <a id="old-name"></a> [g](README.md) [h](../CONTRIBUTING.md) '
        "[i](../examples/plot_01_lasso.py)"
    )
    assert conf.site_links(text, DOCS) == (
        "[a](/data.md#noise) [b](/decisions/index.rst) c [d](https://x.y) [e](#here) "
        "![f](pictures/curve.png) (old-name)= [g](/guide.md) [h](/contributing.md) "
        "[i](/auto_examples/plot_01_lasso.rst)"
    )


def test_what_pages_include_is_there(conf):
    """The start page shows parts of the README, between marks."""
    for page in DOCS.glob("*.md"):
        for path, start, end in conf.INCLUDED.findall(page.read_text()):
            text = (DOCS / path).read_text()
            if start:
                assert end in text.split(start, 1)[1]


def test_demo_of_the_site(tmp_path, monkeypatch):
    """The page in which a network runs; without its runtime, what to do."""
    monkeypatch.syspath_prepend(str(DOCS))
    live = importlib.import_module("live_demo")
    without = live.write(tmp_path, tmp_path / "none").read_text()
    assert "npm ci" in without
    runtime = tmp_path / "onnxruntime-web"
    (runtime / "dist").mkdir(parents=True)
    (runtime / "package.json").write_text('{"version": "0"}')
    for name in FILES:
        (runtime / name).write_bytes(b"x")
    page = live.write(tmp_path, runtime)
    assert "10-20-19" in page.read_text()
    assert f'href="{page.name}"' in (DOCS / "demo.rst").read_text()
    nightly = (ROOT / ".github/workflows/nightly.yml").read_text()
    assert nightly.index("npm ci --prefix deepesi/viz/web") < nightly.index("sphinx-build -W")


def build_command() -> list[str]:
    """The command that the README gives."""
    (command,) = re.findall(r"^sphinx-build .*$", (ROOT / "README.md").read_text(), re.M)
    return shlex.split(command)


def test_the_command_allows_no_warning():
    """And the nightly job runs it."""
    command = build_command()
    assert {"-W", "--keep-going"} <= set(command)
    assert command[-2:] == ["docs", "docs/_build/html"]
    assert shlex.join(command) in (ROOT / ".github/workflows/nightly.yml").read_text()


class Page(HTMLParser):
    """Links and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        self.links += [given[key] for key in ("href", "src") if given.get(key)]


def broken_links(folder):
    """Links of the pages in a folder that lead to no file, or to no anchor of a page."""
    own = [path for path in folder.rglob("*.html") if "_static" not in path.parts]  # not a theme's
    pages = {path.resolve(): Page(path) for path in own}
    found = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:|//", link):
                continue
            file, _, anchor = unquote(link).partition("#")
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            known = target.exists() and (
                not anchor or target not in pages or anchor in pages[target].anchors
            )
            found += [] if known else [f"{path.relative_to(folder.resolve())}: {link}"]
    return found


def test_a_broken_link_of_the_site_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#x"></a><a href="b.html#y"></a><p id="z">')
    (tmp_path / "b.html").write_text('<h1 id="x"></h1><img src="c.png"><a href="#"></a>')
    assert sorted(broken_links(tmp_path)) == ["a.html: b.html#y", "b.html: c.png"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_documented_command_builds_the_site(tmp_path):
    """Every page of the gallery runs, nothing warns, and no link inside the site is broken."""
    *command, _ = build_command()
    assert command[0] == "sphinx-build"
    out = tmp_path / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *command[1:], str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert broken_links(out) == []
    for example in EXAMPLES.glob("plot_*.py"):
        page = (out / "auto_examples" / f"{example.stem}.html").read_text()
        assert "sphx-glr-single-img" in page, example.name
    for page in (
        "index",
        "guide",
        "api/index",
        "decisions/index",
        "changelog",
        "questions",
        "live",
    ):
        assert (out / f"{page}.html").is_file()
