import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.settings import PROJECT
from infra.stores.mlflow_tracking import MlflowTracker, server_link


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    home = tmp_path_factory.mktemp("tracking")
    link = server_link("http://127.0.0.1:5000")
    return MlflowTracker(f"sqlite:///{home / 'mlflow.db'}", link, artifacts=home / "artifacts")


def start(tracker, key):
    return tracker.start(key, experiment="food", parameters={"epochs": 3}, tags={"data_version": "abc"})


def test_a_resumed_training_goes_on_in_its_own_run(tracker):
    run = start(tracker, "key-1")
    tracker.log(run, {"loss": 1.0}, step=1)
    assert start(tracker, "key-1") == run
    assert start(tracker, "key-2") != run


def test_metrics_keep_their_steps(tracker):
    run = start(tracker, "key-3")
    for epoch, loss in enumerate([3.0, 2.0, 1.0]):
        tracker.log(run, {"loss": loss}, step=epoch)
    history = tracker._client.get_metric_history(run, "loss")
    assert [(item.step, item.value) for item in history] == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_files_and_the_end_are_kept(tracker, tmp_path):
    run = start(tracker, "key-4")
    (tmp_path / "curves.txt").write_text("up")
    tracker.log_files(run, tmp_path)
    tracker.end(run, succeeded=False)
    found = tracker._client.get_run(run)
    assert found.info.status == "FAILED"
    assert found.data.params["epochs"] == "3"
    assert Path(found.info.artifact_uri.removeprefix("file://"), "curves.txt").read_text() == "up"


def test_the_link_names_experiment_and_run(tracker):
    run = start(tracker, "key-5")
    assert tracker.link(run).startswith("http://127.0.0.1:5000/#/experiments/")
    assert tracker.link(run).endswith(f"/runs/{run}")


def test_logging_stays_as_it_was_when_mlflow_is_loaded(tmp_path):
    """Where MLflow configures it anew while Prefect's threads log, both wait for each other for ever."""
    code = (
        "import logging.config, pathlib, sys\n"
        "logging.config.dictConfig = lambda _: sys.exit('logging was configured anew')\n"
        "from infra.errors import ModelNotFound\n"
        "from infra.local.stores.registry import MlflowRegistry\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "try: MlflowRegistry(f'sqlite:///{folder}/mlflow.db', folder).get('food', 1)\n"
        "except ModelNotFound: print('loaded', 'mlflow' in sys.modules)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.stdout == "loaded True\n", done.stderr
