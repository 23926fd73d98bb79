"""What a scoring container is given on the bench, and its program as a process of this machine."""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from infra.azure.endpoint.container_settings import ContainerConfig
from infra.azure.storage.folders import BlobFolders
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import endpoint_key
from infra.settings import PROJECT, Settings
from tests.support.bundles import make_bundle

ACCOUNT = "stahctest"


def published(settings: Settings, folder: Path, *, damage: Callable[[Path], None] | None = None) -> ContainerConfig:
    """Publish a bundle, make the keys, and tell a container about both."""
    bundle = make_bundle(folder)
    name = f"bundle-{bundle.digest}"
    if damage:
        damage(folder)
        name = f"damaged-{bundle.digest}"
    url = BlobFolders(ACCOUNT, "bundles", folder.parent / "cache").publish(folder, name)
    for which in ("primary", "secondary"):
        KeyVaultSecrets("test", settings).ensure(endpoint_key("test", which))
    return ContainerConfig(
        environment="test",
        model_name="colours",
        model_version=7,
        model_digest=bundle.digest,
        bundle_url=url,
        key_vault_url="https://kv-ahc-test.vault.azure.net/",
        identity_client_id="client",
        scoring_threads=2,
    )


def key(settings: Settings, which: Any = "primary") -> SecretStr:
    return KeyVaultSecrets("test", settings).get(endpoint_key("test", which))


@dataclass
class Serving:
    """A scoring container, or its program as a process of this machine."""

    port: int
    scheme: str = "http"
    verify: ssl.SSLContext | bool = True

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, secret: SecretStr) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secret.get_secret_value()}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20, verify=self.verify)

    def accepts(self, secret: SecretStr) -> bool:
        with self.client(secret) as client:
            return client.get("/model").status_code == 200

    def told(self, error: str) -> dict[str, Any]:
        """The log line that tells this error."""
        lines = [json.loads(line) for line in self.log().splitlines()]
        return next(line for line in lines if line.get("error") == error)

    def ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self._answers():
            assert self.running(), self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False, verify=self.verify).is_success
        except httpx.TransportError:
            return False

    def log(self) -> str:
        raise NotImplementedError

    def running(self) -> bool:
        raise NotImplementedError

    def signal(self, number: int) -> None:
        raise NotImplementedError

    def exit_code(self, seconds: float) -> int:
        """What it ended with, once it has."""
        raise NotImplementedError


@dataclass
class Program(Serving):
    """The container's program as a process."""

    process: subprocess.Popen[str] | None = None
    file: Path = Path()

    def log(self) -> str:
        return self.file.read_text()

    def running(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_code(self, seconds: float) -> int:
        return self.process.wait(seconds)


@contextlib.contextmanager
def program(
    config: ContainerConfig, folder: Path, *, trusting: ssl.SSLContext | None = None, **variables: str
) -> Iterator[Program]:
    """The container's program as a process; it is gone with the block. `trusting` is for one that speaks HTTPS."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AHC_", "AZURE_CLIENT_ID"))}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.azure.inside_container.main"],
            cwd=PROJECT,
            env={**kept, "TMPDIR": str(folder), "AZURE_CLIENT_ID": "client", **config.variables(), **variables},
            stderr=output,
            text=True,
        )
    try:
        yield Program(
            config.port,
            scheme="https" if trusting else "http",
            verify=trusting or True,
            process=process,
            file=log,
        )
    finally:
        process.kill()
        process.wait()
