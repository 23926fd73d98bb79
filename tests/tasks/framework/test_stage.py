"""How stages and pipelines behave on a real Prefect server."""

import re

import pytest
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.states import Cancelling

from infra.errors import EndpointUnreachable
from infra.runs.faults import fault_in
from model.errors import BundleCorrupt
from tasks.framework.cache_key import key_of
from tasks.framework.failure_card import failure_card
from tasks.framework.pipeline import completed_as, pipeline, rename_run
from tasks.framework.stage import Result, stage

pytestmark = pytest.mark.usefixtures("prefect_server")
calls: list[str] = []


class Number(Result):
    value: int


@stage("Double", "double {value}", key=lambda value: key_of("double", value, code=[]))
def double(value: int) -> Number:
    calls.append(f"double {value}")
    return Number(value=2 * value)


@stage("Unsteady", "unsteady")
def unsteady(good_at: int) -> Number:
    calls.append("unsteady")
    if calls.count("unsteady") < good_at:
        raise EndpointUnreachable("The endpoint is away.")
    return Number(value=1)


@stage("Broken", "broken")
def broken() -> Number:
    calls.append("broken")
    raise BundleCorrupt("model.onnx has other bytes.")


@stage("Look", "look", always=True)
def look() -> Number:
    calls.append("look")
    return Number(value=len(calls))


@pytest.fixture(autouse=True)
def _fresh():
    calls.clear()


def artifacts(state, key):
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=[key]),
                flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]),
            )
        )


def test_a_result_of_the_same_key_is_reused_by_another_run_and_names_its_maker():
    @pipeline("reuse", "reuse")
    def flow(value: int) -> Number:
        return double(value)

    first = flow(21001)
    again = flow(21001)
    other = flow(21002)
    assert calls == ["double 21001", "double 21002"]
    assert again.value == 42002
    assert again.origin == first.origin
    assert other.origin.root_run_id != first.origin.root_run_id


def test_what_looks_at_the_world_is_never_reused():
    @pipeline("always", "always")
    def flow() -> int:
        return look().value + look().value

    assert flow() == 3


def test_a_transient_fault_is_tried_again(monkeypatch):
    quick = unsteady.with_options(retry_delay_seconds=0)

    @pipeline("transient", "transient")
    def flow() -> Number:
        return quick(3)

    assert flow().value == 1
    assert calls == ["unsteady"] * 3


def test_a_transient_fault_that_stays_fails_with_one_card():
    quick = unsteady.with_options(retry_delay_seconds=0)

    @pipeline("transient-forever", "transient")
    def flow() -> Number:
        return quick(100)

    state = flow(return_state=True)
    assert (state.type, state.name) == ("FAILED", "EndpointUnreachable")
    assert calls == ["unsteady"] * 4
    assert len(artifacts(state, "failure-card")) == 1


def test_a_permanent_fault_is_not_tried_again_and_its_card_says_how_to_go_on():
    @pipeline("permanent", "permanent")
    def flow() -> Number:
        return broken()

    state = flow(return_state=True)
    assert (state.type, state.name) == ("FAILED", "BundleCorrupt")
    assert "model.onnx has other bytes." in state.message
    assert calls == ["broken"]
    (card,) = artifacts(state, "failure-card")
    assert "model.onnx has other bytes." in card.data
    assert BundleCorrupt.next_step in card.data
    assert re.search(rf"ahc rerun {state.state_details.flow_run_id}", card.data)
    assert "docs/runbook.md#bundle-corrupt" in card.data
    (record,) = artifacts(state, "fault")
    fault = fault_in(record)
    assert (fault.name, fault.message) == ("BundleCorrupt", "model.onnx has other bytes.")
    assert (fault.next_step, fault.exit_code) == (BundleCorrupt.next_step, BundleCorrupt.exit_code)
    assert failure_card(fault, str(state.state_details.flow_run_id)) == card.data


def test_a_parent_flow_ends_in_the_error_of_its_child():
    @pipeline("child", "child")
    def child() -> Number:
        return broken()

    @pipeline("parent", "parent")
    def parent() -> Number:
        return child()

    state = parent(return_state=True)
    assert (state.type, state.name) == ("FAILED", "BundleCorrupt")
    (card,) = artifacts(state, "failure-card") or [None]
    assert card is None or "model.onnx" in card.data


def test_an_outcome_may_have_a_name_of_its_own():
    @pipeline("outcome", "outcome", keep_result=True)
    def flow() -> int:
        rename_run("a better name")
        return completed_as("NotPromoted", "The champion is better.", 7)

    state = flow(return_state=True)
    assert (state.type, state.name, state.result()) == ("COMPLETED", "NotPromoted", 7)
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(state.state_details.flow_run_id).name == "a better name"


def test_a_key_follows_values_and_source_through_imports():
    assert key_of("s", {"a": 1}, code=["model.data.manifest"]) == key_of("s", {"a": 1}, code=["model.data.manifest"])
    assert key_of("s", {"a": 1}, code=["model.data.manifest"]) != key_of("s", {"a": 2}, code=["model.data.manifest"])
    assert key_of("s", 1, code=["model.data.decoding"]) != key_of("s", 1, code=["model.data.manifest"])


def test_a_key_changes_with_the_source_of_an_imported_module(tmp_path, monkeypatch):
    package = tmp_path / "model"
    package.mkdir()
    (package / "a.py").write_text("from model.b import x\n")
    (package / "b.py").write_text("x = 1\n")
    (package / "c.py").write_text("x = 1\n")
    monkeypatch.setattr("tasks.framework.cache_key.PROJECT", tmp_path)
    before = key_of("s", code=["model.a"])
    (package / "c.py").write_text("x = 2\n")
    assert key_of("s", code=["model.a"]) == before
    (package / "b.py").write_text("x = 2\n")
    assert key_of("s", code=["model.a"]) != before


@pipeline("late", "late")
def cancelled_too_late(error: str) -> str:
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(runtime.flow_run.id, Cancelling())
    if error:
        raise ValueError(error)
    return "done"


@pytest.mark.parametrize("error", ["", "broken"])
def test_a_run_that_ended_before_its_cancellation_reached_it_is_cancelled_at_once(error):
    state = cancelled_too_late(error, return_state=True)
    assert state.is_cancelled()
    with get_client(sync_client=True) as client:
        kept = client.read_flow_run(state.state_details.flow_run_id).state
    assert kept.is_cancelled()
    assert "ended by itself" in kept.message
