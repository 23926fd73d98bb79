"""Data versions as data assets of the workspace, also when it throttles, breaks off, refuses or is gone."""

import threading

import pytest

from infra.azure.access.resources import platform_resources
from infra.azure.machine_learning.data_assets import AmlData
from infra.azure.machine_learning.registry import join_tags, ml_client
from infra.errors import AccessDenied, NotProvisioned, ServiceUnavailable
from model.values import DataVersion

pytestmark = pytest.mark.azure
ROOT = "abfs://data@stahcplatform.dfs.core.windows.net"
ENTRY = DataVersion(
    name="food",
    version="0123456789abcdef",
    manifest_uri=f"{ROOT}/data/food/0123456789abcdef/manifest.parquet",
    source_uri=f"{ROOT}/samples/food",
    images=320,
    labels=tuple(f"label number {number}" for number in range(40)),
    counts={},
)
VERSION = r"data/food/versions/0123456789abcdef"


@pytest.fixture
def catalogue(bench, cloud):
    return AmlData(cloud)


@pytest.fixture
def quick(monkeypatch):
    """Waiting takes no time."""
    monkeypatch.setattr("time.sleep", lambda _: None)


def asset(cloud):
    platform = platform_resources(cloud)
    client = ml_client(platform)
    return client.data.get(ENTRY.name, ENTRY.version)


def puts(bench):
    return [call for call in bench.calls(url="/versions/") if call["method"] == "PUT" and call["status"] in (200, 201)]


def test_a_data_version_is_a_folder_under_its_hash_with_what_people_ask_first(catalogue, cloud):
    catalogue.register(ENTRY)
    found = asset(cloud)
    assert found.type == "uri_folder"
    assert found.version == ENTRY.version
    assert found.path.endswith("/data/food/0123456789abcdef/")
    tags = join_tags(found.tags)
    assert tags["images"] == "320"
    assert tags["labels"] == ", ".join(ENTRY.labels)
    assert tags["source"] == ENTRY.source_uri
    assert tags["manifest"] == ENTRY.manifest_uri


def test_the_link_leads_to_the_studio(catalogue):
    link = catalogue.register(ENTRY)
    assert link.startswith("https://ml.azure.com/data/food/0123456789abcdef/details?wsid=/subscriptions/")
    assert link.endswith("/workspaces/mlw-ahc-platform")


def test_listing_again_writes_nothing(bench, catalogue):
    assert catalogue.register(ENTRY) == catalogue.register(ENTRY)
    assert len(puts(bench)) == 1


def test_several_that_list_the_same_at_once_agree(bench, catalogue):
    bench.fault("slow", method="GET", path=VERSION, delay=0.5)
    links = []
    threads = [threading.Thread(target=lambda: links.append(catalogue.register(ENTRY))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(links) == 3
    assert len(set(links)) == 1


def test_throttling_is_waited_out(bench, catalogue, cloud):
    bench.fault("throttle", path=VERSION, times=2)
    catalogue.register(ENTRY)
    assert asset(cloud).version == ENTRY.version


def test_an_answer_that_was_lost_leaves_one_asset(bench, catalogue, cloud):
    bench.fault(method="PUT", path=VERSION, reset="after")
    catalogue.register(ENTRY)
    assert asset(cloud).version == ENTRY.version


def test_a_conflict_is_settled_by_looking(bench, catalogue):
    bench.fault("conflict", method="PUT", path=VERSION, when="after")
    catalogue.register(ENTRY)


def test_an_outage_is_transient(bench, catalogue, quick):
    bench.fault("outage", path=VERSION)
    with pytest.raises(ServiceUnavailable, match="food@0123456789abcdef"):
        catalogue.register(ENTRY)


def test_a_missing_role_is_named(bench, catalogue):
    bench.fault("forbidden", method="PUT", path=VERSION, times=-1)
    with pytest.raises(AccessDenied, match="AuthorizationFailed"):
        catalogue.register(ENTRY)


def test_a_workspace_that_is_gone_is_told_with_what_makes_it(bench, catalogue):
    gone = {"error": {"code": "ResourceNotFound", "message": "The Resource 'mlw-ahc-platform' was not found."}}
    bench.fault(path="workspaces/mlw-ahc-platform", status=404, body=gone, times=-1)
    with pytest.raises(NotProvisioned, match="mlw-ahc-platform"):
        catalogue.register(ENTRY)
