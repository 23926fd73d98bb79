"""What happens in a flow run and everything below it, asked for again and again: states, log lines and progress.

Nothing is lost and nothing comes twice: states are read from each run's history, log lines are known by id, and a
last sweep reads all of them once more.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State, TaskRun

PAGE: Final = 200
LATE: Final = timedelta(seconds=10)
"""Log lines come in batches from several processes; each poll looks back this far for late ones."""


@dataclass(frozen=True, order=True)
class Line:
    """One state or log line of one run."""

    time: datetime
    run: str = field(compare=False)
    text: str = field(compare=False)
    level: int = field(default=20, compare=False)
    state: "State[Any] | None" = field(default=None, compare=False)


@dataclass(frozen=True)
class Bar:
    """A progress artifact."""

    run_id: UUID
    task_run_id: UUID | None
    percent: float
    text: str


@dataclass(frozen=True)
class Snapshot:
    """A flow run and everything below it at one moment."""

    run: "FlowRun"
    flow_runs: tuple["FlowRun", ...]
    task_runs: tuple["TaskRun", ...]
    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    """New ones since the last snapshot, in the order of their time."""
    parents: Mapping[UUID, UUID] = field(default_factory=dict)
    """Which flow run a subflow belongs to."""


class Watch:
    """Reads one flow run and everything below it.

    Args:
        client: An open client.
        run_id: The topmost flow run.
        since: Log lines and states of an earlier attempt, before this moment, are left out.
    """

    def __init__(self, client: "PrefectClient", run_id: UUID, *, since: datetime | None = None) -> None:
        self._client = client
        self._run_id = run_id
        self._since = since
        self._names: dict[UUID, str] = {}
        self._seen_states: set[UUID] = set()
        self._current_states: dict[UUID, UUID] = {}
        self._seen_logs: set[UUID] = set()
        self._newest_log: datetime | None = None
        self._waiting: list[tuple[int, Line]] = []
        self._polls = 0

    async def poll(self) -> Snapshot:
        """Ask once. Raises whatever the client raises; nothing is lost by that."""
        run = await self._client.read_flow_run(self._run_id)
        flow_runs = await self._tree(run)
        found = await self._tasks(flow_runs)
        # A subflow has a task run in its parent, which only repeats it.
        starts = {item.parent_task_run_id: item.id for item in flow_runs}
        task_runs = [item for item in found if item.id not in starts]
        parents = {starts[item.id]: item.flow_run_id for item in found if item.id in starts and item.flow_run_id}
        self._names.update({item.id: item.name for item in flow_runs})
        self._names.update({item.id: item.name for item in task_runs})
        self._add(await self._states(flow_runs, self._client.read_flow_run_states))
        self._add(await self._states(task_runs, self._client.read_task_run_states))
        self._add(await self._logs(flow_runs, after=self._newest_log and self._newest_log - LATE))
        bars = await self._bars(flow_runs)
        self._polls += 1
        return Snapshot(run, tuple(flow_runs), tuple(task_runs), bars, tuple(self._in_order()), parents)

    async def rest(self) -> tuple[Line, ...]:
        """All lines that were not answered yet, however late they came; for the end."""
        run = await self._client.read_flow_run(self._run_id)
        flow_runs = await self._tree(run)
        self._add(await self._logs(flow_runs, after=None))
        lines, self._waiting = sorted(line for _, line in self._waiting), []
        return tuple(lines)

    def _add(self, lines: Iterable[Line]) -> None:
        self._waiting += [(self._polls, line) for line in lines if self._since is None or line.time >= self._since]

    def _in_order(self) -> list[Line]:
        """Lines are held back for one poll, so that an earlier one of another process can still take its place."""
        settled = [line.time for poll, line in self._waiting if poll < self._polls - 1]
        if not settled:
            return []
        horizon = max(settled)
        ready = sorted(line for _, line in self._waiting if line.time <= horizon)
        self._waiting = [(poll, line) for poll, line in self._waiting if line.time > horizon]
        return ready

    async def _tree(self, run: "FlowRun") -> list["FlowRun"]:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

        found = {run.id: run}
        level = [run.id]
        while level:
            below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=level))
            children = await _pages(lambda **page: self._client.read_flow_runs(flow_run_filter=below, **page))  # noqa: B023
            level = [child.id for child in children if child.id not in found]
            found.update({child.id: child for child in children})
        return list(found.values())

    async def _tasks(self, flow_runs: list["FlowRun"]) -> list["TaskRun"]:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        parents = FlowRunFilter(id=FlowRunFilterId(any_=[item.id for item in flow_runs]))
        return await _pages(lambda **page: self._client.read_task_runs(flow_run_filter=parents, **page))

    async def _states(self, runs: Iterable[Any], history: Callable[[UUID], Awaitable[list[Any]]]) -> list[Line]:
        lines = []
        for run in runs:
            if run.state is None or self._current_states.get(run.id) == run.state.id:
                continue
            for state in await history(run.id):
                if state.id not in self._seen_states:
                    self._seen_states.add(state.id)
                    lines.append(_state_line(run.name, state))
            self._current_states[run.id] = run.state.id
        return lines

    async def _logs(self, flow_runs: list["FlowRun"], *, after: datetime | None) -> list[Line]:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp

        wanted = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[item.id for item in flow_runs]),
            timestamp=LogFilterTimestamp(after_=after) if after else None,
        )
        found = await _pages(lambda **page: self._client.read_logs(log_filter=wanted, **page))
        new = [log for log in found if log.id not in self._seen_logs]
        self._seen_logs.update(log.id for log in new)
        if new:
            latest = max(log.timestamp for log in new)
            self._newest_log = max(latest, self._newest_log or latest)
        return [
            Line(log.timestamp, self._names.get(log.task_run_id or log.flow_run_id, ""), log.message, log.level)
            for log in new
        ]

    async def _bars(self, flow_runs: list["FlowRun"]) -> tuple[Bar, ...]:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType

        active = [item.id for item in flow_runs if item.state is not None and item.state.is_running()]
        if not active:
            return ()
        artifacts = await self._client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=active), type=ArtifactFilterType(any_=["progress"])
            )
        )
        return tuple(
            Bar(item.flow_run_id, item.task_run_id, float(str(item.data)), item.description or item.key or "")
            for item in artifacts
            if item.flow_run_id is not None
        )


async def _pages(read: Callable[..., Awaitable[list[Any]]]) -> list[Any]:
    found: list[Any] = []
    while True:
        page = await read(limit=PAGE, offset=len(found))
        found += page
        if len(page) < PAGE:
            return found


def _state_line(run: str, state: "State[Any]") -> Line:
    message = f": {state.message}" if state.message and (state.is_failed() or state.is_crashed()) else ""
    level = 40 if state.is_failed() or state.is_crashed() else 20
    return Line(state.timestamp, run, f"{state.name or state.type.value.capitalize()}{message}", level, state)
