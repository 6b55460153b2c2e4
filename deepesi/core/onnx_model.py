"""An exported file as an inverse model, for evaluation beside networks and baselines."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.runtime.protobuf import n_values
from deepesi.runtime.session import open_model


class OnnxModel(InverseModel):
    """Runs an ONNX file of deepesi on the CPU.

    Args:
        path: The ``.onnx`` file.

    Raises:
        FileNotFoundError: As in `open_model`.
        ValueError: As in `open_model`.

    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = str(path)
        self.opened = open_model(Path(path), n_threads=1)  # sums are equal on every machine
        # Stands for the weights, which are in the file.
        content = Path(path).read_bytes()
        digest = hashlib.sha256(content).digest()
        self.n_weights = n_values(content)
        self.register_buffer("digest", torch.from_numpy(np.frombuffer(digest, np.uint8).copy()))
        self.head_inputs = self.opened.contract.head_inputs
        self.bound_to_space = self.opened.contract.space_name is not None

    def __reduce__(self) -> tuple[type["OnnxModel"], tuple[str]]:
        """Pickle only the path: another process opens the file again."""
        return OnnxModel, (self.path,)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Run the session."""
        feeds = {d.key: inputs[d.key].cpu().numpy() for d in self.head_inputs}
        outputs = self.opened.run(data.cpu().numpy(), feeds)
        return Estimate(**{kind: torch.from_numpy(o).to(data) for kind, o in outputs.items()})
