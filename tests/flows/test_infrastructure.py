"""The infrastructure flow against the bench, recorded by a real Prefect server."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from infra.azure.access.clients import resource_client
from infra.azure.access.resources import PLATFORM
from infra.settings import get_settings
from tests.support.azure.bench import SUBSCRIPTION
from tests.support.azure.parameters import bench_parameters

pytestmark = [pytest.mark.azure, pytest.mark.timeout(900)]


@pytest.fixture
def cloud_settings(bench, prefect_server, tmp_path, monkeypatch):
    """Settings of this process: an empty cloud, with the shipped templates as far as the bench knows them."""
    parameters = bench_parameters(tmp_path / "parameters", cluster=False)
    for name, value in {
        "BACKEND": "azure",
        "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "AZURE_PARAMETERS": str(parameters),
        "HOME": str(prefect_server.home),
    }.items():
        monkeypatch.setenv(f"AHC_{name}", value)
    get_settings.cache_clear()
    yield get_settings()
    get_settings.cache_clear()


def run(**parameters: Any) -> Any:
    """The final state of a run."""
    from flows.infrastructure import infrastructure

    return infrastructure(**parameters, return_state=True)


def artifact(key: str) -> Any:
    from prefect.artifacts import Artifact

    return Artifact.get(key)


def events(name: str) -> list[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        answer = client._client.post("/events/filter", json={"filter": {"event": {"name": [name]}}})
        return list(answer.json()["events"])


def read_until(read: Callable[[], list[Any]]) -> list[Any]:
    """Events reach the server a moment after they were emitted."""
    deadline = time.monotonic() + 30
    while not (found := read()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def written(bench) -> int:
    return len(
        [call for call in bench.calls() if call["method"] in ("PUT", "DELETE") and call["host"].startswith("man")]
    )


def test_from_an_empty_subscription_to_a_platform_and_back(bench, cloud_settings):
    planned = run(mode="plan")
    assert planned.name == "Completed"
    assert written(bench) == 0
    assert "🟩 create" in artifact(f"plan-{PLATFORM}").data
    assert "a month" in artifact(f"costs-{PLATFORM}").description

    assert run(mode="provision", environment=PLATFORM).name == "Completed"
    assert artifact(f"provision-{PLATFORM}").data == 100
    assert "Microsoft.KeyVault/vaults" in artifact(f"provisioned-{PLATFORM}").data

    before = written(bench)
    assert run(mode="provision", environment=PLATFORM).result().changed is False
    assert written(bench) == before
    assert run(mode="drift").name == "Completed"

    client = resource_client(SUBSCRIPTION)
    identity = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ahc-platform/providers/"
        "Microsoft.ManagedIdentity/userAssignedIdentities/id-ahc-training"
    )
    client.resources.begin_delete_by_id(identity, "2023-01-31").result()
    drifted = run(mode="drift")
    assert (drifted.name, drifted.type.value) == ("Drifted", "COMPLETED")
    assert "platform: 1 to create" in drifted.message
    assert "id-ahc-training" in artifact(f"drift-{PLATFORM}").data
    [event] = read_until(lambda: events("ahc.infrastructure.drifted"))
    assert event["resource"]["prefect.resource.name"] == PLATFORM

    before = written(bench)
    refused = run(mode="remove", environment=PLATFORM, confirm="plattform")
    assert refused.name == "ConfigurationError"
    assert written(bench) == before
    assert run(mode="remove", environment=PLATFORM, confirm=PLATFORM).name == "Completed"
    assert not client.resource_groups.check_existence("rg-ahc-platform")


def test_a_failed_operation_fails_the_run_by_its_name_and_a_rerun_goes_on(bench, cloud_settings):
    bench.fault(
        method="PUT", path="registries/crahc", status=400, body={"error": {"code": "NameTaken", "message": "Taken."}}
    )
    failed = run(mode="provision", environment=PLATFORM)
    assert failed.name == "ProvisioningFailed"
    assert "Microsoft.ContainerRegistry/registries" in failed.message
    assert run(mode="provision", environment=PLATFORM).name == "Completed"


@pytest.mark.parametrize("mode", ["plan", "provision", "drift", "remove", "sweep"])
def test_on_one_machine_there_is_nothing_to_provision(prefect_server, mode):
    refused = run(mode=mode, environment="test", confirm="test")
    assert refused.name == "ConfigurationError"
    assert "AHC_BACKEND=azure" in refused.message


def test_what_is_to_be_provisioned_must_be_named(cloud_settings):
    refused = run(mode="provision")
    assert refused.name == "ConfigurationError"
    assert "-p environment=platform" in refused.message
