"""Ends what a killed test run leaves behind: `python -m tests.support.reaper TOKEN`.

Every process that runs tests starts one, and holds the other end of its standard input. However that process ends, the
reaper reads the end of its input then, and kills each process that inherited the token.
"""

import os
import subprocess
import sys
import time
import uuid

import psutil

from infra.settings import PROJECT

VARIABLE = "PYTEST_REAPER_TOKEN"
SECONDS = 10.0


def start_reaper() -> "subprocess.Popen[bytes]":
    """Start a reaper for all processes that this one starts from now on; it works when this process has ended."""
    token = uuid.uuid4().hex
    # Without any token: the reaper of the process that started this one must not end it.
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-m", "tests.support.reaper", token]
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment, cwd=PROJECT)
    os.environ[VARIABLE] = token
    return reaper


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """All processes that were started with this in their environment, and have not ended."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def main() -> None:
    token = sys.argv[1]
    sys.stdin.buffer.read()
    # One that is killed may have started another meanwhile.
    deadline = time.monotonic() + SECONDS
    while (processes := processes_with(VARIABLE, token)) and time.monotonic() < deadline:
        for process in processes:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(0.1)


if __name__ == "__main__":
    main()
