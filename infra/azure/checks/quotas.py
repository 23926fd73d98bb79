"""Whether the subscription's quota covers what the platform may grow to. What can't be read never blocks."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.clients import client_options, container_client
from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import PLATFORM, PlatformResources, subscription
from infra.azure.provisioning.templates import compose
from infra.config.environments import Environment
from infra.finding import Finding, Severity
from infra.settings import Settings

if TYPE_CHECKING:
    from azure.mgmt.compute import ComputeManagementClient

ACI_CORES: Final = "StandardCores"
RAISE: Final = "Ask for more in the Azure portal (Quotas), or choose {other}."


def gpu_cores(platform: PlatformResources, settings: Settings, name: str) -> Finding:
    """Cores of the GPU machines' family, for as many machines as the cluster may grow to.

    Raises:
        PlatformError: Azure does not tell.
    """
    composed = compose(PLATFORM, settings)
    values = {key: item.get("defaultValue") for key, item in composed.template["parameters"].items()}
    values |= {key: item.get("value") for key, item in composed.parameters.items()}
    size, machines = str(values["gpuVmSize"]), int(values["gpuNodesMax"])
    if not platform.cluster or not machines:
        return Finding.of(name, "there is no cluster with GPU machines", severity="warns")
    with azure_errors(f"reading the quota of processor cores in {platform.location}"):
        usages: list[Any] = list(compute_client(platform.subscription_id).usage.list(platform.location))
    family = next((usage for usage in usages if _plain(usage.name.value) in families(size)), None)
    other = "another `gpuVmSize`, fewer `gpuNodesMax`, or another region"
    if family is None:
        detail = f"{platform.location} tells no quota for the family of {size}"
        return Finding.of(name, detail, RAISE.format(other=other), "warns")
    return _cores_finding(name, family, cores(size) * machines, f"{machines} machines {size}", other)


def container_cores(
    environment: Environment,
    settings: Settings,
    location: str,
    name: str,
    *,
    severity: Severity = "warns",
    groups: int = 0,
) -> Finding:
    """Cores of container instances, for so many container groups more; raises as `gpu_cores` does.

    Args:
        environment: Says how many cores one has.
        settings: Say the subscription.
        location: Where they are.
        name: Of the finding.
        severity: Of cores that are missing; that Azure tells no quota only warns.
        groups: A live one and a candidate where 0.
    """
    with azure_errors(f"reading the quota of container instances in {location}"):
        usages: list[Any] = list(container_client(subscription(settings, environment)).location.list_usage(location))
    usage = next((usage for usage in usages if usage.name.value == ACI_CORES), None)
    if usage is None:
        detail, fix = f"{location} tells no quota of container instances", "Look at it in the Azure portal (Quotas)."
        return Finding.of(name, detail, fix, "warns")
    # Where a version is live, its cores are among those in use: then only the candidate's are missing.
    needed = environment.azure.cpu * (groups or (1 if usage.current_value else 2))
    other = "a smaller `azure.cpu` in the environment's file"
    return _cores_finding(name, usage, needed, "scoring containers", other, severity)


def _cores_finding(name: str, usage: Any, needed: float, use: str, other: str, severity: Severity = "warns") -> Finding:
    free = usage.limit - usage.current_value
    detail = (
        f"{free:g} of {usage.limit:g} cores of {usage.name.localized_value or usage.name.value} are free, "
        f"{needed:g} are needed for {use}"
    )
    return Finding.of(name, detail, "" if free >= needed else RAISE.format(other=other), severity)


def cores(size: str) -> int:
    """Of a virtual machine, from its size: 4 of `Standard_NC4as_T4_v3`."""
    digits = re.search(r"\d+", size)
    return int(digits[0]) if digits else 1


def families(size: str) -> Iterable[str]:
    """What the quota's family of a size may be called: the accelerator comes before or after the version."""
    match = re.fullmatch(r"Standard_([A-Z]+)\d+([a-z]*)(?:_([A-Z]+\d+))?(?:_(v\d+))?", size)
    if match is None:
        return ()
    letters, kind, accelerator, version = (part or "" for part in match.groups())
    return (_plain(f"{letters}{kind}{version}{accelerator}"), _plain(f"{letters}{kind}{accelerator}{version}"))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]|standard|family", "", name.lower())


@lru_cache(maxsize=4)
def compute_client(subscription_id: str) -> "ComputeManagementClient":
    from azure.mgmt.compute import ComputeManagementClient

    return ComputeManagementClient(credential(), subscription_id, **client_options())
