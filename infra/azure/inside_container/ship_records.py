"""Scoring records, and the images that are kept of them, on their way from a scoring container to the records store.

`model.serving` writes segments into a spool; `ship_records` uploads them under their own names and then removes them.
A segment that was uploaded twice, because its sender was killed in between, is the same blob, and later the same part
of the data lake: at least once on the way, once at the end.
"""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from infra.errors import ConfigurationError
from infra.releases.sampled_images import IMAGES, INCOMING, NAME

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


FINISHED: Final = "*.jsonl"
EVERY_SECONDS: Final = 15.0

log = logging.getLogger("ahc.records")


def ship_images(spool: Path, container: "ContainerClient") -> int:
    """Upload the images that wait in a spool, oldest first, and remove them there; answers how many.

    Raises:
        AzureError: As the SDK raises it; what was not uploaded stays in the spool.
    """
    images = [path for path in spool.glob(f"{IMAGES}/*/*") if NAME.fullmatch(path.name)]
    return _ship(spool, container, sorted(images, key=_modified))


def keep_newest(container: "ContainerClient", environment: str, limit: int) -> None:
    """Remove the oldest uploaded images of an environment beyond so many; raises as `ship_images` does."""
    from azure.core.exceptions import ResourceNotFoundError

    blobs = container.list_blobs(name_starts_with=f"{INCOMING}/{IMAGES}/{environment}/")
    images = sorted(
        (blob for blob in blobs if NAME.fullmatch(blob.name.rpartition("/")[2])), key=lambda blob: blob.last_modified
    )
    for blob in images[: max(0, len(images) - limit)]:
        try:
            container.delete_blob(blob.name)
        except ResourceNotFoundError:
            continue  # another container was quicker


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def ship_records(
    spool: Path,
    records_url: str,
    environment: str,
    *,
    images: int,
    stopped: threading.Event | None = None,
    every: float = EVERY_SECONDS,
) -> None:
    """Upload finished segments and kept images, again and again; for a thread of its own.

    A store that can't be reached is logged once and tried again; the scoring process bounds what waits in the spool.

    Args:
        spool: Where the scoring process writes segments.
        records_url: The records container, as `https://ACCOUNT.blob.core.windows.net/CONTAINER`.
        environment: Whose records they are.
        images: So many of the newest images stay in the store, of all containers of the environment.
        stopped: Set it when the scoring process has ended: the rest is uploaded once more, and this returns.
        every: Seconds between two looks into the spool.
    """
    stopped = stopped or threading.Event()
    warned = trimmed = False
    while True:
        last = stopped.is_set()
        try:
            ship_finished(spool, records_url)
            container = _container(records_url)
            trimmed = not ship_images(spool, container) and trimmed
            if not trimmed:
                keep_newest(container, environment, images)
                trimmed = True
        except Exception as error:  # noqa: BLE001 - records are never worth the container
            if not warned:
                log.warning("Scoring records can't be uploaded to %s now, and wait: %s", records_url, error)
            warned = True
        else:
            warned = False
        if last:
            return
        stopped.wait(every)


def ship_finished(spool: Path, records_url: str) -> int:
    """Upload the segments that are finished, oldest first; answers how many.

    Raises:
        AzureError: As the SDK raises it; what was not uploaded stays in the spool.
    """
    segments = sorted(spool.glob(FINISHED))
    return _ship(spool, _container(records_url), segments) if segments else 0


def _ship(spool: Path, container: "ContainerClient", paths: Sequence[Path]) -> int:
    """Upload these files under their own names and remove them; answers how many."""
    count = 0
    for path in paths:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # the scoring process needed the room, or newer ones took its place
        container.upload_blob(f"{INCOMING}/{path.relative_to(spool)}", content, overwrite=True)
        path.unlink(missing_ok=True)
        count += 1
    return count


def _container(records_url: str) -> "ContainerClient":
    from infra.azure.storage.blobs import blob_service

    parsed = urlsplit(records_url)
    account, _, rest = (parsed.hostname or "").partition(".")
    container = parsed.path.strip("/")
    if parsed.scheme != "https" or not rest.startswith("blob.") or not container or "/" in container:
        raise ConfigurationError(f"`{records_url}` is no blob container for scoring records.")
    return blob_service(account).get_container_client(container)
