"""ConvDip: the scalp potential as an image, a convolution, and dense layers to every source."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.dropout import FeatureDropout
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import NoiseLevel, SourceUnit, TopographicMatrix, Whitener


class ConvDip(InverseModel):
    """Convolutional network on topographic images; every time point is inverted on its own.

    Args:
        n_dipoles: Source components ``D`` of the source space it is trained for.
        height: Rows of the image.
        width: Columns of the image.
        n_filters: Filters of the 3 x 3 convolution.
        hidden: Units of each dense layer.
        n_hidden: Number of residual blocks of two dense layers.
        denoise_snr_db: Assumed SNR of each denoised image, dB.
        dropout: Share of the hidden units that training leaves out, for
            `deepesi.uncertainty.mc_dropout.MCDropout`; 0: none.
        heteroscedastic: Also give a standard deviation per dipole, from a second output layer.
            It is learned only with a loss that asks for it (``loss=uncertainty``).
        output_scale: Moment that an output of 1 stands for, in `SourceUnit` times the RMS of the
            image (no unit). A patch shares its moment out among tens of sources: at 0.1, as
            ``model=convdip`` has it, outputs are of order one, and terms of the loss that know the
            size of the estimate do not drown those that know its shape. The default is what
            networks without this setting were trained with.

    Raises:
        ValueError: A size or the scale is not positive, or the dropout outside 0 to 1.

    Source: Hecker et al. 2021, doi:10.3389/fnins.2021.569918 (7 x 11 image, one convolution of 8
    filters, dense layers of 512, one output per source). Ours deviates: the images
    are not of the potential but of its posterior mean at a few assumed SNRs, which is how the
    noise covariance enters (whitened channels would form no topography); they are divided by
    their RMS, and that and the whitened RMS of the channels enter as numbers, so that the network
    knows the SNR and the estimate scales with the data; residual dense blocks;
    signed outputs, as sources here are signed moments along the cortical normal.

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
            TopographicMatrix(height, width, snr_db) for snr_db in map(float, denoise_snr_db)
        )
        self.whitener, self.noise_level, self.unit = Whitener(), NoiseLevel(), SourceUnit()
        self.head_inputs = (*self.images, self.whitener, self.noise_level, self.unit)
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
        self.thinned = FeatureDropout(dropout, hidden) if dropout else nn.Identity()
        self.last = nn.Linear(hidden, n_dipoles)
        # Start near zero: true maps are mostly zero, and the terms of the loss compare sizes.
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)
        self.last_std = nn.Linear(hidden, n_dipoles) if heteroscedastic else None
        if self.last_std is not None:
            nn.init.normal_(self.last_std.weight, std=1e-3)
            nn.init.zeros_(self.last_std.bias)

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Interpolate, normalize, invert each frame, restore the scale."""
        frames = data.transpose(1, 2).flatten(0, 1)
        matrix = torch.cat([inputs[image.key] for image in self.images])
        image = frames @ matrix.T / inputs[self.noise_level.key]
        rms = image.square().mean(1, keepdim=True).add(1e-6).sqrt()
        whitened = (frames @ inputs[self.whitener.key]).square().mean(1, keepdim=True)
        loudness = torch.cat([rms.log(), 0.5 * (whitened + 1e-6).log()], dim=1)
        pixels = (image / rms).reshape(-1, len(self.images), *self.image_shape)
        features = functional.gelu(self.convolution(pixels)).flatten(1)
        hidden = functional.gelu(self.first(torch.cat([features, loudness], dim=1)))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden, unit = self.thinned(self.norm(hidden)), inputs[self.unit.key] * self.output_scale

        def moments(frames: Tensor) -> Tensor:
            return (frames * rms * unit).reshape(data.shape[0], data.shape[2], -1).transpose(1, 2)

        if self.last_std is None:
            return Estimate(moments(self.last(hidden)))
        std = functional.softplus(self.last_std(hidden))
        return Estimate(moments(self.last(hidden)), moments(std))
