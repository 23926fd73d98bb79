"""A sentence after a long silence: which step runs, since when, how far it is."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from deployments.watch import Snapshot

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

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
