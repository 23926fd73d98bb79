"""Operations of Azure Resource Manager that no client library has, called as they are published."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.clients import client_options
from infra.azure.access.credentials import credential

if TYPE_CHECKING:
    from azure.core import PipelineClient

RESOURCE_MANAGER: Final = "https://management.azure.com"


def ask(
    method: str, resource_id: str, operation: str, api_version: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The answer of an operation of a resource.

    Args:
        method: GET or POST.
        resource_id: Begins with `/subscriptions/`.
        operation: Path below the resource.
        api_version: In which the operation is published.
        body: Of a POST.

    Raises:
        AzureError: `azure_errors` translates it.
    """
    from azure.core.exceptions import ResourceNotFoundError, map_error
    from azure.core.rest import HttpRequest

    url = f"{RESOURCE_MANAGER}{resource_id}/{operation}"
    response = _pipeline().send_request(HttpRequest(method, url, params={"api-version": api_version}, json=body))
    map_error(response.status_code, response, {404: ResourceNotFoundError})
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


@lru_cache(maxsize=1)
def _pipeline() -> "PipelineClient[Any, Any]":
    from azure.core import PipelineClient
    from azure.core.pipeline import policies

    options = client_options()
    return PipelineClient(
        RESOURCE_MANAGER,
        policies=[
            policies.RequestIdPolicy(),
            policies.UserAgentPolicy("ahclassifier"),
            policies.RetryPolicy(**options),
            policies.BearerTokenCredentialPolicy(credential(), f"{RESOURCE_MANAGER}/.default"),
        ],
        connection_timeout=options["connection_timeout"],
        read_timeout=options["read_timeout"],
    )


def forget_resource_manager() -> None:
    """Make a new client: this process signs in anew."""
    _pipeline.cache_clear()
