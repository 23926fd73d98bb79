"""A run of another machine as it is seen from the run that waits for it: its log lines, progress and interruptions."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from infra.runs.restarts import may_continue
from infra.training import TrainingUpdate

if TYPE_CHECKING:
    from datetime import datetime

    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

POLL_SECONDS: Final = 2.0
CONTINUED_WITHIN: Final = 60.0
"""Seconds in which the automation `Continue crashed runs` answers; after them nobody does."""
LATE: Final = timedelta(seconds=60)
"""How much later than a younger line a log line may reach the server."""
OBSERVER: Final = ".observer"
"""Ends the name of the logger with which the Kubernetes worker explains what it sees of a pod."""
UNSCHEDULABLE: Final = "unschedulable"
LOGGERS: Final = ("prefect.task_runs", OBSERVER)
"""The ends of the names of those loggers whose lines belong to the training."""
WAITS: Final = {
    "InfrastructurePending": "Its pod waits for a node.",
    "Late": "No worker of its work pool has taken it yet.",
}


class FollowedRun:
    """One run, followed by asking the server every two seconds.

    Args:
        client: An open client.
        run_id: The run.
        see: Called with what is new.
        cost: The cost of a run so far, in words.
    """

    def __init__(
        self,
        client: "SyncPrefectClient",
        run_id: UUID,
        see: Callable[[TrainingUpdate], None],
        *,
        cost: Callable[["FlowRun"], str],
    ) -> None:
        self._client = client
        self._id = run_id
        self._see = see
        self._cost = cost
        self._states: set[UUID] = set()
        self._lines: set[UUID] = set()
        self._newest: datetime | None = None
        self._saved = TrainingUpdate()
        """The last update of an epoch from which another machine could go on."""
        self.explanation = ""
        """The worker's last words on a pod that didn't get on."""

    def to_the_end(self) -> "FlowRun":
        """Follow until the run has ended and won't be continued; answers it."""
        crashed_since: float | None = None
        while True:
            run = self._client.read_flow_run(self._id)
            self._report_lines()
            self._report_states()
            self._report_progress(run)
            if run.state is not None and run.state.is_final():
                crashed_since = crashed_since or time.monotonic()
                waited = time.monotonic() - crashed_since
                if not may_continue(run) or waited > CONTINUED_WITHIN:
                    # The last lines come a moment after the state.
                    time.sleep(POLL_SECONDS)
                    self._report_lines()
                    return run
            else:
                crashed_since = None
            time.sleep(POLL_SECONDS)

    def _report_states(self) -> None:
        for state in self._client.read_flow_run_states(self._id):
            if state.id not in self._states:
                self._states.add(state.id)
                self._report_state(state)

    def _report_state(self, state: "State") -> None:
        if state.is_crashed():
            # A successor that waits for a node is explained too, and no reason for the end of this one.
            killed = "" if UNSCHEDULABLE in self.explanation else self.explanation
            why = (killed or state.message or "its machine went").rstrip(".")
            saved = "Saved until then:" if self._saved.epoch else "Nothing was saved until then."
            notice = {"text": f"The training was interrupted: {why}. {saved}", "level": "warning"}
            self._see(self._saved.model_copy(update=notice))
        elif state.name == "AwaitingRetry":
            self._see(TrainingUpdate(text="It is started again and goes on at the last checkpoint.", level="warning"))
        elif state.name in WAITS:
            self._see(TrainingUpdate(text=WAITS[state.name]))
        elif state.is_running():
            self.explanation = ""

    def _report_lines(self) -> None:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
        from prefect.client.schemas.sorting import LogSort

        after = LogFilterTimestamp(after_=self._newest - LATE) if self._newest else None
        lines = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self._id]), timestamp=after)
        offset = 0
        while page := self._client.read_logs(lines, sort=LogSort.TIMESTAMP_ASC, limit=200, offset=offset):
            offset += len(page)
            for line in page:
                if line.id in self._lines or line.id is None:
                    continue
                self._lines.add(line.id)
                self._newest = max(line.timestamp, self._newest or line.timestamp)
                self._report_line(line.name, line.level, line.message)

    def _report_line(self, logger: str, level: int, text: str) -> None:
        if not logger.endswith(LOGGERS) or level < logging.INFO:
            return
        if logger.endswith(OBSERVER):
            self.explanation = text
        update = TrainingUpdate.of_line(text, "warning" if level >= logging.WARNING else "info")
        if update.saved:
            self._saved = update
        self._see(update)

    def _report_progress(self, run: "FlowRun") -> None:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
        from prefect.client.schemas.sorting import ArtifactSort

        if run.state is None or not run.state.is_running():
            return
        bars = self._client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[self._id]), type=ArtifactFilterType(any_=["progress"])
            ),
            sort=ArtifactSort.UPDATED_DESC,
            limit=1,
        )
        for bar in bars:
            text = ", ".join(filter(None, (bar.description, self._cost(run))))
            self._see(TrainingUpdate(text=text, done=min(1.0, float(str(bar.data)) / 100)))
