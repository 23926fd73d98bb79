"""The rules of a release, one table each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.config.environments import Environment
from infra.config.gates import FreezeWindow, Gates
from infra.ports import LiveModel, RegisteredModel
from infra.releases.ledger import EventKind, ReleaseEvent
from model.bundle.read import Lineage
from tasks.release.gate_rules import KnownEvents, holds, lineage_gaps, live_since, may_not_decide

NOW = datetime(2026, 12, 24, 15, 0, tzinfo=UTC)  # a Thursday
MADE_FROM = {"data_version": "d" * 16, "data_uri": "abfs://data/manifest", "code": "0123abc"}


def version(number: int, **tags: str) -> RegisteredModel:
    return RegisteredModel(
        name="food", version=number, digest=str(number) * 64, uri="x", created=NOW, tags={"verdict": "promote", **tags}
    )


def live(number: int, name: str = "food") -> LiveModel:
    return LiveModel(name=name, version=number, digest=str(number) * 64)


def environment(**gates: Any) -> Environment:
    return Environment(name="production", description="x", port_offset=3, gates=Gates(**gates))


def event(kind: EventKind, number: int, *, minutes_ago: float = 0, reason: str = "") -> ReleaseEvent:
    return ReleaseEvent(
        environment="production",
        sequence=1,
        at=NOW - timedelta(minutes=minutes_ago),
        kind=kind,
        model=live(number),
        by="jan",
        reason=reason,
        run="run",
        previous="",
        digest="",
    )


def known(live: LiveModel | None = None, *events: ReleaseEvent, since: datetime | None = None) -> KnownEvents:
    return KnownEvents(now=NOW, live=live, events=events, required_since=since)


def test_nothing_is_in_the_way_of_a_newer_version():
    assert holds(version(3), environment(), known(live(2), event("switched", 2))) == []
    assert holds(version(1), environment(), known()) == []


YEAR_END = FreezeWindow(
    reason="year end", start=datetime(2026, 12, 20, tzinfo=UTC), end=datetime(2027, 1, 4, 8, tzinfo=UTC)
)


@pytest.mark.parametrize(
    ("windows", "until"),
    [
        ([YEAR_END], datetime(2027, 1, 4, 8, tzinfo=UTC)),
        ([YEAR_END.model_copy(update={"end": NOW})], None),
        ([YEAR_END.model_copy(update={"start": NOW + timedelta(seconds=1)})], None),
        ([FreezeWindow(reason="team day", days=("thursday",))], datetime(2026, 12, 25, tzinfo=UTC)),
        ([FreezeWindow(reason="weekend", days=("friday", "saturday"))], None),
        # Two windows that follow each other, one of them in a time zone of its own.
        (
            [
                FreezeWindow(reason="team day", days=("thursday",)),
                FreezeWindow(reason="weekend", days=("friday", "saturday", "sunday"), time_zone="Europe/Amsterdam"),
            ],
            datetime(2026, 12, 27, 23, tzinfo=UTC),
        ),
        # 15:00 UTC is Friday in Auckland.
        (
            [FreezeWindow(reason="x", days=("friday",), time_zone="Pacific/Auckland")],
            datetime(2026, 12, 25, 11, tzinfo=UTC),
        ),
    ],
)
def test_a_freeze_window_holds_a_release_until_no_window_holds_any_more(windows, until):
    found = holds(version(1), environment(freeze=tuple(windows)), known())
    assert [(hold.gate, hold.until) for hold in found] == ([("freeze", until)] if until else [])
    if found:
        assert windows[0].reason in str(found[0])
        assert f"until {found[0].until:%Y-%m-%d}" in str(found[0])


def test_a_freeze_without_an_end_says_no_end():
    always = FreezeWindow(
        reason="closed", days=("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    )
    [hold] = holds(version(1), environment(freeze=(always,)), known())
    assert hold.until is None
    assert str(hold) == "nothing is released now (closed)"


@pytest.mark.parametrize(
    ("gates", "since", "until"),
    [
        ({"requires": "acceptance", "soak_minutes": 60}, NOW - timedelta(minutes=60), "open"),
        ({"requires": "acceptance", "soak_minutes": 60}, NOW - timedelta(minutes=59), NOW + timedelta(minutes=1)),
        ({"requires": "acceptance", "soak_minutes": 60}, None, None),
        ({"requires": "acceptance"}, None, "open"),
        ({"soak_minutes": 60}, None, "open"),
    ],
)
def test_a_version_soaks_where_it_must_be_live_first(gates, since, until):
    found = holds(version(2), environment(**gates), known(live(1), since=since))
    assert [(hold.gate, hold.until) for hold in found] == ([] if until == "open" else [("soak", until)])


@pytest.mark.parametrize(
    ("running", "held"),
    [(live(4), True), (live(3), False), (live(2), False), (live(9, "digits"), False), (None, False)],
)
def test_an_older_version_than_the_live_one_is_held(running, held):
    found = holds(version(3), environment(), known(running))
    assert [hold.gate for hold in found] == (["age"] if held else [])


@pytest.mark.parametrize(
    ("tags", "events", "told"),
    [
        ({"rolled_back.production": "fish is wrong"}, [], "fish is wrong"),
        ({"rolled_back.test": "fish is wrong"}, [], None),
        ({}, [event("switched", 2), event("switched", 3), event("rolled-back", 2, reason="too slow")], "too slow"),
        ({}, [event("switched", 3), event("rolled-back", 2), event("settled", 2)], "no reason given"),
        # Another version was rolled back to this one.
        ({}, [event("switched", 3), event("switched", 4), event("rolled-back", 3)], None),
        ({}, [event("switched", 3), event("switched", 4), event("rolled-back", 2)], None),
        ({}, [event("switched", 3), event("switched", 4)], None),
    ],
)
def test_a_version_that_was_rolled_back_here_is_held(tags, events, told):
    found = holds(version(3, **tags), environment(), known(live(2), *events))
    assert [hold.gate for hold in found] == (["rolled-back"] if told else [])
    if told:
        assert told in str(found[0])


@pytest.mark.parametrize(
    ("tags", "events", "told"),
    [
        ({"decision.production": "rejected by jan at 2026-12-01: fish"}, [], "rejected by jan"),
        ({"decision.production": "approved by jan at 2026-12-01: fine"}, [], None),
        ({"decision.test": "rejected by jan at 2026-12-01: fish"}, [], None),
        ({}, [event("rejected", 3, reason="fish")], "rejected by jan: fish"),
        ({}, [event("rejected", 2, reason="fish")], None),
        ({"decision.production": "rejected by jan"}, [event("rejected", 3), event("approved", 3)], None),
        ({}, [event("approved", 3), event("rejected", 3)], "rejected by jan"),
        ({}, [event("expired", 3)], None),
    ],
)
def test_a_version_that_a_person_rejected_here_last_is_held(tags, events, told):
    found = holds(version(3, **tags), environment(), known(live(2), *events))
    assert [hold.gate for hold in found] == (["rejected"] if told else [])
    if told:
        assert told in str(found[0])


@pytest.mark.parametrize(
    ("events", "minutes"),
    [
        ([], None),
        ([event("switched", 3, minutes_ago=9)], 9),
        ([event("switched", 3, minutes_ago=9), event("settled", 3, minutes_ago=5)], 9),
        ([event("switched", 3, minutes_ago=9), event("repaired", 3, minutes_ago=5)], 9),
        ([event("switched", 3, minutes_ago=9), event("switched", 4, minutes_ago=5)], None),
        (
            [
                event("switched", 3, minutes_ago=9),
                event("switched", 4, minutes_ago=5),
                event("rolled-back", 3, minutes_ago=2),
            ],
            2,
        ),
        ([event("started", 3, minutes_ago=9)], None),
    ],
)
def test_since_when_a_version_is_live_is_told_by_the_last_takeover(events, minutes):
    expected = None if minutes is None else NOW - timedelta(minutes=minutes)
    assert live_since(events, "3" * 64) == expected


def lineage(**changes: str) -> Lineage:
    return Lineage.model_validate({**MADE_FROM, "config_hash": "c", "seed": 0, **changes})


def test_a_lineage_is_complete_where_registry_and_bundle_say_the_same():
    assert lineage_gaps(version(1, mlflow_run="r", **MADE_FROM), lineage()) == []
    assert lineage_gaps(version(1), lineage()) == [
        "the registry doesn't say its `data_version`",
        "the registry doesn't say its `data_uri`",
        "the registry doesn't say its `code`",
        "the registry doesn't say its `mlflow_run`",
    ]
    [gap] = lineage_gaps(version(1, mlflow_run="r", **MADE_FROM), lineage(code="fedcba9"))
    assert gap == "`code` is 0123abc in the registry and fedcba9 in the bundle"


TEAM = ("A. Jansen", "B. de Wit")


@pytest.mark.parametrize(
    ("by", "gates", "approved", "refused"),
    [
        ("anybody", {}, True, None),
        ("a. jansen ", {"approvers": TEAM}, True, None),
        ("A.Jansen", {"approvers": TEAM}, True, "A. Jansen, B. de Wit may"),
        ("carol", {"approvers": TEAM}, False, "A. Jansen, B. de Wit may"),
        ("JAN ", {"four_eyes": True}, True, "(anybody else)"),
        ("JAN ", {"four_eyes": True}, False, None),
        ("piet", {"four_eyes": True}, True, None),
        ("jan", {"four_eyes": False}, True, None),
        ("jan", {"four_eyes": True, "approvers": ("Jan", "Piet")}, True, "(Piet)"),
        ("jan", {"four_eyes": True, "approvers": ("Jan",)}, True, "(the environment file names nobody else)"),
    ],
)
def test_who_may_decide(by, gates, approved, refused):
    answer = may_not_decide(by, Gates(**gates), started_by="Jan", approved=approved)
    assert (answer is None) == (refused is None)
    if refused:
        assert refused in answer
