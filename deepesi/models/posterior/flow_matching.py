"""Conditional flow matching: samples of source maps, from noise by a learned velocity."""

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Objective, PosteriorModel
from deepesi.models.layers.flow_path import follow, on_path, times, velocity_error
from deepesi.models.layers.sizes import check_sizes
from deepesi.models.layers.source_denoiser import SourceDenoiser
from deepesi.models.layers.unit_sources import Setting, UnitSources

#: Draws that are computed at once in torch, so that their arrays stay in fast memory.
AT_ONCE = 16


class FlowMatching(PosteriorModel):
    """Source maps from noise on the mesh, along straight paths with an expected velocity.

    A path leads from noise ``β e`` to sources ``x1``: ``x = (1 - s) β e + s x1``. The expected
    velocity at ``x``, ``(E[x1 | x, recording] - x) / (1 - s)``, leads noise to samples of the
    posterior. `SourceDenoiser` gives the expected sources: exact physics through the nominal lead
    field, with the variances of a network. Untrained the samples are those of the Bayesian minimum
    norm (depth weighted), up to the steps of the integration.

    Sources are in units of the moment whose whitened topography has norm 1, and a recording has
    power 1, so that deep and superficial sources and all signal-to-noise ratios look alike. No
    weight belongs to a channel or a source: montage, head and source space are free. On a head of
    free orientation sources point along the normals. A window is drawn as a whole.

    The objective (``loss``) has no effect.

    Args:
        n_steps: Steps from noise to sources, of Heun's method.
        hidden: Width of the network.
        n_messages: Rounds of messages on the mesh, in every step.
        n_conjugate: Conjugate-gradient steps per update.
        noise_std: Standard deviation ``β`` of the noise at the start of the paths.
        n_draws: Number of draws in `forward`.

    Raises:
        ValueError: A size is not positive, there is one step only, or `noise_std` is not above 0.

    Source: flow matching, Lipman et al. 2023, arXiv:2210.02747, conditional on data as in
    Wildberger et al. 2023, arXiv:2305.17161; guidance by a Gaussian update as in pseudoinverse-
    guided diffusion, Song et al. 2023 (ICLR).
    Difference: the update is inside of the network, which learns its variances.

    """

    bound_to_space = False
    noise_axes = ("sources", "times")

    def __init__(
        self,
        n_steps: int = 8,
        hidden: int = 24,
        n_messages: int = 2,
        n_conjugate: int = 8,
        noise_std: float = 0.15,
        n_draws: int = 32,
    ) -> None:
        super().__init__()
        sizes = {"hidden": hidden, "n_messages": n_messages, "n_conjugate": n_conjugate}
        check_sizes("FlowMatching", **sizes, n_draws=n_draws)
        if n_steps < 2 or noise_std <= 0:
            raise ValueError(
                "FlowMatching: n_steps must be 2 or more and noise_std above 0, got "
                f"n_steps={n_steps}, noise_std={noise_std}."
            )
        self.units = UnitSources()
        self.head_inputs = self.units.head_inputs
        self.n_steps, self.n_draws = n_steps, n_draws
        self.denoiser = SourceDenoiser(noise_std, hidden, n_messages, n_conjugate)

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the model before training."""
        return Assumptions("any", "any", "covariance and level", "nominal")

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Dipole moments at the ends of the paths from noise."""
        setting, unit = self.units(data, inputs)
        # An exported graph computes all draws that it is given at once.
        parts = (
            (noise,) if torch.compiler.is_compiling() else noise.split(max(1, AT_ONCE // len(data)))
        )
        drawn = torch.cat([self._drawn(setting, part) for part in parts])
        return self.units.on_dipoles(drawn * unit, inputs)

    def training_loss(
        self, batch: Batch, objective: Objective, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Mean squared error of the velocity at a random time; `objective` has no effect."""
        setting, unit = self.units(batch.data, batch.inputs)
        end = (self.units.along_normals(batch.sources, batch.inputs) / unit).mT
        share = torch.rand(len(end), generator=rng, device=rng.device).to(end)
        time = share * times(self.n_steps)[-2]
        noise = torch.randn(end.shape, generator=rng, device=rng.device).to(end)
        start = self.denoiser.noise_std * noise
        by_example = time[:, None, None]
        expected = self.denoiser(on_path(start, end, by_example), time, setting)
        loss = velocity_error(expected, end, by_example).square().sum(2).mean()
        return {"loss": loss}

    def _drawn(self, setting: Setting, noise: Float[Tensor, "N B Z"]) -> Float[Tensor, "N B S T"]:
        start = noise.unflatten(2, (-1, setting.data.shape[1])).flatten(0, 1).mT
        each = setting.repeated(noise.shape[0])
        ends = follow(
            lambda x, time: self.denoiser(x, time.expand(x.shape[0]), each),
            self.denoiser.noise_std * start.to(setting.data),
            self.n_steps,
        )
        return ends.mT.unflatten(0, noise.shape[:2])
