import subprocess
import sys
from pathlib import Path

import pytest

from infra.tracking import MlflowTracker, server_link


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


def test_opening_a_store_leaves_the_logging_of_the_process_alone(tmp_path):
    # Logging that is configured anew flushes the handlers that there are, while it holds Python's logging lock: a run
    # whose handler then waits for a thread that logs never ends.
    program = """
import logging, sys
class Handler(logging.Handler):
    def flush(self):
        flushes.append(1)
flushes, handler = [], Handler()
from infra.mlflow_client import client
client(sys.argv[1])
print(len(flushes))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path / 'mlflow.db'}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0"]
