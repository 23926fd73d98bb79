"""What a release on App Service does when Azure, the network or the process itself fails in the middle."""

from collections.abc import Iterator

import pytest

from infra.azure.endpoint.app_service.endpoint import AppServiceEndpoint
from infra.azure.endpoint.app_service.web_app import SLOT
from infra.errors import AccessDenied, CandidateFailed, ConfigurationError, Conflict, NoCredentials, ServiceUnavailable
from tests.support.azure.endpoints import Served, azure_endpoint
from tests.support.azure.fixtures import forget_clients
from tests.support.local_endpoint import eventually

pytestmark = pytest.mark.azure

SLOT_CONFIG = "slots/candidate/config/web$"
RELEASED = "PUT .*released.json"


@pytest.fixture(scope="module")
def provisioned(bench_process, tmp_path_factory) -> Iterator[Served]:
    bench_process.reset()
    forget_clients()
    with azure_endpoint(bench_process, tmp_path_factory.mktemp("app"), endpoint="app-service") as served:
        yield served


@pytest.fixture
def served(provisioned) -> Iterator[Served]:
    """A web app; tests go on from whatever is live in it."""
    provisioned.bench.admin("calls", method="DELETE")
    yield provisioned
    provisioned.bench.clear_faults()
    provisioned.bench.assert_clean()


def swaps(served) -> int:
    return sum(call["status"] == 202 for call in served.bench.calls(url="slotsswap"))


def test_the_slot_runs_the_pinned_image_with_settings_that_move_with_the_version(served):
    bundle, model = served.bundle(1)
    candidate = served.endpoint.deploy(bundle, model)
    call = next(call for call in served.bench.calls(url="slots/candidate/config/web") if call["method"] == "PATCH")
    config = call["body"]["properties"]
    [digest] = served.world.registry.digests("scoring")
    assert config["linuxFxVersion"] == f"DOCKER|crahcplatform.azurecr.io/scoring@{digest}"
    assert config["acrUseManagedIdentityCreds"]
    assert config["acrUserManagedIdentityID"]
    assert config["healthCheckPath"] == "/health/ready"
    settings = {item["name"]: item["value"] for item in config["appSettings"]}
    assert settings["AHC_CONTAINER_MODEL_DIGEST"] == model.digest
    assert settings["WEBSITE_SWAP_WARMUP_PING_PATH"] == "/health/ready"
    assert served.key.get_secret_value() not in str(settings)
    served.endpoint.switch(candidate)
    assert served.endpoint._app.place("").settings["AHC_CONTAINER_MODEL_DIGEST"] == model.digest
    # A setting that stayed with the slot would make the swap restart what was warm.
    assert served.bench.calls(url="slotConfigNames") == []


def test_a_release_outlasts_throttling_errors_and_cut_connections(served):
    served.bench.fault("throttle", method="PATCH", path=SLOT_CONFIG)
    served.bench.fault(method="PATCH", path=SLOT_CONFIG, status=500)
    served.bench.fault(method="PATCH", path=SLOT_CONFIG, reset=True)
    served.bench.fault("throttle", path="slotsswap")
    served.bench.fault("slow", path="slotsswap", delay=1, times=1)
    assert served.release(2).version == 2
    assert served.answering() == 2
    assert swaps(served) == 1


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"preset": "conflict"}, Conflict),
        ({"preset": "forbidden"}, AccessDenied),
        ({"preset": "throttle", "headers": {"Retry-After": "0"}}, ServiceUnavailable),
        ({"status": 500}, ServiceUnavailable),
        ({"reset": True}, ServiceUnavailable),
        ({"status": 401, "body": {"error": {"code": "ExpiredAuthenticationToken", "message": "old"}}}, NoCredentials),
    ],
    ids=["conflict", "forbidden", "throttled", "500", "reset", "expired-token"],
)
def test_a_candidate_that_azure_refuses_changes_nothing(served, rule, error):
    before = served.endpoint.status()
    served.bench.fault(**{"method": "PATCH", "path": SLOT_CONFIG, "times": -1, **rule})
    with pytest.raises(error):
        served.endpoint.deploy(*served.bundle(3))
    assert served.endpoint.status() == before


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"preset": "lro-failed"}, ServiceUnavailable),
        ({"preset": "conflict", "times": -1}, Conflict),
        ({"preset": "forbidden", "times": -1}, AccessDenied),
    ],
    ids=["failed-late", "conflict", "forbidden"],
)
def test_a_swap_that_fails_leaves_the_live_version_and_can_be_repeated(served, rule, error):
    live = served.endpoint.status().live
    bundle, model = served.bundle(4 if live is None or live.version != 4 else 5)
    candidate = served.endpoint.deploy(bundle, model)
    served.bench.fault(path="slotsswap", **rule)
    with pytest.raises(error):
        served.endpoint.switch(candidate)
    assert served.endpoint.status().live == live
    served.bench.clear_faults()
    served.endpoint.switch(candidate)
    assert served.endpoint.status().live == model
    assert served.endpoint.status().previous == live


def test_a_deploy_that_was_killed_goes_on_with_what_the_slot_runs(served):
    bundle, model = served.bundle(6)
    served.killed("deploy", "PATCH .*config/web", bundle=str(bundle), model=model.model_dump())
    handle = served.endpoint._app.place(SLOT).handle
    assert served.endpoint.deploy(bundle, model).handle == handle
    calls = served.bench.calls(url="slots/candidate/config/web")
    assert sum(call["method"] == "PATCH" for call in calls) == 1


def test_a_switch_and_a_rollback_that_were_killed_are_finished_by_their_repetition(served):
    served.release(7)
    for version, at, before in [(8, "POST .*slotsswap", True), (7, RELEASED, True), (8, RELEASED, False)]:
        candidate = served.endpoint.deploy(*served.bundle(version))
        served.killed("switch", at, before=before, candidate=candidate.model_dump())
        assert served.endpoint.switch(candidate).version == version, at
        status = served.endpoint.status()
        assert (status.live.version, status.previous.version) == (version, 15 - version), at
    live, previous = served.endpoint.status().live, served.endpoint.status().previous
    served.killed("rollback", RELEASED, before=True)
    assert served.endpoint.rollback() == previous
    assert served.endpoint.status().previous == live
    assert served.answering() == previous.version


def test_a_candidate_that_took_the_place_of_the_previous_version_can_not_be_rolled_back_to(served):
    served.release(1)
    served.release(2)
    candidate = served.endpoint.deploy(*served.bundle(3))
    assert served.endpoint.status().previous is None
    served.endpoint.discard(candidate)
    eventually(lambda: len(served.world.running()) == 1)
    with pytest.raises(CandidateFailed):
        served.endpoint.switch(candidate)


def test_status_tells_an_outage_of_azure_and_never_raises(served):
    served.bench.fault("outage", host="management", path="sites/app-ahc-test")
    assert served.endpoint.status().state == "unhealthy"
    assert "503" in served.endpoint.status().detail


@pytest.mark.parametrize("field", [{"private": True}, {"certificate": "tls"}])
def test_what_only_container_instances_have_is_refused(served, field):
    azure = served.target.azure.model_copy(update=field)
    endpoint = AppServiceEndpoint(served.target.model_copy(update={"azure": azure}), served.settings, served.secrets)
    with pytest.raises(ConfigurationError, match="are for container instances"):
        endpoint.deploy(*served.bundle(1))
