"""What is due is released once, by whichever trigger: on a real Prefect server with a worker, and a real registry."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.exceptions import ObjectNotFound

from deployments.server.connection import server
from deployments.server.deploy import deploy_files
from flows.reconciliation import reconciliation
from infra.azure.machine_learning.registration_queue import ASIDE, QUEUE, QueuedNotices
from infra.backend import backend, release_target
from infra.errors import AccessDenied
from infra.local.platform.platform import Platform
from infra.local.platform.prefect_settings import prefect_environment, use_prefect
from infra.ports import LiveModel, Notice, RegisteredModel
from infra.settings import Settings, get_settings
from tasks.release.release_runs import start_release
from tests.conftest import environment_restored, free_ports, settings_environment
from tests.support.azure.bench import missing
from tests.support.azure.queues import Identity, QueueService, event, queue_service
from tests.support.bundles import make_bundle

pytestmark = pytest.mark.thorough

FLOWS = "tests.support.reconciliation_flows"
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
        return (
            backend(self.settings)
            .registry()
            .register(Path(bundle.path), name="food", digest=bundle.digest, tags={"verdict": "promote"}, metrics={})
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

    def releases_of(self, model: RegisteredModel) -> list[Any]:
        return [run for run in self.runs("release") if run.parameters["version"] == model.version]

    def of_deployment(self, flow: str) -> list[Any]:
        """Without those of this process."""
        return [run for run in self.runs(flow) if run.deployment_id is not None]

    def ended(self, run_id: Any, *, wait: bool = True) -> Any:
        def final() -> Any:
            with server(self.settings) as client:
                run = client.read_flow_run(run_id)
            assert run.state is not None
            return run if run.state.is_final() else None

        return self.wait(final, f"end of {run_id}") if wait else final()

    def run_state(self, run_id: Any) -> str:
        with server(self.settings) as client:
            return str(client.read_flow_run(run_id).state_name)

    def notes(self) -> list[str]:
        notes = self.settings.home / "notes"
        return notes.read_text().splitlines() if notes.exists() else []

    def go(self) -> None:
        """Let the stand-ins end."""
        (self.settings.home / "go").touch()

    def hold(self) -> None:
        (self.settings.home / "go").unlink(missing_ok=True)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    found = House(tmp_path_factory.mktemp("house"))
    with environment_restored():
        os.environ |= {**prefect_environment(found.settings), **settings_environment(found.settings)}
        use_prefect(found.settings)
        get_settings.cache_clear()
        found.start()
        yield found
        found.stop()


@pytest.mark.long
def test_all_triggers_at_once_start_one_run_also_after_a_restart(house: House, tmp_path: Path) -> None:
    model = house.register(1, tmp_path)
    # The registration's event, the clock, and a process of its own.
    tells, clock = house.run("training/local", name="food", version=model.version), house.run("reconciliation/local")
    while not house.ended(clock, wait=False):
        reconciliation()
    house.ended(tells)
    for run in house.wait(lambda: house.of_deployment("reconciliation")[1:], "reconciliation by the event"):
        house.ended(run.id)
    [release] = house.runs("release")
    asked = {"environment": "test", "name": "food", "version": model.version, "by": "trigger"}
    assert release.parameters == asked
    assert backend(house.settings).registry().get("food", model.version).tags["triggered.test"] == str(release.id)
    house.go()
    house.ended(release.id)
    house.stop()
    house.start()
    assert house.deploy() == (), "applying twice changes nothing"
    house.ended(house.run("reconciliation/local"))
    assert [run.id for run in house.runs("release")] == [release.id]


def test_what_failed_or_was_deleted_is_not_started_again(house: House, tmp_path: Path) -> None:
    model = house.register(2, tmp_path)
    fail = house.settings.home / "fail"
    fail.touch()
    [started] = reconciliation().started
    assert house.ended(started.run).state_name == "SmokeTestFailed"
    fail.unlink()
    # The key alone holds, where a killed reconciliation didn't mark the version.
    assert start_release(model, "test") == started.run
    for _ in range(2):
        [decision] = reconciliation().decisions
        assert decision.model is None
        assert f"run {started.run[:8]} was started for it before" in decision.why
        with server(house.settings) as client, suppress(ObjectNotFound):
            client.delete_flow_run(UUID(started.run))
    assert house.releases_of(model) == []


def test_a_lifecycle_releases_by_itself_and_what_it_left_is_released_when_it_ended(
    house: House, tmp_path: Path
) -> None:
    house.hold()
    model = house.register(3, tmp_path)
    before = len(house.of_deployment("reconciliation"))
    lifecycle = house.run("lifecycle/local", data={"source": "food"}, version=model.version)
    house.wait(lambda: [run for run in house.runs("training") if run.parent_task_run_id], "registration")
    [decision] = reconciliation().decisions
    assert f"the lifecycle {str(lifecycle)[:8]} releases by itself until it ends" in decision.why
    house.go()
    assert house.ended(lifecycle).state_name == "Completed"
    # None by the event of its registration, one by its end.
    after = house.wait(lambda: house.of_deployment("reconciliation")[before:], "reconciliation after the lifecycle")
    house.ended(after[0].id)
    assert len(house.of_deployment("reconciliation")) == before + 1
    assert len(house.releases_of(model)) == 1


def test_two_releases_to_one_environment_queue(house: House) -> None:
    house.wait(lambda: all(run.state.is_final() for run in house.runs("release")), "quiet")
    house.hold()
    (house.settings.home / "notes").unlink()
    first = house.run("release/test", name="food", version=11)
    house.wait(lambda: "begin v11 by " in house.notes(), "first release")
    second = house.run("release/test", name="food", version=12)
    house.wait(lambda: house.run_state(second) == "AwaitingConcurrencySlot", "second release in the queue")
    house.go()
    house.ended(first)
    house.ended(second)
    assert house.notes() == ["begin v11 by ", "end v11", "begin v12 by ", "end v12"]


RELEASE = """
from tests.support.reconciliation_flows import release
release("food", {version}, "test")
"""


def test_a_killed_holder_leaves_its_turn_to_the_next_who_was_told_whom_to_wait_for(
    house: House, tmp_path: Path
) -> None:
    """Processes of their own, as those of lifecycles and `ahc run`: the deployment's limit doesn't see them."""
    house.hold()
    (house.settings.home / "notes").unlink(missing_ok=True)
    log = tmp_path / "log"
    with log.open("w") as file:
        holder = subprocess.Popen([sys.executable, "-c", RELEASE.format(version=21)], stderr=file)
        house.wait(lambda: "begin v21 by " in house.notes(), "first release")
        waiting = subprocess.Popen([sys.executable, "-c", RELEASE.format(version=22)], stderr=file)
    try:
        house.wait(lambda: "Waits for its turn in test" in log.read_text(), "word of the wait")
        assert "now it is that of release food v21 to test" in log.read_text()
        assert house.notes() == ["begin v21 by "]
        holder.kill()
        holder.wait()
        house.wait(lambda: "begin v22 by " in house.notes(), "turn of the second")
        house.go()
        assert waiting.wait(PATIENCE) == 0
    finally:
        holder.kill()
        waiting.kill()
        waiting.wait()


class Queue(QueuedNotices):
    """Remembers what it gave, so that a test can give it again."""

    def take(self) -> Sequence[Notice]:
        self.taken = super().take()
        return self.taken


def _unreachable(*_: Any) -> str:
    raise AccessDenied("The server refuses.")


@pytest.mark.azure
def test_a_notice_is_ended_when_its_release_is_started_and_nonsense_is_put_aside(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := missing():
        pytest.skip(reason)
    with queue_service(tmp_path) as service:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(service.certificate))
        queue = Queue(service.url, Identity())
        # The backend of one machine has no queue; this one is real.
        monkeypatch.setattr("infra.local.backend.LocalBackend.notices", lambda _: queue)
        monkeypatch.setattr("tasks.reconciliation.reconcile.TRIES", 3)
        for name in (QUEUE, ASIDE):
            service.create(name)
        coming = len(backend(house.settings).registry().versions("food")) + 1
        service.put(QUEUE, event("food", coming))
        service.put(QUEUE, "nonsense")

        reconciliation()
        assert [notice.version for notice in queue.taken] == [coming, None]
        _time_passes(service, queue)
        model = house.register(4, tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr("tasks.reconciliation.reconcile.start_release", _unreachable)
            with pytest.raises(AccessDenied):
                reconciliation()
        _time_passes(service, queue)
        assert service.peek(QUEUE).count("<MessageId>") == 2, "nothing is ended before its release is started"

        [started] = reconciliation().started
        assert (started.environment, started.version) == ("test", model.label)
        assert "MessageId" not in service.peek(QUEUE)
        assert "<MessageText>nonsense</MessageText>" in service.peek(ASIDE)
    assert len(house.releases_of(model)) == 1


def _time_passes(service: QueueService, queue: Queue) -> None:
    for notice in queue.taken:
        service.show_again(QUEUE, notice)


def test_repair_starts_what_is_stopped_and_lets_the_records_say_what_runs(house: House, tmp_path: Path) -> None:
    settings = house.settings
    model = house.register(5, tmp_path)
    place = release_target("test", settings).endpoint()
    live = LiveModel(name=model.name, version=model.version, digest=model.digest)
    place.switch(place.deploy(backend(settings).registry().download(model, tmp_path / "verified"), live))
    try:
        found = reconciliation()
        assert len(found.differences["test"]) == 2, "neither registry nor ledger know of it"
        assert reconciliation(repair=True).differences == {}
        champion = backend(settings).registry().champion("food", "test")
        assert champion is not None
        assert champion.digest == model.digest
        [event_] = backend(settings).ledger().events("test")
        assert (event_.kind, event_.model, event_.by) == ("repaired", live, "repair")

        place.stop()
        assert reconciliation(repair=True).repaired == ("test: its endpoint was stopped, and is running",)
        assert place.status().live == live
        assert reconciliation(repair=True).repaired == ()
        assert len(backend(settings).ledger().events("test")) == 1
    finally:
        place.stop()
