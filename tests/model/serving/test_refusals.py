import io
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from model.serving.http.problems import KINDS
from tests.model.serving.conftest import PRIMARY, SECONDARY, Service, serving
from tests.support.bundles import colour_image

PNG = {"Content-Type": "image/png"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(edge: int) -> bytes:
    """A PNG of edge x edge white pixels in a few kilobytes."""
    header = struct.pack(">IIBBBBB", edge, edge, 1, 0, 0, 0, 0)
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(b"\0" + b"\xff" * (edge // 8)) for _ in range(edge)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def damaged_profile() -> bytes:
    """A PNG whose colour profile is empty and comes after the pixels: Pillow raises an IndexError on it."""
    whole = colour_image("red")
    end = whole.index(b"IEND") - 4
    return whole[:end] + chunk(b"iCCP", b"") + whole[end:]


def gif() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "GIF")
    return buffer.getvalue()


def jpeg(edge: int = 200) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (edge, edge, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


REFUSED = {
    "no body": (lambda c: c.post("/score", headers=PNG), "empty-body"),
    "no body, no type": (lambda c: c.post("/score"), "empty-body"),
    "an empty chunked body": (lambda c: c.post("/score", content=iter([b""]), headers=PNG), "empty-body"),
    "JSON": (lambda c: c.post("/score", json={"image": "x"}), "wrong-content-type"),
    "a web form": (lambda c: c.post("/score", data={"image": "x"}), "wrong-content-type"),
    "no type": (lambda c: c.post("/score", content=colour_image("red")), "wrong-content-type"),
    "gzip": (
        lambda c: c.post("/score", content=b"x", headers={**PNG, "Content-Encoding": "gzip"}),
        "wrong-content-type",
    ),
    "an image to batch": (lambda c: c.post("/score/batch", content=b"x", headers=PNG), "wrong-content-type"),
    "text": (lambda c: c.post("/score", content=b"hello", headers=PNG), "broken-image"),
    "half a PNG": (lambda c: c.post("/score", content=colour_image("red")[:80], headers=PNG), "broken-image"),
    "half a JPEG": (lambda c: c.post("/score", content=jpeg()[:3000], headers=PNG), "broken-image"),
    "a PNG with a damaged profile": (
        lambda c: c.post("/score", content=damaged_profile(), headers=PNG),
        "broken-image",
    ),
    "a GIF": (lambda c: c.post("/score", content=gif(), headers=PNG), "unsupported-format"),
    "a bomb": (lambda c: c.post("/score", content=bomb(20_000), headers=PNG), "too-many-pixels"),
    "4 MB": (lambda c: c.post("/score", content=bytes(4_000_000), headers=PNG), "body-too-large"),
    "4 MB, length unknown": (
        lambda c: c.post("/score", content=iter([bytes(100_000)] * 40), headers=PNG),
        "body-too-large",
    ),
    "4 MB in a form": (lambda c: c.post("/score", files={"f": bytes(4_000_000)}), "body-too-large"),
    "two files": (
        lambda c: c.post("/score", files=[("f", colour_image("red")), ("f", colour_image("red"))]),
        "malformed-request",
    ),
    "a form without a file": (
        lambda c: c.post(
            "/score",
            content=b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        ),
        "empty-body",
    ),
    "a form without a boundary": (
        lambda c: c.post("/score", content=b"x", headers={"Content-Type": "multipart/form-data"}),
        "malformed-request",
    ),
    "a form that is none": (
        lambda c: c.post("/score", content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}),
        "malformed-request",
    ),
    "a batch of 5": (lambda c: c.post("/score/batch", files=[("f", colour_image("red"))] * 5), "too-many-files"),
    "a batch of 100": (lambda c: c.post("/score/batch", files=[("f", b"x")] * 100), "malformed-request"),
    "no key": (lambda c: httpx.post(f"{c.base_url}/score", content=b"x", headers=PNG), "wrong-key"),
    "a wrong key": (lambda c: c.get("/model", headers={"Authorization": "Bearer nonsense"}), "wrong-key"),
    "another scheme": (lambda c: c.get("/model", headers={"Authorization": f"Basic {PRIMARY}"}), "wrong-key"),
    "a key in Latin-1": (lambda c: c.get("/model", headers={"Authorization": b"Bearer \xe9\xff"}), "wrong-key"),
    "an unknown path": (lambda c: c.get("/predict"), "unknown-path"),
    "an odd path": (lambda c: c.get("/%00/%ff/..%2f"), "unknown-path"),
    "a GET": (lambda c: c.get("/score"), "wrong-method"),
    "a DELETE": (lambda c: c.delete("/model"), "wrong-method"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_answered_with_a_problem(client, case):
    ask, kind = REFUSED[case]
    answer = ask(client)
    assert answer.status_code == KINDS[kind].status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"docs/runbook.md#{kind}"
    assert problem["status"] == answer.status_code
    assert problem["title"] == KINDS[kind].title
    assert problem["next_step"] == KINDS[kind].next_step
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    if kind == "wrong-key":
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if kind == "wrong-method":
        assert answer.headers["Allow"] in {"POST", "GET"}
    # ... and the service goes on, for this client too.
    assert client.post("/score", content=colour_image("red"), headers=PNG).status_code == 200


def test_both_keys_are_valid_and_health_metrics_and_description_need_none(service):
    for key in (PRIMARY, SECONDARY):
        with service.client(headers={"Authorization": f"bearer {key}"}) as session:
            assert session.get("/model").status_code == 200
    with service.client(headers={}) as anonymous:
        for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json"):
            assert anonymous.get(path).status_code == 200
        for path in ("/model", "/score"):
            assert anonymous.get(path).status_code in {401, 405}


def raw(service: Service, data: bytes, *, then: float = 0.0) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    connection.sendall(data)
    if then:
        time.sleep(then)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    with connection:
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def head(path: str, *lines: str) -> bytes:
    fixed = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {PRIMARY}", "Content-Type: image/png"]
    return "\r\n".join([*fixed, *lines, "", ""]).encode()


def test_a_client_that_is_still_sending_reads_the_whole_refusal(service):
    with raw(service, head("/score", "Content-Length: 50000000")) as connection:
        received = b""
        connection.settimeout(0.05)
        for _ in range(100):
            connection.sendall(bytes(100_000))
            try:
                received += connection.recv(65536)
            except TimeoutError:
                continue
            if received.endswith(b"}"):
                break
    assert b"413" in received.split(b"\r\n")[0]
    assert b"connection: close" in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["type"].endswith("#body-too-large")


def test_a_client_that_asks_before_it_sends_a_huge_body_is_told_not_to(service):
    with raw(service, head("/score", "Content-Length: 50000000", "Expect: 100-continue")) as connection:
        first = connection.recv(65536)
    assert first.startswith(b"HTTP/1.1 413")


def test_a_refusal_keeps_the_connection_where_the_body_is_small(service):
    body = colour_image("red")
    lines = [f"Content-Length: {len(body)}"]
    wrong = head("/score", *lines).replace(PRIMARY.encode(), b"wrong") + body
    closing = head("/score", *lines, "Connection: close") + body
    answers = read_to_end(raw(service, wrong + closing))
    assert answers.count(b"HTTP/1.1 401") == 1
    assert answers.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("noise", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n", b"431"),
    ],
)
def test_noise_is_answered_with_a_problem_and_the_end_of_the_connection(service, noise, status):
    received = read_to_end(raw(service, noise))
    assert received.split(b" ")[1] == status
    assert b"application/problem+json" in received


def test_slow_clients_are_let_go(tmp_path):
    with serving(tmp_path, upload_seconds=0.5, keep_alive_seconds=1) as service:
        body = head("/score", "Content-Length: 1000") + b"x"
        late_body, late_head, silent = (raw(service, data) for data in (body, b"POST /score HTT", b""))
        assert b" 408 " in read_to_end(late_body)
        assert b" 408 " in read_to_end(late_head)
        assert read_to_end(silent) == b""
        with service.client() as session:
            assert session.get("/model").status_code == 200


def test_clients_that_leave_in_the_middle_harm_nobody(service):
    for _ in range(20):
        raw(service, head("/score", "Content-Length: 1000") + b"x").close()
        raw(service, head("/score", f"Content-Length: {len(jpeg())}") + jpeg()).close()
    with service.client() as session:
        assert session.post("/score", content=colour_image("red"), headers=PNG).status_code == 200


def test_more_work_than_may_wait_is_refused_with_a_time_to_come_back(tmp_path):
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG", compress_level=0)
    with serving(tmp_path, waiting_images=2, threads=1) as service, service.client() as session:
        begin = threading.Barrier(8)

        def ask(_: int) -> httpx.Response:
            begin.wait()
            return session.post("/score", content=buffer.getvalue(), headers=PNG)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 503}
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.json()["type"].endswith("#overloaded")
        assert int(busy.headers["Retry-After"]) >= 1
        assert session.post("/score", content=colour_image("red"), headers=PNG).status_code == 200


def test_more_bytes_than_may_be_held_are_refused(tmp_path):
    with serving(tmp_path, buffered_bytes=1024 * 1024) as service, service.client() as session:
        half = raw(service, head("/score", "Content-Length: 900000") + bytes(800_000), then=0.3)
        answer = session.post("/score", content=bytes(500_000), headers=PNG)
        assert answer.status_code == 503
        half.close()
        deadline = time.monotonic() + 5
        while session.post("/score", content=bytes(500_000), headers=PNG).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.05)
