"""Secrets of one machine: files that only their owner can read."""

import secrets
from pathlib import Path

from pydantic import SecretStr

from infra.config.environments import endpoint_key
from infra.errors import AccessDenied
from model.files import write_whole


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
        path = self._folder / name
        if not path.exists():
            write_whole(path, secrets.token_urlsafe(32), mode=0o600, replace=False)
        return self.get(name)

    def put(self, name: str, value: SecretStr) -> None:
        write_whole(self._folder / name, value.get_secret_value(), mode=0o600)

    def curl_header(self, environment: str) -> str:
        """A file with the HTTP header for an environment's key: no key is a process argument."""
        key = self.ensure(endpoint_key(environment)).get_secret_value()
        path = self._folder / f"{environment}.header"
        write_whole(path, f"Authorization: Bearer {key}\n", mode=0o600)  # the key may have been rotated
        return f"@{path}"
