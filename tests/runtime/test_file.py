"""The exported file itself: its contract, and that it is still what was written."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import numpy as np
import onnx
import pytest

from deepesi.baselines.minimum_norm import MinimumNorm
from deepesi.export.to_onnx import _sensor_kinds, export_onnx
from deepesi.models.convdip import ConvDip
from deepesi.models.matched_filter import UnrolledMatchedFilter
from deepesi.runtime.contract import DIGEST_KEY, METADATA_KEY, Calibration, Contract, _validator
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.protobuf import digest, metadata
from deepesi.runtime.session import open_model
from deepesi.uncertainty.tempered import Tempered
from tests.conftest import make_covariance

CALIBRATION = Calibration(0.9, "all", (3.0, 8.5), (0.99, 0.8, 0.5), None, "a few recordings")


def signed(proto: onnx.ModelProto, text: str, path) -> None:
    """Write a model with another contract, as whoever changed it on purpose would."""
    found = digest(proto.SerializeToString(), text)
    onnx.helper.set_model_props(proto, {METADATA_KEY: text, DIGEST_KEY: found})
    onnx.save(proto, path)


def test_contract_travels_in_the_file(convdip, template):
    contract = open_model(convdip).contract
    assert contract.space_name == "fsaverage-ico3"
    assert contract.space_fingerprint == template.space.fingerprint
    assert [len(part) for part in contract.vertices] == [642, 642]
    assert contract.head_inputs == ConvDip(1284).head_inputs
    assert contract.kinds == ("mean",)
    assert contract.noise is None
    assert {"deepesi", "torch", "onnx"} <= contract.versions.keys()
    assert contract.licence == "BSD-3-Clause"


def test_contract_round_trip(toy, tmp_path):
    """All there can be, on disk and back; the schema itself is a valid one."""
    identity = {
        "model": {"_target_": "MinimumNorm", "method": "MNE"},
        "config_sha256": "ab" * 32,
        "montages": ["biosemi16"],
        "trained": {
            "n_channels": [8, 64],
            "n_times": [1, 20],
            "sfreq": 250.0,
            "snr_db": None,
            "band_hz": None,
        },
    }
    path = tmp_path / "m.onnx"
    written = export_onnx(
        MinimumNorm(),
        toy.montage_head("biosemi16"),
        path,
        identity,
        calibration=CALIBRATION,
    )
    contract = open_model(path).contract
    assert contract == written
    assert Contract.from_json(contract.to_json(), "x") == contract
    assert contract.calibration == CALIBRATION
    assert contract.trained.n_channels == (8, 64)
    assert contract.montages == ("biosemi16",)
    jsonschema.Draft202012Validator.check_schema(_validator().schema)
    assert metadata(path.read_bytes())[METADATA_KEY] == contract.to_json()


def test_kinds_of_sensors_are_in_the_contract(eloreta, convdip):
    """Methods take all kinds, a network those of its training; images take EEG."""
    kinds = json.loads(open_model(eloreta).contract.to_json())["data"]["kinds"]
    assert kinds["eeg"] == {"unit": "V", "reference": "average"}
    assert kinds["mag"] == {"unit": "T", "numbers_in": 5e-8}
    assert kinds["grad"] == {"unit": "T/m", "numbers_in": 1e-6}
    assert open_model(convdip).contract.sensor_kinds == ("eeg",)
    declarations = UnrolledMatchedFilter().head_inputs
    assert _sensor_kinds({}, declarations) == ("eeg", "mag", "grad")
    assert _sensor_kinds({"trained": {"sfreq": 250.0}}, declarations) == ("eeg",)
    assert _sensor_kinds({"sensor_kinds": ["eeg", "mag"]}, declarations) == ("eeg", "mag")


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_truncated_file(convdip, tmp_path, keep):
    content = convdip.read_bytes()
    size = int(keep * len(content)) if isinstance(keep, float) else keep
    (tmp_path / "short.onnx").write_bytes(content[:size])
    with pytest.raises(ValueError, match=r"short.onnx: not (a readable ONNX|an ONNX model exp)"):
        open_model(tmp_path / "short.onnx")


def test_a_flipped_bit_anywhere_is_noticed(eloreta, tmp_path):
    """In the graph, in a constant, in the contract, in the digest."""
    content = bytearray(eloreta.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 200):
        content[position] ^= 1 << int(rng.integers(8))
        (tmp_path / "f.onnx").write_bytes(content)
        with pytest.raises(ValueError, match="f.onnx: "):
            open_model(tmp_path / "f.onnx")
        content = bytearray(eloreta.read_bytes())


def test_file_of_others(tmp_path):
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in "xy")
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "o.onnx")
    with pytest.raises(ValueError, match="not an ONNX model exported by deepesi"):
        open_model(tmp_path / "o.onnx")


def test_file_that_was_altered(convdip, tmp_path):
    proto = onnx.load(convdip)
    text = open_model(convdip).contract.to_json()
    content = json.loads(text)
    mean, std = ({"name": f"dipole_{kind}", "kind": kind} for kind in ("mean", "std"))
    for value, message in (
        ("{", "metadata is not JSON"),
        ("[" * 100_000, "metadata is not JSON"),
        ("{}", "contract has version None"),
        *(
            (
                text.replace('"contract_version": 5', f'"contract_version": {version}'),
                f"contract has version {version}, this deepesi reads 5. Export it again with this",
            )
            for version in (3, 4, 9)
        ),
        (
            text.replace('"montages"', '"mountains"'),
            "does not have the expected form.*'montages' is a",
        ),
        (json.dumps(content | {"trained": {"sfreq": "fast"}}), "expected form.*trained"),
        (json.dumps(content | {"data": content["data"] | {"kinds": {}}}), r"expected form \(data"),
        (text.replace('"height": 12', '"height": 11'), "its inputs .* are not those its contract"),
        (
            json.dumps(content | {"outputs": [mean, std]}),
            "its outputs .* are not those its contrac",
        ),
        (json.dumps(content | {"outputs": [std]}), r"expected form \(outputs"),
        (json.dumps(content | {"outputs": [mean, mean]}), r"expected form \(outputs"),
        (json.dumps(content | {"noise": [16]}), "its inputs .* are not those its contract"),
        (json.dumps(content | {"vertices": [[1, 2], [3]]}), "source space .* are not those"),
        (json.dumps(content | {"vertices": [[9.2e18]]}), "expected form.*vertices"),
        (json.dumps(content | {"space_fingerprint": "0" * 16}), "source space .* are not those"),
    ):
        signed(proto, value, tmp_path / "a.onnx")
        with pytest.raises(ValueError, match=message):
            open_model(tmp_path / "a.onnx")


def test_contract_of_another_file(convdip, eloreta, tmp_path):
    """Swapped as they are: the digest is of both."""
    proto = onnx.load(convdip)
    onnx.helper.set_model_props(proto, metadata(eloreta.read_bytes()))
    onnx.save(proto, tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="not the file that was written"):
        open_model(tmp_path / "a.onnx")


@pytest.mark.parametrize("place", ["../secret.bin", "{absolute}", "link.bin"])
def test_external_data_outside_the_folder_are_refused(convdip, tmp_path, place):
    """Above, at an absolute path, through a link; within the folder they are read."""
    folder = tmp_path / "model"
    folder.mkdir()
    proto = onnx.load(convdip)
    tensor = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    for file in (tmp_path / "secret.bin", folder / "inside.bin"):
        file.write_bytes(tensor.raw_data)
    (folder / "link.bin").symlink_to("../secret.bin")
    text = open_model(convdip).contract.to_json()

    def refer_to(location: str) -> None:
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        proto.ClearField("metadata_props")
        found = digest(proto.SerializeToString(), text)
        onnx.helper.set_model_props(proto, {METADATA_KEY: text, DIGEST_KEY: found})
        (folder / "m.onnx").write_bytes(proto.SerializeToString())

    tensor_data = tensor.raw_data
    refer_to(place.format(absolute=tmp_path / "secret.bin"))
    with pytest.raises(ValueError, match=r"m\.onnx: ONNX Runtime cannot compute it .*xternal data"):
        open_model(folder / "m.onnx")
    tensor.raw_data = tensor_data
    refer_to("inside.bin")
    assert open_model(folder / "m.onnx").contract == open_model(convdip).contract


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_model(tmp_path / "none.onnx")


def test_many_threads_share_a_session(convdip, evoked):
    """Sixteen at once, each with its own frame, find what one finds alone."""
    inverse = Inverse.load(convdip).for_recording(evoked.info, make_covariance(evoked.info), nave=4)
    frames = [evoked.data[:, i : i + 1] * (i + 1) for i in range(16)]
    alone = [inverse.estimate(frame)[0] for frame in frames]
    start = threading.Barrier(16)

    def work(number: int) -> list[np.ndarray]:
        start.wait()
        return [inverse.estimate(frames[(number + i) % 16])[0] for i in range(16)]

    with ThreadPoolExecutor(16) as pool:
        for number, found in enumerate(pool.map(work, range(16))):
            for i, estimate in enumerate(found):
                assert np.array_equal(estimate, alone[(number + i) % 16])


def test_deviations_that_are_not_finite_are_refused(toy, tmp_path):
    """However good the means are."""
    model = Tempered(ConvDip(84, height=6, width=6, hidden=8, heteroscedastic=True))
    model.temperature.fill_(np.nan)
    with pytest.raises(ValueError, match="gives NaN or infinite values for one source in the noi"):
        export_onnx(model, toy.montage_head("biosemi16"), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
