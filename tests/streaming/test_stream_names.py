"""Channels of a stream may be named as clinics and amplifiers name them."""

import uuid

import numpy as np
import pytest

from deepesi.streaming.source import library, open_source
from tests.conftest import slow

lsl = library()
OLD = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}


def outlet(names):
    name = uuid.uuid4().hex[:8]
    info = lsl.StreamInfo(name, "EEG", len(names), 250.0, "float32", name)
    info.set_channel_names(names)
    info.set_channel_units(["uV"] * len(names))
    return lsl.StreamOutlet(info), name


@pytest.mark.parametrize("form", ["EEG {}-REF", *map(slow, ("{}-LE", " {}..", "{}-Cz"))])
def test_clinical_names(prepared, form):
    """Any order and case, older names, and what is no electrode beside them."""
    order = np.random.default_rng(0).permutation(32)
    names = [prepared.ch_names[i] for i in order]
    names = [form.format(OLD.get(name, name).upper()) for name in names]
    stream, name = outlet(["EKG", *names])
    source = open_source(name, prepared.ch_names, {})
    assert [order[row - 1] for row in source.rows] == list(range(32))
    assert source.ignored == ["EKG"]
    del stream


def test_names_that_do_not_tell(prepared):
    stream, name = outlet([*prepared.ch_names, "T3"])
    with pytest.raises(ValueError, match=r"\['T7', 'T3'\] are one electrode"):
        open_source(name, prepared.ch_names, {})
    del stream
    ears = [f"{c}-A{1 + i % 2}" for i, c in enumerate(prepared.ch_names)]
    stream, name = outlet(ears)
    with pytest.raises(ValueError, match="channels have different references"):
        open_source(name, prepared.ch_names, {})
    del stream
    stream, name = outlet(["Fp1-F7", *prepared.ch_names[1:]])
    with pytest.raises(ValueError, match=r"\['Fp1'\] are missing"):
        open_source(name, prepared.ch_names, {})
    del stream
