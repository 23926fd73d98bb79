"""Sampled scoring records of a real scoring process."""

import hashlib
import json
import signal
import time

from model.serving.observe import records as module
from model.serving.observe.records import Records
from tests.model.serving.conftest import PRIMARY, serving
from tests.support.bundles import colour_image
from tests.support.local_endpoint import eventually

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def score(client, image=None, **headers):
    content = colour_image("red") if image is None else image
    return client.post("/score", content=content, headers={"Content-Type": "image/png", **headers})


def lines(spool):
    return [json.loads(line) for path in sorted(spool.glob("*.jsonl")) for line in path.read_text().splitlines()]


def config(spool, **more):
    return {"spool": str(spool), "sample_rate": 1, "environment": "test", "correlation_id": "build-17", **more}


def test_a_record_says_what_was_answered_and_never_holds_image_or_key(tmp_path):
    spool = tmp_path / "spool"
    image = colour_image("red")
    with serving(tmp_path, **config(spool)) as service, service.client() as client:
        answer = score(client, image, traceparent=f"00-{TRACE}-00f067aa0ba902b7-01").json()
    [record] = lines(spool)
    assert record.pop("time").endswith("+00:00")
    assert record.pop("latency_ms") > 0
    assert record == {
        "environment": "test",
        "correlation_id": "build-17",
        "model": "colours",
        "version": 7,
        "digest": service.bundle.digest,
        "request_id": answer["request_id"],
        "image": 0,
        "trace_id": TRACE,
        "status": 200,
        "problem": None,
        "label": "red",
        "probability": answer["predictions"][0]["probability"],
        "predictions": answer["predictions"],
        "sha256": hashlib.sha256(image).hexdigest(),
        "bytes": len(image),
        "format": "png",
        "width": 48,
        "height": 40,
    }
    [segment] = spool.iterdir()
    assert PRIMARY not in segment.read_text()


def test_an_image_that_is_refused_is_recorded_with_its_problem_also_in_a_batch(tmp_path):
    spool = tmp_path / "spool"
    with serving(tmp_path, **config(spool)) as service, service.client() as client:
        score(client, b"no image")
        files = [("f", ("a.png", colour_image("blue"))), ("f", ("b.png", b"no image"))]
        client.post("/score/batch", files=files)
        score(client, Authorization="Bearer wrong")
    single, first, second = lines(spool)
    assert (single["status"], single["problem"], single["label"]) == (422, "broken-image", None)
    assert (first["label"], first["problem"], first["image"]) == ("blue", None, 0)
    assert (second["label"], second["problem"], second["image"]) == (None, "broken-image", 1)
    assert first["request_id"] == second["request_id"]


def test_only_the_configured_share_is_recorded(tmp_path):
    kept = _records(tmp_path / "half", rate=0.5)
    assert 400 < sum(kept.sampled() for _ in range(1000)) < 600
    kept.close()
    with serving(tmp_path, **config(tmp_path / "none", sample_rate=0)) as service, service.client() as client:
        score(client)
    assert not (tmp_path / "none").exists()


def test_a_segment_is_finished_after_its_time(tmp_path):
    spool = tmp_path / "spool"
    with serving(tmp_path, **config(spool, segment_seconds=0.3)) as service, service.client() as client:
        score(client)
        eventually(lambda: len(lines(spool)) == 1)
        score(client)
        eventually(lambda: len(list(spool.glob("*.jsonl"))) == 2)


def test_what_a_killed_process_wrote_is_finished_by_the_next(tmp_path):
    spool = tmp_path / "spool"
    with serving(tmp_path / "a", **config(spool)) as service, service.client() as client:
        score(client)
        eventually(lambda: any(path.stat().st_size for path in spool.glob("*.part")))
        service.process.send_signal(signal.SIGKILL)
        service.process.wait(10)
    [part] = spool.glob("*.part")
    with part.open("a") as file:
        file.write('{"half a li')
    with serving(tmp_path / "b", **config(spool)):
        eventually(lambda: len(lines(spool)) == 1)


def test_a_segment_that_is_being_written_is_not_taken_for_an_orphan(tmp_path):
    spool = tmp_path / "spool"
    with serving(tmp_path / "a", **config(spool)) as first, first.client() as client:
        score(client)
        eventually(lambda: any(path.stat().st_size for path in spool.glob("*.part")))
        with serving(tmp_path / "b", **config(spool)) as second, second.client() as other:
            score(other)
        assert len(lines(spool)) == 1
    assert len(lines(spool)) == 2


def test_a_disk_that_takes_nothing_fails_no_request(tmp_path):
    spool = tmp_path / "spool"
    spool.write_text("a file where the folder should be")
    with serving(tmp_path, **config(spool)) as service, service.client() as client:
        assert [score(client).status_code for _ in range(3)] == [200, 200, 200]
        eventually(lambda: "ahc_records_dropped 3" in client.get("/metrics").text)
    assert service.log.read_text().count("Scoring records can't be written") == 1


def test_the_spool_stays_within_its_limit_and_loses_the_oldest_first(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "SEGMENT_BYTES", 100)
    kept = _records(tmp_path, limit=2000)
    for number in range(60):
        kept.keep(colour_image("red"), {"number": number})
        time.sleep(0.002)
    kept.close()
    numbers = [line["number"] for line in lines(tmp_path)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2300
    assert numbers[-1] == 59
    assert len(numbers) < 60
    assert len(caplog.records) == 1


def test_a_writer_that_is_slower_than_the_requests_drops_records_and_stays_within_its_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "describe", lambda image: time.sleep(0.2) or {})
    kept = _records(tmp_path)
    image = b"x" * 2_000_000
    for _ in range(40):
        kept.keep(image, {})
    # Had it waited for the writer, none would be dropped.
    assert 20 <= kept.dropped <= 30
    kept.close()


def _records(spool, *, rate=1.0, limit=64_000_000):
    return Records(spool, "test", rate=rate, facts={}, limit=limit, seconds=60, images=0)
