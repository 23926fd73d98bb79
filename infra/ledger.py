"""The release ledger: what happened to which version in which environment, append-only and chained by hashes."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from pydantic import Field

from infra.ports import Frozen, LiveModel

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
