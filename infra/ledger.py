"""The release ledger: what happened to which version in which environment, append-only and chained by hashes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol

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


class ReleaseEvent(Frozen):
    """One file of the ledger."""

    environment: str
    sequence: int = Field(ge=1, description="Counts the environment's events.")
    at: datetime
    kind: EventKind
    model: LiveModel = Field(description="Which version it is about; after `rolled-back`, the one that serves again.")
    by: str = Field(description="Who or what caused it: a person, a trigger, `watch`.")
    reason: str = ""
    run: str = Field(description="Id of the root flow run.")
    details: dict[str, Any] = Field(default_factory=dict)
    previous: str = Field(description="Hash of the event before; empty for the first.")
    digest: str = Field(description="sha256 over everything above.")


class ReleaseLedger(Protocol):
    """The events of all environments."""

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

        Raises: LedgerBroken where the chain doesn't hold (the event is not written).
        """
        ...

    def events(self, environment: str) -> list[ReleaseEvent]:
        """Oldest first.

        Raises: LedgerBroken: names the first file that doesn't fit.
        """
        ...
