"""``deepesi export``: a checkpoint, a run or a baseline to an ONNX file."""

import json
from pathlib import Path

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.contracts import InverseModel
from deepesi.export.contract import CALIBRATION_FILE, Calibration, as_tuples
from deepesi.export.smaller import Precision
from deepesi.export.to_onnx import export_onnx
from deepesi.physics.linear_inverse import METHODS
from deepesi.physics.template import load_template
from deepesi.training.weights import load_network


def export_path(
    model: str, out: Path, head: str, montage: str, precision: Precision = "float32"
) -> Path:
    """Export what ``model`` names and return the file written.

    Args:
        model: A checkpoint, a run directory, ``fitted/N`` of ``deepesi calibrate`` (what was fitted
            goes into the contract), or the name of a linear inverse.
        out: ``.onnx`` file.
        head: Packaged head or ``.npz``.
        montage: Set-up to trace with; the file serves any.
        precision: Of the weights, see `deepesi.export.smaller.Precision`.

    """
    template = load_template(head)
    methods = {method.lower(): method for method in METHODS}
    identity, calibration = None, None
    network: InverseModel
    if model.lower() in methods:
        network = MinimumNorm(methods[model.lower()])
    else:
        network, identity = load_network(Path(model), template.space)
        calibration = _calibration(Path(model))
    out.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(
        network,
        template.montage_head(montage),
        out,
        identity=identity,
        anatomy=template.fingerprint,
        calibration=calibration,
        precision=precision,
    )
    return out


def _calibration(path: Path) -> Calibration | None:
    """What ``deepesi calibrate`` left beside a network: it is in the folder ``fitted/N``."""
    file = path / CALIBRATION_FILE
    if not file.is_file():
        return None
    return Calibration(**as_tuples(json.loads(file.read_text())))
