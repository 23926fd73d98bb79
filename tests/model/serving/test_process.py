import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.model.serving.conftest import PRIMARY, serving
from tests.support.bundles import colour_image, make_bundle

SECRET = "a-key-nobody-may-see-in-a-log"


def run_to_its_end(config: object) -> tuple[int, list[dict]]:
    done = subprocess.run(
        [sys.executable, "-m", "model.serving"],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert SECRET not in done.stderr + done.stdout
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]


def damage_bytes(folder: Path) -> None:
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"!")


def remove_labels(folder: Path) -> None:
    (folder / "labels.json").unlink()


@pytest.mark.parametrize("damage", [damage_bytes, remove_labels])
def test_a_damaged_bundle_ends_the_process_with_its_code_and_one_clear_line(tmp_path, damage):
    bundle = make_bundle(tmp_path / "bundle")
    damage(Path(bundle.path))
    code, [line] = run_to_its_end({"bundle": bundle.path, "keys": [SECRET]})
    assert code == 16
    assert (line["level"], line["error"]) == ("error", "BundleCorrupt")
    assert line["next_step"]


def test_a_bundle_of_another_digest_is_not_served(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    code, [line] = run_to_its_end({"bundle": bundle.path, "digest": "0" * 64, "keys": [SECRET]})
    assert code == 16
    assert "000000000000" in line["message"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"keys": []}, "keys"), ({"keys": [SECRET], "porrt": 1}, "porrt"), ({"keys": [SECRET] * 3}, "keys")],
)
def test_a_wrong_config_is_named_without_its_keys(tmp_path, wrong, named):
    code, [line] = run_to_its_end({"bundle": str(tmp_path), **wrong})
    assert code == 17
    assert named in line["message"]


def test_a_used_port_is_named(tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, [line] = run_to_its_end({"bundle": bundle.path, "keys": [SECRET], "port": port})
    assert code == 21
    assert str(port) in line["message"]


def test_keys_are_replaced_while_serving(tmp_path):
    with serving(tmp_path) as service, service.client() as session:
        assert session.get("/model").status_code == 200
        service.command(do="keys", keys=["a-new-key"])
        deadline = time.monotonic() + 5
        while session.get("/model").status_code != 401:
            assert time.monotonic() < deadline
        assert session.get("/model", headers={"Authorization": "Bearer a-new-key"}).status_code == 200
        assert PRIMARY not in service.log.read_text()


def test_what_was_begun_is_answered_when_it_is_told_to_end(tmp_path):
    with serving(tmp_path) as service:
        with service.client() as session:
            connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
            body = colour_image("red")
            request = (
                f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {PRIMARY}\r\n"
                f"Content-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(request.encode() + body[:50])
            assert session.get("/health/ready").status_code == 200
        threading.Timer(0.5, connection.sendall, [body[50:]]).start()
        service.process.send_signal(signal.SIGTERM)
        with connection:
            assert b"200 OK" in connection.recv(65536)
        assert service.process.wait(10) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/health/live")


def test_it_ends_when_its_supervisor_is_gone(tmp_path):
    with serving(tmp_path) as service:
        service.process.stdin.close()
        assert service.process.wait(10) == 0


def test_the_scoring_service_loads_no_training_libraries():
    code = (
        "import sys, model.serving.server, uvloop; "
        "heavy = {'torch', 'pandas', 'onnx', 'matplotlib', 'pytorch_lightning', 'prefect', 'mlflow'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
