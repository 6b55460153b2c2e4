import warnings

import pytest
from mne.channels import get_builtin_montages

from deepesi.physics.channel_names import (
    check_channel_names,
    match_channels,
    parse_renaming,
    plain_names,
    ten_five_name,
)
from deepesi.physics.montage import (
    OWN_MONTAGES,
    RENAMED_MONTAGES,
    head_montage,
    montage_names,
    standard_montage,
)
from deepesi.physics.units import parse_unit, volts_per


@pytest.mark.parametrize(
    ("name", "electrode"),
    [
        ("EEG FP1-REF", "Fp1"),  # the TUH corpus
        ("EEG Fp1-LE", "Fp1"),
        ("EEG Fp1", "Fp1"),
        ("Fp1-LE", "Fp1"),
        ("FP1-A1", "Fp1"),
        ("C3-A2", "C3"),
        ("C3A2", "C3"),
        ("fp1-M1", "Fp1"),
        ("Fp1-AVG", "Fp1"),
        ("Fp1-Ref", "Fp1"),
        ("Fp1_Ref", "Fp1"),
        ("Fp1 - (A1+A2)/2", "Fp1"),
        ("POL Fp1", "Fp1"),
        ("Fc5.", "FC5"),  # PhysioNet
        ("C3..", "C3"),
        ("  Cz  ", "Cz"),
        ("cz", "Cz"),
        ("AF7h", "AF7h"),
        ("T3", "T7"),
        ("EEG T4-REF", "T8"),
        ("t5", "P7"),
        ("T6-LE", "P8"),
        ("T7", "T7"),
        ("Fp1-F7", None),
        ("EEG FP1-F7", None),
        ("T8-P8-0", None),  # CHB-MIT, as MNE-Python numbers equal names
        ("EEG Fpz-Cz", None),
        ("EEG EKG-REF", None),
        ("ECG", None),
        ("PHOTIC", None),
        ("EOG L", None),
        ("RESP", None),
        ("Event", None),
        ("DC1", None),
        ("EEG 001", None),
        ("A1", None),
        ("M2", None),
        ("E12", None),
    ],
)
def test_the_electrode_that_a_name_stands_for(name, electrode):
    assert ten_five_name(name) == electrode


@pytest.mark.parametrize("montage", [*get_builtin_montages(), *OWN_MONTAGES, *RENAMED_MONTAGES])
def test_every_montage_knows_its_own_names_and_clinical_ones(montage):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # MNE-Python warns of its older names
        names, _ = standard_montage(montage)
    modern = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
    own = [name for name in names if modern.get(name) not in names]
    assert montage_names(own, montage) == own
    if not montage.startswith("mgh"):  # whose own names begin with EEG
        assert montage_names([f" EEG {name.upper()}-REF" for name in own], montage) == own


@pytest.mark.parametrize(
    "montage", ["10-20-19", "10-20-21", "colin27_1020", "standard_1005", "biosemi64", "easycap-M1"]
)
@pytest.mark.parametrize("names", [["T3", "T4", "T5", "T6"], ["T7", "T8", "P7", "P8"]])
def test_older_and_newer_names_have_the_same_positions(montage, names):
    known, positions = standard_montage(montage)
    placed = head_montage(names, montage).get_positions()["ch_pos"]
    for name, modern in zip(names, ["T7", "T8", "P7", "P8"], strict=True):
        assert placed[name] == pytest.approx(positions[known.index(modern)])


def test_older_names_where_the_montage_has_no_others():
    assert montage_names(["T7"], "colin27_alphabetic") == ["T3"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Fp1-F7", "F7-T3", "EEG T3-T5"], r"\['Fp1-F7', 'F7-T3', 'EEG T3-T5'\] are derivations"),
        (["Fz", "Cz", "FP1-F3"], r"\['FP1-F3'\] are derivations between two electrodes .*before"),
        (["Fz-Cz", "F3-Cz", "P3-Pz"], "are derivations"),
        (["C3-A2", "C4-A1"], r"different references \(\['C3-A2'\] against A2; \['C4-A1'\] against"),
        (["T3", "Cz", "T7"], r"\['T3', 'T7'\] are one electrode. Keep one"),
        (["EEG Fp1-REF", "fp1"], r"\['EEG Fp1-REF', 'fp1'\] are one electrode"),
    ],
)
def test_names_that_say_there_is_no_common_reference(names, message):
    with pytest.raises(ValueError, match=message):
        check_channel_names(names)
    with pytest.raises(ValueError, match=message):
        head_montage(names)


def test_one_electrode_may_be_the_reference_of_all():
    names = ["EEG Fp1-Cz", "EEG F3-Cz", "O1-CZ", "EKG"]
    check_channel_names(names)
    assert plain_names(names) == ["fp1", "f3", "o1", "ekg"]
    assert montage_names(names[:3], "10-20-19") == ["Fp1", "F3", "O1"]


def test_channels_that_are_no_electrodes_are_listed_ready_to_leave_out():
    names = ["Cz", "EKG", "EEG EOG L-REF", "AF3"]
    message = r"AF3: .*fsaverage_1005.* \(--exclude EKG 'EEG EOG L-REF'\)"
    with pytest.raises(ValueError, match=message):
        head_montage(names, "10-20-19")
    with pytest.raises(ValueError, match="none of the channels is an electrode .*'E1', 'E2'"):
        head_montage(["E1", "E2"], "10-20-19")


def test_matching_of_names():
    known = ["EOG", "EEG T3-REF", "Cz", "EEG 001"]
    assert match_channels(["T7", "cz", "Fp1", "EEG 001"], known) == [1, 2, None, 3]
    with pytest.raises(ValueError, match=r"\['T3', 'T7'\] are one electrode"):
        match_channels(["Cz", "T7"], ["T3", "T7", "Cz", "AUX", "AUX"])


def test_renaming():
    assert parse_renaming(["a=b", "EEG 1=Fp1"]) == {"a": "b", "EEG 1": "Fp1"}
    with pytest.raises(ValueError, match=r"takes OLD=NEW, got \['a', '=b', 'c=d=e'\]"):
        parse_renaming(["a", "x=y", "=b", "c=d=e"])
    for pairs in (["a=b", "a=c"], ["a=c", "b=c"]):
        with pytest.raises(ValueError, match="every old and every new name once"):
            parse_renaming(pairs)


def test_units():
    assert [parse_unit(unit) for unit in ("V", "mV", "µV", "uv", " nV")] == [
        1,
        1e-3,
        1e-6,
        1e-6,
        1e-9,
    ]
    with pytest.raises(ValueError, match="takes V, mV, uV or nV, got 'T'"):
        parse_unit("T")
    assert volts_per("-6") == volts_per("microvolts") == 1e-6  # as streams of MNE-LSL write it
    assert volts_per(None) is None
