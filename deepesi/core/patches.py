"""Linear operators on prepared head inputs in torch, exportable, for models, baselines, losses."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def neighbour_mean(
    values: Float[Tensor, "S ..."], neighbours: Int[Tensor, "N S"]
) -> Float[Tensor, "S ..."]:
    """Mean over the neighbours on the source mesh; 0 for a source without any.

    Args:
        values: Values of every source.
        neighbours: Array of `deepesi.physics.head_inputs.graphs.MeshNeighbours`.

    """
    padded = torch.cat([values, torch.zeros_like(values[:1])])
    gathered = padded.index_select(0, neighbours.flatten()).unflatten(0, neighbours.shape)
    weight = 1 / (neighbours < neighbours.shape[1]).sum(0).clamp_min(1).to(values.dtype)
    means: Tensor = gathered.sum(0) * weight.reshape(-1, *[1] * (values.ndim - 1))
    return means


def along_axes(
    moments: Float[Tensor, "K S O O"], amplitudes: Float[Tensor, "K S O T B"]
) -> Float[Tensor, "K S O T B"]:
    """Total moments of patches along the orientations of their source.

    Args:
        moments: Moments of unit amplitudes, symmetric, from
            `deepesi.physics.head_inputs.patches.PatchMoments`.
        amplitudes: Amplitudes of their topographies; samples and examples in any order.

    """
    parts = [
        moments[:, :, :, axis, None, None] * amplitudes[:, :, axis, None]
        for axis in range(moments.shape[3])
    ]
    return sum(parts[1:], start=parts[0])


def spread_patches(
    moments: Float[Tensor, "K S ..."],
    pairs: Int[Tensor, "P 2"],
    shares: Float[Tensor, "P K"],
) -> Float[Tensor, "S ..."]:
    """Dipole moments of the sources, from total moments of patches around every source.

    Args:
        moments: Total moments by radius and centre.
        pairs: Array of `deepesi.physics.head_inputs.patches.PatchPairs`.
        shares: Array of `deepesi.physics.head_inputs.patches.PatchShares`.

    """
    if not torch.compiler.is_compiling():
        return _spread_by_matrix(moments, pairs, shares)
    rows = moments.flatten(2) if moments.ndim > 2 else moments[..., None]
    # ONNX Runtime is slow at sums and products over short inner axes, so radius by radius.
    parts = [
        row.index_select(0, pairs[:, 1]) * share[:, None]
        for row, share in zip(rows, shares.unbind(1), strict=True)
    ]
    spread = torch.zeros_like(rows[0]).index_add(0, pairs[:, 0], sum(parts[1:], start=parts[0]))
    return spread.reshape(moments.shape[1:])


def spread_profiles(
    moments: Float[Tensor, "S B ..."],
    profiles: Float[Tensor, "K S B"],
    pairs: Int[Tensor, "P 2"],
    shares: Float[Tensor, "P K"],
) -> Float[Tensor, "S B ..."]:
    """Dipole moments of the sources, from the total moments of all patches around every source.

    Args:
        moments: Total moments by centre.
        profiles: Shares of the radii in the moments of a centre.
        pairs: Array of `deepesi.physics.head_inputs.patches.PatchPairs`.
        shares: Array of `deepesi.physics.head_inputs.patches.PatchShares`.

    """
    rows = moments.flatten(2)
    if not torch.compiler.is_compiling():
        by_radius = profiles[..., None] * rows
        return _spread_by_matrix(by_radius, pairs, shares).reshape(moments.shape)
    # One weight per pair first, so that the long rows are read once and not for every radius.
    parts = [
        profile.index_select(0, pairs[:, 1]) * share[:, None]
        for profile, share in zip(profiles, shares.unbind(1), strict=True)
    ]
    weights = sum(parts[1:], start=parts[0])[..., None]
    sent = rows.index_select(0, pairs[:, 1]) * weights
    return torch.zeros_like(rows).index_add(0, pairs[:, 0], sent).reshape(moments.shape)


def _spread_by_matrix(
    moments: Float[Tensor, "K S ..."],
    pairs: Int[Tensor, "P 2"],
    shares: Float[Tensor, "P K"],
) -> Float[Tensor, "S ..."]:
    """The same with a sparse matrix, which ONNX does not have: twice as fast in training.

    In single precision or better: PyTorch has no gradient of sparse products in bfloat16.
    """
    n_radii, n_sources = moments.shape[:2]
    first = n_sources * torch.arange(n_radii, device=pairs.device)[:, None]
    index = torch.stack([pairs[:, 0].expand(n_radii, -1), pairs[:, 1] + first]).flatten(1)
    rows = moments.flatten(0, 1)
    dtype = torch.promote_types(rows.dtype, torch.float32)
    matrix = torch.sparse_coo_tensor(
        index,
        shares.T.flatten().to(dtype),
        (n_sources, n_radii * n_sources),
        check_invariants=False,
    )
    with torch.autocast(rows.device.type, enabled=False):
        spread = torch.sparse.mm(matrix, rows.flatten(1).to(dtype))
    values: Tensor = spread.unflatten(1, rows.shape[1:])
    return values


class PatchDictionary:
    """Matched filters and forward model of whitened data ``(C, T, B)`` with patch topographies.

    Args:
        topographies: Array of `deepesi.physics.head_inputs.patches.PatchTopographies`.
        n_orient: Orientations ``O`` per source.
        skull: Filter between the sensors ``(B, C, C)`` for the topographies of an example, and
            their approximate norms after it ``(K, S, B)``, by which they are divided; None: no
            filter.

    """

    def __init__(
        self,
        topographies: Float[Tensor, "K D C"],
        n_orient: int | torch.SymInt,
        skull: tuple[Float[Tensor, "B C C"], Float[Tensor, "K S B"]] | None = None,
    ) -> None:
        self.rows, self.n_orient, self.skull = topographies.flatten(0, 1), n_orient, skull
        self.n_radii = topographies.shape[0]

    def _seen(self, data: Float[Tensor, "C T *B"]) -> Float[Tensor, "C T *B"]:
        """Data whose products with the nominal topographies are those with the filtered ones."""
        if self.skull is None:
            return data
        return (data.permute(2, 1, 0) @ self.skull[0]).permute(2, 1, 0)

    def _products(self, data: Float[Tensor, "C N *B"]) -> Float[Tensor, "K S O N *B"]:
        """Products with the nominal topographies."""
        products = (self.rows @ data.flatten(1)).unflatten(1, data.shape[1:])
        by_radius: Tensor = products.unflatten(0, (self.n_radii, -1, self.n_orient))
        return by_radius

    def filter(self, data: Float[Tensor, "C T B"]) -> Float[Tensor, "K S O T B"]:
        """Matched filters: projections of the data onto each topography."""
        return self.weighted(None, data)

    def weighted(
        self, gamma: Float[Tensor, "K S B"] | None, data: Float[Tensor, "C T B"]
    ) -> Float[Tensor, "K S O T B"]:
        """Matched filters, each multiplied by the weight of its patch."""
        if self.skull is not None:
            gamma = (1 if gamma is None else gamma) / self.skull[1]
        products = self._products(self._seen(data))
        return products if gamma is None else gamma[:, :, None, None] * products

    def energy(self, data: Float[Tensor, "C T *B"]) -> Float[Tensor, "K S *B"]:
        """Energy of the matched filters, summed over the window and orientations.

        Without a skull filter, data may have several axes after the samples.
        """
        # ONNX Runtime is slow at sums next to a last axis of length 1, so samples come last.
        energy = self._products(self._seen(data).movedim(1, -1)).square().sum(-1).sum(2)
        return energy if self.skull is None else energy / self.skull[1].square()

    def explain(self, amplitudes: Float[Tensor, "K S O T B"]) -> Float[Tensor, "C T B"]:
        """The adjoint of `filter`: the potential of patches with these amplitudes."""
        if self.skull is not None:
            amplitudes = amplitudes / self.skull[1][:, :, None, None]
        rows = amplitudes.flatten(0, 2)
        potential: Tensor = (self.rows.T @ rows.flatten(1)).unflatten(1, rows.shape[1:])
        if self.skull is None:
            return potential
        return (potential.permute(2, 1, 0) @ self.skull[0].mT).permute(2, 1, 0)

    def residual(
        self,
        recording: Float[Tensor, "C T B"],
        gamma: Float[Tensor, "K S B"],
        n_strongest: int,
        n_steps: int,
    ) -> Float[Tensor, "C T B"]:
        """``(I + Q gamma Qᵀ)⁻¹ v``: residual of the posterior mean under these variances.

        The posterior mean itself is ``gamma Qᵀ`` of the residual. Only the `strongest_patches` of
        an example are used.
        """
        kept, indices = strongest_patches(gamma, n_strongest)
        rows = self.rows.unflatten(0, (-1, self.n_orient))
        rows = rows.index_select(0, indices.flatten()).unflatten(0, (-1, n_strongest))
        if self.skull is not None:
            norms = self.skull[1].flatten(0, 1).T.gather(1, indices)
            filtered = rows.flatten(1, 2) @ self.skull[0].mT
            rows = filtered.unflatten(1, rows.shape[1:3]) / norms[..., None, None]
        gram = rows.flatten(1, 2).mT @ (kept[..., None, None] * rows).flatten(1, 2)
        return unexplained(gram, recording, n_steps)


def strongest_patches(
    gamma: Float[Tensor, "K S B"], n_strongest: int
) -> tuple[Float[Tensor, "B M"], Int[Tensor, "B M"]]:
    """Variances and numbers of the strongest patches of each example.

    The next one is subtracted, so that results are continuous in `gamma`. The rest is scaled to the
    sum of all variances.
    """
    strongest, indices = gamma.flatten(0, 1).T.topk(n_strongest + 1)
    kept = strongest[:, :-1] - strongest[:, -1:]
    share = kept / kept.sum(1, keepdim=True).clamp_min(1e-9)
    return share * gamma.sum((0, 1))[:, None], indices[:, :-1]


def unexplained(
    gram: Float[Tensor, "B C C"], recording: Float[Tensor, "C T B"], n_steps: int
) -> Float[Tensor, "C T B"]:
    """``(I + G)⁻¹ v`` by conjugate gradients.

    They run over the whole window, so the result commutes with a rotation of the samples after any
    number of steps.

    Args:
        gram: Covariances ``G`` of the explained part.
        recording: Data ``v``, noise variance 1.
        n_steps: Number of steps.

    """
    residual = direction = recording.permute(2, 0, 1)
    solution = torch.zeros_like(residual)
    size = residual.square().sum((1, 2), keepdim=True)
    # After convergence steps are zero, without division by zero in gradients. With `clamp_min`,
    # because the exporter drops the addition of a small constant.
    least = (1e-7 * size).clamp_min(1e-9)
    for _ in range(n_steps):
        image = direction + gram @ direction
        length = size / ((direction * image).sum((1, 2), keepdim=True) + least)
        solution, residual = solution + length * direction, residual - length * image
        size, before = residual.square().sum((1, 2), keepdim=True), size
        direction = residual + size / (before + least) * direction
    return solution.permute(1, 2, 0)


#: Logarithm of the number of independent tests that the patches of a head amount to.
LOG_N_INDEPENDENT_TESTS = 6.0


def energy_by_chance(freedom: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Largest energy of noise alone: the maximum of chi-squared variables with these degrees.

    About ``d + 2 sqrt(d log) + 2 log`` (Laurent & Massart 2000, doi:10.1214/aos/1015957395).
    """
    return freedom + 2 * (LOG_N_INDEPENDENT_TESTS * freedom).sqrt() + 2 * LOG_N_INDEPENDENT_TESTS


def over_patches(log_weights: Float[Tensor, "K S B"]) -> Float[Tensor, "K S B"]:
    """Softmax over all radii and sources."""
    weights = torch.softmax(log_weights.flatten(0, 1), dim=0)
    by_radius: Tensor = weights.unflatten(0, log_weights.shape[:2])
    return by_radius


def small_linear(n_in: int, n_out: int) -> nn.Linear:
    """A layer with initial output near zero, so that an untrained network is pure physics."""
    layer = nn.Linear(n_in, n_out)
    nn.init.normal_(layer.weight, std=1e-2)
    nn.init.zeros_(layer.bias)
    return layer


def over_first(layer: nn.Linear, values: Float[Tensor, "n S B"]) -> Float[Tensor, "m S B"]:
    """A linear layer over the first axis, equal for all sources: batches stay contiguous."""
    mixed = layer.weight @ values.flatten(1) + layer.bias[:, None]
    outputs: Tensor = mixed.unflatten(1, values.shape[1:])
    return outputs
