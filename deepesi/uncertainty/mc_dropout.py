"""Monte Carlo dropout: mixture of copies of a network with different dropout masks."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.dropout import FeatureDropout
from deepesi.core.traced_members import is_tracing_members, trace_side_by_side
from deepesi.uncertainty.ensemble import mixture


class MCDropout(InverseModel):
    """Mean and standard deviation over dropout masks of a network trained with dropout.

    Args:
        model: Network with `deepesi.core.dropout.FeatureDropout` layers (``model.dropout=0.1``).
        n_samples: Number of dropout masks, at least 2.
        seed: Random seed of the masks.

    Raises:
        ValueError: There are fewer than two samples, or the network has no dropout.

    Source: Gal & Ghahramani 2016, arXiv:1506.02142. Difference: the masks are drawn once and are
    the same for every recording. So estimates can be reproduced and exported,
    and do not depend on the batch.

    """

    def __init__(self, model: InverseModel, n_samples: int = 10, seed: int = 0) -> None:
        super().__init__()
        layers = {k: m for k, m in model.named_modules() if isinstance(m, FeatureDropout)}
        if n_samples < 2:
            raise ValueError(f"MCDropout: needs 2 samples or more, got {n_samples}.")
        if not layers:
            raise ValueError(
                f"MCDropout: {type(model).__name__} has no dropout layers. Train it with, for "
                "example, model.dropout=0.1, or combine several runs (ensemble=[...])."
            )
        self.model, self.n_samples = model, n_samples
        self.head_inputs, self.bound_to_space = model.head_inputs, model.bound_to_space
        self.window_needs = model.window_needs
        generator = torch.Generator().manual_seed(seed)
        self.names = [f"{name}.mask" for name in layers]
        for number, layer in enumerate(layers.values()):
            kept = torch.rand(n_samples, len(layer.mask), generator=generator) >= layer.p
            self.register_buffer(f"masks_{number}", kept / (1 - layer.p), persistent=False)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard deviation of the mixture over masks."""
        masks = {n: self.get_buffer(f"masks_{number}") for number, n in enumerate(self.names)}
        if is_tracing_members():
            return mixture(trace_side_by_side(self.model, masks, data, inputs))
        return mixture(
            [
                functional_call(self.model, {n: m[k] for n, m in masks.items()}, (data, inputs))
                for k in range(self.n_samples)
            ]
        )
