"""Clients of the blob service."""

from functools import lru_cache
from typing import TYPE_CHECKING

from infra.azure.credentials import credential

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient


@lru_cache(maxsize=8)
def blob_service(account: str) -> "BlobServiceClient":
    """The blob service of a storage account, by this process's identity."""
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(f"https://{account}.blob.core.windows.net", credential())
