"""Rank for the localization of a recording: from the noise covariance, or given by the user."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.head import HeadModel
from deepesi.physics.io.coils import sss_rank
from deepesi.physics.noise import of_rank, rank_of
from deepesi.physics.sensors import SensorArray

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: As in MNE-Python. None: what the noise covariance spans. ``"info"``: the channels less reference
#: and applied projectors. A number: that many dimensions. ``{"eeg": 30, "meg": 64}``: that many of
#: each modality; of one that is not named, what the noise covariance spans.
RankChoice: TypeAlias = int | Literal["info"] | Mapping[str, int] | None
#: Fewest dimensions for localization.
MIN_RANK = 7


def applied_projector(info: "mne.Info", sensors: SensorArray) -> Array | None:
    """Projector ``(C, C)`` of reference and signal-space projection together; None without SSP.

    Projectors of the reference do not count, nor do those of EEG that were not applied. Those of
    MEG count in any case, as in MNE-Python, which applies them before an inverse: whitening then
    removes the same dimensions from the recording.

    Args:
        info: Measurement info with ``projs``.
        sensors: The channels.

    """
    from mne._fiff.constants import FIFF
    from mne.proj import make_projector

    names = list(sensors.names)
    coils = {n for n, m in zip(names, sensors.modalities, strict=True) if m == "meg"}
    applied = [
        p
        for p in info["projs"]
        if (p["active"] or coils & set(p["data"]["col_names"]))
        and p["kind"] != FIFF.FIFFV_PROJ_ITEM_EEG_AVREF
        and set(p["data"]["col_names"]) & set(names)
    ]
    if not applied:
        return None
    everything = np.eye(len(names))
    ssp, _, _ = make_projector(applied, names)
    removed = np.hstack([everything - sensors.reference_operator, everything - ssp])
    left, values, _ = np.linalg.svd(removed, full_matrices=False)
    basis = left[:, values > 1e-6 * values[0]]
    return np.asarray(everything - basis @ basis.T)


def with_rank(head: HeadModel, info: "mne.Info", rank: RankChoice = None) -> HeadModel:
    """The head with noise under applied projectors and of the requested rank.

    The lead field does not change: whitening projects it onto the dimensions of the noise.

    Args:
        head: The head with the measured noise covariance.
        info: Measurement info of the recording; its applied projectors are applied to the noise.
        rank: Dimensions of the noise, as in `RankChoice`. A number below what the covariance spans
            excludes the dimensions of smallest variance.

    Raises:
        ValueError: A rank that the covariance does not have, or a rank too low for localization.

    """
    _check_choice(rank, head.sensors)
    projector = applied_projector(info, head.sensors)
    if projector is not None:
        units = head.sensors.head_units
        in_units = projector / units[:, None] * units
        noise = head.sensors.reference_cov(in_units @ head.noise_cov @ in_units.T)
        head = replace(head, noise_cov=noise)
    _warn_of_sss(head, projector, info, rank)
    spanned = rank_of(head.noise_cov)
    if spanned < MIN_RANK:
        raise ValueError(
            f"noise covariance: it spans {spanned} dimensions of {head.n_channels} channels, "
            f"expected at least {MIN_RANK}. Too much was removed from the recording (ICA, "
            "projectors, interpolation), or the covariance is of too few samples."
        )
    if rank is None:
        return head
    if isinstance(rank, Mapping):
        kept: int | dict[str, int] = _by_modality(head, rank)
    elif rank == "info":
        kept = _by_info(head.sensors, projector, info)
    else:
        kept = int(rank)
    wanted = kept if isinstance(kept, int) else sum(kept.values())
    if not MIN_RANK <= wanted <= spanned:
        raise ValueError(
            f"rank: {wanted} dimensions asked for (rank={rank!r}, --rank {rank}); the noise "
            f"covariance spans {spanned} and at least {MIN_RANK} are needed. Leave it out to use "
            "all that the covariance spans."
        )
    if isinstance(kept, int):
        return replace(head, noise_cov=of_rank(head.noise_cov, kept))
    noise, blocks = np.zeros_like(head.noise_cov), _blocks(head.sensors)
    for modality, number in kept.items():
        own = blocks[modality]
        noise[own] = of_rank(head.noise_cov[own], number)
    return replace(head, noise_cov=noise)


def _by_modality(head: HeadModel, rank: Mapping[str, int]) -> dict[str, int]:
    """Given dimensions of some modalities; of the others what the noise covariance spans."""
    spanned = {name: rank_of(head.noise_cov[own]) for name, own in _blocks(head.sensors).items()}
    lacking = {name: spanned[name] for name, kept in rank.items() if kept > spanned[name]}
    if lacking:
        raise ValueError(
            f"rank: got {dict(rank)}, but the noise covariance spans {lacking}. Leave a "
            "modality out to use all that the covariance spans."
        )
    return spanned | dict(rank)


def _check_choice(rank: RankChoice, sensors: SensorArray) -> None:
    def is_number(value: object) -> bool:
        return isinstance(value, int | np.integer) and not isinstance(value, bool)

    if isinstance(rank, Mapping):
        known = set(sensors.modalities)
        if rank and rank.keys() <= known and all(is_number(v) and v > 0 for v in rank.values()):
            return
        raise ValueError(
            f"rank: got {dict(rank)}, expected a number of dimensions, 1 or more, for some of the "
            f"modalities of the recording: {', '.join(sorted(known))}. (Magnetometers and "
            "gradiometers have one rank, that of 'meg'.)"
        )
    if not (rank is None or rank == "info" or is_number(rank)):
        raise ValueError(
            f"rank: got {rank!r}, expected None (what the noise covariance spans), 'info' (the "
            "channels less reference and projectors), a number of dimensions, or one for each "
            "modality ({'eeg': 30})."
        )


def _blocks(sensors: SensorArray) -> dict[str, tuple[NDArray[np.intp], ...]]:
    """Index of the part of a covariance that belongs to each modality."""
    modalities = np.array(sensors.modalities)
    rows = {name: np.flatnonzero(modalities == name) for name in dict.fromkeys(sensors.modalities)}
    return {name: np.ix_(own, own) for name, own in rows.items()}


def _by_info(sensors: SensorArray, projector: Array | None, info: "mne.Info") -> dict[str, int]:
    """Channels of every modality less reference and projectors; of MEG at most those after SSS."""
    operator = sensors.reference_operator if projector is None else projector
    kept = dict.fromkeys(sensors.modalities, 0.0)
    for modality, share in zip(sensors.modalities, np.diag(operator), strict=True):
        kept[modality] += float(share)
    left = sss_rank(info)
    if left is not None and "meg" in kept:
        removed = sensors.modalities.count("meg") - kept["meg"]  # by projectors, as in MNE-Python
        kept["meg"] = min(kept["meg"], left - removed)
    return {modality: round(number) for modality, number in kept.items()}


class RankWarning(UserWarning):
    """A noise covariance spans more dimensions than the recording can have."""


def _warn_of_sss(
    head: HeadModel, projector: Array | None, info: "mne.Info", rank: RankChoice
) -> None:
    """Warn if a covariance spans more dimensions of MEG than remain after Maxwell filtering."""
    blocks = _blocks(head.sensors)
    if sss_rank(info) is None or rank is not None or "meg" not in blocks:
        return
    left = _by_info(head.sensors, projector, info)["meg"]
    block = head.noise_cov[blocks["meg"]]
    spanned = rank_of(block)
    if spanned > left:
        warnings.warn(
            f"noise covariance: it spans {spanned} dimensions of the {len(block)} MEG channels, "
            f"but Maxwell filtering (SSS) and projectors left {left} in the recording. "
            "Whitening would amplify what was removed. Compute the covariance after Maxwell "
            "filtering without regularization, or give the rank (rank='info', --rank info: MEG at "
            f"most {left}).",
            RankWarning,
            stacklevel=2,
        )


def rank_reason(head: HeadModel, rank: RankChoice = None) -> str:
    """Reason for the rank that `with_rank` chose, as text."""
    if rank == "info":
        return "channels less reference and applied projectors"
    if rank is not None:
        return "as asked for"
    if rank_of(head.noise_cov) == head.sensors.rank:
        return head.sensors.reference_name or "as many as channels"
    return "what its noise covariance spans: cleaned, projected or interpolated"
