"""Pipelines from the YAML of the repository, the branch policy, and what each pipeline may use."""

from typing import Final

from infra.azure_devops.client import PREVIEW, Json
from infra.azure_devops.plan import OURS, Item, Work
from infra.azure_devops.project import Project
from infra.azure_devops.project_file import Pipeline

YAML: Final = 2
"""A process, or a trigger's settings, from a file."""
BUILD_POLICY: Final = "0609b952-1397-4640-95ec-e00a01b2c241"
"""Build validation, among the types of branch policies."""
HOURS_VALID: Final = 12
"""After so many hours a green build of a pull request is asked for again, where its target went on."""


def pipeline(
    project: Project, name: str, wanted: Pipeline, repository: Json, branch: str, queue: Json | None, work: Work
) -> Json | None:
    """The pipeline; None where it would only be made."""
    present = _definition(project, name)
    ref = f"refs/heads/{branch}"
    parts = {
        "process": {"type": YAML, "yamlFilename": wanted.file},
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
    seen = present or {"process": {}, "repository": {}}

    def create() -> Json:
        body = {
            **parts,
            "name": name,
            "path": "\\",
            "type": "build",
            "description": OURS,
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

    return work.settle(
        Item(
            kind="pipeline",
            name=name,
            present=present,
            wanted={"file": wanted.file, "repository": repository["id"], "branch": ref, "queueStatus": "enabled"},
            seen={
                "file": seen["process"].get("yamlFilename", "").lstrip("/"),
                "repository": seen["repository"].get("id"),
                "branch": seen["repository"].get("defaultBranch"),
                "queueStatus": seen.get("queueStatus"),
            },
            create=create,
            mend=lambda now: project.devops.send("PUT", f"{path}/{now['id']}", {**now, **parts}),
        )
    )


def build_validation(
    project: Project, name: str, definition: Json | None, repository: Json, branch: str, work: Work
) -> None:
    """A pull request to the branch needs this pipeline to succeed."""
    path = project.path("policy/configurations")
    ref = f"refs/heads/{branch}"
    scope = {"repositoryId": repository["id"], "refName": ref, "matchKind": "Exact"}
    present = None
    if definition is not None:
        found = project.devops.values(path, policyType=BUILD_POLICY)
        mine = (item for item in found if _is_for(item, definition["id"], repository["id"], ref))
        present = next(mine, None)
    body = {
        "isEnabled": True,
        "isBlocking": True,
        "type": {"id": BUILD_POLICY},
        "settings": {
            "buildDefinitionId": (definition or {}).get("id"),
            "displayName": name,
            "manualQueueOnly": False,
            "queueOnSourceUpdateOnly": True,
            "validDuration": HOURS_VALID * 60,
            "scope": [scope],
        },
    }
    work.settle(
        Item(
            kind="branch policy",
            name=f"{name} on {branch}",
            present=present,
            wanted={"enabled": True, "blocking": True, "manual": False},
            seen={
                "enabled": (present or {}).get("isEnabled"),
                "blocking": (present or {}).get("isBlocking"),
                "manual": (present or {}).get("settings", {}).get("manualQueueOnly"),
            },
            create=lambda: project.devops.send("POST", path, body),
            mend=lambda now: project.devops.send("PUT", f"{path}/{now['id']}", body),
        )
    )


def permission(
    project: Project,
    kind: str,
    name: str,
    resource: Json | None,
    pipeline_name: str,
    definition: Json | None,
    work: Work,
) -> None:
    """This pipeline may use this resource, without anybody being asked at its first run.

    Args:
        project: Whose.
        kind: `endpoint`, `variablegroup`, `queue` or `environment`.
        name: Of the resource.
        resource: None where it would only be made.
        pipeline_name: Whose permission.
        definition: The pipeline; None where it would only be made.
        work: What is done.
    """
    path = project.path(f"pipelines/pipelinepermissions/{kind}/{(resource or {}).get('id')}")
    present = project.devops.get(path, PREVIEW) if resource and definition else None
    everybody = ((present or {}).get("allPipelines") or {}).get("authorized", False)
    allowed = everybody or any(
        item["authorized"] and item["id"] == (definition or {}).get("id")
        for item in (present or {}).get("pipelines", [])
    )
    body = {"pipelines": [{"id": (definition or {}).get("id"), "authorized": True}]}
    work.settle(
        Item(
            kind="permission",
            name=f"{pipeline_name} uses {kind} {name}",
            present=present if allowed else None,
            create=lambda: project.devops.send("PATCH", path, body, PREVIEW),
        )
    )


def _definition(project: Project, name: str) -> Json | None:
    found = project.devops.values(project.path("build/definitions"), name=name)
    mine = next((item for item in found if item["name"] == name), None)
    return project.devops.get(project.path(f"build/definitions/{mine['id']}")) if mine else None


def _is_for(policy: Json, definition: int, repository: str, ref: str) -> bool:
    settings = policy["settings"]
    return settings.get("buildDefinitionId") == definition and any(
        item.get("repositoryId") == repository and item.get("refName") == ref for item in settings.get("scope", [])
    )
