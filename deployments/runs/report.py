"""What a build keeps of a run: how it ended, which version it made or released, what each gate said, where to look."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import Field, ValidationError

from infra.errors import PlatformError
from infra.runs.faults import FAULT, fault_in, table_rows
from infra.runs.pages import read_all_async
from model.faults import Fault
from model.values import Frozen
from tasks.framework.error_table import ERRORS, ended_as, runbook
from tasks.framework.failure_card import failure_card

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import Artifact, FlowRun


class GateCheck(Frozen):
    """One check of a gate, as the run published it."""

    gate: str
    check: str
    passed: bool
    detail: str = ""
    value: float | None = None
    limit: float | None = None


class Evidence(Frozen):
    """What a run published."""

    model_name: str = ""
    model_version: int | None = None
    verdict: str = ""
    reason: str = ""
    gates: tuple[GateCheck, ...] = ()
    endpoints: dict[str, str] = Field(default_factory=dict)
    summary: str = ""
    fault: Fault | None = None


class Report(Frozen):
    """One run at the moment at which following it ended."""

    deployment: str
    run_id: str
    run: str
    state_type: str
    state: str
    message: str
    started: datetime | None
    seconds: float
    link: str
    exit_code: int
    evidence: Evidence = Evidence()
    followed_for: float | None = Field(default=None, description="Seconds, where following stopped before the run.")

    @property
    def refused(self) -> bool:
        """Whether the command itself failed: it couldn't start the run, or not stay with it."""
        return self.state_type == ""

    @property
    def failed(self) -> bool:
        return self.exit_code != 0

    @property
    def not_promoted(self) -> bool:
        return self.state == "NotPromoted"

    @property
    def ending(self) -> str:
        if self.followed_for is not None:
            return f"Not ended within {self.followed_for:.0f} s; the run goes on."
        return f"{self.state}."

    @property
    def runbook(self) -> str:
        if self.followed_for is not None:
            return runbook("FollowTimeout")
        names = {"FAILED": "Failed", "CRASHED": "Crashed", "CANCELLED": "Cancelled"}
        named = self.state in ERRORS or self.state_type == "COMPLETED"
        return runbook(self.state if named else names.get(self.state_type, self.state))

    @property
    def card(self) -> str:
        """The failure card as Markdown; empty where the run had no time to leave the record of its fault."""
        return failure_card(self.evidence.fault, self.run_id) if self.evidence.fault else ""

    @property
    def failed_gates(self) -> list[GateCheck]:
        return [each for each in self.evidence.gates if not each.passed]


def report(
    run: "FlowRun",
    deployment: str,
    link: str,
    code: int,
    evidence: Evidence | None = None,
    followed_for: float | None = None,
) -> Report:
    """The report of a run; what the run was asked to release counts where it published no version."""
    evidence = evidence or Evidence()
    if not evidence.model_name:
        name, version = run.parameters.get("name"), run.parameters.get("version")
        if isinstance(name, str) and str(version).isdigit():
            evidence = evidence.model_copy(update={"model_name": name, "model_version": int(str(version))})
    state = run.state
    kind, name_of, message = (state.type.value, state.name or "", state.message or "") if state else ("", "", "")
    return Report(
        deployment=deployment,
        run_id=str(run.id),
        run=run.name,
        state_type=kind,
        state=ended_as(kind, name_of, message),
        message=message,
        started=run.start_time,
        seconds=round(run.total_run_time.total_seconds(), 1),
        link=link,
        exit_code=code,
        evidence=evidence,
        followed_for=followed_for,
    )


def refused(deployment: str, error: PlatformError, run: "FlowRun | None", link: str) -> Report:
    """The report where nothing could be started, or not followed any more."""
    return Report(
        deployment=deployment,
        run_id=str(run.id) if run else "",
        run=run.name if run else deployment,
        state_type="",
        state=type(error).__name__,
        message=f"{error} {error.next_step}",
        started=None,
        seconds=0,
        link=link,
        exit_code=error.exit_code,
    )


async def read_evidence(client: "PrefectClient", flow_runs: Sequence[UUID]) -> Evidence:
    """Everything that these runs published for people, the newest of each kind."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
    from prefect.client.schemas.sorting import ArtifactSort

    for_people = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=list(flow_runs)),
        type=ArtifactFilterType(any_=["table", "markdown", "link"]),
    )
    artifacts = await read_all_async(client.read_artifacts, artifact_filter=for_people, sort=ArtifactSort.CREATED_DESC)
    return _evidence({item.key: item for item in reversed(artifacts) if item.key})


def _evidence(newest: "dict[str, Artifact]") -> Evidence:
    from tasks.framework.gate_results import GATES, JUDGED

    judged: dict[str, Any] = next(iter(table_rows(newest.get(JUDGED))), {})
    return Evidence(
        model_name=judged.get("name", ""),
        model_version=judged.get("version"),
        verdict=judged.get("verdict", ""),
        reason=judged.get("reason", ""),
        gates=tuple(
            check
            for key, item in newest.items()
            if key.startswith(GATES)
            for check in _checks(key.removeprefix(GATES), item)
        ),
        endpoints={
            key.removeprefix("endpoint-"): _address(item) for key, item in newest.items() if key.startswith("endpoint-")
        },
        summary=_text(newest.get("summary")),
        fault=fault_in(newest.get(FAULT)),
    )


def _checks(gate: str, artifact: "Artifact") -> Iterable[GateCheck]:
    for row in table_rows(artifact):
        try:
            yield GateCheck.model_validate({"gate": gate, **row})
        except ValidationError:
            continue  # a table of the same name from somebody else


def _address(artifact: "Artifact") -> str:
    """The address behind a Markdown link."""
    return _text(artifact).rpartition("(")[2].rstrip(")")


def _text(artifact: "Artifact | None") -> str:
    return "" if artifact is None else str(artifact.data)
