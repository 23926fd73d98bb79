"""What is noted once, and what again; in real flow runs."""

import pytest
from prefect import flow

from infra.backend import backend
from infra.ports import LiveModel
from infra.settings import get_settings
from tasks.release.ledger_note import note

ONE = LiveModel(name="photos", version=1, digest="1" * 64)
TWO = LiveModel(name="photos", version=2, digest="2" * 64)


@pytest.fixture
def told(prefect_server, tmp_path, monkeypatch):
    """Answers the kinds and versions that the ledger of `test` tells."""
    monkeypatch.setenv("AHC_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    yield lambda: [(event.kind, event.model.version) for event in backend(get_settings()).ledger().events("test")]
    get_settings.cache_clear()


@flow
def noted(*events):
    return [
        note("test", kind, model, by="someone", details={"n": number}) for number, (kind, model) in enumerate(events)
    ]


def test_an_event_carries_the_root_run(told):
    @flow
    def outer():
        from prefect import runtime

        return noted(("started", ONE)), runtime.flow_run.id

    [event], run = outer()
    assert event.run == run


def test_a_step_that_is_repeated_in_a_run_notes_nothing_twice(told):
    first, second, again, also = noted(("started", TWO), ("switched", TWO), ("started", TWO), ("switched", TWO))
    assert told() == [("started", 2), ("switched", 2)]
    assert (again, also) == (first, second)
    assert also.details == {"n": 1}


def test_events_of_runs_that_wait_in_between_change_nothing(told):
    @flow
    def release():
        note("test", "started", TWO, by="ann")
        backend(get_settings()).ledger().append("test", "started", ONE, by="bob", run="another")
        note("test", "started", TWO, by="ann")

    release()
    assert told() == [("started", 2), ("started", 1)]


def test_another_run_notes_the_same_for_itself(told):
    noted(("switched", TWO))
    noted(("switched", TWO))
    assert told() == [("switched", 2)] * 2


def test_a_second_switch_after_a_rollback_is_told(told):
    noted(("switched", TWO), ("rolled-back", ONE), ("switched", TWO))
    assert told() == [("switched", 2), ("rolled-back", 1), ("switched", 2)]


def test_other_kinds_and_other_versions_are_told(told):
    noted(("started", ONE), ("started", TWO), ("failed", ONE), ("failed", TWO))
    assert told() == [("started", 1), ("started", 2), ("failed", 1), ("failed", 2)]
