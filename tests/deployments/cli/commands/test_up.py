"""`ahc up`: one platform per home, everything it started ends with it, nothing is lost by a kill."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from infra.settings import PROJECT, Settings
from tests.conftest import free_ports, settings_environment
from tests.deployments.conftest import read_until
from tests.support.reaper import processes_with

pytestmark = pytest.mark.thorough


class Up:
    """One home, and `ahc up` processes on it."""

    def __init__(self, folder: Path) -> None:
        prefect, mlflow, endpoints, *_ = free_ports(6)
        environments = folder / "environments"
        environments.mkdir(parents=True)
        self.settings = Settings(
            home=folder / "home",
            prefect_port=prefect,
            mlflow_port=mlflow,
            endpoint_base_port=endpoints,
            environments=environments,
        )
        self.file = folder / "prefect.yaml"
        self.file.write_text(
            yaml.safe_dump(
                {
                    "deployments": [
                        {
                            "name": "local",
                            "entrypoint": "tests.support.sample_flows.lifecycle",
                            "work_pool": {"name": "local"},
                            "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
                        }
                    ]
                }
            ),
            encoding="utf-8",
        )

    def start(
        self, *arguments: str, source: Path = PROJECT, module: str = "deployments.cli.main"
    ) -> "subprocess.Popen[str]":
        """`ahc up` of this source code, which has the command line in this module."""
        return subprocess.Popen(
            [
                *(sys.executable, "-c", f"from {module} import main; main()"),
                *("up", "--data", str(PROJECT), "--file", str(self.file), *arguments),
            ],
            cwd=source,
            env={**os.environ, **settings_environment(self.settings), "PYTHONPATH": str(source)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[psutil.Process]:
        """All processes that work for this home."""
        return processes_with("AHC_HOME", str(self.settings.home))

    def wait_for_end(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == []


@contextmanager
def ended(up: Up) -> Iterator[Up]:
    """Kill what a failed test leaves."""
    try:
        yield up
    finally:
        for item in up.processes():
            item.kill()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    with ended(Up(tmp_path)) as made:
        yield made


def test_a_used_port_is_named_with_its_program_before_anything_starts(up: Up) -> None:
    with socket.create_server(("127.0.0.1", up.settings.prefect_port)):
        process = up.start("--once")
        shown, _ = process.communicate(timeout=60)
    assert process.returncode == 21, shown
    assert f"Port {up.settings.prefect_port}" in shown
    assert f"process {os.getpid()}" in shown
    assert up.processes() == []


def run_link(shown: str) -> str:
    return next(line for line in shown.splitlines() if "/runs/flow-run/" in line).rsplit("/", 1)[-1]


@pytest.mark.long
def test_kills_and_ctrl_c_lose_nothing_and_leave_nothing(up: Up) -> None:
    """One story on one home, since each start costs seconds."""
    long = ("-p", "data.size.images=10", "-p", "data.size.seconds=60")

    # Killed with SIGKILL in the middle of a step: the next start ends what was left and goes on with the same run.
    first = up.start("--once", *long)
    run = run_link(read_until(first, "… count"))
    first.kill()
    first.communicate()
    assert up.processes()
    second = up.start(*long)
    shown = read_until(second, "was interrupted")
    assert run_link(read_until(second, "… count")) == run

    # Meanwhile another one is refused, and names this one.
    refused = up.start("--once")
    message, _ = refused.communicate(timeout=60)
    assert refused.returncode == 23, message
    assert f"process {second.pid}" in message
    assert up.settings.prefect_ui_url in message

    # MLflow starts when somebody looks, and answers that request.
    assert not any("infra.local.platform.mlflow_server" in item.cmdline() for item in up.processes())
    with urllib.request.urlopen(up.settings.mlflow_url, timeout=60) as page:
        assert b"MLflow" in page.read()

    # A worker that dies is started again.
    worker = next(item for item in up.processes() if "infra.local.platform.prefect_worker" in item.cmdline())
    worker.kill()
    read_until(second, "Starting it again (1 of 5)")

    # SIGTERM in the middle of a step ends everything, and the interrupted run isn't left as running.
    second.send_signal(signal.SIGTERM)
    rest, _ = second.communicate(timeout=60)
    assert second.returncode == 130, shown + rest
    up.wait_for_end()

    # Asked for something else, the next start begins anew; Ctrl-C after the end answers the lifecycle's code.
    third = up.start("-p", "data.size.images=1")
    shown = read_until(third, "Ctrl-C stops it")
    assert run not in shown
    assert "interrupted" not in shown
    third.send_signal(signal.SIGINT)
    rest, _ = third.communicate(timeout=60)
    assert third.returncode == 0, shown + rest
    up.wait_for_end()


def test_a_wrong_parameter_is_named_and_everything_ends(up: Up) -> None:
    process = up.start("--once", "-p", "data.size.imagse=3")
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 20, shown
    assert "did you mean `data.size.images`?" in shown
    up.wait_for_end()


def test_the_lock_file_names_no_one_afterwards(up: Up) -> None:
    from infra.local.platform.instance import Instance, read_instance

    up.settings.path()
    with Instance(up.settings) as instance:
        instance.record("worker", 4242)
        content = json.loads((up.settings.home / "up.lock").read_text(encoding="utf-8"))
        assert content["pid"] == os.getpid()
    assert read_instance(up.settings.home / "up.lock") == {}
