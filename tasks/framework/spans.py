"""The spans of flows and stages: what ran, on which data and model, and how it ended."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from prefect import runtime
from prefect.client.schemas.objects import State
from pydantic import BaseModel

from infra.backend import connection_string
from infra.config.environments import Environment
from infra.ports import LiveModel, RegisteredModel
from infra.runs import telemetry
from infra.runs.correlation import correlation_id, root_run
from model.bundle.read import BundleRef
from model.data.manifest import DataVersion
from model.evaluation.verdict import Verdict
from tasks.framework.error_table import is_transient

OTHER_MODELS: Final = frozenset({"champion", "opponent"})
"""Arguments and fields that hold a model which the step compares with, and is not about."""
DEPTH: Final = 3


@contextmanager
def run_span(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[Callable[[Any], None]]:
    """A span around one run of a flow or stage; the block hands its result to what it gets."""
    with telemetry.span(name, {}, connection_string) as span:
        if not span.is_recording():
            yield lambda _: None
            return
        span.set_attributes(_run_attributes())
        span.set_attributes(facts(inspect.signature(function).bind_partial(*args, **kwargs).arguments))
        try:
            yield lambda result: span.set_attributes(_result_attributes(result))
        except Exception as error:
            span.set_attributes({"ahc.error": type(error).__name__, "ahc.error.transient": is_transient(error)})
            raise


def reused_span(name: str, result: Any, since: datetime) -> None:
    """A span of no length for a stage whose result was there already, made by another run or attempt."""
    origin = getattr(result, "origin", None)
    if origin is None or origin.at >= since:
        return
    with telemetry.span(name, {}, connection_string) as span:
        if span.is_recording():
            span.set_attributes(_run_attributes() | _result_attributes(result))
            span.set_attributes({"ahc.reused": True, "ahc.reused.from": origin.root_run_id})


def _run_attributes() -> dict[str, Any]:
    attributes = {
        "ahc.correlation_id": correlation_id(),
        "ahc.flow_run.id": runtime.flow_run.id,
        "ahc.flow_run.name": runtime.flow_run.name,
        "ahc.flow_run.root_id": root_run(),
        "ahc.task_run.name": runtime.task_run.name,
        "ahc.attempt": runtime.task_run.run_count or runtime.flow_run.run_count,
    }
    return {name: value for name, value in attributes.items() if value}


def _result_attributes(result: Any) -> dict[str, Any]:
    if isinstance(result, State):
        return {"ahc.outcome": str(result.name)} | _result_attributes(result.data)
    return facts({"result": result}) if isinstance(result, BaseModel) else {}


def facts(values: Mapping[str, Any], depth: int = DEPTH) -> dict[str, Any]:
    """The data, the model and the verdict in these values and their fields."""
    attributes: dict[str, Any] = {}
    for name, value in values.items():
        if name in OTHER_MODELS:
            continue
        if isinstance(value, RegisteredModel | LiveModel):
            attributes |= {"ahc.model.name": value.name, "ahc.model.version": value.version}
            attributes |= {"ahc.model.digest": value.digest}
        elif isinstance(value, BundleRef):
            attributes |= {"ahc.model.name": value.name, "ahc.model.digest": value.digest}
        elif isinstance(value, DataVersion):
            attributes |= {"ahc.data.name": value.name, "ahc.data.version": value.version}
        elif isinstance(value, Verdict):
            attributes["ahc.outcome"] = value.outcome
        elif isinstance(value, Environment):
            attributes["ahc.environment"] = value.name
        elif isinstance(value, BaseModel) and depth:
            attributes |= facts(dict(value), depth - 1)
        elif name == "environment" and isinstance(value, str):
            attributes["ahc.environment"] = value
    return attributes
