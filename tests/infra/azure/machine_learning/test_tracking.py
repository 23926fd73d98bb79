"""Experiments in the workspace, or on an MLflow server."""

import subprocess
import sys

import httpx
import pytest

from infra.azure.access.resources import platform_resources
from infra.azure.machine_learning.tracking import aml_tracker, studio_link
from tests.conftest import free_ports
from tests.support.azure.bench import azure_settings
from tests.support.local_endpoint import eventually

pytestmark = pytest.mark.azure


@pytest.fixture
def server(tmp_path):
    """A real MLflow server."""
    (port,) = free_ports(1)
    store = f"sqlite:///{tmp_path / 'server.db'}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--backend-store-uri", store]
    command += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(url), seconds=90)
        yield url
        process.terminate()


def _answers(url):
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_a_training_is_tracked_on_a_server_and_goes_on_there_after_a_restart(server, tmp_path):
    settings = azure_settings(tmp_path / "home", mlflow_tracking_uri=server)
    tracker = aml_tracker(settings)
    arguments = {"experiment": "food", "parameters": {"epochs": 3}, "tags": {"data_version": "abc"}}
    run = tracker.start("key", **arguments)
    tracker.log(run, {"loss": 1.0}, step=1)
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown" / "curves.txt").write_text("up")
    tracker.log_files(run, tmp_path / "shown")
    assert aml_tracker(settings).start("key", **arguments) == run
    tracker.end(run, succeeded=True)
    assert tracker.link(run).startswith(f"{server}/#/experiments/")
    found = httpx.get(f"{server}/api/2.0/mlflow/runs/get", params={"run_id": run}, trust_env=False).json()["run"]
    assert found["info"]["status"] == "FINISHED"
    assert {item["key"]: item["value"] for item in found["data"]["metrics"]} == {"loss": 1.0}
    files = httpx.get(f"{server}/api/2.0/mlflow/artifacts/list", params={"run_id": run}, trust_env=False).json()
    assert [item["path"] for item in files["files"]] == ["curves.txt"]


def test_without_a_server_the_workspace_is_the_tracker(bench, cloud):
    assert aml_tracker(cloud)._tracking_uri.startswith("azureml://")
    link = studio_link(platform_resources(cloud), "run-1")
    assert link.startswith("https://ml.azure.com/runs/run-1?wsid=/subscriptions/")
    assert link.endswith("/workspaces/mlw-ahc-platform")
