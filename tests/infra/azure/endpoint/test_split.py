"""A candidate with a share of the clients: what each kind of endpoint on Azure is asked for, and how it ends.

The processes behind the bench's names are divided as the weights and rules say (`tests/support/azure/divided_name.py`).
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from infra.errors import AccessDenied, CandidateFailed, ConfigurationError, Conflict, PlatformError, ServiceUnavailable
from infra.ports import Candidate
from infra.releases.scoring_client import ScoringClient
from tests.support.azure.constant_load import ConstantLoad
from tests.support.azure.endpoints import Served, azure_endpoint
from tests.support.azure.fixtures import forget_clients
from tests.support.local_endpoint import eventually

pytestmark = pytest.mark.azure

WRITES = {
    "container-instances": ("PATCH", "containerGroups/ci-ahc-test-(blue|green)$", "PUT", "trafficManagerProfiles"),
    "app-service": ("PATCH", "sites/app-ahc-test/config/web$"),
}
"""Method and path of each write of a split, in this order."""


@pytest.fixture(scope="module", params=["container-instances", pytest.param("app-service", marks=pytest.mark.long)])
def provisioned(request, bench_process, tmp_path_factory) -> Iterator[Served]:
    bench_process.reset()
    forget_clients()
    with azure_endpoint(bench_process, tmp_path_factory.mktemp("split"), endpoint=request.param) as served:
        served.release(1)
        yield served


@pytest.fixture
def served(provisioned, monkeypatch) -> Iterator[Served]:
    """An endpoint where some version is live and all clients are its own."""
    monkeypatch.setattr("infra.azure.endpoint.container_instances.traffic.DRAIN_SECONDS", 0.1)
    monkeypatch.setattr("infra.azure.endpoint.app_service.endpoint.DRAIN_SECONDS", 0.1)
    provisioned.bench.admin("calls", method="DELETE")
    yield provisioned
    provisioned.bench.clear_faults()
    provisioned.bench.assert_clean()


def live(served: Served) -> int:
    version = served.endpoint.status().live.version
    return int(version)


def beside(served: Served) -> tuple[Candidate, int, int]:
    """A candidate beside the live version, and the numbers of both."""
    before = live(served)
    candidate = served.endpoint.deploy(*served.bundle(before % 3 + 1))
    return candidate, before, candidate.model.version


def writes(served: Served) -> list[tuple[str, str]]:
    given = WRITES[served.target.azure.endpoint]
    return list(zip(given[::2], given[1::2], strict=True))


def divided(served: Served, before: int, after: int) -> bool:
    return served.answers(10) == {before: 8, after: 2}


def all_live(served: Served, version: int) -> bool:
    return set(served.answers(10)) == {version}


# Before the tests on `provisioned`, whose cloud this one empties.
def test_a_private_endpoint_says_that_it_cant_divide_and_what_to_do(bench, tmp_path):
    with azure_endpoint(bench, tmp_path, private=True) as served:
        served.release(1)
        candidate = served.endpoint.deploy(*served.bundle(2))
        with pytest.raises(ConfigurationError, match=r"gates\.canary") as caught:
            served.endpoint.split(candidate, 0.1)
        assert "azure.private: false" in caught.value.next_step
        served.endpoint.split(candidate, 0)
        assert served.endpoint.switch(candidate).version == 2


def test_a_share_of_the_requests_is_answered_by_the_candidate_until_it_is_taken_away(served):
    candidate, before, after = beside(served)
    assert all_live(served, before)
    served.endpoint.split(candidate, 0.2)
    eventually(lambda: divided(served, before, after))
    served.endpoint.split(candidate, 0)
    eventually(lambda: all_live(served, before))
    with ScoringClient(candidate.url, served.key) as client:
        assert client.model() == candidate.model


def test_azure_is_asked_for_the_share(served):
    candidate, _, _ = beside(served)
    served.endpoint.split(candidate, 0.05)
    if served.target.azure.endpoint == "app-service":
        [call] = [call for call in served.bench.calls(url="app-ahc-test/config/web") if call["method"] == "PATCH"]
        [rule] = call["body"]["properties"]["experiments"]["rampUpRules"]
        assert rule == {
            "name": "candidate",
            "actionHostName": "app-ahc-test-candidate.azurewebsites.net",
            "reroutePercentage": 5,
        }
        assert set(call["body"]["properties"]) == {"experiments"}
    else:
        call = [call for call in served.bench.calls(url="trafficManagerProfiles") if call["method"] == "PUT"][-1]
        endpoints = [item["properties"] for item in call["body"]["properties"]["endpoints"]]
        assert [item["weight"] for item in endpoints] == [950, 50]
        assert endpoints[1]["target"] in candidate.url
    served.endpoint.discard(candidate)


def test_status_and_versions_tell_both_apart_while_clients_are_divided(served):
    candidate, before, after = beside(served)
    served.endpoint.split(candidate, 0.5)
    eventually(lambda: set(served.answers(10)) == {before, after})
    assert {live(served) for _ in range(6)} == {before}
    versions = {item.role: item for item in served.endpoint.versions()}
    assert {role: item.model.version for role, item in versions.items()} == {"live": before, "candidate": after}
    for item in versions.values():
        for _ in range(4):
            with ScoringClient(item.url, served.key, cookie=item.cookie) as client:
                assert client.model() == item.model
            metrics = httpx.get(f"{item.url}/metrics", headers={"Cookie": item.cookie}).text
            assert f'digest="{item.model.digest}"' in metrics


def test_the_version_before_is_told_as_well(served):
    candidate, before, after = beside(served)
    served.endpoint.switch(candidate)
    versions = {item.role: item.model.version for item in served.endpoint.versions()}
    assert versions == {"live": after, "previous": before}


@pytest.mark.parametrize("end", ["switch", "discard", "deploy"])
def test_a_split_that_nobody_ended_ends_with_the_next_change(served, end):
    candidate, before, after = beside(served)
    served.endpoint.split(candidate, 0.2)
    eventually(lambda: divided(served, before, after))
    if end == "deploy":
        served.endpoint.deploy(*served.bundle(after))
    else:
        getattr(served.endpoint, end)(candidate)
    remains = after if end == "switch" else before
    eventually(lambda: all_live(served, remains))
    assert all_live(served, remains)


def test_no_request_is_lost_from_the_split_to_the_switch_or_the_discard(served, monkeypatch):
    # The names behind the bench are led elsewhere within a second.
    monkeypatch.setattr("infra.azure.endpoint.container_instances.traffic.DRAIN_SECONDS", 3)
    monkeypatch.setattr("infra.azure.endpoint.app_service.endpoint.DRAIN_SECONDS", 3)
    with ConstantLoad(served.endpoint.status().url, served.key) as load:
        for end in ("switch", "discard"):
            candidate, before, after = beside(served)
            served.endpoint.split(candidate, 0.2)
            eventually(lambda before=before, after=after: divided(served, before, after))
            getattr(served.endpoint, end)(candidate)
    assert load.lost == []
    assert len(load.versions) > 1


def test_a_share_for_a_candidate_that_is_gone_is_refused(served):
    candidate, before, _ = beside(served)
    served.endpoint.discard(candidate)
    with pytest.raises(CandidateFailed, match="is gone"):
        served.endpoint.split(candidate, 0.1)
    assert all_live(served, before)


def test_a_split_outlasts_throttling_errors_and_cut_connections(served):
    candidate, before, after = beside(served)
    for method, path in writes(served):
        for rule in ({"preset": "throttle"}, {"status": 500}, {"reset": True}, {"reset": "after"}):
            served.bench.fault(**{"method": method, "path": path, "times": 1, **rule})
    served.endpoint.split(candidate, 0.2)
    eventually(lambda: divided(served, before, after))
    served.bench.clear_faults()
    served.endpoint.discard(candidate)


FAULTS: list[tuple[dict[str, Any], type[PlatformError]]] = [
    ({"preset": "conflict"}, Conflict),
    ({"preset": "forbidden"}, AccessDenied),
    ({"preset": "throttle", "headers": {"Retry-After": "0"}}, ServiceUnavailable),
    ({"status": 500}, ServiceUnavailable),
    ({"reset": True}, ServiceUnavailable),
]


@pytest.mark.parametrize("operation", ["split", "switch", pytest.param("discard", marks=pytest.mark.long)])
def test_a_fault_in_the_middle_is_an_error_and_the_repetition_finishes_it(served, operation):
    candidate, before, after = beside(served)
    arguments = (candidate, 0.2) if operation == "split" else (candidate,)
    if operation != "split":
        served.endpoint.split(candidate, 0.2)
    method, path = writes(served)[-1]
    for fault, error in FAULTS:
        served.bench.fault(**{"method": method, "path": path, "times": -1, **fault})
        with pytest.raises(error):
            getattr(served.endpoint, operation)(*arguments)
        served.bench.clear_faults()
    getattr(served.endpoint, operation)(*arguments)
    if operation == "split":
        eventually(lambda: divided(served, before, after))
        served.endpoint.discard(candidate)
    remains = after if operation == "switch" else before
    eventually(lambda: all_live(served, remains))
    assert live(served) == remains


@pytest.mark.parametrize("operation", ["split", pytest.param("discard", marks=pytest.mark.long)])
def test_whoever_comes_after_one_that_was_killed_gives_all_clients_back(served, operation):
    for method, path in writes(served):
        candidate, before, after = beside(served)
        told: dict[str, Any] = {"candidate": candidate.model_dump()}
        if operation == "split":
            told["share"] = 0.2
        else:
            served.endpoint.split(candidate, 0.2)
        served.killed(operation, f"{method} .*{path.rstrip('$')}", **told)
        # What the rerun of a release does: deploy finds the candidate of before.
        again = served.endpoint.deploy(*served.bundle(after))
        eventually(lambda before=before: all_live(served, before))
        served.endpoint.split(again, 0.2)
        eventually(lambda before=before, after=after: divided(served, before, after))
        served.endpoint.discard(again)
        eventually(lambda before=before: all_live(served, before))
