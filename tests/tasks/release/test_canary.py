"""Canaries with real models that are slow, fail or answer otherwise, under real load."""

import signal
import threading

import pytest

from infra.config.gates import Canary
from infra.errors import CanaryAborted, EndpointUnreachable, ReleaseHeld
from tasks.release.canary import canary
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


def limits(rig, **canary_limits):
    asked = {"share": 0.3, "seconds": 120, "min_requests": 5, "latency_p95_ms": PATIENT, **canary_limits}
    return rig.environment(canary=Canary(**asked))


def abort_of(rig, candidate, environment):
    """The message of the abort, after which the live version has all the traffic and the ledger tells why."""
    with pytest.raises(CanaryAborted) as caught:
        in_a_run(canary, candidate, environment)
    assert rig.live() == 1
    assert [item.role for item in rig.endpoint.versions()] == ["live"]
    assert rig.told()[-1] == ("aborted", 2, "canary")
    assert rig.last_reason() in str(caught.value)
    return str(caught.value)


def test_a_canary_that_does_well_keeps_its_share_until_the_switch(rig):
    rig.release(1)
    candidate = rig.candidate(2)
    with rig.load() as load:
        answered = in_a_run(canary, candidate, limits(rig, seconds=6))
        before = len(load.connections)
        eventually(lambda: len(load.connections) > before + 60, 60)
        shared = {version for answers, _ in load.connections[before:] for version in answers}
        rig.endpoint.switch(candidate)
    assert load.failures == []
    assert answered.requests >= 5
    assert answered.errors == 0
    assert shared == {1, 2}
    assert ("aborted", 2, "canary") not in rig.told()


def test_a_model_that_fails_on_what_clients_send_is_aborted_at_once(rig):
    rig.release(1)
    candidate = rig.candidate(2, blinded=True)
    with rig.load(colour_image("white")) as load:
        said = abort_of(rig, candidate, limits(rig))
        failed = len(load.failures)
        before = len(load.connections)
        eventually(lambda: len(load.connections) > before + 30, 60)
    assert "errors: " in said
    assert all("500: " in failure for failure in load.failures), "the canary itself may cost its share, no more"
    assert load.failures[failed:] == []


def test_a_slow_model_is_aborted(rig):
    rig.release(1)
    candidate = rig.candidate(2, size=1024)
    with rig.load() as load:
        assert "latency: " in abort_of(rig, candidate, limits(rig, latency_p95_ms=5))
    assert load.failures == []


def test_a_model_that_answers_otherwise_than_the_live_one_is_aborted(rig):
    rig.release(1)
    candidate = rig.candidate(2, bias=1000.0)
    with rig.load() as load:
        assert "drift: " in abort_of(rig, candidate, limits(rig))
    assert load.failures == []


def test_a_hanging_candidate_is_aborted_and_what_it_never_took_is_answered(rig):
    rig.release(1)
    candidate = rig.candidate(2)
    process = rig.process("candidate")
    answers = []

    def during() -> None:
        process.suspend()
        for thread in rig.asking(6, answers):
            thread.join(120)

    clients = rig.once_divided(during)
    assert "no answer: " in abort_of(rig, candidate, limits(rig))
    clients.join(120)
    assert answers == [1] * 6


def test_too_few_requests_decide_nothing(rig):
    rig.release(1)
    candidate = rig.candidate(2)
    said = abort_of(rig, candidate, limits(rig, seconds=2))
    assert "traffic: 0 requests in 2 s, and fewer than 5 decide nothing" in said


def test_the_first_release_has_nothing_to_share(rig):
    candidate = rig.candidate(1)
    assert in_a_run(canary, candidate, limits(rig)).requests == 0
    assert rig.endpoint.switch(candidate).version == 1


def test_a_canary_whose_endpoint_is_stopped_blames_nobody_and_can_be_repeated(rig):
    rig.release(1)
    candidate = rig.candidate(2)

    thread = rig.once_divided(rig.endpoint.stop)
    with pytest.raises(EndpointUnreachable, match="was stopped"):
        in_a_run(canary.fn, candidate, limits(rig))  # without the stage's retries
    thread.join(60)
    assert rig.endpoint.status().state == "stopped"
    assert rig.endpoint.start().live.version == 1
    with rig.load():
        assert in_a_run(canary, candidate, limits(rig, seconds=3)).requests >= 5


def test_a_rollback_meanwhile_ends_the_canary_and_the_candidate(rig):
    rig.release(1)
    rig.release(2)
    candidate = rig.candidate(3)

    thread = rig.once_divided(rig.endpoint.rollback)
    with rig.load() as load, pytest.raises(ReleaseHeld, match="runs colours v1 now"):
        in_a_run(canary, candidate, limits(rig))
    thread.join(60)
    assert load.failures == []
    assert {item.role: item.model.version for item in rig.endpoint.versions()} == {"live": 1, "previous": 2}


def test_a_run_that_is_cancelled_takes_the_share_back(rig):
    rig.release(1)
    candidate = rig.candidate(2)
    main, ended = threading.main_thread().ident, threading.Event()

    def interrupt():
        # One that arrives in a destructor is lost.
        while not ended.is_set():
            signal.pthread_kill(main, signal.SIGINT)
            ended.wait(20)

    thread = rig.once_divided(interrupt)
    with pytest.raises(KeyboardInterrupt):
        in_a_run(canary.fn, candidate, limits(rig))
    ended.set()
    thread.join(60)
    assert rig.endpoint._ask("status", seconds=5)["share"] == 0
    assert rig.endpoint.switch(candidate).version == 2


def test_people_see_the_figures_of_both_versions(rig):
    from prefect import flow

    rig.release(1)
    candidate = rig.candidate(2)

    @flow(name="seen")
    def seen():
        return canary(candidate, limits(rig, seconds=4))

    with rig.load():
        state = seen(return_state=True)
    [shown] = artifacts(state, f"canary-{ENVIRONMENT}")
    assert "went well" in shown.description
    assert "candidate colours v2" in shown.data
    assert "live colours v1" in shown.data
    assert "| red | 100.0%" in shown.data
    assert artifacts(state, f"canary-progress-{ENVIRONMENT}")
