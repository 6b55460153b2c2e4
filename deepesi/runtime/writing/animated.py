"""Movie and interactive page of a localized average."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import parcel_names
from deepesi.physics.template import DisplayMesh, Template
from deepesi.runtime.estimates import Localization, magnitudes_of
from deepesi.runtime.inverse import PreparedInverse
from deepesi.runtime.writing.estimate import Peak, in_window
from deepesi.utils.files import check_file_out

if TYPE_CHECKING:
    import mne

    from deepesi.runtime.recording_type import Recording
    from deepesi.viz.cortex_movie import CortexMovie

Array = NDArray[np.float64]

#: Most frames of a movie.
MAX_FRAMES = 120


@dataclass(frozen=True)
class AnimationOptions:
    """Movie and page of an average to write in addition to the estimate.

    Attributes:
        movie: ``.gif`` or ``.mp4`` file, or None.
        html: ``.html`` file, or None.
        fps: Frames of the movie per second.
        source: Model and recording, for the page.

    """

    movie: Path | None = None
    html: Path | None = None
    fps: float = 10.0
    source: str = ""


def check_animated(animated: AnimationOptions) -> None:
    """Refuse files that cannot be written, before anything is read.

    Raises:
        ValueError: Another suffix, no folder to write to, or a rate that the movie cannot have.
        ModuleNotFoundError: MP4 without imageio-ffmpeg.

    """
    from deepesi.viz.movie import check_movie

    if animated.movie is not None:
        check_movie(animated.movie, animated.fps)
        check_file_out(animated.movie, animated.movie.suffix, "--movie")
    if animated.html is not None:
        check_file_out(animated.html, ".html", "--html")


def check_shown(data: "Recording", inverse: PreparedInverse, window: Sequence[float]) -> None:
    """Refuse a recording that cannot be shown, before it is localized.

    Raises:
        ValueError: No average, a head without a cortex to draw on, or fewer than two samples.

    """
    import mne

    if not isinstance(data, mne.Evoked):
        raise ValueError(
            "--movie and --html show an average, and the recording is none. Average it about an "
            "event (--event NAME), or save epochs.average() as -ave.fif."
        )
    template = inverse.template
    if template is None or template.display is None:
        raise ValueError(
            "--movie and --html need a cortex to draw on, which the source space "
            f"{inverse.space.name} does not have. Use a packaged head, or stc.plot of MNE-Python "
            "with the surfaces of the subject."
        )
    n_samples = int(in_window(data.times, window).sum())
    if n_samples < 2:
        raise ValueError(
            f"--movie and --html need two samples or more, and {n_samples} lies in --window "
            f"{window[0]:g} {window[1]:g} s. The .png shows one sample."
        )


def write_animated(
    animated: AnimationOptions,
    result: Localization,
    peak: Peak,
    inverse: PreparedInverse,
    evoked: "mne.Evoked",
    window: Sequence[float],
    progress: bool,
) -> Iterator[str]:
    """Write the movie of a window (s) and the page of the whole average, and report the files."""
    template = inverse.template
    assert template is not None  # by `check_shown`
    assert template.display is not None
    outlines = _outlines(result, peak, inverse)
    title = f"{evoked.comment}, {evoked.nave:g} trials"
    if animated.movie is not None:
        shown = np.flatnonzero(in_window(evoked.times, window))
        step = -(-len(shown) // MAX_FRAMES)
        line = next(iter(outlines.items()), None)
        movie = _movie(result, peak, template.display, shown[::step], line, title)
        movie.write(animated.movie, animated.fps, progress)
        yield f"wrote {animated.movie}: {len(movie.times)} frames, {_every(step)}"
    if animated.html is not None:
        yield from _write_page(animated, result, peak, inverse, evoked, template, outlines, title)


def _outlines(
    result: Localization, peak: Peak, inverse: PreparedInverse
) -> dict[str, NDArray[np.bool_]]:
    """Sources to draw a line around ``(S, T)``, by the name of the line; the best one first."""
    from deepesi.viz.cortex_movie import N_STD, above_std

    found = dict[str, NDArray[np.bool_]]()
    if peak.prediction_set is not None:
        means = np.asarray(result.stc.data).reshape(-1, len(result.stc.times))
        sets = (inverse.prediction_set(m, d) for m, d in zip(means.T, result.data.T, strict=True))
        name = f"{100 * peak.prediction_set.level:g} % prediction set"
        found[name] = np.stack([s.sources for s in sets if s is not None], axis=1)
    if result.std is not None:
        inside = above_std(magnitudes_of(result.stc), magnitudes_of(result.std))
        found[f"above {N_STD:g} standard deviations"] = inside
    return found


def _movie(
    result: Localization,
    peak: Peak,
    mesh: DisplayMesh,
    shown: NDArray[np.int64],
    line: tuple[str, NDArray[np.bool_]] | None,
    title: str,
) -> "CortexMovie":
    """The movie of some samples, with colours and views of the peak."""
    from deepesi.viz.cortex_movie import CortexMovie

    values = magnitudes_of(result.stc)
    at_peak = values[:, peak.sample]
    return CortexMovie(
        values[:, shown],
        result.stc.times[shown],
        mesh,
        None if line is None else line[1][:, shown],
        "" if line is None else f"line: {line[0]}",
        title,
        float(at_peak.max()),
        int(at_peak.argmax()),
    )


def _every(step: int) -> str:
    return "every sample" if step == 1 else f"one of {step} samples"


def _write_page(
    animated: AnimationOptions,
    result: Localization,
    peak: Peak,
    inverse: PreparedInverse,
    evoked: "mne.Evoked",
    template: Template,
    outlines: dict[str, NDArray[np.bool_]],
    title: str,
) -> Iterator[str]:
    from deepesi.viz.viewer import View, fitting, write_viewer

    assert animated.html is not None
    assert template.display is not None
    names, missing = parcel_names(template)
    if missing:
        yield f"{animated.html}: {missing}"
    info = evoked.info
    eeg = inverse.sensors.rows_of("eeg")  # the page shows potentials
    rows = [info["ch_names"].index(inverse.ch_names[row]) for row in eeg]
    whole = View(
        result.stc.times,
        {"estimate": 1e9 * magnitudes_of(result.stc)},
        template.display,
        result.data[eeg],
        np.array([info["chs"][row]["loc"][:3] for row in rows]),
        peak.sample,
        {} if result.std is None else {"estimate": 1e9 * magnitudes_of(result.std)},
        outlines=outlines,
        parcels=names,
        mni=template.source_mni,
    )
    views, step = fitting({"Estimate": whole})
    facts = {"from": animated.source, "peak": str(peak), "head": inverse.origin}
    facts["samples"] = f"{len(views['Estimate'].times)}, {_every(step)}"
    write_viewer(animated.html, title, facts, [], views)
    thinned = "" if step == 1 else f", {_every(step)}, to stay below 3 MB"
    yield f"wrote {animated.html}{thinned}"
