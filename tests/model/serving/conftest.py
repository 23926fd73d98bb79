"""A real scoring process with a tiny real bundle."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.bundle.read import BundleRef
from tests.support.bundles import make_bundle

PRIMARY, SECONDARY = "primary-key-0123456789", "secondary-key-0123456789"
AUTHORIZED = {"Authorization": f"Bearer {PRIMARY}"}


@dataclass
class Service:
    """A scoring process and how to speak to it."""

    process: subprocess.Popen[str]
    port: int
    bundle: BundleRef
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self, **message: Any) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()

    def client(self, **arguments: Any) -> httpx.Client:
        arguments = {"headers": AUTHORIZED, "timeout": 20, **arguments}
        return httpx.Client(base_url=self.url, trust_env=False, **arguments)


@contextlib.contextmanager
def serving(folder: Path, **config: Any) -> Iterator[Service]:
    """Start one as a supervisor would; it ends with the block."""
    bundle = make_bundle(folder / "bundle")
    log = folder / "log"
    settings = {
        "bundle": bundle.path,
        "keys": [PRIMARY, SECONDARY],
        "version": 7,
        "threads": 2,
        "platform": "1.2.3 (abc)",
        **config,
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "model.serving", "--supervised"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    try:
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
        event = json.loads(process.stdout.readline())
        assert event["event"] == "ready"
        yield Service(process, event["port"], bundle, log)
    finally:
        process.stdin.close()
        try:
            process.wait(15)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), max_image_bytes=3_000_000, max_batch_images=4) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as session:
        yield session


def log_lines(service: Service, request_id: str) -> list[dict[str, Any]]:
    """The log lines of one request; it is logged right after its answer."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        if found := [line for line in lines if line.get("request_id") == request_id]:
            return found
        time.sleep(0.02)
    return []
