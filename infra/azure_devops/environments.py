"""Environments of Azure DevOps and their checks: who approves, and that one run at a time is inside."""

from collections.abc import Sequence
from typing import Final

from infra.azure_devops.client import PREVIEW, Json
from infra.azure_devops.plan import MADE_BY, Plan
from infra.azure_devops.project import Project
from infra.config.gates import Gates
from infra.errors import DevOpsRefused

APPROVAL: Final = {"id": "8c6f20a7-a545-4486-9777-f762fafe0d4d", "name": "Approval"}
LOCK: Final = {"id": "2ef31ad6-baa0-403a-8b45-2cbc9b4e5563", "name": "ExclusiveLock"}
"""Kinds of checks; Microsoft publishes the ids."""
LONGEST_MINUTES: Final = 43_200
"""A check waits 30 days at most."""


def environment(project: Project, name: str, plan: Plan) -> Json | None:
    """The environment; None where it would only be made."""
    path = "distributedtask/environments"
    return plan.apply(
        "environment",
        name,
        project.find(path, "name", name),
        create=lambda: project.devops.send("POST", project.path(path), {"name": name, "description": MADE_BY}),
    )


def checks(project: Project, name: str, place: Json | None, gates: Gates, who: Sequence[str], plan: Plan) -> None:
    """Approval as the gates say, and a lock.

    Args:
        project: Whose.
        name: Of the environment.
        place: The environment; None where it would only be made.
        gates: Of the environment file.
        who: Who approves.
        plan: Gets the changes.

    Raises:
        DevOpsRefused: Somebody who approves is nobody, or more than one, in the organisation.
    """
    present = _checks(project, place) if place else []
    _lock(project, name, place, _of_kind(present, LOCK), plan)
    approval = _of_kind(present, APPROVAL)
    if gates.approval:
        _approval(project, name, place, gates, [_identity(project, person) for person in who], approval, plan)
    elif approval is not None:
        plan.apply(
            "approval",
            name,
            approval,
            desired={"approval": False},
            actual={"approval": True},
            hint=f"The file of {name} asks for no approval: remove the check, or set `gates.approval: true` there.",
        )


def _approval(
    project: Project, name: str, place: Json | None, gates: Gates, who: list[str], present: Json | None, plan: Plan
) -> None:
    settings = (present or {}).get("settings", {})
    desired = {
        "approvers": sorted(who),
        "minimum": 1,
        "timeout": min(LONGEST_MINUTES, max(1, round(gates.approval_hours * 60))),
        "requester": not gates.four_eyes,
    }
    actual = {
        "approvers": sorted(person["id"] for person in settings.get("approvers", [])),
        "minimum": settings.get("minRequiredApprovers"),
        "timeout": (present or {}).get("timeout"),
        "requester": not settings.get("requesterCannotBeApprover", False),
    }
    body = {
        "type": APPROVAL,
        "settings": {
            "approvers": [{"id": person} for person in who],
            "minRequiredApprovers": 1,
            "executionOrder": "anyOrder",
            "requesterCannotBeApprover": gates.four_eyes,
            "blockedApprovers": [],
            "instructions": "The evidence is among the artifacts of the release in Prefect; this decision is that one.",
        },
        "timeout": desired["timeout"],
    }
    _apply(project, "approval", name, place, present, body, desired, actual, plan)


def _lock(project: Project, name: str, place: Json | None, present: Json | None, plan: Plan) -> None:
    body = {"type": LOCK, "settings": {}, "timeout": LONGEST_MINUTES}
    _apply(project, "exclusive lock", name, place, present, body, {}, {}, plan)


def _apply(
    project: Project,
    kind: str,
    name: str,
    place: Json | None,
    present: Json | None,
    body: Json,
    desired: Json,
    actual: Json,
    plan: Plan,
) -> None:
    path = project.path("pipelines/checks/configurations")
    resource = {"type": "environment", "id": str((place or {}).get("id")), "name": name}
    whole = {**body, "resource": resource}
    plan.apply(
        kind,
        name,
        present,
        create=lambda: project.devops.send("POST", path, whole, PREVIEW),
        update=lambda now: project.devops.send(
            "PATCH", f"{path}/{now['id']}", {**whole, "id": now["id"], "isDisabled": False}, PREVIEW
        ),
        desired={**desired, "enabled": True},
        actual={**actual, "enabled": not (present or {}).get("isDisabled", False)},
    )


def _checks(project: Project, place: Json) -> list[Json]:
    return project.devops.values(
        project.path("pipelines/checks/configurations"),
        PREVIEW,
        resourceType="environment",
        resourceId=place["id"],
        **{"$expand": "settings"},
    )


def _of_kind(present: Sequence[Json], kind: Json) -> Json | None:
    return next((item for item in present if item["type"]["id"].casefold() == kind["id"]), None)


def _identity(project: Project, name: str) -> str:
    """The id of one user or group."""
    identities = project.devops.identities(name)
    if len(identities) != 1:
        names = ", ".join(str(item.get("providerDisplayName") or item["id"]) for item in identities[:5])
        who = f"{len(identities)} are: {names}" if identities else "nobody is"
        raise DevOpsRefused(
            f"`{name}` is to approve, and of users and groups of {project.devops.organisation} {who}.",
            next_step="Name users by their mail address and groups as [PROJECT]\\GROUP, in the environment file's "
            "`gates.approvers` or in deployments/devops.yaml; somebody new is added to the organisation first.",
        )
    return str(identities[0]["id"])
