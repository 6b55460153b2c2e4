"""An exported file as an inverse model, for evaluation beside networks and baselines."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import N_DRAWS, Estimate, InverseModel, PosteriorModel
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
        self.window_needs = self.opened.contract.window_needs
        self.bound_to_space = self.opened.contract.space_name is not None

    def __reduce__(self) -> tuple[type["OnnxModel"], tuple[str]]:
        """Pickle only the path: another process opens the file again."""
        return type(self), (self.path,)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Run the session."""
        return Estimate(**self._outputs(data, inputs))

    def _outputs(
        self,
        data: Tensor,
        inputs: dict[str, Tensor],
        noise: Tensor | None = None,
        kinds: tuple[str, ...] | None = None,
    ) -> dict[str, Tensor]:
        feeds = {d.key: inputs[d.key].cpu().numpy() for d in self.head_inputs}
        draws = None if noise is None else noise.cpu().numpy()
        outputs = self.opened.run(data.cpu().numpy(), feeds, draws, kinds)
        return {kind: torch.from_numpy(o).to(data) for kind, o in outputs.items()}


class OnnxPosterior(OnnxModel, PosteriorModel):
    """Runs an ONNX file of a posterior model: the same noise gives the samples of the model.

    Args:
        path: The ``.onnx`` file.

    Raises:
        FileNotFoundError: As in `open_model`.
        ValueError: As in `open_model`, or the file draws no samples.

    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        contract = self.opened.contract
        if contract.noise is None:
            raise ValueError(
                f"OnnxPosterior: {path} draws no samples (its outputs: {contract.kinds}). Export a "
                "posterior model, or take OnnxModel."
            )
        self.noise_axes, self.fixed = contract.noise, contract.n_draws is not None
        self.n_draws = contract.n_draws or N_DRAWS

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard deviation, with the fixed draws behind them if there are any."""
        noise = self.fixed_noise(data, inputs) if self.fixed else None
        return Estimate(**self._outputs(data, inputs, noise))

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Samples from the file."""
        return self._outputs(data, inputs, noise, ("samples",))["samples"]


def load_onnx(path: str | Path) -> OnnxModel:
    """A file as a model; as a posterior model if it draws samples.

    Raises:
        FileNotFoundError: As in `open_model`.
        ValueError: As in `open_model`.

    """
    model = OnnxModel(path)
    return model if model.opened.contract.noise is None else OnnxPosterior(path)
