"""Memory of estimates: bounded whatever the length of a recording, and said where it is lacking."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.head_inputs import prepare
from deepesi.physics.sensors import average_reference
from deepesi.runtime import session
from deepesi.runtime.packaged import model_path
from deepesi.runtime.session import as_feeds, examples_at_once, open_model

#: Sources of the sample subject's own head, with its spacing.
N_SOURCES = 2034


def finer(head: HeadModel, n_sources: int) -> HeadModel:
    """The head with further sources, halfway between neighbours."""
    ends = head.space.edges[: n_sources - head.space.n_sources]
    number = np.arange(head.space.n_sources, n_sources)
    sides = [*head.space.vertices, head.space.vertices[1].max() + 1 + np.arange(len(ends))]
    vertices = (sides[0], np.concatenate(sides[1:]))
    edges = np.concatenate([head.space.edges, np.stack([ends[:, 0], number], 1)])
    edges = np.concatenate([edges, np.stack([ends[:, 1], number], 1)])
    normals = head.source_normals[ends].sum(1)
    n_channels, n_orient = len(head.leadfield), head.space.n_orient
    columns = head.leadfield.reshape(n_channels, -1, n_orient)
    columns = np.concatenate([columns, columns[:, ends].mean(2)], axis=1)
    return replace(
        head,
        leadfield=columns.reshape(n_channels, -1),
        source_pos=np.r_[head.source_pos, head.source_pos[ends].mean(1)],
        source_normals=np.r_[
            head.source_normals, normals / np.linalg.norm(normals, axis=1, keepdims=True)
        ],
        space=SourceSpace("finer-ico3", vertices, edges, n_orient),
    )


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from deepesi.runtime.inverse import Inverse
from deepesi.physics.template import load_template
from tests.runtime.test_memory import N_SOURCES, finer

def peak():
    status = Path("/proc/self/status").read_text()  # getrusage counts what started it, too
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1e6  # GB

head = finer(load_template("fsaverage-ico3-free").montage_head("biosemi64"), N_SOURCES)
prepared = Inverse.load("default", n_threads=1).prepare_for(head, 1, "test")
noise = np.random.default_rng(0).normal(size=(64, int(sys.argv[1])))
print(peak())
mean, std = prepared.estimate(head.noise_level * noise)
assert mean.shape == std.shape == (3 * N_SOURCES, noise.shape[1])
print(peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")
@pytest.mark.parametrize("n_times", [421, 1263])
def test_an_estimate_stays_below_1_gb(n_times):
    """Memory for an evoked response of 421 samples on 2,034 sources, and of three times that."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(n_times)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split())
    print(f"\n{n_times} samples: {before:.2f} GB before, {after:.2f} GB at the peak")
    assert after < 1.0  # with Python, the libraries and the head


def test_examples_are_computed_a_few_at_a_time(convdip, template, monkeypatch):
    """Batches are split by the size of inputs and samples, and the result is the same."""
    opened = open_model(convdip, 1)
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, template.montage_head("biosemi32"))))
    numbers = sum(values.size for values in feeds.values())
    data = 1e-6 * np.random.default_rng(0).normal(size=(7, 32, 3)).astype(np.float32)
    data = average_reference(data, axis=1)
    together = opened.run(data, feeds)["mean"]
    assert examples_at_once(3, feeds) > 7
    monkeypatch.setattr(session, "AT_ONCE", 4 * 3 * numbers * 2)
    assert examples_at_once(3, feeds) == 2
    assert examples_at_once(6, feeds) == examples_at_once(300, feeds) == 1
    apart = opened.run(data, feeds)["mean"]
    assert apart.shape == (7, 1284, 3)
    assert np.abs(apart - together).max() < 1e-5 * np.abs(together).max()


def test_the_ensemble_is_computed_two_windows_at_a_time(template):
    """Two windows of 20 samples hold as much as memory is meant for; single samples are joined."""
    opened = open_model(model_path("ensemble"), 1)
    feeds = as_feeds(dict(prepare(opened.contract.head_inputs, template.montage_head("biosemi64"))))
    assert examples_at_once(20, feeds) == 2
    assert 16 <= examples_at_once(1, feeds) <= 128


def test_files_open_without_plans_for_memory():
    """Planning took two thirds of the time of opening `ensemble`, and saved no memory."""
    options = open_model(model_path("convdip"), 1).session.get_session_options()
    assert not options.enable_mem_reuse
    assert not options.enable_mem_pattern


LACKING = """
import numpy as np
from deepesi.cli import main as cli
from deepesi.utils import memory
from deepesi.runtime.inverse import Inverse
from deepesi.physics.template import load_template

class Parser:
    command = "apply"
    def parse_known_args(self, argv):
        return self, []
    def run(self, arguments):
        prepared.model.run(eeg, prepared.feeds)

head = load_template().montage_head("biosemi32")
prepared = Inverse.load("convdip", n_threads=1).prepare_for(head, 1, "test")
eeg = np.random.default_rng(0).normal(scale=1e-6, size=(1, 32, 200_000)).astype(np.float32)
cli.build_parser = Parser
memory.SHARE = 800e6 / memory.memory_bytes()
cli.main([])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what is mapped")
def test_a_network_that_lacks_memory_says_so():
    """ONNX Runtime asks for 1 GB here: neither a damaged file nor another set-up."""
    done = subprocess.run(
        [sys.executable, "-c", LACKING], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert "Allowed: 0.80 GB of" in message
    assert "Not granted: 1 window(s) of 200000 samples, 32 channels and " in message
    assert "use a machine with more memory" in message
