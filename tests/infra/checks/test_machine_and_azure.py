import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infra.local import machine_checks as checks
from infra.local.platform.instance import Instance
from infra.settings import PROJECT, Settings
from tests.conftest import free_ports

ENVIRONMENTS = PROJECT / "deployments" / "environments"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    prefect, mlflow, endpoints, *_ = free_ports(6)
    return Settings(home=tmp_path / "home", prefect_port=prefect, mlflow_port=mlflow, endpoint_base_port=endpoints)


@contextmanager
def healthy_service(path: str) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def by_name(findings: list[checks.Finding]) -> dict[str, checks.Finding]:
    return {finding.name: finding for finding in findings}


def test_this_machine_has_no_finding_that_blocks(settings):
    findings = checks.check_machine(settings)
    assert [finding for finding in findings if finding.blocks] == []
    assert len({finding.name for finding in findings}) == len(findings)
    names = by_name(findings)
    assert {"python", "packages", "home", "disk", "memory", "port-prefect", "port-test", "port-production"} <= set(
        names
    )


def test_every_finding_that_is_not_ok_says_what_to_do(settings, tmp_path):
    (tmp_path / "file").write_text("in the way")
    blocked = settings.model_copy(update={"home": tmp_path / "file" / "home", "environments": tmp_path})
    for finding in checks.check_machine(blocked):
        assert finding.ok or finding.fix, finding


@pytest.mark.parametrize(("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 13), True), ((3, 14), False)])
def test_the_python_version_is_checked(version, ok):
    assert checks.check_python(version).ok is ok


def test_a_missing_package_and_a_wrong_version_are_named(monkeypatch):
    def requires(_: str) -> list[str]:
        return ["numpy<1", "no-such-package>=1; extra == 'worker'", "ahclassifier[worker]; extra == 'local'"]

    monkeypatch.setattr(checks.importlib.metadata, "requires", requires)
    finding = checks.check_packages()
    assert finding.blocks
    assert "no-such-package is missing" in finding.detail
    assert "numpy is" in finding.detail
    assert "needed is <1" in finding.detail


def test_a_home_that_cannot_be_written_blocks(tmp_path):
    (tmp_path / "file").write_text("in the way")
    finding = checks.check_home(tmp_path / "file" / "home")
    assert finding.blocks
    assert "AHC_HOME" in finding.fix


def test_a_used_port_is_named_with_the_program_and_the_setting(settings):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        used = other.getsockname()[1]
        finding = by_name(checks.check_ports(settings.model_copy(update={"prefect_port": used})))["port-prefect"]
    assert finding.blocks
    assert str(used) in finding.detail
    assert f"process {checks.os.getpid()}" in finding.detail
    assert "AHC_PREFECT_PORT" in finding.fix


def test_a_port_that_the_platform_itself_uses_is_fine(settings):
    with healthy_service("/api/health") as port:
        finding = by_name(checks.check_ports(settings.model_copy(update={"prefect_port": port})))["port-prefect"]
    assert finding.ok
    assert "platform itself" in finding.detail


def test_a_used_port_of_mlflow_only_warns_and_nobody_connects_to_it(settings):
    """Connecting would start MLflow."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        used = settings.model_copy(update={"mlflow_port": listener.getsockname()[1]})
        finding = by_name(checks.check_ports(used))["port-mlflow"]
        assert not finding.ok
        assert not finding.blocks
        with Instance(used):
            assert by_name(checks.check_ports(used))["port-mlflow"].ok
        assert not checks.platform_runs(used.home)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_little_disk_warns_and_almost_none_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "DISK_WARNS", sys.maxsize)
    assert not checks.check_disk(tmp_path).ok
    assert not checks.check_disk(tmp_path).blocks
    monkeypatch.setattr(checks, "DISK_BLOCKS", sys.maxsize)
    assert checks.check_disk(tmp_path / "not" / "there" / "yet").blocks


def test_environment_files_that_share_a_port_block(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\ndescription: x\nport_offset: 1\n")
    finding = checks.check_environment_files(tmp_path)
    assert finding.blocks
    assert "port_offset" in finding.detail


def test_a_typo_in_an_environment_file_blocks_with_its_name(tmp_path):
    (tmp_path / "one.yaml").write_text("name: one\ndescription: x\nport_ofset: 1\n")
    finding = checks.check_environment_files(tmp_path)
    assert finding.blocks
    assert "port_ofset" in finding.detail
    assert "one.yaml" in finding.detail
