"""Files of the release ledger in blob storage."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import platform_resources
from infra.azure.storage.blobs import account_url, blob_service
from infra.settings import Settings

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

TRANSFERS: Final = 16
"""Blobs that are read at a time."""


class EventBlobs:
    """EventFiles below `prefix` of one blob container."""

    def __init__(self, account: str, container: str, prefix: str) -> None:
        self._account = account
        self._container = container
        self._prefix = prefix

    def place(self, environment: str) -> str:
        return f"{account_url(self._account)}/{self._container}/{self._prefix}{environment}"

    def names(self, environment: str) -> list[str]:
        folder = f"{self._prefix}{environment}/"
        with azure_errors(f"listing {self.place(environment)}"):
            return [name.removeprefix(folder) for name in self._client().list_blob_names(name_starts_with=folder)]

    def read(self, environment: str, names: Sequence[str]) -> list[bytes | None]:
        client = self._client()
        blobs = [f"{self._prefix}{environment}/{name}" for name in names]
        with azure_errors(f"reading {self.place(environment)}"):
            if len(blobs) == 1:
                return [_content(client, blobs[0])]
            with ThreadPoolExecutor(TRANSFERS, thread_name_prefix="ledger") as pool:
                return list(pool.map(lambda blob: _content(client, blob), blobs))

    def create(self, environment: str, name: str, content: bytes) -> bool:
        from azure.core.exceptions import ResourceExistsError

        client, blob = self._client(), f"{self._prefix}{environment}/{name}"
        with azure_errors(f"writing {self.place(environment)}/{name}"):
            try:
                client.upload_blob(blob, content, overwrite=False)
            except ResourceExistsError:
                # The SDK repeats a request whose answer got lost: then the one that is there is ours.
                return _content(client, blob) == content
        return True

    def _client(self) -> "ContainerClient":
        return blob_service(self._account).get_container_client(self._container)


def platform_events(settings: Settings) -> EventBlobs:
    """Where all machines of the platform find the ledger."""
    return EventBlobs(platform_resources(settings).storage_account, "data", "ledger/")


def _content(client: "ContainerClient", blob: str) -> bytes | None:
    return if_present(lambda: client.download_blob(blob).readall())
