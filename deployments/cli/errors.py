"""How an error looks to a person or a pipeline: what happened, what to do, the runbook's section, the exit code."""

import json
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from model.errors import KnownError
from tasks.framework.error_table import runbook


def show_failure(error: Exception, *, as_json: bool) -> int:
    """Print an error for people (or as JSON) on stderr, and answer its exit code."""
    if isinstance(error, KnownError):
        name = type(error).__name__
        return _show(name, str(error), error.next_step, runbook(name), error.exit_code, as_json=as_json)
    log = _keep_traceback(error)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return _show(
        "Unexpected error", what, f"This is a bug; the traceback is in {log}.", runbook("Bugs"), 1, as_json=as_json
    )


def show_usage(error: Any, *, as_json: bool) -> int:
    """Print a usage error as typer does, or as JSON, and answer its exit code."""
    if as_json:
        return _show("UsageError", error.format_message(), "See `ahc --help`.", runbook("UsageError"), 2, as_json=True)
    error.show()
    return int(error.exit_code)


def _show(name: str, message: str, next_step: str, runbook: str, exit_code: int, *, as_json: bool) -> int:
    if as_json:
        fields = {"error": name, "message": message, "next_step": next_step, "runbook": runbook, "exit_code": exit_code}
        print(json.dumps(fields), file=sys.stderr)
    else:
        mark = "\033[1;31m" if sys.stderr.isatty() else ""
        end = "\033[0m" if mark else ""
        print(f"{mark}{name}{end}: {message}", file=sys.stderr)
        print(f"  What now: {next_step}\n  Runbook:  {runbook}\n  Exit code {exit_code}", file=sys.stderr)
    return exit_code


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
