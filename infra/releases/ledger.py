"""The release ledger: what happened to which version in which environment, append-only and chained by hashes."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, Literal, Protocol

from pydantic import Field

from infra.errors import LedgerBroken
from infra.ports import LiveModel
from model.values import Frozen

EventKind = Literal[
    "started",
    "approved",
    "rejected",
    "expired",
    "failed",
    "aborted",
    "switched",
    "settled",
    "rolled-back",
    "repaired",
]
"""What happened: a release began; a person decided, or nobody did; it failed before it took traffic; its canary was
aborted; it took over; its watch ended well; the version before came back; the records were made to say what runs."""

SERVING: Final[frozenset[EventKind]] = frozenset({"switched", "rolled-back", "repaired"})
"""After one of these, its model is what the endpoint runs."""


class ReleaseEvent(Frozen):
    """One file of the ledger."""

    environment: str
    sequence: int = Field(ge=1, description="Counts the environment's events.")
    at: datetime
    kind: EventKind
    model: LiveModel = Field(description="Which version it is about; after `rolled-back`, the one that serves again.")
    by: str = Field(description="Who or what caused it: a person, a trigger, `watch`.")
    reason: str = ""
    run: str = Field(description="Id of the root flow run; empty outside of runs.")
    details: dict[str, Any] = Field(default_factory=dict)
    previous: str = Field(description="Digest of the event before; empty for the first.")
    digest: str = Field(description="sha256 over everything above, as canonical JSON.")


class History(Frozen):
    """All events of one environment, checked."""

    environment: str
    place: str = Field(description="Where a person finds its files.")
    events: tuple[ReleaseEvent, ...] = Field(description="Oldest first; of a broken chain, those that are whole.")
    faults: tuple[str, ...] = Field(default=(), description="What is wrong with the chain, each naming its file.")

    @property
    def problem(self) -> str:
        """The faults in a sentence; empty where there is none."""
        if not self.faults:
            return ""
        more = f" (and {len(self.faults) - 1} more)" if self.faults[1:] else ""
        return f"The release ledger of {self.environment} is broken: {self.faults[0]}{more}, in {self.place}."


class ReleaseLedger(Protocol):
    """The events of all environments.

    The chain tells what was edited, removed, inserted or reordered before its newest event. The newest one itself is
    told where its digest doesn't fit; that it was removed can't be seen here, only that the endpoint runs another
    model than the last event says.
    """

    def append(
        self,
        environment: str,
        kind: EventKind,
        model: LiveModel,
        *,
        by: str,
        run: str,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> ReleaseEvent:
        """Write the next event of this environment; two writers at once both get theirs.

        Raises: LedgerBroken where the event before is not whole (nothing is written then).
        """
        ...

    def newest(self, environment: str) -> Iterator[ReleaseEvent]:
        """Newest first, each read and checked when it is asked for: quick, however many there are.

        Raises: LedgerBroken: the event that is asked for is not whole, or not the one that was chained to.
        """
        ...

    def history(self, environment: str) -> History:
        """Read and check all events; a broken chain is told, not raised."""
        ...

    def events(self, environment: str) -> list[ReleaseEvent]:
        """Oldest first.

        Raises: LedgerBroken: names the first file that doesn't fit.
        """
        ...


def last_word(ledger: ReleaseLedger, environment: str) -> ReleaseEvent | None:
    """The event that says what this environment runs; None where nothing was released. Raises as `newest` does."""
    return next((event for event in ledger.newest(environment) if event.kind in SERVING), None)


NAME: Final = re.compile(r"(\d{8})\.json")
UNSEALED: Final = "0" * 64


class EventFiles(Protocol):
    """Files in one folder for each environment."""

    def place(self, environment: str) -> str:
        """Where a person finds the folder."""
        ...

    def names(self, environment: str) -> list[str]:
        """Empty where the folder is not there."""
        ...

    def read(self, environment: str, names: Sequence[str]) -> list[bytes | None]:
        """Content in the order of `names`; None for a file that is not there."""
        ...

    def create(self, environment: str, name: str, content: bytes) -> bool:
        """Make a file, whole or not at all, also where the writer is killed; False where another one is there."""
        ...


class FileLedger:
    """A ReleaseLedger in files."""

    def __init__(self, files: EventFiles) -> None:
        self._files = files

    def append(
        self,
        environment: str,
        kind: EventKind,
        model: LiveModel,
        *,
        by: str,
        run: str,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> ReleaseEvent:
        while True:
            last = next(self.newest(environment), None)
            event = ReleaseEvent(
                environment=environment,
                sequence=last.sequence + 1 if last else 1,
                at=datetime.now(UTC),
                kind=kind,
                model=model,
                by=by,
                reason=reason,
                run=run,
                details=dict(details or {}),
                previous=last.digest if last else "",
                digest=UNSEALED,
            )
            content = _sealed(event)
            if self._files.create(environment, _name(event.sequence), content):
                return ReleaseEvent.model_validate_json(content)

    def newest(self, environment: str) -> Iterator[ReleaseEvent]:
        after: ReleaseEvent | None = None
        for number in range(_count(self._files.names(environment)), 0, -1):
            [content] = self._files.read(environment, [_name(number)])
            event, fault = _checked(environment, number, content)
            if event is None or (after is not None and after.previous != event.digest):
                raise LedgerBroken(self._history(environment, [], [fault or _unchained(number)]).problem)
            yield event
            after = event

    def history(self, environment: str) -> History:
        names = self._files.names(environment)
        numbers = range(1, _count(names) + 1)
        contents = self._files.read(environment, [_name(number) for number in numbers])
        faults = [(name, f"{name} is not an event") for name in names if not NAME.fullmatch(name)]
        events: list[ReleaseEvent] = []
        for number, content in zip(numbers, contents, strict=True):
            event, fault = _checked(environment, number, content)
            if event is None:
                faults.append((_name(number), fault))
            else:
                events.append(event)
        if events and events[0].sequence == 1 and events[0].previous:
            faults.append((_name(1), f"{_name(1)} is chained to an event before the first"))
        for before, event in pairwise(events):
            if event.sequence == before.sequence + 1 and event.previous != before.digest:
                faults.append((_name(before.sequence), _unchained(before.sequence)))
        return self._history(environment, events, [text for _, text in sorted(faults)])

    def events(self, environment: str) -> list[ReleaseEvent]:
        history = self.history(environment)
        if history.faults:
            raise LedgerBroken(history.problem)
        return list(history.events)

    def _history(self, environment: str, events: Sequence[ReleaseEvent], faults: Sequence[str]) -> History:
        place = self._files.place(environment)
        return History(environment=environment, place=place, events=tuple(events), faults=tuple(faults))


def _name(number: int) -> str:
    return f"{number:08d}.json"


def _count(names: Sequence[str]) -> int:
    return max((int(match[1]) for name in names if (match := NAME.fullmatch(name))), default=0)


def _unchained(number: int) -> str:
    return f"{_name(number)} is not the file that {_name(number + 1)} was chained to"


# --- one file -----------------------------------------------------------------------------------------------------


def _sealed(event: ReleaseEvent) -> bytes:
    """The event's file; what JSON can't say, such as NaN, is null."""
    content = json.loads(event.model_dump_json())
    return _file(content | {"digest": _digest(content)})


def _file(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _digest(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(environment: str, number: int, file: bytes | None) -> tuple[ReleaseEvent | None, str]:
    """The event of a file, or what is wrong with the file."""
    name = _name(number)
    if file is None:
        return None, f"{name} is missing"
    try:
        content = json.loads(file)
        event = ReleaseEvent.model_validate(content)
    except ValueError:
        return None, f"{name} is not an event"
    # The bytes too: a key that comes twice would be read as its second.
    if _digest(content) != event.digest or _file(content) != file:
        return None, f"{name} was edited"
    if (event.environment, event.sequence) != (environment, number):
        return None, f"{name} is event {event.sequence} of {event.environment} under another name"
    return event, ""
