"""The scoring API as one app: which path leads to which endpoint, and how errors are answered."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from model.serving.http import openapi
from model.serving.http.endpoints import Endpoints
from model.serving.http.exchange import Exchange
from model.serving.http.middleware import RequestMiddleware
from model.serving.http.problems import Refusal
from model.serving.http.schemas import BatchAnswer, Health, ScoreAnswer
from model.serving.service import ScoringService

DESCRIPTION = (
    "Answers what an image shows. Problems are RFC 9457 documents; each has a section in the runbook. "
    "No image of a request with `Cache-Control: no-store` is kept."
)


def create_app(service: ScoringService) -> FastAPI:
    """The paths of the scoring API on this service."""
    api = FastAPI(
        title=f"Scoring API of {service.model.name}",
        version=str(service.model.version),
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        exception_handlers={Refusal: _answer_refusal, HTTPException: _answer_routing_error},
    )
    endpoints = Endpoints(service)
    api.post(
        "/score",
        summary="Score one image",
        response_model=ScoreAnswer,
        responses={
            200: {"headers": openapi.REQUEST_ID},
            **openapi.problems("wrong-key", *openapi.IMAGE_PROBLEMS),
        },
        openapi_extra=openapi.image_body(),
    )(endpoints.score)
    api.post(
        "/score/batch",
        summary="Score several images",
        description="A file that can't be scored gets a problem in its place; the others are answered.",
        response_model=BatchAnswer,
        responses={
            200: {"headers": openapi.REQUEST_ID},
            **openapi.problems("wrong-key", *openapi.BATCH_PROBLEMS),
        },
        openapi_extra=openapi.batch_body(service.config.max_batch_images),
    )(endpoints.score_batch)
    api.get(
        "/model",
        summary="The model that answers here",
        responses=openapi.problems("wrong-key"),
        openapi_extra=openapi.SECURED,
    )(endpoints.model)
    api.get("/health/live", summary="The process answers")(endpoints.live)
    api.get(
        "/health/ready",
        summary="The model is loaded and takes traffic",
        responses={503: {"model": Health}},
    )(endpoints.ready)
    api.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )(endpoints.metrics)
    api.openapi_schema = openapi.complete(api.openapi(), service.config.platform)
    paths = frozenset(api.openapi_schema["paths"]) | {"/openapi.json"}
    api.add_middleware(RequestMiddleware, service=service, paths=paths)
    return api


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return Exchange.of(request).refuse(error)


async def _answer_routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:200]
    if error.status_code == 405:
        detail = f"{path} doesn't take {request.scope['method'][:20]}."
        refusal = Refusal("wrong-method", detail, headers=error.headers)
    elif error.status_code == 404:
        refusal = Refusal("unknown-path", f"There is nothing at {path}.")
    else:
        refusal = Refusal("malformed-request", str(error.detail))
    return await _answer_refusal(request, refusal)
