"""A small 3D U-Net."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

#: Number of times the grid is halved, and number of channels per normalization group.
N_HALVINGS, GROUP = 2, 4


class UNet3d(nn.Module):
    """U-Net with two levels of downsampling and ``b, 2b, 4b`` channels.

    The edges of the grid must be multiples of 4. Skip connections are added, not concatenated.

    Args:
        n_in: Input channels.
        base: Channels ``b`` at full resolution, a multiple of 4.
        n_out: Output channels.

    Source: Ronneberger et al. 2015, arXiv:1505.04597; Çiçek et al. 2016, arXiv:1606.06650 (3D).
    Differences: strided convolutions instead of pooling, added instead of concatenated skips,
    one convolution at full resolution in each direction, group normalization.

    """

    def __init__(self, n_in: int, base: int, n_out: int) -> None:
        super().__init__()
        self.input_block = _Block(n_in, base)
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
        self.output_layer = nn.Conv3d(base, n_out, 1)

    def forward(self, image: Float[Tensor, "B F X Y Z"]) -> Float[Tensor, "B G X Y Z"]:
        """Apply the network to an image ``(x, y, z)``."""
        # With few channels, channels-last is twice as fast on a CPU as channels-first.
        image = image.contiguous(memory_format=torch.channels_last_3d)
        passed = [self.input_block(image)]
        for down in self.down:
            passed.append(down(passed[-1]))
        state = passed.pop()
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            state = merge(passed.pop() + up(state))
        return self.output_layer(state)


class _Block(nn.Module):
    """Convolution, group normalization, rectification."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(n_out // GROUP, n_out)

    def forward(self, image: Float[Tensor, "B F X Y Z"]) -> Float[Tensor, "B G U V W"]:
        """Apply the three layers."""
        return functional.relu(self.norm(self.convolution(image)))
