"""Removing an environment, or the platform, with what it left in other resource groups."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.clients import client_options, resource_client
from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import PLATFORM, forget_resources, resource_group, subscription
from infra.azure.provisioning.deployments import Target
from infra.azure.provisioning.provision import VAULTS, group_exists, target_of
from infra.config.environments import environment_names
from infra.errors import ConfigurationError
from infra.settings import Settings
from model.values import Frozen

if TYPE_CHECKING:
    from azure.mgmt.authorization import AuthorizationManagementClient

IDENTITIES: Final = "Microsoft.ManagedIdentity/userAssignedIdentities"
IDENTITY_API: Final = "2023-01-31"
PEERING_API: Final = "2024-03-01"


class Removed(Frozen):
    """What a removal did."""

    name: str
    resource_group: str
    existed: bool
    role_assignments: int
    """Deleted ones that were in other resource groups."""
    kept_vaults: tuple[str, ...]
    """Key Vaults that Azure keeps, deleted, until their retention ends; provisioning again recovers them."""


def remove(name: str, settings: Settings, *, confirm: str) -> Removed:
    """Delete the resource group of an environment, or of `platform`, and wait until it is gone.

    What is not there is fine, so that a removal that was interrupted is done again.

    Args:
        name: An environment, or `platform`.
        settings: Of this process.
        confirm: The same name once more, typed by whoever wants this.

    Raises:
        ConfigurationError: `confirm` is another name, or the platform still has environments; nothing was changed.
    """
    target = target_of(name, settings)
    if confirm != name:
        raise ConfigurationError(
            f"Removing `{name}` deletes the resource group {target.group} with all that is in it, and `confirm` is "
            f"{f'`{confirm}`' if confirm else 'empty'}.",
            next_step=f"Nothing was changed. To go on: `-p mode=remove -p environment={name} -p confirm={name}`.",
        )
    if name == PLATFORM and (rest := provisioned_environments(settings)):
        raise ConfigurationError(
            f"The platform still has environments: {', '.join(rest)}.",
            next_step="Nothing was changed. Remove the environments first.",
        )
    existed = group_exists(target)
    assignments = _delete_foreign_assignments(target, settings) if existed else 0
    if existed and name != PLATFORM:
        _delete_peering(name, settings)
    vaults = tuple(item.name for item in resources_of(target, VAULTS)) if existed else ()
    if existed:
        _delete_group(target)
    forget_resources()
    return Removed(
        name=name, resource_group=target.group, existed=existed, role_assignments=assignments, kept_vaults=vaults
    )


def provisioned_environments(settings: Settings) -> list[str]:
    """The environments that have a resource group, in the order of a release; then those that no file describes."""
    described = environment_names(settings.environments)
    present = [name for name in described if group_exists(target_of(name, settings))]
    prefix = resource_group("", settings)
    with azure_errors("listing the resource groups"):
        groups = list(resource_client(subscription(settings)).resource_groups.list())
    # A group that a service made for itself, such as that of a cluster's nodes, goes with the service.
    names = {
        group.name.removeprefix(prefix) for group in groups if group.name.startswith(prefix) and not group.managed_by
    }
    return [*present, *sorted(names - {PLATFORM, *described})]


def _delete_group(target: Target) -> None:
    groups = resource_client(target.subscription_id).resource_groups
    with azure_errors(f"deleting the resource group {target.group}"):
        # Another removal may have been quicker.
        if_present(lambda: groups.begin_delete(target.group).result())


def resources_of(target: Target, kind: str) -> list[Any]:
    """The resources of this type in a resource group."""
    with azure_errors(f"listing what is in {target.group}"):
        items = resource_client(target.subscription_id).resources.list_by_resource_group(
            target.group, filter=f"resourceType eq '{kind}'"
        )
        return [item for item in items if item.type.lower() == kind.lower()]


def _delete_foreign_assignments(target: Target, settings: Settings) -> int:
    """Take back the roles that the group's identities have elsewhere, such as pulling from the platform's registry.

    Azure keeps an assignment whose identity is gone, and refuses to make it anew for the next identity of that name.
    """
    principals = _principals(target)
    group = f"/subscriptions/{target.subscription_id}/resourceGroups/{target.group}/".lower()
    deleted = 0
    for subscription_id in {subscription(settings), target.subscription_id}:
        client = authorization_client(subscription_id)
        with azure_errors(f"taking back the roles of the identities of {target.group}"):
            for principal in principals:
                for item in client.role_assignments.list_for_subscription(filter=f"principalId eq '{principal}'"):
                    if item.principal_id == principal and not item.id.lower().startswith(group):
                        client.role_assignments.delete_by_id(item.id)
                        deleted += 1
    return deleted


def _delete_peering(name: str, settings: Settings) -> None:
    """Take the platform's side of the connection to a private environment's network away.

    Azure refuses to connect a new network of that name while the old connection is left.
    """
    platform = target_of(PLATFORM, settings)
    network = f"vnet-{settings.azure_prefix}-platform"
    peering = (
        f"/subscriptions/{platform.subscription_id}/resourceGroups/{platform.group}"
        f"/providers/Microsoft.Network/virtualNetworks/{network}/virtualNetworkPeerings/{name}"
    )
    with azure_errors(f"taking {name} from the network {network}"):
        resources = resource_client(platform.subscription_id).resources
        if if_present(lambda: resources.get_by_id(peering, PEERING_API)):
            resources.begin_delete_by_id(peering, PEERING_API).result()


def _principals(target: Target) -> list[str]:
    client = resource_client(target.subscription_id)
    identities = resources_of(target, IDENTITIES)
    with azure_errors(f"reading the identities of {target.group}"):
        facts = [client.resources.get_by_id(item.id, IDENTITY_API).properties or {} for item in identities]
    return [str(properties["principalId"]) for properties in facts if properties.get("principalId")]


@lru_cache(maxsize=4)
def authorization_client(subscription_id: str) -> "AuthorizationManagementClient":
    from azure.mgmt.authorization import AuthorizationManagementClient

    return AuthorizationManagementClient(credential(), subscription_id, **client_options())
