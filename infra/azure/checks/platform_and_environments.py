"""What the platform and an environment on Azure must offer: each finding comes with its fix.

Permissions are found out by trying: the identity that runs the checks is the one that is told what it lacks.
"""

from collections.abc import Iterator
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
from infra.azure.checks.release import Check, all_at_once, found_out, release_checks, told, vault_name, writable
from infra.azure.container_images.registry import ImageRegistry
from infra.azure.machine_learning.registry import ml_client
from infra.config.environments import Environment, load_environment
from infra.errors import PlatformError
from infra.finding import Finding, Severity
from infra.settings import Settings

ARM: Final = "https://management.azure.com/.default"
HEALTHY: Final = frozenset({"succeeded", "updating", "creating", ""})
"""Provisioning states of a resource that works; not all kinds of resources have one."""
PLATFORM_CONTAINERS: Final = ("data", "models", "results")


def check_platform(settings: Settings) -> list[Finding]:
    """The shared resources, this identity's access to them, and quota. Some seconds; never raises."""
    if not (signed_in := _sign_in()).ok:
        return [signed_in]
    forget_resources()
    name = f"{PLATFORM}-deployment"
    try:
        platform = platform_resources(settings)
    except PlatformError as error:
        return [signed_in, told(name, error, "blocks")]
    there = Finding(name=name, ok=True, severity="blocks", detail=f"{platform.resource_group} in {platform.location}")
    checks = [
        *(
            _tried(f"{PLATFORM}-blobs-{item}", writable(PLATFORM, platform.storage_account, item))
            for item in PLATFORM_CONTAINERS
        ),
        _tried(f"{PLATFORM}-workspace-access", lambda: _workspace(platform)),
        _tried(f"{PLATFORM}-registry-access", lambda: _registry(platform)),
        _tried(f"{PLATFORM}-gpu-quota", lambda: gpu_cores(platform, settings), severity="warns"),
    ]
    return [signed_in, there, *_resources(PLATFORM, platform, _of_platform(platform)), *all_at_once(checks)]


def check_environment(name: str, settings: Settings, *, required: bool = True) -> list[Finding]:
    """The resources of one environment, this identity's access to them, secrets, image and quota. Some seconds.

    Args:
        name: Of the environment.
        settings: Of this process.
        required: Whether it blocks that the environment is not provisioned.

    Raises:
        ConfigurationError: There is no such environment, or its file is wrong.
    """
    described = load_environment(name, settings.environments)
    forget_resources()
    try:
        found = environment_resources(described, settings)
    except PlatformError as error:
        return [told(f"{name}-deployment", error, "blocks" if required else "warns")]
    there = Finding(
        name=f"{name}-deployment", ok=True, severity="blocks", detail=f"{found.resource_group} in {found.location}"
    )
    checks = [_tried(check_name, check) for check_name, check in release_checks(described, found, settings).items()]
    if described.azure.endpoint == "container-instances":
        quota = f"{name}-container-quota"
        checks.append(_tried(quota, lambda: container_cores(described, settings, found.location), severity="warns"))
        checks.append(lambda: _encrypted(described))
    return [there, *_resources(name, found, of_environment(found)), *all_at_once(checks)]


def _tried(name: str, check: Check, *, severity: Severity = "blocks") -> Check:
    """The same check, with what it raises as its finding. An outage blocks nothing: it may be over when it matters."""

    def run() -> Finding:
        try:
            return found_out(name, check, severity)
        except PlatformError as error:
            return told(name, error, "warns")

    return run


def _sign_in() -> Finding:
    try:
        with azure_errors("signing in"):
            credential().get_token(ARM)
    except PlatformError as error:
        return told("azure-sign-in", error, "blocks")
    return Finding(name="azure-sign-in", ok=True, severity="blocks", detail="signed in to Azure")


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


def of_environment(found: EnvironmentResources) -> Iterator[tuple[str, str]]:
    yield "storage account", found.storage_account
    yield "key vault", vault_name(found.key_vault_url)
    yield "log analytics", _last(found.log_analytics_id)
    yield "identity", _last(found.identity_id)
    if found.web_app:
        yield "web app", found.web_app


def _last(resource_id: str) -> str:
    return resource_id.rpartition("/")[2]


def _resources(
    name: str, found: PlatformResources | EnvironmentResources, wanted: Iterator[tuple[str, str]]
) -> list[Finding]:
    try:
        return resources_there(name, found, wanted)
    except PlatformError as error:
        return [told(f"{name}-resources", error, "warns" if error.transient else "blocks")]


def resources_there(
    name: str, found: PlatformResources | EnvironmentResources, wanted: Iterator[tuple[str, str]]
) -> list[Finding]:
    """Whether each resource is there and in order, by one listing of the group."""
    fix = f"Provision it again: `ahc run infrastructure -p mode=provision -p environment={name}`."
    with azure_errors(f"listing what is in {found.resource_group}"):
        listed = resource_client(found.subscription_id).resources.list_by_resource_group(
            found.resource_group, expand="provisioningState"
        )
        states = {str(item.name).lower(): (item.provisioning_state or "") for item in listed}
    findings = []
    for kind, resource in wanted:
        state = states.get(resource.lower())
        ok = state is not None and state.lower() in HEALTHY
        findings.append(
            Finding(
                name=f"{name}-{kind.replace(' ', '-')}",
                ok=ok,
                severity="blocks",
                detail=f"{resource} " + ("is gone" if state is None else state or "is there"),
                fix="" if ok else fix,
            )
        )
    return findings


# --- what this identity may do ------------------------------------------------------------------------------------


def _workspace(platform: PlatformResources) -> Finding:
    from azure.core.exceptions import ResourceNotFoundError

    name = f"{PLATFORM}-workspace-access"
    client = ml_client(platform)
    with azure_errors(f"listing the models of {platform.workspace}"):
        try:
            count = sum(1 for _ in client.models.list())
        except ResourceNotFoundError:
            fix = f"`ahc run infrastructure -p mode=provision -p environment={PLATFORM}` makes it."
            detail = f"the workspace {platform.workspace} is gone"
            return Finding(name=name, ok=False, severity="blocks", detail=detail, fix=fix)
    return Finding(name=name, ok=True, severity="blocks", detail=f"{count} models can be read in {platform.workspace}")


def _registry(platform: PlatformResources) -> Finding:
    """Get a token to pull with; which image it is asked for does not matter."""
    with ImageRegistry(platform.registry_login_server) as images:
        images.digest("scoring", "stable")
    detail = f"images can be pulled from {platform.registry_login_server}"
    return Finding(name=f"{PLATFORM}-registry-access", ok=True, severity="blocks", detail=detail)


def _encrypted(environment: Environment) -> Finding:
    """Keys and images pass the Internet in the open where a public container has no certificate."""
    ok = environment.azure.private or bool(environment.azure.certificate)
    fix = (
        "Set `azure.certificate` (the Key Vault secret of a certificate) or `azure.private` in the environment's file."
    )
    return Finding(
        name=f"{environment.name}-encryption",
        ok=ok,
        severity="warns",
        detail="clients are not overheard" if ok else "a public address without TLS: keys and images can be overheard",
        fix="" if ok else fix,
    )
