"""What a release on Container Instances does when Azure, the network or the process itself fails in the middle."""

import threading
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from infra.config.environments import endpoint_key
from infra.errors import (
    AccessDenied,
    CandidateFailed,
    Conflict,
    EndpointUnreachable,
    NoCredentials,
    QuotaExceeded,
    ServiceUnavailable,
)
from infra.releases.scoring_client import ScoringClient
from tests.support.azure.endpoints import Served, azure_endpoint
from tests.support.azure.fixtures import forget_clients
from tests.support.local_endpoint import eventually

pytestmark = pytest.mark.azure

GROUP = "containerGroups/ci-ahc-test-"


@pytest.fixture(scope="module")
def provisioned(bench_process, tmp_path_factory) -> Iterator[Served]:
    bench_process.reset()
    forget_clients()
    with azure_endpoint(bench_process, tmp_path_factory.mktemp("aci")) as served:
        yield served


@pytest.fixture
def served(provisioned) -> Iterator[Served]:
    """A provisioned environment in which nothing was released."""
    provisioned.empty()
    provisioned.bench.admin("calls", method="DELETE")
    yield provisioned
    provisioned.bench.clear_faults()
    provisioned.bench.assert_clean()


def roles(served) -> dict[str, tuple[str, int]]:
    """Role and version of each container group there is."""
    groups = served.state("containerGroups")
    return {
        name.rpartition("-")[2]: (item["tags"]["ahc-role"], int(item["tags"]["ahc-version"]))
        for name, item in groups.items()
    }


def writes(served, url: str) -> list[str]:
    calls = served.bench.calls(url=url)
    return [call["method"] for call in calls if call["method"] in {"PUT", "PATCH", "DELETE", "POST"}]


def test_azure_is_asked_for_the_pinned_image_an_identity_and_no_secret_in_the_open(served):
    bundle, model = served.bundle(1)
    candidate = served.endpoint.deploy(bundle, model)
    call = next(call for call in served.bench.calls(url=f"{GROUP}blue") if call["method"] == "PUT")
    group, container = call["body"], call["body"]["properties"]["containers"][0]["properties"]
    registry = "crahcplatform.azurecr.io"
    [digest] = served.world.registry.digests("scoring")
    assert container["image"] == f"{registry}/scoring@{digest}"
    identity = next(iter(group["identity"]["userAssignedIdentities"]))
    assert group["properties"]["imageRegistryCredentials"] == [{"server": registry, "identity": identity}]
    secret = {item["name"] for item in container["environmentVariables"] if "secureValue" in item}
    assert secret == {"AHC_CONTAINER_TELEMETRY"}
    assert served.key.get_secret_value() not in str(group)
    assert container["resources"]["requests"] == {"cpu": 1, "memoryInGB": 2}
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert group["properties"]["restartPolicy"] == "Always"
    assert group["properties"]["diagnostics"]["logAnalytics"]["workspaceKey"]
    tags = group["tags"]
    assert (tags["ahc-environment"], tags["ahc-model"], tags["ahc-version"]) == ("test", "colours", "1")
    assert (tags["ahc-digest"], tags["ahc-role"], tags["ahc-handle"]) == (model.digest, "candidate", candidate.handle)


def test_a_release_outlasts_throttling_errors_and_cut_connections(served):
    served.bench.fault("throttle", method="PUT", path=f"{GROUP}blue$")
    served.bench.fault(method="PUT", path=f"{GROUP}blue$", status=500)
    served.bench.fault(method="PUT", path=f"{GROUP}blue$", reset=True)
    served.bench.fault(method="PUT", path=f"{GROUP}blue$", reset="after")
    served.bench.fault("slow", method="PATCH", path=f"{GROUP}blue$", delay=1, times=1)
    served.bench.fault(method="PATCH", path=f"{GROUP}blue$", reset="after")
    served.bench.fault("throttle", method="PUT", path="trafficManagerProfiles")
    assert served.release(1).version == 1
    assert roles(served) == {"blue": ("live", 1)}
    assert served.answering() == 1


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"preset": "conflict"}, Conflict),
        ({"preset": "quota"}, QuotaExceeded),
        ({"preset": "forbidden"}, AccessDenied),
        ({"preset": "throttle", "headers": {"Retry-After": "0"}}, ServiceUnavailable),
        ({"status": 500}, ServiceUnavailable),
        ({"reset": True}, ServiceUnavailable),
        ({"status": 401, "body": {"error": {"code": "ExpiredAuthenticationToken", "message": "old"}}}, NoCredentials),
        ({"preset": "lro-failed"}, ServiceUnavailable),
        (
            {"preset": "lro-failed", "lro_error": {"code": "ContainerGroupQuotaReached", "message": "cores"}},
            QuotaExceeded,
        ),
    ],
    ids=["conflict", "quota", "forbidden", "throttled", "500", "reset", "expired-token", "failed-late", "quota-late"],
)
def test_a_candidate_that_azure_refuses_leaves_nothing_behind_and_can_be_tried_again(served, rule, error):
    served.bench.fault(**{"method": "PUT", "path": f"{GROUP}blue$", "times": -1, **rule})
    with pytest.raises(error):
        served.endpoint.deploy(*served.bundle(1))
    assert roles(served) == {}
    eventually(lambda: served.world.running() == [])


@pytest.mark.parametrize("lro_error", [None, {"code": "ContainerGroupProvisioningFailed", "message": "no image"}])
def test_an_image_that_cant_be_pulled_is_told_in_azures_words(served, lro_error):
    served.release(1)
    served.bench.fault("image-pull-failed", path=f"{GROUP}green$", lro_error=lro_error)
    with pytest.raises(
        CandidateFailed, match=r"colours v2 in ci-ahc-test-green failed\. Failed to pull image"
    ) as caught:
        served.endpoint.deploy(*served.bundle(2))
    assert caught.value.process_exit_code is None
    assert roles(served) == {"blue": ("live", 1)}
    assert served.answering() == 1


def test_a_deploy_that_was_killed_goes_on_with_the_group_that_it_made(served):
    bundle, model = served.bundle(1)
    told = {"bundle": str(bundle), "model": model.model_dump()}
    served.killed("deploy", f"PUT .*{GROUP}blue", before=True, **told)
    assert roles(served) == {}
    served.killed("deploy", f"PUT .*{GROUP}blue", **told)
    assert roles(served) == {"blue": ("candidate", 1)}
    candidate = served.endpoint.deploy(bundle, model)
    assert writes(served, f"{GROUP}blue?") == ["PUT"]
    served.endpoint.switch(candidate)
    assert roles(served) == {"blue": ("live", 1)}
    assert served.answering() == 1


def test_a_killed_deploy_of_another_version_is_replaced(served):
    bundle, model = served.bundle(1)
    served.killed("deploy", f"PUT .*{GROUP}blue", bundle=str(bundle), model=model.model_dump())
    served.release(2)
    served.endpoint.deploy(bundle, model)
    assert sorted(roles(served).values()) == [("candidate", 1), ("live", 2)]


STEPS = [
    (f"PATCH .*{GROUP}green", 1, True),
    (f"PATCH .*{GROUP}green", 1, False),
    ("PUT .*trafficManagerProfiles", 1, False),
    (f"PATCH .*{GROUP}blue", 1, False),
    (f"PATCH .*{GROUP}green", 2, False),
]
"""Each write of a switch to green: the first decides, then clients are led there, then the roles are told."""


def test_a_switch_that_is_killed_anywhere_is_finished_by_its_repetition(served):
    served.release(1)
    for at, nth, before in STEPS:
        candidate = served.endpoint.deploy(*served.bundle(2))
        served.killed("switch", at, nth=nth, before=before, candidate=candidate.model_dump())
        assert served.endpoint.switch(candidate).version == 2, at
        assert roles(served) == {"blue": ("previous", 1), "green": ("live", 2)}, at
        assert served.answering() == 2, at
        served.endpoint.rollback()
        served.endpoint._groups.delete("green")


def test_a_rollback_that_is_killed_is_finished_and_not_undone_by_its_repetition(served):
    served.release(1)
    served.release(2)
    for at, nth, before in [
        (f"PATCH .*{GROUP}blue", 1, False),
        ("PUT .*trafficManagerProfiles", 1, False),
        (f"PATCH .*{GROUP}green", 1, False),
    ]:
        served.killed("rollback", at, nth=nth, before=before)
        assert served.endpoint.rollback().version == 1, at
        assert roles(served) == {"blue": ("live", 1), "green": ("previous", 2)}, at
        assert served.endpoint.rollback().version == 2, at
    assert served.answering() == 2


def test_whoever_comes_next_finishes_a_killed_switch(served):
    served.release(1)
    candidate = served.endpoint.deploy(*served.bundle(2))
    served.killed("switch", f"PATCH .*{GROUP}green", candidate=candidate.model_dump())
    assert roles(served)["green"] == ("switching", 2)
    served.endpoint.deploy(*served.bundle(3))
    assert sorted(roles(served).values()) == [("candidate", 3), ("live", 2)]
    eventually(lambda: served.answering() == 2)


def test_a_third_version_takes_the_place_of_the_previous_one(served):
    served.release(1)
    served.release(2)
    third = served.endpoint.deploy(*served.bundle(3))
    assert served.endpoint.status().previous is None
    served.endpoint.switch(third)
    assert served.endpoint.status().previous.version == 2
    assert served.endpoint.rollback().version == 2


def test_a_live_container_that_ended_is_told_and_started_again(served):
    served.release(1)
    container = next(iter(served.world.containers.values()))
    container.process.kill()
    # Azure notices later than clients do.
    eventually(lambda: "exit code" in served.endpoint.status().detail)
    assert served.endpoint.status().state == "unhealthy"
    assert served.endpoint.start().state == "running"


def test_status_tells_an_outage_of_azure_and_never_raises(served):
    served.bench.fault("outage", path=GROUP)
    status = served.endpoint.status()
    assert (status.state, status.live) == ("unhealthy", None)
    assert "503" in status.detail


def test_rotated_keys_are_accepted_once_refresh_returns(served, monkeypatch):
    served.release(1)
    name = endpoint_key("test")
    before, after = served.secrets.get(name), SecretStr("rotated-0123456789")
    served.secrets.put(name, after)
    timer = threading.Timer(0.3, served.world.look_for_keys)
    timer.start()
    served.endpoint.refresh_keys()
    timer.join()
    url = served.endpoint.status().url
    with ScoringClient(url, after) as client:
        assert client.model().version == 1
    with ScoringClient(url, before) as stranger, pytest.raises(AccessDenied):
        stranger.model()


def test_keys_that_a_container_never_accepts_are_an_error(served, monkeypatch):
    served.release(1)
    monkeypatch.setattr("infra.azure.endpoint.environment.KEYS_SECONDS", 0.5)
    served.secrets.put(endpoint_key("test"), SecretStr("not-looked-for-0123"))
    with pytest.raises(EndpointUnreachable, match="does not accept the keys"):
        served.endpoint.refresh_keys()


def test_a_previous_version_that_once_ended_by_itself_is_rolled_back_to_where_it_serves_again(served):
    served.release(1)
    served.release(2)
    group = served.state("containerGroups")["ci-ahc-test-blue"]
    view = group["properties"]["containers"][0]["properties"]["instanceView"]
    view |= {"restartCount": 1, "previousState": {"state": "Terminated", "exitCode": 139, "detailStatus": "Error"}}
    served.bench.fault(method="GET", path=f"{GROUP}blue$", status=200, body=group, times=-1)
    assert served.endpoint.rollback().version == 1
    assert served.answering() == 1
