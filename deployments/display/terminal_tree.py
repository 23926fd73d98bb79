"""A lifecycle as people watch it: one line per step, on a terminal redrawn in place, elsewhere printed as it ends."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from deployments.runs.run_reader import Bar, Snapshot

PROGRESS_EVERY: Final = 10.0
"""Seconds between two progress lines of one step where lines can't be redrawn."""


@dataclass(frozen=True)
class StepRow:
    """One task run or subflow."""

    key: str
    name: str
    depth: int
    state_type: str
    state_name: str
    seconds: float
    bar: Bar | None
    message: str

    @property
    def reused(self) -> bool:
        return self.state_name == "Cached"

    @property
    def ended(self) -> bool:
        return self.state_type in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def step_rows(snapshot: Snapshot) -> list[StepRow]:
    """The steps below a run as a tree, in the order in which they started."""
    children: dict[Any, list[Any]] = {}
    for item in snapshot.flow_runs:
        if item.id != snapshot.run.id:
            children.setdefault(snapshot.parents.get(item.id, snapshot.run.id), []).append(item)
    for task_run in snapshot.task_runs:
        children.setdefault(task_run.flow_run_id, []).append(task_run)
    bars = {bar.task_run_id or bar.run_id: bar for bar in snapshot.bars}

    def below(parent: Any, depth: int) -> Iterator[StepRow]:
        now = datetime.now(UTC)
        for item in sorted(children.get(parent, []), key=lambda run: run.start_time or run.created or now):
            yield _row(item, depth, bars.get(item.id))
            yield from below(item.id, depth + 1)

    return list(below(snapshot.run.id, 0))


def _row(run: Any, depth: int, bar: Bar | None) -> StepRow:
    state = run.state
    started, ended = run.start_time, run.end_time
    seconds = ((ended or datetime.now(UTC)) - started).total_seconds() if started else 0.0
    kind, name = (state.type.value, state.name or "") if state else ("PENDING", "Pending")
    return StepRow(str(run.id), run.name, depth, kind, name, seconds, bar, (state and state.message) or "")


class Display(Protocol):
    """Shows what happens."""

    def see(self, snapshot: Snapshot) -> None: ...

    def tell(self, sentence: str) -> None: ...


class PlainDisplay:
    """One line when a step starts, goes on for long, or ends."""

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}
        self._progress: dict[str, tuple[float, str]] = {}

    def see(self, snapshot: Snapshot) -> None:
        for row in step_rows(snapshot):
            if self._shown.get(row.key) != row.state_name:
                self._shown[row.key] = row.state_name
                if row.ended or row.state_type == "RUNNING":
                    self.tell(_sentence(row))
            elif row.bar and not row.ended:
                self._go_on(row, row.bar)

    def _go_on(self, row: StepRow, bar: Bar) -> None:
        text = f"{'  ' * row.depth}… {row.name}: {bar.percent:.0f} % {bar.text}"
        at, before = self._progress.get(row.key, (0.0, ""))
        if text != before and time.monotonic() - at > PROGRESS_EVERY:
            self._progress[row.key] = (time.monotonic(), text)
            self.tell(text)

    def tell(self, sentence: str) -> None:
        print(sentence, flush=True)


class LiveDisplay:
    """All steps, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._snapshot: Snapshot | None = None
        self._sentence = "Starting the platform"
        self._spinner = Spinner("dots")
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._sentence = ""
        self._live.stop()

    def see(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        state = snapshot.run.state
        waiting = state is not None and (state.is_scheduled() or state.is_pending())
        self._sentence = f"{snapshot.run.name} starts" if waiting else ""

    def tell(self, sentence: str) -> None:
        self._live.console.print(sentence, highlight=False)

    def _draw(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        rows = step_rows(self._snapshot) if self._snapshot else []
        for row in rows:
            grid.add_row(self._mark(row), Text("  " * row.depth + row.name), _seconds(row), _detail(row))
        if self._sentence:
            grid.add_row(self._spinner, Text(self._sentence, style="dim"))
        return grid

    def _mark(self, row: StepRow) -> Any:
        if not row.ended:
            return self._spinner if row.state_type == "RUNNING" else Text("·", style="dim")
        return Text(*_MARKS.get("REUSED" if row.reused else row.state_type, ("!", "yellow")))


_MARKS: Final = {
    "COMPLETED": ("✓", "green"),
    "REUSED": ("↺", "cyan"),
    "FAILED": ("✗", "bold red"),
    "CRASHED": ("✗", "bold red"),
    "CANCELLED": ("–", "dim"),
}


def _seconds(row: StepRow) -> Text:
    return Text(f"{row.seconds:5.1f} s" if row.state_type not in {"PENDING", "SCHEDULED"} else "", style="dim")


def _detail(row: StepRow) -> Any:
    if row.reused:
        return Text("reused", style="cyan")
    if row.ended:
        return Text(row.message[:100], style="red") if row.state_type in {"FAILED", "CRASHED"} else Text("")
    if row.bar:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(100, row.bar.percent, width=24), f"{row.bar.percent:.0f} %", row.bar.text)
        return grid
    return Text(row.state_name if row.state_name not in {"Running", "Pending"} else "", style="yellow")


def _sentence(row: StepRow) -> str:
    if not row.ended:
        return f"{'  ' * row.depth}… {row.name}"
    mark = _MARKS.get("REUSED" if row.reused else row.state_type, ("!", ""))[0]
    detail = " reused" if row.reused else f" {row.state_name}: {row.message}" if row.state_type != "COMPLETED" else ""
    return f"{'  ' * row.depth}{mark} {row.name} ({row.seconds:.1f} s){detail}"


@contextmanager
def display() -> Iterator[Display]:
    """The display that fits standard output."""
    if sys.stdout.isatty():
        with LiveDisplay(Console()) as live:
            yield live
    else:
        yield PlainDisplay()
