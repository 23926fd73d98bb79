"""Removal against the bench: only what was named, with what it left elsewhere."""

import pytest
from azure.core.exceptions import ResourceNotFoundError

from infra.azure.access.clients import resource_client
from infra.azure.access.resources import PLATFORM, environment_resources, platform_resources
from infra.azure.provisioning.provision import group_exists, target_of
from infra.azure.provisioning.removal import authorization_client, provisioned_environments, remove
from infra.config.environments import load_environment
from infra.errors import AccessDenied, ConfigurationError, NotProvisioned
from tests.support.azure.bench import SUBSCRIPTION

pytestmark = pytest.mark.azure
ROLES = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions"
PULL = f"{ROLES}/7f951dda-4ed3-4680-a7ca-43fe172d538d"


@pytest.fixture
def pull_role(bench, cloud) -> str:
    """The id of the role assignment by which the environment `test` pulls from the platform's registry."""
    identity = environment_resources(load_environment("test", cloud.environments), cloud).identity_id
    principal = resource_client(SUBSCRIPTION).resources.get_by_id(identity, "2023-01-31").properties["principalId"]
    scope = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ahc-platform/providers/Microsoft.ContainerRegistry/"
        "registries/crahcplatform"
    )
    made = authorization_client(SUBSCRIPTION).role_assignments.create(
        scope,
        "11111111-aaaa-bbbb-cccc-000000000001",
        {"properties": {"roleDefinitionId": PULL, "principalId": principal, "principalType": "ServicePrincipal"}},
    )
    return str(made.id)


def changes(bench) -> list[dict]:
    return [
        call
        for call in bench.calls()
        if call["method"] in ("PUT", "PATCH", "DELETE", "POST") and "token" not in call["url"]
    ]


@pytest.mark.parametrize("confirm", ["", "tset", "platform"])
def test_another_name_as_confirmation_changes_nothing(bench, cloud, confirm):
    before = len(changes(bench))
    with pytest.raises(ConfigurationError, match="rg-ahc-test") as caught:
        remove("test", cloud, confirm=confirm)
    assert "confirm=test" in caught.value.next_step
    assert len(changes(bench)) == before


def test_the_platform_stays_while_it_has_environments(bench, cloud):
    before = len(changes(bench))
    with pytest.raises(ConfigurationError, match="environments: test"):
        remove(PLATFORM, cloud, confirm=PLATFORM)
    assert len(changes(bench)) == before


def test_an_environment_that_no_file_describes_counts_too(bench, cloud):
    resource_client(SUBSCRIPTION).resource_groups.create_or_update("rg-ahc-forgotten", {"location": "westeurope"})
    assert provisioned_environments(cloud) == ["test", "forgotten"]


def test_an_environment_goes_with_its_roles_elsewhere_and_the_platform_stays(bench, cloud, pull_role):
    removed = remove("test", cloud, confirm="test")
    assert removed.existed
    assert removed.role_assignments == 1
    assert removed.kept_vaults == ("kv-ahc-test",)
    assert not group_exists(target_of("test", cloud))
    with pytest.raises(ResourceNotFoundError):
        authorization_client(SUBSCRIPTION).role_assignments.get_by_id(pull_role)
    assert platform_resources(cloud).container_registry == "crahcplatform"
    with pytest.raises(NotProvisioned):
        environment_resources(load_environment("test", cloud.environments), cloud)


def network(group: str, name: str, part: str = "", **properties) -> str:
    """Make a virtual network, or a part of one; answers its id."""
    made = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Network/virtualNetworks/{name}{part}"
    )
    body = {"properties": properties} if part else {"location": "westeurope", "properties": properties}
    resource_client(SUBSCRIPTION).resources.begin_create_or_update_by_id(made, "2024-03-01", body).result()
    return made


def test_the_platforms_network_forgets_that_of_a_private_environment(bench, cloud):
    network("rg-ahc-platform", "vnet-ahc-platform", addressSpace={"addressPrefixes": ["10.40.0.0/16"]})
    theirs = network("rg-ahc-test", "vnet-ahc-test", addressSpace={"addressPrefixes": ["10.42.0.0/24"]})
    remote = {"remoteVirtualNetwork": {"id": theirs}}
    peering = network("rg-ahc-platform", "vnet-ahc-platform", "/virtualNetworkPeerings/test", **remote)
    other = network("rg-ahc-platform", "vnet-ahc-platform", "/virtualNetworkPeerings/acceptance", **remote)
    remove("test", cloud, confirm="test")
    left = bench.admin("state")
    assert peering.lower() not in left
    assert other.lower() in left


def test_then_the_platform_can_go_and_removing_again_finds_nothing(bench, cloud):
    remove("test", cloud, confirm="test")
    assert remove(PLATFORM, cloud, confirm=PLATFORM).existed
    assert not remove(PLATFORM, cloud, confirm=PLATFORM).existed


def test_a_removal_that_was_cut_off_is_done_again(bench, cloud, pull_role):
    bench.fault("forbidden", method="DELETE", path="resourcegroups/rg-ahc-test$")
    with pytest.raises(AccessDenied, match="deleting the resource group rg-ahc-test"):
        remove("test", cloud, confirm="test")
    assert remove("test", cloud, confirm="test").existed
    assert not group_exists(target_of("test", cloud))


def test_throttling_is_waited_out(bench, cloud):
    bench.fault("throttle", method="DELETE", path="resourcegroups/rg-ahc-test$")
    assert remove("test", cloud, confirm="test").existed
