"""Unrolled ISTA: sparse coding of the data with patches of cortex, in learned steps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.contracts import Estimate, InverseModel
from deepesi.core.patches import along_axes, over_first, spread_patches
from deepesi.core.precision import in_full_precision
from deepesi.models.layers.sizes import check_sizes
from deepesi.physics.head_inputs import (
    PatchMoments,
    PatchPairs,
    PatchSensitivities,
    PatchShares,
    PatchTopographies,
    Preconditioners,
    Rank,
    SourceUnit,
    Whitener,
)

#: Share of the largest group that stays above the threshold, so that no estimate becomes zero.
MIN_SHARE = 0.05
#: Largest log factor of a patch on its step and threshold.
LARGEST_FACTOR = 3.0
#: Smallest energy, set with `clamp_min`: the ONNX exporter drops the addition of such numbers.
TINY = 1e-12


class UnrolledISTA(InverseModel):
    r"""``x ← shrink(y + Gᵀ W_k (v − G y), λ_k)``, ``y ← x + m_k (x − x_before)``, for each step k.

    ``v`` is the whitened data, ``G`` the whitened topographies of patches of a few radii around
    every source (unit norm), ``x`` their coefficients. The moments of the patches, spread over
    their sources, are the estimate.

    Untrained it is FISTA with the step ``1 / ‖G‖²``: with many steps it minimizes ``½‖v − G x‖² +
    λ Σ_g ‖x_g‖``, ``λ = threshold · max_g ‖Gᵀ_g v‖``: the LASSO over patches where orientation is
    fixed and there is one sample. A group ``g`` is a patch: its orientations and, with
    `group_time`, all samples of the window share one threshold (ℓ21). With ``n_radii=1`` and
    ``smallest=largest=0.001`` every patch is one source, and ``G`` the lead field.

    Learned (before training equal to FISTA or without effect):

    - per step: step size, threshold and momentum, the weights of a few analytic preconditioners
      ``W_k = Σ_l w_kl M_l`` (the first is plain gradient descent), and how far the threshold
      follows the largest coefficient of that step instead of ``max ‖Gᵀ_g v‖``;
    - a perceptron that changes all of these but the momentum with the whitened power (the SNR);
    - a perceptron, shared by all steps, sources and heads, that gives every patch a factor on its
      step and on its threshold. Inputs: the share of the residual that the patch explains, alone
      and relative to the best patch, the coefficient, the sensitivity of the preconditioner, the
      power and the misfit. None has a sign, so the estimate changes sign with the data.

    No weight belongs to a montage, a head or a source space. By default 1,741 weights. In
    training, memory grows with steps times patches times examples times samples.

    Args:
        n_steps: Number of steps.
        threshold: Initial ``λ``, as a fraction of the ``λ`` that gives zero; 0 to 0.9.
        group_time: Whether all samples of a window have the same active patches. If not, each
            sample is inverted on its own.
        smallest: Smallest patch radius, m.
        largest: Largest patch radius, m.
        n_radii: Number of patch radii from smallest to largest.
        n_levels: Number of preconditioners.
        hidden: Hidden units of each perceptron.
        heteroscedastic: Also estimate a standard deviation per dipole and sample. Needs a loss
            that trains it (``loss=uncertainty``).
        loose: Prior variance of topographies orthogonal to that of the normal of a patch, relative
            to that one; needs a head of free orientation below 1. As in MNE-Python's mixed norm,
            it weighs the topographies. 1: the orientation of the head, fixed or free.

    Raises:
        ValueError: A size is not positive, or the threshold, a radius or `loose` is out of its
            range.

    Source: Daubechies et al. 2004, doi:10.1002/cpa.20042 (ISTA); Beck & Teboulle 2009,
    doi:10.1137/080716542 (FISTA); Gregor & LeCun 2010, ICML (LISTA: learned steps); Liu et al.
    2019, ICLR (ALISTA: an analytic matrix, step size and threshold learned); Gramfort et al. 2012,
    doi:10.1088/0031-9155/57/7/1937 (ℓ21 over orientation and time for EEG). Differences: the lead
    field is an input, LISTA learns it; the dictionary holds patches; preconditioners are ridge
    inverses in sensor space; thresholds depend on coefficients, power and patches.

    """

    bound_to_space = False

    def __init__(
        self,
        n_steps: int = 8,
        threshold: float = 0.1,
        group_time: bool = True,
        smallest: float = 0.010,
        largest: float = 0.025,
        n_radii: int = 3,
        n_levels: int = 4,
        hidden: int = 16,
        heteroscedastic: bool = False,
        loose: float = 1.0,
    ) -> None:
        super().__init__()
        check_sizes(
            "UnrolledISTA", n_steps=n_steps, n_radii=n_radii, n_levels=n_levels, hidden=hidden
        )
        if not 0 < threshold < 0.9:
            raise ValueError(
                f"UnrolledISTA: threshold must lie between 0 and 0.9, got {threshold}. It is a "
                "fraction of the smallest threshold that makes every estimate zero."
            )
        self.n_steps, self.group_time, self.n_radii = n_steps, group_time, n_radii
        radii = (smallest, largest, n_radii)
        self.whitener, self.rank, self.unit = Whitener(), Rank(), SourceUnit()
        prior = (*radii, loose)
        self.topographies, self.moments = PatchTopographies(*prior), PatchMoments(*prior)
        self.pairs, self.shares = PatchPairs(*radii), PatchShares(*radii)
        self.levels = Preconditioners(*radii, n_levels, loose)
        self.sensitivities = PatchSensitivities(*radii, n_levels, loose)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.topographies,
            self.moments,
            self.pairs,
            self.shares,
            self.levels,
            self.sensitivities,
            *((self.unit,) if heteroscedastic else ()),
        )

        # Per step: log step size, log threshold, share of the threshold that follows the largest
        # coefficient, log sharpness, weights of the preconditioners.
        self.plan = nn.Parameter(torch.zeros(n_steps, 4 + n_levels))
        with torch.no_grad():
            self.plan[:, 1] = math.log(threshold)
            self.plan[:, 4] = 1.0
        self.momentum = nn.Parameter(fista_momentum(n_steps - 1))
        of_power, to_plan = nn.Linear(2, hidden), nn.Linear(hidden, self.plan.numel())
        self.power_layer = nn.Sequential(of_power, nn.GELU(), to_plan)
        self.patch_layer = nn.Linear(5 * n_radii + 3, hidden)
        self.step_features = nn.Parameter(torch.zeros(n_steps, hidden))
        self.patch_factors = nn.Linear(hidden, 2 * n_radii)
        for last in (to_plan, self.patch_factors):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.std_layer = nn.Linear(hidden, 2) if heteroscedastic else None

    @in_full_precision
    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Invert the window as a whole, or each sample on its own."""
        if self.group_time:
            return self._invert(data, inputs)
        n_examples, _, n_times = data.shape
        mean, std = self._invert(data.transpose(1, 2).flatten(0, 1)[..., None], inputs)[:2]

        def joined(frames: Tensor) -> Tensor:
            return frames.reshape(n_examples, n_times, -1).transpose(1, 2)

        return Estimate(joined(mean), None if std is None else joined(std))

    def _invert(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        code, hidden = self.encode(data, inputs)
        # Turn coefficients of orthonormal topographies into moments along the orientations.
        moments = inputs[self.moments.key].unflatten(1, (-1, code.shape[2]))
        patches = along_axes(moments, code)
        mean = spread_patches(patches, inputs[self.pairs.key], inputs[self.shares.key])
        mean = mean.permute(2, 0, 1, 3)  # (B, S, O, T)
        if self.std_layer is None:
            return Estimate(mean.flatten(1, 2))
        floor, share = functional.softplus(over_first(self.std_layer, hidden))
        unit = inputs[self.unit.key]
        std = unit * floor.T[..., None, None] + share.T[..., None, None] * mean.abs()
        return Estimate(mean.flatten(1, 2), std.flatten(1, 2))

    def encode(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> tuple[Float[Tensor, "R S O B T"], Float[Tensor, "H S B"]]:
        """Return the coefficients ``x`` of the patches (no unit) and hidden features per source."""
        for code, hidden in self.iterations(data, inputs):  # noqa: B007 (the last one is kept)
            pass
        return code, hidden

    def iterations(
        self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]
    ) -> Iterator[tuple[Float[Tensor, "R S O B T"], Float[Tensor, "H S B"]]]:
        """Coefficients and hidden features after every step, as in `encode`."""
        n_orient = inputs[self.moments.key].shape[2]
        problem = _Problem(
            white=(inputs[self.whitener.key] @ data).transpose(0, 1).flatten(1),
            atoms=inputs[self.topographies.key].flatten(0, 1),
            levels=inputs[self.levels.key],
            sensitivities=inputs[self.sensitivities.key],
            groups=(self.n_radii, -1, n_orient, data.shape[0], data.shape[2]),
        )
        white = problem.white
        power = problem.power(white, white)
        levels = 0.3 * torch.stack([power.log(), (power / (inputs[self.rank.key] + 1)).log()])
        plan = self.plan + self.power_layer(levels.T).unflatten(1, self.plan.shape)
        code = ahead = before = problem.grouped(torch.zeros_like(problem.atoms @ white))
        potential = potential_ahead = potential_before = torch.zeros_like(white)
        for step in range(self.n_steps):
            log_step, log_threshold, follow, log_sharpness = plan[:, step, :4].unbind(1)
            weights = plan[:, step, 4:].T
            if step > 0:
                ahead = code + self.momentum[step - 1] * (code - before)
                potential_ahead = potential + self.momentum[step - 1] * (
                    potential - potential_before
                )
            residual = white - potential_ahead
            preconditioned = problem.precondition(residual, weights)
            gradient = problem.grouped(problem.atoms @ preconditioned)
            if step == 0:
                strongest = energy(gradient).amax((0, 1)).sqrt()

            misfit = problem.power(residual, preconditioned)
            sensitivity = problem.sensitivity(weights)
            share = energy(gradient) / sensitivity / misfit
            difference = power * (share.amax((0, 1)) - share)
            common = torch.stack([*levels, 0.3 * (misfit / power).log()])
            features = [
                relative(share),
                share.sqrt(),
                torch.exp(-log_sharpness.exp() * difference),
                relative(energy(code)),
                0.3 * sensitivity.log(),
                common[:, None].expand(-1, share.shape[1], -1),
            ]
            hidden = functional.gelu(
                over_first(self.patch_layer, torch.cat(features))
                + self.step_features[step, :, None, None]
            )
            factors = bounded(over_first(self.patch_factors, hidden))
            log_steps, log_thresholds = factors.unflatten(0, (2, self.n_radii))

            moved = ahead + (log_step + log_steps).exp()[:, :, None, :, None] * gradient
            length = energy(moved).sqrt()
            longest = length.amax((0, 1))
            default = log_step + strongest.log()
            log_threshold = log_threshold + default + follow * (longest.log() - default)
            limit = torch.minimum((log_threshold + log_thresholds).exp(), (1 - MIN_SHARE) * longest)
            before, potential_before = code, potential
            code = moved * functional.relu(1 - limit / length)[:, :, None, :, None]
            potential = problem.potential(code)
            yield code, hidden


@dataclass(frozen=True)
class _Problem:
    """A batch of whitened data. All samples of all examples are the columns of one matrix."""

    white: Float[Tensor, "C N"]
    atoms: Float[Tensor, "A C"]
    levels: Float[Tensor, "L C C"]
    sensitivities: Float[Tensor, "L R S"]
    groups: tuple[int | torch.SymInt, ...]  # radii, sources, orientations, examples, samples

    def grouped(self, values: Float[Tensor, "A N"]) -> Float[Tensor, "R S O B T"]:
        """Coefficients sorted by radius, source, orientation, example and sample."""
        return values.reshape(self.groups)

    def potential(self, code: Float[Tensor, "R S O B T"]) -> Float[Tensor, "C N"]:
        """Whitened potential of the patches with these coefficients."""
        return self.atoms.T @ code.reshape(self.atoms.shape[0], -1)

    def power(self, a: Float[Tensor, "C N"], b: Float[Tensor, "C N"]) -> Float[Tensor, " B"]:
        """Absolute inner product over channels, mean over samples."""
        return (a * b).sum(0).reshape(self.groups[3:]).mean(1).abs().clamp_min(TINY)

    def precondition(
        self, residual: Float[Tensor, "C N"], weights: Float[Tensor, "L B"]
    ) -> Float[Tensor, "C N"]:
        """Apply the weighted sum of all preconditioners."""
        by_level = (self.levels @ residual).unflatten(2, self.groups[3:])
        return (by_level * weights[:, None, :, None]).sum(0).flatten(1)

    def sensitivity(self, weights: Float[Tensor, "L B"]) -> Float[Tensor, "R S B"]:
        """Response of the gradient to a unit coefficient, with the magnitudes of the weights."""
        return torch.einsum("lrs,lb->rsb", self.sensitivities, weights.abs()).clamp_min(TINY)


def energy(values: Float[Tensor, "R S O B T"]) -> Float[Tensor, "R S B"]:
    """Squared norm over orientations, mean over samples."""
    return values.square().sum(2).mean(-1).clamp_min(TINY)


def relative(energies: Float[Tensor, "R S B"]) -> Float[Tensor, "R S B"]:
    """Amplitudes as fractions of the largest."""
    return (energies / energies.amax((0, 1))).sqrt()


def bounded(values: Tensor) -> Tensor:
    """Limit values smoothly to `LARGEST_FACTOR` in both directions; near zero they stay."""
    return LARGEST_FACTOR * torch.tanh(values / LARGEST_FACTOR)


def fista_momentum(n_steps: int) -> Float[Tensor, " K"]:
    """FISTA: ``(t_k - 1) / t_{k+1}``, ``t_1 = 1``, ``t_{k+1} = (1 + sqrt(1 + 4 t_k²)) / 2``."""
    momentum, t = [], 1.0
    for _ in range(n_steps):
        after = (1 + math.sqrt(1 + 4 * t * t)) / 2
        momentum.append((t - 1) / after)
        t = after
    return torch.tensor(momentum)
