"""States and log lines of a run and everything below it, put in the order of their time."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

SETTLE: Final = 0.75
"""Seconds that a line is held back: log lines come in batches from several processes, states by another way."""
UNKNOWN: Final = 5.0
"""Seconds after which a line is told although the server doesn't know its task run yet."""


@dataclass(frozen=True, order=True)
class Line:
    """One state or log line of one run."""

    time: datetime
    run: str = field(compare=False)
    text: str = field(compare=False)
    level: int = field(default=20, compare=False)
    state: "State[Any] | None" = field(default=None, compare=False)
    run_id: UUID | None = field(default=None, compare=False)


class Settling:
    """Holds lines back until an earlier one of another process can't be expected any more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, Line]] = []
        self._held_until = clock()

    def add(self, lines: Iterable[Line]) -> None:
        now = self._clock()
        self._waiting += [(now, line) for line in lines]

    def hold(self, seconds: float) -> None:
        """Let nothing out for a while."""
        self._held_until = max(self._held_until, self._clock() + seconds)

    def held(self) -> float:
        """Seconds for which nothing is let out yet."""
        return max(0.0, self._held_until - self._clock())

    def ready(self, known: Callable[[Line], bool]) -> list[Line]:
        """What has settled, oldest first. Lines of a run that isn't `known` yet, and all after them, wait for it."""
        now = self._clock()
        settled = [line.time for came, line in self._waiting if came <= now - SETTLE]
        if not settled or now < self._held_until:
            return []
        horizon = max(settled)
        early = [line.time for came, line in self._waiting if came > now - UNKNOWN and not known(line)]
        limit = min(early, default=None)
        ready = [line for _, line in self._waiting if line.time <= horizon and (limit is None or line.time < limit)]
        let_out = {id(line) for line in ready}
        self._waiting = [item for item in self._waiting if id(item[1]) not in let_out]
        return sorted(ready)

    def rest(self) -> list[Line]:
        """Everything that still waits, oldest first."""
        lines = sorted(line for _, line in self._waiting)
        self._waiting = []
        return lines
