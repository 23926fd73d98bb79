"""The rules that say whether a version may go live in an environment now, and who may decide on it.

Pure: facts come in, obstacles come out.
"""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from infra.config.environments import Environment
from infra.config.gates import FreezeWindow, Gates
from infra.ports import LiveModel, RegisteredModel
from infra.releases.ledger import SERVING, ReleaseEvent
from model.values import Frozen

if TYPE_CHECKING:
    from model.bundle.read import Lineage

LINEAGE_TAGS: Final = ("data_version", "data_uri", "code")
"""What the registry and the bundle both know, under one name."""
WINDOWS_IN_A_ROW: Final = 400
"""After so many windows without a gap nobody can say when the freeze ends."""


class Hold(Frozen):
    """A gate that says not now, or not this version; `force` with a reason passes it."""

    gate: Literal["freeze", "soak", "age", "rolled-back", "rejected"]
    why: str
    until: datetime | None = Field(default=None, description="When it opens by itself, where it does.")

    def __str__(self) -> str:
        return f"{self.why}, until {self.until:%Y-%m-%d %H:%M %Z}" if self.until else self.why


class KnownEvents(Frozen):
    """The facts by which a version may go live or not."""

    now: datetime
    live: LiveModel | None = Field(description="What the environment's endpoint reports.")
    events: tuple[ReleaseEvent, ...] = Field(description="Of this environment, oldest first.")
    required_since: datetime | None = Field(
        default=None, description="Since when it is live in the environment that `requires` names."
    )


def holds(model: RegisteredModel, environment: Environment, facts: KnownEvents) -> list[Hold]:
    """Everything that is in the way of this version and that a reason may pass."""
    obstacles = (
        _frozen(environment.gates.freeze, facts.now),
        _soaking(environment.gates, facts),
        _older(model, environment.name, facts.live),
        _rolled_back(model, environment.name, facts.events),
        _rejected(model, environment.name, facts.events),
    )
    return [hold for hold in obstacles if hold is not None]


def live_since(events: Sequence[ReleaseEvent], digest: str) -> datetime | None:
    """Since when these bytes serve, by the events of their environment; None where the last ones are about others."""
    since = None
    for event in reversed([event for event in events if event.kind in SERVING]):
        if event.model.digest != digest:
            break
        since = event.at
    return since


def lineage_gaps(model: RegisteredModel, lineage: "Lineage") -> list[str]:
    """Where the registry and the bundle don't say the same about what a version was made from, or nothing."""
    gaps = []
    for name in LINEAGE_TAGS:
        tag, made = model.tags.get(name, ""), str(getattr(lineage, name))
        if not tag:
            gaps.append(f"the registry doesn't say its `{name}`")
        elif tag != made:
            gaps.append(f"`{name}` is {tag} in the registry and {made} in the bundle")
    if not model.tags.get("mlflow_run"):
        gaps.append("the registry doesn't say its `mlflow_run`")
    return gaps


def release_command(environment: str, name: str, version: int | str) -> str:
    """What starts a release of this version anew; words such as NAME stand for what the caller must fill in."""
    return f"ahc trigger release/{environment} -p name={name} -p version={version}"


def may_not_decide(by: str, gates: Gates, started_by: str, *, approved: bool) -> str | None:
    """Why this person's decision doesn't count, with who may; None where it does.

    Whoever started a release may take it back: four eyes are needed for a yes.
    """
    named = [_person(name) for name in gates.approvers]
    if named and _person(by) not in named:
        return f"{by.strip()} may not decide here; {', '.join(gates.approvers)} may."
    if approved and gates.four_eyes and _person(by) == _person(started_by):
        others = [name for name in gates.approvers if _person(name) != _person(started_by)]
        who = ", ".join(others) or ("the environment file names nobody else" if named else "anybody else")
        return f"{by.strip()} started this release, and another person decides ({who})."
    return None


def _person(name: str) -> str:
    return " ".join(name.split()).casefold()


def _frozen(windows: Sequence[FreezeWindow], now: datetime) -> Hold | None:
    first = next((window for window in windows if window.holds(now)), None)
    if first is None:
        return None
    return Hold(gate="freeze", why=f"nothing is released now ({first.reason})", until=_thaw(windows, now))


def _thaw(windows: Sequence[FreezeWindow], now: datetime) -> datetime | None:
    """When the first moment comes that no window holds; None where they follow each other for more than a year."""
    moment = now
    for _ in range(WINDOWS_IN_A_ROW):
        window = next((window for window in windows if window.holds(moment)), None)
        if window is None:
            return moment
        moment = _end(window, moment)
    return None


def _end(window: FreezeWindow, moment: datetime) -> datetime:
    """When a window that holds ends; a weekly one with its day, in its own time zone."""
    if window.end is not None:
        return window.end
    zone = ZoneInfo(window.time_zone)
    return datetime.combine(moment.astimezone(zone).date() + timedelta(days=1), time(), zone)


def _soaking(gates: Gates, facts: KnownEvents) -> Hold | None:
    if not gates.requires or not gates.soak_minutes:
        return None
    must = f"it must have been live in {gates.requires} for {gates.soak_minutes:g} minutes"
    if facts.required_since is None:
        return Hold(gate="soak", why=f"{must}, and the ledger doesn't say since when it is")
    until = facts.required_since + timedelta(minutes=gates.soak_minutes)
    if until <= facts.now:
        return None
    since = f"{facts.required_since:%Y-%m-%d %H:%M %Z}"
    return Hold(gate="soak", why=f"{must}, and is since {since}", until=until)


def _older(model: RegisteredModel, environment: str, live: LiveModel | None) -> Hold | None:
    if live is None or live.name != model.name or live.version <= model.version:
        return None
    return Hold(gate="age", why=f"it is older than v{live.version}, which is live in {environment}")


def _rolled_back(model: RegisteredModel, environment: str, events: Sequence[ReleaseEvent]) -> Hold | None:
    reason = model.tags.get(f"rolled_back.{environment}")
    takeovers = [event for event in events if event.kind in SERVING]
    for before, after in pairwise(takeovers):
        away = before.model.digest == model.digest != after.model.digest
        if reason is None and after.kind == "rolled-back" and away:
            reason = after.reason
    if reason is None:
        return None
    return Hold(gate="rolled-back", why=f"it was rolled back in {environment} ({reason or 'no reason given'})")


def _rejected(model: RegisteredModel, environment: str, events: Sequence[ReleaseEvent]) -> Hold | None:
    decision = model.tags.get(f"decision.{environment}", "")
    for event in events:
        if event.model.digest == model.digest and event.kind in ("approved", "rejected"):
            decision = f"{event.kind} by {event.by}: {event.reason}"
    return Hold(gate="rejected", why=f"it was {decision}") if decision.startswith("rejected") else None
