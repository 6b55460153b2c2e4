"""Inverse of symmetric positive definite matrices by products alone, for exported graphs."""

import torch
from jaxtyping import Float
from torch import Tensor


def symmetric_inverse(
    matrix: Float[Tensor, "B C C"], n_iterations: int, least: float
) -> Float[Tensor, "B C C"]:
    """Inverse of symmetric positive definite matrices, by Newton's method with scaling.

    ``X ← c X (2 I - A X)`` from a multiple of ``I``. The bounds of the eigenvalues of ``A`` bound
    those of ``A X``: from ``1 ± e`` they move to ``1 ± e² / (2 - e²)`` with the factor ``c`` that
    makes them symmetric. That doubles the rate of plain iterations: a condition number ``κ`` takes
    about ``log4 κ + 3`` iterations in single and ``+ 4`` in double precision, with the largest row
    sum of ``|A|`` in place of the largest eigenvalue.

    ONNX has no inverse, and its products take matrices of any size.

    Args:
        matrix: Matrices ``A``.
        n_iterations: Number of iterations.
        least: Lower bound of the eigenvalues, positive.

    Source: Schulz 1933, doi:10.1002/zamm.19330130111; scaling: Pan & Schreiber 1991,
    doi:10.1137/0912058.

    """
    eye = torch.diag_embed(torch.ones_like(matrix[:, 0]))
    # Without a gradient: the result does not depend on the factors, and the last ones overflow.
    largest = matrix.detach().abs().sum(2).amax(1)
    # 1 / e is a Chebyshev polynomial of degree 2^k of its first value, so all factors come at once.
    root = (largest / least).sqrt()
    first = ((root + 1) / (root - 1)).log()
    powers = torch.tensor([2.0**k for k in range(n_iterations)]).to(matrix)
    factors = 2 / (2 - (first[:, None] * powers).cosh().square().reciprocal())
    inverse = eye * (2 / (largest + least))[:, None, None]
    for factor in factors.unbind(1):
        inverse = (factor[:, None, None] * inverse) @ (2 * eye - matrix @ inverse)
    return inverse
