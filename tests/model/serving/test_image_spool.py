"""The images that a real scoring process keeps of the requests that it samples."""

import hashlib
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from model.serving.observe.image_spool import IMAGE_BYTES, ImageSpool
from tests.model.serving.conftest import serving
from tests.model.serving.test_records import config, lines, score
from tests.support.bundles import colour_image
from tests.support.local_endpoint import eventually


def photo(number: int) -> bytes:
    """An image of its own for each number."""
    return colour_image((number % 256, 30, 40), size=(16, 16 + number // 256))


def name(image: bytes) -> str:
    return hashlib.sha256(image).hexdigest()


def kept(spool, environment="test"):
    folder = spool / "images" / environment
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_the_newest_images_are_kept_under_the_names_that_their_records_say(tmp_path):
    spool = tmp_path / "spool"
    with serving(tmp_path, **config(spool, sample_images=3)) as service, service.client() as client:
        for number in range(5):
            score(client, photo(number))
        score(client, photo(2))  # seen again, so newer than the others
        for number in (5, 6):
            score(client, photo(number))
    newest = [photo(number) for number in (2, 5, 6)]
    assert kept(spool) == {name(image): image for image in newest}
    assert [record["sha256"] for record in lines(spool)][-3:] == [name(image) for image in newest]


def test_by_default_no_image_is_kept_and_what_was_kept_goes_once_that_is_switched_off(tmp_path):
    spool = tmp_path / "spool"
    for limit, expected in ((3, 2), (1, 1), (0, 0)):
        more = {"sample_images": limit} if limit else {}
        with serving(tmp_path / f"with-{limit}", **config(spool, **more)) as service, service.client() as client:
            if limit == 3:
                score(client, photo(1))
                score(client, photo(2))
            if not limit:
                score(client, photo(3))
            eventually(lambda: len(kept(spool)) == expected)  # noqa: B023
        assert len(kept(spool)) == expected
    assert len(lines(spool)) == 3


def test_only_scored_images_within_their_limit_are_kept_also_of_a_batch(tmp_path):
    spool = tmp_path / "spool"
    large = colour_image("red") + b"\0" * IMAGE_BYTES
    with serving(tmp_path, **config(spool, sample_images=9)) as service, service.client() as client:
        score(client, b"no image")
        assert score(client, large).status_code == 200
        files = [("f", ("a.png", photo(1))), ("f", ("b.png", b"no image")), ("f", ("c.png", photo(2)))]
        client.post("/score/batch", files=files)
    assert set(kept(spool)) == {name(photo(1)), name(photo(2))}
    assert len(lines(spool)) == 5


def test_a_client_may_forbid_to_keep_its_image(tmp_path):
    spool = tmp_path / "spool"
    with serving(tmp_path, **config(spool, sample_images=9)) as service, service.client() as client:
        score(client, photo(1), **{"Cache-Control": "max-age=0, No-Store"})
        score(client, photo(2), **{"Cache-Control": "no-cache"})
    assert set(kept(spool)) == {name(photo(2))}
    assert len(lines(spool)) == 2


def test_a_burst_at_two_processes_loses_no_request_and_keeps_no_more_than_the_limit(tmp_path):
    spool = tmp_path / "spool"
    statuses = []

    def clients(service, numbers):
        with service.client() as client:
            statuses.extend(score(client, photo(number)).status_code for number in numbers)

    sampling = config(spool, sample_images=20)
    with serving(tmp_path / "a", **sampling) as one, serving(tmp_path / "b", **sampling) as other:
        threads = [
            threading.Thread(target=clients, args=(service, range(start, 400, 8)))
            for start in range(8)
            for service in (one, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200] * 800
    found = kept(spool)
    assert len(found) == 20
    assert all(name(image) == file for file, image in found.items())


def test_a_disk_that_takes_no_image_costs_no_request_and_no_record(tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "images").write_text("a file where the folder should be")
    with serving(tmp_path, **config(spool, sample_images=3)) as service, service.client() as client:
        assert [score(client, photo(number)).status_code for number in range(4)] == [200] * 4
    assert len(lines(spool)) == 4
    assert service.log.read_text().count("Images of scoring records can't be kept") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="takes a disk that is always full")
def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path, monkeypatch, caplog):
    images = ImageSpool(tmp_path, "test", 3)
    images.keep(photo(1), name(photo(1)))

    def full(descriptor, mode):
        os.close(descriptor)
        return Path("/dev/full").open(mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", full)
        images.keep(photo(2), name(photo(2)))
        images.keep(photo(3), name(photo(3)))
    assert list(kept(tmp_path)) == [name(photo(1))]
    assert [message for message in caplog.messages if "No space left" in message] == caplog.messages
    assert len(caplog.messages) == 1
    images.keep(photo(2), name(photo(2)))
    assert len(kept(tmp_path)) == 2


def test_killed_while_it_writes_it_leaves_whole_images_and_no_draft_for_long(tmp_path):
    spool = tmp_path / "spool"
    image = os.urandom(1000)
    with serving(tmp_path / "a", **config(spool, sample_images=3)) as service, service.client() as client:
        score(client, photo(1))
        eventually(lambda: set(kept(spool)) == {name(photo(1))})
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(10)
    draft = spool / "images" / "test" / ".0123456789abcdef"
    draft.write_bytes(image[:500])
    fresh = draft.with_name(".of-another-process")
    fresh.write_bytes(image)
    os.utime(draft, (time.time() - 120, time.time() - 120))
    with serving(tmp_path / "b", **config(spool, sample_images=3)):
        eventually(lambda: set(kept(spool)) == {name(photo(1)), fresh.name})


def test_the_images_of_other_environments_stay(tmp_path):
    for environment in ("test", "acceptance"):
        for number in range(3):
            ImageSpool(tmp_path, environment, 2).keep(photo(number), name(photo(number)))
    assert [len(kept(tmp_path, environment)) for environment in ("test", "acceptance")] == [2, 2]
    ImageSpool(tmp_path, "test", 0).trim()
    assert [len(kept(tmp_path, environment)) for environment in ("test", "acceptance")] == [0, 2]


def test_nobody_else_on_the_machine_can_look_at_the_images(tmp_path):
    ImageSpool(tmp_path, "test", 2).keep(photo(1), name(photo(1)))
    assert (tmp_path / "images" / "test").stat().st_mode & 0o077 == 0
