"""What the platform and an environment on Azure must offer: each finding comes with its fix.

Permissions are checked by trying: the identity that runs the checks reads what it lacks.
"""

from collections.abc import Iterator
from functools import partial
from typing import Final

from infra.azure.access.clients import resource_client
from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import (
    PLATFORM,
    EnvironmentResources,
    PlatformResources,
    environment_resources,
    forget_resources,
    platform_resources,
)
from infra.azure.checks.quotas import container_cores, gpu_cores
from infra.azure.checks.release import release_checks, run_checks, vault_name, writable
from infra.azure.container_images.registry import ImageRegistry
from infra.azure.machine_learning.registry import ml_client
from infra.config.environments import load_environment
from infra.errors import PlatformError
from infra.finding import Check, Finding, finding_of_error, run_check
from infra.settings import Settings

ARM: Final = "https://management.azure.com/.default"
HEALTHY: Final = frozenset({"succeeded", "updating", "creating", ""})
"""Provisioning states of a resource that works; not all kinds of resources have one."""
PLATFORM_CONTAINERS: Final = ("data", "models", "results")


def check_platform(settings: Settings) -> list[Finding]:
    """The shared resources, this identity's access to them, and quota. Some seconds; never raises."""
    signed_in = run_check(Check("azure-sign-in", _sign_in), outage="blocks")
    if not signed_in.ok:
        return [signed_in]
    forget_resources()
    name = f"{PLATFORM}-deployment"
    try:
        platform = platform_resources(settings)
    except PlatformError as error:
        return [signed_in, finding_of_error(name, error)]
    group = Finding.of(name, f"{platform.resource_group} in {platform.location}")
    can_write = partial(writable, PLATFORM, platform.storage_account)
    checks = [
        *(Check(f"{PLATFORM}-blobs-{item}", partial(can_write, item)) for item in PLATFORM_CONTAINERS),
        Check(f"{PLATFORM}-workspace-access", partial(_workspace, platform)),
        Check(f"{PLATFORM}-registry-access", partial(_registry, platform)),
        Check(f"{PLATFORM}-gpu-quota", partial(gpu_cores, platform, settings), "warns"),
    ]
    resources = _resources(PLATFORM, platform, _of_platform(platform))
    return [signed_in, group, *resources, *run_checks(checks, outage="warns")]


def check_environment(name: str, settings: Settings, *, required: bool = True) -> list[Finding]:
    """The resources of one environment, this identity's access to them, secrets, image and quota. Some seconds.

    Args:
        name: Of the environment.
        settings: Of this process.
        required: Whether it blocks that the environment is not provisioned.

    Raises:
        ConfigurationError: There is no such environment, or its file is wrong.
    """
    environment = load_environment(name, settings.environments)
    forget_resources()
    try:
        resources = environment_resources(environment, settings)
    except PlatformError as error:
        return [finding_of_error(f"{name}-deployment", error, "blocks" if required else "warns")]
    findings = [
        Finding.of(f"{name}-deployment", f"{resources.resource_group} in {resources.location}"),
        *_resources(name, resources, of_environment(resources)),
    ]
    checks = release_checks(environment, resources, settings)
    if environment.azure.endpoint == "container-instances":
        cores = partial(container_cores, environment, settings, resources.location)
        checks.append(Check(f"{name}-container-quota", cores, "warns"))
        encrypted = environment.azure.private or bool(environment.azure.certificate)
        checks.append(Check(f"{name}-encryption", partial(_encryption, encrypted)))
    return [*findings, *run_checks(checks, outage="warns")]


def _sign_in(name: str) -> Finding:
    with azure_errors("signing in"):
        credential().get_token(ARM)
    return Finding.of(name, "signed in to Azure")


# --- what is there ------------------------------------------------------------------------------------------------


def _of_platform(platform: PlatformResources) -> Iterator[tuple[str, str]]:
    yield "storage account", platform.storage_account
    yield "key vault", vault_name(platform.key_vault_url)
    yield "container registry", platform.container_registry
    yield "workspace", platform.workspace
    yield "log analytics", _last(platform.log_analytics_id)
    yield "training identity", _last(platform.training_identity_id)
    if platform.cluster:
        yield "cluster", platform.cluster
    if platform.database_host:
        yield "database", platform.database_host.partition(".")[0]


def of_environment(environment: EnvironmentResources) -> Iterator[tuple[str, str]]:
    yield "storage account", environment.storage_account
    yield "key vault", vault_name(environment.key_vault_url)
    yield "log analytics", _last(environment.log_analytics_id)
    yield "identity", _last(environment.identity_id)
    if environment.web_app:
        yield "web app", environment.web_app


def _last(resource_id: str) -> str:
    return resource_id.rpartition("/")[2]


def _resources(
    name: str, part: PlatformResources | EnvironmentResources, resources: Iterator[tuple[str, str]]
) -> list[Finding]:
    try:
        return resources_there(name, part, resources)
    except PlatformError as error:
        return [finding_of_error(f"{name}-resources", error, "warns" if error.transient else "blocks")]


def resources_there(
    name: str, part: PlatformResources | EnvironmentResources, resources: Iterator[tuple[str, str]]
) -> list[Finding]:
    """Whether each resource is there and in order, by one listing of the group."""
    fix = f"Provision it again: `ahc run infrastructure -p mode=provision -p environment={name}`."
    with azure_errors(f"listing what is in {part.resource_group}"):
        listed = resource_client(part.subscription_id).resources.list_by_resource_group(
            part.resource_group, expand="provisioningState"
        )
        states = {str(item.name).lower(): (item.provisioning_state or "") for item in listed}
    findings = []
    for kind, resource in resources:
        state = states.get(resource.lower())
        ok = state is not None and state.lower() in HEALTHY
        detail = f"{resource} " + ("is gone" if state is None else state or "is there")
        findings.append(Finding.of(f"{name}-{kind.replace(' ', '-')}", detail, "" if ok else fix))
    return findings


# --- what this identity may do ------------------------------------------------------------------------------------


def _workspace(platform: PlatformResources, name: str) -> Finding:
    from azure.core.exceptions import ResourceNotFoundError

    client = ml_client(platform)
    with azure_errors(f"listing the models of {platform.workspace}"):
        try:
            count = sum(1 for _ in client.models.list())
        except ResourceNotFoundError:
            fix = f"`ahc run infrastructure -p mode=provision -p environment={PLATFORM}` makes it."
            return Finding.of(name, f"the workspace {platform.workspace} is gone", fix)
    return Finding.of(name, f"{count} models can be read in {platform.workspace}")


def _registry(platform: PlatformResources, name: str) -> Finding:
    """Get a token to pull with; which image it is asked for does not matter."""
    with ImageRegistry(platform.registry_login_server) as images:
        images.digest("scoring", "stable")
    return Finding.of(name, f"images can be pulled from {platform.registry_login_server}")


def _encryption(encrypted: bool, name: str) -> Finding:
    """Keys and images pass the Internet in the open where a public container has no certificate."""
    if encrypted:
        return Finding.of(name, "clients are not overheard", severity="warns")
    fix = (
        "Set `azure.certificate` (the Key Vault secret of a certificate) or `azure.private` in the environment's file."
    )
    return Finding.of(name, "a public address without TLS: keys and images can be overheard", fix, "warns")
