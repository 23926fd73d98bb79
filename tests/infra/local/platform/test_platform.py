"""The processes of the embedded platform, and how Prefect is set up for them."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from infra.errors import AlreadyRunning, ConfigurationError, PlatformUnhealthy, PortInUse
from infra.local.platform.child_process import ChildProcess, session_members
from infra.local.platform.instance import Instance
from infra.local.platform.platform import Platform
from infra.local.platform.ports import listen
from infra.local.platform.prefect_server import prepare_database
from infra.local.platform.prefect_settings import prefect_environment, process_environment, use_prefect
from infra.settings import PROJECT, Settings
from tests.conftest import free_ports, server_process, settings_environment
from tests.support.local_endpoint import eventually

SLEEP = [sys.executable, "-c", "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"]


def child(tmp_path: Path, command: list[str], name: str = "child") -> ChildProcess:
    environment = {**os.environ, "AHC_HOME": str(tmp_path)}
    return ChildProcess(name, command, environment=environment, log=tmp_path / f"{name}.log", descriptors=[])


# --- Prefect's settings -------------------------------------------------------------------------------------------


def test_every_variable_is_a_setting_that_prefect_knows(tmp_path: Path) -> None:
    from prefect.settings import Settings as PrefectSettings
    from prefect.settings.legacy import _get_settings_fields

    fields = _get_settings_fields(PrefectSettings)  # by the names of now and of earlier versions
    known = {*fields, *(field.name for field in fields.values())}
    assert set(prefect_environment(Settings(home=tmp_path))) - {"DO_NOT_TRACK"} <= known


def test_the_callers_server_wins_for_clients(tmp_path: Path) -> None:
    environment = {"PREFECT_API_URL": "https://prefect.example/api"}
    use_prefect(Settings(home=tmp_path), environment)
    assert environment["PREFECT_API_URL"] == "https://prefect.example/api"
    assert environment["PREFECT_RESULTS_PERSIST_BY_DEFAULT"] == "true"


def test_children_find_the_project_and_this_python_wherever_they_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ".")
    environment = process_environment(Settings(home=tmp_path))
    assert all(Path(entry).is_absolute() for entry in environment["PYTHONPATH"].split(os.pathsep))
    answer = subprocess.run(
        ["python", "-c", "import flows, sys; print(sys.executable)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert answer.stdout.strip() == sys.executable, answer.stderr


def test_a_first_start_copies_the_migrated_database_of_an_earlier_one(prefect_server: Settings, tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    began = time.process_time()
    prepare_database(path)
    assert time.process_time() - began < 1
    with sqlite3.connect(path) as copy, sqlite3.connect(prefect_server.home / "prefect" / "prefect.db") as real:
        tables = "select name, sql from sqlite_master order by name"
        assert copy.execute(tables).fetchall() == real.execute(tables).fetchall()
        assert (
            copy.execute("select * from alembic_version").fetchall()
            == real.execute("select * from alembic_version").fetchall()
        )
        assert copy.execute("select count(*) from flow_run").fetchone() == (0,)


# --- ports, the lock, children ------------------------------------------------------------------------------------


def test_an_address_of_another_machine_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        listen("192.0.2.1", 4200, "the Prefect server")


def test_a_home_belongs_to_one_platform_at_a_time(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with Instance(settings) as first:
        first.record("worker", 1)
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"), Instance(settings):
            pass
    with Instance(settings):
        pass


def test_a_stale_lock_file_is_no_hindrance_and_its_processes_are_ended(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    stray = child(tmp_path, SLEEP)
    session = stray.start()
    # What a killed platform leaves: a lock file that nobody holds, which names sessions.
    (tmp_path / "up.lock").write_text(f'{{"pid": 1, "sessions": {{"worker": [{session}]}}}}', encoding="utf-8")
    eventually(lambda: len(session_members([session])) == 2)
    with Instance(settings) as instance:
        assert instance.end_leftovers() == 2
    stray.stop()
    assert session_members([session]) == []


def test_a_session_of_another_home_is_left_alone(tmp_path: Path) -> None:
    other = child(tmp_path, SLEEP)
    session = other.start()
    home = tmp_path / "mine"
    home.mkdir()
    (home / "up.lock").write_text(f'{{"sessions": {{"worker": [{session}]}}}}', encoding="utf-8")
    with Instance(Settings(home=home)) as instance:
        assert instance.end_leftovers() == 0
    assert session_members([session])
    other.stop()


def test_stopping_a_child_ends_what_it_started_before_a_restart_too(tmp_path: Path) -> None:
    supervised = child(tmp_path, SLEEP)
    first = supervised.start()
    eventually(lambda: len(session_members([first])) == 2)
    psutil.Process(first).kill()
    eventually(lambda: supervised.exit_code is not None)
    second = supervised.start()
    supervised.stop()
    assert session_members([first, second]) == []


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(300)"
    )
    supervised = child(tmp_path, [sys.executable, "-c", code])
    session = supervised.start()
    eventually(lambda: supervised.last_lines() == ["on"])
    supervised.stop(patience=0.5)
    assert session_members([session]) == []


def test_a_server_that_can_not_start_is_reported_with_its_last_log_lines(tmp_path: Path) -> None:
    prefect, mlflow = free_ports(2)
    home = tmp_path / "home"
    (home / "prefect").mkdir(parents=True)
    (home / "prefect" / "prefect.db").write_text("this is no database" * 100, encoding="utf-8")
    with (
        Platform(Settings(home=home, prefect_port=prefect, mlflow_port=mlflow)) as platform,
        pytest.raises(PlatformUnhealthy, match=r"(?s)prefect-server ended.*prefect-server\.log.*not a database"),
    ):
        platform.wait_until_ready()


def test_both_ports_are_free_again_when_one_is_taken(tmp_path: Path) -> None:
    prefect, mlflow = free_ports(2)
    settings = Settings(home=tmp_path, prefect_port=prefect, mlflow_port=mlflow)
    with listen("127.0.0.1", mlflow, "this test"), pytest.raises(PortInUse, match="the MLflow UI"), Platform(settings):
        pass
    listen("127.0.0.1", prefect, "this test").close()


# --- the whole ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_server_that_dies_comes_back_and_nobody_who_follows_a_run_loses_a_line(tmp_path: Path) -> None:

    prefect, mlflow = free_ports(2)
    settings = Settings(home=tmp_path / "home", prefect_port=prefect, mlflow_port=mlflow)
    file = tmp_path / "prefect.yaml"
    deployment = {
        "name": "t",
        "entrypoint": "tests.support.sample_flows.sample",
        "work_pool": {"name": "local"},
    }
    file.write_text(yaml.safe_dump({"deployments": [deployment]}), encoding="utf-8")
    environment = {**process_environment(settings), **settings_environment(settings)}
    ahc = [sys.executable, "-c", "from deployments.cli.main import main; main()"]
    told: list[str] = []
    with Platform(settings, told.append) as platform:
        platform.wait_until_ready()
        subprocess.run([*ahc, "deploy", "--file", str(file)], env=environment, cwd=PROJECT, check=True)
        asked = ["trigger", "sample/t", "-p", "data.source=x", "-p", "data.size.images=40", "-p", "data.size.seconds=5"]
        follower = subprocess.Popen([*ahc, *asked], env=environment, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        shown: list[str] = []
        reader = threading.Thread(target=lambda: shown.extend(follower.stdout or []))
        reader.start()
        eventually(lambda: any("counted image" in line for line in shown), 180)
        server_process(settings).kill()
        eventually(lambda: platform.children["prefect-server"].exit_code is not None)
        platform.check()
        platform.wait_until_ready()
        assert follower.wait(90) == 0, "".join(shown)
        reader.join(5)
        with urllib.request.urlopen(f"{settings.prefect_api_url}/health", timeout=5) as answer:
            assert answer.status == 200
    counted = [int(line.rsplit(" ", 1)[-1]) for line in shown if "counted image" in line]
    assert counted == list(range(1, 41))
    assert "prefect-server ended unexpectedly" in told[0]
