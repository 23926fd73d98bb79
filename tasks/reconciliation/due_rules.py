"""Which version an environment is due to get by itself, and if none, why not.

Pure: what is known comes in, one decision an environment comes out. A version gets one try in an environment; after
that, and for every older one, a person decides.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from pydantic import Field

from infra.config.environments import Environment
from infra.ports import EndpointStatus, LiveModel, RegisteredModel
from infra.releases.ledger import SERVING, EventKind, ReleaseEvent
from model.values import Frozen
from tasks.release.gate_rules import KnownEvents, holds, live_since
from tasks.release.release_runs import UnderWay

NOT_AGAIN: Final[tuple[EventKind, ...]] = ("failed", "aborted", "expired")
"""A try that ended with one of these, as the last word on a version."""


class Situation(Frozen):
    """An environment as it is now."""

    environment: Environment
    endpoint: EndpointStatus
    events: tuple[ReleaseEvent, ...] = Field(default=(), description="Its ledger, oldest first.")

    @property
    def live(self) -> LiveModel | None:
        """What it runs; of a stopped endpoint, what it will run when it is started."""
        if self.endpoint.live is not None:
            return self.endpoint.live
        return next((event.model for event in reversed(self.events) if event.kind in SERVING), None)


class Decision(Frozen):
    """What becomes of one environment."""

    environment: str
    model: RegisteredModel | None = Field(default=None, description="The version that is due.")
    why: str


def triggered_tag(environment: str) -> str:
    """The tag of a version that says by which run the triggers released it here; they do it once."""
    return f"triggered.{environment}"


def due(
    versions: Sequence[RegisteredModel], situations: Sequence[Situation], under_way: UnderWay, now: datetime
) -> list[Decision]:
    """One decision for each environment, in their order.

    Args:
        versions: All that may be promoted, of any name.
        situations: All environments, those that others require too.
        under_way: Runs that release.
        now: Aware.
    """
    by_name = {item.environment.name: item for item in situations}
    return [
        _decision(versions, item, by_name.get(item.environment.gates.requires or ""), under_way, now)
        for item in situations
    ]


def _decision(
    versions: Sequence[RegisteredModel],
    here: Situation,
    before: Situation | None,
    under_way: UnderWay,
    now: datetime,
) -> Decision:
    name = here.environment.name
    if not here.environment.gates.automatic:
        return Decision(environment=name, why="`gates.automatic` is false: people start its releases")
    if here.endpoint.state == "unhealthy":
        return Decision(environment=name, why=f"its endpoint is unhealthy: {here.endpoint.detail}")
    reasons: list[str] = []
    for model in _candidates(versions, here.live):
        why, last = _obstacle(model, here, before, under_way, now)
        if not why:
            return Decision(environment=name, model=model, why=f"{model.label} is newer than what it runs")
        reasons.append(f"{model.label}: {why}")
        if last:
            break
    return Decision(environment=name, why=reasons[0] if reasons else _nothing(here.live))


def _candidates(versions: Iterable[RegisteredModel], live: LiveModel | None) -> list[RegisteredModel]:
    """Newest first; of the name that is live, or where nothing is, of all names."""
    if live is None:
        return sorted(versions, key=lambda model: (model.created, model.version), reverse=True)
    return sorted(
        (model for model in versions if model.name == live.name), key=lambda model: model.version, reverse=True
    )


def _nothing(live: LiveModel | None) -> str:
    of_name = f" of {live.name}" if live else ""
    return f"no version{of_name} has the verdict `promote`"


def _obstacle(
    model: RegisteredModel, here: Situation, before: Situation | None, under_way: UnderWay, now: datetime
) -> tuple[str, bool]:
    """Why this version doesn't go here now, empty where it does; and whether older ones needn't be looked at."""
    environment = here.environment
    if here.live is not None and here.live.digest == model.digest:
        return "it is live", True
    if tried := _tried(model, here):
        return tried, True
    if environment.gates.requires and not _is_live(model, before):
        return f"it is not live in {environment.gates.requires}", False
    if busy := _being_released(model, environment, under_way):
        return busy, True
    facts = KnownEvents(
        now=now,
        live=here.live,
        events=here.events,
        required_since=live_since(before.events, model.digest) if before else None,
    )
    return "; ".join(map(str, holds(model, environment, facts))), True


def _is_live(model: RegisteredModel, place: Situation | None) -> bool:
    return place is not None and place.endpoint.live is not None and place.endpoint.live.digest == model.digest


def _tried(model: RegisteredModel, here: Situation) -> str:
    name = here.environment.name
    if run := model.tags.get(triggered_tag(name)):
        return f"run {run[:8]} was started for it before; `ahc why {run[:8]}` says what became of it"
    last = next((event for event in reversed(here.events) if event.model.digest == model.digest), None)
    if last is not None and last.kind in NOT_AGAIN:
        return f"its release {last.kind} at {last.at:%Y-%m-%d %H:%M %Z}" + (f": {last.reason}" if last.reason else "")
    return ""


def _being_released(model: RegisteredModel, environment: Environment, under_way: UnderWay) -> str:
    for run in under_way.releases:
        if (run.environment, run.name, run.version) == (environment.name, model.name, model.version):
            return f"run {run.id[:8]} releases it"
    # A lifecycle releases where nobody has to approve; where one has to, it leaves the release to the triggers.
    lifecycle = next((run for run in under_way.lifecycles if run.name == model.name), None)
    if lifecycle is not None and not environment.gates.approval:
        return f"the lifecycle {lifecycle.id[:8]} releases by itself until it ends"
    return ""
