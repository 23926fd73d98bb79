"""What every ModelRegistry adapter promises; parametrised over the adapters."""

import threading
from uuid import uuid4

import pytest

from infra.errors import ModelNotFound
from infra.local.stores.registry import MlflowRegistry

TAGS = {"verdict": "promote"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    # Migrations of a fresh database take seconds, so that the tests of this file share one.
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(params=["local", pytest.param("azure", marks=pytest.mark.azure)])
def connect(request, tmp_path):
    """Makes an adapter to one registry, as each process does."""
    if request.param == "local":
        store = request.getfixturevalue("store")
        return lambda: MlflowRegistry(store, tmp_path / "registry")
    cloud = request.getfixturevalue("cloud")
    from infra.azure.machine_learning.registry import AmlRegistry

    return lambda: AmlRegistry(cloud)


@pytest.fixture
def registry(connect):
    return connect()


@pytest.fixture
def name(request):
    # The registry of a live subscription has the names of earlier tests.
    return f"contract-{uuid4().hex[:12]}"


def bundle(folder, text):
    folder.mkdir()
    (folder / "model.onnx").write_text(text)
    return folder


def register(registry, name, folder, digest):
    return registry.register(folder, name=name, digest=digest, tags=TAGS, metrics={"accuracy": 0.9})


def test_versions_count_up_and_keep_tags_and_metrics(registry, name, tmp_path):
    first = register(registry, name, bundle(tmp_path / "a", "a"), "aa")
    second = register(registry, name, bundle(tmp_path / "b", "b"), "bb")
    assert (first.version, second.version) == (1, 2)
    assert [model.version for model in registry.versions(name)] == [2, 1]
    assert registry.get(name, 1).tags == {"verdict": "promote", "metric.accuracy": "0.9"}
    assert registry.get(name, 2).digest == "bb"


def test_the_same_digest_is_registered_once_also_by_two_at_once(registry, name, tmp_path):
    folder = bundle(tmp_path / "a", "a")
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(register(registry, name, folder, "aa"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [model.version for model in answers] == [1, 1, 1, 1]
    assert len(registry.versions(name)) == 1


def test_a_download_has_the_registered_bytes_even_when_the_original_changed(registry, name, tmp_path):
    folder = bundle(tmp_path / "a", "as registered")
    model = register(registry, name, folder, "aa")
    (folder / "model.onnx").write_text("changed later")
    copy = registry.download(model, tmp_path / "copies")
    assert (copy / "model.onnx").read_text() == "as registered"


def test_an_unknown_version_names_those_there_are(registry, name, tmp_path):
    register(registry, name, bundle(tmp_path / "a", "a"), "aa")
    with pytest.raises(ModelNotFound, match=r"no version 7.*v1"):
        registry.get(name, 7)
    with pytest.raises(ModelNotFound, match="registered versions: none"):
        registry.get("no-such-model", 1)


def test_each_environment_has_a_champion_of_its_own(registry, name, tmp_path):
    first = register(registry, name, bundle(tmp_path / "a", "a"), "aa")
    second = register(registry, name, bundle(tmp_path / "b", "b"), "bb")
    assert registry.champion(name, "test") is None
    registry.set_champion(second, "test")
    registry.set_champion(first, "acceptance")
    assert registry.champion(name, "test").version == 2
    assert registry.champion(name, "acceptance").version == 1


def test_tags_are_added_to_a_version(registry, name, tmp_path):
    model = register(registry, name, bundle(tmp_path / "a", "a"), "aa")
    registry.tag(model, {"released.test": "today"})
    assert registry.get(name, 1).tags["released.test"] == "today"
    assert registry.get(name, 1).tags["verdict"] == "promote"


def test_a_tag_may_hold_a_long_reason(registry, name, tmp_path):
    model = register(registry, name, bundle(tmp_path / "a", "a"), "aa")
    reason = "accuracy fell. " * 100
    registry.tag(model, {"reason": reason})
    registry.tag(model, {"other": "short"})
    assert registry.get(name, 1).tags["reason"] == reason


def test_another_process_sees_the_same_registry(registry, name, tmp_path, connect):
    register(registry, name, bundle(tmp_path / "a", "a"), "aa")
    again = connect()
    assert again.get(name, 1).digest == "aa"
    assert name in again.names()
