"""Keys are rotated while clients ask: on endpoints with real scoring containers, and on a Key Vault that misbehaves."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from infra.azure.storage.key_vault import KeyVaultSecrets
from infra.config.environments import endpoint_key, load_environment
from infra.errors import ServiceUnavailable
from infra.settings import PROJECT, get_settings
from tasks.operations import key_rotation as keys
from tests.support.azure.bench import SUBSCRIPTION
from tests.support.azure.containers_world import ContainersWorld
from tests.support.azure.endpoints import Served, azure_endpoint
from tests.support.load import Load
from tests.tasks.operations.test_key_rotation import accepted

pytestmark = [pytest.mark.azure, pytest.mark.timeout(900)]

AHC = str(Path(sys.executable).with_name("ahc"))
ROTATION = ("run", "key-rotation", "-p", "environment=test")
KILLED = (sys.executable, "-m", "tests.support.azure.killed_rotation")
RERUN = (*KILLED, "rerun")


def ended(*command: str) -> int:
    """The exit code of this command; what it said is in the test's output."""
    return subprocess.run(command, cwd=PROJECT, timeout=300).returncode


def vault_key(secrets: KeyVaultSecrets, which: str):
    return secrets.get(endpoint_key("test", which))


@contextmanager
def served_on(kind, bench, prefect_server, folder, monkeypatch) -> Iterator[tuple[Served, int]]:
    """Versions 1 (previous) and 2 (live), which commands find by this environment; and the live one's port."""
    (folder / "environments").mkdir()
    described = {"name": "test", "description": "For tests.", "port_offset": 1, "azure": {"endpoint": kind}}
    (folder / "environments" / "test.yaml").write_text(yaml.safe_dump(described))
    for name, value in {
        "AHC_BACKEND": "azure",
        "AHC_AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
        "AHC_ENVIRONMENTS": str(folder / "environments"),
        "AHC_HOME": str(prefect_server.home),
        "PYTHONPATH": str(PROJECT),
    }.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    with azure_endpoint(bench, folder, endpoint=kind) as served:
        served.release(1)
        candidate = served.endpoint.deploy(*served.bundle(2))
        served.endpoint.switch(candidate)
        yield served, served.world.containers[candidate.handle].port
    get_settings.cache_clear()


@contextmanager
def looking(world: ContainersWorld) -> Iterator[None]:
    """The containers ask the vault all the time, instead of every half a minute."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            world.look_for_keys()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["container-instances", "app-service"])
def test_no_request_is_refused_by_two_rotations_with_the_old_key_and_then_the_new(
    kind, bench, prefect_server, tmp_path, monkeypatch
):
    with served_on(kind, bench, prefect_server, tmp_path, monkeypatch) as (served, port):
        old, dropped = vault_key(served.secrets, "primary"), vault_key(served.secrets, "secondary")
        with looking(served.world), ExitStack() as later:
            with Load(port, old.get_secret_value()) as before:
                assert ended(AHC, *ROTATION) == 0
                new = vault_key(served.secrets, "primary")
                everywhere(served, {old: True, new: True, dropped: False})
                after = later.enter_context(Load(port, new.get_secret_value()))
            assert ended(AHC, *ROTATION) == 0
        everywhere(served, {new: True, vault_key(served.secrets, "primary"): True, old: False})
        assert before.failures == after.failures == []
        assert min(before.answers, after.answers) > 20
        assert before.versions | after.versions == {2}


def everywhere(served: Served, expected: dict[SecretStr, bool]) -> None:
    """The live container and that of the previous version accept these keys, or not."""
    for container in served.world.containers.values():
        url = f"http://{container.address}"
        assert {key: accepted(url, key) for key in expected} == expected


@pytest.mark.long
def test_a_rotation_that_was_killed_is_completed_by_its_rerun_or_the_next_and_not_done_twice(
    bench, prefect_server, tmp_path, monkeypatch
):
    with served_on("container-instances", bench, prefect_server, tmp_path, monkeypatch) as (served, port):
        url = served.endpoint.status().url
        with looking(served.world):
            for written, completion in [("secondary", RERUN), ("primary", RERUN), ("primary", (AHC, *ROTATION))]:
                old = vault_key(served.secrets, "primary")
                with Load(port, old.get_secret_value()) as load:
                    assert ended(*KILLED, f"PUT .*secrets/test-endpoint-key-{written}") == -signal.SIGKILL
                    assert ended(*completion) == 0
                assert load.failures == []
                assert vault_key(served.secrets, "secondary") == old
                assert accepted(url, old)
                assert accepted(url, vault_key(served.secrets, "primary"))
                assert not accepted(url, vault_key(served.secrets, "retired"))


@pytest.fixture
def environment(cloud, monkeypatch):
    monkeypatch.setattr(keys, "get_settings", lambda: cloud)
    return load_environment("test", cloud.environments)


def test_whatever_write_is_lost_no_key_that_clients_use_is_dropped(bench, cloud, environment):
    store = KeyVaultSecrets("test", cloud)
    old = store.ensure(endpoint_key("test"))
    store.ensure(endpoint_key("test", "secondary"))

    def loses(name, stage):
        bench.fault("outage", host="vault.azure.net", method="PUT", path=f"secrets/test-endpoint-key-{name}")
        with pytest.raises(ServiceUnavailable):
            stage.fn(environment)
        bench.clear_faults()
        assert old in (vault_key(store, "primary"), vault_key(store, "secondary"))

    loses("announced", keys.retire_secondary)
    loses("retired", keys.retire_secondary)
    loses("secondary", keys.retire_secondary)
    keys.retire_secondary.fn(environment)
    loses("primary", keys.replace_primary)
    keys.replace_primary.fn(environment)
    assert vault_key(store, "secondary") == old != vault_key(store, "primary")
    before = vault_key(store, "primary")
    keys.replace_primary.fn(environment)
    keys.retire_secondary.fn(environment)
    keys.replace_primary.fn(environment)
    assert (vault_key(store, "primary"), vault_key(store, "secondary")) == (before, old)
