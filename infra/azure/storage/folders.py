"""Folders in blob storage, where every machine and every scoring container finds them."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources
from infra.azure.storage.blobs import account_url, blob_service
from infra.errors import ConfigurationError, ModelNotFound, ServiceUnavailable
from infra.settings import Settings
from infra.stores.folder_files import files_of
from model.files import staged

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

INDEX: Final = "folder.json"
"""Tells in which sub-folder the files are, and their sha256. Written last: a folder is there whole or not at all."""
TRANSFERS: Final = 8
"""Files that are up- or downloaded at a time."""


class _Index(NamedTuple):
    attempt: str
    digests: dict[str, str]


class BlobFolders:
    """A FolderStore in one blob container.

    Each publisher uploads into a sub-folder of its own and then makes the index, which only one can: however many
    publish the same name, and wherever they are killed, no file of one is ever mixed with those of another.

    Args:
        account: Name of the storage account.
        container: Where folders are published.
        cache: Folder of this machine in which fetched copies are kept.
        prefix: Leads the names of all folders.
    """

    def __init__(self, account: str, container: str, cache: Path, *, prefix: str = "") -> None:
        self._account = account
        self._container = container
        self._cache = cache
        self._prefix = prefix

    def publish(self, folder: Path, name: str, *, files: Sequence[str] = ()) -> str:
        path = f"{self._prefix}{name}"
        url = f"{account_url(self._account)}/{self._container}/{path}"
        with azure_errors(f"publishing {url}"):
            client = blob_service(self._account).get_container_client(self._container)
            if not client.get_blob_client(f"{path}/{INDEX}").exists():
                _publish(client, folder, path, files)
        return url

    def fetch(self, url: str) -> Path:
        account, container, name = _parts(url)
        target = self._cache / account / container / name
        if target.is_dir():
            return target
        with staged(target, replace=False) as draft:
            missing = ModelNotFound(f"Nothing is published at {url}, or a part of it was deleted.")
            with azure_errors(f"fetching {url}", missing):
                _download_all(blob_service(account).get_container_client(container), name, draft)
        return target


def platform_folders(settings: Settings) -> BlobFolders:
    """The folders of the platform: all its machines and pods share them."""
    account = platform_resources(settings).storage_account
    return BlobFolders(account, "models", settings.path("folders"), prefix="folders/")


def _parts(url: str) -> tuple[str, str, str]:
    """Account, container and name of a published folder's URL."""
    parsed = urlsplit(url)
    account, _, rest = (parsed.hostname or "").partition(".")
    container, _, name = unquote(parsed.path).strip("/").partition("/")
    odd = not container or not name or ".." in name.split("/")
    if parsed.scheme != "https" or not rest.startswith("blob.") or odd:
        raise ConfigurationError(f"`{url}` is no folder in blob storage.")
    return account, container, name


# --- to the store -------------------------------------------------------------------------------------------------


def _publish(client: "ContainerClient", folder: Path, name: str, files: Sequence[str]) -> None:
    from azure.core.exceptions import ResourceExistsError

    attempt = uuid4().hex
    paths = files_of(folder, files)
    with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="publish") as pool:
        digests = dict(pool.map(lambda path: _upload(client, folder, path, f"{name}/{attempt}"), paths))
    index = json.dumps(_Index(attempt, digests)._asdict(), indent=1)
    with suppress(ResourceExistsError):
        client.upload_blob(f"{name}/{INDEX}", index, overwrite=False)
    _remove_others(client, name)


def _upload(client: "ContainerClient", folder: Path, path: Path, prefix: str) -> tuple[str, str]:
    relative = path.relative_to(folder).as_posix()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        client.upload_blob(f"{prefix}/{relative}", file, length=path.stat().st_size, overwrite=True)
    return relative, digest


def _remove_others(client: "ContainerClient", name: str) -> None:
    """Remove what publishers left that were killed, or came second: once the index is there, nobody needs it."""
    from azure.core.exceptions import HttpResponseError

    keep = _read_index(client, name).attempt
    names = [blob.name for blob in client.list_blobs(name_starts_with=f"{name}/")]
    # With a hierarchical namespace folders are listed too; they can go when they are empty, hence after their files.
    for blob in sorted(names, reverse=True):
        if blob.removeprefix(f"{name}/").partition("/")[0] not in (keep, INDEX):
            # A second publisher that still uploads removes its own.
            with suppress(HttpResponseError):
                client.delete_blob(blob)


# --- from the store -----------------------------------------------------------------------------------------------


def _read_index(client: "ContainerClient", name: str) -> _Index:
    return _Index(**json.loads(client.download_blob(f"{name}/{INDEX}").readall()))


def _download_all(client: "ContainerClient", name: str, draft: Path) -> None:
    index = _read_index(client, name)
    with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="fetch") as pool:
        prefix = f"{name}/{index.attempt}"
        list(pool.map(lambda item: _download(client, prefix, item[0], item[1], draft), index.digests.items()))


def _download(client: "ContainerClient", prefix: str, relative: str, expected: str, draft: Path) -> None:
    path = (draft / relative).resolve()
    if not path.is_relative_to(draft.resolve()):
        raise ConfigurationError(f"The index of {prefix} names a file outside of its folder: {relative}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in client.download_blob(f"{prefix}/{relative}").chunks():
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != expected:
        raise ServiceUnavailable(f"{prefix}/{relative} came with other bytes than were published.")
