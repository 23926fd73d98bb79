"""What one scoring process serves: a bundle's network, its keys, and what is observed of its requests."""

from collections.abc import Sequence
from typing import Any

from model.bundle.read import Bundle
from model.errors import ImageRejected
from model.serving.config import ServingConfig
from model.serving.engine import Engine, Probabilities, Scored
from model.serving.http.exchange import Exchange
from model.serving.http.keys import Keys
from model.serving.http.problems import Refusal
from model.serving.http.schemas import ServedModel
from model.serving.observe.metrics import Metrics
from model.serving.observe.observers import Observers


class ScoringService:
    """Scores images with one bundle, warmed up: the first request is answered as fast as any.

    Attributes:
        keys: May be replaced while serving.
        draining: No new work should come here; `/health/ready` says so.
        retired: Another version took over: every open connection is closed with its next answer.

    Raises:
        BundleCorrupt: The network can't be loaded or run.
    """

    def __init__(self, bundle: Bundle, config: ServingConfig) -> None:
        self.config = config
        self.bundle = bundle
        self.model = ServedModel(name=config.name or bundle.name, version=config.version, digest=bundle.digest)
        self.keys = Keys(config.keys)
        self.draining = False
        self.retired = False
        self._engine = Engine(bundle, threads=config.threads, waiting_images=config.waiting_images)
        self.observers = Observers(config, self.model)
        self.metrics = Metrics(self.model, bundle.labels)
        self.metrics.pending.set_function(lambda: self._engine.admitted)
        self.metrics.records_dropped.set_function(lambda: self.observers.dropped)

    async def score(self, exchange: Exchange, images: Sequence[bytes]) -> list[list[dict[str, Any]] | Refusal]:
        """Predictions for each image, as of `Prediction`, or why it has none: counted, timed and observed.

        Raises:
            Refusal: Too many images wait already.
        """
        scored = await self._engine.score(images)
        exchange.notes["decode_ms"] = round(sum(item.decoding for item in scored) * 1000, 2)
        exchange.notes["inference_ms"] = round(sum(item.inference for item in scored) * 1000, 2)
        return [self._answer(exchange, image, item) for image, item in zip(images, scored, strict=True)]

    def close(self) -> None:
        """Let go of the threads, with everything that was observed kept."""
        self._engine.close()
        self.observers.close()

    def _answer(self, exchange: Exchange, image: bytes, scored: Scored) -> list[dict[str, Any]] | Refusal:
        if isinstance(scored.outcome, ImageRejected):
            refusal = Refusal.of_image(scored.outcome)
            self.metrics.rejected(refusal.kind)
            self.observers.scored(exchange, image, refusal.kind)
            return refusal
        predictions = rank(self.bundle.labels, scored.outcome)
        self.metrics.scored(predictions[0]["label"], predictions[0]["probability"])
        self.observers.scored(exchange, image, predictions)
        return predictions


def rank(labels: Sequence[str], probabilities: Probabilities) -> list[dict[str, Any]]:
    """Predictions as of `Prediction`, the most probable first; equal ones keep the order of the labels."""
    pairs = sorted(zip(labels, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
    return [{"label": label, "probability": round(min(max(value, 0.0), 1.0), 6)} for label, value in pairs]
