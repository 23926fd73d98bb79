"""The images that an environment keeps beside its scoring records: the newest few, named by their sha256.

`model.serving` writes them into its spool. On one machine that is the records store; a container's are uploaded to it.
"""

import hashlib
import re
from typing import Final

INCOMING: Final = "incoming"
"""Folder of a records store with what scoring processes left there."""
IMAGES: Final = "images"
NAME: Final = re.compile("[0-9a-f]{64}")


def newest_images(store: str, environment: str, limit: int) -> list[str]:
    """At most so many images of an environment in a records store, as fsspec URLs, newest first."""
    folder = f"{store}/{INCOMING}/{IMAGES}/{environment}"
    import fsspec  # the scoring image has none

    files, root = fsspec.core.url_to_fs(folder)
    files_by_name = {path.rpartition("/")[2]: info for path, info in files.find(root, detail=True).items()}
    images = sorted((_stored(info), name) for name, info in files_by_name.items() if NAME.fullmatch(name))
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


def _stored(info: dict[str, float]) -> float:
    """Seconds since 1970; files say it so, blobs as a time."""
    return info["mtime"] if "mtime" in info else info["last_modified"].timestamp()  # type: ignore[attr-defined]
