"""How long it takes until clients have the version before again, from the moment in which somebody asks for it."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from infra.backend import backend, release_target
from infra.ports import LiveModel
from infra.settings import Settings
from tests.conftest import settings_environment
from tests.deployments.cli.commands.test_run import in_a_process
from tests.support.bundles import make_bundle

pytestmark = pytest.mark.benchmark
TARGET_SECONDS = 5.0
TURNS = 2
ENVIRONMENT = "test"


@pytest.fixture
def settings(prefect_server: Settings, tmp_path) -> Iterator[Settings]:
    """Version 2 is live, version 1 is warm."""
    target, models = release_target(ENVIRONMENT, prefect_server).endpoint(), backend(prefect_server).registry()
    for number in (1, 2):
        folder = tmp_path / f"v{number}"
        bundle = make_bundle(folder, code=f"version {number}")
        model = models.register(folder, name=bundle.name, digest=bundle.digest, tags={}, metrics={})
        target.switch(target.deploy(folder, LiveModel(name=model.name, version=model.version, digest=model.digest)))
    yield prefect_server
    target.stop()


def seconds_until_back(settings: Settings, roll_back: Callable[[], object]) -> tuple[float, float]:
    """Until another version answers clients, and until whoever asked knows."""
    target = release_target(ENVIRONMENT, settings).endpoint()
    bad = target.status().live
    changed: list[float] = []

    def follow() -> None:
        while not changed and time.monotonic() - start < 120:
            live = target.status().live
            if live is not None and live != bad:
                changed.append(time.monotonic() - start)
            time.sleep(0.02)

    start = time.monotonic()
    follower = threading.Thread(target=follow)
    follower.start()
    roll_back()
    told = time.monotonic() - start
    follower.join()
    return changed[0], told


def test_the_version_before_is_back_within_seconds(settings):
    from prefect.utilities.callables import parameter_schema

    from deployments.server.connection import server
    from flows.rollback import rollback

    def command() -> None:
        done = in_a_process("rollback", ENVIRONMENT, "--reason", "a benchmark")
        assert done.returncode == 0, done.stdout + done.stderr

    ways: dict[str, Callable[[], object]] = {
        "the flow, in a process that runs": lambda: rollback(ENVIRONMENT, "a benchmark"),
        "`ahc rollback test`, without a deployment: in its own process": command,
        "`ahc rollback test`, by the worker": command,
    }
    best = {}
    for way, roll_back in ways.items():
        if "worker" in way:
            with server(settings) as client:
                client.create_deployment(
                    flow_id=client.create_flow(rollback),
                    name=ENVIRONMENT,
                    work_pool_name="local",
                    entrypoint="flows.rollback.rollback",
                    parameter_openapi_schema=parameter_schema(rollback).model_dump_for_openapi(),
                    job_variables={"command": "python -m prefect.engine", "env": settings_environment(settings)},
                )
        best[way] = min(seconds_until_back(settings, roll_back) for _ in range(TURNS))
    for way, (back, told) in best.items():
        print(f"\n{way}: back after {back:.2f} s, told after {told:.2f} s (load {os.getloadavg()[0]:.0f})")
    assert best["the flow, in a process that runs"][0] < TARGET_SECONDS
