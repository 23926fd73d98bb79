"""What is read from the answers of Container Instances, and what is asked for, without waiting for containers."""

import json
from typing import Any

import pytest
from azure.mgmt.containerinstance import models

from infra.azure.access.resources import environment_resources
from infra.azure.endpoint.container_instances.definition import GroupDefinition
from infra.azure.endpoint.container_instances.groups import COLOURS, ContainerGroups, Group, Groups
from infra.azure.endpoint.container_instances.routers import dividing_router, router_of
from infra.azure.endpoint.container_log import last_words
from infra.azure.endpoint.environment import ScoringEnvironment
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import AzureTarget, Environment
from infra.errors import NotProvisioned
from infra.ports import LiveModel

MODEL = LiveModel(name="colours", version=3, digest="d" * 64)
ENDED = {"state": "Terminated", "exitCode": 16, "detailStatus": "Error"}
BACK_OFF = {"state": "Waiting", "detailStatus": "CrashLoopBackOff"}
RUNNING = {"state": "Running", "detailStatus": ""}


def group(
    view: dict[str, Any] | None, *, state: str = "Running", provisioning: str = "Succeeded", **tags: str
) -> Group:
    answer = {
        "name": "ci-ahc-test-blue",
        "tags": {f"ahc-{name}": value for name, value in tags.items()},
        "properties": {
            "provisioningState": provisioning,
            "osType": "Linux",
            "containers": [{"name": "scoring", "properties": {"image": "i", "instanceView": view}}],
            "instanceView": {"state": state},
        },
    }
    return Group.of(models.ContainerGroup.deserialize(answer), "blue")


def failed_pull(count: int) -> dict[str, Any]:
    event = {"name": "Failed", "type": "Warning", "count": count, "message": 'Failed to pull image "x": denied'}
    return {"restartCount": 0, "currentState": {"state": "Waiting"}, "events": [event]}


@pytest.mark.parametrize(
    ("view", "gave_up", "exit_code"),
    [
        (None, False, None),
        ({"restartCount": 0, "currentState": RUNNING}, False, None),
        ({"restartCount": 0, "currentState": ENDED}, True, 16),
        # Azure has started it again already.
        ({"restartCount": 1, "currentState": BACK_OFF, "previousState": ENDED}, True, 16),
        ({"restartCount": 1, "currentState": RUNNING, "previousState": ENDED}, True, 16),
        # What passes is waited for, but not for ever.
        ({"restartCount": 1, "currentState": BACK_OFF, "previousState": {**ENDED, "exitCode": 36}}, False, 36),
        ({"restartCount": 3, "currentState": BACK_OFF, "previousState": {**ENDED, "exitCode": 36}}, True, 36),
        # After a stop and a start, what ended before was stopped.
        ({"restartCount": 0, "currentState": RUNNING, "previousState": {**ENDED, "exitCode": 137}}, False, None),
        (failed_pull(1), False, None),
        (failed_pull(3), True, None),
    ],
)
def test_waiting_ends_where_it_can_not_help(view, gave_up, exit_code):
    found = group(view)
    assert (found.gave_up, found.exit_code) == (gave_up, exit_code)


def test_one_failed_pull_is_final_once_the_group_has_failed():
    assert group(failed_pull(1), provisioning="Failed").gave_up


def test_the_one_that_was_switched_to_last_is_live_until_its_switch_is_finished():
    blue = group(None, role="live", order="4", handle="b")
    green = group(None, role="switching", order="5", handle="g").model_copy(update={"colour": "green"})
    groups = Groups(groups=(blue, green))
    assert (groups.live, groups.previous, groups.candidate) == (green, blue, None)
    assert groups.unfinished
    assert groups.next_order() == 6
    assert groups.idle_colour() == "blue"


def test_a_group_that_someone_else_made_is_a_candidate_that_may_be_replaced():
    groups = Groups(groups=(group(None),))
    assert groups.live is None
    assert groups.candidate.handle == ""


def lines(*entries: dict[str, Any]) -> list[str]:
    return [json.dumps({"time": "2026-11-24T10:00:00+00:00", "level": "error", **entry}) for entry in entries]


def test_the_log_tells_the_cause_and_not_its_echo():
    words = last_words(
        lines(
            {"message": "model.onnx has other bytes", "error": "BundleCorrupt", "exit_code": 16},
            {"message": "The scoring process ended by itself.", "exit_code": 16},
        )
    )
    assert (words.message, words.exit_code) == ("BundleCorrupt: model.onnx has other bytes", 16)


def test_a_log_without_an_error_is_quoted():
    assert last_words(["starting", "Segmentation fault"]).message == "starting | Segmentation fault"


def scoring_environment(settings, **azure: Any) -> ScoringEnvironment:
    target = Environment(name="test", description="For tests.", port_offset=0, azure=AzureTarget(**azure))
    return ScoringEnvironment(target, settings, KeyVaultSecrets("test", settings))


@pytest.mark.azure
def test_a_private_group_with_a_certificate_is_what_azure_accepts(bench, cloud):
    place = scoring_environment(cloud, private=True, certificate="tls", cpu=2, memory_gb=4)
    resources = environment_resources(place.environment, cloud)
    definition = GroupDefinition(
        image="crahcplatform.azurecr.io/scoring@sha256:" + "0" * 64,
        registry="crahcplatform.azurecr.io",
        config=place.config(MODEL, bundle_url="https://x"),
        target=place.environment.azure,
        resources=resources,
    )
    groups = ContainerGroups(resources.subscription_id, resources.resource_group, "ci-ahc-test")
    groups.create("blue", definition, "label", {"ahc-role": "candidate"}).result()
    sent = next(call for call in bench.calls(url="containerGroups/ci-ahc-test-blue") if call["method"] == "PUT")
    properties = sent["body"]["properties"]
    assert properties["subnetIds"] == [{"id": resources.endpoint_subnet_id}]
    assert properties["ipAddress"] == {"type": "Private", "ports": [{"protocol": "TCP", "port": 8080}]} | {
        "autoGeneratedDomainNameLabelScope": "Unsecure"
    }
    assert "volumes" not in properties
    container = properties["containers"][0]["properties"]
    assert {"name": "AHC_CONTAINER_CERTIFICATE", "value": "tls"} in container["environmentVariables"]
    assert container["readinessProbe"]["httpGet"]["scheme"] == "https"
    assert router_of(place).url == "https://scoring.test.ahc.internal:8080"


@pytest.mark.azure
def test_names_of_a_private_endpoint_are_read_again_after_ten_seconds(bench, cloud):
    router = router_of(scoring_environment(cloud, private=True))
    live = group(None).model_copy(update={"ip": "10.0.0.7"})
    router.announce(live)
    router.lead_to(live)
    records = {
        key.partition("/test.ahc.internal/")[2]: item["properties"]
        for key, item in bench.admin("state").items()
        if "/test.ahc.internal/" in key
    }
    assert records == {
        "a/scoring-blue": {"ttl": 10, "aRecords": [{"ipv4Address": "10.0.0.7"}]},
        "cname/scoring": {"ttl": 10, "cnameRecord": {"cname": "scoring-blue.test.ahc.internal"}},
    }


@pytest.mark.azure
def test_the_traffic_manager_profile_fits_azures_schema(bench, cloud):
    router = dividing_router(scoring_environment(cloud))
    live, candidate = (
        group(None).model_copy(update={"colour": colour, "fqdn": f"{colour}.westeurope.azurecontainer.io"})
        for colour in COLOURS
    )
    router.lead_to(live)
    router.divide(live, candidate, 0.0001)
    sent = [call["body"] for call in bench.calls(url="trafficManagerProfiles/") if call["method"] == "PUT"]
    weights = [[item["properties"]["weight"] for item in body["properties"]["endpoints"]] for body in sent]
    assert weights == [[1000], [999, 1]]
    # The bench has no specification of Traffic Manager; the packed ARM schema is of the next API version.
    from azure_bench.template_check import check_template

    template = {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": [
            {
                "type": "Microsoft.Network/trafficmanagerprofiles",
                "apiVersion": "2022-04-01",
                "name": f"traf-ahc-test-{number}",
                **body,
            }
            for number, body in enumerate(sent)
        ],
    }
    assert check_template(template) == []
    assert router.url.endswith(".trafficmanager.net:8080")


@pytest.mark.azure
def test_a_private_environment_without_its_network_is_told_so(cloud, monkeypatch):
    place = scoring_environment(cloud, private=True)
    without = place.resources.model_copy(update={"dns_zone": ""})
    monkeypatch.setattr(ScoringEnvironment, "resources", without)
    with pytest.raises(NotProvisioned, match="has no subnet and DNS zone"):
        router_of(place)
