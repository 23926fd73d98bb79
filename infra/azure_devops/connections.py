"""Service connections: to the subscription without a secret, and the webhook by which others start a pipeline."""

import re
from collections.abc import Callable
from typing import Any, Final

from pydantic import SecretStr

from infra.azure.provisioning.federation import PipelinesIdentity, Trust, read_trust, write_trust
from infra.azure_devops.client import Json
from infra.azure_devops.plan import OURS, Item, Work
from infra.azure_devops.project import Project
from infra.errors import DevOpsRefused
from infra.settings import Settings

FEDERATED: Final = "WorkloadIdentityFederation"
SIGNATURE: Final = "X-Hub-Signature"
"""Header in which a webhook's signature is."""


def subscription_connection(
    project: Project, name: str, identity: PipelinesIdentity, subscription_id: str, work: Work
) -> Json | None:
    """The service connection that signs in as the pipelines' identity; None where it would only be made.

    Raises:
        DevOpsRefused: One of this name is of another kind.
    """
    present = _connection(project, name, "azurerm")
    authorization = (present or {}).get("authorization", {})
    data = (present or {}).get("data", {})
    wanted = _subscription_body(project, name, identity, subscription_id)

    def mend(now: Json) -> Json:
        parameters = {**now["authorization"].get("parameters", {}), **wanted["authorization"]["parameters"]}
        authorization = {**wanted["authorization"], "parameters": parameters}
        return _replace(project, {**now, **wanted, "authorization": authorization})

    return work.settle(
        Item(
            kind="service connection",
            name=name,
            present=present,
            wanted={
                "scheme": FEDERATED,
                "identity": identity.client_id,
                "tenant": identity.tenant_id,
                "subscription": subscription_id,
            },
            seen={
                "scheme": authorization.get("scheme"),
                "identity": authorization.get("parameters", {}).get("serviceprincipalid"),
                "tenant": authorization.get("parameters", {}).get("tenantid"),
                "subscription": data.get("subscriptionId"),
            },
            create=lambda: _create(project, wanted),
            mend=mend,
        )
    )


def federated_credential(
    connection_name: str, connection: Json | None, identity: PipelinesIdentity, settings: Settings, work: Work
) -> None:
    """Let the identity trust the connection: issuer and subject are what Azure DevOps has given to it.

    Raises:
        DevOpsRefused: The connection has neither.
        AccessDenied: Who runs this may not write on the identity.
    """
    wanted = _trust_in(connection) if connection else None
    name = re.sub(r"[^A-Za-z0-9_-]", "-", f"azure-devops-{connection_name}")
    present = read_trust(identity, name, settings) if connection else None

    def write(_: Any = None) -> Json:
        assert wanted is not None
        write_trust(identity, name, wanted, settings)
        return {}

    work.settle(
        Item(
            kind="federated credential",
            name=name,
            present=present.model_dump() if present else None,
            wanted=wanted.model_dump() if wanted else {},
            seen=present.model_dump() if present else {},
            create=write,
            mend=write,
        )
    )


def webhook_connection(project: Project, name: str, secret: Callable[[], SecretStr], work: Work) -> Json | None:
    """The incoming webhook of this name; None where it would only be made.

    Args:
        project: Whose.
        name: Of webhook and connection.
        secret: Answers what requests are signed with; asked only when it is written. Nobody can read it back.
        work: What is done.
    """
    present = _connection(project, name, "incomingwebhook")
    parameters = (present or {}).get("authorization", {}).get("parameters", {})

    def body() -> Json:
        given = {"webhookname": name, "header": SIGNATURE, "secret": secret().get_secret_value()}
        return {
            "name": name,
            "type": "incomingwebhook",
            "url": "https://dev.azure.com",
            "description": OURS,
            "authorization": {"scheme": "None", "parameters": given},
            "isShared": False,
            "isReady": True,
            "serviceEndpointProjectReferences": _references(project, name),
        }

    return work.settle(
        Item(
            kind="incoming webhook",
            name=name,
            present=present,
            wanted={"webhook": name, "header": SIGNATURE},
            seen={"webhook": parameters.get("webhookname"), "header": parameters.get("header")},
            create=lambda: _create(project, body()),
            mend=lambda now: _replace(project, {**now, **body()}),
        )
    )


def _subscription_body(project: Project, name: str, identity: PipelinesIdentity, subscription_id: str) -> Json:
    return {
        "name": name,
        "type": "azurerm",
        "url": "https://management.azure.com/",
        "description": OURS,
        "authorization": {
            "scheme": FEDERATED,
            "parameters": {"tenantid": identity.tenant_id, "serviceprincipalid": identity.client_id},
        },
        "data": {
            "subscriptionId": subscription_id,
            "subscriptionName": subscription_id,
            "environment": "AzureCloud",
            "scopeLevel": "Subscription",
            # The identity is there already: Azure DevOps is not to make an application of its own.
            "creationMode": "Manual",
        },
        "isShared": False,
        "isReady": True,
        "serviceEndpointProjectReferences": _references(project, name),
    }


def _references(project: Project, name: str) -> list[Json]:
    return [{"projectReference": project.reference, "name": name, "description": OURS}]


def _connection(project: Project, name: str, kind: str) -> Json | None:
    found = project.devops.values(project.path("serviceendpoint/endpoints"), endpointNames=name)
    present = next((item for item in found if item["name"].casefold() == name.casefold()), None)
    if present is not None and present["type"].casefold() != kind:
        raise DevOpsRefused(
            f"The service connection `{name}` of {project.name} is of the type {present['type']}, not {kind}.",
            next_step="Rename or delete it, or use another name in deployments/devops.yaml.",
        )
    return present


def _create(project: Project, body: Json) -> Json:
    return project.devops.send("POST", "_apis/serviceendpoint/endpoints", body)


def _replace(project: Project, body: Json) -> Json:
    return project.devops.send("PUT", f"_apis/serviceendpoint/endpoints/{body['id']}", body)


def _trust_in(connection: Json) -> Trust:
    given = connection["authorization"].get("parameters", {})
    issuer, subject = given.get("workloadIdentityFederationIssuer"), given.get("workloadIdentityFederationSubject")
    if not issuer or not subject:
        raise DevOpsRefused(
            f"The service connection `{connection['name']}` tells neither issuer nor subject of its tokens.",
            next_step="Delete it in the project's settings and run `ahc devops init` again.",
        )
    return Trust(issuer=issuer, subject=subject)
