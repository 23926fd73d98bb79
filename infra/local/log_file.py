"""The log file that a supervisor and its scoring processes append to, as JSON lines."""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 20 * 1024 * 1024


class JsonLines(logging.Formatter):
    """The same fields as those of the scoring service."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to(path: Path) -> None:
    """Send every logger of this process to the file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def rotate(path: Path) -> None:
    """Where the file is large, keep it as `<name>.1` and begin again.

    It is copied and emptied, not renamed: the processes have it open, for appending.
    """
    try:
        if path.stat().st_size < MAX_BYTES:
            return
    except FileNotFoundError:
        return
    kept = path.with_name(f"{path.name}.1")
    kept.write_bytes(path.read_bytes())
    os.truncate(path, 0)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of the file; of the one before where this one is short."""
    found: list[str] = []
    for part in (path.with_name(f"{path.name}.1"), path):
        if part.exists() and lines > 0:
            found += part.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return found[-lines:] if lines > 0 else []
