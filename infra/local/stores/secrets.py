"""Secrets of one machine: files that only their owner can read."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

from infra.config.environments import endpoint_key
from infra.errors import AccessDenied


class FileSecrets:
    """A SecretStore of one file a secret, mode 0600, in a folder of mode 0700."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> SecretStr:
        try:
            return SecretStr((self._folder / name).read_text(encoding="utf-8").strip())
        except OSError as error:
            raise AccessDenied(
                f"The secret `{name}` can't be read from {self._folder}: {error.strerror}.",
                next_step="`ahc up` makes missing keys; check who owns the folder.",
            ) from error

    def ensure(self, name: str) -> SecretStr:
        self._create(name, secrets.token_urlsafe(32))
        return self.get(name)

    def put(self, name: str, value: SecretStr) -> None:
        self._write_aside(name, value.get_secret_value()).replace(self._folder / name)

    def curl_header(self, environment: str) -> str:
        """A file with the HTTP header for an environment's key: no key is a process argument."""
        key = self.ensure(endpoint_key(environment)).get_secret_value()
        path = self._folder / f"{environment}.header"
        draft = self._write_aside(path.name, f"Authorization: Bearer {key}\n")
        draft.replace(path)  # the key may have been rotated
        return f"@{path}"

    def _create(self, name: str, text: str) -> None:
        # Written aside and linked: of two processes that come first, one wins, and no reader sees half a key.
        draft = self._write_aside(name, text)
        try:
            os.link(draft, self._folder / name)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    def _write_aside(self, name: str, text: str) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._folder / f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        return draft
