"""`ahc deploy` to a Prefect server of its own: one that asks for credentials, on SQLite and on PostgreSQL."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from infra.local.platform.prefect_settings import prefect_environment
from infra.settings import PROJECT, Settings
from tests.conftest import free_ports

AUTH = "admin:a password"
pytestmark = pytest.mark.long


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps them off PATH."""
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    on_path = shutil.which("initdb")
    return found[-1] if found else Path(on_path).parent if on_path else None


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """The address of an empty database."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no initdb")
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data, [port] = folder / "data", free_ports(1)
    folder.chmod(0o777)
    for parent in folder.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o011) if parent.owner() == folder.owner() else None

    def call(*command: object) -> None:
        subprocess.run([*as_user, *map(str, command)], check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)

    call(programs / "initdb", "-D", data, "-U", "prefect", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    call(programs / "pg_ctl", "-D", data, "-l", data / "log", "-o", options, "-w", "start")
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        call(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a client whose server asks for AUTH."""
    folder, [port] = tmp_path_factory.mktemp("server"), free_ports(1)
    settings = Settings(home=folder / "home", prefect_port=port)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "AHC_"))},
        **prefect_environment(settings),
        "PYTHONPATH": str(PROJECT),
        "AHC_HOME": str(settings.home),
        "PREFECT_API_AUTH_STRING": AUTH,
    }
    with ExitStack() as stack:
        serving = {**environment, "PREFECT_SERVER_API_AUTH_STRING": AUTH}
        if request.param == "postgresql":
            url = stack.enter_context(postgres(tmp_path_factory.mktemp("postgres")))
            serving["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=serving,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        until_healthy(process, f"{environment['PREFECT_API_URL']}/health", folder / "log")
        yield environment


def until_healthy(process: "subprocess.Popen[bytes]", url: str, log: Path, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    raise TimeoutError(log.read_text()[-3000:])


def deploying(environment: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", "from deployments.cli.main import main; main()", "deploy", *arguments],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.timeout(900)
def test_two_pipelines_that_deploy_at_once_both_succeed_and_one_after_the_other(api: dict[str, str]) -> None:
    both = [deploying(api), deploying(api)]
    told = [process.communicate(timeout=400)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sorted("Nothing changed" in text for text in told) == [False, True]
    again = deploying(api, "--dry-run")
    assert "Nothing changed" in again.communicate(timeout=200)[0]


@pytest.mark.timeout(400)
def test_a_wrong_password_says_what_to_set(api: dict[str, str]) -> None:
    refused = deploying({**api, "PREFECT_API_AUTH_STRING": "admin:wrong"}, "--dry-run")
    told = refused.communicate(timeout=200)[0]
    assert "PREFECT_API_AUTH_STRING" in told
    assert refused.returncode == 30, told
