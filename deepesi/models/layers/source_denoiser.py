"""Expected sources given noisy sources and a recording: Gaussian, with learned variances."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from deepesi.core.patches import neighbour_mean, small_linear
from deepesi.core.precision import in_full_precision
from deepesi.models.layers.unit_sources import Setting

#: Smallest energy in a logarithm, relative to that of a source if all share the recording.
FLOOR = 1e-3
#: Range of the logarithm of a learned variance, relative to equal variances.
LOWEST, HIGHEST = -12.0, 8.0
#: Features of a source, and of a recording with the time.
N_SOURCE, N_RECORDING = 6, 5


def solve(
    covariance: "Covariance | EqualCovariance", right: Float[Tensor, "F T C"], n_steps: int
) -> Float[Tensor, "F T C"]:
    """Solution of the equations of a covariance of the channels, by conjugate gradients.

    They run over the whole window, so a rotation of the samples rotates the solution.
    """
    residual = direction = right
    solution = torch.zeros_like(residual)
    size = residual.square().sum((1, 2), keepdim=True)
    least = (1e-7 * size).clamp_min(1e-12)
    for _ in range(n_steps):
        image = covariance(direction)
        length = size / ((direction * image).sum((1, 2), keepdim=True) + least)
        solution, residual = solution + length * direction, residual - length * image
        size, before = residual.square().sum((1, 2), keepdim=True), size
        direction = residual + size / (before + least) * direction
    return solution


class Covariance(NamedTuple):
    """Covariance of the channels, noise variance 1: of sources with given variances."""

    topographies: Float[Tensor, "S C"]
    variance: Float[Tensor, "F S"]  # in units of the noise variance

    def __call__(self, values: Float[Tensor, "F T C"]) -> Float[Tensor, "F T C"]:
        """The covariance times values."""
        on_sources = (values @ self.topographies.T) * self.variance[:, None]
        return values + on_sources @ self.topographies


class EqualCovariance(NamedTuple):
    """The same for sources of equal variance, without products over sources."""

    gram: Float[Tensor, "C C"]
    variance: Float[Tensor, "F 1"]

    def __call__(self, values: Float[Tensor, "F T C"]) -> Float[Tensor, "F T C"]:
        """The covariance times values."""
        return values + self.variance[:, None] * (values @ self.gram)


class SourceDenoiser(nn.Module):
    """Expected sources ``x1`` given noisy ones, ``(1 - s) β e + s x1``, and a recording of them.

    With independent normal sources of variance ``γ`` this is closed: the noisy sources give every
    source a mean and a variance, and the recording updates all of them together, as a Kalman filter
    does. A network on the mesh gives ``γ`` for every source. It reads energies only (of the noisy
    sources, of their expectation under equal variances, and of matched filters of the recording and
    of the residual), so the result turns with a rotation of the samples and changes sign with
    the recording. It also says how far a source follows its neighbours.

    Untrained the variances are equal: sources of the Bayesian minimum norm.

    Args:
        noise_std: Standard deviation ``β`` of the noise; 1 is the power of the recording.
        hidden: Width of the network.
        n_messages: Rounds of messages on the mesh.
        n_conjugate: Conjugate-gradient steps per update.
        n_further: Number of further outputs of the network for every source.

    """

    def __init__(
        self, noise_std: float, hidden: int, n_messages: int, n_conjugate: int, n_further: int = 0
    ) -> None:
        super().__init__()
        self.noise_std, self.n_conjugate = noise_std, n_conjugate
        self.source = nn.Linear(N_SOURCE, hidden)
        self.recording = nn.Linear(N_RECORDING, hidden, bias=False)
        self.attention = nn.ModuleList(nn.Linear(hidden, 1) for _ in range(n_messages))
        self.received = nn.ModuleList(nn.Linear(3 * hidden, hidden) for _ in range(n_messages))
        self.last = small_linear(hidden, 2 + n_further)

    def forward(
        self, x: Float[Tensor, "F T S"], time: Float[Tensor, " F"], setting: Setting
    ) -> Float[Tensor, "F T S"]:
        """Expected sources, args as in `with_further`."""
        return self.with_further(x, time, setting)[0]

    @in_full_precision
    def with_further(
        self, x: Float[Tensor, "F T S"], time: Float[Tensor, " F"], setting: Setting
    ) -> tuple[Float[Tensor, "F T S"], list[Float[Tensor, "F S"]]]:
        """Expected sources, and the further outputs.

        Args:
            x: Noisy sources, in units of the moment whose topography has norm 1.
            time: ``s``, between 0 and 1, below 1.
            setting: The recordings.

        """
        spread = ((1 - time) * self.noise_std)[:, None]
        equal = setting.equal_variance()
        first, residual = self._equal_update(x, time, spread, setting)
        log_factor, follows, *further = self._network(x, time, spread, first, residual, setting)
        variance = equal * (3 * log_factor).clamp(LOWEST, HIGHEST).exp()
        expected = self._update(x, time, spread, variance, setting)
        around = neighbour_mean(expected.permute(2, 0, 1), setting.neighbours).permute(1, 2, 0)
        return expected + follows[:, None] * (around - expected), further

    def _update(
        self,
        x: Float[Tensor, "F T S"],
        time: Float[Tensor, " F"],
        spread: Float[Tensor, "F 1"],
        variance: Float[Tensor, "F S"],
        setting: Setting,
    ) -> Float[Tensor, "F T S"]:
        """Posterior mean of normal sources, given noisy sources and the recording."""
        factor, relative = _given_noisy_sources(time, spread, variance, setting)
        mean, topographies = factor[:, None] * x, self._exact(setting.topographies)
        rest = self._exact(setting.data) - self._exact(mean) @ topographies
        covariance = Covariance(topographies, self._exact(relative))
        solution = solve(covariance, rest, self.n_conjugate).to(x)
        return mean + relative[:, None] * (solution @ setting.topographies.T)

    def _equal_update(
        self,
        x: Float[Tensor, "F T S"],
        time: Float[Tensor, " F"],
        spread: Float[Tensor, "F 1"],
        setting: Setting,
    ) -> tuple[Float[Tensor, "F T S"], Float[Tensor, "F T C"]]:
        """The update under equal variances, and the residual of the recording.

        The covariance of the channels is one matrix for all, so only its sum over sources counts.
        """
        equal = setting.equal_variance()
        factor, relative = (
            value[:, None] for value in _given_noisy_sources(time, spread, equal, setting)
        )
        rest = setting.data - factor * (x @ setting.topographies)
        covariance = EqualCovariance(self._exact(setting.gram), self._exact(relative[:, 0]))
        solution = solve(covariance, self._exact(rest), self.n_conjugate).to(x)
        first = factor * x + relative * (solution @ setting.topographies.T)
        return first, rest - relative * (solution @ setting.gram)

    def _exact(self, values: Tensor) -> Tensor:
        """Double precision, but for training: conjugate gradients amplify errors of rounding."""
        return values if self.training else values.double()

    def _network(
        self,
        x: Float[Tensor, "F T S"],
        time: Float[Tensor, " F"],
        spread: Float[Tensor, "F 1"],
        first: Float[Tensor, "F T S"],
        residual: Float[Tensor, "F T C"],
        setting: Setting,
    ) -> list[Float[Tensor, "F S"]]:
        """A third of the log-variance relative to equal ones, share of the neighbours, further."""
        equal = setting.equal_variance()
        expected = spread.square() + time[:, None].square() * equal
        energies = [
            (x.square().mean(1) / expected + FLOOR).log() / 3,
            (first.square().mean(1) / equal + FLOOR).log() / 3,
            3 * setting.evidence,
            (setting.evidence / setting.noise[:, None]).log1p() / 3,
            3 * (residual @ setting.topographies.T).square().mean(1),
            setting.sensitivity.expand_as(setting.evidence),
        ]
        own = torch.stack(energies, dim=2).transpose(0, 1)
        common = torch.stack([time, (spread[:, 0] + FLOOR).log() / 3], dim=1)
        common = self.recording(torch.cat([setting.features, common], dim=1))
        hidden = functional.gelu(self.source(own) + common)
        for attention, received in zip(self.attention, self.received, strict=True):
            weight = torch.softmax(attention(hidden), dim=0)
            whole = (weight * hidden).sum(0).expand_as(hidden)
            near = neighbour_mean(hidden, setting.neighbours)
            hidden = hidden + functional.gelu(received(torch.cat([hidden, near, whole], dim=2)))
        return [output.T for output in self.last(hidden).unbind(2)]


def _given_noisy_sources(
    time: Float[Tensor, " F"], spread: Float[Tensor, "F 1"], variance: Tensor, setting: Setting
) -> tuple[Float[Tensor, "F S"], Float[Tensor, "F S"]]:
    """Mean of a source per noisy source, and its variance over that of the noise of channels."""
    ratio = time[:, None] / spread
    posterior = variance / (1 + ratio.square() * variance)
    return posterior * ratio / spread, posterior / setting.noise[:, None]
