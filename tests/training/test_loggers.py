"""TensorBoard and MLflow beside ``metrics.csv``, which stays with any logger."""

import csv

import pytest

from deepesi.physics.cohort import Cohort
from deepesi.training.loggers import make_loggers
from deepesi.training.run import fit
from tests.training.toy import compose


def curves(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_tensorboard(toy, toy_path, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(compose(toy_path, tmp_path, "logger=tensorboard"), Cohort.single(toy), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "val/nemd", "samples/s"} <= set(events.Tags()["scalars"])
    shown = [event.value for event in events.Scalars("val/nemd")]
    written = [float(row["val/nemd"]) for row in curves(tmp_path) if row["val/nemd"]]
    assert shown == pytest.approx(written, rel=1e-5)


@pytest.mark.slow
def test_mlflow(toy, toy_path, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fit(compose(toy_path, tmp_path, "logger=mlflow"), Cohort.single(toy), tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'deepesi'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "toy"
    assert found.data.params["model/hidden"] == "16"
    written = [float(row["val/nemd"]) for row in curves(tmp_path) if row["val/nemd"]]
    assert found.data.metrics["val/nemd"] == pytest.approx(written[-1], rel=1e-5)


def test_package_that_is_missing_is_named(toy_path, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    config = compose(toy_path, tmp_path, "logger=mlflow")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'deepesi\[mlflow\]'"):
        make_loggers(config.logger, tmp_path)
