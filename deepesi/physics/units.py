"""Units of potentials, as files, streams and users write them."""

#: Factors that bring numbers in a unit to volts, by its name in lower case. The last name of the
#: microvolt is its sign in Shift-JIS, as in EDF files of Japanese makers.
UNITS = {
    "v": 1.0,
    "volt": 1.0,
    "volts": 1.0,
    "mv": 1e-3,
    "millivolt": 1e-3,
    "millivolts": 1e-3,
    "uv": 1e-6,
    "µv": 1e-6,
    "μv": 1e-6,
    "microvolt": 1e-6,
    "microvolts": 1e-6,
    "\x83êv": 1e-6,
    "nv": 1e-9,
    "nanovolt": 1e-9,
    "nanovolts": 1e-9,
}
#: Streams of MNE-LSL may name a power of ten in place of a unit.
EXPONENTS = {"0": 1.0, "-3": 1e-3, "-6": 1e-6, "-9": 1e-9}


def volts_per(unit: str | None) -> float | None:
    """Factor from the unit that a stream or a user names to volts; None: not a known unit."""
    name = str(unit).strip().lower()
    return (UNITS | EXPONENTS).get(name)


def parse_unit(unit: str) -> float:
    """Factor from the unit of ``--unit`` to volts.

    Raises:
        ValueError: Not a unit of potentials.

    """
    factor = UNITS.get(unit.strip().lower())
    if factor is None:
        raise ValueError(f"--unit takes V, mV, uV or nV, got {unit!r}.")
    return factor
