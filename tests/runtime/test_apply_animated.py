"""``deepesi apply --movie`` and ``--html``."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
from PIL import Image

from deepesi.cli.main import main
from deepesi.physics.template import load_template, save_template
from deepesi.runtime.inverse import Inverse
from tests.conftest import make_covariance, make_evoked


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder with ``x-ave.fif``, -20 to 96 ms, ``x-cov.fif`` and ``x-epo.fif``."""
    monkeypatch.chdir(tmp_path)
    evoked = make_evoked()
    evoked.data *= 3
    evoked.shift_time(-0.02)
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    epochs = mne.EpochsArray(evoked.data[None], evoked.info, verbose="error")
    epochs.save("x-epo.fif", verbose="error")
    return tmp_path


def apply(model, *more, recording="x-ave.fif"):
    given = ["apply", str(model), recording, "--noise-cov", "x-cov.fif", "--out", "r"]
    main([*given, "--baseline", "none", *more])


def test_movie_and_page_of_an_average(folder, capsys):
    apply("default", "--window", "0", "0.02", "--movie", "m.gif", "--html", "p.html")
    printed = capsys.readouterr().out
    assert "wrote m.gif: 6 frames, every sample\nwrote p.html\n" in printed
    assert Image.open("m.gif").n_frames == 6
    page = Path("p.html").read_text()
    assert "default on x-ave.fif" in page
    numbers = json.loads(re.search(r"'view'>(.*?)</script>", page, re.S)[1])
    evoked = mne.read_evokeds("x-ave.fif", 0, verbose="error")
    assert np.allclose(numbers["times"], 1e3 * evoked.times, atol=0.01)
    assert [line["name"] for line in numbers["outlines"]] == [
        "90 % prediction set",
        "above 2 standard deviations",
    ]
    stc = mne.read_source_estimate("r")
    assert [shown["name"] for shown in numbers["maps"]] == ["estimate", "standard deviation"]
    assert numbers["maps"][0]["maximum"] == pytest.approx(1e9 * np.abs(stc.data).max(), rel=1e-5)
    assert len(numbers["parcels"]) > 100
    peak = int(np.argmax(np.abs(stc.data[:, numbers["start"]])))
    assert f"vertex {stc.vertices[peak // 642][peak % 642]}," in printed


def test_prediction_sets_of_the_page_are_those_of_the_file(folder, capsys):
    apply("default", "--window", "0", "0.02", "--html", "p.html")
    capsys.readouterr()
    numbers = json.loads(re.search(r"'view'>(.*?)</script>", Path("p.html").read_text(), re.S)[1])
    from base64 import b64decode

    bits = np.frombuffer(b64decode(numbers["outlines"][0]["sources"]), np.uint8).reshape(30, -1)
    shown = np.unpackbits(bits, axis=1)[:, :1284].astype(bool)
    evoked = mne.read_evokeds("x-ave.fif", 0, verbose="error")
    noise_cov = mne.read_cov("x-cov.fif", verbose="error")
    inverse = Inverse.load("default").for_recording(evoked, noise_cov)
    found = next(inverse.localize(inverse.correct(evoked, "none")))
    for sample in (0, 17):
        expected = inverse.prediction_set(found.stc.data[:, sample], found.data[:, sample])
        assert np.array_equal(shown[sample], expected.sources)


def test_page_without_nilearn_says_that_parcels_have_no_names(folder, eloreta, capsys, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "nilearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nilearn", None)
    apply(eloreta, "--html", "p.html")
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
def test_what_is_refused_first(folder, eloreta, more, message):
    with pytest.raises(SystemExit, match=message):
        apply(eloreta, *more)
    assert {p.name for p in folder.iterdir()} == {"x-ave.fif", "x-cov.fif", "x-epo.fif"}


def test_epochs_have_no_movie(folder, eloreta):
    with pytest.raises(SystemExit, match="show an average, and the recording is none. Average it"):
        apply(eloreta, "--movie", "m.gif", recording="x-epo.fif")
    assert not list(folder.glob("r*"))


def test_a_data_set_has_no_movie(folder, eloreta):
    with pytest.raises(SystemExit, match="--movie: for one recording, not for a whole data set"):
        apply(eloreta, "--movie", "m.gif", recording="bids:.")


def test_a_head_without_a_cortex_to_draw_on(folder, eloreta):
    bare = replace(load_template(), name="bare", display=None)
    bare = replace(bare, space=replace(bare.space, name="bare-ico3"))
    save_template("bare.npz", bare)
    with pytest.raises(SystemExit, match="need a cortex to draw on, which .* bare-ico3 does not"):
        apply(eloreta, "--movie", "m.gif", "--head", "bare.npz")
    assert not list(folder.glob("r*"))
