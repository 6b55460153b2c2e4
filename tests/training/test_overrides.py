"""Paths with any characters in overrides: typed without quotes, or printed to be typed again."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from deepesi.training.overrides import add_quotes, typed

PATHS = [
    "outputs/lr=1e-3,seed=2/0/checkpoints/last.ckpt",
    "run [1]/last.ckpt",
    "a b/c",
    "~/runs/x",
    "it's/x",
    'say "x"',
    "a(1)/b",
    "ä/b",
    r"C:\runs\a",
    "a#b",
    "a&b;c",
    "{x}",
    "1.5",
    "null",
    "2026-01-01_10-00-00",
    " a ",
    "outputs/plain/last.ckpt",
    "a\\",
    "true",
    "*",
    "a:b",
]


def value(override: str):
    (parsed,) = OverridesParser.create().parse_overrides([override])
    assert not parsed.is_sweep_override()
    return parsed.value()


@pytest.mark.parametrize("path", PATHS)
def test_what_is_printed_is_read_back(path):
    (word,) = shlex.split(typed("ckpt", path))
    assert value(word) == path
    (word,) = shlex.split(typed("models", [path, "b.onnx"]))
    assert value(word) == [path, "b.onnx"]


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_any_text_is_read_back(path):
    if "${" in path:  # an interpolation, in quotes as well
        return
    (word,) = shlex.split(typed("ckpt", path))
    assert value(word) == path


@pytest.mark.parametrize(
    "path",
    ["lr=1e-3/0/last.ckpt", "run [1]/last.ckpt", "~x/y", "it's/x", "a(1)/b", "ä/b", "a#b", "{x}"],
)
def test_quotes_that_were_forgotten(path):
    assert value(add_quotes([f"ckpt={path}"])[0]) == path
    assert value(add_quotes([f"models=[{path},b.onnx]"])[0]) == [path, "b.onnx"]
    assert value(add_quotes([f"+hydra.run.dir={path}"])[0]) == path


@pytest.mark.parametrize("name", ["lr=1e-3,seed=2", "run [a, b], 2", "it's, 'this'", "a,b,c"])
def test_comma_in_the_name_of_a_file_that_exists(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    assert value(add_quotes([f"init_from={folder}"])[0]) == str(folder)
    listed = add_quotes([f"models=[{folder}, b.onnx,{folder},a]"])[0]
    assert value(listed) == [str(folder), "b.onnx", str(folder), "a"]


def test_home_is_what_the_shell_makes_of_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a b")
    given = ["ckpt=~/x/last.ckpt", "models=[~/m.onnx,default]", "init_from=~y/x", "a='~/x'"]
    read = [value(override) for override in add_quotes(given)]
    assert read == ["/home/a b/x/last.ckpt", ["/home/a b/m.onnx", "default"], "~y/x", "~/x"]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1,2",
        "model=convdip,gnn",
        "models=[a.onnx,b]",
        "ckpt=null",
        "a=[1,[2,3]]",
        "-m",
        "data.artifacts=[{_target_: a.B}]",
        "~logger",
        "+a={b:1,c:[2]}",
        "ckpt='a=b'",
        "x=range(1,3)",
        "hydra/launcher=submitit_local",
        "a=${b}/c",
    ],
)
def test_what_hydra_reads_stays_as_it_is(override):
    assert add_quotes([override]) == [override]


@pytest.mark.parametrize("override", ["models=[a", "a={b", "seed"])
def test_what_nothing_reads_is_left_to_hydra(override):
    with_quotes = add_quotes([override])[0]
    assert with_quotes == override or value(with_quotes) == override.partition("=")[2]
