"""What happens in a run as lines of text, for a terminal or any build log."""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from deployments.runs.report import Report
from deployments.runs.run_reader import Line, Snapshot

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

ENGINE = "Engine execution exited with unexpected exception"
"""Leads the traceback of Prefect's own engine, with which it repeats a failed state; the state has said it."""


class Form(Protocol):
    """How a run is shown while it is followed, and at its end."""

    def tell(self, sentence: str) -> None: ...

    def see(self, snapshot: Snapshot) -> None: ...

    def end(self, report: Report) -> None: ...


class PlainLog:
    """A run on a terminal.

    Args:
        out: Where to.
    """

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out

    def tell(self, sentence: str) -> None:
        print(sentence, file=self._out, flush=True)

    def see(self, snapshot: Snapshot) -> None:
        for line in told(snapshot):
            self.tell(as_text(line, colour=self._out.isatty()))

    def end(self, report: Report) -> None:
        if report.refused:
            return  # the command line tells every error
        self.tell(f"{report.run}: {report.ending} Exit code {report.exit_code}.")
        if report.failed:
            self.tell(f"  Why:     ahc why {report.run_id}\n  Runbook: {report.runbook}")


def told(snapshot: Snapshot) -> list[Line]:
    """The lines of a snapshot without what Prefect repeats."""
    return [line for line in snapshot.lines if not line.text.startswith(ENGINE)]


def as_text(line: Line, *, colour: bool = False) -> str:
    """One line for a terminal or a build log."""
    mark = "»" if line.state else "|"
    text = f"{line.time.astimezone():%H:%M:%S} {line.run} {mark} {line.text}"
    shade = 31 if line.level >= 40 else 33 if line.level >= 30 else 2 if line.state else 0
    return f"\033[{shade}m{text}\033[0m" if colour and shade else text


SILENCE: Final = 60.0
"""Seconds without a line after which a reader wonders whether anything still runs."""


class Heartbeat:
    """Watches for silence.

    Args:
        tell: Called with the sentence.
        silence: Seconds without a line.
    """

    def __init__(self, tell: Callable[[str], None], silence: float = SILENCE) -> None:
        self._tell = tell
        self._silence = silence
        self._last = time.monotonic()

    def see(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if snapshot.lines:
            self._last = now
        elif now - self._last >= self._silence:
            self._last = now
            self._tell(_sentence(snapshot))


def _sentence(snapshot: Snapshot) -> str:
    runs: list[Any] = [*snapshot.flow_runs, *snapshot.task_runs]
    running = [
        item for item in runs if item.state is not None and item.state.is_running() and item.start_time is not None
    ]
    if not running:
        return _waiting(snapshot.run)
    # The last one to start is the innermost one.
    step = max(running, key=lambda item: item.start_time)
    bar = next((f": {bar.percent:.0f} %, {bar.text}" for bar in reversed(snapshot.bars)), "")
    return f"{step.name} runs since {step.start_time.astimezone():%H:%M:%S}{bar}."


def _waiting(run: "FlowRun") -> str:
    if run.state is not None and run.state.name == "Late":
        pool = f" of the work pool `{run.work_pool_name}`" if run.work_pool_name else ""
        return f"{run.name} is still Late: no worker{pool} takes it; see docs/runbook.md#late."
    return f"{run.name} is still {run.state.name if run.state else 'waiting'}."
