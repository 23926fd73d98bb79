"""What a stage did, written into the release ledger, once however often the stage is repeated."""

from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger

from infra.backend import backend
from infra.ports import LiveModel, RegisteredModel
from infra.releases.ledger import SERVING, EventKind, ReleaseEvent, ReleaseLedger
from infra.runs.correlation import root_run
from infra.settings import get_settings


def note(
    environment: str,
    kind: EventKind,
    model: LiveModel | RegisteredModel,
    *,
    by: str,
    reason: str = "",
    details: Mapping[str, Any] | None = None,
) -> ReleaseEvent:
    """Write an event of the current run; answers the earlier one where this run wrote the same before.

    It has where it noted this kind for this digest and nothing else took over in the environment since: a stage that
    is repeated after its process was killed writes nothing twice, a second switch after a rollback is told.

    Args:
        environment: Its name.
        kind: What happened.
        model: Which version it is about; after `rolled-back`, the one that serves again.
        by: Who or what caused it: a person, a trigger, `watch`.
        reason: In that person's words.
        details: What JSON can say, such as the figures that decided.

    Raises:
        LedgerBroken: The newest events are not whole; nothing is written.
    """
    events, run = backend(get_settings()).ledger(), root_run()
    about = model.as_live if isinstance(model, RegisteredModel) else model
    earlier = _earlier(events, environment, kind, about, run)
    if earlier is not None:
        return earlier
    event = events.append(environment, kind, about, by=by, run=run, reason=reason, details=details)
    if run:
        # A trace outside of the ledger's own files.
        get_run_logger().info("Ledger of %s, event %d: %s, %s.", environment, event.sequence, kind, event.digest)
    return event


def _earlier(
    events: ReleaseLedger, environment: str, kind: EventKind, model: LiveModel, run: str
) -> ReleaseEvent | None:
    for event in events.newest(environment):
        same = event.run == run and event.model.digest == model.digest
        if same and event.kind == kind:
            return event
        if event.kind in SERVING and not same:
            return None
    return None
