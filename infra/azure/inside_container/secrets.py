"""The keys and the certificate of a scoring container: read in the vault at its start, and again while it serves."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import SecretStr

from infra.azure.endpoint.container_settings import ContainerConfig
from infra.azure.storage.key_vault import read_secret
from infra.config.environments import endpoint_key
from infra.errors import PlatformError
from model.files import write_whole

T = TypeVar("T")

LOOK_SECONDS: Final = 30.0
"""How often the vault is asked for something new."""

log = logging.getLogger("container")


def read_keys(config: ContainerConfig) -> tuple[SecretStr, ...]:
    """Primary and secondary key of the endpoint.

    Raises:
        AccessDenied: One is missing or not readable.
        PlatformError: The vault can't be asked.
    """
    # A rotation writes the secondary first. Read in the other order, a key that is valid could be missed.
    primary = read_secret(config.key_vault_url, endpoint_key(config.environment))
    return primary, read_secret(config.key_vault_url, endpoint_key(config.environment, "secondary"))


def read_certificate(config: ContainerConfig) -> SecretStr:
    """PEM text of certificate, chain and key; raises as `read_keys`."""
    return read_secret(config.key_vault_url, config.certificate)


def write_certificate(path: Path, pem: SecretStr) -> None:
    """Readable for this user only."""
    write_whole(path, pem.get_secret_value(), mode=0o600)


@dataclass
class VaultValue(Generic[T]):
    """A value of the vault that is in use, and replaced once the vault has another one."""

    name: str
    """For the log, such as `keys`."""
    read: Callable[[], T]
    value: T
    """The one in use."""
    use: Callable[[T], None]
    _out_of_reach: bool = False

    async def look(self) -> None:
        """Ask the vault; while it doesn't answer, the value in use stays."""
        try:
            value = await asyncio.to_thread(self.read)
            if value != self.value:
                self.use(value)
                log.info("New %s from the vault.", self.name)
        except (PlatformError, OSError) as error:
            if not self._out_of_reach:
                log.warning("The %s can't be read anew, what is in use stays valid: %s", self.name, error)
            self._out_of_reach = True
            return
        if self._out_of_reach:
            log.info("The %s can be read again.", self.name)
        self._out_of_reach = False
        self.value = value


async def follow(values: Sequence[VaultValue[Any]], now: asyncio.Event) -> None:
    """Look for new values every LOOK_SECONDS, and whenever `now` is set."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(now.wait(), LOOK_SECONDS)
        now.clear()
        for value in values:
            await value.look()
