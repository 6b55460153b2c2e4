"""Movies of source estimates on the cortex."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from deepesi.physics.head import magnitudes
from deepesi.physics.template import DisplayMesh, load_template
from deepesi.viz.cortex import (
    GYRUS,
    RING,
    SULCUS,
    Side,
    level_colours,
    magnitude_colours,
    paired_views,
    side_of,
)
from deepesi.viz.movie import Frame, check_movie, check_times, drawn, time_text, write_movie

if TYPE_CHECKING:
    import mne
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.image import AxesImage

Array = NDArray[np.float64]

#: An estimate counts as above its noise beyond this many standard deviations.
N_STD = 2.0
#: Height of a view, pixels, and drawn pixels per pixel: their mean has smooth edges.
HEIGHT, FINER = 190, 2


@dataclass(frozen=True)
class CortexMovie:
    """What a movie of the cortex shows.

    Attributes:
        magnitudes: Magnitudes at the sources ``(S, T)``, A m.
        times: Times of the frames ``(T,)``, s.
        mesh: Cortex mesh to draw on.
        outlined: Sources to draw a line around in every frame ``(S, T)``. None: no line.
        outline_text: Description of the line.
        title: Text before the time stamp.
        limit: Magnitude with the strongest colour, A m. Default: the largest.
        peak: Source that decides the views. Default: the one with the largest magnitude.

    """

    magnitudes: Array
    times: Array
    mesh: DisplayMesh
    outlined: NDArray[np.bool_] | None = None
    outline_text: str = ""
    title: str = ""
    limit: float | None = None
    peak: int | None = None

    def write(self, path: Path, fps: float = 10.0, progress: bool = True) -> None:
        """Write a ``.gif`` or ``.mp4`` file."""
        write_movie(_frames(self), len(self.times), path, fps, progress)


def animate_cortex(
    stc: "mne.SourceEstimate | mne.VectorSourceEstimate",
    path: str | Path,
    std: "mne.SourceEstimate | mne.VectorSourceEstimate | None" = None,
    prediction_set: NDArray[np.bool_] | None = None,
    head: str = "fsaverage-ico3",
    fps: float = 10.0,
    title: str = "",
    limit: float | None = None,
    progress: bool = True,
) -> Path:
    """Write a movie of an estimate: the two best views of its strongest source, on both sides.

    Args:
        stc: Estimate on a packaged head, A m, as written by ``deepesi apply``.
        path: ``.gif`` file, or ``.mp4`` (needs ``deepesi[movies]``).
        std: Standard deviations of the estimate. A line encloses the magnitudes above two of them.
        prediction_set: Whether a source is in the prediction set, ``(S,)`` or ``(S, T)``; a line
            encloses them.
        head: Name of the head, as in `deepesi.load_head`.
        fps: Frames per second.
        title: Text before the time stamp.
        limit: Magnitude with the strongest colour in all frames, A m. Default: the largest.
        progress: Show a progress bar on a terminal.

    Returns:
        The file.

    Raises:
        ValueError: The estimate has the sources of another head, or one sample; both `std` and
            `prediction_set`; shapes that do not fit; values that are not finite; a head without a
            cortex to draw on.
        ModuleNotFoundError: MP4 without imageio-ffmpeg.

    """
    path = Path(path)
    check_movie(path, fps)
    mesh = _mesh(stc, head)
    values, times = _magnitudes(stc), np.asarray(stc.times)
    check_times(times, values.shape[1], "animate_cortex")
    if not np.isfinite(values).all():
        wrong = int((~np.isfinite(values)).any(axis=1).sum())
        raise ValueError(
            f"animate_cortex: the estimate is NaN or infinite at {wrong} of {len(values)} sources. "
            "Set these to zero, or crop the times (stc.crop)."
        )
    outlined, text = None, ""
    if std is not None and prediction_set is not None:
        raise ValueError("animate_cortex: give std or prediction_set; a movie has one line.")
    if std is not None:
        outlined, text = above_std(values, _magnitudes(std)), f"line: above {N_STD:g} std"
    elif prediction_set is not None:
        inside = np.asarray(prediction_set, dtype=bool)
        outlined, text = inside if inside.ndim == 2 else inside[:, None], "line: prediction set"
    if outlined is not None:
        if len(outlined) != len(values) or outlined.shape[1] not in (1, len(times)):
            raise ValueError(
                f"animate_cortex: a line around sources of shape {outlined.shape}, expected "
                f"({len(values)},) or {values.shape}, as the estimate."
            )
        outlined = np.broadcast_to(outlined, values.shape)
    CortexMovie(values, times, mesh, outlined, text, title, limit).write(path, fps, progress)
    return path


def above_std(values: Array, std: Array) -> NDArray[np.bool_]:
    """Whether magnitudes lie above two standard deviations; both ``(S, T)``.

    Raises:
        ValueError: Another shape.

    """
    if std.shape != values.shape:
        raise ValueError(
            f"animate_cortex: standard deviations of shape {std.shape} for an estimate of shape "
            f"{values.shape}, expected the same."
        )
    return np.asarray(values > N_STD * std)


def _magnitudes(stc: "mne.SourceEstimate | mne.VectorSourceEstimate") -> Array:
    data = np.asarray(stc.data, dtype=float)
    n_orient = 1 if data.ndim == 2 else data.shape[1]
    return magnitudes(data.reshape(-1, data.shape[-1]), n_orient)


def _mesh(stc: "mne.SourceEstimate | mne.VectorSourceEstimate", head: str) -> DisplayMesh:
    """The cortex of a head, if the estimate is on it."""
    template = load_template(head)
    if template.display is None:
        raise ValueError(f"animate_cortex: the head {head!r} has no cortex to draw on.")
    own, given = template.space.vertices, stc.vertices
    if len(own) != len(given) or not all(map(np.array_equal, own, given)):
        raise ValueError(
            f"animate_cortex: the estimate has {', '.join(str(len(v)) for v in given)} sources, "
            f"which are not the {' and '.join(str(len(v)) for v in own)} of the head {head!r}. "
            "Name its head (head=), or use stc.plot."
        )
    return template.display


class _View:
    """One view: pixels of a hemisphere, coloured anew for every frame."""

    def __init__(self, ax: "Axes", mesh: DisplayMesh, view: str) -> None:
        self.ax, self.mesh, self.side = ax, mesh, side_of(mesh, view)
        self.face_of = _face_of_pixel(self.side)
        height, width = self.face_of.shape
        self.image: AxesImage = ax.imshow(np.ones((height // FINER, width // FINER, 3)))
        self.line: QuadContourSet | None = None
        ax.set_title(view, fontsize=9)
        ax.set_axis_off()

    def show(self, values: Array, maximum: float, outlined: NDArray[np.bool_] | None) -> None:
        colours = magnitude_colours(values, self.mesh, self.side, maximum)
        colours = np.r_[colours * self.side.light[:, None], [[1.0, 1.0, 1.0]]]  # -1: nothing there
        self.image.set_data(_coarser(colours[self.face_of]))
        if self.line is not None:
            self.line.remove()
            self.line = None
        if outlined is not None:
            self._draw_line(outlined)

    def _draw_line(self, outlined: NDArray[np.bool_]) -> None:
        level = self.mesh.interpolate(outlined.astype(float))[self.side.hemisphere]
        level = np.r_[level[self.side.faces].mean(axis=1), 0.0][self.face_of]
        level = gaussian_filter(_coarser(level[..., None])[..., 0], 1.0)
        if level.max() > 0.5 > level.min():
            self.line = self.ax.contour(level, [0.5], colors=RING, linewidths=1.4)


def _coarser(pixels: Array) -> Array:
    """Means over squares of `FINER` by `FINER` pixels: ``(H, W, K)`` to a part of both."""
    height, width, n = pixels.shape
    blocks = pixels.reshape(height // FINER, FINER, width // FINER, FINER, n)
    return np.asarray(blocks.mean(axis=(1, 3)))


def _face_of_pixel(side: Side) -> NDArray[np.int64]:
    """Number of the face seen at every pixel ``(H, W)`` of a view; -1: none.

    Every face is drawn once in a colour that is its number.
    """
    extent = np.ptp(side.flat, axis=0)
    height = FINER * HEIGHT
    width = FINER * int(np.ceil(HEIGHT * extent[0] / extent[1]))
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    ax = figure.add_axes((0, 0, 1, 1))
    numbers = np.arange(1, len(side.faces) + 1)
    codes = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255], axis=1) / 255
    faces = PolyCollection(
        side.flat[side.faces],  # type: ignore[arg-type] # stub: a sequence; an array is faster
        facecolors=codes,
        edgecolors="face",
        linewidths=0.5,
        antialiaseds=False,
    )
    ax.add_collection(faces, autolim=False)
    low, high = side.flat.min(axis=0), side.flat.max(axis=0)
    margin = 0.01 * extent
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]))
    ax.set(ylim=(low[1] - margin[1], high[1] + margin[1]))
    ax.set_axis_off()
    figure.patch.set_facecolor("black")
    red, green, blue = drawn(figure).astype(np.int64).transpose(2, 0, 1)
    return np.asarray((red << 16) + (green << 8) + blue - 1)


def _frames(movie: CortexMovie) -> Iterator[Frame]:
    largest = float(movie.magnitudes.max())
    maximum = movie.limit or largest
    figure = Figure(figsize=(6.4, 5.0), dpi=100)
    axes = figure.subplots(2, 2)
    figure.subplots_adjust(0.01, 0.05, 0.85, 0.88, wspace=0.02, hspace=0.1)
    peak = int(movie.magnitudes.max(axis=1).argmax()) if movie.peak is None else movie.peak
    names = paired_views(peak, movie.mesh)
    views = [_View(ax, movie.mesh, v) for ax, v in zip(axes.ravel(), names, strict=True)]
    colours = ListedColormap(level_colours(np.linspace(0, 1, 256), (GYRUS + SULCUS) / 2))
    scale = ScalarMappable(Normalize(0, 1e9 * maximum), colours)
    extend = "max" if largest > maximum else "neither"
    colour_bar = figure.add_axes((0.87, 0.25, 0.025, 0.45))
    figure.colorbar(scale, cax=colour_bar, label="magnitude (nA m)", extend=extend)
    figure.text(0.01, 0.015, movie.outline_text, fontsize=9, color="0.3")
    for sample, time in enumerate(movie.times):
        outlined = None if movie.outlined is None else movie.outlined[:, sample]
        for view in views:
            view.show(movie.magnitudes[:, sample], maximum, outlined)
        figure.suptitle(f"{movie.title} {time_text(time)}".strip(), fontsize=12)
        yield drawn(figure)
