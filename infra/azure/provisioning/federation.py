"""The identity of the pipelines, and whom it trusts: a service connection of Azure DevOps, without a secret."""

from typing import Any, Final

from infra.azure.access.clients import resource_client
from infra.azure.access.errors import azure_errors, if_present
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
    resource_id = platform_resources(settings).pipelines_identity_id
    missing = NotProvisioned(
        "The platform has no identity for pipelines.",
        next_step="Provision it: `ahc run infrastructure -p mode=provision -p environment=platform`.",
    )
    if not resource_id:
        raise missing
    with azure_errors(f"reading the identity {resource_id}", missing):
        facts = _resources(settings).get_by_id(resource_id, VERSION).properties
    return PipelinesIdentity(resource_id=resource_id, client_id=facts["clientId"], tenant_id=facts["tenantId"])


def read_trust(identity: PipelinesIdentity, name: str, settings: Settings) -> Trust | None:
    """The federated credential of this name; None without."""
    with azure_errors(f"reading the federated credential {name} of {identity.resource_id}"):
        answer = if_present(lambda: _resources(settings).get_by_id(_credential_id(identity, name), VERSION))
    return Trust.model_validate(answer.properties) if answer else None


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
