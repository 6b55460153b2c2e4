"""Weak labels: their origin and weight, and that they never touch what is evaluated."""

import numpy as np
import pytest
import torch

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.core.contracts import Estimate
from deepesi.physics.cohort import Cohort
from deepesi.training.expected_responses import ExpectedResponses
from deepesi.training.mixed import MixedRecordings, without_targets
from deepesi.training.run import fit
from deepesi.training.tasks.weak_labels import WeakLabels
from deepesi.validation.weak_labels import weak_cases
from tests.training.test_tasks import SIMULATED, compose, rng
from tests.validation.test_own_recordings import FRONTAL, V1, entry, response, save, write


@pytest.fixture(scope="module")
def responses(template, tmp_path_factory):
    """A visual response and a frontal one, with what is expected of them."""
    folder = tmp_path_factory.mktemp("responses")
    for name, place in (("visual", V1), ("frontal", FRONTAL)):
        save(folder, name, *response(template, place))
    visual = entry(file="visual-ave.fif")
    frontal = entry(
        file="frontal-ave.fif", hemisphere=None, lobe=None, mni_mm=[-40, 30, 30], within_mm=20
    )
    return folder, write(folder / "expectation.yaml", visual, frontal)


def test_regions_are_those_expected(template, responses):
    visual, frontal = weak_cases(template, *responses)
    mni = template.source_mni
    assert visual.name == "visual-ave.fif"
    assert (mni[visual.expected_area, 0] > 0).all()
    assert (mni[visual.expected_area, 1] < -50).all()
    distance = np.linalg.norm(mni - [-40, 30, 30], axis=1)
    assert np.array_equal(frontal.expected_area, distance <= 20)
    # 0.1 to 0.19 s at 250 Hz
    assert visual.data.shape == (32, 23)
    assert visual.head.sensors.names == frontal.head.sensors.names


def test_what_is_evaluated_is_never_trained_on(template, responses):
    """The split: a recording is trained on, or evaluated."""
    with pytest.raises(ValueError, match=r"\['visual-ave.fif'\] are evaluated later"):
        weak_cases(template, *responses, evaluated=["visual-ave.fif"])
    folder, expect = responses
    for evaluated in ("visual-ave.fif", "./visual-ave.fif", folder / "visual-ave.fif", [folder]):
        with pytest.raises(ValueError, match=r"are evaluated later"):
            weak_cases(template, folder, expect, evaluated=evaluated)
    with pytest.raises(FileNotFoundError, match="there is no .*other-ave.fif, which"):
        weak_cases(template, *responses, evaluated=["other-ave.fif"])
    others = weak_cases(template, *responses)
    assert {case.name for case in others} == {"visual-ave.fif", "frontal-ave.fif"}
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match=f"the split is '{split}', expected 'train'"):
            ExpectedResponses(lambda head: others, template, split=split)


def test_stream_of_responses(template, responses):
    cases = weak_cases(template, *responses)
    stream = ExpectedResponses(lambda head: cases, template, batch_size=5)
    first, second = stream.batch(0), stream.batch(1)
    assert [first.origin, second.origin] == [case.name for case in cases]
    assert first.regions.shape == (5, 1284)
    expected = cases[0].data[:, first.starts.numpy()]
    expected = expected - expected.mean(0)
    assert np.allclose(first.data[:, :, 0].T, expected, atol=1e-10)
    again = ExpectedResponses(lambda head: cases, template, batch_size=5).batch(1)
    assert torch.equal(second.data, again.data)


@pytest.fixture
def mixed(simulate):
    """At high SNR, so that every window counts."""
    model = MinimumNorm("sLORETA")
    streams = [simulate(model.head_inputs, snr_db=(20, 20), seed=s) for s in (0, 1)]
    return model, MixedRecordings(*streams)


def nothing(estimate, batch):
    return torch.zeros(()), {}


def test_the_peak_of_the_teacher_is_the_label(mixed):
    model, stream = mixed
    batch = stream.batch(50).unlabelled
    task = WeakLabels(model, radius=0.02)
    regions = task.peak_regions(batch)
    peaks = model(batch.data, batch.inputs).mean.abs().amax(2).argmax(1)
    assert regions[torch.arange(8), peaks].all()
    position = torch.tensor(batch.head.source_pos)
    for region, peak in zip(regions, peaks, strict=True):
        near = (position - position[peak]).norm(dim=1) <= 0.02
        assert torch.equal(region, near)


class Fixed(MinimumNorm):
    """All of its power at one source."""

    def forward(self, data, inputs):
        mean = torch.zeros(len(data), 84, data.shape[2])
        mean[:, self.source] = 1.0
        return Estimate(mean)


def fixed(source):
    model = Fixed()
    model.source = source
    return model


def test_loss_of_an_estimate_within_and_outside(mixed):
    """``−log`` of the share of the power within; times the weight of the step."""
    batch = mixed[1].batch(50)
    task = WeakLabels(fixed(3), weight=0.1, ramp=100)
    inside = task.training_loss(fixed(3), batch, nothing, rng())
    assert inside["weak"].item() == pytest.approx(0, abs=2e-3)
    outside = task.training_loss(fixed(70), batch, nothing, rng())
    assert outside["weak"].item() == pytest.approx(-np.log(1e-3), rel=1e-3)
    assert outside["loss"].item() == pytest.approx(0.05 * outside["weak"].item(), rel=1e-4)


def test_windows_of_noise_do_not_count(simulate):
    model = MinimumNorm()
    silent = simulate(model.head_inputs, snr_db=(-100, -100), seed=1)
    batch = MixedRecordings(simulate(model.head_inputs), silent).batch(50)
    found = WeakLabels(fixed(3), least_power=3.0).training_loss(fixed(70), batch, nothing, rng())
    assert found["weak"].item() == 0


def test_given_regions_go_before_the_teacher(simulate):
    model = MinimumNorm()
    stream = simulate(model.head_inputs, snr_db=(20, 20))
    batch = MixedRecordings(stream, stream).batch(0)
    region = torch.zeros(8, 84, dtype=torch.bool)
    region[:, 70] = True
    other = without_targets(stream.batch(0), 250.0)
    other = type(other)(**vars(other) | {"regions": region})
    batch = type(batch)(batch.simulated, other)
    found = WeakLabels(fixed(3)).training_loss(fixed(70), batch, nothing, rng())
    assert found["weak"].item() == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize(
    "settings", [{"weight": 2.0}, {"radius": 0.0}, {"ramp": 0}, {"least_power": 0.0}]
)
def test_settings(settings):
    with pytest.raises(ValueError, match="WeakLabels: weight must be 0 to 1, radius"):
        WeakLabels(MinimumNorm(), **settings)


def test_region_without_a_source(template, responses):
    folder, _ = responses
    far = entry(
        file="visual-ave.fif", hemisphere=None, lobe=None, mni_mm=[1, -20, -50], within_mm=1
    )
    with pytest.raises(ValueError, match="no source of 'fsaverage-ico3' meets the expectation"):
        weak_cases(template, folder, write(folder / "far.yaml", far))


def test_a_run_with_expectations(template, responses, tmp_path):
    folder, expect = responses
    words = [
        "experiment=adapt",
        "task=weak_labels",
        "data@unlabelled=expected",
        f"unlabelled.cases.path={folder}",
        f"unlabelled.cases.expect={expect}",
    ]
    config = compose("fsaverage-ico3", tmp_path, *words, *SIMULATED)
    fit(config, Cohort.single(template), tmp_path)
    assert "train/weak" in (tmp_path / "metrics.csv").read_text().splitlines()[0]
