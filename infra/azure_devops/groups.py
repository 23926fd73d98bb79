"""Variable groups: plain names and values, or secrets that stay in the Key Vault."""

from collections.abc import Sequence
from typing import Any

from infra.azure_devops.client import Json
from infra.azure_devops.plan import MADE_BY, Plan
from infra.azure_devops.project import Project
from infra.errors import DevOpsRefused


def variable_group(project: Project, name: str, variables: dict[str, str], plan: Plan) -> Json | None:
    """A group of names and values. What people added to it stays; None where it would only be made."""
    present = _group(project, name, "Vsts")
    actual = {key: item.get("value") or "" for key, item in (present or {}).get("variables", {}).items()}
    body = {"variables": {key: {"value": value} for key, value in variables.items()}}
    return _apply(project, name, "Vsts", body, present, desired=variables, actual=actual, plan=plan)


def vault_group(
    project: Project, name: str, vault: str, secrets: Sequence[str], connection: Json | None, plan: Plan
) -> Json | None:
    """A group whose variables are secrets of a Key Vault: Azure DevOps reads them when a build starts.

    Args:
        project: Whose.
        name: Of the group.
        vault: Name of the Key Vault.
        secrets: Names of the secrets.
        connection: Service connection with which they are read; None where it would only be made.
        plan: Gets the changes.
    """
    present = _group(project, name, "AzureKeyVault")
    provider = (present or {}).get("providerData") or {}
    body = {
        "variables": {secret: {"isSecret": True, "enabled": True, "contentType": ""} for secret in secrets},
        "providerData": {"serviceEndpointId": connection["id"] if connection else None, "vault": vault},
    }
    desired: dict[str, Any] = {"vault": vault, "connection": connection["id"] if connection else None}
    actual: dict[str, Any] = {"vault": provider.get("vault"), "connection": provider.get("serviceEndpointId")}
    desired |= dict.fromkeys(secrets, True)
    actual |= {key: item.get("enabled", True) for key, item in (present or {}).get("variables", {}).items()}
    return _apply(project, name, "AzureKeyVault", body, present, desired=desired, actual=actual, plan=plan)


def _apply(
    project: Project,
    name: str,
    kind: str,
    body: Json,
    present: Json | None,
    *,
    desired: dict[str, Any],
    actual: dict[str, Any],
    plan: Plan,
) -> Json | None:
    whole = {
        "name": name,
        "type": kind,
        "description": MADE_BY,
        **body,
        "variableGroupProjectReferences": [
            {"name": name, "description": MADE_BY, "projectReference": project.reference},
        ],
    }

    def update(now: Json) -> Json:
        merged = {**whole, "variables": {**now.get("variables", {}), **whole["variables"]}}
        return project.devops.send("PUT", f"_apis/distributedtask/variablegroups/{now['id']}", merged)

    return plan.apply(
        "variable group",
        name,
        present,
        create=lambda: project.devops.send("POST", "_apis/distributedtask/variablegroups", whole),
        update=update,
        desired=desired,
        actual=actual,
    )


def _group(project: Project, name: str, kind: str) -> Json | None:
    present = project.find("distributedtask/variablegroups", "groupName", name)
    if present is not None and present["type"] != kind:
        raise DevOpsRefused(
            f"The variable group `{name}` of {project.name} is of the type {present['type']}, not {kind}: no group can "
            "become one of another type.",
            next_step="Delete it in the project's library and run `ahc devops init` again.",
        )
    return present
