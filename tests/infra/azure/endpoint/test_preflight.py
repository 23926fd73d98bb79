"""What is in the way of a release on Azure is found before anything is created."""

import pytest

from infra.azure.access.clients import resource_client, web_client
from infra.azure.endpoint.app_service.endpoint import AppServiceEndpoint
from infra.azure.endpoint.container_instances.endpoint import ContainerInstancesEndpoint
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import AzureTarget, Environment, endpoint_key
from infra.config.gates import Canary, Gates
from infra.errors import ServiceUnavailable
from tests.support.azure.bench import SUBSCRIPTION, azure_settings
from tests.support.azure.image_server import ImageServer

pytestmark = pytest.mark.azure

GROUP = "rg-ahc-test"
PROVIDERS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
USAGES = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.ContainerInstance/locations/westeurope/usages"


@pytest.fixture
def images(bench, cloud):
    with ImageServer() as server:
        bench.admin("backends", {"crahcplatform.azurecr.io": server.address})
        server.add("scoring", "stable", name="stable")
        yield server


@pytest.fixture
def endpoint(cloud, images):
    def made(**azure):
        gates = Gates(canary=azure.pop("canary", None))
        target = Environment(
            name="test", description="For tests.", port_offset=0, azure=AzureTarget(**azure), gates=gates
        )
        kind = AppServiceEndpoint if target.azure.endpoint == "app-service" else ContainerInstancesEndpoint
        return kind(target, cloud, KeyVaultSecrets("test", cloud))

    return made


def cores(bench, *, used: int, limit: int) -> None:
    name = {"value": "StandardCores", "localizedValue": "Standard Cores"}
    row = {"id": "x", "unit": "Count", "currentValue": used, "limit": limit, "name": name}
    bench.fault(method="GET", path=USAGES, status=200, body={"value": [row]}, times=-1)


def writes(bench) -> list[str]:
    calls = bench.calls(host="management.azure.com")
    return [call["url"] for call in calls if call["method"] in {"PUT", "PATCH", "DELETE"}]


@pytest.mark.parametrize("kind", ["container-instances", "app-service"])
def test_nothing_is_in_the_way_of_a_first_release_to_what_was_provisioned(bench, endpoint, kind):
    cores(bench, used=0, limit=10)
    before = writes(bench)
    assert endpoint(endpoint=kind).preflight() == []
    assert writes(bench) == before


def test_everything_that_is_in_the_way_is_told_at_once_with_its_fix(bench, cloud, images, endpoint):
    cores(bench, used=10, limit=10)
    subject = endpoint(image="scoring:absent", certificate="tls", model_registry="mlr-absent")
    identity = f"{PROVIDERS}/Microsoft.ManagedIdentity/userAssignedIdentities/id-ahc-test"
    resource_client(SUBSCRIPTION).resources.begin_delete_by_id(identity, "2023-01-31").result()
    told = subject.preflight()
    assert len(told) == 5
    identity, registry, certificate, image, quota = told
    assert "id-ahc-test is gone" in identity
    assert "names `mlr-absent`" in registry
    assert "mode=provision -p environment=test" in identity
    assert "the certificate `tls` is not in" in certificate
    assert "az keyvault secret set" in certificate
    assert "There is no image crahcplatform.azurecr.io/scoring:absent. Build it" in image
    assert "0 of 10 cores of Standard Cores are free, 1 are needed" in quota
    assert "Ask for more in the Azure portal" in quota


def test_an_image_by_digest_must_be_in_the_registry_too(bench, images, endpoint):
    cores(bench, used=0, limit=10)
    [digest] = images.digests("scoring")
    assert endpoint(image=f"scoring@{digest}").preflight() == []
    [told] = endpoint(image=f"scoring@sha256:{'0' * 64}").preflight()
    assert "There is no image" in told


def test_an_environment_that_was_never_provisioned_is_one_finding(bench, tmp_path):
    target = Environment(name="test", description="For tests.", port_offset=0)
    settings = azure_settings(tmp_path)
    [told] = ContainerInstancesEndpoint(target, settings, KeyVaultSecrets("test", settings)).preflight()
    assert "mode=provision -p environment=test" in told


def test_a_web_app_without_its_slot_is_told(cloud, endpoint):
    web_client(SUBSCRIPTION).web_apps.delete_slot(GROUP, "app-ahc-test", "candidate")
    [told] = endpoint(endpoint="app-service").preflight()
    assert "app-ahc-test/candidate" in told


def test_a_key_that_may_not_be_read_is_told_with_the_role(bench, cloud, endpoint):
    cores(bench, used=0, limit=10)
    KeyVaultSecrets("test", cloud).ensure(endpoint_key("test"))
    assert endpoint().preflight() == []
    bench.fault("forbidden", host="kv-ahc-test", method="GET", path="secrets/test-endpoint-key-primary", times=-1)
    [told] = endpoint().preflight()
    assert "Key Vault Secrets Officer" in told


def test_a_canary_where_clients_cant_be_divided_is_told_before_it_begins(bench, endpoint):
    cores(bench, used=0, limit=10)
    [told] = endpoint(private=True, canary=Canary()).preflight()
    assert "`gates.canary`" in told
    assert "`azure.private: false`" in told
    assert endpoint(canary=Canary()).preflight() == []


def test_a_quota_that_can_not_be_read_does_not_hold_a_release(bench, endpoint):
    bench.fault("forbidden", path=USAGES, times=-1)
    assert endpoint().preflight() == []


@pytest.mark.parametrize("rule", [{"preset": "outage"}, {"reset": True, "times": -1}])
def test_an_outage_is_an_error_that_passes_and_no_finding(bench, endpoint, rule):
    bench.fault(**{"host": "management", "path": f"{GROUP}/resources", **rule})
    with pytest.raises(ServiceUnavailable):
        endpoint().preflight()
