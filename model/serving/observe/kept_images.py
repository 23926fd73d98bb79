"""The newest images of sampled requests, on which a later version is compared with the one that serves.

They are files of a folder, named by their sha256, that the processes of one environment share. A reader sees a file
whole or not at all; after a loss of power its name tells whether it is.
"""

import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MEBIBYTE: Final = 1024 * 1024
IMAGES: Final = "images"
"""Folder of a spool that has a folder of images for each environment."""
IMAGE_BYTES: Final = 4 * MEBIBYTE
"""Larger images are not kept."""
DRAFT_SECONDS: Final = 60.0
NAME: Final = re.compile("[0-9a-f]{64}")

log = logging.getLogger("serving")


class KeptImages:
    """The images of an environment in a spool.

    Args:
        spool: Folder of the records; made where it is missing.
        environment: Whose images.
        limit: So many are kept; beyond, the oldest go. With 0, none are kept, and those that are there go.
    """

    def __init__(self, spool: Path, environment: str, limit: int) -> None:
        self._folder = spool / IMAGES / environment
        self._limit = limit
        self._complained = False

    def keep(self, image: bytes, sha256: str) -> None:
        """Make it the newest one; where the disk doesn't take it, it is lost, and that is told once."""
        if self._limit and len(image) <= IMAGE_BYTES:
            self._attempt(lambda: self._write(image, sha256))
            self.trim()

    def trim(self) -> None:
        """Remove the oldest beyond the limit, and what killed processes left half-written."""
        self._attempt(self._remove)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("Images of scoring records can't be kept; scoring is not affected. %s", error)

    def _write(self, image: bytes, sha256: str) -> None:
        # What people photograph is not for every user of the machine.
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._folder / f".{uuid.uuid4().hex}"
        try:
            draft.write_bytes(image)
            now = time.time_ns()  # the file system's own clock is too coarse to order a burst
            os.utime(draft, ns=(now, now))
            draft.replace(self._folder / sha256)
        finally:
            draft.unlink(missing_ok=True)

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
