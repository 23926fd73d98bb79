"""Fetches what a scoring container needs: the bundle, the keys of the endpoint, a certificate."""

import asyncio
import errno
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from pydantic import SecretStr

from infra.azure.endpoint.container_settings import ContainerConfig
from infra.azure.inside_container.secrets import read_certificate, read_keys, write_certificate
from infra.azure.storage.folders import BlobFolders
from infra.errors import DiskFull, NoCredentials, PlatformError

T = TypeVar("T")

START_SECONDS: Final = 240.0
"""So long a fault that may pass is waited out; then the container ends, and its platform starts it again."""
IDENTITY_SECONDS: Final = 60.0
"""The address of a container's identity answers some seconds after the container has started."""
LONGEST_WAIT: Final = 15.0

log = logging.getLogger("container")


def sign_in_as(identity_client_id: str) -> None:
    """Let this process sign in with the container's user-assigned identity, unless its variables offer another way."""
    os.environ.setdefault("AZURE_CLIENT_ID", identity_client_id)
    # Container Instances with Linux answer at the address of a virtual machine's identity and announce it nowhere.
    os.environ.setdefault("AHC_AZURE_MACHINE_IDENTITY", "true")


class Provisions(NamedTuple):
    """Bundle, keys and certificate of a scoring process."""

    bundle: Path
    """A copy on this container's disk."""
    keys: tuple[SecretStr, ...]
    certificate: SecretStr | None
    """The text of the certificate's file; None for plain HTTP."""


async def prepare(config: ContainerConfig, certificate: Path) -> Provisions:
    """Fetch it all.

    Args:
        config: What the container was told.
        certificate: Where the certificate goes, if there is one.

    Raises:
        PlatformError: As `read_keys` and `BlobFolders.fetch`; one that may pass, once it has lasted for START_SECONDS.
    """
    # One after the other: two threads that both are first to import the SDK can wait for each other for good.
    keys = await _patiently(f"reading the keys in {config.key_vault_url}", lambda: read_keys(config))
    pem = None
    if config.certificate:
        reading = f"reading the secret {config.certificate}"
        pem = await _patiently(reading, lambda: _put_certificate(config, certificate))
    # In a container the number is always the same: what a run before this one left there goes.
    cache = Path(tempfile.gettempdir(), f"bundle-{os.getpid()}")
    shutil.rmtree(cache, ignore_errors=True)
    folders = BlobFolders("", "", cache)  # it fetches from any account
    bundle = await _patiently(f"fetching {config.bundle_url}", lambda: folders.fetch(config.bundle_url))
    return Provisions(bundle, keys, pem)


def _put_certificate(config: ContainerConfig, path: Path) -> SecretStr:
    pem = read_certificate(config)
    write_certificate(path, pem)
    return pem


async def _patiently(doing: str, do: Callable[[], T]) -> T:
    start, longest = time.monotonic(), 1.0
    while True:
        wait = random.uniform(longest / 2, longest)  # noqa: S311
        longest = min(2 * longest, LONGEST_WAIT)
        try:
            with _full_disk():
                return await asyncio.to_thread(do)
        except PlatformError as error:
            if time.monotonic() - start + wait > _patience(error):
                raise
            fields = {"error": type(error).__name__, "wait_seconds": round(wait, 1)}
            log.warning("Trying again while %s: %s", doing, error, extra={"fields": fields})
        await asyncio.sleep(wait)


def _patience(error: PlatformError) -> float:
    if isinstance(error, NoCredentials):
        return IDENTITY_SECONDS
    return START_SECONDS if error.transient else 0.0


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull(
            f"No space left while writing {error.filename or 'its files'}.",
            next_step="Give the container a larger writable /tmp.",
        ) from error
