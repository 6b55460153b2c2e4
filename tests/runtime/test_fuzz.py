"""Damaged and unfitting input of every kind: a correct map or one clear error, never another end.

``pytest tests/runtime/test_fuzz.py -s --fuzz 3000`` takes so many inputs of each kind and counts.
"""

import collections
import copy
import json
import subprocess
import sys
from dataclasses import dataclass

import mne
import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepesi.cli.main import main
from deepesi.export.to_onnx import export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.physics.data_check import flat_channels
from deepesi.runtime.contract import DIGEST_KEY, METADATA_KEY
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.protobuf import digest, metadata
from deepesi.runtime.session import open_model
from tests.conftest import make_covariance, make_evoked

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def small(toy, tmp_path_factory):
    """A small network bound to the toy head."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("x") / "small.onnx"
    export_onnx(
        ConvDip(84, height=6, width=6, hidden=8),
        toy.montage_head("biosemi16"),
        path,
        {
            "trained": {
                "n_channels": [8, 64],
                "n_times": [1, 1],
                "sfreq": 250.0,
                "snr_db": [-5.0, 30.0],
                "band_hz": None,
            }
        },
        anatomy=toy.fingerprint,
    )
    return path


@pytest.fixture
def fuzz(request):
    """Runs a check on many inputs and counts how each ended."""
    name, counts = request.node.name, collections.Counter()

    def run(strategy, check):
        @settings(
            max_examples=request.config.getoption("--fuzz"),
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def each(mutation):
            counts[check(mutation)] += 1

        each()
        print(f"\n{name}: {sum(counts.values())} inputs, {dict(counts)}")
        return counts

    return run


@dataclass
class Edit:
    """Bytes of a file put, cut, turned or written over."""

    kind: str
    place: float
    size: int
    seed: int

    def apply(self, content: bytes) -> bytes:
        at = int(self.place * len(content))
        noise = np.random.default_rng(self.seed).bytes(self.size)
        if self.kind == "cut off":
            return content[:at]
        if self.kind == "flip":
            turned = bytearray(content)
            turned[min(at, len(content) - 1)] ^= 1 << self.seed % 8
            return bytes(turned)
        end = {"put in": at, "take out": at + self.size, "write over": at + self.size}[self.kind]
        return content[:at] + (b"" if self.kind == "take out" else noise) + content[end:]


EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["flip", "cut off", "put in", "take out", "write over"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 64),
        st.integers(0, 2**31),
    ),
    min_size=1,
    max_size=4,
)


def edited(content, edits):
    for edit in edits:
        content = edit.apply(content) or b"\0"
    return content


def same(found, expected):
    """Up to the order of sums in single precision, which channels in another order change."""
    return all(
        np.allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())
        for a, b in zip(found, expected, strict=True)
    )


def test_bytes_of_model_files(small, tmp_path, fuzz):
    content, path = small.read_bytes(), tmp_path / "m.onnx"

    def check(edits):
        path.write_bytes(edited(content, edits))
        if path.read_bytes() == content:
            return "unchanged"
        with pytest.raises(ValueError, match=r"m\.onnx: "):
            open_model(path)
        return "refused"

    assert fuzz(EDITS, check)["refused"] > 0


LEAVES = st.none() | st.booleans() | st.integers(-10, 2**40) | st.text(max_size=8)
JSON = st.recursive(
    LEAVES | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(content, prefix=()):
    """Every entry of a JSON document, by its keys."""
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from list(places(value, (*prefix, key)))[:20]


def test_contracts_that_were_signed_anew(small, toy_path, toy, tmp_path, fuzz):
    """Whatever the contract says now, what is estimated is what the graph computes."""
    proto, path = onnx.load(small), tmp_path / "m.onnx"
    text = metadata(small.read_bytes())[METADATA_KEY]
    head, content = toy.montage_head("biosemi16"), json.loads(text)
    frame = np.random.default_rng(0).normal(scale=1e-6, size=(16, 1))
    expected = Inverse.load(small, head=toy_path).prepare_for(head, 1, "x").estimate(frame)
    proto.ClearField("metadata_props")
    graph = proto.SerializeToString()

    def check(mutation):
        where, value, remove = mutation
        changed = copy.deepcopy(content)
        parent = changed
        for key in where[:-1]:
            parent = parent[key]
        if remove:
            del parent[where[-1]]
        else:
            parent[where[-1]] = value
        new = json.dumps(changed)
        onnx.helper.set_model_props(proto, {METADATA_KEY: new, DIGEST_KEY: digest(graph, new)})
        path.write_bytes(proto.SerializeToString())
        try:
            inverse = Inverse.load(path, head=toy_path)
            _ = inverse.template
            found = inverse.prepare_for(head, 1, "x").estimate(frame)
        except (ValueError, FileNotFoundError):
            return "refused"
        assert same(found, expected)
        return "correct map"

    # Every entry of the contract as often, however long it is: those of free text may change.
    entries = {key: [where for where in places(content) if where[0] == key] for key in content}
    anywhere = st.sampled_from(list(entries.values())).flatmap(st.sampled_from)
    counts = fuzz(st.tuples(anywhere, JSON, st.booleans()), check)
    assert counts["refused"] > counts["correct map"] > 0


WORKER = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from pathlib import Path
import numpy as np
from deepesi.runtime.inverse import Inverse
from deepesi.physics.template import load_template
head = load_template(Path(sys.argv[1])).montage_head("biosemi16")
frame = np.random.default_rng(0).normal(scale=1e-6, size=(16, 1))
for name in sys.argv[2:]:
    try:
        found = Inverse.load(name, head=sys.argv[1]).prepare_for(head, 1, "x").estimate(frame)
        print("map" if found[0].shape == (84, 1) else "odd", flush=True)
    except ValueError:
        print("refused", flush=True)
    except MemoryError:
        print("refused", flush=True)
"""


def test_graphs_that_were_signed_anew(small, toy_path, tmp_path, request):
    """Oversized tensors, other operations, other types, missing nodes: in a process of their own.

    Who signs a graph says what is to be computed; it must not take the process down.
    """
    original, text = onnx.load(small), metadata(small.read_bytes())[METADATA_KEY]
    rng, n = np.random.default_rng(0), max(10, request.config.getoption("--fuzz") // 4)
    files = []
    for number in range(n):
        proto = copy.deepcopy(original)
        graph = proto.graph
        for _ in range(rng.integers(1, 3)):
            node = graph.node[rng.integers(len(graph.node))]
            tensor = graph.initializer[rng.integers(len(graph.initializer))]
            match rng.integers(8):
                case 0:
                    tensor.dims[:] = [
                        int(d) * int(rng.choice([0, 2, 1 << 20, 1 << 40])) for d in tensor.dims
                    ]
                case 1:
                    tensor.data_type = int(rng.integers(0, 20))
                case 2:
                    tensor.raw_data = tensor.raw_data[: len(tensor.raw_data) // 2]
                case 3:
                    node.op_type = str(
                        rng.choice(["Loop", "Tile", "ConstantOfShape", "Relu", "Exp", "X"])
                    )
                case 4:
                    graph.node.remove(node)
                case 5:
                    node.input[:] = node.input[::-1]
                case 6:
                    graph.input[rng.integers(len(graph.input))].type.tensor_type.elem_type = 11
                case _:
                    tensor.raw_data = rng.bytes(len(tensor.raw_data))
        proto.ClearField("metadata_props")
        found = digest(proto.SerializeToString(), text)
        onnx.helper.set_model_props(proto, {METADATA_KEY: text, DIGEST_KEY: found})
        files.append(tmp_path / f"{number}.onnx")
        files[-1].write_bytes(proto.SerializeToString())
    ends = collections.Counter()
    left = files
    while left:
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(toy_path), *map(str, left[:100])],
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        lines = done.stdout.split()
        ends.update(lines)
        if len(lines) < len(left[:100]):
            # A tensor of terabytes that was signed; the process has a limit here.
            assert "alloc" in done.stderr, f"{left[len(lines)]}: {done.stderr[-2000:]}"
            ends["out of memory"] += 1
            left = left[1:]
        left = left[len(lines) :]
    print(f"\n{request.node.name}: {n} inputs, {dict(ends)}")
    assert sum(ends.values()) == n
    assert set(ends) <= {"map", "refused", "out of memory"}


def outcome(inverse, path, frame, expected):
    """Result of a prepared head: refused, or the map of the undamaged one."""
    try:
        found = inverse.for_prepared(path).estimate(frame)
    except ValueError:
        return "refused"
    assert same(found, expected)
    return "correct map"


def test_bytes_of_prepared_heads(small, toy_path, toy, tmp_path, fuzz):
    inverse, path = Inverse.load(small, head=toy_path), tmp_path / "head.npz"
    prepared = inverse.prepare_for(toy.montage_head("biosemi16"), 1, "x")
    prepared.save(path)
    content = path.read_bytes()
    frame = np.random.default_rng(0).normal(scale=1e-6, size=(16, 1))
    expected = prepared.estimate(frame)

    def check(edits):
        path.write_bytes(edited(content, edits))
        return outcome(inverse, path, frame, expected)

    assert fuzz(EDITS, check)["refused"] > 0


def test_arrays_of_prepared_heads(small, toy_path, toy, tmp_path, fuzz):
    """Objects, other types, other shapes, NaN, missing and renamed entries."""
    inverse, path = Inverse.load(small, head=toy_path), tmp_path / "head.npz"
    prepared = inverse.prepare_for(toy.montage_head("biosemi16"), 1, "x")
    prepared.save(path)
    with np.load(path, allow_pickle=False) as file:
        content = dict(file)
    frame = np.random.default_rng(0).normal(scale=1e-6, size=(16, 1))
    expected = prepared.estimate(frame)

    def check(mutation):
        key, kind = mutation
        changed = dict(content)
        value = changed.pop(key)
        if kind == "object":
            changed[key] = np.array([{"__reduce__": 1}], dtype=object)
        elif kind == "text":
            changed[key] = np.full(value.shape, "x")
        elif kind == "nan" and value.dtype.kind == "f":
            changed[key] = np.where(np.arange(value.size).reshape(value.shape) == 0, np.nan, value)
        elif kind == "longer":
            changed[key] = np.concatenate([value, value]) if value.ndim else np.stack([value] * 2)
        elif kind == "shorter":
            changed[key] = value[:-1] if value.ndim else value.reshape(1, 1)
        elif kind == "flat":
            changed[key] = value.ravel() if value.ndim > 1 else value.reshape(-1, 1)
        elif kind == "complex":
            changed[key] = value.astype(complex) if value.dtype.kind in "fi" else np.array(1j)
        elif kind == "renamed":
            changed[f"{key}x"] = value
        np.savez(path, allow_pickle=True, **changed)
        return outcome(inverse, path, frame, expected)

    kinds = ["object", "text", "nan", "longer", "shorter", "flat", "complex", "renamed", "missing"]
    strategy = st.tuples(st.sampled_from(sorted(content)), st.sampled_from(kinds))
    assert fuzz(strategy, check)["refused"] > 0


#: What makes a recording another one, or one that cannot be localized.
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "nan",
                "inf",
                "microvolts",
                "nanovolts",
                "flat",
                "two flat",
                "no position",
                "bad",
                "all bad",
                "meg",
                "misc",
                "reference",
                "order",
                "rate",
                "trials",
                "drop",
                "offset",
                "empty",
                "projected",
                "twice the place",
            ]
        ),
        st.integers(0, 31),
    ),
    min_size=1,
    max_size=4,
)
#: Ends with an error whatever else was changed, unless the channel is left out.
FATAL = {"microvolts", "nanovolts", "all bad", "meg", "trials", "empty", "projected"}
OF_A_CHANNEL = {"nan", "inf", "flat", "no position", "twice the place"}


def change(evoked, covariance, kind, number):
    """One change in place; its own channel for what is of a channel."""
    name = evoked.ch_names[number % len(evoked.ch_names)]
    row = evoked.ch_names.index(name)
    if kind == "nan":
        evoked.data[row, 3] = np.nan
    elif kind == "inf":
        evoked.data[row] = np.inf
    elif kind == "microvolts":
        evoked.data *= 1e6
    elif kind == "nanovolts":
        evoked.data *= 1e-3
    elif kind == "flat":
        evoked.data[row] = 3e-6
    elif kind == "two flat":
        evoked.data[[row, row - 1]] = 0
    elif kind == "no position":
        evoked.info["chs"][row]["loc"][:3] = [np.nan, 0][number % 2]
    elif kind == "twice the place":
        evoked.info["chs"][row]["loc"][:3] = evoked.info["chs"][row - 1]["loc"][:3]
    elif kind == "bad":
        evoked.info["bads"] = sorted({*evoked.info["bads"], name})
    elif kind == "all bad":
        evoked.info["bads"] = list(evoked.ch_names)
    elif kind == "meg":
        evoked.set_channel_types(dict.fromkeys(evoked.ch_names, "misc"), verbose="error")
    elif kind == "misc":
        evoked.set_channel_types({name: "misc"}, verbose="error")
    elif kind == "reference":
        evoked.data -= evoked.data[row].copy()
    elif kind == "order":
        evoked.reorder_channels(np.random.default_rng(number).permutation(evoked.ch_names).tolist())
    elif kind == "rate":
        evoked.info._unlocked = True
        evoked.info["sfreq"] = float(10 + 100 * number)
    elif kind == "trials":
        evoked.nave = 4 + 1 + number
    elif kind == "drop":
        evoked.drop_channels([name])
    elif kind == "offset":
        evoked.data += 1e-4
    elif kind == "empty":
        evoked.data[:] = 0
    elif kind == "projected":
        vector = np.eye(len(evoked.ch_names))[row][None]
        data = {
            "nrow": 1,
            "ncol": len(evoked.ch_names),
            "row_names": None,
            "col_names": list(evoked.ch_names),
            "data": vector,
        }
        evoked.add_proj(mne.Projection(active=False, data=data, desc="x", kind=1), verbose="error")
        evoked.apply_proj(verbose="error")


@pytest.mark.filterwarnings("ignore")
def test_recordings(small, toy_path, fuzz):
    """A recording without errors gives the map of its good channels, in any order and reference."""
    inverse = Inverse.load(small, head=toy_path)
    whole = make_evoked()
    covariance = make_covariance(whole.info)

    def check(changes):
        evoked = whole.copy()
        for kind, number in changes:
            if len(evoked.ch_names) > 2:
                try:
                    change(evoked, covariance, kind, number)
                except RuntimeError:  # MNE-Python knows of no channel of this type in a projector
                    return "cannot be"
        try:
            prepared = inverse.for_recording(evoked.info, covariance, nave=4)
            found = prepared.apply(evoked).stc
        except ValueError:
            return "refused"
        kinds = {kind for kind, _ in changes}
        assert not kinds & FATAL
        # The same channels of a recording nothing was done to, but where they say they are: an
        # electrode beside one that is left out cannot be told from one that was put there.
        clean = whole.copy().pick([c for c in whole.ch_names if c in prepared.ch_names])
        for channel in clean.info["chs"]:
            row = evoked.ch_names.index(channel["ch_name"])
            channel["loc"] = evoked.info["chs"][row]["loc"].copy()
        expected = inverse.for_recording(clean.info, covariance, nave=4).apply(clean).stc
        # A channel that is zero throughout may be the reference, or dead; `apply` says so.
        good = evoked.copy().pick(list(prepared.ch_names)).data
        if len(flat_channels(good)) == 1 and not same([found.data], [expected.data]):
            return "zero channel, taken for the reference"
        assert same([found.data], [expected.data])
        return "correct map"

    counts = fuzz(CHANGES, check)
    assert min(counts["refused"], counts["correct map"]) > 0


@pytest.mark.filterwarnings("ignore")
def test_bytes_of_recordings(small, toy_path, tmp_path, fuzz, monkeypatch, capsys):
    """A file of MNE-Python, EDF or BrainVision ends in a map or in one line."""
    monkeypatch.chdir(tmp_path)
    raw = mne.io.RawArray(
        np.random.default_rng(0).normal(scale=2e-6, size=(32, 500)),
        make_evoked().info,
        verbose="error",
    )
    make_covariance(raw.info).save("x-cov.fif", verbose="error")
    make_evoked().save("x-ave.fif", verbose="error")
    raw.save("x_raw.fif", verbose="error")
    mne.export.export_raw("x.edf", raw, verbose="error")
    mne.export.export_raw("x.vhdr", raw, verbose="error")
    contents = {
        n: (tmp_path / n).read_bytes()
        for n in ("x-ave.fif", "x_raw.fif", "x.edf", "x.vhdr", "x-cov.fif")
    }

    def check(mutation):
        name, edits = mutation
        for file, content in contents.items():
            (tmp_path / file).write_bytes(edited(content, edits) if file == name else content)
        recording = "x-ave.fif" if name == "x-cov.fif" else name
        try:
            main(
                [
                    "apply",
                    str(small),
                    recording,
                    "--noise-cov",
                    "x-cov.fif",
                    "--head",
                    str(toy_path),
                    "--out",
                    "out/stc",
                    "--montage",
                    "biosemi32",
                ]
            )
        except SystemExit as error:
            code = error.code
            assert str(code).startswith("deepesi apply: ")
            return "refused, too large" if "MemoryError" in str(code) else "refused"
        finally:
            capsys.readouterr()
        assert np.isfinite(
            mne.read_source_estimate(sorted((tmp_path / "out").glob("*-lh.stc"))[0]).data
        ).all()
        return "map"

    strategy = st.tuples(st.sampled_from(sorted(contents)), EDITS)
    assert fuzz(strategy, check)["refused"] > 0
