"""``deepesi export``: a checkpoint, a run or a baseline to an ONNX file."""

from pathlib import Path

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.contracts import InverseModel
from deepesi.export.to_onnx import export_onnx
from deepesi.physics.linear_inverse import METHODS
from deepesi.physics.template import load_template
from deepesi.training.weights import load_network


def export_path(model: str, out: Path, head: str, montage: str) -> Path:
    """Export what ``model`` names and return the file written.

    Args:
        model: A checkpoint, a run directory, or the name of a linear inverse.
        out: ``.onnx`` file.
        head: Packaged head or ``.npz``.
        montage: Set-up to trace with; the file serves any.

    """
    template = load_template(head)
    methods = {method.lower(): method for method in METHODS}
    config, trained = None, None
    network: InverseModel
    if model.lower() in methods:
        network = MinimumNorm(methods[model.lower()])
    else:
        network, identity = load_network(Path(model), template.space)
        config, trained = identity["model"], identity.get("trained")
    out.parent.mkdir(parents=True, exist_ok=True)
    export_onnx(
        network,
        template.montage_head(montage),
        out,
        model_config=config,
        anatomy=template.fingerprint,
        trained=trained,
    )
    return out
