"""Spans of real flow runs, at a real sink."""

import os
import subprocess
import sys
import time
import uuid

import pytest

from infra.settings import PROJECT
from tests.support.otlp_sink import OtlpSink

pytestmark = pytest.mark.thorough

BUILD = "4bf92f3577b34da6a3ce929d0e0e4736"


def run(*arguments, **variables):
    """Run the flows of `spans_flow` in a process; answers the id of the first run, what was said, and how long it took
    to end when the work was done, in seconds.
    """
    command = [sys.executable, "-m", "tests.support.spans_flow", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **variables}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *_, run_id, ready = done.stdout.split()
    return run_id, done.stderr, time.time() - float(ready)


def digest():
    return uuid.uuid4().hex * 2


@pytest.fixture(scope="module")
def told(prefect_server):
    """The spans of one process, with the id of its first run and the digest that it was about."""
    about = digest()
    with OtlpSink() as sink:
        run_id, said, _ = run(about, "failing", **sink.variables, TRACEPARENT=f"00-{BUILD}-00f067aa0ba902b7-01")
    assert "telemetry exporter" not in said
    return sink, run_id, about


def test_stages_are_in_their_flows_and_subflows_in_theirs_in_the_trace_of_the_build(told):
    sink, run_id, _ = told
    [outer] = sink.named("outer")
    assert (outer.trace_id, outer.parent_id) == (BUILD, "00f067aa0ba902b7")
    inner = sink.named("inner")
    assert [span.parent_id for span in inner] == [outer.span_id] * 2
    assert sorted(span.parent_id for span in sink.named("Register it")) == sorted(span.span_id for span in inner)
    assert outer.attributes["ahc.flow_run.id"] == run_id
    assert {span.attributes["ahc.correlation_id"] for span in (outer, *inner, *sink.named("Register it"))} == {run_id}
    assert {span.attributes["ahc.flow_run.name"] for span in inner} == {"inner 1", "inner 2"}
    assert outer.resource["service.name"] == "ahc"


def test_prefect_does_not_tell_the_same_once_more(told):
    names = [span.name for span in told[0].spans]
    assert sorted(names) == sorted(
        ["outer", "inner", "inner", "Register it", "Register it", "failing", "Fail for good", "trying"]
        + ["Fail for now"] * 4
    )


def test_a_stage_says_what_it_is_about_and_not_what_it_compares_with(told):
    sink, _, about = told
    assert [span.attributes.get("ahc.task_run.name") for span in sink.named("Register it")] == ["register food", None]
    for span in sink.named("Register it"):
        assert (span.attributes["ahc.model.version"], span.attributes["ahc.model.digest"]) == (2, about)


def test_a_result_that_is_used_again_names_the_run_that_made_it(told):
    sink, run_id, _ = told
    first, second = sorted(sink.named("Register it"), key=lambda span: "ahc.reused" in span.attributes)
    assert "ahc.reused" not in first.attributes
    assert (second.attributes["ahc.reused"], second.attributes["ahc.reused.from"]) == (True, run_id)


def test_the_outcome_of_a_run_and_the_error_that_ended_one_are_told(told):
    sink = told[0]
    assert sink.named("outer")[0].attributes["ahc.outcome"] == "NotPromoted"
    assert not sink.named("outer")[0].failed
    for name in ("Fail for good", "failing"):
        [span] = sink.named(name)
        assert span.failed
        assert span.attributes["ahc.error"] == "BundleCorrupt"
        assert span.attributes["ahc.error.transient"] is False
        assert span.exceptions == ["model.errors.BundleCorrupt"]
    tries = sorted(span.attributes["ahc.attempt"] for span in sink.named("Fail for now"))
    assert tries == [1, 2, 3, 4]


def test_a_build_gives_its_own_id(prefect_server):
    with OtlpSink() as sink:
        run(digest(), **sink.variables, AHC_CORRELATION_ID="build-17")
    assert {span.attributes["ahc.correlation_id"] for span in sink.spans} == {"build-17"}


@pytest.mark.parametrize(("status", "delay"), [pytest.param(503, 0, marks=pytest.mark.long), (429, 0), (200, 60)])
def test_a_sink_that_fails_costs_one_warning_and_a_few_seconds_at_most(prefect_server, status, delay):
    with OtlpSink(status=status, delay=delay) as sink:
        _, said, ending = run(digest(), **sink.variables)
    assert sink.posts
    assert said.count("The telemetry exporter otlp_proto_http") == 1
    assert "Traceback" not in said
    assert ending < 30


def test_a_sink_that_is_not_there_fails_nothing(prefect_server):
    with OtlpSink() as sink:
        gone = sink.variables
    assert run(digest(), **gone)[1].count("The telemetry exporter otlp_proto_http") == 1


def test_an_exporter_that_nobody_brings_is_named_and_the_work_goes_on(prefect_server):
    said = run(digest(), OTEL_TRACES_EXPORTER="zipkin")[1]
    assert said.count("`zipkin`") == 1


def test_spans_can_be_read_on_the_console():
    command = [sys.executable, "-c", "from infra.runs.telemetry import span\nwith span('step', {}): pass"]
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "console"}
    assert (
        '"name": "step"'
        in subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True).stdout
    )
