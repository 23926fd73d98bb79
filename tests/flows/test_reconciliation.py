"""What is due is released once, by whichever trigger: on a real Prefect server with a worker, and a real registry."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.commands.deploy import deploy_files
from deployments.connection import server
from infra.backend import registry
from infra.local.platform import Platform
from infra.local.prefect_env import prefect_environment, use_prefect
from infra.ports import RegisteredModel
from infra.settings import Settings, get_settings
from tests.bundles import make_bundle
from tests.conftest import free_ports, settings_environment

FLOWS = "tests.flows.reconciliation_flows"
PATIENCE = 240


class House:
    """A platform that can be stopped and started, with the environment `test`."""

    def __init__(self, folder: Path) -> None:
        prefect, mlflow, endpoints, *_ = free_ports(6)
        environments = folder / "environments"
        environments.mkdir()
        (environments / "test.yaml").write_text("name: test\ndescription: x\nport_offset: 1\n")
        self.settings = Settings(
            home=folder / "home",
            environments=environments,
            prefect_port=prefect,
            mlflow_port=mlflow,
            endpoint_base_port=endpoints,
        )
        self._platform: Platform | None = None
        self._file = folder / "prefect.yaml"
        queue = {"limit": 1, "collision_strategy": "ENQUEUE"}
        entries = [
            ("local", "flows.reconciliation.reconciliation", {}),
            ("test", f"{FLOWS}.release", {"environment": "test"}),
            ("local", f"{FLOWS}.lifecycle", {}),
            ("local", f"{FLOWS}.register", {}),
        ]
        described = [
            {
                "name": name,
                "entrypoint": entrypoint,
                "work_pool": {"name": "local"},
                "parameters": parameters,
                "concurrency_limit": queue,
            }
            for name, entrypoint, parameters in entries
        ]
        self._file.write_text(yaml.safe_dump({"deployments": described}))

    def start(self) -> None:
        self._platform = Platform(self.settings)
        self._platform.__enter__()
        self._platform.wait_until_ready()
        self.deploy()

    def stop(self) -> None:
        assert self._platform is not None
        self._platform.__exit__(None, None, None)

    def deploy(self) -> Any:
        return asyncio.run(deploy_files(self.settings, self._file))

    def register(self, version: int, folder: Path) -> RegisteredModel:
        """Register another version of `food` with the verdict promote."""
        bundle = make_bundle(folder / f"bundle-{version}", name="food", code=f"code {version}")
        return registry(self.settings).register(
            Path(bundle.path), name="food", digest=bundle.digest, tags={"verdict": "promote"}, metrics={}
        )

    def run(self, deployment: str, **parameters: Any) -> Any:
        with server(self.settings) as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def runs(self, flow: str) -> list[Any]:
        from prefect.client.schemas.filters import FlowFilter, FlowFilterName

        with server(self.settings) as client:
            found = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])), limit=100)
        return sorted(found, key=lambda run: run.created)

    def wait(self, what: Callable[[], Any], for_what: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if found := what():
                return found
            time.sleep(0.2)
        states = [(run.name, run.state_name, run.state.message) for run in self.runs("reconciliation")]
        raise AssertionError(f"no {for_what}: {states}, {self.notes()}")

    def ended(self, run_id: Any) -> Any:
        def final() -> Any:
            with server(self.settings) as client:
                run = client.read_flow_run(run_id)
            return run if run.state.is_final() else None

        return self.wait(final, f"end of {run_id}")

    def reconcile(self, **parameters: Any) -> Any:
        run = self.ended(self.run("reconciliation/local", **parameters))
        assert run.state_name == "Completed", run.state
        return run.state.result(raise_on_failure=False)

    def notes(self) -> list[str]:
        notes = self.settings.home / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def go(self) -> None:
        (self.settings.home / "go").touch()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    before = dict(os.environ)
    found = House(tmp_path_factory.mktemp("house"))
    os.environ |= {**prefect_environment(found.settings), **settings_environment(found.settings)}
    use_prefect(found.settings)
    get_settings.cache_clear()
    found.start()
    yield found
    found.stop()
    os.environ.clear()
    os.environ.update(before)
    get_settings.cache_clear()


def described(runs: list[Any]) -> list[tuple[Any, ...]]:
    return [(run.parameters["environment"], run.parameters["name"], run.parameters["version"]) for run in runs]


def test_all_triggers_at_once_start_one_run_also_after_a_restart(house: House, tmp_path: Path) -> None:
    house.register(1, tmp_path)
    tells = house.run("training/local", name="food", version=1)
    clocks = [house.run("reconciliation/local") for _ in range(2)]
    house.ended(tells)
    for run in clocks:
        assert house.ended(run).state_name == "Completed"
    # The registration's event has run a third one.
    third = house.wait(lambda: house.runs("reconciliation")[2:], "reconciliation by the event")
    assert house.ended(third[0].id).state_name == "Completed"
    assert described(house.runs("release")) == [("test", "food", 1)]

    [release] = house.runs("release")
    assert release.parameters["by"] == "trigger"
    assert registry(house.settings).get("food", 1).tags["triggered.test"] == str(release.id)
    house.stop()
    house.start()
    house.reconcile()
    assert [run.id for run in house.runs("release")] == [release.id]
