"""Minimum-norm methods: MNE, dSPM, sLORETA, eLORETA, and the Gaussian posterior of MNE."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepesi.core.batch import Batch
from deepesi.core.contracts import Assumptions, Estimate, InverseModel, Oracle, PosteriorModel
from deepesi.core.quantities import magnitude, snr_db_of_power, whitened_power
from deepesi.physics.head_inputs import (
    Gain,
    HatMatrix,
    LinearInverse,
    OrientationRoot,
    PosteriorRoot,
    PosteriorStd,
    PriorStd,
    Rank,
    Whitener,
)

#: Regularization rules, and what each assumes about the noise.
REGULARIZATIONS = {
    "noise": "covariance and level",
    "gcv": "covariance",
    "constant": "covariance and level",
}


def level_of_power(
    whitened: Float[Tensor, "B C T"], rank: Float[Tensor, " 1"], grid: LinearInverse
) -> Int[Tensor, " B"]:
    """Index of the SNR in a grid nearest to the SNR of the data, ``‖W v‖² / (T rank) - 1``."""
    snr_db = snr_db_of_power(whitened_power(whitened, rank))
    step = torch.round((snr_db - grid.snr_db_low) / grid.snr_db_step).long()
    return step.clamp(0, grid.n_steps - 1)


class MinimumNorm(InverseModel):
    """Linear inverse with a regularization that is chosen for each recording.

    Kernels are computed for SNRs of -10 to 30 dB in steps of 2.5 dB, with ``lambda2 = 1 / SNR``,
    or for one SNR. Rules that choose one of them:

    - ``"noise"``: whitened noise has unit power, so the whitened power of a recording gives the
      SNR.
    - ``"gcv"``: generalized cross-validation minimizes ``‖(I − H) W v‖² / tr(I − H)²``. It does
      not use the level of the noise. dSPM and sLORETA use the hat matrix ``H`` of MNE, because
      they only rescale MNE.
    - ``"constant"``: `snr_db` for every recording. The residual due to a wrong lead field grows
      with the signal, so a constant below the SNR of strong recordings is better.

    Works with fixed, loose and free orientation.

    Args:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.
        regularization: ``"noise"``, ``"gcv"`` or ``"constant"``, as above.
        snr_db: SNR of the constant regularization, dB; None for the other rules.
        loose: Variance of the two tangential components of a source, relative to 1 along the
            normal, above 0 to 1. Below 1 the head must have free orientation; 1: free on such a
            head, else fixed.

    Raises:
        ValueError: The regularization is unknown, or `snr_db` is missing or not used.

    Source: the methods as in `deepesi.physics.linear_inverse`; Golub, Heath & Wahba 1979,
    doi:10.1080/00401706.1979.10489751 (GCV). Difference: dSPM and sLORETA are scaled to A m by
    one factor, as in `LinearInverse`.

    """

    bound_to_space = False

    def __init__(
        self,
        method: str = "eLORETA",
        regularization: str = "noise",
        snr_db: float | int | None = None,
        loose: float | int = 1.0,
    ) -> None:
        super().__init__()
        if regularization not in REGULARIZATIONS:
            raise ValueError(
                f"MinimumNorm: regularization must be one of {tuple(REGULARIZATIONS)}, got "
                f"{regularization!r}."
            )
        if (regularization == "constant") != (snr_db is not None):
            raise ValueError(
                "MinimumNorm: give snr_db if and only if regularization='constant', got "
                f"snr_db={snr_db} with {regularization!r}."
            )
        self.method, self.regularization, loose = method, regularization, float(loose)
        self.whitener, self.rank = Whitener(), Rank()
        self.kernels = _kernels(method, snr_db, loose)
        self.hats = HatMatrix(method=method, loose=loose)
        inputs = (self.whitener, self.rank, self.kernels)
        self.head_inputs = (*inputs, self.hats) if regularization == "gcv" else inputs

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return Assumptions("points", "any", REGULARIZATIONS[self.regularization], "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Choose a regularization for each example and apply the kernel."""
        whitened = inputs[self.whitener.key] @ data
        if self.regularization != "gcv":  # the grid of a constant has one level
            level = level_of_power(whitened, inputs[self.rank.key], self.kernels)
        else:
            hats = inputs[self.hats.key]
            residual = whitened[:, None] - hats @ whitened[:, None]
            free = inputs[self.rank.key] - hats.diagonal(dim1=1, dim2=2).sum(1)
            level = (residual.square().sum((2, 3)) / free.square()).argmin(1)
        return Estimate(inputs[self.kernels.key][level] @ data)


def _kernels(method: str, snr_db: float | int | None, loose: float) -> LinearInverse:
    """Kernels for all SNRs, or for one."""
    if snr_db is None:
        return LinearInverse(method=method, loose=loose)
    return LinearInverse(method=method, snr_db_low=float(snr_db), n_steps=1, loose=loose)


class BestMinimumNorm(Oracle):
    """Minimum norm with the regularization that is best for the target of each example: a bound.

    The best has the smallest distance from the strongest source to a target peak. Among equals,
    it is the map with the largest cosine similarity to the target.

    Args:
        method: ``"MNE"``, ``"dSPM"``, ``"sLORETA"`` or ``"eLORETA"``.

    """

    def __init__(self, method: str = "eLORETA") -> None:
        super().__init__()
        self.kernels = LinearInverse(method=method)
        self.head_inputs = (self.kernels,)

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return Assumptions("points, and their locations", "any", "covariance", "nominal")

    def forward(self, batch: Batch) -> Estimate:
        """Apply all regularizations and keep the best."""
        n_orient = batch.head.space.n_orient
        positions = torch.as_tensor(batch.head.source_pos, device=batch.data.device)
        peaks = batch.scene.peaks
        target = torch.nn.functional.normalize(magnitude(batch.sources, n_orient), dim=1)
        estimates, scores = [], []
        for kernel in batch.inputs[self.kernels.key]:
            mean = kernel @ batch.data
            magnitudes = magnitude(mean, n_orient)
            away = (positions[magnitudes.argmax(1)][:, None] - positions[peaks.clamp_min(0)]).norm(
                dim=2
            )
            distance = torch.where(peaks >= 0, away, torch.inf).amin(1)
            cosine = (torch.nn.functional.normalize(magnitudes, dim=1) * target).sum(1)
            estimates.append(mean)
            scores.append(1e3 * distance - 1e-3 * cosine)  # 1 µm counts as much as all of it
        best = torch.stack(scores).argmin(0)
        return Estimate(torch.stack(estimates)[best, torch.arange(len(best), device=best.device)])


class BayesianMinimumNorm(PosteriorModel):
    """Gaussian posterior of MNE: independent sources of one prior, known noise covariance.

    The mean is the MNE estimate at the SNR of the recording, or at one SNR for all recordings.
    Standard residual and samples are those of the posterior. Samples are exact: mean plus the
    square root of the posterior covariance times noise.

    Args:
        snr_db: SNR for every recording, dB. None: the SNR of each recording.
        loose: Variance of the two tangential components of a source, relative to 1 along the
            normal, above 0 to 1. Below 1 the head must have free orientation; 1: free on such a
            head, else fixed.

    Source: Gaussian conditioning, as in `posterior_std` and `posterior_root` of
    `deepesi.physics.linear_inverse`.

    """

    bound_to_space = False
    noise_axes = ("dipoles", "times")

    def __init__(self, snr_db: float | int | None = None, loose: float | int = 1.0) -> None:
        super().__init__()
        loose = float(loose)
        self.whitener, self.rank = Whitener(), Rank()
        self.kernels = _kernels("MNE", snr_db, loose)
        grid = self.kernels.snr_db_low, self.kernels.snr_db_step, self.kernels.n_steps, loose
        self.stds, self.priors = PosteriorStd(*grid), PriorStd(*grid)
        self.roots, self.gain = PosteriorRoot(*grid), Gain(whitened=True)
        self.orientation = None if loose == 1 else OrientationRoot(loose)
        self.head_inputs = (
            self.whitener,
            self.rank,
            self.kernels,
            self.stds,
            self.priors,
            self.roots,
            self.gain,
            *([] if self.orientation is None else [self.orientation]),
        )

    @property
    def assumptions(self) -> Assumptions:
        """Assumptions of the method."""
        return Assumptions("points", "any", "covariance and level", "nominal")

    def forward(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Estimate:
        """Mean and standard residual at the SNR of each example."""
        level = self._level(data, inputs)
        mean = inputs[self.kernels.key][level] @ data
        return Estimate(mean, inputs[self.stds.key][level][..., None].expand_as(mean))

    def sample(
        self,
        data: Float[Tensor, "B C T"],
        inputs: dict[str, Tensor],
        noise: Float[Tensor, "N B Z"],
    ) -> Float[Tensor, "N B D T"]:
        """Mean plus ``s Q (I - Q Gᵀ M G Q)`` times noise ``(D, T)``; Q is 1 unless loose."""
        level, gain = self._level(data, inputs), inputs[self.gain.key]
        z = noise.unflatten(2, (gain.shape[1], data.shape[2]))
        explained = gain.T @ (inputs[self.roots.key][level] @ (gain @ self._oriented(z, inputs)))
        prior = inputs[self.priors.key][level][:, None, None]
        residual = self._oriented(z - self._oriented(explained, inputs), inputs)
        return inputs[self.kernels.key][level] @ data + prior * residual

    def _oriented(
        self, values: Float[Tensor, "N B D T"], inputs: dict[str, Tensor]
    ) -> Float[Tensor, "N B D T"]:
        """Values times the root of the prior covariance of every source."""
        if self.orientation is None:
            return values
        root = inputs[self.orientation.key]
        return (root @ values.unflatten(2, root.shape[:2])).flatten(2, 3)

    def _level(self, data: Float[Tensor, "B C T"], inputs: dict[str, Tensor]) -> Int[Tensor, " B"]:
        whitened = inputs[self.whitener.key] @ data
        return level_of_power(whitened, inputs[self.rank.key], self.kernels)
