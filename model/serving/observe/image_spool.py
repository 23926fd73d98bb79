"""The newest images of sampled requests, on which a later version is compared with the one that serves.

They are files of a folder, named by their sha256, that the processes of one environment share.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from model.files import write_whole
from model.serving.config import MEBIBYTE

IMAGES: Final = "images"
"""Folder of a spool that has a folder of images for each environment."""
IMAGE_BYTES: Final = 4 * MEBIBYTE
"""Larger images are not kept."""
DRAFT_SECONDS: Final = 60.0
NAME: Final = re.compile("[0-9a-f]{64}")

log = logging.getLogger("serving")


class ImageSpool:
    """The images of an environment in a spool.

    Args:
        spool: Folder of the records; made where it is missing.
        environment: Whose images.
        limit: So many are kept; beyond, the oldest are removed; with 0, all are.
    """

    def __init__(self, spool: Path, environment: str, limit: int) -> None:
        self._folder = spool / IMAGES / environment
        self._limit = limit
        self._warned = False

    def keep(self, image: bytes, sha256: str) -> None:
        """Make it the newest one; where the disk doesn't take it, it is lost, and that is logged once."""
        if self._limit and len(image) <= IMAGE_BYTES:
            self._attempt(lambda: self._write(image, sha256))
            self.trim()

    def trim(self) -> None:
        """Remove the oldest beyond the limit, and the drafts of killed processes."""
        self._attempt(self._remove)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning("Images of scoring records can't be kept; scoring is not affected. %s", error)

    def _write(self, image: bytes, sha256: str) -> None:
        path = self._folder / sha256
        # Photographs are not for every user of the machine. One that a power cut takes is no loss.
        write_whole(path, image, mode=0o600, sync=False)
        now = time.time_ns()  # the file system's own clock is too coarse to order a burst
        with suppress(FileNotFoundError):  # newer ones took its place
            os.utime(path, ns=(now, now))

    def _remove(self) -> None:
        images: list[tuple[int, Path]] = []
        for path, modified in self._files():
            if NAME.fullmatch(path.name):
                images.append((modified, path))
            elif time.time() - modified / 1e9 > DRAFT_SECONDS:
                path.unlink(missing_ok=True)
        for _, path in sorted(images)[: max(0, len(images) - self._limit)]:
            path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[Path, int]]:
        try:
            entries = list(os.scandir(self._folder))
        except FileNotFoundError:
            return
        for entry in entries:
            try:
                yield Path(entry.path), entry.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # another process was quicker
