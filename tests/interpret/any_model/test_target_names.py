"""Targets by their names: which sources they mean, and errors about unknown ones."""

import numpy as np
import pytest

from deepesi.interpret.any_model.target_names import check_target, parcel_sources, source_number
from deepesi.physics.atlas import seitzman_parcels
from deepesi.physics.head import SourceSpace

EDGES = np.zeros((0, 2), dtype=int)
CORTEX = SourceSpace("cortex", (np.array([3, 8, 20]), np.array([8, 9])), EDGES)
VOLUME = SourceSpace("volume", (np.array([3, 8, 20]),), EDGES, 3)


def test_a_vertex_is_a_source_of_its_hemisphere():
    assert source_number("source:left:8", CORTEX) == 1
    assert source_number("source:right:8", CORTEX) == 3
    assert source_number("source:20", VOLUME) == 2


@pytest.mark.parametrize(
    ("name", "space", "message"),
    [
        ("source:left:9", CORTEX, r"vertex 9 is not a source.*3 sources of the left.*: 3, 8, 20"),
        ("source:7", VOLUME, r"vertex 7 is not a source.*3 sources of volume"),
        ("source:8", CORTEX, r"cortex is a cortex with two hemispheres, expected source:left"),
        ("source:left:8", VOLUME, r"volume has no hemispheres, expected.*source:VERTEX in a vol"),
    ],
)
def test_a_vertex_that_is_no_source_is_refused(name, space, message):
    with pytest.raises(ValueError, match=message):
        source_number(name, space)


def test_sources_of_a_parcel_are_near_its_centre(template):
    parcels = seitzman_parcels(template.space)
    name = parcels.names[200]
    sources = list(parcel_sources(name, template.space))
    distance = np.linalg.norm(parcels.centres[:, None] - template.source_mni[sources], axis=2)
    assert sources
    assert (distance.argmin(0) == 200).all()


def test_an_unknown_parcel_is_refused_with_the_nearest(template):
    with pytest.raises(ValueError, match=r"parcel:Auditory 1: fsaverage-ico3 has.*Auditory L 1"):
        parcel_sources("Auditory 1", template.space)
    with pytest.raises(ValueError, match=r"no such parcel. Names are network, side and number"):
        parcel_sources("xyz", template.space)
    with pytest.raises(ValueError, match=r"cortex has no MNI positions"):
        parcel_sources("Auditory L 1", CORTEX)


@pytest.mark.parametrize("name", ["localization", "parcel:Visual L 275", "source:left:8"])
def test_known_forms_pass(name):
    check_target(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lobe", "unknown 'lobe', expected one of localization, moment, power, parcel:NAME or"),
        ("parcel:", "unknown 'parcel:'"),
        ("source", "unknown 'source'"),
        ("source:left:x", "source:left:x: expected source:left:VERTEX"),
        ("source:lh:8", "expected source:left:VERTEX or source:right:VERTEX"),
        ("source:left:8:9", "expected source:left:VERTEX"),
    ],
)
def test_unknown_forms_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        check_target(name)
