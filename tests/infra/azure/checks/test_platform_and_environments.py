"""Findings about a platform on the bench: a healthy one, and one fault at a time."""

import shutil
from functools import partial

import pytest

from infra.azure.access.clients import resource_client
from infra.azure.access.resources import PLATFORM, PlatformResources, platform_resources
from infra.azure.checks.platform_and_environments import check_environment, check_platform
from infra.azure.checks.quotas import cores, families, gpu_cores
from infra.azure.checks.release import run_checks
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.checks.machine_and_azure import check_azure, check_infrastructure
from infra.config.environments import endpoint_key
from infra.finding import Check
from infra.local.machine_checks import check_machine
from infra.settings import Settings
from tests.support.azure.bench import SUBSCRIPTION, azure_settings
from tests.support.azure.image_server import ImageServer
from tests.support.azure.parameters import change, with_environment

pytestmark = pytest.mark.azure
LOGIN_SERVER = "crahcplatform.azurecr.io"
PROVIDERS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ahc-platform/providers"


@pytest.fixture
def images(bench, cloud):
    with ImageServer() as server:
        bench.admin("backends", {LOGIN_SERVER: server.address})
        server.add("scoring", "stable", name="stable")
        yield server


def platform(settings) -> dict:
    return {finding.name: finding for finding in check_platform(settings)}


def environment(settings, name="test") -> dict:
    return {finding.name: finding for finding in check_environment(name, settings)}


def wrong(findings: dict) -> set[str]:
    assert all(finding.fix for finding in findings.values() if not finding.ok), "a finding without a fix"
    return {name for name, finding in findings.items() if not finding.ok}


def blocking(findings: dict) -> set[str]:
    return {name for name, finding in findings.items() if finding.blocks}


def test_a_provisioned_platform_is_healthy_and_its_environment_lacks_only_the_key_of_its_first_release(
    cloud, images, tmp_path
):
    cloud = with_environment(cloud, tmp_path, private=True)
    assert wrong(platform(cloud)) == set()
    assert wrong(environment(cloud)) == {"test-secrets"}
    assert blocking(environment(cloud)) == set()
    KeyVaultSecrets("test", cloud).ensure(endpoint_key("test"))
    assert wrong(environment(cloud)) == set()


def test_a_public_container_without_a_certificate_is_a_warning(cloud, images):
    finding = environment(cloud)["test-encryption"]
    assert not finding.ok
    assert not finding.blocks
    assert "azure.certificate" in finding.fix


def test_no_probe_is_left_behind(bench, cloud, images):
    platform(cloud)
    probes = bench.calls(url="probes/")
    assert {call["method"] for call in probes} == {"PUT", "DELETE"}
    assert len({call["url"] for call in probes if call["method"] == "PUT"}) == 3


def test_an_empty_subscription_is_one_finding_with_the_command_that_provisions(bench, tmp_path):
    settings = azure_settings(tmp_path)
    assert blocking(platform(settings)) == {"platform-deployment"}
    assert "mode=provision -p environment=platform" in platform(settings)["platform-deployment"].fix
    assert "mode=provision -p environment=test" in environment(settings)["test-deployment"].fix


def test_who_is_not_signed_in_hears_only_that(bench, cloud):
    bench.fault(host="login.microsoftonline.com", path="/token$", status=400, body={"error": "invalid"}, times=-1)
    from infra.azure.access.credentials import credential

    credential.cache_clear()
    assert set(platform(cloud)) == {"azure-sign-in"}
    assert blocking(platform(cloud)) == {"azure-sign-in"}


def test_a_resource_that_was_deleted_by_hand_blocks(cloud, images):
    identity = f"{PROVIDERS}/Microsoft.ManagedIdentity/userAssignedIdentities/id-ahc-platform"
    resource_client(SUBSCRIPTION).resources.begin_delete_by_id(identity, "2023-01-31").result()
    findings = platform(cloud)
    assert blocking(findings) == {"platform-training-identity"}
    assert "mode=provision" in findings["platform-training-identity"].fix


def test_a_resource_that_ended_as_failed_blocks(bench, cloud, images):
    """The bench lists no states, which Azure does when asked: its documented answer is given in its place."""
    found = resource_client(SUBSCRIPTION).resources.list_by_resource_group("rg-ahc-platform")
    rows = [{"id": item.id, "name": item.name, "type": item.type} for item in found]
    for row in rows:
        row["provisioningState"] = "Failed" if row["name"] == "mlw-ahc-platform" else "Succeeded"
    bench.fault(path="rg-ahc-platform/resources", status=200, body={"value": rows})
    findings = platform(cloud)
    assert blocking(findings) == {"platform-workspace"}
    assert "Failed" in findings["platform-workspace"].detail


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ({"host": "stahcplatform.blob", "method": "PUT", "path": "/models/"}, "platform-blobs-models"),
        ({"path": "workspaces/mlw-ahc-platform/models"}, "platform-workspace-access"),
        ({"path": "rg-ahc-platform/resources"}, "platform-resources"),
    ],
    ids=["blobs", "workspace", "listing"],
)
def test_what_this_identity_may_not_do_blocks_with_the_role_it_needs(bench, cloud, images, fault, name):
    bench.fault("forbidden", times=-1, **fault)
    findings = platform(cloud)
    assert blocking(findings) == {name}
    assert "role" in findings[name].fix


def test_a_vault_that_refuses_blocks_the_environment(bench, cloud, images):
    bench.fault("forbidden", host="kv-ahc-test.vault", times=-1)
    findings = environment(cloud)
    assert blocking(findings) == {"test-secrets"}
    assert "Key Vault Secrets Officer" in findings["test-secrets"].detail


def test_a_registry_that_refuses_to_give_a_token_blocks(cloud, images):
    images.refusal = 403
    findings = platform(cloud)
    assert blocking(findings) == {"platform-registry-access"}
    assert "AcrPull" in findings["platform-registry-access"].fix


def test_a_missing_scoring_image_blocks_before_a_model_is_trained(cloud, images):
    images.images.clear()
    findings = environment(cloud)
    assert blocking(findings) == {"test-image"}
    assert "scoring:stable" in findings["test-image"].detail


@pytest.mark.parametrize("preset", ["throttle", "outage"])
def test_an_outage_only_warns(bench, cloud, images, preset, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    bench.fault(preset, path="rg-ahc-platform/resources", times=-1)
    findings = platform(cloud)
    assert wrong(findings) == {"platform-resources"}
    assert blocking(findings) == set()


def test_container_cores_that_do_not_suffice_warn(bench, cloud, images):
    bench.settings(aci_core_quota=1)
    try:
        finding = environment(cloud)["test-container-quota"]
    finally:
        bench.settings(aci_core_quota=0)
    assert not finding.ok
    assert not finding.blocks
    assert "1 of 1 cores" in finding.detail


# --- GPU cores: the bench has no Microsoft.Compute, so the documented answer of the service is given for it -------


@pytest.fixture
def with_gpus(cloud, tmp_path) -> Settings:
    """Settings whose parameters ask for a GPU pool."""
    folder = shutil.copytree(cloud.azure_parameters, tmp_path / "with-gpus")
    change(folder / f"{PLATFORM}.json", gpuNodesMax=2)
    return cloud.model_copy(update={"azure_parameters": folder})


@pytest.fixture
def with_cluster(cloud) -> PlatformResources:
    return platform_resources(cloud).model_copy(update={"cluster": "aks-ahc"})


def usage(bench, **answer) -> None:
    bench.fault(path="Microsoft.Compute/locations/westeurope/usages", times=-1, **answer)


def t4(used: int, limit: int) -> dict:
    name = {"value": "Standard NCASv3_T4 Family", "localizedValue": "Standard NCASv3_T4 Family vCPUs"}
    return {"value": [{"limit": limit, "unit": "Count", "currentValue": used, "name": name}]}


@pytest.mark.parametrize(
    ("answer", "ok", "told"),
    [
        ({"status": 200, "body": t4(0, 16)}, True, "16 of 16 cores"),
        ({"status": 200, "body": t4(12, 16)}, False, "4 of 16 cores"),
        ({"status": 200, "body": {"value": []}}, False, "tells no quota"),
    ],
)
def test_gpu_cores_are_counted_for_all_machines_that_the_cluster_may_have(
    bench, with_gpus, with_cluster, answer, ok, told
):
    usage(bench, **answer)
    finding = gpu_cores(with_cluster, with_gpus, "platform-gpu-quota")
    assert (finding.ok, finding.severity) == (ok, "warns")
    assert told in finding.detail


@pytest.mark.parametrize("status", [403, 404])
def test_a_quota_that_can_not_be_read_is_a_warning(bench, with_gpus, with_cluster, status):
    usage(bench, status=status, body={"error": {"code": "AuthorizationFailed", "message": "No."}})
    finding = run_checks(
        [Check("platform-gpu-quota", partial(gpu_cores, with_cluster, with_gpus), "warns")], outage="warns"
    )[0]
    assert not finding.ok
    assert not finding.blocks


def test_a_size_names_the_family_of_its_quota():
    def plain(name: str) -> str:
        return (
            "".join(letter for letter in name.lower() if letter.isalnum()).replace("standard", "").replace("family", "")
        )

    assert plain("Standard NCASv3_T4 Family") in families("Standard_NC4as_T4_v3")
    assert plain("StandardNCADSA100v4Family") in families("Standard_NC24ads_A100_v4")
    assert plain("standardNCSv3Family") in families("Standard_NC6s_v3")
    assert cores("Standard_NC24ads_A100_v4") == 24


# --- all together, as `ahc doctor` and the lifecycle ask ----------------------------------------------------------


def test_everything_is_this_machine_the_platform_and_its_environments_and_one_not_provisioned_only_warns(cloud, images):
    findings = {finding.name: finding for finding in check_infrastructure(cloud)}
    assert {"python", "platform-storage-account", "test-image"} <= set(findings)
    assert findings["production-deployment"].severity == "warns"
    assert not findings["production-deployment"].ok


def test_what_a_release_needs_is_only_its_own_environments_and_they_must_be_there(cloud, images):
    findings = {finding.name: finding for finding in check_infrastructure(cloud, ("test",))}
    assert "production-deployment" not in findings
    findings = {finding.name: finding for finding in check_azure(cloud, ("production",))}
    assert findings["production-deployment"].blocks


def test_on_one_machine_azure_is_not_asked(tmp_path):
    settings = Settings(home=tmp_path)
    assert check_azure(settings, ("test",)) == []
    assert {finding.name for finding in check_infrastructure(settings)} == {
        finding.name for finding in check_machine(settings)
    }
