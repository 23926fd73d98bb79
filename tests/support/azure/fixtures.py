"""Fixtures of the tests that talk to Azure: to the bench, or with `--azure live` to a subscription.

The bench is an Azure on the loopback that checks each call against Microsoft's specifications. Tests that inject faults
or look at the calls need it (`bench`); tests of what an adapter promises take any Azure (`cloud`).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.azure.access.credentials import credential
from infra.azure.access.resources import forget_resources
from infra.settings import Settings
from tests.support.azure import bench as benches

LIVE = "live"


def forget_clients() -> None:
    """Clients keep what an earlier cloud told them."""
    from infra.azure.access.clients import container_client, resource_client, web_client
    from infra.azure.access.resource_manager import forget_resource_manager
    from infra.azure.checks.quotas import compute_client
    from infra.azure.endpoint.container_instances.routers import dns_client
    from infra.azure.machine_learning.registry import ml_client
    from infra.azure.provisioning.removal import authorization_client
    from infra.azure.storage.blobs import blob_service
    from infra.azure.storage.filesystem import AzureFiles
    from infra.azure.storage.key_vault import secret_client

    for cached in (
        authorization_client,
        compute_client,
        container_client,
        credential,
        blob_service,
        dns_client,
        ml_client,
        resource_client,
        secret_client,
        web_client,
    ):
        cached.cache_clear()
    AzureFiles.clear_instance_cache()
    forget_resource_manager()
    forget_resources()


def _trust(certificates: str) -> None:
    """aiohttp reads what it trusts once, when it is imported, which may have been before the bench was there."""
    from aiohttp import connector

    connector._SSL_CONTEXT_VERIFIED.load_verify_locations(certificates)


@pytest.fixture(scope="session")
def bench_process(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.config.getoption("--azure") == LIVE:
        pytest.skip("injects faults or looks at the calls, which takes the bench: pytest -m azure")
    if reason := benches.missing():
        pytest.skip(reason)
    with benches.start() as process:
        changed = {**process.env(), **benches.IDENTITY}
        saved = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
        _trust(process.env()["SSL_CERT_FILE"])
        yield process
        for name, value in saved.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture
def bench(bench_process: Any) -> Iterator[Any]:
    """An empty cloud; at the end, no request may have departed from the specifications."""
    bench_process.reset()
    forget_clients()
    yield bench_process
    bench_process.assert_clean()


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a provisioned platform with the environment `test`."""
    if request.config.getoption("--azure") == LIVE:
        return benches.live_settings(tmp_path / "home")
    request.getfixturevalue("bench")
    from tests.support.azure.small_platform import provision

    settings = benches.azure_settings(tmp_path / "home")
    provision(settings, "test")
    return settings
