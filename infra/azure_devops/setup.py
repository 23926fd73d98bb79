"""Everything that a project needs, in the order in which one thing needs the other."""

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from infra.azure.access.resources import platform_resources, subscription
from infra.azure.provisioning.federation import PipelinesIdentity, pipelines_identity
from infra.azure_devops.client import DevOps, Json
from infra.azure_devops.connections import federated_credential, subscription_connection, webhook_connection
from infra.azure_devops.environments import checks, environment
from infra.azure_devops.groups import variable_group, vault_group
from infra.azure_devops.pipelines import build_validation, permission, pipeline
from infra.azure_devops.plan import Change, Plan
from infra.azure_devops.pools import agent_queue
from infra.azure_devops.project import Project, find_project, find_repository
from infra.azure_devops.project_file import PLATFORM, PREFIX, ProjectFile
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

    @classmethod
    def of(cls, settings: Settings) -> "Azure":
        """What the platform's own subscription has."""
        vault = urlsplit(platform_resources(settings).key_vault_url).hostname or ""
        return cls(
            identity=pipelines_identity(settings),
            subscription_id=subscription(settings),
            vault=vault.partition(".")[0],
        )


def set_up(
    devops: DevOps,
    file: ProjectFile,
    azure: Azure,
    settings: Settings,
    webhook_secret: Callable[[], SecretStr],
    *,
    dry_run: bool,
) -> tuple[Change, ...]:
    """Make or check everything; answers what wasn't as it should be.

    Args:
        devops: The organisation.
        file: What the project is to have.
        azure: What it is to know of Azure.
        settings: Of the platform.
        webhook_secret: Answers what requests to the webhook are signed with; it is made where it isn't there.
        dry_run: Only read.

    Raises:
        ConfigurationError, DevOpsRefused, AccessDenied, NoCredentials, ServiceUnavailable, Conflict.
    """
    gates = dict(_gates(settings, file))
    _require_known(file, gates)
    plan = Plan(dry_run=dry_run)
    project = find_project(devops, file.project)
    repository = find_repository(project, file.repository)
    connection = subscription_connection(project, file.connection, azure.identity, azure.subscription_id, plan)
    federated_credential(file.connection, connection, azure.identity, settings, plan)
    webhook = webhook_connection(project, file.webhook, webhook_secret, plan)
    queue = agent_queue(project, file.pool, plan)
    shared: list[Used] = [
        (CONNECTION, file.connection, connection),
        *_groups(project, file, azure, connection, plan),
    ]
    if file.pool:
        shared.append(("queue", file.pool, queue))
    places = {name: _environment(project, name, item, file, plan) for name, item in gates.items()}
    for name, item in file.pipelines.items():
        definition = pipeline(project, name, item, repository, file.branch, queue, plan)
        used = [*shared, *(("environment", PREFIX + place, places[place]) for place in item.environments)]
        if item.webhook:
            used.append((CONNECTION, file.webhook, webhook))
        for kind, resource, present in used:
            permission(project, kind, resource, present, name, definition, plan)
        if item.validates:
            build_validation(project, name, definition, repository, file.branch, plan)
    return tuple(plan.changes)


def _groups(project: Project, file: ProjectFile, azure: Azure, connection: Json | None, plan: Plan) -> Iterator[Used]:
    for name, group in file.groups.items():
        if group.secrets:
            made = vault_group(project, name, azure.vault, group.secrets, connection, plan)
        else:
            made = variable_group(project, name, group.variables, plan)
        yield "variablegroup", name, made


def _require_known(file: ProjectFile, gates: dict[str, Gates]) -> None:
    for name, item in file.pipelines.items():
        for place in item.environments:
            if place not in gates:
                raise ConfigurationError(
                    f"deployments/devops.yaml: pipeline {name} names the environment `{place}`: "
                    f"{nearest(place, list(gates))}"
                )


def _gates(settings: Settings, file: ProjectFile) -> Iterator[tuple[str, Gates]]:
    yield PLATFORM, file.platform
    for name in environment_names(settings.environments):
        yield name, load_environment(name, settings.environments).gates


def _environment(project: Project, name: str, gates: Gates, file: ProjectFile, plan: Plan) -> Json | None:
    place = environment(project, PREFIX + name, plan)
    who = [*(gates.approvers or file.approvers), *([file.mirror] if file.mirror else [])]
    checks(project, PREFIX + name, place, gates, who, plan)
    return place
