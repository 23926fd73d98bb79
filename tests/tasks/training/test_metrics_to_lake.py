"""Scoring records and evaluation metrics as Parquet, read back as other tools would."""

import json
from datetime import UTC, datetime

import pyarrow.dataset
import pytest

import tasks.operations.scoring_records as module
from flows.scoring_records import scoring_records
from infra.ports import RegisteredModel
from infra.settings import get_settings
from infra.stores.lake import write_part
from model.data.manifest import DataVersion
from model.evaluation.evaluate import Evaluation, Interval
from model.evaluation.verdict import Verdict
from tasks.framework.pipeline import pipeline
from tasks.training.judge import Judgement, scalars
from tasks.training.metrics_to_lake import metrics_schema, publish_metrics
from tests.model.serving.conftest import serving
from tests.support.bundles import colour_image

pytestmark = pytest.mark.usefixtures("prefect_server")
DIGEST = "ab" * 32


@pytest.fixture
def store(prefect_server, monkeypatch, tmp_path):
    """An empty lake."""
    monkeypatch.setenv("AHC_HOME", str(tmp_path))
    get_settings.cache_clear()
    yield tmp_path / "lake"
    get_settings.cache_clear()


def record(number, time="2026-11-24T10:00:00.000+00:00", **changes):
    return {
        "time": time,
        "environment": "test",
        "correlation_id": "build-17",
        "model": "colours",
        "version": 7,
        "digest": DIGEST,
        "request_id": f"request-{number}",
        "image": 0,
        "trace_id": "",
        "status": 200,
        "latency_ms": 7.5,
        "problem": None,
        "label": "red",
        "probability": 0.9,
        "predictions": [{"label": "red", "probability": 0.9}, {"label": "blue", "probability": 0.1}],
        "sha256": "cd" * 32,
        "bytes": 100,
        "format": "png",
        "width": 48,
        "height": 40,
        **changes,
    }


def leave(store, segment, *records):
    folder = store / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
    (folder / segment).write_text("".join(f"{line}\n" for line in lines))


def read(store, table="scoring_records"):
    return pyarrow.dataset.dataset(store / table, partitioning="hive").to_table().to_pandas()


def test_segments_become_parts_by_environment_and_day_and_are_removed(store):
    leave(store, "test.1.jsonl", record(1), record(2, "2026-11-23T23:59:59.999+00:00"))
    leave(store, "test.2.jsonl", record(3))
    leave(store, "test.3.jsonl.part", record(4))
    leave(store, "acceptance.1.jsonl", record(5))
    collected = scoring_records("test")
    assert (collected.segments, collected.records, collected.unreadable) == (2, 3, 0)
    assert sorted(path.name for path in (store / "incoming").iterdir()) == ["acceptance.1.jsonl", "test.3.jsonl.part"]
    frame = read(store)
    assert set(frame["environment"]) == {"test"}
    by_day = {str(day): sorted(group) for day, group in frame.groupby("date")["request_id"]}
    assert by_day == {"2026-11-23": ["request-2"], "2026-11-24": ["request-1", "request-3"]}
    first = frame[frame["request_id"] == "request-1"].iloc[0]
    assert (first["label"], first["version"], first["latency_ms"], first["width"]) == ("red", 7, 7.5, 48)
    assert [item["label"] for item in first["predictions"]] == ["red", "blue"]


def test_a_segment_that_comes_again_makes_no_duplicates(store):
    for _ in range(2):
        leave(store, "test.1.jsonl", record(1), record(2))
        assert scoring_records("test").records == 2
    assert len(read(store)) == 2


def test_a_run_that_was_killed_between_part_and_removal_is_made_good_by_the_next(store, monkeypatch):
    leave(store, "test.1.jsonl", record(1))
    leave(store, "test.2.jsonl", record(2), record(3, "2026-11-25T00:00:00.000+00:00"))
    written = []

    def killed(*args):
        written.append(write_part(*args))
        if len(written) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_part", killed)
        with pytest.raises(KeyboardInterrupt):
            scoring_records("test")
    assert [path.name for path in (store / "incoming").iterdir()] == ["test.2.jsonl"]
    assert scoring_records("test").records == 2
    assert sorted(read(store)["request_id"]) == ["request-1", "request-2", "request-3"]
    assert not list((store / "incoming").iterdir())


def test_lines_that_are_no_records_are_put_aside_and_take_nothing_with_them(store):
    wrong = ["no json", '{"time": "yesterday"}', "[1]", json.dumps(record(2, version="seven"))]
    leave(store, "test.1.jsonl", *wrong[:3], record(1), wrong[3])
    collected = scoring_records("test")
    assert (collected.records, collected.unreadable) == (1, 4)
    assert (store / "unreadable" / "test.1.jsonl").read_text().splitlines() == wrong
    assert list(read(store)["request_id"]) == ["request-1"]


def test_what_a_real_scoring_process_records_is_read_back(store, tmp_path):
    config = {"spool": str(store / "incoming"), "sample_rate": 1, "environment": "test", "correlation_id": "build-17"}
    with serving(tmp_path, **config) as service, service.client() as client:
        for image in (colour_image("red"), colour_image("blue"), b"no image"):
            client.post("/score", content=image, headers={"Content-Type": "image/png"})
    assert scoring_records("test").records == 3
    frame = read(store).sort_values("time")
    assert list(frame["label"].fillna("")) == ["red", "blue", ""]
    assert list(frame["problem"].fillna("")) == ["", "", "broken-image"]
    assert set(frame["digest"]) == {service.bundle.digest}
    assert set(frame["correlation_id"]) == {"build-17"}


def test_without_segments_a_run_succeeds(store):
    assert scoring_records("test").segments == 0


def judgement(accuracy=0.9, outcome="promote"):
    evaluation = Evaluation.model_construct(
        accuracy=Interval.model_construct(value=accuracy, low=0.8, high=0.95),
        macro_f1=0.88,
        macro_recall=0.87,
        ece=0.02,
        log_loss=0.3,
        size_bytes=13_500_000,
        latency=None,
    )
    verdict = Verdict(outcome=outcome, reason="Better.", checks=())
    return Judgement.model_construct(verdict=verdict, evaluation=evaluation, champion=None, plots={}, origin=None)


DATA = DataVersion(
    name="food", version="0" * 16, manifest_uri="m", source_uri="s", images=1, labels=("a", "b"), counts={}
)
MODEL = RegisteredModel(
    name="food",
    version=3,
    digest=DIGEST,
    uri="u",
    created=datetime(2026, 11, 24, 23, 30, tzinfo=UTC),
    tags={"correlation_id": "build-17"},
)


def test_the_metrics_of_a_judged_model_are_rows_of_its_day_once_for_each_digest(store):
    @pipeline("metrics", "metrics")
    def flow() -> str:
        publish_metrics(MODEL, judgement(0.7, "reject"), DATA)
        publish_metrics(MODEL.model_copy(update={"version": 4, "digest": "cd" * 32}), judgement(0.5), DATA)
        return publish_metrics(MODEL, judgement(), DATA).url

    assert flow().startswith(f"{store}/evaluation_metrics/date=2026-11-24/part-")
    frame = read(store, "evaluation_metrics")
    third = frame[frame["version"] == 3]
    assert dict(zip(third["metric"], third["value"], strict=True)) == scalars(judgement().evaluation)
    assert set(third["verdict"]) == {"promote"}
    assert set(third["correlation_id"]) == {"build-17"}
    assert set(frame["version"]) == {3, 4}


def test_a_part_that_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    from fsspec.implementations.local import LocalFileSystem

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalFileSystem, "mv", full)
    with pytest.raises(OSError, match="No space"):
        write_part(str(tmp_path / "table"), {"date": "2026-11-24"}, "x", [], metrics_schema())
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
