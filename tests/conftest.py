"""Real parts that several suites share."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings
from tests.support.reaper import start_reaper

pytest_plugins = ["tests.support.azure.fixtures", "tests.support.containers.fixtures"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--azure",
        choices=["bench", "live"],
        default="bench",
        help="What tests marked `azure` talk to: the bench, or the platform in AHC_AZURE_SUBSCRIPTION_ID.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """A killed run leaves no server or worker behind."""
    reaper = start_reaper()
    config.add_cleanup(reaper.wait)
    config.add_cleanup(reaper.stdin.close)  # the last cleanup runs first


WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
SLOT = 12
_slots = itertools.count(random.randrange(80))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that may take longest come first, so that no process is left with one of them at the end.

    On a subscription only the contract suites run: the others inject faults, or name what is on the bench alone.
    """
    limits: dict[Path, float] = {}
    for item in items:
        marker = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0), marker.args[0] if marker else 0)
    items.sort(key=lambda item: -limits[item.path])
    if config.getoption("--azure") != "live":
        return
    contract = Path(__file__).parent / "contract"
    for item in items:
        if item.get_closest_marker("azure") and contract not in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="works on the bench only: pytest -m azure"))


def free_ports(count: int) -> list[int]:
    """Free ports in a row, at most 12.

    Each of the processes that run tests side by side has a range of its own, below the one from which systems give
    ports to anybody, and takes turns in it: no port comes back soon.
    """
    assert count <= SLOT
    while True:
        first = 20_000 + 1000 * (WORKER % 12) + SLOT * (next(_slots) % 80)
        with ExitStack() as stack, suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return list(range(first, first + count))


def settings_environment(settings: Settings) -> dict[str, str]:
    """The AHC_ variables that give a child process these settings."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {f"AHC_{name.upper()}": str(value) for name, value in values.items()}


def server_process(settings: Settings) -> psutil.Process:
    """The process of the Prefect server that this one started for this home, of several that there may be."""
    return next(
        item
        for item in psutil.Process().children()
        if "infra.local.platform.prefect_server" in item.cmdline() and item.environ()["AHC_HOME"] == str(settings.home)
    )


@contextmanager
def environment_restored() -> Iterator[None]:
    """What the block sets in the environment is forgotten afterwards, also by Prefect and by the settings."""
    from deployments.cli.in_process import use_prefect_again
    from infra.settings import get_settings

    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        use_prefect_again()
        get_settings.cache_clear()


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A real Prefect server with its worker, as `ahc up` starts them, on free ports under a folder of its own.

    While it runs, this process's environment points at it, for clients and for commands that are started.
    """
    from infra.local.platform.platform import Platform
    from infra.local.platform.prefect_settings import prefect_environment, use_prefect
    from infra.settings import get_settings

    home: Path = tmp_path_factory.mktemp("platform")
    prefect, mlflow, endpoints, *_ = free_ports(6)
    settings = Settings(home=home, prefect_port=prefect, mlflow_port=mlflow, endpoint_base_port=endpoints)
    with environment_restored(), Platform(settings) as platform:
        os.environ.update({**prefect_environment(settings), **settings_environment(settings)})
        use_prefect(settings)
        get_settings.cache_clear()
        platform.wait_until_ready()
        yield settings
        # Who ended one of them let the tests after it wait for nothing.
        assert {name: child.exit_code for name, child in platform.children.items()} == dict.fromkeys(platform.children)
