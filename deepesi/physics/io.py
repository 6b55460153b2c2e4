"""Recordings and forward solutions of MNE-Python to head models, checked at this border."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepesi.physics.cap_check import check_cap
from deepesi.physics.channel_names import check_electrodes, match_channels
from deepesi.physics.graph import mesh_edges
from deepesi.physics.head import HeadModel, SourceSpace
from deepesi.physics.noise import rank_of
from deepesi.physics.template import Template

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

MIN_CHANNELS = 8
#: Plausible standard deviation over time and channels of average-referenced EEG, V.
EEG_AMPLITUDE = (1e-9, 5e-4)
#: Samples per channel that a noise covariance is estimated from, at least.
FEWEST_SAMPLES = 3
#: A channel whose noise has so many times the standard deviation of the others is in another unit.
ANOTHER_UNIT = 1e3
#: Fewest samples that tell a dead channel from one that happens to rest.
FEWEST_FLAT = 8


def good_eeg_channels(info: "mne.Info") -> list[str]:
    """Names of the EEG channels that are not marked bad, in the order of the recording.

    Raises:
        ValueError: There are none, or fewer than 8; they are derivations, which no average
            reference can be made of, or their names say so, see `check_electrodes`; or projectors
            changed their topographies.

    """
    import mne
    from mne._fiff.constants import FIFF

    check_derivations(info)
    names = [info["ch_names"][i] for i in mne.pick_types(info, meg=False, eeg=True, exclude=[])]
    if not names:
        kinds = sorted(set(info.get_channel_types()))
        raise ValueError(
            f"recording: it has no EEG channels, only {', '.join(kinds)}. deepesi localizes EEG; "
            "set the channel types if they are wrong (set_channel_types)."
        )
    good = [c for c in names if c not in info["bads"]]
    if not good:
        raise ValueError(
            f"recording: all {len(names)} EEG channels are marked bad in info['bads'], so there is "
            "nothing to reference to an average. Unmark the good ones."
        )
    if len(good) < MIN_CHANNELS:
        raise ValueError(
            f"recording: {len(good)} good EEG channels ({', '.join(good)}), expected at least "
            f"{MIN_CHANNELS}. Use a recording with more channels."
        )
    check_electrodes(good)
    applied = [
        p["desc"]
        for p in info["projs"]
        if p["active"]
        and p["kind"] != FIFF.FIFFV_PROJ_ITEM_EEG_AVREF
        and set(p["data"]["col_names"]) & set(good)
    ]
    if applied:
        raise ValueError(
            f"recording: the projectors {applied} were applied to its EEG channels, which changed "
            "their topographies, and the lead field does not know. Use the data as they were "
            "before (del_proj before apply_proj), or remove artifacts by ICA or regression."
        )
    return good


def check_derivations(info: "mne.Info") -> None:
    """Refuse channels that are differences of electrodes or a surface Laplacian.

    Raises:
        ValueError: Some are.

    """
    import mne
    from mne._fiff.constants import FIFF

    picks = mne.pick_types(info, meg=False, eeg=True, exclude=())
    bipolar = [
        info["ch_names"][i]
        for i in picks
        if info["chs"][i]["coil_type"] == FIFF.FIFFV_COIL_EEG_BIPOLAR
    ]
    if bipolar:
        raise ValueError(
            f"recording: the channels {bipolar} are bipolar derivations, differences of two "
            "electrodes, which cannot be turned into the average reference. Give the recording "
            "before they were formed (before mne.set_bipolar_reference)."
        )
    has_csd = bool(mne.pick_types(info, meg=False, csd=True, exclude=()).size)
    if has_csd or info["custom_ref_applied"] == FIFF.FIFFV_MNE_CUSTOM_REF_CSD:
        raise ValueError(
            "recording: it holds a current source density (surface Laplacian), no potentials. "
            "Give the recording before mne.preprocessing.compute_current_source_density."
        )


def electrode_positions(info: "mne.Info", ch_names: list[str], origin: str = "recording") -> Array:
    """Electrode positions ``(C, 3)``, m, MNE head frame; `origin` says whose, for errors.

    Raises:
        ValueError: A channel has no position, or positions contradict names (see `check_cap`).

    """
    rows = {c["ch_name"]: c["loc"][:3] for c in info["chs"]}
    positions = np.array([rows[name] for name in ch_names], dtype=np.float64)
    absent = ~np.isfinite(positions).all(axis=1) | (np.abs(positions).sum(axis=1) == 0)
    if absent.any():
        names = [n for n, a in zip(ch_names, absent, strict=True) if a]
        raise ValueError(
            f"{origin}: {len(names)} of {len(ch_names)} EEG channels have no position: {names}. "
            "Set digitized positions or a template montage (set_montage, --montage), or mark "
            "them bad."
        )
    check_cap(ch_names, positions, origin)
    return positions


def noise_covariance(noise_cov: "mne.Covariance", ch_names: list[str], nave: float) -> Array:
    """Noise covariance ``(C, C)`` (V²) of an average of `nave` trials, in the order of `ch_names`.

    Raises:
        ValueError: A channel is missing from the covariance, a value is not finite or complex, it
            is not in V², it is of too few samples, or of channels that are constant or in other
            units than the others.

    """
    names = noise_cov["names"]
    matched = match_channels(ch_names, names)
    missing = [c for c, row in zip(ch_names, matched, strict=True) if row is None]
    if missing:
        raise ValueError(
            f"noise covariance: {len(missing)} of the {len(ch_names)} good EEG channels of the "
            f"recording are not in it: {missing[:10]}; it has {len(names)} channels, "
            f"{names[:5]} ... Compute it from the same recording, with the same bad channels."
        )
    rows = [row for row in matched if row is not None]
    data = noise_cov["data"]
    full = np.diag(data[rows]) if noise_cov["diag"] else data[np.ix_(rows, rows)]
    if not np.isfinite(full).all():
        raise ValueError("noise covariance: it holds NaN or infinite values. Compute it again.")
    if np.iscomplexobj(full):
        raise ValueError(
            "noise covariance: it is complex. Compute it again, from data before apply_hilbert."
        )
    check_nave(nave)
    level = float(np.sqrt(np.median(np.diag(full))))
    if not EEG_AMPLITUDE[0] < level < EEG_AMPLITUDE[1]:
        raise ValueError(
            f"noise covariance: its channels have a standard deviation of {level:.3g} (median); "
            f"EEG in volts has {EEG_AMPLITUDE[0]:g}-{EEG_AMPLITUDE[1]:g}. Covariances are in V² "
            "(for µV²: multiply by 1e-12)."
        )
    _check_channels(np.sqrt(np.diag(full).clip(0)), ch_names)
    if not noise_cov["diag"]:
        _check_samples(noise_cov, len(ch_names))
    return np.asarray(full, dtype=np.float64) / nave


def check_nave(nave: float) -> None:
    """Refuse a number of averaged trials that is none; fractions are effective numbers.

    Raises:
        ValueError: Zero, negative or not finite.

    """
    if not (np.isfinite(nave) and nave > 0):
        raise ValueError(
            f"number of averaged trials: got {nave:g}, expected a positive number, or a fraction "
            "(the difference of two single trials has 0.5, which MNE-Python saves as 0). Say it "
            "(nave=, --nave)."
        )


def _check_channels(deviations: Array, ch_names: list[str]) -> None:
    """Refuse channels without noise, and channels with far more or less of it than the others."""
    typical = np.median(deviations)
    constant = [c for c, d in zip(ch_names, deviations, strict=True) if d < 1e-6 * typical]
    if len(constant) > 1:  # one may be the reference
        raise ValueError(
            f"noise covariance: the channels {constant} are constant, as if nothing were "
            "connected. Mark them as bad (info['bads']) or leave them out (--exclude)."
        )
    unlike = [
        f"{c} ({d:.2g} V)"
        for c, d in zip(ch_names, deviations, strict=True)
        if c not in constant and not 1 / ANOTHER_UNIT < d / typical < ANOTHER_UNIT
    ]
    if unlike:
        raise ValueError(
            f"noise covariance: the standard deviation of {', '.join(unlike)} is more than "
            f"{ANOTHER_UNIT:g} times that of the others ({typical:.2g} V, median) or less than a "
            "thousandth. Is the channel in another unit, or no EEG? Convert it to volts, mark it "
            "as bad or leave it out (--exclude)."
        )


def _check_samples(noise_cov: "mne.Covariance", n_channels: int) -> None:
    """Refuse a covariance of too few samples, unless it was regularized for that."""
    n_free = noise_cov["nfree"]
    if noise_cov.get("method") not in (None, "empirical") or n_free is None or n_free < 1:
        return
    if n_free < FEWEST_SAMPLES * n_channels:
        raise ValueError(
            f"noise covariance: it is estimated from {n_free:g} samples, expected at least "
            f"{FEWEST_SAMPLES * n_channels}, {FEWEST_SAMPLES} for each of the {n_channels} "
            "channels. Take more trials or a longer baseline, or a regularized estimate "
            "(mne.compute_covariance(..., method='shrunk'))."
        )


def _check_rank(head: HeadModel) -> HeadModel:
    """Refuse noise that spans too few dimensions to tell sources apart."""
    rank = rank_of(head.noise_cov)
    if rank < MIN_CHANNELS - 1:
        raise ValueError(
            f"noise covariance: it spans {rank} dimensions of {head.n_channels} channels, expected "
            f"at least {MIN_CHANNELS - 1}. Too much was taken out of the recording (ICA, "
            "projectors, interpolation), or the covariance is of too few samples."
        )
    return head


def head_on_template(
    info: "mne.Info", noise_cov: "mne.Covariance", template: Template, nave: float = 1
) -> HeadModel:
    """The template head under the set-up of a recording: its good electrodes, its noise.

    Args:
        info: Measurement info with electrode positions in the head frame.
        noise_cov: Noise covariance of single trials.
        template: The head to use.
        nave: Number of trials averaged; the covariance is divided by it.

    Raises:
        ValueError: See `good_eeg_channels`, `electrode_positions`, `noise_covariance`, `HeadModel`.

    """
    ch_names = good_eeg_channels(info)
    electrodes = template.electrodes(electrode_positions(info, ch_names), ch_names)
    return _check_rank(
        template.head(ch_names, electrodes, noise_covariance(noise_cov, ch_names, nave))
    )


def head_from_forward(
    info: "mne.Info", noise_cov: "mne.Covariance", forward: "mne.Forward", nave: float = 1
) -> HeadModel:
    """The head of a forward solution under the set-up of a recording, fixed orientation.

    Args:
        info: Measurement info.
        noise_cov: Noise covariance of single trials.
        forward: Forward solution on a surface source space.
        nave: Number of trials averaged; the covariance is divided by it.

    Raises:
        ValueError: No channel in common, good channels that the forward solution lacks, a volume
            source space; or see `good_eeg_channels`, `noise_covariance`, `HeadModel`.

    """
    import mne

    good = good_eeg_channels(info)
    known = forward["sol"]["row_names"]
    matched = match_channels(good, known)
    common = [c for c, row in zip(good, matched, strict=True) if row is not None]
    missing = [c for c in good if c not in common]
    if not common:
        raise ValueError(
            f"forward solution: it has no channel in common with the recording. Recording: "
            f"{good[:5]} ...; forward solution: {known[:5]} ... Compute it for this recording, or "
            "rename the channels (mne.rename_channels)."
        )
    if len(common) < MIN_CHANNELS:
        raise ValueError(
            f"forward solution: only {len(common)} good EEG channels of the recording are in it "
            f"({common}), expected at least {MIN_CHANNELS}."
        )
    if missing:
        raise ValueError(
            f"forward solution: {len(missing)} good EEG channels of the recording are not in it: "
            f"{missing}. Compute it for all of them, or mark these as bad (info['bads'])."
        )
    electrode_positions(forward["info"], good, "forward solution")  # may be others than recorded
    if any(s["type"] != "surf" for s in forward["src"]):
        raise ValueError(
            "forward solution: its source space is not a cortical surface, and only surfaces are "
            "supported. Compute it with mne.setup_source_space."
        )
    fixed = mne.convert_forward_solution(
        forward, surf_ori=True, force_fixed=True, use_cps=False, verbose="error"
    )
    rows = [row for row in match_channels(good, fixed["sol"]["row_names"]) if row is not None]
    head = HeadModel.referenced(
        leadfield=fixed["sol"]["data"][rows],
        noise_cov=noise_covariance(noise_cov, good, nave),
        sensor_pos=electrode_positions(info, good),
        source_pos=fixed["source_rr"],
        source_normals=fixed["source_nn"],
        ch_names=good,
        space=source_space(fixed["src"]),
    )
    return _check_rank(head)


def source_space(src: Any, n_orient: int = 1) -> SourceSpace:
    """The source space of a forward solution, named ``subject-icoN`` where it is a full one.

    Neighbours are those of the mesh on a surface, and those nearest in a volume.
    """
    vertices = tuple(np.asarray(s["vertno"], dtype=np.int64) for s in src)
    edges, offset = [np.empty((0, 2), dtype=np.int64)], 0
    for part, numbers in zip(src, vertices, strict=True):
        if part["type"] == "surf":
            used = part["use_tris"] if part["nuse_tri"] else np.empty((0, 3), dtype=int)
            used = used[np.isin(used, numbers).all(axis=1)]
            pairs = mesh_edges(np.searchsorted(numbers, used))
        else:
            points = part["rr"][numbers]
            apart = cKDTree(points).query(points, k=2)[0][:, 1] if len(points) > 1 else [0.0]
            pairs = cKDTree(points).query_pairs(1.05 * np.median(apart), output_type="ndarray")
        edges.append(pairs.astype(np.int64) + offset)
        offset += len(numbers)
    subject = src[0].get("subject_his_id") or "unknown"
    kinds = "-".join(sorted({"surface" if s["type"] == "surf" else "volume" for s in src}))
    spacing = {642: "ico3", 2562: "ico4"}.get(len(vertices[0]), kinds)
    return SourceSpace(f"{subject}-{spacing}", vertices, np.concatenate(edges), n_orient)


def check_eeg(data: Array, ch_names: tuple[str, ...]) -> None:
    """Refuse data that cannot be EEG in volts.

    Args:
        data: ``(C, T)``, V, any reference.
        ch_names: ``C`` names.

    Raises:
        ValueError: NaN or infinite samples, an amplitude that is not one of volts, or channels that
            are constant (one that is zero throughout may be the reference).

    """
    broken = np.asarray(~np.isfinite(data).all(axis=1))
    if broken.any():
        names = [n for n, b in zip(ch_names, broken, strict=True) if b]
        raise ValueError(
            f"recording: NaN or infinite samples in channels {names}. Mark these channels as bad "
            "(info['bads']) or cut the samples out."
        )
    centred = data - data.mean(axis=0)
    if data.shape[1] > 1:
        centred = centred - centred.mean(axis=1, keepdims=True)
    low, high = EEG_AMPLITUDE
    amplitude = float(centred.std())
    own = (data - np.median(data, axis=0)).std(axis=1)  # a loud channel is not in the median
    if amplitude >= high and low < np.median(own) < high:
        loud = [n for n, d in zip(ch_names, own, strict=True) if d >= high]
        raise ValueError(
            f"recording: the channels {loud} have a standard deviation above {high:g} V, the "
            f"others of {np.median(own):.2g} V (median). Are they in another unit, or no EEG? "
            "Convert them to volts, mark them as bad (info['bads']) or leave them out (--exclude)."
        )
    if not low < amplitude < high:
        guess = "microvolts" if amplitude > high else "kilovolts, or a flat recording"
        raise ValueError(
            f"recording: the data range from {data.min():.3g} to {data.max():.3g} with standard "
            f"deviation {amplitude:.3g}; EEG in volts has {low:g}-{high:g}. They look like "
            f"{guess}. Convert to volts (for microvolts: --unit uV, or multiply by 1e-6)."
        )
    check_constant(data, ch_names)


def check_constant(data: Array, ch_names: Sequence[str]) -> None:
    """Refuse data ``(C, T)`` with constant channels; one that is zero may be the reference.

    Raises:
        ValueError: Several are constant, or one that is not zero.

    """
    flat = flat_channels(data)
    if len(flat) > 1 or (len(flat) == 1 and data[flat[0]].any()):
        raise ValueError(
            f"recording: the channels {[ch_names[i] for i in flat]} are constant, as if nothing "
            "were connected, and would be localized like any other. Mark them as bad "
            "(info['bads'])."
        )


def flat_channels(data: Array) -> NDArray[np.int64]:
    """Numbers of the channels ``(C, T)`` that are constant; none in a few samples."""
    if data.shape[1] < FEWEST_FLAT:
        return np.empty(0, dtype=np.int64)
    return np.flatnonzero(np.ptp(data, axis=1) == 0)
