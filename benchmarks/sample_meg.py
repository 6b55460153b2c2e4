"""The auditory responses of MNE's sample subject by EEG, MEG and both, and the dipole of MNE.

    python -m benchmarks.sample_meg --data MNE-SAMPLE --out FOLDER

A tone in the left ear and one in the right ear. MNE's data set has a current dipole of the M100 to
the left tone, fitted to MEG in the right hemisphere at 80 ms. The M100 comes first in the
hemisphere opposite to the ear, then in the other, so every hemisphere has a window of its own. The
peak of the estimate in it is compared with the dipole, in the left hemisphere with its mirror
image. Heads: the subject's own forward solution, and fsaverage without one, with coils and
electrodes placed as ``deepesi apply --picks`` does. Writes
``sample_meg.csv`` and a page of each response.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from deepesi.evaluation.solvers import SolverModel
from deepesi.physics.head import magnitudes
from deepesi.physics.template import load_template
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.prepared_inverse import PreparedInverse
from deepesi.utils.rows import write_rows
from deepesi.viz.cortex import draw_cortex, draw_projections
from deepesi.viz.recording import save_figure

if TYPE_CHECKING:
    import mne

Array = NDArray[np.float64]

#: MNE's dipole (sample_audvis-ave_xfit.dip), mm, head frame.
DIPOLE = np.array([51.6, 15.7, 70.3])
#: Windows of the M100, s: in the hemisphere opposite to the ear, and in that of the same side.
OPPOSITE, SAME = (0.070, 0.085), (0.085, 0.105)
#: Condition and the sign of x of the hemisphere opposite to the ear.
CONDITIONS, BADS = {"Left Auditory": 1, "Right Auditory": -1}, ("MEG 2443", "EEG 053")
MIXTURES: dict[str, list[str]] = {"EEG": ["eeg"], "MEG": ["meg"], "both": ["eeg", "meg"]}
METHODS = ("dspm", "sloreta", "eloreta")
DRAWN = "dspm"
COLUMNS = (
    "condition",
    "head",
    "sensors",
    "method",
    "hemisphere",
    "x_mm",
    "y_mm",
    "z_mm",
    "distance_mm",
    "share",
)


class EstimateMap(NamedTuple):
    """RMS magnitudes ``(S,)`` in the window of each hemisphere, positions ``(S, 3)``, mm."""

    values: Array
    positions: Array


def read(data: Path, condition: str) -> tuple["mne.Evoked", "mne.Covariance", "mne.Forward", Array]:
    """Average, noise covariance, forward solution for all sensors, head frame to MNI (mm)."""
    import mne

    file = data / "sample_audvis_short-ave.fif.gz"
    evoked = mne.read_evokeds(file, condition, proj=False, verbose="error")
    evoked.info["bads"] = list(BADS)
    evoked.apply_baseline((None, 0), verbose="error")
    cov = mne.read_cov(data / "sample_audvis_short-cov.fif", verbose="error")
    eeg = mne.read_forward_solution(data / "derived/sample-oct5-eeg-fwd.fif", verbose="error")
    bem = data / "subjects/sample/bem/sample-320-320-320-bem-sol.fif"
    forward = mne.make_forward_solution(
        evoked.info, eeg["mri_head_t"], eeg["src"], bem, mindist=0, verbose="error"
    )
    to_mni = mne.read_talxfm("sample", data / "subjects", verbose="error")["trans"]
    return evoked, cov, forward, to_mni @ np.linalg.inv(eeg["mri_head_t"]["trans"])


def prepared(
    method: str, picks: list[str], recorded: tuple[Any, ...]
) -> Iterator[tuple[str, PreparedInverse, Array]]:
    """Name of the head, the prepared method and the positions of sources, mm."""
    evoked, cov, forward, _ = recorded
    inverse = Inverse(SolverModel(method))
    own = inverse.for_recording(evoked, cov, forward, picks=picks)
    yield "own", own, 1e3 * own.positions
    other = inverse.for_recording(evoked, cov, picks=picks)
    print(f"{method} {picks}: {other.origin}")
    yield "template", other, load_template().source_mni


def in_windows(moments: Array, times: Array, positions: Array, opposite: int) -> EstimateMap:
    """The map of an estimate ``(S, T)``; `opposite`: sign of x of the hemisphere with the first."""
    first, second = (
        np.sqrt((moments[:, (times >= start) & (times <= end)] ** 2).mean(axis=1))
        for start, end in (OPPOSITE, SAME)
    )
    return EstimateMap(np.where(opposite * positions[:, 0] > 0, first, second), positions)


def peaks(estimate: EstimateMap, target: Array) -> Iterator[tuple[str, Array, float, float]]:
    """Hemisphere, position (mm), distance to the dipole or its mirror image, share of maximum."""
    for name, side in (("right", 1), ("left", -1)):
        rows = np.flatnonzero(side * estimate.positions[:, 0] > 0)
        peak = rows[estimate.values[rows].argmax()]
        position = estimate.positions[peak]
        distance = float(np.linalg.norm(position - target * [side, 1, 1]))
        yield name, position, distance, float(estimate.values[peak] / estimate.values.max())


def draw(estimates: dict[tuple[str, str], EstimateMap]) -> Figure:
    """A row for every set of sensors: own head in projections, fsaverage from both sides."""
    figure, mesh = Figure(figsize=(13, 16), layout="constrained"), load_template().display
    assert mesh is not None
    rows = figure.subfigures(len(MIXTURES), 1)
    for row, sensors in zip(rows, MIXTURES, strict=True):
        left, right = row.subfigures(1, 2, width_ratios=[1, 1])
        row.suptitle(f"{sensors}, {DRAWN}, M100; ring: dipole of MNE", fontsize=11)
        own, template = estimates["own", sensors], estimates["template", sensors]
        nearest = np.linalg.norm(own.positions - DIPOLE, axis=1).argmin()
        draw_projections(left, own.values, 1e-3 * own.positions, np.array([nearest]))
        for ax, view in zip(right.subplots(1, 2), ("left lateral", "right lateral"), strict=True):
            draw_cortex(ax, template.values, mesh, view, float(template.values.max()))
            ax.set_title(f"fsaverage, {view}", fontsize=9)
    return figure


def localized(recorded: tuple[Any, ...], opposite: int) -> tuple[list[tuple[Any, ...]], Figure]:
    """Lines of the table of one response, and its page."""
    evoked, to_mni = recorded[0], recorded[3]
    used = (evoked.times >= OPPOSITE[0]) & (evoked.times <= SAME[1])
    targets = {"own": DIPOLE, "template": to_mni[:3, :3] @ DIPOLE + 1e3 * to_mni[:3, 3]}
    lines, shown = list[tuple[Any, ...]](), dict[tuple[str, str], EstimateMap]()
    for method in METHODS:
        for sensors, picks in MIXTURES.items():
            for head, inverse, positions in prepared(method, picks, recorded):
                data = evoked.get_data(picks=list(inverse.ch_names))[:, used]
                moments = magnitudes(inverse.estimate(data)[0], inverse.space.n_orient)
                found = in_windows(moments, evoked.times[used], positions, opposite)
                if method == DRAWN:
                    shown[head, sensors] = found
                for side, position, distance, share in peaks(found, targets[head]):
                    numbers = [*position.round(1), round(distance, 1), round(share, 2)]
                    lines.append((head, sensors, method, side, *numbers))
    return lines, draw(shown)


def main() -> None:
    """Localize, write the table and the pages."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="MNE's sample data, short files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    lines, drawn = list[tuple[Any, ...]](), dict[str, Figure]()
    for condition, opposite in CONDITIONS.items():
        found, drawn[condition] = localized(read(arguments.data, condition), opposite)
        lines += [(condition, *line) for line in found]
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_rows(arguments.out / "sample_meg.csv", COLUMNS, lines)
    for condition, figure in drawn.items():
        name = condition.lower().replace(" ", "_")
        save_figure(figure, arguments.out / f"sample_meg_{name}.png")
    for line in lines:
        print(*line)


if __name__ == "__main__":
    main()
