"""Data behind `abfs://` URLs: adlfs on Azurite through the bench (aiohttp heeds HTTPS_PROXY and SSL_CERT_FILE)."""

import multiprocessing
import pickle
import threading
import time

import fsspec
import pandas as pd
import pytest

from infra.azure.storage.blobs import blob_service, data_url
from infra.backend import backend
from infra.errors import AccessDenied, NoCredentials, ServiceUnavailable
from model.data.manifest import (
    SplitConfig,
    build_manifest,
    latest_manifest,
    read_manifest,
    source_fingerprint,
    write_manifest,
)
from model.data.sources import list_source, read_bytes
from tasks.framework.error_table import translate_errors
from tests.support.pictures import write_tree

pytestmark = pytest.mark.azure
ACCOUNT = "stahcplatform"
ROOT = f"abfs://data@{ACCOUNT}.dfs.core.windows.net"
HOST = r"blob\.core\.windows\.net"
SPLIT = SplitConfig()


@pytest.fixture
def files(bench, cloud):
    return fsspec.core.url_to_fs(ROOT)[0]


@pytest.fixture
def source(files, tmp_path):
    """Six images of two labels on Azure; answers their URL."""
    write_tree(tmp_path / "photos", {"cat": 3, "dog": 3})
    files.put(f"{tmp_path}/photos/", "data/photos/", recursive=True)
    return f"{ROOT}/photos"


@pytest.fixture
def quick(monkeypatch):
    """Requests that fail are not repeated: how often they would be is the business of other tests."""
    monkeypatch.setattr("infra.azure.storage.filesystem.blob_options", lambda: {"retry_total": 0})


def blob(name, data=b"", **metadata):
    client = blob_service(ACCOUNT).get_blob_client("data", name)
    client.upload_blob(data, metadata=metadata, overwrite=True)


def storage_error(status, code):
    return {
        "status": status,
        "body": f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Words.</Message></Error>",
        "headers": {"x-ms-error-code": code, "content-type": "application/xml"},
    }


def test_what_is_written_is_read_listed_found_and_moved(files, tmp_path):
    files.pipe_file("data/a/one.bin", b"one")
    with files.open("data/a/two.bin", "wb") as file:
        file.write(b"two")
    (tmp_path / "three.bin").write_bytes(b"three")
    files.put_file(str(tmp_path / "three.bin"), "data/a/b/three.bin")
    assert files.cat_file("data/a/one.bin") == b"one"
    with files.open("data/a/two.bin", "rb") as file:
        assert file.read() == b"two"
    files.get_file("data/a/b/three.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == b"three"
    assert sorted(files.ls("data/a", detail=False)) == ["data/a/b", "data/a/one.bin", "data/a/two.bin"]
    assert files.find("data/a", maxdepth=1) == ["data/a/one.bin", "data/a/two.bin"]
    assert files.find("data/a") == ["data/a/b/three.bin", "data/a/one.bin", "data/a/two.bin"]
    files.mv("data/a/one.bin", "data/a/b/four.bin")
    assert files.exists("data/a/b/four.bin")
    assert not files.exists("data/a/one.bin")
    assert not files.exists("data/none")
    with pytest.raises(FileNotFoundError):
        files.cat_file("data/none")


def test_what_another_writes_is_seen_at_once(files):
    assert files.find("data/late") == []
    blob("late/new.txt", b"x")
    assert files.find("data/late") == ["data/late/new.txt"]


def test_a_url_without_an_account_is_of_the_platform(files, cloud, monkeypatch):
    monkeypatch.setattr("infra.azure.storage.filesystem.get_settings", lambda: cloud)
    blob("here.txt", b"here")
    short, path = fsspec.core.url_to_fs("abfs://data/here.txt")
    assert short.cat_file(path) == b"here"
    assert short.account_name == ACCOUNT


def test_a_manifest_of_a_source_on_azure_is_that_of_the_same_files_on_disk(source, cloud, tmp_path):
    remote = build_manifest(source, split=SPLIT)
    local = build_manifest(str(tmp_path / "photos"), split=SPLIT)
    pd.testing.assert_frame_equal(remote, local)
    root = f"{backend(cloud).data_root()}/data"
    assert latest_manifest(root, "photos") is None
    data = write_manifest(remote, root=root, name="photos", source_uri=source)
    assert data.manifest_uri == f"{data_url(ACCOUNT, 'data')}/data/photos/{data.version}/manifest.parquet"
    pd.testing.assert_frame_equal(read_manifest(data.manifest_uri), remote)
    assert latest_manifest(root, "photos") == data.manifest_uri


def test_the_latest_manifest_is_the_one_that_was_stored_last(source, cloud, files):
    root = f"{backend(cloud).data_root()}/data"
    first = build_manifest(source, split=SPLIT)
    write_manifest(first, root=root, name="photos", source_uri=source)
    files.rm_file("data/photos/cat/000.jpg")
    time.sleep(1.1)  # blobs know when they were written to the second
    second = write_manifest(build_manifest(source, split=SPLIT), root=root, name="photos", source_uri=source)
    assert latest_manifest(root, "photos") == second.manifest_uri


def test_the_fingerprint_changes_with_a_file(source):
    before = source_fingerprint(source)
    assert source_fingerprint(source) == before
    blob("photos/cat/999.jpg", b"new")
    assert source_fingerprint(source) != before


def test_marks_of_folders_are_no_files(source):
    # A hierarchical namespace lists folders so; Storage Explorer and others make blobs with a slash at the end.
    blob("photos/cat", hdi_isfolder="true")
    blob("photos", hdi_isfolder="true")
    blob("photos/dog/")
    blob("photos/bird/")
    blob("photos/fish", hdi_isfolder="true")
    listing = list_source(source)
    assert [image.path for image in listing.images] == [
        f"{label}/00{n}.jpg" for label in ("cat", "dog") for n in (0, 1, 2)
    ]
    assert listing.overlooked == ["bird/", "fish/"]


def test_what_lies_deeper_is_told_by_its_folder_as_on_disk(source):
    blob("photos/more/deep/000.jpg", b"x")
    assert list_source(source).overlooked == ["more/", "more/deep/"]


def test_several_writers_of_one_manifest_leave_it_whole(source, cloud, bench):
    frame = build_manifest(source, split=SPLIT)
    root = f"{backend(cloud).data_root()}/data"
    bench.fault("slow", host=HOST, method="HEAD", path="manifest.parquet", delay=0.5)
    written = []

    def write():
        written.append(write_manifest(frame, root=root, name="photos", source_uri=source))

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(written) == 3
    assert len({data.manifest_uri for data in written}) == 1
    pd.testing.assert_frame_equal(read_manifest(written[0].manifest_uri), frame)
    puts = [call["status"] for call in bench.calls(url="manifest.parquet") if call["method"] == "PUT"]
    assert puts.count(201) == 1


def _read_in_another_process(pickled, source, answers):
    pickle.loads(pickled)
    answers.put(len(read_bytes(source, "cat/000.jpg")))


def test_a_file_system_that_is_handed_to_another_process_opens_urls_there(files, source):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    reader = context.Process(target=_read_in_another_process, args=(pickle.dumps(files), source, answers))
    reader.start()
    assert answers.get(timeout=120) == len(read_bytes(source, "cat/000.jpg"))
    reader.join()


# --- faults -------------------------------------------------------------------------------------------------------


def read_everything(source):
    with translate_errors():
        return build_manifest(source, split=SPLIT)


@pytest.mark.parametrize("rule", [{"status": 503}, {"reset": True}, {"preset": "slow", "delay": 0.3, "times": 3}])
def test_a_store_that_falters_is_asked_again(bench, source, rule):
    bench.fault(host=HOST, method="GET", **{"times": 2, **rule})
    assert read_everything(source)["error"].isna().all()


@pytest.mark.parametrize("path", ["^/data$", "photos/dog/001"])
@pytest.mark.parametrize("rule", [{"status": 503}, {"reset": True}, storage_error(429, "TooManyRequests")])
def test_a_source_whose_store_is_down_is_transient(bench, quick, files, source, path, rule):
    type(files).clear_instance_cache()
    bench.fault(host=HOST, method="GET", path=path, times=-1, **rule)
    from model.data.sources import _filesystem

    _filesystem.cache_clear()
    with pytest.raises(ServiceUnavailable):
        read_everything(source)


def test_a_store_that_refuses_is_told_with_the_role(bench, source):
    bench.fault(host=HOST, times=-1, **storage_error(403, "AuthorizationPermissionMismatch"))
    with pytest.raises(AccessDenied) as caught:
        read_everything(source)
    assert "Storage Blob Data" in caught.value.next_step


def test_a_store_that_does_not_know_this_identity_is_told_so(bench, source):
    bench.fault(host=HOST, times=-1, **storage_error(401, "InvalidAuthenticationInfo"))
    with pytest.raises(NoCredentials):
        read_everything(source)


def test_a_manifest_whose_store_is_down_is_transient(bench, source, cloud):
    uri = write_manifest(
        build_manifest(source, split=SPLIT), root=f"{backend(cloud).data_root()}/data", name="photos", source_uri=source
    ).manifest_uri
    bench.fault(host=HOST, times=-1, **storage_error(403, "AuthorizationPermissionMismatch"))
    with pytest.raises(AccessDenied), translate_errors():
        read_manifest(uri)


def test_a_manifest_that_could_not_be_written_is_not_seen(bench, source, cloud):
    root, frame = f"{backend(cloud).data_root()}/data", build_manifest(source, split=SPLIT)
    bench.fault(host=HOST, method="PUT", times=-1, **storage_error(403, "AuthorizationPermissionMismatch"))
    with pytest.raises(AccessDenied):
        write_manifest(frame, root=root, name="photos", source_uri=source)
    bench.clear_faults()
    assert latest_manifest(root, "photos") is None
    bench.fault(host=HOST, method="PUT", reset="after")
    data = write_manifest(frame, root=root, name="photos", source_uri=source)
    assert latest_manifest(root, "photos") == data.manifest_uri
