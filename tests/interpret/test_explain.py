"""``deepesi explain``: exported files without gradients, runs with all methods, errors."""

import csv
import re
import shutil
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
import torch

from deepesi.cli.main import main
from deepesi.core.contracts import Estimate, InverseModel
from deepesi.interpret.any_model.page import FAILED, FAILS
from deepesi.models.convdip import ConvDip
from deepesi.models.layers.symmetric_inverse import symmetric_inverse
from deepesi.physics.atlas import seitzman_parcels
from deepesi.runtime.packaged import model_path
from deepesi.training.weights import save_network
from tests.conftest import make_covariance, make_evoked

RESULTS = Path(__file__).parents[2] / "docs" / "_results"
#: Sample of the response.
SAMPLE = 12


@pytest.fixture(scope="module")
def recordings(template, tmp_path_factory):
    """An average with a source in the left occipital lobe, its noise covariance, epochs."""
    folder = tmp_path_factory.mktemp("recordings")
    evoked = make_evoked()
    source = int(np.linalg.norm(template.source_mni - [-20, -95, 5], axis=1).argmin())
    near = np.linalg.norm(template.source_pos - template.source_pos[source], axis=1) < 0.015
    signal = template.montage_head("biosemi32").leadfield[:, near].sum(1)
    evoked.data[:, SAMPLE] += 6e-6 * signal / np.abs(signal).max()
    evoked.save(folder / "x-ave.fif", verbose="error")
    make_covariance(evoked.info).save(folder / "x-cov.fif", verbose="error")
    epochs = mne.EpochsArray(evoked.data[None], evoked.info, verbose="error")
    epochs.save(folder / "x-epo.fif", verbose="error")
    return folder


def run_directory(network, model, template, folder):
    """The directory of a run: a network with its first weights, and an exported file."""
    identity = {
        "model": model,
        "space": template.space.name,
        "space_fingerprint": template.space.fingerprint,
    }
    save_network(network, identity, folder / "model")
    (folder / "export").mkdir()
    shutil.copy(model_path("convdip"), folder / "export" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def run(template, tmp_path_factory):
    model = {"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": 1284, "hidden": 8}
    folder = tmp_path_factory.mktemp("run") / "toy"
    return run_directory(ConvDip(1284, hidden=8), model, template, folder)


class Iterated(InverseModel):
    """A network that inverts a matrix by iterations, as Champagne does."""

    head_inputs = ()

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.randn(1284, 32))

    def forward(self, data, inputs):
        scaled = data / data.square().mean((1, 2), keepdim=True).sqrt()
        covariance = torch.eye(32) + 100 * scaled @ scaled.mT
        return Estimate(self.weights @ (symmetric_inverse(covariance, 20, 1.0) @ data))


def explain(model, recordings, out, *more, name="x-ave.fif"):
    words = [str(model), str(recordings / name), "--noise-cov", str(recordings / "x-cov.fif")]
    main(["explain", *words, "--out", str(out / "page.html"), *more])
    return (out / "page.html").read_text()


def test_an_exported_file_is_explained_without_torch(recordings, tmp_path, capsys, monkeypatch):
    for package in ("torch", "captum"):
        monkeypatch.setitem(sys.modules, package, None)
    page = explain("convdip", recordings, tmp_path, "--at", "0.048")
    lines = capsys.readouterr().out
    assert "48 ms, strongest source there: left hemisphere" in lines
    assert re.search(r"moves the peak from left occipital \(left.* to right [a-z ]+ \(right", lines)
    assert "electrodes whose loss moves the peak: O1, " in lines
    assert "; into another lobe: none" in lines
    assert f"wrote {tmp_path / 'page.html'}" in lines
    assert "convdip has no gradients" in page
    assert "give the directory of the run" in page
    assert re.search(r"<b>1</b>, left occipital \(.*<b>2</b>, right [a-z ]+ \(right hemi", page)
    assert "<button type='button'>another lobe</button>" in page
    assert "<td class='word'>no, left occipital</td>" in page
    assert "<td class='word'>yes" not in page
    for heading in (
        "Forward check",
        "What would move the peak",
        "Electrodes whose loss moves the peak",
    ):
        assert f"{heading}</h2>" in page
    assert "Occlusion: what would be missing without the electrode" in page
    assert "<figcaption>Saliency" not in page
    assert FAILS in page
    assert "Evidence, step by step" not in page
    assert page.count("<td class='word'>Fp1</td>") == 1


def test_electrodes_that_move_the_peak_into_another_lobe_are_named(recordings, tmp_path, capsys):
    """A sample of noise, whose peak one electrode moves into another lobe."""
    page = explain("convdip", recordings, tmp_path, "--at", "0.08")
    names = re.search(r"into another lobe: (.*)\n", capsys.readouterr().out)[1].split(", ")
    row = r"<td class='word'>(\w+)</td><td>(\d+)</td><td class='word'>(yes|no), (\w+ [a-z ]+)</td>"
    lost = re.findall(row, page)
    assert [name for name, _, answer, _ in lost if answer == "yes"] == names
    assert len(lost) > len(names) > 0
    own = re.search(r"<b>1</b>, left ([a-z ]+) \(", page)[1].split(" or ")
    for _, distance, answer, lobe in lost:
        shared = lobe.startswith("left") and any(name in lobe for name in own)
        assert (answer == "yes") == (not shared and int(distance) >= 30)


def test_a_run_is_explained_by_all_methods(recordings, run, tmp_path, capsys):
    page = explain(run, recordings, tmp_path, "--target", "moment")
    assert "48 ms, strongest source there" in capsys.readouterr().out  # the strongest sample
    for method in ("Saliency", "Integrated gradients", "DeepLIFT-like", "Occlusion"):
        assert f"<figcaption>{method}" in page
    assert "no gradients" not in page
    assert len(re.findall(r"<figcaption>[^<]*Completeness error [0-4]\.\d %", page)) == 2
    assert "moment of the strongest source:" in page
    assert "nAm per noise SD" in page


def test_methods_that_are_marked_as_failed_are_those_of_the_stored_results():
    """They fail for every model; the control fails, too, or the check would be none."""
    with (RESULTS / "explanations.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    methods = list(dict.fromkeys(line["method"] for line in lines))
    failed = {
        method
        for method in methods
        if all(x["randomization check"] != "passes" for x in lines if x["method"] == method)
    }
    control = next(method for method in methods if "control" in method)
    assert failed == {*(name.replace("_", " ") for name in FAILED), control}


def test_a_method_without_finite_values_is_left_out(template, recordings, tmp_path, capsys):
    """The rule of DeepLIFT for products grows without bound over iterations of an inverse."""
    torch.manual_seed(0)
    model = {"_target_": f"{__name__}.Iterated"}
    folder = run_directory(Iterated(), model, template, tmp_path / "iterated")
    page = explain(folder, recordings, tmp_path, "--methods", "saliency,deep_lift")
    reason = "The method deep_lift is left out for Iterated: its contributions are not finite"
    assert reason in capsys.readouterr().out
    assert reason in page
    assert "<figcaption>Saliency" in page
    assert "<figcaption>DeepLIFT-like" not in page
    assert not re.search(r"\bnan\b|\binf\b", page)


def test_some_methods_of_a_run(recordings, run, tmp_path):
    page = explain(run, recordings, tmp_path, "--methods", "deep_lift", "--target", "power")
    assert "<figcaption>DeepLIFT-like" in page
    assert "<figcaption>Saliency" not in page
    assert "power within 20 mm of the strongest source:" in page


def test_a_parcel_is_explained_for_a_file(template, recordings, tmp_path):
    parcels = seitzman_parcels(template.space)
    occipital = int(np.linalg.norm(parcels.centres - [-20, -95, 5], axis=1).argmin())
    name, n = parcels.names[occipital], int((parcels.of_source == occipital).sum())
    page = explain("convdip", recordings, tmp_path, "--target", f"parcel:{name}")
    assert re.search(rf"power of the parcel {name} \({n} source\(s\)\): [\d.e+]+ \(nAm\)²", page)


def test_a_source_is_explained_for_a_run(template, recordings, run, tmp_path):
    where = ["--target", "source:right:12", "--methods", "saliency"]
    page = explain(run, recordings, tmp_path, *where)
    x, y, z = template.source_mni[642 + 12]
    where_text = rf"right hemisphere, vertex 12, MNI \({x:.0f}, {y:.0f}, {z:.0f}\) mm"
    assert re.search(rf"moment of one source \({where_text}\): -?[\d.]+ nAm", page)
    assert "nAm per noise SD" in page


def test_a_target_that_is_zero_is_refused(recordings, tmp_path):
    with pytest.raises(SystemExit, match=r"the moment of one source.*is zero.*another --target"):
        explain("mxne", recordings, tmp_path, "--target", "source:right:300")
    assert not list(tmp_path.iterdir())


def test_a_solver_is_explained_by_its_name(recordings, tmp_path, capsys):
    page = explain("eloreta", recordings, tmp_path, "--at", "0.048", "--target", "moment")
    assert "<figcaption>Saliency" in page
    assert "<figcaption>Occlusion" in page
    assert "48 ms, strongest source there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "saliency"], r"no gradients, which saliency need.*--methods occlusion"),
        (
            ["--methods", "occlusio"],
            r"--methods: unknown 'occlusio'. Nearest: occlusion; all: saliency",
        ),
        (["--target", "lobe"], r"--target: unknown 'lobe', expected one of localization, moment"),
        (["--target", "parcel:Visul L 275"], r"no such parcel. Nearest: Visual L 275"),
        (["--target", "source:left:700"], r"vertex 700 is not a source.*: 639, 640, 641"),
        (["--at", "9"], r"--at 9 s lies outside the recording \(0 to 0.116 s\)"),
        (["--window", "2", "3"], r"--window 2 3 s lies outside the recording"),
        (["--spans", "0"], r"--spans 0: expected 1 or more"),
        (["--out", "x.pdf"], r"--out x.pdf: expected a name that ends in .html"),
    ],
)
def test_bad_options_are_refused(recordings, tmp_path, more, message):
    with pytest.raises(SystemExit, match=message):
        explain("convdip", recordings, tmp_path, *more)
    assert not list(tmp_path.iterdir())


def test_epochs_are_refused(recordings, tmp_path):
    with pytest.raises(SystemExit, match="the recording is EpochsFIF, expected an average"):
        explain("convdip", recordings, tmp_path, name="x-epo.fif")


def test_a_run_needs_captum(recordings, run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(SystemExit, match=r"'captum' to explain the network.*\[interpret\]"):
        explain(run, recordings, tmp_path)


def test_the_exported_file_of_another_network_is_named(recordings, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    text = (other / "model" / "model.yaml").read_text()
    network = ConvDip(1284, hidden=8, height=9)
    identity = {"model": {"_target_": "deepesi.models.convdip.ConvDip", "n_dipoles": 1284}}
    identity["model"] |= {"hidden": 8, "height": 9}
    save_network(network, identity, other / "model")
    assert text != (other / "model" / "model.yaml").read_text()
    with pytest.raises(SystemExit, match=r"lacks the head inputs.*exported from another"):
        explain(other, recordings, tmp_path)
