"""The failure card: an artifact that says why a task failed, with its last log lines."""

import logging
from collections import deque
from datetime import UTC, datetime
from typing import ClassVar, Final

from prefect.artifacts import create_markdown_artifact

from infra.runs.correlation import root_run
from model.errors import KnownError
from tasks.framework.error_table import runbook

CARD: Final = "A failure card with the next step is among the run's artifacts."


# --- when it fails ------------------------------------------------------------------------------------------------


class LastLines(logging.Handler):
    """Keeps the last log lines of this process for the failure card."""

    lines: ClassVar[deque[str]] = deque(maxlen=30)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{datetime.now(UTC):%H:%M:%S} {record.levelname:<7} {record.getMessage()}")


def publish_failure_card(error: BaseException, where: str) -> None:
    """An artifact for whoever has to find out at 3 a.m. what happened and how to go on; one for each error."""
    if CARD in getattr(error, "__notes__", ()):
        return
    error.add_note(CARD)
    name = type(error).__name__
    next_step = (
        error.next_step if isinstance(error, KnownError) else "This is a bug: the traceback is in the run's log."
    )
    link = runbook(name if isinstance(error, KnownError) else "Bugs")
    run = root_run()
    log = "\n".join(LastLines.lines) or "(nothing was logged)"
    create_markdown_artifact(
        key="failure-card",
        description=f"{name} in {where}",
        markdown=f"""# {where}: {name}

**What happened.** {error}

**What to do.** {next_step}

**Then continue with**

```sh
ahc rerun {run}
```

Steps that had finished are not repeated. Runbook: `{link}`

## Last log lines

```
{log}
```
""",
    )
