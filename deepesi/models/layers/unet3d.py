"""A small 3D U-Net."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

#: Times the grid is halved, and channels that share one normalization.
N_HALVINGS, GROUP = 2, 4


class UNet3d(nn.Module):
    """Two halvings and back, ``b, 2b, 4b`` channels; grid edges are multiples of 4.

    Skip connections add, so that no layer doubles its input.

    Args:
        n_in: Channels of the image.
        base: Channels ``b`` at full resolution, a multiple of 4.
        n_out: Channels that leave.

    Source: Ronneberger et al. 2015, arXiv:1505.04597; Çiçek et al. 2016, arXiv:1606.06650 (3D).
    Ours deviates: strided convolutions instead of pooling, added instead of concatenated skips,
    one convolution at full resolution each way, group normalization.

    """

    def __init__(self, n_in: int, base: int, n_out: int) -> None:
        super().__init__()
        self.enter = _Block(n_in, base)
        self.down = nn.ModuleList(
            nn.Sequential(
                _Block(base << i, 2 * base << i, stride=2), _Block(2 * base << i, 2 * base << i)
            )
            for i in range(N_HALVINGS)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(2 * base << i, base << i, 2, stride=2) for i in range(N_HALVINGS)
        )
        self.merge = nn.ModuleList(_Block(base << i, base << i) for i in range(N_HALVINGS))
        self.leave = nn.Conv3d(base, n_out, 1)

    def forward(self, image: Float[Tensor, "B F X Y Z"]) -> Float[Tensor, "B G X Y Z"]:
        """Down, up, and out."""
        # Twice as fast on a CPU as channels first, where there are so few of them.
        image = image.contiguous(memory_format=torch.channels_last_3d)
        passed = [self.enter(image)]
        for down in self.down:
            passed.append(down(passed[-1]))
        state = passed.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            state = merge(passed.pop() + up(state))
        return self.leave(state)


class _Block(nn.Module):
    """Convolution, normalization over groups of channels of one example, rectification."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(n_out // GROUP, n_out)

    def forward(self, image: Float[Tensor, "B F X Y Z"]) -> Float[Tensor, "B G U V W"]:
        """See the class."""
        return functional.relu(self.norm(self.convolution(image)))
