import stat
import threading

import pytest

from infra.errors import AccessDenied
from infra.local.secrets import FileSecrets, endpoint_key


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


def test_the_header_file_is_what_curl_reads_and_follows_a_rotated_key(tmp_path):
    secrets = FileSecrets(tmp_path)
    path = secrets.header_file("test")
    key = tmp_path / endpoint_key("test")
    assert path.read_text() == f"Authorization: Bearer {key.read_text()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key.write_text("rotated")
    assert secrets.header_file("test").read_text() == "Authorization: Bearer rotated\n"
