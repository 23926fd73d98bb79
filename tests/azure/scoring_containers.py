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

from infra.azure.container_config import ContainerConfig
from infra.azure.folders import BlobFolders
from infra.azure.secrets import KeyVaultSecrets
from infra.environments import endpoint_key
from infra.settings import PROJECT, Settings
from tests.bundles import make_bundle

ACCOUNT = "stahctest"
PROXY = ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "NO_PROXY", "no_proxy")


def published(settings: Settings, folder: Path, *, damage: Callable[[Path], None] | None = None) -> ContainerConfig:
    """Publish a bundle, make the keys, and tell a container about both."""
    bundle = make_bundle(folder)
    if damage:
        damage(folder)
    url = BlobFolders(ACCOUNT, "bundles", folder.parent / "cache").publish(folder, f"bundle-{bundle.digest}")
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
class Started:
    """A scoring container, or its program, that was started."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    scheme: str = "http"
    verify: ssl.SSLContext | bool = True

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, secret: SecretStr) -> httpx.Client:
        headers = {"Authorization": f"Bearer {secret.get_secret_value()}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=20, verify=self.verify)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False, verify=self.verify).is_success
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def program(config: ContainerConfig, folder: Path, **variables: str) -> Iterator[Started]:
    """The container's program as a process; it is gone with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AHC_", "AZURE_CLIENT_ID"))}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "infra.azure.scoring_container"],
            cwd=PROJECT,
            env={**kept, "TMPDIR": str(folder), "AZURE_CLIENT_ID": "client", **config.variables(), **variables},
            stderr=output,
            text=True,
        )
    try:
        yield Started(process, config.port, log)
    finally:
        process.kill()
        process.wait()
