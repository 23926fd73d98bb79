"""The images that an environment keeps beside its scoring records: the newest few, named by their sha256.

`model.serving` writes them into its spool. On one machine that is the records store; a container's are uploaded to it.
"""

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

INCOMING: Final = "incoming"
"""Folder of a records store with what scoring processes left there."""
IMAGES: Final = "images"
NAME: Final = re.compile("[0-9a-f]{64}")


def ship_images(spool: Path, container: "ContainerClient") -> int:
    """Upload the images that wait in a spool, oldest first, and remove them there; answers how many.

    Raises:
        AzureError: As the SDK raises it; what was not uploaded stays in the spool.
    """
    waiting = [path for path in spool.glob(f"{IMAGES}/*/*") if NAME.fullmatch(path.name)]
    shipped = 0
    for path in sorted(waiting, key=_modified):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # newer ones took its place
        container.upload_blob(f"{INCOMING}/{path.relative_to(spool)}", content, overwrite=True)
        path.unlink(missing_ok=True)
        shipped += 1
    return shipped


def keep_newest(container: "ContainerClient", environment: str, limit: int) -> None:
    """Remove the oldest uploaded images of an environment beyond so many; raises as `ship_images` does."""
    from azure.core.exceptions import ResourceNotFoundError

    found = container.list_blobs(name_starts_with=f"{INCOMING}/{IMAGES}/{environment}/")
    images = sorted(
        (blob for blob in found if NAME.fullmatch(blob.name.rpartition("/")[2])), key=lambda blob: blob.last_modified
    )
    for blob in images[: max(0, len(images) - limit)]:
        try:
            container.delete_blob(blob.name)
        except ResourceNotFoundError:
            continue  # another container was quicker


def newest_images(store: str, environment: str, limit: int) -> list[str]:
    """At most so many images of an environment in a records store, as fsspec URLs, newest first."""
    folder = f"{store}/{INCOMING}/{IMAGES}/{environment}"
    import fsspec  # the scoring image has none

    files, root = fsspec.core.url_to_fs(folder)
    found = {path.rpartition("/")[2]: info for path, info in files.find(root, detail=True).items()}
    images = sorted((_stored(info), name) for name, info in found.items() if NAME.fullmatch(name))
    return [f"{folder}/{name}" for _, name in images[::-1][:limit]]


def read_image(url: str) -> bytes | None:
    """The bytes of one of `newest_images`; None where newer ones took its place since, or they are not its own."""
    import fsspec

    files, path = fsspec.core.url_to_fs(url)
    try:
        content = files.cat_file(path)
    except FileNotFoundError:
        return None
    return bytes(content) if hashlib.sha256(content).hexdigest() == path.rpartition("/")[2] else None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _stored(info: dict[str, float]) -> float:
    """Seconds since 1970; files say it so, blobs as a time."""
    return info["mtime"] if "mtime" in info else info["last_modified"].timestamp()  # type: ignore[attr-defined]
