"""Shapes of source patches: profiles with peak 1 over the sources of a head."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepesi.data_gen.heads import HeadOnDevice
from deepesi.data_gen.keys import uniform

#: Plane waves of the field that cuts an irregular patch.
N_WAVES = 8


def gaussian(
    distance: Float[Tensor, "*N S"], radius: Float[Tensor, "*N 1"]
) -> Float[Tensor, "*N S"]:
    """``exp(-d² / 2(r/2)²)`` up to the radius ``r``, with the distance ``d`` from the centre, m."""
    # A point is the limit of a Gaussian; the smallest radius avoids 0 / 0.
    exponent = -2 * (distance / radius.clamp_min(1e-9)).square()
    return exponent.masked_fill(distance > radius, -math.inf).exp()


def diffused(
    head: HeadOnDevice,
    peaks: Int[Tensor, " N"],
    extents: Float[Tensor, " N"],
    from_noise: Bool[Tensor, " N"],
    rng: torch.Generator,
) -> Float[Tensor, "N S"]:
    """Activity after a lazy random walk on the mesh, peak 1.

    One step has a mean square length of ``spacing²/2``. A width of ``r/2`` needs
    ``(r / spacing)²`` steps in two dimensions, 1.5 times as many in three.

    Args:
        head: Head with the mesh.
        peaks: Source number of each centre.
        extents: Radius ``r`` of each patch, m.
        from_noise: Whether to start with white noise at all sources, which gives a smooth random
            field, in place of the centre.
        rng: Random generator.

    """
    steps = (head.n_directions / 2 * (extents / head.spacing).square()).round().clamp_min(1)
    order = steps.argsort(descending=True)  # the patches that still move come first
    size = (len(head.distances), len(peaks))
    state = torch.zeros(size, device=rng.device).scatter_(0, peaks[order][None], 1.0)
    noise = torch.randn(size, generator=rng, device=rng.device)
    if from_noise.any():
        state = torch.where(from_noise[order], noise[:, order], state)
    for step in range(int(steps.max())):
        moving = int((steps > step).sum())
        state[:, :moving] = head.diffusion @ state[:, :moving]
    return (state / state.abs().amax(0)).T[order.argsort()]


def connected(
    head: HeadOnDevice, peaks: Int[Tensor, " N"], allowed: Bool[Tensor, "N S"]
) -> Bool[Tensor, "N S"]:
    """The part of a set of sources that the mesh connects with the centre.

    Args:
        head: Head with the mesh.
        peaks: Source number of each centre, in its set.
        allowed: Whether a source is in the set.

    """
    patch, source = allowed.nonzero(as_tuple=True)
    around = head.neighbours[source]
    part = torch.zeros_like(allowed).scatter_(1, peaks[:, None], True)
    while True:
        grown = part[patch[:, None], around].any(1)
        if grown.equal(part[patch, source]):
            return part
        part[patch, source] = grown


def irregular(
    head: HeadOnDevice,
    peaks: Int[Tensor, " N"],
    extents: Float[Tensor, " N"],
    whole: Float[Tensor, "N S"],
    rng: torch.Generator,
) -> Float[Tensor, "N S"]:
    """Where a random field has the sign that it has at the centre, connected with the centre.

    The field of a patch is a sum of plane waves with wavelengths of 1 to 2 radii.

    Args:
        head: Head with the mesh.
        peaks: Source number of each centre.
        extents: Radius of each patch, m.
        whole: Profile of the whole patch.
        rng: Random generator.

    """
    size = (len(peaks), N_WAVES)
    direction = torch.randn(*size, 3, generator=rng, device=rng.device)
    direction = direction / direction.norm(dim=2, keepdim=True)
    wavelength = uniform(size, 1.0, 2.0, rng) * extents[:, None]
    waves = 2 * math.pi * direction / wavelength[..., None]
    phase = uniform(size, 0.0, 2 * math.pi, rng)

    def field(patch: Tensor, source: Tensor) -> Tensor:
        at = (waves[patch] * head.positions[source][:, None]).sum(2)
        return torch.cos(at + phase[patch]).sum(1)

    patch, source = ((whole > 0) & (head.is_cortex > 0)).nonzero(as_tuple=True)
    centre = field(torch.arange(len(peaks), device=rng.device), peaks)
    allowed = torch.zeros_like(whole, dtype=torch.bool)
    allowed[patch, source] = field(patch, source) * centre[patch] >= 0
    return whole * connected(head, peaks, allowed)


def split(
    head: HeadOnDevice, peaks: Int[Tensor, " N"], extents: Float[Tensor, " N"]
) -> Float[Tensor, "N S"]:
    """Two Gaussian parts that lie near in space, but far along the cortex: on a sulcus' two banks.

    The second centre is the nearest source that lies at most ``r`` away in space and at least
    ``2 r`` along the cortex of the same hemisphere. Where there is none, the patch is one Gaussian
    of radius ``r``. Each part has the radius ``r / √2``, so both together are as large as one
    patch. The second part is half as strong, so that the centre is the maximum.

    Args:
        head: Head with the distances.
        peaks: Source number of each centre.
        extents: Radius ``r`` of each patch, m.

    """
    radius = extents[:, None]
    along, straight = head.distances[peaks], head.euclidean[peaks]
    opposite = (straight <= radius) & (along >= 2 * radius) & along.isfinite()
    opposite &= head.is_cortex > 0
    second = torch.where(opposite, straight, math.inf).argmin(1)
    exists = opposite.any(1, keepdim=True)
    radius = torch.where(exists, radius / math.sqrt(2), radius)
    return gaussian(along, radius) + 0.5 * exists * gaussian(head.distances[second], radius)
