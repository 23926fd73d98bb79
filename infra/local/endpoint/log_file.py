"""The log file that a supervisor and its scoring processes append to, as JSON lines."""

import asyncio
import logging
import os
from collections import deque
from pathlib import Path
from typing import Final

from model.files import write_whole
from model.serving.observe.logs import JsonFormatter

MAX_BYTES: Final = 20 * 1024 * 1024
ROTATION_SECONDS: Final = 30.0


def log_to(path: Path) -> None:
    """Send every logger of this process to the file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


async def keep_short(path: Path) -> None:
    """Rotate the file whenever it is large, for as long as this process lives."""
    while True:
        _rotate(path)
        await asyncio.sleep(ROTATION_SECONDS)


def _rotate(path: Path) -> None:
    """Where the file is large, keep it as `<name>.1` and begin again.

    It is copied and emptied, not renamed: the processes have it open, for appending.
    """
    try:
        if path.stat().st_size < MAX_BYTES:
            return
    except FileNotFoundError:
        return
    write_whole(path.with_name(f"{path.name}.1"), path.read_bytes())
    os.truncate(path, 0)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of the file; of the one before where this one is short."""
    newest: deque[str] = deque(maxlen=max(0, lines))
    for part in (path.with_name(f"{path.name}.1"), path):
        if part.exists():
            newest.extend(part.read_text(encoding="utf-8", errors="replace").splitlines())
    return list(newest)
