"""The watch after a switch and the rollback, with real models, processes and load."""

import threading

import pytest
from prefect import flow

from infra.config.gates import Watch
from infra.errors import EndpointUnreachable, NothingToRollBackTo, SmokeTestFailed, WatchFailed
from tasks.release.deploy_and_switch import confirm_live
from tasks.release.rollback import roll_back, version_before
from tasks.release.watch import BASELINE_IMAGES, watch
from tests.support.bundles import colour_image
from tests.support.local_endpoint import eventually
from tests.support.released import ENVIRONMENT, in_a_run, released
from tests.tasks.framework.test_stage import artifacts

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("prefect_server")]
PATIENT = 20_000.0
"""Milliseconds that no answer takes here, however busy the machine is."""


@pytest.fixture
def rig(prefect_server, tmp_path, monkeypatch):
    with released(tmp_path, monkeypatch) as made:
        yield made


def limits(rig, **watch_limits):
    asked = {"seconds": 120, "min_requests": 5, "latency_p95_ms": PATIENT, **watch_limits}
    return rig.environment(watch=Watch(**asked))


def test_a_name_that_leads_to_the_version_before_for_a_while_is_waited_for(rig):
    rig.release(1)
    candidate = rig.candidate(2)
    later = threading.Timer(2, rig.endpoint.switch, [candidate])
    later.start()
    assert confirm_live(rig.environment(), candidate.model.digest).model.version == 2
    later.join()


def failed_watch(rig, live, environment):
    """The message of the failed watch of version 2, after which version 1 serves and everybody knows."""
    with pytest.raises(WatchFailed) as caught:
        in_a_run(watch, live, environment)
    assert rig.live() == 1
    assert rig.told()[-1] == ("rolled-back", 1, "watch")
    assert rig.model(2).tags[f"rolled_back.{ENVIRONMENT}"] == rig.last_reason()
    assert rig.registry.champion("colours", ENVIRONMENT).version == 1
    assert "colours v1 was brought back" in str(caught.value)
    return str(caught.value)


def test_a_version_that_does_well_has_settled_and_is_not_watched_again(rig):
    rig.release(1)
    live = rig.release(2)

    @flow(name="watched")
    def watched(environment):
        return watch(live, environment)

    with rig.load() as load:
        first = watched(limits(rig, seconds=4), return_state=True)
        again = watched(limits(rig), return_state=True)
    assert load.failures == []
    assert first.result().model.version == 2
    assert again.result().model.version == 2
    assert rig.told()[-1] == ("settled", 2, "watch")
    [shown] = artifacts(first, f"watch-{ENVIRONMENT}")
    assert "went well" in shown.description
    assert not artifacts(again, f"watch-progress-{ENVIRONMENT}")


def test_a_version_without_traffic_stays(rig):
    rig.release(1)
    live = rig.release(2)
    assert in_a_run(watch, live, limits(rig, seconds=2)).model.version == 2
    assert rig.live() == 2


def test_where_the_file_asks_for_none_nothing_is_watched(rig):
    live = rig.release(1)
    assert in_a_run(watch, live, rig.environment()).model == live.model
    assert rig.told() == [("switched", 1, "a test")]


def test_a_version_that_fails_is_taken_back_at_once(rig):
    rig.release(1)
    live = rig.release(2, blinded=True)
    with rig.load(colour_image("white")) as load:
        assert "errors: " in failed_watch(rig, live, limits(rig))
        failed, before = len(load.failures), len(load.connections)
        eventually(lambda: len(load.connections) > before + 30, 60)
    assert all("500: " in failure for failure in load.failures)
    assert load.failures[failed:] == []


def test_a_slow_version_is_taken_back(rig):
    rig.release(1)
    live = rig.release(2, size=1024)
    with rig.load() as load:
        assert "latency: " in failed_watch(rig, live, limits(rig, latency_p95_ms=5))
    assert load.failures == []


def test_a_version_whose_labels_drift_from_those_before_is_taken_back(rig):
    rig.release(1)
    with rig.load() as load:
        eventually(lambda: load.answers > BASELINE_IMAGES + 10, 120)
    live = rig.release(2, bias=1000.0)
    with rig.load() as load:
        assert "drift: " in failed_watch(rig, live, limits(rig))
    assert load.failures == []


def test_a_version_that_hangs_is_taken_back_and_what_waits_for_it_is_answered(rig):
    rig.release(1)
    live = rig.release(2)
    process = rig.process("live")
    answers = []
    process.suspend()
    threads = rig.asking(4, answers)
    assert "no answer: " in failed_watch(rig, live, limits(rig))
    for thread in threads:
        thread.join(120)
    assert answers == [1] * 4


def test_the_first_version_stays_whatever_it_does(rig):
    live = rig.release(1, blinded=True)
    with rig.load(colour_image("white")), pytest.raises(WatchFailed, match="no version before it"):
        in_a_run(watch, live, limits(rig))
    assert rig.live() == 1


def test_a_watch_ends_without_a_word_where_somebody_else_rolls_back(rig):
    rig.release(1)
    live = rig.release(2)

    thread = threading.Thread(target=rig.endpoint.rollback)
    thread.start()
    assert in_a_run(watch, live, limits(rig)).model == live.model
    thread.join()
    assert rig.live() == 1
    assert [kind for kind, _, _ in rig.told()] == ["switched", "switched"]


def test_a_stopped_endpoint_blames_nobody(rig):
    rig.release(1)
    live = rig.release(2)
    rig.endpoint.stop()
    with pytest.raises(EndpointUnreachable, match="was stopped"):
        in_a_run(watch.fn, live, limits(rig))  # without the stage's retries
    assert rig.endpoint.start().live.version == 2


def test_a_rollback_that_is_repeated_changes_nothing_more(rig):
    rig.release(1)
    rig.release(2)
    before = in_a_run(version_before, rig.environment()).model
    for _ in range(2):
        assert in_a_run(roll_back, rig.environment(), before, "fish is wrong", "ann").model.version == 1
    assert rig.live() == 1
    assert rig.model(2).tags[f"rolled_back.{ENVIRONMENT}"] == "fish is wrong"
    assert rig.told()[-1] == ("rolled-back", 1, "ann")


def test_a_version_that_answers_wrong_is_not_brought_back(rig):
    rig.release(1, golden={"red": (0.9, 0.05, 0.05)})
    rig.release(2)
    before = in_a_run(version_before, rig.environment()).model
    with pytest.raises(SmokeTestFailed, match=r"colours v1: golden image .*png: unexpected answer"):
        in_a_run(roll_back, rig.environment(), before, "fish is wrong", "ann")
    assert rig.live() == 2
    assert rig.told()[-1][:2] == ("switched", 2)


def test_a_rollback_does_not_wait_for_a_registry_that_is_away(rig):
    rig.release(1)
    rig.release(2)
    before = in_a_run(version_before, rig.environment()).model
    rig.settings.path("registry").joinpath("colours", before.digest).rename(rig.folder / "away")
    assert in_a_run(roll_back, rig.environment(), before, "fish is wrong", "ann").model.version == 1


def test_a_rollback_does_not_bring_back_what_nobody_asked_for(rig):
    """A release came in between: the version before is another than the run found."""
    rig.release(1)
    rig.release(2)
    before = in_a_run(version_before, rig.environment()).model
    rig.release(3)
    with pytest.raises(NothingToRollBackTo, match="changed since"):
        in_a_run(roll_back, rig.environment(), before, "fish is wrong", "ann")
    assert rig.live() == 3
