"""What every SecretStore adapter promises; parametrised over the adapters."""

import threading
from uuid import uuid4

import pytest
from pydantic import SecretStr

from infra.errors import AccessDenied
from infra.local.stores.secrets import FileSecrets


@pytest.fixture(params=["local", pytest.param("azure", marks=pytest.mark.azure)])
def secrets(request, tmp_path):
    if request.param == "local":
        return FileSecrets(tmp_path / "secrets")
    cloud = request.getfixturevalue("cloud")
    from infra.azure.storage.key_vault import KeyVaultSecrets

    return KeyVaultSecrets("test", cloud)


@pytest.fixture
def name():
    # A live vault keeps the names of earlier tests.
    return f"contract-{uuid4().hex[:12]}"


def test_a_secret_is_made_once_and_is_long(secrets, name):
    made = secrets.ensure(name)
    assert len(made.get_secret_value()) >= 32
    assert secrets.ensure(name) == made
    assert secrets.get(name) == made


def test_a_missing_secret_is_named_but_not_made(secrets, name):
    for _ in range(2):
        with pytest.raises(AccessDenied, match=name):
            secrets.get(name)


def test_a_stored_value_replaces_the_one_before(secrets, name):
    secrets.ensure(name)
    secrets.put(name, SecretStr("new"))
    assert secrets.get(name).get_secret_value() == "new"
    assert secrets.ensure(name).get_secret_value() == "new"


def test_several_that_come_first_agree_on_one_value(secrets, name):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(secrets.ensure(name))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert {answer.get_secret_value() for answer in answers} == {secrets.get(name).get_secret_value()}


def test_the_header_for_curl_shows_no_value(secrets):
    from infra.config.environments import endpoint_key

    value = secrets.ensure(endpoint_key("test")).get_secret_value()
    assert value not in secrets.curl_header("test")
