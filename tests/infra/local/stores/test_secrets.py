import stat
import threading
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.config.environments import endpoint_key
from infra.errors import AccessDenied
from infra.local.stores.secrets import FileSecrets


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    secrets = FileSecrets(tmp_path / "secrets")
    key = secrets.ensure(endpoint_key("test"))
    assert secrets.ensure("test-endpoint-key-primary").get_secret_value() == key.get_secret_value()
    assert len(key.get_secret_value()) >= 32
    assert stat.S_IMODE((tmp_path / "secrets" / "test-endpoint-key-primary").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_a_key_does_not_show_when_printed(tmp_path):
    key = FileSecrets(tmp_path).ensure("k")
    assert key.get_secret_value() not in f"{key} {key!r}"


def test_two_that_make_the_same_key_at_once_get_the_same(tmp_path):
    secrets, answers = FileSecrets(tmp_path), []
    threads = [
        threading.Thread(target=lambda: answers.append(secrets.ensure("k").get_secret_value())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_missing_key_names_itself_and_where_it_was_looked_for(tmp_path):
    with pytest.raises(AccessDenied, match="`nothing`"):
        FileSecrets(tmp_path).get("nothing")


def test_the_header_is_a_private_file_for_curl_and_follows_a_rotated_key(tmp_path):
    secrets = FileSecrets(tmp_path)
    path = Path(secrets.curl_header("test").removeprefix("@"))
    assert path.read_text() == f"Authorization: Bearer {secrets.get(endpoint_key('test')).get_secret_value()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secrets.put(endpoint_key("test"), SecretStr("rotated"))
    assert secrets.curl_header("test") == f"@{path}"
    assert path.read_text() == "Authorization: Bearer rotated\n"
    assert stat.S_IMODE((tmp_path / endpoint_key("test")).stat().st_mode) == 0o600
