"""The stream as a whole: keys, SNR, rendering, splits, heads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.data_gen.artifacts import Blinks, ElectrodePops, Muscle
from deepesi.data_gen.curriculum import ASPECTS, Curriculum
from deepesi.data_gen.noise import NoiseRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.data_gen.tissues import TissueRanges
from deepesi.physics.family import Tissues
from deepesi.physics.head_inputs import Gain
from tests.conftest import slow

EVERYTHING = {
    "setups": SetupRanges(
        montages=["biosemi16", "biosemi32"],
        noise=NoiseRanges(
            coloured=(0.1, 1),
            brain=(0.1, 1),
            line=(0.01, 0.1),
            drift=(0.01, 0.1),
            variance_change=(0.0, 0.3),
        ),
        coregistration_shift=0.0035,
        coregistration_rotation=3,
        subset=0.5,
        dropout=(0.1, 0.2),
        references=("average", "electrode", "linked-ears"),
        baseline=(100, 500),
    ),
    "sources": PatchSources(
        (1, 4),
        (0.02, 0.05),
        shapes=("gaussian", "flat", "diffused", "point", "field"),
        placement="depth",
        correlation=(0.0, 0.9),
    ),
    "artifacts": [Blinks(), Muscle(), ElectrodePops()],
    "n_times": 20,
}


def test_same_key_same_batch(simulate):
    first, again = (simulate(seed=3, **EVERYTHING).batch(5) for _ in range(2))
    assert torch.equal(first.data, again.data)
    assert torch.equal(first.sources, again.sources)
    assert first.head.sensors.names == again.head.sensors.names


def test_a_batch_does_not_depend_on_those_before_it(simulate):
    """So a run resumes: a run that starts at step 5 gets the batches of the killed one."""
    resumed = simulate(seed=3, pool_size=2, pool_period=4, **EVERYTHING)
    whole = simulate(seed=3, pool_size=2, pool_period=4, **EVERYTHING)
    for step in range(5):
        whole.batch(step)
    assert torch.equal(whole.batch(5).data, resumed.batch(5).data)


def test_other_keys_other_batches(simulate):
    draws = [
        simulate(seed=3).batch(5),
        simulate(seed=4).batch(5),
        simulate(seed=3, split="validation").batch(5),
        simulate(seed=3).batch(5, rank=1),
        simulate(seed=3).batch(6),
    ]
    seen = [d.scene.tissues for d in draws]
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


KINDS = {
    "white": {},
    "coloured": {"coloured": (10, 10)},
    "brain": {"brain": (10, 10)},
    "line": {"line": (10, 10)},
    "drift": {"drift": (10, 10)},
    "all": {"coloured": (1, 1), "brain": (1, 1), "line": (1, 1), "drift": (1, 1)},
    "changing variance": {"brain": (1, 1), "variance_change": (0.4, 0.4)},
}


@pytest.mark.parametrize(
    ("kind", "n_times"),
    [
        (kind, n) if n == 25 and kind in ("white", "all", "changing variance") else slow(kind, n)
        for kind in KINDS
        for n in (1, 25)
    ],
)
def test_realised_snr_is_the_requested_one(simulate, kind, n_times):
    """For every kind of noise, mostly alone, within the standard error of its own draws."""
    setups = SetupRanges(["biosemi16"], noise=NoiseRanges(**KINDS[kind]))
    recordings = simulate(setups=setups, snr_db=(5, 5), n_times=n_times, batch_size=4000)
    parts = recordings.parts(0)
    signal_power = parts.clean.square().sum((1, 2))
    assert torch.allclose(signal_power, signal_power[0].expand(4000), rtol=1e-3)
    noise_power = parts.noise.square().sum((1, 2))
    standard_error = (noise_power.std() / noise_power.mean() / 4000**0.5).item()
    ratio = (signal_power[0] / noise_power.mean()).item()
    assert standard_error < 0.06
    assert ratio == pytest.approx(10**0.5, rel=4 * standard_error)


def test_given_moments_are_kept_and_the_snr_follows(simulate):
    sources = PatchSources((1, 1), (0.03, 0.06), moment=(2e-8, 2e-8))
    parts = simulate(sources=sources, snr_db=None, batch_size=64).parts(0)
    scene, sources = parts.batch.scene, parts.batch.sources
    assert torch.allclose(scene.moments, torch.tensor(2e-8))
    assert torch.allclose(sources.abs().sum((1, 2)), torch.tensor(2e-8), rtol=1e-4)
    power = parts.clean.square().sum((1, 2)) / np.trace(parts.batch.head.noise_cov)
    assert torch.allclose(scene.snr_db, 10 * power.log10().float(), atol=1e-3)


def test_moments_stop_at_the_largest_and_the_snr_gives_way(simulate):
    free = simulate(snr_db=(20, 20), batch_size=64).parts(0)
    limit = free.batch.scene.moments.amax(1).median().item()
    held = simulate(snr_db=(20, 20), batch_size=64, largest_moment=limit).parts(0)
    assert held.batch.scene.moments.max() <= limit * 1.0001
    gave_way = free.batch.scene.moments.amax(1) > limit * 1.0001
    assert 20 < gave_way.sum() < 44
    scene = held.batch.scene
    assert torch.allclose(scene.snr_db[~gave_way], torch.tensor(20.0), atol=1e-3)
    power = held.clean.square().sum((1, 2)) / np.trace(held.batch.head.noise_cov)
    assert torch.allclose(scene.snr_db, 10 * power.log10().float(), atol=1e-3)


@pytest.mark.parametrize("n_times", [1, 20])
def test_every_example_is_rendered_through_its_own_lead_field(simulate, toy, n_times):
    """Equal to the float64 lead field at the drawn tissues and electrodes."""
    settings = EVERYTHING | {"n_times": n_times, "artifacts": []}
    recordings = simulate(snr_db=(10, 10), **settings)
    parts = recordings.parts(0)
    true, gains = parts.batch.true_leadfield, []
    for i, tissues in enumerate(parts.batch.scene.tissues.double().tolist()):
        core = np.einsum("k,kpr->pr", toy.family.coefficients(Tissues(*tissues)), toy.family.core)
        gain = true.patterns[i].double().numpy() @ core @ toy.family.source_modes.T
        expected = gain @ parts.batch.sources[i].double().numpy()
        assert np.allclose(parts.clean[i], expected, rtol=0, atol=2e-3 * abs(expected).max())
        gains.append(gain)
    assert not np.allclose(gains[0], gains[1], rtol=0.01)
    assert not np.allclose(gains[0], parts.batch.head.leadfield, rtol=0.01)


def test_true_leadfield_renders_the_clean_potential(simulate):
    for n_times in (1, 20):
        parts = simulate(**(EVERYTHING | {"n_times": n_times})).parts(0)
        again = parts.batch.true_leadfield.project(parts.batch.sources)
        assert torch.allclose(again, parts.clean, atol=1e-4 * parts.clean.abs().max())
        matrices = parts.batch.true_leadfield.matrices() @ parts.batch.sources
        assert torch.allclose(matrices, again, atol=1e-5 * again.abs().max())


def test_parts_add_up(simulate):
    parts = simulate(**EVERYTHING).parts(0)
    total = parts.clean + parts.noise + sum(parts.artifacts)
    assert torch.allclose(parts.batch.data, total, rtol=1e-4, atol=1e-4 * total.abs().max())
    for n, artifact in enumerate(parts.artifacts):
        there = artifact.abs().amax((1, 2)) > 0
        assert torch.equal(there, parts.batch.scene.artifacts[:, n])


def test_recordings_are_average_referenced(simulate):
    batch = simulate(**EVERYTHING).batch(0)
    assert batch.data.mean(1).abs().max() < 1e-5 * batch.data.abs().max()


def test_inputs_are_those_of_the_nominal_head(simulate):
    gain = Gain()
    batch = simulate([gain]).batch(0)
    assert np.allclose(batch.inputs[gain.key].numpy(), batch.head.leadfield, rtol=1e-5)


def test_ranks_and_splits_never_share_an_example(simulate):
    """Forty batches of four streams: no two examples alike."""
    streams = [(simulate(seed=1), rank) for rank in (0, 1)]
    streams += [(simulate(seed=1, split=split), 0) for split in ("validation", "test")]
    seen = [r.batch(step, rank).scene.snr_db for r, rank in streams for step in range(10)]
    assert len(torch.cat(seen).unique()) == 40 * 8


def test_heads_of_a_cohort_take_turns_and_never_change_sides(simulate, toy):
    member = replace(toy, name="warp0", warp_seed=0, source_pos=1.05 * toy.source_pos)
    recordings = simulate(heads=[toy, member], pool_size=1, pool_period=1)
    names = {recordings.batch(step).scene.head_name for step in range(12)}
    assert names == {"toy", "warp0"}
    for split in ("validation", "test"):
        with pytest.raises(ValueError, match=f"'warp0' belongs to the split 'train'.*'{split}'"):
            simulate(heads=[member], split=split)


def test_heads_of_other_spaces_are_refused(simulate, toy, template):
    with pytest.raises(ValueError, match="different source spaces"):
        simulate(heads=[toy, template])
    with pytest.raises(ValueError, match="no head for the split 'train'"):
        simulate(heads=[])


def test_sources_without_a_mesh_are_points(simulate, toy):
    bare = replace(toy, space=replace(toy.space, edges=np.empty((0, 2), dtype=int)))
    with pytest.raises(ValueError, match=r"has no mesh, so .*'gaussian'.*shapes=\[point\]"):
        simulate(heads=bare)
    points = PatchSources((1, 2), shapes=["point"])
    assert (simulate(heads=bare, sources=points).batch(0).sources != 0).sum(1).max() == 2


def test_an_analyst_without_the_anatomy_has_the_template(simulate, toy):
    member = replace(toy, name="warp0", warp_seed=0, source_pos=1.05 * toy.source_pos)
    setups = SetupRanges(["biosemi16"], own_anatomy=False)
    recordings = simulate(heads=[member], nominal_head=toy, setups=setups)
    for step in range(6):
        assert np.array_equal(recordings.batch(step).head.source_pos, toy.source_pos)


def test_curriculum_opens_ranges_in_training_only(simulate):
    closed = Curriculum(100, **dict.fromkeys(ASPECTS, ((0.5, 0.0), (1.0, 1.0))))
    recordings = simulate(curriculum=closed, **EVERYTHING)
    early, late = recordings.batch(0), recordings.batch(100)
    assert set(recordings.widths(0).values()) == {0.0}
    assert set(recordings.widths(100).values()) == {1.0}
    assert torch.allclose(early.scene.tissues.std(0), torch.zeros(4), atol=1e-6)
    assert (late.scene.tissues.std(0) > 0).all()
    assert not early.scene.artifacts.any()
    assert (early.true_leadfield.patterns == early.true_leadfield.patterns[:1]).all()
    assert early.head.n_channels == 16
    assert ((early.scene.peaks >= 0).sum(1) == 1).all()
    assert (late.scene.peaks >= 0).sum(1).max() == 4
    assert simulate(curriculum=closed, split="validation").batch(0).scene.tissues.std(0).min() > 0


def test_free_orientation(simulate, toy):
    """Three components per source, along the normal or anywhere."""
    modes = np.repeat(toy.family.source_modes, 3, axis=0)
    free = replace(
        toy,
        family=replace(toy.family, source_modes=modes),
        space=replace(toy.space, n_orient=3),
    )
    for orientation in ("normal", "random"):
        sources = PatchSources((1, 1), (0.03, 0.06), orientation=orientation)
        batch = simulate(heads=free, sources=sources).batch(0)
        assert batch.sources.shape == (8, 252, 1)
        moments = batch.sources[..., 0].unflatten(1, (84, 3)).double()
        at_peak = moments[torch.arange(8), batch.scene.peaks[:, 0]]
        normals = torch.as_tensor(toy.source_normals)[batch.scene.peaks[:, 0]]
        cosine = (at_peak * normals).sum(1).abs() / at_peak.norm(dim=1)
        along = bool((cosine > 0.999).all())
        assert along == (orientation == "normal")
    off_surface = replace(free, source_normals=np.zeros_like(toy.source_normals))
    moments = simulate(heads=off_surface).batch(0).sources[..., 0].unflatten(1, (84, 3))
    assert (moments.abs().amax((0, 1)) > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tissues": TissueRanges(skull_conductivity=(0.001, 0.03))}, r"0.001.*lies outside"),
        ({"snr_db": (20, 0)}, "snr_db 20 to 0 must be an ascending range"),
        ({"batch_size": 0}, "must be 1 or more"),
        ({"window_batch_size": 0}, "window_batch_size and n_times must be 1 or more, got 8, 0"),
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"seed": -1}, "must not be negative"),
        ({"pool_size": 0}, "size must be 1 or more"),
        ({"montage": "biosemi65"}, "MNE has no montage 'biosemi65'"),
        ({"montage": "EGI_256"}, "lie .* mm off the scalp"),
        ({"n_times": 20, "sfreq": 50.0}, "Gabor: its ranges reach"),
    ],
)
def test_what_cannot_be_drawn_is_refused(simulate, settings, message):
    with pytest.raises(ValueError, match=message):
        simulate(**settings).batch(0)


def test_lengths_take_turns_in_a_drawn_order(simulate):
    recordings = simulate(seed=2, n_times=[1, 1, 5])
    lengths = [recordings.batch(step).data.shape[2] for step in range(12)]
    assert all(sorted(lengths[i : i + 3]) == [1, 1, 5] for i in range(0, 12, 3))
    assert len({tuple(lengths[i : i + 3]) for i in range(0, 12, 3)}) > 1
    assert recordings.batch(4, rank=1).data.shape[2] == lengths[4]


def test_batches_of_windows_may_be_smaller(simulate):
    recordings = simulate(n_times=[1, 5], batch_size=6, window_batch_size=2)
    shapes = {recordings.batch(step).data.shape[::2] for step in range(2)}
    assert shapes == {(6, 1), (2, 5)}


@pytest.mark.parametrize("n_times", [0, [1, 0], []])
def test_lengths_below_one_are_refused(simulate, n_times):
    with pytest.raises(ValueError, match="n_times must be 1 or more"):
        simulate(n_times=n_times)
