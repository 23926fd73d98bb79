"""Key Vault when it misbehaves, and what a person did by hand."""

import logging

import pytest
from azure.keyvault.secrets import SecretClient

from infra.azure.access.credentials import credential
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.errors import AccessDenied, ServiceUnavailable

pytestmark = pytest.mark.azure


@pytest.fixture
def secrets(bench, cloud):
    return KeyVaultSecrets("test", cloud)


def test_a_secret_that_was_deleted_by_hand_comes_back_as_it_was(secrets):
    value = secrets.ensure("key")
    with SecretClient("https://kv-ahc-test.vault.azure.net", credential()) as client:
        client.begin_delete_secret("key").wait()
    assert secrets.ensure("key") == value


def test_throttling_is_waited_out(bench, secrets):
    bench.fault("throttle", host="vault.azure.net", times=2)
    assert secrets.ensure("key") == secrets.get("key")


def test_an_outage_is_transient(bench, secrets):
    bench.fault("outage", host="vault.azure.net")
    with pytest.raises(ServiceUnavailable, match="secret key"):
        secrets.ensure("key")


def test_a_missing_role_is_named(bench, secrets):
    bench.fault("forbidden", host="vault.azure.net", method="PUT")
    with pytest.raises(AccessDenied, match="Key Vault Secrets Officer"):
        secrets.ensure("key")


def test_no_value_is_logged(secrets, caplog):
    caplog.set_level(logging.DEBUG)
    value = secrets.ensure("key").get_secret_value()
    assert value not in caplog.text


def test_the_header_for_curl_asks_the_vault(secrets):
    assert "az keyvault secret show --vault-name kv-ahc-test --name test-endpoint-key-primary" in secrets.curl_header(
        "test"
    )
