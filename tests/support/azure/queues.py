"""A real queue service for tests: Azurite's, over TLS, asked with bearer tokens."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import trustme
from azure.core.credentials import AccessToken

from infra.ports import Notice
from tests.support.azure.bench import BENCH

ACCOUNT = "devstoreaccount1"


class Identity:
    """Signs in as anybody: Azurite reads what a token claims, not who signed it."""

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        now = int(time.time())
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
            "nbf": now - 60,
            "iat": now - 60,
            "exp": now + 3600,
        }
        parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "none", "typ": "JWT"}, claims)]
        return AccessToken(".".join([*parts, _encoded(b"unsigned")]), now + 3600)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def event(name: str, version: int) -> str:
    """As Event Grid puts it into a queue: a CloudEvent in base64."""
    content = {
        "specversion": "1.0",
        "id": "831e1650-001e-001b-66ab-eeb76e069631",
        "type": "Microsoft.MachineLearningServices.ModelRegistered",
        "source": "/subscriptions/1/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/mlw",
        "subject": f"models/{name}:{version}",
        "time": "2026-11-24T12:00:00Z",
        "data": {"ModelName": name, "ModelVersion": version, "ModelTags": {}, "ModelProperties": {}},
    }
    return base64.b64encode(json.dumps(content).encode()).decode()


class QueueService:
    """What a test does to the queues that the code under test reads."""

    def __init__(self, url: str, certificate: Path, client: httpx.Client) -> None:
        self.url = url
        self.certificate = certificate
        self._client = client

    def create(self, queue: str) -> None:
        self._send("PUT", queue)

    def put(self, queue: str, text: str) -> None:
        self._send("POST", f"{queue}/messages", f"<QueueMessage><MessageText>{text}</MessageText></QueueMessage>")

    def clear(self, queue: str) -> None:
        self._send("DELETE", f"{queue}/messages")

    def remove(self, queue: str) -> None:
        self._send("DELETE", queue)

    def peek(self, queue: str) -> str:
        return self._send("GET", f"{queue}/messages?peekonly=true&numofmessages=32")

    def show_again(self, queue: str, notice: Notice) -> None:
        """As if the time had passed in which a taken message is hidden."""
        body = f"<QueueMessage><MessageText>{notice.text}</MessageText></QueueMessage>"
        self._send("PUT", f"{queue}/messages/{notice.id}?popreceipt={notice.receipt}&visibilitytimeout=0", body)

    def _send(self, method: str, path: str, body: str = "") -> str:
        headers = {
            "Authorization": f"Bearer {Identity().get_token().token}",
            "x-ms-version": "2023-11-03",
            "x-ms-date": formatdate(usegmt=True),
        }
        answer = self._client.request(method, f"{self.url}/{path}", content=body, headers=headers)
        answer.raise_for_status()
        return answer.text


@contextmanager
def queue_service(folder: Path) -> Iterator[QueueService]:
    """A queue service without queues, for as long as the block lasts."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    server.private_key_pem.write_to_path(folder / "key.pem")
    for part in server.cert_chain_pems:
        part.write_to_path(folder / "server.pem", append=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            *(*_program(), "--queueHost", "127.0.0.1", "--queuePort", str(port), "--oauth", "basic"),
            *("--cert", str(folder / "server.pem"), "--key", str(folder / "key.pem")),
            *("--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"),
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(process, port)
        with httpx.Client(verify=str(folder / "authority.pem")) as client:
            yield QueueService(f"https://127.0.0.1:{port}/{ACCOUNT}", folder / "authority.pem", client)
    finally:
        process.kill()
        process.wait()


def _program() -> list[str]:
    """Azurite's queue service, which comes with the one for blobs."""
    sys.path.insert(0, str(BENCH))
    from azure_bench.blobs import find_azurite

    kept = os.environ.pop("AZURITE_BIN", None)
    try:
        *runner, blobs = find_azurite()
    finally:
        if kept is not None:
            os.environ["AZURITE_BIN"] = kept
    script = Path(blobs).resolve()
    return [*runner, str(script.parents[1] / "queue" / script.name)]


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, "Azurite ended"
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        time.sleep(0.1)
    raise AssertionError("Azurite didn't start")
