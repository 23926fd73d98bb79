"""A container group that scores: from what it is told to what Azure Container Instances is asked for."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.errors import azure_errors
from infra.azure.access.resource_manager import ask
from infra.azure.access.resources import EnvironmentResources
from infra.azure.endpoint.container_settings import SAFE, ContainerConfig
from infra.config.environments import AzureTarget
from model.values import Frozen

if TYPE_CHECKING:
    from azure.mgmt.containerinstance.models import ContainerGroup

CONTAINER: Final = "scoring"
WORKSPACE_API: Final = "2020-08-01"


class GroupDefinition(Frozen):
    """Everything that one container group is made of, except its name and tags."""

    image: str
    registry: str
    """Login server that the image is pulled from."""
    config: ContainerConfig
    target: AzureTarget
    resources: EnvironmentResources

    def fingerprint(self) -> str:
        """Tells two definitions apart; the same for two attempts to release one version."""
        facts = self.model_dump(mode="json", include={"image", "config", "target"})
        del facts["config"]["correlation_id"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def container_group(definition: GroupDefinition, dns_label: str, tags: Mapping[str, str]) -> "ContainerGroup":
    """What is sent to Azure; the label is that of the public address, if it gets one."""
    from azure.mgmt.containerinstance import models

    resources = definition.resources
    return models.ContainerGroup(
        location=resources.location,
        tags=dict(tags),
        os_type="Linux",
        restart_policy="Always",
        sku="Standard",
        identity=models.ContainerGroupIdentity(
            type="UserAssigned", user_assigned_identities={resources.identity_id: models.UserAssignedIdentities()}
        ),
        image_registry_credentials=[
            models.ImageRegistryCredential(server=definition.registry, identity=resources.identity_id)
        ],
        containers=[_container(definition)],
        ip_address=_address(definition, dns_label),
        subnet_ids=[models.ContainerGroupSubnetId(id=resources.endpoint_subnet_id)]
        if definition.target.private
        else None,
        diagnostics=models.ContainerGroupDiagnostics(
            log_analytics=models.LogAnalytics(
                workspace_id=resources.log_analytics_customer_id,
                workspace_key=_workspace_key(resources.log_analytics_id),
                workspace_resource_id=resources.log_analytics_id,
                log_type="ContainerInstanceLogs",
            )
        ),
    )


def _container(definition: GroupDefinition) -> Any:
    from azure.mgmt.containerinstance import models

    target, port = definition.target, definition.config.port
    return models.Container(
        name=CONTAINER,
        image=definition.image,
        ports=[models.ContainerPort(port=port, protocol="TCP")],
        environment_variables=[_variable(*item) for item in definition.config.variables().items()],
        resources=models.ResourceRequirements(
            requests=models.ResourceRequests(cpu=target.cpu, memory_in_gb=target.memory_gb)
        ),
        # A dead event loop is restarted; the time covers the fetching of a large bundle.
        liveness_probe=_probe(definition, "/health/live", initial_delay_seconds=120, failure_threshold=6),
        readiness_probe=_probe(definition, "/health/ready", initial_delay_seconds=2, failure_threshold=3),
    )


def _variable(name: str, value: str) -> Any:
    from azure.mgmt.containerinstance import models

    if name in SAFE:
        return models.EnvironmentVariable(name=name, value=value)
    return models.EnvironmentVariable(name=name, secure_value=value)


def _probe(definition: GroupDefinition, path: str, **limits: Any) -> Any:
    from azure.mgmt.containerinstance import models

    scheme = "https" if definition.config.certificate else "http"
    return models.ContainerProbe(
        http_get=models.ContainerHttpGet(path=path, port=definition.config.port, scheme=scheme),
        period_seconds=10,
        timeout_seconds=5,
        **limits,
    )


def _address(definition: GroupDefinition, dns_label: str) -> Any:
    from azure.mgmt.containerinstance import models

    ports = [models.Port(port=definition.config.port, protocol="TCP")]
    if definition.target.private:
        return models.IpAddress(type="Private", ports=ports)
    return models.IpAddress(type="Public", ports=ports, dns_name_label=dns_label)


def _workspace_key(workspace_id: str) -> str:
    """Container Instances writes to Log Analytics by the workspace's key only; the identity can't be used for it."""
    with azure_errors(f"reading the key of {workspace_id}"):
        return str(ask("POST", workspace_id, "sharedKeys", WORKSPACE_API)["primarySharedKey"])
