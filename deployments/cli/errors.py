"""How an error looks to a person or a pipeline: what happened, what to do, the runbook's section, the exit code."""

import json
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.errors import KnownError
from model.faults import Fault
from tasks.framework.error_table import runbook


def show_failure(error: Exception, *, as_json: bool) -> int:
    """Print an error for people (or as JSON) on stderr, and answer its exit code."""
    fault = Fault.of(error)
    if isinstance(error, KnownError):
        return _show(fault, runbook(fault.name), as_json=as_json)
    bug = Fault(
        name="Unexpected error",
        message=fault.title.splitlines()[0],
        next_step=f"This is a bug; the traceback is in {_keep_traceback(error)}.",
    )
    return _show(bug, runbook("Bugs"), as_json=as_json)


def show_usage(error: Any, *, as_json: bool) -> int:
    """Print a usage error as typer does, or as JSON, and answer its exit code."""
    if as_json:
        usage = Fault(name="UsageError", message=error.format_message(), next_step="See `ahc --help`.", exit_code=2)
        return _show(usage, runbook(usage.name), as_json=True)
    error.show()
    return int(error.exit_code)


def _show(fault: Fault, section: str, *, as_json: bool) -> int:
    if as_json:
        # The keys that scripts read.
        facts = {"error": fault.name, "message": fault.message, "next_step": fault.next_step}
        print(json.dumps(facts | {"runbook": section, "exit_code": fault.exit_code}), file=sys.stderr)
    else:
        mark = "\033[1;31m" if sys.stderr.isatty() else ""
        end = "\033[0m" if mark else ""
        print(f"{mark}{fault.name}{end}: {fault.message}", file=sys.stderr)
        print(f"  What now: {fault.next_step}\n  Runbook:  {section}\n  Exit code {fault.exit_code}", file=sys.stderr)
    return fault.exit_code


def _keep_traceback(error: Exception) -> Path:
    try:
        from infra.settings import get_settings

        folder = get_settings().path("logs")
    except Exception:  # noqa: BLE001 - the settings or the disk may be what is wrong
        folder = Path(tempfile.gettempdir())
    path = folder / "ahc-errors.log"
    with path.open("a", encoding="utf-8") as stream:
        stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {' '.join(sys.argv)}\n")
        traceback.print_exception(error, file=stream)
    return path
