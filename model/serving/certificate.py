"""The certificate of an HTTPS endpoint; a renewed file is loaded without a restart."""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from model.errors import InvalidConfig

LOOK_SECONDS: Final = 5.0

log = logging.getLogger("serving")


class Certificate:
    """A PEM file with certificate, chain and private key, and the TLS context that shows it.

    Raises:
        InvalidConfig: The file can't be read, or holds no certificate with its key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self._current_stamp = self._stamp()
            _load(path, self.context)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidConfig(
                f"The certificate {path} can't be used: {error.strerror or error}.",
                next_step="Give a PEM file of the certificate, its chain and its private key, without a password.",
            ) from error

    async def follow(self) -> None:
        """Show a renewed certificate in every new connection; one that can't be used is reported and passed over."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                stamp = self._stamp()
                if stamp == self._current_stamp:
                    continue
                self._current_stamp = stamp
                # A context of its own first: one that fails half way would show a certificate without its key.
                _load(self._path, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
                _load(self._path, self.context)
            except OSError as error:
                log.warning("The renewed certificate can't be used, the one of before is kept: %s", error)
            else:
                log.info("The certificate was renewed.")

    def _stamp(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino


def _load(path: Path, context: ssl.SSLContext) -> None:
    # A password makes OpenSSL refuse a locked key instead of asking the terminal for one.
    context.load_cert_chain(path, password="")
