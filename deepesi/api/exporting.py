"""`deepesi.export_onnx`: exports a network to a file that runs without torch."""

from pathlib import Path

from deepesi.api.settings import Head, head_of
from deepesi.cli.export import describe, export_checked, export_path
from deepesi.core.contracts import InverseModel
from deepesi.data_gen.sources import PatchSources
from deepesi.export.quantize import Precision
from deepesi.training.weights import described
from deepesi.utils.files import check_file_out


def export_onnx(
    model: InverseModel | str | Path,
    head: Head,
    path: str | Path,
    *,
    montage: str = "biosemi64",
    precision: Precision = "float32",
) -> Path:
    """Write an ONNX file and its card, and compare the file with the network.

    Args:
        model: A network; a run directory or a checkpoint, whose file also contains the training
            ranges; or ``"eloreta"``, ``"sloreta"``, ``"dspm"``, ``"mne"``.
        head: A head, or an argument of `deepesi.load_head`; a network that is bound to one source
            space needs a head with this space.
        path: ``.onnx`` file to write.
        montage: Montage to trace with; the file works with any.
        precision: Precision of the weights, as in `deepesi.export.quantize.Precision`.

    Returns:
        The path.

    Raises:
        ValueError: `path` is no ``.onnx``; or as in `deepesi.export.to_onnx.export_onnx` and
            `check_parity`; nothing is written.

    """
    template, out = head_of(head), Path(path)
    if isinstance(model, str | Path):
        return export_path(str(model), out, template, montage, precision)
    check_file_out(out, ".onnx")
    identity, name = {"model": described(model)}, type(model).__name__
    contract, parity = export_checked(
        model, template, montage, out, identity, PatchSources(), None, precision
    )
    unknown = "Not measured yet: `deepesi.evaluate` in Python."
    card = out.with_suffix(".md")
    describe(card, out.name, name, model, contract, parity, identity, None, unknown)
    return out
