"""Scoring records: segments that scoring processes left become parts of the data lake."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import fsspec
from prefect import get_run_logger

from infra.backend import release_target
from infra.releases.sampled_images import INCOMING
from infra.settings import get_settings
from infra.stores.lake import write_part, write_whole
from tasks.framework.artifacts import Progress
from tasks.framework.stage import Result, stage

if TYPE_CHECKING:
    import pyarrow as pa

TABLE: Final = "scoring_records"
UNREADABLE: Final = "unreadable"
"""Folder of a records store for the lines that are no records."""
DIGITS: Final = 24


class Collected(Result):
    """What became of the segments that waited."""

    environment: str
    segments: int
    records: int
    unreadable: int


def records_schema() -> "pa.Schema":
    """The columns of `scoring_records`, one row an image; the partition adds `environment` and `date`."""
    import pyarrow as pa

    prediction = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    return pa.schema(
        [
            ("time", pa.timestamp("us", "UTC")),
            ("request_id", pa.string()),
            ("image", pa.int32()),
            ("trace_id", pa.string()),
            ("correlation_id", pa.string()),
            ("model", pa.string()),
            ("version", pa.int64()),
            ("digest", pa.string()),
            ("status", pa.int32()),
            ("problem", pa.string()),
            ("label", pa.string()),
            ("probability", pa.float64()),
            ("predictions", pa.list_(prediction)),
            ("latency_ms", pa.float64()),
            ("sha256", pa.string()),
            ("bytes", pa.int64()),
            ("format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
        ]
    )


@stage("Collect records", "scoring records of {environment}", always=True)
def collect_records(environment: str) -> Collected:
    """Turn an environment's segments into Parquet, each into a part of its own name, and remove it once that is there.

    A segment that is met again, since a run was killed or its sender sent it twice, becomes the same part again.
    """
    store = release_target(environment, get_settings()).records_store()
    files, root = fsspec.core.url_to_fs(store)
    segments = sorted(files.glob(f"{root}/{INCOMING}/{environment}.*.jsonl"))
    progress = Progress("scoring-records", f"{len(segments)} segments wait")
    records = unreadable = 0
    for done, segment in enumerate(segments, start=1):
        try:
            content = files.cat_file(segment)
        except FileNotFoundError:
            continue  # its scoring process needed the room
        written, lost = _write_parts(content, segment.rpartition("/")[2], environment, store)
        records, unreadable = records + written, unreadable + lost
        if files.exists(segment):
            files.rm_file(segment)
        progress.update(done, len(segments))
    if unreadable:
        get_run_logger().warning("%d lines are no records; they are in %s/%s", unreadable, store, UNREADABLE)
    get_run_logger().info("%d records of %d segments are in %s/%s", records, len(segments), store, TABLE)
    return Collected(environment=environment, segments=len(segments), records=records, unreadable=unreadable)


def _write_parts(content: bytes, segment: str, environment: str, store: str) -> tuple[int, int]:
    """Write the parts of one segment; answers how many lines are records, and how many are not."""
    rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    unreadable = []
    for line in content.splitlines():
        try:
            row = _row(line)
        except (ValueError, TypeError, KeyError):
            unreadable.append(line)
        else:
            rows[f"{row['time']:%Y-%m-%d}"].append(row)
    name = hashlib.sha256(segment.encode()).hexdigest()[:DIGITS]
    for day, of_day in sorted(rows.items()):
        partition = {"environment": environment, "date": day}
        write_part(f"{store}/{TABLE}", partition, name, of_day, records_schema())
    if unreadable:
        write_whole(f"{store}/{UNREADABLE}/{segment}", b"\n".join(unreadable) + b"\n")
    return sum(map(len, rows.values())), len(unreadable)


def _row(line: bytes) -> dict[str, Any]:
    import pyarrow as pa

    record = json.loads(line)
    time = datetime.fromisoformat(record["time"])
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    row = {**record, "time": time.astimezone(UTC)}
    try:
        # Checked one by one, so that a wrong one doesn't take its whole segment with it.
        pa.Table.from_pylist([row], schema=records_schema())
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return row
