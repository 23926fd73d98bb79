"""Flow runs as people name them: by id, the start of an id, or name; with their steps and log."""

import difflib
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from deployments.server.connection import ui_link
from infra.errors import RunNotFound
from infra.runs.pages import read_all
from model.values import Frozen
from tasks.framework.error_table import ended_as, expired
from tasks.release.gate_rules import release_command

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

FAILED: tuple[str, ...] = ("FAILED", "CRASHED")
MIN_PREFIX = 4
EXPIRED = "Nobody decided on this release in time: it expired. What is live stays live."
PREFIXES = re.compile(r"^(?:Flow|Task) run (?:encountered an exception|raised an exception):?\s*")


class Step(Frozen):
    """One task or subflow of a run."""

    kind: Literal["task", "flow"]
    name: str
    id: str
    state_type: str
    state_name: str
    message: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float = 0
    steps: tuple["Step", ...] = ()

    @property
    def failed(self) -> bool:
        return self.state_type in FAILED


class RunFacts(Frozen):
    """One flow run in a list."""

    id: str
    name: str
    flow: str
    state_type: str
    state_name: str
    message: str
    created: datetime | None
    started: datetime | None
    ended: datetime | None
    seconds: float
    url: str


def run_url(run_id: object) -> str:
    """The page of a run in the UI."""
    return ui_link("runs/flow-run", run_id, os.environ.get("PREFECT_API_URL", ""))


# --- finding runs -------------------------------------------------------------------------------------------------


def recent_runs(
    client: "SyncPrefectClient", *, states: Sequence[str] = (), limit: int = 20, subflows: bool = False
) -> "list[FlowRun]":
    """Newest first; subflows only on demand."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterParentTaskRunId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    kinds = [StateType(word) for word in states]
    due = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds)) if kinds else None,
        # Not the schedule's future, but everything due, so that a run that no worker takes is seen.
        expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        parent_task_run_id=None if subflows else FlowRunFilterParentTaskRunId(is_null_=True),
    )
    return client.read_flow_runs(flow_run_filter=due, limit=limit, sort=_newest())


def find_run(client: "SyncPrefectClient", reference: str) -> "FlowRun":
    """The run with this id, start of an id (at least 4 characters) or name; of several with one name, the newest.

    Raises:
        RunNotFound: There is none, or the start of the id fits several; names what comes close.
    """
    exact = _by_id(client, reference) or _by_name(client, reference)
    if exact is not None:
        return exact
    runs = read_all(client.read_flow_runs, sort=_newest())
    if len(reference) >= MIN_PREFIX:
        fits = [run for run in runs if str(run.id).startswith(reference.lower())]
        fits = fits or [run for run in runs if reference.lower() in run.name.lower()]
        if len(fits) == 1:
            return fits[0]
        if fits:
            several = ", ".join(f"{run.name} ({str(run.id)[:8]})" for run in fits[:5])
            raise RunNotFound(f"`{reference}` fits {len(fits)} runs: {several}.", next_step="Give more of the id.")
    names = list(dict.fromkeys(run.name for run in runs))
    close = difflib.get_close_matches(reference, names, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`?" if close else f"the newest are {', '.join(names[:5])}."
    raise RunNotFound(f"There is no run `{reference}`: {hint if names else 'the server has no runs yet.'}")


def _newest() -> Any:
    from prefect.client.schemas.sorting import FlowRunSort

    return FlowRunSort.EXPECTED_START_TIME_DESC


def _by_id(client: "SyncPrefectClient", reference: str) -> "FlowRun | None":
    try:
        identifier = UUID(reference)
    except ValueError:
        return None
    from prefect.exceptions import ObjectNotFound

    try:
        return client.read_flow_run(identifier)
    except ObjectNotFound:
        return None


def _by_name(client: "SyncPrefectClient", reference: str) -> "FlowRun | None":
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    named = FlowRunFilter(name=FlowRunFilterName(any_=[reference]))
    return next(iter(client.read_flow_runs(flow_run_filter=named, limit=1, sort=_newest())), None)


def root_of(client: "SyncPrefectClient", run: "FlowRun") -> "FlowRun":
    """The run that started this one, up to the top."""
    while run.parent_task_run_id is not None:
        parent = client.read_task_run(run.parent_task_run_id).flow_run_id
        if parent is None:
            break
        run = client.read_flow_run(parent)
    return run


def facts(client: "SyncPrefectClient", runs: "Sequence[FlowRun]") -> list[RunFacts]:
    """What lists show of runs, with the names of their flows."""
    names = _flow_names(client, {run.flow_id for run in runs})
    return [_facts(run, names.get(run.flow_id, "?")) for run in runs]


def _facts(run: "FlowRun", flow: str) -> RunFacts:
    kind = run.state_type.value if run.state_type else "SCHEDULED"
    message = plain_message(run.state)
    return RunFacts(
        id=str(run.id),
        name=run.name,
        flow=flow,
        state_type=kind,
        state_name=ended_as(kind, run.state_name or "Scheduled", message),
        message=EXPIRED if expired(kind, message) else message,
        created=run.created,
        started=run.start_time,
        ended=run.end_time,
        seconds=run.total_run_time.total_seconds(),
        url=run_url(run.id),
    )


def release_again(run: "FlowRun") -> str:
    """What starts a new release of the version that this run was to release."""
    given = {key: run.parameters.get(key, key.upper()) for key in ("name", "version", "environment")}
    return release_command(**given)


def _flow_names(client: "SyncPrefectClient", ids: set[UUID]) -> dict[UUID, str]:
    from prefect.client.schemas.filters import FlowFilter, FlowFilterId

    if not ids:
        return {}
    return {flow.id: flow.name for flow in client.read_flows(flow_filter=FlowFilter(id=FlowFilterId(any_=list(ids))))}


def plain_message(state: "State[Any] | None") -> str:
    """A state's message without Prefect's lead-in."""
    return PREFIXES.sub("", (state.message or "") if state else "").strip()


# --- what happened in a run ---------------------------------------------------------------------------------------


def steps(client: "SyncPrefectClient", run_id: UUID) -> tuple[Step, ...]:
    """The tasks and subflows of a run as a tree, in the order in which they started."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId

    tasks = read_all(client.read_task_runs, flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    children = read_all(client.read_flow_runs, flow_run_filter=below)
    subflow_of = {child.parent_task_run_id for child in children}
    branches = [_step("task", task) for task in tasks if task.id not in subflow_of]
    branches += [_step("flow", child, steps(client, child.id)) for child in children]
    return tuple(sorted(branches, key=lambda step: (step.started is None, step.started, step.name)))


def _step(kind: Literal["task", "flow"], run: Any, below: tuple[Step, ...] = ()) -> Step:
    return Step(
        kind=kind,
        name=run.name,
        id=str(run.id),
        state_type=run.state_type.value if run.state_type else "PENDING",
        state_name=run.state_name or "Pending",
        message=plain_message(run.state),
        started=run.start_time,
        ended=run.end_time,
        seconds=run.total_run_time.total_seconds(),
        steps=below,
    )


def failed_path(tree: Sequence[Step]) -> list[Step]:
    """From the outermost failed step down to the one where it began; empty where no step failed."""
    for step in reversed(tree):  # a rerun leaves the failed steps of before in front
        if step.failed:
            return [step, *failed_path(step.steps)]
    return []


def finished(tree: Sequence[Step]) -> int:
    """How many steps are done and are not repeated by a rerun; each counts once, however often it answered since."""
    return len({step.name for step in tree if step.state_type == "COMPLETED"})


def last_log_lines(client: "SyncPrefectClient", run_ids: Sequence[UUID], count: int = 15) -> list[str]:
    """The newest log lines of these runs, oldest first; a traceback is cut to its last line."""
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.client.schemas.sorting import LogSort

    logs = client.read_logs(
        log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=list(run_ids))),
        sort=LogSort.TIMESTAMP_DESC,
        limit=count,
    )
    return [f"{log.timestamp:%H:%M:%S} {_level(log.level):<7} {_last_of(log.message)}" for log in reversed(logs)]


def _level(number: int) -> str:
    return {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}.get(number, str(number))


def _last_of(message: str) -> str:
    head, marker, trace = message.partition("Traceback (most recent call last):")
    if not marker:
        return message
    return f"{head.strip()} … {trace.strip().splitlines()[-1].strip()}"
