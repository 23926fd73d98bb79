"""What happens in a run as lines of text, for a terminal or any build log."""

import sys
from typing import Protocol, TextIO

from deployments.lines import Line
from deployments.report import Report
from deployments.watch import Snapshot

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
        self.tell(f"{report.run}: {report.told} Exit code {report.exit_code}.")
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
