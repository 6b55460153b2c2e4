"""Sets of source locations of examples with several sources, part by part."""

import json
import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import BayesianMinimumNorm, MinimumNorm
from deepesi.core.contracts import Estimate
from deepesi.core.onnx_model import OnnxModel
from deepesi.data_gen.sources import PatchSources
from deepesi.evaluation.examples_page import write_examples
from deepesi.evaluation.figures import example_panels
from deepesi.evaluation.gallery import gallery, worked_examples
from deepesi.evaluation.report import SEVERAL, write_report
from deepesi.evaluation.scores import apply_model, with_samples
from deepesi.evaluation.source_sets import HALF_MAXIMUM, connected_parts, nearest_peak, source_set
from deepesi.physics.cohort import Cohort
from deepesi.physics.graph import source_areas
from deepesi.physics.noise import rank_of, whitener
from deepesi.runtime.packaged import model_path
from deepesi.runtime.prediction_sets import PredictionSetFinder
from tests.evaluation.conftest import LONG


def lines_between(sources, edges):
    return [edge for edge in edges.tolist() if set(edge) <= set(sources)]


def test_half_maximum_area_of_two_sources_has_two_parts(simulate):
    """The stronger one first; each holds its source and is connected, and no edge joins them."""
    batch = simulate(sources=PatchSources((1, 1), (0.03, 0.06))).batch(0).example(0)
    left, right = 10, 60
    values = np.zeros(84)
    edges = batch.head.space.edges
    around = {s: {s, *edges[(edges == s).any(axis=1)].ravel().tolist()} for s in (left, right)}
    values[list(around[left])], values[list(around[right])] = 0.8, 0.7
    values[left], values[right] = 0.9, 1.0
    mean = torch.as_tensor(values, dtype=torch.float32)[None, :, None]
    found = source_set(MinimumNorm("MNE"), Estimate(mean), batch)
    assert found.kind == HALF_MAXIMUM
    assert [set(part.tolist()) for part in found.parts] == [around[right], around[left]]
    areas = source_areas(batch.head.source_pos, edges)
    assert found.area_cm2 == pytest.approx(1e4 * areas[values > 0].sum())
    assert found.held(np.array([left, right, 30])).tolist() == [True, True, False]


def test_parts_are_connected_and_apart(toy):
    head, rng = toy.montage_head("biosemi16"), np.random.default_rng(3)
    inside = rng.random(84) < 0.35
    parts = connected_parts(inside, rng.random(84), head)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.flatnonzero(inside))
    of_source = np.full(84, -1)
    for number, part in enumerate(parts):
        of_source[part] = number
    one, other = of_source[head.space.edges].T
    both = (one >= 0) & (other >= 0)
    assert np.array_equal(one[both], other[both])
    assert len(parts) > 2
    for part in parts:  # from one of its sources, all are reached
        reached = {int(part[0])}
        for _ in part:
            reached |= {
                s
                for edge in lines_between(part, head.space.edges)
                if set(edge) & reached
                for s in edge
            }
        assert reached == set(part.tolist())


def test_set_of_a_calibrated_file_is_its_prediction_set(simulate, template):
    model = OnnxModel(model_path("convdip"))
    stream = simulate(model.head_inputs, template, sources=PatchSources((2, 2), (0.01, 0.02)))
    batch = stream.batch(0).example(0)
    estimate = apply_model(model, batch)
    found, head = source_set(model, estimate, batch), batch.head
    assert found.kind == "90 % prediction set"
    calibration = model.opened.contract.calibration
    finder = PredictionSetFinder(calibration, head.source_pos, head.space)
    white = whitener(head.noise_cov) @ batch.data[0, :, 0].double().numpy()
    magnitudes = estimate.mean[0, :, 0].abs().double().numpy()
    expected = finder.prediction_set(magnitudes, white, rank_of(head.noise_cov))
    assert np.array_equal(np.sort(np.concatenate(found.parts)), np.flatnonzero(expected.sources))
    assert found.area_cm2 == pytest.approx(1e4 * expected.area)


def test_set_of_a_posterior_is_that_of_its_samples(simulate):
    model = BayesianMinimumNorm()
    batch = simulate(model.head_inputs, sources=PatchSources((2, 2), (0.03, 0.06))).batch(0)
    batch = batch.example(0)
    estimate = with_samples(apply_model(model, batch), model, batch, seed=0)
    found = source_set(model, estimate, batch)
    assert found.kind == "90 % set of the samples"
    strongest = estimate.samples[:, 0, :, 0].abs().argmax(dim=1).numpy()
    assert found.held(strongest).mean() >= 0.85


@pytest.fixture(scope="module")
def several(benchmark, models, toy):
    """Worked examples of two sources."""
    cohort = Cohort.single(toy)
    drawn = gallery({LONG: models[LONG]}, benchmark, cohort)
    cell = benchmark.cells[-1]
    shown = {LONG: models[LONG], "<Bayes>": BayesianMinimumNorm()}
    return replace(drawn, cell=cell, examples=worked_examples(shown, cell, cohort))


@pytest.mark.slow
def test_report_draws_each_source_and_each_set(several, benchmark, toy, tmp_path):
    for worked in several.examples:
        assert len(worked.peaks) == 2
        captions = [caption for caption, _ in example_panels(worked, several.mesh)]
        assert [c.split(";")[0] for c in captions[1:4]] == [
            "true sources",
            "true source 1",
            "true source 2",
        ]
        assert captions[4::2] == list(worked.estimates)
        for caption, (name, found) in zip(captions[5::2], worked.sets.items(), strict=True):
            assert caption.startswith(f"{name}: {found.kind}, {len(found.parts)} part")
            held = found.held(worked.peaks)
            for number, inside in enumerate(held, start=1):
                assert (str(number) in caption.split("holds ")[1]) == inside
    words = {name: {"sources": "x"} for name in ("toy", "montages")}
    write_report(benchmark, several, words, {}, {}, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert SEVERAL in text
    assert text.count("<figcaption>true source 2; above ") == 3
    assert "&lt;Bayes&gt;: 90 % set of the samples, " in text


def test_report_of_one_source_draws_no_sets(benchmark, models, toy):
    drawn = gallery({LONG: models[LONG]}, benchmark, Cohort.single(toy))
    assert all(not worked.sets for worked in drawn.examples)
    captions = [caption for caption, _ in example_panels(drawn.examples[0], drawn.mesh)]
    assert len(captions) == 3


def test_examples_page_has_lines_of_sources_and_sets(several, toy, tmp_path):
    write_examples(several, toy, tmp_path / "examples.html")
    page = (tmp_path / "examples.html").read_text()
    views = [json.loads(n) for n in re.findall(r"'view'>(.*?)</script>", page)]
    for view, worked in zip(views, several.examples, strict=True):
        lines = {
            line["name"]: np.unpackbits(np.frombuffer(b64decode(line["sources"]), np.uint8))[:84]
            for line in view["outlines"]
        }
        for number, peak in enumerate(worked.peaks, start=1):
            inside = np.flatnonzero(lines[f"true source {number}"])
            assert peak in inside
            positions = worked.batch.head.source_pos
            assert set(nearest_peak(positions, worked.peaks)[inside]) == {number - 1}
        for name, found in worked.sets.items():
            inside = np.flatnonzero(lines[f"{name}: {found.kind}"])
            assert np.array_equal(inside, np.sort(np.concatenate(found.parts)))
