"""Sampled scoring records: the answers to a share of the requests, for the data lake. Never the image.

Where an environment asks for it, the newest of their images are kept beside them for a while (`ImageSpool`).

A thread of its own writes them, as JSON lines in segments: NAME.jsonl.part while it is written, NAME.jsonl once it is
finished and will not change any more. Whoever collects segments removes them.
"""

import errno
import hashlib
import json
import logging
import os
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from model.data.decoding import open_image
from model.errors import ImageRejected
from model.files import try_lock
from model.serving.config import MEBIBYTE
from model.serving.observe.image_spool import ImageSpool

QUEUED_RECORDS: Final = 256
QUEUED_BYTES: Final = 32 * MEBIBYTE
SEGMENT_BYTES: Final = MEBIBYTE
CLOSE_SECONDS: Final = 2.0
TOP: Final = 5
PART: Final = ".part"

log = logging.getLogger("serving")


class Records:
    """The records of one process.

    Args:
        spool: Folder for the segments; made where it is missing, shared with other processes of any environment.
        environment: Leads the names of the segments.
        rate: Share of the requests that are recorded.
        facts: Fields of every record.
        limit: Bytes that the segments of an environment may take on disk; beyond, the oldest are removed.
        seconds: After so long, a segment that holds anything is finished.
        images: So many of the newest scored images are kept.
    """

    def __init__(
        self,
        spool: Path,
        environment: str,
        *,
        rate: float,
        facts: Mapping[str, Any],
        limit: int,
        seconds: float,
        images: int,
    ) -> None:
        self.dropped = 0
        self._rate = rate
        self._facts = dict(facts)
        self._segments = _Segments(spool, environment, limit)
        self._images = ImageSpool(spool, environment, images)
        self._seconds = seconds
        self._queue: queue.Queue[tuple[bytes, dict[str, Any], bool] | None] = queue.Queue(QUEUED_RECORDS)
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._warned = False
        self._thread = threading.Thread(target=self._write_all, name="records", daemon=True)
        self._thread.start()

    def sampled(self) -> bool:
        """Whether the request that asks is one to record."""
        return random.random() < self._rate  # noqa: S311 - a sample, not a secret

    def keep(self, image: bytes, fields: Mapping[str, Any], *, storable: bool = True) -> None:
        """Record one image's answer; where the disk can't follow, it is dropped.

        Args:
            image: Its bytes.
            fields: What the record says of it and of its request.
            storable: Whether the image itself may be kept, where images are.
        """
        if not self._reserve(len(image)):
            self.dropped += 1
            return
        try:
            self._queue.put_nowait((image, {"time": _now(), **self._facts, **fields}, storable))
        except queue.Full:
            self.dropped += 1
            self._release(image)

    def close(self) -> None:
        """Finish the segment with everything that was kept."""
        try:
            self._queue.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)

    def _write_all(self) -> None:
        self._attempt(self._segments.adopt_orphans)
        self._images.trim()
        while True:
            try:
                item = self._queue.get(timeout=self._segments.due(self._seconds))
            except queue.Empty:
                self._attempt(self._segments.finish)
                continue
            if item is None:
                self._attempt(self._segments.finish)
                return
            self._write(*item)
            if self._segments.due(self._seconds) == 0:
                self._attempt(self._segments.finish)

    def _write(self, image: bytes, fields: dict[str, Any], storable: bool) -> None:
        facts = describe(image)
        if not self._attempt(lambda: self._segments.append({**fields, **facts})):
            self.dropped += 1
        if storable and fields.get("label") is not None:
            self._images.keep(image, facts["sha256"])
        self._release(image)

    def _attempt(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a record is never worth a request
            if not self._warned:
                self._warned = True
                log.warning("Scoring records can't be written; scoring is not affected. %s", error)
            self._segments.abandon()
            return False
        return True

    def _reserve(self, size: int) -> bool:
        with self._lock:
            if self._queued_bytes and self._queued_bytes + size > QUEUED_BYTES:
                return False
            self._queued_bytes += size
            return True

    def _release(self, image: bytes) -> None:
        with self._lock:
            self._queued_bytes -= len(image)


class _Segments:
    """The files of a spool."""

    def __init__(self, spool: Path, environment: str, limit: int) -> None:
        self._spool = spool
        self._environment = environment
        self._limit = limit
        self._file: int | None = None
        self._path = spool
        self._size = 0
        self._opened = 0.0
        self._warned = False

    def due(self, seconds: float) -> float | None:
        """Seconds until the open segment is to be finished; None where none is open."""
        if self._file is None:
            return None
        if self._size >= SEGMENT_BYTES:
            return 0
        return max(0.0, self._opened + seconds - time.monotonic())

    def append(self, record: Mapping[str, Any]) -> None:
        if self._file is None:
            self._open()
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        assert self._file is not None
        try:
            _write_whole(self._file, line)
        except OSError:
            # Its whole lines are kept, the broken one is not.
            self.abandon()
            self.adopt_orphans()
            raise
        self._size += len(line)

    def finish(self) -> None:
        if self._file is None:
            return
        os.fsync(self._file)
        self._path.rename(self._path.with_suffix(""))
        self.abandon()
        self.adopt_orphans()
        self._enforce_limit()

    def abandon(self) -> None:
        """Close the open segment; as an orphan it is finished later."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def adopt_orphans(self) -> None:
        """Finish the segments of processes that were killed."""
        for path in self._spool.glob(f"{self._environment}.*{PART}"):
            descriptor = _locked(path)
            if descriptor is None:
                continue
            try:
                content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                size = content.rfind(b"\n") + 1  # of its whole lines
                os.ftruncate(descriptor, size)
                if size:
                    path.rename(path.with_suffix(""))
                else:
                    path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    def _open(self) -> None:
        self._spool.mkdir(parents=True, exist_ok=True)
        while self._file is None:
            name = f"{self._environment}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}.{uuid.uuid4().hex[:12]}.jsonl{PART}"
            self._path = self._spool / name
            self._path.touch()
            # Another process may take it for an orphan before it is locked: then the next name.
            self._file = _locked(self._path)
        self._size = 0
        self._opened = time.monotonic()

    def _enforce_limit(self) -> None:
        segments = sorted(self._spool.glob(f"{self._environment}.*.jsonl"))
        sizes = {path: _size(path) for path in segments}
        total = sum(sizes.values())
        for path in segments[:-1]:
            if total <= self._limit:
                return
            if not self._warned:
                self._warned = True
                log.warning("Nobody collects scoring records from %s: the oldest go.", self._spool)
            path.unlink(missing_ok=True)
            total -= sizes[path]


def describe(image: bytes) -> dict[str, Any]:
    """The facts of a record about an image's bytes."""
    facts: dict[str, Any] = {"sha256": hashlib.sha256(image).hexdigest(), "bytes": len(image)}
    try:
        with open_image(image) as opened:
            return facts | {"format": str(opened.format).lower(), "width": opened.width, "height": opened.height}
    except ImageRejected:
        return facts | {"format": None, "width": None, "height": None}


def prediction_fields(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of an image that was scored."""
    best = predictions[0]
    return {"label": best["label"], "probability": best["probability"], "predictions": list(predictions[:TOP])}


def problem_fields(kind: str) -> dict[str, Any]:
    """The fields of an image that got a problem of this kind."""
    return {"label": None, "probability": None, "predictions": [], "problem": kind}


def _write_whole(descriptor: int, line: bytes) -> None:
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _locked(path: Path) -> int | None:
    """The open file, locked until it is closed; None where another process has it, or has finished it."""
    descriptor = None
    with suppress(FileNotFoundError):
        descriptor = try_lock(path)
        if descriptor is None or path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    if descriptor is not None:
        os.close(descriptor)
    return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
