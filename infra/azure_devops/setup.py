"""Everything that a project needs, in the order in which one thing needs the other."""

from collections.abc import Callable, Iterator
from typing import Final

from pydantic import SecretStr

from infra.azure.provisioning.federation import PipelinesIdentity
from infra.azure_devops.client import DevOps, Json
from infra.azure_devops.connections import federated_credential, subscription_connection, webhook_connection
from infra.azure_devops.environments import checks, environment
from infra.azure_devops.groups import variable_group, vault_group
from infra.azure_devops.pipelines import build_validation, permission, pipeline
from infra.azure_devops.plan import Change, Work
from infra.azure_devops.pools import agent_queue
from infra.azure_devops.project import Project, find_project, find_repository
from infra.azure_devops.project_file import PLATFORM, PREFIX, Wanted
from infra.config.environments import environment_names, load_environment
from infra.config.gates import Gates
from infra.config.yaml_files import nearest
from infra.errors import ConfigurationError
from infra.settings import Settings
from model.values import Frozen

Used = tuple[str, str, Json | None]
"""Kind, name and the thing itself, as permissions name it."""
CONNECTION: Final = "endpoint"


class Azure(Frozen):
    """What the project is to know of Azure."""

    identity: PipelinesIdentity
    subscription_id: str
    vault: str
    """Name of the platform's Key Vault."""


def set_up(
    devops: DevOps,
    wanted: Wanted,
    azure: Azure,
    settings: Settings,
    webhook_secret: Callable[[], SecretStr],
    *,
    dry_run: bool,
) -> tuple[Change, ...]:
    """Make or check everything; answers what wasn't as it should be.

    Args:
        devops: The organisation.
        wanted: What the project is to have.
        azure: What it is to know of Azure.
        settings: Of the platform.
        webhook_secret: Answers what requests to the webhook are signed with; it is made where it isn't there.
        dry_run: Only read.

    Raises:
        ConfigurationError, DevOpsRefused, AccessDenied, NoCredentials, ServiceUnavailable, Conflict.
    """
    gates = dict(_gates(settings, wanted))
    _require_known(wanted, gates)
    work = Work(dry_run=dry_run)
    project = find_project(devops, wanted.project)
    repository = find_repository(project, wanted.repository)
    connection = subscription_connection(project, wanted.connection, azure.identity, azure.subscription_id, work)
    federated_credential(wanted.connection, connection, azure.identity, settings, work)
    webhook = webhook_connection(project, wanted.webhook, webhook_secret, work)
    queue = agent_queue(project, wanted.pool, work)
    shared: list[Used] = [
        (CONNECTION, wanted.connection, connection),
        *_groups(project, wanted, azure, connection, work),
    ]
    if wanted.pool:
        shared.append(("queue", wanted.pool, queue))
    places = {name: _environment(project, name, item, wanted, work) for name, item in gates.items()}
    for name, item in wanted.pipelines.items():
        definition = pipeline(project, name, item, repository, wanted.branch, queue, work)
        used = [*shared, *(("environment", PREFIX + place, places[place]) for place in item.environments)]
        if item.webhook:
            used.append((CONNECTION, wanted.webhook, webhook))
        for kind, resource, present in used:
            permission(project, kind, resource, present, name, definition, work)
        if item.validates:
            build_validation(project, name, definition, repository, wanted.branch, work)
    return tuple(work.changes)


def _groups(project: Project, wanted: Wanted, azure: Azure, connection: Json | None, work: Work) -> Iterator[Used]:
    for name, group in wanted.groups.items():
        if group.secrets:
            made = vault_group(project, name, azure.vault, group.secrets, connection, work)
        else:
            made = variable_group(project, name, group.variables, work)
        yield "variablegroup", name, made


def _require_known(wanted: Wanted, gates: dict[str, Gates]) -> None:
    for name, item in wanted.pipelines.items():
        for place in item.environments:
            if place not in gates:
                raise ConfigurationError(
                    f"deployments/devops.yaml: pipeline {name} names the environment `{place}`: "
                    f"{nearest(place, list(gates))}"
                )


def _gates(settings: Settings, wanted: Wanted) -> Iterator[tuple[str, Gates]]:
    yield PLATFORM, wanted.platform
    for name in environment_names(settings.environments):
        yield name, load_environment(name, settings.environments).gates


def _environment(project: Project, name: str, gates: Gates, wanted: Wanted, work: Work) -> Json | None:
    place = environment(project, PREFIX + name, work)
    who = [*(gates.approvers or wanted.approvers), *([wanted.mirror] if wanted.mirror else [])]
    checks(project, PREFIX + name, place, gates, who, work)
    return place
