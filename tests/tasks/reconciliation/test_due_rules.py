"""Which version is due where: every rule, one line of the table each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.config.environments import Environment
from infra.config.gates import FreezeWindow, Gates
from infra.ports import EndpointStatus, LiveModel, RegisteredModel
from infra.releases.ledger import EventKind, ReleaseEvent
from tasks.reconciliation.due_rules import Decision, Situation, due, triggered_tag
from tasks.release.release_runs import LifecycleRun, ReleaseRun, UnderWay

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def version(number: int, name: str = "food", age_hours: float = 0, **tags: str) -> RegisteredModel:
    return RegisteredModel(
        name=name,
        version=number,
        digest=f"{name}{number}",
        uri="",
        created=NOW - timedelta(hours=age_hours),
        tags={"verdict": "promote", **{key.replace("__", "."): value for key, value in tags.items()}},
    )


def running(number: int, name: str = "food") -> LiveModel:
    return LiveModel(name=name, version=number, digest=f"{name}{number}")


def event(kind: EventKind, number: int, hours_ago: float = 1, reason: str = "") -> ReleaseEvent:
    return ReleaseEvent(
        environment="test",
        sequence=1,
        at=NOW - timedelta(hours=hours_ago),
        kind=kind,
        model=running(number),
        by="ann",
        reason=reason,
        run="",
        previous="",
        digest="",
    )


def place(
    name: str, live: LiveModel | None = None, *events: ReleaseEvent, state: Any = "running", **gates: Any
) -> Situation:
    return Situation(
        environment=Environment(name=name, description="", port_offset=1, gates=Gates(**gates)),
        endpoint=EndpointStatus(environment=name, url="", state=state, live=live, detail="on fire"),
        events=events,
    )


def decide(
    versions: list[RegisteredModel], *situations: Situation, under_way: UnderWay | None = None
) -> list[Decision]:
    return due(versions, situations, under_way or UnderWay(), NOW)


TABLE: list[tuple[str, list[RegisteredModel], Situation, UnderWay, str | None, str]] = [
    ("nothing is there", [], place("test"), UnderWay(), None, "no version has the verdict `promote`"),
    ("the first version", [version(1)], place("test", state="stopped"), UnderWay(), "food v1", "newer"),
    ("a newer version", [version(1), version(2)], place("test", running(1)), UnderWay(), "food v2", "newer"),
    ("the newest of several", [version(2), version(3)], place("test", running(1)), UnderWay(), "food v3", "newer"),
    ("it is live already", [version(2)], place("test", running(2)), UnderWay(), None, "food v2: it is live"),
    ("older than what is live", [version(1)], place("test", running(2)), UnderWay(), None, "older than v2"),
    (
        "of another name than what is live",
        [version(7, "digits")],
        place("test", running(2)),
        UnderWay(),
        None,
        "no version of food has the verdict `promote`",
    ),
    (
        "nothing is live: the newest of all names",
        [version(9, age_hours=5), version(1, "digits", age_hours=1)],
        place("test", state="stopped"),
        UnderWay(),
        "digits v1",
        "newer",
    ),
    (
        "a stopped endpoint still counts as what it ran",
        [version(1), version(2)],
        place("test", None, event("switched", 2), state="stopped"),
        UnderWay(),
        None,
        "food v2: it is live",
    ),
    ("not automatic", [version(2)], place("test", automatic=False), UnderWay(), None, "`gates.automatic` is false"),
    ("the endpoint is unhealthy", [version(2)], place("test", state="unhealthy"), UnderWay(), None, "on fire"),
    (
        "the triggers tried it",
        [version(2, triggered__test="abcdef12-0000")],
        place("test", running(1)),
        UnderWay(),
        None,
        "run abcdef12 was started for it before",
    ),
    (
        "rolled back",
        [version(1), version(2, rolled_back__test="answers nonsense")],
        place("test", running(1), event("switched", 1, 9), event("switched", 2, 2), event("rolled-back", 1)),
        UnderWay(),
        None,
        "rolled back in test (answers nonsense)",
    ),
    ("rejected", [version(2)], place("test", running(1), event("rejected", 2)), UnderWay(), None, "rejected by ann"),
    (
        "it failed here",
        [version(2)],
        place("test", running(1), event("started", 2), event("failed", 2, reason="SmokeTestFailed")),
        UnderWay(),
        None,
        "its release failed at 2026-11-24 11:00 UTC: SmokeTestFailed",
    ),
    ("its canary failed", [version(2)], place("test", running(1), event("aborted", 2)), UnderWay(), None, "aborted"),
    ("nobody decided", [version(2)], place("test", running(1), event("expired", 2)), UnderWay(), None, "expired"),
    (
        "after a try, nothing older either",
        [version(2), version(3)],
        place("test", running(1), event("failed", 3)),
        UnderWay(),
        None,
        "food v3: its release failed",
    ),
    (
        "a newer one after a try",
        [version(3), version(4)],
        place("test", running(1), event("failed", 3)),
        UnderWay(),
        "food v4",
        "newer",
    ),
    (
        "whoever began was killed: the triggers take over",
        [version(2)],
        place("test", running(1), event("started", 2)),
        UnderWay(),
        "food v2",
        "newer",
    ),
    (
        "a freeze window",
        [version(2)],
        place("test", running(1), freeze=(FreezeWindow(reason="fair", days=("tuesday",)),)),
        UnderWay(),
        None,
        "nothing is released now (fair)",
    ),
    (
        "a person releases it",
        [version(2)],
        place("test", running(1)),
        UnderWay(releases=(ReleaseRun(id="12345678-9", environment="test", name="food", version=2),)),
        None,
        "run 12345678 releases it",
    ),
    (
        "another version is being released: it queues",
        [version(3)],
        place("test", running(1)),
        UnderWay(releases=(ReleaseRun(id="12345678-9", environment="test", name="food", version=2),)),
        "food v3",
        "newer",
    ),
    (
        "a lifecycle of this model releases by itself",
        [version(2)],
        place("test", running(1)),
        UnderWay(lifecycles=(LifecycleRun(id="12345678-9", name="food"),)),
        None,
        "the lifecycle 12345678 releases by itself until it ends",
    ),
    (
        "a lifecycle of another model",
        [version(2)],
        place("test", running(1)),
        UnderWay(lifecycles=(LifecycleRun(id="12345678-9", name="digits"),)),
        "food v2",
        "newer",
    ),
    (
        "where a person approves, no lifecycle releases",
        [version(2)],
        place("production", running(1), approval=True),
        UnderWay(lifecycles=(LifecycleRun(id="12345678-9", name="food"),)),
        "food v2",
        "newer",
    ),
]


@pytest.mark.parametrize(
    ("versions", "situation", "under_way", "expected", "why"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_one_environment(
    versions: list[RegisteredModel], situation: Situation, under_way: UnderWay, expected: str | None, why: str
) -> None:
    [decision] = decide(versions, situation, under_way=under_way)
    assert (decision.model.label if decision.model else None, why in decision.why) == (expected, True), decision


def test_a_version_goes_on_only_after_it_is_live_in_the_environment_before() -> None:
    versions = [version(1), version(2)]
    test, acceptance = place("test", running(2)), place("acceptance", running(1), requires="test")
    assert [item.model for item in decide(versions, test, acceptance)] == [None, versions[1]]
    test = place("test", running(1))
    decisions = decide(versions, test, acceptance)
    assert decisions[0].model == versions[1]
    assert decisions[1].model is None
    assert "food v2: it is not live in test" in decisions[1].why


def test_production_gets_what_acceptance_runs_and_not_the_newest() -> None:
    versions = [version(1), version(2), version(3)]
    acceptance = place("acceptance", running(2))
    production = place("production", running(1), requires="acceptance", approval=True)
    assert decide(versions, acceptance, production)[1].model == versions[1]


def test_a_version_soaks_first() -> None:
    acceptance = place("acceptance", running(2), event("switched", 2, hours_ago=1))
    soaking = place("production", running(1), requires="acceptance", soak_minutes=90)
    assert "until 2026-11-24 12:30 UTC" in decide([version(2)], acceptance, soaking)[1].why
    soaked = place("production", running(1), requires="acceptance", soak_minutes=60)
    assert decide([version(2)], acceptance, soaked)[1].model == version(2)


def test_the_tag_names_the_environment() -> None:
    assert version(1, triggered__test="x").tags[triggered_tag("test")] == "x"
