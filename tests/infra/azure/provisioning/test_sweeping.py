"""What the sweep finds and what it leaves alone."""

import pytest

from infra.azure.access.clients import container_client
from infra.azure.provisioning.sweeping import orphans, sweep
from infra.errors import AccessDenied, ServiceUnavailable
from tests.support.azure.bench import SUBSCRIPTION, calls
from tests.support.azure.image_server import ImageServer
from tests.support.azure.small_platform import LOCATION

pytestmark = pytest.mark.azure
LOGIN_SERVER = "crahcplatform.azurecr.io"


@pytest.fixture
def images(bench, cloud):
    with ImageServer() as server:
        bench.admin("backends", {LOGIN_SERVER: server.address})
        server.add("scoring", "stable", name="stable")
        yield server


def group(name: str, image: str, **tags: str) -> None:
    container = {
        "name": "scoring",
        "properties": {"image": image, "resources": {"requests": {"cpu": 1, "memoryInGB": 1}}},
    }
    container_client(SUBSCRIPTION).container_groups.begin_create_or_update(
        "rg-ahc-test",
        name,
        {
            "location": LOCATION,
            "tags": {f"ahc-{key}": value for key, value in tags.items()},
            "properties": {"osType": "Linux", "containers": [container]},
        },
    ).result()


def names(found) -> set[str]:
    return {item.name for item in found}


def test_a_group_that_neither_serves_nor_can_be_rolled_back_to_is_an_orphan(cloud, images):
    for role in ("live", "previous", "switching", "rolling-back", "candidate"):
        group(f"ci-{role}", f"{LOGIN_SERVER}/scoring:stable", role=role)
    group("somebody-elses", "mcr.microsoft.com/hello")
    assert names(orphans(cloud)) == {"ci-candidate"}


def test_an_image_stays_that_runs_is_named_is_young_or_is_a_part_of_one_that_stays(cloud, images):
    running = images.add("scoring", "old-release")
    young = images.add("scoring", days=3)
    part = images.add("scoring", name="part")
    images.add("scoring", "multi", name="multi", parts=(part,), days=1)
    images.add("training", "ancient")
    gone = images.add("scoring", "1.0", "also-1.0")
    group("ci-live", f"{LOGIN_SERVER}/scoring@{running}", role="live")
    found = orphans(cloud)
    assert {item.resource_id for item in found} == {gone}
    sweep(found, cloud)
    assert images.digests("scoring") >= {running, young, part}
    assert gone not in images.digests("scoring")
    assert orphans(cloud) == ()


def test_listing_deletes_nothing_and_sweeping_deletes_what_was_listed(bench, cloud, images):
    images.add("scoring")
    group("ci-candidate", f"{LOGIN_SERVER}/scoring:stable", role="candidate")
    found = orphans(cloud)
    assert {item.kind for item in found} == {"container group", "image"}
    assert not calls(bench, "DELETE")
    sweep(found, cloud)
    assert orphans(cloud) == ()


def test_what_took_traffic_since_it_was_listed_is_left_alone(bench, cloud, images):
    group("ci-green", f"{LOGIN_SERVER}/scoring:stable", role="candidate")
    found = orphans(cloud)
    container_client(SUBSCRIPTION).container_groups.update("rg-ahc-test", "ci-green", {"tags": {"ahc-role": "live"}})
    sweep(found, cloud)
    assert not calls(bench, "DELETE")


@pytest.mark.parametrize(
    ("status", "error"), [(403, AccessDenied), (429, ServiceUnavailable), (500, ServiceUnavailable)]
)
def test_a_registry_that_refuses_is_told_and_nothing_is_deleted(bench, cloud, images, status, error):
    images.refusal = status
    with pytest.raises(error, match=LOGIN_SERVER):
        orphans(cloud)
    assert not calls(bench, "DELETE")
