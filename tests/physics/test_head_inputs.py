import json

import numpy as np
import pytest

from deepesi.physics.head_inputs import HeadInput, TopographicMatrix, prepare
from deepesi.physics.head_inputs.images import azimuthal_projection

ALL = [kind() for kind in HeadInput.__subclasses__()]


@pytest.mark.parametrize("declaration", ALL, ids=lambda d: d.key)
def test_declaration_travels_as_json(declaration):
    again = HeadInput.from_json(json.loads(json.dumps(declaration.to_json())))
    assert again == declaration
    assert again.key == declaration.key


@pytest.mark.parametrize("declaration", ALL, ids=lambda d: d.key)
def test_array_has_the_declared_shape(declaration, toy):
    head = toy.montage_head("biosemi16")
    sizes = {"channels": 16, "dipoles": 84, "edges": 240}
    expected = tuple(sizes.get(a, a) for a in declaration.axes)
    assert declaration.compute(head).shape == expected


def test_keys_tell_parameters_apart():
    assert TopographicMatrix(8, 8).key != TopographicMatrix(12, 12).key


def test_prepare_computes_each_once(toy):
    head = toy.montage_head("biosemi16")
    assert list(prepare([ALL[0], ALL[0]], head)) == [ALL[0].key]


def test_image_passes_through_the_electrodes(toy):
    """A potential linear on the disc is interpolated exactly, up to its mean."""
    head = toy.montage_head("biosemi128")
    flat = azimuthal_projection(head.sensor_pos)
    matrix = TopographicMatrix(21, 21).compute(head)
    image = (matrix @ (flat[:, 0] - flat[:, 0].mean())).reshape(21, 21)
    assert image[10, 12] - image[10, 8] == pytest.approx(0.4, abs=1e-6)
    assert image[12, 10] == pytest.approx(image[8, 10], abs=1e-6)


def test_nothing_is_extrapolated(toy):
    head = toy.montage_head("biosemi64")
    corners = TopographicMatrix(12, 12).compute(head).reshape(12, 12, -1)[0, 0]
    assert np.allclose(corners, 0)


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ({"type": "Telepathy"}, "does not know the head input 'Telepathy'"),
        (
            {"type": "TopographicMatrix", "height": 3},
            r"parameters \['denoise_snr_db', 'height', 'width'\]",
        ),
        ({}, "does not know the head input None"),
    ],
)
def test_foreign_declarations_are_refused(declaration, message):
    with pytest.raises(ValueError, match=message):
        HeadInput.from_json(declaration)
