"""ConvDip: topographic images of the data, a convolution, and dense layers to all sources."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.dropout import FeatureDropout
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import (
    NoiseLevel,
    OrientationRoot,
    SourceUnit,
    TopographicMatrix,
    Whitener,
)


class ConvDip(InverseModel):
    """Convolutional network on topographic images. Every time point is inverted on its own.

    Args:
        n_dipoles: Number ``D`` of source components of the source space.
        height: Rows of an image.
        width: Columns of an image.
        n_filters: Filters of the 3 x 3 convolution.
        hidden: Units of each dense layer.
        n_hidden: Number of residual blocks, two dense layers each.
        denoise_snr_db: Assumed SNR of each denoised image, dB.
        dropout: Dropout probability of the hidden units, for
            `deepesi.uncertainty.mc_dropout.MCDropout`. 0: no dropout.
        heteroscedastic: Also estimate a standard deviation per dipole, from a second output
            layer. Needs a loss that trains it (``loss=uncertainty``).
        output_scale: Dipole moment for an output of 1, in units of `SourceUnit` times the RMS of
            the image (no unit). The moment of a patch is shared by tens of sources. With 0.1, as
            in ``model=convdip``, outputs are of order one, and loss terms that depend on the size
            of the estimate do not dominate those that depend on its shape. The default is the
            value for networks that were trained without this setting.
        loose: Prior variance of tangential moments, relative to that along the normal; needs a head
            of free orientation below 1. The denoised images assume it, and outputs are multiplied
            by the root of this prior. 1: the orientation of the head, fixed or free.

    Raises:
        ValueError: A size or the scale is not positive, the dropout probability is outside 0 to 1,
            or `loose` is not above 0 and at most 1.

    Source: Hecker et al. 2021, doi:10.3389/fnins.2021.569918 (7 x 11 image, one convolution of 8
    filters, dense layers of 512, one output per source). Differences: an image shows the posterior
    mean of the potential at an assumed SNR, not the potential itself, so that the noise
    covariance is used (an image of whitened channels would not be a topography). Each image is
    divided by its RMS. The logarithms of this RMS and of the whitened RMS are further inputs: the
    network knows the SNR, and the estimate scales with the data. Dense blocks are residual.
    Outputs are signed moments along the cortical normal, or three components per source.

    """

    bound_to_space = True

    def __init__(
        self,
        n_dipoles: int,
        height: int = 12,
        width: int = 12,
        n_filters: int = 8,
        hidden: int = 512,
        n_hidden: int = 2,
        denoise_snr_db: Sequence[float] = (-5.0, 5.0),
        dropout: float = 0.0,
        heteroscedastic: bool = False,
        output_scale: float = 1.0,
        loose: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(
            "ConvDip",
            n_dipoles=n_dipoles,
            height=height,
            width=width,
            n_filters=n_filters,
            hidden=hidden,
            n_hidden=n_hidden,
        )
        if not output_scale > 0:
            raise ValueError(f"ConvDip: output_scale must be above 0, got {output_scale}.")
        self.image_shape, self.output_scale = (height, width), output_scale
        self.images = tuple(
            TopographicMatrix(height, width, snr_db, loose) for snr_db in map(float, denoise_snr_db)
        )
        self.prior = OrientationRoot(loose) if loose < 1 else None
        self.whitener, self.noise_level, self.unit = Whitener(), NoiseLevel(), SourceUnit()
        fixed = (self.whitener, self.noise_level, self.unit)
        self.head_inputs = (*self.images, *fixed, *((self.prior,) if self.prior else ()))
        self.convolution = nn.Conv2d(len(self.images), n_filters, 3, padding=1)
        self.first = nn.Linear(n_filters * height * width + 2, hidden)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden),
                nn.Linear(hidden, hidden),
                nn.GELU(),
                *([FeatureDropout(dropout, hidden)] if dropout else []),
                nn.Linear(hidden, hidden),
            )
            for _ in range(n_hidden)
        )
        self.norm = nn.LayerNorm(hidden)
        self.dropout = FeatureDropout(dropout, hidden) if dropout else nn.Identity()
        self.last = nn.Linear(hidden, n_dipoles)
        # Start near zero: targets are mostly zero, and terms of the loss compare magnitudes.
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)
        self.last_std = nn.Linear(hidden, n_dipoles) if heteroscedastic else None
        if self.last_std is not None:
            nn.init.normal_(self.last_std.weight, std=1e-3)
            nn.init.zeros_(self.last_std.bias)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Interpolate and normalize the images, invert each frame, restore the scale."""
        frames = data.transpose(1, 2).flatten(0, 1)
        matrix = torch.cat([inputs[image.key] for image in self.images])
        image = frames @ matrix.T / inputs[self.noise_level.key]
        rms = image.square().mean(1, keepdim=True).add(1e-6).sqrt()
        whitened = (frames @ inputs[self.whitener.key]).square().mean(1, keepdim=True)
        levels = torch.cat([rms.log(), 0.5 * (whitened + 1e-6).log()], dim=1)
        pixels = (image / rms).reshape(-1, len(self.images), *self.image_shape)
        features = functional.gelu(self.convolution(pixels)).flatten(1)
        hidden = functional.gelu(self.first(torch.cat([features, levels], dim=1)))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden, unit = self.dropout(self.norm(hidden)), inputs[self.unit.key] * self.output_scale

        def moments(frames: Tensor) -> Tensor:
            return (frames * rms * unit).reshape(data.shape[0], data.shape[2], -1).transpose(1, 2)

        mean = self.last(hidden)
        if self.prior is not None:
            mean = along_orientations(inputs[self.prior.key], mean)
        if self.last_std is None:
            return Estimate(moments(mean))
        std = functional.softplus(self.last_std(hidden))
        if self.prior is not None:
            root = inputs[self.prior.key]
            std = along_orientations(root.square(), std.square()).sqrt()
        return Estimate(moments(mean), moments(std))


def along_orientations(
    blocks: Float[Tensor, "S O O"], values: Float[Tensor, "N D"]
) -> Float[Tensor, "N D"]:
    """Multiply the components of every source by its symmetric block."""
    components = values.unflatten(1, (blocks.shape[0], -1))
    return (components[:, :, None] * blocks).sum(3).flatten(1)
