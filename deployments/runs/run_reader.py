"""What happens in a flow run and everything below it, asked for again and again: states, log lines and progress.

Nothing is lost and nothing comes twice: states are read from each run's history, log lines by `LogReader`.
"""

import bisect
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from infra.runs.pages import PAGE, read_all_async

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, Log, State, TaskRun


SETTLE: Final = 0.75
"""Seconds that a line is held back: log lines come in batches from several processes, states by another way."""
UNKNOWN: Final = 5.0
"""Seconds after which a line is told although the server doesn't know its task run yet."""


@dataclass(frozen=True, order=True)
class Line:
    """One state or log line of one run."""

    time: datetime
    run: str = field(compare=False)
    text: str = field(compare=False)
    level: int = field(default=20, compare=False)
    state: "State[Any] | None" = field(default=None, compare=False)
    run_id: UUID | None = field(default=None, compare=False)


class Settling:
    """Holds lines back until an earlier one of another process can't be expected any more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, Line]] = []
        self._held_until = clock()

    def add(self, lines: Iterable[Line]) -> None:
        now = self._clock()
        self._waiting += [(now, line) for line in lines]

    def hold(self, seconds: float) -> None:
        """Let nothing out for a while."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    def held(self) -> float:
        """Seconds for which nothing is let out yet."""
        return max(0.0, self._held_until - self._clock())

    def ready(self, is_known: Callable[[Line], bool]) -> list[Line]:
        """What has settled, oldest first. Lines of a run that isn't `known` yet, and all after them, wait for it."""
        now = self._clock()
        settled = [line.time for came, line in self._waiting if came <= now - SETTLE]
        if not settled or now < self._held_until:
            return []
        horizon = max(settled)
        early = [line.time for came, line in self._waiting if came > now - UNKNOWN and not is_known(line)]
        limit = min(early, default=None)
        ready = [line for _, line in self._waiting if line.time <= horizon and (limit is None or line.time < limit)]
        let_out = {id(line) for line in ready}
        self._waiting = [item for item in self._waiting if id(item[1]) not in let_out]
        return sorted(ready)

    def rest(self) -> list[Line]:
        """Everything that still waits, oldest first."""
        lines = sorted(line for _, line in self._waiting)
        self._waiting = []
        return lines


"""More than this the server doesn't answer at once."""


class LogReader:
    """Reads the log lines of flow runs, again and again.

    Args:
        client: An open client.
    """

    def __init__(self, client: "PrefectClient") -> None:
        self._client = client
        self._known: list[tuple[datetime, UUID]] = []
        self._ids: set[UUID] = set()
        self._told: set[int] = set()

    async def new(self, flow_runs: Sequence[UUID]) -> "list[Log]":
        """What was not answered yet, in the order of the server."""
        offset, back = max(0, len(self._known) - 1), PAGE
        page = await self._page(flow_runs, offset)
        while offset and not (page and page[0].id == self._known[offset][1]):
            offset, back = max(0, offset - back), back * 2
            page = await self._page(flow_runs, offset)
        new = self._take(page)
        while len(page) == PAGE:
            offset += PAGE
            page = await self._page(flow_runs, offset)
            new += self._take(page)
        return new

    async def _page(self, flow_runs: Sequence[UUID], offset: int) -> "list[Log]":
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        of_runs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=list(flow_runs)))
        return await self._client.read_logs(log_filter=of_runs, limit=PAGE, offset=offset)

    def _take(self, page: "list[Log]") -> "list[Log]":
        new = []
        for log in page:
            if log.id in self._ids:
                continue
            self._ids.add(log.id)
            bisect.insort(self._known, (log.timestamp, log.id))
            # A process whose server died in the middle of an answer sends its lines again, and they get new ids.
            same = hash((log.timestamp, log.flow_run_id, log.task_run_id, log.level, log.message))
            if same not in self._told:
                self._told.add(same)
                new.append(log)
        return new


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
    """Which flow run a subflow or task run belongs to."""


class Watch:
    """Reads one flow run and everything below it.

    Args:
        client: An open client.
        run_id: The topmost flow run.
        since: Log lines and states of an earlier attempt, before this moment, are left out.
    """

    def __init__(
        self,
        client: "PrefectClient",
        run_id: UUID,
        *,
        since: datetime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._since = since
        self._names: dict[UUID, str] = {}
        self._parents: dict[UUID, UUID] = {}
        self._seen_states: set[UUID] = set()
        self._current_states: dict[UUID, UUID] = {}
        self._logs = LogReader(client)
        self._settling = Settling(clock)

    async def poll(self) -> Snapshot:
        """Ask once. Raises whatever the client raises; nothing is lost by that."""
        run, flow_runs, task_runs = await self._look()
        bars = await self._bars(flow_runs)
        lines = self._named(self._settling.ready(lambda line: line.run_id in self._names))
        return Snapshot(run, tuple(flow_runs), tuple(task_runs), bars, lines, dict(self._parents))

    async def rest(self) -> tuple[Line, ...]:
        """All lines that were not answered yet, however late they came; for the end."""
        self._current_states.clear()
        await self._look()
        return self._named(self._settling.rest())

    def hold(self, seconds: float) -> None:
        """Keep lines back for a while: after an outage, processes send what they kept one after another."""
        self._settling.hold(seconds)

    def held(self) -> float:
        """Seconds for which lines are still kept back."""
        return self._settling.held()

    async def _look(self) -> tuple["FlowRun", list["FlowRun"], list["TaskRun"]]:
        run = await self._client.read_flow_run(self._run_id)
        flow_runs = await self._tree(run)
        all_tasks = await self._tasks(flow_runs)
        # A subflow has a task run in its parent, which only repeats it; it may be there before the subflow is.
        starts = {item.parent_task_run_id: item.id for item in flow_runs}
        task_runs = [item for item in all_tasks if item.id not in starts and not _stands_for_subflow(item.state)]
        for item in all_tasks:
            if item.flow_run_id is not None:
                self._parents[starts.get(item.id, item.id)] = item.flow_run_id
        self._names.update({item.id: item.name for item in flow_runs})
        self._names.update({item.id: item.name for item in task_runs})
        self._add(await self._states(flow_runs, self._client.read_flow_run_states))
        self._add(await self._states(task_runs, self._client.read_task_run_states))
        self._add(_log_line(log) for log in await self._logs.new([item.id for item in flow_runs]))
        return run, flow_runs, task_runs

    def _add(self, lines: Iterable[Line]) -> None:
        self._settling.add(line for line in lines if self._since is None or line.time >= self._since)

    def _named(self, lines: Iterable[Line]) -> tuple[Line, ...]:
        return tuple(replace(line, run=self._names.get(line.run_id, "")) if line.run_id else line for line in lines)

    async def _tree(self, run: "FlowRun") -> list["FlowRun"]:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

        runs = {run.id: run}
        level = [run.id]
        while level:
            below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=level))
            children = await read_all_async(self._client.read_flow_runs, flow_run_filter=below)
            level = [child.id for child in children if child.id not in runs]
            runs.update({child.id: child for child in children})
        return list(runs.values())

    async def _tasks(self, flow_runs: list["FlowRun"]) -> list["TaskRun"]:
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        parents = FlowRunFilter(id=FlowRunFilterId(any_=[item.id for item in flow_runs]))
        return await read_all_async(self._client.read_task_runs, flow_run_filter=parents)

    async def _states(self, runs: Iterable[Any], history: Callable[[UUID], Awaitable[list[Any]]]) -> list[Line]:
        lines = []
        for run in runs:
            if run.state is None or self._current_states.get(run.id) == run.state.id:
                continue
            for state in await history(run.id):
                if state.id == run.state.id:
                    self._current_states[run.id] = state.id
                if state.id not in self._seen_states:
                    self._seen_states.add(state.id)
                    if not _stands_for_subflow(state) and not _untold(state):
                        lines.append(_state_line(run.id, state))
        return lines

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


def _stands_for_subflow(state: "State[Any] | None") -> bool:
    return state is not None and state.state_details.child_flow_run_id is not None


def _untold(state: "State[Any]") -> bool:
    """A task run's first state, which says nothing, and is all that a subflow's task run has before the subflow."""
    return state.name == "Pending" and state.state_details.task_run_id is not None


def _log_line(log: Any) -> Line:
    return Line(log.timestamp, "", log.message, log.level, run_id=log.task_run_id or log.flow_run_id)


def _state_line(run_id: UUID, state: "State[Any]") -> Line:
    failed = state.is_failed() or state.is_crashed()
    message = f": {state.message}" if state.message and failed else ""
    text = f"{state.name or state.type.value.capitalize()}{message}"
    return Line(state.timestamp, "", text, 40 if failed else 20, state, run_id)
