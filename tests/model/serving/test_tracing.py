"""Spans of a real scoring process, at a real sink; and no harm from a sink that fails."""

import time

import pytest

from model.serving.observe.tracing import bucket, set_up_tracing
from tests.model.serving.conftest import log_lines, serving
from tests.support.bundles import colour_image
from tests.support.local_endpoint import eventually
from tests.support.otlp_sink import OtlpSink

SERVER = 2
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
IDS = {"correlation_id": "build-17", "environment": "test"}


@pytest.fixture
def sink(monkeypatch):
    with OtlpSink() as running:
        point_at(running, monkeypatch)
        yield running


def point_at(sink, monkeypatch):
    for name, value in sink.variables.items():
        monkeypatch.setenv(name, value)


def score(client, **headers):
    return client.post("/score", content=colour_image("red"), headers={"Content-Type": "image/png", **headers})


def test_a_request_continues_the_trace_of_its_client_and_says_how_long_its_steps_took(tmp_path, sink):
    with serving(tmp_path, **IDS) as service, service.client() as client:
        answer = score(client, traceparent=f"00-{TRACE}-{PARENT}-01").json()
        [line] = log_lines(service, answer["request_id"])
        assert client.get("/model").json()["correlation_id"] == "build-17"
    [request] = sink.named("POST /score")
    assert (request.trace_id, request.parent_id, request.kind) == (TRACE, PARENT, SERVER)
    assert request.resource["service.name"] == "ahc-scoring"
    assert (
        request.attributes.items()
        >= {
            "ahc.correlation_id": "build-17",
            "ahc.environment": "test",
            "ahc.model.name": "colours",
            "ahc.model.version": 7,
            "ahc.model.digest": service.bundle.digest,
            "ahc.label": "red",
            "ahc.request_id": answer["request_id"],
            "http.response.status_code": 200,
        }.items()
    )
    low, high = map(float, request.attributes["ahc.confidence"].split("-"))
    assert low <= answer["predictions"][0]["probability"] <= high
    steps = [request.attributes[f"ahc.{name}"] for name in ("decode_ms", "inference_ms")]
    assert min(steps) > 0
    assert sum(steps) <= request.seconds * 1000
    assert [line["decode_ms"], line["inference_ms"]] == steps
    assert (line["trace_id"], line["correlation_id"]) == (TRACE, "build-17")


def test_problems_are_on_the_span_and_probes_are_not_traced(tmp_path, sink):
    with serving(tmp_path, **IDS) as service, service.client() as client:
        client.post("/score", content=b"no image", headers={"Content-Type": "image/png"})
        score(client, Authorization="Bearer wrong")
        client.get("/nowhere")
        for path in ("/health/live", "/health/ready", "/metrics"):
            client.get(path)
    problems = [span.attributes.get("ahc.problem") for span in sink.spans if span.kind == SERVER]
    assert sorted(problems) == ["broken-image", "unknown-path", "wrong-key"]
    assert not [span for span in sink.spans if span.failed]


def test_a_sampler_decides_how_many_requests_are_traced(tmp_path, sink, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    with serving(tmp_path) as service, service.client() as client:
        assert score(client).status_code == 200
        assert score(client, traceparent=f"00-{TRACE}-{PARENT}-01").status_code == 200
    assert [span.trace_id for span in sink.named("POST /score")] == [TRACE]


@pytest.mark.parametrize(("status", "delay"), [(503, 0), (429, 0), (200, 30)])
def test_a_sink_that_fails_costs_one_warning_and_holds_up_no_answer(tmp_path, monkeypatch, status, delay):
    with OtlpSink(status=status, delay=delay) as sink:
        point_at(sink, monkeypatch)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        with serving(tmp_path) as service, service.client() as client:
            for _ in range(3):
                assert score(client).status_code == 200
                time.sleep(0.5)
            eventually(lambda: "Telemetry can't be sent" in service.log.read_text(), seconds=60)
        assert service.process.returncode == 0
    assert service.log.read_text().count("Telemetry can't be sent") == 1
    assert "Traceback" not in service.log.read_text()


def test_without_a_sink_nothing_of_the_sdk_is_loaded(monkeypatch):
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    assert set_up_tracing({}) is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert set_up_tracing({}) is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert set_up_tracing({}) is None


def test_an_exporter_that_nobody_brings_is_named_and_scoring_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with serving(tmp_path) as service, service.client() as client:
        assert score(client).status_code == 200
    assert "`zipkin`" in service.log.read_text()


def test_a_trace_of_the_client_is_in_the_log_without_any_sink(tmp_path, monkeypatch):
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    with serving(tmp_path) as service, service.client() as client:
        known = score(client, traceparent=f"00-{TRACE}-{PARENT}-01").json()["request_id"]
        wrong = score(client, traceparent="00-nonsense").json()["request_id"]
        assert log_lines(service, known)[0]["trace_id"] == TRACE
        assert "trace_id" not in log_lines(service, wrong)[0]


@pytest.mark.parametrize(
    ("probability", "named"), [(0.0, "0-0.1"), (0.1, "0.1-0.2"), (0.93, "0.9-0.95"), (0.995, "0.99-1"), (1.0, "0.99-1")]
)
def test_probabilities_have_buckets(probability, named):
    assert bucket(probability) == named
