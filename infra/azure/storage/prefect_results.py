"""Results of tasks in blob storage, for Prefect: reruns and reuse by key work from any pod (docs/adr/0006)."""

import asyncio
from typing import TYPE_CHECKING, Final

from prefect.filesystems import WritableFileSystem
from pydantic import Field

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources
from infra.azure.storage.blobs import blob_service
from infra.settings import AZURE_RESULTS, Settings

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

SLUG, NAME = AZURE_RESULTS.split("/")


class AzureResults(WritableFileSystem):
    """Reads and writes results as blobs, with the identity of the process that does it: no secret is in the block.

    Prefect takes any error of a read for "not there" and runs the task; each of our costly tasks meets the same
    store first, and an outage ends it as transient.
    """

    _block_type_name = "Azure results"
    _block_type_slug = SLUG
    _description = "Results of tasks in blob storage, by the identity of the process."

    account: str = Field(description="Name of the storage account.")
    container: str = Field(description="Blob container of the results.")

    def read_path(self, path: str, *, _sync: bool = True) -> bytes:  # type: ignore[override]
        with azure_errors(f"reading the result {path}"):
            return self._blob(path).download_blob().readall()

    def write_path(self, path: str, content: bytes, *, _sync: bool = True) -> None:  # type: ignore[override]
        with azure_errors(f"writing the result {path}"):
            self._blob(path).upload_blob(content, overwrite=True)

    async def aread_path(self, path: str) -> bytes:
        return await asyncio.to_thread(self.read_path, path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        await asyncio.to_thread(self.write_path, path, content)

    def _blob(self, path: str) -> "BlobClient":
        return blob_service(self.account).get_blob_client(self.container, path)


CONTAINER: Final = "results"


def platform_results(settings: Settings) -> AzureResults:
    """The result storage of the platform."""
    return AzureResults(account=platform_resources(settings).storage_account, container=CONTAINER)
