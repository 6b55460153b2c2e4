"""``deepesi apply`` and ``prepare``: a recording through an exported file, without torch."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepesi.export.runtime import Inverse, Localization, PreparedInverse
from deepesi.physics.files import atomic
from deepesi.physics.template import template_of

if TYPE_CHECKING:
    import mne


def read_evoked(path: Path, condition: str | None) -> "mne.Evoked":
    """One evoked response of a file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Several conditions and none chosen, or no such condition.

    """
    import mne

    if not path.is_file():
        raise FileNotFoundError(f"there is no recording {path}.")
    evokeds = mne.read_evokeds(path, proj=False, verbose="error")
    names = [evoked.comment for evoked in evokeds]
    if condition is None:
        if len(evokeds) > 1:
            raise ValueError(f"{path} holds {len(names)} conditions; choose one of {names}.")
        return evokeds[0]
    if condition.isdigit() and int(condition) < len(evokeds):
        return evokeds[int(condition)]
    if names.count(condition) != 1:
        raise ValueError(
            f"{path} holds {names.count(condition)} conditions {condition!r}: {names}."
        )
    return evokeds[names.index(condition)]


def _prepared(
    model: Path,
    info: "mne.Info",
    noise_cov: Path | None,
    forward: Path | None,
    head: str | None,
    nave: int,
) -> PreparedInverse:
    import mne

    if noise_cov is None:
        raise ValueError(
            "the noise covariance is missing: the model needs to know how large the noise is. Give "
            "--noise-cov COV.fif (mne.compute_covariance of the baseline of single trials)."
        )
    for path in (noise_cov, forward):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")
    own = None if forward is None else mne.read_forward_solution(forward, verbose="error")
    covariance = mne.read_cov(noise_cov, verbose="error")
    return Inverse.load(model, head=head).for_recording(info, covariance, own, nave)


def apply(
    model: Path,
    recording: Path,
    condition: str | None,
    noise_cov: Path | None,
    forward: Path | None,
    head: str | None,
    prepared: Path | None,
    window: Sequence[float],
    out: Path,
) -> Iterator[str]:
    """Localize a recording: write ``OUT-lh.stc``, ``OUT-rh.stc``, ``OUT.png``; say what was done.

    Raises:
        ValueError: The recording does not fit the model; nothing is written.

    """
    evoked = read_evoked(recording, condition)
    if evoked.baseline is None and evoked.times[0] < 0:
        evoked.apply_baseline((None, 0), verbose="error")
        yield f"baseline: mean of {1e3 * evoked.times[0]:.0f}-0 ms subtracted (the file had none)"
    if prepared is not None and (noise_cov, forward, head) != (None, None, None):
        raise ValueError(
            "--prepared holds noise and head already; leave --noise-cov, --forward, --head out."
        )
    if prepared is None:
        inverse = _prepared(model, evoked.info, noise_cov, forward, head, evoked.nave)
    else:
        inverse = Inverse.load(model).for_prepared(prepared)
        yield f"{prepared}: {inverse.origin}"
    bads = [c for c in evoked.info["bads"] if c in evoked.ch_names]
    left_out = f"left out as bad: {bads or 'none'}"
    yield f"{len(inverse.ch_names)} EEG channels, {evoked.nave} trials; {left_out}"
    inside = (evoked.times >= window[0]) & (evoked.times <= window[1])
    if not inside.any():
        raise ValueError(
            f"--window {window[0]:g} {window[1]:g} s lies outside the recording "
            f"({evoked.times[0]:g} to {evoked.times[-1]:g} s)."
        )
    result = inverse.apply(evoked)
    power = ((inverse.whitener @ result.eeg) ** 2).mean(axis=0)
    power = np.where(inside, power, -math.inf)
    sample = int(power.argmax())
    where = peak_position(result, inverse, sample)
    yield (
        f"strongest at {1e3 * evoked.times[sample]:.0f} ms, whitened power {power[sample]:.1f} "
        f"times the noise; strongest source there: {where}"
    )
    yield from write(result, inverse, evoked, sample, where, out)


def peak_position(result: Localization, inverse: PreparedInverse, sample: int) -> str:
    """The strongest source of one sample in words: MNI position where the space has one."""
    vertex = int(np.abs(result.stc.data[:, sample]).argmax())
    n_left = len(inverse.space.vertices[0])
    hemisphere = "left" if vertex < n_left else "right"
    number = np.concatenate(inverse.space.vertices)[vertex]
    text = f"{hemisphere} hemisphere, vertex {number}"
    template = template_of(inverse.space)
    if template is not None:
        x, y, z = template.source_mni[vertex]
        text += f", MNI ({x:.0f}, {y:.0f}, {z:.0f}) mm"
    return text


def write(
    result: Localization,
    inverse: PreparedInverse,
    evoked: "mne.Evoked",
    sample: int,
    where: str,
    out: Path,
) -> Iterator[str]:
    """Write the source estimates and the picture, each whole or not at all."""
    from deepesi.viz.recording import recording_figure, save_figure

    template = template_of(inverse.space)
    info = evoked.info
    rows = [info["ch_names"].index(c) for c in inverse.ch_names]
    figure = recording_figure(
        result.eeg,
        evoked.times,
        np.array([info["chs"][i]["loc"][:3] for i in rows]),
        inverse.ch_names,
        np.abs(result.stc.data[:, sample]),
        sample,
        None if template is None else template.display,
        f"{evoked.comment}, {evoked.nave} trials",
        where,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    for suffix, stc in (("", result.stc), ("-std", result.std)):
        if stc is None:
            continue
        left, right = (out.with_name(f"{out.name}{suffix}-{side}.stc") for side in ("lh", "rh"))
        with atomic(left) as left_partial, atomic(right) as right_partial:
            stem = out.with_name(f".{out.name}{suffix}")
            stc.save(stem, ftype="stc", overwrite=True, verbose="error")
            Path(f"{stem}-lh.stc").replace(left_partial)
            Path(f"{stem}-rh.stc").replace(right_partial)
        yield f"wrote {left}"
        yield f"wrote {right}"
    picture = out.with_name(f"{out.name}.png")
    save_figure(figure, picture)
    yield f"wrote {picture}"


def prepare(
    model: Path,
    recording: Path,
    noise_cov: Path | None,
    forward: Path | None,
    head: str | None,
    nave: int,
    out: Path,
) -> str:
    """Prepare a model for the set-up of a recording and write ``head.npz``."""
    import mne

    if not recording.is_file():
        raise FileNotFoundError(f"there is no recording {recording}.")
    info = mne.io.read_info(recording, verbose="error")
    inverse = _prepared(model, info, noise_cov, forward, head, nave)
    inverse.save(out)
    return f"wrote {out}: {len(inverse.ch_names)} channels, {inverse.space.name}"
