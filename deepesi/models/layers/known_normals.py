"""What changes in a network of two kinds of patches if the normals of the head are right."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: Initial logarithm of the odds of a patch of any orientation, on a person's own cortex.
RARELY_TURNED = -6.0


class KnownNormals(nn.Module):
    """Prior of patches along the normals and of any orientation.

    On a template's cortex both are equally probable at first. On the cortex of the recorded person
    patches along the normals are more probable, and their share of mismatch is another.

    Args:
        n_radii: Patch radii of each kind.
        hidden: Width of the network.

    """

    def __init__(self, n_radii: int, hidden: int) -> None:
        super().__init__()
        self.n_radii = n_radii
        self.change = nn.Parameter(torch.zeros(3))  # of shares: along the normals, not, any source
        self.log_odds = nn.Parameter(torch.tensor([0.0, RARELY_TURNED]))  # of a template, own
        self.state = nn.Parameter(torch.zeros(hidden))

    def mismatch(self, own: Float[Tensor, " 1"]) -> Float[Tensor, " 3"]:
        """Change of the logarithms of the shares of head mismatch, see `PatchVariances`.

        Args:
            own: Whether the normals are right, of `deepesi.physics.head_inputs.OwnNormals`.

        """
        return own * self.change

    def log_prior(self, own: Float[Tensor, " 1"]) -> Float[Tensor, "K 1"]:
        """Logarithm of the prior of each patch of a source, up to a constant."""
        log_odds = (1 - own) * self.log_odds[0] + own * self.log_odds[1]
        kinds = torch.cat([torch.zeros_like(log_odds), log_odds])
        return kinds.repeat_interleave(self.n_radii)[:, None]

    def start(self, own: Float[Tensor, " 1"]) -> Float[Tensor, " H"]:
        """First hidden state of every source."""
        return own * self.state
