"""Secrets of one environment: its Key Vault."""

import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from infra.azure.access.credentials import credential
from infra.azure.access.errors import azure_errors, if_present
from infra.azure.access.resources import environment_resources
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.leases import exclusive_blob
from infra.config.environments import endpoint_key, load_environment
from infra.errors import AccessDenied
from infra.settings import Settings

if TYPE_CHECKING:
    from azure.keyvault.secrets import SecretClient
    from azure.storage.blob import BlobClient

ROLE: Final = "Key Vault Secrets Officer"


class KeyVaultSecrets:
    """A SecretStore on the Key Vault of an environment."""

    def __init__(self, environment: str, settings: Settings) -> None:
        self._environment = load_environment(environment, settings.environments)
        self._settings = settings

    @property
    def _url(self) -> str:
        return environment_resources(self._environment, self._settings).key_vault_url.rstrip("/")

    @property
    def _client(self) -> "SecretClient":
        return secret_client(self._url)

    def get(self, name: str) -> SecretStr:
        return read_secret(self._url, name)

    def ensure(self, name: str) -> SecretStr:
        with azure_errors(f"making the secret {name} of {self._url} (role {ROLE})"):
            if secret := _read(self._client, name):
                return secret
            # Key Vault keeps each value that is written: of several that come first, one may write.
            with exclusive_blob(self._lock(name)):
                if secret := _read(self._client, name):
                    return secret
                self._recover(name)
                return _read(self._client, name) or _make(self._client, name)

    def put(self, name: str, value: SecretStr) -> None:
        with azure_errors(f"writing the secret {name} of {self._url} (role {ROLE})"):
            self._client.set_secret(name, value.get_secret_value())

    def curl_header(self, environment: str) -> str:
        vault = self._url.removeprefix("https://").partition(".")[0]
        name = endpoint_key(environment)
        read = f"az keyvault secret show --vault-name {vault} --name {name} --query value --output tsv"
        return f'"Authorization: Bearer $({read})"'

    def _lock(self, name: str) -> "BlobClient":
        account = environment_resources(self._environment, self._settings).storage_account
        return blob_service(account).get_blob_client("bundles", f"locks/secrets/{name}")

    def _recover(self, name: str) -> None:
        """Bring back a secret that was deleted and not purged: its name is taken until then."""
        client = self._client
        if if_present(lambda: client.get_deleted_secret(name)):
            client.begin_recover_deleted_secret(name).result()


def read_secret(url: str, name: str) -> SecretStr:
    """The secret of this name in the vault at `url`; raises as `SecretStore.get`."""
    missing = AccessDenied(
        f"The secret `{name}` is not in {url}.",
        next_step="A release makes missing keys, a person brings the certificate; or see the deleted secrets.",
    )
    with azure_errors(f"reading the secret {name} of {url}", missing):
        return SecretStr(secret_client(url.rstrip("/")).get_secret(name).value or "")


def ensure_secret(url: str, name: str) -> SecretStr:
    """The same; a random one is made where it isn't there."""
    client = secret_client(url.rstrip("/"))
    with azure_errors(f"making the secret {name} of {url} (role {ROLE})"):
        return _read(client, name) or _make(client, name)


def _read(client: "SecretClient", name: str) -> SecretStr | None:
    secret = if_present(lambda: client.get_secret(name))
    return SecretStr(secret.value or "") if secret else None


def _make(client: "SecretClient", name: str) -> SecretStr:
    return SecretStr(client.set_secret(name, secrets.token_urlsafe(32)).value or "")


@lru_cache(maxsize=8)
def secret_client(url: str) -> "SecretClient":
    from azure.keyvault.secrets import SecretClient

    return SecretClient(url, credential())
