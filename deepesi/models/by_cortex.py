"""Two networks as one: for a template's cortex, and for that of the recorded person."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.contracts import Assumptions, Estimate, InverseModel
from deepesi.physics.head_inputs import OwnNormals
from deepesi.runtime.window_needs import WindowNeeds


class ByCortex(InverseModel):
    """The network that the cortex of a head asks for.

    On a template's cortex nobody knows the normals and the exact places of the recorded person's
    sources, so a network has to allow for other ones. On the person's own cortex they are right,
    and what the recording says about skull and electrodes is worth more. Only one of the networks
    is computed, so an estimate takes its time alone. `OwnNormals` says which cortex it is.

    Args:
        template: Network for a template's cortex, trained on other people's
            (``experiment=stranger``).
        own: Network for the cortex of the recorded person (``experiment=own_cortex``).

    Attributes:
        traced: Which of them a traced graph is; an exported file holds both.

    Source: own method.

    """

    traced: str = "template"

    def __init__(self, template: InverseModel, own: InverseModel) -> None:
        super().__init__()
        self.template, self.own = template, own
        self.cortex = OwnNormals()
        self.head_inputs = tuple(
            dict.fromkeys((*template.head_inputs, *own.head_inputs, self.cortex))
        )
        self.bound_to_space = template.bound_to_space or own.bound_to_space
        self.exportable = template.exportable and own.exportable
        self.window_needs = WindowNeeds.joined(m.window_needs for m in (template, own))

    @property
    def assumptions(self) -> Assumptions:
        """Prior information of the network for a template's cortex."""
        return self.template.assumptions

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Estimate of the network for this cortex."""
        if torch.compiler.is_exporting():
            is_own = self.traced == "own"
        else:
            is_own = bool(inputs[self.cortex.key][0] > 0)
        estimate: Estimate = (self.own if is_own else self.template)(data, inputs)
        return estimate
