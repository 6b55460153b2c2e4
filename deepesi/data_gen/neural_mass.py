"""Neural mass model of Jansen & Rit: the potential of a cortical column as a time course."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from deepesi.data_gen.keys import uniform
from deepesi.data_gen.ranges import check_range
from deepesi.data_gen.waveforms import Shape, TimeCourse

EXCITATORY_RATE, INHIBITORY_RATE = 100.0, 50.0  # a, b of the paper, 1/s
MAX_FIRING_RATE = 5.0  # 2 e0, 1/s
THRESHOLD, STEEPNESS = 6e-3, 560.0  # v0 in V, r in 1/V
LONGEST_STEP = 2e-3  # s
BURN_IN, OFFSET = 1.0, 0.25  # s
VOLTS = "V (3.25 mV is 3.25e-3)"


@dataclass(frozen=True)
class JansenRit(TimeCourse):
    """Cortical column with noisy input: alpha, theta and spike-like rhythms of 3-12 Hz.

    Every source is an independent column with its own parameters. The time course is the membrane
    potential of the pyramidal cells minus the mean over the window. The first second is discarded
    (the remaining transient is about 10 % of an alpha rhythm), and up to 0.25 s more, drawn per
    source, so that columns have different phases.

    Args:
        input_rate: Range of the mean input rate, pulses per second.
        noise: Range of the standard deviation of the input rate, pulses per second. The input is
            white noise, constant for 1 ms. The paper (uniform within 120-320) has 58.
        connectivity: Range of the number of synapses ``C`` (no unit). 135: alpha rhythm.
        excitatory_gain: Range of the excitatory postsynaptic amplitude ``A``, V.
        inhibitory_gain: Range of the inhibitory postsynaptic amplitude ``B``, V.

    Raises:
        ValueError: A range is out of order or not in SI units.

    Source: Jansen & Rit 1995, doi:10.1007/BF00199471. Difference: parameters are drawn around those
    of the paper (A = 3.25 mV, B = 22 mV, C = 135), and the input is Gaussian.

    """

    input_rate: tuple[float, float] = (120.0, 320.0)
    noise: tuple[float, float] = (30.0, 90.0)
    connectivity: tuple[float, float] = (120.0, 150.0)
    excitatory_gain: tuple[float, float] = (3.0e-3, 3.6e-3)
    inhibitory_gain: tuple[float, float] = (20e-3, 25e-3)

    def __post_init__(self) -> None:
        check_range("JansenRit", "input_rate", self.input_rate, 0, 1e3, "1/s")
        # Without noise a column may be silent, and the time course would be rounding errors.
        check_range("JansenRit", "noise", self.noise, 1, 1e3, "1/s")
        check_range("JansenRit", "connectivity", self.connectivity, 1, 2e3, "synapses")
        check_range("JansenRit", "excitatory_gain", self.excitatory_gain, 1e-4, 2e-2, VOLTS)
        check_range("JansenRit", "inhibitory_gain", self.inhibitory_gain, 1e-3, 0.2, VOLTS)

    @property
    def highest_frequency(self) -> float:
        """Frequency, Hz, above which a column has 0.05 % of its power (median; at most 1.5 %)."""
        return 50.0

    def _time_courses(self, shape: Shape, n_times: int, sfreq: float, rng: Generator) -> Tensor:
        n_columns = math.prod(shape)
        per_sample = math.ceil(1 / (sfreq * LONGEST_STEP))
        step = 1 / (sfreq * per_sample)
        burn_in, spare = math.ceil(BURN_IN * sfreq), math.ceil(OFFSET * sfreq)
        n_steps = (burn_in + spare + n_times) * per_sample
        mean = uniform((n_columns,), *self.input_rate, rng)
        spread = uniform((n_columns,), *self.noise, rng) * math.sqrt(1e-3 / step)
        white = torch.randn(n_steps, n_columns, generator=rng, device=rng.device)
        potential = pyramidal_potential(
            mean + spread * white,
            uniform((n_columns,), *self.connectivity, rng),
            uniform((n_columns,), *self.excitatory_gain, rng),
            uniform((n_columns,), *self.inhibitory_gain, rng),
            step,
        )
        sampled = potential[per_sample - 1 :: per_sample].T
        start = burn_in + torch.randint(
            0, spare + 1, (n_columns, 1), generator=rng, device=rng.device
        )
        time_courses = sampled.gather(1, start + torch.arange(n_times, device=rng.device))
        return (time_courses - time_courses.mean(-1, keepdim=True)).reshape(*shape, n_times)


def pyramidal_potential(
    input_rate: Float[Tensor, "T N"],
    connectivity: Float[Tensor, " N"],
    excitatory_gain: Float[Tensor, " N"],
    inhibitory_gain: Float[Tensor, " N"],
    step: float,
) -> Float[Tensor, "T N"]:
    r"""Membrane potential ``y₁ - y₂``, V, of ``N`` columns that start at zero.

    With the sigmoid ``S`` and the input ``p``,

    .. math:: ÿ_0 &= A a S(y_1 - y_2) - 2 a ẏ_0 - a² y_0 \\
              ÿ_1 &= A a (p + 0.8 C S(C y_0)) - 2 a ẏ_1 - a² y_1 \\
              ÿ_2 &= B b (C/4) S(C/4 y_0) - 2 b ẏ_2 - b² y_2

    solved by fourth-order Runge-Kutta steps. With the parameters of the paper, a constant input of
    150-300 per second and a step of 2 ms, the error over the first 1.5 s is below 1e-6 V;
    oscillations have 3e-3 to 5e-3 V.

    Args:
        input_rate: Input during each step, pulses per second.
        connectivity: ``C``, no unit.
        excitatory_gain: ``A``, V.
        inhibitory_gain: ``B``, V.
        step: Length of a step, s.

    Returns:
        Potential at the end of each step, V.

    """
    rate = input_rate.new_tensor([[EXCITATORY_RATE], [EXCITATORY_RATE], [INHIBITORY_RATE]])
    gain = rate * torch.stack([excitatory_gain, excitatory_gain, inhibitory_gain])
    ones = torch.ones_like(connectivity)
    weight = MAX_FIRING_RATE * gain * torch.stack([ones, 0.8 * connectivity, connectivity / 4])
    reach = STEEPNESS * torch.stack([connectivity, connectivity / 4])
    bias, damping, stiffness = STEEPNESS * THRESHOLD, 2 * rate, rate.square()

    def slope(state: Tensor, drive: Tensor) -> Tensor:
        """Time derivative of the state ``(2, 3, N)``: potentials and time derivatives."""
        potential, speed = state
        own = STEEPNESS * (potential[1:2] - potential[2:])
        firing = torch.sigmoid(torch.cat([own, reach * potential[0]]) - bias)
        acceleration = weight * firing - damping * speed - stiffness * potential
        acceleration[1] += drive
        return torch.stack([speed, acceleration])

    state = input_rate.new_zeros(2, 3, input_rate.shape[1])
    potentials = torch.empty_like(input_rate)
    for drive, out in zip(gain[1] * input_rate, potentials, strict=True):
        first = slope(state, drive)
        second = slope(state + step / 2 * first, drive)
        third = slope(state + step / 2 * second, drive)
        fourth = slope(state + step * third, drive)
        state = state + step / 6 * (first + 2 * (second + third) + fourth)
        torch.sub(state[0, 1], state[0, 2], out=out)
    return potentials
