"""The paths of the scoring service."""

import json
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from model.bundle.read import Bundle
from model.errors import ImageRejected
from model.serving.config import ServingConfig
from model.serving.engine import Engine, Probabilities, Scored
from model.serving.envelope import Envelope
from model.serving.http import openapi
from model.serving.http.exchange import Exchange
from model.serving.http.images_of_request import NamedImage, read_batch, read_image
from model.serving.http.keys import Keys
from model.serving.http.problems import Refusal
from model.serving.http.schemas import BatchAnswer, Health, ModelAnswer, ScoreAnswer, ServedModel
from model.serving.observe.metrics import Metrics
from model.serving.observe.observers import Observers
from model.serving.observe.tracing import bucket

DESCRIPTION = (
    "Answers what an image shows. Problems are RFC 9457 documents; each has a section in the runbook. "
    "No image of a request with `Cache-Control: no-store` is kept."
)
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


class ScoringService:
    """One bundle behind the paths of the scoring API; an ASGI app.

    Attributes:
        envelope: The outermost layer.
        keys: May be replaced while serving.
        draining: No new work should come here; `/health/ready` says so.
    """

    def __init__(self, bundle: Bundle, config: ServingConfig) -> None:
        self.config = config
        self.bundle = bundle
        self.model = ServedModel(name=config.name or bundle.name, version=config.version, digest=bundle.digest)
        self.keys = Keys(config.keys)
        self.engine = Engine(bundle, threads=config.threads, waiting_images=config.waiting_images)
        self.metrics = Metrics(self.model, bundle.labels)
        self.metrics.waiting.set_function(lambda: self.engine.admitted)
        self.observers = Observers(config, self.model)
        self.metrics.records_dropped.set_function(lambda: self.observers.dropped)
        self.draining = False
        self._model_fields = self.model.model_dump()
        api = self._api()
        self.envelope = Envelope(
            api,
            metrics=self.metrics,
            observers=self.observers,
            paths=frozenset(api.openapi()["paths"]) | {"/openapi.json"},
            buffered=config.buffered_bytes,
            seconds=config.upload_seconds,
        )

    def close(self) -> None:
        """Let go of the threads, with everything that was observed kept."""
        self.engine.close()
        self.observers.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.envelope(scope, receive, send)

    def _api(self) -> FastAPI:
        api = FastAPI(
            title=f"Scoring API of {self.model.name}",
            version=str(self.model.version),
            description=DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            generate_unique_id_function=lambda route: route.name,
            exception_handlers={Refusal: _answer_refusal, HTTPException: _answer_routing, Exception: _answer_mistake},
        )
        self._add_scoring(api)
        self._add_facts(api)
        described = openapi.complete(api.openapi(), self.config.platform)
        api.openapi_schema = described
        return api

    def _add_scoring(self, api: FastAPI) -> None:
        api.add_api_route(
            "/score",
            self._score,
            name="score",
            methods=["POST"],
            summary="Score one image",
            response_class=Response,
            responses={
                200: {"model": ScoreAnswer, "headers": openapi.REQUEST_ID},
                **openapi.problems("wrong-key", *openapi.IMAGE_PROBLEMS),
            },
            openapi_extra=openapi.image_body(),
        )
        api.add_api_route(
            "/score/batch",
            self._score_batch,
            name="score_batch",
            methods=["POST"],
            summary="Score several images",
            description="A file that can't be scored gets a problem in its place; the others are answered.",
            response_class=Response,
            responses={
                200: {"model": BatchAnswer, "headers": openapi.REQUEST_ID},
                **openapi.problems("wrong-key", *openapi.BATCH_PROBLEMS),
            },
            openapi_extra=openapi.batch_body(self.config.max_batch_images),
        )

    def _add_facts(self, api: FastAPI) -> None:
        api.add_api_route(
            "/model",
            self._describe,
            name="model",
            methods=["GET"],
            summary="The model that answers here",
            response_class=Response,
            responses={200: {"model": ModelAnswer}, **openapi.problems("wrong-key")},
            openapi_extra={"security": [{openapi.SECURITY_SCHEME: []}]},
        )
        api.add_api_route(
            "/health/live",
            self._live,
            name="live",
            methods=["GET"],
            summary="The process answers",
            response_model=Health,
        )
        api.add_api_route(
            "/health/ready",
            self._ready,
            name="ready",
            methods=["GET"],
            summary="The model is loaded and takes traffic",
            response_model=Health,
            responses={503: {"model": Health}},
        )
        api.add_api_route(
            "/metrics",
            self._expose,
            name="metrics",
            methods=["GET"],
            summary="Metrics for Prometheus",
            response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        )

    async def _score(self, request: Request) -> Response:
        exchange = _admit(request, self.keys)
        data = await read_image(request.headers, exchange.body, self.config)
        [scored] = await self._run(exchange, [data])
        answer = self._say(exchange, data, scored)
        if isinstance(answer, Refusal):
            exchange.notes["problem"] = answer.kind
            raise answer
        exchange.notes["label"] = answer[0]["label"]
        exchange.notes["confidence"] = bucket(answer[0]["probability"])
        return self._answer(exchange, {"predictions": answer})

    async def _score_batch(self, request: Request) -> Response:
        exchange = _admit(request, self.keys)
        images = await read_batch(request.headers, exchange.body, self.config)
        exchange.notes["images"] = len(images)
        scored = await self._run(exchange, [image.data for image in images])
        items = [self._item(image, item, exchange) for image, item in zip(images, scored, strict=True)]
        return self._answer(exchange, {"items": items})

    async def _describe(self, request: Request) -> Response:
        _admit(request, self.keys)
        answer = ModelAnswer(
            **self._model_fields,
            labels=list(self.bundle.labels),
            correlation_id=self.config.correlation_id,
            input_size=self.bundle.preprocessing.size,
        )
        return Response(answer.model_dump_json(), media_type="application/json")

    async def _live(self) -> Health:
        return Health(status="live")

    async def _ready(self) -> Response:
        health = Health(status="draining" if self.draining else "ready")
        return Response(
            health.model_dump_json(), status_code=503 if self.draining else 200, media_type="application/json"
        )

    async def _expose(self) -> Response:
        return Response(self.metrics.exposition(), media_type=EXPOSITION)

    async def _run(self, exchange: Exchange, images: Sequence[bytes]) -> list[Scored]:
        """What became of each image; how long each step took for all of them is noted."""
        with self.engine.admission(len(images)):
            scored = await self.engine.score(images)
        exchange.notes["decode_ms"] = round(sum(item.decoding for item in scored) * 1000, 2)
        exchange.notes["inference_ms"] = round(sum(item.inference for item in scored) * 1000, 2)
        return scored

    def _item(self, image: NamedImage, scored: Scored, exchange: Exchange) -> dict[str, Any]:
        answer = self._say(exchange, image.data, scored)
        if isinstance(answer, Refusal):
            return {"file": image.file, "problem": answer.problem(exchange.request_id).model_dump()}
        return {"file": image.file, "predictions": answer}

    def _say(self, exchange: Exchange, image: bytes, scored: Scored) -> list[dict[str, Any]] | Refusal:
        """The answer to one image, counted and observed."""
        if isinstance(scored.outcome, ImageRejected):
            refusal = Refusal.of_image(scored.outcome)
            self.metrics.rejected(refusal.kind)
            self.observers.scored(exchange, image, refusal.kind)
            return refusal
        predictions = rank(self.bundle.labels, scored.outcome)
        self.metrics.scored(predictions[0]["label"], predictions[0]["probability"])
        self.observers.scored(exchange, image, predictions)
        return predictions

    def _answer(self, exchange: Exchange, content: dict[str, Any]) -> Response:
        answer = {**content, "model": self._model_fields, "request_id": exchange.request_id}
        return Response(json.dumps(answer, ensure_ascii=False), media_type="application/json")


def create_app(bundle: Bundle, config: ServingConfig) -> ScoringService:
    """The ASGI app, warmed up: the first request is answered as fast as any.

    Raises:
        BundleCorrupt: The network can't be loaded or run.
    """
    return ScoringService(bundle, config)


def rank(labels: Sequence[str], probabilities: Probabilities) -> list[dict[str, Any]]:
    """Predictions as of `Prediction`, the most probable first; equal ones keep the order of the labels."""
    pairs = sorted(zip(labels, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])
    return [{"label": label, "probability": round(min(max(value, 0.0), 1.0), 6)} for label, value in pairs]


def _admit(request: Request, keys: Keys) -> Exchange:
    keys.check(request.headers.get("authorization"))
    return _exchange(request)


def _exchange(request: Request) -> Exchange:
    exchange: Exchange = request.scope["state"]["exchange"]
    return exchange


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    exchange = _exchange(request)
    exchange.notes.setdefault("problem", error.kind)
    return error.response(exchange.request_id)


async def _answer_routing(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:200]
    if error.status_code == 405:
        detail = f"{path} doesn't take {request.scope['method'][:20]}."
        refusal = Refusal("wrong-method", detail, headers=dict(error.headers or {}))
    elif error.status_code == 404:
        refusal = Refusal("unknown-path", f"There is nothing at {path}.")
    else:
        refusal = Refusal("malformed-request", str(error.detail))
    return await _answer_refusal(request, refusal)


async def _answer_mistake(request: Request, error: Exception) -> Response:
    refusal = Refusal("internal-error", f"{type(error).__name__}; the log has more under this request id.")
    return await _answer_refusal(request, refusal)
