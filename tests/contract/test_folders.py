"""What every FolderStore adapter promises; parametrised over the adapters."""

import threading
from uuid import uuid4

import pytest

from infra.errors import ModelNotFound
from infra.local.stores.folders import LocalFolders


@pytest.fixture(params=["local", pytest.param("azure", marks=pytest.mark.azure)])
def store(request):
    """Makes a store as each of several machines has it: what was fetched on one is not on the other."""
    if request.param == "local":
        return LocalFolders
    cloud = request.getfixturevalue("cloud")
    from infra.azure.access.resources import platform_resources
    from infra.azure.storage.folders import BlobFolders

    account = platform_resources(cloud).storage_account
    return lambda: BlobFolders(account, "models", cloud.home / uuid4().hex, prefix="folders/")


@pytest.fixture
def name():
    # A live account keeps the folders of earlier tests.
    return f"contract/{uuid4().hex[:12]}"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "made"
    (made / "golden").mkdir(parents=True)
    (made / "weights.bin").write_bytes(bytes(range(256)) * 100)
    (made / "golden" / "bild mit ü+%.txt").write_text("one", encoding="utf-8")
    (made / "empty").write_bytes(b"")
    return made


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_published_is_fetched_on_another_machine_byte_by_byte(store, folder, name):
    url = store().publish(folder, name)
    assert content(store().fetch(url)) == content(folder)


def test_fetching_twice_answers_the_same_folder(store, folder, name):
    machine = store()
    url = machine.publish(folder, name)
    assert machine.fetch(url) == machine.fetch(url)


def test_publishing_again_answers_the_same_url(store, folder, name):
    assert store().publish(folder, name) == store().publish(folder, name)


def test_named_files_are_enough(store, folder, name):
    url = store().publish(folder, name, files=("weights.bin",))
    assert (store().fetch(url) / "weights.bin").read_bytes() == (folder / "weights.bin").read_bytes()


@pytest.mark.parametrize("files", [(), ("none.bin",)])
def test_what_is_not_there_is_not_published(store, folder, name, files):
    with pytest.raises(ModelNotFound):
        store().publish(folder if files else folder / "none", name, files=files)


def test_what_was_never_published_is_named(store, folder, name):
    url = store().publish(folder, name)
    with pytest.raises(ModelNotFound, match="none"):
        store().fetch(f"{url}-none")


def test_several_that_publish_the_same_at_once_leave_one_whole_folder(store, folder, name):
    urls = []
    threads = [threading.Thread(target=lambda: urls.append(store().publish(folder, name))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(urls) == 4
    assert len(set(urls)) == 1
    assert content(store().fetch(urls[0])) == content(folder)


def test_several_that_fetch_at_once_get_the_whole_folder(store, folder, name):
    url = store().publish(folder, name)
    machine, seen = store(), []
    threads = [threading.Thread(target=lambda: seen.append(content(machine.fetch(url)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [content(folder)] * 4
