"""Variable groups: plain names and values, or secrets that stay in the Key Vault."""

from collections.abc import Sequence
from typing import Any

from infra.azure_devops.client import Json
from infra.azure_devops.plan import OURS, Item, Work
from infra.azure_devops.project import Project
from infra.errors import DevOpsRefused


def variable_group(project: Project, name: str, variables: dict[str, str], work: Work) -> Json | None:
    """A group of names and values. What people added to it stays; None where it would only be made."""
    present = _group(project, name, "Vsts")
    seen = {key: item.get("value") or "" for key, item in (present or {}).get("variables", {}).items()}
    body = {"variables": {key: {"value": value} for key, value in variables.items()}}
    return _settle(project, name, "Vsts", body, present, wanted=variables, seen=seen, work=work)


def vault_group(
    project: Project, name: str, vault: str, secrets: Sequence[str], connection: Json | None, work: Work
) -> Json | None:
    """A group whose variables are secrets of a Key Vault: Azure DevOps reads them when a build starts.

    Args:
        project: Whose.
        name: Of the group.
        vault: Name of the Key Vault.
        secrets: Names of the secrets.
        connection: Service connection with which they are read; None where it would only be made.
        work: What is done.
    """
    present = _group(project, name, "AzureKeyVault")
    provider = (present or {}).get("providerData") or {}
    body = {
        "variables": {secret: {"isSecret": True, "enabled": True, "contentType": ""} for secret in secrets},
        "providerData": {"serviceEndpointId": connection["id"] if connection else None, "vault": vault},
    }
    wanted: dict[str, Any] = {"vault": vault, "connection": connection["id"] if connection else None}
    seen: dict[str, Any] = {"vault": provider.get("vault"), "connection": provider.get("serviceEndpointId")}
    wanted |= dict.fromkeys(secrets, True)
    seen |= {key: item.get("enabled", True) for key, item in (present or {}).get("variables", {}).items()}
    return _settle(project, name, "AzureKeyVault", body, present, wanted=wanted, seen=seen, work=work)


def _settle(
    project: Project,
    name: str,
    kind: str,
    body: Json,
    present: Json | None,
    *,
    wanted: dict[str, Any],
    seen: dict[str, Any],
    work: Work,
) -> Json | None:
    whole = {
        "name": name,
        "type": kind,
        "description": OURS,
        **body,
        "variableGroupProjectReferences": [
            {"name": name, "description": OURS, "projectReference": project.reference},
        ],
    }

    def mend(now: Json) -> Json:
        merged = {**whole, "variables": {**now.get("variables", {}), **whole["variables"]}}
        return project.devops.send("PUT", f"_apis/distributedtask/variablegroups/{now['id']}", merged)

    return work.settle(
        Item(
            kind="variable group",
            name=name,
            present=present,
            wanted=wanted,
            seen=seen,
            create=lambda: project.devops.send("POST", "_apis/distributedtask/variablegroups", whole),
            mend=mend,
        )
    )


def _group(project: Project, name: str, kind: str) -> Json | None:
    found = project.devops.values(project.path("distributedtask/variablegroups"), groupName=name)
    present = next((item for item in found if item["name"] == name), None)
    if present is not None and present["type"] != kind:
        raise DevOpsRefused(
            f"The variable group `{name}` of {project.name} is of the type {present['type']}, not {kind}: no group can "
            "become one of another type.",
            next_step="Delete it in the project's library and run `ahc devops init` again.",
        )
    return present
