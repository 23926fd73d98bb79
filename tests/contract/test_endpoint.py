"""What every `Endpoint` adapter must do; parametrised over the adapters."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.errors import CandidateFailed, ConfigurationError, NothingToRollBackTo
from infra.ports import Endpoint, LiveModel
from infra.releases.scoring_client import ScoringClient
from tests.support.bundles import colour_image, make_bundle
from tests.support.local_endpoint import eventually, local_endpoint


@dataclass
class Rig:
    """An adapter under test, bundles to deploy with it, and a key that its endpoint accepts."""

    endpoint: Endpoint
    folder: Path
    key: SecretStr
    divides: bool = True

    def bundle(self, version: int) -> tuple[Path, LiveModel]:
        ref = make_bundle(self.folder / f"v{version}", code=f"version {version}")
        return Path(ref.path), LiveModel(name="colours", version=version, digest=ref.digest)

    def release(self, version: int) -> LiveModel:
        return self.endpoint.switch(self.endpoint.deploy(*self.bundle(version)))

    def answering(self) -> int:
        """The version that the endpoint's own address answers with."""
        with ScoringClient(self.endpoint.status().url, self.key) as client:
            return int(client.score(colour_image("red"))["model"]["version"])

    def answering_some_of(self, connections: int) -> set[int]:
        """The versions that so many new connections meet."""
        url, answered = self.endpoint.status().url, set()
        for _ in range(connections):
            with ScoringClient(url, self.key) as client:
                answered.add(int(client.score(colour_image("red"))["model"]["version"]))
        return answered

    def running(self) -> dict[str, int]:
        """The versions that run, by role."""
        return {item.role: item.model.version for item in self.endpoint.versions()}


SEVERAL = 40
"""Connections, half of them a candidate's by weight or by luck: that all go to one version is as good as excluded."""

ON_AZURE = {
    "container-instances": {"endpoint": "container-instances"},
    "private-container-instances": {"endpoint": "container-instances", "private": True},
    "app-service": {"endpoint": "app-service"},
}


@pytest.fixture(
    params=[
        "local",
        pytest.param("container-instances", marks=pytest.mark.azure),
        pytest.param("private-container-instances", marks=[pytest.mark.azure, pytest.mark.long]),
        pytest.param("app-service", marks=[pytest.mark.azure, pytest.mark.long]),
    ]
)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "local":
        with local_endpoint(tmp_path / "home") as (endpoint, key):
            yield Rig(endpoint, tmp_path, key)
        return
    # Containers are processes of this machine here, so the bench is needed.
    bench = request.getfixturevalue("bench")
    from tests.support.azure.endpoints import azure_endpoint

    with azure_endpoint(bench, tmp_path, **ON_AZURE[request.param]) as served:
        divides = not ON_AZURE[request.param].get("private", False)
        yield Rig(served.endpoint, tmp_path, served.key, divides=divides)


def test_an_endpoint_without_a_version_is_stopped_and_stays_so(rig):
    assert rig.endpoint.status().state == "stopped"
    assert rig.endpoint.start().state == "stopped"
    assert rig.endpoint.status().live is None
    rig.endpoint.stop()


def test_a_candidate_answers_at_its_own_address_and_takes_no_traffic(rig):
    rig.release(1)
    bundle, model = rig.bundle(2)
    candidate = rig.endpoint.deploy(bundle, model)
    assert (candidate.environment, candidate.model) == (rig.endpoint.environment, model)
    with ScoringClient(candidate.url, rig.key) as client:
        assert client.ready()
        assert client.model() == model
    assert rig.answering() == 1
    assert rig.endpoint.status().live.version == 1


def test_a_switch_makes_the_candidate_live_and_keeps_the_one_before(rig):
    rig.release(1)
    assert rig.release(2).version == 2
    status = rig.endpoint.status()
    assert (status.state, status.live.version, status.previous.version) == ("running", 2, 1)
    assert rig.answering() == 2


def test_switching_twice_to_one_candidate_changes_nothing_more(rig):
    rig.release(1)
    candidate = rig.endpoint.deploy(*rig.bundle(2))
    rig.endpoint.switch(candidate)
    rig.endpoint.switch(candidate)
    status = rig.endpoint.status()
    assert (status.live.version, status.previous.version) == (2, 1)


def test_a_discarded_candidate_is_gone_and_the_live_version_untouched(rig):
    rig.release(1)
    candidate = rig.endpoint.deploy(*rig.bundle(2))
    rig.endpoint.discard(candidate)
    with ScoringClient(candidate.url, rig.key, seconds=2) as client:
        # The cloud takes it away a moment after it has said so.
        eventually(lambda: not client.ready())
    with pytest.raises(CandidateFailed):
        rig.endpoint.switch(candidate)
    assert rig.answering() == 1


def test_a_second_candidate_replaces_the_first(rig):
    first = rig.endpoint.deploy(*rig.bundle(1))
    second = rig.endpoint.deploy(*rig.bundle(2))
    with pytest.raises(CandidateFailed):
        rig.endpoint.switch(first)
    assert rig.endpoint.switch(second).version == 2


def test_a_damaged_bundle_fails_by_its_exit_code_and_changes_nothing(rig):
    rig.release(1)
    bundle, model = rig.bundle(2)
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"!")
    with pytest.raises(CandidateFailed, match=r"model\.onnx") as caught:
        rig.endpoint.deploy(bundle, model)
    assert caught.value.process_exit_code == 16
    assert rig.answering() == 1


def test_a_rollback_brings_the_version_before_back_and_can_be_undone(rig):
    with pytest.raises(NothingToRollBackTo):
        rig.endpoint.rollback()
    rig.release(1)
    with pytest.raises(NothingToRollBackTo):
        rig.endpoint.rollback()
    rig.release(2)
    assert rig.endpoint.rollback().version == 1
    assert rig.answering() == 1
    assert rig.endpoint.rollback().version == 2
    assert rig.answering() == 2


def test_the_version_that_was_rolled_back_is_the_one_before(rig):
    rig.release(1)
    rig.release(2)
    rig.endpoint.rollback()
    status = rig.endpoint.status()
    assert (status.live.version, status.previous.version) == (1, 2)


def test_every_version_that_runs_is_told_with_its_own_address(rig):
    assert list(rig.endpoint.versions()) == []
    rig.release(1)
    rig.release(2)
    assert rig.running() == {"live": 2, "previous": 1}
    rig.endpoint.deploy(*rig.bundle(3))
    # Where there is room for two, the candidate takes the place of the previous one.
    assert {"live": 2, "candidate": 3}.items() <= rig.running().items()
    for version in rig.endpoint.versions():
        with ScoringClient(version.url, rig.key) as client:
            assert client.model() == version.model


def test_a_candidate_gets_a_share_of_new_connections_until_it_is_discarded(rig):
    rig.release(1)
    candidate = rig.endpoint.deploy(*rig.bundle(2))
    if not rig.divides:
        with pytest.raises(ConfigurationError, match="canary"):
            rig.endpoint.split(candidate, 0.5)
        assert rig.answering() == 1
        return
    rig.endpoint.split(candidate, 0.5)
    # The cloud takes a moment to do what it was told.
    eventually(lambda: rig.answering_some_of(SEVERAL) == {1, 2}, 60)
    assert {rig.endpoint.status().live.version for _ in range(SEVERAL)} == {1}, "the candidate passes as live"
    rig.endpoint.split(candidate, 0)
    eventually(lambda: rig.answering_some_of(SEVERAL) == {1}, 60)
    assert rig.running()["candidate"] == 2
    rig.endpoint.split(candidate, 0.5)
    eventually(lambda: rig.answering_some_of(SEVERAL) == {1, 2}, 60)
    rig.endpoint.discard(candidate)
    eventually(lambda: rig.answering_some_of(SEVERAL) == {1}, 60)
    with pytest.raises(CandidateFailed):
        rig.endpoint.split(candidate, 0.5)


def test_a_switch_ends_a_split(rig):
    if not rig.divides:
        pytest.skip("this endpoint can't divide its traffic")
    rig.release(1)
    candidate = rig.endpoint.deploy(*rig.bundle(2))
    rig.endpoint.split(candidate, 0.2)
    assert rig.endpoint.switch(candidate).version == 2
    eventually(lambda: rig.answering_some_of(SEVERAL) == {2}, 60)
    assert rig.endpoint.rollback().version == 1
    eventually(lambda: rig.answering_some_of(SEVERAL) == {1}, 60)


def test_what_was_live_serves_again_after_a_stop(rig):
    rig.release(1)
    rig.release(2)
    rig.endpoint.stop()
    assert rig.endpoint.status().state == "stopped"
    rig.endpoint.stop()
    status = rig.endpoint.start()
    assert (status.state, status.live.version) == ("running", 2)
    assert rig.endpoint.start() == rig.endpoint.status()
    assert rig.endpoint.rollback().version == 1


def test_the_log_shows_requests_and_no_keys(rig):
    rig.release(1)
    rig.answering()
    # The line is written once the answer is on its way.
    eventually(lambda: any('"path": "/score"' in line for line in rig.endpoint.logs(10)))
    assert len(rig.endpoint.logs(2)) == 2
    assert rig.key.get_secret_value() not in "".join(rig.endpoint.logs(1000))
