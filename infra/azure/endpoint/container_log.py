"""What the log of a scoring container says about its end: its lines are JSON objects."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from model.values import Frozen

TAIL: Final = 5
"""Lines that are quoted where none of them names the cause."""


class LastWords(Frozen):
    """Why a container ended, as it told itself."""

    message: str
    exit_code: int | None = None


def last_words(lines: Sequence[str], *, since: datetime | None = None) -> LastWords:
    """The last error that the log tells, else its last lines.

    Args:
        lines: Oldest first.
        since: Lines before this time are of another container.
    """
    entries = [entry for line in lines if (entry := _entry(line)) and (since is None or _time(entry) >= since)]
    errors = [entry for entry in entries if entry.get("level") in {"error", "critical"}]
    if not errors:
        return LastWords(message=" | ".join(line.strip() for line in lines[-TAIL:]))
    # Process 1 of a container repeats the exit code of the process that knows the cause.
    ends = [entry for entry in errors if "exit_code" in entry]
    final = next((entry for entry in reversed(ends) if "error" in entry), (ends or errors)[-1])
    kind = f"{final['error']}: " if "error" in final else ""
    return LastWords(message=f"{kind}{final.get('message', '')}", exit_code=final.get("exit_code"))


def _entry(line: str) -> dict[str, Any] | None:
    # App Service puts a time of its own before each line.
    _, brace, rest = line.partition("{")
    try:
        entry = json.loads(brace + rest)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _time(entry: dict[str, Any]) -> datetime:
    try:
        time = datetime.fromisoformat(str(entry.get("time")))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
