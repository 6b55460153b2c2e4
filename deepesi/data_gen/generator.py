"""SimulatedRecordings: sources rendered through perturbed lead fields, with noise, as batches."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.contracts import Batch, Scene
from deepesi.data_gen.keys import torch_generator, uniform
from deepesi.data_gen.setups import SetupPool, SetupRanges
from deepesi.data_gen.sources import PatchSources
from deepesi.physics.graph import geodesic_distances
from deepesi.physics.head_inputs import HeadInput
from deepesi.physics.template import Template


class SimulatedRecordings:
    r"""Draws batches of EEG and the sources behind it.

    Every example has its own skull conductivity and its own electrode displacement; a batch has
    one set-up (montage, noise). The SNR is ``10 log10(‖V‖² / E‖N‖²)`` over the window, with
    ``E‖N‖² = T tr(noise_cov)``: the dipole moments are scaled to meet it.

    Args:
        template: The head.
        sources: What sources are drawn.
        setups: What set-ups are drawn from.
        declarations: Head inputs to prepare (those of the model and of the loss).
        snr_db: Lowest and highest SNR, dB, uniform.
        skull_conductivity: Lowest and highest true conductivity, S/m, log-uniform.
        batch_size: Examples per batch.
        n_times: Samples per example, 1 for snapshots.
        seed: First part of the key.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        pool_size: Set-ups in use at a time.
        pool_period: Steps after which they are redrawn.
        device: Where batches are drawn.

    Raises:
        ValueError: A range is out of order or not in SI units.

    """

    def __init__(
        self,
        template: Template,
        sources: PatchSources,
        setups: SetupRanges,
        declarations: Sequence[HeadInput],
        snr_db: tuple[float, float] = (-5.0, 20.0),
        skull_conductivity: tuple[float, float] = (0.003, 0.03),
        batch_size: int = 256,
        n_times: int = 1,
        seed: int = 0,
        split: str = "train",
        pool_size: int = 8,
        pool_period: int = 512,
        device: torch.device | str = "cpu",
    ) -> None:
        if template.space.n_orient != 1:
            raise ValueError(
                "SimulatedRecordings: sources are drawn along the cortical normal, the head has "
                f"n_orient={template.space.n_orient}. Use a head with n_orient=1."
            )
        if not snr_db[0] <= snr_db[1]:
            raise ValueError(f"SimulatedRecordings: snr_db {tuple(snr_db)} is not ascending.")
        if not 0 < skull_conductivity[0] <= skull_conductivity[1]:
            raise ValueError(
                f"SimulatedRecordings: skull_conductivity {tuple(skull_conductivity)} is not an "
                "ascending range above 0 S/m."
            )
        if batch_size < 1 or n_times < 1:
            raise ValueError(
                f"SimulatedRecordings: batch_size and n_times must be 1 or more, got {batch_size} "
                f"and {n_times}."
            )
        self.sources, self.snr_db = sources, snr_db
        self.skull_conductivity, self.batch_size, self.n_times = (
            skull_conductivity, batch_size, n_times,
        )  # fmt: skip
        self.seed, self.split, self.device = seed, split, device
        self.pool = SetupPool(template, setups, declarations, pool_size, pool_period, device)
        family = template.family
        family.coefficients(np.array(skull_conductivity))  # refuses what the family does not cover
        distances = geodesic_distances(template.source_pos, template.space.faces)
        self._distances = torch.as_tensor(distances, dtype=torch.float32, device=device)
        self._log_nodes = torch.as_tensor(np.log(family.conductivities), device=device)

    def batch(self, step: int, rank: int = 0) -> Batch:
        """The batch of one step and rank: always the same one."""
        key = (self.seed, self.split, rank, step)
        rng = torch_generator(*key, device=self.device)
        setup = self.pool.at(*key)
        low, high = map(math.log, self.skull_conductivity)
        conductivity = uniform((self.batch_size,), low, high, rng).exp()
        truth = setup.render_through(self._coefficients(conductivity), rng)
        patches = self.sources.draw(self._distances, self.batch_size, self.n_times, rng)
        snr_db = uniform((self.batch_size,), *self.snr_db, rng)
        clean = truth.project(patches.sources)
        noise_power = self.n_times * setup.noise_factor.square().sum()
        power = clean.square().sum((1, 2))
        scale = (noise_power * 10 ** (snr_db / 10) / power).sqrt()[:, None, None]
        white = torch.randn(clean.shape, generator=rng, device=rng.device)
        return Batch(
            eeg=scale * clean + setup.noise_factor @ white,
            sources=scale * patches.sources,
            head=setup.head,
            inputs=setup.inputs,
            truth=truth,
            scene=Scene(patches.peaks, patches.extents, snr_db, conductivity, key),
        )

    def _coefficients(self, conductivity: Float[Tensor, " B"]) -> Float[Tensor, "B K"]:
        """Lagrange coefficients; the batched twin of `LeadFieldFamily.coefficients`."""
        x, nodes = conductivity.double().log()[:, None], self._log_nodes
        n_nodes = len(nodes)
        other = ~torch.eye(n_nodes, dtype=torch.bool, device=nodes.device)
        ones = torch.ones((), dtype=nodes.dtype, device=nodes.device)
        numerator = torch.where(other, (x - nodes)[:, None, :], ones).prod(-1)
        denominator = torch.where(other, nodes[:, None] - nodes, ones).prod(-1)
        return (numerator / denominator).float()
