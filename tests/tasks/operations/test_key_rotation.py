"""Keys are rotated while clients ask, with a real endpoint and a real Prefect server."""

import pytest
from pydantic import SecretStr

from flows.key_rotation import key_rotation
from infra.backend import release_target
from infra.config.environments import endpoint_key
from infra.errors import AccessDenied
from infra.ports import LiveModel
from infra.releases.scoring_client import ScoringClient
from tasks.operations import key_rotation as keys
from tasks.release.targets import environment_file
from tests.support.bundles import make_bundle
from tests.support.load import Load

pytestmark = pytest.mark.usefixtures("prefect_server")
ENVIRONMENT = "acceptance"


@pytest.fixture
def target(prefect_server, tmp_path):
    ref = make_bundle(tmp_path / "bundle")
    serving = release_target(ENVIRONMENT, prefect_server).endpoint()
    serving.switch(serving.deploy(tmp_path / "bundle", LiveModel(name="colours", version=1, digest=ref.digest)))
    yield serving
    serving.stop()


@pytest.fixture
def stored(prefect_server):
    """The keys by name, as they are stored now."""
    store = release_target(ENVIRONMENT, prefect_server).secrets()
    store.ensure(endpoint_key(ENVIRONMENT))
    store.ensure(endpoint_key(ENVIRONMENT, "secondary"))
    return lambda which: store.get(endpoint_key(ENVIRONMENT, which))


def accepted(url: str, secret: SecretStr) -> bool:
    try:
        with ScoringClient(url, secret) as client:
            client.model()
    except AccessDenied:
        return False
    return True


def test_a_client_with_the_old_primary_key_loses_no_request(prefect_server, target, stored, caplog):
    old, dropped = stored("primary"), stored("secondary")
    url = target.status().url
    with Load(int(url.rpartition(":")[2]), old.get_secret_value()) as load:
        state = key_rotation(ENVIRONMENT, "a test", return_state=True)
    assert state.is_completed(), state.message
    assert load.failures == []
    assert load.answers > 20
    assert stored("primary") not in (old, dropped)
    assert stored("secondary") == old
    assert accepted(url, stored("primary"))
    assert accepted(url, old)
    assert not accepted(url, dropped)


def test_no_key_is_in_the_log_the_results_or_the_database(prefect_server, target, stored, caplog):
    key_rotation(ENVIRONMENT)
    values = [stored(which).get_secret_value() for which in ("primary", "secondary", "retired")]
    texts = [caplog.text.encode()] + [
        path.read_bytes()
        for folder in ("prefect", "results", "logs", "endpoints")
        for path in (prefect_server.home / folder).rglob("*")
        if path.is_file()
    ]
    assert len(texts) > 3
    assert not [value for value in values for text in texts if value.encode() in text]


def test_a_rotation_that_was_interrupted_anywhere_is_completed_and_not_done_twice(prefect_server, stored):
    environment = environment_file(ENVIRONMENT)
    old = stored("primary")
    for _ in range(2):
        keys.retire_secondary.fn(environment)
        assert stored("secondary") == stored("primary") == old
    for _ in range(2):
        keys.replace_primary.fn(environment)
        fresh = stored("primary")
        assert stored("secondary") == old != fresh
    keys.replace_primary.fn(environment)
    assert stored("primary") == fresh


def test_a_rerun_rotates_nothing_again(prefect_server, target, stored, monkeypatch):
    from deployments.cli.in_process import rerun_here

    monkeypatch.setattr(keys, "ACCEPT_SECONDS", 0.0)
    monkeypatch.setattr(keys, "EXPECTED", {"primary": False})
    failed = key_rotation(ENVIRONMENT, return_state=True)
    assert failed.name == "AccessDenied"
    assert "refuses" in failed.message or "accepts" in failed.message
    after = [stored(which) for which in ("primary", "secondary", "retired")]
    monkeypatch.undo()
    assert _rerun(rerun_here, failed).is_completed()
    assert [stored(which) for which in ("primary", "secondary", "retired")] == after


def _rerun(rerun_here, failed):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(failed.state_details.flow_run_id)
    return rerun_here(run, "key-rotation")


def test_the_keys_of_a_stopped_endpoint_are_rotated_for_its_next_start(prefect_server, stored):
    old = stored("primary")
    assert key_rotation(ENVIRONMENT).verified is False
    assert stored("secondary") == old
