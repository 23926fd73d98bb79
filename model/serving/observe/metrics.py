"""Metrics for Prometheus."""

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from model.serving.http.schemas import ServedModel

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The counters of one process; every label has a bounded set of values."""

    def __init__(self, model: ServedModel, labels: Sequence[str]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "ahc_requests_total", "Answered requests.", ("path", "method", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "ahc_request_seconds",
            "Time from a request's headers to its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._images = Counter("ahc_images_scored_total", "Images that got predictions.", registry=self.registry)
        self._rejected = Counter(
            "ahc_images_rejected_total", "Images that got a problem.", ("kind",), registry=self.registry
        )
        self._labels = Counter(
            "ahc_predictions_total", "Images by their most probable label.", ("label",), registry=self.registry
        )
        self._confidence = Histogram(
            "ahc_top_probability",
            "Probability of the most probable label.",
            buckets=CONFIDENCES,
            registry=self.registry,
        )
        self.pending = Gauge("ahc_images_waiting", "Images that wait or are being scored.", registry=self.registry)
        self.records_dropped = Gauge(
            "ahc_records_dropped", "Sampled scoring records that could not be kept.", registry=self.registry
        )
        info = Gauge("ahc_model_info", "The served model.", ("name", "version", "digest"), registry=self.registry)
        info.labels(model.name, str(model.version), model.digest).set(1)
        for label in labels:
            self._labels.labels(label)

    def request(self, path: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(path, method, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def scored(self, label: str, probability: float) -> None:
        self._images.inc()
        self._labels.labels(label).inc()
        self._confidence.observe(probability)

    def rejected(self, kind: str) -> None:
        self._rejected.labels(kind).inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
