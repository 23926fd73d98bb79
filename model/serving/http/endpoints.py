"""What each path of the scoring API does with a request."""

from typing import Any, Final

from fastapi import Request, Response
from starlette.responses import JSONResponse

from model.serving.http.exchange import Exchange
from model.serving.http.images_of_request import read_batch, read_image
from model.serving.http.problems import Refusal
from model.serving.http.schemas import Health, ModelAnswer
from model.serving.observe.tracing import bucket
from model.serving.service import ScoringService

EXPOSITION: Final = "text/plain; version=0.0.4; charset=utf-8"


class Endpoints:
    """The endpoints of one service; the names of their methods are the operation ids of `/openapi.json`."""

    def __init__(self, service: ScoringService) -> None:
        self._service = service
        self._model_fields = service.model.model_dump()

    async def score(self, request: Request) -> Response:
        exchange = self._admit(request)
        image = await read_image(request.headers, exchange.body, self._service.config)
        [answer] = await self._service.score(exchange, [image])
        if isinstance(answer, Refusal):
            raise answer
        exchange.notes["label"] = answer[0]["label"]
        exchange.notes["confidence"] = bucket(answer[0]["probability"])
        return self._answer(exchange, {"predictions": answer})

    async def score_batch(self, request: Request) -> Response:
        exchange = self._admit(request)
        images = await read_batch(request.headers, exchange.body, self._service.config)
        exchange.notes["images"] = len(images)
        answers = await self._service.score(exchange, [image.data for image in images])
        items = [
            {"file": image.file, "problem": answer.problem(exchange.request_id).model_dump()}
            if isinstance(answer, Refusal)
            else {"file": image.file, "predictions": answer}
            for image, answer in zip(images, answers, strict=True)
        ]
        return self._answer(exchange, {"items": items})

    async def model(self, request: Request) -> ModelAnswer:
        self._admit(request)
        bundle = self._service.bundle
        return ModelAnswer(
            **self._model_fields,
            labels=list(bundle.labels),
            correlation_id=self._service.config.correlation_id,
            input_size=bundle.preprocessing.size,
        )

    async def live(self) -> Health:
        return Health(status="live")

    async def ready(self, response: Response) -> Health:
        response.status_code = 503 if self._service.draining else 200
        return Health(status="draining" if self._service.draining else "ready")

    async def metrics(self) -> Response:
        return Response(self._service.metrics.exposition(), media_type=EXPOSITION)

    def _admit(self, request: Request) -> Exchange:
        self._service.keys.check(request.headers.get("authorization"))
        return Exchange.of(request)

    def _answer(self, exchange: Exchange, content: dict[str, Any]) -> Response:
        # Not as a model: its values are right already, and to check them once more would cost each request.
        return JSONResponse({**content, "model": self._model_fields, "request_id": exchange.request_id})
