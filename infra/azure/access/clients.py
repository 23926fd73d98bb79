"""What every client of Azure's control plane is made with."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.credentials import credential

if TYPE_CHECKING:
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient
    from azure.mgmt.resource import ResourceManagementClient
    from azure.mgmt.web import WebSiteManagementClient

RETRIES: Final = 4
REPEATABLE: Final[dict[str, Any]] = {"retry_on_methods": frozenset({"PATCH"})}
"""For a PATCH that may be sent twice: without this, the SDK gives up when the connection breaks."""


def client_options() -> dict[str, Any]:
    """Keyword arguments for any azure-mgmt client, Key Vault client or MLClient.

    Throttling, 5xx and broken connections are retried up to 4 times within about 6 seconds, or as slowly as Retry-After
    asks; the task's own retries come after that. Operations that run long are polled as Azure asks, else every 5 s.
    """
    return {
        "retry_total": RETRIES,
        # Each kind of failure has a limit of its own too, which is lower by default.
        "retry_status": RETRIES,
        "retry_connect": RETRIES,
        "retry_read": RETRIES,
        "retry_backoff_factor": 0.4,
        "retry_backoff_max": 10,
        "connection_timeout": 10,
        "read_timeout": 60,
        "polling_interval": 5,
    }


@lru_cache(maxsize=8)
def resource_client(subscription_id: str) -> "ResourceManagementClient":
    """Resource groups, resources and deployments of a subscription."""
    from azure.mgmt.resource import ResourceManagementClient

    return ResourceManagementClient(credential(), subscription_id, **client_options())


@lru_cache(maxsize=8)
def container_client(subscription_id: str) -> "ContainerInstanceManagementClient":
    """Container groups of a subscription."""
    from azure.mgmt.containerinstance import ContainerInstanceManagementClient

    return ContainerInstanceManagementClient(credential(), subscription_id, **client_options())


@lru_cache(maxsize=8)
def web_client(subscription_id: str) -> "WebSiteManagementClient":
    """Web apps of a subscription."""
    from azure.mgmt.web import WebSiteManagementClient

    return WebSiteManagementClient(credential(), subscription_id, **client_options())
