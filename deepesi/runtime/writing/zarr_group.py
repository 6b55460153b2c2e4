"""Estimates of a whole recording as one zarr group, written piece by piece."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepesi import __version__
from deepesi.runtime.estimates import Localization
from deepesi.runtime.inverse import PreparedInverse
from deepesi.utils.files import atomic_folder
from deepesi.utils.optional import require

if TYPE_CHECKING:
    from deepesi.runtime.recording_type import Recording

#: Largest chunk, values (4 MB), and its largest number of samples.
CHUNK_VALUES, CHUNK_TIMES = 2**20, 2048


def is_zarr(out: Path) -> bool:
    """Whether the output is one zarr group, not files of MNE-Python."""
    return out.suffix == ".zarr"


def check_zarr(out: Path) -> None:
    """Refuse an output that cannot be written, before any computation.

    Raises:
        ModuleNotFoundError: Without the package zarr.
        FileExistsError: ``out`` exists and is no zarr group of deepesi; it is not replaced.

    """
    _zarr()
    record = out / "zarr.json"
    if out.exists() and not (record.is_file() and "model_sha256" in record.read_text()):
        raise FileExistsError(
            f"{out} exists and is no zarr group of deepesi, so it is not replaced. Choose another "
            "--out."
        )


def _zarr() -> Any:
    return require("zarr", "zarr", "write estimates to a .zarr")


class ZarrGroup:
    """An open group: arrays ``mean``, ``std`` if the model gives it, and ``times``.

    ``mean`` and ``std`` are float32, A m, ``(dipoles, times)`` or, for epochs,
    ``(epochs, dipoles, times)``, row ``n_orient * s + o``; ``times`` is in s. Data annotated BAD in
    the recording have the estimate NaN. The attributes describe model and source space.

    Args:
        folder: Empty folder to write to.
        inverse: The prepared model.
        recording: The recording.

    """

    def __init__(self, folder: Path, inverse: PreparedInverse, recording: "Recording") -> None:
        import mne

        n_dipoles, times = inverse.space.n_dipoles, np.asarray(recording.times)
        self.has_epochs = isinstance(recording, mne.BaseEpochs)
        group = _zarr().create_group(
            folder, zarr_format=3, attributes=_attributes(inverse, recording)
        )
        group.create_array("times", data=times, dimension_names=["times"], attributes={"unit": "s"})
        shape: tuple[int, ...] = (n_dipoles, len(times))
        if isinstance(recording, mne.BaseEpochs):
            shape = (len(recording), *shape)
        long = min(len(times), CHUNK_TIMES)
        chunks = (1, min(n_dipoles, CHUNK_VALUES // long), long)
        self.arrays = [
            group.create_array(
                name,
                shape=shape,
                dtype="float32",
                chunks=chunks[-len(shape) :],
                fill_value=np.nan,
                dimension_names=["epochs", "dipoles", "times"][-len(shape) :],
                attributes={"unit": "A m"},
            )
            for name in ("mean", "std")
            if name in inverse.model.contract.kinds
        ]

    def append(self, result: Localization) -> tuple[()]:
        """Write the next piece: an epoch, or a stretch. Returns no lines: no file is complete."""
        given = [stc for stc in (result.stc, result.std) if stc is not None]
        for array, stc in zip(self.arrays, given, strict=True):
            values = np.asarray(stc.data, dtype=np.float32).reshape(-1, len(stc.times))
            if self.has_epochs:
                array[result.number] = values
            else:
                array[:, result.first : result.first + len(stc.times)] = values
        return ()


def _attributes(inverse: PreparedInverse, recording: "Recording") -> dict[str, Any]:
    space = inverse.space
    return {
        "source_space": space.name,
        "source_space_fingerprint": space.fingerprint,
        "vertices": [part.tolist() for part in space.vertices],
        "n_orient": space.n_orient,
        "tmin": float(recording.times[0]),
        "sfreq": float(recording.info["sfreq"]),
        "ch_names": list(inverse.ch_names),
        "nave": inverse.nave,
        "origin": inverse.origin,
        "model_sha256": inverse.model.sha256,
        "deepesi": __version__,
    }


@contextmanager
def zarr_writer(
    out: Path, inverse: PreparedInverse, recording: "Recording"
) -> Iterator[Callable[[Localization], tuple[()]]]:
    """Writes every piece into one group, which appears at ``out`` only when it is complete."""
    with atomic_folder(out) as partial:
        yield ZarrGroup(partial, inverse, recording).append
