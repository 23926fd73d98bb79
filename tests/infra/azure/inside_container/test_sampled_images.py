"""Images of sampled requests from a container's spool to the records store and back, on the bench and Azurite."""

import hashlib
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from infra.azure.inside_container.ship_records import keep_newest, ship_images, ship_records
from infra.azure.storage.blobs import blob_service
from infra.backend import release_target
from infra.releases.sampled_images import newest_images, read_image
from model.serving.observe.image_spool import ImageSpool
from tasks.release.shadow import _fetch
from tasks.release.targets import environment_file
from tests.conftest import free_ports
from tests.infra.azure.inside_container.test_ship_records import BLOBS, URL, arrived, leave, quick, spool, working_on
from tests.support.azure.scoring_containers import key, program, published
from tests.support.bundles import colour_image
from tests.support.local_endpoint import eventually

__all__ = ["quick", "spool"]
pytestmark = pytest.mark.azure


def photo(number):
    return colour_image((10 * number, 30, 40))


def name(number):
    return hashlib.sha256(photo(number)).hexdigest()


def keep(spool, *numbers, environment="test"):
    for number in numbers:
        ImageSpool(spool, environment, 100).keep(photo(number), name(number))


def container():
    return blob_service("stahctest").get_container_client("records")


def in_store(environment="test"):
    prefix = f"incoming/images/{environment}/"
    return {item.removeprefix(prefix) for item in arrived() if item.startswith(prefix)}


def waiting(spool):
    return [path for path in spool.rglob("*") if path.is_file()]


def ship(spool, images):
    """What a container's last upload does."""
    ended = threading.Event()
    ended.set()
    ship_records(spool, URL, "test", images=images, stopped=ended)


def test_images_are_uploaded_under_their_names_and_read_back_newest_first(bench, cloud, spool):
    for number in (3, 1, 2):
        keep(spool, number)
        assert ship_images(spool, container()) == 1
        eventually(lambda: _second() > _second_of(name(number)))  # noqa: B023 - blobs know their time to the second
    assert not waiting(spool)
    store = release_target("test", cloud).records_store()
    newest = newest_images(store, "test", 2)
    assert [url.rpartition("/")[2] for url in newest] == [name(2), name(1)]
    assert [read_image(url) for url in newest] == [photo(2), photo(1)]
    assert newest_images(store, "acceptance", 2) == []


def test_a_shadow_fetches_them_several_at_a_time(bench, cloud, spool):
    keep(spool, *range(20))
    ship_images(spool, container())
    with working_on(cloud):
        fetched = _fetch(environment_file("test"), 15)
    assert len(fetched) == 15
    assert set(fetched.values()) <= {photo(number) for number in range(20)}


def test_no_more_than_the_limit_stay_in_the_store_and_those_of_others_are_left_alone(bench, cloud, spool):
    keep(spool, 0, 1, 2, environment="acceptance")
    keep(spool, 3, 4)
    ship(spool, 2)
    keep(spool, 5, 6, 7)
    ship(spool, 2)
    assert len(in_store()) == 2
    assert len(in_store("acceptance")) == 3
    ship(spool, 0)
    assert in_store() == set()
    assert len(in_store("acceptance")) == 3


def test_two_containers_that_remove_the_same_images_do_so_once(bench, cloud, spool):
    keep(spool, *range(12))
    ship_images(spool, container())
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: keep_newest(container(), "test", 3), range(3)))
    assert len(in_store()) == 3


def test_an_outage_loses_no_image_and_the_limit_holds_afterwards(bench, cloud, spool, quick):
    keep(spool, 1, 2, 3)
    bench.fault("outage", host=BLOBS)
    stopped = threading.Event()
    arguments = {"images": 2, "stopped": stopped, "every": 0.05}
    thread = threading.Thread(target=ship_records, args=(spool, URL, "test"), kwargs=arguments)
    thread.start()
    try:
        eventually(lambda: len(bench.calls(host="stahctest", status=503)) >= 3)
        assert len(waiting(spool)) == 3
        bench.clear_faults()
        eventually(lambda: len(in_store()) == 2 and not waiting(spool))
        keep(spool, 4, 5)
        eventually(lambda: len(in_store()) == 2 and not waiting(spool))
    finally:
        stopped.set()
        thread.join(10)


def test_an_image_that_is_damaged_or_gone_is_not_read(bench, cloud, spool):
    keep(spool, 1, 2)
    ship_images(spool, container())
    first, second = newest_images(release_target("test", cloud).records_store(), "test", 5)
    container().upload_blob(f"incoming/images/test/{first.rpartition('/')[2]}", b"half", overwrite=True)
    container().delete_blob(f"incoming/images/test/{second.rpartition('/')[2]}")
    assert (read_image(first), read_image(second)) == (None, None)


def test_collecting_the_records_leaves_the_images_where_they_are(bench, cloud, spool, prefect_server):
    leave(spool, "test.1.jsonl", 1)
    keep(spool, 1)
    ship(spool, 5)
    with working_on(cloud) as collect:
        assert collect() == 1
    assert in_store() == {name(1)}


def test_the_images_of_a_containers_requests_are_in_the_store_when_it_has_ended(bench, cloud, tmp_path):
    sampling = {"sample_rate": 1.0, "sample_images": 2, "records_url": URL, "port": free_ports(1)[0]}
    config = published(cloud, tmp_path / "bundle").model_copy(update=sampling)
    with program(config, tmp_path / "run") as running:
        running.ready()
        with running.client(key(cloud)) as client:
            for number in range(4):
                client.post("/score", content=photo(number), headers={"Content-Type": "image/png"})
        running.signal(signal.SIGTERM)
        assert running.exit_code(15) == 0
    assert in_store() == {name(2), name(3)}
    assert len([item for item in arrived() if item.endswith(".jsonl")]) == 1


def _second():
    return datetime.now(UTC).replace(microsecond=0)


def _second_of(image):
    return container().get_blob_client(f"incoming/images/test/{image}").get_blob_properties().last_modified
