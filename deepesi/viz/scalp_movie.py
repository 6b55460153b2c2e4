"""Movies of scalp maps."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.physics.scalp import check_metres
from deepesi.viz.movie import Frame, check_movie, check_times, drawn, time_text, write_movie
from deepesi.viz.scalp import draw_scalp

if TYPE_CHECKING:
    import mne
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

#: Centre of a head in the head frame, m: MNE-Python's default.
CENTRE = np.array([0.0, 0.0, 0.04])
#: Distances of electrodes from that centre, m, that a head can have.
NEAREST, FARTHEST = 0.04, 0.16
#: Fewest electrodes that a surface can be laid through.
FEWEST = 4
#: Least spread of electrodes across the line they lie along; 1 is the radius of the head.
FLATTEST = 1e-3
#: Pixels along the side of an interpolated map.
RESOLUTION = 128
COLOURS = "RdBu_r"


class MaskedSensorWarning(UserWarning):
    """Electrodes are left out of a movie because their values are not numbers."""


def animate_scalp(
    values: Array,
    sensors: "Array | mne.Info",
    times: Array,
    path: str | Path,
    fps: float = 10.0,
    interpolation: Literal["cubic", "mne"] = "cubic",
    limit: float | None = None,
    label: str = "",
    title: str = "",
    progress: bool = True,
) -> Path:
    """Write a movie of any values at electrodes: potentials, coefficients, attributions.

    All frames have one colour scale, symmetric about 0.

    Args:
        values: ``(T, C)``, in any unit, one row per frame. An electrode that is NaN or infinite in
            some frame is left out of all frames.
        sensors: Positions ``(C, 3)``, m, MNE head frame; or `mne.Info` with ``C`` EEG channels.
        times: Times of the frames ``(T,)``, s, for the time stamp.
        path: ``.gif`` file, or ``.mp4`` (needs ``deepesi[movies]``).
        fps: Frames per second.
        interpolation: ``"cubic"``: as `scipy.interpolate.griddata`, between the electrodes only.
            ``"mne"``: `mne.viz.plot_topomap`, the whole head, slower.
        limit: Value with the strongest colour. Default: the largest magnitude of all frames.
        label: Text at the colour bar, such as the unit.
        title: Text before the time stamp.
        progress: Show a progress bar on a terminal.

    Returns:
        The file.

    Raises:
        ValueError: Shapes that do not fit, one frame, electrodes without positions or outside the
            head, fewer than four electrodes, a name that is neither .gif nor .mp4.
        ModuleNotFoundError: MP4 without imageio-ffmpeg.

    Warns:
        MaskedSensorWarning: Electrodes are left out.

    """
    path = Path(path)
    check_movie(path, fps)
    if interpolation not in ("cubic", "mne"):
        raise ValueError(f"animate_scalp: interpolation {interpolation!r}, expected cubic or mne.")
    names, positions = _named_positions(sensors)
    values, times = np.asarray(values, dtype=float), np.asarray(times, dtype=float)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ValueError(
            f"animate_scalp: values of shape {values.shape} for {len(names)} electrodes, expected "
            f"(times, {len(names)}). Turn them if they are (electrodes, times): values.T."
        )
    check_times(times, len(values), "animate_scalp")
    kept = _kept(values, names)
    values, positions = values[:, kept], positions[kept]
    names = [names[row] for row in np.flatnonzero(kept).tolist()]
    limit = limit or float(np.abs(values).max()) or 1.0
    figure, ax = _figure(limit, label)
    paint = _cubic(ax, positions, limit) if interpolation == "cubic" else None

    def frames() -> Iterator[Frame]:
        for row, time in zip(values, times, strict=True):
            if paint is not None:
                paint(row)
            else:
                ax.clear()
                draw_scalp(ax, row, positions, names, limit)
            ax.set_title(f"{title} {time_text(time)}".strip(), fontsize=12)
            yield drawn(figure)

    write_movie(frames(), len(values), path, fps, progress)
    return path


def _named_positions(sensors: "Array | mne.Info") -> tuple[list[str], Array]:
    """Names and checked positions ``(C, 3)`` of electrodes."""
    import mne

    if isinstance(sensors, mne.Info):
        rows = mne.pick_types(sensors, eeg=True, exclude=[])
        names = [sensors["ch_names"][row] for row in rows]
        positions = np.array([sensors["chs"][row]["loc"][:3] for row in rows]).reshape(-1, 3)
    else:
        positions = np.asarray(sensors, dtype=float)
        if positions.ndim != 2 or positions.shape[1] != 3:
            raise ValueError(
                f"animate_scalp: positions of shape {positions.shape}, expected (electrodes, 3), "
                "in m "
                "in the MNE head frame, or an mne.Info."
            )
        names = [str(number + 1) for number in range(len(positions))]
    _check_placed(names, positions)
    return names, positions


def _check_placed(names: Sequence[str], positions: Array) -> None:
    """Refuse electrodes without positions, or not on a head."""
    missing = [n for n, p in zip(names, positions, strict=True) if not np.isfinite(p).all()]
    missing += [n for n, p in zip(names, positions, strict=True) if not p.any()]
    if missing or not len(names):
        raise ValueError(
            f"animate_scalp: no position is known of {', '.join(missing) or 'any electrode'}. Set "
            "a montage (evoked.set_montage), or leave these electrodes out."
        )
    check_metres(positions)
    distance = np.linalg.norm(positions - CENTRE, axis=1)
    outside = np.flatnonzero((distance < NEAREST) | (distance > FARTHEST)).tolist()
    if outside:
        text = ", ".join(f"{names[row]} ({1e3 * distance[row]:.0f} mm)" for row in outside)
        raise ValueError(
            f"animate_scalp: electrodes outside the head: {text} from its centre, expected "
            f"{1e3 * NEAREST:.0f} to {1e3 * FARTHEST:.0f} mm. Correct their positions (m, MNE head "
            "frame), or leave them out."
        )


def _kept(values: Array, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which electrodes are finite in all frames; warns about the others."""
    kept = np.asarray(np.isfinite(values).all(axis=0))
    if not kept.all():
        left_out = ", ".join(n for n, k in zip(names, kept, strict=True) if not k)
        warnings.warn(
            f"animate_scalp: {left_out} not drawn: not a number in some frame",
            MaskedSensorWarning,
            stacklevel=3,
        )
    if kept.sum() < FEWEST:
        raise ValueError(
            f"animate_scalp: {kept.sum()} electrodes have numbers in all frames, expected "
            f"{FEWEST} or more. Leave out frames that hold NaN."
        )
    return kept


def _figure(limit: float, label: str) -> tuple[Figure, "Axes"]:
    """An empty figure with its colour bar; nothing moves between frames."""
    figure = Figure(figsize=(4.6, 4.0), dpi=100)
    ax = figure.add_axes((0.02, 0.04, 0.76, 0.84))
    scale = ScalarMappable(Normalize(-limit, limit), COLOURS)
    figure.colorbar(scale, cax=figure.add_axes((0.8, 0.2, 0.035, 0.55)), label=label)
    return figure, ax


def flat_positions(positions: Array) -> Array:
    """Azimuthal equidistant projection ``(C, 2)``; 1 is at 90 degrees from the top of the head.

    Args:
        positions: ``(C, 3)``, m, MNE head frame.

    """
    x, y, z = (positions - CENTRE).T
    radius = np.arctan2(np.hypot(x, y), z) / (np.pi / 2)
    return np.asarray(radius[:, None] * np.stack([x, y], 1) / np.hypot(x, y).clip(1e-12)[:, None])


def draw_outline(ax: "Axes") -> None:
    """Draw head, nose and ears around `flat_positions`."""
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color="0.2", linewidth=1.5)
    ax.plot([-0.12, 0, 0.12], [0.993, 1.13, 0.993], color="0.2", linewidth=1.5)
    for side in (-1, 1):
        ear = side * (1.0 + 0.07 * np.sin(angle[:101])), 0.16 * np.cos(angle[:101])
        ax.plot(*ear, color="0.2", linewidth=1.5)


def _cubic(ax: "Axes", positions: Array, limit: float) -> Callable[[Array], None]:
    """A function that shows the next values ``(C,)``, interpolated as by `griddata`."""
    from scipy.interpolate import CloughTocher2DInterpolator
    from scipy.spatial import Delaunay

    points = flat_positions(positions)
    if np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] < FLATTEST:
        raise ValueError(
            "animate_scalp: all electrodes lie on one line, expected some beside it. Use "
            "interpolation='mne'."
        )
    reach = 1.02 * max(1.0, float(np.abs(points).max()))
    grid = np.stack(np.meshgrid(*2 * [np.linspace(-reach, reach, RESOLUTION)]), axis=-1)
    triangles = Delaunay(points)
    image = ax.imshow(
        np.zeros(grid.shape[:2]),
        COLOURS,
        vmin=-limit,
        vmax=limit,
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        interpolation="bilinear",
    )
    draw_outline(ax)
    ax.plot(*points.T, ".", color="0.1", markersize=2.5)
    wide = max(1.1, 1.02 * reach)  # ears and nose are inside
    ax.set(xlim=(-wide, wide), ylim=(-1.02 * reach, max(1.16, 1.02 * reach)))
    ax.set_axis_off()

    def paint(values: Array) -> None:
        image.set_data(CloughTocher2DInterpolator(triangles, values)(grid))

    return paint
