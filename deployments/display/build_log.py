"""What happens in a run as a step of an Azure Pipelines build: folded by step, with issues, progress and results."""

import os
import tempfile
from pathlib import Path
from typing import Final
from uuid import UUID

from deployments.display.azure_pipelines import Log
from deployments.display.plain_log import as_text, told
from deployments.display.run_summary import markdown
from deployments.runs.report import Report
from deployments.runs.run_reader import Bar, Line, Snapshot

WARNINGS: Final = 10
"""The build's page shows no more issues of one kind; later ones are in the log alone."""


class BuildLog:
    """A run in the log of a build. Lines stay in the order of their time.

    Each task or subflow of the run's first level has one group, open until it ended and a line of another one comes.
    Lines of steps that run beside it stay inside, with their own name.

    Args:
        log: The log of the build.
        not_promoted_warns: Show a model that isn't promoted as a warning.
    """

    def __init__(self, log: Log, *, not_promoted_warns: bool) -> None:
        self._log = log
        self._not_promoted_warns = not_promoted_warns
        self._open: UUID | None = None
        self._opened: set[UUID] = set()
        self._ended: set[UUID] = set()
        self._warned: set[str] = set()
        self._progress = (-1, "")

    def tell(self, sentence: str) -> None:
        self._log.line(sentence)

    def see(self, snapshot: Snapshot) -> None:
        names = {item.id: item.name for item in snapshot.flow_runs}
        names.update({item.id: item.name for item in snapshot.task_runs})
        for line in told(snapshot):
            step = _first_level(line.run_id, snapshot)
            self._enter(step, names)
            self._tell(line)
            self._note_end(line, step, snapshot.run.id)
        if snapshot.bars:
            self._show_progress(snapshot.bars[-1])

    def end(self, report: Report) -> None:
        self._log.end_group()
        self._log.line(f"{report.run}: {report.ending} Exit code {report.exit_code}.")
        if report.failed:
            self._log.issue("error", explained(report))
        elif report.not_promoted and self._not_promoted_warns:
            self._log.issue("warning", explained(report))
        for name, value in variables(report).items():
            self._log.variable(name, value)
        self._log.summary(_write_summary(report))
        if not report.failed and report.not_promoted and self._not_promoted_warns:
            self._log.succeed_with_issues(f"{report.run}: not promoted")

    def _enter(self, step: UUID | None, names: dict[UUID, str]) -> None:
        if step == self._open or (self._open is not None and self._open not in self._ended):
            return
        self._log.end_group()
        self._open = step
        if step is not None:
            self._log.group(f"{names.get(step, '')}{' goes on' if step in self._opened else ''}")
            self._opened.add(step)

    def _tell(self, line: Line) -> None:
        text = as_text(line)
        new = f"{line.run}: {line.text}"
        if 30 <= line.level < 40 and len(self._warned) < WARNINGS and new not in self._warned:
            self._warned.add(new)
            self._log.issue("warning", text)  # the agent writes it into the log, too
        else:
            self._log.line(text, line.level)

    def _note_end(self, line: Line, step: UUID | None, root: UUID) -> None:
        if line.state is None:
            return
        over = line.state.is_final() or line.state.is_scheduled() or line.state.is_paused()
        if line.run_id == root and over:
            self._ended |= self._opened  # steps of a process that was killed don't end by themselves
        elif step is not None and line.run_id == step:
            (self._ended.add if over else self._ended.discard)(step)

    def _show_progress(self, bar: Bar) -> None:
        now = (int(bar.percent), bar.text)
        if now[0] != self._progress[0]:
            self._progress = now
            self._log.progress(bar.percent, bar.text)


def explained(report: Report) -> str:
    """Why a build is not green, in a few sentences."""
    message = "" if report.followed_for is not None else report.message
    next_step = f"`ahc why {report.run_id}` says more." if report.run_id else ""
    return " ".join(part for part in (f"{report.run}: {report.ending}", message, next_step, report.runbook) if part)


def variables(report: Report) -> dict[str, object]:
    """What later jobs and stages may want to know."""
    evidence = report.evidence
    always = {
        "runId": report.run_id,
        "runName": report.run,
        "runUrl": report.link,
        "state": report.state,
        "exitCode": report.exit_code,
    }
    model = {"modelName": evidence.model_name, "modelVersion": evidence.model_version, "verdict": evidence.verdict}
    return always | {name: value for name, value in model.items() if value}


def _first_level(run_id: UUID | None, snapshot: Snapshot) -> UUID | None:
    """The task or subflow right below the run to which this one belongs; None for the run itself."""
    while run_id is not None and snapshot.parents.get(run_id) != snapshot.run.id:
        run_id = snapshot.parents.get(run_id)
    return run_id


def _write_summary(report: Report) -> Path:
    folder = Path(os.environ.get("AGENT_TEMPDIRECTORY") or tempfile.gettempdir())
    # The build's page shows the name of the file as its title; the agent reads it when the step has ended.
    path = folder / f"{report.deployment.replace('/', ' ')} {report.run_id[:8]}.md"
    path.write_text(markdown(report), encoding="utf-8")
    return path
