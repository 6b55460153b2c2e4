"""Checks that every DOI and arXiv number of the repository exists: ``python docs/sources.py``.

Docstrings name sources as ``doi:10...`` and ``arXiv:...``, which ``sphinx-build -b linkcheck`` does
not see, because they are no links. It needs the network; a test checks their form without it.
"""

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
#: Where sources are named.
FILES = ("*.md", "*.cff", "deepesi/**/*.py", "deepesi/**/*.md", "docs/*.md", "docs/decisions/*.md")
FILES += ("benchmarks/*.py", "examples/*.py")
NAMED = re.compile(r"\b(doi|arxiv)(?::|\.org/(?:abs/)?)\s?([^\s<>\"'`\]]+)", re.IGNORECASE)
FORM = {
    "doi": re.compile(r"10\.\d{4,9}/[\w.()/:-]+"),
    "arxiv": re.compile(r"\d{4}\.\d{4,5}"),
}
#: Where a number is asked for.
SERVERS = {"doi": "https://doi.org/api/handles/", "arxiv": "https://arxiv.org/abs/"}


def sources() -> Iterator[tuple[Path, str, str]]:
    """Every file that names a source, the kind of the number and the number."""
    for pattern in FILES:
        for path in sorted(ROOT.glob(pattern)):
            for kind, text in NAMED.findall(path.read_text(encoding="utf-8")):
                yield path.relative_to(ROOT), kind.lower(), number_in(text)


def number_in(text: str) -> str:
    """The number without the punctuation of the sentence around it."""
    number = text.rstrip(".,;:*|")
    while number.endswith(")") and number.count(")") > number.count("("):
        number = number[:-1].rstrip(".,;:*|")
    return number


def malformed() -> list[str]:
    """Numbers that cannot exist, with the file that names them."""
    return [
        f"{path}: {kind}:{number}"
        for path, kind, number in sources()
        if not FORM[kind].fullmatch(number)
    ]


def exists(kind: str, number: str) -> bool | None:
    """Whether the server of a kind of number knows one; None: it gave no answer."""
    address, headers = SERVERS[kind] + quote(number), {"User-Agent": "deepesi"}
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 # `SERVERS` alone
    try:
        with urllib.request.urlopen(request, timeout=30):  # noqa: S310 # `SERVERS` alone
            return True
    except urllib.error.HTTPError as error:
        return False if error.code == 404 else None
    except OSError:
        return None


def main() -> int:
    """Ask for every number once, and print those that are unknown."""
    named = {(kind, number): path for path, kind, number in sources()}
    answers = {key: exists(*key) for key in named}
    for (kind, number), known in answers.items():
        if not known:
            what = "no answer for" if known is None else "unknown:"
            print(f"{named[kind, number]}: {what} {kind}:{number}")
    print(f"{sum(known is True for known in answers.values())} of {len(answers)} sources exist.")
    return int(False in answers.values())


if __name__ == "__main__":
    sys.exit(main())
