"""What a failed step leaves in its run: the record of the fault, and the same as a card for people.

Light on purpose (no Prefect until something failed): the command line shows cards too.
"""

import logging
from collections import deque
from datetime import UTC, datetime
from typing import ClassVar, Final

from infra.runs.correlation import root_run
from infra.runs.faults import CARD, attach_fault
from model.errors import KnownError
from model.faults import Fault
from tasks.framework.error_table import ERRORS, runbook

NOTE: Final = "A failure card with the next step is among the run's artifacts."
BUG: Final = "This is a bug: the traceback is in the run's log."


class LastLines(logging.Handler):
    """Keeps the last log lines of this process for the failure card."""

    lines: ClassVar[deque[str]] = deque(maxlen=30)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{datetime.now(UTC):%H:%M:%S} {record.levelname:<7} {record.getMessage()}")


def publish_fault(error: BaseException, where: str) -> None:
    """Attach the record of an error to the run, with its card; once for each error, by the step in which it began."""
    if NOTE in getattr(error, "__notes__", ()):
        return
    from prefect.artifacts import create_markdown_artifact

    error.add_note(NOTE)
    fault = Fault.of(error, where=where, evidence=tuple(LastLines.lines))
    if not isinstance(error, KnownError):
        fault = fault.model_copy(update={"next_step": BUG})
    attach_fault(fault)
    create_markdown_artifact(key=CARD, description=f"{fault.name} in {where}", markdown=failure_card(fault, root_run()))


def failure_card(fault: Fault, run: str) -> str:
    """A record as Markdown, for whoever has to find out at 3 a.m. what happened and how to go on.

    Args:
        fault: The record.
        run: The id of the run that a person started.
    """
    log = "\n".join(fault.evidence) or "(nothing was logged)"
    return f"""# {fault.where}: {fault.name}

**What happened.** {fault.message}

**What to do.** {fault.next_step}

**Then continue with**

```sh
ahc rerun {run}
```

Steps that had finished are not repeated. Runbook: `{runbook(fault.name if fault.name in ERRORS else "Bugs")}`

## Last log lines

```
{log}
```
"""
