"""Results in blob storage: what one pod made, another one with an empty AHC_HOME uses, with a real Prefect server."""

import asyncio

import pytest

from deployments.server.apply import apply
from deployments.server.result_storage import plan_result_storage
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.prefect_results import AzureResults, platform_results
from infra.errors import AccessDenied, ServiceUnavailable
from infra.local.platform.prefect_settings import prefect_environment
from infra.settings import AZURE_RESULTS
from tests.support.azure.bench import azure_settings
from tests.support.azure.pods import run_in_pod

pytestmark = pytest.mark.azure
HOST = r"blob\.core\.windows\.net"


@pytest.fixture
def pod(prefect_server, cloud, tmp_path):
    """Runs the flow in a process with an AHC_HOME of its own, as a pod has it."""
    number = 0

    def run(*arguments):
        nonlocal number
        number += 1
        settings = cloud.model_copy(update={"home": tmp_path / f"pod-{number}"})
        answer = run_in_pod(settings, prefect_server.prefect_api_url, "tests.support.azure.kept_flow", *arguments)
        assert not list((settings.home / "results").glob("*"))
        return answer

    return run


@pytest.fixture
def log(tmp_path):
    (tmp_path / "steps").touch()
    return tmp_path / "steps"


def test_another_pod_uses_a_keyed_result_again(pod, log, tmp_path):
    first = pod("run", 21, log, tmp_path / "sound")
    second = pod("run", 21, log, tmp_path / "sound")
    assert (first["state"], first["value"]) == ("Completed", 430)
    assert (second["state"], second["value"]) == ("Completed", 430)
    assert log.read_text().split() == ["keyed", "once", "last", "once", "last"]


def test_a_rerun_in_another_pod_repeats_only_what_failed(pod, log, tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    failed = pod("run", 4, log, broken)
    assert failed["state"] == "ConfigurationError"
    broken.unlink()
    again = pod("rerun", failed["run"])
    assert (again["state"], again["value"], again["run"]) == ("Completed", 90, failed["run"])
    assert log.read_text().split() == ["keyed", "once", "last", "last"]


def test_a_run_before_anything_is_provisioned_keeps_its_results_on_this_machine(prefect_server, bench, log, tmp_path):
    settings = azure_settings(tmp_path / "first")
    arguments = ("tests.support.azure.kept_flow", "run", 1, log, tmp_path / "sound")
    assert run_in_pod(settings, prefect_server.prefect_api_url, *arguments)["state"] == "Completed"
    assert list((settings.home / "results").glob("keyed-*"))


def test_the_server_learns_once_where_results_are(prefect_server, cloud):
    from prefect.client.orchestration import get_client

    async def changes(settings):
        async with get_client() as client:
            planned = await plan_result_storage(client, settings)
            await apply(planned)
            return planned

    other = cloud.model_copy(update={"backend": "local"})
    asyncio.run(changes(cloud))
    assert asyncio.run(changes(cloud)) == ()
    assert asyncio.run(changes(other)) == ()
    assert prefect_environment(cloud)["PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK"] == AZURE_RESULTS
    assert "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK" not in prefect_environment(other)
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name(*reversed(AZURE_RESULTS.split("/")))
    assert document.data == {"account": "stahcplatform", "container": "results"}


@pytest.fixture
def results(bench, cloud):
    return platform_results(cloud)


def test_a_result_is_written_again_and_read(results):
    results.write_path("key-1", b"one")
    results.write_path("key-1", b"two")
    assert results.read_path("key-1") == b"two"
    assert asyncio.run(results.aread_path("key-1")) == b"two"


def test_the_block_holds_no_secret(results):
    assert set(AzureResults.model_fields) == {"account", "container"}


def test_a_store_that_falters_is_asked_again(bench, results):
    bench.fault(host=HOST, method="PUT", reset="after")
    results.write_path("key-1", b"one")
    bench.fault(host=HOST, method="GET", status=503)
    assert results.read_path("key-1") == b"one"
    assert blob_service("stahcplatform").get_blob_client("results", "key-1").exists()


def test_an_outage_is_transient_and_a_refusal_is_not(bench, results, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault("outage", host=HOST)
    with pytest.raises(ServiceUnavailable, match="writing the result key-1"):
        results.write_path("key-1", b"one")
    bench.clear_faults()
    bench.fault("forbidden", host=HOST)
    with pytest.raises(AccessDenied, match="writing the result key-1"):
        results.write_path("key-1", b"one")
