"""The ARM templates deployed on the bench, without the parts whose providers its specifications lack."""

from collections import Counter

import pytest

from infra.azure.access.resources import (
    PLATFORM,
    deployment_name,
    environment_resources,
    forget_resources,
    platform_resources,
    resource_group,
)
from infra.azure.provisioning.templates import compose
from infra.config.environments import load_environment
from tests.support.azure import bench as benches
from tests.support.azure import parameters
from tests.support.azure.bench import calls
from tests.support.azure.expanded_template import expand
from tests.support.azure.parameters import (
    ENVIRONMENTS,
    GROUP,
    PRIVATE,
    TARGETS,
    bench_parameters,
    change,
    with_environment,
)

pytestmark = pytest.mark.azure


@pytest.fixture
def bench_settings(tmp_path):
    settings = parameters.bench_settings(tmp_path)
    for name in TARGETS:
        change(settings.azure_parameters / f"{name}.json", operatorsGroupId=GROUP)
    return settings


def client():
    from azure.mgmt.resource import ResourceManagementClient

    from infra.azure.access.credentials import credential

    return ResourceManagementClient(credential(), benches.SUBSCRIPTION, polling_interval=0)


def deploy(azure, name, settings):
    """Deploy, and answer the types of what was made, and what a second deployment would change."""
    composed = compose(name, settings)
    group, deployment = resource_group(name, settings), deployment_name(name, settings)
    azure.resource_groups.create_or_update(group, {"location": composed.location})
    properties = {"mode": "Incremental", "template": composed.template, "parameters": composed.parameters}
    azure.deployments.begin_create_or_update(group, deployment, {"properties": properties}, polling_interval=0).result()
    forget_resources()
    what_if = azure.deployments.begin_what_if(group, deployment, {"properties": properties}, polling_interval=0)
    changes = what_if.result().changes
    return (
        composed,
        Counter(change.resource_id for change in changes),
        [c for c in changes if c.change_type != "NoChange"],
    )


def kinds(identifiers):
    """Resource types by their ids, with how many there are."""
    parts = [identifier.rsplit("/providers/", 1)[1].split("/") for identifier in identifiers]
    return Counter("/".join([namespace, *rest[::2]]) for namespace, *rest in parts)


def test_platform_and_environments_deploy_and_a_second_time_nothing_changes(bench, bench_settings):
    with client() as azure:
        for name in TARGETS:
            composed, made, changes = deploy(azure, name, bench_settings)
            assert changes == [], name
            assert set(made.values()) == {1}
            # The plan that policies are judged by is what is really deployed.
            assert kinds(made) == Counter(item.type for item in expand(composed))
    platform = platform_resources(bench_settings)
    assert (platform.cluster, platform.compute, platform.database_host) == ("aks-ahc-platform", "", "")
    assert platform.container_registry == f"crahc{platform.unique_suffix}"
    for name in ENVIRONMENTS:
        environment = environment_resources(load_environment(name, bench_settings.environments), bench_settings)
        assert environment.identity_id.endswith(f"/id-ahc-{name}")
        assert environment.log_analytics_customer_id
        assert (environment.endpoint_subnet_id, environment.dns_zone, environment.web_app) == ("", "", "")
    pulls = calls(bench, "PUT", url=f"registries/{platform.container_registry}/providers")
    assert Counter(call["headers"]["x-deployment"] for call in pulls) >= Counter(
        f"pull-roles-{name}" for name in ENVIRONMENTS
    )


def test_a_private_environment_is_joined_to_a_private_platform(bench, tmp_path):
    folder = bench_parameters(tmp_path / "parameters", {"test": PRIVATE}, **PRIVATE)
    settings = benches.azure_settings(tmp_path / "home", azure_parameters=folder)
    settings = with_environment(settings, tmp_path, private=True)
    with client() as azure:
        assert deploy(azure, PLATFORM, settings)[2] == []
        assert deploy(azure, "test", settings)[2] == []
    environment = environment_resources(load_environment("test", settings.environments), settings)
    assert environment.endpoint_subnet_id.endswith("/virtualNetworks/vnet-ahc-test/subnets/scoring")
    assert environment.dns_zone == "test.ahc.internal"
    peerings = {call["url"].partition("?")[0] for call in calls(bench, "PUT", url="virtualNetworkPeerings")}
    assert {tuple(url.split("/")[-3::2]) for url in peerings} == {
        ("vnet-ahc-test", "platform"),
        ("vnet-ahc-platform", "test"),
    }


def test_a_web_app_is_made_for_an_environment_that_asks_for_one(bench, bench_settings, tmp_path):
    settings = with_environment(bench_settings, tmp_path, endpoint="app-service")
    with client() as azure:
        deploy(azure, PLATFORM, settings)
        _, _, changes = deploy(azure, "test", settings)
    environment = environment_resources(load_environment("test", settings.environments), settings)
    assert environment.web_app == f"app-ahc-test-{environment.unique_suffix}"
    # A web app answers only some of its siteConfig: Azure's what-if, too, takes the others for changes.
    assert {delta.path.rpartition(".")[0] for item in changes for delta in item.delta} == {"properties.siteConfig"}
