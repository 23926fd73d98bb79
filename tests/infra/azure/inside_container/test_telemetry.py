"""What Application Insights gets to know of a flow run and of a scoring process, and what its outage costs: nothing."""

import os
import subprocess
import sys

import pytest

from infra.azure.access.resources import platform_resources
from infra.runs.telemetry import scoring_variables
from infra.settings import PROJECT
from tests.conftest import settings_environment
from tests.model.serving.conftest import serving
from tests.support.bundles import colour_image
from tests.support.local_endpoint import eventually

pytestmark = pytest.mark.azure
INGESTION = r"(applicationinsights\.azure\.com|services\.visualstudio\.com)"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def run_flow(settings, api_url, folder, **variables):
    environment = {**os.environ, **settings_environment(settings), "PREFECT_API_URL": api_url, **variables}
    # What one test could not send is not to be sent by the next.
    environment |= {"TMPDIR": str(folder), "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false"}
    command = [sys.executable, "-m", "tests.support.azure.spans_process"]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stderr


def items(bench):
    """Name of each span that arrived -> its record's data, with its kind and trace."""
    return {
        item["record"]["data"]["baseData"]["name"]: {
            **item["record"]["data"]["baseData"],
            "type": item["type"],
            "trace": item["record"]["tags"]["ai.operation.id"],
        }
        for item in bench.telemetry()
        if item["type"] in ("RequestData", "RemoteDependencyData")
    }


def test_a_flow_run_on_azure_sends_its_spans_with_the_correlation_id(bench, cloud, prefect_server, tmp_path):
    said = run_flow(cloud, prefect_server.prefect_api_url, tmp_path, AHC_CORRELATION_ID="build-17")
    assert "telemetry exporter" not in said
    found = items(bench)
    assert {"looking", "Look"} <= set(found)
    assert found["looking"]["trace"] == found["Look"]["trace"]
    for span in (found["looking"], found["Look"]):
        assert span["properties"]["ahc.correlation_id"] == "build-17"
        assert span["properties"]["ahc.flow_run.name"] == "looking"
    # The exporter asks nobody else for anything.
    assert not bench.telemetry(type="MetricData")


@pytest.mark.parametrize("preset", ["outage", pytest.param("throttle", marks=pytest.mark.long)])
def test_application_insights_that_is_down_or_throttles_fails_no_flow(bench, cloud, prefect_server, tmp_path, preset):
    bench.fault(preset, host=INGESTION, times=-1)
    said = run_flow(cloud, prefect_server.prefect_api_url, tmp_path)
    assert said.count("The telemetry exporter azure_monitor") == 1
    assert not items(bench)


def test_a_platform_that_is_not_provisioned_yet_runs_without_telemetry_and_without_a_word(
    bench, prefect_server, tmp_path
):
    from tests.support.azure.bench import azure_settings

    said = run_flow(azure_settings(tmp_path / "home"), prefect_server.prefect_api_url, tmp_path)
    assert "telemetry" not in said


def point_at(cloud, monkeypatch, folder):
    connection = platform_resources(cloud).application_insights_connection_string
    for name, value in scoring_variables(connection, "test").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")


def score(client):
    headers = {"Content-Type": "image/png", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    return client.post("/score", content=colour_image("red"), headers=headers)


def test_a_scoring_process_sends_requests_with_the_correlation_id(bench, cloud, tmp_path, monkeypatch):
    point_at(cloud, monkeypatch, tmp_path)
    with serving(tmp_path, environment="test", correlation_id="build-17") as service, service.client() as client:
        assert score(client).status_code == 200
    found = items(bench)
    assert set(found) == {"POST /score"}
    request = found["POST /score"]
    assert request["trace"] == TRACE
    assert (request["type"], request["responseCode"], request["success"]) == ("RequestData", "200", True)
    assert request["properties"]["ahc.correlation_id"] == "build-17"
    assert request["properties"]["ahc.model.digest"] == service.bundle.digest


@pytest.mark.parametrize("preset", ["outage", pytest.param("throttle", marks=pytest.mark.long)])
def test_scoring_goes_on_while_application_insights_is_down(bench, cloud, tmp_path, monkeypatch, preset):
    point_at(cloud, monkeypatch, tmp_path)
    bench.fault(preset, host=INGESTION, times=-1)
    with serving(tmp_path) as service, service.client() as client:
        for _ in range(5):
            assert score(client).status_code == 200
        eventually(lambda: "Telemetry can't be sent" in service.log.read_text(), seconds=60)
        assert score(client).status_code == 200
    assert service.process.returncode == 0
    assert service.log.read_text().count("Telemetry can't be sent") == 1
