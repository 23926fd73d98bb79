"""Spans of flows, steps and commands, sent where OpenTelemetry's standard variables say; off where they say nothing.

OTEL_TRACES_EXPORTER decides (`otlp`, `console`, `none`); where it is missing, spans go to Application Insights if
APPLICATIONINSIGHTS_CONNECTION_STRING is set or the platform runs on Azure. The provider is ours alone and not made the
global one: Prefect and others, which would trace the same work once more, find none. See docs/telemetry.md.
"""

import atexit
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, cast

from infra.errors import ConfigurationError, NotProvisioned
from infra.settings import get_settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.trace import Span, Tracer

SERVICE: Final = "ahc"
CONNECTION_STRING: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
AZURE: Final = "azure_monitor_opentelemetry_exporter"
"""The entry point of Microsoft's exporter."""
EXPORTERS: Final = {"otlp": "otlp_proto_http"}
"""Short names of the standard -> entry points that we bring."""
SEND_SECONDS: Final = 3
"""So long may one batch take, and so long may a process that ends still send what it has."""
QUIET: Final = {
    # Microsoft's exporter would report about itself, and ask a host of its own for settings.
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED": "true",
}
EXPORTER_LOGGERS: Final = ("opentelemetry", "azure.monitor.opentelemetry", "azure.core")

log = logging.getLogger("ahc.telemetry")


@contextmanager
def span(name: str, attributes: Mapping[str, Any], connection_string: Callable[[], str] = str) -> Iterator["Span"]:
    """A span around the block, below the one that is open here; an exception is recorded and goes on.

    Without an open one it continues the trace of the variable TRACEPARENT, as build tools set it.

    Args:
        name: Of the span.
        attributes: Its first ones.
        connection_string: Answers where the platform's Application Insights is. It is asked besides the work, once in a
            process, where spans go there and APPLICATIONINSIGHTS_CONNECTION_STRING is not set.
    """
    tracer = _tracer(connection_string)
    with tracer.start_as_current_span(name, context=_outer(), attributes=dict(attributes)) as opened:
        yield opened


def traceparent() -> str:
    """The W3C header that lets an endpoint continue the trace that is open here; of a new trace where none is."""
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    if context.is_valid:
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def configured() -> bool:
    """Whether this process's variables name a sink."""
    return bool(_named_exporters())


def scoring_variables(connection_string: str, environment: str) -> dict[str, str]:
    """What makes a scoring process send its spans to Application Insights."""
    if not connection_string:
        return {}
    return {
        "OTEL_TRACES_EXPORTER": AZURE,
        "OTEL_RESOURCE_ATTRIBUTES": f"deployment.environment.name={environment}",
        CONNECTION_STRING: connection_string,
        **QUIET,
    }


@lru_cache(maxsize=1)
def _tracer(connection_string: Callable[[], str]) -> "Tracer":
    from opentelemetry.trace import NoOpTracer

    exporters = _named_exporters() or ((AZURE,) if get_settings().backend == "azure" and not _is_off() else ())
    if not exporters:
        return NoOpTracer()
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    for logger in EXPORTER_LOGGERS:
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    service = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False)
    for name in exporters:
        exporter = _PatientExporter(name, partial(_make_exporter, name, connection_string))
        processor = BatchSpanProcessor(cast("Any", exporter))
        provider.add_span_processor(processor)
        # Not first when a process ends: then it's too late to sign in or to start threads.
        threading.Thread(target=exporter.prepare, daemon=True, name="telemetry").start()
        atexit.register(_end, processor, exporter)
    return provider.get_tracer("ahc")


def _end(processor: "BatchSpanProcessor", exporter: "_PatientExporter") -> None:
    exporter.deadline = time.monotonic() + SEND_SECONDS
    processor.shutdown()  # type: ignore[no-untyped-call]


def _is_off() -> bool:
    named = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return named == "none" or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def _named_exporters() -> tuple[str, ...]:
    """Entry points of the exporters that the variables name."""
    if _is_off():
        return ()
    named = [item.strip() for item in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",") if item.strip()]
    if not named and os.environ.get(CONNECTION_STRING):
        named = [AZURE]
    return tuple(EXPORTERS.get(name, name) for name in named)


def _outer() -> "Context | None":
    from opentelemetry.trace import get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    header = os.environ.get("TRACEPARENT")
    if not header or get_current_span().get_span_context().is_valid:
        return None
    return TraceContextTextMapPropagator().extract({"traceparent": header})


class _PatientExporter:
    """The exporter of this name, made besides the work, which may take a while; one that fails is named in one warning.

    A SpanExporter by its methods, so that nothing of the SDK is loaded where nothing is sent.
    """

    def __init__(self, name: str, make: Callable[[], "SpanExporter"]) -> None:
        self.deadline = float("inf")
        self._name = name
        self._make = make
        self._inner: SpanExporter | None = None
        self._prepared = threading.Event()
        self._has_warned = False

    def prepare(self) -> None:
        try:
            self._inner = self._make()
        except NotProvisioned:
            pass  # before the first provisioning there is nothing to send to
        except Exception as error:  # noqa: BLE001 - whatever it is, the work goes on without telemetry
            self._warn(f"can't be set up, so nothing is sent: {error}")
        self._prepared.set()

    def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
        from opentelemetry.sdk.trace.export import SpanExportResult

        while not self._prepared.wait(0.1) and time.monotonic() < self.deadline:
            pass
        if self._inner is None or time.monotonic() > self.deadline:
            return SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        except Exception as error:  # noqa: BLE001
            self._warn(f"failed: {error}")
            return SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._warn("doesn't take spans now.")
        return result

    def shutdown(self) -> None:
        if self._inner is not None:
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return self._inner is None or self._inner.force_flush(timeout_millis)

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "The telemetry exporter %s %s The work is not affected; see docs/telemetry.md.", self._name, what
            )


def _make_exporter(name: str, connection_string: Callable[[], str]) -> "SpanExporter":
    from importlib.metadata import entry_points

    entry_point = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
    if entry_point is None:
        raise ConfigurationError(f"OTEL_TRACES_EXPORTER names `{name}`, and no installed package brings it.")
    exporter: SpanExporter = entry_point.load()(**_options(name, connection_string))
    return exporter


def _options(name: str, connection_string: Callable[[], str]) -> dict[str, Any]:
    if name == EXPORTERS["otlp"] and "OTEL_EXPORTER_OTLP_TIMEOUT" not in os.environ:
        return {"timeout": SEND_SECONDS}
    if name != AZURE:
        return {}
    sink = os.environ.get(CONNECTION_STRING) or connection_string()
    return {"connection_string": sink, "timeout": SEND_SECONDS, "retry_total": 1}
