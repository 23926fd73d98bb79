"""`abfs://` URLs for fsspec, opened with this process's identity.

`abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH` names its account, `abfs://CONTAINER/PATH` is of the platform's.
The requests go to the account's blob API, also where it has a hierarchical namespace (multi-protocol access).
"""

from pathlib import Path
from typing import Any, Final, cast

import fsspec
from adlfs import AzureBlobFileSystem
from azure.storage.blob.aio import BlobServiceClient
from fsspec.asyn import sync_wrapper

from infra.azure.access.credentials import async_credential
from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources
from infra.azure.storage.blobs import account_url, blob_options
from infra.settings import get_settings

PROTOCOLS: Final = ("abfs", "abfss", "az")


class AzureFiles(AzureBlobFileSystem):  # type: ignore[misc]
    """adlfs with this platform's identity, retries and errors.

    Its options name the account alone, so that it can be handed to another process, which signs in by itself. Errors
    are ours where they are met, so that they survive a data loader's processes; FileNotFoundError and FileExistsError
    are the file system's own words and stay.

    Args:
        account_name: The platform's storage account, if none is given.
    """

    def __init__(self, account_name: str | None = None, **options: Any) -> None:
        options |= {
            # A later listing must see what others wrote since.
            "use_listings_cache": False,
            # The templates make containers; who may read blobs may not always read a container's properties.
            "assume_container_exists": True,
            # Parts of one file in memory at a time; by default a hundred.
            "max_concurrency": 4,
        }
        account = account_name or platform_resources(get_settings()).storage_account
        super().__init__(account_name=account, credential=async_credential(), **options)

    def do_connect(self) -> None:
        """Called once by the constructor."""
        self.account_url = account_url(self.account_name)
        self.service_client = BlobServiceClient(self.account_url, self.credential, **blob_options())

    async def _details(self, contents: list[Any], *args: Any, **options: Any) -> list[dict[str, Any]]:
        for item in contents:
            # Other programs mark a folder by an empty blob whose name ends with a slash.
            if item.has_key("size") and item.name.endswith("/"):
                item.metadata = {**(item.metadata or {}), "is_directory": "true"}
        return cast("list[dict[str, Any]]", await super()._details(contents, *args, **options))

    async def _exists(self, path: str, **options: Any) -> bool:
        with azure_errors(f"looking for abfs://{path}"):
            return bool(await super()._exists(path, **options))

    async def _info(self, path: str, **options: Any) -> dict[str, Any]:
        with azure_errors(f"looking at abfs://{path}"):
            return cast("dict[str, Any]", await super()._info(path, **options))

    async def _cat_file(self, path: str, **options: Any) -> bytes:
        with azure_errors(f"reading abfs://{path}"):
            return bytes(await super()._cat_file(path, **options))

    async def _get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        with azure_errors(f"reading abfs://{rpath}"):
            await super()._get_file(rpath, lpath, **options)

    async def _pipe_file(self, path: str, value: bytes, **options: Any) -> None:
        with azure_errors(f"writing abfs://{path}"):
            await super()._pipe_file(path, value, **options)

    async def _put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        container, name, _version = self.split_path(rpath)
        with azure_errors(f"writing abfs://{rpath}"), Path(lpath).open("rb") as file:  # noqa: ASYNC230 - fsspec's own loop
            async with self.service_client.get_blob_client(container, name) as blob:
                await blob.upload_blob(file, overwrite=True, max_concurrency=self.max_concurrency)

    # adlfs binds these to methods of its own.
    pipe_file = sync_wrapper(_pipe_file)
    put_file = sync_wrapper(_put_file)

    async def _find(self, path: str, maxdepth: int | None = None, withdirs: bool = False, **options: Any) -> Any:
        detail = options.pop("detail", False)
        with azure_errors(f"listing abfs://{path}"):
            paths = await super()._find(path, withdirs=withdirs, detail=True, **options)
            if isinstance(paths, list):  # the path is a file
                paths = {name: await self._info(name) for name in paths}
        if maxdepth is not None:
            # adlfs leaves the depth out of account.
            root = str(self._strip_protocol(path)).strip("/")
            paths = {name: info for name, info in paths.items() if name[len(root) :].count("/") <= maxdepth}
        return paths if detail else sorted(paths)


def register() -> None:
    """Let `abfs://` URLs be opened so in this process."""
    for protocol in PROTOCOLS:
        fsspec.register_implementation(protocol, AzureFiles, clobber=True)


# A process that was handed a file system of this class opens further URLs in the same way.
register()
