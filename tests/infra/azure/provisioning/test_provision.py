"""Plan and provision against the bench, faults included."""

import os
import subprocess
import sys
import time
from itertools import pairwise

import pytest

from infra.azure.access.clients import resource_client
from infra.azure.access.resources import PLATFORM, platform_resources
from infra.azure.provisioning.deployments import Operation, is_running, state_of
from infra.azure.provisioning.provision import plan, provision, target_of
from infra.errors import (
    AccessDenied,
    Conflict,
    NoCredentials,
    NotProvisioned,
    ProvisioningFailed,
    QuotaExceeded,
    ServiceUnavailable,
)
from infra.settings import PROJECT, Settings
from tests.support.azure.bench import SUBSCRIPTION, azure_settings, calls
from tests.support.azure.small_platform import LOCATION, composed

pytestmark = pytest.mark.azure


@pytest.fixture
def settings(bench, tmp_path) -> Settings:
    return azure_settings(tmp_path)


class Listener:
    """Hears of operations, as a task does."""

    def __init__(self) -> None:
        self.heard: list[tuple[Operation, int, int]] = []

    def __call__(self, operation: Operation, done: int, total: int) -> None:
        self.heard.append((operation, done, total))


def deploy(settings, name=PLATFORM, template=None, told=None):
    template = template or composed(name)
    return provision(name, template, settings, tell=told or Listener(), poll_seconds=0.01)


def written(bench) -> list[str]:
    """What was written into the cloud: every request that changes something."""
    return [
        call["url"]
        for call in bench.calls()
        if call["method"] in ("PUT", "PATCH", "DELETE") and "management.azure.com" in call["host"]
    ]


def one_identity():
    """A template that is deployed quickly."""
    whole = composed(PLATFORM)
    resources = [item for item in whole.template["resources"] if "userAssignedIdentities" in item["type"]]
    return whole.model_copy(update={"template": {**whole.template, "resources": resources, "outputs": {}}})


def changed(template, change):
    """The template with one resource changed."""
    content = template.template
    resources = [{**item, **change(item)} for item in content["resources"]]
    return template.model_copy(update={"template": {**content, "resources": resources}})


# --- plan ---------------------------------------------------------------------------------------------------------


def test_in_an_empty_subscription_everything_is_to_create_and_planning_makes_nothing(bench, settings):
    planned = plan(PLATFORM, composed(PLATFORM), settings)
    assert {change.kind for change in planned.changes} == {"Create"}
    types = {change.type for change in planned.effects}
    assert "Microsoft.Resources/resourceGroups" in types
    assert "Microsoft.Storage/storageAccounts/blobServices/containers" in types
    assert written(bench) == []


def test_what_is_provisioned_has_nothing_to_change(settings):
    deploy(settings)
    planned = plan(PLATFORM, composed(PLATFORM), settings)
    assert planned.effects == ()
    assert planned.summary == "no changes"


def test_a_changed_property_is_told_with_its_value_before_and_after(settings):
    deploy(settings)
    cooler = changed(
        composed(PLATFORM), lambda item: {"sku": {"name": "Premium"}} if "registries" in item["type"] else {}
    )
    [change] = plan(PLATFORM, cooler, settings).effects
    assert (change.kind, change.name) == ("Modify", "crahcplatform")
    assert [(item.path, item.before, item.after) for item in change.properties] == [("sku.name", "Standard", "Premium")]


def test_a_deleted_resource_is_to_be_created_again_and_one_beside_the_template_is_left_alone(settings):
    deploy(settings)
    client = resource_client(SUBSCRIPTION)
    group = target_of(PLATFORM, settings).group
    provider = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.ManagedIdentity"
    client.resources.begin_delete_by_id(f"{provider}/userAssignedIdentities/id-ahc-platform", "2023-01-31").result()
    client.resources.begin_create_or_update_by_id(
        f"{provider}/userAssignedIdentities/id-by-hand", "2023-01-31", {"location": LOCATION}
    ).result()
    planned = plan(PLATFORM, composed(PLATFORM), settings)
    assert [(change.kind, change.name) for change in planned.effects] == [("Create", "id-ahc-platform")]
    assert [change.name for change in planned.of("Ignore")] == ["id-by-hand"]
    assert planned.summary == "1 to create"


def test_a_template_that_azure_refuses_is_told_by_its_own_words(settings):
    right = one_identity()
    wrong = right.model_copy(update={"template": {**right.template, "parameters": {"size": {"type": "string"}}}})
    deploy(settings, template=right)
    with pytest.raises(ProvisioningFailed, match=r"Azure refused while foreseeing .*InvalidTemplate.*size"):
        plan(PLATFORM, wrong, settings)


# --- provision ----------------------------------------------------------------------------------------------------


def test_an_environment_before_its_platform_is_refused_and_nothing_is_begun(bench, settings):
    with pytest.raises(NotProvisioned, match="rg-ahc-platform") as caught:
        deploy(settings, "test")
    assert "environment=platform" in caught.value.next_step
    assert written(bench) == []


def test_every_operation_is_told_once_as_it_ends_with_progress(settings):
    told = Listener()
    done = deploy(settings, told=told)
    assert done.changed
    assert len(told.heard) == len(composed(PLATFORM).template["resources"])
    assert {operation.resource_id for operation, _, _ in told.heard} == {item.resource_id for item in done.operations}
    assert all(second[1] == first[1] + 1 for first, second in pairwise(told.heard))
    assert told.heard[-1][1] <= told.heard[-1][2]
    assert platform_resources(settings).storage_account == "stahcplatform"


def test_a_second_provision_deploys_nothing(bench, settings):
    deploy(settings)
    before = len(written(bench))
    again = deploy(settings)
    assert not again.changed
    assert len(written(bench)) == before


def test_a_new_output_is_deployed_although_no_resource_changes(settings):
    deploy(settings)
    more = composed(PLATFORM)
    outputs = {**more.template["outputs"], "cluster": {"type": "string", "value": "aks-x"}}
    deploy(settings, template=more.model_copy(update={"template": {**more.template, "outputs": outputs}}))
    assert platform_resources(settings).cluster == "aks-x"


@pytest.fixture
def nested():
    """The platform as one deployment inside of another."""
    outer = composed(PLATFORM)
    inner = {
        "type": "Microsoft.Resources/deployments",
        "apiVersion": "2024-03-01",
        "name": "inner",
        "properties": {
            "mode": "Incremental",
            "expressionEvaluationOptions": {"scope": "inner"},
            "template": outer.template,
        },
    }
    return outer.model_copy(update={"template": {**outer.template, "resources": [inner], "outputs": {}}})


def test_operations_of_nested_deployments_are_told_too(settings, nested):
    told = Listener()
    deploy(settings, template=nested, told=told)
    assert {operation.label for operation, _, _ in told.heard} >= {"Microsoft.KeyVault/vaults kv-ahc-platform"}
    assert not any("deployments" in operation.label for operation, _, _ in told.heard)


def test_a_failed_operation_inside_a_nested_deployment_is_named_by_its_innermost_words(bench, settings, nested):
    bench.fault(path="vaults/kv-ahc", method="PUT", status=400, body=arm("VaultNameNotValid", "A vault's name."))
    with pytest.raises(ProvisioningFailed, match=r"vaults kv-ahc-platform: VaultNameNotValid: A vault"):
        deploy(settings, template=nested)
    # What was made stays, and the next provision goes on.
    assert deploy(settings, template=nested).changed


def test_a_vault_that_was_deleted_and_is_kept_is_brought_back_instead_of_made(bench, settings):
    """The bench keeps no deleted vaults: the answer of Azure's documentation stands for one."""
    template = composed(PLATFORM)
    parameters = {"recoverVault": {"type": "bool", "defaultValue": False}}
    mode = "[if(parameters('recoverVault'), 'recover', 'default')]"
    template = changed(
        template.model_copy(update={"template": {**template.template, "parameters": parameters}}),
        lambda item: {"properties": {**item["properties"], "createMode": mode}} if "vaults" in item["type"] else {},
    )
    bench.fault(path="deletedVaults/kv-ahc-platform$", status=200, body={"name": "kv-ahc-platform"})
    deploy(settings, template=template)
    asked = [call["url"] for call in calls(bench, "GET", url="deletedVaults")]
    assert len(asked) == 1
    state = state_of(target_of(PLATFORM, settings))
    assert state.parameters["recoverVault"]["value"] is True
    assert not deploy(settings, template=template).changed


# --- faults -------------------------------------------------------------------------------------------------------


def arm(code: str, message: str = "Words.") -> dict:
    return {"error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("QuotaExceeded", 409, QuotaExceeded),
        ("AuthorizationFailed", 403, AccessDenied),
        ("TooManyRequests", 429, ServiceUnavailable),
        ("InvalidThing", 400, ProvisioningFailed),
    ],
)
def test_an_operation_that_fails_keeps_its_type(bench, settings, code, status, expected):
    bench.fault(path="vaults/kv-ahc", method="PUT", status=status, body=arm(code))
    with pytest.raises(expected, match=f"kv-ahc-platform: {code}") as caught:
        deploy(settings)
    assert type(caught.value) is expected


def test_a_deployment_that_ends_as_failed_is_told_by_its_own_code(bench, settings):
    bench.fault(
        "lro-failed", operation="Deployments_CreateOrUpdate$", lro_error={"code": "Odd", "message": "It broke."}
    )
    with pytest.raises(ProvisioningFailed, match="Odd: It broke"):
        deploy(settings)


@pytest.mark.parametrize(
    "operation", ["WhatIf", "Validate", "CreateOrUpdate", "Deployments_Get$", "DeploymentOperations"]
)
@pytest.mark.parametrize(
    "fault",
    [{"preset": "throttle"}, {"status": 500, "body": arm("InternalServerError")}, {"delay": 0.3}],
    ids=["throttled", "500", "slow"],
)
def test_what_passes_by_itself_is_waited_out(bench, settings, operation, fault):
    bench.fault(operation=operation, path="(?i)deployments/ahc-platform", **fault)
    assert deploy(settings, template=one_identity()).changed
    assert not deploy(settings, template=one_identity()).changed


@pytest.mark.parametrize("operation", ["CreateOrUpdate", "Deployments_Get$", "DeploymentOperations"])
@pytest.mark.parametrize("reset", [True, "after"], ids=["before", "after"])
def test_a_connection_cut_while_deploying_neither_fails_nor_doubles_anything(bench, settings, operation, reset):
    bench.fault(operation=operation, path="(?i)deployments/ahc-platform", reset=reset)
    assert deploy(settings, template=one_identity()).changed
    assert not deploy(settings, template=one_identity()).changed


@pytest.mark.parametrize("operation", ["WhatIf", "Validate"])
@pytest.mark.parametrize("reset", [True, "after"], ids=["before", "after"])
def test_a_connection_cut_before_deploying_is_transient_and_the_next_try_goes_on(bench, settings, operation, reset):
    bench.fault(operation=operation, path="(?i)deployments/ahc-platform", reset=reset)
    with pytest.raises(ServiceUnavailable):
        deploy(settings, template=one_identity())
    assert deploy(settings, template=one_identity()).changed


def test_throttling_that_stays_is_transient(bench, settings, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault("throttle", operation="CreateOrUpdate", path="deployments", times=-1)
    with pytest.raises(ServiceUnavailable) as caught:
        deploy(settings)
    assert caught.value.transient


def test_a_missing_permission_is_told_with_the_role(bench, settings):
    bench.fault("forbidden", method="PUT", path="deployments/ahc-platform")
    with pytest.raises(AccessDenied, match="deploying ahc-platform") as caught:
        deploy(settings)
    assert "az role assignment create" in caught.value.next_step


def test_an_expired_token_is_told_as_such(bench, settings):
    bench.fault(path="deployments", status=401, body=arm("ExpiredAuthenticationToken", "It expired."), times=-1)
    with pytest.raises(NoCredentials, match="expired"):
        deploy(settings)


PROVISION = """
from pathlib import Path
from infra.azure.provisioning.provision import provision
from tests.support.azure.bench import azure_settings
from tests.support.azure.small_platform import composed

provision("platform", composed("platform"), azure_settings(Path(".")), tell=lambda *_: None, poll_seconds=0.01)
"""


def test_a_provision_that_was_killed_is_followed_by_the_next_and_not_started_again(bench, settings, tmp_path):
    bench.settings(lro_polls=200)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([sys.executable, "-c", PROVISION], cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (started := deployments_started(bench)) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        bench.settings(lro_polls=2)
    assert started == 1
    assert is_running(target_of(PLATFORM, settings))
    told = Listener()
    assert deploy(settings, told=told).changed
    assert deployments_started(bench) == 1
    assert len(told.heard) == len(composed(PLATFORM).template["resources"])


def test_a_conflict_with_a_deployment_that_runs_ends_in_following_it(bench, settings):
    bench.settings(lro_polls=6)
    try:
        begin(settings, composed(PLATFORM))
        # The first look comes too early to see it.
        bench.fault(operation="Deployments_Get$", status=404, body=arm("DeploymentNotFound"))
        bench.fault(method="PUT", path="deployments/ahc-platform", status=409, body=arm("DeploymentActive"))
        assert deploy(settings).changed
    finally:
        bench.settings(lro_polls=2)


def test_another_template_that_somebody_deploys_at_the_same_time_is_no_success_of_ours(bench, settings):
    bench.settings(lro_polls=6)
    try:
        begin(settings, one_identity())
        bench.fault(operation="Deployments_Get$", status=404, body=arm("DeploymentNotFound"))
        bench.fault(method="PUT", path="deployments/ahc-platform", status=409, body=arm("DeploymentActive"))
        with pytest.raises(Conflict, match="another template"):
            deploy(settings)
    finally:
        bench.settings(lro_polls=2)
    assert deploy(settings).changed


def test_a_conflict_with_nothing_that_runs_is_transient(bench, settings):
    bench.fault(method="PUT", path="deployments/ahc-platform", status=409, body=arm("DeploymentActive"))
    with pytest.raises(Conflict) as caught:
        deploy(settings)
    assert caught.value.transient


def test_a_resource_group_that_was_deleted_by_hand_is_made_again(settings):
    deploy(settings)
    resource_client(SUBSCRIPTION).resource_groups.begin_delete(target_of(PLATFORM, settings).group).result()
    assert deploy(settings).changed
    assert platform_resources(settings).key_vault_url


def begin(settings, template):
    """Start a deployment as `provision` does, and look away."""
    from infra.azure.provisioning.provision import _start

    _start(target_of(PLATFORM, settings), template)


def deployments_started(bench) -> int:
    return len([url for url in written(bench) if "/deployments/" in url])
