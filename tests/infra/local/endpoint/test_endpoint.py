import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr

from infra.errors import AccessDenied, DiskFull, ModelNotFound, PortInUse
from infra.local.endpoint import state as endpoint_state
from infra.local.endpoint.endpoint import LocalEndpoint
from infra.ports import LiveModel
from infra.releases.scoring_client import ScoringClient
from tests.conftest import free_ports
from tests.support.bundles import colour_image, make_bundle
from tests.support.load import Load
from tests.support.local_endpoint import KeptSecrets, eventually, make_endpoint


@pytest.fixture
def secrets() -> KeptSecrets:
    return KeptSecrets()


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def endpoint(tmp_path: Path, secrets: KeptSecrets, port: int) -> Iterator[LocalEndpoint]:
    made = make_endpoint(tmp_path / "home", secrets, port)
    yield made
    made.stop()


@pytest.fixture
def key(secrets: KeptSecrets) -> SecretStr:
    return secrets.ensure("test-endpoint-key-primary")


def bundle(folder: Path, version: int) -> tuple[Path, LiveModel]:
    ref = make_bundle(folder / f"v{version}", code=f"version {version}")
    return Path(ref.path), LiveModel(name="colours", version=version, digest=ref.digest)


def release(endpoint: LocalEndpoint, folder: Path, version: int) -> None:
    endpoint.switch(endpoint.deploy(*bundle(folder, version)))


def scoring_processes(supervisor: psutil.Process) -> list[psutil.Process]:
    return [child for child in supervisor.children() if _is_scoring(child)]


def _is_scoring(process: psutil.Process) -> bool:
    try:
        return "model.serving" in process.cmdline()
    except psutil.Error:  # it is ending
        return False


def supervisor_of(endpoint: LocalEndpoint) -> psutil.Process:
    pid = endpoint._files.supervisor_pid()
    assert pid is not None
    return psutil.Process(pid)


def test_not_one_request_fails_while_versions_come_and_go(endpoint, tmp_path, port, key):
    release(endpoint, tmp_path, 1)
    with Load(port, key.get_secret_value()) as load:
        time.sleep(0.5)
        release(endpoint, tmp_path, 2)
        time.sleep(0.5)
        release(endpoint, tmp_path, 3)
        time.sleep(0.5)
        assert endpoint.rollback().version == 2
        time.sleep(0.5)
        endpoint.rollback()
        time.sleep(0.5)
    assert load.failures == []
    assert load.answers > 300
    assert load.versions == {1, 2, 3}
    for answered, _ in load.connections:
        assert len(set(answered)) <= 1, "two versions answered on one connection"
    kept = [item for item in load.connections if len(item[0]) > 1]
    assert sum(closed for _, closed in kept) >= 8, "kept connections end with a documented close at each switch"


def test_an_idle_connection_survives_a_switch_and_is_closed_with_its_next_answer(endpoint, tmp_path, port, key):
    release(endpoint, tmp_path, 1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"}
    connection.request("GET", "/model", headers=headers)
    assert b'"version":1' in connection.getresponse().read()
    kept = connection.sock
    release(endpoint, tmp_path, 2)
    release(endpoint, tmp_path, 3)
    time.sleep(0.3)
    connection.request("GET", "/model", headers=headers)
    assert connection.sock is kept
    answer = connection.getresponse()
    assert b'"version":1' in answer.read()
    assert answer.will_close
    eventually(lambda: len(scoring_processes(supervisor_of(endpoint))) == 2)


def test_a_killed_scoring_process_is_started_again_and_new_connections_wait_for_it(endpoint, tmp_path, port, key):
    release(endpoint, tmp_path, 1)
    [process] = scoring_processes(supervisor_of(endpoint))
    process.kill()
    # Not one of these is refused, although nobody serves at this moment.
    with ScoringClient(endpoint.url, key) as client:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(client.score(colour_image("red")))) for _ in range(5)]
        for thread in threads:
            time.sleep(0.05)
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(answers) == 5
    assert endpoint.status().state == "running"
    [again] = scoring_processes(supervisor_of(endpoint))
    assert again.pid != process.pid


def test_connections_in_the_hands_of_a_dying_process_are_not_lost(endpoint, tmp_path, port, key):
    """A stopped process can't take what it is handed; when it is then killed, its successor gets them."""
    release(endpoint, tmp_path, 1)
    [process] = scoring_processes(supervisor_of(endpoint))
    process.suspend()
    answers = []

    def ask() -> None:
        with ScoringClient(endpoint.url, key) as client:
            answers.append(client.score(colour_image("red"))["predictions"][0]["label"])

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    process.kill()
    for thread in threads:
        thread.join(20)
    assert answers == ["red"] * 4


def test_after_the_supervisor_is_killed_all_ends_and_start_brings_it_back(endpoint, tmp_path, key):
    release(endpoint, tmp_path, 1)
    release(endpoint, tmp_path, 2)
    supervisor = supervisor_of(endpoint)
    children = scoring_processes(supervisor)
    assert len(children) == 2
    supervisor.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert endpoint.status().state == "stopped"
    status = endpoint.start()
    assert (status.state, status.live.version) == ("running", 2)
    assert endpoint.rollback().version == 1


def test_a_candidate_can_still_be_switched_to_after_the_supervisor_was_killed(endpoint, tmp_path, key):
    release(endpoint, tmp_path, 1)
    candidate = endpoint.deploy(*bundle(tmp_path, 2))
    supervisor_of(endpoint).kill()
    eventually(lambda: endpoint._files.supervisor_pid() is None)
    assert endpoint.switch(candidate).version == 2
    status = endpoint.status()
    assert (status.live.version, status.previous.version) == (2, 1)


def test_stopping_ends_every_process_of_this_environment_and_nothing_else(endpoint, tmp_path, secrets):
    other = make_endpoint(tmp_path / "other", secrets, free_ports(1)[0])
    try:
        release(other, tmp_path, 1)
        release(endpoint, tmp_path, 1)
        release(endpoint, tmp_path, 2)
        endpoint.deploy(*bundle(tmp_path, 3))
        supervisor = supervisor_of(endpoint)
        processes = [supervisor, *supervisor.children(recursive=True)]
        assert len(processes) == 4
        endpoint.stop()
        assert psutil.wait_procs(processes, timeout=60)[1] == []
        assert other.status().state == "running"
    finally:
        other.stop()
    own = psutil.Process().children(recursive=True)
    eventually(lambda: not [child for child in own if child.is_running() and child.status() == psutil.STATUS_ZOMBIE])


def test_a_used_port_names_the_program_that_has_it(endpoint, tmp_path, port):
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortInUse, match=str(port)) as caught:
        endpoint.deploy(*bundle(tmp_path, 1))
    assert str(os.getpid()) in str(caught.value)
    endpoint.deploy(*bundle(tmp_path, 1))


def test_it_outlives_the_process_that_started_it_and_obeys_another(endpoint, tmp_path, secrets, port):
    folder, model = bundle(tmp_path, 1)
    code = (
        "import sys; from pathlib import Path; from infra.ports import LiveModel; "
        "from tests.support.local_endpoint import *; "
        "e = make_endpoint(Path(sys.argv[1]), KeptSecrets(), int(sys.argv[2])); "
        "e.switch(e.deploy(Path(sys.argv[3]), LiveModel.model_validate_json(sys.argv[4])))"
    )
    arguments = [str(tmp_path / "home"), str(port), str(folder), model.model_dump_json()]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, timeout=60, stdout=subprocess.PIPE)
    assert endpoint.status().live == model
    endpoint.stop()
    assert endpoint.status().state == "stopped"


def test_two_that_deploy_at_once_take_turns(endpoint, tmp_path, secrets, port):
    twin = make_endpoint(tmp_path / "home", secrets, port)
    bundles = [bundle(tmp_path, version) for version in (1, 2)]
    errors = []

    def deploy(adapter: LocalEndpoint, index: int) -> None:
        try:
            adapter.deploy(*bundles[index])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=deploy, args=item) for item in ((endpoint, 0), (twin, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    eventually(lambda: len(scoring_processes(supervisor_of(endpoint))) == 1)


def test_keys_are_rotated_without_a_restart(endpoint, tmp_path, secrets):
    release(endpoint, tmp_path, 1)
    names = ("test-endpoint-key-primary", "test-endpoint-key-secondary")
    old = [secrets.get(name) for name in names]
    secrets.values[names[0]] = SecretStr("a-fresh-primary-key")
    endpoint.refresh_keys()

    def accepted(secret: SecretStr) -> bool:
        try:
            with ScoringClient(endpoint.url, secret) as client:
                client.model()
        except AccessDenied:
            return False
        return True

    eventually(lambda: accepted(SecretStr("a-fresh-primary-key")))
    assert accepted(old[1])
    assert not accepted(old[0])
    scoring_processes(supervisor_of(endpoint))[0].kill()
    assert accepted(SecretStr("a-fresh-primary-key"))


def test_no_key_is_in_arguments_environment_or_files(endpoint, tmp_path, key):
    release(endpoint, tmp_path, 1)
    secret = key.get_secret_value()
    supervisor = supervisor_of(endpoint)
    for process in (supervisor, *scoring_processes(supervisor)):
        assert secret not in " ".join(process.cmdline())
        assert secret not in str(process.environ())
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_only_live_and_previous_bundles_are_kept_and_the_registry_may_forget_them(endpoint, tmp_path):
    import shutil

    for version in (1, 2, 3):
        release(endpoint, tmp_path, version)
        shutil.rmtree(tmp_path / f"v{version}")
    assert len(list((tmp_path / "home/endpoints/test/bundles").iterdir())) == 2
    endpoint.stop()
    assert endpoint.start().live.version == 3
    assert endpoint.rollback().version == 2


def test_a_live_bundle_that_rots_on_disk_is_reported(endpoint, tmp_path):
    release(endpoint, tmp_path, 1)
    endpoint.stop()
    [model] = (tmp_path / "home/endpoints/test/bundles").glob("*/model.onnx")
    model.write_bytes(b"rotten")
    status = endpoint.start()
    assert status.state == "unhealthy"
    assert "BundleCorrupt" in status.detail


def test_a_home_with_a_long_path_works(tmp_path, secrets):
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    endpoint = make_endpoint(deep, secrets, free_ports(1)[0])
    try:
        release(endpoint, tmp_path, 1)
        assert endpoint.status().state == "running"
        control = endpoint._files.control_socket()
        assert control.parent != deep
    finally:
        endpoint.stop()
    assert not control.parent.exists()


def test_a_missing_bundle_and_a_full_disk_leave_nothing_behind(endpoint, tmp_path, monkeypatch):
    with pytest.raises(ModelNotFound, match="nowhere"):
        endpoint.deploy(tmp_path / "nowhere", LiveModel(name="x", version=1, digest="0" * 64))
    folder, model = bundle(tmp_path, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(endpoint_state.shutil, "copyfile", full)
    with pytest.raises(DiskFull):
        endpoint.deploy(folder, model)
    assert list((tmp_path / "home/endpoints/test/bundles").glob("*")) == []


def test_a_state_file_that_cannot_be_read_is_put_aside(endpoint, tmp_path):
    state = tmp_path / "home/endpoints/test/state.json"
    state.write_text('{"live": {"mo')
    assert endpoint.start().state == "stopped"
    assert state.with_suffix(".unreadable").exists()
    release(endpoint, tmp_path, 1)
    assert endpoint.status().state == "running"


def test_a_candidate_that_nobody_wants_leaves_no_process(endpoint, tmp_path):
    candidate = endpoint.deploy(*bundle(tmp_path, 1))
    supervisor = supervisor_of(endpoint)
    endpoint.discard(candidate)
    assert psutil.wait_procs([supervisor], timeout=60)[1] == []
