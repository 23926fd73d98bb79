"""Tracing and sampled records of requests. Neither may disturb a request."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.datastructures import Headers

from model.serving.config import ServingConfig
from model.serving.http.exchange import Exchange
from model.serving.http.schemas import ServedModel
from model.serving.observe.records import Records, prediction_fields, problem_fields
from model.serving.observe.tracing import NOT_TRACED, Tracing, set_up_tracing, trace_id_of

NO_STORE: Final = "no-store"
"""With it in `Cache-Control`, a client forbids to keep its image (RFC 9111, section 5.2.1.5)."""


class Observers:
    """The observers of one process, as its config and OpenTelemetry's variables say.

    Attributes:
        correlation_id: Of the run that released this version here.
    """

    def __init__(self, config: ServingConfig, model: ServedModel) -> None:
        self.correlation_id = config.correlation_id
        self._tracing = _tracing(config, model)
        self._records = _records(config, model)

    @property
    def dropped(self) -> int:
        """Records that could not be kept."""
        return self._records.dropped if self._records else 0

    def begin(self, exchange: Exchange, headers: Headers) -> None:
        exchange.trace_id = trace_id_of(headers)
        if self._tracing and exchange.path not in NOT_TRACED:
            exchange.span = self._tracing.begin(exchange.method, exchange.path, headers)
            exchange.trace_id = f"{exchange.span.get_span_context().trace_id:032x}"
        if self._records and exchange.path.startswith("/score") and self._records.sampled():
            exchange.samples = []
            exchange.storable = NO_STORE not in headers.get("cache-control", "").lower()

    def scored(self, exchange: Exchange, image: bytes, answer: Sequence[Mapping[str, Any]] | str) -> None:
        """Note the answer to one image: its predictions, or the kind of its problem."""
        if exchange.samples is not None:
            exchange.samples.append(
                (image, problem_fields(answer) if isinstance(answer, str) else prediction_fields(answer))
            )

    def end(self, exchange: Exchange, seconds: float) -> None:
        if self._tracing and exchange.span:
            self._tracing.end(exchange.span, exchange.status, {"request_id": exchange.request_id, **exchange.notes})
        for index, (image, fields) in enumerate(exchange.samples or ()):
            assert self._records is not None
            request = {"request_id": exchange.request_id, "image": index, "trace_id": exchange.trace_id}
            answer = {"status": exchange.status, "latency_ms": round(seconds * 1000, 2), "problem": None, **fields}
            self._records.keep(image, {**request, **answer}, storable=exchange.storable)

    def ids(self, exchange: Exchange) -> dict[str, str]:
        """The ids that tie a log line to a trace and to the run that released the model."""
        ids = {"trace_id": exchange.trace_id, "correlation_id": self.correlation_id}
        return {name: value for name, value in ids.items() if value}

    def close(self) -> None:
        """Write and send what was observed, within a few seconds."""
        if self._records:
            self._records.close()
        if self._tracing:
            self._tracing.close()


def _tracing(config: ServingConfig, model: ServedModel) -> Tracing | None:
    return set_up_tracing(
        {
            "ahc.environment": config.environment,
            "ahc.correlation_id": config.correlation_id,
            "ahc.model.name": model.name,
            "ahc.model.version": model.version,
            "ahc.model.digest": model.digest,
        }
    )


def _records(config: ServingConfig, model: ServedModel) -> Records | None:
    if config.spool is None or not config.sample_rate:
        return None
    facts = {
        "environment": config.environment,
        "correlation_id": config.correlation_id,
        "model": model.name,
        "version": model.version,
        "digest": model.digest,
    }
    return Records(
        config.spool,
        config.environment,
        rate=config.sample_rate,
        facts=facts,
        limit=config.spool_bytes,
        seconds=config.segment_seconds,
        images=config.sample_images,
    )
