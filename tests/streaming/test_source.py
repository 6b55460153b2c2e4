"""Which stream is meant, and streams that are no EEG or do not say what they are."""

import uuid

import pytest

from deepesi.streaming.source import library, open_source
from tests.conftest import slow

lsl = library()


@pytest.fixture(scope="module")
def outlet():
    """Opens streams, each of a name of its own, which are there until the last test ends."""
    outlets = []

    def start(names, name=None, n=None, stype="EEG", sfreq=250.0, dtype="float32", units="uV"):
        name = name or uuid.uuid4().hex[:8]
        n_channels = len(names) if n is None else n
        info = lsl.StreamInfo(name, stype, n_channels, sfreq, dtype, name + stype)
        channels = info.desc.append_child("channels")
        units = [units] * len(names) if isinstance(units, str | None) else units
        for label, unit in zip(names, units, strict=True):
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            if unit is not None:
                channel.append_child_value("unit", unit)
        outlets.append(lsl.StreamOutlet(info))
        return name

    yield start
    outlets.clear()


def test_one_of_a_name_among_others_of_its_type(prepared, outlet):
    """Asked for both, MNE-LSL itself gives up when the first of either has not both."""
    name = outlet(["x", "y", "z"], stype="Accelerometer", sfreq=50.0)
    outlet(prepared.ch_names, name)
    for _ in range(3):
        outlet(prepared.ch_names)
    for _ in range(2):
        source = open_source(name, prepared.ch_names, {}, timeout=5.0, stype="EEG")
        assert source.rows == list(range(32))


def test_two_devices_that_are_alike_in_all_but_themselves(prepared, outlet, long_listing):
    """Same name, type, source id, rate and channels: never one of them by chance."""
    name = outlet(prepared.ch_names)
    outlet(prepared.ch_names, name)
    message = r"there are several streams .* \(uid \w{8}\); .* \(uid \w{8}\)\. .* other source"
    with pytest.raises(ValueError, match=message):
        open_source(name, prepared.ch_names, {}, stype="EEG", source_id=name + "EEG")


#: Units as devices write them, and what each is in volts.
UNITS = {
    "uV": 1e-6,
    "UV ": 1e-6,
    "µV": 1e-6,
    "μV": 1e-6,
    "microvolts": 1e-6,
    "MicroVolt": 1e-6,
    "-6": 1e-6,
    "nV": 1e-9,
    "millivolts": 1e-3,
    "0": 1.0,
}


@pytest.fixture(scope="module")
def factors(prepared, outlet):
    """By unit, of one stream whose channels have them all."""
    units = [*UNITS, *["uV"] * (32 - len(UNITS))]
    found = open_source(outlet(prepared.ch_names, units=units), prepared.ch_names, {}).factors
    return dict(zip(UNITS, found, strict=False))


@pytest.mark.parametrize(("written", "factor"), UNITS.items())
def test_units_as_devices_write_them(factors, written, factor):
    assert factors[written] == factor


def test_mixed_and_contradicting_units(prepared, outlet):
    mixed = ["mV", "nV", *["uV"] * 30]
    name = outlet(prepared.ch_names, units=mixed)
    source = open_source(name, prepared.ch_names, {})
    assert list(source.factors) == [1e-3, 1e-9, *[1e-6] * 30]
    with pytest.raises(ValueError, match=r"Fp1 the unit 'mV', but --unit is uV. Lea"):
        open_source(name, prepared.ch_names, {}, "uV")
    some = outlet(prepared.ch_names, units=[None, *["uV"] * 31])
    with pytest.raises(ValueError, match="says of Fp1 no unit; known are V, mV, uV and nV. Say it"):
        open_source(some, prepared.ch_names, {})
    assert (open_source(some, prepared.ch_names, {}, "uV").factors == 1e-6).all()


@pytest.mark.parametrize(
    ("kept", "options", "message"),
    [
        (32, {"n": 33}, "sends 33 channels and describes 32, so their order is unknown. Set"),
        slow(32, {"n": 31}, "sends 31 channels and describes 32"),
        (0, {"n": 32}, "sends 32 channels and names none of them, so their order is unknown"),
        (31, {}, r"\['\w+'\] are missing.*Rename its channels"),
        (
            1,
            {"stype": "Markers", "dtype": "string", "sfreq": 0.0},
            r"\(type 'Markers', .*\) sends text, as markers have it. EEG is numbers at a regu",
        ),
        (32, {"sfreq": 0.0}, r"32 channels at 0 Hz .* has no regular rate"),
    ],
)
def test_streams_that_are_not_what_is_needed(prepared, outlet, kept, options, message):
    name = outlet(prepared.ch_names[:kept], **options)
    with pytest.raises(ValueError, match=message):
        open_source(name, prepared.ch_names, {})


def test_a_channel_without_a_name_beside_those_needed(prepared, outlet):
    name = outlet([*prepared.ch_names, ""])
    assert open_source(name, prepared.ch_names, {}).ignored == ["channel 32 (no name)"]
