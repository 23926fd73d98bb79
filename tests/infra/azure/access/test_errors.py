"""What the SDKs raise on the bench, and what it is called here."""

import sys
import traceback

import pytest

from infra.azure.access.clients import RETRIES, client_options
from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors, translation
from infra.azure.access.resources import platform_resources
from infra.azure.access.roles import what_to_grant
from infra.errors import (
    AccessDenied,
    ConfigurationError,
    Conflict,
    NoCredentials,
    NotProvisioned,
    PlatformError,
    ProvisioningFailed,
    QuotaExceeded,
    ServerUnreachable,
    ServiceUnavailable,
)
from infra.settings import PROJECT
from model.errors import SourceUnreadable
from tasks.framework.error_table import translate_errors
from tests.support.azure.bench import SUBSCRIPTION, azure_settings
from tests.support.azure.small_platform import provision

pytestmark = pytest.mark.azure
pytest.importorskip("azure.mgmt.resource")


def create_group(name: str = "rg-x"):
    from azure.mgmt.resource import ResourceManagementClient

    with (
        azure_errors(f"creating {name}"),
        ResourceManagementClient(credential(), SUBSCRIPTION, **client_options()) as client,
    ):
        return client.resource_groups.create_or_update(name, {"location": "westeurope"})


def arm(code: str, message: str = "Words.", **rest) -> dict:
    return {"error": {"code": code, "message": message, **rest}}


FORBIDDEN = (
    "The client 'x@y' with object id '99999999-0000-0000-0000-000000000000' does not have authorization to perform "
    "action 'Microsoft.ContainerInstance/containerGroups/write' over scope '/subscriptions/s/resourceGroups/rg' or the "
    "scope is invalid."
)


@pytest.mark.parametrize(
    ("status", "body", "expected", "told"),
    [
        (409, arm("ContainerGroupQuotaReached"), QuotaExceeded, "ContainerGroupQuotaReached"),
        (409, arm("OperationNotAllowed", "exceeding approved standardNC Cores quota."), QuotaExceeded, "standardNC"),
        (400, arm("SkuNotAvailable"), QuotaExceeded, "SkuNotAvailable"),
        (409, arm("DeploymentFailed", details=[{"code": "QuotaExceeded", "message": "m"}]), QuotaExceeded, "rg-x"),
        (403, arm("AuthorizationFailed", FORBIDDEN), AccessDenied, "containerGroups/write"),
        (403, arm("RequestDisallowedByPolicy"), AccessDenied, "Policy"),
        (401, arm("ExpiredAuthenticationToken", "The access token expired."), NoCredentials, "expired"),
        (409, arm("Conflict"), Conflict, "409"),
        (412, arm("PreconditionFailed"), Conflict, "412"),
        (400, arm("InvalidRequestContent"), PlatformError, "400"),
    ],
)
def test_an_answer_that_no_retry_helps_is_told_once_by_its_name(bench, status, body, expected, told):
    bench.fault(path="resourcegroups/rg-x", status=status, body=body, times=-1)
    with pytest.raises(PlatformError, match=told) as caught:
        create_group()
    assert type(caught.value) is expected
    assert "while creating rg-x" in str(caught.value)
    assert caught.value.__cause__ is not None
    assert len(bench.calls(url="resourcegroups/rg-x")) == 1


def test_a_refusal_names_the_action_the_scope_and_the_command_that_assigns_the_role(bench):
    bench.fault("forbidden", body=arm("AuthorizationFailed", FORBIDDEN), path="resourcegroups")
    with pytest.raises(AccessDenied) as caught:
        create_group()
    for part in (
        "Microsoft.ContainerInstance/containerGroups/write",
        (
            "az role assignment create --role 'Azure Container Instances Contributor Role' "
            "--assignee 99999999-0000-0000-0000-000000000000 --scope '/subscriptions/s/resourceGroups/rg'"
        ),
    ):
        assert part in caught.value.next_step


@pytest.mark.parametrize(
    ("action", "role"),
    [
        ("ContainerRegistry/registries/listBuildSourceUploadUrl/action", "Container Registry Tasks Contributor"),
        ("ContainerRegistry/registries/scheduleRun/action", "Container Registry Tasks Contributor"),
        ("ContainerRegistry/registries/runs/read", "Container Registry Tasks Contributor"),
        ("ContainerRegistry/registries/runs/listLogSasUrl/action", "Container Registry Tasks Contributor"),
        ("ContainerRegistry/registries/pull/read", "AcrPull"),
        ("OperationalInsights/workspaces/sharedKeys/action", "Log Analytics Contributor"),
        ("ManagedIdentity/userAssignedIdentities/assign/action", "Managed Identity Operator"),
        ("Network/virtualNetworks/subnets/join/action", "Network Contributor"),
        ("Network/privateDnsZones/CNAME/write", "Private DNS Zone Contributor"),
        ("Network/trafficManagerProfiles/write", "Traffic Manager Contributor"),
        ("Web/sites/slots/config/write", "Website Contributor"),
        ("ContainerInstance/containerGroups/read", "Azure Container Instances Contributor Role"),
        ("Resources/deployments/read", "Reader"),
        ("Resources/deployments/write", "Contributor"),
    ],
)
def test_a_refused_action_needs_the_least_role_that_the_documentation_names_too(action, role):
    told = what_to_grant(f"does not have authorization to perform action 'Microsoft.{action}'", ["AuthorizationFailed"])
    assert f"needs the role `{role}`" in told
    assert role in (PROJECT / "docs" / "azure.md").read_text()


def test_throttling_that_ends_is_waited_out_as_long_as_azure_asks(bench):
    bench.fault("throttle", path="resourcegroups", times=2)
    assert create_group().name == "rg-x"
    calls = bench.calls(url="resourcegroups/rg-x")
    assert [call["status"] for call in calls] == [429, 429, 201]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_outage_that_stays_is_transient_after_a_few_tries(bench, status, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault(path="resourcegroups", status=status, body=arm("Words"), times=-1)
    with pytest.raises(ServiceUnavailable, match=str(status)) as caught:
        create_group()
    assert caught.value.transient
    assert len(bench.calls(url="resourcegroups/rg-x")) == 1 + RETRIES


@pytest.mark.parametrize("reset", [True, "after"])
def test_a_cut_connection_is_tried_again_and_then_told_as_an_outage(bench, reset, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault(path="resourcegroups", reset=reset, times=1)
    assert create_group().name == "rg-x"
    bench.fault(path="resourcegroups", reset=reset, times=-1)
    with pytest.raises(ServiceUnavailable, match="connection"):
        create_group()


def test_an_operation_that_ends_as_failed_is_told_by_its_own_code(bench, tmp_path):
    settings = azure_settings(tmp_path)
    bench.fault("lro-failed", path="vaults/kv-ahc", lro_error={"code": "InvalidThing", "message": "no such thing"})
    with pytest.raises(ProvisioningFailed, match="no such thing"), azure_errors("deploying"):
        provision(settings)


def test_what_is_not_there_is_left_to_who_asked(bench):
    from azure.core.exceptions import ResourceNotFoundError
    from azure.mgmt.resource import ResourceManagementClient

    with (
        pytest.raises(ResourceNotFoundError),
        azure_errors("reading"),
        ResourceManagementClient(credential(), SUBSCRIPTION, **client_options()) as client,
    ):
        client.resource_groups.get("rg-none")


def test_reading_outputs_survives_an_outage_that_ends(bench, tmp_path):
    settings = azure_settings(tmp_path)
    provision(settings)
    bench.fault(path="deployments/ahc-platform$", status=503, times=2)
    assert platform_resources(settings).storage_account == "stahcplatform"


def test_azure_mls_own_exceptions_say_who_is_at_fault():
    from azure.ai.ml.exceptions import ErrorCategory, MlException, ValidationException
    from azure.core.exceptions import ServiceRequestError

    mine = ValidationException("Not a path.", "", error_category=ErrorCategory.USER_ERROR)
    theirs = MlException("Broken.", "", error_category=ErrorCategory.SYSTEM_ERROR)
    wrapped = MlException("Upload failed.", "", error=ServiceRequestError("no route"))
    assert type(translation(mine, "x")) is ConfigurationError
    assert type(translation(theirs, "x")) is ServiceUnavailable
    assert type(translation(wrapped, "x")) is ServiceUnavailable


# --- at the border of a task --------------------------------------------------------------------------------------


def failing(error: Exception, wrapped_in: type[Exception] | None = None) -> Exception:
    if wrapped_in is not None:
        wrapper = wrapped_in("wrapped")
        wrapper.__cause__ = error
        error = wrapper
    with pytest.raises(Exception) as caught, translate_errors():
        raise error
    return caught.value


def test_an_outage_below_the_model_is_transient_however_it_was_wrapped():
    from azure.core.exceptions import ServiceResponseError

    assert type(failing(ServiceResponseError("cut"))) is ServiceUnavailable
    assert type(failing(ServiceResponseError("cut"), SourceUnreadable)) is ServiceUnavailable
    assert type(failing(ServiceResponseError("cut"), RuntimeError)) is ServiceUnavailable


def test_not_found_below_the_model_is_what_the_model_makes_of_it():
    from azure.core.exceptions import ResourceNotFoundError

    assert type(failing(ResourceNotFoundError("no blob"), SourceUnreadable)) is SourceUnreadable
    assert type(failing(ResourceNotFoundError("no blob"), FileNotFoundError)) is FileNotFoundError
    assert type(failing(ResourceNotFoundError("no group"))) is NotProvisioned


def test_an_error_of_ours_stays_what_it_is_even_when_azure_is_behind_it():
    from azure.core.exceptions import HttpResponseError

    assert type(failing(HttpResponseError("x"), NotProvisioned)) is NotProvisioned


def test_a_prefect_server_that_does_not_answer_is_told_as_such():
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    request = httpx.Request("GET", "http://127.0.0.1:4200/api/health")

    def answered(status: int) -> Exception:
        response = httpx.Response(status, request=request)
        return PrefectHTTPStatusError("said", request=request, response=response)

    for kind in (httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.PoolTimeout):
        assert type(failing(kind("cut"))) is ServerUnreachable
    assert type(failing(answered(503))) is ServerUnreachable
    assert type(failing(answered(422))) is PrefectHTTPStatusError


def test_translating_loads_no_sdk(monkeypatch):
    for name in [name for name in sys.modules if name == "azure" or name.startswith("azure.")]:
        monkeypatch.delitem(sys.modules, name)
    assert type(failing(KeyError("x"))) is KeyError
    assert "azure.core.exceptions" not in sys.modules


def test_a_signed_url_loses_its_signature():
    from azure.core.exceptions import ServiceRequestError

    with pytest.raises(ServiceUnavailable, match=r"sig=\*\*\*&sp=rw") as caught, azure_errors("uploading"):
        raise ServiceRequestError("Max retries exceeded with url: /c/x?se=1&sig=very-secret%3D&sp=rw")
    assert "very-secret" not in "".join(traceback.format_exception(caught.value))
