"""Approvals of Azure DevOps: who approved a stage, and a decision made in Prefect carried over."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from pydantic import Field

from infra.azure_devops.client import DevOps, Json
from infra.azure_devops.project import Project, find_project
from infra.azure_devops.project_file import ProjectFile
from infra.config.gates import Gates
from infra.errors import Conflict, DevOpsRefused
from infra.ports import LiveModel
from infra.releases.ledger import ReleaseEvent
from model.values import Frozen

DECIDED: Final = frozenset({"approved", "rejected"})
CARRIED: Final = re.compile(r"(?:Approved|Rejected) in Prefect by (?P<by>.+?): (?P<reason>.+)", re.DOTALL)
"""The comment of a decision that the platform carried over."""


class Approver(Frozen):
    """Who approved a stage."""

    environment: str
    name: str = Field(default="", description="As the environment file names them; empty where nobody had to.")
    comment: str = ""
    approval: str = Field(default="", description="Id of the approval in Azure DevOps.")


class CarriedDecision(Frozen):
    """One decision that was carried over."""

    build: int
    environment: str
    version: str
    decision: str
    by: str
    reason: str


def approver(devops: DevOps, project: str, build: int, stage: str, gates: Gates, place: str, mirror: str) -> Approver:
    """Who approved the newest try of this stage.

    Args:
        devops: The organisation.
        project: Name or id.
        build: Number of the build.
        stage: Name of its stage, as the YAML has it.
        gates: Of the environment; a name among its approvers is told as it is written there.
        place: The environment.
        mirror: The identity as which the platform decides; for it, whom its comment names. Empty for none.

    Raises:
        DevOpsRefused: There is no such build.
    """
    where = Project(devops=devops, id=project, name=project)
    ids = [item["id"] for name, item in _approvals(where, build) if name.casefold() == stage.casefold()]
    approvals = _with_steps(where, ids)
    steps = [(item["id"], step) for item in approvals for step in item["steps"] if step["status"] == "approved"]
    if not steps:
        return Approver(environment=place)
    approval, step = max(steps, key=lambda pair: str(pair[1].get("lastModifiedOn", "")))
    by, comment = _who(step, gates, mirror)
    text = " ".join(comment.split()) or f"approved in Azure DevOps, build {build}"
    return Approver(environment=place, name=by, comment=text, approval=approval)


def carry_over(
    devops: DevOps,
    file: ProjectFile,
    events: Callable[[str], Sequence[ReleaseEvent]],
    environments: Sequence[str],
) -> tuple[CarriedDecision, ...]:
    """Give each approval that waits the decision that was made in Prefect since its build began; a second time nothing.

    A stage is of the environment whose name it has; a build is about the versions that its tags name (`version_tag`).

    Args:
        devops: The organisation.
        file: Which project and pipelines.
        events: The ledger of an environment, oldest first.
        environments: Their names.

    Raises:
        AccessDenied: The platform's identity is no approver there (`mirror` in deployments/devops.yaml).
    """
    project = find_project(devops, file.project)
    decisions = []
    for build in _waiting_builds(project, file):
        for stage, record in _approvals(project, build["id"]):
            name = next((item for item in environments if item.casefold() == stage.casefold()), None)
            if name is None or record.get("state") == "completed":
                continue
            event = _decision(events(name), build)
            if event is not None and _decide(project, record["id"], event):
                decisions.append(
                    CarriedDecision(
                        build=build["id"],
                        environment=name,
                        version=event.model.label,
                        decision=event.kind,
                        by=event.by,
                        reason=event.reason,
                    )
                )
    return tuple(decisions)


def version_tag(model: LiveModel) -> str:
    """How a build is tagged that is about this version."""
    return f"{model.name}-v{model.version}"


def _waiting_builds(project: Project, file: ProjectFile) -> list[Json]:
    names = [name for name, item in file.pipelines.items() if item.webhook]
    definitions = project.devops.values(project.path("build/definitions"))
    ids = [str(item["id"]) for item in definitions if item["name"] in names]
    if not ids:
        return []
    return project.devops.values(
        project.path("build/builds"), definitions=",".join(ids), statusFilter="inProgress,notStarted"
    )


def _approvals(project: Project, build: int) -> Iterator[tuple[str, Json]]:
    """Name of the stage, and the record in the build's timeline; its id is that of the approval."""
    timeline = project.devops.get(project.path(f"build/builds/{build}/timeline"))
    records = {item["id"]: item for item in timeline["records"]}
    for item in records.values():
        if item["type"] != "Checkpoint.Approval":
            continue
        checkpoint = records.get(item.get("parentId") or "", {})
        stage = records.get(checkpoint.get("parentId") or "", {})
        yield str(stage.get("identifier") or stage.get("name") or ""), item


def _with_steps(project: Project, ids: Sequence[str]) -> list[Json]:
    if not ids:
        return []
    return project.devops.values(project.path("pipelines/approvals"), approvalIds=",".join(ids), **{"$expand": "steps"})


def _who(step: Json, gates: Gates, mirror: str) -> tuple[str, str]:
    person, comment = step.get("actualApprover") or step["assignedApprover"], str(step.get("comment") or "")
    names = [str(person.get(key) or "") for key in ("displayName", "uniqueName")]
    original = CARRIED.fullmatch(comment) if mirror.casefold() in (name.casefold() for name in names) else None
    if mirror and original:
        return original["by"], original["reason"]
    approvers = {name.casefold(): name for name in gates.approvers}
    by = next((approvers[name.casefold()] for name in names if name.casefold() in approvers), names[0] or names[1])
    return by, comment


def _decision(events: Sequence[ReleaseEvent], build: Json) -> ReleaseEvent | None:
    began, tags = datetime.fromisoformat(build["queueTime"]), set(build.get("tags") or ())
    about = [item for item in events if item.kind in DECIDED and item.at >= began and version_tag(item.model) in tags]
    return about[-1] if about else None


def _decide(project: Project, approval: str, event: ReleaseEvent) -> bool:
    """Whether this call decided it; somebody may have been quicker."""
    comment = f"{event.kind.capitalize()} in Prefect by {event.by}: {event.reason}"
    body = [{"approvalId": approval, "status": event.kind, "comment": comment}]
    try:
        project.devops.send("PATCH", project.path("pipelines/approvals"), body)
    except (Conflict, DevOpsRefused):
        now = project.devops.get(project.path(f"pipelines/approvals/{approval}"))
        if now["status"] in ("pending", "uninitiated"):
            raise
        return False
    return True
