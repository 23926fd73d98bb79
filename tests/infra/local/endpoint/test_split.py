"""A candidate takes a share of the connections of a local endpoint, and nothing is lost however that ends."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.errors import CandidateFailed, ConfigurationError
from infra.local.endpoint.endpoint import LocalEndpoint
from infra.ports import Candidate, LiveModel
from tests.conftest import free_ports
from tests.support.bundles import make_bundle
from tests.support.load import IMAGE, Load
from tests.support.local_endpoint import KeptSecrets, eventually, make_endpoint

pytestmark = pytest.mark.thorough

CLIENTS = 5
"""Of a `Load`: so many requests are on their way at a time."""


class Trial:
    """Version 1 is live; others run beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        secrets = KeptSecrets()
        self.endpoint: LocalEndpoint = make_endpoint(folder / "home", secrets, self.port)
        self.key = secrets.ensure("test-endpoint-key-primary").get_secret_value()
        self.headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "image/png"}
        self.endpoint.switch(self.deploy(1))

    def deploy(self, version: int) -> Candidate:
        ref = make_bundle(self.folder / f"v{version}", code=f"version {version}")
        model = LiveModel(name="colours", version=version, digest=ref.digest)
        return self.endpoint.deploy(Path(ref.path), model)

    def process(self, role: str) -> psutil.Process:
        facts = self.endpoint._ask("status", seconds=5)
        return psutil.Process(facts[role]["pid"])

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def score(self, connection: http.client.HTTPConnection) -> tuple[int, bool]:
        """The version that answers, and whether it closes the connection."""
        connection.request("POST", "/score", IMAGE, self.headers)
        answer = connection.getresponse()
        assert answer.status == 200
        return json.load(answer)["model"]["version"], answer.will_close

    def versions(self, connections: int) -> list[int]:
        """Which version answers on each of so many new connections, one after another."""
        answered = []
        for _ in range(connections):
            connection = self.connect()
            answered.append(self.score(connection)[0])
            connection.close()
        return answered


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Trial(tmp_path)
    yield made
    made.endpoint.stop()


def dealt(load: Load, before: int) -> dict[int, int]:
    """How many connections each version answered, of those that ended after the first `before`."""
    counted: dict[int, int] = {}
    for answered, _ in load.connections[before:]:
        for version in answered[:1]:
            counted[version] = counted.get(version, 0) + 1
    return counted


def more_connections(load: Load, count: int) -> int:
    """Wait for so many to end; answers how many had before."""
    before = len(load.connections)
    eventually(lambda: len(load.connections) >= before + count, 120)
    return before


def test_a_share_is_dealt_evenly_not_by_luck(trial):
    candidate = trial.deploy(2)
    trial.endpoint.split(candidate, 0.1)
    answered = trial.versions(40)
    assert [position for position, version in enumerate(answered, 1) if version == 2] == [10, 20, 30, 40]
    trial.endpoint.split(candidate, 0.25)
    assert trial.versions(20).count(2) == 5
    trial.endpoint.split(candidate, 0)
    assert set(trial.versions(20)) == {1}


def test_canaries_their_aborts_a_switch_and_a_rollback_under_load_lose_nothing(trial):
    with Load(trial.port, trial.key) as load:
        aborted = trial.deploy(2)
        trial.endpoint.split(aborted, 0.3)
        counted = dealt(load, more_connections(load, 150))
        process = trial.process("candidate")
        trial.endpoint.discard(aborted)
        psutil.wait_procs([process], timeout=60)
        assert set(dealt(load, more_connections(load, 40))) == {1}, "the aborted one still answers"

        better = trial.deploy(3)
        trial.endpoint.split(better, 0.1)
        more_connections(load, 60)
        trial.endpoint.switch(better)
        more_connections(load, 60)
        assert trial.endpoint.rollback().version == 1
        more_connections(load, 60)
    assert load.failures == []
    assert counted[2] / sum(counted.values()) == pytest.approx(0.3, abs=0.05)
    assert load.versions == {1, 2, 3}
    for answered, _ in load.connections:
        assert len(set(answered)) <= 1, "two versions answered on one connection"


@pytest.mark.parametrize("end", ["split", "discard", "replace"])
def test_a_kept_connection_to_the_candidate_is_closed_with_its_next_answer_and_not_cut(trial, end):
    candidate = trial.deploy(2)
    trial.endpoint.split(candidate, 0.5)
    trial.versions(1)
    kept = trial.connect()
    assert trial.score(kept) == (2, False)
    match end:
        case "split":
            trial.endpoint.split(candidate, 0)
        case "discard":
            trial.endpoint.discard(candidate)
        case "replace":
            trial.deploy(3)
    # The command is on its way to the scoring process when the endpoint answers.
    socket = kept.sock
    eventually(lambda: trial.score(kept)[1])
    assert kept.sock in (socket, None)
    assert set(trial.versions(6)) == {1}


def test_a_candidate_that_is_killed_loses_what_it_works_on_and_nothing_else(trial):
    candidate = trial.deploy(2)
    trial.endpoint.split(candidate, 0.3)
    with Load(trial.port, trial.key) as load:
        more_connections(load, 60)
        trial.process("candidate").kill()
        more_connections(load, 60)
        failed = len(load.failures)
        more_connections(load, 100)
        trial.endpoint.discard(candidate)
        more_connections(load, 20)
    assert failed <= CLIENTS, load.failures
    assert load.failures[failed:] == []


def test_connections_that_a_hanging_candidate_never_took_go_to_the_live_version(trial):
    candidate = trial.deploy(2)
    trial.endpoint.split(candidate, 0.5)
    process = trial.process("candidate")
    process.suspend()
    answered: list[int] = []
    threads = [threading.Thread(target=lambda: answered.extend(trial.versions(1))) for _ in range(6)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(answered) == 3)
    trial.endpoint.discard(candidate)
    for thread in threads:
        thread.join(60)
    assert answered == [1] * 6
    assert psutil.wait_procs([process], timeout=60)[1] == []


def test_a_restart_of_the_supervisor_ends_a_split_and_it_can_be_made_anew(trial):
    candidate = trial.deploy(2)
    trial.endpoint.split(candidate, 0.5)
    pid = trial.endpoint._files.supervisor_pid()
    psutil.Process(pid).kill()
    eventually(lambda: trial.endpoint._files.supervisor_pid() is None)
    assert trial.endpoint.versions() == ()
    trial.endpoint.start()
    assert set(trial.versions(6)) == {1}
    trial.endpoint.split(candidate, 0.5)
    assert sorted(trial.versions(6)) == [1, 1, 1, 2, 2, 2]
    assert {item.role: item.model.version for item in trial.endpoint.versions()} == {"live": 1, "candidate": 2}


def test_without_a_live_version_or_a_candidate_there_is_nothing_to_divide(trial, tmp_path):
    candidate = trial.deploy(2)
    trial.endpoint.discard(candidate)
    with pytest.raises(CandidateFailed, match="gone"):
        trial.endpoint.split(candidate, 0.5)
    other = make_endpoint(tmp_path / "other", KeptSecrets(), free_ports(1)[0])
    ref = make_bundle(tmp_path / "first")
    try:
        first = other.deploy(Path(ref.path), LiveModel(name="colours", version=1, digest=ref.digest))
        with pytest.raises(ConfigurationError, match="no live version"):
            other.split(first, 0.5)
    finally:
        other.stop()
