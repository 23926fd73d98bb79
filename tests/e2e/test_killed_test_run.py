"""A test run that is killed leaves no server, worker or other process behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.settings import PROJECT
from tests.support.reaper import VARIABLE, processes_with

TEST = """
import time
from pathlib import Path

def test_that_waits(prefect_server):
    Path({ready!r}).write_text(str(prefect_server.home))
    time.sleep(600)
"""


@pytest.mark.e2e
@pytest.mark.parametrize("processes", [0, 1])
def test_a_killed_run_of_tests_leaves_nothing(tmp_path: Path, processes: int) -> None:
    ready = tmp_path / "ready"
    file = PROJECT / "tests" / f"test_waits_{os.getpid()}.py"
    file.write_text(TEST.format(ready=str(ready)), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", VARIABLE))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file), "-n", str(processes)]
    try:
        run = subprocess.Popen(command, cwd=PROJECT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (ready.exists() and ready.read_text()) and time.monotonic() < deadline:
            assert run.poll() is None
            time.sleep(0.2)
        home = ready.read_text()
        assert len(processes_with("AHC_HOME", home)) >= 2, "a server and a worker"
        run.send_signal(signal.SIGKILL)
        run.wait()
        deadline = time.monotonic() + 60
        while processes_with("AHC_HOME", home) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert processes_with("AHC_HOME", home) == []
    finally:
        file.unlink()
