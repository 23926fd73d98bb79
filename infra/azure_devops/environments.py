"""Environments of Azure DevOps and their checks: who approves, and that one run at a time is inside."""

from collections.abc import Sequence
from typing import Final

from infra.azure_devops.client import PREVIEW, Json
from infra.azure_devops.plan import OURS, Item, Work
from infra.azure_devops.project import Project
from infra.config.gates import Gates
from infra.errors import DevOpsRefused

APPROVAL: Final = {"id": "8c6f20a7-a545-4486-9777-f762fafe0d4d", "name": "Approval"}
LOCK: Final = {"id": "2ef31ad6-baa0-403a-8b45-2cbc9b4e5563", "name": "ExclusiveLock"}
"""Kinds of checks; Microsoft publishes the ids."""
LONGEST_MINUTES: Final = 43_200
"""A check waits 30 days at most."""


def environment(project: Project, name: str, work: Work) -> Json | None:
    """The environment; None where it would only be made."""
    found = project.devops.values(project.path("distributedtask/environments"), name=name)
    return work.settle(
        Item(
            kind="environment",
            name=name,
            present=next((item for item in found if item["name"].casefold() == name.casefold()), None),
            create=lambda: project.devops.send(
                "POST", project.path("distributedtask/environments"), {"name": name, "description": OURS}
            ),
        )
    )


def checks(project: Project, name: str, place: Json | None, gates: Gates, who: Sequence[str], work: Work) -> None:
    """Approval as the gates say, and a lock.

    Args:
        project: Whose.
        name: Of the environment.
        place: The environment; None where it would only be made.
        gates: Of the environment file.
        who: Who approves.
        work: What is done.

    Raises:
        DevOpsRefused: Somebody who approves is nobody, or more than one, in the organisation.
    """
    present = _checks(project, place) if place else []
    _lock(project, name, place, _of_kind(present, LOCK), work)
    approval = _of_kind(present, APPROVAL)
    if gates.approval:
        _approval(project, name, place, gates, [_identity(project, person) for person in who], approval, work)
    elif approval is not None:
        work.settle(
            Item(
                kind="approval",
                name=name,
                present=approval,
                wanted={"approval": False},
                seen={"approval": True},
                hint=f"The file of {name} asks for no approval: remove the check, or set `gates.approval: true` there.",
            )
        )


def _approval(
    project: Project, name: str, place: Json | None, gates: Gates, who: list[str], present: Json | None, work: Work
) -> None:
    settings = (present or {}).get("settings", {})
    wanted = {
        "approvers": sorted(who),
        "minimum": 1,
        "timeout": min(LONGEST_MINUTES, max(1, round(gates.approval_hours * 60))),
        "requester": not gates.four_eyes,
    }
    seen = {
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
        "timeout": wanted["timeout"],
    }
    _settle(project, "approval", name, place, present, body, wanted, seen, work)


def _lock(project: Project, name: str, place: Json | None, present: Json | None, work: Work) -> None:
    body = {"type": LOCK, "settings": {}, "timeout": LONGEST_MINUTES}
    _settle(project, "exclusive lock", name, place, present, body, {}, {}, work)


def _settle(
    project: Project,
    kind: str,
    name: str,
    place: Json | None,
    present: Json | None,
    body: Json,
    wanted: Json,
    seen: Json,
    work: Work,
) -> None:
    path = project.path("pipelines/checks/configurations")
    resource = {"type": "environment", "id": str((place or {}).get("id")), "name": name}
    whole = {**body, "resource": resource}
    work.settle(
        Item(
            kind=kind,
            name=name,
            present=present,
            wanted={**wanted, "enabled": True},
            seen={**seen, "enabled": not (present or {}).get("isDisabled", False)},
            create=lambda: project.devops.send("POST", path, whole, PREVIEW),
            mend=lambda now: project.devops.send(
                "PATCH", f"{path}/{now['id']}", {**whole, "id": now["id"], "isDisabled": False}, PREVIEW
            ),
        )
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
    found = project.devops.identities(name)
    if len(found) != 1:
        said = "nobody is" if not found else f"{len(found)} are: " + ", ".join(map(_called, found[:5]))
        raise DevOpsRefused(
            f"`{name}` is to approve, and of users and groups of {project.devops.organisation} {said}.",
            next_step="Name users by their mail address and groups as [PROJECT]\\GROUP, in the environment file's "
            "`gates.approvers` or in deployments/devops.yaml; somebody new is added to the organisation first.",
        )
    identity: str = found[0]["id"]
    return identity


def _called(identity: Json) -> str:
    return str(identity.get("providerDisplayName") or identity["id"])
