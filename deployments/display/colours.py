"""How every command shows facts: a table for people, or the same facts as JSON."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

GOOD, BAD, WAITING, QUIET = "green", "bold red", "yellow", "dim"
MARKS = {GOOD: "●", BAD: "✗", WAITING: "◌", QUIET: "○"}


@lru_cache(maxsize=1)
def console() -> Console:
    """Standard output; where it is not a terminal, without colour and with room for whole lines."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)


def show(*parts: RenderableType) -> None:
    for part in parts:
        console().print(part)


def show_json(facts: Any) -> None:
    """One JSON document on standard output; models, dates and paths in their usual text form."""
    print(json.dumps(facts, indent=2, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, title: str | None = None) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style=QUIET)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def marked(word: str, style: str) -> Text:
    """A word with a mark in front, so that it does not depend on colour alone."""
    return Text(f"{MARKS[style]} {word}", style=style)


def state_style(state_type: str, state_name: str) -> str:
    """The style of a Prefect state."""
    if state_name in {"NotPromoted", "Drifted"}:
        return WAITING
    if state_type == "COMPLETED":
        return GOOD
    return BAD if state_type in {"FAILED", "CRASHED"} else QUIET if state_type.startswith("CANCEL") else WAITING


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in the largest unit that says something."""
    if moment is None:
        return "-"
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 0:
        return f"in {duration(-seconds)}"
    return "just now" if seconds < 5 else f"{duration(seconds)} ago"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 86_400:.0f} d"


def bar(share: float, width: int = 24) -> str:
    """A horizontal bar for a share between 0 and 1."""
    return "█" * round(max(0.0, min(1.0, share)) * width)
