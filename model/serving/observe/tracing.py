"""A span for each request by OpenTelemetry, sent where its standard variables say; without them there are none.

Exporters are found by their entry points, so that no cloud is known here. OTEL_TRACES_SAMPLER says how many requests
are traced; a client's own `traceparent` is continued.
"""

import logging
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from model.serving.observe.metrics import CONFIDENCES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
    from starlette.datastructures import Headers

SERVICE: Final = "ahc-scoring"
NOT_TRACED: Final = frozenset({"/health/live", "/health/ready", "/metrics"})
"""Probes and scrapers ask these every few seconds."""
EXPORTERS: Final = {"otlp": "otlp_proto_http"}
"""Short names of the standard -> entry points that we bring."""
EXPORTER_LOGGERS: Final = ("opentelemetry", "azure")
"""They log each failed batch; `_exporter` logs the first."""
FLUSH_SECONDS: Final = 2.0
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

log = logging.getLogger("serving")


class Tracing:
    """Makes the spans of one process.

    Args:
        provider: Whose spans go to the exporters.
        facts: Attributes of every request's span.
    """

    def __init__(self, provider: "TracerProvider", facts: Mapping[str, str | int]) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("ahc.serving")
        self._facts = dict(facts)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, method: str, route: str, headers: "Headers") -> "Span":
        """The span of a request, as a part of the client's trace where it names one."""
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(headers) if "traceparent" in headers else None
        attributes = {"http.request.method": method, "http.route": route, "url.path": route, **self._facts}
        return self._tracer.start_span(f"{method} {route}", context, SpanKind.SERVER, attributes)

    def end(self, request: "Span", status: int, notes: Mapping[str, Any]) -> None:
        from opentelemetry.trace import StatusCode

        if request.is_recording():
            attributes = {f"ahc.{name}": value for name, value in notes.items()}
            request.set_attributes({"http.response.status_code": status, **attributes})
            if status >= 500:
                request.set_status(StatusCode.ERROR, str(notes.get("problem", "")))
        request.end()

    def close(self) -> None:
        """Send the last spans, within FLUSH_SECONDS."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_SECONDS)


def set_up_tracing(facts: Mapping[str, str | int]) -> Tracing | None:
    """Tracing as OTEL_TRACES_EXPORTER says; None where it is empty or `none`."""
    names = _exporter_names()
    if not names:
        return None
    try:
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporters = [_exporter(name) for name in names]
    except Exception as error:  # noqa: BLE001 - scoring goes on without telemetry, whatever is wrong with it
        log.warning("Requests are not traced: %s", error)
        return None
    for logger in EXPORTER_LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    service = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider, facts)


def trace_id_of(headers: "Headers") -> str:
    """The trace that the client says its request is a part of; empty where it says nothing that can be read."""
    match = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return match[1] if match else ""


def bucket(probability: float) -> str:
    """The range of probabilities that this one is in, such as `0.9-0.95`."""
    bounds = (0.0, *CONFIDENCES)
    upper = min(bisect_right(bounds, probability), len(bounds) - 1)
    return f"{bounds[upper - 1]:g}-{bounds[upper]:g}"


def _exporter_names() -> Sequence[str]:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    names = [item.strip() for item in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    return [EXPORTERS.get(name, name) for name in names if name and name.lower() != "none"]


def _exporter(name: str) -> "SpanExporter":
    """The exporter of this name; a failure is logged once, not with every batch."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    entry = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    if entry is None:
        raise LookupError(f"OTEL_TRACES_EXPORTER names `{name}`, and no installed package brings it.")
    inner: SpanExporter = entry.load()()

    class WarningExporter(SpanExporter):
        warned = False

        def export(self, spans: "Sequence[ReadableSpan]") -> SpanExportResult:
            try:
                result = inner.export(spans)
            except Exception:  # noqa: BLE001 - scoring goes on, whatever it is
                result = SpanExportResult.FAILURE
            if result is not SpanExportResult.SUCCESS and not self.warned:
                self.warned = True
                log.warning("Telemetry can't be sent by %s now; scoring is not affected.", name)
            return result

        def shutdown(self) -> None:
            inner.shutdown()

    return WarningExporter()
