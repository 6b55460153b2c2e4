"""Monte Carlo dropout: one network as the mixture of the networks that dropout makes of it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.dropout import FeatureDropout
from deepesi.core.traced_members import is_tracing_members, trace_side_by_side
from deepesi.uncertainty.ensemble import mixture


class MCDropout(InverseModel):
    """Mean and deviation over thinned copies of a network that was trained with dropout.

    Args:
        model: With `deepesi.core.dropout.FeatureDropout` in it (``model.dropout=0.1``).
        n_samples: Thinned networks, at least 2.
        seed: Of what they leave out.

    Raises:
        ValueError: Fewer than two samples, or a network without dropout.

    Source: Gal & Ghahramani 2016, arXiv:1506.02142. Ours deviates: what a sample leaves out is
    drawn once and is the same for every recording, as if each were a network of its own; so
    estimates are repeatable, do not depend on the batch, and can be exported.

    """

    def __init__(self, model: InverseModel, n_samples: int = 10, seed: int = 0) -> None:
        super().__init__()
        layers = {k: m for k, m in model.named_modules() if isinstance(m, FeatureDropout)}
        if n_samples < 2:
            raise ValueError(f"MCDropout: needs 2 samples or more, got {n_samples}.")
        if not layers:
            raise ValueError(
                f"MCDropout: {type(model).__name__} has no dropout, so chance leaves nothing out. "
                "Train it with model.dropout=0.1, say, or join several runs (ensemble=[...])."
            )
        self.model, self.n_samples = model, n_samples
        self.head_inputs, self.bound_to_space = model.head_inputs, model.bound_to_space
        generator = torch.Generator().manual_seed(seed)
        self.names = [f"{name}.mask" for name in layers]
        for number, layer in enumerate(layers.values()):
            kept = torch.rand(n_samples, len(layer.mask), generator=generator) >= layer.p
            self.register_buffer(f"masks_{number}", kept / (1 - layer.p), persistent=False)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """The mixture of what the thinned networks say."""
        masks = {n: self.get_buffer(f"masks_{number}") for number, n in enumerate(self.names)}
        if is_tracing_members():
            return mixture(trace_side_by_side(self.model, masks, data, inputs))
        return mixture(
            [
                functional_call(self.model, {n: m[k] for n, m in masks.items()}, (data, inputs))
                for k in range(self.n_samples)
            ]
        )
