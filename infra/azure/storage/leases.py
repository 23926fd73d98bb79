"""One writer at a time, on any machine: a blob lease, which goes with its holder."""

import math
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from infra.azure.access.errors import azure_errors
from infra.azure.access.resources import platform_resources
from infra.azure.storage.blobs import blob_service
from infra.errors import Conflict
from infra.settings import Settings
from infra.waiting import polls

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

LEASE_SECONDS: Final = 15
"""After so long, the lease of a holder that was killed is free."""
HOURS_LEASE_SECONDS: Final = 60
"""Of work that runs for hours: it outlives so long without network."""
LONGEST_PAUSE: Final = 5.0
"""Seconds between two looks at a lease that was held for long."""


@contextmanager
def exclusive_blob(blob: "BlobClient", *, patience: float = 600, lease_seconds: int = LEASE_SECONDS) -> Iterator[None]:
    """Wait for the lease of this blob (made where it is missing), and hold it.

    Args:
        blob: Of no other use.
        patience: Seconds to wait for another holder.
        lease_seconds: 15 to 60; renewed for as long as this process lives.

    Raises:
        Conflict: Another holder kept it for longer than `patience`.
    """
    lease = _acquire(blob, patience, lease_seconds)
    released = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lease, released, lease_seconds / 3), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        released.set()
        renewal.join()
        _release(lease)


@contextmanager
def exclusive_name(name: str, settings: Settings) -> Iterator[None]:
    """Hold a name alone among all machines of the platform; waits for as long as another holds it.

    Whoever lost the lease in a longer time without network meets another holder, so what is made under it has to bear
    that.
    """
    account = platform_resources(settings).storage_account
    blob = blob_service(account).get_blob_client("models", f"locks/{name}")
    with azure_errors(f"holding the lock {name}"):
        stack = ExitStack()
        stack.enter_context(exclusive_blob(blob, patience=math.inf, lease_seconds=HOURS_LEASE_SECONDS))
    with stack:
        yield


def _acquire(blob: "BlobClient", patience: float, seconds: int) -> object:
    from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

    refusal: Exception | None = None
    for _ in polls(patience, pause=0.2, longest_pause=LONGEST_PAUSE):
        try:
            return blob.acquire_lease(seconds)
        except ResourceNotFoundError:
            with suppress(ResourceExistsError):
                blob.upload_blob(b"", overwrite=False)
        except HttpResponseError as error:
            if error.error_code != "LeaseAlreadyPresent":  # type: ignore[attr-defined]
                raise
            refusal = error
    raise Conflict(f"Another writer holds {blob.container_name}/{blob.blob_name}.") from refusal


def _renew(lease: object, released: threading.Event, every: float) -> None:
    from azure.core.exceptions import AzureError

    while not released.wait(every):
        # One failed renewal is made good by the next; the service keeps the lease until then.
        with suppress(AzureError):
            lease.renew()  # type: ignore[attr-defined]


def _release(lease: object) -> None:
    from azure.core.exceptions import AzureError

    # Not released, it runs out by itself.
    with suppress(AzureError):
        lease.release()  # type: ignore[attr-defined]
