"""Evaluation metrics in the data lake, where models are compared over months and beside what they answered."""

from datetime import UTC
from typing import TYPE_CHECKING, Final

from prefect import get_run_logger

from infra.backend import backend
from infra.ports import RegisteredModel
from infra.runs.correlation import correlation_id
from infra.settings import get_settings
from infra.stores.lake import write_part
from model.data.manifest import DataVersion
from tasks.framework.cache_key import key_of
from tasks.framework.stage import Result, stage
from tasks.training.judge import Judgement, scalars

if TYPE_CHECKING:
    import pyarrow as pa

TABLE: Final = "evaluation_metrics"
DIGITS: Final = 24


class Published(Result):
    """Where the metrics of a model are in the lake."""

    url: str


def metrics_schema() -> "pa.Schema":
    """The columns of `evaluation_metrics`, one row a metric; the partition adds `date`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("registered", pa.timestamp("us", "UTC")),
            ("model", pa.string()),
            ("version", pa.int64()),
            ("digest", pa.string()),
            ("data", pa.string()),
            ("data_version", pa.string()),
            ("verdict", pa.string()),
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("correlation_id", pa.string()),
        ]
    )


@stage(
    "Publish metrics",
    "metrics of {model.name} v{model.version} to the lake",
    key=lambda model, judgement, **_: key_of("metrics", model.digest, judgement.verdict.outcome, code=[]),
)
def publish_metrics(model: RegisteredModel, judgement: Judgement, data: DataVersion) -> Published:
    """Write the metrics of a judged model as Parquet; once for each digest."""
    registered = model.created.astimezone(UTC)
    facts = {
        "registered": registered,
        "model": model.name,
        "version": model.version,
        "digest": model.digest,
        "data": data.name,
        "data_version": data.version,
        "verdict": judgement.verdict.outcome,
        "correlation_id": model.tags.get("correlation_id") or correlation_id(),
    }
    rows = [{**facts, "metric": name, "value": value} for name, value in scalars(judgement.evaluation).items()]
    table, day = f"{backend(get_settings()).lake()}/{TABLE}", {"date": f"{registered:%Y-%m-%d}"}
    url = write_part(table, day, model.digest[:DIGITS], rows, metrics_schema())
    get_run_logger().info("%d metrics of %s are in %s", len(rows), model.label, url)
    return Published(url=url)
