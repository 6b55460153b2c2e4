"""The minimum-norm family: MNE, dSPM, sLORETA, eLORETA, and the Gaussian posterior of MNE."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.core.contracts import (
    Assumptions,
    Batch,
    Estimate,
    InverseModel,
    Oracle,
    PosteriorModel,
)
from deepesi.core.quantities import magnitude, snr_db_of_power
from deepesi.physics.head_inputs import (
    Gain,
    HatMatrix,
    LinearInverse,
    PosteriorRoot,
    PosteriorStd,
    PriorStd,
    Rank,
    Whitener,
)

#: Rule of the regularization, and what it has to know of the noise.
REGULARIZATIONS = {
    "noise": "covariance and level",
    "gcv": "covariance",
    "constant": "covariance and level",
}


def level_of_power(
    whitened: Float[Tensor, "B C T"], rank: Float[Tensor, " 1"], grid: LinearInverse
) -> Int[Tensor, " B"]:
    """The SNR of a grid nearest to that read off whitened power, ``‖W v‖² / (T rank) - 1``."""
    snr_db = snr_db_of_power(whitened.square().mean(2).sum(1) / rank)
    step = torch.round((snr_db - grid.snr_db_low) / grid.snr_db_step).long()
    return step.clamp(0, grid.n_steps - 1)


class MinimumNorm(InverseModel):
    """One linear inverse, regularized for each recording.

    Kernels are made for SNRs of -10 to 30 dB in steps of 2.5 dB, with ``lambda2 = 1 / SNR``, or for
    one. Which is applied:

    - ``"noise"``: the noise covariance is known, so whitened noise has unit power, and the SNR of a
      recording is read off its whitened power.
    - ``"gcv"``: generalized cross-validation, ``‖(I − H) W v‖² / tr(I − H)²`` least. It does not
      believe the level of the noise. dSPM and sLORETA take the hat matrix ``H`` of MNE, of which
      they are standardizations.

    - ``"constant"``: the one of `snr_db`, for every recording. What a wrong lead field leaves
      unexplained grows with the signal, so a constant below the SNR of loud recordings does better.

    Fixed or free orientation, as the head's.

    Args:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.
        regularization: Above.
        snr_db: SNR of the constant regularization, dB; None for the other rules.

    Raises:
        ValueError: Unknown regularization; an SNR where none is used, or none where one is.

    Source: see `deepesi.physics.linear_inverse`; Golub, Heath & Wahba 1979,
    doi:10.1080/00401706.1979.10489751 (GCV). dSPM and sLORETA are scaled to A m, which leaves
    their maps as they are; see `LinearInverse`.

    """

    bound_to_space = False

    def __init__(
        self,
        method: str = "eLORETA",
        regularization: str = "noise",
        snr_db: float | int | None = None,
    ) -> None:
        super().__init__()
        if regularization not in REGULARIZATIONS:
            raise ValueError(
                f"MinimumNorm: regularization must be one of {tuple(REGULARIZATIONS)}, got "
                f"{regularization!r}."
            )
        if (regularization == "constant") != (snr_db is not None):
            raise ValueError(
                "MinimumNorm: give snr_db with regularization='constant' and with no other, got "
                f"{snr_db} with {regularization!r}."
            )
        self.method, self.regularization = method, regularization
        self.whitener, self.rank, self.kernels = Whitener(), Rank(), _kernels(method, snr_db)
        self.hats = HatMatrix(method=method)
        inputs = (self.whitener, self.rank, self.kernels)
        self.head_inputs = (*inputs, self.hats) if regularization == "gcv" else inputs

    @property
    def assumptions(self) -> Assumptions:
        """See `InverseModel`."""
        return Assumptions("points", "any", REGULARIZATIONS[self.regularization], "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Apply the kernel of each example's regularization."""
        whitened = inputs[self.whitener.key] @ data
        if self.regularization != "gcv":  # of a constant there is one level to find
            level = level_of_power(whitened, inputs[self.rank.key], self.kernels)
        else:
            hats = inputs[self.hats.key]
            left = whitened[:, None] - hats @ whitened[:, None]
            free = inputs[self.rank.key] - hats.diagonal(dim1=1, dim2=2).sum(1)
            level = (left.square().sum((2, 3)) / free.square()).argmin(1)
        return Estimate(inputs[self.kernels.key][level] @ data)


def _kernels(method: str, snr_db: float | int | None) -> LinearInverse:
    """Kernels of all SNRs, or of one."""
    if snr_db is None:
        return LinearInverse(method=method)
    return LinearInverse(method=method, snr_db_low=float(snr_db), n_steps=1)


class BestMinimumNorm(Oracle):
    """The same with the regularization that suits each example's truth best: a bound.

    Best is the least distance from the strongest source to a true peak; of those that agree in
    it, the map of the largest cosine with the truth.

    Args:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.

    """

    def __init__(self, method: str = "eLORETA") -> None:
        super().__init__()
        self.kernels = LinearInverse(method=method)
        self.head_inputs = (self.kernels,)

    @property
    def assumptions(self) -> Assumptions:
        """See `Oracle`."""
        return Assumptions("points, and where they are", "any", "covariance", "nominal")

    def forward(self, batch: Batch) -> Estimate:
        """Try all, keep the best."""
        n_orient = batch.head.space.n_orient
        positions = torch.as_tensor(batch.head.source_pos, device=batch.data.device)
        peaks = batch.scene.peaks
        truth = torch.nn.functional.normalize(magnitude(batch.sources, n_orient), dim=1)
        found, scores = [], []
        for kernel in batch.inputs[self.kernels.key]:
            mean = kernel @ batch.data
            strength = magnitude(mean, n_orient)
            away = (positions[strength.argmax(1)][:, None] - positions[peaks.clamp_min(0)]).norm(
                dim=2
            )
            distance = torch.where(peaks >= 0, away, torch.inf).amin(1)
            alike = (torch.nn.functional.normalize(strength, dim=1) * truth).sum(1)
            found.append(mean)
            scores.append(1e3 * distance - 1e-3 * alike)  # a micrometre weighs as much
        best = torch.stack(scores).argmin(0)
        return Estimate(torch.stack(found)[best, torch.arange(len(best), device=best.device)])


class BayesianMinimumNorm(PosteriorModel):
    """The Gaussian posterior behind MNE: independent sources of one variance, noise known.

    The mean is MNE's at the SNR of the recording, or at one SNR for all; the standard deviation is
    the posterior's, and samples are exact: the symmetric square root of its covariance times noise.

    Args:
        snr_db: SNR for every recording, dB; None: each its own.

    Source: Gaussian conditioning; see `deepesi.physics.linear_inverse.posterior_std` and
    `posterior_root`.

    """

    bound_to_space = False
    noise_axes = ("dipoles", "times")

    def __init__(self, snr_db: float | int | None = None) -> None:
        super().__init__()
        self.whitener, self.rank, self.kernels = Whitener(), Rank(), _kernels("MNE", snr_db)
        grid = self.kernels.snr_db_low, self.kernels.snr_db_step, self.kernels.n_steps
        self.deviations, self.priors = PosteriorStd(*grid), PriorStd(*grid)
        self.roots, self.gain = PosteriorRoot(*grid), Gain(whitened=True)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.kernels,
            self.deviations,
            self.priors,
            self.roots,
            self.gain,
        )

    @property
    def assumptions(self) -> Assumptions:
        """See `InverseModel`."""
        return Assumptions("points", "any", "covariance and level", "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard deviation at each example's SNR."""
        level = self._level(data, inputs)
        mean = inputs[self.kernels.key][level] @ data
        return Estimate(mean, inputs[self.deviations.key][level][..., None].expand_as(mean))

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """The mean and ``s (I - Gᵀ M G)`` times noise ``(D, T)``."""
        level, gain = self._level(data, inputs), inputs[self.gain.key]
        z = noise.unflatten(2, (gain.shape[1], data.shape[2]))
        seen = gain.T @ (inputs[self.roots.key][level] @ (gain @ z))
        prior = inputs[self.priors.key][level][:, None, None]
        return inputs[self.kernels.key][level] @ data + prior * (z - seen)

    def _level(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Int[Tensor, " B"]:
        whitened = inputs[self.whitener.key] @ data
        return level_of_power(whitened, inputs[self.rank.key], self.kernels)
