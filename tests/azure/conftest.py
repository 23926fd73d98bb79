"""Tests on the Azure bench: an Azure on the loopback that checks each call against Microsoft's specifications."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from infra.azure.credentials import credential
from infra.azure.resources import forget_resources
from tests.azure import bench as benches


@pytest.fixture(scope="session")
def bench_process() -> Iterator[Any]:
    if reason := benches.missing():
        pytest.skip(reason)
    with benches.start() as process:
        changed = {**process.env(), **benches.IDENTITY}
        saved = {name: os.environ.get(name) for name in changed}
        os.environ.update(changed)
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
    credential.cache_clear()
    forget_resources()
    yield bench_process
    bench_process.assert_clean()
