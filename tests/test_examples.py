"""Every page of the gallery runs within its time, and its sentences hold for its numbers."""

import ast
import re
import runpy
import sys
import time
import urllib.request
from pathlib import Path

import matplotlib
import mne
import numpy as np
import pytest
import yaml

import deepesi

CONFIGS = Path(deepesi.__file__).parent / "configs"
EXAMPLES = Path(__file__).parents[1] / "examples"
PAGES = sorted(EXAMPLES.glob("plot_*.py"))
#: Time of a page: 90 s on two cores, s of one core.
LONGEST = 180


def lasso(page):
    ridge, sparse = (page["curves"][name] for name in ("ridge", "LASSO"))
    assert abs(ridge.r2.max() - sparse.r2.max()) < 0.1
    assert sparse.n_active[sparse.r2.argmax()] < 50
    assert sparse.r2[-1] < sparse.r2.max()
    assert 5 * page["n_together"] < page["n_alone"]


def minimum_norm(page):
    for name in ("mne", "dspm", "sloreta", "eloreta"):
        assert page["errors"][name] <= np.median(page["by_epoch"][name])
        assert sum(len(stc.times) for stc in page["by_piece"][name]) == len(page["raw"].times)
        assert page["movies"][name].stat().st_size > 10_000
    assert page["errors"]["eloreta"] <= page["errors"]["mne"]
    assert page["residuals"]["eloreta"] < 0.2


def bayes(page):
    errors = {name: values.mean() for name, values in page["errors"].items()}
    for points in ("Gamma-MAP", "Champagne"):
        assert abs(errors[f"{points}, patches"] - errors[points]) < 2  # mm
    assert errors["the same, true lead field"] < errors["Champagne, patches"] - 4
    assert np.median(page["errors"]["the same, true lead field"]) < 1
    too_low, right = page["n_active"]["level as given"][1:3]
    assert right <= page["from_baseline"] < page["n_active"]["level learned"][0] <= too_low
    assert page["n_active"]["level as given"][0] > 2 * page["n_active"]["level as given"][-1]
    assert len(set(page["n_active"]["level learned"])) == 1
    for orientation in ("normal", "random"):
        free, fixed = (page["by_orientation"][orientation, kind] for kind in ("free", "fixed"))
        assert free < fixed
    assert abs(page["coverage"]["from the prior"] - 0.9) < 0.02
    assert page["coverage"]["patches"] < 0.5


def stranger(page):
    assert 5 < 1e3 * np.median(page["distance"]) < 12  # mm
    for method, (template, *others) in page["table"].items():
        assert template < min(others), method
    assert page["missing"].keys() == page["table"].keys()
    assert min(page["missing"].values()) > 0


def unet(page):
    scores = {key: values.mean() for key, values in page["scores"].items()}
    before, after, eloreta = ("U-Net, untrained", "U-Net, 80 steps", "eLORETA")
    assert scores[before, "localization_error"] < scores[eloreta, "localization_error"]
    assert scores[after, "nemd"] < scores[before, "nemd"] < scores[eloreta, "nemd"]
    assert page["moved"][eloreta].mean() < 1
    assert page["spread"][eloreta].mean() > 1.5 * page["spread"][after].mean()


def ablation(page):
    seen = yaml.safe_load((CONFIGS / "data/snapshot.yaml").read_text())["setups"]["montages"]
    levels = yaml.safe_load((CONFIGS / "scenario/montage.yaml").read_text())["levels"]
    assert page["unseen"] == {
        str(level)
        for level, values in levels.items()
        if not set(values["setups"]["montages"]) & set(seen)
    }
    shown = {row.level for row in page["rows"] if row.scenario == "montage"}
    assert shown == page["unseen"]
    for scenario in page["scenarios"]:
        means = {m: page["means"][scenario, m, "residual_variance"] for m in ("with", "without")}
        assert means["without"] > 5 * means["with"]
        rdm = {m: page["means"][scenario, m, "rdm"] for m in ("with", "without")}
        assert rdm["with"] < rdm["without"]
        error = {m: page["means"][scenario, m, "localization_error"] for m in ("with", "without")}
        assert error["without"] < error["with"] + 2  # mm


def uncertainty(page):
    assert all(abs(value) < 0.5 for value in page["correlations"].values())
    (covered, small), (also, large) = page["curves"].values()
    assert min(covered[-1], also[-1]) > 0.83
    assert large[-1] > 3 * small[-1]


def own_model(page):
    learned, eloreta = (
        [page["table"][method, metric] for metric in ("localization_error", "nemd")]
        for method in ("Sharpened", "eLORETA")
    )
    assert all(np.array(learned[0][1:]) < eloreta[0][1:])
    assert np.mean(learned[1]) < 0.6 * np.mean(eloreta[1])
    assert sum(weight.numel() for weight in page["model"].parameters()) == 44


def deploy(page):
    assert page["error"] < 10  # mm
    assert page["stream"].counts.estimated == 2250
    top, after = page["time_courses"][page["top"]], page["after"]
    assert top[after].mean() > 2 * top[~after].mean()


def animate(page):
    seen = page["times"][np.array(page["accuracy"]) > 0.65]
    assert 0.135 < seen.min() < seen.max() < 0.185
    assert page["similarity"]["weights"] < 0.5 < 0.9 < page["similarity"]["patterns"]
    assert page["error"] < 25  # mm
    for path in (*page["files"].values(), page["cortex"]):
        assert page["Image"].open(path).n_frames == len(page["times"])
    assert "data:image/gif;base64," in page["GifInPage"](page["cortex"])._repr_html_()


def explain(page):
    means = {key: np.mean(rows, axis=0) for key, rows in page["alike"].items()}
    for saliency, *others, recording in means.values():
        assert saliency < 0.25 < 0.35 < min(others)
        assert max(others) < 0.6
        assert recording == pytest.approx(1)
    for key in means:
        assert not page["fails"]["saliency", key]
        assert page["fails"]["occlusion", key]
        assert page["fails"]["recording", key]
    first = page["maps"]
    assert page["rank_correlation"](first["integrated gradients"], first["DeepLIFT"]) > 0.8
    named = {name: np.abs(values).argmax() for name, values in first.items()}
    assert named.pop("saliency") not in named.values()
    assert len(set(named.values())) == 1
    assert page["check"].scaled_share > page["check"].share + 0.2
    assert len(page["moved"].sensors) <= 16
    assert page["elsewhere"](page["moved"].before, page["positions"], page["template"].source_mni)[
        page["moved"].after
    ]


def posterior_samples(page):
    assert np.mean(page["losses"][-10:]) < np.mean(page["losses"][:10]) - 5
    assert page["summary"].count_probabilities.sum() == pytest.approx(1)
    assert 0 < page["summary"].joint_set.sum() < len(page["positions"])
    assert np.abs(page["coverage"] - page["levels"]).max() < 0.2


def several_sources(page):
    for head in page["recordings"]:
        means = {name: page["errors"][head, name].mean() for name in page["methods"]}
        assert max(means, key=means.get) == "eLORETA"
        assert set(sorted(means, key=means.get)[:3]) == {"annealed", "Champagne", "sampler"}
    for name in ("annealed", "Champagne", "sampler"):
        matched, wrong = (page["errors"][head, name].mean() for head in page["recordings"])
        assert wrong > 2 * matched
    assert page["n_shown"]["ensemble"] < 3 == page["n_shown"]["sampler"]
    matched, wrong = page["too_many"].values()
    assert 0.2 < matched.mean() < wrong.mean()
    assert matched[page["agree"]["matched head"]].max() > 0.9
    for shares in page["probabilities"].values():
        fewer = shares.cumsum(1)[np.arange(len(shares)), page["number"] - 1]
        assert fewer.max() < 0.05
    assert all(agreed < elsewhere for agreed, elsewhere in page["nearer"].values())
    assert page["agree"]["head mismatch"].sum() < page["n_agree"] < len(page["number"])


def learned_beamformer(page):
    one, two = ({k: v.mean() for k, v in page[name].items()} for name in ("errors", "two"))
    for errors, share in ((one, 0.5), (two, 0.9)):
        assert errors["transformer, untrained"] < share * min(errors["LCMV"], errors["eLORETA"])
    assert page["similarity"] > 0.5
    network = [errors["transformer, untrained"].mean() for errors in page["by_length"]]
    assert network[-1] < 0.5 * network[0]


def learning_without_labels(page):
    *_, half = zip(*page["unexplained"].values(), strict=True)
    splines, eloreta, untrained, pretrained = half
    assert eloreta < pretrained < untrained < splines
    assert page["adaptation"].accepted
    means = {name: values.mean() for name, values in page["errors"].items()}
    assert means["own head"] < means["adapted"] < means["template"]


def meg_and_eeg(page):
    found, bins = page["by_sensors"], page["axes_of"]
    means = {name: error.mean() for name, error in found.items()}
    assert means["both"] < means["MEG"] < means["EEG"]
    angle = bins["angle to the radius (degrees)"][0]
    tangential = angle > 60
    assert found["MEG"][tangential].mean() < 0.8 * found["MEG"][~tangential].mean()
    assert found["EEG"][tangential].mean() > found["MEG"][tangential].mean()
    assert found["EEG"][angle < 45].mean() < found["EEG"][tangential].mean()
    assert found["EEG"][page["ratio"] < 0.6].mean() > found["EEG"][page["ratio"] > 0.6].mean()


#: What the sentences of a page say of its numbers.
CLAIMS = {
    "plot_01_lasso": lasso,
    "plot_02_minimum_norm": minimum_norm,
    "plot_03_bayes": bayes,
    "plot_04_somebody_elses_head": stranger,
    "plot_05_unet": unet,
    "plot_06_ablation": ablation,
    "plot_07_uncertainty": uncertainty,
    "plot_08_own_model": own_model,
    "plot_09_deploy": deploy,
    "plot_10_animate": animate,
    "plot_11_explain": explain,
    "plot_12_several_sources": several_sources,
    "plot_13_posterior_samples": posterior_samples,
    "plot_14_learned_beamformer": learned_beamformer,
    "plot_16_learning_without_labels": learning_without_labels,
    "plot_15_meg_and_eeg": meg_and_eeg,
}
#: The shortest page runs with the fast tests.
FAST = "plot_14_learned_beamformer"


def test_every_page_has_claims():
    assert {page.stem for page in PAGES} == CLAIMS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_a_reader_needs(page):
    text = ast.get_docstring(ast.parse(page.read_text(encoding="utf-8")))
    for word in ("**You learn**", "**Data**:", "**Time**:"):
        assert word in text, word
    assert "simulated" in text.split("**Data**:")[1]
    assert int(re.search(r"\*\*Time\*\*: (\d+) s", text)[1]) <= 90
    assert re.search(r"^# Exercises$", page.read_text(), re.M)
    assert len(re.findall(r"^# \d\. ", page.read_text(), re.M)) >= 3


class ConnectionOpenedError(Exception):
    """A page opened a connection."""


@pytest.fixture
def no_network():
    """Looking up a host or connecting is an error; the audit hook stays, so it has a switch."""

    def check(event, _):
        if switch and event in ("socket.connect", "socket.getaddrinfo"):
            raise ConnectionOpenedError(event)

    switch = ["on"]
    sys.addaudithook(check)
    yield
    switch.clear()


def test_a_page_that_opens_a_connection_fails(no_network):
    with pytest.raises(ConnectionOpenedError, match=r"socket\.(connect|getaddrinfo)"):
        urllib.request.urlopen("http://localhost:9/")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "page",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] * (p.stem != FAST)) for p in PAGES],
)
def test_a_page_runs_and_its_sentences_hold(page, monkeypatch, capsys):
    monkeypatch.chdir(EXAMPLES)
    matplotlib.use("agg")
    started = time.process_time()
    with mne.utils.use_log_level(None):  # a page may change it
        variables = runpy.run_path(str(page))
    assert time.process_time() - started < LONGEST
    CLAIMS[page.stem](variables)
    assert capsys.readouterr().out
    figures = matplotlib.pyplot.get_fignums()
    matplotlib.pyplot.close("all")
    assert figures
