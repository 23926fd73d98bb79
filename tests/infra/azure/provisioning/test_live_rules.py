"""The shipped templates with the shipped parameters on a subscription that says no where Azure does."""

import json

import pytest
import yaml

from infra.azure.access.resources import PLATFORM, forget_resources, platform_resources
from infra.azure.provisioning.provision import provision
from infra.azure.provisioning.templates import compose
from infra.config.trainers import load_trainer
from infra.settings import PROJECT
from tests.support.azure.bench import IDENTITY, calls
from tests.support.azure.parameters import SHIPPED, change, shipped_settings

pytestmark = [pytest.mark.azure, pytest.mark.timeout(900)]


@pytest.fixture
def strict(bench):
    """A fresh subscription of the person who made it."""
    bench.settings(rules="live", owner=IDENTITY["AZURE_CLIENT_ID"])
    yield bench
    bench.settings(rules="none")


def deploy(settings, *names):
    for name in names:
        provision(name, compose(name, settings), settings, tell=lambda *_: None, poll_seconds=0.01)
        forget_resources()


def test_a_fresh_subscription_takes_the_platform_and_every_environment_as_shipped(strict, tmp_path):
    settings = shipped_settings(tmp_path)
    deploy(settings, PLATFORM, "test", "acceptance", "production")
    assert platform_resources(settings).cluster == "aks-ahc-platform"


def cluster_asked_for(bench):
    (call,) = [call for call in calls(bench, "PUT", url="managedClusters/") if "agentPoolProfiles" in str(call["body"])]
    return call


def test_gpu_machines_need_no_quota_before_a_training_waits_for_one(strict, tmp_path):
    settings = shipped_settings(tmp_path)
    change(settings.azure_parameters / f"{PLATFORM}.json", gpuNodesMax=2)
    strict.settings(quota={"westeurope/Standard NCASv3_T4 Family": 0})
    # The pool starts without a machine, so that only a training needs the quota.
    deploy(settings, PLATFORM)
    cluster = cluster_asked_for(strict)
    assert [pool["count"] for pool in cluster["body"]["properties"]["agentPoolProfiles"]] == [2, 0]


def test_azure_ml_takes_the_cluster_where_the_parameters_ask_for_it(strict, tmp_path):
    settings = shipped_settings(tmp_path)
    change(settings.azure_parameters / f"{PLATFORM}.json", clusterExtension=True)
    deploy(settings, PLATFORM)
    described = load_trainer("azure-ml", settings.trainers)
    assert described.azure_ml.compute == platform_resources(settings).compute == "aks"


def test_without_azure_ml_the_cluster_has_no_accounts_of_its_own_and_is_no_compute(strict, tmp_path):
    settings = shipped_settings(tmp_path)
    deploy(settings, PLATFORM)
    cluster = cluster_asked_for(strict)
    assert cluster["body"]["properties"]["disableLocalAccounts"] is True
    assert platform_resources(settings).compute == ""


def test_the_database_takes_the_extension_of_prefects_migrations(strict, tmp_path):
    settings = shipped_settings(tmp_path)
    deploy(settings, PLATFORM)
    (answer,) = calls(strict, "PUT", url="configurations/azure.extensions")
    assert answer["body"]["properties"]["value"] == "PG_TRGM"


def test_every_service_of_a_closed_storage_account_that_is_used_has_an_endpoint_of_its_own():
    platform = json.loads((PROJECT / "infra" / "arm" / "platform.json").read_text())
    (private,) = [item for item in platform["resources"] if item["name"] == "private-endpoints"]
    endpoints = private["properties"]["parameters"]["endpoints"]["value"]
    groups = {(item["resourceId"].rpartition("variables('")[2].partition("'")[0], item["group"]) for item in endpoints}
    assert {("workspaceStorage", "queue"), ("workspaceStorage", "blob"), ("lake", "blob"), ("lake", "dfs")} <= groups
    assert {zone for item in endpoints for zone in item["zones"]} == set(platform["variables"]["zones"])


def test_a_training_pod_fits_on_the_gpu_machine_of_the_parameters():
    # learn.microsoft.com, "NCasT4_v3 sizes series"; kubelet and system pods take a part ("Node resource reservations").
    cores, gib = {"Standard_NC4as_T4_v3": (4, 28)}[shipped("gpuVmSize")]
    pool = yaml.safe_load((PROJECT / "deployments" / "work_pools" / "aks-gpu.yaml").read_text())["variables"]
    assert float(pool["properties"]["cpu_request"]["default"]) <= cores - 0.5
    assert float(pool["properties"]["memory"]["default"].removesuffix("Gi")) <= gib - 5


def shipped(name):
    return json.loads((SHIPPED / f"{PLATFORM}.json").read_text())["parameters"][name]["value"]
