"""The limit for a single patch in somebody else's head."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.baselines.bayes_single_patch import BayesSinglePatch
from deepesi.cli.loading import load_scenarios
from deepesi.composition import compose
from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.caps import CapRanges
from deepesi.data_gen.tissues import TissueRanges
from deepesi.evaluation.bayes_stranger import BayesStranger
from deepesi.evaluation.scores import apply_model
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import load_template


def bound(n_worlds):
    skull = {"skull_thickness": (0.006, 0.006), "scalp_conductivity": (0.33, 0.33)}
    tissues = TissueRanges(**skull, brain_conductivity=(0.33, 0.33))
    return BayesStranger(AnatomyRanges(), tissues, n_radii=2, n_worlds=n_worlds)


def error_mm(estimate, batch):
    n_orient = batch.head.space.n_orient
    peak = estimate.mean.unflatten(1, (-1, n_orient)).norm(dim=(2, 3)).argmax(1)
    positions = torch.as_tensor(batch.head.source_pos)
    return 1e3 * (positions[peak] - positions[batch.scene.peaks[:, 0]]).norm(dim=1)


def stranger(n_examples, batch_size):
    sizes = [f"scenario.n_examples={n_examples}", f"scenario.batch_size={batch_size}"]
    config = compose("evaluate", ["scenario=stranger", *sizes])
    return {scenario.level: scenario for scenario in load_scenarios([config.scenario])}


@pytest.mark.slow
@pytest.mark.parametrize(("n_examples", "n_worlds"), [(30, 4), (120, 16)])
def test_no_method_with_less_knowledge_is_nearer(n_examples, n_worlds):
    cohort = Cohort.single(load_template("fsaverage-ico3-free"))
    models = [bound(n_worlds), BayesSinglePatch(n_radii=2)]
    errors = []
    for batch in stranger(n_examples, 10)["typical, digitized cap"].batches(cohort, 10.0, models):
        errors.append([error_mm(apply_model(m, batch), batch) for m in models])
    limit, single = (torch.cat(own).mean() for own in zip(*errors, strict=True))
    assert limit < single + 1.0
    assert limit < 15


def test_heads_stay_for_a_cap_that_is_known_by_names():
    """One draw of heads serves two set-ups, and the limit is near the sources."""
    cohort, kept, drawn, errors = Cohort.single(load_template("fsaverage-ico3")), bound(1), [], []
    for batch in stranger(8, 4)["typical, cap by names"].batches(cohort, 20.0, [kept]):
        errors.append(error_mm(apply_model(kept, batch), batch))
        drawn.append(next(iter(kept._leadfields_at.values())))
    assert len(drawn) == 2
    assert drawn[0] is drawn[1]
    assert torch.cat(errors).mean() < 30


@pytest.mark.slow
def test_heads_are_drawn_once_for_the_same_sensors():
    """Set-ups of one cap known by names share them; estimates are those of a new bound."""
    cohort, kept, drawn = Cohort.single(load_template("fsaverage-ico3-free")), bound(2), []
    for level in ("typical, cap by names", "typical, digitized cap"):
        for batch in stranger(4, 2)[level].batches(cohort, 10.0, [kept]):
            estimate = apply_model(kept, batch)
            assert torch.equal(estimate.mean, apply_model(bound(2), batch).mean)
            drawn.append(next(iter(kept._leadfields_at.values())))
    assert drawn[0] is drawn[1]
    assert drawn[2] is not drawn[1]
    assert drawn[3] is not drawn[2]


def test_levels_of_the_scenario():
    levels = stranger(20, 10)
    assert list(levels) == [
        "template",
        "typical, digitized cap",
        "typical, cap by names",
        "strong, cap by names",
    ]
    assert levels["template"].setups.anatomy is None
    typical = vars(levels["typical, cap by names"].setups.anatomy)
    ranges, default = ({**own} for own in (typical, vars(AnatomyRanges())))
    for name in ("off_grid", "share"):  # no ranges
        assert ranges.pop(name) == default.pop(name)
    assert {name: tuple(value) for name, value in ranges.items()} == default
    strong = levels["strong, cap by names"].setups.anatomy
    assert strong.displacement[1] > AnatomyRanges().displacement[1]
    assert strong.turn[0] < AnatomyRanges().turn[0]
    known = {name: list(s.setups.cap.knowledge) for name, s in levels.items()}
    assert known["typical, digitized cap"] == ["digitized"]
    assert known["typical, cap by names"] == known["strong, cap by names"] == ["names"]


def test_training_and_test_have_the_same_ranges():
    trained = compose("train", ["head=stranger"]).data.setups
    tested = stranger(20, 10)["typical, cap by names"].setups
    for part in ("anatomy", "cap"):
        configured = {k: v for k, v in trained[part].items() if k not in ("_target_", "knowledge")}
        own = vars(getattr(tested, part))
        assert configured == {k: own[k] for k in configured}
    default = vars(CapRanges())
    for name, value in vars(tested.cap).items():
        if name != "knowledge":
            assert np.asarray(value) == pytest.approx(np.asarray(default[name]), abs=1e-3)


def test_fixed_orientation_and_windows():
    """On a head of fixed orientation it gives moments along the normals."""
    cohort = Cohort.single(load_template("fsaverage-ico3"))
    model = bound(1)
    scenario = replace(stranger(2, 2)["typical, digitized cap"], n_times=3)
    (batch,) = scenario.batches(cohort, 20.0, [model])
    estimate = apply_model(model, batch)
    assert estimate.mean.shape == (2, 1284, 3)
    assert (error_mm(estimate, batch) < 60).all()


def test_source_space_of_no_head_at_hand(simulate):
    model = bound(1)
    batch = simulate(model.head_inputs).batch(0)
    with pytest.raises(ValueError, match="no head at hand has the source space"):
        model(batch)
