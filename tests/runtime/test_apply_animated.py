"""``deepesi apply --movie`` and ``--html``."""

import contextlib
import io
import json
import re
import sys
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import imageio_ffmpeg
import mne
import numpy as np
import pytest
from PIL import Image

from deepesi.cli.main import main
from deepesi.physics.template import load_template, save_template
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked


def write_recordings(folder: Path) -> None:
    """Write ``x-ave.fif``, -8 to 12 ms, ``x-cov.fif`` and ``x-epo.fif``."""
    evoked = make_evoked(n_times=6)
    evoked.data *= 3
    evoked.shift_time(-0.008)
    evoked.save(folder / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(folder / "x-cov.fif", verbose="error")
    epochs = mne.EpochsArray(evoked.data[None], evoked.info, verbose="error")
    epochs.save(folder / "x-epo.fif", verbose="error")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with recordings, where the commands run."""
    monkeypatch.chdir(tmp_path)
    write_recordings(tmp_path)
    return tmp_path


class Done(NamedTuple):
    """Output of the packaged network for an average: folder, text and numbers of the page."""

    folder: Path
    printed: str
    page: str
    numbers: dict[str, Any]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    folder, printed = tmp_path_factory.mktemp("done"), io.StringIO()
    write_recordings(folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        apply("default", "--window", "0", "0.012", "--movie", "m.gif", "--html", "p.html")
    page = (folder / "p.html").read_text()
    numbers = json.loads(re.search(r"'view'>(.*?)</script>", page)[1])
    return Done(folder, printed.getvalue(), page, numbers)


def apply(model, *more, recording="x-ave.fif"):
    given = ["apply", str(model), recording, "--noise-cov", "x-cov.fif", "--out", "r"]
    main([*given, "--baseline", "none", *more])


def test_movie_and_page_of_an_average(done):
    assert "wrote m.gif: 4 frames, every sample\nwrote p.html\n" in done.printed
    assert Image.open(done.folder / "m.gif").n_frames == 4
    assert "default on x-ave.fif" in done.page
    evoked = mne.read_evokeds(done.folder / "x-ave.fif", 0, verbose="error")
    assert np.allclose(done.numbers["times"], 1e3 * evoked.times, atol=0.01)
    assert [line["name"] for line in done.numbers["outlines"]] == [
        "90 % prediction set",
        "above 2 standard deviations",
    ]
    mean, std = done.numbers["maps"]
    assert (mean["name"], std["name"]) == ("estimate", "estimate: standard deviation")
    stc = mne.read_source_estimate(done.folder / "r")
    assert mean["maximum"] == pytest.approx(1e9 * np.abs(stc.data).max(), rel=1e-5)
    assert len(done.numbers["parcels"]) > 100
    peak = int(np.argmax(np.abs(stc.data[:, done.numbers["start"]])))
    assert f"vertex {stc.vertices[peak // 642][peak % 642]}," in done.printed


def test_mp4_of_an_average(folder, capsys):
    apply("convdip", "--window", "0", "0.012", "--movie", "m.mp4", "--fps", "4")
    assert "wrote m.mp4: 4 frames, every sample" in capsys.readouterr().out
    count, seconds = imageio_ffmpeg.count_frames_and_secs("m.mp4")
    assert count == 4
    assert seconds == pytest.approx(1.0, abs=0.05)


def test_prediction_sets_of_the_page_are_those_of_the_file(done):
    sources = b64decode(done.numbers["outlines"][0]["sources"])
    bits = np.frombuffer(sources, np.uint8).reshape(6, -1)
    shown = np.unpackbits(bits, axis=1)[:, :1284].astype(bool)
    evoked = mne.read_evokeds(done.folder / "x-ave.fif", 0, verbose="error")
    noise_cov = mne.read_cov(done.folder / "x-cov.fif", verbose="error")
    inverse = Inverse.load("default").for_recording(evoked, noise_cov)
    stc = mne.read_source_estimate(done.folder / "r-stc.h5")
    data = evoked.get_data(picks=list(inverse.ch_names))
    for sample in (0, 4):
        expected = inverse.prediction_set(stc.data[..., sample].astype(float), data[:, sample])
        assert np.array_equal(shown[sample], expected.sources)


def test_page_without_nilearn_says_that_parcels_have_no_names(folder, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "nilearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nilearn", None)
    apply("convdip", "--html", "p.html")
    printed = capsys.readouterr().out
    assert "p.html: parcels are not named: deepesi needs the package 'nilearn'" in printed
    assert '"parcels":[]' in Path("p.html").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--movie", "m.avi"), "movie m.avi: expected a name that ends in .gif or .mp4"),
        (("--movie", "m.gif", "--fps", "90"), "90 frames per second.*at most 50"),
        (("--movie", "x-ave.fif/m.gif"), "--movie x-ave.fif: .*is a file, so there is no folder"),
        (("--html", "p.htm"), "--html p.htm: expected a name that ends in .html"),
        (("--html", "p.html", "--window", "0", "0.001"), "two samples or more, and 1 lies in"),
    ],
)
def test_what_is_refused_first(folder, more, message):
    with pytest.raises(SystemExit, match=message):
        apply("convdip", *more)
    assert {p.name for p in folder.iterdir()} == {"x-ave.fif", "x-cov.fif", "x-epo.fif"}


def test_epochs_have_no_movie(folder):
    with pytest.raises(SystemExit, match="show an average, and the recording is none. Average it"):
        apply("convdip", "--movie", "m.gif", recording="x-epo.fif")
    assert not list(folder.glob("r*"))


def test_a_data_set_has_no_movie(folder):
    with pytest.raises(SystemExit, match="--movie: for one recording, not for a whole data set"):
        apply("convdip", "--movie", "m.gif", recording="bids:.")


def test_a_head_without_a_cortex_to_draw_on(folder):
    bare = replace(load_template(), name="bare", display=None)
    bare = replace(bare, space=replace(bare.space, name="bare-ico3"))
    save_template("bare.npz", bare)
    with pytest.raises(SystemExit, match="need a cortex to draw on, which .* bare-ico3 does not"):
        apply("ensemble", "--movie", "m.gif", "--head", "bare.npz")
    assert not list(folder.glob("r*"))
