"""Missing channels of EEG, predicted by splines, by inverse methods and by networks.

EEG only: the splines of MNE-Python interpolate potentials on a sphere.
"""

import mne
import torch
from torch import Tensor

from deepesi.core.contracts import InverseModel
from deepesi.core.unlabelled import Unlabelled
from deepesi.training.real import RealRecordings
from deepesi.training.tasks.masked import (
    Masking,
    predict_missing,
    referenced_to_visible,
    unexplained,
)

#: An inverse model, and one for the residual of the first.
Predictor = tuple[InverseModel, InverseModel | None]

#: Shares of missing channels.
SHARES = (0.1, 0.3, 0.5)


def predict_by_splines(batch: Unlabelled, masking: Masking) -> Tensor:
    """Missing channels by the spherical splines of MNE-Python, V."""
    sensors = batch.head.sensors
    info = mne.create_info(list(sensors.names), batch.sfreq, "eeg", verbose="error")
    positions = dict(zip(sensors.names, sensors.positions, strict=True))
    info.set_montage(mne.channels.make_dig_montage(positions, coord_frame="head"))
    data = referenced_to_visible(batch.data, sensors, masking)
    epochs = mne.EpochsArray(data.double().numpy(), info, verbose="error")
    epochs.info["bads"] = [sensors.names[i] for i in masking.missing.tolist()]
    epochs.interpolate_bads(method={"eeg": "spline"}, verbose="error")
    found = torch.as_tensor(epochs.get_data(verbose="error"), dtype=torch.float32)
    return referenced_to_visible(found, sensors, masking)[:, masking.missing]


def compare(
    recordings: RealRecordings, models: dict[str, Predictor], n_batches: int
) -> list[dict[str, object]]:
    """Unexplained share of every window, method and share of missing channels.

    Args:
        recordings: Windows of real recordings.
        models: Methods by name, in addition to the splines.
        n_batches: Number of batches.

    Returns:
        Rows with ``method``, ``missing``, ``window`` and ``unexplained``.

    """
    rows: list[dict[str, object]] = []
    for step in range(n_batches):
        batch = recordings.batch(step)
        for share in SHARES:
            rng = torch.Generator().manual_seed(1000 * step + round(100 * share))
            masking = Masking.draw(batch.data.shape[1], share, rng)
            with torch.no_grad():
                found = {"splines": predict_by_splines(batch, masking)} | {
                    name: predict_missing(model, batch.data, batch.head, masking, background)
                    for name, (model, background) in models.items()
                }
            for name, predicted in found.items():
                values = unexplained(predicted, batch.data, batch.head, masking).tolist()
                rows += [
                    {"method": name, "missing": share, "window": f"{step}:{i}", "unexplained": v}
                    for i, v in enumerate(values)
                ]
    return rows
