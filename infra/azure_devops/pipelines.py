"""Pipelines from the YAML of the repository, the branch policy, and what each pipeline may use."""

from typing import Final

from infra.azure_devops.client import PREVIEW, Json
from infra.azure_devops.plan import MADE_BY, Plan
from infra.azure_devops.project import Project
from infra.azure_devops.project_file import Pipeline

YAML: Final = 2
"""A process, or a trigger's settings, from a file."""
BUILD_POLICY: Final = "0609b952-1397-4640-95ec-e00a01b2c241"
"""Build validation, among the types of branch policies."""
HMADE_BY_VALID: Final = 12
"""After so many hours a green build of a pull request is asked for again, where its target went on."""


def pipeline(
    project: Project, name: str, settings: Pipeline, repository: Json, branch: str, queue: Json | None, plan: Plan
) -> Json | None:
    """The pipeline; None where it would only be made."""
    present = _definition(project, name)
    ref = f"refs/heads/{branch}"
    parts = {
        "process": {"type": YAML, "yamlFilename": settings.file},
        "repository": {
            "id": repository["id"],
            "name": repository["name"],
            "type": "TfsGit",
            "defaultBranch": ref,
            "url": repository.get("remoteUrl"),
        },
        "queueStatus": "enabled",
    }
    path = project.path("build/definitions")
    now = present or {"process": {}, "repository": {}}

    def create() -> Json:
        body = {
            **parts,
            "name": name,
            "path": "\\",
            "type": "build",
            "description": MADE_BY,
            "queue": {"id": (queue or {})["id"]},
            # Without it, the triggers that the file names count for nothing.
            "triggers": [
                {
                    "triggerType": "continuousIntegration",
                    "settingsSourceType": YAML,
                    "branchFilters": [],
                    "pathFilters": [],
                    "batchChanges": False,
                    "maxConcurrentBuildsPerBranch": 1,
                }
            ],
        }
        return project.devops.send("POST", path, body)

    return plan.apply(
        "pipeline",
        name,
        present,
        create=create,
        update=lambda now: project.devops.send("PUT", f"{path}/{now['id']}", {**now, **parts}),
        desired={"file": settings.file, "repository": repository["id"], "branch": ref, "queueStatus": "enabled"},
        actual={
            "file": now["process"].get("yamlFilename", "").lstrip("/"),
            "repository": now["repository"].get("id"),
            "branch": now["repository"].get("defaultBranch"),
            "queueStatus": now.get("queueStatus"),
        },
    )


def build_validation(
    project: Project, name: str, definition: Json | None, repository: Json, branch: str, plan: Plan
) -> None:
    """A pull request to the branch needs this pipeline to succeed."""
    path = project.path("policy/configurations")
    ref = f"refs/heads/{branch}"
    scope = {"repositoryId": repository["id"], "refName": ref, "matchKind": "Exact"}
    present = None
    if definition is not None:
        policies = project.devops.values(path, policyType=BUILD_POLICY)
        present = next((item for item in policies if _is_for(item, definition["id"], repository["id"], ref)), None)
    body = {
        "isEnabled": True,
        "isBlocking": True,
        "type": {"id": BUILD_POLICY},
        "settings": {
            "buildDefinitionId": (definition or {}).get("id"),
            "displayName": name,
            "manualQueueOnly": False,
            "queueOnSourceUpdateOnly": True,
            "validDuration": HMADE_BY_VALID * 60,
            "scope": [scope],
        },
    }
    plan.apply(
        "branch policy",
        f"{name} on {branch}",
        present,
        create=lambda: project.devops.send("POST", path, body),
        update=lambda now: project.devops.send("PUT", f"{path}/{now['id']}", body),
        desired={"enabled": True, "blocking": True, "manual": False},
        actual={
            "enabled": (present or {}).get("isEnabled"),
            "blocking": (present or {}).get("isBlocking"),
            "manual": (present or {}).get("settings", {}).get("manualQueueOnly"),
        },
    )


def permission(
    project: Project,
    kind: str,
    name: str,
    resource: Json | None,
    pipeline_name: str,
    definition: Json | None,
    plan: Plan,
) -> None:
    """This pipeline may use this resource, without anybody being asked at its first run.

    Args:
        project: Whose.
        kind: `endpoint`, `variablegroup`, `queue` or `environment`.
        name: Of the resource.
        resource: None where it would only be made.
        pipeline_name: Whose permission.
        definition: The pipeline; None where it would only be made.
        plan: Gets the changes.
    """
    path = project.path(f"pipelines/pipelinepermissions/{kind}/{(resource or {}).get('id')}")
    present = project.devops.get(path, PREVIEW) if resource and definition else None
    everybody = ((present or {}).get("allPipelines") or {}).get("authorized", False)
    allowed = everybody or any(
        item["authorized"] and item["id"] == (definition or {}).get("id")
        for item in (present or {}).get("pipelines", [])
    )
    body = {"pipelines": [{"id": (definition or {}).get("id"), "authorized": True}]}
    plan.apply(
        "permission",
        f"{pipeline_name} uses {kind} {name}",
        present if allowed else None,
        create=lambda: project.devops.send("PATCH", path, body, PREVIEW),
    )


def _definition(project: Project, name: str) -> Json | None:
    definition = project.find("build/definitions", "name", name)
    return project.devops.get(project.path(f"build/definitions/{definition['id']}")) if definition else None


def _is_for(policy: Json, definition: int, repository: str, ref: str) -> bool:
    settings = policy["settings"]
    return settings.get("buildDefinitionId") == definition and any(
        item.get("repositoryId") == repository and item.get("refName") == ref for item in settings.get("scope", [])
    )
