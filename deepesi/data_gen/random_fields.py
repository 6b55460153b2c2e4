"""Smooth random vector fields, rotations of vectors, and scatter of directions."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from deepesi.data_gen.keys import uniform

#: Plane waves of a smooth field.
N_WAVES = 48


def smooth_field(
    positions: Float[Tensor, "S 3"], wavelength: tuple[float, float], rng: torch.Generator
) -> Float[Tensor, "S 3"]:
    """A smooth random vector field with unit variance per component: a sum of plane waves.

    Args:
        positions: m.
        wavelength: Smallest and largest wavelength, m, log-uniform.
        rng: Random generator.

    """
    direction, amplitude = torch.randn(2, N_WAVES, 3, generator=rng, device=rng.device)
    direction = direction / direction.norm(dim=1, keepdim=True)
    length = uniform((N_WAVES, 1), math.log(wavelength[0]), math.log(wavelength[1]), rng).exp()
    phase = uniform((N_WAVES,), 0.0, 2 * math.pi, rng)
    waves = torch.cos(positions @ (2 * math.pi * direction / length).T + phase)
    return math.sqrt(2 / N_WAVES) * waves @ amplitude


def rotated(vectors: Float[Tensor, "S 3"], rotation: Float[Tensor, "S 3"]) -> Float[Tensor, "S 3"]:
    """Vectors after rotations: axis times angle (rad)."""
    angle = rotation.norm(dim=1, keepdim=True)
    axis = rotation / angle.clamp_min(1e-12)
    along = axis * (axis * vectors).sum(1, keepdim=True)
    across = torch.linalg.cross(axis, vectors)
    return along + (vectors - along) * angle.cos() + across * angle.sin()


def scattered(
    normals: Float[Tensor, "S 3"], concentration: Tensor, rng: torch.Generator
) -> Float[Tensor, "S 3"]:
    """Unit vectors from von Mises-Fisher distributions around these, by inversion.

    Source: Ulrich 1984, doi:10.2307/2347441.
    """
    n = len(normals)
    share = torch.rand(n, 1, generator=rng, device=rng.device).clamp_min(1e-7)
    sideways = torch.randn(n, 3, generator=rng, device=rng.device)
    sideways = sideways - normals * (sideways * normals).sum(1, keepdim=True)
    sideways = sideways / sideways.norm(dim=1, keepdim=True)
    floor = (-2 * concentration).exp()
    less = -(share + (1 - share) * floor).log() / concentration  # 1 - cos of the angle
    less = torch.where(concentration.isinf(), 0.0, less)
    cosine = 1 - less
    return cosine * normals + (1 - cosine.square()).clamp_min(0).sqrt() * sideways
