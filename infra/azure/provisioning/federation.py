"""The identity of the pipelines, and whom it trusts: a service connection of Azure DevOps, without a secret."""

from typing import Any, Final

from infra.azure.access.clients import resource_client
from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources, subscription
from infra.errors import NotProvisioned
from infra.settings import Settings
from model.values import Frozen

VERSION: Final = "2023-01-31"
AUDIENCE: Final = "api://AzureADTokenExchange"


class PipelinesIdentity(Frozen):
    """The user-assigned identity as which pipelines work on Azure; `infra/arm/platform.json` makes it."""

    resource_id: str
    client_id: str
    tenant_id: str


class Trust(Frozen):
    """A federated credential: whoever shows a token of this issuer about this subject is the identity."""

    issuer: str
    subject: str
    audiences: tuple[str, ...] = (AUDIENCE,)


def pipelines_identity(settings: Settings) -> PipelinesIdentity:
    """Raises: NotProvisioned, where the platform was provisioned without it, or not at all."""
    from azure.core.exceptions import ResourceNotFoundError

    resource_id = platform_resources(settings).pipelines_identity_id
    missing = NotProvisioned(
        "The platform has no identity for pipelines.",
        next_step="Provision it: `ahc run infrastructure -p mode=provision -p environment=platform`.",
    )
    if not resource_id:
        raise missing
    with azure_errors(f"reading the identity {resource_id}"):
        try:
            found = _resources(settings).get_by_id(resource_id, VERSION).properties
        except ResourceNotFoundError as error:
            raise missing from error
    return PipelinesIdentity(resource_id=resource_id, client_id=found["clientId"], tenant_id=found["tenantId"])


def read_trust(identity: PipelinesIdentity, name: str, settings: Settings) -> Trust | None:
    """The federated credential of this name; None without."""
    from azure.core.exceptions import ResourceNotFoundError

    with azure_errors(f"reading the federated credential {name} of {identity.resource_id}"):
        try:
            found = _resources(settings).get_by_id(_credential_id(identity, name), VERSION).properties
        except ResourceNotFoundError:
            return None
    return Trust(issuer=found["issuer"], subject=found["subject"], audiences=tuple(found["audiences"]))


def write_trust(identity: PipelinesIdentity, name: str, trust: Trust, settings: Settings) -> None:
    """Let the identity trust it.

    Raises:
        AccessDenied: Names the role that is missing (Managed Identity Contributor, or Contributor).
    """
    with azure_errors(f"writing the federated credential {name} of {identity.resource_id}"):
        _resources(settings).begin_create_or_update_by_id(
            _credential_id(identity, name), VERSION, {"properties": trust.model_dump(mode="json")}
        ).result()


def _credential_id(identity: PipelinesIdentity, name: str) -> str:
    return f"{identity.resource_id}/federatedIdentityCredentials/{name}"


def _resources(settings: Settings) -> Any:
    return resource_client(subscription(settings)).resources
