"""Nets whose electrodes are numbered, and which of them a recording may be of.

Several nets give other positions to the same names: ``E1`` to ``E32`` are electrodes of every net
of EGI, and ``A1`` to ``B32`` of every BioSemi cap.

Source: montages of MNE-Python; names of the channels of BioSemi's caps with 16, 32 and 64
electrodes, in their order (https://www.biosemi.com/headcap.htm).
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import plain_names
from deepesi.physics.montage import standard_montage

Array = NDArray[np.float64]

#: Montages of MNE-Python with numbered electrodes.
NETS = (
    "biosemi128",
    "biosemi160",
    "biosemi256",
    "easycap-M10",
    "easycap-M43",
    "EGI_256",
    "GSN-HydroCel-32",
    "GSN-HydroCel-65_1.0",
    "GSN-HydroCel-129",
    "GSN-HydroCel-257",
    "mgh60",
    "mgh70",
)
#: Caps with names of the 10-20 system, whose amplifier numbers them ``A1`` to ``A32``, ``B1``, ...
NUMBERED_CAPS = ("biosemi16", "biosemi32", "biosemi64")
#: Fewest electrodes that tell a net: 16 at random positions never fit better than 16 mm, 8 fit
#: within 8 mm by chance.
FEWEST_ELECTRODES = 16
#: Share of the channels that must be electrodes of a net; the others are references and the like.
MIN_SHARE = 0.9
_NUMBERED = re.compile(r"([a-z]?)[\s_.-]*0*([1-9]\d*)")


class Net(NamedTuple):
    """A net that a recording may be of.

    Attributes:
        name: Name of its montage.
        rows: Channels of the recording that are electrodes of the net.
        positions: Standard positions of these channels ``(C, 3)``, m, MNE head frame.

    """

    name: str
    rows: list[int]
    positions: Array


def possible_nets(ch_names: Sequence[str]) -> list[Net]:
    """Nets that nearly all channels may be electrodes of; none for fewer than 16 channels.

    Numbers alone (``EEG 001``, ``1``) may be those of EGI, too.

    Args:
        ch_names: Names of the channels, in any case and with zeros before their numbers.

    """
    keys, nets = _keys(ch_names), list[Net]()
    for name in (*NETS, *NUMBERED_CAPS):
        known = _electrodes(name)
        rows = [row for row, key in enumerate(keys) if key in known]
        if len(rows) >= max(FEWEST_ELECTRODES, MIN_SHARE * len(keys)):
            nets.append(Net(name, rows, np.array([known[keys[row]] for row in rows])))
    return nets


def _keys(ch_names: Sequence[str]) -> list[str]:
    """Letter and number of every name; other names as they are, in lower case."""
    plain = plain_names(ch_names)
    numbered = [_NUMBERED.fullmatch(name) for name in plain]
    return [m[1] + m[2] if m else name for m, name in zip(numbered, plain, strict=True)]


@functools.cache
def _electrodes(net: str) -> dict[str, Array]:
    """Positions of the electrodes of a net by their keys."""
    names, positions = standard_montage(net)
    if net in NUMBERED_CAPS:
        names = [f"{'AB'[number // 32]}{number % 32 + 1}" for number in range(len(names))]
    keys = _keys(names)
    known = dict(zip(keys, positions, strict=True))
    numbers = {key.removeprefix("e"): known[key] for key in keys if key.startswith("e")}
    return {**numbers, **known}
