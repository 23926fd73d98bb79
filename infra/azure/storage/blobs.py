"""Clients of the blob service."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from infra.azure.access.clients import RETRIES
from infra.azure.access.credentials import credential

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

PART: Final = 4 * 2**20
"""Bytes of one request; by default the SDK holds 64 MiB of each of several files in memory, which fills a small pod."""


@lru_cache(maxsize=8)
def blob_service(account: str) -> "BlobServiceClient":
    """The blob service of a storage account, by this process's identity."""
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(account_url(account), credential(), **blob_options())


def account_url(account: str) -> str:
    """Where the blob service of an account answers."""
    return f"https://{account}.blob.core.windows.net"


def data_url(account: str, container: str, path: str = "") -> str:
    """The fsspec URL of a container or of a path in it."""
    return f"abfs://{container}@{account}.dfs.core.windows.net/{path}".rstrip("/")


def blob_options() -> dict[str, Any]:
    """Keyword arguments for any client of the blob service, synchronous or not.

    5xx and broken connections are retried up to 4 times within about 9 seconds (the SDK's own first wait is 15 s); the
    task's own retries come after that.
    """
    return {
        "retry_total": RETRIES,
        # Each kind of failure has a limit of its own too, which is lower by default.
        "retry_status": RETRIES,
        "retry_connect": RETRIES,
        "retry_read": RETRIES,
        "initial_backoff": 0.5,
        "increment_base": 1.5,
        "random_jitter_range": 0.5,
        "connection_timeout": 10,
        "read_timeout": 60,
        "max_single_put_size": PART,
        "max_block_size": PART,
        "max_single_get_size": PART,
        "max_chunk_get_size": PART,
    }
