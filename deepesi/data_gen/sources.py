"""PatchSources: location, shape, dipole moment and time course of simulated sources."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deepesi.data_gen.heads import PLACEMENTS, HeadOnDevice
from deepesi.data_gen.keys import uniform
from deepesi.data_gen.patch_shapes import diffused, gaussian, irregular, split
from deepesi.data_gen.ranges import check_number, check_range
from deepesi.data_gen.waveforms import Gabor, TimeCourse

SHAPES = ("point", "flat", "gaussian", "diffused", "field", "irregular", "split")
EXTENTS = ("geodesic", "euclidean")
#: Shapes whose radius `PatchSources.extent` measures.
WITH_EXTENT = ("flat", "gaussian", "irregular")
ORIENTATIONS = ("normal", "random")


class Patches(NamedTuple):
    """Sources as spatial patterns times time courses.

    The dipole moments are ``patterns.mT @ time_courses``, A m. Examples with fewer than ``K``
    patches are filled up with peak -1 and zeros.
    """

    patterns: Float[Tensor, "B K D"]  # A m; magnitudes add up to `moments`
    time_courses: Float[Tensor, "B K T"]  # no unit, peak 1
    peaks: Int[Tensor, "B K"]  # source number of the centre
    extents: Float[Tensor, "B K"]  # radius, m
    moments: Float[Tensor, "B K"]  # total moment of a patch, A m
    shapes: Int[Tensor, "B K"]  # number of the shape in `PatchSources.shapes`
    euclidean: Bool[Tensor, "B K"]  # whether the radius is Euclidean


@dataclass(frozen=True)
class PatchSources:
    """Draws 1 to K source patches per example, each with its own shape, moment and time course.

    Shapes, with the distance ``d`` from the centre and the radius ``r``:

    - ``point``: one source.
    - ``flat``: 1 up to the radius.
    - ``gaussian``: ``exp(-d² / 2(r/2)²)`` up to the radius.
    - ``diffused``: heat diffusion on the mesh to a width of ``r/2`` in each direction, so irregular
      as the mesh.
    - ``field``: a smooth random field over the whole space with correlation width ``r/2``.
    - ``irregular``: the part of a Gaussian in which such a field has the sign that it has at the
      centre, as far as the mesh connects it with the centre; about half of the area.
    - ``split``: two Gaussian parts that lie near in space, but far along the cortex: on the two
      banks of a sulcus. The second part is half as strong. The nearest source that lies at most
      ``r`` away in space and at least ``2 r`` along the cortex is its centre. Where there is none,
      the patch is one Gaussian. On the packaged head with 1,284 sources, 19 % of the patches of
      10 mm have a second part, 62 % of 20 mm.

    Args:
        n_sources: Smallest and largest number of patches. There are fewer if `min_distance`
            leaves no source for another centre.
        radius: Smallest and largest radius, m.
        min_distance: Smallest distance between centres, m.
        shapes: Shapes above; every patch takes one with equal probability.
        extent: What the distance ``d`` of flat, Gaussian and irregular patches is; every patch
            takes one with equal probability. ``"geodesic"``: along the cortex. ``"euclidean"``:
            straight, so a patch also covers the other bank of a sulcus. In a volume both are
            straight.
        placement: ``"vertices"``, ``"area"`` or ``"depth"``: distribution of the centres, as in
            `HeadOnDevice.placement`.
        moment: Smallest and largest total dipole moment of a patch (sum of the magnitudes of its
            sources) at the peak of the time course, A m, log-uniform, sign random. A generator
            with an SNR scales all moments of an example by one factor.
        correlation: Range of the amplitude share that all time courses of an example have in
            common, 0 to 1.
        orientation: For free orientation: ``"normal"`` to the surface, or ``"random"`` per patch.
            In a volume always random. Fixed orientation is along the normal.
        time_course: Time course of windows. Default: `Gabor`.
        depth: Smallest and largest distance of a centre from the scalp, m. None: any.
        simple_share: Share of the examples that have the smallest number of patches. The others
            draw their number uniformly.

    Raises:
        ValueError: A range is out of order or not in SI units, or a name is unknown.

    """

    n_sources: tuple[int, int] = (1, 3)
    radius: tuple[float, float] = (0.010, 0.025)
    min_distance: float = 0.03
    shapes: Sequence[str] = ("gaussian",)
    placement: str = "vertices"
    moment: tuple[float, float] = (5e-8, 1e-7)
    correlation: tuple[float, float] = (0.0, 0.0)
    orientation: str = "normal"
    time_course: TimeCourse | None = None
    simple_share: float = 0.0
    depth: tuple[float, float] | None = None
    extent: Sequence[str] = ("geodesic",)

    def __post_init__(self) -> None:
        low, high = self.n_sources
        if not 1 <= low <= high <= 50:
            raise ValueError(
                f"PatchSources: n_sources must be a range within 1-50, got {low}-{high}."
            )
        who = "PatchSources"
        check_number(who, "simple_share", self.simple_share, 0, 1, "(no unit)")
        check_number(who, "min_distance", self.min_distance, 0, 0.06, "m (30 mm is 0.03)")
        check_range(who, "radius", self.radius, 1e-3, 0.1, "m (10 mm is 0.010)")
        check_range(who, "moment", self.moment, 1e-12, 1e-5, "A m (50 nAm is 5e-8)")
        if self.depth is not None:
            check_range(who, "depth", self.depth, 0, 0.12, "m (30 mm is 0.03)")
        check_range(who, "correlation", self.correlation, 0, 1, "(no unit)")
        for name, given, known in (
            ("shapes", self.shapes, SHAPES),
            ("extent", self.extent, EXTENTS),
            ("placement", [self.placement], PLACEMENTS),
            ("orientation", [self.orientation], ORIENTATIONS),
        ):
            if not given or not set(given) <= set(known):
                raise ValueError(
                    f"PatchSources: {name} {list(given)} unknown, expected some of {list(known)}."
                )

    @property
    def kind(self) -> TimeCourse:
        """The configured time course, or the default."""
        return self.time_course or Gabor()

    def draw(
        self,
        head: HeadOnDevice,
        normals: Float[Tensor, "S 3"],
        n_examples: int,
        n_times: int,
        sfreq: float,
        rng: torch.Generator,
        width: float = 1.0,
    ) -> Patches:
        """Draw source patches on a head.

        Args:
            head: Head that says where the patches are.
            normals: Unit normals of the true cortex, for free orientation.
            n_examples: Number of examples ``B``.
            n_times: Samples ``T`` per example.
            sfreq: Sampling rate, Hz.
            rng: Random generator.
            width: Width of the range of the number of patches in a `Curriculum`, 0 to 1.

        """
        fewest, most = self.n_sources
        shape = (n_examples, most)
        opened = fewest + round(width * (most - fewest))
        counts = torch.randint(
            fewest, opened + 1, (n_examples, 1), generator=rng, device=rng.device
        )
        if self.simple_share:
            simple = torch.rand(counts.shape, generator=rng, device=rng.device) < self.simple_share
            counts = torch.where(simple, fewest, counts)
        present = torch.arange(most, device=rng.device) < counts
        peaks, available = self._centres(head, n_examples, rng)
        present = present & available
        extents = uniform(shape, *self.radius, rng)
        kind = torch.randint(0, len(self.shapes), shape, generator=rng, device=rng.device)
        euclidean = self._draw_euclidean(shape, rng)
        profile, extents = self._profiles(head, peaks, extents, kind, euclidean, present, rng)
        if "field" in self.shapes:  # the centre of a field is its maximum
            peaks = torch.where(self._is(kind, "field"), profile.abs().argmax(-1), peaks)
        sign = torch.randint(0, 2, shape, generator=rng, device=rng.device) * 2 - 1
        weakest, strongest = map(math.log, self.moment)
        moments = uniform(shape, weakest, strongest, rng).exp() * present
        total = profile.abs().sum(-1).clamp_min(1e-9)
        patterns = (sign * moments / total)[..., None] * profile
        return Patches(
            patterns=self._oriented(head, normals, patterns, rng),
            time_courses=self._time_courses(counts, n_times, sfreq, rng),
            peaks=torch.where(present, peaks, -1),
            extents=torch.where(present, extents, 0.0),
            moments=moments,
            shapes=kind,
            euclidean=euclidean,
        )

    def _draw_euclidean(self, shape: tuple[int, int], rng: torch.Generator) -> Bool[Tensor, "B K"]:
        """Whether the radius is Euclidean. One kind of extent draws no random number."""
        own = torch.tensor([name == "euclidean" for name in self.extent], device=rng.device)
        if len(own) == 1:
            return own.expand(shape)
        return own[torch.randint(0, len(own), shape, generator=rng, device=rng.device)]

    def _is(self, kind: Int[Tensor, "B K"], name: str) -> Bool[Tensor, "B K"]:
        if name not in self.shapes:
            return torch.zeros_like(kind, dtype=torch.bool)
        return kind == list(self.shapes).index(name)

    def _centres(
        self, head: HeadOnDevice, n_examples: int, rng: torch.Generator
    ) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"]]:
        """Centres with the least distance to the previous ones, and whether one was available."""
        depth = None if self.depth is None else (self.depth[0], self.depth[1])
        weight = head.placement(self.placement, depth).expand(n_examples, -1)
        chosen, available = [], []
        for _ in range(self.n_sources[1]):
            cumulative = weight.cumsum(1)
            share = uniform((n_examples, 1), 0.0, 1.0, rng) * cumulative[:, -1:]
            centre = torch.searchsorted(cumulative, share, right=True)[:, 0]
            centre = centre.clamp(max=weight.shape[1] - 1)
            weight = weight * (head.distances[centre] > self.min_distance)
            chosen.append(centre)
            available.append(cumulative[:, -1] > 0)
        return torch.stack(chosen, dim=1), torch.stack(available, dim=1)

    def _profiles(
        self,
        head: HeadOnDevice,
        peaks: Int[Tensor, "B K"],
        extents: Float[Tensor, "B K"],
        kind: Int[Tensor, "B K"],
        euclidean: Bool[Tensor, "B K"],
        present: Bool[Tensor, "B K"],
        rng: torch.Generator,
    ) -> tuple[Float[Tensor, "B K S"], Float[Tensor, "B K"]]:
        """Shapes with peak 1, and radii: 0 for a point, infinite for a field."""
        field = self._is(kind, "field")
        extents = torch.where(self._is(kind, "point"), 0.0, extents)
        walked = (self._is(kind, "diffused") | field) & present
        two = self._is(kind, "split") & present
        disc = present & ~walked & ~two
        profile = torch.zeros(*peaks.shape, len(head.is_cortex), device=rng.device)
        profile[disc] = self._discs(
            head, peaks[disc], extents[disc], kind[disc], euclidean[disc], rng
        )
        if walked.any():
            profile[walked] = diffused(head, peaks[walked], extents[walked], field[walked], rng)
        if two.any():
            profile[two] = split(head, peaks[two], extents[two])
        return profile * head.is_cortex, torch.where(field, math.inf, extents)

    def _discs(
        self,
        head: HeadOnDevice,
        peaks: Int[Tensor, " N"],
        extents: Float[Tensor, " N"],
        kind: Int[Tensor, " N"],
        euclidean: Bool[Tensor, " N"],
        rng: torch.Generator,
    ) -> Float[Tensor, "N S"]:
        """Flat, Gaussian and irregular patches and points."""
        distance = head.distances[peaks]
        if euclidean.any():
            distance[euclidean] = head.euclidean[peaks[euclidean]]
        profile = gaussian(distance, extents[:, None])
        flat, cut = self._is(kind, "flat"), self._is(kind, "irregular")
        profile[flat] = (profile[flat] > 0).float()
        if cut.any():
            profile[cut] = irregular(head, peaks[cut], extents[cut], profile[cut], rng)
        return profile

    def _oriented(
        self,
        head: HeadOnDevice,
        normals: Float[Tensor, "S 3"],
        patterns: Float[Tensor, "B K S"],
        rng: torch.Generator,
    ) -> Float[Tensor, "B K D"]:
        if head.template.space.n_orient == 1:
            return patterns
        if self.orientation == "normal" and head.on_surface:
            return (patterns[..., None] * normals).flatten(2)
        direction = torch.randn(*patterns.shape[:2], 1, 3, generator=rng, device=rng.device)
        direction = direction / direction.norm(dim=-1, keepdim=True)
        if self.orientation == "normal":
            on_surface = normals.norm(dim=1, keepdim=True) > 0
            direction = torch.where(on_surface, normals, direction)
        return (patterns[..., None] * direction).flatten(2)

    def _time_courses(
        self, counts: Int[Tensor, "B 1"], n_times: int, sfreq: float, rng: torch.Generator
    ) -> Float[Tensor, "B K T"]:
        """Time courses with peak 1; those of one example share a common part."""
        n_examples, most = len(counts), self.n_sources[1]
        if n_times == 1 or self.correlation[1] == 0:
            return self.kind.draw(n_examples, most, n_times, sfreq, rng)
        time_courses = self.kind.draw(n_examples, most + 1, n_times, sfreq, rng)
        share = uniform((n_examples, 1, 1), *self.correlation, rng) * (counts[..., None] > 1)
        mixed = share * time_courses[:, :1] + (1 - share.square()).sqrt() * time_courses[:, 1:]
        return mixed / mixed.abs().amax(-1, keepdim=True)
