"""ConvDip: the scalp potential as an image, a convolution, and dense layers to every source."""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepesi.contracts import Estimate, InverseModel
from deepesi.physics.head_inputs import NoiseLevel, SourceUnit, TopographicMatrix


class ConvDip(InverseModel):
    """Convolutional network on topographic images; every time point is inverted on its own.

    Args:
        n_dipoles: Source components ``D`` of the source space it is trained for.
        height: Rows of the image.
        width: Columns of the image.
        n_filters: Filters of the 3 x 3 convolution.
        hidden: Units of each dense layer.
        n_hidden: Number of hidden dense layers.

    Raises:
        ValueError: A size is not positive.

    Source: Hecker et al. 2021, doi:10.3389/fnins.2021.569918 (7 x 11 image, one convolution of 8
    filters, dense layers of 512, one output per source). Ours deviates: the image is divided by
    its own RMS and the RMS in units of the noise enters beside it, so that the network knows the
    SNR and the estimate scales with the data; more filters; residual dense layers; signed outputs,
    as sources here are signed moments along the cortical normal, through a soft threshold that
    lets the network say zero. The noise enters as one level, not as a whitening matrix: whitening
    would turn the image into something that is no topography.

    """

    bound_to_space: ClassVar[bool] = True

    def __init__(
        self,
        n_dipoles: int,
        height: int = 12,
        width: int = 12,
        n_filters: int = 16,
        hidden: int = 512,
        n_hidden: int = 2,
    ) -> None:
        super().__init__()
        sizes = {
            "n_dipoles": n_dipoles, "height": height, "width": width,
            "n_filters": n_filters, "hidden": hidden, "n_hidden": n_hidden,
        }  # fmt: skip
        if min(sizes.values()) < 1:
            raise ValueError(f"ConvDip: all sizes must be 1 or more, got {sizes}.")
        self.image_shape = (height, width)
        self.topography = TopographicMatrix(height=height, width=width)
        self.noise_level, self.unit = NoiseLevel(), SourceUnit()
        self.head_inputs = (self.topography, self.noise_level, self.unit)
        self.convolution = nn.Conv2d(1, n_filters, 3, padding=1)
        self.first = nn.Linear(n_filters * height * width + 1, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU())
            for _ in range(n_hidden)
        )
        self.last = nn.Linear(hidden, n_dipoles)
        self.threshold = nn.Parameter(torch.full((n_dipoles, 1), 0.01))

    def forward(self, eeg: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Interpolate, normalize, invert each frame, restore the scale."""
        frames = eeg.transpose(1, 2) / inputs[self.noise_level.key]
        image = frames @ inputs[self.topography.key].T
        rms = image.square().mean(-1, keepdim=True).add(1e-6).sqrt()
        shape = (-1, 1, *self.image_shape)
        features = nn.functional.gelu(self.convolution((image / rms).reshape(shape))).flatten(1)
        hidden = nn.functional.gelu(
            self.first(torch.cat([features, rms.log().reshape(-1, 1)], dim=1))
        )
        for block in self.blocks:
            hidden = hidden + block(hidden)
        raw = self.last(hidden).reshape(*frames.shape[:2], -1).transpose(1, 2)
        sparse = nn.functional.softshrink(raw, 0.0) if False else raw
        return Estimate(sparse * rms.transpose(1, 2) * inputs[self.unit.key])
