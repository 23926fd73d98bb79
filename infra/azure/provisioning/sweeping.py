"""What nobody needs any more: container groups of releases that were broken off, and old scoring images."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from infra.azure.access.clients import container_client, web_client
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import PLATFORM, deployment_name, platform_resources, resource_group, subscription
from infra.azure.container_images.registry import ImageRegistry, Manifest
from infra.azure.provisioning.deployments import Target
from infra.azure.provisioning.provision import target_of
from infra.azure.provisioning.removal import provisioned_environments, resources_of
from infra.config.environments import environment_names, load_environment
from infra.settings import Settings
from model.values import Frozen

ROLE_TAG: Final = "ahc-role"
NEEDED_ROLES: Final = frozenset({"live", "previous", "switching", "rolling-back"})
"""What serves, what a rollback brings back, and what is on its way to either."""
YOUNG: Final = timedelta(days=14)
"""An image that is younger may be on its way to its first release."""
SITES: Final = "Microsoft.Web/sites"


class Orphan(Frozen):
    """One thing that may be deleted."""

    kind: Literal["container group", "image"]
    name: str
    where: str
    why: str
    resource_id: str


def orphans(settings: Settings) -> tuple[Orphan, ...]:
    """Everything of all environments that nothing needs; changes nothing.

    A candidate of a release that runs at this moment is among them: sweep when none runs.
    """
    return (*_container_groups(settings), *(_image_orphan(item) for item in unneeded_images(settings)))


def sweep(candidates: tuple[Orphan, ...], settings: Settings) -> None:
    """Delete these orphans; what has become needed since they were listed is left alone."""
    current = set(orphans(settings))
    remaining = [item for item in candidates if item in current]
    for item in remaining:
        if item.kind == "container group":
            _delete_group(item)
    images = {item.resource_id for item in remaining if item.kind == "image"}
    if images:
        with ImageRegistry(platform_resources(settings).registry_login_server) as registry:
            for manifest in unneeded_images(settings):
                if manifest.digest in images:
                    registry.delete(manifest)


def unneeded_images(settings: Settings, now: datetime | None = None) -> list[Manifest]:
    """Images of the scoring repositories that no container group or web app runs, no environment file names, and that
    are older than two weeks. Other repositories are not looked at: who uses them isn't known here.
    """
    named = {
        load_environment(name, settings.environments).azure.image for name in environment_names(settings.environments)
    }
    repositories = {image.partition("@")[0].partition(":")[0] for image in named}
    running = _digests_in_use(settings)
    oldest = (now or datetime.now(UTC)) - YOUNG
    unneeded: list[Manifest] = []
    with ImageRegistry(platform_resources(settings).registry_login_server) as registry:
        for repository in sorted(repositories):
            manifests = registry.manifests(repository)
            needed = [item for item in manifests if _is_needed(item, running, named) or item.updated > oldest]
            parts = {digest for item in needed for digest in registry.parts(item)}
            unneeded += [item for item in manifests if item not in needed and item.digest not in parts]
    return unneeded


def _is_needed(manifest: Manifest, running: set[str], named: set[str]) -> bool:
    names = {f"{manifest.repository}@{manifest.digest}", *(f"{manifest.repository}:{tag}" for tag in manifest.tags)}
    return bool(names & (running | named))


def _image_orphan(manifest: Manifest) -> Orphan:
    return Orphan(
        kind="image",
        name=manifest.label,
        where="registry",
        why=f"nothing runs it, no environment file names it, and it is of {manifest.updated:%Y-%m-%d}",
        resource_id=manifest.digest,
    )


def _provisioned(settings: Settings) -> list[Target]:
    """Of the platform and of all environments, those too that no file describes any more."""
    described = environment_names(settings.environments)
    return [
        target_of(PLATFORM, settings),
        *(
            target_of(name, settings)
            if name in described
            else Target(subscription(settings), resource_group(name, settings), deployment_name(name, settings))
            for name in provisioned_environments(settings)
        ),
    ]


def _container_groups(settings: Settings) -> list[Orphan]:
    groups = []
    for target in _provisioned(settings):
        for group in _groups(target):
            role = (group.tags or {}).get(ROLE_TAG)
            # Groups that no release made are somebody else's.
            if role is not None and role not in NEEDED_ROLES:
                groups.append(
                    Orphan(
                        kind="container group",
                        name=group.name,
                        where=target.group,
                        why=f"its role is `{role}`: it takes no traffic and no rollback needs it",
                        resource_id=group.id,
                    )
                )
    return groups


def _groups(target: Target) -> list[Any]:
    with azure_errors(f"listing the container groups of {target.group}"):
        return list(container_client(target.subscription_id).container_groups.list_by_resource_group(target.group))


def _delete_group(orphan: Orphan) -> None:
    subscription_id = orphan.resource_id.strip("/").split("/")[1]
    with azure_errors(f"deleting the container group {orphan.name}"):
        groups = container_client(subscription_id).container_groups
        if_present(lambda: groups.begin_delete(orphan.where, orphan.name).result())


def _digests_in_use(settings: Settings) -> set[str]:
    """`REPOSITORY@DIGEST` and `REPOSITORY:TAG` of all that runs, or that a slot holds ready."""
    server = f"{platform_resources(settings).registry_login_server}/"
    images = [image for target in _provisioned(settings) for image in (*_group_images(target), *_site_images(target))]
    return {image.removeprefix(server) for image in images}


def _group_images(target: Target) -> list[str]:
    return [str(container.image) for group in _groups(target) for container in group.containers]


def _site_images(target: Target) -> list[str]:
    """Of the web apps and their slots."""
    with azure_errors(f"reading the web apps of {target.group}"):
        names = [str(item.name) for item in resources_of(target, SITES)]
        return [image for name in names for image in _images_of(web_client(target.subscription_id), target.group, name)]


def _images_of(client: Any, group: str, app: str) -> list[str]:
    slots = [slot.name.rpartition("/")[2] for slot in client.web_apps.list_slots(group, app)]
    return [
        _container_image(client.web_apps.get_configuration(group, app)),
        *(_container_image(client.web_apps.get_configuration_slot(group, app, slot)) for slot in slots),
    ]


def _container_image(configuration: Any) -> str:
    properties = getattr(configuration, "properties", None) or configuration
    return (properties.linux_fx_version or "").removeprefix("DOCKER|")
