"""Folders in blob storage, where every machine and every scoring container finds them."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from infra.azure.blobs import blob_service
from infra.azure.failures import azure_errors
from infra.errors import ConfigurationError, ModelNotFound, ServiceUnavailable

INDEX: Final = "folder.json"
"""Lists the files of a published folder with their sha256; written last, so that a folder is there whole or not."""
TRANSFERS: Final = 8
"""Files that are up- or downloaded at a time."""


class BlobFolders:
    """A FolderStore in one blob container.

    Args:
        account: Name of the storage account.
        container: Where folders are published.
        cache: Folder of this machine in which fetched copies are kept.
    """

    def __init__(self, account: str, container: str, cache: Path) -> None:
        self._account = account
        self._container = container
        self._cache = cache

    def publish(self, folder: Path, name: str) -> str:
        url = f"https://{self._account}.blob.core.windows.net/{self._container}/{name}"
        with azure_errors(f"publishing {url}"):
            client = blob_service(self._account).get_container_client(self._container)
            if not client.get_blob_client(f"{name}/{INDEX}").exists():
                files = sorted(path for path in folder.rglob("*") if path.is_file())
                with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="publish") as pool:
                    digests = dict(pool.map(lambda path: _upload(client, folder, path, name), files))
                client.upload_blob(f"{name}/{INDEX}", json.dumps(digests, indent=1), overwrite=True)
        return url

    def fetch(self, url: str) -> Path:
        account, container, name = _parts(url)
        target = self._cache / account / container / name
        if target.is_dir():
            return target
        draft = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            with azure_errors(f"fetching {url}"):
                client = blob_service(account).get_container_client(container)
                digests = _index(client, name, url)
                with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="fetch") as pool:
                    list(pool.map(lambda item: _download(client, name, item[0], item[1], draft), digests.items()))
            draft.mkdir(parents=True, exist_ok=True)
            draft.rename(target)
        except OSError:
            # Another process was first with the same bytes, or the disk is full: only the second is an error.
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target


def _parts(url: str) -> tuple[str, str, str]:
    """Account, container and name of a published folder's URL."""
    parsed = urlsplit(url)
    account, _, rest = (parsed.hostname or "").partition(".")
    container, _, name = unquote(parsed.path).strip("/").partition("/")
    if parsed.scheme != "https" or not rest.startswith("blob.") or not container or not name:
        raise ConfigurationError(f"`{url}` is no folder in blob storage.")
    return account, container, name


def _index(client: Any, name: str, url: str) -> dict[str, str]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        digests: dict[str, str] = json.loads(client.download_blob(f"{name}/{INDEX}").readall())
    except ResourceNotFoundError as error:
        raise ModelNotFound(f"Nothing is published at {url}.") from error
    return digests


def _upload(client: Any, folder: Path, path: Path, name: str) -> tuple[str, str]:
    relative = path.relative_to(folder).as_posix()
    with path.open("rb") as file:
        client.upload_blob(f"{name}/{relative}", file, overwrite=True)
    return relative, hashlib.sha256(path.read_bytes()).hexdigest()


def _download(client: Any, name: str, relative: str, expected: str, draft: Path) -> None:
    path = draft / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in _chunks(client, f"{name}/{relative}"):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected:
        raise ServiceUnavailable(f"{name}/{relative} came with other bytes than were published.")


def _chunks(client: Any, blob: str) -> Iterator[bytes]:
    yield from client.download_blob(blob).chunks()
