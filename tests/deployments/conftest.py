"""What the tests of the operations commands share."""

import importlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings, get_settings
from tests.conftest import environment_restored, free_ports

MODULE = "tests.support.operations_flows"
FLOWS = ("intake", "decided", "asked", "killed")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Settings]:
    """A home in which nothing runs, with ports that are free."""
    prefect, mlflow, endpoints, *_ = free_ports(6)
    # Commands set Prefect up in this process's environment.
    with environment_restored():
        for name in [name for name in os.environ if name.startswith(("PREFECT_", "AHC_"))]:
            del os.environ[name]
        os.environ |= {
            "AHC_HOME": str(tmp_path / "home"),
            "AHC_PREFECT_PORT": str(prefect),
            "AHC_MLFLOW_PORT": str(mlflow),
            "AHC_ENDPOINT_BASE_PORT": str(endpoints),
        }
        get_settings.cache_clear()
        yield get_settings()


@pytest.fixture(scope="session")
def platform(prefect_server: Settings) -> Settings:
    """The running platform, with the flows of `operations_flows` as deployments called `here`."""
    from prefect.utilities.callables import parameter_schema

    from deployments.server.connection import server

    module = importlib.import_module(MODULE)
    with server(prefect_server) as client:
        wait_for_pool(client)
        for name in FLOWS:
            flow = getattr(module, name)
            client.create_deployment(
                flow_id=client.create_flow(flow),
                name="here",
                work_pool_name="local",
                entrypoint=f"{MODULE}.{name}",
                parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
                job_variables={"command": "python -m prefect.engine"},
            )
    return prefect_server


def wait_for_pool(client: Any, seconds: float = 60) -> None:
    """The worker makes its work pool when it starts."""
    from prefect.exceptions import ObjectNotFound

    deadline = time.monotonic() + seconds
    while True:
        try:
            client.read_work_pool("local")
        except ObjectNotFound:
            assert time.monotonic() < deadline, "the worker made no work pool"
            time.sleep(0.2)
        else:
            return


@pytest.fixture
def ended(platform: Settings) -> Callable[..., Any]:
    """Makes a run that is in a state already, without a process that ran it."""
    from deployments.server.connection import server

    def ended(state: Any) -> Any:
        with server(platform) as client:
            deployment = client.read_deployment_by_name("killed/here")
            run = client.create_flow_run_from_deployment(deployment.id, state=state)
            return client.read_flow_run(run.id)

    return ended


@pytest.fixture
def start(platform: Settings) -> Callable[..., Any]:
    """Starts a deployment and waits until its run needs nobody any more, or somebody."""
    from deployments.server.connection import server

    def start(flow: str, **parameters: Any) -> Any:
        with server(platform) as client:
            deployment = client.read_deployment_by_name(f"{flow}/here")
            run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        return wait_for(platform, run.id)

    return start


def wait_for(settings: Settings, run_id: Any, seconds: float = 180) -> Any:
    from deployments.server.connection import server

    deadline = time.monotonic() + seconds
    with server(settings) as client:
        while time.monotonic() < deadline:
            run = client.read_flow_run(run_id)
            if run.state.is_final() or run.state.is_paused():
                return run
            time.sleep(0.1)
    raise TimeoutError(f"{run.name} is still {run.state}")


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """What a process printed up to the line that holds `text`."""
    shown = ""
    assert process.stdout is not None
    for line in process.stdout:
        shown += line
        if text in line:
            return shown
    raise AssertionError(f"{text!r} never came; got:\n{shown}")
