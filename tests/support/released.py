"""An environment with real scoring processes, a real registry and ledger, for stages of a release."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect import flow

from infra.backend import backend, release_target
from infra.config.environments import Environment, endpoint_key
from infra.config.gates import Gates
from infra.ports import Candidate, LiveModel, RegisteredModel
from infra.releases.scoring_client import ScoringClient
from infra.settings import Settings, get_settings
from tasks.release.deploy_and_switch import Live, confirm_live
from tasks.release.ledger_note import note
from tasks.release.targets import environment_file
from tests.conftest import free_ports
from tests.support.bundles import make_bundle
from tests.support.load import IMAGE, Load
from tests.support.local_endpoint import eventually

ENVIRONMENT = "test"


class Released:
    """The environment `test` of an empty home."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.endpoint: Any = release_target(ENVIRONMENT, settings).endpoint()
        self.registry = backend(settings).registry()
        self.key = release_target(ENVIRONMENT, settings).secrets().ensure(endpoint_key(ENVIRONMENT))

    def environment(self, **gates: Any) -> Environment:
        return environment_file(ENVIRONMENT).model_copy(update={"gates": Gates(**gates)})

    def candidate(self, version: int, **bundle: Any) -> Candidate:
        """Register the next version, which must be this one, and deploy it."""
        folder = self.folder / f"v{version}"
        ref = make_bundle(folder, code=f"version {version}", **bundle)
        model = self.registry.register(folder, name=ref.name, digest=ref.digest, tags={}, metrics={})
        assert model.version == version
        return self.endpoint.deploy(folder, _live(model))

    def release(self, version: int, **bundle: Any) -> Live:
        self.endpoint.switch(self.candidate(version, **bundle))
        model = self.model(version)
        self.registry.set_champion(model, ENVIRONMENT)
        note(ENVIRONMENT, "switched", model, by="a test")
        return confirm_live(self.environment(), model.digest)

    def model(self, version: int) -> RegisteredModel:
        return self.registry.get("colours", version)

    def live(self) -> int:
        return self.endpoint.status().live.version

    def told(self) -> list[tuple[str, int, str]]:
        """Kind, version and author of what the ledger tells."""
        return [
            (item.kind, item.model.version, item.by) for item in backend(self.settings).ledger().events(ENVIRONMENT)
        ]

    def last_reason(self) -> str:
        return backend(self.settings).ledger().events(ENVIRONMENT)[-1].reason

    def load(self, image: bytes = IMAGE) -> Load:
        return Load(int(self.endpoint.url.rpartition(":")[2]), self.key.get_secret_value(), images=(image,))

    def once_divided(self, act: Callable[[], None]) -> threading.Thread:
        """Do this in a thread of its own as soon as a candidate has a share of the traffic."""

        def wait_and_act() -> None:
            eventually(lambda: self.endpoint._ask("status", seconds=5)["share"] > 0, 60)
            act()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        return thread

    def asking(self, clients: int, answers: list[int]) -> list[threading.Thread]:
        """So many clients ask once each, and patiently; the versions that answer go into `answers`."""

        def ask() -> None:
            with ScoringClient(self.endpoint.url, self.key, seconds=120) as client:
                answers.append(client.score(IMAGE)["model"]["version"])

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        return threads

    def process(self, role: str) -> psutil.Process:
        return psutil.Process(self.endpoint._ask("status", seconds=5)[role]["pid"])


@contextlib.contextmanager
def released(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Released]:
    """Ended with the test; the Prefect server is another's."""
    monkeypatch.setenv("AHC_HOME", str(folder / "home"))
    monkeypatch.setenv("AHC_ENDPOINT_BASE_PORT", str(free_ports(4)[0]))
    get_settings.cache_clear()
    made = Released(get_settings(), folder)
    yield made
    made.endpoint.stop()
    get_settings.cache_clear()


def in_a_run(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a stage answers or raises in a flow run."""

    @flow(name="a-stage-of-a-release")
    def run() -> Any:
        return function(*arguments)

    return run()


def _live(model: RegisteredModel) -> LiveModel:
    return LiveModel(name=model.name, version=model.version, digest=model.digest)
