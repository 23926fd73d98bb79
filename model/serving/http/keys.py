"""Bearer keys, compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable

from pydantic import SecretStr

from model.serving.http.problems import Refusal


class Keys:
    """The valid keys of this process; only their hashes are kept."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        self._hashes: tuple[bytes, ...] = ()
        self.replace(keys)

    def replace(self, keys: Iterable[SecretStr]) -> None:
        """From now on these keys are valid, and no others."""
        hashes = tuple(_hash(key.get_secret_value()) for key in keys if key.get_secret_value())
        if not hashes:
            raise ValueError("at least one key that is not empty is needed")
        self._hashes = hashes

    def check(self, authorization: str | None) -> None:
        """Raises: Refusal, where the header holds no valid key."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _refusal("The request has no header `Authorization: Bearer KEY`.", "")
        digest = _hash(key.strip())
        # Every key is compared, so that the time tells nothing about which one came close.
        if not any([hmac.compare_digest(digest, valid) for valid in self._hashes]):  # noqa: C419
            raise _refusal("The key is not valid here.", ', error="invalid_token"')


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _refusal(detail: str, error: str) -> Refusal:
    return Refusal("wrong-key", detail, headers={"WWW-Authenticate": f'Bearer realm="scoring"{error}'})
