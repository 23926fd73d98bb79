"""Service connections: to the subscription without a secret, and the webhook by which others start a pipeline."""

import re
from collections.abc import Callable
from typing import Any, Final

from pydantic import SecretStr

from infra.azure.provisioning.federation import PipelinesIdentity, Trust, read_trust, write_trust
from infra.azure_devops.client import Json
from infra.azure_devops.plan import MADE_BY, Plan
from infra.azure_devops.project import Project
from infra.errors import DevOpsRefused
from infra.settings import Settings

FEDERATED: Final = "WorkloadIdentityFederation"
SIGNATURE: Final = "X-Hub-Signature"
"""Header in which a webhook's signature is."""


def subscription_connection(
    project: Project, name: str, identity: PipelinesIdentity, subscription_id: str, plan: Plan
) -> Json | None:
    """The service connection that signs in as the pipelines' identity; None where it would only be made.

    Raises:
        DevOpsRefused: One of this name is of another kind.
    """
    present = _connection(project, name, "azurerm")
    authorization = (present or {}).get("authorization", {})
    data = (present or {}).get("data", {})
    body = _subscription_body(project, name, identity, subscription_id)

    def update(now: Json) -> Json:
        parameters = {**now["authorization"].get("parameters", {}), **body["authorization"]["parameters"]}
        authorization = {**body["authorization"], "parameters": parameters}
        return _replace(project, {**now, **body, "authorization": authorization})

    return plan.apply(
        "service connection",
        name,
        present,
        create=lambda: _create(project, body),
        update=update,
        desired={
            "scheme": FEDERATED,
            "identity": identity.client_id,
            "tenant": identity.tenant_id,
            "subscription": subscription_id,
        },
        actual={
            "scheme": authorization.get("scheme"),
            "identity": authorization.get("parameters", {}).get("serviceprincipalid"),
            "tenant": authorization.get("parameters", {}).get("tenantid"),
            "subscription": data.get("subscriptionId"),
        },
    )


def federated_credential(
    connection_name: str, connection: Json | None, identity: PipelinesIdentity, settings: Settings, plan: Plan
) -> None:
    """Let the identity trust the connection: issuer and subject are what Azure DevOps has given to it.

    Raises:
        DevOpsRefused: The connection has neither.
        AccessDenied: Who runs this may not write on the identity.
    """
    trust = _trust_in(connection) if connection else None
    name = re.sub(r"[^A-Za-z0-9_-]", "-", f"azure-devops-{connection_name}")
    present = read_trust(identity, name, settings) if connection else None

    def write(_: Any = None) -> Json:
        assert trust is not None
        write_trust(identity, name, trust, settings)
        return {}

    actual = present.model_dump() if present else None
    desired = trust.model_dump() if trust else None
    plan.apply("federated credential", name, actual, create=write, update=write, desired=desired, actual=actual)


def webhook_connection(project: Project, name: str, secret: Callable[[], SecretStr], plan: Plan) -> Json | None:
    """The incoming webhook of this name; None where it would only be made.

    Args:
        project: Whose.
        name: Of webhook and connection.
        secret: Answers what requests are signed with; asked only when it is written. Nobody can read it back.
        plan: Gets the changes.
    """
    present = _connection(project, name, "incomingwebhook")
    parameters = (present or {}).get("authorization", {}).get("parameters", {})

    def body() -> Json:
        parameters = {"webhookname": name, "header": SIGNATURE, "secret": secret().get_secret_value()}
        return {
            "name": name,
            "type": "incomingwebhook",
            "url": "https://dev.azure.com",
            "description": MADE_BY,
            "authorization": {"scheme": "None", "parameters": parameters},
            "isShared": False,
            "isReady": True,
            "serviceEndpointProjectReferences": _references(project, name),
        }

    return plan.apply(
        "incoming webhook",
        name,
        present,
        create=lambda: _create(project, body()),
        update=lambda now: _replace(project, {**now, **body()}),
        desired={"webhook": name, "header": SIGNATURE},
        actual={"webhook": parameters.get("webhookname"), "header": parameters.get("header")},
    )


def _subscription_body(project: Project, name: str, identity: PipelinesIdentity, subscription_id: str) -> Json:
    return {
        "name": name,
        "type": "azurerm",
        "url": "https://management.azure.com/",
        "description": MADE_BY,
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
    return [{"projectReference": project.reference, "name": name, "description": MADE_BY}]


def _connection(project: Project, name: str, kind: str) -> Json | None:
    present = project.find("serviceendpoint/endpoints", "endpointNames", name)
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
    parameters = connection["authorization"].get("parameters", {})
    issuer = parameters.get("workloadIdentityFederationIssuer")
    subject = parameters.get("workloadIdentityFederationSubject")
    if not issuer or not subject:
        raise DevOpsRefused(
            f"The service connection `{connection['name']}` tells neither issuer nor subject of its tokens.",
            next_step="Delete it in the project's settings and run `ahc devops init` again.",
        )
    return Trust(issuer=issuer, subject=subject)
