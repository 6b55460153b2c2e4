"""Straight paths from noise to sources: what flow matching learns, and how samples follow it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.core.traced_loops import trace_one_step

#: Expected end of a path, given where it is (``x``) and the time between 0 and 1 ``()``.
Denoiser = Callable[[Tensor, Tensor], Tensor]


def on_path(
    noise: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], time: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Point ``(1 - time) noise + time end`` of a path."""
    return (1 - time) * noise + time * end


def velocity_error(
    expected: Float[Tensor, "*shape"], end: Float[Tensor, "*shape"], time: Float[Tensor, "*#shape"]
) -> Float[Tensor, "*shape"]:
    """Error of the velocity ``(expected - x) / (1 - time)`` against that of the path."""
    return (expected - end) / (1 - time)


def times(n_steps: int) -> list[float]:
    """Times from 0 to 1 of ``n_steps`` steps; the remaining noise falls as a square."""
    return [1 - (1 - number / n_steps) ** 2 for number in range(n_steps + 1)]


def follow(denoiser: Denoiser, noise: Float[Tensor, "*shape"], n_steps: int) -> Tensor:
    """Ends of the paths from noise, by steps of Heun's method.

    The last step is one of Euler's method: it ends at the expected end. So there are
    ``2 n_steps - 1`` calls of the denoiser.

    Args:
        denoiser: Expected end of a path.
        noise: Starts of the paths.
        n_steps: Number of steps.

    Source: Lipman et al. 2023, arXiv:2210.02747 (flow matching); Karras et al. 2022,
    arXiv:2206.00364 (Heun's method with a last step of Euler's, shorter steps at the end).

    """

    def step(x: Tensor, row: Tensor) -> Tensor:
        time, after = row.unbind()
        slope = (denoiser(x, time) - x) / (1 - time)
        ahead = x + (after - time) * slope
        other = (denoiser(ahead, after) - ahead) / (1 - after)
        return x + (after - time) * (slope + other) / 2

    grid = torch.tensor(times(n_steps)[:-1]).to(noise)
    rows = torch.stack([grid[:-1], grid[1:]], dim=1)
    if torch.compiler.is_exporting():
        x = trace_one_step(step, noise, rows)
    else:
        x = noise
        for row in rows:
            x = step(x, row)
    return denoiser(x, grid[-1])
