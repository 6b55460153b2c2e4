"""Commands that the Markdown files of this repository show, as lists of words."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    if path.is_file()
)
#: What a block of commands, or a command in a sentence, begins with.
PROGRAMS = ("deepesi", "python", "pytest", "pip", "srun", "train.py", "evaluate.py", "sphinx-build")
#: Lines of the shell around commands.
SHELL = (
    "export",
    "if",
    "fi",
    ".",
    "source",
    "pre-commit",
    ".ci/run",
    ".ci/oldest",
    ".ci/slow",
    "cd",
    "git",
)


class Command(NamedTuple):
    """A command as it is documented.

    Attributes:
        where: File and line.
        words: Of the command, without what the shell has to do with it.
        inline: Whether it stands in a sentence, where it may be no more than a name.

    """

    where: str
    words: tuple[str, ...]
    inline: bool


def documented(path: Path) -> list[Command]:
    """All commands of a Markdown file, in blocks and in sentences."""
    text, found = path.read_text(), list[Command]()
    blocks = list(re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for block in blocks:
        if block[1] in ("", "bash", "sh", "console") and is_of_commands(block[2]):
            found += [Command(where(path, block.start(2)), w, False) for w in lines(block[2])]
    sentences = re.sub(
        r"^```.*?^```", lambda m: "\n" * m[0].count("\n"), text, flags=re.M | re.DOTALL
    )
    for span in re.finditer(r"(?<!`)`([^`]+)`(?!`)", sentences):
        words = span[1].split()
        if words[0] in PROGRAMS and (len(words) > 1 or words[0] not in ("deepesi", "python")):
            line = sentences.count("\n", 0, span.start()) + 1
            found += [
                Command(f"{path.relative_to(ROOT)}:{line}", w, True)
                for w in alternatives(" ".join(words))
            ]
    return found


def where(path: Path, offset: int) -> str:
    return f"{path.relative_to(ROOT)}:{path.read_text().count(chr(10), 0, offset) + 1}"


def is_of_commands(block: str) -> bool:
    return any(line.split()[:1] and line.split()[0] in PROGRAMS for line in block.splitlines())


def lines(block: str) -> list[tuple[str, ...]]:
    """Commands of a block: continued lines joined, comments and what is the shell's taken out."""
    found = []
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            one, words = words[:end], words[end + 1 :]
            if one and one[0] == "srun":
                one = one[1:]
            if one and one[0] not in SHELL and one != ["python", "-m", "venv", ".venv"]:
                found.append(tuple(one))
    return found


def alternatives(text: str) -> list[tuple[str, ...]]:
    """``deepesi a|b`` is two commands; dots stand for what the sentence does not say."""
    words = [word for word in shlex.split(text) if word != "..."]
    split = next((i for i, word in enumerate(words) if "|" in word), None)
    if split is None:
        return [tuple(words)]
    return [(*words[:split], word, *words[split + 1 :]) for word in words[split].split("|")]
