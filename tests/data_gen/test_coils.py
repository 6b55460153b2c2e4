"""MEG of simulated recordings: noise, SNR of each modality, rank, head position, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from deepesi.data_gen.anatomy import AnatomyRanges
from deepesi.data_gen.artifacts import Blinks
from deepesi.data_gen.coils import CoilRanges, inside_projector
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.noise import NoiseRanges
from deepesi.data_gen.setups import SetupRanges, channel_range, drawn_kinds
from deepesi.physics.dipoles import DipoleWeights
from deepesi.physics.family import NOMINAL
from deepesi.physics.helmets import helmet
from deepesi.physics.magnetic_sphere import magnetic_leadfield
from deepesi.physics.noise import rank_of
from deepesi.physics.template import load_template

NOISE = NoiseRanges(white=(0.1, 1.0), coloured=(0.1, 1.0), brain=(0.1, 1.0))


def recordings(setups=None, **coils):
    ranges = {"arrays": ["opm64"], "snr_db": (0.0, 0.0)} | coils
    setups = setups or SetupRanges(["biosemi32"], noise=NOISE, coils=CoilRanges(**ranges))
    return SimulatedRecordings(
        setups=setups, batch_size=64, pool_size=1, pool_period=1, snr_db=(10.0, 10.0)
    )


def rows(head, modality):
    return np.flatnonzero(np.array(head.sensors.modalities) == modality)


def test_snr_is_the_mean_over_the_modalities():
    parts = recordings().parts(0)
    variances = np.diag(parts.setup.noise.cov)
    ratios = [
        parts.clean[:, own].square().sum((1, 2)).numpy() / variances[own].sum()
        for own in (rows(parts.setup.head, modality) for modality in ("eeg", "meg"))
    ]
    assert np.allclose(10 * np.log10(np.mean(ratios, axis=0)), 10, atol=1e-3)


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 6.0])
def test_meg_has_the_drawn_snr_for_a_mean_source(snr_db):
    setup = recordings(snr_db=(snr_db, snr_db)).parts(0).setup
    tissues = torch.tensor([[0.01, 0.006, 0.33, 0.33]])
    gain = setup.draw_leadfields(tissues, None, torch.Generator()).matrices()[0].numpy()
    ratio = {
        modality: (gain[own] ** 2).sum() / np.diag(setup.noise.cov)[own].sum()
        for modality in ("eeg", "meg")
        for own in [rows(setup.head, modality)]
    }
    assert 10 * np.log10(ratio["meg"] / ratio["eeg"]) == pytest.approx(snr_db, abs=2)


def test_realised_noise_has_the_covariance():
    noise = recordings().parts(0).setup.noise
    drawn = noise.draw(20000, 1, 250.0, torch.Generator().manual_seed(0))[..., 0].double().numpy()
    cov = drawn.T @ drawn / len(drawn)
    scale = np.sqrt(np.outer(np.diag(noise.cov), np.diag(noise.cov)))
    assert np.abs((cov - noise.cov) / scale).max() < 0.05


def test_both_modalities_see_the_same_sources():
    parts = recordings().parts(0)
    gain = parts.batch.true_leadfield.matrices()
    assert torch.allclose(gain @ parts.batch.sources, parts.clean, atol=1e-3 * parts.clean.std())
    alone = recordings(SetupRanges(["biosemi32"], noise=NOISE)).parts(0)
    eeg = rows(parts.setup.head, "eeg")
    assert alone.batch.data.shape[1] == len(eeg)


def test_the_head_moves_in_the_helmet():
    """Examples have positions of their own, near the one that the analyst has."""
    parts = recordings().parts(0)
    gain, own = parts.batch.true_leadfield.matrices().numpy(), rows(parts.setup.head, "meg")
    nominal = parts.setup.head.leadfield[own]
    apart = [np.linalg.norm(g[own] - nominal) / np.linalg.norm(nominal) for g in gain]
    assert 0.005 < min(apart) < max(apart) < 0.5
    assert len(np.unique(np.round(apart, 6))) == len(parts.setup.coils)


def test_the_analyst_takes_both_for_independent():
    head = recordings().parts(0).setup.head
    assert not head.noise_cov[np.ix_(rows(head, "eeg"), rows(head, "meg"))].any()


def test_maxwell_filtering_lowers_the_rank():
    head = recordings(arrays=["neuromag306"], sss=1.0, rank=(64, 64)).parts(0).setup.head
    own = rows(head, "meg")
    assert rank_of(head.noise_cov[np.ix_(own, own)]) == 64
    assert rank_of(head.noise_cov) == 64 + 31


def test_maxwell_filtering_keeps_the_brain():
    """The projector leaves nearly all of the field of sources in the head."""
    template = load_template()
    coils = CoilRanges()._placed("neuromag306", template, np.random.default_rng(0))
    gain = template.magnetic.leadfield(NOMINAL, coils)
    kept = np.linalg.norm(inside_projector(coils, 70) @ gain) / np.linalg.norm(gain)
    assert 0.9 < kept < 1


def test_recordings_without_meg_stay_as_they_are():
    """The settings of MEG change no number where there is none."""
    setups = SetupRanges(["biosemi32"], noise=NOISE)
    first, again = (recordings(replace(setups)).batch(0).data for _ in range(2))
    assert torch.equal(first, again)
    assert recordings(setups).parts(0).setup.channel_weights is None


def test_channels_are_counted():
    template, n = load_template(), len(helmet("neuromag306"))

    def sizes(**shares):
        return channel_range(template, SetupRanges(["biosemi32"], coils=CoilRanges(**shares)))

    assert channel_range(template, SetupRanges(["biosemi32"])) == (32, 32)
    assert sizes() == (32 + n, 32 + n)
    assert sizes(eeg_only=0.5) == (32, 32 + n)
    assert sizes(meg_only=0.5) == (n, 32 + n)
    assert sizes(meg_only=1.0) == (n, n)
    assert sizes(eeg_only=0.5, meg_only=0.5) == (32, n)


def test_kinds_of_sensors_are_those_that_are_drawn():
    def kinds(**ranges):
        return drawn_kinds(load_template(), SetupRanges(coils=CoilRanges(**ranges)))

    assert drawn_kinds(load_template(), SetupRanges()) == ["eeg"]
    assert kinds() == ["eeg", "grad", "mag"]
    assert kinds(arrays=["opm64"], meg_only=1.0) == ["mag"]
    assert kinds(eeg_only=1.0) == ["eeg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arrays": ["squid"]}, r"arrays \['squid'\] unknown, expected some of .*'ctf275'"),
        ({"gap": (0.02, 0.01)}, "gap"),
        ({"rank": (5, 10)}, "rank"),
        ({"eeg_only": 0.7, "meg_only": 0.7}, "above 1 together"),
        ({"position_error": 3.0}, "position_error"),
    ],
)
def test_ranges_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        CoilRanges(**change)


def test_meg_is_simulated_on_cortices_of_other_people():
    """One that differs in nothing has the fields of its head; others do not."""
    none = {"displacement": (0, 0), "turn": (np.inf, np.inf), "roughness": (np.inf, np.inf)}
    same = AnatomyRanges(**none, off_grid=False, rotation=(0, 0), shift=(0, 1e-9))
    coils = CoilRanges(["opm64"], meg_only=1.0, position_error=0.0, rotation_error=0.0)
    parts = recordings(SetupRanges(noise=NOISE, coils=coils, anatomy=same, baseline=None)).parts(0)
    cortex, active = parts.setup.true_head.fine_cortex, load_template().is_cortex
    tissues, rng = torch.tensor([[0.01, 0.006, 0.33, 0.33]]), torch.Generator().manual_seed(0)

    def cosines(gain):
        nominal = parts.setup.head.leadfield
        lengths = np.linalg.norm(gain, axis=0) * np.linalg.norm(nominal, axis=0)
        return ((gain * nominal).sum(0) / lengths)[active]

    assert np.quantile(cosines(parts.batch.true_leadfield.matrices()[0].numpy()), 0.01) > 0.99
    other = AnatomyRanges().draw(cortex, rng, with_meg=True)
    gain = parts.setup.draw_leadfields(tissues, other, rng).matrices()[0].numpy()
    assert 0.3 < np.median(cosines(gain)) < 0.98


def test_magnetic_fields_between_the_points_of_a_cortex():
    """Dipoles 0 to 4 mm from vertices, of any orientation, in a sphere with a known field."""
    fine, rng = load_template("fsaverage-ico4"), np.random.default_rng(0)
    pos, centre = fine.source_pos, fine.source_pos.mean(axis=0)
    rows = rng.choice(np.flatnonzero(fine.is_cortex), 100, replace=False)
    offset, normals = rng.normal(size=(2, 100, 3))
    offset *= 0.004 * rng.uniform(size=(100, 1)) / np.linalg.norm(offset, axis=1, keepdims=True)
    coils = CoilRanges()._placed("neuromag306", load_template(), rng)[range(0, 306, 9)]
    near = DipoleWeights.around(pos[rows], np.repeat(pos, 3, axis=0), np.tile(np.eye(3), (5124, 1)))
    whole = magnetic_leadfield(centre, coils, pos)
    found = np.einsum(
        "cnk,nk->cn", whole[:, near.nearest], near.weights(np.arange(100), normals, offset)
    )
    exact = magnetic_leadfield(centre, coils, pos[rows] + offset).reshape(len(coils), 100, 3)
    exact = np.einsum("cnj,nj->cn", exact, normals)
    alone = magnetic_leadfield(centre, coils, pos[rows]).reshape(len(coils), 100, 3)
    alone = np.einsum("cnj,nj->cn", alone, normals)  # the nearest point

    def rdm(field):
        off = field / np.linalg.norm(field, axis=0) - exact / np.linalg.norm(exact, axis=0)
        return np.percentile(np.linalg.norm(off, axis=0), [50, 95])

    assert np.allclose(rdm(found), [0.010, 0.046], rtol=0.05)  # as in docs/meg.md
    assert np.allclose(rdm(alone), [0.052, 0.165], rtol=0.05)


def test_what_is_not_simulated_with_meg_is_refused(toy):
    setups = SetupRanges(["biosemi32"], coils=CoilRanges())
    with pytest.raises(ValueError, match="artifacts are those of EEG"):
        SimulatedRecordings(setups=setups, artifacts=[Blinks()])
    with pytest.raises(ValueError, match="'toy' has no magnetic fields"):
        SimulatedRecordings(toy, setups=setups)
    warped, setups = load_template("warp9-ico3"), replace(setups, own_anatomy=False)
    with pytest.raises(ValueError, match="'warp9-ico3' needs its own anatomy"):
        SimulatedRecordings(warped, setups=setups, split="test")
