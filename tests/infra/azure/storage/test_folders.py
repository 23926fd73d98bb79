"""Folders in blob storage when publishers are killed or meet, and when the store misbehaves."""

import os
import signal
import subprocess
import sys
import threading
import tracemalloc

import pytest

from infra.azure.storage.blobs import PART, blob_service
from infra.azure.storage.folders import INDEX, BlobFolders
from infra.errors import AccessDenied, ConfigurationError, ModelNotFound, ServiceUnavailable

pytestmark = pytest.mark.azure
ACCOUNT = "stahcplatform"
HOST = r"blob\.core\.windows\.net"


@pytest.fixture
def store(bench, cloud, tmp_path):
    return BlobFolders(ACCOUNT, "models", tmp_path / "cache")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    for number in range(12):
        (made / f"{number}.txt").write_text(str(number))
    return made


@pytest.fixture
def patient(monkeypatch):
    """Waiting takes no time."""
    monkeypatch.setattr("time.sleep", lambda _: None)


def stored(name):
    client = blob_service(ACCOUNT).get_container_client("models")
    return sorted(blob.name for blob in client.list_blobs(name_starts_with=f"{name}/"))


def test_a_publisher_that_is_killed_leaves_nothing_that_is_seen_and_the_next_one_clears_up(bench, store, folder):
    bench.fault(host=HOST, method="PUT", path="/7.txt", delay=60)
    publish = (
        "import sys; from pathlib import Path; from infra.azure.storage.folders import BlobFolders\n"
        "BlobFolders(sys.argv[1], 'models', Path(sys.argv[2])).publish(Path(sys.argv[2]), 'x')"
    )
    killed = subprocess.Popen([sys.executable, "-c", publish, ACCOUNT, str(folder)])
    while len(stored("x")) < 3:
        assert killed.poll() is None
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    bench.clear_faults()
    with pytest.raises(ModelNotFound):
        store.fetch(f"https://{ACCOUNT}.blob.core.windows.net/models/x")
    fetched = store.fetch(store.publish(folder, "x"))
    assert sorted(path.name for path in fetched.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert len(stored("x")) == 12 + 1


def test_of_two_different_folders_of_one_name_the_first_stays_unmixed(store, folder, tmp_path):
    url = store.publish(folder, "x")
    before = stored("x")
    (folder / "3.txt").write_text("three")
    other = BlobFolders(ACCOUNT, "models", tmp_path / "other")
    assert other.publish(folder, "x") == url
    assert stored("x") == before
    assert (other.fetch(url) / "3.txt").read_text() == "3"


def test_a_publisher_that_comes_second_while_the_first_still_uploads_removes_its_own(bench, store, folder, tmp_path):
    # The first hears of its index only after the second has made its own.
    bench.fault(host=HOST, method="PUT", path=INDEX, delay=2)
    other = BlobFolders(ACCOUNT, "models", tmp_path / "other")
    threads = [threading.Thread(target=item.publish, args=(folder, "x")) for item in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    uploads = {call["url"].split("/")[-2] for call in bench.calls(url="/0.txt")}
    assert len(uploads) == 2
    assert len(stored("x")) == 13


def test_big_files_are_never_whole_in_memory(store, tmp_path):
    made = tmp_path / "big"
    made.mkdir()
    size = 24 * PART
    with (made / "weights.bin").open("wb") as file:
        file.truncate(size)
    tracemalloc.start()
    try:
        fetched = store.fetch(store.publish(made, "big"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (fetched / "weights.bin").stat().st_size == size
    assert peak < size / 2, f"{peak / 2**20:.0f} MiB"


def test_other_bytes_than_were_published_are_not_handed_over(store, folder):
    url = store.publish(folder, "x")
    blob = next(name for name in stored("x") if name.endswith("/3.txt"))
    blob_service(ACCOUNT).get_blob_client("models", blob).upload_blob(b"X", overwrite=True)
    with pytest.raises(ServiceUnavailable, match=r"3\.txt"):
        store.fetch(url)
    assert not list((store._cache / ACCOUNT / "models").iterdir())


def test_a_folder_of_which_a_part_was_deleted_is_named(store, folder):
    url = store.publish(folder, "x")
    blob = next(name for name in stored("x") if name.endswith("/3.txt"))
    blob_service(ACCOUNT).get_blob_client("models", blob).delete_blob()
    with pytest.raises(ModelNotFound, match="deleted"):
        store.fetch(url)


def test_an_index_that_names_files_elsewhere_is_refused(store, tmp_path):
    blob_service(ACCOUNT).get_blob_client("models", f"evil/{INDEX}").upload_blob(
        b'{"attempt": "a", "digests": {"../../../../escaped": "00"}}'
    )
    with pytest.raises(ConfigurationError, match="escaped"):
        store.fetch(f"https://{ACCOUNT}.blob.core.windows.net/models/evil")
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("url", ["/tmp/x", "https://example.org/a/b", "https://a.blob.core.windows.net/models"])
def test_what_is_no_folder_in_blob_storage_is_refused(store, url):
    with pytest.raises(ConfigurationError, match="no folder in blob storage"):
        store.fetch(url)


@pytest.mark.parametrize("rule", [{"status": 503}, {"reset": True}, {"reset": "after"}, {"status": 500}])
def test_a_store_that_falters_is_asked_again(bench, store, folder, patient, rule):
    bench.fault(host=HOST, method="PUT", times=3, **rule)
    url = store.publish(folder, "x")
    bench.fault(host=HOST, method="GET", times=2, **rule)
    assert len(list(store.fetch(url).iterdir())) == 12
    assert len(stored("x")) == 13


def test_an_outage_is_transient_and_what_was_uploaded_is_not_seen(bench, store, folder, patient):
    bench.fault("outage", host=HOST, method="PUT", path=INDEX)
    with pytest.raises(ServiceUnavailable, match="publishing"):
        store.publish(folder, "x")
    bench.clear_faults()
    assert len(list(store.fetch(store.publish(folder, "x")).iterdir())) == 12
    assert len(stored("x")) == 13


def test_a_missing_role_is_named(bench, store, folder):
    body = "<?xml version='1.0'?><Error><Code>AuthorizationPermissionMismatch</Code><Message>No.</Message></Error>"
    headers = {"x-ms-error-code": "AuthorizationPermissionMismatch", "content-type": "application/xml"}
    bench.fault(host=HOST, method="PUT", status=403, body=body, headers=headers, times=-1)
    with pytest.raises(AccessDenied) as caught:
        store.publish(folder, "x")
    assert "Storage Blob Data Contributor" in caught.value.next_step


def test_slow_answers_are_waited_for(bench, store, folder):
    bench.fault("slow", host=HOST, path=INDEX, delay=1)
    assert store.fetch(store.publish(folder, "x")).is_dir()
