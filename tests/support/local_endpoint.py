"""A local endpoint on a free port, ended with the test."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import SecretStr

from infra.backend import release_target
from infra.config.environments import Environment, environment_names
from infra.local.endpoint.endpoint import LocalEndpoint
from infra.settings import Settings
from tests.conftest import free_ports


class KeptSecrets:
    """Secrets in memory; `infra.local.stores.secrets` has tests of its own."""

    def __init__(self) -> None:
        self.values: dict[str, SecretStr] = {}

    def get(self, name: str) -> SecretStr:
        return self.values[name]

    def ensure(self, name: str) -> SecretStr:
        return self.values.setdefault(name, SecretStr(f"{name}-0123456789"))


def make_endpoint(home: Path, secrets: KeptSecrets, port: int) -> LocalEndpoint:
    environment = Environment(name="test", description="For tests.", port_offset=0, scoring_threads=2)
    return LocalEndpoint(environment, Settings(home=home, endpoint_base_port=port), secrets)


@contextlib.contextmanager
def local_endpoint(home: Path) -> Iterator[tuple[LocalEndpoint, SecretStr]]:
    secrets = KeptSecrets()
    made = make_endpoint(home, secrets, free_ports(1)[0])
    try:
        yield made, secrets.ensure("test-endpoint-key-primary")
    finally:
        made.stop()


def stop_endpoints(settings: Settings) -> None:
    """Those of every environment."""
    for name in environment_names(settings.environments):
        release_target(name, settings).endpoint().stop()


def eventually(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
