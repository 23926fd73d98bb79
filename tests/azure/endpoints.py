"""An endpoint on the bench, with real scoring containers behind it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from infra.azure.app_service import AppServiceEndpoint
from infra.azure.container_instances import ContainerInstancesEndpoint
from infra.azure.secrets import KeyVaultSecrets
from infra.environments import AzureTarget, Environment, endpoint_key
from infra.ports import LiveModel
from infra.settings import Settings
from tests.azure.bench import azure_settings
from tests.azure.containers_world import ContainersWorld
from tests.azure.small_platform import provision
from tests.bundles import make_bundle


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

    @property
    def key(self) -> SecretStr:
        return self.secrets.ensure(endpoint_key("test"))

    def bundle(self, version: int) -> tuple[Path, LiveModel]:
        folder = self.folder / f"v{version}"
        ref = make_bundle(folder, code=f"version {version}")
        return folder, LiveModel(name="colours", version=version, digest=ref.digest)

    def release(self, version: int) -> LiveModel:
        return self.endpoint.switch(self.endpoint.deploy(*self.bundle(version)))

    def state(self, kind: str) -> dict[str, Any]:
        """Resources of this kind that the bench has, by name."""
        found = self.bench.admin("state")
        return {key.rsplit("/", 1)[1]: item for key, item in found.items() if f"/{kind.lower()}/" in key}


@contextlib.contextmanager
def azure_endpoint(bench: Any, folder: Path, **azure: Any) -> Iterator[Served]:
    """The endpoint of the environment `test`, described by these fields of `azure` in its file."""
    settings = azure_settings(folder / "home")
    provision(settings, "test")
    target = Environment(
        name="test", description="For tests.", port_offset=0, scoring_threads=2, azure=AzureTarget(**azure)
    )
    adapter = AppServiceEndpoint if target.azure.endpoint == "app-service" else ContainerInstancesEndpoint
    secrets = KeyVaultSecrets("test", settings)
    with ContainersWorld(bench, folder / "containers") as world:
        yield Served(adapter(target, settings, secrets), bench, world, folder, settings, secrets, target)
