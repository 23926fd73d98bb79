"""An endpoint on the bench, with real scoring containers behind it."""

import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobLeaseClient
from pydantic import SecretStr

from infra.azure.access.resources import environment_resources
from infra.azure.endpoint.app_service.endpoint import AppServiceEndpoint
from infra.azure.endpoint.container_instances.endpoint import ContainerInstancesEndpoint
from infra.azure.endpoint.container_instances.groups import COLOURS
from infra.azure.storage.blobs import blob_service
from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import AzureTarget, Environment, endpoint_key
from infra.ports import LiveModel
from infra.releases.scoring_client import ScoringClient
from infra.settings import PROJECT, Settings
from tests.support.azure.bench import azure_settings
from tests.support.azure.containers_world import ContainersWorld
from tests.support.azure.small_platform import provision
from tests.support.bundles import colour_image, make_bundle


@dataclass
class Served:
    """An endpoint under test and what it stands on."""

    endpoint: Any
    bench: Any
    world: ContainersWorld
    folder: Path
    settings: Settings
    secrets: KeyVaultSecrets
    target: Environment
    bundles: dict[int, tuple[Path, LiveModel]] = field(default_factory=dict)

    @property
    def key(self) -> SecretStr:
        return self.secrets.ensure(endpoint_key("test"))

    def bundle(self, version: int) -> tuple[Path, LiveModel]:
        if version not in self.bundles:
            folder = self.folder / f"v{version}"
            ref = make_bundle(folder, code=f"version {version}")
            self.bundles[version] = folder, LiveModel(name="colours", version=version, digest=ref.digest)
        return self.bundles[version]

    def release(self, version: int) -> LiveModel:
        return self.endpoint.switch(self.endpoint.deploy(*self.bundle(version)))

    def answering(self) -> int:
        """The version that clients of the endpoint's own address get."""
        return next(iter(self.answers(1)))

    def answers(self, requests: int) -> Counter[int]:
        """How often each version answered so many requests to the endpoint's own address."""
        with ScoringClient(self.endpoint.status().url, self.key) as client:
            return Counter(int(client.score(colour_image("red"))["model"]["version"]) for _ in range(requests))

    def killed(self, operation: str, at: str, *, nth: int = 1, before: bool = False, **arguments: Any) -> None:
        """Let another process do this operation and be killed at the nth request that `METHOD URL` matches."""
        told = {
            "operation": operation,
            "at": at,
            "nth": nth,
            "before": before,
            "home": str(self.settings.home),
            "environment": self.target.model_dump(mode="json"),
            **arguments,
        }
        command = [sys.executable, "-m", "tests.support.azure.killed_endpoint"]
        ended = subprocess.run(command, input=json.dumps(told), text=True, capture_output=True, cwd=PROJECT)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        # It would run out by itself within 15 seconds.
        account = environment_resources(self.target, self.settings).storage_account
        lock = blob_service(account).get_blob_client("bundles", "locks/endpoint")
        with contextlib.suppress(HttpResponseError):
            BlobLeaseClient(lock).break_lease(0)

    def empty(self) -> None:
        """As nothing had ever been released."""
        for colour in COLOURS:
            self.endpoint._groups.delete(colour)

    def state(self, kind: str) -> dict[str, Any]:
        """Resources of this kind that the bench has, by name."""
        found = self.bench.admin("state")
        return {key.rsplit("/", 1)[1]: item for key, item in found.items() if f"/{kind.lower()}/" in key}


def adapter_of(target: Environment) -> type[Any]:
    return AppServiceEndpoint if target.azure.endpoint == "app-service" else ContainerInstancesEndpoint


@contextlib.contextmanager
def azure_endpoint(bench: Any, folder: Path, **azure: Any) -> Iterator[Served]:
    """The endpoint of the environment `test`, described by these fields of `azure` in its file."""
    settings = azure_settings(folder / "home")
    provision(settings, "test")
    target = Environment(
        name="test", description="For tests.", port_offset=0, scoring_threads=2, azure=AzureTarget(**azure)
    )
    secrets = KeyVaultSecrets("test", settings)
    with ContainersWorld(bench, folder / "containers") as world:
        yield Served(adapter_of(target)(target, settings, secrets), bench, world, folder, settings, secrets, target)
